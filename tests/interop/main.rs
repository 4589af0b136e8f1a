//! Clients that others wrote, unmodified, against the real binary, on one shard and on four: the tools
//! of Debian's mosquitto-clients, MQTT.js, paho, aiomqtt and gmqtt as child processes, and rumqttc. And
//! a codec that others wrote: its test vectors through ringmq's.

#[path = "../common/mod.rs"]
mod common;

mod acl;
mod libraries;
mod log_lines;
mod mosquitto;
mod packages;
mod rumqttc_clients;
mod tool;
mod vectors;
mod vectors_json;
