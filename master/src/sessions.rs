//! Clients with a session: their leases, and which files they have open.
//!
//! A session's row is in the store, so it outlives the master; when it was last heard of and what it has open
//! are in memory only. While a session from before a start is there, every file therefore counts as open, for
//! the length of one lease at most: by then who had it open has had the time to say so again. Memory grows with sessions and open
//! files, both bounded, never with the number of files.

use crate::config::SharedClock;
use crate::error::from_store;
use dfs_metastore::{Counter, Durability, SessionRow, Store};
use dfs_proto::{ErrorCode, Ino, SessionId, WireError};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};

/// Sessions at a time.
const SESSIONS_MAX: usize = 65_536;

/// Different files that one session has open.
const OPEN_FILES_PER_SESSION_MAX: usize = 1 << 20;

/// Longest description of a client, bytes.
const CLIENT_BYTES_MAX: usize = 1_024;

/// Holds what the gateway has open. It has no row, is nobody's session, and never ends.
pub const GATEWAY: SessionId = SessionId(0);

/// All sessions.
pub struct Sessions {
    store: Store,
    clock: SharedClock,
    lease_ms: u64,
    /// Start of this run, monotonic ms.
    started_ms: u64,
    /// Held for map operations, never over an await.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<SessionId, Entry>,
    /// How many opens of each file there are, over all sessions.
    open: HashMap<Ino, u64>,
    /// Sessions that are over, but whose rows could not be removed: still to be forgotten.
    unforgotten: Vec<SessionId>,
    /// Sessions from before this run that have not ended: what they have open is not known.
    inherited: HashSet<SessionId>,
}

struct Entry {
    client: String,
    heard_ms: u64,
    open: HashMap<Ino, u64>,
    /// Results of calls below this have been forgotten.
    pruned_below: u64,
}

impl Sessions {
    /// Sessions as the table has them.
    pub async fn load(store: Store, clock: SharedClock, lease_ms: u64) -> Result<Sessions, WireError> {
        let rows = store.read(|txn| txn.sessions()).await.map_err(from_store)?;
        let now_ms = clock.0.monotonic_ms();
        let inherited = rows.iter().map(|row| row.id).collect();
        let entry = |row: SessionRow| (row.id, Entry::new(row.client, now_ms));
        let gateway = (GATEWAY, Entry::new("the gateway".into(), now_ms));
        let sessions = rows.into_iter().map(entry).chain([gateway]).collect();
        let table = Mutex::new(Table { sessions, inherited, ..Table::default() });
        Ok(Sessions { store, clock, lease_ms, started_ms: now_ms, table })
    }

    /// A new session.
    pub async fn open(&self, client: String) -> Result<SessionId, WireError> {
        if client.len() > CLIENT_BYTES_MAX {
            let message = format!("the description of a client has at most {CLIENT_BYTES_MAX} bytes");
            return Err(WireError::new(ErrorCode::InvalidArgument, message));
        }
        if self.count() >= SESSIONS_MAX {
            let message = format!("there are {SESSIONS_MAX} sessions already; try again later");
            return Err(WireError::new(ErrorCode::Unavailable, message));
        }
        let row_client = client.clone();
        // On the disk, so that a power cut does not hand its number, and the results kept under it, to another.
        let made = self.store.write(Durability::Disk, move |txn| {
            let id = SessionId(txn.take(Counter::Session, 1)?);
            txn.put_session(&SessionRow { id, client: row_client })?;
            Ok(id)
        });
        let id = made.await.map_err(from_store)?;
        let now_ms = self.clock.0.monotonic_ms();
        self.table.lock().sessions.insert(id, Entry::new(client, now_ms));
        Ok(id)
    }

    /// Renews a session; `session_expired` when there is none of that number.
    pub fn renew(&self, id: SessionId) -> Result<(), WireError> {
        let now_ms = self.clock.0.monotonic_ms();
        match self.table.lock().sessions.get_mut(&id) {
            Some(entry) if id != GATEWAY => {
                entry.heard_ms = now_ms;
                Ok(())
            }
            _ => Err(expired(id)),
        }
    }

    /// Whether the session is there.
    pub fn exists(&self, id: SessionId) -> bool {
        self.table.lock().sessions.contains_key(&id)
    }

    /// Ends a session; its opens and locks are given up. Answers the inodes that it had locks on.
    /// `session_expired` when there is none of that number.
    pub async fn close(&self, id: SessionId) -> Result<Vec<Ino>, WireError> {
        if id == GATEWAY || self.table.lock().remove(id).is_none() {
            return Err(expired(id));
        }
        self.forget(vec![id]).await
    }

    /// Ends those that have been silent for longer than the lease. Answers the inodes that they had locks on.
    pub async fn expire(&self) -> Result<Vec<Ino>, WireError> {
        let now_ms = self.clock.0.monotonic_ms();
        let over: Vec<SessionId> = {
            let mut table = self.table.lock();
            let is_over =
                |id: SessionId, e: &Entry| id != GATEWAY && now_ms.saturating_sub(e.heard_ms) > self.lease_ms;
            let mut over: Vec<SessionId> =
                table.sessions.iter().filter(|(id, e)| is_over(**id, e)).map(|(id, _)| *id).collect();
            for id in &over {
                if let Some(entry) = table.remove(*id) {
                    log::info!("session {id} of {:?} is over: silent for too long", entry.client);
                }
            }
            over.append(&mut table.unforgotten);
            over
        };
        if over.is_empty() { Ok(Vec::new()) } else { self.forget(over).await }
    }

    /// Removes rows, and with them locks. What fails here is tried again with the next look for sessions that
    /// are over: locks of one that is gone must not stay. Answers the inodes that were locked.
    async fn forget(&self, ids: Vec<SessionId>) -> Result<Vec<Ino>, WireError> {
        let to_forget = ids.clone();
        let forgotten = self.store.write(Durability::Process, move |txn| {
            let mut unlocked = Vec::new();
            for id in to_forget {
                unlocked.extend(txn.delete_session(id)?);
            }
            Ok(unlocked)
        });
        forgotten.await.map_err(|e| {
            self.table.lock().unforgotten.extend(ids);
            from_store(e)
        })
    }

    /// Notes that the session has the file open once more.
    pub fn pin(&self, id: SessionId, ino: Ino) -> Result<(), WireError> {
        let mut table = self.table.lock();
        let entry = table.sessions.get_mut(&id).ok_or_else(|| expired(id))?;
        if entry.open.len() >= OPEN_FILES_PER_SESSION_MAX && !entry.open.contains_key(&ino) {
            let message = format!("session {id} has {OPEN_FILES_PER_SESSION_MAX} files open already");
            return Err(WireError::new(ErrorCode::Unavailable, message));
        }
        *entry.open.entry(ino).or_default() += 1;
        *table.open.entry(ino).or_default() += 1;
        Ok(())
    }

    /// Notes that the session has the file open, if that is not known.
    pub fn pin_once(&self, id: SessionId, ino: Ino) -> Result<(), WireError> {
        let is_known = self.table.lock().sessions.get(&id).is_some_and(|entry| entry.open.contains_key(&ino));
        if is_known { Ok(()) } else { self.pin(id, ino) }
    }

    /// `count` opens of the file have ended.
    pub fn unpin(&self, id: SessionId, ino: Ino, count: u32) {
        let mut table = self.table.lock();
        let Some(entry) = table.sessions.get_mut(&id) else { return };
        let Some(held) = entry.open.get_mut(&ino) else { return };
        let ended = u64::from(count).min(*held);
        *held -= ended;
        if *held == 0 {
            entry.open.remove(&ino);
        }
        table.release(ino, ended);
    }

    /// Whether anybody has the file open, as far as is known; see the module's text for the time after a
    /// start.
    pub fn is_open(&self, ino: Ino) -> bool {
        self.opens_are_unknown() || self.table.lock().open.contains_key(&ino)
    }

    /// Whether this run is too young to know what is open.
    pub fn opens_are_unknown(&self) -> bool {
        let is_young = self.clock.0.monotonic_ms().saturating_sub(self.started_ms) <= self.lease_ms;
        is_young && !self.table.lock().inherited.is_empty()
    }

    /// Whether results below `acked_below` are still kept. The caller forgets them then.
    pub fn wants_pruning(&self, id: SessionId, acked_below: u64) -> bool {
        self.table.lock().sessions.get(&id).is_some_and(|e| e.pruned_below < acked_below)
    }

    /// Results below `acked_below` have been forgotten.
    pub fn note_pruned(&self, id: SessionId, acked_below: u64) {
        if let Some(entry) = self.table.lock().sessions.get_mut(&id) {
            entry.pruned_below = entry.pruned_below.max(acked_below);
        }
    }

    /// Results below this have been forgotten: such a call must not be carried out (again).
    pub fn pruned_below(&self, id: SessionId) -> u64 {
        self.table.lock().sessions.get(&id).map_or(0, |e| e.pruned_below)
    }

    /// Number of sessions, the gateway's left out.
    pub fn count(&self) -> usize {
        self.table.lock().sessions.len() - 1
    }

    /// Number of different files that are open.
    pub fn open_files(&self) -> usize {
        self.table.lock().open.len()
    }

    /// How long a session lives without a request, ms.
    pub fn lease_ms(&self) -> u64 {
        self.lease_ms
    }
}

impl Entry {
    fn new(client: String, heard_ms: u64) -> Entry {
        Entry { client, heard_ms, open: HashMap::new(), pruned_below: 0 }
    }
}

impl Table {
    fn remove(&mut self, id: SessionId) -> Option<Entry> {
        let entry = self.sessions.remove(&id)?;
        self.inherited.remove(&id);
        for (ino, count) in &entry.open {
            self.release(*ino, *count);
        }
        Some(entry)
    }

    fn release(&mut self, ino: Ino, count: u64) {
        if let Some(held) = self.open.get_mut(&ino) {
            *held = held.saturating_sub(count);
            if *held == 0 {
                self.open.remove(&ino);
            }
        }
    }
}

/// The session is not there.
pub fn expired(id: SessionId) -> WireError {
    WireError::new(ErrorCode::SessionExpired, format!("session {id} is over; open another one"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_metastore::LockRow;
    use dfs_proto::{LockHolder, LockMode, LockOwner, LockRange, LockSpace};
    use dfs_service::ManualClock;
    use std::sync::Arc;

    async fn sessions() -> (Sessions, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        let shared = SharedClock(clock.clone());
        let sessions = Sessions::load(Store::in_memory(), shared, 100).await.unwrap();
        clock.advance_ms(101);
        (sessions, clock)
    }

    #[tokio::test]
    async fn opens_of_several_sessions_add_up() {
        let (sessions, _) = sessions().await;
        let (a, b) = (sessions.open("a".into()).await.unwrap(), sessions.open("b".into()).await.unwrap());
        let ino = Ino(7);
        for id in [a, a, b] {
            sessions.pin(id, ino).unwrap();
        }
        sessions.unpin(a, ino, 2);
        sessions.unpin(a, ino, 1);
        assert!(sessions.is_open(ino));
        sessions.close(b).await.unwrap();
        assert!(!sessions.is_open(ino));
        assert_eq!(sessions.close(b).await.unwrap_err().code, ErrorCode::SessionExpired);
    }

    #[tokio::test]
    async fn silence_ends_a_session_and_its_opens() {
        let (sessions, clock) = sessions().await;
        let (a, b) = (sessions.open("a".into()).await.unwrap(), sessions.open("b".into()).await.unwrap());
        sessions.pin(a, Ino(7)).unwrap();
        clock.advance_ms(60);
        sessions.renew(b).unwrap();
        clock.advance_ms(60);
        sessions.expire().await.unwrap();
        assert_eq!(sessions.renew(a).unwrap_err().code, ErrorCode::SessionExpired);
        sessions.renew(b).unwrap();
        assert!(!sessions.is_open(Ino(7)));
        assert_eq!(sessions.pin(a, Ino(7)).unwrap_err().code, ErrorCode::SessionExpired);
    }

    #[tokio::test]
    async fn the_end_of_a_session_tells_what_it_had_locked_and_is_tried_again_until_it_is_done() {
        let (sessions, _) = sessions().await;
        let (a, b) = (sessions.open("a".into()).await.unwrap(), sessions.open("b".into()).await.unwrap());
        let lock = |session, ino| {
            let (owner, range, mode) = (LockOwner(1), LockRange::WHOLE, LockMode::Shared);
            let holder = LockHolder { session, owner, range, mode, pid: 1 };
            LockRow { ino: Ino(ino), space: LockSpace::Whole, holder }
        };
        let rows = [lock(a, 7), lock(a, 5), lock(b, 5)];
        let put = sessions
            .store
            .write(Durability::Process, move |txn| rows.iter().try_for_each(|row| txn.put_lock(row)));
        put.await.unwrap();
        assert_eq!(sessions.close(a).await.unwrap(), [Ino(5), Ino(7)]);
        assert_eq!(sessions.expire().await.unwrap(), []);
        // A store that is closed stands for one that fails.
        sessions.store.close();
        sessions.close(b).await.unwrap_err();
        sessions.expire().await.unwrap_err();
        assert_eq!(sessions.table.lock().unforgotten, [b]);
    }

    #[tokio::test]
    async fn while_sessions_from_before_a_start_may_have_files_open_every_file_counts_as_open() {
        let clock = Arc::new(ManualClock::default());
        let store = Store::in_memory();
        let first = Sessions::load(store.clone(), SharedClock(clock.clone()), 100).await.unwrap();
        let id = first.open("a".into()).await.unwrap();
        let second = Sessions::load(store, SharedClock(clock.clone()), 100).await.unwrap();
        second.renew(id).unwrap();
        assert!(second.is_open(Ino(7)));
        clock.advance_ms(101);
        assert!(!second.is_open(Ino(7)));
        let third = Sessions::load(first.store.clone(), SharedClock(clock.clone()), 100).await.unwrap();
        assert!(third.is_open(Ino(7)));
        third.close(id).await.unwrap();
        assert!(!third.is_open(Ino(7)));
    }
}
