//! What the user reads while a measurement goes on and after it.
//!
//! - `live`: the line that shows each second how it is doing
//! - `table`: the summary of a run
//! - `comparison`: several brokers side by side
//! - `hlog`: each second's latency as an HdrHistogram log
//! - `prometheus`: a page of counters

mod comparison;
mod hlog;
mod live;
mod prometheus;
mod table;

pub(crate) use self::{
    comparison::ComparisonTable, hlog::HistogramLog, live::Live, prometheus::Prometheus,
    table::Table,
};

/// The number with a comma between each three digits.
pub(crate) fn grouped(number: u64) -> String {
    grouped_digits(&number.to_string())
}

/// The same of digits.
pub(crate) fn grouped_digits(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let numbers = [0, 999, 1_000, 12_345, 123_456, 1_234_567];
        let texts = ["0", "999", "1,000", "12,345", "123,456", "1,234,567"];
        assert_eq!(numbers.map(grouped), texts);
    }
}
