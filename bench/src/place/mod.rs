//! Where the work is done: this system, the bare disk, and others to compare with.
//!
//! A place is a directory with what stands behind it. Everything that a place starts ends when it is dropped.

mod dfs;
mod disk;
mod gluster;
mod moosefs;
mod passthrough;
mod sshfs;

use anyhow::bail;
use std::path::{Path, PathBuf};

/// Processes to count the CPU time and the memory of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes {
    /// What serves the application's side: the mount and what it needs there.
    pub client: Vec<u32>,
    /// Everything else.
    pub servers: Vec<u32>,
}

/// A directory to work in, and what stands behind it.
pub(crate) trait Place {
    /// What it is and how it was set up, for people.
    fn about(&self) -> String;
    /// Versions of the programs.
    fn version(&self) -> String;
    /// The directory. The same for as long as the place lives.
    fn dir(&self) -> &Path;
    /// Makes the client forget what it has in memory; servers keep what they have in theirs.
    fn make_cold(&mut self) -> anyhow::Result<()>;
    /// Waits until nothing is done in the background any more.
    fn settle(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
    /// Those that run now.
    fn processes(&self) -> Processes;
    /// Whether it can do metadata work; a place that only makes sense for throughput cannot.
    fn is_complete(&self) -> bool {
        true
    }
}

/// A place as it is asked for: `[NAME:]KIND[=DIR][+FLAG...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What it is called in the results: the name, or all that was typed when there is none.
    pub label: String,
    pub kind: Kind,
    /// Programs of this system: the folder that they are in.
    pub bin: Option<PathBuf>,
    /// Further flags for dfs-mount.
    pub flags: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dfs,
    Disk,
    Gluster,
    Sshfs,
    MooseFs,
    Passthrough,
}

impl std::str::FromStr for Wanted {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Wanted> {
        let (label, rest) = text.split_once(':').unwrap_or((text, text));
        let mut parts = rest.split('+');
        let place = parts.next().unwrap_or_default();
        let (kind, bin) = match place.split_once('=') {
            Some((kind, dir)) => (kind, Some(PathBuf::from(dir))),
            None => (place, None),
        };
        let flags: Vec<String> = parts.map(|flag| format!("--{flag}")).collect();
        let kind = match kind {
            "dfs" => Kind::Dfs,
            "disk" => Kind::Disk,
            "gluster" => Kind::Gluster,
            "sshfs" => Kind::Sshfs,
            "moosefs" => Kind::MooseFs,
            "passthrough" => Kind::Passthrough,
            _ => bail!("{kind} is no place; places are dfs, disk, gluster, sshfs, moosefs and passthrough"),
        };
        anyhow::ensure!(
            kind == Kind::Dfs || (bin.is_none() && flags.is_empty()),
            "{text}: only dfs takes a folder of programs and flags"
        );
        Ok(Wanted { label: label.to_owned(), kind, bin, flags })
    }
}

/// How all places are run.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// Programs of this system, where a place does not name others.
    pub programs: PathBuf,
    /// Nothing is measured: what is left in the background need not be waited for with care.
    pub is_hurried: bool,
}

/// Starts a place with everything that it keeps in `folder`, which is there and empty.
pub(crate) fn start(wanted: &Wanted, manner: &Manner, folder: &Path) -> anyhow::Result<Box<dyn Place>> {
    Ok(match wanted.kind {
        Kind::Dfs => {
            let bin = wanted.bin.as_deref().unwrap_or(&manner.programs);
            Box::new(dfs::Dfs::start(bin, &wanted.flags, manner.is_hurried, folder)?)
        }
        Kind::Disk => Box::new(disk::Disk::start(folder)?),
        Kind::Gluster => Box::new(gluster::Gluster::start(folder)?),
        Kind::Sshfs => Box::new(sshfs::Sshfs::start(folder)?),
        Kind::MooseFs => Box::new(moosefs::MooseFs::start(folder)?),
        Kind::Passthrough => Box::new(passthrough::Passthrough::start(folder)?),
    })
}

/// `folder`/`name`, made.
fn subfolder(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().ok_or_else(|| anyhow::anyhow!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_asked_for_with_programs_and_flags() {
        let wanted: Wanted = "new:dfs=/a/b+cache-mib=128+writeback".parse().expect("it is one");
        assert_eq!((wanted.label.as_str(), wanted.kind), ("new", Kind::Dfs));
        assert_eq!(wanted.bin.as_deref(), Some(Path::new("/a/b")));
        assert_eq!(wanted.flags, ["--cache-mib=128", "--writeback"]);
        assert_eq!("dfs+noatime".parse::<Wanted>().expect("it is one").bin, None);
        assert!("disk=/a".parse::<Wanted>().is_err());
        assert!("nfs".parse::<Wanted>().is_err());
    }
}
