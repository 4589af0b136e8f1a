//! `ringmq import`: a configuration of mosquitto as one of ours, and each of its lines that has no counterpart.
//!
//! Knows the names of both; what ours mean and allow, `config` knows.

mod mosquitto;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use self::mosquitto::Import;
use crate::base::limits::CONFIG_FILE_BYTES_MAX;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Imported {
    /// The configuration, with the lines that have no counterpart as comments at its end.
    pub toml: String,
    /// Those lines: `FILE:LINE: TEXT: WHY`.
    pub left: Vec<String>,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct ImportError {
    path: PathBuf,
    source: io::Error,
}

/// Reads mosquitto's file, and those of its `include_dir`.
///
/// # Errors
/// A file or directory that cannot be read, or is no text of at most 1 MiB.
pub fn run(file: &Path) -> Result<Imported, ImportError> {
    let mut import = Import::default();
    read_into(&mut import, file, true)?;
    Ok(import.finish(file))
}

fn read_into(import: &mut Import, file: &Path, includes: bool) -> Result<(), ImportError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| ImportError { path, source }
    };
    let text = fs::File::open(file)
        .and_then(|opened| crate::config::read_text(opened, CONFIG_FILE_BYTES_MAX))
        .map_err(error(file))?;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        match name {
            "" => {}
            _ if name.starts_with('#') => {}
            "include_dir" if includes => {
                let directory = Path::new(value);
                let entries = fs::read_dir(directory).map_err(error(directory))?;
                let mut files: Vec<_> = entries.filter_map(|it| Some(it.ok()?.path())).collect();
                files.retain(|path| path.extension().is_some_and(|end| end == "conf"));
                files.sort_unstable();
                files.iter().try_for_each(|path| read_into(import, path, false))?;
            }
            _ => import.line(&format!("{}:{number}", file.display()), name, value),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
