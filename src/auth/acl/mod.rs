//! What access rules answer: who may publish, subscribe and receive what. A plain value that all shards
//! read.
//!
//! Rules are asked in order and the first that fits decides; which of thousands fit, an index says: trees of
//! their topic filters, one for each user or client that rules name and one for everybody. What becomes of a
//! packet that is denied is the broker's business.

mod tree;
mod verdicts;

use std::{collections::HashMap, fmt, net::IpAddr};

use ahash::RandomState;

pub use verdicts::{Question, Verdicts};

use self::tree::{Tree, Words, may_meet};
use super::Identity;
use crate::{
    base::{QoS, limits::ACL_DENIALS_COMPARED},
    config::{AclForm, AclRule, AclRules, Actions, NamePattern, Part, Who},
    topic::TopicName,
};

/// Rules that can be asked.
#[derive(Debug)]
pub struct Acl {
    rules: AclRules,
    tree: Tree,
    /// Rules for single users, and for single clients.
    users: Scopes,
    clients: Scopes,
    /// All other rules.
    everybody: Scope,
    /// Rules that deny, with names in their topics: they are looked at one by one for a client whose names
    /// cannot stand in a topic.
    own_denials: Vec<u32>,
}

type Scopes = HashMap<Box<str>, Scope, RandomState>;

/// The rules for some clients.
#[derive(Debug)]
struct Scope {
    root: u32,
    /// Those that deny, in their order.
    denials: Vec<u32>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its Client Identifier.
    pub client: &'a str,
    /// Who it has proven to be.
    pub identity: &'a Identity,
}

/// What rules answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether it may be.
    pub allowed: bool,
    /// Why.
    pub by: Grounds,
    /// Highest QoS that a subscription is granted.
    pub qos_max: QoS,
}

/// Why rules answer so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grounds {
    /// The rule at this position of [`AclRules::rules`].
    Rule(usize),
    /// No rule fits.
    Default,
    /// No rule fits, and what starts with `$` needs one to be published to.
    Dollar,
    /// The form of the file leaves no choice.
    Form,
}

impl Acl {
    /// Makes the index of some rules.
    pub fn new(rules: AclRules) -> Self {
        let hasher = || RandomState::with_seeds(1, 2, 3, 4);
        let mut tree = Tree::new();
        let everybody = Scope { root: tree.add_root(), denials: Vec::new() };
        let (users, clients) = (Scopes::with_hasher(hasher()), Scopes::with_hasher(hasher()));
        let mut acl = Self { rules, tree, users, clients, everybody, own_denials: Vec::new() };
        for at in 0..acl.rules.rules.len() {
            acl.index(at);
        }
        acl
    }

    /// The rules it is made of.
    pub const fn rules(&self) -> &AclRules {
        &self.rules
    }

    /// Whether a client may publish so, by PUBLISH or with a will.
    pub fn publish(
        &self,
        subject: Subject<'_>,
        topic: TopicName<'_>,
        qos: QoS,
        retain: bool,
    ) -> Decision {
        let text = topic.as_str();
        if self.rules.form == AclForm::Mosquitto && is_closed_for_writing(topic) {
            return Decision::denied(Grounds::Form);
        }
        let fits = |rule: &AclRule| {
            rule.actions.has(Actions::PUBLISH)
                && (!rule.allows || qos <= rule.qos_max && (rule.retain || !retain))
        };
        match self.first(subject, text, fits) {
            None if topic.is_system() => Decision::denied(Grounds::Dollar),
            found => self.decision(found),
        }
    }

    /// Whether a client may be sent a message with this topic.
    pub fn receive(&self, subject: Subject<'_>, topic: TopicName<'_>) -> Decision {
        let fits = |rule: &AclRule| rule.actions.has(Actions::RECEIVE);
        self.decision(self.first(subject, topic.as_str(), fits))
    }

    /// Whether a client may subscribe to this filter, which is without a prefix such as `$share/NAME/`: a rule
    /// fits if all that the filter can match lies within one of its own.
    pub fn subscribe(&self, subject: Subject<'_>, pattern: &str) -> Decision {
        if self.rules.form == AclForm::Mosquitto {
            return Decision { allowed: true, by: Grounds::Form, qos_max: QoS::ExactlyOnce };
        }
        let fits = |rule: &AclRule| rule.actions.has(Actions::SUBSCRIBE);
        self.decision(self.first(subject, pattern, fits))
    }

    /// Whether everything that such a subscription brings may be received: no message needs a decision of its
    /// own. When in doubt it is not.
    pub fn is_open(&self, subject: Subject<'_>, pattern: &str) -> bool {
        let allows = |rule: &AclRule| rule.allows && rule.actions.has(Actions::RECEIVE);
        let until = match self.first(subject, pattern, allows) {
            Some(rule) => rule,
            None if self.rules.allows_rest => usize::MAX,
            None => return false,
        };
        let words = self.tree.words(pattern);
        let names = Names::of(subject);
        self.scopes(subject).all(|scope| {
            let before = scope.denials.iter().take_while(|at| (**at as usize) < until);
            let mut compared = before.take(ACL_DENIALS_COMPARED + 1).enumerate();
            compared.all(|(count, at)| {
                let rule = self.rule(*at);
                let meets = || rule.topics.iter().any(|one| may_meet(&one.levels, &words, &names));
                let is_met =
                    rule.actions.has(Actions::RECEIVE) && holds(&rule.who, subject) && meets();
                count < ACL_DENIALS_COMPARED && !is_met
            })
        })
    }

    /// A decision in words.
    pub fn explain(&self, decision: Decision) -> String {
        match decision.by {
            Grounds::Rule(at) => {
                let file = self.rules.file.display();
                let rule = &self.rules.rules[at];
                let whose = Whose(&rule.who);
                format!("{file}:{}: {rule}{whose}", rule.line)
            }
            Grounds::Default if decision.allowed => {
                "no rule fits, and acl_default allows".to_owned()
            }
            Grounds::Default => "no rule fits".to_owned(),
            Grounds::Dollar => "no rule opens this topic, which starts with $".to_owned(),
            Grounds::Form if decision.allowed => {
                "mosquitto's form restricts what is received, not what is subscribed to".to_owned()
            }
            Grounds::Form => "mosquitto's form has this topic closed".to_owned(),
        }
    }

    fn index(&mut self, at: usize) {
        let rule = &self.rules.rules[at];
        let is_exact = |name: &NamePattern| matches!(name, NamePattern::Exact(_));
        let (users, clients) = (&rule.who.users, &rule.who.clients);
        let (scopes, names) = match (users.is_empty(), clients.is_empty()) {
            (false, _) if users.iter().all(is_exact) => (Some(&mut self.users), users),
            (_, false) if clients.iter().all(is_exact) => (Some(&mut self.clients), clients),
            _ => (None, users),
        };
        let number = at as u32;
        let add = |tree: &mut Tree, scope: &mut Scope| {
            if !rule.allows {
                scope.denials.push(number);
            }
            for topic in &rule.topics {
                tree.insert(scope.root, &topic.levels, number);
            }
        };
        match scopes {
            None => add(&mut self.tree, &mut self.everybody),
            Some(scopes) => {
                for name in names {
                    let (NamePattern::Exact(name) | NamePattern::Prefix(name)) = name;
                    if !scopes.contains_key(name) {
                        let scope = Scope { root: self.tree.add_root(), denials: Vec::new() };
                        scopes.insert(name.clone(), scope);
                    }
                    if let Some(scope) = scopes.get_mut(name) {
                        add(&mut self.tree, scope);
                    }
                }
            }
        }
        if !rule.allows && rule.topics.iter().any(|topic| topic.is_own()) {
            self.own_denials.push(number);
        }
    }

    /// The first rule that fits and that this topic or filter lies within.
    fn first(
        &self,
        subject: Subject<'_>,
        text: &str,
        fits: impl Fn(&AclRule) -> bool,
    ) -> Option<usize> {
        let words: Words<'_> = self.tree.words(text);
        let names = Names::of(subject);
        let is_it = |rule: &AclRule| fits(rule) && holds(&rule.who, subject);
        let mut best = u32::MAX;
        for scope in self.scopes(subject) {
            self.tree.within(scope.root, &words, &names, |rules| {
                let earlier = rules.iter().take_while(|at| **at < best);
                if let Some(at) = earlier.copied().find(|at| is_it(self.rule(*at))) {
                    best = at;
                }
            });
        }
        if names.has_odd() {
            let meets = |rule: &AclRule| {
                rule.topics.iter().any(|topic| may_meet(&topic.levels, &words, &names))
            };
            let earlier = self.own_denials.iter().take_while(|at| **at < best);
            let found = earlier.copied().find(|at| is_it(self.rule(*at)) && meets(self.rule(*at)));
            best = found.unwrap_or(best);
        }
        (best != u32::MAX).then_some(best as usize)
    }

    fn scopes(&self, subject: Subject<'_>) -> impl Iterator<Item = &Scope> {
        let user = subject.identity.user.as_deref().and_then(|user| self.users.get(user));
        let client = self.clients.get(subject.client);
        user.into_iter().chain(client).chain([&self.everybody])
    }

    fn rule(&self, at: u32) -> &AclRule {
        &self.rules.rules[at as usize]
    }

    fn decision(&self, found: Option<usize>) -> Decision {
        match found {
            Some(at) => {
                let rule = &self.rules.rules[at];
                let (allowed, qos_max) = (rule.allows, rule.qos_max);
                Decision { allowed, by: Grounds::Rule(at), qos_max }
            }
            None => {
                let allowed = self.rules.allows_rest;
                Decision { allowed, by: Grounds::Default, qos_max: QoS::ExactlyOnce }
            }
        }
    }
}

impl Decision {
    const fn denied(by: Grounds) -> Self {
        Self { allowed: false, by, qos_max: QoS::ExactlyOnce }
    }
}

/// Names of a client that stand in rules' topics. One that holds `/` or a wildcard stands nowhere: it would
/// reach what belongs to others.
#[derive(Clone, Copy, Debug)]
struct Names<'a> {
    client: Result<&'a str, Odd>,
    /// `None`: it has proven no name.
    user: Option<Result<&'a str, Odd>>,
}

/// A name that cannot be a topic level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Odd;

impl<'a> Names<'a> {
    fn of(subject: Subject<'a>) -> Self {
        let name = |name: &'a str| if name.contains(['/', '+', '#']) { Err(Odd) } else { Ok(name) };
        let user = subject.identity.user.as_deref().map(name);
        Self { client: name(subject.client), user }
    }

    fn has_odd(&self) -> bool {
        self.client.is_err() || self.user == Some(Err(Odd))
    }

    /// Whether a level is made of these parts; `None` if a name among them cannot be in one.
    fn make(&self, parts: &[Part], level: &str) -> Option<bool> {
        let mut rest = level;
        for part in parts {
            let text = match part {
                Part::Text(text) => &**text,
                Part::Client => self.client.ok()?,
                Part::User => match self.user {
                    None => return Some(false),
                    Some(user) => user.ok()?,
                },
            };
            match rest.strip_prefix(text) {
                Some(behind) => rest = behind,
                None => return Some(false),
            }
        }
        Some(rest.is_empty())
    }

    /// Whether these parts make a level at all.
    fn can_make(&self, parts: &[Part]) -> Option<bool> {
        let has = |wanted: &Part| parts.contains(wanted);
        if has(&Part::User) && self.user.is_none() {
            return Some(false);
        }
        let is_odd = has(&Part::Client) && self.client.is_err()
            || has(&Part::User) && self.user == Some(Err(Odd));
        if is_odd { None } else { Some(true) }
    }
}

/// Whether all conditions of a rule hold.
fn holds(who: &Who, subject: Subject<'_>) -> bool {
    let Who { users, clients, groups, addresses, is_anonymous, has_plain_names } = who;
    let identity = subject.identity;
    let user = identity.user.as_deref();
    let is_odd = |name: &str| name.contains(['+', '#']);
    (users.is_empty() || user.is_some_and(|user| users.iter().any(|one| one.fits(user))))
        && (clients.is_empty() || clients.iter().any(|one| one.fits(subject.client)))
        && (groups.is_empty() || groups.iter().any(|group| identity.groups.contains(group)))
        && (addresses.is_empty() || is_from(addresses, identity.address))
        && !(*is_anonymous && user.is_some())
        && !(*has_plain_names && (is_odd(subject.client) || user.is_some_and(is_odd)))
}

fn is_from(ranges: &[crate::config::AddressRange], address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| ranges.iter().any(|range| range.holds(address)))
}

/// Topics that mosquitto takes nothing for, whatever its rules say: all of `$SYS` but the state of a bridge.
fn is_closed_for_writing(topic: TopicName<'_>) -> bool {
    let text = topic.as_str();
    let is_bridge_state = || {
        let mut rest = text.strip_prefix("$SYS/broker/connection/").unwrap_or_default().split('/');
        rest.next().is_some() && rest.next() == Some("state") && rest.next().is_none()
    };
    text.starts_with("$SYS") && !is_bridge_state() || text.starts_with("$share")
}

/// Conditions of a rule in words.
struct Whose<'a>(&'a Who);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Who { users, clients, groups, addresses, is_anonymous, .. } = self.0;
        let mut words = Vec::new();
        if !users.is_empty() {
            words.push("user");
        }
        if !clients.is_empty() {
            words.push("client");
        }
        if !groups.is_empty() {
            words.push("group");
        }
        if !addresses.is_empty() {
            words.push("address");
        }
        if *is_anonymous {
            words.push("anonymous");
        }
        if words.is_empty() { Ok(()) } else { write!(f, " (by {})", words.join(", ")) }
    }
}

#[cfg(test)]
mod tests;
