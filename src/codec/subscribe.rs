//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).

use super::{
    DecodeError, PacketType, Properties, Version, properties,
    wire::{Reader, Sink, put_packet},
};
use crate::{
    base::{PacketId, QoS},
    topic::RetainHandling,
};

/// A request for subscriptions. Its filters stay in the packet's bytes, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribe<'a> {
    /// To be repeated in SUBACK (MQTT-3.8.4-2).
    pub packet_id: PacketId,
    /// Checked properties.
    pub properties: Properties<'a>,
    payload: &'a [u8],
}

/// One filter of a SUBSCRIBE with its Subscription Options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscribeFilter<'a> {
    /// UTF-8 without U+0000; [`crate::topic::TopicFilter::parse`] checks its syntax.
    pub filter: &'a str,
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local; false before 5.0.
    pub no_local: bool,
    /// Retain As Published; false before 5.0.
    pub retain_as_published: bool,
    /// Retain Handling; before 5.0 always `SendAtSubscribe`.
    pub retain_handling: RetainHandling,
}

impl<'a> Subscribe<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let (properties, _) = Properties::decode(version, &mut reader, &properties::SUBSCRIBE)?;
        let payload = reader.into_rest();
        let mut filters = Reader::new(payload);
        if filters.is_empty() {
            return Err(DecodeError::Protocol("no topic filter (MQTT-3.8.3-2)"));
        }
        while !filters.is_empty() {
            SubscribeFilter::decode(version, &mut filters)?;
        }
        Ok(Self { packet_id, properties, payload })
    }

    /// The filters, first to last; at least one.
    pub fn filters(&self) -> impl Iterator<Item = SubscribeFilter<'a>> + use<'a> {
        let mut reader = Reader::new(self.payload);
        // The reserved bits of older versions were found to be 0, so 5.0 reads all.
        std::iter::from_fn(move || SubscribeFilter::decode(Version::V5, &mut reader).ok())
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_subscribe(version, self.packet_id, self.properties, self.filters(), out);
    }
}

impl<'a> SubscribeFilter<'a> {
    fn decode(version: Version, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let filter = reader.string()?;
        let options = reader.u8()?;
        let reserved = if version == Version::V5 { 0xC0 } else { 0xFC };
        if options & reserved != 0 {
            return Err(DecodeError::Malformed("reserved subscription options (MQTT-3.8.3-5)"));
        }
        let qos = QoS::from_bits(options & 0x3)
            .ok_or(DecodeError::Protocol("subscription with QoS 3"))?;
        let no_local = options & NO_LOCAL != 0;
        if no_local && (filter.starts_with("$share/") || filter.starts_with("$queue/")) {
            return Err(DecodeError::Protocol("no local on a share (MQTT-3.8.3-4)"));
        }
        let retain_handling = match options >> RETAIN_HANDLING_SHIFT {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::Protocol("retain handling 3")),
        };
        let retain_as_published = options & RETAIN_AS_PUBLISHED != 0;
        Ok(Self { filter, qos, no_local, retain_as_published, retain_handling })
    }

    /// Subscription Options; only the QoS before 5.0.
    fn options(&self, version: Version) -> u8 {
        let mut options = self.qos.bits();
        if version == Version::V5 {
            options |= if self.no_local { NO_LOCAL } else { 0 };
            options |= if self.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
            options |= (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT;
        }
        options
    }
}

/// A request to end subscriptions. Its filters stay in the packet's bytes, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsubscribe<'a> {
    /// To be repeated in UNSUBACK (MQTT-3.10.4-5).
    pub packet_id: PacketId,
    /// Checked properties.
    pub properties: Properties<'a>,
    payload: &'a [u8],
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let (properties, _) = Properties::decode(version, &mut reader, &properties::UNSUBSCRIBE)?;
        let payload = reader.into_rest();
        let mut filters = Reader::new(payload);
        if filters.is_empty() {
            return Err(DecodeError::Protocol("no topic filter (MQTT-3.10.3-2)"));
        }
        while !filters.is_empty() {
            filters.string()?;
        }
        Ok(Self { packet_id, properties, payload })
    }

    /// The filters, first to last; at least one. Their syntax is unchecked.
    pub fn filters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.payload);
        std::iter::from_fn(move || reader.string().ok())
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_unsubscribe(version, self.packet_id, self.properties, self.filters(), out);
    }
}

/// Appends a SUBSCRIBE. A server accepts it only with at least one filter.
pub fn encode_subscribe(
    version: Version,
    packet_id: PacketId,
    properties: Properties<'_>,
    filters: &[SubscribeFilter<'_>],
    out: &mut Vec<u8>,
) {
    put_subscribe(version, packet_id, properties, filters.iter().copied(), out);
}

/// Appends an UNSUBSCRIBE. A server accepts it only with at least one filter.
pub fn encode_unsubscribe(
    version: Version,
    packet_id: PacketId,
    properties: Properties<'_>,
    filters: &[&str],
    out: &mut Vec<u8>,
) {
    put_unsubscribe(version, packet_id, properties, filters.iter().copied(), out);
}

fn put_subscribe<'a>(
    version: Version,
    packet_id: PacketId,
    properties: Properties<'_>,
    filters: impl Iterator<Item = SubscribeFilter<'a>>,
    out: &mut Vec<u8>,
) {
    put_packet(out, PacketType::Subscribe.first_byte(), |out| {
        out.put_u16(packet_id.get());
        properties.encode(version, out);
        for filter in filters {
            out.put_field(filter.filter.as_bytes());
            out.put_u8(filter.options(version));
        }
    });
}

fn put_unsubscribe<'a>(
    version: Version,
    packet_id: PacketId,
    properties: Properties<'_>,
    filters: impl Iterator<Item = &'a str>,
    out: &mut Vec<u8>,
) {
    put_packet(out, PacketType::Unsubscribe.first_byte(), |out| {
        out.put_u16(packet_id.get());
        properties.encode(version, out);
        for filter in filters {
            out.put_field(filter.as_bytes());
        }
    });
}

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING_SHIFT: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_their_bits() {
        let body = b"\0\x0a\x02\x0b\x07\0\x01a\x2e\0\x01#\x10";
        let subscribe = Subscribe::decode(Version::V5, body).unwrap();
        assert_eq!(subscribe.packet_id.get(), 10);
        assert_eq!(subscribe.properties.raw(), [0x0B, 7]);
        let filters: Vec<_> = subscribe.filters().collect();
        let first = SubscribeFilter {
            filter: "a",
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        };
        assert_eq!(filters[0], first);
        assert_eq!((filters[1].filter, filters[1].qos), ("#", QoS::AtMostOnce));
        assert_eq!(filters[1].retain_handling, RetainHandling::SendIfNew);
        assert_eq!(filters.len(), 2);
        let mut out = Vec::new();
        encode_subscribe(
            Version::V5,
            subscribe.packet_id,
            subscribe.properties,
            &filters,
            &mut out,
        );
        assert_eq!(out[..2], [0x82, body.len() as u8]);
        assert_eq!(out[2..], body[..]);
        out.clear();
        subscribe.encode(Version::V311, &mut out);
        assert_eq!(out, b"\x82\x0a\0\x0a\0\x01a\x02\0\x01#\0");
    }

    #[test]
    fn bad_subscribes_are_refused() {
        use Version::{V5, V311};
        for (version, body, reason) in [
            (V5, &b"\0\x01\0"[..], 0x82), // MQTT-3.8.3-2
            (V311, b"\0\x01", 0x82),
            (V5, b"\0\0\0\0\x01a\0", 0x82),
            (V5, b"\0\x01\0\0\x01a\x40", 0x81), // MQTT-3.8.3-5
            (V5, b"\0\x01\0\0\x01a\x80", 0x81),
            (V5, b"\0\x01\0\0\x01a\x30", 0x82),
            (V5, b"\0\x01\0\0\x01a\x03", 0x82),
            (V5, b"\0\x01\0\0\x0a$share/g/a\x04", 0x82), // MQTT-3.8.3-4
            (V5, b"\0\x01\0\0\x08$queue/a\x04", 0x82),
            (V5, b"\0\x01\0\0\x01\0\0", 0x81),
            (V5, b"\0\x01\0\0\x01\xff\0", 0x81),
            (V5, b"\0\x01\0\0\x01a", 0x81),
            (V5, b"\0\x01\0\0\x01a\0\0", 0x81),
            (V311, b"\0\x01\0\x01a\x04", 0x81),
        ] {
            let error = Subscribe::decode(version, body).unwrap_err();
            assert_eq!(error.reason().0, reason, "{body:02X?}");
        }
    }

    #[test]
    fn unsubscribes_list_their_filters() {
        let body = b"\0\x05\0\0\x01a\0\x03b/#";
        let unsubscribe = Unsubscribe::decode(Version::V5, body).unwrap();
        assert_eq!(unsubscribe.filters().collect::<Vec<_>>(), ["a", "b/#"]);
        let mut out = Vec::new();
        let id = unsubscribe.packet_id;
        encode_unsubscribe(Version::V5, id, Properties::EMPTY, &["a", "b/#"], &mut out);
        assert_eq!(out[..2], [0xA2, body.len() as u8]);
        assert_eq!(out[2..], body[..]);
        for (body, reason) in [
            (&b"\0\x05\0"[..], 0x82), // MQTT-3.10.3-2
            (b"\0\0\0\0\x01a", 0x82),
            (b"\0\x05\0\0\x02a", 0x81),
            (b"\0\x05\0\0\x01\0", 0x81),
            (b"\0\x05\x02\x0b\x01\0\x01a", 0x81),
        ] {
            let error = Unsubscribe::decode(Version::V5, body).unwrap_err();
            assert_eq!(error.reason().0, reason, "{body:02X?}");
        }
    }
}
