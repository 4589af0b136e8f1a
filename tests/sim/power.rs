//! The machine's disks and its power: how the shell of a shard and its disk work together, and how all of
//! it ends at any moment and begins again with what the disks have.

use ringmq::{
    base::{ShardId, Time, TimeOrigin, WallTime},
    broker::{Broker, BrokerSetup},
    storage::{LogId, LogSetup, RecoveredLog, RecoveredShard},
};

use crate::{
    disk::Disk,
    link::Place,
    world::{Action, Shard, World},
};

/// What the logs are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storage {
    pub(crate) segment_bytes: u32,
    /// Of each log.
    pub(crate) bytes_max: u64,
    /// Steps that the disks take for something, at most.
    pub(crate) pace: usize,
    /// How often one of them refuses to write, in 10,000 steps.
    pub(crate) disk_faults: usize,
}

impl Storage {
    /// Whether a disk may not take something.
    pub(crate) const fn may_refuse(&self) -> bool {
        self.bytes_max < ROOM || self.disk_faults > 0
    }
}

impl World {
    /// The same machine with a log for each shard. It is yet to be started.
    pub(crate) fn with_disks(mut self, storage: Storage) -> Self {
        let log_id = |shard| LogId { generation: 1, shard };
        self.disks = self.shard_ids().map(|shard| Disk::new(log_id(shard), storage.pace)).collect();
        self.storage = Some(storage);
        self.holds_connack = true;
        let nothing = self.recover();
        self.power_on(nothing);
        self
    }

    /// The time of day when the brokers' clock shows 0, which is before anything happens: so there is
    /// a time for all that was before a restart.
    pub(crate) const fn origin() -> TimeOrigin {
        TimeOrigin(WallTime(EPOCH_MILLIS))
    }

    /// A time of day as a time of this world.
    pub(crate) fn time_of(at: WallTime) -> Time {
        Time::from_millis(at.0.saturating_sub(EPOCH_MILLIS))
    }

    /// All ends without notice: what is on disk stays.
    pub(crate) fn power_off(&mut self) {
        for disk in &mut self.disks {
            disk.crash(&mut self.random);
        }
        self.lanes.iter_mut().for_each(|lane| lane.clear());
        for &link in &self.live {
            let link = &mut self.links[link];
            link.place = Place::Gone;
            link.sending.clear();
            link.sent = 0;
            (link.closing, link.paused, link.dirty) = (false, false, false);
            link.sever(0, 0);
            link.ignored = true;
        }
        self.live.clear();
        for shard in &self.shards {
            self.past.push(*shard.broker.summary().counters());
        }
    }

    /// What the disks have, in a process that begins now.
    pub(crate) fn recover(&mut self) -> Vec<RecoveredLog> {
        let origin = Self::origin();
        let logs: Vec<_> = self.disks.iter_mut().map(|disk| disk.recover(origin)).collect();
        self.stats.torn += logs.iter().filter(|log| log.torn.is_some()).count() as u64;
        self.stats.restored += logs.iter().map(|log| log.shard.sessions.len() as u64).sum::<u64>();
        logs
    }

    /// From the next start on there is room for everything.
    pub(crate) fn make_room(&mut self) {
        if let Some(storage) = &mut self.storage {
            storage.bytes_max = ROOM;
        }
    }

    /// Begins with that.
    pub(crate) fn power_on(&mut self, logs: Vec<RecoveredLog>) {
        let (origin, now) = (Self::origin(), self.now);
        self.shards.clear();
        for (at, log) in logs.into_iter().enumerate() {
            let shard = ShardId(at as u16);
            let (setup, recovered) = self.log_setup(shard, log);
            let broker = BrokerSetup { shard, ..self.setup.clone() };
            let broker = Broker::restore(broker, setup, recovered, origin, now);
            self.shards.push(Shard::new(broker));
            self.touch(shard);
        }
        (self.is_starting, self.is_ending) = (true, false);
    }

    fn log_setup(&self, shard: ShardId, log: RecoveredLog) -> (LogSetup, RecoveredShard) {
        let storage = self.storage.expect("a world with disks");
        let id = self.disks[shard.index()].id;
        let setup = log.setup(id, storage.segment_bytes, storage.bytes_max);
        (setup, log.shard)
    }

    /// Lets clients in.
    pub(crate) fn start(&mut self) {
        self.trace.note(|| "-- the brokers start".into());
        let now = self.now;
        for shard in self.shard_ids() {
            self.touch(shard).start(now);
        }
        self.is_starting = false;
    }

    pub(crate) fn enabled_disks(&self, out: &mut Vec<Action>) {
        if self.is_starting && self.shards.iter().all(|shard| shard.broker.is_restored()) {
            out.push(Action::Start);
        }
        for (shard, disk) in self.shard_ids().zip(&self.disks) {
            if disk.can_sync(self.step) {
                out.push(Action::Sync(shard));
            }
            if disk.can_work(self.step) {
                out.push(Action::Work(shard));
            }
            if disk.can_heal(self.step) {
                out.push(Action::Heal(shard));
            }
        }
    }

    /// The shell gives the disk what there is to do.
    pub(crate) fn give_jobs(&mut self, id: ShardId) {
        let (now, step) = (self.now, self.step);
        let Some(disk) = self.disks.get_mut(id.index()) else { return };
        let broker = &mut self.shards[id.index()].broker;
        while let Some(read) = broker.pop_read() {
            self.trace.note(|| format!("  shard {id} reads {read:?}"));
            disk.read(read);
        }
        if let Some(batch) = broker.next_batch(now) {
            let parts = || batch.writes.iter().map(|w| (w.segment, w.offset, w.bytes.len()));
            self.trace.note(|| format!("  shard {id} writes {:?}", parts().collect::<Vec<_>>()));
            disk.write(batch, step, &mut self.random);
            self.stats.batches += 1;
        }
        let is_idle = !disk.is_writing();
        while let Some(segment) = broker.pop_deletable() {
            self.trace.note(|| format!("  shard {id} deletes {segment}"));
            disk.delete(segment);
            self.stats.segments_deleted += 1;
        }
        if is_idle {
            self.shards[id.index()].idle_at = now;
        }
    }

    /// Before this time, all that was added to any log is on disk, if it is written after so many milliseconds.
    pub(crate) fn written_until(&self, millis: u64) -> Time {
        let idle_at = self.shards.iter().map(|shard| shard.idle_at).min().unwrap_or_default();
        Time::from_millis(idle_at.millis_since(Time::default()).saturating_sub(millis))
    }

    pub(crate) fn sync(&mut self, id: ShardId) {
        self.trace.note(|| format!("shard {id} has its batch on disk"));
        self.disks[id.index()].sync();
        let now = self.now;
        self.touch(id).batch_committed(now);
    }

    pub(crate) fn work(&mut self, id: ShardId) {
        let (now, step) = (self.now, self.step);
        let done = self.disks[id.index()].work(step, &mut self.random);
        self.trace.note(|| format!("shard {id}: its disk has read or deleted"));
        if let Some((read, bytes)) = done {
            self.stats.log_reads += 1;
            self.touch(id).read_done(now, &read, Ok(bytes));
        }
    }

    pub(crate) fn heal(&mut self, id: ShardId) {
        self.trace.note(|| format!("shard {id}: its disk works again"));
        self.disks[id.index()].heal();
        let now = self.now;
        self.touch(id).disk_failing(now, false);
    }

    /// A disk that is writing refuses to, for a while.
    pub(crate) fn bring_disk_fault(&mut self, steps_max: usize) {
        let at = self.random.below(self.disks.len());
        let until = self.step + self.random.range(10, steps_max) as u64;
        let disk = &mut self.disks[at];
        if disk.is_writing() && !disk.is_refusing() {
            disk.refuse(until);
            self.stats.disk_faults += 1;
            let (id, now) = (ShardId(at as u16), self.now);
            self.trace.note(|| format!("shard {id}: its disk refuses"));
            self.touch(id).disk_failing(now, true);
        }
    }
}

/// More than any log needs.
pub(crate) const ROOM: u64 = 1 << 40;
/// The time of day when a world begins.
const EPOCH_MILLIS: u64 = 1_700_000_000_000;
