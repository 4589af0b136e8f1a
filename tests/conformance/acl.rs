//! Access rules: who may publish, subscribe and receive what, and what becomes of what is denied (section 5.4.2).
//! Each on one shard and on four.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::{Broker, RawClient, password_file};

use super::witnesses::Witnesses;

/// Starts a broker with rules and has each check run on it.
fn with_rules(
    shards: usize,
    name: &str,
    rules: &str,
    settings: &[&str],
    check: fn(&Broker, &Path),
) {
    let file = rules_file(name, rules);
    let acl_file = format!("acl_file={file:?}");
    let broker = Broker::start(shards, &[&[acl_file.as_str()], settings].concat());
    check(&broker, &file);
    drop(broker);
    fs::remove_file(file).expect("the file is ours");
}

fn rules_file(name: &str, rules: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{number}-{name}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, rules).expect("the directory is writable");
    path
}

/// Other rules, in force everywhere when this returns. `number` counts the changes of a broker.
#[track_caller]
fn change(broker: &Broker, file: &Path, rules: &str, number: usize) {
    fs::write(file, rules).expect("the file is ours");
    broker.signal("HUP");
    for _ in 0..1000 {
        let lines = broker.log_lines();
        if lines.iter().filter(|line| line.contains("access rules are in force")).count() > number {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the rules are not in force");
}

macro_rules! with_rules {
    ($($name:ident: $file:literal, $rules:ident $(, $setting:literal)*;)+) => {$(
        mod $name {
            #[test]
            fn one_shard() {
                super::with_rules(1, $file, super::$rules, &[$($setting),*], super::$name);
            }

            #[test]
            fn four_shards() {
                super::with_rules(4, $file, super::$rules, &[$($setting),*], super::$name);
            }
        }
    )+};
}

const OWN: &str = r##"
[[rule]]
deny = "subscribe"
topics = "open/secret/#"
[[rule]]
allow = "all"
topics = ["open/#", "own/%c/#"]
[[rule]]
allow = "publish"
topics = "one/#"
qos_max = 0
retain = false
[[rule]]
allow = "subscribe"
topics = "low/#"
qos_max = 0
[[rule]]
allow = "publish"
topics = ["drop/#", "$SYS/told", "will"]
[[rule]]
allow = "all"
topics = ["#", "$open/#"]
client = ["root", "witness*"]
"##;

/// 0x87 in PUBACK and PUBREC; at QoS 0 nothing is said. 3.1.1:MQTT-3.3.5-2: before v5 it is acknowledged.
fn publishing_is_allowed_or_not(broker: &Broker, _: &Path) {
    let mut root = RawClient::v5(broker.port, "root");
    root.send("82 ( 0001 () '#' 00 )");
    root.expect("90 ( 0001 () 00 )");
    let mut client = RawClient::v5(broker.port, "me");
    client.send("32 ( 'closed' 0001 () `x` ) 34 ( 'closed' 0002 () `x` ) 30 ( 'closed' () `x` )");
    client.expect("40 ( 0001 87 ) 50 ( 0002 87 )");
    client.send("32 ( 'own/you/a' 0001 () `x` ) 32 ( 'one/a' 0002 () `x` ) 31 ( 'one/a' () `x` )");
    client.expect("40 ( 0001 87 ) 40 ( 0002 87 )");
    let mut old = RawClient::v311(broker.port, "me too");
    old.send(
        "32 ( 'closed' 0001 `x` ) 34 ( 'closed' 0002 `x` ) 62 02 0002 32 ( '$SYS/x' 0003 `x` )",
    );
    old.expect("40 02 0001 50 02 0002 70 02 0002 40 02 0003");
    client.send("32 ( 'own/me/a' 0001 () `1` )");
    client.expect_ack(0x40, "0001");
    root.expect("30 ( 'own/me/a' () `1` )");
    client.send("30 ( 'one/a' () `2` )");
    root.expect("30 ( 'one/a' () `2` )");
    old.send("32 ( 'own/me too/a' 0001 `3` )");
    old.expect("40 02 0001");
    root.expect("30 ( 'own/me too/a' () `3` )");
}

/// SUBACK: 0x87, before v5 0x80; and the highest QoS that is granted (MQTT-3.8.4-8).
fn subscribing_is_allowed_or_not(broker: &Broker, _: &Path) {
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () 'open/#' 01 '#' 01 'own/+/a' 02 'own/me/#' 02 'low/x' 02 )");
    client.expect("90 ( 0001 () 01 87 87 02 00 )");
    client.send("82 ( 0002 () '$share/g/open/a' 01 '$share/g/closed' 01 '$queue/closed' 00 )");
    client.expect("90 ( 0002 () 01 87 87 )");
    client.send("82 ( 0003 () '$exclusive/closed' 01 '$request/closed' 01 'open/secret/x' 00 )");
    client.expect("90 ( 0003 () 87 87 87 )");
    let mut old = RawClient::v311(broker.port, "me too");
    old.send("82 ( 0001 'closed' 01 'open/a' 01 )");
    old.expect("90 ( 0001 80 01 )");
    // It was given back: another can have it.
    let mut root = RawClient::v5(broker.port, "root");
    root.send("82 ( 0001 () '$exclusive/closed' 01 )");
    root.expect("90 ( 0001 () 01 )");
    root.send("32 ( 'closed' 0002 () `x` )");
    root.expect_in_any_order(&["40 ( 0002 )", "32 ( 'closed' ???? () `x` )"]);
}

/// A wide subscription brings what may be received of it: live, retained, shared and on request.
fn deliveries_are_allowed_or_not(broker: &Broker, _: &Path) {
    let mut root = RawClient::v5(broker.port, "root");
    root.send("33 ( 'open/secret/r' 0001 () `s` ) 33 ( 'open/r' 0002 () `r` )");
    root.expect_ack(0x40, "0001");
    root.expect_ack(0x40, "0002");
    let mut client = RawClient::v5(broker.port, "me");
    client.send("82 ( 0001 () 'open/#' 01 )");
    client.expect("90 ( 0001 () 01 )");
    client.expect("33 ( 'open/r' 0001 () `r` )");
    client.send("40 02 0001");
    let mut member = RawClient::v5(broker.port, "member");
    member.send("82 ( 0001 () '$share/g/open/+/s' 01 )");
    member.expect("90 ( 0001 () 01 )");
    let mut witnesses = Witnesses::of(broker, "last");
    root.send("32 ( 'open/secret/s' 0003 () `s` ) 30 ( 'open/x/s' () `x` ) 30 ( 'last' () `l` )");
    root.expect_ack(0x40, "0003");
    witnesses.expect("30 ( 'last' `l` )");
    client.expect("30 ( 'open/x/s' () `x` )");
    client.ping();
    member.expect("30 ( 'open/x/s' () `x` )");
    member.ping();
}

/// MQTT-4.7.2-1: what starts with $ is the server's, unless a rule opens it.
fn dollar_topics_need_a_rule(broker: &Broker, _: &Path) {
    let mut root = RawClient::v5(broker.port, "root");
    root.send("82 ( 0001 () '$open/#' 00 )");
    root.expect("90 ( 0001 () 00 )");
    for (topic, reason) in [
        ("$SYS/x", 0x87),
        ("$CONTROL/x", 0x87),
        ("$other", 0x87),
        ("$SYS/told", 0x10),
        ("$share/g/a", 0x87),
    ] {
        root.send(&format!("32 ( '{topic}' 0002 () `x` )"));
        assert_eq!(root.ack_reason(0x40, "0002"), reason, "{topic}");
    }
    root.send("30 ( '$open/a' () `x` )");
    root.expect("30 ( '$open/a' () `x` )");
    let mut client = RawClient::v5(broker.port, "me");
    client.send("32 ( '$open/a' 0001 () `x` ) 32 ( '$delayed/1/closed' 0002 () `x` )");
    client.expect("40 ( 0001 87 ) 40 ( 0002 87 )");
    let mut refused = RawClient::connect(broker.port);
    refused.send("10 ( 'MQTT' 05 06 003c () 'wills' () '$CONTROL/x' 'gone' )");
    refused.expect_refused(&[0x87]);
    root.ping();
}

/// A will is asked about when it is due; a client whose will is denied may connect.
fn wills_are_allowed_or_not(broker: &Broker, _: &Path) {
    let mut root = RawClient::v5(broker.port, "root");
    root.send("82 ( 0001 () '#' 00 )");
    root.expect("90 ( 0001 () 00 )");
    for (topic, is_sent) in [("closed", false), ("will", true)] {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 06 003c () 'me' () '{topic}' 'gone' )"));
        client.expect_accepted();
        drop(client);
        if is_sent {
            root.expect("30 ( 'will' () `gone` )");
        }
    }
    broker.wait_for_log(&["message dropped", "client=me", "acl_publish"]);
}

/// `acl_denied = disconnect`: 3.1.1:MQTT-3.3.5-2 leaves that choice.
fn who_publishes_what_it_may_not_is_disconnected(broker: &Broker, _: &Path) {
    for publish in ["30 ( 'closed' () `x` )", "32 ( 'closed' 0001 () `x` )"] {
        let mut client = RawClient::v5(broker.port, "me");
        client.send(publish);
        client.expect_disconnect(0x87);
    }
    let mut old = RawClient::v311(broker.port, "me");
    old.send("32 ( 'closed' 0001 `x` )");
    old.expect_closed();
}

/// Other rules are in force at once, for connected and for persistent clients that are away. A subscription
/// stays, and brings something again when it may.
fn other_rules_hold_at_once(broker: &Broker, file: &Path) {
    let mut root = RawClient::v5(broker.port, "root");
    let (mut away, _) = RawClient::v5_resume(broker.port, "away");
    away.send("82 ( 0001 () 'open/a' 01 'open/b' 01 '$share/g/open/s' 01 )");
    away.expect("90 ( 0001 () 01 01 01 )");
    away.send("e0 00");
    away.expect_closed();
    let mut here = RawClient::v5(broker.port, "here");
    here.send("82 ( 0001 () 'open/#' 00 '$share/g/open/s' 00 )");
    here.expect("90 ( 0001 () 00 00 )");
    // Waits for the one who is away.
    root.send("32 ( 'open/a' 0001 () `1` ) 32 ( 'open/b' 0002 () `2` )");
    root.expect_ack(0x40, "0001");
    root.expect_ack(0x40, "0002");
    here.expect("30 ( 'open/a' () `1` ) 30 ( 'open/b' () `2` )");

    let only_b = "[[rule]]\nallow = \"subscribe\"\ntopics = \"open/b\"\n[[rule]]\nallow = \"all\"\n\
                  topics = \"#\"\nclient = [\"root\", \"witness*\"]\n";
    change(broker, file, only_b, 1);
    let mut witnesses = Witnesses::of(broker, "last");
    root.send(
        "32 ( 'open/a' 0003 () `3` ) 32 ( 'open/b' 0004 () `4` ) 32 ( 'open/s' 0005 () `5` )",
    );
    for id in ["0003", "0004", "0005"] {
        root.expect_ack(0x40, id);
    }
    root.send("30 ( 'last' () `l` )");
    witnesses.expect("30 ( 'last' `l` )");
    here.ping();
    let (mut away, is_present) = RawClient::v5_resume(broker.port, "away");
    assert!(is_present);
    let id = away.expect("32 ( 'open/b' ???? () `2` )");
    away.send(&format!("40 02 {id}"));
    let id = away.expect("32 ( 'open/b' ???? () `4` )");
    away.send(&format!("40 02 {id}"));
    away.ping();

    change(broker, file, OWN, 2);
    root.send("30 ( 'open/a' () `6` )");
    away.expect("30 ( 'open/a' () `6` )");
    here.expect("30 ( 'open/a' () `6` )");
    away.send("e0 00");
    away.expect_closed();
}

/// What is wrong with a file is told, and the rules stay.
fn wrong_rules_change_nothing(broker: &Broker, file: &Path) {
    fs::write(file, "[[rule]]\nallow = \"all\"\ntopics = \"a#\"\n").expect("the file is ours");
    broker.signal("HUP");
    broker.wait_for_log(&[":3:10: a wildcard does not fill a level"]);
    broker.wait_for_log(&["the access rules stay as they were"]);
    let mut client = RawClient::v5(broker.port, "me");
    client.send("32 ( 'own/me' 0001 () `x` ) 32 ( 'closed' 0002 () `x` )");
    client.expect_ack(0x40, "0001");
    client.expect("40 ( 0002 87 )");
}

with_rules! {
    publishing_is_allowed_or_not: "own.toml", OWN;
    subscribing_is_allowed_or_not: "own.toml", OWN;
    deliveries_are_allowed_or_not: "own.toml", OWN;
    dollar_topics_need_a_rule: "own.toml", OWN;
    wills_are_allowed_or_not: "own.toml", OWN;
    who_publishes_what_it_may_not_is_disconnected: "own.toml", OWN, "acl_denied=disconnect";
    other_rules_hold_at_once: "own.toml", OWN;
    wrong_rules_change_nothing: "own.toml", OWN;
}

/// Without any rules: MQTT-4.7.2-1 for publishing, and nothing else.
#[test]
fn without_rules_only_dollar_topics_are_closed() {
    let broker = Broker::start(1, &[]);
    let mut client = RawClient::v5(broker.port, "me");
    for (topic, reason) in [("$SYS/x", 0x87), ("$other/x", 0x87), ("x", 0x10)] {
        client.send(&format!("32 ( '{topic}' 0001 () `x` )"));
        assert_eq!(client.ack_reason(0x40, "0001"), reason, "{topic}");
    }
}

/// A User Name that nothing proves is none, and what a session may receive while its client is away goes by
/// what that has proven, before and after a restart.
#[test]
fn users_are_those_who_have_proven_it_also_after_a_restart() {
    let file = rules_file(
        "users",
        "topic read lobby\nuser ann\ntopic readwrite ann/#\npattern read to/%u\n",
    );
    let users = password_file("acl", &["ann"]);
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("acl-{}", std::process::id()));
    let settings = [format!("acl_file={file:?}"), format!("password_file={users:?}")];
    let settings = settings.each_ref().map(String::as_str);
    // Where nothing checks names, they count for nothing.
    let unchecked = Broker::start(2, &settings[..1]);
    let mut liar = RawClient::connect(unchecked.port);
    liar.send("10 ( 'MQTT' 05 82 003c () 'liar' 'ann' )");
    liar.expect_accepted();
    liar.send("32 ( 'ann/x' 0001 () `x` )");
    liar.expect("40 ( 0001 87 )");
    drop(unchecked);
    let broker = Broker::start_on(&data, 2, &settings);
    let resume = ("00", "11 0000012c");
    let mut ann = RawClient::v5_user(broker.port, resume, "a", "", "ann");
    ann.send("82 ( 0001 () 'ann/#' 01 'lobby' 01 )");
    ann.expect("90 ( 0001 () 01 01 )");
    ann.send("e0 00");
    ann.expect_closed();
    broker.kill();
    let broker = Broker::start_on(&data, 2, &settings);
    let mut other = RawClient::v5_user(broker.port, ("02", ""), "b", "", "ann");
    other.send("32 ( 'ann/x' 0001 () `1` )");
    other.expect("40 02 0001");
    let mut ann = RawClient::v5_user(broker.port, resume, "a", "", "ann");
    ann.expect("32 ( 'ann/x' ???? () `1` )");
    drop(broker);
    for path in [file, users] {
        fs::remove_file(path).expect("the file is ours");
    }
    fs::remove_dir_all(data).expect("the directory is ours");
}
