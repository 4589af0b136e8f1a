//! Topic filters: what a client subscribes to (MQTT 5.0 sections 4.7 and 4.8.2).

use super::TopicName;
use crate::base::{Text, limits::TOPIC_LEVELS_MAX};

/// A valid Topic Filter as the client wrote it, a prefix such as `$share/NAME/`
/// included. Cheap to clone and to send to another shard. No more is kept than
/// its text, which says all about it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TopicFilter(Text);

/// What a filter's prefix asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilterKind {
    /// No prefix: an ordinary subscription.
    Plain,
    /// `$share/NAME/FILTER` (MQTT 5.0 section 4.8.2).
    Shared,
    /// `$queue/FILTER`: a shared subscription of all that ask for it so.
    Queue,
    /// `$exclusive/FILTER`: held by one session at a time.
    Exclusive,
    /// `$request/FILTER`: retained messages only, and those only when asked for.
    Request,
}

/// Why a text is not a Topic Filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterError {
    /// MQTT-4.7.3-1.
    #[error("topic filter is empty")]
    Empty,
    /// MQTT-4.7.1-1 or MQTT-4.7.1-2.
    #[error("wildcard does not fill a level, or # is not the last")]
    MisplacedWildcard,
    /// MQTT-4.7.3-2.
    #[error("topic filter holds U+0000")]
    Null,
    /// MQTT-4.8.2-1 or MQTT-4.8.2-2.
    #[error("shared subscription is not $share/NAME/FILTER")]
    MalformedShare,
    /// More than [`TOPIC_LEVELS_MAX`] levels.
    #[error("topic filter has too many levels")]
    TooDeep,
    /// `$queue`, `$exclusive` or `$request` alone.
    #[error("prefix of a subscription without a filter behind it")]
    PrefixAlone,
    /// One prefix behind another, as in `$share/NAME/$request/FILTER`.
    #[error("subscription with two prefixes")]
    TwoPrefixes,
}

impl FilterError {
    /// Whether the standard has no such filter. The others mean nothing here only.
    pub const fn is_malformed(self) -> bool {
        !matches!(self, Self::PrefixAlone | Self::TwoPrefixes)
    }
}

impl FilterKind {
    /// The kind of a text, if that is a Topic Filter. Allocates nothing.
    pub(super) fn of(text: &str) -> Result<Self, FilterError> {
        check(text)
    }

    /// What the first level of a text asks for where a filter starts with it.
    pub(super) fn of_prefix(text: &str) -> Self {
        match text.split('/').next().unwrap_or_default() {
            "$share" => Self::Shared,
            QUEUE => Self::Queue,
            "$exclusive" => Self::Exclusive,
            "$request" => Self::Request,
            _ => Self::Plain,
        }
    }
}

impl TopicFilter {
    /// Checks a text that is UTF-8 and at most 65,535 bytes already.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// Whether a text would be one. Allocates nothing.
    pub(crate) fn check(text: &str) -> Result<(), FilterError> {
        check(text).map(|_| ())
    }

    /// The filter as the client wrote it.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The part that topics are matched against.
    pub fn pattern(&self) -> &str {
        &self.as_str()[self.start()..]
    }

    /// Whether that part is this text.
    pub(super) fn has_pattern(&self, pattern: &str) -> bool {
        self.0.as_bytes()[self.start()..] == *pattern.as_bytes()
    }

    /// What its prefix asks for.
    pub fn kind(&self) -> FilterKind {
        match self.0.as_bytes() {
            [b'$', ..] => FilterKind::of_prefix(self.as_str()),
            _ => FilterKind::Plain,
        }
    }

    /// Where the filter proper starts: behind the prefix, if there is one.
    fn start(&self) -> usize {
        match self.0.as_bytes() {
            [b'$', ..] => read_prefix(self.as_str()).map_or(0, |(_, start)| start),
            _ => 0,
        }
    }

    /// The share name, if this is a shared subscription; `$queue` is its own.
    pub fn share_name(&self) -> Option<&str> {
        match self.kind() {
            FilterKind::Shared => Some(&self.as_str()[SHARE_PREFIX.len()..self.start() - 1]),
            FilterKind::Queue => Some(QUEUE),
            FilterKind::Plain | FilterKind::Exclusive | FilterKind::Request => None,
        }
    }

    /// A copy whose text is its own: no other shard touches its reference
    /// count, so that cloning it for each publication costs no shared cache line.
    pub(super) fn unshared(&self) -> Self {
        Self(self.as_str().into())
    }

    /// Whether the filter proper holds `+` or `#`.
    pub fn has_wildcard(&self) -> bool {
        self.0.as_bytes()[self.start()..].iter().any(|byte| matches!(byte, b'+' | b'#'))
    }

    /// Whether a message published to `topic` is meant by this filter.
    pub fn matches(&self, topic: TopicName<'_>) -> bool {
        let pattern = self.pattern();
        if topic.is_system() && pattern.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.levels();
        for level in pattern.split('/') {
            match (level, names.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (level, Some(name)) if level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

impl std::fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What the prefix of a filter asks for.
fn check(text: &str) -> Result<FilterKind, FilterError> {
    if text.is_empty() {
        return Err(FilterError::Empty);
    }
    let (kind, start) = read_prefix(text)?;
    check_levels(&text[start..])?;
    Ok(kind)
}

/// What the prefix asks for, and where the filter proper starts.
fn read_prefix(text: &str) -> Result<(FilterKind, usize), FilterError> {
    let kind = FilterKind::of_prefix(text);
    let start = match kind {
        FilterKind::Plain => return Ok((kind, 0)),
        FilterKind::Shared => {
            let rest = text.strip_prefix(SHARE_PREFIX).ok_or(FilterError::MalformedShare)?;
            SHARE_PREFIX.len() + share_name_len(rest)? + 1
        }
        FilterKind::Queue | FilterKind::Exclusive | FilterKind::Request => match text.find('/') {
            Some(slash) if slash + 1 < text.len() => slash + 1,
            _ => return Err(FilterError::PrefixAlone),
        },
    };
    match FilterKind::of_prefix(&text[start..]) {
        FilterKind::Plain => Ok((kind, start)),
        _ => Err(FilterError::TwoPrefixes),
    }
}

/// Length of the share name at the start of `rest`, which follows `$share/`.
fn share_name_len(rest: &str) -> Result<usize, FilterError> {
    match rest.split_once('/') {
        Some((name, filter))
            if !name.is_empty() && !filter.is_empty() && !name.contains(['+', '#', '\0']) =>
        {
            Ok(name.len())
        }
        _ => Err(FilterError::MalformedShare),
    }
}

fn check_levels(pattern: &str) -> Result<(), FilterError> {
    let mut levels = pattern.split('/');
    let mut count = 0;
    while let Some(level) = levels.next() {
        count += 1;
        match level {
            "+" => {}
            "#" if levels.next().is_none() => {}
            "#" => return Err(FilterError::MisplacedWildcard),
            _ if level.contains(['+', '#']) => return Err(FilterError::MisplacedWildcard),
            _ if level.contains('\0') => return Err(FilterError::Null),
            _ => {}
        }
    }
    if count > TOPIC_LEVELS_MAX {
        return Err(FilterError::TooDeep);
    }
    Ok(())
}

const SHARE_PREFIX: &str = "$share/";
const QUEUE: &str = "$queue";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for (text, expected) in [
            ("", Some(FilterError::Empty)),
            ("#", None),
            ("+", None),
            ("a/#", None),
            ("a/+/b", None),
            ("/", None),
            ("a#", Some(FilterError::MisplacedWildcard)),
            ("a/#/b", Some(FilterError::MisplacedWildcard)),
            ("a+/b", Some(FilterError::MisplacedWildcard)),
            ("a\0", Some(FilterError::Null)),
            ("$share", Some(FilterError::MalformedShare)),
            ("$share/", Some(FilterError::MalformedShare)),
            ("$share/x", Some(FilterError::MalformedShare)),
            ("$share/x/", Some(FilterError::MalformedShare)),
            ("$share//a", Some(FilterError::MalformedShare)),
            ("$share/x+/a", Some(FilterError::MalformedShare)),
            ("$share/x/a", None),
            ("$share/x//", None),
            ("$sharex", None),
            ("$queue/a/#", None),
            ("$exclusive//", None),
            ("$request/+", None),
            ("$request", Some(FilterError::PrefixAlone)),
            ("$queue/", Some(FilterError::PrefixAlone)),
            ("$exclusive/a#", Some(FilterError::MisplacedWildcard)),
            ("$share/x/$request/a", Some(FilterError::TwoPrefixes)),
            ("$share/x/$request", Some(FilterError::TwoPrefixes)),
            ("$request/$share/x/a", Some(FilterError::TwoPrefixes)),
            ("$queue/$SYS/#", None),
            ("$queues/a", None),
        ] {
            assert_eq!(TopicFilter::parse(text).err(), expected, "{text:?}");
        }
    }

    #[test]
    fn share_name_and_pattern_are_parts() {
        let filter = TopicFilter::parse("$share/g/a/+").unwrap();
        assert_eq!((filter.share_name(), filter.pattern()), (Some("g"), "a/+"));
        assert!(filter.has_wildcard());
        for (text, kind, share_name) in [
            ("$queue/a/b", FilterKind::Queue, Some("$queue")),
            ("$exclusive/a/b", FilterKind::Exclusive, None),
            ("$request/a/b", FilterKind::Request, None),
        ] {
            let filter = TopicFilter::parse(text).unwrap();
            assert_eq!((filter.kind(), filter.share_name()), (kind, share_name), "{text}");
            assert_eq!((filter.as_str(), filter.pattern()), (text, "a/b"));
        }
        let plain = TopicFilter::parse("a/b").unwrap();
        assert_eq!((plain.share_name(), plain.pattern()), (None, "a/b"));
    }

    #[test]
    fn filters_match_topics() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/", false),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("+/+", "/x", true),
            ("/+", "/x", true),
            ("+", "/x", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("$share/g/a/#", "a/b", true),
        ] {
            let filter = TopicFilter::parse(filter).unwrap();
            let topic = TopicName::parse(topic).unwrap();
            assert_eq!(filter.matches(topic), expected, "{filter} {topic}");
        }
    }
}
