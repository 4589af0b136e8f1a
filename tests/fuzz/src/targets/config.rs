//! Configuration files, variables and `--set`: no panic, the same result each time, and every error says
//! something. No host name is looked up.

use std::{env, ffi::OsString, fs, os::unix::ffi::OsStringExt, process, thread};

use ringmq::{
    base::limits::{LISTEN_ADDRESSES_MAX, SHARDS_MAX},
    config::{Config, Flag, Listener, Sources},
};

/// Parts with a NUL between them: a file, or behind `$` a variable, behind `=` a `--set`, behind `-` an
/// address.
pub(crate) fn run(bytes: &[u8]) {
    let mut sources = Sources::default();
    let mut file = None;
    for part in bytes.split(|byte| *byte == 0) {
        let text = || String::from_utf8_lossy(&part[1..]).into_owned();
        match part.first() {
            Some(b'$') => sources.environment.push(variable(&part[1..])),
            Some(b'=') => sources.sets.push(text()),
            Some(b'-') => {
                sources.flags.push(Flag { name: "--listen", key: "listen", value: text() });
            }
            _ => file = Some(part),
        }
    }
    if let Some(bytes) = file {
        // A file of this thread's own, written again for each input.
        let name = format!("ringmq-fuzz-{}-{:?}", process::id(), thread::current().id());
        let path = env::temp_dir().join(name);
        fs::write(&path, bytes).expect("room for a file");
        sources.file = Some(path);
    }
    let result = Config::load_offline(&sources);
    let again = Config::load_offline(&sources);
    if let Some(path) = &sources.file {
        _ = fs::remove_file(path);
    }
    assert_eq!(format!("{result:?}"), format!("{again:?}"));
    match result {
        Ok(config) => {
            let sockets = |listen: &Listener| listen.address.addresses.len().max(1);
            let sockets = config.listen.iter().map(sockets).sum();
            assert!((1..=LISTEN_ADDRESSES_MAX).contains(&sockets));
            assert!(config.shards.get() <= SHARDS_MAX);
        }
        Err(errors) => {
            assert!(errors.iter().count() > 0);
            assert!(errors.iter().all(|problem| !problem.to_string().is_empty()));
        }
    }
}

/// `NAME=VALUE`, of any bytes.
fn variable(bytes: &[u8]) -> (OsString, OsString) {
    let mut halves = bytes.splitn(2, |byte| *byte == b'=');
    let mut half = || OsString::from_vec(halves.next().unwrap_or_default().to_vec());
    (half(), half())
}
