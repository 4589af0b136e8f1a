//! The files of TLS listeners: read at start, and again when they change or SIGHUP asks for it.
//!
//! Runs on the main thread. What is wrong with new files is logged and changes nothing: listeners go on with what
//! they have. Knows no connection and nothing of what is in the files.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

use tracing::{error, info};

use crate::{
    base::limits::PEM_FILE_BYTES_MAX,
    config::{self, Config},
    listener::{TlsAcceptor, TlsFault},
};

/// What the TLS listeners are made from.
#[derive(Default)]
pub struct Certificates {
    listeners: Vec<Watched>,
}

struct Watched {
    name: String,
    acceptor: Arc<TlsAcceptor>,
    /// Of its files, as they were looked at last.
    stamps: Vec<Stamp>,
}

/// What tells one state of a file from another: device, inode, length and times; none if it cannot be looked at.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl Certificates {
    /// Reads the files of all listeners, to tell what is wrong with them.
    ///
    /// # Errors
    /// See [`TlsFault`].
    pub fn check(config: &Config) -> Result<(), TlsFault> {
        let mut all = Self::default();
        config.listen.iter().try_for_each(|listener| all.open(listener).map(drop))
    }

    /// What TLS connections of the listener are made with, if it speaks TLS.
    pub(crate) fn open(
        &mut self,
        listener: &config::Listener,
    ) -> Result<Option<Arc<TlsAcceptor>>, TlsFault> {
        let Some(settings) = &listener.tls else { return Ok(None) };
        let stamps = settings.files().map(stamp).collect();
        let acceptor = Arc::new(TlsAcceptor::new(settings, &read)?);
        let name = listener.to_string();
        self.listeners.push(Watched { name, acceptor: acceptor.clone(), stamps });
        Ok(Some(acceptor))
    }

    /// Whether there are no files to look at.
    pub(crate) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Reads the files of all listeners again.
    pub(crate) fn reload(&mut self) {
        self.listeners.iter_mut().for_each(Watched::reload);
    }

    /// Reads those again that have changed.
    pub(crate) fn reload_changed(&mut self) {
        for listener in &mut self.listeners {
            if listener.acceptor.files().map(stamp).ne(listener.stamps.iter().copied()) {
                listener.reload();
            }
        }
    }
}

impl Watched {
    fn reload(&mut self) {
        // Before they are read: what changes meanwhile is seen the next time.
        self.stamps = self.acceptor.files().map(stamp).collect();
        let listener = &self.name;
        match self.acceptor.reload(&read) {
            Ok(()) => info!(listener, "certificates are read again; connected clients stay"),
            Err(fault) => error!(listener, "{fault}; the certificates before stay in use"),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(PEM_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > PEM_FILE_BYTES_MAX {
        true => Err(io::Error::other(format!("it is larger than {PEM_FILE_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}
