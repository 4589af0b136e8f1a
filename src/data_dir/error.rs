//! What can be wrong with a data directory, in words an operator can act on.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::storage::Damage;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// There is something else in its place.
    #[error("{}: is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// It is missing, and cannot be made.
    #[error(
        "{}: the data directory cannot be created: {error}; choose another with --data-dir DIR, or keep \
         nothing on disk with --ephemeral",
        path.display()
    )]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Files in it would belong to two users.
    #[error(
        "{}: belongs to user {owner}, but this process to user {process}: run it as that user, or choose \
         another directory with --data-dir DIR",
        path.display()
    )]
    OtherOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner's id.
        owner: u32,
        /// Ours.
        process: u32,
    },
    /// Nothing can be put into it.
    #[error(
        "{}: cannot be written to: {error}; choose another directory with --data-dir DIR, or keep \
         nothing on disk with --ephemeral",
        path.display()
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is somebody else's.
    #[error(
        "{}: holds {name:?}, and so is no data directory of ringmq; choose another with --data-dir DIR",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What is in it.
        name: String,
    },
    /// Nothing to look at.
    #[error("{}: is no data directory: nothing is in it", .0.display())]
    Empty(PathBuf),
    /// Another process has it.
    #[error("{}: is in use by {}", path.display(), user(*process))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Which process.
        process: Option<u32>,
    },
    /// A later version of the broker has written it.
    #[error("{}: has format {version}, which this version of ringmq does not know", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format's version.
        version: u64,
    },
    /// There are logs, but it is not known for how many shards.
    #[error(
        "{}: the file \"meta\" is missing, without which the logs there mean nothing: restore it from a \
         backup of the directory",
        .0.display()
    )]
    MetaMissing(PathBuf),
    /// The same.
    #[error(
        "{}: is damaged, and the logs mean nothing without it: restore it from a backup of the \
         directory",
        .0.display()
    )]
    MetaDamaged(PathBuf),
    /// What was committed cannot be read.
    #[error(
        "{}: damaged at byte {}: {}; what was kept there was acknowledged. `ringmq repair {}` tells \
         what would be lost by going on without it",
        file.display(), damage.at.offset, damage.why, directory.display()
    )]
    Damaged {
        /// The data directory.
        directory: PathBuf,
        /// The segment's file.
        file: PathBuf,
        /// Where, and what is wrong there.
        damage: Damage,
    },
    /// What remains of a damaged log is no log.
    #[error("{}: cannot be repaired: {damage}; restore {} from a backup", file.display(), directory.display())]
    BeyondRepair {
        /// The data directory.
        directory: PathBuf,
        /// The segment's file.
        file: PathBuf,
        /// Where, and what is wrong there.
        damage: Damage,
    },
    /// The disk's, or a permission.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Which file an error is about.
pub(super) trait At<T> {
    fn at(self, path: &Path) -> Result<T, DataDirError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, DataDirError> {
        self.map_err(|error| DataDirError::File { path: path.to_owned(), error })
    }
}

fn user(process: Option<u32>) -> String {
    match process {
        Some(process) => format!("process {process}, another ringmq"),
        None => "another process".to_owned(),
    }
}
