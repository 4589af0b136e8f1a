//! How runs end that are cut, or cannot be made.

use std::{
    io::Write as _,
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use crate::faults::{fake_broker, in_order};
use crate::harness::{Broker, Ended, Running, Scratch, each, free_port, run, run_with_result};

#[test]
fn an_absent_broker_is_named() {
    let port = free_port();
    for command in ["run p2p --publishers 1", "conn", "pub -t x", "sub -t x"] {
        let (ended, json) = run_with_result(port, command);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(&format!("cannot connect to 127.0.0.1:{port}")), "{ended:?}");
        assert!(ended.stderr.contains("is a broker running there?"), "{ended:?}");
        assert_eq!(json["runs"].as_array().map(Vec::len), Some(0));
    }
    let broker = Broker::start_with(1);
    let ended = run(broker.port, "conn -c 1 --secs 0 -h no.such.host.invalid");
    assert!(ended.code == Some(2) && ended.stderr.contains("is unknown"), "{ended:?}");
    let ended = run(broker.port, "conn -c 1 --secs 0 -h no.such.host.invalid,127.0.0.1");
    assert_eq!(ended.code, Some(0), "the next host is tried: {ended:?}");
}

#[test]
fn a_broker_that_goes_away_leaves_a_partial_result() {
    let lines = [
        "run p2p --publishers 3 --warm 0 --secs 60 -q 1 --rate 300 --threads 2",
        "run qos-ladder --publishers 2 --warm 0 --secs 60",
        "sub -t x -c 3 -i 0",
    ];
    each(lines, |line| {
        let mut broker = Broker::start_with(1);
        let file = Scratch::new("json");
        let mut running = Running::start(broker.port, &format!("{line} --json {file}"));
        running.wait_for_load();
        broker.child.kill().unwrap();
        let ended = running.end();
        assert_eq!(ended.code, Some(2), "{line}: {ended:?}");
        assert!(ended.stdout.contains("NOT COMPLETE: failed: loadgen-"), "{line}: {ended:?}");
        assert!(ended.stdout.contains("the broker closed the connection"), "{line}: {ended:?}");
        let json = file.json();
        let [run] = json["runs"].as_array().unwrap().as_slice() else { panic!("{json}") };
        assert!(run["ended"].as_str().unwrap().starts_with("failed: "), "{line}: {run}");
        // What was on its way cannot be said to be lost.
        assert_eq!(run["whole_run"]["lost"], 0, "{line}: {run}");
        assert_eq!(run["sent"].as_u64() > Some(0), line.starts_with("run"), "{line}: {run}");
    });
}

#[test]
fn ctrl_c_ends_early_with_a_partial_result() {
    let broker = Broker::start_with(2);
    let lines = [
        "run fan-in --publishers 3 --warm 0 --secs 60 -q 2 --window 1",
        "run fan-in --publishers 3 --warm 60 --secs 60 -q 1 --rate 500 --threads 2",
        "run qos-ladder --publishers 3 --warm 0 --secs 60",
        "run offline-replay --publishers 3 --secs 60 --rate 100",
        "run idle --subscribers 3 --secs 60",
        "run conn-storm --idle 1000 -R 20",
    ];
    each(lines, |line| {
        let file = Scratch::new("json");
        let mut running = Running::start(broker.port, &format!("{line} --json {file}"));
        if line.contains("idle") {
            running.wait_for_line("connected");
        } else {
            running.wait_for_load();
        }
        running.signal("INT");
        let ended = running.end();
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        assert!(ended.stdout.contains("NOT COMPLETE: interrupted"), "{line}: {ended:?}");
        let json = file.json();
        let [run] = json["runs"].as_array().unwrap().as_slice() else { panic!("{json}") };
        let whole = &run["whole_run"];
        assert_eq!((&run["ended"], &whole["lost"]), (&"interrupted".into(), &0.into()), "{line}");
        // What was on its way has been waited for; subscribers that are away do not come back.
        let is_away = line.contains("offline");
        assert_eq!(whole["unfinished"] != 0, is_away, "{line}: {whole}");
        assert!(is_away || whole["sent"] == whole["delivered"], "{line}: {whole}");
    });
}

#[test]
fn ctrl_c_while_connecting_is_an_end_too() {
    let broker = Broker::start_with(1);
    for line in ["run p2p --publishers 100 -R 20", "pub -t x -c 100 -R 20 --threads 2"] {
        let mut running = Running::start(broker.port, line);
        running.wait_for_line("connected");
        running.signal("INT");
        let ended = running.end();
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        assert!(ended.stdout.contains("NOT COMPLETE: interrupted"), "{line}: {ended:?}");
    }
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    // It takes the broker seconds to send what it has got until the first.
    let port = fake_broker(|number, publish| {
        std::thread::sleep(Duration::from_millis(300));
        in_order(number, publish)
    });
    let mut running =
        Running::start(port, "run p2p --publishers 1 --rate 50 --warm 0 --secs 60 -q 1");
    running.wait_for_load();
    running.signal("INT");
    // Each second: two signals at once would be one.
    running.next_line();
    running.signal("INT");
    let ended = running.end();
    assert!(ended.code == Some(2) && ended.stdout.is_empty(), "{ended:?}");
}

#[test]
fn a_result_that_cannot_be_written_ends_it_before_it_begins() {
    let ended = run(free_port(), "run p2p --json /no/such/folder/x.json");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("cannot write /no/such/folder/x.json"), "{ended:?}");
}

#[test]
fn the_limit_on_open_files_is_raised_if_it_can_be() {
    let broker = Broker::start_with(1);
    let limited = |limits: &str| -> Ended {
        let program = env!("CARGO_BIN_EXE_loadgen");
        let port = broker.port;
        let line = format!("{limits}; exec {program} run conn-storm --idle 300 -p {port} --quiet");
        Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap().into()
    };
    let ended = limited("ulimit -Sn 200");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = limited("ulimit -n 200");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("300 clients need 348 file descriptors"), "{ended:?}");
    assert!(ended.stderr.contains("may have 200"), "{ended:?}");
}

#[test]
fn a_refused_connection_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map(Result::unwrap) {
            // Not authorized. It fails if it is the connection that only looks whether there is a broker.
            let _ = socket.write_all(b"\x20\x03\0\x87\0");
        }
    });
    let ended = run(port, "conn -c 3 -V 5 --prefix me");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("the broker refused the connection"), "{ended:?}");
    assert!(ended.stderr.contains("before the load began: me0"), "{ended:?}");
}

#[test]
fn wrong_options_are_answered_with_the_right_ones() {
    for (line, hint) in [
        ("run p2p --rate 0", "0.001"),
        ("run p3p", "built in are: p2p"),
        ("pub", "--topic"),
        ("run p2p --sec 5", "--secs"),
    ] {
        let ended = run(1, line);
        assert!(ended.code == Some(2) && ended.stderr.contains(hint), "{line}: {ended:?}");
    }
    for line in ["--help", "run --help", "conn --help", "pub --help", "sub --help"] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(line.split(' ')).output();
        let ended: Ended = output.unwrap().into();
        assert!(
            ended.code == Some(0) && ended.stdout.contains("Usage: loadgen"),
            "{line}: {ended:?}"
        );
    }
}
