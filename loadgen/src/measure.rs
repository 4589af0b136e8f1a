//! From a scenario to results: one run for each QoS, or as many as a search for the highest rate takes.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use ringmq::codec::Version;

use crate::{
    client::Setup,
    clock::Clock,
    load::{
        self, ConnectError, Ended, Interval, Leader, LoadSetup, Membership, Note, Outcome, Route,
        Run, RunError, Share, TeamError, TeamOptions, Terms,
    },
    machine,
    plan::{Naming, Plan, PlanError},
    record::{Latency, Violation},
    result::{
        Counts, FORMAT, Generator, LatencyName, LatencyResult, ResultFile, RunResult, Second,
        Settings,
    },
    scenario::{Attendance, Pace, Rate, Scenario, Search},
    transport::{TlsOptions, TransportError, TransportSetup},
};

/// Where the load goes, and from where: the same for all runs of one command.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Tried in this order.
    pub(crate) hosts: Vec<String>,
    pub(crate) port: u16,
    pub(crate) from: Vec<std::net::IpAddr>,
    pub(crate) tls: Option<TlsOptions>,
    /// Path of the WebSocket, if it is to be one.
    pub(crate) websocket_path: Option<String>,
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<String>,
    /// First part of the client identifiers; one that no other run has, if not given.
    pub(crate) prefix: Option<String>,
    /// Number of the first client of each kind.
    pub(crate) first: u64,
    /// Clean Start, if it is not for the scenario to say.
    pub(crate) clean_start: Option<bool>,
    pub(crate) session_expiry_secs: Option<u32>,
    /// Messages of a publisher without their last acknowledgement at once, if it is not for the
    /// scenario's pace to say.
    pub(crate) inflight_max: Option<u16>,
    /// The payload of all messages, if they are not to be stamped.
    pub(crate) payload: Option<Arc<[u8]>>,
    /// The CPU of each thread; any if not given.
    pub(crate) threads: Vec<Option<usize>>,
    /// The threads never sleep.
    pub(crate) spins: bool,
    /// The other processes that make the same load, if there are any.
    pub(crate) team: Option<TeamOptions>,
    /// To be watched.
    pub(crate) broker_pid: Option<u32>,
    pub(crate) label: String,
}

impl Target {
    fn workers(&self) -> u32 {
        self.team.as_ref().map_or(1, |team| team.workers)
    }

    /// Threads of all workers.
    fn all_threads(&self) -> usize {
        self.threads.len() * self.workers() as usize
    }

    /// Which of them are in this process.
    fn own_threads(&self) -> Range<usize> {
        let before = self.team.as_ref().map_or(0, |team| team.worker as usize - 1);
        let first = before * self.threads.len();
        first..first + self.threads.len()
    }
}

/// Why there is no result, or not all of them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Plan(#[from] PlanError),
    #[error("--pid: there is no process {0}")]
    NoProcess(u32),
    #[error("{0}")]
    Descriptors(#[from] machine::DescriptorsError),
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Team(#[from] TeamError),
}

/// What a measurement tells while it goes on.
pub(crate) enum Progress<'a> {
    /// Something that the user may want to know.
    Note(&'a str),
    /// Something that the user has to know.
    Warning(&'a str),
    /// A run begins.
    Run(&'a Scenario),
    Second(&'a Second, &'a Latency),
    /// What was left after the last second.
    Rest(&'a Second, &'a Latency),
    /// A run has ended.
    Result(&'a RunResult),
    /// A search has come to its end.
    Found(Highest),
}

/// What a search has found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Highest {
    /// The highest rate in time, if there was one.
    pub(crate) rate: Option<f64>,
    /// The next one was too much for the generator: the broker may serve more.
    pub(crate) was_generators_limit: bool,
}

/// Makes all runs of the scenario; what has been measured until an error is in `results` too. A run
/// that fails is the last, except in a search. There are no results where another worker leads.
pub(crate) fn measure(
    scenario: &Scenario,
    target: &Target,
    interrupt: &AtomicBool,
    tell: &mut dyn FnMut(Progress<'_>),
    results: &mut Vec<RunResult>,
) -> Result<(), MeasureError> {
    let Some(team) = &target.team else {
        return measure_all(scenario, target, &mut Leader::default(), interrupt, tell, results);
    };
    // Each worker finds out for itself, before it waits for others.
    let (own, threads) = (target.own_threads(), target.all_threads());
    Plan::new(scenario, &naming(scenario, target, &run_id()))?.check_workers(threads, &own)?;
    let terms = terms(scenario, target);
    let mut note = |note| match note {
        Note::Info(text) => tell(Progress::Note(&text)),
        Note::Warning(text) => tell(Progress::Warning(&text)),
    };
    if team.worker > 1 {
        let membership = Membership::join(team, terms, interrupt, &mut note)?;
        return serve(scenario, target, membership, interrupt);
    }
    let mut leader = Leader::assemble(team, &terms, own.len(), interrupt, &mut note)?;
    let outcome = measure_all(scenario, target, &mut leader, interrupt, tell, results);
    leader.dismiss(outcome.as_ref().err().map(ToString::to_string));
    outcome
}

fn measure_all(
    scenario: &Scenario,
    target: &Target,
    leader: &mut Leader,
    interrupt: &AtomicBool,
    tell: &mut dyn FnMut(Progress<'_>),
    results: &mut Vec<RunResult>,
) -> Result<(), MeasureError> {
    for qos in &scenario.qos {
        match scenario.pace {
            Pace::Search(search) => {
                let mut one_rate = |rate| {
                    let scenario = scenario.single(*qos, Pace::Open(Rate::Fixed(rate)));
                    measure_one(&scenario, target, leader, interrupt, tell)
                };
                if let Some(highest) = find_highest(search, &mut one_rate, results)? {
                    tell(Progress::Found(highest));
                }
            }
            pace => {
                let scenario = scenario.single(*qos, pace);
                results.push(measure_one(&scenario, target, leader, interrupt, tell)?);
                if results.last().is_some_and(|last| last.ended != COMPLETE) {
                    break;
                }
            }
        }
        if interrupt.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}

/// Makes this worker's part of all runs.
fn serve(
    scenario: &Scenario,
    target: &Target,
    mut membership: Membership,
    interrupt: &AtomicBool,
) -> Result<(), MeasureError> {
    while let Some(run) = membership.next_run(interrupt)? {
        let scenario = scenario.single(run.qos(), run.pace);
        match load_setup(&scenario, target, &run.id, run.clock()) {
            Ok(setup) => membership.serve(&setup, interrupt)?,
            Err(error) => {
                membership.refuse(error.to_string());
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Everything that one command has measured, for its file.
pub(crate) fn result_file(runs: Vec<RunResult>) -> ResultFile {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ResultFile {
        format: FORMAT.to_owned(),
        loadgen: env!("CARGO_PKG_VERSION").to_owned(),
        command: without_password(
            std::env::args_os().map(|one| one.to_string_lossy().into_owned()),
        ),
        finished_unix_secs: since_1970.as_secs(),
        machine: machine::facts(),
        runs,
    }
}

/// The command line as others may read it.
fn without_password(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_next = false;
    let hide = |argument: String| {
        if std::mem::replace(&mut is_next, matches!(argument.as_str(), "-P" | "-SP" | "--password"))
        {
            return "***".to_owned();
        }
        for name in ["--password=", "-P", "-SP"] {
            if argument.len() > name.len() && argument.starts_with(name) {
                return format!("{name}***");
            }
        }
        argument
    };
    arguments.map(hide).collect()
}

/// Doubles the rate until it is too high, then halves the gap. Finds nothing if the user has put an end
/// to it.
fn find_highest(
    search: Search,
    one_rate: &mut dyn FnMut(f64) -> Result<RunResult, MeasureError>,
    results: &mut Vec<RunResult>,
) -> Result<Option<Highest>, MeasureError> {
    let (mut good, mut bad, mut rate) = (0.0, f64::INFINITY, search.from);
    let mut was_generators_limit = false;
    for _ in 0..SEARCH_RUNS_MAX {
        let result = one_rate(rate)?;
        // A rate that is far too high may fail, which is an answer too.
        let go_on = result.ended != INTERRUPTED;
        if is_in_time(&result, search.p99_us_max) {
            good = rate;
        } else {
            bad = rate;
            was_generators_limit = result.generator.was_the_limit;
        }
        results.push(result);
        if !go_on {
            return Ok(None);
        }
        let is_found = bad.is_finite() && bad - good <= bad * SEARCH_PRECISION;
        if is_found || bad < SEARCH_RATE_MIN {
            break;
        }
        rate = if bad.is_infinite() { good * 2.0 } else { f64::midpoint(good, bad) };
    }
    Ok(Some(Highest { rate: Some(good).filter(|good| *good > 0.0), was_generators_limit }))
}

/// Whether the broker kept up: in time, and with nothing missing.
pub(crate) fn is_in_time(result: &RunResult, p99_us_max: u64) -> bool {
    let p99 = result.latency_us.get(&LatencyName::PublishToDelivery).map(|latency| latency.p99);
    let whole = result.whole_run;
    result.ended == COMPLETE
        && p99.is_some_and(|p99| p99 <= p99_us_max)
        && result.violations.is_empty()
        && whole.lost + whole.unsent == 0
        && !result.generator.was_the_limit
}

fn measure_one(
    scenario: &Scenario,
    target: &Target,
    leader: &mut Leader,
    interrupt: &AtomicBool,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Result<RunResult, MeasureError> {
    tell(Progress::Run(scenario));
    let (id, clock) = (run_id(), Clock::start());
    let run = Run::new(id.clone(), scenario.qos(), scenario.pace, &clock);
    let setup = load_setup(scenario, target, &id, clock)?;
    leader.begin(&run, interrupt)?;
    let outcome = load::run(setup, leader, interrupt, &mut |interval| match interval {
        Interval::Second(second, latency) => tell(Progress::Second(second, latency)),
        Interval::Rest(second, latency) => tell(Progress::Rest(second, latency)),
    })?;
    let result = result(scenario, target, outcome);
    tell(Progress::Result(&result));
    Ok(result)
}

/// This worker's part of the run of that name.
fn load_setup(
    scenario: &Scenario,
    target: &Target,
    run_id: &str,
    clock: Clock,
) -> Result<LoadSetup, MeasureError> {
    let naming = naming(scenario, target, run_id);
    let plan = Arc::new(Plan::new(scenario, &naming)?);
    let (own, all_threads) = (target.own_threads(), target.all_threads());
    let share = Share {
        worker: target.team.as_ref().map_or(1, |team| team.worker),
        clients: plan.clients_at(&own, all_threads),
        all_clients: plan.clients(),
    };
    machine::check_descriptors(share.clients, target.threads.len())?;
    if let Some(pid) = target.broker_pid
        && machine::usage_of_tree(pid).is_none()
    {
        return Err(MeasureError::NoProcess(pid));
    }
    let route = Route::find(&target.hosts, target.port, &target.from, share)?;
    let host = target.hosts.first().map_or("", String::as_str);
    let path = target.websocket_path.as_deref();
    let transport = TransportSetup::new(host, target.port, target.tls.as_ref(), path)?;
    Ok(LoadSetup {
        transport,
        client: client(scenario, target),
        plan,
        route,
        clock,
        threads: target.threads.clone(),
        spins: target.spins,
        first_thread: own.start,
        all_threads,
        tag: if scenario.checked { tag(&naming.run) } else { COMMON_TAG },
        payload: target.payload.clone(),
        broker_pid: target.broker_pid,
        scenario: Arc::new(scenario.clone()),
    })
}

fn naming(scenario: &Scenario, target: &Target, run_id: &str) -> Naming {
    Naming {
        prefix: target.prefix.clone().unwrap_or_else(|| prefix(scenario.version, run_id)),
        run: format!("loadgen-{run_id}"),
        user_name: target.user_name.clone().unwrap_or_default(),
        first: target.first,
        kinds: scenario.checked,
    }
}

/// What all workers have to be started with alike.
fn terms(scenario: &Scenario, target: &Target) -> Terms {
    let settings = serde_json::to_value(settings(scenario, target)).unwrap_or_default();
    let mut terms: BTreeMap<String, String> = match settings {
        serde_json::Value::Object(all) => {
            all.into_iter().map(|(name, value)| (name, value.to_string())).collect()
        }
        _ => BTreeMap::new(),
    };
    // Where the broker is and where a worker runs may differ; the rate is part of the pace.
    for own in ["host", "port", "cpus", "rate_per_sec"] {
        terms.remove(own);
    }
    let qos: Vec<u8> = scenario.qos.iter().map(|qos| qos.bits()).collect();
    for (name, value) in [
        ("qos", format!("{qos:?}")),
        ("checked", scenario.checked.to_string()),
        ("keep_alive_secs", scenario.keep_alive_secs.to_string()),
        ("prefix", target.prefix.clone().unwrap_or_default()),
        ("startnumber", target.first.to_string()),
        ("username", target.user_name.clone().unwrap_or_default()),
        ("clean_start", format!("{:?}", target.clean_start)),
        ("session_expiry_secs", format!("{:?}", target.session_expiry_secs)),
    ] {
        terms.insert(name.to_owned(), value);
    }
    Terms(terms)
}

fn client(scenario: &Scenario, target: &Target) -> Setup {
    let keep = scenario.attendance == Attendance::Away;
    Setup {
        version: scenario.version,
        qos: scenario.qos(),
        clean_start: target.clean_start.unwrap_or(!keep),
        session_expiry_secs: target.session_expiry_secs.unwrap_or(if keep {
            KEPT_SESSION_SECS
        } else {
            0
        }),
        keep_alive_secs: scenario.keep_alive_secs,
        user_name: target.user_name.clone(),
        password: target.password.clone(),
        inflight_max: target.inflight_max.unwrap_or(match scenario.pace {
            Pace::Window(window) => u16::try_from(window).unwrap_or(u16::MAX),
            Pace::Open(_) | Pace::Search(_) => u16::MAX,
        }),
        packet_bytes_max: if scenario.checked {
            scenario.payload_bytes as u32 + PACKET_BYTES_EXTRA
        } else {
            // What others publish is of any size.
            u32::MAX
        },
        expects_qos: scenario.checked,
    }
}

fn result(scenario: &Scenario, target: &Target, outcome: Outcome) -> RunResult {
    let Outcome { mut tally, ended, connect_secs, measured, seconds, broker, rss_bytes } = outcome;
    if scenario.topic.has_message_number() {
        // Only the messages of one topic have an order.
        tally.counts.reordered = 0;
    }
    let secs = measured.as_secs_f64();
    let per_sec = |count: u64| if secs > 0.0 { count as f64 / secs } else { 0.0 };
    let cpu_secs = tally.cpu_nanos as f64 / 1e9;
    let latency_us = tally
        .latencies
        .iter()
        .filter(|(_, latency)| !latency.is_empty())
        .map(|(name, latency)| (*name, LatencyResult::new(latency.histogram())));
    let latency_us: BTreeMap<_, _> = latency_us.collect();
    // Of late and returning subscribers only the deliveries are measured.
    let is_sending_measured = scenario.attendance == Attendance::Present;
    let sent = if is_sending_measured { tally.sent_measured } else { 0 };
    let messages = sent.max(tally.delivered_measured).max(1);
    // Without a measured time there is no share of it.
    let busy = if secs > 0.0 { tally.busy } else { 0.0 };
    let lateness = tally.latencies.get(&LatencyName::GeneratorLateness);
    let was_late = lateness.is_some_and(|lateness| {
        let late = lateness.histogram().count_between(LATENESS_US_MAX + 1, u64::MAX);
        // Beside a broker that is far slower it does not matter.
        let delivery = latency_us.get(&LatencyName::PublishToDelivery).map_or(0, |one| one.p99);
        let matters = lateness.histogram().value_at_quantile(0.99) * 4 > delivery;
        late * 100 > tally.sent_measured && matters
    });
    // A broker of one core that was even busier was the limit itself.
    let is_broker_full = broker.is_some_and(|one| (busy..1.05).contains(&(one.cpu_secs / secs)));
    RunResult {
        label: target.label.clone(),
        round: 1,
        settings: settings(scenario, target),
        ended: match ended {
            Ended::Complete => COMPLETE.to_owned(),
            Ended::Interrupted => INTERRUPTED.to_owned(),
            Ended::Failed(failure) => format!("failed: {failure}"),
        },
        connect_secs,
        measured_secs: secs,
        sent_per_sec: per_sec(sent).round(),
        delivered_per_sec: per_sec(tally.delivered_measured).round(),
        sent,
        delivered: tally.delivered_measured,
        whole_run: tally.counts,
        violations: tally.violations(scenario.qos()).iter().map(Violation::to_string).collect(),
        latency_us,
        seconds,
        generator: Generator {
            cpu_secs,
            wall_secs: secs,
            cpu_us_per_message: cpu_secs * 1e6 / messages as f64,
            busy,
            rss_bytes,
            was_the_limit: busy > BUSY_MAX && !is_broker_full || was_late,
        },
        broker,
    }
}

/// Stands for a run that could not begin.
pub(crate) fn not_measured(scenario: &Scenario, target: &Target, reason: &str) -> RunResult {
    RunResult {
        label: target.label.clone(),
        round: 1,
        settings: settings(scenario, target),
        ended: format!("failed: {reason}"),
        connect_secs: 0.0,
        measured_secs: 0.0,
        sent_per_sec: 0.0,
        delivered_per_sec: 0.0,
        sent: 0,
        delivered: 0,
        whole_run: Counts::default(),
        violations: Vec::new(),
        latency_us: BTreeMap::new(),
        seconds: Vec::new(),
        generator: Generator::default(),
        broker: None,
    }
}

fn settings(scenario: &Scenario, target: &Target) -> Settings {
    Settings {
        scenario: scenario.name.clone(),
        host: target.hosts.join(","),
        port: target.port,
        transport: match (&target.tls, &target.websocket_path) {
            (None, None) => "tcp",
            (Some(_), None) => "tls",
            (None, Some(_)) => "ws",
            (Some(_), Some(_)) => "wss",
        }
        .to_owned(),
        mqtt_version: match scenario.version {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        }
        .to_owned(),
        qos: scenario.qos().bits(),
        payload_bytes: scenario.payload_bytes,
        publishers: scenario.publishers,
        subscribers: scenario.subscribers,
        idle: scenario.idle,
        topic: scenario.topic.to_string(),
        filter: scenario.filter.to_string(),
        retain: scenario.retain,
        attendance: scenario.attendance.name().to_owned(),
        pace: match (scenario.pace, target.inflight_max) {
            (Pace::Window(_), Some(max)) => format!("as fast as {max} in flight allow"),
            (pace, _) => pace.describe(),
        },
        rate_per_sec: scenario.pace.rate_per_sec(),
        messages: scenario.messages,
        connect_rate: scenario.connect_rate,
        warm_secs: scenario.warm.as_secs_f64(),
        secs: if scenario.is_endless() { 0.0 } else { scenario.measure.as_secs_f64() },
        threads: target.threads.len(),
        cpus: target.threads.iter().copied().flatten().collect(),
        workers: target.workers(),
    }
}

/// Unlike that of any other run, also on other hosts: containers may all call their process 1.
fn run_id() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", std::process::id(), since_1970.as_micros() as u64 & 0xFF_FFFF_FFFF)
}

/// First part of the client identifiers. MQTT 3.1 has room for 23 characters, most of which are needed.
fn prefix(version: Version, run_id: &str) -> String {
    match version {
        Version::V31 => format!("lg{:08x}-", hash(run_id)),
        Version::V311 | Version::V5 => format!("loadgen-{run_id}-"),
    }
}

/// Messages of one run are told from those of others by this.
fn tag(run: &str) -> u16 {
    let hash = hash(run);
    ((hash >> 16 ^ hash) as u16) | 1
}

/// FNV-1a.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The tag of messages that are not checked, so that `sub` knows those of `pub`.
const COMMON_TAG: u16 = 0x4C64;

/// How a run ends that nothing has disturbed.
pub(crate) const COMPLETE: &str = "complete";

/// How a run ends that the user has cut short.
pub(crate) const INTERRUPTED: &str = "interrupted";

/// A session that is to wait for its client: longer than any run.
const KEPT_SESSION_SECS: u32 = 7 * 24 * 60 * 60;

/// Room in a packet for everything that is not payload.
const PACKET_BYTES_EXTRA: u32 = 256 * 1024;

/// Past it there was no idle time to speak of: the generator may have set the pace.
pub(crate) const BUSY_MAX: f64 = 0.95;

/// Messages that are sent later than this, one in a hundred, make a schedule worthless.
const LATENESS_US_MAX: u64 = 2_000;

/// A search ends when the gap between a good and a bad rate is this part of it, or after that many runs.
const SEARCH_PRECISION: f64 = 0.05;
const SEARCH_RUNS_MAX: usize = 40;

/// A broker that cannot do this much cannot do anything.
const SEARCH_RATE_MIN: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Counts;

    #[test]
    fn passwords_do_not_get_into_results() {
        for (line, expected) in [
            ("run p2p -P secret -p 1", "run p2p -P *** -p 1"),
            ("run -Psecret", "run -P***"),
            ("run -SPsecret", "run -SP***"),
            ("run -SP secret", "run -SP ***"),
            ("run --password secret", "run --password ***"),
            ("run --password=secret --port 1", "run --password=*** --port 1"),
        ] {
            let shown = without_password(line.split(' ').map(str::to_owned)).join(" ");
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn a_search_doubles_until_it_is_too_much_and_then_closes_in() {
        for (limit, found) in [(3700.0, 3500.0..=3700.0), (100.0, 93.0..=100.0), (0.5, 0.0..=0.5)] {
            let mut rates = Vec::new();
            let mut one_rate = |rate: f64| {
                rates.push(rate);
                Ok(sample(rate <= limit))
            };
            let search = Search { from: 100.0, p99_us_max: 1000 };
            let mut results = Vec::new();
            let highest = find_highest(search, &mut one_rate, &mut results).unwrap().unwrap();
            assert!(results.len() < 16, "{rates:?}");
            assert!(found.contains(&highest.rate.unwrap_or(0.0)), "{rates:?}");
            assert!(!highest.was_generators_limit);
        }
    }

    #[test]
    fn a_search_tells_if_the_generator_ended_it_and_nothing_if_the_user_did() {
        for (limit, ended, expected) in [
            (true, COMPLETE, Some(Highest { rate: None, was_generators_limit: true })),
            (false, INTERRUPTED, None),
        ] {
            let mut one_rate = |_| {
                let mut result = sample(true);
                result.generator.was_the_limit = limit;
                result.ended = ended.to_owned();
                Ok(result)
            };
            let search = Search { from: 2.0, p99_us_max: 1000 };
            let found = find_highest(search, &mut one_rate, &mut Vec::new()).unwrap();
            assert_eq!(found, expected);
        }
    }

    /// A result in time, or too late.
    fn sample(in_time: bool) -> RunResult {
        let mut histogram = hdrhistogram::Histogram::new(3).unwrap();
        histogram.record(if in_time { 900 } else { 1100 }).unwrap();
        let latency = LatencyResult::new(&histogram);
        serde_json::from_value(serde_json::json!({
            "label": "", "round": 1, "ended": COMPLETE, "measured_secs": 1.0,
            "settings": {
                "scenario": "p2p", "host": "", "port": 1, "transport": "tcp", "mqtt_version": "5.0",
                "qos": 0, "payload_bytes": 16, "publishers": 1, "subscribers": 1, "idle": 0,
                "topic": "", "filter": "", "retain": false, "attendance": "present", "pace": "",
                "rate_per_sec": 1.0, "messages": null, "connect_rate": 0.0, "warm_secs": 0.0,
                "secs": 1.0, "threads": 1, "cpus": [], "workers": 1
            },
            "sent_per_sec": 1.0, "delivered_per_sec": 1.0, "sent": 1, "delivered": 1,
            "whole_run": Counts::default(), "violations": [],
            "latency_us": { "publish_to_delivery": latency }, "seconds": [],
            "generator": Generator::default(), "broker": null
        }))
        .unwrap()
    }

    #[test]
    fn client_identifiers_fit_their_version() {
        let (one, other) = (run_id(), "ffffffff-ffffffffff");
        for version in [Version::V31, Version::V311, Version::V5] {
            let [one, other] = [one.as_str(), other].map(|id| prefix(version, id));
            assert_ne!(one, other);
            let max = if version == Version::V31 { 23 } else { 65_535 };
            assert!(format!("{other}s99999999").len() <= max);
        }
    }
}
