//! What was answered is there after the process was killed, at whatever moment.

#![allow(clippy::unwrap_used)] // The lint spares test functions only, not their helpers.

use dfs_metastore::{Counter, DentryRow, Durability, InodeRow, Store, StoreError, WriteTxn};
use dfs_proto::{
    BlobId, BlobKey, BlobRef, DirCookie, Extent, FileKind, Ino, Md5, Seq, Timestamp, Version, VolumeId,
};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Set for the process that is to be killed: the database it writes to.
const CHILD: &str = "DFS_METASTORE_CRASH_DATABASE";
/// Set for it as well: what its names begin with.
const PREFIX: &str = "DFS_METASTORE_CRASH_PREFIX";
const ROUNDS: u64 = 8;
const WRITERS: u64 = 6;

#[test]
fn acknowledged_rows_survive_kill_9() {
    match std::env::var(CHILD) {
        Ok(database) => write_until_killed(Path::new(&database), &std::env::var(PREFIX).unwrap()),
        Err(_) => kill_and_look(),
    }
}

fn kill_and_look() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("meta.db");
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        // Every other round is killed by the clock, and so now and then while it opens or recovers.
        let kill = match round % 2 {
            0 => Kill::AfterAcks(1 + chance.below(3000)),
            _ => Kill::After(Duration::from_micros(chance.below(150_000))),
        };
        acknowledged.extend(one_life(&database, &format!("r{round}"), kill));
        check(&database, &acknowledged);
    }
    assert!(acknowledged.len() > 100, "only {} rows were written", acknowledged.len());
    println!("{} rows", acknowledged.len());
}

enum Kill {
    AfterAcks(u64),
    After(Duration),
}

/// Runs this test again as a process of its own, kills it, and returns what it has acknowledged.
fn one_life(database: &Path, prefix: &str, kill: Kill) -> BTreeMap<String, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["acknowledged_rows_survive_kill_9", "--exact", "--nocapture"])
        .env(CHILD, database)
        .env(PREFIX, prefix)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acks = BTreeMap::new();
    let mut take = |line: String| {
        if let Some((name, ino)) = line.strip_prefix("ack ").and_then(|ack| ack.split_once(' ')) {
            // A line that the end cut off is no acknowledgement; a whole one ends in a dot.
            if let Some(ino) = ino.strip_suffix('.') {
                acks.insert(name.to_string(), ino.parse().unwrap());
            }
        }
        acks.len() as u64
    };
    match kill {
        Kill::AfterAcks(count) => {
            while take(lines.next().expect("the child ended by itself").unwrap()) < count {}
        }
        Kill::After(time) => std::thread::sleep(time),
    }
    child.kill().unwrap();
    for line in lines {
        take(line.unwrap());
    }
    assert!(!child.wait().unwrap().success());
    acks
}

/// Everything acknowledged is there and whole; nothing else is there in part.
fn check(database: &Path, acknowledged: &BTreeMap<String, u64>) {
    let store = Store::open_sqlite(database).unwrap();
    let expected = acknowledged.clone();
    let checked = store.read_blocking(move |txn| {
        for (name, ino) in expected {
            let dentry = txn.dentry(Ino::ROOT, name.as_bytes())?;
            assert_eq!(dentry.map(|d| d.ino), Some(Ino(ino)), "{name} was acknowledged");
        }
        let mut entries = 0;
        let mut after = DirCookie(0);
        loop {
            let page = txn.dentries(Ino::ROOT, after, 1000)?;
            let Some((last, _)) = page.last() else { break };
            after = last.cookie;
            for (dentry, inode) in &page {
                assert_eq!(inode.size, dentry.name.len() as u64);
                assert_eq!(txn.extents(inode.ino, 0, 9)?.len(), 1);
                entries += 1;
            }
        }
        let stats = txn.stats()?;
        assert_eq!((stats.files, stats.inodes), (entries, entries));
        Ok::<_, StoreError>(())
    });
    checked.unwrap();
    store.close();
    let db = rusqlite::Connection::open(database).unwrap();
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

fn write_until_killed(database: &Path, prefix: &str) {
    let store = Store::open_sqlite(database).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                let durability = if writer == 0 { Durability::Disk } else { Durability::Process };
                for n in 0u64.. {
                    let name = format!("{prefix}-{writer}-{n}");
                    let key = name.clone();
                    let ino =
                        store.write_blocking(durability, move |txn| create(txn, key.as_bytes())).unwrap();
                    writeln!(std::io::stdout().lock(), "ack {name} {ino}.").unwrap();
                }
            });
        }
    });
}

fn create(txn: &mut dyn WriteTxn, name: &[u8]) -> Result<u64, StoreError> {
    let ino = txn.take(Counter::Inode, 1)?;
    let cookie = DirCookie(txn.take(Counter::Cookie, 1)?);
    let now = Timestamp { secs: 1, nanos: 0 };
    let size = name.len() as u64;
    txn.put_inode(&InodeRow {
        ino: Ino(ino),
        kind: FileKind::File,
        mode: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size,
        allocated: size,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        version: Version(1),
        parent: Ino(0),
        collision: None,
        md5: None,
        has_acl: false,
    })?;
    txn.put_dentry(&DentryRow { parent: Ino::ROOT, name: name.to_vec(), cookie, ino: Ino(ino) })?;
    let id = BlobId { volume: VolumeId(1), key: BlobKey(ino) };
    let blob = BlobRef { id, seq: Seq(ino), length: size as u32, md5: Md5([1; 16]) };
    txn.put_extent(Ino(ino), &Extent { offset: 0, length: size, blob: Some(blob), blob_offset: 0 })?;
    Ok(ino)
}

/// A small generator (splitmix64): the seed is printed, that is all it takes.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
