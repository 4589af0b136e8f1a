//! Shared subscriptions (MQTT 5.0 section 4.8.2): the groups, their members on
//! all shards, and who gets a message. Knows no topic: the index says which
//! groups a topic reaches.

use ahash::RandomState;

use super::{
    Member, SharedMatch, Strategies, Strategy, SubscriptionOptions, TopicFilter,
    loads::Loads,
    mix::{SplitMix, mix},
    roster::{Keyed, Roster},
    slab::{NIL, Slab},
    table::IdTable,
};

/// All groups, found by the filter as the client wrote it. Those with the same
/// pattern form a list whose head the index keeps.
pub(super) struct Groups {
    groups: Slab<Group>,
    by_filter: IdTable,
    strategies: Strategies,
    random: SplitMix,
    loads: Loads,
}

/// The members that share one `$share/NAME/FILTER`.
struct Group {
    filter: TopicFilter,
    /// Of the filter; the same on every shard.
    hash: u64,
    strategy: Strategy,
    /// The index entry of the pattern.
    entry: u32,
    /// Neighbours in the pattern's list, or [`NIL`].
    before: u32,
    next: u32,
    /// The online ones first. By [`Strategy::Sticky`], the first of them gets all.
    members: Roster<Seat>,
    online: usize,
    /// The position whose turn it is.
    turn: usize,
}

struct Seat {
    member: Member,
    options: SubscriptionOptions,
    /// Of the member's client; the same on every shard.
    hash: u64,
    /// In [`Loads`], or [`NIL`] if the strategy does not ask.
    load: u32,
}

/// Every shard has one for each member on any shard.
const _: () = assert!(size_of::<Seat>() == 32);

impl Groups {
    /// No group. The shards share all of `strategies` and none of `seed`.
    pub(super) const fn new(strategies: Strategies, seed: u64) -> Self {
        Self {
            groups: Slab::new(),
            by_filter: IdTable::new(),
            strategies,
            random: SplitMix::new(seed),
            loads: Loads::new(),
        }
    }

    /// The group of this filter.
    pub(super) fn find(&self, filter: &TopicFilter, hasher: &RandomState) -> Option<u32> {
        let text = filter.as_str();
        self.by_filter.find(hasher.hash_one(text), |id| self.groups[id].filter.as_str() == text)
    }

    /// Adds a group without members to the list at `head`.
    pub(super) fn insert(
        &mut self,
        filter: &TopicFilter,
        entry: u32,
        head: &mut u32,
        hasher: &RandomState,
    ) -> u32 {
        let next = *head;
        let hash = hasher.hash_one(filter.as_str());
        let group = Group {
            filter: filter.unshared(),
            hash,
            strategy: self.strategies.of(filter.share_name().unwrap_or_default()),
            entry,
            before: NIL,
            next,
            members: Roster::new(),
            online: 0,
            turn: 0,
        };
        let id = self.groups.insert(group);
        if next != NIL {
            self.groups[next].before = id;
        }
        *head = id;
        self.by_filter.insert(hash, id);
        id
    }

    /// Takes a group out of the list at `head`.
    pub(super) fn remove(&mut self, id: u32, head: &mut u32) {
        let Group { hash, before, next, .. } = self.groups.remove(id);
        self.by_filter.remove(hash, id);
        match before {
            NIL => *head = next,
            before => self.groups[before].next = next,
        }
        if next != NIL {
            self.groups[next].before = before;
        }
    }

    /// Adds a member to a group or changes it; true if it is new. `identity` is
    /// a hash of the member's client.
    pub(super) fn join(
        &mut self,
        id: u32,
        member: Member,
        identity: u64,
        options: SubscriptionOptions,
        online: bool,
        hasher: &RandomState,
    ) -> bool {
        let group = &mut self.groups[id];
        let found = group.members.find(member, hasher);
        match found {
            Some(at) => group.members.at_mut(at).options = options,
            None => {
                let load = match group.strategy {
                    Strategy::LeastInflight => self.loads.enter(member, hasher),
                    _ => NIL,
                };
                // A publisher may be a member too: not to be the same number.
                let hash = hasher.hash_one(identity);
                group.members.push(Seat { member, options, hash, load }, hasher);
            }
        }
        group.set_online(member, online, hasher);
        found.is_none()
    }

    /// Takes a member out of a group; true if it was there.
    pub(super) fn leave(&mut self, id: u32, member: Member, hasher: &RandomState) -> bool {
        let group = &mut self.groups[id];
        group.set_online(member, false, hasher);
        let Some(at) = group.members.find(member, hasher) else { return false };
        let seat = group.members.swap_remove(at, hasher);
        self.loads.exit(seat.load, hasher);
        true
    }

    /// Notes whether a member of a group is connected.
    pub(super) fn set_online(
        &mut self,
        id: u32,
        member: Member,
        online: bool,
        hasher: &RandomState,
    ) {
        self.groups[id].set_online(member, online, hasher);
    }

    /// Who of a group gets a message: an online member, or any if none is.
    /// `hash` is that of what the group's strategy goes by, if it does.
    pub(super) fn pick(&mut self, id: u32, hash: u64) -> Option<(Member, SubscriptionOptions)> {
        self.groups[id].pick(hash, &mut self.random, &mut self.loads)
    }

    /// The same for all groups of the list at `head`, appended to `out`.
    pub(super) fn pick_all(
        &mut self,
        head: u32,
        hash_for: impl Fn(Strategy) -> u64,
        out: &mut Vec<SharedMatch>,
    ) {
        let mut next = head;
        while next != NIL {
            let group = &mut self.groups[next];
            let hash = hash_for(group.strategy);
            if let Some((member, options)) = group.pick(hash, &mut self.random, &mut self.loads) {
                let filter = group.filter.clone();
                out.push(SharedMatch { filter, member, options, hash });
            }
            next = group.next;
        }
    }

    /// The index entry of a group's pattern.
    pub(super) fn entry(&self, id: u32) -> u32 {
        self.groups[id].entry
    }

    /// Whether a member of a group is online.
    pub(super) fn has_online(&self, id: u32) -> bool {
        self.groups[id].online > 0
    }

    /// Whether a group has no member.
    pub(super) fn is_empty(&self, id: u32) -> bool {
        self.groups[id].members.len() == 0
    }

    /// The options of a member of a group.
    pub(super) fn options(
        &self,
        id: u32,
        member: Member,
        hasher: &RandomState,
    ) -> Option<SubscriptionOptions> {
        let members = &self.groups[id].members;
        Some(members.as_slice()[members.find(member, hasher)?].options)
    }

    /// How busy the members are that are chosen by that.
    pub(super) const fn loads(&self) -> &Loads {
        &self.loads
    }

    /// The same, to be changed.
    pub(super) const fn loads_mut(&mut self) -> &mut Loads {
        &mut self.loads
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }
}

impl Group {
    /// Moves a member to the online part or out of it.
    fn set_online(&mut self, member: Member, online: bool, hasher: &RandomState) {
        let Some(at) = self.members.find(member, hasher) else { return };
        match (at < self.online, online) {
            (false, true) => {
                self.members.swap(at, self.online, hasher);
                self.online += 1;
            }
            (true, false) => {
                self.online -= 1;
                self.members.swap(at, self.online, hasher);
                if at == 0 && self.strategy == Strategy::Sticky {
                    // Every shard elects the same one, whatever the order of its list.
                    let elected = heaviest(&self.members.as_slice()[..self.online], self.hash);
                    self.members.swap(0, elected, hasher);
                }
            }
            _ => {}
        }
    }

    fn pick(
        &mut self,
        hash: u64,
        random: &mut SplitMix,
        loads: &mut Loads,
    ) -> Option<(Member, SubscriptionOptions)> {
        let all = self.members.as_slice();
        let seats = if self.online > 0 { &all[..self.online] } else { all };
        let turn = &mut self.turn;
        let at = match self.strategy {
            Strategy::RoundRobin => take_turn(turn, seats.len()),
            Strategy::Random => random.below(seats.len()),
            Strategy::Sticky if self.online > 0 => 0,
            Strategy::Sticky => heaviest(seats, self.hash),
            Strategy::HashClient | Strategy::HashTopic => heaviest(seats, hash),
            Strategy::LeastInflight => lightest(seats, turn, loads),
        };
        let Seat { member, options, load, .. } = *seats.get(at)?;
        if load != NIL {
            loads.add(load);
        }
        Some((member, options))
    }
}

/// The position whose turn it is among `count`.
const fn take_turn(turn: &mut usize, count: usize) -> usize {
    let at = if *turn < count { *turn } else { 0 };
    *turn = at + 1;
    at
}

/// Rendezvous hashing: each member has a weight of its own for each `hash`, and
/// the heaviest gets it. So the order of the members means nothing, and if one
/// leaves, only what it had goes to others, evenly.
fn heaviest(seats: &[Seat], hash: u64) -> usize {
    let weights = seats.iter().map(|seat| mix(seat.hash ^ hash)).enumerate();
    weights.max_by_key(|(_, weight)| *weight).map_or(0, |(at, _)| at)
}

/// The member with the least to do; of several such, the next from `turn` on.
fn lightest(seats: &[Seat], turn: &mut usize, loads: &Loads) -> usize {
    let first = take_turn(turn, seats.len());
    let in_turn = (first..seats.len()).chain(0..first);
    let at = in_turn.min_by_key(|at| loads.weight(seats[*at].load)).unwrap_or(0);
    *turn = at + 1;
    at
}

impl Keyed for Seat {
    type Key = Member;

    fn key(&self) -> Member {
        self.member
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ops};

    use super::*;
    use crate::{
        base::{QoS, SessionKey, ShardId},
        topic::table,
    };

    fn member(n: u32) -> Member {
        Member { shard: ShardId(n as u16 % 4), session: SessionKey { slot: n, generation: 0 } }
    }

    const OPTIONS: SubscriptionOptions = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: None,
        marks: crate::topic::Marks::durable(false),
    };

    /// One group, as one shard knows it.
    struct Shard {
        groups: Groups,
        id: u32,
        hasher: RandomState,
    }

    impl Shard {
        fn new(strategy: Strategy, online: &[u32], offline: &[u32]) -> Self {
            let hasher = table::hasher(1);
            let strategies = Strategies { default: strategy, by_prefix: Vec::new() };
            let mut groups = Groups::new(strategies, 1);
            let filter = TopicFilter::parse("$share/g/a").unwrap();
            let id = groups.insert(&filter, 0, &mut NIL.clone(), &hasher);
            let mut shard = Self { groups, id, hasher };
            for &n in online {
                assert!(shard.join(n, true));
            }
            for &n in offline {
                assert!(shard.join(n, false));
            }
            shard
        }

        fn join(&mut self, n: u32, online: bool) -> bool {
            self.groups.join(self.id, member(n), u64::from(n), OPTIONS, online, &self.hasher)
        }

        fn leave(&mut self, n: u32) -> bool {
            self.groups.leave(self.id, member(n), &self.hasher)
        }

        fn set_online(&mut self, n: u32, online: bool) {
            self.groups.set_online(self.id, member(n), online, &self.hasher);
        }

        fn pick(&mut self, hash: u64) -> u32 {
            self.groups.pick(self.id, hash).unwrap().0.session.slot
        }

        /// Who gets the messages with these hashes.
        fn picks(&mut self, hashes: ops::Range<u64>) -> Vec<u32> {
            hashes.map(|n| self.pick(mix(n))).collect()
        }

        /// How many of `count` messages each member gets.
        fn shares(&mut self, count: u64) -> BTreeMap<u32, u64> {
            let mut shares = BTreeMap::new();
            for n in self.picks(0..count) {
                *shares.entry(n).or_default() += 1;
            }
            shares
        }

        /// What the member's own shard says of it.
        fn tell(&mut self, n: u32, load: u32) {
            self.groups.loads_mut().tell(member(n), load, &self.hasher);
        }
    }

    /// Strategies by which the message alone decides, and the members.
    const BY_HASH: [Strategy; 2] = [Strategy::HashClient, Strategy::HashTopic];

    #[test]
    fn every_online_member_has_its_turn() {
        for strategy in [Strategy::RoundRobin, Strategy::LeastInflight] {
            let mut shard = Shard::new(strategy, &[0, 1, 2], &[3, 4]);
            assert_eq!(shard.shares(6), BTreeMap::from([(0, 2), (1, 2), (2, 2)]));
            shard.set_online(1, false);
            shard.set_online(4, true);
            [0, 2].into_iter().for_each(|n| shard.tell(n, 0));
            assert_eq!(shard.shares(6), BTreeMap::from([(0, 2), (2, 2), (4, 2)]));
        }
    }

    #[test]
    fn turns_are_fair_among_many() {
        let mut shard = Shard::new(Strategy::RoundRobin, &(0..500).collect::<Vec<_>>(), &[]);
        for n in (0..500).step_by(2) {
            assert!(shard.leave(n) && !shard.leave(n));
        }
        let once_each = (0..500).filter(|n| n % 2 == 1).map(|n| (n, 1)).collect();
        assert_eq!(shard.shares(250), once_each);
    }

    #[test]
    fn offline_members_are_picked_only_if_none_is_online() {
        for strategy in Strategy::ALL {
            let mut shard = Shard::new(strategy, &[0], &[1, 2]);
            assert_eq!(shard.picks(0..9), [0; 9], "{strategy:?}");
            shard.set_online(0, false);
            assert!(shard.picks(0..9).iter().all(|n| *n < 3), "{strategy:?}");
            shard.set_online(2, true);
            assert_eq!(shard.picks(0..9), [2; 9], "{strategy:?}");
            assert!(shard.leave(2) && shard.leave(0) && shard.leave(1));
            assert_eq!(shard.groups.pick(shard.id, 7), None, "{strategy:?}");
        }
    }

    #[test]
    fn chance_and_hashes_are_even() {
        let members: Vec<_> = (0..10).collect();
        for strategy in [Strategy::Random, Strategy::HashClient, Strategy::HashTopic] {
            let shares = Shard::new(strategy, &members, &[]).shares(100_000);
            // The standard deviation is 95.
            assert_eq!(shares.len(), 10);
            assert!(shares.values().all(|n| n.abs_diff(10_000) < 500), "{strategy:?} {shares:?}");
        }
    }

    #[test]
    fn shards_draw_differently_and_the_same_again() {
        let draws = |seed| {
            let mut shard = Shard::new(Strategy::Random, &[0, 1, 2, 3], &[]);
            shard.groups.random = SplitMix::new(seed);
            shard.picks(0..64)
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn hashes_agree_in_any_order_and_only_the_share_of_the_leaver_moves() {
        for strategy in BY_HASH {
            let mut one = Shard::new(strategy, &[0, 1, 2, 3, 4, 5], &[]);
            let mut other = Shard::new(strategy, &[5, 3, 1], &[4, 0, 2]);
            [0, 2, 4].into_iter().for_each(|n| other.set_online(n, true));
            let before = one.picks(0..3000);
            assert_eq!(other.picks(0..3000), before);

            one.set_online(2, false);
            assert!(other.leave(2));
            let after = one.picks(0..3000);
            assert_eq!(other.picks(0..3000), after);
            let mut heirs = BTreeMap::new();
            for (before, after) in before.iter().zip(&after) {
                match before {
                    2 => *heirs.entry(*after).or_insert(0) += 1,
                    _ => assert_eq!(before, after),
                }
            }
            assert_eq!(heirs.keys().copied().collect::<Vec<_>>(), [0, 1, 3, 4, 5]);

            // A client that comes back, with another session even, gets back what it had.
            one.set_online(2, true);
            assert!(other.join(2, true));
            assert_eq!(one.picks(0..3000), before);
            assert_eq!(other.picks(0..3000), before);
        }
    }

    #[test]
    fn one_member_gets_all_until_it_goes_and_shards_agree_on_the_next() {
        let mut one = Shard::new(Strategy::Sticky, &[7, 0, 1, 2, 3, 4, 5], &[]);
        let mut other = Shard::new(Strategy::Sticky, &[7, 5, 4], &[2, 1, 0, 3]);
        assert_eq!(one.picks(0..9), [7; 9]);
        [3, 2, 1, 0].into_iter().for_each(|n| other.set_online(n, true));
        assert_eq!(other.picks(0..9), [7; 9], "who comes takes nothing away");
        one.set_online(7, false);
        assert!(other.leave(7));
        let next = one.pick(0);
        assert!(next < 6);
        assert_eq!((one.picks(0..9), other.picks(0..9)), (vec![next; 9], vec![next; 9]));
        one.set_online(7, true);
        assert!(other.join(7, true));
        for n in (0..6).filter(|n| *n != next) {
            assert!(one.leave(n) && other.leave(n), "others may go");
        }
        assert_eq!((one.pick(0), other.pick(0)), (next, next));
        one.set_online(next, false);
        assert!(other.leave(next));
        assert_eq!((one.pick(0), other.pick(0)), (7, 7));
    }

    #[test]
    fn groups_stick_to_different_members() {
        let elected = |filter: &str| {
            let mut shard = Shard::new(Strategy::Sticky, &[9, 0, 1, 2, 3], &[]);
            shard.groups.groups[shard.id].hash = shard.hasher.hash_one(filter);
            shard.set_online(9, false);
            shard.pick(0)
        };
        let elected: BTreeMap<_, _> = (0..40).map(|n| (elected(&format!("g{n}")), ())).collect();
        assert_eq!(elected.len(), 4);
    }

    #[test]
    fn the_least_loaded_member_is_next() {
        let mut shard = Shard::new(Strategy::LeastInflight, &[0, 1, 2], &[]);
        [(0, 5), (1, 3), (2, 9)].into_iter().for_each(|(n, load)| shard.tell(n, load));
        // What was sent since counts until the next news.
        assert_eq!(shard.shares(6), BTreeMap::from([(0, 2), (1, 4)]));
        shard.tell(1, 0);
        assert_eq!(shard.picks(0..3), [1; 3]);
        // A member that does not acknowledge, beside one that does.
        for load in 9..1000 {
            shard.tell(2, load);
            shard.tell(1, 0);
            assert_eq!(shard.pick(0), 1);
        }
    }

    #[test]
    fn loads_are_kept_while_a_group_asks_for_them() {
        let mut shard = Shard::new(Strategy::LeastInflight, &[0, 1], &[]);
        let Shard { groups, hasher, .. } = &mut shard;
        let loads = groups.loads_mut();
        loads.note(member(0), 4, false, hasher);
        loads.note(member(0), 5, false, hasher);
        loads.note(member(1), 0, false, hasher);
        loads.note(member(9), 8, true, hasher);
        assert_eq!(loads.report(hasher), [(member(0).session, 5)]);
        loads.note(member(0), 5, false, hasher);
        assert!(!loads.has_unreported());
        loads.note(member(1), 0, true, hasher);
        assert!(shard.leave(1) && shard.leave(0));
        assert!(shard.groups.loads().is_empty());
        assert!(shard.groups.loads_mut().report(&shard.hasher).is_empty());
        let shard = Shard::new(Strategy::RoundRobin, &[0, 1], &[]);
        assert!(shard.groups.loads().is_empty(), "nobody asks");
    }
}
