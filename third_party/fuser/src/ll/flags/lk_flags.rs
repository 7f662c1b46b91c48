use bitflags::bitflags;

bitflags! {
    /// Flags of a lock request.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct LkFlags: u32 {
        /// The lock is one of `flock(2)`: it belongs to the open file description and
        /// knows nothing of the locks of `fcntl(2)`.
        const FUSE_LK_FLOCK = 1 << 0;
    }
}
