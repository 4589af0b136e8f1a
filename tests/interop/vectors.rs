//! The cases of mqtt-packet's own test, the codec under MQTT.js and Aedes, through ringmq's codec: what
//! decodes there decodes here to the same values, what is encoded there is encoded here to the same
//! bytes, what is refused there is refused here; and where the two differ, which of them is right.

use ringmq::codec::{Frame, Packet, Version, decode, next_frame};
use serde_json::Value;

use crate::packages::{packages, run};
use crate::vectors_json::{encode, fold, to_json, unfold, version_of};

/// Where ringmq and mqtt-packet part, and why ringmq does as it does. The names are mqtt-packet's.
const DIFFERENCES: &[Difference] = &[
    Difference {
        kind: "decode",
        name: "connect MQTT bridge 131",
        ours: Ours::DoesNotShow("bridgeMode"),
        reason: "the top bit of the level is no part of the standard; bridges that set it are let in",
    },
    Difference {
        kind: "encode",
        name: "connect MQTT bridge 131",
        ours: Ours::EncodesAnother,
        reason: "the same: the level is written as the standard has it",
    },
    Difference {
        kind: "decode",
        name: "connect MQTT bridge 132",
        ours: Ours::Refuses,
        reason: "level 4 belongs to the name MQTT, not to MQIsdp (MQTT-3.1.2-1)",
    },
    Difference {
        kind: "encode",
        name: "connect MQTT bridge 132",
        ours: Ours::Refuses,
        reason: "the same",
    },
    Difference {
        kind: "decode",
        name: "Version 4 CONACK in Version 5 mode",
        ours: Ours::Refuses,
        reason: "1 is no Connect Reason Code of 5.0, and the Property Length is missing (3.2.2)",
    },
    Difference {
        kind: "decode",
        name: "Version 5 CONNACK test 1",
        ours: Ours::Refuses,
        reason: "the Connect Reason Code is not optional (3.2.2)",
    },
    Difference {
        kind: "decode",
        name: "Version 5 CONNACK test 2",
        ours: Ours::Refuses,
        reason: "the Property Length is not optional in CONNACK (3.2.2.3.1)",
    },
    Difference {
        kind: "decode",
        name: "connack MQTT 5 with properties",
        ours: Ours::Refuses,
        reason: "a Maximum QoS of 2 is a protocol error (3.2.2.3.4)",
    },
    Difference {
        kind: "decode",
        name: "connack MQTT 5 with properties and doubled user properties",
        ours: Ours::Refuses,
        reason: "the same",
    },
    Difference {
        kind: "encode",
        name: "Version 5 DISCONNECT test 3 generate",
        ours: Ours::EncodesAnother,
        reason: "shorter: a reason of 0 without properties is left out (3.14.2.1)",
    },
    Difference {
        kind: "encode",
        name: "disconnect MQTT 5 with no properties",
        ours: Ours::EncodesAnother,
        reason: "the same",
    },
    Difference {
        kind: "encode",
        name: "puback with reason and no MQTT 5 properties",
        ours: Ours::EncodesAnother,
        reason: "shorter: an empty property block is left out (3.4.2.2.1)",
    },
    Difference {
        kind: "refuse",
        name: "Cannot parse username",
        ours: Ours::Accepts,
        reason: "MQTT 3.1 lets Remaining Length prevail over the User Name Flag (3.1 there)",
    },
];

struct Difference {
    kind: &'static str,
    name: &'static str,
    ours: Ours,
    reason: &'static str,
}

/// What ringmq does instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ours {
    /// Their bytes are none that it takes.
    Refuses,
    /// It takes as one packet what they refuse.
    Accepts,
    /// Its bytes differ and decode to the same packet.
    EncodesAnother,
    /// It decodes all but this field.
    DoesNotShow(&'static str),
}

/// One case.
struct Case {
    kind: String,
    name: String,
    bytes: String,
    version: Version,
    value: Value,
}

impl Case {
    fn parse(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let version = version_of(&value["version"]);
        Self { kind: text("kind"), name: text("name"), bytes: text("bytes"), version, value }
    }

    fn difference(&self) -> Option<&'static Difference> {
        DIFFERENCES.iter().find(|meant| meant.kind == self.kind && meant.name == self.name)
    }

    /// What is wrong, if anything is.
    fn check(&self) -> Result<(), String> {
        let ours = self.difference().map(|difference| difference.ours);
        match self.kind.as_str() {
            "decode" => self.check_decode(ours),
            "encode" => self.check_encode(ours),
            "refuse" => match packets(self.version, &unfold(&self.bytes)) {
                Err(_) if ours.is_none() => Ok(()),
                Ok(packets) if ours == Some(Ours::Accepts) && packets.len() == 1 => Ok(()),
                other => Err(format!("is {other:?}")),
            },
            "stream" => self.check_stream(),
            // Objects that hold what ringmq's types cannot: a packet identifier that is a text.
            "unsayable" => Ok(()),
            other => Err(format!("is of an unknown kind, {other}")),
        }
    }

    fn check_decode(&self, ours: Option<Ours>) -> Result<(), String> {
        let mut expected = self.value["packet"].clone();
        if let Some(Ours::DoesNotShow(field)) = ours {
            let removed = expected.as_object_mut().and_then(|object| object.remove(field));
            removed.ok_or_else(|| format!("has no {field}"))?;
        }
        match (packets(self.version, &unfold(&self.bytes)), ours) {
            (Err(_), Some(Ours::Refuses)) => Ok(()),
            (_, Some(Ours::Refuses)) => Err("is not refused".to_owned()),
            (Err(error), _) => Err(error),
            (Ok(decoded), _) => same(&[expected], &decoded),
        }
    }

    fn check_encode(&self, ours: Option<Ours>) -> Result<(), String> {
        let bytes = unfold(&self.bytes);
        let encoded = encode(self.version, &self.value["packet"]);
        match (encoded == bytes, ours) {
            (true, None) => Ok(()),
            (false, Some(Ours::Refuses)) if packets(self.version, &bytes).is_err() => Ok(()),
            (false, Some(Ours::EncodesAnother)) => {
                let mut theirs = packets(self.version, &bytes)?;
                let ours = packets(self.version, &encoded)?;
                // A shorter form says the same in fewer bytes.
                if let (Some(theirs), Some(ours)) = (theirs.first_mut(), ours.first()) {
                    theirs["length"] = ours["length"].clone();
                }
                same(&theirs, &ours)
            }
            _ => Err(format!("encodes to\n  {}\nexpected\n  {}", fold(&encoded), self.bytes)),
        }
    }

    /// The bytes come in chunks, and so do the packets, up to an error if there is one.
    fn check_stream(&self) -> Result<(), String> {
        let expected = self.value["packets"].as_array().ok_or("has no packets")?;
        let chunks = self.value["chunks"].as_array().ok_or("has no chunks")?;
        let (mut received, mut decoded, mut version) = (Vec::new(), Vec::new(), self.version);
        let mut failed = false;
        for chunk in chunks {
            received.extend(unfold(chunk.as_str().unwrap_or_default()));
            let taken = take_packets(&mut version, &received, &mut decoded);
            failed |= taken.is_err();
            received.drain(..taken.unwrap_or(0));
        }
        if failed != (self.value["failed"] == true) {
            return Err(format!("failed: {failed}"));
        }
        same(expected, &decoded)
    }
}

#[test]
fn mqtt_packet_and_ringmq_agree() {
    let folder = packages().to_str().expect("a UTF-8 path");
    let lines = run("node", "vectors.mjs", &[folder]);
    let cases: Vec<Case> = lines.lines().map(Case::parse).collect();
    for (kind, count_min) in [("decode", 70), ("encode", 60), ("refuse", 55), ("stream", 6)] {
        let count = cases.iter().filter(|case| case.kind == kind).count();
        assert!(
            count >= count_min,
            "only {count} cases to {kind}: has mqtt-packet's test changed?"
        );
    }
    let mut problems = Vec::new();
    for case in &cases {
        if let Err(problem) = case.check() {
            let Case { kind, name, bytes, version, .. } = case;
            let noted = case.difference().map_or("", |difference| difference.reason);
            problems.push(format!("{kind} {name:?} ({version}, {bytes}): {problem}\n  {noted}"));
        }
    }
    for difference in DIFFERENCES {
        let meant = |case: &&Case| case.difference().is_some_and(|d| std::ptr::eq(d, difference));
        let count = cases.iter().filter(meant).count();
        if count != 1 {
            problems.push(format!("{} {:?} is {count} cases", difference.kind, difference.name));
        }
    }
    assert!(problems.is_empty(), "{} differ:\n\n{}", problems.len(), problems.join("\n\n"));
}

/// The packets in these bytes, and nothing but packets.
fn packets(version: Version, bytes: &[u8]) -> Result<Vec<Value>, String> {
    let mut packets = Vec::new();
    let mut version = version;
    match take_packets(&mut version, bytes, &mut packets)? {
        taken if taken == bytes.len() => Ok(packets),
        taken => Err(format!("{} bytes are left after {packets:?}", bytes.len() - taken)),
    }
}

/// Decodes the whole packets at the start of `bytes` and returns their bytes. A CONNECT sets the version
/// of those behind it.
fn take_packets(
    version: &mut Version,
    bytes: &[u8],
    packets: &mut Vec<Value>,
) -> Result<usize, String> {
    let mut taken = 0;
    while let Some(frame) = next_frame(&bytes[taken..], u32::MAX).map_err(|e| e.to_string())? {
        packets.push(decoded(version, &frame)?);
        taken += frame.len;
    }
    Ok(taken)
}

fn decoded(version: &mut Version, frame: &Frame<'_>) -> Result<Value, String> {
    let packet = decode(*version, frame).map_err(|error| error.to_string())?;
    if let Packet::Connect(connect) = &packet {
        *version = connect.version;
    }
    Ok(to_json(*version, frame, &packet))
}

/// Compares all fields. Properties may stand in any order.
fn same(expected: &[Value], decoded: &[Value]) -> Result<(), String> {
    let sorted = |packets: &[Value]| packets.iter().map(with_sorted_properties).collect::<Vec<_>>();
    if sorted(expected) == sorted(decoded) {
        return Ok(());
    }
    let texts = |packets: &[Value]| packets.iter().map(Value::to_string).collect::<Vec<_>>();
    let (expected, decoded) = (texts(expected).join("\n  "), texts(decoded).join("\n  "));
    Err(format!("decodes to\n  {decoded}\nexpected\n  {expected}"))
}

fn with_sorted_properties(packet: &Value) -> Value {
    let mut packet = packet.clone();
    for pointer in ["/properties", "/will/properties"] {
        if let Some(Value::Array(properties)) = packet.pointer_mut(pointer) {
            properties.sort_by_key(Value::to_string);
        }
    }
    packet
}
