//! The locks of one file that were taken by this mount: who has what, and through which handles.
//!
//! Owns what the mount remembers so that a close without locks costs nothing, that a handle frees what was taken
//! through it, and that nobody goes on under locks that ended with a session. Who gets a lock is the master's to
//! say; this is what it said. It must not ask anybody anything.
//!
//! It is part of a file's state, so its size is bounded by what is open here and by the locks that the master lets
//! a file have.

use crate::Fh;
use dfs_proto::{LockMode, LockOwner, LockRange, LockSpace, SessionId};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Notify;

/// Who has locks of a file: byte ranges and whole-file locks do not know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LockKey {
    pub space: LockSpace,
    pub owner: LockOwner,
}

/// Bytes that are locked in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub range: LockRange,
    pub mode: LockMode,
}

/// See the module.
#[derive(Default)]
pub(crate) struct FileLocks {
    owners: Vec<Owner>,
    /// In the order of their arrival.
    waiters: Vec<Arc<Notify>>,
    /// Handles that could write when changes were thrown away, and have not been told.
    untold: HashSet<Fh>,
}

struct Owner {
    key: LockKey,
    /// Held while the owner's locks are being changed: an async mutex, because it is held over the call.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Changes under way and waiting for their turn.
    turns: usize,
    /// By first byte, not overlapping.
    held: Vec<Span>,
    /// Locks were taken through these.
    handles: Vec<Fh>,
    /// Who granted them.
    session: Option<SessionId>,
    /// The session is over: `held` is what the owner believes to have.
    is_lost: bool,
}

impl FileLocks {
    fn find(&self, key: LockKey) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.key == key)
    }

    fn find_mut(&mut self, key: LockKey) -> Option<&mut Owner> {
        self.owners.iter_mut().find(|owner| owner.key == key)
    }

    /// Announces a change of the owner's locks; to be undone with [`FileLocks::leave`].
    pub fn enter(&mut self, key: LockKey) -> Arc<tokio::sync::Mutex<()>> {
        if self.find(key).is_none() {
            let turn = Arc::default();
            let (held, handles) = (Vec::new(), Vec::new());
            self.owners.push(Owner { key, turn, turns: 0, held, handles, session: None, is_lost: false });
        }
        let owner = self.find_mut(key).expect("it was just put there");
        owner.turns += 1;
        owner.turn.clone()
    }

    /// A change of the owner's locks is over.
    pub fn leave(&mut self, key: LockKey) {
        if let Some(owner) = self.find_mut(key) {
            owner.turns = owner.turns.saturating_sub(1);
        }
        self.forget_idle();
    }

    fn forget_idle(&mut self) {
        self.owners.retain(|owner| owner.turns > 0 || !owner.held.is_empty());
    }

    /// Whether there is nothing to give up for this owner: it has no locks, and is not about to have any.
    pub fn has_none(&self, key: LockKey) -> bool {
        self.find(key).is_none()
    }

    /// Whether nobody has a lock, or had one that was lost.
    pub fn is_empty(&self) -> bool {
        self.owners.iter().all(|owner| owner.held.is_empty())
    }

    /// What the owner has within `range`.
    pub fn held(&self, key: LockKey, range: LockRange) -> Vec<Span> {
        let held = self.find(key).map_or(&[][..], |owner| &owner.held);
        let common = |span: &Span| intersection(span.range, range).map(|range| Span { range, ..*span });
        held.iter().filter_map(common).collect()
    }

    /// Whether the owner has all of `range` for itself.
    pub fn has_exclusively(&self, key: LockKey, range: LockRange) -> bool {
        let is_lost = self.find(key).is_some_and(|owner| owner.is_lost);
        let mut held = self.held(key, range);
        held.retain(|span| span.mode == LockMode::Exclusive);
        !is_lost && gaps(&held, range).is_empty()
    }

    /// The owner has got `span` through `fh`, from `session`. What it had there before is gone.
    pub fn granted(&mut self, key: LockKey, fh: Fh, span: Span, session: Option<SessionId>) {
        let Some(owner) = self.find_mut(key) else { return };
        cut(&mut owner.held, span.range);
        owner.held.push(span);
        tidy(&mut owner.held);
        if !owner.handles.contains(&fh) {
            owner.handles.push(fh);
        }
        owner.session = session;
    }

    /// The owner has nothing in `range` any more. With its last lock it forgets that any were lost.
    pub fn freed(&mut self, key: LockKey, range: LockRange) {
        if let Some(owner) = self.find_mut(key) {
            cut(&mut owner.held, range);
            if owner.held.is_empty() {
                owner.handles.clear();
                owner.is_lost = false;
            }
        }
        self.forget_idle();
    }

    /// Who has taken locks through the handle.
    pub fn owners_through(&self, fh: Fh) -> Vec<LockKey> {
        self.owners.iter().filter(|owner| owner.handles.contains(&fh)).map(|owner| owner.key).collect()
    }

    /// The session that granted the locks that are held.
    pub fn session(&self) -> Option<SessionId> {
        let mut holders = self.owners.iter().filter(|owner| !owner.is_lost && !owner.held.is_empty());
        holders.find_map(|owner| owner.session)
    }

    /// Locks from any session but `present` are gone. The session that they ended with, when there were any that
    /// nobody has noticed before.
    pub fn lose_all_but(&mut self, present: Option<SessionId>) -> Option<SessionId> {
        let mut over = None;
        for owner in &mut self.owners {
            if !owner.is_lost && !owner.held.is_empty() && owner.session != present {
                owner.is_lost = true;
                over = over.or(owner.session);
            }
        }
        over
    }

    /// Whether the owner had locks that were lost.
    pub fn has_lost(&self, key: LockKey) -> bool {
        self.find(key).is_some_and(|owner| owner.is_lost)
    }

    /// Whether locks were lost that had been taken through the handle.
    pub fn has_lost_through(&self, fh: Fh) -> bool {
        self.owners.iter().any(|owner| owner.is_lost && owner.handles.contains(&fh))
    }

    /// Changes of the file were thrown away that any of these may have made.
    pub fn tell_later(&mut self, writers: impl IntoIterator<Item = Fh>) {
        self.untold.extend(writers);
    }

    /// Whether changes were thrown away since the handle was last told so.
    pub fn take_untold(&mut self, fh: Fh) -> bool {
        !self.untold.is_empty() && self.untold.remove(&fh)
    }

    /// Adds one who waits.
    pub fn wait(&mut self) -> Arc<Notify> {
        let waiter = Arc::new(Notify::new());
        self.waiters.push(waiter.clone());
        waiter
    }

    /// One waits no more.
    pub fn stop_waiting(&mut self, waiter: &Arc<Notify>) {
        self.waiters.retain(|other| !Arc::ptr_eq(other, waiter));
    }

    /// Locks were given up somewhere: who waits may try again, in the order of their arrival.
    pub fn wake(&self) {
        self.waiters.iter().for_each(|waiter| waiter.notify_one());
    }
}

fn intersection(a: LockRange, b: LockRange) -> Option<LockRange> {
    a.overlaps(&b).then(|| LockRange { first: a.first.max(b.first), last: a.last.min(b.last) })
}

/// Parts of `range` that no span has; `spans` are by first byte and within it.
pub(crate) fn gaps(spans: &[Span], range: LockRange) -> Vec<LockRange> {
    let mut gaps = Vec::new();
    let mut next = Some(range.first);
    for span in spans {
        let Some(first) = next else { break };
        if first < span.range.first {
            gaps.push(LockRange { first, last: span.range.first - 1 });
        }
        next = span.range.last.checked_add(1);
    }
    if let Some(first) = next.filter(|first| *first <= range.last) {
        gaps.push(LockRange { first, last: range.last });
    }
    gaps
}

/// Takes `range` out of the spans.
fn cut(spans: &mut Vec<Span>, range: LockRange) {
    let mut rest = Vec::with_capacity(spans.len() + 1);
    for span in spans.drain(..) {
        if !span.range.overlaps(&range) {
            rest.push(span);
            continue;
        }
        if span.range.first < range.first {
            let before = LockRange { first: span.range.first, last: range.first - 1 };
            rest.push(Span { range: before, ..span });
        }
        if span.range.last > range.last {
            let after = LockRange { first: range.last + 1, last: span.range.last };
            rest.push(Span { range: after, ..span });
        }
    }
    *spans = rest;
}

/// Sorts the spans and makes one of those that continue each other, as the master does: there are never more than
/// the locks that it keeps.
fn tidy(spans: &mut Vec<Span>) {
    spans.sort_by_key(|span| span.range.first);
    spans.dedup_by(|later, earlier| {
        let continues =
            later.mode == earlier.mode && earlier.range.last.checked_add(1) == Some(later.range.first);
        if continues {
            earlier.range.last = later.range.last;
        }
        continues
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: LockKey = LockKey { space: LockSpace::Range, owner: LockOwner(1) };

    fn span(first: u64, last: u64, mode: LockMode) -> Span {
        Span { range: LockRange { first, last }, mode }
    }

    fn locks_of(spans: &[Span]) -> FileLocks {
        let mut locks = FileLocks::default();
        locks.enter(KEY);
        for span in spans {
            locks.granted(KEY, Fh(1), *span, Some(SessionId(1)));
        }
        locks.leave(KEY);
        locks
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_a_byte_by_byte_table_says(
            steps in prop::collection::vec((0..3u8, 0..20u64, 0..8u64), 1..30)
        ) {
            let mut locks = locks_of(&[]);
            locks.enter(KEY);
            let mut bytes = [None; 32];
            for (what, first, length) in steps {
                let range = LockRange { first, last: first + length };
                let mode = [None, Some(LockMode::Shared), Some(LockMode::Exclusive)][usize::from(what)];
                match mode {
                    None => locks.freed(KEY, range),
                    Some(mode) => locks.granted(KEY, Fh(1), Span { range, mode }, None),
                }
                bytes[first as usize..=(first + length) as usize].fill(mode);
                let mut seen = [None; 32];
                let held = locks.held(KEY, LockRange::WHOLE);
                for span in &held {
                    let part = &mut seen[span.range.first as usize..=span.range.last as usize];
                    prop_assert!(part.iter().all(Option::is_none));
                    part.fill(Some(span.mode));
                }
                prop_assert_eq!(seen, bytes);
                let runs = bytes.chunk_by(|a, b| a == b).filter(|run| run[0].is_some()).count();
                prop_assert_eq!(held.len(), runs);
                let free: u64 = gaps(&held, LockRange { first: 0, last: 31 }).iter().map(|g| g.last - g.first + 1).sum();
                prop_assert_eq!(free as usize, bytes.iter().filter(|b| b.is_none()).count());
            }
        }
    }

    #[test]
    fn a_lock_to_the_end_of_all_files_has_nothing_behind_it() {
        let all = LockRange { first: 0, last: u64::MAX };
        assert!(gaps(&[Span { range: all, mode: LockMode::Shared }], all).is_empty());
        let mut locks = locks_of(&[Span { range: LockRange::WHOLE, mode: LockMode::Exclusive }]);
        assert!(locks.has_exclusively(KEY, LockRange::WHOLE));
        locks.freed(KEY, LockRange { first: 10, last: LockRange::END });
        assert_eq!(locks.held(KEY, LockRange::WHOLE), [span(0, 9, LockMode::Exclusive)]);
    }

    #[test]
    fn nothing_stays_of_an_owner_without_locks() {
        let mut locks = locks_of(&[span(0, 9, LockMode::Shared)]);
        assert!(!locks.has_none(KEY));
        assert_eq!(locks.owners_through(Fh(1)), [KEY]);
        locks.freed(KEY, LockRange::WHOLE);
        assert!(locks.has_none(KEY));
        assert!(locks.owners_through(Fh(1)).is_empty());
    }

    #[test]
    fn locks_of_another_session_are_lost_once_and_until_all_are_given_up() {
        let mut locks = locks_of(&[span(0, 9, LockMode::Shared)]);
        assert_eq!(locks.lose_all_but(Some(SessionId(1))), None);
        assert_eq!(locks.session(), Some(SessionId(1)));
        assert_eq!(locks.lose_all_but(Some(SessionId(2))), Some(SessionId(1)));
        assert_eq!(locks.lose_all_but(Some(SessionId(2))), None);
        assert_eq!(locks.session(), None);
        assert!(locks.has_lost_through(Fh(1)) && !locks.has_lost_through(Fh(2)));
        locks.freed(KEY, LockRange { first: 0, last: 4 });
        assert!(locks.has_lost(KEY));
        locks.freed(KEY, LockRange { first: 5, last: 9 });
        assert!(!locks.has_lost(KEY) && !locks.has_lost_through(Fh(1)));
    }
}
