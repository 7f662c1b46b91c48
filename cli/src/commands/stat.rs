//! `dfs stat`

use super::node;
use crate::args::StatArgs;
use crate::connection::{Connection, unexpected};
use crate::failure::{Failure, OrFail};
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::remote::RemotePath;
use crate::transfer::Sink;
use dfs_client::{ClientError, NodeClient, files};
use dfs_proto::meta::ReadOp;
use dfs_proto::node::{CopyInfo, VolumeInfo};
use dfs_proto::status::LayoutReply;
use dfs_proto::{
    Attr, BlobId, ErrorCode, Extent, FileKind, Ino, Md5, MetaReply, NodeState, Seq, Timestamp, Version,
    VolumeId,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::pin::pin;

/// Files of up to so many blobs have every record read and verified on each node; of larger ones the
/// master's books are told.
const CHECKED_BLOBS_MAX: usize = 16;
/// Extents that are asked for at once.
const EXTENT_PAGE: u32 = dfs_proto::limits::EXTENT_PAGE_MAX;

/// What is known of a file.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    kind: FileKind,
    size: u64,
    md5: Option<Md5>,
    /// Whether the MD5 was found by reading the file just now; else it was on record.
    md5_computed: bool,
    version: Version,
    ino: Ino,
    mode: u16,
    nlink: u32,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    /// Copies that each file should have.
    replicas: u32,
    /// Whole copies of the part that has the fewest.
    whole_copies: u64,
    /// Whether the records were read and verified on their nodes; else it is what the master knows.
    checked: bool,
    volumes: Vec<VolumeReport>,
}

/// The part of a file that is in one volume.
#[derive(Debug, Serialize)]
struct VolumeReport {
    volume: VolumeId,
    /// Extents of the file that are in it.
    extents: u64,
    bytes: u64,
    copies: Vec<CopyReport>,
}

/// One node's copy of that part.
#[derive(Debug, Serialize)]
struct CopyReport {
    node: String,
    url: String,
    node_state: NodeState,
    primary: bool,
    #[serde(flatten)]
    condition: Condition,
}

/// How a copy is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
enum Condition {
    /// Everything is there.
    Whole,
    /// Its log does not reach far enough yet.
    Behind,
    /// A record is damaged or missing.
    Damaged(String),
    /// The node does not answer.
    Unreachable(String),
}

/// The part of a file that is in one volume, as gathered from its extents.
#[derive(Debug, Default)]
struct Part {
    extents: u64,
    bytes: u64,
    reach: Seq,
}

/// Where a file's bytes are.
#[derive(Debug, Default)]
struct Layout {
    parts: BTreeMap<VolumeId, Part>,
    volumes: BTreeMap<VolumeId, VolumeInfo>,
    /// The blobs, as long as they are few enough to be checked.
    blobs: HashSet<BlobId>,
}

pub(crate) async fn run(args: StatArgs, url: &str, out: Output) -> Result<(), Failure> {
    let connection = Connection::open(url, "stat").await?;
    let path = &args.path;
    let attr = connection.resolve(path).await.or_fail(|| format!("stat {path}"))?;
    let report = match attr.kind {
        FileKind::File => file(&connection, path, args.quick).await?,
        _ => Report::of(path, &attr),
    };
    connection.close().await;
    out.tell(&report, || text(&report))
}

async fn file(connection: &Connection, path: &RemotePath, quick: bool) -> Result<Report, Failure> {
    let what = || format!("find where {path} is");
    let reply = connection.master().layout(&path.to_bytes()).await.or_fail(what)?;
    let layout = layout(connection, &reply).await.or_fail(what)?;
    let mut report = Report::of(path, &reply.attr);
    report.replicas = reply.replicas;
    report.md5 = reply.md5;
    report.checked = !quick && layout.blobs.len() <= CHECKED_BLOBS_MAX;
    report.volumes = volumes(connection, &layout, report.checked).await;
    let whole = |v: &VolumeReport| v.copies.iter().filter(|c| c.condition == Condition::Whole).count() as u64;
    // An empty file has nothing that a copy could lack.
    report.whole_copies = report.volumes.iter().map(whole).min().unwrap_or(u64::from(reply.replicas));
    if report.md5.is_none() && !quick {
        report.md5 = Some(md5_by_reading(connection, path, reply.attr.ino).await?);
        report.md5_computed = true;
    }
    Ok(report)
}

/// All extents, page by page.
async fn layout(connection: &Connection, reply: &LayoutReply) -> Result<Layout, ClientError> {
    let mut layout = Layout::default();
    layout.add(&reply.extents, &reply.volumes);
    let mut end = reply.complete;
    let mut from = reply.extents.last().map_or(0, Extent::end);
    while !end {
        let op = ReadOp::Extents { ino: reply.attr.ino, from, limit: EXTENT_PAGE };
        let page = match connection.read(op).await? {
            MetaReply::Extents(page) => page,
            other => return Err(unexpected(&other)),
        };
        if page.version != reply.attr.version {
            let message = "the file was changed at the same time; try again";
            return Err(ClientError::local(ErrorCode::Unavailable, message));
        }
        layout.add(&page.extents, &page.volumes);
        end = page.end || page.extents.is_empty();
        from = page.extents.last().map_or(from, Extent::end);
    }
    Ok(layout)
}

impl Layout {
    fn add(&mut self, extents: &[Extent], volumes: &[VolumeInfo]) {
        for (extent, blob) in extents.iter().filter_map(|e| e.blob.map(|blob| (e, blob))) {
            let part = self.parts.entry(blob.id.volume).or_default();
            part.extents += 1;
            part.bytes += extent.length;
            part.reach = part.reach.max(blob.seq);
            if self.blobs.len() <= CHECKED_BLOBS_MAX {
                self.blobs.insert(blob.id);
            }
        }
        self.volumes.extend(volumes.iter().map(|v| (v.id, v.clone())));
    }
}

async fn volumes(connection: &Connection, layout: &Layout, check: bool) -> Vec<VolumeReport> {
    join_all(layout.parts.iter().map(async |(id, part)| {
        let members = layout.volumes.get(id).map(|v| v.copies.as_slice()).unwrap_or_default();
        let blobs: Vec<BlobId> = layout.blobs.iter().filter(|b| b.volume == *id).copied().collect();
        let copies = members.iter().enumerate().map(async |(at, copy)| CopyReport {
            node: copy.node.name.clone(),
            url: copy.node.url.clone(),
            node_state: copy.node.state,
            primary: at == 0,
            condition: match check {
                true => checked(connection.nodes().as_ref(), copy, part.reach, &blobs).await,
                false => on_record(copy, part.reach),
            },
        });
        VolumeReport { volume: *id, extents: part.extents, bytes: part.bytes, copies: join_all(copies).await }
    }))
    .await
}

/// How a copy is, as far as the master knows.
fn on_record(copy: &CopyInfo, reach: Seq) -> Condition {
    if copy.node.state == NodeState::Dead {
        return Condition::Unreachable("the node is dead".to_owned());
    }
    if copy.seq >= reach { Condition::Whole } else { Condition::Behind }
}

/// How a copy is, as its node finds by reading the records.
async fn checked(nodes: &dyn NodeClient, copy: &CopyInfo, reach: Seq, blobs: &[BlobId]) -> Condition {
    for blob in blobs {
        match nodes.check(&copy.node.url, *blob).await {
            Ok(reply) if reply.whole => {}
            Ok(reply) => return Condition::Damaged(format!("{blob}: {}", reply.reason)),
            Err(e) => return condition_of(&e, copy.seq < reach, *blob),
        }
    }
    Condition::Whole
}

fn condition_of(error: &ClientError, is_behind: bool, blob: BlobId) -> Condition {
    match error.code() {
        // A copy that is known to be behind cannot be expected to have it.
        ErrorCode::NotFound | ErrorCode::UnknownVolume if is_behind => Condition::Behind,
        ErrorCode::NotFound | ErrorCode::UnknownVolume => Condition::Damaged(format!("{blob} is missing")),
        ErrorCode::Corrupt => Condition::Damaged(format!("{blob}: {error}")),
        _ => Condition::Unreachable(error.to_string()),
    }
}

/// The MD5 of a file that none is on record of.
async fn md5_by_reading(connection: &Connection, path: &RemotePath, ino: Ino) -> Result<Md5, Failure> {
    let what = || format!("read {path} to find its MD5");
    let file = files::open(connection.meta(), connection.data(), ino).await.or_fail(what)?;
    let progress = Progress::new(format!("MD5 of {path}"), Some(file.attr.size));
    let sink = Sink::start(io::sink());
    let mut blocks = pin!(file.read(0..file.attr.size));
    while let Some(block) = blocks.next().await {
        let block = block.or_fail(what)?;
        progress.add(block.len());
        sink.write(block).await;
    }
    Ok(sink.finish().await.or_fail(what)?.md5)
}

impl Report {
    /// What the attributes alone say.
    fn of(path: &RemotePath, attr: &Attr) -> Report {
        Report {
            path: path.to_string(),
            kind: attr.kind,
            size: attr.size,
            md5: None,
            md5_computed: false,
            version: attr.version,
            ino: attr.ino,
            mode: attr.mode,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            mtime: attr.mtime,
            replicas: 0,
            whole_copies: 0,
            checked: false,
            volumes: Vec::new(),
        }
    }
}

fn text(r: &Report) -> String {
    let mut rows = vec![
        ("kind", output::kind(r.kind).to_owned()),
        ("size", format!("{} ({})", output::bytes(r.size), output::counted(r.size, "byte", "bytes"))),
        ("version", r.version.to_string()),
        ("inode", format!("{}, {}", r.ino, output::counted(u64::from(r.nlink), "link", "links"))),
        ("mode", format!("{:04o}, owner {}, group {}", r.mode, r.uid, r.gid)),
        ("modified", format!("{} UTC", output::time(r.mtime))),
    ];
    if r.kind == FileKind::File {
        let md5 = match (r.md5, r.md5_computed) {
            (Some(md5), false) => md5.to_string(),
            (Some(md5), true) => format!("{md5} (found by reading)"),
            (None, _) => "not on record".to_owned(),
        };
        rows.insert(2, ("MD5", md5));
        rows.push(("copies", copies(r)));
    }
    let rows: Vec<_> = rows.into_iter().map(|(label, text)| vec![format!("  {label}"), text]).collect();
    let mut text = format!("{}\n{}", r.path, output::table(&rows, &[]));
    for volume in &r.volumes {
        text +=
            &format!("\n  volume {}: {}\n{}", volume.volume, output::bytes(volume.bytes), copy_table(volume));
    }
    text
}

fn copies(r: &Report) -> String {
    if r.volumes.is_empty() {
        return "none needed: there are no bytes".to_owned();
    }
    let source = if r.checked { "read and verified just now" } else { "as the master has it on record" };
    format!("{} whole of {} wanted ({source})", r.whole_copies, r.replicas)
}

fn copy_table(volume: &VolumeReport) -> String {
    let rows: Vec<Vec<String>> = volume
        .copies
        .iter()
        .map(|copy| {
            let condition = match &copy.condition {
                Condition::Whole => "whole".to_owned(),
                Condition::Behind => "behind: on its way".to_owned(),
                Condition::Damaged(reason) => format!("damaged: {reason}"),
                Condition::Unreachable(reason) => format!("unreachable: {reason}"),
            };
            let role = if copy.primary { "primary" } else { "replica" };
            let node = format!("{} ({})", copy.url, node::state(copy.node_state));
            vec![format!("    {}", copy.node), role.to_owned(), node, condition]
        })
        .collect();
    output::table(&rows, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::{BlobKey, BlobRef, NodeId, NodeInfo};

    fn extent(offset: u64, volume: u64, key: u64, seq: u64) -> Extent {
        let id = BlobId { volume: VolumeId(volume), key: BlobKey(key) };
        let blob = BlobRef { id, seq: Seq(seq), length: 10, md5: Md5([0; 16]) };
        Extent { offset, length: 10, blob: Some(blob), blob_offset: 0 }
    }

    fn copy(seq: u64, state: NodeState) -> CopyInfo {
        let node = NodeInfo {
            id: NodeId(1),
            name: "sn1".to_owned(),
            url: "http://127.0.0.1:1".to_owned(),
            zone: String::new(),
            state,
        };
        CopyInfo { node, seq: Seq(seq) }
    }

    #[test]
    fn a_volume_must_reach_the_last_of_the_files_blobs() {
        let mut layout = Layout::default();
        layout.add(&[extent(0, 1, 1, 5), extent(10, 2, 1, 1), extent(20, 1, 2, 3)], &[]);
        assert_eq!(layout.parts[&VolumeId(1)].reach, Seq(5));
        assert_eq!(layout.parts[&VolumeId(1)].bytes, 20);
        assert_eq!(layout.parts[&VolumeId(2)].reach, Seq(1));
    }

    #[test]
    fn the_books_tell_whole_from_behind_and_dead() {
        assert_eq!(on_record(&copy(5, NodeState::Live), Seq(5)), Condition::Whole);
        assert_eq!(on_record(&copy(4, NodeState::Live), Seq(5)), Condition::Behind);
        assert!(matches!(on_record(&copy(5, NodeState::Dead), Seq(5)), Condition::Unreachable(_)));
    }

    #[test]
    fn a_missing_record_is_damage_only_where_it_should_be() {
        let blob = BlobId { volume: VolumeId(1), key: BlobKey(2) };
        let missing = ClientError::local(ErrorCode::NotFound, "no such blob");
        assert_eq!(condition_of(&missing, true, blob), Condition::Behind);
        assert!(matches!(condition_of(&missing, false, blob), Condition::Damaged(_)));
        let down = ClientError::local(ErrorCode::Unreachable, "refused");
        assert!(matches!(condition_of(&down, false, blob), Condition::Unreachable(_)));
    }

    #[test]
    fn conditions_have_a_state_in_json() {
        let json = serde_json::to_string(&Condition::Damaged("bit".to_owned())).unwrap();
        assert_eq!(json, r#"{"state":"damaged","reason":"bit"}"#);
        assert_eq!(serde_json::to_string(&Condition::Whole).unwrap(), r#"{"state":"whole"}"#);
    }
}
