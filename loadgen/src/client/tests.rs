use super::*;

fn setup(version: Version, qos: QoS) -> Arc<Setup> {
    Arc::new(Setup {
        version,
        qos,
        clean_start: true,
        session_expiry_secs: 0,
        keep_alive_secs: 60,
        user_name: None,
        password: None,
        inflight_max: 2,
        packet_bytes_max: 1000,
        expects_qos: true,
    })
}

fn client(version: Version, qos: QoS, filter: Option<&str>) -> Client {
    let mut client = Client::new(&setup(version, qos), "c", filter);
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
    let expected = ["Connected", "Subscribed"];
    assert_eq!(
        receive(&mut client, &answers).unwrap(),
        expected[..1 + usize::from(filter.is_some())]
    );
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
    let template =
        Template::new(&setup(Version::V311, qos), false, topic, None, Payload::Stamped(16));
    assert!(client.has_room());
    let stamp = Stamp { tag: 1, publisher: 0, sequence, intended_unix_us: 1_000_000 };
    client.publish(&template, stamp, 100 + sequence);
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
            b"\x82\x09\0\x01\0\0\x03a/+\x01",
            b"\x90\x04\0\x01\0\x01",
        ),
    ] {
        let mut client = Client::new(&setup(version, QoS::AtLeastOnce), "c", Some("a/+"));
        assert_eq!(client.take_output(), connect);
        assert_eq!(receive(&mut client, connack), Ok(vec!["Connected".to_owned()]));
        assert_eq!(client.take_output(), subscribe);
        assert_eq!(receive(&mut client, suback), Ok(vec!["Subscribed".to_owned()]));
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
    let stamp = Stamp::of(&first[7..], 1_000_050).unwrap();
    assert_eq!((stamp.sequence, stamp.intended_unix_us), (0, 1_000_000));
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
    use ClientError::{
        Disconnected, NotSubscribed, OtherQos, QosNotSupported, Refused, Unexpected,
    };
    let v5 = |qos, filter| client(Version::V5, qos, filter);
    for (mut client, bytes, expected) in [
        (v5(QoS::AtMostOnce, None), &b"\x20\x03\0\x87\0"[..], Refused(ReasonCode::NotAuthorized)),
        (
            v5(QoS::ExactlyOnce, None),
            b"\x20\x05\0\0\x02\x24\x01",
            QosNotSupported(QoS::AtLeastOnce),
        ),
        (
            v5(QoS::AtMostOnce, Some("t")),
            b"\x20\x03\0\0\0\x90\x04\0\x01\0\x87",
            NotSubscribed(ReasonCode(0x87)),
        ),
        (
            v5(QoS::ExactlyOnce, Some("t")),
            b"\x20\x03\0\0\0\x90\x04\0\x01\0\0",
            QosNotSupported(QoS::AtMostOnce),
        ),
        (
            v5(QoS::AtMostOnce, Some("t")),
            b"\x20\x03\0\0\0\x90\x05\0\x01\0\0\0",
            Unexpected(PacketType::SubAck),
        ),
        (v5(QoS::AtMostOnce, Some("t")), b"\x90\x04\0\x01\0\0", Unexpected(PacketType::SubAck)),
        (v5(QoS::AtMostOnce, None), b"\xe0\x01\x8b", Disconnected(ReasonCode::ServerShuttingDown)),
        (ready(QoS::AtLeastOnce, None), b"\x40\x02\0\x01", Unexpected(PacketType::PubAck)),
        (ready(QoS::AtMostOnce, None), b"\x30\x03\0\x01t", Unexpected(PacketType::Publish)),
        (ready(QoS::ExactlyOnce, None), b"\x70\x02\0\x01", Unexpected(PacketType::PubComp)),
        (ready(QoS::AtMostOnce, None), b"\x20\x02\0\0", Unexpected(PacketType::ConnAck)),
        (
            ready(QoS::AtLeastOnce, Some("t")),
            b"\x30\x04\0\x01tx",
            OtherQos(QoS::AtMostOnce, QoS::AtLeastOnce),
        ),
        (
            client(Version::V311, QoS::AtMostOnce, Some("t")),
            b"\x30\x04\0\x01tx",
            Unexpected(PacketType::Publish),
        ),
        (
            ready(QoS::AtMostOnce, Some("t")),
            b"\x30\xff\x7f",
            ClientError::Decode(DecodeError::PacketTooLarge),
        ),
    ] {
        assert_eq!(receive(&mut client, bytes), Err(expected), "{bytes:02X?}");
    }
}

#[test]
fn answers_that_the_broker_does_not_read_do_not_pile_up() {
    let mut client = ready(QoS::AtLeastOnce, Some("t"));
    let publications = b"\x32\x06\0\x01t\0\x01x".repeat(10_000);
    let mut ended = Ok(());
    let mut received = 0;
    while ended.is_ok() {
        ended = client.receive(&publications, |_| ());
        received += publications.len();
    }
    assert_eq!(ended, Err(ClientError::Unread));
    assert!(received < 16 * 1024 * 1024, "{received}");
}

#[test]
fn the_message_number_stands_in_the_topic() {
    let topic = TopicName::parse("a/0000000000/b").unwrap();
    let setup = setup(Version::V5, QoS::AtMostOnce);
    let template = Template::new(&setup, true, topic, Some(2), Payload::Stamped(200));
    let mut client = ready(QoS::AtMostOnce, None);
    let stamp = Stamp { tag: 1, publisher: 0, sequence: 1_234_567, intended_unix_us: 0 };
    client.publish(&template, stamp, 0);
    let packet = client.take_output();
    assert_eq!(packet[..20], *b"\x31\xd9\x01\0\x0ea/0001234567/b\0");
}

#[test]
fn a_payload_is_stamped_if_it_is_ours_and_has_room() {
    let topic = TopicName::parse("t").unwrap();
    let setup = setup(Version::V311, QoS::AtMostOnce);
    let stamp = Stamp { tag: 1, publisher: 0, sequence: 5, intended_unix_us: 0 };
    for (payload, expected) in [
        (Payload::Stamped(0), Vec::new()),
        (Payload::Stamped(15), vec![b'.'; 15]),
        (Payload::Stamped(17), [&stamp.to_bytes()[..], b"."].concat()),
        (Payload::Fixed(b"a text of more than 16 bytes"), b"a text of more than 16 bytes".to_vec()),
    ] {
        let mut client = ready(QoS::AtMostOnce, None);
        client.publish(&Template::new(&setup, false, topic, None, payload), stamp, 0);
        assert_eq!(client.take_output()[5..], expected);
    }
}

#[test]
fn the_quick_look_at_a_publish_agrees_with_the_decoder() {
    for (version, packet) in [
        (Version::V311, &b"\x32\x06\0\x01t\0\x07x"[..]),
        (Version::V311, b"\x30\x03\0\x01t"),
        (Version::V5, b"\x34\x09\0\x01t\0\x07\x02\x01\x01x"),
        (Version::V5, b"\x30\x05\0\x01t\0x"),
    ] {
        let frame = next_frame(packet, 100).unwrap().unwrap();
        let Packet::Publish(decoded) = decode(version, &frame).unwrap() else { unreachable!() };
        let quick = Delivery::of(&frame, version).unwrap();
        assert_eq!(
            (quick.qos, quick.packet_id, quick.payload),
            (decoded.qos, decoded.packet_id, decoded.payload)
        );
    }
    // Malformed ones are left to the decoder.
    for (version, packet) in [
        (Version::V311, &b"\x36\x06\0\x01t\0\x07x"[..]),
        (Version::V311, b"\x32\x04\0\x01t\0"),
        (Version::V311, b"\x32\x05\0\x01t\0\0"),
        (Version::V311, b"\x30\x01\0"),
        (Version::V5, b"\x30\x03\0\x01t"),
        (Version::V5, b"\x30\x05\0\x01t\x05x"),
        (Version::V5, b"\x30\x08\0\x01t\xff\xff\xff\xff\x01"),
        (Version::V311, b"\xd0\0"),
    ] {
        let frame = next_frame(packet, 100).unwrap().unwrap();
        assert!(Delivery::of(&frame, version).is_none(), "{packet:02X?}");
    }
}
