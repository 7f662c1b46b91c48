//! `/files/{path}`: whole files over plain HTTP, streamed in both directions with flat memory.
//!
//! Owns how requests and answers look. What files are is the business of the operations that it calls like
//! every client (through [`LocalMeta`]), how bytes get to nodes that of `dfs-client`.

mod conditions;
mod delete;
mod get;
mod list;
mod local;
mod path;
mod put;

pub use local::LocalMeta;
pub use path::Request;

use actix_web::{Resource, web};
use dfs_client::{ClientError, MetaClient};
use dfs_proto::meta::ReadOp;
use dfs_proto::{Attr, ErrorCode, MetaOp, MetaReply, Name, WireError};

/// Where the gateway's paths begin.
const PREFIX: &str = "/files";

/// The gateway at `path`.
pub fn resource(path: &str) -> Resource {
    web::resource(path)
        .route(web::get().to(get::get))
        .route(web::head().to(get::get))
        .route(web::put().to(put::put))
        .route(web::delete().to(delete::delete))
}

/// What `names` leads to from the root; symbolic links are not followed.
pub async fn resolve(meta: &dyn MetaClient, names: Vec<Name>) -> Result<Attr, WireError> {
    attr_of(meta.call(MetaOp::Read(ReadOp::Resolve { path: names })).await)
}

fn attr_of(reply: Result<MetaReply, ClientError>) -> Result<Attr, WireError> {
    match reply? {
        MetaReply::Attr(attr) => Ok(attr),
        _ => Err(odd_reply()),
    }
}

fn odd_reply() -> WireError {
    WireError::new(ErrorCode::Internal, "an operation gave another kind of reply than it should")
}

/// Names as a path, for people.
fn shown(names: &[Name]) -> String {
    names.iter().fold(String::new(), |path, name| format!("{path}/{name}"))
}
