//! From a scenario to results: one run for each QoS, or as many as a search for the highest rate takes.
//!
//! - `search`: how the highest rate is found
//! - `summary`: what a run's outcome comes to, in the form of a result

mod search;
mod summary;

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

use self::{
    search::find_highest,
    summary::{result, settings},
};
pub(crate) use self::{
    search::{Highest, is_in_time},
    summary::{BUSY_MAX, not_measured, result_file},
};
use crate::{
    client::Setup,
    clock::Clock,
    homes::Homes,
    load::{
        self, ConnectError, Interval, Leader, LoadSetup, Membership, Note, Route, Run, RunError,
        Share, TeamError, TeamOptions, Terms,
    },
    machine,
    plan::{Naming, Plan, PlanError},
    record::Latency,
    result::{RunResult, Second},
    scenario::{Pace, Rate, Scenario},
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
    /// On which shards of ringmq the clients are to live.
    pub(crate) homes: Option<Homes>,
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
                if results.last().is_some_and(|last| !last.is_complete()) {
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
        client: client(scenario, target, false),
        kept: client(scenario, target, true),
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
        homes: target.homes,
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
        ("homes", format!("{:?}", target.homes)),
        ("username", target.user_name.clone().unwrap_or_default()),
        ("clean_start", format!("{:?}", target.clean_start)),
        ("session_expiry_secs", format!("{:?}", target.session_expiry_secs)),
    ] {
        terms.insert(name.to_owned(), value);
    }
    Terms(terms)
}

/// Clients whose sessions outlive their connections (`keep`), or do not unless the command line says so.
fn client(scenario: &Scenario, target: &Target, keep: bool) -> Setup {
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

/// A session that is to wait for its client: longer than any run.
const KEPT_SESSION_SECS: u32 = 7 * 24 * 60 * 60;

/// Room in a packet for everything that is not payload.
const PACKET_BYTES_EXTRA: u32 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

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
