//! Mounts of this machine that died.
//!
//! A mount that is killed leaves a session behind, and with it locks that would stand until the lease is over. On
//! one machine nobody expects that: the locks of a process that is gone are gone, and programs such as SQLite take
//! a lock that is held for a sign that somebody is at work. So each mount keeps a note of its session, which it
//! has locked for as long as it lives; the next mount ends the sessions of notes that nobody holds.

use anyhow::Context;
use dfs_client::Session;
use dfs_proto::SessionId;
use dfs_proto::meta::SessionReply;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Notes looked at by one mount: far more than a machine has mounts.
const NOTES_MAX: usize = 1024;

/// Longest note that makes sense, bytes.
const NOTE_BYTES_MAX: u64 = 4096;

/// The note of a living mount. It goes with it, in whatever way it ends.
pub(crate) struct Note {
    path: PathBuf,
    /// Locked (flock(2)).
    file: File,
}

impl Note {
    fn write(&mut self, session: &SessionReply) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(format!("{}\n{}\n", session.cluster, session.session).as_bytes())
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // A mount that ends well has ended its session; should the file stay, the next one finds it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Where notes are kept: on no disk, so that none outlives the machine's start.
fn folder() -> Option<PathBuf> {
    // SAFETY: geteuid has no preconditions and cannot fail.
    let base = match unsafe { libc::geteuid() } {
        0 => PathBuf::from("/run"),
        _ => PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?),
    };
    Some(base.join("dfs-mount"))
}

/// Ends the sessions of mounts of the same cluster that died on this machine, and keeps a note of this one's.
/// Without a place for notes the mount goes on: then such sessions end with their lease.
pub(crate) async fn succeed(session: &Arc<Session>) -> Option<Note> {
    let present = session.info();
    let (cluster, mine) = (present.cluster.clone(), present);
    let work = move || -> anyhow::Result<(Vec<SessionId>, Note)> {
        let folder = folder().context("there is no XDG_RUNTIME_DIR")?;
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let dead = take_over_dead(&folder, &cluster)?;
        Ok((dead, leave_note(&folder, &mine)?))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok((dead, note))) => {
            for id in dead {
                log::info!("session {id} was left behind by a mount that died here; ending it");
                if let Err(e) = session.end_another(id).await {
                    log::debug!("session {id} could not be ended; it ends with its lease: {e}");
                }
            }
            Some(note)
        }
        Ok(Err(e)) => {
            log::debug!("no note of this mount's session can be kept: {e:#}");
            None
        }
        Err(e) => {
            log::warn!("no note of this mount's session can be kept: {e}");
            None
        }
    }
}

/// Keeps the note true while the session changes.
pub(crate) async fn keep(mut note: Note, session: Arc<Session>) {
    let mut present = session.watch();
    while present.changed().await.is_ok() {
        let reply = present.borrow_and_update().clone();
        if let Err(e) = note.write(&reply) {
            log::warn!("{} could not be written: {e}", note.path.display());
        }
    }
}

fn leave_note(folder: &Path, session: &SessionReply) -> anyhow::Result<Note> {
    let path = folder.join(format!("{}-{}", std::process::id(), session.session));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    // One that looks for dead mounts may hold it for a moment; it leaves an empty note alone.
    file.lock()?;
    let mut note = Note { path, file };
    note.write(session)?;
    Ok(note)
}

/// Sessions of `cluster` by notes that nobody holds; the notes are removed.
fn take_over_dead(folder: &Path, cluster: &str) -> anyhow::Result<Vec<SessionId>> {
    let mut dead = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(NOTES_MAX) {
        let path = entry?.path();
        let Ok(file) = File::open(&path) else { continue };
        // Held by a mount that lives.
        if file.try_lock().is_err() {
            continue;
        }
        let mut text = String::new();
        if file.take(NOTE_BYTES_MAX).read_to_string(&mut text).is_err() {
            continue;
        }
        let mut lines = text.lines();
        if lines.next() == Some(cluster)
            && let Some(id) = lines.next().and_then(|line| line.parse().ok())
        {
            dead.push(id);
            std::fs::remove_file(&path)?;
        }
    }
    Ok(dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(cluster: &str, session: u64) -> SessionReply {
        SessionReply { session: SessionId(session), lease_ms: 1000, cluster: cluster.into(), replicas: 2 }
    }

    #[test]
    fn only_the_sessions_of_dead_mounts_of_the_same_cluster_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut living = leave_note(dir.path(), &reply("c", 1)).unwrap();
        living.write(&reply("c", 10)).unwrap();
        for (cluster, session) in [("c", 2), ("other", 3)] {
            // What is left of a mount that is killed: the file, and nobody who holds it.
            let note = leave_note(dir.path(), &reply(cluster, session)).unwrap();
            let text = std::fs::read(&note.path).unwrap();
            let path = note.path.clone();
            drop(note);
            std::fs::write(path, text).unwrap();
        }
        std::fs::write(dir.path().join("odd"), b"\xff\xfe").unwrap();
        assert_eq!(take_over_dead(dir.path(), "c").unwrap(), [SessionId(2)]);
        assert_eq!(take_over_dead(dir.path(), "c").unwrap(), []);
        assert_eq!(std::fs::read_to_string(&living.path).unwrap(), "c\n10\n");
        drop(living);
        assert_eq!(take_over_dead(dir.path(), "other").unwrap(), [SessionId(3)]);
    }
}
