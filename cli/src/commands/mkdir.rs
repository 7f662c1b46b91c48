//! `dfs mkdir`

use crate::args::MkdirArgs;
use crate::connection::Connection;
use crate::failure::{Failure, OrFail};
use crate::output::Output;
use crate::remote::RemotePath;
use dfs_client::ClientError;
use dfs_proto::{Attr, ErrorCode};
use serde_json::json;

pub(crate) async fn run(args: MkdirArgs, url: &str, out: Output) -> Result<(), Failure> {
    let connection = Connection::open(url, "mkdir").await?;
    for path in &args.paths {
        let made = if args.parents {
            connection.ensure_directory(path).await
        } else {
            make(&connection, path).await
        };
        let attr = made.or_fail(|| format!("make the directory {path}"))?;
        if out.is_json() {
            out.document(&json!({ "path": path.to_string(), "ino": attr.ino }))?;
        }
    }
    connection.close().await;
    Ok(())
}

async fn make(connection: &Connection, path: &RemotePath) -> Result<Attr, ClientError> {
    let Some((parent, name)) = path.split_last() else {
        return Err(ClientError::local(ErrorCode::Exists, "the root is always there"));
    };
    let parent = connection.resolve(&parent).await?;
    connection.make_directory(parent.ino, name).await
}
