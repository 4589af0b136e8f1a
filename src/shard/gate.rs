//! What all shards count together of those who come: connections, how many an address has of them and how fast, how
//! fast they come at all, and TLS handshakes.
//!
//! Touched when a connection comes and when it is gone. Knows no socket.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use ahash::RandomState;

use super::connections::{ConnectionCount, Permit};
use crate::{
    auth::places::{Place, Places, Rule},
    base::{
        Pace, Peer, Spent, Time,
        limits::{ADDRESSES_PACED_MAX, CONNECT_BURST_MILLIS, HANDSHAKES_MAX},
        source,
    },
    config::Limits,
};

/// Whom the process lets in, as far as numbers say it.
pub(crate) struct Gate {
    connections: Arc<ConnectionCount>,
    handshakes: Arc<Places<Option<IpAddr>>>,
    /// The connections of each address, if those have a bound.
    addresses: Option<Arc<Places<IpAddr>>>,
    address_paces: Option<AddressPaces>,
    pace: Option<Pace>,
    /// Of `pace`.
    spent: AtomicU64,
    users: Arc<Places<Box<str>>>,
}

/// A connection's place among those of its address.
pub(super) type AddressPlace = Option<Box<Place<IpAddr>>>;
/// Its place among the TLS handshakes that are under way.
pub(super) type HandshakePlace = Option<Box<Place<Option<IpAddr>>>>;

impl Gate {
    /// With the bounds of the configuration.
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let per_address = limits.connections_per_address_max;
        let users = Rule::Each(limits.connections_per_user_max);
        Arc::new(Self {
            connections: ConnectionCount::new(limits.connections_max),
            handshakes: Places::new(Rule::Fair(HANDSHAKES_MAX)),
            addresses: (per_address > 0).then(|| Places::new(Rule::Each(per_address))),
            address_paces: AddressPaces::new(limits.connects_per_address_per_second_max),
            pace: Pace::new(limits.connects_per_second_max.into(), CONNECT_BURST_MILLIS),
            spent: AtomicU64::default(),
            users: Places::new(users),
        })
    }

    /// The connections of each user.
    pub(super) fn users(&self) -> Arc<Places<Box<str>>> {
        self.users.clone()
    }

    /// When the next connection may be accepted, unless it may be now.
    pub(super) fn next_accept(&self, now: Time) -> Option<Time> {
        self.pace?.due(Spent(self.spent.load(Ordering::Relaxed)), now, 1)
    }

    /// One was accepted. If several shards do so at once, each of them counts, and the next waits for longer.
    pub(super) fn note_accept(&self, now: Time) {
        if let Some(pace) = self.pace {
            let spend = |spent| Some(pace.spend(Spent(spent), now, 1).0);
            let _ = self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        }
    }

    /// A place among all connections.
    pub(super) fn admit(&self) -> Result<Permit, &'static str> {
        self.connections.admit().ok_or("connections_max is reached")
    }

    /// A place for a TLS handshake.
    pub(super) fn admit_handshake(&self, peer: Peer) -> Result<HandshakePlace, &'static str> {
        let place = self.handshakes.take(peer.ip().map(source));
        place.map(Some).ok_or("too many TLS handshakes are under way")
    }

    /// A place among the connections of an address.
    pub(super) fn admit_address(
        &self,
        address: IpAddr,
        now: Time,
    ) -> Result<AddressPlace, &'static str> {
        let address = source(address);
        if self.address_paces.as_ref().is_some_and(|paces| !paces.admit(address, now)) {
            return Err("connects_per_address_per_second_max is reached");
        }
        let Some(addresses) = &self.addresses else { return Ok(None) };
        addresses.take(address).map(Some).ok_or("connections_per_address_max is reached")
    }
}

/// How fast addresses come, those of the last second.
struct AddressPaces {
    pace: Pace,
    parts: [Mutex<HashMap<IpAddr, Spent, RandomState>>; PARTS],
    hasher: RandomState,
}

impl AddressPaces {
    fn new(per_sec: u32) -> Option<Self> {
        let pace = Pace::new(per_sec.into(), ADDRESS_BURST_MILLIS)?;
        let parts = std::array::from_fn(|_| Mutex::default());
        Some(Self { pace, parts, hasher: RandomState::new() })
    }

    /// Counts one that comes, unless it comes too early.
    fn admit(&self, address: IpAddr, now: Time) -> bool {
        let part = &self.parts[self.hasher.hash_one(address) as usize % PARTS];
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = part.get(&address).copied().unwrap_or_default();
        if self.pace.due(spent, now, 1).is_some() {
            return false;
        }
        if part.len() >= ADDRESSES_PACED_MAX / PARTS {
            part.retain(|_, spent| !spent.is_over(now));
        }
        if part.len() < ADDRESSES_PACED_MAX / PARTS || part.contains_key(&address) {
            part.insert(address, self.pace.spend(spent, now, 1));
        }
        true
    }
}

/// Shards that accept at the same time mostly find different locks.
const PARTS: usize = 16;

/// What an address may do in a second it may do at once.
const ADDRESS_BURST_MILLIS: u64 = 1000;

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn an_address_has_so_many_connections_and_comes_so_often() {
        let limits = Limits {
            connections_per_address_max: 3,
            connects_per_address_per_second_max: 2,
            ..Limits::default()
        };
        let gate = Gate::new(&limits);
        let admit = |address: &str, millis| {
            gate.admit_address(address.parse().unwrap(), at(millis)).map(Option::unwrap)
        };
        let here = "2001:db8::1";
        let _two = [admit(here, 0).unwrap(), admit("2001:db8::2", 0).unwrap()];
        let too_fast = "connects_per_address_per_second_max is reached";
        assert_eq!(admit("2001:db8::3", 499).unwrap_err(), too_fast);
        let third = admit(here, 500).unwrap();
        assert_eq!(admit(here, 5000).unwrap_err(), "connections_per_address_max is reached");
        assert!(admit("2001:db8:0:1::1", 500).is_ok() && admit("10.0.0.1", 500).is_ok());
        drop(third);
        assert!(admit(here, 9000).is_ok());
    }

    #[test]
    fn the_process_accepts_so_many_a_second() {
        let gate = Gate::new(&Limits { connects_per_second_max: 50, ..Limits::default() });
        for _ in 0..5 {
            assert_eq!(gate.next_accept(at(0)), None);
            gate.note_accept(at(0));
        }
        assert_eq!(gate.next_accept(at(0)), Some(at(20)));
        assert_eq!(gate.next_accept(at(20)), None);
    }

    #[test]
    fn addresses_that_are_remembered_are_bounded() {
        let paces = AddressPaces::new(1).unwrap();
        let address = |number: usize| Ipv6Addr::from_bits((number as u128) << 64).into();
        for number in 0..2 * ADDRESSES_PACED_MAX {
            assert!(paces.admit(address(number), at(0)), "{number}");
        }
        let known = || paces.parts.iter().map(|part| part.lock().unwrap().len()).sum::<usize>();
        assert!(known() <= ADDRESSES_PACED_MAX);
        assert!(!paces.admit(address(0), at(999)) && paces.admit(address(0), at(1000)));
        for number in 0..ADDRESSES_PACED_MAX {
            paces.admit(address(number), at(2000));
        }
        assert!(known() <= ADDRESSES_PACED_MAX);
    }
}
