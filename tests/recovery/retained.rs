//! Retained messages after a restart (MQTT 5.0 section 3.3.1.3).

use crate::common::RawClient;
use crate::world::{World, survives};

survives! {
    the_last_retained_message_of_a_topic_is_there;
    a_cleared_topic_stays_clear;
}

/// MQTT-3.3.1-5
fn the_last_retained_message_of_a_topic_is_there(world: &mut World) {
    // Their homes are on both shards, if there are two.
    for n in 0..8 {
        world.publish_with(0x33, &format!("r/{n}"), "", "first");
        world.publish_with(0x35, &format!("r/{n}"), "", &format!("last of {n}"));
    }
    for _ in 0..2 {
        world.restart();
        let mut client = RawClient::v5(world.port(), "me");
        client.send("82 ( 0001 () 'r/#' 00 )");
        client.expect("90 ( 0001 () 00 )");
        let expected: Vec<String> =
            (0..8).map(|n| format!("31 ( 'r/{n}' () `last of {n}` )")).collect();
        client.expect_in_any_order(&expected.iter().map(String::as_str).collect::<Vec<_>>());
        client.ping();
    }
}

/// MQTT-3.3.1-6
fn a_cleared_topic_stays_clear(world: &mut World) {
    for n in 0..6 {
        world.publish_with(0x33, &format!("r/{n}"), "", "x");
    }
    world.restart();
    for n in 0..3 {
        world.publish_with(0x33, &format!("r/{n}"), "", "");
    }
    for _ in 0..2 {
        world.restart();
        let mut client = RawClient::v5(world.port(), "me");
        client.send("82 ( 0001 () 'r/#' 00 )");
        client.expect("90 ( 0001 () 00 )");
        client.expect_in_any_order(&[
            "31 ( 'r/3' () `x` )",
            "31 ( 'r/4' () `x` )",
            "31 ( 'r/5' () `x` )",
        ]);
        world.publish(1, "r/marker", "m");
        client.expect("30 ( 'r/marker' () `m` )");
    }
}
