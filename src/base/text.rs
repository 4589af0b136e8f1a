//! A text that is shared and never changes: one word, one allocation, and a count. What is kept a
//! million times, such as a filter by its session and by the index of each shard, is told by it.

use std::{cmp, fmt, hash, ops};

use triomphe::ThinArc;

/// A text behind one word; cheap to clone and to send to another shard.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(ThinArc<(), u8>);

const _: () = assert!(size_of::<Option<Text>>() == 8, "it is kept a million times");

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("made of a str")
    }

    /// Its bytes: what comparing needs, without a look at whether they are UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.slice
    }
}

impl ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(ThinArc::from_header_and_slice((), text.as_bytes()))
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl hash::Hash for Text {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
