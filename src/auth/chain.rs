//! The chain of methods that a client without enhanced authentication is put through: each accepts it,
//! refuses it, or does not know it and leaves it to the next.
//!
//! Decides at once what takes no time, and says what has to be checked elsewhere. Knows no connection.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Weak},
};

use super::{admits, jwt, verified::Verified};
use crate::{
    base::limits::{PASSWORD_BYTES_MAX, USER_NAME_BYTES_MAX},
    codec::Version,
    config::{Credentials, HttpRules, Method, PasswordHash, Policy, TokenRules, prepare_user_name},
};

/// What a client has shown of itself.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// User Name of CONNECT.
    pub user: Option<&'a str>,
    /// Password of CONNECT.
    pub password: Option<&'a [u8]>,
    /// The user of the certificate that its listener has verified.
    pub certificate_user: Option<&'a str>,
    /// Whether it connected to a loopback address.
    pub is_local: bool,
}

/// What becomes of a client.
#[derive(Debug)]
pub enum Decision {
    /// It is who it says.
    Accepted(Verified),
    /// It may connect without having said who it is.
    Anonymous,
    /// This takes time. If that does not know the client, the chain goes on at `next`.
    Check {
        /// What is to be done.
        task: Task,
        /// Position in the chain.
        next: usize,
    },
    /// It may not connect.
    Refused(Denied),
}

/// Why a client may not connect, as far as it may know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// It has shown nothing that could be checked.
    Unproven,
    /// What it has shown is wrong, or of nobody.
    WrongCredentials,
}

/// What takes time to check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Task {
    /// A password against a hash.
    Password {
        /// Whose it is to be.
        user: Box<str>,
        /// The user's, or that of another user if there is none of that name.
        hash: PasswordHash,
        /// Whether the user exists.
        exists: bool,
    },
    /// A token.
    Token(Arc<TokenRules>),
    /// Whatever the client has, by somebody else.
    Http(Arc<HttpRules>),
}

/// A task with all that it is about.
pub struct Check {
    /// What is to be done.
    pub task: Task,
    /// User Name of CONNECT.
    pub user: Option<Box<str>>,
    /// Password of CONNECT.
    pub password: Option<Box<[u8]>>,
    /// Client Identifier, also if it was assigned.
    pub client: Box<str>,
    /// Where the client is, unless it came through a unix socket.
    pub address: Option<IpAddr>,
    /// The version of MQTT that it speaks.
    pub version: Version,
    /// Bytes of all that is kept until the verdict.
    pub bytes: usize,
    /// Gone when nobody waits for the verdict any more.
    pub wanted: Weak<()>,
}

/// What came of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is who it says.
    Accepted(Verified),
    /// It is not. The reason is for the log.
    Refused(String),
    /// Not somebody that this method knows.
    Unknown,
    /// Nobody can tell now.
    Unavailable,
    /// Too many wait.
    Busy,
}

/// Puts a client through a chain from a position on.
pub fn decide(
    policy: &Policy,
    chain: &[Method],
    from: usize,
    presented: &Presented<'_>,
) -> Decision {
    let has_credentials = presented.user.is_some() || presented.password.is_some();
    let is_checked = has_credentials && policy.checks_credentials(chain);
    if is_checked && presented.user.is_some_and(|user| user.len() > USER_NAME_BYTES_MAX) {
        return Decision::Refused(Denied::WrongCredentials);
    }
    for (at, method) in chain.iter().enumerate().skip(from) {
        let task = match method {
            Method::Certificate => match presented.certificate_user {
                Some(user) => return Decision::Accepted(Verified::of_user(user)),
                None => continue,
            },
            Method::Password => match check_password(policy, &chain[at + 1..], presented) {
                Ok(task) => task,
                Err(denied) => return Decision::Refused(denied),
            },
            Method::Jwt => check_token(policy, presented),
            Method::Http => policy.http.clone().filter(|_| has_credentials).map(Task::Http),
            Method::Anonymous => {
                if !is_checked && admits(policy.anonymous, presented.is_local) {
                    return Decision::Anonymous;
                }
                continue;
            }
        };
        if let Some(task) = task {
            return Decision::Check { task, next: at + 1 };
        }
    }
    Decision::Refused(if is_checked { Denied::WrongCredentials } else { Denied::Unproven })
}

/// Who is not in the file is left to later methods; without any, the password is checked all the same, so
/// that it takes as long as a wrong one.
fn check_password(
    policy: &Policy,
    later: &[Method],
    presented: &Presented<'_>,
) -> Result<Option<Task>, Denied> {
    let (Some(user), Some(password)) = (presented.user, presented.password) else {
        return Ok(None);
    };
    let found = find(&policy.credentials, user);
    let is_last = found.is_some() || {
        !later.iter().any(|method| match method {
            Method::Jwt => check_token(policy, presented).is_some(),
            Method::Http => policy.http.is_some(),
            Method::Certificate => presented.certificate_user.is_some(),
            Method::Password | Method::Anonymous => false,
        })
    };
    if !is_last || policy.credentials.is_empty() {
        return Ok(None);
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Denied::WrongCredentials);
    }
    let exists = found.is_some();
    let known = found.or_else(|| Some((user.into(), policy.credentials.decoy(user)?)));
    Ok(known.map(|(user, hash)| Task::Password { user, hash, exists }))
}

/// A user by the name as it is or, if there is none, as SASLprep has it.
fn find(credentials: &Credentials, user: &str) -> Option<(Box<str>, PasswordHash)> {
    let hash = |name: &str| credentials.hash(name).map(|hash| (name.into(), hash));
    hash(user).or_else(|| hash(&prepare_user_name(user).ok()?))
}

fn check_token(policy: &Policy, presented: &Presented<'_>) -> Option<Task> {
    let is_token = presented.password.is_some_and(jwt::is_token);
    policy.tokens.clone().filter(|_| is_token).map(Task::Token)
}

/// Shows no password.
impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({:?} of {:?} from {:?})", self.task, self.user, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::scram::verifier,
        config::{AnonymousPolicy, Chain},
    };

    const TOKEN: &[u8] = b"eyJhbGciOiJIUzI1NiJ9.e30.c2ln";

    fn policy(methods: &[Method]) -> Policy {
        let keys = verifier("pencil", b"salt", 4096).unwrap();
        let mut policy = Policy {
            chain: Chain(methods.into()),
            anonymous: AnonymousPolicy::Everywhere,
            ..Policy::default()
        };
        for method in methods {
            match method {
                Method::Password => {
                    policy.credentials =
                        Credentials::parse(&format!("ann:{keys}\nIX:{keys}")).unwrap().into();
                }
                Method::Jwt => policy.tokens = Some(TokenRules::default().into()),
                Method::Http => policy.http = Some(HttpRules::default().into()),
                Method::Certificate | Method::Anonymous => {}
            }
        }
        policy
    }

    fn presented<'a>(user: Option<&'a str>, password: Option<&'a [u8]>) -> Presented<'a> {
        Presented { user, password, certificate_user: None, is_local: false }
    }

    /// In short what is decided.
    fn outcome(policy: &Policy, from: usize, presented: &Presented<'_>) -> String {
        match decide(policy, &policy.chain.0, from, presented) {
            Decision::Accepted(identity) => format!("accepted {}", identity.user),
            Decision::Anonymous => "anonymous".to_owned(),
            Decision::Refused(Denied::Unproven) => "unproven".to_owned(),
            Decision::Refused(Denied::WrongCredentials) => "wrong".to_owned(),
            Decision::Check { task: Task::Password { user, exists, .. }, next } => {
                format!("password {user} {exists} {next}")
            }
            Decision::Check { task: Task::Token(_), next } => format!("token {next}"),
            Decision::Check { task: Task::Http(_), next } => format!("http {next}"),
        }
    }

    #[test]
    fn methods_are_tried_in_order() {
        use Method::*;
        let long = [b'x'; PASSWORD_BYTES_MAX + 1];
        let name = "x".repeat(USER_NAME_BYTES_MAX + 1);
        for (methods, user, password, expected) in [
            (&[Password, Anonymous][..], Some("ann"), Some(&b"x"[..]), "password ann true 1"),
            (&[Password, Anonymous], Some("\u{2168}"), Some(b"x"), "password IX true 1"),
            (&[Password, Anonymous], Some("eve"), Some(b"x"), "password eve false 1"),
            (&[Password, Anonymous], Some("eve"), Some(TOKEN), "password eve false 1"),
            (&[Password, Anonymous], Some("ann"), Some(&long), "wrong"),
            (&[Password, Anonymous], Some(&name), Some(b"x"), "wrong"),
            (&[Password, Anonymous], Some("ann"), None, "wrong"),
            (&[Password, Anonymous], None, Some(b"x"), "wrong"),
            (&[Password, Anonymous], None, None, "anonymous"),
            (&[Password], None, None, "unproven"),
            (&[Password, Jwt], Some("ann"), Some(TOKEN), "password ann true 1"),
            (&[Password, Jwt], Some("eve"), Some(TOKEN), "token 2"),
            (&[Password, Jwt], Some("eve"), Some(b"x"), "password eve false 1"),
            (&[Jwt, Password], Some("ann"), Some(TOKEN), "token 1"),
            (&[Jwt, Password], Some("ann"), Some(b"x"), "password ann true 2"),
            (&[Jwt], None, Some(TOKEN), "token 1"),
            (&[Jwt], None, Some(b"a.b"), "wrong"),
            (&[Password, Http], Some("eve"), Some(b"x"), "http 2"),
            (&[Password, Http], Some("ann"), Some(b"x"), "password ann true 1"),
            (&[Http], Some("ann"), None, "http 1"),
            (&[Http], None, None, "unproven"),
            (&[Certificate, Anonymous], Some("ann"), Some(b"x"), "anonymous"),
            (&[Certificate], Some("ann"), Some(b"x"), "unproven"),
        ] {
            let outcome = outcome(&policy(methods), 0, &presented(user, password));
            assert_eq!(outcome, expected, "{methods:?} {user:?}");
        }
    }

    #[test]
    fn the_chain_goes_on_where_it_stopped() {
        let policy = policy(&[Method::Http, Method::Password, Method::Anonymous]);
        let presented = presented(Some("eve"), Some(b"x"));
        assert_eq!(outcome(&policy, 0, &presented), "http 1");
        assert_eq!(outcome(&policy, 1, &presented), "password eve false 2");
        assert_eq!(outcome(&policy, 2, &presented), "wrong");
        assert_eq!(outcome(&policy, 3, &presented), "wrong");
    }

    #[test]
    fn a_certificate_counts_before_what_is_said() {
        let policy = policy(&Method::ALL);
        let mut presented = presented(Some("ann"), Some(b"x"));
        presented.certificate_user = Some("bob");
        assert_eq!(outcome(&policy, 0, &presented), "accepted bob");
    }

    #[test]
    fn who_is_nobody_is_who_the_policy_lets_in() {
        let mut policy = policy(&[Method::Anonymous]);
        let local = |is_local| Presented { is_local, ..presented(Some("x"), Some(b"y")) };
        for (anonymous, far, near) in [
            (AnonymousPolicy::Everywhere, "anonymous", "anonymous"),
            (AnonymousPolicy::LoopbackOnly, "unproven", "anonymous"),
            (AnonymousPolicy::Nowhere, "unproven", "unproven"),
        ] {
            policy.anonymous = anonymous;
            let outcomes = [false, true].map(|is_local| outcome(&policy, 0, &local(is_local)));
            assert_eq!(outcomes, [far, near]);
        }
    }
}
