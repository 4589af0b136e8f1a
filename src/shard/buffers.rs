//! The receive buffers that a shard lends to the kernel: one mapping, one ring of descriptions.
//!
//! The kernel takes a buffer when bytes arrive and names it in the completion; [`BufferPool::give_back`]
//! returns it. Knows nothing of connections. Lives and dies with the ring of its shard.

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

/// `BUFFERS` buffers of `BUFFER_BYTES` each, registered as one group.
pub(super) struct BufferPool {
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
    pub(super) fn new(ring: &IoUring) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no other memory.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                MAPPING_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut pool = Self { memory: memory.cast(), tail: 0, in_use: 0 };
        // SAFETY: the address is page aligned and holds room for BUFFERS entries; it stays mapped
        // until the ring is gone (`Ring` drops the pool after it, or leaks it).
        unsafe { ring.submitter().register_buf_ring_with_flags(memory as u64, BUFFERS, GROUP, 0)? };
        pool.lend_more();
        Ok(pool)
    }

    /// Lends further buffers, if there are any: the kernel ran short. It fills them in the order in which they
    /// come back, so the fewer take turns, the likelier one is still in the cache.
    pub(super) fn lend_more(&mut self) {
        let more = self.in_use..BUFFERS.min(self.in_use + BUFFERS_STEP);
        self.in_use = more.end;
        more.for_each(|buffer| self.lend(buffer));
        self.publish();
    }

    /// The buffer that a completion names, with the number of bytes it says are there.
    pub(super) fn take(&self, buffer: u16, bytes: u32) -> Filled {
        assert!(buffer < BUFFERS && bytes <= BUFFER_BYTES, "the kernel names buffers it was lent");
        Filled { buffer, bytes }
    }

    /// The received bytes.
    pub(super) fn bytes<'a>(&'a self, filled: &'a Filled) -> &'a [u8] {
        // SAFETY: `take` checked the bounds, the memory is mapped for the pool's life, and the
        // kernel does not write to a buffer between its completion and `give_back`.
        unsafe { std::slice::from_raw_parts(self.address(filled.buffer), filled.bytes as usize) }
    }

    /// Lends the buffer to the kernel again.
    pub(super) fn give_back(&mut self, filled: Filled) {
        self.lend(filled.buffer);
        self.publish();
    }

    fn lend(&mut self, buffer: u16) {
        let position = (self.tail & (BUFFERS - 1)) as usize;
        let address = self.address(buffer) as u64;
        // SAFETY: `position` is below BUFFERS, so the entry lies in the mapping. The kernel reads
        // entries only below the published tail, so nobody reads this one now. The entry's last
        // field, which overlaps the tail in entry 0, is not touched by these setters.
        let entry = unsafe { &mut *self.memory.cast::<BufRingEntry>().add(position) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail field is an aligned u16 in the first entry; the kernel reads it with
        // acquire semantics and never writes it.
        let tail = unsafe { &*BufRingEntry::tail(self.memory.cast()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        // SAFETY: `buffer` is below BUFFERS (checked in `take`, constant in `new`).
        unsafe { self.memory.add(DESCRIPTIONS_BYTES + buffer as usize * BUFFER_BYTES as usize) }
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length; `Ring` drops the pool only once
        // no operation can write to it.
        unsafe { libc::munmap(self.memory.cast(), MAPPING_BYTES) };
    }
}

/// The group's number on the shard's ring; there is only one.
pub(super) const GROUP: u16 = 0;

/// Buffers of one shard. When all are filled, receives end with ENOBUFS and are armed again.
pub(super) const BUFFERS: u16 = 512;

/// How many are lent at first, and more each time that they are all filled.
const BUFFERS_STEP: u16 = 32;

/// Size of one buffer: the most that one completion carries.
pub(super) const BUFFER_BYTES: u32 = 8 * 1024;

const DESCRIPTIONS_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();
const MAPPING_BYTES: usize = DESCRIPTIONS_BYTES + BUFFERS as usize * BUFFER_BYTES as usize;

const _: () = assert!(BUFFERS.is_power_of_two(), "the kernel masks positions");
const _: () = assert!(DESCRIPTIONS_BYTES.is_multiple_of(4096), "buffers start on a page");
