//! The real binary up to the point where it would serve: help, `check`, and
//! every start that is refused before a socket is opened.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

fn ringmq(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

/// A file in the tests' own directory; the name is part of the messages.
fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn check_accepts_a_right_file() {
    let path = file("right.toml", "listen = [\"127.0.0.1:1883\"]\n[limits]\ninflight_max = 5\n");
    let expected = (0, format!("{path}: ok\n"), String::new());
    assert_eq!(outcome(&mut ringmq(&["check", &path])), expected);
    assert_eq!(outcome(ringmq(&["check", &path]).env("RINGMQ_NOISE", "1")), expected);
}

#[test]
fn check_lists_every_mistake_with_its_line() {
    let path = file("wrong.toml", "log_level = \"warning\"\n\n[limits]\ninflght_max = 5\n");
    let expected = format!(
        "{path}:1: log_level = \"warning\", but it must be one of error, warn, info, debug, \
         trace; did you mean \"warn\"?\n\
         {path}:4: unknown key \"limits.inflght_max\"; did you mean \"limits.inflight_max\" \
         (a whole number from 1 to 65535)?\n"
    );
    assert_eq!(outcome(&mut ringmq(&["check", &path])), (1, String::new(), expected));
}

#[test]
fn check_knows_set() {
    let path = file("open.toml", "listen = [\"0.0.0.0:1883\"]\n");
    assert_eq!(outcome(&mut ringmq(&["check", &path])).0, 1);
    assert_eq!(outcome(&mut ringmq(&["check", &path, "--set", "allow_anonymous=true"])).0, 0);
}

#[test]
fn help_teaches_and_version_is_told() {
    let (code, help, _) = outcome(&mut ringmq(&["--help"]));
    assert_eq!(code, 0);
    for taught in [
        "mosquitto_sub -t 'test/#'",
        "--set allow_anonymous=true",
        "RINGMQ_LIMITS_INFLIGHT_MAX=100",
        "limits.queue_bytes_max (default: 134217728)",
        "ringmq check ringmq.toml",
        "keeps all state in memory",
    ] {
        assert!(help.contains(taught), "{taught:?} is missing in:\n{help}");
    }
    let (code, version, _) = outcome(&mut ringmq(&["--version"]));
    assert_eq!((code, version.as_str()), (0, concat!("ringmq ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn misuse_of_a_flag_exits_with_2() {
    for args in [
        &["--no-such-flag"][..],
        &["--shards", "two"],
        &["--log-format", "xml"],
        &["check"],
        &["-v", "check", "file.toml"],
    ] {
        let (code, stdout, stderr) = outcome(&mut ringmq(args));
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
}

#[test]
fn refused_starts_say_where_and_why() {
    let open = "is open to other machines, but clients need no authentication: anybody could \
                publish and subscribe. To allow that, set `allow_anonymous = true` (or --set \
                allow_anonymous=true)";
    let path = file("refused.toml", "shards = 2\nlisten = [\"0.0.0.0:1883\"]\n");
    for (args, expected) in [
        (
            &["-l", "0.0.0.0:1883"][..],
            format!("-l: listen address \"0.0.0.0:1883\" (0.0.0.0:1883) {open}"),
        ),
        (
            &["-c", &path],
            format!("{path}:2: listen address \"0.0.0.0:1883\" (0.0.0.0:1883) {open}"),
        ),
        (
            &["-c", "/nonexistent.toml"],
            "/nonexistent.toml: cannot be read: No such file or directory (os error 2)".to_owned(),
        ),
        (
            &["-l", "mqtts://localhost"],
            "-l: listen address \"mqtts://localhost\" needs mqtts, which is not supported by this \
             version; only mqtt:// is"
                .to_owned(),
        ),
        (
            &["--shards", "0"],
            "--shards: shards = 0, but it must be a whole number from 1 to 128".to_owned(),
        ),
    ] {
        let expected = (1, String::new(), format!("ringmq: {expected}\n"));
        assert_eq!(outcome(&mut ringmq(args)), expected);
    }
    let (code, _, stderr) = outcome(ringmq(&[]).env("RINGMQ_SHARD", "4"));
    assert_eq!(code, 1);
    assert_eq!(
        stderr,
        "ringmq: RINGMQ_SHARD: unknown variable; did you mean RINGMQ_SHARDS (a whole number from \
         1 to 128)?\n"
    );
}

#[test]
fn a_closed_standard_error_is_no_reason_to_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = ringmq(&["--shards", "0"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

/// Whoever reads the log may stop reading: that loses lines, not clients.
#[test]
fn a_reader_of_the_log_that_stalls_stops_nothing() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut broker =
        ringmq(&["-v", "-l", &address]).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut client = loop {
        match TcpStream::connect(&address) {
            Ok(client) => break client,
            Err(_) => assert!(broker.try_wait().unwrap().is_none(), "it ended"),
        }
    };
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a").unwrap();
    let mut connack = [0; 4];
    client.read_exact(&mut connack).unwrap();
    // Two lines each, ten times what a pipe holds.
    for _ in 0..10_000 {
        client.write_all(b"\xc0\0").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
    }
    let pid = broker.id().to_string();
    Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap();
    assert_eq!(broker.wait().unwrap().code(), Some(0));
}
