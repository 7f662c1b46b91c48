//! The file system to compare with: ext4 on a loop device.

use crate::bed::sh;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// Size of the file that ext4 is made in, bytes; sparse.
const IMAGE_BYTES: u64 = 256 << 20;

/// An ext4 that is mounted while this lives.
pub struct Ext4 {
    dir: TempDir,
}

impl Ext4 {
    pub fn new() -> Ext4 {
        let dir = tempfile::Builder::new().prefix("dfs-ext4-").tempdir().unwrap();
        // Other users have to get to the mount.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let ext4 = Ext4 { dir };
        let image = ext4.dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
        std::fs::create_dir(ext4.path()).unwrap();
        sh(
            "PATH=$PATH:/usr/sbin:/sbin; mkfs.ext4 -q \"$1\" && mount -o loop \"$1\" \"$2\"",
            &[&image, &ext4.path()],
        );
        ext4
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        sh("umount -l \"$1\"", &[&self.path()]);
    }
}
