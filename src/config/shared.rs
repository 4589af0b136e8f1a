//! Rules about shared subscriptions: from an operator's text to [`Strategies`].

use thiserror::Error;

use crate::topic::{Strategies, Strategy};

/// What is wrong with a rule.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum RuleError {
    #[error("it has no \" => \"")]
    NoArrow,
    #[error("it names no prefix; shared.strategy is for all others")]
    NoPrefix,
    #[error("no share name holds any of / + #")]
    NoShareName,
    #[error("{0:?} is none of {names}", names = Strategy::NAMES.join(", "))]
    NoStrategy(String),
    #[error("another rule has this prefix")]
    Twice,
}

/// Adds `PREFIX => STRATEGY`.
pub(super) fn add_rule(strategies: &mut Strategies, text: &str) -> Result<(), RuleError> {
    let (prefix, name) = text.split_once("=>").ok_or(RuleError::NoArrow)?;
    let (prefix, name) = (prefix.trim(), name.trim());
    if prefix.is_empty() {
        return Err(RuleError::NoPrefix);
    }
    if prefix.contains(['/', '+', '#']) {
        return Err(RuleError::NoShareName);
    }
    let strategy = Strategy::named(name).ok_or_else(|| RuleError::NoStrategy(name.to_owned()))?;
    if strategies.by_prefix.iter().any(|(known, _)| **known == *prefix) {
        return Err(RuleError::Twice);
    }
    strategies.by_prefix.push((prefix.into(), strategy));
    Ok(())
}

/// The rules as they are written.
pub(super) fn show_rules(strategies: &Strategies) -> String {
    if strategies.by_prefix.is_empty() {
        return "none".to_owned();
    }
    let rules = strategies.by_prefix.iter();
    let rules = rules.map(|(prefix, strategy)| format!("\"{prefix} => {}\"", strategy.name()));
    rules.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_a_prefix_and_a_strategy() {
        let mut strategies = Strategies::default();
        for (rule, expected) in [
            ("jobs => sticky", Ok(())),
            (" a b=>hash_topic ", Ok(())),
            ("jobs", Err(RuleError::NoArrow)),
            ("", Err(RuleError::NoArrow)),
            ("=> sticky", Err(RuleError::NoPrefix)),
            ("a/b => sticky", Err(RuleError::NoShareName)),
            ("a+ => sticky", Err(RuleError::NoShareName)),
            ("# => sticky", Err(RuleError::NoShareName)),
            ("x => sticki", Err(RuleError::NoStrategy("sticki".to_owned()))),
            ("x => a => sticky", Err(RuleError::NoStrategy("a => sticky".to_owned()))),
            ("x =>", Err(RuleError::NoStrategy(String::new()))),
            ("jobs => random", Err(RuleError::Twice)),
        ] {
            assert_eq!(add_rule(&mut strategies, rule), expected, "{rule:?}");
        }
        assert_eq!(show_rules(&strategies), r#""jobs => sticky", "a b => hash_topic""#);
    }
}
