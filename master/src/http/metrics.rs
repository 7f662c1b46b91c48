//! `/metrics`: the text format of Prometheus.

use super::Services;
use crate::master::Master;
use actix_web::{HttpResponse, web};
use dfs_proto::NodeState;
use dfs_service::HttpError;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// `GET /metrics`
pub async fn show(services: web::Data<Services>) -> Result<HttpResponse, HttpError> {
    let text = render(&services.master).await?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}

async fn render(master: &Master) -> Result<String, HttpError> {
    let mut text = String::new();
    let counts = &master.counts;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    for (name, help, value) in [
        ("meta_requests", "Meta requests carried out.", read(&counts.batches)),
        ("read_operations", "Operations that read the namespace.", read(&counts.reads)),
        ("write_operations", "Operations that change the namespace.", read(&counts.writes)),
        ("cluster_operations", "Operations about nodes, volumes and leases.", read(&counts.cluster_ops)),
    ] {
        metric(&mut text, &format!("dfs_master_{name}_total"), "counter", help, value);
    }
    let stats = master.stats().await?;
    let totals = master.cluster.totals();
    let replication = master.cluster.replication_in_memory();
    for (name, help, value) in [
        ("files", "Regular files.", stats.files),
        ("directories", "Directories.", stats.directories),
        ("inodes", "Inodes of every kind.", stats.inodes),
        ("file_bytes", "Sum of the sizes of files.", stats.file_bytes),
        ("sessions", "Clients with a session.", master.sessions.count() as u64),
        ("open_files", "Different files that sessions have open.", master.sessions.open_files() as u64),
        ("locks", "Locks that are held.", stats.locks),
        ("lock_waiters", "Waits for a lock.", master.locks.count() as u64),
        ("volumes", "Volumes.", totals.volumes),
        ("volumes_open", "Volumes that take appends.", totals.volumes_open),
        ("volumes_behind", "Volumes with too few whole copies.", replication.volumes_behind),
        ("records_behind", "Records that copies still have to get.", replication.records_behind),
        ("replication_lag_ms", "Age of the oldest want of a copy.", replication.lag_ms),
        ("bad_blobs", "Damaged records that wait for repair.", replication.bad_blobs),
        ("orders_out", "Orders that are with the queue or a replicator.", replication.orders_queued),
    ] {
        metric(&mut text, &format!("dfs_master_{name}"), "gauge", help, value);
    }
    nodes(&mut text, master);
    Ok(text)
}

fn nodes(text: &mut String, master: &Master) {
    let nodes = master.cluster.node_statuses();
    header(text, "dfs_master_nodes", "gauge", "Storage nodes by state.");
    for (label, state) in
        [("live", NodeState::Live), ("suspect", NodeState::Suspect), ("dead", NodeState::Dead)]
    {
        let count = nodes.iter().filter(|n| n.info.state == state).count();
        line(text, &format!("dfs_master_nodes{{state=\"{label}\"}}"), count as u64);
    }
    header(text, "dfs_master_node_free_bytes", "gauge", "What a node can still take.");
    for node in &nodes {
        // Names are letters, digits and a few signs without a meaning in labels.
        let name = format!("dfs_master_node_free_bytes{{node=\"{}\"}}", node.info.name);
        line(text, &name, node.free_bytes);
    }
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    header(text, name, kind, help);
    line(text, name, value);
}

fn header(text: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("writing to a String cannot fail");
}

fn line(text: &mut String, name: &str, value: u64) {
    writeln!(text, "{name} {value}").expect("writing to a String cannot fail");
}
