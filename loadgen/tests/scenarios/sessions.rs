//! Sessions that outlive their connections: what waits in them arrives once and in order, and none is left
//! in the broker afterwards.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::harness::{Broker, Running, Scratch, each, free_port, mosquitto, sound_run};

/// Clients `me-p0`, `me-s1` and so on.
const PREFIX: &str = "--prefix me-";

#[test]
fn what_waits_for_a_subscriber_is_counted_and_timed() {
    let config = Scratch::new("conf");
    let port = free_port();
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n"
    );
    std::fs::write(config.path(), text).unwrap();
    let (ringmq, mosquitto) = (Broker::start_with(2), mosquitto(config.path(), &[port]));
    for broker in [&ringmq, &mosquitto] {
        each([(1, 4), (1, 5), (2, 5), (2, 3)], |(qos, version)| {
            let line = format!(
                "run offline-replay --publishers 2 -L 200 -s 100 -q {qos} -V {version} --quiet --prefix {qos}{version}-"
            );
            let run = sound_run(broker.port, &line);
            let whole = &run["whole_run"];
            assert_eq!((&whole["sent"], &whole["delivered"]), (&400.into(), &400.into()), "{run}");
            for none in ["lost", "duplicates", "reordered", "unacknowledged", "sessions_left"] {
                assert_eq!(whole[none], 0, "{none}: {run}");
            }
            let number = |name: &str| run["replay"][name].as_f64().unwrap();
            assert!(number("publish_secs") > 0.0 && number("published_per_sec") > 0.0, "{run}");
            let latency = &run["latency_us"]["return_to_delivery"];
            assert_eq!(run["replay"]["first_delivery_us"], latency["min"], "{run}");
            assert_eq!(run["settings"]["persistent"], "subscribers");
            for number in [0, 1] {
                assert!(!has_session(broker, &format!("{qos}{version}-s{number}")), "{line}");
            }
        });
    }
}

#[test]
fn no_session_is_left_whichever_way_a_run_ends() {
    let broker = Broker::start_with(2);
    for line in [
        "durable-p2p --publishers 2 --warm 0 --secs 0.2",
        "durable-p2p --publishers 200 --warm 0 --secs 0.2 --threads 2",
        "durable-fan-out --subscribers 2 --warm 0 --secs 0.2",
        "p2p --publishers 2 -q 2 -V 5 --persistent everybody --warm 0 --secs 0.2",
    ] {
        let run = sound_run(broker.port, &format!("run {line} --quiet {PREFIX}"));
        assert_eq!(run["whole_run"]["sessions_left"], 0, "{line}: {run}");
        for client in ["me-p0", "me-p1", "me-s0", "me-s1"] {
            assert!(!has_session(&broker, client), "{line}: {client}");
        }
    }
    let line = format!("run durable-p2p --publishers 2 --warm 0 --secs 60 {PREFIX}");
    let mut running = Running::start(broker.port, &line);
    running.wait_for_load();
    assert!(has_session(&broker, "me-s0"), "and its connection is taken over");
    let ended = running.end();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for client in ["me-p0", "me-p1", "me-s0", "me-s1"] {
        assert!(!has_session(&broker, client), "{client}");
    }
}

/// The broker keeps what it is asked to keep: without this the tests above could not fail.
#[test]
fn a_session_that_is_not_ended_is_seen() {
    let broker = Broker::start_with(2);
    sound_run(broker.port, "sub -t x -q 1 -c 1 -V 4 -C false --secs 0 --quiet --prefix me-");
    assert!(has_session(&broker, "me-0"));
}

/// Whether a CONNECT finds a session; it does not make one that stays (MQTT 5.0 section 3.2.2.1.1).
fn has_session(broker: &Broker, client_id: &str) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
    // Without Clean Start, and without Session Expiry.
    let mut packet = vec![0x10, 13 + client_id.len() as u8, 0, 4];
    packet.extend(b"MQTT\x05\0\0\x3c\0\0");
    packet.push(client_id.len() as u8);
    packet.extend(client_id.bytes());
    stream.write_all(&packet).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
    connack[2] == 1
}
