//! Files of access rules, and questions to them: no panic, every mistake is told with its line, and names that
//! are no topic level open nothing.

use std::path::Path;

use ringmq::{
    auth::{
        Identity,
        acl::{Acl, Decision, Grounds, Subject},
    },
    base::QoS,
    config::{AclForm, AclRule, AclRules},
    topic::{TopicFilter, TopicName},
};

/// Parts with a NUL between them: a file, in TOML if it begins with `[`; then user, client and topic in turn.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let name = if file.starts_with('[') { "rules.toml" } else { "rules.acl" };
    let rules = match AclRules::parse(Path::new(name), file, file.len() % 2 == 1) {
        Ok(rules) => rules,
        Err(errors) => {
            assert!(!errors.is_empty() && errors.is_sorted_by_key(|error| error.line));
            let lines = file.split('\n').count();
            assert!(
                errors.iter().all(|error| (1..=lines).contains(&error.line) && error.column > 0)
            );
            return assert!(errors.iter().all(|error| !error.why.is_empty()));
        }
    };
    let acl = Acl::new(rules);
    while let (Some(user), Some(client), Some(topic)) = (parts.next(), parts.next(), parts.next()) {
        ask(&acl, user, client, topic);
    }
}

fn ask(acl: &Acl, user: &str, client: &str, text: &str) {
    let user = (!user.is_empty()).then(|| user.into());
    let identity = Identity { user, ..Identity::default() };
    let subject = Subject { client, identity: &identity };
    let Ok(filter) = TopicFilter::parse(text) else { return };
    let check = |decision: Decision| {
        assert!(!acl.explain(decision).is_empty());
        let Grounds::Rule(at) = decision.by else { return };
        let rule = &acl.rules().rules[at];
        assert_eq!(rule.allows, decision.allowed);
        assert!(!(rule.allows && needs_name(rule) && is_odd(client) && is_odd_user(&identity)));
    };
    check(acl.subscribe(subject, filter.pattern()));
    let is_open = acl.is_open(subject, filter.pattern());
    let Ok(topic) = TopicName::parse(filter.pattern()) else { return };
    let receive = acl.receive(subject, topic);
    check(receive);
    assert!(receive.allowed || !is_open, "{text}");
    let publish = acl.publish(subject, topic, QoS::AtLeastOnce, true);
    check(publish);
    let by_rule = matches!(publish.by, Grounds::Rule(_));
    assert!(!(publish.allowed && topic.is_system()) || by_rule, "{text}");
    if acl.rules().form == AclForm::Mosquitto {
        assert!(acl.subscribe(subject, filter.pattern()).allowed);
    }
}

fn needs_name(rule: &AclRule) -> bool {
    rule.topics.iter().all(|topic| topic.is_own())
}

fn is_odd(name: &str) -> bool {
    name.contains(['/', '+', '#'])
}

fn is_odd_user(identity: &Identity) -> bool {
    identity.user.as_deref().is_none_or(is_odd)
}
