//! What is said of a log that is full: one line when it begins, and one when there has been room for a while,
//! however often both change in between.

use tracing::{error, info};

use super::Broker;
use crate::base::Time;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct RoomNotice {
    is_told_full: bool,
    /// When there will have been room for long enough.
    over_at: Option<Time>,
}

/// What there is to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    Full,
    Room,
}

impl RoomNotice {
    fn note(&mut self, now: Time, is_full: bool) -> Option<News> {
        if is_full {
            self.over_at = None;
            let is_known = std::mem::replace(&mut self.is_told_full, true);
            return (!is_known).then_some(News::Full);
        }
        if !self.is_told_full || *self.over_at.get_or_insert(now.plus_secs(CALM_SECS)) > now {
            return None;
        }
        *self = Self::default();
        Some(News::Room)
    }
}

impl Broker {
    /// When [`note_room`](Self::note_room) has something to say if nothing changes.
    pub(super) fn room_notice_at(&self) -> Option<Time> {
        self.durable.as_ref()?.room.over_at
    }

    /// Says so if the log has become full, or has had room again for a while.
    pub(super) fn note_room(&mut self) {
        let Some(durable) = &mut self.durable else { return };
        let log = &durable.log;
        let (shard, used, max) = (self.shard, log.bytes(), log.bytes_max());
        match durable.room.note(self.now, log.is_full()) {
            Some(News::Full) => error!(
                %shard,
                "the log is full: {used} of the {max} bytes that this shard has of storage_bytes_max are in use. \
                 What would have to be kept here is refused (0x97): new QoS 1 and 2 publications for persistent \
                 sessions, retained and delayed ones, new persistent sessions and their subscriptions; all else \
                 goes on. Raise storage_bytes_max, or make room: have clients take what waits for them, end \
                 sessions that nobody needs, clear retained messages"
            ),
            Some(News::Room) => {
                info!(%shard, "the log has room again: {used} of {max} bytes are in use");
            }
            None => {}
        }
    }
}

/// Room for less than that may be gone again at once.
const CALM_SECS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_full_now_and_then_is_one_pair_of_lines() {
        let mut notice = RoomNotice::default();
        let mut note = |secs: u64, is_full| {
            let news = notice.note(Time::from_millis(secs * 1000), is_full);
            (news, notice.over_at.map(|at| at.millis_since(Time::default()) / 1000))
        };
        assert_eq!(note(0, false), (None, None));
        assert_eq!(note(1, true), (Some(News::Full), None));
        assert_eq!(note(2, false), (None, Some(7)));
        assert_eq!(note(3, true), (None, None));
        assert_eq!(note(4, false), (None, Some(9)));
        assert_eq!(note(8, false), (None, Some(9)));
        assert_eq!(note(9, false), (Some(News::Room), None));
        assert_eq!(note(10, false), (None, None));
        assert_eq!(note(11, true), (Some(News::Full), None));
    }
}
