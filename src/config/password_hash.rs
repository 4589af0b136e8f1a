//! Hashes of passwords as they stand in a password file: Argon2id, and the two kinds that mosquitto_passwd
//! writes.
//!
//! Owns their forms and the bounds on what checking one may cost, so that no file makes the broker take
//! gigabytes or minutes. Knows not how a password is hashed.

use std::{fmt, str::FromStr};

use base64ct::{Base64, Base64Unpadded, Encoding};
use thiserror::Error;

use super::passwords::Verifier;
use crate::base::limits::{
    ARGON2_KIB_MAX, ARGON2_LANES_MAX, ARGON2_PASSES_MAX, PBKDF2_ITERATIONS_MAX,
    SCRAM_SALT_BYTES_MAX,
};

/// What checks a password.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// Argon2id, version 1.3 (RFC 9106).
    Argon2id {
        /// What it costs.
        cost: Argon2Cost,
        /// What it was hashed with: at least 8 bytes.
        salt: Box<[u8]>,
        /// The hash: 16 to 64 bytes.
        hash: Box<[u8]>,
    },
    /// mosquitto's `$7$`: PBKDF2 with HMAC-SHA-512.
    Pbkdf2Sha512 {
        /// How often it was hashed.
        iterations: u32,
        /// What it was hashed with.
        salt: Box<[u8]>,
        /// The hash.
        hash: Box<[u8; SHA512_BYTES]>,
    },
    /// mosquitto's `$6$`: SHA-512 of the password and the salt behind it.
    Sha512 {
        /// What it was hashed with.
        salt: Box<[u8]>,
        /// The hash.
        hash: Box<[u8; SHA512_BYTES]>,
    },
    /// The keys of SCRAM-SHA-256 alone, which can check a password as well.
    Scram(Box<Verifier>),
}

/// What an Argon2 hash costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Argon2Cost {
    /// Memory, in KiB.
    pub kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Degree of parallelism.
    pub lanes: u32,
}

/// What is wrong with the text of a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HashError {
    /// None of the known kinds.
    #[error(
        "what follows must be of a kind that begins with $argon2id$, SCRAM-SHA-256$, $7$ or $6$"
    )]
    Kind,
    /// Parts are missing, or one too many.
    #[error(
        "a hash of the kind $argon2id$ must have the form $argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH"
    )]
    Argon2Form,
    /// Not a number, 0, or more than a broker can be asked to do for strangers.
    #[error(
        "a hash of the kind $argon2id$ must cost m=8 to {ARGON2_KIB_MAX} (KiB, and at least 8 for each lane), t=1 to \
         {ARGON2_PASSES_MAX} and p=1 to {ARGON2_LANES_MAX}"
    )]
    Argon2Cost,
    /// The base64 in it.
    #[error(
        "a hash of the kind $argon2id$ must have 8 to {SCRAM_SALT_BYTES_MAX} bytes of salt and 16 to 64 of hash, both \
         in base64 without padding"
    )]
    Argon2Bytes,
    /// Parts are missing, or one too many.
    #[error("a hash of mosquitto's must have the form $7$ITERATIONS$SALT$HASH or $6$SALT$HASH")]
    MosquittoForm,
    /// The base64 in it.
    #[error(
        "a hash of mosquitto's must have 1 to {SCRAM_SALT_BYTES_MAX} bytes of salt and {SHA512_BYTES} of hash, both \
         in base64"
    )]
    MosquittoBytes,
    /// Not a number, 0, or more than a broker can be asked to do for strangers.
    #[error("a hash of the kind $7$ must have 1 to {PBKDF2_ITERATIONS_MAX} iterations")]
    Iterations,
}

impl PasswordHash {
    pub(super) fn of_scram(verifier: &Verifier) -> Self {
        Self::Scram(Box::new(verifier.clone()))
    }
}

impl FromStr for PasswordHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        if let Some(rest) = text.strip_prefix(ARGON2ID) {
            return parse_argon2id(rest);
        }
        let parts: Vec<_> = text.split('$').collect();
        let (iterations, salt, hash) = match parts[..] {
            ["", "6", salt, hash] => (None, salt, hash),
            ["", "7", iterations, salt, hash] => (Some(iterations), salt, hash),
            ["", "6" | "7", ..] => return Err(HashError::MosquittoForm),
            _ => return Err(HashError::Kind),
        };
        let bytes = |text: &str| Base64::decode_vec(text).map_err(|_| HashError::MosquittoBytes);
        let salt: Box<[u8]> = bytes(salt)?.into();
        let hash = bytes(hash)?.into_boxed_slice();
        let hash = hash.try_into().map_err(|_| HashError::MosquittoBytes)?;
        if !(1..=SCRAM_SALT_BYTES_MAX).contains(&salt.len()) {
            return Err(HashError::MosquittoBytes);
        }
        let Some(iterations) = iterations else { return Ok(Self::Sha512 { salt, hash }) };
        let iterations = iterations.parse().ok();
        let iterations = iterations.filter(|number| (1..=PBKDF2_ITERATIONS_MAX).contains(number));
        Ok(Self::Pbkdf2Sha512 { iterations: iterations.ok_or(HashError::Iterations)?, salt, hash })
    }
}

/// The PHC form behind the name of the algorithm.
fn parse_argon2id(text: &str) -> Result<PasswordHash, HashError> {
    let parts: Vec<_> = text.split('$').collect();
    let ["v=19", cost, salt, hash] = parts[..] else { return Err(HashError::Argon2Form) };
    let costs: Vec<_> = cost.split(',').collect();
    let [kib, passes, lanes] = costs[..] else { return Err(HashError::Argon2Form) };
    let number = |text: &str, name, max| {
        let number = text.strip_prefix(name).ok_or(HashError::Argon2Form)?.parse().ok();
        number.filter(|number| (1..=max).contains(number)).ok_or(HashError::Argon2Cost)
    };
    let cost = Argon2Cost {
        kib: number(kib, "m=", ARGON2_KIB_MAX)?,
        passes: number(passes, "t=", ARGON2_PASSES_MAX)?,
        lanes: number(lanes, "p=", ARGON2_LANES_MAX)?,
    };
    if cost.kib < 8 * cost.lanes {
        return Err(HashError::Argon2Cost);
    }
    let bytes = |text, sizes: std::ops::RangeInclusive<usize>| {
        let bytes = Base64Unpadded::decode_vec(text).ok();
        bytes.filter(|bytes| sizes.contains(&bytes.len())).ok_or(HashError::Argon2Bytes)
    };
    let salt = bytes(salt, 8..=SCRAM_SALT_BYTES_MAX)?.into();
    Ok(PasswordHash::Argon2id { cost, salt, hash: bytes(hash, 16..=64)?.into() })
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argon2id { cost: Argon2Cost { kib, passes, lanes }, salt, hash } => {
                let [salt, hash] = [salt, hash].map(|bytes| Base64Unpadded::encode_string(bytes));
                write!(f, "{ARGON2ID}v=19$m={kib},t={passes},p={lanes}${salt}${hash}")
            }
            Self::Pbkdf2Sha512 { iterations, salt, hash } => {
                let [salt, hash] = [&salt[..], &hash[..]].map(Base64::encode_string);
                write!(f, "$7${iterations}${salt}${hash}")
            }
            Self::Sha512 { salt, hash } => {
                let [salt, hash] = [&salt[..], &hash[..]].map(Base64::encode_string);
                write!(f, "$6${salt}${hash}")
            }
            Self::Scram(verifier) => verifier.fmt(f),
        }
    }
}

/// Shows the kind alone.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Argon2id { .. } => "Argon2id",
            Self::Pbkdf2Sha512 { .. } => "Pbkdf2Sha512",
            Self::Sha512 { .. } => "Sha512",
            Self::Scram(_) => "Scram",
        })
    }
}

/// Bytes of a SHA-512 hash.
pub const SHA512_BYTES: usize = 64;

const ARGON2ID: &str = "$argon2id$";

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "c2FsdHNhbHRzYWx0";
    const HASH: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    fn mosquitto(prefix: &str) -> String {
        format!("{prefix}{SALT}${}", Base64::encode_string(&[7; 64]))
    }

    #[test]
    fn what_is_read_is_written_again() {
        for text in [
            format!("$argon2id$v=19$m=19456,t=2,p=1${SALT}${HASH}"),
            mosquitto("$7$101$"),
            mosquitto("$6$"),
        ] {
            let hash: PasswordHash = text.parse().unwrap();
            assert_eq!(hash.to_string(), text);
            assert!(!format!("{hash:?}").contains('$'));
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        use HashError::*;
        let argon2 = |cost: &str| format!("$argon2id$v=19${cost}${SALT}${HASH}");
        for (text, expected) in [
            (String::new(), Kind),
            ("plain".to_owned(), Kind),
            ("$5$rounds=5000$salt$hash".to_owned(), Kind),
            ("$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$x".to_owned(), Kind),
            (argon2("m=19456,t=2,p=1").replace("v=19", "v=16"), Argon2Form),
            (argon2("m=19456,t=2,p=1") + "$", Argon2Form),
            (argon2("m=19456,t=2"), Argon2Form),
            (argon2("t=2,m=19456,p=1"), Argon2Form),
            (argon2("m=65537,t=2,p=1"), Argon2Cost),
            (argon2("m=4294967296,t=2,p=1"), Argon2Cost),
            (argon2("m=19456,t=0,p=1"), Argon2Cost),
            (argon2("m=19456,t=2,p=1000"), Argon2Cost),
            (argon2("m=15,t=2,p=2"), Argon2Cost),
            (argon2("m=7,t=1,p=1"), Argon2Cost),
            (argon2("m=19456,t=2,p=1").replace(SALT, "c2FsdA"), Argon2Bytes),
            (argon2("m=19456,t=2,p=1").replace(HASH, "AAEC"), Argon2Bytes),
            (argon2("m=19456,t=2,p=1").replace(HASH, "*"), Argon2Bytes),
            ("$6$".to_owned(), MosquittoForm),
            (mosquitto("$6$101$"), MosquittoForm),
            (mosquitto("$7$"), MosquittoForm),
            (mosquitto("$7$0$"), Iterations),
            (mosquitto("$7$-1$"), Iterations),
            (mosquitto("$7$1000001$"), Iterations),
            (mosquitto("$6$").replace(SALT, ""), MosquittoBytes),
            (mosquitto("$6$").replace(SALT, &"AAAA".repeat(22)), MosquittoBytes),
            (mosquitto("$7$101$") + "AAAA", MosquittoBytes),
        ] {
            assert_eq!(text.parse::<PasswordHash>().unwrap_err(), expected, "{text}");
        }
    }
}
