"""paho-mqtt over WebSocket in TLS. Arguments: the port and the CA's file."""

import queue
import ssl
import sys

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

PORT, CA = int(sys.argv[1]), sys.argv[2]
SIZES = [0, 1, 125, 126, 65_535, 65_536, 300_000]

for version in (paho.MQTTv311, paho.MQTTv5):
    subscribed, messages = queue.Queue(), queue.Queue()
    client = paho.Client(
        CallbackAPIVersion.VERSION2, f"paho-{version}", protocol=version, transport="websockets"
    )
    client.tls_set(ca_certs=CA, cert_reqs=ssl.CERT_REQUIRED)
    client.ws_set_options(path="/mqtt")
    client.on_subscribe = lambda *_: subscribed.put(True)
    client.on_message = lambda _c, _u, message: messages.put(message.payload)
    client.connect("localhost", PORT)
    client.loop_start()
    client.subscribe(f"t/{version}", qos=2)
    assert subscribed.get(timeout=20)
    for qos in (0, 1, 2):
        for size in SIZES:
            payload = bytes(at % 251 for at in range(size))
            client.publish(f"t/{version}", payload, qos=qos)
            assert messages.get(timeout=20) == payload, f"{size} bytes at QoS {qos}"
    client.disconnect()
    client.loop_stop()
