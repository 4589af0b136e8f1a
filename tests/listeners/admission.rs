//! Bounds of addresses where the client's is not the socket's, where TLS comes first, and where there is none.

use std::{
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::common::{RawClient, eventually, wire};
use crate::files::{Files, SERVER};

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// Behind a proxy the client's address counts and is banned, not the proxy's.
#[test]
fn behind_a_proxy_clients_count_by_their_own_address() {
    for shards in [1, 4] {
        let files = Files::new();
        let port = crate::common::free_port();
        let listener = format!(
            "allow_anonymous = true\nbans = [\"address => 192.0.2.66\"]\n\
             limits.connections_per_address_max = 2\n[[listener]]\n\
             url = \"mqtt://127.0.0.1:{port}\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n"
        );
        let broker = files.broker_with(shards, &listener);
        let client = |from: &str, id: &str| {
            let mut client = RawClient::connect(port);
            let connect = format!("10 ( 'MQTT' 04 02 003c '{id}' )");
            client.try_send_bytes(&wire(&format!("`PROXY TCP4 {from} 192.0.2.1 5555 1883`0d0a")));
            client.try_send_bytes(&wire(&connect));
            (client.try_read_packet()? == CONNACK).then_some(client)
        };
        let first = client("192.0.2.7", "a").expect("the first");
        let _second = client("192.0.2.7", "b").expect("the second");
        assert!(client("192.0.2.7", "c").is_none());
        let _others = ["192.0.2.8", "192.0.2.9"].map(|from| client(from, from).expect("another"));
        assert!(client("192.0.2.66", "d").is_none());
        drop(first);
        let _third = eventually("a place", || client("192.0.2.7", "c"));
        broker.wait_for_log(&["connection refused", "connections_per_address_max"]);
    }
}

/// A handshake that fails gives the connection's place back, and so does one that never ends.
#[test]
fn handshakes_that_fail_give_their_place_back() {
    let files = Files::new();
    let settings = format!(
        "limits.connections_per_address_max = 3\nlimits.connect_timeout_secs = 2\n[[listener]]\n\
         url = \"mqtts://127.0.0.1:{{PORT}}\"\n{SERVER}"
    );
    let port = crate::common::free_port();
    let _broker = files.broker_with(4, &settings.replace("{PORT}", &port.to_string()));
    for _ in 0..20 {
        let mut junk = RawClient::connect(port);
        junk.try_send_bytes(b"GET / HTTP/1.1\r\n\r\n");
        while junk.discard(Duration::from_secs(1)) {}
    }
    let _silent = [(); 3].map(|()| RawClient::connect(port));
    let tls = config(&files);
    eventually("places of those that said nothing", || connect(port, &tls, "c").ok());
}

/// Unix sockets have no address.
#[test]
fn unix_sockets_are_not_counted() {
    let files = Files::new();
    let path = files.path("socket");
    let settings = format!(
        "limits.connections_per_address_max = 1\nlimits.connects_per_address_per_second_max = 1\n\
         [[listener]]\nurl = \"unix:{path}\"\n"
    );
    let _broker = files.broker_with(4, &settings);
    let clients = [(); 5].map(|()| {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(&path).expect("it listens");
        stream.write_all(&wire("10 ( 'MQTT' 04 02 003c '' )")).expect("open");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, CONNACK);
        stream
    });
    drop(clients);
}

/// A herd over TLS: all get in in the end, and a client that is there is served meanwhile.
#[test]
fn a_herd_over_tls_gets_in_beside_a_client_that_pings() {
    const THREADS: usize = 20;
    const EACH: usize = 15;
    for shards in [1, 4] {
        let files = Files::new();
        let (broker, port) = files.broker(shards, "mqtts", SERVER);
        let mut pinger = RawClient::v5(broker.port, "pinger");
        let tls = config(&files);
        let started = Instant::now();
        let mut slowest = Duration::ZERO;
        thread::scope(|scope| {
            let tls = &tls;
            let come = |thread: usize| {
                move || {
                    let come = |n| connect(port, tls, &format!("herd {thread} {n}"));
                    (0..EACH).map(come).collect::<Result<Vec<_>, _>>()
                }
            };
            let herds: Vec<_> = (0..THREADS).map(|thread| scope.spawn(come(thread))).collect();
            while herds.iter().any(|herd| !herd.is_finished()) {
                let asked = Instant::now();
                pinger.ping();
                slowest = slowest.max(asked.elapsed());
                thread::sleep(Duration::from_millis(1));
            }
            for herd in herds {
                let clients = herd.join().expect("no panic").expect("all get in");
                assert_eq!(clients.len(), EACH);
            }
        });
        let time = started.elapsed();
        println!("{} over TLS in {time:?}; slowest ping {slowest:?}", THREADS * EACH);
    }
}

fn config(files: &Files) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(files.path("ca.pem")).expect("a certificate");
    roots.add(ca).expect("a CA");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A client that is connected over TLS.
fn connect(
    port: u16,
    config: &Arc<ClientConfig>,
    id: &str,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    use std::io::{Error, Read, Write};
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = ClientConnection::new(config.clone(), name).map_err(Error::other)?;
    let mut stream = StreamOwned::new(tls, TcpStream::connect(("127.0.0.1", port))?);
    stream.write_all(&wire(&format!("10 ( 'MQTT' 04 02 003c '{id}' )")))?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, CONNACK);
    Ok(stream)
}
