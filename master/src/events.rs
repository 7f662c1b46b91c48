//! What changed, kept in a bounded ring for those who follow the stream.
//!
//! Owns the numbers of events. A reader keeps its own place and takes what came after it; one that falls out
//! of the ring is told so. Knows neither HTTP nor what clients make of the events.

use dfs_proto::event::EventLine;
use dfs_proto::{Event, EventCursor, EventKind, SessionId};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Events that are kept for readers that lag behind.
const RING_EVENTS_MAX: usize = 65_536;

/// Events in one piece of a stream.
const PIECE_EVENTS_MAX: usize = 256;

/// The ring and its bell.
#[derive(Debug)]
pub struct Events {
    /// Random number of this run of the master.
    boot: u64,
    events_max: usize,
    /// Held for a few pushes or a bounded copy, never over an await.
    ring: Mutex<VecDeque<Event>>,
    /// Changed with the ring only, while it is held.
    last: Mutex<Last>,
    /// Number of the newest event. Changed with the ring only, while it is held.
    newest: AtomicU64,
    /// Whom to wake for events. Held for a look at each of them.
    bells: Mutex<Vec<Bell>>,
}

/// Wakes a reader.
#[derive(Debug)]
struct Bell {
    session: Option<SessionId>,
    /// Gone with the reader.
    rings: Weak<Notify>,
}

/// The newest event that each session is told of, without keeping one for each: all but one are told of the newest.
#[derive(Debug, Default)]
struct Last {
    /// Who caused the newest event.
    origin: Option<SessionId>,
    /// The newest event that somebody else caused, or nobody.
    by_others: u64,
}

/// A reader's place in the stream.
#[derive(Debug)]
pub struct Reader {
    at: u64,
    session: Option<SessionId>,
    /// Rung after there is something for it in the ring.
    bell: Arc<Notify>,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// These lines; the reader's place is behind them.
    Lines(Vec<EventLine>),
    /// Nothing that concerns it.
    Nothing,
}

impl Default for Events {
    fn default() -> Self {
        Events::new(rand::random::<u64>() >> 1, RING_EVENTS_MAX)
    }
}

impl Events {
    /// An empty ring of so many events for the run `boot`.
    pub fn new(boot: u64, events_max: usize) -> Events {
        Events {
            boot,
            events_max,
            ring: Mutex::default(),
            last: Mutex::default(),
            newest: AtomicU64::new(0),
            bells: Mutex::default(),
        }
    }

    /// Adds `kinds`, caused by `origin`.
    pub fn publish(&self, origin: Option<SessionId>, kinds: impl IntoIterator<Item = EventKind>) {
        let mut ring = self.ring.lock();
        let before = self.newest();
        let mut seq = before;
        for kind in kinds {
            seq += 1;
            let at = EventCursor { boot: self.boot, seq };
            if ring.len() >= self.events_max {
                ring.pop_front();
            }
            ring.push_back(Event { at, origin, kind });
        }
        if seq > before {
            let mut last = self.last.lock();
            if last.origin != origin || origin.is_none() {
                *last = Last { origin, by_others: before };
            }
            drop(last);
            // Within the lock, so that numbers and ring stay in step.
            self.newest.store(seq, Ordering::Release);
        }
        drop(ring);
        if seq > before {
            self.ring_for(origin);
        }
    }

    /// Wakes those who are told of what `origin` has caused: not itself, which is waiting for its answer.
    fn ring_for(&self, origin: Option<SessionId>) {
        self.bells.lock().retain(|bell| {
            let Some(rings) = bell.rings.upgrade() else { return false };
            if origin.is_none() || bell.session != origin {
                rings.notify_one();
            }
            true
        });
    }

    fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// The place behind the newest event.
    pub fn cursor(&self) -> EventCursor {
        EventCursor { boot: self.boot, seq: self.newest() }
    }

    /// The place of the newest event that `session` is told of: not one that it has caused.
    pub fn newest_for(&self, session: Option<SessionId>) -> EventCursor {
        let _ring = self.ring.lock();
        let last = self.last.lock();
        let is_its_own = session.is_some() && last.origin == session;
        let seq = if is_its_own { last.by_others } else { self.newest() };
        EventCursor { boot: self.boot, seq }
    }

    /// A reader from `since` on, or from now on, with the first line for it.
    pub fn follow(&self, since: Option<EventCursor>, session: Option<SessionId>) -> (Reader, EventLine) {
        let bell = Arc::new(Notify::new());
        self.bells.lock().push(Bell { session, rings: Arc::downgrade(&bell) });
        let now = self.cursor();
        let reader = |at| Reader { at, session, bell };
        match since {
            None => (reader(now.seq), EventLine::Ping(now)),
            Some(since) if since.boot == self.boot && self.holds_all_after(since.seq) => {
                (reader(since.seq), EventLine::Ping(since))
            }
            Some(_) => (reader(now.seq), EventLine::Reset(now)),
        }
    }

    fn holds_all_after(&self, seq: u64) -> bool {
        let ring = self.ring.lock();
        let newest = self.newest();
        let oldest = ring.front().map_or(newest + 1, |e| e.at.seq);
        (oldest.saturating_sub(1)..=newest).contains(&seq)
    }

    /// Takes what came after the reader's place: at most a piece, without its own session's events.
    pub fn take(&self, reader: &mut Reader) -> Found {
        let ring = self.ring.lock();
        let newest = self.newest();
        let oldest = ring.front().map_or(newest + 1, |e| e.at.seq);
        if reader.at + 1 < oldest {
            reader.at = newest;
            return Found::Lines(vec![EventLine::Reset(EventCursor { boot: self.boot, seq: newest })]);
        }
        let skip = usize::try_from(reader.at + 1 - oldest).unwrap_or(usize::MAX);
        let mut lines = Vec::new();
        for event in ring.iter().skip(skip) {
            reader.at = event.at.seq;
            if event.origin.is_none() || event.origin != reader.session {
                lines.push(EventLine::Event(event.clone()));
                if lines.len() >= PIECE_EVENTS_MAX {
                    break;
                }
            }
        }
        if lines.is_empty() { Found::Nothing } else { Found::Lines(lines) }
    }

    /// The reader's place as a line that only says so.
    pub fn ping(&self, reader: &Reader) -> EventLine {
        EventLine::Ping(EventCursor { boot: self.boot, seq: reader.at })
    }
}

impl Reader {
    /// Returns when there may be something after the reader's place that concerns it, and was not there when it last
    /// returned.
    pub async fn changed(&mut self) {
        self.bell.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::Ino;
    use futures_util::FutureExt;

    fn kinds(range: std::ops::Range<u64>) -> Vec<EventKind> {
        range.map(|n| EventKind::Content(Ino(n))).collect()
    }

    fn inos(found: Found) -> Vec<u64> {
        let Found::Lines(lines) = found else { return Vec::new() };
        let ino = |line| match line {
            EventLine::Event(Event { kind: EventKind::Content(ino), .. }) => ino.0,
            other => panic!("not a content event: {other:?}"),
        };
        lines.into_iter().map(ino).collect()
    }

    #[test]
    fn the_newest_event_for_a_session_is_not_its_own() {
        let events = Events::new(7, 10);
        let mut caused: Vec<Option<u64>> = Vec::new();
        for origin in
            [None, Some(1), Some(1), Some(2), Some(1), None, None, Some(2), Some(2), Some(3), Some(3)]
        {
            events.publish(origin.map(SessionId), kinds(0..2));
            caused.extend([origin; 2]);
            for asks in [None, Some(1), Some(2), Some(3)] {
                let told =
                    caused.iter().rposition(|by| by.is_none() || *by != asks).map_or(0, |at| at as u64 + 1);
                let newest = events.newest_for(asks.map(SessionId));
                assert_eq!(newest, EventCursor { boot: 7, seq: told }, "{asks:?} of {caused:?}");
            }
        }
    }

    #[test]
    fn a_reader_sees_what_comes_after_it_follows() {
        let events = Events::new(7, 10);
        events.publish(None, kinds(0..2));
        let (mut reader, first) = events.follow(None, None);
        assert_eq!(first, EventLine::Ping(EventCursor { boot: 7, seq: 2 }));
        assert_eq!(events.take(&mut reader), Found::Nothing);
        events.publish(None, kinds(2..4));
        assert_eq!(inos(events.take(&mut reader)), [2, 3]);
        assert_eq!(events.take(&mut reader), Found::Nothing);
    }

    #[test]
    fn a_session_does_not_hear_its_own_echo() {
        let events = Events::new(7, 10);
        let (mut mine, _) = events.follow(None, Some(SessionId(1)));
        let (mut other, _) = events.follow(None, Some(SessionId(2)));
        events.publish(Some(SessionId(1)), kinds(5..6));
        assert_eq!(events.take(&mut mine), Found::Nothing);
        assert_eq!(events.ping(&mine), EventLine::Ping(EventCursor { boot: 7, seq: 1 }));
        assert_eq!(inos(events.take(&mut other)), [5]);
        assert_eq!(mine.changed().now_or_never(), None, "it was woken for nothing");
    }

    #[test]
    fn who_comes_back_in_time_misses_nothing_and_who_does_not_is_told() {
        let events = Events::new(7, 4);
        events.publish(None, kinds(1..7));
        let at = |boot, seq| Some(EventCursor { boot, seq });
        let (mut reader, first) = events.follow(at(7, 2), None);
        assert!(matches!(first, EventLine::Ping(_)));
        assert_eq!(inos(events.take(&mut reader)), [3, 4, 5, 6]);
        for lost in [at(7, 1), at(8, 6), at(7, 7)] {
            let (mut reader, first) = events.follow(lost, None);
            assert_eq!(first, EventLine::Reset(EventCursor { boot: 7, seq: 6 }));
            assert_eq!(events.take(&mut reader), Found::Nothing);
        }
    }

    #[test]
    fn a_slow_reader_is_reset_and_goes_on() {
        let events = Events::new(7, 4);
        let (mut reader, _) = events.follow(None, None);
        events.publish(None, kinds(0..5));
        let reset = EventLine::Reset(EventCursor { boot: 7, seq: 5 });
        assert_eq!(events.take(&mut reader), Found::Lines(vec![reset]));
        events.publish(None, kinds(9..10));
        assert_eq!(inos(events.take(&mut reader)), [9]);
    }

    #[tokio::test]
    async fn the_bell_rings_for_what_came_already_and_for_what_comes() {
        let events = Events::new(7, 4);
        let (mut reader, _) = events.follow(None, None);
        events.publish(None, kinds(0..1));
        reader.changed().await;
        events.take(&mut reader);
        let (waited, ()) = tokio::join!(reader.changed(), async { events.publish(None, kinds(1..2)) });
        assert_eq!(waited, ());
        assert_eq!(inos(events.take(&mut reader)), [1]);
    }
}
