//! What a shard does as the memory of the process fills up: publishers wait, new clients are refused, the slowest are
//! disconnected. How full it is, the shell says; what each step means, `base/memory.rs`.

use std::collections::VecDeque;

use crate::{
    base::{ClientId, ConnId, MemoryLevel, SessionKey, Time, limits},
    codec::PacketType,
    config::SlowConsumer,
};

use super::{Broker, close::Cause, connection::Connection};

/// The step that holds, and who waits because of it.
#[derive(Debug, Default)]
pub(super) struct Memory {
    level: MemoryLevel,
    /// Connections that are not read from, in the order in which they had something to publish.
    waiting: VecDeque<ConnId>,
    /// Connections to be closed because a message was dropped for them.
    slow: Vec<ConnId>,
}

impl Memory {
    /// Has the connection wait if what was read of it begins with a PUBLISH and those wait. Everything else goes on:
    /// acknowledgements are what makes room.
    pub(super) fn consider(&mut self, conn: ConnId, connection: &mut Connection, rest: &[u8]) {
        if self.level == MemoryLevel::Normal {
            return;
        }
        let is_publish = rest.first().is_some_and(|byte| byte >> 4 == PacketType::Publish as u8);
        if self.lets_publishers_wait()
            && is_publish
            && connection.session.is_some()
            && !connection.paused.memory
        {
            connection.paused.memory = true;
            self.waiting.push_back(conn);
        }
    }

    const fn lets_publishers_wait(&self) -> bool {
        matches!(
            self.level,
            MemoryLevel::PublishersWait | MemoryLevel::NoNewClients | MemoryLevel::SlowestLeave
        )
    }

    /// Whether what is published is refused.
    pub(super) fn refuses_publications(&self) -> bool {
        self.level >= MemoryLevel::Full
    }

    /// Whether new subscriptions are refused.
    pub(super) fn refuses_subscriptions(&self) -> bool {
        self.level >= MemoryLevel::SlowestLeave
    }

    /// Whether there is something to do at once.
    pub(super) fn has_work(&self) -> bool {
        !self.slow.is_empty() || !self.waiting.is_empty() && !self.lets_publishers_wait()
    }

    /// A message was dropped for a connection whose listener closes those.
    pub(super) fn close_slow(&mut self, conn: ConnId) {
        self.slow.push(conn);
    }
}

impl Broker {
    /// How full the memory of the process is now.
    pub fn set_memory_level(&mut self, now: Time, level: MemoryLevel) {
        self.now = now;
        self.memory.level = level;
    }

    /// Disconnects the clients that hold most of what waits, as long as that makes less than `bytes` (0x97). Returns
    /// how many bytes they held.
    pub fn disconnect_slowest(&mut self, now: Time, bytes: u64) -> u64 {
        self.now = now;
        let mut slowest = Vec::new();
        for conn in self.connections.ids() {
            let held = self.bytes_held_for(conn);
            if held >= limits::MEMORY_DISCONNECT_BYTES_MIN {
                slowest.push((held, conn));
            }
        }
        slowest.sort_unstable_by_key(|(held, _)| std::cmp::Reverse(*held));
        let mut freed = 0;
        for (held, conn) in slowest.into_iter().take(limits::MEMORY_DISCONNECTS) {
            if freed >= bytes {
                break;
            }
            if let Some(session) = self.session_of(conn).and_then(|key| self.sessions.get(key)) {
                tracing::error!(client = %session.client, bytes = held, "disconnected for its memory");
            }
            self.close(conn, Cause::TooSlow("the server is short of memory, and much waits here"));
            freed += held as u64;
        }
        freed
    }

    /// Nothing could be sent to a connection for so many seconds. Closes it (0x97) if its listener says so.
    pub fn stalled(&mut self, now: Time, conn: ConnId, secs: u64) {
        self.now = now;
        let Some(connection) = self.connections.get(conn) else { return };
        let secs_max =
            u64::from(self.policy.listener(connection.origin.listener).output_stalled_secs_max);
        if secs_max > 0 && secs >= secs_max {
            self.close(conn, Cause::TooSlow("nothing could be sent for output_stalled_secs_max"));
        }
    }

    /// How many messages the session of a client has lost so far; `None` if there is no such session here.
    pub fn dropped(&self, client: &str) -> Option<u32> {
        let key = self.sessions.find(client)?;
        self.sessions.get(key).map(|session| session.drops)
    }

    /// Whether a client that connects is turned away. Not if something waits for it: that becomes free when it takes it.
    pub(super) fn turns_away(&self, client: &ClientId) -> bool {
        let known = || self.sessions.find(client.as_str()).and_then(|key| self.sessions.get(key));
        self.memory.level >= MemoryLevel::NoNewClients
            && known().is_none_or(|session| session.outbox.load() == 0)
    }

    /// A QoS 0 message was dropped for a session because too much waits for its connection.
    pub(super) fn note_slow(&mut self, key: SessionKey) {
        let Some(conn) = self.sessions.get(key).and_then(|session| session.conn) else { return };
        let Some(connection) = self.connections.get(conn) else { return };
        if self.policy.listener(connection.origin.listener).slow_consumer
            == SlowConsumer::Disconnect
        {
            self.memory.close_slow(conn);
        }
    }

    /// Closes who is too slow, and reads on from those that waited, if they need not any longer.
    pub(super) fn relieve(&mut self) {
        for conn in std::mem::take(&mut self.memory.slow) {
            self.close(conn, Cause::TooSlow("more than output_bytes_max waits"));
        }
        // Those that are gone wait no longer, however many come and go meanwhile.
        if self.memory.waiting.len() > 2 * self.connections.len() {
            let connections = &self.connections;
            self.memory.waiting.retain(|conn| connections.get(*conn).is_some());
        }
        for _ in 0..limits::MEMORY_RESUMES_PER_TURN {
            if self.memory.lets_publishers_wait() {
                return;
            }
            let Some(conn) = self.memory.waiting.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(conn) {
                connection.paused.memory = false;
                self.resume(conn);
            }
        }
    }

    /// Bytes that would be free without the connection.
    fn bytes_held_for(&self, conn: ConnId) -> usize {
        let Some(connection) = self.connections.get(conn) else { return 0 };
        // Who waits with a PUBLISH is not slow; a large one that has come in part counts.
        let input = connection.input.len().saturating_sub(limits::MEMORY_INPUT_BYTES_FREE);
        let own = connection.backlog() + input;
        let Some(session) = connection.session.and_then(|key| self.sessions.get(key)) else {
            return own;
        };
        // What waits for a session that goes on is only free if the log has it.
        let is_freed = session.durable.is_some() || session.expiry_secs == 0;
        own + if is_freed { session.outbox.bytes_in_memory() } else { 0 }
    }

    fn session_of(&self, conn: ConnId) -> Option<SessionKey> {
        self.connections.get(conn)?.session
    }
}
