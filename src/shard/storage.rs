//! The shard's log on its way to the disk and back: batches, reads and deletions go to the disk's
//! thread, and the broker hears what became of them.

use std::collections::VecDeque;

use tracing::{error, info, warn};

use super::{
    Shard,
    disk::{Answer, Disk, DiskSetup, Job},
};
use crate::broker::LogRead;

/// The disk, and what it was asked to read, in that order.
pub(super) struct Storage {
    disk: Disk,
    reads: VecDeque<LogRead>,
}

impl Storage {
    pub(super) fn start(setup: DiskSetup) -> std::io::Result<Self> {
        Ok(Self { disk: Disk::start(setup)?, reads: VecDeque::new() })
    }
}

impl Shard {
    /// Takes in what the disk has done.
    pub(super) fn take_answers(&mut self) {
        while let Some(answer) = self.storage.as_ref().and_then(|storage| storage.disk.try_answer())
        {
            match answer {
                Answer::Committed => self.broker.batch_committed(self.now),
                Answer::Read { bytes, .. } => {
                    let read = self.storage.as_mut().and_then(|storage| storage.reads.pop_front());
                    if let Some(read) = read {
                        self.broker.read_done(self.now, &read, bytes);
                    }
                }
                Answer::Failing(why) => {
                    error!(
                        shard = %self.own,
                        "{why}: nothing more can be kept on disk. What would have to be is refused (0x97): new QoS 1 \
                         and 2 publications for persistent sessions, retained and delayed ones, new persistent \
                         sessions and their subscriptions; all else goes on. It is tried again each second"
                    );
                    self.broker.disk_failing(self.now, true);
                }
                Answer::Recovered => {
                    info!(shard = %self.own, "the disk takes what it is given again");
                    self.broker.disk_failing(self.now, false);
                }
            }
        }
    }

    /// Gives the disk what there is to do.
    pub(super) fn give_jobs(&mut self) {
        let Some(storage) = &mut self.storage else { return };
        while let Some(read) = self.broker.pop_read() {
            let LogRead { at, bytes, .. } = read;
            let job = Job::Read { segment: at.segment, offset: at.offset, bytes };
            storage.reads.push_back(read);
            storage.disk.send(job);
        }
        if let Some(batch) = self.broker.next_batch(self.now) {
            storage.disk.send(Job::Write(batch));
        }
        while let Some(segment) = self.broker.pop_deletable() {
            storage.disk.send(Job::Delete { segment });
        }
    }

    /// Waits until the disk has done all that it was given.
    pub(super) fn stop_disk(&mut self) {
        if let Some(storage) = self.storage.take() {
            let summary = storage.disk.stop();
            let records = self.broker.records_logged();
            if summary.is_cut_short {
                warn!(shard = %self.own, "the log has ended: {records} records; {summary}");
            } else {
                info!(shard = %self.own, "the log has ended: {records} records; {summary}");
            }
        }
    }
}
