//! The stream of changes by others: read line by line, told to a handler, set up again when it breaks.

use crate::http::BodyStream;
use crate::retry::Backoff;
use crate::session::Shared;
use crate::task::AbortOnDrop;
use crate::{ClientError, EventHandler};
use bytes::{Buf, Bytes, BytesMut};
use dfs_proto::ErrorCode;
use dfs_proto::codec::Encoding;
use dfs_proto::event::{EVENT_PING_MS, EventCursor, EventLine};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Silence after which the stream counts as broken: three pings missed.
const SILENCE_MS_MAX: u64 = 3 * EVENT_PING_MS;

/// Longest line, bytes: a name of 255 bytes as a list of numbers and room to spare.
const LINE_BYTES_MAX: usize = 16 << 10;

const BACKOFF: Backoff = Backoff::of_ms(50, 2000);

/// Keeps an [`EventHandler`] informed until it is dropped.
#[must_use = "events end when the subscription is dropped"]
pub struct Subscription(#[expect(dead_code, reason = "held for its drop")] AbortOnDrop<()>);

pub(crate) fn subscribe(shared: Arc<Shared>, handler: Arc<dyn EventHandler>) -> Subscription {
    let listener = Listener { shared, handler, cursor: None, up: false };
    Subscription(AbortOnDrop::spawn(listener.run()))
}

struct Listener {
    shared: Arc<Shared>,
    handler: Arc<dyn EventHandler>,
    /// The last place that was heard of.
    cursor: Option<EventCursor>,
    /// Whether the handler has been told that the stream stands.
    up: bool,
}

impl Listener {
    async fn run(mut self) {
        let mut attempt = 0;
        loop {
            let mut current = self.shared.current.subscribe();
            let id = current.borrow_and_update().session;
            let error = tokio::select! {
                error = self.listen() => error,
                // Our own changes are left out by the session's number, so a new session needs a new stream.
                _ = current.changed() => None,
            };
            if self.up {
                self.up = false;
                attempt = 0;
                self.handler.on_down();
            }
            let Some(error) = error else { continue };
            log::debug!("the event stream is down: {error}");
            if error.code() == ErrorCode::SessionExpired
                && let Err(e) = self.shared.reopen(id).await
            {
                log::debug!("no new session yet: {e}");
            }
            BACKOFF.wait(attempt, Instant::now() + BACKOFF.cap).await;
            attempt += 1;
        }
    }

    /// Follows one stream until it breaks.
    async fn listen(&mut self) -> Option<ClientError> {
        let patience = Duration::from_millis(SILENCE_MS_MAX);
        let opened = self.shared.master.events(self.cursor, self.shared.id(), patience).await;
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(failure) => return Some(failure.error),
        };
        let mut lines = Lines::default();
        loop {
            match next_line(&mut stream, &mut lines, patience).await {
                Ok(line) => self.hear(line),
                Err(e) => return Some(e),
            }
        }
    }

    fn hear(&mut self, line: EventLine) {
        if !self.up || matches!(line, EventLine::Reset(_)) {
            self.up = true;
            self.handler.on_reset();
        }
        let at = match line {
            EventLine::Reset(at) | EventLine::Ping(at) => at,
            EventLine::Event(event) => {
                self.handler.on_event(&event);
                event.at
            }
        };
        self.cursor = Some(at);
        self.handler.on_place(at);
    }
}

async fn next_line(
    stream: &mut BodyStream,
    lines: &mut Lines,
    patience: Duration,
) -> Result<EventLine, ClientError> {
    loop {
        match lines.next() {
            Ok(Some(line)) => {
                return Encoding::Json.decode(&line).map_err(|e| stream.bad(e.message));
            }
            Ok(None) => {}
            Err(TooLong) => return Err(stream.bad(format!("a line of more than {LINE_BYTES_MAX} bytes"))),
        }
        match stream.next(patience).await? {
            Some(piece) => lines.push(&piece),
            None => return Err(stream.bad("the stream ended")),
        }
    }
}

/// Cuts pieces into lines. Empty lines are passed over.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
}

struct TooLong;

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole line, if there is one.
    fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        loop {
            let Some(end) = self.buffer.iter().position(|b| *b == b'\n') else {
                return if self.buffer.len() > LINE_BYTES_MAX { Err(TooLong) } else { Ok(None) };
            };
            let line = self.buffer.split_to(end).freeze();
            self.buffer.advance(1);
            if line.len() > LINE_BYTES_MAX {
                return Err(TooLong);
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        std::iter::from_fn(|| lines.next().ok().flatten())
            .map(|l| String::from_utf8_lossy(&l).into_owned())
            .collect()
    }

    #[test]
    fn lines_are_put_together_from_any_pieces() {
        let mut lines = Lines::default();
        lines.push(b"on");
        assert!(all(&mut lines).is_empty());
        lines.push(b"e\ntwo\n\r\n\nth");
        assert_eq!(all(&mut lines), ["one", "two"]);
        lines.push(b"ree\n");
        assert_eq!(all(&mut lines), ["three"]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_BYTES_MAX + 1]);
        assert!(lines.next().is_err());
        lines.push(b"\n");
        assert!(lines.next().is_err());
    }
}
