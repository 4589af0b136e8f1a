//! Access rules in the form of mosquitto's `acl_file`, with what each line means there.
//!
//! A client's own section is asked before the patterns, in each of the two what denies before what
//! allows. The section before the first `user` is for clients without a user.

use super::{AclError, AclRule, AclTopic, Actions, NamePattern, Who};
use crate::base::QoS;

/// Reads all lines.
pub(super) fn parse(text: &str) -> Result<Vec<AclRule>, Vec<AclError>> {
    let mut reader = Reader::default();
    let mut errors = Vec::new();
    for (at, line) in text.split('\n').enumerate() {
        reader.line = at as u32 + 1;
        if let Err((column, why)) = reader.read(line) {
            errors.push(AclError { line: at + 1, column: chars_before(line, column) + 1, why });
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut rules = reader.rules;
    rules.sort_by_key(|(turn, _)| *turn);
    Ok(rules.into_iter().map(|(_, rule)| rule).collect())
}

#[derive(Default)]
struct Reader {
    line: u32,
    /// Whose section it is; before the first `user` that of clients without one.
    user: Option<Box<str>>,
    rules: Vec<(Turn, AclRule)>,
}

/// When a rule is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    OwnDenial,
    Own,
    PatternDenial,
    Pattern,
}

/// Where in the line, in bytes, and what is wrong there.
type Wrong = (usize, String);

impl Reader {
    fn read(&mut self, line: &str) -> Result<(), Wrong> {
        if let Some(at) = line.find('\0') {
            return Err((at, "the line holds U+0000".to_owned()));
        }
        let line = line.trim_end_matches(is_blank);
        if line.starts_with('#') {
            return Ok(());
        }
        let Some((at, word, rest)) = next_word(line, 0) else { return Ok(()) };
        match word {
            "user" => {
                let name = rest.trim_matches(is_blank);
                if name.is_empty() {
                    return Err((at, "a user name is missing behind \"user\"".to_owned()));
                }
                self.user = Some(name.into());
                Ok(())
            }
            "topic" | "pattern" => self.rule(line, at + word.len(), word == "pattern"),
            _ => {
                Err((at, format!("{:?} is none of user, topic, pattern or a # comment", cut(word))))
            }
        }
    }

    /// `[ACCESS] TOPIC`: a single word is the topic.
    fn rule(&mut self, line: &str, from: usize, is_pattern: bool) -> Result<(), Wrong> {
        let Some((at, first, rest)) = next_word(line, from) else {
            return Err((from, "a topic is missing".to_owned()));
        };
        let (access, topic, topic_at) = match rest.trim_matches(is_blank) {
            "" => (None, first, at),
            topic => (Some(first), topic, line.len() - rest.trim_start_matches(is_blank).len()),
        };
        let (allows, actions) = match access {
            Some("read") => (true, Actions::RECEIVE),
            Some("write") => (true, Actions::PUBLISH),
            Some("readwrite") | None => (true, Actions::PUBLISH.and(Actions::RECEIVE)),
            Some("deny") => (false, Actions::PUBLISH.and(Actions::RECEIVE)),
            Some(other) => {
                let why = format!("{:?} is none of read, write, readwrite and deny", cut(other));
                return Err((at, why));
            }
        };
        let topic = AclTopic::parse(topic, is_pattern).map_err(|why| (topic_at, why.to_owned()))?;
        let who = match (&self.user, is_pattern) {
            (_, true) => Who { has_plain_names: true, ..Who::default() },
            (Some(user), false) => {
                Who { users: vec![NamePattern::Exact(user.clone())], ..Who::default() }
            }
            (None, false) => Who { is_anonymous: true, ..Who::default() },
        };
        let turn = match (is_pattern, allows) {
            (false, false) => Turn::OwnDenial,
            (false, true) => Turn::Own,
            (true, false) => Turn::PatternDenial,
            (true, true) => Turn::Pattern,
        };
        let (line, topics) = (self.line, vec![topic]);
        let qos_max = QoS::ExactlyOnce;
        let rule = AclRule { line, allows, actions, who, topics, qos_max, retain: true };
        self.rules.push((turn, rule));
        Ok(())
    }
}

/// The next word of a line from there on, words being apart by spaces: where it is, and what follows it.
fn next_word(line: &str, from: usize) -> Option<(usize, &str, &str)> {
    let rest = line.get(from..)?;
    let word = rest.trim_start_matches(' ');
    let at = line.len() - word.len();
    let end = word.find(' ').unwrap_or(word.len());
    (end > 0).then(|| (at, &word[..end], &word[end..]))
}

/// What C calls white space.
fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

fn chars_before(line: &str, at: usize) -> usize {
    line.get(..at).map_or(0, |before| before.chars().count())
}

/// A word shortened for a message.
fn cut(word: &str) -> String {
    word.chars().take(WORD_CHARS_SHOWN).collect()
}

const WORD_CHARS_SHOWN: usize = 40;
