//! The client's side of SCRAM-SHA-256 for one user, its password hashed once.

use std::sync::{Arc, LazyLock};

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use ringmq::{auth::scram::verifier, config::Credentials};
use sha2::{Digest, Sha256};

/// What a client remembers of an exchange that its CONNECT has begun.
#[derive(Debug)]
pub(crate) struct Login {
    /// Its first message, without the header.
    bare: String,
    /// It does not know the password.
    pub(crate) is_wrong: bool,
    /// What the server must prove in the end.
    server_proof: String,
}

impl Login {
    pub(crate) fn new(nonce: u64, is_wrong: bool) -> Self {
        Self { bare: format!("n={USER},r={nonce:x}"), is_wrong, server_proof: String::new() }
    }

    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The answer to the server's first message.
    pub(crate) fn last(&mut self, server_first: &str) -> String {
        let nonce = server_first.split(',').next().unwrap();
        let without_proof = format!("c=biws,{nonce}");
        let said = format!("{},{server_first},{without_proof}", self.bare);
        let mut proof = hmac(&Sha256::digest(KEYS.client), said.as_bytes());
        proof.iter_mut().zip(KEYS.client).for_each(|(byte, key)| *byte ^= key);
        proof[0] ^= u8::from(self.is_wrong);
        self.server_proof =
            format!("v={}", Base64::encode_string(&hmac(&KEYS.server, said.as_bytes())));
        format!("{without_proof},p={}", Base64::encode_string(&proof))
    }

    pub(crate) fn check(&self, server_final: &[u8]) {
        assert_eq!(self.server_proof.as_bytes(), server_final, "the server proves itself");
    }
}

/// A password file with that user.
pub(crate) fn credentials() -> Arc<Credentials> {
    KEYS.credentials.clone()
}

struct Keys {
    client: [u8; 32],
    server: [u8; 32],
    credentials: Arc<Credentials>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(PASSWORD.as_bytes(), SALT, ITERATIONS, &mut salted);
    let verifier = verifier(PASSWORD, SALT, ITERATIONS).unwrap();
    Keys {
        client: hmac(&salted, b"Client Key"),
        server: hmac(&salted, b"Server Key"),
        credentials: Arc::new(Credentials::parse(&format!("{USER}:{verifier}")).unwrap()),
    }
});

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Authentication Method.
pub(crate) const METHOD: &str = "SCRAM-SHA-256";
const USER: &str = "ann";
const PASSWORD: &str = "pencil";
const SALT: &[u8] = b"sixteen bytes...";
const ITERATIONS: u32 = 4096;
