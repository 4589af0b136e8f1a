//! Histograms out of result files: checked against the figures beside them, and put together.

use hdrhistogram::Histogram;

use crate::result::{LatencyName, LatencyResult};

use super::group::Row;

/// Of all counted rounds of a row. None if there is nothing in them or nothing readable.
pub(super) fn histogram(row: &Row<'_>, name: LatencyName) -> Option<Histogram<u64>> {
    let mut merged = Histogram::new(DIGITS).ok()?;
    merged.auto(true);
    for run in row.counted() {
        let one = run.latency_us.get(&name).and_then(|latency| checked(latency).ok());
        if let Some(one) = one {
            merged.add(&one).ok()?;
        }
    }
    (!merged.is_empty()).then_some(merged)
}

/// The histogram of a latency, or what is wrong with it.
pub(super) fn checked(latency: &LatencyResult) -> Result<Histogram<u64>, &'static str> {
    if latency.histogram.len() > TEXT_BYTES_MAX {
        return Err("is too large");
    }
    let histogram = latency.histogram().ok_or("cannot be read")?;
    // Sums of larger counts could overflow.
    if histogram.len() > COUNT_MAX {
        return Err("has absurd counts");
    }
    let figures = [histogram.len(), histogram.value_at_quantile(0.99), histogram.max()];
    if figures != [latency.count, latency.p99, latency.max] {
        return Err("contradicts the figures beside it");
    }
    Ok(histogram)
}

/// As precise as those that this program writes.
const DIGITS: u8 = 3;

/// Ten times what three digits over eight decades take.
const TEXT_BYTES_MAX: usize = 1 << 20;

const COUNT_MAX: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

    use super::{
        super::{
            group::{Results, Source},
            samples::{self, Sample},
        },
        *,
    };

    fn latency(values: &[u64]) -> LatencyResult {
        let mut histogram = Histogram::new(3).unwrap();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        LatencyResult::new(&histogram)
    }

    #[test]
    fn rounds_are_put_together() {
        let run = |values| {
            let mut run = Sample::default().run();
            run.latency_us = [(LatencyName::PublishToDelivery, latency(values))].into();
            run
        };
        let runs = vec![run(&[1, 2]), run(&[3, 4_000_000]), run(&[])];
        let sources = [Source { name: "a".to_owned(), file: samples::file(runs) }];
        let results = Results::new(&sources);
        let row = &results.sections[0].groups[0].rows[0];
        let merged = histogram(row, LatencyName::PublishToDelivery).unwrap();
        assert_eq!((merged.len(), merged.min(), merged.value_at_quantile(0.75)), (4, 1, 3));
        assert!(histogram(row, LatencyName::PublishToPuback).is_none());
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        let good = latency(&[5, 6, 7]);
        assert!(checked(&good).is_ok());
        let with =
            |histogram: &str| LatencyResult { histogram: histogram.to_owned(), ..good.clone() };
        let mut absurd = Histogram::<u64>::new(3).unwrap();
        absurd.record_n(5, u64::MAX >> 1).unwrap();
        absurd.record_n(6, u64::MAX >> 1).unwrap();
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&absurd, &mut bytes).unwrap();
        for (latency, wrong) in [
            (with(""), "cannot be read"),
            (with("not base64"), "cannot be read"),
            (with("HISTFAAAAAA="), "cannot be read"),
            (with(&BASE64.encode(&bytes)), "has absurd counts"),
            (with(&"A".repeat(TEXT_BYTES_MAX + 1)), "is too large"),
            (LatencyResult { p99: 6, ..good.clone() }, "contradicts the figures beside it"),
            (LatencyResult { count: 4, ..good.clone() }, "contradicts the figures beside it"),
        ] {
            assert_eq!(checked(&latency).err(), Some(wrong));
        }
    }
}
