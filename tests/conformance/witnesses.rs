//! Subscribers on every shard: what they have got, nobody else is still to get.

use crate::common::{Broker, RawClient};

/// So many that each of four shards has some.
pub(crate) struct Witnesses(Vec<RawClient>);

impl Witnesses {
    /// Subscribed at QoS 0.
    pub(crate) fn of(broker: &Broker, filter: &str) -> Self {
        let clients = (0..40).map(|n| RawClient::v311(broker.port, &format!("witness {n}")));
        let mut witnesses = Self(clients.collect());
        for witness in &mut witnesses.0 {
            witness.send(&format!("82 ( 0001 '{filter}' 00 )"));
            witness.expect("90 ( 0001 00 )");
        }
        witnesses
    }

    /// Waits until all have got this, and nothing before it.
    pub(crate) fn expect(&mut self, packets: &str) {
        for witness in &mut self.0 {
            witness.expect(packets);
        }
    }
}
