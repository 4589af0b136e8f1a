//! Files of access rules: what each line means, and what is said of wrong ones.

use super::*;

fn mosquitto(text: &str) -> Result<Vec<String>, Vec<String>> {
    parsed("rules.acl", text)
}

fn toml(text: &str) -> Result<Vec<String>, Vec<String>> {
    parsed("rules.toml", text)
}

/// The rules with their lines, or the mistakes with their places.
fn parsed(file: &str, text: &str) -> Result<Vec<String>, Vec<String>> {
    let show = |rule: &AclRule| format!("{}: {rule}", rule.line);
    let place = |error: AclError| format!("{}:{}: {}", error.line, error.column, error.why);
    match AclRules::parse(Path::new(file), text, true) {
        Ok(found) => Ok(found.rules.iter().map(show).collect()),
        Err(errors) => Err(errors.into_iter().map(place).collect()),
    }
}

#[test]
fn lines_of_mosquitto_are_read_as_it_reads_them() {
    for (line, expected) in [
        ("topic a", "allow publish, receive on \"a\""),
        ("topic read a", "allow receive on \"a\""),
        ("topic write a/+/#", "allow publish on \"a/+/#\""),
        ("topic readwrite a", "allow publish, receive on \"a\""),
        ("topic deny a", "deny publish, receive on \"a\""),
        ("  topic   read   a b  c \t\r", "allow receive on \"a b  c\""),
        ("topic read", "allow publish, receive on \"read\""),
        ("topic read\ta", "allow publish, receive on \"read\\ta\""),
        ("topic read %c", "allow receive on \"%c\""),
        ("pattern read %c", "allow receive on \"%c\""),
        ("topic write $SYS/x", "allow publish on \"$SYS/x\""),
    ] {
        assert_eq!(mosquitto(line), Ok(vec![format!("1: {expected}")]), "{line:?}");
    }
    for line in ["", "# topic a", "   ", "\t", "user a b", "user  ann"] {
        assert_eq!(mosquitto(line), Ok(vec![]), "{line:?}");
    }
}

#[test]
fn what_is_written_last_may_be_asked_first() {
    let text = "pattern read p\npattern deny p/%c\nuser ann\ntopic read own\ntopic deny own/x\n";
    let rules = AclRules::parse(Path::new("f"), text, true).unwrap();
    assert_eq!(rules.rules.iter().map(|rule| rule.line).collect::<Vec<_>>(), [5, 4, 2, 1]);
    assert!(!rules.allows_rest, "acl_default is for our own form");
    let exact = |name: &str| vec![NamePattern::Exact(name.into())];
    assert_eq!(rules.rules[0].who.users, exact("ann"));
    assert!(rules.rules[2].who.users.is_empty() && rules.rules[2].who.has_plain_names);
    let anonymous = AclRules::parse(Path::new("f"), "topic a\nuser b*\ntopic b", false).unwrap();
    assert!(anonymous.rules[0].who.is_anonymous);
    assert_eq!(anonymous.rules[1].who.users, exact("b*"));
}

#[test]
fn wrong_lines_of_mosquitto_are_told_with_their_places() {
    let long = format!("x{} y", "x".repeat(100_000));
    let shown = format!("1:1: {:?} is none of user, topic, pattern or a # comment", "x".repeat(40));
    for (line, expected) in [
        ("foo bar", "1:1: \"foo\" is none of user, topic, pattern or a # comment"),
        (" # comment", "1:2: \"#\" is none of user, topic, pattern or a # comment"),
        ("topic foo bar", "1:7: \"foo\" is none of read, write, readwrite and deny"),
        ("topic", "1:6: a topic is missing"),
        ("user", "1:1: a user name is missing behind \"user\""),
        ("user  ", "1:1: a user name is missing behind \"user\""),
        ("topic read a/#/b", "1:12: a # is not the last level of the topic filter"),
        ("topic read ä  b+", "1:12: a wildcard does not fill a level of the topic filter"),
        ("topic a\0b", "1:8: the line holds U+0000"),
        (&long, &shown),
    ] {
        assert_eq!(mosquitto(line), Err(vec![expected.to_owned()]), "{line:?}");
    }
    let deep = format!("topic {}", "a/".repeat(TOPIC_LEVELS_MAX));
    assert_eq!(mosquitto(&deep).unwrap_err(), ["1:7: the topic filter has too many levels"]);
    assert_eq!(mosquitto(&"x\n".repeat(1000)).unwrap_err().len(), ACL_ERRORS_MAX);
}

#[test]
fn tables_are_read() {
    let text = r##"
# Comment
[[rule]]
deny = "publish"
topics = ["a/#", "b"]

[[rule]]
allow = ["subscribe", "publish"]
topics = "%c/#"
user = ["ann", "b-*"]
client = "*"
group = "ops"
address = ["10.0.0.0/8", "::1"]
qos_max = 1
retain = false

[[rule]]
allow = "all"
anonymous = true
topics = "x"
"##;
    let rules = AclRules::parse(Path::new("r.toml"), text, true).unwrap();
    assert!(rules.allows_rest && rules.form == AclForm::Toml);
    let [first, second, third] = &rules.rules[..] else { panic!("{rules:?}") };
    assert_eq!(first.to_string(), "deny publish on \"a/#\", \"b\"");
    assert_eq!((first.line, second.line, third.line), (3, 7, 17));
    assert_eq!(second.to_string(), "allow publish, subscribe, receive on \"%c/#\"");
    let prefix = |name: &str| NamePattern::Prefix(name.into());
    assert_eq!(second.who.users, [NamePattern::Exact("ann".into()), prefix("b-")]);
    assert_eq!((second.who.clients.as_slice(), second.who.addresses.len()), (&[prefix("")][..], 2));
    assert_eq!((second.qos_max, second.retain), (QoS::AtLeastOnce, false));
    assert!(third.who.is_anonymous && third.actions.has(Actions::RECEIVE));
    assert_eq!(toml(""), Ok(vec![]));
}

#[test]
fn wrong_tables_are_told_with_their_places() {
    for (text, expected) in [
        ("a = 1", "1:1: only [[rule]] tables are known here"),
        ("[rule]\nallow = \"all\"", "1:2: only [[rule]] tables are known here"),
        ("rule = [1]", "1:9: a rule is a table: [[rule]]"),
        (
            "[[rule]]\nallow = \"all\"",
            "1:1: the rule has no topics; topics = \"#\" are all that do not start with $",
        ),
        ("[[rule]]\ntopics = \"a\"", "1:1: the rule has neither allow nor deny"),
        (
            "[[rule]]\ntopics=\"a\"\nallow=\"all\"\ndeny=\"all\"",
            "1:1: the rule has both allow and deny",
        ),
        (
            "[[rule]]\ntopics = [\"a\", \"b#\"]\nallow = \"all\"",
            "2:10: a wildcard does not fill a level of the topic filter",
        ),
        (
            "[[rule]]\ntopics = []\nallow = \"all\"",
            "2:10: topics must be a text or a list of texts, and not empty",
        ),
        (
            "[[rule]]\ntopics = \"a\"\nallow = \"read\"",
            "3:9: \"read\" is none of publish, subscribe, receive and all",
        ),
        (
            "[[rule]]\ntopics = \"a\"\nallow = \"all\"\nuserr = \"x\"",
            "4:1: unknown key \"userr\"; did you mean \"user\"?",
        ),
        (
            "[[rule]]\ntopics = \"a\"\nallow = \"all\"\naddress = \"10.0.0.0/33\"",
            "4:11: \"10.0.0.0/33\" is neither an address nor ADDRESS/BITS",
        ),
        (
            "[[rule]]\ntopics = \"a\"\nallow = \"all\"\nqos_max = 3",
            "4:11: qos_max must be 0, 1 or 2",
        ),
        (
            "[[rule]]\ntopics = \"a\"\nallow = \"all\"\nanonymous = false",
            "4:13: anonymous must be true, or left out",
        ),
        (
            "[[rule]]\ntopics=\"a\"\nallow=\"all\"\nanonymous=true\nuser=\"a\"",
            "1:1: a client that is anonymous has neither user nor group",
        ),
        (
            "[[rule]]\ntopics=\"a\"\ndeny=\"all\"\nretain=true",
            "1:1: qos_max and retain limit what is allowed: a rule that denies has neither",
        ),
    ] {
        assert_eq!(toml(text), Err(vec![expected.to_owned()]), "{text}");
    }
    assert!(toml("[[rule]\n").unwrap_err()[0].starts_with("1:"));
}
