//! Who waits for a lock.
//!
//! Locks that are held are rows of the store; who waits for one is only here, in memory. A waiter asks again
//! and again, so nothing is lost with a restart, and one that falls silent is forgotten. Owns the search for
//! waits that would never end (fcntl(2), EDEADLK). Edges of the graph of who waits for whom are not kept: they
//! are worked out from the locks as they are when somebody is blocked, so a lock that was given up since never
//! makes a circle that is not there. It must not know how locks are kept.
//!
//! flock(2) detects no deadlocks, and nothing here does for its kind of lock.

use crate::config::SharedClock;
use dfs_proto::lock::WAITER_FORGOTTEN_MS;
use dfs_proto::{Ino, LockHolder, LockOwner, LockRequest, LockSpace, SessionId};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};

/// Waits that are noted. Who comes when there are more is neither woken nor warned of a deadlock: it gets its
/// lock when it asks again.
const WAITS_MAX: usize = 65_536;

/// Waits that one search for a circle follows, each with a look at the locks of a file. Linux gives up after 10.
const FOLLOWED_MAX: usize = 1_024;

/// An owner of locks.
pub type Owner = (SessionId, LockOwner);

/// All who wait.
pub struct LockWaiters {
    clock: SharedClock,
    waits_max: usize,
    /// Held for map operations, never over an await or a read of the store.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// What each owner waits for, and when it last said so. Threads of one owner may wait for several.
    by_owner: HashMap<Owner, HashMap<LockRequest, u64>>,
    /// How many waits there are for locks of each file.
    by_ino: HashMap<Ino, usize>,
    count: usize,
}

impl LockWaiters {
    /// Nobody waits.
    pub fn new(clock: SharedClock) -> LockWaiters {
        LockWaiters { clock, waits_max: WAITS_MAX, table: Mutex::default() }
    }

    /// The session was blocked and waits.
    pub fn note(&self, session: SessionId, request: &LockRequest) {
        let now_ms = self.clock.0.monotonic_ms();
        let mut table = self.table.lock();
        let is_full = table.count >= self.waits_max;
        let waits = table.by_owner.entry((session, request.owner)).or_default();
        let is_known = waits.contains_key(&wish(request));
        if is_known || !is_full {
            waits.insert(wish(request), now_ms);
        }
        if waits.is_empty() {
            table.by_owner.remove(&(session, request.owner));
        }
        if !is_known && !is_full {
            *table.by_ino.entry(request.ino).or_default() += 1;
            table.count += 1;
        }
    }

    /// The session does not wait for this any more: it has it, will never get it, or has given up.
    pub fn remove(&self, session: SessionId, request: &LockRequest) {
        let mut table = self.table.lock();
        let Some(waits) = table.by_owner.get_mut(&(session, request.owner)) else { return };
        if waits.remove(&wish(request)).is_none() {
            return;
        }
        if waits.is_empty() {
            table.by_owner.remove(&(session, request.owner));
        }
        table.one_less(request.ino);
    }

    /// Forgets who has been silent for too long.
    pub fn forget_silent(&self) {
        let now_ms = self.clock.0.monotonic_ms();
        let mut gone = Vec::new();
        let mut table = self.table.lock();
        table.by_owner.retain(|_, waits| {
            waits.retain(|request, asked_ms| {
                let stays = is_there(*asked_ms, now_ms);
                if !stays {
                    gone.push(request.ino);
                }
                stays
            });
            !waits.is_empty()
        });
        gone.into_iter().for_each(|ino| table.one_less(ino));
    }

    /// Whether anybody waits for a lock of the file, those included who fell silent and are not forgotten yet.
    pub fn is_awaited(&self, ino: Ino) -> bool {
        self.table.lock().by_ino.contains_key(&ino)
    }

    /// Number of waits.
    pub fn count(&self) -> usize {
        self.table.lock().count
    }

    /// Whether `me` would wait for itself in the end if it waited for `blockers`. `blockers_of` says who is in
    /// the way of another wait, by the locks as they are now.
    pub fn closes_circle<E>(
        &self,
        me: Owner,
        blockers: &[LockHolder],
        mut blockers_of: impl FnMut(SessionId, &LockRequest) -> Result<Vec<LockHolder>, E>,
    ) -> Result<bool, E> {
        let mut seen: HashSet<Owner> = HashSet::new();
        let mut next: Vec<Owner> = blockers.iter().map(owner_of).collect();
        let mut followed = 0;
        while let Some(owner) = next.pop() {
            if owner == me {
                return Ok(true);
            }
            if !seen.insert(owner) {
                continue;
            }
            for request in self.range_waits_of(owner) {
                followed += 1;
                if followed > FOLLOWED_MAX {
                    log::debug!("a search for deadlocks of locks was given up after {FOLLOWED_MAX} waits");
                    return Ok(false);
                }
                next.extend(blockers_of(owner.0, &request)?.iter().map(owner_of));
            }
        }
        Ok(false)
    }

    fn range_waits_of(&self, owner: Owner) -> Vec<LockRequest> {
        let now_ms = self.clock.0.monotonic_ms();
        let table = self.table.lock();
        let waits = table.by_owner.get(&owner).into_iter().flatten();
        let there = waits
            .filter(|(request, asked_ms)| request.space == LockSpace::Range && is_there(**asked_ms, now_ms));
        there.map(|(request, _)| *request).collect()
    }
}

impl Table {
    fn one_less(&mut self, ino: Ino) {
        self.count -= 1;
        if let Some(count) = self.by_ino.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.by_ino.remove(&ino);
            }
        }
    }
}

fn is_there(asked_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(asked_ms) <= WAITER_FORGOTTEN_MS
}

fn owner_of(holder: &LockHolder) -> Owner {
    (holder.session, holder.owner)
}

/// What tells waits of one owner apart: which of its processes asks does not.
fn wish(request: &LockRequest) -> LockRequest {
    LockRequest { pid: 0, ..*request }
}

#[cfg(test)]
mod tests;
