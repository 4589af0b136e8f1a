//! The client's side of SCRAM-SHA-256 (RFC 5802), written without the broker's.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What a client makes of its salted password.
pub(crate) struct ClientKeys {
    pub(crate) client: [u8; 32],
    pub(crate) server: [u8; 32],
}

impl ClientKeys {
    pub(crate) fn new(salted_password: &[u8; 32]) -> Self {
        Self {
            client: hmac(salted_password, b"Client Key"),
            server: hmac(salted_password, b"Server Key"),
        }
    }

    /// The proof for an exchange whose messages are these, its own last one without the proof, and
    /// the signature that the server has to answer with.
    pub(crate) fn sign(&self, messages: &str) -> ([u8; 32], [u8; 32]) {
        let mut proof = hmac(&Sha256::digest(self.client), messages.as_bytes());
        proof.iter_mut().zip(self.client).for_each(|(byte, key)| *byte ^= key);
        (proof, hmac(&self.server, messages.as_bytes()))
    }
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("a key of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}
