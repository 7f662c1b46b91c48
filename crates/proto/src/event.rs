//! The event stream: what changed, so that caches elsewhere can drop it.
//!
//! `GET /v1/events?since=BOOT.SEQ&session=N` answers with lines of JSON, one [`EventLine`] each, for as long
//! as the connection stands. A line at least every [`EVENT_PING_MS`] shows that it still does.

use crate::id::{Ino, SessionId};
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest silence of the stream, ms.
pub const EVENT_PING_MS: u64 = 1000;

/// A place in the stream. The order holds within one run of the master (`boot`) only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventCursor {
    /// Which run of the master.
    pub boot: u64,
    /// Number of the event in it, from 1.
    pub seq: u64,
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.boot, self.seq)
    }
}

/// A text that is not two numbers with a dot between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event cursor is written BOOT.SEQ")]
pub struct ParseCursorError;

impl FromStr for EventCursor {
    type Err = ParseCursorError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (boot, seq) = s.split_once('.').ok_or(ParseCursorError)?;
        let number = |t: &str| t.parse().map_err(|_| ParseCursorError);
        Ok(EventCursor { boot: number(boot)?, seq: number(seq)? })
    }
}

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventLine {
    /// Events between the asked place and what follows are lost (the master was restarted, or the asker was
    /// away for too long): drop every cache. Always the first line when `since` cannot be honoured.
    Reset(EventCursor),
    /// Something changed.
    Event(Event),
    /// Nothing changed up to here.
    Ping(EventCursor),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place.
    pub at: EventCursor,
    /// The session that caused it, when one did; it need not listen to its own echo.
    pub origin: Option<SessionId>,
    /// What changed.
    pub kind: EventKind,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Attributes or extended attributes of the inode, not its content.
    Attr(Ino),
    /// Content of the file (and its attributes).
    Content(Ino),
    /// The entry `name` of directory `parent` appeared, went away or names another inode.
    Entry {
        /// The directory.
        parent: Ino,
        /// The entry.
        name: Name,
    },
    /// Locks of the file were given up: who waits for one may try again.
    Unlocked(Ino),
    /// Where copies of volumes are, or which nodes are live.
    Placement,
}
