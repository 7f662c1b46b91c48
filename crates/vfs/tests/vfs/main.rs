//! The file system without a kernel, over a cluster in memory.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod coherence;
mod collisions;
mod creating;
mod limits;
mod model;
mod modes;
mod posix;
mod publishing;
mod ranges;
mod reading;
mod regressions;
mod round_trips;
mod times;
mod unnamed;
mod whole;

use cluster::{CALLER, READ, TRUNCATE};
use dfs_proto::{Ino, LockOwner, Name};
use dfs_vfs::{Fh, Vfs, VfsError};

pub fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}

/// What `printf TEXT > NAME` does where the name is free.
pub async fn store(vfs: &Vfs, file: &str, content: &[u8]) -> Ino {
    let created = vfs.create(CALLER, Ino::ROOT, &name(file), 0o644, TRUNCATE).await.unwrap();
    write_all(vfs, created.opened.fh, 0, content).await;
    close(vfs, created.opened.fh).await.unwrap();
    created.attr.ino
}

pub async fn write_all(vfs: &Vfs, fh: Fh, offset: u64, content: &[u8]) {
    for (i, block) in content.chunks(1 << 20).enumerate() {
        let written = vfs.write(fh, offset + (i << 20) as u64, block, false).await.unwrap();
        assert_eq!(written as usize, block.len());
    }
}

pub async fn close(vfs: &Vfs, fh: Fh) -> Result<(), VfsError> {
    let result = vfs.flush(fh, LockOwner(1), |_, _| false).await;
    vfs.release(fh).await;
    result
}

/// What `cat NAME` prints.
pub async fn content(vfs: &Vfs, file: &str) -> Result<Vec<u8>, VfsError> {
    let attr = vfs.lookup(Ino::ROOT, &name(file)).await?;
    let opened = vfs.open(CALLER, attr.ino, READ).await?;
    let mut all = Vec::new();
    loop {
        let part = vfs.read(opened.fh, all.len() as u64, 128 << 10).await?;
        if part.is_empty() {
            break;
        }
        all.extend_from_slice(&part);
    }
    assert_eq!(all.len() as u64, vfs.getattr(attr.ino).await?.size);
    close(vfs, opened.fh).await?;
    Ok(all)
}

/// What `ls` prints.
pub async fn names(vfs: &Vfs, dir: Ino) -> Vec<String> {
    let fh = vfs.opendir(dir).await.unwrap();
    let (mut all, mut cookie) = (Vec::new(), 0);
    loop {
        // Room for three entries at a time: a listing goes on where it stopped.
        let mut room = 3;
        let before = all.len();
        vfs.readdir(fh, cookie, |entry| {
            if room == 0 {
                return false;
            }
            room -= 1;
            cookie = entry.cookie;
            all.push(String::from_utf8_lossy(&entry.name).into_owned());
            true
        })
        .await
        .unwrap();
        if all.len() == before {
            break;
        }
    }
    vfs.releasedir(fh);
    assert_eq!(&all[..2], [".", ".."]);
    all.drain(..2);
    all.sort();
    all
}

/// Waits until `condition` holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition().await {
        assert!(std::time::Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
