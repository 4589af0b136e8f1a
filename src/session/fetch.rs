//! Retained messages still owed to a subscription or a request: fetched page by
//! page from the shards that hold them, as fast as the client takes them.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::OccupiedEntry};

use ahash::RandomState;

use super::{QueueBounds, Refused};
use crate::{
    base::{RetainId, ShardId, limits},
    topic::{Cursor, SubscriptionOptions, TopicFilter},
};

/// The walk of one subscription or request over the retained messages of one
/// shard after another.
#[derive(Debug)]
pub struct Fetch {
    /// The filter whose matches are owed.
    pub filter: TopicFilter,
    /// How they are delivered.
    pub options: SubscriptionOptions,
    /// Stamp of the index change that must be in force everywhere before it
    /// starts. It takes note of live messages from its creation on.
    pub starts_at: u64,
    /// The shard that is asked now.
    pub shard: ShardId,
    /// The last shard to ask.
    pub last: ShardId,
    /// Where in that shard's topics the next page starts.
    pub after: Option<Cursor>,
    /// Tag of the page that was asked for and has not come yet.
    pub awaited: Option<u64>,
    /// The registration that a request is based on; none for a subscription.
    pub registration: Option<TopicFilter>,
    /// How many walks follow this one: requests that came while it was under way.
    pub repeats: u16,
}

impl Fetch {
    /// A walk over `shards` from the first to the last, both included.
    pub fn new(
        filter: TopicFilter,
        options: SubscriptionOptions,
        (first, last): (ShardId, ShardId),
    ) -> Self {
        Self {
            filter,
            options,
            starts_at: 0,
            shard: first,
            last,
            after: None,
            awaited: None,
            registration: None,
            repeats: 0,
        }
    }

    /// Takes note of a page that ended at `after`; false if the walk is over.
    pub fn advance(&mut self, after: Option<Cursor>) -> bool {
        self.awaited = None;
        self.after = after;
        if self.after.is_none() {
            if self.shard == self.last {
                return false;
            }
            self.shard = ShardId(self.shard.0 + 1);
        }
        true
    }
}

/// The walks of one session, one at a time in the order of its subscriptions and
/// requests. At most one a filter, so those for subscriptions are bounded by the
/// session's subscriptions; requests for single topics have bounds of their own.
#[derive(Debug, Default)]
pub struct Fetches {
    walks: Option<Box<Walks>>,
}

#[derive(Debug, Default)]
struct Walks {
    /// How many records of the log are to be on disk before any walk starts: SUBACK comes before.
    commit: u64,
    /// By number, which grows with each that is added.
    by_number: BTreeMap<u64, Fetch>,
    numbers: HashMap<TopicFilter, u64, RandomState>,
    /// Requests by the registration that they are based on.
    based_on: HashMap<TopicFilter, BTreeSet<u64>, RandomState>,
    last_number: u64,
    /// Requests among them, and the bytes of their filters.
    requests: usize,
    request_bytes: u64,
    /// Stamp of the last index change that the requests wait for.
    requests_from: u64,
    /// By topic (hashed) and publisher's shard, the last message with RETAIN that passed by live. Past
    /// [`PASSED_MAX`] further ones are not noted, and come from the store again or after a newer one.
    passed: BTreeMap<(u64, ShardId), Passed>,
}

#[derive(Debug)]
struct Passed {
    stamp: u64,
    /// The walks up to this number were there then.
    walk: u64,
}

impl Fetches {
    /// Adds a walk; one with the same filter starts over.
    pub fn add(&mut self, fetch: Fetch) {
        let walks = self.walks.get_or_insert_default();
        if let Some(old) = walks.numbers.get(&fetch.filter).copied() {
            walks.take(old);
        }
        walks.last_number += 1;
        walks.numbers.insert(fetch.filter.clone(), walks.last_number);
        if let Some(registration) = &fetch.registration {
            walks.based_on.entry(registration.clone()).or_default().insert(walks.last_number);
            walks.requests += 1;
            walks.request_bytes += fetch.filter.as_str().len() as u64;
        }
        walks.by_number.insert(walks.last_number, fetch);
    }

    /// If a request for this filter is under way, lets another walk follow it
    /// and returns true. Past [`limits::REQUEST_REPEATS_MAX`] the last one that
    /// follows stands for further requests too: it starts after them.
    pub fn repeat(&mut self, filter: &TopicFilter) -> bool {
        let Some(walks) = &mut self.walks else { return false };
        let number = walks.numbers.get(filter);
        let Some(fetch) = number.and_then(|number| walks.by_number.get_mut(number)) else {
            return false;
        };
        fetch.repeats = (fetch.repeats + 1).min(limits::REQUEST_REPEATS_MAX);
        true
    }

    /// Whether one more request, for this filter, passes the bounds.
    pub fn request_fits(&self, filter: &TopicFilter, bounds: QueueBounds) -> Result<(), Refused> {
        let (requests, bytes) =
            self.walks.as_ref().map_or((0, 0), |walks| (walks.requests, walks.request_bytes));
        if requests >= bounds.messages_max {
            return Err(Refused::Messages);
        }
        if bytes + filter.as_str().len() as u64 > bounds.bytes_max {
            return Err(Refused::Bytes);
        }
        Ok(())
    }

    /// Ends the requests that are based on a registration which has ended.
    pub fn end_requests(&mut self, registration: &TopicFilter) {
        let Some(walks) = &mut self.walks else { return };
        for number in walks.based_on.remove(registration).unwrap_or_default() {
            walks.take(number);
        }
        self.forget_if_over();
    }

    /// Has all walks wait until so many records of the log are on disk.
    pub fn wait_for_commit(&mut self, commit: u64) {
        if let Some(walks) = &mut self.walks {
            walks.commit = commit;
        }
    }

    /// How many records of the log are to be on disk before any walk starts.
    pub fn commit(&self) -> u64 {
        self.walks.as_ref().map_or(0, |walks| walks.commit)
    }

    /// Has all requests wait for an index change: of what comes live, the other shards know then.
    pub fn hold_requests(&mut self, stamp: u64) {
        if let Some(walks) = &mut self.walks {
            walks.requests_from = stamp;
        }
    }

    /// Stamp of the index change that the walk under way has to wait for.
    pub fn starts_at(&self) -> u64 {
        let Some(walks) = &self.walks else { return 0 };
        let Some((_, fetch)) = walks.by_number.first_key_value() else { return 0 };
        match &fetch.registration {
            Some(_) => fetch.starts_at.max(walks.requests_from),
            None => fetch.starts_at,
        }
    }

    /// The walk that is under way.
    pub fn front(&mut self) -> Option<&mut Fetch> {
        self.walks.as_mut()?.by_number.first_entry().map(OccupiedEntry::into_mut)
    }

    /// Ends the walk that is under way.
    pub fn pop(&mut self) -> Option<Fetch> {
        let walks = self.walks.as_mut()?;
        let number = *walks.by_number.first_key_value()?.0;
        let ended = walks.take(number);
        self.forget_if_over();
        ended
    }

    /// Ends the walk of a filter that was unsubscribed.
    pub fn remove(&mut self, filter: &TopicFilter) {
        if let Some(walks) = &mut self.walks
            && let Some(number) = walks.numbers.get(filter).copied()
        {
            walks.take(number);
        }
        self.forget_if_over();
    }

    /// Whether no retained message is owed.
    pub fn is_empty(&self) -> bool {
        self.walks.is_none()
    }

    /// Notes that a message with RETAIN on this topic passes by live.
    pub fn note_live(&mut self, topic_hash: u64, id: RetainId) {
        let Some(walks) = &mut self.walks else { return };
        let key = (topic_hash, id.shard);
        if walks.passed.len() < PASSED_MAX || walks.passed.contains_key(&key) {
            walks.passed.insert(key, Passed { stamp: id.stamp.get(), walk: walks.last_number });
        }
    }

    /// Whether what the walk under way has found, or a newer message on its topic, has passed by
    /// live. That of another shard is newer if it had not been stored: `stored` has, by shard, the
    /// stamp of the last that was.
    pub fn is_stale(&self, topic_hash: u64, found: RetainId, stored: &[u64]) -> bool {
        let Some(walks) = &self.walks else { return false };
        let Some((number, _)) = walks.by_number.first_key_value() else { return false };
        let of_topic = (topic_hash, ShardId(0))..=(topic_hash, ShardId(u16::MAX));
        walks.passed.range(of_topic).any(|((_, shard), passed)| {
            let is_newer = match *shard == found.shard {
                true => passed.stamp >= found.stamp.get(),
                false => stored.get(shard.index()).is_some_and(|stamp| passed.stamp > *stamp),
            };
            is_newer && passed.walk >= *number
        })
    }

    /// A page that was asked for will not come: ask again.
    pub fn forget_awaited(&mut self) {
        if let Some(fetch) = self.front() {
            fetch.awaited = None;
        }
    }

    fn forget_if_over(&mut self) {
        self.walks.take_if(|walks| walks.by_number.is_empty());
    }
}

impl Walks {
    fn take(&mut self, number: u64) -> Option<Fetch> {
        let fetch = self.by_number.remove(&number)?;
        self.numbers.remove(&fetch.filter);
        if let Some(registration) = &fetch.registration {
            if let Some(numbers) = self.based_on.get_mut(registration) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.based_on.remove(registration);
                }
            }
            self.requests -= 1;
            self.request_bytes -= fetch.filter.as_str().len() as u64;
        }
        Some(fetch)
    }
}

/// Bound of [`Walks::passed`]: 3 MiB or so while walks last.
const PASSED_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn fetch(filter: &str, starts_at: u64) -> Fetch {
        let filter = TopicFilter::parse(filter).unwrap();
        let shards = (ShardId(0), ShardId(1));
        let options = SubscriptionOptions::default();
        Fetch { starts_at, ..Fetch::new(filter, options, shards) }
    }

    fn front(fetches: &mut Fetches) -> Option<&str> {
        fetches.front().map(|fetch| fetch.filter.as_str())
    }

    #[test]
    fn walks_go_one_by_one_and_a_repeated_one_starts_over() {
        let mut fetches = Fetches::default();
        for filter in ["a", "b", "c", "a"] {
            fetches.add(fetch(filter, 0));
        }
        assert_eq!(front(&mut fetches), Some("b"));
        fetches.remove(&TopicFilter::parse("c").unwrap());
        fetches.pop();
        assert_eq!(front(&mut fetches), Some("a"));
        fetches.pop();
        assert!(fetches.is_empty() && front(&mut fetches).is_none());
    }

    #[test]
    fn live_messages_make_stale_what_earlier_walks_find() {
        let topic = 7;
        let id = |shard, stamp| RetainId {
            shard: ShardId(shard),
            stamp: NonZeroU64::new(stamp).unwrap(),
        };
        let mut fetches = Fetches::default();
        fetches.add(fetch("early", 10));
        fetches.note_live(topic, id(1, 5));
        fetches.add(fetch("late", 20));
        for (found, stored, expected) in [
            (id(1, 4), [9_u64, 9], true),
            (id(1, 5), [9, 9], true),
            (id(1, 6), [9, 9], false),
            // Of two shards' messages, the one is newer that is stored later.
            (id(0, 9), [9, 5], false),
            (id(0, 9), [9, 4], true),
        ] {
            assert_eq!(fetches.is_stale(topic, found, &stored), expected, "{found:?} {stored:?}");
        }
        assert!(!fetches.is_stale(8, id(1, 4), &[9, 9]), "another topic");
        fetches.pop();
        assert!(!fetches.is_stale(topic, id(1, 5), &[9, 9]), "it passed before this subscription");
    }

    #[test]
    fn requests_wait_for_later_subscriptions() {
        let mut fetches = Fetches::default();
        fetches.add(fetch("plain", 3));
        fetches.add(request("$request/a", "$request/a"));
        fetches.hold_requests(5);
        assert_eq!(fetches.starts_at(), 3);
        fetches.pop();
        assert_eq!(fetches.starts_at(), 5);
    }

    fn request(filter: &str, registration: &str) -> Fetch {
        let registration = TopicFilter::parse(registration).ok();
        Fetch { registration, ..fetch(filter, 0) }
    }

    #[test]
    fn requests_are_bounded_and_end_with_their_registration() {
        let bounds = QueueBounds { messages_max: 2, bytes_max: 30 };
        let mut fetches = Fetches::default();
        let filter = |text: &str| TopicFilter::parse(text).unwrap();
        fetches.add(fetch("plain", 0));
        fetches.add(request("$request/a", "$request/+"));
        let long = filter("$request/0123456789012");
        assert_eq!(fetches.request_fits(&long, bounds), Err(Refused::Bytes));
        assert_eq!(fetches.request_fits(&filter("$request/b"), bounds), Ok(()));
        fetches.add(request("$request/b", "$request/b"));
        assert_eq!(fetches.request_fits(&filter("$request/c"), bounds), Err(Refused::Messages));
        fetches.end_requests(&filter("$request/+"));
        assert_eq!(fetches.request_fits(&filter("$request/c"), bounds), Ok(()));
        assert_eq!(fetches.pop().map(|ended| ended.filter), Some(filter("plain")));
        assert_eq!(front(&mut fetches), Some("$request/b"));
        fetches.end_requests(&filter("$request/b"));
        assert!(fetches.is_empty());
    }

    #[test]
    fn a_request_that_is_under_way_is_repeated() {
        let filter = TopicFilter::parse("$request/#").unwrap();
        let mut fetches = Fetches::default();
        assert!(!fetches.repeat(&filter));
        fetches.add(request("$request/#", "$request/#"));
        for _ in 0..=limits::REQUEST_REPEATS_MAX {
            assert!(fetches.repeat(&filter));
        }
        assert_eq!(fetches.pop().map(|ended| ended.repeats), Some(limits::REQUEST_REPEATS_MAX));
    }

    #[test]
    fn a_walk_visits_every_shard() {
        let mut walk = fetch("#", 0);
        assert!(walk.advance(None));
        assert_eq!(walk.shard, ShardId(1));
        assert!(!walk.advance(None));
    }
}
