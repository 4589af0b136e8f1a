//! `conn`, `pub` and `sub`, alone and together.

use crate::harness::{Broker, Running, Scratch, each, run, run_with_result, sound_run};

#[test]
fn clients_connect_at_the_rate_and_stay_until_ctrl_c() {
    let broker = Broker::start_with(2);
    let file = Scratch::new("json");
    let mut conn = Running::start(broker.port, &format!("conn -c 100 -R 200 --json {file}"));
    conn.wait_for_line("connected 100 of 100");
    conn.signal("INT");
    let ended = conn.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let run = &file.json()["runs"][0];
    // The user's end is the end of a run that has no other.
    assert_eq!((&run["ended"], &run["settings"]["idle"]), (&"complete".into(), &100.into()));
    assert_eq!(run["latency_us"]["connect_to_connack"]["count"], 100);
}

#[test]
fn everything_that_pub_sends_arrives_at_sub_with_its_latency() {
    let broker = Broker::start_with(2);
    each([(0, 4), (1, 5), (2, 3)], |(qos, version)| {
        let file = Scratch::new("json");
        let line =
            format!("sub -t q{qos}/# -c 2 -i 0 -q {qos} -V {version} --secs 30 --json {file}");
        let mut sub = Running::start(broker.port, &line);
        sub.wait_for_load();
        // The measured time has begun by now.
        sub.next_line();
        let line = format!("pub -t q{qos}/%i -c 3 -i 0 -I 10 -L 100 -q {qos} -V {version} --quiet");
        let sent = sound_run(broker.port, &line);
        assert_eq!(
            (&sent["sent"], &sent["settings"]["pace"]),
            (&100.into(), &"300 messages/s".into())
        );
        for (step, at) in [("puback", 1), ("pubrec", 2), ("pubcomp", 2)] {
            let count = &sent["latency_us"][format!("publish_to_{step}")]["count"];
            assert_eq!(*count == 100, at == qos, "{step} at QoS {qos}");
        }
        let text =
            run(broker.port, &format!("pub -t q{qos}/x -c 1 -I 0 -L 50 -m hello -q {qos} --quiet"));
        assert_eq!(text.code, Some(0), "{text:?}");
        let mut delivered = 0;
        while delivered < 300 {
            let line = sub.next_line().expect("all 300 arrive before the end");
            let per_sec = line.split_once("delivered").and_then(|(_, rest)| rest.split_once("/s"));
            delivered += per_sec.unwrap().0.trim().parse::<u64>().unwrap();
        }
        sub.signal("INT");
        let ended = sub.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let run = &file.json()["runs"][0];
        assert_eq!(run["whole_run"]["delivered"], 300, "{ended:?}");
        // The texts are counted but not stamped.
        assert_eq!(run["latency_us"]["publish_to_delivery"]["count"], 200, "{ended:?}");
    });
}

#[test]
fn a_limit_is_reached_exactly() {
    let broker = Broker::start_with(1);
    for options in [
        "-c 7 -I 0 -L 1000 -q 0",
        "-c 7 -I 0 -L 1000 -q 1 -F 5",
        "-c 7 -I 0 -L 1000 -q 2 -F 0",
        "-c 7 -I 1 -L 1000 -q 1",
        "-c 20 -I 10 -L 3 -q 1",
        "-c 3 -I 1 -L 500 -q 1 --threads 2",
    ] {
        let line = format!("pub -t x/%i -i 0 {options} --quiet");
        let limit = if options.contains("1000") {
            1000
        } else if options.contains("500") {
            500
        } else {
            3
        };
        assert_eq!(sound_run(broker.port, &line)["whole_run"]["sent"], limit, "{line}");
    }
}

#[test]
fn variables_and_retained_texts() {
    let broker = Broker::start_with(1);
    let line =
        "pub -t %c/%i/%u/%m/x -c 2 -i 0 -I 1 -L 6 -q 1 -r -m on --prefix me -n 7 -u joe --quiet";
    assert_eq!(sound_run(broker.port, line)["whole_run"]["sent"], 6);
    let line = "sub -t +/%i/joe/# -c 2 -i 0 -n 7 --secs 0.3 --quiet";
    let run = sound_run(broker.port, line);
    assert_eq!(run["whole_run"]["delivered"], 6, "each message has its own topic: {run}");
}

#[test]
fn a_session_waits_if_it_is_to() {
    let broker = Broker::start_with(2);
    for (version, keep) in [(5, "-C false -x 60"), (4, "-C false")] {
        let sub = format!(
            "sub -t s{version}/%i -q 1 -c 2 -i 0 -V {version} --prefix s{version} {keep} --quiet"
        );
        sound_run(broker.port, &format!("{sub} --secs 0"));
        let line = format!("pub -t s{version}/%i -q 1 -c 2 -i 0 -I 0 -L 10 -V {version} --quiet");
        sound_run(broker.port, &line);
        let run = sound_run(broker.port, &format!("{sub} --secs 0.3"));
        assert_eq!(run["whole_run"]["delivered"], 10, "version {version}: {run}");
    }
}

#[test]
fn fifteen_thousand_connections_take_less_than_100_mib() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard: u64 = files.split_whitespace().nth(4).unwrap().parse().unwrap();
    // Each connection takes a descriptor of the broker too, which keeps some for itself.
    let count = 15_000.min(hard.saturating_sub(500));
    let broker = Broker::start_with(1);
    let (ended, json) =
        run_with_result(broker.port, &format!("conn -c {count} -i 0 --secs 0 --quiet"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let run = &json["runs"][0];
    assert_eq!(run["whole_run"]["connected"], count);
    let rss_bytes = run["generator"]["rss_bytes"].as_u64().unwrap();
    assert!(rss_bytes < 100 * 1024 * 1024, "{rss_bytes} bytes for {count} clients");
}
