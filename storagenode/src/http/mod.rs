//! HTTP: extract, call, answer. Paths and headers are those of `docs/PROTOCOL.md`.
//!
//! Handlers decide nothing about storage; they check capabilities, keep memory bounded and turn errors into
//! answers.

mod backups;
mod blobs;
mod body;
mod health;
mod range;
mod upkeep;
mod volumes;

use crate::node::Node;
use actix_web::dev::{Server, Service};
use actix_web::{App, HttpServer, web};
use dfs_proto::local::LOCAL_PATH;
use dfs_service::http::{json_config, no_such_path, path_config, query_config};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// Largest JSON body: a batch delete of the largest size.
const JSON_BYTES_MAX: usize = 1 << 20;

/// Connections that one thread serves; more wait.
const CONNECTIONS_MAX: usize = 4096;

/// Idle connections are kept so long: clients reuse them for the next blob.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long requests under way may take when the server stops; `Running::stop` has its own, shorter limit.
const SHUTDOWN_SECS: u64 = 30;

/// The server of `node` at `listener`.
pub fn server(node: Arc<Node>, listener: TcpListener, workers: usize) -> std::io::Result<Server> {
    let node = web::Data::from(node);
    let app = move || {
        App::new()
            .wrap_fn(|request, service| {
                let node = request.app_data::<web::Data<Node>>().cloned();
                let answer = service.call(request);
                async move {
                    let answer = answer.await;
                    if let Some(node) = node {
                        node.metrics.requests.add(1);
                        let failed = answer.as_ref().map_or(true, |a| a.status().as_u16() >= 400);
                        node.metrics.errors.add(u64::from(failed));
                    }
                    answer
                }
            })
            .app_data(node.clone())
            .app_data(json_config(JSON_BYTES_MAX))
            .app_data(path_config())
            .app_data(query_config())
            .configure(routes)
            .default_service(web::to(no_such_path))
    };
    Ok(HttpServer::new(app)
        .workers(workers.max(1))
        .max_connections(CONNECTIONS_MAX)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(SHUTDOWN_SECS)
        .disable_signals()
        .listen(listener)?
        .run())
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/healthz", web::get().to(health::healthz))
        .route(LOCAL_PATH, web::get().to(health::local))
        .route("/metrics", web::get().to(health::metrics))
        .route("/v1/blobs/delete", web::post().to(upkeep::delete))
        .service(
            web::resource("/v1/blobs/{volume}/{key}")
                .route(web::put().to(blobs::put))
                .route(web::get().to(blobs::get))
                .route(web::head().to(blobs::head)),
        )
        .route("/v1/blobs/{volume}/{key}/record", web::get().to(upkeep::record))
        .route("/v1/blobs/{volume}/{key}/check", web::get().to(upkeep::check))
        .route("/v1/blobs/{volume}/{key}/repair", web::post().to(upkeep::repair))
        .route("/v1/backups", web::get().to(backups::list))
        .service(
            web::resource("/v1/backups/{name}")
                .route(web::put().to(backups::put))
                .route(web::get().to(backups::get)),
        )
        .route("/v1/volumes", web::get().to(volumes::list))
        .route("/v1/volumes/{volume}", web::get().to(volumes::status))
        .route("/v1/volumes/{volume}/log", web::get().to(volumes::log))
        .route("/v1/volumes/{volume}/pull", web::post().to(volumes::pull))
        .route("/v1/volumes/{volume}/sync", web::post().to(volumes::sync))
        .route("/v1/volumes/{volume}/verify", web::post().to(volumes::verify))
        .route("/v1/volumes/{volume}/drop", web::post().to(volumes::drop_copy));
}
