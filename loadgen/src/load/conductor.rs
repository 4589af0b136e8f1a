//! The course of a run: connect, load, drain, leave. Tells the threads what to do and puts together what
//! they report, those of other workers like those of this process. Runs on the main thread, which makes no
//! load itself.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use super::{
    crew::{Crew, LoadSetup},
    leader::{Leader, Member},
    orders::{News, Order, Standing, Whom},
};
use crate::{
    clock::{Clock, SECOND, nanos},
    machine::{self, Usage},
    record::{Latency, Tally},
    result::{BrokerUsage, Second},
    scenario::{Attendance, Persistent},
};

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) ended: Ended,
    /// From the first connection until the last client was ready, or none became so any more.
    pub(crate) connect_secs: f64,
    pub(crate) measured: Duration,
    /// From the first message until all were acknowledged, if the subscribers came for them after that.
    pub(crate) published_in: Option<Duration>,
    pub(crate) seconds: Vec<Second>,
    pub(crate) broker: Option<BrokerUsage>,
    pub(crate) rss_bytes: u64,
}

/// How the load came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Complete,
    Interrupted,
    Failed(String),
}

/// Why there is no result at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("before the load began: {0}")]
    Failed(String),
    #[error("{ready} of {clients} clients connected and subscribed, the others got no answer")]
    NotReady { ready: u64, clients: u64 },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A part of a run that is told while it goes on.
pub(crate) enum Interval<'a> {
    Second(&'a Second, &'a Latency),
    /// What was left after the last second.
    Rest(&'a Second, &'a Latency),
}

/// Connects, makes the load, disconnects: this process, and all members that the leader has made ready
/// for it. `live` is called each second.
///
/// # Errors
/// The load did not begin. What happens later is part of the outcome.
pub(crate) fn run(
    setup: LoadSetup,
    leader: &mut Leader,
    interrupt: &AtomicBool,
    live: &mut dyn FnMut(Interval<'_>),
) -> Result<Outcome, RunError> {
    let mut conductor = Conductor::start(setup, leader.members(), interrupt, live)?;
    let connecting_is_all = conductor.setup.scenario.publishers == 0;
    let ended = match conductor.prepare() {
        Ok(true) => Ok(conductor.perform()),
        Ok(false) => Ok(Ended::Interrupted),
        Err(error) => Err(error),
    };
    conductor.dismiss();
    let ended = match ended {
        // Then those that did connect are a result.
        Err(error) if connecting_is_all && conductor.connected() > 0 => {
            Ended::Failed(error.to_string())
        }
        ended => ended?,
    };
    Ok(conductor.outcome(ended))
}

struct Conductor<'a> {
    setup: LoadSetup,
    interrupt: &'a AtomicBool,
    live: &'a mut dyn FnMut(Interval<'_>),
    clock: Clock,
    crew: Crew,
    members: &'a mut [Member],
    news: mpsc::Receiver<(usize, News)>,
    /// By thread, of all workers.
    reports: Vec<Report>,
    failure: Option<String>,
    tally: Tally,
    /// Whatever is missing now would not have come.
    has_waited: bool,
    /// Since the beginning of the load, or of the connecting if nothing is published.
    epoch: u64,
    next_second: u64,
    latency: Latency,
    before: Totals,
    seconds: Vec<Second>,
    connect_secs: f64,
    measured: (u64, u64),
    published_in: Option<Duration>,
    broker: BrokerSamples,
    rss_bytes: u64,
}

/// What one thread has told so far.
#[derive(Clone, Default)]
struct Report {
    is_ready: bool,
    has_published: bool,
    has_ended: bool,
    /// `None` until it was asked and has answered.
    standing: Option<Standing>,
    totals: Totals,
    /// Of the process, if that is another worker's.
    usage: Usage,
}

#[derive(Clone, Copy, Default)]
struct Totals {
    connected: u64,
    sent: u64,
    delivered: u64,
    generator: Duration,
    broker: Duration,
}

#[derive(Default)]
struct BrokerSamples {
    before: Usage,
    connected: Usage,
    from: Usage,
    to: Usage,
    rss_bytes_max: u64,
}

impl<'a> Conductor<'a> {
    fn start(
        setup: LoadSetup,
        members: &'a mut [Member],
        interrupt: &'a AtomicBool,
        live: &'a mut dyn FnMut(Interval<'_>),
    ) -> Result<Self, RunError> {
        let clock = setup.clock;
        let (sender, news) = mpsc::channel();
        for member in members.iter_mut() {
            member.relay(sender.clone())?;
        }
        let crew = Crew::start(&setup, &sender)?;
        Ok(Self {
            interrupt,
            live,
            clock,
            reports: vec![Report::default(); setup.all_threads],
            crew,
            members,
            news,
            failure: None,
            tally: Tally::default(),
            has_waited: false,
            epoch: 0,
            next_second: SECOND + REPORT_AFTER,
            latency: Latency::default(),
            before: Totals::default(),
            seconds: Vec::new(),
            connect_secs: 0.0,
            measured: (0, 0),
            published_in: None,
            broker: BrokerSamples::default(),
            rss_bytes: 0,
            setup,
        })
    }

    /// Everything before the load, which is not to begin if the user has interrupted this.
    fn prepare(&mut self) -> Result<bool, RunError> {
        self.broker.before = self.broker_usage();
        self.before.broker = self.broker.before.cpu;
        let attendance = self.setup.scenario.attendance;
        let whom = match attendance {
            Attendance::Late => Whom::Publishers,
            Attendance::Present | Attendance::Away => Whom::Everybody,
        };
        let from = self.clock.now();
        self.connect(whom);
        let outcome = self.until_ready();
        let now = self.clock.now();
        self.connect_secs = Duration::from_nanos(now - from).as_secs_f64();
        if self.setup.scenario.measures_connecting() {
            self.measured = (from, now);
        }
        let mut is_ready = outcome?;
        if is_ready && attendance == Attendance::Away {
            self.order(&Order::Part);
            is_ready = self.until_ready()?;
        }
        self.broker.connected = self.broker_usage();
        Ok(is_ready)
    }

    /// The load, and what is left to arrive after it.
    fn perform(&mut self) -> Ended {
        let scenario = self.setup.scenario.clone();
        let start = self.clock.now() + HEAD_START;
        let measure = start + nanos(scenario.warm);
        let end = measure.saturating_add(nanos(scenario.measure));
        let [start_unix_us, measure_unix_us, end_unix_us] =
            [start, measure, end].map(|at| self.clock.to_unix_us(at));
        if scenario.publishers > 0 {
            self.start_counting(start);
        }
        self.order(&Order::Load { start_unix_us, measure_unix_us, end_unix_us });
        self.pump_until(measure, Self::is_interrupted);
        self.broker.from = self.broker_usage();
        let has_published = |own: &Self| own.reports.iter().all(|one| one.has_published);
        self.pump_until(u64::MAX, |own| own.is_interrupted() || has_published(own));
        let now = self.clock.now();
        if scenario.measures_connecting() {
            (self.broker.from, self.broker.to) = (self.broker.before, self.broker.connected);
        } else {
            self.measured = (measure, end.min(now).max(measure));
            self.broker.to = self.broker_usage();
        }
        let cut = self.is_interrupted() && now < end;
        self.order(&Order::Drain);
        self.has_waited = if scenario.attendance == Attendance::Present {
            self.drain(|all| all.unacknowledged + all.expected.saturating_sub(all.delivered))
        } else {
            let has_waited = self.drain(|all| all.unacknowledged);
            self.published_in = Some(Duration::from_nanos(self.clock.now() - start));
            has_waited && !cut && self.bring_back()
        };
        match &self.failure {
            Some(failure) => Ended::Failed(failure.clone()),
            None if !self.has_waited || cut && !scenario.is_endless() => Ended::Interrupted,
            None => Ended::Complete,
        }
    }

    /// Subscribers connect for what waits for them; this is what is measured then. Returns as
    /// [`Self::drain`].
    fn bring_back(&mut self) -> bool {
        self.broker.from = self.broker_usage();
        let from = self.clock.now();
        self.connect(Whom::Subscribers);
        let has_waited = match self.until_ready() {
            Ok(true) => self.drain(|all| all.expected.saturating_sub(all.delivered)),
            Ok(false) => false,
            Err(error) => {
                self.failure.get_or_insert_with(|| error.to_string());
                false
            }
        };
        self.broker.to = self.broker_usage();
        self.measured = (from, self.clock.now());
        has_waited
    }

    /// Waits until nothing is left, or nothing has changed for a while. Returns false if a failure or
    /// the user has put an end to it.
    fn drain(&mut self, left: impl Fn(&Standing) -> u64) -> bool {
        let was_interrupted = self.is_interrupted();
        let end = if was_interrupted { self.clock.now() + CUT_PATIENCE } else { u64::MAX };
        let (mut before, mut deadline) = (None, self.clock.now() + PATIENCE);
        loop {
            let now_left = self.standing().map(|all| left(&all));
            if now_left != before {
                (before, deadline) = (now_left, self.clock.now() + DRAIN_PATIENCE);
            }
            let now = self.clock.now();
            let is_disturbed = self.is_interrupted() != was_interrupted || now >= end;
            if self.failure.is_some() || is_disturbed {
                return false;
            }
            if now_left == Some(0) || now >= deadline {
                return true;
            }
            self.pump(deadline);
        }
    }

    /// Of all threads together; `None` until each has told it.
    fn standing(&self) -> Option<Standing> {
        self.reports.iter().try_fold(Standing::default(), |all, report| {
            let one = report.standing?;
            Some(Standing {
                expected: all.expected + one.expected,
                delivered: all.delivered + one.delivered,
                unacknowledged: all.unacknowledged + one.unacknowledged,
            })
        })
    }

    fn connect(&mut self, whom: Whom) {
        self.reports.iter_mut().for_each(|report| report.is_ready = false);
        let at_unix_us = self.clock.to_unix_us(self.clock.now());
        self.order(&Order::Connect { whom, at_unix_us });
    }

    /// Waits until all threads have done what they were told. As long as something moves there is hope.
    /// Returns false if the user has interrupted it.
    fn until_ready(&mut self) -> Result<bool, RunError> {
        let mut moved = (self.connected(), self.clock.now());
        let is_ready = |own: &Self| own.reports.iter().all(|one| one.is_ready);
        while !is_ready(self) {
            if let Some(failure) = &self.failure {
                return Err(RunError::Failed(failure.clone()));
            }
            if self.is_interrupted() {
                return Ok(false);
            }
            let now = self.clock.now();
            if self.connected() != moved.0 {
                moved = (self.connected(), now);
            }
            let slow = self.setup.scenario.connect_rate;
            let patience = PATIENCE + if slow > 0.0 { (2e9 / slow) as u64 } else { 0 };
            if now >= moved.1 + patience {
                let clients = u64::from(self.setup.plan.clients());
                return Err(RunError::NotReady { ready: self.connected(), clients });
            }
            self.pump_until(now + SECOND / 5, |own| own.is_interrupted() || is_ready(own));
        }
        Ok(true)
    }

    fn connected(&self) -> u64 {
        self.reports.iter().map(|one| one.totals.connected).sum()
    }

    fn order(&mut self, order: &Order) {
        for report in &mut self.reports {
            match order {
                Order::Part => report.is_ready = false,
                Order::Drain => report.standing = None,
                _ => {}
            }
        }
        // First to those who have to hear it over the network.
        self.members.iter_mut().for_each(|member| member.order(order));
        self.crew.order(order);
    }

    /// Sends everybody home and takes their results.
    fn dismiss(&mut self) {
        let own = machine::usage(std::process::id()).unwrap_or_default();
        self.rss_bytes =
            own.rss_bytes + self.reports.iter().map(|one| one.usage.rss_bytes).sum::<u64>();
        self.order(&Order::Leave);
        let keeps = self.setup.scenario.persistent != Persistent::Nobody;
        let patience = if keeps { FORGET_PATIENCE } else { LEAVE_PATIENCE };
        let deadline = self.clock.now() + patience;
        while !self.reports.iter().all(|one| one.has_ended) && self.clock.now() < deadline {
            self.pump(deadline);
        }
        let has_ended = |thread: usize| self.reports[thread].has_ended;
        self.crew.join(has_ended);
        for member in self.members.iter_mut().filter(|one| one.threads().all(has_ended)) {
            member.settle();
        }
        let (rest, latency) = self.take_second();
        (self.live)(Interval::Rest(&rest, &latency));
    }

    fn outcome(mut self, ended: Ended) -> Outcome {
        if self.setup.scenario.checked {
            let told = self.reports.iter().filter_map(|report| report.standing);
            let expected = told.map(|standing| standing.expected).sum();
            self.tally.missing(expected, self.has_waited);
        }
        if !self.has_waited {
            self.tally.forgive_unacknowledged();
        }
        let (from, mut to) = self.measured;
        if self.setup.scenario.attendance != Attendance::Present {
            to = to.min(self.tally.last_delivery).max(from);
        }
        let measured = Duration::from_nanos(to - from);
        let BrokerSamples { before, connected, from, to, rss_bytes_max } = self.broker;
        let cpu_secs = to.cpu.saturating_sub(from.cpu).as_secs_f64();
        let deliveries = self.tally.delivered_measured.max(1) as f64;
        let broker = self.setup.broker_pid.map(|_| BrokerUsage {
            cpu_secs,
            connect_cpu_secs: connected.cpu.saturating_sub(before.cpu).as_secs_f64(),
            cpu_us_per_delivery: cpu_secs * 1e6 / deliveries,
            deliveries_per_cpu_sec: if cpu_secs > 0.0 { deliveries / cpu_secs } else { 0.0 },
            rss_bytes_before: before.rss_bytes,
            rss_bytes_connected: connected.rss_bytes,
            rss_bytes_max: rss_bytes_max.max(connected.rss_bytes).max(to.rss_bytes),
        });
        let Self { tally, connect_secs, published_in, seconds, rss_bytes, .. } = self;
        Outcome { tally, ended, connect_secs, measured, published_in, seconds, broker, rss_bytes }
    }

    /// Takes in what the threads report until something is `done` or the time has come.
    fn pump_until(&mut self, deadline: u64, done: impl Fn(&Self) -> bool) {
        while !done(self) && self.failure.is_none() && self.clock.now() < deadline {
            self.pump(deadline);
        }
    }

    fn pump(&mut self, deadline: u64) {
        let now = self.clock.now();
        if now >= self.next_second {
            self.each_second();
        }
        let wait = deadline.min(self.next_second).saturating_sub(now).min(SECOND / 10);
        match self.news.recv_timeout(Duration::from_nanos(wait)) {
            Ok((thread, news)) => self.take_in(thread, news),
            Err(RecvTimeoutError::Timeout) => {}
            // All threads have ended.
            Err(RecvTimeoutError::Disconnected) => {
                self.reports.iter_mut().for_each(|report| report.has_ended = true);
                self.failure.get_or_insert_with(|| "the load's threads have ended".to_owned());
            }
        }
    }

    fn take_in(&mut self, thread: usize, news: News) {
        let Some(report) = self.reports.get_mut(thread) else { return };
        match news {
            News::Ready => report.is_ready = true,
            News::Published => report.has_published = true,
            News::Standing(standing) => report.standing = Some(standing),
            News::Second(second) => {
                report.totals.connected = second.connected;
                report.totals.sent = second.sent;
                report.totals.delivered = second.delivered;
                self.latency.merge(&second.latency);
            }
            News::Failed(failure) => {
                self.failure.get_or_insert(failure);
            }
            News::Ended(tally) => {
                report.has_ended = true;
                self.tally.add(&tally);
            }
            News::Usage(usage) => report.usage = usage,
            // As if it had been pressed here.
            News::Interrupted => self.interrupt.store(true, Ordering::Relaxed),
        }
    }

    fn start_counting(&mut self, epoch: u64) {
        (self.epoch, self.next_second) = (epoch, epoch + SECOND + REPORT_AFTER);
        self.seconds.clear();
        self.before = Totals { broker: self.broker_usage().cpu, ..self.totals() };
    }

    fn totals(&self) -> Totals {
        let own = machine::usage(std::process::id()).unwrap_or_default();
        let mut all = Totals { generator: own.cpu, ..Totals::default() };
        for Report { totals, usage, .. } in &self.reports {
            all.generator += usage.cpu;
            all.connected += totals.connected;
            all.sent += totals.sent;
            all.delivered += totals.delivered;
        }
        all
    }

    fn each_second(&mut self) {
        self.next_second += SECOND;
        let (second, latency) = self.take_second();
        self.seconds.push(second);
        (self.live)(Interval::Second(&second, &latency));
    }

    /// What has happened since the last call.
    fn take_second(&mut self) -> (Second, Latency) {
        let broker = self.broker_usage();
        self.broker.rss_bytes_max = self.broker.rss_bytes_max.max(broker.rss_bytes);
        let now = Totals { broker: broker.cpu, ..self.totals() };
        let before = std::mem::replace(&mut self.before, now);
        let latency = std::mem::take(&mut self.latency);
        let histogram = latency.histogram();
        let at = self.clock.now().saturating_sub(self.epoch + REPORT_AFTER);
        let share = |to: Duration, from: Duration| to.saturating_sub(from).as_secs_f64();
        let has_pid = self.setup.broker_pid.is_some();
        let second = Second {
            at_secs: (at as f64 / 1e8).round() / 10.0,
            connected: now.connected,
            sent: now.sent - before.sent,
            delivered: now.delivered - before.delivered,
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
            generator_cpu: share(now.generator, before.generator),
            broker_cpu: has_pid.then(|| share(now.broker, before.broker)),
            broker_rss_bytes: has_pid.then_some(broker.rss_bytes),
        };
        (second, latency)
    }

    fn broker_usage(&self) -> Usage {
        self.setup.broker_pid.and_then(machine::usage_of_tree).unwrap_or_default()
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}

/// From the order to the first message, so that all threads have heard it.
const HEAD_START: u64 = SECOND / 20;

/// From the end of a second to its report, so that all threads have told of it.
const REPORT_AFTER: u64 = SECOND / 20;

/// Time without any client becoming ready, or for threads to answer, after which the others are not
/// waited for.
const PATIENCE: u64 = 10 * SECOND;

/// Time without any arrival after which missing messages are lost: longer than a busy broker, or one on
/// a busy machine, stands still.
const DRAIN_PATIENCE: u64 = 4 * SECOND;

/// Longest wait for what is on its way when the user has ended the load.
const CUT_PATIENCE: u64 = 5 * SECOND;

/// Time for all threads to disconnect their clients.
const LEAVE_PATIENCE: u64 = 10 * SECOND;

/// The same if they have sessions to end.
const FORGET_PATIENCE: u64 = 120 * SECOND;
