//! Topics whose publications are acknowledged before they are on disk: from when on they are certainly there, so
//! that no loss of power may cost them any more.

use ringmq::base::Time;

use crate::{message::Message, oracle::Oracle, world::World};

/// Acknowledged ones that may still be lost.
#[derive(Default)]
pub(crate) struct Relaxed(Vec<Pending>);

struct Pending {
    message: usize,
    /// When nothing has been on its way between shards since: by then, it was in the logs of all that it concerns.
    arrived: Option<Time>,
}

impl Relaxed {
    /// The power has failed: what may be lost was no promise.
    pub(crate) fn forget(&mut self, messages: &mut [Message]) -> u64 {
        for Pending { message, .. } in &self.0 {
            messages[*message].is_acknowledged = false;
        }
        self.0.drain(..).count() as u64
    }
}

impl Oracle {
    /// A message has been acknowledged.
    pub(crate) fn note_relaxed(&mut self, message: usize) {
        let topic = &self.plan.topics[self.messages[message].topic].name;
        let is_ask = self.asks.contains_key(&message);
        if !is_ask && self.plan.relaxed.as_ref().is_some_and(|filter| filter.matches(topic)) {
            self.relaxed.0.push(Pending { message, arrived: None });
        }
    }

    /// Something has happened: messages may have reached the disks.
    pub(crate) fn look_for_relaxed(&mut self, world: &mut World) {
        if self.relaxed.0.is_empty() {
            return;
        }
        let now = world.are_lanes_empty().then_some(world.now);
        let millis = u64::from(self.plan.policy.durability.relaxed_millis_max);
        let written = world.written_until(millis);
        let before = self.relaxed.0.len();
        self.relaxed.0.retain_mut(|pending| {
            pending.arrived = pending.arrived.or(now);
            pending.arrived.is_none_or(|at| at >= written)
        });
        world.stats.relaxed_kept += (before - self.relaxed.0.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use ringmq::{base::ShardId, config::Policy};

    use crate::{
        directed::{CHUNK_MAX, connect, run},
        power::{ROOM, Storage},
        random::Random,
        requests::publish_all,
        trace::Trace,
        world::World,
    };

    /// What nobody waits for is written in time, also where it takes more than one batch.
    #[test]
    fn all_that_is_due_is_written() {
        let policy = Policy::default();
        let storage = Storage { segment_bytes: 1024, bytes_max: ROOM, pace: 1, disk_faults: 0 };
        let world = World::new(Random::new(1), Trace::default(), 1, &policy, CHUNK_MAX);
        let mut world = world.with_steady_lanes().with_disks(storage);
        run(&mut world);
        let publisher = connect(&mut world, ShardId(0), "publisher");
        // Each takes most of a segment, and a batch takes two.
        publish_all(&mut world, publisher, &[b'x'; 600]);
        world.now = world.now.plus_millis(policy.durability.relaxed_millis_max.into());
        run(&mut world);
        world.check_quiet();
    }
}
