//! Records of every kind, with odd values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    super::{
        Attached, Boot, DelayedRecord, DeliveryNumber, Intake, MessageRecord, Position,
        PublicationRecord, ReadRecord, Record, RecordError, SessionNumber, SessionRecord, Source,
        Target, WillRecord,
    },
    Random,
    testing::ID,
};
use crate::{
    base::{Output, PacketId, QoS, ShardId, WallTime},
    topic::SubscriptionOptions,
};

const TOPICS: [&str; 4] = ["t", "a/b", "/", "$SYS/ü/long long long long long long"];
const FILTERS: [&str; 4] = ["#", "a/+", "$share/g/a/#", "$exclusive/x"];
const CLIENTS: [&str; 3] = ["", "client", "another-client-ü"];
const PROPERTIES: [&[u8]; 3] =
    [b"", b"\x01\x01", b"\x03\x00\x04text\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x01w"];
const PAYLOADS: [&[u8]; 3] = [b"", b"payload", &[0x55; 300]];
const NUMBERS: [u64; 6] = [0, 1, 127, 128, 70_000, u64::MAX];
const ADDRESSES: [Option<IpAddr>; 3] =
    [None, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), Some(IpAddr::V6(Ipv6Addr::LOCALHOST))];
const SECS: [u32; 3] = [0, 300, u32::MAX];

/// Numbers of sessions and deliveries below `bound`, so that a fold of many has something to do.
pub(super) fn any(random: &mut Random, bound: u64) -> Record<'static> {
    let session = SessionNumber(number(random, bound.min(5)));
    let delivery = DeliveryNumber(number(random, bound));
    match random.below(15) {
        0 => Record::Session(session_record(random, session, bound)),
        1 => Record::Attached(Attached {
            session,
            user_name: option(random, |random| random.pick(&CLIENTS)),
            is_proven: random.chance(2),
            groups: list(random, |random| random.pick(&CLIENTS)),
            address: random.pick(&ADDRESSES),
            expiry_secs: random.pick(&SECS),
            will: option(random, will),
        }),
        2 => Record::Detached {
            session,
            at: wall_time(random),
            expiry_secs: random.pick(&SECS),
            will_due_at: option(random, wall_time),
            sent: delivery,
        },
        3 if random.chance(3) => Record::Ended { session },
        3 | 4 => {
            let (filter, options) = subscription(random);
            Record::Subscribed { session, filter, options }
        }
        5 => Record::Unsubscribed { session, filter: random.pick(&FILTERS) },
        6 | 7 => Record::Publication(publication(random, bound)),
        8 => Record::Done { session, delivery },
        9 => Record::Received { session, delivery },
        10 => Record::Released { session, packet_id: packet_id(random) },
        11 => Record::Intake(intake(random)),
        12 if random.chance(2) => Record::Routed { stamp: random.pick(&NUMBERS[..5]) },
        12 => Record::DelayedDone { number: random.pick(&NUMBERS) },
        13 => Record::Delayed(DelayedRecord {
            number: random.pick(&NUMBERS),
            due_at: wall_time(random),
            client: option(random, |random| random.pick(&CLIENTS)),
            publisher: option(random, |random| (session, packet_id(random))),
            will_of: option(random, |random| SessionNumber(number(random, 5))),
            message: message(random),
        }),
        _ => Record::Boot(Boot {
            next_session: random.pick(&NUMBERS),
            last_delayed: random.pick(&NUMBERS),
            stamp: random.pick(&NUMBERS),
            routed: random.pick(&NUMBERS[..5]),
            taken: list(random, |random| (ShardId(random.pick(&[0, 127])), random.pick(&NUMBERS))),
            given_up: 0,
        }),
    }
}

fn session_record(
    random: &mut Random,
    number_: SessionNumber,
    bound: u64,
) -> SessionRecord<'static> {
    let first = number(random, bound);
    let mut at = |random: &mut Random| DeliveryNumber(first.wrapping_add(number(random, 9)));
    SessionRecord {
        number: number_,
        client: random.pick(&CLIENTS),
        user_name: option(random, |random| random.pick(&CLIENTS)),
        is_proven: random.chance(2),
        groups: list(random, |random| random.pick(&CLIENTS)),
        address: random.pick(&ADDRESSES),
        expiry_secs: random.pick(&SECS),
        detached_at: option(random, wall_time),
        will: option(random, will),
        subscriptions: list(random, subscription),
        received: list(random, packet_id),
        first: DeliveryNumber(first),
        next: at(random),
        sent: at(random),
        done: list(random, &mut at),
        released: list(random, &mut at),
    }
}

fn publication(random: &mut Random, bound: u64) -> PublicationRecord<'static> {
    let target = |random: &mut Random| Target {
        session: SessionNumber(number(random, bound.min(5))),
        delivery: DeliveryNumber(number(random, bound)),
        qos: random.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]),
        retain: random.chance(2),
        identifiers: (0..random.below(4)).map(|_| identifier(random)).collect(),
    };
    PublicationRecord {
        message: message(random),
        is_retained: random.chance(3),
        publisher: option(random, |random| (SessionNumber(number(random, 5)), packet_id(random))),
        origin: option(random, |random| (ShardId(random.pick(&[1, 9])), random.pick(&NUMBERS))),
        targets: list(random, target).leak(),
    }
}

fn intake(random: &mut Random) -> Intake<'static> {
    let session = SessionNumber(number(random, 5));
    Intake {
        stamp: random.pick(&NUMBERS),
        source: match random.below(4) {
            0 => Source::Publisher(session, packet_id(random)),
            1 => Source::Delayed(random.pick(&NUMBERS)),
            2 => Source::Will(session),
            _ => Source::PassedOn(None),
        },
        client: option(random, |random| random.pick(&CLIENTS)),
        chosen: list(random, |random| (random.pick(&FILTERS), ShardId(number(random, 128) as u16))),
        chosen_only: random.chance(2),
        message: message(random),
    }
}

fn will(random: &mut Random) -> WillRecord<'static> {
    WillRecord {
        message: message(random),
        message_expiry_secs: option(random, |random| random.pick(&SECS)),
        delay_secs: random.pick(&SECS),
        due_at: option(random, wall_time),
    }
}

fn message(random: &mut Random) -> MessageRecord<'static> {
    MessageRecord {
        topic: random.pick(&TOPICS),
        properties: random.pick(&PROPERTIES),
        payload: random.pick(&PAYLOADS),
        shared: None,
        qos: random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
        retain: random.chance(2),
        expires_at: option(random, wall_time),
    }
}

fn subscription(random: &mut Random) -> (&'static str, SubscriptionOptions) {
    let options = SubscriptionOptions {
        qos: random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
        no_local: random.chance(2),
        retain_as_published: random.chance(2),
        marks: Default::default(),
        identifier: option(random, identifier),
    };
    (random.pick(&FILTERS), options)
}

fn number(random: &mut Random, bound: u64) -> u64 {
    if bound == u64::MAX { random.pick(&NUMBERS) } else { random.next() % bound }
}

fn identifier(random: &mut Random) -> std::num::NonZeroU32 {
    random.pick(&[1, 128, 268_435_455]).try_into().expect("not 0")
}

fn packet_id(random: &mut Random) -> PacketId {
    PacketId::new(random.pick(&[1, 2, 300, 65_535])).expect("not 0")
}

fn wall_time(random: &mut Random) -> WallTime {
    WallTime(random.pick(&[0, 1_700_000_000_000, u64::MAX]))
}

fn option<T>(random: &mut Random, some: impl FnOnce(&mut Random) -> T) -> Option<T> {
    if random.chance(2) { Some(some(random)) } else { None }
}

fn list<T>(random: &mut Random, mut element: impl FnMut(&mut Random) -> T) -> Vec<T> {
    (0..random.below(4)).map(|_| element(random)).collect()
}

/// Appends the bytes of a record.
fn encode(record: &Record<'_>, bytes: &mut Vec<u8>) {
    let mut output = Output::default();
    record.encode(&mut output);
    bytes.extend(output.into_vec());
}

#[test]
fn records_are_decoded_to_what_was_encoded() {
    let mut random = Random::new(1);
    let (mut bytes, mut targets) = (Vec::new(), Vec::new());
    for _ in 0..20_000 {
        let record = any(&mut random, u64::MAX);
        bytes.clear();
        encode(&record, &mut bytes);
        assert_eq!(Record::decode(&bytes, &mut targets), Ok(record));
    }
}

#[test]
fn what_is_not_a_record_is_refused_without_a_panic() {
    let mut random = Random::new(2);
    let (mut bytes, mut targets) = (Vec::new(), Vec::new());
    for _ in 0..5_000 {
        bytes.clear();
        encode(&any(&mut random, u64::MAX), &mut bytes);
        let cut = random.below(bytes.len());
        assert!(Record::decode(&bytes[..cut], &mut targets).is_err());
        bytes.push(0);
        assert!(Record::decode(&bytes, &mut targets).is_err());
        bytes.pop();
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        let Ok(record) = Record::decode(&bytes, &mut targets) else { continue };
        let mut again = Vec::new();
        encode(&record, &mut again);
        assert_eq!(Record::decode(&again, &mut Vec::new()), Ok(record));
    }
}

#[test]
fn texts_and_properties_are_checked() {
    let mut targets = Vec::new();
    let mut check = |message: MessageRecord<'_>, expected: &'static str| {
        let mut bytes = Vec::new();
        let targets_ = &[];
        let publication = PublicationRecord {
            message,
            is_retained: true,
            publisher: None,
            origin: None,
            targets: targets_,
        };
        encode(&Record::Publication(publication), &mut bytes);
        assert_eq!(Record::decode(&bytes, &mut targets), Err(RecordError(expected)));
    };
    let valid = message(&mut Random::new(3));
    check(MessageRecord { topic: "a/#", ..valid }, "text is not a topic name");
    check(MessageRecord { topic: "", ..valid }, "text is not a topic name");
    check(MessageRecord { properties: b"\x01", ..valid }, "properties are not valid");
    check(MessageRecord { properties: b"\x18\0\0\0\0", ..valid }, "properties are not valid");
    let mut bytes = Vec::new();
    encode(&Record::Unsubscribed { session: SessionNumber(1), filter: "a#" }, &mut bytes);
    let error = Record::decode(&bytes, &mut targets);
    assert_eq!(error, Err(RecordError("text is not a topic filter")));
}

#[test]
fn the_most_frequent_record_is_small() {
    let mut bytes = Vec::new();
    let (session, delivery) = (SessionNumber(20_000), DeliveryNumber(10_000));
    encode(&Record::Done { session, delivery }, &mut bytes);
    assert_eq!(bytes.len(), 6);
}

#[test]
fn a_reader_is_told_how_much_it_has_to_read() {
    let mut log = super::super::Log::new(super::testing::setup(1 << 20));
    let mut random = Random::new(4);
    let publication = Record::Publication(publication(&mut random, 5));
    let hold = log.append(&publication);
    let batch = log.next_batch().expect("a batch");
    let file = batch.writes[0].bytes.clone().into_vec();
    let file = &file[hold.at.offset as usize..];
    let mut targets = Vec::new();
    for len in 0..file.len() {
        let needed = if len < 4 { 8 } else { hold.bytes };
        let read = ID.read_record(hold.at, &file[..len], &mut targets);
        assert_eq!(read, ReadRecord::Needs(needed));
    }
    let Record::Publication(expected) = &publication else { unreachable!() };
    assert_eq!(ID.read_message(hold.at, file), ReadRecord::Whole(expected.message, hold.bytes));
    let read = ID.read_record(hold.at, file, &mut targets);
    assert_eq!(read, ReadRecord::Whole(publication, hold.bytes));
    let elsewhere = Position { offset: hold.at.offset + 1, ..hold.at };
    let damaged = ReadRecord::Damaged(RecordError("checksum is wrong"));
    assert_eq!(ID.read_record(elsewhere, file, &mut targets), damaged);
    let elsewhere = Position { segment: 2, ..hold.at };
    assert_eq!(ID.read_record(elsewhere, file, &mut targets), damaged);
}
