//! TLS, WebSocket and both, against mosquitto.

use rcgen::{
    CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType,
};

use crate::harness::{Broker, Scratch, free_port, mosquitto, run, sound_run};

/// The broker, the ports of its listeners, and the files that it and its clients need.
struct Layered {
    _broker: Broker,
    _config: Scratch,
    ports: [u16; 5],
    files: Files,
}

/// Places of the listeners in `ports`.
const TCP: usize = 0;
const TLS: usize = 1;
const WS: usize = 2;
const WSS: usize = 3;
/// TLS that wants a certificate of the client too.
const MUTUAL: usize = 4;

#[test]
fn messages_get_through_every_layer() {
    let layered = Layered::start();
    let ca = format!("--cafile {}", layered.files.path("ca.crt"));
    let files = &layered.files;
    let client =
        format!("--certfile {} --keyfile {}", files.path("client.crt"), files.path("client.key"));
    for (listener, transport, options) in [
        (TCP, "tcp", String::new()),
        (TLS, "tls", format!("-S {ca}")),
        (TLS, "tls", "--ssl --insecure".to_owned()),
        (WS, "ws", "--ws".to_owned()),
        (WSS, "wss", format!("-S --ws {ca}")),
        (MUTUAL, "tls", format!("-S {ca} {client}")),
    ] {
        // Longer ones take mosquitto seconds in WebSocket frames.
        let bytes = if options.contains("--ws") { 3_000 } else { 50_000 };
        let large = format!("fan-out --subscribers 5 --rate 100 -s {bytes}");
        for load in ["p2p --publishers 3 --window 4", &large] {
            let line = format!(
                "run {load} -q 1 -V 5 --warm 0 --secs 0.2 --threads 2 --quiet -h localhost {options}"
            );
            let run = sound_run(layered.ports[listener], &line);
            assert_eq!(run["settings"]["transport"], transport, "{line}");
            assert!(run["sent"].as_u64() > Some(0), "{line}: {run}");
        }
        let port = layered.ports[listener];
        let line = format!("conn -c 20 -i 0 --secs 0 --quiet -h localhost {options}");
        assert_eq!(sound_run(port, &line)["whole_run"]["connected"], 20, "{line}");
    }
    let away =
        format!("run offline-replay --publishers 3 --messages 50 --quiet -h localhost -S {ca}");
    sound_run(layered.ports[TLS], &away);
}

#[test]
fn what_does_not_fit_is_explained() {
    let layered = Layered::start();
    let ca = format!("-S --cafile {}", layered.files.path("ca.crt"));
    for (listener, options, hint) in [
        (TLS, "-S --cafile /no/such/file".to_owned(), "/no/such/file"),
        (TLS, format!("-S --cafile {}", layered.files.path("other.crt")), "--cafile names the CA"),
        (TLS, format!("{ca} -h 127.0.0.1"), "not for 127.0.0.1"),
        (TLS, String::new(), "the broker closed the connection"),
        (TCP, ca.clone(), "TLS"),
        (TCP, "--ws".to_owned(), "WebSocket"),
        (WS, "--ws --ws-path mqtt".to_owned(), "looks like \"/mqtt\""),
        (MUTUAL, ca.clone(), "client certificate"),
    ] {
        let host = if options.contains("-h ") { "" } else { "-h localhost" };
        let line = format!("conn -c 2 -i 0 --secs 0 {host} {options}");
        let ended = run(layered.ports[listener], &line);
        assert_eq!(ended.code, Some(2), "{line}: {ended:?}");
        assert!(ended.stderr.contains(hint), "{line}: {ended:?}");
    }
}

impl Layered {
    fn start() -> Self {
        let files = Files::new();
        let ports = [(); 5].map(|()| free_port());
        let tls = format!(
            "cafile {}\ncertfile {}\nkeyfile {}\n",
            files.path("ca.crt"),
            files.path("server.crt"),
            files.path("server.key")
        );
        let listener = |at: usize, options: &str| {
            format!("listener {} 127.0.0.1\nallow_anonymous true\n{options}", ports[at])
        };
        let config = Scratch::with(
            "conf",
            &[
                "per_listener_settings true\nmax_inflight_messages 0\nmax_queued_messages 0\n"
                    .to_owned(),
                listener(TCP, ""),
                listener(TLS, &tls),
                listener(WS, "protocol websockets\n"),
                listener(WSS, &format!("protocol websockets\n{tls}")),
                listener(MUTUAL, &format!("{tls}require_certificate true\n")),
            ]
            .concat(),
        );
        let broker = mosquitto(config.path(), &ports);
        Self { _broker: broker, _config: config, ports, files }
    }
}

/// A CA with what it has signed, and another CA; removed in the end.
struct Files(Vec<(&'static str, Scratch)>);

impl Files {
    fn new() -> Self {
        let mut files = Vec::new();
        let ca = Self::ca("a CA");
        let other = Self::ca("another CA");
        files.push(("ca.crt", Scratch::with("crt", &ca.pem())));
        files.push(("other.crt", Scratch::with("crt", &other.pem())));
        for (cert, key) in [("server.crt", "server.key"), ("client.crt", "client.key")] {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let pair = KeyPair::generate().unwrap();
            let signed = params.signed_by(&pair, &ca).unwrap();
            files.push((cert, Scratch::with("crt", &signed.pem())));
            files.push((key, Scratch::with("key", &pair.serialize_pem())));
        }
        Self(files)
    }

    fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn path(&self, name: &str) -> String {
        let file = self.0.iter().find(|(own, _)| *own == name).expect("one of those above");
        file.1.to_string()
    }
}
