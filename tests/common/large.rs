//! Large PUBLISH packets, whose payload differs at every place.

/// So many bytes, others for another `seed`.
pub(crate) fn payload(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| (at / 251 + at) as u8 ^ seed).collect()
}

/// A PUBLISH; its Packet Identifier is there if `first_byte` says so. In v5 it has no property.
pub(crate) fn publish(
    first_byte: u8,
    topic: &str,
    packet_id: u16,
    is_v5: bool,
    payload: &[u8],
) -> Vec<u8> {
    let mut head = (topic.len() as u16).to_be_bytes().to_vec();
    head.extend_from_slice(topic.as_bytes());
    if first_byte & 0x06 != 0 {
        head.extend_from_slice(&packet_id.to_be_bytes());
    }
    if is_v5 {
        head.push(0);
    }
    let mut packet = vec![first_byte];
    let mut left = head.len() + payload.len();
    while left >= 128 {
        packet.push(left as u8 | 0x80);
        left /= 128;
    }
    packet.push(left as u8);
    packet.extend_from_slice(&head);
    packet.extend_from_slice(payload);
    packet
}
