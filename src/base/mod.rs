//! Values that every other module speaks in: identifiers, time, QoS, limits.
//!
//! Knows no protocol bytes, no I/O and no thread.

mod ids;
mod large_buffer;
pub mod limits;
mod memory;
mod output;
mod pace;
mod peer;
mod placement;
mod qos;
mod text;
mod time;

pub use ids::{ClientId, ConnId, ListenerId, PacketId, RetainId, SessionKey, ShardId, ShardSet};
pub use large_buffer::{give_back_some, share_buffer};
pub use memory::{MemoryGauge, MemoryLevel, MemoryNews};
pub use output::Output;
pub use pace::{Pace, Spent};
pub use peer::{Peer, source};
pub use placement::home_of;
pub use qos::QoS;
pub use text::Text;
pub use time::{Time, TimeOrigin, WallTime};
