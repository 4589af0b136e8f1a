//! Ids in an order that the caller defines, in runs of bounded length: a binary
//! search finds a place among millions, and an insertion moves a few hundred
//! ids instead of all. Knows no key.

/// Ids in order. The order is that of what the ids stand for: every search
/// brings a test that holds for all ids up to some place and for none behind it.
pub(super) struct Order {
    /// No run is empty.
    runs: Vec<Vec<u32>>,
}

/// A place between two ids, good until the order changes.
#[derive(Clone, Copy)]
pub(super) struct Place {
    run: usize,
    at: usize,
}

impl Order {
    pub(super) const fn new() -> Self {
        Self { runs: Vec::new() }
    }

    /// The place of the first id that `is_before` does not hold for.
    pub(super) fn seek(&self, is_before: impl Fn(u32) -> bool) -> Place {
        let run = self.runs.partition_point(|run| run.last().is_some_and(|&id| is_before(id)));
        let at = self.runs.get(run).map_or(0, |run| run.partition_point(|&id| is_before(id)));
        Place { run, at }
    }

    /// The id at a place; `None` at the end.
    pub(super) fn get(&self, place: Place) -> Option<u32> {
        self.runs.get(place.run)?.get(place.at).copied()
    }

    /// The place behind the id at `place`.
    pub(super) fn next(&self, Place { run, at }: Place) -> Place {
        match self.runs.get(run) {
            Some(ids) if at + 1 < ids.len() => Place { run, at: at + 1 },
            _ => Place { run: run + 1, at: 0 },
        }
    }

    /// Puts an id before the one at `place`.
    pub(super) fn insert(&mut self, Place { run, at }: Place, id: u32) {
        let Some(ids) = self.runs.get_mut(run) else { return self.append(id) };
        ids.insert(at, id);
        if ids.len() == RUN_MAX {
            let upper = ids.split_off(RUN_MAX / 2);
            ids.shrink_to(RUN_MAX * 3 / 4);
            self.runs.insert(run + 1, upper);
        }
    }

    /// Takes out the id at `place`.
    pub(super) fn remove(&mut self, Place { run, at }: Place) {
        self.runs[run].remove(at);
        let len = self.runs[run].len();
        let next_len = self.runs.get(run + 1).map_or(RUN_MAX, Vec::len);
        if len == 0 {
            self.runs.remove(run);
        } else if len + next_len <= RUN_MAX / 2 {
            let next = self.runs.remove(run + 1);
            self.runs[run].extend(next);
        }
    }

    /// Puts an id behind all others. Runs are filled here, not halved: topics
    /// often arrive in their order.
    fn append(&mut self, id: u32) {
        match self.runs.last_mut() {
            Some(last) if last.len() + 1 < RUN_MAX => last.push(id),
            _ => self.runs.push(vec![id]),
        }
    }

    #[cfg(test)]
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }
}

/// Length at which a run is halved: 2 KiB of ids, and a list of runs that is
/// cheap to insert into at ten million ids.
const RUN_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::testing::Random;

    fn all(order: &Order) -> Vec<u32> {
        let mut place = order.seek(|_| false);
        let mut ids = Vec::new();
        while let Some(id) = order.get(place) {
            ids.push(id);
            place = order.next(place);
        }
        ids
    }

    #[test]
    fn ids_stay_in_order() {
        let mut random = Random(3);
        let (mut order, mut model) = (Order::new(), std::collections::BTreeSet::new());
        for step in 0..30_000 {
            let id = random.below(20_000) as u32;
            let place = order.seek(|other| other < id);
            let there = order.get(place) == Some(id);
            assert_eq!(there, model.contains(&id));
            match there {
                true if step > 10_000 => {
                    order.remove(place);
                    model.remove(&id);
                }
                false if step < 20_000 => {
                    order.insert(place, id);
                    model.insert(id);
                }
                _ => {}
            }
        }
        assert_eq!(all(&order), model.iter().copied().collect::<Vec<_>>());
        for id in model {
            order.remove(order.seek(|other| other < id));
        }
        assert_eq!(order.runs(), 0);
    }

    #[test]
    fn runs_are_filled_by_ids_that_arrive_in_order() {
        let mut order = Order::new();
        for id in 0..5110 {
            order.insert(order.seek(|other| other < id), id);
        }
        assert_eq!(order.runs(), 10);
        assert_eq!(all(&order), (0..5110).collect::<Vec<_>>());
    }
}
