//! Payloads that say which message they are of, and whose every byte is known.

/// What a payload says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Payload {
    pub(crate) publisher: u16,
    pub(crate) sequence: u32,
    /// Delayed by a time of its own.
    pub(crate) unordered: bool,
}

impl Payload {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = b"msg".to_vec();
        bytes.push(u8::from(self.unordered));
        bytes.extend(self.publisher.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend((0..self.padding()).map(|at| self.filler(at)));
        bytes
    }

    /// `None` for anything that is not a whole and intact payload.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (head, padding) = bytes.split_at_checked(10)?;
        let payload = Self {
            publisher: u16::from_be_bytes([head[4], head[5]]),
            sequence: u32::from_be_bytes([head[6], head[7], head[8], head[9]]),
            unordered: head[3] == 1,
        };
        let is_whole = padding.len() == payload.padding();
        let is_intact = padding.iter().enumerate().all(|(at, byte)| *byte == payload.filler(at));
        (&head[..3] == b"msg" && is_whole && is_intact).then_some(payload)
    }

    /// Most are short; some take more than a page.
    fn padding(&self) -> usize {
        match self.sequence % 50 {
            49 => 5000,
            few => few as usize * 4,
        }
    }

    fn filler(&self, at: usize) -> u8 {
        (self.sequence as usize).wrapping_mul(31).wrapping_add(at) as u8
    }
}
