//! `/healthz` for those who start it, `/metrics` for those who watch it, `/v1/local` for those on its host.

use crate::node::Node;
use actix_web::{HttpResponse, web};
use dfs_proto::ErrorCode;
use dfs_service::HttpError;
use std::fmt::Write;

/// `GET /healthz`.
pub async fn healthz(node: web::Data<Node>) -> Result<HttpResponse, HttpError> {
    if node.id().is_none() {
        return Err(HttpError::new(ErrorCode::Unavailable, "not registered with the master yet"));
    }
    Ok(HttpResponse::Ok().content_type("text/plain").body("ok"))
}

/// `GET /v1/local`: where readers on this host can ask for descriptors.
pub async fn local(node: web::Data<Node>) -> Result<HttpResponse, HttpError> {
    match &node.local {
        Some(socket) => Ok(HttpResponse::Ok().json(socket)),
        None => {
            Err(HttpError::new(ErrorCode::NotSupported, "this node has no socket for readers on its host"))
        }
    }
}

/// `GET /metrics`, in the text format of Prometheus.
pub async fn metrics(node: web::Data<Node>) -> HttpResponse {
    let (store, requests) = (node.store.metrics(), &node.metrics);
    let counters = [
        ("requests", requests.requests.get(), "HTTP requests"),
        ("errors", requests.errors.get(), "HTTP requests that were refused or failed"),
        ("appends", store.appends.get(), "records appended"),
        ("appended_bytes", store.appended_bytes.get(), "bytes appended, headers included"),
        ("writes", store.writes.get(), "vectored writes that carried them"),
        ("fdatasyncs", store.syncs.get(), "calls of fdatasync"),
        ("reads", store.reads.get(), "blobs read"),
        ("read_bytes", store.read_bytes.get(), "payload bytes read"),
        ("deleted_blobs", store.deleted.get(), "blobs deleted"),
        ("removed_segments", store.removed_segments.get(), "segments removed with nothing alive in them"),
        ("damaged_records", store.damaged_records.get(), "records found damaged while read"),
        ("damaged_places", store.damaged_places.get(), "damage found at the last start"),
        ("pulled_records", requests.pulled_records.get(), "records that came from other nodes"),
        ("pulled_bytes", requests.pulled_bytes.get(), "bytes that came from other nodes"),
        ("repaired_records", requests.repaired.get(), "damaged records that were replaced"),
    ];
    let statuses = node.store.statuses();
    let room = node.store.room();
    let gauges = [
        ("registered", u64::from(node.id().is_some()), "whether the node has registered"),
        ("lease", u64::from(node.has_lease()), "whether the node may take writes"),
        ("volumes", statuses.len() as u64, "copies of volumes"),
        ("blobs", statuses.iter().map(|s| s.blobs).sum(), "blobs that live"),
        ("blob_bytes", statuses.iter().map(|s| s.bytes).sum(), "payload bytes that live"),
        ("segments", node.store.segments() as u64, "segment files"),
        ("quarantined_blobs", node.store.bad().len() as u64, "blobs whose bytes are not good here"),
        ("capacity_bytes", room.capacity, "size of the file system"),
        ("free_bytes", room.available, "what blobs may still take"),
    ];
    let mut text = String::with_capacity(4096);
    for (kind, suffix, values) in [("counter", "_total", &counters[..]), ("gauge", "", &gauges[..])] {
        for (name, value, help) in values {
            let name = format!("dfs_storagenode_{name}{suffix}");
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")
                .expect("writing to a String cannot fail");
        }
    }
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text)
}
