//! The client's side of SCRAM-SHA-256 for one user, its password hashed once.

use std::sync::{Arc, LazyLock};

#[path = "../common/scram.rs"]
mod client;

use base64ct::{Base64, Encoding};
use client::ClientKeys;
use ringmq::{auth::scram::verifier, config::Credentials};
use sha2::Sha256;

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
        let (mut proof, signature) = USER_KEYS.keys.sign(&said);
        proof[0] ^= u8::from(self.is_wrong);
        self.server_proof = format!("v={}", Base64::encode_string(&signature));
        format!("{without_proof},p={}", Base64::encode_string(&proof))
    }

    pub(crate) fn check(&self, server_final: &[u8]) {
        assert_eq!(self.server_proof.as_bytes(), server_final, "the server proves itself");
    }
}

/// A password file with that user.
pub(crate) fn credentials() -> Arc<Credentials> {
    USER_KEYS.credentials.clone()
}

struct UserKeys {
    keys: ClientKeys,
    credentials: Arc<Credentials>,
}

static USER_KEYS: LazyLock<UserKeys> = LazyLock::new(|| {
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(PASSWORD.as_bytes(), SALT, ITERATIONS, &mut salted);
    let verifier = verifier(PASSWORD, SALT, ITERATIONS).unwrap();
    UserKeys {
        keys: ClientKeys::new(&salted),
        credentials: Arc::new(Credentials::parse(&format!("{USER}:{verifier}")).unwrap()),
    }
});

/// Authentication Method.
pub(crate) const METHOD: &str = "SCRAM-SHA-256";
const USER: &str = "ann";
const PASSWORD: &str = "pencil";
const SALT: &[u8] = b"sixteen bytes...";
const ITERATIONS: u32 = 4096;
