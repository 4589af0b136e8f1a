//! Broker processes that are killed and started again at the same port and data directory. Knows a
//! broker by its command alone; what it writes to its standard streams goes to a file beside the data.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::free_port;
use crate::link::{Identity, Link};

/// A folder for one test: removed when all went well, kept and told when the test fails.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("recovery-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a folder of the build's");
        Self(path)
    }

    /// Where the broker keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for inspection: {}", self.0.display());
        } else {
            // What is left is only of use to nobody.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// How a broker is started.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    words: Vec<String>,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Recipe {
    /// ringmq on this directory.
    pub(crate) fn ringmq(scratch: &Scratch, shards: usize, settings: &[&str]) -> Self {
        let port = free_port();
        let (listen, data) = (format!("127.0.0.1:{port}"), scratch.data());
        let mut words = vec![env!("CARGO_BIN_EXE_ringmq").to_owned(), "-l".to_owned(), listen];
        words.extend(["--data-dir".to_owned(), data.display().to_string()]);
        words.extend(["--shards".to_owned(), shards.to_string()]);
        // Small segments, so that logs are cleaned.
        words.extend(["--set".to_owned(), "storage_bytes_max=268435456".to_owned()]);
        words.extend(settings.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        Self { words, port, log: scratch.path().join("broker.log") }
    }

    /// Any other broker. `{port}` and `{dir}` are filled in, in the words of the command and in the
    /// files that they name, of which the broker gets a copy.
    pub(crate) fn other(scratch: &Scratch, command: &str) -> Self {
        let port = free_port();
        let data = scratch.data();
        fs::create_dir_all(&data).expect("a folder for its data");
        let fill = |text: &str| {
            let text = text.replace("{port}", &port.to_string());
            text.replace("{dir}", &data.display().to_string())
        };
        let word = |word: &str| match fs::read_to_string(word) {
            Ok(template) if template.contains("{port}") => {
                let copy = scratch.path().join(Path::new(word).file_name().expect("a file"));
                fs::write(&copy, fill(&template)).expect("a copy of the file");
                copy.display().to_string()
            }
            _ => fill(word),
        };
        let words = command.split_whitespace().map(word).collect();
        Self { words, port, log: scratch.path().join("broker.log") }
    }

    /// The same with another number of shards.
    pub(crate) fn with_shards(mut self, shards: usize) -> Self {
        if let Some(at) = self.words.iter().position(|word| word == "--shards") {
            self.words[at + 1] = shards.to_string();
        }
        self
    }

    /// The same with one more word of its command line.
    pub(crate) fn with_word(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// The same on another directory.
    pub(crate) fn with_data(mut self, data: &Path) -> Self {
        let at = self.words.iter().position(|word| word == "--data-dir").expect("ringmq");
        self.words[at + 1] = data.display().to_string();
        self
    }

    /// The same on another port, with a log file of its own.
    pub(crate) fn with_free_port(mut self) -> Self {
        self.port = free_port();
        let at = self.words.iter().position(|word| word == "-l").expect("ringmq");
        self.words[at + 1] = format!("127.0.0.1:{}", self.port);
        self.log.set_extension("second.log");
        self
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&self) -> Process {
        let mut log = File::options();
        let log = log.create(true).append(true).open(&self.log).expect("a log file");
        let log_from = log.metadata().expect("the log file's size").len();
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(Stdio::null());
        // Those of the tests' are no configuration of the broker's.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("RINGMQ_") {
                command.env_remove(variable);
            }
        }
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { child, recipe: self.clone(), log_from }
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub(crate) fn start(&self) -> Process {
        let mut process = self.spawn();
        match process.wait_until_it_serves() {
            Ok(()) => process,
            Err(why) => panic!("{why}\n{}", process.log()),
        }
    }

    /// Starts what must not start; returns its exit code and what it says.
    #[track_caller]
    pub(crate) fn refused(&self) -> (i32, String) {
        let mut process = self.spawn();
        let status = process.wait_for_exit();
        let code = status.code().unwrap_or_else(|| panic!("{status}\n{}", process.log()));
        assert_ne!(code, 0, "it started\n{}", process.log());
        (code, process.log())
    }
}

/// One life of a broker. Killed when it goes out of scope.
pub(crate) struct Process {
    child: Child,
    recipe: Recipe,
    log_from: u64,
}

impl Process {
    pub(crate) fn port(&self) -> u16 {
        self.recipe.port
    }

    /// Until a client gets its CONNACK. An error says why that will not be.
    ///
    /// A TCP connection alone may be to the socket that [`free_port`] has tried the port with, while
    /// another test's child holds it before its exec.
    pub(crate) fn wait_until_it_serves(&mut self) -> Result<(), String> {
        let probe = Identity { client: "probe".to_owned(), version: 4, receive_max: 0 };
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return Err(format!("it ended while starting: {status}"));
            }
            if Link::open(self.port(), &probe, true).is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("it does not serve after {START_MAX:?}"));
            }
            std::thread::sleep(POLL);
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.kill_now();
    }

    /// Ends it and waits for its end, whatever its exit code is.
    #[track_caller]
    pub(crate) fn end(mut self, how: Ending) {
        if how == Ending::Terminate {
            let pid = self.child.id().to_string();
            let sent = Command::new("kill").args(["-s", "TERM", &pid]).status().expect("kill runs");
            assert!(sent.success(), "kill -s TERM {pid}: {sent}");
            self.wait_for_exit();
        }
    }

    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(Instant::now() < deadline, "it still runs after {START_MAX:?}\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// What this life has written so far.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.recipe.log).unwrap_or_default();
        let from = bytes.len().min(self.log_from as usize);
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    fn kill_now(&mut self) -> Option<i32> {
        // It may have ended already.
        let _ = self.child.kill();
        self.child.wait().ok().and_then(|status| status.signal())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_now();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- the broker's last log lines ---\n{}", lines[skipped..].join("\n"));
        }
    }
}

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// kill -9
    Kill,
    /// SIGTERM
    Terminate,
}

const START_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(3);
const LOG_LINES_SHOWN: usize = 30;
