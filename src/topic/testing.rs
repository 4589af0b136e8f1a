//! Seeded random topics and filters for the tests of this module: few distinct
//! levels, so that they meet, and those that byte order sorts oddly.

use super::TopicName;

/// Xorshift64; the seed must not be 0.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }

    /// A Topic Name.
    pub(super) fn topic(&mut self) -> String {
        loop {
            let depth = self.below(4) + 1;
            let levels: Vec<_> = (0..depth).map(|_| self.level()).collect();
            let text = levels.join("/");
            if !text.is_empty() {
                return text;
            }
        }
    }

    /// An ordinary Topic Filter, exact or not.
    pub(super) fn filter(&mut self) -> String {
        let topic = self.topic();
        let mut levels: Vec<_> = topic.split('/').collect();
        for level in &mut levels {
            if self.below(3) == 0 {
                *level = "+";
            }
        }
        if self.below(3) == 0 {
            levels.push("#");
        }
        if self.below(30) == 0 { "#".to_owned() } else { levels.join("/") }
    }

    fn level(&mut self) -> &'static str {
        LEVELS[self.below(LEVELS.len() as u64) as usize]
    }
}

/// A text that is known to be a Topic Name.
pub(super) fn topic(text: &str) -> TopicName<'_> {
    TopicName::parse(text).unwrap()
}

const LEVELS: [&str; 8] = ["", "a", "a!", "a0", "b", "$s", "é", "longer than a node holds"];
