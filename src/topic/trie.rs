//! The trie of wildcard filters, one node a level. Nodes lie in a slab and are
//! found by (parent, level text) in one hash table, so that a node with a
//! million children costs as much to pass as one with two. Knows no
//! subscriber: a filter is the number of an index entry.

use ahash::RandomState;

use super::{
    TopicName,
    level::Level,
    slab::{NIL, Slab},
    table::IdTable,
};

/// Wildcard patterns and the index entry of each.
pub(super) struct Trie {
    nodes: Slab<Node>,
    /// Nodes by parent and level, those excepted that their parent has itself.
    children: IdTable,
}

struct Node {
    /// Empty for `+`.
    level: Level,
    parent: u32,
    /// How many children it has, that for `+` not counted.
    literals: u32,
    /// One of them, or [`NIL`]: mostly there is no other, and it is found without the table, which is
    /// three misses of the cache in a large one.
    first: u32,
    /// The child for `+`, or [`NIL`].
    plus: u32,
    /// Entry of the pattern that ends here, or [`NIL`].
    here: u32,
    /// Entry of the pattern that ends in `#` below here, or [`NIL`].
    below: u32,
}

/// There is one for each level of a million filters; free slots add nothing.
const _: () = assert!(size_of::<super::slab::Slot<Node>>() == 40);

/// Buffers of a walk, kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Entries of all filters that match.
    pub(super) hits: Vec<u32>,
    /// Nodes that match the topic up to the level in hand.
    nodes: Vec<u32>,
    /// Nodes that match up to the level behind it.
    next: Vec<u32>,
}

impl Trie {
    pub(super) fn new() -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::new("", NIL));
        debug_assert_eq!(root, ROOT);
        Self { nodes, children: IdTable::new() }
    }

    /// Whether it holds no pattern.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() == 1 && self.nodes[ROOT].is_unused()
    }

    /// Adds a pattern that is not there yet.
    pub(super) fn insert(&mut self, pattern: &str, entry: u32, hasher: &RandomState) {
        let mut at = ROOT;
        for level in pattern.split('/') {
            at = match level {
                "#" => {
                    self.nodes[at].below = entry;
                    return;
                }
                "+" => self.plus_or_insert(at),
                _ => self.child_or_insert(at, level, hasher),
            };
        }
        self.nodes[at].here = entry;
    }

    /// Takes a pattern out that was added, and every node that only it needed.
    pub(super) fn remove(&mut self, pattern: &str, hasher: &RandomState) {
        let mut at = ROOT;
        for level in pattern.split('/') {
            at = match level {
                "#" => {
                    self.nodes[at].below = NIL;
                    return self.prune(at, hasher);
                }
                "+" => self.nodes[at].plus,
                _ => {
                    let child = self.child(at, level, hasher.hash_one(level));
                    child.expect("a pattern that was added has its nodes")
                }
            };
        }
        self.nodes[at].here = NIL;
        self.prune(at, hasher);
    }

    /// Adds the entries of all patterns that match `topic` to `walk.hits`:
    /// level by level, each node at most once.
    pub(super) fn walk(&self, topic: TopicName<'_>, walk: &mut Walk, hasher: &RandomState) {
        let Walk { hits, nodes, next } = walk;
        nodes.clear();
        nodes.push(ROOT);
        // MQTT-4.7.2-1: a leading wildcard passes by topics that start with `$`.
        let mut wildcards = !topic.is_system();
        for level in topic.levels() {
            let hash = hasher.hash_one(level);
            next.clear();
            for &id in &*nodes {
                let node = &self.nodes[id];
                if wildcards {
                    hits.extend(Some(node.below).filter(|&entry| entry != NIL));
                    next.extend(Some(node.plus).filter(|&child| child != NIL));
                }
                if node.literals > 0 {
                    next.extend(self.child(id, level, hash));
                }
            }
            wildcards = true;
            std::mem::swap(nodes, next);
            if nodes.is_empty() {
                return;
            }
        }
        for &id in &*nodes {
            let node = &self.nodes[id];
            // `#` also stands for the level that it follows (section 4.7.1.2).
            hits.extend([node.here, node.below].into_iter().filter(|&entry| entry != NIL));
        }
    }

    fn child(&self, parent: u32, level: &str, level_hash: u64) -> Option<u32> {
        let Node { first, literals, .. } = self.nodes[parent];
        if first != NIL && self.nodes[first].level.is(level) {
            return Some(first);
        }
        if literals <= u32::from(first != NIL) {
            return None;
        }
        self.children.find(child_hash(parent, level_hash), |id| {
            let node = &self.nodes[id];
            node.parent == parent && node.level.is(level)
        })
    }

    fn child_or_insert(&mut self, parent: u32, level: &str, hasher: &RandomState) -> u32 {
        let hash = hasher.hash_one(level);
        self.child(parent, level, hash).unwrap_or_else(|| {
            let id = self.nodes.insert(Node::new(level, parent));
            let node = &mut self.nodes[parent];
            node.literals += 1;
            match node.first {
                NIL => node.first = id,
                _ => self.children.insert(child_hash(parent, hash), id),
            }
            id
        })
    }

    fn plus_or_insert(&mut self, parent: u32) -> u32 {
        if self.nodes[parent].plus == NIL {
            let id = self.nodes.insert(Node::new("", parent));
            self.nodes[parent].plus = id;
        }
        self.nodes[parent].plus
    }

    /// Frees a node and its ancestors as far as they are of no use.
    fn prune(&mut self, mut at: u32, hasher: &RandomState) {
        while at != ROOT && self.nodes[at].is_unused() {
            let Node { level, parent, .. } = self.nodes.remove(at);
            let node = &mut self.nodes[parent];
            if node.plus == at {
                node.plus = NIL;
            } else {
                node.literals -= 1;
                if node.first == at {
                    node.first = NIL;
                } else {
                    let hash = hasher.hash_one(level.as_str());
                    self.children.remove(child_hash(parent, hash), at);
                }
            }
            at = parent;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

impl Node {
    fn new(level: &str, parent: u32) -> Self {
        Self {
            level: level.into(),
            parent,
            literals: 0,
            first: NIL,
            plus: NIL,
            here: NIL,
            below: NIL,
        }
    }

    const fn is_unused(&self) -> bool {
        self.literals == 0 && self.plus == NIL && self.here == NIL && self.below == NIL
    }
}

/// The hash of a child from that of its level's text, which is computed once
/// for all nodes that a walk meets at one level.
const fn child_hash(parent: u32, level_hash: u64) -> u64 {
    let mixed = level_hash ^ (parent as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^ (mixed >> 32)
}

/// The node above the first level.
const ROOT: u32 = 0;
