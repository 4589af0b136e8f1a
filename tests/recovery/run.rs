//! One run: a load, a broker that is killed under it, and the judgement.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::book::{Book, Fault, Phase, Taker};
use crate::link::{Identity, Link, Packet};
use crate::payload::Payload;
use crate::process::{Ending, Process, Recipe};
use crate::publisher::{Kind, Publisher};
use crate::random::Random;
use crate::subscriber::{Habit, Subscriber};

/// What is to be run.
pub(crate) struct Plan<'a> {
    pub(crate) seed: u64,
    pub(crate) kills: u32,
    /// The broker's lives, in turn.
    pub(crate) recipes: Vec<Recipe>,
    /// ringmq, of which more is expected than of others: `$delayed/`, and one copy of a message
    /// for a client with overlapping subscriptions.
    pub(crate) is_ringmq: bool,
    /// How each life ends.
    pub(crate) ending: Ending,
    /// A life that is not cut short ends at random before this time.
    pub(crate) life_millis_max: u64,
    /// What happens to the disk then, with a stream of the seed's.
    pub(crate) after_kill: Option<&'a dyn Fn(&mut Random)>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) kills: u32,
    pub(crate) acknowledged: usize,
    /// Acknowledged ones that somebody has not got; [`Fault::Lost`] counts each who has not.
    pub(crate) publications_lost: usize,
    pub(crate) deliveries: u64,
    pub(crate) faults: Vec<(Fault, String)>,
}

impl Verdict {
    pub(crate) fn count(&self, fault: Fault) -> usize {
        self.faults.iter().filter(|(kind, _)| *kind == fault).count()
    }

    /// No faults, or a report of them.
    #[track_caller]
    pub(crate) fn expect_sound(&self, seed: u64) {
        println!(
            "seed {seed:#x}: {} kills, {} acknowledged, {} deliveries",
            self.kills, self.acknowledged, self.deliveries
        );
        let shown: Vec<String> = self
            .faults
            .iter()
            .take(FAULTS_SHOWN)
            .map(|(kind, what)| format!("  {kind:?} {what}"))
            .collect();
        assert!(
            self.faults.is_empty(),
            "{} faults; RINGMQ_RECOVERY_SEED={seed:#x} begins the same run\n{}",
            self.faults.len(),
            shown.join("\n")
        );
    }
}

/// A subscriber: name, version, filters with their QoS, habit. Members of a group stand together.
type Row = (&'static str, u8, &'static [(&'static str, u8)], Habit);

const SUBSCRIBERS: [Row; 11] = [
    ("all", 5, &[("r/#", 2)], Habit::Steady),
    ("exact", 4, &[("r/0/0", 2), ("r/1/1", 1), ("r/2/2", 2)], Habit::Steady),
    ("wildcard", 4, &[("r/+/0", 1)], Habit::Flapping),
    ("overlapping", 5, &[("r/0/#", 2), ("r/+/1", 2)], Habit::Slow),
    ("flapping", 5, &[("r/1/#", 2), ("r/2/#", 2)], Habit::Flapping),
    ("away", 5, &[("r/#", 2)], Habit::Away),
    ("late", 4, &[("r/#", 2)], Habit::Late(2)),
    ("first of two", 5, &[("$share/two/r/#", 2)], Habit::Slow),
    ("second of two", 5, &[("$share/two/r/#", 2)], Habit::Flapping),
    ("first of others", 5, &[("$share/others/r/+/1", 1)], Habit::Flapping),
    ("second of others", 5, &[("$share/others/r/+/1", 1)], Habit::Steady),
];

const PUBLISHERS: [Kind; 6] =
    [Kind::Plain, Kind::Plain, Kind::Plain, Kind::Retained, Kind::Retained, Kind::Delayed];

pub(crate) fn run(plan: &Plan) -> Verdict {
    let (takers, taker_of_row) = takers(plan.is_ringmq);
    let book = Arc::new(Book::new(PUBLISHERS.len(), takers));
    let port = plan.recipes[0].port;
    let mut driver = Driver { plan, book: &book, random: Random::new(plan.seed, 0), starts: 0 };
    std::thread::scope(|scope| {
        let process = driver.start();
        for (at, (name, version, filters, habit)) in SUBSCRIBERS.iter().enumerate() {
            // A small window keeps deliveries under way when the broker dies.
            let receive_max = if *habit == Habit::Slow { 10 } else { 50 };
            let who = Identity { client: (*name).to_owned(), version: *version, receive_max };
            let random = Random::new(plan.seed, 1 + at as u64);
            let taker = taker_of_row[at];
            let subscriber = Subscriber::new(&book, port, taker, (who, filters), *habit, random);
            scope.spawn(move || subscriber.run());
        }
        driver.wait_for_subscribers();
        for (number, kind) in PUBLISHERS.into_iter().enumerate() {
            if kind != Kind::Delayed || plan.is_ringmq {
                let publisher = Publisher::new(&book, port, number, kind, plan.seed);
                scope.spawn(move || publisher.run());
            }
        }
        driver.kill_again_and_again(process);
    });
    let missing = book.missing();
    missing.iter().for_each(|(_, what)| book.fault(Fault::Lost, what));
    let publications_lost = missing.iter().map(|(which, _)| *which).collect::<HashSet<_>>().len();
    Verdict {
        kills: book.kills(),
        publications_lost,
        acknowledged: book.acknowledged(),
        deliveries: book.deliveries(),
        faults: book.faults(),
    }
}

/// The takers, and which one each row of the table belongs to.
fn takers(is_ringmq: bool) -> (Vec<Taker>, Vec<usize>) {
    let mut takers: Vec<Taker> = Vec::new();
    let mut of_row = Vec::new();
    for (at, (name, _, filters, _)) in SUBSCRIBERS.iter().enumerate() {
        let is_member = filters[0].0.starts_with("$share/");
        if !is_member || at == 0 || SUBSCRIBERS[at - 1].2 != *filters {
            takers.push(Taker::new(name, filters, !is_ringmq));
        }
        of_row.push(takers.len() - 1);
    }
    (takers, of_row)
}

struct Driver<'a> {
    plan: &'a Plan<'a>,
    book: &'a Book,
    random: Random,
    starts: u32,
}

impl Driver<'_> {
    /// The next life.
    fn spawn(&mut self) -> Process {
        let recipe = &self.plan.recipes[self.starts as usize % self.plan.recipes.len()];
        self.starts += 1;
        recipe.spawn()
    }

    /// The next life that serves; those that do not are faults.
    fn start(&mut self) -> Process {
        for _ in 0..START_TRIES {
            let mut process = self.spawn();
            match process.wait_until_it_serves() {
                Ok(()) => return process,
                Err(why) => {
                    self.book.fault(Fault::NoStart, &format!("{why}\n{}", process.log()));
                }
            }
        }
        // The clients stop, so that this is told.
        self.book.set_phase(Phase::End);
        self.spawn()
    }

    fn wait_for_subscribers(&self) {
        let early = |habit: &Habit| !matches!(habit, Habit::Late(_));
        let deadline = Instant::now() + STALL_MAX;
        let count = SUBSCRIBERS.iter().filter(|row| early(&row.3)).count();
        while self.book.subscribers() < count && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
    }

    fn kill_again_and_again(&mut self, mut process: Process) {
        while self.book.kills() < self.plan.kills && self.book.phase() == Phase::Load {
            self.book.raise_quota(QUOTA_PER_KILL);
            std::thread::sleep(Duration::from_millis(self.random.below(self.plan.life_millis_max)));
            self.kill(process);
            // Some lives end before they have read what the former ones have left.
            while self.random.one_in(5) && self.book.kills() < self.plan.kills {
                let short_lived = self.spawn();
                std::thread::sleep(Duration::from_millis(self.random.below(40)));
                self.kill(short_lived);
            }
            process = self.start();
        }
        if self.book.phase() == Phase::Load {
            self.book.raise_quota(QUOTA_PER_KILL);
            self.book.set_phase(Phase::Drain);
            self.drain();
            // What was taken before stays taken.
            self.kill(process);
            process = self.start();
            self.drain();
            self.check_retained();
        }
        self.book.set_phase(Phase::End);
        process.kill();
    }

    fn kill(&mut self, process: Process) {
        self.book.count_kill();
        process.end(self.plan.ending);
        if let Some(after_kill) = self.plan.after_kill {
            after_kill(&mut self.random);
        }
    }

    /// Until all is delivered and silence has followed, or nothing moves any more.
    fn drain(&self) {
        let mut before = u64::MAX;
        let mut moved_at = Instant::now();
        loop {
            std::thread::sleep(QUIET / 4);
            let now = self.book.deliveries();
            if now != before {
                (before, moved_at) = (now, Instant::now());
            }
            let still = moved_at.elapsed();
            if still > STALL_MAX || still > QUIET && self.book.is_settled() {
                return;
            }
        }
    }

    /// As a newcomer finds them. Those of other topics do not matter: there are none.
    fn check_retained(&self) {
        let deadline = Instant::now() + STALL_MAX;
        let mut wrong = vec!["retained messages cannot be read".to_owned()];
        while !wrong.is_empty() && Instant::now() < deadline {
            let Ok(found) = retained(self.plan.recipes[0].port) else { continue };
            wrong = self.book.retained_wrong(&found);
        }
        wrong.iter().for_each(|what| self.book.fault(Fault::Retained, what));
    }
}

/// What a new subscriber to `keep/#` gets before it is quiet.
fn retained(port: u16) -> std::io::Result<HashMap<String, Payload>> {
    let who = Identity { client: "newcomer".to_owned(), version: 4, receive_max: 0 };
    let (mut link, _) = Link::open(port, &who, true)?;
    link.subscribe([("keep/#", 0)].into_iter());
    link.flush()?;
    let mut found = HashMap::new();
    while let Some(packet) = link.next(QUIET)? {
        if let Packet::Publish(delivered) = packet {
            let payload = Payload::read(&delivered.payload);
            found.insert(delivered.topic, payload.expect("only messages of ours"));
        }
    }
    Ok(found)
}

/// A publisher sends so many between two kills, if it can.
const QUOTA_PER_KILL: u32 = 120;
const START_TRIES: u32 = 5;
const FAULTS_SHOWN: usize = 20;
const QUIET: Duration = Duration::from_millis(400);
/// Without any progress for so long, there is none.
const STALL_MAX: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(5);
