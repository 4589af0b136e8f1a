//! Connections that do nothing cost next to nothing: memory each, and no CPU at all.

use std::time::Duration;

use crate::alone;
use crate::common::{Broker, RawClient};
use crate::lean::{Connection, Received};

const CONNECTIONS: usize = 15_000;
const CONNECTIONS_MIN: usize = 10_000;
/// What each process needs besides the connections.
const DESCRIPTORS_SPARE: usize = 500;
/// With the subscription's entry in the index copies of all shards.
const BYTES_EACH_MAX: u64 = 1024;
const WATCHED: Duration = Duration::from_secs(2);
const CPU_MAX: Duration = Duration::from_millis(50);

#[test]
fn idle_connections_of_one_shard_cost_little_memory_and_no_cpu() {
    check_idle_connections(1);
}

#[test]
fn idle_connections_of_two_shards_cost_little_memory_and_no_cpu() {
    check_idle_connections(2);
}

fn check_idle_connections(shards: usize) {
    let _alone = alone();
    let count = CONNECTIONS.min(descriptors_max().saturating_sub(DESCRIPTORS_SPARE));
    assert!(
        count >= CONNECTIONS_MIN,
        "only {count} connections fit the descriptor limit: raise it with ulimit -n 20000"
    );
    let broker = Broker::start_quiet(shards, &["limits.connections_max=20000"]);
    // What is allocated once is there before the count begins.
    drop(connect(broker.port, "warm", 200));
    let before_kib = broker.rss_kib();
    let connections = connect(broker.port, "idle", count);
    let grown_kib = broker.rss_kib().saturating_sub(before_kib);
    let each = grown_kib * 1024 / count as u64;
    println!("{count} idle connections, {shards} shards: {grown_kib} KiB, {each} bytes each");

    let cpu_before = broker.cpu_time();
    // Nothing can be observed but that nothing happens.
    std::thread::sleep(WATCHED);
    let cpu = broker.cpu_time().saturating_sub(cpu_before);
    println!("CPU in {WATCHED:?}: {cpu:?}");

    RawClient::v5(broker.port, "newcomer").ping();
    assert!(each <= BYTES_EACH_MAX, "{each} bytes each, allowed are {BYTES_EACH_MAX}");
    assert!(cpu < CPU_MAX, "{cpu:?} of CPU in {WATCHED:?} with nothing to do");
    drop(connections);
}

/// An idle broker without any connection does not even wake up.
#[test]
fn a_broker_without_connections_uses_no_cpu() {
    let _alone = alone();
    let broker = Broker::start_quiet(4, &[]);
    RawClient::v5(broker.port, "once").ping();
    let before = broker.cpu_time();
    std::thread::sleep(WATCHED);
    let cpu = broker.cpu_time().saturating_sub(before);
    assert!(cpu < CPU_MAX, "{cpu:?} of CPU in {WATCHED:?} with nothing to do");
}

/// Plain TCP clients with one subscription each.
fn connect(port: u16, name: &str, count: usize) -> Vec<Connection> {
    let open = |n: usize| {
        let (mut connection, _) =
            Connection::open(port, &format!("{name}-{n}"), true, 600).expect("a place is free");
        connection.subscribe(&format!("{name}/{n}"), 0);
        let answer = connection.exchange().expect("a SUBACK");
        assert!(matches!(answer, Received::Suback), "{answer:?}");
        connection
    };
    (0..count).map(open).collect()
}

/// The soft limit of this process; the broker inherits it.
fn descriptors_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("proc is mounted");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX)
}
