//! What a configuration key is: it drives the file, the environment and `--set`
//! alike, every error text, `--help` and the README's table.
//!
//! Knows nothing of where a value comes from.

use std::{ops::RangeInclusive, path::PathBuf};

use super::{
    Settings, address::Endpoint, auth_table, listeners::ListenerSettings, problem::Origin, table,
    table_admission, table_limits, table_listener::LISTENER_KEYS,
};

/// One configuration key, of all settings or of those of one listener.
#[derive(Debug)]
pub(super) struct Key<S = Settings> {
    /// Dotted name, as in `--set`.
    pub(super) name: &'static str,
    /// What it takes and where that goes.
    pub(super) kind: Kind<S>,
    /// Its value as text; with the default settings, its default.
    pub(super) show: fn(&S) -> String,
    /// What it does: Markdown, one paragraph.
    pub(super) doc: &'static str,
}

/// What a key takes, and the setter of the value once that is checked.
#[derive(Debug)]
pub(super) enum Kind<S = Settings> {
    Switch(fn(&mut S, bool)),
    /// The setter answers `None` for a number that its field cannot hold.
    Number(RangeInclusive<u64>, fn(&mut S, u64) -> Option<()>),
    /// The setter gets the position in the list of names.
    Choice(&'static [&'static str], fn(&mut S, usize)),
    Directory(fn(&mut S, PathBuf)),
    /// Free text, checked by the setter, which says what is wrong with it.
    Text(fn(&mut S, &str) -> Result<(), String>),
    /// The same for what nobody is to see: no message shows it.
    Secret(fn(&mut S, &str) -> Result<(), String>),
    /// A list of texts of one form.
    List(List<S>),
    Addresses(fn(&mut S, Vec<(Origin, Endpoint)>)),
}

/// A list of texts of one form.
#[derive(Debug)]
pub(super) struct List<S = Settings> {
    /// The form, to follow "must be a list of".
    pub(super) form: &'static str,
    /// Empties the list: each source states all of it.
    pub(super) clear: fn(&mut S),
    /// Checks one text and adds it, or says what is wrong with it.
    pub(super) add: fn(&mut S, &str) -> Result<(), String>,
}

impl Key {
    /// Every key, in the order of the documentation.
    pub(super) fn all() -> impl Iterator<Item = &'static Self> + Clone {
        [
            table::LISTEN_KEYS,
            auth_table::KEYS,
            table::KEYS,
            table_limits::KEYS,
            table_admission::KEYS,
        ]
        .into_iter()
        .flatten()
    }

    /// The sections that keys stand in.
    pub(super) const SECTIONS: [&str; 3] = ["auth", "limits", "shared"];

    /// The key of that dotted name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        Key::all().find(|key| key.name == name)
    }

    /// The environment variable that sets the key.
    pub(super) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    fn default_text(&self) -> String {
        (self.show)(&Settings::default())
    }
}

/// What sections of listeners begin with, as the keys in them are called in messages.
pub(super) const LISTENER: &str = "listener";

impl Key<ListenerSettings> {
    /// Every key of a listener, in the order of the documentation.
    pub(super) fn of_listener() -> &'static [Self] {
        LISTENER_KEYS
    }

    fn default_text(&self) -> String {
        (self.show)(&ListenerSettings::new(Origin::built_in()))
    }
}

impl<S> Key<S> {
    /// The name within its section.
    pub(super) fn local_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The name in quotes, for messages.
    pub(super) fn name_quoted(&self) -> String {
        format!("{:?}", self.name)
    }

    /// What the key takes, to follow "must be".
    pub(super) fn allowed(&self) -> String {
        match &self.kind {
            Kind::Switch(_) => "true or false".to_owned(),
            Kind::Number(range, _) => {
                format!("a whole number from {} to {}", range.start(), range.end())
            }
            Kind::Choice(names, _) => format!("one of {}", names.join(", ")),
            Kind::Directory(_) => "the path of a directory".to_owned(),
            Kind::Text(_) | Kind::Secret(_) => "text".to_owned(),
            Kind::List(list) => format!("a list of {}", list.form),
            Kind::Addresses(_) => "a list of addresses such as [\"127.0.0.1:1883\"]".to_owned(),
        }
    }

    /// Whether no message may show its value.
    pub(super) const fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret(_))
    }

    /// Whether a bare word is a value of the key.
    pub(super) fn takes_text(&self) -> bool {
        match self.kind {
            Kind::Switch(_) | Kind::Number(..) => false,
            Kind::Choice(..)
            | Kind::Directory(_)
            | Kind::Text(_)
            | Kind::Secret(_)
            | Kind::List(_)
            | Kind::Addresses(_) => true,
        }
    }
}

/// What every variable that ringmq reads begins with.
pub(super) const VARIABLE_PREFIX: &str = "RINGMQ_";

/// The groups of keys: the first key of each, and what they have in common.
const GROUPS: [(&str, &str); 9] = [
    ("listen", "Who may connect"),
    ("shards", "The process"),
    ("data_dir", "What is kept on disk"),
    ("server_reference", "What MQTT 5.0 clients are told"),
    ("rewrite", "Topics and subscriptions"),
    ("limits.packet_bytes_max", "What a client may ask for"),
    ("limits.inflight_max", "What waits for a client"),
    ("limits.connections_max", "What the broker holds"),
    ("limits.connections_per_address_max", "Who is let in, and how fast it may go"),
];

/// The title of the group that begins with `key`.
fn group_title(key: &Key) -> Option<&'static str> {
    GROUPS.iter().find(|(first, _)| *first == key.name).map(|(_, title)| *title)
}

/// The title of the group of a listener's keys, which stands behind the first group.
const LISTENER_TITLE: &str = "A listener, in a section `[[listener]]` of the file";

/// One key as it is documented.
struct Documented {
    title: Option<&'static str>,
    name: &'static str,
    default: String,
    allowed: String,
    doc: &'static str,
}

/// All keys as they are documented.
fn documented() -> Vec<Documented> {
    let of_all = |key: &'static Key| Documented {
        title: group_title(key),
        name: key.name,
        default: key.default_text(),
        allowed: key.allowed(),
        doc: key.doc,
    };
    let of_listener = |(at, key): (usize, &'static Key<ListenerSettings>)| Documented {
        title: (at == 0).then_some(LISTENER_TITLE),
        name: key.local_name(),
        default: key.default_text(),
        allowed: key.allowed(),
        doc: key.doc,
    };
    let mut all: Vec<_> = Key::all().map(of_all).collect();
    let first_group = all.iter().skip(1).position(|key| key.title.is_some()).map_or(0, |at| at + 1);
    let of_listeners = Key::of_listener().iter().enumerate().map(of_listener);
    all.splice(first_group..first_group, of_listeners);
    all
}

/// The README's tables of keys, in Markdown: one for each group, titled.
pub fn markdown_table() -> String {
    let mut table = String::new();
    for Documented { title, name, default, allowed, doc } in documented() {
        if let Some(title) = title {
            table += &format!("\n**{title}**\n\n| Key | Default | Allowed | Meaning |\n");
            table += "| --- | --- | --- | --- |\n";
        }
        table += &format!("| `{name}` | {default} | {allowed} | {doc} |\n");
    }
    table
}

/// The same as plain text of at most 80 columns, for `--help`.
pub fn help_text() -> String {
    let mut text = String::new();
    for Documented { title, name, default, allowed, doc } in documented() {
        if let Some(title) = title {
            text += &format!("\n {}:\n", title.replace('`', ""));
        }
        text += &format!("  {name} (default: {default})\n");
        let doc = format!("{doc} Takes {allowed}.").replace('`', "");
        let mut line = String::new();
        for word in doc.split(' ') {
            if line.len() + word.len() > 72 {
                text += &format!("      {line}\n");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        text += &format!("      {line}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[test]
    fn every_limit_has_a_key() {
        let fields = format!("{:#?}", Limits::default());
        let fields: Vec<_> = fields
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split(':').next())
            .map(|field| format!("limits.{field}"))
            .collect();
        let keys: Vec<_> = Key::all().map(|key| key.name).collect();
        assert_eq!(fields, keys[keys.len() - fields.len()..]);
    }

    #[test]
    fn both_ends_of_every_range_fit_and_default_is_within() {
        for key in Key::all() {
            let Kind::Number(range, set) = &key.kind else { continue };
            for number in [*range.start(), *range.end()] {
                let mut settings = Settings::default();
                assert_eq!(set(&mut settings, number), Some(()), "{} = {number}", key.name);
                assert_eq!((key.show)(&settings), number.to_string(), "{}", key.name);
            }
            if let Ok(default) = key.default_text().parse() {
                assert!(range.contains(&default), "{}", key.name);
            }
        }
    }

    #[test]
    fn choices_are_shown_as_they_are_chosen() {
        for key in Key::all() {
            let Kind::Choice(names, set) = &key.kind else { continue };
            for (index, name) in names.iter().enumerate() {
                let mut settings = Settings::default();
                set(&mut settings, index);
                assert_eq!((key.show)(&settings), *name);
            }
        }
    }

    #[test]
    fn tables_have_a_row_for_each_key_and_no_stray_bar() {
        let table = markdown_table();
        let rows: Vec<_> = table.lines().filter(|line| line.starts_with('|')).collect();
        let keys = Key::all().count() + Key::of_listener().len();
        assert_eq!(rows.len(), keys + 2 * (GROUPS.len() + 1));
        assert!(rows.iter().all(|row| row.matches('|').count() == 5), "{table}");
        assert!(table.contains(
            "| `limits.inflight_max` | 1024 | a whole number from 1 to 65535 | QoS 1 and 2 "
        ));
        assert!(help_text().lines().all(|line| line.len() <= 80));
    }
}
