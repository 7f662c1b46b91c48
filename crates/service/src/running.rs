//! Services that have been started and can be stopped.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Tells background tasks to end. Clones see the same.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Receiver<bool>);

impl Stopper {
    /// Returns when it is time to end.
    pub async fn stopped(&mut self) {
        // An error means that the Running was dropped, which ends the service as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether it is time to end.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Sleeps; `false` when it was cut short because it is time to end.
    pub async fn sleep(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.stopped() => false,
        }
    }
}

/// A started service: where it listens, and how to stop it. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    servers: Vec<actix_web::dev::ServerHandle>,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// A service without a listener or tasks so far.
    pub fn new(name: &'static str) -> Running {
        Running {
            name,
            address: None,
            stop: watch::Sender::new(false),
            servers: Vec::new(),
            tasks: Vec::new(),
        }
    }

    /// For tasks that have to end with the service.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.subscribe())
    }

    /// Runs a background task until it ends by itself; it is given time to do so on [`Running::stop`].
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// Runs an HTTP server that listens at `address`.
    pub fn serve(&mut self, address: SocketAddr, server: actix_web::dev::Server) {
        self.address = Some(address);
        self.servers.push(server.handle());
        let name = self.name;
        self.tasks.push(tokio::spawn(async move {
            if let Err(e) = server.await {
                log::error!("{name}: the HTTP server at {address} failed: {e}");
            }
        }));
    }

    /// Where it listens; `None` for a service without a listener.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Base URL of its listener. Panics for a service without one.
    pub fn url(&self) -> String {
        format!("http://{}", self.address.expect("this service listens"))
    }

    /// Stops: no new requests, those under way may end within `grace`, then the tasks.
    pub async fn stop(mut self, grace: Duration) {
        self.stop.send_replace(true);
        let servers = std::mem::take(&mut self.servers);
        let stopping = async {
            for server in &servers {
                server.stop(true).await;
            }
        };
        if tokio::time::timeout(grace, stopping).await.is_err() {
            for server in &servers {
                server.stop(false).await;
            }
        }
        for mut task in std::mem::take(&mut self.tasks) {
            if tokio::time::timeout(grace, &mut task).await.is_err() {
                log::warn!("{}: a background task did not end within {grace:?} and was cut off", self.name);
                task.abort();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for server in self.servers.drain(..) {
            // The future tells when it is done, which nobody waits for here; the command is sent at once.
            drop(server.stop(false));
        }
    }
}
