//! What a broker that stands still for a while does to the figures.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hdrhistogram::{Histogram, serialization::Deserializer};
use serde_json::Value;

use crate::harness::{Broker, Running, Scratch};

/// For 3 s, with the broker stopped for [`PAUSE`] somewhere behind the first second: late enough for all
/// clients to be at work, and with time to spare if this process is slow to stop it.
fn with_a_pause(options: &str) -> Value {
    let broker = Broker::start_with(2);
    let file = Scratch::new("json");
    let line = format!("run p2p --publishers 1 --warm 0 --secs 3 -q 1 {options} --json {file}");
    let mut running = Running::start(broker.port, &line);
    running.wait_for_load();
    broker.signal("STOP");
    std::thread::sleep(PAUSE);
    broker.signal("CONT");
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    file.json()["runs"][0].clone()
}

/// Deliveries of the run that took at least that long, and all.
fn deliveries(run: &Value, at_least: Duration) -> (u64, u64) {
    let text = run["latency_us"]["publish_to_delivery"]["histogram"].as_str().unwrap();
    let bytes = BASE64.decode(text).unwrap();
    let all: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
    (all.count_between(at_least.as_micros() as u64, u64::MAX), all.len())
}

/// 500 messages a second are due in the pause as at any other time: 100 in its 200 ms. They wait for the
/// rest of it, from 200 ms down to nothing, so 25 of them take 150 ms or longer, of 1500 in all: more
/// than one in a hundred. A pause that turns out longer only makes them more.
#[test]
fn a_stall_is_charged_to_every_message_that_was_due_in_it() {
    let run = with_a_pause("--rate 500");
    let latency = &run["latency_us"]["publish_to_delivery"];
    assert_eq!(deliveries(&run, Duration::ZERO).1, 1500, "nothing is left out");
    assert!(latency["p99.9"].as_u64() >= Some(150_000), "{latency}");
    let (late, _) = deliveries(&run, Duration::from_millis(150));
    assert!(late >= 20, "{late} late: {latency}");
}

/// With one message on its way at a time the same pause meets one message: it took 200 ms, and the next
/// was only sent then. A busy machine may hold up a few others as long, but not one in a hundred of the
/// thousands that there is time for, so that the p99 does not show the stall.
#[test]
fn a_closed_loop_sees_the_stall_in_one_message() {
    let run = with_a_pause("--window 1");
    let latency = &run["latency_us"]["publish_to_delivery"];
    let (late, all) = deliveries(&run, Duration::from_millis(150));
    assert!(late >= 1 && late * 100 < all, "{late} of {all} late: {latency}");
    assert!(latency["max"].as_u64() >= Some(150_000), "{latency}");
    assert!(latency["p99"].as_u64() < Some(150_000), "{latency}");
}

const PAUSE: Duration = Duration::from_millis(200);
