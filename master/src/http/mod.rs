//! The master over HTTP: one file per noun. Handlers extract, call and answer; there is no policy here.

mod backups;
mod dashboard;
mod events;
mod health;
mod layout;
mod meta;
mod metrics;
mod nodes;
mod orders;
mod sessions;
mod status;

use crate::gateway::{self, LocalMeta};
use crate::master::Master;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Resource, web};
use anyhow::Context;
use bytes::{Bytes, BytesMut};
use dfs_client::{Blobs, BlobsConfig, DataClient, HttpNodes, MetaClient};
use dfs_proto::{ErrorCode, WireError};
use dfs_service::http::{json_config, no_such_path, path_config, query_config};
use dfs_service::{HttpError, Stopper};
use futures_util::StreamExt;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// Largest body that is not a meta request or a file, bytes: a registration with 100,000 copies.
const CONTROL_BODY_BYTES_MAX: usize = 16 << 20;

/// Threads that serve, at most: the work is the store's and the network's.
const WORKERS_MAX: usize = 8;

/// Idle connections are kept for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// When it is time to end, requests under way get so long, s.
const SHUTDOWN_SECS: u64 = 1;

/// One request to a node, for the gateway.
const NODE_DEADLINE: Duration = Duration::from_secs(30);

/// So long the gateway tries to store one blob: what a restart of a node takes, and no more than somebody at a
/// command line waits for.
const PUT_DEADLINE: Duration = Duration::from_secs(10);

/// What handlers need.
pub struct Services {
    /// The master itself.
    pub master: Arc<Master>,
    /// Its operations as the gateway calls them.
    pub meta: Arc<dyn MetaClient>,
    /// The nodes as the gateway calls them.
    pub data: Arc<dyn DataClient>,
    /// Ends what would go on for ever.
    pub stopper: Stopper,
}

/// The server at `listener`; it runs when it is polled.
pub fn serve(
    master: Arc<Master>,
    listener: TcpListener,
    stopper: Stopper,
) -> anyhow::Result<actix_web::dev::Server> {
    let meta: Arc<dyn MetaClient> = Arc::new(LocalMeta::new(Arc::clone(&master)));
    let nodes = Arc::new(HttpNodes::new(NODE_DEADLINE)?);
    let blobs = BlobsConfig { put_deadline: PUT_DEADLINE, ..BlobsConfig::default() };
    let data: Arc<dyn DataClient> = Blobs::new(Arc::clone(&meta), nodes, blobs);
    let services = web::Data::new(Services { master, meta, data, stopper });
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, WORKERS_MAX);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(services.clone())
            .app_data(json_config(CONTROL_BODY_BYTES_MAX))
            .app_data(path_config())
            .app_data(query_config())
            .configure(routes)
            .default_service(web::to(no_such_path))
    })
    .workers(workers)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(SHUTDOWN_SECS)
    .disable_signals()
    .listen(listener)
    .context("cannot serve at the listener")?;
    Ok(server.run())
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .service(at("/").get(dashboard::show))
        .service(at("/healthz").get(health::show))
        .service(at("/metrics").get(metrics::show))
        .service(at("/v1/sessions").post(sessions::open))
        .service(at("/v1/sessions/{id}").delete(sessions::close))
        .service(at("/v1/meta").post(meta::execute))
        .service(at("/v1/events").get(events::follow))
        .service(at("/v1/status").get(status::show))
        .service(at("/v1/nodes").get(nodes::list))
        .service(at("/v1/nodes/register").post(nodes::register))
        .service(at("/v1/nodes/{id}/heartbeat").post(nodes::heartbeat))
        .service(at("/v1/nodes/{id}/drain").post(nodes::drain))
        .service(at("/v1/nodes/{id}").delete(nodes::remove))
        .service(at("/v1/backups").post(backups::take))
        .service(at("/v1/rebalance").get(nodes::rebalance_status).route(web::post().to(nodes::rebalance)))
        .service(at("/v1/orders/claim").post(orders::claim))
        .service(at("/v1/orders/settle").post(orders::settle))
        .service(at("/v1/orders/finish").post(orders::finish))
        .service(at("/v1/files-layout{path:(/.*)?}").get(layout::show))
        .service(gateway::resource("/files{path:(/.*)?}").default_service(web::to(wrong_method)));
}

/// A path that answers other methods than its own in our form.
fn at(path: &str) -> Noun {
    Noun(web::resource(path).default_service(web::to(wrong_method)))
}

struct Noun(Resource);

impl Noun {
    fn get<F, Args>(self, handler: F) -> Resource
    where
        F: actix_web::Handler<Args>,
        Args: actix_web::FromRequest + 'static,
        F::Output: actix_web::Responder + 'static,
    {
        self.0.route(web::get().to(handler.clone())).route(web::head().to(handler))
    }

    fn post<F, Args>(self, handler: F) -> Resource
    where
        F: actix_web::Handler<Args>,
        Args: actix_web::FromRequest + 'static,
        F::Output: actix_web::Responder + 'static,
    {
        self.0.route(web::post().to(handler))
    }

    fn delete<F, Args>(self, handler: F) -> Resource
    where
        F: actix_web::Handler<Args>,
        Args: actix_web::FromRequest + 'static,
        F::Output: actix_web::Responder + 'static,
    {
        self.0.route(web::delete().to(handler))
    }
}

async fn wrong_method(request: HttpRequest) -> HttpResponse {
    let message = format!("{} is not served at {}", request.method(), request.path());
    HttpResponse::MethodNotAllowed().json(WireError::new(ErrorCode::NotSupported, message))
}

/// Runs `work` to its end even when the client hangs up: what has begun in the store has to be followed by
/// what memory makes of it.
pub async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, WireError>> + Send + 'static,
) -> Result<T, HttpError> {
    let done = tokio::spawn(work).await;
    let failed =
        |e| WireError::new(ErrorCode::Internal, format!("the request could not be carried out: {e}"));
    Ok(done.map_err(failed)??)
}

/// The whole body, at most `bytes_max` of it.
pub async fn whole_body(mut payload: web::Payload, bytes_max: usize) -> Result<Bytes, HttpError> {
    let mut body = BytesMut::new();
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|e| {
            HttpError::new(ErrorCode::Truncated, format!("the body ended before its length: {e}"))
        })?;
        if body.len() + piece.len() > bytes_max {
            return Err(HttpError::new(
                ErrorCode::BodyTooLarge,
                format!("a body may have {bytes_max} bytes here"),
            ));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}
