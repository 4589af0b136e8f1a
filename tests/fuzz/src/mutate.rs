//! Variants of inputs without a fuzzing engine, the same ones in every run: for `cargo test`.

/// Xorshift64.
pub struct Random(u64);

impl Random {
    /// The seed must not be 0.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % bound.max(1) as u64) as usize
    }

    /// An input out of one or two of the corpus, with a few changes.
    ///
    /// # Panics
    /// If the corpus is empty.
    pub fn variant(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let other = &corpus[self.below(corpus.len())];
            self.change(&mut bytes, other);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let end = (at + self.below(16)).min(bytes.len());
        let from = self.below(other.len() + 1);
        let until = (from + self.below(64)).min(other.len());
        match self.below(8) {
            0 => drop(bytes.splice(at..end, other[from..until].iter().copied())),
            1 => drop(bytes.splice(at.., other[from..].iter().copied())),
            2 => bytes.insert(at, self.below(256) as u8),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            change => {
                let Some(byte) = bytes.get_mut(at) else { return };
                *byte = match change {
                    5 => *byte ^ 1 << self.below(8),
                    6 => ODD_BYTES[self.below(ODD_BYTES.len())],
                    _ => byte.wrapping_add(self.below(9) as u8).wrapping_sub(4),
                };
            }
        }
    }
}

/// Longest variant.
const BYTES_MAX: usize = 4096;

/// Where lengths, flags and syntax turn.
const ODD_BYTES: [u8; 12] =
    [0x00, 0x01, 0x02, 0x7F, 0x80, 0xFF, 0xC0, b'/', b'+', b'#', b'$', b'\n'];
