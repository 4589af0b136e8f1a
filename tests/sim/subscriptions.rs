//! What a client has subscribed to, with all versions of each subscription: so
//! that it can be said of every delivery whether it follows from them.

use ringmq::{base::QoS, codec::RetainHandling};

use crate::plan::{Filter, Kind, Plan};

/// One SUBSCRIBE to one filter.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) filter: usize,
    pub(crate) kind: Kind,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) as_published: bool,
    pub(crate) identifier: Option<u32>,
    /// Step of its SUBACK.
    pub(crate) active: Option<u64>,
    /// It replaces one that was certainly in force.
    replaces: bool,
    /// It is being replaced or ended.
    pub(crate) is_leaving: bool,
    /// Step from which on it was certainly not in force.
    pub(crate) gone: Option<u64>,
    /// Whether retained messages are owed to it, or may be sent to it.
    pub(crate) surely_retained: bool,
    pub(crate) maybe_retained: bool,
}

/// All subscriptions of one client, oldest first.
#[derive(Default)]
pub(crate) struct Subscriptions(pub(crate) Vec<Subscription>);

/// A PUBLISH as far as subscriptions decide about it.
pub(crate) struct Delivered<'a> {
    pub(crate) topic: &'a str,
    pub(crate) retain: bool,
    pub(crate) identifiers: Vec<u32>,
    /// Its message: from the same client, with RETAIN, and when it was first sent.
    pub(crate) is_own: bool,
    pub(crate) was_retain: bool,
    pub(crate) first_sent: u64,
    /// The client has asked for what is retained on the topic.
    pub(crate) was_asked: bool,
}

/// What a PUBLISH is to its subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    Live,
    /// Sent because of a new subscription.
    Retained,
    /// Cannot be told: Retain As Published.
    Either,
}

impl Subscriptions {
    /// The client asks for something.
    pub(crate) fn add(
        &mut self,
        filter: &Filter,
        position: usize,
        qos: QoS,
        (no_local, as_published, handling): (bool, bool, RetainHandling),
        identifier: Option<u32>,
    ) {
        let others = || self.0.iter().filter(|one| one.filter == position && one.gone.is_none());
        let surely_new = others().next().is_none();
        let surely_old = others().any(|one| one.active.is_some() && !one.is_leaving);
        let can_retain = matches!(filter.kind, Kind::Plain | Kind::Exclusive);
        let (surely, maybe) = match handling {
            RetainHandling::SendAtSubscribe => (true, true),
            RetainHandling::SendIfNew => (surely_new, !surely_old),
            RetainHandling::DoNotSend => (false, false),
        };
        self.leave(position);
        self.0.push(Subscription {
            filter: position,
            kind: filter.kind,
            qos,
            no_local,
            as_published,
            identifier,
            active: None,
            replaces: surely_old,
            is_leaving: false,
            gone: None,
            surely_retained: surely && can_retain,
            maybe_retained: maybe && can_retain,
        });
    }

    /// Something the client has sent will end or replace it.
    pub(crate) fn leave(&mut self, filter: usize) {
        let same = self.0.iter_mut().filter(|one| one.filter == filter);
        same.for_each(|one| one.is_leaving = true);
    }

    /// SUBACK has come: the newest is in force, and those before it are not.
    pub(crate) fn confirm(&mut self, filter: usize, step: u64) {
        let mut newest_first = self.0.iter_mut().rev().filter(|one| one.filter == filter);
        if let Some(newest) = newest_first.next() {
            newest.active = Some(step);
        }
        newest_first.filter(|one| one.gone.is_none()).for_each(|old| old.gone = Some(step));
    }

    /// SUBACK refuses it: no subscription of that kind is left.
    pub(crate) fn refuse(&mut self, filter: usize, step: u64) {
        self.end(Some(filter), step);
        if let Some(refused) = self.0.iter_mut().rfind(|one| one.filter == filter) {
            (refused.surely_retained, refused.maybe_retained) = (false, false);
        }
    }

    /// SUBACK tells that nothing has changed: the disk could not take it.
    pub(crate) fn reject(&mut self, filter: usize, step: u64) {
        let mut newest_first = self.0.iter_mut().rev().filter(|one| one.filter == filter);
        let Some(newest) = newest_first.next() else { return };
        newest.is_leaving = true;
        newest.gone = Some(step);
        (newest.surely_retained, newest.maybe_retained) = (false, false);
        // Otherwise it may have been ended before.
        if newest.replaces
            && let Some(older) = newest_first.find(|one| one.gone.is_none())
        {
            older.is_leaving = false;
        }
    }

    /// UNSUBACK has come, or (with no filter) the session has ended.
    pub(crate) fn end(&mut self, filter: Option<usize>, step: u64) {
        let ended = self.0.iter_mut().filter(|one| filter.is_none_or(|only| one.filter == only));
        for one in ended.filter(|one| one.gone.is_none()) {
            one.is_leaving = true;
            one.gone = Some(step);
        }
    }

    /// What the PUBLISH is, by its RETAIN flag and its Subscription Identifiers.
    pub(crate) fn judge(&self, plan: &Plan, mut delivered: Delivered<'_>) -> Origin {
        let Delivered { topic, is_own, was_retain, first_sent, was_asked, .. } = delivered;
        let matching = || self.0.iter().filter(|one| plan.filters[one.filter].matches(topic));
        let possible = || {
            matching().filter(move |one| {
                one.kind != Kind::Request
                    && one.gone.is_none_or(|gone| gone >= first_sent)
                    && !(is_own && one.no_local)
            })
        };
        let certain = || {
            possible().filter(|one| !one.is_leaving && one.active.is_some_and(|at| at < first_sent))
        };
        delivered.identifiers.sort_unstable();
        let found = &delivered.identifiers;
        let identifiers_fit = holds(found, certain()) && within(found, possible());
        let may_be_retain = was_retain && possible().any(|one| one.as_published);
        let must_be_retain = was_retain && certain().any(|one| one.as_published);
        let retain_fits = if delivered.retain { may_be_retain } else { !must_be_retain };
        let is_live = possible().next().is_some() && identifiers_fit && retain_fits;
        let is_retained = delivered.retain
            && was_retain
            && matching()
                .filter(|one| one.maybe_retained || was_asked && one.kind == Kind::Request)
                .any(|one| found.iter().copied().eq(one.identifier));
        match (is_live, is_retained) {
            (true, false) => Origin::Live,
            (false, true) => Origin::Retained,
            (true, true) => Origin::Either,
            (false, false) => panic!(
                "rule 11: no subscription explains {found:?}, retain {} of {was_retain}, \
                 own {is_own}, sent {first_sent}: {:?}",
                delivered.retain,
                matching().collect::<Vec<_>>(),
            ),
        }
    }

    /// Whether any of them has ever brought live messages on a topic.
    pub(crate) fn brings_live(&self, plan: &Plan, topic: &str) -> bool {
        let mut live = self.0.iter().filter(|one| one.kind != Kind::Request);
        live.any(|one| plan.filters[one.filter].matches(topic))
    }

    /// At which QoS the client may get a message.
    pub(crate) fn all_qos(&self, plan: &Plan, topic: &str) -> impl Iterator<Item = QoS> {
        let matching = self.0.iter().filter(move |one| plan.filters[one.filter].matches(topic));
        matching.map(|one| one.qos)
    }

    /// How many retained messages on a topic the client may be sent.
    pub(crate) fn retained_max(&self, plan: &Plan, topic: &str) -> u32 {
        let matching = self.0.iter().filter(|one| plan.filters[one.filter].matches(topic));
        matching.filter(|one| one.maybe_retained).count() as u32
    }

    /// Whether all that match a topic and were in force at a step, or later, had their SUBACK before
    /// it, and have lasted.
    pub(crate) fn are_settled(&self, plan: &Plan, topic: &str, at: u64) -> bool {
        let matching = self.0.iter().filter(|one| plan.filters[one.filter].matches(topic));
        let mut relevant = matching.filter(|one| one.gone.is_none_or(|gone| gone >= at));
        relevant.all(|one| !one.is_leaving && one.active.is_some_and(|active| active < at))
    }

    /// Since which step a client's own message is due to itself.
    pub(crate) fn covers_own(&self, plan: &Plan, topic: &str, first_sent: u64) -> bool {
        self.0.iter().any(|one| {
            one.kind != Kind::Request
                && !one.no_local
                && !one.is_leaving
                && one.active.is_some_and(|at| at < first_sent)
                && plan.filters[one.filter].matches(topic)
        })
    }
}

/// Whether sorted identifiers hold all those of some subscriptions.
fn holds<'a>(found: &[u32], of: impl Iterator<Item = &'a Subscription>) -> bool {
    let mut wanted: Vec<u32> = of.filter_map(|one| one.identifier).collect();
    wanted.sort_unstable();
    is_part(&wanted, found)
}

/// Whether sorted identifiers are all from some subscriptions.
fn within<'a>(found: &[u32], of: impl Iterator<Item = &'a Subscription>) -> bool {
    let mut known: Vec<u32> = of.filter_map(|one| one.identifier).collect();
    known.sort_unstable();
    is_part(found, &known)
}

/// Whether each of `part` is in `whole`, as often as it is in `part`; both are sorted.
fn is_part(part: &[u32], whole: &[u32]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|wanted| rest.by_ref().any(|one| one == wanted))
}
