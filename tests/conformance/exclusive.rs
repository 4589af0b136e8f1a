//! `$exclusive/FILTER`: a subscription that one session has at a time. And `$queue/FILTER`, which all
//! that ask for it share.

use crate::common::{Broker, RawClient, each, on_one_and_four_shards, wire};

/// So many that they live on different shards, if there are four.
const CLIENTS: usize = 12;

fn clients(broker: &Broker) -> Vec<RawClient> {
    (0..CLIENTS).map(|n| RawClient::v5(broker.port, &format!("client {n}"))).collect()
}

/// The reason code for one filter at QoS 0.
fn subscribe(client: &mut RawClient, filter: &str) -> String {
    client.send(&format!("82 ( 0001 () '{filter}' 00 )"));
    client.expect("90 ( 0001 () ?? )")
}

/// Asks until it is granted: what a lost connection gave back may be on a lane still.
fn subscribe_soon(client: &mut RawClient, filter: &str) {
    let tries = (0..10_000).find(|_| subscribe(client, filter) == "00");
    assert!(tries.is_some(), "{filter} stays taken");
}

/// One has it and gets its messages; the others are refused and get none.
fn one_session_has_it_at_a_time(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    for filter in ["e/1", "e/+", "e/#"] {
        let mut all = clients(broker);
        let mut ordinary = RawClient::v311(broker.port, "ordinary");
        ordinary.send("82 ( 0001 'e/#' 00 )");
        ordinary.expect("90 ( 0001 00 )");
        for holder in 0..CLIENTS {
            let filter = format!("$exclusive/{filter}");
            assert_eq!(subscribe(&mut all[holder], &filter), "00", "{filter} {holder}");
            for (at, client) in all.iter_mut().enumerate() {
                let expected = if at == holder { "00" } else { "97" };
                assert_eq!(subscribe(client, &filter), expected, "{filter} {at} {holder}");
            }
            let mut old = RawClient::v311(broker.port, "old");
            old.send(&format!("82 ( 0001 '{filter}' 02 )"));
            old.expect("90 ( 0001 80 )");
            publisher.send("30 ( 'e/1' `x` )");
            all[holder].expect("30 ( 'e/1' () `x` )");
            ordinary.expect("30 ( 'e/1' `x` )");
            all[(holder + 1) % CLIENTS].send(&format!("a2 ( 0002 () '{filter}' )"));
            all[(holder + 1) % CLIENTS].expect("b0 ( 0002 () 11 )");
            all[holder].send(&format!("a2 ( 0002 () '{filter}' )"));
            all[holder].expect("b0 ( 0002 () 00 )");
            publisher.send("30 ( 'e/1' `y` )");
            ordinary.expect("30 ( 'e/1' `y` )");
            all[holder].ping();
        }
    }
}

/// Both filters of a session match: one message, the higher QoS, both identifiers.
fn it_stands_beside_an_ordinary_subscription(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("33 ( 'e' 0001 `kept` )");
    publisher.expect("40 02 0001");
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 ( 0b 01 ) 'e' 10 ) 82 ( 0002 ( 0b 02 ) '$exclusive/e' 01 )");
    let kept = ["31 ( 'e' ( 0b 01 ) `kept` )", "33 ( 'e' ???? ( 0b 02 ) `kept` )"];
    client.expect_in_any_order(&["90 ( 0001 () 00 )", "90 ( 0002 () 01 )", kept[0], kept[1]]);
    publisher.send("32 ( 'e' 0002 `both` )");
    publisher.expect("40 02 0002");
    let packet = client.read_packet();
    assert_eq!((packet[0], &packet[packet.len() - 4..]), (0x32, &b"both"[..]));
    assert_eq!(packet.len(), 2 + 3 + 2 + 5 + 4, "two identifiers");
    client.send("a2 ( 0003 () 'e' )");
    client.expect("b0 ( 0003 () 00 )");
    publisher.send("32 ( 'e' 0003 `one` )");
    publisher.expect("40 02 0003");
    client.expect("32 ( 'e' ???? ( 0b 02 ) `one` )");
    client.send("82 ( 0004 () 'e' 20 ) a2 ( 0005 () '$exclusive/e' )");
    client.expect("90 ( 0004 () 00 ) b0 ( 0005 () 00 )");
    publisher.send("32 ( 'e' 0004 `other` )");
    publisher.expect("40 02 0004");
    client.expect("30 ( 'e' () `other` )");
    client.ping();
}

/// By whatever ends it, and not by a lost connection alone.
fn the_end_of_a_session_gives_it_back(broker: &Broker) {
    let mut other = RawClient::v5(broker.port, "other");
    for n in 0..CLIENTS {
        let (id, filter) = (format!("kept {n}"), format!("$exclusive/e/{n}"));
        let (mut client, _) = RawClient::v5_resume(broker.port, &id);
        assert_eq!(subscribe(&mut client, &filter), "00");
        drop(client);
        assert_eq!(subscribe(&mut other, &filter), "97", "absent, but it has a session");
        let (mut client, present) = RawClient::v5_resume(broker.port, &id);
        assert!(present);
        assert_eq!(subscribe(&mut client, &filter), "00");
        // Taken over with Clean Start.
        let mut new = RawClient::v5(broker.port, &id);
        client.expect_disconnect(0x8e);
        subscribe_soon(&mut other, &filter);
        assert_eq!(subscribe(&mut new, &filter), "97");
        other.send(&format!("a2 ( 0002 () '{filter}' )"));
        other.expect("b0 ( 0002 () 00 )");
        assert_eq!(subscribe(&mut new, &filter), "00");
        // Its session ends with its connection.
        drop(new);
        subscribe_soon(&mut other, &filter);
    }
}

/// The session after a Clean Start asks at once for what the one before had, or was about to get.
fn a_clean_start_asks_again_at_once(broker: &Broker) {
    for n in 0..CLIENTS {
        for attempt in 0..6 {
            let mut client = RawClient::connect(broker.port);
            client.send(&format!(
                "10 ( 'MQTT' 05 02 003c ( 11 0000012c ) 'me {n}' ) \
                 82 ( 0001 () '$exclusive/e/{n}' 00 )"
            ));
            client.expect_accepted();
            if attempt % 2 == 1 {
                client.expect("90 ( 0001 () 00 )");
            }
        }
    }
}

/// Everybody asks at once, on all shards: one gets it.
fn racing_claims_have_one_winner(broker: &Broker) {
    let mut all = clients(broker);
    for round in 0..50 {
        let filter = format!("$exclusive/race/{}/#", round % 5);
        for client in &mut all {
            client.send(&format!("82 ( 0001 () '{filter}' 00 'x' 00 )"));
        }
        let reasons: Vec<_> =
            all.iter_mut().map(|client| client.expect("90 ( 0001 () ?? 00 )")).collect();
        let winners: Vec<_> = (0..CLIENTS).filter(|at| reasons[*at] == "00").collect();
        assert_eq!(winners.len(), 1, "{reasons:?}");
        let winner = &mut all[winners[0]];
        winner.send(&format!("a2 ( 0002 () '{filter}' )"));
        winner.expect("b0 ( 0002 () 00 )");
    }
}

/// Connections that go while their claims are on the way leave nothing behind.
fn claims_of_the_gone_are_withdrawn(broker: &Broker) {
    let filters: Vec<_> = (0..8).map(|n| format!("$exclusive/gone/{n}")).collect();
    let wishes: String = filters.iter().map(|filter| format!("'{filter}' 00 ")).collect();
    for n in 0..100 {
        let mut client = RawClient::v5(broker.port, &format!("gone {}", n % 10));
        client.send(&format!("82 ( 0001 () {wishes} )"));
        if n % 3 == 0 {
            client.send(&format!("a2 ( 0002 () '{}' )", filters[0]));
        }
    }
    let mut last = RawClient::v5(broker.port, "last");
    for filter in &filters {
        subscribe_soon(&mut last, filter);
    }
}

/// What a client sends behind a SUBSCRIBE is not handled before it.
fn packets_behind_a_claim_keep_their_order(broker: &Broker) {
    for n in 0..8 {
        let filter = format!("$exclusive/order/{n}");
        let mut client = RawClient::v5(broker.port, "me");
        client.send(&format!("82 ( 0001 () '{filter}' 00 ) a2 ( 0002 () '{filter}' )"));
        client.send(&format!("82 ( 0003 () '{filter}' 00 ) 30 ( 'order/{n}' () `x` ) c0 00"));
        let packets: Vec<_> = (0..5).map(|_| client.read_packet()).collect();
        let acks: Vec<_> =
            packets.iter().filter(|packet| packet[0] >= 0x90 && packet.len() > 2).collect();
        assert_eq!(
            acks,
            [&wire("90 ( 0001 () 00 )"), &wire("b0 ( 0002 () 00 )"), &wire("90 ( 0003 () 00 )")]
        );
        // By the second subscription.
        assert!(packets.contains(&wire(&format!("30 ( 'order/{n}' () `x` )"))), "{packets:02x?}");
        assert_eq!(subscribe(&mut RawClient::v5(broker.port, "other"), &filter), "97");
    }
}

/// A filter that the session has no room for is not kept from others.
fn what_is_refused_for_another_reason_stays_free(broker: &Broker) {
    let mut other = RawClient::v5(broker.port, "other");
    for n in 0..8 {
        let mut full = RawClient::v5(broker.port, "full");
        assert_eq!(subscribe(&mut full, "a"), "00");
        assert_eq!(subscribe(&mut full, &format!("$exclusive/e/{n}")), "97");
        subscribe_soon(&mut other, &format!("$exclusive/e/{n}"));
        other.send(&format!("a2 ( 0002 () '$exclusive/e/{n}' )"));
        other.expect("b0 ( 0002 () 00 )");
    }
}

/// One group of that name, told apart from `$share/$queue`.
fn a_queue_is_shared_by_all_that_ask_for_it(broker: &Broker) {
    let mut members: Vec<_> = clients(broker).into_iter().take(4).collect();
    for member in &mut members {
        assert_eq!(subscribe(member, "$queue/job/+"), "00");
    }
    let mut apart = RawClient::v5(broker.port, "apart");
    assert_eq!(subscribe(&mut apart, "$share/$queue/job/+"), "00");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    const JOBS: usize = 20;
    for _ in 0..JOBS {
        publisher.send("30 ( 'job/1' `x` )");
    }
    for member in &mut members {
        for _ in 0..JOBS / 4 {
            member.expect("30 ( 'job/1' () `x` )");
        }
        member.ping();
    }
    for _ in 0..JOBS {
        apart.expect("30 ( 'job/1' () `x` )");
    }
    members[0].send("a2 ( 0002 () '$share/$queue/job/+' '$queue/job/+' )");
    members[0].expect("b0 ( 0002 () 11 00 )");
    // MQTT-3.8.3-4 holds for it too.
    let mut client = RawClient::v5(broker.port, "local");
    client.send("82 ( 0001 () '$queue/a' 04 )");
    client.expect_disconnect(0x82);
}

/// The prefixes mean something in SUBSCRIBE only.
fn prefixes_are_no_topics(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () '$queue/a' 00 '$exclusive/a' 00 )");
    client.expect("90 ( 0001 () 00 00 )");
    for topic in ["$queue/a", "$exclusive/a", "$share/g/a", "$queue", "$exclusive", "$request"] {
        client.send(&format!("32 ( '{topic}' 0001 () `x` )"));
        assert_eq!(client.ack_reason(0x40, "0001"), 0x87, "{topic}");
    }
    client.ping();
    let filters = [
        "$queue",
        "$queue/",
        "$exclusive",
        "$exclusive/",
        "$exclusive/$queue/a",
        "$queue/$share/g/a",
        "$share/g/$exclusive/a",
    ];
    each(filters, |filter| {
        let mut client = RawClient::v5(broker.port, "other");
        assert_eq!(subscribe(&mut client, filter), "8f");
    });
}

on_one_and_four_shards! {
    one_session_has_it_at_a_time;
    it_stands_beside_an_ordinary_subscription;
    the_end_of_a_session_gives_it_back;
    a_clean_start_asks_again_at_once;
    racing_claims_have_one_winner;
    claims_of_the_gone_are_withdrawn;
    packets_behind_a_claim_keep_their_order;
    what_is_refused_for_another_reason_stays_free with "limits.subscriptions_max=1";
    a_queue_is_shared_by_all_that_ask_for_it;
    prefixes_are_no_topics;
}
