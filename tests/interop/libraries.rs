//! Client libraries of other languages, each driven by a script here that uses the library as its
//! documentation says, against the real binary: connecting, every QoS in both directions, retained
//! messages, wills, sessions that are resumed, and what 5.0 adds, as far as the library shows it.

use crate::common::{Broker, on_one_and_four_shards};
use crate::packages::{packages, run};

fn mqtt_js(broker: &Broker) {
    let folder = packages().to_str().expect("a UTF-8 path");
    let printed = run("node", "clients.mjs", &[folder, &broker.port.to_string()]);
    let each = ["qos", "retained", "will", "resume"];
    let in_v311 = [&each[..], &["redelivery", "reconnects", "shared"]].concat();
    let in_v5 = [&in_v311[..], &["keepalive", "properties", "reasons"]].concat();
    expect_steps(&printed, &[("3", &each), ("4", &in_v311), ("5", &in_v5)]);
}

fn paho(broker: &Broker) {
    let printed = run(&python(), "paho_client.py", &[&broker.port.to_string()]);
    let each = ["qos", "retained", "will", "resume"];
    let in_v311 = [&each[..], &["reconnects"]].concat();
    let in_v5 = [&in_v311[..], &["message_properties", "reasons"]].concat();
    expect_steps(&printed, &[("3", &each), ("4", &in_v311), ("5", &in_v5)]);
}

fn aiomqtt(broker: &Broker) {
    asyncio(broker, "aiomqtt");
}

fn gmqtt(broker: &Broker) {
    asyncio(broker, "gmqtt");
}

#[track_caller]
fn asyncio(broker: &Broker, library: &str) {
    let printed = run(&python(), "asyncio_clients.py", &[library, &broker.port.to_string()]);
    let each = ["qos", "retained", "will", "resume"];
    expect_steps(&printed, &[("4", &each), ("5", &[&each[..], &["properties"]].concat())]);
}

/// A script that ends well must have taken every step.
#[track_caller]
fn expect_steps(printed: &str, expected: &[(&str, &[&str])]) {
    let named = |(version, steps): &(&str, &[&str])| -> Vec<String> {
        steps.iter().map(|step| format!("ok {version} {step}")).collect()
    };
    let expected: Vec<String> = expected.iter().flat_map(named).collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[track_caller]
fn python() -> String {
    packages().join("venv/bin/python").to_str().expect("a UTF-8 path").to_owned()
}

on_one_and_four_shards! {
    mqtt_js;
    paho;
    aiomqtt;
    gmqtt;
}
