//! The table of configuration keys, in the order of the documentation, but for those of `[auth]`.
//!
//! Defaults stand in [`Settings::default`] and [`super::Limits::default`], not here.

use std::num::NonZeroUsize;

use tracing::Level;

use super::{
    AutoSubscription, Bans, DEFAULT_LISTEN, Durability, LogFormat, RedirectWhen,
    durability::{STORAGE_BYTES_PER_SHARD_MIN, relaxed_topic},
    keys::{Key, Kind, List},
    rules, shared,
    table_limits::{I64, U32},
};
use crate::{base::limits::SHARDS_MAX, topic::Strategy};

/// A text that a property is set to.
macro_rules! property {
    ($field:ident, $doc:literal) => {
        Key {
            name: stringify!($field),
            kind: Kind::Text(|settings, text| {
                settings.$field = property_text(text)?;
                Ok(())
            }),
            show: |settings| shown(settings.$field.as_deref()),
            doc: $doc,
        }
    };
}

/// A list of rules that are read one by one.
macro_rules! rule_list {
    ($field:ident, $read:expr, $form:literal, $doc:literal) => {
        Key {
            name: stringify!($field),
            kind: Kind::List(List {
                form: $form,
                clear: |settings| settings.$field.clear(),
                add: |settings, text| {
                    settings.$field.push($read(text)?);
                    Ok(())
                },
            }),
            show: |settings| count(settings.$field.len()),
            doc: $doc,
        }
    };
}

const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

/// Text that can be a property's value; none if it is empty.
pub(super) fn property_text(text: &str) -> Result<Option<Box<str>>, String> {
    match text.chars().find(|c| c.is_control()) {
        Some(_) => Err("holds a control character".to_owned()),
        None if text.len() > PROPERTY_TEXT_BYTES_MAX => {
            Err(format!("is longer than {PROPERTY_TEXT_BYTES_MAX} bytes"))
        }
        None => Ok((!text.is_empty()).then(|| text.into())),
    }
}

pub(super) fn shown(text: Option<&str>) -> String {
    text.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}

/// Bytes of a configured property value.
const PROPERTY_TEXT_BYTES_MAX: usize = 1024;

/// Who may connect, but for the keys of `[auth]`.
pub(super) static LISTEN_KEYS: &[Key] = &[
    Key {
        name: "listen",
        kind: Kind::Addresses(|settings, listen| settings.listen = Some(listen)),
        show: |_| DEFAULT_LISTEN.join(", "),
        doc: "Addresses to accept connections on: `HOST:PORT` or `mqtt://HOST[:PORT]`, \
              `ws://HOST[:PORT]` for WebSocket, `unix:/PATH`. With port 0 the kernel chooses a free \
              port, which is logged. Those that need further settings, TLS above all, stand in \
              sections `[[listener]]`.",
    },
    Key {
        name: "allow_anonymous",
        kind: Kind::Switch(|settings, on| settings.allow_anonymous = Some(on)),
        show: |settings| match settings.allow_anonymous {
            None => "on loopback only".to_owned(),
            Some(on) => on.to_string(),
        },
        doc: "Whether clients may connect without authentication. Unset, they may from this \
              machine, and an address that other machines can reach is refused at start unless \
              there is a way to authenticate: users in `password_file`, or keys or a URL in `[auth]`. \
              Where there is one, a client with a User Name or Password has to be right about them.",
    },
    Key {
        name: "password_file",
        kind: Kind::Text(|settings, path| {
            settings.password_file = (!path.is_empty()).then(|| path.into());
            Ok(())
        }),
        show: |settings| match &settings.password_file {
            None => "none".to_owned(),
            Some(path) => path.display().to_string(),
        },
        doc: "File of the users who can authenticate, with a password in CONNECT or with SCRAM-SHA-256 \
              over MQTT 5.0, as `ringmq passwd` or mosquitto_passwd writes it. It is read at start, a \
              relative path from the working directory; empty is none.",
    },
];

/// All others.
pub(super) static KEYS: &[Key] = &[
    Key {
        name: "acl_file",
        kind: Kind::Text(|settings, path| {
            settings.acl_file = (!path.is_empty()).then(|| path.into());
            Ok(())
        }),
        show: |settings| match &settings.acl_file {
            None => "none".to_owned(),
            Some(path) => path.display().to_string(),
        },
        doc: "File of rules for who may publish, subscribe and receive what: `[[rule]]` tables if it \
              ends in `.toml`, otherwise in the form of mosquitto's `acl_file`. It is read at start \
              and on SIGHUP; empty is none.",
    },
    Key {
        name: "acl_default",
        kind: Kind::Choice(&["deny", "allow"], |settings, index| {
            settings.acl_default_allows = index == 1;
        }),
        show: |settings| ["deny", "allow"][usize::from(settings.acl_default_allows)].to_owned(),
        doc: "What becomes of what no `[[rule]]` of `acl_file` is about. Topics that start with `$` \
              are published to only where a rule allows it.",
    },
    Key {
        name: "acl_denied",
        kind: Kind::Choice(&["drop", "disconnect"], |settings, index| {
            settings.acl_disconnects = index == 1;
        }),
        show: |settings| ["drop", "disconnect"][usize::from(settings.acl_disconnects)].to_owned(),
        doc: "What follows when a client publishes what it may not: the message is dropped, which \
              MQTT 5.0 clients are told in the acknowledgement (0x87), or the client is disconnected.",
    },
    Key {
        name: "bans",
        kind: Kind::List(List {
            form: "rules \"client => NAME\", \"user => NAME\" or \"address => RANGE\"; NAME may end with *",
            clear: |settings| settings.bans = Bans::default(),
            add: |settings, text| settings.bans.add(text),
        }),
        show: |settings| count(settings.bans.len()),
        doc: "Client Identifiers, users and addresses, such as `10.0.0.0/8`, that nobody gets in with (0x8A; \
              those from banned addresses are closed at once). They are read again on SIGHUP: who is \
              connected and banned by then is disconnected (0x98).",
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
        name: "user",
        kind: Kind::Text(|settings, text| {
            settings.user = (!text.is_empty()).then(|| text.into());
            Ok(())
        }),
        show: |settings| shown(settings.user.as_deref()),
        doc: "The user that the process becomes if root starts it, in all of that user's groups and without further \
              rights: ports below 1024 are bound all the same. The files that the configuration names have to be \
              readable for that user; `data_dir` is created for it if it is missing. Empty changes nothing.",
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
    Key {
        name: "data_dir",
        kind: Kind::Directory(|settings, path| settings.data_dir = path),
        show: |settings| settings.data_dir.display().to_string(),
        doc: "Where sessions, queues, retained messages and whatever else outlives the process are \
              kept. It is created if it is missing, and belongs to one broker at a time. \
              `ringmq inspect DIR` shows what is in it.",
    },
    Key {
        name: "ephemeral",
        kind: Kind::Switch(|settings, on| settings.ephemeral = on),
        show: |settings| settings.ephemeral.to_string(),
        doc: "Keep nothing on disk, and neither read nor create `data_dir`: sessions, queues and \
              retained messages end with the process.",
    },
    Key {
        name: "storage_bytes_max",
        kind: Kind::Number(STORAGE_BYTES_PER_SHARD_MIN..=I64, |settings, number| {
            settings.storage_bytes_max = number;
            Some(())
        }),
        show: |settings| settings.storage_bytes_max.to_string(),
        doc: "Bytes on disk of the logs of all shards; each shard has an even part of them and needs \
              8388608 of them. When a part is used up, what would have to be kept there is refused \
              with reason code 0x97 until room is made.",
    },
    Key {
        name: "durability",
        kind: Kind::Choice(&Durability::NAMES, |settings, index| {
            settings.durability.relaxed = index == 1;
        }),
        show: |settings| Durability::NAMES[usize::from(settings.durability.relaxed)].to_owned(),
        doc: "What an acknowledgement means: with `commit` that what is acknowledged is on disk and \
              survives a crash and a loss of power, with `relaxed` that it will be after \
              `relaxed_millis_max`.",
    },
    Key {
        name: "relaxed_topics",
        kind: Kind::List(List {
            form: "topic filters such as \"telemetry/#\"",
            clear: |settings| settings.durability.relaxed_topics.clear(),
            add: |settings, text| {
                settings.durability.relaxed_topics.push(relaxed_topic(text)?);
                Ok(())
            },
        }),
        show: |settings| match settings.durability.relaxed_topics.len() {
            0 => "none".to_owned(),
            filters => format!("{filters} filters"),
        },
        doc: "Topics whose publications are acknowledged as with `relaxed`, whatever `durability` \
              is.",
    },
    Key {
        name: "relaxed_listeners",
        kind: Kind::Addresses(|settings, listeners| settings.relaxed_listeners = listeners),
        show: |settings| match &settings.relaxed_listeners[..] {
            [] => "none".to_owned(),
            listeners => {
                let texts: Vec<_> = listeners.iter().map(|(_, one)| one.text.as_str()).collect();
                texts.join(", ")
            }
        },
        doc: "Those of the addresses in `listen` whose clients get acknowledgements as with \
              `relaxed`, whatever `durability` is.",
    },
    Key {
        name: "relaxed_millis_max",
        kind: Kind::Number(1..=60_000, |settings, number| {
            settings.durability.relaxed_millis_max = number.try_into().ok()?;
            Some(())
        }),
        show: |settings| settings.durability.relaxed_millis_max.to_string(),
        doc: "Milliseconds until what was acknowledged before it was on disk begins to be written: \
              a crash or a loss of power can cost what came in the last of them.",
    },
    property!(
        server_reference,
        "Another server for clients, for example `b.example.com:1883`, or several with blanks \
         between. MQTT 5.0 clients get it as Server Reference; `redirect` says when."
    ),
    Key {
        name: "redirect",
        kind: Kind::Choice(&["shutdown", "full", "always"], |settings, index| {
            settings.redirect =
                [RedirectWhen::Shutdown, RedirectWhen::Full, RedirectWhen::Always][index];
        }),
        show: |settings| format!("{:?}", settings.redirect).to_ascii_lowercase(),
        doc: "When clients are sent to `server_reference`: `shutdown` those connected when the \
              broker ends (0x9C); `full` also new ones beyond `limits.sessions_max` (0x9C); \
              `always` every new one (0x9D).",
    },
    property!(
        response_information,
        "Response Information for MQTT 5.0 clients that request it, usually the topic that \
         their Response Topics are to begin with. `%c` stands for the client id."
    ),
    rule_list!(
        rewrite,
        rules::rewrite_rule,
        "rules such as \"publish a/+/# => b/$1/%c/$2\"",
        "Rules for what clients' topics are read as: `publish`, `subscribe` or `all`, a topic \
         filter, and what a topic that matches becomes. The first rule that matches holds."
    ),
    rule_list!(
        retained_ttl,
        rules::retained_ttl,
        "rules such as \"a/# => 3600\"",
        "Longest time in seconds that retained messages are kept, by topic filter; the first \
         rule that matches holds. 0 keeps none. A shorter Message Expiry Interval stays."
    ),
    rule_list!(
        auto_subscribe,
        str::parse::<AutoSubscription>,
        "rules such as \"a/%c/# => 1 no_local\"",
        "Subscriptions that every new session gets at CONNECT: a topic filter in which `%c` \
         stands for the client id and `%u` for the user name, a QoS, and any of the flags \
         `no_local`, `retain_as_published`, `retain=send`, `retain=new` and `retain=never`."
    ),
    Key {
        name: "shared.strategy",
        kind: Kind::Choice(&Strategy::NAMES, |settings, index| {
            settings.shared.default = Strategy::ALL[index];
        }),
        show: |settings| settings.shared.default.name().to_owned(),
        doc: "Which member of a shared subscription gets a message: each in turn, any, always the \
              same one, by the publishing client, by the topic, or the one with the fewest \
              deliveries in flight and waiting.",
    },
    Key {
        name: "shared.strategies",
        kind: Kind::List(List {
            form: "rules such as \"jobs- => sticky\"",
            clear: |settings| settings.shared.by_prefix.clear(),
            add: |settings, rule| {
                shared::add_rule(&mut settings.shared, rule).map_err(|error| error.to_string())
            },
        }),
        show: |settings| shared::show_rules(&settings.shared),
        doc: "Other strategies, by what the share name begins with; the longest prefix that fits \
              decides.",
    },
];

/// How a list of rules is shown: the rules themselves have no text any more.
fn count(rules: usize) -> String {
    match rules {
        0 => "none".to_owned(),
        rules => format!("{rules} rules"),
    }
}
