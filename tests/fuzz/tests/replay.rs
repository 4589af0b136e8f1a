//! Every target against its seeds, its committed corpus and variants of both: the same inputs in every
//! run. `RINGMQ_FUZZ_VARIANTS=1000000` tries as many; `RINGMQ_FUZZ_INPUT=FILE` tries that file alone.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use fuzz::{SECONDS_MAX, Target, mutate::Random};

#[test]
fn packets_hold() {
    replay("packets");
}

#[test]
fn properties_hold() {
    replay("properties");
}

#[test]
fn topics_hold() {
    replay("topics");
}

#[test]
fn session_holds() {
    replay("session");
}

#[test]
fn broker_holds() {
    replay("broker");
}

#[test]
fn config_holds() {
    replay("config");
}

#[test]
fn passwords_hold() {
    replay("passwords");
}

#[test]
fn acl_holds() {
    replay("acl");
}

#[test]
fn storage_holds() {
    replay("storage");
}

#[test]
fn transports_hold() {
    replay("transports");
}

#[test]
fn the_corpora_are_small() {
    let files = fuzz::TARGETS.iter().flat_map(|target| corpus_files(target.name));
    let bytes: u64 = files.map(|file| file.metadata().expect("a file").len()).sum();
    assert!(bytes <= CORPORA_BYTES_MAX, "{bytes} bytes: see --minimise in tests/fuzz/README.md");
}

/// Tries all inputs in a thread that tells of each before it starts, so that the one that fails, or
/// does not come to an end, is known.
fn replay(name: &str) {
    let target = Target::find(name).expect("a target");
    let (sender, started) = sync_channel(1);
    let worker = thread::spawn(move || try_inputs(&target, &sender));
    let mut last = Vec::new();
    let failed = loop {
        match started.recv_timeout(Duration::from_secs(SECONDS_MAX)) {
            Ok(input) => last = input,
            Err(RecvTimeoutError::Timeout) => break true,
            Err(RecvTimeoutError::Disconnected) => break worker.join().is_err(),
        }
    };
    if failed {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&file, &last).expect("room for the input");
        panic!(
            "{name} fails, or takes more than {SECONDS_MAX} s, with {}; again with RINGMQ_FUZZ_INPUT={0} \
             cargo test -p fuzz {name}",
            file.display()
        );
    }
}

fn try_inputs(target: &Target, started: &SyncSender<Vec<u8>>) {
    let check = |input: &[u8]| {
        // Nobody listens any more if an earlier input took too long.
        if started.send(input.to_vec()).is_ok() {
            target.check(input);
        }
    };
    if let Some(file) = env::var_os("RINGMQ_FUZZ_INPUT") {
        return check(&fs::read(file).expect("the input"));
    }
    let mut corpus = (target.seeds)();
    corpus.extend(corpus_files(target.name).map(|file| fs::read(file).expect("an input")));
    corpus.iter().for_each(|input| check(input));
    let count = env::var("RINGMQ_FUZZ_VARIANTS").map(|text| text.parse().expect("a number"));
    let mut random = Random::new(SEED);
    for _ in 0..count.unwrap_or(target.variants) {
        check(&random.variant(&corpus));
    }
}

fn corpus_files(name: &str) -> impl Iterator<Item = PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("readable entry").path())
        .collect();
    files.sort_unstable();
    files.into_iter()
}

const SEED: u64 = 0x5EED;
const CORPORA_BYTES_MAX: u64 = 300 * 1024;
