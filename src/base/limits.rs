//! Every bound that is not configurable, in one place, with what happens at it.
//! The configurable ones are in [`crate::config::Limits`].

/// Shards in one process. More are refused at start-up.
pub const SHARDS_MAX: usize = 128;

/// Largest Remaining Length that MQTT can express (section 1.5.5).
pub const REMAINING_LENGTH_MAX: u32 = 268_435_455;

/// Longest UTF-8 string or binary field (section 1.5.4).
pub const STRING_BYTES_MAX: usize = 65_535;

/// Topic levels in a name or filter. Past it a PUBLISH is refused as a
/// malformed topic, a SUBSCRIBE likewise: one deep filter must not buy
/// thousands of trie nodes on every shard for 64 KiB of input.
pub const TOPIC_LEVELS_MAX: usize = 256;

/// Bytes of a packet before the connection is accepted. A larger CONNECT is
/// refused with 0x95: room for every field at its longest, but not for 256 MiB
/// from somebody unknown.
pub const CONNECT_BYTES_MAX: u32 = 512 * 1024;

const _: () = assert!(CONNECT_BYTES_MAX as usize > 6 * STRING_BYTES_MAX);
const _: () = assert!(CONNECT_BYTES_MAX < REMAINING_LENGTH_MAX);
