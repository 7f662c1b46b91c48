//! fsync for blobs: makes sure that logs are on the disks of as many nodes as the master asks for.

use crate::blobs::{Inner, Tries, failed_at};
use crate::retry::Backoff;
use crate::{ClientError, ask};
use dfs_proto::blob::PullRequest;
use dfs_proto::meta::{Members, VolumeReach};
use dfs_proto::node::CopyInfo;
use dfs_proto::{ErrorCode, NodeId, NodeInfo, NodeState, Seq, VolumeId};
use futures_util::future::join_all;
use futures_util::{TryStreamExt, stream};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Volumes that are worked on at a time.
const VOLUMES_AT_ONCE: usize = 8;

/// A member that failed is asked again after this: it may be the only one there is.
const FORGIVE_MS: u64 = 2000;

const BACKOFF: Backoff = Backoff::of_ms(50, 1000);

pub(crate) async fn make_durable(inner: &Inner, reach: &[VolumeReach]) -> Result<(), ClientError> {
    let mut furthest: HashMap<VolumeId, Seq> = HashMap::new();
    for one in reach {
        let seq = furthest.entry(one.volume).or_default();
        *seq = one.seq.max(*seq);
    }
    let deadline = Instant::now() + inner.config.durable_deadline;
    let volumes = furthest.into_iter().map(|(volume, seq)| {
        let work = Work {
            inner,
            reach: VolumeReach { volume, seq },
            done: Vec::new(),
            failed: Vec::new(),
            tries: Tries::default(),
            last_code: ErrorCode::Timeout,
        };
        Ok::<_, ClientError>(work.run(deadline))
    });
    stream::iter(volumes).try_buffer_unordered(VOLUMES_AT_ONCE).try_collect::<()>().await
}

/// One volume on its way to the disks.
struct Work<'a> {
    inner: &'a Inner,
    reach: VolumeReach,
    /// Members that have it on disk.
    done: Vec<NodeInfo>,
    /// Members that failed, and when.
    failed: Vec<(NodeId, Instant)>,
    tries: Tries,
    last_code: ErrorCode,
}

/// What to ask of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Task {
    /// It has the records: put them on the disk.
    Sync,
    /// Bring it up to this source, then put it on the disk.
    PullFrom(String),
}

impl Work<'_> {
    async fn run(mut self, deadline: Instant) -> Result<(), ClientError> {
        let mut attempt = 0;
        let mut needed = 0;
        loop {
            let round = tokio::time::timeout_at(deadline, self.round()).await;
            match round {
                Ok(Ok(members)) => needed = members.needed.max(1) as usize,
                Ok(Err(e)) => return Err(self.not_durable(needed, Some(e))),
                Err(_) => return Err(self.not_durable(needed, None)),
            }
            if self.done.len() >= needed {
                return Ok(());
            }
            // The master may name another member at once; the same one again only after a pause.
            if attempt > 0 {
                BACKOFF.wait(attempt, deadline).await;
            }
            if Instant::now() >= deadline {
                return Err(self.not_durable(needed, None));
            }
            attempt += 1;
        }
    }

    /// Asks the master who the members are, and those that are still needed to sync.
    async fn round(&mut self) -> Result<Members, ClientError> {
        let forgive = Duration::from_millis(FORGIVE_MS);
        self.failed.retain(|(_, at)| at.elapsed() < forgive);
        let failed: Vec<NodeId> = self.failed.iter().map(|(node, _)| *node).collect();
        let members = ask::members(&*self.inner.meta, self.reach.volume, failed.clone()).await?;
        let done: Vec<NodeId> = self.done.iter().map(|n| n.id).collect();
        let tasks = plan(&members, self.reach.seq, &done, &failed);
        let (this, token) = (&*self, members.token.as_str());
        let results = join_all(tasks.into_iter().map(|(node, task)| async move {
            let result = this.carry_out(&node, &task, token).await;
            (node, result)
        }))
        .await;
        for (node, result) in results {
            match result {
                Ok(()) => self.done.push(node),
                Err(e) => self.note_failure(&node, &e),
            }
        }
        Ok(members)
    }

    async fn carry_out(&self, node: &NodeInfo, task: &Task, token: &str) -> Result<(), ClientError> {
        let VolumeReach { volume, seq } = self.reach;
        let limit = self.inner.config.durable_try;
        let Ok(reached) = tokio::time::timeout(limit, self.ask(node, task, token)).await else {
            return Err(ClientError::Timeout {
                server: node.url.clone(),
                what: format!("the sync of volume {volume}"),
                deadline_ms: limit.as_millis() as u64,
            });
        };
        let reached = reached?;
        if reached < seq {
            let message = format!("volume {volume} reaches {reached} there, not {seq}");
            return Err(ClientError::local(ErrorCode::Unavailable, message));
        }
        Ok(())
    }

    /// How far the node's copy reaches on its disk after the task.
    async fn ask(&self, node: &NodeInfo, task: &Task, token: &str) -> Result<Seq, ClientError> {
        let VolumeReach { volume, seq } = self.reach;
        let nodes = &self.inner.nodes;
        match task {
            Task::Sync => Ok(nodes.sync(&node.url, volume, seq, token).await?.seq),
            Task::PullFrom(source) => {
                let request = PullRequest { source: source.clone(), at_least: seq, sync: true };
                Ok(nodes.pull(&node.url, volume, &request, token).await?.seq)
            }
        }
    }

    fn note_failure(&mut self, node: &NodeInfo, error: &ClientError) {
        let line = failed_at(node, error);
        log::warn!("volume {} is not on the disk up to {} of {line}", self.reach.volume, self.reach.seq);
        self.tries.add(line);
        self.last_code = error.code();
        self.failed.push((node.id, Instant::now()));
    }

    fn not_durable(mut self, needed: usize, cause: Option<ClientError>) -> ClientError {
        let code = cause.as_ref().map_or(self.last_code, ClientError::code);
        if let Some(cause) = cause {
            if self.tries.is_empty() && self.done.is_empty() {
                return cause;
            }
            self.tries.add(format!("master: {cause}"));
        }
        let VolumeReach { volume, seq } = self.reach;
        let (done, tries) = (self.done.len(), self.tries.into_lines().join("; "));
        let message = format!(
            "volume {volume} is on the disks of {done} nodes up to {seq}, {needed} are needed: {tries}"
        );
        ClientError::local(code, message)
    }
}

/// Who has to do what so that `needed` members have the log on disk up to `seq`: the primary, then the
/// nearest others; none that has it or that just failed.
fn plan(members: &Members, seq: Seq, done: &[NodeId], failed: &[NodeId]) -> Vec<(NodeInfo, Task)> {
    let copies = &members.volume.copies;
    let missing = (members.needed.max(1) as usize).saturating_sub(done.len());
    let mut candidates: Vec<(usize, &CopyInfo)> = copies
        .iter()
        .enumerate()
        .filter(|(_, c)| !done.contains(&c.node.id) && !failed.contains(&c.node.id))
        .collect();
    candidates.sort_by_key(|(place, c)| (c.node.state != NodeState::Live, *place > 0, c.seq < seq));
    let source_for = |target: NodeId| {
        let fit = |c: &&CopyInfo| c.node.id != target && !failed.contains(&c.node.id);
        let has_it = |c: &&CopyInfo| done.contains(&c.node.id) || c.seq >= seq;
        let primary = copies.first().filter(fit);
        primary.or_else(|| copies.iter().filter(fit).find(has_it)).map(|c| c.node.url.clone())
    };
    let task = |place: usize, copy: &CopyInfo| match source_for(copy.node.id) {
        Some(source) if place > 0 && copy.seq < seq => Task::PullFrom(source),
        _ => Task::Sync,
    };
    candidates.into_iter().take(missing).map(|(place, c)| (c.node.clone(), task(place, c))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::VolumeInfo;

    fn members(needed: u32, seqs: &[u64]) -> Members {
        let copies = seqs.iter().zip(1..).map(|(seq, n)| {
            let (name, url) = (format!("sn{n}"), format!("http://sn{n}"));
            let state = NodeState::Live;
            CopyInfo {
                node: NodeInfo { id: NodeId(n), name, url, zone: String::new(), state },
                seq: Seq(*seq),
            }
        });
        let volume = VolumeInfo { id: VolumeId(1), seq: Seq(9), open: true, copies: copies.collect() };
        Members { volume, needed, token: String::new() }
    }

    fn planned(members: &Members, done: &[u64], failed: &[u64]) -> Vec<(u64, Task)> {
        let ids = |list: &[u64]| list.iter().map(|n| NodeId(*n)).collect::<Vec<_>>();
        let plan = plan(members, Seq(5), &ids(done), &ids(failed));
        plan.into_iter().map(|(node, task)| (node.id.0, task)).collect()
    }

    fn from(node: u64) -> Task {
        Task::PullFrom(format!("http://sn{node}"))
    }

    #[test]
    fn the_primary_syncs_while_another_member_pulls() {
        assert_eq!(planned(&members(2, &[1, 1, 1]), &[], &[]), [(1, Task::Sync), (2, from(1))]);
    }

    #[test]
    fn a_member_that_is_up_to_date_only_syncs_and_is_preferred() {
        assert_eq!(planned(&members(2, &[9, 1, 9]), &[], &[]), [(1, Task::Sync), (3, Task::Sync)]);
    }

    #[test]
    fn members_that_are_done_or_failed_are_passed_over() {
        assert_eq!(planned(&members(2, &[9, 1, 1]), &[1], &[2]), [(3, from(1))]);
        assert_eq!(planned(&members(2, &[9, 9, 1]), &[2], &[1]), [(3, from(2))]);
        assert_eq!(planned(&members(1, &[9]), &[1], &[]), []);
    }
}
