//! The page: one file without scripts, fonts or anything else from elsewhere.

use std::fmt::Display;

use super::{
    doubts::{self, Doubt},
    group::{Results, Section},
    markup::Markup,
    plots::Plot,
    svg, tables, words,
};

/// The whole page; `plots` are those of the sections, in their order.
pub(super) fn page(results: &Results<'_>, plots: &[Vec<Plot>]) -> String {
    let mut page = Markup::default();
    let title = title(results);
    // The policy holds even where escaping should have failed: nothing runs, nothing is fetched.
    page.raw(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">",
    );
    page.put("<title>{}</title>", &[&title]);
    page.raw("<style>\n").raw(STYLE).raw(svg::STYLE).raw("</style></head>\n<body>");
    head(&mut page, results, &title);
    page.raw("<main>");
    warnings(&mut page, &doubts::of_results(results));
    if results.sections.iter().any(|section| !section.is_series()) {
        page.raw("\n<section><h2>Summary</h2>").append(&tables::summary(results));
        page.raw(LEGEND).raw("</section>");
    }
    for (section, plots) in results.sections.iter().zip(plots) {
        self::section(&mut page, section, plots);
    }
    page.raw("\n<section id=\"facts\"><h2>How it was measured</h2>").raw(METHOD);
    page.append(&tables::sources(results.sources)).raw("</section></main></body></html>\n");
    page.into_string()
}

fn title(results: &Results<'_>) -> String {
    let names: Vec<String> =
        results.labels.iter().take(4).map(|label| words::shortened(label, 40)).collect();
    let more = if results.labels.len() > 4 { " and others" } else { "" };
    match names.is_empty() {
        true => "MQTT measurements".to_owned(),
        false => format!("MQTT measurements of {}{more}", names.join(", ")),
    }
}

fn head(page: &mut Markup, results: &Results<'_>, title: &str) {
    page.put("<header><h1>{}</h1><p>", &[&title]);
    let runs: usize = results.sources.iter().map(|source| source.file.runs.len()).sum();
    let ended = results.sources.iter().map(|source| source.file.finished_unix_secs);
    let files = results.sources.len();
    let (s, es) = (if runs == 1 { "" } else { "s" }, if files == 1 { "" } else { "s" });
    let ended = words::date(ended.max().unwrap_or_default());
    page.put("{} run{} in {} file{}, the last ended {}. ", &[&runs, &s, &files, &es, &ended]);
    if let Some(source) = results.sources.first() {
        let machine = &source.file.machine;
        let values: [&dyn Display; 3] = [&machine.cpu, &machine.cpus, &machine.kernel];
        page.put("{}, {} CPUs, Linux {}. ", &values);
    }
    page.raw("<a href=\"#facts\">How it was measured</a></p><nav aria-label=\"Loads\"><ul>");
    for section in &results.sections {
        let values: [&dyn Display; 3] = [&section.slug, &section.title, &section.load];
        page.put("<li><a href=\"#{}\">{}</a> <small>{}</small></li>", &values);
    }
    page.raw("</ul></nav></header>\n");
}

fn warnings(page: &mut Markup, doubts: &[Doubt]) {
    page.raw("<section class=\"doubts\" aria-label=\"Warnings\"><h2>What speaks against these figures</h2>");
    if doubts.is_empty() {
        page.raw(
            "<p>Nothing that this program can see: all runs came to their end, no message was lost, \
             repeated, reordered or misdirected, the generator was never the limit, and what is \
             compared had the same load, settings and machine.</p></section>",
        );
        return;
    }
    page.raw("<ul>");
    for doubt in doubts.iter().take(DOUBTS_MAX) {
        page.raw("<li>");
        if let Some((title, slug)) = &doubt.section {
            page.put("<a href=\"#{}\">{}</a>: ", &[slug, title]);
        }
        page.put("{}</li>", &[&doubt.text]);
    }
    if doubts.len() > DOUBTS_MAX {
        page.put("<li>and {} more</li>", &[&(doubts.len() - DOUBTS_MAX)]);
    }
    page.raw("</ul></section>");
}

fn section(page: &mut Markup, section: &Section<'_>, plots: &[Plot]) {
    let values: [&dyn Display; 3] = [&section.slug, &section.title, &section.load];
    page.put("\n<section id=\"{}\"><h2>{}</h2><p>{}</p>", &values);
    if section.is_series() {
        page.append(&tables::steps(section));
    }
    if section.labels().len() > svg::STYLES {
        page.put("<p>The plots show the first {} brokers.</p>", &[&svg::STYLES]);
    }
    page.raw("<div class=\"plots\">");
    for plot in plots {
        let title = format!("{}: {}", section.title, plot.title);
        page.raw("\n<figure><div class=\"scroll\">").append(&plot.picture.inline(&title));
        let words: [&dyn Display; 2] = [&plot.title, &plot.caption];
        page.put("</div><figcaption><b>{}.</b> {}</figcaption></figure>", &words);
    }
    page.raw("</div>");
    for (title, table) in [
        ("Every latency", tables::latencies(section)),
        ("Every run", tables::runs(section)),
        ("Every setting", tables::settings(section)),
    ] {
        page.put("\n<details><summary>{}</summary>", &[&title]).append(&table).raw("</details>");
    }
    page.raw("</section>");
}

const STYLE: &str = include_str!("page.css");

const LEGEND: &str = "<p class=\"note\"><b>×</b> ratio to the first broker. <b>≈</b> the ranges of the \
    rounds overlap: the difference may be chance. Lost deliveries are counted over all rounds.</p>";

const METHOD: &str = "<ul>\
    <li>Latency counts from the time at which a message was <b>meant</b> to be sent: a broker that stalls \
    is charged for every message that it held up (no coordinated omission).</li>\
    <li>Every payload carries publisher, sequence number and time; loss, duplicates, order and \
    destination are checked over the whole run, warm-up included.</li>\
    <li>Rates and latencies are of the measured time only. The warm-up is cut off by the time at \
    which each message was meant to be sent.</li>\
    <li>CPU and memory are those of the broker's process; work that the kernel does for it elsewhere \
    is not in them.</li>\
    <li>Figures are medians of complete runs. If a broker has none, what its other runs measured is \
    shown, and said to be so.</li></ul>";

/// More would bury the rest of the page.
const DOUBTS_MAX: usize = 100;
