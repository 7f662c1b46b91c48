//! `GET` and `HEAD`.

use super::conditions::{Answer, Conditions, etag, last_modified};
use super::{PREFIX, Request, list, resolve, shown};
use crate::http::Services;
use actix_web::body::SizedStream;
use actix_web::http::header::{
    ACCEPT_RANGES, CONTENT_RANGE, ETAG, HttpDate, IF_MATCH, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use dfs_client::{ClientError, files};
use dfs_proto::blob::HEADER_MD5;
use dfs_proto::{ErrorCode, FileKind, WireError};
use dfs_service::HttpError;
use dfs_service::http::optional_header;
use futures_util::{StreamExt, stream};
use std::ops::Range;
use std::sync::Arc;

/// `GET /files/{path}`: the content of a file, or a page of a directory.
pub async fn get(
    services: web::Data<Services>,
    request: HttpRequest,
    query: web::Query<list::Query>,
) -> Result<HttpResponse, HttpError> {
    let path = Request::parse(request.uri().path(), PREFIX)?;
    let attr = resolve(&*services.meta, path.names.clone()).await?;
    match attr.kind {
        FileKind::Directory => return list::page(&services, &path.names, attr.ino, &query).await,
        FileKind::File if path.is_directory => {
            let message = format!("{} is a file, not a directory", shown(&path.names));
            return Err(HttpError::new(ErrorCode::NotDirectory, message));
        }
        FileKind::File => {}
        other => {
            let message = format!("{} is a {other:?}; only files are served here", shown(&path.names));
            return Err(HttpError::new(ErrorCode::InvalidArgument, message));
        }
    }
    let (meta, data) = (Arc::clone(&services.meta), Arc::clone(&services.data));
    let file = files::open(meta, data, attr.ino).await.map_err(WireError::from)?;
    let conditions = Conditions {
        if_match: optional_header(&request, IF_MATCH.as_str())?,
        if_none_match: optional_header(&request, IF_NONE_MATCH.as_str())?,
        if_range: optional_header(&request, IF_RANGE.as_str())?,
        range: optional_header(&request, RANGE.as_str())?.filter(|_| request.method() == Method::GET),
    };
    Ok(answer(&file, conditions.judge(&file.attr), request.method() == Method::HEAD))
}

fn answer(file: &files::OpenFile, answer: Answer, is_head: bool) -> HttpResponse {
    let size = file.attr.size;
    match answer {
        Answer::Whole => {
            let mut response = HttpResponse::Ok();
            if let Some(md5) = file.md5 {
                response.insert_header((HEADER_MD5, md5.to_string()));
            }
            content(file, describe(&mut response, file), 0..size, is_head)
        }
        Answer::Part(range) => {
            let mut response = HttpResponse::PartialContent();
            let text = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
            response.insert_header((CONTENT_RANGE, text));
            content(file, describe(&mut response, file), range, is_head)
        }
        Answer::NotModified => describe(&mut HttpResponse::NotModified(), file).finish(),
        Answer::PreconditionFailed => {
            let message = format!("the content is {} now", etag(&file.attr));
            let error = WireError::new(ErrorCode::Conflict, message);
            describe(&mut HttpResponse::PreconditionFailed(), file).json(error)
        }
        Answer::NotSatisfiable => {
            let message = format!("the range is beyond the {size} bytes of the file");
            let error = WireError::new(ErrorCode::InvalidArgument, message);
            HttpResponse::build(StatusCode::RANGE_NOT_SATISFIABLE)
                .insert_header((CONTENT_RANGE, format!("bytes */{size}")))
                .json(error)
        }
    }
}

/// The headers that say which content this is.
fn describe<'a>(
    response: &'a mut HttpResponseBuilder,
    file: &files::OpenFile,
) -> &'a mut HttpResponseBuilder {
    response
        .insert_header((ETAG, etag(&file.attr)))
        .insert_header((LAST_MODIFIED, HttpDate::from(last_modified(&file.attr)).to_string()))
        .insert_header((ACCEPT_RANGES, "bytes"))
}

fn content(
    file: &files::OpenFile,
    response: &mut HttpResponseBuilder,
    range: Range<u64>,
    is_head: bool,
) -> HttpResponse {
    response.content_type("application/octet-stream");
    let length = range.end - range.start;
    if is_head {
        return response.body(SizedStream::new(length, stream::empty::<Result<Bytes, ClientError>>()));
    }
    let ino = file.attr.ino;
    // An error ends the connection before the announced length: a client never takes a part for the whole.
    let bytes = file.read(range).inspect(move |piece| {
        if let Err(e) = piece {
            log::error!("a download of inode {ino} breaks off: {e}");
        }
    });
    response.body(SizedStream::new(length, Box::pin(bytes)))
}
