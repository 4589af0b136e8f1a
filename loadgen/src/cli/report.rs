//! `loadgen report`.

use std::path::PathBuf;

use clap::ArgAction;

/// Turn results into a page
///
/// Reads the JSON files that --json has written, and writes one HTML file that needs nothing else: tables
/// with the spread over the rounds, percentiles, latency over time, throughput against CPU, side by side
/// for each name. Also writes the plots as SVG files.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, after_help = AFTER_HELP)]
pub(crate) struct ReportCommand {
    /// Results, as --json writes them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// The page to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub(crate) out: PathBuf,

    /// Also write each plot as an SVG file to this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

const AFTER_HELP: &str = "\
Example:
  loadgen run p2p --label before --json before.json
  loadgen run p2p --label after --json after.json
  loadgen report before.json after.json --out p2p.html";
