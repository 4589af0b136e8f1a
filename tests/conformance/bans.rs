//! Who is not let in: by the configuration, and for a while because it came too often.

use std::{fs, path::Path};

use crate::common::{Broker, RawClient, eventually, on_one_and_four_shards, password_file};

/// The reason code of the answer to a v5 CONNECT from that address.
fn reason_from(address: [u8; 4], broker: &Broker, rest: &str) -> u8 {
    let mut client = RawClient::connect_from(address, broker.port);
    client.send(&format!("10 ( 'MQTT' 05 {rest} )"));
    let reason = client.connack().reason;
    if reason == 0 {
        client.send("e0 00");
    }
    client.expect_closed();
    reason
}

fn reason(broker: &Broker, rest: &str) -> u8 {
    reason_from([127, 0, 0, 1], broker, rest)
}

/// Section 3.2.2.2: 0x8A, and 0x05 to 3.1.1 clients; from addresses not even that.
fn who_is_banned_is_not_let_in(broker: &Broker) {
    for (rest, expected) in [
        ("02 003c () 'sensor-17'", 0x8a),
        ("02 003c () 'sensor-1'", 0),
        ("02 003c () 'sensor-170'", 0),
        ("02 003c () 'test'", 0x8a),
        ("02 003c () 'tests of mine'", 0x8a),
        ("82 003c () 'a' 'eve'", 0x8a),
        ("82 003c () 'a' 'Eve'", 0),
        ("02 003c () ''", 0),
    ] {
        assert_eq!(reason(broker, rest), expected, "{rest}");
    }
    let mut old = RawClient::connect(broker.port);
    old.send("10 ( 'MQTT' 04 02 003c 'sensor-17' )");
    old.expect("20 02 00 05");
    old.expect_closed();
    for last in [8, 15] {
        RawClient::connect_from([127, 0, 0, last], broker.port).expect_closed();
    }
    assert_eq!(reason_from([127, 0, 0, 16], broker, "02 003c () 'a'"), 0);
}

/// SIGHUP reads them again. Who is connected and banned then is disconnected, v5 clients with 0x98: 0x8A is no reason
/// code of DISCONNECT (section 3.14.2.1). What is wrong changes nothing.
#[test]
fn bans_are_read_again_on_one_shard_and_on_four() {
    for shards in [1, 4] {
        let name = format!("bans-{}-{shards}.toml", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let write = |text: &str| fs::write(&path, text).expect("the directory is writable");
        write("bans = []\n");
        let broker = Broker::start_with(shards, &["-v", "-c", path.to_str().expect("UTF-8")]);
        let mut stays = RawClient::v5(broker.port, "stays");
        let mut client = RawClient::v5(broker.port, "goes by its name");
        let mut old = RawClient::v311(broker.port, "goes silently");
        let mut user = RawClient::connect(broker.port);
        user.send("10 ( 'MQTT' 05 82 003c () 'goes by its user' 'eve' )");
        user.expect_accepted();
        let mut address = RawClient::connect_from([127, 0, 0, 9], broker.port);
        address.send("10 ( 'MQTT' 05 02 003c () 'goes by its address' )");
        address.expect_accepted();
        let mut silent = RawClient::connect_from([127, 0, 0, 10], broker.port);

        write(
            "bans = [\"client => goes by its n*\", \"client => goes silently\", \"user => eve\", \
             \"address => 127.0.0.8/29\"]\n",
        );
        broker.signal("HUP");
        for banned in [&mut client, &mut user, &mut address] {
            banned.expect_disconnect(0x98);
        }
        old.expect_closed();
        silent.expect_closed();
        stays.ping();
        assert_eq!(reason(&broker, "02 003c () 'goes by its name'"), 0x8a);

        write("bans = [\"client -> x\"]\n");
        broker.signal("HUP");
        broker.wait_for_log(&["ERROR", "client -> x", "it has no"]);
        broker.wait_for_log(&["the bans stay as they were"]);
        assert_eq!(reason(&broker, "02 003c () 'goes by its name'"), 0x8a);

        write("");
        broker.signal("HUP");
        eventually("nobody is banned any more", || {
            (reason(&broker, "02 003c () 'goes by its name'") == 0).then_some(())
        });
        stays.ping();
        fs::remove_file(&path).expect("it was written");
    }
}

/// A client that comes too often is banned for a while: under that name from that address, and nobody else. One that
/// is connected stays.
fn who_comes_too_often_is_banned_for_a_while(broker: &Broker) {
    let come = |id: &str| reason(broker, &format!("02 003c () '{id}'"));
    assert_eq!([come("flaps"), come("flaps")], [0, 0]);
    let mut is_there = RawClient::v5(broker.port, "flaps");
    assert_eq!([come("flaps"), come("flaps")], [0x8a, 0x8a]);
    is_there.ping();
    let mut old = RawClient::connect(broker.port);
    old.send("10 ( 'MQTT' 04 02 003c 'flaps' )");
    old.expect("20 02 00 05");
    old.expect_closed();
    broker.wait_for_log(&["WARN", "banned for a while", "client=flaps "]);
    assert_eq!(come("does not"), 0);
    assert_eq!(reason_from([127, 0, 0, 2], broker, "02 003c () 'flaps'"), 0);
    // Names that the broker gives are new each time.
    assert!((0..10).all(|_| come("") == 0));
    eventually("the end of the ban", || (come("flaps") == 0).then_some(()));
}

/// Whoever has proven nothing gets nobody banned who has, and no user another one.
#[test]
fn nobody_is_banned_for_what_others_do_under_its_name() {
    let users = password_file("flapping", &["ann", "bob"]);
    let users = format!("password_file={}", users.display());
    for shards in [1, 4] {
        let settings = [&users, "limits.flapping_connects_max=2", "limits.ban_secs=1000"];
        let broker = Broker::start(shards, &settings);
        let as_user = |user: &str, password: &str| {
            reason(&broker, &format!("c2 003c () 'c' '{user}' '{password}'"))
        };
        for _ in 0..5 {
            assert_eq!(as_user("ann", "wrong"), 0x86);
        }
        for expected in [0, 0, 0x8a, 0x8a] {
            assert_eq!(reason(&broker, "02 003c () 'c'"), expected);
        }
        for expected in [0, 0, 0x8a, 0x8a] {
            assert_eq!(as_user("bob", "bob"), expected);
        }
        // Before its password is looked at.
        assert_eq!(as_user("bob", "wrong"), 0x8a);
        assert_eq!(as_user("ann", "ann"), 0);
        assert_eq!(as_user("ann", "wrong"), 0x86);
    }
}

on_one_and_four_shards! {
    who_is_banned_is_not_let_in with r#"bans=["client => sensor-17", "client => test*", "user => eve", "address => 127.0.0.8/29"]"#;
    who_comes_too_often_is_banned_for_a_while with
        "limits.flapping_connects_max=3", "limits.ban_secs=2";
}
