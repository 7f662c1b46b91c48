use bitflags::bitflags;

bitflags! {
    /// Flags of a request to set an extended attribute. The kernel sends them when
    /// `InitFlags::FUSE_SETXATTR_EXT` has been agreed upon.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct SetxattrFlags: u32 {
        /// Clear the set-group-id bit, as `system.posix_acl_access` is set by somebody who is
        /// not in the file's group.
        const FUSE_SETXATTR_ACL_KILL_SGID = 1 << 0;
    }
}
