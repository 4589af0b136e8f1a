//! Packets that break the format: a table of bytes and the reason code each has to get.

use crate::Bystander;
use crate::common::{Broker, RawClient, each, on_one_and_four_shards};

type Case = (&'static str, &'static str, &'static [u8]);

/// Sends each packet after a v5 CONNECT, and expects the DISCONNECT.
fn each_is_refused_after_connect(broker: &Broker, cases: &[Case]) {
    let mut bystander = Bystander::new(broker);
    each(cases, |(_, packet, reasons)| {
        let mut client = RawClient::v5(broker.port, "abuser");
        client.send(packet);
        client.expect_disconnect_with(reasons);
    });
    bystander.check(broker);
}

/// Sends each as the first packet, and expects a CONNACK with the reason or no word.
fn each_is_refused_at_connect(broker: &Broker, cases: &[Case]) {
    let mut bystander = Bystander::new(broker);
    each(cases, |(_, packet, reasons)| {
        let mut client = RawClient::connect(broker.port);
        client.send(packet);
        client.expect_refused(reasons);
    });
    bystander.check(broker);
}

/// Section 2.1 and MQTT-1.5.5-1
fn broken_headers(broker: &Broker) {
    each_is_refused_after_connect(
        broker,
        &[
            ("five-byte length", "30 ffffffff7f", &[0x81]),
            ("five-byte length of a short one", "c0 8080808000", &[0x81]),
            ("reserved packet type 0", "00 00", &[0x81, 0x82]),
            ("flags of PINGREQ", "c1 00", &[0x81]),
            ("flags of DISCONNECT", "e1 00", &[0x81]),
            ("flags of PUBACK", "42 02 0001", &[0x81]),
            ("flags of PUBREC", "52 02 0001", &[0x81]),
            ("flags of PUBREL (MQTT-3.6.1-1)", "60 02 0001", &[0x81]),
            ("flags of PUBCOMP", "78 02 0001", &[0x81]),
            ("a body in PINGREQ", "c0 01 00", &[0x81]),
        ],
    );
}

/// What only a server may send.
fn server_only_packets(broker: &Broker) {
    each_is_refused_after_connect(
        broker,
        &[
            ("CONNACK", "20 ( 00 00 () )", &[0x82]),
            ("SUBACK", "90 ( 0001 () 00 )", &[0x82]),
            ("UNSUBACK", "b0 ( 0001 () 00 )", &[0x82]),
            ("PINGRESP", "d0 00", &[0x82]),
        ],
    );
    each(["20 02 00 00", "90 ( 0001 00 )", "b0 02 0001", "d0 00", "f0 00"], |packet| {
        let mut client = RawClient::v311(broker.port, "abuser");
        client.send(packet);
        client.expect_closed();
    });
}

/// Packets that end before what they have to carry, or go on after it.
fn wrong_lengths(broker: &Broker) {
    each_is_refused_after_connect(
        broker,
        &[
            ("empty PUBLISH", "30 00", &[0x81]),
            ("half a topic length", "30 01 00", &[0x81]),
            ("topic longer than the packet", "30 04 ffff 6161", &[0x81]),
            ("no packet id", "32 03 0001 74", &[0x81]),
            ("half a packet id", "32 04 0001 74 00", &[0x81]),
            ("no property length", "30 ( 't' )", &[0x81]),
            ("properties longer than the packet", "30 ( 't' 7f )", &[0x81]),
            ("property length of five bytes", "30 ( 't' 8080808001 )", &[0x81]),
            ("half a property", "30 ( 't' ( 02 0000 ) `x` )", &[0x81]),
            ("half a user property", "30 ( 't' ( 26 'k' ) `x` )", &[0x81]),
            ("property string too long", "30 ( 't' ( 03 00ff 61 ) `x` )", &[0x81]),
            ("empty PUBACK", "40 00", &[0x81]),
            ("half a PUBACK", "40 01 00", &[0x81]),
            ("empty SUBSCRIBE", "82 00", &[0x81]),
            ("filter longer than the packet", "82 ( 0001 () 00ff 61 00 )", &[0x81]),
            ("empty UNSUBSCRIBE", "a2 00", &[0x81]),
            ("bytes after PUBACK", "40 ( 0001 00 () ff )", &[0x81]),
            ("bytes after DISCONNECT", "e0 ( 00 () ff )", &[0x81]),
        ],
    );
}

/// 2.2.2.2: each property once, of a known kind, where it belongs.
fn misplaced_properties(broker: &Broker) {
    each_is_refused_after_connect(
        broker,
        &[
            ("content type twice", "30 ( 't' ( 03 'a' 03 'a' ) `x` )", &[0x82]),
            ("expiry twice", "30 ( 't' ( 02 00000001 02 00000001 ) `x` )", &[0x82]),
            ("alias twice", "30 ( 't' ( 23 0001 23 0001 ) `x` )", &[0x82]),
            ("unknown in PUBLISH", "30 ( 't' ( 7f 00 ) `x` )", &[0x81]),
            ("unknown 0x00", "30 ( 't' ( 00 00 ) `x` )", &[0x81]),
            ("session expiry in PUBLISH", "30 ( 't' ( 11 00000001 ) `x` )", &[0x81]),
            ("will delay in PUBLISH", "30 ( 't' ( 18 00000001 ) `x` )", &[0x81]),
            ("content type in PUBACK", "40 ( 0001 00 ( 03 'a' ) )", &[0x81]),
            ("reason twice in PUBACK", "40 ( 0001 00 ( 1f 'a' 1f 'b' ) )", &[0x82]),
            ("content type in SUBSCRIBE", "82 ( 0001 ( 03 'a' ) 't' 00 )", &[0x81]),
            ("subscription id in UNSUBSCRIBE", "a2 ( 0001 ( 0b 01 ) 't' )", &[0x81]),
            ("expiry twice in DISCONNECT", "e0 ( 00 ( 11 00000001 11 00000001 ) )", &[0x82]),
            ("content type in DISCONNECT", "e0 ( 00 ( 03 'a' ) )", &[0x81]),
        ],
    );
}

/// MQTT-3.1.4-1, section 3.1.2.11
fn bad_connect_properties(broker: &Broker) {
    each_is_refused_at_connect(
        broker,
        &[
            ("five-byte length", "10 ffffffff7f", &[0x81]),
            ("no property length", "10 ( 'MQTT' 05 02 003c )", &[0x81]),
            ("no client id", "10 ( 'MQTT' 05 02 003c () )", &[0x81]),
            ("expiry twice", "10 ( 'MQTT' 05 02 003c ( 11 00000001 11 00000001 ) 'a' )", &[0x82]),
            ("unknown property", "10 ( 'MQTT' 05 02 003c ( 7f 00 ) 'a' )", &[0x81]),
            ("topic alias", "10 ( 'MQTT' 05 02 003c ( 23 0001 ) 'a' )", &[0x81, 0x82]),
            ("receive maximum 0", "10 ( 'MQTT' 05 02 003c ( 21 0000 ) 'a' )", &[0x81, 0x82]),
            ("packet size 0", "10 ( 'MQTT' 05 02 003c ( 27 00000000 ) 'a' )", &[0x81, 0x82]),
            ("problem information 2", "10 ( 'MQTT' 05 02 003c ( 17 02 ) 'a' )", &[0x81, 0x82]),
            ("response information 2", "10 ( 'MQTT' 05 02 003c ( 19 02 ) 'a' )", &[0x81, 0x82]),
            ("data without method", "10 ( 'MQTT' 05 02 003c ( 16 'a' ) 'a' )", &[0x81, 0x82]),
            ("half a property", "10 ( 'MQTT' 05 02 003c ( 21 00 ) 'a' )", &[0x81]),
        ],
    );
}

/// MQTT-3.1.3-11 and section 3.1.3.2
fn bad_wills(broker: &Broker) {
    each_is_refused_at_connect(
        broker,
        &[
            ("no will properties", "10 ( 'MQTT' 05 06 003c () 'a' )", &[0x81]),
            ("overlong", "10 ( 'MQTT' 05 06 003c () 'a' 7f 'w' 'x' )", &[0x81]),
            ("unknown", "10 ( 'MQTT' 05 06 003c () 'a' ( 7f 00 ) 'w' 'x' )", &[0x81]),
            (
                "twice",
                "10 ( 'MQTT' 05 06 003c () 'a' ( 18 00000001 18 00000001 ) 'w' 'x' )",
                &[0x82],
            ),
            ("alias", "10 ( 'MQTT' 05 06 003c () 'a' ( 23 0001 ) 'w' 'x' )", &[0x81, 0x82]),
            ("format 2", "10 ( 'MQTT' 05 06 003c () 'a' ( 01 02 ) 'w' 'x' )", &[0x81, 0x82]),
            ("response topic", "10 ( 'MQTT' 05 06 003c () 'a' ( 08 '#' ) 'w' 'x' )", &[0x81, 0x82]),
            ("wildcard", "10 ( 'MQTT' 05 06 003c () 'a' () 'w/#' 'x' )", &[0x81, 0x90]),
            ("empty topic", "10 ( 'MQTT' 05 06 003c () 'a' () '' 'x' )", &[0x81, 0x82, 0x90]),
            ("NUL", "10 ( 'MQTT' 05 06 003c () 'a' () 0003 770077 'x' )", &[0x81, 0x90]),
            ("no payload", "10 ( 'MQTT' 05 06 003c () 'a' () 'w' )", &[0x81]),
            ("payload too long", "10 ( 'MQTT' 05 06 003c () 'a' () 'w' 00ff 61 )", &[0x81]),
        ],
    );
    each(["'w/#' 'x'", "'' 'x'", "'w'", "0003 770077 'x'"], |will| {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 04 06 003c 'a' {will} )"));
        client.expect_closed();
    });
}

/// Wills on the broker's own topics: taken or not, they do no harm.
fn wills_on_reserved_topics(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    for topic in ["$SYS/broker/uptime", "$CONTROL/dynamic-security/v1", "$share/g/t", "$"] {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 2e 003c () 'abuser' () '{topic}' 'x' )"));
        let connack = client.connack();
        println!("{topic}: {:#04x}", connack.reason);
        drop(client);
        bystander.check(broker);
    }
}

/// Every prefix of a good exchange, then the end of the connection.
fn every_truncation(broker: &Broker) {
    let mut bystander = Bystander::new(broker);
    let packets = crate::common::wire(
        "10 ( 'MQTT' 05 ee 003c ( 21 0005 26 'k' 'v' ) 'cut' ( 18 00000000 ) 'w' 'x' 'u' 'p' )
         82 ( 0001 ( 0b 01 ) 't/#' 01 '$share/g/t' 02 )
         3c ( 't' 0002 ( 23 0001 26 'k' 'v' ) `payload` ) 62 ( 0002 00 () )
         a2 ( 0003 () 't/#' ) e0 ( 04 ( 11 00000000 ) )",
    );
    for length in 0..packets.len() {
        let mut client = RawClient::connect(broker.port);
        client.send_bytes(&packets[..length]);
    }
    bystander.check(broker);
}

on_one_and_four_shards! {
    broken_headers;
    server_only_packets;
    wrong_lengths;
    misplaced_properties;
    bad_connect_properties;
    bad_wills;
    wills_on_reserved_topics;
    every_truncation;
}
