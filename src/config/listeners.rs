//! Listeners: where clients may come in, and what is spoken there. From an operator's words to checked settings.
//!
//! Names files and never opens one: what is in them can change while the broker runs.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    address::{Endpoint, ListenAddress, Place, Resolve},
    address_range::AddressRange,
    listener_policy::PolicySettings,
    problem::{Fault, Origin, Problem},
};
use crate::base::Peer;

/// One listener, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: ListenAddress,
    /// Whether what comes there is acknowledged before it is on disk.
    pub relaxed: bool,
    /// If TLS is spoken.
    pub tls: Option<TlsSettings>,
    /// If WebSocket is spoken.
    pub websocket: Option<WebSocketRules>,
    /// Whose connections begin with a PROXY header.
    pub proxies: ProxySources,
    /// Permissions of a unix socket.
    pub unix_mode: u32,
    /// What is done about clients that do not read, as far as it differs.
    pub(super) policy: PolicySettings,
}

impl Listener {
    /// Whether a certificate tells there which user a client is.
    pub(super) fn names_users(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.user_from != UserFrom::None)
    }

    /// Whether every client proves there which user it is.
    pub(super) fn proves_users(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| {
            tls.client == ClientCertificates::Required && tls.user_from != UserFrom::None
        })
    }
}

/// What TLS is spoken with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// At least one; the first is for names that no other is for.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients have certificates.
    pub client: ClientCertificates,
    /// The CAs of those.
    pub client_ca: Option<PathBuf>,
    /// Lists of those that were revoked.
    pub crls: Vec<PathBuf>,
    /// Where in a client's certificate its user name stands.
    pub user_from: UserFrom,
    /// Whether TLS 1.2 is refused.
    pub tls_1_3_only: bool,
    /// Whether WebSocket is spoken in it.
    pub is_websocket: bool,
}

impl TlsSettings {
    /// All files that are named.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let certificates = self.certificates.iter();
        let certificates = certificates.flat_map(|files| [&files.certificate, &files.key]);
        certificates.chain(&self.client_ca).chain(&self.crls).map(PathBuf::as_path)
    }
}

/// A certificate with those that lead to its CA, and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificates, in PEM form.
    pub certificate: PathBuf,
    /// The key, in PEM form; may be the same file.
    pub key: PathBuf,
}

/// Whether clients prove who they are with a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    None,
    /// They may.
    Optional,
    /// They must.
    Required,
}

/// Where in a certificate the user name stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserFrom {
    /// Nowhere.
    #[default]
    None,
    /// The subject's common name.
    Cn,
    /// The first alternative name: DNS, e-mail or URI.
    San,
}

/// What a request for a WebSocket must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketRules {
    /// Paths that are offered.
    pub paths: Vec<Box<str>>,
    /// Origins of pages that may connect; empty is all.
    pub origins: Vec<Box<str>>,
}

impl Default for WebSocketRules {
    fn default() -> Self {
        Self { paths: DEFAULT_PATHS.map(Box::from).into(), origins: Vec::new() }
    }
}

impl WebSocketRules {
    /// Whether pages of that origin may connect.
    pub fn admits(&self, origin: &str) -> bool {
        self.origins.is_empty() || self.origins.iter().any(|it| it.eq_ignore_ascii_case(origin))
    }
}

/// Addresses whose connections begin with a PROXY header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySources {
    ranges: Vec<AddressRange>,
    unix: bool,
}

impl ProxySources {
    /// Whether `peer` is one of them.
    pub fn contains(&self, peer: Peer) -> bool {
        match peer.ip() {
            None => self.unix,
            Some(ip) => self.ranges.iter().any(|range| range.holds(ip)),
        }
    }

    /// Adds `IP`, `IP/BITS` or `unix`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        if text == "unix" {
            self.unix = true;
            return Ok(());
        }
        let range = AddressRange::parse(text);
        self.ranges.push(
            range.ok_or(
                "it is no IP address, no network such as \"10.0.0.0/8\", and not \"unix\"",
            )?,
        );
        Ok(())
    }
}

/// What a section `[[listener]]` says, or an address of `listen` means.
#[derive(Clone, Debug)]
pub(super) struct ListenerSettings {
    /// Where the section begins.
    pub(super) origin: Origin,
    pub(super) url: Option<Endpoint>,
    pub(super) relaxed: bool,
    pub(super) certificates: Vec<CertificateFiles>,
    pub(super) tls_1_3_only: bool,
    pub(super) client: ClientCertificates,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) crls: Vec<PathBuf>,
    pub(super) user_from: UserFrom,
    pub(super) websocket_paths: Vec<Box<str>>,
    pub(super) origins: Vec<Box<str>>,
    pub(super) proxies: ProxySources,
    pub(super) unix_mode: Option<u32>,
    pub(super) policy: PolicySettings,
}

impl ListenerSettings {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            url: None,
            relaxed: false,
            certificates: Vec::new(),
            tls_1_3_only: false,
            client: ClientCertificates::None,
            client_ca: None,
            crls: Vec::new(),
            user_from: UserFrom::None,
            websocket_paths: Vec::new(),
            origins: Vec::new(),
            proxies: ProxySources::default(),
            unix_mode: None,
            policy: PolicySettings::default(),
        }
    }

    /// Looks its host up, and refuses what does not go together.
    pub(super) fn check(self, resolve: Resolve) -> Result<(Origin, Listener), Box<Problem>> {
        let origin = self.origin.clone();
        let problem = |fault| Box::new(Problem::new(origin.clone(), "listen", fault));
        let Some(url) = &self.url else {
            return Err(problem(Fault::Listener("a listener needs a url".to_owned())));
        };
        if let Some(why) = self.contradiction(url) {
            return Err(problem(Fault::Listener(format!("listener {:?} {why}", url.text))));
        }
        let address = url.resolve(resolve).map_err(|error| problem(Fault::Address(error)))?;
        let scheme = address.scheme;
        let tls = scheme.is_tls().then_some(TlsSettings {
            certificates: self.certificates,
            client: self.client,
            client_ca: self.client_ca,
            crls: self.crls,
            user_from: self.user_from,
            tls_1_3_only: self.tls_1_3_only,
            is_websocket: scheme.is_websocket(),
        });
        let paths = match self.websocket_paths.is_empty() {
            true => DEFAULT_PATHS.map(Box::from).into(),
            false => self.websocket_paths,
        };
        let rules = WebSocketRules { paths, origins: self.origins };
        let listener = Listener {
            address,
            relaxed: self.relaxed,
            tls,
            websocket: scheme.is_websocket().then_some(rules),
            proxies: self.proxies,
            unix_mode: self.unix_mode.unwrap_or(UNIX_MODE_DEFAULT),
            policy: self.policy,
        };
        Ok((self.origin, listener))
    }

    /// What of it does not go together.
    fn contradiction(&self, url: &Endpoint) -> Option<&'static str> {
        let has_certificates = !self.certificates.is_empty();
        let asks_clients = self.client != ClientCertificates::None;
        let is_unix = matches!(url.place, Place::Unix(_));
        [
            (
                url.scheme.is_tls() && !has_certificates,
                "needs certificates, such as certificates = [\"server.pem => server.key\"] in a section \
                 [[listener]]",
            ),
            (
                !url.scheme.is_tls() && (has_certificates || asks_clients || self.tls_1_3_only),
                "has settings for TLS, but only mqtts:// and wss:// have that",
            ),
            (
                asks_clients && self.client_ca.is_none(),
                "asks clients for certificates, but names no client_ca",
            ),
            (
                !asks_clients && (self.client_ca.is_some() || !self.crls.is_empty()),
                "has client_ca or crl, but client_certificates is none",
            ),
            (
                !asks_clients && self.user_from != UserFrom::None,
                "has user_from, but client_certificates is none",
            ),
            (
                !(url.scheme.is_websocket()
                    || self.websocket_paths.is_empty() && self.origins.is_empty()),
                "has settings for WebSocket, but only ws:// and wss:// have that",
            ),
            (!is_unix && self.unix_mode.is_some(), "has unix_mode, but it is no unix socket"),
        ]
        .into_iter()
        .find_map(|(is_so, why)| is_so.then_some(why))
    }
}

/// `CERTIFICATE => KEY`, or one file that holds both.
pub(super) fn certificate_files(text: &str) -> Result<CertificateFiles, String> {
    let (certificate, key) = text.split_once(" => ").unwrap_or((text, text));
    let [certificate, key] = [certificate.trim(), key.trim()].map(file);
    Ok(CertificateFiles { certificate: certificate?, key: key? })
}

/// The path of a file.
pub(super) fn file(path: &str) -> Result<PathBuf, String> {
    match path.is_empty() || path.contains('\0') {
        true => Err("it names no file".to_owned()),
        false => Ok(path.into()),
    }
}

/// The path of a WebSocket.
pub(super) fn websocket_path(path: &str) -> Result<Box<str>, String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    match path.starts_with('/') && path.bytes().all(fits) {
        true => Ok(path.into()),
        false => Err("it is no path such as \"/mqtt\"".to_owned()),
    }
}

/// An origin as browsers send it.
pub(super) fn origin(text: &str) -> Result<Box<str>, String> {
    match text.split_once("://") {
        Some((scheme, host)) if !scheme.is_empty() && !host.is_empty() && !host.contains('/') => {
            Ok(text.into())
        }
        _ if text == "null" => Ok(text.into()),
        _ => Err("it is no origin such as \"https://example.com\", without a path".to_owned()),
    }
}

/// Permissions in octal digits.
pub(super) fn unix_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "it is no octal number up to 777".to_owned())
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Paths of a WebSocket unless others are named.
const DEFAULT_PATHS: [&str; 2] = ["/mqtt", "/"];
/// The owner and the group may connect.
const UNIX_MODE_DEFAULT: u32 = 0o660;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_trusted_by_network() {
        let mut proxies = ProxySources::default();
        for text in ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "unix"] {
            proxies.add(text).unwrap();
        }
        let peer = |ip: &str| Peer::from((ip.parse::<std::net::IpAddr>().unwrap(), 1));
        for (ip, expected) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("::ffff:10.1.2.3", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("::1", false),
        ] {
            assert_eq!(proxies.contains(peer(ip)), expected, "{ip}");
        }
        assert!(proxies.contains(Peer::Unix) && !ProxySources::default().contains(Peer::Unix));
        for wrong in ["", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "localhost", "10.0.0/8"] {
            assert!(proxies.add(wrong).is_err(), "{wrong}");
        }
        proxies.add("0.0.0.0/0").unwrap();
        assert!(proxies.contains(peer("203.0.113.9")) && !proxies.contains(peer("::1")));
    }
}
