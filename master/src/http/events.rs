//! `/v1/events`

use super::Services;
use crate::events::{Found, Reader};
use crate::master::Master;
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use dfs_proto::event::{EVENT_PING_MS, EventCursor, EventLine};
use dfs_proto::{ErrorCode, SessionId};
use dfs_service::{HttpError, Stopper};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Silence after which a ping goes out: well before [`EVENT_PING_MS`] has passed.
const PING_AFTER: Duration = Duration::from_millis(EVENT_PING_MS / 2);

/// The query of `GET /v1/events`.
#[derive(Deserialize)]
pub struct Query {
    since: Option<String>,
    session: Option<u64>,
}

/// `GET /v1/events?since=BOOT.SEQ&session=N`
pub async fn follow(
    services: web::Data<Services>,
    query: web::Query<Query>,
) -> Result<HttpResponse, HttpError> {
    let parse = |text: &String| {
        text.parse::<EventCursor>()
            .map_err(|e| HttpError::new(ErrorCode::Malformed, format!("since={text}: {e}")))
    };
    let since = query.since.as_ref().map(parse).transpose()?;
    let session = query.session.map(SessionId);
    let master = Arc::clone(&services.master);
    if let Some(id) = session.filter(|id| !master.sessions.exists(*id)) {
        return Err(crate::sessions::expired(id).into());
    }
    let (reader, first) = master.events.follow(since, session);
    let stopper = services.stopper.clone();
    let stream = Stream { master, reader, first: Some(first), stopper, spoke: Instant::now() };
    let lines = futures_util::stream::unfold(stream, |mut stream| async move {
        let lines = stream.next().await?;
        stream.spoke = Instant::now();
        Some((Ok::<_, Infallible>(encode(&lines)), stream))
    });
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines))
}

struct Stream {
    master: Arc<Master>,
    reader: Reader,
    first: Option<EventLine>,
    stopper: Stopper,
    spoke: Instant,
}

impl Stream {
    /// The next lines; `None` when the server ends.
    async fn next(&mut self) -> Option<Vec<EventLine>> {
        if let Some(first) = self.first.take() {
            return Some(vec![first]);
        }
        let mut is_time_to_speak = false;
        loop {
            if let Found::Lines(lines) = self.master.events.take(&mut self.reader) {
                return Some(lines);
            }
            if is_time_to_speak {
                return Some(vec![self.master.events.ping(&self.reader)]);
            }
            tokio::select! {
                () = self.reader.changed() => {}
                () = tokio::time::sleep_until(self.spoke + PING_AFTER) => is_time_to_speak = true,
                () = self.stopper.stopped() => return None,
            }
        }
    }
}

fn encode(lines: &[EventLine]) -> Bytes {
    let mut text = Vec::new();
    for line in lines {
        match serde_json::to_vec(line) {
            Ok(json) => text.extend_from_slice(&json),
            // Cannot happen: events are numbers and names. A line that is left out would be worse.
            Err(e) => log::error!("an event cannot be written as JSON: {e}"),
        }
        text.push(b'\n');
    }
    text.into()
}
