//! What rules answer, in tables; and the index of many rules against a look at one after the other.

use std::path::Path;

use super::*;
use crate::{config::AclTopic, topic::TopicFilter};

fn acl(file: &str, text: &str) -> Acl {
    let rules = AclRules::parse(Path::new(file), text, false);
    Acl::new(rules.unwrap_or_else(|errors| panic!("{errors:?}")))
}

fn identity(user: &str) -> Identity {
    let user = (!user.is_empty()).then(|| user.into());
    let groups = ["ops".into(), "dev".into()].into();
    Identity { user, groups, address: "10.1.2.3".parse().ok() }
}

/// What a client may do with a topic: some of `p`, `s` and `r`.
fn rights(acl: &Acl, user: &str, client: &str, topic: &str) -> String {
    let identity = identity(user);
    let subject = Subject { client, identity: &identity };
    let mut rights = String::new();
    if let Ok(name) = TopicName::parse(topic) {
        rights += if acl.publish(subject, name, QoS::AtMostOnce, false).allowed { "p" } else { "" };
    }
    rights += if acl.subscribe(subject, topic).allowed { "s" } else { "" };
    if let Ok(name) = TopicName::parse(topic) {
        rights += if acl.receive(subject, name).allowed { "r" } else { "" };
    }
    rights
}

#[test]
fn mosquittos_sections_patterns_and_denials() {
    let acl = acl(
        "rules",
        "topic read news/#\n\
         topic write $SYS/broker/connection/+/state\n\
         topic write $SYS/x\n\
         topic write $share/x\n\
         user ann\n\
         topic readwrite a/#\n\
         topic deny a/secret/+\n\
         topic read $SYS/#\n\
         topic $x/y\n\
         user bob\n\
         topic readwrite a b\n\
         pattern write own/%u/%c\n\
         pattern deny closed/%c\n\
         pattern readwrite closed/#\n\
         pattern read all\n",
    );
    for (user, client, topic, expected) in [
        ("", "c", "news", "sr"),
        ("", "c", "news/x", "sr"),
        ("ann", "c", "news/x", "s"),
        ("", "c", "$SYS/broker/connection/b/state", "ps"),
        ("", "c", "$SYS/broker/connection/b/c/state", "s"),
        ("", "c", "$SYS/x", "s"),
        ("", "c", "$share/x", "s"),
        ("ann", "c", "a", "psr"),
        ("ann", "c", "a/b/c", "psr"),
        ("ann", "c", "a/secret", "psr"),
        ("ann", "c", "a/secret/x", "s"),
        ("ann", "c", "a/secret/x/y", "psr"),
        ("ann", "c", "$SYS/x", "sr"),
        ("ann", "c", "$x/y", "psr"),
        ("ann", "c", "a b", "s"),
        ("bob", "c", "a b", "psr"),
        ("bob", "c", "a/b", "s"),
        ("bob", "c", "own/bob/c", "ps"),
        ("bob", "d", "own/bob/c", "s"),
        ("", "c", "own//c", "s"),
        ("eve", "c", "own/eve/c", "ps"),
        ("eve", "c", "closed/c", "s"),
        ("eve", "c", "closed/d", "psr"),
        ("eve", "c", "all", "sr"),
        ("eve", "c", "#", "s"),
    ] {
        assert_eq!(rights(&acl, user, client, topic), expected, "{user:?} {client} {topic}");
    }
}

/// A name with `/`, `+` or `#` opens nothing, and what it would be denied is denied it from there on.
#[test]
fn names_that_are_no_topic_level_never_widen_a_rule() {
    let text = "pattern readwrite own/%c/#\npattern readwrite %u/x\npattern read news\n";
    let open = acl("rules", text);
    for name in ["a/b", "#", "+", "a/#", "/"] {
        for topic in ["own/a/b", "own/a", "own/#", "own/x/y", "own//", "a/b/x", "x/x"] {
            assert_eq!(rights(&open, name, name, topic), "s", "{name} {topic}");
        }
    }
    assert_eq!(rights(&open, "a/b", "c", "news"), "sr", "a slash is no wildcard");
    assert_eq!(rights(&open, "", "a+", "news"), "s", "mosquitto asks no pattern for these");
    assert_eq!(rights(&open, "$SYS", "c", "$SYS/x"), "s", "a name is not what opens $SYS");
    let closed = acl("rules", "pattern deny x/%c/z\npattern readwrite x/#\n");
    assert_eq!(rights(&closed, "", "a", "x/a/z"), "s");
    assert_eq!(rights(&closed, "", "a", "x/b/z"), "psr");
    for topic in ["x/a/b/z", "x/a", "x/q"] {
        assert_eq!(rights(&closed, "", "a/b", topic), "s", "{topic}");
    }
    assert_eq!(rights(&closed, "", "a/b", "x"), "psr");

    let text = "[[rule]]\nallow=\"all\"\ntopics=[\"own/%c/#\", \"$x/dev-%c-%u\"]\n";
    let own = acl("rules.toml", text);
    for (client, topic, expected) in [
        ("a", "own/a/b", "psr"),
        ("a", "own/+/b", ""),
        ("+", "own/+/b", ""),
        ("+", "own/x/b", ""),
        ("a/b", "own/a/b", ""),
        ("a", "own/a/#", "s"),
        ("#", "own/#", ""),
        ("a", "$x/dev-a-ann", "psr"),
        ("a", "$x/dev-a-bob", ""),
    ] {
        assert_eq!(rights(&own, "ann", client, topic), expected, "{client} {topic}");
    }
    assert_eq!(rights(&own, "", "a", "$x/dev-a-"), "");
}

#[test]
fn the_first_table_that_fits_decides() {
    let acl = acl(
        "rules.toml",
        r##"
        [[rule]]
        deny = "subscribe"
        topics = "secret/#"
        user = "ann"
        [[rule]]
        allow = "all"
        topics = "#"
        user = "ann"
        [[rule]]
        allow = "publish"
        topics = ["p", "$CONTROL/x"]
        group = ["none", "dev"]
        qos_max = 1
        retain = false
        [[rule]]
        allow = "subscribe"
        topics = "q/+"
        client = "dev-*"
        qos_max = 0
        [[rule]]
        allow = "receive"
        topics = "here"
        address = "10.0.0.0/8"
        anonymous = true
        [[rule]]
        allow = "all"
        topics = "there"
        address = "192.168.0.0/16"
        "##,
    );
    for (user, client, topic, expected) in [
        ("ann", "c", "x", "psr"),
        ("ann", "c", "#", "s"),
        ("ann", "c", "secret/x", "p"),
        ("ann", "c", "secret/#", ""),
        ("ann", "c", "$SYS/x", ""),
        ("ann", "c", "$CONTROL/x", "p"),
        ("bob", "c", "p", "p"),
        ("bob", "dev-1", "q/1", "sr"),
        ("bob", "dev-1", "q/+", "s"),
        ("bob", "dev-1", "q/#", ""),
        ("bob", "c", "q/1", ""),
        ("", "c", "here", "r"),
        ("bob", "c", "here", ""),
        ("", "c", "there", ""),
    ] {
        assert_eq!(rights(&acl, user, client, topic), expected, "{user:?} {client} {topic}");
    }
    let bob = identity("bob");
    let subject = Subject { client: "dev-1", identity: &bob };
    let topic = TopicName::parse("p").unwrap();
    for (qos, retain, expected) in [
        (QoS::AtLeastOnce, false, true),
        (QoS::ExactlyOnce, false, false),
        (QoS::AtMostOnce, true, false),
    ] {
        assert_eq!(acl.publish(subject, topic, qos, retain).allowed, expected, "{qos:?} {retain}");
    }
    assert_eq!(acl.subscribe(subject, "q/1").qos_max, QoS::AtMostOnce);
    let decision = acl.subscribe(subject, "q/1");
    let expected = "rules.toml:16: allow subscribe, receive on \"q/+\" (by client)";
    assert_eq!(acl.explain(decision), expected);
}

#[test]
fn nothing_is_open_by_default_but_what_acl_default_opens() {
    let rules = |allows| AclRules::parse(Path::new("r.toml"), "", allows).unwrap();
    assert_eq!(rights(&Acl::new(rules(false)), "ann", "c", "t"), "");
    assert_eq!(rights(&Acl::new(rules(true)), "ann", "c", "t"), "psr");
    assert_eq!(rights(&Acl::new(rules(true)), "ann", "c", "$SYS/t"), "sr");
    assert_eq!(rights(&acl("rules", ""), "ann", "c", "t"), "s");
}

#[test]
fn a_subscription_is_open_if_nothing_it_brings_is_denied() {
    let text = "topic a/#\ntopic deny a/x/+\ntopic read b\npattern read c/%c/#\npattern deny c/c/x";
    let acl = acl("rules", text);
    let anonymous = Identity::default();
    for (client, filter, expected) in [
        ("c", "a/b", true),
        ("c", "a/b/#", true),
        ("c", "a/#", false),
        ("c", "a/+", true),
        ("c", "a/+/y", false),
        ("c", "a/x", true),
        ("c", "a/x/#", false),
        ("c", "b", true),
        ("c", "b/#", false),
        ("c", "c/c/y", true),
        ("c", "c/c/#", false),
        ("d", "c/d/#", true),
        ("d", "c/c/#", false),
        ("d/e", "c/d/e", false),
    ] {
        let subject = Subject { client, identity: &anonymous };
        assert_eq!(acl.is_open(subject, filter), expected, "{client} {filter}");
    }
}

/// A plain sequence of numbers, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }
}

fn random_rules(numbers: &mut Numbers) -> String {
    let levels = ["a", "b", "+", "%c", "%u", "x%c", "$a"];
    let mut text = String::new();
    for _ in 0..1 + numbers.below(12) {
        let mut topic =
            (0..1 + numbers.below(3)).map(|_| numbers.pick(&levels)).collect::<Vec<_>>();
        if numbers.below(3) == 0 {
            topic.push("#");
        }
        let verb = numbers.pick(&["allow", "deny"]);
        let action = numbers.pick(&["publish", "receive", "subscribe", "all"]);
        text += &format!("[[rule]]\n{verb} = {action:?}\ntopics = {:?}\n", topic.join("/"));
        match numbers.below(5) {
            0 => text += "user = \"a\"\n",
            1 => text += "user = [\"a\", \"b\"]\nclient = \"b\"\n",
            2 => text += "client = [\"b\", \"a/b\"]\n",
            3 => text += "client = \"a*\"\n",
            _ => {}
        }
    }
    text
}

/// The rule that decides, found by a look at each.
fn slowly(acl: &Acl, subject: Subject<'_>, topic: TopicName<'_>, action: Actions) -> Option<usize> {
    let user = subject.identity.user.as_deref();
    let names = [("%c", Some(subject.client)), ("%u", user)];
    let is_odd = |name: &str| name.contains(['/', '+', '#']);
    let reaches = |topic_of_rule: &AclTopic, rule: &AclRule| {
        let mut text = topic_of_rule.text.to_string();
        let mut odd = Vec::new();
        for (mark, name) in names {
            match name {
                _ if !text.contains(mark) => {}
                None => return false,
                Some(name) if is_odd(name) => odd.push(mark),
                Some(name) => {
                    if text.starts_with(mark) && topic.is_system() {
                        return false;
                    }
                    text = text.replace(mark, name);
                }
            }
        }
        let Some(at) = odd.iter().filter_map(|mark| text.find(mark)).min() else {
            return TopicFilter::parse(&text).is_ok_and(|filter| filter.matches(topic));
        };
        // What comes before it must fit, what follows may be anything.
        let level_at = text[..at].rfind('/').map_or(0, |slash| slash + 1);
        let before = TopicFilter::parse(&format!("{}#", &text[..level_at])).unwrap();
        let level = topic.levels().nth(text[..level_at].matches('/').count());
        let begins = level.is_some_and(|level| level.starts_with(&text[level_at..at]));
        let literal_dollar = level_at == 0 && text[..at].starts_with('$');
        !rule.allows && begins && (literal_dollar || before.matches(topic))
    };
    acl.rules.rules.iter().position(|rule| {
        rule.actions.has(action)
            && holds(&rule.who, subject)
            && rule.topics.iter().any(|one| reaches(one, rule))
    })
}

#[test]
fn the_index_finds_what_a_look_at_each_rule_finds() {
    let mut numbers = Numbers(1);
    let topics = ["a", "b", "a/b", "b/a", "a/a/b", "xa/b", "a/xb", "$a", "$a/b", "c", "b/b/b/b"];
    let filters = ["#", "+", "a/#", "a/+", "+/b", "b/#", "a", "a/b", "$a/#", "+/+/#"];
    for round in 0..3000 {
        let text = random_rules(&mut numbers);
        let acl = acl("rules.toml", &text);
        let user = numbers.pick(&["", "a", "b", "a/b", "+"]);
        let client = numbers.pick(&["a", "b", "a/b", "#", "c"]);
        let identity =
            Identity { user: (!user.is_empty()).then(|| user.into()), ..Identity::default() };
        let subject = Subject { client, identity: &identity };
        let context = format!("round {round}: {user:?} {client:?}\n{text}");
        for topic in topics {
            let name = TopicName::parse(topic).unwrap();
            let decision = acl.receive(subject, name);
            let expected = slowly(&acl, subject, name, Actions::RECEIVE);
            let found = match decision.by {
                Grounds::Rule(at) => Some(at),
                _ => None,
            };
            assert_eq!(found, expected, "{topic} {context}");
        }
        for filter in filters {
            let parsed = TopicFilter::parse(filter).unwrap();
            let brings = |topic: &&str| parsed.matches(TopicName::parse(topic).unwrap());
            let may = |topic: &str| acl.receive(subject, TopicName::parse(topic).unwrap()).allowed;
            if acl.is_open(subject, filter) {
                assert!(topics.iter().filter(|t| brings(t)).all(|t| may(t)), "{filter} {context}");
            }
        }
    }
}

/// With so many a look at each would take minutes here.
#[test]
fn a_hundred_thousand_rules_are_as_quickly_asked_as_few() {
    const RULES: usize = 100_000;
    let own: String = (0..RULES).map(|n| format!("user u{n}\ntopic readwrite u/{n}/#\n")).collect();
    let common: String = (0..RULES).map(|n| format!("pattern deny c/{n}/+\n")).collect();
    let acl = acl("rules", &format!("{own}{common}pattern readwrite c/#\n"));
    for n in 0..RULES {
        let identity = Identity { user: Some(format!("u{n}").into()), ..Identity::default() };
        let subject = Subject { client: "c", identity: &identity };
        let may = |topic: &str| acl.receive(subject, TopicName::parse(topic).unwrap()).allowed;
        assert!(may(&format!("u/{n}/x")) && !may(&format!("u/{}/x", n + 1)));
        assert!(may(&format!("c/{n}")) && !may(&format!("c/{n}/x")));
        assert!(acl.is_open(subject, &format!("u/{n}/#")) && !acl.is_open(subject, "c/#"));
    }
}
