//! The `loadgen` program: arguments, Ctrl-C, run, report, exit code.

use std::{
    fs::File,
    io::{self, Write},
    process::ExitCode,
};

mod client;
mod identifiers;
mod interrupt;
mod machine;
mod options;
mod pace;
mod record;
mod report;
mod run;
mod scenario;
mod sockets;

use self::{interrupt::Interrupt, options::Options, report::Report, run::Outcome};

fn main() -> ExitCode {
    let options = Options::of_process();
    match run(&options) {
        Ok(outcome) if outcome.ended.is_failure() => ExitCode::from(NOT_MEASURED),
        Ok(outcome) if outcome.record.violations().is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(VIOLATED),
        Err(error) => {
            // Nothing is left to do if nobody can read it.
            let _ = writeln!(io::stderr(), "loadgen: {error}");
            ExitCode::from(NOT_MEASURED)
        }
    }
}

/// Runs the scenario and prints what came of it, also if it ended before its time.
fn run(options: &Options) -> Result<Outcome, Box<dyn std::error::Error>> {
    // Before the run: a result that cannot be written should not take a minute to say so.
    let json = options.json.as_ref().map(|path| {
        File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))
    });
    let json = json.transpose()?;
    let interrupt = Interrupt::watch()?;
    let outcome = run::run(options, &interrupt)?;
    let report = Report::new(options, &outcome);
    if let Some(mut file) = json {
        writeln!(file, "{:#}", report.json())?;
    }
    // A reader that has gone is no failure of the measurement.
    let _ = write!(io::stdout(), "{report}");
    Ok(outcome)
}

/// Exit code if the broker lost, repeated, reordered or misdirected messages that it may not.
const VIOLATED: u8 = 1;

/// Exit code if the measurement could not be made or not be finished.
const NOT_MEASURED: u8 = 2;
