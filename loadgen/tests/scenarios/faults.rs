//! Brokers that break the rules: a run has to say which.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::harness::{each, run, run_with_result};

/// What a broker does with a message: the number of the message, from 0, and its PUBLISH.
pub(crate) type React = fn(u32, &[u8]) -> Reaction;

/// Packets for the publisher and for the subscriber.
pub(crate) struct Reaction(Vec<u8>, Vec<Vec<u8>>);

#[test]
fn what_a_broker_does_wrong_is_told() {
    let rows = [
        (every_third_lost as React, "-q 1", "9 lost"),
        (every_third_lost, "-q 1 --threads 2", "9 lost"),
        (one_twice, "-q 0", "1 delivered more than once"),
        (one_too_late, "-q 1", "1 delivered out of order"),
        (one_changed, "-q 1", "1 lost, 1 damaged or delivered to the wrong subscriber"),
        (one_cut_short, "-q 1", "1 lost, 1 damaged or delivered to the wrong subscriber"),
        (one_refused, "-q 1 -V 5", "1 refused"),
        (one_refused, "-q 1 -V 5 --window 1 -L 27", "1 refused"),
    ];
    each(rows, |(react, options, expected)| {
        let port = fake_broker(react);
        let pace = if options.contains("--window") { "" } else { "--rate 90" };
        let line = format!("run p2p --publishers 1 -s 16 {pace} --warm 0 --secs 0.3 {options}");
        let (ended, json) = run_with_result(port, &line);
        assert_eq!(ended.code, Some(1), "{expected}: {ended:?}");
        assert!(ended.stdout.contains(&format!("FAILED: {expected}\n")), "{expected}: {ended:?}");
        let violations = json["runs"][0]["violations"].as_array().unwrap();
        let violations: Vec<_> = violations.iter().filter_map(|one| one.as_str()).collect();
        assert_eq!(violations.join(", "), expected);
        assert_eq!(json["runs"][0]["whole_run"]["sent"], 27, "{expected}: {ended:?}");
    });
}

#[test]
fn what_a_qos_does_not_promise_is_no_fault() {
    let rows = [(every_third_lost as React, "-q 0", 9, 0), (one_twice, "-q 1", 0, 1)];
    each(rows, |(react, options, lost, duplicates)| {
        let line = format!("run p2p --publishers 1 --rate 90 --warm 0 --secs 0.3 {options}");
        let (ended, json) = run_with_result(fake_broker(react), &line);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let whole = &json["runs"][0]["whole_run"];
        assert_eq!((&whole["lost"], &whole["duplicates"]), (&lost.into(), &duplicates.into()));
    });
}

#[test]
fn a_window_does_not_wait_for_ever_for_what_qos_0_may_lose() {
    let line = "run p2p --publishers 1 --window 1 -L 4 --warm 0 --secs 20";
    let (ended, json) = run_with_result(fake_broker(every_third_lost), line);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let run = &json["runs"][0];
    assert_eq!((&run["whole_run"]["sent"], &run["whole_run"]["lost"]), (&4.into(), &1.into()));
    assert!(run["measured_secs"].as_f64() < Some(10.0), "{run}");
}

#[test]
fn what_breaks_the_protocol_ends_the_run() {
    for (react, hint) in [
        ((|_, _| Reaction(b"\0\0".to_vec(), vec![])) as React, "what is not MQTT"),
        (|_, _| Reaction(b"\x40\x02\x7f\xff".to_vec(), vec![]), "unexpected PUBACK"),
        (|_, _| Reaction(b"\xe0\x02\x8b\0".to_vec(), vec![]), "the broker closed the connection"),
    ] {
        let line = "run p2p --publishers 1 --rate 9 --warm 0 --secs 20 -q 1 -V 5";
        let ended = run(fake_broker(react), line);
        assert_eq!(ended.code, Some(2), "{hint}: {ended:?}");
        assert!(ended.stdout.contains("NOT COMPLETE: failed: loadgen-"), "{hint}: {ended:?}");
        assert!(ended.stdout.contains(hint), "{hint}: {ended:?}");
    }
}

#[test]
fn a_broker_that_says_nothing_is_not_waited_for_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let _held: Vec<_> = listener.incoming().collect();
    });
    let ended = run(port, "run p2p --publishers 1");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("0 of 2 clients connected and subscribed"), "{ended:?}");
}

#[test]
fn a_search_finds_what_a_slow_broker_can_do() {
    // 200 messages a second, or less on a busy machine; far more than that takes too long.
    let port = fake_broker(|number, publish| {
        std::thread::sleep(Duration::from_millis(5));
        in_order(number, publish)
    });
    let line =
        "run p2p --publishers 1 -q 1 --search 10 --p99-max 100000 --warm 0 --secs 0.5 --quiet";
    let (ended, json) = run_with_result(port, line);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let runs = json["runs"].as_array().unwrap();
    let rates: Vec<f64> =
        runs.iter().map(|run| run["settings"]["rate_per_sec"].as_f64().unwrap()).collect();
    assert_eq!(rates[..2], [10.0, 20.0]);
    let (_, found) = ended.stdout.split_once("highest rate in time: ").expect("one is found");
    let found: f64 = found.split(' ').next().unwrap().parse().unwrap();
    assert!((10.0..400.0).contains(&found), "{found} of {rates:?}");
}

pub(crate) fn in_order(_: u32, publish: &[u8]) -> Reaction {
    Reaction(puback(publish), vec![publish.to_vec()])
}

fn every_third_lost(number: u32, publish: &[u8]) -> Reaction {
    let deliveries = if number % 3 == 2 { vec![] } else { vec![publish.to_vec()] };
    Reaction(puback(publish), deliveries)
}

fn one_twice(number: u32, publish: &[u8]) -> Reaction {
    Reaction(puback(publish), vec![publish.to_vec(); if number == 5 { 2 } else { 1 }])
}

fn one_too_late(number: u32, publish: &[u8]) -> Reaction {
    let deliveries = match number {
        5 => vec![],
        // The sequence number is the end of the first half of a stamp.
        6 => {
            let (mut before, at) = (publish.to_vec(), publish.len() - 9);
            before[at] -= 1;
            vec![publish.to_vec(), before]
        }
        _ => vec![publish.to_vec()],
    };
    Reaction(puback(publish), deliveries)
}

fn one_changed(number: u32, publish: &[u8]) -> Reaction {
    let (mut changed, at) = (publish.to_vec(), publish.len() - 16);
    changed[at] ^= u8::from(number == 5);
    Reaction(puback(publish), vec![changed])
}

fn one_cut_short(number: u32, publish: &[u8]) -> Reaction {
    let mut cut = publish.to_vec();
    if number == 5 {
        cut.pop();
        cut[1] -= 1;
    }
    Reaction(puback(publish), vec![cut])
}

/// Quota exceeded (MQTT 5.0, 3.4.2.1).
fn one_refused(number: u32, publish: &[u8]) -> Reaction {
    match number {
        5 => {
            let [_, _, high, low] = puback(publish)[..] else { panic!("QoS 1") };
            Reaction(vec![0x40, 3, high, low, 0x97], vec![])
        }
        _ => in_order(number, publish),
    }
}

fn puback(publish: &[u8]) -> Vec<u8> {
    let topic_len = usize::from(publish[3]);
    match publish[0] & 0x06 {
        0 => Vec::new(),
        _ => vec![0x40, 2, publish[4 + topic_len], publish[5 + topic_len]],
    }
}

/// A broker that forwards all messages to the last subscriber, the way `react` says.
pub(crate) fn fake_broker(react: React) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let subscriber = Arc::new(Mutex::new(None));
    std::thread::spawn(move || {
        for socket in listener.incoming().map(Result::unwrap) {
            let subscriber = subscriber.clone();
            std::thread::spawn(move || serve(socket, react, &subscriber));
        }
    });
    port
}

/// Until the client is gone, or does not read any more.
fn serve(mut socket: TcpStream, react: React, subscriber: &Mutex<Option<TcpStream>>) -> Option<()> {
    let connect = read_packet(&mut socket)?;
    let is_v5 = connect[8] == 5;
    socket.write_all(if is_v5 { b"\x20\x03\0\0\0" } else { b"\x20\x02\0\0" }).ok()?;
    let mut number = 0;
    loop {
        let packet = read_packet(&mut socket)?;
        match packet[0] & 0xF0 {
            0x80 => {
                *subscriber.lock().unwrap() = Some(socket.try_clone().unwrap());
                let qos = packet[packet.len() - 1];
                let v5 = [0x90, 4, packet[2], packet[3], 0, qos];
                let v3 = [0x90, 3, packet[2], packet[3], qos];
                socket.write_all(if is_v5 { &v5 } else { &v3 }).ok()?;
            }
            0x30 => {
                let Reaction(answer, deliveries) = react(number, &packet);
                number += 1;
                socket.write_all(&answer).ok()?;
                let mut subscriber = subscriber.lock().unwrap();
                subscriber.as_mut()?.write_all(&deliveries.concat()).ok()?;
            }
            _ => {}
        }
    }
}

/// A packet of less than 128 bytes; `None` at the end.
fn read_packet(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut packet = vec![0; 2];
    socket.read_exact(&mut packet).ok()?;
    packet.resize(2 + usize::from(packet[1]), 0);
    socket.read_exact(&mut packet[2..]).ok()?;
    Some(packet)
}
