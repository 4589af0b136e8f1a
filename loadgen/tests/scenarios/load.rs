//! Every scenario, QoS, version and pace against brokers that keep the rules: nothing is missing.

use crate::harness::{
    Broker, Scratch, each, free_port, mosquitto, run, run_with_result, sound_run,
};

/// Each built-in scenario, small.
const BUILT_IN: [&str; 22] = [
    "p2p --publishers 5 --warm 0.1 --secs 0.2",
    "fan-out --subscribers 20 --warm 0.1 --secs 0.2",
    "fan-in --publishers 10 --warm 0.1 --secs 0.2",
    "shared --publishers 10 --subscribers 3 --warm 0.1 --secs 0.2",
    "conn-storm --idle 300",
    "idle --subscribers 50 --secs 0.2",
    "retained --publishers 2 --subscribers 3 --messages 100",
    "offline-replay --publishers 3 --messages 100",
    "durable-p2p --publishers 5 --warm 0.1 --secs 0.2",
    "durable-fan-out --subscribers 20 --warm 0.1 --secs 0.2",
    "qos-ladder --publishers 3 --warm 0.1 --secs 0.2",
    "mqttbs-conn-10k --idle 30 --connrate 200 --secs 0.1",
    "mqttbs-conn-1m --idle 50 --secs 0.1",
    "mqttbs-fan-out-1-1k --subscribers 30 --rate 20 --warm 0 --secs 0.3",
    "mqttbs-fan-out-5-1k --subscribers 30 --warm 0 --secs 0.2",
    "mqttbs-p2p-1k --publishers 20 --rate 200 --warm 0 --secs 0.2",
    "mqttbs-p2p-50k --publishers 20 --rate 200 --warm 0 --secs 0.2",
    "mqttbs-fan-in-1k-5 --publishers 20 --rate 200 --warm 0 --secs 0.2",
    "mqttbs-fan-in-50k-500 --publishers 20 --subscribers 4 --rate 200 --warm 0 --secs 0.2",
    "mqttbs-small-p2p-5k --publishers 20 --rate 200 --warm 0 --secs 0.2",
    "mqttbs-small-fan-out-5-100 --subscribers 20 --warm 0 --secs 0.2",
    "mqttbs-small-fan-in-5k-50 --publishers 20 --subscribers 4 --rate 200 --warm 0 --secs 0.2",
];

fn every_built_in_scenario(broker: &Broker, options: &str) {
    for line in BUILT_IN {
        let (ended, json) = run_with_result(broker.port, &format!("run {line} {options}"));
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        let runs = json["runs"].as_array().unwrap();
        assert_eq!(runs.len(), if line.starts_with("qos-ladder") { 3 } else { 1 }, "{line}");
        for run in runs {
            let [sent, delivered] = ["sent", "delivered"].map(|name| &run["whole_run"][name]);
            let is_silent =
                ["conn-storm", "idle ", "mqttbs-conn"].iter().any(|one| line.starts_with(one));
            assert_eq!((sent == 0, delivered == 0), (is_silent, is_silent), "{line}: {ended:?}");
            let connected = run["whole_run"]["connected"].as_u64().unwrap();
            let returned = if line.starts_with("offline") { connected / 2 } else { 0 };
            let connects = &run["latency_us"]["connect_to_connack"]["count"];
            assert_eq!(*connects, connected + returned, "{line}: {ended:?}");
        }
    }
}

#[test]
fn every_built_in_scenario_is_sound_on_one_shard() {
    every_built_in_scenario(&Broker::start_with(1), "--quiet");
}

#[test]
fn every_built_in_scenario_is_sound_on_two_shards_from_two_threads() {
    every_built_in_scenario(&Broker::start_with(2), "--quiet --threads 2");
}

#[test]
fn every_qos_in_every_version_is_sound() {
    let broker = Broker::start_with(2);
    let config = Scratch::new("conf");
    let port = free_port();
    // Its limits on queues drop messages under load.
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n"
    );
    std::fs::write(config.path(), text).unwrap();
    let mosquitto = mosquitto(config.path(), &[port]);
    for broker in [&broker, &mosquitto] {
        for version in [3, 4, 5] {
            for (qos, steps) in [(0, &[][..]), (1, &["puback"]), (2, &["pubrec", "pubcomp"])] {
                let line = format!(
                    "run p2p --publishers 3 --window 4 -V {version} -q {qos} --warm 0 --secs 0.2 --quiet"
                );
                let run = sound_run(broker.port, &line);
                let count = |name: &str| &run["latency_us"][format!("publish_to_{name}")]["count"];
                for step in ["puback", "pubrec", "pubcomp"] {
                    assert_eq!(count(step).is_u64(), steps.contains(&step), "{line}");
                    assert!(!steps.contains(&step) || *count(step) == run["sent"], "{line}: {run}");
                }
                assert_eq!(*count("delivery"), run["sent"], "{line}: {run}");
            }
        }
    }
}

#[test]
fn each_pace_sends_what_it_says() {
    let broker = Broker::start_with(1);
    let rows = [
        ("--rate 500", 250..=250),
        ("--rate 500 --threads 2", 250..=250),
        ("--rate 500 -L 20", 40..=40),
        ("--window 1 -L 20", 40..=40),
        ("--ramp 0..1000", 250..=251),
        // Six standard deviations of the count.
        ("--poisson 500", 155..=345),
        ("--poisson 500 --threads 2", 155..=345),
    ];
    each(rows, |(pace, expected)| {
        let line = format!("run p2p --publishers 2 -q 1 {pace} --warm 0 --secs 0.5 --quiet");
        let run = sound_run(broker.port, &line);
        let sent = run["whole_run"]["sent"].as_u64().unwrap();
        assert!(expected.contains(&sent), "{line}: {sent}");
        assert_eq!(run["whole_run"]["delivered"], sent, "{line}");
        assert_eq!(run["latency_us"]["publish_to_delivery"]["count"], sent, "{line}");
    });
}

#[test]
fn the_warm_up_is_cut_off() {
    let broker = Broker::start_with(1);
    let line = "run p2p --publishers 2 --rate 500 --warm 0.4 --secs 0.2 --quiet";
    let run = sound_run(broker.port, line);
    assert_eq!(run["whole_run"]["sent"], 300);
    // By the time at which they were due.
    assert_eq!(run["latency_us"]["publish_to_delivery"]["count"], 100);
}

#[test]
fn a_scenario_can_come_from_a_file() {
    let broker = Broker::start_with(2);
    let file = Scratch::with(
        "toml",
        r#"
            description = "Two kinds of rooms"
            qos = [0, 2]
            version = 5
            payload_bytes = 20
            publishers = 4
            topic = "%r/rooms/%g/%i"
            subscribers = 2
            filter = "%r/+/%i/#"
            idle = 3
            warm_secs = 0
            secs = 0.2
            pace = { rate = 200 }
        "#,
    );
    let (ended, json) = run_with_result(broker.port, &format!("run {file} --quiet --label x"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for (run, qos) in json["runs"].as_array().unwrap().iter().zip([0, 2]) {
        assert_eq!((&run["label"], &run["settings"]["qos"]), (&"x".into(), &qos.into()));
        assert_eq!(
            (&run["settings"]["idle"], &run["whole_run"]["connected"]),
            (&3.into(), &9.into())
        );
        assert_eq!(
            (&run["whole_run"]["sent"], &run["whole_run"]["delivered"]),
            (&40.into(), &40.into())
        );
    }
    assert_eq!(json["format"], "ringmq-loadgen-1");
    assert!(json["machine"]["kernel"].is_string() && json["command"][1] == "run");
}

#[test]
fn faults_of_a_scenario_file_are_named_before_anything_is_connected() {
    for (text, hint) in [
        ("publishers = 1", "missing field `description`"),
        ("description = 'x'\nidle = 1\nspeed = 9", "unknown field `speed`"),
        ("description = 'x'\nidle = 1\nqos = 3", "qos: 3 is not allowed"),
        ("description = 'x'\npublishers = 1\ntopic = '%x'", "topic: %x is no variable"),
        ("description = 'x'\nsubscribers = 1\nfilter = '%m'", "not in filters"),
        ("description = ", "expected"),
    ] {
        let file = Scratch::with("toml", text);
        let ended = run(1, &format!("run {file}"));
        assert!(ended.code == Some(2) && ended.stderr.contains(hint), "{text}: {ended:?}");
    }
    let ended = run(1, "run no-such-file.toml");
    assert!(ended.stderr.contains("no scenario is called \"no-such-file.toml\""), "{ended:?}");
}

#[test]
fn topics_that_nobody_gets_are_refused() {
    let broker = Broker::start_with(1);
    for (topic, filter, hint) in [
        ("a", "b", "nobody subscribes to \"a\""),
        ("a/#", "#", "is no topic"),
        ("a", "a#", "no topic filter"),
    ] {
        let file = Scratch::with(
            "toml",
            &format!(
                "description = 'x'\npublishers = 1\ntopic = '{topic}'\nsubscribers = 1\nfilter = '{filter}'"
            ),
        );
        let ended = run(broker.port, &format!("run {file}"));
        assert!(ended.code == Some(2) && ended.stderr.contains(hint), "{topic}: {ended:?}");
    }
}
