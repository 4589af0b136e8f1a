//! Bans as an operator writes them: which client identifiers, users and addresses nobody gets in with.

use std::{collections::BTreeSet, net::IpAddr};

use super::address_range::AddressRange;

/// Who is banned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bans {
    clients: Names,
    users: Names,
    addresses: Vec<AddressRange>,
}

impl Bans {
    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many rules there are; the same one twice is one.
    pub fn len(&self) -> usize {
        self.clients.len() + self.users.len() + self.addresses.len()
    }

    /// Whether a Client Identifier is banned.
    pub fn has_client(&self, client: &str) -> bool {
        self.clients.has(client)
    }

    /// Whether a user is banned.
    pub fn has_user(&self, user: &str) -> bool {
        self.users.has(user)
    }

    /// Whether an address is banned.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|range| range.holds(address))
    }

    /// Adds `client => NAME`, `user => NAME` or `address => RANGE`.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        let (kind, whom) = text.split_once("=>").ok_or("it has no \" => \"")?;
        let (kind, whom) = (kind.trim(), whom.trim());
        match kind {
            _ if whom.is_empty() => return Err("it names nobody".to_owned()),
            "client" => self.clients.add(whom),
            "user" => self.users.add(whom),
            "address" => {
                let range = AddressRange::parse(whom)
                    .ok_or_else(|| format!("{whom:?} is no IP address and no network"))?;
                if !self.addresses.contains(&range) {
                    self.addresses.push(range);
                }
            }
            _ => {
                return Err(format!("it starts with {kind:?} instead of client, user or address"));
            }
        }
        Ok(())
    }
}

/// Names, and what names begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    exact: BTreeSet<Box<str>>,
    prefixes: BTreeSet<Box<str>>,
}

impl Names {
    fn add(&mut self, text: &str) {
        match text.strip_suffix('*') {
            Some(prefix) => self.prefixes.insert(prefix.into()),
            None => self.exact.insert(text.into()),
        };
    }

    fn has(&self, name: &str) -> bool {
        self.exact.contains(name) || self.prefixes.iter().any(|prefix| name.starts_with(&**prefix))
    }

    fn len(&self) -> usize {
        self.exact.len() + self.prefixes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_clients_users_and_addresses() {
        let mut bans = Bans::default();
        assert!(bans.is_empty());
        for rule in [
            "client => sensor-17",
            "client => test*",
            " user=>eve ",
            "user => eve",
            "address => 10.0.0.0/8",
            "address => 10.0.0.0/8",
            "address => 2001:db8::/32",
        ] {
            assert_eq!(bans.add(rule), Ok(()), "{rule}");
        }
        assert_eq!(bans.len(), 5);
        for (name, expected) in
            [("sensor-17", true), ("sensor-1", false), ("test", true), ("tests", true), ("", false)]
        {
            assert_eq!(bans.has_client(name), expected, "{name}");
        }
        assert!(bans.has_user("eve") && !bans.has_user("Eve") && !bans.has_user("sensor-17"));
        let has = |text: &str| bans.has_address(text.parse().unwrap());
        assert!(has("10.1.2.3") && has("::ffff:10.1.2.3") && has("2001:db8::1"));
        assert!(!has("11.1.2.3") && !has("2001:db9::1"));
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_told() {
        for (rule, expected) in [
            ("client", "it has no \" => \""),
            ("client => ", "it names nobody"),
            ("host => a", "it starts with \"host\" instead of client, user or address"),
            ("address => a", "\"a\" is no IP address and no network"),
            ("address => 10.0.0.0/33", "\"10.0.0.0/33\" is no IP address and no network"),
        ] {
            assert_eq!(Bans::default().add(rule), Err(expected.to_owned()), "{rule}");
        }
    }
}
