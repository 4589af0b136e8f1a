//! The order in which a shard does things, and the stages of its end.
//!
//! A turn takes a bounded number of completions, then whatever is due, then submits everything that
//! came of it with one system call. A shard without work sleeps; nothing wakes it periodically.

use std::{collections::VecDeque, io, time::Duration};

use tracing::{debug, warn};

use super::{
    Milestone, Shard,
    connections::{Connections, Phase},
    lanes::LaneMessage,
};
use crate::base::{ConnId, ShardId, Time};

/// What the main task does after a turn.
pub(super) enum Next {
    /// There may be more to do.
    TurnAgain,
    /// There is nothing to do until the bell rings.
    Sleep,
    /// The shard has ended.
    Stop,
}

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
    /// Takes one turn. An error means that the ring has failed.
    pub(super) fn turn(&mut self) -> io::Result<Next> {
        self.read_clock();
        self.ring.hush();
        let completions = self.ring.harvest(COMPLETIONS_PER_TURN);
        while let Some(event) = self.ring.next_event() {
            self.handle(event);
        }
        self.take_answers();
        self.advance_stage();
        if matches!(self.stage, Stage::Ended) {
            return Ok(Next::Stop);
        }
        self.broker.advance(self.now);
        self.close_overdue();
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
        let next = self.submit(completions)?;
        self.log_traces();
        Ok(next)
    }

    /// A turn that found nothing to do looks once more after asking to be woken, then sleeps. One
    /// that did need not enter the kernel for completions: the next one will, or has them already.
    fn submit(&mut self, completions: usize) -> io::Result<Next> {
        if completions > 0 {
            if self.ring.has_submissions() {
                self.ring.enter()?;
            }
            return Ok(Next::TurnAgain);
        }
        self.ring.announce();
        self.ring.enter()?;
        let more = self.ring.has_completions()
            || self.ring.has_submissions()
            || self.ring.has_deferred_work();
        Ok(if more { Next::TurnAgain } else { Next::Sleep })
    }

    /// What another shard sent. The turn that the lane's task asks for does the rest.
    pub(super) fn lane_brought(&mut self, from: ShardId, message: LaneMessage) {
        // The last turn may have been long ago.
        self.read_clock();
        match message {
            LaneMessage::Mesh(batch) => self.broker.receive_mesh(self.now, from, batch),
            LaneMessage::Connection { socket, moved } => {
                self.adopt(socket, moved.origin, &moved.bytes);
            }
            LaneMessage::Flushed => self.lane_ended(from),
        }
    }

    /// The other shard will start nothing new.
    pub(super) fn lane_ended(&mut self, from: ShardId) {
        self.lanes_to_flush.retain(|shard| *shard != from);
    }

    fn advance_stage(&mut self) {
        let before = self.stage;
        self.stage = match self.stage {
            Stage::Restoring { is_known: false } if self.broker.is_restored() => {
                self.control.note_restored();
                Stage::Restoring { is_known: true }
            }
            Stage::Restoring { is_known: true } if self.control.all_restored() => {
                self.serve();
                Stage::Running
            }
            Stage::Running | Stage::Restoring { .. } if self.control.is_stopping() => {
                self.stop_input();
                Stage::Quieting { until: self.now.plus_millis(SHUTDOWN_MILLIS_MAX) }
            }
            Stage::Quieting { until } if self.is_quiet() => {
                self.lanes.iter_mut().for_each(|lane| lane.flush());
                Stage::Flushing { until }
            }
            Stage::Flushing { until } if self.is_flushed() => {
                (self.report)(Milestone::Flushed);
                self.broker.shut_down(self.now);
                self.apply_effects();
                self.give_jobs();
                Stage::Closing { until }
            }
            Stage::Closing { .. } if self.connections.is_empty() && self.broker.is_on_disk() => {
                Stage::Ended
            }
            Stage::Quieting { until } | Stage::Flushing { until } | Stage::Closing { until }
                if self.now >= until =>
            {
                let connections = self.connections.ids().len();
                warn!(connections, "shutdown takes too long: closing without ceremony");
                Stage::Ended
            }
            stage => stage,
        };
        if std::mem::discriminant(&before) != std::mem::discriminant(&self.stage) {
            debug!(stage = ?self.stage, "shard goes on with its shutdown");
            self.advance_stage();
        }
    }

    fn stop_input(&mut self) {
        for (number, listener) in self.listeners.iter().enumerate() {
            if listener.accepting {
                self.ring.cancel_accept(number as u32);
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
            && self.listeners.iter().all(|socket| !socket.accepting)
    }

    fn is_flushed(&self) -> bool {
        self.lanes_to_flush.is_empty() && self.lanes.iter().all(|lane| lane.is_flushed())
    }

    /// Whether clients are still served.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    fn start_accepts(&mut self) {
        if self.accept_again.is_some_and(|again| self.now >= again) {
            self.accept_again = None;
        }
        if self.is_running() && self.accept_again.is_none() {
            self.accept_on_all();
        }
    }

    /// Closes connections whose peers do not take their last bytes, or do not close.
    fn close_overdue(&mut self) {
        let is_draining = |phase: &Phase| matches!(phase, Phase::Draining { .. });
        let is_lingering = |phase: &Phase| matches!(phase, Phase::Lingering);
        let now = self.now;
        while let Some(conn) =
            pop_overdue(&mut self.draining, &mut self.connections, now, is_draining).or_else(|| {
                pop_overdue(&mut self.lingering, &mut self.connections, now, is_lingering)
            })
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

/// Time for the whole shutdown; what is not done then is cut off.
const SHUTDOWN_MILLIS_MAX: u64 = 5_000;
