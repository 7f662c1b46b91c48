//! Everything that a running master consists of, for handlers and background tasks.

use crate::backup;
use crate::cluster::{Cluster, OrderQueue};
use crate::config::Config;
use crate::error::from_store;
use crate::events::Events;
use crate::locks::LockWaiters;
use crate::sessions::Sessions;
use crate::stamps::Stamps;
use anyhow::Context;
use dfs_metastore::{Counter, Durability, Store, WriteTxn};
use dfs_proto::{BlobId, EventKind, Ino, SessionId, WireError};
use dfs_service::TokenKey;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Setting: the cluster's name.
const SETTING_CLUSTER: &str = "cluster";

/// Setting: hex of the key that signs capabilities.
const SETTING_TOKEN_KEY: &str = "token_key";

/// Name of the database in the data folder.
const DATABASE: &str = "master.sqlite";

/// A running master.
pub struct Master {
    /// What it was told.
    pub config: Config,
    /// The tables.
    pub store: Store,
    /// What changed.
    pub events: Arc<Events>,
    /// Nodes, volumes, orders.
    pub cluster: Arc<Cluster>,
    /// Clients.
    pub sessions: Arc<Sessions>,
    /// Who waits for a lock.
    pub locks: Arc<LockWaiters>,
    /// Blobs that are being deleted right now; commits that refer to them are refused.
    pub condemned: Arc<Mutex<HashSet<BlobId>>>,
    /// The highest inode number that was ever handed out in a range.
    pub highest_ino: Arc<AtomicU64>,
    /// The times that go into rows.
    pub stamps: Arc<Stamps>,
    /// Operations carried out since the start, for `/metrics`.
    pub counts: Counts,
    /// Held while a backup is taken.
    pub backing_up: tokio::sync::Mutex<()>,
}

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Meta requests.
    pub batches: AtomicU64,
    /// Operations that read.
    pub reads: AtomicU64,
    /// Operations that write.
    pub writes: AtomicU64,
    /// Operations about the cluster.
    pub cluster_ops: AtomicU64,
}

impl Counts {
    /// Grows with everything that may have changed the database.
    pub fn changes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Adds to one of them.
    pub fn add(count: &AtomicU64, by: usize) {
        count.fetch_add(by as u64, Ordering::Relaxed);
    }
}

impl Master {
    /// Opens the data folder, making what is missing.
    pub async fn open(config: Config) -> anyhow::Result<Arc<Master>> {
        config.check()?;
        let data = config.data.clone();
        let opened = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
            let path = data.join(DATABASE);
            backup::take_up(&data, &path)?;
            Store::open_sqlite(&path).with_context(|| format!("cannot open {}", path.display()))
        });
        let store = opened.await.context("opening the database was cut off")??;
        Master::with_store(config, store).await
    }

    /// A master on tables that are open already.
    pub async fn with_store(config: Config, store: Store) -> anyhow::Result<Arc<Master>> {
        let stamps = Stamps::new(config.clock.clone());
        let now = stamps.next();
        let identity = store.write(Durability::Disk, move |txn| {
            dfs_namespace::initialise(txn, now)?;
            let name = setting(txn, SETTING_CLUSTER, || format!("dfs-{:08x}", rand::random::<u32>()))?;
            let key = setting(txn, SETTING_TOKEN_KEY, || TokenKey::random().to_hex())?;
            Ok::<_, dfs_metastore::StoreError>((name, key, txn.take(Counter::Inode, 1)?))
        });
        let (name, key, highest_ino) = identity.await.context("cannot read the cluster's settings")?;
        let key = TokenKey::from_hex(&key).context("the cluster's signing key in the database is damaged")?;
        let queue = OrderQueue::new(config.redis.as_deref(), &name)?;
        let events = Arc::new(Events::default());
        let cluster =
            Cluster::load(config.clone(), name, key, store.clone(), Arc::clone(&events), queue).await?;
        let sessions = Sessions::load(store.clone(), config.clock.clone(), config.session_lease_ms).await?;
        let locks = Arc::new(LockWaiters::new(config.clock.clone()));
        Ok(Arc::new(Master {
            config,
            store,
            events,
            cluster: Arc::new(cluster),
            sessions: Arc::new(sessions),
            locks,
            condemned: Arc::default(),
            highest_ino: Arc::new(AtomicU64::new(highest_ino)),
            stamps: Arc::new(stamps),
            counts: Counts::default(),
            backing_up: tokio::sync::Mutex::default(),
        }))
    }

    /// Tells those who follow the stream what changed. That locks were given up is told only when somebody
    /// waits for one.
    pub fn publish(&self, origin: Option<SessionId>, mut changes: Vec<EventKind>) {
        changes.retain(|change| match change {
            EventKind::Unlocked(ino) => self.locks.is_awaited(*ino),
            _ => true,
        });
        self.events.publish(origin, changes);
    }

    /// Ends a session. `session_expired` when there is none of that number.
    pub async fn close_session(&self, id: SessionId) -> Result<(), WireError> {
        let unlocked = self.sessions.close(id).await?;
        self.publish(None, unlocked.into_iter().map(EventKind::Unlocked).collect());
        Ok(())
    }

    /// Ends sessions that have been silent for too long, and forgets who waited in vain.
    pub async fn expire_sessions(&self) -> Result<(), WireError> {
        let unlocked: Vec<Ino> = self.sessions.expire().await?;
        self.publish(None, unlocked.into_iter().map(EventKind::Unlocked).collect());
        self.locks.forget_silent();
        Ok(())
    }

    /// Totals of the namespace.
    pub async fn stats(&self) -> Result<dfs_metastore::StoreStats, WireError> {
        self.store.read(|txn| txn.stats()).await.map_err(from_store)
    }
}

/// A setting, made when it is missing.
fn setting(
    txn: &mut dyn WriteTxn,
    key: &str,
    make: impl FnOnce() -> String,
) -> Result<String, dfs_metastore::StoreError> {
    if let Some(value) = txn.setting(key)? {
        return Ok(value);
    }
    let value = make();
    txn.put_setting(key, &value)?;
    Ok(value)
}
