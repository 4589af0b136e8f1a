//! A broker that is started for its turn: up when its port answers, gone when the value is dropped.
//!
//! The broker runs in the process group of a guard, a shell that waits for the end of its standard
//! input. That end comes when this program lets go of it, but also when this program is killed: no
//! broker outlives it. What leaves the group (a daemon) is out of reach.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::{fs::FileExt, process::CommandExt},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// A broker's process.
pub(super) struct Started {
    broker: Child,
    guard: Child,
    /// A line on it ends the broker gently, its end ends whatever is left.
    leash: Option<ChildStdin>,
    host: String,
    port: u16,
    /// What the broker wrote; the file has no name any more.
    output: File,
}

/// Why a broker is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("something answers on {address} already: the broker cannot be started there")]
    PortTaken { address: String },
    #[error("the host {host:?} is unknown: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("cannot start the broker: {0}")]
    Start(#[from] io::Error),
    #[error("{0}")]
    Ended(End),
    #[error("the broker does not answer on {address} within {} s{tail}", PATIENCE.as_secs())]
    NoAnswer { address: String, tail: Tail },
    #[error("interrupted while the broker started")]
    Interrupted,
}

/// How a broker came to its end, although nobody told it to.
#[derive(Debug, thiserror::Error)]
#[error("the broker has ended ({status}){tail}")]
pub(super) struct End {
    status: ExitStatus,
    tail: Tail,
}

/// The last lines of a broker's output.
#[derive(Debug)]
pub(super) struct Tail(String);

impl Started {
    /// Runs the command in a shell, on these CPUs (as `taskset -c` takes them) if any are given, and
    /// waits until something answers at the address.
    pub(super) fn start(
        command: &str,
        cpus: Option<&str>,
        address: (&str, u16),
        interrupt: &AtomicBool,
    ) -> Result<Self, StartError> {
        if answers(address)? {
            return Err(StartError::PortTaken { address: shown(address) });
        }
        let output = nameless_file()?;
        let mut guard = Command::new("sh")
            .args(["-c", GUARD])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let leash = guard.stdin.take();
        let mut shell = match cpus {
            Some(cpus) => {
                let mut shell = Command::new("taskset");
                shell.args(["-c", cpus, "sh"]);
                shell
            }
            None => Command::new("sh"),
        };
        shell.args(["-c", command]).stdin(Stdio::null()).process_group(guard.id() as i32);
        let streams = output.try_clone().and_then(|out| Ok((out, output.try_clone()?)));
        let spawned = streams.and_then(|(out, err)| shell.stdout(out).stderr(err).spawn());
        let broker = match spawned {
            Ok(broker) => broker,
            Err(error) => {
                drop(leash);
                // It ends itself; there is nothing that it could say.
                let _ = guard.wait();
                return Err(error.into());
            }
        };
        let (host, port) = (address.0.to_owned(), address.1);
        let mut started = Self { broker, guard, leash, host, port, output };
        started.until_up(address, interrupt)?;
        Ok(started)
    }

    pub(super) fn pid(&self) -> u32 {
        self.broker.id()
    }

    /// How it ended, if it did.
    pub(super) fn end(&mut self) -> Option<End> {
        let status = self.broker.try_wait().ok().flatten()?;
        Some(End { status, tail: self.tail() })
    }

    fn until_up(&mut self, address: (&str, u16), interrupt: &AtomicBool) -> Result<(), StartError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let is_up = answers(address)?;
            // In this order: what answers is not this broker if this broker has ended.
            if let Some(end) = self.end() {
                return Err(StartError::Ended(end));
            }
            if is_up {
                return Ok(());
            }
            if interrupt.load(Ordering::Relaxed) {
                return Err(StartError::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(StartError::NoAnswer { address: shown(address), tail: self.tail() });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn tail(&self) -> Tail {
        let len = self.output.metadata().map_or(0, |meta| meta.len());
        let mut bytes = vec![0; TAIL_BYTES_MAX.min(len) as usize];
        let read = self.output.read_exact_at(&mut bytes, len.saturating_sub(TAIL_BYTES_MAX));
        let text = String::from_utf8_lossy(if read.is_ok() { &bytes } else { &[] });
        Tail(last_lines(&text))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Fails if the guard has been killed; then there is only the broker itself to be killed.
        let told = self.leash.as_mut().is_some_and(|leash| leash.write_all(b"\n").is_ok());
        let deadline = Instant::now() + STOP_PATIENCE;
        while told && Instant::now() < deadline && matches!(self.broker.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK_EVERY);
        }
        drop(self.leash.take());
        // The guard ends itself with the group.
        let _ = self.guard.wait();
        // Fails only if it has ended already.
        let _ = self.broker.kill();
        let _ = self.broker.wait();
        // What the shell had started was killed too, but may not be gone: its next run would find it.
        let deadline = Instant::now() + GONE_PATIENCE;
        let address = (self.host.as_str(), self.port);
        while matches!(answers(address), Ok(true)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("; it wrote nothing");
        }
        write!(f, "; its last lines:\n{}", self.0)
    }
}

/// Whether something accepts connections there.
fn answers((host, port): (&str, u16)) -> Result<bool, StartError> {
    let addresses = (host, port).to_socket_addrs();
    let mut addresses =
        addresses.map_err(|source| StartError::Resolve { host: host.to_owned(), source })?;
    Ok(addresses.any(|address| TcpStream::connect_timeout(&address, CONNECT_MAX).is_ok()))
}

fn shown((host, port): (&str, u16)) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A file that is gone when the last process closes it.
fn nameless_file() -> io::Result<File> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("loadgen-{}-{number}.out", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// The end of the text, indented, without what a terminal would obey.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..];
    let clean = |line: &&str| {
        let line: String = line.chars().filter(|one| !one.is_control()).collect();
        format!("    {line}")
    };
    last.iter().map(clean).collect::<Vec<_>>().join("\n")
}

/// Standard input and process group 0 are its leash and its group. A line: the brokers are to end, it
/// is told when they had the time. No line but the end: nobody is there to tell.
const GUARD: &str = "\
trap '' HUP INT TERM
if read -r told; then
    kill -TERM 0
    read -r told
else
    kill -TERM 0
    sleep 3
fi
kill -KILL 0";

/// Time for a broker to answer; those on a virtual machine of their own take some.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time for a broker to end by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Time for the kernel to take down what was killed.
const GONE_PATIENCE: Duration = Duration::from_secs(2);

const LOOK_EVERY: Duration = Duration::from_millis(20);

const CONNECT_MAX: Duration = Duration::from_secs(1);

const TAIL_BYTES_MAX: u64 = 8 * 1024;

const TAIL_LINES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// An address that nobody listens on.
    fn free_address() -> (&'static str, u16) {
        ("127.0.0.1", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
    }

    #[test]
    fn a_command_that_ends_is_no_broker_and_its_output_is_told() {
        let command = "echo one; printf 'two\\033[2J\\n' >&2; exit 3";
        let started = Started::start(command, None, free_address(), &AtomicBool::new(false));
        let error = started.err().unwrap().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with("its last lines:\n    one\n    two[2J"), "{error}");
    }

    #[test]
    fn a_port_that_is_taken_is_told_before_anything_is_started() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ("127.0.0.1", listener.local_addr().unwrap().port());
        let started = Started::start("false", None, address, &AtomicBool::new(false));
        assert!(matches!(started, Err(StartError::PortTaken { .. })));
    }

    #[test]
    fn an_interrupt_ends_the_wait_and_the_broker() {
        let marker = std::env::temp_dir().join(format!("loadgen-pid-{}", std::process::id()));
        // Deaf to SIGTERM would take the whole patience; this one is not.
        let command = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 60; :", marker.display());
        let interrupt = AtomicBool::new(false);
        let started = std::thread::scope(|scope| {
            let start = || Started::start(&command, None, free_address(), &interrupt);
            let starting = scope.spawn(start);
            while !marker.exists() {
                std::thread::yield_now();
            }
            interrupt.store(true, Ordering::Relaxed);
            starting.join().unwrap()
        });
        assert!(matches!(started, Err(StartError::Interrupted)));
        let pid = fs::read_to_string(&marker).unwrap();
        fs::remove_file(&marker).unwrap();
        assert!(!fs::exists(format!("/proc/{}", pid.trim())).unwrap());
    }

    #[test]
    fn only_the_last_lines_are_told() {
        let lines: Vec<String> = (0..30).map(|line| format!("line {line}")).collect();
        let told = last_lines(&lines.join("\n\n"));
        assert_eq!(told.lines().count(), TAIL_LINES_MAX);
        assert!(told.starts_with("    line 20\n") && told.ends_with("    line 29"));
        assert_eq!(Tail(last_lines("\n")).to_string(), "; it wrote nothing");
    }
}
