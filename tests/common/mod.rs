//! The harness that the black-box suites share: it starts the real binary and
//! speaks literal bytes to it. Knows nothing of the broker's code, so that a
//! mistake in an encoder and its decoder cannot hide behind each other.

// Every suite is a crate of its own and uses its part of the harness.
#![allow(dead_code, unused_imports, unused_macros)]

mod broker;
mod client;
mod large;
mod notation;
mod scram;
mod users;
mod wire;

pub(crate) use broker::{Broker, free_port};
pub(crate) use client::{Connack, RawClient};
pub(crate) use large::{payload, publish};
pub(crate) use notation::wire;
pub(crate) use scram::ClientKeys;
pub(crate) use users::{password_file, set_password};
pub(crate) use wire::{fields, hex};

/// What the broker comes to do soon, asked for again and again.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(8);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "{what}: not within eight seconds");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Runs the check for every case of a table and fails at the end, so that one run shows them all.
#[track_caller]
pub(crate) fn each<T: std::fmt::Debug>(cases: impl IntoIterator<Item = T>, check: impl Fn(&T)) {
    let failed: Vec<T> = cases
        .into_iter()
        .filter(|case| {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(case)));
            if outcome.is_err() {
                println!("    in case {case:?}");
            }
            outcome.is_err()
        })
        .collect();
    assert!(failed.is_empty(), "{} cases failed: {failed:#?}", failed.len());
}

/// Runs each named `fn(&Broker)` as two tests, on one shard and on four, each
/// with a broker of its own: `name;` or `name with "limits.key=value", ...;`.
/// `by super::broker;` before them names the function that starts it from shards and settings.
macro_rules! on_one_and_four_shards {
    (by $start:path; $($name:ident $(with $($setting:literal),+)?;)+) => {$(
        mod $name {
            #[test]
            fn one_shard() {
                super::$name(&$start(1, &[$($($setting),+)?]));
            }

            #[test]
            fn four_shards() {
                super::$name(&$start(4, &[$($($setting),+)?]));
            }
        }
    )+};
    ($($checks:tt)+) => {
        on_one_and_four_shards! { by crate::common::Broker::start; $($checks)+ }
    };
}
pub(crate) use on_one_and_four_shards;
