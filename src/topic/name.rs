//! Topic names: what a message is published to (MQTT 5.0 section 4.7).

use super::FilterKind;
use crate::base::limits::TOPIC_LEVELS_MAX;

/// A valid Topic Name: not empty, no wildcard, no U+0000, at most
/// [`TOPIC_LEVELS_MAX`] levels. What a client sends may also be a request with
/// wildcards, see [`Self::parse_received`]; no message is kept under such a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct TopicName<'a>(&'a str);

/// Why a text is not a Topic Name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopicError {
    /// MQTT-4.7.3-1.
    #[error("topic is empty")]
    Empty,
    /// MQTT-4.7.0-1.
    #[error("topic holds a wildcard")]
    Wildcard,
    /// MQTT-4.7.3-2.
    #[error("topic holds U+0000")]
    Null,
    /// More than [`TOPIC_LEVELS_MAX`] levels.
    #[error("topic has too many levels")]
    TooDeep,
}

impl<'a> TopicName<'a> {
    /// Checks a text that is UTF-8 and at most 65,535 bytes already.
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        let mut levels = 1;
        for byte in text.bytes() {
            match byte {
                b'+' | b'#' => return Err(TopicError::Wildcard),
                0 => return Err(TopicError::Null),
                b'/' => levels += 1,
                _ => {}
            }
        }
        if levels > TOPIC_LEVELS_MAX {
            return Err(TopicError::TooDeep);
        }
        Ok(Self(text))
    }

    /// The same for what a client publishes to. That may be `$request/FILTER`,
    /// wildcards included: it is for the server, which sends what matches.
    pub fn parse_received(text: &'a str) -> Result<Self, TopicError> {
        match Self::parse(text) {
            Err(TopicError::Wildcard) if is_request(text) => Ok(Self(text)),
            result => result,
        }
    }

    /// A text that was a Topic Name before, such as one out of a stored message.
    pub(crate) fn trusted(text: &'a str) -> Self {
        debug_assert!(Self::parse_received(text).is_ok());
        Self(text)
    }

    /// The whole name.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Its levels, first to last.
    pub fn levels(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/')
    }

    /// Whether filters that start with a wildcard pass it by (MQTT-4.7.2-1).
    pub fn is_system(self) -> bool {
        self.0.starts_with('$')
    }

    /// What it would ask for as the start of a filter; [`FilterKind::Plain`] for almost every name.
    pub fn prefix(self) -> FilterKind {
        if self.is_system() { FilterKind::of_prefix(self.0) } else { FilterKind::Plain }
    }
}

fn is_request(text: &str) -> bool {
    FilterKind::of(text) == Ok(FilterKind::Request)
}

impl std::fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for (text, expected) in [
            ("", Some(TopicError::Empty)),
            ("a/+/b", Some(TopicError::Wildcard)),
            ("a#", Some(TopicError::Wildcard)),
            ("a\0b", Some(TopicError::Null)),
            ("/", None),
            ("//", None),
            ("a b/\u{fffd}", None),
            ("$SYS/x", None),
        ] {
            assert_eq!(TopicName::parse(text).err(), expected, "{text:?}");
        }
        for (text, expected) in [
            ("$request/a/+/#", None),
            ("$request/a#", Some(TopicError::Wildcard)),
            ("$request/$share/g/#", Some(TopicError::Wildcard)),
            ("$requests/#", Some(TopicError::Wildcard)),
            ("$queue/#", Some(TopicError::Wildcard)),
            ("$request/+/\0", Some(TopicError::Wildcard)),
            ("$request/", None),
        ] {
            assert_eq!(TopicName::parse_received(text).err(), expected, "{text:?}");
            assert_eq!(TopicName::parse(text).is_ok(), text == "$request/");
        }
        let deepest = "/".repeat(TOPIC_LEVELS_MAX - 1);
        assert!(TopicName::parse(&deepest).is_ok());
        assert_eq!(TopicName::parse(&format!("{deepest}/")), Err(TopicError::TooDeep));
    }
}
