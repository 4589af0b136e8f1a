//! What can be wrong with a configuration, in words an operator can act on:
//! where it stands, which key, what is allowed, what was probably meant.

use std::{fmt, net::SocketAddr};

use thiserror::Error;

use super::{
    address::AddressError,
    key_set::KeySetError,
    keys::{Key, LISTENER},
    listeners::ListenerSettings,
    passwords::LineError,
};
use crate::base::limits::LISTEN_ADDRESSES_MAX;

/// Every problem of one configuration, never none.
#[derive(Debug, Error)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        debug_assert!(!problems.is_empty(), "an error without a problem");
        Self(problems)
    }

    /// The problems in the order in which the sources are read.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// One thing that is wrong, and where it stands.
#[derive(Debug, Error)]
#[error("{origin}: {fault}")]
pub struct Problem {
    origin: Origin,
    key: String,
    fault: Fault,
}

impl Problem {
    pub(super) fn new(origin: Origin, key: &str, fault: Fault) -> Self {
        Self { origin, key: key.to_owned(), fault }
    }

    /// Whether the value of `key` is in doubt because of this problem.
    pub(super) fn concerns(&self, key: &str) -> bool {
        let meant = match &self.fault {
            Fault::UnknownKey { nearest: Some(nearest), .. }
            | Fault::UnknownVariable { nearest: Some(nearest) } => nearest.name,
            _ => &self.key,
        };
        let section = meant.split_once('.').map(|(section, _)| section);
        // A syntax error may hide any key.
        meant == key
            || section == Some(key)
            || matches!(self.fault, Fault::Syntax(_) | Fault::Unreadable(_))
    }

    pub(super) fn line(&self) -> Option<usize> {
        self.origin.line
    }

    pub(super) fn is_syntax(&self) -> bool {
        matches!(self.fault, Fault::Syntax(_))
    }
}

/// Where a value stands: `FILE:LINE`, a variable, or a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    label: String,
    line: Option<usize>,
    column: Option<usize>,
}

impl Origin {
    pub(super) fn new(label: &str, line: Option<usize>) -> Self {
        Self { label: label.to_owned(), line, column: None }
    }

    /// A place in a file, to the character.
    pub(super) fn at(label: &str, line: usize, column: usize) -> Self {
        Self { column: Some(column), ..Self::new(label, Some(line)) }
    }

    /// The origin of what nobody wrote.
    pub(super) fn built_in() -> Self {
        Self::new("default", None)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)?;
        for place in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{place}")?;
        }
        Ok(())
    }
}

/// The kinds of problem.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("not valid TOML: {0}")]
    Syntax(String),
    #[error("{more} more such mistakes: is it a TOML file at all?")]
    NotToml { more: usize },
    #[error("unknown key {name:?}; {}", suggestion(*nearest, section, Key::name_quoted))]
    UnknownKey { name: String, section: String, nearest: Option<&'static Key> },
    #[error("unknown variable; {}", suggestion(*nearest, "", Key::variable))]
    UnknownVariable { nearest: Option<&'static Key> },
    #[error("unknown section [{name}]; {}", sections(*nearest))]
    UnknownSection { name: String, nearest: Option<&'static str> },
    #[error("{name:?} is a section; write its keys below a line [{name}]")]
    IsSection { name: &'static str },
    #[error("must have the form KEY=VALUE, for example limits.inflight_max=100")]
    NotAssignment,
    #[error("redirect is set, but there is no server_reference to send clients to")]
    RedirectNowhere,
    #[error("is not valid UTF-8")]
    NotText,
    #[error("{name} = {found}, but it must be {allowed}{}", did_you_mean(*nearest))]
    Value { name: &'static str, allowed: String, found: String, nearest: Option<&'static str> },
    #[error("{name}: {text:?}: {why}; it must be {allowed}")]
    Text { name: &'static str, allowed: String, text: String, why: String },
    #[error("unknown key {name:?} of a listener; {}", of_listener(*nearest))]
    UnknownListenerKey { name: String, nearest: Option<&'static Key<ListenerSettings>> },
    #[error("listeners stand in the file, each in a section [[{LISTENER}]]")]
    IsListeners,
    #[error("{0}")]
    Listener(String),
    #[error("the file named by password_file cannot be read: {0}")]
    UnreadablePasswords(String),
    #[error(transparent)]
    PasswordLine(LineError),
    #[error("the file named by acl_file cannot be read: {0}")]
    UnreadableAcl(String),
    #[error("{0}")]
    AclLine(String),
    #[error("the file named by auth.jwt_keys_file cannot be read: {0}")]
    UnreadableKeys(String),
    #[error("{0}")]
    KeySet(KeySetError),
    #[error("the file named by the variable cannot be read: {0}")]
    UnreadableValue(String),
    #[error("{chain} has {method:?}, but nothing is set that it could check clients with")]
    MethodUnknown { chain: String, method: &'static str },
    #[error("auth.chain lacks {method:?}, but there are settings for it, which would do nothing")]
    MethodUnused { method: &'static str },
    #[error("{name}: the value {why} (it is a secret and not shown)")]
    Secret { name: &'static str, why: String },
    #[error(transparent)]
    Address(AddressError),
    #[error("listen address {text:?} is the same as {earlier:?} (both are {both})")]
    SameAddress { text: String, earlier: String, both: String },
    #[error(
        "listen stands for {count} socket addresses, but at most {LISTEN_ADDRESSES_MAX} are allowed"
    )]
    TooManyAddresses { count: usize },
    #[error("relaxed listener {text:?} ({address}) is not among the addresses of listen")]
    NotListenedOn { text: String, address: SocketAddr },
    #[error(
        "storage_bytes_max = {bytes} is too small for {shards} shards, which need {needed}: raise \
         it, or start fewer shards with --shards"
    )]
    StorageTooSmall { bytes: u64, shards: usize, needed: u64 },
    #[error(
        "listen address {text:?} ({address}) is open to other machines, but clients need no \
         authentication: anybody could publish and subscribe. Name users in `password_file`, or to \
         allow that, set `allow_anonymous = true` (or --set allow_anonymous=true)"
    )]
    OpenToAll { text: String, address: SocketAddr },
}

fn suggestion(nearest: Option<&Key>, section: &str, name: fn(&Key) -> String) -> String {
    match nearest {
        Some(key) => format!("did you mean {} ({})?", name(key), key.allowed()),
        None => {
            let known: Vec<_> = Key::all()
                .filter(|key| key.name.strip_prefix(section).is_some_and(|n| !n.contains('.')))
                .map(|key| name(key).replace('"', ""))
                .collect();
            let others = match section {
                "" => format!(", and those of the sections [{}]", Key::SECTIONS.join("], [")),
                _ => String::new(),
            };
            format!("known are {}{others}", known.join(", "))
        }
    }
}

fn of_listener(nearest: Option<&Key<ListenerSettings>>) -> String {
    match nearest {
        Some(key) => format!("did you mean {:?} ({})?", key.local_name(), key.allowed()),
        None => {
            let known: Vec<_> = Key::of_listener().iter().map(|key| key.local_name()).collect();
            format!("known are {}", known.join(", "))
        }
    }
}

fn sections(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("did you mean [{name}]?"),
        None => format!("known are [{}]", Key::SECTIONS.join("], [")),
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// The candidate that `text` most resembles, if it resembles any. The order of
/// words does not count: `max_inflight` finds `inflight_max`.
pub(super) fn nearest<T: Copy>(
    text: &str,
    candidates: impl IntoIterator<Item = T>,
    name: impl Fn(T) -> String,
) -> Option<T> {
    let likeness = |candidate: &str| {
        strsim::jaro_winkler(text, candidate)
            .max(strsim::jaro_winkler(&sorted_words(text), &sorted_words(candidate)))
    };
    candidates
        .into_iter()
        .map(|candidate| (likeness(&name(candidate)), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

fn sorted_words(text: &str) -> String {
    let mut words: Vec<_> = text.split('_').collect();
    words.sort_unstable();
    words.join("_")
}

/// Below this likeness (0 to 1) a suggestion confuses more than it helps.
const LIKENESS_MIN: f64 = 0.82;
