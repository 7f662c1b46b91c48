//! Named bounds that more than one program keeps.

/// Largest blob, bytes. A blob is hashed, sent, stored and verified as a whole, so it bounds memory per
/// request in every program.
pub const BLOB_BYTES_MAX: usize = 4 << 20;

/// Longest name of a directory entry, bytes (NAME_MAX of Linux).
pub const NAME_BYTES_MAX: usize = 255;

/// Longest path of one request, bytes (PATH_MAX of Linux).
pub const PATH_BYTES_MAX: usize = 4096;

/// Longest symbolic link target, bytes (PATH_MAX less the final NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;

/// Largest file size, bytes: what a signed 64-bit `off_t` can say.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Largest value of an extended attribute, bytes (xattr(7)).
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// Longest name of an extended attribute, bytes (xattr(7)).
pub const XATTR_NAME_BYTES_MAX: usize = 255;

/// Total of all attribute names of one inode as listxattr(2) returns them, bytes (xattr(7)).
pub const XATTR_LIST_BYTES_MAX: usize = 65_536;

/// Largest number of hard links to one inode (as ext4 has it).
pub const LINKS_MAX: u32 = 65_000;

/// Locks held on one file; more are refused (ENOLCK).
pub const LOCKS_PER_FILE_MAX: usize = 16_384;

/// Operations in one meta request.
pub const META_OPS_MAX: usize = 1024;

/// Body of a meta request, bytes: one commit of [`COMMIT_EXTENTS_MAX`] extents fits.
pub const META_BODY_BYTES_MAX: usize = 32 << 20;

/// New extents in one commit: 1 TiB in blobs of 4 MiB.
pub const COMMIT_EXTENTS_MAX: usize = 262_144;

/// Extents that one [`crate::meta::WriteOp::Clone`] copies: 16 GiB in blobs of 4 MiB.
pub const CLONE_EXTENTS_MAX: u32 = 4096;

/// Entries in one page of a directory listing.
pub const DIR_PAGE_ENTRIES_MAX: u32 = 4096;

/// Extents in one page; 4096 blobs of 4 MiB are 16 GiB of file.
pub const EXTENT_PAGE_MAX: u32 = 4096;

/// Grants in one answer.
pub const GRANTS_MAX: u32 = 64;

/// Keys in one grant.
pub const GRANT_KEYS: u64 = 256;

/// Inode numbers in one leased range.
pub const INODES_MAX: u64 = 65_536;

/// Blobs in one batch delete.
pub const DELETE_BLOBS_MAX: usize = 4096;

/// Numbered names that the collision rule tries (`name-1` .. ) before it gives up with `exists`.
pub const COLLISION_TRIES_MAX: u64 = 1_000_000;
