//! What is done about clients that do not read, listener by listener.

use crate::common::{RawClient, free_port, wire};
use crate::files::Files;

/// The same flood for two that read nothing: one listener drops what is too much, the other disconnects.
#[test]
fn each_listener_has_its_own_way_with_clients_that_do_not_read() {
    let files = Files::new();
    let port = free_port();
    let config = format!(
        "[[listener]]\nurl = \"mqtt://127.0.0.1:{port}\"\noutput_bytes_max = 65536\n\
         slow_consumer = \"disconnect\"\n[limits]\noutput_bytes_max = 131072\n"
    );
    let broker = files.broker_with(4, &config);
    let subscribe = |port, id| {
        let mut client = RawClient::v5(port, id);
        client.send("82 ( 0001 () 't' 00 )");
        client.expect("90 ( 0001 () 00 )");
        client
    };
    let mut dropped = subscribe(broker.port, "dropped");
    let mut closed = subscribe(port, "closed");
    let mut publisher = RawClient::v311(broker.port, "publisher");
    let packet = wire(&format!("30 ( 't' {} )", "5a".repeat(100_000)));
    let is_told = |what: &str| broker.log_lines().iter().any(|line| line.contains(what));
    while !is_told("client=dropped reason=\"slow_consumer\"") || !is_told("output_bytes_max waits")
    {
        publisher.send_bytes(&packet);
        publisher.ping();
    }
    let ended = broker.wait_for_log(&["client disconnected", "output_bytes_max"]);
    assert!(ended.contains("client=closed"), "{ended}");
    let mut last = Vec::new();
    while let Some(packet) = closed.try_read_packet() {
        last = packet;
    }
    assert_eq!((last[0], last.get(2)), (0xe0, Some(&0x97)), "{last:02x?}");
    dropped.send("c0 00");
    while dropped.read_packet()[0] != 0xd0 {}
}
