//! Access rules at work: what a client may publish, subscribe to and be sent. Without rules each question
//! is one branch.
//!
//! A subscription is decided about once, and remembers whether it is allowed and whether what it brings needs a
//! decision for each message. When the rules change, all subscriptions are decided about anew. One that is
//! allowed no more stays in its session and brings nothing, so that a mistake in the rules costs nobody
//! theirs. What waits for a client was let in by earlier rules, and is asked about again when it leaves.

use std::sync::Arc;

use super::{Broker, DropReason, destination::Refusal};
use crate::{
    auth::{
        Identity,
        acl::{Acl, Question, Subject, Verdicts},
    },
    base::{ClientId, QoS, SessionKey, Time},
    session::{Rights, Session},
    topic::{FilterKind, Marks, Matches, Member, SubscriptionOptions, TopicFilter, TopicName},
};

/// What rules say of a subscription.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) allowed: bool,
    /// Whether each message of it needs a decision.
    pub(super) is_checked: bool,
    /// Highest QoS that it gets.
    pub(super) qos_max: QoS,
}

impl Access {
    /// What sort of subscription this makes of one.
    pub(super) const fn mark(self, marks: Marks) -> Marks {
        marks.with_access(!self.allowed, self.is_checked)
    }
}

impl Broker {
    /// Puts other rules in force, or none. What they deny is delivered no more from now on.
    pub fn set_acl(&mut self, now: Time, acl: Option<Arc<Acl>>) {
        self.now = now;
        self.acl = acl;
        for key in self.sessions.keys() {
            self.review_access(key);
        }
    }

    /// Takes note of who a session's client is now. It may have been somebody else, or somewhere else, before.
    pub(super) fn identify(&mut self, key: SessionKey, identity: Identity) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let is_asked = self.acl.is_some() || identity.is_proven();
        let is_known = session.rights.is_some() == is_asked && *session.identity() == identity;
        if !is_known {
            session.rights = is_asked.then(|| identity.into());
            if self.acl.is_some() {
                self.review_access(key);
            }
        }
    }

    /// Decides anew about all that a session has: the rules have changed, or who its client is.
    fn review_access(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let rights = session.rights.get_or_insert_default();
        rights.verdicts = Verdicts::default();
        rights.is_rechecked = true;
        let filters: Vec<TopicFilter> = session.subscriptions.iter().cloned().collect();
        for filter in filters {
            self.review_subscription(key, &filter);
        }
    }

    fn review_subscription(&mut self, key: SessionKey, filter: &TopicFilter) {
        let member = Member { shard: self.shard, session: key };
        let is_shared = filter.share_name().is_some();
        let options = match filter.kind() {
            FilterKind::Request => return,
            _ if is_shared => self.index.member_options(filter, member),
            _ => self.index.local_options(filter, key),
        };
        let (Some(options), Some(session)) = (options, self.sessions.get(key)) else { return };
        let is_online = session.conn.is_some();
        let marks = self.access_to(key, filter).mark(options.marks);
        if marks == options.marks {
            return;
        }
        if marks.is_denied()
            && let Some(session) = self.sessions.get_mut(key)
        {
            tracing::info!(client = %session.client, %filter, "subscription brings nothing: denied");
            session.fetches.remove(filter);
        }
        let options = SubscriptionOptions { marks, ..options };
        if is_shared {
            self.join(key, filter.clone(), options, is_online && !marks.is_denied());
        } else {
            self.index.subscribe(filter, key, options);
        }
    }

    /// What the rules say of a subscription of a session.
    pub(super) fn access_to(&self, key: SessionKey, filter: &TopicFilter) -> Access {
        let free = Access { allowed: true, is_checked: false, qos_max: QoS::ExactlyOnce };
        let (Some(acl), Some(session)) = (&self.acl, self.sessions.get(key)) else { return free };
        let decision = acl.subscribe(subject(session), filter.pattern());
        let is_checked = !acl.is_open(subject(session), filter.pattern());
        Access { allowed: decision.allowed, is_checked, qos_max: decision.qos_max }
    }

    /// Whether a session may publish so. What starts with `$` is the server's, unless a rule opens it.
    pub(super) fn check_publish_right(
        &mut self,
        key: SessionKey,
        topic: TopicName<'_>,
        qos: QoS,
        retain: bool,
    ) -> Result<(), Refusal> {
        let Some(acl) = &self.acl else {
            return if topic.is_system() { Err(Refusal::Reserved) } else { Ok(()) };
        };
        let Some(session) = self.sessions.get_mut(key) else { return Err(Refusal::Denied) };
        let hash = self.placement.hash_one(topic.as_str());
        let Session { rights, client, .. } = session;
        let Rights { identity, verdicts, .. } = &mut **rights.get_or_insert_default();
        let subject = Subject { client: client.as_str(), identity };
        let question = Question::Publish(qos, retain);
        let may = verdicts.answer(question, topic.as_str(), hash, || {
            acl.publish(subject, topic, qos, retain).allowed
        });
        match may {
            true => Ok(()),
            false if topic.is_system() => Err(Refusal::Reserved),
            false => Err(Refusal::Denied),
        }
    }

    /// Whether a client that connects could publish its will, if that starts with `$`. All other wills are
    /// asked about when they are due.
    pub(super) fn may_open(
        &self,
        client: &ClientId,
        identity: &Identity,
        topic: TopicName<'_>,
    ) -> bool {
        let subject = Subject { client: client.as_str(), identity };
        let opens = |acl: &Arc<Acl>| acl.publish(subject, topic, QoS::AtMostOnce, false).allowed;
        !topic.is_system() || self.acl.as_ref().is_some_and(opens)
    }

    /// Whether a session may be sent a message with that topic.
    pub(super) fn may_receive(&mut self, key: SessionKey, topic: TopicName<'_>) -> bool {
        let (Some(acl), Some(session)) = (&self.acl, self.sessions.get_mut(key)) else {
            return true;
        };
        let hash = self.placement.hash_one(topic.as_str());
        let Session { rights, client, .. } = session;
        let Rights { identity, verdicts, .. } = &mut **rights.get_or_insert_default();
        let subject = Subject { client: client.as_str(), identity };
        let decide = || acl.receive(subject, topic).allowed;
        verdicts.answer(Question::Receive, topic.as_str(), hash, decide)
    }

    /// Takes those of this shard out of a message's takers who may not have it.
    pub(super) fn leave_out_denied(
        &mut self,
        topic: TopicName<'_>,
        qos: QoS,
        matches: &mut Matches,
    ) {
        if self.acl.is_none() {
            return;
        }
        let own = self.shard;
        matches.local.retain(|found| self.may_have(found.session, found.options, topic, qos));
        matches.shared.retain(|found| {
            found.member.shard != own
                || self.may_have(found.member.session, found.options, topic, qos)
        });
    }

    /// Whether a subscription of a session may bring it a message. Counts it if not.
    pub(super) fn may_have(
        &mut self,
        key: SessionKey,
        options: SubscriptionOptions,
        topic: TopicName<'_>,
        qos: QoS,
    ) -> bool {
        let may = !options.marks.is_denied()
            && (!options.marks.is_checked() || self.may_receive(key, topic));
        if !may {
            self.count_session_drop(key, DropReason::ReceiveDenied, qos.min(options.qos));
        }
        may
    }

    /// Whether a message that has waited for a session may leave.
    pub(super) fn may_leave(&mut self, key: SessionKey, topic: TopicName<'_>) -> bool {
        let is_rechecked = self.sessions.get(key).and_then(|session| session.rights.as_ref());
        let is_rechecked = is_rechecked.is_some_and(|rights| rights.is_rechecked);
        !is_rechecked || self.may_receive(key, topic)
    }

    /// Counts a SUBSCRIBE that the rules deny.
    pub(super) fn count_denied_subscription(&mut self, key: SessionKey, filter: &TopicFilter) {
        self.counters.subscriptions_denied += 1;
        let count = self.counters.subscriptions_denied;
        if count.is_power_of_two()
            && let Some(session) = self.sessions.get(key)
        {
            tracing::warn!(client = %session.client, %filter, count, "subscription denied");
        }
    }
}

/// Who a session's client is to the rules.
fn subject(session: &Session) -> Subject<'_> {
    Subject { client: session.client.as_str(), identity: session.identity() }
}
