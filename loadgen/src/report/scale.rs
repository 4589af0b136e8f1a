//! From values to places along an axis, and which places get a tick.
//!
//! Total: whatever the values, a scale has a length, at least two ends and at most some twenty ticks.

use super::words;

/// How values spread along an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Evenly, from 0.
    Linear,
    /// Each power of ten takes the same room; from 1.
    Log,
    /// Quantiles: each further nine takes the same room, as on HdrHistogram's plots.
    Percentile,
}

/// One axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    kind: Kind,
    /// Ends, in transformed values.
    low: f64,
    high: f64,
    /// Where the ends are drawn.
    from: f64,
    to: f64,
}

/// A place on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) place: f64,
    /// Empty for a line between the labelled ones.
    pub(super) label: String,
}

impl Scale {
    /// Holds all of `values` that can be drawn, with even ends.
    pub(super) fn new(kind: Kind, values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| can_be_drawn(*value)) {
            let value = transformed(kind, value);
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let (low, high) = match kind {
            Kind::Linear => {
                let step = step(high);
                (0.0, ((high / step - 1e-9).ceil() * step).max(step))
            }
            Kind::Log => {
                let (low, high) = (even(low, false), even(high, true));
                (low, if high - low < 0.5 { low + 1.0 } else { high })
            }
            Kind::Percentile => (0.0, high.max(1.0)),
        };
        Self { kind, low, high, from: 0.0, to: 1.0 }
    }

    /// The same from one place to another.
    pub(super) fn between(self, from: f64, to: f64) -> Self {
        Self { from, to, ..self }
    }

    /// Where the value is drawn: never beyond the ends.
    pub(super) fn place(&self, value: f64) -> f64 {
        self.place_of(transformed(self.kind, value))
    }

    /// From the low end on.
    pub(super) fn ticks(&self, format: fn(f64) -> String) -> Vec<Tick> {
        match self.kind {
            Kind::Linear => {
                let step = step(self.high);
                let count = (self.high / step).round() as usize;
                let values = (0..=count.min(TICKS_MAX)).map(|at| at as f64 * step);
                values.map(|value| self.tick(value, format(value))).collect()
            }
            Kind::Log => self.log_ticks(format),
            Kind::Percentile => {
                let nines = (1..=self.high as usize).map(|nines| 1.0 - 10f64.powi(-(nines as i32)));
                let quantiles = std::iter::once(0.5).chain(nines);
                quantiles.map(|quantile| self.tick(quantile, words::percentile(quantile))).collect()
            }
        }
    }

    fn log_ticks(&self, format: fn(f64) -> String) -> Vec<Tick> {
        let decades = self.high - self.low;
        let every = (decades / 8.0).ceil().max(1.0) as usize;
        let labelled: &[u32] = if decades <= 2.5 { &[1, 2, 5] } else { &[1] };
        let lines = if decades <= 5.0 { 1..10 } else { 1..2 };
        let mut ticks = Vec::new();
        for decade in (self.low.floor() as i32..=self.high.floor() as i32).step_by(every) {
            for digit in lines.clone() {
                let value = f64::from(digit) * 10f64.powi(decade);
                let at = value.log10();
                if at < self.low - 1e-9 || at > self.high + 1e-9 {
                    continue;
                }
                let label = if labelled.contains(&digit) { format(value) } else { String::new() };
                ticks.push(self.tick(value, label));
            }
        }
        ticks
    }

    fn tick(&self, value: f64, label: String) -> Tick {
        Tick { place: self.place(value), label }
    }

    fn place_of(&self, transformed: f64) -> f64 {
        let share = (transformed - self.low) / (self.high - self.low);
        // The comparison with NaN fails: it is drawn at the low end.
        let share = if share > 0.0 { share.min(1.0) } else { 0.0 };
        self.from + share * (self.to - self.from)
    }
}

/// Neither below zero nor so far out that arithmetic with it says nothing.
pub(super) fn can_be_drawn(value: f64) -> bool {
    (0.0..=DRAWN_MAX).contains(&value)
}

fn transformed(kind: Kind, value: f64) -> f64 {
    match kind {
        Kind::Linear => value,
        Kind::Log => value.max(1.0).log10(),
        Kind::Percentile => -(1.0 - value.min(QUANTILE_MAX)).log10(),
    }
}

/// The distance of ticks, a 1, 2 or 5 with zeros, of which some five reach up to the value.
fn step(high: f64) -> f64 {
    let rough = if high > f64::MIN_POSITIVE * 1e3 { high / 5.0 } else { 0.2 };
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough * 0.999);
    step.unwrap_or(10.0) * power
}

/// The logarithm of the next 1, 2 or 5 with zeros.
fn even(log: f64, up: bool) -> f64 {
    let (decade, rest) = (log.floor(), log - log.floor());
    let places = [0.0, 2f64.log10(), 5f64.log10(), 1.0];
    let place = match up {
        true => places.into_iter().find(|place| *place >= rest - 1e-9).unwrap_or(1.0),
        false => places.into_iter().rev().find(|place| *place <= rest + 1e-9).unwrap_or(0.0),
    };
    decade + place
}

/// Past it a sum or a product may lose its meaning.
const DRAWN_MAX: f64 = 1e20;

/// Nine nines: no run has more messages.
const QUANTILE_MAX: f64 = 0.999_999_999;

const TICKS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(kind: Kind, values: &[f64], format: fn(f64) -> String) -> Vec<String> {
        let ticks = Scale::new(kind, values.iter().copied()).ticks(format);
        ticks.into_iter().map(|tick| tick.label).filter(|label| !label.is_empty()).collect()
    }

    #[test]
    fn ticks_are_even_numbers() {
        for (kind, values, expected) in [
            (Kind::Linear, [3.0, 9.0], vec!["0", "2", "4", "6", "8", "10"]),
            (
                Kind::Linear,
                [0.0, 431_000.0],
                vec!["0", "100 k", "200 k", "300 k", "400 k", "500 k"],
            ),
            (Kind::Linear, [0.0, 0.0], vec!["0", "0.05", "0.1", "0.15", "0.2"]),
            (Kind::Log, [120.0, 900.0], vec!["100", "200", "500", "1 k"]),
            (Kind::Log, [1.0, 90_000.0], vec!["1", "10", "100", "1 k", "10 k", "100 k"]),
            (Kind::Log, [7.0, 7.0], vec!["5", "10", "20", "50"]),
            (Kind::Percentile, [0.0, 0.9999], vec!["50", "90", "99", "99.9", "99.99"]),
        ] {
            let format = if kind == Kind::Percentile { words::number } else { words::short };
            assert_eq!(labels(kind, &values, format), expected, "{kind:?} {values:?}");
        }
    }

    #[test]
    fn places_keep_to_the_axis_whatever_the_value() {
        let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-320, 1.0, 1e20, 1e300, f64::MAX];
        for kind in [Kind::Linear, Kind::Log, Kind::Percentile] {
            for one in odd {
                for other in odd {
                    let scale = Scale::new(kind, [one, other].into_iter()).between(10.0, 90.0);
                    let ticks = scale.ticks(words::short);
                    assert!((2..=60).contains(&ticks.len()), "{kind:?} {one} {other}: {ticks:?}");
                    let ticks = ticks.into_iter().map(|tick| tick.place);
                    for place in odd.map(|value| scale.place(value)).into_iter().chain(ticks) {
                        assert!((10.0..=90.0).contains(&place), "{kind:?} {one} {other}: {place}");
                    }
                }
            }
        }
    }
}
