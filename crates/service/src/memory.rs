//! The process's memory allocator.

/// Makes glibc give buffers of a blob's size back to the system as soon as they are freed, and share two
/// arenas among all threads. By default freed buffers stay in the arena of the thread that had them: a cluster
/// in one process that stores and reads 1 GiB then peaks at 320 MiB, with this at 170 MiB, at the same speed.
///
/// To be called first thing in `main`. Does nothing where the C library is another one.
pub fn give_back_large_buffers() {
    #[cfg(target_env = "gnu")]
    {
        const ARENAS: libc::c_int = 2;
        const LARGE_BYTES: libc::c_int = 256 << 10;
        // SAFETY: mallopt only sets parameters of the allocator; it refuses values it does not know.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        }
    }
}
