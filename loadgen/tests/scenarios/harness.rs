//! `loadgen` and brokers as child processes.

use std::{
    io::{BufRead, BufReader, Read},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

/// A broker as a child process, killed when it goes out of scope.
pub(crate) struct Broker {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Broker {
    /// The broker of this workspace.
    pub(crate) fn start(shards: usize) -> Self {
        let port = free_port();
        let mut command = Command::new(broker_binary());
        let listen = format!("127.0.0.1:{port}");
        command.args(["--ephemeral", "--shards", &shards.to_string(), "-l", &listen]);
        Self::wait_for(command, &[port])
    }

    /// Debian's mosquitto with this configuration. The first port is `port`.
    pub(crate) fn mosquitto(config: &Path, ports: &[u16]) -> Self {
        let installed = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
        let path = installed.into_iter().find(|path| Path::new(path).exists());
        let mut command = Command::new(path.unwrap_or("mosquitto"));
        command.arg("-c").arg(config);
        Self::wait_for(command, ports)
    }

    fn wait_for(mut command: Command, ports: &[u16]) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{command:?}: {error} (`apt-get install mosquitto` brings mosquitto)")
        });
        let mut broker = Self { child, port: ports[0] };
        let deadline = Instant::now() + Duration::from_secs(20);
        for port in ports {
            while TcpStream::connect(("127.0.0.1", *port)).is_err() {
                let status = broker.child.try_wait().unwrap();
                assert!(status.is_none(), "{command:?} ended while starting");
                assert!(Instant::now() < deadline, "{command:?} does not accept connections");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
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

/// `loadgen` while it runs, with what it says each second.
pub(crate) struct Running {
    pub(crate) child: Child,
    live: BufReader<std::process::ChildStderr>,
}

impl Running {
    pub(crate) fn start(port: u16, line: &str) -> Self {
        let mut command = loadgen(port, line);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let live = BufReader::new(child.stderr.take().unwrap());
        Self { child, live }
    }

    /// The next line of those that it prints each second; `None` when it has ended.
    pub(crate) fn next_line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.live.read_line(&mut line).unwrap();
        (!line.is_empty()).then_some(line)
    }

    /// Reads lines until one has this in it.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, with: &str) {
        while !self.next_line().expect("a line before the end").contains(with) {}
    }

    /// Reads lines until all clients are connected, and messages flow if any are to be sent.
    #[track_caller]
    pub(crate) fn wait_for_load(&mut self) {
        loop {
            let line = self.next_line().expect("a line before the end");
            let is_silent = line.contains("sent         0/s");
            if !is_silent && !line.contains("connected") {
                return;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// What it has printed, and its exit code, once it has ended.
    pub(crate) fn end(mut self) -> Ended {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.live.read_to_string(&mut stderr).unwrap();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        Ended { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

/// How a program has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Self { code: output.status.code(), stdout, stderr }
    }
}

/// Runs `loadgen` to its end.
pub(crate) fn run(port: u16, line: &str) -> Ended {
    loadgen(port, line).output().unwrap().into()
}

/// The same, with its result file.
#[track_caller]
pub(crate) fn run_with_result(port: u16, line: &str) -> (Ended, Value) {
    let file = TempFile::new("json");
    let ended = run(port, &format!("{line} --json {file}"));
    (ended, file.json())
}

/// The one run that has to be complete and sound.
#[track_caller]
pub(crate) fn sound_run(port: u16, line: &str) -> Value {
    let (ended, json) = run_with_result(port, line);
    assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
    let [run] = json["runs"].as_array().unwrap().as_slice() else { panic!("{line}: {json}") };
    assert_eq!(run["ended"], "complete", "{line}: {ended:?}");
    let broken = ["lost", "unfinished", "duplicates", "reordered", "strays", "refused"];
    assert!(broken.iter().all(|one| run["whole_run"][one] == 0), "{line}: {ended:?}");
    run.clone()
}

/// Checks all rows side by side: most of their time is waiting.
pub(crate) fn each<T: Send>(rows: impl IntoIterator<Item = T>, check: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for row in rows {
            scope.spawn(|| check(row));
        }
    });
}

pub(crate) fn loadgen(port: u16, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(line.split_whitespace()).args(["-p", &port.to_string()]).stdin(Stdio::null());
    command
}

/// A file that is removed when it goes out of scope.
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    /// A path that nothing else uses.
    pub(crate) fn new(extension: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("loadgen-test-{}-{count}.{extension}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn with(extension: &str, text: &str) -> Self {
        let file = Self::new(extension);
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

impl std::fmt::Display for TempFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Below the range of which the kernel takes the clients' own ports: thousands of them come and go here.
pub(crate) fn free_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id() * 37 + COUNT.fetch_add(1, Ordering::Relaxed);
        let port = (10_000 + place % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

/// The broker binary in the folder of this profile, built if it is not there.
fn broker_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/PROFILE/deps/scenarios-HASH
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
