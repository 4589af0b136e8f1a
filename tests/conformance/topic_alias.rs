//! Topic Aliases from the server to the client (section 3.3.2.3.4).

use crate::common::{Broker, RawClient, on_one_and_four_shards};

/// A v5 client with these CONNECT properties, subscribed to `#` at QoS 1.
fn subscriber(broker: &Broker, properties: &str) -> RawClient {
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( 'MQTT' 05 02 0000 ( {properties} ) 'taker' )"));
    client.expect_accepted();
    client.send("82 ( 0001 () '#' 01 )");
    client.expect("90 ( 0001 () 01 )");
    client
}

/// MQTT-3.3.2-8 and its counterpart: never above the client's maximum, never 0, and an alias is used
/// only after the packet that set it.
fn repeated_topics_go_by_alias(broker: &Broker) {
    let mut taker = subscriber(broker, "22 0002");
    let mut publisher = RawClient::v311(broker.port, "giver");
    publisher.send("30 ( 'topic/1' `a` ) 30 ( 'topic/2' `b` ) 30 ( 'topic/1' `c` )");
    taker.expect("30 ( 'topic/1' ( 23 0001 ) `a` )");
    taker.expect("30 ( 'topic/2' ( 23 0002 ) `b` )");
    taker.expect("30 ( 0000 ( 23 0001 ) `c` )");
    publisher.send("32 ( 'topic/2' 0007 `d` )");
    publisher.expect("40 02 0007");
    let id = taker.expect("32 ( 0000 ???? ( 23 0002 ) `d` )");
    taker.send(&format!("40 02 {id}"));
}

/// A third topic takes one of two aliases only when it is used more.
fn the_most_used_topics_have_the_aliases(broker: &Broker) {
    let mut taker = subscriber(broker, "22 0001");
    let mut publisher = RawClient::v311(broker.port, "giver");
    publisher.send("30 ( 'topic/1' ) 30 ( 'topic/1' ) 30 ( 'topic/2' ) 30 ( 'topic/1' )");
    taker.expect("30 ( 'topic/1' ( 23 0001 ) )");
    taker.expect("30 ( 0000 ( 23 0001 ) )");
    taker.expect("30 ( 'topic/2' () )");
    taker.expect("30 ( 0000 ( 23 0001 ) )");
    publisher.send(&"30 ( 'topic/2' )".repeat(20));
    let mut packets: Vec<_> = (0..20).map(|_| taker.read_packet()).collect();
    assert_eq!(packets.pop().unwrap(), [0x30, 6, 0, 0, 3, 0x23, 0, 1]);
    let sets = packets.iter().filter(|packet| packet.len() == 2 + 2 + 7 + 4);
    assert_eq!(sets.count(), 1, "one packet gives the alias to the other topic");
}

/// MQTT-3.3.2-9 and MQTT-3.1.2-27: no alias for a client that accepts none, and none before v5.
fn no_alias_without_being_asked_for(broker: &Broker) {
    let mut taker = subscriber(broker, "");
    let mut old = RawClient::v311(broker.port, "old");
    old.send("82 ( 0001 '#' 00 )");
    old.expect("90 ( 0001 00 )");
    let mut zero = RawClient::connect(broker.port);
    zero.send("10 ( 'MQTT' 05 02 0000 ( 22 0000 ) 'zero' )");
    zero.expect_accepted();
    zero.send("82 ( 0001 () '#' 00 )");
    zero.expect("90 ( 0001 () 00 )");
    let mut publisher = RawClient::v311(broker.port, "giver");
    publisher.send("30 ( 'topic/1' `a` ) 30 ( 'topic/1' `b` )");
    for client in [&mut taker, &mut zero] {
        client.expect("30 ( 'topic/1' () `a` ) 30 ( 'topic/1' () `b` )");
    }
    old.expect("30 ( 'topic/1' `a` ) 30 ( 'topic/1' `b` )");
}

/// Aliases end with the connection: a repeated delivery brings the name again.
fn aliases_end_with_the_connection(broker: &Broker) {
    let connect = "10 ( 'MQTT' 05 00 0000 ( 22 0005 11 ffffffff ) 'taker' )";
    let mut taker = RawClient::connect(broker.port);
    taker.send(connect);
    taker.expect_accepted();
    taker.send("82 ( 0001 () '#' 01 )");
    taker.expect("90 ( 0001 () 01 )");
    let mut publisher = RawClient::v311(broker.port, "giver");
    publisher.send("32 ( 'topic/1' 0001 `a` ) 32 ( 'topic/1' 0002 `b` )");
    publisher.expect("40 02 0001 40 02 0002");
    let first = taker.expect("32 ( 'topic/1' ???? ( 23 0001 ) `a` )");
    let second = taker.expect("32 ( 0000 ???? ( 23 0001 ) `b` )");
    drop(taker);
    let mut taker = RawClient::connect(broker.port);
    taker.send(connect);
    assert!(taker.expect_accepted().session_present);
    taker.expect(&format!("3a ( 'topic/1' {first} ( 23 0001 ) `a` )"));
    taker.expect(&format!("3a ( 0000 {second} ( 23 0001 ) `b` )"));
}

/// MQTT-3.1.2-24: the alias is left out where the packet would be too large with it, and not
/// used before a packet that set it was sent.
fn an_alias_never_makes_a_packet_too_large(broker: &Broker) {
    // 2 + 2 + 7 + 1 + payload without, three more with the alias.
    let mut taker = subscriber(broker, "22 0005 27 00000020");
    let mut publisher = RawClient::v311(broker.port, "giver");
    let large = "01234567890123456789";
    publisher
        .send(&format!("30 ( 'topic/1' `{large}` ) 30 ( 'topic/1' `a` ) 30 ( 'topic/1' `b` )"));
    taker.expect(&format!("30 ( 'topic/1' () `{large}` )"));
    taker.expect("30 ( 'topic/1' ( 23 0001 ) `a` )");
    taker.expect("30 ( 0000 ( 23 0001 ) `b` )");
}

/// Other properties go along with an alias.
fn an_alias_stands_beside_other_properties(broker: &Broker) {
    let mut taker = RawClient::connect(broker.port);
    taker.send("10 ( 'MQTT' 05 02 0000 ( 22 0002 ) 'taker' )");
    taker.expect_accepted();
    taker.send("82 ( 0001 ( 0b 07 ) '#' 00 )");
    taker.expect("90 ( 0001 () 00 )");
    let mut publisher = RawClient::v5(broker.port, "giver");
    publisher.send(&"30 ( 'topic/1' ( 26 'k' 'v' ) `a` )".repeat(2));
    taker.expect("30 ( 'topic/1' ( 23 0001 0b 07 26 'k' 'v' ) `a` )");
    taker.expect("30 ( 0000 ( 23 0001 0b 07 26 'k' 'v' ) `a` )");
}

/// At QoS 2 the name goes along: clients that keep the message until PUBREL may not know the alias then.
fn no_alias_at_qos_2(broker: &Broker) {
    let mut taker = RawClient::connect(broker.port);
    taker.send("10 ( 'MQTT' 05 02 0000 ( 22 0002 ) 'taker' )");
    taker.expect_accepted();
    taker.send("82 ( 0001 () '#' 02 )");
    taker.expect("90 ( 0001 () 02 )");
    let mut publisher = RawClient::v311(broker.port, "giver");
    publisher.send("30 ( 'topic/1' `a` ) 34 ( 'topic/1' 0001 `b` ) 30 ( 'topic/1' `c` )");
    publisher.expect("50 02 0001");
    taker.expect("30 ( 'topic/1' ( 23 0001 ) `a` )");
    taker.expect("34 ( 'topic/1' ???? () `b` )");
    taker.expect("30 ( 0000 ( 23 0001 ) `c` )");
}

/// The operator's bound holds where it is lower than the client's, and can turn aliases off.
fn the_configured_bound_holds(broker: &Broker) {
    let mut taker = subscriber(broker, "22 ffff");
    let mut publisher = RawClient::v311(broker.port, "giver");
    publisher.send("30 ( 'topic/1' ) 30 ( 'topic/2' ) 30 ( 'topic/1' )");
    taker.expect("30 ( 'topic/1' ( 23 0001 ) ) 30 ( 'topic/2' () )");
    taker.read_packet();
}

on_one_and_four_shards! {
    repeated_topics_go_by_alias;
    the_most_used_topics_have_the_aliases;
    no_alias_without_being_asked_for;
    aliases_end_with_the_connection;
    an_alias_never_makes_a_packet_too_large;
    an_alias_stands_beside_other_properties;
    no_alias_at_qos_2;
    the_configured_bound_holds with "limits.client_topic_aliases_max=1";
}
