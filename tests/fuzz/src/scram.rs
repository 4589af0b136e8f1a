//! The client's side of SCRAM-SHA-256 (RFC 5802) for a user whose salted password is made up: so nothing
//! is hashed thousands of times for an input.

#[path = "../../common/scram.rs"]
mod client;

use base64ct::{Base64, Encoding};
use client::ClientKeys;
use ringmq::{auth::scram, config::Credentials};
use sha2::{Digest, Sha256};

/// The client's first message that [`last`] goes on from.
pub(crate) const FIRST: &[u8] = b"n,,n=user,r=x";

/// The user's line of a password file.
pub(crate) fn password_line() -> String {
    let ClientKeys { client, server } = ClientKeys::new(&SALTED_PASSWORD);
    let [salt, stored_key, server_key] =
        [&b"salt"[..], &Sha256::digest(client), &server].map(Base64::encode_string);
    format!("user:{}$4096:{salt}${stored_key}:{server_key}", scram::METHOD)
}

/// What the server knows of the user.
pub(crate) fn credentials() -> Credentials {
    Credentials::parse(&password_line()).expect("a line of a password file")
}

/// The client's last message with the right proof, in answer to the server's first; `None` if that is none.
pub(crate) fn last(server_first: &[u8]) -> Option<Vec<u8>> {
    let server_first = str::from_utf8(server_first).ok()?;
    let (nonce, _) = server_first.strip_prefix("r=")?.split_once(',')?;
    let without_proof = format!("c=biws,r={nonce}");
    let bare = str::from_utf8(&FIRST[b"n,,".len()..]).ok()?;
    let message = format!("{bare},{server_first},{without_proof}");
    let (proof, _) = ClientKeys::new(&SALTED_PASSWORD).sign(&message);
    Some(format!("{without_proof},p={}", Base64::encode_string(&proof)).into_bytes())
}

const SALTED_PASSWORD: [u8; 32] = [9; 32];
