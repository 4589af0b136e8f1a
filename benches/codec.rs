//! What decoding one packet of a client and encoding one of the server costs, for every packet that
//! the broker reads or writes. The publications have 64-byte payloads, as in `perf/`.

mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use ringmq::{
    base::{PacketId, QoS},
    codec::{
        Frame, Properties, Property, PropertyBuf, Publish, Version, decode, decode_from_client,
        encode_publish, next_frame,
    },
    topic::TopicName,
};

use Version::{V5, V311};

fn main() {
    let mut criterion = support::criterion();
    bench_decode(&mut criterion);
    bench_encode(&mut criterion);
    criterion.final_summary();
}

const PACKET_BYTES_MAX: u32 = 1024 * 1024;
const PAYLOAD: [u8; 64] = [b'x'; 64];
const TOPIC: &str = "site/7/line/3/temp";

/// PUBLISH is the same in both directions; see [`publications`].
const FROM_CLIENTS: [(&str, Version, &[u8]); 14] = [
    ("connect", V311, b"\x10\x17\0\x04MQTT\x04\xc2\0\x3c\0\x03c-1\0\x02me\0\x02pw"),
    ("connect", V5, b"\x10\x1d\0\x04MQTT\x05\xc2\0\x3c\x05\x11\0\0\0\x0a\0\x03c-1\0\x02me\0\x02pw"),
    ("connect_will", V311, b"\x10\x16\0\x04MQTT\x04\x2e\0\x3c\0\x01c\0\x02w/\0\x03bye"),
    (
        "connect_will",
        V5,
        b"\x10\x22\0\x04MQTT\x05\x2e\0\x3c\x05\x11\0\0\0\x0a\0\x01c\x05\x18\0\0\0\x05\0\x02w/\0\x03bye",
    ),
    ("subscribe", V311, b"\x82\x0d\0\x01\0\x08site/+/#\x01"),
    ("subscribe", V5, b"\x82\x0e\0\x01\0\0\x08site/+/#\x01"),
    ("unsubscribe", V311, b"\xa2\x0c\0\x01\0\x08site/+/#"),
    ("unsubscribe", V5, b"\xa2\x0d\0\x01\0\0\x08site/+/#"),
    ("pingreq", V311, b"\xc0\0"),
    ("pingreq", V5, b"\xc0\0"),
    ("disconnect", V311, b"\xe0\0"),
    ("disconnect", V5, b"\xe0\0"),
    ("disconnect_expiry", V5, b"\xe0\x07\0\x05\x11\0\0\0\x01"),
    ("auth", V5, b"\xf0\x06\x18\x04\x15\0\x01m"),
];

/// They go both ways.
const ACKNOWLEDGEMENTS: [(&str, Version, &[u8]); 9] = [
    ("puback", V311, b"\x40\x02\x12\x34"),
    ("puback", V5, b"\x40\x02\x12\x34"),
    ("puback_reason", V5, b"\x40\x03\x12\x34\x10"),
    ("pubrec", V311, b"\x50\x02\x12\x34"),
    ("pubrec", V5, b"\x50\x02\x12\x34"),
    ("pubrel", V311, b"\x62\x02\x12\x34"),
    ("pubrel", V5, b"\x62\x02\x12\x34"),
    ("pubcomp", V311, b"\x70\x02\x12\x34"),
    ("pubcomp", V5, b"\x70\x02\x12\x34"),
];

const FROM_SERVER: [(&str, Version, &[u8]); 9] = [
    ("connack", V311, b"\x20\x02\x01\0"),
    ("connack", V5, b"\x20\x0e\x01\0\x0b\x21\x04\0\x27\x08\0\0\0\x22\0\x20"),
    ("suback", V311, b"\x90\x03\0\x01\x01"),
    ("suback", V5, b"\x90\x04\0\x01\0\x01"),
    ("unsuback", V311, b"\xb0\x02\0\x01"),
    ("unsuback", V5, b"\xb0\x04\0\x01\0\0"),
    ("pingresp", V311, b"\xd0\0"),
    ("pingresp", V5, b"\xd0\0"),
    ("disconnect", V5, b"\xe0\x02\x8e\0"),
];

/// One packet: its name, the version that it is of, its bytes.
type Case = (&'static str, Version, Vec<u8>);

/// Publications, acknowledgements, and what goes one way only.
fn with_both_ways(one_way: &[(&'static str, Version, &[u8])]) -> Vec<Case> {
    let owned = |&(name, version, bytes): &(_, _, &[u8])| (name, version, bytes.to_vec());
    let others = ACKNOWLEDGEMENTS.iter().chain(one_way).map(owned);
    publications().into_iter().chain(others).collect()
}

fn publications() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in [V311, V5] {
        for (name, qos) in [
            ("publish_qos0", QoS::AtMostOnce),
            ("publish_qos1", QoS::AtLeastOnce),
            ("publish_qos2", QoS::ExactlyOnce),
        ] {
            cases.push((name, version, publish(version, qos, Properties::EMPTY)));
        }
    }
    let properties = properties();
    let properties = properties.as_properties();
    cases.push(("publish_qos0_properties", V5, publish(V5, QoS::AtMostOnce, properties)));
    cases.push(("publish_qos1_properties", V5, publish(V5, QoS::AtLeastOnce, properties)));
    cases
}

fn publish(version: Version, qos: QoS, properties: Properties<'_>) -> Vec<u8> {
    let message = Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicName::parse(TOPIC).ok(),
        packet_id: (qos > QoS::AtMostOnce).then_some(PacketId::FIRST),
        properties,
        payload: &PAYLOAD,
    };
    let mut out = Vec::new();
    encode_publish(version, &message, &mut out);
    out
}

fn properties() -> PropertyBuf {
    let mut properties = PropertyBuf::new();
    properties.push(Property::MessageExpiryInterval(3600));
    properties.push(Property::ContentType("application/json"));
    properties.push(Property::UserProperty("trace", "0123456789abcdef"));
    properties
}

fn frame(packet: &[u8]) -> Frame<'_> {
    next_frame(packet, PACKET_BYTES_MAX).expect("a packet").expect("a whole packet")
}

fn bench_decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, version, packet) in with_both_ways(&FROM_CLIENTS) {
        group.throughput(Throughput::Bytes(packet.len() as u64));
        group.bench_function(BenchmarkId::new(name, version), |bencher| {
            bencher.iter(|| {
                let frame = frame(black_box(&packet));
                black_box(&decode_from_client(version, &frame)).as_ref().expect("a packet");
            });
        });
    }
}

fn bench_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let mut out = Vec::with_capacity(4096);
    for (name, version, bytes) in with_both_ways(&FROM_SERVER) {
        let frame = frame(&bytes);
        let packet = decode(version, &frame).expect("a packet");
        packet.encode(version, &mut out);
        assert_eq!(out, bytes, "{name} {version}");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new(name, version), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&packet).encode(version, &mut out);
                black_box(out.as_slice()).len()
            });
        });
        out.clear();
    }
    group.throughput(Throughput::Bytes(properties().len() as u64));
    group.bench_function("property_buf", |bencher| {
        bencher.iter(|| black_box(properties()).len());
    });
}
