//! Strings, topic names and filters that must not be (sections 1.5.4, 4.7, 4.8.2).

use std::time::Instant;

use crate::Bystander;
use crate::common::{Broker, RawClient, each, on_one_and_four_shards, wire};

/// Not UTF-8, or with NUL (MQTT-1.5.4-1, MQTT-1.5.4-2): a string behind its length.
const BAD_STRINGS: [(&str, &str); 9] = [
    ("NUL", "0003 610062"),
    ("lone continuation", "0002 6180"),
    ("truncated sequence", "0003 61e282"),
    ("overlong NUL", "0002 c080"),
    ("overlong slash", "0002 c0af"),
    ("high surrogate", "0003 eda080"),
    ("surrogate pair", "0006 eda080edb080"),
    ("beyond U+10FFFF", "0004 f4908080"),
    ("0xff", "0002 61ff"),
];

const BAD_FILTERS: [&str; 19] = [
    "",
    "a/#/b",
    "a#",
    "#a",
    "#/",
    "##",
    "a+",
    "+a/b",
    "a/+b/c",
    "++",
    "$share/",
    "$share/g",
    "$share//t",
    "$share/g/",
    "$share/+/t",
    "$share/#",
    "$share/g+/t",
    "$share/g#/t",
    "$share/g/a#",
];

fn bad_strings_anywhere(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    each(BAD_STRINGS, |(_, string)| {
        let after_connect = [
            format!("30 ( {string} () `x` )"),
            format!("82 ( 0001 () {string} 00 )"),
            format!("82 ( 0001 () 'fine' 00 {string} 00 )"),
            format!("a2 ( 0001 () {string} )"),
            format!("30 ( 't' ( 26 'k' {string} ) `x` )"),
            format!("30 ( 't' ( 26 {string} 'v' ) `x` )"),
            format!("30 ( 't' ( 03 {string} ) `x` )"),
            format!("30 ( 't' ( 08 {string} ) `x` )"),
        ];
        each(after_connect, |packet| {
            let mut client = RawClient::v5(broker.port, "abuser");
            client.send(packet);
            client.expect_disconnect(0x81);
        });
        let at_connect = [
            format!("10 ( 'MQTT' 05 02 003c () {string} )"),
            format!("10 ( 'MQTT' 05 82 003c () 'a' {string} )"),
            format!("10 ( 'MQTT' 05 06 003c () 'a' () {string} 'x' )"),
            format!("10 ( 'MQTT' 05 02 003c ( 26 'k' {string} ) 'a' )"),
        ];
        each(at_connect, |packet| {
            let mut client = RawClient::connect(broker.port);
            client.send(packet);
            client.expect_refused(&[0x81, 0x85, 0x90]);
        });
        let in_311 = [format!("30 ( {string} `x` )"), format!("82 ( 0001 {string} 00 )")];
        each(in_311, |packet| {
            let mut client = RawClient::v311(broker.port, "abuser");
            client.send(packet);
            client.expect_closed();
        });
    });
    bystander.check(broker);
}

/// MQTT-4.7.1-1, -2, MQTT-4.7.3-1, MQTT-4.8.2-1, -2; and publishing afterwards finds nothing broken.
fn bad_filters(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    each(BAD_FILTERS, |filter| {
        let mut client = RawClient::v5(broker.port, "abuser");
        client.send(&format!("82 ( 0001 () '{filter}' 00 )"));
        client.expect_disconnect(0x81);
        let mut client = RawClient::v311(broker.port, "abuser");
        client.send(&format!("a2 ( 0001 '{filter}' )"));
        client.expect_closed();
        let mut client = RawClient::v311(broker.port, "abuser");
        client.send(&format!("82 ( 0001 '{filter}' 00 )"));
        client.expect_closed();
    });
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for topic in ["g", "t", "a", "$share", "$share/g", "$share/g/t", "/", "$"] {
        publisher.send(&format!("30 ( '{topic}' `x` )"));
    }
    // A broker may refuse the reserved ones by closing; it may not fall over.
    publisher.try_send_bytes(&wire("c0 00"));
    bystander.check(broker);
}

/// More levels than anyone means: served or refused, in no time, and no stack overflows.
fn deep_topics(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let started = Instant::now();
    for (level, levels) in [("a", 32_000), ("", 65_000), ("a", 5000), ("", 300)] {
        let topic = vec![level; levels].join("/");
        let wild = vec!["+"; levels.min(32_000)].join("/");
        for filter in [topic.clone(), format!("{topic}/#"), wild, "#".to_owned()] {
            let mut client = RawClient::v5(broker.port, "abuser");
            client.try_send_bytes(&wire(&format!("82 ( 0001 () '{filter}' 00 )")));
            client.try_send_bytes(&wire(&format!("31 ( '{topic}' () `x` )")));
            client.try_send_bytes(&wire("c0 00"));
            // Either way there is an answer: a SUBACK, or a DISCONNECT.
            let first = client.read_packet()[0];
            assert!([0x90, 0xe0, 0x31].contains(&first), "{levels} levels: {first:#04x}");
        }
    }
    bystander.check(broker);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

/// Depth that somebody may mean works.
fn a_hundred_levels_work(broker: &Broker) {
    let topic = vec!["a"; 100].join("/");
    let mut client = RawClient::v311(broker.port, "me");
    for filter in
        [topic.clone(), vec!["+"; 100].join("/"), format!("{}/#", vec!["+"; 99].join("/"))]
    {
        client.send(&format!("82 ( 0001 '{filter}' 00 )"));
        client.expect("90 ( 0001 00 )");
        client.send(&format!("30 ( '{topic}' `x` )"));
        client.expect(&format!("30 ( '{topic}' `x` )"));
        client.send(&format!("a2 ( 0002 '{filter}' )"));
        client.expect("b0 02 0002");
    }
}

/// Each of ten levels either named or `+`: every node of the walk has two ways on.
fn filters_that_multiply(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let mut client = RawClient::v311(broker.port, "me");
    for choice in 0..1024_u32 {
        let levels: Vec<&str> =
            (0..10).map(|level| if choice >> level & 1 == 0 { "a" } else { "+" }).collect();
        client.send(&format!("82 ( 0001 '{}' 00 )", levels.join("/")));
        client.expect("90 ( 0001 00 )");
    }
    let topic = ["a"; 10].join("/");
    let started = Instant::now();
    for _ in 0..100 {
        client.send(&format!("30 ( '{topic}' `x` )"));
        client.expect(&format!("30 ( '{topic}' `x` )"));
    }
    assert!(started.elapsed().as_secs() < 5, "{:?} for 100 messages", started.elapsed());
    bystander.check(broker);
}

/// Ten thousand user properties: in order, and without a quadratic walk.
fn thousands_of_user_properties(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let mut subscriber = RawClient::v5(broker.port, "subscriber");
    subscriber.send("82 ( 0001 () 't' 00 )");
    subscriber.expect("90 ( 0001 () 00 )");
    let properties: String = (0..10_000).map(|n| format!("26 'k' '{n:04}' ")).collect();
    let started = Instant::now();
    for _ in 0..10 {
        let packet = wire(&format!("30 ( 't' ( {properties} ) `x` )"));
        subscriber.send_bytes(&packet);
        assert!(subscriber.read_packet() == packet, "changed on the way");
    }
    subscriber.send(&format!("82 ( 0002 ( {properties} ) 't2' 00 )"));
    subscriber.expect("90 ( 0002 () 00 )");
    subscriber.send(&format!("a2 ( 0003 ( {properties} ) 't2' )"));
    subscriber.expect("b0 ( 0003 () 00 )");
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( 'MQTT' 05 02 003c ( {properties} ) 'many' )"));
    client.expect_accepted();
    client.send(&format!("e0 ( 00 ( {properties} ) )"));
    client.expect_closed();
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    bystander.check(broker);
}

on_one_and_four_shards! {
    bad_strings_anywhere;
    bad_filters;
    deep_topics;
    a_hundred_levels_work;
    filters_that_multiply;
    thousands_of_user_properties;
}
