//! `loadgen compare` against real brokers, and against commands that are none. No process may survive.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

mod common;

use self::common::{Scratch, broker_binary, free_port, mosquitto_binary, stderr, stdout};

#[test]
fn the_same_broker_twice_is_run_in_turn_and_ends_each_time() {
    let (a, b) = (free_port(), free_port());
    let json = Scratch::new("twice.json");
    let output = Compare::new("qos-ladder --publishers 3 --window 2 --secs 0.4 --warm 0.1")
        .start("first", a, &ringmq(a))
        // A shell that stays beside its broker: the tree's figures count, and all of it ends.
        .start("second", b, &format!("true; {}; true", ringmq(b)))
        .args(&["--rounds", "2", "--json", &json.to_string()])
        .output();
    let text = stdout(&output);
    // The generator of a debug build may have been the limit on a busy machine; nothing was lost.
    assert_ne!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    for qos in 0..3 {
        assert!(text.contains(&format!("qos-ladder QoS {qos}: 3 publishers")), "{text}");
    }
    assert!(text.contains("ratios to first") && text.contains("deliveries/s"), "{text}");
    for mark in ["NOT COMPLETE", "FAILED"] {
        assert!(!text.contains(mark), "{text}");
    }
    let file: Value = serde_json::from_slice(&fs::read(json.path()).unwrap()).unwrap();
    let runs = file["runs"].as_array().unwrap();
    let turns: Vec<_> = runs.iter().map(|run| (&run["label"], &run["round"])).collect();
    let expected = [("first", 1), ("second", 1), ("second", 2), ("first", 2)];
    for (turn, (label, round)) in turns.chunks(3).zip(expected) {
        assert!(turn.iter().all(|of| of.0 == label && of.1 == round), "{turns:?}");
    }
    for run in runs {
        assert_eq!(run["ended"], "complete");
        assert!(run["broker"]["rss_bytes_max"].as_u64().unwrap() > 2 << 20, "{run}");
    }
    let cpu_secs = |label| {
        let own = runs.iter().filter(move |run| run["label"] == label);
        own.map(|run| run["broker"]["cpu_secs"].as_f64().unwrap()).sum::<f64>()
    };
    assert!(cpu_secs("second") > cpu_secs("first") / 10.0, "the shell alone uses nothing");
    assert!(is_free(a) && is_free(b));
}

#[test]
fn mosquitto_if_it_is_installed() {
    let Some(mosquitto) = mosquitto_binary() else { return };
    let (own, other) = (free_port(), free_port());
    let config = Scratch::new("mosquitto.conf");
    let lines = format!("listener {other} 127.0.0.1\nallow_anonymous true\n");
    fs::write(config.path(), lines).unwrap();
    let command = format!("{} -c {}", mosquitto.display(), config);
    let output = Compare::new("p2p -q 1 --publishers 3 --rate 300 --secs 0.5 --warm 0.1")
        .start("ringmq", own, &ringmq(own))
        .start("mosquitto", other, &command)
        .args(&["--rounds", "1"])
        .output();
    let text = stdout(&output);
    assert_ne!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(!text.contains("NOT COMPLETE") && text.contains("latency p99 us"), "{text}");
    assert!(is_free(own) && is_free(other));
}

#[test]
fn a_broker_that_does_not_start_is_told_and_the_others_go_on() {
    let (dead, alive) = (free_port(), free_port());
    let output = Compare::new("p2p --publishers 2 --rate 100 --secs 0.3 --warm 0")
        .start("dead", dead, "echo no configuration >&2; exit 7")
        .start("alive", alive, &ringmq(alive))
        .args(&["--rounds", "2"])
        .output();
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let doubt = "! dead: round 1: NOT COMPLETE: failed: the broker has ended (exit status: 7)";
    assert!(text.contains(doubt) && text.contains("    no configuration\n"), "{text}");
    assert!(text.contains("! dead: round 2:"), "{text}");
    // Nothing else than that the generator was the limit, if other programs took its CPU.
    for alive in text.lines().filter(|line| line.starts_with("! alive")) {
        assert!(alive.ends_with("THE GENERATOR WAS THE LIMIT"), "{text}");
    }
}

#[test]
fn a_port_that_is_taken_is_told() {
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = squatter.local_addr().unwrap().port();
    let output = Compare::new("p2p --publishers 2 --secs 0.3")
        .start("late", port, &ringmq(port))
        .args(&["--rounds", "1"])
        .output();
    assert_eq!(output.status.code(), Some(2));
    let expected = format!("something answers on 127.0.0.1:{port} already");
    assert!(stdout(&output).contains(&expected), "{}", stdout(&output));
}

#[test]
fn a_broker_that_dies_in_its_round_is_told() {
    let port = free_port();
    let command = format!("{} & sleep 1; kill -KILL $!; wait $!", ringmq(port));
    let output = Compare::new("p2p --publishers 2 --rate 100 --secs 60 --warm 0")
        .start("mortal", port, &command)
        .args(&["--rounds", "1"])
        .output();
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("! mortal: round 1: NOT COMPLETE: failed: loadgen-"), "{text}");
    assert!(is_free(port));
}

/// Interrupted, and killed without a chance to do anything.
#[test]
fn no_broker_outlives_the_generator() {
    for signal in ["INT", "KILL"] {
        let port = free_port();
        let mut child = Compare::new("p2p --publishers 2 --rate 100 --secs 60 --warm 0")
            .start("ringmq", port, &ringmq(port))
            .command()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        assert!(lines.any(|line| line.contains("delivered")), "a live line");
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let status = child.wait().unwrap();
        if signal == "INT" {
            assert_eq!(status.code(), Some(2));
        } else {
            // The guard is at it.
            while !is_free(port) {
                std::thread::yield_now();
            }
        }
        assert!(is_free(port), "{signal}");
    }
}

/// A command line in the making.
struct Compare(Vec<String>);

impl Compare {
    /// Of a scenario and its options.
    fn new(line: &str) -> Self {
        let mut words = line.split_whitespace().map(str::to_owned);
        let scenario = words.next().unwrap();
        let mut args: Vec<String> = words.collect();
        // What follows are the brokers; the scenario goes last.
        args.push(scenario);
        Self(args)
    }

    fn start(mut self, name: &str, port: u16, command: &str) -> Self {
        let scenario = self.0.pop().unwrap();
        self.0.extend(["--start".to_owned(), format!("{name}={command}")]);
        self.0.extend([format!("{name}=127.0.0.1:{port}"), scenario]);
        self
    }

    fn args(mut self, args: &[&str]) -> Self {
        self.0.splice(0..0, args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.arg("compare").args(&self.0).stdin(Stdio::null());
        command
    }

    fn output(&self) -> Output {
        self.command().output().unwrap()
    }
}

fn is_free(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err()
}

fn ringmq(port: u16) -> String {
    let binary = broker_binary().display();
    format!("'{binary}' --ephemeral --shards 1 -l 127.0.0.1:{port}")
}

#[test]
fn the_scripts_of_perf_explain_themselves_and_refuse_what_they_do_not_know() {
    let perf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf");
    for script in ["compare", "profile-fanout"] {
        let run = |option| Command::new(perf.join(script)).arg(option).output().unwrap();
        let (help, misuse) = (run("--help"), run("--nonsense"));
        assert!(help.status.success() && help.stdout.starts_with(b"Usage: perf/"), "{script}");
        assert_eq!(misuse.status.code(), Some(2), "{script}");
    }
}
