//! Large buffers, whose memory goes back to the system a piece at a time: for all of 64 MiB that takes 5 ms, in which
//! a shard serves nobody. Whoever has the last share of one leaves it to its thread, if that gives back in pieces.

use std::{cell::RefCell, mem};

use bytes::Bytes;

/// Makes a buffer one that can be shared, and that is given back in pieces if it is large.
pub fn share_buffer(buffer: Vec<u8>) -> Bytes {
    match buffer.capacity() {
        ..GIVEN_BACK_BYTES => buffer.into(),
        _ => Bytes::from_owner(LargeBuffer(buffer)),
    }
}

/// Gives back a piece of what this thread is left with, and from now on leaves it with the buffers that end on it.
/// Returns whether there is more.
pub fn give_back_some() -> bool {
    LEFT.with_borrow_mut(|left| {
        let left = left.get_or_insert_default();
        let Some(last) = left.last_mut() else { return false };
        let rest = last.capacity().saturating_sub(GIVEN_BACK_BYTES);
        last.truncate(rest);
        last.shrink_to(rest);
        if rest < GIVEN_BACK_BYTES {
            left.pop();
        }
        !left.is_empty()
    })
}

struct LargeBuffer(Vec<u8>);

impl AsRef<[u8]> for LargeBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for LargeBuffer {
    fn drop(&mut self) {
        // At the end of a thread there is nobody to leave it to.
        let _ = LEFT.try_with(|left| {
            if let Ok(mut left) = left.try_borrow_mut()
                && let Some(left) = &mut *left
            {
                left.push(mem::take(&mut self.0));
            }
        });
    }
}

thread_local! {
    static LEFT: RefCell<Option<Vec<Vec<u8>>>> = const { RefCell::new(None) };
}

/// Bytes given back at a time, some 150 us. Smaller buffers end at once.
const GIVEN_BACK_BYTES: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_is_given_back_in_pieces_by_a_thread_that_does_so() {
        drop(share_buffer(vec![1; 10 << 20]));
        assert!(!give_back_some(), "it ended at once");
        let buffer = share_buffer(vec![1; 10 << 20]);
        let part = buffer.slice(5..7);
        drop(buffer);
        assert!(!give_back_some(), "somebody has a part of it");
        drop(part);
        let pieces = 1 + (0..100).take_while(|_| give_back_some()).count();
        assert_eq!(pieces, 5);
        drop(share_buffer(vec![1; 1 << 20]));
        assert!(!give_back_some());
    }
}
