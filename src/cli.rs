//! The command line: what is typed, what `--help` teaches, and what both mean
//! as [`Sources`] of the configuration.
//!
//! Owns the names of flags. Knows no default and no range: `config` does.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Parser, Subcommand};

use crate::{
    base::QoS,
    config::{self, Flag, Sources},
    explain::{Action, Question},
    passwd::Change,
};

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Run the broker.
    Run(Sources),
    /// Check a configuration file and end.
    Check {
        /// The file, for the verdict.
        file: PathBuf,
        /// The file and what `--set` adds to it.
        sources: Sources,
    },
    /// Change a password file and end.
    Passwd {
        /// The file.
        file: PathBuf,
        /// Whose line.
        user: String,
        /// What becomes of the line.
        change: Change,
    },
    /// Say what access rules let a client do and end.
    Explain(Question),
    /// Say what a configuration of mosquitto is here and end.
    Import {
        /// The file.
        file: PathBuf,
    },
    /// Show what a data directory holds and end.
    Inspect {
        /// The directory.
        directory: PathBuf,
        /// As JSON.
        json: bool,
    },
    /// Make damaged logs readable again and end.
    Repair {
        /// The directory.
        directory: PathBuf,
        /// Change it, and do not only say how.
        yes: bool,
    },
}

impl Request {
    /// Reads the arguments and the environment of the process. Ends the process
    /// after `--help` and `--version` (exit code 0) and misuse (2).
    pub fn of_process() -> Self {
        Self::from_args(Args::parse(), std::env::vars_os().collect())
    }

    fn from_args(args: Args, environment: Vec<(OsString, OsString)>) -> Self {
        let Args { command, run } = args;
        match command {
            // The file alone is checked, whatever the environment adds to it here.
            Some(Command::Check { file, set }) => Self::Check {
                file: file.clone(),
                sources: Sources { file: Some(file), sets: set, ..Sources::default() },
            },
            Some(Command::Acl { command: AclCommand::Explain(args) }) => {
                Self::Explain(args.question())
            }
            Some(Command::Passwd { file, user, delete, from, batch, shown }) => {
                let change = match from {
                    _ if batch || shown.is_some() => Change::Shown,
                    Some(from) => Change::SetFrom(from),
                    None if delete => Change::Delete,
                    None => Change::Set,
                };
                Self::Passwd { file, user, change }
            }
            Some(Command::Import { file }) => Self::Import { file },
            Some(Command::Inspect { directory, json }) => Self::Inspect { directory, json },
            Some(Command::Repair { directory, yes }) => Self::Repair { directory, yes },
            None => Self::Run(run.sources(environment)),
        }
    }
}

/// An MQTT broker that runs one thread on each CPU.
#[derive(Debug, Parser)]
#[command(
    name = "ringmq",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    long_about = LONG_ABOUT,
    after_help = "Examples and all configuration keys: ringmq --help",
    after_long_help = after_long_help(),
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a configuration file
    ///
    /// Prints "FILE: ok", or each mistake with its line, what is allowed there and
    /// what was probably meant; the exit code is 1 then. Host names are resolved;
    /// nothing is started. RINGMQ_ variables are left out.
    Check {
        /// The TOML file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Check the file together with this key
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Set a user's password in a password file
    ///
    /// Asks for the password twice on the terminal; if standard input is none, reads one
    /// line from there. The file holds no password, only an Argon2id hash and SCRAM keys
    /// that can check one. If there is none it is created, readable for its owner alone;
    /// all else in it is kept, lines of mosquitto_passwd too. A broker reads it at its
    /// start (configuration key password_file).
    Passwd {
        /// The password file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The user; no colon, no control characters
        #[arg(value_name = "USER")]
        user: String,
        /// Delete the user instead
        #[arg(short = 'D', long)]
        delete: bool,
        /// Read the password from this file, which has one line
        #[arg(long, value_name = "FILE", conflicts_with = "delete")]
        from: Option<PathBuf>,
        /// What mosquitto_passwd calls batch mode: refused, with the reason
        #[arg(short = 'b', hide = true)]
        batch: bool,
        /// See `batch`
        #[arg(hide = true)]
        shown: Option<OsString>,
    },
    /// Ask access rules
    Acl {
        #[command(subcommand)]
        command: AclCommand,
    },
    /// Turn a configuration of mosquitto into one of ringmq
    ///
    /// Prints the configuration to standard output, and to standard error each line of the file that has
    /// no counterpart, and why. Files of an include_dir are read too. `password_file` and `acl_file` are
    /// taken as they are; sessions and retained messages in mosquitto.db are not.
    #[command(
        after_help = "Example:\n  ringmq import /etc/mosquitto/mosquitto.conf > ringmq.toml && ringmq check ringmq.toml"
    )]
    Import {
        /// mosquitto.conf
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show what a data directory holds
    ///
    /// Sessions with their subscriptions and how many messages wait for them, retained and
    /// delayed messages, and the size of each shard's log. Changes nothing. The broker that
    /// uses the directory must have ended: its logs change while they are read.
    Inspect {
        /// The data directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Make a damaged data directory usable again
    ///
    /// Prints which bytes of which files cannot be read and which sessions lack messages
    /// because of that; the exit code is 1 then. With --yes the files are written anew
    /// without them; as they were, they are kept beside the new ones as FILE.damaged.
    Repair {
        /// The data directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Make the change
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
enum AclCommand {
    /// Say what a client may do, and which rule decides
    ///
    /// Prints a line for each of publish, subscribe and receive: whether it is allowed, and the file, the
    /// line and the content of the rule that says so. The exit code is 0 if all that was asked is allowed,
    /// 1 if something is denied. Asks the rules as they stand in the file now: a broker that runs may
    /// have others until SIGHUP.
    Explain(ExplainArgs),
}

#[derive(Debug, clap::Args)]
struct ExplainArgs {
    /// The file of rules [default: acl_file of the configuration]
    #[arg(long, value_name = "FILE")]
    acl_file: Option<PathBuf>,
    /// The configuration, for its acl_file and acl_default
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A group of the user (repeatable)
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// The address that the client comes from
    #[arg(long, value_name = "ADDRESS")]
    address: Option<std::net::IpAddr>,
    /// QoS that is published with
    #[arg(long, value_name = "QOS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Publish with RETAIN
    #[arg(long)]
    retain: bool,
    /// The user that the client has proven to be; - is none
    #[arg(value_name = "USER", allow_hyphen_values = true)]
    user: String,
    /// Its client id
    #[arg(value_name = "CLIENT")]
    client: String,
    /// A topic, or a topic filter to subscribe to
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Ask for this alone
    #[arg(value_name = "ACTION")]
    action: Option<Action>,
}

impl ExplainArgs {
    fn question(self) -> Question {
        let Self { acl_file, config, group, address, qos, retain, user, client, topic, action } =
            self;
        let user = (user != "-").then_some(user);
        let qos = QoS::from_bits(qos).unwrap_or_default();
        Question {
            acl_file,
            config,
            user,
            groups: group,
            address,
            client,
            topic,
            action,
            qos,
            retain,
        }
    }
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Read the configuration from this TOML file
    ///
    /// Without it no file is read. `ringmq check FILE` tells what is wrong with one.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Accept connections here instead of on the file's addresses (repeatable)
    ///
    /// HOST:PORT or mqtt://HOST[:PORT], the port of a URL being 1883; ws://HOST[:PORT]
    /// for WebSocket, port 80; unix:/PATH. IPv6 goes in brackets, [::1]:1883. With port 0
    /// the kernel chooses a port, which is logged. TLS takes a file: see [[listener]] among
    /// the keys below.
    /// An address that other machines can reach needs users in a password_file, or
    /// allow_anonymous = true.
    #[arg(short, long, value_name = "ADDR")]
    listen: Vec<String>,

    /// Spread the clients over this many threads [default: one per CPU]
    ///
    /// One CPU each; with more shards than CPUs the kernel places them.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shards: Option<i64>,

    /// Directory for state that outlives the process [default: /var/lib/ringmq]
    ///
    /// It is created if it is missing, and belongs to one broker at a time. See also
    /// `ringmq inspect` and `ringmq repair`.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,

    /// Keep nothing on disk
    ///
    /// Sessions, queued and retained messages end with the process.
    #[arg(long)]
    ephemeral: bool,

    /// Log more: -v a line for each packet, -vv everything
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Form of the log: text or json [default: text]
    ///
    /// The log goes to standard error; json is one object a line.
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], hide_possible_values = true)]
    log_format: Option<String>,

    /// Trace one in N publications: a log line shows where its time went
    ///
    /// Each shard that delivers it logs the microseconds that each stage took, and
    /// a summary of all traces every 10 seconds and at its end. 0 traces none.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    trace_sample: Option<i64>,

    /// Set any configuration key, as in the file (repeatable)
    ///
    /// KEY is dotted, VALUE as in TOML, where quotes around a single word may be
    /// left out: --set limits.inflight_max=100 --set log_level=warn. A list is stated
    /// as a whole: --set 'retained_ttl=["a/# => 60", "b/# => 0"]'.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl RunArgs {
    fn sources(self, environment: Vec<(OsString, OsString)>) -> Sources {
        let Self {
            config,
            listen,
            shards,
            data_dir,
            ephemeral,
            verbose,
            log_format,
            trace_sample,
            set,
        } = self;
        let listen = (!listen.is_empty()).then(|| listen.join(","));
        let level = match verbose {
            0 => None,
            1 => Some("debug"),
            _ => Some("trace"),
        };
        let flags = [
            ("-l", "listen", listen),
            ("--shards", "shards", shards.map(|shards| shards.to_string())),
            ("--data-dir", "data_dir", data_dir),
            ("--ephemeral", "ephemeral", ephemeral.then(|| "true".to_owned())),
            ("--log-format", "log_format", log_format),
            ("--trace-sample", "trace_sample", trace_sample.map(|every| every.to_string())),
            ("-v", "log_level", level.map(str::to_owned)),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(name, key, value)| Some(Flag { name, key, value: value? }))
            .collect();
        Sources { file: config, environment, sets: set, flags }
    }
}

const LONG_ABOUT: &str = "\
An MQTT broker (3.1, 3.1.1 and 5.0) that runs one thread on each CPU, on Linux 6.1 or newer.

Without arguments it accepts connections from this machine alone, on 127.0.0.1:1883 and \
[::1]:1883, without a password. It stays in the foreground, logs to standard error, and ends on \
SIGTERM or Ctrl-C.

Sessions, queued and retained messages are kept in /var/lib/ringmq, or in the directory that \
--data-dir names, and survive the process and a loss of power; with --ephemeral they are kept in \
memory and end with the process.";

fn after_long_help() -> String {
    let keys = config::help_text();
    format!(
        "\
Examples:
  ringmq --data-dir ./data
      Serve this machine. To try it, in two other terminals:
        mosquitto_sub -t 'test/#' -q 1 -v
        mosquitto_pub -t test/hello -q 1 -m hi
  ringmq -v --ephemeral
      The same without anything on disk, with a line for each packet in both directions.
  ringmq -l 0.0.0.0:1883 --set allow_anonymous=true
      Serve the network, without any password.
  ringmq -l mqtt://localhost -l 127.0.0.1:0 --shards 4 --log-format json
      Two addresses, four threads, the log as JSON.
  ringmq check ringmq.toml && ringmq -c ringmq.toml
      Run with a file, once it is right.
  ringmq passwd users ann && ringmq --set password_file=users -l 0.0.0.0:1883
      Serve the network to those who know a password (SCRAM-SHA-256, MQTT 5.0).

  ringmq acl explain --acl-file rules.toml ann sensor-7 plant/7/heat publish
      Whether ann may publish there, and which rule says so.

  ringmq inspect ./data
      What is kept there, once the broker has ended.

Configuration:
  A key takes its value from the first of: a flag of its own, --set, the
  environment, the file, its default. The variable of a key is RINGMQ_ and the
  name in capitals, with _ for the dot: RINGMQ_LIMITS_INFLIGHT_MAX=100. A file:
    listen = [\"127.0.0.1:1883\", \"[::1]:1883\"]
    log_level = \"warn\"
    retained_ttl = [\"a/# => 60\", \"b/# => 0\"]
    [limits]
    inflight_max = 100
  A list replaces that of a source that counts for less.

Keys:
{keys}
Exit codes:
  0 ended as asked, 1 an error (told on standard error), 2 misuse of a flag."
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn request(args: &[&str]) -> Request {
        let args = Args::try_parse_from([&["ringmq"], args].concat()).unwrap();
        Request::from_args(args, vec![("RINGMQ_SHARDS".into(), "2".into())])
    }

    #[test]
    fn definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_reaches_its_key() {
        let Request::Run(sources) = request(&[
            "-c",
            "f.toml",
            "-l",
            "a:1",
            "--listen=b:2",
            "--shards",
            "-3",
            "--data-dir",
            "/d",
            "--ephemeral",
            "-vv",
            "--log-format",
            "json",
            "--trace-sample=1000",
            "--set",
            "a=b",
            "--set=c=d",
        ]) else {
            panic!("a run expected");
        };
        assert_eq!(sources.file, Some("f.toml".into()));
        assert_eq!(sources.environment.len(), 1);
        assert_eq!(sources.sets, ["a=b", "c=d"]);
        let flags: Vec<_> =
            sources.flags.iter().map(|flag| (flag.name, flag.key, flag.value.as_str())).collect();
        let expected = [
            ("-l", "listen", "a:1,b:2"),
            ("--shards", "shards", "-3"),
            ("--data-dir", "data_dir", "/d"),
            ("--ephemeral", "ephemeral", "true"),
            ("--log-format", "log_format", "json"),
            ("--trace-sample", "trace_sample", "1000"),
            ("-v", "log_level", "trace"),
        ];
        assert_eq!(flags, expected);
    }

    #[test]
    fn flags_left_out_set_nothing() {
        let Request::Run(sources) = request(&[]) else { panic!("a run expected") };
        assert_eq!(sources.flags, []);
        let Request::Run(sources) = request(&["-v"]) else { panic!("a run expected") };
        assert_eq!(sources.flags[0].value, "debug");
    }

    #[test]
    fn passwd_names_a_file_and_a_user() {
        for (args, expected) in [
            (&["passwd", "f", "ann"][..], Change::Set),
            (&["passwd", "f", "ann", "--delete"], Change::Delete),
            (&["passwd", "-D", "f", "ann"], Change::Delete),
            (&["passwd", "f", "ann", "--from", "p"], Change::SetFrom("p".into())),
            (&["passwd", "-b", "f", "ann", "pencil"], Change::Shown),
            (&["passwd", "f", "ann", "pencil"], Change::Shown),
        ] {
            let Request::Passwd { file, user, change } = request(args) else {
                panic!("a change of a password file expected");
            };
            assert_eq!((file, user.as_str(), change), (PathBuf::from("f"), "ann", expected));
        }
    }

    #[test]
    fn inspect_and_repair_name_a_directory() {
        let Request::Inspect { directory, json } = request(&["inspect", "d", "--json"]) else {
            panic!("an inspection expected");
        };
        assert_eq!((directory, json), (PathBuf::from("d"), true));
        let Request::Repair { directory, yes } = request(&["repair", "d"]) else {
            panic!("a repair expected");
        };
        assert_eq!((directory, yes), (PathBuf::from("d"), false));
    }

    #[test]
    fn check_leaves_the_environment_out() {
        let Request::Check { file, sources } = request(&["check", "f.toml", "--set", "a=b"]) else {
            panic!("a check expected");
        };
        assert_eq!(sources.file, Some(file));
        assert_eq!(sources.sets, ["a=b"]);
        assert!(sources.environment.is_empty() && sources.flags.is_empty());
    }
}
