//! The `loadgen` program: arguments, Ctrl-C, the command, exit code.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

mod cli;
mod client;
mod clock;
mod compare;
mod disk;
mod homes;
mod load;
mod machine;
mod measure;
mod output;
mod pace;
mod plan;
mod record;
mod report;
mod result;
mod scenario;
mod spread;
mod transport;

use self::{
    cli::{Command, CompareCommand, ReportCommand, RunCommand},
    compare::{Figures, Step, Verdict},
    disk::{DiskFigures, DiskSetup},
    measure::{Highest, Progress},
    output::{ComparisonTable, HistogramLog, Live, Prometheus, Table, grouped},
    result::{INTERRUPTED, RunResult},
    scenario::Pace,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let outcome = match Command::of_process() {
        Command::Run(command) => run(&command),
        Command::Report(command) => report(&command),
        Command::Compare(command) => compare(&command),
        Command::Disk(setup) => disk(&setup),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to do if nobody can read it.
            let _ = writeln!(io::stderr(), "loadgen: {error}");
            ExitCode::from(NOT_MEASURED)
        }
    }
}

/// Runs the scenario and prints what came of it, also if it ended before its time.
fn run(command: &RunCommand) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let json = json_file(command.output.json.as_deref())?;
    let mut hlog = command.output.hlog.as_deref().map(HistogramLog::create).transpose()?;
    let mut prometheus = command.output.prometheus.map(Prometheus::serve).transpose()?;
    let interrupt = watch_signals()?;
    let mut live = Live::new(command.output.quiet);
    let mut nothing_found = None;
    let mut tell = |progress: Progress<'_>| {
        hlog.iter_mut().for_each(|log| log.take(&progress));
        prometheus.iter_mut().for_each(|page| page.take(&progress));
        match progress {
            Progress::Note(text) => live.note(text),
            Progress::Warning(text) => live.warn(text),
            Progress::Run(scenario) => live.begin(scenario),
            Progress::Second(second, _) => live.show(second),
            Progress::Rest(..) => {}
            Progress::Result(result) => {
                live.end();
                // A reader that has gone is no failure of the measurement.
                let _ = writeln!(io::stdout(), "{}", Table(result));
            }
            Progress::Found(Highest { rate, was_generators_limit }) => {
                let found = match rate {
                    Some(rate) => format!("highest rate in time: {rate:.1} messages/s"),
                    None => "no rate was in time".to_owned(),
                };
                let but = "\nTHE GENERATOR WAS THE LIMIT: the broker may serve more";
                let but = if was_generators_limit { but } else { "" };
                let _ = writeln!(io::stdout(), "{found}{but}");
                if rate.is_none() {
                    nothing_found =
                        Some(if was_generators_limit { NOT_MEASURED } else { VIOLATED });
                }
            }
        }
    };
    let RunCommand { scenario, target, .. } = command;
    let mut results = Vec::new();
    let outcome = measure::measure(scenario, target, &interrupt, &mut tell, &mut results);
    live.end();
    let code = match scenario.pace {
        // Rates that were too high are part of the answer.
        Pace::Search(_) => nothing_found.map_or(ExitCode::SUCCESS, ExitCode::from),
        _ => exit_code(&results),
    };
    write_json(json, results)?;
    hlog.map_or(Ok(()), HistogramLog::finish)?;
    outcome?;
    Ok(code)
}

/// Runs the scenario against all brokers in turn and prints a table for each QoS.
fn compare(command: &CompareCommand) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let json = json_file(command.json.as_deref())?;
    let interrupt = watch_signals()?;
    let is_quiet = command.quiet;
    let mut live = Live::new(is_quiet);
    let mut tell = |step: Step<'_>| match step {
        Step::Turn { round, broker } => {
            live.note(&format!("round {round} of {}: {broker}", command.comparison.rounds));
        }
        Step::Of(Progress::Run(scenario)) => live.begin(scenario),
        Step::Of(Progress::Second(second, _)) => live.show(second),
        Step::Of(Progress::Result(result)) => {
            live.end();
            let (qos, rate) = (result.settings.qos, grouped(result.delivered_per_sec as u64));
            live.note(&format!("  QoS {qos}: {rate} deliveries/s"));
        }
        Step::Of(Progress::Note(text)) => live.note(text),
        Step::Of(Progress::Warning(text)) => live.warn(text),
        Step::Of(Progress::Rest(..) | Progress::Found(_)) => {}
    };
    let results = command.comparison.run(&interrupt, &mut tell);
    let all_figures = Figures::of(&command.comparison, &results);
    for figures in &all_figures {
        // A reader that has gone is no failure of the measurement.
        let _ = writeln!(io::stdout(), "{}", ComparisonTable(figures));
    }
    let code = match all_figures.iter().map(Figures::verdict).max() {
        Some(Verdict::Sound) => ExitCode::SUCCESS,
        Some(Verdict::Violated) => ExitCode::from(VIOLATED),
        Some(Verdict::NotMeasured) | None => ExitCode::from(NOT_MEASURED),
    };
    write_json(json, results)?;
    Ok(code)
}

/// Before the run: a result that cannot be written should not take a minute to say so.
fn json_file(path: Option<&Path>) -> Result<Option<File>, String> {
    let create = |path: &Path| {
        File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    path.map(create).transpose()
}

fn write_json(
    file: Option<File>,
    results: Vec<RunResult>,
) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(mut file) = file {
        writeln!(file, "{}", serde_json::to_string_pretty(&measure::result_file(results))?)?;
    }
    Ok(())
}

fn disk(setup: &DiskSetup) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let DiskFigures { reserved, written } = setup.measure()?;
    let mut text = format!("{} bytes written and synced (us)", setup.bytes);
    text += &format!("{:>10}{:>10}{:>10}{:>10}{:>10}", "min", "p50", "p90", "p99", "max");
    for (name, one) in [("reserved blocks", reserved), ("blocks written before", written)] {
        let [min, p50, p90, p99, max] = [one.min, one.p50, one.p90, one.p99, one.max];
        text += &format!("\n{name:<32}{min:>10}{p50:>10}{p90:>10}{p99:>10}{max:>10}");
    }
    writeln!(io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

fn report(command: &ReportCommand) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let written = report::write(&command.files, Some(&command.out), command.svg.as_deref())?;
    for path in written {
        let _ = writeln!(io::stdout(), "{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// A flag that Ctrl-C sets; the second Ctrl-C ends the process.
fn watch_signals() -> io::Result<Arc<AtomicBool>> {
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down and sets it.
        flag::register_conditional_shutdown(signal, NOT_MEASURED.into(), interrupt.clone())?;
        flag::register(signal, interrupt.clone())?;
    }
    Ok(interrupt)
}

fn exit_code(results: &[RunResult]) -> ExitCode {
    let failed = |result: &RunResult| !result.is_complete() && result.ended != INTERRUPTED;
    if results.iter().any(failed) {
        ExitCode::from(NOT_MEASURED)
    } else if results.iter().any(|result| !result.violations.is_empty()) {
        ExitCode::from(VIOLATED)
    } else {
        ExitCode::SUCCESS
    }
}

/// Exit code if the broker lost, repeated, reordered or misdirected messages that it may not.
const VIOLATED: u8 = 1;

/// Exit code if the measurement could not be made or not be finished.
const NOT_MEASURED: u8 = 2;
