//! The end of connections and of sessions: what the client is told, what
//! happens to its will and when its session expires.

use std::io;

use crate::{
    base::{ConnId, Output, SessionKey, Time},
    codec::{ConnAck, DecodeError, Disconnect, Packet, Property, PropertyBuf, ReasonCode, Version},
    session::Session,
    storage::Source,
    topic::{FilterError, Member},
};

use super::timers::Timer;
use super::{Broker, Effect, Flow, connection::Connection, mesh::Mesh, packet_log, publish::From};

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Cause {
    /// The client sent DISCONNECT.
    Client(ReasonCode),
    /// End of stream without DISCONNECT, or a socket error.
    NetworkLost(Option<io::Error>),
    /// Bytes that are no packet.
    Faulty(DecodeError),
    /// A SUBSCRIBE or UNSUBSCRIBE with a text that is no Topic Filter.
    MalformedFilter(FilterError),
    /// A packet that is not acceptable.
    Refused(ReasonCode, &'static str),
    /// A client that did not prove again who it is.
    NotAuthenticated(String),
    /// What was verified of the client does not hold any longer.
    ProofExpired,
    /// A CONNECT that is not acceptable.
    ConnectRefused(ReasonCode, String),
    /// The first packet was no CONNECT of any MQTT version.
    NotConnect,
    /// No CONNECT came in time, or the authentication that it began did not end.
    ConnectTimeout,
    /// Nothing came for 1.5 times the keep-alive.
    KeepAlive,
    /// It does not take what waits for it.
    TooSlow(&'static str),
    /// A reply is larger than the client's Maximum Packet Size.
    ReplyTooLarge,
    /// Already CONNACK is: there is no connection yet for a DISCONNECT to end (MQTT-3.14.0-1).
    ConnAckTooLarge,
    /// Another connection serves the session now.
    TakenOver { clean_start: bool },
    /// It is banned from now on.
    Banned,
    /// The server ends.
    Shutdown,
}

impl Cause {
    /// What the client is told in DISCONNECT, if anything.
    fn disconnect_reason(&self) -> Option<ReasonCode> {
        match self {
            // A second CONNECT: 0x84 is for CONNACK only.
            Self::Faulty(DecodeError::UnsupportedVersion { .. }) => Some(ReasonCode::ProtocolError),
            Self::Faulty(error) => Some(error.reason()),
            Self::MalformedFilter(_) => Some(ReasonCode::MalformedPacket),
            Self::Refused(reason, _) => Some(*reason),
            Self::TooSlow(_) => Some(ReasonCode::QuotaExceeded),
            Self::NotAuthenticated(_) => Some(ReasonCode::NotAuthorized),
            Self::ReplyTooLarge => Some(ReasonCode::PacketTooLarge),
            Self::KeepAlive => Some(ReasonCode::KeepAliveTimeout),
            Self::ProofExpired => Some(ReasonCode::MaximumConnectTime),
            Self::TakenOver { .. } => Some(ReasonCode::SessionTakenOver),
            // 0x8A is for CONNACK only (section 3.14.2.1).
            Self::Banned => Some(ReasonCode::AdministrativeAction),
            Self::Shutdown => Some(ReasonCode::ServerShuttingDown),
            Self::Client(_)
            | Self::NetworkLost(_)
            | Self::ConnectRefused(..)
            | Self::ConnAckTooLarge
            | Self::NotConnect
            | Self::ConnectTimeout => None,
        }
    }

    /// What the client's developer is told, where the reason code leaves something open.
    fn reason_string(&self) -> Option<String> {
        match self {
            Self::Faulty(error) => Some(error.to_string()),
            Self::MalformedFilter(error) => Some(error.to_string()),
            Self::Refused(_, why) | Self::TooSlow(why) => Some((*why).to_owned()),
            // Nor may it be learned what was wrong with credentials.
            Self::ConnectRefused(
                ReasonCode::NotAuthorized | ReasonCode::BadUserNameOrPassword,
                _,
            ) => None,
            Self::ConnectRefused(_, why) => Some(why.clone()),
            Self::ProofExpired | Self::Banned => Some(self.explain()),
            _ => None,
        }
    }

    fn explain(&self) -> String {
        match self {
            Self::Client(reason) => format!("DISCONNECT from the client: {reason}"),
            Self::NetworkLost(None) => "connection closed by the client without DISCONNECT".into(),
            Self::NetworkLost(Some(error)) => format!("network error: {error}"),
            Self::Faulty(error) => error.to_string(),
            Self::MalformedFilter(error) => error.to_string(),
            Self::Refused(reason, why) => format!("{why}: {reason}"),
            Self::TooSlow(why) => format!("too slow: {why}"),
            Self::NotAuthenticated(why) => why.clone(),
            Self::ConnectRefused(reason, why) => format!("{why}: {reason}"),
            Self::NotConnect => {
                "the first packet is no MQTT CONNECT (nor does its listener speak TLS or WebSocket)"
                    .into()
            }
            Self::ConnectTimeout => {
                "no CONNECT, or no end of its authentication, within connect_timeout_secs".into()
            }
            Self::ReplyTooLarge => "a reply passes the client's Maximum Packet Size".into(),
            Self::ConnAckTooLarge => "CONNACK passes the client's Maximum Packet Size".into(),
            Self::KeepAlive => "keep-alive exceeded".into(),
            Self::ProofExpired => "the credentials of the client have expired".into(),
            Self::TakenOver { .. } => "taken over by a new connection of this client id".into(),
            Self::Banned => "the client, its user or its address is banned".into(),
            Self::Shutdown => "the server shuts down".into(),
        }
    }
}

impl Broker {
    /// Ends a connection: says why where MQTT has words for it, and has the
    /// shell close it. Its session goes on without it, or ends.
    pub(super) fn close(&mut self, conn: ConnId, cause: Cause) -> Flow {
        let Some(mut connection) = self.forget(conn) else { return Flow::Gone };
        self.log_end(&connection, &cause);
        if let Cause::TooSlow(_) = cause {
            // It is not read anyway, begins with a whole packet, and its memory is what this is about.
            connection.output = Output::default();
        }
        if connection.is_held {
            // What CONNACK promises may not hold yet, and nothing comes before that (MQTT-3.14.0-1).
            connection.output.clear();
        } else {
            self.append_farewell(&mut connection, &cause);
        }
        if connection.paused.claims {
            self.withdraw_claims(conn);
        }
        let Connection { session, output, input, .. } = *connection;
        self.connections.recycle(input);
        let records_before = self.appended();
        if let Cause::NetworkLost(_) = cause {
            self.connections.recycle(output.into_room());
        } else if !session.is_some_and(|key| self.is_durable(key)) {
            self.effects.push_back(Effect::Close { conn, last: output });
        } else {
            self.closing.push_back((u64::MAX, conn, output));
        }
        if let Some(key) = session {
            self.session_disconnected(key, &cause);
        }
        self.close_once_on_disk(conn, records_before);
        Flow::Gone
    }

    /// Who sees the end of a connection sees it on disk what became of the session.
    fn close_once_on_disk(&mut self, conn: ConnId, records_before: u64) {
        let commit = match self.appended() > records_before {
            true => self.commit().commit,
            false => 0,
        };
        if let Some(last) = self.closing.iter_mut().rev().find(|(_, closing, _)| *closing == conn) {
            last.0 = commit;
        }
        self.finish_closing();
    }

    /// Has the shell close connections, as far as what that tells is on disk.
    pub(super) fn finish_closing(&mut self) {
        let committed = self.committed();
        while self.closing.front().is_some_and(|(commit, ..)| *commit <= committed)
            && let Some((_, conn, last)) = self.closing.pop_front()
        {
            self.effects.push_back(Effect::Close { conn, last });
        }
    }

    /// Takes a connection out of all tables; the shell decides what becomes of it.
    pub(super) fn forget(&mut self, conn: ConnId) -> Option<Box<Connection>> {
        let mut connection = self.connections.remove(conn)?;
        self.timers.set(conn.into(), &mut connection.timer_at, None);
        if let Some(tracer) = &mut self.tracer {
            tracer.gone(conn);
        }
        Some(connection)
    }

    /// DISCONNECT from the client (MQTT 5.0 section 3.14).
    pub(super) fn client_disconnect(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        disconnect: &Disconnect<'_>,
    ) -> Flow {
        let expiry_secs = disconnect.properties.iter().find_map(|property| match property {
            Property::SessionExpiryInterval(secs) => Some(secs),
            _ => None,
        });
        let asked_none = self.connections.get(conn).is_some_and(|found| !found.asked_for_expiry);
        if let (Some(secs), Some(session)) = (expiry_secs, self.sessions.get_mut(key)) {
            // Section 3.14.2.2.2: a session that was to end with the connection stays so.
            if asked_none && secs > 0 {
                let why = "Session Expiry Interval set in DISCONNECT after 0 in CONNECT";
                return self.close(conn, Cause::Refused(ReasonCode::ProtocolError, why));
            }
            session.expiry_secs = secs.min(self.policy.limits.session_expiry_secs_max);
        }
        self.close(conn, Cause::Client(disconnect.reason))
    }

    /// The connection's own deadline: CONNECT, later the keep-alive.
    pub(super) fn connection_timer(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        connection.timer_at = None;
        if connection.paused.is_ours() {
            // So its silence says nothing.
            connection.last_packet_at = self.now;
        }
        let goes_on = self.end_publish_pause(conn);
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let deadline = match connection.session {
            Some(_) => connection.next_deadline(),
            None => {
                let secs = u64::from(self.policy.limits.connect_timeout_secs);
                Some(connection.last_packet_at.plus_secs(secs))
            }
        };
        if deadline.is_some_and(|at| at <= self.now) {
            let has_expired = connection.has_expired(self.now);
            match connection.session {
                Some(_) if has_expired => self.close(conn, Cause::ProofExpired),
                Some(_) => self.close(conn, Cause::KeepAlive),
                None if connection.paused.verdict => {
                    let why = "the credentials could not be checked in time";
                    self.refuse(conn, ReasonCode::ServerUnavailable, why)
                }
                None => self.close(conn, Cause::ConnectTimeout),
            };
        } else {
            self.timers.set(conn.into(), &mut connection.timer_at, deadline);
            if goes_on {
                self.resume(conn);
            }
        }
    }

    /// The session's deadline: its will is due, or it expires.
    pub(super) fn session_timer(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        self.timers.set(Timer::Session(key), &mut session.timer_at, None);
        if session.expires_at.is_some_and(|at| at <= self.now) {
            tracing::info!(client = %session.client, "session expired");
            return self.end_session(key);
        }
        let will_is_due = session.will.as_ref().and_then(|will| will.due_at);
        if will_is_due.is_some_and(|at| at <= self.now) {
            self.publish_will(key);
            self.log_detached(key);
        }
        self.set_session_timer(key);
    }

    /// Ends a session: its will is published now at the latest, its
    /// subscriptions and messages are gone.
    pub(super) fn end_session(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        // First, lest a shared subscription gives the will to whose it is.
        let subscriptions = std::mem::take(&mut session.subscriptions);
        if let (Some(durable), true) = (&mut self.durable, session.durable.is_some()) {
            durable.subscriptions -= subscriptions.len() as u64;
        }
        for filter in subscriptions.iter() {
            self.remove_subscription(key, filter);
        }
        self.publish_will(key);
        let Some(mut session) = self.sessions.remove(key) else { return };
        self.log_ended(&session);
        self.timers.set(Timer::Session(key), &mut session.timer_at, None);
    }

    /// Tells all shards whether a member of shared subscriptions can be reached.
    pub(super) fn announce_online(&mut self, key: SessionKey, online: bool) {
        let Some(session) = self.sessions.get(key) else { return };
        let shared = session.subscriptions.iter().filter(|filter| filter.share_name().is_some());
        for filter in shared {
            let member = Member { shard: self.shard, session: key };
            let options = self.index.member_options(filter, member);
            if online && options.is_some_and(|options| options.marks.is_denied()) {
                continue;
            }
            self.index.set_online(filter, member, online);
            let announce = || Mesh::MemberOnline { filter: filter.clone(), member: key, online };
            self.peers.broadcast(announce);
        }
    }

    fn session_disconnected(&mut self, key: SessionKey, cause: &Cause) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.conn = None;
        settle_will(session, cause, self.now);
        if session.expiry_secs == 0 {
            return self.end_session(key);
        }
        session.expires_at = (session.expiry_secs < u32::MAX)
            .then(|| self.now.plus_secs(u64::from(session.expiry_secs)));
        session.outbox.disconnected(session.durable.is_some());
        let will_at = session.will.as_ref().and_then(|will| will.due_at);
        self.log_detached(key);
        // After a take-over the new connection speaks for the session.
        if !matches!(cause, Cause::TakenOver { .. }) {
            self.announce_online(key, false);
        }
        if will_at.is_some_and(|at| at <= self.now) {
            self.publish_will(key);
            self.log_detached(key);
        }
        self.set_session_timer(key);
    }

    fn set_session_timer(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            let deadline = session.next_deadline();
            self.timers.set(Timer::Session(key), &mut session.timer_at, deadline);
        }
    }

    fn publish_will(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(will) = session.will.take() else { return };
        let message = will.publication.message();
        tracing::debug!(
            target: packet_log::TARGET,
            client = %session.client,
            topic = %message.topic,
            "Publishing will"
        );
        let source = session.durable.map(|durable| Source::Will(durable.number));
        self.dispatch(
            key,
            message,
            will.message_expiry_secs,
            From { source, conn: None, client: None },
        );
    }

    /// The last packet for the client. A CONNACK that refuses, or a DISCONNECT,
    /// which only v5 knows and only after CONNACK (MQTT-3.14.0-1).
    fn append_farewell(&self, connection: &mut Connection, cause: &Cause) {
        let is_v5 = connection.version == Version::V5;
        let (is_connack, reason) = match (cause, cause.disconnect_reason()) {
            (Cause::ConnectRefused(reason, _), _) => (true, *reason),
            (_, Some(reason)) if is_v5 && connection.session.is_some() => (false, reason),
            _ => return,
        };
        let redirect = self.policy.redirect.as_ref();
        let reason = match cause {
            Cause::Shutdown if redirect.is_some() => ReasonCode::UseAnotherServer,
            _ => reason,
        };
        let mut properties = PropertyBuf::new();
        if is_v5
            && matches!(reason, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved)
            && let Some(redirect) = redirect
        {
            properties.push(Property::ServerReference(&redirect.server_reference));
        }
        let required = properties.clone();
        if is_v5
            && connection.wants_problems
            && let Some(why) = cause.reason_string()
        {
            properties.push(Property::ReasonString(&why));
        }
        // Without the Reason String if the packet is too large for the client with it (MQTT-3.2.2-19,
        // MQTT-3.14.2-3).
        for properties in [&properties, &required] {
            let properties = properties.as_properties();
            let packet = if is_connack {
                Packet::ConnAck(ConnAck { session_present: false, reason, properties })
            } else {
                Packet::Disconnect(Disconnect { reason, properties })
            };
            let output = connection.output.tail();
            let start = output.len();
            packet.encode(connection.version, output);
            if output.len() - start <= connection.packet_bytes_max as usize {
                if let Some(key) = connection.session {
                    packet_log::sending(&self.sessions, key, &packet);
                }
                return;
            }
            output.truncate(start);
        }
    }

    fn log_end(&self, connection: &Connection, cause: &Cause) {
        let peer = connection.origin.peer;
        let session = connection.session.and_then(|key| self.sessions.get(key));
        let reason = cause.explain();
        match (session, cause) {
            (Some(session), _) => {
                let dropped = (session.drops > 0).then_some(session.drops);
                tracing::info!(client = %session.client, %peer, reason, dropped, "client disconnected");
            }
            // Port scanners and health checks: not worth a line each by default.
            (None, Cause::NetworkLost(_)) => {
                tracing::debug!(%peer, reason, "connection ended before CONNECT");
            }
            // Its ban was told.
            (None, Cause::ConnectRefused(ReasonCode::Banned, _)) => {
                tracing::debug!(%peer, reason, "connection refused");
            }
            (None, _) => tracing::info!(%peer, reason, "connection refused"),
        }
    }
}

/// Decides what becomes of the will when the connection is gone: deleted, or
/// due at some time (MQTT-3.1.2-8, MQTT-3.1.3-9, MQTT-3.14.4-3).
fn settle_will(session: &mut Session, cause: &Cause, now: Time) {
    let Some(will) = &mut session.will else { return };
    let deleted = match cause {
        Cause::Client(reason) => *reason == ReasonCode::NormalDisconnection,
        // The new connection comes before a delay has passed, if the session goes on.
        Cause::TakenOver { clean_start } => {
            !clean_start && session.expiry_secs > 0 && will.delay_secs > 0
        }
        // A delayed one is due when the server is back, unless its client is back first.
        Cause::Shutdown => session.durable.is_none() || will.delay_secs == 0,
        // Was never accepted, so there is no loss to tell of.
        Cause::ConnAckTooLarge => true,
        _ => false,
    };
    if deleted {
        session.will = None;
    } else {
        will.due_at = Some(now.plus_secs(u64::from(will.delay_secs)));
    }
}
