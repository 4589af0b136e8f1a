//! A simulated MQTT client: how it comes and goes, and what it remembers. How
//! it answers packets is in `protocol`, what it does of its own accord in
//! `behavior`, and how it gets into trouble in `trouble`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringmq::{
    base::{PacketId, QoS, Time},
    codec::{Connect, Packet, Property, PropertyBuf, Version, Will},
    topic::TopicName,
};

use crate::{
    book::{self, Hello, Word},
    link::{LinkId, Place},
    message::Message,
    oracle::Oracle,
    plan::Plan,
    profile::Profile,
    scram::{Login, METHOD},
    subscriptions::Subscriptions,
    world::World,
};

/// How far a client is with its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Connects at this time, but not while the broker may still see `after`.
    Idle {
        at: Time,
        after: Option<LinkId>,
    },
    Connecting,
    Connected,
    /// Has sent what no client may send, and waits for the broker to say so.
    Offending,
    /// Has sent DISCONNECT and waits for the broker to close.
    Closing,
}

/// A publication of the client at QoS > 0 that is not through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: PacketId,
    pub(crate) message: usize,
    pub(crate) qos: QoS,
    /// PUBREC has come.
    pub(crate) released: bool,
}

/// A request that awaits its answer.
#[derive(Debug)]
pub(crate) enum Request {
    Subscribe(Vec<usize>),
    Unsubscribe(usize),
}

pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) profile: Profile,
    pub(crate) state: State,
    pub(crate) link: Option<LinkId>,
    pub(crate) input: Vec<u8>,
    /// A connection that it has taken over from, and what has come of a packet on it.
    pub(crate) displaced: Option<(LinkId, Vec<u8>)>,
    /// The broker has said why it ends the connection; or the displaced one.
    pub(crate) is_told: bool,
    pub(crate) displaced_is_told: bool,
    /// Step of its last CONNACK.
    pub(crate) connected_at: u64,
    /// Session Expiry Interval of the last CONNECT.
    pub(crate) asked_expiry_secs: u32,
    /// Whether the session of the last connection that was accepted was not to outlive it.
    pub(crate) ended_with_connection: bool,
    /// An exchange that its CONNECT has begun, and what this says.
    pub(crate) login: Option<(Login, Hello)>,
    /// Which session its state belongs to.
    pub(crate) serial: Option<u64>,
    /// Filters whose SUBACK has come, and the step when it first did.
    pub(crate) active: BTreeMap<usize, u64>,
    pub(crate) subscriptions: Subscriptions,
    /// Whether a subscription has ever ended.
    pub(crate) has_unsubscribed: bool,
    /// Its publications match no subscription.
    pub(crate) expects_nobody: bool,
    /// It will not connect again.
    pub(crate) has_left: bool,
    /// The next CONNECT starts a new session.
    pub(crate) resets: bool,
    pub(crate) outgoing: VecDeque<Outgoing>,
    pub(crate) requests: BTreeMap<PacketId, Request>,
    /// QoS 2 identifiers received and not released; and those released and not completed.
    pub(crate) received: BTreeSet<PacketId>,
    pub(crate) completing: BTreeSet<PacketId>,
    /// Identifiers of the broker in use, with the start of their payload.
    pub(crate) in_use: BTreeMap<PacketId, Vec<u8>>,
    /// Those at QoS 1 from before the power failed that the broker had acknowledged to their publisher.
    pub(crate) unsure: BTreeMap<PacketId, Vec<u8>>,
    /// PUBLISHes of this connection that count against Receive Maximum.
    pub(crate) counted: BTreeSet<PacketId>,
    /// Acknowledgements to send.
    pub(crate) acks: Vec<Packet<'static>>,
    /// Receive Maximum and Topic Alias Maximum of the broker.
    pub(crate) quota: usize,
    pub(crate) alias_max: usize,
    /// Topics whose alias the broker knows, and topics by the broker's aliases.
    pub(crate) aliases: BTreeSet<usize>,
    pub(crate) broker_aliases: BTreeMap<u16, String>,
    pub(crate) next_id: PacketId,
    pub(crate) next_identifier: u32,
}

impl Client {
    pub(crate) fn new(index: usize, profile: Profile, at: Time) -> Self {
        Self {
            index,
            profile,
            state: State::Idle { at, after: None },
            link: None,
            input: Vec::new(),
            displaced: None,
            is_told: false,
            displaced_is_told: false,
            connected_at: 0,
            asked_expiry_secs: 0,
            ended_with_connection: false,
            login: None,
            serial: None,
            active: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            has_unsubscribed: false,
            expects_nobody: false,
            has_left: false,
            resets: false,
            outgoing: VecDeque::new(),
            requests: BTreeMap::new(),
            received: BTreeSet::new(),
            completing: BTreeSet::new(),
            in_use: BTreeMap::new(),
            unsure: BTreeMap::new(),
            counted: BTreeSet::new(),
            acks: Vec::new(),
            quota: 0,
            alias_max: 0,
            aliases: BTreeSet::new(),
            broker_aliases: BTreeMap::new(),
            next_id: PacketId::FIRST,
            next_identifier: 1,
        }
    }

    /// One that takes no part at all.
    pub(crate) fn make_absent(&mut self) {
        self.has_left = true;
        self.profile.publishes = 0;
        self.profile.asks = 0;
        self.profile.troubles = 0;
    }

    /// Whether [`Client::act`] has something to do. When `calm`, troubles are over.
    pub(crate) fn can_act(&self, world: &World, calm: bool) -> bool {
        match self.state {
            State::Idle { at, after } => {
                let is_seen = |link: LinkId| world.links[link].place != Place::Gone;
                !self.has_left
                    && !world.is_starting
                    && (calm || at <= world.now)
                    && !after.is_some_and(is_seen)
            }
            State::Connecting => !calm && self.profile.troubles > 0,
            State::Connected => {
                let backlog = self.link.map_or(0, |link| world.links[link].inbound.len());
                backlog < BACKLOG_BYTES_MAX
                    && (!self.acks.is_empty()
                        || self.can_publish()
                        || !calm && self.can_ask()
                        || self.wanted_filters().next().is_some()
                        || !calm && self.profile.troubles > 0)
            }
            State::Offending | State::Closing => false,
        }
    }

    /// Whether it still has plans of its own.
    pub(crate) fn is_lively(&self) -> bool {
        self.profile.publishes > 0 || self.profile.asks > 0 || self.profile.troubles > 0
    }

    /// Does one thing.
    pub(crate) fn act(&mut self, world: &mut World, oracle: &mut Oracle, calm: bool) {
        match self.state {
            State::Idle { .. } => self.connect(world, oracle, calm),
            State::Connecting if !calm && world.random.chance(2) => self.cut(world),
            State::Connected => self.act_connected(world, oracle, calm),
            State::Connecting | State::Offending | State::Closing => {}
        }
    }

    fn connect(&mut self, world: &mut World, oracle: &mut Oracle, calm: bool) {
        let plan = oracle.plan.clone();
        let Profile { version, expiry_secs, is_fickle, .. } = self.profile;
        let is_v5 = version == Version::V5;
        let anew = expiry_secs == 0 && (!is_v5 || world.random.chance(50));
        let clean_start = self.resets || anew;
        self.asked_expiry_secs = match is_v5 {
            true if is_fickle && world.random.chance(40) => world.random.pick(&EXPIRIES_SECS),
            true => expiry_secs,
            false if clean_start => 0,
            false => u32::MAX,
        };
        let mut properties = PropertyBuf::new();
        if is_v5 {
            self.connect_properties(&mut properties);
        }
        let login = self.profile.authenticates.then(|| {
            let is_wrong = !calm && world.random.chance(15);
            Login::new(world.random.next(), is_wrong)
        });
        if let Some(login) = &login {
            properties.push(Property::AuthenticationMethod(METHOD));
            if world.random.chance(70) {
                properties.push(Property::AuthenticationData(login.first().as_bytes()));
            }
        }
        let will = self.add_will(world, oracle);
        let mut will_properties = PropertyBuf::new();
        let mut will_payload = Vec::new();
        let mut will_topic = String::new();
        if let (Some(number), Some(will)) = (will, self.profile.will) {
            let message = &oracle.messages[number];
            will_payload = message.payload(number);
            will_topic = plan.write_topic(&mut world.random, will.topic);
            if is_v5 {
                message.push_properties(number, &mut will_properties);
                let expiry = message.expiry_secs.map(Property::MessageExpiryInterval);
                let delay = Some(will.delay_secs).filter(|secs| *secs > 0);
                let delay = delay.map(Property::WillDelayInterval);
                expiry.into_iter().chain(delay).for_each(|one| will_properties.push(one));
            }
        }
        let name = self.profile.name.clone();
        let number = world.book.announce(self.index);
        let user_name = plan.storage.map(|_| number.to_string());
        let keep_alive_secs = if calm { 0 } else { self.profile.keep_alive_secs };
        let connect = Connect {
            version,
            clean_start,
            keep_alive_secs,
            client_id: &name,
            properties: properties.as_properties(),
            will: self.profile.will.map(|will| Will {
                qos: will.qos,
                retain: will.retain,
                topic: TopicName::parse(&will_topic).unwrap(),
                properties: will_properties.as_properties(),
                payload: &will_payload,
            }),
            user_name: user_name.as_deref(),
            password: None,
        };
        world.trace.note(|| format!("client {} connects: will {will:?}, {connect:?}", self.index));
        let hello = Hello {
            number,
            clean_start,
            expiry_secs: self.asked_expiry_secs,
            keep_alive_secs,
            will: will
                .zip(self.profile.will)
                .map(|(message, plan)| book::Will { message, delay_secs: plan.delay_secs }),
        };
        self.link = Some(world.connect(self.index));
        self.state = State::Connecting;
        self.is_told = false;
        // With authentication, CONNECT takes effect at the end of that.
        let word = match login {
            Some(_) => Word::Other,
            None => Word::Connect(hello.clone()),
        };
        self.login = login.map(|login| (login, hello));
        self.send_as(world, word, &Packet::Connect(connect));
        if self.login.is_none() && world.random.chance(20) {
            // Nothing keeps a client from sending on before CONNACK.
            self.send(world, &Packet::PingReq);
        }
    }

    /// Draws the will of the next connection; returns its number.
    fn add_will(&self, world: &mut World, oracle: &mut Oracle) -> Option<usize> {
        let will = self.profile.will?;
        let of = (self.index, &self.profile);
        let about = (will.topic, will.qos, will.retain);
        let mut message = Message::new(&mut world.random, &oracle.plan, of, about);
        message.expiry_secs = will.message_expiry_secs;
        Some(oracle.add(message))
    }

    fn connect_properties(&self, properties: &mut PropertyBuf) {
        if self.asked_expiry_secs > 0 {
            properties.push(Property::SessionExpiryInterval(self.asked_expiry_secs));
        }
        properties.push(Property::ReceiveMaximum(self.profile.receive_maximum));
        if self.profile.alias_maximum > 0 {
            properties.push(Property::TopicAliasMaximum(self.profile.alias_maximum));
        }
        if let Some(bytes) = self.profile.packet_bytes_max {
            properties.push(Property::MaximumPacketSize(bytes));
        }
    }

    /// Comes back once more without any session, and wants nothing.
    pub(crate) fn restart(&mut self, world: &mut World) {
        self.profile.expiry_secs = 0;
        self.profile.is_fickle = false;
        self.profile.filters.clear();
        self.profile.asks = 0;
        self.profile.will = None;
        self.resets = true;
        self.take_over(world);
    }

    /// Publishes once more, now that nobody is subscribed to anything.
    pub(crate) fn find_nobody(&mut self) {
        if self.has_left {
            return;
        }
        self.expects_nobody = true;
        self.profile.topics = vec![0];
        self.profile.publishes = usize::from(self.profile.version == Version::V5);
        self.profile.window = 1;
    }

    /// Whether such a message comes to it as a member of a group.
    pub(crate) fn takes_share(&self, plan: &Plan, topic: &str) -> bool {
        let first = self.profile.filters.first();
        self.profile.is_shared && first.is_some_and(|&group| plan.filters[group].matches(topic))
    }

    /// The lowest QoS that a message on a topic may come with.
    pub(crate) fn least_qos(&self, plan: &Plan, topic: &str) -> QoS {
        self.subscriptions.all_qos(plan, topic).min().unwrap_or(QoS::AtMostOnce)
    }

    /// Whether no exchange in either direction is under way.
    pub(crate) fn has_nothing_open(&self) -> bool {
        self.requests.is_empty()
            && self.outgoing.is_empty()
            && self.in_use.is_empty()
            && self.received.is_empty()
    }

    /// The whole machine ends. Some of what it had sent still arrives.
    pub(crate) fn lose_machine(&mut self, world: &mut World, oracle: &mut Oracle) {
        if let Some((link, _)) = self.displaced.take() {
            world.ignore(link);
        }
        let Some(link) = self.link else { return };
        let outbound = world.links[link].outbound.len();
        let kept = world.random.below(outbound + 1);
        world.links[link].sever(0, kept);
        while self.link == Some(link) && !world.links[link].outbound.is_empty() {
            self.read(world, oracle);
        }
        if self.link == Some(link) {
            world.ignore(link);
            self.lost(world, None);
        }
        // It may have lost its state, too.
        self.resets |= !self.profile.stays && world.random.chance(10);
    }

    /// The connection has ended, or is of no use any more. What is known of the
    /// session stays until CONNACK tells whether the broker knows it, too.
    pub(crate) fn lost(&mut self, world: &mut World, after: Option<LinkId>) {
        self.link = None;
        self.login = None;
        self.input.clear();
        self.requests.clear();
        self.counted.clear();
        self.acks.clear();
        self.aliases.clear();
        self.broker_aliases.clear();
        let pause = if world.random.chance(60) { 0 } else { world.random.below(8000) };
        self.state = State::Idle { at: world.now.plus_millis(pause as u64), after };
    }

    /// Nothing of the session is left, here or at the broker.
    pub(crate) fn forget_session(&mut self, step: u64) {
        self.has_unsubscribed |= !self.subscriptions.0.is_empty();
        self.outgoing.clear();
        self.active.clear();
        self.subscriptions.end(None, step);
        self.received.clear();
        self.completing.clear();
        self.in_use.clear();
        self.unsure.clear();
    }

    pub(crate) fn send(&mut self, world: &mut World, packet: &Packet<'_>) {
        self.send_as(world, Word::Other, packet);
    }

    pub(crate) fn send_as(&mut self, world: &mut World, word: Word, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.profile.version, &mut bytes);
        self.send_bytes(world, word, &bytes);
    }

    pub(crate) fn send_bytes(&mut self, world: &mut World, word: Word, bytes: &[u8]) {
        if let Some(link) = self.link {
            world.write(link, word, bytes);
        }
    }
}

/// Bytes on the way to the broker above which a client waits.
const BACKLOG_BYTES_MAX: usize = 1 << 20;

/// What a fickle client asks for, at either end of a connection.
pub(crate) const EXPIRIES_SECS: [u32; 5] = [0, 1, 3, 20, u32::MAX];
