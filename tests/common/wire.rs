//! Received bytes taken apart, and as text for failure messages.

/// `0a 1b`, with text beside it: for messages.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 160;
    let digits: Vec<String> = bytes.iter().take(SHOWN_MAX).map(|b| format!("{b:02x}")).collect();
    let text: String = bytes
        .iter()
        .take(SHOWN_MAX)
        .map(|&b| if b.is_ascii_graphic() { b as char } else { '.' })
        .collect();
    let more = if bytes.len() > SHOWN_MAX { " ..." } else { "" };
    format!("{}{more}  |{text}|", digits.join(" "))
}

/// What differs between expected and received bytes, with a mark below the first difference.
pub(crate) fn difference(expected: &[Option<u8>], received: &[u8]) -> String {
    let same = expected
        .iter()
        .zip(received)
        .take_while(|(expected, received)| expected.is_none_or(|byte| byte == **received))
        .count();
    let wanted: Vec<String> = expected
        .iter()
        .map(|byte| byte.map_or_else(|| "??".to_owned(), |byte| format!("{byte:02x}")))
        .collect();
    format!(
        "expected {}\nreceived {}\n         {}^^ byte {same} differs",
        wanted.join(" "),
        hex(received),
        "   ".repeat(same)
    )
}

/// The properties of a v5 packet as (identifier, value bytes), from the Property
/// Length at the start of `bytes`; and what follows them (section 2.2.2).
pub(crate) fn fields(bytes: &[u8]) -> (Vec<(u8, Vec<u8>)>, &[u8]) {
    let (length, start) = read_variable_byte_integer(bytes);
    let (mut block, rest) = bytes[start..].split_at(length);
    let mut found = Vec::new();
    while let Some((&identifier, value)) = block.split_first() {
        let string = |at: usize| 2 + usize::from(u16::from_be_bytes([value[at], value[at + 1]]));
        let size = match identifier {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
            0x13 | 0x21 | 0x22 | 0x23 => 2,
            0x02 | 0x11 | 0x18 | 0x27 => 4,
            0x0b => read_variable_byte_integer(value).1,
            0x26 => string(0) + string(string(0)),
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => string(0),
            unknown => panic!("unknown property {unknown:#04x} in {}", hex(bytes)),
        };
        found.push((identifier, value[..size].to_vec()));
        block = &value[size..];
    }
    (found, rest)
}

/// The value, and how many bytes it took.
pub(crate) fn read_variable_byte_integer(bytes: &[u8]) -> (usize, usize) {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (value, index + 1);
        }
    }
    panic!("no end of a Variable Byte Integer in {}", hex(bytes));
}
