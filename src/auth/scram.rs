//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side: a client proves that
//! it knows a password, and the server that it knows the client, while neither
//! says it.
//!
//! Messages in, messages out; knows no packet and no connection. Its nonces are
//! drawn from a secret, so it needs no randomness of its own.

use std::fmt;

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use pbkdf2::pbkdf2_hmac_array;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::{
    base::{ShardId, limits::SCRAM_MESSAGE_BYTES_MAX},
    config::{Credentials, KEY_BYTES, Verifier, prepare_user_name},
};

/// Its name as Authentication Method.
pub const METHOD: &str = "SCRAM-SHA-256";

/// What the exchanges of one shard share.
pub struct Server {
    secret: [u8; KEY_BYTES],
    /// Made of the users' keys, so that who does not exist stays the same over a
    /// restart, as those who do.
    decoy_secret: [u8; KEY_BYTES],
    shard: ShardId,
    /// Exchanges begun so far: none has the nonce of another.
    begun: u64,
}

/// An exchange that waits for the client's proof.
pub struct Exchange {
    user: Box<str>,
    /// Whether there is such a user. One that does not exist fails at the end,
    /// as a wrong password does.
    exists: bool,
    stored_key: [u8; KEY_BYTES],
    server_key: [u8; KEY_BYTES],
    /// What the client's last message must begin with: channel binding and nonce.
    expected: String,
    /// AuthMessage without the client's last message.
    said: String,
}

/// A client that has proven who it is.
#[derive(PartialEq, Eq, Debug)]
pub struct Proven {
    /// Its user name.
    pub user: Box<str>,
    /// The last message to it: the server's own proof.
    pub server_final: String,
}

/// Why an exchange failed. For the log: clients are not told.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ScramError {
    /// Not of the form of RFC 5802 section 7.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// The client asks for what is not there.
    #[error("SCRAM message asks for {0}, which is not supported")]
    Unsupported(&'static str),
    /// Not the answer to what the server said.
    #[error("SCRAM message of user {0:?} has another channel binding or nonce")]
    Mismatch(Box<str>),
    /// Nobody has this name.
    #[error("unknown user {0:?}")]
    UnknownUser(Box<str>),
    /// The proof is wrong.
    #[error("wrong password of user {0:?}")]
    WrongPassword(Box<str>),
}

impl Server {
    /// `secret` comes from a source of randomness and is the same on all shards.
    pub fn new(secret: [u8; KEY_BYTES], shard: ShardId, credentials: &Credentials) -> Self {
        let mut users = Sha256::new();
        credentials.stored_keys().for_each(|key| users.update(key));
        Self { secret, decoy_secret: users.finalize().into(), shard, begun: 0 }
    }

    /// Takes the client's first message; returns the server's.
    ///
    /// # Errors
    /// [`ScramError`], but not for an unknown user.
    pub fn begin(
        &mut self,
        credentials: &Credentials,
        client_first: &[u8],
    ) -> Result<(Exchange, String), ScramError> {
        self.begun += 1;
        let number = [&self.shard.0.to_be_bytes()[..], &self.begun.to_be_bytes()].concat();
        let nonce = derive(&self.secret, b"nonce", &number);
        self.begin_with(credentials, client_first, &Base64::encode_string(&nonce[..NONCE_BYTES]))
    }

    fn begin_with(
        &self,
        credentials: &Credentials,
        client_first: &[u8],
        server_nonce: &str,
    ) -> Result<(Exchange, String), ScramError> {
        let first = ClientFirst::parse(text(client_first)?)?;
        let user: Box<str> = first.user.into();
        // Made for every user: the time it takes tells nothing either.
        let decoy = self.decoy(credentials, &user);
        let known = credentials.get(&user);
        let verifier = known.unwrap_or(&decoy);
        let nonce = format!("{}{server_nonce}", first.nonce);
        let salt = Base64::encode_string(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let binding = Base64::encode_string(first.gs2_header.as_bytes());
        let exchange = Exchange {
            exists: known.is_some(),
            stored_key: verifier.stored_key,
            server_key: verifier.server_key,
            expected: format!("c={binding},r={nonce}"),
            said: format!("{},{server_first},", first.bare),
            user,
        };
        Ok((exchange, server_first))
    }

    /// A verifier for a user that does not exist, the same each time, so that
    /// names cannot be tried out. It looks like that of a user who does.
    fn decoy(&self, credentials: &Credentials, user: &str) -> Verifier {
        let model = credentials.neighbour(user);
        let salt_bytes = model.map_or(SALT_BYTES, |model| model.salt.len());
        let derive = |purpose| derive(&self.decoy_secret, purpose, user.as_bytes());
        let salt = [&b"salt 1"[..], b"salt 2"].map(derive);
        Verifier {
            iterations: model.map_or(ITERATIONS, |model| model.iterations),
            salt: salt.concat()[..salt_bytes].into(),
            stored_key: derive(b"stored key"),
            server_key: derive(b"server key"),
        }
    }
}

impl Exchange {
    /// Takes the client's last message. The check takes the same time whatever
    /// is wrong with the proof.
    ///
    /// # Errors
    /// [`ScramError`].
    pub fn finish(self, client_final: &[u8]) -> Result<Proven, ScramError> {
        let (without_proof, proof) =
            text(client_final)?.rsplit_once(",p=").ok_or(ScramError::Malformed("no proof"))?;
        let rest = without_proof.strip_prefix(&*self.expected);
        if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(',')) {
            return Err(ScramError::Mismatch(self.user));
        }
        let mut client_key = [0; KEY_BYTES];
        let decoded = Base64::decode(proof, &mut client_key).map(<[u8]>::len);
        if decoded != Ok(KEY_BYTES) {
            return Err(ScramError::Malformed("proof"));
        }
        let message = [self.said.as_bytes(), without_proof.as_bytes()];
        let signature = hmac(&self.stored_key, &message);
        client_key.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        let is_right = bool::from(Sha256::digest(client_key).ct_eq(&self.stored_key[..]));
        if !self.exists {
            return Err(ScramError::UnknownUser(self.user));
        }
        if !is_right {
            return Err(ScramError::WrongPassword(self.user));
        }
        let signature = hmac(&self.server_key, &message);
        let server_final = format!("v={}", Base64::encode_string(&signature));
        Ok(Proven { user: self.user, server_final })
    }
}

/// What is kept of a password; `None` if SASLprep forbids it or nothing is left of it.
pub fn verifier(password: &str, salt: &[u8], iterations: u32) -> Option<Verifier> {
    let password = stringprep::saslprep(password).ok().filter(|prepared| !prepared.is_empty())?;
    let salted: [u8; KEY_BYTES] =
        pbkdf2_hmac_array::<Sha256, KEY_BYTES>(password.as_bytes(), salt, iterations);
    let client_key = hmac(&salted, &[b"Client Key"]);
    Some(Verifier {
        iterations,
        salt: salt.into(),
        stored_key: Sha256::digest(client_key).into(),
        server_key: hmac(&salted, &[b"Server Key"]),
    })
}

/// Shows no key.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({:?})", self.user)
    }
}

/// The client's first message, taken apart.
struct ClientFirst<'a> {
    gs2_header: &'a str,
    bare: &'a str,
    user: String,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    fn parse(message: &'a str) -> Result<Self, ScramError> {
        let malformed = |what| move || ScramError::Malformed(what);
        let mut parts = message.splitn(3, ',');
        let binding = parts.next().unwrap_or_default();
        if binding.starts_with("p=") {
            return Err(ScramError::Unsupported("channel binding"));
        }
        if !matches!(binding, "n" | "y") {
            return Err(ScramError::Malformed("channel binding flag"));
        }
        let identity = parts.next().ok_or_else(malformed("no authorization identity"))?;
        let bare = parts.next().ok_or_else(malformed("no user name"))?;
        if bare.starts_with("m=") {
            return Err(ScramError::Unsupported("an extension"));
        }
        let gs2_header = &message[..message.len() - bare.len()];
        let mut parts = bare.split(',');
        let user = parts.next().and_then(|part| part.strip_prefix("n="));
        let user = user_name(user.ok_or_else(malformed("no user name"))?)?;
        let nonce = parts.next().and_then(|part| part.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| !nonce.is_empty() && nonce.bytes().all(is_printable));
        let nonce = nonce.ok_or_else(malformed("nonce"))?;
        match identity.strip_prefix("a=") {
            None if identity.is_empty() => {}
            Some(other) if user_name(other)? == user => {}
            Some(_) => return Err(ScramError::Unsupported("another user's identity")),
            None => return Err(ScramError::Malformed("authorization identity")),
        }
        Ok(Self { gs2_header, bare, user, nonce })
    }
}

/// A `saslname`: a comma stands as `=2C`, an equals sign as `=3D`.
fn user_name(name: &str) -> Result<String, ScramError> {
    let mut pieces = name.split('=');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (character, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::Malformed("equals sign in the user name")),
        };
        decoded.push(character);
        decoded.push_str(rest);
    }
    let prepared = prepare_user_name(&decoded).map_err(|_| ScramError::Malformed("user name"))?;
    Ok(prepared.into_owned())
}

/// A value that nobody can foresee who does not know the secret.
fn derive(secret: &[u8; KEY_BYTES], purpose: &[u8], about: &[u8]) -> [u8; KEY_BYTES] {
    hmac(secret, &[purpose, &[0], about])
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > SCRAM_MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed("too long"));
    }
    str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))
}

/// Of a nonce, in which commas cannot stand as they end it.
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

fn hmac(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut mac =
        <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// How often `ringmq passwd` has a password hashed. The client does this at each
/// connection: some 10 ms of a server's core, but a second or more on a
/// microcontroller, which has to be done within `limits.connect_timeout_secs`.
pub const ITERATIONS: u32 = 16_384;

/// Bytes of random salt that `ringmq passwd` has a password hashed with.
pub const SALT_BYTES: usize = 16;

/// Bytes of a server's nonce, before base64.
const NONCE_BYTES: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677 section 3.
    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn server() -> Server {
        Server::new([7; KEY_BYTES], ShardId(0), &credentials())
    }

    /// The user of RFC 7677, and one whose name has to be escaped.
    fn credentials() -> Credentials {
        let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = verifier("pencil", &salt, 4096).unwrap();
        Credentials::parse(&format!("user:{verifier}\na,b=c:{verifier}\n")).unwrap()
    }

    fn begin(client_first: &str) -> Result<(Exchange, String), ScramError> {
        server().begin_with(&credentials(), client_first.as_bytes(), SERVER_NONCE)
    }

    fn exchange() -> Exchange {
        begin(&format!("n,,n=user,r={CLIENT_NONCE}")).unwrap().0
    }

    #[test]
    fn the_exchange_of_rfc_7677() {
        let (exchange, server_first) = begin(&format!("n,,n=user,r={CLIENT_NONCE}")).unwrap();
        let expected = format!("r={CLIENT_NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        assert_eq!(server_first, expected);
        let last = format!("c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p={PROOF}");
        let proven = exchange.finish(last.as_bytes()).unwrap();
        assert_eq!(&*proven.user, "user");
        assert_eq!(proven.server_final, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn headers_names_and_extensions_that_are_understood() {
        for (message, user) in [
            ("y,,n=user,r=x", "user"),
            ("n,a=user,n=user,r=x", "user"),
            ("n,,n=user,r=x,e=ignored", "user"),
            ("n,,n=a=2Cb=3Dc,r=x", "a,b=c"),
            ("n,,n=u\u{ad}ser,r=x", "user"),
            ("n,,n=nobody,r=x", "nobody"),
        ] {
            let (exchange, _) = begin(message).unwrap();
            assert_eq!(&*exchange.user, user, "{message}");
            assert_eq!(exchange.exists, user != "nobody", "{message}");
        }
    }

    #[test]
    fn malformed_first_messages_are_refused() {
        for message in [
            "",
            ",",
            ",,",
            "n",
            "n,",
            "n,,",
            "x,,n=user,r=x",
            "nn,,n=user,r=x",
            "p=tls-unique,,n=user,r=x",
            "n,a=other,n=user,r=x",
            "n,user,n=user,r=x",
            "n,a=,n=user,r=x",
            "n,,m=ext,n=user,r=x",
            "n,,user,r=x",
            "n,,n=,r=x",
            "n,,n=user",
            "n,,n=user,",
            "n,,n=user,r=",
            "n,,n=user,r=a b",
            "n,,n=user,r=\u{e9}",
            "n,,n=us=er,r=x",
            "n,,n=us=2",
            "n,,n=us=2c,r=x",
            "n,,n=us\u{0}er,r=x",
            "n,,r=x,n=user",
        ] {
            let refused = begin(message);
            let expected =
                matches!(refused, Err(ScramError::Malformed(_) | ScramError::Unsupported(_)));
            assert!(expected, "{message:?}: {refused:?}");
        }
        let long = format!("n,,n=user,r={}", "x".repeat(SCRAM_MESSAGE_BYTES_MAX));
        assert_eq!(begin(&long).unwrap_err(), ScramError::Malformed("too long"));
        let refused = server().begin(&credentials(), b"n,,n=user,r=\xff");
        assert_eq!(refused.unwrap_err(), ScramError::Malformed("not UTF-8"));
    }

    #[test]
    fn last_messages_have_to_fit() {
        let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
        let mismatch = ScramError::Mismatch("user".into());
        let wrong = ScramError::WrongPassword("user".into());
        let other_proof = Base64::encode_string(&[9; KEY_BYTES]);
        for (message, expected) in [
            (String::new(), ScramError::Malformed("no proof")),
            (format!("c=biws,r={nonce}"), ScramError::Malformed("no proof")),
            (format!("p={PROOF}"), ScramError::Malformed("no proof")),
            (format!("c=biws,r={CLIENT_NONCE},p={PROOF}"), mismatch.clone()),
            (format!("c=biws,r={nonce}x,p={PROOF}"), mismatch.clone()),
            (format!("c=eSws,r={nonce},p={PROOF}"), mismatch.clone()),
            (format!("r={nonce},c=biws,p={PROOF}"), mismatch.clone()),
            (format!(",p={PROOF}"), mismatch),
            (format!("c=biws,r={nonce},p="), ScramError::Malformed("proof")),
            (format!("c=biws,r={nonce},p={PROOF}="), ScramError::Malformed("proof")),
            (format!("c=biws,r={nonce},p={PROOF}{PROOF}"), ScramError::Malformed("proof")),
            (format!("c=biws,r={nonce},p=AAAA"), ScramError::Malformed("proof")),
            (format!("c=biws,r={nonce},p={other_proof}"), wrong.clone()),
            (format!("c=biws,r={nonce},e=more,p={PROOF}"), wrong),
        ] {
            assert_eq!(exchange().finish(message.as_bytes()), Err(expected), "{message}");
        }
        assert!(exchange().finish(b"\xff,p=").is_err());
    }

    /// Whatever is cut off, doubled or damaged in the right messages.
    #[test]
    fn damaged_messages_neither_panic_nor_prove_anything() {
        let last = format!("c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p={PROOF}").into_bytes();
        let first = format!("n,,n=user,r={CLIENT_NONCE}").into_bytes();
        for at in 0..last.len() {
            for byte in [0, b',', b'=', b'A', 0x80, 0xff] {
                let mut message = last.clone();
                message[at] = byte;
                assert!(message == last || exchange().finish(&message).is_err(), "{at} {byte}");
                message.truncate(at);
                assert!(exchange().finish(&message).is_err(), "{at} {byte}");
            }
        }
        for at in 0..first.len() {
            for byte in [0, b',', b'=', b'A', 0x80, 0xff] {
                let mut message = first.clone();
                message[at] = byte;
                let _ = server().begin(&credentials(), &message);
                let _ = server().begin(&credentials(), &message[..at]);
            }
        }
    }

    #[test]
    fn a_user_that_does_not_exist_looks_like_one_who_does() {
        let (exchange, first) = begin("n,,n=nobody,r=x").unwrap();
        let (_, again) = begin("n,,n=nobody,r=x").unwrap();
        let (_, other) = begin("n,,n=noone,r=x").unwrap();
        let (_, real) = begin("n,,n=user,r=x").unwrap();
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(first.len(), real.len());
        assert!(first.ends_with(",i=4096"));
        let last = format!("c=biws,r=x{SERVER_NONCE},p={PROOF}");
        let unknown = ScramError::UnknownUser("nobody".into());
        assert_eq!(exchange.finish(last.as_bytes()), Err(unknown));
    }

    /// As the users in the file do: otherwise a restart would tell them apart.
    #[test]
    fn a_user_that_does_not_exist_survives_a_restart() {
        let users = credentials();
        let [(_, before), (_, after)] = [[7; KEY_BYTES], [8; KEY_BYTES]].map(|secret| {
            let mut server = Server::new(secret, ShardId(0), &users);
            server.begin(&users, b"n,,n=nobody,r=x").unwrap()
        });
        let salt = |first: &str| first.split_once(",s=").unwrap().1.to_owned();
        assert_eq!(salt(&before), salt(&after));
        assert_ne!(before, after, "the nonce");
    }

    #[test]
    fn no_nonce_comes_twice() {
        let mut nonces = Vec::new();
        for shard in 0..3 {
            let mut server = Server::new([7; KEY_BYTES], ShardId(shard), &credentials());
            for _ in 0..10 {
                let (_, first) = server.begin(&credentials(), b"n,,n=user,r=x").unwrap();
                nonces.push(first.split_once(",s=").unwrap().0.to_owned());
            }
        }
        assert!(nonces.iter().all(|nonce| nonce.len() == "r=x".len() + NONCE_BYTES / 3 * 4));
        nonces.sort_unstable();
        nonces.dedup();
        assert_eq!(nonces.len(), 30);
    }

    #[test]
    fn passwords_that_look_the_same_are_the_same() {
        let keys = |password| verifier(password, b"salt", 1);
        assert_eq!(keys("\u{2168}"), keys("IX"));
        assert_ne!(keys("ix"), keys("IX"));
        assert_eq!((keys(""), keys("\u{ad}"), keys("a\u{7}")), (None, None, None));
    }
}
