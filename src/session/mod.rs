//! What the server remembers of one client between and during its connections
//! (MQTT 5.0 section 4.1): subscriptions, both directions of QoS 1 and 2, the
//! queue, the will.
//!
//! Plain values of one shard: no connection, no index, no clock.

mod fetch;
mod inbox;
mod outbox;
mod parked;
mod requests;
mod sending;
mod subscriptions;

use std::sync::Arc;

pub use fetch::{Fetch, Fetches};
pub use inbox::Inbox;
pub use outbox::{
    AckError, Finished, Logged, Outbox, Outgoing, QueueBounds, Queued, Received, Refused,
};
pub use parked::Parked;
pub use requests::Requests;
pub use sending::Sending;
pub use subscriptions::Subscriptions;

use crate::{
    auth::{Identity, acl::Verdicts},
    base::{ClientId, ConnId, Text, Time},
    message::Publication,
    storage::{Hold, SessionNumber},
};

/// Who may do what in a session.
#[derive(Debug, Default)]
pub struct Rights {
    /// Who its present or last connection has proven to be: the session of a user is theirs alone.
    pub identity: Identity,
    /// What access rules have said of late.
    pub verdicts: Verdicts,
    /// Whether what waits was let in by other rules than those in force.
    pub is_rechecked: bool,
}

impl From<Identity> for Box<Rights> {
    fn from(identity: Identity) -> Self {
        Self::new(Rights { identity, ..Rights::default() })
    }
}

/// One client's session on its home shard.
#[derive(Debug)]
pub struct Session {
    /// Whose it is.
    pub client: ClientId,
    /// How the log knows it, if it outlives the process.
    pub durable: Option<Durable>,
    /// User Name of its present or last connection.
    pub user_name: Option<Text>,
    /// What access rules go by, if anybody asks.
    pub rights: Option<Box<Rights>>,
    /// The connection that serves it now.
    pub conn: Option<ConnId>,
    /// Filters the client is subscribed to.
    pub subscriptions: Subscriptions,
    /// What the client may ask for, of its subscriptions.
    pub requests: Requests,
    /// Receive side: QoS 2 publications of the client that are not released yet.
    pub inbox: Inbox,
    /// Send side: deliveries in flight and waiting.
    pub outbox: Sending,
    /// Retained messages that are still to be sent for new subscriptions and requests.
    pub fetches: Fetches,
    /// Whether the session is listed among those whose walk can go on.
    pub is_fetch_scheduled: bool,
    /// Will Message of the present or last connection, until published or deleted.
    pub will: Option<Box<Will>>,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_secs: u32,
    /// When the session ends, once it is without a connection.
    pub expires_at: Option<Time>,
    /// When the timer of this session is set to, if it is set.
    pub timer_at: Option<Time>,
    /// Messages that it has lost so far; thins out the log lines about them.
    pub drops: u32,
}

/// There are millions that have been away for long: what few of them need is boxed. The allocator's next
/// size is 224.
const _: () = assert!(size_of::<Session>() <= 192);

impl Session {
    /// A session without any state.
    pub fn new(client: ClientId) -> Self {
        Self {
            client,
            durable: None,
            user_name: None,
            rights: None,
            conn: None,
            subscriptions: Subscriptions::default(),
            requests: Requests::default(),
            inbox: Inbox::default(),
            outbox: Sending::default(),
            fetches: Fetches::default(),
            is_fetch_scheduled: false,
            will: None,
            expiry_secs: 0,
            expires_at: None,
            timer_at: None,
            drops: 0,
        }
    }

    /// Who its client is.
    pub fn identity(&self) -> &Identity {
        self.rights.as_deref().map_or(Identity::nobody(), |rights| &rights.identity)
    }

    /// The earliest point at which something is due without any packet.
    pub fn next_deadline(&self) -> Option<Time> {
        let will_at = self.will.as_ref().and_then(|will| will.due_at);
        [self.expires_at, will_at].into_iter().flatten().min()
    }
}

/// How the log knows a session.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    /// Its name there.
    pub number: SessionNumber,
    /// Its last whole record.
    pub hold: Hold,
}

/// A Will Message (MQTT 5.0 section 3.1.2.5).
#[derive(Debug)]
pub struct Will {
    /// What is published; its expiry counts from the moment it is.
    pub publication: Arc<Publication>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_secs: Option<u32>,
    /// Will Delay Interval in seconds.
    pub delay_secs: u32,
    /// When it is published, once the connection is gone.
    pub due_at: Option<Time>,
}
