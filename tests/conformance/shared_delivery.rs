//! What a shared subscription owes the member that a message was sent to (section 4.8.2).

use crate::common::{Broker, RawClient, each, on_one_and_four_shards};

/// A member of the group of `t` whose session outlives its connection.
fn member(broker: &Broker, id: &str, qos: &str) -> RawClient {
    let (mut client, present) = RawClient::v5_resume(broker.port, id);
    assert!(!present);
    join(&mut client, id, qos);
    client
}

/// Joins the group, and subscribes to what shows that nothing else is under way to this client.
fn join(client: &mut RawClient, id: &str, qos: &str) {
    client.send(&format!("82 ( 0001 () '$share/group/t' {qos} 'marker/{id}' 00 )"));
    client.expect(&format!("90 ( 0001 () {qos} 00 )"));
}

/// Publishes to the group at QoS 2.
fn publish(publisher: &mut RawClient, payload: &str) {
    publisher.send(&format!("34 ( 't' 0001 `{payload}` ) 62 02 0001"));
    publisher.expect("50 02 0001 70 02 0001");
}

/// Nothing of the group is under way to this member.
fn expect_nothing(publisher: &mut RawClient, client: &mut RawClient, id: &str) {
    publisher.send(&format!("30 ( 'marker/{id}' `m` )"));
    client.expect(&format!("30 ( 'marker/{id}' () `m` )"));
    client.ping();
}

/// MQTT-4.8.2-3
fn a_member_gets_the_qos_it_was_granted(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for (qos, expected) in [
        ("00", "30 ( 't' () `x` )"),
        ("01", "32 ( 't' ???? () `x` )"),
        ("02", "34 ( 't' ???? () `x` )"),
    ] {
        let mut client = RawClient::v5(broker.port, "only member");
        join(&mut client, "only", qos);
        publish(&mut publisher, "x");
        client.expect(expected);
        client.send("e0 00");
        client.expect_closed();
    }
    // And no more than the message has.
    let mut client = RawClient::v5(broker.port, "only member");
    join(&mut client, "only", "02");
    publisher.send("32 ( 't' 0001 `x` )");
    publisher.expect("40 02 0001");
    client.expect("32 ( 't' ???? () `x` )");
}

/// MQTT-4.8.2-4: a message that was sent to a member is that member's, also when it was cut off at any
/// point of the exchange. The others get none of it.
fn a_member_that_comes_back_completes_its_deliveries(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let mut one = member(broker, "one", "02");
    publish(&mut publisher, "published");
    publish(&mut publisher, "released");
    let first = one.expect("34 ( 't' ???? () `published` )");
    let second = one.expect("34 ( 't' ???? () `released` )");
    one.send(&format!("50 02 {second}"));
    one.expect_ack(0x62, &second);
    let mut two = member(broker, "two", "02");
    one.half_close();
    one.expect_closed();
    expect_nothing(&mut publisher, &mut two, "two");
    let (mut one, present) = RawClient::v5_resume(broker.port, "one");
    assert!(present);
    one.expect(&format!("3c ( 't' {first} () `published` )"));
    one.expect_ack(0x62, &second);
    one.send(&format!("50 02 {first} 70 02 {second}"));
    one.expect_ack(0x62, &first);
    one.send(&format!("70 02 {first}"));
    one.ping();
    expect_nothing(&mut publisher, &mut two, "two");
}

/// MQTT-4.8.2-5: with the session its unfinished deliveries end. None goes to another member.
fn what_a_session_leaves_unfinished_goes_to_nobody(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let mut one = member(broker, "one", "02");
    publish(&mut publisher, "published");
    publish(&mut publisher, "released");
    one.expect("34 ( 't' ???? () `published` )");
    let second = one.expect("34 ( 't' ???? () `released` )");
    one.send(&format!("50 02 {second}"));
    one.expect_ack(0x62, &second);
    let mut two = member(broker, "two", "02");
    one.half_close();
    one.expect_closed();
    let mut one = RawClient::v5(broker.port, "one");
    expect_nothing(&mut publisher, &mut two, "two");
    one.ping();
    // Only the other one is a member now.
    publish(&mut publisher, "later");
    two.expect("34 ( 't' ???? () `later` )");
    one.ping();
}

/// MQTT-4.8.2-6
fn what_a_member_refuses_goes_to_nobody(broker: &Broker) {
    each([("01", "32", "40"), ("02", "34", "50")], |(qos, publish_byte, ack)| {
        let mut publisher = RawClient::v311(broker.port, "publisher");
        let mut one = RawClient::v5(broker.port, "one");
        join(&mut one, "one", qos);
        publish(&mut publisher, "x");
        let id = one.expect(&format!("{publish_byte} ( 't' ???? () `x` )"));
        let mut two = RawClient::v5(broker.port, "two");
        join(&mut two, "two", qos);
        one.send(&format!("{ack} 03 {id} 80"));
        one.ping();
        expect_nothing(&mut publisher, &mut two, "two");
        for mut client in [one, two] {
            client.send("c0 00 e0 00");
            client.expect("d0 00");
            client.expect_closed();
        }
    });
}

/// MQTT-3.3.4-5: a shared and a plain subscription bring a message each, each with its own identifier.
fn every_copy_has_the_identifier_of_its_subscription(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 ( 0b 01 ) '$share/group/t' 00 ) 82 ( 0002 ( 0b 02 ) 't' 00 )");
    client.expect("90 ( 0001 () 00 ) 90 ( 0002 () 00 )");
    client.send("82 ( 0003 () '$share/other/t' 00 )");
    client.expect("90 ( 0003 () 00 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("30 ( 't' `x` )");
    client.expect_in_any_order(&[
        "30 ( 't' ( 0b 01 ) `x` )",
        "30 ( 't' ( 0b 02 ) `x` )",
        "30 ( 't' () `x` )",
    ]);
    client.ping();
}

on_one_and_four_shards! {
    a_member_gets_the_qos_it_was_granted;
    a_member_that_comes_back_completes_its_deliveries;
    what_a_session_leaves_unfinished_goes_to_nobody;
    what_a_member_refuses_goes_to_nobody;
    every_copy_has_the_identifier_of_its_subscription;
}
