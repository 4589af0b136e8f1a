//! Too little room: the bound of the configuration, and a file system that is full. What was
//! acknowledged stays, what cannot be kept is refused, and QoS 0 goes on.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::RawClient;
use crate::directory::Mount;
use crate::link::{Identity, Link, Outgoing, PUBACK, Packet};
use crate::process::{Ending, Recipe, Scratch};
use crate::world::World;

/// The least that the key takes.
const STORAGE_SETTING: &str = "storage_bytes_max=67108864";
/// Twice what would fill that, if nothing were refused.
const MESSAGES_MAX: u32 = 2000;
const QUEUE_SETTINGS: [&str; 3] =
    ["limits.queue_messages_max=1000000", "limits.queue_bytes_max=1000000000", STORAGE_SETTING];

#[test]
fn a_full_store_refuses_with_quota_exceeded_and_takes_again_what_there_is_room_for() {
    for shards in [1, 2] {
        let mut world = World::with(shards, Ending::Kill, &QUEUE_SETTINGS);
        world.absentee("me", "t", 1);
        let accepted = fill(world.port(), MESSAGES_MAX);
        assert!(accepted.refused == Some(0x97), "{shards} shards: {accepted:?}");
        expect_qos_0_goes_on(world.port());
        // It is full after a restart too, and a restart loses nothing.
        world.restart();
        assert_eq!(fill(world.port(), 100).refused, Some(0x97), "{shards} shards");
        let got = take_all(world.port());
        assert!(got >= accepted.count, "{got} of {} are there", accepted.count);
        fill_again(world.port());
        // However often there was room for one more in between.
        expect_said_once(&world, "the log is full");
        expect_said_once(&world, "the log has room again");
    }
}

/// Both shards' disks fail to make a file. At QoS 0 nobody can be told that a retained message is not kept: it
/// goes out live, and no older one stands for it, now or after a restart.
#[test]
fn a_failing_disk_is_told_once_and_stops_no_qos_0() {
    let mut world = World::with(2, Ending::Kill, &QUEUE_SETTINGS);
    for n in 0..8 {
        world.publish_with(0x33, &format!("r/{n}"), "", "old");
    }
    world.restart();
    // That behind the one which begins with the next record.
    let next = |shard: u16| {
        let logs = world.data().join("log-000001");
        let last =
            (1..).take_while(|n| logs.join(format!("00{shard}-{n:010}.log")).exists()).last();
        logs.join(format!("00{shard}-{:010}.log", last.unwrap_or(0) + 2))
    };
    let blocked = [0, 1].map(next);
    blocked.iter().for_each(|path| fs::create_dir(path).expect("a directory"));
    let mut publisher = RawClient::v5(world.port(), "publisher");
    for n in 0..8 {
        publisher.send(&format!("31 ( 'trigger/{n}' () `x` )"));
    }
    let told = |path: &PathBuf| world.log().matches(&path.display().to_string()).count();
    blocked.iter().for_each(|path| wait_until(|| told(path) > 0));
    let mut live = RawClient::v5(world.port(), "live");
    live.send("82 ( 0001 () 'r/+' 20 )");
    live.expect("90 ( 0001 () 00 )");
    publisher.send("33 ( 'r/0' 0001 () `refused` )");
    publisher.expect("40 ( 0001 97 )");
    let messages: Vec<_> = (1..8).map(|n| format!("'r/{n}' () `new`")).collect();
    for message in &messages {
        publisher.send(&format!("31 ( {message} )"));
    }
    let expected: Vec<_> = messages.iter().map(|message| format!("30 ( {message} )")).collect();
    live.expect_in_any_order(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    for is_failing in [true, false] {
        let mut later = RawClient::v5(world.port(), "later");
        later.send("82 ( 0001 () 'r/+' 00 )");
        later.expect("90 ( 0001 () 00 )");
        later.expect("31 ( 'r/0' () `old` )");
        later.ping();
        if is_failing {
            wait_until(|| world.log().contains("not retained: it cannot be kept on disk"));
            blocked.iter().for_each(|path| fs::remove_dir(path).expect("the directory"));
            let said = || world.log().matches("the disk takes what it is given again").count();
            wait_until(|| said() == 2);
            let log = world.log();
            assert_eq!(log.matches(" ERROR ").count(), 2, "{log}");
            // What is tried again each second is not told each second.
            let told = |path: &PathBuf| log.matches(&path.display().to_string()).count();
            assert!(blocked.iter().all(|path| told(path) == 1), "{log}");
            world.publish(1, "after", "x");
            world.restart();
        }
    }
}

/// What waits for the disk does not grow with each client that comes back.
#[test]
fn a_failing_disk_turns_persistent_clients_away_before_memory_is_full() {
    let mut world = World::with(1, Ending::Kill, &QUEUE_SETTINGS);
    world.absentee("me", "t", 1);
    world.restart();
    let logs = world.data().join("log-000001");
    let last = (1..).take_while(|n| logs.join(format!("000-{n:010}.log")).exists()).last();
    let blocked = logs.join(format!("000-{:010}.log", last.unwrap_or(0) + 2));
    fs::create_dir(&blocked).expect("a directory");
    world.publish(1, "t", "the last one that is kept");
    wait_until(|| world.log().contains(&blocked.display().to_string()));
    // Each CONNECT adds its will to what is to be kept.
    let will = "w".repeat(60_000);
    let connect = format!("10 ( 'MQTT' 05 04 003c ( 11 00000e10 ) 'me' () 'will' '{will}' )");
    let came = || {
        let mut me = RawClient::connect(world.port());
        me.send(&connect);
        me
    };
    // 4 MiB of the segment, 16 MiB that may wait.
    for n in 0..800 {
        drop(came());
        if n % 50 == 0 && world.log().contains("much waits for it already") {
            break;
        }
    }
    assert_eq!(came().connack().reason, 0x88);
    expect_qos_0_goes_on(world.port());
    fs::remove_dir(&blocked).expect("the directory");
    wait_until(|| world.log().contains("the disk takes what it is given again"));
    assert_eq!(came().connack().reason, 0);
}

/// On a real file system without room, for those who may mount one.
#[test]
fn a_full_file_system_loses_nothing_and_stops_only_what_must_be_kept() {
    let scratch = Scratch::new();
    let data = scratch.data();
    fs::create_dir(&data).expect("a directory");
    let Some(_mount) = Mount::tmpfs(&data, "size=256m,mode=700") else {
        println!("SKIPPED: a file system can only be mounted by root");
        return;
    };
    let recipe = Recipe::ringmq(&scratch, 1, &QUEUE_SETTINGS[..2]);
    let process = recipe.start();
    let (mut me, _) = RawClient::v5_resume(process.port(), "me");
    crate::world::subscribe(&mut me, "t", 1);
    drop(me);
    let before = fill(process.port(), 10);
    assert_eq!((before.count, before.refused), (10, None));
    let ballast = data.join("ballast");
    fill_the_file_system(&ballast);
    // What its segment has room for is still taken.
    let during = fill(process.port(), 20_000);
    assert!(during.count < 20_000, "the file system is not full");
    expect_qos_0_goes_on(process.port());
    fs::remove_file(&ballast).expect("the ballast");
    fill_again(process.port());
    process.kill();
    let process = recipe.start();
    let got = take_all(process.port());
    let promised = before.count + during.count;
    assert!(got > promised, "{got} of {promised} are there");
    process.kill();
}

/// Not even its first start, which makes its files.
#[test]
fn a_start_without_any_room_is_refused() {
    let scratch = Scratch::new();
    let data = scratch.data();
    fs::create_dir(&data).expect("a directory");
    let Some(_mount) = Mount::tmpfs(&data, "size=64k,mode=700") else {
        println!("SKIPPED: a file system can only be mounted by root");
        return;
    };
    fill_the_file_system(&data.join("ballast"));
    let (code, said) = Recipe::ringmq(&scratch, 1, &[]).refused();
    assert_eq!(code, 1, "{said}");
    let is_told = said.contains(&data.display().to_string()) && !said.contains("panicked");
    assert!(is_told, "{said}");
}

/// What became of publications of [`PAYLOAD_BYTES`] to `t` at QoS 1, sent one after the other.
#[derive(Debug, Default)]
struct Filled {
    count: u32,
    /// The reason code that ended it.
    refused: Option<u8>,
}

/// Publishes until so many are accepted, or one is refused or not answered.
fn fill(port: u16, count: u32) -> Filled {
    let who = Identity { client: "filler".to_owned(), version: 5, receive_max: 10 };
    let (mut link, _) = Link::open(port, &who, true).expect("the broker is there");
    let payload = vec![b'x'; PAYLOAD_BYTES];
    let mut filled = Filled::default();
    while filled.count < count {
        let (topic, packet_id) = ("t", 1);
        let qos = 1;
        link.publish(&Outgoing {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id,
            payload: &payload,
        });
        link.flush().expect("the broker takes it");
        match link.next(SILENCE).expect("the connection stays") {
            Some(Packet::Ack { kind: PUBACK, reason, .. }) if reason < 0x80 => filled.count += 1,
            Some(Packet::Ack { kind: PUBACK, reason, .. }) => {
                filled.refused = Some(reason);
                return filled;
            }
            None => return filled,
            Some(other) => panic!("{other:?}"),
        }
    }
    filled
}

/// Room has been made: soon one is taken again.
#[track_caller]
fn fill_again(port: u16) {
    let deadline = Instant::now() + ROOM_MAX;
    while fill(port, 1).count == 0 {
        assert!(Instant::now() < deadline, "nothing is taken again");
    }
}

/// The log has exactly one line with that, soon.
#[track_caller]
fn expect_said_once(world: &World, what: &str) {
    let count = || world.log().matches(what).count();
    wait_until(|| count() > 0);
    assert_eq!(count(), 1, "{}", world.log());
}

#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + ROOM_MAX;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {ROOM_MAX:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn expect_qos_0_goes_on(port: u16) {
    let mut client = RawClient::v5(port, "passer-by");
    client.send("82 ( 0001 () 'news' 00 )");
    client.expect("90 ( 0001 () 00 )");
    client.send("30 ( 'news' () `x` )");
    client.expect("30 ( 'news' () `x` )");
}

/// Receives and acknowledges what is queued for `me`; how many.
fn take_all(port: u16) -> u32 {
    let who = Identity { client: "me".to_owned(), version: 5, receive_max: 100 };
    let (mut link, present) = Link::open(port, &who, false).expect("the broker is there");
    assert!(present, "the session is gone");
    let mut count = 0;
    while let Some(packet) = link.next(SILENCE).expect("the connection stays") {
        let Packet::Publish(delivered) = packet else { panic!("{packet:?}") };
        assert_eq!(delivered.payload.len(), PAYLOAD_BYTES);
        count += 1;
        link.ack(PUBACK, delivered.packet_id);
        link.flush().expect("the broker takes it");
    }
    count
}

fn fill_the_file_system(ballast: &std::path::Path) {
    let mut file = File::create(ballast).expect("a file");
    let chunk = [1; 4096];
    while file.write_all(&chunk).is_ok() {}
}

const PAYLOAD_BYTES: usize = 64 * 1024;
/// No answer for so long is none.
const SILENCE: Duration = Duration::from_secs(2);
const ROOM_MAX: Duration = Duration::from_secs(20);
