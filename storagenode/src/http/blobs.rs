//! `/v1/blobs/{volume}/{key}`: storing and reading one blob.

use super::body::{self, Pieces};
use super::range::{self, Wanted};
use crate::node::{Node, blob_id, blocking};
use crate::record::{Header, record_bytes};
use crate::store::{Append, Outcome, Payload};
use actix_web::body::SizedStream;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_RANGE, RANGE};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use dfs_client::checksum;
use dfs_proto::blob::{
    HEADER_CRC32C, HEADER_MD5, HEADER_ORIGIN, HEADER_SEQ, HEADER_SYNC, HEADER_TOKEN, PutAck, chunks_of,
};
use dfs_proto::{BlobId, BlobOrigin, ErrorCode, Ino, Md5, NodeId, Version, WireError};
use dfs_service::HttpError;
use dfs_service::http::{optional_header, required_header};
use std::fmt::Write;

/// The MD5 of bodies up to this size is cheaper than handing them to another thread.
const INLINE_MD5_BYTES_MAX: usize = 8 << 10;

/// What a PUT says about its blob.
struct Stated {
    length: usize,
    md5: Md5,
    crc32c: Option<Vec<u32>>,
    origin: BlobOrigin,
    sync: bool,
}

/// `PUT`: appends a blob.
pub async fn put(
    node: web::Data<Node>,
    path: web::Path<(u64, u64)>,
    request: HttpRequest,
    mut payload: web::Payload,
) -> Result<HttpResponse, HttpError> {
    let _at_work = node.foreground.enter();
    let id = blob_id(path.into_inner());
    let (stated, primary) = match admit(&node, id, &request) {
        Ok(admitted) => admitted,
        Err(e) => {
            body::discard(&mut payload).await;
            return Err(e);
        }
    };
    let sync = stated.sync;
    let (collected, crc32c) = match body::collect(&node, &mut payload, stated.length).await {
        Ok(collected) => collected,
        Err(e) => {
            body::discard(&mut payload).await;
            return Err(e.into());
        }
    };
    let payload = verified(stated, collected, crc32c).await?;
    let node_id = match primary {
        Ok(node) => node,
        Err(refusal) => return existing(&node, id, payload.md5, sync, refusal).await,
    };
    let outcome = node.store.append_one(Append::Put { id, payload }, sync).await.map_err(WireError::from)?;
    match outcome {
        Outcome::Stored(seq) => Ok(HttpResponse::Created().json(PutAck { node: node_id, seq, synced: sync })),
        Outcome::Existing(seq) => Ok(HttpResponse::Ok().json(PutAck { node: node_id, seq, synced: sync })),
        Outcome::Deleted(_) | Outcome::Absent => {
            Err(HttpError::new(ErrorCode::Internal, "a PUT was answered as a delete"))
        }
    }
}

/// Checks all that can be checked before the body. A PUT of a volume that takes no more is let through when
/// its key is there: it may be a repetition of one whose answer was lost. The refusal comes along then.
fn admit(
    node: &Node,
    id: BlobId,
    request: &HttpRequest,
) -> Result<(Stated, Result<NodeId, WireError>), HttpError> {
    node.allow_put(required_header(request, HEADER_TOKEN)?, id)?;
    let stated = stated(request)?;
    let known = node.store.find(id).is_ok();
    let primary = node.check_append(id.volume);
    match &primary {
        Err(refusal) if !known || node.id().is_none() => return Err(refusal.clone().into()),
        Ok(_) if !known => {
            node.store.check_space(record_bytes(stated.length) as u64).map_err(WireError::from)?;
        }
        _ => {}
    }
    Ok((stated, primary))
}

fn stated(request: &HttpRequest) -> Result<Stated, HttpError> {
    let length = body::stated_length(request)?;
    let malformed = |header: &str, why: &str| {
        HttpError::new(ErrorCode::Malformed, format!("the header {header} cannot be read: {why}"))
    };
    let md5 = required_header(request, HEADER_MD5)?;
    let md5 = md5.parse().map_err(|_| malformed(HEADER_MD5, "it has to be 32 hex digits"))?;
    let crc32c = match optional_header(request, HEADER_CRC32C)? {
        Some(text) => Some(
            parse_crcs(text, chunks_of(length))
                .ok_or_else(|| malformed(HEADER_CRC32C, "it has to be 8 hex digits for each 64 KiB"))?,
        ),
        None => None,
    };
    let origin = match optional_header(request, HEADER_ORIGIN)? {
        Some(text) => parse_origin(text)
            .ok_or_else(|| malformed(HEADER_ORIGIN, "it has to be INO,OFFSET,VERSION in decimal"))?,
        None => BlobOrigin::default(),
    };
    let sync = match optional_header(request, HEADER_SYNC)? {
        Some("1") => true,
        None | Some("0") => false,
        Some(_) => return Err(malformed(HEADER_SYNC, "it has to be 1")),
    };
    Ok(Stated { length, md5, crc32c, origin, sync })
}

/// Checks the bytes, whose CRC32Cs are `crc32c`: against the CRC32Cs that came with them, else against the MD5.
async fn verified(stated: Stated, data: Bytes, crc32c: Vec<u32>) -> Result<Payload, WireError> {
    let mismatch = |what: &str| {
        let message = format!("the body does not match its {what}; nothing was stored");
        Err(WireError::new(ErrorCode::ChecksumMismatch, message))
    };
    match &stated.crc32c {
        Some(expected) if *expected != crc32c => return mismatch("CRC32C"),
        Some(_) => {}
        None if md5_of(&data).await? != stated.md5 => return mismatch("MD5"),
        None => {}
    }
    Ok(Payload { data, md5: stated.md5, crc32c, origin: stated.origin, written_ms: 0 })
}

async fn md5_of(data: &Bytes) -> Result<Md5, WireError> {
    if data.len() <= INLINE_MD5_BYTES_MAX {
        return Ok(checksum::md5(data));
    }
    let data = data.clone();
    tokio::task::spawn_blocking(move || checksum::md5(&data)).await.map_err(crate::node::cut_off)
}

/// The answer to a PUT that cannot append: fine if the blob is there, else `refusal`.
async fn existing(
    node: &web::Data<Node>,
    id: BlobId,
    md5: Md5,
    sync: bool,
    refusal: WireError,
) -> Result<HttpResponse, HttpError> {
    let Some(node_id) = node.id() else { return Err(refusal.into()) };
    let store = node.store.clone();
    let stored = blocking(move || store.header(id)).await?;
    if stored.md5 != md5 {
        return Err(refusal.into());
    }
    if sync {
        node.store.sync().await.map_err(WireError::from)?;
    }
    Ok(HttpResponse::Ok().json(PutAck { node: node_id, seq: stored.seq, synced: sync }))
}

/// `GET`: a blob, or the chunks that a range touches.
pub async fn get(
    node: web::Data<Node>,
    path: web::Path<(u64, u64)>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let _at_work = node.foreground.enter();
    let id = blob_id(path.into_inner());
    let length = node.store.find(id).map_err(WireError::from)?.at.payload_bytes;
    let chunks = match wanted(&request, length)? {
        Wanted::Outside => return Ok(outside(id, length)),
        Wanted::Chunks(chunks) => Some(chunks),
        Wanted::Whole => None,
    };
    let bytes = match &chunks {
        Some(chunks) => range::bytes_of(chunks, length).len(),
        None => record_bytes(length as usize),
    };
    let buffer = body::answer_buffer(&node, bytes).await?;
    let store = node.store.clone();
    let asked = chunks.clone();
    let blob = blocking(move || store.read(id, asked, buffer)).await?;
    let mut answer = headed(&blob.header, chunks);
    Ok(answer.body(Pieces::new(blob.data)))
}

/// `HEAD`: the headers of [`get`].
pub async fn head(
    node: web::Data<Node>,
    path: web::Path<(u64, u64)>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let id = blob_id(path.into_inner());
    let store = node.store.clone();
    let header = blocking(move || store.header(id)).await?;
    let length = header.payload_bytes;
    let chunks = match wanted(&request, length)? {
        Wanted::Outside => return Ok(outside(id, length)),
        Wanted::Chunks(chunks) => Some(chunks),
        Wanted::Whole => None,
    };
    let bytes = chunks.as_ref().map_or(length, |chunks| range::bytes_of(chunks, length).len() as u32);
    let nothing = futures_util::stream::empty::<Result<Bytes, std::io::Error>>();
    Ok(headed(&header, chunks).body(SizedStream::new(bytes.into(), nothing)))
}

fn wanted(request: &HttpRequest, length: u32) -> Result<Wanted, HttpError> {
    Ok(range::wanted(optional_header(request, RANGE.as_str())?, length))
}

/// The start of an answer with `chunks` of a blob, or all of it.
fn headed(header: &Header, chunks: Option<std::ops::Range<u32>>) -> HttpResponseBuilder {
    let length = header.payload_bytes;
    let mut answer = match &chunks {
        Some(chunks) => {
            let bytes = range::bytes_of(chunks, length);
            let mut answer = HttpResponse::PartialContent();
            let range = format!("bytes {}-{}/{length}", bytes.start, bytes.end.saturating_sub(1));
            answer.insert_header((CONTENT_RANGE, range));
            answer
        }
        None => HttpResponse::Ok(),
    };
    let sent = chunks.map_or(0..header.crc32c.len(), |c| c.start as usize..c.end as usize);
    let crcs = header.crc32c.get(sent).unwrap_or_default();
    answer
        .insert_header((HEADER_MD5, header.md5.to_string()))
        .insert_header((HEADER_SEQ, header.seq.to_string()))
        .insert_header((HEADER_CRC32C, show_crcs(crcs)))
        .insert_header(("accept-ranges", "bytes"))
        .content_type("application/octet-stream");
    answer
}

fn outside(id: BlobId, length: u32) -> HttpResponse {
    let message = format!("blob {id} has {length} bytes; the range lies outside");
    HttpResponse::build(StatusCode::RANGE_NOT_SATISFIABLE)
        .insert_header((CONTENT_RANGE, format!("bytes */{length}")))
        .json(WireError::new(ErrorCode::InvalidArgument, message))
}

fn parse_crcs(text: &str, chunks: usize) -> Option<Vec<u32>> {
    if text.len() != 8 * chunks || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..chunks).map(|i| u32::from_str_radix(&text[8 * i..8 * i + 8], 16).ok()).collect()
}

fn show_crcs(crcs: &[u32]) -> String {
    crcs.iter().fold(String::with_capacity(8 * crcs.len()), |mut text, crc| {
        write!(text, "{crc:08x}").expect("writing to a String cannot fail");
        text
    })
}

fn parse_origin(text: &str) -> Option<BlobOrigin> {
    let mut numbers = text.split(',').map(|n| n.trim().parse::<u64>());
    let mut next = || numbers.next()?.ok();
    let origin = BlobOrigin { ino: Ino(next()?), offset: next()?, version: Version(next()?) };
    numbers.next().is_none().then_some(origin)
}
