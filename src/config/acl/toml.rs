//! Access rules as `[[rule]]` tables of a TOML file.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{AclError, AclRule, AclTopic, Actions, NamePattern, Who};
use crate::{
    base::QoS,
    config::{address_range::AddressRange, problem::nearest},
};

/// Reads all rules.
pub(super) fn parse(text: &str) -> Result<Vec<AclRule>, Vec<AclError>> {
    let line_starts = text.match_indices('\n').map(|(at, _)| at + 1);
    let line_starts = std::iter::once(0).chain(line_starts).collect();
    let mut reader = Reader { text, line_starts, errors: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        reader.report(span, format!("not valid TOML: {}", error.message()));
    }
    let mut rules = Vec::new();
    // What was recovered from a broken line would only add noise.
    if reader.errors.is_empty() {
        for (name, value) in table.get_ref().iter() {
            match (&**name.get_ref(), value.get_ref().as_array()) {
                ("rule", Some(tables)) => {
                    rules.extend(tables.iter().filter_map(|one| reader.rule(one)));
                }
                _ => {
                    let why = "only [[rule]] tables are known here".to_owned();
                    reader.report(name.span(), why);
                }
            }
        }
    }
    reader.errors.sort_by_key(|error| (error.line, error.column));
    if reader.errors.is_empty() { Ok(rules) } else { Err(reader.errors) }
}

struct Reader<'a> {
    text: &'a str,
    /// Where each line begins.
    line_starts: Vec<usize>,
    errors: Vec<AclError>,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    /// One rule; `None` if something is wrong with it, which is reported.
    fn rule(&mut self, value: &Value<'_>) -> Option<AclRule> {
        let errors_before = self.errors.len();
        let Some(table) = value.get_ref().as_table() else {
            self.report(value.span(), "a rule is a table: [[rule]]".to_owned());
            return None;
        };
        let line = self.position(value.span()).0 as u32;
        let mut rule = AclRule {
            line,
            allows: true,
            actions: Actions::NONE,
            who: Who::default(),
            topics: Vec::new(),
            qos_max: QoS::ExactlyOnce,
            retain: true,
        };
        for (name, value) in table.iter() {
            if let Err(why) = self.field(&mut rule, name.get_ref(), value) {
                let span =
                    if KEYS.contains(&&**name.get_ref()) { value.span() } else { name.span() };
                self.report(span, why);
            }
        }
        self.check(&rule, table, value.span());
        (self.errors.len() == errors_before).then_some(rule)
    }

    fn field(&mut self, rule: &mut AclRule, name: &str, value: &Value<'_>) -> Result<(), String> {
        match name {
            "allow" | "deny" => {
                rule.allows = name == "allow";
                for text in self.texts(name, value)? {
                    rule.actions = rule.actions.and(action(text)?);
                }
            }
            "topics" => {
                for text in self.texts(name, value)? {
                    rule.topics.push(AclTopic::parse(text, true)?);
                }
            }
            "user" => rule.who.users = names(&self.texts(name, value)?),
            "client" => rule.who.clients = names(&self.texts(name, value)?),
            "group" => {
                rule.who.groups = self.texts(name, value)?.into_iter().map(Into::into).collect();
            }
            "address" => {
                for text in self.texts(name, value)? {
                    let range = AddressRange::parse(text);
                    let why = || format!("{text:?} is neither an address nor ADDRESS/BITS");
                    rule.who.addresses.push(range.ok_or_else(why)?);
                }
            }
            "anonymous" => match value.get_ref() {
                DeValue::Boolean(true) => rule.who.is_anonymous = true,
                _ => return Err("anonymous must be true, or left out".to_owned()),
            },
            "retain" => match value.get_ref() {
                DeValue::Boolean(retain) => rule.retain = *retain,
                _ => return Err("retain must be true or false".to_owned()),
            },
            "qos_max" => {
                let bits = match value.get_ref() {
                    DeValue::Integer(number) => u8::from_str_radix(number.as_str(), number.radix()),
                    _ => Ok(u8::MAX),
                };
                let qos = bits.ok().and_then(QoS::from_bits);
                rule.qos_max = qos.ok_or_else(|| "qos_max must be 0, 1 or 2".to_owned())?;
            }
            other => {
                let meant = nearest(other, KEYS, str::to_owned);
                let hint = meant.map_or_else(
                    || format!("known are {}", KEYS.join(", ")),
                    |key| format!("did you mean {key:?}?"),
                );
                return Err(format!("unknown key {other:?}; {hint}"));
            }
        }
        Ok(())
    }

    /// What several keys mean together.
    fn check(&mut self, rule: &AclRule, table: &DeTable<'_>, span: Range<usize>) {
        let has = |name: &str| table.iter().any(|(key, _)| key.get_ref() == name);
        let mut wrong = |why: &str| self.report(span.clone(), why.to_owned());
        match (has("allow"), has("deny")) {
            (false, false) => wrong("the rule has neither allow nor deny"),
            (true, true) => wrong("the rule has both allow and deny"),
            _ => {}
        }
        if !has("topics") {
            wrong("the rule has no topics; topics = \"#\" are all that do not start with $");
        }
        if rule.who.is_anonymous && (has("user") || has("group")) {
            wrong("a client that is anonymous has neither user nor group");
        }
        if !rule.allows && (has("qos_max") || has("retain")) {
            wrong("qos_max and retain limit what is allowed: a rule that denies has neither");
        }
    }

    /// A text, or a list of texts that is not empty.
    fn texts<'v>(&self, name: &str, value: &'v Value<'_>) -> Result<Vec<&'v str>, String> {
        let single = std::slice::from_ref(value);
        let elements = value.get_ref().as_array().map_or(single, |all| all);
        let texts: Option<Vec<_>> = elements.iter().map(|one| one.get_ref().as_str()).collect();
        let texts = texts.filter(|texts| !texts.is_empty());
        texts.ok_or_else(|| format!("{name} must be a text or a list of texts, and not empty"))
    }

    fn report(&mut self, span: Range<usize>, why: String) {
        let (line, column) = self.position(span);
        self.errors.push(AclError { line, column, why });
    }

    /// Line and column, both from 1 on.
    fn position(&self, span: Range<usize>) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= span.start).max(1);
        let before = self.text.get(self.line_starts[line - 1]..span.start).unwrap_or_default();
        (line, 1 + before.chars().count())
    }
}

/// What may be done to a topic. Who may not subscribe is not to get what an earlier subscription
/// brings either, and who may, gets it.
fn action(text: &str) -> Result<Actions, String> {
    match text {
        "publish" => Ok(Actions::PUBLISH),
        "subscribe" => Ok(Actions::SUBSCRIBE.and(Actions::RECEIVE)),
        "receive" => Ok(Actions::RECEIVE),
        "all" => Ok(Actions::PUBLISH.and(Actions::SUBSCRIBE).and(Actions::RECEIVE)),
        other => Err(format!("{other:?} is none of publish, subscribe, receive and all")),
    }
}

fn names(texts: &[&str]) -> Vec<NamePattern> {
    texts.iter().map(|text| NamePattern::parse(text)).collect()
}

const KEYS: [&str; 10] = [
    "allow",
    "deny",
    "topics",
    "user",
    "client",
    "group",
    "address",
    "anonymous",
    "qos_max",
    "retain",
];
