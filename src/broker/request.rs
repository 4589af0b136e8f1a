//! Retained messages on request: a client that has registered with SUBSCRIBE
//! `$request/FILTER` publishes an empty message to the same text, or to
//! `$request/TOPIC` for a topic that the filter matches, and is sent what is
//! retained there.
//!
//! Such a PUBLISH is for the broker alone: it is neither routed nor retained.

use crate::{
    base::SessionKey,
    codec::{Publish, ReasonCode},
    session::Fetch,
    topic::{FilterKind, SubscriptionOptions, TopicFilter, TopicName},
};

use super::{
    Broker, DropReason,
    subscribe::{Answer, PendingAnswer},
};

/// Why a request is refused.
type Refusal = (ReasonCode, DropReason);

const UNREGISTERED: Refusal = (ReasonCode::NotAuthorized, DropReason::RequestUnregistered);
const DENIED: Refusal = (ReasonCode::NotAuthorized, DropReason::ReceiveDenied);
const HAS_PAYLOAD: Refusal = (ReasonCode::PayloadFormatInvalid, DropReason::RequestPayload);

impl Broker {
    /// Handles a PUBLISH that is a request. Returns the reason code of its acknowledgement.
    pub(super) fn request(
        &mut self,
        key: SessionKey,
        topic: TopicName<'_>,
        publish: &Publish<'_>,
    ) -> ReasonCode {
        match self.answer_request(key, topic, publish.payload) {
            Ok(()) => ReasonCode::Success,
            Err((reason, drop)) => {
                self.count_session_drop(key, drop, publish.qos);
                reason
            }
        }
    }

    /// Sees to it that the client gets what it asks for.
    fn answer_request(
        &mut self,
        key: SessionKey,
        topic: TopicName<'_>,
        payload: &[u8],
    ) -> Result<(), Refusal> {
        let bounds = self.queue_bounds();
        let filter = TopicFilter::parse(topic.as_str()).map_err(|_| UNREGISTERED)?;
        let filter = self.read_filter(key, filter).ok_or(UNREGISTERED)?;
        if !self.access_to(key, &filter).allowed {
            return Err(DENIED);
        }
        let session = self.sessions.get_mut(key).ok_or(UNREGISTERED)?;
        let (registration, options) = session.requests.find(&filter).ok_or(UNREGISTERED)?;
        if !payload.is_empty() {
            return Err(HAS_PAYLOAD);
        }
        if session.fetches.repeat(&filter) {
            return Ok(());
        }
        session
            .fetches
            .request_fits(&filter, bounds)
            .map_err(|refused| (ReasonCode::QuotaExceeded, refused.into()))?;
        let registration = registration.clone();
        self.start_request(key, filter, options, registration, 0);
        Ok(())
    }

    /// The walk for a request is over, and others came meanwhile: goes on with
    /// the next, under the options that hold now.
    pub(super) fn repeat_request(&mut self, key: SessionKey, ended: Fetch) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some((registration, options)) = session.requests.find(&ended.filter) else { return };
        let registration = registration.clone();
        self.start_request(key, ended.filter, options, registration, ended.repeats - 1);
    }

    /// Ends a registration and the requests that are based on it.
    pub(super) fn end_requests(&mut self, key: SessionKey, filter: &TopicFilter) {
        debug_assert_eq!(filter.kind(), FilterKind::Request);
        if let Some(session) = self.sessions.get_mut(key) {
            session.requests.remove(filter);
            session.fetches.end_requests(filter);
        }
    }

    /// Starts a walk as soon as every retained message that a shard has taken
    /// until now has reached its home. The client may have got some of them live
    /// already, and an older one must not follow. Those that a shard takes later
    /// are noted when they pass by live, as for a new subscription.
    fn start_request(
        &mut self,
        key: SessionKey,
        filter: TopicFilter,
        options: SubscriptionOptions,
        registration: TopicFilter,
        repeats: u16,
    ) {
        let stamp = self.peers.raise_barrier();
        let shards = self.shards_with_topics_of(&filter);
        let fetch = Fetch::new(filter, options, shards);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let registration = Some(registration);
        session.fetches.add(Fetch { starts_at: stamp, registration, repeats, ..fetch });
        if self.peers.index_applied(stamp) {
            self.schedule_fetch(key);
        } else {
            let answer = Answer::Retained;
            self.pending_answers.push_back(PendingAnswer { stamp, commit: 0, key, answer });
        }
    }
}
