//! A notation for literal packets, and the way back for failure messages.

/// Bytes written out, readable: `10 ( 'MQTT' 05 02 003c () 'me' )`.
///
/// - `0a1b` hexadecimal digits, in pairs; blanks mean nothing
/// - `'text'` a UTF-8 string behind its two-byte length (section 1.5.4)
/// - `` `text` `` the same text without a length, as in a payload
/// - `( ... )` what is inside, behind its length as a Variable Byte Integer
///   (section 1.5.5): a packet's body, a block of properties
pub(crate) fn wire(notation: &str) -> Vec<u8> {
    let bytes = pattern(notation);
    bytes.into_iter().map(|byte| byte.expect("?? stands only in what is expected")).collect()
}

/// The same, where `??` stands for any byte (`None`).
pub(crate) fn pattern(notation: &str) -> Vec<Option<u8>> {
    let mut open: Vec<Vec<Option<u8>>> = vec![Vec::new()];
    let mut chars = notation.chars();
    while let Some(first) = chars.next() {
        let mut text = |end: char| chars.by_ref().take_while(|c| *c != end).collect::<String>();
        let bytes: Vec<Option<u8>> = match first {
            blank if blank.is_whitespace() => continue,
            '(' => {
                open.push(Vec::new());
                continue;
            }
            ')' => {
                let inner = open.pop().expect("the outermost list stays");
                let mut block = variable_byte_integer(inner.len());
                block.extend(inner);
                block
            }
            '\'' => {
                let text = text('\'');
                let length = u16::try_from(text.len()).expect("a string of at most 65,535 bytes");
                length.to_be_bytes().into_iter().chain(text.into_bytes()).map(Some).collect()
            }
            '`' => text('`').into_bytes().into_iter().map(Some).collect(),
            '?' => {
                assert_eq!(chars.next(), Some('?'), "?? in {notation}");
                vec![None]
            }
            high => {
                let low = chars.next().unwrap_or(' ');
                let value = |c: char| c.to_digit(16).unwrap_or_else(|| panic!("{c:?}: {notation}"));
                vec![Some((value(high) * 16 + value(low)) as u8)]
            }
        };
        open.last_mut().unwrap_or_else(|| panic!("unbalanced ): {notation}")).extend(bytes);
    }
    assert_eq!(open.len(), 1, "unbalanced (: {notation}");
    open.remove(0)
}

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

fn variable_byte_integer(mut value: usize) -> Vec<Option<u8>> {
    let mut bytes = Vec::new();
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            bytes.push(Some(low));
            return bytes;
        }
        bytes.push(Some(low | 0x80));
    }
}
