//! A map from ranges of file offsets to where their bytes are. Ranges never overlap; what is inserted later
//! lies over what was there.

use std::collections::BTreeMap;

/// Where the bytes of a range are.
pub trait Source: Clone {
    /// The same source, `bytes` further on.
    fn advanced(&self, bytes: u64) -> Self;
    /// Whether `next` goes on where this source ends after `length` bytes.
    fn continues_with(&self, length: u64, next: &Self) -> bool;
}

/// `length` bytes from `offset` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<S> {
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Where its bytes are.
    pub source: S,
}

impl<S> Piece<S> {
    /// Where it ends in the file, bytes.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct RangeMap<S> {
    pieces: BTreeMap<u64, (u64, S)>,
}

impl<S> Default for RangeMap<S> {
    fn default() -> Self {
        RangeMap { pieces: BTreeMap::new() }
    }
}

impl<S: Source> RangeMap<S> {
    /// Whether there is no piece.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Where the last piece ends; 0 without one.
    pub fn end(&self) -> u64 {
        self.pieces.last_key_value().map_or(0, |(start, (length, _))| start + length)
    }

    /// The same pieces, with the byte at `from` moved to `to` and the rest with it.
    pub fn moved(self, from: u64, to: u64) -> RangeMap<S> {
        let pieces = self.pieces.into_iter();
        RangeMap { pieces: pieces.map(|(start, piece)| (start - from + to, piece)).collect() }
    }

    /// All pieces by offset.
    pub fn iter(&self) -> impl Iterator<Item = Piece<S>> + '_ {
        self.pieces.iter().map(|(offset, (length, source))| Piece {
            offset: *offset,
            length: *length,
            source: source.clone(),
        })
    }

    /// The piece that covers `offset`, with its whole extent.
    pub fn at(&self, offset: u64) -> Option<Piece<S>> {
        let (start, (length, source)) = self.pieces.range(..=offset).next_back()?;
        (start + length > offset).then(|| Piece { offset: *start, length: *length, source: source.clone() })
    }

    /// The last piece that begins before `offset`, with its whole extent.
    pub fn last_before(&self, offset: u64) -> Option<Piece<S>> {
        let (start, (length, source)) = self.pieces.range(..offset).next_back()?;
        Some(Piece { offset: *start, length: *length, source: source.clone() })
    }

    /// Offset of the first piece that begins at or after `offset`.
    pub fn next_start(&self, offset: u64) -> Option<u64> {
        self.pieces.range(offset..).next().map(|(start, _)| *start)
    }

    /// The parts of pieces within `from..to`, by offset.
    pub fn within(&self, from: u64, to: u64) -> Vec<Piece<S>> {
        let first = self.pieces.range(..=from).next_back().map_or(from, |(start, _)| *start);
        let mut parts = Vec::new();
        if from >= to {
            return parts;
        }
        for (start, (length, source)) in self.pieces.range(first..to) {
            let (a, b) = ((*start).max(from), (start + length).min(to));
            if a < b {
                parts.push(Piece { offset: a, length: b - a, source: source.advanced(a - start) });
            }
        }
        parts
    }

    /// Forgets `from..to`.
    pub fn remove(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let first = self.pieces.range(..=from).next_back().map_or(from, |(start, _)| *start);
        let hit: Vec<u64> = self.pieces.range(first..to).map(|(start, _)| *start).collect();
        for start in hit {
            let Some((length, source)) = self.pieces.remove(&start) else { continue };
            let end = start + length;
            if start < from {
                self.pieces.insert(start, (from.min(end) - start, source.clone()));
            }
            if end > to {
                let kept = to.max(start);
                self.pieces.insert(kept, (end - kept, source.advanced(kept - start)));
            }
        }
    }

    /// Lays a piece over what is there; joins it to its left neighbour when it goes on where that ends.
    pub fn insert(&mut self, piece: Piece<S>) {
        if piece.length == 0 {
            return;
        }
        self.remove(piece.offset, piece.end());
        if let Some((_, (length, source))) = self
            .pieces
            .range_mut(..piece.offset)
            .next_back()
            .filter(|(start, (length, _))| **start + *length == piece.offset)
            && source.continues_with(*length, &piece.source)
        {
            *length += piece.length;
            return;
        }
        self.pieces.insert(piece.offset, (piece.length, piece.source));
    }

    /// Lays every piece of `upper` over this map.
    pub fn overlay(&mut self, upper: RangeMap<S>) {
        for (offset, (length, source)) in upper.pieces {
            self.insert(Piece { offset, length, source });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A byte source: (which write, offset within it).
    #[derive(Clone, Debug, PartialEq)]
    struct Write {
        id: usize,
        at: u64,
    }

    impl Source for Write {
        fn advanced(&self, bytes: u64) -> Self {
            Write { id: self.id, at: self.at + bytes }
        }
        fn continues_with(&self, length: u64, next: &Self) -> bool {
            self.id == next.id && self.at + length == next.at
        }
    }

    const SIZE: u64 = 64;

    proptest! {
        #[test]
        fn agrees_with_an_array_of_bytes(steps in prop::collection::vec((0..SIZE, 1..20u64, any::<bool>()), 1..60)) {
            let mut map = RangeMap::default();
            let mut model = vec![None; (SIZE + 20) as usize];
            for (id, (offset, length, remove)) in steps.into_iter().enumerate() {
                if remove {
                    map.remove(offset, offset + length);
                } else {
                    map.insert(Piece { offset, length, source: Write { id, at: 0 } });
                }
                for i in 0..length {
                    model[(offset + i) as usize] = (!remove).then_some((id, i));
                }
            }
            let mut got = vec![None; model.len()];
            for piece in map.within(0, SIZE + 20) {
                for i in 0..piece.length {
                    let slot = &mut got[(piece.offset + i) as usize];
                    prop_assert!(slot.is_none(), "pieces overlap");
                    *slot = Some((piece.source.id, piece.source.at + i));
                }
            }
            prop_assert_eq!(&got, &model);
            for (offset, expected) in model.iter().enumerate() {
                let at = map.at(offset as u64).map(|p| {
                    let s = p.source.advanced(offset as u64 - p.offset);
                    (s.id, s.at)
                });
                prop_assert_eq!(at, *expected);
            }
        }
    }

    #[test]
    fn sequential_writes_to_one_source_become_one_piece() {
        let mut map = RangeMap::default();
        for i in 0..10 {
            map.insert(Piece { offset: i * 4, length: 4, source: Write { id: 0, at: i * 4 } });
        }
        assert_eq!(map.iter().count(), 1);
    }
}
