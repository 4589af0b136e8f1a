//! What TLS connections are made with: certificates by name, what clients have to prove, tickets.
//!
//! Made from files that somebody else reads, and made anew when they change: connections keep what they began with,
//! later ones get the new. Knows no connection.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject},
    },
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use thiserror::Error;

use crate::config::{CertificateFiles, ClientCertificates, TlsSettings, UserFrom};

/// How the TLS connections of one listener are made. For all threads.
pub struct TlsAcceptor {
    settings: TlsSettings,
    /// What ALPN may settle on.
    protocol: &'static [u8],
    current: RwLock<Arc<ServerConfig>>,
}

/// Why a listener's files are of no use; the operator's to change.
#[derive(Debug, Error)]
pub enum TlsFault {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it is not what it is to be.
    #[error("{} {why}", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Reads a file.
pub(super) type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

impl TlsAcceptor {
    /// Reads the files that `settings` names.
    ///
    /// # Errors
    /// The first file that is of no use.
    pub fn new(settings: &TlsSettings, read: ReadFile<'_>) -> Result<Self, TlsFault> {
        let protocol: &[u8] = if settings.is_websocket { b"http/1.1" } else { b"mqtt" };
        let current = RwLock::new(Arc::new(server_config(settings, protocol, read)?));
        Ok(Self { settings: settings.clone(), protocol, current })
    }

    /// Reads the files again: connections from now on are made with what is in them.
    ///
    /// # Errors
    /// As [`Self::new`]; then all stays as it was.
    pub fn reload(&self, read: ReadFile<'_>) -> Result<(), TlsFault> {
        let config = Arc::new(server_config(&self.settings, self.protocol, read)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The files it is made from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.settings.files()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn user_from(&self) -> UserFrom {
        self.settings.user_from
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn server_config(
    settings: &TlsSettings,
    protocol: &[u8],
    read: ReadFile<'_>,
) -> Result<ServerConfig, TlsFault> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] = if settings.tls_1_3_only { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let first = &settings.certificates[0].certificate;
    let unusable = |error: rustls::Error| content(first, format!("cannot be used: {error}"));
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(unusable)?;
    let builder = match client_verifier(settings, &provider, read)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let keys = settings.certificates.iter();
    let keys = keys.map(|files| certified_key(files, &provider, read)).collect::<Result<_, _>>()?;
    let mut config = builder.with_cert_resolver(Arc::new(ByName { keys }));
    config.alpn_protocols = vec![protocol.to_vec()];
    // All of a resumption is in the client's ticket. New keys for them with each reading of the files: a certificate
    // that was revoked since is looked at again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new().map_err(unusable)?;
    // A client of MQTT comes back once.
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// The certificates of one listener, by the names in them.
#[derive(Debug)]
struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    /// The first certificate for the name that the client asks for, otherwise the first of all; of those whose
    /// signatures the client knows, if there are such.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| can_sign(key, &hello);
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| {
            let of_name = || self.keys.iter().filter(|key| is_for(key, &name));
            of_name().find(fits).or_else(|| of_name().next())
        });
        named.or_else(|| self.keys.iter().find(fits)).or(self.keys.first()).cloned()
    }
}

/// Whether the client can check what the key signs.
fn can_sign(key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
    key.key.choose_scheme(hello.signature_schemes()).is_some()
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|it| rustls::client::verify_server_name(&it, name).is_ok())
}

fn certified_key(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    read: ReadFile<'_>,
) -> Result<Arc<CertifiedKey>, TlsFault> {
    let CertificateFiles { certificate, key } = files;
    let chain = certificates(certificate, read)?;
    let private = PrivateKeyDer::from_pem_slice(&contents(key, read)?)
        .map_err(|error| pem_fault(key, &error, "private key without a passphrase"))?;
    let signing = provider.key_provider.load_private_key(private);
    let signing =
        signing.map_err(|error| content(key, format!("has a key that cannot be used: {error}")))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            let why = format!("has the key of another certificate than {}", certificate.display());
            return Err(content(key, why));
        }
        Err(error) => return Err(content(certificate, format!("cannot be used: {error}"))),
    }
    Ok(Arc::new(certified))
}

/// Who verifies the clients' certificates, if they are asked for any.
fn client_verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
    read: ReadFile<'_>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsFault> {
    let Some(client_ca) =
        settings.client_ca.as_ref().filter(|_| settings.client != ClientCertificates::None)
    else {
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(client_ca, read)? {
        roots.add(certificate).map_err(|error| {
            content(client_ca, format!("has a certificate that cannot be a CA's: {error}"))
        })?;
    }
    let mut crls = Vec::new();
    for path in &settings.crls {
        let found = CertificateRevocationListDer::pem_slice_iter(&contents(path, read)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| pem_fault(path, &error, "revocation list"))?;
        if found.is_empty() {
            return Err(content(path, "contains no revocation list in PEM form".to_owned()));
        }
        crls.extend(found);
    }
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    // The lists are those of the CAs that issue to clients, rarely of those above.
    let builder = builder.with_crls(crls).only_check_end_entity_revocation();
    let builder = match settings.client {
        ClientCertificates::Required => builder,
        _ => builder.allow_unauthenticated(),
    };
    let blamed = settings.crls.first().unwrap_or(client_ca);
    builder.build().map(Some).map_err(|error| content(blamed, format!("cannot be used: {error}")))
}

fn certificates(path: &Path, read: ReadFile<'_>) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let found = CertificateDer::pem_slice_iter(&contents(path, read)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_fault(path, &error, "certificate"))?;
    if found.is_empty() {
        return Err(content(path, "contains no certificate in PEM form".to_owned()));
    }
    Ok(found)
}

fn contents(path: &Path, read: ReadFile<'_>) -> Result<Vec<u8>, TlsFault> {
    read(path).map_err(|source| TlsFault::Unreadable { path: path.to_owned(), source })
}

fn content(path: &Path, why: String) -> TlsFault {
    TlsFault::Content { path: path.to_owned(), why }
}

fn pem_fault(path: &Path, error: &pem::Error, sought: &str) -> TlsFault {
    let why = match error {
        pem::Error::NoItemsFound => format!("contains no {sought} in PEM form"),
        pem::Error::MissingSectionEnd { .. } => "is not valid PEM: an END is missing".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "is not valid PEM: a BEGIN is wrong".to_owned(),
        pem::Error::Base64Decode(_) => "is not valid PEM: the base64 is wrong".to_owned(),
        other => format!("is not valid PEM: {other:?}"),
    };
    content(path, why)
}
