//! Retained messages of one shard: one value a topic, found by topic or, a page
//! at a time, by filter. Knows nothing of what a value is or who asks.
//!
//! A topic is looked up by hash. For filters, all topics stand in byte order,
//! and a page walks along it: a topic that does not match says how far the next
//! one that could is, and a binary search goes there. That passes over whole
//! subtrees like a trie, without a node for each level, and a position is
//! simply a text, which stays good when topics come and go.

use ahash::RandomState;

use super::{
    TopicFilter, TopicName,
    order::{Order, Place},
    slab::Slab,
    table::{self, IdTable},
};

/// Retained messages (or what stands for them) of one shard.
pub struct Retained<V> {
    hasher: RandomState,
    messages: Slab<V>,
    by_topic: IdTable,
    /// All messages in the byte order of their topics.
    order: Order,
}

/// What is kept for a topic. It has the topic itself, which so is there once.
pub trait OfTopic {
    /// Its topic, which stays the same while it is kept.
    fn topic(&self) -> &str;
}

/// Where the next page of a filter starts: at this text or the first topic
/// behind it. Good for the filter that it came from, whatever was set or
/// removed since.
#[derive(Clone, Debug)]
pub struct Cursor(Box<str>);

impl<V: OfTopic> Retained<V> {
    /// An empty store. The seed keys its hash, see [`super::Index::new`].
    pub fn new(seed: u64) -> Self {
        Self {
            hasher: table::hasher(seed),
            messages: Slab::new(),
            by_topic: IdTable::new(),
            order: Order::new(),
        }
    }

    /// Topics with a value.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether no topic has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the value of its topic; gives back the one that it replaces.
    pub fn set(&mut self, value: V) -> Option<V> {
        let topic = value.topic();
        if let Some(id) = self.find(TopicName::trusted(topic)) {
            return Some(std::mem::replace(&mut self.messages[id], value));
        }
        let (place, hash) = (self.seek(topic), self.hasher.hash_one(topic));
        let id = self.messages.insert(value);
        self.by_topic.insert(hash, id);
        self.order.insert(place, id);
        None
    }

    /// Takes the value of a topic out.
    pub fn remove(&mut self, topic: TopicName<'_>) -> Option<V> {
        let id = self.find(topic)?;
        self.by_topic.remove(self.hasher.hash_one(topic.as_str()), id);
        self.order.remove(self.seek(topic.as_str()));
        Some(self.messages.remove(id))
    }

    /// The value of a topic.
    pub fn get(&self, topic: TopicName<'_>) -> Option<&V> {
        self.find(topic).map(|id| &self.messages[id])
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, topic: TopicName<'_>) -> Option<&mut V> {
        self.find(topic).map(|id| &mut self.messages[id])
    }

    /// One page of the values whose topics match `filter`, in byte order of the
    /// topics, from `after` on (`None`: from the start). Each is given to
    /// `take`, which tells whether it wants another; the value that it answers
    /// `false` to counts as taken.
    ///
    /// Looks at no more than `visits_max` topics, and at least at one. Returns
    /// where the next page starts, or `None` when nothing can follow; a page
    /// with a cursor may be empty, and so may all that follow it.
    ///
    /// Between pages the store may change: a topic that matches and stays is
    /// reported once over all pages, one that is set or removed meanwhile once
    /// or not at all.
    pub fn page(
        &self,
        filter: &TopicFilter,
        after: Option<&Cursor>,
        visits_max: usize,
        take: &mut dyn FnMut(TopicName<'_>, &V) -> bool,
    ) -> Option<Cursor> {
        let pattern = filter.pattern();
        let mut target = String::new();
        let mut place = match after {
            Some(Cursor(text)) => self.seek(text),
            None => self.seek(literal_head(pattern).0),
        };
        for _ in 0..visits_max.max(1) {
            let value = &self.messages[self.order.get(place)?];
            let topic = value.topic();
            let verdict = judge(pattern, topic, &mut target);
            place = match verdict {
                Verdict::Match | Verdict::Next => self.order.next(place),
                Verdict::Seek => self.seek_from(place, &target),
                Verdict::End => return None,
            };
            if verdict == Verdict::Match && !take(TopicName::trusted(topic), value) {
                break;
            }
        }
        let next = self.order.get(place)?;
        Some(Cursor(self.messages[next].topic().into()))
    }

    /// One page of all values, those of topics that start with `$` included: at most `visits_max`
    /// from `after` on (`None`: from the start). Returns where the next page starts, as
    /// [`page`](Self::page) does.
    pub fn page_of_all(
        &self,
        after: Option<&Cursor>,
        visits_max: usize,
        visit: &mut dyn FnMut(&V),
    ) -> Option<Cursor> {
        let mut place = self.seek(after.map_or("", |Cursor(text)| text));
        for _ in 0..visits_max.max(1) {
            visit(&self.messages[self.order.get(place)?]);
            place = self.order.next(place);
        }
        let next = self.order.get(place)?;
        Some(Cursor(self.messages[next].topic().into()))
    }

    fn find(&self, topic: TopicName<'_>) -> Option<u32> {
        let is_topic = |id: u32| *self.messages[id].topic() == *topic.as_str();
        self.by_topic.find(self.hasher.hash_one(topic.as_str()), is_topic)
    }

    /// The place of the first topic that is not before `text`.
    fn seek(&self, text: &str) -> Place {
        self.order.seek(|id| *self.messages[id].topic() < *text)
    }

    /// The same for a text behind `place`. Often it is the next topic.
    fn seek_from(&self, place: Place, text: &str) -> Place {
        let next = self.order.next(place);
        match self.order.get(next) {
            Some(id) if *self.messages[id].topic() < *text => self.seek(text),
            _ => next,
        }
    }
}

/// What a topic says about itself and those behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It matches.
    Match,
    /// It does not, the next one may.
    Next,
    /// None matches before the target.
    Seek,
    /// None matches from here on.
    End,
}

/// Compares a topic to a pattern; with [`Verdict::Seek`], sets `target` to a
/// text behind the topic.
fn judge(pattern: &str, topic: &str, target: &mut String) -> Verdict {
    target.clear();
    // MQTT-4.7.2-1: a leading wildcard passes by topics that start with `$`.
    if topic.starts_with('$') && pattern.starts_with(['+', '#']) {
        target.push(AFTER_DOLLAR);
        return Verdict::Seek;
    }
    // Where the level that the last `+` stood for ends.
    let mut plus_end = None;
    let (mut at, mut pattern_at) = (0, 0);
    for level in pattern.split('/') {
        if level == "#" {
            return Verdict::Match;
        }
        if at > topic.len() {
            return Verdict::Next;
        }
        let end = topic[at..].find('/').map_or(topic.len(), |len| at + len);
        if level == "+" {
            plus_end = Some(end);
        } else if topic[at..end] != *level {
            let (exact, parent) = literal_head(&pattern[pattern_at..]);
            for head in [exact, parent] {
                if *head > topic[at..] {
                    target.push_str(&topic[..at]);
                    target.push_str(head);
                    return Verdict::Seek;
                }
            }
            return skip_level(topic, plus_end, target);
        }
        at = end + 1;
        pattern_at += level.len() + 1;
    }
    if at > topic.len() { Verdict::Match } else { skip_level(topic, plus_end, target) }
}

/// The rest of the pattern is behind us below the level that the last `+` stood
/// for: goes on with the level behind that one.
fn skip_level(topic: &str, plus_end: Option<usize>, target: &mut String) -> Verdict {
    let Some(end) = plus_end else { return Verdict::End };
    target.push_str(&topic[..end]);
    target.push(AFTER_SLASH);
    Verdict::Seek
}

/// How every text that the pattern matches starts, up to its first wildcard:
/// the first such text, and how those start that come behind it. They differ
/// only for `#`, as that matches the level above too: `a/#` matches `a`, then,
/// after `a!`, all that starts with `a/`.
fn literal_head(pattern: &str) -> (&str, &str) {
    match pattern.find(['+', '#']) {
        None => (pattern, pattern),
        Some(at) if pattern[at..].starts_with('+') => (&pattern[..at], &pattern[..at]),
        Some(at) => (&pattern[..at.saturating_sub(1)], &pattern[..at]),
    }
}

/// The characters that follow `/` and `$`: behind every text that goes on with those.
const AFTER_SLASH: char = '0';
const AFTER_DOLLAR: char = '%';
const _: () = assert!(AFTER_SLASH as u8 == b'/' + 1 && AFTER_DOLLAR as u8 == b'$' + 1);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::{
        base::limits::TOPIC_LEVELS_MAX,
        topic::testing::{Random, topic},
    };

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).unwrap()
    }

    #[derive(PartialEq, Debug)]
    struct Kept<T>(String, T);

    impl<T> OfTopic for Kept<T> {
        fn topic(&self) -> &str {
            &self.0
        }
    }

    fn kept<T>(topic: &str, value: T) -> Kept<T> {
        Kept(topic.to_owned(), value)
    }

    fn store(topics: &[&str]) -> Retained<Kept<usize>> {
        let mut retained = Retained::new(1);
        for (n, text) in topics.iter().enumerate() {
            assert_eq!(retained.set(kept(text, n)), None);
        }
        retained
    }

    /// All topics that match, and how many topics that looked at.
    fn walk<V: OfTopic>(retained: &Retained<V>, text: &str) -> (Vec<String>, usize) {
        let (mut found, mut visits) = (Vec::new(), 0);
        let (filter, mut cursor) = (filter(text), None);
        loop {
            let take = &mut |name: TopicName<'_>, _: &V| {
                found.push(name.as_str().to_owned());
                true
            };
            cursor = retained.page(&filter, cursor.as_ref(), 1, take);
            visits += 1;
            if cursor.is_none() {
                return (found, visits);
            }
        }
    }

    #[test]
    fn store_agrees_with_a_plain_map() {
        for seed in 1..=30 {
            let mut random = Random(seed);
            let (mut retained, mut model) = (Retained::new(seed), BTreeMap::new());
            for step in 0..600_u64 {
                let name = random.topic();
                if random.below(4) < if step < 300 { 3 } else { 1 } {
                    assert_eq!(
                        retained.set(kept(&name, step)),
                        model.insert(name.clone(), kept(&name, step))
                    );
                } else {
                    assert_eq!(retained.remove(topic(&name)), model.remove(&name));
                }
                assert_eq!(retained.get(topic(&name)), model.get(&name));
                let text = random.filter();
                let pattern = filter(&text);
                let expected: Vec<_> =
                    model.keys().filter(|name| pattern.matches(topic(name))).cloned().collect();
                assert_eq!(walk(&retained, &text).0, expected, "{text}");
                assert_eq!(retained.len(), model.len());
            }
            for name in model.keys() {
                assert!(retained.remove(topic(name)).is_some());
            }
            assert!(retained.is_empty() && retained.by_topic.is_empty());
            assert_eq!(retained.order.runs(), 0);
        }
    }

    #[test]
    fn topics_that_stay_are_paged_once_while_others_come_and_go() {
        for seed in 1..=30 {
            let mut random = Random(seed);
            let mut retained = Retained::new(seed);
            let stay: BTreeSet<_> = (0..200).map(|_| random.topic()).collect();
            for name in &stay {
                retained.set(kept(name, ()));
            }
            let pattern = filter(&random.filter());
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let mut left = random.below(4);
                let take = &mut |name: TopicName<'_>, _: &Kept<()>| {
                    seen.push(name.as_str().to_owned());
                    left = left.saturating_sub(1);
                    left > 0
                };
                cursor = retained.page(&pattern, cursor.as_ref(), 5, take);
                if cursor.is_none() {
                    break;
                }
                for _ in 0..20 {
                    let name = random.topic();
                    if stay.contains(&name) {
                    } else if retained.remove(topic(&name)).is_none() {
                        retained.set(kept(&name, ()));
                    }
                }
            }
            let all = seen.len();
            let seen: BTreeSet<_> = seen.into_iter().collect();
            assert_eq!(seen.len(), all, "none is reported twice");
            let missed: Vec<_> = stay.iter().filter(|n| pattern.matches(topic(n))).collect();
            assert!(missed.iter().all(|name| seen.contains(*name)), "{pattern}");
        }
    }

    #[test]
    fn the_value_that_ends_a_page_is_taken() {
        let retained = store(&["a/1", "a/2", "a/3"]);
        let mut seen = Vec::new();
        let cursor = retained.page(&filter("a/+"), None, 100, &mut |_, &Kept(_, n)| {
            seen.push(n);
            n != 1
        });
        let end = retained.page(&filter("a/+"), cursor.as_ref(), 100, &mut |_, &Kept(_, n)| {
            seen.push(n);
            true
        });
        assert_eq!(seen, [0, 1, 2]);
        assert!(end.is_none());
    }

    #[test]
    fn filters_find_topics_in_order() {
        let retained = store(&[
            "$SYS/a", "a", "a!", "a!/b", "a/", "a/b", "a/b/c", "a0/b", "b/b", "/b", "/", "é/b",
        ]);
        for (text, expected) in [
            ("a/#", vec!["a", "a/", "a/b", "a/b/c"]),
            ("+/b", vec!["/b", "a!/b", "a/b", "a0/b", "b/b", "é/b"]),
            ("+/b/#", vec!["/b", "a!/b", "a/b", "a/b/c", "a0/b", "b/b", "é/b"]),
            ("+", vec!["a", "a!"]),
            ("+/+", vec!["/", "/b", "a!/b", "a/", "a/b", "a0/b", "b/b", "é/b"]),
            ("a/b", vec!["a/b"]),
            ("$share/g/a/b", vec!["a/b"]),
            ("a/+/c", vec!["a/b/c"]),
            ("$SYS/#", vec!["$SYS/a"]), // MQTT-4.7.2-1
            ("$SYS/+", vec!["$SYS/a"]),
            ("+/a", vec![]),
            ("c/#", vec![]),
        ] {
            assert_eq!(walk(&retained, text).0, expected, "{text}");
        }
        assert_eq!(walk(&retained, "#").0.len(), 11);
    }

    #[test]
    fn pages_of_all_hold_every_value_once() {
        let retained = store(&["$SYS/a", "/", "a", "a/b", "é"]);
        for visits_max in 1..=6 {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let visit = &mut |kept: &Kept<usize>| seen.push(kept.1);
                cursor = retained.page_of_all(cursor.as_ref(), visits_max, visit);
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen, [0, 1, 2, 3, 4], "{visits_max} at a time");
        }
        assert!(store(&[]).page_of_all(None, 1, &mut |_| panic!("nothing is there")).is_none());
    }

    #[test]
    fn topics_that_cannot_match_are_passed_over() {
        let mut retained = Retained::new(1);
        for house in 0..10 {
            for n in 0..1000 {
                retained.set(kept(&format!("house{house}/lamp/{n}"), ()));
            }
            retained.set(kept(&format!("house{house}/door"), ()));
            retained.set(kept(&format!("$SYS/{house}"), ()));
        }
        for (text, visits_max) in
            [("+/door", 31), ("+/lamp/5", 31), ("house5/door", 2), ("house5/+", 3), ("+", 31)]
        {
            assert!(walk(&retained, text).1 <= visits_max, "{text} {}", walk(&retained, text).1);
        }
    }

    #[test]
    fn deepest_topics_are_set_paged_and_removed() {
        let name = vec!["x"; TOPIC_LEVELS_MAX].join("/");
        let mut retained = store(&[&name, &name[2..]]);
        for text in [
            vec!["+"; TOPIC_LEVELS_MAX].join("/"),
            format!("{}#", "x/".repeat(TOPIC_LEVELS_MAX - 1)),
        ] {
            assert!(walk(&retained, &text).0.contains(&name));
        }
        assert_eq!(retained.remove(topic(&name)), Some(kept(&name, 0)));
        assert_eq!(retained.len(), 1);
    }
}
