//! `dfs ls`

use crate::args::LsArgs;
use crate::connection::Connection;
use crate::failure::{Failure, OrFail};
use crate::output::{self, Output};
use dfs_proto::limits::DIR_PAGE_ENTRIES_MAX;
use dfs_proto::{Attr, DirCookie, FileKind, Ino, Name, Timestamp, Version};
use serde::Serialize;

/// Directories of up to so many entries are listed by name; larger ones as they come, page by page, so that
/// memory stays bounded.
const SORTED_ENTRIES_MAX: usize = 65_536;

/// One entry for scripts.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a Name,
    kind: FileKind,
    size: u64,
    mode: u16,
    nlink: u32,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    ino: Ino,
    version: Version,
}

type Entry = (Name, Attr);

pub(crate) async fn run(args: LsArgs, url: &str, out: Output) -> Result<(), Failure> {
    let connection = Connection::open(url, "ls").await?;
    let path = &args.path;
    let attr = connection.resolve(path).await.or_fail(|| format!("list {path}"))?;
    let printer = Printer { out, long: args.long };
    match path.split_last() {
        Some((_, name)) if attr.kind != FileKind::Directory => printer.print(&[(name.clone(), attr)])?,
        _ => list(&connection, attr.ino, &printer, &path.to_string()).await?,
    }
    connection.close().await;
    Ok(())
}

async fn list(connection: &Connection, directory: Ino, printer: &Printer, path: &str) -> Result<(), Failure> {
    let mut gathered: Vec<Entry> = Vec::new();
    let mut after = DirCookie(0);
    let mut sorted = true;
    loop {
        let page = connection.list(directory, after, DIR_PAGE_ENTRIES_MAX).await;
        let page = page.or_fail(|| format!("list {path}"))?;
        after = page.entries.last().map_or(after, |e| e.cookie);
        let end = page.end || page.entries.is_empty();
        gathered.extend(page.entries.into_iter().map(|e| (e.name, e.attr)));
        sorted &= gathered.len() <= SORTED_ENTRIES_MAX;
        if sorted && end {
            gathered.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
        if !sorted || end {
            printer.print(&gathered)?;
            gathered.clear();
        }
        if end {
            return Ok(());
        }
    }
}

struct Printer {
    out: Output,
    long: bool,
}

impl Printer {
    fn print(&self, entries: &[Entry]) -> Result<(), Failure> {
        if self.out.is_json() {
            return entries.iter().try_for_each(|entry| self.out.document(&listed(entry)));
        }
        if entries.is_empty() {
            return Ok(());
        }
        if self.long {
            let rows: Vec<Vec<String>> = entries.iter().map(long).collect();
            return self.out.line(output::table(&rows, &[1, 2, 3, 4]));
        }
        let names: Vec<String> = entries.iter().map(shown).collect();
        self.out.line(names.join("\n"))
    }
}

fn listed((name, attr): &Entry) -> Listed<'_> {
    Listed {
        name,
        kind: attr.kind,
        size: attr.size,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        mtime: attr.mtime,
        ino: attr.ino,
        version: attr.version,
    }
}

fn long(entry: &Entry) -> Vec<String> {
    let attr = &entry.1;
    vec![
        output::mode(attr),
        attr.nlink.to_string(),
        attr.uid.to_string(),
        attr.gid.to_string(),
        output::bytes(attr.size),
        output::time(attr.mtime),
        shown(entry),
    ]
}

/// A name as people see it, with a mark for what is no plain file (as `ls -F` has it).
fn shown((name, attr): &Entry) -> String {
    let mark = match attr.kind {
        FileKind::Directory => "/",
        FileKind::Symlink => "@",
        FileKind::Fifo => "|",
        FileKind::Socket => "=",
        FileKind::File | FileKind::CharDevice | FileKind::BlockDevice => "",
    };
    format!("{name}{mark}")
}
