//! Access rules as an operator writes them: what a rule says, the file they stand in, and every text
//! about a wrong one. There are two forms of file, tables in TOML and what mosquitto reads.
//!
//! Who asks, and what the rules answer, is not known here.

mod mosquitto;
mod toml;

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
};

use super::{address_range::AddressRange, text_file::read_text};
use crate::base::{
    QoS,
    limits::{ACL_ERRORS_MAX, ACL_FILE_BYTES_MAX, TOPIC_LEVELS_MAX},
};

/// All access rules, in the order in which they decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRules {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Its form.
    pub form: AclForm,
    /// The first one that fits decides.
    pub rules: Vec<AclRule>,
    /// Whether what no rule fits is allowed. Never so in mosquitto's form.
    pub allows_rest: bool,
}

/// The form of a file of access rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclForm {
    /// `[[rule]]` tables.
    Toml,
    /// mosquitto's `acl_file`. Subscriptions are not restricted there, only what they bring.
    Mosquitto,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule {
    /// Where it begins, from 1 on.
    pub line: u32,
    /// Whether it allows or denies.
    pub allows: bool,
    /// What.
    pub actions: Actions,
    /// To whom.
    pub who: Who,
    /// On which topics.
    pub topics: Vec<AclTopic>,
    /// Highest QoS of what it allows: of a PUBLISH, or that a subscription is granted.
    pub qos_max: QoS,
    /// Whether it allows PUBLISH with RETAIN.
    pub retain: bool,
}

/// A set of what clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions(u8);

impl Actions {
    /// PUBLISH, and wills.
    pub const PUBLISH: Self = Self(1);
    /// SUBSCRIBE.
    pub const SUBSCRIBE: Self = Self(2);
    /// To be sent a message.
    pub const RECEIVE: Self = Self(4);
    const NONE: Self = Self(0);

    /// Those of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of the other one's are among them.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Whom a rule is for: every condition holds that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Users who have proven to be that; none: anybody.
    pub users: Vec<NamePattern>,
    /// Client Identifiers; none: any.
    pub clients: Vec<NamePattern>,
    /// Groups of which one is enough; none: any.
    pub groups: Vec<Box<str>>,
    /// Addresses of which one is enough; none: any.
    pub addresses: Vec<AddressRange>,
    /// Only clients that have not proven to be a user.
    pub is_anonymous: bool,
    /// Only clients without `+` and `#` in both names.
    pub has_plain_names: bool,
}

/// A name, or what it begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// The whole of it.
    Exact(Box<str>),
    /// Its beginning.
    Prefix(Box<str>),
}

impl NamePattern {
    /// A text that may end with `*`.
    fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.into()),
            None => Self::Exact(text.into()),
        }
    }

    /// Whether a name is meant.
    pub fn fits(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

/// A topic filter of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclTopic {
    /// As it is written.
    pub text: Box<str>,
    /// Its levels.
    pub levels: Box<[AclLevel]>,
}

/// One level of such a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AclLevel {
    /// This text.
    Name(Box<str>),
    /// `+`
    Any,
    /// `#`, the last one.
    AllBelow,
    /// Text with the client's own names in it.
    Own(Box<[Part]>),
}

/// A piece of a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(Box<str>),
    /// `%c`: its Client Identifier.
    Client,
    /// `%u`: the user it has proven to be.
    User,
}

impl AclTopic {
    /// Checks a filter. `%c` and `%u` stand for names if it `has_names`.
    fn parse(text: &str, has_names: bool) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("the topic filter is empty");
        }
        if text.split('/').count() > TOPIC_LEVELS_MAX {
            return Err("the topic filter has too many levels");
        }
        let mut levels = Vec::new();
        let mut texts = text.split('/').peekable();
        while let Some(level) = texts.next() {
            levels.push(match level {
                "+" => AclLevel::Any,
                "#" if texts.peek().is_none() => AclLevel::AllBelow,
                "#" => return Err("a # is not the last level of the topic filter"),
                _ if level.contains(['+', '#']) => {
                    return Err("a wildcard does not fill a level of the topic filter");
                }
                _ if level.contains('\0') => return Err("the topic filter holds U+0000"),
                _ if has_names && (level.contains("%c") || level.contains("%u")) => {
                    AclLevel::Own(parts(level))
                }
                _ => AclLevel::Name(level.into()),
            });
        }
        Ok(Self { text: text.into(), levels: levels.into() })
    }

    /// Whether a name of the client is a part of it.
    pub fn is_own(&self) -> bool {
        self.levels.iter().any(|level| matches!(level, AclLevel::Own(_)))
    }
}

fn parts(level: &str) -> Box<[Part]> {
    let mut parts = Vec::new();
    let mut rest = level;
    let next = |text: &str| text.find("%c").into_iter().chain(text.find("%u")).min();
    while let Some(at) = next(rest) {
        if at > 0 {
            parts.push(Part::Text(rest[..at].into()));
        }
        parts.push(if rest[at..].starts_with("%c") { Part::Client } else { Part::User });
        rest = &rest[at + 2..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    parts.into()
}

/// What is wrong with a file of access rules, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError {
    /// From 1 on.
    pub line: usize,
    /// From 1 on, in characters.
    pub column: usize,
    /// What.
    pub why: String,
}

impl AclRules {
    /// Reads a file's text. Its name tells the form: TOML if it ends in `.toml`, otherwise mosquitto's.
    ///
    /// # Errors
    /// What is wrong, in the order of the lines; the first [`ACL_ERRORS_MAX`] of it.
    pub fn parse(file: &Path, text: &str, allows_rest: bool) -> Result<Self, Vec<AclError>> {
        let is_toml = file.extension().is_some_and(|extension| extension == "toml");
        let (form, parsed) = match is_toml {
            true => (AclForm::Toml, toml::parse(text)),
            false => (AclForm::Mosquitto, mosquitto::parse(text)),
        };
        let rules = parsed.map_err(|mut errors| {
            errors.truncate(ACL_ERRORS_MAX);
            errors
        })?;
        Ok(Self { file: file.to_owned(), form, rules, allows_rest: allows_rest && is_toml })
    }
}

/// A rule in words, with the place where it stands.
impl fmt::Display for AclRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allows { "allow" } else { "deny" })?;
        let names = [
            (Actions::PUBLISH, "publish"),
            (Actions::SUBSCRIBE, "subscribe"),
            (Actions::RECEIVE, "receive"),
        ];
        let names = names.iter().filter(|(action, _)| self.actions.has(*action));
        for (at, (_, name)) in names.enumerate() {
            write!(f, "{} {name}", if at == 0 { "" } else { "," })?;
        }
        f.write_str(" on")?;
        for (at, topic) in self.topics.iter().take(TOPICS_SHOWN).enumerate() {
            write!(f, "{} {:?}", if at == 0 { "" } else { "," }, topic.text)?;
        }
        if self.topics.len() > TOPICS_SHOWN {
            write!(f, " and {} more", self.topics.len() - TOPICS_SHOWN)?;
        }
        Ok(())
    }
}

/// The text of such a file.
///
/// # Errors
/// It cannot be read, is too large, or is no text.
pub(super) fn read_acl_file(path: &Path) -> std::io::Result<String> {
    read_text(File::open(path)?, ACL_FILE_BYTES_MAX)
}

/// Topics of a rule that its description names.
const TOPICS_SHOWN: usize = 3;

#[cfg(test)]
mod tests;
