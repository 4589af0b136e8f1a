//! The process becomes another user's, with its ports bound and nothing left of root's rights. Without root there is
//! only the refusal to test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output};

use crate::common::Broker;
use crate::files::{Files, SERVER};

/// Debian's user for what owns nothing.
const NOBODY: &str = "nobody";

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("this is Linux").uid() == 0
}

/// What a broker says that does not start.
fn refused(config: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(["-c", config, "--set", "ephemeral=true", "-l", "127.0.0.1:0"])
        .output()
        .expect("it runs")
}

/// One line of the status of each thread, by its name.
fn statuses(broker: &Broker, name: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", broker.pid())).expect("it runs");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let line = |text: String| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.expect("every status has it").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    tasks.filter_map(Result::ok).filter_map(status).map(line).collect()
}

#[test]
fn no_thread_keeps_anything_of_root_but_its_port_below_1024() {
    if !is_root() {
        return;
    }
    let files = Files::new();
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (600..1024).rev().find(is_free).expect("a free port below 1024");
    let config = format!(
        "user = \"{NOBODY}\"\n[[listener]]\nurl = \"mqtts://127.0.0.1:{port}\"\n{SERVER}\n"
    );
    for path in ["", "ca.pem", "server.pem", "server.key"] {
        let given = Command::new("chmod").args(["a+rX", &files.path(path)]).status();
        assert!(given.expect("chmod runs").success());
    }
    let broker = files.broker_with(2, &config);
    let id = User::nobody();
    for (name, expected) in [
        ("Uid", format!("{0} {0} {0} {0}", id.uid)),
        ("Gid", format!("{0} {0} {0} {0}", id.gid)),
        ("Groups", id.groups.clone()),
        ("CapEff", "0000000000000000".to_owned()),
        ("CapPrm", "0000000000000000".to_owned()),
        ("CapInh", "0000000000000000".to_owned()),
    ] {
        let found = statuses(&broker, name);
        assert!(found.len() > 3 && found.iter().all(|one| *one == expected), "{name}: {found:?}");
    }
    let published = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "--cafile", &files.path("ca.pem")])
        .args(["--insecure", "-q", "1", "-r", "-t", "t", "-m", "kept"])
        .output()
        .expect("mosquitto-clients is installed");
    assert!(published.status.success(), "{published:?}");
    // What it may not read any more does not take effect.
    fs::set_permissions(files.path("server.key"), fs::Permissions::from_mode(0o600))
        .expect("the test owns it");
    broker.signal("HUP");
    broker.wait_for_log(&["server.key", "denied", "stay in use"]);
    broker.terminate();
}

/// Who the user is, as Debian's `id` has it.
struct User {
    uid: String,
    gid: String,
    groups: String,
}

impl User {
    fn nobody() -> Self {
        let id = |flag: &str| {
            let output = Command::new("id").args([flag, NOBODY]).output().expect("id runs");
            String::from_utf8(output.stdout).expect("numbers").trim().to_owned()
        };
        Self { uid: id("-u"), gid: id("-g"), groups: id("-G") }
    }
}

#[test]
fn who_cannot_become_the_user_does_not_start() {
    let files = Files::new();
    let unknown = "user = \"no-such-user\"";
    let mut wrong = vec![(unknown, "this machine has no user of that name")];
    match is_root() {
        true => wrong.push(("user = \"nobody\"\npassword_file = \"{}/secret\"", "denied")),
        false => wrong.push(("user = \"nobody\"", "the process is not root's")),
    }
    files.write("secret", "");
    fs::set_permissions(files.path("secret"), fs::Permissions::from_mode(0o600))
        .expect("the test owns it");
    for (config, expected) in wrong {
        files.write("ringmq.toml", &config.replace("{}", files.path("").trim_end_matches('/')));
        let output = refused(&files.path("ringmq.toml"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{config}: {said}");
    }
}
