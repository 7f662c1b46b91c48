//! `dfs backup ls`, `now` and `restore`

use crate::args::{BackupLsArgs, BackupRestoreArgs};
use crate::connection;
use crate::failure::{Failure, OrFail};
use crate::output::{self, Output};
use dfs_client::Backups;
use dfs_proto::backup::BackupName;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

/// One request to a node.
const NODE_DEADLINE: Duration = Duration::from_secs(15);

/// What the master takes up when it starts.
const RESTORED: &str = "master.restored.sqlite";

/// What it would take up otherwise.
const DATABASE: &str = "master.sqlite";

/// A backup with the nodes that have it.
#[derive(Serialize)]
struct Kept {
    name: BackupName,
    nodes: Vec<String>,
}

/// Has the master take a backup.
pub(crate) async fn now(url: &str, out: Output) -> Result<(), Failure> {
    let taken =
        connection::master(url)?.take_backup().await.or_fail(|| "have the database backed up".to_owned())?;
    out.tell(&taken, || {
        format!("{} ({}) is on {}.", taken.name, output::bytes(taken.name.bytes), taken.nodes.join(", "))
    })
}

/// Lists what nodes have, the newest first.
pub(crate) async fn list(args: &BackupLsArgs, url: &str, out: Output) -> Result<(), Failure> {
    let backups = client(String::new())?;
    let kept = find(&backups, &nodes(&args.node, url).await?).await?;
    if out.is_json() {
        return kept.iter().try_for_each(|one| out.document(one));
    }
    let mut rows = vec![["TAKEN", "SIZE", "NODES", "NAME"].map(str::to_owned).to_vec()];
    rows.extend(kept.iter().map(|Kept { name, nodes }| {
        vec![taken(name), output::bytes(name.bytes), nodes.join(", "), name.to_string()]
    }));
    if rows.len() == 1 {
        return out.line(
            "No backup so far: the master takes one every quarter of an hour, or with `dfs backup now`.",
        );
    }
    out.line(output::table(&rows, &[1]))
}

/// Fetches a backup for a master that is to be started.
pub(crate) async fn restore(args: &BackupRestoreArgs, url: &str, out: Output) -> Result<(), Failure> {
    for file in [DATABASE, RESTORED] {
        let path = args.data.join(file);
        if path.exists() {
            return Err(Failure::new(format!(
                "{} is there: move it away first (with its -wal and -shm), if the backup is to take its place",
                path.display()
            )));
        }
    }
    let backups = client(args.cluster_key.clone())?;
    let kept = find(&backups, &nodes(&args.node, url).await?).await?;
    let chosen = choose(kept, args.name.as_ref())?;
    std::fs::create_dir_all(&args.data).or_fail(|| format!("make {}", args.data.display()))?;
    fetch(&backups, &chosen, &args.data).await?;
    out.tell(&chosen, || {
        format!(
            "The database as of {} is in {}. Start the master on it: `dfs-master --data {}`.\n\
             What was changed after that is not in it.",
            taken(&chosen.name),
            args.data.display(),
            args.data.display()
        )
    })
}

fn client(cluster_key: String) -> Result<Backups, Failure> {
    Backups::new(NODE_DEADLINE, cluster_key).or_fail(|| "set up requests to storage nodes".to_owned())
}

/// The nodes to ask: those that are named, else those that the master knows.
async fn nodes(named: &[String], url: &str) -> Result<Vec<String>, Failure> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let known = connection::master(url)?.nodes().await;
    let known = known.or_fail(|| "ask the master for the storage nodes".to_owned());
    known.map(|nodes| nodes.into_iter().map(|node| node.info.url).collect()).map_err(|e| {
        e.with_hint("when it is the master that was lost, name storage nodes: --node http://HOST:PORT")
    })
}

/// All backups on `nodes`, the newest first. Nodes that do not answer are told of, unless none does.
async fn find(backups: &Backups, nodes: &[String]) -> Result<Vec<Kept>, Failure> {
    let mut found: BTreeMap<BackupName, Vec<String>> = BTreeMap::new();
    let (mut answered, mut last_error) = (false, None);
    for node in nodes {
        match backups.list(node).await {
            Ok(names) => {
                answered = true;
                names.into_iter().for_each(|name| found.entry(name).or_default().push(node.clone()));
            }
            Err(e) => {
                log::warn!("{node} is left out: {e}");
                last_error = Some(e);
            }
        }
    }
    match last_error {
        Some(e) if !answered => Err(e).or_fail(|| "ask any storage node for backups".to_owned()),
        _ => Ok(found.into_iter().rev().map(|(name, nodes)| Kept { name, nodes }).collect()),
    }
}

/// The backup that is asked for, or the newest.
fn choose(kept: Vec<Kept>, wanted: Option<&BackupName>) -> Result<Kept, Failure> {
    if let Some(wanted) = wanted {
        let found = kept.into_iter().find(|one| one.name == *wanted);
        return found.ok_or_else(|| Failure::new(format!("no node has the backup {wanted}")));
    }
    let mut clusters: Vec<&str> = kept.iter().map(|one| one.name.cluster.as_str()).collect();
    clusters.sort_unstable();
    clusters.dedup();
    if clusters.len() > 1 {
        let clusters = clusters.join(", ");
        return Err(Failure::usage(format!(
            "there are backups of several clusters ({clusters}): name the one you mean"
        )));
    }
    kept.into_iter().next().ok_or_else(|| Failure::new("no node has a backup"))
}

/// Fetches it from the first node that gives it whole.
async fn fetch(backups: &Backups, chosen: &Kept, data: &Path) -> Result<(), Failure> {
    let part = data.join(format!("{RESTORED}.part"));
    let mut last_error = None;
    for node in &chosen.nodes {
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).open(&part);
        let mut file = opened.or_fail(|| format!("write {}", part.display()))?;
        match backups.get(node, &chosen.name, &mut file).await {
            Ok(()) => {
                let to = data.join(RESTORED);
                return std::fs::rename(&part, &to).or_fail(|| format!("write {}", to.display()));
            }
            Err(e) => {
                log::warn!("{node} could not give the backup: {e}");
                last_error = Some(e);
            }
        }
    }
    // Of no use to anybody; when it stays, the next try writes over it.
    let _ = std::fs::remove_file(&part);
    match last_error {
        Some(e) => Err(e).or_fail(|| format!("fetch {}", chosen.name)),
        None => Err(Failure::new("no node has the backup any more")),
    }
}

fn taken(name: &BackupName) -> String {
    let (secs, ms) = (name.taken_ms / 1000, name.taken_ms % 1000);
    output::time(dfs_proto::Timestamp { secs: secs as i64, nanos: (ms * 1_000_000) as u32 })
}
