//! Automatic subscriptions: from a rule's text to what it means for one client.
//!
//! Knows no session; when a rule is applied is the broker's business.

use std::str::FromStr;

use crate::{
    base::{QoS, limits::STRING_BYTES_MAX},
    topic::{FilterKind, RetainHandling, Subscription, SubscriptionOptions, TopicFilter},
};

/// One rule of `auto_subscribe`: `FILTER => QOS [FLAG...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoSubscription {
    /// What each client gets, its filter with placeholders.
    template: Subscription,
}

/// Why a rule does not apply to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misfit {
    /// The value holds `+`, `#`, `/` or U+0000, or a `$` where that has a meaning.
    #[error("the client id or user name would make another filter of it")]
    OtherFilter,
    /// Longer than any string of MQTT.
    #[error("the filter would be too long")]
    TooLong,
}

impl AutoSubscription {
    /// The rule's filter, with its placeholders.
    pub fn filter(&self) -> &TopicFilter {
        &self.template.filter
    }

    /// The subscription that a client gets; none if it has no user name and the
    /// rule needs one.
    ///
    /// # Errors
    /// If the client's names do not fit into the rule's filter.
    pub fn for_client(
        &self,
        client: &str,
        user: Option<&str>,
    ) -> Result<Option<Subscription>, Misfit> {
        let template = self.filter();
        let mut text = String::new();
        let mut rest = template.as_str();
        while let Some(at) = rest.find('%') {
            text.push_str(&rest[..at]);
            let value = match rest.as_bytes().get(at + 1) {
                Some(b'c') => client,
                Some(b'u') => match user.filter(|user| !user.is_empty()) {
                    Some(user) => user,
                    None => return Ok(None),
                },
                _ => {
                    text.push('%');
                    rest = &rest[at + 1..];
                    continue;
                }
            };
            if value.contains(['+', '#', '/', '\0']) {
                return Err(Misfit::OtherFilter);
            }
            text.push_str(value);
            rest = &rest[at + 2..];
        }
        text.push_str(rest);
        if text.len() > STRING_BYTES_MAX {
            return Err(Misfit::TooLong);
        }
        let is_same = |filter: &TopicFilter| {
            let is_system = |filter: &TopicFilter| filter.pattern().starts_with('$');
            filter.kind() == template.kind() && is_system(filter) == is_system(template)
        };
        match TopicFilter::parse(&text) {
            Ok(filter) if is_same(&filter) => {
                Ok(Some(Subscription { filter, ..self.template.clone() }))
            }
            _ => Err(Misfit::OtherFilter),
        }
    }
}

impl FromStr for AutoSubscription {
    type Err = String;

    fn from_str(rule: &str) -> Result<Self, String> {
        let (filter, how) = rule.rsplit_once("=>").ok_or("it has no \" => \"")?;
        let filter = TopicFilter::parse(filter.trim()).map_err(|error| error.to_string())?;
        if filter.kind() == FilterKind::Exclusive {
            return Err("only one client could have an exclusive subscription".to_owned());
        }
        for text in [filter.as_str(), filter.pattern()] {
            let first = text.split('/').next().unwrap_or_default();
            if first.starts_with('$') && (first.contains("%c") || first.contains("%u")) {
                return Err(format!("a placeholder cannot be a part of {first:?}"));
            }
        }
        let mut words = how.split_whitespace();
        let qos = words.next().and_then(|word| word.parse().ok()).and_then(QoS::from_bits);
        let qos = qos.ok_or("there is no QoS 0, 1 or 2 behind the =>")?;
        let mut options = SubscriptionOptions { qos, ..Default::default() };
        let mut retain_handling = RetainHandling::default();
        for word in words {
            match word {
                "no_local" => options.no_local = true,
                "retain_as_published" => options.retain_as_published = true,
                "retain=send" => retain_handling = RetainHandling::SendAtSubscribe,
                "retain=new" => retain_handling = RetainHandling::SendIfNew,
                "retain=never" => retain_handling = RetainHandling::DoNotSend,
                _ => return Err(format!("{word:?} is none of {FLAGS}")),
            }
        }
        if options.no_local && filter.share_name().is_some() {
            return Err("a shared subscription cannot have no_local (MQTT-3.8.3-4)".to_owned());
        }
        Ok(Self { template: Subscription { filter, options, retain_handling } })
    }
}

const FLAGS: &str = "no_local, retain_as_published, retain=send, retain=new, retain=never";

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> AutoSubscription {
        text.parse().unwrap()
    }

    #[test]
    fn rules_are_read() {
        let Subscription { filter, options, retain_handling } =
            rule("a => b/%c => 2 no_local retain_as_published retain=never").template;
        assert_eq!(filter.as_str(), "a => b/%c");
        assert_eq!((options.qos, options.no_local), (QoS::ExactlyOnce, true));
        assert!(options.retain_as_published);
        assert_eq!(retain_handling, RetainHandling::DoNotSend);
        assert_eq!(rule("a=>0").template.retain_handling, RetainHandling::SendAtSubscribe);
    }

    #[test]
    fn wrong_rules_say_why() {
        for (text, part) in [
            ("a", "no \" => \""),
            (" => 1", "empty"),
            ("a# => 1", "wildcard"),
            ("a =>", "no QoS"),
            ("a => 3", "no QoS"),
            ("a => 1 sometimes", "\"sometimes\" is none of no_local"),
            ("$share/g/a => 1 no_local", "MQTT-3.8.3-4"),
            ("$queue/a => 1 no_local", "MQTT-3.8.3-4"),
            ("$exclusive/a => 1", "exclusive"),
            ("$%c/a => 1", "placeholder"),
            ("$share/g/$%u => 1", "placeholder"),
            ("$share/g => 1", "$share/NAME/FILTER"),
            ("$request/ => 1", "without a filter"),
        ] {
            let error = text.parse::<AutoSubscription>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn names_take_the_place_of_placeholders() {
        for (text, user, filter) in [
            ("to/%c/# => 1", None, Some("to/me/#")),
            ("%c => 1", None, Some("me")),
            ("a-%c-%u/%u => 1", Some("you"), Some("a-me-you/you")),
            ("%u => 1", None, None),
            ("%u => 1", Some(""), None),
            ("100%/%x/%%c => 1", None, Some("100%/%x/%me")),
            ("$share/%c/t => 1", None, Some("$share/me/t")),
            ("$request/%c/+ => 1", None, Some("$request/me/+")),
            ("a/%u => 1", Some("$x%c"), Some("a/$x%c")),
        ] {
            let subscription = rule(text).for_client("me", user).unwrap();
            let found = subscription.map(|subscription| subscription.filter.as_str().to_owned());
            assert_eq!(found.as_deref(), filter, "{text}");
        }
    }

    #[test]
    fn names_that_would_make_another_filter_are_refused() {
        for (text, client) in [
            ("a/%c => 1", "#"),
            ("a/%c => 1", "x+"),
            ("a/%c => 1", "b/c"),
            ("a/%c => 1", "b\0"),
            ("%c/a => 1", "$SYS"),
            ("%c/a/b => 1", "$share"),
            ("%c/a => 1", "$request"),
            ("$share/g/%c => 1", "$SYS"),
            ("$queue/%c/x => 1", "$request"),
        ] {
            let refused = rule(text).for_client(client, None);
            assert_eq!(refused, Err(Misfit::OtherFilter), "{text} {client}");
        }
        let long = "x".repeat(STRING_BYTES_MAX - 1);
        assert_eq!(rule("a/%c => 1").for_client(&long, None), Err(Misfit::TooLong));
        assert!(rule("$share/g/%c => 1").for_client("x", None).is_ok());
    }
}
