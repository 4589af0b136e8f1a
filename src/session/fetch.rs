//! Retained messages still owed to a subscription: fetched page by page from
//! the shards that hold them, as fast as the client takes them.

use std::collections::{HashSet, VecDeque};

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
    /// Topics (hashed) on which a newer retained message was delivered while
    /// this walk was under way: what the walk finds on them is stale. Past
    /// [`SEEN_MAX`] further ones are not noted and may be followed by an older one.
    seen: HashSet<u64, ahash::RandomState>,
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
            seen: HashSet::default(),
        }
    }

    /// Notes that a retained message on this topic passes by live. It counts if
    /// its shard knew of the subscription: then all later ones pass by, too.
    pub fn note_live(&mut self, topic_hash: u64, index_known: u64) {
        if index_known >= self.starts_at && self.seen.len() < SEEN_MAX {
            self.seen.insert(topic_hash);
        }
    }

    /// Whether a newer message on this topic has passed by.
    pub fn is_stale(&self, topic_hash: u64) -> bool {
        self.seen.contains(&topic_hash)
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
    walks: Option<Box<VecDeque<Fetch>>>,
    /// Whether the session is listed among those whose walk can go on.
    pub is_scheduled: bool,
}

impl Fetches {
    /// Adds a walk; one with the same filter starts over.
    pub fn add(&mut self, fetch: Fetch) {
        let fetches = self.walks.get_or_insert_default();
        fetches.retain(|known| known.filter != fetch.filter);
        fetches.push_back(fetch);
    }

    /// The walk that is under way.
    pub fn front(&mut self) -> Option<&mut Fetch> {
        self.walks.as_mut()?.front_mut()
    }

    /// Ends the walk that is under way.
    pub fn pop(&mut self) {
        if let Some(fetches) = &mut self.walks {
            fetches.pop_front();
            if fetches.is_empty() {
                self.walks = None;
            }
        }
    }

    /// Ends the walk of a filter that was unsubscribed.
    pub fn remove(&mut self, filter: &TopicFilter) {
        if let Some(fetches) = &mut self.walks {
            fetches.retain(|known| known.filter != *filter);
            if fetches.is_empty() {
                self.walks = None;
            }
        }
    }

    /// Whether no retained message is owed.
    pub fn is_empty(&self) -> bool {
        self.walks.is_none()
    }

    /// Notes on every walk that a retained message passes by live.
    pub fn note_live(&mut self, topic_hash: u64, index_known: u64) {
        for fetch in self.walks.iter_mut().flat_map(|fetches| fetches.iter_mut()) {
            fetch.note_live(topic_hash, index_known);
        }
    }

    /// A page that was asked for will not come: ask again.
    pub fn forget_awaited(&mut self) {
        for fetch in self.walks.iter_mut().flat_map(|fetches| fetches.iter_mut()) {
            fetch.awaited = None;
        }
    }
}

/// Bound of [`Fetch::seen`]: 1 MiB or so while a walk lasts.
const SEEN_MAX: usize = 65_536;
