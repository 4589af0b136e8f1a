//! Unix sockets.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::wire;
use crate::files::Files;

#[test]
fn mosquitto_clients_talk_over_a_unix_socket_and_its_file_goes_with_the_broker() {
    for shards in [1, 4] {
        let files = Files::new();
        let socket = files.path("s");
        // A process that is gone has left its own.
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("a new file"));
        let broker =
            files.broker_with(shards, "[[listener]]\nurl = \"unix:{}/s\"\nunix_mode = \"600\"\n");
        let mode = std::fs::metadata(&socket).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for id in ["one", "two", "three", "four"] {
            let published = Command::new("mosquitto_pub")
                .args(["--unix", &socket, "-i", id, "-q", "2", "-r", "-t", "t", "-m", id])
                .output()
                .expect("mosquitto-clients is installed");
            assert!(published.status.success(), "{published:?}");
            let got = Command::new("mosquitto_sub")
                .args(["--unix", &socket, "-i", id, "-q", "2", "-t", "t", "-C", "1", "-W", "20"])
                .output()
                .expect("mosquitto-clients is installed");
            assert_eq!(String::from_utf8_lossy(&got.stdout), format!("{id}\n"));
        }
        broker.wait_for_log(&["client connected", "peer=unix"]);
        broker.terminate();
        assert!(!Path::new(&socket).exists());
    }
}

/// The end of the connection is noticed: the will is sent. Clause: MQTT-3.1.2-8.
#[test]
fn the_end_of_a_unix_connection_is_noticed() {
    for shards in [1, 4] {
        let files = Files::new();
        let broker = files
            .broker_with(shards, "listen = [\"127.0.0.1:0\"]\n[[listener]]\nurl = \"unix:{}/s\"\n");
        for number in 0..20 {
            let mut stream = UnixStream::connect(files.path("s")).expect("the broker accepts");
            stream.set_read_timeout(Some(Duration::from_secs(8))).expect("a socket");
            let id = format!("w{number}");
            stream
                .write_all(&wire(&format!("10 ( 'MQTT' 04 06 003c '{id}' 'will/{id}' 'gone' )")))
                .expect("open");
            let mut connack = [0; 4];
            stream.read_exact(&mut connack).expect("CONNACK");
            assert_eq!(connack, [0x20, 2, 0, 0]);
            stream.write_all(&wire("c0 00")).expect("open");
            let mut pong = [0; 2];
            stream.read_exact(&mut pong).expect("PINGRESP");
            drop(stream);
            broker.wait_for_log(&["client disconnected", &format!("client={id} ")]);
        }
    }
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_alone() {
    let files = Files::new();
    let _broker = files.broker_with(1, "[[listener]]\nurl = \"unix:{}/s\"\n");
    let output = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(["--ephemeral", "-l", &format!("unix:{}", files.path("s"))])
        .output()
        .expect("the broker runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("is in use by another process"), "{said}");
}
