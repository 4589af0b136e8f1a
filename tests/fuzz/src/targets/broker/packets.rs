//! Packets of clients, made from the bytes of an input: mostly valid ones, about few names that meet.

use ringmq::{
    auth::scram::METHOD,
    base::{PacketId, QoS},
    codec::{
        Auth, Connect, Disconnect, Packet, PacketType, Properties, Property, PropertyBuf, Publish,
        ReasonCode, RetainHandling, SubscribeFilter, Version, Will, encode_ack, encode_publish,
        encode_subscribe, encode_unsubscribe,
    },
    topic::TopicName,
};

use crate::{input::Input, scram, targets::VERSIONS};

pub(super) const TOPICS: [&str; 24] = [
    "a",
    "a/b",
    "a/b/c",
    "b",
    "$d/x",
    "/",
    "a//b",
    "$SYS/x",
    "a/topic/to/have/an/alias",
    "a/topic/to/have/another/alias",
    "$delayed/0/a",
    "$delayed/5/a/b",
    "$delayed/4294967/b",
    "$delayed/4294968/b",
    "$delayed/1/$delayed/1/a",
    "$delayed/3/$d/x",
    "$request/a",
    "$request/#",
    "$request/+/b",
    "$request/a/b",
    "$exclusive/a",
    "$queue/a",
    "$share/g/a",
    "$delayed",
];

/// Filters that one session has at a time.
pub(super) const EXCLUSIVES: [&str; 3] = ["$exclusive/a", "$exclusive/b", "$exclusive/a/#"];

const FILTERS: [&str; 32] = [
    "a",
    "a/b",
    "#",
    "+",
    "+/b",
    "a/#",
    "+/+/c",
    "$d/#",
    "/",
    "a//b",
    "$share/g/a",
    "$share/g/#",
    "$share/h/+/b",
    "b",
    "$share//a",
    "a/#/b",
    "$queue/a",
    "$queue/#",
    EXCLUSIVES[0],
    EXCLUSIVES[1],
    EXCLUSIVES[2],
    "$request/a",
    "$request/#",
    "$request/+/b",
    "$share/s/a/#",
    "$share/c/+",
    "$share/t/a/b",
    "$share/l/a",
    "a/topic/#",
    "$queue",
    "$share/g/$request/a",
    "user/#",
];

const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

pub(super) fn connect(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let bits = input.u8();
    let version = VERSIONS[usize::from(bits) % 3];
    let (mut properties, mut will_properties) = (PropertyBuf::new(), PropertyBuf::new());
    let client_id = input.pick(&["a", "b", "c", "d", "e", ""]);
    let keep_alive_secs = input.pick(&[0, 1, 60]);
    if bits & 0x10 != 0 {
        properties.push(Property::SessionExpiryInterval(input.pick(&[0, 5, 3_000, u32::MAX])));
        properties.push(Property::ReceiveMaximum(input.pick(&[u16::MAX, 1, 2])));
        if let Some(bytes) = input.pick(&[None, None, Some(1), Some(4), Some(20), Some(60)]) {
            properties.push(Property::MaximumPacketSize(bytes));
        }
    }
    let (mut user_name, mut has_first) = (None, false);
    if bits & 8 != 0 {
        properties.push(Property::TopicAliasMaximum(input.pick(&[16, 1, 2, 0, u16::MAX])));
        let extras = input.u8();
        properties.push(Property::RequestResponseInformation(extras & 1 != 0));
        properties.push(Property::RequestProblemInformation(extras & 2 == 0));
        user_name = (extras & 4 != 0).then(|| input.pick(&["user", "", "+", "other"]));
        has_first = extras & 8 != 0;
        if extras & 0x18 != 0 {
            properties.push(Property::AuthenticationMethod(METHOD));
        }
    }
    if has_first {
        properties.push(Property::AuthenticationData(input.pick(&CLIENT_MESSAGES)));
    }
    let payload = [b'w'; 3];
    let will = (bits & 0x20 != 0).then(|| {
        will_properties.push(Property::WillDelayInterval(input.pick(&[0, 3, 5_000])));
        will_properties.push(Property::MessageExpiryInterval(input.pick(&[60, 0, u32::MAX])));
        Will {
            qos: input.pick(&LEVELS),
            retain: bits & 0x40 != 0,
            topic: topic(input),
            properties: will_properties.as_properties(),
            payload: &payload[..usize::from(input.u8()) % 4],
        }
    });
    let connect = Connect {
        version,
        clean_start: bits & 0x80 != 0,
        keep_alive_secs,
        client_id,
        properties: properties.as_properties(),
        will,
        user_name,
        password: None,
    };
    Packet::Connect(connect).encode(version, out);
}

/// An AUTH that fits or not.
pub(super) fn auth(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let (again, go_on) = (ReasonCode::ReAuthenticate, ReasonCode::ContinueAuthentication);
    let reason = input.pick(&[again, go_on, again, ReasonCode::Success]);
    let mut properties = PropertyBuf::new();
    if let Some(method) = input.pick(&[Some(METHOD), Some(METHOD), Some("PLAIN"), None]) {
        properties.push(Property::AuthenticationMethod(method));
        let choice = usize::from(input.u8());
        let data = match CLIENT_MESSAGES.get(choice) {
            Some(message) => Some(*message),
            // Any bytes, or none.
            None => (choice < 0x80).then(|| input.take(choice)),
        };
        data.into_iter().for_each(|data| properties.push(Property::AuthenticationData(data)));
    }
    let auth = Auth { reason, properties: properties.as_properties() };
    Packet::Auth(auth).encode(Version::V5, out);
}

/// The AUTH that answers one from the broker.
pub(super) fn continue_authentication(data: &[u8]) -> Vec<u8> {
    let mut properties = PropertyBuf::new();
    properties.push(Property::AuthenticationMethod(METHOD));
    properties.push(Property::AuthenticationData(data));
    let reason = ReasonCode::ContinueAuthentication;
    let auth = Auth { reason, properties: properties.as_properties() };
    let mut packet = Vec::new();
    Packet::Auth(auth).encode(Version::V5, &mut packet);
    packet
}

pub(super) fn publish(version: Version, input: &mut Input<'_>, out: &mut Vec<u8>) {
    let bits = input.u8();
    let qos = LEVELS[usize::from(bits) % 3];
    let topic = topic(input);
    let packet_id = PacketId::FIRST.plus(u16::from(input.u8()));
    let mut properties = PropertyBuf::new();
    if bits & 0x20 != 0 {
        properties.push(Property::TopicAlias(input.pick(&[1, 2, 4, 5])));
    }
    if bits & 0x40 != 0 {
        properties.push(Property::MessageExpiryInterval(input.pick(&[1, 0, 100, u32::MAX])));
    }
    let payload = vec![b'p'; input.pick(&[1, 0, 3, 100, 4_000])];
    let publish = Publish {
        dup: bits & 8 != 0 && qos > QoS::AtMostOnce,
        qos,
        retain: bits & 0x10 != 0,
        // The alias stands for it.
        topic: (bits & 0xA0 != 0xA0 || version < Version::V5).then_some(topic),
        packet_id: Some(packet_id),
        properties: properties.as_properties(),
        payload: &payload,
    };
    encode_publish(version, &publish, out);
}

/// The same message many times, under one identifier after the other.
pub(super) fn publish_many(version: Version, input: &mut Input<'_>, out: &mut Vec<u8>) {
    let (qos, topic, count) = (input.pick(&LEVELS), topic(input), u16::from(input.u8()));
    let payload = vec![b'm'; input.pick(&[1, 100, 2_000])];
    for number in 0..count * 16 {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: Some(topic),
            packet_id: Some(PacketId::FIRST.plus(number)),
            properties: Properties::EMPTY,
            payload: &payload,
        };
        encode_publish(version, &publish, out);
    }
}

pub(super) fn subscribe(version: Version, input: &mut Input<'_>, out: &mut Vec<u8>) {
    let mut properties = PropertyBuf::new();
    let identifier = u32::from(input.u8() % 4);
    if identifier > 0 {
        properties.push(Property::SubscriptionIdentifier(identifier));
    }
    let mut filters = Vec::new();
    for _ in 0..=input.u8() % 3 {
        let (filter, bits) = (input.pick(&FILTERS), input.u8());
        filters.push(SubscribeFilter {
            filter,
            qos: LEVELS[usize::from(bits) % 3],
            no_local: bits & 8 != 0 && !filter.starts_with('$'),
            retain_as_published: bits & 0x10 != 0,
            retain_handling: input.pick(&[
                RetainHandling::SendAtSubscribe,
                RetainHandling::SendIfNew,
                RetainHandling::DoNotSend,
            ]),
        });
    }
    let id = PacketId::FIRST.plus(u16::from(input.u8()));
    encode_subscribe(version, id, properties.as_properties(), &filters, out);
}

pub(super) fn unsubscribe(version: Version, input: &mut Input<'_>, out: &mut Vec<u8>) {
    let filters = [input.pick(&FILTERS), input.pick(&FILTERS)];
    encode_unsubscribe(version, PacketId::FIRST, Properties::EMPTY, &filters, out);
}

/// An acknowledgement of anything.
pub(super) fn acknowledge(input: &mut Input<'_>, out: &mut Vec<u8>) {
    use PacketType::{PubAck, PubComp, PubRec, PubRel};
    let kind = input.pick(&[PubAck, PubRec, PubRel, PubComp]);
    let id = PacketId::FIRST.plus(u16::from(input.u8()));
    encode_ack(kind, id, out);
    if input.u8() & 1 == 1 && kind == PubRec {
        // A refusal: reason code 0x80, in 5.0 only.
        let at = out.len() - 3;
        out[at] = 3;
        out.push(0x80);
    }
}

pub(super) fn disconnect(version: Version, input: &mut Input<'_>, out: &mut Vec<u8>) {
    let reason = input.pick(&[ReasonCode::NormalDisconnection, ReasonCode(0x04)]);
    let mut properties = PropertyBuf::new();
    if let Some(secs) = input.pick(&[None, Some(0), Some(5), Some(u32::MAX)]) {
        properties.push(Property::SessionExpiryInterval(secs));
    }
    let disconnect = Disconnect { reason, properties: properties.as_properties() };
    Packet::Disconnect(disconnect).encode(version, out);
}

/// A PUBLISH without payload: removes the retained message, if `retain`.
pub(super) fn clear(version: Version, topic: &str, qos: QoS, retain: bool) -> Vec<u8> {
    let publish = Publish {
        dup: false,
        qos,
        retain,
        topic: TopicName::parse(topic).ok(),
        packet_id: Some(PacketId::FIRST),
        properties: Properties::EMPTY,
        payload: &[],
    };
    let mut packet = Vec::new();
    encode_publish(version, &publish, &mut packet);
    packet
}

/// A SUBSCRIBE of a client of 5.0.
pub(super) fn subscribe_to(filter: &str) -> Vec<u8> {
    let filter = SubscribeFilter {
        filter,
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: true,
        retain_handling: RetainHandling::SendAtSubscribe,
    };
    let mut packet = Vec::new();
    encode_subscribe(Version::V5, PacketId::FIRST, Properties::EMPTY, &[filter], &mut packet);
    packet
}

/// A CONNECT of 5.0 whose session ends with the connection and lives where it is.
pub(super) fn connect_as_anybody(authenticates: bool) -> Vec<u8> {
    let mut properties = PropertyBuf::new();
    if authenticates {
        properties.push(Property::AuthenticationMethod(METHOD));
    }
    let connect = Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive_secs: 0,
        client_id: "",
        properties: properties.as_properties(),
        will: None,
        user_name: None,
        password: None,
    };
    let mut packet = Vec::new();
    Packet::Connect(connect).encode(Version::V5, &mut packet);
    packet
}

fn topic(input: &mut Input<'_>) -> TopicName<'static> {
    TopicName::parse_received(input.pick(&TOPICS)).expect("a topic")
}

/// What clients say who authenticate, right or not.
const CLIENT_MESSAGES: [&[u8]; 6] = [
    scram::FIRST,
    b"n,,n=nobody,r=x",
    b"y,a=user,n=user,r=y",
    b"p=tls-unique,,n=user,r=x",
    b"c=biws,r=x,p=AAAA",
    b"",
];
