//! The broker as a child process: started on a free loopback port, watched, and
//! killed when it goes out of scope. A failing test prints its last log lines.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One running broker.
pub(crate) struct Broker {
    child: Child,
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    /// Deleted with it.
    data_dir: Option<PathBuf>,
    log: Arc<Log>,
    followers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    added: Condvar,
}

impl Broker {
    /// A broker with so many shards and `--set` settings, logging every packet.
    #[track_caller]
    pub(crate) fn start(shards: usize, settings: &[&str]) -> Self {
        Self::launch(None, shards, settings, &["-v"])
    }

    /// The same without a log line per packet, for load.
    pub(crate) fn start_quiet(shards: usize, settings: &[&str]) -> Self {
        Self::launch(None, shards, settings, &[])
    }

    /// The same with its data in that directory, at another port each time.
    pub(crate) fn start_on(data: &Path, shards: usize, settings: &[&str]) -> Self {
        Self::launch(Some(data), shards, settings, &[])
    }

    /// The same with flags of the command line.
    pub(crate) fn start_with(shards: usize, flags: &[&str]) -> Self {
        Self::launch(None, shards, &[], flags)
    }

    fn launch(data: Option<&Path>, shards: usize, settings: &[&str], flags: &[&str]) -> Self {
        let port = free_port();
        let own_data = data.is_none().then(|| data_dir(port, shards)).flatten();
        let mut command = command(port, data.or(own_data.as_deref()), shards, settings);
        if own_data.is_some() {
            // Small segments: a test has little to say.
            command.args(["--set", "storage_bytes_max=134217728"]);
        }
        let mut child = command
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let log = Arc::new(Log::default());
        let followers = vec![
            follow(child.stdout.take().expect("stdout is piped"), &log),
            follow(child.stderr.take().expect("stderr is piped"), &log),
        ];
        let mut broker = Self { child, port, data_dir: own_data, log, followers };
        broker.wait_until_it_accepts();
        broker
    }

    fn wait_until_it_accepts(&mut self) {
        let deadline = Instant::now() + START_MAX;
        // Not by connecting: while another test starts its broker, the child before its exec may still
        // hold the socket that `free_port` has tried this port with.
        let is_ready = |line: &String| line.ends_with(" ready") || line.contains("\"ready\"");
        while !self.log_lines().iter().any(is_ready) {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                panic!("the broker ended while starting: {status}");
            }
            assert!(Instant::now() < deadline, "no listener after {START_MAX:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without any warning.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("the child can be waited for");
    }

    /// Asks the broker to end and returns at once.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(status.success(), "kill -s {name} {pid}: {status}");
    }

    /// SIGTERM: it has to end by itself, with exit code 0. Returns all of its log.
    pub(crate) fn terminate(mut self) -> Vec<String> {
        self.signal("TERM");
        let status = self.wait_for_exit();
        assert_eq!(status.code(), Some(0), "exit after SIGTERM: {status}");
        for follower in self.followers.drain(..) {
            follower.join().expect("the log can be followed");
        }
        self.log_lines()
    }

    /// How it ended, which has to be soon.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP_MAX;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the broker still runs after {STOP_MAX:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Every log line so far.
    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.lines.lock().expect("the log is intact").clone()
    }

    /// Waits for a log line with all of `parts` in it, in any case, and returns it.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, parts: &[&str]) -> String {
        let deadline = Instant::now() + LOG_MAX;
        let mut lines = self.log.lines.lock().expect("the log is intact");
        let mut searched = 0;
        loop {
            let matches = |line: &&String| {
                let line = line.to_lowercase();
                parts.iter().all(|part| line.contains(&part.to_lowercase()))
            };
            if let Some(line) = lines[searched..].iter().find(matches) {
                return line.clone();
            }
            searched = lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(lines);
                panic!("no log line with {parts:?}");
            }
            lines = self.log.added.wait_timeout(lines, left).expect("the log is intact").0;
        }
    }

    /// Memory the process has resident (KiB).
    pub(crate) fn rss_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// A number in the kernel's account of the process.
    pub(crate) fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).expect("the broker runs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line of that name");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Open descriptors of the process.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(&path).expect("the broker runs").count()
    }

    /// CPU time used so far, all threads, user and system.
    pub(crate) fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(&path).expect("the broker runs");
        let after_name = stat.rsplit(')').next().expect("the process name is in parentheses");
        // Fields 14 and 15 of proc(5), in ticks of 10 ms; the state, field 3, comes first here.
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().expect("a number"))
            .sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data_dir) = &self.data_dir {
            let _ = std::fs::remove_dir_all(data_dir);
        }
        // Its pipes are closed, so these come to their end with its last line.
        for follower in self.followers.drain(..) {
            let _ = follower.join();
        }
        if std::thread::panicking() {
            let lines = self.log_lines();
            let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- the broker's last log lines ---");
            lines[skipped..].iter().for_each(|line| eprintln!("{line}"));
            eprintln!("--- end of the broker's log ---");
        }
    }
}

fn command(port: u16, data: Option<&Path>, shards: usize, settings: &[&str]) -> Command {
    // Another build of it, such as one of the release profile. Not RINGMQ_...: those are the broker's.
    let broker = std::env::var_os("TEST_BROKER");
    let mut command = Command::new(broker.unwrap_or(env!("CARGO_BIN_EXE_ringmq").into()));
    command.args(["-l", &format!("127.0.0.1:{port}")]);
    match data {
        Some(data) => command.arg("--data-dir").arg(data),
        None => command.arg("--ephemeral"),
    };
    command.args(["--shards", &shards.to_string()]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

/// With several shards the broker has a log, alone it has none: most tests run both ways.
fn data_dir(port: u16, shards: usize) -> Option<PathBuf> {
    let name = format!("broker-{}-{port}", std::process::id());
    (shards > 1).then(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
}

fn follow(output: impl Read + Send + 'static, log: &Arc<Log>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            log.lines.lock().expect("the log is intact").push(line);
            log.added.notify_all();
        }
    })
}

/// A loopback port nobody listens on. Taken from below the range that outgoing
/// connections use, so that no test's client sits on it before the broker does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 180 * 100) as u16;
    for _ in 0..PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let port = PORTS_FROM + (offset + step) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {PORTS_FROM} on");
}

const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(10);
const LOG_MAX: Duration = Duration::from_secs(5);
const LOG_LINES_SHOWN: usize = 40;
const PORTS_FROM: u16 = 12_000;
const PORTS: u16 = 18_000;
