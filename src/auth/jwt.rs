//! JSON Web Tokens (RFC 7519) that clients send as Password: whether one is signed by a key of the
//! configuration, holds now, and what it says about the client.
//!
//! The kind of the key decides which algorithms it may be used with, never the token alone: one that names
//! `none`, or a secret's algorithm for a public key, has no key (RFC 8725 section 3.1). Time is an argument.

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::{hmac, signature};
use serde_json::Value;
use thiserror::Error;

use super::{http::texts, verified::Verified};
use crate::{
    base::limits::TOKEN_BYTES_MAX,
    config::{KeyMaterial, TokenKey, TokenRules},
};

/// Why a token is not taken. For the log: clients are not told.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum TokenError {
    /// Not of the form of RFC 7515 section 7.1.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// No key can have signed it.
    #[error("no key is there for a token with alg {0:?} and its kid")]
    NoKey(String),
    /// No key has.
    #[error("the signature of the token is wrong")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come (`nbf`, `iat`).
    #[error("the token is not valid yet")]
    NotYet,
    /// A claim lacks or is wrong.
    #[error("claim {0:?} of the token {1}")]
    Claim(String, &'static str),
    /// What it says of the client cannot be.
    #[error("of the token, {0}")]
    Unusable(&'static str),
}

/// Whether a Password may be a token: three parts of base64url, of which the first begins as JSON does.
pub fn is_token(password: &[u8]) -> bool {
    let mut parts = password.split(|byte| *byte == b'.');
    let is_base64 = |part: &[u8]| {
        part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // `{"` or `{ ` and the like: four bits of the first character behind the brace stand in the second.
    password.starts_with(b"e") && parts.clone().count() == 3 && parts.all(is_base64)
}

/// Checks a token of a client; the time is that of the day, in seconds since 1970.
///
/// # Errors
/// [`TokenError`].
pub fn verify(
    rules: &TokenRules,
    token: &[u8],
    client: &str,
    now_secs: u64,
) -> Result<Verified, TokenError> {
    let malformed = |what| move || TokenError::Malformed(what);
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed("too long"));
    }
    let token = str::from_utf8(token).map_err(|_| TokenError::Malformed("not text"))?;
    let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed("no signature"))?;
    let (header, claims) = signed.split_once('.').ok_or_else(malformed("no claims"))?;
    let signature = Base64UrlUnpadded::decode_vec(signature);
    let signature = signature.map_err(|_| TokenError::Malformed("signature"))?;
    let header = object(header).ok_or_else(malformed("header"))?;
    if header.get("crit").is_some() {
        return Err(TokenError::Malformed("crit names what is not understood here"));
    }
    let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    let id = header.get("kid").and_then(Value::as_str);
    let fits = |key: &&TokenKey| {
        let has_id = id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        has_id && key.algorithm.as_deref().is_none_or(|only| only == algorithm)
    };
    let mut has_key = false;
    for key in rules.keys.iter().filter(fits) {
        match is_signed(key, algorithm, signed.as_bytes(), &signature) {
            Some(true) => {
                let claims = object(claims).ok_or_else(malformed("claims"))?;
                return read_claims(rules, &claims, client, now_secs);
            }
            Some(false) => has_key = true,
            None => {}
        }
    }
    let shown = algorithm.chars().take(ALGORITHM_CHARS_SHOWN).collect();
    Err(if has_key { TokenError::Signature } else { TokenError::NoKey(shown) })
}

/// Whether the key has signed this; `None` if it is not for this algorithm.
fn is_signed(key: &TokenKey, algorithm: &str, signed: &[u8], signature: &[u8]) -> Option<bool> {
    let public = |algorithm, key: &[u8]| {
        signature::UnparsedPublicKey::new(algorithm, key).verify(signed, signature).is_ok()
    };
    Some(match &key.material {
        KeyMaterial::Secret(secret) => {
            let algorithm = match algorithm {
                "HS256" => hmac::HMAC_SHA256,
                "HS384" => hmac::HMAC_SHA384,
                "HS512" => hmac::HMAC_SHA512,
                _ => return None,
            };
            hmac::verify(&hmac::Key::new(algorithm, secret), signed, signature).is_ok()
        }
        KeyMaterial::Rsa { n, e } => {
            let algorithm = match algorithm {
                "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                _ => return None,
            };
            let key = signature::RsaPublicKeyComponents { n, e };
            key.verify(algorithm, signed, signature).is_ok()
        }
        KeyMaterial::P256(point) if algorithm == "ES256" => public(
            &signature::ECDSA_P256_SHA256_FIXED as &dyn signature::VerificationAlgorithm,
            point,
        ),
        KeyMaterial::P384(point) if algorithm == "ES384" => {
            public(&signature::ECDSA_P384_SHA384_FIXED, point)
        }
        KeyMaterial::Ed25519(key) if matches!(algorithm, "EdDSA" | "Ed25519") => {
            public(&signature::ED25519, key)
        }
        KeyMaterial::P256(_) | KeyMaterial::P384(_) | KeyMaterial::Ed25519(_) => return None,
    })
}

/// Checks the claims of a token that is signed, and reads who the client is.
fn read_claims(
    rules: &TokenRules,
    claims: &Value,
    client: &str,
    now_secs: u64,
) -> Result<Verified, TokenError> {
    let wrong = |name: &str, why| TokenError::Claim(name.to_owned(), why);
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(time) => match time.as_f64() {
            // No fractions, and nothing that is no time: saturates.
            Some(secs) if secs >= 0.0 => Ok(Some(secs as u64)),
            _ => Err(wrong(name, "is no time")),
        },
    };
    let leeway_secs = u64::from(rules.leeway_secs);
    let ends_at = match time("exp")? {
        Some(secs) => Some(secs.saturating_add(leeway_secs)),
        None if rules.requires_exp => return Err(wrong("exp", "is missing")),
        None => None,
    };
    if ends_at.is_some_and(|secs| secs <= now_secs) {
        return Err(TokenError::Expired);
    }
    for name in ["nbf", "iat"] {
        if time(name)?.is_some_and(|secs| secs > now_secs.saturating_add(leeway_secs)) {
            return Err(TokenError::NotYet);
        }
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if rules.issuer.as_deref().is_some_and(|issuer| text("iss") != Some(issuer)) {
        return Err(wrong("iss", "is not the configured issuer"));
    }
    if let Some(audience) = rules.audience.as_deref() {
        let is_ours = match claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(audience)),
            one => one.and_then(Value::as_str) == Some(audience),
        };
        if !is_ours {
            return Err(wrong("aud", "does not have the configured audience"));
        }
    }
    if let Some(name) = rules.client_id_claim.as_deref()
        && text(name) != Some(client)
    {
        return Err(wrong(name, "is not the Client Identifier"));
    }
    let user = text(&rules.user_claim).ok_or_else(|| wrong(&rules.user_claim, "is no text"))?;
    let groups = match claims.get(&*rules.groups_claim) {
        None | Some(Value::Null) => Box::default(),
        Some(Value::String(list)) => list.split_ascii_whitespace().map(Into::into).collect(),
        Some(list) => {
            texts(list).ok_or_else(|| wrong(&rules.groups_claim, "is no list of texts"))?
        }
    };
    let valid_secs = ends_at.map(|secs| secs - now_secs);
    Verified { user: user.into(), groups, valid_secs }.checked().map_err(TokenError::Unusable)
}

/// A part of a token that is a JSON object.
fn object(part: &str) -> Option<Value> {
    let bytes = Base64UrlUnpadded::decode_vec(part).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    value.is_object().then_some(value)
}

/// Enough to recognise the name of an algorithm by.
const ALGORITHM_CHARS_SHOWN: usize = 20;

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
