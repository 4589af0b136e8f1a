//! Addresses with a common prefix, as rules and listeners name them.

use std::net::IpAddr;

/// Addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    network: IpAddr,
    bits: u8,
}

impl AddressRange {
    /// `ADDRESS` or `ADDRESS/BITS`; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().ok()?;
        let all = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => all,
        };
        (bits <= all).then_some(Self { network, bits })
    }

    /// Whether an address is in it. One of IPv4 may come mapped into IPv6.
    pub fn holds(&self, address: IpAddr) -> bool {
        match (self.network.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let bits =
                    if self.network.is_ipv6() { self.bits.saturating_sub(96) } else { self.bits };
                let differs = network.to_bits() ^ address.to_bits();
                differs.leading_zeros() >= u32::from(bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_addresses() {
        for (range, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
            ("127.0.0.1", "127.0.0.2", false),
        ] {
            let holds = AddressRange::parse(range).unwrap().holds(address.parse().unwrap());
            assert_eq!(holds, expected, "{range} {address}");
        }
        for text in
            ["", "x", "1.2.3.4/", "1.2.3.4/+8", "1.2.3.4/33", "::/129", "1.2.3.4/8/8", "1.2.3"]
        {
            assert_eq!(AddressRange::parse(text), None, "{text}");
        }
    }
}
