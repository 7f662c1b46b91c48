//! Plain calls to the master, one request each. What needs a session is in [`crate::Session`].

use crate::ClientError;
use crate::http::{Answer, BodyStream, Call, Failure, Transport, base_url};
use bytes::Bytes;
use dfs_proto::backup::BackupTaken;
use dfs_proto::codec::Encoding;
use dfs_proto::event::EventCursor;
use dfs_proto::meta::{MetaRequest, MetaResponse, SessionReply, SessionRequest};
use dfs_proto::node::{
    DrainRequest, HeartbeatReply, HeartbeatRequest, NodeStatus, RebalanceRequest, RebalanceStatus,
    RegisterReply, RegisterRequest,
};
use dfs_proto::order::{ClaimRequest, ClaimedOrder, FinishRequest, SettleRequest};
use dfs_proto::status::{ClusterStatus, LayoutReply};
use dfs_proto::{Name, NodeId, SessionId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Longest answer of the master, bytes: a batch of directory pages and extent pages.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Idle connections to the master: a few meta requests in flight, the event stream, a status call.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// What stays as it is in a path (RFC 3986 2.3) when all else is percent-encoded.
const PATH_KEEPS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Plain HTTP calls to the master, without a session and without retries. Cheap to clone.
#[derive(Clone)]
pub struct MasterClient {
    transport: Transport,
    url: String,
    deadline: Duration,
}

impl MasterClient {
    /// Calls to the master at `base_url` (`http://host:port`, or `host:port`), each within `deadline`. No
    /// I/O happens here; errors are `invalid_argument` for what is no address.
    pub fn new(base_url_text: &str, deadline: Duration) -> Result<MasterClient, ClientError> {
        let url = base_url(base_url_text)?;
        Ok(MasterClient { transport: Transport::new(IDLE_CONNECTIONS_MAX)?, url, deadline })
    }

    /// Base URL, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// For one operation, its retries included where there are any.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// `GET /healthz`: whether it serves.
    pub async fn healthy(&self) -> Result<(), ClientError> {
        self.send(self.call(Method::GET, "/healthz")).await.map(drop)
    }

    /// `GET /v1/status`
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        self.get("/v1/status").await
    }

    /// `GET /v1/nodes`
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, ClientError> {
        self.get("/v1/nodes").await
    }

    /// `GET /v1/files-layout/{path}`: where the bytes of the file at `path` are.
    pub async fn layout(&self, path: &[u8]) -> Result<LayoutReply, ClientError> {
        let names = Name::split_path(path)?;
        let encoded: Vec<String> = names.iter().map(|n| encode_component(n.as_bytes())).collect();
        self.get(&format!("/v1/files-layout/{}", encoded.join("/"))).await
    }

    /// `POST /v1/nodes/register`
    pub async fn register(&self, r: &RegisterRequest) -> Result<RegisterReply, ClientError> {
        self.post("/v1/nodes/register", r, self.deadline).await
    }

    /// `POST /v1/nodes/{id}/heartbeat`
    pub async fn heartbeat(&self, node: NodeId, r: &HeartbeatRequest) -> Result<HeartbeatReply, ClientError> {
        self.post(&format!("/v1/nodes/{node}/heartbeat"), r, self.deadline).await
    }

    /// `POST /v1/nodes/{id}/drain`: has a node emptied, or hold data again.
    pub async fn drain(&self, node: NodeId, draining: bool) -> Result<NodeStatus, ClientError> {
        self.post(&format!("/v1/nodes/{node}/drain"), &DrainRequest { draining }, self.deadline).await
    }

    /// `DELETE /v1/nodes/{id}`: forgets a node for good; with `force` also what only it had.
    pub async fn remove_node(&self, node: NodeId, force: bool) -> Result<(), ClientError> {
        let path = format!("/v1/nodes/{node}?force={force}");
        self.send(self.call(Method::DELETE, &path)).await.map(drop)
    }

    /// `POST /v1/backups`: has the database backed up now.
    pub async fn take_backup(&self) -> Result<BackupTaken, ClientError> {
        let call = self.call(Method::POST, "/v1/backups");
        self.send(call).await?.decode(Encoding::Json)
    }

    /// `GET /v1/rebalance`
    pub async fn rebalance_status(&self) -> Result<RebalanceStatus, ClientError> {
        self.get("/v1/rebalance").await
    }

    /// `POST /v1/rebalance`: begins or stops evening out used space.
    pub async fn rebalance(&self, running: bool) -> Result<RebalanceStatus, ClientError> {
        self.post("/v1/rebalance", &RebalanceRequest { running }, self.deadline).await
    }

    /// `POST /v1/orders/claim`; the time that the master is asked to wait comes on top of the deadline.
    pub async fn claim(&self, r: &ClaimRequest) -> Result<Vec<ClaimedOrder>, ClientError> {
        let deadline = self.deadline + Duration::from_millis(r.wait_ms);
        self.post("/v1/orders/claim", r, deadline).await
    }

    /// `POST /v1/orders/settle`
    pub async fn settle(&self, r: &SettleRequest) -> Result<(), ClientError> {
        self.send(self.call(Method::POST, "/v1/orders/settle").json(r)?).await.map(drop)
    }

    /// `POST /v1/orders/finish`
    pub async fn finish(&self, r: &FinishRequest) -> Result<(), ClientError> {
        self.send(self.call(Method::POST, "/v1/orders/finish").json(r)?).await.map(drop)
    }

    /// `POST /v1/sessions`
    pub(crate) async fn open_session(
        &self,
        r: &SessionRequest,
        deadline: Duration,
    ) -> Result<SessionReply, ClientError> {
        self.post("/v1/sessions", r, deadline).await
    }

    /// `DELETE /v1/sessions/{id}`
    pub(crate) async fn close_session(&self, id: SessionId, deadline: Duration) -> Result<(), ClientError> {
        let mut call = self.call(Method::DELETE, &format!("/v1/sessions/{id}"));
        call.deadline = deadline;
        self.send(call).await.map(drop)
    }

    /// One meta request. The failure tells whether the master may have received it.
    pub(crate) async fn meta(&self, r: &MetaRequest, deadline: Duration) -> Result<MetaResponse, Failure> {
        let unsent = |error: ClientError| Failure { error, sent: false };
        let body = Encoding::Postcard.encode(r).map_err(|e| unsent(e.into()))?;
        let mut call = self
            .call(Method::POST, "/v1/meta")
            .header("content-type", Encoding::Postcard.content_type().to_owned())
            .body(Bytes::from(body));
        call.deadline = deadline;
        let answer = self.transport.send(call).await?;
        let received = |error: ClientError| Failure { error, sent: true };
        let response: MetaResponse = answer.decode(Encoding::Postcard).map_err(received)?;
        if response.results.len() != r.calls.len() {
            let (got, asked) = (response.results.len(), r.calls.len());
            return Err(received(answer.bad(format!("{got} results for {asked} calls"))));
        }
        Ok(response)
    }

    /// `GET /v1/events`, from `since` on, or from now on. The master answers with a line at once.
    pub(crate) async fn events(
        &self,
        since: Option<EventCursor>,
        session: SessionId,
        patience: Duration,
    ) -> Result<BodyStream, Failure> {
        let path = match since {
            Some(cursor) => format!("/v1/events?since={cursor}&session={session}"),
            None => format!("/v1/events?session={session}"),
        };
        let mut call = self.call(Method::GET, &path);
        call.deadline = patience;
        self.transport.open(call).await
    }

    fn call(&self, method: Method, path: &str) -> Call<'_> {
        Call::new(&self.url, method, path.to_owned(), self.deadline).answer_bytes_max(ANSWER_BYTES_MAX)
    }

    async fn send(&self, call: Call<'_>) -> Result<Answer, ClientError> {
        Ok(self.transport.send(call).await?)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(self.call(Method::GET, path)).await?.decode(Encoding::Json)
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        deadline: Duration,
    ) -> Result<T, ClientError> {
        let mut call = self.call(Method::POST, path).json(body)?;
        call.deadline = deadline;
        self.send(call).await?.decode(Encoding::Json)
    }
}

impl std::fmt::Debug for MasterClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterClient").field("url", &self.url).field("deadline", &self.deadline).finish()
    }
}

fn encode_component(bytes: &[u8]) -> String {
    percent_encoding::percent_encode(bytes, PATH_KEEPS).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::ErrorCode;

    #[test]
    fn any_name_survives_a_path() {
        assert_eq!(encode_component(b"a b/%c?\xff.txt"), "a%20b%2F%25c%3F%FF.txt");
    }

    #[tokio::test]
    async fn a_path_with_dot_dot_is_refused_before_it_is_sent() {
        let master = MasterClient::new("127.0.0.1:1", Duration::from_secs(1)).unwrap();
        let e = master.layout(b"/a/../b").await.unwrap_err();
        assert_eq!(e.code(), ErrorCode::InvalidName);
    }
}
