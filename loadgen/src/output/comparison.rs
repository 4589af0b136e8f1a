//! Several brokers side by side as a table of text.

use std::fmt;

use super::{grouped, table::load_of};
use crate::{
    compare::{Column, Figures, METRICS, Verdict},
    spread::Spread,
};

/// Shows the figures of one QoS through `Display`.
pub(crate) struct ComparisonTable<'a>(pub(crate) &'a Figures<'a>);

impl fmt::Display for ComparisonTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(run) = self.0.columns.iter().find_map(|column| column.runs.first()) else {
            return writeln!(f, "nothing was run");
        };
        let (settings, rounds) = (&run.settings, self.0.rounds);
        writeln!(f, "{}", load_of(settings))?;
        let (secs, warm) = (settings.secs, settings.warm_secs);
        let rounds =
            if rounds == 1 { "1 round".to_owned() } else { format!("medians of {rounds} rounds") };
        write!(f, "{rounds} of {secs} s after {warm} s of warm-up")?;
        let Some((first, others)) = self.0.columns.split_first() else { return Ok(()) };
        if !others.is_empty() {
            write!(f, "; ratios to {} (lowest to highest of a round)", first.name)?;
        }
        writeln!(f)?;
        // At least the first alone.
        let blocks = others.chunks(OTHERS_ABREAST).map(Some);
        for block in blocks.chain(others.is_empty().then_some(None)) {
            write_block(f, first, block.unwrap_or_default())?;
        }
        self.write_doubts(f)
    }
}

impl ComparisonTable<'_> {
    fn write_doubts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut begun = false;
        for column in &self.0.columns {
            for doubt in column.doubts() {
                if !std::mem::replace(&mut begun, true) {
                    writeln!(f)?;
                }
                writeln!(f, "! {}: {doubt}", column.name)?;
            }
        }
        Ok(())
    }
}

fn write_block(
    f: &mut fmt::Formatter<'_>,
    first: &Column<'_>,
    others: &[Column<'_>],
) -> fmt::Result {
    let heading = |column: &Column<'_>| {
        let mark = if column.verdict() == Verdict::Sound { "" } else { " !" };
        format!("{}{mark}", column.name)
    };
    let mut text = format!("{:<NAME_WIDTH$}{:>VALUE_WIDTH$}", "", heading(first));
    for other in others {
        text += &format!("{:>VALUE_WIDTH$}{:>RATIO_WIDTH$}", heading(other), "ratio");
    }
    writeln!(f, "\n{text}")?;
    for metric in &METRICS {
        let value = |column: &Column<'_>| column.spread(metric).map(|of| figure(of.median));
        let ratio = |other: &Column<'_>| {
            other.ratio(first, metric).filter(|_| metric.has_ratio).map(ratio_in_words)
        };
        write_row(f, metric.name, value(first), others.iter().map(|one| (value(one), ratio(one))))?;
    }
    let lost = |column: &Column<'_>| column.lost().map(grouped);
    write_row(f, "lost in all rounds", lost(first), others.iter().map(|one| (lost(one), None)))
}

/// The first broker's value, and those of the others with their ratios. Nothing if nobody has one.
fn write_row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    first: Option<String>,
    others: impl Iterator<Item = (Option<String>, Option<String>)>,
) -> fmt::Result {
    let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let mut has_any = first.is_some();
    let mut text = format!("{name:<NAME_WIDTH$}{:>VALUE_WIDTH$}", shown(first));
    for (value, ratio) in others {
        has_any |= value.is_some();
        let (value, ratio) = (shown(value), ratio.unwrap_or_default());
        text += &format!("{value:>VALUE_WIDTH$}{ratio:>RATIO_WIDTH$}");
    }
    if has_any { writeln!(f, "{}", text.trim_end()) } else { Ok(()) }
}

/// With a mark if the rounds do not agree on which is larger.
fn ratio_in_words(ratio: Spread) -> String {
    if ratio.min == ratio.max {
        return figure(ratio.median);
    }
    let mark = if ratio.holds_one() { "~" } else { "" };
    let Spread { median, min, max, .. } = ratio;
    format!("{mark}{} ({}..{})", figure(median), figure(min), figure(max))
}

/// About three digits, all those before the point.
fn figure(value: f64) -> String {
    if value >= 100.0 {
        grouped(value.round() as u64)
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

const NAME_WIDTH: usize = 24;
const VALUE_WIDTH: usize = 14;
const RATIO_WIDTH: usize = 23;

/// Brokers beside the first in one block: more would not fit into a terminal.
const OTHERS_ABREAST: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::samples::{comparison, run},
        scenario::Pace,
    };

    #[test]
    fn three_digits_are_enough() {
        let values = [0.0, 0.456, 9.994, 12.34, 99.94, 123.4, 123_456.7];
        let texts = ["0.00", "0.46", "9.99", "12.3", "99.9", "123", "123,457"];
        assert_eq!(values.map(figure), texts);
    }

    #[test]
    fn brokers_stand_side_by_side_with_their_ratios_and_doubts() {
        let comparison = comparison(Pace::Window(4), 2);
        let mut results = Vec::new();
        for (round, of_a, of_b) in [(1, 1000.0, 500.0), (2, 1200.0, 480.0)] {
            results.push(run(&comparison, 0, round, of_a));
            results.push(run(&comparison, 1, round, of_b));
        }
        results[3].violations.push("3 lost".to_owned());
        results[3].whole_run.lost = 3;
        let figures = Figures::of(&comparison, &results).remove(0);
        let text = ComparisonTable(&figures).to_string();
        let expected = "\
p2p QoS 0: 50 publishers, 50 subscribers, window 4, 64 bytes, MQTT 3.1.1 over tcp
medians of 2 rounds of 10 s after 2 s of warm-up; ratios to a (lowest to highest of a round)

                                     a           b !                  ratio
deliveries/s                     1,100           490      0.45 (0.40..0.50)
latency p50 us                     100           100                   1.00
latency p99 us                     100           100                   1.00
latency p99.9 us                   100           100                   1.00
generator busy %                  0.00          0.00
lost in all rounds                   0             3

! b: round 2: FAILED: 3 lost
";
        assert_eq!(text, expected, "{text}");
    }
}
