//! `dfs mv`

use crate::args::MvArgs;
use crate::connection::{Connection, unexpected};
use crate::failure::{Failure, OrFail};
use crate::output::Output;
use crate::remote::RemotePath;
use dfs_client::ClientError;
use dfs_proto::meta::{Rename, RenameMode, Renamed, WriteOp};
use dfs_proto::{ErrorCode, FileKind, MetaReply};
use serde_json::json;

pub(crate) async fn run(args: MvArgs, url: &str, out: Output) -> Result<(), Failure> {
    let connection = Connection::open(url, "mv").await?;
    let (from, to) = (&args.from, &args.to);
    let what = || format!("move {from} to {to}");
    let target = target(&connection, from, to).await.or_fail(what)?;
    let moved = rename(&connection, from, &target, args.replace).await;
    if matches!(&moved, Err(e) if e.code() == ErrorCode::Exists) {
        return moved.map(drop).or_fail(what).map_err(|f| f.with_hint("--replace takes its place"));
    }
    let moved = moved.or_fail(what)?;
    if out.is_json() {
        let (from, to) = (from.to_string(), target.to_string());
        out.document(&json!({ "from": from, "to": to, "ino": moved.moved.ino }))?;
    }
    connection.close().await;
    Ok(())
}

/// The new path: in `to` when that is a directory, else `to` itself.
async fn target(
    connection: &Connection,
    from: &RemotePath,
    to: &RemotePath,
) -> Result<RemotePath, ClientError> {
    let (_, name) = from.split_last().ok_or_else(root)?;
    match connection.find(to).await? {
        Some(found) if found.kind == FileKind::Directory => Ok(to.join(name)),
        None if to.is_directory() => {
            Err(ClientError::local(ErrorCode::NotFound, format!("there is no directory {to}")))
        }
        _ => Ok(to.clone()),
    }
}

async fn rename(
    connection: &Connection,
    from: &RemotePath,
    to: &RemotePath,
    replace: bool,
) -> Result<Renamed, ClientError> {
    let (parent, name) = from.split_last().ok_or_else(root)?;
    let (new_parent, new_name) = to.split_last().ok_or_else(root)?;
    let rename = Rename {
        parent: connection.resolve(&parent).await?.ino,
        name: name.clone(),
        new_parent: connection.resolve(&new_parent).await?.ino,
        new_name: new_name.clone(),
        mode: if replace { RenameMode::Replace } else { RenameMode::NoReplace },
    };
    match connection.write(WriteOp::Rename(rename)).await? {
        MetaReply::Renamed(renamed) => Ok(renamed),
        other => Err(unexpected(&other)),
    }
}

fn root() -> ClientError {
    ClientError::local(ErrorCode::InvalidArgument, "the root cannot be moved")
}
