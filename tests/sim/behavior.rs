//! What a connected client does of its own accord: publish, subscribe,
//! acknowledge late, and get into trouble.

use ringmq::{
    base::{PacketId, QoS},
    codec::{
        Packet, Properties, Property, PropertyBuf, Publish, RetainHandling, SubscribeFilter,
        Version, encode_subscribe, encode_unsubscribe,
    },
    topic::TopicName,
};

use crate::{
    client::{Client, Outgoing, Request},
    oracle::{Fate, Oracle, payload},
    plan::Use,
    world::World,
};

impl Client {
    pub(crate) fn act_connected(&mut self, world: &mut World, oracle: &mut Oracle, calm: bool) {
        if !calm && self.profile.troubles > 0 && world.random.chance(5) {
            self.profile.troubles -= 1;
            return self.get_into_trouble(world, oracle);
        }
        let wanted: Vec<usize> = self.wanted_filters().collect();
        if !wanted.is_empty() && (calm || world.random.chance(self.profile.eagerness)) {
            self.subscribe(world, oracle, wanted);
        } else if world.random.chance(60) && self.can_publish() {
            self.publish(world, oracle);
        } else if !self.acks.is_empty() {
            let last = if self.profile.shuffles { self.acks.len() } else { 1 };
            let at = world.random.below(last);
            self.acknowledge(world, at);
        } else if world.random.chance(3) {
            self.send(world, &Packet::PingReq);
        }
    }

    fn get_into_trouble(&mut self, world: &mut World, oracle: &mut Oracle) {
        match world.random.below(8) {
            0..=2 => self.cut(world, oracle),
            3 => self.take_over(world, oracle),
            4 => self.disconnect(world, oracle),
            5 => {
                let Some(link) = self.link else { return };
                world.trace.note(|| format!("client {} closes", self.index));
                world.close(link);
                let after = world.random.chance(50).then_some(link);
                self.lost(world, oracle, after);
            }
            6 if !self.profile.stays => {
                self.resets = true;
                self.cut(world, oracle);
            }
            7 if !self.profile.stays => self.unsubscribe(world, oracle),
            _ => {}
        }
    }

    /// Filters that it wants and has not asked for.
    pub(crate) fn wanted_filters(&self) -> impl Iterator<Item = usize> {
        let is_asked = |filter: &usize| {
            self.requests.values().any(|request| match request {
                Request::Subscribe(filters) => filters.contains(filter),
                Request::Unsubscribe(leaving) => leaving == filter,
            })
        };
        let wanted = self.profile.filters.iter().copied();
        wanted.filter(move |filter| !self.active.contains_key(filter) && !is_asked(filter))
    }

    fn subscribe(&mut self, world: &mut World, oracle: &Oracle, mut wanted: Vec<usize>) {
        wanted.truncate(world.random.range(1, 3));
        let id = self.new_id();
        let filters: Vec<_> = wanted
            .iter()
            .map(|&filter| SubscribeFilter {
                filter: oracle.plan.filters[filter].text,
                qos: self.profile.sub_qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::SendAtSubscribe,
            })
            .collect();
        let mut properties = PropertyBuf::new();
        if self.profile.identifies {
            properties.push(Property::SubscriptionIdentifier(wanted[0] as u32 + 1));
        }
        let mut bytes = Vec::new();
        let version = self.profile.version;
        encode_subscribe(version, id, properties.as_properties(), &filters, &mut bytes);
        self.send_bytes(world, &bytes);
        world.trace.note(|| format!("client {} subscribes {id} {wanted:?}", self.index));
        self.asked.extend(&wanted);
        self.requests.insert(id, Request::Subscribe(wanted));
    }

    fn unsubscribe(&mut self, world: &mut World, oracle: &Oracle) {
        let Some(&filter) = self.active.keys().next() else { return };
        self.active.remove(&filter);
        self.has_unsubscribed = true;
        let id = self.new_id();
        let mut bytes = Vec::new();
        let text = oracle.plan.filters[filter].text;
        encode_unsubscribe(self.profile.version, id, Properties::EMPTY, &[text], &mut bytes);
        self.send_bytes(world, &bytes);
        world.trace.note(|| format!("client {} unsubscribes {id} {filter}", self.index));
        self.requests.insert(id, Request::Unsubscribe(filter));
    }

    pub(crate) fn can_publish(&self) -> bool {
        self.profile.publishes > 0 && self.outgoing.len() < self.window()
    }

    fn window(&self) -> usize {
        self.profile.window.min(self.quota)
    }

    fn publish(&mut self, world: &mut World, oracle: &mut Oracle) {
        self.profile.publishes -= 1;
        let topic = world.random.pick(&self.profile.topics);
        let (qos, retain) = match oracle.plan.topics[topic].purpose {
            Use::Retained(qos) => (qos, true),
            _ => (world.random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]), false),
        };
        let fate = if qos == QoS::AtMostOnce { Fate::Certain } else { Fate::Pending };
        let mut message = self.message(world, topic, qos, retain, fate);
        message.is_clear = retain && world.random.chance(10);
        let number = oracle.publish(message);
        if qos == QoS::AtMostOnce {
            self.qos0_sent.push(number);
            self.send_publish(world, oracle, number, None, false);
        } else {
            let id = self.new_id();
            self.outgoing.push_back(Outgoing { id, message: number, qos, released: false });
            self.send_publish(world, oracle, number, Some(id), false);
        }
    }

    pub(crate) fn send_publish(
        &mut self,
        world: &mut World,
        oracle: &Oracle,
        number: usize,
        packet_id: Option<PacketId>,
        dup: bool,
    ) {
        let message = &oracle.messages[number];
        let name = &oracle.plan.topics[message.topic].name;
        let mut properties = PropertyBuf::new();
        let mut topic = Some(TopicName::parse(name).unwrap());
        if self.profile.version == Version::V5 && message.topic < self.alias_max && !dup {
            properties.push(Property::TopicAlias(message.topic as u16 + 1));
            if !self.aliases.insert(message.topic) {
                topic = None;
            }
        }
        let bytes = match message.is_clear {
            true => Vec::new(),
            false => payload(number, self.profile.payload_bytes),
        };
        world.trace.note(|| format!("client {} sends {number} {message:?}", self.index));
        let publish = Publish {
            dup,
            qos: message.qos,
            retain: message.retain,
            topic,
            packet_id,
            properties: properties.as_properties(),
            payload: &bytes,
        };
        self.send(world, &Packet::Publish(publish));
    }

    fn acknowledge(&mut self, world: &mut World, at: usize) {
        let ack = self.acks.remove(at);
        if let Packet::PubAck(done) | Packet::PubComp(done) = &ack {
            self.counted.remove(&done.packet_id);
            self.in_use.remove(&done.packet_id);
        }
        self.send(world, &ack);
    }

    fn new_id(&mut self) -> PacketId {
        loop {
            let id = self.next_id;
            self.next_id = id.next();
            let taken = self.outgoing.iter().any(|outgoing| outgoing.id == id);
            if !taken && !self.requests.contains_key(&id) {
                return id;
            }
        }
    }
}
