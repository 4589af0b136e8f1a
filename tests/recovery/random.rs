//! Repeatable pseudo-random numbers (xorshift64*), so that a run has a seed.

pub(crate) struct Random(u64);

impl Random {
    /// Different streams of one seed are independent.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random =
            Self((seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(2) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
