//! `loadgen` and brokers as child processes.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::mosquitto_binary;

pub(crate) use crate::common::{Broker, Scratch, free_port, signal};

/// Debian's mosquitto with this configuration. The first port is that of the broker.
pub(crate) fn mosquitto(config: &Path, ports: &[u16]) -> Broker {
    let mut command = Command::new(mosquitto_binary().unwrap_or("mosquitto".into()));
    command.arg("-c").arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|error| {
        panic!("{command:?}: {error} (`apt-get install mosquitto` brings mosquitto)")
    });
    let mut broker = Broker { child, port: ports[0] };
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
    let file = Scratch::new("json");
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
