//! The password file: who may authenticate, and by which keys.
//!
//! One user a line, with a hash of the password, or keys for SCRAM in the form that PostgreSQL keeps them
//! in, or both; see [`Credentials::parse`]. Holds what no password can be read from; knows nothing of how
//! it is made or used.

use std::{
    borrow::Cow, collections::BTreeMap, fmt, fs::File, io, ops::Bound,
    os::unix::fs::PermissionsExt, path::Path, str::FromStr,
};

use base64ct::{Base64, Encoding};
use thiserror::Error;

use super::{
    password_hash::{HashError, PasswordHash},
    text_file::read_text,
};
use crate::base::limits::{PASSWORD_FILE_BYTES_MAX, SCRAM_ITERATIONS_MIN, SCRAM_SALT_BYTES_MAX};

/// The users of a password file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Those who can authenticate with SCRAM-SHA-256.
    scram: BTreeMap<Box<str>, Verifier>,
    /// Those whose password has a hash of its own.
    hashes: BTreeMap<Box<str>, PasswordHash>,
}

/// What is kept of one password (RFC 5802 section 3).
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// How often the password was hashed.
    pub iterations: u32,
    /// What it was hashed with.
    pub salt: Box<[u8]>,
    /// StoredKey: checks what a client proves.
    pub stored_key: [u8; KEY_BYTES],
    /// ServerKey: proves to a client that the server knows it.
    pub server_key: [u8; KEY_BYTES],
}

/// Bytes of a key: those of a SHA-256 hash.
pub const KEY_BYTES: usize = 32;

/// What is wrong with a line of a password file.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LineError {
    /// No colon.
    #[error("must have the form USER:HASH, as `ringmq passwd` and mosquitto_passwd write it")]
    NoUser,
    /// See [`UserNameError`].
    #[error("{0}")]
    UserName(#[from] UserNameError),
    /// The name alone would never match, as clients send the other form.
    #[error("user name {found:?} must be written as {prepared:?}, which clients send (SASLprep)")]
    Unprepared {
        /// As it stands.
        found: String,
        /// As it should.
        prepared: String,
    },
    /// See [`VerifierError`].
    #[error("user {user:?}: {why}")]
    Verifier {
        /// Whose it is.
        user: String,
        /// What is wrong with it.
        why: VerifierError,
    },
    /// See [`HashError`].
    #[error("user {user:?}: {why}")]
    Hash {
        /// Whose it is.
        user: String,
        /// What is wrong with it.
        why: HashError,
    },
    /// Two hashes, or the keys for SCRAM twice.
    #[error("user {user:?} has two hashes of one kind")]
    Double {
        /// Who.
        user: String,
    },
    /// Two lines of one user.
    #[error("user {user:?} has a line already")]
    SameUser {
        /// Who.
        user: String,
    },
}

/// What is wrong with the text of a verifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum VerifierError {
    /// Some other form.
    #[error("what follows must have the form SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY")]
    Form,
    /// Not a number.
    #[error("the iterations must be a whole number from {SCRAM_ITERATIONS_MIN} to {}", u32::MAX)]
    Iterations,
    /// Too easy to guess from (RFC 7677 section 4).
    #[error("{0} iterations are too few, at least {SCRAM_ITERATIONS_MIN} are needed")]
    TooFewIterations(u32),
    /// Not base64, empty or too long.
    #[error("the salt must be 1 to {SCRAM_SALT_BYTES_MAX} bytes in base64")]
    Salt,
    /// Not base64 of a SHA-256 hash.
    #[error("StoredKey and ServerKey must be {KEY_BYTES} bytes each in base64")]
    Key,
}

/// Why a text is no user name.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum UserNameError {
    /// Nobody's name.
    #[error("the user name is empty")]
    Empty,
    /// The colon ends the name in the file.
    #[error("user name {0:?} holds a colon")]
    Colon(String),
    /// Would be a comment in the file.
    #[error("user name {0:?} begins with #")]
    Comment(String),
    /// Cannot be told from the name without them.
    #[error("user name {0:?} begins or ends with a blank")]
    Blank(String),
    /// Not allowed by SASLprep (RFC 4013).
    #[error("user name {0:?} holds control or other forbidden characters")]
    Forbidden(String),
}

impl Credentials {
    /// Reads the text of a password file. A line is `USER:` with a hash of the password
    /// ([`PasswordHash`]), or the keys for SCRAM, `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY` with
    /// the last three in base64, or both with a blank between; or it is a comment that begins with `#`, or
    /// blank.
    ///
    /// # Errors
    /// The first lines that are wrong, with their numbers.
    pub fn parse(text: &str) -> Result<Self, Vec<(usize, LineError)>> {
        let mut users = Self::default();
        let mut errors = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if let Err(error) = users.add_line(line.trim()) {
                errors.push((index + 1, error));
            }
            if errors.len() == LINE_ERRORS_MAX {
                break;
            }
        }
        if errors.is_empty() { Ok(users) } else { Err(errors) }
    }

    fn add_line(&mut self, line: &str) -> Result<(), LineError> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (user, keys) = line.split_once(':').ok_or(LineError::NoUser)?;
        let (mut hash, mut scram) = (None, None);
        for text in keys.split(' ') {
            let is_double = if text.starts_with(SCHEME) {
                let wrong = |why| LineError::Verifier { user: user.to_owned(), why };
                scram.replace(text.parse().map_err(wrong)?).is_some()
            } else {
                let wrong = |why| LineError::Hash { user: user.to_owned(), why };
                hash.replace(text.parse().map_err(wrong)?).is_some()
            };
            if is_double {
                return Err(LineError::Double { user: user.to_owned() });
            }
        }
        let prepared = prepare_user_name(user);
        // SCRAM compares names in the one form that it has for all that look the same.
        if prepared.as_deref() != Ok(user) && (scram.is_some() || !is_plain_name(user)) {
            let prepared = prepared?.into_owned();
            return Err(LineError::Unprepared { found: user.to_owned(), prepared });
        }
        if self.contains(user) {
            return Err(LineError::SameUser { user: user.to_owned() });
        }
        self.scram.extend(scram.map(|verifier| (user.into(), verifier)));
        self.hashes.extend(hash.map(|hash| (user.into(), hash)));
        Ok(())
    }

    /// Whether nobody can authenticate.
    pub fn is_empty(&self) -> bool {
        self.scram.is_empty() && self.hashes.is_empty()
    }

    /// Whether somebody can authenticate with SCRAM-SHA-256.
    pub fn has_scram(&self) -> bool {
        !self.scram.is_empty()
    }

    /// Whether there is such a user.
    pub fn contains(&self, user: &str) -> bool {
        self.scram.contains_key(user) || self.hashes.contains_key(user)
    }

    /// The keys of a user for SCRAM.
    pub fn get(&self, user: &str) -> Option<&Verifier> {
        self.scram.get(user)
    }

    /// The StoredKeys of all users, in the order of their names.
    pub fn stored_keys(&self) -> impl Iterator<Item = &[u8; KEY_BYTES]> {
        self.scram.values().map(|verifier| &verifier.stored_key)
    }

    /// Whom a user that does not exist shall resemble for SCRAM: the next in the order of
    /// names, always the same for a name. `None` if there is nobody.
    pub fn neighbour(&self, user: &str) -> Option<&Verifier> {
        next(&self.scram, user).or_else(|| next(&self.scram, "")).map(|(_, found)| found)
    }

    /// What checks a user's password.
    pub fn hash(&self, user: &str) -> Option<PasswordHash> {
        let own = self.hashes.get(user).cloned();
        own.or_else(|| self.scram.get(user).map(PasswordHash::of_scram))
    }

    /// What a password for a user that does not exist is checked with, so that it takes as long: the
    /// next user's in the order of names, always the same for a name. `None` if there is nobody.
    pub fn decoy(&self, user: &str) -> Option<PasswordHash> {
        let names = |user| {
            let scram = next(&self.scram, user).map(|(user, _)| user);
            let hash = next(&self.hashes, user).map(|(user, _)| user);
            scram.into_iter().chain(hash).min()
        };
        self.hash(names(user).or_else(|| names(""))?)
    }

    fn names(&self) -> usize {
        let both = self.scram.keys().filter(|user| self.hashes.contains_key(*user)).count();
        self.scram.len() + self.hashes.len() - both
    }
}

/// The first user at or behind a name.
fn next<'a, V>(users: &'a BTreeMap<Box<str>, V>, user: &str) -> Option<(&'a str, &'a V)> {
    let mut behind = users.range::<str, _>((Bound::Included(user), Bound::Unbounded));
    behind.next().map(|(user, found)| (&**user, found))
}

/// Names only how many there are.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} users)", self.names())
    }
}

/// Shows no key.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} iterations)", self.iterations)
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored_key, server_key] =
            [&*self.salt, &self.stored_key, &self.server_key].map(Base64::encode_string);
        write!(f, "{SCHEME}{}:{salt}${stored_key}:{server_key}", self.iterations)
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let parts = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('$'));
        let (hashing, keys) = parts.ok_or(VerifierError::Form)?;
        let (iterations, salt) = hashing.split_once(':').ok_or(VerifierError::Form)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(VerifierError::Form)?;
        let iterations = iterations.parse().map_err(|_| VerifierError::Iterations)?;
        if iterations < SCRAM_ITERATIONS_MIN {
            return Err(VerifierError::TooFewIterations(iterations));
        }
        let salt = Base64::decode_vec(salt).map_err(|_| VerifierError::Salt)?;
        if !(1..=SCRAM_SALT_BYTES_MAX).contains(&salt.len()) {
            return Err(VerifierError::Salt);
        }
        let key = |text: &str| -> Result<[u8; KEY_BYTES], VerifierError> {
            let bytes = Base64::decode_vec(text).map_err(|_| VerifierError::Key)?;
            bytes.try_into().map_err(|_| VerifierError::Key)
        };
        let (stored_key, server_key) = (key(stored_key)?, key(server_key)?);
        Ok(Self { iterations, salt: salt.into(), stored_key, server_key })
    }
}

/// The one form of a user name that stands for all that look the same
/// (SASLprep, RFC 4013).
///
/// # Errors
/// It cannot be the name of a user.
pub fn prepare_user_name(name: &str) -> Result<Cow<'_, str>, UserNameError> {
    let wrong = |error: fn(String) -> UserNameError| Err(error(name.to_owned()));
    let Ok(prepared) = stringprep::saslprep(name) else { return wrong(UserNameError::Forbidden) };
    match &*prepared {
        "" => Err(UserNameError::Empty),
        text if text.contains(':') => wrong(UserNameError::Colon),
        text if text.starts_with('#') => wrong(UserNameError::Comment),
        text if text.trim() != text => wrong(UserNameError::Blank),
        _ => Ok(prepared),
    }
}

/// The user of a line of a password file; `None` for comments and blank lines.
pub fn user_of_line(line: &str) -> Option<&str> {
    let line = line.trim();
    let (user, _) = line.split_once(':').filter(|_| !line.starts_with('#'))?;
    Some(user)
}

/// The text of a password file, and whether everybody on the machine can read it.
///
/// # Errors
/// It cannot be read, is no text, or passes [`PASSWORD_FILE_BYTES_MAX`].
pub fn read_password_file(path: &Path) -> io::Result<(String, bool)> {
    let file = File::open(path)?;
    let is_open_to_all = file.metadata()?.permissions().mode() & READABLE_BY_OTHERS != 0;
    Ok((read_text(file, PASSWORD_FILE_BYTES_MAX)?, is_open_to_all))
}

/// Whether a name can stand in a file as it is, whatever SASLprep makes of it.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.trim() == name && !name.contains(char::is_control)
}

const SCHEME: &str = "SCRAM-SHA-256$";

/// Wrong lines that are told at a time; a file of another kind has one a line.
const LINE_ERRORS_MAX: usize = 10;

const READABLE_BY_OTHERS: u32 = 0o004;

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn line(user: &str) -> String {
        format!("{user}:SCRAM-SHA-256$4096:{SALT}${KEY}:{KEY}")
    }

    fn errors(text: &str) -> Vec<String> {
        let errors = Credentials::parse(text).unwrap_err();
        errors.into_iter().map(|(number, error)| format!("{number}: {error}")).collect()
    }

    #[test]
    fn a_file_has_users_comments_and_blank_lines() {
        let text = format!("# users\n\n  {}  \r\n#old:x\n{}", line("ann"), line("bob ray"));
        let users = Credentials::parse(&text).unwrap();
        let ann = users.get("ann").unwrap();
        assert_eq!((ann.iterations, ann.salt.len(), ann.stored_key[31]), (4096, 16, 31));
        assert_eq!(format!("ann:{ann}"), line("ann"));
        assert!(users.get("bob ray").is_some() && users.get("old").is_none());
        assert_eq!(format!("{users:?} {ann:?}"), "Credentials(2 users) Verifier(4096 iterations)");
        assert!(Credentials::parse("# nobody\n").unwrap().is_empty());
    }

    #[test]
    fn a_neighbour_is_the_next_name() {
        assert_eq!(Credentials::default().neighbour("x"), None);
        let text = format!("{}\n{}", line("b"), line("d").replace("4096", "5000"));
        let users = Credentials::parse(&text).unwrap();
        for (name, iterations) in [("a", 4096), ("c", 5000), ("e", 4096), ("", 4096)] {
            assert_eq!(users.neighbour(name).unwrap().iterations, iterations, "{name}");
        }
    }

    #[test]
    fn hashes_stand_alone_or_beside_the_keys_for_scram() {
        let six = format!("$6${SALT}${}", Base64::encode_string(&[6; 64]));
        let seven = six.replace("$6$", "$7$101$");
        // SASLprep has another form of the last name; a file of mosquitto's need not.
        let text = format!("c:{six}\n{} {seven}\n{}\n\u{2168}:{six}", line("b"), line("d"));
        let users = Credentials::parse(&text).unwrap();
        assert_eq!(format!("{users:?}"), "Credentials(4 users)");
        assert!(users.has_scram() && users.contains("c") && !users.contains("a"));
        assert!(users.get("b").is_some() && users.get("c").is_none());
        let hash = |user| users.hash(user).map(|hash| hash.to_string());
        assert_eq!(hash("b"), Some(seven.clone()));
        assert_eq!(hash("c"), Some(six.clone()));
        assert_eq!(hash("d"), Some(line("d")[2..].to_owned()));
        assert_eq!(hash("\u{2168}"), Some(six.clone()));
        assert_eq!(hash("a"), None);
        // Who does not exist is checked like the next who does.
        let decoy = |user| users.decoy(user).map(|hash| hash.to_string());
        assert_eq!(decoy("a"), Some(seven.clone()));
        assert_eq!(decoy("bb"), Some(six));
        assert_eq!(decoy("cc"), Some(line("d")[2..].to_owned()));
        assert_eq!(decoy("\u{2169}"), Some(seven));
        assert_eq!(Credentials::default().decoy("a"), None);
    }

    #[test]
    fn every_wrong_line_is_told_with_its_number() {
        let form =
            "what follows must have the form SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY";
        let kind = "what follows must be of a kind that begins with $argon2id$, SCRAM-SHA-256$, $7$ or $6$";
        let mosquitto =
            "a hash of mosquitto's must have the form $7$ITERATIONS$SALT$HASH or $6$SALT$HASH";
        let salt = "the salt must be 1 to 64 bytes in base64";
        let key = "StoredKey and ServerKey must be 32 bytes each in base64";
        let iterations = "the iterations must be a whole number from 4096 to 4294967295";
        for (line, expected) in [
            (
                "ann".to_owned(),
                "must have the form USER:HASH, as `ringmq passwd` and mosquitto_passwd write it"
                    .to_owned(),
            ),
            (line(""), "the user name is empty".to_owned()),
            (
                line("a\u{7}"),
                "user name \"a\\u{7}\" holds control or other forbidden characters".to_owned(),
            ),
            (line("a "), "user name \"a \" begins or ends with a blank".to_owned()),
            (
                line("\u{2168}"),
                "user name \"\u{2168}\" must be written as \"IX\", which clients send (SASLprep)"
                    .to_owned(),
            ),
            ("ann:plain".to_owned(), format!("user \"ann\": {kind}")),
            (line("ann").replace("256", "1"), format!("user \"ann\": {kind}")),
            (line("ann").replace(":SCRAM", ": SCRAM"), format!("user \"ann\": {kind}")),
            (line("ann") + " $6$", format!("user \"ann\": {mosquitto}")),
            (
                format!("{0} {1}", line("ann"), &line("ann")[4..]),
                "user \"ann\" has two hashes of one kind".to_owned(),
            ),
            (line("ann").replace("4096:", "4096"), format!("user \"ann\": {form}")),
            (line("ann").replace("=:", "="), format!("user \"ann\": {form}")),
            (line("ann").replace("4096", "many"), format!("user \"ann\": {iterations}")),
            (line("ann").replace("4096", "-1"), format!("user \"ann\": {iterations}")),
            (
                line("ann").replace("4096", "4095"),
                "user \"ann\": 4095 iterations are too few, at least 4096 are needed".to_owned(),
            ),
            (line("ann").replace(SALT, ""), format!("user \"ann\": {salt}")),
            (line("ann").replace(SALT, "W22Z*"), format!("user \"ann\": {salt}")),
            (line("ann").replace(SALT, &"AAAA".repeat(22)), format!("user \"ann\": {salt}")),
            (line("ann").replace(KEY, SALT), format!("user \"ann\": {key}")),
            (line("ann") + "x", format!("user \"ann\": {key}")),
        ] {
            assert_eq!(errors(&format!("\n{line}")), [format!("2: {expected}")]);
        }
        let twice = format!("{}\n{}", line("ann"), line("ann"));
        assert_eq!(errors(&twice), ["2: user \"ann\" has a line already"]);
        assert_eq!(errors(&"x\n".repeat(50)).len(), LINE_ERRORS_MAX);
    }

    #[test]
    fn names_that_the_file_cannot_hold_are_refused() {
        assert_eq!(prepare_user_name("").unwrap_err(), UserNameError::Empty);
        for name in ["a:b", "#a", " a", "a\n", "a\u{0}"] {
            assert!(prepare_user_name(name).is_err(), "{name:?}");
        }
        assert_eq!(prepare_user_name("I\u{ad}X").unwrap(), "IX");
        assert_eq!(prepare_user_name("Jürgen Ö").unwrap(), "Jürgen Ö");
    }
}
