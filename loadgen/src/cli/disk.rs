//! `loadgen disk`.

use std::path::PathBuf;

use clap::ArgAction;

use crate::disk::DiskSetup;

/// Time writes that are synced, one after the other
///
/// No broker that keeps its promise can acknowledge a message sooner than its disk has synced it. This is
/// that time, on the disk that holds the directory: into blocks that are only reserved, as a log goes on,
/// and into blocks that were written before.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, after_help = AFTER_HELP)]
pub(super) struct DiskArgs {
    /// Where a file is made, and removed again
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// Bytes of one write
    #[arg(short, long, value_name = "BYTES", default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..=16 * 1024 * 1024))]
    size: u32,

    /// Writes of each kind
    #[arg(short, long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

impl DiskArgs {
    pub(super) fn check(self) -> DiskSetup {
        DiskSetup { directory: self.directory, bytes: self.size, count: self.count }
    }
}

const AFTER_HELP: &str = "\
Example:
  loadgen disk /var/lib/ringmq";
