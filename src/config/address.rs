//! Addresses to listen on: from an operator's text to socket addresses.
//!
//! Owns the forms that are understood and what is said about the others.
//! Never opens a socket; only [`system_resolve`] asks the machine for names.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// An address to listen on, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// As the operator wrote it.
    pub text: String,
    /// What is spoken there.
    pub scheme: Scheme,
    /// The path of a unix socket; otherwise there are addresses.
    pub path: Option<PathBuf>,
    /// What it stands for: at least one, unless it is a unix socket; a host name may have several, and
    /// all are bound. Port 0 leaves the choice to the kernel.
    pub addresses: Vec<SocketAddr>,
}

impl ListenAddress {
    /// The path of a unix socket, if it is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// What is spoken at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// MQTT as it is.
    Mqtt,
    /// MQTT in TLS.
    Mqtts,
    /// MQTT in WebSocket.
    Ws,
    /// MQTT in WebSocket in TLS.
    Wss,
}

impl Scheme {
    /// The scheme of a URL, and the port of one without.
    fn of_url(name: &str) -> Option<(Self, u16)> {
        Some(match name {
            "mqtt" => (Self::Mqtt, 1883),
            "mqtts" => (Self::Mqtts, 8883),
            "ws" => (Self::Ws, 80),
            "wss" => (Self::Wss, 443),
            _ => return None,
        })
    }

    /// Whether that is TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }

    /// Whether that is WebSocket, in TLS or not.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// An address whose form is right but whose host is not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) text: String,
    pub(super) scheme: Scheme,
    pub(super) place: Place,
}

/// Where an address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Host(String, u16),
    Unix(PathBuf),
}

/// Looks up a host name.
pub(super) type Resolve = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// Looks a host name up the way every program of this machine does.
pub(super) fn system_resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

impl Endpoint {
    /// Takes `HOST:PORT`, `SCHEME://HOST[:PORT]` or `unix:PATH` apart.
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        let fail = |fault| Err(AddressError { text: text.to_owned(), fault });
        let text_of = || text.to_owned();
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') && path.len() <= UNIX_PATH_BYTES_MAX {
                true if !path.contains('\0') => {
                    let place = Place::Unix(path.into());
                    Ok(Self { text: text_of(), scheme: Scheme::Mqtt, place })
                }
                _ => fail(AddressFault::UnixPath),
            };
        }
        let (rest, scheme, default_port) = match text.split_once("://") {
            None => (text, Scheme::Mqtt, None),
            Some((scheme, rest)) => match Scheme::of_url(scheme) {
                Some((scheme, port)) => {
                    (rest.strip_suffix('/').unwrap_or(rest), scheme, Some(port))
                }
                None => return fail(AddressFault::UnknownScheme),
            },
        };
        match split_port(rest, default_port) {
            Ok((host, port)) => {
                let place = Place::Host(host.to_owned(), port);
                Ok(Self { text: text_of(), scheme, place })
            }
            Err(fault) => fail(fault),
        }
    }

    /// Looks the host up, unless it is an IP address itself.
    pub(super) fn resolve(&self, resolve: Resolve) -> Result<ListenAddress, AddressError> {
        let (text, scheme) = (self.text.clone(), self.scheme);
        let (host, port) = match &self.place {
            Place::Host(host, port) => (host, *port),
            Place::Unix(path) => {
                let path = Some(path.clone());
                return Ok(ListenAddress { text, scheme, path, addresses: Vec::new() });
            }
        };
        let found = match host.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![SocketAddr::new(ip, port)]),
            Err(_) => resolve(host, port),
        };
        let fail = |fault| Err(AddressError { text: self.text.clone(), fault });
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in match found {
            Ok(found) => found,
            Err(error) => return fail(AddressFault::Unresolved(error.to_string())),
        } {
            // A hosts file may list an address under several names.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return fail(AddressFault::Unresolved("the name has no address".to_owned()));
        }
        Ok(ListenAddress { text, scheme, path: None, addresses })
    }
}

/// Host (without brackets) and port.
fn split_port(text: &str, default_port: Option<u16>) -> Result<(&str, u16), AddressFault> {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if default_port.is_none() && is_port(text) {
        return Err(AddressFault::OnlyPort(text.to_owned()));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((host, after)) = rest.split_once(']') else {
                return Err(AddressFault::Form);
            };
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(AddressFault::Form),
            }
        }
        None if text.parse::<std::net::Ipv6Addr>().is_ok() || text.matches(':').count() > 1 => {
            return Err(AddressFault::Brackets);
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        let port = port.filter(|port| is_port(port));
        return Err(port.map_or(AddressFault::Form, |port| AddressFault::NoHost(port.to_owned())));
    }
    if host == "*" {
        let port = port.filter(|port| is_port(port)).unwrap_or("1883");
        return Err(AddressFault::Star(port.to_owned()));
    }
    let unfit = |c: char| c.is_whitespace() || c.is_control() || "/@?#[]\"'".contains(c);
    if host.contains(unfit) {
        return Err(AddressFault::Form);
    }
    match port {
        None => default_port.map(|port| (host, port)).ok_or(AddressFault::NoPort),
        Some(port) if is_port(port) => {
            port.parse().map(|port| (host, port)).map_err(|_| AddressFault::Port(port.to_owned()))
        }
        Some(port) => Err(AddressFault::Port(port.to_owned())),
    }
}

/// Bytes of a unix socket's path (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// An address that cannot be listened on.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("listen address {text:?} {fault}")]
pub(super) struct AddressError {
    text: String,
    fault: AddressFault,
}

impl AddressError {
    /// What is wrong with it, to follow the address.
    pub(super) fn why(&self) -> String {
        self.fault.to_string()
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
enum AddressFault {
    #[error("is only a port; {}", both_hosts(.0))]
    OnlyPort(String),
    #[error("names no host; {}", both_hosts(.0))]
    NoHost(String),
    #[error(
        "is not understood; every address of this machine is \"0.0.0.0:{0}\" (IPv4) and \"[::]:{0}\" (IPv6)"
    )]
    Star(String),
    #[error("has no port; write HOST:PORT, for example \"localhost:1883\", or mqtt://HOST[:PORT]")]
    NoPort,
    #[error("is IPv6 without brackets; write \"[::1]:1883\"")]
    Brackets,
    #[error("has port {0:?}, but it must be a number from 0 to 65535 (0: the kernel chooses)")]
    Port(String),
    #[error("is not an address; write HOST:PORT or mqtt://HOST[:PORT]")]
    Form,
    #[error(
        "has an unknown scheme; known are mqtt://, mqtts://, ws:// and wss:// with HOST[:PORT], and unix:/PATH"
    )]
    UnknownScheme,
    #[error(
        "is no unix socket; write unix: and a path that begins with / and has at most {UNIX_PATH_BYTES_MAX} bytes"
    )]
    UnixPath,
    #[error("cannot be resolved: {0}")]
    Unresolved(String),
}

fn both_hosts(port: &str) -> String {
    format!("write \"127.0.0.1:{port}\" for this machine or \"0.0.0.0:{port}\" for all addresses")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_homes(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
        match host {
            "home" => Ok(vec![address("127.0.0.1"), address("::1"), address("127.0.0.1")]),
            "empty" => Ok(Vec::new()),
            _ => Err(io::Error::other("no such name")),
        }
    }

    fn outcome(text: &str) -> Result<String, String> {
        let address = Endpoint::parse(text).and_then(|endpoint| endpoint.resolve(two_homes));
        match address {
            Ok(address) => {
                assert_eq!(address.text, text);
                let texts = address.addresses.iter().map(|a| a.to_string());
                let path = address.path().map(|path| path.display().to_string());
                Ok(texts.chain(path).collect::<Vec<_>>().join(" "))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn host_port_and_urls_are_understood() {
        for (text, expected) in [
            ("127.0.0.1:1883", "127.0.0.1:1883"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:1884", "[::1]:1884"),
            ("home:65535", "127.0.0.1:65535 [::1]:65535"),
            ("mqtt://home", "127.0.0.1:1883 [::1]:1883"),
            ("mqtt://127.0.0.1:1885", "127.0.0.1:1885"),
            ("mqtt://[::1]", "[::1]:1883"),
            ("mqtt://[::1]:7/", "[::1]:7"),
            ("mqtts://127.0.0.1", "127.0.0.1:8883"),
            ("ws://127.0.0.1/", "127.0.0.1:80"),
            ("wss://127.0.0.1", "127.0.0.1:443"),
            ("unix:/run/x", "/run/x"),
            ("unix:///run/x", "/run/x"),
        ] {
            assert_eq!(outcome(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused_with_a_hint() {
        const HOSTS: &str =
            r#"write "127.0.0.1:1883" for this machine or "0.0.0.0:1883" for all addresses"#;
        const UNIX: &str = "is no unix socket; write unix: and a path that begins with / and has at most 107 bytes";
        const FORM: &str = "is not an address; write HOST:PORT or mqtt://HOST[:PORT]";
        let port = |port: &str| {
            format!(
                "has port {port:?}, but it must be a number from 0 to 65535 (0: the kernel chooses)"
            )
        };
        for (text, expected) in [
            ("1883", format!("is only a port; {HOSTS}")),
            (":1883", format!("names no host; {HOSTS}")),
            ("mqtt://:1883", format!("names no host; {HOSTS}")),
            (
                "*:1883",
                r#"is not understood; every address of this machine is "0.0.0.0:1883" (IPv4) and "[::]:1883" (IPv6)"#.to_owned(),
            ),
            (
                "home",
                r#"has no port; write HOST:PORT, for example "localhost:1883", or mqtt://HOST[:PORT]"#.to_owned(),
            ),
            ("::1:1883", r#"is IPv6 without brackets; write "[::1]:1883""#.to_owned()),
            ("mqtt://::1", r#"is IPv6 without brackets; write "[::1]:1883""#.to_owned()),
            ("home:", port("")),
            ("home:65536", port("65536")),
            ("home:+1", port("+1")),
            ("home:1883/x", port("1883/x")),
            ("", FORM.to_owned()),
            ("[::1", FORM.to_owned()),
            ("[::1]1883", FORM.to_owned()),
            ("a b:1", FORM.to_owned()),
            ("user@home:1", FORM.to_owned()),
            (
                "http://home",
                "has an unknown scheme; known are mqtt://, mqtts://, ws:// and wss:// with HOST[:PORT], and unix:/PATH".to_owned(),
            ),
            ("ws://home:80/mqtt", port("80/mqtt")),
            ("unix:run/x", UNIX.to_owned()),
            ("unix:", UNIX.to_owned()),
            ("elsewhere:1", "cannot be resolved: no such name".to_owned()),
            ("empty:1", "cannot be resolved: the name has no address".to_owned()),
        ] {
            assert_eq!(outcome(text), Err(format!("listen address {text:?} {expected}")));
        }
    }
}
