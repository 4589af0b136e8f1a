//! The configuration keys of `[limits]` about clients and what is held for them, in the order of the documentation.
//!
//! Defaults stand in [`super::Limits::default`], not here.

use super::{
    SlowConsumer,
    keys::{Key, Kind},
};
use crate::base::{
    QoS,
    limits::{MEMORY_BYTES_MIN, REMAINING_LENGTH_MAX, TOPIC_ALIASES_OUT_MAX},
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

pub(super) use limit;

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

pub(super) const U16: u64 = u16::MAX as u64;
pub(super) const U32: u64 = u32::MAX as u64;
/// TOML's integers are signed.
pub(super) const I64: u64 = i64::MAX as u64;
/// Less than this holds no useful CONNECT.
const PACKET_BYTES_MIN: u64 = 64;
/// The longest packet that MQTT can express, its fixed header included.
const PACKET_BYTES: u64 = REMAINING_LENGTH_MAX as u64 + 5;

pub(super) static KEYS: &[Key] = &[
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
    limit!(
        client_topic_aliases_max,
        0..=TOPIC_ALIASES_OUT_MAX as u64,
        "Topic aliases that the broker uses towards one MQTT 5.0 client that accepts them; its most \
         used topics get them. 0 turns them off, for clients that ask for them and cannot read \
         them, as `mosquitto_sub` 2.0 with that property."
    ),
    Key {
        name: "limits.maximum_qos",
        kind: Kind::Number(0..=2, |settings, number| {
            settings.limits.maximum_qos = QoS::from_bits(number.try_into().ok()?)?;
            Some(())
        }),
        show: |settings| settings.limits.maximum_qos.to_string(),
        doc: "Highest QoS that a client may publish with; a higher one ends the connection (0x9B). \
              Subscriptions may ask for any.",
    },
    limit_switch!(
        retain_available,
        "Whether clients may publish with RETAIN; if not, that ends the connection (0x9A)."
    ),
    limit_switch!(
        wildcard_subscription_available,
        "Whether topic filters may have wildcards; if not, that ends the connection of an MQTT 5.0 \
         client (0xA2) and is refused to others (0x80)."
    ),
    limit_switch!(
        shared_subscription_available,
        "Whether subscriptions may be shared, `$queue/` included; if not, the same with 0x9E."
    ),
    limit_switch!(
        subscription_identifiers_available,
        "Whether subscriptions may have subscription identifiers; if not, one ends the connection \
         (0xA1)."
    ),
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
        output_bytes_max,
        1..=I64,
        "Bytes that wait to be sent to one connected client. Further QoS 0 messages for it are dropped \
         and logged; of QoS 1 and 2 no more than 256 KiB wait here, the rest in its queue. A lower \
         `queue_bytes_max` holds here too."
    ),
    limit!(
        output_stalled_secs_max,
        0..=U16,
        "Seconds in which all of what waits to be sent to a client, or 256 KiB of it, has to be taken. \
         One that does not read is disconnected then (0x97). 0 is no bound."
    ),
    Key {
        name: "limits.slow_consumer",
        kind: Kind::Choice(&SlowConsumer::NAMES, |settings, index| {
            settings.limits.slow_consumer = SlowConsumer::at(index);
        }),
        show: |settings| settings.limits.slow_consumer.name().to_owned(),
        doc: "What happens to a client past `output_bytes_max`: QoS 0 messages for it are dropped until it \
              has read, or with the first one it is disconnected (0x97).",
    },
    limit!(
        connections_max,
        1..=U32,
        "Connections of the process. Lowered with a warning to what the descriptor limit \
         (`ulimit -n`) allows."
    ),
    limit!(
        connect_timeout_secs,
        1..=U16,
        "Seconds from the connection to a complete CONNECT packet and the end of the \
         authentication that it begins."
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
    limit!(
        delayed_messages_max,
        0..=I64,
        "Delayed publications (`$delayed/SECONDS/TOPIC`) of the process; each shard has an even part \
         of them. Further ones are refused with reason code 0x97; with 0 all are."
    ),
    limit!(
        delayed_bytes_max,
        0..=I64,
        "Bytes (payload, topic, properties) of delayed publications of the process, divided and \
         refused in the same way."
    ),
    Key {
        name: "limits.memory_bytes_max",
        kind: Kind::Number(MEMORY_BYTES_MIN..=I64, |settings, number| {
            settings.limits.memory_bytes_max = Some(number);
            Some(())
        }),
        show: |settings| match settings.limits.memory_bytes_max {
            None => "three quarters of what there is".to_owned(),
            Some(bytes) => bytes.to_string(),
        },
        doc: "Bytes of memory that the process may use. As they fill up, publishers are not read from \
              (80 %), new clients are refused (90 %), and those that do not take what waits for them are \
              disconnected (95 %), both with 0x97. What there is, is the memory of the machine or what its \
              control group may use.",
    },
];
