//! A master of a few lines, nodes that belong to it, and what tests ask of them.

use actix_web::{App, HttpResponse, HttpServer, web};
use bytes::Bytes;
use dfs_client::{ClientError, HttpNodes, NodeClient, PutBlob, checksum};
use dfs_proto::blob::CopyStatus;
use dfs_proto::node::{HeartbeatReply, HeartbeatRequest, RegisterReply, RegisterRequest};
use dfs_proto::{BlobId, BlobKey, BlobOrigin, ErrorCode, NodeId, PutAck, Seq, VolumeId, WireError};
use dfs_service::{Capability, HttpError, Rights, Running, TokenKey};
use dfs_storagenode::Config;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const V: VolumeId = VolumeId(3);

/// What the master knows; tests change it.
#[derive(Default)]
pub struct Books {
    pub registered: Vec<RegisterRequest>,
    pub heartbeats: Vec<HeartbeatRequest>,
    pub open: HashMap<NodeId, Vec<VolumeId>>,
    pub bad: Vec<BlobId>,
    pub copies: HashMap<(NodeId, VolumeId), CopyStatus>,
    /// Answer the next heartbeat with this.
    pub next_error: Option<ErrorCode>,
    pub lease_ms: u64,
    /// Let heartbeats go unanswered (503).
    pub silent: bool,
    /// Heartbeats that were not answered.
    pub lost: u64,
}

pub struct Master {
    pub books: Arc<Mutex<Books>>,
    pub key: TokenKey,
    pub url: String,
    _running: Running,
}

struct State {
    books: Arc<Mutex<Books>>,
    key: TokenKey,
}

async fn register(state: web::Data<State>, body: web::Json<RegisterRequest>) -> HttpResponse {
    let request = body.into_inner();
    let mut books = state.books.lock().unwrap();
    let known = books.registered.iter().map(|r| r.uuid.clone()).collect::<Vec<_>>();
    let mut uuids: Vec<String> = Vec::new();
    for uuid in known.into_iter().chain([request.uuid.clone()]) {
        if !uuids.contains(&uuid) {
            uuids.push(uuid);
        }
    }
    let node = NodeId(uuids.iter().position(|u| *u == request.uuid).unwrap() as u64 + 1);
    for copy in &request.copies {
        books.copies.insert((node, copy.volume), *copy);
    }
    books.registered.push(request);
    HttpResponse::Ok().json(RegisterReply {
        node,
        name: format!("sn{node}"),
        cluster: "test".into(),
        token_key: state.key.to_hex(),
        open_volumes: books.open.get(&node).cloned().unwrap_or_default(),
        heartbeat_ms: 20,
        lease_ms: books.lease_ms,
    })
}

async fn heartbeat(
    state: web::Data<State>,
    path: web::Path<u64>,
    body: web::Json<HeartbeatRequest>,
) -> Result<HttpResponse, HttpError> {
    let node = NodeId(path.into_inner());
    let mut books = state.books.lock().unwrap();
    if books.silent {
        books.lost += 1;
        return Err(HttpError::new(ErrorCode::Unavailable, "silent"));
    }
    if let Some(code) = books.next_error.take() {
        return Err(HttpError::new(code, "as the test wants it"));
    }
    for copy in &body.copies {
        books.copies.insert((node, copy.volume), *copy);
    }
    books.bad.extend(&body.bad_blobs);
    books.heartbeats.push(body.into_inner());
    let open_volumes = books.open.get(&node).cloned().unwrap_or_default();
    Ok(HttpResponse::Ok().json(HeartbeatReply { open_volumes }))
}

impl Master {
    pub fn start() -> Master {
        Master::start_at(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn start_at(listener: TcpListener) -> Master {
        let address = listener.local_addr().unwrap();
        let books = Arc::new(Mutex::new(Books { lease_ms: 60_000, ..Books::default() }));
        let state = web::Data::new(State { books: books.clone(), key: TokenKey::random() });
        let key = state.key.clone();
        let app = move || {
            App::new()
                .app_data(state.clone())
                .route("/v1/nodes/register", web::post().to(register))
                .route("/v1/nodes/{id}/heartbeat", web::post().to(heartbeat))
        };
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run();
        let mut running = Running::new("test master");
        running.serve(address, server);
        Master { books, key, url: running.url(), _running: running }
    }

    pub fn token(&self, rights: Rights, volume: VolumeId) -> String {
        let (first, end) = (BlobKey(0), BlobKey(1 << 40));
        self.key.sign(&Capability { rights, volume, first, end, expires_ms: u64::MAX })
    }

    pub fn append_token(&self) -> String {
        self.token(Rights::Append, V)
    }

    pub fn open(&self, node: NodeId, volumes: &[VolumeId]) {
        self.books.lock().unwrap().open.insert(node, volumes.to_vec());
    }
}

pub struct Node {
    pub running: Option<Running>,
    pub url: String,
    pub id: NodeId,
    pub dir: Arc<TempDir>,
    pub client: HttpNodes,
}

impl Node {
    /// A registered node; `id` is what the master will number it.
    pub async fn start(master: &Master, id: u64) -> Node {
        Node::start_in(master, id, Arc::new(tempfile::tempdir().unwrap())).await
    }

    pub async fn start_in(master: &Master, id: u64, dir: Arc<TempDir>) -> Node {
        let config = Config::new(&master.url, dir.path());
        let node = Node::start_with(config, id, dir).await;
        wait_for("the node registers", async || http("GET", &node.url, "/healthz", &[], b"").0 == 200).await;
        node
    }

    pub async fn start_with(mut config: Config, id: u64, dir: Arc<TempDir>) -> Node {
        config.reserve_bytes = config.reserve_bytes.or(Some(0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let running = dfs_storagenode::start(config, listener).await.unwrap();
        let client = HttpNodes::new(Duration::from_secs(30)).unwrap();
        Node { url: running.url(), running: Some(running), id: NodeId(id), dir, client }
    }

    /// A node that is the primary of [`V`].
    pub async fn primary(master: &Master, id: u64) -> Node {
        master.open(NodeId(id), &[V]);
        Node::start(master, id).await
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().stop(Duration::from_millis(200)).await;
    }

    pub async fn put(&self, master: &Master, key: u64, data: &Bytes) -> Result<PutAck, ClientError> {
        self.client.put(&self.url, blob(key), put_of(data, master.append_token())).await
    }

    pub async fn get(&self, key: u64) -> Result<Bytes, ClientError> {
        let fetched = self.client.get(&self.url, blob(key)).await?;
        assert_eq!(checksum::md5(&fetched.data), fetched.md5);
        assert_eq!(checksum::crc32c_chunks(&fetched.data), fetched.crc32c);
        Ok(fetched.data)
    }

    /// Flips a byte in the payload of `data` on disk.
    pub fn damage(&self, data: &[u8]) {
        let path = segment_with(self.dir.path(), data);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = find(&bytes, data).unwrap() + data.len() / 2;
        bytes[at] ^= 1;
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..=at], at as u64).unwrap();
    }
}

fn segment_with(data: &Path, needle: &[u8]) -> std::path::PathBuf {
    let paths = std::fs::read_dir(data.join("segments")).unwrap().map(|e| e.unwrap().path());
    let mut segments = paths.filter(|p| p.extension().is_some_and(|e| e == "seg"));
    segments.find(|p| find(&std::fs::read(p).unwrap(), needle).is_some()).expect("no segment has the bytes")
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().min(64)).position(|w| w == &needle[..w.len()])
}

pub fn blob(key: u64) -> BlobId {
    BlobId { volume: V, key: BlobKey(key) }
}

pub fn content(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 8).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

pub fn put_of(data: &Bytes, token: String) -> PutBlob {
    PutBlob {
        data: data.clone(),
        md5: checksum::md5(data),
        crc32c: checksum::crc32c_chunks(data),
        origin: BlobOrigin::default(),
        sync: false,
        token,
    }
}

pub async fn status(node: &Node, volume: VolumeId) -> CopyStatus {
    let (code, _, body) = http("GET", &node.url, &format!("/v1/volumes/{volume}"), &[], b"");
    assert_eq!(code, 200);
    serde_json::from_slice(&body).unwrap()
}

pub fn ack(node: &Node, seq: u64, synced: bool) -> PutAck {
    PutAck { node: node.id, seq: Seq(seq), synced }
}

pub fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    result.unwrap_err().code()
}

/// Polls until `condition` holds.
pub async fn wait_for(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub type Answer = (u16, String, Vec<u8>);

/// One request over a plain socket, with the content-length of `body`.
pub fn http(method: &str, url: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut headers = headers.to_vec();
    let length = body.len().to_string();
    if !headers.iter().any(|(name, _)| *name == "content-length") {
        headers.push(("content-length", &length));
    }
    raw(method, url, path, &headers, body)
}

/// One request over a plain socket with just these headers; nothing follows on the body.
pub fn raw(method: &str, url: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let address = url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    socket.write_all(body).unwrap();
    if headers.iter().any(|(name, value)| *name == "content-length" && *value != body.len().to_string()) {
        socket.shutdown(Shutdown::Write).unwrap();
    }
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, answer[end + 4..].to_vec())
}

pub fn wire_code(answer: &Answer) -> ErrorCode {
    serde_json::from_slice::<WireError>(&answer.2).expect("a body with code and message").code
}
