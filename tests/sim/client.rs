//! A simulated MQTT client: what it does of its own accord, and what it
//! remembers. How it answers packets is in `protocol`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringmq::{
    base::{PacketId, QoS, Time},
    codec::{
        Connect, Disconnect, Packet, Properties, Property, PropertyBuf, ReasonCode, Version, Will,
    },
    topic::TopicName,
};

use crate::{
    link::{LinkId, Place},
    oracle::{Fate, Message, Oracle, payload},
    plan::Profile,
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
    /// Has sent DISCONNECT and waits for the broker to close.
    Closing {
        since: Time,
        with_will: bool,
    },
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
    /// Step of its last CONNACK.
    pub(crate) connected_at: u64,
    /// Filters whose SUBACK has come, and the step when it did.
    pub(crate) active: BTreeMap<usize, u64>,
    /// Filters that it has ever asked for.
    pub(crate) asked: BTreeSet<usize>,
    /// Whether a subscription has ever ended.
    pub(crate) has_unsubscribed: bool,
    /// The broker has confirmed a session that must be there next time.
    pub(crate) session_known: bool,
    /// The session outlives this connection.
    pub(crate) session_lasts: bool,
    /// Its publications match no subscription.
    pub(crate) expects_nobody: bool,
    /// It will not connect again.
    pub(crate) has_left: bool,
    /// The next CONNECT starts a new session.
    pub(crate) resets: bool,
    pub(crate) outgoing: VecDeque<Outgoing>,
    pub(crate) requests: BTreeMap<PacketId, Request>,
    /// QoS 2 identifiers received and not released.
    pub(crate) received: BTreeSet<PacketId>,
    /// Identifiers of the broker in use, with their message.
    pub(crate) in_use: BTreeMap<PacketId, Vec<u8>>,
    /// PUBLISHes of this connection that count against Receive Maximum.
    pub(crate) counted: BTreeSet<PacketId>,
    /// Acknowledgements to send.
    pub(crate) acks: Vec<Packet<'static>>,
    /// Receive Maximum and Topic Alias Maximum of the broker.
    pub(crate) quota: usize,
    pub(crate) alias_max: usize,
    /// Topics whose alias the broker knows.
    pub(crate) aliases: BTreeSet<usize>,
    /// QoS 0 messages of this connection.
    pub(crate) qos0_sent: Vec<usize>,
    pub(crate) next_id: PacketId,
    /// Will of this connection; one that waits out its delay since a time.
    will: Option<usize>,
    delayed_will: Option<(usize, Time)>,
}

impl Client {
    pub(crate) fn new(index: usize, profile: Profile, at: Time) -> Self {
        Self {
            index,
            profile,
            state: State::Idle { at, after: None },
            link: None,
            input: Vec::new(),
            connected_at: 0,
            active: BTreeMap::new(),
            asked: BTreeSet::new(),
            has_unsubscribed: false,
            session_known: false,
            session_lasts: false,
            expects_nobody: false,
            has_left: false,
            resets: false,
            outgoing: VecDeque::new(),
            requests: BTreeMap::new(),
            received: BTreeSet::new(),
            in_use: BTreeMap::new(),
            counted: BTreeSet::new(),
            acks: Vec::new(),
            quota: 0,
            alias_max: 0,
            aliases: BTreeSet::new(),
            qos0_sent: Vec::new(),
            next_id: PacketId::FIRST,
            will: None,
            delayed_will: None,
        }
    }

    /// Whether [`Client::act`] has something to do. When `calm`, troubles are over.
    pub(crate) fn can_act(&self, world: &World, calm: bool) -> bool {
        match self.state {
            State::Idle { at, after } => {
                let is_seen = |link: LinkId| world.links[link].place != Place::Gone;
                !self.has_left && (calm || at <= world.now) && !after.is_some_and(is_seen)
            }
            State::Connecting => !calm && self.profile.troubles > 0,
            State::Connected => {
                let backlog = self.link.map_or(0, |link| world.links[link].inbound.len());
                backlog < BACKLOG_BYTES_MAX
                    && (!self.acks.is_empty()
                        || self.can_publish()
                        || self.wanted_filters().next().is_some()
                        || !calm && self.profile.troubles > 0)
            }
            State::Closing { .. } => false,
        }
    }

    /// Whether it still has plans of its own.
    pub(crate) fn is_lively(&self) -> bool {
        self.profile.publishes > 0 || self.profile.troubles > 0
    }

    /// Does one thing.
    pub(crate) fn act(&mut self, world: &mut World, oracle: &mut Oracle, calm: bool) {
        match self.state {
            State::Idle { .. } => self.connect(world, oracle, calm),
            State::Connecting if !calm && world.random.chance(2) => self.cut(world, oracle),
            State::Connected => self.act_connected(world, oracle, calm),
            State::Connecting | State::Closing { .. } => {}
        }
    }

    fn connect(&mut self, world: &mut World, oracle: &mut Oracle, calm: bool) {
        let link = world.connect();
        let Profile { version, persistent, keep_alive_secs, .. } = self.profile;
        let clean_start =
            self.resets || !persistent && (version < Version::V5 || world.random.chance(50));
        if self.resets {
            self.forget_session(oracle);
        }
        // Before 5.0 a clean session ends with its connection.
        self.session_lasts = persistent && !(clean_start && version < Version::V5);
        let mut properties = PropertyBuf::new();
        if version == Version::V5 {
            if persistent {
                properties.push(Property::SessionExpiryInterval(u32::MAX));
            }
            properties.push(Property::ReceiveMaximum(self.profile.receive_maximum));
        }
        let plan = oracle.plan.clone();
        let will = self.profile.will;
        self.will = will.map(|will| {
            let fate = if keep_alive_secs > 0 { Fate::Unknown } else { Fate::Deleted };
            oracle.publish(self.message(world, will.topic, will.qos, false, fate))
        });
        let will_payload = payload(self.will.unwrap_or_default(), 4);
        let mut will_properties = PropertyBuf::new();
        if let Some(will) = will.filter(|will| will.delay_secs > 0) {
            will_properties.push(Property::WillDelayInterval(will.delay_secs));
        }
        let name = self.profile.name.clone();
        let connect = Connect {
            version,
            clean_start,
            keep_alive_secs: if calm { 0 } else { keep_alive_secs },
            client_id: &name,
            properties: properties.as_properties(),
            will: will.map(|will| Will {
                qos: will.qos,
                retain: false,
                topic: TopicName::parse(&plan.topics[will.topic].name).unwrap(),
                properties: will_properties.as_properties(),
                payload: &will_payload,
            }),
            user_name: None,
            password: None,
        };
        world.trace.note(|| format!("client {} connects: {connect:?}", self.index));
        self.link = Some(link);
        self.state = State::Connecting;
        self.send(world, &Packet::Connect(connect));
        if world.random.chance(20) {
            // Nothing keeps a client from sending on before CONNACK.
            self.send(world, &Packet::PingReq);
        }
    }

    pub(crate) fn cut(&mut self, world: &mut World, oracle: &mut Oracle) {
        let Some(link) = self.link else { return };
        world.trace.note(|| format!("client {} is cut", self.index));
        world.cut(link);
        world.ignore(link);
        // A CONNECT that is under way must not overtake the next one.
        let waits = self.state == State::Connecting || world.random.chance(30);
        self.lost(world, oracle, waits.then_some(link));
    }

    /// Connects anew while the broker still thinks that it is connected.
    pub(crate) fn take_over(&mut self, world: &mut World, oracle: &mut Oracle) {
        let Some(link) = self.link else { return };
        world.trace.note(|| format!("client {} goes to take over", self.index));
        world.ignore(link);
        self.lost(world, oracle, None);
    }

    pub(crate) fn disconnect(&mut self, world: &mut World, oracle: &mut Oracle) {
        let with_will = self.profile.version == Version::V5 && world.random.chance(30);
        let reason = match with_will {
            true => ReasonCode::DisconnectWithWillMessage,
            false => ReasonCode::NormalDisconnection,
        };
        world.trace.note(|| format!("client {} disconnects: {reason}", self.index));
        self.send(world, &Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY }));
        if let Some(will) = self.will.filter(|_| with_will) {
            oracle.messages[will].fate = Fate::Unknown;
        }
        self.state = State::Closing { since: world.now, with_will };
    }

    /// Comes back once more without any session, and wants nothing.
    pub(crate) fn restart(&mut self, world: &mut World, oracle: &mut Oracle) {
        self.profile.persistent = false;
        self.session_lasts = false;
        self.profile.filters.clear();
        self.profile.will = None;
        self.resets = true;
        self.take_over(world, oracle);
    }

    /// Publishes once more, now that nobody is subscribed to anything.
    pub(crate) fn find_nobody(&mut self) {
        self.expects_nobody = true;
        self.profile.topics = vec![0];
        self.profile.publishes = usize::from(self.profile.version == Version::V5);
        self.profile.window = 1;
    }

    /// Whether no exchange in either direction is under way.
    pub(crate) fn has_nothing_open(&self) -> bool {
        self.requests.is_empty()
            && self.outgoing.is_empty()
            && self.in_use.is_empty()
            && self.received.is_empty()
    }

    /// Goes for good.
    pub(crate) fn leave(&mut self, world: &mut World, oracle: &mut Oracle) {
        self.has_left = true;
        self.disconnect(world, oracle);
    }

    /// The connection has ended, or is of no use any more.
    pub(crate) fn lost(&mut self, world: &mut World, oracle: &mut Oracle, after: Option<LinkId>) {
        let state = self.state;
        let is_graceful = matches!(state, State::Closing { .. });
        for number in std::mem::take(&mut self.qos0_sent) {
            if !is_graceful {
                oracle.messages[number].fate = Fate::Unknown;
            }
        }
        self.settle_will(world, oracle, state);
        self.link = None;
        self.input.clear();
        self.requests.clear();
        self.counted.clear();
        self.acks.clear();
        self.aliases.clear();
        if !self.session_lasts {
            self.forget_session(oracle);
        }
        let pause = if world.random.chance(60) { 0 } else { world.random.below(8000) };
        self.state = State::Idle { at: world.now.plus_millis(pause as u64), after };
    }

    /// What becomes of the will now that the connection is lost.
    fn settle_will(&mut self, world: &World, oracle: &mut Oracle, state: State) {
        let (Some(number), Some(plan)) = (self.will.take(), self.profile.will) else { return };
        let lost_at = match state {
            State::Closing { with_will: false, .. } => return,
            State::Closing { since, .. } => since,
            _ => world.now,
        };
        let fate = &mut oracle.messages[number].fate;
        if state == State::Connecting {
            // Whether the broker took the CONNECT decides over the old will, too.
            *fate = Fate::Unknown;
            self.delayed_will = None;
        } else if plan.delay_secs == 0 || !self.session_lasts {
            *fate = Fate::Certain;
        } else {
            *fate = Fate::Unknown;
            self.delayed_will = Some((number, lost_at));
        }
    }

    /// The client is connected again: has the old will been deleted?
    pub(crate) fn settle_delayed_will(&mut self, world: &World, oracle: &mut Oracle, is_new: bool) {
        let Some((number, lost_at)) = self.delayed_will.take() else { return };
        let delay_secs = self.profile.will.map_or(0, |will| will.delay_secs);
        if is_new {
            oracle.messages[number].fate = Fate::Certain;
        } else if self.profile.keep_alive_secs == 0
            && world.now < lost_at.plus_secs(u64::from(delay_secs))
        {
            oracle.messages[number].fate = Fate::Deleted;
        }
    }

    /// Nothing of the session is left, here or at the broker.
    pub(crate) fn forget_session(&mut self, oracle: &mut Oracle) {
        for outgoing in self.outgoing.drain(..).filter(|outgoing| !outgoing.released) {
            oracle.messages[outgoing.message].fate = Fate::Unknown;
        }
        self.session_known = false;
        self.has_unsubscribed |= !self.asked.is_empty();
        self.active.clear();
        self.received.clear();
        self.in_use.clear();
    }

    pub(crate) fn message(
        &self,
        world: &World,
        topic: usize,
        qos: QoS,
        retain: bool,
        fate: Fate,
    ) -> Message {
        Message {
            publisher: self.index,
            topic,
            qos,
            retain,
            is_clear: false,
            first_sent: world.step,
            attempts: 1,
            fate,
        }
    }

    pub(crate) fn send(&mut self, world: &mut World, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.profile.version, &mut bytes);
        self.send_bytes(world, &bytes);
    }

    pub(crate) fn send_bytes(&mut self, world: &mut World, bytes: &[u8]) {
        if let Some(link) = self.link {
            world.write(link, bytes);
        }
    }
}

/// Bytes on the way to the broker above which a client waits.
const BACKLOG_BYTES_MAX: usize = 1 << 20;
