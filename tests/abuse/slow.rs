//! Clients that stay and do not read: what waits for them is bounded by bytes and time, they are told why they have to
//! go, and nobody beside them gets anything less or later.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::Memory;
use crate::common::{Broker, RawClient, on_one_and_four_shards, wire};

/// Far fewer where the broker is built for debugging.
const READERS: usize = if cfg!(debug_assertions) { 120 } else { 1000 };
const READERS_PER_THREAD: usize = 20;
const ROUNDS: usize = 25;
const MESSAGES_PER_ROUND: usize = 2;

/// A client of version 5 whose kernel takes next to nothing for it while it does not read.
pub(crate) fn narrow(port: u16, id: &str, filter: &str) -> RawClient {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
    socket.connect(&address.into()).expect("the broker accepts");
    let mut client = RawClient::over(TcpStream::from(socket));
    client.send(&format!("10 ( 'MQTT' 05 02 0000 () '{id}' )"));
    client.expect_accepted();
    client.send(&format!("82 ( 0001 () '{filter}' 00 )"));
    client.expect("90 ( 0001 () 00 )");
    client
}

/// Publishes so many times 4 KiB at QoS 0; all of it is handled when this returns.
fn flood(publisher: &mut RawClient, topic: &str, messages: usize) {
    let packet = wire(&format!("30 ( '{topic}' () {} )", "5a".repeat(4096)));
    for _ in 0..messages {
        publisher.send_bytes(&packet);
    }
    publisher.ping();
}

/// One stuck reader beside many good ones: those get everything, and what is kept for the stuck one is bounded.
fn a_stuck_reader_holds_up_nobody(broker: &Broker) {
    let stuck = narrow(broker.port, "stuck", "#");
    let connect = |n: usize| {
        let mut client = RawClient::v5(broker.port, &format!("good {n}"));
        client.send("82 ( 0001 () 't' 00 )");
        client.expect("90 ( 0001 () 00 )");
        client
    };
    let mut readers: Vec<Vec<RawClient>> = (0..READERS / READERS_PER_THREAD)
        .map(|group| (0..READERS_PER_THREAD).map(|n| connect(group * 1000 + n)).collect())
        .collect();
    let mut publisher = RawClient::v5(broker.port, "publisher");
    // What a round needs in any case is there after the first.
    round(&mut publisher, &mut readers);
    let memory = Memory::of(broker);
    for _ in 1..ROUNDS {
        round(&mut publisher, &mut readers);
    }
    // Some 50 MB were for the stuck one, of which 256 KiB may wait.
    memory.check(broker, 24 * 1024);
    broker.wait_for_log(&["message dropped", "client=stuck", "slow_consumer"]);
    drop(stuck);
    broker.wait_for_log(&["client disconnected", "client=stuck", "dropped="]);
}

/// Publishes some messages, each of which every reader gets before the next round.
fn round(publisher: &mut RawClient, readers: &mut [Vec<RawClient>]) {
    flood(publisher, "only the stuck one", 500);
    flood(publisher, "t", MESSAGES_PER_ROUND);
    thread::scope(|scope| {
        for group in readers {
            scope.spawn(move || {
                for reader in group {
                    for _ in 0..MESSAGES_PER_ROUND {
                        assert_eq!(reader.read_packet().len(), 3 + 3 + 1 + 4096);
                    }
                }
            });
        }
    });
}

/// `slow_consumer = "disconnect"`: the first message that is dropped for a client is the last.
fn a_slow_client_is_disconnected_if_so_configured(broker: &Broker) {
    let mut slow = narrow(broker.port, "slow", "t");
    let mut publisher = RawClient::v5(broker.port, "publisher");
    // Until what waits has passed the bound and all that kernels take.
    for _ in 0..200 {
        flood(&mut publisher, "t", 20);
        if broker.log_lines().iter().any(|line| line.contains("output_bytes_max waits")) {
            break;
        }
    }
    broker.wait_for_log(&["client disconnected", "client=slow", "dropped="]);
    expect_leave(&mut slow);
    publisher.ping();
}

/// `output_stalled_secs_max`: who takes nothing for so long is disconnected, who takes little is not.
fn a_client_that_takes_nothing_for_too_long_is_disconnected(broker: &Broker) {
    let mut stuck = narrow(broker.port, "stuck", "t");
    let mut slow = narrow(broker.port, "slow", "t");
    let mut publisher = RawClient::v5(broker.port, "publisher");
    flood(&mut publisher, "t", 1500);
    // It reads on and on, far less than there is.
    while !broker.log_lines().iter().any(|line| line.contains("output_stalled_secs_max")) {
        for _ in 0..20 {
            assert_eq!(slow.read_packet()[0], 0x30);
        }
        thread::sleep(Duration::from_millis(100));
    }
    broker.wait_for_log(&["client disconnected", "client=stuck", "output_stalled_secs_max"]);
    expect_leave(&mut stuck);
    // Still there, and gets the rest.
    slow.send("c0 00");
    while slow.read_packet()[0] != 0xd0 {}
}

/// The last that comes is DISCONNECT with Quota exceeded.
pub(crate) fn expect_leave(client: &mut RawClient) {
    let mut last = Vec::new();
    while let Some(packet) = client.try_read_packet() {
        last = packet;
    }
    assert_eq!((last[0], last.get(2)), (0xe0, Some(&0x97)), "{last:02x?}");
}

on_one_and_four_shards! {
    a_stuck_reader_holds_up_nobody with "limits.output_bytes_max=262144";
    a_slow_client_is_disconnected_if_so_configured
        with "limits.output_bytes_max=262144", "limits.slow_consumer=disconnect";
    a_client_that_takes_nothing_for_too_long_is_disconnected
        with "limits.output_stalled_secs_max=2";
}
