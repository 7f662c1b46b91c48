//! `dfs status`

use super::node;
use crate::connection;
use crate::failure::{Failure, OrFail};
use crate::output::{self, Output};
use dfs_proto::NodeState;
use dfs_proto::node::NodeStatus;
use dfs_proto::order::{DeadLetter, OrderTask};
use dfs_proto::status::{ClusterStatus, ReplicationStatus};

pub(crate) async fn run(url: &str, out: Output) -> Result<(), Failure> {
    let master = connection::master(url)?;
    let status = master.status().await.or_fail(|| format!("ask the master at {url}"))?;
    out.tell(&status, || text(&status, master.url()))
}

fn text(s: &ClusterStatus, url: &str) -> String {
    let live = s.nodes.iter().filter(|n| n.info.state == NodeState::Live);
    let (live_count, free, capacity) = live.fold((0, 0u64, 0u64), |(count, free, capacity), n| {
        (count + 1, free.saturating_add(n.free_bytes), capacity.saturating_add(n.capacity_bytes))
    });
    let nodes = format!(
        "{live_count} of {} live, {} free of {}",
        s.nodes.len(),
        output::bytes(free),
        output::bytes(capacity)
    );
    let files = format!(
        "{} in {}, {}",
        output::counted(s.files, "file", "files"),
        output::counted(s.directories, "directory", "directories"),
        output::bytes(s.file_bytes)
    );
    let copies =
        format!("{} of each file wanted, {}", s.replicas, output::counted(s.volumes, "volume", "volumes"));
    let rows = [
        ["master", &format!("{url}, dfs {}", s.version)],
        ["holds", &files],
        ["nodes", &nodes],
        ["copies", &copies],
        ["replication", &replication(&s.replication)],
        ["scrub", &scrub(&s.nodes)],
        ["sessions", &output::number(s.sessions)],
    ];
    let rows = rows.map(|[label, text]| vec![format!("  {label}"), text.to_owned()]);
    let mut text = format!("Cluster {}\n{}", s.cluster, output::table(&rows, &[]));
    if !s.nodes.is_empty() {
        text += &format!("\n\n{}", node::table(&s.nodes));
    }
    if !s.replication.dead_letters.is_empty() {
        text += "\n\nOrders that were given up, newest first:";
        for letter in &s.replication.dead_letters {
            text += &format!("\n  {}", dead_letter(letter));
        }
    }
    text
}

fn replication(r: &ReplicationStatus) -> String {
    let mut parts = Vec::new();
    if r.volumes_behind == 0 {
        parts.push("every copy is whole".to_owned());
    } else {
        parts.push(format!(
            "{} behind by {}, the oldest for {}",
            output::counted(r.volumes_behind, "volume", "volumes"),
            output::counted(r.records_behind, "record", "records"),
            output::span(r.lag_ms)
        ));
    }
    if r.bad_blobs > 0 {
        parts.push(format!(
            "{} waiting for repair",
            output::counted(r.bad_blobs, "damaged record", "damaged records")
        ));
    }
    if r.orders_queued > 0 {
        parts.push(format!("{} queued", output::counted(r.orders_queued, "order", "orders")));
    }
    let dead = r.dead_letters.len() as u64;
    parts.push(if dead == 0 {
        "no dead letters".to_owned()
    } else {
        output::counted(dead, "dead letter", "dead letters")
    });
    parts.join("; ")
}

/// How far the nodes are with verifying what they hold.
fn scrub(nodes: &[NodeStatus]) -> String {
    let found: u64 = nodes.iter().map(|n| n.scrub.found).sum();
    let found = output::counted(found, "damaged record was found", "damaged records were found");
    let at_it = nodes.iter().filter(|n| n.scrub.began_ms > n.scrub.finished_ms);
    let at_it: Vec<String> = at_it
        .map(|n| {
            // A node that has deleted meanwhile has verified more than it holds.
            let percent = (n.scrub.verified_bytes.saturating_mul(100) / n.used_bytes.max(1)).min(100);
            format!("{} is at {percent} %", n.info.name)
        })
        .collect();
    let waiting = nodes.iter().filter(|n| n.scrub.finished_ms == 0).count() as u64;
    match (at_it.is_empty(), waiting) {
        (true, 0) => format!("everything was read and verified; {found}"),
        (true, _) => format!("{} not read through yet; {found}", output::counted(waiting, "node", "nodes")),
        (false, _) => format!("{}; {found}", at_it.join(", ")),
    }
}

fn dead_letter(letter: &DeadLetter) -> String {
    let order = &letter.order;
    let task = match order.task {
        OrderTask::CatchUp(seq) => format!("bring volume {} up to {seq}", order.volume),
        OrderTask::Repair(key) => format!("repair record {}/{key}", order.volume),
    };
    let target = &order.target.name;
    format!("order {}: {task} on {target} ({}): {}", order.id, order.hint, letter.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_is_told_in_words() {
        let quiet = ReplicationStatus::default();
        assert_eq!(replication(&quiet), "every copy is whole; no dead letters");
        let busy = ReplicationStatus {
            volumes_behind: 2,
            records_behind: 1,
            lag_ms: 1500,
            bad_blobs: 1,
            orders_queued: 3,
            dead_letters: Vec::new(),
        };
        assert_eq!(
            replication(&busy),
            "2 volumes behind by 1 record, the oldest for 1.5 s; 1 damaged record waiting for repair; \
             3 orders queued; no dead letters"
        );
    }
}
