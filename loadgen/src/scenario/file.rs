//! Scenarios as TOML: the raw form, the files that are built in, and what the command line changes.

use std::{fs, io, path::Path, time::Duration};

use ringmq::{base::QoS, codec::Version};
use serde::Deserialize;

use super::{Attendance, Pace, Persistent, Rate, Scenario, Search, Template, TemplateError};

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScenarioError {
    #[error("no scenario is called {name:?} and there is no such file; built in are: {}", built_in_names().join(", "))]
    Unknown { name: String },
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path}: {message}")]
    Toml { path: String, message: String },
    #[error("{name}: {value} is not allowed: {allowed}")]
    Range { name: &'static str, value: String, allowed: String },
    #[error("{name}: {error}")]
    Template { name: &'static str, error: TemplateError },
    #[error("{0}")]
    Unfit(String),
}

/// What the command line says; it wins over the file.
#[derive(Clone, Default, Debug)]
pub(crate) struct Overrides {
    pub(crate) version: Option<Version>,
    pub(crate) qos: Option<QoS>,
    pub(crate) payload_bytes: Option<u32>,
    pub(crate) publishers: Option<u32>,
    pub(crate) subscribers: Option<u32>,
    pub(crate) idle: Option<u32>,
    pub(crate) persistent: Option<Persistent>,
    pub(crate) pace: Option<Pace>,
    pub(crate) messages: Option<u64>,
    pub(crate) connect_rate: Option<f64>,
    pub(crate) warm: Option<Duration>,
    pub(crate) measure: Option<Duration>,
}

/// The scenario in that file, or the built-in one of that name, changed by the command line.
pub(crate) fn load(name: &str, overrides: &Overrides) -> Result<Scenario, ScenarioError> {
    let (path, text) = match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        Some((_, text)) => (format!("built-in {name}"), (*text).to_owned()),
        None => (name.to_owned(), read(name)?),
    };
    let raw: Raw = toml::from_str(&text).map_err(|error| ScenarioError::Toml {
        path: path.clone(),
        message: error.to_string().trim_end().to_owned(),
    })?;
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    raw.check(stem, overrides)
}

/// Their names and what they are.
pub(crate) fn built_in() -> impl Iterator<Item = (&'static str, String)> {
    BUILT_IN.iter().map(|(name, text)| {
        let description = toml::from_str::<Raw>(text).map(|raw| raw.description);
        (*name, description.unwrap_or_default())
    })
}

/// Their names, as `loadgen run` takes them.
pub(crate) fn built_in_names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

fn read(name: &str) -> Result<String, ScenarioError> {
    let path = Path::new(name);
    let unreadable = |source| ScenarioError::Read { path: name.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ScenarioError::Unknown { name: name.to_owned() });
        }
        Err(error) => return Err(unreadable(error)),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            return Err(unreadable(io::Error::other("too large for a scenario")));
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    description: String,
    #[serde(default = "default_version")]
    version: u8,
    #[serde(default)]
    qos: OneOrMore,
    #[serde(default = "default_payload")]
    payload_bytes: u32,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    publishers: u32,
    #[serde(default = "default_topic")]
    topic: String,
    #[serde(default)]
    subscribers: u32,
    /// The number of one kind, given on the command line, is that of the other too.
    #[serde(default)]
    pairs: bool,
    #[serde(default = "default_topic")]
    filter: String,
    #[serde(default)]
    idle: u32,
    #[serde(default)]
    attendance: RawAttendance,
    /// Absent subscribers have sessions that persist in any case.
    persistent: Option<RawPersistent>,
    #[serde(default)]
    pace: RawPace,
    messages: Option<u64>,
    #[serde(default)]
    connect_rate: f64,
    #[serde(default = "default_warm")]
    warm_secs: f64,
    #[serde(default = "default_secs")]
    secs: f64,
    #[serde(default = "default_keep_alive")]
    keep_alive_secs: u16,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u8),
    More(Vec<u8>),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum RawAttendance {
    #[default]
    Present,
    Late,
    Away,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawPersistent {
    Nobody,
    Subscribers,
    Everybody,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum RawPace {
    Window(u32),
    Rate(f64),
    Poisson(f64),
    Ramp { from: f64, to: f64 },
    Search { from: f64, p99_us_max: u64 },
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::One(0)
    }
}

impl Default for RawPace {
    fn default() -> Self {
        Self::Window(16)
    }
}

impl Raw {
    fn check(self, name: String, overrides: &Overrides) -> Result<Scenario, ScenarioError> {
        let (publishers, subscribers) = match (overrides.publishers, overrides.subscribers) {
            (Some(publishers), None) if self.pairs => (publishers, publishers),
            (None, Some(subscribers)) if self.pairs => (subscribers, subscribers),
            (publishers, subscribers) => {
                (publishers.unwrap_or(self.publishers), subscribers.unwrap_or(self.subscribers))
            }
        };
        if self.pairs && publishers != subscribers {
            return Err(ScenarioError::Unfit(format!(
                "{name} needs as many publishers as subscribers, not {publishers} and {subscribers}"
            )));
        }
        let qos = match overrides.qos {
            Some(qos) => vec![qos],
            None => self.qos.check()?,
        };
        let payload_bytes = overrides.payload_bytes.unwrap_or(self.payload_bytes);
        in_range("payload_bytes", payload_bytes, 0, PAYLOAD_BYTES_MAX)?;
        let idle = overrides.idle.unwrap_or(self.idle);
        for (name, count) in
            [("publishers", publishers), ("subscribers", subscribers), ("idle", idle)]
        {
            in_range(name, count, 0, CLIENTS_MAX)?;
        }
        let connect_rate = overrides.connect_rate.unwrap_or(self.connect_rate);
        in_range("connect_rate", connect_rate, 0.0, RATE_MAX)?;
        let attendance = match self.attendance {
            RawAttendance::Present => Attendance::Present,
            RawAttendance::Late => Attendance::Late,
            RawAttendance::Away => Attendance::Away,
        };
        let scenario = Scenario {
            name,
            description: self.description,
            version: match overrides.version {
                Some(version) => version,
                None => version_of(self.version)?,
            },
            qos,
            payload_bytes: payload_bytes as usize,
            retain: self.retain,
            publishers,
            topic: template("topic", &self.topic)?,
            subscribers,
            filter: template("filter", &self.filter)?,
            idle,
            attendance,
            persistent: match (overrides.persistent, self.persistent) {
                (Some(persistent), _) => persistent,
                (None, Some(raw)) => raw.into(),
                (None, None) if attendance == Attendance::Away => Persistent::Subscribers,
                (None, None) => Persistent::Nobody,
            },
            pace: match overrides.pace {
                Some(pace) => pace,
                None => self.pace.into(),
            },
            messages: overrides.messages.or(self.messages),
            limit: None,
            connect_rate,
            warm: match overrides.warm {
                Some(warm) => warm,
                None => secs("warm_secs", self.warm_secs)?,
            },
            measure: match overrides.measure {
                Some(measure) => measure,
                None => secs("secs", self.secs)?,
            },
            keep_alive_secs: self.keep_alive_secs,
            checked: true,
        };
        check_pace(scenario.pace)?;
        if let Some(messages) = scenario.messages {
            in_range("messages", messages, 1, MESSAGES_MAX)?;
        }
        scenario.checked()
    }
}

impl OneOrMore {
    fn check(&self) -> Result<Vec<QoS>, ScenarioError> {
        let all = match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        };
        let range = |bits: &u8| ScenarioError::Range {
            name: "qos",
            value: bits.to_string(),
            allowed: "0, 1, 2 or a list of them".to_owned(),
        };
        if all.is_empty() {
            return Err(range(&0));
        }
        all.iter().map(|bits| QoS::from_bits(*bits).ok_or_else(|| range(bits))).collect()
    }
}

impl From<RawPersistent> for Persistent {
    fn from(raw: RawPersistent) -> Self {
        match raw {
            RawPersistent::Nobody => Self::Nobody,
            RawPersistent::Subscribers => Self::Subscribers,
            RawPersistent::Everybody => Self::Everybody,
        }
    }
}

impl From<RawPace> for Pace {
    fn from(raw: RawPace) -> Self {
        match raw {
            RawPace::Window(window) => Self::Window(window),
            RawPace::Rate(rate) => Self::Open(Rate::Fixed(rate)),
            RawPace::Poisson(rate) => Self::Open(Rate::Poisson(rate)),
            RawPace::Ramp { from, to } => Self::Open(Rate::Ramp { from, to }),
            RawPace::Search { from, p99_us_max } => Self::Search(Search { from, p99_us_max }),
        }
    }
}

fn check_pace(pace: Pace) -> Result<(), ScenarioError> {
    let rates = match pace {
        Pace::Window(window) => return in_range("window", window, 1, u32::from(u16::MAX)),
        Pace::Open(Rate::Fixed(rate)) => [("rate", rate, RATE_MIN); 2],
        Pace::Open(Rate::Poisson(rate)) => [("poisson", rate, RATE_MIN); 2],
        Pace::Open(Rate::Ramp { from, to }) => {
            [("ramp.from", from, 0.0), ("ramp.to", to, if from > 0.0 { 0.0 } else { RATE_MIN })]
        }
        Pace::Search(search) => {
            in_range("search.p99_us_max", search.p99_us_max, 1, 60_000_000)?;
            [("search.from", search.from, RATE_MIN); 2]
        }
    };
    rates.into_iter().try_for_each(|(name, rate, min)| in_range(name, rate, min, RATE_MAX))
}

fn in_range<T: PartialOrd + std::fmt::Display>(
    name: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<(), ScenarioError> {
    // Not the negation: NaN is in no range.
    if value >= min && value <= max {
        return Ok(());
    }
    let (value, allowed) = (value.to_string(), format!("{min} to {max}"));
    Err(ScenarioError::Range { name, value, allowed })
}

fn secs(name: &'static str, value: f64) -> Result<Duration, ScenarioError> {
    in_range(name, value, 0.0, SECS_MAX)?;
    Ok(Duration::from_secs_f64(value))
}

fn version_of(number: u8) -> Result<Version, ScenarioError> {
    match number {
        3 => Ok(Version::V31),
        4 => Ok(Version::V311),
        5 => Ok(Version::V5),
        _ => Err(ScenarioError::Range {
            name: "version",
            value: number.to_string(),
            allowed: "3 (3.1), 4 (3.1.1) or 5 (5.0)".to_owned(),
        }),
    }
}

fn template(name: &'static str, text: &str) -> Result<Template, ScenarioError> {
    Template::parse(text).map_err(|error| ScenarioError::Template { name, error })
}

fn default_version() -> u8 {
    4
}

fn default_payload() -> u32 {
    64
}

fn default_topic() -> String {
    "%r/%i".to_owned()
}

fn default_warm() -> f64 {
    2.0
}

fn default_secs() -> f64 {
    10.0
}

fn default_keep_alive() -> u16 {
    60
}

/// Largest payload that can be asked for.
pub(crate) const PAYLOAD_BYTES_MAX: u32 = 256 * 1024 * 1024 - 1024;

/// Clients of one kind.
pub(crate) const CLIENTS_MAX: u32 = 10_000_000;

/// Messages of one publisher; as many as their numbers have digits for.
pub(crate) const MESSAGES_MAX: u64 = 9_999_999_999;

pub(crate) const RATE_MIN: f64 = 0.001;
pub(crate) const RATE_MAX: f64 = 100_000_000.0;

/// A week: well inside what the stamps can count.
pub(crate) const SECS_MAX: f64 = 604_800.0;

const FILE_BYTES_MAX: u64 = 1024 * 1024;

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../perf/scenarios/", $name, ".toml")))),*]
    };
}

/// Names and texts. The files lie in `perf/scenarios`, to be copied and changed.
const BUILT_IN: [(&str, &str); 22] = built_in![
    "p2p",
    "fan-out",
    "fan-in",
    "shared",
    "conn-storm",
    "idle",
    "retained",
    "offline-replay",
    "durable-p2p",
    "durable-fan-out",
    "qos-ladder",
    "mqttbs-conn-10k",
    "mqttbs-conn-1m",
    "mqttbs-fan-out-1-1k",
    "mqttbs-fan-out-5-1k",
    "mqttbs-p2p-1k",
    "mqttbs-p2p-50k",
    "mqttbs-fan-in-1k-5",
    "mqttbs-fan-in-50k-500",
    "mqttbs-small-p2p-5k",
    "mqttbs-small-fan-out-5-100",
    "mqttbs-small-fan-in-5k-50",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_is_sound_and_says_what_it_is() {
        for name in built_in_names() {
            let scenario = load(name, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(scenario.name, name);
            assert!(scenario.description.len() > 10, "{name}");
        }
    }

    #[test]
    fn the_command_line_wins() {
        let overrides = Overrides {
            qos: Some(QoS::ExactlyOnce),
            publishers: Some(3),
            pace: Some(Pace::Window(2)),
            ..Overrides::default()
        };
        let scenario = load("p2p", &overrides).unwrap();
        assert_eq!((scenario.publishers, scenario.subscribers), (3, 3), "pairs stay pairs");
        assert_eq!((scenario.qos(), scenario.pace), (QoS::ExactlyOnce, Pace::Window(2)));
        let unpaired = Overrides { subscribers: Some(2), ..overrides };
        assert!(load("p2p", &unpaired).unwrap_err().to_string().contains("as many"));
    }

    fn check(text: &str) -> Result<Scenario, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| error.to_string())?;
        raw.check("test".to_owned(), &Overrides::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_pace_can_be_written() {
        for (text, pace) in [
            ("window = 3", Pace::Window(3)),
            ("rate = 5.5", Pace::Open(Rate::Fixed(5.5))),
            ("poisson = 7.0", Pace::Open(Rate::Poisson(7.0))),
            ("ramp = { from = 0.0, to = 9.0 }", Pace::Open(Rate::Ramp { from: 0.0, to: 9.0 })),
            (
                "search = { from = 1.0, p99_us_max = 500 }",
                Pace::Search(Search { from: 1.0, p99_us_max: 500 }),
            ),
        ] {
            let text = format!("description='d'\npublishers=1\nsubscribers=1\n[pace]\n{text}");
            assert_eq!(check(&text).unwrap().pace, pace);
        }
    }

    #[test]
    fn faults_are_named() {
        for (text, hint) in [
            ("", "description"),
            ("description='d'", "no clients"),
            ("description='d'\nidle=1\nqoss=1", "unknown field `qoss`"),
            ("description='d'\nidle=1\nqos=3", "qos: 3 is not allowed"),
            ("description='d'\nidle=1\nqos=[]", "qos"),
            ("description='d'\nidle=1\nversion=6", "3 (3.1), 4 (3.1.1) or 5 (5.0)"),
            ("description='d'\npublishers=1\npayload_bytes=15", "16 bytes that identify it"),
            ("description='d'\npublishers=1\ntopic='%z'", "%z is no variable"),
            ("description='d'\npublishers=1\n[pace]\nwindow=0", "1 to 65535"),
            ("description='d'\npublishers=1\n[pace]\nrate=nan", "NaN is not allowed"),
            ("description='d'\npublishers=1\n[pace]\nspeed=1", "unknown variant `speed`"),
            ("description='d'\nidle=1\nsecs=-1", "-1 is not allowed"),
            (
                "description='d'\npublishers=1\nsubscribers=1\nattendance='away'\nmessages=1\nwarm_secs=0",
                "QoS 1 and 2 only",
            ),
            (
                "description='d'\npublishers=1\nsubscribers=1\nattendance='late'\nmessages=1\nwarm_secs=0",
                "set retain",
            ),
            (
                "description='d'\nqos=1\npublishers=1\nsubscribers=1\nattendance='away'\nmessages=1\nwarm_secs=0\npersistent='nobody'",
                "only if their sessions persist",
            ),
            ("description='d'\nidle=1\npersistent='me'", "unknown variant `me`"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = load("p3p", &Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("p3p") && error.contains("qos-ladder"), "{error}");
    }
}
