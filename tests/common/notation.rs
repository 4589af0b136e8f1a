//! A notation for literal packets.

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
