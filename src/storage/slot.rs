//! What is kept in memory of a delivery that waits on disk: 12 bytes, as there may be millions.

use super::{Hold, Position};

/// The state of one delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// It waits, or is in flight and may have been sent: the message is in the log.
    Message(Hold),
    /// PUBREC has come: PUBREL is due.
    Received,
    /// It is over.
    Done,
}

/// [`Delivery`] in 12 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    segment: u32,
    offset: u32,
    bytes: u32,
}

const _: () = assert!(size_of::<Slot>() == 12);

impl From<Delivery> for Slot {
    fn from(delivery: Delivery) -> Self {
        // Segments are counted from 1.
        match delivery {
            Delivery::Message(Hold { at: Position { segment, offset }, bytes }) => {
                Self { segment, offset, bytes }
            }
            Delivery::Received => Self { segment: 0, offset: 1, bytes: 0 },
            Delivery::Done => Self { segment: 0, offset: 0, bytes: 0 },
        }
    }
}

impl Slot {
    /// The state.
    pub const fn get(self) -> Delivery {
        let Self { segment, offset, bytes } = self;
        match (segment, offset) {
            (0, 0) => Delivery::Done,
            (0, _) => Delivery::Received,
            _ => Delivery::Message(Hold { at: Position { segment, offset }, bytes }),
        }
    }
}
