use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::AsRawFd, unix::net::UnixStream},
    thread,
};

use super::*;

const CONN: ConnId = ConnId { slot: 3, generation: 9 };

fn ring() -> Ring {
    Ring::new().unwrap()
}

/// Two ends that tell of their end: on a UNIX socket, which no client has here, a lasting receive can miss it
/// (liburing issue 1549, seen with Linux 6.18).
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

fn events(ring: &mut Ring) -> Vec<Event> {
    loop {
        ring.enter().unwrap();
        ring.harvest(usize::MAX);
        let events: Vec<Event> = std::iter::from_fn(|| ring.next_event()).collect();
        if !events.is_empty() {
            return events;
        }
        thread::yield_now();
    }
}

fn event(ring: &mut Ring) -> Event {
    let mut events = events(ring);
    assert_eq!(events.len(), 1, "one event at a time is expected here");
    events.remove(0)
}

#[test]
fn a_send_larger_than_the_socket_buffer_completes_once_with_its_buffer() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut ring = ring();
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|number| number as u8).collect();
    ring.send(CONN, ours.as_raw_fd(), bytes.clone().into());
    ring.enter().unwrap();
    let reader = thread::spawn(move || {
        let mut got = vec![0; 5_000_000];
        theirs.read_exact(&mut got).unwrap();
        got
    });
    let Event::Sent { conn: CONN, result: Ok(()), output } = event(&mut ring) else { panic!() };
    assert!(output.into_vec() == bytes && reader.join().unwrap() == bytes);
}

#[test]
fn shared_pieces_are_sent_in_their_places() {
    let (ours, mut theirs) = pair();
    let mut ring = ring();
    let shared = bytes::Bytes::from(vec![b'x'; 3_000_000]);
    let mut output = Output::from(b"head".to_vec());
    for tail in [&b""[..], b"middle", b"end"] {
        output.share(shared.clone());
        output.tail().extend_from_slice(tail);
    }
    let expected: Vec<u8> = output.pieces().flatten().copied().collect();
    assert_eq!(expected.len(), 9_000_013);
    ring.send(CONN, ours.as_raw_fd(), output);
    let reader = thread::spawn(move || {
        let mut got = vec![0; 9_000_013];
        theirs.read_exact(&mut got).unwrap();
        got
    });
    let Event::Sent { result: Ok(()), output, .. } = event(&mut ring) else { panic!() };
    assert!(reader.join().unwrap() == expected);
    assert!(!shared.is_unique());
    drop(output);
    assert!(shared.is_unique());
}

#[test]
fn a_send_to_a_closed_peer_fails_and_returns_its_buffer() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let mut ring = ring();
    ring.send(CONN, ours.as_raw_fd(), vec![1, 2, 3].into());
    let Event::Sent { result: Err(error), output, .. } = event(&mut ring) else { panic!() };
    assert_eq!((error.kind(), output.into_vec()), (io::ErrorKind::BrokenPipe, vec![1, 2, 3]));
}

#[test]
fn a_cancelled_send_ends_short_with_an_error() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut ring = ring();
    let send = ring.send(CONN, ours.as_raw_fd(), vec![0; 5_000_000].into());
    ring.enter().unwrap();
    assert!(!ring.has_completions());
    ring.cancel_send(send);
    // What was sent so far makes the operation end short; the rest is asked for once more.
    ring.enter().unwrap();
    ring.cancel_send(send);
    let _ = ours.shutdown(std::net::Shutdown::Both);
    let Event::Sent { result: Err(_), output, .. } = event(&mut ring) else { panic!() };
    assert_eq!(output.len(), 5_000_000);
}

#[test]
fn receiving_outlives_a_shortage_of_buffers_without_losing_bytes() {
    let (ours, mut theirs) = pair();
    let mut ring = ring();
    // Nothing is given back before the kernel has run out, so it does run out.
    let total = 4 * usize::from(COMMON.buffers) * COMMON.buffer_bytes as usize;
    let writer = thread::spawn(move || {
        let bytes: Vec<u8> = (0..total).map(|number| (number % 251) as u8).collect();
        bytes.chunks(1000).for_each(|chunk| theirs.write_all(chunk).unwrap());
    });
    let (mut got, mut held, mut starved) = (Vec::new(), Vec::new(), false);
    ring.receive(CONN, ours.as_raw_fd());
    loop {
        for event in events(&mut ring) {
            let Event::Received { conn: CONN, what, more } = event else { panic!() };
            match what {
                Received::Bytes(filled) => {
                    got.extend_from_slice(ring.bytes(&filled));
                    held.push(filled);
                }
                Received::Starved => {
                    starved = true;
                    ring.lend_more();
                }
                Received::Nothing => panic!("nothing was cancelled"),
                Received::End => {
                    assert!(got.len() == total && starved);
                    assert!(got.iter().enumerate().all(|(at, byte)| at % 251 == *byte as usize));
                    return writer.join().unwrap();
                }
                Received::Failed(error) => panic!("{error}"),
            }
            if !more {
                held.drain(..).for_each(|filled| ring.give_back(filled));
                ring.receive(CONN, ours.as_raw_fd());
            }
        }
    }
}

#[test]
fn a_single_receive_ends_by_itself_and_a_lasting_one_when_cancelled() {
    let (ours, mut theirs) = pair();
    let mut ring = ring();
    for _ in 0..2 {
        ring.receive_once(CONN, ours.as_raw_fd());
        theirs.write_all(b"abc").unwrap();
        let Event::Received { what: Received::Bytes(filled), more: false, .. } = event(&mut ring)
        else {
            panic!()
        };
        assert_eq!(ring.bytes(&filled), b"abc");
        ring.give_back(filled);
    }
    ring.receive(CONN, ours.as_raw_fd());
    ring.enter().unwrap();
    ring.cancel_receive(CONN);
    let event = event(&mut ring);
    assert!(matches!(event, Event::Received { what: Received::Nothing, more: false, .. }));
}

#[test]
fn more_operations_than_the_submission_queue_holds_all_complete() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut ring = ring();
    let count = SUBMISSIONS * 3;
    for slot in 0..count {
        ring.send(ConnId { slot, generation: GENERATION_MAX }, ours.as_raw_fd(), vec![0].into());
    }
    let mut theirs = theirs;
    let reader = thread::spawn(move || theirs.read_exact(&mut vec![0; count as usize]).unwrap());
    let mut sent = 0;
    while sent < count {
        for event in events(&mut ring) {
            let Event::Sent { conn, result: Ok(()), .. } = event else { panic!() };
            assert_eq!(conn.generation, GENERATION_MAX);
            sent += 1;
        }
    }
    reader.join().unwrap();
}

#[test]
fn the_timer_can_be_moved_to_an_earlier_time() {
    let mut ring = ring();
    ring.set_timer(Duration::from_secs(600));
    ring.enter().unwrap();
    ring.move_timer(Duration::from_millis(1));
    assert!(matches!(event(&mut ring), Event::TimerFired));
}

#[test]
fn a_ring_can_go_with_operations_in_progress() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut ring = ring();
    ring.receive(CONN, ours.as_raw_fd());
    ring.send(CONN, ours.as_raw_fd(), vec![0; 5_000_000].into());
    ring.enter().unwrap();
}

/// Who sends much takes none of the buffers of the others, and loses nothing when there are no large ones left.
#[test]
fn bulk_has_buffers_of_its_own() {
    const LIGHT: ConnId = ConnId { slot: 4, generation: 9 };
    let (ours, mut theirs) = pair();
    let (light_ours, mut light_theirs) = pair();
    let total = 2 * usize::from(BULK.buffers) * BULK.buffer_bytes as usize;
    let writer = thread::spawn(move || {
        let bytes: Vec<u8> = (0..total).map(|number| (number % 251) as u8).collect();
        theirs.write_all(&bytes).unwrap();
    });
    let mut ring = ring();
    ring.receive(LIGHT, light_ours.as_raw_fd());
    let (mut got, mut held, mut starved) = (Vec::new(), Vec::new(), 0);
    while got.len() < total {
        ring.receive_bulk(CONN, ours.as_raw_fd());
        let Event::Received { conn: CONN, what, more: false } = event(&mut ring) else { panic!() };
        match what {
            Received::Bytes(filled) => {
                got.extend_from_slice(ring.bytes(&filled));
                held.push(filled);
            }
            Received::Starved => {
                starved += 1;
                assert_eq!(held.len(), usize::from(BULK.buffers));
                light_theirs.write_all(b"little").unwrap();
                let Event::Received { conn: LIGHT, what: Received::Bytes(little), more: true } =
                    event(&mut ring)
                else {
                    panic!()
                };
                assert_eq!(ring.bytes(&little), b"little");
                ring.give_back(little);
                held.drain(..).for_each(|filled| ring.give_back(filled));
            }
            Received::End | Received::Nothing | Received::Failed(_) => panic!(),
        }
    }
    writer.join().unwrap();
    assert!(starved > 0 && got.iter().enumerate().all(|(at, byte)| at % 251 == *byte as usize));
}
