//! Another number of shards at the next start: everything is where it belongs then.

use crate::common::RawClient;
use crate::process::Ending;
use crate::world::{World, subscribe, take_qos_2};

const CLIENTS: usize = 12;

#[test]
fn everything_survives_from_one_shard_to_two_and_back() {
    everything_survives(&[1, 2, 1], Ending::Kill);
}

#[test]
fn everything_survives_from_three_shards_to_one_and_back_after_sigterm() {
    everything_survives(&[3, 1, 3], Ending::Terminate);
}

fn everything_survives(shards: &[usize], ending: Ending) {
    let mut world = World::new(shards[0], ending);
    leave_one_of_each(&world);
    for next in &shards[1..] {
        world.restart_with_shards(*next);
        find_one_of_each(&world);
    }
}

/// For each client: a subscription, a member of a group, a QoS 1 delivery without PUBACK, a QoS 2
/// delivery between PUBREL and PUBCOMP, a queued one, a QoS 2 PUBLISH without PUBREL, a retained message.
fn leave_one_of_each(world: &World) {
    for n in 0..CLIENTS {
        let mut client = world.newcomer(&format!("client {n}"));
        subscribe(&mut client, &format!("own/{n}"), 2);
        subscribe(&mut client, "$share/group/shared", 2);
        world.publish(1, &format!("own/{n}"), "first");
        client.expect(&format!("32 ( 'own/{n}' 0001 () `first` )"));
        world.publish(2, &format!("own/{n}"), "second");
        client.expect(&format!("34 ( 'own/{n}' 0002 () `second` )"));
        client.send("50 02 0002");
        client.expect_ack(0x62, "0002");
        client.send("34 ( 'from/clients' 0007 () `taken` )");
        client.expect_ack(0x50, "0007");
        drop(client);
        world.publish(2, &format!("own/{n}"), "third");
        world.publish_with(0x33, &format!("retained/{n}"), "", &format!("{n}"));
    }
}

fn find_one_of_each(world: &World) {
    let mut watcher = RawClient::v5(world.port(), "watcher");
    watcher.send("82 ( 0001 () 'retained/#' 00 'from/#' 00 )");
    watcher.expect("90 ( 0001 () 00 00 )");
    let retained: Vec<String> =
        (0..CLIENTS).map(|n| format!("31 ( 'retained/{n}' () `{n}` )")).collect();
    watcher.expect_in_any_order(&retained.iter().map(String::as_str).collect::<Vec<_>>());
    for n in 0..CLIENTS {
        let mut client = world.back(&format!("client {n}"));
        client.expect(&format!("3a ( 'own/{n}' 0001 () `first` )"));
        client.expect_ack(0x62, "0002");
        // Its first connection has not got this one; those after that have.
        let packet = client.read_packet();
        assert!(packet[0] & 0xf7 == 0x34 && packet.ends_with(b"third"), "{packet:02x?}");
        client.send("3c ( 'from/clients' 0007 () `taken` )");
        client.expect_ack(0x50, "0007");
    }
    watcher.ping();
    // One of the members gets it, all of them absent, and gives it back for the next round.
    let mut taker = world.newcomer("taker");
    subscribe(&mut taker, "$share/group/shared", 2);
    world.publish(2, "shared", "x");
    take_qos_2(&mut taker, "shared", "x");
    taker.send("e0 ( 00 ( 11 00000000 ) )");
    taker.expect_closed();
}
