//! The operations, one per file.

pub mod accessed;
pub mod acl;
pub mod clone;
pub mod commit;
pub mod extents;
pub mod getattr;
pub mod link;
pub mod lock;
pub mod lookup;
pub mod make;
pub mod make_unnamed;
pub mod open;
pub mod readdir;
pub mod readlink;
pub mod rename;
pub mod resolve;
pub mod rmdir;
pub mod setattr;
pub mod unlink;
pub mod xattr;
