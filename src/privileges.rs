//! What the process may do: it becomes another user at the start if the configuration says so, and gives up what
//! it has of root's power once its ports are bound.
//!
//! Runs on the main thread before any shard. Knows no configuration but a user's name and the data directory.

use std::{fs, io, os::unix::fs::chown, path::Path};

use nix::unistd::{User, initgroups, setgid, setuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities,
    set_no_new_privs,
};
use thiserror::Error;

/// Why the process cannot be that of another user.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// There is no such user.
    #[error("user = {0:?}: this machine has no user of that name")]
    NoUser(String),
    /// Only root can become somebody else.
    #[error(
        "user = {wanted:?}, but the process is not root's: start it as root, or as {wanted} and without `user`"
    )]
    NotRoot {
        /// Who it was to be.
        wanted: String,
    },
    /// The data directory could not be made for the user.
    #[error("cannot create {path} for the user {user}: {source}")]
    DataDir {
        /// The directory.
        path: String,
        /// Whose it was to be.
        user: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot become the user {user}: {source}")]
    Refused {
        /// Who it was to be.
        user: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes all threads of the process those of another user, in the groups of that user. Only this thread keeps, until
/// [`give_up`], the right to bind ports below 1024. A data directory that is missing is made before, and is the user's.
///
/// # Errors
/// See [`PrivilegeError`]. Nothing is done if there is no such user or the process is not root's; a user that the
/// process is of already needs nothing.
pub fn become_user(name: &str, data_dir: Option<&Path>) -> Result<(), PrivilegeError> {
    let user = name.to_owned();
    let refused = |source: io::Error| PrivilegeError::Refused { user: user.clone(), source };
    let found = User::from_name(name).map_err(|errno| refused(errno.into()))?;
    let found = found.ok_or_else(|| PrivilegeError::NoUser(user.clone()))?;
    let current = nix::unistd::geteuid();
    if current == found.uid {
        return Ok(());
    }
    if !current.is_root() {
        return Err(PrivilegeError::NotRoot { wanted: user });
    }
    if let Some(path) = data_dir.filter(|path| !path.exists()) {
        let made = fs::create_dir_all(path)
            .and_then(|()| chown(path, Some(found.uid.as_raw()), Some(found.gid.as_raw())));
        made.map_err(|source| PrivilegeError::DataDir {
            path: path.display().to_string(),
            user: user.clone(),
            source,
        })?;
    }
    change(&found).map_err(refused)
}

fn change(user: &User) -> io::Result<()> {
    let name = std::ffi::CString::new(user.name.as_bytes())?;
    set_keep_capabilities(true)?;
    initgroups(&name, user.gid)?;
    setgid(user.gid)?;
    setuid(user.uid)?;
    set_keep_capabilities(false)?;
    let may_bind = CapabilitySet::NET_BIND_SERVICE & capabilities(None)?.permitted;
    hold(may_bind)
}

/// Gives up what the process may beyond its user's rights, for good: its ports are bound. Root stays root, who was
/// not told to be anybody else.
///
/// # Errors
/// What the kernel says.
pub(crate) fn give_up() -> io::Result<()> {
    if is_root() {
        return Ok(());
    }
    set_no_new_privs(true)?;
    hold(CapabilitySet::empty())
}

/// Whether the process is root's.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Keeps these capabilities of those that this thread has.
fn hold(kept: CapabilitySet) -> io::Result<()> {
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
