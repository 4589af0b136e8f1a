//! The order in which a shard does things, and the stages of its end.
//!
//! A turn takes a bounded number of completions, then whatever is due, then submits everything that
//! came of it with one system call, in which a shard without more to do sleeps. Nothing wakes it periodically.

use std::{collections::VecDeque, io, time::Duration};

use tracing::{debug, warn};

use super::{
    Milestone, Shard,
    connections::{Connections, Phase},
    lanes::{LANE_MESSAGES, LaneMessage, LaneOut},
    memory::MemoryWatch,
    traffic::DRAIN_MILLIS_MAX,
};
use crate::base::{ConnId, ShardId, Time, give_back_some};

/// How far along its life a shard is. From `Quieting` on, `until` bounds the whole shutdown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// Waits until all shards know what each has found in its log; `is_known`: of this one they do.
    Restoring { is_known: bool },
    /// Accepts and serves.
    Running,
    /// Accepts and reads no more; waits until the kernel has confirmed that.
    Quieting { until: Time },
    /// Sends what the other shards have yet to get, and waits for what they send.
    Flushing { until: Time },
    /// The broker has said goodbye; waits for the connections to close.
    Closing { until: Time },
    /// Nothing is left.
    Ended,
}

impl Shard {
    /// Takes turns until the end of the shard. An error means that the ring has failed.
    pub(super) fn take_turns(&mut self) -> io::Result<()> {
        while !matches!(self.stage, Stage::Ended) {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.read_clock();
        self.take_rules();
        self.watch_memory();
        let is_full = self.take_completions()?;
        self.accept();
        self.take_handshakes();
        self.take_lanes();
        self.take_answers();
        self.take_verdicts();
        self.advance_stage();
        if matches!(self.stage, Stage::Ended) {
            return Ok(());
        }
        self.broker.advance(self.now);
        self.close_overdue();
        self.look_for_stalls();
        self.apply_effects();
        for lane in &mut self.lanes {
            lane.pump(&mut self.broker, self.now);
        }
        // Room in a lane may let a paused connection read on.
        self.apply_effects();
        self.give_jobs();
        self.start_accepts();
        self.start_receives();
        self.start_sends();
        self.start_timer();
        if self.trace_log.is_some() {
            self.submit()?;
            self.log_traces();
        }
        self.submit_and_sleep(is_full, give_back_some())
    }

    /// Goes by other access rules and bans, if the server has some.
    fn take_rules(&mut self) {
        if let Some((version, acl)) = self.control.acl.since(self.acl_version) {
            self.acl_version = version;
            self.broker.set_acl(self.now, acl);
            (self.report)(Milestone::AclInForce(version));
        }
        if let Some((version, Some(bans))) = self.control.bans.since(self.bans_version) {
            self.bans_version = version;
            self.broker.set_bans(self.now, bans);
        }
    }

    /// Takes in what the kernel has, and what it posts as long as it says that there is more: the more there is
    /// in a turn, the more goes to a connection at a time. That goes for those that send much, too, a large buffer
    /// after the other, as long as there is time. Returns whether the turn was full before all was taken.
    fn take_completions(&mut self) -> io::Result<bool> {
        let (mut taken, mut work) = (0, 0);
        loop {
            let found = self.ring.harvest(COMPLETIONS_PER_TURN - taken);
            taken += found;
            while let Some(event) = self.ring.next_event() {
                work += COMPLETION_WORK + event.received_bytes();
                self.handle(event);
                self.watch_growth();
                if work >= WORK_PER_LOOK {
                    work = 0;
                    if self.turn_started.elapsed() >= TAKING_MAX {
                        return Ok(true);
                    }
                }
            }
            if taken == COMPLETIONS_PER_TURN {
                return Ok(true);
            }
            let has_more = found > 0 && self.ring.has_deferred_work();
            if !has_more && self.to_receive_bulk.is_empty() {
                return Ok(false);
            }
            self.start_bulk_receives();
            self.ring.enter()?;
        }
    }

    /// Hands the kernel what came of the turn, and has it post what it knows.
    fn submit(&mut self) -> io::Result<()> {
        let is_worth_it = self.ring.has_submissions() || self.ring.has_deferred_work();
        if is_worth_it { self.ring.enter() } else { Ok(()) }
    }

    /// The same, and sleeps until there is something to do, unless there is already.
    fn submit_and_sleep(&mut self, is_full: bool, has_more: bool) -> io::Result<()> {
        if is_full || self.ring.has_backlog() {
            return self.submit();
        }
        self.wake.falls_asleep();
        let has_news = has_more
            || self.seam.has_work()
            || self.can_accept()
            || self.lanes_in.iter().any(|lane| !lane.is_empty())
            || self.lanes.iter().any(|lane| lane.can_send(&self.broker))
            || self.next_stage().is_some();
        let entered = if has_news { self.submit() } else { self.ring.sleep() };
        self.wake.is_up();
        entered
    }

    /// Takes in what other shards have sent, no more of each than its lane holds at a time.
    fn take_lanes(&mut self) {
        for at in 0..self.lanes_in.len() {
            for _ in 0..LANE_MESSAGES {
                let lane = &mut self.lanes_in[at];
                let from = lane.from;
                let Some(message) = lane.pop() else { break };
                self.lane_brought(from, message);
                self.watch_growth();
            }
        }
    }

    fn lane_brought(&mut self, from: ShardId, message: LaneMessage) {
        match message {
            LaneMessage::Mesh(batch) => self.broker.receive_mesh(self.now, from, batch),
            LaneMessage::Connection { socket, moved } => {
                self.adopt(socket, *moved);
            }
            LaneMessage::Flushed => self.lanes_to_flush.retain(|shard| *shard != from),
        }
    }

    fn advance_stage(&mut self) {
        while let Some(stage) = self.next_stage() {
            debug!(?stage, "shard goes on");
            self.stage = stage;
            match stage {
                Stage::Restoring { .. } => self.control.note_restored(),
                Stage::Running => self.serve(),
                Stage::Quieting { .. } => self.stop_input(),
                Stage::Flushing { .. } => self.lanes.iter_mut().for_each(LaneOut::flush),
                Stage::Closing { .. } => {
                    (self.report)(Milestone::Flushed);
                    self.broker.shut_down(self.now);
                    self.apply_effects();
                    self.give_jobs();
                }
                Stage::Ended if !self.is_closed() => {
                    let connections = self.connections.ids().len();
                    warn!(connections, "shutdown takes too long: closing without ceremony");
                }
                Stage::Ended => {}
            }
        }
    }

    /// The stage that may begin now, if it is another one.
    fn next_stage(&self) -> Option<Stage> {
        Some(match self.stage {
            Stage::Restoring { is_known: false } if self.broker.is_restored() => {
                Stage::Restoring { is_known: true }
            }
            Stage::Restoring { is_known: true } if self.control.all_restored() => Stage::Running,
            Stage::Running | Stage::Restoring { .. } if self.control.is_stopping() => {
                Stage::Quieting { until: self.now.plus_millis(SHUTDOWN_MILLIS_MAX) }
            }
            Stage::Quieting { until } if self.is_quiet() => Stage::Flushing { until },
            Stage::Flushing { until } if self.is_flushed() => Stage::Closing { until },
            Stage::Closing { .. } if self.is_closed() => Stage::Ended,
            Stage::Quieting { until } | Stage::Flushing { until } | Stage::Closing { until }
                if self.now >= until =>
            {
                Stage::Ended
            }
            _ => return None,
        })
    }

    fn stop_input(&mut self) {
        for (number, listener) in self.listeners.iter().enumerate() {
            if listener.is_watched {
                self.ring.cancel_poll(number as u32);
            }
        }
        for conn in self.connections.ids() {
            if self.connections.get(conn).is_some_and(|found| found.is_open() && found.receiving) {
                self.ring.cancel_receive(conn);
            }
        }
    }

    fn is_quiet(&self) -> bool {
        !self.connections.any_reading()
            && !self.broker.holds_input()
            && self.listeners.iter().all(|socket| !socket.is_watched)
    }

    fn is_flushed(&self) -> bool {
        self.lanes_to_flush.is_empty() && self.lanes.iter().all(|lane| lane.is_flushed())
    }

    fn is_closed(&self) -> bool {
        self.connections.is_empty() && self.broker.is_on_disk()
    }

    /// Whether clients are still served.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    /// Closes connections whose peers do not take their last bytes, or do not close.
    fn close_overdue(&mut self) {
        let is_draining = |phase: &Phase| matches!(phase, Phase::Draining { .. });
        let is_lingering = |phase: &Phase| matches!(phase, Phase::Lingering);
        let now = self.now;
        let is_urgent = self.memory.as_ref().is_some_and(MemoryWatch::is_urgent);
        let saved = if is_urgent { DRAIN_MILLIS_MAX - DRAIN_MILLIS_URGENT } else { 0 };
        let drained = now.plus_millis(saved);
        while let Some(conn) =
            pop_overdue(&mut self.draining, &mut self.connections, drained, is_draining).or_else(
                || pop_overdue(&mut self.lingering, &mut self.connections, now, is_lingering),
            )
        {
            self.close_now(conn);
        }
    }

    /// Has the ring wake the shard at the next deadline. A timer that turns out to be too early
    /// costs one turn; moving it each time a deadline recedes would cost more.
    fn start_timer(&mut self) {
        let until = match self.stage {
            Stage::Quieting { until } | Stage::Flushing { until } | Stage::Closing { until } => {
                Some(until)
            }
            Stage::Restoring { .. } | Stage::Running | Stage::Ended => None,
        };
        let first = |queue: &VecDeque<(Time, ConnId)>| queue.front().map(|(time, _)| *time);
        let deadlines = [
            self.broker.next_deadline(),
            self.accept_again,
            until,
            self.stalls.deadline(),
            self.memory.as_ref().and_then(|memory| memory.deadline(self.now)),
            first(&self.draining),
            first(&self.lingering),
        ];
        let Some(deadline) = deadlines.into_iter().flatten().min() else { return };
        let after = Duration::from_millis(deadline.millis_since(self.now));
        match self.timer {
            Some(timer) if timer <= deadline => return,
            Some(_) => self.ring.move_timer(after),
            None => self.ring.set_timer(after),
        }
        self.timer = Some(deadline);
    }
}

/// The next connection that is past its time. Drops entries whose connection has moved on, so that
/// they wake nobody.
fn pop_overdue(
    queue: &mut VecDeque<(Time, ConnId)>,
    connections: &mut Connections,
    now: Time,
    waits: fn(&Phase) -> bool,
) -> Option<ConnId> {
    while let Some((time, conn)) = queue.front().copied() {
        let waiting = connections.get(conn).is_some_and(|found| waits(&found.phase));
        if waiting && time > now {
            return None;
        }
        queue.pop_front();
        if waiting {
            return Some(conn);
        }
    }
    None
}

/// Completions that one turn handles: more would let lanes and timers wait.
const COMPLETIONS_PER_TURN: usize = 256;

/// Time for a peer to take its last bytes while memory is short.
const DRAIN_MILLIS_URGENT: u64 = 1_000;

/// Time after which a turn handles no further ones: what waits behind those that cost much is sent, and what is due
/// done, before they go on.
const TAKING_MAX: Duration = Duration::from_micros(500);

/// How much is handled between two looks at the clock, in bytes received; a completion counts as some of its own.
const WORK_PER_LOOK: usize = 8 * 1024;
const COMPLETION_WORK: usize = 256;

/// Time for the whole shutdown; what is not done then is cut off.
const SHUTDOWN_MILLIS_MAX: u64 = 5_000;
