//! What each line of mosquitto.conf becomes here.

use std::path::Path;

use super::Imported;

/// What was read so far.
#[derive(Default)]
pub(super) struct Import {
    /// Keys outside of listeners, with their values as TOML.
    settings: Vec<(&'static str, String)>,
    /// The listeners; those of `port` and `bind_address`, too.
    listeners: Vec<Listener>,
    /// `WHERE: TEXT: WHY`.
    left: Vec<String>,
    keeps: bool,
}

/// One listener.
#[derive(Default)]
struct Listener {
    port: u16,
    /// Host, or path of a unix socket if `port` is 0.
    host: Option<String>,
    is_websocket: bool,
    domain: Option<&'static str>,
    certificate: Option<String>,
    key: Option<String>,
    /// Keys of the section, with their values as TOML.
    settings: Vec<(&'static str, String)>,
    client_ca: Option<String>,
    requires_certificate: bool,
    user_from: Option<&'static str>,
}

/// What becomes of a line.
enum Line {
    /// It sets this.
    Set(&'static str, String),
    /// It was taken in.
    Taken,
    /// What it asks for is so in any case, or has nothing to do with a broker.
    Needless,
    /// There is nothing like it, or not with that value.
    Left(&'static str),
}

use Line::{Left, Needless, Set, Taken};

impl Import {
    /// Takes in one line.
    pub(super) fn line(&mut self, at: &str, name: &str, value: &str) {
        let line = self.of_listener(name, value).unwrap_or_else(|| self.of_all(name, value));
        match line {
            Set(key, value) => set(&mut self.settings, key, value),
            Left(why) => self.left.push(format!("{at}: {name} {value}: {why}")),
            Taken | Needless => {}
        }
    }

    /// Lines about a listener; `None` for others.
    fn of_listener(&mut self, name: &str, value: &str) -> Option<Line> {
        if name == "listener" {
            let (port, host) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
            let Ok(port) = port.parse() else { return Some(Left("its port is no number")) };
            let host = Some(host.trim()).filter(|host| !host.is_empty()).map(str::to_owned);
            self.listeners.push(Listener { port, host, ..Listener::default() });
            return Some(Taken);
        }
        let is_ours = matches!(
            name,
            "port"
                | "bind_address"
                | "protocol"
                | "socket_domain"
                | "certfile"
                | "keyfile"
                | "cafile"
        ) || matches!(
            name,
            "crlfile" | "require_certificate" | "tls_version" | "websockets_origin"
        ) || matches!(name, "use_identity_as_username" | "enable_proxy_protocol");
        if !is_ours {
            return None;
        }
        if self.listeners.is_empty() {
            self.listeners.push(Listener { port: 1883, ..Listener::default() });
        }
        self.listeners.last_mut().map(|listener| listener.line(name, value))
    }

    /// Lines about the broker.
    fn of_all(&mut self, name: &str, value: &str) -> Line {
        let text = || quoted(value);
        match name {
            "allow_anonymous" => flag("allow_anonymous", value),
            "password_file" => Set("password_file", text()),
            "acl_file" => Set("acl_file", text()),
            "user" if value == "root" => Needless,
            "user" => Set("user", text()),
            "persistence" => {
                self.keeps = value == "true";
                Taken
            }
            "max_inflight_messages" => number("limits.inflight_max", value, "65535"),
            "max_queued_messages" => number("limits.queue_messages_max", value, "4294967295"),
            "max_queued_bytes" => number("limits.queue_bytes_max", value, "9223372036854775807"),
            "max_packet_size" | "message_size_limit" => {
                number("limits.packet_bytes_max", value, "268435460")
            }
            "memory_limit" => number("limits.memory_bytes_max", value, "9223372036854775807"),
            "max_keepalive" => number("limits.keep_alive_secs_max", value, "0"),
            "max_topic_alias" => Set("limits.topic_alias_maximum", value.to_owned()),
            "max_qos" => Set("limits.maximum_qos", value.to_owned()),
            "max_connections" if value == "-1" => Needless,
            "max_connections" => Set("limits.connections_max", value.to_owned()),
            "retain_available" => flag("limits.retain_available", value),
            "queue_qos0_messages" => flag("limits.queue_qos0", value),
            "persistent_client_expiration" => match seconds(value) {
                Some(secs) => Set("limits.session_expiry_secs_max", secs.to_string()),
                None => Left("it is no number of h, d, w, m or y"),
            },
            "log_type" if matches!(value, "all" | "debug") => Set("log_level", quoted("debug")),
            "log_type" if matches!(value, "error" | "warning" | "notice" | "information") => {
                Needless
            }
            "connection_messages" | "set_tcp_nodelay" | "log_timestamp" | "check_retain_source" => {
                match value {
                    "true" => Needless,
                    _ => Left("it is always so"),
                }
            }
            "per_listener_settings" if value == "false" => Needless,
            "allow_zero_length_clientid" if value == "true" => Needless,
            "pid_file" => {
                Left("there is no such file: systemd and the like know the process without")
            }
            "log_dest" => Left("the log goes to standard error"),
            "log_type" | "log_facility" | "log_timestamp_format" => {
                Left("log_level and log_format say what is logged and how")
            }
            "persistence_location" | "persistence_file" => {
                Left("data_dir is another directory, and mosquitto.db is not read")
            }
            "autosave_interval" | "autosave_on_changes" => {
                Left("what is acknowledged is on disk; durability = \"relaxed\" waits")
            }
            "sys_interval" => Left("there are no $SYS topics yet"),
            "auth_plugin" | "plugin" | "auth_plugin_deny_special_chars" => {
                Left("[auth] takes tokens and asks over HTTP; there are no plugins")
            }
            "psk_file" | "psk_hint" => Left("there is no TLS with pre-shared keys"),
            "connection" | "address" | "addresses" | "topic" | "cleansession" | "clientid"
            | "username" | "password" | "keepalive_interval" | "idle_timeout"
            | "restart_timeout" | "round_robin" | "start_type" | "threshold" | "try_private" => {
                Left(NO_BRIDGES)
            }
            _ if BRIDGE_KEYS.iter().any(|start| name.starts_with(start)) => Left(NO_BRIDGES),
            "upgrade_outgoing_qos" => Left("messages keep their QoS, as MQTT has it"),
            "per_listener_settings" => Left("users and access rules are those of all listeners"),
            _ => Left("there is nothing like it"),
        }
    }

    /// The configuration.
    pub(super) fn finish(mut self, file: &Path) -> Imported {
        let name = file.display().to_string().replace(char::is_control, " ");
        let mut toml = format!("# {name} as `ringmq import` has it.\n\n");
        let is_set = |key: &str| self.settings.iter().any(|(set, _)| *set == key);
        if !self.listeners.is_empty() && !is_set("allow_anonymous") {
            toml += "# What mosquitto does with listeners of your own, unless told otherwise.\n";
            self.settings.insert(0, ("allow_anonymous", "false".to_owned()));
        }
        let (limits, others): (Vec<_>, Vec<_>) =
            self.settings.iter().partition(|(key, _)| key.starts_with("limits."));
        for (key, value) in others {
            toml += &format!("{key} = {value}\n");
        }
        if !self.keeps {
            toml += "\n# Without `persistence true` mosquitto keeps nothing on disk. Without this line, ringmq does.\n";
            toml += "ephemeral = true\n";
        }
        for (nth, (key, value)) in limits.into_iter().enumerate() {
            let title = if nth == 0 { "\n[limits]\n" } else { "" };
            toml += &format!("{title}{} = {value}\n", key.trim_start_matches("limits."));
        }
        for listener in &self.listeners {
            toml += &listener.sections();
        }
        if !self.left.is_empty() {
            toml += "\n# Lines without a counterpart:\n";
            self.left
                .iter()
                .for_each(|line| toml += &format!("# {}\n", line.replace(char::is_control, " ")));
        }
        Imported { toml, left: self.left }
    }
}

impl Listener {
    fn line(&mut self, name: &str, value: &str) -> Line {
        let is_on = value == "true";
        match name {
            "port" => match value.parse() {
                Ok(port) => self.port = port,
                Err(_) => return Left("it is no number"),
            },
            "bind_address" => self.host = Some(value.to_owned()),
            "protocol" if value == "websockets" => self.is_websocket = true,
            "protocol" if value == "mqtt" => {}
            "socket_domain" if value == "ipv4" => self.domain = Some("0.0.0.0"),
            "socket_domain" if value == "ipv6" => self.domain = Some("[::]"),
            "certfile" => self.certificate = Some(value.to_owned()),
            "keyfile" => self.key = Some(value.to_owned()),
            // Without certificates of clients it is of no use to mosquitto either.
            "cafile" => self.client_ca = Some(value.to_owned()),
            "crlfile" => set(&mut self.settings, "crl", quoted(value)),
            "require_certificate" => self.requires_certificate = is_on,
            "use_identity_as_username" => self.user_from = is_on.then_some("cn"),
            "tls_version" if value == "tlsv1.3" => {
                set(&mut self.settings, "tls_min", quoted("1.3"));
            }
            "tls_version" if value == "tlsv1.2" => {}
            "tls_version" => return Left("TLS 1.2 is the oldest that is spoken"),
            "websockets_origin" => {
                set(&mut self.settings, "origins", format!("[{}]", quoted(value)))
            }
            "enable_proxy_protocol" => {
                return Left(
                    "proxy_protocol_from of the listener names the proxies that may send it",
                );
            }
            _ => return Left("there is no such value"),
        }
        Taken
    }

    /// Its sections: one for IPv4 and one for IPv6, unless it says which.
    fn sections(&self) -> String {
        let scheme = match (self.certificate.is_some(), self.is_websocket) {
            (false, false) => "mqtt",
            (true, false) => "mqtts",
            (false, true) => "ws",
            (true, true) => "wss",
        };
        let hosts: Vec<String> = match (&self.host, self.domain) {
            (Some(path), _) if self.port == 0 => vec![format!("unix:{path}")],
            (Some(host), _) if host.contains(':') => {
                vec![format!("{scheme}://[{host}]:{}", self.port)]
            }
            (Some(host), _) => vec![format!("{scheme}://{host}:{}", self.port)],
            (None, Some(any)) => vec![format!("{scheme}://{any}:{}", self.port)],
            (None, None) => {
                ["0.0.0.0", "[::]"].map(|any| format!("{scheme}://{any}:{}", self.port)).into()
            }
        };
        let mut lines = String::new();
        if let (Some(certificate), key) = (&self.certificate, &self.key) {
            let both = match key {
                Some(key) => format!("{certificate} => {key}"),
                None => certificate.clone(),
            };
            lines += &format!("certificates = [{}]\n", quoted(&both));
        }
        if let (true, Some(ca)) = (self.requires_certificate, &self.client_ca) {
            lines += &format!("client_certificates = \"required\"\nclient_ca = {}\n", quoted(ca));
            if let Some(from) = self.user_from {
                lines += &format!("user_from = {}\n", quoted(from));
            }
        }
        for (key, value) in &self.settings {
            lines += &format!("{key} = {value}\n");
        }
        hosts.iter().map(|url| format!("\n[[listener]]\nurl = {}\n{lines}", quoted(url))).collect()
    }
}

/// Of several lines that set a key, the last one counts.
fn set(settings: &mut Vec<(&'static str, String)>, key: &'static str, value: String) {
    settings.retain(|(before, _)| *before != key);
    settings.push((key, value));
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn flag(key: &'static str, value: &str) -> Line {
    match value {
        "true" | "false" => Set(key, value.to_owned()),
        _ => Left("it is neither true nor false"),
    }
}

/// A number; mosquitto's 0 is `none`, which has another name here.
fn number(key: &'static str, value: &str, none: &str) -> Line {
    match value.parse::<u64>() {
        Ok(0) => Set(key, none.to_owned()),
        Ok(number) => Set(key, number.to_string()),
        Err(_) => Left("it is no number"),
    }
}

/// `14d` and the like.
fn seconds(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let days = match unit {
        'h' => return text.strip_suffix('h')?.parse::<u64>().ok()?.checked_mul(3600),
        'd' => 1,
        'w' => 7,
        'm' => 30,
        'y' => 365,
        _ => return None,
    };
    text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(days * 86_400)
}

const NO_BRIDGES: &str = "there are no bridges yet";
/// What further keys of a bridge begin with.
const BRIDGE_KEYS: [&str; 4] = ["bridge_", "local_", "notification", "remote_"];
