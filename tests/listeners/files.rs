//! A directory with a CA, certificates of servers and clients, a revocation list, and the broker's configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use crate::common::{Broker, free_port};

/// The files of one test, deleted with it.
pub(crate) struct Files {
    directory: PathBuf,
    ca: Arc<CertifiedIssuer<'static, KeyPair>>,
}

impl Files {
    /// `ca.pem`, and `server.pem` and `server.key` for `localhost` and 127.0.0.1.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("listeners-{}-{number}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).expect("a directory for temporary files");
        let files = Self { directory, ca: Arc::new(authority("test CA")) };
        files.write("ca.pem", &files.ca.pem());
        files.server("server", "localhost");
        files
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().expect("an ordinary path").to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        // At once, as an operator's tool does.
        let temporary = self.directory.join(format!("{name}.new"));
        std::fs::write(&temporary, text).expect("room for a file");
        std::fs::rename(temporary, self.directory.join(name)).expect("the same directory");
    }

    /// `NAME.pem` and `NAME.key` of a server of that host.
    pub(crate) fn server(&self, name: &str, host: &str) {
        let names = [
            SanType::DnsName(host.try_into().expect("a name")),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        self.issue(&self.ca, name, host, 1, &names);
    }

    /// `NAME.pem` and `NAME.key` of a client with that name and e-mail address.
    pub(crate) fn client(&self, name: &str, serial: u64) {
        let email = format!("{name}@example.com");
        let names = [SanType::Rfc822Name(email.as_str().try_into().expect("ASCII"))];
        self.issue(&self.ca, name, name, serial, &names);
    }

    /// The same of a CA that nobody knows.
    pub(crate) fn stranger(&self, name: &str) {
        self.issue(&authority("another CA"), name, name, 1, &[]);
    }

    /// `clients.crl`, with the certificates of these serial numbers.
    pub(crate) fn revoke(&self, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(serials.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.ca).expect("a CA that signs lists");
        self.write("clients.crl", &list.pem().expect("PEM"));
    }

    fn issue(
        &self,
        ca: &CertifiedIssuer<'_, KeyPair>,
        name: &str,
        common_name: &str,
        serial: u64,
        names: &[SanType],
    ) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names.to_vec();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("random");
        let certificate = params.signed_by(&key, ca).expect("a valid request");
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.pem"), &certificate.pem());
    }

    /// A broker with so many shards and one listener more, `SCHEME://127.0.0.1`, with these settings. `{}` in them
    /// stands for the directory. Returns the listener's port, too.
    pub(crate) fn broker(&self, shards: usize, scheme: &str, settings: &str) -> (Broker, u16) {
        let port = free_port();
        let url = format!("url = \"{scheme}://127.0.0.1:{port}\"");
        (self.broker_with(shards, &format!("[[listener]]\n{url}\n{settings}")), port)
    }

    /// A broker with that configuration file.
    pub(crate) fn broker_with(&self, shards: usize, config: &str) -> Broker {
        let config = config.replace("{}", self.directory.to_str().expect("an ordinary path"));
        self.write("ringmq.toml", &config);
        Broker::start_with(shards, &["-v", "-c", &self.path("ringmq.toml")])
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("random")).expect("valid")
}

/// What every TLS listener of these tests has.
pub(crate) const SERVER: &str = "certificates = \"{}/server.pem => {}/server.key\"\n";
