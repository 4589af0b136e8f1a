"""paho-mqtt against a broker on a port of this machine. Argument: the port.

Prints a line for each step that holds, and ends with an error at the first that does not.
"""

import queue
import socket
import sys

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT = int(sys.argv[1])
WAIT_MAX = 20
V5 = paho.MQTTv5


def properties(packet, **values):
    made = Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """One connection, with what its callbacks reported in queues."""

    def __init__(
        self, version, client_id, clean=True, expiry=0, will=None, reconnects=False, **connect
    ):
        self.version = version
        self.connacks, self.messages, self.acks, self.ends = (queue.Queue() for _ in range(4))
        clean_session = None if version == V5 else clean
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=clean_session,
            protocol=version,
            reconnect_on_failure=reconnects,
        )
        self.paho.reconnect_delay_set(min_delay=0.01)
        self.paho.on_connect = lambda _c, _u, flags, reason, props: self.connacks.put(
            (flags.session_present, reason, props)
        )
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_publish = lambda _c, _u, mid, reason, props: self.acks.put((mid, reason))
        self.paho.on_subscribe = lambda _c, _u, mid, reasons, props: self.acks.put((mid, reasons))
        self.paho.on_unsubscribe = self.paho.on_subscribe
        self.paho.on_disconnect = lambda _c, _u, _flags, reason, _p: self.ends.put(reason)
        if will is not None:
            self.paho.will_set(**will)
        if version == V5:
            connect["clean_start"] = clean
            values = connect.pop("values", {})
            connect["properties"] = properties(
                PacketTypes.CONNECT, SessionExpiryInterval=expiry, **values
            )
        self.paho.connect("127.0.0.1", PORT, 30, **connect)
        self.paho.loop_start()
        self.session_present, reason, self.connack = self.connacks.get(timeout=WAIT_MAX)
        assert not reason.is_failure, reason

    def subscribe(self, topic, qos, **options):
        """Returns the reason code as a number."""
        values = options.pop("values", {})
        if self.version == V5:
            _, mid = self.paho.subscribe(
                topic,
                options=SubscribeOptions(qos=qos, **options),
                properties=properties(PacketTypes.SUBSCRIBE, **values),
            )
        else:
            _, mid = self.paho.subscribe(topic, qos)
        return self.answer(mid)[0].value

    def watch(self, topic_filter, qos):
        """A subscription with wildcards after which no message comes as a retained one any more: what a
        later subscription finds comes after what the earlier one has found."""
        topic = f"settled/{topic_filter.removesuffix('/#')}"
        self.publish(topic, "settled", 1, retain=True)
        self.subscribe(topic_filter, qos)
        self.subscribe(topic, 1)
        self.expect(topic, "settled", 1, True)

    def unsubscribe(self, *topics):
        _, mid = self.paho.unsubscribe(list(topics))
        return self.answer(mid)

    def publish(self, topic, payload, qos, retain=False, **values):
        """Waits for the end of the exchange; returns its reason code."""
        props = properties(PacketTypes.PUBLISH, **values) if values else None
        info = self.paho.publish(topic, payload, qos, retain, props)
        return self.answer(info.mid)

    def answer(self, mid):
        while True:
            answered, answer = self.acks.get(timeout=WAIT_MAX)
            if answered == mid:
                return answer

    def expect(self, topic, payload, qos, retain=False):
        message = self.messages.get(timeout=WAIT_MAX)
        expected = (topic, payload if isinstance(payload, bytes) else payload.encode(), qos, retain)
        equal(summary(message), expected)
        return message

    def end(self, reason=None):
        """DISCONNECT, and wait until the connection has ended."""
        self.paho.disconnect(reason)
        self.ends.get(timeout=WAIT_MAX)
        self.paho.loop_stop()

    def cut(self):
        """The connection ends without DISCONNECT, and stays away."""
        self.paho.socket().shutdown(socket.SHUT_RDWR)
        self.ends.get(timeout=WAIT_MAX)
        self.paho.loop_stop()


def summary(message):
    return message.topic, message.payload, message.qos, message.retain


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def qos(version, at):
    """Every QoS published to every QoS granted, in order, with payloads of any bytes."""
    subscriber, publisher = Client(version, f"{at}-sub"), Client(version, f"{at}-pub")
    for granted in range(3):
        equal(subscriber.subscribe(f"{at}/{granted}/#", granted), granted)
        for level in range(3):
            topic = f"{at}/{granted}/ünïcode/{level}"
            payloads = [bytes([n]) * n * 100 for n in range(30)]
            for payload in payloads:
                publisher.paho.publish(topic, payload, level)
            for payload in payloads:
                subscriber.expect(topic, payload, min(level, granted))
    large = b"large" * 60_000
    publisher.publish(f"{at}/2/large", large, 2)
    subscriber.expect(f"{at}/2/large", large, 2)
    subscriber.unsubscribe(f"{at}/2/#")
    publisher.publish(f"{at}/2/none", "none", 1)
    publisher.publish(f"{at}/1/last", "last", 1)
    subscriber.expect(f"{at}/1/last", "last", 1)
    publisher.end()
    subscriber.end()


def retained(version, at):
    publisher, live = Client(version, f"{at}-pub"), Client(version, f"{at}-live")
    live.watch(f"{at}/#", 1)
    for level in range(3):
        for payload in ["old", f"kept {level}"]:
            publisher.publish(f"{at}/{level}", payload, level, retain=True)
            live.expect(f"{at}/{level}", payload, min(level, 1))
    late = Client(version, f"{at}-late")
    for level in range(3):
        late.subscribe(f"{at}/{level}", 2)
        late.expect(f"{at}/{level}", f"kept {level}", level, True)
    if version == V5:
        late.subscribe(f"{at}/1", 2, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        late.subscribe(f"{at}/2", 2, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        late.subscribe(f"{at}/0", 2, retainAsPublished=True)
        late.expect(f"{at}/0", "kept 0", 0, True)
        publisher.publish(f"{at}/0", "as published", 1, retain=True)
        late.expect(f"{at}/0", "as published", 1, True)
        live.expect(f"{at}/0", "as published", 1)
    for level in range(3):
        publisher.publish(f"{at}/{level}", None, 1, retain=True)
        live.expect(f"{at}/{level}", "", 1)
        late.expect(f"{at}/{level}", "", 1, version == V5 and level == 0)
    after = Client(version, f"{at}-after")
    after.subscribe(f"{at}/#", 2)
    publisher.publish(f"{at}/live", "live", 2)
    after.expect(f"{at}/live", "live", 2)
    for client in [publisher, live, late, after]:
        client.end()


def will(version, at):
    watcher = Client(version, f"{at}-watch")
    watcher.watch(f"{at}/#", 2)
    values = {
        "WillDelayInterval": 0,
        "ContentType": "text/plain",
        "ResponseTopic": "answer",
        "CorrelationData": b"\0\xff",
        "MessageExpiryInterval": 100,
        "PayloadFormatIndicator": 1,
        "UserProperty": [("why", "lost"), ("why", "twice")],
    }
    for level in range(3):
        last = {"topic": f"{at}/{level}", "payload": "gone", "qos": level, "retain": level == 1}
        if version == V5:
            last["properties"] = properties(PacketTypes.WILLMESSAGE, **values)
        Client(version, f"{at}-dying", will=last).cut()
        message = watcher.expect(f"{at}/{level}", "gone", level)
        if version == V5:
            found = message.properties.json()
            del values["WillDelayInterval"]
            equal(found, properties(PacketTypes.PUBLISH, **values).json())
            values["WillDelayInterval"] = 0
    late = Client(version, f"{at}-late")
    late.subscribe(f"{at}/#", 2)
    late.expect(f"{at}/1", "gone", 1, True)
    # An orderly end sends none, unless a v5 client asks for it.
    last = {"topic": f"{at}/last", "payload": "asked for", "qos": 1}
    Client(version, f"{at}-leaving", will=last).end()
    if version == V5:
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=0x04)
        Client(version, f"{at}-asking", will=last).end(reason)
        watcher.expect(f"{at}/last", "asked for", 1)
    late.publish(f"{at}/1", None, 1, retain=True)
    watcher.expect(f"{at}/1", "", 1)
    watcher.end()
    late.end()


def resume(version, at):
    first = Client(version, at, clean=False, expiry=60)
    equal(first.session_present, False)
    first.subscribe(f"{at}/#", 2)
    first.cut()
    publisher = Client(version, f"{at}-pub")
    expected = []
    for n in range(40):
        publisher.publish(f"{at}/{n}", f"waited {n}", n % 2 + 1)
        expected.append((f"{at}/{n}", f"waited {n}".encode(), n % 2 + 1, False))
    second = Client(version, at, clean=False, expiry=60)
    # MQTT 3.1 has no such flag.
    equal(second.session_present, version != paho.MQTTv31)
    # Each QoS in its order: paho shows a QoS 2 message when its exchange is over.
    seen = [summary(second.messages.get(timeout=WAIT_MAX)) for _ in expected]
    for level in [1, 2]:
        of_level = [[m for m in messages if m[2] == level] for messages in (seen, expected)]
        equal(*of_level)
    publisher.publish(f"{at}/live", "live", 1)
    second.expect(f"{at}/live", "live", 1)
    second.end()
    # A clean start ends the session.
    for clean in [True, False]:
        client = Client(version, at, clean=clean, expiry=0)
        equal(client.session_present, False)
        client.end()
    publisher.end()


def reconnects(version, at):
    """Exactly once, however often both connections break."""
    subscriber, publisher = (
        Client(version, f"{at}-{name}", clean=False, expiry=60, reconnects=True)
        for name in ["sub", "pub"]
    )
    subscriber.subscribe(f"{at}/#", 2)
    expected = [f"{n}".encode() for n in range(300)]
    sent = [publisher.paho.publish(f"{at}/t", payload, 2) for payload in expected]
    seen = []
    while len(seen) < len(expected):
        seen.append(subscriber.messages.get(timeout=WAIT_MAX).payload)
        if len(seen) % 40 == 20:
            for client in [publisher, subscriber]:
                # Both connect again by themselves; each break is awaited.
                client.paho.socket().shutdown(socket.SHUT_RDWR)
                client.connacks.get(timeout=WAIT_MAX)
    for info in sent:
        info.wait_for_publish(WAIT_MAX)
    publisher.publish(f"{at}/last", "last", 2)
    seen.append(subscriber.messages.get(timeout=WAIT_MAX).payload)
    equal(sorted(seen), sorted([*expected, b"last"]))
    publisher.end()
    subscriber.end()


def message_properties(version, at):
    """What only 5.0 has, on messages."""
    subscriber = Client(version, f"{at}-sub", values={"ReceiveMaximum": 3})
    subscriber.subscribe(f"{at}/#", 2, values={"SubscriptionIdentifier": 7})
    subscriber.subscribe(f"{at}/a/+", 2, values={"SubscriptionIdentifier": 300_000})
    publisher = Client(version, f"{at}-pub")
    alias_max = publisher.connack.TopicAliasMaximum
    sent = {
        "PayloadFormatIndicator": 1,
        "MessageExpiryInterval": 1000,
        "ContentType": "application/json",
        "ResponseTopic": f"{at}/answer",
        "CorrelationData": b"\1\0\2",
        "UserProperty": [("one", "1"), ("two", "zwei"), ("one", "again")],
    }
    for n in range(20):
        # An alias is named with the topic, then stands for it.
        topic = f"{at}/a/b" if n < 2 else ""
        publisher.publish(topic, str(n), n % 3, TopicAlias=alias_max - n % 2, **sent)
        found = subscriber.expect(f"{at}/a/b", str(n), n % 3).properties.json()
        equal(sorted(found.pop("SubscriptionIdentifier")), [7, 300_000])
        equal(found, properties(PacketTypes.PUBLISH, **sent).json())
    # Far more than the subscriber's window, at once.
    for n in range(60):
        publisher.paho.publish(f"{at}/many", str(n), 1)
    for n in range(60):
        subscriber.expect(f"{at}/many", str(n), 1)
    publisher.subscribe(f"{at}/own", 1, noLocal=True)
    publisher.publish(f"{at}/own", "own", 1)
    subscriber.expect(f"{at}/own", "own", 1)
    subscriber.publish(f"{at}/own", "of another", 1)
    publisher.expect(f"{at}/own", "of another", 1)
    publisher.end()
    subscriber.end()


def reasons(version, at):
    """What only 5.0 has: what the broker says of an outcome."""
    client = Client(version, at, expiry=30)
    equal(client.publish(f"{at}/nobody", "x", 1).value, 0x10)
    equal(client.publish("$SYS/mine", "x", 1).value, 0x87)
    equal(client.subscribe(f"{at}/x", 1), 1)
    equal([code.value for code in client.unsubscribe(f"{at}/x", f"{at}/y")], [0x00, 0x11])
    newer = Client(version, at, clean=False)
    equal(newer.session_present, True)
    equal(client.ends.get(timeout=WAIT_MAX).value, 0x8E)
    newer.end()
    nameless = Client(version, "")
    assert nameless.connack.AssignedClientIdentifier
    nameless.end()


STEPS = {
    paho.MQTTv31: [qos, retained, will, resume],
    paho.MQTTv311: [qos, retained, will, resume, reconnects],
    V5: [qos, retained, will, resume, reconnects, message_properties, reasons],
}
for protocol, steps in STEPS.items():
    for step in steps:
        try:
            step(protocol, f"paho{protocol}/{step.__name__}")
        except BaseException:
            print(f"in {step.__name__} of protocol version {protocol}")
            raise
        print(f"ok {protocol} {step.__name__}", flush=True)
