//! Records as bytes: a byte that says which, then its fields.
//!
//! Numbers are of variable length, so that the records there are most of take few bytes.

use super::{
    Attached, Boot, DelayedRecord, DeliveryNumber, Intake, MessageRecord, PublicationRecord,
    Record, SessionNumber, SessionRecord, Source, Target, WillRecord, wire::Put,
};
use std::net::IpAddr;

use crate::{
    base::{Output, PacketId},
    topic::SubscriptionOptions,
};

impl Record<'_> {
    /// Appends its bytes. A large payload that can be shared is not copied.
    pub fn encode(&self, out: &mut Output) {
        match self {
            Self::Session(session) => put_session_record(out, session),
            Self::Attached(attached) => put_attached(out, attached),
            Self::Detached { session, at, expiry_secs, will_due_at, sent } => {
                put_session(out, kind::DETACHED, *session);
                out.put_u8(flag(will_due_at.is_some(), 1));
                out.put_u64(at.0);
                out.put_u64(*expiry_secs);
                put_some(out, will_due_at.map(|at| at.0));
                out.put_u64(sent.0);
            }
            Self::Ended { session } => put_session(out, kind::ENDED, *session),
            Self::Subscribed { session, filter, options } => {
                put_session(out, kind::SUBSCRIBED, *session);
                put_subscription(out, filter, options);
            }
            Self::Unsubscribed { session, filter } => {
                put_session(out, kind::UNSUBSCRIBED, *session);
                out.put_bytes(filter.as_bytes());
            }
            Self::Publication(publication) => put_publication(out, publication),
            Self::Done { session, delivery } => {
                put_session(out, kind::DONE, *session);
                out.put_u64(delivery.0);
            }
            Self::Received { session, delivery } => {
                put_session(out, kind::RECEIVED, *session);
                out.put_u64(delivery.0);
            }
            Self::Released { session, packet_id } => {
                put_session(out, kind::RELEASED, *session);
                out.put_u64(packet_id.get());
            }
            Self::Intake(intake) => put_intake(out, intake),
            Self::Routed { stamp } => {
                out.put_u8(kind::ROUTED);
                out.put_u64(*stamp);
            }
            Self::Delayed(delayed) => put_delayed(out, delayed),
            Self::DelayedDone { number } => {
                out.put_u8(kind::DELAYED_DONE);
                out.put_u64(*number);
            }
            Self::Boot(boot) => put_boot(out, boot),
        }
    }
}

/// The first byte of a record.
pub(super) mod kind {
    pub(in crate::storage) const SESSION: u8 = 1;
    pub(in crate::storage) const ATTACHED: u8 = 2;
    pub(in crate::storage) const DETACHED: u8 = 3;
    pub(in crate::storage) const ENDED: u8 = 4;
    pub(in crate::storage) const SUBSCRIBED: u8 = 5;
    pub(in crate::storage) const UNSUBSCRIBED: u8 = 6;
    pub(in crate::storage) const PUBLICATION: u8 = 7;
    pub(in crate::storage) const DONE: u8 = 8;
    pub(in crate::storage) const RECEIVED: u8 = 9;
    pub(in crate::storage) const RELEASED: u8 = 10;
    pub(in crate::storage) const INTAKE: u8 = 11;
    pub(in crate::storage) const ROUTED: u8 = 12;
    pub(in crate::storage) const DELAYED: u8 = 13;
    pub(in crate::storage) const DELAYED_DONE: u8 = 14;
    pub(in crate::storage) const BOOT: u8 = 15;
    /// Not a record but the beginning of a batch; see `frame.rs`.
    pub(in crate::storage) const BATCH: u8 = 16;
    /// Nothing.
    pub(in crate::storage) const VOID: u8 = 17;
}

fn put_session_record(out: &mut Output, record: &SessionRecord<'_>) {
    put_session(out, kind::SESSION, record.number);
    out.put_u8(
        flag(record.user_name.is_some(), 1)
            | flag(record.is_proven, 2)
            | flag(record.detached_at.is_some(), 4)
            | flag(record.will.is_some(), 8),
    );
    out.put_bytes(record.client.as_bytes());
    put_some_text(out, record.user_name);
    put_identity(out, &record.groups, record.address);
    out.put_u64(record.expiry_secs);
    put_some(out, record.detached_at.map(|at| at.0));
    if let Some(will) = &record.will {
        put_will(out, will);
    }
    out.put_count(record.subscriptions.len());
    for (filter, options) in &record.subscriptions {
        put_subscription(out, filter, options);
    }
    out.put_count(record.received.len());
    record.received.iter().for_each(|id| out.put_u64(id.get()));
    out.put_u64(record.first.0);
    // From the first on all numbers are near one another.
    out.put_u64(record.next.0.wrapping_sub(record.first.0));
    out.put_u64(record.sent.0.wrapping_sub(record.first.0));
    put_deliveries(out, record.first, &record.done);
    put_deliveries(out, record.first, &record.released);
}

fn put_attached(out: &mut Output, attached: &Attached<'_>) {
    put_session(out, kind::ATTACHED, attached.session);
    out.put_u8(
        flag(attached.user_name.is_some(), 1)
            | flag(attached.is_proven, 2)
            | flag(attached.will.is_some(), 4),
    );
    put_some_text(out, attached.user_name);
    put_identity(out, &attached.groups, attached.address);
    out.put_u64(attached.expiry_secs);
    if let Some(will) = &attached.will {
        put_will(out, will);
    }
}

/// Groups, and the address as its bytes, of which there are none without one.
fn put_identity(out: &mut Output, groups: &[&str], address: Option<IpAddr>) {
    out.put_count(groups.len());
    groups.iter().for_each(|group| out.put_bytes(group.as_bytes()));
    match address {
        None => out.put_bytes(&[]),
        Some(IpAddr::V4(address)) => out.put_bytes(&address.octets()),
        Some(IpAddr::V6(address)) => out.put_bytes(&address.octets()),
    }
}

fn put_will(out: &mut Output, will: &WillRecord<'_>) {
    out.put_u8(flag(will.message_expiry_secs.is_some(), 1) | flag(will.due_at.is_some(), 2));
    put_message(out, &will.message);
    put_some(out, will.message_expiry_secs.map(u64::from));
    out.put_u64(will.delay_secs);
    put_some(out, will.due_at.map(|at| at.0));
}

fn put_message(out: &mut Output, message: &MessageRecord<'_>) {
    let expires_at = message.expires_at.map(|at| at.0);
    out.put_u8(message.qos.bits() | flag(message.retain, 4) | flag(expires_at.is_some(), 8));
    put_some(out, expires_at);
    out.put_bytes(message.topic.as_bytes());
    out.put_bytes(message.properties);
    out.put_count(message.payload.len());
    match message.shared {
        Some(whole) => out.share(whole.slice_ref(message.payload)),
        None => out.put_raw(message.payload),
    }
}

fn put_publication(out: &mut Output, publication: &PublicationRecord<'_>) {
    out.put_u8(kind::PUBLICATION);
    out.put_u8(
        flag(publication.is_retained, 1)
            | flag(publication.publisher.is_some(), 2)
            | flag(publication.origin.is_some(), 4),
    );
    put_publisher(out, publication.publisher);
    if let Some((shard, stamp)) = publication.origin {
        out.put_u64(shard.0);
        out.put_u64(stamp);
    }
    put_message(out, &publication.message);
    out.put_count(publication.targets.len());
    for target in publication.targets {
        put_target(out, target);
    }
}

fn put_target(out: &mut Output, target: &Target) {
    out.put_u64(target.session.0);
    out.put_u64(target.delivery.0);
    let has_identifiers = !target.identifiers.is_empty();
    out.put_u8(target.qos.bits() | flag(target.retain, 4) | flag(has_identifiers, 8));
    if has_identifiers {
        out.put_count(target.identifiers.len());
        target.identifiers.iter().for_each(|identifier| out.put_u64(identifier.get()));
    }
}

fn put_intake(out: &mut Output, intake: &Intake<'_>) {
    out.put_u8(kind::INTAKE);
    out.put_u8(flag(intake.client.is_some(), 1) | flag(intake.chosen_only, 2));
    out.put_u64(intake.stamp);
    match intake.source {
        Source::Publisher(session, packet_id) => {
            out.put_u8(0);
            put_publisher(out, Some((session, packet_id)));
        }
        Source::Delayed(number) => {
            out.put_u8(1);
            out.put_u64(number);
        }
        Source::Will(session) => {
            out.put_u8(2);
            out.put_u64(session.0);
        }
        Source::PassedOn(None) => out.put_u8(3),
        Source::PassedOn(Some((shard, stamp))) => {
            out.put_u8(4);
            out.put_u64(u64::from(shard.0));
            out.put_u64(stamp);
        }
    }
    put_some_text(out, intake.client);
    out.put_count(intake.chosen.len());
    for (filter, shard) in &intake.chosen {
        out.put_bytes(filter.as_bytes());
        out.put_u64(u64::from(shard.0));
    }
    put_message(out, &intake.message);
}

fn put_delayed(out: &mut Output, delayed: &DelayedRecord<'_>) {
    out.put_u8(kind::DELAYED);
    let flags = flag(delayed.client.is_some(), 1) | flag(delayed.publisher.is_some(), 2);
    out.put_u8(flags | flag(delayed.will_of.is_some(), 4));
    out.put_u64(delayed.number);
    out.put_u64(delayed.due_at.0);
    put_some_text(out, delayed.client);
    put_publisher(out, delayed.publisher);
    put_some(out, delayed.will_of.map(|session| session.0));
    put_message(out, &delayed.message);
}

fn put_boot(out: &mut Output, boot: &Boot) {
    out.put_u8(kind::BOOT);
    out.put_u64(boot.next_session);
    out.put_u64(boot.last_delayed);
    out.put_u64(boot.stamp);
    out.put_u64(boot.routed);
    out.put_count(boot.taken.len());
    for (shard, stamp) in &boot.taken {
        out.put_u64(shard.0);
        out.put_u64(*stamp);
    }
    out.put_u64(boot.given_up);
}

fn put_subscription(out: &mut Output, filter: &str, options: &SubscriptionOptions) {
    out.put_bytes(filter.as_bytes());
    out.put_u8(
        options.qos.bits()
            | flag(options.no_local, 4)
            | flag(options.retain_as_published, 8)
            | flag(options.identifier.is_some(), 16),
    );
    put_some(out, options.identifier.map(|identifier| identifier.get().into()));
}

/// Each as its distance from the one before.
fn put_deliveries(out: &mut Output, first: DeliveryNumber, deliveries: &[DeliveryNumber]) {
    out.put_count(deliveries.len());
    let mut last = first.0;
    for delivery in deliveries {
        out.put_u64(delivery.0.wrapping_sub(last));
        last = delivery.0;
    }
}

fn put_session(out: &mut Output, kind: u8, session: SessionNumber) {
    out.put_u8(kind);
    out.put_u64(session.0);
}

fn put_publisher(out: &mut Output, publisher: Option<(SessionNumber, PacketId)>) {
    if let Some((session, packet_id)) = publisher {
        out.put_u64(session.0);
        out.put_u64(packet_id.get());
    }
}

fn put_some(out: &mut Output, number: Option<u64>) {
    if let Some(number) = number {
        out.put_u64(number);
    }
}

fn put_some_text(out: &mut Output, text: Option<&str>) {
    if let Some(text) = text {
        out.put_bytes(text.as_bytes());
    }
}

const fn flag(is_set: bool, bit: u8) -> u8 {
    if is_set { bit } else { 0 }
}
