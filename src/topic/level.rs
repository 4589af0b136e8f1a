//! The text of one level of a filter, short ones without an allocation of their own.

/// One level, in as many bytes as a fat pointer.
pub(super) enum Level {
    /// So many bytes of the array.
    Short(u8, [u8; SHORT_MAX]),
    Long(Box<Box<str>>),
}

const _: () = assert!(size_of::<Level>() == 16, "each level of a million filters has one");

impl Level {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Short(..) => std::str::from_utf8(self.as_bytes()).expect("made of a str"),
            Self::Long(text) => text,
        }
    }

    /// Whether it is this text.
    pub(super) fn is(&self, text: &str) -> bool {
        *self.as_bytes() == *text.as_bytes()
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => &bytes[..usize::from(*len)],
            Self::Long(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for Level {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT_MAX];
        match bytes.get_mut(..text.len()) {
            Some(start) => {
                start.copy_from_slice(text.as_bytes());
                Self::Short(text.len() as u8, bytes)
            }
            None => Self::Long(Box::new(text.into())),
        }
    }
}

/// Numbers and short words.
const SHORT_MAX: usize = 14;
