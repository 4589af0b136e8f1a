//! The real binary and its data directory: who may use it, `inspect` and `repair`.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use ringmq::{
    base::{QoS, TimeOrigin},
    data_dir::{DataDir, Layout},
    storage::{
        DeliveryNumber, Log, MessageRecord, PublicationRecord, Record, SessionNumber,
        SessionRecord, Target,
    },
    topic::SubscriptionOptions,
};
use serde_json::{Value, json};

fn ringmq(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn outcome(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = ringmq(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

/// A path in the tests' own directory where nothing is yet.
fn fresh(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    let _ = fs::remove_file(&path);
    path
}

fn run_args<'a>(path: &'a Path, shards: &'a str) -> [&'a str; 6] {
    ["--data-dir", path.to_str().unwrap(), "-l", "127.0.0.1:0", "--shards", shards]
}

/// A broker that serves; killed when it goes out of scope.
struct Broker {
    child: Child,
    /// Open for as long as it writes.
    _log: BufReader<ChildStderr>,
}

impl Broker {
    fn start(path: &Path, shards: &str) -> Self {
        let mut child = ringmq(&run_args(path, shards)).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let ready = log.by_ref().lines().any(|line| line.unwrap().ends_with(" ready"));
        assert!(ready, "it has not started");
        Self { child, _log: log }
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory with one session, "ann", for which three messages wait; the log of its only shard.
fn filled(name: &str) -> (PathBuf, PathBuf) {
    let path = fresh(name);
    let mut directory = DataDir::open(&path, 1, 7).unwrap();
    let layout = Layout { shards: 1, bytes_max: 8 << 20 };
    let (setup, _) = directory.recover(layout, TimeOrigin::default()).unwrap().remove(0);
    let mut log = Log::new(setup);
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
    log.append(&Record::Session(SessionRecord {
        number: SessionNumber(0),
        client: "ann",
        expiry_secs: u32::MAX,
        detached_at: Some(ringmq::base::WallTime(1000)),
        subscriptions: vec![("a/#", options)],
        ..SessionRecord::default()
    }));
    let file = directory.log_directory().join("000-0000000001.log");
    let mut options = OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).open(&file).unwrap();
    for delivery in 0..3 {
        let target = Target {
            session: SessionNumber(0),
            delivery: DeliveryNumber(delivery),
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: Default::default(),
        };
        let message = MessageRecord {
            topic: "a/b",
            properties: &[],
            payload: &[b'0' + delivery as u8; 10],
            shared: None,
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at: None,
        };
        log.append(&Record::Publication(PublicationRecord {
            message,
            is_retained: false,
            publisher: None,
            origin: None,
            targets: &[target],
        }));
        for write in log.next_batch().expect("a record waits").writes {
            written.write_all_at(&write.bytes.into_vec(), write.offset.into()).unwrap();
        }
        log.batch_committed();
    }
    (path, file)
}

#[test]
fn a_broker_has_its_directory_for_itself() {
    let path = fresh("alone");
    let broker = Broker::start(&path, "2");
    let text = path.to_str().unwrap();
    let in_use = format!("{text}: is in use by process {}, another ringmq", broker.child.id());
    for args in [&["inspect", text][..], &["repair", text], &["repair", text, "--yes"]] {
        assert_eq!(outcome(args), (1, String::new(), format!("ringmq: {in_use}\n")), "{args:?}");
    }
    let (code, _, log) = outcome(&run_args(&path, "2"));
    assert_eq!(code, 1);
    assert!(log.ends_with(&format!("ERROR {in_use}\n")), "{log}");
    broker.stop();
    assert_eq!(
        outcome(&["repair", text]),
        (0, format!("{text}: nothing to repair\n"), String::new())
    );
    let (code, report, _) = outcome(&["inspect", text]);
    assert_eq!(code, 0);
    assert!(report.starts_with(&format!("{text}: 2 shards, generation 1\n")), "{report}");
    // Another number of shards, and after a kill.
    drop(Broker::start(&path, "3"));
    Broker::start(&path, "3").stop();
    let (_, report, _) = outcome(&["inspect", text]);
    assert!(report.starts_with(&format!("{text}: 3 shards, generation 2\n")), "{report}");
}

#[test]
fn nothing_on_disk_needs_no_directory() {
    let path = fresh("ephemeral");
    fs::write(&path, "no directory").unwrap();
    let (code, _, log) = outcome(&run_args(&path, "1"));
    assert_eq!(code, 1);
    assert!(log.ends_with(&format!("ERROR {}: is not a directory\n", path.display())), "{log}");
    let text = path.to_str().unwrap();
    for args in [["inspect", text], ["repair", text]] {
        assert_eq!(outcome(&args).0, 1, "{args:?}");
    }
    let missing = fresh("missing");
    let error = format!("ringmq: {}: No such file or directory (os error 2)\n", missing.display());
    assert_eq!(outcome(&["inspect", missing.to_str().unwrap()]), (1, String::new(), error));
    let mut args = run_args(&path, "1").to_vec();
    args.push("--ephemeral");
    let mut child = ringmq(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().ends_with(" ready")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn inspect_shows_sessions_and_their_queues() {
    let (path, _) = filled("inspected");
    let text = path.to_str().unwrap();
    let (code, report, error) = outcome(&["inspect", text]);
    assert_eq!((code, error.as_str()), (0, ""));
    let ann = "  \"ann\": offline since 1970-01-01T00:00:01.000Z, never expires, shard 0, \
               3 waiting, 0 in flight, ";
    assert!(report.contains(ann), "{report}");
    assert!(report.ends_with("\n    \"a/#\" QoS 1\n"), "{report}");
    let (code, report, _) = outcome(&["inspect", text, "--json"]);
    assert_eq!(code, 0);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let session = &report["sessions"][0];
    assert_eq!(session["client"], "ann");
    assert_eq!((&session["waiting"], &session["online"]), (&json!(3), &json!(false)));
    assert_eq!(session["subscriptions"], json!([{ "filter": "a/#", "qos": 1 }]));
    assert_eq!(report["shards"][0]["segments"], 1);
    assert_eq!(report["retained"], json!({ "messages": 0, "bytes": 0 }));
}

#[test]
fn repair_tells_what_it_costs_before_it_changes_anything() {
    let (path, file) = filled("repaired");
    let text = path.to_str().unwrap();
    let bytes = fs::read(&file).unwrap();
    let at = bytes.windows(10).position(|bytes| bytes == [b'1'; 10]).unwrap();
    OpenOptions::new().write(true).open(&file).unwrap().write_all_at(b"x", at as u64).unwrap();
    let damaged = fs::read(&file).unwrap();

    let (code, _, log) = outcome(&run_args(&path, "1"));
    assert_eq!(code, 1);
    assert!(log.contains(&format!("ERROR {}: damaged at byte ", file.display())), "{log}");
    assert!(log.contains(&format!("`ringmq repair {text}` tells")), "{log}");

    let (code, told, error) = outcome(&["repair", text]);
    assert_eq!((code, error.as_str()), (1, ""));
    assert!(told.starts_with(&format!("{}: ", file.display())), "{told}");
    assert!(told.contains(" cannot be read\n"), "{told}");
    assert!(
        told.contains("\nsession \"ann\" lacks 1 messages that were waiting for it\n"),
        "{told}"
    );
    assert!(told.ends_with(&format!(
        "nothing is changed; `ringmq repair {text} --yes` makes the change\n"
    )));
    assert_eq!(fs::read(&file).unwrap(), damaged);

    let (code, told, _) = outcome(&["repair", text, "--yes"]);
    assert_eq!(code, 0);
    assert!(told.ends_with(&format!("{text}: repaired\n")), "{told}");
    assert_eq!(fs::read(file.with_extension("log.damaged")).unwrap(), damaged);
    Broker::start(&path, "1").stop();
    let (_, report, _) = outcome(&["inspect", text]);
    assert!(report.contains("2 waiting"), "{report}");
}
