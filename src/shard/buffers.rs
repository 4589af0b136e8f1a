//! The receive buffers that a shard lends to the kernel: for each group one mapping, one ring of descriptions.
//!
//! The kernel takes a buffer when bytes arrive and names it in the completion; [`BufferPool::give_back`]
//! returns it. Who sends much has buffers apart, so that those of all others do not run short. Knows nothing of
//! connections. Lives and dies with the ring of its shard.

use std::{
    io, ptr,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

/// Bytes that a receive placed in one buffer. Owning it means that the kernel does not write there;
/// it must go back with [`BufferPool::give_back`], or the pool is one buffer smaller.
#[must_use = "a buffer that is not given back is lost to the pool"]
pub struct Filled {
    buffer: u16,
    bytes: u32,
}

impl Filled {
    /// The group of the buffer, as an index of [`GROUPS`].
    pub(super) const fn group(&self) -> usize {
        Group::of(self.buffer)
    }

    /// How many bytes there are.
    pub(super) const fn len(&self) -> usize {
        self.bytes as usize
    }
}

/// A group of buffers that receives take turns in.
pub(super) struct Group {
    /// Its number on the shard's ring.
    pub(super) number: u16,
    /// The name of its first buffer: completions name a buffer and no group.
    first: u16,
    /// How many buffers there are. When all are filled, receives end with ENOBUFS and are armed again.
    pub(super) buffers: u16,
    /// How many are lent at first, and more each time that they are all filled.
    step: u16,
    /// Size of one buffer: the most that one completion carries.
    pub(super) buffer_bytes: u32,
}

impl Group {
    /// The group that the named buffer belongs to, as an index of [`GROUPS`].
    pub(super) const fn of(buffer: u16) -> usize {
        if buffer < BULK.first { 0 } else { 1 }
    }

    /// The kernel masks positions, and buffers start on a page behind the descriptions.
    const fn is_sound(&self) -> bool {
        self.buffers.is_power_of_two() && self.step > 0
    }

    const fn descriptions_bytes(&self) -> usize {
        (self.buffers as usize * size_of::<BufRingEntry>()).next_multiple_of(4096)
    }

    const fn mapping_bytes(&self) -> usize {
        self.descriptions_bytes() + self.buffers as usize * self.buffer_bytes as usize
    }
}

/// The buffers of one group, registered with the ring.
pub(super) struct BufferPool {
    group: &'static Group,
    /// The descriptions (read by the kernel), then the buffers (written by the kernel).
    memory: *mut u8,
    /// Total of buffers ever lent, modulo 2^16: the kernel's view of the ring's end.
    tail: u16,
    /// Those from 0 to here take turns.
    in_use: u16,
}

impl BufferPool {
    /// Maps the memory, touches all of it (so that the process does not grow with traffic) and
    /// registers it with the ring.
    pub(super) fn new(ring: &IoUring, group: &'static Group) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no other memory.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                group.mapping_bytes(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut pool = Self { group, memory: memory.cast(), tail: 0, in_use: 0 };
        let (buffers, number) = (group.buffers, group.number);
        // SAFETY: the address is page aligned and holds room for that many entries; it stays mapped
        // until the ring is gone (`Ring` drops the pool after it, or leaks it).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(memory as u64, buffers, number, 0)?
        };
        pool.lend_more();
        Ok(pool)
    }

    /// Lends further buffers, if there are any: the kernel ran short. It fills them in the order in which they
    /// come back, so the fewer take turns, the likelier one is still in the cache.
    pub(super) fn lend_more(&mut self) {
        let more = self.in_use..self.group.buffers.min(self.in_use + self.group.step);
        self.in_use = more.end;
        more.for_each(|place| self.lend(place));
        self.publish();
    }

    /// The buffer that a completion names, with the number of bytes it says are there.
    pub(super) fn take(&self, buffer: u16, bytes: u32) -> Filled {
        let Group { first, buffers, buffer_bytes, .. } = *self.group;
        let is_ours = buffer >= first && buffer - first < buffers;
        assert!(is_ours && bytes <= buffer_bytes, "the kernel names buffers it was lent");
        Filled { buffer, bytes }
    }

    /// The received bytes.
    pub(super) fn bytes<'a>(&'a self, filled: &'a Filled) -> &'a [u8] {
        // SAFETY: `take` checked the bounds, the memory is mapped for the pool's life, and the
        // kernel does not write to a buffer between its completion and `give_back`.
        unsafe { std::slice::from_raw_parts(self.address(self.place(filled)), filled.len()) }
    }

    /// Lends the buffer to the kernel again.
    pub(super) fn give_back(&mut self, filled: Filled) {
        self.lend(self.place(&filled));
        self.publish();
    }

    /// Where a buffer is in this pool. Another pool's would be a mistake in `Ring`, caught before any access.
    fn place(&self, filled: &Filled) -> u16 {
        let place = filled.buffer.wrapping_sub(self.group.first);
        assert!(place < self.group.buffers, "a buffer goes back to its own pool");
        place
    }

    fn lend(&mut self, place: u16) {
        let position = (self.tail & (self.group.buffers - 1)) as usize;
        let address = self.address(place) as u64;
        // SAFETY: `position` is below the number of buffers, so the entry lies in the mapping. The kernel reads
        // entries only below the published tail, so nobody reads this one now. The entry's last
        // field, which overlaps the tail in entry 0, is not touched by these setters.
        let entry = unsafe { &mut *self.memory.cast::<BufRingEntry>().add(position) };
        entry.set_addr(address);
        entry.set_len(self.group.buffer_bytes);
        entry.set_bid(self.group.first + place);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail field is an aligned u16 in the first entry; the kernel reads it with
        // acquire semantics and never writes it.
        let tail = unsafe { &*BufRingEntry::tail(self.memory.cast()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, place: u16) -> *mut u8 {
        let offset = usize::from(place) * self.group.buffer_bytes as usize;
        // SAFETY: `place` is below the number of buffers (checked in `place`, bounded in `lend_more`).
        unsafe { self.memory.add(self.group.descriptions_bytes() + offset) }
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length; `Ring` drops the pool only once
        // no operation can write to it.
        unsafe { libc::munmap(self.memory.cast(), self.group.mapping_bytes()) };
    }
}

/// Where everybody receives at first.
pub(super) const COMMON: Group =
    Group { number: 0, first: 0, buffers: 512, step: 32, buffer_bytes: 8 * 1024 };

/// Where a connection receives that has filled a buffer of `COMMON`. Together, such connections have at most this
/// much received and not handled.
pub(super) const BULK: Group =
    Group { number: 1, first: COMMON.buffers, buffers: 8, step: 8, buffer_bytes: 64 * 1024 };

/// All groups, in the order of their numbers.
pub(super) static GROUPS: [Group; 2] = [COMMON, BULK];

const _: () = assert!(COMMON.is_sound() && BULK.is_sound());
