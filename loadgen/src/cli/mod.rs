//! The command line of `loadgen`: what is typed, and the checked forms that the rest sees.

mod bench;
mod common;
mod compare;
mod disk;
mod report;
mod run;
mod team;

use clap::{Parser, Subcommand};

pub(crate) use self::{compare::CompareCommand, report::ReportCommand, run::RunCommand};
use crate::disk::DiskSetup;

/// A load generator for MQTT brokers
///
/// Works against any broker of MQTT 3.1, 3.1.1 or 5.0. Latency counts from the time a message was meant
/// to be sent, `run` checks every message, and the result says when it is worth nothing. `conn`, `pub` and
/// `sub` have the options of emqtt-bench.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: ArgsCommand,
}

#[derive(Debug, Subcommand)]
enum ArgsCommand {
    /// Run a scenario and measure throughput and latency
    Run(run::RunArgs),
    /// Run a scenario against several brokers in turn and compare the results
    Compare(compare::CompareArgs),
    /// Connect clients and hold their connections
    Conn(bench::ConnArgs),
    /// Publish messages to topics
    Pub(bench::PubArgs),
    /// Subscribe to topics and count what arrives
    Sub(bench::SubArgs),
    /// Time writes that are synced, one after the other
    Disk(disk::DiskArgs),
    /// Turn results into a page
    Report(ReportCommand),
}

/// What to do, checked.
#[derive(Debug)]
pub(crate) enum Command {
    Run(Box<RunCommand>),
    Compare(Box<CompareCommand>),
    Disk(DiskSetup),
    Report(ReportCommand),
}

impl Command {
    /// Reads the arguments of the process. Ends it after `--help` and `--version` (exit code 0) and
    /// misuse (2).
    pub(crate) fn of_process() -> Self {
        Self::from_args(Args::parse()).unwrap_or_else(|error| error.exit())
    }

    fn from_args(args: Args) -> Result<Self, clap::Error> {
        Ok(match args.command {
            ArgsCommand::Run(args) => Self::Run(Box::new(args.check()?)),
            ArgsCommand::Compare(args) => Self::Compare(Box::new(args.check()?)),
            ArgsCommand::Conn(args) => Self::Run(Box::new(args.check()?)),
            ArgsCommand::Pub(args) => Self::Run(Box::new(args.check()?)),
            ArgsCommand::Sub(args) => Self::Run(Box::new(args.check()?)),
            ArgsCommand::Disk(args) => Self::Disk(args.check()),
            ArgsCommand::Report(command) => Self::Report(command),
        })
    }
}

/// An error of the command line, with the usage below it.
fn misuse(text: impl std::fmt::Display) -> clap::Error {
    use clap::CommandFactory as _;
    Args::command().error(clap::error::ErrorKind::ValueValidation, text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// What the command line asks to be run.
    pub(super) fn parse(line: &str) -> Result<RunCommand, String> {
        let args = Args::try_parse_from(line.split_whitespace());
        match args.and_then(Command::from_args) {
            Ok(Command::Run(command)) => Ok(*command),
            Ok(_) => Err("this is another command".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Each command line is refused with an error that holds the hint.
    #[track_caller]
    pub(super) fn misuse_is_answered(lines: &[(&str, &str)]) {
        for (line, hint) in lines {
            let error = parse(&format!("loadgen {line}")).expect_err(line);
            assert!(error.contains(hint), "{line}: {error}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_command_is_needed() {
        misuse_is_answered(&[("", "Usage"), ("rum", "'run'"), ("--help", "emqtt-bench")]);
    }
}
