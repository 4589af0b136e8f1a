//! `mosquitto_sub`, `mosquitto_pub` and `mosquitto_rr` as child processes.

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};

use crate::common::Broker;

/// A running `mosquitto_sub`; killed when it goes out of scope.
pub(crate) struct Subscriber {
    child: Child,
    id: String,
}

impl Subscriber {
    /// Starts it, and waits until the broker has answered its SUBSCRIBE. It prints each message as
    /// `topic|QoS|retain|payload` and gives up by itself when it waits too long.
    #[track_caller]
    pub(crate) fn start(broker: &Broker, id: &str, arguments: &[&str]) -> Self {
        let child = command(broker, "mosquitto_sub")
            .args(["-i", id, "-W", "30", "-F", "%t|%q|%r|%p"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("mosquitto_sub: {error}. {INSTALL}"));
        broker.wait_for_log(&["Sending SUBACK to", id]);
        Self { child, id: id.to_owned() }
    }

    /// What it printed until it ended, which it does after the `-C` messages it was told to wait for.
    #[track_caller]
    pub(crate) fn lines(mut self) -> Vec<String> {
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().expect("stdout is piped");
        stdout.read_to_string(&mut text).expect("messages are UTF-8");
        let status = self.child.wait().expect("the child can be waited for");
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert!(status.success(), "mosquitto_sub {}: {status} after {lines:?}", self.id);
        lines
    }

    /// kill -9: no DISCONNECT.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the child runs");
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `mosquitto_sub` until it ends by itself (`-E`, `-C`), and returns what it printed.
#[track_caller]
pub(crate) fn subscribe_once(broker: &Broker, arguments: &[&str]) -> Vec<String> {
    printed(broker, "mosquitto_sub", arguments)
}

/// Runs `mosquitto_rr`, which subscribes (`-e`), publishes (`-t`) and ends with the first message.
#[track_caller]
pub(crate) fn request_once(broker: &Broker, arguments: &[&str]) -> Vec<String> {
    printed(broker, "mosquitto_rr", arguments)
}

#[track_caller]
fn printed(broker: &Broker, program: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = command(broker, program);
    command.args(["-W", "30", "-F", "%t|%q|%r|%p"]).args(arguments);
    let output = finished(&mut command);
    String::from_utf8(output.stdout)
        .expect("messages are UTF-8")
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Runs `mosquitto_pub` until it ends by itself.
#[track_caller]
pub(crate) fn publish(broker: &Broker, arguments: &[&str]) {
    finished(command(broker, "mosquitto_pub").args(arguments));
}

/// The same, with `input` on its standard input.
#[track_caller]
pub(crate) fn publish_input(broker: &Broker, arguments: &[&str], input: &str) {
    let mut child = command(broker, "mosquitto_pub")
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("mosquitto_pub: {error}. {INSTALL}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("mosquitto_pub reads");
    drop(stdin);
    let status = child.wait().expect("the child can be waited for");
    assert!(status.success(), "mosquitto_pub {arguments:?}: {status}");
}

fn command(broker: &Broker, program: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string()]).stdin(Stdio::null());
    command
}

#[track_caller]
fn finished(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}. {INSTALL}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {errors}", output.status);
    output
}

const INSTALL: &str = "Install Debian's mosquitto-clients: apt-get install mosquitto-clients";
