//! Several processes of `loadgen run` that make one load against the real broker.

mod common;

use std::{
    process::{Child, Output},
    time::{Duration, Instant},
};

use common::{Broker, Scratch, free_port, signal, spawn, stderr, stdout, wait_for};
use serde_json::Value;

/// Workers 2 to `count`, and then worker 1, which writes the file.
fn start(broker: &Broker, line: &str, count: u32, file: &Scratch) -> Vec<Child> {
    let leader = format!("127.0.0.1:{}", free_port());
    let worker = |number| format!("{line} --leader {leader} --worker {number}/{count}");
    let mut children: Vec<Child> =
        (2..=count).map(|number| spawn(broker, &worker(number))).collect();
    children.insert(0, spawn(broker, &format!("{} --json {file}", worker(1))));
    children
}

fn finish(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// Runs the line to its end on so many workers. Returns the leader's result.
#[track_caller]
fn run(broker: &Broker, name: &str, line: &str, count: u32) -> Value {
    let file = Scratch::new(name);
    for (number, output) in finish(start(broker, line, count, &file)).iter().enumerate() {
        let all = format!("{line}, worker {}: {}{}", number + 1, stdout(output), stderr(output));
        assert_eq!(output.status.code(), Some(0), "{all}");
        assert_eq!(stdout(output).is_empty(), number > 0, "the leader has the result: {all}");
        assert!(!stderr(output).contains("warning"), "one host has one clock: {all}");
    }
    file.json()
}

#[track_caller]
fn assert_whole(run: &Value, workers: u32, connected: u64) {
    assert_eq!(run["ended"], "complete", "{run}");
    assert_eq!(run["settings"]["workers"], workers);
    let whole = &run["whole_run"];
    assert_eq!(whole["connected"], connected, "{whole}");
    for count in ["lost", "unfinished", "duplicates", "reordered", "strays", "unsent"] {
        assert_eq!(whole[count], 0, "{count}: {whole}");
    }
}

#[test]
fn three_workers_make_a_closed_loop_of_pairs() {
    let broker = Broker::start();
    let line = "run p2p --publishers 7 -q 1 --window 4 --warm 0.2 --secs 2.5 --threads 2";
    let json = run(&broker, "pairs", line, 3);
    let run = &json["runs"][0];
    assert_whole(run, 3, 14);
    let sent = run["whole_run"]["sent"].as_u64().unwrap();
    assert!(sent > 100, "{sent}");
    assert_eq!(run["whole_run"]["delivered"], sent);
    let seconds = run["seconds"].as_array().unwrap();
    assert!(seconds.iter().any(|second| second["connected"] == 14), "{seconds:?}");
    let measured = run["sent"].as_u64().unwrap();
    assert_eq!(run["latency_us"]["publish_to_puback"]["count"], measured.max(1));
}

#[test]
fn a_schedule_is_kept_by_all_workers_together() {
    let broker = Broker::start();
    let line = "run fan-out --publishers 2 --subscribers 9 -q 2 --rate 200 --warm 0 --secs 1";
    let json = run(&broker, "schedule", line, 3);
    let run = &json["runs"][0];
    assert_whole(run, 3, 11);
    assert_eq!(
        (&run["whole_run"]["sent"], &run["whole_run"]["delivered"]),
        (&200.into(), &1800.into())
    );
    assert_eq!(run["latency_us"]["publish_to_delivery"]["count"], 1800);
    assert_eq!(run["latency_us"]["publish_to_pubcomp"]["count"], 200);
}

#[test]
fn groups_are_checked_at_one_worker() {
    let broker = Broker::start();
    let line = "run shared --publishers 4 --subscribers 3 -q 1 --rate 200 --warm 0 --secs 0.5";
    let json = run(&broker, "groups", line, 2);
    assert_whole(&json["runs"][0], 2, 7);
    assert_eq!(json["runs"][0]["whole_run"]["delivered"], 100);
}

#[test]
fn messages_wait_for_subscribers_at_another_worker() {
    let broker = Broker::start();
    for (name, line, connected, delivered) in [
        ("replay", "run offline-replay --publishers 4 -L 50", 8, 200),
        ("retained", "run retained --publishers 4 --subscribers 3 -L 20", 7, 240),
    ] {
        let json = run(&broker, name, line, 2);
        assert_whole(&json["runs"][0], 2, connected);
        assert_eq!(json["runs"][0]["whole_run"]["delivered"], delivered, "{name}");
        let latency = &json["runs"][0]["latency_us"]["return_to_delivery"];
        assert_eq!(latency["count"], delivered, "{name}");
    }
}

#[test]
fn members_make_every_run_of_the_command() {
    let broker = Broker::start();
    let line = "run qos-ladder --publishers 4 --warm 0 --secs 0.3";
    let json = run(&broker, "ladder", line, 2);
    for (qos, run) in json["runs"].as_array().unwrap().iter().enumerate() {
        assert_whole(run, 2, 8);
        assert_eq!(run["settings"]["qos"], qos);
    }
    assert_eq!(json["runs"].as_array().unwrap().len(), 3);
}

#[test]
fn a_window_across_workers_is_refused_at_once() {
    let broker = Broker::start();
    let file = Scratch::new("window");
    let line = "run fan-out --subscribers 4 --window 2";
    let from = Instant::now();
    for output in finish(start(&broker, line, 2, &file)) {
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        assert!(text.contains("arrive at another worker: give a rate instead"), "{text}");
    }
    assert!(from.elapsed() < Duration::from_secs(10), "nobody waits for the others");
}

#[test]
fn who_was_started_with_another_load_is_refused_and_can_come_again() {
    let broker = Broker::start();
    let leader = format!("127.0.0.1:{}", free_port());
    let worker = |number: &str, line: &str| {
        let line = format!("run {line} --warm 0 --secs 0.3 --worker {number} --leader {leader}");
        spawn(&broker, &line)
    };
    let mut first = worker("1/2", "p2p --publishers 4");
    wait_for(&mut first, "for worker 2");
    for (number, line, reasons) in [
        ("2/2", "p2p --publishers 6", &["publishers is 6 at worker 2 and 4 at worker 1"][..]),
        ("2/2", "p2p --publishers 4 --threads 2", &["threads is 2 at worker 2 and 1 at worker 1"]),
        ("2/3", "p2p --publishers 4", &["workers is 3 at worker 2 and 2 at worker 1"]),
        (
            "2/2",
            "fan-in --rate 5 -V 5",
            &[
                "scenario is \"fan-in\" at worker 2 and \"p2p\" at worker 1",
                "mqtt_version",
                "topic",
            ],
        ),
    ] {
        let output = worker(number, line).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        for reason in reasons {
            assert!(stderr(&output).contains(reason), "{}", stderr(&output));
        }
    }
    let second = worker("2/2", "p2p --publishers 4");
    for (number, output) in finish(vec![first, second]).iter().enumerate() {
        assert_eq!(output.status.code(), Some(0), "worker {}: {}", number + 1, stderr(output));
    }
}

/// Starts a long run on three workers and waits until it is in full swing.
fn start_long(broker: &Broker, file: &Scratch) -> Vec<Child> {
    let line = "run p2p --publishers 6 -q 1 --rate 300 --warm 0 --secs 60";
    let mut children = start(broker, line, 3, file);
    wait_for(&mut children[0], "1 s  sent");
    children
}

#[test]
fn a_member_that_dies_leaves_a_partial_result() {
    let broker = Broker::start();
    let file = Scratch::new("member-dies");
    let mut children = start_long(&broker, &file);
    children[1].kill().unwrap();
    let from = Instant::now();
    let outputs = finish(children);
    assert!(from.elapsed() < Duration::from_secs(10));
    let text = stdout(&outputs[0]);
    assert_eq!(outputs[0].status.code(), Some(2), "{text}");
    assert!(text.contains("NOT COMPLETE: failed: worker 2 (127.0.0.1:"), "{text}");
    assert!(text.contains("is gone: ") && text.contains("publish to PUBACK"), "{text}");
    let run = &file.json()["runs"][0];
    assert!(run["whole_run"]["delivered"].as_u64().unwrap() > 100, "{run}");
    assert_eq!(run["whole_run"]["lost"], 0, "nobody has waited for what is missing");
    assert_eq!(outputs[2].status.code(), Some(0), "it has left in order: {}", stderr(&outputs[2]));
}

#[test]
fn members_end_when_their_leader_dies() {
    let broker = Broker::start();
    let file = Scratch::new("leader-dies");
    let mut children = start_long(&broker, &file);
    children[0].kill().unwrap();
    let from = Instant::now();
    for output in finish(children).iter().skip(1) {
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(output).contains("loadgen: worker 1 is gone"), "{}", stderr(output));
    }
    assert!(from.elapsed() < Duration::from_secs(10));
}

#[test]
fn ctrl_c_at_a_member_ends_the_run_in_order() {
    let broker = Broker::start();
    let file = Scratch::new("ctrl-c");
    let children = start_long(&broker, &file);
    signal(&children[2], "INT");
    for output in finish(children) {
        assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    }
    let run = &file.json()["runs"][0];
    assert_eq!(run["ended"], "interrupted");
    let whole = &run["whole_run"];
    assert_eq!((&whole["delivered"], &whole["lost"]), (&whole["sent"], &0.into()), "{whole}");
}

#[test]
fn a_broker_that_goes_away_is_told_by_whoever_sees_it() {
    let mut broker = Broker::start();
    let file = Scratch::new("no-broker");
    let children = start_long(&broker, &file);
    broker.child.kill().unwrap();
    let outputs = finish(children);
    assert_eq!(outputs[0].status.code(), Some(2));
    let text = stdout(&outputs[0]);
    assert!(text.contains("the broker closed the connection"), "{text}");
    let outputs = finish(start(&broker, "run p2p --secs 0.1", 2, &file));
    assert!(outputs.iter().all(|output| output.status.code() == Some(2)));
    assert!(stderr(&outputs[1]).contains("worker 1 has given up: cannot connect to"));
}
