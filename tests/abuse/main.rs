//! Bad input of every class that has hurt a broker: it ends that connection with the right
//! reason code and nothing else. The others go on and memory does not grow.

#[path = "../common/mod.rs"]
mod common;

mod floods;
mod herds;
mod malformed;
mod memory;
mod one_address;
mod resources;
mod slow;
mod strings;

use common::{Broker, RawClient};

/// A client that was there before the abuse and is served after it.
struct Bystander(RawClient);

impl Bystander {
    fn new(broker: &Broker) -> Self {
        let mut client = RawClient::v5(broker.port, "bystander");
        client.send("82 ( 0001 () 'bystander/#' 01 )");
        client.expect("90 ( 0001 () 01 )");
        Self(client)
    }

    /// Still connected, still subscribed; and newcomers are served.
    #[track_caller]
    fn check(&mut self, broker: &Broker) {
        let mut publisher = RawClient::v311(broker.port, "newcomer");
        publisher.send("32 ( 'bystander/1' 0001 `fine` )");
        publisher.expect("40 02 0001");
        let id = self.0.expect("32 ( 'bystander/1' ???? () `fine` )");
        self.0.send(&format!("40 02 {id}"));
        self.0.ping();
    }
}

/// Bounds how much memory the broker gains from here to [`Memory::check`].
struct Memory {
    before_kib: u64,
}

impl Memory {
    fn of(broker: &Broker) -> Self {
        Self { before_kib: broker.rss_kib() }
    }

    #[track_caller]
    fn check(&self, broker: &Broker, grown_kib_max: u64) {
        let now = broker.rss_kib();
        let grown = now.saturating_sub(self.before_kib);
        println!("resident: {} KiB before, {now} KiB after", self.before_kib);
        assert!(grown <= grown_kib_max, "grown by {grown} KiB, allowed are {grown_kib_max}");
    }
}

/// Repeatable pseudo-random numbers (xorshift64*), so that a failure has a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 56) as u8).collect()
    }
}
