//! Passwords against the hashes of a password file, and the hash that `ringmq passwd` makes.
//!
//! Takes time and memory on purpose: for threads that serve no client.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use pbkdf2::pbkdf2_hmac_array;
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

use super::scram;
use crate::config::{Argon2Cost, PasswordHash, SHA512_BYTES};

/// Checks one password at a time in memory of its own, so that there is no more of it than there are of these.
#[derive(Default)]
pub struct Checker {
    blocks: Vec<Block>,
}

impl Checker {
    /// Whether the hash is that of the password. Takes the same time for any password of one length.
    pub fn is_right(&mut self, hash: &PasswordHash, password: &[u8]) -> bool {
        match hash {
            PasswordHash::Argon2id { cost, salt, hash } => {
                let mut computed = vec![0; hash.len()];
                self.argon2id(*cost, password, salt, &mut computed) && computed.ct_eq(hash).into()
            }
            PasswordHash::Pbkdf2Sha512 { iterations, salt, hash } => {
                let computed =
                    pbkdf2_hmac_array::<Sha512, SHA512_BYTES>(password, salt, *iterations);
                computed.ct_eq(&hash[..]).into()
            }
            PasswordHash::Sha512 { salt, hash } => {
                let computed = Sha512::new().chain_update(password).chain_update(salt).finalize();
                computed.ct_eq(&hash[..]).into()
            }
            PasswordHash::Scram(verifier) => {
                let computed = str::from_utf8(password).ok();
                let computed = computed.and_then(|password| {
                    scram::verifier(password, &verifier.salt, verifier.iterations)
                });
                // Some key is made for a password that can be nobody's, too.
                let stored_key = computed.map_or([0; _], |computed| computed.stored_key);
                stored_key.ct_eq(&verifier.stored_key).into()
            }
        }
    }

    /// The hash of a new password at the usual cost.
    pub fn hash(&mut self, password: &[u8], salt: [u8; SALT_BYTES]) -> PasswordHash {
        let mut hash = [0; HASH_BYTES];
        let is_done = self.argon2id(COST, password, &salt, &mut hash);
        assert!(is_done, "the cost of new hashes is within all bounds");
        PasswordHash::Argon2id { cost: COST, salt: salt.into(), hash: hash.into() }
    }

    /// False if Argon2 does not take such a cost, salt or password.
    fn argon2id(&mut self, cost: Argon2Cost, password: &[u8], salt: &[u8], out: &mut [u8]) -> bool {
        let Argon2Cost { kib, passes, lanes } = cost;
        let Ok(params) = Params::new(kib, passes, lanes, Some(out.len())) else { return false };
        let blocks = params.block_count();
        // What an unusually large one took is given back with the next.
        if self.blocks.len() > blocks.max(COST.kib as usize) {
            self.blocks = Vec::new();
        }
        if self.blocks.len() < blocks {
            self.blocks.resize(blocks, Block::default());
        }
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password, salt, out, &mut self.blocks[..blocks])
            .is_ok()
    }
}

/// What a new hash costs: what OWASP's Password Storage Cheat Sheet asks for at least.
const COST: Argon2Cost = Argon2Cost { kib: 19 * 1024, passes: 2, lanes: 1 };

/// Bytes of random salt of a new hash.
pub const SALT_BYTES: usize = 16;

const HASH_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the password `pencil`, made by Debian's mosquitto_passwd and by OpenSSL.
    #[test]
    fn hashes_of_other_tools_are_checked() {
        for text in HASHES {
            let hash: PasswordHash = text.parse().unwrap();
            let mut checker = Checker::default();
            assert!(checker.is_right(&hash, b"pencil"), "{text}");
            for wrong in [&b""[..], b"Pencil", b"pencil ", b"\xff", &[0; 2000]] {
                assert!(!checker.is_right(&hash, wrong), "{text} {wrong:?}");
            }
        }
    }

    const HASHES: [&str; 3] = [
        "$6$ntyAD+TF+sIQTD3d$kF9FaVbsrD7KMdTOAVbq+86HnIyXPhsOOb/BSiFR3FAfCGOQJ62hmdkisFlMJJBSxvNMgvx4VzZ7apgDdSHrjg==",
        "$7$101$gopqW4ItTbtGdPg2$BTlUFKlX4st75tK8EbvODyOp6JHd+DsyNXzQTK4kpyGpmdB2G0/buqrLdjLN74yd1q2BXyh9UMofp6kt3GxxqA==",
        "$argon2id$v=19$m=4096,t=3,p=4$c2l4dGVlbiBieXRlcy4uLg$KqR52Nmi5rl4/IuvZ8+f+km8b8ZHUdk/pigG/1GR62c",
    ];

    #[test]
    fn keys_for_scram_check_a_password() {
        let verifier = scram::verifier("pencil", b"salt", 4096).unwrap();
        let hash = PasswordHash::Scram(Box::new(verifier));
        assert!(Checker::default().is_right(&hash, b"pencil"));
        for wrong in [&b""[..], b"pencils", b"\xff", b"\x01"] {
            assert!(!Checker::default().is_right(&hash, wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_new_hash_is_of_its_password_and_memory_is_given_back() {
        let mut checker = Checker::default();
        let new = checker.hash(b"pencil", [7; SALT_BYTES]);
        assert!(new.to_string().starts_with("$argon2id$v=19$m=19456,t=2,p=1$BwcH"));
        let large = "$argon2id$v=19$m=65536,t=1,p=2$c2FsdHNhbHQ$AAECAwQFBgcICQoLDA0ODw";
        assert!(!checker.is_right(&large.parse().unwrap(), b"pencil"));
        assert_eq!(checker.blocks.len(), 65_536);
        assert!(checker.is_right(&new, b"pencil") && !checker.is_right(&new, b"pencils"));
        assert_eq!(checker.blocks.len(), 19_456);
    }
}
