//! kill -9 at random moments under load: nothing acknowledged is lost, and nothing at QoS 2 comes twice.

use std::cell::RefCell;

use crate::book::Fault;
use crate::power::Disk;
use crate::process::{Ending, Recipe, Scratch};
use crate::random::Random;
use crate::run::{Plan, Verdict, run};

/// Kills in all with default settings, over the tests here.
const KILLS: u32 = 32;
/// The tests here that share them.
const RUNS: u32 = 4;
const LIFE_MILLIS_MAX: u64 = 500;

#[test]
fn one_shard_keeps_its_promises_through_kills() {
    ringmq(1, &Scratch::new(), &[1], None);
}

#[test]
fn two_shards_keep_their_promises_through_kills() {
    ringmq(2, &Scratch::new(), &[2], None);
}

#[test]
fn promises_are_kept_while_the_number_of_shards_changes() {
    ringmq(3, &Scratch::new(), &[1, 2, 2, 3], None);
}

/// The same against any broker; prints what the README shows. For example:
/// `RINGMQ_RECOVERY_BROKER='mosquitto -c FILE' cargo test --test recovery other -- --ignored --nocapture`
/// where FILE says `listener {port} 127.0.0.1` and `persistence_location {dir}/`.
#[test]
#[ignore = "measures the broker that RINGMQ_RECOVERY_BROKER names"]
fn another_broker() {
    let command = std::env::var("RINGMQ_RECOVERY_BROKER").expect("RINGMQ_RECOVERY_BROKER is set");
    let scratch = Scratch::new();
    let recipes = vec![Recipe::other(&scratch, &command)];
    // SIGTERM in place of SIGKILL shows what the checker says of a broker that may save its state.
    let is_gentle = std::env::var("RINGMQ_RECOVERY_SIGNAL").is_ok_and(|name| name == "TERM");
    let ending = if is_gentle { Ending::Terminate } else { Ending::Kill };
    // Long enough for one that saves its state once in a while.
    let life_millis_max = number("RINGMQ_RECOVERY_LIFE_MILLIS").unwrap_or(LIFE_MILLIS_MAX);
    let verdict = run(&Plan {
        seed: seed(0),
        kills: kills(),
        recipes,
        is_ringmq: false,
        ending,
        life_millis_max,
        after_kill: None,
    });
    print_table(&command, &verdict);
}

/// The same where each kill is a power cut too: what was not synced is lost at random.
#[test]
fn promises_are_kept_through_power_cuts() {
    let scratch = Scratch::new();
    let data = scratch.data();
    std::fs::create_dir(&data).expect("a directory");
    let disk = Disk::new();
    let Some(first) = disk.mount(&data) else {
        println!("SKIPPED: a file system can only be mounted by root");
        return;
    };
    let mounted = RefCell::new(Some(first));
    let cut = |random: &mut Random| {
        drop(mounted.take());
        disk.lose_power(random);
        mounted.replace(disk.mount(&data));
    };
    ringmq(4, &scratch, &[2], Some(&cut));
}

fn ringmq(
    stream: u64,
    scratch: &Scratch,
    shards: &[usize],
    after_kill: Option<&dyn Fn(&mut Random)>,
) {
    let settings = ["limits.queue_messages_max=1000000", "limits.queue_bytes_max=1000000000"];
    let recipe = Recipe::ringmq(scratch, 1, &settings);
    let recipes = shards.iter().map(|shards| recipe.clone().with_shards(*shards)).collect();
    let (seed, kills, ending) = (seed(stream), kills() / RUNS, Ending::Kill);
    let (is_ringmq, life_millis_max) = (true, LIFE_MILLIS_MAX);
    let plan = Plan { seed, kills, recipes, is_ringmq, ending, life_millis_max, after_kill };
    run(&plan).expect_sound(seed);
}

fn print_table(command: &str, verdict: &Verdict) {
    let rows = [
        ("kills", verdict.kills as usize),
        ("publications acknowledged", verdict.acknowledged),
        ("deliveries", verdict.deliveries as usize),
        ("lost for at least one subscriber", verdict.publications_lost),
        ("deliveries lost", verdict.count(Fault::Lost)),
        ("deliveries duplicated at QoS 2", verdict.count(Fault::Duplicated)),
        ("deliveries out of order", verdict.count(Fault::OutOfOrder)),
        ("sessions lost", verdict.count(Fault::SessionLost)),
        ("retained messages wrong", verdict.count(Fault::Retained)),
        ("other faults", verdict.count(Fault::Protocol)),
        ("refused to start", verdict.count(Fault::NoStart)),
    ];
    println!("\n| {command} | |\n|---|---|");
    rows.iter().for_each(|(what, count)| println!("| {what} | {count} |"));
    println!();
    for kind in [Fault::Protocol, Fault::NoStart, Fault::Duplicated, Fault::Retained] {
        let first = verdict.faults.iter().find(|(found, _)| *found == kind);
        first.iter().for_each(|(kind, what)| println!("first {kind:?}: {what}"));
    }
}

/// `RINGMQ_RECOVERY_SEED`; without it each test has a seed of its own.
fn seed(stream: u64) -> u64 {
    number("RINGMQ_RECOVERY_SEED").unwrap_or(0x5eed_0000 + stream)
}

/// `RINGMQ_KILLS`, in all tests together.
fn kills() -> u32 {
    number("RINGMQ_KILLS").map_or(KILLS, |kills| kills as u32)
}

/// An environment variable, decimal or hexadecimal.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}
