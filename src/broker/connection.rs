//! Network connections as the broker sees them: what was read and not yet
//! understood, what is to be sent, and what the client asked for in CONNECT.
//!
//! Holds no socket. Identifiers are given out by the shell.

use crate::{
    auth::places::Place,
    base::{ConnId, ListenerId, Output, Peer, SessionKey, Text, Time, limits},
    codec::Version,
};

use super::{
    ack_line::AckLine,
    authenticate::Authentication,
    publish_rate::PublishRate,
    topic_aliases::{FromClient, ToClient},
};

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client, behind a trusted proxy too.
    pub peer: Peer,
    /// Where it came in.
    pub listener: ListenerId,
    /// Whether it is a client of this machine: it connected to a loopback address, or through a unix socket.
    pub is_local: bool,
    /// Whether its publications are acknowledged before they are on disk: its listener says so.
    pub is_relaxed: bool,
    /// The user that its certificate names, if its listener goes by that.
    pub certificate_user: Option<Text>,
}

impl Origin {
    /// A client of the first listener about which nothing is special.
    pub fn new(peer: impl Into<Peer>, is_local: bool) -> Self {
        let (peer, listener) = (peer.into(), ListenerId::default());
        Self { peer, listener, is_local, is_relaxed: false, certificate_user: None }
    }
}

/// One network connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) origin: Origin,
    /// The session it serves, once CONNECT was accepted.
    pub(super) session: Option<SessionKey>,
    pub(super) version: Version,
    /// Where its enhanced authentication stands, if CONNECT named a method.
    pub(super) authentication: Option<Box<Authentication>>,
    /// Bytes read that do not make a whole packet yet, or that wait while reading is paused.
    pub(super) input: Vec<u8>,
    /// Bytes to send that the shell has not taken yet.
    pub(super) output: Output,
    /// Bytes that the shell has taken and not reported as sent.
    pub(super) taken_bytes: usize,
    /// How many bytes of the output are replies to the client's own packets.
    pub(super) reply_bytes: usize,
    /// Why nothing is read from it, if so.
    pub(super) paused: Pause,
    /// Whether it is listed in [`Connections::dirty`].
    pub(super) is_dirty: bool,
    /// Whether its output stays here until [`Connections::release`].
    pub(super) is_held: bool,
    /// Whether it goes on with a session that an earlier connection served.
    pub(super) is_resumption: bool,
    /// Whether CONNECT asked for a Session Expiry Interval above 0.
    pub(super) asked_for_expiry: bool,
    /// PUBLISHes at QoS > 0 of this connection that are not fully acknowledged:
    /// what counts against our Receive Maximum (MQTT-4.9.0-2).
    pub(super) unacknowledged: u16,
    /// Most unacknowledged PUBLISHes towards the client.
    pub(super) quota: u16,
    /// Largest packet that the client accepts, in bytes.
    pub(super) packet_bytes_max: u32,
    /// 1.5 times the keep-alive, in milliseconds; 0 turns it off (MQTT-3.1.2-22).
    pub(super) silence_max_millis: u32,
    /// When its last packet came; before CONNECT, when it was opened.
    pub(super) last_packet_at: Time,
    /// When its timer is set to.
    pub(super) timer_at: Option<Time>,
    /// Topic aliases that the client has set.
    pub(super) aliases: FromClient,
    /// Topic aliases towards the client, if it accepts any.
    pub(super) aliases_out: Option<Box<ToClient>>,
    /// Whether it wants to be told more about an error than its reason code (MQTT-3.1.2-29).
    pub(super) wants_problems: bool,
    /// Acknowledgements that must wait, and those behind them.
    pub(super) ack_line: AckLine,
    /// What holds for it and not for all.
    pub(super) terms: Option<Box<Terms>>,
}

/// What holds for few connections.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// How long what has been verified of the client holds.
    pub(super) proven_until: Option<Time>,
    /// How fast it publishes, if that has a bound.
    pub(super) publish_rate: Option<PublishRate>,
    /// Its place among the connections of its user, if those have a bound.
    pub(super) place: Option<Box<Place<Box<str>>>>,
}

/// Beside its session, the largest part of an idle client. The allocator's next size is 256.
const _: () = assert!(size_of::<Connection>() <= 224);

/// Why a connection is not read from. Several reasons can hold at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Pause {
    /// A lane to another shard is full.
    pub(super) lanes: bool,
    /// It has something to publish, and memory is short.
    pub(super) memory: bool,
    /// The client does not read its replies.
    pub(super) replies: bool,
    /// Another shard decides about an exclusive subscription that it asked for.
    pub(super) claims: bool,
    /// The first of what waits for it is being read from the log, and is to come before any reply.
    pub(super) refill: bool,
    /// The credentials of its CONNECT are being checked.
    pub(super) verdict: bool,
    /// DISCONNECT has come, and acknowledgements that wait are to leave before it counts.
    pub(super) farewell: bool,
    /// It publishes faster than it may.
    pub(super) rate: bool,
}

impl Pause {
    pub(super) const fn any(self) -> bool {
        self.is_ours() || self.replies || self.verdict
    }

    /// Whether it is for a reason that is ours, so that the client's silence says nothing.
    pub(super) const fn is_ours(self) -> bool {
        self.lanes || self.memory || self.claims || self.refill || self.farewell || self.rate
    }
}

impl Connection {
    fn new(origin: Origin, now: Time) -> Self {
        Self {
            origin,
            session: None,
            version: Version::V311,
            authentication: None,
            input: Vec::new(),
            output: Output::default(),
            taken_bytes: 0,
            reply_bytes: 0,
            paused: Pause::default(),
            is_dirty: false,
            is_held: false,
            is_resumption: false,
            asked_for_expiry: false,
            unacknowledged: 0,
            quota: u16::MAX,
            packet_bytes_max: u32::MAX,
            silence_max_millis: 0,
            last_packet_at: now,
            timer_at: None,
            aliases: FromClient::default(),
            aliases_out: None,
            wants_problems: true,
            ack_line: AckLine::default(),
            terms: None,
        }
    }

    /// Whether its output stays here for now.
    pub(super) const fn is_held(&self) -> bool {
        self.is_held
    }

    /// Bytes on their way to the client that the kernel has not taken yet.
    pub(super) fn backlog(&self) -> usize {
        self.output.len() + self.taken_bytes
    }

    /// When something is due: it is closed at the latest, if it stays silent, or read from again.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let terms = self.terms.as_deref();
        let paused_until =
            terms.and_then(|terms| terms.publish_rate.as_ref()).and_then(PublishRate::paused_until);
        let proven_until = terms.and_then(|terms| terms.proven_until);
        [self.silent_until(), proven_until, paused_until].into_iter().flatten().min()
    }

    /// Whether what has been verified of the client holds no longer.
    pub(super) fn has_expired(&self, now: Time) -> bool {
        let until = self.terms.as_deref().and_then(|terms| terms.proven_until);
        until.is_some_and(|until| until <= now)
    }

    /// How fast it publishes, if that has a bound.
    pub(super) fn publish_rate(&mut self) -> Option<&mut PublishRate> {
        self.terms.as_deref_mut()?.publish_rate.as_mut()
    }

    /// When it is closed because it stays silent.
    fn silent_until(&self) -> Option<Time> {
        let millis = u64::from(self.silence_max_millis);
        (millis > 0).then(|| self.last_packet_at.plus_millis(millis))
    }
}

/// The connections of one shard by the shell's identifiers, and the buffers
/// that they take turns in using.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    /// Connections with output since the shell last looked; one may be named
    /// that is gone or was looked at already.
    dirty: Vec<ConnId>,
    spare: Vec<Vec<u8>>,
    count: usize,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

impl Connections {
    pub(super) fn open(&mut self, id: ConnId, origin: Origin, now: Time) {
        let slot = id.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, Slot::default);
        }
        let slot = &mut self.slots[slot];
        debug_assert!(slot.connection.is_none(), "the shell reuses a slot after its close only");
        slot.generation = id.generation;
        slot.connection = Some(Box::new(Connection::new(origin, now)));
        self.count += 1;
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Connection> {
        let slot = self.slots.get(id.slot as usize)?;
        slot.connection.as_deref().filter(|_| slot.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.connection.as_deref_mut().filter(|_| slot.generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Box<Connection>> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        let connection = slot.connection.take_if(|_| slot.generation == id.generation)?;
        self.count -= 1;
        Some(connection)
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// All connections, for the rare occasions that concern each of them.
    pub(super) fn ids(&self) -> Vec<ConnId> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.connection.is_some())
            .map(|(at, slot)| ConnId { slot: at as u32, generation: slot.generation })
            .collect()
    }

    /// The connection for adding output, which the shell will be told of.
    pub(super) fn writer(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        let connection =
            slot.connection.as_deref_mut().filter(|_| slot.generation == id.generation)?;
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(id);
            if connection.output.tail().capacity() == 0
                && let Some(spare) = self.spare.pop()
            {
                *connection.output.tail() = spare;
            }
        }
        Some(connection)
    }

    pub(super) fn pop_dirty(&mut self) -> Option<ConnId> {
        self.dirty.pop()
    }

    /// Keeps the connection's output here until it is released.
    pub(super) fn hold(&mut self, id: ConnId) {
        if let Some(connection) = self.get_mut(id) {
            connection.is_held = true;
        }
    }

    /// Lets the shell have the output that was held.
    pub(super) fn release(&mut self, id: ConnId) {
        if let Some(connection) = self.get_mut(id) {
            connection.is_held = false;
            if connection.is_dirty {
                self.dirty.push(id);
            }
        }
    }

    /// Takes what is to be sent.
    pub(super) fn take_output(&mut self, id: ConnId) -> Output {
        let Some(connection) = self.get_mut(id).filter(|connection| !connection.is_held) else {
            return Output::default();
        };
        connection.is_dirty = false;
        connection.reply_bytes = 0;
        let output = std::mem::take(&mut connection.output);
        connection.taken_bytes += output.len();
        output
    }

    /// Keeps a buffer for reuse, if it is worth it.
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0
            && capacity <= limits::SPARE_BUFFER_BYTES_MAX
            && self.spare.len() < limits::SPARE_BUFFERS_MAX
        {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// An empty buffer, with room from earlier use if there is one.
    pub(super) fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }
}
