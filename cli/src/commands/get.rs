//! `dfs get`

use crate::args::GetArgs;
use crate::connection::Connection;
use crate::failure::{Failure, OrFail};
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::remote::RemotePath;
use crate::transfer::{Sink, Written};
use dfs_client::files::{self, OpenFile};
use dfs_proto::{FileKind, Md5};
use futures_util::StreamExt;
use serde_json::json;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use tempfile::NamedTempFile;

/// What of a stored file's mode the local one gets, less the umask.
const MODE_KEPT: u32 = 0o777;

/// Where the bytes go.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Stdout,
    /// A file that appears whole or not at all.
    File(PathBuf),
    /// A device, FIFO or the like that is there: written in place.
    Special(PathBuf),
}

pub(crate) async fn run(args: GetArgs, url: &str, out: Output) -> Result<(), Failure> {
    let path = &args.remote;
    let target = target(path, args.local.as_deref())?;
    let connection = Connection::open(url, "get").await?;
    let what = || format!("get {path}");
    let attr = connection.resolve(path).await.or_fail(what)?;
    if attr.kind != FileKind::File {
        let message = format!("cannot get {path}: it is a {}, not a file", output::kind(attr.kind));
        return Err(Failure::new(message));
    }
    let file = files::open(connection.meta(), connection.data(), attr.ino).await.or_fail(what)?;
    let md5 = match &target {
        Target::Stdout => fetch(&file, path, io::stdout()).await?.md5,
        Target::Special(local) => {
            let device = OpenOptions::new().write(true).open(local);
            fetch(&file, path, device.or_fail(|| format!("write {}", local.display()))?).await?.md5
        }
        Target::File(local) => to_file(&file, path, local).await?,
    };
    connection.close().await;
    tell(&file, path, &target, md5, out)
}

/// Reads `local` as cp(1) does: a directory takes the file under its own name.
fn target(remote: &RemotePath, local: Option<&Path>) -> Result<Target, Failure> {
    let Some((_, name)) = remote.split_last() else {
        return Err(Failure::usage("the root is a directory: name a file in it"));
    };
    let name = OsStr::from_bytes(name.as_bytes());
    let mut path = match local {
        Some(local) if local.as_os_str() == "-" => return Ok(Target::Stdout),
        Some(local) if local.is_dir() => local.join(name),
        Some(local) => local.to_owned(),
        None => PathBuf::from(name),
    };
    // Through a symbolic link the file that it names is written, not the link.
    if let Ok(real) = fs::canonicalize(&path) {
        path = real;
    }
    match fs::metadata(&path) {
        Ok(there) if there.is_dir() => {
            Err(Failure::new(format!("cannot write {}: it is a directory", path.display())))
        }
        Ok(there) if !there.is_file() => Ok(Target::Special(path)),
        _ => Ok(Target::File(path)),
    }
}

/// Writes beside the target and renames once everything is there and right.
async fn to_file(file: &OpenFile, remote: &RemotePath, local: &Path) -> Result<Md5, Failure> {
    let what = || format!("write {}", local.display());
    let folder = local.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The kernel takes the umask off.
    let permissions = Permissions::from_mode(u32::from(file.attr.mode) & MODE_KEPT | 0o200);
    let beside = tempfile::Builder::new().prefix(".dfs-get-").permissions(permissions).tempfile_in(folder);
    let written = fetch(file, remote, beside.or_fail(what)?).await?;
    let beside: NamedTempFile<File> = written.writer;
    beside.persist(local).map_err(|e| e.error).or_fail(what)?;
    Ok(written.md5)
}

/// Copies the whole file into `writer` and compares its MD5 with the one on record.
async fn fetch<W: Write + Send + 'static>(
    file: &OpenFile,
    remote: &RemotePath,
    writer: W,
) -> Result<Written<W>, Failure> {
    let progress = Progress::new(format!("get {remote}"), Some(file.attr.size));
    let sink = Sink::start(writer);
    let mut blocks = pin!(file.read(0..file.attr.size));
    while let Some(block) = blocks.next().await {
        let block = block.or_fail(|| format!("get {remote}"))?;
        progress.add(block.len());
        if !sink.write(block).await {
            break;
        }
    }
    let written = sink.finish().await.or_fail(|| format!("write what {remote} holds"))?;
    match file.md5 {
        Some(md5) if md5 != written.md5 => Err(Failure::new(format!(
            "cannot get {remote}: its MD5 should be {md5} and what arrived has {}; try again",
            written.md5
        ))),
        _ => Ok(written),
    }
}

fn tell(file: &OpenFile, path: &RemotePath, target: &Target, md5: Md5, out: Output) -> Result<(), Failure> {
    let message = match file.md5 {
        Some(_) => "File integrity validated.",
        None => "File integrity validated block by block (no MD5 of the whole file is on record).",
    };
    let local = match target {
        // Standard output is the file's.
        Target::Stdout => {
            if !out.is_json() {
                eprintln!("{message}");
            }
            return Ok(());
        }
        Target::File(local) | Target::Special(local) => local,
    };
    let document = json!({
        "path": path.to_string(),
        "local": local.to_string_lossy(),
        "size": file.attr.size,
        "md5": md5,
        "validated": file.md5.is_some(),
        "version": file.attr.version,
    });
    out.tell(&document, || {
        format!("{message}\nWritten to {} ({}).", local.display(), output::bytes(file.attr.size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(path: &str) -> RemotePath {
        RemotePath::parse(path.into()).unwrap()
    }

    #[test]
    fn a_directory_takes_the_file_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let got = target(&remote("/a/b.txt"), Some(dir.path())).unwrap();
        assert_eq!(got, Target::File(dir.path().join("b.txt")));
        fs::write(real.join("b.txt"), "old").unwrap();
        assert_eq!(target(&remote("/a/b.txt"), Some(dir.path())).unwrap(), Target::File(real.join("b.txt")));
        fs::create_dir(real.join("c")).unwrap();
        assert!(target(&remote("/c"), Some(dir.path())).is_err());
    }

    #[test]
    fn a_device_is_written_not_replaced() {
        let got = target(&remote("/a"), Some(Path::new("/dev/null"))).unwrap();
        assert_eq!(got, Target::Special("/dev/null".into()));
        assert_eq!(target(&remote("/a"), Some(Path::new("-"))).unwrap(), Target::Stdout);
    }

    #[test]
    fn a_link_leads_to_the_file_that_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        fs::write(&real, "old").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(target(&remote("/a"), Some(&link)).unwrap(), Target::File(real));
    }
}
