//! Who may connect and what they may do, as far as several keys say it together: the files that they name,
//! and the chain of methods that follows from them.

use std::{path::Path, sync::Arc};

use super::{
    AclError, AclRules, AnonymousPolicy, AuthSettings, Chain, Credentials, KeySet, Listener,
    Machine, Method, Policy,
    problem::{Fault, Origin, Problem},
};

/// The users, and whether everybody on this machine can read the file.
fn load_passwords(path: &Path, machine: &Machine) -> Result<(Credentials, bool), Vec<Problem>> {
    let problem = |line, fault| {
        Problem::new(Origin::new(&path.to_string_lossy(), line), "password_file", fault)
    };
    let unreadable =
        |error: std::io::Error| vec![problem(None, Fault::UnreadablePasswords(error.to_string()))];
    let (text, is_open_to_all) = (machine.read_file)(path).map_err(unreadable)?;
    match Credentials::parse(&text) {
        Ok(credentials) => Ok((credentials, is_open_to_all)),
        Err(lines) => {
            let wrong = |(line, error)| problem(Some(line), Fault::PasswordLine(error));
            Err(lines.into_iter().map(wrong).collect())
        }
    }
}

/// The access rules of a file.
pub(super) fn load_acl(
    path: &Path,
    allows_rest: bool,
    machine: &Machine,
) -> Result<AclRules, Vec<Problem>> {
    let label = path.to_string_lossy();
    let text = (machine.read_acl)(path).map_err(|error| {
        let fault = Fault::UnreadableAcl(error.to_string());
        vec![Problem::new(Origin::new(&label, None), "acl_file", fault)]
    })?;
    AclRules::parse(path, &text, allows_rest).map_err(|errors| {
        let problem = |AclError { line, column, why }| {
            Problem::new(Origin::at(&label, line, column), "acl_file", Fault::AclLine(why))
        };
        errors.into_iter().map(problem).collect()
    })
}

/// How clients are authenticated, and whether everybody on this machine can read the password file.
pub(super) fn check_auth(
    anonymous: AnonymousPolicy,
    password_file: Option<&Path>,
    settings: AuthSettings,
    listen: &[(Origin, Listener)],
    machine: &Machine,
) -> Result<(Policy, bool), Vec<Problem>> {
    let load = |path| load_passwords(path, machine);
    let (credentials, is_open_to_all) =
        password_file.map_or_else(|| Ok(Default::default()), load)?;
    let AuthSettings { chain, mut tokens, keys_file, http } = settings;
    if let Some(path) = keys_file.as_deref() {
        tokens.keys.extend(load_keys(path, machine)?);
    }
    let policy = Policy {
        anonymous,
        chain: chain.unwrap_or_default(),
        credentials: Arc::new(credentials),
        tokens: (!tokens.keys.is_empty()).then(|| tokens.into()),
        http: (!http.url.is_empty()).then(|| http.into()),
        ..Policy::default()
    };
    check_chains(&policy, listen)?;
    if anonymous == AnonymousPolicy::LoopbackOnly {
        refuse_open_addresses(&policy, listen)?;
    }
    Ok((policy, is_open_to_all))
}

/// The keys that tokens are signed with.
fn load_keys(path: &Path, machine: &Machine) -> Result<KeySet, Vec<Problem>> {
    let problem = |fault| {
        let origin = Origin::new(&path.to_string_lossy(), None);
        vec![Problem::new(origin, "auth.jwt_keys_file", fault)]
    };
    let (text, _) = (machine.read_file)(path)
        .map_err(|error| problem(Fault::UnreadableKeys(error.to_string())))?;
    KeySet::parse(&text).map_err(|error| problem(Fault::KeySet(error)))
}

/// A method that somebody has named and nothing is there for is a mistake, and so are settings for one that is in
/// no chain.
fn check_chains(policy: &Policy, listen: &[(Origin, Listener)]) -> Result<(), Vec<Problem>> {
    let of_all = (policy.chain != Chain::default()).then(|| {
        let origin = Origin::new("configuration", None);
        (origin, "auth.chain".to_owned(), &policy.chain, true)
    });
    let own = listen.iter().filter_map(|(origin, listener)| {
        let name = format!("auth of listener {:?}", listener.address.text);
        Some((origin.clone(), name, listener.policy.chain.as_ref()?, listener.names_users()))
    });
    let named: Vec<_> = of_all.into_iter().chain(own).collect();
    for (origin, chain, methods, has_certificates) in &named {
        // Users may be added later to a password file that is empty.
        let is_known = |method: &&Method| match method {
            Method::Password => true,
            Method::Certificate => *has_certificates,
            _ => policy.knows(**method),
        };
        if let Some(method) = methods.0.iter().find(|method| !is_known(method)) {
            let fault = Fault::MethodUnknown { chain: chain.clone(), method: method.name() };
            return Err(vec![Problem::new(origin.clone(), "auth.chain", fault)]);
        }
    }
    let is_used = |method: Method| {
        policy.chain.0.contains(&method)
            || named.iter().any(|(_, _, chain, _)| chain.0.contains(&method))
    };
    let is_set_up = |method: &Method| {
        !matches!(method, Method::Certificate | Method::Anonymous) && policy.knows(*method)
    };
    let unused = Method::ALL.into_iter().filter(is_set_up).find(|method| !is_used(*method));
    match unused {
        Some(method) => {
            let fault = Fault::MethodUnused { method: method.name() };
            Err(vec![Problem::new(Origin::new("configuration", None), "auth.chain", fault)])
        }
        None => Ok(()),
    }
}

/// Without authentication, only this machine may be let in unless told otherwise.
fn refuse_open_addresses(
    policy: &Policy,
    listen: &[(Origin, Listener)],
) -> Result<(), Vec<Problem>> {
    let is_open = |listener: &Listener| {
        let chain = &listener.policy.chain.as_ref().unwrap_or(&policy.chain).0;
        let by_certificate = listener.proves_users() && chain.contains(&Method::Certificate);
        chain.contains(&Method::Anonymous) && !policy.checks_credentials(chain) && !by_certificate
    };
    let problems: Vec<_> = listen
        .iter()
        .filter(|(_, listener)| is_open(listener))
        .filter_map(|(origin, Listener { address: listen, .. })| {
            let open = listen.addresses.iter().find(|a| !a.ip().to_canonical().is_loopback())?;
            let fault = Fault::OpenToAll { text: listen.text.clone(), address: *open };
            Some(Problem::new(origin.clone(), "listen", fault))
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
