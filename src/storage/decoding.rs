//! Records out of bytes that may be anything.
//!
//! What is decoded is as valid as what a client may send: topics, filters and properties are checked. Nothing
//! is copied, and no list is longer than the bytes for it.

use std::{net::IpAddr, num::NonZeroU32};

use super::{
    Attached, Boot, DelayedRecord, DeliveryNumber, Intake, MessageRecord, PublicationRecord,
    Record, SessionNumber, SessionRecord, Source, Target, WillRecord, encoding::kind, wire::Reader,
};
use crate::{
    base::{PacketId, QoS, ShardId, WallTime},
    codec::Properties,
    topic::{Marks, SubscriptionOptions, TopicFilter, TopicName},
};

/// Why bytes are not a record. A right checksum over such bytes means that something else has
/// written them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(pub(super) &'static str);

impl<'a> Record<'a> {
    /// The record that `bytes` are, the targets of a publication in `targets`.
    ///
    /// # Errors
    /// If they are not one record and nothing else.
    pub fn decode(bytes: &'a [u8], targets: &'a mut Vec<Target>) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        let record = Self::read(&mut reader, targets)?;
        reader.finish()?;
        Ok(record)
    }

    fn read(reader: &mut Reader<'a>, targets: &'a mut Vec<Target>) -> Result<Self, RecordError> {
        match reader.u8()? {
            kind::SESSION => read_session_record(reader).map(Self::Session),
            kind::ATTACHED => read_attached(reader).map(Self::Attached),
            kind::DETACHED => {
                let session = session(reader)?;
                let flags = reader.flags(1)?;
                Ok(Self::Detached {
                    session,
                    at: wall_time(reader)?,
                    expiry_secs: reader.number()?,
                    will_due_at: some(flags & 1, reader, wall_time)?,
                    sent: delivery(reader)?,
                })
            }
            kind::ENDED => Ok(Self::Ended { session: session(reader)? }),
            kind::SUBSCRIBED => {
                let session = session(reader)?;
                let (filter, options) = read_subscription(reader)?;
                Ok(Self::Subscribed { session, filter, options })
            }
            kind::UNSUBSCRIBED => {
                Ok(Self::Unsubscribed { session: session(reader)?, filter: filter(reader)? })
            }
            kind::PUBLICATION => read_publication(reader, targets).map(Self::Publication),
            kind::DONE => Ok(Self::Done { session: session(reader)?, delivery: delivery(reader)? }),
            kind::RECEIVED => {
                Ok(Self::Received { session: session(reader)?, delivery: delivery(reader)? })
            }
            kind::RELEASED => {
                Ok(Self::Released { session: session(reader)?, packet_id: packet_id(reader)? })
            }
            kind::INTAKE => read_intake(reader).map(Self::Intake),
            kind::ROUTED => Ok(Self::Routed { stamp: reader.u64()? }),
            kind::DELAYED => read_delayed(reader).map(Self::Delayed),
            kind::DELAYED_DONE => Ok(Self::DelayedDone { number: reader.u64()? }),
            kind::BOOT => read_boot(reader).map(Self::Boot),
            _ => Err(RecordError("unknown kind of record")),
        }
    }
}

impl<'a> MessageRecord<'a> {
    /// The message of the record that `bytes` are, if it has one; the fields behind it are not looked at.
    pub(super) fn decode_from(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let reader = &mut Reader::new(bytes);
        match reader.u8()? {
            kind::PUBLICATION => {
                read_publication_head(reader).map(|publication| publication.message)
            }
            kind::INTAKE => read_intake(reader).map(|intake| intake.message),
            kind::DELAYED => read_delayed(reader).map(|delayed| delayed.message),
            _ => Err(RecordError("record holds no message")),
        }
    }
}

fn read_session_record<'a>(reader: &mut Reader<'a>) -> Result<SessionRecord<'a>, RecordError> {
    let number = session(reader)?;
    let flags = reader.flags(0xF)?;
    let client = reader.text()?;
    let user_name = some(flags & 1, reader, Reader::text)?;
    let (groups, address) = read_identity(reader)?;
    let expiry_secs = reader.number()?;
    let detached_at = some(flags & 4, reader, wall_time)?;
    let will = some(flags & 8, reader, read_will)?;
    let subscriptions = list(reader, 3, read_subscription)?;
    let received = list(reader, 1, packet_id)?;
    let first = delivery(reader)?;
    let next = after(first, reader)?;
    let sent = after(first, reader)?;
    let done = read_deliveries(reader, first)?;
    let released = read_deliveries(reader, first)?;
    let is_proven = flags & 2 != 0;
    Ok(SessionRecord {
        number,
        client,
        user_name,
        is_proven,
        groups,
        address,
        expiry_secs,
        detached_at,
        will,
        subscriptions,
        received,
        first,
        next,
        sent,
        done,
        released,
    })
}

fn read_attached<'a>(reader: &mut Reader<'a>) -> Result<Attached<'a>, RecordError> {
    let session = session(reader)?;
    let flags = reader.flags(0x7)?;
    let user_name = some(flags & 1, reader, Reader::text)?;
    let (groups, address) = read_identity(reader)?;
    Ok(Attached {
        session,
        user_name,
        is_proven: flags & 2 != 0,
        groups,
        address,
        expiry_secs: reader.number()?,
        will: some(flags & 4, reader, read_will)?,
    })
}

fn read_identity<'a>(
    reader: &mut Reader<'a>,
) -> Result<(Vec<&'a str>, Option<IpAddr>), RecordError> {
    let groups = list(reader, 1, Reader::text)?;
    let address = match *reader.bytes()? {
        [] => None,
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        ref bytes => {
            let octets = <[u8; 16]>::try_from(bytes);
            Some(octets.map_err(|_| RecordError("address of neither 4 nor 16 bytes"))?.into())
        }
    };
    Ok((groups, address))
}

fn read_will<'a>(reader: &mut Reader<'a>) -> Result<WillRecord<'a>, RecordError> {
    let flags = reader.flags(0x3)?;
    Ok(WillRecord {
        message: read_message(reader)?,
        message_expiry_secs: some(flags & 1, reader, Reader::number)?,
        delay_secs: reader.number()?,
        due_at: some(flags & 2, reader, wall_time)?,
    })
}

fn read_message<'a>(reader: &mut Reader<'a>) -> Result<MessageRecord<'a>, RecordError> {
    let flags = reader.flags(0xF)?;
    let expires_at = some(flags & 8, reader, wall_time)?;
    let topic = reader.text()?;
    TopicName::parse(topic).map_err(|_| RecordError("text is not a topic name"))?;
    let properties = reader.bytes()?;
    Properties::parse_stored(properties).map_err(|_| RecordError("properties are not valid"))?;
    let payload = reader.bytes()?;
    let (qos, retain) = (qos(flags)?, flags & 4 != 0);
    Ok(MessageRecord { topic, properties, payload, shared: None, qos, retain, expires_at })
}

fn read_publication<'a>(
    reader: &mut Reader<'a>,
    targets: &'a mut Vec<Target>,
) -> Result<PublicationRecord<'a>, RecordError> {
    let mut publication = read_publication_head(reader)?;
    targets.clear();
    for _ in 0..reader.count(TARGET_BYTES_MIN)? {
        targets.push(read_target(reader)?);
    }
    publication.targets = targets;
    Ok(publication)
}

/// All but the targets.
fn read_publication_head<'a>(
    reader: &mut Reader<'a>,
) -> Result<PublicationRecord<'a>, RecordError> {
    let flags = reader.flags(0x7)?;
    Ok(PublicationRecord {
        is_retained: flags & 1 != 0,
        publisher: some(flags & 2, reader, publisher)?,
        origin: some(flags & 4, reader, shard_and_stamp)?,
        message: read_message(reader)?,
        targets: &[],
    })
}

fn read_target(reader: &mut Reader<'_>) -> Result<Target, RecordError> {
    let (session, delivery) = (session(reader)?, delivery(reader)?);
    let flags = reader.flags(0xF)?;
    let mut identifiers = smallvec::SmallVec::new();
    if flags & 8 != 0 {
        for _ in 0..reader.count(1)? {
            identifiers.push(identifier(reader)?);
        }
    }
    Ok(Target { session, delivery, qos: qos(flags)?, retain: flags & 4 != 0, identifiers })
}

fn read_intake<'a>(reader: &mut Reader<'a>) -> Result<Intake<'a>, RecordError> {
    let flags = reader.flags(0x3)?;
    let stamp = reader.u64()?;
    let source = match reader.u8()? {
        0 => publisher(reader).map(|(session, id)| Source::Publisher(session, id))?,
        1 => Source::Delayed(reader.u64()?),
        2 => Source::Will(session(reader)?),
        3 => Source::PassedOn(None),
        4 => Source::PassedOn(Some(shard_and_stamp(reader)?)),
        _ => return Err(RecordError("unknown source of an intake")),
    };
    let client = some(flags & 1, reader, Reader::text)?;
    let chosen = list(reader, 2, |reader| Ok((filter(reader)?, ShardId(reader.number()?))))?;
    let message = read_message(reader)?;
    Ok(Intake { stamp, source, client, chosen, chosen_only: flags & 2 != 0, message })
}

fn read_delayed<'a>(reader: &mut Reader<'a>) -> Result<DelayedRecord<'a>, RecordError> {
    let flags = reader.flags(0x7)?;
    Ok(DelayedRecord {
        number: reader.u64()?,
        due_at: wall_time(reader)?,
        client: some(flags & 1, reader, Reader::text)?,
        publisher: some(flags & 2, reader, publisher)?,
        will_of: some(flags & 4, reader, session)?,
        message: read_message(reader)?,
    })
}

fn read_boot(reader: &mut Reader<'_>) -> Result<Boot, RecordError> {
    Ok(Boot {
        next_session: reader.u64()?,
        last_delayed: reader.u64()?,
        stamp: reader.u64()?,
        routed: reader.u64()?,
        taken: list(reader, 2, shard_and_stamp)?,
        given_up: u32::try_from(reader.u64()?)
            .map_err(|_| RecordError("segment is out of bounds"))?,
    })
}

fn read_subscription<'a>(
    reader: &mut Reader<'a>,
) -> Result<(&'a str, SubscriptionOptions), RecordError> {
    let filter = filter(reader)?;
    let flags = reader.flags(0x1F)?;
    let options = SubscriptionOptions {
        qos: qos(flags)?,
        no_local: flags & 4 != 0,
        retain_as_published: flags & 8 != 0,
        marks: Marks::default(),
        identifier: some(flags & 16, reader, identifier)?,
    };
    Ok((filter, options))
}

fn read_deliveries(
    reader: &mut Reader<'_>,
    first: DeliveryNumber,
) -> Result<Vec<DeliveryNumber>, RecordError> {
    let mut last = first;
    list(reader, 1, |reader| {
        last = after(last, reader)?;
        Ok(last)
    })
}

/// A field that is there if `flag` is not 0.
fn some<'a, T>(
    flag: u8,
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, RecordError>,
) -> Result<Option<T>, RecordError> {
    if flag == 0 { Ok(None) } else { read(reader).map(Some) }
}

/// A list of elements of at least `bytes_min` bytes each.
fn list<'a, T>(
    reader: &mut Reader<'a>,
    bytes_min: usize,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, RecordError>,
) -> Result<Vec<T>, RecordError> {
    (0..reader.count(bytes_min)?).map(|_| read(reader)).collect()
}

fn session(reader: &mut Reader<'_>) -> Result<SessionNumber, RecordError> {
    reader.u64().map(SessionNumber)
}

fn delivery(reader: &mut Reader<'_>) -> Result<DeliveryNumber, RecordError> {
    reader.u64().map(DeliveryNumber)
}

fn after(last: DeliveryNumber, reader: &mut Reader<'_>) -> Result<DeliveryNumber, RecordError> {
    Ok(DeliveryNumber(last.0.wrapping_add(reader.u64()?)))
}

fn wall_time(reader: &mut Reader<'_>) -> Result<WallTime, RecordError> {
    reader.u64().map(WallTime)
}

fn publisher(reader: &mut Reader<'_>) -> Result<(SessionNumber, PacketId), RecordError> {
    Ok((session(reader)?, packet_id(reader)?))
}

fn shard_and_stamp(reader: &mut Reader<'_>) -> Result<(ShardId, u64), RecordError> {
    Ok((ShardId(reader.number()?), reader.u64()?))
}

fn packet_id(reader: &mut Reader<'_>) -> Result<PacketId, RecordError> {
    PacketId::new(reader.number()?).ok_or(RecordError("packet identifier is 0"))
}

fn identifier(reader: &mut Reader<'_>) -> Result<NonZeroU32, RecordError> {
    NonZeroU32::new(reader.number()?).ok_or(RecordError("subscription identifier is 0"))
}

fn filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, RecordError> {
    let text = reader.text()?;
    TopicFilter::check(text).map_err(|_| RecordError("text is not a topic filter"))?;
    Ok(text)
}

fn qos(flags: u8) -> Result<QoS, RecordError> {
    QoS::from_bits(flags & 3).ok_or(RecordError("QoS 3"))
}

/// Session, delivery and flags take a byte each.
const TARGET_BYTES_MIN: usize = 3;
