//! Which plots a section has, and the numbers in them.
//!
//! Knows nothing of how they are drawn and where they are put.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::{
    result::{LatencyName, LatencyResult, RunResult, Second},
    spread::Spread,
};

use super::{
    doubts,
    group::{Group, Row, Section, broker_cpu, has_messages, main_latency},
    merged,
    scale::Kind,
    svg::{Axis, Bar, Bars, Chart, Mark, Picture, STYLES, Series},
    words,
};

/// A picture with its words.
pub(super) struct Plot {
    /// End of its file's name.
    pub(super) slug: String,
    pub(super) title: String,
    /// How to read it.
    pub(super) caption: &'static str,
    pub(super) picture: Picture,
}

/// Those for which there are figures.
pub(super) fn of_section(section: &Section<'_>) -> Vec<Plot> {
    let mut plots = match section.groups.as_slice() {
        [group] => of_group(group),
        groups => of_series(section, groups),
    };
    plots.retain(|plot| match &plot.picture {
        Picture::Chart(chart) => !chart.is_empty(),
        Picture::Bars(bars) => !bars.bars.is_empty(),
    });
    plots
}

fn of_group(group: &Group<'_>) -> Vec<Plot> {
    let rows = &group.rows[..group.rows.len().min(STYLES)];
    let mut plots = Vec::new();
    let has_messages = rows.iter().flat_map(Row::counted).any(has_messages);
    if has_messages {
        plots.push(bars("throughput", "Deliveries per second", rows, |run| {
            Some(run.delivered_per_sec)
        }));
        plots.push(bars("efficiency", "Deliveries per second of broker CPU time", rows, |run| {
            run.broker.map(|usage| usage.deliveries_per_cpu_sec)
        }));
    } else {
        let title = "Bytes of broker memory per connected client";
        plots.push(bars("memory-per-client", title, rows, bytes_per_client));
        let title = "Connected clients second by second";
        let value = |second: &Second| Some(second.connected as f64);
        plots.push(over_time("connected", title, CLIENTS, rows, value));
    }
    plots.extend(LATENCIES.map(|(name, slug)| percentiles(name, slug, rows)));
    if has_messages {
        plots.extend(messages_over_time(rows));
        plots.push(cpu_points("cpu", rows.iter()));
    } else {
        let title = "Broker CPU second by second";
        plots.push(over_time("cpu", title, CPU, rows, |second| second.broker_cpu));
    }
    plots.push(over_time("memory", "Broker memory second by second", MEMORY, rows, |second| {
        second.broker_rss_bytes.map(|bytes| bytes as f64)
    }));
    plots
}

fn messages_over_time(rows: &[Row<'_>]) -> [Plot; 3] {
    [
        over_time("over-time-p50", "Median latency second by second", MICROS, rows, |second| {
            (second.delivered > 0).then_some(second.p50_us as f64)
        }),
        over_time(
            "over-time-p99",
            "99th percentile of latency second by second",
            MICROS,
            rows,
            |second| (second.delivered > 0).then_some(second.p99_us as f64),
        ),
        over_time("over-time", "Deliveries second by second", DELIVERIES, rows, |second| {
            Some(second.delivered as f64)
        }),
    ]
}

fn of_series(section: &Section<'_>, groups: &[Group<'_>]) -> Vec<Plot> {
    let at = |slug: &str, title: &str, axis, value: Figure| Plot {
        slug: slug.to_owned(),
        title: title.to_owned(),
        caption: "Line: median of the rounds, with their range behind it. Hollow marks: the broker \
                  did not keep up with this rate, or the run failed.",
        picture: Picture::Chart(against_rate(section, axis, value)),
    };
    let latency = |run: &RunResult, value: fn(&LatencyResult) -> u64| {
        main_latency(run).map(|(_, latency)| value(latency) as f64)
    };
    vec![
        at("p50", "Latency against rate: median", MICROS, &|run| latency(run, |l| l.p50)),
        at("p99", "Latency against rate: 99th percentile", MICROS, &|run| latency(run, |l| l.p99)),
        at("p99-9", "Latency against rate: 99.9th percentile", MICROS, &|run| {
            latency(run, |l| l.p99_9)
        }),
        at("delivered", "Deliveries against rate", DELIVERIES, &|run| Some(run.delivered_per_sec)),
        at("cpu", "Broker CPU against rate", CPU, &broker_cpu),
        cpu_points("deliveries-cpu", groups.iter().flat_map(|group| &group.rows)),
    ]
}

fn bars(slug: &str, title: &str, rows: &[Row<'_>], value: fn(&RunResult) -> Option<f64>) -> Plot {
    let bars = rows.iter().filter_map(|row| {
        let rounds: Vec<f64> = row.counted().filter_map(value).filter(|v| *v > 0.0).collect();
        let median = Spread::of(rounds.iter().copied())?.median;
        Some(Bar { name: row.label.clone(), style: row.style, median, rounds })
    });
    Plot {
        slug: slug.to_owned(),
        title: title.to_owned(),
        caption: "Bar: median. Dots: each round.",
        picture: Picture::Bars(Bars { bars: bars.collect() }),
    }
}

fn percentiles(name: LatencyName, slug: &str, rows: &[Row<'_>]) -> Plot {
    let series = rows.iter().filter_map(|row| {
        let merged = merged::histogram(row, name)?;
        Some(percentile_series(row, &merged))
    });
    Plot {
        slug: slug.to_owned(),
        title: format!("Latency by percentile: {}", name.label()),
        caption: "Each step to the right has ten times fewer messages beyond it. All rounds \
                  together; a line ends at the slowest message.",
        picture: Picture::Chart(Chart {
            x: Axis { title: "percentile", kind: Kind::Percentile, format: words::percentile },
            y: MICROS,
            series: series.collect(),
            shaded_until: 0.0,
        }),
    }
}

fn percentile_series(row: &Row<'_>, histogram: &Histogram<u64>) -> Series {
    // The slowest of n messages stands for the last n-th of them.
    let last = (histogram.len() as f64).log10().clamp(0.31, 9.0);
    let at = |nines: f64| {
        let quantile = 1.0 - 10f64.powf(-nines);
        (quantile, histogram.value_at_quantile(quantile) as f64)
    };
    let line = (0..=PERCENTILE_STEPS).map(|step| at(last * step as f64 / PERCENTILE_STEPS as f64));
    let mut line: Vec<(f64, f64)> = line.collect();
    let max = histogram.max() as f64;
    line.extend(line.last().map(|(quantile, _)| (*quantile, max)));
    let ticks = std::iter::once(2f64.log10()).chain((1..=9).map(f64::from));
    let marks = ticks.take_while(|nines| *nines <= last).map(at).map(|(quantile, value)| Mark {
        x: quantile,
        y: value,
        tip: format!("{}: p{} {}", row.label, words::percentile(quantile), words::micros(value)),
        hollow: false,
    });
    let mut marks: Vec<Mark> = marks.collect();
    marks.extend(line.last().map(|(quantile, _)| Mark {
        x: *quantile,
        y: max,
        tip: format!("{}: max {}", row.label, words::micros(max)),
        hollow: false,
    }));
    Series { name: row.label.clone(), style: row.style, line, marks, ..Series::default() }
}

fn over_time(
    slug: &str,
    title: &str,
    axis: Axis,
    rows: &[Row<'_>],
    value: fn(&Second) -> Option<f64>,
) -> Plot {
    let longest = rows.iter().flat_map(Row::counted).map(|run| run.seconds.len()).max();
    let bucket_secs = longest.unwrap_or_default().div_ceil(BUCKETS_MAX).max(1) as f64;
    let series = rows.iter().map(|row| {
        let mut buckets: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for second in row.counted().flat_map(|run| &run.seconds) {
            // Whatever time a file claims: casts keep to the range.
            let bucket = (second.at_secs / bucket_secs).min(1e9) as u64;
            buckets.entry(bucket).or_default().extend(value(second));
        }
        let spreads = buckets.into_iter().filter_map(|(bucket, values)| {
            Spread::of(values).map(|spread| (bucket as f64 * bucket_secs, spread))
        });
        with_band(row, spreads.take(BUCKETS_MAX + 1))
    });
    let warm = rows.iter().flat_map(Row::counted).map(|run| run.settings.warm_secs);
    Plot {
        slug: slug.to_owned(),
        title: title.to_owned(),
        caption: "Line: median of the rounds, with their range behind it. Grey: warm-up, not in the \
                  figures.",
        picture: Picture::Chart(Chart {
            x: Axis {
                title: "seconds since the load began",
                kind: Kind::Linear,
                format: words::number,
            },
            y: axis,
            series: series.collect(),
            shaded_until: warm.fold(0.0, f64::max),
        }),
    }
}

fn against_rate(section: &Section<'_>, axis: Axis, value: Figure) -> Chart {
    let rates = || section.groups.iter().filter_map(|group| group.rate);
    let (low, high) = rates().fold((f64::MAX, 0.0), |(low, high), r| (r.min(low), r.max(high)));
    let kind = if high > low * 30.0 { Kind::Log } else { Kind::Linear };
    let series = section.labels().into_iter().take(STYLES).map(|(style, label)| {
        let mut series = Series { name: label.to_owned(), style, ..Series::default() };
        for group in &section.groups {
            let row = group.rows.iter().find(|row| row.style == style);
            let (Some(rate), Some(row)) = (group.rate, row) else { continue };
            let Some(spread) = row.spread(value) else { continue };
            series.line.push((rate, spread.median));
            series.band.push((rate, spread.min, spread.max));
            let figure = (axis.format)(spread.median);
            series.marks.push(Mark {
                x: rate,
                y: spread.median,
                tip: format!("{label} at {}/s: {figure}", words::number(rate)),
                hollow: !doubts::row_faults(group, row).is_empty(),
            });
        }
        series
    });
    let series = series.collect();
    let x = Axis { title: "messages per second meant to be sent", kind, format: words::short };
    Chart { x, y: axis, series, shaded_until: 0.0 }
}

/// A point for each second, a mark for each run.
fn cpu_points<'a, 'r: 'a>(slug: &str, rows: impl Iterator<Item = &'a Row<'r>>) -> Plot {
    let mut series: BTreeMap<usize, Series> = BTreeMap::new();
    for row in rows {
        let series = series.entry(row.style).or_insert_with(|| Series {
            name: row.label.clone(),
            style: row.style,
            ..Series::default()
        });
        for run in row.counted() {
            let Some(cpu) = broker_cpu(run) else { continue };
            let per_sec = run.delivered_per_sec;
            let (share, deliveries) = (words::percent(cpu), words::number(per_sec));
            let tip = format!("{}, round {}: {deliveries}/s at {share}", row.label, run.round);
            series.marks.push(Mark { x: cpu, y: per_sec, tip, hollow: false });
            let seconds =
                run.seconds.iter().filter(|second| second.at_secs >= run.settings.warm_secs);
            let points = seconds
                .filter_map(|second| second.broker_cpu.map(|cpu| (cpu, second.delivered as f64)));
            series.points.extend(points);
        }
    }
    let mut series: Vec<Series> = series.into_values().take(STYLES).collect();
    series.retain(|series| !series.marks.is_empty());
    for series in &mut series {
        let every = series.points.len().div_ceil(POINTS_MAX).max(1);
        series.points = series.points.iter().copied().step_by(every).collect();
        let every = series.marks.len().div_ceil(POINTS_MAX).max(1);
        let mut at = 0;
        series.marks.retain(|_| {
            at += 1;
            at % every == 0
        });
    }
    Plot {
        slug: slug.to_owned(),
        title: "Deliveries against broker CPU".to_owned(),
        caption: "Large marks: each run. Small ones: each of its seconds. Steeper from the corner is \
                  less CPU time per delivery.",
        picture: Picture::Chart(Chart { x: CPU, y: DELIVERIES, series, shaded_until: 0.0 }),
    }
}

fn with_band(row: &Row<'_>, spreads: impl Iterator<Item = (f64, Spread)>) -> Series {
    let mut series = Series { name: row.label.clone(), style: row.style, ..Series::default() };
    for (x, spread) in spreads {
        series.line.push((x, spread.median));
        series.band.push((x, spread.min, spread.max));
    }
    series
}

/// What the broker's memory grew by while the clients connected.
fn bytes_per_client(run: &RunResult) -> Option<f64> {
    let (usage, clients) = (run.broker?, run.whole_run.connected);
    let grown = usage.rss_bytes_connected.checked_sub(usage.rss_bytes_before)?;
    (clients > 0).then(|| grown as f64 / clients as f64)
}

/// What a plot takes out of a run.
type Figure<'a> = &'a dyn Fn(&RunResult) -> Option<f64>;

/// In the order of a message's and a client's life, with the ends of their files' names.
const LATENCIES: [(LatencyName, &str); 8] = [
    (LatencyName::PublishToDelivery, "latency"),
    (LatencyName::PublishToPuback, "latency-puback"),
    (LatencyName::PublishToPubrec, "latency-pubrec"),
    (LatencyName::PublishToPubcomp, "latency-pubcomp"),
    (LatencyName::ReturnToDelivery, "latency-return"),
    (LatencyName::ConnectToConnack, "latency-connack"),
    (LatencyName::SubscribeToSuback, "latency-suback"),
    (LatencyName::GeneratorLateness, "latency-generator"),
];

const MICROS: Axis = Axis { title: "latency", kind: Kind::Log, format: words::micros };
const DELIVERIES: Axis =
    Axis { title: "deliveries per second", kind: Kind::Linear, format: words::short };
const CPU: Axis =
    Axis { title: "broker CPU (100 % is one core)", kind: Kind::Linear, format: words::percent };
const MEMORY: Axis = Axis { title: "resident memory", kind: Kind::Linear, format: words::bytes };
const CLIENTS: Axis = Axis { title: "connected clients", kind: Kind::Linear, format: words::short };

/// Of a line: finer than what can be seen.
const PERCENTILE_STEPS: usize = 160;

/// A longer run has several seconds in each.
const BUCKETS_MAX: usize = 400;

/// More make a blot.
const POINTS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::{
        super::{
            group::{Results, Source},
            samples::{self, Sample},
        },
        *,
    };

    fn slugs(runs: Vec<RunResult>) -> Vec<String> {
        let sources = [Source { name: "a.json".to_owned(), file: samples::file(runs) }];
        let results = Results::new(&sources);
        of_section(&results.sections[0]).into_iter().map(|plot| plot.slug).collect()
    }

    #[test]
    fn there_are_plots_for_what_was_measured() {
        let all = [
            "throughput",
            "efficiency",
            "latency",
            "latency-puback",
            "over-time-p50",
            "over-time-p99",
            "over-time",
            "cpu",
            "memory",
        ];
        assert_eq!(slugs(samples::comparison()), all);
        let series = ["p50", "p99", "p99-9", "delivered", "cpu", "deliveries-cpu"];
        assert_eq!(slugs(samples::steps()), series);
        let mut run = Sample::default().run();
        run.broker = None;
        run.seconds.clear();
        run.latency_us.clear();
        assert_eq!(slugs(vec![run.clone()]), ["throughput"]);
        run.delivered_per_sec = 0.0;
        assert_eq!(slugs(vec![run]), [""; 0]);
        let mut idle = Sample::default().run();
        (idle.delivered, idle.settings.publishers) = (0, 0);
        idle.latency_us.clear();
        assert_eq!(slugs(vec![idle]), ["memory-per-client", "connected", "cpu", "memory"]);
    }

    #[test]
    fn long_and_absurd_runs_stay_bounded() {
        let mut run = Sample::default().run();
        let second = run.seconds[9];
        run.seconds = vec![Second { at_secs: 1e300, ..second }; 100_000];
        for (at, second) in run.seconds.iter_mut().enumerate() {
            second.at_secs = if at % 3 == 0 { -1e300 } else { at as f64 };
        }
        let sources = [Source { name: "a.json".to_owned(), file: samples::file(vec![run; 3]) }];
        for plot in of_section(&Results::new(&sources).sections[0]) {
            let size = plot.picture.inline("title").into_string().len();
            assert!(size < 200_000, "{}: {size}", plot.slug);
        }
    }

    #[test]
    fn a_percentile_line_ends_at_the_slowest_message() {
        let run = Sample::default().run();
        let max = run.latency_us[&LatencyName::PublishToDelivery].max as f64;
        let sources = [Source { name: "a.json".to_owned(), file: samples::file(vec![run]) }];
        let results = Results::new(&sources);
        let plot =
            percentiles(LatencyName::PublishToDelivery, "l", &results.sections[0].groups[0].rows);
        let Picture::Chart(chart) = plot.picture else { panic!("not a chart") };
        let (quantile, value) = *chart.series[0].line.last().unwrap();
        assert!((quantile - (1.0 - 1.0 / 40_000.0)).abs() < 1e-9, "{quantile}");
        assert_eq!(value, max);
        assert!(chart.series[0].line.is_sorted_by(|a, b| a.1 <= b.1));
    }
}
