//! What a connected client does of its own accord: publish, subscribe and
//! acknowledge late. A new operation is a method here that
//! [`Client::act_connected`] (or, if it ends things, `trouble`) calls at random.

use ringmq::{
    base::{PacketId, QoS},
    codec::{
        Packet, Properties, Property, PropertyBuf, Publish, RetainHandling, SubscribeFilter,
        Version, encode_subscribe, encode_unsubscribe,
    },
    topic::TopicName,
};

use crate::{
    book::Word,
    client::{Client, Outgoing, Request},
    message::{Message, message_number},
    oracle::Oracle,
    plan::Kind,
    profile::any_qos,
    world::World,
};

impl Client {
    pub(crate) fn act_connected(&mut self, world: &mut World, oracle: &mut Oracle, calm: bool) {
        // One with nothing else to do does not wait long for the next trouble.
        let has_work = self.profile.publishes > 0 || !self.acks.is_empty();
        let percent = if has_work { 5 } else { 25 };
        if !calm && self.profile.troubles > 0 && world.random.chance(percent) {
            self.profile.troubles -= 1;
            return self.get_into_trouble(world, oracle);
        }
        let wanted: Vec<usize> = self.wanted_filters().collect();
        if !wanted.is_empty() && (calm || world.random.chance(self.profile.eagerness)) {
            self.subscribe(world, oracle, wanted);
        } else if !calm && self.can_ask() && world.random.chance(20) {
            self.profile.asks -= 1;
            let topic = world.random.pick(&oracle.plan.asks);
            let qos = any_qos(&mut world.random);
            self.ask(world, oracle, topic, qos);
        } else if world.random.chance(60) && self.can_publish() {
            for _ in 0..world.random.range(1, self.profile.burst) {
                self.publish(world, oracle);
            }
        } else if !self.acks.is_empty() {
            let last = if self.profile.shuffles { self.acks.len() } else { 1 };
            let at = world.random.below(last);
            self.acknowledge(world, oracle, at);
        } else if world.random.chance(3) {
            self.send(world, &Packet::PingReq);
        }
    }

    /// Filters that it wants and has not asked for.
    pub(crate) fn wanted_filters(&self) -> impl Iterator<Item = usize> {
        let wanted = self.profile.filters.iter().copied();
        wanted.filter(move |filter| !self.active.contains_key(filter) && !self.is_asking(*filter))
    }

    /// Whether a request about a filter is under way.
    fn is_asking(&self, filter: usize) -> bool {
        self.requests.values().any(|request| match request {
            Request::Subscribe(filters) => filters.contains(&filter),
            Request::Unsubscribe(leaving) => *leaving == filter,
        })
    }

    fn any_active(&self, world: &mut World) -> Option<usize> {
        let filters: Vec<usize> = self.active.keys().copied().collect();
        (!filters.is_empty()).then(|| world.random.pick(&filters))
    }

    /// Replaces a subscription that it has by one with other options.
    pub(crate) fn subscribe_again(&mut self, world: &mut World, oracle: &mut Oracle) {
        let Some(filter) = self.any_active(world) else { return };
        if !self.is_asking(filter) {
            self.subscribe(world, oracle, vec![filter]);
        }
    }

    fn subscribe(&mut self, world: &mut World, oracle: &mut Oracle, mut wanted: Vec<usize>) {
        wanted.truncate(world.random.range(1, 3));
        let id = self.new_id();
        let identifier = (self.profile.identifies && world.random.chance(80)).then(|| {
            self.next_identifier += 1;
            self.next_identifier
        });
        let plan = oracle.plan.clone();
        let texts: Vec<String> = wanted
            .iter()
            .map(|position| plan.write_filter(&mut world.random, &plan.filters[*position].text))
            .collect();
        let mut filters = Vec::new();
        let mut word = Word::Other;
        for (&position, text) in wanted.iter().zip(&texts) {
            let filter = &plan.filters[position];
            let options = self.draw_options(world, filter.kind);
            let qos = self.profile.sub_qos;
            self.subscriptions.add(filter, position, qos, options, identifier);
            if filter.kind == Kind::Exclusive {
                word = Word::Claim;
                let serial = self.serial.unwrap_or_default();
                oracle.claims.ask(self.index, position, serial, world.step);
            }
            filters.push(SubscribeFilter {
                filter: text,
                qos,
                no_local: options.0,
                retain_as_published: options.1,
                retain_handling: options.2,
            });
        }
        world.trace.note(|| format!("client {} subscribes {id} {filters:?}", self.index));
        let mut properties = PropertyBuf::new();
        if let Some(identifier) = identifier {
            properties.push(Property::SubscriptionIdentifier(identifier));
        }
        let mut bytes = Vec::new();
        let version = self.profile.version;
        encode_subscribe(version, id, properties.as_properties(), &filters, &mut bytes);
        self.send_bytes(world, word, &bytes);
        self.requests.insert(id, Request::Subscribe(wanted));
    }

    /// No Local, Retain As Published and Retain Handling.
    fn draw_options(&self, world: &mut World, kind: Kind) -> (bool, bool, RetainHandling) {
        if !self.profile.is_choosy {
            return (false, false, RetainHandling::SendAtSubscribe);
        }
        let handling = world.random.pick(&[
            RetainHandling::SendAtSubscribe,
            RetainHandling::SendIfNew,
            RetainHandling::DoNotSend,
        ]);
        // MQTT-3.8.3-4.
        let no_local = kind != Kind::Shared && world.random.chance(40);
        (no_local, world.random.chance(40), handling)
    }

    pub(crate) fn unsubscribe(&mut self, world: &mut World, oracle: &mut Oracle) {
        let Some(filter) = self.any_active(world) else { return };
        if self.is_asking(filter) {
            return;
        }
        self.active.remove(&filter);
        self.subscriptions.leave(filter);
        self.has_unsubscribed = true;
        let id = self.new_id();
        let mut bytes = Vec::new();
        oracle.claims.leave(self.index, filter);
        let text = &oracle.plan.filters[filter].text;
        let text = oracle.plan.write_filter(&mut world.random, text);
        encode_unsubscribe(self.profile.version, id, Properties::EMPTY, &[&text], &mut bytes);
        self.send_bytes(world, Word::Other, &bytes);
        world.trace.note(|| format!("client {} unsubscribes {id} {text}", self.index));
        self.requests.insert(id, Request::Unsubscribe(filter));
    }

    pub(crate) fn can_publish(&self) -> bool {
        self.profile.publishes > 0 && self.outgoing.len() < self.window()
    }

    pub(crate) fn can_ask(&self) -> bool {
        self.profile.asks > 0 && self.outgoing.len() < self.window().max(1).min(self.quota)
    }

    /// Asks for retained messages.
    pub(crate) fn ask(&mut self, world: &mut World, oracle: &mut Oracle, topic: usize, qos: QoS) {
        let of = (self.index, &self.profile);
        let mut message = Message::new(&mut world.random, &oracle.plan, of, (topic, qos, false));
        message.is_clear = true;
        message.expiry_secs = None;
        world.stats.asks += 1;
        let number = oracle.add_ask(message);
        self.publish_first(world, oracle, number);
    }

    fn window(&self) -> usize {
        self.profile.window.min(self.quota)
    }

    fn publish(&mut self, world: &mut World, oracle: &mut Oracle) {
        if !self.can_publish() {
            return;
        }
        self.profile.publishes -= 1;
        let topic = world.random.pick(&self.profile.topics);
        let (qos, retain) = match oracle.plan.topics[topic].retained {
            Some(qos) => (qos, true),
            None => (any_qos(&mut world.random), false),
        };
        let of = (self.index, &self.profile);
        let mut message = Message::new(&mut world.random, &oracle.plan, of, (topic, qos, retain));
        message.is_clear = retain && world.random.chance(10);
        let number = oracle.add(message);
        self.publish_first(world, oracle, number);
    }

    /// Sends a message that was not sent before.
    fn publish_first(&mut self, world: &mut World, oracle: &mut Oracle, number: usize) {
        let message = &mut oracle.messages[number];
        message.first_sent = world.step;
        let qos = message.qos;
        if qos == QoS::AtMostOnce {
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
        oracle: &mut Oracle,
        number: usize,
        packet_id: Option<PacketId>,
        dup: bool,
    ) {
        oracle.sent(number, world.now);
        self.note_ask(oracle, number);
        let message = &oracle.messages[number];
        let name = oracle.plan.write_topic(&mut world.random, message.topic);
        let mut properties = PropertyBuf::new();
        let mut topic = Some(TopicName::parse_received(&name).unwrap());
        if self.profile.version == Version::V5 {
            if let Some(secs) = message.expiry_secs {
                properties.push(Property::MessageExpiryInterval(secs));
            }
            message.push_properties(number, &mut properties);
            if message.topic < self.alias_max && !dup {
                properties.push(Property::TopicAlias(message.topic as u16 + 1));
                if !self.aliases.insert(message.topic) {
                    topic = None;
                }
            }
        }
        world.trace.note(|| format!("client {} sends {number} {name} {message:?}", self.index));
        let publish = Publish {
            dup,
            qos: message.qos,
            retain: message.retain,
            topic,
            packet_id,
            properties: properties.as_properties(),
            payload: &message.payload(number),
        };
        self.send_as(world, Word::Publish(number), &Packet::Publish(publish));
    }

    /// If it is a request: whether the client has registered for it, as far as it knows.
    fn note_ask(&self, oracle: &mut Oracle, number: usize) {
        let plan = oracle.plan.clone();
        let Some(ask) = oracle.asks.get_mut(&number) else { return };
        let fitting = || {
            self.subscriptions
                .0
                .iter()
                .filter(|one| one.gone.is_none() && plan.filters[one.filter].answers(&ask.filter))
        };
        let is_certain = fitting().any(|one| one.active.is_some() && !one.is_leaving);
        let is_possible = fitting().next().is_some();
        ask.is_registered = is_certain;
        ask.may_be_registered = is_possible;
        ask.may_be_answered |= is_possible;
    }

    fn acknowledge(&mut self, world: &mut World, oracle: &mut Oracle, at: usize) {
        let ack = self.acks.remove(at);
        let done = match &ack {
            Packet::PubAck(done) | Packet::PubComp(done) => Some(done.packet_id),
            Packet::PubRec(refusal) if refusal.reason.is_error() => {
                let start = self.in_use.get(&refusal.packet_id);
                let number = start.and_then(|start| message_number(start));
                oracle.refused.extend(number.map(|number| (self.index, number)));
                self.received.remove(&refusal.packet_id);
                Some(refusal.packet_id)
            }
            _ => None,
        };
        if let Some(id) = done {
            self.counted.remove(&id);
            self.in_use.remove(&id);
            self.completing.remove(&id);
        }
        world.trace.note(|| format!("client {} acknowledges {ack:?}", self.index));
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
