//! The `$request/FILTER` registrations of one session: for which topics its
//! client may ask, and how it wants the answers.

use std::collections::HashMap;

use ahash::RandomState;

use crate::{
    base::limits::REQUEST_WILDCARDS_MAX,
    topic::{FilterKind, SubscriptionOptions, TopicFilter, TopicName},
};

/// Registrations by filter. They are among the session's subscriptions too,
/// which bounds them.
#[derive(Debug, Default)]
pub struct Requests(Option<Box<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Those for one topic each.
    exact: Registrations,
    /// At most [`REQUEST_WILDCARDS_MAX`].
    wildcards: Registrations,
}

type Registrations = HashMap<TopicFilter, SubscriptionOptions, RandomState>;

impl Requests {
    /// Whether a subscription does not pass the bound on registrations with wildcards.
    pub fn has_room_for(&self, filter: &TopicFilter) -> bool {
        let wildcards = self.0.as_ref().map_or(0, |known| known.wildcards.len());
        filter.kind() != FilterKind::Request
            || !filter.has_wildcard()
            || wildcards < REQUEST_WILDCARDS_MAX
    }

    /// Adds a registration or changes its options.
    pub fn insert(&mut self, filter: TopicFilter, options: SubscriptionOptions) {
        self.0.get_or_insert_default().of_kind(&filter).insert(filter, options);
    }

    /// Ends a registration.
    pub fn remove(&mut self, filter: &TopicFilter) {
        if let Some(known) = &mut self.0 {
            known.of_kind(filter).remove(filter);
        }
        self.0.take_if(|known| known.exact.is_empty() && known.wildcards.is_empty());
    }

    /// The registration that allows a request: that of the same filter, or, for
    /// one topic, the one with the highest QoS of those that match it.
    pub fn find(&self, asked: &TopicFilter) -> Option<(&TopicFilter, SubscriptionOptions)> {
        let known = self.0.as_ref()?;
        let same =
            known.exact.get_key_value(asked).or_else(|| known.wildcards.get_key_value(asked));
        let found = same.or_else(|| {
            let topic = TopicName::parse(asked.pattern()).ok()?;
            let matching = known.wildcards.iter().filter(|(filter, _)| filter.matches(topic));
            matching.max_by_key(|(filter, options)| (options.qos, filter.as_str()))
        });
        found.map(|(filter, options)| (filter, *options))
    }
}

impl Known {
    fn of_kind(&mut self, filter: &TopicFilter) -> &mut Registrations {
        if filter.has_wildcard() { &mut self.wildcards } else { &mut self.exact }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::QoS;

    #[test]
    fn a_request_needs_its_filter_or_one_that_matches_its_topic() {
        let filter = |text: &str| TopicFilter::parse(text).unwrap();
        let mut requests = Requests::default();
        assert!(requests.find(&filter("$request/a")).is_none());
        for (text, qos) in [
            ("$request/a/#", QoS::AtMostOnce),
            ("$request/+/b", QoS::ExactlyOnce),
            ("$request/a/b/c", QoS::AtLeastOnce),
        ] {
            requests.insert(filter(text), SubscriptionOptions { qos, ..Default::default() });
        }
        for (asked, found) in [
            ("$request/a/#", Some("$request/a/#")),
            ("$request/a/b", Some("$request/+/b")),
            ("$request/a/c", Some("$request/a/#")),
            ("$request/a/b/c", Some("$request/a/b/c")),
            ("$request/a/+", None),
            ("$request/b", None),
        ] {
            let registration = requests.find(&filter(asked)).map(|(filter, _)| filter.as_str());
            assert_eq!(registration, found, "{asked}");
        }
        for text in ["$request/a/#", "$request/+/b", "$request/a/b/c"] {
            requests.remove(&filter(text));
        }
        assert!(requests.0.is_none());
    }

    #[test]
    fn wildcards_are_bounded() {
        let filter = |text: &str| TopicFilter::parse(text).unwrap();
        let mut requests = Requests::default();
        for n in 0..REQUEST_WILDCARDS_MAX {
            assert!(requests.has_room_for(&filter("$request/#")));
            requests.insert(filter(&format!("$request/{n}/#")), SubscriptionOptions::default());
        }
        assert!(!requests.has_room_for(&filter("$request/#")));
        assert!(requests.has_room_for(&filter("$request/a")));
        assert!(requests.has_room_for(&filter("#")), "it is no registration");
        requests.remove(&filter("$request/0/#"));
        assert!(requests.has_room_for(&filter("$request/#")));
    }
}
