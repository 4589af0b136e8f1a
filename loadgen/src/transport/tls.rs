//! TLS of one connection, and what it is made with.
//!
//! Owns the certificates and rustls; knows nothing of what is carried.

use std::{
    io::{BufRead, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::{EARLY_BYTES_MAX, TransportError};

/// What the operator says about TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsOptions {
    /// CAs to trust instead of those that the machine does.
    pub(crate) ca_file: Option<PathBuf>,
    /// Certificate of the clients, with those that lead to its CA.
    pub(crate) cert_file: Option<PathBuf>,
    /// Private key of the clients.
    pub(crate) key_file: Option<PathBuf>,
    /// Whether every server is trusted, whatever its certificate.
    pub(crate) insecure: bool,
    /// Name that the server has to prove, instead of its host's.
    pub(crate) server_name: Option<String>,
}

/// How TLS connections are made.
#[derive(Clone)]
pub(super) struct TlsSetup {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

impl TlsSetup {
    pub(super) fn new(host: &str, options: &TlsOptions) -> Result<Self, TransportError> {
        let name = options.server_name.as_deref().unwrap_or(host).to_owned();
        let server_name =
            ServerName::try_from(name.clone()).map_err(|_| TransportError::ServerName(name))?;

        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TransportError::TlsSetup)?;
        let builder = if options.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAll { provider }))
        } else {
            builder.with_root_certificates(authorities(options.ca_file.as_deref())?)
        };
        let mut config = match (&options.cert_file, &options.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(TransportError::KeyMissing),
            (None, Some(_)) => return Err(TransportError::CertificateMissing),
            (Some(cert_file), Some(key_file)) => builder
                .with_client_auth_cert(certificates(cert_file)?, private_key(key_file)?)
                .map_err(|source| TransportError::KeyPair {
                    cert_file: cert_file.clone(),
                    key_file: key_file.clone(),
                    source,
                })?,
        };
        // Each connection stands for another client, which has no session to resume.
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), server_name })
    }
}

/// TLS of one connection.
pub(crate) struct Tls {
    connection: ClientConnection,
}

impl Tls {
    pub(super) fn new(setup: &TlsSetup) -> Result<Self, TransportError> {
        let (config, server_name) = (Arc::clone(&setup.config), setup.server_name.clone());
        let mut connection =
            ClientConnection::new(config, server_name).map_err(TransportError::TlsSetup)?;
        connection.set_buffer_limit(Some(EARLY_BYTES_MAX));
        Ok(Self { connection })
    }

    pub(super) fn start(&mut self, out: &mut Vec<u8>) {
        self.flush(out);
    }

    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let mut rest = bytes;
        let mut outcome = Ok(());
        while !rest.is_empty() && outcome.is_ok() {
            outcome = self.decrypt(&mut rest, plain);
        }
        // After an error too: the alert.
        self.flush(out);
        outcome
    }

    pub(super) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TransportError> {
        let mut rest = plain;
        while !rest.is_empty() {
            // Takes what there is room for; without room, nothing. It has no other error.
            let taken = self.connection.writer().write(rest).unwrap_or(0);
            if taken == 0 {
                return Err(TransportError::TooMuchTooEarly);
            }
            rest = &rest[taken..];
            self.flush(out);
        }
        Ok(())
    }

    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.flush(out);
    }

    pub(super) fn ended(&self) -> Result<(), TransportError> {
        match self.connection.is_handshaking() {
            true => Err(TransportError::EndedInTlsHandshake),
            false => Ok(()),
        }
    }

    /// Takes as many bytes as there is room for.
    fn decrypt(&mut self, bytes: &mut &[u8], plain: &mut Vec<u8>) -> Result<(), TransportError> {
        let handshaking = self.connection.is_handshaking();
        match self.connection.read_tls(bytes) {
            // Nothing counts behind a close_notify.
            Ok(0) => *bytes = &[],
            Ok(_) => {}
            Err(error) => {
                return Err(TransportError::Tls(rustls::Error::General(error.to_string())));
            }
        }
        let outcome = self.connection.process_new_packets();
        let mut reader = self.connection.reader();
        while let Ok(chunk) = reader.fill_buf()
            && !chunk.is_empty()
        {
            plain.extend_from_slice(chunk);
            let taken = chunk.len();
            reader.consume(taken);
        }
        outcome.map(|_| ()).map_err(|error| TransportError::tls(error, handshaking))
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        // A vector takes everything, in portions.
        while self.connection.wants_write() && self.connection.write_tls(out).is_ok() {}
    }
}

fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, TransportError> {
    let certificates = match ca_file {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut store = RootCertStore::empty();
    // A bundle may hold oddities that this server has nothing to do with.
    let (usable, _) = store.add_parsable_certificates(certificates);
    match ca_file {
        _ if usable > 0 => Ok(store),
        Some(path) => Err(TransportError::NoCa { path: path.to_owned() }),
        None => Err(TransportError::NoSystemCa),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let none = |path| TransportError::NoCertificate { path };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TransportError::pem(path, error, none))?;
    match certificates.is_empty() {
        true => Err(none(path.to_owned())),
        false => Ok(certificates),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TransportError> {
    let none = |path| TransportError::NoKey { path };
    PrivateKeyDer::from_pem_file(path).map_err(|error| TransportError::pem(path, error, none))
}

/// Trusts every server: for tests of brokers whose certificates nobody has signed, or not well.
#[derive(Debug)]
struct TrustAll {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // A signature by a certificate that may be anybody's proves nothing, and checking it would
    // refuse certificates of X.509 version 1.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
