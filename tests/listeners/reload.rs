//! Certificates that change while clients are connected.

use std::process::{Command, Stdio};

use crate::common::Broker;
use crate::files::{Files, SERVER};

/// The serial number of the certificate that a new connection gets.
fn fingerprint(port: u16) -> String {
    let script = format!(
        "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint"
    );
    let output = Command::new("sh").args(["-c", &script]).output().expect("openssl is installed");
    String::from_utf8(output.stdout).expect("text")
}

struct Subscriber(std::process::Child);

impl Subscriber {
    fn start(files: &Files, broker: &Broker, port: u16, arguments: &[&str]) -> Self {
        let child = Command::new("mosquitto_sub")
            .args(["-h", "localhost", "-p", &port.to_string(), "--cafile", &files.path("ca.pem")])
            .args(["-i", "stays", "-t", "t", "-C", "1", "-W", "60"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto-clients is installed");
        broker.wait_for_log(&["Sending SUBACK to stays"]);
        Self(child)
    }

    fn gets(self, broker: &Broker) {
        let published = Command::new("mosquitto_pub")
            .args(["-p", &broker.port.to_string(), "-t", "t", "-m", "still here"])
            .status();
        assert!(published.expect("mosquitto-clients is installed").success());
        let output = self.0.wait_with_output().expect("a child");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "still here\n");
    }
}

#[test]
fn sighup_brings_new_certificates_and_a_bad_one_keeps_the_old_and_nobody_is_dropped() {
    let files = Files::new();
    let (broker, port) = files.broker(4, "mqtts", SERVER);
    let subscriber = Subscriber::start(&files, &broker, port, &[]);
    let first = fingerprint(port);
    assert!(first.contains('='), "{first}");

    files.server("next", "localhost");
    let text = |name: &str| std::fs::read_to_string(files.path(name)).expect("written");
    files.write("server.pem", &text("next.pem"));
    files.write("server.key", &text("next.key"));
    broker.signal("HUP");
    broker.wait_for_log(&["certificates are read again"]);
    let second = fingerprint(port);
    assert_ne!(first, second);

    files.write("server.pem", "no certificate");
    broker.signal("HUP");
    broker.wait_for_log(&["ERROR", "server.pem contains no certificate", "before stay in use"]);
    assert_eq!(fingerprint(port), second);
    subscriber.gets(&broker);
}

#[test]
fn files_that_change_are_noticed_without_a_signal_revocations_too() {
    let files = Files::new();
    files.client("ann", 10);
    files.revoke(&[]);
    let settings = format!(
        "{SERVER}client_ca = \"{{}}/ca.pem\"\ncrl = \"{{}}/clients.crl\"\nclient_certificates = \"required\"\n"
    );
    let (broker, port) = files.broker(1, "mqtts", &settings);
    let (certificate, key) = (files.path("ann.pem"), files.path("ann.key"));
    let with = ["--cert", &certificate, "--key", &key];
    let subscriber = Subscriber::start(&files, &broker, port, &with);
    let connects = || {
        Command::new("mosquitto_pub")
            .args(["-h", "localhost", "-p", &port.to_string(), "--cafile", &files.path("ca.pem")])
            .args(["-t", "other", "-m", "x"])
            .args(with)
            .output()
            .expect("mosquitto-clients is installed")
            .status
            .success()
    };
    assert!(connects());
    files.revoke(&[10]);
    broker.wait_for_log(&["certificates are read again"]);
    assert!(!connects(), "revoked");
    subscriber.gets(&broker);
}
