//! `dfs rm`

use crate::args::RmArgs;
use crate::connection::Connection;
use crate::failure::{Failure, OrFail};
use crate::output::Output;
use crate::remote::RemotePath;
use dfs_client::ClientError;
use dfs_proto::meta::{DirEntry, WriteOp};
use dfs_proto::{DirCookie, ErrorCode, FileKind, Ino, Name};
use futures_util::stream::{self, TryStreamExt};
use serde_json::json;

/// Entries of a directory that are removed in one round.
const ROUND_ENTRIES: u32 = 1024;
/// Removals under way at once; the session sends them in batches.
const PARALLEL: usize = 64;

pub(crate) async fn run(args: RmArgs, url: &str, out: Output) -> Result<(), Failure> {
    let connection = Connection::open(url, "rm").await?;
    for path in &args.paths {
        let removed = remove(&connection, path, args.recursive).await.or_fail(|| format!("remove {path}"))?;
        if out.is_json() {
            out.document(&json!({ "path": path.to_string(), "removed": removed }))?;
        }
    }
    connection.close().await;
    Ok(())
}

/// Removes what is at `path`; how many entries that were.
async fn remove(connection: &Connection, path: &RemotePath, recursive: bool) -> Result<u64, ClientError> {
    let Some((parent, name)) = path.split_last() else {
        return Err(ClientError::local(ErrorCode::InvalidArgument, "the root cannot be removed"));
    };
    let parent = connection.resolve(&parent).await?.ino;
    let attr = connection.resolve(path).await?;
    if attr.kind != FileKind::Directory {
        unlink(connection, parent, name.clone()).await?;
        return Ok(1);
    }
    if !recursive {
        let message = format!("{path} is a directory: `dfs rm -r` removes it with all that is in it");
        return Err(ClientError::local(ErrorCode::InvalidArgument, message));
    }
    remove_tree(connection, parent, name.clone(), attr.ino).await
}

/// Removes a directory with all that is in it, depth first. It keeps its own stack: the depth of a tree is
/// others' choice.
async fn remove_tree(
    connection: &Connection,
    parent: Ino,
    name: Name,
    directory: Ino,
) -> Result<u64, ClientError> {
    let mut removed = 0;
    let mut stack = vec![(parent, name, directory)];
    while let Some((parent, name, directory)) = stack.last().cloned() {
        let page = connection.list(directory, DirCookie(0), ROUND_ENTRIES).await?;
        if page.entries.is_empty() {
            connection.write(WriteOp::Rmdir { parent, name }).await?;
            removed += 1;
            stack.pop();
            continue;
        }
        let (directories, files): (Vec<DirEntry>, Vec<DirEntry>) =
            page.entries.into_iter().partition(|e| e.attr.kind == FileKind::Directory);
        removed += files.len() as u64;
        stream::iter(files.into_iter().map(|e| Ok(unlink(connection, directory, e.name))))
            .try_buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        stack.extend(directories.into_iter().map(|e| (directory, e.name, e.attr.ino)));
    }
    Ok(removed)
}

/// Removes a name; one that somebody else has just removed is as good as removed.
async fn unlink(connection: &Connection, parent: Ino, name: Name) -> Result<(), ClientError> {
    match connection.write(WriteOp::Unlink { parent, name }).await {
        Err(e) if e.code() == ErrorCode::NotFound => Ok(()),
        done => done.map(drop),
    }
}
