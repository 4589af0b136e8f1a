//! Users who can authenticate with SCRAM-SHA-256: a password file of them, and clients that do.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64ct::{Base64, Encoding};
use sha2::Sha256;

use super::{ClientKeys, RawClient, fields};

/// A password file in which each user's name is the password too.
pub(crate) fn password_file(name: &str, users: &[&str]) -> PathBuf {
    let name = format!("{}-{name}.users", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    users.iter().for_each(|user| set_password(&path, user, user));
    path
}

/// Gives a user a password, as an operator does.
pub(crate) fn set_password(file: &Path, user: &str, password: &str) {
    let mut passwd = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(["passwd", file.to_str().expect("a path in UTF-8"), user])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("ringmq starts");
    let mut stdin = passwd.stdin.take().expect("stdin is piped");
    writeln!(stdin, "{password}").expect("it reads the password");
    drop(stdin);
    assert!(passwd.wait().expect("it ends").success());
}

impl RawClient {
    /// A v5 client that has proven to be this user of such a file: flags of CONNECT and, in the notation of
    /// [`super::wire`], properties and what follows the Client Identifier.
    #[track_caller]
    pub(crate) fn v5_user(
        port: u16,
        (flags, properties): (&str, &str),
        id: &str,
        rest: &str,
        user: &str,
    ) -> Self {
        let mut client = Self::connect(port);
        client.send(&format!(
            "10 ( 'MQTT' 05 {flags} 003c ( {properties} 15 'SCRAM-SHA-256' 16 'n,,n={user},r={NONCE}' ) \
             '{id}' {rest} )"
        ));
        let packet = client.read_packet();
        assert_eq!((packet[0], packet[2]), (0xf0, 0x18), "no AUTH: {packet:02x?}");
        let (properties, _) = fields(&packet[3..]);
        let data = properties.iter().find(|(id, _)| *id == 0x16).expect("data");
        let first = String::from_utf8(data.1[2..].to_vec()).expect("text");
        client.send(&format!("f0 ( 18 ( 15 'SCRAM-SHA-256' 16 '{}' ) )", prove(user, &first)));
        client.expect_accepted();
        client
    }
}

fn prove(user: &str, server_first: &str) -> String {
    let attribute = |name: &str| {
        let mut parts = server_first.split(',');
        parts.find_map(|part| part.strip_prefix(name)).expect("an attribute").to_owned()
    };
    let salt = Base64::decode_vec(&attribute("s=")).expect("base64");
    let iterations = attribute("i=").parse().expect("a number");
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(user.as_bytes(), &salt, iterations, &mut salted);
    let without_proof = format!("c=biws,r={}", attribute("r="));
    let message = format!("n={user},r={NONCE},{server_first},{without_proof}");
    let (proof, _) = ClientKeys::new(&salted).sign(&message);
    format!("{without_proof},p={}", Base64::encode_string(&proof))
}

const NONCE: &str = "b8Kq0sGgWmTt2vXc";
