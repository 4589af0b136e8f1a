//! Packets as mqtt-packet names their fields: from a decoded packet to JSON, every field of it, and
//! from JSON to bytes by way of the encoder. Properties are lists of name and values.

use ringmq::base::{PacketId, QoS};
use ringmq::codec::{
    Ack, Auth, ConnAck, Connect, Disconnect, Frame, Packet, Properties, Property, PropertyBuf,
    Publish, ReasonCode, RetainHandling, SubAck, SubscribeFilter, UnsubAck, Version, Will,
    encode_subscribe, encode_unsubscribe,
};
use ringmq::topic::TopicName;
use serde_json::{Map, Value, json};

/// Bytes written as hexadecimal digits, `DIGITS*COUNT` for a last byte that stands COUNT times.
pub(crate) fn unfold(text: &str) -> Vec<u8> {
    let (digits, count) = text.split_once('*').unwrap_or((text, "1"));
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
    let head: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    let count: usize = count.parse().expect("a number");
    let Some(&last) = head.last() else { return head };
    // Zeros cost no memory until they are written.
    let mut bytes = vec![0; head.len() + count - 1];
    bytes[..head.len()].copy_from_slice(&head);
    if last != 0 {
        bytes[head.len()..].fill(last);
    }
    bytes
}

/// The same the other way.
pub(crate) fn fold(bytes: &[u8]) -> String {
    const RUN_MIN: usize = 1024;
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let last = bytes.last();
    let start = bytes.iter().rposition(|byte| Some(byte) != last).map_or(0, |at| at + 1);
    match bytes.len() - start {
        run if run < RUN_MIN => digits(bytes),
        run => format!("{}*{run}", digits(&bytes[..=start])),
    }
}

/// The protocol version for its number in CONNECT, 4 unless it is named.
pub(crate) fn version_of(number: &Value) -> Version {
    match number.as_u64() {
        Some(3) => Version::V31,
        None | Some(4) => Version::V311,
        Some(5) => Version::V5,
        other => panic!("protocol version {other:?}"),
    }
}

/// Every field of a decoded packet.
pub(crate) fn to_json(version: Version, frame: &Frame<'_>, packet: &Packet<'_>) -> Value {
    let v5 = version == Version::V5;
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("cmd", format!("{:?}", packet.packet_type()).to_lowercase().into());
    put("length", frame.body.len().into());
    put("retain", (frame.first & 1 != 0).into());
    put("qos", (frame.first >> 1 & 3).into());
    put("dup", (frame.first & 8 != 0).into());
    let properties = match packet {
        Packet::Connect(connect) => return connect_to_json(object, connect),
        Packet::ConnAck(connack) => {
            put("sessionPresent", connack.session_present.into());
            match version {
                Version::V5 => put("reasonCode", connack.reason.0.into()),
                _ => put("returnCode", connack.reason.connect_return_code().into()),
            };
            connack.properties
        }
        Packet::Publish(publish) => {
            put("retain", publish.retain.into());
            put("qos", publish.qos.bits().into());
            put("dup", publish.dup.into());
            put("topic", publish.topic.map_or("", TopicName::as_str).into());
            put("payload", fold(publish.payload).into());
            if let Some(packet_id) = publish.packet_id {
                put("messageId", packet_id.get().into());
            }
            publish.properties
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            put("messageId", ack.packet_id.get().into());
            if v5 {
                put("reasonCode", ack.reason.0.into());
            }
            ack.properties
        }
        Packet::Subscribe(subscribe) => {
            put("messageId", subscribe.packet_id.get().into());
            let filters = subscribe.filters().map(|filter| filter_to_json(v5, &filter));
            put("subscriptions", filters.collect());
            subscribe.properties
        }
        Packet::SubAck(suback) => {
            put("messageId", suback.packet_id.get().into());
            put("granted", suback.reasons.into());
            suback.properties
        }
        Packet::Unsubscribe(unsubscribe) => {
            put("messageId", unsubscribe.packet_id.get().into());
            put("unsubscriptions", unsubscribe.filters().collect());
            unsubscribe.properties
        }
        Packet::UnsubAck(unsuback) => {
            put("messageId", unsuback.packet_id.get().into());
            if v5 {
                put("granted", unsuback.reasons.into());
            }
            unsuback.properties
        }
        Packet::PingReq | Packet::PingResp => Properties::EMPTY,
        Packet::Disconnect(Disconnect { reason, properties }) => {
            if v5 {
                put("reasonCode", reason.0.into());
            }
            *properties
        }
        Packet::Auth(Auth { reason, properties }) => {
            put("reasonCode", reason.0.into());
            *properties
        }
    };
    put_properties(&mut object, properties);
    object.into()
}

fn connect_to_json(mut object: Map<String, Value>, connect: &Connect<'_>) -> Value {
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    let name = if connect.version == Version::V31 { "MQIsdp" } else { "MQTT" };
    put("protocolId", name.into());
    put("protocolVersion", connect.version.level().into());
    put("clean", connect.clean_start.into());
    put("keepalive", connect.keep_alive_secs.into());
    put("clientId", connect.client_id.into());
    if let Some(will) = &connect.will {
        let mut object = Map::new();
        object.insert("qos".to_owned(), will.qos.bits().into());
        object.insert("retain".to_owned(), will.retain.into());
        object.insert("topic".to_owned(), will.topic.as_str().into());
        object.insert("payload".to_owned(), fold(will.payload).into());
        put_properties(&mut object, will.properties);
        put("will", object.into());
    }
    if let Some(user_name) = connect.user_name {
        put("username", user_name.into());
    }
    if let Some(password) = connect.password {
        put("password", fold(password).into());
    }
    put_properties(&mut object, connect.properties);
    object.into()
}

fn filter_to_json(v5: bool, filter: &SubscribeFilter<'_>) -> Value {
    let mut object = json!({ "topic": filter.filter, "qos": filter.qos.bits() });
    if v5 {
        object["nl"] = filter.no_local.into();
        object["rap"] = filter.retain_as_published.into();
        object["rh"] = (filter.retain_handling as u8).into();
    }
    object
}

/// Nothing for an empty block, as in mqtt-packet.
fn put_properties(object: &mut Map<String, Value>, properties: Properties<'_>) {
    if !properties.is_empty() {
        let list = properties.iter().map(property_to_json).collect();
        object.insert("properties".to_owned(), list);
    }
}

fn property_to_json(property: Property<'_>) -> Value {
    use Property as P;
    match property {
        P::PayloadFormatIndicator(v) => json!(["payloadFormatIndicator", v == 1]),
        P::MessageExpiryInterval(v) => json!(["messageExpiryInterval", v]),
        P::ContentType(v) => json!(["contentType", v]),
        P::ResponseTopic(v) => json!(["responseTopic", v]),
        P::CorrelationData(v) => json!(["correlationData", fold(v)]),
        P::SubscriptionIdentifier(v) => json!(["subscriptionIdentifier", v]),
        P::SessionExpiryInterval(v) => json!(["sessionExpiryInterval", v]),
        P::AssignedClientIdentifier(v) => json!(["assignedClientIdentifier", v]),
        P::ServerKeepAlive(v) => json!(["serverKeepAlive", v]),
        P::AuthenticationMethod(v) => json!(["authenticationMethod", v]),
        P::AuthenticationData(v) => json!(["authenticationData", fold(v)]),
        P::RequestProblemInformation(v) => json!(["requestProblemInformation", v]),
        P::WillDelayInterval(v) => json!(["willDelayInterval", v]),
        P::RequestResponseInformation(v) => json!(["requestResponseInformation", v]),
        P::ResponseInformation(v) => json!(["responseInformation", v]),
        P::ServerReference(v) => json!(["serverReference", v]),
        P::ReasonString(v) => json!(["reasonString", v]),
        P::ReceiveMaximum(v) => json!(["receiveMaximum", v]),
        P::TopicAliasMaximum(v) => json!(["topicAliasMaximum", v]),
        P::TopicAlias(v) => json!(["topicAlias", v]),
        P::MaximumQoS(v) => json!(["maximumQoS", v]),
        P::RetainAvailable(v) => json!(["retainAvailable", v]),
        P::UserProperty(name, v) => json!(["userProperties", name, v]),
        P::MaximumPacketSize(v) => json!(["maximumPacketSize", v]),
        P::WildcardSubscriptionAvailable(v) => json!(["wildcardSubscriptionAvailable", v]),
        P::SubscriptionIdentifiersAvailable(v) => json!(["subscriptionIdentifiersAvailable", v]),
        P::SharedSubscriptionAvailable(v) => json!(["sharedSubscriptionAvailable", v]),
    }
}

/// The packet as the encoder writes it. What the object leaves out has mqtt-packet's default.
pub(crate) fn encode(version: Version, object: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let block = properties_of(&object["properties"]);
    let properties = block.as_properties();
    let packet_id = object["messageId"].as_u64().and_then(|id| PacketId::new(id as u16));
    let id = || packet_id.expect("a messageId");
    let reason = ReasonCode(object["reasonCode"].as_u64().unwrap_or(0) as u8);
    let reasons = bytes_of(&object["granted"]);
    let ack = || Ack { packet_id: id(), reason, properties };
    let packet = match text(&object["cmd"]) {
        "connect" => return encode_connect(object),
        "connack" => {
            let reason = match version {
                Version::V5 => reason,
                _ => reason_of_return_code(&object["returnCode"]),
            };
            let session_present = flag(&object["sessionPresent"]);
            Packet::ConnAck(ConnAck { session_present, reason, properties })
        }
        "publish" => {
            let payload = unfold(object["payload"].as_str().unwrap_or_default());
            let publish = Publish {
                dup: flag(&object["dup"]),
                qos: qos(&object["qos"]),
                retain: flag(&object["retain"]),
                topic: TopicName::parse(text(&object["topic"])).ok(),
                packet_id,
                properties,
                payload: &payload,
            };
            Packet::Publish(publish).encode(version, &mut out);
            return out;
        }
        "puback" => Packet::PubAck(ack()),
        "pubrec" => Packet::PubRec(ack()),
        "pubrel" => Packet::PubRel(ack()),
        "pubcomp" => Packet::PubComp(ack()),
        "subscribe" => {
            let filters: Vec<_> = list(&object["subscriptions"]).iter().map(filter_of).collect();
            encode_subscribe(version, id(), properties, &filters, &mut out);
            return out;
        }
        "suback" => Packet::SubAck(SubAck { packet_id: id(), properties, reasons: &reasons }),
        "unsubscribe" => {
            let filters: Vec<_> = list(&object["unsubscriptions"]).iter().map(text).collect();
            encode_unsubscribe(version, id(), properties, &filters, &mut out);
            return out;
        }
        "unsuback" => Packet::UnsubAck(UnsubAck { packet_id: id(), properties, reasons: &reasons }),
        "pingreq" => Packet::PingReq,
        "pingresp" => Packet::PingResp,
        "disconnect" => Packet::Disconnect(Disconnect { reason, properties }),
        "auth" => Packet::Auth(Auth { reason, properties }),
        other => panic!("a packet called {other}"),
    };
    packet.encode(version, &mut out);
    out
}

fn encode_connect(object: &Value) -> Vec<u8> {
    let block = properties_of(&object["properties"]);
    let will_block = properties_of(&object["will"]["properties"]);
    let binary = |value: &Value| value.as_str().map(unfold);
    let will_payload = binary(&object["will"]["payload"]).unwrap_or_default();
    let password = binary(&object["password"]);
    let will = object["will"].as_object().map(|will| Will {
        qos: qos(&will["qos"]),
        retain: flag(&will["retain"]),
        topic: TopicName::parse(text(&will["topic"])).expect("a topic"),
        properties: will_block.as_properties(),
        payload: &will_payload,
    });
    let connect = Connect {
        version: version_of(&object["protocolVersion"]),
        clean_start: object["clean"].as_bool().unwrap_or(true),
        keep_alive_secs: object["keepalive"].as_u64().unwrap_or(0) as u16,
        client_id: object["clientId"].as_str().unwrap_or_default(),
        properties: block.as_properties(),
        will,
        user_name: object["username"].as_str(),
        password: password.as_deref(),
    };
    let mut out = Vec::new();
    Packet::Connect(connect).encode(connect.version, &mut out);
    out
}

fn reason_of_return_code(code: &Value) -> ReasonCode {
    match code.as_u64() {
        Some(0) | None => ReasonCode::Success,
        Some(1) => ReasonCode::UnsupportedProtocolVersion,
        Some(2) => ReasonCode::ClientIdentifierNotValid,
        Some(3) => ReasonCode::ServerUnavailable,
        Some(4) => ReasonCode::BadUserNameOrPassword,
        Some(5) => ReasonCode::NotAuthorized,
        Some(other) => panic!("return code {other}"),
    }
}

fn filter_of(object: &Value) -> SubscribeFilter<'_> {
    SubscribeFilter {
        filter: text(&object["topic"]),
        qos: qos(&object["qos"]),
        no_local: flag(&object["nl"]),
        retain_as_published: flag(&object["rap"]),
        retain_handling: match object["rh"].as_u64() {
            None | Some(0) => RetainHandling::SendAtSubscribe,
            Some(1) => RetainHandling::SendIfNew,
            Some(2) => RetainHandling::DoNotSend,
            other => panic!("retain handling {other:?}"),
        },
    }
}

fn properties_of(block: &Value) -> PropertyBuf {
    let mut properties = PropertyBuf::new();
    for property in block.as_array().into_iter().flatten() {
        push_property(&mut properties, property);
    }
    properties
}

fn push_property(properties: &mut PropertyBuf, property: &Value) {
    use Property as P;
    let value = &property[1];
    let number = || value.as_u64().expect("a number") as u32;
    let short = || number() as u16;
    let binary = || unfold(text(value));
    properties.push(match text(&property[0]) {
        "payloadFormatIndicator" => P::PayloadFormatIndicator(flag(value).into()),
        "messageExpiryInterval" => P::MessageExpiryInterval(number()),
        "contentType" => P::ContentType(text(value)),
        "responseTopic" => P::ResponseTopic(text(value)),
        "correlationData" => return properties.push(P::CorrelationData(&binary())),
        "subscriptionIdentifier" => P::SubscriptionIdentifier(number()),
        "sessionExpiryInterval" => P::SessionExpiryInterval(number()),
        "assignedClientIdentifier" => P::AssignedClientIdentifier(text(value)),
        "serverKeepAlive" => P::ServerKeepAlive(short()),
        "authenticationMethod" => P::AuthenticationMethod(text(value)),
        "authenticationData" => return properties.push(P::AuthenticationData(&binary())),
        "requestProblemInformation" => P::RequestProblemInformation(flag(value)),
        "willDelayInterval" => P::WillDelayInterval(number()),
        "requestResponseInformation" => P::RequestResponseInformation(flag(value)),
        "responseInformation" => P::ResponseInformation(text(value)),
        "serverReference" => P::ServerReference(text(value)),
        "reasonString" => P::ReasonString(text(value)),
        "receiveMaximum" => P::ReceiveMaximum(short()),
        "topicAliasMaximum" => P::TopicAliasMaximum(short()),
        "topicAlias" => P::TopicAlias(short()),
        "maximumQoS" => P::MaximumQoS(short() as u8),
        "retainAvailable" => P::RetainAvailable(flag(value)),
        "userProperties" => P::UserProperty(text(value), text(&property[2])),
        "maximumPacketSize" => P::MaximumPacketSize(number()),
        "wildcardSubscriptionAvailable" => P::WildcardSubscriptionAvailable(flag(value)),
        "subscriptionIdentifiersAvailable" => P::SubscriptionIdentifiersAvailable(flag(value)),
        "sharedSubscriptionAvailable" => P::SharedSubscriptionAvailable(flag(value)),
        other => panic!("a property called {other}"),
    });
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn flag(value: &Value) -> bool {
    value.as_bool().unwrap_or(false)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn bytes_of(value: &Value) -> Vec<u8> {
    list(value).iter().map(|byte| byte.as_u64().expect("a number") as u8).collect()
}

fn qos(value: &Value) -> QoS {
    QoS::from_bits(value.as_u64().unwrap_or(0) as u8).expect("a QoS")
}
