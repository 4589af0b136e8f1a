//! The data directory: when there is none, whose it is, and what is refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::process::{Ending, Recipe, Scratch};
use crate::world::World;

#[test]
fn an_ephemeral_broker_makes_no_files_and_keeps_nothing() {
    let scratch = Scratch::new();
    let recipe = Recipe::ringmq(&scratch, 2, &[]).with_word("--ephemeral");
    for _ in 0..2 {
        let process = recipe.start();
        let (_, present) = crate::common::RawClient::v5_resume(process.port(), "me");
        assert!(!present);
        process.kill();
        assert!(!scratch.data().exists(), "{:?} is there", scratch.data());
    }
}

#[test]
fn the_directory_is_made_with_its_parents_and_for_its_owner_alone() {
    let scratch = Scratch::new();
    let recipe = Recipe::ringmq(&scratch, 1, &[]);
    recipe.start().kill();
    let mode = fs::metadata(scratch.data()).expect("the directory is made").mode();
    assert_eq!(mode & 0o077, 0, "others may look into it: {mode:o}");
}

#[test]
fn a_second_process_is_refused_while_the_first_serves_on() {
    let mut world = World::new(1, Ending::Kill);
    world.absentee("me", "t", 1);
    let second = world.recipe.clone().with_free_port();
    expect_refused(&second, &[&world.data().display().to_string()]);
    world.publish(1, "t", "x");
    // The lock ends with its process.
    world.restart();
    world.back("me").expect("32 ( 't' 0001 () `x` )");
}

#[test]
fn what_is_no_directory_is_refused() {
    let scratch = Scratch::new();
    let recipe = Recipe::ringmq(&scratch, 1, &[]);
    fs::write(scratch.data(), "a file").expect("a file");
    expect_refused(&recipe, &[&scratch.data().display().to_string()]);
    let below = scratch.data().join("below");
    let recipe = recipe.with_data(&below);
    expect_refused(&recipe, &[&below.display().to_string()]);
    assert_eq!(fs::read(scratch.data()).expect("the file"), b"a file");
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let scratch = Scratch::new();
    let recipe = Recipe::ringmq(&scratch, 1, &[]);
    let data = scratch.data();
    fs::create_dir(&data).expect("a directory");
    // Root may write anywhere but to what is mounted read-only.
    let Some(_mount) = Mount::tmpfs(&data, "ro") else {
        fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).expect("the owner's");
        return expect_refused(&recipe, &[&data.display().to_string()]);
    };
    expect_refused(&recipe, &[&data.display().to_string()]);
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let scratch = Scratch::new();
    let recipe = Recipe::ringmq(&scratch, 1, &[]);
    recipe.start().kill();
    let data = scratch.data();
    assert!(data.exists(), "the directory is made");
    if std::os::unix::fs::chown(&data, Some(65534), Some(65534)).is_err() {
        println!("SKIPPED: only root can give a directory away");
        return;
    }
    expect_refused(&recipe, &[&data.display().to_string()]);
}

/// What a later version has written is left alone.
#[test]
fn an_unknown_format_is_refused() {
    let mut world = World::new(1, Ending::Kill);
    world.absentee("me", "t", 1);
    world.stop();
    let meta = world.data().join("meta");
    let text = fs::read_to_string(&meta).expect("meta is text");
    assert!(text.contains("format 1\n"), "{text}");
    fs::write(&meta, text.replace("format 1\n", "format 9\n")).expect("meta can be written");
    expect_refused(&world.recipe, &["meta", "format 9"]);
}

/// Each byte of `meta` counts, and without it the logs cannot be told from others.
#[test]
fn a_meta_file_that_is_damaged_or_gone_is_refused() {
    let mut world = World::new(1, Ending::Kill);
    world.absentee("me", "t", 1);
    world.stop();
    let meta = world.data().join("meta");
    let whole = fs::read(&meta).expect("meta");
    for at in (0..whole.len()).step_by(whole.len().div_ceil(12)) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x01;
        fs::write(&meta, damaged).expect("meta can be written");
        expect_refused(&world.recipe, &["meta"]);
    }
    for kept in [0, whole.len() / 2, whole.len() - 1] {
        fs::write(&meta, &whole[..kept]).expect("meta can be written");
        expect_refused(&world.recipe, &["meta"]);
    }
    fs::remove_file(&meta).expect("meta can be removed");
    expect_refused(&world.recipe, &["meta"]);
    fs::write(&meta, whole).expect("meta can be written");
    world.start();
    world.back("me");
}

/// Exit code 1 and the words, after which nothing has changed.
#[track_caller]
fn expect_refused(recipe: &Recipe, words: &[&str]) {
    let (code, said) = recipe.refused();
    assert_eq!(code, 1, "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{word} is not told:\n{said}"));
    assert!(!said.contains("panicked"), "{said}");
}

/// A mounted file system, for those who may mount.
pub(crate) struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    /// `None` where that is not allowed.
    pub(crate) fn tmpfs(at: &'a Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "ringmq-recovery"]).arg(at);
        let done = mount.output().is_ok_and(|output| output.status.success());
        done.then_some(Self(at))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Lazily: a process that was killed may still be about to let go of it.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
