//! `ringmq acl explain`: what access rules let a client do, and which of them decides.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
};

use crate::{
    auth::{
        Identity,
        acl::{Acl, Decision, Subject},
    },
    base::QoS,
    config::{AclRules, Config, ConfigErrors, Sources},
    topic::{TopicFilter, TopicName},
};

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// The file of rules; without it, the one that the configuration names.
    pub acl_file: Option<PathBuf>,
    /// The configuration.
    pub config: Option<PathBuf>,
    /// Who the client has proven to be; `None`: nobody.
    pub user: Option<String>,
    /// Groups of that user.
    pub groups: Vec<String>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its Client Identifier.
    pub client: String,
    /// A topic, or a topic filter.
    pub topic: String,
    /// What it does; `None`: all there is.
    pub action: Option<Action>,
    /// QoS of a PUBLISH.
    pub qos: QoS,
    /// RETAIN of a PUBLISH.
    pub retain: bool,
}

/// What a client does with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Action {
    /// PUBLISH, or a will
    Publish,
    /// SUBSCRIBE
    Subscribe,
    /// Be sent a message
    Receive,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The configuration or the rules are wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// There are no rules to ask.
    #[error(
        "no rules to ask: name them with --acl-file, or with --config a configuration that has \
         acl_file"
    )]
    NoRules,
    /// Neither a topic nor a filter.
    #[error("{topic:?}: {why}")]
    Topic {
        /// The text.
        topic: String,
        /// What is wrong with it.
        why: String,
    },
    /// The answer cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Writes a line for each action; true if all of them are allowed.
///
/// # Errors
/// See [`ExplainError`].
pub fn run(question: &Question, mut out: impl Write) -> Result<bool, ExplainError> {
    let acl = Acl::new(rules(question)?);
    let identity = Identity {
        user: question.user.as_deref().map(Into::into),
        groups: question.groups.iter().map(|group| group.as_str().into()).collect(),
        address: question.address,
    };
    let subject = Subject { client: &question.client, identity: &identity };
    let wrong = |why: String| ExplainError::Topic { topic: question.topic.clone(), why };
    let filter = TopicFilter::parse(&question.topic).map_err(|error| wrong(error.to_string()))?;
    let name = TopicName::parse(&question.topic);
    let mut is_allowed = true;
    for action in [Action::Publish, Action::Subscribe, Action::Receive] {
        if question.action.is_some_and(|asked| asked != action) {
            continue;
        }
        let decision = match (action, name) {
            (Action::Subscribe, _) => acl.subscribe(subject, filter.pattern()),
            (Action::Publish, Ok(topic)) => {
                acl.publish(subject, topic, question.qos, question.retain)
            }
            (Action::Receive, Ok(topic)) => acl.receive(subject, topic),
            // Of a filter only SUBSCRIBE can be asked.
            (_, Err(_)) if question.action.is_none() => continue,
            (_, Err(error)) => return Err(wrong(error.to_string())),
        };
        is_allowed &= decision.allowed;
        writeln!(out, "{}", line(&acl, action, decision))?;
    }
    Ok(is_allowed)
}

fn rules(question: &Question) -> Result<AclRules, ExplainError> {
    let sources = Sources { file: question.config.clone(), ..Sources::default() };
    let config = question.config.as_ref().map(|_| Config::load(&sources)).transpose()?;
    let allows_rest = config.as_ref().is_some_and(|config| config.acl_default_allows);
    match &question.acl_file {
        Some(file) => Ok(Config::load_acl(file, allows_rest)?),
        None => config.and_then(|config| config.acl).ok_or(ExplainError::NoRules),
    }
}

fn line(acl: &Acl, action: Action, decision: Decision) -> String {
    let name = match action {
        Action::Publish => "publish",
        Action::Subscribe => "subscribe",
        Action::Receive => "receive",
    };
    let outcome = if decision.allowed { "allowed" } else { "denied" };
    let limit = match decision.qos_max {
        QoS::ExactlyOnce => String::new(),
        qos if action == Action::Subscribe && decision.allowed => {
            format!(" up to QoS {}", qos.bits())
        }
        _ => String::new(),
    };
    format!("{name:<9} {outcome:<7}{limit}  {}", acl.explain(decision))
}
