//! A bell that the tasks of one shard ring to wake another of its tasks. Single-threaded.

use std::{
    cell::{Cell, RefCell},
    task::{Poll, Waker},
};

/// Remembers one ring until it is heard; further rings in between add nothing. One task listens.
#[derive(Default)]
pub(super) struct Bell {
    rung: Cell<bool>,
    listener: RefCell<Option<Waker>>,
}

impl Bell {
    /// Wakes the listener now, or makes its next [`Bell::heard`] return at once.
    pub(super) fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.listener.take() {
            waker.wake();
        }
    }

    /// Waits for a ring.
    pub(super) async fn heard(&self) {
        std::future::poll_fn(|context| {
            if self.rung.replace(false) {
                return Poll::Ready(());
            }
            self.listener.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
