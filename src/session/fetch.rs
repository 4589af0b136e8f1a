//! Retained messages still owed to a subscription or a request: fetched page by
//! page from the shards that hold them, as fast as the client takes them.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::OccupiedEntry};

use ahash::RandomState;

use super::{QueueBounds, Refused};
use crate::{
    base::{ShardId, limits},
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
    /// Whether the session is listed among those whose walk can go on.
    pub is_scheduled: bool,
}

#[derive(Debug, Default)]
struct Walks {
    /// By number, which grows with each that is added.
    by_number: BTreeMap<u64, Fetch>,
    numbers: HashMap<TopicFilter, u64, RandomState>,
    /// Requests by the registration that they are based on.
    based_on: HashMap<TopicFilter, BTreeSet<u64>, RandomState>,
    last_number: u64,
    /// Requests among them, and the bytes of their filters.
    requests: usize,
    request_bytes: u64,
    /// Topics (hashed) on which a newer retained message was delivered live:
    /// what the walks up to that number find on them is stale. Past [`SEEN_MAX`]
    /// further ones are not noted and may be followed by an older one.
    seen: HashMap<u64, u64, RandomState>,
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

    /// Notes that a retained message on this topic passes by live. It counts for
    /// the walks of subscriptions that its shard knew of (`index_known`): for
    /// these, all later ones pass by, too.
    pub fn note_live(&mut self, topic_hash: u64, index_known: u64) {
        let Some(walks) = &mut self.walks else { return };
        let mut newest_first = walks.by_number.iter().rev();
        let known = newest_first.find(|(_, fetch)| fetch.starts_at <= index_known);
        let Some((number, _)) = known else { return };
        if walks.seen.len() < SEEN_MAX || walks.seen.contains_key(&topic_hash) {
            let covered = walks.seen.entry(topic_hash).or_default();
            *covered = (*covered).max(*number);
        }
    }

    /// Whether a newer message on this topic than the present walk finds has passed by.
    pub fn is_stale(&self, topic_hash: u64) -> bool {
        let Some(walks) = &self.walks else { return false };
        let Some((number, _)) = walks.by_number.first_key_value() else { return false };
        walks.seen.get(&topic_hash).is_some_and(|covered| covered >= number)
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

/// Bound of [`Walks::seen`]: 2 MiB or so while walks last.
const SEEN_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
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
        let (topic, known_to_all) = (7, u64::MAX);
        let mut fetches = Fetches::default();
        fetches.add(fetch("early", 10));
        fetches.note_live(topic, 9);
        assert!(!fetches.is_stale(topic), "its shard did not know of the subscription");
        fetches.note_live(topic, known_to_all);
        fetches.add(fetch("late", 20));
        assert!(fetches.is_stale(topic) && !fetches.is_stale(8));
        fetches.pop();
        assert!(!fetches.is_stale(topic), "it passed before this subscription");
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
