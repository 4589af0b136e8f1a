//! Shared subscriptions (MQTT 5.0 section 4.8.2): the groups, their members on
//! all shards, and whose turn it is. Knows no topic: the index says which
//! groups a topic reaches.

use std::ops;

use ahash::RandomState;

use super::{
    Member, SubscriptionOptions, TopicFilter,
    roster::{Keyed, Roster},
    slab::{NIL, Slab},
    table::IdTable,
};

/// All groups, found by the filter as the client wrote it. Those with the same
/// pattern form a list whose head the index keeps.
pub(super) struct Groups {
    groups: Slab<Group>,
    by_filter: IdTable,
}

/// The members that share one `$share/NAME/FILTER`.
pub(super) struct Group {
    filter: TopicFilter,
    /// The index entry of the pattern.
    entry: u32,
    /// Neighbours in the pattern's list, or [`NIL`].
    before: u32,
    next: u32,
    /// The online ones first.
    members: Roster<Seat>,
    online: usize,
    /// Whose turn it is among the online ones, and among the others.
    turns: [usize; 2],
}

struct Seat {
    member: Member,
    options: SubscriptionOptions,
}

impl Groups {
    pub(super) const fn new() -> Self {
        Self { groups: Slab::new(), by_filter: IdTable::new() }
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
        let group = Group {
            filter: filter.unshared(),
            entry,
            before: NIL,
            next,
            members: Roster::new(),
            online: 0,
            turns: [0; 2],
        };
        let id = self.groups.insert(group);
        if next != NIL {
            self.groups[next].before = id;
        }
        *head = id;
        self.by_filter.insert(hasher.hash_one(filter.as_str()), id);
        id
    }

    /// Takes a group out of the list at `head`.
    pub(super) fn remove(&mut self, id: u32, head: &mut u32, hasher: &RandomState) {
        let Group { filter, before, next, .. } = self.groups.remove(id);
        self.by_filter.remove(hasher.hash_one(filter.as_str()), id);
        match before {
            NIL => *head = next,
            before => self.groups[before].next = next,
        }
        if next != NIL {
            self.groups[next].before = before;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }
}

impl ops::Index<u32> for Groups {
    type Output = Group;

    fn index(&self, id: u32) -> &Group {
        &self.groups[id]
    }
}

impl ops::IndexMut<u32> for Groups {
    fn index_mut(&mut self, id: u32) -> &mut Group {
        &mut self.groups[id]
    }
}

impl Group {
    /// The filter with its share name.
    pub(super) const fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    /// The index entry of the pattern.
    pub(super) const fn entry(&self) -> u32 {
        self.entry
    }

    /// The next group with the same pattern, or [`NIL`].
    pub(super) const fn next(&self) -> u32 {
        self.next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.len() == 0
    }

    /// Adds a member or changes it; true if it is new.
    pub(super) fn join(
        &mut self,
        member: Member,
        options: SubscriptionOptions,
        online: bool,
        hasher: &RandomState,
    ) -> bool {
        let found = self.members.find(member, hasher);
        match found {
            Some(at) => self.members.at_mut(at).options = options,
            None => self.members.push(Seat { member, options }, hasher),
        }
        self.set_online(member, online, hasher);
        found.is_none()
    }

    /// Takes a member out; true if it was there.
    pub(super) fn leave(&mut self, member: Member, hasher: &RandomState) -> bool {
        self.set_online(member, false, hasher);
        let Some(at) = self.members.find(member, hasher) else { return false };
        self.members.swap_remove(at, hasher);
        true
    }

    /// Moves a member to the online part or out of it.
    pub(super) fn set_online(&mut self, member: Member, online: bool, hasher: &RandomState) {
        let Some(at) = self.members.find(member, hasher) else { return };
        match (at < self.online, online) {
            (false, true) => {
                self.members.swap(at, self.online, hasher);
                self.online += 1;
            }
            (true, false) => {
                self.online -= 1;
                self.members.swap(at, self.online, hasher);
            }
            _ => {}
        }
    }

    /// The options of a member.
    pub(super) fn options(
        &self,
        member: Member,
        hasher: &RandomState,
    ) -> Option<SubscriptionOptions> {
        let at = self.members.find(member, hasher)?;
        Some(self.members.as_slice()[at].options)
    }

    /// Whose turn it is: an online member, or any if no other is online.
    pub(super) fn pick(&mut self, except: Option<Member>) -> Option<(Member, SubscriptionOptions)> {
        let (online, offline) = self.members.as_slice().split_at(self.online);
        let [turn_online, turn_offline] = &mut self.turns;
        take_turn(online, turn_online, except).or_else(|| take_turn(offline, turn_offline, except))
    }
}

/// Whose turn it is among `seats`, `except` left out.
fn take_turn(
    seats: &[Seat],
    turn: &mut usize,
    except: Option<Member>,
) -> Option<(Member, SubscriptionOptions)> {
    // Members are there once: if the first is the excepted one, the second is not.
    for _ in 0..seats.len().min(2) {
        if *turn >= seats.len() {
            *turn = 0;
        }
        let Seat { member, options } = seats[*turn];
        *turn += 1;
        if except != Some(member) {
            return Some((member, options));
        }
    }
    None
}

impl Keyed for Seat {
    type Key = Member;

    fn key(&self) -> Member {
        self.member
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{SessionKey, ShardId},
        topic::table,
    };

    fn member(n: u32) -> Member {
        Member { shard: ShardId(n as u16 % 4), session: SessionKey { slot: n, generation: 0 } }
    }

    fn group(online: &[u32], offline: &[u32]) -> (Group, RandomState) {
        let hasher = table::hasher(1);
        let mut groups = Groups::new();
        let filter = TopicFilter::parse("$share/g/a").unwrap();
        let id = groups.insert(&filter, 0, &mut NIL.clone(), &hasher);
        let mut group = groups.groups.remove(id);
        for &n in online {
            assert!(group.join(member(n), SubscriptionOptions::default(), true, &hasher));
        }
        for &n in offline {
            assert!(group.join(member(n), SubscriptionOptions::default(), false, &hasher));
        }
        (group, hasher)
    }

    fn picks(group: &mut Group, count: usize, except: Option<u32>) -> Vec<u32> {
        let mut picked: Vec<_> = (0..count)
            .filter_map(|_| group.pick(except.map(member)))
            .map(|(member, _)| member.session.slot)
            .collect();
        picked.sort_unstable();
        picked
    }

    #[test]
    fn every_online_member_has_its_turn() {
        let (mut group, hasher) = group(&[0, 1, 2], &[3, 4]);
        assert_eq!(picks(&mut group, 6, None), [0, 0, 1, 1, 2, 2]);
        group.set_online(member(1), false, &hasher);
        group.set_online(member(4), true, &hasher);
        assert_eq!(picks(&mut group, 6, None), [0, 0, 2, 2, 4, 4]);
    }

    #[test]
    fn turns_are_fair_among_many() {
        let (mut group, hasher) = group(&(0..500).collect::<Vec<_>>(), &[]);
        for n in (0..500).step_by(2) {
            assert!(group.leave(member(n), &hasher));
        }
        let odd: Vec<_> = (0..500).filter(|n| n % 2 == 1).collect();
        assert_eq!(picks(&mut group, 250, None), odd);
    }

    #[test]
    fn offline_members_are_picked_only_if_no_other_is_online() {
        let (mut group, hasher) = group(&[0], &[1, 2]);
        assert_eq!(picks(&mut group, 3, None), [0, 0, 0]);
        assert_eq!(picks(&mut group, 4, Some(0)), [1, 1, 2, 2]);
        group.set_online(member(0), false, &hasher);
        assert_eq!(picks(&mut group, 3, None), [0, 1, 2]);
    }

    #[test]
    fn nobody_is_left_beside_the_excepted_member() {
        let (mut group, hasher) = group(&[7], &[]);
        assert_eq!(group.pick(Some(member(7))), None);
        assert!(group.leave(member(7), &hasher) && !group.leave(member(7), &hasher));
        assert!(group.is_empty() && group.pick(None).is_none());
    }
}
