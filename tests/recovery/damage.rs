//! Logs that end anywhere, and logs that are damaged: the one is a start with what there is, the other
//! is told and refused until somebody decides. Knows of the format that a segment is a header and records behind
//! their length.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::RawClient;
use crate::process::Ending;
use crate::world::World;

const STEPS: u32 = 8;

/// A session with a queue of [`STEPS`] messages; behind each, the same as a retained message.
fn history() -> (World, Segment) {
    let mut world = World::new(1, Ending::Kill);
    world.absentee("me", "q", 1);
    for step in 0..STEPS {
        world.publish(1, "q", &step.to_string());
        world.publish_with(0x33, "r", "", &step.to_string());
    }
    world.stop();
    let logs = || world.files().into_iter().map(|(path, _)| path).filter(|path| is_log(path));
    let segment = logs()
        .map(|path| Segment::read(&path))
        .max_by_key(|segment| segment.data_bytes)
        .expect("a log");
    let copy = world.scratch.path().join("whole");
    copy_tree(&world.data(), &copy);
    (world, segment)
}

/// Whatever the length, the broker starts, and what it has is what there was at some moment.
#[test]
fn a_log_that_ends_anywhere_is_a_prefix_of_the_history() {
    let (mut world, segment) = history();
    let mut before = (0, None);
    let cuts = segment.cuts();
    for &length in &cuts {
        put_back(&world);
        let file = fs::File::options().write(true).open(&segment.path).expect("the segment");
        file.set_len(length as u64).expect("it can be cut");
        world.start();
        let state = state(&world);
        world.stop();
        let (queued, retained) = state;
        assert!(
            retained.is_none_or(|retained| retained < queued)
                && queued <= retained.map_or(0, |n| n + 1) + 1,
            "cut at {length}: {queued} queued, {retained:?} retained"
        );
        assert!(state >= before, "cut at {length}: {state:?}, with less there was {before:?}");
        before = state;
    }
    assert_eq!(before, (STEPS, Some(STEPS - 1)), "the whole log, after {} cuts", cuts.len());
}

#[test]
fn damage_of_what_was_committed_is_refused_with_file_and_offset() {
    let (world, segment) = history();
    for at in segment.inside(16) {
        put_back(&world);
        segment.flip(at);
        let (code, said) = world.recipe.refused();
        assert_eq!(code, 1, "{said}");
        let name = segment.path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(said.contains(name), "byte {at} flipped; {name} is not told:\n{said}");
        assert!(said.contains("at byte"), "byte {at} flipped; the place is not told:\n{said}");
        assert!(said.contains("ringmq repair"), "byte {at} flipped; no way out is told:\n{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn repair_tells_what_is_lost_and_changes_nothing_until_it_is_told_to() {
    let (mut world, segment) = history();
    segment.flip(segment.inside(3)[1]);
    let damaged = contents(&world.data());
    let (code, said) = ringmq("repair", &world.data(), &[]);
    assert_ne!(code, 0, "damage is no success:\n{said}");
    let name = segment.path.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(said.contains(name) && said.contains("--yes"), "{said}");
    assert_eq!(contents(&world.data()), damaged, "it has changed something");
    world.recipe.refused();

    let (code, said) = ringmq("repair", &world.data(), &["--yes"]);
    assert_eq!(code, 0, "{said}");
    world.start();
    // Some is lost, in the middle or from there on; nothing is wrong, and the rest goes on.
    let mut client = world.back("me");
    world.publish(2, "q", "new");
    let mut last = None;
    loop {
        let packet = client.read_packet();
        assert_eq!(packet[0], 0x32, "{packet:02x?}");
        if packet.ends_with(b"new") {
            break;
        }
        let step = packet[packet.len() - 1];
        assert!(last < Some(step), "{step} after {last:?}");
        last = Some(step);
    }
    assert!(last.is_some(), "what came before the damage is gone");
}

#[test]
fn repair_of_a_sound_directory_finds_nothing_to_do() {
    let (mut world, _) = history();
    let before = contents(&world.data());
    let (code, said) = ringmq("repair", &world.data(), &["--yes"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(contents(&world.data()), before, "{said}");
    world.start();
    assert_eq!(state(&world), (STEPS, Some(STEPS - 1)));
}

#[test]
fn inspect_shows_sessions_queues_retained_messages_and_segments() {
    let (world, segment) = history();
    let before = contents(&world.data());
    let (code, said) = ringmq("inspect", &world.data(), &[]);
    assert_eq!(code, 0, "{said}");
    let name = segment.path.file_name().and_then(|name| name.to_str()).expect("a name");
    let queued = STEPS.to_string();
    for word in ["me", "session", "retained", "segment", name, &queued] {
        assert!(said.to_lowercase().contains(word), "{word} is not shown:\n{said}");
    }
    assert_eq!(contents(&world.data()), before, "it has changed something");
}

#[test]
fn the_commands_refuse_what_is_no_data_directory_or_in_use() {
    let world = World::new(1, Ending::Kill);
    let missing = world.scratch.path().join("missing");
    for command in ["inspect", "repair"] {
        let (code, said) = ringmq(command, &missing, &[]);
        assert_eq!(code, 1, "{command}: {said}");
        assert!(said.contains("missing") && !said.contains("panicked"), "{command}: {said}");
        assert!(!missing.exists());
    }
    let (code, said) = ringmq("repair", &world.data(), &["--yes"]);
    assert_eq!(code, 1, "a broker is running on it:\n{said}");
}

/// How many messages are queued, and which one is retained. The session may not be there yet.
fn state(world: &World) -> (u32, Option<u32>) {
    let digit = |packet: &[u8]| u32::from(packet[packet.len() - 1] - b'0');
    let (mut client, present) = RawClient::v5_resume(world.port(), "me");
    let mut queued = 0;
    let mut early = VecDeque::new();
    if present {
        // Its subscription may not be there yet.
        client.send("82 ( 0001 () 'q' 01 )");
        loop {
            let packet = client.read_packet();
            if packet[0] == 0x90 {
                break;
            }
            early.push_back(packet);
        }
        world.publish(1, "q", "end");
        loop {
            let packet = early.pop_front().unwrap_or_else(|| client.read_packet());
            if packet.ends_with(b"end") {
                break;
            }
            assert_eq!(digit(&packet), queued, "a gap: {packet:02x?}");
            queued += 1;
        }
    }
    let mut newcomer = world.newcomer("newcomer");
    newcomer.send("82 ( 0001 () 'r' 02 )");
    newcomer.expect("90 ( 0001 () 02 )");
    newcomer.send("c0 00");
    let packet = newcomer.read_packet();
    (queued, (packet[0] != 0xd0).then(|| digit(&packet)))
}

fn ringmq(command: &str, data: &Path, flags: &[&str]) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    let output = child.arg(command).arg(data).args(flags).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    let code = output.status.code().expect("it ends by itself");
    (code, String::from_utf8_lossy(&said).into_owned())
}

/// A file of the log.
struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Without the zeros behind the last record.
    data_bytes: usize,
}

impl Segment {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).expect("a readable segment");
        let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let data_bytes = bytes.len() - zeros;
        Self { path: path.to_owned(), bytes, data_bytes }
    }

    /// Record boundaries, the bytes around them, and some in between.
    fn cuts(&self) -> Vec<usize> {
        let mut cuts: Vec<usize> = (0..self.data_bytes).step_by(self.data_bytes / 24 + 1).collect();
        let mut at = HEADER_BYTES;
        while let Some(length) = self.bytes.get(at..at + 4) {
            let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
            if length == 0 || at > self.data_bytes {
                break;
            }
            cuts.extend([at, at + 1, at + RECORD_HEAD_BYTES]);
            at += RECORD_HEAD_BYTES + length;
        }
        // The last record may end with zeros.
        cuts.push(at);
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }

    /// So many places between the header and the last few batches.
    fn inside(&self, count: usize) -> Vec<usize> {
        let (from, to) = (HEADER_BYTES, self.data_bytes * 3 / 4);
        (0..count).map(|n| from + (to - from) * n / count).collect()
    }

    fn flip(&self, at: usize) {
        let mut bytes = self.bytes.clone();
        bytes[at] ^= 0x10;
        fs::write(&self.path, bytes).expect("it can be written");
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

fn put_back(world: &World) {
    fs::remove_dir_all(world.data()).expect("no broker is running");
    copy_tree(&world.scratch.path().join("whole"), &world.data());
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    let mode = fs::metadata(from).expect("a folder").permissions();
    fs::set_permissions(to, mode).expect("a folder of ours");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_tree(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a file that can be copied");
        }
    }
}

/// Every file and what is in it, but for the lock, which says who has held it last.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() {
            found.extend(contents(&entry.path()));
        } else if entry.file_name() != "lock" {
            found.push((entry.path(), fs::read(entry.path()).expect("a file")));
        }
    }
    found.sort();
    found
}

/// Of a segment.
const HEADER_BYTES: usize = 48;
/// Length and CRC; the type is counted to the body.
const RECORD_HEAD_BYTES: usize = 8;
