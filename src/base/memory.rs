//! How full the memory of the process is, in steps, and when each begins and ends. Knows no allocator and nothing of
//! what is done at a step.

use super::{Time, limits};

/// A step; each includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum MemoryLevel {
    /// There is enough.
    #[default]
    Normal,
    /// Connections that publish are not read from.
    PublishersWait,
    /// CONNECT is refused.
    NoNewClients,
    /// Those for which most waits are disconnected, and SUBSCRIBE is refused.
    SlowestLeave,
    /// That did not help, so what is published is read and refused.
    Full,
}

impl MemoryLevel {
    /// All of them, in their order.
    pub const ALL: [Self; 5] =
        [Self::Normal, Self::PublishersWait, Self::NoNewClients, Self::SlowestLeave, Self::Full];

    /// What happens at it, for the log.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Normal => "everything goes on as usual",
            Self::PublishersWait => "clients that publish are not read from",
            Self::NoNewClients => "clients that publish wait and new ones are refused",
            Self::SlowestLeave => {
                "clients that publish wait, new ones are refused, and those that do not take what \
                 waits for them are disconnected"
            }
            Self::Full => {
                "nothing has freed enough of it: publications, subscriptions and new clients are \
                 refused"
            }
        }
    }

    /// Percent of the budget at which it begins by what is used.
    const fn begins_at_percent(self) -> Option<u64> {
        match self {
            Self::Normal => Some(0),
            Self::PublishersWait => Some(limits::MEMORY_PERCENT_PUBLISHERS),
            Self::NoNewClients => Some(limits::MEMORY_PERCENT_CLIENTS),
            Self::SlowestLeave => Some(limits::MEMORY_PERCENT_SLOWEST),
            Self::Full => None,
        }
    }
}

/// What is worth a line in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryNews {
    /// This step, which none since the last calm has reached.
    Reached(MemoryLevel),
    /// It has been over for a while; this one holds.
    Calm(MemoryLevel),
}

/// Finds the step from what is used, one look after the other.
#[derive(Debug)]
pub struct MemoryGauge {
    bytes_max: u64,
    level: MemoryLevel,
    /// Least that was used since it is not normal, and when that was found.
    lowest: (u64, Time),
    /// Whether it has not gone down for long, and was not normal since.
    is_stalled: bool,
    /// The highest step that was told and not taken back.
    told: MemoryLevel,
    /// Since when the step has been lower than that.
    lower_since: Option<Time>,
}

impl MemoryGauge {
    /// For a budget of so many bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            level: MemoryLevel::Normal,
            lowest: (0, Time::default()),
            is_stalled: false,
            told: MemoryLevel::Normal,
            lower_since: None,
        }
    }

    /// Takes note of how many bytes are used. Returns the step that holds now.
    pub fn look(&mut self, used: u64, now: Time) -> MemoryLevel {
        let holds = |level: &MemoryLevel| {
            let percent = level.begins_at_percent()?;
            let is_entered = *level <= self.level;
            let percent = percent.saturating_sub(if is_entered { HYSTERESIS_PERCENT } else { 0 });
            (used >= self.part(percent)).then_some(*level)
        };
        let by_bytes = MemoryLevel::ALL.iter().rev().find_map(holds).unwrap_or_default();
        if by_bytes == MemoryLevel::Normal {
            self.is_stalled = false;
        } else if self.level == MemoryLevel::Normal
            || used + self.bytes_max / PROGRESS_PARTS < self.lowest.0
        {
            self.lowest = (used, now);
        }
        self.level = by_bytes.max(self.by_time(by_bytes, now));
        self.level
    }

    /// Bytes that have to go until fewer clients have to.
    pub fn excess(&self, used: u64) -> u64 {
        let percent = match self.is_stalled {
            true => limits::MEMORY_PERCENT_PUBLISHERS,
            false => limits::MEMORY_PERCENT_SLOWEST,
        };
        used.saturating_sub(self.part(percent - HYSTERESIS_PERCENT))
    }

    /// Whether looks are due while nothing happens.
    pub fn is_watchful(&self) -> bool {
        self.level > MemoryLevel::Normal || self.told > MemoryLevel::Normal
    }

    /// What there is to tell after a look: each step once, however often it comes and goes within some seconds.
    pub fn news(&mut self, now: Time) -> Option<MemoryNews> {
        if self.level >= self.told {
            self.lower_since = None;
            let is_new = self.level > self.told;
            self.told = self.level;
            return is_new.then_some(MemoryNews::Reached(self.level));
        }
        let since = *self.lower_since.get_or_insert(now);
        if now < since.plus_secs(limits::MEMORY_CALM_SECS) {
            return None;
        }
        self.lower_since = None;
        self.told = self.level;
        Some(MemoryNews::Calm(self.level))
    }

    /// The step because of how long nothing has changed.
    fn by_time(&mut self, by_bytes: MemoryLevel, now: Time) -> MemoryLevel {
        if by_bytes == MemoryLevel::Normal {
            return MemoryLevel::Normal;
        }
        let (_, since) = self.lowest;
        self.is_stalled |= now >= since.plus_secs(limits::MEMORY_STALL_SECS);
        let is_hopeless = now >= since.plus_secs(2 * limits::MEMORY_STALL_SECS);
        match self.is_stalled {
            true if is_hopeless || self.level == MemoryLevel::Full => MemoryLevel::Full,
            true => MemoryLevel::SlowestLeave,
            false => MemoryLevel::Normal,
        }
    }

    fn part(&self, percent: u64) -> u64 {
        (u128::from(self.bytes_max) * u128::from(percent) / 100) as u64
    }
}

/// A step ends so much below where it begins.
const HYSTERESIS_PERCENT: u64 = 5;

/// What is used has to become less by this part of the budget to count as progress.
const PROGRESS_PARTS: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use MemoryLevel::*;

    const MIB: u64 = 1 << 20;

    fn at(secs: u64) -> Time {
        Time::from_millis(secs * 1000)
    }

    #[test]
    fn steps_begin_by_what_is_used_and_end_a_little_lower() {
        let mut gauge = MemoryGauge::new(100 * MIB);
        for (used, expected) in [
            (79, Normal),
            (80, PublishersWait),
            (76, PublishersWait),
            (89, PublishersWait),
            (90, NoNewClients),
            (86, NoNewClients),
            (84, PublishersWait),
            (95, SlowestLeave),
            (91, SlowestLeave),
            (89, NoNewClients),
            (200, SlowestLeave),
            (74, Normal),
            (76, Normal),
        ] {
            assert_eq!(gauge.look(used * MIB, at(1)), expected, "{used}");
        }
    }

    #[test]
    fn who_waits_in_vain_makes_the_slowest_leave_and_is_refused_at_last() {
        let mut gauge = MemoryGauge::new(100 * MIB);
        let stall = limits::MEMORY_STALL_SECS;
        assert_eq!(gauge.look(81 * MIB, at(10)), PublishersWait);
        assert_eq!(gauge.look(82 * MIB, at(9 + stall)), PublishersWait);
        assert_eq!(gauge.look(82 * MIB, at(10 + stall)), SlowestLeave);
        assert_eq!(gauge.excess(82 * MIB), 7 * MIB, "until publishers go on");
        assert_eq!(gauge.look(78 * MIB, at(11 + stall)), SlowestLeave, "until they do");
        assert_eq!(gauge.look(78 * MIB, at(10 + 2 * stall)), SlowestLeave, "that was progress");
        assert_eq!(gauge.look(78 * MIB, at(11 + 3 * stall)), Full);
        assert_eq!(gauge.look(77 * MIB, at(12 + 3 * stall)), Full);
        assert_eq!(gauge.look(74 * MIB, at(13 + 3 * stall)), Normal);
        assert_eq!(gauge.look(81 * MIB, at(14 + 3 * stall)), PublishersWait, "from the start");
    }

    #[test]
    fn slow_progress_is_no_stall() {
        let mut gauge = MemoryGauge::new(1000 * MIB);
        for second in 0..40 {
            assert_eq!(gauge.look((840 - second) * MIB, at(second)), PublishersWait);
        }
    }

    #[test]
    fn each_step_is_told_once_until_it_is_calm() {
        let mut gauge = MemoryGauge::new(100 * MIB);
        let mut told = Vec::new();
        let calm = limits::MEMORY_CALM_SECS;
        for (second, used) in
            [(1, 10), (2, 81), (3, 10), (4, 81), (5, 91), (6, 10), (6 + calm, 10), (7 + calm, 10)]
        {
            gauge.look(used * MIB, at(second));
            told.extend(gauge.news(at(second)).map(|news| (second, news)));
            assert_eq!(gauge.is_watchful(), (2..6 + calm).contains(&second), "{second}");
        }
        let expected = [
            (2, MemoryNews::Reached(PublishersWait)),
            (5, MemoryNews::Reached(NoNewClients)),
            (6 + calm, MemoryNews::Calm(Normal)),
        ];
        assert_eq!(told, expected);
    }
}
