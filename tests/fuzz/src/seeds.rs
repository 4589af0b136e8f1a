//! Inputs to begin with, in the notation of the conformance tests: a packet of each type and version, and
//! for the other targets what their formats have to offer.

#[path = "../../common/notation.rs"]
mod notation;

use notation::wire;
use ringmq::{
    auth::scram::Server,
    base::{Output, PacketId, QoS, ShardId, WallTime},
    message::Identifiers,
    storage::{
        Attached, Boot, DelayedRecord, DeliveryNumber, Intake, MessageRecord, PublicationRecord,
        Record, SessionNumber, SessionRecord, Source, Target, WillRecord,
    },
    topic::SubscriptionOptions,
};

use crate::scram;

fn all(notations: &[&str]) -> Vec<Vec<u8>> {
    notations.iter().map(|notation| wire(notation)).collect()
}

pub(crate) fn packets() -> Vec<Vec<u8>> {
    all(&[
        // 3.1 and 3.1.1
        "10 ( 'MQIsdp' 03 02 003c 'c' )",
        "10 ( 'MQIsdp' 83 f6 0000 'c' 'w/t' 'bye' 'user' 'secret' )",
        "10 ( 'MQIsdp' 03 c2 003c 'c' 'user' )",
        "10 ( 'MQTT' 04 02 003c '' )",
        "10 ( 'MQTT' 04 ee 003c 'c' 'w/t' 'bye' 'user' 'secret' )",
        "10 ( 'MQTT' 06 02 003c 'c' ) 10 ( 'HTTP' 04 02 003c 'c' )",
        "20 ( 01 00 ) 20 ( 00 05 )",
        "30 ( 'a/b' `payload` ) 32 ( 'a/b' 0001 `payload` ) 3d ( 'a/b' ffff )",
        "40 ( 0001 ) 50 ( 0001 ) 62 ( 0001 ) 6a ( 0001 ) 70 ( 0001 )",
        "82 ( 000a 'a' 02 '+/#' 00 '$share/g/a' 01 ) 90 ( 000a 02 80 00 )",
        "a2 ( 000a 'a' '#' ) b0 ( 000a ) c0 00 d0 00 e0 00",
        "c0 80 00 30 ffffff7f 30 ffffffff 00 00",
        // 5.0
        "10 ( 'MQTT' 05 02 003c () 'c' )",
        "10 ( 'MQTT' 05 ee 003c ( 11 0000000a 21 0014 27 00001000 22 0005 19 01 17 00 26 'k' 'v' )
            'c' ( 18 00000005 01 01 02 00000010 03 'text' 08 'r/t' 09 'id' 26 'k' 'v' )
            'w/t' 'bye' 'user' 'secret' )",
        "10 ( 'MQTT' 05 42 003c ( 15 'SCRAM' 16 'data' ) 'c' 'secret' )",
        "20 ( 00 00 ( 11 0000000a 21 0014 24 01 25 00 27 00001000 12 'auto' 22 0005 1f 'r'
            26 'k' 'v' 28 00 29 00 2a 00 13 0014 1a 'i' 1c 's' 15 'm' 16 'd' ) )",
        "20 ( 00 87 () )",
        "30 ( 'a/b' () `payload` ) 32 ( '' 0001 ( 23 0001 ) `x` )",
        "3b ( 'a/b' 0001 ( 01 01 02 00000010 23 0001 08 'r/t' 09 'id' 26 'k' 'v' 0b 07 03 'text' ) `x` )",
        "40 ( 0001 10 ) 40 ( 0001 87 ( 1f 'r' 26 'k' 'v' ) ) 50 ( 0001 80 () ) 62 ( 0001 92 ) 70 ( 0001 92 )",
        "82 ( 000a ( 0b 07 26 'k' 'v' ) 'a' 2e '#' 10 ) 82 ( 000a () '$share/g/a' 01 )",
        "90 ( 000a ( 1f 'r' ) 02 87 a2 ) b0 ( 000a () 00 11 ) a2 ( 000a ( 26 'k' 'v' ) 'a' )",
        "e0 ( 04 ) e0 ( 8e ( 1f 'r' 1c 's' ) ) e0 ( 04 ( 11 00000001 ) )",
        "f0 ( 18 ( 15 'm' 16 'd' 1f 'r' ) ) f0 00",
    ])
}

pub(crate) fn transports() -> Vec<Vec<u8>> {
    all(&[
        "01 03 `PROXY TCP4 192.0.2.1 192.0.2.2 5555 1883`0d0a 1000",
        "01 05 `PROXY TCP6 2001:db8::1 ::1 1 2`0d0a 1000",
        "03 07 `PROXY UNKNOWN`0d0a `GET /mqtt HTTP/1.1`0d0a",
        "01 01 0d0a0d0a000d0a515549540a 21 11 0011 c0000208 c0000201 15b3 075b 02 0002 6162 1000",
        "01 0b 0d0a0d0a000d0a515549540a 21 11 001c c0000208 c0000201 15b3 075b 20 000d 01 00000000 22 0005 `alice` 1000",
        "01 02 0d0a0d0a000d0a515549540a 20 00 0000 1000",
        "02 09 `GET /mqtt HTTP/1.1`0d0a`Host: a`0d0a`Upgrade: websocket`0d0a`Connection: Upgrade`0d0a
            `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==`0d0a`Sec-WebSocket-Version: 13`0d0a
            `Sec-WebSocket-Protocol: mqtt`0d0a0d0a 82 82 01020304 0506",
        "04 01 82 82 37fa213d c000 02 81 37fa213d c0 89 80 00000000 80 81 37fa213d c0",
        "04 02 82 fe 007e 01020304 00 88 82 00000000 03e8",
        "04 03 82 ff 0000000000010000 01020304 00 81 80 00000000",
    ])
}

pub(crate) fn properties() -> Vec<Vec<u8>> {
    all(&[
        "00 11 0000000a 21 0014 27 00001000 22 0005 19 01 17 00 26 'k' 'v' 15 'm' 16 'd'",
        "01 18 00000005 01 01 02 00000010 03 'text' 08 'r/t' 09 'id' 26 'k' 'v' 26 'k' 'w'",
        "02 11 0000000a 21 0014 24 01 25 00 27 00001000 12 'auto' 22 0005 1f 'r' 28 00 29 00 2a 00",
        "02 13 0014 1a 'i' 1c 's' 15 'm' 16 'd'",
        "03 01 00 02 00000010 23 0001 08 'r/t' 09 'id' 26 'k' 'v' 0b 07 0b ffffff7f 03 'text'",
        "04 23 ffff 26 '' ''",
        "05 1f 'r'",
        "06 1f 'r' 26 'k' 'v'",
        "07 26 'k' 'v'",
        "08",
        "09 0b 8001",
        "0a 1f 'r'",
        "0b 26 'k' 'v'",
        "0c 1f 'r'",
        "0d 11 00000001 1f 'r' 1c 's'",
        "0e 15 'm' 16 'd' 1f 'r'",
        "03 08 'a/+' 23 0000",
    ])
}

/// See `targets/topics.rs`: operation, detail, text.
pub(crate) fn topics() -> Vec<Vec<u8>> {
    all(&[
        "00 01 `a/b` 0a 00 02 `a` 0a 00 03 `a!` 0a 00 04 `$s/a` 0a 00 05 `/` 0a 00 06 `b//c` 0a
         00 00 `#` 0a 00 41 `+/b` 0a 00 0a `a/#` 0a 00 01 `+/+/c` 0a 00 07 `$s/+` 0a 01 00 `a` 0a
         00 03 `+` 0a",
        "04 01 `a/+` 0a 04 02 `a/b` 0a 08 0b `#` 0a 14 01 `a/b` 0a 18 02 `+/#` 0a 02 00 `a/b` 0a
         10 01 `a/+` 0a 1c 01 `a/b` 0a 03 00 `a/b` 0a",
        "0c 05 `a/+` 0a 02 00 `a/b` 0a 0c 06 `a/b` 0a 10 03 `a/+` 0a 02 00 `a/b` 0a 10 80 `a/+` 0a
         02 00 `a/b` 0a",
        "04 01 `$share/g/a/+` 0a 04 12 `$share/g/a/+` 0a 08 03 `$share/h/#` 0a 02 00 `a/b` 0a
         14 11 `$share/g/a/+` 0a 02 00 `a/b` 0a 18 02 `$share/g/a/+` 0a 1c 01 `$share/g/a/+` 0a
         02 00 `a/b` 0a",
        "04 01 `$queue/a/+` 0a 04 02 `$queue/a/+` 0a 02 00 `a/b` 0a 18 00 `$queue/a/+` 0a 05 01 `$exclusive/a/+` 0a
         05 01 `a/+` 0a 14 01 `$exclusive/a/+` 0a 02 00 `a/b` 0a 10 01 `$exclusive/a/+` 0a 00 00 `$request/a` 0a",
        "04 01 `$share/l/a` 0a 04 02 `$share/l/a` 0a 04 03 `$share/l/a` 0a 00 6b `$share/l/a` 0a 00 42 `$share/l/a` 0a
         02 00 `a` 0a 04 01 `$share/s/a` 0a 04 02 `$share/s/a` 0a 04 01 `$share/c/a` 0a 04 02 `$share/t/#` 0a
         04 12 `$share/t/#` 0a 04 01 `$share/r/#` 0a 04 02 `$share/x/a` 0a 02 00 `a` 0a 02 00 `b` 0a",
        "04 00 `$queue` 0a 04 00 `$queue/` 0a 04 00 `$exclusive/$share/g/a` 0a 04 00 `$share/g/$queue/a` 0a
         04 00 `$request/#` 0a 04 00 `$request/$request` 0a 04 00 `$requests/a` 0a",
        "04 00 `$share/g/` 0a 04 00 `$share//a` 0a 04 00 `$share` 0a 04 00 `a/#/b` 0a 04 00 `a+` 0a
         04 00 `$share/+/a` 0a 00 00 `$sharea` 0a 04 00 `/+/` 0a",
    ])
}

/// See `targets/session.rs`: bounds, then operations.
pub(crate) fn session() -> Vec<Vec<u8>> {
    all(&[
        // messages_max, bytes_max, quota, whether identifiers come round
        "ff ffff 02 00  02 00 01 02 01 01 00 02 05 00 01 08 03 05 04 00 00 05 01 01 06 03 01 03 ff",
        "02 0100 00 00  00 01 04 00 01 04 00 01 04 00 00 03 03 01 07 03 05 04 00 00 03 05",
        "ff ffff ff ff  02 01 01 02 00 01 02 01 01 05 01 00 07 03 02 05 02 01 08 ff 03 ff",
        "05 0040 03 00  00 00 03 00 02 06 08 07 03 09 09 00 05 09 00 05 09 01 05 09 01 06",
    ])
}

/// See `targets/broker.rs`: shards, policy, then operations.
pub(crate) fn broker() -> Vec<Vec<u8>> {
    all(&[
        // Fan-out on one shard, at each QoS and to each version.
        "00 0000 0000  02 80 00 00  12 82 01 00  22 81 02 00  32 80 03 00
         05 01 00 02 02 00 05  15 00 00 03 01 00 05  25 00 00 01 00 00 05
         33 01 01 07 00  33 02 01 08 03  33 00 01 00 00  0e 08 ff 18 ff 28 ff 38 ff 0e 08 ff 38 ff 0e",
        // The same, traced.
        "01 c000 0000  02 80 00 00  12 82 01 00 22 81 02 00 0e 05 01 00 02 02 00 05 15 00 00 03 01 00 05 0e
         33 01 01 07 00 13 02 01 08 03 0d ff 0d ff 09 0a 19 0a 0c 02 0e 0b 00 13 01 01 09 00 0e",
        // Two shards, lanes moved one by one, a retained message, a shared subscription.
        "01 0000 0000  02 80 00 00  0d ff 0d ff  12 82 01 00  0d ff 0d ff  22 80 02 00 0d ff 0d ff
         13 10 01 01 00  0d ff  05 00 01 02 02 00 0a 01 00 05  0d ff 0d ff 0d ff 0d ff 0d ff 0d ff
         25 00 00 0b 01 00 05 0e 13 01 01 02 00  0d ff 0b 00 0d ff 0d ff 0e 06 02 0a 0e",
        // A session that is resumed, with a window of one, and taken over.
        "00 0000 0000  02 11 00 00 02 01 00  05 00 00 02 02 00 05  12 80 01 00
         13 02 00 01 00 13 02 00 02 00 13 01 00 03 00  09 0a 08 01 0b 01 13 01 00 04 00
         02 11 00 00 02 01 00 09 0a 08 ff 09 0a 08 ff 42 11 00 00 01 00 00 0e 4f 01 01 02",
        // Wills: delayed, retained, at a take-over; expiry; keep-alive.
        "01 0000 0000  02 b0 00 01 01 00 00 01 00 02 02 03  12 71 01 00 02 00 00 02 00 01 01 03
         22 80 02 00 25 00 00 02 02 00 05 0e 0b 00 1b 00 0c 02 0e 0c 03 0e 2f 01 01 00",
        // Aliases, expiry, refusals, limits reached.
        "00 0007 0000  02 80 00 00  03 23 01 01 00 00 03 a3 01 01 00 00 0e",
        "02 ffff 0000  02 11 00 00 01 01 03 12 80 01 00 22 82 02 00 05 01 02 02 02 00 00 05 00 0a 0a 00 05
         13 10 00 01 00 13 10 01 02 00 13 12 02 01 03 13 01 00 01 04 0e 2f 04 01 01 ff 00 0e",
        // A full lane: publishers wait.
        "01 0000 0000  02 80 00 00 12 80 01 00 22 82 02 00 0e 05 00 00 02 00 00 05 15 00 00 02 01 00 05 0e
         2f 04 00 00 ff 00 2f 04 00 00 ff 00 2f 04 01 01 ff 02 0d ff 0d ff 0e",
        // Bytes of packets in parts, garbage, and what is not for clients to send; logged.
        "00 8000 0000  00 00 01 05 100d00044d 01 0a 515454040200000001 63 01 04 82080001 01 06 0003 612f62 01 0e
         10 00 11 0f 10 0d 0004 4d515454 05 02 0000 00 0001 63 11 02 d000 20 00 21 03 474554",
        // The server ends.
        "01 0000 0000  02 80 00 00 12 82 01 00 05 00 00 02 00 00 05 0f 07 0e",
        // Authentication, in one step less and again; nobody gets in without; a wrong proof; another user.
        "00 0000 0002  02 98 01 00 00 00 00 00 08 00 0e 08 ff 0e 0f 08 00 00 00 0e 08 ff 0e 0f 08 01 00 04
         12 98 02 00 00 00 00 00 10 0e 08 ff 0e 18 ff 0e 18 ff 0e 15 00 00 08 01 00 05 0f 08 02 00 01
         22 98 03 00 00 00 00 00 0c 03 00 0e 28 ff 0e 32 98 04 00 00 00 00 00 08 01 0e 3f 08 01 00 04 0e
         42 80 00 00 0e",
        // Aliases towards a client, more topics than it has room for; packets that are too large to set one.
        "00 0000 0000  02 98 01 00 00 00 00 02 00 12 98 02 00 00 00 04 00 00 05 01 00 02 02 00 05 15 00 00 02 00 00 05
         22 82 03 00 23 00 08 00 00 23 00 08 00 00 23 00 09 00 00 23 00 02 00 00 23 00 08 00 03 23 00 09 00 03
         0e 23 01 09 00 00 23 01 08 01 00 0e 08 ff 18 ff 0e",
        "00 0000 0800  02 98 01 00 00 00 00 00 00 05 00 00 02 02 00 05 22 82 03 00 23 00 08 00 00 23 00 09 00 00
         23 00 08 00 00 23 00 09 00 00 23 00 09 00 00 23 00 09 00 00 0e",
        // Delayed publications and wills: at once, in time, refused; retained; more than there is room for.
        "01 0000 0000  02 80 01 00 12 80 02 00 0e 05 00 00 02 02 00 05 13 01 0b 00 00 13 01 0a 01 00 13 11 0c 02 00
         13 01 0d 03 00 13 01 0e 04 00 13 02 0f 05 00 0e 0c 02 0e 22 b0 03 00 00 00 00 00 00 01 0b 01 2b 00 0e 0c 02 0e",
        "00 0000 1000  02 80 01 00 03 01 0c 00 00 03 01 0c 01 00 03 01 0c 02 00 03 41 0c 03 00 00 0e",
        "00 0000 2000  02 80 01 00 03 01 0c 00 03 03 01 0b 01 03 0e 0c 02 0e",
        // Exclusive filters: taken, refused, given back by UNSUBSCRIBE, by the end of the session, in transit.
        "01 0000 0000  02 80 01 00 12 90 02 00 01 00 00 22 80 03 00 0e 05 00 02 12 00 02 13 00 02 14 00 02 05
         15 00 00 12 01 00 05 25 00 01 12 01 00 13 01 00 06 0e 06 12 13 0e 15 00 00 12 01 00 05 0d ff 1b 00 0d ff 0e
         25 00 00 12 01 00 05 2b 00 0e 33 00 00 00 00 0e",
        // Requests: registered, asked for with and without wildcards, with a payload, not registered, ended.
        "01 0000 0000  02 80 01 00 12 80 02 00 0e 13 11 00 00 00 13 11 01 01 00 0e 05 01 01 15 00 00 17 01 00 05
         03 01 10 00 01 03 01 13 01 01 03 01 12 02 01 03 01 10 03 00 0e 08 ff 03 01 11 04 01 06 15 16 0e 03 01 10 05 01 0e
         12 02 00 00 05 00 00 16 00 00 05 03 01 11 06 01 03 01 11 07 01 0b 00 0e",
        // $queue, and each strategy.
        "02 0000 4000  02 80 01 00 12 80 02 00 22 80 03 00 0e 05 00 02 10 01 00 18 01 00 19 01 00 05
         15 00 02 10 01 00 18 01 00 19 01 00 05 25 00 02 1a 01 00 1b 01 00 0a 00 00 05 05 00 02 1a 01 00 1b 01 00 11 00 00 05
         0e 33 01 00 00 00 32 80 04 00 33 01 00 00 00 33 02 01 01 00 33 01 00 02 00 33 01 02 03 00 0e 08 ff 18 ff 28 ff 0e
         1b 00 0e 33 01 00 04 00 0e 06 10 1a 0e 33 01 00 05 00 0e",
        // Automatic subscriptions, rewrite rules, an end for retained messages.
        "01 0000 001d  02 89 01 00 00 04 00 12 89 02 00 01 07 02 22 80 03 00 0e 23 01 00 00 00 23 11 03 01 00 23 11 01 02 00
         23 11 02 03 00 23 11 00 04 00 0e 05 00 02 03 01 00 06 01 00 07 01 00 05 0e 0c 02 0e 06 03 06 0e 0c 04 0e
         32 89 04 00 00 04 03 0e 33 11 01 00 00 0e",
        // Another server: for those that are connected at the end, when it is full, always.
        "00 0000 00a0  02 89 01 00 00 01 0e 0f 07 0e",
        "00 0400 00c0  02 89 01 00 00 03 12 89 02 00 00 03 22 89 03 00 00 01 32 80 04 00 42 82 00 00 0e",
        "00 0000 0060  02 80 01 00 12 82 02 00 22 81 03 00 0e",
        // What is not available.
        "00 0000 0700  02 80 01 00 05 01 00 00 00 00 05 12 80 02 00 15 00 00 02 00 00 05 22 80 03 00 25 00 00 10 00 00 05
         32 82 04 00 35 00 02 02 00 00 0a 00 00 00 00 00 05 0e",
    ])
}

/// See `targets/config.rs`: parts with a NUL between them.
pub(crate) fn config() -> Vec<Vec<u8>> {
    [
        "listen = [\"127.0.0.1:1883\", \"mqtt://[::1]\"]\nshards = 2\nlog_format = \"json\"\nlog_level = \"debug\"\n\
         ephemeral = true\ndata_dir = \"/x\"\ntrace_sample = 1000\n[limits]\nmaximum_qos = 1\ninflight_max = 0x10\n\
         queue_qos0 = true\nqueue_bytes_max = 1_000\nretain_available = false\n",
        "allow_anonymous = true\nlisten = \"0.0.0.0:1883, [::]:1883\"\n",
        "listen = [\"10.0.0.1:1\", \"127.0.0.1:1\", \"127.0.0.1:1\", 5, \"*:1\", \"1883\", \"::1\", \"ws://h\", \"mqtt://h/\"]\n",
        "[limit]\nx = 1\n[limits]\nmax_inflight = 1\nreceive_maximum = 0\n'listen' = 1\nlimits.x = {a = [1, {b = 2}]}\n",
        "shards = \nlog_level = \"loud\"\n\"\\u0061\" = '''x\n'''\na.b.c = 1979-05-27T07:32:00Z\n[[t]]\n",
        "=limits.inflight_max=100\0=listen=127.0.0.1:1\0=log_format=text\0=limits=1\0=x\0=shards=\"2\"",
        "$RINGMQ_LIMITS_INFLIGHT_MAX=5\0$RINGMQ_LISTEN=127.0.0.1:0\0$RINGMQ_SHARD=1\0$RINGMQ_PORT_1883_TCP=x\0$KUBERNETES_SERVICE_HOST=x\0$HOME=/",
        "-127.0.0.1:0\0-[::1]:1883\0-mqtt://127.0.0.1\0-localhost:1\0-'127.0.0.1:3'",
        "server_reference = \"b:1883 c:1883\"\nredirect = \"full\"\nresponse_information = \"answers/%c\"\npassword_file = \"/p\"\n\
         rewrite = [\"publish a/+/# => b/$1/%c/$2\", \"subscribe # => %u/$1\", \"all a => b\"]\n\
         retained_ttl = [\"a/# => 3600\", \"# => 0\"]\n\
         auto_subscribe = [\"c/%c => 1 no_local retain=new\", \"$share/g/%u => 2 retain_as_published retain=never\"]\n\
         [shared]\nstrategy = \"sticky\"\nstrategies = [\"jobs => least_inflight\", \"j => random\"]\n\
         [limits]\nclient_topic_aliases_max = 1\ndelayed_messages_max = 0\nwildcard_subscription_available = false\n",
        "rewrite = [\"a => b\", \"all $share/g/a => b\", \"publish + => $2\", \"publish a => +\", \"all  =>\"]\nretained_ttl = [\"a => +5\", \"a/#/b => 1\"]\n\
         auto_subscribe = [\"a\", \"a => 3\", \"$exclusive/a => 1\", \"$%c/a => 1\", \"$share/g/a => 1 no_local\", \"a => 1 x\"]\n\
         shared.strategies = [\"j\", \"j => best\", \"j => sticky\", \"j => random\"]\nredirect = \"never\"\n",
        "=rewrite=all a => b\0=retained_ttl=a => 5\0=auto_subscribe=a => 1\0$RINGMQ_SHARED_STRATEGIES=a => sticky\0=allow_anonymous=false\0=password_file=x",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

/// See `targets/passwords.rs`: a file, then messages, with a NUL between them.
pub(crate) fn passwords() -> Vec<Vec<u8>> {
    let line = scram::password_line();
    let credentials = scram::credentials();
    let mut server = Server::new([7; 32], ShardId(0), &credentials);
    let (_, answer) = server.begin(&credentials, scram::FIRST).expect("a first message");
    let last = scram::last(answer.as_bytes()).expect("the server's first message");
    let verifier = line.strip_prefix("user").expect("the user's line");
    let file = format!("# Users\n\n{line}\r\n us{verifier} \nus er,=\u{e9}{verifier}\n");
    let wrong = format!(
        "{line}\n{line}\nuser\n:{line}\nus\u{ad}er{verifier}\nu:SCRAM-SHA-256$4095:AA==$AA==:AA==\n\
         v:SCRAM-SHA-256$4096:$:\nw:SCRAM-SHA-256$-1:::\nx:md5\n\u{7}{verifier}\n#{verifier}\n"
    );
    vec![
        file.into_bytes(),
        wrong.into_bytes(),
        [b"\0", scram::FIRST, b"\0", &last[..]].concat(),
        b"\0n,,n=user,r=x\0c=biws,r=x,p=AAAA\0y,a=us=2Cer,n=us=2Cer,r=y,e=x\0,p=\0n,,m=x,n=user,r=x".to_vec(),
        b"\0p=tls-unique,,n=user,r=x\0n,a=other,n=user,r=x\0n,,n=us\xc2\xader,r=x\0c=biws,r=x\0\xff".to_vec(),
    ]
}

/// See `targets/acl.rs`: a file, then users, clients and topics, with a NUL between them.
pub(crate) fn acl() -> Vec<Vec<u8>> {
    [
        "# c\ntopic read a/#\ntopic deny a/b\nuser ann\ntopic readwrite $x/+\npattern write own/%u/%c\n\
         pattern deny own/+/x%c/#\n\0ann\0c\0own/ann/c\0\0c\0a/#\0ann\0a/b\0own/ann/xa/b/c\0ann\0c\0$x/y",
        "user\ntopic read a#\ntopic foo bar\npattern\n word",
        "[[rule]]\ndeny = \"subscribe\"\ntopics = [\"a/%c/#\", \"b\"]\nclient = [\"c\", \"d*\"]\n[[rule]]\n\
         allow = [\"all\"]\ntopics = \"#\"\nqos_max = 1\nretain = true\naddress = \"::/0\"\n[[rule]]\n\
         allow = \"publish\"\ntopics = \"$SYS/%u\"\nanonymous = true\n[[rule]]\nallow=\"receive\"\n\
         topics=\"+/+/a\"\nuser=\"*\"\0u\0c\0a/c/x\0\0d/e\0a/d/e\0u\0+\0b/c/a\0\0c\0$SYS/u\0u\0c\0+/+",
        "[[rule]]\nallow = 1\ntopics = []\nuserr = \"x\"\n[x]\n[[rule",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

/// See `targets/storage.rs`: a byte, then records behind their lengths.
pub(crate) fn storage() -> Vec<Vec<u8>> {
    let targets = [0, 1, 2].map(|number| Target {
        session: SESSION,
        delivery: DeliveryNumber(number),
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: Identifiers::from_elem(std::num::NonZeroU32::MIN, number as usize),
    });
    let publication = |is_retained| {
        Record::Publication(PublicationRecord {
            message: MESSAGE,
            is_retained,
            publisher: PUBLISHER,
            origin: Some((ShardId(1), 4)),
            targets: &targets,
        })
    };
    let of_session = deltas();
    let beside = intakes();
    vec![
        input(&[&[snapshot(), publication(true)], &of_session[..]].concat()),
        input(&[&[snapshot(), publication(false)], &beside[..]].concat()),
    ]
}

fn snapshot() -> Record<'static> {
    let options = SubscriptionOptions::default();
    Record::Session(SessionRecord {
        number: SESSION,
        client: "client",
        user_name: Some("user"),
        is_proven: true,
        groups: vec!["group"],
        address: Some(std::net::IpAddr::from([127, 0, 0, 1])),
        expiry_secs: 300,
        detached_at: Some(WallTime(8)),
        will: Some(WILL),
        subscriptions: vec![("a/#", options), (FILTER, options)],
        received: vec![PacketId::FIRST],
        first: DeliveryNumber(0),
        next: DeliveryNumber(3),
        sent: DELIVERY,
        done: vec![DeliveryNumber(1)],
        released: vec![DELIVERY],
    })
}

fn deltas() -> [Record<'static>; 8] {
    let (session, delivery, filter) = (SESSION, DELIVERY, FILTER);
    let (at, options) = (WallTime(6), SubscriptionOptions::default());
    let attached = Attached {
        session,
        user_name: None,
        is_proven: false,
        groups: Vec::new(),
        address: None,
        expiry_secs: 1,
        will: Some(WILL),
    };
    [
        Record::Attached(attached),
        Record::Subscribed { session, filter, options },
        Record::Unsubscribed { session, filter },
        Record::Done { session, delivery },
        Record::Received { session, delivery },
        Record::Released { session, packet_id: PacketId::FIRST },
        Record::Detached { session, at, expiry_secs: 2, will_due_at: Some(at), sent: delivery },
        Record::Ended { session },
    ]
}

fn intakes() -> [Record<'static>; 8] {
    let intake = |source| {
        Record::Intake(Intake {
            stamp: 5,
            source,
            client: Some("client"),
            chosen: vec![(FILTER, ShardId(1))],
            chosen_only: true,
            message: MESSAGE,
        })
    };
    let delayed = DelayedRecord {
        number: 3,
        due_at: WallTime(6),
        client: Some("client"),
        publisher: PUBLISHER,
        will_of: Some(SESSION),
        message: MESSAGE,
    };
    [
        Record::Delayed(delayed),
        intake(Source::Publisher(SESSION, PacketId::FIRST)),
        intake(Source::Delayed(3)),
        intake(Source::Will(SESSION)),
        intake(Source::PassedOn(None)),
        Record::Routed { stamp: 5 },
        Record::DelayedDone { number: 3 },
        Record::Boot(Boot { taken: vec![(ShardId(1), 5)], stamp: 5, ..Boot::default() }),
    ]
}

/// A byte, then each record behind its length.
fn input(records: &[Record<'_>]) -> Vec<u8> {
    let mut input = vec![7];
    for record in records {
        let at = input.len();
        input.push(0);
        let mut body = Output::default();
        record.encode(&mut body);
        input.extend(body.into_vec());
        input[at] = u8::try_from(input.len() - at - 1).expect("a small record");
    }
    input
}

const SESSION: SessionNumber = SessionNumber(1);
const DELIVERY: DeliveryNumber = DeliveryNumber(2);
const PUBLISHER: Option<(SessionNumber, PacketId)> = Some((SESSION, PacketId::FIRST));
const FILTER: &str = "$share/g/a/+";
const MESSAGE: MessageRecord<'static> = MessageRecord {
    topic: "a/b",
    properties: b"\x01\x01\x26\0\x01k\0\x01v",
    payload: b"payload",
    shared: None,
    qos: QoS::ExactlyOnce,
    retain: true,
    expires_at: Some(WallTime(9)),
};
const WILL: WillRecord<'static> = WillRecord {
    message: MESSAGE,
    message_expiry_secs: Some(5),
    delay_secs: 6,
    due_at: Some(WallTime(7)),
};
