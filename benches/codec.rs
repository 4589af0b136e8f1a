//! What encoding and decoding one packet costs. The publications have 64-byte
//! payloads, as in `perf/`.

#![allow(missing_docs)] // criterion_group! makes a public function without.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ringmq::{
    base::{PacketId, QoS},
    codec::{
        PacketType, Properties, Property, PropertyBuf, Publish, Version, decode,
        decode_from_client, encode_ack, encode_publish, next_frame,
    },
    topic::TopicName,
};

const PACKET_BYTES_MAX: u32 = 1024 * 1024;
const PAYLOAD: [u8; 64] = [b'x'; 64];
const TOPIC: &str = "site/7/line/3/temp";

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let properties = properties();
    let none = Properties::EMPTY;
    for (name, version, packet) in [
        ("publish_qos0_v311", Version::V311, publish(Version::V311, QoS::AtMostOnce, none)),
        ("publish_qos0_v5", Version::V5, publish(Version::V5, QoS::AtMostOnce, none)),
        ("publish_qos1_v5", Version::V5, publish(Version::V5, QoS::AtLeastOnce, none)),
        (
            "publish_qos1_v5_properties",
            Version::V5,
            publish(Version::V5, QoS::AtLeastOnce, properties.as_properties()),
        ),
        ("puback_v5", Version::V5, b"\x40\x02\x12\x34".to_vec()),
        ("pingreq", Version::V311, b"\xc0\0".to_vec()),
        ("subscribe_v5", Version::V5, b"\x82\x0e\0\x01\0\0\x08site/+/#\x01".to_vec()),
        (
            "connect_v5",
            Version::V5,
            b"\x10\x1d\0\x04MQTT\x05\xc2\0\x3c\x05\x11\0\0\0\x0a\0\x03c-1\0\x02me\0\x02pw".to_vec(),
        ),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let frame = next_frame(black_box(&packet), PACKET_BYTES_MAX).unwrap().unwrap();
                black_box(&decode_from_client(version, &frame)).as_ref().unwrap();
            });
        });
    }
    group.finish();
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let mut out = Vec::with_capacity(4096);
    for (name, version, qos) in [
        ("publish_qos0_v311", Version::V311, QoS::AtMostOnce),
        ("publish_qos0_v5", Version::V5, QoS::AtMostOnce),
        ("publish_qos1_v5", Version::V5, QoS::AtLeastOnce),
    ] {
        let publish = message(qos, Properties::EMPTY);
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                encode_publish(version, black_box(&publish), &mut out)
            });
        });
    }
    group.bench_function("ack", |b| {
        b.iter(|| {
            out.clear();
            encode_ack(PacketType::PubAck, black_box(PacketId::FIRST), &mut out);
        });
    });
    let bytes = publish(Version::V5, QoS::AtLeastOnce, properties().as_properties());
    let frame = next_frame(&bytes, PACKET_BYTES_MAX).unwrap().unwrap();
    let packet = decode(Version::V5, &frame).unwrap();
    group.bench_function("publish_qos1_v5_properties", |b| {
        b.iter(|| {
            out.clear();
            black_box(&packet).encode(Version::V5, &mut out);
        });
    });
    group.bench_function("property_buf", |b| b.iter(|| black_box(properties()).len()));
    group.finish();
}

fn properties() -> PropertyBuf {
    let mut properties = PropertyBuf::new();
    properties.push(Property::MessageExpiryInterval(3600));
    properties.push(Property::ContentType("application/json"));
    properties.push(Property::UserProperty("trace", "0123456789abcdef"));
    properties
}

fn message(qos: QoS, properties: Properties<'_>) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicName::parse(TOPIC).ok(),
        packet_id: (qos > QoS::AtMostOnce).then_some(PacketId::FIRST),
        properties,
        payload: &PAYLOAD,
    }
}

fn publish(version: Version, qos: QoS, properties: Properties<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_publish(version, &message(qos, properties), &mut out);
    out
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
