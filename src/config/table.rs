//! The table of configuration keys, in the order of the documentation.
//!
//! Defaults stand in [`Settings::default`] and [`super::Limits::default`], not here.

use std::num::NonZeroUsize;

use tracing::Level;

use super::{
    DEFAULT_LISTEN, LogFormat,
    keys::{Key, Kind},
};
use crate::base::{
    QoS,
    limits::{REMAINING_LENGTH_MAX, SHARDS_MAX},
};

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

pub(super) static KEYS: &[Key] = &[
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
