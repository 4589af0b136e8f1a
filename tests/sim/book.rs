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
    /// Which of all CONNECTs it is.
    pub(crate) number: usize,
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
    /// Number of the CONNECT.
    pub(crate) connect: usize,
    pub(crate) session_present: bool,
    /// Differs from session to session.
    pub(crate) serial: u64,
    /// The session is one that a restart has found.
    pub(crate) has_survived: bool,
}

/// A CONNECT that the broker has heard, and what came of it.
#[derive(Default)]
struct Connect {
    client: usize,
    serial: u64,
    /// CONNACK has come.
    is_acknowledged: bool,
    /// Session Expiry Intervals that the client has asked for, and when the connection may have ended.
    expiries_secs: Vec<u32>,
    ends: Vec<Time>,
    /// The session has expired since; a log may not have it yet.
    has_expired: bool,
    /// Number of its will's message, and whether that is published or will never be.
    will: Option<usize>,
    is_will_over: bool,
}

/// What a log has of a session after the end of the whole machine.
#[derive(Debug)]
pub(crate) struct Survivor {
    pub(crate) connect: usize,
    pub(crate) home: ShardId,
    pub(crate) expiry_secs: u32,
    pub(crate) detached_at: Option<Time>,
    pub(crate) will: Option<Will>,
    pub(crate) will_due_at: Option<Time>,
}

/// How a session fares.
struct Session {
    /// Number of its last CONNECT.
    connect: usize,
    /// Whether it outlives the process.
    is_durable: bool,
    /// A restart has found it.
    has_survived: bool,
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
    /// By number.
    connects: Vec<Connect>,
    /// Messages of the wills that were published of sessions that outlive the process, and the
    /// CONNECTs that they come from.
    pub(crate) durable_wills: BTreeMap<usize, usize>,
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
            connects: Vec::new(),
            durable_wills: BTreeMap::new(),
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

    /// The number of the next CONNECT.
    pub(crate) fn announce(&mut self, client: usize) -> usize {
        self.connects.push(Connect { client, ..Connect::default() });
        self.connects.len() - 1
    }

    /// CONNACK has come.
    pub(crate) fn acknowledged(&mut self, connect: usize) {
        self.connects[connect].is_acknowledged = true;
    }

    /// The whole machine has ended, and goes on with what is left of a client's session. Returns the
    /// serial of that session.
    pub(crate) fn survive(
        &mut self,
        now: Time,
        client: usize,
        survivor: Option<Survivor>,
    ) -> Option<u64> {
        let before = self.sessions.remove(&client);
        let numbered = self.connects.iter().enumerate();
        let mut acknowledged = numbered.filter(|(_, one)| one.client == client);
        let last = acknowledged.rfind(|(_, one)| one.is_acknowledged);
        // What was published for a CONNECT that the log may never have heard of may be lost with it.
        let known = survivor.as_ref().map(|survivor| survivor.connect);
        let known = known.or(last.map(|(connect, _)| connect));
        let connects = &self.connects;
        let is_others = |connect: usize| connects[connect].client != client;
        self.durable_wills
            .retain(|_, connect| is_others(*connect) || known.is_some_and(|last| *connect <= last));
        let Some(survivor) = survivor else {
            let is_promised = before.as_ref().is_some_and(|before| {
                before.is_durable && last.is_some_and(|(_, last)| last.serial == before.serial)
            });
            assert!(!is_promised, "rule 18: the session of client {client} is lost");
            return None;
        };
        let connect = survivor.connect;
        // One that had expired may be back, to expire again.
        let lost_at = survivor.detached_at.unwrap_or(now);
        let expires_at = match survivor.expiry_secs {
            u32::MAX => None,
            secs => Some(lost_at.plus_secs(secs.into())),
        };
        let has_expired = self.connects[connect].has_expired;
        let is_expired = has_expired || expires_at.is_some_and(|at| at <= now);
        assert!(
            is_expired || last.is_none_or(|(last, _)| last <= connect),
            "rule 18: the session of client {client} is as it was before its last CONNACK"
        );
        let told = &mut self.connects[connect];
        assert_eq!(told.client, client, "rule 18: another client's CONNECT");
        assert!(
            told.expiries_secs.contains(&survivor.expiry_secs),
            "rule 21: {survivor:?} never had this Session Expiry Interval"
        );
        if survivor.expiry_secs < u32::MAX
            && let Some(at) = survivor.detached_at
        {
            assert!(told.ends.contains(&at), "rule 21: {survivor:?}, not {:?}", told.ends);
        }
        match &survivor.will {
            Some(will) => assert_eq!(told.will, Some(will.message), "rule 19: another will"),
            None => assert!(
                told.will.is_none() || told.is_will_over,
                "rule 19: the will {:?} of client {client} is lost",
                told.will
            ),
        }
        told.ends.push(now);
        told.is_will_over &= survivor.will.is_none();
        let delay_secs = survivor.will.as_ref().map_or(0, |will| will.delay_secs);
        let will_at = survivor.will_due_at.unwrap_or(now.plus_secs(delay_secs.into()));
        let serial = told.serial;
        self.sessions.insert(
            client,
            Session {
                connect,
                is_durable: true,
                has_survived: true,
                serial,
                home: survivor.home,
                expiry_secs: survivor.expiry_secs,
                will: survivor.will,
                life: Life::Alone { expires_at, will_at },
            },
        );
        Some(serial)
    }

    /// A session that a restart has found lives on another shard now.
    pub(crate) fn follow(&mut self, client: usize, home: ShardId) {
        let session = self.sessions.get_mut(&client);
        session.expect("rule 22: a session that a restart has found").home = home;
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
                    self.connects[session.connect].expiries_secs.push(session.expiry_secs);
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

    /// CONNECT was refused: there was no session, and there is none.
    pub(crate) fn refuse(&mut self, client: usize, link: LinkId) {
        if self.serves(client, link) {
            self.sessions.remove(&client);
            self.welcomes.remove(&link);
        }
    }

    /// The broker reads on from a connection: until now, its silence says nothing.
    pub(crate) fn read_on(&mut self, now: Time, client: usize, link: LinkId) {
        let life = self.sessions.get_mut(&client).map(|session| &mut session.life);
        if let Some(Life::Connected { link: serving, last_packet_at, .. }) = life
            && *serving == link
        {
            *last_packet_at = now;
        }
    }

    /// The broker was told that a connection has ended.
    pub(crate) fn hang_up(&mut self, now: Time, client: usize, link: LinkId) {
        if self.serves(client, link) {
            self.end_connection(now, client, Cause::Other);
        }
    }

    /// A shard did what is due.
    pub(crate) fn advance(
        &mut self,
        now: Time,
        shard: ShardId,
        is_paused: impl Fn(LinkId) -> bool,
    ) {
        let here = self.sessions.iter().filter(|(_, session)| session.home == shard);
        for client in here.map(|(client, _)| *client).collect::<Vec<_>>() {
            let session = self.sessions.get_mut(&client);
            if let Some(Life::Connected { link, keep_alive_secs, last_packet_at }) =
                session.map(|session| &mut session.life)
                && *keep_alive_secs > 0
                && last_packet_at.plus_millis(u64::from(*keep_alive_secs) * 1500) <= now
            {
                if is_paused(*link) {
                    // Its silence says nothing.
                    *last_packet_at = now;
                } else {
                    self.farewells.insert(*link, ReasonCode::KeepAliveTimeout);
                    self.end_connection(now, client, Cause::Other);
                }
            }
            self.catch_up(now, client);
        }
        self.news.push(News::Advanced { shard, at: now });
    }

    /// Which session of a client there is now.
    pub(crate) fn serial(&self, client: usize) -> Option<u64> {
        self.sessions.get(&client).map(|session| session.serial)
    }

    /// With a log, a will that is delayed is due when the server is back.
    pub(crate) fn shut_down(&mut self, now: Time, has_log: bool) {
        for client in self.sessions.keys().copied().collect::<Vec<_>>() {
            let session = &self.sessions[&client];
            if let Life::Connected { link, .. } = session.life {
                let is_delayed = session.will.as_ref().is_some_and(|will| will.delay_secs > 0);
                let cause = match has_log && session.is_durable && is_delayed {
                    true => Cause::Other,
                    false => Cause::WithoutWill,
                };
                self.farewells.insert(link, ReasonCode::ServerShuttingDown);
                self.end_connection(now, client, cause);
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
        if let Some(old) = &old {
            self.connects[old.connect].is_will_over = true;
        }
        let expiry_secs = hello.expiry_secs.min(self.expiry_secs_max);
        let has_survived = old.as_ref().is_some_and(|old| old.has_survived);
        let is_durable = old.as_ref().map_or(expiry_secs > 0, |old| old.is_durable);
        let session_present = old.is_some();
        let serial = old.map_or_else(
            || {
                self.sessions_begun += 1;
                self.sessions_begun
            },
            |old| old.serial,
        );
        let connect = hello.number;
        self.connects[connect] = Connect {
            client,
            serial,
            expiries_secs: vec![expiry_secs],
            will: hello.will.as_ref().map(|will| will.message),
            ..Connect::default()
        };
        self.welcomes.insert(link, Welcome { connect, session_present, serial, has_survived });
        let keep_alive_secs = hello.keep_alive_secs;
        self.sessions.insert(
            client,
            Session {
                connect,
                is_durable,
                has_survived,
                serial,
                home,
                expiry_secs,
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
        let connect = &mut self.connects[session.connect];
        connect.ends.push(now);
        if cause == Cause::WithoutWill {
            connect.is_will_over = true;
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
            self.connects[session.connect].has_expired = true;
            self.end_session(now, client);
        } else if will_at <= now {
            let (due, home) = (session.will.take(), session.home);
            let (connect, is_durable) = (session.connect, session.is_durable);
            self.publish(now, due, home, connect, is_durable);
        }
    }

    fn end_session(&mut self, now: Time, client: usize) {
        let Some(session) = self.sessions.remove(&client) else { return };
        let Session { will, home, connect, is_durable, .. } = session;
        self.publish(now, will, home, connect, is_durable);
    }

    fn publish(
        &mut self,
        now: Time,
        will: Option<Will>,
        home: ShardId,
        connect: usize,
        is_durable: bool,
    ) {
        self.connects[connect].is_will_over = true;
        if is_durable {
            self.durable_wills.extend(will.as_ref().map(|will| (will.message, connect)));
        }
        let due = will.map(|will| News::WillIsDue { message: will.message, at: now, home });
        self.news.extend(due);
    }
}
