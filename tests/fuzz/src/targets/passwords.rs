//! Password files, and SCRAM messages by their users: what is accepted is written again as it was read,
//! what is not is told with its line, and nobody proves anything without the right proof.

use ringmq::{
    auth::scram::{ScramError, Server},
    base::ShardId,
    config::{Credentials, PasswordHash, user_of_line},
};

use crate::scram;

/// Parts with a NUL between them: a file, then the first and last messages of exchanges in turn.
pub(crate) fn run(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let Ok(file) = str::from_utf8(parts.next().unwrap_or_default()) else { return };
    check_file(file);
    let credentials = scram::credentials();
    let mut server = Server::new(SECRET, ShardId(0), &credentials);
    while let Some(first) = parts.next() {
        let Ok((exchange, answer)) = server.begin(&credentials, first) else { continue };
        assert!(answer.starts_with("r=") && answer.ends_with(",i=4096"), "{answer:?}");
        let last = parts.next().unwrap_or_default();
        let right = scram::last(answer.as_bytes()).expect("an answer to the first message");
        match exchange.finish(last) {
            Ok(proven) => {
                assert_eq!((first, last, &*proven.user), (scram::FIRST, &right[..], "user"));
                assert!(proven.server_final.starts_with("v="));
            }
            Err(error) => {
                assert!(first != scram::FIRST || last != right, "{error}");
                assert_ne!(error, ScramError::UnknownUser("user".into()));
            }
        }
    }
}

fn check_file(file: &str) {
    let lines = || file.lines().enumerate().map(|(index, line)| (index + 1, line));
    match Credentials::parse(file) {
        Ok(credentials) => {
            let users: Vec<_> = lines().filter_map(|(_, line)| user_of_line(line)).collect();
            assert_eq!(credentials.is_empty(), users.is_empty());
            let mut written = String::new();
            for user in users {
                let hash = credentials.hash(user).expect("the user of a line");
                let scram = credentials.get(user);
                written += &match scram.filter(|_| !matches!(hash, PasswordHash::Scram(_))) {
                    Some(verifier) => format!("{user}:{hash} {verifier}\n"),
                    None => format!("{user}:{hash}\n"),
                };
                assert!(scram.is_none() || credentials.neighbour(user) == scram);
                assert_eq!(credentials.decoy(user), Some(hash));
            }
            assert_eq!(Credentials::parse(&written), Ok(credentials), "{file:?} as {written:?}");
        }
        Err(errors) => {
            assert!((1..=ERRORS_MAX).contains(&errors.len()));
            assert!(errors.is_sorted_by(|(line, _), (next, _)| line < next));
            for (number, error) in errors {
                let (_, line) = lines().nth(number - 1).expect("one of the lines");
                assert!(!line.trim().is_empty() && !line.trim().starts_with('#'));
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

/// Of all nonces.
const SECRET: [u8; 32] = [7; 32];
/// Wrong lines that are told at a time.
const ERRORS_MAX: usize = 10;
