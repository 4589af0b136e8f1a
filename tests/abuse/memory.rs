//! `memory_bytes_max`: publishers that flood clients who take nothing. Memory stays within the budget, nothing that was
//! acknowledged is lost, clients that read go on, and the log names the steps.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{Broker, RawClient, free_port, wire};
use crate::slow::expect_leave;

const BUDGET_MIB: u64 = 64;
/// More than the budget, and less than the disk may hold.
const MESSAGES: u32 = 30_000;
const PAYLOAD_BYTES: usize = 4096;
const WINDOW: u32 = 32;

fn settings(more: &[&str]) -> Vec<String> {
    let budget = format!("limits.memory_bytes_max={}", BUDGET_MIB << 20);
    more.iter().map(|text| (*text).to_owned()).chain([budget]).collect()
}

/// A PUBLISH of version 5 at QoS 1 to `t` with its number at the start of the payload.
fn publish(number: u32) -> Vec<u8> {
    let id = number % 60_000 + 1;
    let mut packet = wire(&format!("32 ( 't' {id:04x} () {} )", "5a".repeat(PAYLOAD_BYTES)));
    let at = packet.len() - PAYLOAD_BYTES;
    packet[at..at + 4].copy_from_slice(&number.to_be_bytes());
    packet
}

/// Publishes so many messages, as fast as they are acknowledged. Returns the reason code of the first that was refused.
fn publish_all(port: u16, count: u32) -> Option<u8> {
    let mut publisher = RawClient::v5(port, "flooder");
    let mut packet = publish(0);
    let at = packet.len() - PAYLOAD_BYTES;
    for number in 0..count + WINDOW {
        if number < count {
            let id = number % 60_000 + 1;
            packet[6..8].copy_from_slice(&(id as u16).to_be_bytes());
            packet[at..at + 4].copy_from_slice(&number.to_be_bytes());
            publisher.send_bytes(&packet);
        }
        if number >= WINDOW {
            // It may be held up until the slowest have been disconnected.
            let ack = patiently(&mut publisher).expect("an acknowledgement");
            assert_eq!(ack[0], 0x40, "{ack:02x?}");
            if let Some(reason) = ack.get(4).filter(|reason| **reason >= 0x80) {
                return Some(*reason);
            }
        }
    }
    None
}

fn patiently(client: &mut RawClient) -> Option<Vec<u8>> {
    (0..4).find_map(|_| client.try_read_packet())
}

/// Takes all messages with an acknowledgement for each, up to this number. Returns their numbers.
fn take_all(client: &mut RawClient, last: u32) -> Vec<u32> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let packet = patiently(client).expect("a message");
        assert_eq!(packet[0] >> 4, 3, "{:02x?}", &packet[..4]);
        let at = packet.len() - PAYLOAD_BYTES;
        numbers.push(u32::from_be_bytes(packet[at..at + 4].try_into().expect("four")));
        // The identifier stands behind header (3) and topic (3).
        client.send_bytes(&[0x40, 2, packet[6], packet[7]]);
    }
    numbers
}

fn subscriber(port: u16, id: &str, expiry_secs: u32) -> RawClient {
    let mut client = RawClient::connect(port);
    client.send(&format!("10 ( 'MQTT' 05 02 0000 ( 11 {expiry_secs:08x} ) '{id}' )"));
    client.expect_accepted();
    client.send("82 ( 0001 () 't' 01 )");
    client.expect("90 ( 0001 () 01 )");
    client
}

/// A stuck durable and a stuck clean subscriber: the latter goes, what waits for the former is in the log, a good one
/// gets everything.
fn a_flood_for_clients_that_do_not_read(shards: usize) {
    let data = Data::new();
    let settings = settings(&["storage_bytes_max=1073741824"]);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let broker = Broker::start_on(&data.0, shards, &settings);
    let mut clean = subscriber(broker.port, "clean", 0);
    let durable = subscriber(broker.port, "durable", 3600);
    let mut good = subscriber(broker.port, "good", 0);
    let mut bystander = RawClient::v5(broker.port, "bystander");
    let is_done = AtomicBool::new(false);
    let highest_kib = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut highest = 0;
            while !is_done.load(Ordering::Relaxed) {
                highest = highest.max(broker.rss_kib());
                bystander.ping();
                thread::sleep(Duration::from_millis(20));
            }
            highest
        });
        let taker = scope.spawn(|| take_all(&mut good, MESSAGES - 1));
        let refused = publish_all(broker.port, MESSAGES);
        assert_eq!(refused, None, "there is room on disk");
        let taken = taker.join().expect("it takes all");
        assert!(taken.into_iter().eq(0..MESSAGES), "each once and in order");
        is_done.store(true, Ordering::Relaxed);
        watch.join().expect("it is served")
    });
    println!("resident at most: {highest_kib} KiB, budget {} KiB", BUDGET_MIB * 1024);
    assert!(highest_kib <= BUDGET_MIB * 1024 * 12 / 10, "{highest_kib} KiB");
    // A look may find that several steps have been passed since the last.
    broker.wait_for_log(&["memory is short", "are disconnected"]);
    broker.wait_for_log(&["client=clean", "disconnected for its memory", "bytes="]);
    expect_leave(&mut clean);
    drop(durable);
    let (mut back, present) = RawClient::v5_resume(broker.port, "durable");
    assert!(present);
    let mut taken = take_all(&mut back, MESSAGES - 1);
    // Some were in flight before.
    taken.dedup();
    assert!(taken.into_iter().eq(0..MESSAGES), "nothing acknowledged is lost");
    broker.wait_for_log(&["memory is no longer short"]);
}

#[test]
fn a_flood_for_clients_that_do_not_read_on_one_shard() {
    a_flood_for_clients_that_do_not_read(1);
}

#[test]
fn a_flood_for_clients_that_do_not_read_on_four_shards() {
    a_flood_for_clients_that_do_not_read(4);
}

/// What waits for an absent client in memory, nobody can free but that client. The others are told so until it has.
fn a_flood_for_a_client_that_is_away(shards: usize) {
    let settings = settings(&["ephemeral=true"]);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let broker = Broker::start_quiet(shards, &settings);
    let mut bystander = RawClient::v5(broker.port, "bystander");
    drop(subscriber(broker.port, "away", 3600));
    assert_eq!(publish_all(broker.port, MESSAGES), Some(0x97));
    broker.wait_for_log(&[
        "memory is short",
        "publications, subscriptions and new clients are refused",
    ]);
    assert!(broker.rss_kib() <= BUDGET_MIB * 1024 * 12 / 10, "{} KiB", broker.rss_kib());
    // Whatever would need more is refused, the rest goes on.
    bystander.send("82 ( 0001 () 'x' 01 ) 32 ( 'x' 0002 () `x` ) 31 ( 'x' () `x` ) c0 00");
    bystander.expect("90 ( 0001 () 97 )");
    assert_eq!(bystander.ack_reason(0x40, "0002"), 0x97);
    bystander.expect("d0 00");
    let mut refused = RawClient::connect(broker.port);
    refused.send("10 ( 'MQTT' 05 02 003c () 'newcomer' )");
    refused.expect_refused(&[0x97]);
    let mut refused = RawClient::connect(broker.port);
    refused.send("10 ( 'MQTT' 04 02 003c 'newcomer' )");
    refused.expect("20 02 00 03");
    refused.expect_closed();
    // The one who can help may come, and does.
    let (mut back, present) = RawClient::v5_resume(broker.port, "away");
    assert!(present);
    let mut taken = 0;
    while let Some(packet) = back.try_read_packet() {
        let at = packet.len() - PAYLOAD_BYTES;
        assert_eq!(packet[at..at + 4], u32::to_be_bytes(taken), "in order");
        taken += 1;
        back.send_bytes(&[0x40, 2, packet[6], packet[7]]);
        if taken % 1000 == 0
            && broker.log_lines().iter().any(|line| line.contains("no longer short"))
        {
            break;
        }
    }
    broker.wait_for_log(&["memory is no longer short"]);
    bystander.send("32 ( 'x' 0003 () `x` )");
    bystander.expect_ack(0x40, "0003");
    RawClient::v5(broker.port, "newcomer").ping();
}

#[test]
fn a_flood_for_a_client_that_is_away_on_one_shard() {
    a_flood_for_a_client_that_is_away(1);
}

#[test]
fn a_flood_for_a_client_that_is_away_on_four_shards() {
    a_flood_for_a_client_that_is_away(4);
}

/// A data directory of its own: the harness makes those of its own small.
struct Data(PathBuf);

impl Data {
    fn new() -> Self {
        let name = format!("memory-{}-{}", std::process::id(), free_port());
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
