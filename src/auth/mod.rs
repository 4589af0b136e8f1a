//! Who may connect. Decisions only: no connection, no packet.

pub mod scram;

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
