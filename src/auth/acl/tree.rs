//! Topic filters of rules as a tree of levels: which rules a topic, or a whole filter, lies within. What a
//! rule says, and to whom, is not known here.

use std::collections::HashMap;

use ahash::RandomState;
use smallvec::SmallVec;

use super::Names;
use crate::config::{AclLevel, Part};

/// The filters of all rules. Each of its roots is a tree of its own.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Numbers of all texts that are a level of some filter.
    words: HashMap<Box<str>, u32, RandomState>,
    /// By the node above and the word.
    children: HashMap<(u32, u32), u32, RandomState>,
}

#[derive(Debug)]
struct Node {
    /// The level `+` below.
    any: u32,
    /// Levels below with names of the client in them.
    own: Vec<(Box<[Part]>, u32)>,
    /// Rules whose filter ends here, in their order.
    here: SmallVec<[u32; 2]>,
    /// Rules with `#` below, in their order.
    below: SmallVec<[u32; 2]>,
}

/// A level of what is looked up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word<'a> {
    /// Text, and its number if a filter has it.
    Name(&'a str, u32),
    /// `+`, in a filter.
    Any,
    /// `#`, in a filter.
    AllBelow,
}

/// A topic or a filter, level by level.
pub(super) type Words<'a> = SmallVec<[Word<'a>; 16]>;

impl Tree {
    pub(super) fn new() -> Self {
        // Only the operator's texts are in it, so nobody can choose them to collide.
        let hasher = || RandomState::with_seeds(1, 2, 3, 4);
        Self {
            nodes: Vec::new(),
            words: HashMap::with_hasher(hasher()),
            children: HashMap::with_hasher(hasher()),
        }
    }

    /// An empty tree.
    pub(super) fn add_root(&mut self) -> u32 {
        let node =
            Node { any: NONE, own: Vec::new(), here: SmallVec::new(), below: SmallVec::new() };
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    /// Adds a filter of a rule that comes behind all that were added before.
    pub(super) fn insert(&mut self, root: u32, levels: &[AclLevel], rule: u32) {
        let mut at = root;
        for level in levels {
            at = match level {
                AclLevel::AllBelow => return self.nodes[at as usize].below.push(rule),
                AclLevel::Name(name) => self.child(at, name),
                AclLevel::Any => {
                    if self.nodes[at as usize].any == NONE {
                        self.nodes[at as usize].any = self.add_root();
                    }
                    self.nodes[at as usize].any
                }
                AclLevel::Own(parts) => {
                    let known = self.nodes[at as usize].own.iter().find(|(own, _)| own == parts);
                    match known {
                        Some((_, node)) => *node,
                        None => {
                            let node = self.add_root();
                            self.nodes[at as usize].own.push((parts.clone(), node));
                            node
                        }
                    }
                }
            };
        }
        self.nodes[at as usize].here.push(rule);
    }

    fn child(&mut self, at: u32, name: &str) -> u32 {
        let word = match self.words.get(name) {
            Some(word) => *word,
            None => {
                let word = self.words.len() as u32;
                self.words.insert(name.into(), word);
                word
            }
        };
        match self.children.get(&(at, word)) {
            Some(node) => *node,
            None => {
                let node = self.add_root();
                self.children.insert((at, word), node);
                node
            }
        }
    }

    /// The levels of a topic, or of a filter.
    pub(super) fn words<'a>(&self, text: &'a str) -> Words<'a> {
        let word = |level: &'a str| match level {
            "+" => Word::Any,
            "#" => Word::AllBelow,
            name => Word::Name(name, self.words.get(name).copied().unwrap_or(NONE)),
        };
        text.split('/').map(word).collect()
    }

    /// Calls `found` with the rules of each filter that all of `words` lies within. Wildcards do not reach
    /// what starts with `$` (MQTT-4.7.2-1).
    pub(super) fn within(
        &self,
        root: u32,
        words: &[Word<'_>],
        names: &Names<'_>,
        mut found: impl FnMut(&[u32]),
    ) {
        let is_system = starts_with_dollar(words);
        let mut open: SmallVec<[(u32, usize); 16]> = SmallVec::new();
        open.push((root, 0));
        while let Some((at, depth)) = open.pop() {
            let node = &self.nodes[at as usize];
            let wildcards_reach = depth > 0 || !is_system;
            if wildcards_reach && !node.below.is_empty() {
                found(&node.below);
            }
            let Some(word) = words.get(depth) else {
                if !node.here.is_empty() {
                    found(&node.here);
                }
                continue;
            };
            if matches!(word, Word::AllBelow) {
                continue;
            }
            if wildcards_reach && node.any != NONE {
                open.push((node.any, depth + 1));
            }
            let Word::Name(text, number) = word else { continue };
            if *number != NONE
                && let Some(child) = self.children.get(&(at, *number))
            {
                open.push((*child, depth + 1));
            }
            for (parts, child) in &node.own {
                // Nor does a name that starts so.
                let reaches = wildcards_reach || matches!(parts.first(), Some(Part::Text(_)));
                if reaches && names.make(parts, text) == Some(true) {
                    open.push((*child, depth + 1));
                }
            }
        }
    }
}

/// Whether a filter of a rule and what is looked up have topics in common, as far as can be told: a name that
/// cannot stand in a level may stand for anything from there on.
pub(super) fn may_meet(levels: &[AclLevel], words: &[Word<'_>], names: &Names<'_>) -> bool {
    let starts_open = match levels.first() {
        Some(AclLevel::Any | AclLevel::AllBelow) => true,
        Some(AclLevel::Own(parts)) => !matches!(parts.first(), Some(Part::Text(_))),
        _ => false,
    };
    let is_wild = matches!(words.first(), Some(Word::Any | Word::AllBelow));
    let starts_system =
        matches!(levels.first(), Some(AclLevel::Name(name)) if name.starts_with('$'));
    if starts_with_dollar(words) && starts_open || is_wild && starts_system {
        return false;
    }
    let lacks_name = |level: &AclLevel| matches!(level, AclLevel::Own(parts) if names.can_make(parts) == Some(false));
    if levels.iter().any(lacks_name) {
        return false;
    }
    let mut words = words.iter();
    for level in levels {
        match (level, words.next()) {
            (AclLevel::AllBelow, _) | (_, Some(Word::AllBelow)) => return true,
            (_, None) => return false,
            (AclLevel::Any, _) => {}
            (AclLevel::Name(name), Some(Word::Name(text, _))) if **name != **text => return false,
            (AclLevel::Name(_), _) => {}
            (AclLevel::Own(parts), Some(Word::Name(text, _))) => match names.make(parts, text) {
                None => return true,
                Some(false) => return false,
                Some(true) => {}
            },
            (AclLevel::Own(parts), _) if names.can_make(parts).is_none() => return true,
            (AclLevel::Own(_), _) => {}
        }
    }
    matches!(words.next(), None | Some(Word::AllBelow))
}

fn starts_with_dollar(words: &[Word<'_>]) -> bool {
    matches!(words.first(), Some(Word::Name(text, _)) if text.starts_with('$'))
}

const NONE: u32 = u32::MAX;
