//! Which runs are compared with which: one section per load, one row per broker, one group per rate.
//!
//! Runs of a group had the same load; what they differ in beyond the broker is for `warnings` to
//! say. Knows nothing of pages and charts.

use std::collections::HashMap;

use crate::{
    result::{LatencyName, LatencyResult, ResultFile, RunResult, Settings},
    spread::Spread,
};

use super::{settings, words};

/// A file of results.
pub(super) struct Source {
    /// The file's name, without its folders.
    pub(super) name: String,
    pub(super) file: ResultFile,
}

/// All runs of all files, in the order of their first appearance.
pub(super) struct Results<'a> {
    pub(super) sources: &'a [Source],
    /// Every label there is: its place is its colour.
    pub(super) labels: Vec<String>,
    pub(super) sections: Vec<Section<'a>>,
}

/// One load: a single group, or one for each rate that was tried.
pub(super) struct Section<'a> {
    /// Unique in the report, such as `p2p, QoS 1, window 16`.
    pub(super) title: String,
    /// The rest of the load, in words.
    pub(super) load: String,
    /// Unique in the report.
    pub(super) slug: String,
    /// At least one; by rate if they are more.
    pub(super) groups: Vec<Group<'a>>,
}

/// Runs that can be compared.
pub(super) struct Group<'a> {
    pub(super) pace: String,
    /// Messages per second.
    pub(super) rate: Option<f64>,
    /// At least one, each with at least one run.
    pub(super) rows: Vec<Row<'a>>,
}

/// The runs of one broker under one load.
pub(super) struct Row<'a> {
    pub(super) label: String,
    /// Place of the label in [`Results::labels`].
    pub(super) style: usize,
    /// Every round.
    pub(super) runs: Vec<Run<'a>>,
}

/// One run and where it comes from.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) source: &'a Source,
    pub(super) result: &'a RunResult,
}

impl<'a> Results<'a> {
    /// Of these files.
    pub(super) fn new(sources: &'a [Source]) -> Self {
        let mut results = Self { sources, labels: Vec::new(), sections: Vec::new() };
        let mut places = HashMap::new();
        let mut styles = HashMap::new();
        for source in sources {
            for result in &source.file.runs {
                let label = label_of(source, result);
                let style = *styles.entry(label.clone()).or_insert_with(|| {
                    results.labels.push(label.clone());
                    results.labels.len() - 1
                });
                let key = settings::load_key(&result.settings);
                let place = *places.entry(key).or_insert_with(|| {
                    results.sections.push(Section::new(&result.settings));
                    results.sections.len() - 1
                });
                results.sections[place].add(label, style, Run { source, result });
            }
        }
        let sections = results.sections.into_iter().flat_map(Section::split);
        results.sections = sections.collect();
        results.make_unique();
        results
    }

    fn make_unique(&mut self) {
        let mut uses: HashMap<String, u32> = HashMap::new();
        for section in &mut self.sections {
            let uses = uses.entry(section.slug.clone()).or_insert(0);
            *uses += 1;
            if *uses > 1 {
                section.title = format!("{} ({uses})", section.title);
                // Two dashes: no other slug has them.
                section.slug = format!("{}--{uses}", section.slug);
            }
        }
    }
}

impl<'a> Section<'a> {
    fn new(settings: &Settings) -> Self {
        Self {
            title: format!(
                "{}, QoS {}",
                words::shortened(&settings.scenario, PACE_CHARS_MAX),
                settings.qos
            ),
            load: settings::load_in_words(settings),
            slug: words::slug(&format!("{} q{}", settings.scenario, settings.qos)),
            groups: Vec::new(),
        }
    }

    /// The same load at several rates.
    pub(super) fn is_series(&self) -> bool {
        self.groups.len() > 1
    }

    /// Of all groups, each broker once: in the order of their colours.
    pub(super) fn labels(&self) -> Vec<(usize, &str)> {
        let rows = self.groups.iter().flat_map(|group| &group.rows);
        let mut labels: Vec<_> = rows.map(|row| (row.style, row.label.as_str())).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    fn add(&mut self, label: String, style: usize, run: Run<'a>) {
        let settings = &run.result.settings;
        let pace = words::shortened(&settings.pace, PACE_CHARS_MAX);
        let rate = settings.rate_per_sec;
        let same = |group: &Group<'_>| group.pace == pace && group.rate == rate;
        let at = self.groups.iter().rposition(same).unwrap_or_else(|| {
            self.groups.push(Group { pace, rate, rows: Vec::new() });
            self.groups.len() - 1
        });
        let rows = &mut self.groups[at].rows;
        let at = rows.iter().position(|row| row.style == style).unwrap_or_else(|| {
            rows.push(Row { label, style, runs: Vec::new() });
            rows.len() - 1
        });
        rows[at].runs.push(run);
    }

    /// Enough rates to draw a line through stay together, fewer become sections of their own.
    fn split(mut self) -> Vec<Self> {
        let rates = self.groups.iter().filter(|group| group.rate.is_some()).count();
        if rates == self.groups.len() && rates >= SERIES_GROUPS_MIN {
            self.groups
                .sort_by(|a, b| a.rate.unwrap_or_default().total_cmp(&b.rate.unwrap_or_default()));
            self.slug.push_str("-rates");
            self.title.push_str(", rate by rate");
            return vec![self];
        }
        let groups = self.groups.into_iter().map(|group| Self {
            title: match group.pace.as_str() {
                "" => self.title.clone(),
                pace => format!("{}, {pace}", self.title),
            },
            load: self.load.clone(),
            slug: self.slug.clone(),
            groups: vec![group],
        });
        groups.collect()
    }
}

impl<'a> Row<'a> {
    /// The runs that the figures are of: the complete ones, or all if none is.
    pub(super) fn counted(&self) -> impl Iterator<Item = &'a RunResult> + Clone {
        let complete = self.has_complete();
        let runs = self.runs.iter().map(|run| run.result);
        runs.filter(move |run| !complete || run.is_complete()).collect::<Vec<_>>().into_iter()
    }

    /// Whether a run came to its end.
    pub(super) fn has_complete(&self) -> bool {
        self.runs.iter().any(|run| run.result.is_complete())
    }

    /// Of what the function takes out of each run.
    pub(super) fn spread(&self, value: impl Fn(&RunResult) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.counted().filter_map(value))
    }
}

/// The latency that says most about a run: that of the messages, if it had any.
pub(super) fn main_latency(run: &RunResult) -> Option<(LatencyName, &LatencyResult)> {
    let latencies = MAIN_LATENCIES.iter().filter_map(|name| run.latency_us.get_key_value(name));
    latencies.map(|(name, latency)| (*name, latency)).find(|(_, latency)| latency.count > 0)
}

/// Whether it was about messages, rather than connections only.
pub(super) fn has_messages(run: &RunResult) -> bool {
    run.settings.publishers > 0 || run.delivered > 0
}

/// Part of one CPU that the broker used in the measured time.
pub(super) fn broker_cpu(run: &RunResult) -> Option<f64> {
    let usage = run.broker.filter(|_| run.measured_secs > 0.0)?;
    Some(usage.cpu_secs / run.measured_secs)
}

/// The run's own, or else the file's name without the number of the round.
fn label_of(source: &Source, run: &RunResult) -> String {
    if !run.label.trim().is_empty() {
        return words::shortened(&run.label, LABEL_CHARS_MAX);
    }
    let stem = source.name.rsplit_once('.').map_or(source.name.as_str(), |(stem, _)| stem);
    let name = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    match name.strip_suffix(['-', '_', '.']) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => stem.to_owned(),
    }
}

/// The first that a run has is its main one.
const MAIN_LATENCIES: [LatencyName; 7] = [
    LatencyName::PublishToDelivery,
    LatencyName::ReturnToDelivery,
    LatencyName::PublishToPubcomp,
    LatencyName::PublishToPubrec,
    LatencyName::PublishToPuback,
    LatencyName::SubscribeToSuback,
    LatencyName::ConnectToConnack,
];

/// Longer names are cut: they come from files and are repeated in every mark of a plot.
const LABEL_CHARS_MAX: usize = 80;

/// Of a part of a headline.
const PACE_CHARS_MAX: usize = 40;

/// From so many rates on they are shown as a series.
const SERIES_GROUPS_MIN: usize = 3;

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{self, Sample},
        *,
    };

    fn source(name: &str, runs: Vec<RunResult>) -> Source {
        Source { name: name.to_owned(), file: samples::file(runs) }
    }

    #[test]
    fn the_same_load_is_one_section_with_a_row_for_each_label() {
        let sources = [source("all.json", samples::comparison())];
        let results = Results::new(&sources);
        let titles: Vec<_> =
            results.sections.iter().map(|section| section.title.as_str()).collect();
        assert_eq!(titles, ["p2p, QoS 1, window 16", "p2p, QoS 2, window 16"]);
        let rows = &results.sections[0].groups[0].rows;
        assert!(rows.iter().all(|row| row.runs.len() == 3));
        let labels: Vec<_> = rows.iter().map(|row| row.label.as_str()).collect();
        assert_eq!(labels, ["ringmq", "flashmq", "mosquitto"]);
        assert_eq!(results.labels, labels);
    }

    #[test]
    fn three_rates_make_a_series_two_make_two_sections() {
        let at = |rate: f64| Sample { rate: Some(rate), ..Sample::default() }.run();
        let sources = [source("a.json", vec![at(3e3), at(1e3), at(2e3)])];
        let results = Results::new(&sources);
        let rates: Vec<_> = results.sections[0].groups.iter().map(|group| group.rate).collect();
        assert_eq!(rates, [Some(1e3), Some(2e3), Some(3e3)]);
        let sources = [source("a.json", vec![at(3e3), at(1e3)])];
        let results = Results::new(&sources);
        let slugs: Vec<_> = results.sections.iter().map(|section| section.slug.as_str()).collect();
        assert_eq!(slugs, ["p2p-q1", "p2p-q1--2"]);
    }

    #[test]
    fn runs_without_a_label_are_named_after_their_file() {
        let run = Sample { label: " ", ..Sample::default() }.run();
        for (file, label) in [
            ("ringmq-1.json", "ringmq"),
            ("mosquitto_12.json", "mosquitto"),
            ("flashmq.json", "flashmq"),
            ("7.json", "7"),
            ("-1.json", "-1"),
        ] {
            assert_eq!(label_of(&source(file, Vec::new()), &run), label);
        }
    }

    #[test]
    fn incomplete_runs_count_only_if_there_are_no_others() {
        let failed = || Sample { ended: "failed: refused", ..Sample::default() }.run();
        let sources = [source("a.json", vec![failed(), Sample::default().run()])];
        assert_eq!(Results::new(&sources).sections[0].groups[0].rows[0].counted().count(), 1);
        let sources = [source("a.json", vec![failed(), failed()])];
        assert_eq!(Results::new(&sources).sections[0].groups[0].rows[0].counted().count(), 2);
    }
}
