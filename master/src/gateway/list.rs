//! Pages of directories.

use super::{odd_reply, shown};
use crate::http::Services;
use actix_web::HttpResponse;
use dfs_proto::limits::DIR_PAGE_ENTRIES_MAX;
use dfs_proto::meta::{DirPage, ReadOp};
use dfs_proto::{DirCookie, FileKind, Ino, MetaOp, MetaReply, Name, Version, WireError};
use dfs_service::HttpError;
use serde::{Deserialize, Serialize};

/// Entries in a page when the request does not say.
const ENTRIES_DEFAULT: u32 = 1_000;

/// The query of a listing.
#[derive(Debug, Deserialize)]
pub struct Query {
    after: Option<DirCookie>,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct Listing {
    path: String,
    entries: Vec<Entry>,
    next: Option<DirCookie>,
}

#[derive(Serialize)]
struct Entry {
    name: Name,
    kind: FileKind,
    size: u64,
    mode: u16,
    mtime_secs: i64,
    ino: Ino,
    version: Version,
}

/// `GET /files/{path}/?after=COOKIE&limit=N`
pub async fn page(
    services: &Services,
    names: &[Name],
    ino: Ino,
    query: &Query,
) -> Result<HttpResponse, HttpError> {
    let limit = query.limit.unwrap_or(ENTRIES_DEFAULT).clamp(1, DIR_PAGE_ENTRIES_MAX);
    let after = query.after.unwrap_or_default();
    let reply = services.meta.call(MetaOp::Read(ReadOp::ReadDir { ino, after, limit })).await;
    let MetaReply::Dir(DirPage { entries, end }) = reply.map_err(WireError::from)? else {
        return Err(odd_reply().into());
    };
    let next = entries.last().map(|e| e.cookie).filter(|_| !end);
    let entry = |e: dfs_proto::meta::DirEntry| Entry {
        name: e.name,
        kind: e.attr.kind,
        size: e.attr.size,
        mode: e.attr.mode,
        mtime_secs: e.attr.mtime.secs,
        ino: e.attr.ino,
        version: e.attr.version,
    };
    let path = if names.is_empty() { "/".to_owned() } else { shown(names) };
    let listing = Listing { path, entries: entries.into_iter().map(entry).collect(), next };
    Ok(HttpResponse::Ok().json(listing))
}
