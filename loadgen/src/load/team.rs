//! Several processes, on one host or more, that make one load: what they agree on and what they tell
//! each other. Worker 1 leads: its conductor treats the threads of the others, the members, like its own.
//!
//! One connection from each member to the leader for the whole command. The leader refuses who was
//! started with another load, compares the clocks, and announces each run; then orders and news pass as
//! they do between threads. The connection is plain text and nobody has to say who he is.

use std::{collections::BTreeMap, io};

use ringmq::base::QoS;
use serde::{Deserialize, Serialize};

use super::{
    orders::{News, Order},
    wire::WireError,
};
use crate::{clock::Clock, scenario::Pace};

/// This process's place among several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TeamOptions {
    /// From 1, which is the leader, to `workers`.
    pub(crate) worker: u32,
    /// At most [`WORKERS_MAX`].
    pub(crate) workers: u32,
    /// Where the leader listens: host and port.
    pub(crate) leader: String,
}

/// Why the workers do not come together, or not to the end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TeamError {
    #[error("cannot wait for the other workers at {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("{missing} did not come to {address} within {secs} s")]
    Missing { missing: String, address: String, secs: u64 },
    #[error("worker 1 cannot be reached at {address}: {source}")]
    NoLeader { address: String, source: io::Error },
    #[error("worker 1 does not want this one: {0}")]
    Refused(String),
    #[error("{who} is gone: {error}")]
    Gone { who: String, error: WireError },
    #[error("{who} is silent")]
    Silent { who: String },
    #[error("{who} speaks out of turn")]
    OutOfTurn { who: String },
    #[error("{who}: {reason}")]
    Unable { who: String, reason: String },
    #[error("worker 1 has given up: {0}")]
    GaveUp(String),
    #[error("worker 1 has ended without this one, perhaps because it was silent for too long")]
    LeftBehind,
    #[error("interrupted")]
    Interrupted,
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("a thread does not end")]
    Stuck,
}

/// One run, as the leader announces it: what the members cannot know from their command lines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Unlike that of any other run.
    pub(crate) id: String,
    qos: u8,
    pub(crate) pace: Pace,
    start_unix_us: u64,
}

impl Run {
    /// A run whose time begins with that of the clock.
    pub(crate) fn new(id: String, qos: QoS, pace: Pace, clock: &Clock) -> Self {
        Self { id, qos: qos.bits(), pace, start_unix_us: clock.start_unix_us() }
    }

    /// The QoS; 0 if there is no such.
    pub(crate) fn qos(&self) -> QoS {
        QoS::from_bits(self.qos).unwrap_or_default()
    }

    /// The clock that all workers go by.
    pub(crate) fn clock(&self) -> Clock {
        Clock::since(self.start_unix_us)
    }
}

/// What all workers have to be started with alike, by the names of the settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Terms(pub(crate) BTreeMap<String, String>);

impl Terms {
    /// What is not alike, in words; `None` if all is.
    pub(super) fn difference(&self, leader: &Self, who: &str) -> Option<String> {
        let Self(theirs) = self;
        let names = theirs.keys().chain(leader.0.keys().filter(|name| !theirs.contains_key(*name)));
        let mut differences = Vec::new();
        for name in names {
            let [member, leader] =
                [theirs, &leader.0].map(|terms| terms.get(name).map_or("nothing", String::as_str));
            if member != leader {
                differences.push(format!("{name} is {member} at {who} and {leader} at worker 1"));
            }
        }
        (!differences.is_empty()).then(|| differences.join(", "))
    }
}

/// The first words of a member.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    /// [`PROTOCOL`].
    pub(super) protocol: String,
    pub(super) worker: u32,
    pub(super) terms: Terms,
}

/// What the leader says.
#[derive(Serialize, Deserialize)]
pub(super) enum ToMember {
    /// Instead of everything else.
    Refused(String),
    TellTime,
    /// To be answered with `Ready` or `Unable`.
    Run(Run),
    Order(Order),
    /// There are no more runs.
    Over,
    /// The leader cannot go on, for that reason.
    GaveUp(String),
}

/// What a member says.
#[derive(Serialize, Deserialize)]
pub(super) enum ToLeader {
    Hello(Hello),
    Time {
        unix_us: u64,
    },
    /// The threads of the announced run wait for orders.
    Ready,
    /// The announced run is impossible here, for that reason.
    Unable(String),
    News {
        thread: usize,
        news: News,
    },
}

/// Says which version of all this a worker speaks.
pub(super) const PROTOCOL: &str = "ringmq-loadgen-team-1";

/// Far more than one leader has threads for.
pub(crate) const WORKERS_MAX: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let terms = |all: &[(&str, &str)]| {
            Terms(all.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
        };
        let leader = terms(&[("qos", "1"), ("secs", "5"), ("threads", "2")]);
        assert_eq!(leader.difference(&leader, "worker 2"), None);
        let member = terms(&[("qos", "2"), ("secs", "5"), ("warm", "3")]);
        assert_eq!(
            member.difference(&leader, "worker 2").unwrap(),
            "qos is 2 at worker 2 and 1 at worker 1, warm is 3 at worker 2 and nothing at worker 1, \
             threads is nothing at worker 2 and 2 at worker 1"
        );
    }
}
