//! The table of configuration keys. It drives the file, the environment and
//! `--set` alike, every error text, `--help` and the README's table.
//!
//! Knows nothing of where a value comes from. Defaults stand in
//! [`Settings::default`] and [`super::Limits::default`], not here.

use std::{num::NonZeroUsize, ops::RangeInclusive, path::PathBuf};

use tracing::Level;

use super::{DEFAULT_LISTEN, LogFormat, Settings, address::Endpoint, problem::Origin};
use crate::base::{
    QoS,
    limits::{REMAINING_LENGTH_MAX, SHARDS_MAX},
};

/// One configuration key.
#[derive(Debug)]
pub(super) struct Key {
    /// Dotted name, as in `--set`.
    pub(super) name: &'static str,
    /// What it takes and where that goes.
    pub(super) kind: Kind,
    /// Its value as text; with the default settings, its default.
    show: fn(&Settings) -> String,
    /// What it does: Markdown, one paragraph.
    doc: &'static str,
}

/// What a key takes, and the setter of the value once that is checked.
#[derive(Debug)]
pub(super) enum Kind {
    Switch(fn(&mut Settings, bool)),
    /// The setter answers `None` for a number that its field cannot hold.
    Number(RangeInclusive<u64>, fn(&mut Settings, u64) -> Option<()>),
    /// The setter gets the position in the list of names.
    Choice(&'static [&'static str], fn(&mut Settings, usize)),
    Directory(fn(&mut Settings, PathBuf)),
    Addresses(fn(&mut Settings, Vec<(Origin, Endpoint)>)),
}

impl Key {
    /// Every key, in the order of the documentation.
    pub(super) fn all() -> &'static [Self] {
        KEYS
    }

    /// The sections that keys stand in.
    pub(super) const SECTIONS: [&str; 1] = ["limits"];

    /// The key of that dotted name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The name within its section.
    pub(super) fn local_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The name in quotes, for messages.
    pub(super) fn name_quoted(&self) -> String {
        format!("{:?}", self.name)
    }

    /// The environment variable that sets the key.
    pub(super) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
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
            Kind::Addresses(_) => "a list of addresses such as [\"127.0.0.1:1883\"]".to_owned(),
        }
    }

    /// Whether a bare word is a value of the key.
    pub(super) fn takes_text(&self) -> bool {
        match self.kind {
            Kind::Switch(_) | Kind::Number(..) => false,
            Kind::Choice(..) | Kind::Directory(_) | Kind::Addresses(_) => true,
        }
    }

    fn default_text(&self) -> String {
        (self.show)(&Settings::default())
    }
}

/// What every variable that ringmq reads begins with.
pub(super) const VARIABLE_PREFIX: &str = "RINGMQ_";

/// The README's table of keys, in Markdown.
pub fn markdown_table() -> String {
    let mut table =
        String::from("| Key | Default | Allowed | Meaning |\n| --- | --- | --- | --- |\n");
    for key in KEYS {
        let (name, doc) = (key.name, key.doc);
        let default = key.default_text();
        table += &format!("| `{name}` | {default} | {} | {doc} |\n", key.allowed());
    }
    table
}

/// The same as plain text of at most 80 columns, for `--help`.
pub fn help_text() -> String {
    let mut text = String::new();
    for key in KEYS {
        text += &format!("  {} (default: {})\n", key.name, key.default_text());
        let doc = format!("{} Takes {}.", key.doc, key.allowed()).replace('`', "");
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

/// A numeric field of `Limits`.
macro_rules! limit {
    ($field:ident, $range:expr, $doc:literal) => {
        Key {
            name: concat!("limits.", stringify!($field)),
            kind: Kind::Number($range, |settings, number| {
                settings.limits.$field = number.try_into().ok()?;
                Some(())
            }),
            show: |settings| settings.limits.$field.to_string(),
            doc: $doc,
        }
    };
}

/// A yes-or-no field of `Limits`.
macro_rules! limit_switch {
    ($field:ident, $doc:literal) => {
        Key {
            name: concat!("limits.", stringify!($field)),
            kind: Kind::Switch(|settings, on| settings.limits.$field = on),
            show: |settings| settings.limits.$field.to_string(),
            doc: $doc,
        }
    };
}

const U16: u64 = u16::MAX as u64;
const U32: u64 = u32::MAX as u64;
/// TOML's integers are signed.
const I64: u64 = i64::MAX as u64;
/// The longest packet that MQTT can express, its fixed header included.
/// Less than this holds no useful CONNECT.
const PACKET_BYTES_MIN: u64 = 64;

const PACKET_BYTES: u64 = REMAINING_LENGTH_MAX as u64 + 5;

const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

static KEYS: &[Key] = &[
    Key {
        name: "listen",
        kind: Kind::Addresses(|settings, listen| settings.listen = Some(listen)),
        show: |_| DEFAULT_LISTEN.join(", "),
        doc: "Addresses to accept MQTT connections on: `HOST:PORT` or `mqtt://HOST[:PORT]`. \
              With port 0 the kernel chooses a free port, which is logged.",
    },
    Key {
        name: "allow_anonymous",
        kind: Kind::Switch(|settings, on| settings.allow_anonymous = Some(on)),
        show: |settings| match settings.allow_anonymous {
            None => "on loopback only".to_owned(),
            Some(on) => on.to_string(),
        },
        doc: "Whether clients may connect without authentication. Unset, they may from this \
              machine, and an address that other machines can reach is refused at start.",
    },
    Key {
        name: "shards",
        kind: Kind::Number(1..=SHARDS_MAX as u64, |settings, number| {
            settings.shards = Some(NonZeroUsize::new(number.try_into().ok()?)?);
            Some(())
        }),
        show: |settings| match settings.shards {
            None => "one per CPU".to_owned(),
            Some(shards) => shards.to_string(),
        },
        doc: "Threads that share the clients among them, each on a CPU of its own. CPUs outside \
              the affinity mask or the CPU quota of the process do not count.",
    },
    Key {
        name: "data_dir",
        kind: Kind::Directory(|settings, path| settings.data_dir = path),
        show: |settings| settings.data_dir.display().to_string(),
        doc: "Where state that outlives the process belongs. This version keeps all state in \
              memory and neither reads nor creates the directory.",
    },
    Key {
        name: "ephemeral",
        kind: Kind::Switch(|settings, on| settings.ephemeral = on),
        show: |settings| settings.ephemeral.to_string(),
        doc: "Keep nothing on disk. In this version nothing is kept there either way: sessions, \
              queues and retained messages end with the process.",
    },
    Key {
        name: "log_format",
        kind: Kind::Choice(&["text", "json"], |settings, index| {
            settings.log.format = [LogFormat::Text, LogFormat::Json][index];
        }),
        show: |settings| settings.log.format.to_string(),
        doc: "The form of the log on standard error: text, or one JSON object a line.",
    },
    Key {
        name: "log_level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"], |settings, index| {
            settings.log.level = LEVELS[index];
        }),
        show: |settings| settings.log.level.to_string().to_ascii_lowercase(),
        doc: "The least important messages that are logged; `debug` (`-v`) adds a line for each \
              packet.",
    },
    Key {
        name: "trace_sample",
        kind: Kind::Number(0..=U32, |settings, number| {
            settings.trace_sample = number.try_into().ok()?;
            Some(())
        }),
        show: |settings| settings.trace_sample.to_string(),
        doc: "Trace one in so many publications: an `info` line for each shard that delivers it \
              shows how many microseconds each stage took. 0 traces none.",
    },
    limit!(
        packet_bytes_max,
        PACKET_BYTES_MIN..=PACKET_BYTES,
        "Largest packet accepted from a client, in bytes with its header. A larger one ends the \
         connection."
    ),
    limit!(
        receive_maximum,
        1..=U16,
        "QoS 1 and 2 publications that an MQTT 5.0 client may have unacknowledged towards the \
         broker."
    ),
    limit!(
        topic_alias_maximum,
        0..=U16,
        "Topic aliases that an MQTT 5.0 client may use towards the broker."
    ),
    Key {
        name: "limits.maximum_qos",
        kind: Kind::Number(0..=2, |settings, number| {
            settings.limits.maximum_qos = QoS::from_bits(number.try_into().ok()?)?;
            Some(())
        }),
        show: |settings| settings.limits.maximum_qos.to_string(),
        doc: "Highest QoS that a client may publish with.",
    },
    limit_switch!(retain_available, "Whether retained messages are kept."),
    limit!(
        keep_alive_secs_max,
        0..=U16,
        "Longest keep-alive in seconds; MQTT 5.0 clients that ask for more, or for none, get \
         this one. 0 is no bound."
    ),
    limit!(
        session_expiry_secs_max,
        0..=U32,
        "Longest time in seconds that a session is kept for an absent client. 4294967295 is \
         for ever."
    ),
    limit!(
        inflight_max,
        1..=U16,
        "QoS 1 and 2 deliveries that one client may have unacknowledged; the Receive Maximum \
         of an MQTT 5.0 client can lower it."
    ),
    limit!(
        queue_messages_max,
        1..=U32,
        "Messages that wait for one client beyond those in flight. Further ones are dropped \
         and logged."
    ),
    limit!(
        queue_bytes_max,
        1..=I64,
        "Bytes (payload, topic, properties) that wait for one client. Further messages are \
         dropped and logged."
    ),
    limit_switch!(queue_qos0, "Whether QoS 0 messages wait for an absent client too."),
    limit!(
        connections_max,
        1..=U32,
        "Connections of the process. Lowered with a warning to what the descriptor limit \
         (`ulimit -n`) allows."
    ),
    limit!(
        connect_timeout_secs,
        1..=U16,
        "Seconds from the connection to a complete CONNECT packet."
    ),
    limit!(
        sessions_max,
        1..=U32,
        "Sessions of the process, connected or not; each shard has an even part of them. Further \
         clients are refused with reason code 0x97."
    ),
    limit!(
        subscriptions_max,
        1..=U32,
        "Subscriptions of one session, and filters in one packet. Further subscriptions are refused \
         with reason code 0x97."
    ),
    limit!(
        retained_messages_max,
        1..=I64,
        "Retained messages of the process. Messages to further topics are delivered but not \
         retained."
    ),
    limit!(
        retained_bytes_max,
        1..=I64,
        "Bytes of retained messages of the process. Beyond it messages are delivered but not \
         retained."
    ),
];

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
        let keys: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(fields, keys[keys.len() - fields.len()..]);
    }

    #[test]
    fn both_ends_of_every_range_fit_and_default_is_within() {
        for key in KEYS {
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
        for key in KEYS {
            let Kind::Choice(names, set) = &key.kind else { continue };
            for (index, name) in names.iter().enumerate() {
                let mut settings = Settings::default();
                set(&mut settings, index);
                assert_eq!((key.show)(&settings), *name);
            }
        }
    }

    #[test]
    fn table_has_a_row_for_each_key_and_no_stray_bar() {
        let table = markdown_table();
        assert_eq!(table.lines().count(), KEYS.len() + 2);
        assert!(table.lines().all(|row| row.matches('|').count() == 5), "{table}");
        assert!(table.contains(
            "| `limits.inflight_max` | 1024 | a whole number from 1 to 65535 | QoS 1 and 2 "
        ));
        assert!(help_text().lines().all(|line| line.len() <= 80));
    }
}
