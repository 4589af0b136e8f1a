//! What the tests of `loadgen` share: the broker of this workspace as a child process, and command lines.

#![allow(dead_code, reason = "not every test needs everything")]

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::Duration,
};

use serde_json::Value;

/// A broker, killed when it goes out of scope.
pub(crate) struct Broker {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Broker {
    /// One with two shards that is ready, on a free port.
    pub(crate) fn start() -> Self {
        Self::start_with(2)
    }

    /// One with that many shards.
    pub(crate) fn start_with(shards: usize) -> Self {
        let port = free_port();
        let mut child = Command::new(broker_binary())
            .args(["--ephemeral", "--shards", &shards.to_string()])
            .args(["-l", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (ready, is_ready) = mpsc::channel();
        follow(child.stdout.take().unwrap(), ready.clone());
        follow(child.stderr.take().unwrap(), ready);
        let broker = Self { child, port };
        is_ready.recv_timeout(Duration::from_secs(20)).expect("the broker says that it is ready");
        broker
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log to its end, or the broker would block.
fn follow(log: impl Read + Send + 'static, ready: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if line.ends_with(" ready") {
                let _ = ready.send(());
            }
        }
    });
}

/// The broker binary in the folder of this profile, built if it is not there.
pub(crate) fn broker_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/PROFILE/deps/NAME-HASH
        let own = std::env::current_exe().unwrap();
        let profile = own.parent().and_then(Path::parent).unwrap();
        let binary = profile.join("ringmq");
        if !binary.exists() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--package", "ringmq", "--bin", "ringmq", "--target-dir"]);
            cargo.arg(profile.parent().unwrap());
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success(), "the broker does not build");
        }
        binary
    })
}

/// Debian's mosquitto, if it is installed; its daemons are not on everybody's path.
pub(crate) fn mosquitto_binary() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let paths = std::env::split_paths(&paths).chain(daemons);
    let mut files = paths.map(|folder| folder.join("mosquitto"));
    files.find(|path| path.is_file())
}

/// A port that nobody listens on: above those of the broker's own tests, below those that the kernel gives
/// to connections. Brokers could share one without an error, so each process has a part of its own.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let part = (std::process::id() % 27) as u16 * 100;
    loop {
        let port = 30_000 + part + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A `loadgen` with these arguments, against the broker at that port.
pub(crate) fn command(port: u16, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(line.split_whitespace()).args(["-p", &port.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same, running.
pub(crate) fn spawn(broker: &Broker, line: &str) -> Child {
    command(broker.port, line).spawn().unwrap()
}

/// Reads standard error up to a line with that text in it. Returns what was read.
#[track_caller]
pub(crate) fn wait_for(child: &mut Child, text: &str) -> String {
    let live = child.stderr.as_mut().unwrap();
    let (mut read, mut byte) = (Vec::new(), [0]);
    loop {
        if live.read_exact(&mut byte).is_err() {
            panic!("{text:?} comes before the end: {}", String::from_utf8_lossy(&read));
        }
        read.extend(byte);
        let so_far = String::from_utf8_lossy(&read);
        if byte == *b"\n" && so_far.contains(text) {
            return so_far.into_owned();
        }
    }
}

pub(crate) fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A file for one test, deleted when it goes out of scope.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// A path that nothing else uses, with that at its end.
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("loadgen-test-{}-{count}.{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn with(name: &str, text: &str) -> Self {
        let file = Self::new(name);
        std::fs::write(&file.0, text).unwrap();
        file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&std::fs::read(&self.0).unwrap()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The test may have failed before it was written.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl std::fmt::Display for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}
