//! Who a data directory belongs to: its lock, and `node.json` with the identity that outlives restarts.

use anyhow::{Context, bail};
use dfs_service::durable::replace_file;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a process that is just ending may take to let go of the directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The identity of a storage node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Random text made with the directory.
    pub uuid: String,
    /// The cluster it belongs to; empty until it has registered once.
    pub cluster: String,
    /// Its name; empty until it has registered once.
    pub name: String,
}

/// Keeps every other process out of the directory until it is dropped.
#[derive(Debug)]
pub struct DirLock(#[allow(dead_code, reason = "the lock is the open file")] File);

/// Locks `data`. Blocks for some seconds while another process holds it, then fails.
pub fn lock(data: &Path) -> anyhow::Result<DirLock> {
    let path = data.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(DirLock(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => bail!(
                "{} is used by another storage node that is running; stop it, or name another --data directory",
                data.display()
            ),
            Err(TryLockError::Error(e)) => {
                return Err(e).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

impl Identity {
    /// The identity of `data`; a new one for a new directory.
    pub fn load(data: &Path) -> anyhow::Result<Identity> {
        let path = data.join("node.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!("{} cannot be understood; restore it, it says who this node is", path.display())
            }),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let uuid = format!("{:032x}", rand::random::<u128>());
                let identity = Identity { uuid, cluster: String::new(), name: String::new() };
                identity.save(data)?;
                Ok(identity)
            }
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes it to `data`.
    pub fn save(&self, data: &Path) -> anyhow::Result<()> {
        let path = data.join("node.json");
        let bytes = serde_json::to_vec_pretty(self).context("cannot write the identity as JSON")?;
        replace_file(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_stays_with_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), first);
        let named = Identity { name: "sn1".into(), cluster: "c".into(), ..first };
        named.save(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), named);
    }

    #[test]
    fn an_unreadable_identity_is_an_error_and_not_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.json"), "{").unwrap();
        let error = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("node.json"), "{error}");
    }

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let error = lock(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another storage node"), "{error}");
        drop(held);
        lock(dir.path()).unwrap();
    }
}
