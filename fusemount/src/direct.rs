//! Whether writes may go past the kernel's page cache.
//!
//! A write through a handle with FOPEN_DIRECT_IO costs a quarter of one through the page cache. Others who have the
//! file open through the cache must not find what was there before: the kernel drops the pages of the range before
//! the write, but older kernels did not do so once more afterwards, so pages that were read while the write was
//! under way stayed. There every handle goes through the cache.

/// The oldest kernel that is known to drop pages after such a write as well (major, minor).
const SINCE: (u32, u32) = (6, 18);

/// Whether this kernel is one of those.
pub(crate) fn is_coherent_here() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| is_coherent(&release))
}

fn is_coherent(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= SINCE,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_drop_pages_after_a_write_are_told_from_others() {
        for release in ["6.18.44-fc-v657\n", "6.18", "6.19-rc1", "7.0.0", "10.2"] {
            assert!(is_coherent(release), "{release}");
        }
        for release in ["6.17.9", "5.19.0-generic", "6.1.0-18-amd64", "", "6", "x.y"] {
            assert!(!is_coherent(release), "{release}");
        }
    }
}
