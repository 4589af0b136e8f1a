//! Where a client's message goes: what its topic is rewritten to, whether it is delayed, and
//! whether clients may publish there at all. The same for the filters of subscriptions, as far as
//! rewriting goes.
//!
//! Only topics that start with `$`, and all while there are rewrite rules, are looked into.

use std::mem;

use crate::{
    auth::Identity,
    base::{ClientId, SessionKey},
    codec::ReasonCode,
    config::Policy,
    message::Message,
    topic::{ClientNames, FilterKind, RewriteScope, TopicFilter, TopicName, rewrite},
};

use super::{
    Broker, DropReason,
    ack_line::Waits,
    delayed::{Malformed, split_delay},
    publish::From,
    route::Lazy,
};

/// Where a message goes, and when.
#[derive(Clone, Copy, Debug)]
struct Destination<'t> {
    topic: TopicName<'t>,
    delay_secs: Option<u32>,
}

/// Why a message goes nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// Only the server publishes there.
    Reserved,
    /// The access rules do not allow it.
    Denied,
    /// A malformed `$delayed/...`, or rewritten to what is no Topic Name.
    Invalid,
}

impl Refusal {
    pub(super) const fn reason(self) -> ReasonCode {
        match self {
            Self::Reserved | Self::Denied => ReasonCode::NotAuthorized,
            Self::Invalid => ReasonCode::TopicNameInvalid,
        }
    }

    const fn drop_reason(self) -> DropReason {
        match self {
            Self::Reserved => DropReason::ReservedTopic,
            Self::Denied => DropReason::PublishDenied,
            Self::Invalid => DropReason::InvalidTopic,
        }
    }
}

impl std::convert::From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Invalid
    }
}

impl Broker {
    /// Sends a message of a client on its way: PUBLISH, or a will. Returns the reason code of its
    /// acknowledgement and what that has to wait for.
    pub(super) fn dispatch(
        &mut self,
        key: SessionKey,
        message: Message<'_>,
        expiry_secs: Option<u32>,
        from: From,
    ) -> (ReasonCode, Waits) {
        if self.policy.rewrite.is_empty() && !message.topic.is_system() && self.acl.is_none() {
            return self.publish_now(key, message, expiry_secs, from);
        }
        let mut buffer = mem::take(&mut self.rewritten);
        let names = self.client_names(key);
        let found = destination(&self.policy, names, message.topic, &mut buffer);
        let permitted = found.and_then(|found| {
            self.check_publish_right(key, found.topic, message.qos, message.retain)?;
            Ok(found)
        });
        let outcome = match permitted {
            Ok(Destination { topic, delay_secs: None }) => {
                let original = message.original.filter(|_| topic == message.topic);
                self.publish_now(key, Message { topic, original, ..message }, expiry_secs, from)
            }
            Ok(Destination { topic, delay_secs: Some(secs) }) => {
                let message = Message { topic, original: None, ..message };
                self.delay(key, message, (secs, expiry_secs), from)
            }
            Err(refusal) => {
                self.count_session_drop(key, refusal.drop_reason(), message.qos);
                (refusal.reason(), Waits::default())
            }
        };
        self.rewritten = buffer;
        outcome
    }

    /// Whether a client with these names has a will that can be published.
    pub(super) fn check_will(
        &self,
        (client, identity): (&ClientId, &Identity),
        names: ClientNames<'_>,
        topic: TopicName<'_>,
    ) -> Result<(), Refusal> {
        let mut buffer = String::new();
        let found = destination(&self.policy, names, topic, &mut buffer)?;
        let may_be = self.may_open(client, identity, found.topic);
        if may_be { Ok(()) } else { Err(Refusal::Reserved) }
    }

    /// What the filter of a client is read as: `$share/NAME/` stays, the rest is rewritten. `None`
    /// if that makes no Topic Filter.
    pub(super) fn read_filter(
        &mut self,
        key: SessionKey,
        filter: TopicFilter,
    ) -> Option<TopicFilter> {
        if self.policy.rewrite.is_empty() {
            return Some(filter);
        }
        let mut buffer = mem::take(&mut self.rewritten);
        let (rules, names) = (&self.policy.rewrite, self.client_names(key));
        let (text, pattern) = (filter.as_str(), filter.pattern());
        buffer.clear();
        buffer.push_str(&text[..text.len() - pattern.len()]);
        let result = rewrite(rules, RewriteScope::Subscribe, pattern, names, &mut buffer);
        let read = match result {
            Ok(false) => Some(filter),
            Ok(true) => {
                // What was ordinary must not become shared, or anything else.
                let stays = |new: &TopicFilter| {
                    new.kind() == filter.kind() && new.share_name() == filter.share_name()
                };
                TopicFilter::parse(&buffer).ok().filter(stays)
            }
            Err(_) => None,
        };
        self.rewritten = buffer;
        read
    }

    fn publish_now(
        &mut self,
        key: SessionKey,
        message: Message<'_>,
        expiry_secs: Option<u32>,
        from: From,
    ) -> (ReasonCode, Waits) {
        let expires_at = expiry_secs.map(|secs| self.now.plus_secs(u64::from(secs)));
        self.take_over(key, Lazy::new(Message { expires_at, ..message }), from)
    }

    fn client_names(&self, key: SessionKey) -> ClientNames<'_> {
        let session = self.sessions.get(key);
        ClientNames {
            client: session.map_or("", |session| session.client.as_str()),
            user: session.and_then(|session| session.user_name.as_deref()).unwrap_or_default(),
        }
    }
}

/// Takes the delay off, then applies the rules: nobody gets past them with a delay.
fn destination<'t>(
    policy: &Policy,
    names: ClientNames<'_>,
    topic: TopicName<'t>,
    buffer: &'t mut String,
) -> Result<Destination<'t>, Refusal> {
    let (delay_secs, topic) = match split_delay(topic).transpose()? {
        Some((secs, topic)) => (Some(secs), topic),
        None => (None, topic),
    };
    buffer.clear();
    let result = rewrite(&policy.rewrite, RewriteScope::Publish, topic.as_str(), names, buffer);
    let topic = match result {
        Ok(false) => topic,
        Ok(true) => TopicName::parse(buffer).map_err(|_| Refusal::Invalid)?,
        Err(_) => return Err(Refusal::Invalid),
    };
    // What starts with `$` is published at once, if ever. `$request` is a client's to publish to, but
    // nobody's to receive from.
    if delay_secs.is_some() && topic.is_system() {
        return Err(Refusal::Invalid);
    }
    if topic.prefix() != FilterKind::Plain {
        return Err(Refusal::Reserved);
    }
    // Neither a delay within a delay nor one that a rule has made.
    if split_delay(topic).is_some() {
        return Err(Refusal::Invalid);
    }
    Ok(Destination { topic, delay_secs })
}
