//! Copies of the master's database that this node keeps for it.
//!
//! Files in a folder of their own, each named by what it is ([`BackupName`]). One that is on its way ends in
//! `.part`; it gets its name when all of it is on disk and matches its MD5. The newest few are kept. Knows nothing
//! of what is in them. All of it blocks.

use bytes::Bytes;
use dfs_client::checksum::Md5Hasher;
use dfs_proto::backup::BackupName;
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_proto::{ErrorCode, Md5, WireError};
use dfs_service::durable::sync_dir;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Backups of one cluster that are kept.
pub const KEPT: usize = 8;

/// How much is read at a time to find an MD5.
const READ_BYTES: usize = 1 << 20;

/// The backups of one data directory.
#[derive(Debug)]
pub struct Backups {
    dir: PathBuf,
    /// One piece is written at a time.
    writing: Mutex<()>,
}

impl Backups {
    /// The backups in `data`; the folder is made with the first of them.
    pub fn new(data: &Path) -> Backups {
        Backups { dir: data.join("backups"), writing: Mutex::default() }
    }

    /// Whole backups, the oldest first.
    pub fn list(&self) -> Result<Vec<BackupName>, WireError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed("list", &self.dir, &e)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut names: Vec<BackupName> = names.collect();
        names.sort();
        Ok(names)
    }

    /// Takes a piece that begins at `at`; true when that was the last one and the backup is kept.
    ///
    /// `conflict` for a piece that does not follow on the one before, `invalid_argument` for one that goes beyond
    /// the end, `checksum_mismatch` (and nothing is kept) when the whole does not match its name.
    pub fn put(&self, name: &BackupName, at: u64, piece: &[u8]) -> Result<bool, WireError> {
        let _one_at_a_time = self.writing.lock();
        let end = at.saturating_add(piece.len() as u64);
        if end > name.bytes {
            let message = format!("the piece ends at {end}, beyond the end of backup {name}");
            return Err(WireError::new(ErrorCode::InvalidArgument, message));
        }
        std::fs::create_dir_all(&self.dir).map_err(|e| failed("make", &self.dir, &e))?;
        let path = self.dir.join(name.to_string());
        if path.exists() {
            return Ok(true);
        }
        let part = self.dir.join(format!("{name}.part"));
        append(&part, at, piece)?;
        if end < name.bytes {
            return Ok(false);
        }
        let kept = self.finish(name, &part, &path);
        if kept.is_err() {
            // Whatever is wrong with it, the next try begins anew.
            let _ = std::fs::remove_file(&part);
        }
        kept.map(|()| true)
    }

    fn finish(&self, name: &BackupName, part: &Path, path: &Path) -> Result<(), WireError> {
        let file = File::open(part).map_err(|e| failed("read", part, &e))?;
        let md5 = md5_of(&file).map_err(|e| failed("read", part, &e))?;
        if md5 != name.md5 {
            let message = format!("backup {name} has the MD5 {md5} here");
            return Err(WireError::new(ErrorCode::ChecksumMismatch, message));
        }
        file.sync_all().map_err(|e| failed("sync", part, &e))?;
        std::fs::rename(part, path).map_err(|e| failed("name", path, &e))?;
        sync_dir(&self.dir).map_err(|e| failed("sync", &self.dir, &e))?;
        self.prune(name)
    }

    /// Removes what is too old, and what was never finished.
    fn prune(&self, newest: &BackupName) -> Result<(), WireError> {
        let mut kept = self.list()?;
        kept.retain(|name| name.cluster == newest.cluster);
        let old = kept.len().saturating_sub(KEPT);
        for name in &kept[..old] {
            let path = self.dir.join(name.to_string());
            std::fs::remove_file(&path).map_err(|e| failed("remove", &path, &e))?;
        }
        let entries = std::fs::read_dir(&self.dir).map_err(|e| failed("list", &self.dir, &e))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_some_and(|e| e == "part") {
                std::fs::remove_file(&path).map_err(|e| failed("remove", &path, &e))?;
            }
        }
        Ok(())
    }

    /// A piece of a backup, from `at` on; empty at its end.
    pub fn read(&self, name: &BackupName, at: u64) -> Result<Bytes, WireError> {
        let path = self.dir.join(name.to_string());
        let file = File::open(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => WireError::new(ErrorCode::NotFound, format!("backup {name} is not here")),
            _ => failed("read", &path, &e),
        })?;
        let length = usize::try_from(name.bytes.saturating_sub(at)).unwrap_or(usize::MAX).min(BLOB_BYTES_MAX);
        let mut piece = vec![0; length];
        file.read_exact_at(&mut piece, at).map_err(|e| failed("read", &path, &e))?;
        Ok(piece.into())
    }
}

fn append(part: &Path, at: u64, piece: &[u8]) -> Result<(), WireError> {
    let mut options = OpenOptions::new();
    let opened = match at {
        0 => options.write(true).create(true).truncate(true).open(part),
        _ => options.append(true).open(part),
    };
    let mut file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(does_not_follow(at, 0)),
        Err(e) => return Err(failed("write", part, &e)),
    };
    let length = file.metadata().map_err(|e| failed("look at", part, &e))?.len();
    if length != at {
        return Err(does_not_follow(at, length));
    }
    file.write_all(piece).map_err(|e| failed("write", part, &e))
}

fn does_not_follow(at: u64, length: u64) -> WireError {
    let message = format!("a piece at {at} does not follow on the {length} bytes that are here; begin anew");
    WireError::new(ErrorCode::Conflict, message)
}

fn md5_of(mut file: &File) -> std::io::Result<Md5> {
    let (mut hasher, mut buffer) = (Md5Hasher::new(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

fn failed(action: &str, path: &Path, e: &std::io::Error) -> WireError {
    let code = if e.kind() == ErrorKind::StorageFull { ErrorCode::NoSpace } else { ErrorCode::Io };
    WireError::new(code, format!("cannot {action} {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_client::checksum::md5;

    fn name(taken_ms: u64, content: &[u8]) -> BackupName {
        BackupName { taken_ms, cluster: "c".into(), bytes: content.len() as u64, md5: md5(content) }
    }

    #[test]
    fn a_backup_comes_in_pieces_and_is_there_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let backups = Backups::new(dir.path());
        let content: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        let name = name(1, &content);
        assert_eq!(backups.list().unwrap(), []);
        assert!(!backups.put(&name, 0, &content[..4_000]).unwrap());
        assert_eq!(backups.list().unwrap(), []);
        assert_eq!(backups.put(&name, 5_000, &content[5_000..]).unwrap_err().code, ErrorCode::Conflict);
        // Somebody begins once more.
        assert!(!backups.put(&name, 0, &content[..5_000]).unwrap());
        assert!(backups.put(&name, 5_000, &content[5_000..]).unwrap());
        assert!(backups.put(&name, 5_000, &content[5_000..]).unwrap(), "the last piece again");
        assert_eq!(backups.list().unwrap(), std::slice::from_ref(&name));
        assert_eq!(backups.read(&name, 0).unwrap(), content);
        assert_eq!(backups.read(&name, 9_990).unwrap(), content[9_990..]);
        assert_eq!(backups.put(&name, 9_999, b"12").unwrap_err().code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn what_does_not_match_its_name_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let backups = Backups::new(dir.path());
        let name = name(1, b"right");
        assert_eq!(backups.put(&name, 0, b"wrong").unwrap_err().code, ErrorCode::ChecksumMismatch);
        assert_eq!(backups.read(&name, 0).unwrap_err().code, ErrorCode::NotFound);
        assert!(backups.put(&name, 0, b"right").unwrap());
    }

    #[test]
    fn the_newest_are_kept_and_other_clusters_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let backups = Backups::new(dir.path());
        let other = BackupName { cluster: "other".into(), ..name(0, b"x") };
        assert!(backups.put(&other, 0, b"x").unwrap());
        assert!(!backups.put(&name(999, b"never finished"), 0, b"ne").unwrap());
        for taken_ms in 1..=KEPT as u64 + 3 {
            assert!(backups.put(&name(taken_ms, b"x"), 0, b"x").unwrap());
        }
        let kept: Vec<u64> = backups.list().unwrap().iter().map(|name| name.taken_ms).collect();
        let newest: Vec<u64> = (4..=KEPT as u64 + 3).collect();
        assert_eq!(kept, [&[0], &newest[..]].concat());
        assert_eq!(std::fs::read_dir(dir.path().join("backups")).unwrap().count(), kept.len());
    }
}
