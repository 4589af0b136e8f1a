//! The clause table: which test proves which normative statement of MQTT 5.0 and 3.1.1.
//!
//! `clause_ids.txt` holds the ids, those of 3.1.1 (its appendix B) behind `3.1.1:`; two that are printed
//! there with a slip of the pen stand as they were meant (3.1.2-7, 3.8.3-4). `clauses.tsv` has a row for
//! each: id, verdict, note, with tabs in between. A verdict is one of
//! - tests, with blanks in between: `suite::module::name`, registered with `#[test]` or on one and four
//!   shards,
//! - `client`: a duty of clients that no server can fulfil or check,
//! - `reason:` and why there can be no test.
//!
//! Knows the text of the sources, nothing of the broker.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

#[test]
fn every_clause_has_one_row() {
    let ids = clause_ids();
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "an id stands twice in clause_ids.txt");
    let rows = rows();
    let known: BTreeSet<_> = rows.iter().map(|row| &row.id).collect();
    let missing: Vec<_> = ids.iter().filter(|id| !known.contains(id)).collect();
    let unknown: Vec<_> = rows.iter().filter(|row| !unique.contains(&row.id)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "no row: {missing:?}, no id: {unknown:?}");
    assert_eq!(rows.len(), ids.len(), "an id has two rows");
}

#[test]
fn every_verdict_holds() {
    let mut modules = HashMap::new();
    let mut offences = Vec::new();
    for Row { id, verdict, .. } in rows() {
        match verdict.as_str() {
            "client" => {}
            reason if reason.strip_prefix("reason: ").is_some_and(|why| !why.is_empty()) => {}
            "" | "reason:" => offences.push(format!("{id}: nothing behind {verdict:?}")),
            tests => {
                let names = tests.split(' ').filter(|name| !is_registered(name, &mut modules));
                offences.extend(names.map(|name| format!("{id}: there is no test {name:?}")));
            }
        }
    }
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn every_quoted_clause_exists() {
    let ids: BTreeSet<String> = clause_ids().into_iter().collect();
    let mut files = vec![root().join("README.md")];
    for folder in ["src", "tests", "benches", "loadgen"] {
        collect(&root().join(folder), &mut files);
    }
    assert!(files.len() > 100, "found too few files to mean anything");
    let mut offences = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable file");
        for (number, line) in text.lines().enumerate() {
            let unknown = quoted(line).into_iter().filter(|id| !ids.contains(id));
            let place = format!("{}:{}", file.display(), number + 1);
            offences.extend(unknown.map(|id| format!("{place}: there is no {id}")));
        }
    }
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn readme_contains_the_count() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md can be read");
    let rows = rows();
    let (v311, v5): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.id.starts_with(OF_3_1_1));
    let table = format!(
        "| Standard | Statements | Proven by tests | Duties of clients | No test, for a reason |\n\
         | --- | --- | --- | --- | --- |\n{}{}",
        count("MQTT 5.0", &v5),
        count("MQTT 3.1.1", &v311)
    );
    assert!(
        readme.contains(&table),
        "the count of clauses in README.md is not the current one, which is:\n{table}"
    );
}

#[test]
fn quotations_are_found() {
    let line = "/// MQTT-1.5.4-1, -2, 3.1.1:MQTT-4.7.1-3: and [MQTT-4.2-1]. Not MQTT, nor MQTT-5.";
    assert_eq!(quoted(line), ["MQTT-1.5.4-1", "3.1.1:MQTT-4.7.1-3", "MQTT-4.2-1", "MQTT-5"]);
}

/// One line of the table.
#[derive(Debug)]
struct Row {
    id: String,
    verdict: String,
}

fn rows() -> Vec<Row> {
    let text = include_str!("clauses.tsv");
    let row = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_default();
        let row = Row { id: next(), verdict: next() };
        assert!(fields.count() <= 1, "too many fields: {line}");
        row
    };
    text.lines().map(row).collect()
}

fn clause_ids() -> Vec<String> {
    include_str!("clause_ids.txt").lines().map(str::to_owned).collect()
}

/// One row of the README's table.
fn count(standard: &str, rows: &[&Row]) -> String {
    let with = |kind: &str| rows.iter().filter(|row| row.verdict.starts_with(kind)).count();
    let (client, reason) = (with("client"), with("reason:"));
    let proven = rows.len() - client - reason;
    format!("| {standard} | {} | {proven} | {client} | {reason} |\n", rows.len())
}

/// Whether the suite has that test. Keeps what was read of the modules.
fn is_registered(name: &str, modules: &mut HashMap<String, BTreeSet<String>>) -> bool {
    let Some((module, test)) = name.rsplit_once("::") else { return false };
    let Some((suite, file)) = module.split_once("::") else { return false };
    if !SUITES.contains(&suite) {
        return false;
    }
    let tests = modules.entry(module.to_owned()).or_insert_with(|| {
        let folder = root().join("tests").join(suite);
        let main = fs::read_to_string(folder.join("main.rs")).expect("a suite has a main.rs");
        let text = fs::read_to_string(folder.join(file).with_extension("rs")).unwrap_or_default();
        let is_part = main.lines().any(|line| line == format!("mod {file};"));
        if is_part { registered(&text) } else { BTreeSet::new() }
    });
    tests.contains(test)
}

/// The tests of one file: the functions right behind `#[test]`, and those that
/// `on_one_and_four_shards!` names.
fn registered(text: &str) -> BTreeSet<String> {
    let functions: BTreeSet<_> = text.lines().filter_map(function).collect();
    let behind =
        |(above, line): (&str, &str)| (above == "#[test]").then(|| function(line)).flatten();
    let plain = text.lines().zip(text.lines().skip(1)).filter_map(behind);
    let blocks = text.split("\non_one_and_four_shards! {").skip(1);
    let listed = blocks.filter_map(|block| block.split_once("\n}"));
    let listed = listed.flat_map(|(listed, _)| listed.split(';'));
    let listed = listed.filter_map(|entry| entry.split_whitespace().next());
    let listed = listed.map(str::to_owned).filter(|name| functions.contains(name));
    plain.chain(listed).collect()
}

/// The name of the function that begins on this line, at the left margin.
fn function(line: &str) -> Option<String> {
    let (name, _) = line.strip_prefix("fn ")?.split_once('(')?;
    Some(name.to_owned())
}

/// The clause ids in a line; `-2` behind one counts as written out elsewhere.
fn quoted(line: &str) -> Vec<String> {
    let id_at = |(at, _): (usize, &str)| {
        let rest = &line[at + MARK.len()..];
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'));
        let number = rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', '-']);
        let prefix = if line[..at].ends_with(OF_3_1_1) { OF_3_1_1 } else { "" };
        number.starts_with(|c: char| c.is_ascii_digit()).then(|| format!("{prefix}{MARK}{number}"))
    };
    line.match_indices(MARK).filter_map(id_at).collect()
}

/// All texts below a folder that people wrote.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let is_text =
            path.extension().is_some_and(|extension| extension == "rs" || extension == "md");
        if path.is_dir() {
            collect(&path, files);
        } else if is_text && !path.ends_with("conformance/clauses.rs") {
            files.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The suites that drive the real binary.
const SUITES: [&str; 5] = ["abuse", "conformance", "interop", "listeners", "scale"];
/// What every id begins with.
const MARK: &str = "MQTT-";
/// What stands before an id of that standard.
const OF_3_1_1: &str = "3.1.1:";
