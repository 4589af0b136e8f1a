//! One network connection between a simulated client and a shard: a byte pipe
//! each way, and what the shell remembers of it.

use std::collections::VecDeque;

use ringmq::base::{ConnId, ShardId, Time};

use crate::book::Word;

pub(crate) type LinkId = usize;

/// Where the broker's side of a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Shard(ShardId, ConnId),
    /// On its way to another shard.
    Lane,
    /// The shell is done with it, apart from what is still being sent.
    Gone,
}

impl Place {
    pub(crate) fn shard(self) -> Option<ShardId> {
        match self {
            Self::Shard(shard, _) => Some(shard),
            Self::Lane | Self::Gone => None,
        }
    }
}

/// When the broker has made some of its output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// How much output there was with it.
    end: u64,
    /// Not before.
    pub(crate) since: Time,
    /// Not after.
    pub(crate) until: Time,
}

pub(crate) struct Link {
    /// Which client has opened it, and how many it had opened before.
    pub(crate) owner: (usize, usize),
    pub(crate) place: Place,
    /// The last shard that it was on.
    pub(crate) home: ShardId,
    /// Sent by the client, not yet received by the shell.
    pub(crate) inbound: VecDeque<u8>,
    /// Sent by the shell, not yet read by the client.
    pub(crate) outbound: VecDeque<u8>,
    /// Bytes that fit the pipe towards the client.
    pub(crate) room: usize,
    /// Output that the shell has taken, and how much of it is in the pipe.
    pub(crate) sending: Vec<u8>,
    pub(crate) sent: usize,
    /// End of stream follows behind what is in the pipe.
    pub(crate) inbound_ends: bool,
    pub(crate) outbound_ends: bool,
    /// Bytes in either direction reach nobody any more.
    pub(crate) severed: bool,
    /// The client does not look at it any more.
    pub(crate) ignored: bool,
    /// The shell closes it once all is sent.
    pub(crate) closing: bool,
    /// The broker asked not to be given anything from it.
    pub(crate) paused: bool,
    /// The broker has output for it.
    pub(crate) dirty: bool,
    /// Steps until which either side is not scheduled.
    pub(crate) receives_from: u64,
    pub(crate) reads_from: u64,
    /// Bytes that the client has sent, and those that its broker has received.
    pub(crate) written: u64,
    pub(crate) heard: u64,
    /// What the client has said and the broker not yet heard; where each word ends.
    pub(crate) words: VecDeque<(u64, Word)>,
    /// Output was taken since CONNECT took effect: nothing waits behind CONNACK.
    pub(crate) is_welcomed: bool,
    /// Bytes that the broker has put out, and those that the client has read.
    put_out: u64,
    read: u64,
    stamps: VecDeque<Stamp>,
    /// All output from before was taken.
    pub(crate) empty_at: Time,
}

impl Link {
    pub(crate) fn new(owner: (usize, usize), place: Place, room: usize) -> Self {
        Self {
            owner,
            place,
            home: ShardId(0),
            inbound: VecDeque::new(),
            outbound: VecDeque::new(),
            room,
            sending: Vec::new(),
            sent: 0,
            inbound_ends: false,
            outbound_ends: false,
            severed: false,
            ignored: false,
            closing: false,
            paused: false,
            dirty: false,
            receives_from: 0,
            reads_from: 0,
            written: 0,
            heard: 0,
            words: VecDeque::new(),
            is_welcomed: false,
            put_out: 0,
            read: 0,
            stamps: VecDeque::new(),
            empty_at: Time::default(),
        }
    }

    /// The client says something.
    pub(crate) fn say(&mut self, word: Word, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        if !self.severed {
            self.inbound.extend(bytes);
            self.words.push_back((self.written, word));
        }
    }

    /// Bytes that the broker may be given at once, so that it is known when it looks at each packet:
    /// no whole one behind a SUBSCRIBE that may have to wait, or behind CONNECT.
    pub(crate) fn heard_at_once_max(&self) -> usize {
        let Some(claim) = self.claim() else { return usize::MAX };
        let (end, _) = self.words[claim];
        let next = self.words.get(claim + 1).map_or(end, |(next, _)| next - 1);
        (next - self.heard) as usize
    }

    /// Whether what the broker has received last may have to wait.
    pub(crate) fn may_wait(&self) -> bool {
        self.claim().is_some_and(|claim| self.words[claim].0 <= self.heard)
    }

    /// The first packet behind which all may have to wait.
    fn claim(&self) -> Option<usize> {
        self.words.iter().position(|(_, word)| matches!(word, Word::Claim | Word::Connect(_)))
    }

    /// Whether the next packet is, or may be, a DISCONNECT, which has to wait while acknowledgements do.
    pub(crate) fn may_defer(&self) -> bool {
        let is_heard = self.words.front().is_some_and(|(end, _)| *end <= self.heard);
        is_heard && matches!(self.words[0].1, Word::Disconnect { .. } | Word::Offence(_))
    }

    /// The next word that the broker has received to its end.
    pub(crate) fn next_heard(&mut self) -> Option<Word> {
        let (end, _) = self.words.front()?;
        if *end > self.heard {
            return None;
        }
        self.words.pop_front().map(|(_, word)| word)
    }

    /// The broker gives output that it has made from `since` on.
    pub(crate) fn stamp(&mut self, bytes: usize, since: Time, until: Time) {
        if bytes > 0 {
            self.put_out += bytes as u64;
            self.stamps.push_back(Stamp { end: self.put_out, since, until });
        }
    }

    /// The client has understood so many bytes; tells when they were made.
    pub(crate) fn understood(&mut self, bytes: usize) -> Stamp {
        while self.stamps[0].end <= self.read {
            self.stamps.pop_front();
        }
        self.read += bytes as u64;
        self.stamps[0]
    }

    /// Whether nothing can happen on it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.place == Place::Gone && !self.is_sending() && self.ignored
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.closing || !self.sending.is_empty()
    }

    /// Whether the shell can put bytes into the pipe, or throw them away.
    pub(crate) fn can_send(&self) -> bool {
        self.is_sending() && (self.drops_output() || self.outbound.len() < self.room)
    }

    fn drops_output(&self) -> bool {
        self.severed || self.ignored
    }

    /// Moves up to `bytes` of the output into the pipe; true when all is sent.
    pub(crate) fn send(&mut self, bytes: usize) -> bool {
        let mut end = self.sending.len();
        if !self.drops_output() {
            end = end.min(self.sent + bytes.min(self.room - self.outbound.len()));
            self.outbound.extend(&self.sending[self.sent..end]);
        }
        self.sent = end;
        end == self.sending.len()
    }

    /// The network fails: what is in the pipes arrives in part, and both sides
    /// see the end some time later.
    pub(crate) fn sever(&mut self, inbound_kept: usize, outbound_kept: usize) {
        self.inbound.truncate(inbound_kept);
        self.outbound.truncate(outbound_kept);
        self.severed = true;
        self.inbound_ends = true;
        self.outbound_ends = true;
    }
}

/// Takes up to `bytes` from the front of a pipe.
pub(crate) fn take_front(pipe: &mut VecDeque<u8>, bytes: usize) -> Vec<u8> {
    let count = bytes.min(pipe.len());
    let (front, back) = pipe.as_slices();
    let mut taken = Vec::with_capacity(count);
    taken.extend_from_slice(&front[..count.min(front.len())]);
    taken.extend_from_slice(&back[..count - taken.len()]);
    pipe.drain(..count);
    taken
}
