//! Listeners of the real binary: TLS, WebSocket, unix sockets, PROXY headers, and certificates that change.
//! Real clients where there are some (`mosquitto_pub`, `openssl s_client`, paho), literal bytes elsewhere.

#[path = "../common/mod.rs"]
mod common;
#[path = "../interop/packages.rs"]
mod packages;

mod admission;
mod auth;
mod browser;
mod files;
mod large;
mod output;
mod proxy;
mod reload;
mod slow;
mod tls;
mod unix;
mod user;
mod websocket;
