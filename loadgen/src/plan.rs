//! Who is who in a run, on which thread, and which messages each subscriber has to get.
//!
//! Clients are numbered through: publishers, subscribers, idle ones. A *stream* is the messages of one
//! publisher to one taker, that is, to one subscriber or to one group that shares a subscription: the
//! unit whose completeness and order can be checked. Pure arithmetic; knows no connection and no time.

use std::{collections::HashMap, ops::Range};

use ringmq::topic::{TopicFilter, TopicName};

use crate::{
    homes::Homes,
    scenario::{Attendance, Pace, Scenario, Variables},
};

/// A scenario with names: the clients, their topics and filters, and who gets what.
pub(crate) struct Plan {
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    pub(crate) idle: u32,
    naming: Naming,
    /// By publisher: which of the `routes` its messages take.
    route_of: Vec<u32>,
    /// The takers on each route, in ascending order.
    routes: Vec<Vec<u32>>,
    /// By subscriber: its own number, or that of its group behind all subscribers.
    taker_of: Vec<u32>,
    scenario: Scenario,
}

/// What client identifiers and the run's variables are made of.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    /// `%r`: this run's, unlike any other's.
    pub(crate) run: String,
    /// Client identifiers start with it.
    pub(crate) prefix: String,
    pub(crate) user_name: String,
    /// Number of the first client of each kind.
    pub(crate) first: u64,
    /// Whether client identifiers say which kind of client it is; `conn`, `pub` and `sub` have only one.
    pub(crate) kinds: bool,
    /// On which shards of ringmq the clients are to live, if they are chosen by that.
    pub(crate) homes: Option<Homes>,
}

/// One client of the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Publisher(u32),
    Subscriber(u32),
    Idle(u32),
}

/// A plan that cannot be carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("{0:?} is no topic: {1}")]
    Topic(String, String),
    #[error("{0:?} is no topic filter: {1}")]
    Filter(String, String),
    #[error("{streams} pairs of publisher and subscriber are more than {STREAMS_MAX}")]
    TooManyStreams { streams: u64 },
    #[error("nobody subscribes to {0:?}")]
    NobodyThere(String),
    #[error(
        "a window counts deliveries, but those of {0} arrive at another worker: give a rate instead"
    )]
    WindowAcrossWorkers(String),
}

impl Plan {
    /// Works out who gets what.
    pub(crate) fn new(scenario: &Scenario, naming: &Naming) -> Result<Self, PlanError> {
        let mut plan = Self {
            publishers: scenario.publishers,
            subscribers: scenario.subscribers,
            idle: scenario.idle,
            naming: naming.clone(),
            route_of: Vec::new(),
            routes: Vec::new(),
            taker_of: Vec::new(),
            scenario: scenario.clone(),
        };
        if scenario.checked {
            plan.find_routes()?;
        } else {
            plan.check_names()?;
        }
        Ok(plan)
    }

    /// How many clients there are.
    pub(crate) fn clients(&self) -> u32 {
        self.publishers + self.subscribers + self.idle
    }

    /// What the client of that number is.
    pub(crate) fn role(&self, client: u32) -> Role {
        match client.checked_sub(self.publishers) {
            None => Role::Publisher(client),
            Some(rest) if rest < self.subscribers => Role::Subscriber(rest),
            Some(rest) => Role::Idle(rest - self.subscribers),
        }
    }

    /// The clients of one of `threads` threads. Members of a group stay together, so that the
    /// messages that they share can be checked without a look at other threads.
    pub(crate) fn clients_of(&self, thread: usize, threads: usize) -> Vec<u32> {
        let is_here = |client: &u32| self.thread_of(*client, threads) == thread;
        (0..self.clients()).filter(is_here).collect()
    }

    /// How many clients these of `threads` threads have.
    pub(crate) fn clients_at(&self, own: &Range<usize>, threads: usize) -> u32 {
        let is_here = |client: &u32| own.contains(&self.thread_of(*client, threads));
        (0..self.clients()).filter(is_here).count() as u32
    }

    /// The thread of a publisher.
    pub(crate) fn thread_of_publisher(publisher: u32, threads: usize) -> usize {
        publisher as usize % threads
    }

    fn thread_of(&self, client: u32, threads: usize) -> usize {
        match self.role(client) {
            Role::Publisher(number) | Role::Idle(number) => number as usize % threads,
            Role::Subscriber(number) => {
                let taker = self.taker_of.get(number as usize).copied().unwrap_or(number);
                taker.checked_sub(self.subscribers).unwrap_or(taker) as usize % threads
            }
        }
    }

    /// Takers of each message of a publisher.
    pub(crate) fn takers(&self, publisher: u32) -> u64 {
        self.route_of
            .get(publisher as usize)
            .map_or(0, |route| self.routes[*route as usize].len() as u64)
    }

    /// The streams that arrive at these clients.
    pub(crate) fn streams(&self, clients: &[u32]) -> Streams {
        let mut here: Vec<u32> = clients
            .iter()
            .filter_map(|client| match self.role(*client) {
                Role::Subscriber(number) => self.taker_of.get(number as usize).copied(),
                _ => None,
            })
            .collect();
        here.sort_unstable();
        here.dedup();
        let local = |route: &Vec<u32>| {
            route.iter().copied().filter(|taker| here.binary_search(taker).is_ok()).collect()
        };
        let routes: Vec<Vec<u32>> = self.routes.iter().map(local).collect();
        let mut count = 0;
        let starts = self.route_of.iter().map(|route| {
            let start = count;
            count += routes[*route as usize].len();
            (start, *route)
        });
        let starts = starts.collect();
        Streams { starts, routes, count, groups_from: self.subscribers }
    }

    /// The number of the taker that a subscriber is, or belongs to.
    pub(crate) fn taker(&self, subscriber: u32) -> u32 {
        self.taker_of.get(subscriber as usize).copied().unwrap_or(subscriber)
    }

    /// A closed loop needs to see in one process what became of each message that it sends.
    pub(crate) fn check_workers(
        &self,
        threads: usize,
        own: &Range<usize>,
    ) -> Result<(), PlanError> {
        let closed = matches!(self.scenario.pace, Pace::Window(_));
        if !closed || self.scenario.attendance != Attendance::Present || own.len() == threads {
            return Ok(());
        }
        let groups = self.subscribers as usize;
        for publisher in 0..self.publishers {
            let home = Self::thread_of_publisher(publisher, threads) / own.len();
            let Some(route) = self.route_of.get(publisher as usize) else { continue };
            let takers = &self.routes[*route as usize];
            let elsewhere = takers.iter().any(|taker| {
                let number = (*taker as usize).checked_sub(groups).unwrap_or(*taker as usize);
                number % threads / own.len() != home
            });
            if elsewhere {
                return Err(PlanError::WindowAcrossWorkers(self.topic(publisher).0));
            }
        }
        Ok(())
    }

    /// What a publisher publishes to, and where the number of the message stands in it.
    pub(crate) fn topic(&self, publisher: u32) -> (String, Option<usize>) {
        self.fill(&self.scenario.topic, Role::Publisher(publisher))
    }

    /// What a subscriber subscribes to.
    pub(crate) fn filter(&self, subscriber: u32) -> String {
        self.fill(&self.scenario.filter, Role::Subscriber(subscriber)).0
    }

    /// The client identifier of a client.
    pub(crate) fn client_id(&self, client: u32) -> String {
        self.client_id_of(self.role(client))
    }

    fn client_id_of(&self, role: Role) -> String {
        let (kind, number) = match role {
            Role::Publisher(number) => ("p", number),
            Role::Subscriber(number) => ("s", number),
            Role::Idle(number) => ("i", number),
        };
        let (prefix, number) = (&self.naming.prefix, u64::from(number) + self.naming.first);
        let kind = if self.naming.kinds { kind } else { "" };
        let name = format!("{prefix}{kind}{number}");
        let Some(homes) = &self.naming.homes else { return name };
        let home = match role {
            Role::Publisher(number) | Role::Idle(number) => homes.of_publisher(number),
            Role::Subscriber(number) => homes.of_subscriber(number, self.publishers),
        };
        homes.name(&name, home)
    }

    fn fill(&self, template: &crate::scenario::Template, role: Role) -> (String, Option<usize>) {
        let (Role::Publisher(number) | Role::Subscriber(number) | Role::Idle(number)) = role;
        let client_id = self.client_id_of(role);
        template.fill(&Variables {
            number: u64::from(number) + self.naming.first,
            client_id: &client_id,
            user_name: &self.naming.user_name,
            group: u64::from(number) % u64::from(self.subscribers.max(1)),
            run: &self.naming.run,
        })
    }

    fn check_names(&self) -> Result<(), PlanError> {
        // They differ in numbers only: the last is the longest.
        if let Some(last) = self.publishers.checked_sub(1) {
            self.parsed_topic(last)?;
        }
        if let Some(last) = self.subscribers.checked_sub(1) {
            self.parsed_filter(last)?;
        }
        Ok(())
    }

    fn parsed_topic(&self, publisher: u32) -> Result<String, PlanError> {
        let (topic, _) = self.topic(publisher);
        match TopicName::parse(&topic) {
            Ok(_) => Ok(topic),
            Err(error) => Err(PlanError::Topic(topic, error.to_string())),
        }
    }

    fn parsed_filter(&self, subscriber: u32) -> Result<TopicFilter, PlanError> {
        let filter = self.filter(subscriber);
        TopicFilter::parse(&filter).map_err(|error| PlanError::Filter(filter, error.to_string()))
    }

    fn find_routes(&mut self) -> Result<(), PlanError> {
        let filters = self.find_takers()?;
        let mut exact: HashMap<&str, &[u32]> = HashMap::new();
        let mut wild: Vec<(&TopicFilter, &[u32])> = Vec::new();
        for (filter, takers) in &filters {
            if filter.has_wildcard() || filter.share_name().is_some() {
                wild.push((filter, takers));
            } else {
                exact.insert(filter.as_str(), takers);
            }
        }
        let mut known: HashMap<String, u32> = HashMap::new();
        let mut streams = 0;
        for publisher in 0..self.publishers {
            let topic = self.parsed_topic(publisher)?;
            let route = match known.get(&topic) {
                Some(route) => *route,
                None => {
                    let name = TopicName::parse(&topic).expect("checked above");
                    let matching = wild.iter().filter(|(filter, _)| filter.matches(name));
                    let mut takers = exact.get(topic.as_str()).map_or(vec![], |some| some.to_vec());
                    takers.extend(matching.flat_map(|(_, some)| some.iter().copied()));
                    takers.sort_unstable();
                    if takers.is_empty() && self.subscribers > 0 {
                        return Err(PlanError::NobodyThere(topic));
                    }
                    self.routes.push(takers);
                    let route = self.routes.len() as u32 - 1;
                    known.insert(topic, route);
                    route
                }
            };
            streams += self.routes[route as usize].len() as u64;
            self.route_of.push(route);
        }
        // What each member of a group has got of each publisher is kept too.
        let members = self.taker_of.iter().filter(|taker| **taker >= self.subscribers).count();
        streams += members as u64 * u64::from(self.publishers);
        if streams > STREAMS_MAX {
            return Err(PlanError::TooManyStreams { streams });
        }
        Ok(())
    }

    /// The different filters, each with its takers; numbers the groups.
    fn find_takers(&mut self) -> Result<Vec<(TopicFilter, Vec<u32>)>, PlanError> {
        let mut filters: Vec<(TopicFilter, Vec<u32>)> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut groups = 0;
        for subscriber in 0..self.subscribers {
            let text = self.filter(subscriber);
            let place = match known.get(&text) {
                Some(place) => *place,
                None => {
                    let filter = self.parsed_filter(subscriber)?;
                    let shared = filter.share_name().is_some();
                    let group = shared.then(|| {
                        groups += 1;
                        self.subscribers + groups - 1
                    });
                    filters.push((filter, group.into_iter().collect()));
                    known.insert(text, filters.len() - 1);
                    filters.len() - 1
                }
            };
            let (filter, takers) = &mut filters[place];
            if filter.share_name().is_some() {
                self.taker_of.push(takers[0]);
            } else {
                takers.push(subscriber);
                self.taker_of.push(subscriber);
            }
        }
        Ok(filters)
    }
}

/// The streams that arrive at one thread, numbered from 0.
pub(crate) struct Streams {
    /// By publisher: the number of its first stream, and the route.
    starts: Vec<(usize, u32)>,
    routes: Vec<Vec<u32>>,
    pub(crate) count: usize,
    groups_from: u32,
}

impl Streams {
    /// The stream from a publisher to a taker of this thread; `None` if it should not have got it.
    #[inline]
    pub(crate) fn find(&self, publisher: u32, taker: u32) -> Option<usize> {
        let (start, route) = *self.starts.get(publisher as usize)?;
        let takers = &self.routes[route as usize];
        // Takers are mostly numbered without gaps.
        let guess = taker.checked_sub(*takers.first()?)? as usize;
        if takers.get(guess) == Some(&taker) {
            return Some(start + guess);
        }
        takers.binary_search(&taker).ok().map(|place| start + place)
    }

    /// Whether the taker is a group.
    pub(crate) fn is_group(&self, taker: u32) -> bool {
        taker >= self.groups_from
    }
}

/// About 16 bytes each.
const STREAMS_MAX: u64 = 50_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{self, Overrides};

    fn naming() -> Naming {
        Naming {
            run: "1".to_owned(),
            prefix: "x-".to_owned(),
            user_name: String::new(),
            first: 0,
            kinds: true,
            homes: None,
        }
    }

    fn plan(name: &str, publishers: u32, subscribers: u32) -> Result<Plan, PlanError> {
        let overrides = Overrides {
            publishers: Some(publishers),
            subscribers: Some(subscribers),
            ..Overrides::default()
        };
        Plan::new(&scenario::load(name, &overrides).unwrap(), &naming())
    }

    #[test]
    fn streams_are_exactly_where_filters_match() {
        for (name, publishers, subscribers) in [
            ("p2p", 4, 4),
            ("fan-out", 3, 12),
            ("fan-in", 14, 3),
            ("mqttbs-fan-out-5-1k", 5, 7),
            ("retained", 3, 4),
        ] {
            let plan = plan(name, publishers, subscribers).unwrap();
            for threads in [1, 2, 3] {
                let mut seen = 0;
                for thread in 0..threads {
                    let clients = plan.clients_of(thread, threads);
                    let streams = plan.streams(&clients);
                    let mut numbers = Vec::new();
                    for client in clients {
                        let Role::Subscriber(subscriber) = plan.role(client) else { continue };
                        let filter = TopicFilter::parse(&plan.filter(subscriber)).unwrap();
                        for publisher in 0..publishers {
                            let topic = plan.topic(publisher).0;
                            let stream = streams.find(publisher, plan.taker(subscriber));
                            let matches = filter.matches(TopicName::parse(&topic).unwrap());
                            assert_eq!(stream.is_some(), matches, "{name} {topic}");
                            numbers.extend(stream);
                        }
                        assert_eq!(streams.find(publishers, plan.taker(subscriber)), None);
                    }
                    numbers.sort_unstable();
                    assert!(numbers.into_iter().eq(0..streams.count), "each has its number");
                    seen += streams.count as u64;
                }
                assert_eq!(seen, (0..publishers).map(|one| plan.takers(one)).sum::<u64>());
            }
        }
    }

    #[test]
    fn a_group_is_one_taker_and_stays_on_one_thread() {
        let plan = plan("shared", 6, 5).unwrap();
        assert_eq!(plan.takers(0), 1);
        let threads: Vec<usize> = (0..3)
            .filter(|thread| {
                let clients = plan.clients_of(*thread, 3);
                clients.iter().any(|one| matches!(plan.role(*one), Role::Subscriber(_)))
            })
            .collect();
        assert_eq!(threads.len(), 1);
        let clients = plan.clients_of(threads[0], 3);
        let streams = plan.streams(&clients);
        assert_eq!(streams.count, 6);
        assert!(streams.is_group(plan.taker(3)));
        assert_eq!(streams.find(4, plan.taker(0)), streams.find(4, plan.taker(4)));
    }

    #[test]
    fn every_client_is_on_one_thread_and_has_its_own_identifier() {
        let plan = plan("p2p", 3, 3).unwrap();
        let mut ids: Vec<String> = (0..2)
            .flat_map(|thread| plan.clients_of(thread, 2))
            .map(|client| plan.client_id(client))
            .collect();
        ids.sort();
        assert_eq!(plan.clients_at(&(0..1), 2) + plan.clients_at(&(1..2), 2), 6);
        assert_eq!(ids, ["x-p0", "x-p1", "x-p2", "x-s0", "x-s1", "x-s2"]);
    }

    #[test]
    fn a_window_stays_within_one_worker() {
        assert_eq!(plan("p2p", 4, 4).unwrap().check_workers(4, &(0..2)), Ok(()));
        let across = plan("fan-out", 1, 4).unwrap();
        assert_eq!(across.check_workers(2, &(0..2)), Ok(()));
        let error = PlanError::WindowAcrossWorkers("1/all".to_owned());
        assert_eq!(across.check_workers(4, &(0..2)), Err(error));
    }

    #[test]
    fn plans_are_bounded() {
        let many = plan("fan-out", 60_000, 60_000).err();
        assert_eq!(many, Some(PlanError::TooManyStreams { streams: 3_600_000_000 }));
        let shared = plan("shared", 60_000, 60_000).err();
        assert_eq!(shared, Some(PlanError::TooManyStreams { streams: 3_600_060_000 }));
    }
}
