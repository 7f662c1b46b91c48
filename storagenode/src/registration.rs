//! The node's standing with the master: registering, heartbeats, the lease.
//!
//! Never gives up: a master that is away, restarts or forgets the node finds it again. A refusal (another
//! cluster, a wrong key) is logged and tried again slowly, because only a person can mend it.

use crate::config::Config;
use crate::identity::Identity;
use crate::node::Node;
use dfs_client::{ClientError, MasterClient};
use dfs_proto::node::{HeartbeatRequest, RegisterReply, RegisterRequest};
use dfs_proto::{ErrorCode, NodeId};
use dfs_service::{Backoff, Stopper, TokenKey};
use std::sync::Arc;
use std::time::Duration;

/// Between tries to register.
const REGISTER_BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) };

/// After a refusal that a person has to mend.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// Damaged blobs in one heartbeat.
const BAD_BLOBS_MAX: usize = 1024;

/// Bounds for the interval that the master names.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// The task that keeps a node registered.
pub struct Registration {
    /// The node.
    pub node: Arc<Node>,
    /// The master.
    pub master: MasterClient,
    /// The node's settings.
    pub config: Config,
    /// Who it is.
    pub identity: Identity,
    /// Random number of this run.
    pub incarnation: u64,
    /// Base URL that others reach it by.
    pub url: String,
}

impl Registration {
    /// Runs until the service is stopped.
    pub async fn run(mut self, mut stopper: Stopper) {
        while let Some((id, heartbeat)) = self.register(&mut stopper).await {
            log::info!("{}: registered as node {id} at {}", self.identity.name, self.master.url());
            if !self.keep_up(id, heartbeat, &mut stopper).await {
                return;
            }
        }
    }

    /// Registers, however long it takes; `None` when the service is stopped.
    async fn register(&mut self, stopper: &mut Stopper) -> Option<(NodeId, Duration)> {
        for attempt in 0.. {
            let asked_ms = self.node.clock.monotonic_ms();
            let request = self.request().await;
            let reply = tokio::select! {
                reply = self.master.register(&request) => reply,
                () = stopper.stopped() => return None,
            };
            let pause = match reply {
                Ok(reply) => match self.accept(&reply, asked_ms) {
                    Ok(heartbeat) => return Some((reply.node, heartbeat)),
                    Err(e) => {
                        log::error!("the master's answer to the registration is of no use: {e:#}");
                        REFUSED_PAUSE
                    }
                },
                Err(e) if is_refusal(&e) => {
                    log::error!("{} refuses this node: {e}", self.master.url());
                    REFUSED_PAUSE
                }
                Err(e) => {
                    if attempt == 0 {
                        log::warn!("cannot register yet: {e}; trying until it works");
                    }
                    REGISTER_BACKOFF.delay(attempt, &mut rand::rng())
                }
            };
            if !stopper.sleep(pause).await {
                return None;
            }
        }
        None
    }

    async fn request(&self) -> RegisterRequest {
        // Everything is told anew, so nothing that changed before needs a report of its own.
        let copies = {
            self.node.store.take_changed();
            self.node.store.statuses()
        };
        let room = self.node.store.room();
        RegisterRequest {
            uuid: self.identity.uuid.clone(),
            incarnation: self.incarnation,
            name: self.identity.name.clone(),
            url: self.url.clone(),
            zone: self.config.zone.clone(),
            cluster: self.identity.cluster.clone(),
            cluster_key: self.config.cluster_key.clone(),
            capacity_bytes: room.capacity,
            free_bytes: room.available,
            used_bytes: self.used_bytes().await,
            copies,
        }
    }

    async fn used_bytes(&self) -> u64 {
        let store = self.node.store.clone();
        tokio::task::spawn_blocking(move || store.used_bytes()).await.unwrap_or_default()
    }

    /// Takes up what the master answered.
    fn accept(&mut self, reply: &RegisterReply, asked_ms: u64) -> anyhow::Result<Duration> {
        let key = TokenKey::from_hex(&reply.token_key)
            .ok_or_else(|| anyhow::anyhow!("the key for capabilities is not 64 hex digits"))?;
        let now = Identity {
            uuid: self.identity.uuid.clone(),
            cluster: reply.cluster.clone(),
            name: reply.name.clone(),
        };
        if now != self.identity {
            // A few hundred bytes, once in the life of a directory.
            now.save(&self.config.data)?;
            self.identity = now;
        }
        self.node.store.mark_unreported(self.node.store.bad());
        self.node.registered(reply, key, asked_ms);
        Ok(Duration::from_millis(reply.heartbeat_ms).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX))
    }

    /// Sends heartbeats until the master has forgotten the node (`true`) or the service is stopped.
    async fn keep_up(&self, id: NodeId, interval: Duration, stopper: &mut Stopper) -> bool {
        let mut away = false;
        while stopper.sleep(interval).await {
            let beat = tokio::select! {
                beat = self.heartbeat(id) => beat,
                () = stopper.stopped() => return false,
            };
            match beat {
                Ok(()) => {
                    if away {
                        log::info!("{} answers again", self.master.url());
                    }
                    away = false;
                }
                Err(e) if matches!(e.code(), ErrorCode::SessionExpired | ErrorCode::NotFound) => {
                    log::warn!(
                        "{} does not know this node any more ({e}); registering again",
                        self.master.url()
                    );
                    return true;
                }
                Err(e) => {
                    if !away {
                        log::warn!("a heartbeat was not answered: {e}");
                    }
                    away = true;
                }
            }
        }
        false
    }

    async fn heartbeat(&self, id: NodeId) -> Result<(), ClientError> {
        let store = &self.node.store;
        let asked_ms = self.node.clock.monotonic_ms();
        let used_bytes = self.used_bytes().await;
        let mut report =
            Report { store, copies: store.take_changed(), bad: store.take_bad(BAD_BLOBS_MAX), heard: false };
        let room = store.room();
        let request = HeartbeatRequest {
            incarnation: self.incarnation,
            capacity_bytes: room.capacity,
            free_bytes: room.available,
            used_bytes,
            copies: report.copies.clone(),
            bad_blobs: report.bad.clone(),
            scrub: self.node.scrub.status(),
        };
        let reply = self.master.heartbeat(id, &request).await?;
        report.heard = true;
        self.node.heard(reply.open_volumes, asked_ms);
        Ok(())
    }
}

/// What a heartbeat tells; goes back to what is still to be told unless the master heard it, also when the
/// heartbeat is abandoned half-way.
struct Report<'a> {
    store: &'a crate::store::BlobStore,
    copies: Vec<dfs_proto::blob::CopyStatus>,
    bad: Vec<dfs_proto::BlobId>,
    heard: bool,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if !self.heard {
            self.store.mark_changed(self.copies.iter().map(|copy| copy.volume));
            self.store.mark_unreported(self.bad.iter().copied());
        }
    }
}

/// Whether only a person can mend it.
fn is_refusal(e: &ClientError) -> bool {
    matches!(e, ClientError::Remote(e) if !e.code.is_transient())
}
