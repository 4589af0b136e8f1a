//! A JSON Web Key Set (RFC 7517): the keys that tokens are signed with.
//!
//! Reads the keys that this broker can check signatures with and leaves out the others, as the RFC asks for.
//! Knows no token.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::Value;
use thiserror::Error;

use crate::base::limits::TOKEN_KEYS_MAX;

/// The keys that tokens may be signed with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<TokenKey>);

/// One key.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// `kid`.
    pub id: Option<Box<str>>,
    /// `alg`, if the key is for this alone.
    pub algorithm: Option<Box<str>>,
    /// The key itself.
    pub material: KeyMaterial,
}

/// A key by what can be done with it.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// HS256, HS384, HS512.
    Secret(Box<[u8]>),
    /// RS256, RS384, RS512, PS256, PS384, PS512: modulus and exponent, big-endian.
    Rsa {
        /// Modulus, 2048 to 8192 bits.
        n: Box<[u8]>,
        /// Exponent.
        e: Box<[u8]>,
    },
    /// ES256: the uncompressed point.
    P256(Box<[u8]>),
    /// ES384: the uncompressed point.
    P384(Box<[u8]>),
    /// EdDSA.
    Ed25519(Box<[u8]>),
}

/// Why a text is no key set.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum KeySetError {
    /// Another kind of file.
    #[error("must be a JSON Web Key Set: {{\"keys\": [...]}}")]
    Form,
    /// A bound.
    #[error("has {0} keys, but at most {TOKEN_KEYS_MAX} are allowed")]
    TooMany(usize),
    /// Only keys of other kinds.
    #[error(
        "has no key that can check a signature (kty oct, RSA, EC with P-256 or P-384, OKP with Ed25519)"
    )]
    NoKey,
    /// A key that lacks something.
    #[error("key {number}: {why}")]
    Key {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl KeySet {
    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        let set: Value = serde_json::from_str(text).map_err(|_| KeySetError::Form)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::Form)?;
        if keys.len() > TOKEN_KEYS_MAX {
            return Err(KeySetError::TooMany(keys.len()));
        }
        let mut found = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let key = TokenKey::parse(key);
            found.extend(key.map_err(|why| KeySetError::Key { number: index + 1, why })?);
        }
        if found.is_empty() { Err(KeySetError::NoKey) } else { Ok(Self(found)) }
    }

    /// Adds a secret that tokens are signed with.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn add_secret(&mut self, secret: &str) -> Result<(), String> {
        let material = secret_key(secret.as_bytes().into())?;
        self.0.push(TokenKey { id: None, algorithm: None, material });
        Ok(())
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether no token can be checked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All keys, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &TokenKey> {
        self.0.iter()
    }
}

impl TokenKey {
    /// `None` for keys of other kinds and for other uses.
    fn parse(key: &Value) -> Result<Option<Self>, &'static str> {
        let text = |name| key.get(name).and_then(Value::as_str);
        let bytes = |name| {
            let decoded = Base64UrlUnpadded::decode_vec(text(name).unwrap_or_default()).ok();
            decoded.filter(|bytes| !bytes.is_empty()).map(Vec::into_boxed_slice)
        };
        if text("use").is_some_and(|found| found != "sig") {
            return Ok(None);
        }
        let point = |size| {
            let (x, y) = (bytes("x"), bytes("y"));
            let (x, y) = x.zip(y).ok_or("x and y must be in base64url")?;
            let is_whole = x.len() == size && y.len() == size;
            let point = [&[UNCOMPRESSED][..], &x, &y].concat().into_boxed_slice();
            if is_whole { Ok(point) } else { Err("x and y have the wrong size for their curve") }
        };
        let material = match (text("kty"), text("crv")) {
            (Some("oct"), _) => secret_key(bytes("k").ok_or("k must be in base64url")?)?,
            (Some("RSA"), _) => {
                let (n, e) = bytes("n").zip(bytes("e")).ok_or("n and e must be in base64url")?;
                if !RSA_BYTES.contains(&n.len()) {
                    return Err("an RSA key must have 2048 to 8192 bits");
                }
                KeyMaterial::Rsa { n, e }
            }
            (Some("EC"), Some("P-256")) => KeyMaterial::P256(point(32)?),
            (Some("EC"), Some("P-384")) => KeyMaterial::P384(point(48)?),
            (Some("OKP"), Some("Ed25519")) => {
                let x = bytes("x").filter(|x| x.len() == 32);
                KeyMaterial::Ed25519(x.ok_or("x must be 32 bytes in base64url")?)
            }
            (Some(_), _) => return Ok(None),
            (None, _) => return Err("has no kty"),
        };
        let [id, algorithm] = ["kid", "alg"].map(|name| text(name).map(Into::into));
        Ok(Some(Self { id, algorithm, material }))
    }
}

/// RFC 7518 section 3.2: at least as long as the hash.
fn secret_key(secret: Box<[u8]>) -> Result<KeyMaterial, &'static str> {
    match secret.len() {
        SECRET_BYTES_MIN.. => Ok(KeyMaterial::Secret(secret)),
        _ => Err("a secret must have at least 32 bytes, or it can be guessed from any token"),
    }
}

/// Shows no secret.
impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.material {
            KeyMaterial::Secret(_) => "secret",
            KeyMaterial::Rsa { .. } => "RSA",
            KeyMaterial::P256(_) => "P-256",
            KeyMaterial::P384(_) => "P-384",
            KeyMaterial::Ed25519(_) => "Ed25519",
        };
        write!(f, "TokenKey({kind} {:?})", self.id)
    }
}

/// What an uncompressed point of a curve begins with.
const UNCOMPRESSED: u8 = 4;

const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

const SECRET_BYTES_MIN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_kinds_are_left_out() {
        let b64 = |size: usize| Base64UrlUnpadded::encode_string(&vec![7; size]);
        let set = format!(
            r#"{{"keys": [
                {{"kty": "oct", "k": "{0}", "kid": "a", "alg": "HS256"}},
                {{"kty": "RSA", "n": "{1}", "e": "AQAB", "use": "enc"}},
                {{"kty": "RSA", "n": "{1}", "e": "AQAB", "use": "sig"}},
                {{"kty": "EC", "crv": "secp256k1", "x": "{0}", "y": "{0}"}},
                {{"kty": "EC", "crv": "P-256", "x": "{0}", "y": "{0}"}},
                {{"kty": "OKP", "crv": "X25519", "x": "{0}"}},
                {{"kty": "OKP", "crv": "Ed25519", "x": "{0}", "more": 1}},
                {{"kty": "new"}}
            ]}}"#,
            b64(32),
            b64(256)
        );
        let shown = "KeySet([TokenKey(secret Some(\"a\")), TokenKey(RSA None), TokenKey(P-256 None), TokenKey(Ed25519 None)])";
        assert_eq!(format!("{:?}", KeySet::parse(&set).unwrap()), shown);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        let key = |why| KeySetError::Key { number: 1, why };
        for (text, expected) in [
            ("", KeySetError::Form),
            ("[]", KeySetError::Form),
            (r#"{"keys": {}}"#, KeySetError::Form),
            (r#"{"keys": []}"#, KeySetError::NoKey),
            (r#"{"keys": [{"kty": "new"}]}"#, KeySetError::NoKey),
            (r#"{"keys": [1]}"#, key("has no kty")),
            (r#"{"keys": [{"kty": "oct"}]}"#, key("k must be in base64url")),
            (
                r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#,
                key("a secret must have at least 32 bytes, or it can be guessed from any token"),
            ),
            (
                r#"{"keys": [{"kty": "RSA", "n": "AAAA", "e": "AQAB"}]}"#,
                key("an RSA key must have 2048 to 8192 bits"),
            ),
            (
                r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}]}"#,
                key("x and y have the wrong size for their curve"),
            ),
            (
                r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "*"}]}"#,
                key("x must be 32 bytes in base64url"),
            ),
        ] {
            assert_eq!(KeySet::parse(text).unwrap_err(), expected, "{text}");
        }
        let many = format!(r#"{{"keys": [{}1]}}"#, "1,".repeat(TOKEN_KEYS_MAX));
        assert_eq!(KeySet::parse(&many).unwrap_err(), KeySetError::TooMany(TOKEN_KEYS_MAX + 1));
    }
}
