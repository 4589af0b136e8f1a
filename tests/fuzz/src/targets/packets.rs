//! A stream of bytes, cut into frames and decoded as every version and from either sender: no panic, no
//! allocation, and whatever decodes is encoded in a form that decodes to the same and stays the same.

use ringmq::{
    base::limits::TOPIC_LEVELS_MAX,
    codec::{
        DecodeError, Frame, Packet, PacketType, Version, connect_version, decode, decode_connect,
        decode_from_client, frame_len, next_frame,
    },
    topic::TopicFilter,
};

use super::VERSIONS;
use crate::memory::peak_of;

pub(crate) fn run(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(frame) = check_frame(rest) {
        for version in VERSIONS {
            check_packet(version, &frame);
        }
        check_connect(&frame);
        rest = &rest[frame.len..];
    }
}

/// Decodes without allocating.
fn lean<T>(work: impl FnOnce() -> T) -> T {
    let (result, peak) = peak_of(work);
    assert_eq!(peak, 0, "decoding allocates");
    result
}

fn check_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let announced = frame_len(bytes);
    match lean(|| next_frame(bytes, u32::MAX)) {
        Ok(Some(frame)) => {
            assert_eq!(announced, Some(frame.len));
            assert!(bytes[..frame.len].ends_with(frame.body));
            let longest = frame.len as u32;
            assert_eq!(next_frame(bytes, longest), Ok(Some(frame)));
            assert_eq!(next_frame(bytes, longest - 1), Err(DecodeError::PacketTooLarge));
            assert_eq!(next_frame(&bytes[..frame.len - 1], longest), Ok(None));
            Some(frame)
        }
        Ok(None) => {
            assert!(announced.is_none_or(|len| len > bytes.len()));
            None
        }
        Err(error) => {
            check_error(error);
            None
        }
    }
}

fn check_packet(version: Version, frame: &Frame<'_>) {
    let from_client = lean(|| decode_from_client(version, frame));
    match lean(|| decode(version, frame)) {
        Ok(packet) => {
            if let Ok(same) = from_client {
                assert_eq!(same, packet);
            }
            check_content(&packet);
            check_round_trip(version, frame, &packet);
        }
        Err(error) => {
            assert!(from_client.is_err(), "{error} from a server only: {frame:?}");
            check_error(error);
        }
    }
}

fn check_round_trip(version: Version, frame: &Frame<'_>, packet: &Packet<'_>) {
    let encode = |packet: &Packet<'_>| {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes);
        bytes
    };
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let bytes = encode(packet);
    // The canonical form of DISCONNECT and AUTH spells out an empty property block.
    assert!(bytes.len() <= frame.len + 1, "{frame:?} grew: {bytes:02X?}");
    let again = next_frame(&bytes, u32::MAX).expect("a frame").expect("a whole frame");
    assert!(again.len == bytes.len() && again.minimal);
    let decoded = decode(version, &again);
    assert_eq!(decoded, Ok(*packet), "{frame:?} as {version} became {bytes:02X?}");
    assert_eq!(encode(&decoded.expect("compared")), bytes);
}

/// What stays in the packet's bytes.
fn check_content(packet: &Packet<'_>) {
    match packet {
        Packet::Subscribe(subscribe) => {
            assert!(subscribe.filters().count() > 0);
            subscribe.filters().for_each(|asked| check_filter(asked.filter));
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert!(unsubscribe.filters().count() > 0);
            unsubscribe.filters().for_each(check_filter);
        }
        Packet::Publish(publish) => {
            let levels = publish.topic.map_or(0, |topic| topic.levels().count());
            assert!(levels <= TOPIC_LEVELS_MAX);
        }
        _ => {}
    }
}

fn check_filter(text: &str) {
    assert!(!text.contains('\0'));
    if let Ok(filter) = TopicFilter::parse(text) {
        assert_eq!(filter.as_str(), text);
    }
}

fn check_connect(frame: &Frame<'_>) {
    let alone = lean(|| decode_connect(frame));
    if frame.packet_type() != Some(PacketType::Connect) {
        assert!(alone.is_err());
        return;
    }
    let version = lean(|| connect_version(frame));
    match alone {
        Ok(connect) => {
            assert_eq!(version, Ok(connect.version));
            assert_eq!(decode(connect.version, frame), Ok(Packet::Connect(connect)));
        }
        Err(error) => {
            assert!(!matches!(error, DecodeError::UnsupportedVersion { .. }) || version.is_err());
            check_error(error);
        }
    }
}

fn check_error(error: DecodeError) {
    assert!(error.reason().is_error() && !error.to_string().is_empty());
}
