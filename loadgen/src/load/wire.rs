//! One connection between two workers: messages as JSON, a line each, with bounds on their length and
//! on the time that they take. Knows nothing of what they say.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};
use socket2::{SockRef, TcpKeepalive};

/// Why there is no further message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the connection has ended")]
    Closed,
    #[error("a line of more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("not understood: {0}")]
    Unclear(#[from] serde_json::Error),
    #[error("{0}")]
    Socket(#[from] io::Error),
}

/// The end of a connection that messages go into.
pub(super) struct Sender(TcpStream);

/// The end that they come out of.
pub(super) struct Receiver {
    socket: BufReader<TcpStream>,
    /// What has arrived of the next line.
    line: Vec<u8>,
}

/// Both ends of this side of a connection.
pub(super) fn ends(socket: TcpStream) -> io::Result<(Sender, Receiver)> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(WRITE_MAX))?;
    // A host that vanishes says nothing: only probes without an answer tell.
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY);
    SockRef::from(&socket).set_tcp_keepalive(&probes.with_retries(PROBES))?;
    let receiver = Receiver { socket: BufReader::new(socket.try_clone()?), line: Vec::new() };
    Ok((Sender(socket), receiver))
}

impl Sender {
    /// Sends a message. After an error nothing more can be sent or received.
    pub(super) fn send<T: Serialize>(&mut self, message: &T) -> Result<(), WireError> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.write_all(&line).map_err(|error| {
            // Part of the line may be out. This fails only if the connection has ended anyway.
            let _ = self.0.shutdown(Shutdown::Both);
            error.into()
        })
    }
}

impl Receiver {
    /// The next message; `None` if it is not there after `wait`. What has arrived of it is kept.
    pub(super) fn receive<T: DeserializeOwned>(
        &mut self,
        wait: Duration,
    ) -> Result<Option<T>, WireError> {
        let deadline = Instant::now() + wait;
        loop {
            if self.socket.buffer().is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(None);
                }
                self.socket.get_ref().set_read_timeout(Some(left))?;
            }
            let bytes = match self.socket.fill_buf() {
                Ok([]) => return Err(WireError::Closed),
                Ok(bytes) => bytes,
                Err(error) if is_for_now(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > LINE_BYTES_MAX {
                return Err(WireError::TooLong);
            }
            self.line.extend_from_slice(part);
            let taken = part.len() + usize::from(end.is_some());
            self.socket.consume(taken);
            if end.is_some() {
                let message = serde_json::from_slice(&self.line);
                self.line.clear();
                return Ok(Some(message?));
            }
        }
    }
}

fn is_for_now(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// The results of a thread are about 100 KiB.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest time in which the other side takes nothing.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// A host that answers nothing is given up after about 15 s.
const PROBE_AFTER: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBES: u32 = 5;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, (Sender, Receiver)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (other, ends(listener.accept().unwrap().0).unwrap())
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let (mut other, (mut sender, mut receiver)) = pair();
        other.write_all(b"[1,").unwrap();
        assert!(receiver.receive::<Vec<u8>>(Duration::from_millis(1)).unwrap().is_none());
        other.write_all(b"2]\n[3]\n[4").unwrap();
        assert_eq!(receiver.receive(LONG).unwrap(), Some(vec![1, 2]));
        assert_eq!(receiver.receive(LONG).unwrap(), Some(vec![3]));
        drop(other.try_clone().map(|other| other.shutdown(Shutdown::Write)));
        assert!(matches!(receiver.receive::<Vec<u8>>(LONG), Err(WireError::Closed)));
        sender.send(&"one\ntwo").unwrap();
        let (_, mut theirs) = ends(other).unwrap();
        assert_eq!(theirs.receive(LONG).unwrap(), Some("one\ntwo".to_owned()));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (mut other, (_, mut receiver)) = pair();
        other.write_all(b"{\"a\":\n[[[\xFF\n").unwrap();
        for _ in 0..2 {
            assert!(matches!(receiver.receive::<Vec<u8>>(LONG), Err(WireError::Unclear(_))));
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let (mut other, (_, mut receiver)) = pair();
        let writer = std::thread::spawn(move || {
            let part = vec![b'1'; 1024 * 1024];
            while other.write_all(&part).is_ok() {}
        });
        assert!(matches!(receiver.receive::<Vec<u8>>(LONG), Err(WireError::TooLong)));
        assert!(receiver.line.len() <= LINE_BYTES_MAX);
        drop(receiver);
        drop(writer);
    }
}
