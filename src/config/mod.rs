//! Configuration: from the sources' words (file, environment, `--set`, flags)
//! to the checked [`Config`] that every other module sees.
//!
//! Owns the table of keys, their defaults and every text about a wrong one.
//! Knows no socket, no clock and no thread; runs once, before any shard.

mod acl;
mod address;
mod address_range;
mod auth_rules;
mod auth_table;
mod auto_subscribe;
mod bans;
mod clients;
mod durability;
mod key_set;
mod keys;
mod listeners;
mod password_hash;
mod passwords;
mod problem;
mod rules;
mod shared;
mod limits;
mod listener_policy;
mod source;
mod table;
mod table_admission;
mod table_limits;
mod table_listener;
mod text_file;

use std::{
    fmt,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::Level;

use crate::{
    base::{
        ListenerId,
        limits::{LISTEN_ADDRESSES_MAX, SHARDS_MAX},
    },
    topic::{RewriteRule, Strategies},
};

pub use acl::{
    AclError, AclForm, AclLevel, AclRule, AclRules, AclTopic, Actions, NamePattern, Part, Who,
};
pub use address::{ListenAddress, Scheme};
pub use address_range::AddressRange;
pub use auth_rules::{Chain, Header, HttpRules, Method, TokenRules};
pub use auto_subscribe::AutoSubscription;
pub use bans::Bans;
pub use durability::{Durability, STORAGE_BYTES_MAX_DEFAULT};
pub use key_set::{KeyMaterial, KeySet, KeySetError, TokenKey};
pub use keys::{help_text, markdown_table};
pub use limits::{Limits, RateExceeded};
pub use listener_policy::{ListenerPolicy, SlowConsumer};
pub use listeners::{
    CertificateFiles, ClientCertificates, Listener, ProxySources, TlsSettings, UserFrom,
    WebSocketRules,
};
pub use password_hash::{Argon2Cost, HashError, PasswordHash, SHA512_BYTES};
pub use passwords::{
    Credentials, KEY_BYTES, LineError, UserNameError, Verifier, VerifierError, prepare_user_name,
    read_password_file, user_of_line,
};
pub use problem::{ConfigErrors, Problem};
pub use rules::RetainedTtl;
pub use source::{Flag, Sources};
pub use text_file::read_text;

use address::Endpoint;
use listeners::ListenerSettings;
use problem::{Fault, Origin};

/// Everything an operator decides, checked as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to accept connections, and how: at least one, no socket address twice
    /// (except with port 0).
    pub listen: Vec<Listener>,
    /// Whether nobody chose the addresses. The server then skips an address of
    /// a protocol that this machine lacks instead of refusing to start.
    pub listen_is_default: bool,
    /// Shards, at most [`SHARDS_MAX`].
    pub shards: NonZeroUsize,
    /// Directory of whatever outlives the process.
    pub data_dir: PathBuf,
    /// Whether nothing is to be kept on disk.
    pub ephemeral: bool,
    /// Bytes of all logs together; an even part of them is enough for each shard to work with.
    pub storage_bytes_max: u64,
    /// Those of the addresses whose clients' messages are acknowledged before they are on disk.
    pub relaxed_listeners: Vec<SocketAddr>,
    /// The user that the process is to become.
    pub user: Option<Box<str>>,
    /// What is logged, and in which form.
    pub log: LogConfig,
    /// Traces one in so many publications.
    pub trace_sample: Option<NonZeroU32>,
    /// The password file, if everybody on this machine can read it.
    pub open_password_file: Option<PathBuf>,
    /// Who may do what, if rules say so.
    pub acl: Option<AclRules>,
    /// Whether that is allowed which no rule of theirs is about.
    pub acl_default_allows: bool,
    /// What clients may do and how they are served.
    pub policy: Policy,
}

/// What clients may do and how they are served: all that a shard's broker reads
/// of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Who may connect without proving an identity.
    pub anonymous: AnonymousPolicy,
    /// Where clients are sent to, and when.
    pub redirect: Option<Redirect>,
    /// Response Information for clients that request it; `%c` stands for the Client Identifier.
    pub response_information: Option<Box<str>>,
    /// How clients are authenticated.
    pub chain: Chain,
    /// Who can prove an identity.
    pub credentials: Arc<Credentials>,
    /// What tokens have to be like, if they are taken.
    pub tokens: Option<Arc<TokenRules>>,
    /// Who is asked over HTTP, if anybody.
    pub http: Option<Arc<HttpRules>>,
    /// What topics and filters of clients are read as; the first rule that matches holds.
    pub rewrite: Vec<RewriteRule>,
    /// How long retained messages are kept at most; the first rule that matches holds.
    pub retained_ttl: Vec<RetainedTtl>,
    /// Subscriptions that every new session gets.
    pub auto_subscribe: Vec<AutoSubscription>,
    /// How shared subscriptions choose among their members.
    pub shared: Strategies,
    /// When publications are acknowledged.
    pub durability: Durability,
    /// Whether a client is disconnected that publishes what it may not.
    pub acl_disconnects: bool,
    /// Who is not let in.
    pub bans: Arc<Bans>,
    /// Limits towards clients.
    pub limits: Limits,
    /// By listener, what differs between them.
    pub listeners: Vec<ListenerPolicy>,
}

impl Policy {
    /// The methods by which clients of a listener are authenticated, in their order.
    pub fn chain(&self, listener: ListenerId) -> &[Method] {
        &self.listener(listener).chain.as_ref().unwrap_or(&self.chain).0
    }

    /// What holds for the clients of one listener.
    pub fn listener(&self, id: ListenerId) -> &ListenerPolicy {
        const DEFAULT: &ListenerPolicy = &ListenerPolicy::DEFAULT;
        self.listeners.get(usize::from(id.0)).unwrap_or(DEFAULT)
    }

    /// Whether there is something to check the method's credentials with.
    pub fn knows(&self, method: Method) -> bool {
        match method {
            Method::Password => !self.credentials.is_empty(),
            Method::Jwt => self.tokens.is_some(),
            Method::Http => self.http.is_some(),
            Method::Certificate | Method::Anonymous => true,
        }
    }

    /// Whether credentials in CONNECT can be right or wrong for these methods.
    pub fn checks_credentials(&self, chain: &[Method]) -> bool {
        let checks = |method: &Method| {
            matches!(method, Method::Password | Method::Jwt | Method::Http) && self.knows(*method)
        };
        chain.iter().any(checks)
    }
}

/// Where v5 clients are sent to, and when (MQTT 5.0 section 4.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Server Reference: one server or several with blanks between.
    pub server_reference: Box<str>,
    /// When.
    pub when: RedirectWhen,
}

/// When clients are told to use another server. Each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RedirectWhen {
    /// Those that are connected when the server ends.
    #[default]
    Shutdown,
    /// New ones, when there are as many sessions as allowed.
    Full,
    /// Every new one: the server has moved.
    Always,
}

/// Who may connect without proving an identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnonymousPolicy {
    /// Clients of this machine only. Unless others can authenticate, no address
    /// that they can reach is listened on then: [`Config::load`] refuses it.
    #[default]
    LoopbackOnly,
    /// Everybody who can reach a listener.
    Everywhere,
    /// Nobody.
    Nowhere,
}

/// What is logged, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// The least important level that is still written.
    pub level: Level,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, message, fields.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads all sources and checks the result. Resolves host names, writes nothing.
    ///
    /// # Errors
    /// Everything that is wrong with the sources, in the order they are read.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        Self::load_on(sources, &Machine::this())
    }

    /// The same on a machine with one CPU that knows no host name and where every password file is
    /// empty: for fuzzing, which must not ask name servers, nor read whatever file it thinks of.
    ///
    /// # Errors
    /// As [`Config::load`].
    #[doc(hidden)]
    pub fn load_offline(sources: &Sources) -> Result<Self, ConfigErrors> {
        let machine = Machine {
            cpus: NonZeroUsize::MIN,
            resolve: |_, _| Ok(Vec::new()),
            read_file: |_| Ok((String::new(), false)),
            read_acl: |_| Ok(String::new()),
        };
        Self::load_on(sources, &machine)
    }

    /// Reads a file of access rules; `allows_rest` is `acl_default = allow`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load_acl(file: &Path, allows_rest: bool) -> Result<AclRules, ConfigErrors> {
        clients::load_acl(file, allows_rest, &Machine::this()).map_err(ConfigErrors::new)
    }

    /// Reads the bans of all sources again.
    ///
    /// # Errors
    /// Everything that is wrong with the sources.
    pub fn load_bans(sources: &Sources) -> Result<Bans, ConfigErrors> {
        let (settings, problems) = sources.read(Machine::this().read_file);
        if problems.is_empty() { Ok(settings.bans) } else { Err(ConfigErrors::new(problems)) }
    }

    fn load_on(sources: &Sources, machine: &Machine) -> Result<Self, ConfigErrors> {
        let (settings, mut problems) = sources.read(machine.read_file);
        // Not knowing what was meant by one key, a verdict on several together
        // would only add noise.
        let suspect = |key| problems.iter().any(|problem: &Problem| problem.concerns(key));
        let checked = !SUSPECTS.into_iter().any(suspect);
        let checked = checked.then(|| Self::check(settings, machine));
        match checked {
            Some(Ok(config)) if problems.is_empty() => return Ok(config),
            Some(Err(more)) => problems.extend(more),
            Some(Ok(_)) | None => {}
        }
        Err(ConfigErrors::new(problems))
    }

    /// What the keys mean together and on this machine.
    fn check(settings: Settings, machine: &Machine) -> Result<Self, Vec<Problem>> {
        let Settings {
            listen,
            listeners,
            allow_anonymous,
            shards,
            user,
            log,
            trace_sample,
            data_dir,
            ephemeral,
            storage_bytes_max,
            durability,
            relaxed_listeners,
            server_reference,
            redirect,
            response_information,
            password_file,
            acl_file,
            acl_default_allows,
            acl_disconnects,
            bans,
            auth,
            rewrite,
            retained_ttl,
            auto_subscribe,
            shared,
            limits,
        } = settings;
        let anonymous = match allow_anonymous {
            None => AnonymousPolicy::LoopbackOnly,
            Some(true) => AnonymousPolicy::Everywhere,
            Some(false) => AnonymousPolicy::Nowhere,
        };
        let listen_is_default = listen.is_none() && listeners.is_empty();
        let listen = if listen_is_default { default_listen() } else { listen.unwrap_or_default() };
        let of_address =
            |(origin, url)| ListenerSettings { url: Some(url), ..ListenerSettings::new(origin) };
        let listeners = listen.into_iter().map(of_address).chain(listeners);
        let listen = check_listen(listeners, machine)?;
        let shards = shards.unwrap_or(machine.cpus);
        durability::check_storage(storage_bytes_max, shards)?;
        let relaxed_listeners =
            durability::check_listeners(&relaxed_listeners, &listen, machine.resolve)?;
        let (policy, is_open_to_all) =
            clients::check_auth(anonymous, password_file.as_deref(), auth, &listen, machine)?;
        let load = |path: &Path| clients::load_acl(path, acl_default_allows, machine);
        let acl = acl_file.as_deref().map(load).transpose()?;
        let redirect = check_redirect(server_reference, redirect)?;
        let listeners = listen.iter().map(|(_, listener)| listener.policy.or(&limits)).collect();
        let policy = Policy {
            listeners,
            rewrite,
            retained_ttl,
            auto_subscribe,
            shared,
            redirect,
            response_information,
            durability,
            acl_disconnects,
            bans: Arc::new(bans),
            limits,
            ..policy
        };
        Ok(Self {
            listen: listen.into_iter().map(|(_, listener)| listener).collect(),
            listen_is_default,
            shards,
            data_dir,
            ephemeral,
            storage_bytes_max,
            relaxed_listeners,
            user,
            log,
            trace_sample: NonZeroU32::new(trace_sample),
            open_password_file: password_file.filter(|_| is_open_to_all),
            acl,
            acl_default_allows,
            policy,
        })
    }
}

/// Keys whose values are checked together with others'.
const SUSPECTS: [&str; 10] = [
    "listen",
    keys::LISTENER,
    "allow_anonymous",
    "server_reference",
    "storage_bytes_max",
    "relaxed_listeners",
    "auth.chain",
    "auth.jwt_keys_file",
    "auth.jwt_secret",
    "auth.http_url",
];

/// Where clients are sent to, if anywhere.
fn check_redirect(
    server_reference: Option<Box<str>>,
    when: RedirectWhen,
) -> Result<Option<Redirect>, Vec<Problem>> {
    if server_reference.is_none() && when != RedirectWhen::default() {
        let origin = Origin::new("configuration", None);
        return Err(vec![Problem::new(origin, "redirect", Fault::RedirectNowhere)]);
    }
    Ok(server_reference.map(|server_reference| Redirect { server_reference, when }))
}

/// Checks every listener, resolves its address and refuses double ones.
fn check_listen(
    listen: impl Iterator<Item = ListenerSettings>,
    machine: &Machine,
) -> Result<Vec<(Origin, Listener)>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut checked: Vec<(Origin, Listener)> = Vec::new();
    for settings in listen {
        let (origin, listener) = match settings.check(machine.resolve) {
            Ok(found) => found,
            Err(problem) => {
                problems.push(*problem);
                continue;
            }
        };
        let address = &listener.address;
        let twice = checked.iter().find_map(|(_, earlier)| {
            let earlier = &earlier.address;
            let same = |a: &&SocketAddr| a.port() != 0 && earlier.addresses.contains(a);
            let both = address.addresses.iter().find(same).map(ToString::to_string);
            let both_paths = || {
                Some(address.path().filter(|_| earlier.path == address.path)?.display().to_string())
            };
            Some((earlier.text.clone(), both.or_else(both_paths)?))
        });
        if let Some((earlier, both)) = twice {
            let fault = Fault::SameAddress { text: address.text.clone(), earlier, both };
            problems.push(Problem::new(origin.clone(), "listen", fault));
        }
        checked.push((origin, listener));
    }
    let sockets = |(_, it): &(Origin, Listener)| it.address.addresses.len().max(1);
    let count = checked.iter().map(sockets).sum::<usize>();
    if let Some((origin, _)) = checked.last().filter(|_| count > LISTEN_ADDRESSES_MAX) {
        problems.push(Problem::new(origin.clone(), "listen", Fault::TooManyAddresses { count }));
    }
    if problems.is_empty() { Ok(checked) } else { Err(problems) }
}

/// What the sources say: one value a key, defaults where they say nothing.
/// `None` where the default is not a value but a rule of [`Config::check`].
#[derive(Debug)]
struct Settings {
    listen: Option<Vec<(Origin, Endpoint)>>,
    listeners: Vec<ListenerSettings>,
    allow_anonymous: Option<bool>,
    shards: Option<NonZeroUsize>,
    user: Option<Box<str>>,
    log: LogConfig,
    /// 0 is off.
    trace_sample: u32,
    data_dir: PathBuf,
    ephemeral: bool,
    storage_bytes_max: u64,
    durability: Durability,
    relaxed_listeners: Vec<(Origin, Endpoint)>,
    server_reference: Option<Box<str>>,
    redirect: RedirectWhen,
    response_information: Option<Box<str>>,
    password_file: Option<PathBuf>,
    acl_file: Option<PathBuf>,
    acl_default_allows: bool,
    acl_disconnects: bool,
    bans: Bans,
    auth: AuthSettings,
    rewrite: Vec<RewriteRule>,
    retained_ttl: Vec<RetainedTtl>,
    auto_subscribe: Vec<AutoSubscription>,
    shared: Strategies,
    limits: Limits,
}

/// What they say about authentication.
#[derive(Debug, Default)]
struct AuthSettings {
    chain: Option<Chain>,
    tokens: TokenRules,
    keys_file: Option<PathBuf>,
    http: HttpRules,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: None,
            listeners: Vec::new(),
            allow_anonymous: None,
            shards: None,
            user: None,
            log: LogConfig { format: LogFormat::Text, level: Level::INFO },
            trace_sample: 0,
            data_dir: PathBuf::from("/var/lib/ringmq"),
            ephemeral: false,
            storage_bytes_max: STORAGE_BYTES_MAX_DEFAULT,
            durability: Durability::default(),
            relaxed_listeners: Vec::new(),
            server_reference: None,
            redirect: RedirectWhen::default(),
            response_information: None,
            password_file: None,
            acl_file: None,
            acl_default_allows: false,
            acl_disconnects: false,
            bans: Bans::default(),
            auth: AuthSettings::default(),
            rewrite: Vec::new(),
            retained_ttl: Vec::new(),
            auto_subscribe: Vec::new(),
            shared: Strategies::default(),
            limits: Limits::default(),
        }
    }
}

fn default_listen() -> Vec<(Origin, Endpoint)> {
    let endpoint = |text| Endpoint::parse(text).expect("the defaults are well formed");
    DEFAULT_LISTEN.iter().map(|text| (Origin::built_in(), endpoint(text))).collect()
}

/// Both loopback addresses: reachable from this machine, from nowhere else.
const DEFAULT_LISTEN: [&str; 2] = ["127.0.0.1:1883", "[::1]:1883"];

/// What the checks need to know of the machine, so that tests can make one up.
struct Machine {
    /// CPUs this process may run on.
    cpus: NonZeroUsize,
    resolve: address::Resolve,
    read_file: fn(&Path) -> std::io::Result<(String, bool)>,
    read_acl: fn(&Path) -> std::io::Result<String>,
}

impl Machine {
    fn this() -> Self {
        // Honours the affinity mask and the CPU quota of the cgroup.
        let cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            cpus: cpus.min(SHARDS_ALLOWED),
            resolve: address::system_resolve,
            read_file: read_password_file,
            read_acl: acl::read_acl_file,
        }
    }
}

const SHARDS_ALLOWED: NonZeroUsize = NonZeroUsize::new(SHARDS_MAX).unwrap();

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

#[cfg(test)]
mod tests;
