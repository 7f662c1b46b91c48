//! The mount of `dfs up --mount`, in one place.

use anyhow::Context;
use dfs_mount::{MountConfig, Mounted};
use std::path::Path;

/// Mounts the cluster at `directory`, which is made when it is missing.
pub(crate) async fn mount(directory: &Path, master_url: &str) -> anyhow::Result<Mounted> {
    // A directory whose mount has lost its process is there and cannot be looked at; mounting says so.
    if let Err(e) = std::fs::create_dir_all(directory) {
        anyhow::ensure!(directory.exists(), "cannot make {}: {e}", directory.display());
    }
    dfs_mount::mount(MountConfig::new(directory, master_url))
        .await
        .with_context(|| format!("cannot mount at {}", directory.display()))
}
