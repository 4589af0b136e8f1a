//! The way of orders to a thread of this process: a queue, and a byte on a socket pair that tells a
//! thread which waits for its ring that there is something in it.

use std::{
    io::{self, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{Arc, mpsc},
};

use super::orders::Order;

/// The way to a thread.
#[derive(Clone)]
pub(super) struct OrderSender {
    orders: mpsc::Sender<Order>,
    wake: Arc<UnixStream>,
}

/// Its other end.
pub(super) struct OrderReceiver {
    orders: mpsc::Receiver<Order>,
    woken: UnixStream,
}

/// A way to a thread and its other end.
pub(super) fn order_channel() -> io::Result<(OrderSender, OrderReceiver)> {
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    let (sender, receiver) = mpsc::channel();
    let sender = OrderSender { orders: sender, wake: Arc::new(wake) };
    Ok((sender, OrderReceiver { orders: receiver, woken }))
}

impl OrderSender {
    /// Sends an order. Nothing happens if the thread has ended.
    pub(super) fn send(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // Fails if the thread has bytes enough to wake it, or has ended.
            let _ = (&*self.wake).write(&[0]);
        }
    }
}

impl OrderReceiver {
    /// The next order, if there is one.
    pub(super) fn next(&self) -> Option<Order> {
        self.orders.try_recv().ok()
    }

    /// Becomes readable when there are orders. What can be read says nothing more.
    pub(super) fn woken_fd(&self) -> RawFd {
        self.woken.as_raw_fd()
    }
}
