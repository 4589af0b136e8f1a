//! The QoS 0, 1 and 2 exchanges without a fault, and flow control (sections 4.3, 4.9).

use crate::common::{Broker, RawClient, on_one_and_four_shards};

/// MQTT-3.8.4-8: each publication QoS to each granted QoS, from and to each version.
fn a_message_arrives_with_the_lower_qos(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher 3");
    let mut publisher_v5 = RawClient::v5(broker.port, "publisher 5");
    for granted in 0..=2 {
        let mut subscriber = RawClient::v311(broker.port, &format!("subscriber 3, {granted}"));
        subscriber.send(&format!("82 ( 0001 'to/3' {granted:02x} )"));
        subscriber.expect(&format!("90 ( 0001 {granted:02x} )"));
        let mut subscriber_v5 = RawClient::v5(broker.port, &format!("subscriber 5, {granted}"));
        subscriber_v5.send(&format!("82 ( 0001 () 'to/5' {granted:02x} )"));
        subscriber_v5.expect(&format!("90 ( 0001 () {granted:02x} )"));
        for sent in 0..=2 {
            for (from, v5) in [(&mut publisher, false), (&mut publisher_v5, true)] {
                publish(from, v5, sent, "to/3");
                receive(&mut subscriber, false, sent.min(granted), "to/3");
                publish(from, v5, sent, "to/5");
                receive(&mut subscriber_v5, true, sent.min(granted), "to/5");
            }
        }
        subscriber.ping();
        subscriber_v5.ping();
    }
}

/// Publishes with packet id 10 and goes through the whole exchange.
fn publish(client: &mut RawClient, v5: bool, qos: u8, topic: &str) {
    let properties = if v5 { "()" } else { "" };
    match qos {
        0 => client.send(&format!("30 ( '{topic}' {properties} `hello` )")),
        1 => {
            client.send(&format!("32 ( '{topic}' 000a {properties} `hello` )"));
            if v5 { client.expect_ack(0x40, "000a") } else { expect(client, "40 02 000a") }
        }
        _ => {
            client.send(&format!("34 ( '{topic}' 000a {properties} `hello` )"));
            if v5 {
                client.expect_ack(0x50, "000a")
            } else {
                expect(client, "50 02 000a")
            }
            client.send("62 02 000a");
            if v5 { client.expect_ack(0x70, "000a") } else { expect(client, "70 02 000a") }
        }
    }
}

/// Receives one message and goes through the whole exchange.
fn receive(client: &mut RawClient, v5: bool, qos: u8, topic: &str) {
    let properties = if v5 { "()" } else { "" };
    match qos {
        0 => expect(client, &format!("30 ( '{topic}' {properties} `hello` )")),
        1 => {
            let id = client.expect(&format!("32 ( '{topic}' ???? {properties} `hello` )"));
            assert_ne!(id, "0000");
            client.send(&format!("40 02 {id}"));
        }
        _ => {
            let id = client.expect(&format!("34 ( '{topic}' ???? {properties} `hello` )"));
            assert_ne!(id, "0000");
            client.send(&format!("50 02 {id}"));
            if v5 {
                client.expect_ack(0x62, &id)
            } else {
                expect(client, &format!("62 02 {id}"))
            }
            client.send(&format!("70 02 {id}"));
        }
    }
}

fn expect(client: &mut RawClient, notation: &str) {
    client.expect(notation);
}

/// MQTT-4.3.3-10: PUBREC again, no second delivery; after PUBREL the id is free.
fn a_qos_2_id_without_pubrel_is_the_same_message(broker: &Broker) {
    let mut subscriber = RawClient::v311(broker.port, "subscriber");
    subscriber.send("82 ( 0001 't' 00 )");
    subscriber.expect("90 ( 0001 00 )");
    let mut client = RawClient::v311(broker.port, "publisher");
    for publish in ["34 ( 't' 0007 `one` )", "3c ( 't' 0007 `one` )", "3c ( 't' 0007 `one` )"] {
        client.send(publish);
        client.expect("50 02 0007");
    }
    for _ in 0..2 {
        client.send("62 02 0007");
        client.expect("70 02 0007");
    }
    client.send("34 ( 't' 0007 `two` )");
    client.expect("50 02 0007");
    client.send("62 02 0007");
    client.expect("70 02 0007");
    subscriber.expect("30 ( 't' `one` ) 30 ( 't' `two` )");
    subscriber.ping();
}

/// MQTT-3.3.1-1, MQTT-3.3.1-3: DUP belongs to one hop.
fn dup_is_not_forwarded(broker: &Broker) {
    let mut subscriber = RawClient::v311(broker.port, "subscriber");
    subscriber.send("82 ( 0001 't' 02 )");
    subscriber.expect("90 ( 0001 02 )");
    let mut client = RawClient::v311(broker.port, "publisher");
    client.send("3a ( 't' 0001 `x` )");
    client.expect("40 02 0001");
    subscriber.expect("32 ( 't' ???? `x` )");
    client.send("3c ( 't' 0002 `y` )");
    client.expect("50 02 0002");
    client.send("62 02 0002");
    client.expect("70 02 0002");
    subscriber.expect("34 ( 't' ???? `y` )");
}

/// Sections 3.4 to 3.7: an acknowledgement for an id that is not in use changes nothing.
fn acknowledgements_of_unknown_ids_do_no_harm(broker: &Broker) {
    let mut client = RawClient::v311(broker.port, "me 3");
    client.send("40 02 0009 70 02 0009");
    client.ping();
    client.send("62 02 0009");
    client.expect("70 02 0009");

    let mut client = RawClient::v5(broker.port, "me 5");
    client.send("40 02 0009 70 02 0009");
    client.ping();
    client.send("62 02 0009");
    assert_eq!(client.ack_reason(0x70, "0009"), 0x92);
    client.send("50 02 0009");
    assert_eq!(client.ack_reason(0x62, "0009"), 0x92);
}

/// After a resumption an unknown id is that of an exchange whose PUBCOMP was lost (3.7.2.1).
fn a_pubrel_that_comes_again_with_its_session_is_no_error(broker: &Broker) {
    let (mut client, _) = RawClient::v5_resume(broker.port, "me");
    client.send("34 ( 't' 0009 () `x` )");
    assert_eq!(client.ack_reason(0x50, "0009"), 0x10);
    client.send("62 02 0009");
    assert_eq!(client.ack_reason(0x70, "0009"), 0);
    drop(client);
    let (mut client, present) = RawClient::v5_resume(broker.port, "me");
    assert!(present);
    client.send("62 02 0009");
    assert_eq!(client.ack_reason(0x70, "0009"), 0);
}

/// The quota begins anew with each connection (4.9), whatever an earlier one left open.
fn receive_maximum_counts_for_each_connection(broker: &Broker) {
    let (mut client, _) = RawClient::v5_resume(broker.port, "me");
    client.send("34 ( 't' 0001 () `x` ) 34 ( 't' 0002 () `x` )");
    assert_eq!(client.ack_reason(0x50, "0001"), 0x10);
    assert_eq!(client.ack_reason(0x50, "0002"), 0x10);
    drop(client);
    let (mut client, _) = RawClient::v5_resume(broker.port, "me");
    client.send("32 ( 't' 0003 () `x` )");
    assert_eq!(client.ack_reason(0x40, "0003"), 0x10);
    client.send("34 ( 't' 0004 () `x` ) 34 ( 't' 0005 () `x` )");
    client.ack_reason(0x50, "0004");
    client.ack_reason(0x50, "0005");
    client.send("34 ( 't' 0006 () `x` )");
    client.expect_disconnect(0x93);
}

/// Every way to write an acknowledgement is understood (3.4.2.1, 3.4.2.2).
fn acknowledgements_come_in_three_lengths(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () 't' 01 )");
    client.expect("90 ( 0001 () 01 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for rest in ["", "00", "10", "00 ()", "00 ( 1f 'fine' )", "80 ( 26 'k' 'v' )"] {
        publisher.send("32 ( 't' 0001 `x` )");
        publisher.expect("40 02 0001");
        let id = client.expect("32 ( 't' ???? () `x` )");
        client.send(&format!("40 ( {id} {rest} )"));
        client.ping();
    }
}

/// MQTT-3.3.4-7 and 3.3.4 (0x93): the broker's Receive Maximum is 2.
fn more_than_the_receive_maximum_ends_the_connection(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("34 ( 't' 0001 () `x` ) 34 ( 't' 0002 () `x` )");
    client.expect_ack(0x50, "0001");
    client.expect_ack(0x50, "0002");
    // One exchange ends, so there is room for one more.
    client.send("62 02 0001");
    client.expect_ack(0x70, "0001");
    client.send("34 ( 't' 0003 () `x` )");
    client.expect_ack(0x50, "0003");
    // QoS 0 does not count.
    client.send("30 ( 't' () `x` )");
    client.ping();
    client.send("34 ( 't' 0004 () `x` )");
    client.expect_disconnect(0x93);
}

/// MQTT-3.3.4-9, MQTT-4.9.0-2, MQTT-4.9.0-3: ours counts QoS 1 and 2 together.
fn a_client_gets_no_more_than_its_receive_maximum(broker: &Broker) {
    let mut subscriber = RawClient::connect(broker.port);
    subscriber.send("10 ( 'MQTT' 05 02 003c ( 21 0002 ) 'subscriber' )");
    subscriber.expect_accepted();
    subscriber.send("82 ( 0001 () 't' 02 )");
    subscriber.expect("90 ( 0001 () 02 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send(
        "34 ( 't' 0001 `1` ) 62 02 0001
         32 ( 't' 0002 `2` ) 32 ( 't' 0003 `3` ) 32 ( 't' 0004 `4` )",
    );
    publisher.expect("50 02 0001 70 02 0001 40 02 0002 40 02 0003 40 02 0004");

    let first = subscriber.expect("34 ( 't' ???? () `1` )");
    let second = subscriber.expect("32 ( 't' ???? () `2` )");
    subscriber.ping();
    subscriber.send(&format!("40 02 {second}"));
    let third = subscriber.expect("32 ( 't' ???? () `3` )");
    // PUBREC does not end the exchange, PUBCOMP does.
    subscriber.send(&format!("50 02 {first}"));
    subscriber.expect_ack(0x62, &first);
    subscriber.ping();
    subscriber.send(&format!("70 02 {first}"));
    let fourth = subscriber.expect("32 ( 't' ???? () `4` )");
    subscriber.send(&format!("40 02 {third} 40 02 {fourth}"));
    subscriber.ping();
}

/// MQTT-4.4.0-2: a PUBREC with an error ends the exchange and gives its place back.
fn an_error_in_pubrec_ends_the_exchange(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c ( 21 0001 ) 'me' )");
    client.expect_accepted();
    client.send("82 ( 0001 () 't' 02 )");
    client.expect("90 ( 0001 () 02 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("34 ( 't' 0001 `1` ) 62 02 0001 34 ( 't' 0002 `2` ) 62 02 0002");
    publisher.expect("50 02 0001 70 02 0001 50 02 0002 70 02 0002");
    let first = client.expect("34 ( 't' ???? () `1` )");
    client.send(&format!("50 03 {first} 83"));
    client.expect("34 ( 't' ???? () `2` )");
}

/// MQTT-4.6.0-2, -3 and -5: acknowledgements and deliveries keep the order of the messages.
fn order_is_kept_per_topic(broker: &Broker) {
    let mut subscriber = RawClient::v311(broker.port, "subscriber");
    subscriber.send("82 ( 0001 'order/#' 00 )");
    subscriber.expect("90 ( 0001 00 )");
    let mut publishers: Vec<RawClient> =
        (0..4).map(|n| RawClient::v311(broker.port, &format!("publisher {n}"))).collect();
    const MESSAGES: usize = 300;
    for message in 0..MESSAGES {
        for (n, publisher) in publishers.iter_mut().enumerate() {
            let id = format!("{:04x}", message + 1);
            let (qos, id) = [("30", ""), ("32", &id), ("34", &id)][message % 3];
            publisher.send(&format!("{qos} ( 'order/{n}' {id} {message:04x} )"));
            // At once: whether a broker hands QoS 2 on with PUBLISH or with PUBREL, the order is one.
            if message % 3 == 2 {
                publisher.send(&format!("62 02 {id}"));
            }
        }
    }
    for publisher in &mut publishers {
        for message in (0..MESSAGES).filter(|message| message % 3 != 0) {
            let id = message + 1;
            match message % 3 {
                1 => publisher.expect(&format!("40 02 {id:04x}")),
                _ => publisher.expect(&format!("50 02 {id:04x} 70 02 {id:04x}")),
            };
        }
    }
    let mut next = [0; 4];
    for _ in 0..4 * MESSAGES {
        let packet = subscriber.read_packet();
        let publisher = usize::from(packet[10] - b'0');
        let message = usize::from(u16::from_be_bytes([packet[11], packet[12]]));
        assert_eq!(message, next[publisher], "publisher {publisher}");
        next[publisher] += 1;
    }
    subscriber.ping();
}

on_one_and_four_shards! {
    a_message_arrives_with_the_lower_qos;
    a_qos_2_id_without_pubrel_is_the_same_message;
    dup_is_not_forwarded;
    acknowledgements_of_unknown_ids_do_no_harm;
    a_pubrel_that_comes_again_with_its_session_is_no_error;
    receive_maximum_counts_for_each_connection with "limits.receive_maximum=2";
    acknowledgements_come_in_three_lengths;
    more_than_the_receive_maximum_ends_the_connection with "limits.receive_maximum=2";
    a_client_gets_no_more_than_its_receive_maximum;
    an_error_in_pubrec_ends_the_exchange;
    order_is_kept_per_topic;
}
