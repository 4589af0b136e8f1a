//! One shard's full copy of the subscription index: who must see a publication.
//! Every shard applies the same changes to its own copy, so there is no lock.
//! It knows sessions by key only, and nothing of connections or messages.

use std::{cell::LazyCell, num::NonZeroU32};

use ahash::RandomState;

use super::{
    FilterKind, Strategies, Strategy, TopicFilter, TopicName,
    audience::Audience,
    mix::mix,
    share::Groups,
    slab::{NIL, Slab},
    table::{self, IdTable},
    trie::{Trie, Walk},
};
use crate::base::{QoS, SessionKey, ShardId, ShardSet};

/// What a client asked for with one Topic Filter (MQTT 5.0 section 3.8.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SubscriptionOptions {
    /// Highest QoS that messages are delivered with.
    pub qos: QoS,
    /// Not to be sent what the client itself published (MQTT-3.8.3-3).
    pub no_local: bool,
    /// Forward the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// What sort of subscription it is.
    pub marks: Marks,
    /// Subscription Identifier to send along (MQTT-3.3.4-3).
    pub identifier: Option<NonZeroU32>,
}

/// What sort of subscription it is, in one byte: an index holds a million of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks(u8);

impl Marks {
    const EXCLUSIVE: u8 = 1;
    const DURABLE: u8 = 2;
    const CHECKED: u8 = 4;
    const DENIED: u8 = 8;

    /// That of a session that outlives the process, or not.
    pub const fn durable(is_durable: bool) -> Self {
        Self(if is_durable { Self::DURABLE } else { 0 })
    }

    /// Whether its session outlives the process.
    pub const fn is_durable(self) -> bool {
        self.0 & Self::DURABLE != 0
    }

    /// The same with what access rules say: whether it brings anything at all, and whether each message
    /// of it needs a decision.
    #[must_use]
    pub const fn with_access(self, is_denied: bool, is_checked: bool) -> Self {
        let others = self.0 & !(Self::CHECKED | Self::DENIED);
        let checked = if is_checked { Self::CHECKED } else { 0 };
        Self(others | checked | if is_denied { Self::DENIED } else { 0 })
    }

    /// Whether access rules let it bring nothing.
    pub const fn is_denied(self) -> bool {
        self.0 & Self::DENIED != 0
    }

    /// Whether access rules are asked about each message.
    pub const fn is_checked(self) -> bool {
        self.0 & Self::CHECKED != 0
    }

    /// Set by the index: the filter is exclusive, and so beside another one that
    /// the session may have for the same topics.
    pub const fn is_exclusive(self) -> bool {
        self.0 & Self::EXCLUSIVE != 0
    }

    const fn with_exclusive(self, is_exclusive: bool) -> Self {
        Self(self.0 & !Self::EXCLUSIVE | if is_exclusive { Self::EXCLUSIVE } else { 0 })
    }
}

/// When retained messages are sent for a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// At every SUBSCRIBE.
    #[default]
    SendAtSubscribe = 0,
    /// Only if the subscription did not exist.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// A subscription as it is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
    /// For which topics.
    pub filter: TopicFilter,
    /// How messages are delivered.
    pub options: SubscriptionOptions,
    /// Which retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// A session that shares a subscription, on whichever shard it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Member {
    /// Its home shard.
    pub shard: ShardId,
    /// Its key there.
    pub session: SessionKey,
}

/// What [`Index::subscribe`] changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// The first local subscriber of this filter: the other shards must know.
    First,
    /// There were local subscribers before.
    Another,
    /// The session had this filter; its options were replaced.
    Replaced,
}

/// What [`Index::unsubscribe`] changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removed {
    /// The last local subscriber of this filter is gone: the other shards must know.
    Last,
    /// Local subscribers remain.
    NotLast,
    /// The session did not have this filter.
    Absent,
}

/// All that one publication must reach. Kept from one publication to the next
/// for its buffers.
#[derive(Debug, Default)]
pub struct Matches {
    /// Subscriptions of sessions on this shard. A session whose filters overlap
    /// is there once for each.
    pub local: Vec<LocalMatch>,
    /// Other shards with subscribers.
    pub shards: ShardSet,
    /// One member of each shared subscription.
    pub shared: Vec<SharedMatch>,
    walk: Walk,
    /// What the hits of the walk are for: often the next publication is to the same topic.
    topic: String,
    /// [`Index::edition`] that they are of; 0 if they are of none.
    edition: u64,
}

impl Matches {
    /// Nobody, for a publication that is not to be matched.
    pub fn clear(&mut self) {
        self.forget_takers();
        self.walk.hits.clear();
        self.edition = 0;
    }

    fn forget_takers(&mut self) {
        self.local.clear();
        self.shards = ShardSet::EMPTY;
        self.shared.clear();
    }
}

/// One subscription of a local session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalMatch {
    /// The subscriber.
    pub session: SessionKey,
    /// What it asked for with the filter that matched.
    pub options: SubscriptionOptions,
}

/// The member of a shared subscription that gets the publication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedMatch {
    /// The shared subscription, for [`Index::pick`] if the member cannot take it.
    pub filter: TopicFilter,
    /// Who is to have the message.
    pub member: Member,
    /// What it asked for.
    pub options: SubscriptionOptions,
    /// Hash of what the choice went by, for [`Index::pick`] too.
    pub hash: u64,
}

/// One shard's copy of the subscription index.
pub struct Index {
    hasher: RandomState,
    entries: Slab<Entry>,
    /// Every entry by its pattern; for those without wildcard, this is the match.
    by_pattern: IdTable,
    /// The entries whose pattern has a wildcard.
    wildcards: Trie,
    groups: Groups,
    /// Counts the changes of `entries`: what a topic has found holds until the next one. From 1.
    edition: u64,
}

/// What is known about one pattern. Removed when all of it is empty.
struct Entry {
    /// The filter that brought the pattern; its share name means nothing here.
    filter: TopicFilter,
    audience: Audience,
}

/// There is one for each filter on every shard: an exact one costs no more than this, its text, which all
/// share, and a place in the table. Free slots add nothing.
const _: () = assert!(size_of::<super::slab::Slot<Entry>>() == 24);

impl Index {
    /// An empty index. The seed keys its hashes: secret in production, so that
    /// filters cannot be chosen to collide; fixed in a simulation.
    pub fn new(seed: u64) -> Self {
        Self {
            hasher: table::hasher(seed),
            entries: Slab::new(),
            by_pattern: IdTable::new(),
            wildcards: Trie::new(),
            groups: Groups::new(Strategies::default(), seed),
            edition: 1,
        }
    }

    /// The same, with shared subscriptions that choose as `strategies` says:
    /// the same ones on every shard. What is left to chance differs.
    pub fn with_strategies(seed: u64, own: ShardId, strategies: Strategies) -> Self {
        let of_shard = mix(seed ^ mix(u64::from(own.0) + 1));
        Self { groups: Groups::new(strategies, of_shard), ..Self::new(seed) }
    }

    /// Filters known, those with the same pattern counted once.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no filter is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an ordinary subscription of a session on this shard, or replaces its
    /// options if the session has this filter.
    pub fn subscribe(
        &mut self,
        filter: &TopicFilter,
        session: SessionKey,
        options: SubscriptionOptions,
    ) -> Added {
        debug_assert!(filter.share_name().is_none(), "shared subscriptions are joined");
        let marks = options.marks.with_exclusive(is_exclusive(filter));
        let options = SubscriptionOptions { marks, ..options };
        let entry = self.entry_or_insert(filter);
        self.entries[entry].audience.insert(LocalMatch { session, options }, &self.hasher)
    }

    /// Ends an ordinary subscription of a session on this shard.
    pub fn unsubscribe(&mut self, filter: &TopicFilter, session: SessionKey) -> Removed {
        let Some(entry) = self.entry(filter) else { return Removed::Absent };
        let key = (session, is_exclusive(filter));
        let removed = self.entries[entry].audience.remove(key, &self.hasher);
        self.release(entry);
        removed
    }

    /// What a session on this shard asked for with an ordinary filter.
    pub fn local_options(
        &self,
        filter: &TopicFilter,
        session: SessionKey,
    ) -> Option<SubscriptionOptions> {
        let entry = self.entry(filter)?;
        let key = (session, is_exclusive(filter));
        self.entries[entry].audience.find(key, &self.hasher).map(|found| found.options)
    }

    /// Notes that another shard has ordinary subscribers of this filter.
    pub fn add_shard(&mut self, filter: &TopicFilter, shard: ShardId) {
        let entry = self.entry_or_insert(filter);
        self.entries[entry].audience.set_shard(shard, true);
    }

    /// Notes that another shard has no more ordinary subscribers of this filter.
    pub fn remove_shard(&mut self, filter: &TopicFilter, shard: ShardId) {
        let Some(entry) = self.entry(filter) else { return };
        self.entries[entry].audience.set_shard(shard, false);
        self.release(entry);
    }

    /// Adds a member to a shared subscription, or changes it; true if it is
    /// new. `identity` is a hash of its client, the same on every shard.
    pub fn join(
        &mut self,
        filter: &TopicFilter,
        member: Member,
        identity: u64,
        options: SubscriptionOptions,
        online: bool,
    ) -> bool {
        debug_assert!(filter.share_name().is_some(), "ordinary subscriptions are not shared");
        let group = self.groups.find(filter, &self.hasher).unwrap_or_else(|| {
            let entry = self.entry_or_insert(filter);
            let head = self.entries[entry].audience.groups_mut();
            self.groups.insert(filter, entry, head, &self.hasher)
        });
        self.groups.join(group, member, identity, options, online, &self.hasher)
    }

    /// Takes a member out of a shared subscription; true if it was there.
    pub fn leave(&mut self, filter: &TopicFilter, member: Member) -> bool {
        let Some(group) = self.groups.find(filter, &self.hasher) else { return false };
        let left = self.groups.leave(group, member, &self.hasher);
        if self.groups.is_empty(group) {
            let entry = self.groups.entry(group);
            self.groups.remove(group, self.entries[entry].audience.groups_mut());
            self.entries[entry].audience.settle();
            self.release(entry);
        }
        left
    }

    /// Notes whether a member of a shared subscription is connected.
    pub fn set_online(&mut self, filter: &TopicFilter, member: Member, online: bool) {
        if let Some(group) = self.groups.find(filter, &self.hasher) {
            self.groups.set_online(group, member, online, &self.hasher);
        }
    }

    /// Another member of a shared subscription for a message whose chosen one
    /// cannot have it. Offline members are chosen only if none is online.
    pub fn pick(
        &mut self,
        filter: &TopicFilter,
        hash: u64,
    ) -> Option<(Member, SubscriptionOptions)> {
        let group = self.groups.find(filter, &self.hasher)?;
        self.groups.pick(group, hash)
    }

    /// Whether a member of a shared subscription is connected.
    pub fn has_online_member(&self, filter: &TopicFilter) -> bool {
        let group = self.groups.find(filter, &self.hasher);
        group.is_some_and(|group| self.groups.has_online(group))
    }

    /// What a member of a shared subscription asked for.
    pub fn member_options(
        &self,
        filter: &TopicFilter,
        member: Member,
    ) -> Option<SubscriptionOptions> {
        let group = self.groups.find(filter, &self.hasher)?;
        self.groups.options(group, member, &self.hasher)
    }

    /// Whether any member is chosen by its load: the others need not be told.
    pub fn has_loads(&self) -> bool {
        !self.groups.loads().is_empty()
    }

    /// Notes the load of a session of this shard: deliveries in flight and
    /// waiting. `is_awaited`: another shard has sent it something, and counts
    /// that until it is told.
    pub fn note_load(&mut self, member: Member, load: u32, is_awaited: bool) {
        self.groups.loads_mut().note(member, load, is_awaited, &self.hasher);
    }

    /// Whether [`report_loads`](Self::report_loads) has something to report.
    pub fn has_unreported_loads(&self) -> bool {
        self.groups.loads().has_unreported()
    }

    /// The loads that have been noted since the last report.
    pub fn report_loads(&mut self) -> Vec<(SessionKey, u32)> {
        self.groups.loads_mut().report(&self.hasher)
    }

    /// Takes over the load of a member that another shard has reported.
    pub fn tell_load(&mut self, member: Member, load: u32) {
        self.groups.loads_mut().tell(member, load, &self.hasher);
    }

    /// All that a publication to `topic` must reach, in place of what `out`
    /// held, with one member of each shared subscription. `publisher` is asked
    /// for a hash of the publishing client if one of them goes by that.
    pub fn matches(
        &mut self,
        topic: TopicName<'_>,
        publisher: impl FnOnce() -> u64,
        out: &mut Matches,
    ) {
        self.find_entries(topic, out);
        let publisher = LazyCell::new(publisher);
        let by_topic = LazyCell::new(|| self.hasher.hash_one(topic.as_str()));
        let hash_for = |strategy| match strategy {
            Strategy::HashClient => *publisher,
            Strategy::HashTopic => *by_topic,
            _ => 0,
        };
        for &id in &out.walk.hits {
            let audience = &self.entries[id].audience;
            out.local.extend_from_slice(audience.local());
            out.shards = out.shards.union(audience.shards());
            if audience.groups() != NIL {
                self.groups.pick_all(audience.groups(), hash_for, &mut out.shared);
            }
        }
    }

    /// Only the local subscriptions, for a publication that another shard has
    /// matched and sent here.
    pub fn matches_local(&self, topic: TopicName<'_>, out: &mut Matches) {
        self.find_entries(topic, out);
        for &id in &out.walk.hits {
            out.local.extend_from_slice(self.entries[id].audience.local());
        }
    }

    /// Empties `out` and fills the hits of its walk, unless they are those of the topic already.
    fn find_entries(&self, topic: TopicName<'_>, out: &mut Matches) {
        out.forget_takers();
        if out.edition == self.edition && out.topic == topic.as_str() {
            return;
        }
        out.topic.clear();
        out.topic.push_str(topic.as_str());
        out.edition = self.edition;
        let walk = &mut out.walk;
        walk.hits.clear();
        // A topic holds no wildcard, so it can only find an exact filter here.
        walk.hits.extend(self.entry_of(topic.as_str()));
        if !self.wildcards.is_empty() {
            self.wildcards.walk(topic, walk, &self.hasher);
        }
    }

    fn entry(&self, filter: &TopicFilter) -> Option<u32> {
        self.entry_of(filter.pattern())
    }

    fn entry_of(&self, pattern: &str) -> Option<u32> {
        let is_pattern = |id: u32| self.entries[id].filter.has_pattern(pattern);
        self.by_pattern.find(self.hasher.hash_one(pattern), is_pattern)
    }

    fn entry_or_insert(&mut self, filter: &TopicFilter) -> u32 {
        self.entry(filter).unwrap_or_else(|| {
            self.edition += 1;
            let id =
                self.entries.insert(Entry { filter: filter.clone(), audience: Audience::Nobody });
            let pattern = filter.pattern();
            self.by_pattern.insert(self.hasher.hash_one(pattern), id);
            if filter.has_wildcard() {
                self.wildcards.insert(pattern, id, &self.hasher);
            }
            id
        })
    }

    /// Removes an entry if nobody is behind it.
    fn release(&mut self, id: u32) {
        if !self.entries[id].audience.is_nobody() {
            return;
        }
        self.edition += 1;
        let Entry { filter, .. } = self.entries.remove(id);
        let pattern = filter.pattern();
        self.by_pattern.remove(self.hasher.hash_one(pattern), id);
        if filter.has_wildcard() {
            self.wildcards.remove(pattern, &self.hasher);
        }
    }
}

fn is_exclusive(filter: &TopicFilter) -> bool {
    filter.kind() == FilterKind::Exclusive
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::{
        base::limits::TOPIC_LEVELS_MAX,
        topic::testing::{Random, topic},
    };

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).unwrap()
    }

    fn session(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 1 }
    }

    fn options(identifier: u32) -> SubscriptionOptions {
        SubscriptionOptions { identifier: NonZeroU32::new(identifier), ..Default::default() }
    }

    fn member(n: u32) -> Member {
        Member { shard: ShardId((n % 3) as u16), session: session(n) }
    }

    fn local_slots(index: &Index, name: &str) -> Vec<u32> {
        let mut out = Matches::default();
        index.matches_local(topic(name), &mut out);
        let mut slots: Vec<_> = out.local.iter().map(|m| m.session.slot).collect();
        slots.sort_unstable();
        slots
    }

    /// What the index should know, without any structure.
    #[derive(Default)]
    struct Model {
        local: HashMap<(TopicFilter, SessionKey), SubscriptionOptions>,
        shards: HashSet<(TopicFilter, ShardId)>,
        groups: HashMap<TopicFilter, HashMap<Member, (SubscriptionOptions, bool)>>,
    }

    impl Model {
        fn has_local(&self, filter: &TopicFilter) -> bool {
            self.local.keys().any(|(f, _)| f == filter)
        }

        fn check(&self, index: &mut Index, name: TopicName<'_>, out: &mut Matches) {
            index.matches(name, || 0, out);
            let mut expected: Vec<_> = self
                .local
                .iter()
                .filter(|((filter, _), _)| filter.matches(name))
                .map(|((_, session), &options)| (*session, options.identifier))
                .collect();
            expected.sort_unstable();
            let found = |out: &Matches| {
                let mut found: Vec<_> =
                    out.local.iter().map(|m| (m.session, m.options.identifier)).collect();
                found.sort_unstable();
                found
            };
            assert_eq!(found(out), expected, "{name}");
            let mut shards = ShardSet::EMPTY;
            for (_, shard) in self.shards.iter().filter(|(filter, _)| filter.matches(name)) {
                shards.insert(*shard);
            }
            assert_eq!(out.shards, shards, "{name}");
            let groups: HashSet<_> = self.groups.keys().filter(|f| f.matches(name)).collect();
            assert_eq!(out.shared.iter().map(|m| &m.filter).collect::<HashSet<_>>(), groups);
            assert_eq!(out.shared.len(), groups.len(), "{name}");
            for SharedMatch { filter, member, options, .. } in &out.shared {
                let members = &self.groups[filter];
                let any_online = members.values().any(|(_, online)| *online);
                assert_eq!(members[member], (*options, any_online), "{filter} {name}");
                assert_eq!(index.member_options(filter, *member), Some(*options));
            }
            index.matches_local(name, out);
            assert_eq!(found(out), expected, "{name}");
            assert!(out.shards.is_empty() && out.shared.is_empty());
        }

        fn patterns(&self) -> usize {
            let local = self.local.keys().map(|(filter, _)| filter);
            let shards = self.shards.iter().map(|(filter, _)| filter);
            let all = local.chain(shards).chain(self.groups.keys());
            all.map(TopicFilter::pattern).collect::<HashSet<_>>().len()
        }
    }

    /// One random change to both; `grow` out of 4 make them larger.
    fn change(index: &mut Index, model: &mut Model, random: &mut Random, grow: u64) {
        let add = random.below(4) < grow;
        let (n, kind) = (random.below(50) as u32, random.below(3));
        let text = random.filter();
        match (kind, add) {
            (0, true) => {
                let key = (filter(&text), session(n));
                let options = options(random.below(9) as u32);
                let expected = match (model.local.contains_key(&key), model.has_local(&key.0)) {
                    (true, _) => Added::Replaced,
                    (false, true) => Added::Another,
                    (false, false) => Added::First,
                };
                assert_eq!(index.subscribe(&key.0, key.1, options), expected);
                model.local.insert(key, options);
            }
            (0, false) => {
                let key = (filter(&text), session(n));
                let removed = model.local.remove(&key).is_some();
                let expected = match (removed, model.has_local(&key.0)) {
                    (false, _) => Removed::Absent,
                    (true, true) => Removed::NotLast,
                    (true, false) => Removed::Last,
                };
                assert_eq!(index.unsubscribe(&key.0, key.1), expected);
            }
            (1, add) => {
                let (filter, shard) = (filter(&text), ShardId((n % 8) as u16));
                if add {
                    index.add_shard(&filter, shard);
                    model.shards.insert((filter, shard));
                } else {
                    index.remove_shard(&filter, shard);
                    model.shards.remove(&(filter, shard));
                }
            }
            (_, add) => {
                let filter = filter(&format!("$share/g{}/{text}", n % 2));
                let member = member(random.below(6) as u32);
                change_group(index, model, filter, member, (add, random.below(2) == 0));
            }
        }
    }

    fn change_group(
        index: &mut Index,
        model: &mut Model,
        filter: TopicFilter,
        member: Member,
        (add, online): (bool, bool),
    ) {
        if add {
            let new = index.join(&filter, member, 7, options(7), online);
            let members = model.groups.entry(filter).or_default();
            assert_eq!(new, members.insert(member, (options(7), online)).is_none());
            return;
        }
        index.set_online(&filter, member, online);
        if let Some(entry) = model.groups.get_mut(&filter).and_then(|g| g.get_mut(&member)) {
            entry.1 = online;
        }
        if online {
            return;
        }
        let left = model.groups.get_mut(&filter).is_some_and(|g| g.remove(&member).is_some());
        model.groups.retain(|_, members| !members.is_empty());
        assert_eq!(index.leave(&filter, member), left);
    }

    #[test]
    fn index_agrees_with_a_plain_list() {
        for seed in 1..=30 {
            let mut random = Random(seed);
            // Every strategy is held to the same.
            let default = Strategy::ALL[seed as usize % Strategy::ALL.len()];
            let strategies = Strategies { default, by_prefix: Vec::new() };
            let mut index = Index::with_strategies(seed, ShardId(1), strategies);
            let mut model = Model::default();
            let mut out = Matches::default();
            for step in 0..600 {
                change(&mut index, &mut model, &mut random, if step < 300 { 3 } else { 1 });
                let name = random.topic();
                model.check(&mut index, topic(&name), &mut out);
                assert_eq!(index.len(), model.patterns());
            }
        }
    }

    #[test]
    fn nothing_is_left_behind_when_all_is_removed() {
        let mut random = Random(5);
        let (mut index, mut model) = (Index::new(5), Model::default());
        for _ in 0..2000 {
            change(&mut index, &mut model, &mut random, 4);
        }
        assert!(index.len() > 100 && index.wildcards.len() > 100 && index.groups.len() > 100);
        for (filter, session) in model.local.keys() {
            assert_ne!(index.unsubscribe(filter, *session), Removed::Absent);
        }
        for (filter, shard) in &model.shards {
            index.remove_shard(filter, *shard);
        }
        for (filter, members) in &model.groups {
            assert!(members.keys().all(|member| index.leave(filter, *member)));
        }
        assert!(index.is_empty() && index.by_pattern.is_empty() && index.wildcards.is_empty());
        assert_eq!((index.wildcards.len(), index.groups.len()), (1, 0));
    }

    #[test]
    fn many_subscribers_of_one_filter_come_and_go() {
        let mut index = Index::new(1);
        let all = filter("a/+");
        for n in 0..20_000 {
            let expected = if n == 0 { Added::First } else { Added::Another };
            assert_eq!(index.subscribe(&all, session(n), options(1)), expected);
        }
        assert_eq!(index.subscribe(&all, session(777), options(2)), Added::Replaced);
        assert_eq!(local_slots(&index, "a/b"), (0..20_000).collect::<Vec<_>>());
        for n in (0..20_000).filter(|n| n % 1000 != 0) {
            assert_eq!(index.unsubscribe(&all, session(n)), Removed::NotLast);
        }
        let left: Vec<_> = (0..20_000).step_by(1000).collect();
        assert_eq!(local_slots(&index, "a/b"), left);
    }

    #[test]
    fn another_generation_is_another_session() {
        let mut index = Index::new(1);
        let (old, new) = (session(4), SessionKey { slot: 4, generation: 2 });
        index.subscribe(&filter("a"), new, options(1));
        assert_eq!(index.unsubscribe(&filter("a"), old), Removed::Absent);
        assert_eq!(index.unsubscribe(&filter("a"), new), Removed::Last);
    }

    #[test]
    fn system_topics_are_hidden_from_leading_wildcards() {
        // MQTT-4.7.2-1
        let mut index = Index::new(1);
        for (n, text) in ["#", "+/x", "+/#", "$SYS/#", "$SYS/+", "$SYS/x"].iter().enumerate() {
            index.subscribe(&filter(text), session(n as u32), options(1));
        }
        assert_eq!(local_slots(&index, "$SYS/x"), [3, 4, 5]);
        assert_eq!(local_slots(&index, "$SYS"), [3]);
        assert_eq!(local_slots(&index, "a/x"), [0, 1, 2]);
        assert_eq!(local_slots(&index, "a/$SYS"), [0, 2]);
    }

    #[test]
    fn deepest_filters_are_matched_and_removed() {
        let depth = TOPIC_LEVELS_MAX;
        let name = vec!["x"; depth].join("/");
        let filters = [
            vec!["+"; depth].join("/"),
            format!("{}/#", vec!["x"; depth - 1].join("/")),
            format!("{}/+", vec!["x"; depth - 1].join("/")),
            name.clone(),
        ];
        let mut index = Index::new(1);
        for (n, text) in filters.iter().enumerate() {
            index.subscribe(&filter(text), session(n as u32), options(1));
        }
        assert_eq!(local_slots(&index, &name), [0, 1, 2, 3]);
        assert_eq!(local_slots(&index, &name[2..]), [1]);
        for (n, text) in filters.iter().enumerate() {
            assert_eq!(index.unsubscribe(&filter(text), session(n as u32)), Removed::Last);
        }
        assert_eq!(index.wildcards.len(), 1);
    }

    fn index_with(shard: u16, default: Strategy) -> Index {
        let by_prefix = vec![("topic-".into(), Strategy::HashTopic)];
        Index::with_strategies(1, ShardId(shard), Strategies { default, by_prefix })
    }

    /// Who gets a publication by this client in the only group.
    fn taker(index: &mut Index, name: &str, client: u64) -> Member {
        let mut out = Matches::default();
        index.matches(topic(name), || client, &mut out);
        let [SharedMatch { filter, member, hash, .. }] = &out.shared[..] else {
            panic!("one group matches")
        };
        let again = index.pick(filter, *hash).map(|(member, _)| member);
        assert!(again == Some(*member) || filter.share_name() == Some("g"), "passed on alike");
        *member
    }

    #[test]
    fn shards_agree_on_who_gets_a_client_or_a_topic() {
        for name in ["client-x", "topic-x"] {
            let filter = filter(&format!("$share/{name}/#"));
            let [mut one, mut other] = [0, 1].map(|shard| index_with(shard, Strategy::HashClient));
            for n in 0..8 {
                one.join(&filter, member(n), u64::from(n), options(1), true);
                other.join(&filter, member(7 - n), u64::from(7 - n), options(1), true);
            }
            let mut takers = HashSet::new();
            for (client, text) in (0..9).flat_map(|client| (b'a'..b'j').map(move |t| (client, t))) {
                let text = char::from(text).to_string();
                let found = taker(&mut one, &text, client);
                assert_eq!(taker(&mut other, &text, client), found);
                let decides = if name == "topic-x" { text } else { client.to_string() };
                takers.insert((decides, found));
            }
            let members: HashSet<_> = takers.iter().map(|(_, member)| member).collect();
            assert_eq!(takers.len(), 9, "each has one member");
            assert!(members.len() > 2, "and not all the same");
        }
    }

    #[test]
    fn chance_differs_from_shard_to_shard() {
        let takers = |shard| {
            let mut index = index_with(shard, Strategy::Random);
            for n in 0..4 {
                index.join(&filter("$share/g/#"), member(n), u64::from(n), options(1), true);
            }
            (0..64).map(|_| taker(&mut index, "a", 0)).collect::<Vec<_>>()
        };
        assert_eq!(takers(1), takers(1));
        assert_ne!(takers(1), takers(2));
    }

    #[test]
    fn the_publisher_is_asked_for_only_if_it_matters() {
        let mut index = index_with(0, Strategy::RoundRobin);
        index.join(&filter("$share/g/#"), member(1), 1, options(1), true);
        index.join(&filter("$share/topic-/#"), member(1), 1, options(1), true);
        index.subscribe(&filter("#"), session(1), options(1));
        let mut out = Matches::default();
        index.matches(topic("a"), || unreachable!("nobody goes by it"), &mut out);
        assert_eq!((out.shared.len(), out.local.len()), (2, 1));
    }

    #[test]
    fn an_exclusive_subscription_stands_beside_an_ordinary_one() {
        let mut index = Index::new(1);
        let (plain, exclusive) = (filter("a/+"), filter("$exclusive/a/+"));
        assert_eq!(index.subscribe(&plain, session(1), options(1)), Added::First);
        assert_eq!(index.subscribe(&exclusive, session(1), options(2)), Added::Another);
        assert_eq!(index.subscribe(&exclusive, session(1), options(3)), Added::Replaced);
        assert_eq!(local_slots(&index, "a/b"), [1, 1]);
        assert_eq!(index.unsubscribe(&plain, session(1)), Removed::NotLast);
        assert_eq!(index.unsubscribe(&plain, session(1)), Removed::Absent);
        assert_eq!(index.unsubscribe(&exclusive, session(1)), Removed::Last);
        assert!(index.is_empty());
    }

    #[test]
    fn buffers_are_reused() {
        let mut index = Index::new(1);
        for n in 0..100 {
            index.subscribe(&filter("a/#"), session(n), options(1));
            index.join(&filter(&format!("$share/{n}/+/b")), member(n), 7, options(1), true);
        }
        let mut out = Matches::default();
        index.matches(topic("a/b"), || 0, &mut out);
        let before = (out.local.as_ptr(), out.shared.as_ptr());
        index.matches(topic("a/b"), || 0, &mut out);
        assert_eq!((out.local.len(), out.shared.len()), (100, 100));
        assert_eq!((out.local.as_ptr(), out.shared.as_ptr()), before);
    }
}
