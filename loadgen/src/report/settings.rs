//! What a run's settings mean for a comparison: which of them are the load, and all of them in words.

use crate::result::Settings;

use super::words;

/// Every setting with its value, in the order in which they are shown.
pub(super) fn rows(settings: &Settings) -> Vec<(&'static str, String)> {
    // Taken apart so that a new setting cannot be forgotten here.
    let Settings {
        scenario,
        host,
        port,
        transport,
        mqtt_version,
        qos,
        payload_bytes,
        publishers,
        subscribers,
        idle,
        topic,
        filter,
        retain,
        attendance,
        persistent,
        pace,
        rate_per_sec,
        messages,
        connect_rate,
        warm_secs,
        secs,
        threads,
        cpus,
        workers,
    } = settings;
    let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
    let rows = [
        ("scenario", scenario.clone()),
        ("QoS", qos.to_string()),
        ("MQTT version", mqtt_version.clone()),
        ("transport", transport.clone()),
        ("payload (bytes)", payload_bytes.to_string()),
        ("publishers", publishers.to_string()),
        ("subscribers", subscribers.to_string()),
        ("idle clients", idle.to_string()),
        ("subscribers are", attendance.clone()),
        ("sessions persist of", persistent.clone()),
        ("retain", retain.to_string()),
        (PACE, pace.clone()),
        (RATE, rate_per_sec.map_or("-".to_owned(), words::number)),
        ("messages per publisher", messages.map_or("-".to_owned(), |count| count.to_string())),
        ("connects/s (0: no limit)", connect_rate.to_string()),
        ("worker processes", workers.to_string()),
        (HOST, host.clone()),
        (PORT, port.to_string()),
        (TOPIC, topic.clone()),
        (FILTER, filter.clone()),
        (WARM, warm_secs.to_string()),
        (SECS, secs.to_string()),
        (THREADS, threads.to_string()),
        (CPUS, if cpus.is_empty() { "any".to_owned() } else { cpus.join(", ") }),
    ];
    rows.into_iter()
        .map(|(name, value)| (name, words::shortened(&value, VALUE_CHARS_MAX)))
        .collect()
}

/// Equal for runs of the same load, also at different rates.
pub(super) fn load_key(settings: &Settings) -> String {
    let mut key = rows(settings);
    key.retain(|(name, _)| ![PACE, RATE].contains(name) && !is_circumstance(name));
    // A closed loop is a load of its own, and so is each way of spacing messages.
    let kind: String = match settings.rate_per_sec {
        Some(_) => settings.pace.chars().filter(|c| !"0123456789.,_ ".contains(*c)).collect(),
        None => settings.pace.clone(),
    };
    format!("{key:?} {kind:?}")
}

/// The names of the settings that differ although the load is the same. The port is the broker's.
pub(super) fn differences(one: &Settings, other: &Settings) -> Vec<&'static str> {
    let both = rows(one).into_iter().zip(rows(other));
    let differ = both.filter(|((name, one), (_, other))| *name != PORT && one != other);
    differ.map(|((name, _), _)| name).collect()
}

/// Such as `50 publishers, 50 subscribers, 64 bytes, MQTT 5.0, tcp`.
pub(super) fn load_in_words(settings: &Settings) -> String {
    let mut parts = Vec::new();
    for (count, what) in [
        (settings.publishers, "publisher"),
        (settings.subscribers, "subscriber"),
        (settings.idle, "idle client"),
    ] {
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{} {what}{plural}", words::number(f64::from(count))));
        }
    }
    if settings.publishers > 0 {
        parts.push(format!("{} bytes", words::number(settings.payload_bytes as f64)));
    }
    if settings.attendance != "present" {
        parts.push(format!("subscribers {}", settings.attendance));
    }
    if !["", "nobody"].contains(&settings.persistent.as_str()) {
        parts.push(format!("sessions of {} persist", settings.persistent));
    }
    if settings.retain {
        parts.push("retained".to_owned());
    }
    if settings.connect_rate > 0.0 {
        parts.push(format!("{} connects/s", words::number(settings.connect_rate)));
    }
    if settings.workers > 1 {
        parts.push(format!("{} workers", settings.workers));
    }
    parts.push(format!("MQTT {}", settings.mqtt_version));
    parts.push(settings.transport.clone());
    words::shortened(&parts.join(", "), VALUE_CHARS_MAX)
}

/// Where and how long it was measured, rather than what.
fn is_circumstance(name: &str) -> bool {
    [HOST, PORT, TOPIC, FILTER, WARM, SECS, THREADS, CPUS].contains(&name)
}

/// Of what a file says; longer ones are cut.
const VALUE_CHARS_MAX: usize = 200;

const PACE: &str = "pace";
const RATE: &str = "messages/s";
const HOST: &str = "host";
const PORT: &str = "port";
const TOPIC: &str = "topic";
const FILTER: &str = "filter";
const WARM: &str = "warm-up (s)";
const SECS: &str = "measured (s)";
const THREADS: &str = "generator threads";
const CPUS: &str = "generator's CPUs";

#[cfg(test)]
mod tests {
    use super::{super::samples::Sample, *};

    #[test]
    fn runs_of_one_load_share_a_key_whatever_the_rate_and_the_broker() {
        let settings = |rate| Sample { rate, ..Sample::default() }.run().settings;
        let slow = settings(Some(1e3));
        let mut fast = settings(Some(2e3));
        (fast.port, fast.secs) = (1884, 60.0);
        assert_eq!(load_key(&slow), load_key(&fast));
        assert_ne!(load_key(&slow), load_key(&settings(None)));
        let mut poisson = slow.clone();
        poisson.pace.push_str(" (poisson)");
        assert_ne!(load_key(&slow), load_key(&poisson));
        let mut larger = slow.clone();
        larger.payload_bytes = 1 << 20;
        assert_ne!(load_key(&slow), load_key(&larger));
    }

    #[test]
    fn a_difference_that_is_not_the_brokers_is_named() {
        let one = Sample::default().run().settings;
        let mut other = one.clone();
        (other.port, other.threads, other.cpus) = (1999, 8, Vec::new());
        assert_eq!(differences(&one, &other), ["generator threads", "generator's CPUs"]);
    }
}
