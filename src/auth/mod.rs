//! Who may connect. Decisions only: no connection, no packet.

use std::net::SocketAddr;

use crate::config::AnonymousPolicy;

/// Whether a client without verified credentials may use the listener at `local`.
pub fn admits(policy: AnonymousPolicy, local: SocketAddr) -> bool {
    match policy {
        AnonymousPolicy::LoopbackOnly => local.ip().to_canonical().is_loopback(),
        AnonymousPolicy::Everywhere => true,
        AnonymousPolicy::Nowhere => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_includes_mapped_addresses() {
        for (address, expected) in [
            ("127.0.0.1:1883", true),
            ("[::1]:1883", true),
            ("[::ffff:127.0.0.1]:1883", true),
            ("192.0.2.1:1883", false),
            ("[2001:db8::1]:1883", false),
        ] {
            let local = address.parse().unwrap();
            assert_eq!(admits(AnonymousPolicy::LoopbackOnly, local), expected, "{address}");
            assert!(admits(AnonymousPolicy::Everywhere, local));
            assert!(!admits(AnonymousPolicy::Nowhere, local));
        }
    }
}
