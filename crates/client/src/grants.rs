//! Grants, fetched ahead: where the next blob may be written, without asking the master each time.
//!
//! Invariants: a key is handed out once; a grant is not used past its time, counted from the moment its
//! answer came.

use crate::{ClientError, MetaClient, ask};
use dfs_proto::{BlobId, BlobKey, ErrorCode, Grant, NodeId, NodeInfo, VolumeId, VolumeInfo};
use parking_lot::Mutex;
use rand::RngExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Grants held at a time.
const HELD_MAX: usize = 128;

/// Grants are renewed after this at the latest, so that a node that has just joined gets its share within
/// seconds. Older ones serve while the master is away.
const FRESH_MAX: Duration = Duration::from_secs(3);

/// After a failed refill in the background the next one waits so long.
const REFILL_PAUSE_MS: u64 = 1000;

/// Where one blob may be written.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub volume: Arc<VolumeInfo>,
    pub primary: NodeInfo,
    pub blob: BlobId,
    pub token: Arc<str>,
}

/// Grants of one client.
pub(crate) struct GrantPool {
    meta: Arc<dyn MetaClient>,
    /// Wanted in one answer.
    count: u32,
    hand: Mutex<Hand>,
    /// Held while grants are fetched, so that those who wait share one answer. An async mutex, because it is
    /// held over the request.
    fetching: tokio::sync::Mutex<()>,
    refilling: AtomicBool,
}

impl GrantPool {
    pub fn new(meta: Arc<dyn MetaClient>, count: u32) -> Arc<GrantPool> {
        Arc::new(GrantPool {
            meta,
            count,
            hand: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            refilling: AtomicBool::new(false),
        })
    }

    /// A place on a random node that is not in `avoid`, unless the master knows no other.
    pub async fn take(self: &Arc<Self>, avoid: &[NodeId]) -> Result<Place, ClientError> {
        if let Some(place) = self.pick(avoid) {
            self.refill_in_time();
            return Ok(place);
        }
        let _one_at_a_time = self.fetching.lock().await;
        if let Some(place) = self.pick(avoid) {
            return Ok(place);
        }
        self.fetch(avoid).await?;
        self.pick(avoid).or_else(|| self.pick(&[])).ok_or_else(|| {
            ClientError::local(ErrorCode::NoNodes, "the master gave no grant that can be used now")
        })
    }

    /// Gives up what was granted for a volume.
    pub fn drop_volume(&self, volume: VolumeId) {
        self.hand.lock().grants.retain(|h| h.volume.id != volume);
    }

    /// Gives up what was granted on a node.
    pub fn drop_node(&self, node: NodeId) {
        self.hand.lock().grants.retain(|h| h.primary.id != node);
    }

    fn pick(&self, avoid: &[NodeId]) -> Option<Place> {
        self.hand.lock().pick(avoid, Instant::now(), &mut rand::rng())
    }

    async fn fetch(&self, avoid: &[NodeId]) -> Result<(), ClientError> {
        let grants = ask::grants(&*self.meta, self.count, avoid.to_vec()).await?;
        self.hand.lock().add(grants, Instant::now());
        Ok(())
    }

    fn refill_in_time(self: &Arc<Self>) {
        if !self.hand.lock().runs_low(Instant::now()) || self.refilling.swap(true, Ordering::AcqRel) {
            return;
        }
        let pool = self.clone();
        tokio::spawn(async move {
            let fetched = {
                let _one_at_a_time = pool.fetching.lock().await;
                pool.fetch(&[]).await
            };
            if let Err(e) = fetched {
                log::debug!("grants were not fetched ahead: {e}");
                tokio::time::sleep(Duration::from_millis(REFILL_PAUSE_MS)).await;
            }
            pool.refilling.store(false, Ordering::Release);
        });
    }
}

/// The grants in hand.
#[derive(Default)]
struct Hand {
    grants: Vec<Held>,
    /// What the last answer brought: "low" is relative to it, because the master may have no more to give.
    last_grants: usize,
    last_keys: u64,
}

struct Held {
    volume: Arc<VolumeInfo>,
    primary: NodeInfo,
    next_key: u64,
    end_key: u64,
    token: Arc<str>,
    /// To be replaced from then on.
    fresh_until: Instant,
    expires: Instant,
}

impl Hand {
    fn add(&mut self, grants: Vec<Grant>, now: Instant) {
        self.last_grants = grants.len();
        self.last_keys = grants.iter().map(|g| g.keys).fold(0, u64::saturating_add);
        self.grants.retain(|h| now < h.expires);
        self.grants.extend(grants.into_iter().filter_map(|g| Held::new(g, now)));
        let surplus = self.grants.len().saturating_sub(HELD_MAX);
        self.grants.drain(..surplus);
    }

    fn pick(&mut self, avoid: &[NodeId], now: Instant, rng: &mut impl rand::Rng) -> Option<Place> {
        self.grants.retain(|h| now < h.expires);
        let welcome = |h: &Held| !avoid.contains(&h.primary.id);
        let any_fresh = self.grants.iter().any(|h| welcome(h) && now < h.fresh_until);
        let fit = |h: &Held| welcome(h) && (!any_fresh || now < h.fresh_until);
        let choices = self.grants.iter().filter(|h| fit(h)).count();
        if choices == 0 {
            return None;
        }
        let chosen = rng.random_range(0..choices);
        let index = self.grants.iter().enumerate().filter(|(_, h)| fit(h)).nth(chosen)?.0;
        let held = &mut self.grants[index];
        let place = held.next();
        if held.next_key == held.end_key {
            self.grants.swap_remove(index);
        }
        Some(place)
    }

    /// Whether it is time to fetch more.
    fn runs_low(&self, now: Instant) -> bool {
        let fresh = || self.grants.iter().filter(|h| now < h.fresh_until);
        let keys = fresh().map(|h| h.end_key - h.next_key).fold(0, u64::saturating_add);
        fresh().count() * 2 < self.last_grants || keys < self.last_keys / 4
    }
}

impl Held {
    /// `None` for a grant that holds nothing.
    fn new(grant: Grant, now: Instant) -> Option<Held> {
        let primary = grant.volume.copies.first()?.node.clone();
        let end_key = grant.first_key.0.checked_add(grant.keys)?;
        let ttl = Duration::from_millis(grant.ttl_ms);
        (grant.keys > 0).then(|| Held {
            volume: Arc::new(grant.volume),
            primary,
            next_key: grant.first_key.0,
            end_key,
            token: grant.token.into(),
            fresh_until: now + (ttl * 3 / 4).min(FRESH_MAX),
            expires: now + ttl,
        })
    }

    fn next(&mut self) -> Place {
        let key = BlobKey(self.next_key);
        self.next_key += 1;
        Place {
            volume: self.volume.clone(),
            primary: self.primary.clone(),
            blob: BlobId { volume: self.volume.id, key },
            token: self.token.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::node::CopyInfo;
    use dfs_proto::{NodeState, Seq};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::collections::HashSet;

    fn grant(volume: u64, node: u64, keys: u64, ttl_ms: u64) -> Grant {
        let node = NodeInfo {
            id: NodeId(node),
            name: format!("sn{node}"),
            url: format!("http://sn{node}"),
            zone: String::new(),
            state: NodeState::Live,
        };
        let copies = vec![CopyInfo { node, seq: Seq(0) }];
        let volume = VolumeInfo { id: VolumeId(volume), seq: Seq(0), open: true, copies };
        Grant { volume, first_key: BlobKey(1), keys, ttl_ms, token: "t".into() }
    }

    proptest! {
        #[test]
        fn every_key_of_every_grant_is_handed_out_once(
            keys in proptest::collection::vec(0u64..20, 0..10),
            seed: u64,
        ) {
            let now = Instant::now();
            let mut hand = Hand::default();
            let grants = keys.iter().enumerate().map(|(n, k)| grant(n as u64, n as u64 % 3, *k, 1000));
            hand.add(grants.collect(), now);
            let mut rng = StdRng::seed_from_u64(seed);
            let mut seen = HashSet::new();
            while let Some(place) = hand.pick(&[], now, &mut rng) {
                prop_assert!((1..=keys[place.blob.volume.0 as usize]).contains(&place.blob.key.0));
                prop_assert!(seen.insert(place.blob));
            }
            prop_assert_eq!(seen.len() as u64, keys.iter().sum::<u64>());
        }
    }

    #[test]
    fn avoided_nodes_and_grants_past_their_time_are_not_used() {
        let now = Instant::now();
        let mut hand = Hand::default();
        hand.add(vec![grant(1, 1, 100, 1000), grant(2, 2, 100, 5000)], now);
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..20 {
            assert_eq!(hand.pick(&[NodeId(2)], now, &mut rng).unwrap().primary.id, NodeId(1));
        }
        let later = now + Duration::from_millis(1000);
        assert!(hand.pick(&[NodeId(2)], later, &mut rng).is_none());
        assert_eq!(hand.pick(&[], later, &mut rng).unwrap().primary.id, NodeId(2));
    }

    #[test]
    fn a_node_that_joins_is_used_once_grants_are_renewed_and_old_grants_serve_until_then() {
        let now = Instant::now();
        let mut hand = Hand::default();
        hand.add(vec![grant(1, 1, 100, 300_000)], now);
        let later = now + FRESH_MAX;
        assert!(hand.runs_low(later));
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(hand.pick(&[], later, &mut rng).unwrap().primary.id, NodeId(1));
        hand.add(vec![grant(2, 2, 100, 300_000)], later);
        for _ in 0..20 {
            assert_eq!(hand.pick(&[], later, &mut rng).unwrap().primary.id, NodeId(2));
        }
        assert_eq!(hand.pick(&[NodeId(2)], later, &mut rng).unwrap().primary.id, NodeId(1));
    }

    #[test]
    fn more_is_fetched_before_keys_or_time_run_out_but_not_at_once() {
        let now = Instant::now();
        let mut hand = Hand::default();
        assert!(!hand.runs_low(now));
        hand.add(vec![grant(1, 1, 8, 1000)], now);
        let mut rng = StdRng::seed_from_u64(1);
        assert!(!hand.runs_low(now));
        assert!(hand.runs_low(now + Duration::from_millis(750)));
        (0..7).for_each(|_| assert!(hand.pick(&[], now, &mut rng).is_some()));
        assert!(hand.runs_low(now));
    }
}
