//! The `ringmq` program: allocator, arguments, configuration, checks, run.

use std::{
    error::Error,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use ringmq::{
    cli::Request,
    config::{AnonymousPolicy, Config, Sources},
    logging, preflight, server,
};
use tracing::{info, warn};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let done = match Request::of_process() {
        Request::Run(sources) => {
            run(&sources).map_err(|error| complain("ringmq: ", error.as_ref()))
        }
        Request::Check { file, sources } => {
            check(&file, &sources).map_err(|error| complain("", error.as_ref()))
        }
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the broker until it is told to stop.
fn run(sources: &Sources) -> Result<(), Box<dyn Error>> {
    let mut config = Config::load(sources)?;
    logging::init(&config.log);
    let warnings = preflight::run(&mut config)?;
    announce(&config);
    for warning in warnings {
        warn!("{warning}");
    }
    server::run(config)?;
    Ok(())
}

/// Says whether a configuration file is right.
fn check(file: &Path, sources: &Sources) -> Result<(), Box<dyn Error>> {
    Config::load(sources)?;
    writeln!(io::stdout(), "{}: ok", file.display())?;
    Ok(())
}

/// What an operator wants to see of a start; the server logs the addresses.
fn announce(config: &Config) {
    let limits = &config.limits;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        shards = config.shards,
        connections_max = limits.connections_max,
        packet_bytes_max = limits.packet_bytes_max,
        inflight_max = limits.inflight_max,
        queue_messages_max = limits.queue_messages_max,
        queue_bytes_max = limits.queue_bytes_max,
        "ringmq starts; all state is in memory and ends with the process"
    );
    if config.allow_anonymous == AnonymousPolicy::Nowhere {
        warn!(
            "allow_anonymous is false and this version has no other authentication: \
             every client will be refused"
        );
    }
}

/// Tells an error line by line. Nothing is left to do if nobody can read it.
fn complain(prefix: &str, error: &dyn Error) {
    for line in error.to_string().lines() {
        let _ = writeln!(io::stderr(), "{prefix}{line}");
    }
}
