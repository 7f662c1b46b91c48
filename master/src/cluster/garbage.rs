//! Deleting blobs that nothing refers to.
//!
//! A blob is on the garbage list from the transaction that took its last reference. After the grace period it
//! is condemned: in one write transaction it is checked that nothing refers to it, and from then on (until the
//! nodes have been told) a commit that refers to it is refused. Then every holder is told, and when all have
//! confirmed, the row goes. A blob that a holder could not be told about goes to the end of the line and is
//! told again to all, which is idempotent; so a row stays until every member has confirmed, however long one is
//! away.
//!
//! A commit can bring a blob back only before it is condemned (the namespace takes it off the list in the same
//! transaction). After that, who still knows its name must have forgotten it for longer than the grace period:
//! an open file keeps its blobs, as an orphan, and is no garbage.

use crate::cluster::Cluster;
use crate::error::from_store;
use crate::master::Master;
use dfs_client::NodeClient;
use dfs_metastore::{Durability, GarbageRow};
use dfs_proto::limits::DELETE_BLOBS_MAX;
use dfs_proto::{BlobId, BlobKey, NodeId, NodeState, Timestamp, VolumeId, WireError};
use dfs_service::{Capability, Rights};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Nodes that are told at the same time.
const NODES_AT_ONCE_MAX: usize = 16;

/// How long the capability to delete is good, ms.
const TOKEN_LIFE_MS: u64 = 600_000;

/// Deletes a batch of garbage; returns how many blobs it looked at.
pub async fn collect_garbage(master: &Master, nodes: &Arc<dyn NodeClient>) -> Result<usize, WireError> {
    let before = timestamp(master.config.clock.0.wall_ms().saturating_sub(master.config.garbage_grace_ms));
    let result = delete_batch(master, nodes, before).await;
    master.condemned.lock().clear();
    result
}

async fn delete_batch(
    master: &Master,
    nodes: &Arc<dyn NodeClient>,
    before: Timestamp,
) -> Result<usize, WireError> {
    let blobs = condemn(master, before).await?;
    if blobs.is_empty() {
        return Ok(0);
    }
    let holders = master.cluster.holders(&blobs);
    let wall_ms = master.config.clock.0.wall_ms();
    let token = delete_token(&master.cluster, wall_ms);
    let failed = tell(nodes, &holders, &token).await;
    settle(master, &blobs, &holders, &failed, timestamp(wall_ms)).await?;
    Ok(blobs.len())
}

/// Takes the oldest garbage that nothing refers to, and marks it so that nothing will.
async fn condemn(master: &Master, before: Timestamp) -> Result<Vec<GarbageRow>, WireError> {
    let condemned = master.condemned.clone();
    let rows = master.store.read(move |txn| txn.garbage(before, DELETE_BLOBS_MAX as u32));
    let rows = rows.await.map_err(from_store)?;
    if rows.is_empty() {
        return Ok(rows);
    }
    let checked = master.store.write(Durability::Process, move |txn| {
        let mut blobs = Vec::with_capacity(rows.len());
        for row in rows {
            if txn.blob_in_use(row.blob)? {
                txn.delete_garbage(row.blob)?;
            } else {
                blobs.push(row);
            }
        }
        condemned.lock().extend(blobs.iter().map(|row| row.blob));
        Ok(blobs)
    });
    checked.await.map_err(from_store)
}

/// Whom to tell about what.
struct Holders {
    /// Base URL of each node in reach, and its blobs.
    reachable: BTreeMap<NodeId, (String, Vec<BlobId>)>,
    /// Nodes that have to be told later.
    away: HashSet<NodeId>,
    members: HashMap<VolumeId, Vec<NodeId>>,
}

impl Cluster {
    fn holders(&self, blobs: &[GarbageRow]) -> Holders {
        let now_ms = self.now_ms();
        let mut state = self.state.lock();
        let mut holders =
            Holders { reachable: BTreeMap::new(), away: HashSet::new(), members: HashMap::new() };
        for GarbageRow { blob, .. } in blobs {
            let Some(volume) = state.volumes.get(&blob.volume) else { continue };
            let members: Vec<NodeId> = volume.members.iter().map(|m| m.node).collect();
            for node in &members {
                match state.node_info(*node, now_ms) {
                    Some(info) if info.state == NodeState::Live => {
                        let entry = holders.reachable.entry(*node).or_insert((info.url, Vec::new()));
                        entry.1.push(*blob);
                    }
                    _ => {
                        holders.away.insert(*node);
                    }
                }
            }
            holders.members.entry(blob.volume).or_insert(members);
        }
        let gone: HashSet<BlobId> = blobs.iter().map(|row| row.blob).collect();
        state.orders.forget_blobs(|blob| gone.contains(&blob));
        holders
    }
}

/// A token that allows deleting anything, for a while from `wall_ms` on.
pub fn delete_token(cluster: &Cluster, wall_ms: u64) -> String {
    let nothing = BlobKey(0);
    cluster.key.sign(&Capability {
        rights: Rights::Delete,
        volume: VolumeId(0),
        first: nothing,
        end: nothing,
        expires_ms: wall_ms + TOKEN_LIFE_MS,
    })
}

/// Tells the nodes; returns those that did not confirm, and those that are away.
async fn tell(nodes: &Arc<dyn NodeClient>, holders: &Holders, token: &str) -> HashSet<NodeId> {
    use futures_util::stream::{self, StreamExt};
    let mut tellings = Vec::new();
    for (id, (url, blobs)) in &holders.reachable {
        tellings.push(tell_one(Arc::clone(nodes), *id, url.clone(), blobs.clone(), token.to_owned()));
    }
    let told: Vec<Option<NodeId>> =
        stream::iter(tellings).buffer_unordered(NODES_AT_ONCE_MAX).collect().await;
    told.into_iter().flatten().chain(holders.away.iter().copied()).collect()
}

/// Tells one node; gives it back when it did not confirm.
async fn tell_one(
    nodes: Arc<dyn NodeClient>,
    id: NodeId,
    url: String,
    blobs: Vec<BlobId>,
    token: String,
) -> Option<NodeId> {
    match nodes.delete(&url, &blobs, &token).await {
        Ok(reply) => {
            log::debug!("node {id} deleted {} blobs, {} were absent", reply.deleted, reply.absent);
            None
        }
        Err(e) => {
            log::warn!("node {id} did not delete {} blobs; it is told again later: {e}", blobs.len());
            Some(id)
        }
    }
}

/// Forgets what all holders have confirmed; puts the rest at the end of the line.
async fn settle(
    master: &Master,
    blobs: &[GarbageRow],
    holders: &Holders,
    failed: &HashSet<NodeId>,
    now: Timestamp,
) -> Result<(), WireError> {
    let is_left = |row: &&GarbageRow| {
        holders.members.get(&row.blob.volume).is_some_and(|m| m.iter().any(|node| failed.contains(node)))
    };
    let (left, done): (Vec<&GarbageRow>, Vec<&GarbageRow>) = blobs.iter().partition(is_left);
    let left: Vec<GarbageRow> = left.into_iter().map(|row| GarbageRow { since: now, ..*row }).collect();
    let done: Vec<BlobId> = done.into_iter().map(|row| row.blob).collect();
    let written = master.store.write(Durability::Process, move |txn| {
        left.iter().try_for_each(|row| txn.put_garbage(row))?;
        done.iter().try_for_each(|blob| txn.delete_garbage(*blob))
    });
    written.await.map_err(from_store)
}

fn timestamp(wall_ms: u64) -> Timestamp {
    let since_1970 = Duration::from_millis(wall_ms);
    Timestamp { secs: since_1970.as_secs() as i64, nanos: since_1970.subsec_nanos() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, SharedClock};
    use crate::meta::execute_one;
    use async_trait::async_trait;
    use bytes::Bytes;
    use dfs_client::{ClientError, FetchedBlob, PutBlob};
    use dfs_metastore::Store;
    use dfs_proto::blob::{
        CheckReply, CopyStatus, DeleteReply, PullReply, PullRequest, VerifyReply, VerifyRequest,
    };
    use dfs_proto::meta::{CloneRange, Collision, Commit, CommitSize, Create, WriteOp};
    use dfs_proto::node::RegisterRequest;
    use dfs_proto::{BlobRef, CollisionPolicy, ErrorCode, Extent, Ino, Md5, MetaOp, MetaReply, PutAck, Seq};
    use dfs_service::ManualClock;
    use parking_lot::Mutex;

    const GRACE_MS: u64 = 1_000;

    /// Nodes that delete, or refuse to, and note what they were told.
    #[derive(Default)]
    struct Nodes {
        refusing: Mutex<HashSet<String>>,
        told: Mutex<Vec<(String, BlobId)>>,
    }

    #[async_trait]
    impl NodeClient for Nodes {
        async fn delete(&self, url: &str, blobs: &[BlobId], _: &str) -> Result<DeleteReply, ClientError> {
            if self.refusing.lock().contains(url) {
                return Err(ClientError::local(ErrorCode::Unavailable, "no"));
            }
            self.told.lock().extend(blobs.iter().map(|blob| (url.to_owned(), *blob)));
            Ok(DeleteReply { deleted: blobs.len() as u64, absent: 0 })
        }
        async fn put(&self, _: &str, _: BlobId, _: PutBlob) -> Result<PutAck, ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
        async fn get(&self, _: &str, _: BlobId) -> Result<FetchedBlob, ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
        async fn get_chunks(
            &self,
            _: &str,
            _: BlobId,
            _: std::ops::Range<u32>,
        ) -> Result<FetchedBlob, ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
        async fn pull(
            &self,
            _: &str,
            _: VolumeId,
            _: &PullRequest,
            _: &str,
        ) -> Result<PullReply, ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
        async fn sync(&self, _: &str, _: VolumeId, _: Seq, _: &str) -> Result<CopyStatus, ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
        async fn repair(&self, _: &str, _: BlobId, _: &str, _: &str) -> Result<(), ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
        async fn check(&self, _: &str, _: BlobId) -> Result<CheckReply, ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
        async fn verify(&self, _: &str, _: VolumeId, _: VerifyRequest) -> Result<VerifyReply, ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
        async fn drop_copy(&self, _: &str, _: VolumeId, _: &str) -> Result<bool, ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
        async fn log(&self, _: &str, _: VolumeId, _: Seq, _: u64) -> Result<(Seq, Bytes), ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
        async fn record(&self, _: &str, _: BlobId) -> Result<Bytes, ClientError> {
            unreachable!("garbage is deleted, nothing else")
        }
    }

    struct Scene {
        master: Arc<Master>,
        clock: Arc<ManualClock>,
        nodes: Arc<Nodes>,
        volume: VolumeId,
    }

    /// Two nodes with a volume on both.
    async fn scene() -> Scene {
        let clock = Arc::new(ManualClock::default());
        clock.advance_ms(1_000_000);
        let mut config = Config::new("/nowhere");
        config.clock = SharedClock(clock.clone());
        config.garbage_grace_ms = GRACE_MS;
        let master = Master::with_store(config, Store::in_memory()).await.unwrap();
        for uuid in ["a", "b"] {
            let request = RegisterRequest {
                uuid: uuid.into(),
                incarnation: 1,
                name: String::new(),
                url: format!("http://{uuid}:1"),
                zone: String::new(),
                cluster: String::new(),
                cluster_key: String::new(),
                capacity_bytes: 1 << 40,
                free_bytes: 1 << 40,
                used_bytes: 0,
                copies: Vec::new(),
            };
            master.cluster.register(request, None).await.unwrap();
        }
        master.cluster.sweep().await.unwrap();
        let volume = master.cluster.grants(1, &[]).await.unwrap()[0].volume.clone();
        assert_eq!(volume.copies.len(), 2);
        Scene { master, clock, nodes: Arc::default(), volume: volume.id }
    }

    impl Scene {
        async fn throw_away(&self, key: u64) -> BlobId {
            let blob = BlobId { volume: self.volume, key: BlobKey(key) };
            let since = timestamp(self.clock.wall_ms());
            let row = GarbageRow { blob, length: 1, since };
            let put = self.master.store.write(Durability::Process, move |txn| txn.put_garbage(&row));
            put.await.map_err(from_store).unwrap();
            blob
        }

        async fn collect(&self) -> usize {
            let nodes: Arc<dyn NodeClient> = self.nodes.clone();
            collect_garbage(&self.master, &nodes).await.unwrap()
        }

        async fn left(&self) -> usize {
            let all = Timestamp { secs: i64::MAX, nanos: 0 };
            self.master.store.read(move |txn| txn.garbage(all, 100)).await.map_err(from_store).unwrap().len()
        }
    }

    use dfs_service::Clock;

    #[tokio::test]
    async fn garbage_waits_for_its_grace_and_goes_when_every_holder_has_confirmed() {
        let s = scene().await;
        let blob = s.throw_away(1).await;
        assert_eq!(s.collect().await, 0);
        s.clock.advance_ms(GRACE_MS + 1);
        assert_eq!(s.collect().await, 1);
        let mut told = s.nodes.told.lock().clone();
        told.sort();
        assert_eq!(told, [("http://a:1".to_owned(), blob), ("http://b:1".to_owned(), blob)]);
        assert_eq!(s.left().await, 0);
    }

    #[tokio::test]
    async fn a_holder_that_does_not_confirm_is_told_again_and_holds_up_nobody() {
        let s = scene().await;
        s.nodes.refusing.lock().insert("http://b:1".into());
        s.throw_away(1).await;
        s.clock.advance_ms(GRACE_MS + 1);
        assert_eq!(s.collect().await, 1);
        assert_eq!(s.left().await, 1);
        assert_eq!(s.collect().await, 0);
        s.nodes.refusing.lock().clear();
        s.clock.advance_ms(GRACE_MS + 1);
        assert_eq!(s.collect().await, 1);
        assert_eq!(s.left().await, 0);
        assert!(s.master.condemned.lock().is_empty());
    }

    #[tokio::test]
    async fn a_blob_that_is_referred_to_again_is_kept() {
        let s = scene().await;
        let id = s.throw_away(1).await;
        let blob = Some(BlobRef { id, seq: Seq(1), length: 1, md5: Md5([0; 16]) });
        let extent = Extent { offset: 0, length: 1, blob, blob_offset: 0 };
        let put = s.master.store.write(Durability::Process, move |txn| txn.put_extent(Ino(9), &extent));
        put.await.map_err(from_store).unwrap();
        s.clock.advance_ms(GRACE_MS + 1);
        assert_eq!(s.collect().await, 0);
        assert_eq!(*s.nodes.told.lock(), []);
        assert_eq!(s.left().await, 0);
    }

    /// A file of one byte; empty without a blob.
    async fn put(s: &Scene, name: &str, blob: Option<BlobRef>) -> Ino {
        let extent = |blob| Extent { offset: 0, length: 1, blob: Some(blob), blob_offset: 0 };
        let commit = Commit {
            ino: Ino(0),
            create: Some(Create {
                parent: Ino::ROOT,
                name: name.try_into().unwrap(),
                mode: 0o600,
                umask: 0,
                uid: 0,
                gid: 0,
                born: None,
                collision: Collision::Explicit(CollisionPolicy::Replace),
            }),
            truncate_to: None,
            extents: blob.map(extent).into_iter().collect(),
            size: CommitSize::Exactly(u64::from(blob.is_some())),
            append_from: None,
            mtime: None,
            ctime: None,
            md5: None,
            locked_by: None,
            durable: false,
        };
        match execute_one(&s.master, MetaOp::Write(WriteOp::Commit(commit))).await.unwrap() {
            MetaReply::Committed(committed) => committed.attr.ino,
            other => panic!("{other:?}"),
        }
    }

    async fn remove(s: &Scene, name: &str) {
        let unlink = WriteOp::Unlink { parent: Ino::ROOT, name: name.try_into().unwrap() };
        execute_one(&s.master, MetaOp::Write(unlink)).await.unwrap();
    }

    #[tokio::test]
    async fn a_blob_goes_with_the_last_of_the_copies_that_share_it() {
        let s = scene().await;
        let grant = s.master.cluster.grants(1, &[]).await.unwrap().remove(0);
        let id = BlobId { volume: grant.volume.id, key: grant.first_key };
        let source = put(&s, "source", Some(BlobRef { id, seq: Seq(1), length: 1, md5: Md5([0; 16]) })).await;
        let target = put(&s, "target", None).await;
        let (source_offset, target_offset, length, locked_by) = (0, 0, 1, None);
        let clone = CloneRange { source, source_offset, target, target_offset, length, locked_by };
        execute_one(&s.master, MetaOp::Write(WriteOp::Clone(clone))).await.unwrap();
        for (name, told) in [("source", 0), ("target", 2)] {
            remove(&s, name).await;
            s.clock.advance_ms(GRACE_MS + 1);
            s.collect().await;
            assert_eq!(s.nodes.told.lock().len(), told, "after the end of the {name}");
        }
        assert_eq!(s.left().await, 0);
    }
}
