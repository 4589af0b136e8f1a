//! The real binary up to the point where it would serve: help, `check`, and
//! every start that is refused before a socket is opened.

use std::{
    fs::Permissions,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
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
        "ringmq inspect ./data",
        "durability (default: commit)",
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
                publish and subscribe. Name users in `password_file`, or to allow that, set `allow_anonymous = true` (or --set \
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
            "-l: listener \"mqtts://localhost\" needs certificates, such as certificates = \
             [\"server.pem => server.key\"] in a section [[listener]]"
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

/// Runs `ringmq passwd` with this on its standard input.
fn passwd(args: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut command = ringmq(&[&["passwd"], args].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have refused already.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn passwd_adds_changes_and_deletes() {
    let path = file("passwd.users", "");
    std::fs::remove_file(&path).unwrap();
    let done =
        |what| (0, format!("{path}: {what}; a broker takes it up at its start\n"), String::new());
    assert_eq!(passwd(&[&path, "ann"], b"pencil\n"), done("user \"ann\" added"));
    assert_eq!(mode(&path), 0o600);
    let first = std::fs::read_to_string(&path).unwrap();
    let is_both = first.starts_with("ann:$argon2id$v=19$m=19456,t=2,p=1$")
        && first.contains(" SCRAM-SHA-256$16384:")
        && first.ends_with("=\n");
    assert!(is_both, "{first}");

    let kept = format!("# users of the plant\n{first}");
    std::fs::write(&path, &kept).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(passwd(&[&path, "bob ray"], b"rubber\r\n"), done("user \"bob ray\" added"));
    assert_eq!(passwd(&[&path, "ann"], b"pencil"), done("user \"ann\" changed"));
    let changed = std::fs::read_to_string(&path).unwrap();
    let users: Vec<_> = changed.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(users, ["# users of the plant", "ann", "bob ray"]);
    assert!(!changed.contains(&first), "the salt of the same password is another");
    assert_eq!(passwd(&[&path, "ann", "--delete"], b""), done("user \"ann\" deleted"));
    assert_eq!(passwd(&[&path, "bob ray", "--delete"], b""), done("user \"bob ray\" deleted"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "# users of the plant\n");
    assert_eq!(mode(&path), 0o640, "who may read it is the operator's to say");
}

const ON_COMMAND_LINE: &str = "a password on the command line can be read by everybody on this machine: give it as \
     one line of standard input, or in a file with --from";

/// A file that Debian's mosquitto_passwd wrote is taken as it is, and its lines stay until they are changed.
#[test]
fn passwd_goes_on_with_a_file_of_mosquitto_passwd() {
    let path = file("mosquitto.users", "");
    for (user, hash) in [("old", "sha512"), ("new", "sha512-pbkdf2"), ("gone", "sha512")] {
        let status = Command::new("mosquitto_passwd")
            .args(["-H", hash, "-b", &path, user, "pencil"])
            .status()
            .expect("mosquitto_passwd is installed");
        assert!(status.success());
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("old:$6$") && lines[1].starts_with("new:$7$101$"), "{text}");
    let check = |path: &str| {
        let config = file("mosquitto.toml", &format!("password_file = \"{path}\"\n"));
        outcome(&mut ringmq(&["check", &config])).0
    };
    assert_eq!(check(&path), 0);
    assert_eq!(passwd(&[&path, "gone", "-D"], b"").0, 0);
    let from = file("mosquitto.password", "rubber\n");
    assert_eq!(passwd(&[&path, "old", "--from", &from], b"").0, 0);
    let text = std::fs::read_to_string(&path).unwrap();
    let now: Vec<_> = text.lines().collect();
    assert!(now[0].starts_with("old:$argon2id$") && now[1] == lines[1] && now.len() == 2, "{text}");
    assert_eq!(check(&path), 0);
}

/// What a broker does not say in `check`, nor with a wrong configuration.
#[test]
fn secrets_are_not_shown() {
    let secret = "s3cr3t".repeat(8);
    let right = format!("[auth]\njwt_secret = \"{secret}\"\nhttp_header = \"X: {secret}\"\n");
    let right = file("secrets.toml", &right);
    let wrong = format!("[auth]\njwt_secret = [\"{secret}\"]\nhttp_header = \"{secret}\"\n");
    let wrong = file("wrong-secrets.toml", &wrong);
    for (path, expected) in [(right, 0), (wrong, 1)] {
        let (code, stdout, stderr) = outcome(&mut ringmq(&["check", &path]));
        assert_eq!(code, expected);
        assert!(!format!("{stdout}{stderr}").contains("s3cr3t"), "{stdout}{stderr}");
    }
}

#[test]
fn passwd_follows_links() {
    let path = file("linked.users", "# here\n");
    let link = format!("{path}.link");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(passwd(&[&link, "ann"], b"pencil\n").0, 0);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("# here\nann:$argon2id$"));
}

#[test]
fn passwd_refuses_and_leaves_the_file_alone() {
    let text = "# users\n";
    let path = file("refused.users", text);
    let long = "x".repeat(1025);
    for (args, input, expected) in [
        (&[&*path, ""][..], &b"x"[..], "the user name is empty"),
        (&[&path, "a:b"], b"x", "user name \"a:b\" holds a colon"),
        (&[&path, "#a"], b"x", "user name \"#a\" begins with #"),
        (&[&path, " a"], b"x", "user name \" a\" begins or ends with a blank"),
        (
            &[&path, "a\u{1}"],
            b"x",
            "user name \"a\\u{1}\" holds control or other forbidden characters",
        ),
        (
            &[&path, "ann"],
            b"\n",
            "the password is empty or holds control or other forbidden characters",
        ),
        (
            &[&path, "ann"],
            b"a\x01",
            "the password is empty or holds control or other forbidden characters",
        ),
        (&[&path, "ann"], b"\xff", "the password is not valid UTF-8"),
        (&[&path, "ann"], b"one\ntwo\n", "there is more than the line of a password"),
        (&[&path, "ann"], long.as_bytes(), "the password is too long"),
        (&[&path, "ann", "--delete"], b"", &format!("{path}: there is no user \"ann\"")),
        (
            &[&path, "ann", "--from", "/nonexistent"],
            b"x",
            "/nonexistent: No such file or directory (os error 2)",
        ),
        (&[&path, "-b", "ann", "pencil"], b"x", ON_COMMAND_LINE),
        (&[&path, "ann", "pencil"], b"x", ON_COMMAND_LINE),
        (
            &["/nonexistent/users", "ann"],
            b"x",
            "/nonexistent/users.new: No such file or directory (os error 2)",
        ),
        (&["/", "ann"], b"x", "/: Is a directory (os error 21)"),
    ] {
        let expected = (1, String::new(), format!("ringmq: {expected}\n"));
        assert_eq!(passwd(args, input), expected, "{args:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    let busy = format!("{path}.new");
    std::fs::write(&busy, "").unwrap();
    let (code, _, stderr) = passwd(&[&path, "ann"], b"x");
    std::fs::remove_file(&busy).unwrap();
    assert_eq!(code, 1);
    assert!(stderr.contains(&format!("{busy} exists: another `ringmq passwd`")), "{stderr}");

    std::fs::write(&path, "# users\nann\n").unwrap();
    let form = "must have the form USER:HASH, as `ringmq passwd` and mosquitto_passwd write it";
    let expected = (1, String::new(), format!("ringmq: {path}:2: {form}\n"));
    assert_eq!(passwd(&[&path, "bob"], b"x"), expected);
}

#[test]
fn a_wrong_password_file_is_refused_with_its_lines() {
    let keys = "A".repeat(43) + "=";
    let line = |user| format!("{user}:SCRAM-SHA-256$4096:c2FsdA==${keys}:{keys}");
    let (ann, bob) = (line("ann"), line("bob"));
    let right = file("right.users", &format!("# users\n\n{ann}\n{bob}\n"));
    let wrong = file("wrong.users", &format!("{ann}\n{}\n{ann}\n", bob.replace("4096", "1000")));
    let set = |path| format!("password_file={path}");
    let path = file("users.toml", &format!("password_file = \"{wrong}\"\n"));
    let few = "user \"bob\": 1000 iterations are too few, at least 4096 are needed";
    let twice = "user \"ann\" has a line already";
    let expected = format!("{wrong}:2: {few}\n{wrong}:3: {twice}\n");
    assert_eq!(outcome(&mut ringmq(&["check", &path])), (1, String::new(), expected));
    let missing = "/nonexistent.users";
    let expected = format!(
        "{missing}: the file named by password_file cannot be read: No such file or directory (os error 2)\n"
    );
    let refused = outcome(&mut ringmq(&["check", &path, "--set", &set(missing)]));
    assert_eq!(refused, (1, String::new(), expected));
    // None is none; and where users can authenticate, others may reach the broker.
    assert_eq!(outcome(&mut ringmq(&["check", &path, "--set", "password_file=\"\""])).0, 0);
    let open = file("open-with-users.toml", "listen = [\"0.0.0.0:1883\"]\n");
    assert_eq!(outcome(&mut ringmq(&["check", &open])).0, 1);
    assert_eq!(outcome(&mut ringmq(&["check", &open, "--set", &set(&right)])).0, 0);
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
    // As with `ringmq 2>&1 | less`.
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut command = ringmq(&["-v", "--ephemeral", "-l", &address]);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut broker = command.spawn().expect("it starts");
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

#[test]
fn a_wrong_acl_file_is_refused_with_its_places() {
    let rules = file("wrong.acl", "topic a\n\nuser\ntopic raed b\n");
    let path = file("acl.toml", &format!("acl_file = \"{rules}\"\n"));
    let expected = format!(
        "{rules}:3:1: a user name is missing behind \"user\"\n\
         {rules}:4:7: \"raed\" is none of read, write, readwrite and deny\n"
    );
    assert_eq!(outcome(&mut ringmq(&["check", &path])), (1, String::new(), expected));
    let (code, _, error) =
        outcome(&mut ringmq(&["check", &path, "--set", "acl_file=/nonexistent"]));
    let expected = "/nonexistent: the file named by acl_file cannot be read: No such file or directory (os error 2)\n";
    assert_eq!((code, error.as_str()), (1, expected));
}

#[test]
fn acl_explain_tells_the_rule_that_decides() {
    let own = file(
        "explain.toml",
        "[[rule]]\ndeny = \"subscribe\"\ntopics = \"a/secret/#\"\n[[rule]]\nallow = \"all\"\ntopics = \"a/#\"\n\
         user = \"ann\"\ngroup = \"ops\"\naddress = \"10.0.0.0/8\"\nqos_max = 1\n",
    );
    let ask = |args: &[&str]| {
        outcome(&mut ringmq(&[&["acl", "explain", "--acl-file", &own], args].concat()))
    };
    let ann = ["--group", "ops", "--address", "10.1.1.1", "ann", "c"];
    let rule =
        format!("{own}:4: allow publish, subscribe, receive on \"a/#\" (by user, group, address)");
    let deny = format!("{own}:1: deny subscribe, receive on \"a/secret/#\"");
    let expected = format!(
        "publish   allowed  {rule}\nsubscribe allowed up to QoS 1  {rule}\nreceive   allowed  {rule}\n"
    );
    assert_eq!(ask(&[&ann[..], &["a/b"]].concat()), (0, expected, String::new()));
    let expected = format!(
        "publish   allowed  {rule}\nsubscribe denied   {deny}\nreceive   denied   {deny}\n"
    );
    assert_eq!(ask(&[&ann[..], &["a/secret/x"]].concat()), (1, expected, String::new()));
    let expected = "publish   denied   no rule fits\n".to_owned();
    let asked = [&["--qos", "2"], &ann[..], &["a/b", "publish"]].concat();
    assert_eq!(ask(&asked), (1, expected.clone(), String::new()));
    assert_eq!(ask(&["-", "c", "a/b", "publish"]), (1, expected, String::new()));
    assert_eq!(ask(&["-", "c", "a#"]).0, 1);
    assert_eq!(ask(&["-", "c", "a", "write"]).0, 2);

    let theirs = file("explain.acl", "topic read a\npattern write %u/%c\n");
    let config = file("explain-config.toml", &format!("acl_file = \"{theirs}\"\n"));
    let ask = |args: &[&str]| {
        outcome(&mut ringmq(&[&["acl", "explain", "--config", &config], args].concat()))
    };
    let expected = format!(
        "publish   denied   no rule fits\n\
         subscribe allowed  mosquitto's form restricts what is received, not what is subscribed to\n\
         receive   allowed  {theirs}:1: allow receive on \"a\" (by anonymous)\n"
    );
    assert_eq!(ask(&["-", "c", "a"]), (1, expected, String::new()));
    let expected = format!("publish   allowed  {theirs}:2: allow publish on \"%u/%c\"\n");
    assert_eq!(ask(&["ann", "c", "ann/c", "publish"]), (0, expected, String::new()));
    let expected = "publish   denied   no rule opens this topic, which starts with $\n".to_owned();
    assert_eq!(ask(&["ann", "c", "$x", "publish"]), (1, expected, String::new()));
    let none = outcome(&mut ringmq(&["acl", "explain", "ann", "c", "a"]));
    assert!(none.0 == 1 && none.2.contains("--acl-file"), "{none:?}");
}
