//! The PROXY protocol in front of MQTT, TLS and WebSocket.

use crate::common::{RawClient, each};
use crate::files::Files;

const TRUSTED: &str = "proxy_protocol_from = [\"127.0.0.0/8\"]\n";
const CONNECT: &str = "10 ( 'MQTT' 04 02 003c 'c' )";

#[test]
fn the_client_that_a_trusted_proxy_names_is_what_is_seen() {
    for shards in [1, 4] {
        let files = Files::new();
        let config = "allow_anonymous = true\n";
        let port = crate::common::free_port();
        let listener = format!("[[listener]]\nurl = \"mqtt://127.0.0.1:{port}\"\n{TRUSTED}");
        let broker = files.broker_with(shards, &format!("{config}{listener}"));
        let v2 = "0d0a0d0a000d0a515549540a";
        each(
            [
                (
                    "`PROXY TCP4 192.0.2.7 192.0.2.1 5555 1883`0d0a".to_owned(),
                    "peer=192.0.2.7:5555",
                ),
                (
                    "`PROXY TCP6 2001:db8::7 ::1 5555 1883`0d0a".to_owned(),
                    "peer=[2001:db8::7]:5555",
                ),
                ("`PROXY UNKNOWN`0d0a".to_owned(), "peer=127.0.0.1:"),
                (format!("{v2} 21 11 000c c0000208 c0000201 15b3 075b"), "peer=192.0.2.8:5555"),
                (format!("{v2} 20 00 0000"), "peer=127.0.0.1:"),
            ],
            |(header, expected)| {
                let mut client = RawClient::connect(port);
                client.send(&format!("{header} {CONNECT}"));
                client.expect("20 02 00 00");
                client.ping();
                broker.wait_for_log(&["client connected", "client=c ", expected]);
            },
        );
        // A header in pieces.
        let mut client = RawClient::connect(port);
        for piece in ["`PRO`", "`XY TCP4 192.0.2.9 192.0.2.1 1`", "` 2`", "0d", "0a", CONNECT] {
            client.send(piece);
        }
        client.expect("20 02 00 00");
        broker.wait_for_log(&["client connected", "peer=192.0.2.9:1"]);
    }
}

#[test]
fn whoever_came_through_a_proxy_did_not_come_from_this_machine() {
    let files = Files::new();
    let (_broker, port) = files.broker(1, "mqtt", TRUSTED);
    let connack = |header: &str, answer: &str| {
        let mut client = RawClient::connect(port);
        client.send(&format!("{header} {CONNECT}"));
        client.expect(answer);
    };
    connack("`PROXY TCP4 192.0.2.7 192.0.2.1 1 2`0d0a", "20 02 00 05");
    connack("`PROXY TCP4 127.0.0.1 127.0.0.1 1 2`0d0a", "20 02 00 00");
    connack("`PROXY UNKNOWN`0d0a", "20 02 00 00");
}

#[test]
fn headers_that_are_wrong_or_missing_or_not_trusted_end_the_connection() {
    let files = Files::new();
    let (broker, port) = files.broker(1, "mqtt", TRUSTED);
    let (_other, untrusting) =
        files.broker(1, "mqtt", "proxy_protocol_from = [\"192.0.2.0/24\"]\n");
    let v2 = "0d0a0d0a000d0a515549540a";
    each(
        [
            CONNECT.to_owned(),
            "`PROXY TCP4 nonsense`0d0a".to_owned(),
            format!("{v2} 21 11 0011 c0000208 c0000201 15b3 075b 02 0002 610a"),
            format!("{v2} 21 11 ffff c0000208"),
        ],
        |header| {
            let mut client = RawClient::connect(port);
            client.send(header);
            client.expect_closed();
        },
    );
    broker.wait_for_log(&["broke the rules of its transport", "PROXY protocol"]);
    let mut client = RawClient::connect(untrusting);
    client.send(&format!("{v2} 20 00 0000"));
    client.expect_closed();
    let mut client = RawClient::connect(untrusting);
    client.send(CONNECT);
    client.expect("20 02 00 00");
}
