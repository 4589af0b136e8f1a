//! The data directory: who may use it, which logs in it hold, and what they amount to at the start.
//!
//! Runs before the shards on the main thread and a few of its own; from then on the logs belong to the
//! shards' disks (`shard/disk.rs`). Knows nothing of clients; what records mean is `storage`'s to say.
//!
//! In it are `lock`, which says whose it is; `meta`; and `log-GENERATION`, the logs of all shards. If they are
//! written anew, it is as another generation, and `meta` says when that takes the place of the other. So a
//! crash leaves one of them whole at any moment.

mod between;
mod error;
mod meta;
mod progress;
mod recover;
mod repair;
mod reshard;
mod rewrite;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tracing::info;

pub use self::error::DataDirError;
pub use self::recover::Layout;
pub use self::repair::{Loss, Plan};
pub use self::reshard::{NewLogs, Put, Resharding};
use self::{
    error::At,
    meta::{META, META_NEW, Meta, MetaError},
};
use crate::shard::sync_directory;

/// A data directory that is ours as long as this value is there.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    meta: Meta,
    /// Locked.
    _lock: File,
}

impl DataDir {
    /// Opens it for one broker alone, and makes it if it is missing or empty, for so many shards and with
    /// this seed. Removes what an interrupted change has left over.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(path: &Path, shards: u16, seed: u64) -> Result<Self, DataDirError> {
        create_directory(path)?;
        check_owner(path)?;
        // Before anything is put there; and again when nobody else can do so any more.
        check_content(path)?;
        let lock = lock(path)?;
        let meta = if check_content(path)? {
            let meta = Meta { seed, shards, generation: 1 };
            create_generation(path, meta.generation)?;
            meta.write(path).at(&path.join(META))?;
            meta
        } else {
            read_meta(path)?
        };
        let directory = Self { path: path.to_owned(), meta, _lock: lock };
        directory.remove_left_overs()?;
        Ok(directory)
    }

    /// Opens it to look at it, together with others who do, and changes nothing in it.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open_to_read(path: &Path) -> Result<Self, DataDirError> {
        if check_content(path)? {
            return Err(DataDirError::Empty(path.to_owned()));
        }
        let lock_path = path.join(LOCK);
        let lock = File::open(&lock_path).at(&lock_path)?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &lock)),
            Err(TryLockError::Error(error)) => return Err(error).at(&lock_path),
        }
        Ok(Self { path: path.to_owned(), meta: read_meta(path)?, _lock: lock })
    }

    /// Opens one that is there, for one process alone.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open_existing(path: &Path) -> Result<Self, DataDirError> {
        if check_content(path)? {
            return Err(DataDirError::Empty(path.to_owned()));
        }
        check_owner(path)?;
        let lock = lock(path)?;
        Ok(Self { path: path.to_owned(), meta: read_meta(path)?, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Grows whenever all logs are written anew.
    pub const fn generation(&self) -> u64 {
        self.meta.generation
    }

    /// Says which shard a client or topic lives on.
    pub const fn seed(&self) -> u64 {
        self.meta.seed
    }

    /// How many shards its logs are for.
    pub const fn shards(&self) -> u16 {
        self.meta.shards
    }

    /// The directory of the logs that hold.
    pub fn log_directory(&self) -> PathBuf {
        generation_path(&self.path, self.meta.generation)
    }

    fn remove_left_overs(&self) -> Result<(), DataDirError> {
        let mut is_changed = false;
        for entry in fs::read_dir(&self.path).at(&self.path)? {
            let entry = entry.at(&self.path)?;
            let name = entry.file_name();
            let generation = name.to_str().and_then(parse_generation);
            if generation.is_some_and(|generation| generation != self.meta.generation) {
                info!(
                    "{}: removed: a change of the logs had not come to its end",
                    entry.path().display()
                );
                fs::remove_dir_all(entry.path()).at(&entry.path())?;
                is_changed = true;
            }
        }
        if is_changed { sync_directory(&self.path).at(&self.path) } else { Ok(()) }
    }
}

fn create_directory(path: &Path) -> Result<(), DataDirError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(DataDirError::NotADirectory(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(DataDirError::Create { path: path.to_owned(), error }),
    }
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|error| DataDirError::Create { path: path.to_owned(), error })?;
    info!("{}: created", path.display());
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // It need not be readable for us.
        Some(parent) => sync_directory(parent).or(Ok(())),
        None => sync_directory(Path::new(".")).at(Path::new(".")),
    }
}

/// What another user has put there could not be replaced, and what we put there not be used by them.
fn check_owner(path: &Path) -> Result<(), DataDirError> {
    let owner = fs::metadata(path).at(path)?.uid();
    let process = fs::metadata("/proc/self").at(Path::new("/proc/self"))?.uid();
    if owner == process {
        return Ok(());
    }
    Err(DataDirError::OtherOwner { path: path.to_owned(), owner, process })
}

/// Whether nothing is there yet; refuses a directory that holds something else.
fn check_content(path: &Path) -> Result<bool, DataDirError> {
    if path.join(META).try_exists().at(path)? {
        return Ok(false);
    }
    let mut has_logs = None;
    for entry in fs::read_dir(path).at(path)? {
        let name = entry.at(path)?.file_name();
        match name.to_str() {
            // File systems have the last in their topmost directory.
            Some(LOCK | META_NEW | "lost+found") => {}
            Some(name) if parse_generation(name).is_some() => has_logs = Some(name.to_owned()),
            _ => {
                let name = name.to_string_lossy().into_owned();
                return Err(DataDirError::Foreign { path: path.to_owned(), name });
            }
        }
    }
    // The first generation's directory is made before `meta`, and nothing in it before that is there.
    let is_used =
        |name: &String| fs::read_dir(path.join(name)).is_ok_and(|mut all| all.next().is_some());
    match has_logs.filter(is_used) {
        Some(_) => Err(DataDirError::MetaMissing(path.to_owned())),
        None => Ok(true),
    }
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let lock_path = path.join(LOCK);
    let mut options = OpenOptions::new();
    let opened =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
    let mut file =
        opened.map_err(|error| DataDirError::NotWritable { path: path.to_owned(), error })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(path, &file)),
        Err(TryLockError::Error(error)) => return Err(error).at(&lock_path),
    }
    // For those who find it locked.
    file.set_len(0).at(&lock_path)?;
    writeln!(file, "{}", std::process::id()).at(&lock_path)?;
    Ok(file)
}

/// Who has it, as far as that can be known: one who only reads says nothing.
fn in_use(path: &Path, lock: &File) -> DataDirError {
    let mut text = String::new();
    let _ = lock.take(PID_BYTES_MAX).read_to_string(&mut text);
    let pid: Option<u32> = text.trim().parse().ok();
    let process = pid.filter(|pid| Path::new(&format!("/proc/{pid}")).exists());
    DataDirError::InUse { path: path.to_owned(), process }
}

fn read_meta(path: &Path) -> Result<Meta, DataDirError> {
    let file = path.join(META);
    let bytes = fs::read(&file).at(&file)?;
    match Meta::parse(&String::from_utf8_lossy(&bytes)) {
        Ok(meta) => Ok(meta),
        Err(MetaError::Newer(version)) => Err(DataDirError::Newer { path: file, version }),
        Err(MetaError::Damaged) => Err(DataDirError::MetaDamaged(file)),
    }
}

fn create_generation(path: &Path, generation: u64) -> Result<PathBuf, DataDirError> {
    let directory = generation_path(path, generation);
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created.at(&directory)?,
    }
    sync_directory(path).at(path)?;
    Ok(directory)
}

fn generation_path(path: &Path, generation: u64) -> PathBuf {
    path.join(format!("{LOG_PREFIX}{generation:06}"))
}

fn parse_generation(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(LOG_PREFIX)?;
    let is_number = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

const LOCK: &str = "lock";
const LOG_PREFIX: &str = "log-";
/// More than any process's number has.
const PID_BYTES_MAX: u64 = 20;

#[cfg(test)]
mod tests;
