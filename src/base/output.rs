//! Bytes on their way out: own ones, and large ones that are shared with others, each in its place.
//!
//! What goes to many is held once, and still counts fully for each of them. Knows neither what the bytes mean nor
//! where they go.

use bytes::Bytes;

/// Bytes to send or to write, in pieces.
#[derive(Clone, Debug, Default)]
pub struct Output {
    own: Vec<u8>,
    /// Rare, so behind one word.
    shared: Option<Box<AllShared>>,
}

/// What is shared, in its order.
#[derive(Clone, Debug, Default)]
struct AllShared {
    list: Vec<Shared>,
    bytes: usize,
}

/// Bytes that somebody else has as well.
#[derive(Clone, Debug)]
struct Shared {
    /// How many of the own bytes stand before it.
    own_before: usize,
    /// How many of all bytes stand before its end.
    end: usize,
    bytes: Bytes,
}

impl Output {
    /// Where own bytes are appended. What was there when something was shared last has to stay.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Appends bytes without copying them.
    pub fn share(&mut self, bytes: Bytes) {
        let shared = self.shared.get_or_insert_default();
        shared.bytes += bytes.len();
        let (own_before, end) = (self.own.len(), self.own.len() + shared.bytes);
        shared.list.push(Shared { own_before, end, bytes });
    }

    /// Appends all of `other`.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let mut from = 0;
        for shared in other.shared.map_or_else(Vec::new, |shared| shared.list) {
            self.own.extend_from_slice(&other.own[from..shared.own_before]);
            from = shared.own_before;
            self.share(shared.bytes);
        }
        self.own.extend_from_slice(&other.own[from..]);
    }

    /// All bytes, shared ones as often as they are here.
    pub fn len(&self) -> usize {
        self.own.len() + self.shared.as_ref().map_or(0, |shared| shared.bytes)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all bytes.
    pub fn clear(&mut self) {
        self.own.clear();
        self.shared = None;
    }

    /// Takes off what stands behind `at`, which lies within own bytes or at their end.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let (index, own_at) = self.place(at);
        let mut rest = Self::from(self.own.split_off(own_at));
        if let Some(shared) = &mut self.shared {
            for Shared { own_before, end, bytes } in shared.list.split_off(index) {
                debug_assert!(end - bytes.len() >= at, "within shared bytes");
                shared.bytes -= bytes.len();
                let behind = rest.shared.get_or_insert_default();
                behind.bytes += bytes.len();
                let (own_before, end) = (own_before - own_at, end - at);
                behind.list.push(Shared { own_before, end, bytes });
            }
        }
        rest
    }

    /// The bytes from `at` on that lie together; none at the end.
    pub fn piece(&self, at: usize) -> &[u8] {
        let (index, own_at) = self.place(at);
        let Some(next) = self.list().get(index) else {
            return self.own.get(own_at..).unwrap_or_default();
        };
        let start = next.end - next.bytes.len();
        if at < start { &self.own[own_at..next.own_before] } else { &next.bytes[at - start..] }
    }

    /// The own bytes from `at` on that lie together; none if shared ones stand there.
    pub fn own_piece(&mut self, at: usize) -> &mut [u8] {
        let (index, own_at) = self.place(at);
        let end = self.list().get(index).map_or(self.own.len(), |next| next.own_before);
        self.own.get_mut(own_at..end).unwrap_or_default()
    }

    /// All pieces, none of them empty.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let piece = self.piece(at);
            at += piece.len();
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// The room of its own bytes, for further use.
    pub fn into_room(mut self) -> Vec<u8> {
        self.own.clear();
        self.own
    }

    /// All bytes in one piece: a copy if some are shared.
    pub fn into_vec(self) -> Vec<u8> {
        if self.shared.is_none() { self.own } else { self.pieces().collect::<Vec<_>>().concat() }
    }

    fn list(&self) -> &[Shared] {
        self.shared.as_ref().map_or(&[], |shared| &shared.list)
    }

    /// Which shared bytes are the first that end behind `at`, and how many own ones stand before it if it is none of
    /// those.
    fn place(&self, at: usize) -> (usize, usize) {
        let list = self.list();
        let index = list.partition_point(|shared| shared.end <= at);
        let before = index.checked_sub(1).map(|last| &list[last]);
        (index, before.map_or(at, |last| last.own_before + (at - last.end)))
    }
}

impl From<Vec<u8>> for Output {
    fn from(own: Vec<u8>) -> Self {
        Self { own, shared: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence of numbers that is the same each time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % bound
        }
    }

    fn random_output(random: &mut Random) -> (Output, Vec<u8>) {
        let (mut output, mut expected) = (Output::default(), Vec::new());
        for _ in 0..random.below(8) {
            let bytes: Vec<u8> = (0..random.below(5)).map(|_| random.below(256) as u8).collect();
            expected.extend_from_slice(&bytes);
            match random.below(2) {
                0 => output.tail().extend_from_slice(&bytes),
                _ => output.share(bytes.into()),
            }
        }
        (output, expected)
    }

    #[test]
    fn bytes_come_in_their_order_wherever_they_are_split() {
        let mut random = Random(7);
        for _ in 0..2000 {
            let (output, expected) = random_output(&mut random);
            assert_eq!((output.len(), output.is_empty()), (expected.len(), expected.is_empty()));
            let (mut at, mut got) = (0, Vec::new());
            while at < output.len() {
                let piece = output.piece(at);
                assert!(!piece.is_empty(), "{output:?} at {at}");
                let taken = 1 + random.below(piece.len());
                got.extend_from_slice(&piece[..taken]);
                at += taken;
            }
            assert_eq!(got, expected, "{output:?}");
            assert!(output.piece(at).is_empty());
            assert_eq!(output.into_vec(), expected);
        }
    }

    #[test]
    fn one_can_be_put_behind_another() {
        let mut random = Random(8);
        for _ in 0..2000 {
            let (mut output, mut expected) = random_output(&mut random);
            let (other, more) = random_output(&mut random);
            output.append(other);
            output.tail().push(1);
            expected.extend(more);
            expected.push(1);
            assert_eq!(output.into_vec(), expected);
        }
    }

    #[test]
    fn one_can_be_taken_apart_between_its_pieces() {
        let mut random = Random(9);
        for _ in 0..2000 {
            let (mut output, mut expected) = random_output(&mut random);
            let (other, more) = random_output(&mut random);
            let at = output.len();
            output.append(other);
            assert_eq!(output.split_off(at).into_vec(), more);
            output.tail().push(1);
            output.own_piece(at)[0] += 1;
            expected.push(2);
            assert_eq!(output.into_vec(), expected);
        }
    }

    #[test]
    fn what_is_shared_is_not_copied_and_ends_with_the_last_who_has_it() {
        let bytes = Bytes::from(vec![7; 100]);
        let mut output = Output::from(b"ab".to_vec());
        output.share(bytes.clone());
        assert_eq!(output.piece(2).as_ptr(), bytes.as_ptr());
        assert!(!bytes.is_unique());
        output.clear();
        assert!(bytes.is_unique() && output.is_empty());
    }
}
