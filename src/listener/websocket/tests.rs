//! Frames of hostile and of ordinary clients, cut at every place.

use super::*;

fn open() -> WebSocket {
    let mut websocket = WebSocket::new(Arc::default());
    websocket.phase = Phase::Open;
    websocket
}

/// A frame with that first byte, as a client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    push_frame(0, payload, &mut frame);
    frame[0] = first;
    frame[1] |= MASKED;
    let header = frame.len() - payload.len();
    let key = [0xA1, 0xB2, 0xC3, 0xD4];
    frame.splice(header..header, key);
    unmask(&mut frame[header + 4..], key);
    frame
}

/// What came out of the bytes given in chunks, and what is sent then.
fn outcome(received: &[u8], chunk: usize) -> (Vec<u8>, Vec<u8>, Option<String>) {
    let (mut websocket, mut plain, mut out) = (open(), Vec::new(), Vec::new());
    let mut fault = None;
    for bytes in received.chunks(chunk) {
        fault = websocket.receive(bytes, &mut plain).err().map(|fault| fault.to_string());
        if fault.is_some() {
            break;
        }
    }
    websocket.send(b"", &mut out);
    if fault.is_some() || websocket.has_ended() {
        websocket.close(CloseCode::Normal, &mut out);
    }
    (plain, out, fault)
}

/// Clause: MQTT-6.0.0-2.
#[test]
fn packets_may_be_joined_in_frames_and_split_across_them_and_frames_cut_anywhere() {
    let long = vec![0x5A; 70_000];
    for (received, expected) in [
        (masked(0x82, b"packet"), b"packet".to_vec()),
        (
            [masked(0x82, b"pac"), masked(0x82, b""), masked(0x82, b"ket")].concat(),
            b"packet".to_vec(),
        ),
        (
            [masked(0x02, b"pa"), masked(0x00, b"ck"), masked(0x8A, b"x"), masked(0x80, b"et")]
                .concat(),
            b"packet".to_vec(),
        ),
        (masked(0x82, &long[..126]), long[..126].to_vec()),
    ] {
        for chunk in 1..=received.len() {
            assert_eq!(outcome(&received, chunk), (expected.clone(), vec![], None), "by {chunk}");
        }
    }
    for chunk in [1, 7, 4096, 80_000] {
        assert_eq!(outcome(&masked(0x82, &long), chunk), (long.clone(), vec![], None));
    }
}

#[test]
fn what_breaks_the_rules_is_refused_with_a_code_however_it_is_cut() {
    let (bad, unsupported, not_text) = (1002_u16, 1003, 1007);
    let mut unmasked = masked(0x82, b"a");
    unmasked[1] &= !MASKED;
    let long = |bytes: u64| [&[0x82, 0xFF][..], &bytes.to_be_bytes(), &[0; 4]].concat();
    for (received, code) in [
        (masked(0x81, b"text"), unsupported),
        (unmasked, bad),
        (masked(0xC2, b"a"), bad),
        (masked(0xA2, b"a"), bad),
        (masked(0x92, b"a"), bad),
        (masked(0x80, b"nothing to continue"), bad),
        ([masked(0x02, b"a"), masked(0x82, b"b")].concat(), bad),
        ([masked(0x02, b"a"), masked(0x81, b"b")].concat(), unsupported),
        (masked(0x83, b"a"), bad),
        (masked(0x8B, b"a"), bad),
        (masked(0x09, b"a ping in fragments"), bad),
        (masked(0x89, &[0; 126]), bad),
        (vec![0x82, 0xFE, 0, 125, 0, 0, 0, 0], bad),
        (long(65_535), bad),
        (long(1 << 63), bad),
        (long(u64::MAX), bad),
        (masked(0x88, b"\x03"), bad),
        (masked(0x88, b"\x03\xEC"), bad),
        (masked(0x88, b"\x03\xED"), bad),
        (masked(0x88, b"\xFF\xFF"), bad),
        (masked(0x88, b"\x03\xE8\xFF"), not_text),
    ] {
        for chunk in 1..=received.len() {
            let (_, out, fault) = outcome(&received, chunk);
            assert!(fault.is_some(), "{received:02x?}");
            assert_eq!(out[..2], [0x88, 2], "{received:02x?}");
            assert_eq!(out[2..], code.to_be_bytes(), "{received:02x?} by {chunk}");
        }
    }
}

#[test]
fn a_frame_of_any_length_costs_only_what_has_come_of_it() {
    let mut websocket = open();
    let mut plain = Vec::new();
    let start = [&[0x82, 0xFF][..], &(u64::MAX >> 1).to_be_bytes(), &[0; 4], b"abc"].concat();
    websocket.receive(&start, &mut plain).unwrap();
    assert_eq!(plain, b"abc");
    assert!(plain.capacity() < 100 && websocket.control.capacity() == 0);
}

#[test]
fn the_last_ping_is_answered_and_any_number_costs_no_more() {
    let mut websocket = open();
    let mut plain = Vec::new();
    for _ in 0..1000 {
        websocket.receive(&masked(0x89, &[7; 125]), &mut plain).unwrap();
    }
    websocket.receive(&masked(0x89, b"last"), &mut plain).unwrap();
    let mut out = Vec::new();
    assert!(websocket.has_answers());
    websocket.send(b"p", &mut out);
    assert_eq!(out, b"\x8A\x04last\x82\x01p");
    assert!(!websocket.has_answers());
}

#[test]
fn a_close_frame_is_answered_with_its_code_and_nothing_counts_behind_it() {
    for (received, answer) in [
        (masked(0x88, b"\x03\xE9bye"), &b"\x88\x02\x03\xE9"[..]),
        (masked(0x88, b""), b"\x88\x02\x03\xE8"),
        (masked(0x88, b"\x0F\xA0"), b"\x88\x02\x0F\xA0"),
    ] {
        let received = [masked(0x82, b"p"), received, masked(0x82, b"q")].concat();
        for chunk in 1..=received.len() {
            assert_eq!(outcome(&received, chunk), (b"p".to_vec(), answer.to_vec(), None));
        }
    }
}

#[test]
fn what_is_sent_is_in_frames_of_a_bound_size_and_closed_once() {
    let mut websocket = open();
    let mut out = Vec::new();
    websocket.send(&[1; 200], &mut out);
    assert_eq!(out[..4], [0x82, 126, 0, 200]);
    out.clear();
    websocket.send(&vec![1; WEBSOCKET_FRAME_BYTES_MAX + 1], &mut out);
    assert_eq!(out.len(), 10 + WEBSOCKET_FRAME_BYTES_MAX + 3);
    out.clear();
    websocket.close(CloseCode::GoingAway, &mut out);
    websocket.close(CloseCode::GoingAway, &mut out);
    websocket.send(b"late", &mut out);
    assert_eq!(out, b"\x88\x02\x03\xE9");
}
