//! Blobs in the cluster: [`Blobs`] puts together grants, placement, what was seen of nodes, and the requests
//! to them. Writing is in `writer`, reading in `reader`, fsync in `durable`.

use crate::checksum::Sums;
use crate::grants::GrantPool;
use crate::health::Health;
use crate::lateness::Lateness;
use crate::local::Local;
use crate::placement::Placement;
use crate::{ClientError, DataClient, MetaClient, NodeClient, ask, durable, reader, writer};
use async_trait::async_trait;
use bytes::Bytes;
use dfs_proto::limits::GRANTS_MAX;
use dfs_proto::meta::{CopyProblem, VolumeReach};
use dfs_proto::{BlobId, BlobOrigin, BlobRef, NodeId, NodeInfo, VolumeId, VolumeInfo};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Reports of bad copies under way at a time; further ones are dropped, the copies will be met again.
const REPORTS_MAX: usize = 8;

/// Lines that an error keeps of what was tried.
const TRIES_MAX: usize = 12;

/// How long [`Blobs`] waits for what.
#[derive(Clone, Debug)]
pub struct BlobsConfig {
    /// A blob has to be stored within this, all tries together.
    pub put_deadline: Duration,
    /// One try to store a blob.
    pub put_try: Duration,
    /// One try to fetch a blob from one copy.
    pub get_try: Duration,
    /// When a copy has not come after this, the next one is asked as well, whichever verifies first counts, and
    /// the node is asked last for a while. As soon as it is known how long requests usually take, the next copy
    /// is asked earlier, for a few of a hundred.
    pub hedge_delay: Duration,
    /// While no copy can be reached (as opposed to: is bad), go on for this long.
    pub get_patience: Duration,
    /// [`DataClient::make_durable`] has to be done within this.
    pub durable_deadline: Duration,
    /// One try to sync or pull on one node. What a pull has brought over by then stays.
    pub durable_try: Duration,
    /// Grants fetched at a time, 1 to [`GRANTS_MAX`].
    pub grants: u32,
    /// Whether files of nodes on this host are read directly.
    pub local_reads: bool,
}

impl Default for BlobsConfig {
    fn default() -> BlobsConfig {
        BlobsConfig {
            put_deadline: Duration::from_secs(30),
            put_try: Duration::from_secs(5),
            get_try: Duration::from_secs(10),
            hedge_delay: Duration::from_millis(700),
            get_patience: Duration::from_secs(8),
            durable_deadline: Duration::from_secs(60),
            durable_try: Duration::from_secs(10),
            grants: 16,
            local_reads: true,
        }
    }
}

/// [`DataClient`] over a master and storage nodes.
pub struct Blobs(Arc<Inner>);

/// What writing, reading and syncing have in common.
pub(crate) struct Inner {
    pub meta: Arc<dyn MetaClient>,
    pub nodes: Arc<dyn NodeClient>,
    pub config: BlobsConfig,
    pub placement: Placement,
    pub grants: Arc<GrantPool>,
    pub health: Health,
    pub local: Local,
    /// How long whole blobs took to come, and ranges.
    pub lateness: [Lateness; 2],
    reports: Arc<Semaphore>,
}

impl Blobs {
    /// Blobs of the cluster that `meta` is the master of.
    pub fn new(meta: Arc<dyn MetaClient>, nodes: Arc<dyn NodeClient>, config: BlobsConfig) -> Arc<Blobs> {
        Arc::new(Blobs(Arc::new(Inner {
            grants: GrantPool::new(meta.clone(), config.grants.clamp(1, GRANTS_MAX)),
            meta,
            nodes,
            local: Local::new(config.local_reads),
            lateness: Default::default(),
            config,
            placement: Placement::default(),
            health: Health::default(),
            reports: Arc::new(Semaphore::new(REPORTS_MAX)),
        })))
    }
}

#[async_trait]
impl DataClient for Blobs {
    async fn put(&self, data: Bytes, origin: BlobOrigin) -> Result<BlobRef, ClientError> {
        writer::put(&self.0, data, origin).await
    }

    async fn put_summed(&self, data: Bytes, sums: Sums, origin: BlobOrigin) -> Result<BlobRef, ClientError> {
        writer::put_summed(&self.0, data, sums, origin).await
    }

    async fn get(&self, blob: &BlobRef) -> Result<Bytes, ClientError> {
        reader::get(&self.0, blob).await
    }

    async fn get_range(&self, blob: &BlobRef, start: u32, length: u32) -> Result<Bytes, ClientError> {
        reader::get_range(&self.0, blob, start, length).await
    }

    fn try_get_range(&self, blob: &BlobRef, start: u32, length: u32) -> Option<Bytes> {
        reader::try_get_range(&self.0, blob, start, length)
    }

    async fn make_durable(&self, reach: &[VolumeReach]) -> Result<(), ClientError> {
        durable::make_durable(&self.0, reach).await
    }

    fn learn(&self, volumes: &[VolumeInfo]) {
        volumes.iter().for_each(|v| self.0.placement.learn(Arc::new(v.clone())));
    }

    fn forget_placement(&self) {
        self.0.placement.forget();
    }
}

impl Inner {
    /// Asks the master where a volume is; `None` when it does not know the volume.
    pub async fn locate(&self, id: VolumeId) -> Result<Option<Arc<VolumeInfo>>, ClientError> {
        let found = ask::volume(&*self.meta, id).await?.map(Arc::new);
        if let Some(volume) = &found {
            self.placement.learn(volume.clone());
        }
        Ok(found)
    }

    /// Tells the master of a bad copy, without waiting.
    pub fn report(&self, blob: BlobId, node: NodeId, problem: CopyProblem) {
        let Ok(slot) = self.reports.clone().try_acquire_owned() else {
            log::debug!("too many reports under way; {problem:?} of blob {blob} on node {node} is not told");
            return;
        };
        let meta = self.meta.clone();
        tokio::spawn(async move {
            if let Err(e) = ask::bad_copy(&*meta, blob, node, problem).await {
                log::debug!("the master was not told that blob {blob} on node {node} is {problem:?}: {e}");
            }
            drop(slot);
        });
    }
}

/// Which node failed and why. Errors of the transport name the address themselves.
pub(crate) fn failed_at(node: &NodeInfo, reason: impl std::fmt::Display) -> String {
    let reason = reason.to_string();
    if reason.contains(&node.url) {
        return format!("{}: {reason}", node.name);
    }
    format!("{} ({}): {reason}", node.name, node.url)
}

/// What was tried, for the error in the end. Keeps the latest.
#[derive(Default)]
pub(crate) struct Tries(Vec<String>);

impl Tries {
    pub fn add(&mut self, line: String) {
        if self.0.len() == TRIES_MAX {
            self.0.remove(0);
        }
        self.0.push(line);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_lines(self) -> Vec<String> {
        self.0
    }
}
