//! The configuration keys about who is let in, and how fast it may go, in the order of the documentation.
//!
//! Defaults stand in [`super::Limits::default`], not here.

use super::{
    RateExceeded,
    keys::{Key, Kind},
    table_limits::{I64, U16, U32, limit},
};

pub(super) static KEYS: &[Key] = &[
    limit!(
        connections_per_address_max,
        0..=U32,
        "Connections from one address: of IPv6 addresses the first 64 bits count, behind a trusted proxy \
         the client's counts, unix sockets have none. Further ones are closed at once. 0 is no bound."
    ),
    limit!(
        connections_per_user_max,
        0..=U32,
        "Connections of one user who has proven who it is. Further ones are refused with reason code 0x97. \
         0 is no bound."
    ),
    limit!(
        connects_per_second_max,
        0..=RATE,
        "Connections that the process accepts in a second; further ones wait in the kernel until it is their \
         turn. 0 is no bound."
    ),
    limit!(
        connects_per_address_per_second_max,
        0..=RATE,
        "Connections from one address in a second; further ones are closed at once. 0 is no bound."
    ),
    limit!(
        flapping_connects_max,
        0..=U32,
        "Connections of one client within `limits.flapping_secs`. With one more it is banned for \
         `limits.ban_secs` (0x8A): its Client Identifier together with the user that it has proven to be, \
         or with its address if it has proven nothing. 0 bans nobody."
    ),
    limit!(flapping_secs, 1..=U16, "Seconds in which they are counted, from the first one on."),
    limit!(ban_secs, 1..=U32, "Seconds that such a ban lasts."),
    limit!(
        publishes_per_second_max,
        0..=U32,
        "PUBLISH packets of one client in a second. 0 is no bound."
    ),
    limit!(
        publish_bytes_per_second_max,
        0..=I64,
        "Bytes of the PUBLISH packets of one client in a second, headers included. 0 is no bound."
    ),
    limit!(
        publish_burst_millis,
        10..=60_000,
        "How much of both a client may publish at once: what comes together in so many milliseconds."
    ),
    Key {
        name: "limits.publish_rate_exceeded",
        kind: Kind::Choice(&["slow", "disconnect"], |settings, index| {
            settings.limits.publish_rate_exceeded =
                [RateExceeded::Slow, RateExceeded::Disconnect][index];
        }),
        show: |settings| match settings.limits.publish_rate_exceeded {
            RateExceeded::Slow => "slow".to_owned(),
            RateExceeded::Disconnect => "disconnect".to_owned(),
        },
        doc: "What follows when a client publishes faster: nothing more is read from it until it may go on, \
              at most a minute, or it is disconnected (0x96).",
    },
];

/// Faster than a machine accepts.
const RATE: u64 = 1_000_000;
