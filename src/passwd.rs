//! `ringmq passwd`: sets or deletes a user's password in a password file.
//!
//! Owns the terminal and the file, which others read at any time and so see
//! either the old one or the new one; knows of the file's form only where a
//! line's user stands.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    auth::{
        password::{self, Checker},
        scram,
    },
    base::limits::PASSWORD_BYTES_MAX,
    config::{
        Credentials, LineError, UserNameError, prepare_user_name, read_password_file, user_of_line,
    },
    shard::sys,
};

/// Why a password file was not changed.
#[derive(Debug, Error)]
pub enum PasswdError {
    /// Not a name that a user can have.
    #[error("{0}")]
    UserName(#[from] UserNameError),
    /// The password is not acceptable.
    #[error("{0}")]
    Password(&'static str),
    /// Nothing to delete.
    #[error("{}: there is no user {user:?}", path.display())]
    NoUser {
        /// The file.
        path: PathBuf,
        /// Who is not in it.
        user: String,
    },
    /// The file as it is would not be taken by the broker.
    #[error("{}:{line}: {error}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        error: LineError,
    },
    /// The new file is in the making.
    #[error(
        "{} exists: another `ringmq passwd` is at work, or was killed; in that case delete it",
        .0.display()
    )]
    Busy(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No password, or no salt for it.
    #[error("{0}")]
    Input(#[from] io::Error),
    /// mosquitto_passwd takes that.
    #[error(
        "a password on the command line can be read by everybody on this machine: give it as one line of \
         standard input, or in a file with --from"
    )]
    OnCommandLine,
}

/// What is to become of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new password: asked for on the terminal or, if standard input is none, read from there as one line.
    Set,
    /// A new password: the line of this file.
    SetFrom(PathBuf),
    /// No user any more.
    Delete,
    /// Somebody has written the password where it can be seen; nothing is done.
    Shown,
}

/// Sets the password of a user, or deletes the user. Returns what was done.
///
/// # Errors
/// [`PasswdError`]; the file is as it was then.
pub fn run(path: &Path, user: &str, change: &Change) -> Result<String, PasswdError> {
    let credentials = read(path)?.1;
    // mosquitto's files may have names that cannot be added here.
    let is_odd = *change == Change::Delete && credentials.contains(user);
    let user = if is_odd { user.into() } else { prepare_user_name(user)? };
    // Before anybody types a password for nothing.
    let had_user = credentials.contains(&user);
    let password = match change {
        Change::Shown => return Err(PasswdError::OnCommandLine),
        Change::Delete => None,
        Change::Set => Some(asked_for()?),
        Change::SetFrom(from) => {
            let failed = |error| PasswdError::File { path: from.clone(), error };
            Some(line_of(File::open(from).map_err(failed)?)?)
        }
    };
    if password.is_none() && !had_user {
        return Err(PasswdError::NoUser { path: path.to_owned(), user: user.into_owned() });
    }
    let line = match password {
        Some(password) => Some(format!("{user}:{}", keys(&password)?)),
        None => None,
    };
    replace(path, &user, line.as_deref())?;
    let done = match (change, had_user) {
        (Change::Delete, _) => "deleted",
        (_, true) => "changed",
        (_, false) => "added",
    };
    Ok(format!("{}: user {user:?} {done}; a broker takes it up at its start", path.display()))
}

/// The file's text, and who is in it; nobody if there is none.
fn read(path: &Path) -> Result<(String, Credentials), PasswdError> {
    let text = match read_password_file(path) {
        Ok((text, _)) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(PasswdError::File { path: path.to_owned(), error }),
    };
    match Credentials::parse(&text) {
        Ok(credentials) => Ok((text, credentials)),
        Err(mut errors) => {
            let (line, error) = errors.swap_remove(0);
            Err(PasswdError::Line { path: path.to_owned(), line, error })
        }
    }
}

/// What the file keeps of a password: a hash for clients that send it, keys for those that use SCRAM.
fn keys(password: &str) -> Result<String, PasswdError> {
    let salts: ([u8; scram::SALT_BYTES], [u8; password::SALT_BYTES]) =
        (sys::random()?, sys::random()?);
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswdError::Password("the password is too long"));
    }
    let verifier = scram::verifier(password, &salts.0, scram::ITERATIONS);
    let why = "the password is empty or holds control or other forbidden characters";
    let verifier = verifier.ok_or(PasswdError::Password(why))?;
    let hash = Checker::default().hash(password.as_bytes(), salts.1);
    Ok(format!("{hash} {verifier}"))
}

fn asked_for() -> Result<String, PasswdError> {
    if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        if password != rpassword::prompt_password("The same again: ")? {
            return Err(PasswdError::Password("these were two different passwords"));
        }
        return Ok(password);
    }
    line_of(io::stdin().lock())
}

fn line_of(input: impl Read) -> Result<String, PasswdError> {
    let mut bytes = Vec::new();
    // With room for the end of the line, and for one byte too many.
    input.take(PASSWORD_BYTES_MAX as u64 + 3).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).ok();
    let text = text.ok_or(PasswdError::Password("the password is not valid UTF-8"))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.contains('\n') {
        return Err(PasswdError::Password("there is more than the line of a password"));
    }
    Ok(password.to_owned())
}

/// Puts `line` in the place of the user's, or takes that out.
fn replace(path: &Path, user: &str, line: Option<&str>) -> Result<(), PasswdError> {
    // A link stays one; what it leads to is replaced.
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        found => found.map_err(|error| PasswdError::File { path: path.to_owned(), error })?,
    };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new_path = PathBuf::from(name);
    let failed = |error| PasswdError::File { path: new_path.clone(), error };
    let new = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new_path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(PasswdError::Busy(new_path));
        }
        opened => opened.map_err(failed)?,
    };
    // Read only now that nobody else changes it.
    let outcome = read(&path).and_then(|(text, _)| {
        let text = edited(&text, user, line);
        write(&new, &path, &text).and_then(|()| fs::rename(&new_path, &path)).map_err(failed)
    });
    match outcome {
        Ok(()) => sync_directory(&path),
        Err(error) => {
            // What is left of it is told by the next run.
            let _ = fs::remove_file(&new_path);
            Err(error)
        }
    }
}

/// The text with another line of the user; all else stays, comments too.
fn edited(text: &str, user: &str, line: Option<&str>) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    match (lines.iter().position(|old| user_of_line(old) == Some(user)), line) {
        (Some(at), Some(line)) => lines[at] = line,
        (Some(at), None) => _ = lines.remove(at),
        (None, Some(line)) => lines.push(line),
        (None, None) => {}
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Writes the new file, to belong to whom the old one did.
fn write(mut new: &File, old: &Path, text: &str) -> io::Result<()> {
    match fs::metadata(old) {
        Ok(old) => {
            let own = new.metadata()?;
            if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                fchown(new, Some(old.uid()), Some(old.gid()))?;
            }
            new.set_permissions(old.permissions())?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    new.write_all(text.as_bytes())?;
    new.sync_all()
}

/// Makes the new name last.
fn sync_directory(path: &Path) -> Result<(), PasswdError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| PasswdError::File { path: directory.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_changes_one_line() {
        let text = "# all\nann:1\n\n#bob:0\nbob:2\ncid:3";
        for (user, line, expected) in [
            ("bob", Some("bob:9"), "# all\nann:1\n\n#bob:0\nbob:9\ncid:3\n"),
            ("bob", None, "# all\nann:1\n\n#bob:0\ncid:3\n"),
            ("cid", None, "# all\nann:1\n\n#bob:0\nbob:2\n"),
            ("dan", Some("dan:4"), "# all\nann:1\n\n#bob:0\nbob:2\ncid:3\ndan:4\n"),
            ("dan", None, "# all\nann:1\n\n#bob:0\nbob:2\ncid:3\n"),
        ] {
            assert_eq!(edited(text, user, line), expected, "{user} {line:?}");
        }
        assert_eq!(edited("", "ann", Some("ann:1")), "ann:1\n");
    }
}
