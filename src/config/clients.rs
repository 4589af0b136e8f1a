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
    check_chain(&policy)?;
    if anonymous == AnonymousPolicy::LoopbackOnly
        && policy.chain().contains(&Method::Anonymous)
        && !policy.checks_credentials()
    {
        refuse_open_addresses(listen)?;
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

/// A method that somebody has named and nothing is there for is a mistake.
fn check_chain(policy: &Policy) -> Result<(), Vec<Problem>> {
    if policy.chain == Chain::default() {
        return Ok(());
    }
    let origin = || Origin::new("configuration", None);
    let problem = |fault| vec![Problem::new(origin(), "auth.chain", fault)];
    for method in policy.chain() {
        // Users may be added later to a password file that is empty.
        if !policy.knows(*method) && *method != Method::Password {
            return Err(problem(Fault::MethodUnknown { method: method.name() }));
        }
    }
    let unused = Method::ALL.into_iter().find(|method| {
        let is_set_up = matches!(method, Method::Password | Method::Jwt | Method::Http);
        is_set_up && policy.knows(*method) && !policy.chain().contains(method)
    });
    match unused {
        Some(method) => Err(problem(Fault::MethodUnused { method: method.name() })),
        None => Ok(()),
    }
}

/// Without authentication, only this machine may be let in unless told otherwise.
fn refuse_open_addresses(listen: &[(Origin, Listener)]) -> Result<(), Vec<Problem>> {
    let problems: Vec<_> = listen
        .iter()
        .filter(|(_, listener)| !listener.proves_users())
        .filter_map(|(origin, Listener { address: listen, .. })| {
            let open = listen.addresses.iter().find(|a| !a.ip().to_canonical().is_loopback())?;
            let fault = Fault::OpenToAll { text: listen.text.clone(), address: *open };
            Some(Problem::new(origin.clone(), "listen", fault))
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
