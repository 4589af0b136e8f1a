//! Shared subscriptions (section 4.8.2): one member gets each message, and which
//! one is up to the strategy. Subscriptions are known on all shards once they are
//! acknowledged; for all other news see [`tell`].

use std::collections::BTreeSet;

use crate::common::{Broker, RawClient, each, on_one_and_four_shards};

/// A 3.1.1 member of a shared subscription that also gets what [`taker`] marks the end with.
fn member(broker: &Broker, id: &str, filter: &str, qos: &str) -> RawClient {
    let mut client = RawClient::v311(broker.port, id);
    join(&mut client, filter, qos);
    client
}

fn join(client: &mut RawClient, filter: &str, qos: &str) {
    client.send(&format!("82 ( 0001 '{filter}' {qos} 'marker' 00 )"));
    client.expect(&format!("90 ( 0001 {qos} 00 )"));
}

fn members(broker: &Broker, count: usize, filter: &str) -> Vec<RawClient> {
    (0..count).map(|n| member(broker, &format!("member {n}"), filter, "00")).collect()
}

/// Publishers whose homes are likely all shards, and that can be told of news.
fn publishers(broker: &Broker, count: usize) -> Vec<RawClient> {
    let publisher = |n| {
        let mut client = RawClient::v311(broker.port, &format!("publisher {n}"));
        client.send("82 ( 0001 'news' 00 )");
        client.expect("90 ( 0001 00 )");
        client
    };
    (0..count).map(publisher).collect()
}

/// Waits until the shards of the publishers know what the shard of `from` knows.
fn tell(from: &mut RawClient, publishers: &mut [RawClient]) {
    from.ping();
    from.send("30 ( 'news' `n` )");
    for publisher in publishers {
        publisher.expect("30 ( 'news' `n` )");
    }
}

/// Publishes one message at QoS 0 and tells which member got it.
#[track_caller]
fn taker(publisher: &mut RawClient, members: &mut [RawClient], topic: &str) -> usize {
    publisher.send(&format!("30 ( '{topic}' `x` ) 30 ( 'marker' `m` )"));
    let counts: Vec<_> = members.iter_mut().map(|member| until_marker(member).len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 1, "{topic}: {counts:?}");
    counts.iter().position(|count| *count == 1).expect("the sum is 1")
}

/// What a client gets before the marker.
fn until_marker(client: &mut RawClient) -> Vec<Vec<u8>> {
    let packets = std::iter::from_fn(|| {
        let packet = client.read_packet();
        (packet.last() != Some(&b'm')).then_some(packet)
    });
    packets.collect()
}

/// Who gets what each publisher sends on each topic: the same for all publishers.
#[track_caller]
fn takers_by_topic(publishers: &mut [RawClient], members: &mut [RawClient]) -> Vec<usize> {
    let takers = |publisher: &mut RawClient| -> Vec<usize> {
        (0..24).map(|n| taker(publisher, members, &format!("job/{n}"))).collect()
    };
    let mut takers: Vec<_> = publishers.iter_mut().map(takers).collect();
    takers.dedup();
    assert_eq!(takers.len(), 1, "{takers:?}");
    takers.remove(0)
}

/// MQTT-4.8.2-1, -2 and 4.8.2: each message to one of the group.
fn members_take_turns(broker: &Broker) {
    let mut group = members(broker, 2, "$share/group/job/+");
    let mut outside = RawClient::v311(broker.port, "outside");
    outside.send("82 ( 0001 'job/#' 00 )");
    outside.expect("90 ( 0001 00 )");
    let mut publishers = publishers(broker, 1);
    const JOBS: usize = 20;
    for job in 0..JOBS {
        publishers[0].send(&format!("30 ( 'job/x' {job:02x} )"));
    }
    publishers[0].send("30 ( 'marker' `m` )");
    let mut jobs: Vec<u8> = Vec::new();
    for member in &mut group {
        let own = until_marker(member);
        assert_eq!(own.len(), JOBS / 2);
        jobs.extend(own.iter().filter_map(|packet| packet.last()));
    }
    jobs.sort_unstable();
    assert_eq!(jobs, (0..JOBS as u8).collect::<Vec<_>>());
    for job in 0..JOBS {
        outside.expect(&format!("30 ( 'job/x' {job:02x} )"));
    }
}

/// 4.8.2: a group is its name and its filter, and delivers beside plain subscriptions.
fn groups_are_told_apart(broker: &Broker) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () '$share/g/t' 00 '$share/h/t' 00 '$share/g/+' 00 't' 00 )");
    client.expect("90 ( 0001 () 00 00 00 00 )");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("30 ( 't' `x` ) 30 ( 't' `y` )");
    // Four subscriptions match, each for itself.
    for payload in ["x", "y"] {
        for _ in 0..4 {
            client.expect(&format!("30 ( 't' () `{payload}` )"));
        }
    }
    client.ping();
}

/// MQTT-4.8.2-1, -2, MQTT-3.8.3-4: what is no share name, and no local.
fn malformed_shares_are_refused(broker: &Broker) {
    let filters = ["$share//t", "$share/g", "$share/g/", "$share/g+/t", "$share/g#/t", "$share/#"];
    each(filters, |filter| {
        let mut client = RawClient::v5(broker.port, "me");
        client.send(&format!("82 ( 0001 () '{filter}' 00 )"));
        client.expect_disconnect_with(&[0x81, 0x82, 0x8f]);
    });
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () '$share/g/t' 04 )");
    client.expect_disconnect(0x82);
}

/// MQTT-4.8.2-3: the QoS of each member, and never more than the message's.
fn each_member_has_its_own_qos(broker: &Broker) {
    let levels = ["00", "01", "02"];
    let mut group: Vec<_> = levels.map(|qos| member(broker, qos, "$share/g/job", qos)).into();
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let expected = [
        ["30 ( 'job' `x` )", "30 ( 'job' `x` )", "30 ( 'job' `x` )"],
        ["30 ( 'job' `x` )", "32 ( 'job' ???? `x` )", "32 ( 'job' ???? `x` )"],
        ["30 ( 'job' `x` )", "32 ( 'job' ???? `x` )", "34 ( 'job' ???? `x` )"],
    ];
    let mut packet_id = 0;
    for (level, expected) in expected.into_iter().enumerate() {
        for _ in 0..3 {
            packet_id += 1;
            publisher.send(&match level {
                0 => "30 ( 'job' `x` )".to_owned(),
                1 => format!("32 ( 'job' {packet_id:04x} `x` )"),
                _ => format!("34 ( 'job' {packet_id:04x} `x` )"),
            });
        }
        for (member, expected) in group.iter_mut().zip(expected) {
            member.expect(expected);
        }
    }
}

/// Any of them, and each message once.
fn random_reaches_everybody(broker: &Broker) {
    let mut group = members(broker, 3, "$share/group/job/+");
    let mut publishers = publishers(broker, 1);
    const JOBS: usize = 150;
    publishers[0].send(&"30 ( 'job/x' `x` )".repeat(JOBS));
    publishers[0].send("30 ( 'marker' `m` )");
    let counts: Vec<_> = group.iter_mut().map(|member| until_marker(member).len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), JOBS);
    // Fair members get 50; further away than 6 standard deviations is not by chance.
    assert!(counts.iter().all(|count| (15..85).contains(count)), "{counts:?}");
}

/// One topic stays at one member, whoever publishes, until that member goes.
fn hash_topic_keeps_a_topic_at_one_member(broker: &Broker) {
    let mut group = members(broker, 5, "$share/group/job/#");
    let mut publishers = publishers(broker, 4);
    let before = takers_by_topic(&mut publishers, &mut group);
    assert!(BTreeSet::from_iter(&before).len() > 1, "{before:?}");

    let leaver = before[0];
    group[leaver].send("a2 ( 0002 '$share/group/job/#' )");
    group[leaver].expect("b0 02 0002");
    tell(&mut group[leaver], &mut publishers);
    let without = takers_by_topic(&mut publishers, &mut group);
    for (before, after) in before.iter().zip(&without) {
        assert!(*after == *before || *before == leaver, "{before} {after}");
        assert_ne!(*after, leaver);
    }

    // Back with another session, it gets what it had.
    group[leaver] = member(broker, &format!("member {leaver}"), "$share/group/job/#", "00");
    assert_eq!(takers_by_topic(&mut publishers, &mut group), before);
}

/// One publisher stays at one member, whatever it publishes, its will included.
fn hash_client_keeps_a_publisher_at_one_member(broker: &Broker) {
    let mut group = members(broker, 4, "$share/group/job/#");
    let mut all = BTreeSet::new();
    for n in 0..12 {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 04 06 003c 'client {n}' 'job/will' 'gone' )"));
        client.expect("20 02 00 00");
        let of_topics = ["job/a", "job/b", "job/c/d"].map(|t| taker(&mut client, &mut group, t));
        assert_eq!(of_topics, [of_topics[0]; 3]);
        drop(client);
        group[of_topics[0]].expect("30 ( 'job/will' `gone` )");
        let mut again = RawClient::v311(broker.port, &format!("client {n}"));
        assert_eq!(taker(&mut again, &mut group, "job/e"), of_topics[0]);
        all.insert(of_topics[0]);
    }
    assert!(all.len() > 1, "{all:?}");
}

/// All to one member until it goes offline; all shards agree on the next, which stays.
fn sticky_stays_with_one_member(broker: &Broker) {
    // Its will tells that it is gone.
    let resume = |flags: &str| {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 04 {flags} 003c 'first' 'news' 'n' )"));
        client.expect("20 02 ?? 00");
        client
    };
    let mut first = resume("04");
    join(&mut first, "$share/group/job/#", "00");
    let mut group = vec![first];
    group.extend(members(broker, 4, "$share/group/job/#"));
    let mut publishers = publishers(broker, 4);
    let expect_all_at_one = |group: &mut [RawClient], publishers: &mut [RawClient]| {
        let takers = BTreeSet::from_iter(takers_by_topic(publishers, group));
        assert_eq!(takers.len(), 1, "{takers:?}");
        takers.into_iter().next().expect("there is one")
    };
    assert_eq!(expect_all_at_one(&mut group, &mut publishers), 0, "it was the only one");

    drop(group.remove(0));
    publishers.iter_mut().for_each(|publisher| _ = publisher.expect("30 ( 'news' `n` )"));
    let next = expect_all_at_one(&mut group, &mut publishers);

    group.push(resume("04"));
    tell(&mut group[4], &mut publishers);
    assert_eq!(expect_all_at_one(&mut group, &mut publishers), next, "who is back has no right");

    group[next].send("a2 ( 0002 '$share/group/job/#' )");
    group[next].expect("b0 02 0002");
    tell(&mut group[next], &mut publishers);
    assert_ne!(expect_all_at_one(&mut group, &mut publishers), next);
}

/// Members that do not acknowledge get one message each, and their share when they do.
fn least_inflight_avoids_the_stuck(broker: &Broker) {
    let filter = "$share/group/job/#";
    let member = |n| member(broker, &format!("member {n}"), filter, "01");
    let mut group: Vec<_> = (0..6).map(member).collect();
    let mut publishers = publishers(broker, 1);
    let mut owed: Vec<Vec<u8>> = vec![Vec::new(); 6];
    let mut taken = [0; 6];
    let mut publish = |group: &mut [RawClient], stuck: usize, taken: &mut [usize; 6]| {
        publishers[0].send("32 ( 'job/x' 0001 `x` )");
        publishers[0].expect("40 02 0001");
        publishers[0].send("30 ( 'marker' `m` )");
        for (n, member) in group.iter_mut().enumerate() {
            for packet in until_marker(member) {
                taken[n] += 1;
                owed[n].extend_from_slice(&packet[packet.len() - 3..packet.len() - 1]);
            }
            if n >= stuck {
                let ids = std::mem::take(&mut owed[n]);
                for id in ids.chunks(2) {
                    member.send_bytes(&[0x40, 2, id[0], id[1]]);
                }
                tell(member, &mut publishers);
            }
        }
    };
    (0..40).for_each(|_| publish(&mut group, 3, &mut taken));
    assert_eq!(taken[..3], [1; 3], "{taken:?}");
    assert_eq!(taken.iter().sum::<usize>(), 40);
    assert!(taken[3..].iter().all(|n| *n > 10), "{taken:?}");

    // All acknowledge: all are alike.
    publish(&mut group, 0, &mut taken);
    taken = [0; 6];
    (0..12).for_each(|_| publish(&mut group, 0, &mut taken));
    assert_eq!(taken, [2; 6]);
}

/// The longest prefix of the share name decides, and the default for all others.
fn a_prefix_has_its_strategy(broker: &Broker) {
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let mut takers = |name: &str| {
        let mut group = members(broker, 5, &format!("$share/{name}/job/#"));
        let mut round = || -> Vec<usize> {
            let topics = (0..20).map(|n| format!("job/{n}"));
            topics.map(|topic| taker(&mut publisher, &mut group, &topic)).collect()
        };
        (round(), round())
    };
    let (first, second) = takers("one-by-topic");
    assert!(first == second && BTreeSet::from_iter(&first).len() > 1, "{first:?} {second:?}");
    assert_eq!(takers("one"), (vec![0; 20], vec![0; 20]));
    let (first, _) = takers("none");
    assert!((0..5).all(|n| first.iter().filter(|taker| **taker == n).count() == 4), "{first:?}");
}

/// A member that is away gets nothing while another is there, and all while none
/// is: by each strategy, whichever shard learns of it when.
fn members_that_are_away_are_spared(broker: &Broker) {
    for strategy in STRATEGIES {
        println!("{strategy}");
        let filter = format!("$share/{strategy}/job/#");
        let (mut away, _) = RawClient::v311_resume(broker.port, "away");
        join(&mut away, &filter, "01");
        away.send("82 ( 0003 'known' 01 )");
        away.expect("90 03 0003 01");
        let mut here = member(broker, "here", &filter, "01");
        away.send("e0 00");
        away.expect_closed();
        let mut publishers = publishers(broker, 3);
        for n in 0..12 {
            let publisher = &mut publishers[n % 3];
            publisher.send(&format!("32 ( 'job/{n:02}' 0001 {n:02x} )"));
            publisher.expect("40 02 0001");
            let id = here.expect(&format!("32 ( 'job/{n:02}' ???? {n:02x} )"));
            here.send(&format!("40 02 {id}"));
        }
        // What the other one owes goes to nobody else.
        here.send("a2 ( 0002 'marker' )");
        here.expect("b0 02 0002");
        here.send(&format!("a2 ( 0003 '{filter}' )"));
        here.expect("b0 02 0003");
        tell(&mut here, &mut publishers);
        // The absent one's shard knows as well: from one that does not, a message would take a detour.
        here.send("32 ( 'known' 0009 `k` )");
        here.expect("40 02 0009");
        let publisher = &mut publishers[0];
        for n in 1..=5 {
            publisher.send(&format!("32 ( 'job/x' {n:04x} {n:02x} )"));
            publisher.expect(&format!("40 02 {n:04x}"));
        }
        here.ping();
        let (mut away, present) = RawClient::v311_resume(broker.port, "away");
        assert!(present);
        away.expect("32 ( 'known' ???? `k` )");
        (1..=5).for_each(|n| _ = away.expect(&format!("32 ( 'job/x' ???? {n:02x} )")));
        drop(RawClient::v311(broker.port, "away"));
    }
}

/// Who has unsubscribed gets nothing more, wherever it is published, and the other everything.
fn who_unsubscribes_gets_nothing_more(broker: &Broker) {
    for strategy in STRATEGIES {
        println!("{strategy}");
        let filter = format!("$share/{strategy}/job/#");
        let mut leaves = member(broker, "leaves", &filter, "00");
        let mut stays = member(broker, "stays", &filter, "00");
        let mut publishers = publishers(broker, 8);
        leaves.send(&format!("a2 ( 0002 '{filter}' )"));
        leaves.expect("b0 02 0002");
        stays.send("a2 ( 0002 'marker' )");
        stays.expect("b0 02 0002");
        for (n, publisher) in publishers.iter_mut().enumerate() {
            publisher.send(&format!("30 ( 'job/{n}' `x` ) 30 ( 'marker' `m` )"));
        }
        // Perhaps by way of the shard of the one that left, so in any order.
        let expected: Vec<_> = (0..8).map(|n| format!("30 ( 'job/{n}' `x` )")).collect();
        stays.expect_in_any_order(&expected.iter().map(String::as_str).collect::<Vec<_>>());
        (0..8).for_each(|_| assert!(until_marker(&mut leaves).is_empty()));
    }
}

/// MQTT-4.8.2-4, -5: what is in flight to a member waits for it, or ends with its session.
fn what_is_in_flight_stays_with_its_member(broker: &Broker) {
    for (qos, publish) in [("01", "32 ( 'job' 0001 `x` )"), ("02", "34 ( 'job' 0001 `x` )")] {
        let (mut first, _) = RawClient::v311_resume(broker.port, "first");
        first.send(&format!("82 ( 0001 '$share/g/job' {qos} )"));
        first.expect(&format!("90 ( 0001 {qos} )"));
        let mut other = member(broker, "other", "$share/g/job", qos);
        let mut publisher = RawClient::v311(broker.port, "publisher");
        publisher.send(publish);
        let first_byte = &publish[..2];
        let id = first.expect(&format!("{first_byte} ( 'job' ???? `x` )"));
        drop(first);
        let (mut first, present) = RawClient::v311_resume(broker.port, "first");
        assert!(present);
        let again = if qos == "01" { "3a" } else { "3c" };
        first.expect(&format!("{again} ( 'job' {id} `x` )"));
        drop(first);
        // The end of its session.
        let mut first = RawClient::v311(broker.port, "first");
        first.ping();
        publisher.send("30 ( 'marker' `m` )");
        assert!(until_marker(&mut other).is_empty());
        other.ping();
    }
}

/// MQTT-4.8.2-6: a message that its member refuses goes to nobody else, nor to that one again.
fn what_a_member_refuses_is_discarded(broker: &Broker) {
    let (mut first, _) = RawClient::v5_resume(broker.port, "first");
    first.send("82 ( 0001 () '$share/g/job' 02 )");
    first.expect("90 ( 0001 () 02 )");
    let mut other = member(broker, "other", "$share/g/job", "02");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("32 ( 'job' 0001 `x` ) 34 ( 'job' 0002 `y` )");
    publisher.expect("40 02 0001 50 02 0002");
    let id = first.expect("32 ( 'job' ???? () `x` )");
    first.send(&format!("40 04 {id} 97 00"));
    let id = first.expect("34 ( 'job' ???? () `y` )");
    first.send(&format!("50 04 {id} 80 00"));
    first.ping();
    publisher.send("30 ( 'marker' `m` )");
    assert!(until_marker(&mut other).is_empty());
    drop(first);
    let (mut first, present) = RawClient::v5_resume(broker.port, "first");
    assert!(present);
    first.ping();
}

/// 3.1.2.5: the will of a member is not given to the one that is gone.
fn the_will_of_a_member_goes_to_another(broker: &Broker) {
    for (flags, ends) in [("0e", "its session ends"), ("0c", "its session goes on")] {
        println!("{ends}");
        let mut first = RawClient::connect(broker.port);
        first.send(&format!("10 ( 'MQTT' 04 {flags} 003c 'first' 'job' 'gone' )"));
        first.expect("20 02 00 00");
        join(&mut first, "$share/g/job", "01");
        let mut other = member(broker, "other", "$share/g/job", "01");
        drop(first);
        other.expect("32 ( 'job' ???? `gone` )");
        drop(RawClient::v311(broker.port, "first"));
    }
}

const STRATEGIES: [&str; 6] =
    ["round_robin", "random", "sticky", "hash_client", "hash_topic", "least_inflight"];

on_one_and_four_shards! {
    members_take_turns;
    groups_are_told_apart;
    malformed_shares_are_refused;
    each_member_has_its_own_qos;
    random_reaches_everybody with "shared.strategy=random";
    hash_topic_keeps_a_topic_at_one_member with "shared.strategy=hash_topic";
    hash_client_keeps_a_publisher_at_one_member with "shared.strategy=hash_client";
    sticky_stays_with_one_member with "shared.strategy=sticky";
    least_inflight_avoids_the_stuck with "shared.strategy=least_inflight";
    a_prefix_has_its_strategy with
        r#"shared.strategies=["one => sticky", "one-by => hash_topic", "one- => random"]"#;
    members_that_are_away_are_spared with
        r#"shared.strategies=["random => random", "sticky => sticky", "hash_client => hash_client",
            "hash_topic => hash_topic", "least_inflight => least_inflight"]"#;
    who_unsubscribes_gets_nothing_more with
        r#"shared.strategies=["random => random", "sticky => sticky", "hash_client => hash_client",
            "hash_topic => hash_topic", "least_inflight => least_inflight"]"#;
    what_is_in_flight_stays_with_its_member with "shared.strategy=sticky";
    what_a_member_refuses_is_discarded with "shared.strategy=sticky";
    the_will_of_a_member_goes_to_another with "shared.strategy=sticky";
}
