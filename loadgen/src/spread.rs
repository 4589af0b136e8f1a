//! The middle and the ends of what several rounds have shown.

/// Of one value or more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) count: usize,
}

impl Spread {
    /// None if there are no values; those that are no numbers do not count.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (count, &min, &max) = (values.len(), values.first()?, values.last()?);
        let median = f64::midpoint(values[(count - 1) / 2], values[count / 2]);
        Some(Self { median, min, max, count })
    }

    /// Whether some round of the one was within the rounds of the other: their order may be chance.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }

    /// Of ratios: whether none is as likely as some.
    pub(crate) fn holds_one(&self) -> bool {
        (self.min..=self.max).contains(&1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_and_what_is_no_number_does_not_count() {
        let spread = |median, min, max, count| Some(Spread { median, min, max, count });
        for (values, expected) in [
            (vec![3.0], spread(3.0, 3.0, 3.0, 1)),
            (vec![3.0, 1.0, 2.0], spread(2.0, 1.0, 3.0, 3)),
            (vec![9.0, 1.0, 4.0], spread(4.0, 1.0, 9.0, 3)),
            (vec![4.0, 2.0], spread(3.0, 2.0, 4.0, 2)),
            (vec![9.0, 1.0, 4.0, 6.0], spread(5.0, 1.0, 9.0, 4)),
            (vec![f64::NAN, 5.0], spread(5.0, 5.0, 5.0, 1)),
            (vec![f64::MAX, f64::MAX], spread(f64::MAX, f64::MAX, f64::MAX, 2)),
            (vec![], None),
        ] {
            assert_eq!(Spread::of(values), expected);
        }
    }
}
