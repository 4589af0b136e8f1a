//! What speaks against the figures: failed runs, broken promises, comparisons that are none.

use std::collections::BTreeSet;

use crate::result::{RunResult, Settings};

use super::{
    group::{Group, Results, Row, Section, main_latency},
    merged, settings, words,
};

/// A warning, in words.
pub(super) struct Doubt {
    /// Title and slug of what it is about; none if it is about the files.
    pub(super) section: Option<(String, String)>,
    pub(super) text: String,
}

/// All of them, those first that say that something is wrong.
pub(super) fn of_results(results: &Results<'_>) -> Vec<Doubt> {
    let files = of_files(results).into_iter().map(|text| Doubt { section: None, text });
    let (mut faults, mut caveats) = (Vec::new(), Vec::new());
    for section in &results.sections {
        let about = |text| {
            let section = Some((section.title.clone(), section.slug.clone()));
            Doubt { section, text }
        };
        faults.extend(section_faults(section).into_iter().map(about));
        caveats.extend(section_caveats(section, &results.labels).into_iter().map(about));
    }
    files.chain(faults).chain(caveats).collect()
}

/// Why the figures of a row are not those of a broker that kept up with its load; empty if they are.
pub(super) fn row_faults(group: &Group<'_>, row: &Row<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    for run in row.runs.iter().map(|run| run.result) {
        let round = run.round;
        if !run.is_complete() {
            faults.push(format!("round {round} {}", words::shortened(&run.ended, TEXT_CHARS_MAX)));
        }
        if !run.violations.is_empty() {
            let found = words::shortened(&run.violations.join(", "), TEXT_CHARS_MAX);
            faults.push(format!("round {round}: {found}"));
        }
        if run.settings.qos == 0 && run.whole_run.lost > 0 {
            let counts = run.whole_run;
            let all = counts.lost.saturating_add(counts.delivered) as f64;
            let lost = words::percent(counts.lost as f64 / all);
            faults.push(format!(
                "round {round}: {lost} lost; at QoS 0 that is allowed, and looks like speed"
            ));
        }
        if run.whole_run.unsent > 0 {
            let unsent = words::number(run.whole_run.unsent as f64);
            faults.push(format!("round {round}: no room for {unsent} messages that were due"));
        }
        let rate = group.rate.unwrap_or_default();
        if run.sent_per_sec < rate * RATE_SHARE_MIN {
            let (sent, rate) = (words::number(run.sent_per_sec), words::number(rate));
            faults.push(format!("round {round}: only {sent} of {rate} messages/s sent"));
        }
    }
    let limited = row.counted().filter(|run| run.generator.was_the_limit).count();
    if limited > 0 {
        let all = row.counted().count();
        faults.push(format!("the generator was the limit in {limited} of {all} runs"));
    }
    faults
}

/// The highest rate up to which the broker kept up with every step, if it did with the first.
pub(super) fn highest_rate(section: &Section<'_>, style: usize) -> Option<f64> {
    let steps = section.groups.iter().filter_map(|group| {
        group.rows.iter().find(|row| row.style == style).map(|row| (group, row))
    });
    let kept_up = steps.take_while(|(group, row)| row_faults(group, row).is_empty());
    kept_up.last().and_then(|(group, _)| group.rate)
}

fn of_files(results: &Results<'_>) -> Vec<String> {
    let mut doubts = Vec::new();
    for (at, source) in results.sources.iter().enumerate() {
        let file = &source.file;
        if file.runs.is_empty() {
            doubts.push(format!("{} has no runs", source.name));
        }
        let earlier = results.sources[..at].iter().find(|earlier| {
            let earlier = &earlier.file;
            (earlier.finished_unix_secs, &earlier.command)
                == (file.finished_unix_secs, &file.command)
                && earlier.runs.len() == file.runs.len()
        });
        if let Some(earlier) = earlier.filter(|_| !file.runs.is_empty()) {
            doubts.push(format!("{} and {} seem to be the same result", earlier.name, source.name));
        }
    }
    doubts
}

fn section_faults(section: &Section<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    if section.is_series() {
        for (style, label) in section.labels() {
            let broken = section.groups.iter().find_map(|group| {
                let row = group.rows.iter().find(|row| row.style == style)?;
                let fault = row_faults(group, row).into_iter().next()?;
                Some(format!("{label} does not keep up with {}: {fault}", group.pace))
            });
            faults.extend(broken);
        }
    } else {
        for group in &section.groups {
            for row in &group.rows {
                let found = row_faults(group, row).into_iter();
                faults.extend(found.map(|fault| format!("{}: {fault}", row.label)));
            }
        }
    }
    faults
}

fn section_caveats(section: &Section<'_>, labels: &[String]) -> Vec<String> {
    let mut caveats = mixtures(section);
    let here = section.labels();
    let missing: Vec<&str> = labels
        .iter()
        .enumerate()
        .filter(|(style, _)| !here.iter().any(|(here, _)| here == style))
        .map(|(_, label)| label.as_str())
        .collect();
    if !missing.is_empty() {
        caveats.push(format!("there is no run of {} with this load", missing.join(", ")));
    }
    let rows = || section.groups.iter().flat_map(|group| &group.rows);
    let few: BTreeSet<&str> = rows()
        .filter(|row| row.counted().count() < ROUNDS_MIN)
        .map(|row| row.label.as_str())
        .collect();
    if !few.is_empty() {
        let few: Vec<&str> = few.into_iter().collect();
        caveats.push(format!(
            "fewer than {ROUNDS_MIN} complete rounds of {}: too few to tell a difference between \
             brokers from one between rounds",
            few.join(", ")
        ));
    }
    for row in rows() {
        let spread = row.spread(|run| Some(run.delivered_per_sec));
        if let Some(spread) = spread.filter(|spread| {
            spread.median > 0.0 && spread.max - spread.min > spread.median * SPREAD_SHARE_MAX
        }) {
            let share = words::percent((spread.max - spread.min) / spread.median);
            caveats
                .push(format!("{}: deliveries/s differ by {share} from round to round", row.label));
        }
        caveats.extend(row_caveats(row));
    }
    caveats
}

fn row_caveats(row: &Row<'_>) -> Vec<String> {
    let mut caveats = Vec::new();
    if row.counted().any(|run| run.broker.is_none() && main_latency(run).is_some()) {
        caveats.push(format!("{}: the broker's CPU time and memory are not known", row.label));
    }
    for run in row.counted() {
        for (name, latency) in &run.latency_us {
            if let Err(wrong) = merged::checked(latency) {
                let (label, round, name) = (&row.label, run.round, name.label());
                let text = format!(
                    "{label}, round {round}: the histogram of {name} {wrong} and is left out"
                );
                caveats.push(text);
            }
        }
    }
    caveats
}

/// Whether something other than the broker differs between runs that are shown side by side.
fn mixtures(section: &Section<'_>) -> Vec<String> {
    let rows = section.groups.iter().flat_map(|group| &group.rows);
    let mut runs = rows.flat_map(|row| &row.runs);
    let Some(first) = runs.next() else { return Vec::new() };
    let (mut machine, mut version, mut names) = (false, false, Vec::new());
    for run in runs {
        machine |= run.source.file.machine != first.source.file.machine;
        version |= run.source.file.loadgen != first.source.file.loadgen;
        names.extend(differing(first.result, run.result));
    }
    names.sort_unstable();
    names.dedup();
    let mut mixtures = Vec::new();
    if machine {
        mixtures.push("compares runs on different machines or kernels".to_owned());
    }
    if version {
        mixtures.push("compares runs of different versions of loadgen".to_owned());
    }
    if !names.is_empty() {
        mixtures.push(format!("compares runs with different settings: {}", names.join(", ")));
    }
    mixtures
}

fn differing(one: &RunResult, other: &RunResult) -> Vec<&'static str> {
    // Runs of a series differ in their rate, as they should.
    let pace = |settings: &Settings| (settings.pace.clone(), settings.rate_per_sec);
    let mut other = other.settings.clone();
    (other.pace, other.rate_per_sec) = pace(&one.settings);
    settings::differences(&one.settings, &other)
}

/// A rate counts as kept if so much of it was sent.
const RATE_SHARE_MIN: f64 = 0.98;

/// What rounds may differ by: the noise of a quiet machine.
const SPREAD_SHARE_MAX: f64 = 0.15;

const ROUNDS_MIN: usize = 3;

const TEXT_CHARS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::{
        super::{
            group::Source,
            samples::{self, Sample},
        },
        *,
    };

    fn doubts(runs: Vec<RunResult>) -> Vec<String> {
        let sources = [Source { name: "a.json".to_owned(), file: samples::file(runs) }];
        of_results(&Results::new(&sources)).into_iter().map(|doubt| doubt.text).collect()
    }

    fn assert_names(doubts: &[String], what: &str) {
        assert!(doubts.iter().any(|doubt| doubt.contains(what)), "{what}: {doubts:#?}");
    }

    #[test]
    fn a_sound_comparison_raises_none() {
        assert_eq!(doubts(samples::comparison()), [""; 0]);
    }

    #[test]
    fn each_fault_of_a_run_is_named() {
        let mut runs: Vec<_> =
            (1..=3).map(|round| Sample { round, ..Sample::default() }.run()).collect();
        runs[0].ended = "failed: closed".to_owned();
        runs[1].violations = vec!["3 lost".to_owned()];
        runs[1].generator.was_the_limit = true;
        runs[1].broker = None;
        runs[2].whole_run.unsent = 1234;
        runs[2].delivered_per_sec *= 2.0;
        if let Some(latency) = runs[2].latency_us.values_mut().next() {
            latency.histogram.clear();
        }
        let doubts = doubts(runs);
        for what in [
            "round 1 failed: closed",
            "round 2: 3 lost",
            "the generator was the limit in 1 of 2 runs",
            "no room for 1,234 messages",
            "from round to round",
            "CPU time and memory are not known",
            "histogram of publish to delivery cannot be read",
            "fewer than 3 complete rounds of ringmq",
        ] {
            assert_names(&doubts, what);
        }
    }

    #[test]
    fn loss_at_qos_0_is_a_fault_too() {
        let mut run = Sample { qos: 0, ..Sample::default() }.run();
        (run.whole_run.lost, run.whole_run.delivered) = (1, 99);
        assert_names(&doubts(vec![run]), "1 % lost; at QoS 0");
    }

    #[test]
    fn apples_and_pears_are_named() {
        let mut runs = samples::comparison();
        runs[4].settings.threads = 7;
        let mut other = samples::file(vec![Sample { label: "pear", ..Sample::default() }.run()]);
        other.machine.kernel = "5.4".to_owned();
        other.loadgen = "0.0.1".to_owned();
        let sources = [samples::file(runs), other, samples::file(Vec::new())];
        let sources = sources.map(|file| Source { name: "x.json".to_owned(), file });
        let results = Results::new(&sources);
        let doubts: Vec<_> = of_results(&results).into_iter().map(|doubt| doubt.text).collect();
        for what in [
            "different machines",
            "different versions",
            "different settings: generator threads",
            "no run of pear",
            "fewer than 3 complete rounds of pear",
            "x.json has no runs",
        ] {
            assert_names(&doubts, what);
        }
    }

    #[test]
    fn a_series_says_from_where_on_it_breaks() {
        let sources = [Source { name: "s.json".to_owned(), file: samples::file(samples::steps()) }];
        let results = Results::new(&sources);
        let section = &results.sections[0];
        let highest: Vec<_> =
            section.labels().iter().map(|(style, _)| highest_rate(section, *style)).collect();
        assert_eq!(highest, [Some(240_000.0), Some(120_000.0), Some(20_000.0)]);
        let doubts = section_faults(section);
        assert_names(&doubts, "mosquitto does not keep up with 40000 messages/s");
    }
}
