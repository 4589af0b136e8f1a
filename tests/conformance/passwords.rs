//! User Name and Password in CONNECT (section 3.1.3.5 and 3.1.3.6), against a password file with hashes of
//! every kind.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Broker, RawClient, each, on_one_and_four_shards};

/// The password of all is `pencil`. The first two lines are mosquitto_passwd's.
const USERS: &str = "\
six:$6$ntyAD+TF+sIQTD3d$kF9FaVbsrD7KMdTOAVbq+86HnIyXPhsOOb/BSiFR3FAfCGOQJ62hmdkisFlMJJBSxvNMgvx4VzZ7apgDdSHrjg==
seven:$7$101$gopqW4ItTbtGdPg2$BTlUFKlX4st75tK8EbvODyOp6JHd+DsyNXzQTK4kpyGpmdB2G0/buqrLdjLN74yd1q2BXyh9UMofp6kt3GxxqA==
light:$argon2id$v=19$m=4096,t=3,p=4$c2l4dGVlbiBieXRlcy4uLg$KqR52Nmi5rl4/IuvZ8+f+km8b8ZHUdk/pigG/1GR62c
";

/// A broker that knows [`USERS`].
fn broker(shards: usize, settings: &[&str]) -> Broker {
    broker_with(USERS, shards, settings)
}

/// A broker with this password file and these settings.
pub(crate) fn broker_with(file: &str, shards: usize, settings: &[&str]) -> Broker {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("passwords-{}-{number}.users", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, file).expect("a file");
    let password_file = format!("password_file={:?}", path.to_str().expect("a path in UTF-8"));
    let broker = Broker::start(shards, &[&[password_file.as_str()], settings].concat());
    std::fs::remove_file(path).expect("the file is there");
    broker
}

/// MQTT-3.1.3-11, MQTT-3.1.3-12: in every version, wherever the client's home is.
fn the_right_password_lets_in(broker: &Broker) {
    for user in ["six", "seven", "light"] {
        for id in ["a", "b", "c", "d"] {
            let mut client = RawClient::connect(broker.port);
            client.send(&format!("10 ( 'MQIsdp' 03 c2 003c '{id}' '{user}' 'pencil' )"));
            client.expect("20 02 00 00");
            let mut client = RawClient::connect(broker.port);
            client.send(&format!("10 ( 'MQTT' 04 c2 003c '{id}' '{user}' 'pencil' )"));
            client.expect("20 02 00 00");
            let mut client = RawClient::connect(broker.port);
            client.send(&format!("10 ( 'MQTT' 05 c2 003c () '{id}' '{user}' 'pencil' )"));
            let connack = client.expect_accepted();
            assert_eq!((connack.property(0x15), connack.property(0x16)), (None, None));
            client.ping();
            client.send("e0 00");
            client.expect_closed();
        }
        broker.wait_for_log(&["client connected", &format!("user=\"{user}\"")]);
    }
}

/// Section 3.2.2.2: nothing tells whether there is such a user. 3.1.1 section 3.2.2.3: return code 4.
fn whatever_is_wrong_is_refused_alike(broker: &Broker) {
    let cases = [
        ("c2", "'six' 'pencils'"),
        ("c2", "'six' 'Pencil'"),
        ("c2", "'six' ''"),
        ("c2", "'seven' 'penci'"),
        ("c2", "'light' 'x'"),
        ("c2", "'eve' 'pencil'"),
        ("c2", "'' 'pencil'"),
        ("c2", "'SIX' 'pencil'"),
        ("c2", "'six ' 'pencil'"),
        ("c2", "'six:' 'pencil'"),
        ("c2", "'# users' 'pencil'"),
        ("82", "'six'"),
        ("82", "'eve'"),
    ];
    each(cases, |(flags, credentials)| {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 {flags} 003c () 'me' {credentials} )"));
        client.expect("20 ( 00 86 00 )");
        client.expect_closed();
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 04 {flags} 003c 'me' {credentials} )"));
        client.expect("20 02 00 04");
        client.expect_closed();
    });
    // Only v5 has a Password alone; bytes that are no text; the longest that there can be.
    let long = "x".repeat(65_535);
    let cases = [
        "10 ( 'MQTT' 05 42 003c () 'me' 'pencil' )".to_owned(),
        "10 ( 'MQTT' 05 c2 003c () 'me' 'six' 0002 ff00 )".to_owned(),
        format!("10 ( 'MQTT' 05 c2 003c () 'me' 'six' '{long}' )"),
        format!("10 ( 'MQTT' 05 c2 003c () 'me' '{long}' 'pencil' )"),
        format!("10 ( 'MQTT' 05 c2 003c () 'me' '{long}' '{long}' )"),
    ];
    for connect in cases {
        let mut client = RawClient::connect(broker.port);
        client.send(&connect);
        client.expect("20 ( 00 86 00 )");
        client.expect_closed();
    }
    broker.wait_for_log(&["wrong password", "six"]);
    broker.wait_for_log(&["unknown user", "eve"]);
    let lines = broker.log_lines().join("\n");
    assert!(!lines.contains("pencil"), "a password is in the log");
}

/// What follows CONNECT at once waits for the verdict and is then handled (section 3.1.4).
fn packets_behind_connect_wait(broker: &Broker) {
    let connect = |password: &str| format!("10 ( 'MQTT' 04 c2 003c 'me' 'light' '{password}' )");
    let more = "82 ( 0001 'a' 00 ) 30 ( 'a' `x` ) c0 00";
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("{} {more}", connect("pencil")));
    client.expect("20 02 00 00");
    client.expect_in_any_order(&["90 03 0001 00", "30 ( 'a' `x` )", "d0 00"]);
    // Also in pieces, and without end.
    let mut client = RawClient::connect(broker.port);
    client.send(&connect("pencil"));
    client.send(more);
    client.send("c0");
    client.send("00");
    client.expect("20 02 00 00");
    client.expect_in_any_order(&["90 03 0001 00", "30 ( 'a' `x` )", "d0 00", "d0 00"]);
    client.ping();
    let mut refused = RawClient::connect(broker.port);
    refused.send(&format!("{} {more}", connect("wrong")));
    refused.expect("20 02 00 04");
    refused.expect_closed();
    client.ping();
    let mut short = RawClient::connect(broker.port);
    short.send(&format!("{} e0 00", connect("pencil")));
    short.expect("20 02 00 00");
    short.expect_closed();
}

/// Nothing of a CONNECT holds before its client is known: no take-over, no clean start, no will.
fn connect_takes_effect_after_the_check_only(broker: &Broker) {
    let mut watcher = RawClient::v5(broker.port, "watcher");
    watcher.send("82 ( 0001 () 'will' 00 )");
    watcher.expect("90 ( 0001 () 00 )");
    let connect = |flags: &str, password: &str| {
        format!(
            "10 ( 'MQTT' 05 {flags} 003c ( 11 0000012c ) 'me' () 'will' 'gone' 'light' '{password}' )"
        )
    };
    let mut old = RawClient::connect(broker.port);
    old.send(&connect("c6", "pencil"));
    old.expect_accepted();
    old.send("82 ( 0001 () 'a' 00 )");
    old.expect("90 ( 0001 () 00 )");
    let mut refused = RawClient::connect(broker.port);
    refused.send(&connect("c6", "wrong"));
    refused.expect("20 ( 00 86 00 )");
    refused.expect_closed();
    old.ping();
    watcher.ping();
    let mut new = RawClient::connect(broker.port);
    new.send(&connect("c4", "pencil"));
    assert!(new.expect_accepted().session_present);
    watcher.expect("30 ( 'will' () `gone` )");
    old.expect_disconnect(0x8e);
    new.send("30 ( 'a' () `subscribed before` )");
    new.expect("30 ( 'a' () `subscribed before` )");
}

/// A session that a user has authenticated for is theirs, whichever way others authenticate.
fn a_session_is_its_users(broker: &Broker) {
    let mut mine = RawClient::connect(broker.port);
    mine.send("10 ( 'MQTT' 04 c2 003c 'me' 'six' 'pencil' )");
    mine.expect("20 02 00 00");
    for (flags, credentials) in [("c2", "'seven' 'pencil'"), ("02", "")] {
        let mut other = RawClient::connect(broker.port);
        other.send(&format!("10 ( 'MQTT' 04 {flags} 003c 'me' {credentials} )"));
        other.expect("20 02 00 05");
        other.expect_closed();
    }
    mine.ping();
}

/// Without anything to check, a client of this machine is let in as before, unless nobody is.
fn who_shows_nothing_is_anonymous(broker: &Broker) {
    RawClient::v311(broker.port, "a").ping();
    RawClient::v5(broker.port, "b").ping();
}

fn who_shows_nothing_is_refused(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 04 02 003c 'me' )");
    client.expect("20 02 00 05");
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c () 'me' )");
    client.expect("20 ( 00 87 00 )");
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 04 c2 003c 'me' 'six' 'pencil' )");
    client.expect("20 02 00 00");
}

/// `auth.chain` decides: without `password` in it, SCRAM is no method either.
fn the_chain_can_leave_passwords_out() {
    for shards in [1, 4] {
        let broker = broker_with("# nobody\n", shards, &["auth.chain=[\"anonymous\"]"]);
        let mut client = RawClient::connect(broker.port);
        client.send("10 ( 'MQTT' 05 c2 003c () 'me' 'any' 'thing' )");
        client.expect_accepted();
        let mut client = RawClient::connect(broker.port);
        client.send("10 ( 'MQTT' 05 02 003c ( 15 'SCRAM-SHA-256' ) 'me' )");
        client.expect_refused(&[0x8c]);
    }
}

#[test]
fn a_chain_without_passwords() {
    the_chain_can_leave_passwords_out();
}

/// A hash at the usual cost: nobody learns from the time it takes whether a user exists.
#[test]
fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    let broker = broker_with(COSTLY, 1, &[]);
    let median = |user: &str| {
        let mut times: Vec<_> = (0..7)
            .map(|_| {
                let mut client = RawClient::connect(broker.port);
                let began = Instant::now();
                client.send(&format!("10 ( 'MQTT' 04 c2 003c 'me' '{user}' 'wrong' )"));
                client.expect("20 02 00 04");
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[3]
    };
    let (known, unknown) = (median("ann"), median("eve"));
    let ratio = known.as_secs_f64() / unknown.as_secs_f64();
    assert!((0.5..2.0).contains(&ratio), "{known:?} and {unknown:?}");
    assert!(unknown > Duration::from_millis(2), "{unknown:?} is no time for a hash");
}

/// The password is `pencil`, at the cost that `ringmq passwd` asks for.
const COSTLY: &str = "\
ann:$argon2id$v=19$m=19456,t=2,p=1$YW5vdGhlciAxNiBieXRlcw$tRZpGLv81kcX8FQzCskViQ2oNOIIS3ClXviPky6zyqM
";

/// More wrong passwords than can wait: who is connected goes on, who comes from elsewhere gets its turn, and
/// those for which there is no room are told so.
#[test]
fn a_flood_of_wrong_passwords_is_bounded() {
    for shards in [1, 4] {
        let broker = broker_with(COSTLY, shards, &["limits.connect_timeout_secs=3"]);
        let mut good = RawClient::v311(broker.port, "good");
        good.ping();
        let before_kib = broker.rss_kib();
        let mut flood: Vec<_> = (0..1100)
            .map(|number| {
                let mut client = RawClient::connect(broker.port);
                client.send(&format!("10 ( 'MQTT' 04 c2 003c 'f{number}' 'ann' 'wrong' )"));
                client
            })
            .collect();
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let began = Instant::now();
            good.ping();
            slowest = slowest.max(began.elapsed());
        }
        assert!(slowest < Duration::from_millis(500), "a ping took {slowest:?}");
        let mut other = RawClient::over(connect_from(Ipv4Addr::new(127, 0, 0, 2), broker.port));
        let began = Instant::now();
        other.send("10 ( 'MQTT' 04 c2 003c 'other' 'ann' 'pencil' )");
        other.expect("20 02 00 00");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let grown_kib = broker.rss_kib().saturating_sub(before_kib);
        assert!(grown_kib < 128 * 1024, "{grown_kib} KiB more");
        let mut answers = [0; 2];
        for client in &mut flood {
            match client.expect("20 02 00 ??").as_str() {
                "04" => answers[0] += 1,
                "03" => answers[1] += 1,
                other => panic!("return code {other}"),
            }
        }
        let [wrong, busy] = answers;
        assert!(wrong > 0 && busy > 99, "{wrong} were checked, {busy} were not");
        broker.wait_for_log(&["too many clients wait to be checked"]);
        good.ping();
        let log = broker.terminate().join("\n");
        assert!(log.contains("checks_refused="), "they are counted");
    }
}

fn connect_from(from: Ipv4Addr, port: u16) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("a loopback address");
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("it accepts");
    socket.into()
}

on_one_and_four_shards! {
    by super::broker;
    the_right_password_lets_in;
    whatever_is_wrong_is_refused_alike;
    packets_behind_connect_wait;
    connect_takes_effect_after_the_check_only;
    a_session_is_its_users;
    who_shows_nothing_is_anonymous;
    who_shows_nothing_is_refused with "allow_anonymous=false";
}
