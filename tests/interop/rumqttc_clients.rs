//! rumqttc, an independent client library, in 3.1.1 and in 5.0.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::common::{Broker, on_one_and_four_shards};

/// One connection of either version.
struct Client {
    seen: Receiver<Seen>,
    request: Box<dyn Fn(Request<'_>)>,
    session_present: bool,
}

/// What CONNECT says.
#[derive(Clone, Copy)]
struct Options<'a> {
    id: &'a str,
    /// Keeps its session when the connection ends.
    persistent: bool,
    /// Topic, QoS and RETAIN of a will with the payload `gone`.
    will: Option<(&'a str, u8, bool)>,
}

/// What a client is told to do.
enum Request<'a> {
    Subscribe { filter: &'a str, qos: u8, identifier: Option<usize> },
    Unsubscribe { filter: &'a str },
    Publish { message: &'a Message },
    Disconnect,
}

/// What its connection reported.
#[derive(Debug)]
enum Seen {
    Connected {
        session_present: bool,
    },
    Subscribed(String),
    Unsubscribed,
    /// The end of a QoS 1 or QoS 2 exchange that it began, and its reason.
    Acknowledged(String),
    Message(Message),
    Ended,
}

/// A message either way.
#[derive(Clone, PartialEq, Default, Debug)]
struct Message {
    topic: String,
    qos: u8,
    retain: bool,
    payload: String,
    /// Of 5.0 only.
    properties: PublishProperties,
}

/// [`connect_3_1_1`] or [`connect_5_0`].
type Connect = fn(&Broker, Options<'_>, Sender<Seen>) -> Box<dyn Fn(Request<'_>)>;

impl Client {
    #[track_caller]
    fn start(connect: Connect, broker: &Broker, options: Options<'_>) -> Self {
        let (sender, seen) = channel();
        let request = connect(broker, options, sender);
        let mut client = Self { seen, request, session_present: false };
        match client.next() {
            Seen::Connected { session_present } => client.session_present = session_present,
            other => panic!("{other:?} before CONNACK"),
        }
        client
    }

    #[track_caller]
    fn clean(connect: Connect, broker: &Broker, id: &str) -> Self {
        Self::start(connect, broker, Options { id, persistent: false, will: None })
    }

    #[track_caller]
    fn next(&self) -> Seen {
        self.seen.recv_timeout(WAIT_MAX).expect("nothing came")
    }

    #[track_caller]
    fn subscribe(&self, filter: &str, qos: u8, identifier: Option<usize>) {
        (self.request)(Request::Subscribe { filter, qos, identifier });
        let granted = format!("{:?}", rumqttc::qos(qos).expect("a QoS"));
        match self.next() {
            Seen::Subscribed(codes) => assert!(codes.contains(&granted), "granted {codes}"),
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    /// A subscription with wildcards after which no message comes as a retained one any more: what a
    /// later subscription finds comes after what the earlier one has found.
    #[track_caller]
    fn watch(&self, filter: &str, qos: u8) {
        let settled = Message::retained("settled", 1, "settled");
        self.publish(&settled);
        self.subscribe(filter, qos, None);
        self.subscribe("settled", 1, None);
        assert_eq!(self.message(), settled);
    }

    #[track_caller]
    fn unsubscribe(&self, filter: &str) {
        (self.request)(Request::Unsubscribe { filter });
        let next = self.next();
        assert!(matches!(next, Seen::Unsubscribed), "{next:?} instead of UNSUBACK");
    }

    /// Publishes and waits for the end of the exchange; returns the reason that it names.
    #[track_caller]
    fn publish(&self, message: &Message) -> String {
        (self.request)(Request::Publish { message });
        if message.qos == 0 {
            return String::new();
        }
        match self.next() {
            Seen::Acknowledged(reason) => reason,
            other => panic!("{other:?} instead of an acknowledgement"),
        }
    }

    #[track_caller]
    fn message(&self) -> Message {
        match self.next() {
            Seen::Message(message) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// DISCONNECT, and the end of the connection.
    #[track_caller]
    fn end(self) {
        (self.request)(Request::Disconnect);
        while !matches!(self.next(), Seen::Ended) {}
    }
}

impl Message {
    fn new(topic: &str, qos: u8, payload: &str) -> Self {
        let (topic, payload) = (topic.to_owned(), payload.to_owned());
        Self { topic, qos, payload, ..Self::default() }
    }

    fn retained(topic: &str, qos: u8, payload: &str) -> Self {
        Self { retain: true, ..Self::new(topic, qos, payload) }
    }
}

/// A client on a thread of its own. It ends with its connection, or when nobody listens any more: then
/// without DISCONNECT.
fn connect_3_1_1(
    broker: &Broker,
    options: Options<'_>,
    seen: Sender<Seen>,
) -> Box<dyn Fn(Request<'_>)> {
    use rumqttc::{Client, Event, LastWill, MqttOptions, Packet, qos};
    let level = |bits| qos(bits).expect("a QoS");
    let mut how = MqttOptions::new(options.id, "127.0.0.1", broker.port);
    how.set_keep_alive(Duration::from_secs(30)).set_clean_session(!options.persistent);
    if let Some((topic, qos, retain)) = options.will {
        how.set_last_will(LastWill::new(topic, "gone", level(qos), retain));
    }
    let (client, mut connection) = Client::new(how, REQUESTS_MAX);
    let dies = options.will.is_some();
    std::thread::spawn(move || {
        for event in connection.iter() {
            let packet = match event {
                Ok(Event::Incoming(packet)) => packet,
                Ok(Event::Outgoing(_)) => continue,
                Err(_) => break,
            };
            let report = match packet {
                Packet::ConnAck(connack) => {
                    Seen::Connected { session_present: connack.session_present }
                }
                Packet::SubAck(suback) => Seen::Subscribed(format!("{:?}", suback.return_codes)),
                Packet::UnsubAck(_) => Seen::Unsubscribed,
                Packet::PubAck(_) | Packet::PubComp(_) => Seen::Acknowledged("Success".to_owned()),
                Packet::Publish(publish) => Seen::Message(Message {
                    topic: publish.topic,
                    qos: publish.qos as u8,
                    retain: publish.retain,
                    payload: String::from_utf8_lossy(&publish.payload).into_owned(),
                    properties: PublishProperties::default(),
                }),
                _ => continue,
            };
            if seen.send(report).is_err() || dies {
                return;
            }
        }
        _ = seen.send(Seen::Ended);
    });
    Box::new(move |request| {
        match request {
            Request::Subscribe { filter, qos, .. } => client.subscribe(filter, level(qos)),
            Request::Unsubscribe { filter } => client.unsubscribe(filter),
            Request::Publish { message } => {
                let Message { topic, qos, retain, payload, .. } = message.clone();
                client.publish(topic, level(qos), retain, payload)
            }
            Request::Disconnect => client.disconnect(),
        }
        .expect("the connection stands");
    })
}

/// The same in 5.0.
fn connect_5_0(
    broker: &Broker,
    options: Options<'_>,
    seen: Sender<Seen>,
) -> Box<dyn Fn(Request<'_>)> {
    use rumqttc::v5::mqttbytes::qos;
    use rumqttc::v5::mqttbytes::v5::{
        ConnectProperties, LastWill, LastWillProperties, Packet, SubscribeProperties,
    };
    use rumqttc::v5::{Client, Event, MqttOptions};
    let level = |bits| qos(bits).expect("a QoS");
    let mut how = MqttOptions::new(options.id, "127.0.0.1", broker.port);
    how.set_keep_alive(Duration::from_secs(30)).set_clean_start(!options.persistent);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = options.persistent.then_some(60);
    how.set_connect_properties(properties);
    if let Some((topic, qos, retain)) = options.will {
        let properties = LastWillProperties {
            delay_interval: None,
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(100),
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("answer".to_owned()),
            correlation_data: Some(vec![0, 255].into()),
            user_properties: vec![("why".to_owned(), "lost".to_owned())],
        };
        how.set_last_will(LastWill::new(topic, "gone", level(qos), retain, Some(properties)));
    }
    let (client, mut connection) = Client::new(how, REQUESTS_MAX);
    let dies = options.will.is_some();
    std::thread::spawn(move || {
        for event in connection.iter() {
            let packet = match event {
                Ok(Event::Incoming(packet)) => packet,
                Ok(Event::Outgoing(_)) => continue,
                Err(_) => break,
            };
            let report = match packet {
                Packet::ConnAck(connack) => {
                    Seen::Connected { session_present: connack.session_present }
                }
                Packet::SubAck(suback) => Seen::Subscribed(format!("{:?}", suback.return_codes)),
                Packet::UnsubAck(_) => Seen::Unsubscribed,
                Packet::PubAck(ack) => Seen::Acknowledged(format!("{:?}", ack.reason)),
                Packet::PubComp(ack) => Seen::Acknowledged(format!("{:?}", ack.reason)),
                Packet::Publish(publish) => Seen::Message(Message {
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    qos: publish.qos as u8,
                    retain: publish.retain,
                    payload: String::from_utf8_lossy(&publish.payload).into_owned(),
                    properties: publish.properties.unwrap_or_default(),
                }),
                _ => continue,
            };
            if seen.send(report).is_err() || dies {
                return;
            }
        }
        _ = seen.send(Seen::Ended);
    });
    Box::new(move |request| {
        match request {
            Request::Subscribe { filter, qos, identifier: None } => {
                client.subscribe(filter, level(qos))
            }
            Request::Subscribe { filter, qos, identifier } => {
                let properties = SubscribeProperties { id: identifier, user_properties: vec![] };
                client.subscribe_with_properties(filter, level(qos), properties)
            }
            Request::Unsubscribe { filter } => client.unsubscribe(filter),
            Request::Publish { message } => {
                let Message { topic, qos, retain, payload, properties } = message.clone();
                client.publish_with_properties(topic, level(qos), retain, payload, properties)
            }
            Request::Disconnect => client.disconnect(),
        }
        .expect("the connection stands");
    })
}

/// Every QoS published to every QoS granted: all of them once, with the lower QoS, in order.
fn every_qos(connect: Connect, broker: &Broker) {
    let subscriber = Client::clean(connect, broker, "subscriber");
    let publisher = Client::clean(connect, broker, "publisher");
    for granted in 0..3 {
        subscriber.subscribe(&format!("{granted}/#"), granted, None);
        for message in 0..MESSAGES {
            for qos in 0..3 {
                let topic = format!("{granted}/{qos}");
                let message = Message::new(&topic, qos, &message.to_string());
                (publisher.request)(Request::Publish { message: &message });
            }
        }
        let mut next = [0; 3];
        for _ in 0..3 * MESSAGES {
            let message = subscriber.message();
            let published: u8 = message.topic[2..].parse().expect("a QoS");
            let count = &mut next[usize::from(published)];
            let topic = format!("{granted}/{published}");
            let expected = Message::new(&topic, published.min(granted), &count.to_string());
            assert_eq!(message, expected);
            *count += 1;
        }
    }
    subscriber.unsubscribe("2/#");
    for topic in ["2/none", "1/last"] {
        (publisher.request)(Request::Publish { message: &Message::new(topic, 1, "last") });
    }
    assert_eq!(subscriber.message(), Message::new("1/last", 1, "last"));
}

fn retained_messages(connect: Connect, broker: &Broker) {
    let publisher = Client::clean(connect, broker, "publisher");
    let live = Client::clean(connect, broker, "live");
    live.watch("r/#", 1);
    for qos in 0..3 {
        let topic = format!("r/{qos}");
        publisher.publish(&Message::retained(&topic, qos, "old"));
        publisher.publish(&Message::retained(&topic, qos, "kept"));
        for payload in ["old", "kept"] {
            assert_eq!(live.message(), Message::new(&topic, qos.min(1), payload));
        }
    }
    let late = Client::clean(connect, broker, "late");
    for qos in 0..3 {
        let topic = format!("r/{qos}");
        late.subscribe(&topic, 2, None);
        assert_eq!(late.message(), Message::retained(&topic, qos, "kept"));
        publisher.publish(&Message::retained(&topic, 1, ""));
        for subscriber in [&live, &late] {
            assert_eq!(subscriber.message(), Message::new(&topic, 1, ""));
        }
    }
    let after = Client::clean(connect, broker, "after");
    after.subscribe("r/#", 2, None);
    publisher.publish(&Message::new("r/live", 2, "live"));
    assert_eq!(after.message(), Message::new("r/live", 2, "live"));
}

/// In 5.0 with the properties that [`connect_5_0`] gives a will.
fn wills(connect: Connect, broker: &Broker, properties: PublishProperties) {
    let watcher = Client::clean(connect, broker, "watcher");
    watcher.watch("will/#", 2);
    for qos in 0..3 {
        let topic = format!("will/{qos}");
        // A client with a will lets go of its connection after CONNACK.
        let will = Some((topic.as_str(), qos, qos == 1));
        Client::start(connect, broker, Options { id: "dying", persistent: false, will });
        let message = watcher.message();
        assert_eq!(message.properties, properties);
        let message = Message { properties: PublishProperties::default(), ..message };
        assert_eq!(message, Message::new(&topic, qos, "gone"));
    }
    let late = Client::clean(connect, broker, "late");
    late.subscribe("will/#", 2, None);
    let kept = late.message();
    assert_eq!((kept.topic.as_str(), kept.qos, kept.retain), ("will/1", 1, true));
}

fn sessions(connect: Connect, broker: &Broker) {
    let persistent = Options { id: "me", persistent: true, will: None };
    let first = Client::start(connect, broker, persistent);
    assert!(!first.session_present);
    first.subscribe("s/#", 2, None);
    first.end();
    let publisher = Client::clean(connect, broker, "publisher");
    let waiting: Vec<Message> =
        (0..40).map(|n| Message::new("s/1", 1 + n % 2, &n.to_string())).collect();
    for message in &waiting {
        publisher.publish(message);
    }
    let second = Client::start(connect, broker, persistent);
    assert!(second.session_present);
    for message in &waiting {
        assert_eq!(second.message(), *message);
    }
    publisher.publish(&Message::new("s/1", 1, "live"));
    assert_eq!(second.message(), Message::new("s/1", 1, "live"));
    second.end();
    let clean = Client::clean(connect, broker, "me");
    assert!(!clean.session_present);
    clean.end();
    assert!(!Client::start(connect, broker, persistent).session_present);
}

/// Properties of messages, an alias that a client sets, and what PUBACK says.
fn rumqttc_5_0_properties(broker: &Broker) {
    let subscriber = Client::clean(connect_5_0, broker, "subscriber");
    subscriber.subscribe("p/#", 2, Some(7));
    subscriber.subscribe("p/+", 2, Some(300_000));
    let publisher = Client::clean(connect_5_0, broker, "publisher");
    let user_property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut properties = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(1000),
        topic_alias: Some(3),
        response_topic: Some("answer".to_owned()),
        correlation_data: Some(vec![1, 0, 2].into()),
        user_properties: vec![
            user_property("one", "1"),
            user_property("two", "zwei"),
            user_property("one", "again"),
        ],
        subscription_identifiers: vec![],
        content_type: Some("application/json".to_owned()),
    };
    let mut expected = properties.clone();
    expected.topic_alias = None;
    expected.subscription_identifiers = vec![7, 300_000];
    for qos in 0..3 {
        // The alias stands for the topic once it has been named with it.
        for topic in ["p/q", "", ""] {
            let message = Message::new(topic, qos, "x");
            publisher.publish(&Message { properties: properties.clone(), ..message });
            let mut message = subscriber.message();
            message.properties.subscription_identifiers.sort_unstable();
            let plain = Message::new("p/q", qos, "x");
            assert_eq!(message, Message { properties: expected.clone(), ..plain });
        }
    }
    properties.topic_alias = None;
    assert_eq!(publisher.publish(&Message::new("p/q", 1, "x")), "Success");
    assert_eq!(publisher.publish(&Message::new("nobody", 1, "x")), "NoMatchingSubscribers");
}

fn rumqttc_3_1_1_wills(broker: &Broker) {
    wills(connect_3_1_1, broker, PublishProperties::default());
}

fn rumqttc_5_0_wills(broker: &Broker) {
    let properties = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(100),
        content_type: Some("text/plain".to_owned()),
        response_topic: Some("answer".to_owned()),
        correlation_data: Some(vec![0, 255].into()),
        user_properties: vec![("why".to_owned(), "lost".to_owned())],
        ..PublishProperties::default()
    };
    wills(connect_5_0, broker, properties);
}

macro_rules! in_both_versions {
    ($($step:ident: $in_3_1_1:ident, $in_5_0:ident;)+) => {
        $(
            fn $in_3_1_1(broker: &Broker) {
                $step(connect_3_1_1, broker);
            }

            fn $in_5_0(broker: &Broker) {
                $step(connect_5_0, broker);
            }
        )+
    };
}

in_both_versions! {
    every_qos: rumqttc_3_1_1_every_qos, rumqttc_5_0_every_qos;
    retained_messages: rumqttc_3_1_1_retained_messages, rumqttc_5_0_retained_messages;
    sessions: rumqttc_3_1_1_sessions, rumqttc_5_0_sessions;
}

on_one_and_four_shards! {
    rumqttc_3_1_1_every_qos;
    rumqttc_3_1_1_retained_messages;
    rumqttc_3_1_1_wills;
    rumqttc_3_1_1_sessions;
    rumqttc_5_0_every_qos;
    rumqttc_5_0_retained_messages;
    rumqttc_5_0_wills;
    rumqttc_5_0_sessions;
    rumqttc_5_0_properties;
}

const MESSAGES: usize = 300;
/// What rumqttc queues for the connection before a caller waits.
const REQUESTS_MAX: usize = 100;
const WAIT_MAX: Duration = Duration::from_secs(20);
