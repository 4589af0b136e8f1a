//! The `ringmq` program: allocator, arguments, configuration, checks, run.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use ringmq::{
    certificates::Certificates,
    cli::Request,
    config::{AnonymousPolicy, Chain, Config, Method, Sources},
    explain,
    import::{self, Imported},
    inspect, logging,
    passwd::{self, Change},
    preflight, privileges, repair, server,
};
use tracing::{error, info, warn};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let done = match Request::of_process() {
        Request::Run(sources) => run(&sources),
        Request::Check { file, sources } => check(&file, &sources),
        Request::Passwd { file, user, change } => set_password(&file, &user, &change),
        Request::Explain(question) => told(explain::run(&question, io::stdout().lock())),
        Request::Import { file } => import_from(&file),
        Request::Inspect { directory, json } => {
            told(inspect::run(&directory, json, io::stdout().lock()).map(|()| true))
        }
        Request::Repair { directory, yes } => {
            told(repair::run(&directory, yes, &mut io::stdout().lock()))
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the broker until it is told to stop; true if all went well.
fn run(sources: &Sources) -> bool {
    let config = match Config::load(sources) {
        Ok(config) => config,
        Err(error) => {
            complain("ringmq: ", &error);
            return false;
        }
    };
    // From here on everything goes to the log in its form, the reason of a failure too.
    let _log = logging::init(&config.log);
    let done = serve(config, sources);
    if let Err(error) = &done {
        error.to_string().lines().for_each(|line| error!("{line}"));
    }
    done.is_ok()
}

fn serve(mut config: Config, sources: &Sources) -> Result<(), Box<dyn Error>> {
    if let Some(user) = config.user.take() {
        preflight::raise_limits(&config);
        let data_dir = Some(&*config.data_dir).filter(|_| !config.ephemeral);
        privileges::become_user(&user, data_dir)?;
        // What is read again later is that user's to read.
        config = Config::load(sources)?;
    } else if privileges::is_root() {
        warn!("the process is root's; `user` in the configuration makes it another user's");
    }
    let warnings = preflight::run(&mut config)?;
    announce(&config);
    for warning in warnings {
        info!("{warning}");
    }
    server::run(config, sources)?;
    Ok(())
}

/// Says whether a configuration file is right.
fn check(file: &Path, sources: &Sources) -> bool {
    let checked = Config::load(sources).map_err(|error| error.to_string());
    let checked =
        checked.and_then(|config| Certificates::check(&config).map_err(|error| error.to_string()));
    match &checked {
        // Nothing is left to do if nobody can read it.
        Ok(()) => drop(writeln!(io::stdout(), "{}: ok", file.display())),
        Err(error) => complain("", error),
    }
    checked.is_ok()
}

/// Changes a password file; true if that went well.
fn set_password(file: &Path, user: &str, change: &Change) -> bool {
    let done = passwd::run(file, user, change);
    match &done {
        Ok(what) => drop(writeln!(io::stdout(), "{what}")),
        Err(error) => complain("ringmq: ", error),
    }
    done.is_ok()
}

/// Prints what a configuration of mosquitto is here; true if that went well.
fn import_from(file: &Path) -> bool {
    match import::run(file) {
        Ok(Imported { toml, left }) => {
            // Nothing is left to do if nobody can read it.
            let _ = io::stdout().write_all(toml.as_bytes());
            left.iter().for_each(|line| complain("", line));
            true
        }
        Err(error) => {
            complain("ringmq: ", &error);
            false
        }
    }
}

/// Tells an error; otherwise what was found.
fn told<E: Error>(outcome: Result<bool, E>) -> bool {
    outcome.unwrap_or_else(|error| {
        complain("ringmq: ", &error);
        false
    })
}

/// What an operator wants to see of a start; the server logs the addresses.
fn announce(config: &Config) {
    let limits = &config.policy.limits;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        shards = config.shards,
        connections_max = limits.connections_max,
        packet_bytes_max = limits.packet_bytes_max,
        inflight_max = limits.inflight_max,
        queue_messages_max = limits.queue_messages_max,
        queue_bytes_max = limits.queue_bytes_max,
        memory_bytes_max = limits.memory_bytes_max,
        "ringmq starts"
    );
    if config.ephemeral {
        info!("nothing is kept on disk: all state ends with the process");
    }
    let lets_in_anybody = |method: &Method| match method {
        Method::Anonymous => config.policy.anonymous != AnonymousPolicy::Nowhere,
        Method::Certificate => config.policy.chain != Chain::default(),
        Method::Password | Method::Jwt | Method::Http => config.policy.knows(*method),
    };
    let policy = &config.policy;
    let own = policy.listeners.iter().flat_map(|listener| &listener.chain);
    if ![&policy.chain].into_iter().chain(own).any(|chain| chain.0.iter().any(lets_in_anybody)) {
        warn!(
            "allow_anonymous is false and there is nothing to authenticate with, such as users in a \
             password_file: every client will be refused"
        );
    }
    if let Some(path) = &config.open_password_file {
        let path = path.display();
        warn!("{path} can be read by everybody on this machine; `chmod o-r {path}` ends that");
    }
}

/// Tells an error line by line. Nothing is left to do if nobody can read it.
fn complain(prefix: &str, error: &dyn fmt::Display) {
    for line in error.to_string().lines() {
        let _ = writeln!(io::stderr(), "{prefix}{line}");
    }
}
