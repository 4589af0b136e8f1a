//! TLS: real clients, versions and ciphers, client certificates, several server certificates.

use std::process::{Command, Output, Stdio};

use crate::common::each;
use crate::files::{Files, SERVER};

/// Publishes with `mosquitto_pub` over TLS, retained.
pub(crate) fn mosquitto_pub(files: &Files, port: u16, arguments: &[&str]) -> Output {
    Command::new("mosquitto_pub")
        .args([
            "-p",
            &port.to_string(),
            "-h",
            "localhost",
            "-q",
            "1",
            "-r",
            "-t",
            "t",
            "-m",
            "hello",
        ])
        .args(["--cafile", &files.path("ca.pem")])
        .args(arguments)
        .output()
        .expect("mosquitto-clients is installed")
}

/// Gets what is retained on `t`.
fn mosquitto_sub(files: &Files, port: u16, arguments: &[&str]) -> String {
    let output = Command::new("mosquitto_sub")
        .args([
            "-p",
            &port.to_string(),
            "-h",
            "localhost",
            "-q",
            "1",
            "-t",
            "t",
            "-C",
            "1",
            "-W",
            "20",
        ])
        .args(["--cafile", &files.path("ca.pem")])
        .args(arguments)
        .output()
        .expect("mosquitto-clients is installed");
    String::from_utf8(output.stdout).expect("text")
}

/// What `openssl s_client` says of a connection that it ends at once.
fn s_client(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn mosquitto_clients_talk_over_tls_on_one_shard_and_on_four() {
    for shards in [1, 4] {
        let files = Files::new();
        let (_broker, port) = files.broker(shards, "mqtts", SERVER);
        for version in ["tlsv1.2", "tlsv1.3"] {
            let tls = ["--tls-version", version];
            let output = mosquitto_pub(&files, port, &tls);
            assert!(output.status.success(), "{version}: {output:?}");
            for id in ["one", "two", "three", "four"] {
                let got = mosquitto_sub(&files, port, &[&tls[..], &["-i", id, "-V", "5"]].concat());
                assert_eq!(got, "hello\n", "{version} {id}");
            }
        }
    }
}

#[test]
fn a_large_message_goes_through_many_records_both_ways() {
    let files = Files::new();
    let (_broker, port) = files.broker(4, "mqtts", SERVER);
    let text: String = (0..400_000).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    files.write("large", &text);
    let output = mosquitto_pub(&files, port, &["-f", &files.path("large")]);
    // The file's own -m stands before -f: the last one counts for some versions, none for others.
    let output = if output.status.success() {
        output
    } else {
        Command::new("mosquitto_pub")
            .args(["-p", &port.to_string(), "-h", "localhost", "-q", "1", "-r", "-t", "t"])
            .args(["--cafile", &files.path("ca.pem"), "-f", &files.path("large")])
            .output()
            .expect("mosquitto-clients is installed")
    };
    assert!(output.status.success(), "{output:?}");
    assert_eq!(mosquitto_sub(&files, port, &[]).trim_end(), text);
}

#[test]
fn versions_ciphers_and_alpn_are_what_they_should_be() {
    let files = Files::new();
    let (_broker, port) = files.broker(1, "mqtts", SERVER);
    let (_broker13, port13) = files.broker(1, "mqtts", &format!("{SERVER}tls_min = \"1.3\"\n"));
    each(
        [
            (port, &["-tls1_3"][..], "TLSv1.3, Cipher is TLS_"),
            (port, &["-tls1_2"], "TLSv1.2, Cipher is ECDHE-ECDSA-"),
            (port, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], "no peer certificate available"),
            (port, &["-tls1_2", "-cipher", "AES128-SHA"], "alert handshake failure"),
            (port13, &["-tls1_2"], "alert protocol version"),
            (port13, &["-tls1_3"], "TLSv1.3, Cipher is TLS_"),
            (port, &["-alpn", "mqtt"], "ALPN protocol: mqtt"),
            (port, &["-alpn", "x,mqtt"], "ALPN protocol: mqtt"),
            (port, &["-alpn", "h2"], "alert no application protocol"),
        ],
        |(port, arguments, expected)| {
            let said = s_client(*port, arguments);
            assert!(said.contains(expected), "{said}");
        },
    );
}

#[test]
fn a_session_is_resumed_with_its_ticket() {
    let files = Files::new();
    let (_broker, port) = files.broker(1, "mqtts", SERVER);
    let session = files.path("session");
    for version in ["-tls1_2", "-tls1_3"] {
        // Long enough for the ticket of TLS 1.3 to come: until the broker ends the silent connection.
        let first = Command::new("sh")
            .args(["-c", &format!("(sleep 1) | openssl s_client {version} -connect 127.0.0.1:{port} -sess_out {session}")])
            .output()
            .expect("openssl is installed");
        assert!(first.status.success(), "{first:?}");
        let said = s_client(port, &[version, "-sess_in", &session]);
        assert!(said.contains("Reused, TLSv1"), "{version}: {said}");
    }
}

#[test]
fn each_name_gets_its_certificate_and_others_the_first() {
    let files = Files::new();
    files.server("a", "a.example");
    files.server("b", "*.b.example");
    let settings = "certificates = [\"{}/server.pem => {}/server.key\", \"{}/a.pem => {}/a.key\", \
                    \"{}/b.pem => {}/b.key\"]\n";
    let (_broker, port) = files.broker(1, "mqtts", settings);
    each(
        [
            (&["-servername", "a.example"][..], "CN=a.example"),
            (&["-servername", "x.b.example"], "CN=*.b.example"),
            (&["-servername", "b.example"], "CN=localhost"),
            (&["-servername", "localhost"], "CN=localhost"),
            (&["-servername", "elsewhere.example"], "CN=localhost"),
            (&["-noservername"], "CN=localhost"),
        ],
        |(arguments, expected)| {
            let said = s_client(port, arguments).replace("CN = ", "CN=");
            assert!(said.contains(&format!("subject={expected}\n")), "{said}");
        },
    );
}

#[test]
fn clients_prove_who_they_are_with_certificates_that_are_not_revoked() {
    let files = Files::new();
    files.client("ann", 10);
    files.client("bob", 11);
    files.stranger("eve");
    files.revoke(&[11]);
    let settings = format!(
        "{SERVER}client_ca = \"{{}}/ca.pem\"\ncrl = \"{{}}/clients.crl\"\nclient_certificates = "
    );
    let (required, must) =
        files.broker(1, "mqtts", &format!("{settings}\"required\"\nuser_from = \"cn\"\n"));
    let (optional, may) =
        files.broker(4, "mqtts", &format!("{settings}\"optional\"\nuser_from = \"san\"\n"));
    let publish = |port: u16, name: &str| {
        let (certificate, key) =
            (files.path(&format!("{name}.pem")), files.path(&format!("{name}.key")));
        let with = ["--cert", &certificate, "--key", &key, "-i", name, "-u", "somebody"];
        mosquitto_pub(&files, port, if name.is_empty() { &["-i", "nobody"] } else { &with })
            .status
            .success()
    };
    each(
        [
            ("ann", must, true),
            ("bob", must, false),
            ("eve", must, false),
            ("", must, false),
            ("ann", may, true),
            ("bob", may, false),
            ("eve", may, false),
            ("", may, true),
        ],
        |(name, port, expected)| assert_eq!(publish(*port, name), *expected),
    );
    required.wait_for_log(&["client connected", "client=ann", "user=\"ann\""]);
    required.wait_for_log(&["broke the rules of its transport", "Revoked"]);
    required.wait_for_log(&["connection ended before CONNECT", "peer sent no certificates"]);
    optional.wait_for_log(&["client connected", "client=ann", "user=\"ann@example.com\""]);
}

/// A certificate's user counts where nobody may come in without a name.
#[test]
fn a_user_by_certificate_is_nobody_anonymous_and_keeps_the_session() {
    let files = Files::new();
    files.client("ann", 10);
    files.client("bob", 11);
    let settings = format!(
        "{SERVER}client_ca = \"{{}}/ca.pem\"\nclient_certificates = \"optional\"\nuser_from = \"cn\"\n"
    );
    let port = crate::common::free_port();
    let config = format!(
        "allow_anonymous = false\n[[listener]]\nurl = \"mqtts://127.0.0.1:{port}\"\n{settings}"
    );
    let _broker = files.broker_with(4, &config);
    let publish = |name: &str, id: &str| {
        let (certificate, key) =
            (files.path(&format!("{name}.pem")), files.path(&format!("{name}.key")));
        let with = ["--cert", &certificate, "--key", &key, "-i", id, "-V", "5", "-x", "600"];
        mosquitto_pub(&files, port, &with).status.success()
    };
    assert!(!mosquitto_pub(&files, port, &["-i", "nobody"]).status.success());
    assert!(publish("ann", "hers"));
    assert!(!publish("bob", "hers"), "a session belongs to the user who proved that it is theirs");
    assert!(publish("ann", "hers") && publish("bob", "his"));
}

#[test]
fn files_that_are_of_no_use_refuse_the_start_with_a_reason() {
    let files = Files::new();
    files.server("other", "other");
    files.write("empty.pem", "");
    files.write("broken.pem", "-----BEGIN CERTIFICATE-----\nMII\n");
    let listener = "[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\ncertificates = ";
    each(
        [
            ("\"{}/none.pem => {}/server.key\"", "none.pem cannot be read: No such file"),
            ("\"{}/empty.pem => {}/server.key\"", "empty.pem contains no certificate in PEM form"),
            ("\"{}/server.pem => {}/empty.pem\"", "empty.pem contains no private key"),
            (
                "\"{}/broken.pem => {}/server.key\"",
                "broken.pem is not valid PEM: an END is missing",
            ),
            (
                "\"{}/server.pem => {}/other.key\"",
                "other.key has the key of another certificate than ",
            ),
            (
                "\"{}/server.pem => {}/server.key\"\nclient_certificates = \"required\"\nclient_ca = \"{}/empty.pem\"",
                "empty.pem contains no certificate in PEM form",
            ),
            (
                "\"{}/server.pem => {}/server.key\"\nclient_certificates = \"required\"\nclient_ca = \"{}/ca.pem\"\n\
                 crl = \"{}/ca.pem\"",
                "ca.pem contains no revocation list in PEM form",
            ),
        ],
        |(settings, expected)| {
            let config = format!("{listener}{settings}\n");
            files
                .write("wrong.toml", &config.replace("{}", files.path("x").trim_end_matches("/x")));
            let output = Command::new(env!("CARGO_BIN_EXE_ringmq"))
                .args(["check", &files.path("wrong.toml")])
                .output()
                .expect("the broker runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(expected), "{said}");
        },
    );
}
