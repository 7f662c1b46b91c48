//! Connections to one Redis server: one for all that is answered at once, and some for reads that wait.
//!
//! Every call ends within [`COMMAND_TIMEOUT`] (a read that waits: its wait more). A server that is away
//! costs an error each time and nothing else; the next call tries it again.

use crate::seam::QueueError;
use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError};
use std::fmt;
use std::time::Duration;

/// One attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// One command, connecting included.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that are kept for reads that wait.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// Why a command failed.
pub(super) enum Failure {
    /// The consumer group is not there: the database was emptied, or is new.
    NoGroup,
    /// The connection broke before the answer came; whether the command was carried out is unknown.
    Broken(String),
    /// Anything else, in the words of the server or the client.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoGroup => f.write_str("the consumer group is missing"),
            Failure::Broken(reason) | Failure::Other(reason) => f.write_str(reason),
        }
    }
}

impl From<RedisError> for Failure {
    fn from(e: RedisError) -> Failure {
        let text = e.to_string();
        // Errors from within a script carry their code in the text on some versions of Redis.
        if e.code() == Some("NOGROUP") || text.contains("NOGROUP") {
            Failure::NoGroup
        } else if e.is_connection_dropped() && !e.is_connection_refusal() {
            Failure::Broken(text)
        } else {
            Failure::Other(text)
        }
    }
}

pub(super) struct Connections {
    /// Address without credentials, for messages.
    pub(super) server: String,
    client: Client,
    /// Replaced when a command timed out: its connection may lead to a host that is gone, which TCP alone
    /// notices only after many minutes.
    shared: Mutex<ConnectionManager>,
    /// Connections without a read under way.
    idle: Mutex<Vec<MultiplexedConnection>>,
}

impl Connections {
    /// Does no I/O; has to be called within a tokio runtime. Fails only when the URL makes no sense.
    pub(super) fn new(url: &str) -> Result<Connections, QueueError> {
        // The URL may hold a password, so the message names no more than is known to be harmless.
        let wrong = |e: RedisError| QueueError::Unavailable {
            server: "the given URL".to_owned(),
            action: "be understood",
            reason: format!("{e} (write redis://HOST:PORT)"),
        };
        let client = Client::open(url).map_err(wrong)?;
        let server = client.get_connection_info().addr().to_string();
        let shared = Mutex::new(lazy(&client).map_err(wrong)?);
        Ok(Connections { server, client, shared, idle: Mutex::new(Vec::new()) })
    }

    /// Sends a command that is answered at once.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let mut connection = self.shared.lock().clone();
        match tokio::time::timeout(COMMAND_TIMEOUT, command.query_async(&mut connection)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                if let Ok(fresh) = lazy(&self.client) {
                    *self.shared.lock() = fresh;
                }
                Err(timed_out(COMMAND_TIMEOUT))
            }
        }
    }

    /// Sends a command that may wait for `wait` before it is answered. It has a connection of its own, since
    /// those behind it on the same connection would wait as well.
    pub(super) async fn run_waiting<T: FromRedisValue>(
        &self,
        command: &Cmd,
        wait: Duration,
    ) -> Result<T, Failure> {
        let limit = wait + COMMAND_TIMEOUT;
        let answer = async {
            let idle = self.idle.lock().pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let answer = command.query_async(&mut connection).await?;
            Ok::<_, RedisError>((answer, connection))
        };
        // A connection whose read failed or was given up is dropped with its future.
        let (answer, connection) =
            tokio::time::timeout(limit, answer).await.map_err(|_| timed_out(limit))??;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(connection);
        }
        Ok(answer)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None);
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// The error that callers of the queue see.
    pub(super) fn unavailable(&self, action: &'static str, failure: &Failure) -> QueueError {
        QueueError::Unavailable { server: self.server.clone(), action, reason: failure.to_string() }
    }
}

fn lazy(client: &Client) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(None)
        .set_number_of_retries(1);
    client.get_connection_manager_lazy(config)
}

fn timed_out(limit: Duration) -> Failure {
    Failure::Other(format!("no answer within {} ms", limit.as_millis()))
}
