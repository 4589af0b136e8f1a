//! The page's tables.

use std::{collections::BTreeSet, fmt::Display};

use hdrhistogram::Histogram;

use crate::{
    result::{LatencyName, LatencyResult, RunResult},
    spread::Spread,
};

use super::{
    doubts,
    group::{Group, Results, Row, Section, Source, broker_cpu, has_messages, main_latency},
    markup::Markup,
    merged, settings, words,
};

/// One row per load and broker: the figures that a comparison is about.
pub(super) fn summary(results: &Results<'_>) -> Markup {
    let mut table = Markup::default();
    open(&mut table, "Median of the rounds, their range, and the ratio to the first broker");
    table.raw("<thead><tr><th scope=\"col\">Broker</th>");
    for column in COLUMNS {
        table.put(
            "<th scope=\"col\" class=\"n\">{}<small>{}</small></th>",
            &[&column.name, &column.unit],
        );
    }
    table.raw("<th scope=\"col\" class=\"n\">Lost<small>deliveries</small></th><th scope=\"col\">Remarks</th></tr></thead>");
    for section in results.sections.iter().filter(|section| !section.is_series()) {
        for group in &section.groups {
            summary_group(&mut table, section, group);
        }
    }
    close(&mut table);
    table
}

/// One row per rate and broker.
pub(super) fn steps(section: &Section<'_>) -> Markup {
    let mut table = Markup::default();
    table.raw("<p>Highest rate up to which each step was kept: ");
    for (at, (style, label)) in section.labels().into_iter().enumerate() {
        let rate = doubts::highest_rate(section, style).map_or("none".to_owned(), words::number);
        let comma = if at == 0 { "" } else { ", " };
        table.put("{}{} <b>{}</b>", &[&comma, &label, &rate]);
    }
    table.raw(" messages/s.</p>");
    open(&mut table, "Step by step: medians of the rounds, latency in µs");
    table.raw("<thead><tr><th scope=\"col\" class=\"n\">Rate<small>messages/s</small></th><th scope=\"col\">Broker</th>");
    for (name, unit) in [
        ("Sent", "/s"),
        ("Delivered", "/s"),
        ("p50", "µs"),
        ("p99", "µs"),
        ("p99.9", "µs"),
        ("max", "µs"),
        ("Broker CPU", "of a core"),
    ] {
        table.put("<th scope=\"col\" class=\"n\">{}<small>{}</small></th>", &[&name, &unit]);
    }
    table.raw("<th scope=\"col\">Kept up</th></tr></thead>");
    for group in &section.groups {
        table.raw("<tbody>");
        for (at, row) in group.rows.iter().enumerate() {
            table.raw("<tr>");
            if at == 0 {
                let rate = words::number(group.rate.unwrap_or_default());
                let values: [&dyn Display; 2] = [&group.rows.len(), &rate];
                table.put("<th scope=\"rowgroup\" class=\"n\" rowspan=\"{}\">{}</th>", &values);
            }
            step(&mut table, group, row);
        }
        table.raw("</tbody>");
    }
    close(&mut table);
    table
}

/// Every latency of a section, rounds put together.
pub(super) fn latencies(section: &Section<'_>) -> Markup {
    let mut table = Markup::default();
    open(&mut table, "Every latency (µs), all rounds together");
    heads(
        &mut table,
        &["Latency", "Pace", "Broker"],
        &["count", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"],
    );
    table.raw("<tbody>");
    for group in &section.groups {
        let runs = group.rows.iter().flat_map(Row::counted);
        let names: BTreeSet<LatencyName> =
            runs.flat_map(|run| run.latency_us.keys().copied()).collect();
        for name in names {
            for row in &group.rows {
                let Some(histogram) = merged::histogram(row, name) else { continue };
                let values: [&dyn Display; 3] = [&name.label(), &group.pace, &row.label];
                table.put("<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td>", &values);
                latency_figures(&histogram).into_iter().for_each(|value| number(&mut table, value));
                table.raw("</tr>");
            }
        }
    }
    table.raw("</tbody>");
    close(&mut table);
    table
}

/// Every single run of a section, so that medians can be checked.
pub(super) fn runs(section: &Section<'_>) -> Markup {
    let mut table = Markup::default();
    open_as(&mut table, "scroll wide", "Every run; counts are of the whole run, warm-up included");
    heads(
        &mut table,
        &["Broker", "Round", "Pace", "File", "Ended"],
        &[
            "measured (s)",
            "sent/s",
            "delivered/s",
            "p50 (µs)",
            "p99 (µs)",
            "max (µs)",
            "connected",
            "sent",
            "unsent",
            "delivered",
            "lost",
            "unfinished",
            "duplicates",
            "reordered",
            "strays",
            "refused",
            "unacknowledged",
            "generator busy (%)",
            "broker CPU (s)",
            "broker memory (bytes)",
        ],
    );
    table.raw("<tbody>");
    for group in &section.groups {
        for row in &group.rows {
            for run in &row.runs {
                let result = run.result;
                let ended = words::shortened(&result.ended, 200);
                let values: [&dyn Display; 5] =
                    [&row.label, &result.round, &group.pace, &run.source.name, &ended];
                table.put(
                    "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
                    &values,
                );
                run_figures(result).into_iter().for_each(|value| cell(&mut table, value));
                table.raw("</tr>");
            }
        }
    }
    table.raw("</tbody>");
    close(&mut table);
    table
}

/// Every setting, a column for each broker: several values where runs differ.
pub(super) fn settings(section: &Section<'_>) -> Markup {
    let mut table = Markup::default();
    let labels = section.labels();
    let names: Vec<&str> = labels.iter().map(|(_, label)| *label).collect();
    open(&mut table, "Every setting");
    table.raw("<thead><tr><th scope=\"col\">Setting</th>");
    for name in names {
        table.put("<th scope=\"col\">{}</th>", &[&name]);
    }
    table.raw("</tr></thead><tbody>");
    let columns: Vec<Vec<(&str, Vec<String>)>> =
        labels.iter().map(|(style, _)| distinct_settings(section, *style)).collect();
    let rows = columns.first().map_or(0, Vec::len);
    for at in 0..rows {
        table.put("<tr><th scope=\"row\">{}</th>", &[&columns[0][at].0]);
        for column in &columns {
            table.put("<td>{}</td>", &[&column[at].1.join(" | ")]);
        }
        table.raw("</tr>");
    }
    table.raw("</tbody>");
    close(&mut table);
    table
}

/// Where and how the files were made.
pub(super) fn sources(sources: &[Source]) -> Markup {
    let mut table = Markup::default();
    open(&mut table, "Files, machines and commands");
    heads(&mut table, &["File", "Ended", "loadgen", "Kernel", "CPU"], &["CPUs", "memory", "runs"]);
    table.raw("<tbody>");
    for Source { name, file } in sources {
        let machine = &file.machine;
        let date = words::date(file.finished_unix_secs);
        let values: [&dyn Display; 5] = [name, &date, &file.loadgen, &machine.kernel, &machine.cpu];
        table.put(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
            &values,
        );
        let memory = words::bytes(machine.memory_bytes as f64);
        let values: [&dyn Display; 3] = [&machine.cpus, &memory, &file.runs.len()];
        table.put(
            "<td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            &values,
        );
        let command = words::shortened(&words::command(&file.command), 4000);
        table.put("<tr><td colspan=\"8\"><code>{}</code></td></tr>", &[&command]);
    }
    table.raw("</tbody>");
    close(&mut table);
    table
}

fn summary_group(table: &mut Markup, section: &Section<'_>, group: &Group<'_>) {
    let latency = group.rows.iter().flat_map(Row::counted).find_map(|run| main_latency(run));
    let latency = latency.map_or("no latency", |(name, _)| name.label());
    let values: [&dyn Display; 5] =
        [&(COLUMNS.len() + 3), &section.slug, &section.title, &section.load, &latency];
    table.put(
        "<tbody><tr><th scope=\"rowgroup\" colspan=\"{}\" class=\"g\"><a href=\"#{}\">{}</a> \
         <small>{}; latency: {}</small></th></tr>",
        &values,
    );
    let first = &group.rows[0];
    for (at, row) in group.rows.iter().enumerate() {
        table.put("<tr><th scope=\"row\">{}</th>", &[&row.label]);
        for column in COLUMNS {
            let spread = row.spread(column.value);
            let base = first.spread(column.value).filter(|_| at > 0);
            figure(table, spread, base);
        }
        let lost = row.counted().map(|run| run.whole_run.lost).fold(0, u64::saturating_add);
        number(table, lost as f64);
        remarks(table, group, row);
        table.raw("</tr>");
    }
    table.raw("</tbody>");
}

/// A median with its range and its ratio to the first broker's.
fn figure(table: &mut Markup, spread: Option<Spread>, base: Option<Spread>) {
    let Some(spread) = spread else {
        table.raw("<td class=\"n\">-</td>");
        return;
    };
    table.put("<td class=\"n\"><b>{}</b>", &[&words::number(spread.median)]);
    if spread.count > 1 {
        let ends: [&dyn Display; 2] = [&words::number(spread.min), &words::number(spread.max)];
        table.put("<small>{} – {}</small>", &ends);
    }
    if let Some(base) = base.filter(|base| base.median > 0.0) {
        let ratio = words::number(spread.median / base.median);
        let chance = spread.count > 1 && base.count > 1 && spread.overlaps(&base);
        table.put(if chance { "<small>≈ ×{}</small>" } else { "<small>×{}</small>" }, &[&ratio]);
    }
    table.raw("</td>");
}

fn remarks(table: &mut Markup, group: &Group<'_>, row: &Row<'_>) {
    let faults = doubts::row_faults(group, row);
    let (counted, all) = (row.counted().count(), row.runs.len());
    table.raw("<td class=\"r\">");
    if !row.has_complete() {
        table.raw("<b class=\"bad\">no complete round</b>");
    } else if counted < all {
        table.put("<b class=\"bad\">{} of {} rounds</b>", &[&counted, &all]);
    } else {
        table.put(if all == 1 { "{} round" } else { "{} rounds" }, &[&all]);
    }
    if faults.is_empty() {
        table.raw(", correct");
    }
    for fault in faults.iter().take(REMARKS_MAX) {
        table.put("; <span class=\"bad\">{}</span>", &[fault]);
    }
    if faults.len() > REMARKS_MAX {
        table.put("; and {} more", &[&(faults.len() - REMARKS_MAX)]);
    }
    table.raw("</td>");
}

fn step(table: &mut Markup, group: &Group<'_>, row: &Row<'_>) {
    table.put("<th scope=\"row\">{}</th>", &[&row.label]);
    let latency = |run: &RunResult, value: fn(&LatencyResult) -> u64| {
        main_latency(run).map(|(_, latency)| value(latency) as f64)
    };
    let figures = [
        row.spread(|run| Some(run.sent_per_sec)),
        row.spread(|run| Some(run.delivered_per_sec)),
        row.spread(|run| latency(run, |l| l.p50)),
        row.spread(|run| latency(run, |l| l.p99)),
        row.spread(|run| latency(run, |l| l.p99_9)),
        row.spread(|run| latency(run, |l| l.max)),
    ];
    figures.into_iter().for_each(|spread| cell(table, spread.map(|spread| spread.median)));
    let cpu = row.spread(broker_cpu).map_or("-".to_owned(), |cpu| words::percent(cpu.median));
    table.put("<td class=\"n\">{}</td>", &[&cpu]);
    match doubts::row_faults(group, row).first() {
        None => table.raw("<td class=\"r\">yes</td></tr>"),
        Some(fault) => {
            table.put("<td class=\"r\"><span class=\"bad\">no: {}</span></td></tr>", &[fault])
        }
    };
}

fn latency_figures(histogram: &Histogram<u64>) -> [f64; 9] {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64;
    let (count, mean) = (histogram.len() as f64, histogram.mean());
    let (min, max) = (histogram.min() as f64, histogram.max() as f64);
    [count, min, mean, at(0.5), at(0.9), at(0.99), at(0.999), at(0.9999), max]
}

fn run_figures(run: &RunResult) -> Vec<Option<f64>> {
    let latency = main_latency(run).map(|(_, latency)| latency);
    let counts = run.whole_run;
    let mut figures = vec![
        Some(run.measured_secs),
        Some(run.sent_per_sec),
        Some(run.delivered_per_sec),
        latency.map(|latency| latency.p50 as f64),
        latency.map(|latency| latency.p99 as f64),
        latency.map(|latency| latency.max as f64),
    ];
    let counts = [
        counts.connected,
        counts.sent,
        counts.unsent,
        counts.delivered,
        counts.lost,
        counts.unfinished,
        counts.duplicates,
        counts.reordered,
        counts.strays,
        counts.refused,
        counts.unacknowledged,
    ];
    figures.extend(counts.map(|count| Some(count as f64)));
    figures.push(Some(run.generator.busy * 100.0));
    figures.push(run.broker.map(|usage| usage.cpu_secs));
    figures.push(run.broker.map(|usage| usage.rss_bytes_max as f64));
    figures
}

fn distinct_settings<'a>(section: &Section<'_>, style: usize) -> Vec<(&'a str, Vec<String>)> {
    let rows = section.groups.iter().flat_map(|group| &group.rows);
    let runs = rows.filter(|row| row.style == style).flat_map(|row| &row.runs);
    let mut all: Vec<(&str, Vec<String>)> = Vec::new();
    for run in runs {
        for (at, (name, value)) in settings::rows(&run.result.settings).into_iter().enumerate() {
            match all.get_mut(at) {
                None => all.push((name, vec![value])),
                Some((_, values)) if values.len() < VALUES_MAX && !values.contains(&value) => {
                    values.push(value);
                }
                Some(_) => {}
            }
        }
    }
    all
}

fn open(table: &mut Markup, caption: &'static str) {
    open_as(table, "scroll", caption);
}

/// `class` says how wide it is: on paper nothing scrolls.
fn open_as(table: &mut Markup, class: &'static str, caption: &'static str) {
    let values: [&dyn Display; 3] = [&class, &caption, &caption];
    table.put(
        "<div class=\"{}\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table>\
         <caption>{}</caption>",
        &values,
    );
}

fn close(table: &mut Markup) {
    table.raw("</table></div>");
}

fn heads(table: &mut Markup, texts: &[&str], numbers: &[&str]) {
    table.raw("<thead><tr>");
    for text in texts {
        table.put("<th scope=\"col\">{}</th>", &[text]);
    }
    for text in numbers {
        table.put("<th scope=\"col\" class=\"n\">{}</th>", &[text]);
    }
    table.raw("</tr></thead>");
}

fn number(table: &mut Markup, value: f64) {
    table.put("<td class=\"n\">{}</td>", &[&words::number(value)]);
}

fn cell(table: &mut Markup, value: Option<f64>) {
    match value {
        Some(value) => number(table, value),
        None => {
            table.raw("<td class=\"n\">-</td>");
        }
    }
}

/// A figure of the summary.
struct Column {
    name: &'static str,
    unit: &'static str,
    value: fn(&RunResult) -> Option<f64>,
}

const COLUMNS: [Column; 7] = [
    Column {
        name: "Deliveries",
        unit: "/s",
        value: |run| has_messages(run).then_some(run.delivered_per_sec),
    },
    Column {
        name: "Deliveries",
        unit: "/s of broker CPU",
        value: |run| {
            run.broker.filter(|_| has_messages(run)).map(|usage| usage.deliveries_per_cpu_sec)
        },
    },
    Column {
        name: "Broker CPU",
        unit: "µs/delivery",
        value: |run| {
            run.broker.filter(|_| has_messages(run)).map(|usage| usage.cpu_us_per_delivery)
        },
    },
    Column { name: "p50", unit: "µs", value: |run| main_latency(run).map(|(_, l)| l.p50 as f64) },
    Column { name: "p99", unit: "µs", value: |run| main_latency(run).map(|(_, l)| l.p99 as f64) },
    Column {
        name: "p99.9",
        unit: "µs",
        value: |run| main_latency(run).map(|(_, l)| l.p99_9 as f64),
    },
    Column { name: "max", unit: "µs", value: |run| main_latency(run).map(|(_, l)| l.max as f64) },
];

const REMARKS_MAX: usize = 3;

/// Different values of one setting that are listed.
const VALUES_MAX: usize = 12;
