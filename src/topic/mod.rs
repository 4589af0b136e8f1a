//! Topic names, topic filters and what is looked up by them.
//!
//! Pure data structures of one shard; no packets, no sessions.

mod audience;
mod filter;
mod index;
mod level;
mod loads;
mod mix;
mod name;
mod order;
mod retained;
mod rewrite;
mod roster;
mod share;
mod slab;
mod strategy;
mod subscribers;
mod table;
#[cfg(test)]
mod testing;
mod trie;

pub use filter::{FilterError, FilterKind, TopicFilter};
pub use index::{
    Added, Index, LocalMatch, Marks, Matches, Member, Removed, RetainHandling, SharedMatch,
    Subscription, SubscriptionOptions,
};
pub use name::{TopicError, TopicName};
pub use retained::{Cursor, OfTopic, Retained};
pub use rewrite::{ClientNames, RewriteError, RewriteRule, RewriteScope, RuleError, rewrite};
pub use strategy::{Strategies, Strategy};
pub(crate) use table::IdTable;
