//! Precedence of the sources and the exact words about what is wrong with them.

mod auth_tests;

use std::{ffi::OsString, io, net::SocketAddr, num::NonZeroU32, path::PathBuf};

use super::*;
use crate::base::QoS;
use crate::base::limits::PASSWORD_FILE_BYTES_MAX;
use crate::topic::{RewriteScope, Strategy, TopicFilter};

/// Machine with three CPUs on which `localhost` and `lan` resolve.
fn machine() -> Machine {
    fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let ips: &[[u8; 4]] = match host {
            "localhost" => &[[127, 0, 0, 1], [127, 0, 0, 2]],
            "lan" => &[[127, 0, 0, 1], [192, 0, 2, 1]],
            _ => return Err(io::Error::other("no such name")),
        };
        Ok(ips.iter().map(|ip| SocketAddr::from((*ip, port))).collect())
    }
    Machine {
        cpus: NonZeroUsize::new(3).unwrap(),
        resolve,
        read_file: read_password_file,
        read_acl: acl::read_acl_file,
    }
}

/// A file under the temporary directory, removed at the end.
struct TempFile(PathBuf);

impl TempFile {
    fn new(bytes: &[u8]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmq-config-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[derive(Default)]
struct Given<'a> {
    file: &'a str,
    environment: &'a [(&'a str, &'a str)],
    sets: &'a [&'a str],
    flags: &'a [(&'static str, &'static str, &'a str)],
}

impl Given<'_> {
    /// The configuration, or the problems with the file called `F`.
    fn load(&self) -> Result<Config, Vec<String>> {
        let file = TempFile::new(self.file.as_bytes());
        let os = |text: &&str| OsString::from(text);
        let sources = Sources {
            file: Some(file.0.clone()),
            environment: self.environment.iter().map(|(n, v)| (os(n), os(v))).collect(),
            sets: self.sets.iter().map(|set| (*set).to_owned()).collect(),
            flags: self
                .flags
                .iter()
                .map(|(name, key, value)| Flag { name, key, value: (*value).to_owned() })
                .collect(),
        };
        let path = file.0.display().to_string();
        Config::load_on(&sources, &machine())
            .map_err(|errors| errors.iter().map(|e| e.to_string().replace(&path, "F")).collect())
    }
}

fn file(text: &str) -> Result<Config, Vec<String>> {
    Given { file: text, ..Given::default() }.load()
}

#[track_caller]
fn check_errors(given: &Given<'_>, expected: &[&str]) {
    assert_eq!(given.load().unwrap_err(), expected);
}

#[test]
fn nothing_set_is_loopback_and_one_shard_per_cpu() {
    let config = Config::load_on(&Sources::default(), &machine()).unwrap();
    let texts: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["127.0.0.1:1883", "[::1]:1883"]);
    assert!(config.listen_is_default);
    assert_eq!(config.policy.anonymous, AnonymousPolicy::LoopbackOnly);
    assert_eq!(config.shards.get(), 3);
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/ringmq"));
    assert!(!config.ephemeral);
    assert_eq!(config.storage_bytes_max, 64 * 1024 * 1024 * 1024);
    assert_eq!(config.policy.durability, Durability::default());
    assert_eq!(config.log, LogConfig { format: LogFormat::Text, level: Level::INFO });
    assert_eq!(config.trace_sample, None);
    assert_eq!(config.policy.limits, Limits::default());
}

#[test]
fn every_key_can_stand_in_the_file() {
    let config = file(
        r#"
        listen = ["localhost:1", "mqtt://[::]"] # loopback and everything
        allow_anonymous = true
        shards = 128
        log_format = "json"
        log_level = "trace"
        trace_sample = 4294967295
        data_dir = "/srv/mqtt"
        ephemeral = true
        storage_bytes_max = 1_073_741_824
        durability = "relaxed"
        relaxed_topics = ["a/#", "+"]
        relaxed_listeners = ["localhost:1"]
        relaxed_millis_max = 60000
        server_reference = "b:1883"
        redirect = "full"
        response_information = "answers/%c"
        rewrite = ["publish a/+ => b/$1", "all  #  =>  %u/$1"]
        retained_ttl = ["a/# => 0", "+/# => 4294967295"]
        auto_subscribe = ["to/%c => 1", "$queue/jobs => 2"]
        [shared]
        strategy = "random"
        strategies = ["jobs => sticky"]
        [limits]
        packet_bytes_max = 268_435_460
        receive_maximum = 1
        topic_alias_maximum = 0
        client_topic_aliases_max = 3
        maximum_qos = 1
        retain_available = false
        wildcard_subscription_available = false
        shared_subscription_available = false
        subscription_identifiers_available = false
        keep_alive_secs_max = 65535
        session_expiry_secs_max = 0
        inflight_max = 0x10
        queue_messages_max = 2
        queue_bytes_max = 3
        queue_qos0 = true
        output_bytes_max = 11
        output_stalled_secs_max = 12
        slow_consumer = "disconnect"
        connections_max = 4
        connect_timeout_secs = 5
        sessions_max = 9
        subscriptions_max = 6
        retained_messages_max = 7
        retained_bytes_max = 8
        delayed_messages_max = 0
        delayed_bytes_max = 10
        memory_bytes_max = 33_554_432
        "#,
    );
    let address = |text: &str| text.parse().unwrap();
    let plain = |text: &str, addresses| Listener {
        address: ListenAddress {
            text: text.to_owned(),
            scheme: Scheme::Mqtt,
            path: None,
            addresses,
        },
        relaxed: false,
        tls: None,
        websocket: None,
        proxies: ProxySources::default(),
        unix_mode: 0o660,
        policy: Default::default(),
    };
    let listener_policy = ListenerPolicy {
        chain: None,
        output_bytes_max: 11,
        output_stalled_secs_max: 12,
        slow_consumer: SlowConsumer::Disconnect,
    };
    let expected = Config {
        listen: vec![
            plain("localhost:1", vec![address("127.0.0.1:1"), address("127.0.0.2:1")]),
            plain("mqtt://[::]", vec![address("[::]:1883")]),
        ],
        listen_is_default: false,
        shards: NonZeroUsize::new(128).unwrap(),
        data_dir: PathBuf::from("/srv/mqtt"),
        ephemeral: true,
        storage_bytes_max: 1 << 30,
        relaxed_listeners: vec![address("127.0.0.1:1"), address("127.0.0.2:1")],
        user: None,
        log: LogConfig { format: LogFormat::Json, level: Level::TRACE },
        trace_sample: NonZeroU32::new(u32::MAX),
        open_password_file: None,
        acl: None,
        acl_default_allows: false,
        policy: Policy {
            anonymous: AnonymousPolicy::Everywhere,
            redirect: Some(Redirect {
                server_reference: "b:1883".into(),
                when: RedirectWhen::Full,
            }),
            response_information: Some("answers/%c".into()),
            chain: Chain::default(),
            credentials: Arc::default(),
            tokens: None,
            http: None,
            rewrite: vec![
                RewriteRule::new(RewriteScope::Publish, "a/+", "b/$1").unwrap(),
                RewriteRule::new(RewriteScope::All, "#", "%u/$1").unwrap(),
            ],
            retained_ttl: vec![
                RetainedTtl { filter: TopicFilter::parse("a/#").unwrap(), secs: 0 },
                RetainedTtl { filter: TopicFilter::parse("+/#").unwrap(), secs: u32::MAX },
            ],
            auto_subscribe: vec![
                "to/%c => 1".parse().unwrap(),
                "$queue/jobs => 2".parse().unwrap(),
            ],
            shared: Strategies {
                default: Strategy::Random,
                by_prefix: vec![("jobs".into(), Strategy::Sticky)],
            },
            acl_disconnects: false,
            bans: Arc::default(),
            listeners: vec![listener_policy; 2],
            durability: Durability {
                relaxed: true,
                relaxed_topics: vec![
                    TopicFilter::parse("a/#").unwrap(),
                    TopicFilter::parse("+").unwrap(),
                ],
                relaxed_millis_max: 60_000,
            },
            limits: Limits {
                packet_bytes_max: 268_435_460,
                receive_maximum: 1,
                topic_alias_maximum: 0,
                client_topic_aliases_max: 3,
                maximum_qos: QoS::AtLeastOnce,
                retain_available: false,
                wildcard_subscription_available: false,
                shared_subscription_available: false,
                subscription_identifiers_available: false,
                keep_alive_secs_max: 65_535,
                session_expiry_secs_max: 0,
                inflight_max: 16,
                queue_messages_max: 2,
                queue_bytes_max: 3,
                queue_qos0: true,
                output_bytes_max: 11,
                output_stalled_secs_max: 12,
                slow_consumer: SlowConsumer::Disconnect,
                connections_max: 4,
                connect_timeout_secs: 5,
                sessions_max: 9,
                subscriptions_max: 6,
                retained_messages_max: 7,
                retained_bytes_max: 8,
                delayed_messages_max: 0,
                delayed_bytes_max: 10,
                memory_bytes_max: Some(32 << 20),
                ..Limits::default()
            },
        },
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn flags_beat_set_beats_environment_beats_file() {
    let mut given = Given { file: "shards = 2", ..Given::default() };
    assert_eq!(given.load().unwrap().shards.get(), 2);
    given.environment = &[("RINGMQ_SHARDS", "4"), ("PATH", "x"), ("ringmq_shards", "y")];
    assert_eq!(given.load().unwrap().shards.get(), 4);
    given.sets = &["shards=5", "shards = 6"];
    assert_eq!(given.load().unwrap().shards.get(), 6);
    given.flags = &[("--shards", "shards", "7")];
    assert_eq!(given.load().unwrap().shards.get(), 7);
}

#[test]
fn a_listen_flag_replaces_the_addresses_of_the_file() {
    let given = Given {
        file: r#"listen = ["192.0.2.1:1", "elsewhere:2"]"#,
        flags: &[("-l", "listen", "127.0.0.1:3,localhost:4")],
        ..Given::default()
    };
    let texts: Vec<_> =
        given.load().unwrap().listen.iter().map(|l| l.address.text.clone()).collect();
    assert_eq!(texts, ["127.0.0.1:3", "localhost:4"]);
}

#[test]
fn environment_and_set_take_toml_values_and_bare_words() {
    let given = Given {
        environment: &[
            ("RINGMQ_LISTEN", "127.0.0.1:1, [::1]:2"),
            ("RINGMQ_LIMITS_INFLIGHT_MAX", "1_000"),
            ("RINGMQ_LOG_LEVEL", "warn"),
            ("RINGMQ_ALLOW_ANONYMOUS", "false"),
        ],
        sets: &[
            "log_format='json'",
            "data_dir=2026",
            "limits.queue_qos0=true",
            "limits.retain_available = false",
        ],
        ..Given::default()
    };
    let config = given.load().unwrap();
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.policy.limits.inflight_max, 1000);
    assert_eq!(config.log, LogConfig { format: LogFormat::Json, level: Level::WARN });
    assert_eq!(config.policy.anonymous, AnonymousPolicy::Nowhere);
    assert_eq!(config.data_dir, PathBuf::from("2026"));
    assert!(config.policy.limits.queue_qos0 && !config.policy.limits.retain_available);

    let given = Given { sets: &[r#"listen=["localhost:1", "[::1]:2"]"#], ..Given::default() };
    assert_eq!(given.load().unwrap().listen.len(), 2);
}

#[test]
fn a_flag_is_taken_as_it_is_typed() {
    let given = Given {
        flags: &[("--data-dir", "data_dir", "'quoted'"), ("--ephemeral", "ephemeral", "true")],
        ..Given::default()
    };
    let config = given.load().unwrap();
    assert_eq!(config.data_dir, PathBuf::from("'quoted'"));
    assert!(config.ephemeral);
}

#[test]
fn unknown_keys_name_the_line_and_the_nearest_key() {
    let given = Given {
        file: "allow_anonymus = true\ninflight_max = 1\n\n[limits]\nmax_inflight = 3\nlog_levl = \"x\"\n",
        sets: &["shared_strategy=random"],
        ..Given::default()
    };
    check_errors(
        &given,
        &[
            r#"F:1: unknown key "allow_anonymus"; did you mean "allow_anonymous" (true or false)?"#,
            r#"F:2: unknown key "inflight_max"; did you mean "limits.inflight_max" (a whole number from 1 to 65535)?"#,
            r#"F:5: unknown key "limits.max_inflight"; did you mean "limits.inflight_max" (a whole number from 1 to 65535)?"#,
            r#"F:6: unknown key "limits.log_levl"; did you mean "log_level" (one of error, warn, info, debug, trace)?"#,
            r#"--set shared_strategy: unknown key "shared_strategy"; did you mean "shared.strategy" (one of round_robin, random, sticky, hash_client, hash_topic, least_inflight)?"#,
        ],
    );
}

#[test]
fn unlike_keys_get_the_list_of_known_ones() {
    let [top, limits] = &file("zzz = 1\n[limits]\nzzz = 1").unwrap_err()[..] else {
        panic!("two problems expected");
    };
    assert!(top.starts_with(
        r#"F:1: unknown key "zzz"; known are listen, allow_anonymous, password_file, "#
    ));
    assert!(limits.starts_with(
        r#"F:3: unknown key "limits.zzz"; known are limits.packet_bytes_max, limits.receive_maximum, "#
    ));
}

#[test]
fn relaxed_listeners_are_listened_on() {
    let given = |relaxed| Given {
        file: r#"listen = ["localhost:1", "127.0.0.1:2"]"#,
        sets: relaxed,
        ..Given::default()
    };
    let config = given(&["relaxed_listeners=mqtt://127.0.0.2:1"]).load().unwrap();
    assert_eq!(config.relaxed_listeners, [SocketAddr::from(([127, 0, 0, 2], 1))]);
    check_errors(
        &given(&["relaxed_listeners=127.0.0.1:2, localhost:2, elsewhere:1"]),
        &[
            "--set relaxed_listeners: relaxed listener \"localhost:2\" (127.0.0.2:2) is not among the addresses of listen",
            "--set relaxed_listeners: listen address \"elsewhere:1\" cannot be resolved: no such name",
        ],
    );
}

#[test]
fn relaxed_topics_are_plain_filters() {
    for (topic, why) in [("a#", "wildcard"), ("$share/g/a", "a prefix such as $share/")] {
        let errors = file(&format!("relaxed_topics = [\"{topic}\"]")).unwrap_err();
        assert!(errors[0].contains(why), "{errors:?}");
    }
}

#[test]
fn each_shard_has_storage_to_work_with() {
    let sets = |bytes| ["shards=4", bytes];
    assert!(Given { sets: &sets("storage_bytes_max=33554432"), ..Given::default() }.load().is_ok());
    check_errors(
        &Given { sets: &sets("storage_bytes_max=33554431"), ..Given::default() },
        &[
            "configuration: storage_bytes_max = 33554431 is too small for 4 shards, which need 33554432: raise it, or start fewer shards with --shards",
        ],
    );
}

#[test]
fn a_queue_of_many_millions_can_be_configured() {
    let given = Given {
        sets: &["limits.queue_messages_max=100000000", "limits.queue_bytes_max=1000000000000"],
        ..Given::default()
    };
    assert_eq!(given.load().unwrap().policy.limits.queue_messages_max, 100_000_000);
}

#[test]
fn a_redirection_has_somewhere_to_go() {
    for sets in [["redirect=full"], ["redirect=always"]] {
        check_errors(
            &Given { sets: &sets, ..Given::default() },
            &[
                "configuration: redirect is set, but there is no server_reference to send clients to",
            ],
        );
    }
    assert!(file("redirect = \"shutdown\"").is_ok());
    // What is wrong with one key is not told of the other.
    check_errors(
        &Given { sets: &["server_reference=[]", "redirect=full"], ..Given::default() },
        &["--set server_reference: server_reference = [], but it must be text"],
    );
}

#[test]
fn a_file_of_another_kind_is_told_in_few_lines() {
    let problems = file(&"listener 1883\n".repeat(1000)).unwrap_err();
    assert_eq!(problems.len(), 21);
    assert_eq!(problems[20], "F: 980 more such mistakes: is it a TOML file at all?");
}

#[test]
fn sections_are_no_values_and_values_no_sections() {
    check_errors(
        &Given { file: "[limit]\ninflight_max = 1\n[broker]\n", ..Given::default() },
        &[
            "F:1: unknown section [limit]; did you mean [limits]?",
            "F:3: unknown section [broker]; known are [auth], [limits], [shared]",
        ],
    );
    let is_section = r#""limits" is a section; write its keys below a line [limits]"#;
    for text in ["limits = 5", "[[limits]]\ninflight_max = 1"] {
        check_errors(&Given { file: text, ..Given::default() }, &[&format!("F:1: {is_section}")]);
    }
    check_errors(
        &Given { sets: &["limits=5"], ..Given::default() },
        &[&format!("--set limits: {is_section}")],
    );
    check_errors(
        &Given { file: "[shards]\ncount = 2", ..Given::default() },
        &["F:1: shards = [shards], but it must be a whole number from 1 to 128"],
    );
}

#[test]
fn bad_values_name_the_key_and_what_is_allowed() {
    for (text, expected) in [
        ("shards = 0", "shards = 0, but it must be a whole number from 1 to 128"),
        ("shards = 129", "shards = 129, but it must be a whole number from 1 to 128"),
        ("shards = -1", "shards = -1, but it must be a whole number from 1 to 128"),
        ("shards = \"2\"", "shards = \"2\", but it must be a whole number from 1 to 128"),
        ("shards = 2.0", "shards = 2.0, but it must be a whole number from 1 to 128"),
        (
            "limits.packet_bytes_max = 63",
            "limits.packet_bytes_max = 63, but it must be a whole number from 64 to 268435460",
        ),
        (
            "limits.retained_bytes_max = 99999999999999999999",
            "limits.retained_bytes_max = 99999999999999999999, but it must be a whole number from 1 to 9223372036854775807",
        ),
        (
            "limits.maximum_qos = 3",
            "limits.maximum_qos = 3, but it must be a whole number from 0 to 2",
        ),
        (
            "auto_subscribe = \"a#\"",
            "auto_subscribe: \"a#\": it has no \" => \"; it must be a list of rules such as \"a/%c/# => 1 no_local\"",
        ),
        ("ephemeral = 1", "ephemeral = 1, but it must be true or false"),
        ("data_dir = \"\"", "data_dir = \"\", but it must be the path of a directory"),
        (
            "log_level = \"Warning\"",
            "log_level = \"Warning\", but it must be one of error, warn, info, debug, trace; did you mean \"warn\"?",
        ),
        ("log_format = \"yaml\"", "log_format = \"yaml\", but it must be one of text, json"),
        (
            "listen = 1883",
            "listen = 1883, but it must be a list of addresses such as [\"127.0.0.1:1883\"]",
        ),
        (
            "listen = []",
            "listen = [], but it must be a list of addresses such as [\"127.0.0.1:1883\"]",
        ),
        (
            "listen = [1883]",
            "listen = [1883], but it must be a list of addresses such as [\"127.0.0.1:1883\"]",
        ),
    ] {
        check_errors(&Given { file: text, ..Given::default() }, &[&format!("F:1: {expected}")]);
    }
    let long = format!("shards = \"{}\"", "é".repeat(200));
    let expected = format!("F:1: shards = \"{}..., but", "é".repeat(59));
    assert!(file(&long).unwrap_err()[0].starts_with(&expected));
}

#[test]
fn wrong_rules_say_what_is_wrong() {
    const REWRITE: &str = r#"rules such as "publish a/+/# => b/$1/%c/$2""#;
    const TTL: &str = r#"rules such as "a/# => 3600""#;
    for (key, form, rule, why) in [
        ("rewrite", REWRITE, "all a", r#"it has no " => " with blanks around it"#),
        (
            "rewrite",
            REWRITE,
            "pub a => b",
            r#"it starts with "pub" instead of publish, subscribe or all"#,
        ),
        ("rewrite", REWRITE, "all => b", "its filter is no topic filter: topic filter is empty"),
        (
            "rewrite",
            REWRITE,
            "all a# => b",
            "its filter is no topic filter: wildcard does not fill a level, or # is not the last",
        ),
        (
            "rewrite",
            REWRITE,
            "all $share/g/a => b",
            "its filter must not start with a prefix such as $share/: that is kept without a rule",
        ),
        (
            "rewrite",
            REWRITE,
            "all +/+ => $3",
            "$3 stands for a wildcard that its filter does not have (it has 2)",
        ),
        (
            "rewrite",
            REWRITE,
            "publish a => b/#",
            "its template makes no topic name: topic holds a wildcard",
        ),
        ("retained_ttl", TTL, "a", r#"it has no " => " with blanks around it"#),
        ("retained_ttl", TTL, "a/#/b => 1", "wildcard does not fill a level, or # is not the last"),
        (
            "retained_ttl",
            TTL,
            "$exclusive/a => 1",
            "its filter must not start with a prefix such as $share/",
        ),
        ("retained_ttl", TTL, "a => +1", "its seconds are no whole number up to 4294967295"),
        (
            "retained_ttl",
            TTL,
            "a => 4294967296",
            "its seconds are no whole number up to 4294967295",
        ),
    ] {
        let text = format!("{key} = [\n'{rule}']");
        let expected = format!("F:2: {key}: {rule:?}: {why}; it must be a list of {form}");
        check_errors(&Given { file: &text, ..Given::default() }, &[&expected]);
    }
    check_errors(
        &Given { file: "rewrite = [1]", ..Given::default() },
        &[&format!("F:1: rewrite = [1], but it must be a list of {REWRITE}")],
    );
    // One text is a list of one, and the later source replaces the list.
    let given = Given {
        file: "rewrite = ['publish a => b', 'publish b => c']",
        sets: &["rewrite=all c => d", "retained_ttl="],
        ..Given::default()
    };
    assert_eq!(given.load().unwrap().policy.rewrite.len(), 1);
}

#[test]
fn shared_subscriptions_have_a_strategy_and_rules() {
    let shared = |text| file(text).unwrap().policy.shared;
    assert_eq!(shared("").of("any"), Strategy::RoundRobin);
    let given = shared(
        "[shared]\nstrategy = \"random\"\nstrategies = [\"a => sticky\", \"ab => hash_topic\"]",
    );
    let found = ["b", "a", "abc"].map(|name| given.of(name));
    assert_eq!(found, [Strategy::Random, Strategy::Sticky, Strategy::HashTopic]);
    // A later source states the whole list.
    let given = Given {
        file: "shared.strategies = [\"a => sticky\"]",
        sets: &["shared.strategies=b => random"],
        ..Given::default()
    };
    let shared = given.load().unwrap().policy.shared;
    let found = ["a", "b"].map(|name| shared.of(name));
    assert_eq!(found, [Strategy::RoundRobin, Strategy::Random]);
    check_errors(
        &Given {
            file: "[shared]\nstrategy = \"rond_robin\"\nstrategies = [\"a => sticky\",\n\"x => best\"]",
            ..Given::default()
        },
        &[
            "F:2: shared.strategy = \"rond_robin\", but it must be one of round_robin, random, sticky, hash_client, hash_topic, least_inflight; did you mean \"round_robin\"?",
            "F:4: shared.strategies: \"x => best\": \"best\" is none of round_robin, random, sticky, hash_client, hash_topic, least_inflight; it must be a list of rules such as \"jobs- => sticky\"",
        ],
    );
}

#[test]
fn environment_and_flags_are_named_in_errors() {
    check_errors(
        &Given {
            environment: &[
                ("RINGMQ_ALLOW_ANONYMOUS", "yes"),
                ("RINGMQ_LIMITS_INFLGHT_MAX", "1"),
                ("RINGMQ_SHARD", "1"),
            ],
            sets: &["limits.inflght_max=1", "limits.inflight_max=", "noise", "log_level=loud"],
            flags: &[("-l", "listen", "1883"), ("--shards", "shards", "1000")],
            ..Given::default()
        },
        &[
            "RINGMQ_ALLOW_ANONYMOUS: allow_anonymous = yes, but it must be true or false",
            "RINGMQ_LIMITS_INFLGHT_MAX: unknown variable; did you mean RINGMQ_LIMITS_INFLIGHT_MAX (a whole number from 1 to 65535)?",
            "RINGMQ_SHARD: unknown variable; did you mean RINGMQ_SHARDS (a whole number from 1 to 128)?",
            "--set limits.inflght_max: unknown key \"limits.inflght_max\"; did you mean \"limits.inflight_max\" (a whole number from 1 to 65535)?",
            "--set limits.inflight_max: limits.inflight_max = , but it must be a whole number from 1 to 65535",
            "--set noise: must have the form KEY=VALUE, for example limits.inflight_max=100",
            "--set log_level: log_level = loud, but it must be one of error, warn, info, debug, trace",
            "-l: listen address \"1883\" is only a port; write \"127.0.0.1:1883\" for this machine or \"0.0.0.0:1883\" for all addresses",
            "--shards: shards = 1000, but it must be a whole number from 1 to 128",
        ],
    );
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_are_skipped() {
    let links = [("RINGMQ_PORT", "tcp://10.0.0.1:1883"), ("RINGMQ_SERVICE_HOST", "10.0.0.1")];
    let expected = ["RINGMQ_PORT: unknown variable; ", "RINGMQ_SERVICE_HOST: unknown variable; "];
    let errors = Given { environment: &links, ..Given::default() }.load().unwrap_err();
    assert!(errors.iter().zip(expected).all(|(e, start)| e.starts_with(start)), "{errors:?}");
    let in_kubernetes = [links[0], links[1], ("KUBERNETES_SERVICE_HOST", "10.0.0.2")];
    assert!(Given { environment: &in_kubernetes, ..Given::default() }.load().is_ok());
}

#[test]
fn all_mistakes_of_a_file_come_at_once_in_its_order() {
    check_errors(
        &Given {
            file: "shards = 0\nlisten = [\n  \"192.0.2.1:1\",\n  \"elsewhere:2\",\n]\nzephemeral = true\n[limits]\ninflight_max = 0",
            ..Given::default()
        },
        &[
            "F:1: shards = 0, but it must be a whole number from 1 to 128",
            "F:6: unknown key \"zephemeral\"; did you mean \"ephemeral\" (true or false)?",
            "F:8: limits.inflight_max = 0, but it must be a whole number from 1 to 65535",
            "F:4: listen address \"elsewhere:2\" cannot be resolved: no such name",
        ],
    );
}

#[test]
fn an_address_open_to_others_is_refused_without_leave() {
    let refusal = |place: &str, text: &str, address: &str| {
        format!(
            "{place}: listen address {text:?} ({address}) is open to other machines, but clients \
             need no authentication: anybody could publish and subscribe. Name users in `password_file`, or to allow that, set \
             `allow_anonymous = true` (or --set allow_anonymous=true)"
        )
    };
    check_errors(
        &Given {
            file: "listen = [\"0.0.0.0:1883\",\n\"lan:1884\",\n\"[::ffff:127.0.0.1]:1885\"]",
            ..Given::default()
        },
        &[
            &refusal("F:1", "0.0.0.0:1883", "0.0.0.0:1883"),
            &refusal("F:2", "lan:1884", "192.0.2.1:1884"),
        ],
    );
    let flag = [("-l", "listen", "[::]:1883")];
    check_errors(
        &Given { flags: &flag, ..Given::default() },
        &[&refusal("-l", "[::]:1883", "[::]:1883")],
    );
    for leave in ["true", "false"] {
        let set = format!("allow_anonymous={leave}");
        assert!(Given { flags: &flag, sets: &[&set], ..Given::default() }.load().is_ok());
    }
    // A leave that was misspelt is the only thing to talk about.
    check_errors(
        &Given { flags: &flag, sets: &["allow_anonymous=yes"], ..Given::default() },
        &["--set allow_anonymous: allow_anonymous = yes, but it must be true or false"],
    );
}

#[test]
fn an_address_stands_once_unless_the_kernel_chooses_the_port() {
    check_errors(
        &Given { file: r#"listen = ["127.0.0.2:5", "localhost:5"]"#, ..Given::default() },
        &[
            r#"F:1: listen address "localhost:5" is the same as "127.0.0.2:5" (both are 127.0.0.2:5)"#,
        ],
    );
    assert!(file(r#"listen = ["127.0.0.1:0", "127.0.0.1:0"]"#).is_ok());
    let ports: Vec<_> = (1..=17).map(|port| format!("127.0.0.1:{port}")).collect();
    check_errors(
        &Given { flags: &[("-l", "listen", &ports.join(","))], ..Given::default() },
        &["-l: listen stands for 17 socket addresses, but at most 16 are allowed"],
    );
}

#[test]
fn broken_toml_is_reported_with_its_lines_and_the_rest_is_still_checked() {
    let errors = file("shards = 0\nlisten = [\"a\nephemeral = maybe\nlog_level = 1\n").unwrap_err();
    assert_eq!(errors[0], "F:1: shards = 0, but it must be a whole number from 1 to 128");
    assert!(errors[1].starts_with("F:2: not valid TOML: "), "{errors:?}");
    let errors = file("shards = 1\nshards = 2").unwrap_err();
    assert_eq!(errors, ["F:2: not valid TOML: duplicate key"]);
    for text in ["shards = ", "= 1", "[limits", "shards", "\u{0}", "\"\\"] {
        let errors = file(text).unwrap_err();
        assert!(errors[0].starts_with("F:1: not valid TOML: "), "{text:?}: {errors:?}");
    }
}

#[test]
fn hostile_files_end_in_an_error() {
    for text in ["[".repeat(100_000), "a = ".to_owned() + &"[".repeat(100_000), "a.".repeat(50_000)]
    {
        assert!(file(&text).is_err());
    }
    assert!(file("\u{feff}shards = 1\r\n[limits]\r\n").is_ok());
    let cases: [(&[u8], &str); 2] = [
        (b"shards = \xff", "is not valid UTF-8"),
        (&[b' '; 1024 * 1024 + 1], "cannot be read: it is larger than 1048576 bytes"),
    ];
    for (bytes, expected) in cases {
        let file = TempFile::new(bytes);
        let sources = Sources { file: Some(file.0.clone()), ..Sources::default() };
        let error = Config::load_on(&sources, &machine()).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: {expected}", file.0.display()));
    }
    let sources = Sources { file: Some("/nonexistent/r.toml".into()), ..Sources::default() };
    assert_eq!(
        Config::load_on(&sources, &machine()).unwrap_err().to_string(),
        "/nonexistent/r.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn undecodable_variables_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let environment = vec![(OsString::from("RINGMQ_DATA_DIR"), OsString::from_vec(vec![0xff]))];
    let sources = Sources { environment, ..Sources::default() };
    assert_eq!(
        Config::load_on(&sources, &machine()).unwrap_err().to_string(),
        "RINGMQ_DATA_DIR: is not valid UTF-8"
    );
}

#[test]
fn a_password_file_makes_users_and_is_the_owners_business() {
    use std::os::unix::fs::PermissionsExt;
    let keys = "A".repeat(43) + "=";
    let file = TempFile::new(format!("ann:SCRAM-SHA-256$4096:c2FsdA==${keys}:{keys}\n").as_bytes());
    for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(&file.0, std::fs::Permissions::from_mode(mode)).unwrap();
        let set = format!("password_file={:?}", file.0.to_str().unwrap());
        let config = Given { sets: &[&set], ..Given::default() }.load().unwrap();
        assert!(config.policy.credentials.get("ann").is_some());
        assert_eq!(config.open_password_file, is_open.then(|| file.0.clone()), "{mode:o}");
    }
}

#[test]
fn password_files_are_bounded() {
    let file = TempFile::new(&vec![b'\n'; PASSWORD_FILE_BYTES_MAX as usize + 1]);
    let set = format!("password_file={:?}", file.0.to_str().unwrap());
    let problems = Given { sets: &[&set], ..Given::default() }.load().unwrap_err();
    assert!(problems[0].ends_with(": it is larger than 16777216 bytes"), "{problems:?}");
}

#[test]
fn listeners_stand_in_sections_of_their_own_each_with_its_settings() {
    let config = file(
        r#"
        allow_anonymous = true
        listen = ["127.0.0.1:1", "ws://127.0.0.1:2", "unix:/run/a"]
        [[listener]]
        url = "mqtts://[::]"
        relaxed = true
        certificates = ["a.pem => a.key", "both.pem"]
        tls_min = "1.3"
        client_certificates = "required"
        client_ca = "ca.pem"
        crl = ["1.crl", "2.crl"]
        user_from = "san"
        proxy_protocol_from = ["10.0.0.0/8", "unix"]
        [[listener]]
        url = "wss://127.0.0.1:3"
        certificates = "both.pem"
        websocket_paths = "/x"
        origins = ["https://a.example"]
        [[listener]]
        url = "unix:/run/b"
        unix_mode = "600"
        output_bytes_max = 1
        slow_consumer = "disconnect"
        [limits]
        inflight_max = 5
        output_bytes_max = 7
        output_stalled_secs_max = 0
        "#,
    )
    .unwrap();
    let texts: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    let expected = [
        "127.0.0.1:1",
        "ws://127.0.0.1:2",
        "unix:/run/a",
        "mqtts://[::]",
        "wss://127.0.0.1:3",
        "unix:/run/b",
    ];
    assert_eq!(texts, expected);
    let [_, ws, unix, mqtts, wss, private] = &config.listen[..] else { unreachable!() };
    assert_eq!((&ws.websocket, &ws.tls), (&Some(WebSocketRules::default()), &None));
    assert_eq!((unix.address.path(), unix.unix_mode), (Some(Path::new("/run/a")), 0o660));
    let files = |certificate: &str, key: &str| CertificateFiles {
        certificate: certificate.into(),
        key: key.into(),
    };
    let tls = TlsSettings {
        certificates: vec![files("a.pem", "a.key"), files("both.pem", "both.pem")],
        client: ClientCertificates::Required,
        client_ca: Some("ca.pem".into()),
        crls: vec!["1.crl".into(), "2.crl".into()],
        user_from: UserFrom::San,
        tls_1_3_only: true,
        is_websocket: false,
    };
    assert_eq!((&mqtts.tls, mqtts.relaxed, &mqtts.websocket), (&Some(tls), true, &None));
    assert!(mqtts.proxies.contains(([10, 1, 2, 3], 1).into()));
    assert!(wss.tls.as_ref().is_some_and(|tls| tls.is_websocket && !tls.tls_1_3_only));
    let rules =
        WebSocketRules { paths: vec!["/x".into()], origins: vec!["https://a.example".into()] };
    assert_eq!((&wss.websocket, private.unix_mode), (&Some(rules), 0o600));
    let policy = |output_bytes_max, slow_consumer| ListenerPolicy {
        chain: None,
        output_bytes_max,
        output_stalled_secs_max: 0,
        slow_consumer,
    };
    let mut expected = vec![policy(7, SlowConsumer::Drop); 5];
    expected.push(policy(1, SlowConsumer::Disconnect));
    assert_eq!(config.policy.listeners, expected);
}

#[test]
fn wrong_listeners_are_refused_with_their_line() {
    const TLS: &str = "has settings for TLS, but only mqtts:// and wss:// have that";
    const CA: &str = "has client_ca or crl, but client_certificates is none";
    for (text, expected) in [
        ("[[listener]]", "F:1: a listener needs a url"),
        (
            "[listener]\nurl = 'mqtt://a'",
            "F:1: listeners stand in the file, each in a section [[listener]]",
        ),
        ("listener = 5", "F:1: listeners stand in the file, each in a section [[listener]]"),
        (
            "[[listener]]\nurl = 'mqtt://127.0.0.1'\ncertificate = 'a'",
            "F:3: unknown key \"certificate\" of a listener; did you mean \"certificates\" (a list of files in PEM form such as \"server.pem => server.key\")?",
        ),
        (
            "[[listener]]\nurl = 'http://a'",
            "F:2: listener.url: \"http://a\": has an unknown scheme; known are mqtt://, mqtts://, ws:// and wss:// with HOST[:PORT], and unix:/PATH; it must be text",
        ),
        (
            "[[listener]]\nurl = 'wss://127.0.0.1'",
            "F:1: listener \"wss://127.0.0.1\" needs certificates, such as certificates = [\"server.pem => server.key\"] in a section [[listener]]",
        ),
        (
            "[[listener]]\nurl = 'ws://127.0.0.1'\ncertificates = 'a'",
            &format!("F:1: listener \"ws://127.0.0.1\" {TLS}"),
        ),
        (
            "[[listener]]\nurl = 'mqtts://127.0.0.1'\ncertificates = 'a'\nclient_certificates = 'require'",
            "F:4: listener.client_certificates = 'require', but it must be one of none, optional, required; did you mean \"required\"?",
        ),
        (
            "[[listener]]\nurl = 'mqtts://127.0.0.1'\ncertificates = 'a'\nclient_certificates = 'optional'",
            "F:1: listener \"mqtts://127.0.0.1\" asks clients for certificates, but names no client_ca",
        ),
        (
            "[[listener]]\nurl = 'mqtts://127.0.0.1'\ncertificates = 'a'\nclient_ca = 'b'",
            &format!("F:1: listener \"mqtts://127.0.0.1\" {CA}"),
        ),
        (
            "[[listener]]\nurl = 'mqtt://127.0.0.1'\norigins = ['https://a/b']",
            "F:3: listener.origins: \"https://a/b\": it is no origin such as \"https://example.com\", without a path; it must be a list of origins such as \"https://example.com\"",
        ),
        (
            "[[listener]]\nurl = 'unix:/a'\nunix_mode = '999'",
            "F:3: listener.unix_mode: \"999\": it is no octal number up to 777; it must be text",
        ),
        (
            "listen = 'unix:/a'\n[[listener]]\nurl = 'unix:/a'",
            "F:2: listen address \"unix:/a\" is the same as \"unix:/a\" (both are /a)",
        ),
        (
            "[[listener]]\nurl = 'mqtts://192.0.2.1'\ncertificates = 'a'\nclient_certificates = 'optional'\nclient_ca = 'b'\nuser_from = 'cn'",
            "F:1: listen address \"mqtts://192.0.2.1\" (192.0.2.1:8883) is open to other machines, but clients need no authentication: anybody could publish and subscribe. Name users in `password_file`, or to allow that, set `allow_anonymous = true` (or --set allow_anonymous=true)",
        ),
    ] {
        let text = text.replace("\\n", "\n");
        assert_eq!(file(&text).unwrap_err(), [expected], "{text}");
    }
    let users = "[[listener]]\nurl = 'mqtts://192.0.2.1'\ncertificates = 'a'\nclient_ca = 'b'\nclient_certificates = 'required'\nuser_from = 'cn'";
    assert!(file(users).is_ok(), "every client proves who it is");
    check_errors(
        &Given { sets: &["listener.url=mqtt://a"], ..Given::default() },
        &["--set listener.url: listeners stand in the file, each in a section [[listener]]"],
    );
}
