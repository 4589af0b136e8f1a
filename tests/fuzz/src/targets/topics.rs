//! Changes of an index and of retained messages, compared to a list that is searched from its start to
//! its end: names and filters are valid exactly if they should be, and both find what matches.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
};

use ringmq::{
    base::{QoS, SessionKey, ShardId},
    topic::{
        Added, Cursor, FilterKind, Index, Marks, Matches, Member, OfTopic, Removed, Retained,
        Strategies, Strategy, SubscriptionOptions, TopicFilter, TopicName,
    },
};

use super::reference::{is_filter, is_topic, matches};
use crate::input::Input;

/// A text for each operation, up to a line feed; before it a byte that says which, and one with details.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new();
    while !input.is_empty() {
        let (operation, detail) = (input.u8(), input.u8());
        let Ok(text) = str::from_utf8(input.until(b'\n')) else { continue };
        let topic = TopicName::parse(text);
        let filter = TopicFilter::parse(text);
        assert_eq!(topic.is_ok(), is_topic(text), "{text:?}");
        assert_eq!(filter.is_ok(), is_filter(text), "{text:?}");
        if let Ok(topic) = topic {
            world.topic(operation, detail, topic);
        }
        if let Ok(filter) = filter {
            world.filter(operation, detail, &filter);
        }
    }
    world.undo();
}

struct World {
    index: Index,
    retained: Retained<Kept>,
    found: Matches,
    /// What the index should hold, by pattern; who has it exclusively has it besides.
    local: BTreeMap<(String, (u32, bool)), SubscriptionOptions>,
    remote: BTreeSet<(String, u16)>,
    /// Members of shared subscriptions; whether they are online.
    members: BTreeMap<(String, Member2), (SubscriptionOptions, bool)>,
    kept: BTreeMap<String, u8>,
}

/// What stands for a retained message.
#[derive(Clone, PartialEq, Debug)]
struct Kept(String, u8);

impl OfTopic for Kept {
    fn topic(&self) -> &str {
        &self.0
    }
}

/// A [`Member`] that can be sorted: shard and session.
type Member2 = (u16, u32);

impl World {
    fn new() -> Self {
        Self {
            index: Index::with_strategies(1, ShardId(0), strategies()),
            retained: Retained::new(1),
            found: Matches::default(),
            local: BTreeMap::new(),
            remote: BTreeSet::new(),
            members: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    fn topic(&mut self, operation: u8, detail: u8, topic: TopicName<'_>) {
        match operation % 4 {
            0 => {
                let old = self.kept.insert(topic.as_str().to_owned(), detail);
                let set = self.retained.set(Kept(topic.as_str().to_owned(), detail));
                assert_eq!(set.map(|kept| kept.1), old);
            }
            1 => {
                let old = self.kept.remove(topic.as_str());
                assert_eq!(self.retained.get(topic).map(|kept| kept.1), old);
                assert_eq!(self.retained.remove(topic).map(|kept| kept.1), old);
            }
            _ => self.check_matches(topic),
        }
        assert_eq!(self.retained.len(), self.kept.len());
    }

    fn filter(&mut self, operation: u8, detail: u8, filter: &TopicFilter) {
        let who = u32::from(detail % 8);
        match (operation / 4 % 8, filter.share_name()) {
            (0, None) => self.check_pages(detail, filter),
            // The index has none of these.
            (_, None) if filter.kind() == FilterKind::Request => {}
            (1 | 2, None) => self.subscribe(who, options(detail), filter),
            (3, None) => (0..CROWD).for_each(|who| self.subscribe(who, options(detail), filter)),
            (4, None) if detail & 0x80 != 0 => {
                (0..CROWD).for_each(|who| self.unsubscribe(who, filter));
            }
            (4, None) => self.unsubscribe(who, filter),
            (5 | 6, None) => {
                self.index.add_shard(filter, ShardId(who as u16 + 1));
                self.remote.insert((filter.pattern().to_owned(), who as u16 + 1));
            }
            (_, None) => {
                self.index.remove_shard(filter, ShardId(who as u16 + 1));
                self.remote.remove(&(filter.pattern().to_owned(), who as u16 + 1));
            }
            (0, Some(_)) => self.load(who, detail),
            (1..=4, Some(_)) => self.join(who, detail, filter),
            (5, Some(_)) => self.set_online(who, detail, filter),
            (6, Some(_)) => self.check_pick(detail, filter),
            (_, Some(_)) => self.leave(who, filter),
        }
    }

    fn subscribe(&mut self, who: u32, options: SubscriptionOptions, filter: &TopicFilter) {
        let exclusive = filter.kind() == FilterKind::Exclusive;
        let others = self.local.keys().filter(|(other, _)| *other == filter.pattern()).count();
        let added = self.index.subscribe(filter, session(who), options);
        let key = (filter.pattern().to_owned(), (who, exclusive));
        let expected = match (self.local.insert(key, options), others) {
            (Some(_), _) => Added::Replaced,
            (None, 0) => Added::First,
            (None, _) => Added::Another,
        };
        assert_eq!(added, expected);
    }

    fn unsubscribe(&mut self, who: u32, filter: &TopicFilter) {
        let pattern = filter.pattern();
        let key = (pattern.to_owned(), (who, filter.kind() == FilterKind::Exclusive));
        let was_there = self.local.remove(&key).is_some();
        let expected = match (was_there, self.local.keys().any(|(other, _)| other == pattern)) {
            (false, _) => Removed::Absent,
            (true, false) => Removed::Last,
            (true, true) => Removed::NotLast,
        };
        assert_eq!(self.index.unsubscribe(filter, session(who)), expected);
    }

    /// News of how busy a member is, told by its shard or noted on this one.
    fn load(&mut self, who: u32, detail: u8) {
        let (load, member) = (u32::from(detail >> 5), member(who));
        if member.shard == ShardId(0) {
            self.index.note_load(member, load, detail & 0x10 != 0);
        } else {
            self.index.tell_load(member, load);
        }
        if detail & 8 != 0 {
            self.index.report_loads();
            assert!(!self.index.has_unreported_loads());
        }
    }

    fn join(&mut self, who: u32, detail: u8, filter: &TopicFilter) {
        let (options, online) = (options(detail), detail & 0x10 == 0);
        let is_new = self.index.join(filter, member(who), u64::from(who), options, online);
        let old = self.members.insert((filter.to_string(), key(who)), (options, online));
        assert_eq!(is_new, old.is_none());
    }

    fn leave(&mut self, who: u32, filter: &TopicFilter) {
        let old = self.members.remove(&(filter.to_string(), key(who)));
        assert_eq!(self.index.leave(filter, member(who)), old.is_some());
    }

    fn set_online(&mut self, who: u32, detail: u8, filter: &TopicFilter) {
        let online = detail & 0x10 == 0;
        self.index.set_online(filter, member(who), online);
        if let Some(entry) = self.members.get_mut(&(filter.to_string(), key(who))) {
            entry.1 = online;
        }
    }

    fn check_pick(&mut self, detail: u8, filter: &TopicFilter) {
        let picked = self.index.pick(filter, u64::from(detail));
        let text = filter.to_string();
        let mut group = self.members.iter().filter(|((other, _), _)| *other == text);
        match picked {
            None => assert_eq!(group.count(), 0),
            Some((picked, options)) => {
                let (expected, online) = self.members[&(text.clone(), key_of(picked))];
                assert_eq!(options, expected);
                assert_eq!(self.index.member_options(filter, picked), Some(expected));
                assert!(online || group.all(|(_, (_, online))| !online));
            }
        }
    }

    fn check_matches(&mut self, topic: TopicName<'_>) {
        self.index.matches(topic, || PUBLISHER, &mut self.found);
        let matched = |filter: &str| matches(filter, topic.as_str());
        let mut found: Vec<_> = self
            .found
            .local
            .iter()
            .map(|one| (one.session.slot, describe(&one.options, one.options.marks.is_exclusive())))
            .collect();
        found.sort_unstable();
        let of_topic = self.local.iter().filter(|((filter, _), _)| matched(filter));
        let mut expected: Vec<_> = of_topic
            .map(|((_, (who, exclusive)), options)| (*who, describe(options, *exclusive)))
            .collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "local subscribers of {topic}");
        let shards: BTreeSet<_> = self.found.shards.iter().map(|shard| shard.0).collect();
        let of_topic = self.remote.iter().filter(|(filter, _)| matched(filter));
        assert_eq!(shards, of_topic.map(|(_, shard)| *shard).collect(), "shards of {topic}");
        let mut groups: Vec<_> = self.found.shared.iter().map(|one| one.filter.as_str()).collect();
        groups.sort_unstable();
        let expected: BTreeSet<_> =
            self.members.keys().map(|(filter, _)| filter.as_str()).collect();
        let of_topic = expected.into_iter().filter(|filter| matched(pattern(filter)));
        assert_eq!(groups, of_topic.collect::<Vec<_>>(), "shared subscriptions of {topic}");
        for one in &self.found.shared {
            let text = one.filter.as_str();
            let (options, online) = self.members[&(text.to_owned(), key_of(one.member))];
            let mut group = self.members.iter().filter(|((other, _), _)| other == text);
            assert!(online || group.all(|(_, (_, online))| !online), "{text} chose one offline");
            assert_eq!(one.options, options);
        }
        let mut again = Matches::default();
        self.index.matches_local(topic, &mut again);
        assert_eq!(again.local, self.found.local);
        self.index.matches(topic, || PUBLISHER, &mut again);
        for (one, again) in self.found.shared.iter().zip(&again.shared) {
            assert_eq!(one.filter, again.filter);
            let share_name = one.filter.share_name().expect("a shared subscription");
            let stays = [Strategy::Sticky, Strategy::HashClient, Strategy::HashTopic];
            let stays = stays.contains(&strategies().of(share_name));
            assert!(!stays || one == again, "nothing has changed, and {again:?} after {one:?}");
        }
    }

    /// All pages together are what a search from start to end finds, in its order.
    fn check_pages(&self, detail: u8, filter: &TopicFilter) {
        let pattern = filter.pattern();
        let mut found = Vec::new();
        let mut after: Option<Cursor> = None;
        let (visits_max, page_max) = (usize::from(detail % 5), usize::from(detail / 5 % 4) + 1);
        let pages_max = 2 * self.kept.len() + 2;
        for _ in 0..pages_max {
            let mut left = page_max;
            after = self.retained.page(filter, after.as_ref(), visits_max, &mut |topic, value| {
                found.push((topic.to_string(), value.1));
                left -= 1;
                left > 0
            });
            if after.is_none() {
                break;
            }
        }
        assert!(after.is_none(), "{filter} takes more than {pages_max} pages");
        let all = self.kept.iter().filter(|(topic, _)| matches(pattern, topic));
        let expected: Vec<_> = all.map(|(topic, value)| (topic.clone(), *value)).collect();
        assert_eq!(found, expected, "retained messages for {filter}");
        for topic in self.kept.keys() {
            let name = TopicName::parse(topic).expect("a topic of before");
            assert_eq!(filter.matches(name), matches(pattern, topic), "{filter} {topic}");
        }
    }

    /// Takes everything back: nothing may be left.
    fn undo(mut self) {
        let parse = |text: &str| TopicFilter::parse(text).expect("a filter of before");
        for (pattern, (who, exclusive)) in self.local.keys() {
            let prefix = if *exclusive { "$exclusive/" } else { "" };
            let filter = parse(&format!("{prefix}{pattern}"));
            assert_ne!(self.index.unsubscribe(&filter, session(*who)), Removed::Absent);
        }
        for (filter, shard) in &self.remote {
            self.index.remove_shard(&parse(filter), ShardId(*shard));
        }
        for (filter, (_, who)) in self.members.keys() {
            assert!(self.index.leave(&parse(filter), member(*who)));
        }
        assert!(self.index.is_empty(), "{} entries are left", self.index.len());
        assert!(!self.index.has_loads(), "loads of nobody are left");
        for topic in self.kept.keys() {
            let name = TopicName::parse(topic).expect("a topic of before");
            assert!(self.retained.remove(name).is_some());
        }
        assert!(self.retained.is_empty());
    }
}

fn options(detail: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: QoS::from_bits(detail >> 5 & 1).expect("0 or 1"),
        no_local: detail & 0x40 != 0,
        retain_as_published: detail & 0x80 != 0,
        identifier: NonZeroU32::new(u32::from(detail >> 3)),
        marks: Marks::durable(detail & 0x10 != 0),
    }
}

/// The options in a form that can be sorted.
fn describe(options: &SubscriptionOptions, exclusive: bool) -> (u8, [bool; 4], Option<NonZeroU32>) {
    let SubscriptionOptions { qos, no_local, retain_as_published, marks, identifier } = *options;
    let flags = [no_local, retain_as_published, exclusive, marks.is_durable()];
    (qos.bits(), flags, identifier)
}

/// The part of a shared subscription's filter that topics are matched against.
fn pattern(shared: &str) -> &str {
    let prefixes = if shared.starts_with("$queue/") { 1 } else { 2 };
    shared.splitn(prefixes + 1, '/').last().expect("$share/NAME/FILTER or $queue/FILTER")
}

/// All of them, by share name.
fn strategies() -> Strategies {
    let rules = ["", "r", "s", "c", "t", "l"].into_iter().zip(Strategy::ALL);
    let by_prefix = rules.map(|(prefix, strategy)| (prefix.into(), strategy)).collect();
    Strategies { default: Strategy::LeastInflight, by_prefix }
}

/// Hash of the client that publishes.
const PUBLISHER: u64 = 77;

/// More sessions behind one filter than are searched one by one.
const CROWD: u32 = 40;

const fn session(who: u32) -> SessionKey {
    SessionKey { slot: who, generation: 0 }
}

const fn key(who: u32) -> Member2 {
    (who as u16 % 3, who)
}

const fn key_of(member: Member) -> Member2 {
    (member.shard.0, member.session.slot)
}

const fn member(who: u32) -> Member {
    Member { shard: ShardId(key(who).0), session: session(who) }
}
