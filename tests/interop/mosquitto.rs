//! What a plain MQTT tutorial does with `mosquitto_sub` and `mosquitto_pub`.

use crate::common::{Broker, RawClient, on_one_and_four_shards};
use crate::tool::{Subscriber, publish, publish_input, request_once, subscribe_once};

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];
const QOS: [&str; 3] = ["0", "1", "2"];

/// Every version to every version, every QoS to every QoS: the lower one arrives.
fn every_version_and_qos(broker: &Broker) {
    for subscriber_version in VERSIONS {
        for granted in QOS {
            let id = format!("sub-{subscriber_version}-{granted}");
            let arguments = ["-V", subscriber_version, "-q", granted, "-t", "a/#", "-C", "9"];
            let subscriber = Subscriber::start(broker, &id, &arguments);
            let mut expected = Vec::new();
            for version in VERSIONS {
                for qos in QOS {
                    let payload = format!("{version} at {qos}");
                    publish(broker, &["-V", version, "-q", qos, "-t", "a/b", "-m", &payload]);
                    expected.push(format!("a/b|{}|0|{payload}", qos.min(granted)));
                }
            }
            assert_eq!(by_qos(subscriber.lines()), by_qos(expected), "{id}");
        }
    }
}

/// Grouped by QoS, the order within each kept: the tools print a QoS 2 message only once its exchange
/// is over, and by then others may have come.
fn by_qos(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by_key(|line| line.split('|').nth(1).map(str::to_owned));
    lines
}

fn retained_messages(broker: &Broker) {
    for version in VERSIONS {
        publish(broker, &["-V", version, "-r", "-q", "1", "-t", "r/1", "-m", "first"]);
        publish(broker, &["-V", version, "-r", "-q", "1", "-t", "r/1", "-m", "kept"]);
        publish(broker, &["-V", version, "-q", "1", "-t", "r/1", "-m", "not kept"]);
        let lines = subscribe_once(broker, &["-V", version, "-q", "2", "-t", "r/+", "-C", "1"]);
        assert_eq!(lines, ["r/1|1|1|kept"]);
        publish(broker, &["-V", version, "-r", "-q", "1", "-t", "r/1", "-n"]);
        publish(broker, &["-V", version, "-r", "-q", "1", "-t", "r/2", "-m", "other"]);
        let lines = subscribe_once(broker, &["-V", version, "-q", "0", "-t", "r/+", "-C", "1"]);
        assert_eq!(lines, ["r/2|0|1|other"]);
        publish(broker, &["-V", version, "-r", "-q", "1", "-t", "r/2", "-n"]);
    }
}

fn the_will_of_a_killed_client(broker: &Broker) {
    for version in VERSIONS {
        for qos in QOS {
            let id = format!("watch-{version}-{qos}");
            let arguments = ["-V", version, "-q", "2", "-t", "will/#", "-C", "1"];
            let watcher = Subscriber::start(broker, &id, &arguments);
            let mut arguments = vec!["-V", version, "-t", "x", "--will-topic", "will/me"];
            arguments.extend(["--will-payload", "gone", "--will-qos", qos]);
            Subscriber::start(broker, &format!("dying-{version}-{qos}"), &arguments).kill();
            assert_eq!(watcher.lines(), [format!("will/me|{qos}|0|gone")]);
        }
    }
    // The orderly end of a client sends none, and a retained one is kept.
    let watcher = Subscriber::start(broker, "watch-last", &["-q", "1", "-t", "will/#", "-C", "1"]);
    let will = ["--will-topic", "will/no", "--will-payload", "none"];
    subscribe_once(broker, &[&["-t", "x", "-E"], &will[..]].concat());
    let will = ["--will-topic", "will/kept", "--will-payload", "gone", "--will-retain"];
    Subscriber::start(broker, "dying-last", &[&["-t", "x"], &will[..]].concat()).kill();
    assert_eq!(watcher.lines(), ["will/kept|0|0|gone"]);
    assert_eq!(subscribe_once(broker, &["-t", "will/#", "-C", "1"]), ["will/kept|0|1|gone"]);
}

fn clean_and_persistent_sessions(broker: &Broker) {
    for version in VERSIONS {
        let persistent = ["-V", version, "-c", "-i", version, "-q", "2", "-t", "s/#"];
        subscribe_once(broker, &[&persistent[..], &["-E"]].concat());
        for (qos, payload) in [("1", "one"), ("2", "two"), ("1", "three")] {
            publish(broker, &["-q", qos, "-t", "s/1", "-m", payload]);
        }
        let lines = subscribe_once(broker, &[&persistent[..], &["-C", "3"]].concat());
        assert_eq!(by_qos(lines), ["s/1|1|0|one", "s/1|1|0|three", "s/1|2|0|two"], "{version}");

        // Without -c the session ends, and with it what would have waited.
        let clean = ["-V", version, "-i", version, "-q", "1", "-t", "s/#"];
        subscribe_once(broker, &[&clean[..], &["-E"]].concat());
        publish(broker, &["-q", "1", "-t", "s/1", "-m", "lost"]);
        let subscriber =
            Subscriber::start(broker, &format!("{version}-clean"), &["-t", "s/#", "-C", "1"]);
        publish(broker, &["-q", "1", "-t", "s/1", "-m", "new"]);
        assert_eq!(subscriber.lines(), ["s/1|0|0|new"]);
    }
    // v5: the expiry chosen.
    let short = ["-V", "mqttv5", "-c", "-i", "chosen", "-x", "60", "-q", "1", "-t", "s/#"];
    subscribe_once(broker, &[&short[..], &["-E"]].concat());
    publish(broker, &["-q", "1", "-t", "s/1", "-m", "waited"]);
    let lines = subscribe_once(broker, &[&short[..], &["-C", "1"]].concat());
    assert_eq!(lines, ["s/1|1|0|waited"]);
}

fn a_client_id_used_twice(broker: &Broker) {
    // The tools reconnect by themselves, so one of the two is a client that does not.
    let mut old = RawClient::v5(broker.port, "same");
    let subscriber = Subscriber::start(broker, "same", &["-V", "mqttv5", "-t", "t", "-C", "1"]);
    old.expect_disconnect(0x8e);
    publish(broker, &["-t", "t", "-m", "to the newer"]);
    assert_eq!(subscriber.lines(), ["t|0|0|to the newer"]);
}

fn a_large_payload(broker: &Broker) {
    let payload: String = (0..1024 * 1024).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    let path =
        std::env::temp_dir().join(format!("ringmq-payload-{}-{}", std::process::id(), broker.port));
    std::fs::write(&path, &payload).expect("the temporary directory is writable");
    let file = path.to_str().expect("a UTF-8 path");
    for version in VERSIONS {
        for qos in QOS {
            let id = format!("large-{version}-{qos}");
            let arguments = ["-V", version, "-q", qos, "-t", "large", "-C", "1"];
            let subscriber = Subscriber::start(broker, &id, &arguments);
            publish(broker, &["-V", version, "-q", qos, "-t", "large", "-f", file]);
            let expected = format!("large|{qos}|0|{payload}");
            assert!(subscriber.lines() == [expected], "{id}: the payload came back changed");
        }
    }
    std::fs::remove_file(&path).expect("the file is ours");
}

/// `-l`: a message for each line of input, in order.
fn many_lines(broker: &Broker) {
    const LINES: usize = 2000;
    let input: String = (0..LINES).map(|line| format!("line {line}\n")).collect();
    for version in VERSIONS {
        for qos in QOS {
            let id = format!("lines-{version}-{qos}");
            let count = LINES.to_string();
            let arguments = ["-V", version, "-q", qos, "-t", "lines", "-C", &count];
            let subscriber = Subscriber::start(broker, &id, &arguments);
            publish_input(broker, &["-V", version, "-q", qos, "-t", "lines", "-l"], &input);
            let expected: Vec<String> =
                (0..LINES).map(|line| format!("lines|{qos}|0|line {line}")).collect();
            assert!(subscriber.lines() == expected, "{id}: lines are missing or out of order");
        }
    }
}

/// Two members of a group and one subscriber beside it.
fn a_shared_subscription(broker: &Broker) {
    let member = ["-V", "mqttv5", "-q", "1", "-t", "$share/g/job", "-C", "5"];
    let one = Subscriber::start(broker, "member-1", &member);
    let two = Subscriber::start(broker, "member-2", &member);
    let all = Subscriber::start(broker, "all", &["-q", "1", "-t", "job", "-C", "10"]);
    let input: String = (0..10).map(|job| format!("{job}\n")).collect();
    publish_input(broker, &["-q", "1", "-t", "job", "-l"], &input);
    let mut shared = [one.lines(), two.lines()].concat();
    shared.sort();
    let expected: Vec<String> = (0..10).map(|job| format!("job|1|0|{job}")).collect();
    assert_eq!(shared, expected);
    assert_eq!(all.lines(), expected);
}

/// `$request/...`, as a tool for requests and responses can ask.
fn a_retained_message_on_request(broker: &Broker) {
    publish(broker, &["-r", "-q", "1", "-t", "home/hall", "-m", "18"]);
    for version in ["mqttv311", "mqttv5"] {
        let topic = "$request/home/hall";
        let arguments = ["-V", version, "-q", "1", "-t", topic, "-e", topic, "-n"];
        assert_eq!(request_once(broker, &arguments), ["home/hall|1|1|18"], "{version}");
    }
}

on_one_and_four_shards! {
    every_version_and_qos;
    retained_messages;
    the_will_of_a_killed_client;
    clean_and_persistent_sessions;
    a_client_id_used_twice;
    a_large_payload with "limits.packet_bytes_max=2000000";
    many_lines with "limits.queue_messages_max=100000";
    a_shared_subscription;
    a_retained_message_on_request;
}
