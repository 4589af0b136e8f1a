//! The architecture as a test: which module may import which, how large files
//! and functions may grow, what each file must open with, and that the code map
//! in `src/README.md` names what is there. Sizes and headers hold for the load
//! generator, the benches and the fuzz targets too.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Modules in layer order. A module imports from those before it and from itself.
const LAYERS: [&str; 25] = [
    "base",
    "topic",
    "config",
    "codec",
    "message",
    "auth",
    "listener",
    "storage",
    "session",
    "broker",
    "shard",
    "data_dir",
    "certificates",
    "privileges",
    "server",
    "logging",
    "memory_there_is",
    "preflight",
    "passwd",
    "explain",
    "import",
    "inspect",
    "repair",
    "cli",
    "main",
];

/// Where glommio, sockets and the clock may appear: the shell.
const SHELL: [&str; 13] = [
    "shard",
    "data_dir",
    "certificates",
    "privileges",
    "server",
    "logging",
    "memory_there_is",
    "preflight",
    "passwd",
    "import",
    "inspect",
    "repair",
    "main",
];

/// What only the shell may name, and why.
const SHELL_ONLY: [(&str, &str); 6] = [
    ("glommio", "the executor belongs to the shell"),
    ("io_uring", "the ring belongs to the shell"),
    ("std::fs", "files belong to the shell"),
    ("Instant::now", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("thread::spawn", "threads belong to the shell"),
];

/// Files that may hold `unsafe`, each block with its argument.
const UNSAFE_FILES: [&str; 5] = [
    "shard/ring.rs",
    "shard/buffers.rs",
    "shard/sys.rs",
    "preflight.rs",
    "tests/fuzz/src/memory.rs",
];

const FILE_LINES_MAX: usize = 550;
const FUNCTION_LINES_MAX: usize = 80;

#[test]
fn modules_import_only_from_lower_layers() {
    let mut offences = Vec::new();
    for file in sources() {
        let Some(own) = layer(&file.module) else {
            offences.push(format!("{}: module is in no layer", file.name));
            continue;
        };
        for (number, line) in file.code() {
            for used in imported_modules(line) {
                if layer(&used).is_some_and(|used| used > own) {
                    offences.push(format!("{}:{number}: imports {used}", file.name));
                }
            }
        }
    }
    assert_none(&offences);
}

#[test]
fn only_the_shell_acts() {
    let mut offences = Vec::new();
    for file in sources().iter().filter(|file| !SHELL.contains(&file.module.as_str())) {
        let is_config = file.module == "config";
        for (number, line) in file.code() {
            for (banned, why) in SHELL_ONLY {
                // Reading the configuration is input, before any shard runs.
                let allowed = is_config && banned == "std::fs";
                if line.contains(banned) && !allowed {
                    offences.push(format!("{}:{number}: {banned}: {why}", file.name));
                }
            }
        }
    }
    assert_none(&offences);
}

#[test]
fn unsafe_stays_in_its_files() {
    let mut offences = Vec::new();
    for file in all_sources().iter().filter(|file| !UNSAFE_FILES.contains(&file.name.as_str())) {
        for (number, line) in file.code() {
            // Not `unsafe-inline`, which is a word of HTML.
            if ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| line.contains(word)) {
                offences.push(format!("{}:{number}: unsafe", file.name));
            }
        }
    }
    assert_none(&offences);
}

#[test]
fn files_open_with_what_they_are_for_and_stay_small() {
    let mut offences = Vec::new();
    for file in all_sources() {
        if !file.text.starts_with("//!") {
            offences.push(format!("{}: does not open with //!", file.name));
        }
        let lines = file.code().count();
        if lines > FILE_LINES_MAX {
            offences.push(format!("{}: {lines} lines before its tests", file.name));
        }
    }
    assert_none(&offences);
}

#[test]
fn functions_stay_small() {
    let mut offences = Vec::new();
    for file in all_sources() {
        let mut start: Option<(usize, usize, &str)> = None;
        for (number, line) in file.code() {
            let indent = line.len() - line.trim_start().len();
            if let Some((from, at_indent, signature)) = start
                && indent == at_indent
                && line.trim() == "}"
            {
                if number - from > FUNCTION_LINES_MAX {
                    let length = number - from;
                    offences.push(format!("{}:{from}: {length} lines: {signature}", file.name));
                }
                start = None;
            }
            if is_function(line) {
                start = Some((number, indent, line.trim()));
            }
        }
    }
    assert_none(&offences);
}

#[test]
fn nothing_unfinished_is_left() {
    let mut offences = Vec::new();
    for file in all_sources() {
        for (number, line) in file.text.lines().enumerate() {
            for banned in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "dbg!("] {
                if line.contains(banned) {
                    offences.push(format!("{}:{}: {banned}", file.name, number + 1));
                }
            }
        }
    }
    assert_none(&offences);
}

#[test]
fn the_code_maps_name_every_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (map, folder) in [("src/README.md", "src"), ("loadgen/README.md", "loadgen/src")] {
        let text = fs::read_to_string(root.join(map)).expect("a code map");
        let folder = root.join(folder);
        let mut files = Vec::new();
        collect(&folder, &folder, &mut files);
        let is_missing = |file: &Source| !text.contains(&format!("`{}`", file.name));
        let missing: Vec<_> = files.into_iter().filter(is_missing).map(|file| file.name).collect();
        assert!(missing.is_empty(), "{map} does not name {missing:?}");
        let names = text.split('`').filter(|name| name.ends_with(".rs") && !name.contains(' '));
        for name in names.filter(|name| !name.starts_with("tests/")) {
            let exists = folder.join(name).exists() || root.join(name).exists();
            assert!(exists, "{map} names {name}, which is not there");
        }
    }
}

/// One file under `src/`.
struct Source {
    /// Path below `src/`.
    name: String,
    /// First part of the path.
    module: String,
    text: String,
}

impl Source {
    /// Numbered lines before the tests, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Those of the library and the broker, those of the load generator, the benches and the fuzz targets.
fn all_sources() -> Vec<Source> {
    let mut files = sources();
    for folder in ["loadgen/src", "benches", "tests/fuzz/src"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut found = Vec::new();
        collect(&root, &root, &mut found);
        assert!(!found.is_empty(), "{folder} holds no source files");
        for file in &mut found {
            file.name = format!("{folder}/{}", file.name);
        }
        files.append(&mut found);
    }
    files
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    collect(&source_root(), &source_root(), &mut files);
    assert!(files.len() > 20, "found too few source files to mean anything");
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("readable folder") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(root).expect("below src");
            let name = below.to_str().expect("UTF-8 name").to_owned();
            let is_test = name.ends_with("tests.rs") || name.ends_with("testing.rs");
            if name == "lib.rs" || is_test {
                continue;
            }
            let module = name.split(['/', '.']).next().unwrap_or_default().to_owned();
            let text = fs::read_to_string(&path).expect("readable file");
            files.push(Source { name, module, text });
        }
    }
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| *layer == module)
}

/// Modules of this crate that a line names behind `crate::` or `ringmq::`, or
/// that stand alone at the start of a line in a nested `use crate::{...}`.
fn imported_modules(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for prefix in ["crate::", "ringmq::"] {
        for (at, _) in line.match_indices(prefix) {
            let rest = &line[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(names) => found.extend(names.split(',').map(first_word)),
                None => found.push(first_word(rest)),
            }
        }
    }
    let nested = line.strip_prefix("    ").filter(|rest| !rest.starts_with(' '));
    if let Some(rest) = nested
        && rest.ends_with(',')
        && (rest.contains("::") || rest.trim_end_matches(',').chars().all(char::is_lowercase))
        && !rest.contains(['(', '=', ';', '.'])
    {
        found.push(first_word(rest));
    }
    found
}

fn first_word(text: &str) -> String {
    text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn is_function(line: &str) -> bool {
    let line = line.trim_start();
    let line =
        line.strip_prefix("pub(super) ").or(line.strip_prefix("pub(crate) ")).unwrap_or(line);
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("const ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.starts_with("fn ") || line.starts_with("unsafe fn ")
}

fn assert_none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}
