//! The `Range` header (RFC 9110, section 14): one range, widened to whole chunks.

use dfs_proto::CHUNK_BYTES;
use dfs_proto::blob::chunks_of;
use std::ops::Range;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no range, or one that need not be understood.
    Whole,
    /// These chunks.
    Chunks(Range<u32>),
    /// A range that is not in the blob.
    Outside,
}

/// What `header` asks for of a blob of `length` bytes.
pub fn wanted(header: Option<&str>, length: u32) -> Wanted {
    let Some((first, last)) = header.and_then(parse) else { return Wanted::Whole };
    let length = u64::from(length);
    let (start, end) = match (first, last) {
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(length)),
        (Some(first), None) => (first, length),
        (None, Some(suffix)) => (length.saturating_sub(suffix), length),
        (None, None) => return Wanted::Whole,
    };
    if start >= end {
        return Wanted::Outside;
    }
    // Blobs are at most 4 MiB, so chunk numbers are small.
    let chunk = |byte: u64| byte as usize / CHUNK_BYTES;
    Wanted::Chunks(chunk(start) as u32..chunk(end - 1) as u32 + 1)
}

/// The bytes that `chunks` of a blob of `length` bytes cover.
pub fn bytes_of(chunks: &Range<u32>, length: u32) -> Range<u32> {
    debug_assert!(chunks.end as usize <= chunks_of(length as usize));
    let at = |chunk: u32| (chunk as usize * CHUNK_BYTES).min(length as usize) as u32;
    at(chunks.start)..at(chunks.end)
}

/// First and last of a single byte range; `None` for anything else, which RFC 9110 lets a server ignore.
fn parse(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, spec) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    let number = |text: &str| -> Option<Option<u64>> {
        match text {
            "" => Some(None),
            _ if text.bytes().all(|b| b.is_ascii_digit()) => Some(Some(text.parse().unwrap_or(u64::MAX))),
            _ => None,
        }
    };
    let (first, last) = (number(first)?, number(last)?);
    // A last before the first makes the whole header invalid.
    if first.zip(last).is_some_and(|(first, last)| last < first) { None } else { Some((first, last)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_widened_to_chunks() {
        const K: u32 = CHUNK_BYTES as u32;
        let length = 3 * K + 10;
        for (header, expected) in [
            (Some("bytes=0-0"), Wanted::Chunks(0..1)),
            (Some("bytes=65535-65536"), Wanted::Chunks(0..2)),
            (Some("bytes=65536-131071"), Wanted::Chunks(1..2)),
            (Some("bytes=196608-"), Wanted::Chunks(3..4)),
            (Some("bytes=-1"), Wanted::Chunks(3..4)),
            (Some("bytes=-99999999"), Wanted::Chunks(0..4)),
            (Some("bytes=5-99999999999999999999999"), Wanted::Chunks(0..4)),
            (Some("bytes=196618-"), Wanted::Outside),
            (Some("bytes=196618-200000"), Wanted::Outside),
            (Some("bytes=-0"), Wanted::Outside),
            (None, Wanted::Whole),
            (Some("bytes=9-3"), Wanted::Whole),
            (Some("bytes=-"), Wanted::Whole),
            (Some("bytes=0-1,5-6"), Wanted::Whole),
            (Some("lines=0-1"), Wanted::Whole),
            (Some("bytes=a-b"), Wanted::Whole),
            (Some("bytes=+1-2"), Wanted::Whole),
        ] {
            assert_eq!(wanted(header, length), expected, "{header:?}");
        }
        assert_eq!(bytes_of(&(1..4), length), K..length);
    }
}
