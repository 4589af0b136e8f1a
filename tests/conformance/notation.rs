//! The notation that every other test is written in, against plain bytes.

use crate::common::{fields, wire};

#[test]
fn notation_gives_the_bytes_it_shows() {
    assert_eq!(wire("c0 00"), [0xc0, 0x00]);
    assert_eq!(wire("'a/b'"), [0, 3, b'a', b'/', b'b']);
    assert_eq!(wire("`a/b`"), *b"a/b");
    assert_eq!(wire("30 ( 'a' () `x` )"), [0x30, 5, 0, 1, b'a', 0, b'x']);
    let long = wire(&format!("( `{}` )", "x".repeat(200)));
    assert_eq!(long[..3], [0xc8, 0x01, b'x']);
    assert_eq!(long.len(), 202);
}

#[test]
fn properties_are_taken_apart() {
    let bytes = wire("( 21 0007 26 'k' 'v' 0b 8101 ) ff");
    let (found, rest) = fields(&bytes);
    let expected = [(0x21, wire("0007")), (0x26, wire("'k' 'v'")), (0x0b, wire("8101"))];
    assert_eq!(found, expected);
    assert_eq!(rest, [0xff]);
}
