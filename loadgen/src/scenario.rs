//! Who publishes to whom: the topics, the filters, and which deliveries are to be expected.
//!
//! Pure arithmetic on client numbers; knows no connection and no time.

use clap::ValueEnum;

/// A shape of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Scenario {
    /// Pairs: each publisher has a subscriber of its own
    #[value(name = "p2p")]
    P2p,
    /// Each message goes to all subscribers
    FanOut,
    /// Many publishers, few subscribers; each message goes to one of them
    FanIn,
}

/// A scenario with its numbers of clients.
///
/// A stream is the messages of one publisher to one of its subscribers: the unit whose completeness
/// and order can be checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    /// First part of topics and client identifiers: runs at the same time do not meet.
    prefix: String,
}

/// Numbers of clients that the scenario has no use for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("p2p needs as many publishers as subscribers, not {publishers} and {subscribers}")]
    Unpaired { publishers: u32, subscribers: u32 },
    #[error("fan-in needs a publisher for each subscriber, but {publishers} < {subscribers}")]
    IdleSubscribers { publishers: u32, subscribers: u32 },
    #[error("{streams} pairs of publisher and subscriber are more than {STREAMS_MAX}")]
    TooManyStreams { streams: u64 },
}

impl Plan {
    /// Fills in the numbers that are not given. `run_id` is this run's, unlike any other's.
    pub(crate) fn new(
        scenario: Scenario,
        publishers: Option<u32>,
        subscribers: Option<u32>,
        run_id: &str,
    ) -> Result<Self, PlanError> {
        let (publishers, subscribers) = match scenario {
            Scenario::P2p => {
                let publishers = publishers.or(subscribers).unwrap_or(50);
                (publishers, subscribers.unwrap_or(publishers))
            }
            Scenario::FanOut => (publishers.unwrap_or(1), subscribers.unwrap_or(1000)),
            Scenario::FanIn => (publishers.unwrap_or(200), subscribers.unwrap_or(1)),
        };
        let plan = Self { scenario, publishers, subscribers, prefix: format!("loadgen-{run_id}") };
        match scenario {
            Scenario::P2p if publishers != subscribers => {
                Err(PlanError::Unpaired { publishers, subscribers })
            }
            Scenario::FanIn if publishers < subscribers => {
                Err(PlanError::IdleSubscribers { publishers, subscribers })
            }
            _ if plan.streams() > STREAMS_MAX => {
                Err(PlanError::TooManyStreams { streams: plan.streams() })
            }
            _ => Ok(plan),
        }
    }

    /// Subscribers that each message goes to.
    pub(crate) fn takers(&self) -> u64 {
        match self.scenario {
            Scenario::P2p | Scenario::FanIn => 1,
            Scenario::FanOut => self.subscribers.into(),
        }
    }

    /// Number of streams, which are numbered from 0.
    pub(crate) fn streams(&self) -> u64 {
        u64::from(self.publishers) * self.takers()
    }

    /// The stream that a delivery belongs to, unless the subscriber should not have got it.
    pub(crate) fn stream(&self, publisher: u32, subscriber: u32) -> Option<usize> {
        if publisher >= self.publishers {
            return None;
        }
        match self.scenario {
            Scenario::P2p => (publisher == subscriber).then_some(publisher as usize),
            Scenario::FanOut => {
                Some(publisher as usize * self.subscribers as usize + subscriber as usize)
            }
            Scenario::FanIn => {
                (publisher % self.subscribers == subscriber).then_some(publisher as usize)
            }
        }
    }

    /// What a publisher publishes to.
    pub(crate) fn topic(&self, publisher: u32) -> String {
        let prefix = &self.prefix;
        match self.scenario {
            Scenario::P2p => format!("{prefix}/{publisher}"),
            Scenario::FanOut => format!("{prefix}/all"),
            Scenario::FanIn => format!("{prefix}/{}/{publisher}", publisher % self.subscribers),
        }
    }

    /// What a subscriber subscribes to.
    pub(crate) fn filter(&self, subscriber: u32) -> String {
        let prefix = &self.prefix;
        match self.scenario {
            Scenario::P2p => format!("{prefix}/{subscriber}"),
            Scenario::FanOut => format!("{prefix}/all"),
            Scenario::FanIn => format!("{prefix}/{subscriber}/+"),
        }
    }

    /// The client identifier of a client, publishers first.
    pub(crate) fn client_id(&self, client: u32) -> String {
        match client.checked_sub(self.publishers) {
            None => format!("{}-p{client}", self.prefix),
            Some(subscriber) => format!("{}-s{subscriber}", self.prefix),
        }
    }
}

/// About 16 bytes each.
const STREAMS_MAX: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        match filter.strip_suffix('+') {
            Some(parent) => topic.strip_prefix(parent).is_some_and(|rest| !rest.contains('/')),
            None => filter == topic,
        }
    }

    #[test]
    fn streams_are_exactly_where_filters_match() {
        for (scenario, publishers, subscribers) in
            [(Scenario::P2p, 4, 4), (Scenario::FanOut, 3, 12), (Scenario::FanIn, 14, 3)]
        {
            let plan = Plan::new(scenario, Some(publishers), Some(subscribers), "1").unwrap();
            let mut seen = Vec::new();
            for publisher in 0..publishers {
                let mut takers = 0;
                for subscriber in 0..subscribers {
                    let stream = plan.stream(publisher, subscriber);
                    let matches = matches(&plan.filter(subscriber), &plan.topic(publisher));
                    assert_eq!(stream.is_some(), matches, "{scenario:?}");
                    takers += u64::from(matches);
                    seen.extend(stream);
                }
                assert_eq!(takers, plan.takers());
            }
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..plan.streams() as usize), "each stream has its number");
            assert_eq!(plan.stream(publishers, 0), None);
        }
    }

    #[test]
    fn numbers_of_clients_are_checked() {
        let plan = |scenario, publishers, subscribers| {
            Plan::new(scenario, publishers, subscribers, "1")
                .map(|plan| (plan.publishers, plan.subscribers))
        };
        assert_eq!(plan(Scenario::P2p, None, Some(7)), Ok((7, 7)));
        assert_eq!(plan(Scenario::FanIn, Some(9), None), Ok((9, 1)));
        let unpaired = PlanError::Unpaired { publishers: 1, subscribers: 2 };
        assert_eq!(plan(Scenario::P2p, Some(1), Some(2)), Err(unpaired));
        let idle = PlanError::IdleSubscribers { publishers: 1, subscribers: 2 };
        assert_eq!(plan(Scenario::FanIn, Some(1), Some(2)), Err(idle));
        let many = plan(Scenario::FanOut, Some(60_000), Some(60_000));
        assert_eq!(many, Err(PlanError::TooManyStreams { streams: 3_600_000_000 }));
    }

    #[test]
    fn every_client_has_its_own_identifier() {
        let plan = Plan::new(Scenario::P2p, Some(3), None, "1").unwrap();
        let mut ids: Vec<String> = (0..6).map(|client| plan.client_id(client)).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6);
    }
}
