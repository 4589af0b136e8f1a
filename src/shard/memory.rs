//! How much memory the process uses, as its allocator knows it, and that all shards go by the same step of its budget.
//!
//! A look takes the allocator some 130 us, to add up its arenas. A shard that has a turn looks, one of all shards each
//! second, and every 100 ms from half of the budget on. A shard whose own thread has allocated much since the last look
//! does so at once: that is two counters of the thread, compared after every completion, so no burst passes the budget
//! unseen. In an idle broker nothing looks, unless memory is short.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

use tikv_jemalloc_ctl::{
    epoch, stats,
    thread::{ThreadLocal, allocatedp, deallocatedp},
};
use tracing::{error, info, warn};

use super::Shard;
use crate::base::{MemoryGauge, MemoryLevel, MemoryNews, Time, limits};

/// The budget of the process, and how far it is used. Shared by all shards.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    bytes_max: u64,
    shards: u64,
    meter: Mutex<Meter>,
    /// What the last look has found.
    looked_at_millis: AtomicU64,
    used: AtomicU64,
    excess: AtomicU64,
    level: AtomicU8,
    is_watchful: AtomicBool,
}

impl MemoryBudget {
    /// So many bytes for so many shards.
    pub(crate) fn new(bytes_max: u64, shards: u16) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            shards: shards.into(),
            meter: Mutex::new(Meter { gauge: MemoryGauge::new(bytes_max), looks: 0, others: 0 }),
            looked_at_millis: AtomicU64::new(0),
            used: AtomicU64::new(0),
            excess: AtomicU64::new(0),
            level: AtomicU8::new(0),
            is_watchful: AtomicBool::new(false),
        })
    }

    /// Looks at what is used, unless another shard does at the moment. True if another step holds now.
    fn look(&self, now: Time) -> bool {
        let Ok(mut meter) = self.meter.try_lock() else { return false };
        let used = meter.used();
        let gauge = &mut meter.gauge;
        let before = self.level();
        let level = gauge.look(used, now);
        self.looked_at_millis.store(now.as_millis(), Relaxed);
        self.used.store(used, Relaxed);
        self.excess.store(gauge.excess(used), Relaxed);
        self.level.store(level as u8, Relaxed);
        if let Some(news) = gauge.news(now) {
            self.tell(used, news);
        }
        self.is_watchful.store(gauge.is_watchful(), Relaxed);
        level != before
    }

    fn tell(&self, used: u64, news: MemoryNews) {
        let memory_bytes_max = self.bytes_max;
        match news {
            MemoryNews::Reached(level @ MemoryLevel::PublishersWait) => {
                warn!(used, memory_bytes_max, "memory is short: {}", level.explain());
            }
            MemoryNews::Reached(level) => {
                error!(used, memory_bytes_max, "memory is short: {}", level.explain());
            }
            MemoryNews::Calm(level @ MemoryLevel::Normal) => {
                info!(used, memory_bytes_max, "memory is no longer short: {}", level.explain());
            }
            MemoryNews::Calm(level) => {
                warn!(used, memory_bytes_max, "memory is less short: {}", level.explain());
            }
        }
    }

    fn level(&self) -> MemoryLevel {
        MemoryLevel::ALL[usize::from(self.level.load(Relaxed))]
    }

    fn looked_at(&self) -> Time {
        Time::from_millis(self.looked_at_millis.load(Relaxed))
    }
}

/// Finds out how much is used and what step that is.
#[derive(Debug)]
struct Meter {
    gauge: MemoryGauge,
    looks: u64,
    /// Bytes that the process has resident besides those of the allocator.
    others: u64,
}

impl Meter {
    /// What all threads have allocated and not freed, and whatever else of the process is resident: its program,
    /// stacks and rings. Not what the allocator keeps for the next to ask.
    fn used(&mut self) -> u64 {
        // None can fail: they exist since the allocator does.
        let _ = epoch::advance();
        if self.looks.is_multiple_of(LOOKS_AT_OTHERS) {
            let of_allocator = stats::resident::read().unwrap_or_default() as u64;
            self.others = resident_bytes().unwrap_or_default().saturating_sub(of_allocator);
        }
        self.looks += 1;
        stats::allocated::read().unwrap_or_default() as u64 + self.others
    }
}

/// What the process has resident, as the kernel counts it.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What one shard does about the budget, on its thread.
pub(super) struct MemoryWatch {
    budget: Arc<MemoryBudget>,
    allocated: ThreadLocal<u64>,
    freed: ThreadLocal<u64>,
    /// The look that `look_above` goes by.
    seen: Time,
    /// Look at once if this thread has more than that: bytes allocated less bytes freed, ever.
    look_above: i64,
    /// The step that the broker knows.
    level: MemoryLevel,
    /// When the slowest may be disconnected again.
    disconnect_at: Time,
}

impl MemoryWatch {
    /// For the current thread.
    pub(super) fn new(budget: Arc<MemoryBudget>) -> Option<Self> {
        let (Ok(allocated), Ok(freed)) = (allocatedp::read(), deallocatedp::read()) else {
            warn!("the allocator does not count: memory_bytes_max has no effect");
            return None;
        };
        let (seen, disconnect_at) = (Time::default(), Time::default());
        let level = MemoryLevel::Normal;
        Some(Self { budget, allocated, freed, seen, look_above: 0, level, disconnect_at })
    }

    /// Whether memory is so short that connections which are closed get little time.
    pub(super) fn is_urgent(&self) -> bool {
        self.level >= MemoryLevel::SlowestLeave
    }

    /// When to look although nothing happens.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let is_watchful = self.budget.is_watchful.load(Relaxed);
        is_watchful.then(|| now.plus_millis(limits::MEMORY_LOOK_MILLIS))
    }

    /// Whether this thread has allocated so much since the last look that it is time for one.
    fn has_grown(&self) -> bool {
        self.balance() > self.look_above
    }

    fn balance(&self) -> i64 {
        self.allocated.get().wrapping_sub(self.freed.get()) as i64
    }

    fn is_due(&self, now: Time) -> bool {
        let is_far = self.budget.used.load(Relaxed) < self.budget.bytes_max / 2;
        let pause =
            if is_far { limits::MEMORY_LOOK_MILLIS_FAR } else { limits::MEMORY_LOOK_MILLIS };
        now.millis_since(self.budget.looked_at()) >= pause
    }

    /// Goes by the last look, whoever made it: half of what is left until the first step, divided among all shards,
    /// may come before the next.
    fn go_by_last_look(&mut self) {
        let looked_at = self.budget.looked_at();
        if looked_at == self.seen && !self.has_grown() {
            return;
        }
        self.seen = looked_at;
        let MemoryBudget { bytes_max, shards, .. } = *self.budget;
        let first_step = bytes_max / 100 * limits::MEMORY_PERCENT_PUBLISHERS;
        let left = first_step.saturating_sub(self.budget.used.load(Relaxed)) / 2;
        let share = left.max(bytes_max / GROWTH_PARTS) / shards;
        self.look_above = self.balance().saturating_add_unsigned(share);
    }
}

impl Shard {
    /// Looks at how much memory is used, if it is time for that, and has the broker go by what any shard has found.
    pub(super) fn watch_memory(&mut self) {
        let Some(memory) = &mut self.memory else { return };
        if (memory.has_grown() || memory.is_due(self.now)) && memory.budget.look(self.now) {
            self.control.wake_all();
        }
        memory.go_by_last_look();
        let level = memory.budget.level();
        if level != memory.level {
            memory.level = level;
            self.broker.set_memory_level(self.now, level);
        }
        if memory.is_urgent() && self.now >= memory.disconnect_at {
            memory.disconnect_at = self.now.plus_millis(limits::MEMORY_DISCONNECT_MILLIS);
            let share = memory.budget.excess.load(Relaxed).div_ceil(memory.budget.shards);
            self.broker.disconnect_slowest(self.now, share);
            self.apply_effects();
        }
    }

    /// The same if what was just done has taken much.
    pub(super) fn watch_growth(&mut self) {
        if self.memory.as_ref().is_some_and(MemoryWatch::has_grown) {
            self.watch_memory();
        }
    }
}

/// Looks at what the allocator has for each at what is not of it, which costs more and changes little.
const LOOKS_AT_OTHERS: u64 = 32;

/// The part of the budget that may come between two looks however much of it is used.
const GROWTH_PARTS: u64 = 128;
