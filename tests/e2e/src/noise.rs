//! Contents that do not repeat and are the same for the same seed.

/// An endless stream of bytes.
pub struct Noise(u64);

impl Noise {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Fills `piece` with what comes next; the length has to be a multiple of 8 for pieces to follow each
    /// other without a gap.
    pub fn fill(&mut self, piece: &mut [u8]) {
        for word in piece.chunks_mut(8) {
            // xorshift64 (Marsaglia 2003)
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}

/// `length` bytes for `seed`.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Noise::new(seed).fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_in_pieces_or_at_once() {
        let mut pieces = vec![0; 64];
        let mut stream = Noise::new(7);
        pieces.chunks_mut(16).for_each(|piece| stream.fill(piece));
        assert_eq!(pieces, noise(7, 64));
        assert_ne!(pieces, noise(8, 64));
        assert_eq!(noise(7, 61), pieces[..61]);
    }
}
