//! Who may connect, and what they may do then. Decisions only: no connection, no packet.

pub mod acl;
pub mod chain;
pub mod http;
mod identity;
pub mod jwt;
pub mod password;
pub mod places;
pub mod queue;
pub mod scram;
pub mod verified;

pub use identity::Identity;

use crate::config::AnonymousPolicy;

/// Whether a client without verified credentials may connect; `is_local` says
/// that it connected to a loopback address.
pub fn admits(policy: AnonymousPolicy, is_local: bool) -> bool {
    match policy {
        AnonymousPolicy::LoopbackOnly => is_local,
        AnonymousPolicy::Everywhere => true,
        AnonymousPolicy::Nowhere => false,
    }
}
