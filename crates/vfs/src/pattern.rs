//! How a handle is read, judged by its requests so far. Knows nothing of blobs.
//!
//! Requests that follow each other make a *run*. A long run is a stream forwards; runs that begin at a constant
//! distance from each other are a stream with strides, and if they touch, one backwards.

/// What the next reads are expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Nobody can tell.
    Scattered,
    /// What follows the last byte read.
    Forward,
    /// What precedes `start`.
    Backward { start: u64 },
    /// `length` bytes, `stride` bytes on from `start`, and so on.
    Strided { start: u64, length: u64, stride: i64 },
}

/// How far from the expected place a read still belongs to a run: the kernel sends the requests of its own
/// readahead side by side.
const SLACK_BYTES: u64 = 2 << 20;

/// Over how much of a run's end it is judged whether it has gaps.
const JUDGED_BYTES: u64 = 16 << 20;

#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    end: u64,
    requests: u32,
    /// From here on `read_bytes` are counted.
    counted_from: u64,
    read_bytes: u64,
}

impl Run {
    fn new(offset: u64, length: u64) -> Run {
        let end = offset.saturating_add(length);
        Run { start: offset, end, requests: 1, counted_from: offset, read_bytes: length }
    }

    /// Takes the read in if it belongs to the run: it goes on near its end and leaves no large gaps, or fills
    /// one.
    fn take(&mut self, offset: u64, length: u64) -> bool {
        let gaps = (self.end - self.counted_from).saturating_sub(self.read_bytes);
        let goes_on = offset >= self.start && offset.saturating_add(length) > self.end;
        let fills_gap = offset >= self.counted_from && gaps >= length;
        if offset.abs_diff(self.end) > SLACK_BYTES || !(goes_on || fills_gap) {
            return false;
        }
        let end = self.end.max(offset.saturating_add(length));
        let counted_from = self.counted_from.min(offset);
        let span = end - counted_from;
        let read_bytes = (self.read_bytes + length).min(span);
        if read_bytes < span / 2 {
            return false;
        }
        *self =
            Run { start: self.start.min(offset), end, requests: self.requests + 1, counted_from, read_bytes };
        if span > JUDGED_BYTES {
            self.counted_from = end - JUDGED_BYTES / 2;
            self.read_bytes = read_bytes.saturating_sub(span - JUDGED_BYTES / 2);
        }
        true
    }

    fn length(&self) -> u64 {
        self.end - self.start
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ReadPattern {
    run: Option<Run>,
    /// From the start of the run before to that of this one.
    stride: i64,
    /// Length of the run before.
    length: u64,
    /// How often in a row the stride was the same.
    repeats: u32,
}

impl ReadPattern {
    /// Takes note of a read; what it makes of the next ones.
    pub fn note(&mut self, offset: u64, length: u64) -> Stream {
        if self.run.as_mut().is_some_and(|run| run.take(offset, length)) {
            return self.stream();
        }
        if let Some(before) = self.run.replace(Run::new(offset, length)) {
            let stride = (offset as i64).wrapping_sub(before.start as i64);
            self.repeats = if stride == self.stride { self.repeats.saturating_add(1) } else { 0 };
            (self.stride, self.length) = (stride, before.length());
        }
        self.stream()
    }

    fn stream(&self) -> Stream {
        let Some(run) = self.run else { return Stream::Scattered };
        if self.repeats > 0 && run.length() <= self.length {
            return match self.stride {
                stride if stride < 0 && stride.unsigned_abs() == self.length => {
                    Stream::Backward { start: run.start }
                }
                0 => Stream::Scattered,
                stride => Stream::Strided { start: run.start, length: self.length, stride },
            };
        }
        // One read is no run yet, unless it begins a file.
        if run.requests > 1 || run.start == 0 { Stream::Forward } else { Stream::Scattered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const K: u64 = 1 << 10;
    const M: u64 = 1 << 20;

    fn after(reads: impl IntoIterator<Item = (u64, u64)>) -> Stream {
        let mut pattern = ReadPattern::default();
        reads.into_iter().map(|(offset, length)| pattern.note(offset, length)).last().unwrap()
    }

    #[test]
    fn a_file_read_from_its_beginning_or_for_a_while_is_a_stream() {
        assert_eq!(after([(0, 4 * K)]), Stream::Forward);
        assert_eq!(after([(M, 4 * K)]), Stream::Scattered);
        assert_eq!(after([(M, 4 * K), (M + 4 * K, 4 * K)]), Stream::Forward);
    }

    #[test]
    fn requests_that_overtake_each_other_are_one_stream() {
        assert_eq!(after([(0, M), (2 * M, M), (M, M), (4 * M, M), (3 * M, M)]), Stream::Forward);
        assert_eq!(after([(11 * M, M), (10 * M, M), (12 * M, M), (11 * M, M)]), Stream::Forward);
    }

    #[test]
    fn blocks_read_from_the_end_on_are_a_stream_backwards() {
        for block in [64 * K, M, 4 * M] {
            let mut pattern = ReadPattern::default();
            for n in (0..8u64).rev() {
                // A large block comes in several requests.
                for request in 0..block.div_ceil(M) {
                    let (at, length) = (n * block + request * M, block.min(M));
                    let stream = pattern.note(at, length);
                    if n < 5 {
                        assert_eq!(stream, Stream::Backward { start: n * block }, "{block} {n} {request}");
                    }
                }
            }
        }
    }

    #[test]
    fn constant_distances_are_a_stream_with_strides() {
        for (stride, length) in [(M, 4 * K), (8 * M, M), (100 * K, 16 * K)] {
            let got = after((0..6).map(|n| (n * stride, length)));
            assert_eq!(got, Stream::Strided { start: 5 * stride, length, stride: stride as i64 });
            let got = after((0..6).rev().map(|n| (n * stride, length)));
            assert_eq!(got, Stream::Strided { start: 0, length, stride: -(stride as i64) });
        }
    }

    #[test]
    fn a_stream_that_ends_in_random_reads_is_found_out_at_once() {
        let mut pattern = ReadPattern::default();
        (0..64).for_each(|n| assert_eq!(pattern.note(n * M, M), Stream::Forward));
        for offset in [7 * M, 40 * M, 21 * M, 3 * M] {
            assert_eq!(pattern.note(offset, 4 * K), Stream::Scattered);
        }
    }

    proptest! {
        #[test]
        fn any_reads_are_taken(reads in prop::collection::vec((any::<u64>(), any::<u32>()), 1..100)) {
            let mut pattern = ReadPattern::default();
            for (offset, length) in reads {
                pattern.note(offset, length.into());
            }
        }

        #[test]
        fn random_reads_of_a_large_file_are_not_taken_for_a_stream(blocks in prop::collection::vec(1u64..1 << 18, 4..50)) {
            let mut pattern = ReadPattern::default();
            let mut before: Vec<u64> = Vec::new();
            for block in blocks {
                let offset = block * 4 * K;
                let stream = pattern.note(offset, 4 * K);
                // But for neighbours, and for distances that are the same by chance.
                let is_near = before.last().is_some_and(|last| last.abs_diff(offset) <= SLACK_BYTES);
                let by_chance = matches!(stream, Stream::Strided { .. } | Stream::Backward { .. });
                prop_assert!(stream == Stream::Scattered || is_near || by_chance);
                before.push(offset);
            }
        }
    }
}
