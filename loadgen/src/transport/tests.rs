//! All layers against servers in memory: rustls and tungstenite on the other side.

use std::{
    fs,
    io::{self, Cursor, Read, Write},
    path::PathBuf,
    sync::Arc,
};

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use tungstenite::{
    Message, WebSocket,
    handshake::server::{ErrorResponse, Request, Response},
};

use super::*;

#[test]
fn a_plain_transport_is_small_and_the_setup_can_be_shared() {
    fn shared<T: Clone + Send + Sync>() {}
    shared::<TransportSetup>();
    assert!(size_of::<Transport>() <= 2 * size_of::<usize>());
    assert!(is_plain(&TransportSetup::new("any host", 1883, None, None).expect("no layer")));
}

#[test]
fn bytes_get_through_both_ways_however_they_are_cut() {
    let files = Files::new("both_ways");
    for (tls, version) in [(false, &TLS13), (true, &TLS13), (true, &TLS12)] {
        for websocket in [false, true] {
            let options = TlsOptions { ca_file: Some(files.ca.clone()), ..Default::default() };
            let path = websocket.then_some("/mqtt");
            let setup = TransportSetup::new("localhost", 1, tls.then_some(&options), path)
                .expect("valid files");
            assert_eq!(is_plain(&setup), !tls && !websocket);
            for (chunk, payload_bytes) in [(1, 3_000), (7, 100_000), (usize::MAX, 1_000_000)] {
                let server = Server::new(tls.then(|| files.server(&[version], false)), websocket);
                carry(&setup, server, chunk, payload_bytes);
            }
        }
    }
}

fn is_plain(setup: &TransportSetup) -> bool {
    matches!(Transport::new(setup), Ok(Transport::Plain))
}

fn carry(setup: &TransportSetup, server: Server, chunk: usize, payload_bytes: usize) {
    let payload: Vec<u8> = (0..payload_bytes).map(|index| (index % 251) as u8).collect();
    let mut link = Link::new(setup, server, chunk);

    let mut out = Vec::new();
    link.client.start(&mut out).expect("started");
    link.client.send(b"early ", &mut out).expect("kept");
    link.client.send(b"bird", &mut out).expect("kept");
    link.deliver(out).expect("handshake");
    assert_eq!(link.server.received, b"early bird");
    link.client.ended().expect("handshake done");

    link.server.received.clear();
    let mut out = Vec::new();
    link.client.send(&payload, &mut out).expect("open");
    link.deliver(out).expect("valid");
    assert!(link.server.received == payload);

    let bytes = link.server.send(&payload);
    link.take(bytes).expect("valid");
    assert!(link.plain == payload);

    let mut out = Vec::new();
    link.client.close(&mut out);
    link.deliver(out).expect("in order");
    assert!(link.server.left);
}

#[test]
fn early_bytes_are_bounded_with_each_layer() {
    let options = TlsOptions { insecure: true, ..Default::default() };
    for path in [None, Some("/mqtt")] {
        for tls in [None, Some(&options)] {
            let setup = TransportSetup::new("localhost", 1, tls, path).expect("valid");
            let mut client = Transport::new(&setup).expect("valid");
            let mut out = Vec::new();
            client.start(&mut out).expect("started");
            let outcome = client.send(&vec![0; EARLY_BYTES_MAX + 1], &mut out);
            match &outcome {
                Err(TransportError::TooMuchTooEarly) => assert!(!is_plain(&setup)),
                _ => assert!(is_plain(&setup) && outcome.is_ok()),
            }
        }
    }
}

#[test]
fn a_server_that_cannot_prove_its_name_is_refused_unless_that_is_wanted() {
    let files = Files::new("proof");
    let other = Files::new("proof_other");
    let namesake = Files::with_ca("proof_namesake", "proof");
    let by_ca = |cert: &str, ca_file: &PathBuf, server_name: Option<&str>| {
        let server_name = server_name.map(str::to_owned);
        let ca_file = Some(ca_file.clone());
        let options = TlsOptions { ca_file, server_name, ..Default::default() };
        handshake(&options, files.server_with(cert, &[&TLS13], false))
    };

    by_ca("server", &files.ca, None).expect("trusted");
    by_ca("elsewhere", &files.ca, Some("elsewhere.test")).expect("trusted by that name");
    for (outcome, said) in [
        (by_ca("server", &other.ca, None), "no trusted CA has signed it"),
        (by_ca("server", &namesake.ca, None), "another key than that of the CA"),
        (by_ca("expired", &files.ca, None), "it has expired"),
        (by_ca("future", &files.ca, None), "it is not valid yet"),
        (by_ca("elsewhere", &files.ca, None), "\"elsewhere.test\""),
        (by_ca("ca", &files.ca, None), "it is the certificate of a CA"),
        (by_ca("ca", &other.ca, None), "it is the certificate of a CA"),
    ] {
        let error = outcome.expect_err(said).to_string();
        assert!(error.contains("the server's certificate is not trusted"), "{error}");
        assert!(error.contains(said) && error.contains("--insecure"), "{error}, not {said}");
    }
    for cert in ["server", "expired", "future", "elsewhere", "ca"] {
        for version in [&TLS12, &TLS13] {
            let options = TlsOptions { insecure: true, ..Default::default() };
            handshake(&options, files.server_with(cert, &[version], false)).expect(cert);
        }
    }
}

#[test]
fn a_server_that_is_not_trusted_is_told_so() {
    let files = Files::new("told");
    let other = Files::new("told_other");
    let options = TlsOptions { ca_file: Some(other.ca.clone()), ..Default::default() };
    let setup = TransportSetup::new("localhost", 1, Some(&options), None).expect("valid");
    let server = Server::new(Some(files.server(&[&TLS13], false)), false);
    let mut link = Link::new(&setup, server, usize::MAX);
    let (mut hello, mut out) = (Vec::new(), Vec::new());
    link.client.start(&mut hello).expect("started");
    let answer = link.server.exchange(&hello);
    link.client.receive(&answer, &mut link.plain, &mut out).expect_err("not trusted");
    let tls = link.server.tls.as_mut().expect("TLS");
    tls.read_tls(&mut &out[..]).expect("in memory");
    let error = tls.process_new_packets().expect_err("an alert");
    assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}");
}

#[test]
fn a_server_that_wants_a_client_certificate_gets_it_or_the_operator_is_told() {
    let files = Files::new("client");
    for version in [&TLS12, &TLS13] {
        let with = TlsOptions {
            ca_file: Some(files.ca.clone()),
            cert_file: Some(files.path("client.crt")),
            key_file: Some(files.path("client.key")),
            ..Default::default()
        };
        handshake(&with, files.server(&[version], true)).expect("known");
        let without = TlsOptions { cert_file: None, key_file: None, ..with };
        let outcome = handshake(&without, files.server(&[version], true));
        let error = outcome.expect_err("unknown").to_string();
        assert!(error.contains("CertificateRequired: it wants a client certificate"), "{error}");
    }
}

#[test]
fn a_server_without_tls_is_told_apart() {
    let options = TlsOptions { insecure: true, ..Default::default() };
    let setup = TransportSetup::new("localhost", 1, Some(&options), None).expect("valid");
    let mut client = Transport::new(&setup).expect("valid");
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    client.start(&mut out).expect("started");
    assert!(matches!(client.ended(), Err(TransportError::EndedInTlsHandshake)));
    for received in [
        "\x20\x02\0\x01",
        "\x20\x03\0\x01\0",
        "HTTP/1.1 400 Bad Request\r\n",
        "SSH-2.0-OpenSSH\r\n",
    ] {
        let mut client = Transport::new(&setup).expect("valid");
        client.start(&mut out).expect("started");
        let outcome = client.receive(received.as_bytes(), &mut plain, &mut out);
        assert!(matches!(outcome, Err(TransportError::NotTls)), "{outcome:?}");
    }
}

#[test]
fn bytes_behind_a_close_notify_do_not_count() {
    let files = Files::new("close_notify");
    let options = TlsOptions { ca_file: Some(files.ca.clone()), ..Default::default() };
    let setup = TransportSetup::new("localhost", 1, Some(&options), None).expect("valid");
    let server = Server::new(Some(files.server(&[&TLS13], false)), false);
    let mut link = Link::new(&setup, server, usize::MAX);
    let mut out = Vec::new();
    link.client.start(&mut out).expect("started");
    link.deliver(out).expect("handshake");
    let mut bytes = link.server.send(b"last words");
    bytes.extend(link.server.leave());
    bytes.extend_from_slice(b"garbage");
    link.take(bytes).expect("in order");
    link.take(b"more garbage".to_vec()).expect("ignored");
    assert_eq!(link.plain, b"last words");
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason() {
    let files = Files::new("files");
    let other = Files::new("files_other");
    files.write("empty", "");
    files.write("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    files.write("odd", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    files.write("no_ca", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    files.write(
        "locked",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let ca = |name: &str| TlsOptions { ca_file: Some(files.path(name)), ..Default::default() };
    let pair = |cert: Option<PathBuf>, key: Option<PathBuf>| TlsOptions {
        insecure: true,
        cert_file: cert,
        key_file: key,
        ..Default::default()
    };
    let (cert, key) = (files.path("client.crt"), files.path("client.key"));
    for (options, said) in [
        (ca("absent"), "absent: No such file"),
        (ca("."), "Is a directory"),
        (ca("empty"), "empty contains no certificate"),
        (ca("client.key"), "client.key contains no certificate"),
        (ca("cut"), "cut is not a PEM file: an END is missing"),
        (ca("odd"), "odd is not a PEM file: the base64 is wrong"),
        (ca("no_ca"), "no_ca contains no certificate of a CA"),
        (pair(Some(cert.clone()), None), "--certfile needs --keyfile"),
        (pair(None, Some(key.clone())), "--keyfile needs --certfile"),
        (pair(Some(files.path("empty")), Some(key.clone())), "contains no certificate"),
        (pair(Some(cert.clone()), Some(cert.clone())), "contains no private key"),
        (pair(Some(cert.clone()), Some(files.path("locked"))), "without a passphrase"),
        (pair(Some(cert.clone()), Some(files.path("absent"))), "absent: No such file"),
        (pair(Some(cert.clone()), Some(other.path("client.key"))), "cannot be used together"),
    ] {
        let outcome = TransportSetup::new("localhost", 1, Some(&options), None);
        let error = outcome.err().expect(said).to_string();
        assert!(error.contains(said), "{error}, not {said}");
    }
    let insecure = TlsOptions { insecure: true, ..Default::default() };
    let error = TransportSetup::new("no host", 1, Some(&insecure), None).err().expect("no name");
    assert!(matches!(error, TransportError::ServerName(_)), "{error}");
}

/// A TLS handshake with "localhost" and a few bytes after it: some alerts come only then.
fn handshake(options: &TlsOptions, config: ServerConfig) -> Result<(), TransportError> {
    let setup = TransportSetup::new("localhost", 1, Some(options), None)?;
    let mut link = Link::new(&setup, Server::new(Some(config), false), usize::MAX);
    let mut out = Vec::new();
    link.client.start(&mut out)?;
    link.client.send(b"bytes", &mut out)?;
    link.deliver(out)?;
    assert_eq!(link.server.received, b"bytes");
    Ok(())
}

/// A client and a server, and a network that cuts what the server sends into chunks.
struct Link {
    client: Transport,
    server: Server,
    chunk: usize,
    /// What the client has received.
    plain: Vec<u8>,
}

impl Link {
    fn new(setup: &TransportSetup, server: Server, chunk: usize) -> Self {
        let client = Transport::new(setup).expect("valid");
        Self { client, server, chunk, plain: Vec::new() }
    }

    /// Lets the server have what the client sends, the client its answer, until both are silent.
    fn deliver(&mut self, mut out: Vec<u8>) -> Result<(), TransportError> {
        while !out.is_empty() {
            let answer = self.server.exchange(&out);
            out.clear();
            for bytes in answer.chunks(self.chunk) {
                self.client.receive(bytes, &mut self.plain, &mut out)?;
            }
        }
        Ok(())
    }

    /// Lets the client have what the server sends.
    fn take(&mut self, bytes: Vec<u8>) -> Result<(), TransportError> {
        let mut out = Vec::new();
        for bytes in bytes.chunks(self.chunk) {
            self.client.receive(bytes, &mut self.plain, &mut out)?;
        }
        self.deliver(out)
    }
}

/// The other side of a connection.
struct Server {
    tls: Option<ServerConnection>,
    web: Option<Web>,
    received: Vec<u8>,
    /// The client has taken leave at each layer.
    left: bool,
}

enum Web {
    Opening(Vec<u8>),
    Open(Box<WebSocket<Duplex>>),
}

impl Server {
    fn new(config: Option<ServerConfig>, websocket: bool) -> Self {
        let tls = config.map(|config| ServerConnection::new(Arc::new(config)).expect("valid"));
        let web = websocket.then(|| Web::Opening(Vec::new()));
        let left = tls.is_none() && web.is_none();
        Self { tls, web, received: Vec::new(), left }
    }

    fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(tls) = &mut self.tls else { return self.web_exchange(bytes) };
        let (mut rest, mut plain) = (bytes, Vec::new());
        let mut closed = false;
        while !rest.is_empty() {
            tls.read_tls(&mut rest).expect("in memory");
            // What is wrong is told to the client.
            let Ok(state) = tls.process_new_packets() else { break };
            let _ = tls.reader().read_to_end(&mut plain);
            closed |= state.peer_has_closed();
        }
        self.left |= closed && self.web.is_none();
        let answer = self.web_exchange(&plain);
        self.encrypt(&answer)
    }

    fn web_exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(web) = &mut self.web else {
            self.received.extend_from_slice(bytes);
            return Vec::new();
        };
        let mut opened = Vec::new();
        let websocket = match web {
            Web::Open(websocket) => {
                websocket.get_mut().input = Cursor::new(bytes.to_vec());
                websocket
            }
            Web::Opening(request) => {
                request.extend_from_slice(bytes);
                if !request.ends_with(b"\r\n\r\n") {
                    return Vec::new();
                }
                let stream = Duplex { input: Cursor::new(std::mem::take(request)), output: vec![] };
                let mut websocket = tungstenite::accept_hdr(stream, agree).expect("valid request");
                opened = std::mem::take(&mut websocket.get_mut().output);
                *web = Web::Open(Box::new(websocket));
                let Web::Open(websocket) = web else { unreachable!() };
                websocket
            }
        };
        loop {
            match websocket.read() {
                Ok(Message::Binary(payload)) => self.received.extend_from_slice(&payload),
                Ok(Message::Close(_)) => self.left = true,
                Ok(other) => panic!("{other:?}"),
                Err(_) => break,
            }
        }
        opened.append(&mut websocket.get_mut().output);
        opened
    }

    fn send(&mut self, payload: &[u8]) -> Vec<u8> {
        let Some(Web::Open(websocket)) = &mut self.web else { return self.encrypt(payload) };
        websocket.send(Message::binary(payload.to_vec())).expect("in memory");
        let frame = std::mem::take(&mut websocket.get_mut().output);
        self.encrypt(&frame)
    }

    fn leave(&mut self) -> Vec<u8> {
        self.tls.as_mut().expect("TLS").send_close_notify();
        self.encrypt(b"")
    }

    fn encrypt(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(tls) = &mut self.tls else { return bytes.to_vec() };
        tls.set_buffer_limit(None);
        tls.writer().write_all(bytes).expect("in memory");
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out).expect("in memory");
        }
        out
    }
}

#[expect(clippy::result_large_err, reason = "the signature is the library's")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let wanted = &request.headers()["Sec-WebSocket-Protocol"];
    assert_eq!(wanted, "mqtt");
    response.headers_mut().insert("Sec-WebSocket-Protocol", wanted.clone());
    Ok(response)
}

struct Duplex {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Duplex {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Duplex {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A directory with a CA and what it has signed, removed in the end.
struct Files {
    directory: PathBuf,
    ca: PathBuf,
}

impl Files {
    fn new(test: &str) -> Self {
        Self::with_ca(test, test)
    }

    fn with_ca(test: &str, ca_name: &str) -> Self {
        let name = format!("loadgen-transport-{}-{test}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("writable");
        let files = Self { ca: directory.join("ca.crt"), directory };

        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.subject_alt_names = names("localhost");
        params.distinguished_name.push(rcgen::DnType::CommonName, ca_name);
        let ca_key = KeyPair::generate().expect("random");
        files.write("ca.key", &ca_key.serialize_pem());
        let ca = CertifiedIssuer::self_signed(params, ca_key).expect("valid");
        files.write("ca.crt", &ca.pem());
        for (file, name, from, until) in [
            ("server", "localhost", 2000, 4000),
            ("client", "client", 2000, 4000),
            ("elsewhere", "elsewhere.test", 2000, 4000),
            ("expired", "localhost", 2000, 2001),
            ("future", "localhost", 3999, 4000),
        ] {
            let mut params = CertificateParams::default();
            params.subject_alt_names = names(name);
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().expect("random");
            let certificate = params.signed_by(&key, &ca).expect("valid");
            files.write(&format!("{file}.crt"), &certificate.pem());
            files.write(&format!("{file}.key"), &key.serialize_pem());
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("writable");
    }

    /// A server on "localhost".
    fn server(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        wants_client_certificate: bool,
    ) -> ServerConfig {
        self.server_with("server", versions, wants_client_certificate)
    }

    /// A server with this certificate.
    fn server_with(
        &self,
        cert: &str,
        versions: &[&'static SupportedProtocolVersion],
        wants_client_certificate: bool,
    ) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("valid");
        let builder = if wants_client_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&self.ca).expect("valid")).expect("valid");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("valid"))
        } else {
            builder.with_no_client_auth()
        };
        let chain =
            vec![CertificateDer::from_pem_file(self.path(&format!("{cert}.crt"))).expect("valid")];
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{cert}.key"))).expect("valid");
        builder.with_single_cert(chain, key).expect("valid")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn names(name: &str) -> Vec<rcgen::SanType> {
    vec![rcgen::SanType::DnsName(name.try_into().expect("a name"))]
}
