"""aiomqtt or gmqtt against a broker on a port of this machine. Arguments: which of them, the port.

Prints a line for each step that holds, and ends with an error at the first that does not.
"""

import asyncio
import logging
import socket
import sys

LIBRARY, PORT = sys.argv[1], int(sys.argv[2])
HOST, WAIT_MAX = "127.0.0.1", 20
V311, V5 = 4, 5


class Aiomqtt:
    """One connection of aiomqtt."""

    # paho's names for what gmqtt and the steps below call otherwise.
    NAMES = {
        "content_type": "ContentType",
        "response_topic": "ResponseTopic",
        "correlation_data": "CorrelationData",
        "message_expiry_interval": "MessageExpiryInterval",
        "payload_format_id": "PayloadFormatIndicator",
        "user_property": "UserProperty",
        "subscription_identifier": "SubscriptionIdentifier",
        "session_expiry_interval": "SessionExpiryInterval",
        "will_delay_interval": "WillDelayInterval",
        "receive_maximum": "ReceiveMaximum",
        "topic_alias": "TopicAlias",
    }
    session_present = None  # It does not tell.

    def __init__(self, version, client_id, clean=True, will=None, **values):
        import aiomqtt
        from paho.mqtt.packettypes import PacketTypes

        self.version, self.types = version, PacketTypes
        if will is not None:
            will_properties = self.properties(PacketTypes.WILLMESSAGE, will.pop("values", {}))
            will = aiomqtt.Will(**will, properties=will_properties)
        if version == V5:
            how = {"clean_start": clean, "properties": self.properties(PacketTypes.CONNECT, values)}
        else:
            how = {"clean_session": clean}
        how["protocol"] = aiomqtt.ProtocolVersion(version)
        self.client = aiomqtt.Client(
            HOST, PORT, identifier=client_id, will=will, timeout=WAIT_MAX, **how
        )

    def properties(self, packet, values):
        from paho.mqtt.properties import Properties

        if self.version != V5:
            return None
        made = Properties(packet)
        for name, value in values.items():
            setattr(made, self.NAMES[name], value)
        return made

    async def connect(self):
        await self.client.__aenter__()
        self.messages = aiter(self.client.messages)
        return self

    async def subscribe(self, topic, qos, retain_handling_options=0, identifier=None, **options):
        from paho.mqtt.subscribeoptions import SubscribeOptions

        if self.version != V5:
            return (await self.client.subscribe(topic, qos))[0]
        names = {"no_local": "noLocal", "retain_as_published": "retainAsPublished"}
        options = {names[name]: value for name, value in options.items()}
        options = SubscribeOptions(qos, retainHandling=retain_handling_options, **options)
        values = {} if identifier is None else {"subscription_identifier": identifier}
        values = self.properties(self.types.SUBSCRIBE, values)
        granted = await self.client.subscribe(topic, options=options, properties=values)
        return granted[0].value

    async def unsubscribe(self, topic):
        await self.client.unsubscribe(topic)

    async def publish(self, topic, payload, qos, retain=False, **values):
        values = self.properties(self.types.PUBLISH, values)
        await self.client.publish(topic, payload, qos, retain, properties=values)

    async def message(self):
        """As (topic, payload, qos, retain), and its properties."""
        message = await asyncio.wait_for(anext(self.messages), WAIT_MAX)
        values = {}
        if self.version == V5:
            for name, paho_name in self.NAMES.items():
                if hasattr(message.properties, paho_name):
                    values[name] = getattr(message.properties, paho_name)
        return (str(message.topic), message.payload, message.qos, message.retain), values

    async def end(self):
        await self.client.__aexit__(None, None, None)

    async def cut(self):
        """The connection ends without DISCONNECT, which the library itself never does."""
        self.client._client.socket().shutdown(socket.SHUT_RDWR)
        try:
            await self.message()
        except Exception:
            pass


class Gmqtt:
    """One connection of gmqtt."""

    def __init__(self, version, client_id, clean=True, will=None, **values):
        import gmqtt
        from gmqtt.storage import PersistentStorage

        self.version = version
        self.unacknowledged = PersistentStorage()
        if will is not None:
            values_of_will = will.pop("values", {})
            will = gmqtt.Message(**will, **values_of_will)
        self.client = gmqtt.Client(
            client_id,
            clean_session=clean,
            will_message=will,
            persistent_storage=self.unacknowledged,
            **values,
        )
        self.client.set_config({"reconnect_retries": 0})
        self.messages, self.granted, self.unsubscribed = (asyncio.Queue() for _ in range(3))
        self.client.on_connect = self.on_connect
        self.client.on_message = lambda _, *message: self.messages.put_nowait(message)
        self.client.on_subscribe = lambda _, mid, qos, values: self.granted.put_nowait(qos)
        self.client.on_unsubscribe = lambda _, mid, qos: self.unsubscribed.put_nowait(qos)

    def on_connect(self, _, flags, result, values):
        self.session_present = flags == 1

    async def connect(self):
        await asyncio.wait_for(self.client.connect(HOST, PORT, version=self.version), WAIT_MAX)
        return self

    async def subscribe(self, topic, qos, identifier=None, **options):
        if identifier is not None:
            options["subscription_identifier"] = identifier
        self.client.subscribe(topic, qos, **options)
        return (await asyncio.wait_for(self.granted.get(), WAIT_MAX))[0]

    async def unsubscribe(self, topic):
        self.client.unsubscribe(topic)
        await asyncio.wait_for(self.unsubscribed.get(), WAIT_MAX)

    async def publish(self, topic, payload, qos, retain=False, **values):
        self.client.publish(topic, payload, qos, retain, **values)
        await asyncio.wait_for(self.unacknowledged.wait_empty(), WAIT_MAX)

    async def message(self):
        """As (topic, payload, qos, retain), and its properties."""
        topic, payload, qos, values = await asyncio.wait_for(self.messages.get(), WAIT_MAX)
        several = ["user_property", "subscription_identifier"]
        values = {k: v if k in several or k in ["dup", "retain"] else v[0] for k, v in values.items()}
        del values["dup"]
        return (topic, bytes(payload), qos, bool(values.pop("retain"))), values

    async def end(self):
        await self.client.disconnect()

    async def cut(self):
        """The connection ends without DISCONNECT, which the library itself never does."""
        self.client.stop_reconnect()
        self.client._connection._transport.abort()


Client = {"aiomqtt": Aiomqtt, "gmqtt": Gmqtt}[LIBRARY]


async def connected(version, client_id, **options):
    return await Client(version, client_id, **options).connect()


async def expect(client, topic, payload, qos, retain=False):
    payload = payload if isinstance(payload, bytes) else payload.encode()
    message, values = await client.message()
    equal(message, (topic, payload, qos, retain))
    return values


async def watch(client, topic_filter, qos):
    """A subscription with wildcards after which no message comes as a retained one any more: what a
    later subscription finds comes after what the earlier one has found."""
    topic = f"settled/{topic_filter.removesuffix('/#')}"
    await client.publish(topic, "settled", 1, retain=True)
    await client.subscribe(topic_filter, qos)
    await client.subscribe(topic, 1)
    await expect(client, topic, "settled", 1, True)


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


async def qos(version, at):
    """Every QoS published to every QoS granted, in order, with payloads of any bytes."""
    subscriber = await connected(version, f"{at}-sub")
    publisher = await connected(version, f"{at}-pub")
    for granted in range(3):
        equal(await subscriber.subscribe(f"{at}/{granted}/#", granted), granted)
        for level in range(3):
            topic = f"{at}/{granted}/ünïcode/{level}"
            payloads = [bytes([n]) * n * 100 for n in range(30)]
            await asyncio.gather(*(publisher.publish(topic, p, level) for p in payloads))
            for payload in payloads:
                await expect(subscriber, topic, payload, min(level, granted))
    large = b"large" * 60_000
    await publisher.publish(f"{at}/2/large", large, 2)
    await expect(subscriber, f"{at}/2/large", large, 2)
    await subscriber.unsubscribe(f"{at}/2/#")
    await publisher.publish(f"{at}/2/none", "none", 1)
    await publisher.publish(f"{at}/1/last", "last", 1)
    await expect(subscriber, f"{at}/1/last", "last", 1)
    await publisher.end()
    await subscriber.end()


async def retained(version, at):
    publisher = await connected(version, f"{at}-pub")
    live = await connected(version, f"{at}-live")
    await watch(live, f"{at}/#", 1)
    for level in range(3):
        for payload in ["old", f"kept {level}"]:
            await publisher.publish(f"{at}/{level}", payload, level, retain=True)
            await expect(live, f"{at}/{level}", payload, min(level, 1))
    late = await connected(version, f"{at}-late")
    for level in range(3):
        await late.subscribe(f"{at}/{level}", 2)
        await expect(late, f"{at}/{level}", f"kept {level}", level, True)
    if version == V5:
        await late.subscribe(f"{at}/1", 2, retain_handling_options=1)
        await late.subscribe(f"{at}/2", 2, retain_handling_options=2)
        await late.subscribe(f"{at}/0", 2, retain_as_published=True)
        await expect(late, f"{at}/0", "kept 0", 0, True)
        await publisher.publish(f"{at}/0", "as published", 1, retain=True)
        await expect(late, f"{at}/0", "as published", 1, True)
        await expect(live, f"{at}/0", "as published", 1)
    for level in range(3):
        await publisher.publish(f"{at}/{level}", None, 1, retain=True)
        await expect(live, f"{at}/{level}", "", 1)
        await expect(late, f"{at}/{level}", "", 1, version == V5 and level == 0)
    after = await connected(version, f"{at}-after")
    await after.subscribe(f"{at}/#", 2)
    await publisher.publish(f"{at}/live", "live", 2)
    await expect(after, f"{at}/live", "live", 2)
    for client in [publisher, live, late, after]:
        await client.end()


async def will(version, at):
    watcher = await connected(version, f"{at}-watch")
    await watch(watcher, f"{at}/#", 2)
    values = {
        "content_type": "text/plain",
        "response_topic": "answer",
        "correlation_data": b"\0\xff",
        "message_expiry_interval": 100,
        "payload_format_id": 1,
        "user_property": [("why", "lost"), ("why", "twice")],
    }
    for level in range(3):
        last = {"topic": f"{at}/{level}", "payload": "gone", "qos": level, "retain": level == 1}
        if version == V5:
            last["values"] = {"will_delay_interval": 0, **values}
        await (await connected(version, f"{at}-dying", will=last)).cut()
        found = await expect(watcher, f"{at}/{level}", "gone", level)
        equal(found, values if version == V5 else {})
    late = await connected(version, f"{at}-late")
    await late.subscribe(f"{at}/#", 2)
    await expect(late, f"{at}/1", "gone", 1, True)
    # An orderly end sends none.
    last = {"topic": f"{at}/last", "payload": "not asked for", "qos": 1}
    await (await connected(version, f"{at}-leaving", will=last)).end()
    await late.publish(f"{at}/1", None, 1, retain=True)
    await expect(watcher, f"{at}/1", "", 1)
    await watcher.end()
    await late.end()


async def resume(version, at):
    expiry = {"session_expiry_interval": 60} if version == V5 else {}
    first = await connected(version, at, clean=False, **expiry)
    assert not first.session_present
    await first.subscribe(f"{at}/#", 2)
    await first.cut()
    publisher = await connected(version, f"{at}-pub")
    expected = []
    for n in range(40):
        await publisher.publish(f"{at}/{n}", f"waited {n}", n % 2 + 1)
        expected.append((f"{at}/{n}", f"waited {n}".encode(), n % 2 + 1, False))
    second = await connected(version, at, clean=False, **expiry)
    assert second.session_present in [True, None]
    seen = [(await second.message())[0] for _ in expected]
    # Each QoS in its order: paho shows a QoS 2 message when its exchange is over.
    for level in [1, 2]:
        equal(*([m for m in messages if m[2] == level] for messages in (seen, expected)))
    await publisher.publish(f"{at}/live", "live", 1)
    await expect(second, f"{at}/live", "live", 1)
    await second.end()
    # A clean start ends the session.
    for clean in [True, False]:
        client = await connected(version, at, clean=clean)
        assert not client.session_present
        await client.subscribe(f"{at}-new", 1)
        await publisher.publish(f"{at}/old", "old", 1)
        await publisher.publish(f"{at}-new", "new", 1)
        await expect(client, f"{at}-new", "new", 1)
        await client.end()
    await publisher.end()


async def properties(version, at):
    """What only 5.0 has, on messages."""
    subscriber = await connected(version, f"{at}-sub", receive_maximum=3)
    await subscriber.subscribe(f"{at}/#", 2, identifier=7)
    await subscriber.subscribe(f"{at}/a/+", 2, identifier=300_000)
    publisher = await connected(version, f"{at}-pub")
    sent = {
        "payload_format_id": 1,
        "message_expiry_interval": 1000,
        "content_type": "application/json",
        "response_topic": f"{at}/answer",
        "correlation_data": b"\1\0\2",
        "user_property": [("one", "1"), ("two", "zwei"), ("one", "again")],
    }
    for n in range(20):
        await publisher.publish(f"{at}/a/b", str(n), n % 3, topic_alias=1 + n % 2, **sent)
        found = await expect(subscriber, f"{at}/a/b", str(n), n % 3)
        equal(sorted(found.pop("subscription_identifier")), [7, 300_000])
        equal(found, sent)
    # Far more than the subscriber's window, at once.
    await asyncio.gather(*(publisher.publish(f"{at}/many", str(n), 1) for n in range(60)))
    for n in range(60):
        await expect(subscriber, f"{at}/many", str(n), 1)
    await publisher.subscribe(f"{at}/own", 1, no_local=True)
    await publisher.publish(f"{at}/own", "own", 1)
    await expect(subscriber, f"{at}/own", "own", 1)
    await subscriber.publish(f"{at}/own", "of another", 1)
    await expect(publisher, f"{at}/own", "of another", 1)
    await publisher.end()
    await subscriber.end()


STEPS = {V311: [qos, retained, will, resume], V5: [qos, retained, will, resume, properties]}


async def main():
    # What these libraries have to say of it is said by the steps.
    logging.disable(logging.CRITICAL)
    for version, steps in STEPS.items():
        for step in steps:
            try:
                await step(version, f"{LIBRARY}{version}/{step.__name__}")
            except BaseException:
                print(f"in {step.__name__} of protocol version {version}")
                raise
            print(f"ok {version} {step.__name__}", flush=True)


asyncio.run(main())
