use super::*;

fn client(version: Version, qos: QoS, filter: Option<&str>) -> Client {
    let mut client = Client::new(Setup {
        version,
        qos,
        client_id: "c".to_owned(),
        filter: filter.map(str::to_owned),
        inflight_max: 2,
        packet_bytes_max: 1000,
    });
    client.take_output();
    client
}

/// A publisher or subscriber that has connected and subscribed.
fn ready(qos: QoS, filter: Option<&str>) -> Client {
    let mut client = client(Version::V311, qos, filter);
    let mut answers = b"\x20\x02\0\0".to_vec();
    if filter.is_some() {
        answers.extend([0x90, 3, 0, 1, qos.bits()]);
    }
    assert_eq!(receive(&mut client, &answers), Ok(vec!["Ready".to_owned()]));
    client.take_output();
    client
}

fn receive(client: &mut Client, bytes: &[u8]) -> Result<Vec<String>, ClientError> {
    let mut notices = Vec::new();
    client.receive(bytes, |notice| notices.push(format!("{notice:?}")))?;
    Ok(notices)
}

fn publish(client: &mut Client, qos: QoS, sequence: u64) -> Vec<u8> {
    let topic = TopicName::parse("t").unwrap();
    let template = Template::new(Version::V311, qos, topic, Stamp::BYTES);
    assert!(client.has_room());
    client.publish(&template, Stamp { publisher: 0, sequence, intended: 100 + sequence });
    client.take_output()
}

#[test]
fn a_subscriber_connects_then_subscribes() {
    for (version, connect, connack, subscribe, suback) in [
        (
            Version::V311,
            &b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c"[..],
            &b"\x20\x02\0\0"[..],
            &b"\x82\x08\0\x01\0\x03a/+\x01"[..],
            &b"\x90\x03\0\x01\x01"[..],
        ),
        (
            Version::V5,
            b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01c",
            b"\x20\x06\0\0\x03\x21\0\x0a",
            b"\x82\x09\0\x01\0\0\x03a/+\x21",
            b"\x90\x04\0\x01\0\x01",
        ),
    ] {
        let mut client = Client::new(Setup {
            version,
            qos: QoS::AtLeastOnce,
            client_id: "c".to_owned(),
            filter: Some("a/+".to_owned()),
            inflight_max: 1,
            packet_bytes_max: 1000,
        });
        assert_eq!(client.take_output(), connect);
        assert_eq!(receive(&mut client, connack), Ok(vec![]));
        assert_eq!(client.take_output(), subscribe);
        assert_eq!(receive(&mut client, suback), Ok(vec!["Ready".to_owned()]));
        assert!(!client.has_output());
    }
}

#[test]
fn a_qos_2_delivery_is_told_once_and_answered_each_time() {
    let mut client = ready(QoS::ExactlyOnce, Some("t"));
    let publish = b"\x34\x06\0\x01t\0\x07x";
    assert_eq!(receive(&mut client, publish), Ok(vec!["Delivered([120])".to_owned()]));
    assert_eq!(receive(&mut client, publish), Ok(vec![]));
    assert_eq!(receive(&mut client, b"\x62\x02\0\x07"), Ok(vec![]));
    assert_eq!(client.take_output(), b"\x50\x02\0\x07\x50\x02\0\x07\x70\x02\0\x07");
    assert_eq!(receive(&mut client, publish).unwrap().len(), 1, "a released identifier is free");
}

#[test]
fn packets_may_arrive_in_any_pieces() {
    let mut client = ready(QoS::AtLeastOnce, Some("t"));
    let bytes = b"\x32\x06\0\x01t\0\x01x\xd0\0\x32\x06\0\x01t\0\x02y";
    let mut notices = Vec::new();
    for piece in bytes.chunks(3) {
        notices.extend(receive(&mut client, piece).unwrap());
    }
    assert_eq!(notices, ["Delivered([120])", "Delivered([121])"]);
    assert_eq!(client.take_output(), b"\x40\x02\0\x01\x40\x02\0\x02");
}

#[test]
fn acknowledgements_carry_the_intended_time_and_make_room() {
    let mut client = ready(QoS::AtLeastOnce, None);
    let first = publish(&mut client, QoS::AtLeastOnce, 0);
    assert_eq!(first[..7], *b"\x32\x15\0\x01t\0\x01");
    assert_eq!(Stamp::of(&first[7..]).map(|stamp| stamp.intended), Some(100));
    publish(&mut client, QoS::AtLeastOnce, 1);
    assert!(!client.has_room());
    let notices = receive(&mut client, b"\x40\x02\0\x02");
    let expected = "Acknowledged { step: PubAck, intended: 101, refused: false }";
    assert_eq!(notices, Ok(vec![expected.to_owned()]));
    assert!(client.has_room() && client.inflight() == 1);
}

#[test]
fn qos_2_goes_step_by_step() {
    let mut client = ready(QoS::ExactlyOnce, None);
    publish(&mut client, QoS::ExactlyOnce, 0);
    let notices = receive(&mut client, b"\x50\x02\0\x01").unwrap();
    assert_eq!(notices, ["Acknowledged { step: PubRec, intended: 100, refused: false }"]);
    assert_eq!((client.take_output().as_slice(), client.inflight()), (&b"\x62\x02\0\x01"[..], 1));
    let notices = receive(&mut client, b"\x70\x02\0\x01").unwrap();
    assert_eq!(notices, ["Acknowledged { step: PubComp, intended: 100, refused: false }"]);
    assert_eq!(client.inflight(), 0);
}

#[test]
fn a_refused_publication_is_over() {
    let mut client = client(Version::V5, QoS::ExactlyOnce, None);
    receive(&mut client, b"\x20\x06\0\0\x03\x21\0\x01").unwrap();
    publish(&mut client, QoS::ExactlyOnce, 0);
    assert!(!client.has_room(), "the broker's Receive Maximum is 1");
    let notices = receive(&mut client, b"\x50\x03\0\x01\x97").unwrap();
    assert_eq!(notices, ["Acknowledged { step: PubRec, intended: 100, refused: true }"]);
    assert!(client.has_room() && !client.has_output());
}

#[test]
fn brokers_that_break_the_rules_or_decline_are_told_apart() {
    use ClientError::{Disconnected, NotSubscribed, QosNotSupported, Refused, Unexpected};
    let v5 = |qos, filter| client(Version::V5, qos, filter);
    for (mut client, bytes, expected) in [
        (v5(QoS::AtMostOnce, None), &b"\x20\x03\0\x87\0"[..], Refused(ReasonCode::NotAuthorized)),
        (
            v5(QoS::ExactlyOnce, None),
            b"\x20\x05\0\0\x02\x24\x01",
            QosNotSupported(QoS::AtLeastOnce),
        ),
        (v5(QoS::AtMostOnce, Some("t")), b"\x90\x04\0\x01\0\x87", NotSubscribed(ReasonCode(0x87))),
        (v5(QoS::ExactlyOnce, Some("t")), b"\x90\x04\0\x01\0\0", QosNotSupported(QoS::AtMostOnce)),
        (v5(QoS::AtMostOnce, Some("t")), b"\x90\x05\0\x01\0\0\0", Unexpected(PacketType::SubAck)),
        (v5(QoS::AtMostOnce, None), b"\xe0\x01\x8b", Disconnected(ReasonCode::ServerShuttingDown)),
        (ready(QoS::AtLeastOnce, None), b"\x40\x02\0\x01", Unexpected(PacketType::PubAck)),
        (ready(QoS::AtMostOnce, None), b"\x30\x03\0\x01t", Unexpected(PacketType::Publish)),
        (ready(QoS::ExactlyOnce, None), b"\x70\x02\0\x01", Unexpected(PacketType::PubComp)),
        (ready(QoS::AtMostOnce, None), b"\x20\x02\0\0", Unexpected(PacketType::ConnAck)),
        (
            ready(QoS::AtMostOnce, Some("t")),
            b"\x30\xff\x7f",
            ClientError::Decode(DecodeError::PacketTooLarge),
        ),
    ] {
        assert_eq!(receive(&mut client, bytes), Err(expected), "{bytes:02X?}");
    }
}
