//! Listeners whose clients are authenticated in their own way.

use std::process::{Command, Stdio};

use crate::common::{RawClient, free_port};
use crate::files::{Files, SERVER};
use crate::tls::mosquitto_pub;

/// What a CONNECT gets on that port: the reason code of CONNACK.
fn outcome(port: u16, credentials: &str) -> u8 {
    let mut client = RawClient::connect(port);
    let flags = if credentials.is_empty() { "02" } else { "c2" };
    client.send(&format!("10 ( 'MQTT' 04 {flags} 003c 'client' {credentials} )"));
    client.read_packet()[3]
}

#[test]
fn each_listener_has_its_own_chain_of_methods() {
    let files = Files::new();
    files.client("ann", 10);
    files.write("password", "right\n");
    let set = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(["passwd", &files.path("users"), "ann", "--from", &files.path("password")])
        .stdin(Stdio::null())
        .output();
    assert!(set.expect("it runs").status.success());
    let [open, closed, by_certificate] = [(); 3].map(|()| free_port());
    let config = format!(
        "password_file = \"{{}}/users\"\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:{open}\"\nauth = [\"anonymous\"]\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:{closed}\"\nauth = [\"password\"]\n\
         [[listener]]\nurl = \"mqtts://127.0.0.1:{by_certificate}\"\nauth = [\"certificate\"]\n\
         {SERVER}client_ca = \"{{}}/ca.pem\"\nclient_certificates = \"optional\"\nuser_from = \"cn\"\n"
    );
    for shards in [1, 4] {
        let broker = files.broker_with(shards, &config);
        let by_all = broker.port;
        for (port, credentials, expected) in [
            (by_all, "", 0),
            (by_all, "'ann' 'right'", 0),
            (by_all, "'ann' 'wrong'", 4),
            (open, "", 0),
            (open, "'ann' 'wrong'", 0),
            (closed, "", 5),
            (closed, "'ann' 'right'", 0),
            (closed, "'ann' 'wrong'", 4),
        ] {
            assert_eq!(outcome(port, credentials), expected, "{port} {credentials}");
        }
        let (certificate, key) = (files.path("ann.pem"), files.path("ann.key"));
        let with = ["--cert", &certificate, "--key", &key];
        assert!(mosquitto_pub(&files, by_certificate, &with).status.success());
        let password = ["-u", "ann", "-P", "right"];
        assert!(!mosquitto_pub(&files, by_certificate, &password).status.success());
        broker.terminate();
    }
}
