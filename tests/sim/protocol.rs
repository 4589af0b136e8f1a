//! How a simulated client answers packets, and what it insists on: rules that
//! one connection or one session alone can break.

use ringmq::{
    base::{PacketId, QoS},
    codec::{Ack, Packet, Properties, Property, Publish, ReasonCode, Version, decode, next_frame},
};

use crate::{
    client::{Client, Outgoing, Request, State},
    oracle::{Fate, Oracle, Received},
    world::World,
};

impl Client {
    /// Takes in some of what has arrived.
    pub(crate) fn read(&mut self, world: &mut World, oracle: &mut Oracle) {
        let Some(link) = self.link else { return };
        let bytes = world.read(link);
        if let State::Closing { .. } = self.state {
            return;
        }
        self.input.extend(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(frame) = next_frame(rest, u32::MAX).expect("a frame from the broker") {
            let packet = decode(self.profile.version, &frame).expect("a packet from the broker");
            self.packet(world, oracle, &packet);
            rest = &rest[frame.len..];
            if self.link != Some(link) {
                return;
            }
        }
        self.input = rest.to_vec();
    }

    /// The broker has closed the connection.
    pub(crate) fn closed_by_broker(&mut self, world: &mut World, oracle: &mut Oracle) {
        let Some(link) = self.link else { return };
        world.trace.note(|| format!("client {} sees the end of link {link}", self.index));
        let is_expected = self.has_left
            || self.profile.keep_alive_secs > 0
            || matches!(self.state, State::Closing { .. } | State::Connecting);
        assert!(is_expected, "client {} was disconnected", self.index);
        world.ignore(link);
        self.lost(world, oracle, None);
    }

    fn packet(&mut self, world: &mut World, oracle: &mut Oracle, packet: &Packet<'_>) {
        world.trace.note(|| match packet {
            Packet::Publish(publish) => format!(
                "client {} gets PUBLISH {:?} {:?} dup {} retain {} {:?}",
                self.index,
                publish.packet_id,
                publish.topic,
                publish.dup,
                publish.retain,
                publish.payload.get(..4)
            ),
            packet => format!("client {} gets {packet:?}", self.index),
        });
        let is_connack = matches!(packet, Packet::ConnAck(_));
        assert_eq!(self.state == State::Connecting, is_connack, "CONNACK comes first and once");
        match packet {
            Packet::ConnAck(connack) => {
                assert_eq!(connack.reason, ReasonCode::Success);
                self.quota = usize::from(u16::MAX);
                self.alias_max = 0;
                for property in connack.properties.iter() {
                    match property {
                        Property::ReceiveMaximum(value) => self.quota = value.into(),
                        Property::TopicAliasMaximum(value) => self.alias_max = value.into(),
                        _ => {}
                    }
                }
                self.connected(world, oracle, connack.session_present);
            }
            Packet::Publish(publish) => self.got_publish(oracle, publish),
            Packet::PubRel(ack) => {
                assert_eq!(ack.reason, ReasonCode::Success, "rule 2: PUBREL of something unknown");
                self.received.remove(&ack.packet_id);
                self.acks.push(Packet::PubComp(plain(ack.packet_id)));
            }
            Packet::PubAck(ack) => self.got_puback(oracle, ack),
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
                let granted = vec![self.profile.sub_qos.bits(); filters.len()];
                assert_eq!(suback.reasons, granted, "subscriptions are granted");
                for filter in filters {
                    self.active.entry(filter).or_insert(world.step);
                }
            }
            Packet::UnsubAck(unsuback) => {
                let request = self.requests.remove(&unsuback.packet_id);
                assert!(matches!(request, Some(Request::Unsubscribe(_))), "UNSUBACK of nothing");
            }
            Packet::PingResp => {}
            Packet::Disconnect(disconnect) => {
                let reason = disconnect.reason;
                let expected = match self.has_left {
                    true => ReasonCode::ServerShuttingDown,
                    false => ReasonCode::KeepAliveTimeout,
                };
                assert_eq!(reason, expected, "client {}", self.index);
            }
            packet => panic!("{packet:?} from the broker"),
        }
    }

    fn connected(&mut self, world: &mut World, oracle: &mut Oracle, session_present: bool) {
        assert!(session_present || !self.session_known, "rule 2: session {} lost", self.index);
        let must_be_new = self.resets || !self.profile.persistent;
        assert!(!session_present || !must_be_new, "session {} was to be new", self.index);
        self.settle_delayed_will(world, oracle, !session_present);
        self.resets = false;
        self.state = State::Connected;
        self.connected_at = world.step;
        self.session_known = self.session_lasts;
        for Outgoing { id, message, released, .. } in self.outgoing.clone() {
            if released {
                self.send(world, &Packet::PubRel(plain(id)));
            } else {
                oracle.messages[message].attempts += 1;
                self.send_publish(world, oracle, message, Some(id), true);
            }
        }
    }

    fn got_publish(&mut self, oracle: &mut Oracle, publish: &Publish<'_>) {
        let topic = publish.topic.expect("the broker was given no aliases").as_str();
        self.check_identifiers(oracle, publish, topic);
        if let Some(id) = publish.packet_id {
            let is_repetition = self.note_publish(id, publish);
            let limit = oracle.plan.policy.limits.inflight_max.min(match self.profile.version {
                Version::V5 => self.profile.receive_maximum,
                _ => u16::MAX,
            });
            assert!(self.counted.len() <= limit.into(), "rule 8: Receive Maximum {limit}");
            match publish.qos {
                QoS::ExactlyOnce => self.acks.push(Packet::PubRec(plain(id))),
                _ => self.acks.push(Packet::PubAck(plain(id))),
            }
            if is_repetition {
                return;
            }
        }
        let received = Received {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
        };
        oracle.received(self, received);
    }

    /// Notes a PUBLISH with an identifier; true if QoS 2 makes it a repetition.
    fn note_publish(&mut self, id: PacketId, publish: &Publish<'_>) -> bool {
        assert!(self.counted.insert(id), "rule 8: {id} twice on one connection");
        let start = &publish.payload[..publish.payload.len().min(4)];
        let known = self.in_use.insert(id, start.to_vec());
        if let Some(known) = known {
            assert!(publish.dup, "rule 8: {id} is in use");
            assert_eq!(known, start, "rule 8: {id} repeated with another message");
        }
        publish.qos == QoS::ExactlyOnce && !self.received.insert(id)
    }

    fn check_identifiers(&self, oracle: &Oracle, publish: &Publish<'_>, topic: &str) {
        for property in publish.properties.iter() {
            let Property::SubscriptionIdentifier(identifier) = property else { continue };
            assert!(self.profile.identifies, "an identifier nobody set");
            // It names the first filter of its SUBSCRIBE, which may have had others.
            let filter = identifier as usize - 1;
            assert!(self.asked.contains(&filter), "identifier {identifier} is not ours");
            let matches = |&filter: &usize| oracle.plan.filters[filter].matches(topic);
            assert!(self.asked.iter().any(matches));
        }
    }

    /// MQTT-4.6.0-2: in the order of the PUBLISHes.
    fn got_puback(&mut self, oracle: &mut Oracle, ack: &Ack<'_>) {
        self.check_reason(ack);
        let at = self.find_outgoing(|one| one.qos == QoS::AtLeastOnce);
        assert_eq!(self.outgoing[at].id, ack.packet_id, "PUBACK out of order");
        oracle.messages[self.outgoing[at].message].fate = Fate::Certain;
        self.outgoing.remove(at);
    }

    /// MQTT-4.6.0-3: in the order of the PUBLISHes.
    fn got_pubrec(&mut self, world: &mut World, oracle: &mut Oracle, ack: &Ack<'_>) {
        self.check_reason(ack);
        let at = self.find_outgoing(|one| one.qos == QoS::ExactlyOnce && !one.released);
        let outgoing = &mut self.outgoing[at];
        assert_eq!(outgoing.id, ack.packet_id, "PUBREC out of order");
        outgoing.released = true;
        oracle.messages[outgoing.message].fate = Fate::Certain;
        self.send(world, &Packet::PubRel(plain(ack.packet_id)));
    }

    fn check_reason(&self, ack: &Ack<'_>) {
        assert!(!ack.reason.is_error(), "refused: {}", ack.reason);
        let found_nobody = ack.reason == ReasonCode::NoMatchingSubscribers;
        assert!(found_nobody || !self.expects_nobody, "rule 10: subscriptions are left");
    }

    fn find_outgoing(&self, is_it: impl FnMut(&Outgoing) -> bool) -> usize {
        self.outgoing.iter().position(is_it).expect("an acknowledgement of something sent")
    }
}

fn plain(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY }
}
