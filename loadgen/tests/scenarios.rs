//! `loadgen run` against the real broker: every scenario at every QoS, and how runs end that cannot
//! be finished.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

#[test]
fn every_scenario_at_every_qos_loses_nothing() {
    let broker = Broker::start();
    let mut runs = Vec::new();
    for scenario in [
        "p2p --publishers 5 --window 4",
        "p2p --publishers 5 --rate 500",
        "fan-out --publishers 2 --subscribers 10 --window 2",
        "fan-out --subscribers 20 --rate 50",
        "fan-in --publishers 10 --subscribers 3 --window 2",
        "fan-in --publishers 10 --rate 500",
    ] {
        for (qos, version) in [(0, 4), (1, 5), (2, 4), (2, 5)] {
            runs.push(format!("run {scenario} -q {qos} -V {version} --secs 0.5 --warm 0.1"));
        }
    }
    // Side by side: their topics and client identifiers must not meet.
    for runs in runs.chunks(4) {
        let children: Vec<Child> = runs.iter().map(|run| spawn(&broker, run)).collect();
        for (run, child) in runs.iter().zip(children) {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(0), "{run}: {text}{}", stderr(&output));
            assert!(
                text.contains("publish to delivery") && !text.contains("NOT COMPLETE"),
                "{text}"
            );
            for (qos, steps) in [("-q 1", "PUBACK"), ("-q 2", "PUBREC"), ("-q 2", "PUBCOMP")] {
                assert_eq!(text.contains(steps), run.contains(qos), "{run}: {text}");
            }
        }
    }
}

#[test]
fn json_holds_the_result_and_what_repeats_it() {
    let broker = Broker::start();
    let file = std::env::temp_dir().join(format!("loadgen-{}.json", std::process::id()));
    let line = "run fan-out --subscribers 3 --rate 200 -q 2 -s 100 --warm 0 --secs 1.1 --json";
    let output = loadgen(&broker, &format!("{line} {}", file.display()));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 s  sent"), "a live line: {}", stderr(&output));
    let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!((&json["ended"], &json["options"]["qos"]), (&"complete".into(), &2.into()));
    // The schedule of 1.1 s, begun at its start.
    assert_eq!(json["whole_run"]["sent"], 220);
    assert_eq!(json["whole_run"]["delivered"], 660);
    for latency in ["publish_to_delivery", "publish_to_PUBREC", "publish_to_PUBCOMP"] {
        let count = if latency == "publish_to_delivery" { 660 } else { 220 };
        assert_eq!(json["latency_us"][latency]["count"], count, "{latency}");
    }
    assert!(json["machine"]["kernel"].is_string() && json["command"].is_array());
}

#[test]
fn an_absent_broker_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = command(port, "run p2p --publishers 1").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let expected = format!("cannot connect to 127.0.0.1:{port}");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    assert!(stderr(&output).contains("is a broker running there?"), "{}", stderr(&output));
}

#[test]
fn a_broker_that_goes_away_leaves_a_partial_result() {
    let mut broker = Broker::start();
    let mut child = spawn(&broker, "run p2p --publishers 3 --warm 0 --secs 60 -q 1 --rate 300");
    wait_for_live_line(&mut child);
    broker.child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("NOT COMPLETE: failed: loadgen-"), "{text}");
    assert!(text.contains("the broker closed the connection"), "{text}");
    assert!(text.contains("publish to PUBACK"), "{text}");
}

#[test]
fn ctrl_c_ends_early_with_a_partial_result() {
    let broker = Broker::start();
    let mut child = spawn(&broker, "run fan-in --publishers 3 --warm 0 --secs 60 -q 2 --window 1");
    wait_for_live_line(&mut child);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("NOT COMPLETE: interrupted") && !text.contains("unfinished"), "{text}");
}

#[test]
fn a_stall_of_the_broker_is_charged_to_every_message_it_held_up() {
    let broker = Broker::start();
    let file = std::env::temp_dir().join(format!("loadgen-stall-{}.json", std::process::id()));
    let line = "run p2p --publishers 1 --rate 500 --warm 0 --secs 2 --json";
    let mut child = spawn(&broker, &format!("{line} {}", file.display()));
    wait_for_live_line(&mut child);
    broker.signal("STOP");
    std::thread::sleep(Duration::from_millis(400));
    broker.signal("CONT");
    assert!(child.wait().unwrap().success());
    let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    // A fifth of the messages was due in the pause, so a tenth waited for at least half of it. A
    // generator that waits before it stamps would see one slow message.
    let p90 = json["latency_us"]["publish_to_delivery"]["p90"].as_u64().unwrap();
    assert!((150_000..1_000_000).contains(&p90), "p90 is {p90} us");
    assert_eq!(json["whole_run"]["delivered"], 1000);
}

/// Against a broker that acknowledges all QoS 1 messages and loses every third.
#[test]
fn loss_fails_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let liar = std::thread::spawn(move || {
        let (probe, _) = listener.accept().unwrap();
        drop(probe);
        let (publisher, _) = listener.accept().unwrap();
        let (subscriber, _) = listener.accept().unwrap();
        forget_every_third(publisher, subscriber);
    });
    let line = "run p2p --publishers 1 -q 1 -s 16 --rate 90 --warm 0 --secs 0.3";
    let output = command(port, line).output().unwrap();
    liar.join().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(text.contains("FAILED: 9 lost\n"), "{text}");
}

fn forget_every_third(mut publisher: TcpStream, mut subscriber: TcpStream) {
    read_packet(&mut publisher);
    publisher.write_all(b"\x20\x02\0\0").unwrap();
    read_packet(&mut subscriber);
    subscriber.write_all(b"\x20\x02\0\0").unwrap();
    read_packet(&mut subscriber);
    subscriber.write_all(b"\x90\x03\0\x01\x01").unwrap();
    let mut count = 0;
    loop {
        let publish = read_packet(&mut publisher);
        if publish[0] != 0x32 {
            // DISCONNECT.
            return;
        }
        let topic_len = usize::from(publish[3]);
        let id = &publish[4 + topic_len..][..2];
        publisher.write_all(&[0x40, 2, id[0], id[1]]).unwrap();
        count += 1;
        if count % 3 != 0 {
            subscriber.write_all(&publish).unwrap();
        }
    }
}

/// A packet of less than 128 bytes.
fn read_packet(socket: &mut TcpStream) -> Vec<u8> {
    let mut packet = vec![0; 2];
    socket.read_exact(&mut packet).unwrap();
    packet.resize(2 + usize::from(packet[1]), 0);
    socket.read_exact(&mut packet[2..]).unwrap();
    packet
}

fn loadgen(broker: &Broker, line: &str) -> Output {
    command(broker.port, line).output().unwrap()
}

fn spawn(broker: &Broker, line: &str) -> Child {
    let mut command = command(broker.port, line);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn command(port: u16, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(line.split_whitespace()).args(["-p", &port.to_string()]);
    command.stdin(Stdio::null());
    command
}

fn wait_for_live_line(child: &mut Child) {
    let live = child.stderr.as_mut().unwrap();
    let mut byte = [0];
    while byte != *b"\n" {
        live.read_exact(&mut byte).expect("a live line comes before the end");
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The broker of this workspace as a child process, killed when it goes out of scope.
struct Broker {
    child: Child,
    port: u16,
}

impl Broker {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let child = Command::new(broker_binary())
            .args(["--ephemeral", "--shards", "2", "-l", &listen])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut broker = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&listen).is_err() {
            assert!(broker.child.try_wait().unwrap().is_none(), "the broker ended while starting");
            assert!(Instant::now() < deadline, "the broker does not accept connections");
            std::thread::sleep(Duration::from_millis(5));
        }
        broker
    }
}

impl Broker {
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The broker binary in the folder of this profile, built if it is not there.
fn broker_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/PROFILE/deps/scenarios-HASH
        let own = std::env::current_exe().unwrap();
        let profile = own.parent().and_then(Path::parent).unwrap();
        let binary = profile.join("ringmq");
        if !binary.exists() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--package", "ringmq", "--bin", "ringmq", "--target-dir"]);
            cargo.arg(profile.parent().unwrap());
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success(), "the broker does not build");
        }
        binary
    })
}
