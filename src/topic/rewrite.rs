//! Rewrite rules: what a client's topic or filter is to be read as.
//!
//! Pure: rules, a text and the client's names in, another text out. Knows no packets and no
//! configuration; whether the result is a Topic Name or Topic Filter is for the caller to check.

use smallvec::SmallVec;

use super::{FilterError, FilterKind, TopicError, TopicFilter, TopicName};
use crate::base::limits::{REWRITE_WILDCARDS_MAX, STRING_BYTES_MAX};

/// One rule: texts that match a filter become what a template makes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteRule {
    scope: RewriteScope,
    filter: TopicFilter,
    template: Box<[Piece]>,
}

/// What a rule is for, or what a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteScope {
    /// Topic Names of PUBLISH and of wills.
    Publish,
    /// Topic Filters of SUBSCRIBE and UNSUBSCRIBE.
    Subscribe,
    /// Both; for rules only.
    All,
}

/// What a template may know of the client.
#[derive(Clone, Copy, Debug)]
pub struct ClientNames<'a> {
    /// Client Identifier.
    pub client: &'a str,
    /// User Name; empty if there is none.
    pub user: &'a str,
}

/// Why a rule cannot be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RuleError {
    /// The left side is no Topic Filter.
    #[error("its filter is no topic filter: {0}")]
    Filter(#[from] FilterError),
    /// The left side has a prefix such as `$share/NAME/`.
    #[error("its filter must not start with a prefix such as $share/: that is kept without a rule")]
    Prefix,
    /// The template names a wildcard that the filter lacks.
    #[error("${number} stands for a wildcard that its filter does not have (it has {wildcards})")]
    NoSuchWildcard {
        /// The digit in the template.
        number: usize,
        /// Wildcards in the filter.
        wildcards: usize,
    },
    /// The template cannot become a Topic Name.
    #[error("its template makes no topic name: {0}")]
    NoTopicName(TopicError),
    /// The template cannot become a Topic Filter.
    #[error("its template makes no topic filter: {0}")]
    NoTopicFilter(FilterError),
    /// The template makes another kind of subscription, such as a shared one.
    #[error("its template must not start with $share, $queue, $exclusive or $request")]
    PrefixTemplate,
}

/// Why a text that a rule is for cannot be rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RewriteError {
    /// It would give the client more than its own part of the topics.
    #[error("the Client Identifier or User Name holds a wildcard")]
    WildcardInName,
    /// More than [`STRING_BYTES_MAX`] bytes.
    #[error("the rewritten text is too long")]
    TooLong,
}

/// One part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// What a wildcard stood for, counted from 0.
    Wildcard(usize),
    Client,
    User,
}

/// What the wildcards of a filter stand for; `None` for a `#` that no level is left for.
type Captures<'t> = SmallVec<[Option<&'t str>; REWRITE_WILDCARDS_MAX]>;

impl RewriteRule {
    /// Checks the parts of a rule. The template stands for itself except for `$1` to `$9`, what the
    /// first to ninth wildcard of the filter stands for, `%c`, the Client Identifier, and `%u`, the
    /// User Name.
    ///
    /// # Errors
    /// If the filter is none, or if the template can never become what the scope asks for.
    pub fn new(scope: RewriteScope, filter: &str, template: &str) -> Result<Self, RuleError> {
        let filter = TopicFilter::parse(filter)?;
        if filter.kind() != FilterKind::Plain {
            return Err(RuleError::Prefix);
        }
        let is_wildcard = |level: &&str| matches!(*level, "+" | "#");
        let wildcards = filter.pattern().split('/').filter(is_wildcard).count();
        let template = parse_template(template, wildcards)?;
        check_template(scope, &template)?;
        Ok(Self { scope, filter, template })
    }
    /// What the wildcards stand for, if the rule is for such a text. Wildcards of the text are
    /// levels like any other.
    fn captures<'t>(&self, scope: RewriteScope, text: &'t str) -> Option<Captures<'t>> {
        let pattern = self.filter.pattern();
        // MQTT-4.7.2-1.
        let passes_by = text.starts_with('$') && pattern.starts_with(['+', '#']);
        if (self.scope != scope && self.scope != RewriteScope::All) || passes_by {
            return None;
        }
        let mut captures = Captures::new();
        let mut keep = |part| {
            if captures.len() < REWRITE_WILDCARDS_MAX {
                captures.push(part);
            }
        };
        let mut rest = Some(text);
        for level in pattern.split('/') {
            if level == "#" {
                keep(rest.take());
                break;
            }
            let (first, behind) = match rest?.split_once('/') {
                Some((first, behind)) => (first, Some(behind)),
                None => (rest?, None),
            };
            match level {
                "+" => keep(Some(first)),
                _ if level == first => {}
                _ => return None,
            }
            rest = behind;
        }
        rest.is_none().then_some(captures)
    }

    fn expand(
        &self,
        captures: &Captures<'_>,
        names: ClientNames<'_>,
        out: &mut String,
    ) -> Result<(), RewriteError> {
        let start = out.len();
        for piece in &self.template {
            let text = match piece {
                Piece::Text(text) => text,
                Piece::Wildcard(at) => match captures.get(*at).copied().flatten() {
                    Some(text) => text,
                    None => {
                        // No level is no empty level.
                        if out[start..].ends_with('/') {
                            out.pop();
                        }
                        continue;
                    }
                },
                Piece::Client => without_wildcard(names.client)?,
                Piece::User => without_wildcard(names.user)?,
            };
            if out.len() + text.len() > STRING_BYTES_MAX {
                return Err(RewriteError::TooLong);
            }
            out.push_str(text);
        }
        Ok(())
    }
}

/// Appends what the first rule that is for such a text makes of it; false if there is none.
///
/// # Errors
/// If the rule cannot be applied to this client's text; what `out` holds then means nothing.
pub fn rewrite(
    rules: &[RewriteRule],
    scope: RewriteScope,
    text: &str,
    names: ClientNames<'_>,
    out: &mut String,
) -> Result<bool, RewriteError> {
    let found = rules.iter().find_map(|rule| Some((rule, rule.captures(scope, text)?)));
    match found {
        Some((rule, captures)) => rule.expand(&captures, names, out).map(|()| true),
        None => Ok(false),
    }
}

fn parse_template(text: &str, wildcards: usize) -> Result<Box<[Piece]>, RuleError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut literal = String::new();
    while let Some(first) = rest.chars().next() {
        let second = rest[first.len_utf8()..].chars().next();
        let piece = match (first, second) {
            ('$', Some(digit @ '0'..='9')) => {
                let number = digit as usize - '0' as usize;
                if number == 0 || number > wildcards {
                    return Err(RuleError::NoSuchWildcard { number, wildcards });
                }
                Piece::Wildcard(number - 1)
            }
            ('%', Some('c')) => Piece::Client,
            ('%', Some('u')) => Piece::User,
            _ => {
                literal.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
        };
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
        }
        pieces.push(piece);
        rest = &rest[2..];
    }
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.into()));
    }
    Ok(pieces.into())
}

/// Whether the template makes what it has to if everything in it stands for an ordinary level.
fn check_template(scope: RewriteScope, template: &[Piece]) -> Result<(), RuleError> {
    let example: String = template
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Wildcard(_) | Piece::Client | Piece::User => "x",
        })
        .collect();
    if FilterKind::of_prefix(&example) != FilterKind::Plain {
        return Err(RuleError::PrefixTemplate);
    }
    match scope {
        RewriteScope::Subscribe => {
            TopicFilter::parse(&example).map(drop).map_err(RuleError::NoTopicFilter)
        }
        RewriteScope::Publish | RewriteScope::All => {
            TopicName::parse(&example).map(drop).map_err(RuleError::NoTopicName)
        }
    }
}

fn without_wildcard(name: &str) -> Result<&str, RewriteError> {
    if name.contains(['+', '#']) { Err(RewriteError::WildcardInName) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: ClientNames<'_> = ClientNames { client: "lamp", user: "ann" };

    fn rule(scope: RewriteScope, filter: &str, template: &str) -> RewriteRule {
        RewriteRule::new(scope, filter, template).unwrap()
    }

    #[test]
    fn templates_make_texts() {
        for (filter, template, text, expected) in [
            ("a", "b", "a", Some("b")),
            ("a", "b", "a/", None),
            ("a", "b", "ab", None),
            ("a/+", "b/$1", "a/x", Some("b/x")),
            ("a/+", "b/$1", "a/", Some("b/")),
            ("a/+", "b/$1", "a", None),
            ("a/+", "b/$1", "a/x/y", None),
            ("+/x/+/#", "$3/$2/$1", "1/x/2/3/4", Some("3/4/2/1")),
            ("a/#", "b/$1", "a/x/y", Some("b/x/y")),
            ("a/#", "b/$1", "a/", Some("b/")),
            ("a/#", "b/$1", "a", Some("b")),
            ("a/#", "b/$1/c", "a", Some("b/c")),
            ("a/#", "b$1", "a", Some("b")),
            // What stands before the result, such as a share name, stays.
            ("a/#", "$1x", "a", Some("x")),
            ("#", "%u/%c/$1", "a/b", Some("ann/lamp/a/b")),
            ("#", "x/$1", "$SYS/a", None), // MQTT-4.7.2-1
            ("+/a", "x/$1", "$SYS/a", None),
            ("$SYS/#", "sys/$1", "$SYS/a", Some("sys/a")),
            ("+", "$1$1-$1", "é", Some("éé-é")),
            ("a", "100%/$/é$", "a", Some("100%/$/é$")),
            ("+/+/+/+/+/+/+/+/+/+", "$9$1", "1/2/3/4/5/6/7/8/9/10", Some("91")),
            // The wildcards of a client's filter are levels.
            ("a/+", "b/$1", "a/#", Some("b/#")),
            ("a/+", "b/$1", "a/+", Some("b/+")),
            ("a/#", "b/$1", "a/+/x/#", Some("b/+/x/#")),
            ("a/b", "c", "a/+", None),
            ("a/b", "c", "a/#", None),
            ("a/b", "c", "#", None),
            ("#", "%c/$1", "#", Some("lamp/#")),
        ] {
            let rules = [rule(RewriteScope::All, filter, template)];
            let mut out = "kept/".to_owned();
            let found = rewrite(&rules, RewriteScope::Subscribe, text, NAMES, &mut out);
            let expected = expected.map_or("kept/".to_owned(), |text| format!("kept/{text}"));
            let case = format!("{filter} => {template}: {text}");
            assert_eq!((found, out), (Ok(expected.len() > 5), expected), "{case}");
        }
    }

    #[test]
    fn the_first_rule_for_the_scope_holds_and_once() {
        let rules = [
            rule(RewriteScope::Publish, "a/#", "published"),
            rule(RewriteScope::Subscribe, "a/#", "subscribed"),
            rule(RewriteScope::All, "+/x", "a/$1"),
        ];
        for (scope, text, expected) in [
            (RewriteScope::Publish, "a/x", "published"),
            (RewriteScope::Subscribe, "a/x", "subscribed"),
            (RewriteScope::Publish, "b/x", "a/b"),
            (RewriteScope::Subscribe, "b/x", "a/b"),
        ] {
            let mut out = String::new();
            assert_eq!(rewrite(&rules, scope, text, NAMES, &mut out), Ok(true));
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn names_with_wildcards_and_long_texts_are_refused() {
        let rules = [
            rule(RewriteScope::All, "c", "%c"),
            rule(RewriteScope::All, "u", "%u"),
            rule(RewriteScope::All, "#", "$1$1"),
        ];
        let long = "x".repeat(STRING_BYTES_MAX / 2 + 1);
        for (client, user, text, expected) in [
            ("a+", "", "c", Err(RewriteError::WildcardInName)),
            ("#", "", "c", Err(RewriteError::WildcardInName)),
            ("#", "", "u", Ok(true)),
            ("", "x/#", "u", Err(RewriteError::WildcardInName)),
            ("#", "#", "x", Ok(true)),
            ("", "", &long, Err(RewriteError::TooLong)),
            ("", "", &long[1..], Ok(true)),
        ] {
            let names = ClientNames { client, user };
            let mut out = String::new();
            assert_eq!(rewrite(&rules, RewriteScope::Publish, text, names, &mut out), expected);
        }
    }

    #[test]
    fn rules_that_cannot_hold_are_refused() {
        use RewriteScope::{All, Publish, Subscribe};
        for (scope, filter, template, expected) in [
            (All, "", "x", RuleError::Filter(FilterError::Empty)),
            (All, "a/#/b", "x", RuleError::Filter(FilterError::MisplacedWildcard)),
            (All, "$share/g/a", "x", RuleError::Prefix),
            (All, "$queue/a", "x", RuleError::Prefix),
            (Subscribe, "$exclusive/a", "x", RuleError::Prefix),
            (Subscribe, "$request/#", "x/$1", RuleError::Prefix),
            (All, "+/+", "$3", RuleError::NoSuchWildcard { number: 3, wildcards: 2 }),
            (All, "a", "$1", RuleError::NoSuchWildcard { number: 1, wildcards: 0 }),
            (All, "+", "$0", RuleError::NoSuchWildcard { number: 0, wildcards: 1 }),
            (All, "+", "", RuleError::NoTopicName(TopicError::Empty)),
            (All, "+", "a/#", RuleError::NoTopicName(TopicError::Wildcard)),
            (Publish, "+", "a/+", RuleError::NoTopicName(TopicError::Wildcard)),
            (Subscribe, "+", "$1#", RuleError::NoTopicFilter(FilterError::MisplacedWildcard)),
            (Subscribe, "+", "$share/g/$1", RuleError::PrefixTemplate),
            (All, "+", "$share", RuleError::PrefixTemplate),
            (All, "+", "$queue/$1", RuleError::PrefixTemplate),
            (Subscribe, "+", "$exclusive/a", RuleError::PrefixTemplate),
            (Publish, "+", "$request/a", RuleError::PrefixTemplate),
        ] {
            let error = RewriteRule::new(scope, filter, template).unwrap_err();
            assert_eq!(error, expected, "{filter} => {template}");
        }
        assert!(RewriteRule::new(Subscribe, "a", "b/+/#").is_ok());
    }
}
