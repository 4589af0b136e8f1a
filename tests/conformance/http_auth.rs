//! Somebody else decides over HTTP who may connect: a small server in the test, which notes what it is asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Broker, RawClient};

/// Answers by the user that is asked about.
struct Decider {
    url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Decider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/mqtt", listener.local_addr().expect("an address"));
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let notes = asked.clone();
        // Ends with the tests' process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let notes = notes.clone();
                thread::spawn(move || serve(stream, &notes));
            }
        });
        Self { url, asked }
    }

    fn broker(&self, shards: usize, settings: &[&str]) -> Broker {
        let url = format!("auth.http_url={}", self.url);
        Broker::start(shards, &[&[url.as_str()], settings].concat())
    }

    fn times_asked(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }
}

/// Requests of one connection, until it ends.
fn serve(mut stream: TcpStream, notes: &Mutex<Vec<(String, Value)>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.to_lowercase();
        let length = length.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        let user = body["user"].as_str().unwrap_or_default().to_owned();
        notes.lock().expect("no panic").push((head, body));
        let (status, answer) = match user.as_str() {
            "ann" => (200, r#"{"result": "allow", "groups": ["plant"]}"#.to_owned()),
            "alias" => (200, r#"{"result": "allow", "user": "real"}"#.to_owned()),
            "short" => (200, r#"{"result": "allow", "expires_in": 1}"#.to_owned()),
            "unknown" => (200, r#"{"result": "ignore"}"#.to_owned()),
            "broken" => (500, r#"{"result": "allow"}"#.to_owned()),
            "moved" => (302, r#"{"result": "allow"}"#.to_owned()),
            "nonsense" => (200, "allow".to_owned()),
            "huge" => (200, format!(r#"{{"result": "allow", "x": "{}"}}"#, "x".repeat(1 << 20))),
            "slow" => {
                thread::sleep(Duration::from_secs(2));
                (200, r#"{"result": "allow"}"#.to_owned())
            }
            _ => (200, r#"{"result": "deny"}"#.to_owned()),
        };
        let length = answer.len();
        let location = "Location: http://127.0.0.1:1/\r\n";
        write!(stream, "HTTP/1.1 {status} X\r\n{location}Content-Length: {length}\r\n\r\n{answer}")
            .ok()?;
    }
}

fn connect(broker: &Broker, id: &str, user: &str) -> RawClient {
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( 'MQTT' 05 c2 003c () '{id}' '{user}' 'secret' )"));
    client
}

/// Both numbers of shards, each with a server of its own.
fn with(settings: &[&str], check: impl Fn(&Decider, &Broker)) {
    for shards in [1, 4] {
        let decider = Decider::start();
        let broker = decider.broker(shards, settings);
        check(&decider, &broker);
    }
}

#[test]
fn the_answer_decides() {
    with(&["auth.http_header=X-Key: k3y"], |decider, broker| {
        connect(broker, "a", "ann").expect_accepted();
        broker.wait_for_log(&["client connected", "user=\"ann\"", "groups=\"plant\""]);
        connect(broker, "b", "alias").expect_accepted();
        broker.wait_for_log(&["client connected", "user=\"real\""]);
        for user in ["eve", "unknown"] {
            connect(broker, "c", user).expect("20 ( 00 86 00 )");
        }
        let mut old = RawClient::connect(broker.port);
        old.send("10 ( 'MQTT' 04 c2 003c 'd' 'eve' 'secret' )");
        old.expect("20 02 00 04");
        let mut bytes = RawClient::connect(broker.port);
        bytes.send("10 ( 'MQIsdp' 03 c2 003c 'e' 'ann' 0002 ff00 )");
        bytes.expect("20 02 00 00");
        // Who shows nothing is not asked about.
        RawClient::v5(broker.port, "f").ping();
        let asked = decider.asked.lock().unwrap();
        let (head, body) = &asked[0];
        assert!(head.starts_with("POST /mqtt HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("\r\nx-key: k3y\r\n"), "{head}");
        assert!(head.to_lowercase().contains("\r\ncontent-type: application/json\r\n"), "{head}");
        let expected = serde_json::json!({
            "client_id": "a", "user": "ann", "password": "secret", "address": "127.0.0.1",
            "protocol": "mqtt", "version": "5.0",
        });
        assert_eq!(*body, expected);
        assert_eq!(
            (&asked[5].1["password_base64"], &asked[5].1["version"]),
            (&"/wA=".into(), &"3.1".into())
        );
        assert_eq!(asked.len(), 6);
    });
}

#[test]
fn who_was_allowed_is_remembered() {
    with(&[], |decider, broker| {
        for _ in 0..3 {
            connect(broker, "a", "ann").expect_accepted();
            connect(broker, "a", "eve").expect("20 ( 00 86 00 )");
        }
        // Once allowed, but asked about each time when denied.
        assert_eq!(decider.times_asked(), 1 + 3);
        let mut other = RawClient::connect(broker.port);
        other.send("10 ( 'MQTT' 05 c2 003c () 'a' 'ann' 'another' )");
        other.expect_accepted();
        assert_eq!(decider.times_asked(), 5);
    });
    with(&["auth.http_cache_secs=0"], |decider, broker| {
        for _ in 0..3 {
            connect(broker, "a", "ann").expect_accepted();
        }
        assert_eq!(decider.times_asked(), 3);
    });
}

/// Section 3.14.2.1, Maximum connect time.
#[test]
fn the_connection_ends_when_the_answer_says() {
    with(&[], |_, broker| {
        let mut client = connect(broker, "a", "short");
        client.expect_accepted();
        client.expect_disconnect(0xa0);
    });
}

/// 0x88, Server unavailable; 3.1.1: return code 3.
#[test]
fn without_an_answer_clients_are_refused() {
    with(&["auth.http_timeout_millis=500"], |_, broker| {
        for user in ["broken", "moved", "nonsense", "huge"] {
            let mut client = connect(broker, "a", user);
            client.expect_refused(&[0x88]);
            // So that the failures are not in a row.
            connect(broker, "a", "eve").expect("20 ( 00 86 00 )");
        }
        let mut slow = connect(broker, "b", "slow");
        let mut other = RawClient::v5(broker.port, "c");
        let began = Instant::now();
        other.ping();
        assert!(began.elapsed() < Duration::from_millis(400), "nobody waits with it");
        slow.expect_refused(&[0x88]);
        let mut old = RawClient::connect(broker.port);
        old.send("10 ( 'MQTT' 04 c2 003c 'd' 'broken' 'x' )");
        old.expect("20 02 00 03");
    });
}

#[test]
fn after_failures_nobody_is_asked_for_a_while() {
    let settings =
        ["auth.http_failures_max=2", "auth.http_retry_secs=1", "auth.http_cache_secs=3600"];
    with(&settings, |decider, broker| {
        connect(broker, "a", "ann").expect_accepted();
        for _ in 0..2 {
            connect(broker, "a", "broken").expect_refused(&[0x88]);
        }
        broker.wait_for_log(&["nobody is asked for 1 s"]);
        connect(broker, "a", "alias").expect_refused(&[0x88]);
        connect(broker, "a", "ann").expect_accepted();
        assert_eq!(decider.times_asked(), 3);
        // Time itself is under test.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if connect(broker, "a", "alias").connack().reason == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "nobody is asked again");
            thread::sleep(Duration::from_millis(50));
        }
        broker.wait_for_log(&["answers again"]);
        assert_eq!(decider.times_asked(), 4);
    });
}

/// The chain goes on if it may, and then nobody knows the client; a server that is not there is the same.
#[test]
fn the_chain_can_go_on_without_an_answer() {
    with(&["auth.http_failing=next"], |_, broker| {
        connect(broker, "a", "broken").expect("20 ( 00 86 00 )");
    });
    for shards in [1, 4] {
        let broker = Broker::start(shards, &["auth.http_url=http://127.0.0.1:9/"]);
        connect(&broker, "a", "ann").expect_refused(&[0x88]);
        RawClient::v5(broker.port, "b").ping();
    }
}
