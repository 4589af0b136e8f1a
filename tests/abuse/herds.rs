//! Thousands of clients that come back at the same moment: all get in in the end, and one that is there is served.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::common::{Broker, RawClient, on_one_and_four_shards, wire};

const HERD: usize = 2000;

/// How long the slowest answers took to a client that pings while something else is done: the slowest, and the one
/// in a hundred.
fn pinging_while<T>(broker: &Broker, work: impl FnOnce() -> T) -> (T, [Duration; 2]) {
    let mut pinger = RawClient::v5(broker.port, "pinger");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let mut times = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let started = Instant::now();
                pinger.ping();
                times.push(started.elapsed());
                thread::sleep(Duration::from_millis(1));
            }
            times.sort();
            [times.last(), times.get(times.len() * 99 / 100)].map(|time| *time.expect("some"))
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        (done, pings.join().expect("all were answered"))
    })
}

/// So many connect at once and say CONNECT together; all are accepted.
fn herd(broker: &Broker, count: usize) -> Duration {
    let started = Instant::now();
    let mut clients: Vec<_> = (0..count)
        .map(|n| {
            let mut client = RawClient::connect(broker.port);
            client.send_bytes(&wire(&format!("10 ( 'MQTT' 05 02 003c () 'herd {n}' )")));
            client
        })
        .collect();
    for client in &mut clients {
        client.expect_accepted();
    }
    let time = started.elapsed();
    clients.iter_mut().for_each(RawClient::ping);
    time
}

fn all_get_in(broker: &Broker) {
    let (time, [slowest, p99]) = pinging_while(broker, || herd(broker, HERD));
    println!("{HERD} in {time:?}; pings meanwhile: p99 {p99:?}, slowest {slowest:?}");
}

/// `connects_per_second_max`: those that are too many wait, and none is closed.
fn those_that_are_too_many_wait(broker: &Broker) {
    let (time, [slowest, p99]) = pinging_while(broker, || herd(broker, HERD));
    println!("{HERD} in {time:?}; pings meanwhile: p99 {p99:?}, slowest {slowest:?}");
    // A hundred at once, and as many more for each tenth of a second.
    assert!(time >= Duration::from_millis(1850), "{time:?}");
}

on_one_and_four_shards! {
    all_get_in;
    those_that_are_too_many_wait with "limits.connects_per_second_max=1000";
}
