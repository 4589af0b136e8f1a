//! Enhanced authentication (MQTT 5.0 section 4.12): the exchange of AUTH packets
//! that a CONNECT begins, and its repetition on a connection that exists.
//!
//! Carries messages between packets and `auth::scram`, which understands them.

use crate::{
    auth::{
        scram::{self, Exchange, ScramError},
        verified::Verified,
    },
    base::{ConnId, SessionKey},
    codec::{
        self, Auth, Connect, Frame, Packet, PacketType, Properties, Property, PropertyBuf,
        ReasonCode, Version, next_frame,
    },
    config::{Method, prepare_user_name},
};

use super::{
    Broker, Flow,
    close::Cause,
    credentials::{Checking, Proven},
    packet_log,
};

/// Where a connection stands whose CONNECT named an authentication method, or has credentials that take
/// time to check.
#[derive(Debug)]
pub(super) enum Authentication {
    /// Before CONNACK.
    Connecting {
        /// The CONNECT, which takes effect when the exchange succeeds: at most
        /// [`CONNECT_BYTES_MAX`](crate::base::limits::CONNECT_BYTES_MAX).
        connect: Box<[u8]>,
        next: Step,
    },
    /// The same, for a verdict and not for packets.
    Checking(Checking),
    /// After it.
    Connected {
        /// Who the client has proven to be.
        user: Box<str>,
        /// What comes next, if it proves that again.
        again: Option<Step>,
    },
}

/// The message of the client that comes next.
#[derive(Debug)]
pub(super) enum Step {
    First,
    /// A few times the client's first message, which is at most
    /// [`SCRAM_MESSAGE_BYTES_MAX`](crate::base::limits::SCRAM_MESSAGE_BYTES_MAX).
    Last(Exchange),
}

/// What follows from a message of the client.
enum Turn {
    /// The server's answer, and what comes next.
    Answer(Option<String>, Step),
    Proven(scram::Proven),
}

/// Authentication Method and Authentication Data of a packet.
#[derive(Clone, Copy, Default)]
pub(super) struct AuthFields<'a> {
    pub(super) method: Option<&'a str>,
    data: Option<&'a [u8]>,
}

impl<'a> AuthFields<'a> {
    pub(super) fn new(properties: Properties<'a>) -> Self {
        let mut fields = Self::default();
        for property in properties.iter() {
            match property {
                Property::AuthenticationMethod(name) => fields.method = Some(name),
                Property::AuthenticationData(data) => fields.data = Some(data),
                _ => {}
            }
        }
        fields
    }

    fn is_ours(&self) -> bool {
        self.method == Some(scram::METHOD)
    }
}

impl Broker {
    /// Begins the exchange that a CONNECT asks for. `packet` is all of it.
    pub(super) fn begin_authentication(
        &mut self,
        conn: ConnId,
        packet: &[u8],
        fields: AuthFields<'_>,
    ) -> Flow {
        let listener = self.connections.get(conn).map(|connection| connection.origin.listener);
        let chain = self.policy.chain(listener.unwrap_or_default());
        let is_possible = chain.contains(&Method::Password);
        if !fields.is_ours() || !is_possible || !self.policy.credentials.has_scram() {
            let why = "unknown authentication method (MQTT-4.12.0-1)";
            return self.refuse(conn, ReasonCode::BadAuthenticationMethod, why);
        }
        let turn = self.first_turn(fields.data);
        self.go_on_connecting(conn, packet.into(), turn)
    }

    /// Handles a packet between CONNECT and CONNACK (MQTT-3.1.2-30).
    pub(super) fn packet_while_connecting(&mut self, conn: ConnId, frame: &Frame<'_>) -> Flow {
        let may_come =
            matches!(frame.packet_type(), Some(PacketType::Auth | PacketType::Disconnect));
        match codec::decode_from_client(Version::V5, frame) {
            Ok(Packet::Auth(auth)) => self.continue_connecting(conn, &auth),
            Ok(Packet::Disconnect(end)) => self.close(conn, Cause::Client(end.reason)),
            Err(error) if may_come => self.refuse(conn, error.reason(), error.to_string()),
            Ok(_) | Err(_) => {
                let why = "neither AUTH nor DISCONNECT before CONNACK (MQTT-3.1.2-30)";
                self.refuse(conn, ReasonCode::ProtocolError, why)
            }
        }
    }

    fn continue_connecting(&mut self, conn: ConnId, auth: &Auth<'_>) -> Flow {
        let Some(connection) = self.connections.get_mut(conn) else { return Flow::Gone };
        packet_log::received_early(connection.origin.peer, &Packet::Auth(*auth));
        let fields = AuthFields::new(auth.properties);
        let state = connection.authentication.take().map(|state| *state);
        match state {
            Some(Authentication::Connecting { connect, next })
                if auth.reason == ReasonCode::ContinueAuthentication && fields.is_ours() =>
            {
                let turn = self.turn(next, fields.data.unwrap_or_default());
                self.go_on_connecting(conn, connect, turn)
            }
            _ => {
                let why = "AUTH that does not continue what CONNECT began (MQTT-4.12.0-5)";
                self.refuse(conn, ReasonCode::ProtocolError, why)
            }
        }
    }

    /// AUTH on a connection that was accepted (section 4.12.1): the client
    /// proves again who it is, while all else goes on.
    pub(super) fn authenticate_again(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        auth: &Auth<'_>,
    ) -> Flow {
        let error = |why| Cause::Refused(ReasonCode::ProtocolError, why);
        let Some(connection) = self.connections.get_mut(conn) else { return Flow::Gone };
        let Some(Authentication::Connected { again, .. }) =
            connection.authentication.as_deref_mut()
        else {
            let why = "AUTH, but CONNECT named no authentication method (MQTT-4.12.0-7)";
            return self.close(conn, error(why));
        };
        let next = again.take();
        let fields = AuthFields::new(auth.properties);
        if !fields.is_ours() {
            let why = "AUTH with another method than CONNECT (MQTT-4.12.1-1)";
            return self.close(conn, error(why));
        }
        let turn = match (auth.reason == ReasonCode::ReAuthenticate, next) {
            (true, None) => self.first_turn(fields.data),
            (false, Some(next)) => self.turn(next, fields.data.unwrap_or_default()),
            (true, Some(_)) => {
                return self.close(conn, error("re-authentication within a re-authentication"));
            }
            (false, None) => return self.close(conn, error("AUTH that continues nothing")),
        };
        self.go_on_again(conn, key, turn)
    }

    /// Before CONNACK: answers, or takes up the CONNECT, or refuses it. All
    /// failures look the same to the client.
    fn go_on_connecting(
        &mut self,
        conn: ConnId,
        connect: Box<[u8]>,
        turn: Result<Turn, ScramError>,
    ) -> Flow {
        match turn {
            Ok(Turn::Answer(answer, next)) => {
                let mut properties = PropertyBuf::new();
                let auth = continuation(answer.as_deref(), &mut properties);
                let Some(connection) = self.connections.get_mut(conn) else { return Flow::Gone };
                let state = Authentication::Connecting { connect, next };
                connection.authentication = Some(Box::new(state));
                packet_log::sending_early(connection.origin.peer, &auth);
                self.append_reply(conn, Cause::ReplyTooLarge, |version, out| {
                    auth.encode(version, out);
                })
            }
            Ok(Turn::Proven(proven)) => self.accept_proven(conn, &connect, proven),
            Err(error) => self.refuse(conn, ReasonCode::NotAuthorized, error.to_string()),
        }
    }

    /// Takes up the CONNECT of a client that has proven who it is.
    fn accept_proven(&mut self, conn: ConnId, packet: &[u8], proven: scram::Proven) -> Flow {
        let frame = next_frame(packet, u32::MAX).ok().flatten();
        let Some(Ok(connect)) = frame.as_ref().map(codec::decode_connect) else {
            debug_assert!(false, "it was a CONNECT when the exchange began");
            return self.close(conn, Cause::NotConnect);
        };
        if names_somebody_else(&connect, &proven) {
            let why = format!("User Name is not the authenticated user {:?}", proven.user);
            return self.refuse(conn, ReasonCode::BadUserNameOrPassword, why);
        }
        match self.client_id(&connect) {
            Ok(client) => {
                let identity = Verified::of_user(&proven.user);
                let server_final = Some(proven.server_final);
                self.accept(conn, &connect, client, Some(Proven { identity, server_final }))
            }
            Err(reason) => self.refuse(conn, reason, "client identifier refused"),
        }
    }

    /// After CONNACK: answers, or tells the outcome (MQTT-4.12.1-2).
    fn go_on_again(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        turn: Result<Turn, ScramError>,
    ) -> Flow {
        let Some(Authentication::Connected { user, again }) =
            self.connections.get_mut(conn).and_then(|found| found.authentication.as_deref_mut())
        else {
            return Flow::Gone;
        };
        let mut properties = PropertyBuf::new();
        let auth = match turn {
            Ok(Turn::Answer(answer, next)) => {
                *again = Some(next);
                continuation(answer.as_deref(), &mut properties)
            }
            Ok(Turn::Proven(proven)) if proven.user == *user => {
                if let Some(session) = self.sessions.get(key) {
                    let client = &session.client;
                    tracing::info!(%client, user = %proven.user, "client authenticated again");
                }
                push_fields(Some(&proven.server_final), &mut properties);
                let properties = properties.as_properties();
                Packet::Auth(Auth { reason: ReasonCode::Success, properties })
            }
            Ok(Turn::Proven(proven)) => {
                let why = format!("re-authentication of {user:?} as {:?}", proven.user);
                return self.close(conn, Cause::NotAuthenticated(why));
            }
            Err(error) => {
                let why = format!("re-authentication of {user:?} failed: {error}");
                return self.close(conn, Cause::NotAuthenticated(why));
            }
        };
        self.reply(conn, key, &auth)
    }

    /// The first message may come with the packet that begins the exchange, or
    /// be asked for.
    fn first_turn(&mut self, data: Option<&[u8]>) -> Result<Turn, ScramError> {
        match data {
            Some(data) => self.turn(Step::First, data),
            None => Ok(Turn::Answer(None, Step::First)),
        }
    }

    fn turn(&mut self, next: Step, data: &[u8]) -> Result<Turn, ScramError> {
        match next {
            Step::First => {
                let (exchange, answer) = self.scram.begin(&self.policy.credentials, data)?;
                Ok(Turn::Answer(Some(answer), Step::Last(exchange)))
            }
            Step::Last(exchange) => exchange.finish(data).map(Turn::Proven),
        }
    }
}

/// Whether CONNECT has a User Name beside, and it is another one.
fn names_somebody_else(connect: &Connect<'_>, proven: &scram::Proven) -> bool {
    let prepared = |name| prepare_user_name(name).ok();
    connect.user_name.is_some_and(|name| prepared(name).as_deref() != Some(&*proven.user))
}

/// AUTH with the server's message, if there is one (MQTT-4.12.0-2).
fn continuation<'a>(answer: Option<&str>, properties: &'a mut PropertyBuf) -> Packet<'a> {
    push_fields(answer, properties);
    let properties = properties.as_properties();
    Packet::Auth(Auth { reason: ReasonCode::ContinueAuthentication, properties })
}

/// Authentication Method and Authentication Data of AUTH and CONNACK (MQTT-4.12.0-5).
pub(super) fn push_fields(data: Option<&str>, properties: &mut PropertyBuf) {
    properties.push(Property::AuthenticationMethod(scram::METHOD));
    if let Some(data) = data {
        properties.push(Property::AuthenticationData(data.as_bytes()));
    }
}
