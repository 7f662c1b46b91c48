//! What a file's content is made of, as seen through its layers: staged changes over those being published
//! over the published base.

use crate::file::FileState;
use crate::layer::{BlobSlice, Layer, Written};
use crate::range_map::Piece;
use bytes::Bytes;

/// Where a part of a read comes from.
pub(crate) enum Part {
    /// Bytes at hand.
    Bytes(Bytes),
    /// Bytes of a blob.
    Blob { slice: BlobSlice, length: u64 },
    /// Zeros.
    Hole(u64),
}

/// Takes the parts of a range, in order and without gaps.
trait Visitor {
    /// Bytes that were written here.
    fn written(&mut self, piece: &Piece<Written>);
    /// Bytes of the published base.
    fn blob(&mut self, piece: Piece<BlobSlice>);
    /// Bytes that nobody has written.
    fn hole(&mut self, length: u64);
}

impl Visitor for Vec<Part> {
    fn written(&mut self, piece: &Piece<Written>) {
        let Some(buffer) = &piece.source.buffer else { return self.hole(piece.length) };
        // Bytes first: once they are gone, the blob is known.
        self.push(match buffer.copy(piece.source.at, piece.length as usize) {
            Some(bytes) => Part::Bytes(bytes),
            None => {
                let blob = buffer.stored().expect("bytes leave a buffer only after its blob is known");
                Part::Blob { slice: BlobSlice { blob, at: piece.source.at }, length: piece.length }
            }
        });
    }

    fn blob(&mut self, piece: Piece<BlobSlice>) {
        self.push(Part::Blob { slice: piece.source, length: piece.length });
    }

    fn hole(&mut self, length: u64) {
        self.push(Part::Hole(length));
    }
}

/// Counts bytes that are no holes.
struct Backed(u64);

impl Visitor for Backed {
    fn written(&mut self, piece: &Piece<Written>) {
        if piece.source.buffer.is_some() {
            self.0 += piece.length;
        }
    }

    fn blob(&mut self, piece: Piece<BlobSlice>) {
        self.0 += piece.length;
    }

    fn hole(&mut self, _: u64) {}
}

/// Looks for the first byte that is data, or in a hole.
struct Search {
    at: u64,
    wants_data: bool,
    found: Option<u64>,
}

impl Search {
    fn pass(&mut self, length: u64, is_data: bool) {
        if is_data == self.wants_data && self.found.is_none() {
            self.found = Some(self.at);
        }
        self.at += length;
    }
}

impl Visitor for Search {
    fn written(&mut self, piece: &Piece<Written>) {
        self.pass(piece.length, piece.source.buffer.is_some());
    }

    fn blob(&mut self, piece: Piece<BlobSlice>) {
        self.pass(piece.length, true);
    }

    fn hole(&mut self, length: u64) {
        self.pass(length, false);
    }
}

/// How far a search has come.
pub(crate) enum Found {
    /// Here it is.
    At(u64),
    /// Not before this offset, where what is known of the content ends.
    NotBefore(u64),
    /// Nowhere; the file ends here.
    End(u64),
}

impl FileState {
    /// Where `from..to` comes from; `to` is within the size. `None` when the base is not known that far.
    pub fn parts(&self, from: u64, to: u64) -> Option<Vec<Part>> {
        let mut parts = Vec::new();
        self.visit(&mut parts, 0, from, to).then_some(parts)
    }

    /// How much of `from..to` is no hole; where that is not known, all of it counts.
    pub fn backed_within(&self, from: u64, to: u64) -> u64 {
        let to = to.min(self.size);
        if from >= to {
            return 0;
        }
        let mut backed = Backed(0);
        if self.visit(&mut backed, 0, from, to) { backed.0 } else { to - from }
    }

    /// Looks for data, or for a hole, at `from` or after it, as far as the content is known.
    pub fn search(&self, from: u64, wants_data: bool) -> Found {
        if from >= self.size {
            return Found::End(self.size);
        }
        let known_to = if self.base_known_to >= self.attr.size { self.size } else { self.base_known_to };
        let known_to = known_to.min(self.size);
        let mut search = Search { at: from, wants_data, found: None };
        if self.stale || known_to <= from || !self.visit(&mut search, 0, from, known_to) {
            return Found::NotBefore(from);
        }
        match search.found {
            Some(at) => Found::At(at),
            None if known_to == self.size => Found::End(self.size),
            None => Found::NotBefore(known_to),
        }
    }

    /// Shows `from..to` as seen from layer `depth` (0 dirty, 1 in flight, 2 base) downwards; `false` when the
    /// base is not known that far.
    fn visit(&self, out: &mut impl Visitor, depth: usize, from: u64, to: u64) -> bool {
        let layer = match depth {
            0 => &self.dirty,
            1 => match &self.in_flight {
                Some(layer) => layer,
                None => return self.visit(out, 2, from, to),
            },
            _ => return self.visit_base(out, from, to),
        };
        let mut at = from;
        for piece in layer.pieces.within(from, to) {
            if !self.visit_below(out, layer, depth, at, piece.offset) {
                return false;
            }
            at = piece.end();
            out.written(&piece);
        }
        self.visit_below(out, layer, depth, at, to)
    }

    /// What shows through `layer` in `from..to`: nothing beyond its truncation.
    fn visit_below(&self, out: &mut impl Visitor, layer: &Layer, depth: usize, from: u64, to: u64) -> bool {
        if from >= to {
            return true;
        }
        let visible = layer.truncate_to.map_or(to, |cut| cut.clamp(from, to));
        if from < visible && !self.visit(out, depth + 1, from, visible) {
            return false;
        }
        if visible < to {
            out.hole(to - visible);
        }
        true
    }

    fn visit_base(&self, out: &mut impl Visitor, from: u64, to: u64) -> bool {
        if self.stale || self.base_known_to < to.min(self.attr.size) {
            return false;
        }
        let mut at = from;
        for piece in self.base.within(from, to) {
            if at < piece.offset {
                out.hole(piece.offset - at);
            }
            at = piece.end();
            out.blob(piece);
        }
        if at < to {
            out.hole(to - at);
        }
        true
    }
}
