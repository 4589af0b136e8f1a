//! The filters of one session, sorted: the list to undo when the session ends.
//! What they mean for routing is in the index.

use crate::topic::TopicFilter;

/// Sorted, without repetitions. One allocation for the usual few filters.
#[derive(Debug, Default)]
pub struct Subscriptions(Vec<TopicFilter>);

impl Subscriptions {
    /// Adds a filter; false if it was there.
    pub fn insert(&mut self, filter: TopicFilter) -> bool {
        match self.position(&filter) {
            Ok(_) => false,
            Err(at) => {
                if self.0.len() == self.0.capacity() && self.0.len() < GROW_EXACTLY_BELOW {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, filter);
                true
            }
        }
    }

    /// Takes a filter out; false if it was not there.
    pub fn remove(&mut self, filter: &TopicFilter) -> bool {
        self.position(filter).map(|at| self.0.remove(at)).is_ok()
    }

    /// Whether the filter is there.
    pub fn contains(&self, filter: &TopicFilter) -> bool {
        self.position(filter).is_ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All filters in order.
    pub fn iter(&self) -> impl Iterator<Item = &TopicFilter> {
        self.0.iter()
    }

    fn position(&self, filter: &TopicFilter) -> Result<usize, usize> {
        self.0.binary_search_by(|known| known.as_str().cmp(filter.as_str()))
    }
}

/// Most clients hold one or two filters: no spare room for them.
const GROW_EXACTLY_BELOW: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_kept_once_and_sorted() {
        let mut subscriptions = Subscriptions::default();
        let filter = |text: &str| TopicFilter::parse(text).unwrap();
        for text in ["b", "a", "c/#", "b", "a"] {
            subscriptions.insert(filter(text));
        }
        assert_eq!(
            subscriptions.iter().map(TopicFilter::as_str).collect::<Vec<_>>(),
            ["a", "b", "c/#"]
        );
        assert!(subscriptions.remove(&filter("b")) && !subscriptions.remove(&filter("b")));
        assert!(subscriptions.contains(&filter("a")) && subscriptions.len() == 2);
    }
}
