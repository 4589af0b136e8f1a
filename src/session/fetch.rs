//! Retained messages still owed to a subscription: fetched page by page from
//! the shards that hold them, as fast as the client takes them.

use std::collections::{BTreeMap, HashMap, btree_map::OccupiedEntry};

use ahash::RandomState;

use crate::{
    base::ShardId,
    topic::{Cursor, SubscriptionOptions, TopicFilter},
};

/// One subscription's walk over the retained messages of one shard after another.
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
}

impl Fetch {
    /// A walk over `shards` from the first to the last, both included.
    pub fn new(
        filter: TopicFilter,
        options: SubscriptionOptions,
        (first, last): (ShardId, ShardId),
    ) -> Self {
        Self { filter, options, starts_at: 0, shard: first, last, after: None, awaited: None }
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

/// The walks of one session, one at a time in the order of its subscriptions.
/// At most one a filter, so bounded by the session's subscriptions.
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
    last_number: u64,
    /// Topics (hashed) on which a newer retained message was delivered live:
    /// what the walks up to that number find on them is stale. Past [`SEEN_MAX`]
    /// further ones are not noted and may be followed by an older one.
    seen: HashMap<u64, u64, RandomState>,
}

impl Fetches {
    /// Adds a walk; one with the same filter starts over.
    pub fn add(&mut self, fetch: Fetch) {
        let walks = self.walks.get_or_insert_default();
        walks.last_number += 1;
        let number = walks.last_number;
        if let Some(old) = walks.numbers.insert(fetch.filter.clone(), number) {
            walks.by_number.remove(&old);
        }
        walks.by_number.insert(number, fetch);
    }

    /// The walk that is under way.
    pub fn front(&mut self) -> Option<&mut Fetch> {
        self.walks.as_mut()?.by_number.first_entry().map(OccupiedEntry::into_mut)
    }

    /// Ends the walk that is under way.
    pub fn pop(&mut self) {
        if let Some(walks) = &mut self.walks
            && let Some((_, fetch)) = walks.by_number.pop_first()
        {
            walks.numbers.remove(&fetch.filter);
        }
        self.forget_if_over();
    }

    /// Ends the walk of a filter that was unsubscribed.
    pub fn remove(&mut self, filter: &TopicFilter) {
        if let Some(walks) = &mut self.walks
            && let Some(number) = walks.numbers.remove(filter)
        {
            walks.by_number.remove(&number);
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

    #[test]
    fn a_walk_visits_every_shard() {
        let mut walk = fetch("#", 0);
        assert!(walk.advance(None));
        assert_eq!(walk.shard, ShardId(1));
        assert!(!walk.advance(None));
    }
}
