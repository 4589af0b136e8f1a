//! The private io_uring of one shard: every socket operation goes through here.
//!
//! Owns the kernel's view of memory: receive buffers and the bytes being sent stay here until their
//! completion, so the interface is safe. Knows connections only as [`ConnId`], and nothing of what
//! their bytes mean. Lives on its shard's thread, which sleeps in here: completions are posted only while it
//! enters the kernel (DEFER_TASKRUN).

use std::{
    collections::VecDeque, io, mem, mem::ManuallyDrop, num::NonZeroU32, os::fd::RawFd,
    time::Duration,
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::buffers::{BULK, BufferPool, COMMON, Filled, GROUPS, Group};
use crate::base::{ConnId, Output, limits::SEND_BYTES_MAX};

/// What one completion means.
pub enum Event {
    /// Somebody waits at a listener, or the poll was cancelled. It has ended either way.
    Ready { listener: u32 },
    /// A receive produced something. Without `more` it has ended and may be armed again.
    Received { conn: ConnId, what: Received, more: bool },
    /// A send has ended: all of the output was sent, or the socket failed. The output comes back.
    Sent { conn: ConnId, result: io::Result<()>, output: Output },
    /// The time given to [`Ring::set_timer`] has passed.
    TimerFired,
}

impl Event {
    /// Bytes that it has brought.
    pub(super) const fn received_bytes(&self) -> usize {
        match self {
            Self::Received { what: Received::Bytes(filled), .. } => filled.len(),
            _ => 0,
        }
    }
}

/// The outcome of a receive.
pub enum Received {
    /// Bytes, to be read with [`Ring::bytes`] and returned with [`Ring::give_back`].
    Bytes(Filled),
    /// The peer will send no more.
    End,
    /// No receive buffer was free; the stream is intact. See [`Ring::lend_more`].
    Starved,
    /// The receive was cancelled; the stream is intact.
    Nothing,
    /// The socket failed.
    Failed(io::Error),
}

/// The ring, its receive buffers and the sends in progress.
pub struct Ring {
    uring: ManuallyDrop<IoUring>,
    /// As in [`GROUPS`].
    pools: ManuallyDrop<[BufferPool; 2]>,
    /// Sends in progress, by [`SendId`]; a place without one is free.
    sends: ManuallyDrop<Vec<Option<Sending>>>,
    free_sends: Vec<SendId>,
    /// Operations that found the submission queue full and the kernel unwilling to take it.
    waiting: VecDeque<squeue::Entry>,
    /// Completions taken from the kernel and not yet handed out.
    harvested: VecDeque<cqueue::Entry>,
    /// Read by the kernel when the timer operation is submitted, so it must not move.
    timer: Box<types::Timespec>,
    /// See [`Ring::watch`].
    watched: Option<RawFd>,
}

/// Names a send until its [`Event::Sent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendId(NonZeroU32);

impl SendId {
    /// The name of the send at that place.
    fn at(place: usize) -> Self {
        Self(NonZeroU32::MIN.saturating_add(place as u32))
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Bytes that the kernel may be reading.
struct Sending {
    conn: ConnId,
    socket: RawFd,
    output: Output,
    sent: usize,
    /// Looks at it since something of it was last sent.
    looks: u32,
}

impl Ring {
    /// Sets the ring up on the calling thread, which must be the only one to use it.
    pub fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        builder.setup_submit_all().dontfork();
        let uring: IoUring = builder.setup_cqsize(COMPLETIONS).build(SUBMISSIONS)?;
        let [common, bulk] = &GROUPS;
        let pools = [BufferPool::new(&uring, common)?, BufferPool::new(&uring, bulk)?];
        Ok(Self {
            uring: ManuallyDrop::new(uring),
            pools: ManuallyDrop::new(pools),
            sends: ManuallyDrop::default(),
            free_sends: Vec::new(),
            waiting: VecDeque::new(),
            harvested: VecDeque::new(),
            timer: Box::default(),
            watched: None,
        })
    }

    /// Has a write to this eventfd end a sleep. It is never read.
    pub(super) fn watch(&mut self, eventfd: RawFd) {
        self.watched = Some(eventfd);
        let entry = opcode::PollAdd::new(types::Fd(eventfd), libc::POLLIN as u32).multi(true);
        self.push(entry.build().user_data(Operation::Watch.tag(0, 0)));
    }

    /// Waits until somebody waits at a listener.
    pub(super) fn poll(&mut self, listener: u32, socket: RawFd) {
        let entry = opcode::PollAdd::new(types::Fd(socket), libc::POLLIN as u32).build();
        self.push(entry.user_data(Operation::Poll.tag(listener, 0)));
    }

    /// Ends that; its event comes.
    pub(super) fn cancel_poll(&mut self, listener: u32) {
        self.cancel(Operation::Poll.tag(listener, 0));
    }

    /// Receives until an [`Event::Received`] without `more`.
    pub fn receive(&mut self, conn: ConnId, socket: RawFd) {
        let entry = opcode::RecvMulti::new(types::Fd(socket), COMMON.number).build();
        self.push(entry.user_data(Operation::Receive.of(conn)));
    }

    /// Receives once: the next [`Event::Received`] comes without `more`.
    pub(super) fn receive_once(&mut self, conn: ConnId, socket: RawFd) {
        self.push_receive_once(conn, socket, &COMMON);
    }

    /// The same, up to as much as a large buffer holds. There are few of those.
    pub(super) fn receive_bulk(&mut self, conn: ConnId, socket: RawFd) {
        self.push_receive_once(conn, socket, &BULK);
    }

    fn push_receive_once(&mut self, conn: ConnId, socket: RawFd, group: &Group) {
        let entry = opcode::Recv::new(types::Fd(socket), std::ptr::null_mut(), group.buffer_bytes)
            .buf_group(group.number);
        let entry = entry.build().flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry.user_data(Operation::Receive.of(conn)));
    }

    /// Ends the receiving; its last event comes without `more`.
    pub(super) fn cancel_receive(&mut self, conn: ConnId) {
        self.cancel(Operation::Receive.of(conn));
    }

    /// Sends all of `output`, which must not be empty, piece by piece. One send a connection at a time, or their
    /// bytes mix.
    pub fn send(&mut self, conn: ConnId, socket: RawFd, output: Output) -> SendId {
        debug_assert!(!output.is_empty());
        let send = self.free_sends.pop().unwrap_or_else(|| {
            self.sends.push(None);
            SendId::at(self.sends.len() - 1)
        });
        let sending = Sending { conn, socket, output, sent: 0, looks: 0 };
        let before = self.sends[send.place()].replace(sending);
        assert!(before.is_none(), "the kernel may still be reading the buffer before");
        self.push_send(send);
        send
    }

    /// Looks at the sends in progress. Returns how many looks each has seen none of its operations end in, where that
    /// is `looks_min` at least.
    pub(super) fn look_at_sends(&mut self, looks_min: u32) -> Vec<(ConnId, u32)> {
        let mut idle = Vec::new();
        for sending in self.sends.iter_mut().flatten() {
            if sending.looks >= looks_min {
                idle.push((sending.conn, sending.looks));
            }
            sending.looks = sending.looks.saturating_add(1);
        }
        idle
    }

    /// Whether any send is in progress.
    pub(super) fn is_sending(&self) -> bool {
        self.sends.len() > self.free_sends.len()
    }

    /// Ends a send in progress; its event comes with an error unless all was sent.
    pub(super) fn cancel_send(&mut self, send: SendId) {
        self.cancel(Operation::Send.tag(send.place() as u32, 0));
    }

    /// Starts the timer. It must not be running.
    pub(super) fn set_timer(&mut self, after: Duration) {
        *self.timer = after.into();
        let entry = opcode::Timeout::new(&raw const *self.timer).build();
        self.push(entry.user_data(Operation::Timer.tag(0, 0)));
    }

    /// Moves the running timer. If it fires first, its event comes all the same.
    pub(super) fn move_timer(&mut self, after: Duration) {
        *self.timer = after.into();
        let timer = Operation::Timer.tag(0, 0);
        let entry = opcode::TimeoutUpdate::new(timer, &raw const *self.timer).build();
        self.push_silent(entry);
    }

    /// The received bytes.
    pub fn bytes<'a>(&'a self, filled: &'a Filled) -> &'a [u8] {
        self.pools[filled.group()].bytes(filled)
    }

    /// Returns a receive buffer to the kernel.
    pub fn give_back(&mut self, filled: Filled) {
        self.pools[filled.group()].give_back(filled);
    }

    /// Lends the kernel more buffers for [`Ring::receive`], up to a bound, as there were too few.
    pub fn lend_more(&mut self) {
        self.pools[usize::from(COMMON.number)].lend_more();
    }

    /// Submits what was asked for and lets the kernel post completions. Errors mean that the ring
    /// is unusable.
    pub fn enter(&mut self) -> io::Result<()> {
        self.enter_once()?;
        while let Some(entry) = self.waiting.pop_front() {
            if !self.try_push(&entry) {
                self.waiting.push_front(entry);
                break;
            }
        }
        Ok(())
    }

    /// Submits what was asked for and waits until there is a completion.
    pub(super) fn sleep(&mut self) -> io::Result<()> {
        self.uring.submitter().submit_and_wait(1).map(drop).or_else(try_again_later)
    }

    /// Submits what was asked for and waits until there is a completion, or for as long as given.
    pub fn wait(&mut self, for_at_most: Duration) -> io::Result<()> {
        let timeout = types::Timespec::from(for_at_most);
        let arguments = types::SubmitArgs::new().timespec(&timeout);
        match self.uring.submitter().submit_with_args(1, &arguments) {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(()),
            entered => entered.map(drop).or_else(try_again_later),
        }
    }

    /// Whether something waits for [`Ring::enter`] to be submitted.
    pub fn has_submissions(&mut self) -> bool {
        !self.waiting.is_empty() || !self.uring.submission().is_empty()
    }

    /// Whether the submission queue had no room for all that was asked for.
    pub(super) fn has_backlog(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the kernel says that it has work that the next [`Ring::enter`] will do. One that has just
    /// returned may have left some: it does about 20 pieces at a time, and not all of them make a completion. It
    /// says so of work, too, that is done already: it notes it after it has added it.
    pub fn has_deferred_work(&mut self) -> bool {
        self.uring.submission().taskrun()
    }

    /// Whether [`Ring::harvest`] would find something.
    pub fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Takes completions from the kernel until there are `max`; [`Ring::next_event`] hands them out. Returns how
    /// many there are then.
    pub fn harvest(&mut self, max: usize) -> usize {
        let room = max.saturating_sub(self.harvested.len());
        self.harvested.extend(self.uring.completion().take(room));
        self.harvested.len()
    }

    /// The next event of the harvest.
    pub fn next_event(&mut self) -> Option<Event> {
        while let Some(entry) = self.harvested.pop_front() {
            if let Some(event) = self.decode(&entry) {
                return Some(event);
            }
        }
        None
    }

    fn decode(&mut self, entry: &cqueue::Entry) -> Option<Event> {
        let tag = entry.user_data();
        let conn = ConnId { slot: tag as u32, generation: (tag >> 32) as u32 & GENERATION_MAX };
        let more = cqueue::more(entry.flags());
        let result = check(entry.result());
        Some(match Operation::of_tag(tag)? {
            Operation::Poll => Event::Ready { listener: conn.slot },
            Operation::Receive => {
                Event::Received { conn, what: self.received(result, entry.flags()), more }
            }
            Operation::Send => return self.sent(SendId::at(conn.slot as usize), result),
            Operation::Timer => Event::TimerFired,
            Operation::Watch => {
                if let Some(eventfd) = self.watched.filter(|_| !more) {
                    self.watch(eventfd);
                }
                return None;
            }
        })
    }

    fn received(&mut self, result: io::Result<u32>, flags: u32) -> Received {
        let buffer = cqueue::buffer_select(flags);
        match (result, buffer) {
            (Ok(bytes), Some(buffer)) if bytes > 0 => {
                Received::Bytes(self.pools[Group::of(buffer)].take(buffer, bytes))
            }
            (result, buffer) => {
                if let Some(buffer) = buffer {
                    let unused = self.pools[Group::of(buffer)].take(buffer, 0);
                    self.give_back(unused);
                }
                match result {
                    Ok(_) => Received::End,
                    Err(error) => match error.raw_os_error() {
                        Some(libc::ENOBUFS) => Received::Starved,
                        Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => Received::Nothing,
                        _ => Received::Failed(error),
                    },
                }
            }
        }
    }

    /// A short send goes on from its place, as the next piece does, and makes no event.
    fn sent(&mut self, send: SendId, result: io::Result<u32>) -> Option<Event> {
        let place = self.sends.get_mut(send.place())?;
        let sending = place.as_mut()?;
        let result = match result {
            Ok(bytes) => {
                sending.sent += bytes as usize;
                sending.looks = 0;
                if sending.sent < sending.output.len() {
                    self.push_send(send);
                    return None;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.push_send(send);
                return None;
            }
            Err(error) => Err(error),
        };
        let Sending { conn, output, .. } = place.take()?;
        self.free_sends.push(send);
        Some(Event::Sent { conn, result, output })
    }

    fn push_send(&mut self, send: SendId) {
        let Some(Some(sending)) = self.sends.get(send.place()) else { return };
        let piece = sending.output.piece(sending.sent);
        let bytes = piece.len().min(SEND_BYTES_MAX);
        // The head of a packet is to leave together with what it is the head of.
        let is_last = sending.sent + bytes == sending.output.len();
        let more = if is_last { 0 } else { libc::MSG_MORE };
        let entry = opcode::Send::new(types::Fd(sending.socket), piece.as_ptr(), bytes as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL | more);
        self.push(entry.build().user_data(Operation::Send.tag(send.place() as u32, 0)));
    }

    fn cancel(&mut self, tag: u64) {
        self.push_silent(opcode::AsyncCancel::new(tag).build());
    }

    /// For operations whose own outcome says nothing: the operation they act on completes.
    fn push_silent(&mut self, entry: squeue::Entry) {
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(SILENT));
    }

    fn push(&mut self, entry: squeue::Entry) {
        if !self.waiting.is_empty() || !self.try_push(&entry) {
            // A failure shows again in the `enter` that ends the turn.
            let _ = self.enter_once();
            if !self.waiting.is_empty() || !self.try_push(&entry) {
                self.waiting.push_back(entry);
            }
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: whatever an entry points to outlives the operation: receive buffers are `pools`,
        // bytes to send are in `sends` until their completion, the time value is `timer`. None of
        // them is freed before the ring (see `Drop`), and none moves: the heap of a `Vec` or `Bytes` stays in place.
        unsafe { self.uring.submission().push(entry).is_ok() }
    }

    fn enter_once(&mut self) -> io::Result<()> {
        let submissions = self.uring.submission().len() as u32;
        // SAFETY: no argument is passed, so none can be invalid.
        let entered = unsafe {
            self.uring.submitter().enter::<libc::sigset_t>(submissions, 0, ENTER_GETEVENTS, None)
        };
        entered.map(drop).or_else(try_again_later)
    }
}

impl Drop for Ring {
    /// Waits until the kernel has let go of the memory it was lent, or leaks that memory.
    fn drop(&mut self) {
        let everything = types::CancelBuilder::any();
        let patience = types::Timespec::from(Duration::from_secs(1));
        let outcome = self.uring.submitter().register_sync_cancel(Some(patience), everything);
        let quiet = match outcome {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        // SAFETY: the fields are not used after this; the ring goes before what it points to.
        unsafe {
            ManuallyDrop::drop(&mut self.uring);
            if quiet {
                ManuallyDrop::drop(&mut self.pools);
                ManuallyDrop::drop(&mut self.sends);
            } else {
                mem::forget(mem::take(&mut self.timer));
            }
        }
    }
}

/// What an operation's user data says: the kind in the highest 4 bits, then 28 bits of generation,
/// then the slot (or the number of the listener or of the send).
#[derive(Clone, Copy)]
enum Operation {
    Poll = 1,
    Receive = 2,
    Send = 3,
    Timer = 4,
    Watch = 5,
}

impl Operation {
    fn of(self, conn: ConnId) -> u64 {
        self.tag(conn.slot, conn.generation)
    }

    fn tag(self, slot: u32, generation: u32) -> u64 {
        (self as u64) << 60 | u64::from(generation & GENERATION_MAX) << 32 | u64::from(slot)
    }

    fn of_tag(tag: u64) -> Option<Self> {
        match tag >> 60 {
            1 => Some(Self::Poll),
            2 => Some(Self::Receive),
            3 => Some(Self::Send),
            4 => Some(Self::Timer),
            5 => Some(Self::Watch),
            _ => None,
        }
    }
}

/// Whether an enter failed only until completions have been taken, or other processes have given memory
/// back.
fn try_again_later(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EAGAIN | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}

/// An operation's result as the kernel gives it: a count or a negated error number.
fn check(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Highest generation of a connection slot that user data can carry; 0 follows it.
pub(super) const GENERATION_MAX: u32 = (1 << 28) - 1;

/// User data of operations whose completion is not looked at.
const SILENT: u64 = 0;

/// Entries of the submission queue; a full one is submitted at once.
const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue; past it the kernel keeps completions itself until entered.
const COMPLETIONS: u32 = 8192;

/// `IORING_ENTER_GETEVENTS`: run deferred work and post its completions.
const ENTER_GETEVENTS: u32 = 1;

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
