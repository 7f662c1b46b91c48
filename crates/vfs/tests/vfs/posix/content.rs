//! Content of a file that may be large and full of holes.

use std::collections::BTreeMap;

const BLOCK: u64 = 64 << 10;

/// Bytes, and which of them were written: the rest are holes.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub size: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
    /// Ranges that were written, start -> end: not overlapping, not touching.
    data: BTreeMap<u64, u64>,
}

impl Content {
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let end = offset.saturating_add(length).min(self.size);
        let mut all = vec![0; end.saturating_sub(offset) as usize];
        if offset >= end {
            return all;
        }
        for (at, block) in self.blocks.range(offset / BLOCK..=(end - 1) / BLOCK) {
            let (first, last) = (offset.max(at * BLOCK), end.min((at + 1) * BLOCK));
            all[(first - offset) as usize..(last - offset) as usize]
                .copy_from_slice(&block[(first - at * BLOCK) as usize..(last - at * BLOCK) as usize]);
        }
        all
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.fill(offset, end, |at, block| {
            block.copy_from_slice(&bytes[(at - offset) as usize..][..block.len()])
        });
        self.remove_data(offset, end);
        let mut range = (offset, end);
        if let Some((start, end)) = self.data.range(..offset).next_back().map(|(s, e)| (*s, *e))
            && end == offset
        {
            range.0 = start;
        }
        if let Some(right) = self.data.remove(&end) {
            range.1 = right;
        }
        self.data.insert(range.0, range.1);
        self.size = self.size.max(end);
    }

    /// Makes a hole; the size stays.
    pub fn punch(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let stored = self.blocks.last_key_value().map_or(0, |(at, _)| (at + 1) * BLOCK);
        self.remove_data(from, to);
        if from < to.min(stored) {
            let there: Vec<u64> =
                self.blocks.range(from / BLOCK..=(to.min(stored) - 1) / BLOCK).map(|b| *b.0).collect();
            for at in there {
                let (first, last) = (from.max(at * BLOCK), to.min((at + 1) * BLOCK));
                let block = self.blocks.get_mut(&at).expect("it was listed just now");
                block[(first - at * BLOCK) as usize..(last - at * BLOCK) as usize].fill(0);
            }
        }
    }

    pub fn truncate(&mut self, size: u64) {
        self.punch(size, u64::MAX);
        self.size = size;
    }

    /// Written ranges that overlap `from..to`, cut to it.
    pub fn data_within(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let cut = |(s, e): (&u64, &u64)| ((*s).max(from), (*e).min(to));
        self.data.iter().map(cut).filter(|(s, e)| s < e).collect()
    }

    /// SEEK_DATA: the first written byte from `offset` on.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        self.data_within(offset, self.size).first().map(|(start, _)| *start)
    }

    /// SEEK_HOLE: the first byte from `offset` on that was not written; the end counts as one.
    pub fn next_hole(&self, offset: u64) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let run = self.data_within(offset, self.size).into_iter().find(|(start, _)| *start == offset);
        Some(run.map_or(offset, |(_, end)| end))
    }

    /// Bytes that are no holes.
    pub fn covered(&self) -> u64 {
        self.data.iter().map(|(start, end)| end - start).sum()
    }

    fn fill(&mut self, from: u64, to: u64, write: impl Fn(u64, &mut [u8])) {
        for at in from / BLOCK..=(to - 1) / BLOCK {
            let (first, last) = (from.max(at * BLOCK), to.min((at + 1) * BLOCK));
            let block = self.blocks.entry(at).or_insert_with(|| vec![0; BLOCK as usize]);
            write(first, &mut block[(first - at * BLOCK) as usize..(last - at * BLOCK) as usize]);
        }
    }

    fn remove_data(&mut self, from: u64, to: u64) {
        let hit: Vec<(u64, u64)> =
            self.data.range(..to).filter(|(_, e)| **e > from).map(|(s, e)| (*s, *e)).collect();
        for (start, end) in hit {
            self.data.remove(&start);
            if start < from {
                self.data.insert(start, from);
            }
            if end > to {
                self.data.insert(to, end);
            }
        }
    }
}
