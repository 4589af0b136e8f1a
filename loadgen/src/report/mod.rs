//! `report`: result files in, one page and one drawing per plot out.
//!
//! Owns reading and writing. What is compared with what is `group`'s to know, what speaks against it
//! `doubts`', what is drawn `plots`'. Everything in a file is untrusted: it was written elsewhere.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::result::{FORMAT, ResultFile};

use self::{
    group::{Results, Source},
    plots::Plot,
    svg::Heading,
};

mod doubts;
mod group;
mod markup;
mod merged;
mod page;
mod plots;
#[cfg(test)]
mod samples;
mod scale;
mod settings;
mod svg;
mod tables;
mod words;

/// Why there is no report. Nothing was written unless it says so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not JSON: {error}", path.display())]
    NotJson { path: PathBuf, error: serde_json::Error },
    #[error("{} is not a result of loadgen: it has no format", path.display())]
    NotOurs { path: PathBuf },
    #[error("{} has format {found:?}, this program reads {FORMAT:?}", path.display())]
    OtherFormat { path: PathBuf, found: String },
    #[error("{} is damaged: {error}", path.display())]
    Damaged { path: PathBuf, error: serde_json::Error },
    #[error("{} is one of the results: it would be lost", path.display())]
    Overwrites { path: PathBuf },
    /// Some may have been written before it.
    #[error("cannot write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
}

/// Reads `files` and writes a page to `html` and the drawings into the folder `svg_dir`, which is
/// made if need be. Returns the paths written.
pub(crate) fn write(
    files: &[PathBuf],
    html: Option<&Path>,
    svg_dir: Option<&Path>,
) -> Result<Vec<PathBuf>, ReportError> {
    let sources = files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let results = Results::new(&sources);
    let plots: Vec<Vec<Plot>> = results.sections.iter().map(plots::of_section).collect();
    let mut outputs = Vec::new();
    if let Some(path) = html {
        outputs.push((path.to_owned(), page::page(&results, &plots)));
    }
    if let Some(folder) = svg_dir {
        fs::create_dir_all(folder)
            .map_err(|error| ReportError::Write { path: folder.to_owned(), error })?;
        outputs.extend(drawings(&results, &plots, folder));
    }
    for (path, _) in &outputs {
        if files.iter().any(|file| is_same_file(file, path)) {
            return Err(ReportError::Overwrites { path: path.clone() });
        }
    }
    for (path, text) in &outputs {
        fs::write(path, text).map_err(|error| ReportError::Write { path: path.clone(), error })?;
    }
    Ok(outputs.into_iter().map(|(path, _)| path).collect())
}

fn drawings(results: &Results<'_>, plots: &[Vec<Plot>], folder: &Path) -> Vec<(PathBuf, String)> {
    let mut drawings = Vec::new();
    for (section, plots) in results.sections.iter().zip(plots) {
        for plot in plots {
            let load = format!("{}; {}", section.title, section.load);
            let heading = Heading { title: &plot.title, load: &load };
            let name = format!("{}-{}.svg", section.slug, plot.slug);
            drawings.push((folder.join(name), plot.picture.file(&heading)));
        }
    }
    drawings
}

fn read(path: &Path) -> Result<Source, ReportError> {
    let path_buf = || path.to_owned();
    let unreadable = |error| ReportError::Read { path: path_buf(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ReportError::TooLarge { path: path_buf() });
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    parse(path, &bytes).map(|file| Source { name, file })
}

fn parse(path: &Path, bytes: &[u8]) -> Result<ResultFile, ReportError> {
    let path_buf = || path.to_owned();
    let head: Head = serde_json::from_slice(bytes).map_err(|error| match error.is_data() {
        true => ReportError::NotOurs { path: path_buf() },
        false => ReportError::NotJson { path: path_buf(), error },
    })?;
    match head.format {
        None => Err(ReportError::NotOurs { path: path_buf() }),
        Some(found) if found != FORMAT => Err(ReportError::OtherFormat { path: path_buf(), found }),
        Some(_) => serde_json::from_slice(bytes)
            .map_err(|error| ReportError::Damaged { path: path_buf(), error }),
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// What every version of the form has.
#[derive(Deserialize)]
struct Head {
    format: Option<String>,
}

/// A day of runs is a hundredth of it.
const FILE_BYTES_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests;
