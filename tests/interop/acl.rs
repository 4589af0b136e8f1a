//! mosquitto's own decisions: Debian's mosquitto and ringmq, each with the same `acl_file`, are asked
//! the same questions.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Broker, RawClient, free_port, password_file};

/// The observer may do everything, to see what the others may.
const OBSERVER: &str =
    "\nuser observer\ntopic readwrite #\ntopic readwrite $x/#\ntopic readwrite $SYS/#\n";

const FILES: [&str; 5] = [
    // Sections, and what denies.
    "# A comment\n\
     topic read public/#\n\
     topic write inbox\n\
     topic deny public/hidden\n\
     \n\
     user ann\n\
     topic readwrite a/#\n\
     topic deny a/secret/#\n\
     topic a/secret/open\n\
     topic read with a space/+\n\
     topic   write   more   space  \n\
     user bob\n\
     topic b/+/c\n\
     topic read +\n\
     topic read\n\
     user ann\n\
     topic read late\n",
    // Patterns.
    "pattern readwrite own/%u/#\n\
     pattern write own/%c/state\n\
     user bob\n\
     pattern read shared/%u/%c\n\
     pattern deny own/bob/closed\n\
     pattern read everywhere\n\
     topic deny shared/bob/b\n\
     topic write own/%u/literal\n",
    // What starts with $.
    "topic readwrite #\n\
     topic read $SYS/#\n\
     topic write $SYS/a\n\
     topic write $SYS/broker/connection/a/state\n\
     topic write $CONTROL/x\n\
     topic write $share/g/x\n\
     user ann\n\
     topic readwrite $x/a\n\
     topic readwrite +/b\n\
     topic deny $x/b\n\
     user bob\n\
     topic deny #\n\
     topic readwrite $x/#\n\
     pattern readwrite #\n",
    // Denials alone, and wildcards in odd places.
    "topic deny a\n\
     user ann\n\
     topic deny a/#\n\
     topic readwrite a\n\
     user bob\n\
     topic readwrite /+\n\
     topic readwrite +/+/#\n\
     topic deny //\n",
    // Nothing.
    "\n",
];

const WHO: [(&str, &str); 8] = [
    ("", "a"),
    ("", "b+"),
    ("ann", "a"),
    ("ann", "x"),
    ("ann", "#"),
    ("bob", "b"),
    ("bob", "ann"),
    ("eve", "e v e"),
];

const TOPICS: [&str; 42] = [
    "a",
    "b",
    "a/b",
    "a/secret",
    "a/secret/x",
    "a/secret/open",
    "public",
    "public/x",
    "public/hidden",
    "public/hidden/x",
    "inbox",
    "with a space/x",
    "with a space",
    "more   space",
    "more space",
    "b/x/c",
    "b/x",
    "late",
    "read",
    "own",
    "own/ann",
    "own/ann/x",
    "own/bob",
    "own/bob/closed",
    "own/a/state",
    "own/a/x",
    "own/%u/literal",
    "own/eve/x",
    "shared/bob/b",
    "shared/bob/ann",
    "shared/ann/b",
    "everywhere",
    "$x/a",
    "$x/b",
    "$x/b/c",
    "/",
    "//",
    "/x",
    "x/b",
    "x//",
    "e v e",
    "own/e v e/x",
];

/// Topics that the observer cannot publish to everywhere: only whether these clients can is compared.
const PUBLISHED_ONLY: [&str; 6] = [
    "$SYS/a",
    "$SYS",
    "$SYS/broker/connection/a/state",
    "$SYS/broker/connection/a/b/state",
    "$CONTROL/x",
    "$SYSTEM/x",
];

#[test]
fn ringmq_decides_as_mosquitto_does() {
    for (number, rules) in FILES.iter().enumerate() {
        let file = acl_file(&format!("same-{number}"), &format!("{rules}{OBSERVER}"));
        let mosquitto = Mosquitto::start(&file);
        let expected = decisions(mosquitto.port, |port, user, id| {
            let mut client = RawClient::connect(port);
            match user {
                "" => client.send(&format!("10 ( 'MQTT' 05 02 003c () '{id}' )")),
                _ => client.send(&format!("10 ( 'MQTT' 05 82 003c () '{id}' '{user}' )")),
            }
            client.expect_accepted();
            client
        });
        drop(mosquitto);
        let users = password_file(&format!("same-{number}"), &["ann", "bob", "eve", "observer"]);
        let settings = [format!("acl_file={file:?}"), format!("password_file={users:?}")];
        for shards in [1, 4] {
            let broker = Broker::start_quiet(shards, &settings.each_ref().map(String::as_str));
            let found = decisions(broker.port, |port, user, id| match user {
                "" => RawClient::v5(port, id),
                _ => RawClient::v5_user(port, ("02", ""), id, "", user),
            });
            let differences: Vec<_> =
                expected.iter().zip(&found).filter(|(theirs, ours)| theirs != ours).collect();
            assert!(differences.is_empty(), "{rules}\n{shards} shards: {differences:#?}");
            assert!(expected.iter().any(|line| line.ends_with("true")) || number == 4);
        }
        fs::remove_file(users).expect("the file is ours");
        fs::remove_file(file).expect("the file is ours");
    }
}

/// Who may do what, a line each. `connect` makes a client of that user.
fn decisions(port: u16, connect: impl Fn(u16, &str, &str) -> RawClient) -> Vec<String> {
    let mut observer = connect(port, "observer", "observer");
    // On every shard: when they have got what was sent last, all before it has been sent to everybody.
    let mut witnesses: Vec<_> =
        (0..40).map(|n| connect(port, "observer", &format!("witness {n}"))).collect();
    for witness in &mut witnesses {
        witness.send("82 ( 0001 () 'last' 00 )");
        witness.expect("90 ( 0001 () 00 )");
    }
    let mut lines = Vec::new();
    for (user, id) in WHO {
        let mut client = connect(port, user, id);
        for topic in TOPICS.into_iter().chain(PUBLISHED_ONLY) {
            client.send(&format!("32 ( '{topic}' 0007 () `x` )"));
            let reason = client.ack_reason(0x40, "0007");
            lines.push(format!("{user}/{id} publish {topic}: {}", reason < 0x80));
        }
        for topic in TOPICS {
            client.send(&format!("82 ( 0008 () '{topic}' 00 )"));
            client.expect("90 ( 0008 () 00 )");
        }
        for topic in TOPICS.into_iter().chain(["last"]) {
            observer.send(&format!("32 ( '{topic}' 0009 () `x` )"));
            assert!(observer.ack_reason(0x40, "0009") < 0x80, "{topic}");
        }
        witnesses.iter_mut().for_each(|witness| drop(witness.expect("30 ( 'last' () `x` )")));
        let received = topics_received(&mut client);
        for topic in TOPICS {
            let is_received = received.iter().any(|one| one == topic);
            lines.push(format!("{user}/{id} receive {topic}: {is_received}"));
        }
    }
    lines
}

/// The topics of all that has been sent to a client.
fn topics_received(client: &mut RawClient) -> Vec<String> {
    let mut topics = Vec::new();
    client.send("c0 00");
    loop {
        let packet = client.read_packet();
        if packet[0] == 0xd0 {
            return topics;
        }
        let length = usize::from(packet[3]);
        topics.push(String::from_utf8(packet[4..4 + length].to_vec()).expect("text"));
    }
}

/// What ringmq is stricter in: a slash in a name. Everything else of the file holds.
#[test]
fn a_slash_in_a_name_opens_no_pattern() {
    let file = acl_file("slash", "pattern readwrite own/%c/#\npattern readwrite news\n");
    let broker = Broker::start(1, &[&format!("acl_file={file:?}")]);
    let mut client = RawClient::v5(broker.port, "a/b");
    for (topic, reason) in [("own/a/b/c", 0x87), ("own/a/b", 0x87), ("news", 0x10)] {
        client.send(&format!("32 ( '{topic}' 0007 () `x` )"));
        assert_eq!(client.ack_reason(0x40, "0007"), reason, "{topic}");
    }
    fs::remove_file(file).expect("the file is ours");
}

fn acl_file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ringmq-{}-{name}.acl", std::process::id()));
    fs::write(&path, text).expect("the temporary directory is writable");
    path
}

/// Debian's mosquitto, where whoever names a user is that one.
struct Mosquitto {
    child: Child,
    port: u16,
    config: PathBuf,
}

impl Mosquitto {
    fn start(acl_file: &Path) -> Self {
        let port = free_port();
        let config =
            std::env::temp_dir().join(format!("ringmq-{}-{port}.conf", std::process::id()));
        let acl_file = acl_file.display();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nacl_file {acl_file}\nuser root\nsys_interval 0\n"
        );
        fs::write(&config, text).expect("the temporary directory is writable");
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("mosquitto: {error}. Install Debian's mosquitto"));
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, port, config }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // All three fail only when there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}

const START_MAX: Duration = Duration::from_secs(10);
