//! The sessions as the standard has them, kept beside the brokers: who is
//! connected, which sessions exist, what becomes of the wills, and when.
//!
//! Is told what reaches the brokers and when, never what they make of it.

use std::collections::BTreeMap;

use ringmq::{
    base::{ShardId, Time},
    codec::ReasonCode,
};

use crate::link::LinkId;

/// What a client says, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    Connect(Hello),
    /// Number of a message.
    Publish(usize),
    Disconnect {
        with_will: bool,
        expiry_secs: Option<u32>,
    },
    /// A packet that no client may send; the broker's answer.
    Offence(ReasonCode),
    /// A SUBSCRIBE that may have to wait, and all behind it.
    Claim,
    Other,
}

/// A CONNECT.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub(crate) clean_start: bool,
    pub(crate) expiry_secs: u32,
    pub(crate) keep_alive_secs: u16,
    pub(crate) will: Option<Will>,
}

#[derive(Clone, Debug)]
pub(crate) struct Will {
    /// Number of its message.
    pub(crate) message: usize,
    pub(crate) delay_secs: u32,
}

/// What the messages' publishers cannot know by themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum News {
    /// The broker has taken a PUBLISH with this message.
    Heard { message: usize, at: Time, home: ShardId },
    /// It has to publish this will now.
    WillIsDue { message: usize, at: Time, home: ShardId },
    /// A shard has done what was due.
    Advanced { shard: ShardId, at: Time },
}

/// What CONNACK must say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Welcome {
    pub(crate) session_present: bool,
    /// Differs from session to session.
    pub(crate) serial: u64,
}

/// How a session fares.
struct Session {
    serial: u64,
    home: ShardId,
    expiry_secs: u32,
    will: Option<Will>,
    life: Life,
}

enum Life {
    Connected {
        link: LinkId,
        keep_alive_secs: u16,
        last_packet_at: Time,
    },
    /// Since some time; a will waits out its delay until another.
    Alone {
        expires_at: Option<Time>,
        will_at: Time,
    },
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    /// DISCONNECT that deletes the will, or the end of the server.
    WithoutWill,
    Other,
}

pub(crate) struct Book {
    expiry_secs_max: u32,
    /// By client.
    sessions: BTreeMap<usize, Session>,
    /// Of connections whose CONNECT was taken.
    welcomes: BTreeMap<LinkId, Welcome>,
    /// Why the broker ends a connection, for DISCONNECT.
    farewells: BTreeMap<LinkId, ReasonCode>,
    pub(crate) news: Vec<News>,
    sessions_begun: u64,
    pub(crate) sessions_expired: u64,
}

impl Book {
    pub(crate) fn new(expiry_secs_max: u32) -> Self {
        Self {
            expiry_secs_max,
            sessions: BTreeMap::new(),
            welcomes: BTreeMap::new(),
            farewells: BTreeMap::new(),
            news: Vec::new(),
            sessions_begun: 0,
            sessions_expired: 0,
        }
    }

    /// What CONNACK on this connection must say; `None` if no CONNECT was taken.
    pub(crate) fn welcome(&self, link: LinkId) -> Option<Welcome> {
        self.welcomes.get(&link).copied()
    }

    /// What DISCONNECT on this connection must say, if the broker has a reason to send one.
    pub(crate) fn farewell(&self, link: LinkId) -> Option<ReasonCode> {
        self.farewells.get(&link).copied()
    }

    /// A whole packet of a client has reached its home.
    pub(crate) fn hear(
        &mut self,
        now: Time,
        (client, link): (usize, LinkId),
        home: ShardId,
        word: Word,
    ) {
        if let Word::Connect(hello) = word {
            return self.connect(now, (client, link), home, hello);
        }
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let Life::Connected { link: serving, last_packet_at, .. } = &mut session.life else {
            return;
        };
        if *serving != link {
            return;
        }
        *last_packet_at = now;
        match word {
            Word::Publish(message) => self.news.push(News::Heard { message, at: now, home }),
            Word::Disconnect { with_will, expiry_secs } => {
                if let Some(secs) = expiry_secs {
                    session.expiry_secs = secs.min(self.expiry_secs_max);
                }
                let cause = if with_will { Cause::Other } else { Cause::WithoutWill };
                self.end_connection(now, client, cause);
            }
            Word::Offence(reason) => {
                self.farewells.insert(link, reason);
                self.end_connection(now, client, Cause::Other);
            }
            Word::Connect(_) | Word::Claim | Word::Other => {}
        }
    }

    /// The broker was told that a connection has ended.
    pub(crate) fn hang_up(&mut self, now: Time, client: usize, link: LinkId) {
        if self.serves(client, link) {
            self.end_connection(now, client, Cause::Other);
        }
    }

    /// A shard did what is due.
    pub(crate) fn advance(&mut self, now: Time, shard: ShardId) {
        let here = self.sessions.iter().filter(|(_, session)| session.home == shard);
        for client in here.map(|(client, _)| *client).collect::<Vec<_>>() {
            let life = &self.sessions[&client].life;
            if let Life::Connected { link, keep_alive_secs, last_packet_at } = life
                && *keep_alive_secs > 0
                && last_packet_at.plus_millis(u64::from(*keep_alive_secs) * 1500) <= now
            {
                self.farewells.insert(*link, ReasonCode::KeepAliveTimeout);
                self.end_connection(now, client, Cause::Other);
            }
            self.catch_up(now, client);
        }
        self.news.push(News::Advanced { shard, at: now });
    }

    /// Which session of a client there is now.
    pub(crate) fn serial(&self, client: usize) -> Option<u64> {
        self.sessions.get(&client).map(|session| session.serial)
    }

    pub(crate) fn shut_down(&mut self, now: Time) {
        for client in self.sessions.keys().copied().collect::<Vec<_>>() {
            if let Life::Connected { link, .. } = self.sessions[&client].life {
                self.farewells.insert(link, ReasonCode::ServerShuttingDown);
                self.end_connection(now, client, Cause::WithoutWill);
            }
        }
    }

    fn connect(&mut self, now: Time, (client, link): (usize, LinkId), home: ShardId, hello: Hello) {
        // MQTT-3.1.4-3: as if the old connection had been lost.
        if let Some(Session { life: Life::Connected { link: old, .. }, .. }) =
            self.sessions.get(&client)
        {
            self.farewells.insert(*old, ReasonCode::SessionTakenOver);
            self.end_connection(now, client, Cause::Other);
        }
        self.catch_up(now, client);
        if hello.clean_start {
            self.end_session(now, client);
        }
        // MQTT-3.1.3-9: a will that still waits here is not published.
        let old = self.sessions.remove(&client);
        let session_present = old.is_some();
        let serial = old.map_or_else(
            || {
                self.sessions_begun += 1;
                self.sessions_begun
            },
            |old| old.serial,
        );
        self.welcomes.insert(link, Welcome { session_present, serial });
        let keep_alive_secs = hello.keep_alive_secs;
        self.sessions.insert(
            client,
            Session {
                serial,
                home,
                expiry_secs: hello.expiry_secs.min(self.expiry_secs_max),
                will: hello.will,
                life: Life::Connected { link, keep_alive_secs, last_packet_at: now },
            },
        );
    }

    fn serves(&self, client: usize, link: LinkId) -> bool {
        self.sessions.get(&client).is_some_and(|session| {
            matches!(session.life, Life::Connected { link: serving, .. } if serving == link)
        })
    }

    /// MQTT-3.1.2-8, MQTT-3.14.4-3, MQTT-4.1.0-2.
    fn end_connection(&mut self, now: Time, client: usize, cause: Cause) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if cause == Cause::WithoutWill {
            session.will = None;
        }
        let delay_secs = session.will.as_ref().map_or(0, |will| will.delay_secs);
        let expires_at = match session.expiry_secs {
            u32::MAX => None,
            secs => Some(now.plus_secs(secs.into())),
        };
        session.life = Life::Alone { expires_at, will_at: now.plus_secs(delay_secs.into()) };
        self.catch_up(now, client);
    }

    /// Does what is due for a session without a connection.
    fn catch_up(&mut self, now: Time, client: usize) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let Life::Alone { expires_at, will_at } = session.life else { return };
        if expires_at.is_some_and(|at| at <= now) {
            self.sessions_expired += u64::from(session.expiry_secs > 0);
            self.end_session(now, client);
        } else if will_at <= now {
            let (due, home) = (session.will.take(), session.home);
            self.publish(now, due, home);
        }
    }

    fn end_session(&mut self, now: Time, client: usize) {
        let Some(session) = self.sessions.remove(&client) else { return };
        self.publish(now, session.will, session.home);
    }

    fn publish(&mut self, now: Time, will: Option<Will>, home: ShardId) {
        let due = will.map(|will| News::WillIsDue { message: will.message, at: now, home });
        self.news.extend(due);
    }
}
