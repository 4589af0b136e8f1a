//! Property blocks in every packet that has one: accepted exactly if a plain reading of table 2-4 accepts
//! them, read in order, rebuilt to the same bytes, and passed on with an application message.

use std::num::NonZeroU32;

use ringmq::{
    base::{PacketId, QoS, Time},
    codec::{
        Packet, Properties, Property, PropertyBuf, Version, decode, decode_from_client, next_frame,
    },
    message::{Delivery, Message, Publication, SplitProperties, TopicForm},
    topic::TopicName,
};

use super::reference::{Block, Place};

/// The first byte says which packet, the rest is the block.
pub(crate) fn run(bytes: &[u8]) {
    let Some((&choice, block)) = bytes.split_first() else { return };
    let place = &Place::ALL[usize::from(choice) % Place::ALL.len()];
    let packet = place.packet(block);
    let frame = next_frame(&packet, u32::MAX).expect("a frame").expect("a whole frame");
    assert_eq!(frame.len, packet.len());
    let expected = Block::read(block).filter(|found| place.allows(found));
    let decoded = decode(Version::V5, &frame);
    assert_eq!(decoded.is_ok(), expected.is_some(), "{place:?} {block:02X?}: {decoded:?}");
    let is_client = decode_from_client(Version::V5, &frame).is_ok();
    let client_may = expected.as_ref().is_some_and(|found| place.client_may(found));
    assert_eq!(is_client, client_may, "{place:?} {block:02X?}");
    let (Ok(packet), Some(expected)) = (decoded, expected) else { return };
    let properties = properties_of(&packet);
    assert_eq!(properties.raw(), block);
    let mut rebuilt = PropertyBuf::new();
    properties.iter().for_each(|property| rebuilt.push(property));
    assert_eq!(rebuilt.as_properties(), properties, "read and written again");
    assert_eq!(rebuilt.is_empty(), expected.ids.is_empty());
    assert_eq!(properties.iter().count(), expected.ids.len());
    if place.is_message() {
        check_message(properties);
    }
}

/// The block that [`Place::packet`] has put in.
fn properties_of<'a>(packet: &Packet<'a>) -> Properties<'a> {
    match packet {
        Packet::Connect(connect) => match connect.will {
            Some(will) => will.properties,
            None => connect.properties,
        },
        Packet::ConnAck(connack) => connack.properties,
        Packet::Publish(publish) => publish.properties,
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.properties
        }
        Packet::Subscribe(subscribe) => subscribe.properties,
        Packet::SubAck(suback) => suback.properties,
        Packet::Unsubscribe(unsubscribe) => unsubscribe.properties,
        Packet::UnsubAck(unsuback) => unsuback.properties,
        Packet::Disconnect(disconnect) => disconnect.properties,
        Packet::Auth(auth) => auth.properties,
        Packet::PingReq | Packet::PingResp => Properties::EMPTY,
    }
}

/// What becomes of a PUBLISH's or will's properties on the way to a subscriber.
fn check_message(received: Properties<'_>) {
    let now = Time::from_millis(5);
    let split = SplitProperties::new(received);
    let travelling: Vec<_> = received.iter().filter(travels).collect();
    assert_eq!(split.travelling().iter().collect::<Vec<_>>(), travelling);
    let message = Message {
        topic: TopicName::parse("t").expect("a topic"),
        properties: split.travelling(),
        payload: b"payload",
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: split.message_expiry_secs.map(|secs| now.plus_secs(u64::from(secs))),
        original: None,
        shared: None,
    };
    let publication = Publication::new(&message);
    assert_eq!(publication.message().properties, message.properties);
    let identifiers = [NonZeroU32::MIN, NonZeroU32::new(268_435_455).expect("not 0")];
    let forms = [TopicForm::Name, TopicForm::NameAndAlias(5), TopicForm::Alias(5)];
    let all_forms = forms.map(|form| (Version::V5, form));
    for (version, topic) in
        super::VERSIONS.map(|version| (version, TopicForm::Name)).into_iter().chain(all_forms)
    {
        let delivery = Delivery {
            message: publication.message(),
            qos: QoS::AtLeastOnce,
            retain: true,
            dup: true,
            packet_id: PacketId::new(7),
            topic,
            identifiers: &identifiers,
        };
        let mut bytes = Vec::new();
        let at = delivery.encode(version, now, &mut bytes).expect("a Packet Identifier");
        assert_eq!(bytes[at..at + 2], [0, 7]);
        let frame = next_frame(&bytes, u32::MAX).expect("a frame").expect("a whole frame");
        let Ok(Packet::Publish(publish)) = decode(version, &frame) else {
            panic!("{bytes:02X?} is no PUBLISH");
        };
        let mut expected = Vec::new();
        if version == Version::V5 {
            expected.extend(split.message_expiry_secs.map(Property::MessageExpiryInterval));
            expected.extend((topic != TopicForm::Name).then_some(Property::TopicAlias(5)));
            expected.extend(identifiers.map(|id| Property::SubscriptionIdentifier(id.get())));
            expected.extend(&travelling);
        }
        assert_eq!(publish.properties.iter().collect::<Vec<_>>(), expected);
        assert_eq!(publish.topic.is_none(), matches!(topic, TopicForm::Alias(_)));
        assert_eq!(publish.payload, b"payload");
    }
}

fn travels(property: &Property<'_>) -> bool {
    use Property::{
        ContentType, CorrelationData, PayloadFormatIndicator, ResponseTopic, UserProperty,
    };
    matches!(
        property,
        PayloadFormatIndicator(_)
            | ContentType(_)
            | ResponseTopic(_)
            | CorrelationData(_)
            | UserProperty(..)
    )
}
