//! The file `meta` of a data directory: what must be known before a log can be read. It is replaced as a
//! whole, which is also how one generation of logs takes the place of another.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::shard::sync_directory;

/// What is in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    /// Says which shard a client or topic lives on.
    pub(crate) seed: u64,
    /// How many shards the logs are for.
    pub(crate) shards: u16,
    /// Which logs hold; all others are left-overs.
    pub(crate) generation: u64,
}

/// Why the file says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MetaError {
    /// It is of a later version of the format than this program knows.
    Newer(u64),
    /// It is not as it was written.
    Damaged,
}

impl Meta {
    /// The text of the file. The checksum covers all before it.
    fn text(self) -> String {
        let Self { seed, shards, generation } = self;
        let fields = format!(
            "{TITLE}{FORMAT_VERSION}\nseed {seed:016x}\nshards {shards}\ngeneration {generation}\n"
        );
        let checksum = crc32fast::hash(fields.as_bytes());
        format!("{fields}checksum {checksum:08x}\n")
    }

    /// Reads what [`Meta::write`] has written.
    pub(crate) fn parse(text: &str) -> Result<Self, MetaError> {
        let version = text.strip_prefix(TITLE).and_then(|rest| rest.lines().next()?.parse().ok());
        match version.ok_or(MetaError::Damaged)? {
            FORMAT_VERSION => Self::parse_fields(text).ok_or(MetaError::Damaged),
            newer if newer > FORMAT_VERSION => Err(MetaError::Newer(newer)),
            _ => Err(MetaError::Damaged),
        }
    }

    fn parse_fields(text: &str) -> Option<Self> {
        let mut lines = text.lines().skip(1);
        let mut field = |name| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let meta = Self {
            seed: u64::from_str_radix(field("seed")?, 16).ok()?,
            shards: field("shards")?.parse().ok()?,
            generation: field("generation")?.parse().ok()?,
        };
        // The checksum, and that each number stands there as it is written.
        (meta.shards > 0 && meta.text() == text).then_some(meta)
    }

    /// Puts it in the place of the one that is there, for good when this returns.
    pub(crate) fn write(self, directory: &Path) -> io::Result<()> {
        let new = directory.join(META_NEW);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, directory.join(META))?;
        sync_directory(directory)
    }
}

/// Its name.
pub(crate) const META: &str = "meta";
/// What it is called while it is written.
pub(crate) const META_NEW: &str = "meta.new";
const TITLE: &str = "ringmq data directory, format ";
const FORMAT_VERSION: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const META: Meta = Meta { seed: 0xAB, shards: 3, generation: 12 };

    #[test]
    fn what_is_written_is_read() {
        let text = META.text();
        assert!(text.starts_with(
            "ringmq data directory, format 1\nseed 00000000000000ab\nshards 3\ngeneration 12\n"
        ));
        assert_eq!(Meta::parse(&text), Ok(META));
    }

    #[test]
    fn any_other_text_is_damage() {
        let text = META.text();
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] ^= 1;
            let other = String::from_utf8(other).unwrap();
            assert!(Meta::parse(&other).is_err(), "{other}");
            assert_eq!(Meta::parse(&text[..at]), Err(MetaError::Damaged), "{at}");
        }
        assert_eq!(Meta::parse(&(text + "\n")), Err(MetaError::Damaged));
    }

    #[test]
    fn later_formats_are_told_from_damage() {
        let text = "ringmq data directory, format 2\nwhatever";
        assert_eq!(Meta::parse(text), Err(MetaError::Newer(2)));
        let text = "ringmq data directory, format 0\n";
        assert_eq!(Meta::parse(text), Err(MetaError::Damaged));
    }
}
