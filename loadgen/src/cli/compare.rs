//! `loadgen compare`.

use std::path::PathBuf;

use super::{
    common::{GeneratorArgs, IdentityArgs},
    misuse,
    run::LoadArgs,
};
use crate::{
    compare::{Comparison, Contender},
    measure::Target,
};

/// A comparison to be made, checked.
#[derive(Debug)]
pub(crate) struct CompareCommand {
    pub(crate) comparison: Comparison,
    pub(crate) json: Option<PathBuf>,
    pub(crate) quiet: bool,
}

/// Run a scenario against several brokers in turn and compare the results
///
/// Each round runs the scenario once against each broker. The table shows medians of the rounds, and the
/// ratio to the broker that is named first with the lowest and the highest ratio of a round: a
/// difference within that spread is none. The exit code is 1 if a broker lost, repeated or misdirected
/// messages, and 2 if a run could not be finished or the generator was the limit.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "loadgen compare [OPTIONS] <NAME=ADDR>... <SCENARIO>",
    after_help = AFTER_HELP
)]
pub(super) struct CompareArgs {
    /// The brokers, by name with their addresses as HOST:PORT or [V6]:PORT, then the scenario: a
    /// built-in one, or a TOML file
    // One list, as options may stand anywhere between.
    #[arg(value_name = "NAME=ADDR|SCENARIO", required = true)]
    words: Vec<String>,

    /// Rounds: how often each broker gets its turn
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// Start this broker before each of its runs and stop it afterwards
    ///
    /// The command runs in a shell, in a process group of its own, and has to stay in the foreground.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = named::<String>)]
    start: Vec<(String, String)>,

    /// With --start: the CPUs that started brokers may use, as 0-1,4
    #[arg(long, value_name = "CPU,...", requires = "start", value_parser = cpu_list)]
    broker_cpus: Option<String>,

    /// The process of a broker that is running already
    ///
    /// Its CPU time and memory, and those of its children, become part of the result.
    #[arg(long, value_name = "NAME=PID", value_parser = named::<u32>)]
    pid: Vec<(String, u32)>,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    clients: IdentityArgs,

    #[command(flatten)]
    generator: GeneratorArgs,

    /// Also write all results to this file, for `loadgen report`
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,

    /// No line each second
    #[arg(long, help_heading = "Output")]
    quiet: bool,
}

/// Where a broker listens.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Address {
    host: String,
    port: u16,
}

impl CompareArgs {
    pub(super) fn check(self) -> Result<CompareCommand, clap::Error> {
        let (scenario, addresses) = match self.words.split_last() {
            Some((last, _)) if address(last).is_ok() => {
                return Err(misuse("the scenario is missing: it comes after the brokers"));
            }
            Some((last, addresses)) if !addresses.is_empty() => (last, addresses),
            _ => {
                return Err(misuse("there is no broker: NAME=ADDR is needed, before the scenario"));
            }
        };
        let target = self.clients.target(&self.generator);
        let mut brokers: Vec<Contender> = Vec::new();
        for text in addresses {
            let (name, Address { host, port }) = address(text).map_err(misuse)?;
            if brokers.iter().any(|other| other.name() == name) {
                return Err(misuse(format!("two brokers are called {name}")));
            }
            let target = Target { hosts: vec![host], port, label: name, ..target.clone() };
            brokers.push(Contender { target, start: None });
        }
        for (name, command) in self.start {
            let broker = find(&mut brokers, "--start", &name)?;
            if broker.start.replace(command).is_some() {
                return Err(misuse(format!("{name} has two commands")));
            }
        }
        for (name, pid) in self.pid {
            let broker = find(&mut brokers, "--pid", &name)?;
            if broker.start.is_some() || broker.target.broker_pid.replace(pid).is_some() {
                return Err(misuse(format!("{name} has one --start or one --pid, not more")));
            }
        }
        let comparison = Comparison {
            brokers,
            scenario: self.load.scenario(scenario)?,
            rounds: self.rounds,
            broker_cpus: self.broker_cpus,
        };
        Ok(CompareCommand { comparison, json: self.json, quiet: self.quiet })
    }
}

fn find<'a>(
    brokers: &'a mut [Contender],
    option: &str,
    name: &str,
) -> Result<&'a mut Contender, clap::Error> {
    let found = brokers.iter_mut().find(|broker| broker.name() == name);
    found.ok_or_else(|| misuse(format!("{option} {name}=...: no broker is called {name}")))
}

/// `NAME=VALUE`.
fn named<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(String, T), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed")?;
    let is_fit = |name: &str| name.chars().all(|one| one.is_alphanumeric() || "._-+".contains(one));
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || !is_fit(name) {
        return Err(format!(
            "{name:?} is no name: up to {NAME_CHARS_MAX} letters, digits and ._-+ are"
        ));
    }
    let value = value.parse().map_err(|error: T::Err| error.to_string())?;
    Ok((name.to_owned(), value))
}

/// `NAME=HOST:PORT`.
fn address(text: &str) -> Result<(String, Address), String> {
    let (name, address) = named::<String>(text)?;
    let wrong = || format!("{address:?} is no address: HOST:PORT or [V6]:PORT is needed");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match in_brackets {
        Some(host) => host,
        None if host.is_empty() || host.contains([':', '[', ']']) => return Err(wrong()),
        None => host,
    };
    Ok((name, Address { host: host.to_owned(), port }))
}

/// As `taskset -c` takes it.
fn cpu_list(text: &str) -> Result<String, String> {
    let is_number = |part: &str| part.parse::<u16>().is_ok();
    let is_range = |part: &str| {
        part.split_once('-').is_some_and(|(from, to)| is_number(from) && is_number(to))
    };
    if text.split(',').all(|part| is_number(part) || is_range(part)) {
        return Ok(text.to_owned());
    }
    Err("numbers of CPUs are needed, such as 0 or 0-1,4".to_owned())
}

const AFTER_HELP: &str = "\
Examples:
  loadgen compare a=127.0.0.1:1883 b=127.0.0.1:1884 p2p -q 1 --pid a=4711 --pid b=4712
  loadgen compare --cpus 1 --broker-cpus 0 --json p2p.json \\
    --start 'ringmq=ringmq --ephemeral -l 127.0.0.1:1883' ringmq=127.0.0.1:1883 \\
    --start 'mosquitto=mosquitto -p 1884' mosquitto=127.0.0.1:1884 p2p";

/// A name is a column of the table.
const NAME_CHARS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        compare: CompareArgs,
    }

    fn check(line: &str) -> Result<Comparison, String> {
        let words = std::iter::once("loadgen").chain(line.split('|').map(str::trim));
        let checked = Line::try_parse_from(words).and_then(|line| line.compare.check());
        checked.map(|command| command.comparison).map_err(|error| error.to_string())
    }

    #[test]
    fn brokers_come_before_the_scenario() {
        let comparison = check("a=127.0.0.1:1883|b.2=[::1]:1884|p2p|-q|1|--rounds|5").unwrap();
        let brokers: Vec<_> = comparison
            .brokers
            .iter()
            .map(|broker| (broker.name(), broker.target.hosts[0].as_str(), broker.target.port))
            .collect();
        assert_eq!(brokers, [("a", "127.0.0.1", 1883), ("b.2", "::1", 1884)]);
        assert_eq!((comparison.scenario.name.as_str(), comparison.rounds), ("p2p", 5));
    }

    #[test]
    fn a_broker_is_started_or_known_by_its_process() {
        let line = "--start|a=broker -p 1|--pid|b=7|--broker-cpus|0,2-3|a=h:1|b=h:2|p2p";
        let comparison = check(line).unwrap();
        assert_eq!(comparison.brokers[0].start.as_deref(), Some("broker -p 1"));
        assert_eq!(comparison.brokers[1].target.broker_pid, Some(7));
        assert_eq!(comparison.broker_cpus.as_deref(), Some("0,2-3"));
        // The command may hold anything, the sign included.
        let comparison = check("a=h:1|--start|a=X=1 b --c=d|b=h:2|p2p").unwrap();
        assert_eq!(comparison.brokers[0].start.as_deref(), Some("X=1 b --c=d"));
    }

    #[test]
    fn misuse_is_explained() {
        for (line, expected) in [
            ("p2p", "there is no broker"),
            ("--rounds|1", "required arguments"),
            ("a=h:1|b=h:2", "the scenario is missing"),
            ("a=h:1|a=h:2|p2p", "two brokers are called a"),
            ("a=h|p2p", "HOST:PORT or [V6]:PORT is needed"),
            ("a=h:0|p2p", "HOST:PORT or [V6]:PORT is needed"),
            ("a=::1:1883|p2p", "HOST:PORT or [V6]:PORT is needed"),
            ("a=:1883|p2p", "HOST:PORT or [V6]:PORT is needed"),
            ("=h:1|p2p", "is no name"),
            ("a b=h:1|p2p", "is no name"),
            ("a=h:1|p2p|--start|b=x", "no broker is called b"),
            ("a=h:1|p2p|--start|a=x|--start|a=y", "a has two commands"),
            ("a=h:1|p2p|--pid|a=1|--pid|a=2", "one --start or one --pid"),
            ("a=h:1|p2p|--pid|a=1|--start|a=x", "one --start or one --pid"),
            ("a=h:1|p2p|--pid|a=x", "invalid digit"),
            ("a=h:1|p2p|--broker-cpus|0", "--start"),
            ("a=h:1|p2p|--start|a=x|--broker-cpus=-a 0", "numbers of CPUs are needed"),
            ("a=h:1|p2p|--rounds|0", "1..=1000"),
            ("p2p|a=h:1|p2p", "NAME=VALUE is needed"),
            ("a=h:1|no-such-thing", "no scenario is called"),
        ] {
            let error = check(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
