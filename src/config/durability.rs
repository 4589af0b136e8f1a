//! Durability: when publications are acknowledged, and how much of the disk all logs together may take.

use std::{net::SocketAddr, num::NonZeroUsize};

use super::{
    address::{Endpoint, Resolve},
    listeners::Listener,
    problem::{Fault, Origin, Problem},
};
use crate::topic::{FilterKind, TopicFilter};

/// When publications are acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability {
    /// Whether none waits until it is on disk.
    pub relaxed: bool,
    /// If not all: publications to these topics do not wait.
    pub relaxed_topics: Vec<TopicFilter>,
    /// Milliseconds after which at the latest what nobody waits for is written.
    pub relaxed_millis_max: u32,
}

impl Default for Durability {
    fn default() -> Self {
        Self { relaxed: false, relaxed_topics: Vec::new(), relaxed_millis_max: 50 }
    }
}

impl Durability {
    /// What the key `durability` takes, in the order of `relaxed`.
    pub(super) const NAMES: [&str; 2] = ["commit", "relaxed"];
}

/// Bytes of all logs unless chosen otherwise: some hundred million small messages, and not so much that
/// a subscriber who was forgotten fills the disk of an ordinary server.
pub const STORAGE_BYTES_MAX_DEFAULT: u64 = 64 << 30;

/// The least that one shard can work with: eight of the smallest segments.
pub(super) const STORAGE_BYTES_PER_SHARD_MIN: u64 = 8 << 20;

/// A filter of topics, not of anything that a prefix makes of it.
pub(super) fn relaxed_topic(text: &str) -> Result<TopicFilter, String> {
    let filter = TopicFilter::parse(text).map_err(|error| error.to_string())?;
    if filter.kind() != FilterKind::Plain {
        return Err("it must not start with a prefix such as $share/".to_owned());
    }
    Ok(filter)
}

/// Refuses less than all shards can work with.
pub(super) fn check_storage(bytes: u64, shards: NonZeroUsize) -> Result<(), Vec<Problem>> {
    let needed = shards.get() as u64 * STORAGE_BYTES_PER_SHARD_MIN;
    if bytes < needed {
        let fault = Fault::StorageTooSmall { bytes, shards: shards.get(), needed };
        let origin = Origin::new("configuration", None);
        return Err(vec![Problem::new(origin, "storage_bytes_max", fault)]);
    }
    Ok(())
}

/// The socket addresses of the relaxed listeners, each one of those that are listened on.
pub(super) fn check_listeners(
    relaxed: &[(Origin, Endpoint)],
    listen: &[(Origin, Listener)],
    resolve: Resolve,
) -> Result<Vec<SocketAddr>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut found: Vec<SocketAddr> = Vec::new();
    for (origin, endpoint) in relaxed {
        let mut report =
            |fault| problems.push(Problem::new(origin.clone(), "relaxed_listeners", fault));
        let address = match endpoint.resolve(resolve) {
            Ok(address) => address,
            Err(error) => {
                report(Fault::Address(error));
                continue;
            }
        };
        let is_listened_on =
            |a: &SocketAddr| listen.iter().any(|(_, it)| it.address.addresses.contains(a));
        match address.addresses.iter().find(|address| !is_listened_on(address)) {
            Some(other) => {
                report(Fault::NotListenedOn { text: endpoint.text.clone(), address: *other });
            }
            None => found.extend(address.addresses),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}
