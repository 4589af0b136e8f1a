//! How clients get into trouble: everything that ends a connection, politely
//! or not.

use ringmq::{
    base::QoS,
    codec::{
        Disconnect, Packet, Property, PropertyBuf, Publish, ReasonCode, Version, decode, next_frame,
    },
    topic::TopicName,
};

use crate::{
    book::Word,
    client::{Client, EXPIRIES_SECS, State},
    oracle::Oracle,
    world::World,
};

impl Client {
    pub(crate) fn get_into_trouble(&mut self, world: &mut World, oracle: &mut Oracle) {
        let bulky = oracle.plan.bulky;
        match world.random.below(10) {
            0..=2 => self.cut(world),
            3 => self.take_over(world),
            4 if !bulky => self.disconnect(world),
            5 => self.close(world),
            6 if !self.profile.stays => {
                self.resets = true;
                self.cut(world);
            }
            7 if !self.profile.stays => self.unsubscribe(world, oracle),
            8 if !bulky => self.offend(world),
            9 if !self.profile.stays => self.subscribe_again(world, oracle),
            _ => {}
        }
    }

    /// The network fails.
    pub(crate) fn cut(&mut self, world: &mut World) {
        let Some(link) = self.link else { return };
        world.trace.note(|| format!("client {} is cut", self.index));
        world.cut(link);
        world.ignore(link);
        // A CONNECT that is under way must not overtake the next one.
        let waits = self.state == State::Connecting || world.random.chance(30);
        self.lost(world, waits.then_some(link));
    }

    /// Connects anew while the broker still thinks that it is connected. The old
    /// connection may be looked at on to its end.
    pub(crate) fn take_over(&mut self, world: &mut World) {
        let Some(link) = self.link else { return };
        world.trace.note(|| format!("client {} goes to take over", self.index));
        let before = self.displaced.take();
        if self.state == State::Connected && world.random.chance(50) {
            self.displaced = Some((link, std::mem::take(&mut self.input)));
            self.displaced_is_told = self.is_told;
        } else {
            world.ignore(link);
        }
        if let Some((older, _)) = before {
            world.ignore(older);
        }
        self.lost(world, None);
    }

    /// Takes in what comes on the old connection after a take-over: DISCONNECT at last.
    pub(crate) fn read_displaced(&mut self, world: &mut World) {
        let Some((link, input)) = &mut self.displaced else { return };
        let link = *link;
        input.extend(world.read(link));
        let mut rest = &input[..];
        while let Some(frame) = next_frame(rest, u32::MAX).expect("a frame from the broker") {
            let packet = decode(self.profile.version, &frame).expect("a packet from the broker");
            if let Packet::Disconnect(Disconnect { reason, .. }) = packet {
                world.stats.displacements += u64::from(reason == ReasonCode::SessionTakenOver);
                self.displaced_is_told = true;
                let expected = world.book.farewell(link);
                assert_eq!(Some(reason), expected, "rule 14: client {}", self.index);
            }
            rest = &rest[frame.len..];
        }
        *input = rest.to_vec();
        let old = &world.links[link];
        if old.outbound.is_empty() && old.outbound_ends {
            self.displaced = None;
            self.check_farewell(world, link, self.displaced_is_told);
            world.ignore(link);
        }
    }

    fn close(&mut self, world: &mut World) {
        let Some(link) = self.link else { return };
        world.trace.note(|| format!("client {} closes", self.index));
        world.close(link);
        let after = world.random.chance(50).then_some(link);
        self.lost(world, after);
    }

    pub(crate) fn disconnect(&mut self, world: &mut World) {
        let is_v5 = self.profile.version == Version::V5;
        let with_will = is_v5 && world.random.chance(30);
        let reason = match with_will {
            true => ReasonCode::DisconnectWithWillMessage,
            false => ReasonCode::NormalDisconnection,
        };
        let changes = is_v5 && !self.profile.stays && world.random.chance(40);
        let expiry_secs = changes.then(|| world.random.pick(&EXPIRIES_SECS));
        // Section 3.14.2.2.2.
        let offends = self.asked_expiry_secs == 0 && expiry_secs.is_some_and(|secs| secs > 0);
        let word = match offends {
            true => Word::Offence(ReasonCode::ProtocolError),
            false => Word::Disconnect { with_will, expiry_secs },
        };
        world.trace.note(|| format!("client {} disconnects: {reason}, {word:?}", self.index));
        let mut properties = PropertyBuf::new();
        if let Some(secs) = expiry_secs {
            properties.push(Property::SessionExpiryInterval(secs));
        }
        let properties = properties.as_properties();
        self.send_as(world, word, &Packet::Disconnect(Disconnect { reason, properties }));
        self.state = if offends { State::Offending } else { State::Closing };
    }

    /// Sends what no client may send.
    fn offend(&mut self, world: &mut World) {
        if self.profile.version == Version::V5 && world.random.chance(30) {
            world.trace.note(|| format!("client {} offends: alias", self.index));
            let mut properties = PropertyBuf::new();
            properties.push(Property::TopicAlias(self.alias_max as u16 + 1));
            let publish = Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: TopicName::parse("t/0").ok(),
                packet_id: None,
                properties: properties.as_properties(),
                payload: b"",
            };
            let word = Word::Offence(ReasonCode::TopicAliasInvalid);
            self.send_as(world, word, &Packet::Publish(publish));
        } else {
            let (bytes, reason) = world.random.pick(&OFFENCES);
            world.trace.note(|| format!("client {} offends: {bytes:x?}", self.index));
            self.send_bytes(world, Word::Offence(reason), bytes);
        }
        self.state = State::Offending;
    }

    /// Goes for good.
    pub(crate) fn leave(&mut self, world: &mut World) {
        self.has_left = true;
        self.profile.is_fickle = false;
        self.profile.stays = true;
        self.disconnect(world);
    }
}

/// Packets that are wrong in every version, and what a v5 client is told.
const OFFENCES: [(&[u8], ReasonCode); 3] = [
    // Packet type 0, without a byte that the broker would not wait for.
    (&[0x00], ReasonCode::MalformedPacket),
    // PUBACK with Packet Identifier 0.
    (&[0x40, 0x02, 0x00, 0x00], ReasonCode::ProtocolError),
    // A PINGRESP.
    (&[0xD0, 0x00], ReasonCode::ProtocolError),
];
