//! Large messages are held once, however many get them.

use std::io::Write;

use crate::alone;
use crate::common::{Broker, RawClient, payload, publish};
use crate::lean::{Connection, Received};

const TAKERS: usize = 1000;
const MESSAGES: u16 = 4;
const BYTES: usize = 64 * 1024;
/// What the broker may need for the heads of packets and to hold what is under way, with the message itself.
const GROWTH_KIB_MAX: u64 = 8 * 1024;

/// None of them reads, so all that is not in the kernel's buffers is the broker's.
#[test]
fn a_fan_out_to_a_thousand_who_do_not_read_holds_the_payload_once() {
    let _alone = alone();
    for shards in [1, 2] {
        let broker = Broker::start_quiet(shards, &[]);
        let takers: Vec<Connection> = (0..TAKERS)
            .map(|n| {
                let (mut taker, _) =
                    Connection::open(broker.port, &format!("taker {n}"), true, 600)
                        .expect("a place");
                taker.subscribe("t", 1);
                let answer = taker.exchange().expect("a SUBACK");
                assert!(matches!(answer, Received::Suback), "{answer:?}");
                taker
            })
            .collect();
        let mut publisher = RawClient::v311(broker.port, "publisher");
        // The highest that it was from here on.
        let reset =
            std::fs::File::options().write(true).open(format!("/proc/{}/clear_refs", broker.pid()));
        reset.and_then(|mut file| file.write_all(b"5")).expect("proc is mounted");
        let before = broker.status("VmHWM:");
        for id in 1..=MESSAGES {
            publisher.send_bytes(&publish(0x32, "t", id, false, &payload(BYTES, id as u8)));
            publisher.expect(&format!("40 02 {id:04x}"));
        }
        publisher.ping();
        let grown = broker.status("VmHWM:").saturating_sub(before);
        println!("{MESSAGES} of {BYTES} bytes to {TAKERS}, {shards} shards: {grown} KiB more");
        assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
        drop(takers);
    }
}

/// A client that announces much and sends little gets no room for what it announces.
#[test]
fn a_claim_takes_no_memory() {
    let _alone = alone();
    let broker = Broker::start_quiet(1, &["limits.packet_bytes_max=268435460"]);
    let mut liars: Vec<RawClient> =
        (0..TAKERS).map(|n| RawClient::v311(broker.port, &format!("liar {n}"))).collect();
    let before = broker.rss_kib();
    let start = [&[0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b't'][..], &[7; 40_000]].concat();
    liars.iter_mut().for_each(|liar| liar.send_bytes(&start));
    RawClient::v311(broker.port, "barrier").ping();
    let kib_each = broker.rss_kib().saturating_sub(before) / TAKERS as u64;
    println!("{kib_each} KiB for each who has sent 40 KB of 256 MiB");
    assert!(kib_each < 100, "{kib_each} KiB");
}
