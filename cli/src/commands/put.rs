//! `dfs put`

use crate::args::PutArgs;
use crate::connection::{Connection, Owner};
use crate::failure::{Failure, OrFail};
use crate::output::Output;
use crate::progress::Progress;
use crate::remote::RemotePath;
use crate::transfer;
use dfs_client::files::{self, Target, Uploaded};
use dfs_proto::meta::Collision;
use dfs_proto::{Attr, FileKind, Name};
use futures_util::TryStreamExt;
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Mode of what comes from standard input.
const STDIN_MODE: u16 = 0o644;
/// What of a local file's mode is stored: permissions, not set-id bits.
const MODE_KEPT: u32 = 0o777;

/// Where files go.
enum Place {
    /// Into this directory, each under its own name.
    Directory(RemotePath, Attr),
    /// Into this directory under this name.
    Name(RemotePath, Attr, Name),
}

/// A local file that is open for reading, or standard input.
struct Local {
    shown: String,
    name: Option<Name>,
    mode: u16,
    bytes: Option<u64>,
    reader: Box<dyn Read + Send>,
}

pub(crate) async fn run(args: PutArgs, url: &str, out: Output) -> Result<(), Failure> {
    let (locals, remote) = split(args.paths, args.to, |path| Path::new(path).is_file())?;
    let collision = match args.collision {
        Some(policy) => Collision::Explicit(policy),
        None => Collision::Default(Default::default()),
    };
    // What is wrong with a local file is told before anything is stored.
    for local in &locals {
        check(local)?;
    }
    let connection = Connection::open(url, "put").await?;
    let place = place(&connection, &remote, locals.len() > 1).await?;
    let several = locals.len() > 1;
    for local in &locals {
        let local = open(local)?;
        put(&connection, local, &place, collision, out, several).await?;
    }
    connection.close().await;
    Ok(())
}

/// Tells local files from the remote place. The last of several paths is the remote one, unless it is a file
/// here; `--to` leaves no doubt.
fn split(
    mut paths: Vec<OsString>,
    to: Option<RemotePath>,
    is_local_file: impl Fn(&OsStr) -> bool,
) -> Result<(Vec<PathBuf>, RemotePath), Failure> {
    let remote = match to {
        Some(remote) => remote,
        None if paths.len() > 1 && paths.last().is_some_and(|p| p != "-" && !is_local_file(p)) => {
            let last = paths.pop().expect("there are several");
            let shown = last.to_string_lossy().into_owned();
            RemotePath::parse(last)
                .map_err(|e| Failure::usage(format!("{shown:?} is no remote path: {e}")))?
        }
        None => RemotePath::root(),
    };
    let stdin = paths.iter().any(|p| p == "-");
    if stdin && paths.len() > 1 {
        return Err(Failure::usage("standard input (`-`) is stored alone"));
    }
    if stdin && remote.is_directory() {
        return Err(Failure::usage("what comes from standard input needs a name: dfs put - /NAME"));
    }
    Ok((paths.into_iter().map(PathBuf::from).collect(), remote))
}

fn check(local: &Path) -> Result<(), Failure> {
    if local.as_os_str() == "-" {
        return Ok(());
    }
    let meta = std::fs::metadata(local).or_fail(|| format!("read {}", local.display()))?;
    if meta.is_dir() {
        let message = format!("cannot store {}: it is a directory", local.display());
        return Err(
            Failure::new(message).with_hint("mount the cluster (`dfs-mount`) and copy it with `cp -r`")
        );
    }
    Ok(())
}

fn open(local: &Path) -> Result<Local, Failure> {
    if local.as_os_str() == "-" {
        let reader = Box::new(std::io::stdin());
        return Ok(Local {
            shown: "standard input".to_owned(),
            name: None,
            mode: STDIN_MODE,
            bytes: None,
            reader,
        });
    }
    let shown = local.display().to_string();
    let what = || format!("read {shown}");
    let file = File::open(local).or_fail(what)?;
    let meta = file.metadata().or_fail(what)?;
    let name = local.file_name().map(|name| Name::new(name.as_bytes())).transpose().or_fail(what)?;
    Ok(Local {
        name,
        mode: (meta.permissions().mode() & MODE_KEPT) as u16,
        bytes: meta.is_file().then_some(meta.len()),
        reader: Box::new(file),
        shown,
    })
}

async fn place(connection: &Connection, remote: &RemotePath, several: bool) -> Result<Place, Failure> {
    let what = || format!("store in {remote}");
    let found = connection.find(remote).await.or_fail(what)?;
    let is_directory = matches!(&found, Some(attr) if attr.kind == FileKind::Directory);
    match remote.split_last() {
        Some((parent, name)) if !is_directory && !several && !remote.is_directory() => {
            let attr = connection.ensure_directory(&parent).await.or_fail(what)?;
            Ok(Place::Name(parent, attr, name.clone()))
        }
        _ => {
            let attr = connection.ensure_directory(remote).await.or_fail(what)?;
            Ok(Place::Directory(remote.clone(), attr))
        }
    }
}

async fn put(
    connection: &Connection,
    local: Local,
    place: &Place,
    collision: Collision,
    out: Output,
    several: bool,
) -> Result<(), Failure> {
    let (directory, parent, name) = match place {
        Place::Name(directory, attr, name) => (directory, attr, name.clone()),
        Place::Directory(directory, attr) => {
            let unnamed = || {
                let message = format!("{} has no name of its own: say one (dfs put FILE /NAME)", local.shown);
                Failure::usage(message)
            };
            (directory, attr, local.name.clone().ok_or_else(unnamed)?)
        }
    };
    let owner = Owner::me();
    let target = Target {
        parent: parent.ino,
        name: name.clone(),
        mode: local.mode,
        uid: owner.uid,
        gid: owner.gid,
        collision,
        expected_md5: None,
        expected_bytes: None,
    };
    let progress = Progress::new(format!("put {name}"), local.bytes);
    let shown = local.shown.clone();
    let body = transfer::source(local.reader, local.shown).inspect_ok(|block| progress.add(block.len()));
    let uploaded = files::upload(connection.meta(), connection.data(), target, body).await;
    let uploaded = uploaded.or_fail(|| format!("store {shown} as {}", directory.join(&name)))?;
    drop(progress);
    let path = directory.join(&uploaded.name).to_string();
    let document = json!({
        "local": shown,
        "path": path,
        "stored_as": uploaded.name,
        "renamed": uploaded.renamed,
        "replaced": uploaded.replaced,
        "size": uploaded.bytes,
        "md5": uploaded.md5,
        "version": uploaded.attr.version,
    });
    out.tell(&document, || message(&shown, &name, &uploaded, several))
}

fn message(local: &str, wanted: &Name, uploaded: &Uploaded, several: bool) -> String {
    let mut text = if several { format!("{local}: ") } else { String::new() };
    text += "File stored successfully!";
    if uploaded.renamed {
        text += &format!("\nStored as {}: {wanted} was taken.", uploaded.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_words(words: &[&str], local: &[&str]) -> Result<(Vec<PathBuf>, String), Failure> {
        let paths = words.iter().map(OsString::from).collect();
        let is_local = |path: &OsStr| local.iter().any(|l| path == OsStr::new(l));
        split(paths, None, is_local).map(|(locals, remote)| (locals, remote.to_string()))
    }

    #[test]
    fn one_path_goes_to_the_root() {
        let (locals, remote) = split_words(&["a.txt"], &[]).unwrap();
        assert_eq!((locals, remote.as_str()), (vec![PathBuf::from("a.txt")], "/"));
    }

    #[test]
    fn the_last_of_several_is_the_remote_place_unless_it_is_a_local_file() {
        let (locals, remote) = split_words(&["a", "b", "docs/"], &["a", "b"]).unwrap();
        assert_eq!((locals.len(), remote.as_str()), (2, "/docs"));
        let (locals, remote) = split_words(&["a", "b"], &["a", "b"]).unwrap();
        assert_eq!((locals.len(), remote.as_str()), (2, "/"));
    }

    #[test]
    fn standard_input_needs_a_name() {
        assert!(split_words(&["-"], &[]).is_err());
        assert!(split_words(&["-", "docs/"], &[]).is_err());
        assert!(split_words(&["-", "a", "x/"], &["a"]).is_err());
        let (locals, remote) = split_words(&["-", "notes.txt"], &[]).unwrap();
        assert_eq!((locals, remote.as_str()), (vec![PathBuf::from("-")], "/notes.txt"));
    }
}
