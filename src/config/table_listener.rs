//! The table of the keys of one listener, in the order of the documentation.
//!
//! Defaults stand in [`ListenerSettings::new`], not here.

use super::{
    Chain, ClientCertificates, SlowConsumer, UserFrom,
    address::Endpoint,
    auth_rules::add_method,
    keys::{Key, Kind, List},
    listeners::{ListenerSettings, certificate_files, file, origin, unix_mode, websocket_path},
    table_limits::{I64, U16},
};

/// A list whose elements are read one by one.
macro_rules! list {
    ($name:literal, $field:ident, $read:expr, $form:literal, $default:literal, $doc:literal) => {
        Key {
            name: concat!("listener.", $name),
            kind: Kind::List(List {
                form: $form,
                clear: |settings: &mut ListenerSettings| settings.$field = Default::default(),
                add: |settings, text| {
                    settings.$field.push($read(text)?);
                    Ok(())
                },
            }),
            show: |_| $default.to_owned(),
            doc: $doc,
        }
    };
}

const CLIENT: [(&str, ClientCertificates); 3] = [
    ("none", ClientCertificates::None),
    ("optional", ClientCertificates::Optional),
    ("required", ClientCertificates::Required),
];
const USER: [(&str, UserFrom); 3] =
    [("none", UserFrom::None), ("cn", UserFrom::Cn), ("san", UserFrom::San)];
const TLS_MIN: [&str; 2] = ["1.2", "1.3"];

pub(super) static LISTENER_KEYS: &[Key<ListenerSettings>] = &[
    Key {
        name: "listener.url",
        kind: Kind::Text(|settings, text| {
            settings.url = Some(Endpoint::parse(text).map_err(|error| error.why())?);
            Ok(())
        }),
        show: |_| "required".to_owned(),
        doc: "Where to accept connections, and what is spoken there: `mqtt://HOST[:PORT]` (port 1883), \
              `mqtts://` (TLS, 8883), `ws://` (WebSocket, 80), `wss://` (WebSocket in TLS, 443) or \
              `unix:/PATH`.",
    },
    Key {
        name: "listener.relaxed",
        kind: Kind::Switch(|settings, on| settings.relaxed = on),
        show: |settings| settings.relaxed.to_string(),
        doc: "Whether clients there get acknowledgements as with `durability = \"relaxed\"`, whatever \
              `durability` is.",
    },
    list!(
        "certificates",
        certificates,
        certificate_files,
        "files in PEM form such as \"server.pem => server.key\"",
        "none",
        "Certificates with those that lead to their CA, and their keys, or files that hold both. A client \
         gets the one for the name that it asks for (SNI), otherwise the first. They are read again \
         when they change and at SIGHUP; clients who are connected stay."
    ),
    Key {
        name: "listener.tls_min",
        kind: Kind::Choice(&TLS_MIN, |settings, index| settings.tls_1_3_only = index == 1),
        show: |settings| TLS_MIN[usize::from(settings.tls_1_3_only)].to_owned(),
        doc: "The oldest version of TLS that is spoken.",
    },
    Key {
        name: "listener.client_certificates",
        kind: Kind::Choice(&[CLIENT[0].0, CLIENT[1].0, CLIENT[2].0], |settings, index| {
            settings.client = CLIENT[index].1;
        }),
        show: |settings| format!("{:?}", settings.client).to_ascii_lowercase(),
        doc: "Whether clients may or must have a certificate of `client_ca`.",
    },
    Key {
        name: "listener.client_ca",
        kind: Kind::Text(|settings, path| {
            settings.client_ca = Some(file(path)?);
            Ok(())
        }),
        show: |_| "none".to_owned(),
        doc: "File with the CAs of clients' certificates, in PEM form.",
    },
    list!(
        "crl",
        crls,
        file,
        "files in PEM form such as \"clients.crl\"",
        "none",
        "Lists of the clients' certificates that were revoked. If there are any, each CA that has issued \
         one to a client needs one; a list that is past its date still holds. Read again as `certificates` \
         are."
    ),
    Key {
        name: "listener.user_from",
        kind: Kind::Choice(&[USER[0].0, USER[1].0, USER[2].0], |settings, index| {
            settings.user_from = USER[index].1;
        }),
        show: |settings| format!("{:?}", settings.user_from).to_ascii_lowercase(),
        doc: "Whose name in a client's certificate is its user name, in place of that in CONNECT: the \
              common name of its subject, or its first alternative name (DNS, e-mail or URI). Such a client \
              counts as authenticated.",
    },
    Key {
        name: "listener.auth",
        kind: Kind::List(List {
            form: "the methods certificate, password, jwt, http, anonymous, each at most once",
            clear: |settings| settings.policy.chain = None,
            add: |settings, name| {
                let chain = &mut settings.policy.chain;
                add_method(chain.get_or_insert_with(|| Chain(Vec::new())), name)
            },
        }),
        show: |_| "`auth.chain`".to_owned(),
        doc: "The methods that are tried for its clients, in place of those of `auth.chain`.",
    },
    list!(
        "websocket_paths",
        websocket_paths,
        websocket_path,
        "paths such as \"/mqtt\"",
        "/mqtt, /",
        "Paths at which WebSockets are offered."
    ),
    list!(
        "origins",
        origins,
        origin,
        "origins such as \"https://example.com\"",
        "all",
        "Whose pages may connect by WebSocket. Clients that are no browsers send no origin and are not \
         concerned."
    ),
    Key {
        name: "listener.proxy_protocol_from",
        kind: Kind::List(List {
            form: "networks such as \"10.0.0.0/8\", or \"unix\"",
            clear: |settings| settings.proxies = Default::default(),
            add: |settings, text| settings.proxies.add(text),
        }),
        show: |_| "none".to_owned(),
        doc: "Proxies whose connections begin with a PROXY protocol header, version 1 or 2, which is \
              required of them; the client that it names is what logs show. From elsewhere connections \
              are what they are without a proxy.",
    },
    Key {
        name: "listener.unix_mode",
        kind: Kind::Text(|settings, text| {
            settings.unix_mode = Some(unix_mode(text)?);
            Ok(())
        }),
        show: |_| "660".to_owned(),
        doc: "Permissions of a unix socket, in octal: who may write may connect.",
    },
    Key {
        name: "listener.output_bytes_max",
        kind: Kind::Number(1..=I64, |settings, number| {
            settings.policy.output_bytes_max = Some(number);
            Some(())
        }),
        show: |settings| shown(settings.policy.output_bytes_max),
        doc: "As `limits.output_bytes_max`, for its clients.",
    },
    Key {
        name: "listener.output_stalled_secs_max",
        kind: Kind::Number(0..=U16, |settings, number| {
            settings.policy.output_stalled_secs_max = Some(number.try_into().ok()?);
            Some(())
        }),
        show: |settings| shown(settings.policy.output_stalled_secs_max),
        doc: "As `limits.output_stalled_secs_max`, for its clients.",
    },
    Key {
        name: "listener.slow_consumer",
        kind: Kind::Choice(&SlowConsumer::NAMES, |settings, index| {
            settings.policy.slow_consumer = Some(SlowConsumer::at(index));
        }),
        show: |settings| shown(settings.policy.slow_consumer.map(SlowConsumer::name)),
        doc: "As `limits.slow_consumer`, for its clients.",
    },
];

/// What stands in `[limits]`, unless the listener has its own.
fn shown(own: Option<impl ToString>) -> String {
    own.map_or_else(|| "that of `limits`".to_owned(), |own| own.to_string())
}
