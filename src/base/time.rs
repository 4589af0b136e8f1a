//! Time as a value: the shell reads the clock, everything else is told.

use std::num::NonZeroU64;

/// Milliseconds since the process started its clock; never runs backwards. An `Option` of it is no
/// larger: there are several for each connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Time(NonZeroU64);

impl Default for Time {
    fn default() -> Self {
        Self::from_millis(0)
    }
}

impl Time {
    /// Later than any other.
    pub const MAX: Self = Self(NonZeroU64::MAX);

    /// A point `millis` milliseconds after the clock's start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(millis))
    }

    /// Milliseconds since the clock's start.
    pub const fn as_millis(self) -> u64 {
        self.0.get() - 1
    }

    /// This point moved later; stays at the end of time instead of overflowing.
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// This point moved later by whole seconds.
    pub const fn plus_secs(self, secs: u64) -> Self {
        self.plus_millis(secs.saturating_mul(1000))
    }

    /// Milliseconds from `earlier` to this point, 0 if `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }
}

/// Milliseconds since the Unix epoch: the only time that means something after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct WallTime(pub u64);

/// What the time of day was when the process started its clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeOrigin(pub WallTime);

impl TimeOrigin {
    /// The time of day at a point of the process's clock.
    pub const fn wall(self, time: Time) -> WallTime {
        WallTime(self.0.0.saturating_add(time.as_millis()))
    }

    /// The point of the process's clock at a time of day: its start for all that was before.
    pub const fn time(self, wall: WallTime) -> Time {
        Time::from_millis(wall.0.saturating_sub(self.0.0))
    }
}
