//! Random bytes and mangled packets, from fixed seeds.

use std::time::Duration;

use crate::common::{Broker, RawClient, on_one_and_four_shards, wire};
use crate::{Bystander, Memory, Random};

const SEED: u64 = 0x5eed_0001;
const GROWTH_KIB_MAX: u64 = 24 * 1024;

fn random_bytes_before_connect(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let mut random = Random(SEED);
    let memory = Memory::of(broker);
    for _ in 0..400 {
        let length = 1 + random.below(2000);
        let bytes = random.bytes(length);
        RawClient::connect(broker.port).try_send_bytes(&bytes);
    }
    bystander.check(broker);
    memory.check(broker, GROWTH_KIB_MAX);
}

fn random_bytes_after_connect(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let mut random = Random(SEED + 1);
    let memory = Memory::of(broker);
    for round in 0..400 {
        let mut client = if round % 2 == 0 {
            RawClient::v5(broker.port, "flood")
        } else {
            RawClient::v311(broker.port, "flood")
        };
        let length = 1 + random.below(4000);
        let bytes = random.bytes(length);
        client.try_send_bytes(&bytes);
    }
    bystander.check(broker);
    memory.check(broker, GROWTH_KIB_MAX);
}

/// Good packets with a few bytes changed reach deeper than noise does.
fn mangled_packets(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let mut random = Random(SEED + 2);
    let good = [
        wire("10 ( 'MQTT' 05 06 003c ( 11 00000001 21 0005 ) 'flood' ( 18 00000001 ) 'w' 'x' )"),
        wire("82 ( 0001 ( 0b 01 ) 'f/+/#' 01 '$share/g/f' 02 )"),
        wire("3d ( 'f/1' 0002 ( 23 0001 26 'k' 'v' 02 00000001 ) `payload` )"),
        wire("62 ( 0002 00 ( 1f 'why' ) )"),
        wire("32 ( '' 0003 ( 23 0001 ) `again` )"),
        wire("a2 ( 0004 () 'f/+/#' '$share/g/f' )"),
        wire("50 ( 0001 00 () ) 70 ( 0001 ) 40 ( 0001 80 ( 26 'k' 'v' ) )"),
        wire("e0 ( 04 ( 11 00000002 ) )"),
    ];
    let memory = Memory::of(broker);
    for _ in 0..1500 {
        let mut bytes = Vec::new();
        // The CONNECT stays good half of the time, so that what follows is looked at.
        let spared = if random.below(2) == 0 { good[0].len() } else { 0 };
        good.iter().for_each(|packet| bytes.extend(packet));
        for _ in 0..1 + random.below(4) {
            let at = spared + random.below(bytes.len() - spared);
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = (random.next() >> 56) as u8,
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, (random.next() >> 56) as u8),
            }
        }
        RawClient::connect(broker.port).try_send_bytes(&bytes);
    }
    bystander.check(broker);
    memory.check(broker, GROWTH_KIB_MAX);
}

/// One client id, many connections at once, each in another state when it is taken over.
fn take_over_races(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let memory = Memory::of(broker);
    let port = broker.port;
    std::thread::scope(|scope| {
        for racer in 0..12 {
            scope.spawn(move || race(port, Random(SEED + 100 + racer)));
        }
    });
    bystander.check(broker);
    memory.check(broker, GROWTH_KIB_MAX);
    // The id is usable, and its newest connection is the one that is served.
    let mut last = RawClient::v5(broker.port, "contested");
    last.send("82 ( 0001 () 'last' 00 ) 30 ( 'last' () `x` )");
    last.expect_in_any_order(&["90 ( 0001 () 00 )", "30 ( 'last' () `x` )"]);
    last.ping();
}

fn race(port: u16, mut random: Random) {
    let connects = [
        wire("10 ( 'MQTT' 05 02 003c () 'contested' )"),
        wire("10 ( 'MQTT' 05 00 003c ( 11 0000003c ) 'contested' )"),
        wire("10 ( 'MQTT' 05 06 003c ( 11 00000001 ) 'contested' () 'race' 'gone' )"),
        wire("10 ( 'MQTT' 04 02 003c 'contested' )"),
        wire("10 ( 'MQTT' 04 04 003c 'contested' 'race' 'gone' )"),
    ];
    for _ in 0..60 {
        let connect = random.below(connects.len());
        let properties = if connect < 3 { "()" } else { "" };
        let mut bytes = connects[connect].clone();
        bytes.extend(wire(&format!(
            "82 ( 0001 {properties} 'race' 02 ) 34 ( 'race' 0001 {properties} `x` )
             32 ( 'race' 0002 {properties} `y` ) 62 ( 0001 )"
        )));
        let mut client = RawClient::connect(port);
        let cut = if random.below(3) == 0 { random.below(bytes.len()) } else { bytes.len() };
        client.try_send_bytes(&bytes[..cut]);
        // Some read for a while, the others leave at once.
        client.discard(Duration::from_millis(random.below(8) as u64));
    }
}

on_one_and_four_shards! {
    random_bytes_before_connect;
    random_bytes_after_connect;
    mangled_packets;
    take_over_races;
}
