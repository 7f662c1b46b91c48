//! What the benchmark ran on.

use crate::process::version;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What the benchmark ran on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    pub file_system: String,
    /// Load average over a minute when the session began: others at work on the machine.
    pub load: String,
}

impl Machine {
    /// This machine, with the file system that `dir` is on.
    pub fn here(dir: &Path) -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, label: &str| {
            let line = text.lines().find(|line| line.starts_with(label))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib =
            value(&read("/proc/meminfo"), "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
        Machine {
            cpu: value(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.unwrap_or(0).div_ceil(1 << 20),
            kernel: version("uname", &["-sr"]),
            file_system: file_system(dir),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// Type and device of the file system that `dir` is on: the mount with the longest path above it.
pub(crate) fn file_system(dir: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let above = fields.filter(|f| f.len() > 2 && dir.starts_with(f[1]));
    above.max_by_key(|f| f[1].len()).map_or_else(String::new, |f| format!("{} on {}", f[2], f[0]))
}
