//! How a shared subscription chooses the member that gets a message, and which
//! one does it how. Knows no member and no message.

/// How a shared subscription chooses among its members. The standard leaves it
/// open (MQTT 5.0 section 4.8.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Strategy {
    /// Each in turn, on each shard for itself.
    #[default]
    RoundRobin,
    /// Any, all alike.
    Random,
    /// One, as long as it is there.
    Sticky,
    /// The same one for all messages of one publisher.
    HashClient,
    /// The same one for all messages on one topic.
    HashTopic,
    /// The one with the fewest deliveries in flight and waiting.
    LeastInflight,
}

impl Strategy {
    /// All of them, in the order of [`NAMES`](Self::NAMES).
    pub const ALL: [Self; 6] = [
        Self::RoundRobin,
        Self::Random,
        Self::Sticky,
        Self::HashClient,
        Self::HashTopic,
        Self::LeastInflight,
    ];

    /// What they are called in the configuration.
    pub const NAMES: [&str; 6] =
        ["round_robin", "random", "sticky", "hash_client", "hash_topic", "least_inflight"];

    /// What it is called in the configuration.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The one with that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|known| *known == name).map(|at| Self::ALL[at])
    }
}

/// Which shared subscription chooses how.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Strategies {
    /// For those without a rule of their own.
    pub default: Strategy,
    /// By the beginning of the share name; the longest that fits decides.
    pub by_prefix: Vec<(Box<str>, Strategy)>,
}

impl Strategies {
    /// How the shared subscriptions of that name choose.
    pub fn of(&self, share_name: &str) -> Strategy {
        let fits = self.by_prefix.iter().filter(|(prefix, _)| share_name.starts_with(&**prefix));
        fits.max_by_key(|(prefix, _)| prefix.len()).map_or(self.default, |(_, strategy)| *strategy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_strategies_stand_in_one_order() {
        for (at, strategy) in Strategy::ALL.into_iter().enumerate() {
            assert_eq!(strategy as usize, at);
            assert_eq!(Strategy::named(strategy.name()), Some(strategy));
        }
        assert_eq!(Strategy::named("Sticky"), None);
    }

    #[test]
    fn the_longest_prefix_decides() {
        let rule = |prefix: &str, strategy| (prefix.into(), strategy);
        let strategies = Strategies {
            default: Strategy::Random,
            by_prefix: vec![
                rule("jobs", Strategy::Sticky),
                rule("jobs-by-topic", Strategy::HashTopic),
                rule("jobs-", Strategy::LeastInflight),
            ],
        };
        for (name, expected) in [
            ("jobs", Strategy::Sticky),
            ("jobs2", Strategy::Sticky),
            ("jobs-x", Strategy::LeastInflight),
            ("jobs-by-topic", Strategy::HashTopic),
            ("jobs-by-topics", Strategy::HashTopic),
            ("job", Strategy::Random),
            ("Jobs", Strategy::Random),
        ] {
            assert_eq!(strategies.of(name), expected, "{name}");
        }
    }
}
