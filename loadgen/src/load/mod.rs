//! The load itself: threads that make it, and the conductor that tells them when to do what.
//!
//! - `conductor`: the course of a run, from connecting to the result
//! - `thread`, `turn`, `peer`: one thread with its clients; `sockets`: how they connect;
//!   `forget`: the end of their sessions
//! - `crew`: all threads of this process
//! - `orders`: what conductor and threads tell each other; `channel`: how orders get there
//! - `team`: several processes that make one load; `leader`, `member`: the two sides of that;
//!   `wire`: the connection between them

mod channel;
mod conductor;
mod crew;
mod forget;
mod leader;
mod member;
mod orders;
mod peer;
mod sockets;
mod team;
mod thread;
mod turn;
mod wire;

pub(crate) use self::{
    conductor::{Ended, Interval, Outcome, RunError, run},
    crew::LoadSetup,
    leader::{Leader, Note},
    member::Membership,
    sockets::{ConnectError, Route, Share},
    team::{Run, TeamError, TeamOptions, Terms, WORKERS_MAX},
};
