//! What load is made: how many clients of which kind, their topics, and the pace.
//!
//! [`Scenario`] is the checked form. It comes out of a TOML file (`file`), of which some are built in,
//! or from the options of `conn`, `pub` and `sub`. Knows no connection and no time of day.

mod file;
mod template;

use std::time::Duration;

use ringmq::{base::QoS, codec::Version};
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    file::{
        CLIENTS_MAX, MESSAGES_MAX, Overrides, PAYLOAD_BYTES_MAX, RATE_MAX, RATE_MIN, SECS_MAX,
        ScenarioError, built_in, load,
    },
    template::{MESSAGE_DIGITS, Template, TemplateError, Variables},
};
use crate::record::Stamp;

/// A load, checked: everything that is asked of a run except where the broker is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) version: Version,
    /// One run each.
    pub(crate) qos: Vec<QoS>,
    pub(crate) payload_bytes: usize,
    pub(crate) retain: bool,
    pub(crate) publishers: u32,
    pub(crate) topic: Template,
    pub(crate) subscribers: u32,
    pub(crate) filter: Template,
    /// Clients that only connect.
    pub(crate) idle: u32,
    pub(crate) attendance: Attendance,
    /// Whose sessions outlive their connections, until the run ends them.
    pub(crate) persistent: Persistent,
    pub(crate) pace: Pace,
    /// Messages of each publisher; without a number only the time bounds them.
    pub(crate) messages: Option<u64>,
    /// Messages of all publishers together.
    pub(crate) limit: Option<u64>,
    /// Connections per second; 0 is as fast as the broker takes them.
    pub(crate) connect_rate: f64,
    pub(crate) warm: Duration,
    pub(crate) measure: Duration,
    pub(crate) keep_alive_secs: u16,
    /// Whether deliveries are expected and checked: not for messages of other programs.
    pub(crate) checked: bool,
}

/// When the subscribers are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Attendance {
    /// Before, during and after the publishing.
    #[default]
    Present,
    /// They connect and subscribe for the first time when everything is published (retained messages).
    Late,
    /// They subscribe, are offline while everything is published, and come back for it.
    Away,
}

/// Whose sessions outlive their connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Persistent {
    #[default]
    Nobody,
    Subscribers,
    /// Publishers too.
    Everybody,
}

/// What sets the pace of the publishers.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// Closed loop: at most so many messages of one publisher are on their way to their subscribers.
    Window(u32),
    /// Open loop: messages are due on a schedule, whether the broker keeps up or not.
    Open(Rate),
    /// Open loop at one rate after the other: finds the highest that the broker serves in time.
    Search(Search),
}

/// Messages per second, of all publishers together.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Rate {
    /// At even intervals.
    Fixed(f64),
    /// At random intervals, as from many independent sources.
    Poisson(f64),
    /// At even intervals that grow or shrink linearly over the whole load.
    Ramp { from: f64, to: f64 },
}

/// A search for the highest rate whose p99 latency stays under a bound.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Search {
    /// The first rate. It doubles until the bound is passed; then the gap is halved.
    pub(crate) from: f64,
    pub(crate) p99_us_max: u64,
}

impl Scenario {
    /// Checks the relations between the parts.
    ///
    /// # Errors
    /// The parts do not fit together.
    pub(crate) fn checked(self) -> Result<Self, ScenarioError> {
        let fault = |text: &str| Err(ScenarioError::Unfit(text.to_owned()));
        if self.publishers + self.subscribers + self.idle == 0 {
            return fault("there are no clients: give publishers, subscribers or idle clients");
        }
        if self.checked && self.publishers > 0 && self.payload_bytes < Stamp::BYTES {
            return Err(ScenarioError::Unfit(format!(
                "payload_bytes is {}, but a checked message carries {} bytes that identify it",
                self.payload_bytes,
                Stamp::BYTES
            )));
        }
        if self.filter.has_message_number() {
            return fault("%m is the number of a message: it stands in topics, not in filters");
        }
        if self.attendance != Attendance::Present {
            if self.messages.is_none() {
                return fault("subscribers that are late or away need a number of messages");
            }
            if self.subscribers == 0 || self.publishers == 0 {
                return fault("subscribers that are late or away need both kinds of clients");
            }
            if !self.warm.is_zero() {
                return fault("with subscribers that are late or away there is no warm-up");
            }
        }
        if self.attendance == Attendance::Late && !(self.retain && self.topic.has_message_number())
        {
            return fault(
                "late subscribers get retained messages: set retain, and %m in the topic",
            );
        }
        if self.attendance == Attendance::Away && self.qos.contains(&QoS::AtMostOnce) {
            return fault("messages wait for absent subscribers at QoS 1 and 2 only");
        }
        if self.attendance == Attendance::Away && self.persistent == Persistent::Nobody {
            return fault("messages wait for absent subscribers only if their sessions persist");
        }
        if matches!(self.pace, Pace::Search(_)) && (self.publishers == 0 || self.subscribers == 0) {
            return fault("a search for a rate needs publishers and subscribers");
        }
        Ok(self)
    }

    /// The same with one QoS and one pace: what one run is made of.
    pub(crate) fn single(&self, qos: QoS, pace: Pace) -> Self {
        Self { qos: vec![qos], pace, ..self.clone() }
    }

    /// Whether there is nothing to measure but how the clients connect.
    pub(crate) fn measures_connecting(&self) -> bool {
        self.publishers == 0 && self.measure.is_zero()
    }

    /// How many messages a publisher sends at most. What is left of a limit when all have the same part
    /// is for the first publishers, one each.
    pub(crate) fn messages_of(&self, publisher: u32) -> u64 {
        let part_of = |limit: u64| {
            let publishers = u64::from(self.publishers.max(1));
            limit / publishers + u64::from(u64::from(publisher) < limit % publishers)
        };
        self.messages.unwrap_or(u64::MAX).min(self.limit.map_or(u64::MAX, part_of))
    }

    /// Whether it goes on until the user ends it, or its messages are sent.
    pub(crate) fn is_endless(&self) -> bool {
        self.measure == UNTIL_INTERRUPTED
    }

    /// The QoS of a scenario for one run.
    pub(crate) fn qos(&self) -> QoS {
        self.qos.first().copied().unwrap_or_default()
    }
}

/// Time to measure of a scenario that only the user ends: a century.
pub(crate) const UNTIL_INTERRUPTED: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Attendance {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Late => "late",
            Self::Away => "away",
        }
    }
}

impl Persistent {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Subscribers => "subscribers",
            Self::Everybody => "everybody",
        }
    }
}

impl Pace {
    /// Messages per second meant to be sent on average over `secs`; `None` in a closed loop.
    pub(crate) fn rate_per_sec(self) -> Option<f64> {
        match self {
            Self::Window(_) => None,
            Self::Open(Rate::Fixed(rate) | Rate::Poisson(rate)) => Some(rate),
            Self::Open(Rate::Ramp { from, to }) => Some(f64::midpoint(from, to)),
            Self::Search(search) => Some(search.from),
        }
    }

    /// In words.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Window(window) => format!("window {window}"),
            Self::Open(Rate::Fixed(rate)) => format!("{rate} messages/s"),
            Self::Open(Rate::Poisson(rate)) => format!("{rate} messages/s at random (Poisson)"),
            Self::Open(Rate::Ramp { from, to }) => format!("{from} to {to} messages/s"),
            Self::Search(Search { from, p99_us_max }) => {
                format!("from {from} messages/s until p99 passes {p99_us_max} us")
            }
        }
    }
}
