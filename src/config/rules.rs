//! Rules in the form `LEFT => RIGHT`: which topics are rewritten, how long retained messages stay.
//!
//! From a rule's text to the rule; where the text stands and what a rule does is not known here.

use crate::topic::{FilterKind, RewriteRule, RewriteScope, TopicFilter};

/// How long retained messages of some topics are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedTtl {
    /// Which topics.
    pub filter: TopicFilter,
    /// Longest time; 0 keeps none.
    pub secs: u32,
}

/// `SCOPE FILTER => TEMPLATE`.
pub(super) fn rewrite_rule(text: &str) -> Result<RewriteRule, String> {
    let (left, template) = sides(text)?;
    let (scope, filter) = left.split_once(' ').unwrap_or((left, ""));
    let scope = match scope {
        "publish" => RewriteScope::Publish,
        "subscribe" => RewriteScope::Subscribe,
        "all" => RewriteScope::All,
        _ => return Err(format!("it starts with {scope:?} instead of publish, subscribe or all")),
    };
    RewriteRule::new(scope, filter.trim(), template).map_err(|error| error.to_string())
}

/// `FILTER => SECONDS`.
pub(super) fn retained_ttl(text: &str) -> Result<RetainedTtl, String> {
    let (filter, secs) = sides(text)?;
    let filter = TopicFilter::parse(filter).map_err(|error| error.to_string())?;
    if filter.kind() != FilterKind::Plain {
        return Err("its filter must not start with a prefix such as $share/".to_owned());
    }
    let is_number = secs.bytes().all(|byte| byte.is_ascii_digit());
    let secs = secs.parse().ok().filter(|_| is_number);
    let secs = secs.ok_or_else(|| format!("its seconds are no whole number up to {}", u32::MAX))?;
    Ok(RetainedTtl { filter, secs })
}

fn sides(text: &str) -> Result<(&str, &str), String> {
    let (left, right) =
        text.split_once(" => ").ok_or("it has no \" => \" with blanks around it")?;
    Ok((left.trim(), right.trim()))
}
