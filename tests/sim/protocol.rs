//! How a simulated client answers packets, and what it insists on: rules that
//! one connection or one session alone can break.

use ringmq::{
    base::{PacketId, QoS},
    codec::{
        Ack, Auth, ConnAck, Packet, Properties, Property, PropertyBuf, Publish, ReasonCode,
        RetainHandling, Version, decode, next_frame,
    },
};

use crate::{
    book::Word,
    client::{Client, Outgoing, Request, State},
    link::{LinkId, Stamp},
    message::Told,
    oracle::{Oracle, Received},
    plan::Kind,
    scram::METHOD,
    world::World,
};

impl Client {
    /// Takes in some of what has arrived.
    pub(crate) fn read(&mut self, world: &mut World, oracle: &mut Oracle) {
        let Some(link) = self.link else { return };
        let bytes = world.read(link);
        if self.state == State::Closing {
            return;
        }
        self.input.extend(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(frame) = next_frame(rest, u32::MAX).expect("a frame from the broker") {
            let made = world.links[link].understood(frame.len);
            let bytes_max = self.profile.packet_bytes_max.unwrap_or(u32::MAX);
            assert!(frame.len <= bytes_max as usize, "rule 8: packet of {} bytes", frame.len);
            let packet = decode(self.profile.version, &frame).expect("a packet from the broker");
            self.packet(world, oracle, &packet, made);
            rest = &rest[frame.len..];
            if self.link != Some(link) {
                return;
            }
        }
        self.input = rest.to_vec();
    }

    /// The broker has closed the connection.
    pub(crate) fn closed_by_broker(&mut self, world: &mut World) {
        let Some(link) = self.link else { return };
        world.trace.note(|| format!("client {} sees the end of link {link}", self.index));
        let is_expected = self.has_left
            || world.book.farewell(link).is_some()
            || matches!(self.state, State::Closing | State::Connecting);
        assert!(is_expected, "rule 14: client {} was disconnected", self.index);
        let listens = matches!(self.state, State::Connected | State::Offending);
        self.check_farewell(world, link, !listens || self.is_told);
        world.ignore(link);
        self.lost(world, None);
    }

    /// A v5 client is told why, unless it does not listen.
    pub(crate) fn check_farewell(&self, world: &World, link: LinkId, is_told: bool) {
        let must_be_told =
            self.profile.version == Version::V5 && world.book.farewell(link).is_some();
        assert!(is_told || !must_be_told, "rule 14: client {} was not told why", self.index);
    }

    fn packet(&mut self, world: &mut World, oracle: &mut Oracle, packet: &Packet<'_>, made: Stamp) {
        world.trace.note(|| match packet {
            Packet::Publish(publish) => format!(
                "client {} gets PUBLISH {:?} {:?} dup {} retain {} {:?} {:?}",
                self.index,
                publish.packet_id,
                publish.topic,
                publish.dup,
                publish.retain,
                publish.payload.get(..4),
                publish.properties,
            ),
            packet => format!("client {} gets {packet:?}", self.index),
        });
        if let Packet::Auth(auth) = packet {
            return self.got_auth(world, auth);
        }
        let is_connack = matches!(packet, Packet::ConnAck(_));
        assert_eq!(self.state == State::Connecting, is_connack, "CONNACK comes first and once");
        match packet {
            Packet::ConnAck(connack) => self.got_connack(world, oracle, connack),
            Packet::Publish(publish) => self.got_publish(world, oracle, publish, made),
            Packet::PubRel(ack) => {
                assert_eq!(ack.reason, ReasonCode::Success, "rule 2: PUBREL of something unknown");
                if self.received.remove(&ack.packet_id) {
                    self.completing.insert(ack.packet_id);
                }
                self.acks.push(Packet::PubComp(plain(ack.packet_id)));
            }
            Packet::PubAck(ack) => self.got_puback(world, oracle, ack),
            Packet::PubRec(ack) => self.got_pubrec(world, oracle, ack),
            Packet::PubComp(ack) => {
                let at = self.find_outgoing(|one| one.id == ack.packet_id && one.released);
                self.outgoing.remove(at);
            }
            Packet::SubAck(suback) => {
                let Some(Request::Subscribe(filters)) = self.requests.remove(&suback.packet_id)
                else {
                    panic!("SUBACK of nothing")
                };
                assert_eq!(suback.reasons.len(), filters.len(), "a reason for each filter");
                for (&filter, &reason) in filters.iter().zip(suback.reasons) {
                    self.got_verdict(world, oracle, filter, reason);
                }
            }
            Packet::UnsubAck(unsuback) => {
                let request = self.requests.remove(&unsuback.packet_id);
                let Some(Request::Unsubscribe(filter)) = request else {
                    panic!("UNSUBACK of nothing")
                };
                self.subscriptions.end(Some(filter), world.step);
                oracle.claims.free(self.index, filter, world.step);
            }
            Packet::PingResp => {}
            Packet::Disconnect(disconnect) => {
                let expected = self.link.and_then(|link| world.book.farewell(link));
                let reason = disconnect.reason;
                self.is_told = true;
                assert_eq!(Some(reason), expected, "rule 14: client {}", self.index);
            }
            packet => panic!("{packet:?} from the broker"),
        }
    }

    fn got_connack(&mut self, world: &mut World, oracle: &mut Oracle, connack: &ConnAck<'_>) {
        let login = self.login.take().map(|(login, _)| login);
        if login.as_ref().is_some_and(|login| login.is_wrong) {
            assert_eq!(connack.reason, ReasonCode::NotAuthorized, "the proof was wrong");
            world.stats.wrong_logins += 1;
            let link = self.link;
            link.into_iter().for_each(|link| world.close(link));
            return self.lost(world, link);
        }
        if oracle.plan.refuses && connack.reason == ReasonCode::QuotaExceeded {
            world.stats.storage_refusals += 1;
            let link = self.link;
            link.into_iter().for_each(|link| world.close(link));
            return self.lost(world, link);
        }
        assert_eq!(connack.reason, ReasonCode::Success);
        world.stats.logins += u64::from(login.is_some());
        self.quota = usize::from(u16::MAX);
        self.alias_max = 0;
        let mut expiry_secs = self.asked_expiry_secs;
        for property in connack.properties.iter() {
            match property {
                Property::ReceiveMaximum(value) => self.quota = value.into(),
                Property::TopicAliasMaximum(value) => self.alias_max = value.into(),
                Property::SessionExpiryInterval(secs) => expiry_secs = secs,
                Property::AuthenticationData(data) => {
                    login.as_ref().expect("not asked for").check(data);
                }
                _ => {}
            }
        }
        if self.profile.version == Version::V5 {
            let max = oracle.plan.policy.limits.session_expiry_secs_max;
            assert_eq!(expiry_secs, self.asked_expiry_secs.min(max), "rule 7: session expiry");
        }
        self.connected(world, oracle, connack.session_present);
    }

    fn connected(&mut self, world: &mut World, oracle: &mut Oracle, session_present: bool) {
        let welcome = self.link.and_then(|link| world.book.welcome(link));
        welcome.into_iter().for_each(|welcome| world.book.acknowledged(welcome.connect));
        let is_new = match welcome {
            Some(welcome) if !oracle.plan.bulky => {
                // Version 3.1 has no word for it, so that its clients take it from the book.
                let is_told = self.profile.version > Version::V31;
                let expected = welcome.session_present && is_told;
                assert_eq!(session_present, expected, "rule 7: session of {}", self.index);
                self.serial.replace(welcome.serial) != Some(welcome.serial)
            }
            // A CONNECT whose CONNACK was lost may have begun another one.
            _ => !session_present || self.ended_with_connection,
        };
        if is_new {
            self.forget_session(world.step);
            self.subscribed_automatically(world, oracle);
            if welcome.is_some_and(|welcome| welcome.has_survived) {
                self.miss_retained();
            }
        }
        self.ended_with_connection = self.asked_expiry_secs == 0;
        self.resets = false;
        self.state = State::Connected;
        self.connected_at = world.step;
        for Outgoing { id, message, released, .. } in self.outgoing.clone() {
            if released {
                self.send(world, &Packet::PubRel(plain(id)));
            } else {
                self.send_publish(world, oracle, message, Some(id), true);
            }
        }
    }

    /// What a new session has of itself is in force when CONNACK comes.
    fn subscribed_automatically(&mut self, world: &mut World, oracle: &Oracle) {
        let Some(qos) = oracle.plan.features.automatic else { return };
        world.stats.automatic += 1;
        for &position in &self.profile.automatic {
            let filter = &oracle.plan.filters[position];
            let options = (false, false, RetainHandling::SendAtSubscribe);
            self.subscriptions.add(filter, position, qos, options, None);
            self.subscriptions.confirm(position, world.step);
            self.active.insert(position, world.step);
        }
    }

    /// The next message of the exchange. Only with the last one, CONNECT takes effect.
    fn got_auth(&mut self, world: &mut World, auth: &Auth<'_>) {
        assert_eq!(self.state, State::Connecting, "AUTH comes before CONNACK");
        assert_eq!(auth.reason, ReasonCode::ContinueAuthentication);
        let (mut login, hello) = self.login.take().expect("AUTH continues what CONNECT began");
        let challenge = auth.properties.iter().find_map(|property| match property {
            Property::AuthenticationData(data) => str::from_utf8(data).ok(),
            _ => None,
        });
        let (answer, word) = match challenge {
            None => (login.first(), Word::Other),
            Some(challenge) if login.is_wrong => (login.last(challenge), Word::Other),
            Some(challenge) => (login.last(challenge), Word::Connect(hello.clone())),
        };
        self.login = Some((login, hello));
        let mut properties = PropertyBuf::new();
        properties.push(Property::AuthenticationMethod(METHOD));
        properties.push(Property::AuthenticationData(answer.as_bytes()));
        let properties = properties.as_properties();
        let reason = ReasonCode::ContinueAuthentication;
        self.send_as(world, word, &Packet::Auth(Auth { reason, properties }));
    }

    /// One reason code of a SUBACK: only an exclusive filter may be refused.
    fn got_verdict(&mut self, world: &mut World, oracle: &mut Oracle, filter: usize, reason: u8) {
        let is_exclusive = oracle.plan.filters[filter].kind == Kind::Exclusive;
        if reason == self.profile.sub_qos.bits() {
            self.active.entry(filter).or_insert(world.step);
            self.subscriptions.confirm(filter, world.step);
            if is_exclusive {
                world.stats.claims_granted += 1;
                oracle.claims.grant(self.index, filter, &world.book);
            }
            return;
        }
        if oracle.plan.refuses && reason == ReasonCode::QuotaExceeded.0 {
            world.stats.storage_refusals += 1;
            return self.subscriptions.reject(filter, world.step);
        }
        let refusal = if self.profile.is_v5() { ReasonCode::QuotaExceeded.0 } else { 0x80 };
        assert!(is_exclusive && reason == refusal, "filter {filter} refused with {reason:#x}");
        world.stats.claims_refused += 1;
        oracle.claims.refuse(self.index, filter, world.step);
        self.subscriptions.refuse(filter, world.step);
        self.active.remove(&filter);
        if world.random.chance(30) {
            self.profile.filters.retain(|wanted| *wanted != filter);
        }
    }

    fn got_publish(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
        publish: &Publish<'_>,
        made: Stamp,
    ) {
        let topic = self.resolve_alias(world, publish);
        if let Some(id) = publish.packet_id {
            let is_repetition = self.note_publish(id, publish);
            let limit = oracle.plan.policy.limits.inflight_max.min(match self.profile.version {
                Version::V5 => self.profile.receive_maximum,
                _ => u16::MAX,
            });
            assert!(self.counted.len() <= limit.into(), "rule 8: Receive Maximum {limit}");
            let mut ack = plain(id);
            if !is_repetition && world.random.chance(self.profile.refuses_percent) {
                world.stats.refusals += 1;
                ack.reason = ReasonCode::QuotaExceeded;
            }
            self.acks.push(match publish.qos {
                QoS::ExactlyOnce => Packet::PubRec(ack),
                _ => Packet::PubAck(ack),
            });
            if is_repetition {
                return;
            }
        }
        let received = Received {
            topic: &topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            properties: publish.properties,
            told: match self.profile.version {
                Version::V5 => told(publish.properties),
                _ => Told::Nothing,
            },
            made,
            step: world.step,
        };
        oracle.received(self, received);
    }

    /// The topic, by name or by an alias within what the client has announced
    /// (MQTT-3.3.2-8, MQTT-3.3.2-9).
    fn resolve_alias(&mut self, world: &mut World, publish: &Publish<'_>) -> String {
        let name = publish.topic.map(|topic| topic.as_str().to_owned());
        let alias = publish.properties.iter().find_map(|property| match property {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        });
        let Some(alias) = alias else { return name.expect("rule 8: neither topic nor alias") };
        let maximum = self.profile.alias_maximum;
        assert!((1..=maximum).contains(&alias), "rule 8: alias {alias} of {maximum}");
        world.stats.broker_aliases += 1;
        match name {
            Some(name) => {
                self.broker_aliases.insert(alias, name.clone());
                name
            }
            None => self.broker_aliases.get(&alias).expect("rule 8: alias was not set").clone(),
        }
    }

    /// Notes a PUBLISH with an identifier; true if QoS 2 makes it a repetition.
    fn note_publish(&mut self, id: PacketId, publish: &Publish<'_>) -> bool {
        assert!(self.counted.insert(id), "rule 8: {id} twice on one connection");
        let start = &publish.payload[..publish.payload.len().min(4)];
        if let Some(known) = self.unsure.remove(&id) {
            // What comes from the store is new to each subscription.
            let is_again = known == start && !publish.retain;
            assert!(publish.dup || !is_again, "rule 18: {id} comes again as if for the first time");
        }
        let known = self.in_use.insert(id, start.to_vec());
        if let Some(known) = known {
            assert!(publish.dup, "rule 8: {id} is in use");
            assert_eq!(known, start, "rule 8: {id} repeated with another message");
        }
        publish.qos == QoS::ExactlyOnce && !self.received.insert(id)
    }

    /// MQTT-4.6.0-2: in the order of the PUBLISHes.
    fn got_puback(&mut self, world: &mut World, oracle: &mut Oracle, ack: &Ack<'_>) {
        let at = self.find_outgoing(|one| one.qos == QoS::AtLeastOnce);
        assert_eq!(self.outgoing[at].id, ack.packet_id, "PUBACK out of order");
        self.got_answer(world, oracle, self.outgoing[at].message, ack);
        self.outgoing.remove(at);
    }

    /// MQTT-4.6.0-3: in the order of the PUBLISHes.
    fn got_pubrec(&mut self, world: &mut World, oracle: &mut Oracle, ack: &Ack<'_>) {
        let at = self.find_outgoing(|one| one.qos == QoS::ExactlyOnce && !one.released);
        assert_eq!(self.outgoing[at].id, ack.packet_id, "PUBREC out of order");
        self.got_answer(world, oracle, self.outgoing[at].message, ack);
        self.outgoing[at].released = true;
        if ack.reason.is_error() {
            self.outgoing.remove(at);
            return;
        }
        self.send(world, &Packet::PubRel(plain(ack.packet_id)));
    }

    /// The broker has taken a message, or the disk has not.
    fn got_answer(&self, world: &mut World, oracle: &mut Oracle, number: usize, ack: &Ack<'_>) {
        let is_ask = oracle.asks.contains_key(&number);
        if oracle.plan.refuses && !is_ask && ack.reason == ReasonCode::QuotaExceeded {
            world.stats.storage_refusals += 1;
            return oracle.refused_by_disk(number);
        }
        self.check_reason(oracle, number, ack);
        oracle.acknowledged(number);
    }

    fn check_reason(&self, oracle: &Oracle, number: usize, ack: &Ack<'_>) {
        if let Some(ask) = oracle.asks.get(&number) {
            let is_refused = ack.reason == ReasonCode::NotAuthorized;
            let is_first = oracle.messages[number].attempts == 1;
            assert!(
                ask.may_be_registered || is_refused || !self.profile.is_v5() || !is_first,
                "rule 16: {number} was not registered for"
            );
            if ack.reason == ReasonCode::QuotaExceeded && oracle.plan.tight {
                return;
            }
            if is_refused {
                assert!(!ask.is_registered, "rule 16: {number} was registered for");
                return;
            }
        }
        assert!(!ack.reason.is_error(), "refused: {}", ack.reason);
        let found_nobody = ack.reason == ReasonCode::NoMatchingSubscribers;
        assert!(found_nobody || !self.expects_nobody, "rule 10: subscriptions are left");
    }

    fn find_outgoing(&self, is_it: impl FnMut(&Outgoing) -> bool) -> usize {
        self.outgoing.iter().position(is_it).expect("an acknowledgement of something sent")
    }
}

fn told(properties: Properties<'_>) -> Told {
    let secs = properties.iter().find_map(|property| match property {
        Property::MessageExpiryInterval(secs) => Some(secs),
        _ => None,
    });
    secs.map_or(Told::Never, Told::Secs)
}

fn plain(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use ringmq::{base::Time, config::Policy, topic::TopicName};

    use super::*;
    use crate::{profile, random::Random, trace::Trace};

    fn resolve(client: &mut Client, topic: Option<&str>, alias: u16) -> Result<String, ()> {
        let mut world = World::new(Random::new(0), Trace::default(), 1, &Policy::default(), 1);
        let mut properties = PropertyBuf::new();
        properties.push(Property::TopicAlias(alias));
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: topic.map(|topic| TopicName::parse(topic).unwrap()),
            packet_id: None,
            properties: properties.as_properties(),
            payload: b"",
        };
        catch_unwind(AssertUnwindSafe(|| client.resolve_alias(&mut world, &publish))).map_err(drop)
    }

    #[test]
    fn a_client_insists_on_the_aliases_that_it_has_announced() {
        let profile = profile::subscriber("any".into(), 0, QoS::AtMostOnce);
        let profile = profile::Profile { alias_maximum: 2, ..profile };
        let mut client = Client::new(0, profile, Time::default());
        assert_eq!(resolve(&mut client, Some("a"), 2).as_deref(), Ok("a"));
        assert_eq!(resolve(&mut client, None, 2).as_deref(), Ok("a"));
        assert_eq!(resolve(&mut client, Some("b"), 2).as_deref(), Ok("b"));
        assert_eq!(resolve(&mut client, None, 2).as_deref(), Ok("b"));
        for (topic, alias) in [(None, 1), (Some("a"), 3)] {
            assert!(resolve(&mut client, topic, alias).is_err(), "{topic:?} {alias}");
        }
    }
}
