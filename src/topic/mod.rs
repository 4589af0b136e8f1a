//! Topic names, topic filters and what is looked up by them.
//!
//! Pure data structures of one shard; no packets, no sessions.

mod filter;
mod name;

pub use filter::{FilterError, TopicFilter};
pub use name::{TopicError, TopicName};
