//! MQTT 5.0 section 2.2.2 read plainly, to compare the codec with: which property has which type, which
//! packet allows it, who may send it. Shares no code with the codec.

/// A kind of packet with a property block.
#[derive(Debug)]
pub(super) struct Place {
    name: &'static str,
    first: u8,
    /// What stands before the block's length and behind the block.
    before: &'static [u8],
    after: &'static [u8],
    /// Properties allowed, apart from User Property.
    allowed: &'static [u8],
    /// Allowed to servers only.
    server_only: &'static [u8],
    is_from_server: bool,
}

impl Place {
    #[rustfmt::skip]
    pub(super) const ALL: [Self; 15] = [
        place("CONNECT", 0x10, b"\0\x04MQTT\x05\x02\0\0", b"\0\x01c", &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x27]),
        place("will", 0x10, b"\0\x04MQTT\x05\x06\0\0\0\0\x01c", b"\0\x01w\0\x01p", &[1, 2, 3, 8, 9, 0x18]),
        place("CONNACK", 0x20, b"\0\0", b"", &[0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x27, 0x28, 0x29, 0x2A]).sent_by_servers(),
        place("PUBLISH", 0x30, b"\0\x01t", b"payload", &[1, 2, 3, 8, 9, 0x23, 0x0B]).but_server_only(&[0x0B]),
        place("PUBLISH by alias", 0x32, b"\0\0\0\x01", b"", &[1, 2, 3, 8, 9, 0x23, 0x0B]).but_server_only(&[0x0B]),
        place("PUBACK", 0x40, b"\0\x01\x10", b"", &[0x1F]),
        place("PUBREC", 0x50, b"\0\x01\x80", b"", &[0x1F]),
        place("PUBREL", 0x62, b"\0\x01\x92", b"", &[0x1F]),
        place("PUBCOMP", 0x70, b"\0\x01\0", b"", &[0x1F]),
        place("SUBSCRIBE", 0x82, b"\0\x01", b"\0\x01f\x01", &[0x0B]),
        place("SUBACK", 0x90, b"\0\x01", b"\0", &[0x1F]).sent_by_servers(),
        place("UNSUBSCRIBE", 0xA2, b"\0\x01", b"\0\x01f", &[]),
        place("UNSUBACK", 0xB0, b"\0\x01", b"\x11", &[0x1F]).sent_by_servers(),
        place("DISCONNECT", 0xE0, b"\x04", b"", &[0x11, 0x1C, 0x1F]).but_server_only(&[0x1C]),
        place("AUTH", 0xF0, b"\x18", b"", &[0x15, 0x16, 0x1F]),
    ];

    /// The packet with this block.
    pub(super) fn packet(&self, block: &[u8]) -> Vec<u8> {
        let length = variable_byte_integer(block.len());
        let body = [self.before, &length, block, self.after].concat();
        [&[self.first][..], &variable_byte_integer(body.len()), &body].concat()
    }

    /// Whether the packet may have these properties, whoever sends it.
    pub(super) fn allows(&self, block: &Block) -> bool {
        let once = |id: u8| block.ids.iter().filter(|other| **other == id).count() <= 1;
        let repeats = |id: u8| id == USER_PROPERTY || id == 0x0B && self.first & 0xF0 == 0x30;
        let has = |id| block.ids.contains(&id);
        block.ids.iter().all(|id| *id == USER_PROPERTY || self.allowed.contains(id))
            && block.ids.iter().all(|id| once(*id) || repeats(*id))
            && (has(0x15) || !has(0x16) && self.name != "AUTH")
            && (has(0x23) || self.name != "PUBLISH by alias")
    }

    /// Whether a client may send such a packet with these properties.
    pub(super) fn client_may(&self, block: &Block) -> bool {
        !self.is_from_server && block.ids.iter().all(|id| !self.server_only.contains(id))
    }

    /// Whether the properties are those of an application message.
    pub(super) fn is_message(&self) -> bool {
        self.first & 0xF0 == 0x30 || self.name == "will"
    }

    const fn sent_by_servers(self) -> Self {
        Self { is_from_server: true, ..self }
    }

    const fn but_server_only(self, server_only: &'static [u8]) -> Self {
        Self { server_only, ..self }
    }
}

const fn place(
    name: &'static str,
    first: u8,
    before: &'static [u8],
    after: &'static [u8],
    allowed: &'static [u8],
) -> Place {
    Place { name, first, before, after, allowed, server_only: &[], is_from_server: false }
}

/// The properties of a well-formed block.
pub(super) struct Block {
    /// Their identifiers, in order.
    pub(super) ids: Vec<u8>,
}

impl Block {
    /// `None` if the bytes are no properties, or a value is illegal wherever it stands.
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut ids = Vec::new();
        while let Some((&id, rest)) = bytes.split_first() {
            let len = match id {
                1 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => {
                    (*rest.first()? <= 1).then_some(1)?
                }
                0x13 | 0x22 => 2,
                0x21 | 0x23 => (number(rest, 2)? > 0).then_some(2)?,
                2 | 0x11 | 0x18 => 4,
                0x27 => (number(rest, 4)? > 0).then_some(4)?,
                0x0B => identifier_len(rest)?,
                9 | 0x16 => 2 + number(rest, 2)?,
                8 => string(rest).filter(|text| is_topic(text))?.len() + 2,
                3 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => string(rest)?.len() + 2,
                USER_PROPERTY => {
                    let name = string(rest)?.len() + 2;
                    name + string(&rest[name..])?.len() + 2
                }
                _ => return None,
            };
            bytes = rest.get(len..)?;
            ids.push(id);
        }
        Some(Self { ids })
    }
}

fn number(bytes: &[u8], len: usize) -> Option<usize> {
    Some(bytes.get(..len)?.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

/// Bytes of a Subscription Identifier in its fewest bytes, not 0.
fn identifier_len(bytes: &[u8]) -> Option<usize> {
    let len = 1 + bytes.iter().take(4).position(|byte| byte & 0x80 == 0)?;
    (bytes[len - 1] != 0).then_some(len)
}

fn string(bytes: &[u8]) -> Option<&str> {
    let text = bytes.get(2..2 + number(bytes, 2)?)?;
    str::from_utf8(text).ok().filter(|text| !text.contains('\0'))
}

/// Whether a text is a Topic Name (section 4.7), of at most 256 levels.
pub(super) fn is_topic(text: &str) -> bool {
    !text.is_empty() && !text.contains(['+', '#', '\0']) && text.matches('/').count() < 256
}

/// Whether a text is a Topic Filter (sections 4.7 and 4.8.2), of at most 256 levels, behind at most one
/// prefix.
pub(super) fn is_filter(text: &str) -> bool {
    let mut levels: Vec<&str> = text.split('/').collect();
    let prefix_levels = match levels[0] {
        "$share" => 2,
        "$queue" | "$exclusive" | "$request" => 1,
        _ => 0,
    };
    if prefix_levels > 0 {
        let is_named = |name: &str| !name.is_empty() && !name.contains(['+', '#', '\0']);
        let (prefix, rest) = levels.split_at(prefix_levels.min(levels.len()));
        let is_prefix =
            ["$share", "$queue", "$exclusive", "$request"].contains(rest.first().unwrap_or(&""));
        if rest.is_empty() || rest == [""] || is_prefix || !is_named(prefix[prefix_levels - 1]) {
            return false;
        }
        levels.drain(..prefix_levels);
    }
    let last = levels.len() - 1;
    let is_level = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at == last,
        level => !level.contains(['+', '#', '\0']),
    };
    !text.is_empty() && last < 256 && levels.iter().enumerate().all(is_level)
}

/// Whether a Topic Filter, without its share, matches a Topic Name (section 4.7).
pub(super) fn matches(pattern: &str, topic: &str) -> bool {
    fn levels_match(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            (["#"], _) => true,
            ([level, pattern @ ..], [name, topic @ ..]) => {
                (*level == "+" || level == name) && levels_match(pattern, topic)
            }
            (pattern, topic) => pattern.is_empty() && topic.is_empty(),
        }
    }
    let pattern_levels: Vec<_> = pattern.split('/').collect();
    let topic_levels: Vec<_> = topic.split('/').collect();
    let passes_by = topic.starts_with('$') && pattern.starts_with(['+', '#']);
    !passes_by && levels_match(&pattern_levels, &topic_levels)
}

fn variable_byte_integer(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7F {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

const USER_PROPERTY: u8 = 0x26;
