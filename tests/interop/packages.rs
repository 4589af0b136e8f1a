//! Where the packages of others are, and how a script runs on them: `tests/interop/install` fetches
//! them once, and every script has a time limit and ends with what it has started.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where `tests/interop/install` has put the pinned packages. The first test that asks has them
/// installed, if they are not there yet.
#[track_caller]
pub(crate) fn packages() -> &'static PathBuf {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOLDER.get_or_init(install).as_ref().unwrap_or_else(|problem| panic!("{problem}"))
}

/// Runs a script of `tests/interop` until it ends, and returns what it printed. It fails the test with
/// all of its output when it does not end with 0, or not in time.
#[track_caller]
pub(crate) fn run(interpreter: &str, script: &str, arguments: &[&str]) -> String {
    let mut command = bounded(SCRIPT_SECS_MAX);
    command.arg(interpreter).arg(folder().join(script)).args(arguments);
    output(&mut command).unwrap_or_else(|problem| panic!("{script} {arguments:?}: {problem}"))
}

fn install() -> Result<PathBuf, String> {
    // Cargo's folder for the files of tests is one of the target directory.
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("..");
    let into = target.canonicalize().unwrap_or(target).join("interop");
    let script = folder().join("install");
    output(bounded(INSTALL_SECS_MAX).arg(&script).arg(&into)).map_err(|problem| {
        format!(
            "The packages of other clients are not installed in {}, and `tests/interop/install`, which \
             fetches them from npm and PyPI, fails: {problem}",
            into.display()
        )
    })?;
    Ok(into)
}

/// What runs its arguments as a command, and after so many seconds ends them with all that they started.
fn bounded(secs: u32) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &secs.to_string()]).stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(printed),
        Some(TIMED_OUT) => Err(format!("not done in time, after\n{printed}{errors}")),
        _ => Err(format!("{}\n{printed}{errors}", output.status)),
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// What timeout(1) exits with.
const TIMED_OUT: i32 = 124;
const INSTALL_SECS_MAX: u32 = 300;
const SCRIPT_SECS_MAX: u32 = 120;
