//! `PUT`.
//!
//! The body goes through a short channel to a task that stores it, so nothing is held but what is on its way.
//! Only a body that ended well is marked as ended: when the client hangs up the channel just closes, which the
//! storing task sees as a body that broke off, and nothing appears in the namespace. Missing directories are
//! made with the file's commit, when the content is stored and verified, so a refused body leaves none.

use super::{PREFIX, Request, attr_of, resolve, shown};
use crate::http::Services;
use actix_web::http::header::{CONTENT_LENGTH, HeaderName};
use actix_web::{HttpRequest, HttpResponse, web};
use async_trait::async_trait;
use bytes::Bytes;
use dfs_client::files::{self, Target, Uploaded};
use dfs_client::{ClientError, MetaClient};
use dfs_proto::blob::HEADER_MD5;
use dfs_proto::meta::{Collision, Make, ReadOp, WriteOp};
use dfs_proto::{
    CollisionPolicy, ErrorCode, FileKind, Ino, Md5, MetaOp, MetaReply, Name, Version, WireError,
};
use dfs_service::HttpError;
use dfs_service::http::optional_header;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Pieces of a body between the connection and the task that stores it.
const PIECES_MAX: usize = 16;

/// After an early error so much of the body is still read, so that a client that does not listen while it
/// sends gets to see the answer, bytes.
const DRAIN_BYTES_MAX: usize = 16 << 20;

/// Mode of files that are stored here.
const FILE_MODE: u16 = 0o644;

/// Mode of directories that are made here.
const DIRECTORY_MODE: u16 = 0o755;

/// Stands for a parent that is not there yet; no inode has this number.
const NOT_YET: Ino = Ino(0);

/// RFC 1864.
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// The query of a PUT.
#[derive(Debug, Deserialize)]
pub struct Query {
    collision: Option<String>,
    kind: Option<String>,
}

/// `PUT /files/{path}`
pub async fn put(
    services: web::Data<Services>,
    request: HttpRequest,
    query: web::Query<Query>,
    mut payload: web::Payload,
) -> Result<HttpResponse, HttpError> {
    let result = store(&services, &request, &query, &mut payload).await;
    if result.is_err() {
        drain(payload).await;
    }
    result
}

async fn store(
    services: &Services,
    request: &HttpRequest,
    query: &Query,
    payload: &mut web::Payload,
) -> Result<HttpResponse, HttpError> {
    let path = Request::parse(request.uri().path(), PREFIX)?;
    match query.kind.as_deref() {
        None if !path.is_directory => {}
        Some("directory") => return make_directories(services, &path.names).await,
        None => {
            let message = "a path that ends with a slash is a directory; add ?kind=directory to make one";
            return Err(HttpError::new(ErrorCode::IsDirectory, message));
        }
        Some(other) => {
            let message = format!("kind={other} is not known; only kind=directory is");
            return Err(HttpError::new(ErrorCode::InvalidArgument, message));
        }
    }
    let (target, meta) = target(services, request, query, &path.names).await?;
    let uploaded = stream_to(services, meta, target, payload).await?;
    Ok(stored(&path.names, &uploaded))
}

/// Where the content goes, and through whom it is published.
async fn target(
    services: &Services,
    request: &HttpRequest,
    query: &Query,
    names: &[Name],
) -> Result<(Target, Arc<dyn MetaClient>), HttpError> {
    let Some((name, directories)) = names.split_last() else {
        return Err(HttpError::new(ErrorCode::IsDirectory, "the root is a directory"));
    };
    let collision = match query.collision.as_deref().map(str::parse::<CollisionPolicy>) {
        None => Collision::Default(CollisionPolicy::default()),
        Some(Ok(policy)) => Collision::Explicit(policy),
        Some(Err(e)) => return Err(HttpError::new(ErrorCode::InvalidArgument, format!("collision: {e}"))),
    };
    let parent = directory_if_there(&*services.meta, directories).await?;
    let meta: Arc<dyn MetaClient> = match parent {
        Some(_) => Arc::clone(&services.meta),
        None => {
            Arc::new(WithDirectories { meta: Arc::clone(&services.meta), directories: directories.to_vec() })
        }
    };
    let target = Target {
        parent: parent.unwrap_or(NOT_YET),
        name: name.clone(),
        mode: FILE_MODE,
        uid: 0,
        gid: 0,
        collision,
        expected_md5: expected_md5(request)?,
        expected_bytes: expected_bytes(request)?,
    };
    Ok((target, meta))
}

fn expected_bytes(request: &HttpRequest) -> Result<Option<u64>, HttpError> {
    let text = optional_header(request, CONTENT_LENGTH.as_str())?;
    let parse = |text: &str| {
        text.parse().map_err(|_| HttpError::new(ErrorCode::Malformed, "Content-Length is not a length"))
    };
    text.map(parse).transpose()
}

/// The MD5 that the client says its body has.
fn expected_md5(request: &HttpRequest) -> Result<Option<Md5>, HttpError> {
    let bad = |header: &str, form: &str| {
        HttpError::new(ErrorCode::Malformed, format!("{header} is not an MD5 as {form}"))
    };
    let hex = optional_header(request, HEADER_MD5)?
        .map(|text| text.parse::<Md5>().map_err(|_| bad(HEADER_MD5, "32 hex digits")))
        .transpose()?;
    let base64 = optional_header(request, CONTENT_MD5.as_str())?
        .map(|text| md5_from_base64(text).ok_or_else(|| bad("Content-MD5", "24 characters of base64")))
        .transpose()?;
    if hex.zip(base64).is_some_and(|(a, b)| a != b) {
        let message = format!("Content-MD5 and {HEADER_MD5} contradict each other");
        return Err(HttpError::new(ErrorCode::InvalidArgument, message));
    }
    Ok(hex.or(base64))
}

/// 16 bytes in base64 (RFC 4648): 22 characters and `==`.
fn md5_from_base64(text: &str) -> Option<Md5> {
    let digits = text.trim().strip_suffix("==").filter(|d| d.len() == 22)?;
    let mut bits: u32 = 0;
    let mut held = 0;
    let mut out = Vec::with_capacity(16);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    // What is left over are padding bits, which have to be zero.
    if bits != 0 { None } else { Some(Md5(out.try_into().ok()?)) }
}

async fn stream_to(
    services: &Services,
    meta: Arc<dyn MetaClient>,
    target: Target,
    payload: &mut web::Payload,
) -> Result<Uploaded, HttpError> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let data = Arc::clone(&services.data);
    let body = Box::pin(stream::unfold(Some(receiver), body_piece));
    let storing = tokio::spawn(async move { files::upload(meta, data, target, body).await });
    pump(payload, sender).await;
    let stored = storing.await;
    let failed = |e| WireError::new(ErrorCode::Internal, format!("storing the body was cut off: {e}"));
    Ok(stored.map_err(failed)?.map_err(WireError::from)?)
}

/// What comes through the channel.
enum Piece {
    Data(Bytes),
    /// The body ended as it should.
    End,
    Broken(String),
}

/// Brings the body into the channel, until one of the two ends.
async fn pump(payload: &mut web::Payload, sender: mpsc::Sender<Piece>) {
    while let Some(piece) = payload.next().await {
        let (piece, is_last) = match piece {
            Ok(bytes) => (Piece::Data(bytes), false),
            Err(e) => (Piece::Broken(e.to_string()), true),
        };
        if sender.send(piece).await.is_err() || is_last {
            return;
        }
    }
    // An error means that the storing task has given up, and its result says why.
    let _ = sender.send(Piece::End).await;
}

type BodyState = Option<mpsc::Receiver<Piece>>;

async fn body_piece(state: BodyState) -> Option<(Result<Bytes, ClientError>, BodyState)> {
    let mut receiver = state?;
    let broken = |why: &str| ClientError::local(ErrorCode::Truncated, format!("the body broke off: {why}"));
    match receiver.recv().await {
        Some(Piece::Data(bytes)) => Some((Ok(bytes), Some(receiver))),
        Some(Piece::End) => None,
        Some(Piece::Broken(why)) => Some((Err(broken(&why)), None)),
        None => Some((Err(broken("the client hung up")), None)),
    }
}

async fn drain(mut payload: web::Payload) {
    let mut bytes = 0;
    while let Some(Ok(piece)) = payload.next().await {
        bytes += piece.len();
        if bytes > DRAIN_BYTES_MAX {
            return;
        }
    }
}

#[derive(Serialize)]
struct Stored {
    path: String,
    stored_as: Name,
    renamed: bool,
    size: u64,
    md5: Md5,
    version: Version,
}

fn stored(names: &[Name], uploaded: &Uploaded) -> HttpResponse {
    let directories = names.split_last().map_or(&[][..], |(_, directories)| directories);
    let mut response = if uploaded.replaced { HttpResponse::Ok() } else { HttpResponse::Created() };
    response.json(Stored {
        path: format!("{}/{}", shown(directories), uploaded.name),
        stored_as: uploaded.name.clone(),
        renamed: uploaded.renamed,
        size: uploaded.bytes,
        md5: uploaded.md5,
        version: uploaded.attr.version,
    })
}

/// The directory at `names`, if everything on the way is there.
async fn directory_if_there(meta: &dyn MetaClient, names: &[Name]) -> Result<Option<Ino>, WireError> {
    match resolve(meta, names.to_vec()).await {
        Ok(attr) if attr.kind == FileKind::Directory => Ok(Some(attr.ino)),
        Ok(_) => Err(WireError::new(ErrorCode::NotDirectory, format!("{} is not a directory", shown(names)))),
        Err(e) if e.code == ErrorCode::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// `PUT /files/{path}/?kind=directory`
async fn make_directories(services: &Services, names: &[Name]) -> Result<HttpResponse, HttpError> {
    let meta = &*services.meta;
    let was_there = directory_if_there(meta, names).await?.is_some();
    let ino = ensure_directories(meta, names).await?;
    let mut response = if was_there { HttpResponse::Ok() } else { HttpResponse::Created() };
    Ok(response.json(serde_json::json!({ "path": format!("{}/", shown(names)), "ino": ino })))
}

/// Makes what is missing of the directories `names`; gives the last.
async fn ensure_directories(meta: &dyn MetaClient, names: &[Name]) -> Result<Ino, WireError> {
    let mut parent = Ino::ROOT;
    for (depth, name) in names.iter().enumerate() {
        let attr = match lookup(meta, parent, name).await {
            Err(e) if e.code == ErrorCode::NotFound => match make_directory(meta, parent, name).await {
                // Somebody else was quicker.
                Err(e) if e.code == ErrorCode::Exists => lookup(meta, parent, name).await?,
                made => made?,
            },
            found => found?,
        };
        if attr.kind != FileKind::Directory {
            let message = format!("{} is not a directory", shown(&names[..=depth]));
            return Err(WireError::new(ErrorCode::NotDirectory, message));
        }
        parent = attr.ino;
    }
    Ok(parent)
}

async fn lookup(meta: &dyn MetaClient, parent: Ino, name: &Name) -> Result<dfs_proto::Attr, WireError> {
    attr_of(meta.call(MetaOp::Read(ReadOp::Lookup { parent, name: name.clone() })).await)
}

async fn make_directory(
    meta: &dyn MetaClient,
    parent: Ino,
    name: &Name,
) -> Result<dfs_proto::Attr, WireError> {
    let make = Make {
        parent,
        name: name.clone(),
        ino: Ino(0),
        kind: FileKind::Directory,
        mode: DIRECTORY_MODE,
        umask: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: Bytes::new(),
        opened: false,
    };
    attr_of(meta.call(MetaOp::Write(WriteOp::Make(make))).await)
}

/// Makes the missing directories of a file when its commit comes.
struct WithDirectories {
    meta: Arc<dyn MetaClient>,
    directories: Vec<Name>,
}

#[async_trait]
impl MetaClient for WithDirectories {
    async fn call(&self, op: MetaOp) -> Result<MetaReply, ClientError> {
        match op {
            MetaOp::Read(ReadOp::Lookup { parent: NOT_YET, name }) => {
                let message = format!("{}/{name} is not there", shown(&self.directories));
                Err(ClientError::local(ErrorCode::NotFound, message))
            }
            MetaOp::Write(WriteOp::Commit(mut commit)) => {
                if let Some(create) = commit.create.as_mut().filter(|c| c.parent == NOT_YET) {
                    create.parent = ensure_directories(&*self.meta, &self.directories).await?;
                }
                self.meta.call(MetaOp::Write(WriteOp::Commit(commit))).await
            }
            op => self.meta.call(op).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_in_base64_is_read() {
        // RFC 1864's form of MD5("").
        let md5 = md5_from_base64("1B2M2Y8AsgTpgAmY7PhCfg==").unwrap();
        assert_eq!(md5.to_string(), "d41d8cd98f00b204e9800998ecf8427e");
        for bad in ["", "1B2M2Y8AsgTpgAmY7PhCfg", "1B2M2Y8AsgTpgAmY7PhCfh==", "1B2M2Y8AsgTp*AmY7PhCfg=="] {
            assert_eq!(md5_from_base64(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_body_without_its_end_is_an_error() {
        let (sender, receiver) = mpsc::channel(4);
        sender.send(Piece::Data(Bytes::from_static(b"x"))).await.unwrap();
        drop(sender);
        let body = stream::unfold(Some(receiver), body_piece);
        let pieces: Vec<_> = body.collect().await;
        assert_eq!(pieces.len(), 2);
        assert!(pieces[0].is_ok());
        assert_eq!(pieces[1].as_ref().unwrap_err().code(), ErrorCode::Truncated);
    }
}
