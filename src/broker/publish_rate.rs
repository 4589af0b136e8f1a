//! How fast one client may publish: what goes beyond it waits where it is, in the client's socket, or ends the
//! connection.
//!
//! A client without bounds has none of this. What came is looked at again when it may be handled: acknowledgements
//! and pings behind it wait too, since packets keep their order.

use crate::{
    base::{ConnId, Pace, Spent, Time},
    codec::ReasonCode,
    config::{Limits, RateExceeded},
};

use super::{Broker, Effect, Flow, close::Cause};

/// What a client has published of late.
#[derive(Debug, Default)]
pub(super) struct PublishRate {
    publishes: Spent,
    bytes: Spent,
    /// When it is read from again, if it waits for that.
    paused_until: Option<Time>,
    /// Whether the log says that it was too fast.
    is_told: bool,
}

/// The bounds of all clients.
struct Paces {
    publishes: Option<Pace>,
    bytes: Option<Pace>,
}

impl Paces {
    fn new(limits: &Limits) -> Self {
        let pace = |per_sec| Pace::new(per_sec, limits.publish_burst_millis.into());
        let publishes = pace(limits.publishes_per_second_max.into());
        Self { publishes, bytes: pace(limits.publish_bytes_per_second_max) }
    }
}

impl PublishRate {
    /// That of a client that has not published; `None` if nothing bounds it.
    pub(super) fn new(limits: &Limits) -> Option<Self> {
        let Paces { publishes, bytes } = Paces::new(limits);
        (publishes.is_some() || bytes.is_some()).then(Self::default)
    }

    /// When the client is read from again, if it waits for that.
    pub(super) fn paused_until(&self) -> Option<Time> {
        self.paused_until
    }

    /// When a PUBLISH of so many bytes may be handled, unless it may be now.
    fn due(&self, paces: &Paces, now: Time, bytes: usize) -> Option<Time> {
        let of_publishes = paces.publishes.and_then(|pace| pace.due(self.publishes, now, 1));
        let of_bytes = paces.bytes.and_then(|pace| pace.due(self.bytes, now, bytes as u64));
        of_publishes.max(of_bytes)
    }

    fn spend(&mut self, paces: &Paces, now: Time, bytes: usize) {
        if let Some(pace) = paces.publishes {
            self.publishes = pace.spend(self.publishes, now, 1);
        }
        if let Some(pace) = paces.bytes {
            self.bytes = pace.spend(self.bytes, now, bytes as u64);
        }
    }
}

impl Broker {
    /// Counts a PUBLISH of so many bytes. If it comes too early, that is not done: the connection is paused, or closed,
    /// and this says which.
    pub(super) fn spend_publish(&mut self, conn: ConnId, bytes: usize) -> Result<(), Flow> {
        let limits = &self.policy.limits;
        let Some(connection) = self.connections.get_mut(conn) else { return Err(Flow::Gone) };
        let Some(rate) = connection.publish_rate() else { return Ok(()) };
        let paces = Paces::new(limits);
        let Some(due) = rate.due(&paces, self.now, bytes) else {
            rate.spend(&paces, self.now, bytes);
            return Ok(());
        };
        if limits.publish_rate_exceeded == RateExceeded::Disconnect {
            let why =
                "publishes faster than publishes_per_second_max or publish_bytes_per_second_max";
            return Err(self.close(conn, Cause::Refused(ReasonCode::MessageRateTooHigh, why)));
        }
        // Several at a time: each pause costs more than a message.
        let until = due.max(self.now.plus_millis(PAUSE_MILLIS_MIN));
        rate.paused_until = Some(until);
        if !std::mem::replace(&mut rate.is_told, true)
            && let Some(session) = connection.session.and_then(|key| self.sessions.get(key))
        {
            tracing::info!(client = %session.client, "client publishes faster than it may: it is slowed down");
        }
        self.counters.publish_pauses += 1;
        connection.paused.rate = true;
        let deadline = connection.next_deadline();
        self.timers.set(conn.into(), &mut connection.timer_at, deadline);
        self.effects.push_back(Effect::PauseReading { conn });
        Err(Flow::Continue)
    }

    /// Ends the pause of a client that may publish again. Whether there was one, and its end has come.
    pub(super) fn end_publish_pause(&mut self, conn: ConnId) -> bool {
        let Some(connection) = self.connections.get_mut(conn) else { return false };
        let Some(rate) = connection.publish_rate() else { return false };
        let has_come = rate.paused_until.take_if(|until| *until <= self.now).is_some();
        connection.paused.rate &= !has_come;
        has_come
    }
}

/// The shortest pause. A burst is no shorter, so that nothing is lost by it.
const PAUSE_MILLIS_MIN: u64 = 10;
