//! What the mount and the kernel agree upon when they meet.

use fuser::{InitFlags, KernelConfig};
use std::io::{Error, Result};

/// Largest write and read of one request, bytes: what the kernel's MAX_PAGES allows.
const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// Requests of the kernel's background kind (readahead, asynchronous writes) under way at once.
const BACKGROUND_MAX: u16 = 64;

/// What is asked of the kernel. Each but the first has something that the mount does without, where an old
/// kernel does not offer it.
fn wanted() -> InitFlags {
    InitFlags::FUSE_ATOMIC_O_TRUNC
        | InitFlags::FUSE_AUTO_INVAL_DATA
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_ASYNC_DIO
        // Locks that other mounts see; the kernel's own are seen on this machine only.
        | InitFlags::FUSE_POSIX_LOCKS
        | InitFlags::FUSE_FLOCK_LOCKS
        // The kernel checks access control lists, and leaves the umask to where default ones are known.
        | InitFlags::FUSE_POSIX_ACL
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_SETXATTR_EXT
}

/// Agrees on capabilities and sizes.
pub(super) fn agree(config: &mut KernelConfig) -> Result<()> {
    let wanted = wanted();
    if let Err(missing) = config.add_capabilities(wanted) {
        if missing.contains(InitFlags::FUSE_ATOMIC_O_TRUNC) {
            // Without it a file would be emptied before the collision rule could be asked.
            return Err(Error::other("this kernel does not hand O_TRUNC over with open"));
        }
        log::info!("the kernel does not offer {missing:?}; the mount goes without");
        config
            .add_capabilities(wanted.difference(missing))
            .map_err(|e| Error::other(format!("the kernel takes back {e:?}")))?;
    }
    // An Err carries the nearest value that the kernel takes, which is set by the second call.
    if let Err(nearest) = config.set_max_write(REQUEST_BYTES_MAX) {
        config.set_max_write(nearest).map_err(|_| Error::other("no write size fits the kernel"))?;
    }
    if let Err(nearest) = config.set_max_readahead(REQUEST_BYTES_MAX) {
        config.set_max_readahead(nearest).map_err(|_| Error::other("no readahead fits the kernel"))?;
    }
    if let Err(nearest) = config.set_max_background(BACKGROUND_MAX) {
        config.set_max_background(nearest).map_err(|_| Error::other("no queue length fits the kernel"))?;
    }
    Ok(())
}
