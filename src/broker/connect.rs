//! CONNECT (MQTT 5.0 section 3.1): who the client is, where its session lives,
//! what it is told in CONNACK.

use crate::{
    auth::Identity,
    base::{ClientId, ConnId, QoS, SessionKey, limits},
    codec::{
        self, ConnAck, Connect, DecodeError, Frame, Packet, PacketType, Property, PropertyBuf,
        ReasonCode, Version,
    },
    config::RedirectWhen,
    message::{Message, Publication, SplitProperties},
    session::{Session, Will as StoredWill},
    topic::ClientNames,
};

use super::{
    Broker, Effect, Flow,
    authenticate::{AuthFields, Authentication, push_fields},
    close::Cause,
    connection::{Connection, Origin},
    credentials::Proven,
    destination::Refusal,
    packet_log,
    publish_rate::PublishRate,
    topic_aliases::ToClient,
};

/// The properties of CONNECT that are about the session or the connection.
struct ConnectProperties {
    session_expiry_secs: u32,
    receive_maximum: u16,
    packet_bytes_max: u32,
    topic_alias_maximum: u16,
    wants_response_information: bool,
    wants_problems: bool,
}

/// What CONNACK tells the client, beyond the limits that hold for everybody.
struct Granted {
    session_present: bool,
    keep_alive_secs: u16,
    session_expiry_secs: u32,
    assigned: Option<ClientId>,
    /// Who the client is, if it has proven that.
    proven: Option<Proven>,
}

impl Broker {
    /// Handles what should be a CONNECT, or what comes between it and CONNACK.
    /// `rest` is all that was read.
    pub(super) fn first_packet(&mut self, conn: ConnId, frame: &Frame<'_>, rest: &[u8]) -> Flow {
        if self.connections.get(conn).is_some_and(|found| found.authentication.is_some()) {
            return self.packet_while_connecting(conn, frame);
        }
        if frame.packet_type() != Some(PacketType::Connect) || rest.starts_with(&TLS_HANDSHAKE) {
            return self.close(conn, Cause::NotConnect);
        }
        let connect = match codec::decode_connect(frame) {
            Ok(connect) => connect,
            Err(error) => return self.refuse_undecoded(conn, frame, &error),
        };
        let properties = ConnectProperties::new(&connect);
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.version = connect.version;
            connection.packet_bytes_max = properties.packet_bytes_max;
            connection.wants_problems = properties.wants_problems;
        }
        let client = match self.client_id(&connect) {
            Ok(client) => client,
            Err(reason) => return self.refuse(conn, reason, "client identifier refused"),
        };
        let home = self.home_of_client(client.0.as_str());
        if home != self.shard {
            if let Some(connection) = self.forget(conn) {
                let Connection { origin, .. } = *connection;
                let bytes = rest.to_vec();
                self.effects.push_back(Effect::Move { conn, to: home, origin, bytes });
            }
            return Flow::Gone;
        }
        packet_log::received_connect(&connect);
        if let Err((reason, why)) = self.admit_names(&client.0, &connect) {
            return self.refuse(conn, reason, why);
        }
        if self.turns_away(&client.0) {
            let why = "the server is short of memory (memory_bytes_max)";
            return self.refuse(conn, ReasonCode::QuotaExceeded, why);
        }
        if self.redirects(RedirectWhen::Always) {
            let why = "clients are sent to server_reference";
            return self.refuse(conn, ReasonCode::ServerMoved, why);
        }
        let fields = AuthFields::new(connect.properties);
        if fields.method.is_some() {
            return self.begin_authentication(conn, &rest[..frame.len], fields);
        }
        self.check_credentials(conn, &connect, &rest[..frame.len], client, 0)
    }

    /// Lets the client in, if nothing speaks against it. `proven` is who it is,
    /// `assigned` whether its Client Identifier was chosen here.
    pub(super) fn accept(
        &mut self,
        conn: ConnId,
        connect: &Connect<'_>,
        (client, assigned): (ClientId, bool),
        proven: Option<Proven>,
    ) -> Flow {
        let properties = ConnectProperties::new(connect);
        let expiry_secs = self.granted_expiry(properties.session_expiry_secs);
        let admitted = self
            .admit_session(&client, connect, proven.as_ref(), expiry_secs)
            .and_then(|()| self.admit_will(conn, &client, connect, proven.as_ref()));
        // Last, as it counts those who come in.
        let admitted = admitted
            .and_then(|()| self.admit_client(conn, connect, (&client, assigned), proven.as_ref()));
        if let Err((reason, why)) = admitted {
            return self.refuse(conn, reason, why);
        }
        let known = self.sessions.find(client.as_str()).and_then(|key| self.sessions.get(key));
        let was_online = known.is_some_and(|session| session.conn.is_some());
        let records_before = self.appended();
        let (key, session_present) = self.take_session(&client, connect.clean_start);
        let granted = Granted {
            session_present,
            keep_alive_secs: self.granted_keep_alive(connect),
            session_expiry_secs: expiry_secs,
            assigned: assigned.then_some(client),
            proven,
        };
        self.settle(conn, key, connect, &properties, &granted);
        if let Some(connection) = self.connections.get(conn) {
            let identity = identity_of(granted.proven.as_ref(), &connection.origin);
            self.identify(key, identity);
        }
        self.log_connected(key, !granted.session_present);
        self.send_connack(conn, key, connect, &properties, &granted);
        if !self.is_settled(conn) {
            // CONNACK was too large for the client: a session that it never saw must not be
            // present when it comes again.
            if !granted.session_present {
                self.end_session(key);
            }
            return Flow::Gone;
        }
        // A take-over left its shared subscriptions as they are.
        if !was_online {
            self.announce_online(key, true);
        }
        if !granted.session_present {
            if !self.policy.auto_subscribe.is_empty() {
                self.auto_subscribe(key, user_name(connect, granted.proven.as_ref()));
            }
            self.log_begun(key);
        }
        self.hold_connack(conn, key, records_before);
        self.pump(key);
        if self.sessions.get(key).is_some_and(|session| !session.outbox.parked().is_empty())
            && let Some(connection) = self.connections.get_mut(conn)
        {
            connection.paused.refill = true;
        }
        Flow::Continue
    }

    /// The Client Identifier, and whether it was assigned here (MQTT-3.1.3-6).
    pub(super) fn client_id(
        &mut self,
        connect: &Connect<'_>,
    ) -> Result<(ClientId, bool), ReasonCode> {
        if !connect.client_id.is_empty() {
            return Ok((ClientId::new(connect.client_id), false));
        }
        match connect.version {
            Version::V31 => Err(ReasonCode::ClientIdentifierNotValid),
            Version::V311 if !connect.clean_start => Err(ReasonCode::ClientIdentifierNotValid),
            Version::V311 | Version::V5 => Ok((self.assign_client_id(), true)),
        }
    }

    /// A name that no session has, and whose home is this shard so that the
    /// connection stays where it is.
    fn assign_client_id(&mut self) -> ClientId {
        loop {
            self.assigned += 1;
            // The seed outlives the process, the count does not.
            let boot = self.durable.as_ref().map(|durable| durable.origin.0);
            let unique = (self.seed, self.shard, self.assigned, boot);
            let random = self.placement.hash_one(unique);
            let name = format!("auto-{:04x}{:08x}{random:016x}", self.shard.0, self.assigned);
            if self.home_of_client(&name) == self.shard && self.sessions.find(&name).is_none() {
                return ClientId::new(&name);
            }
        }
    }

    /// Whether the client may have its session, or begin one.
    fn admit_session(
        &self,
        client: &ClientId,
        connect: &Connect<'_>,
        proven: Option<&Proven>,
        expiry_secs: u32,
    ) -> Result<(), (ReasonCode, &'static str)> {
        let known = self.sessions.find(client.as_str()).and_then(|key| self.sessions.get(key));
        if known.is_some_and(|session| is_of_another_user(session, proven)) {
            return Err((ReasonCode::NotAuthorized, "the session is that of another user"));
        }
        if known.is_none() && self.sessions_are_full() {
            let reason = match self.redirects(RedirectWhen::Full) {
                true => ReasonCode::UseAnotherServer,
                false => ReasonCode::QuotaExceeded,
            };
            return Err((reason, "sessions_max reached"));
        }
        if known.is_none() && expiry_secs > 0 && self.log_refuses() {
            return Err((ReasonCode::QuotaExceeded, "the session cannot be kept on disk"));
        }
        let is_kept = expiry_secs > 0
            || known.is_some_and(|session| session.durable.is_some())
            || connect.will.as_ref().is_some_and(|will| will.retain);
        if is_kept && self.log_is_clogged() {
            let why = "the disk refuses what is to be kept, and much waits for it already";
            return Err((ReasonCode::ServerUnavailable, why));
        }
        Ok(())
    }

    /// Whether the client may have its will.
    fn admit_will(
        &self,
        conn: ConnId,
        client: &ClientId,
        connect: &Connect<'_>,
        proven: Option<&Proven>,
    ) -> Result<(), (ReasonCode, &'static str)> {
        let Some(will) = &connect.will else { return Ok(()) };
        if will.qos > self.policy.limits.maximum_qos {
            return Err((ReasonCode::QoSNotSupported, "will QoS above maximum_qos"));
        }
        if will.retain && !self.policy.limits.retain_available {
            return Err((ReasonCode::RetainNotSupported, "retained will"));
        }
        let user = user_name(connect, proven).unwrap_or_default();
        let names = ClientNames { client: client.as_str(), user };
        let origin = self.connections.get(conn).map(|connection| &connection.origin);
        let identity = origin.map(|origin| identity_of(proven, origin)).unwrap_or_default();
        let checked = self.check_will((client, &identity), names, will.topic);
        checked.map_err(|refusal| match refusal {
            Refusal::Reserved | Refusal::Denied => (refusal.reason(), "will on a reserved topic"),
            Refusal::Invalid => (refusal.reason(), "will on a topic that cannot be published to"),
        })
    }

    /// Whether clients are told to use another server on that occasion.
    fn redirects(&self, when: RedirectWhen) -> bool {
        self.policy.redirect.as_ref().is_some_and(|redirect| redirect.when >= when)
    }

    /// Whether this shard's part of `sessions_max` is used up.
    fn sessions_are_full(&self) -> bool {
        self.sessions.len() as u64 >= self.even_part(self.policy.limits.sessions_max.into())
    }

    /// The client's session, resumed or new. A connection that serves it now
    /// is closed (MQTT-3.1.4-3).
    fn take_session(&mut self, client: &ClientId, clean_start: bool) -> (SessionKey, bool) {
        if let Some(key) = self.sessions.find(client.as_str()) {
            // What is due comes first, even if its timer was not looked at yet (MQTT-3.1.3-9).
            self.session_timer(key);
            if let Some(old) = self.sessions.get(key).and_then(|session| session.conn) {
                self.close(old, Cause::TakenOver { clean_start });
            }
            if clean_start {
                self.end_session(key);
            }
        }
        // Looked up again: a session with expiry 0 ends with its connection.
        match self.sessions.find(client.as_str()) {
            Some(key) => (key, true),
            None => (self.sessions.insert(Session::new(client.clone())), false),
        }
    }

    /// Joins connection and session.
    fn settle(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        connect: &Connect<'_>,
        properties: &ConnectProperties,
        granted: &Granted,
    ) {
        let will = connect.will.as_ref().map(|will| {
            let split = SplitProperties::new(will.properties);
            let publication = Publication::new(&Message {
                topic: will.topic,
                properties: split.travelling(),
                payload: will.payload,
                qos: will.qos,
                retain: will.retain,
                expires_at: None,
                original: None,
                shared: None,
            });
            Box::new(StoredWill {
                publication,
                message_expiry_secs: split.message_expiry_secs,
                delay_secs: split.will_delay_secs,
                due_at: None,
            })
        });
        if let Some(session) = self.sessions.get_mut(key) {
            session.conn = Some(conn);
            session.user_name = user_name(connect, granted.proven.as_ref()).map(Into::into);
            session.expiry_secs = granted.session_expiry_secs;
            session.expires_at = None;
            session.will = will;
            session.fetches.forget_awaited();
            session.outbox.reconnected();
            self.timers.set(super::Timer::Session(key), &mut session.timer_at, None);
        }
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.session = Some(key);
            connection.quota = properties.receive_maximum.min(self.policy.limits.inflight_max);
            let aliases = properties.topic_alias_maximum;
            let aliases = aliases.min(self.policy.limits.client_topic_aliases_max);
            connection.aliases_out = ToClient::new(aliases);
            connection.is_resumption = granted.session_present;
            connection.asked_for_expiry = properties.session_expiry_secs > 0;
            connection.silence_max_millis = u32::from(granted.keep_alive_secs) * 1500;
            connection.last_packet_at = self.now;
            let identity = granted.proven.as_ref().map(|proven| &proven.identity);
            let valid_secs = identity.and_then(|identity| identity.valid_secs);
            let publish_rate = PublishRate::new(&self.policy.limits);
            if valid_secs.is_some() || publish_rate.is_some() {
                let terms = connection.terms.get_or_insert_default();
                terms.proven_until = valid_secs.map(|secs| self.now.plus_secs(secs));
                terms.publish_rate = publish_rate;
            }
            let deadline = connection.next_deadline();
            self.timers.set(conn.into(), &mut connection.timer_at, deadline);
            let with_method =
                granted.proven.as_ref().filter(|proven| proven.server_final.is_some());
            connection.authentication = with_method.map(|proven| {
                let user = proven.identity.user.clone();
                Box::new(Authentication::Connected { user, again: None })
            });
            tracing::info!(
                client = %connect_name(&self.sessions, key),
                peer = %connection.origin.peer,
                version = %connect.version,
                clean_start = connect.clean_start,
                keep_alive_secs = granted.keep_alive_secs,
                session_present = granted.session_present,
                user = user_name(connect, granted.proven.as_ref()).unwrap_or_default(),
                groups = identity.map(|identity| identity.groups.join(" ")),
                "client connected"
            );
        }
        self.counters.connects += 1;
    }

    fn send_connack(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        connect: &Connect<'_>,
        asked: &ConnectProperties,
        granted: &Granted,
    ) {
        let mut properties = PropertyBuf::new();
        if connect.version == Version::V5 {
            self.connack_properties(connect, asked, granted, &mut properties);
        }
        let connack = Packet::ConnAck(ConnAck {
            session_present: granted.session_present,
            reason: ReasonCode::Success,
            properties: properties.as_properties(),
        });
        self.reply(conn, key, &connack);
    }

    /// What differs from the defaults of section 3.2.2.3.
    fn connack_properties(
        &self,
        connect: &Connect<'_>,
        asked: &ConnectProperties,
        granted: &Granted,
        properties: &mut PropertyBuf,
    ) {
        let limits = &self.policy.limits;
        if let Some(client) = &granted.assigned {
            properties.push(Property::AssignedClientIdentifier(client.as_str()));
        }
        let client = granted.assigned.as_ref().map_or(connect.client_id, ClientId::as_str);
        let server_final =
            granted.proven.as_ref().and_then(|proven| proven.server_final.as_deref());
        if server_final.is_some() {
            push_fields(server_final, properties);
        }
        if granted.session_expiry_secs != asked.session_expiry_secs {
            properties.push(Property::SessionExpiryInterval(granted.session_expiry_secs));
        }
        if granted.keep_alive_secs != connect.keep_alive_secs {
            properties.push(Property::ServerKeepAlive(granted.keep_alive_secs));
        }
        if limits.receive_maximum < u16::MAX {
            properties.push(Property::ReceiveMaximum(limits.receive_maximum));
        }
        if limits.maximum_qos < QoS::ExactlyOnce {
            properties.push(Property::MaximumQoS(limits.maximum_qos.bits()));
        }
        if !limits.retain_available {
            properties.push(Property::RetainAvailable(false));
        }
        if limits.packet_bytes_max < limits::REMAINING_LENGTH_MAX {
            properties.push(Property::MaximumPacketSize(limits.packet_bytes_max));
        }
        if limits.topic_alias_maximum > 0 {
            properties.push(Property::TopicAliasMaximum(limits.topic_alias_maximum));
        }
        if !limits.wildcard_subscription_available {
            properties.push(Property::WildcardSubscriptionAvailable(false));
        }
        if !limits.subscription_identifiers_available {
            properties.push(Property::SubscriptionIdentifiersAvailable(false));
        }
        if !limits.shared_subscription_available {
            properties.push(Property::SharedSubscriptionAvailable(false));
        }
        // MQTT-3.1.2-28: only if it was requested.
        if asked.wants_response_information
            && let Some(information) = self.response_information(client)
        {
            properties.push(Property::ResponseInformation(&information));
        }
    }

    /// What `response_information` is for this client; none if its Client Identifier makes it longer
    /// than a string can be.
    fn response_information(&self, client: &str) -> Option<String> {
        let text = self.policy.response_information.as_deref()?;
        let places = text.matches("%c").count();
        let bytes = text.len() - places * "%c".len() + places * client.len();
        (bytes <= limits::STRING_BYTES_MAX).then(|| text.replace("%c", client))
    }

    /// The keep-alive that holds; only v5 clients can be told a shorter one.
    fn granted_keep_alive(&self, connect: &Connect<'_>) -> u16 {
        let asked = connect.keep_alive_secs;
        match self.policy.limits.keep_alive_secs_max {
            0 => asked,
            max if connect.version == Version::V5 && (asked == 0 || asked > max) => max,
            _ => asked,
        }
    }

    fn granted_expiry(&self, asked_secs: u32) -> u32 {
        asked_secs.min(self.policy.limits.session_expiry_secs_max)
    }

    /// Answers a CONNECT that is not acceptable, and closes.
    pub(super) fn refuse(
        &mut self,
        conn: ConnId,
        reason: ReasonCode,
        why: impl Into<String>,
    ) -> Flow {
        self.counters.refused += 1;
        self.counters.banned += u64::from(reason == ReasonCode::Banned);
        self.close(conn, Cause::ConnectRefused(reason, why.into()))
    }

    /// The same for one that cannot be decoded, as far as the client has words for it.
    fn refuse_undecoded(&mut self, conn: ConnId, frame: &Frame<'_>, error: &DecodeError) -> Flow {
        let version = match error {
            DecodeError::UnsupportedVersion { mqtt_name: true, level } if *level < 5 => {
                Some(Version::V311)
            }
            DecodeError::UnsupportedVersion { mqtt_name: true, .. } => Some(Version::V5),
            // Before v5 there is no return code for a malformed CONNECT.
            _ => codec::connect_version(frame).ok().filter(|version| *version == Version::V5),
        };
        let (Some(version), Some(connection)) = (version, self.connections.get_mut(conn)) else {
            self.counters.refused += 1;
            return self.close(conn, Cause::Faulty(*error));
        };
        connection.version = version;
        self.refuse(conn, error.reason(), error.to_string())
    }
}

impl ConnectProperties {
    fn new(connect: &Connect<'_>) -> Self {
        // Before v5 a session without Clean Session never expires by itself.
        let kept = connect.version < Version::V5 && !connect.clean_start;
        let mut found = Self {
            session_expiry_secs: if kept { u32::MAX } else { 0 },
            receive_maximum: u16::MAX,
            packet_bytes_max: u32::MAX,
            topic_alias_maximum: 0,
            wants_response_information: false,
            wants_problems: true,
        };
        for property in connect.properties.iter() {
            match property {
                Property::SessionExpiryInterval(secs) => found.session_expiry_secs = secs,
                Property::ReceiveMaximum(value) => found.receive_maximum = value,
                Property::MaximumPacketSize(bytes) => found.packet_bytes_max = bytes,
                Property::TopicAliasMaximum(maximum) => found.topic_alias_maximum = maximum,
                Property::RequestResponseInformation(on) => found.wants_response_information = on,
                Property::RequestProblemInformation(on) => found.wants_problems = on,
                _ => {}
            }
        }
        found
    }
}

/// Who the client is: what it has proven, otherwise what it says.
pub(super) fn user_name<'a>(connect: &Connect<'a>, proven: Option<&'a Proven>) -> Option<&'a str> {
    proven.map(|proven| &*proven.identity.user).or(connect.user_name)
}

/// What access rules know of the client.
fn identity_of(proven: Option<&Proven>, origin: &Origin) -> Identity {
    let found = proven.map(|proven| &proven.identity);
    Identity {
        user: found.map(|found| found.user.clone()),
        groups: found.map_or_else(Vec::new, |found| found.groups.to_vec()),
        address: origin.peer.ip(),
    }
}

/// Whether a session is that of a user who the client has not proven to be: neither what is in it
/// nor its end is theirs.
fn is_of_another_user(session: &Session, proven: Option<&Proven>) -> bool {
    session.identity().is_proven()
        && session.identity().user.as_deref() != proven.map(|proven| &*proven.identity.user)
}

fn connect_name(sessions: &super::Sessions, key: SessionKey) -> ClientId {
    sessions.get(key).map_or_else(|| ClientId::new(""), |session| session.client.clone())
}

/// How a TLS client greets: a handshake record of any version since 1.0. As MQTT it would be
/// a CONNECT with reserved flags set.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];
