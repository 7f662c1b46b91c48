//! Listings that go on while the directory changes.

use super::Id;
use dfs_proto::{Attr, Ino, Name};
use dfs_vfs::{Fh, Listed, Vfs};
use std::collections::{BTreeMap, BTreeSet};

/// A listing under way.
pub struct Walk {
    pub fh: Fh,
    pub dir: Id,
    /// Where it goes on.
    cookie: u64,
    /// What it has shown, with the places after it.
    seen: Vec<(Vec<u8>, u64)>,
    /// Names that have been there, and the same, since it began.
    steady: BTreeSet<Name>,
    /// Whether it has been at the end since it began, or was set back.
    ended: bool,
}

impl Walk {
    pub fn new<'a>(fh: Fh, dir: Id, names: impl Iterator<Item = &'a Name>) -> Walk {
        Walk { fh, dir, cookie: 0, seen: Vec::new(), steady: names.cloned().collect(), ended: false }
    }

    pub fn entry_changed(&mut self, name: &Name) {
        self.steady.remove(name);
    }

    /// Goes back to a place that was told before, as seekdir(3) does, or to the start.
    pub fn seek_back(&mut self, to: u8) {
        let keep = to as usize % (self.seen.len() + 1);
        self.seen.truncate(keep);
        self.cookie = self.seen.last().map_or(0, |(_, cookie)| *cookie);
        self.ended = false;
    }

    /// Reads on with room for some entries; `names` is what is there now, for a listing that starts here.
    pub async fn read<'a>(
        &mut self,
        vfs: &Vfs,
        room: usize,
        names: impl Iterator<Item = &'a Name>,
    ) -> Vec<Listed> {
        if self.cookie == 0 {
            self.steady = names.cloned().collect();
        }
        let mut page: Vec<Listed> = Vec::new();
        let fill = |entry: &Listed| {
            let fits = page.len() < room;
            if fits {
                page.push(entry.clone());
            }
            fits
        };
        vfs.readdir(self.fh, self.cookie, fill).await.expect("readdir");
        for entry in &page {
            let steady = entry.entry.as_ref().is_none_or(|name| self.steady.contains(name));
            let repeated = self.seen.iter().any(|(name, _)| *name == entry.name);
            assert!(!(steady && repeated), "{:?} is listed twice", String::from_utf8_lossy(&entry.name));
            self.seen.push((entry.name.clone(), entry.cookie));
            self.cookie = entry.cookie;
        }
        if page.len() < room && !self.ended {
            self.ended = true;
            for name in &self.steady {
                let listed = self.seen.iter().any(|(seen, _)| seen == name.as_bytes());
                assert!(listed, "{name:?} was there all the time and is not listed");
            }
        }
        page
    }
}

/// All entries but the two dots.
pub async fn all(vfs: &Vfs, dir: Ino) -> BTreeMap<Name, Attr> {
    let fh = vfs.opendir(dir).await.unwrap();
    let mut all = BTreeMap::new();
    let fill = |entry: &Listed| {
        if let Some(name) = &entry.entry {
            assert!(all.insert(name.clone(), entry.attr.clone()).is_none(), "{name:?} is listed twice");
        }
        true
    };
    vfs.readdir(fh, 0, fill).await.unwrap();
    vfs.releasedir(fh);
    all
}
