//! The sources of the configuration, lowest precedence first: defaults, file,
//! environment, `--set`, flags. Each is read to the end, so that all mistakes
//! come out at once. A variable `..._FILE` names a file that holds the value.
//!
//! Owns the way from a source's text to [`Settings`]; knows no key by name.

use std::{
    ffi::OsString,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Settings,
    address::Endpoint,
    keys::{Key, Kind, LISTENER, List, VARIABLE_PREFIX},
    listeners::ListenerSettings,
    problem::{Fault, Origin, Problem, nearest},
    text_file::read_text,
};
use crate::base::limits::CONFIG_FILE_BYTES_MAX;

/// Everything that can set a key. [`Default`] is: nothing does.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `RINGMQ_` are skipped.
    pub environment: Vec<(OsString, OsString)>,
    /// `KEY=VALUE` each.
    pub sets: Vec<String>,
    /// Flags that have a key of their own.
    pub flags: Vec<Flag>,
}

/// A flag that stands for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As typed, for messages.
    pub name: &'static str,
    /// The key that it sets.
    pub key: &'static str,
    /// The value, never in quotes.
    pub value: String,
}

impl Sources {
    /// What the sources say, and what is wrong with them. Wrong values leave
    /// the setting as it was.
    pub(super) fn read(&self, read_value: ReadValue) -> (Settings, Vec<Problem>) {
        let mut reader = Reader { settings: Settings::default(), problems: Vec::new() };
        if let Some(path) = &self.file {
            let label = path.display().to_string();
            match read_file(path) {
                Ok(text) => reader.file(&label, &text),
                Err(fault) => reader.report(Origin::new(&label, None), "", fault),
            }
        }
        reader.environment(&self.environment, read_value);
        for set in &self.sets {
            reader.set(set);
        }
        for Flag { name, key, value } in &self.flags {
            let key = Key::find(key).expect("every flag stands for a key of the table");
            let source = SourceText { label: name, text: value, has_lines: false };
            let value = if key.takes_text() { bare(value) } else { parse(key, value) };
            reader.assign(key, &value, &source);
        }
        (reader.settings, reader.problems)
    }
}

/// How the file is read that a variable names.
type ReadValue = fn(&Path) -> io::Result<(String, bool)>;

fn read_file(path: &PathBuf) -> Result<String, Fault> {
    let text = File::open(path).and_then(|file| read_text(file, CONFIG_FILE_BYTES_MAX));
    text.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Fault::NotText,
        _ => Fault::Unreadable(error.to_string()),
    })
}

/// Collects settings and problems.
struct Reader {
    settings: Settings,
    problems: Vec<Problem>,
}

impl Reader {
    fn file(&mut self, label: &str, text: &str) {
        let source = SourceText { label, text, has_lines: true };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors.iter().take(SYNTAX_ERRORS_MAX) {
            let origin = source.origin(error.span().unwrap_or(0..0));
            self.report(origin, "", Fault::Syntax(error.message().to_owned()));
        }
        if let Some(more) = errors.len().checked_sub(SYNTAX_ERRORS_MAX).filter(|more| *more > 0) {
            return self.report(Origin::new(label, None), "", Fault::NotToml { more });
        }
        self.table("", table.get_ref(), &source);
        // Whatever was recovered from a broken line is a guess.
        let broken: Vec<_> =
            self.problems.iter().filter(|p| p.is_syntax()).map(Problem::line).collect();
        self.problems.retain(|p| p.is_syntax() || !broken.contains(&p.line()));
        self.problems.sort_by_key(Problem::line);
    }

    /// Assigns what stands in one section; `prefix` is empty or ends in a dot.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>, source: &SourceText<'_>) {
        for (name, value) in table.iter() {
            let local = name.get_ref();
            let full = format!("{prefix}{local}");
            if let Some(key) = Key::find(&full) {
                self.assign(key, value, source);
                continue;
            }
            if full == LISTENER {
                self.listeners(value, source);
                continue;
            }
            let section = Key::SECTIONS.into_iter().find(|section| *section == full);
            let fault = match (section, value.get_ref()) {
                (Some(section), DeValue::Table(inner)) => {
                    self.table(&format!("{section}."), inner, source);
                    continue;
                }
                (Some(name), _) => Fault::IsSection { name },
                (None, DeValue::Table(_)) if prefix.is_empty() => {
                    let nearest = nearest(&full, Key::SECTIONS, |name| name.to_owned());
                    Fault::UnknownSection { name: full.clone(), nearest }
                }
                (None, _) => unknown_key(&full, prefix),
            };
            self.report(source.origin(name.span()), &full, fault);
        }
    }

    /// Takes in the sections `[[listener]]`.
    fn listeners(&mut self, value: &Spanned<DeValue<'_>>, source: &SourceText<'_>) {
        let elements = value.get_ref().as_array().map_or(&[][..], |elements| elements);
        let tables: Vec<_> =
            elements.iter().filter_map(|it| Some((it.span(), it.get_ref().as_table()?))).collect();
        if tables.len() != elements.len() || tables.is_empty() {
            return self.report(source.origin(value.span()), LISTENER, Fault::IsListeners);
        }
        for (span, table) in tables {
            let mut settings = ListenerSettings::new(source.origin(span));
            for (name, value) in table.iter() {
                let local = name.get_ref();
                match Key::of_listener().iter().find(|key| key.local_name() == *local) {
                    Some(key) => assign(&mut settings, &mut self.problems, key, value, source),
                    None => {
                        let name_of = |key: &Key<_>| key.local_name().to_owned();
                        let nearest = nearest(local, Key::of_listener(), name_of);
                        let fault = Fault::UnknownListenerKey { name: local.to_string(), nearest };
                        self.report(source.origin(name.span()), LISTENER, fault);
                    }
                }
            }
            self.settings.listeners.push(settings);
        }
    }

    fn environment(&mut self, environment: &[(OsString, OsString)], read_value: ReadValue) {
        let in_kubernetes = environment.iter().any(|(name, _)| name == "KUBERNETES_SERVICE_HOST");
        let mut ours: Vec<_> = environment
            .iter()
            .map(|(name, value)| (name.to_string_lossy(), value))
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect();
        ours.sort_unstable();
        for (name, value) in ours {
            let origin = Origin::new(&name, None);
            let key_of = |name: &str| Key::all().find(|key| key.variable() == name);
            let Some(key) = key_of(&name) else {
                if let Some(key) = name.strip_suffix(FILE_SUFFIX).and_then(key_of) {
                    self.value_file(key, &name, Path::new(value), read_value);
                    continue;
                }
                if !(in_kubernetes && is_service_link(&name)) {
                    let nearest = nearest_variable(&name);
                    self.report(origin, "", Fault::UnknownVariable { nearest });
                }
                continue;
            };
            match value.to_str() {
                Some(text) => self.text(key, &name, text),
                None => self.report(origin, key.name, Fault::NotText),
            }
        }
    }

    /// A variable that names the file of a value: secrets of containers come so.
    fn value_file(
        &mut self,
        key: &'static Key,
        variable: &str,
        path: &Path,
        read_value: ReadValue,
    ) {
        match read_value(path) {
            Ok((text, _)) => {
                let text = text.trim_end_matches(['\r', '\n']);
                let source = SourceText { label: variable, text, has_lines: false };
                // Whatever a secret looks like, it is no TOML.
                let value = if key.is_secret() { bare(text) } else { parse(key, text) };
                self.assign(key, &value, &source);
            }
            Err(error) => {
                let origin = Origin::new(variable, None);
                self.report(origin, key.name, Fault::UnreadableValue(error.to_string()));
            }
        }
    }

    fn set(&mut self, set: &str) {
        let Some((name, text)) = set.split_once('=') else {
            let origin = Origin::new(&format!("--set {set}"), None);
            return self.report(origin, "", Fault::NotAssignment);
        };
        let (name, text) = (name.trim(), text.trim());
        let label = format!("--set {name}");
        match Key::find(name) {
            Some(key) => self.text(key, &label, text),
            None => {
                let fault = match Key::SECTIONS.into_iter().find(|section| *section == name) {
                    Some(name) => Fault::IsSection { name },
                    None if name.split('.').next() == Some(LISTENER) => Fault::IsListeners,
                    None => unknown_key(name, ""),
                };
                self.report(Origin::new(&label, None), name, fault);
            }
        }
    }

    /// Assigns a value that stands alone: a TOML value or, where the key takes
    /// text, a bare word.
    fn text(&mut self, key: &'static Key, label: &str, text: &str) {
        let source = SourceText { label, text, has_lines: false };
        self.assign(key, &parse(key, text), &source);
    }

    fn assign(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>, source: &SourceText<'_>) {
        assign(&mut self.settings, &mut self.problems, key, value, source);
    }

    fn report(&mut self, origin: Origin, key: &str, fault: Fault) {
        self.problems.push(Problem::new(origin, key, fault));
    }
}

/// Sets a key to a value, or says what is wrong with it.
fn assign<S>(
    settings: &mut S,
    problems: &mut Vec<Problem>,
    key: &'static Key<S>,
    value: &Spanned<DeValue<'_>>,
    source: &SourceText<'_>,
) {
    let done = match (&key.kind, value.get_ref()) {
        (Kind::Switch(set), DeValue::Boolean(on)) => {
            set(settings, *on);
            Some(())
        }
        (Kind::Number(range, set), DeValue::Integer(number)) => {
            u64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .filter(|number| range.contains(number))
                .and_then(|number| set(settings, number))
        }
        (Kind::Choice(names, set), DeValue::String(text)) => {
            names.iter().position(|name| name == text).map(|index| set(settings, index))
        }
        (Kind::Directory(set), DeValue::String(path)) if is_path(path) => {
            set(settings, PathBuf::from(path.as_ref()));
            Some(())
        }
        (Kind::Text(set), DeValue::String(text)) => {
            if let Err(why) = set(settings, text) {
                let origin = source.origin(value.span());
                problems.push(text_problem(key, origin, text, why));
            }
            Some(())
        }
        (Kind::Secret(set), DeValue::String(text)) => {
            if let Err(why) = set(settings, text) {
                let (origin, name) = (source.origin(value.span()), key.name);
                problems.push(Problem::new(origin, name, Fault::Secret { name, why }));
            }
            Some(())
        }
        (Kind::List(list), DeValue::String(_) | DeValue::Array(_)) => {
            return assign_list(settings, problems, (key, list), value, source);
        }
        (Kind::Addresses(set), DeValue::String(_) | DeValue::Array(_)) => {
            let set = *set;
            return assign_addresses(settings, problems, (key, set), value, source);
        }
        _ => None,
    };
    if done.is_none() {
        problems.push(value_problem(key, value, source));
    }
}

/// A list of strings, or a string that is the only one.
fn assign_list<S>(
    settings: &mut S,
    problems: &mut Vec<Problem>,
    (key, list): (&'static Key<S>, &List<S>),
    value: &Spanned<DeValue<'_>>,
    source: &SourceText<'_>,
) {
    let elements = value.get_ref().as_array().map_or(std::slice::from_ref(value), |all| all);
    (list.clear)(settings);
    for element in elements {
        let origin = source.origin(element.span());
        match element.get_ref().as_str() {
            None => return problems.push(value_problem(key, value, source)),
            Some("") if elements.len() == 1 => {}
            Some(text) => {
                if let Err(why) = (list.add)(settings, text) {
                    problems.push(text_problem(key, origin, text, why));
                }
            }
        }
    }
}

/// The setter of a key for addresses.
type SetAddresses<S> = fn(&mut S, Vec<(Origin, Endpoint)>);

/// A list of strings, or one string with commas.
fn assign_addresses<S>(
    settings: &mut S,
    problems: &mut Vec<Problem>,
    (key, set): (&'static Key<S>, SetAddresses<S>),
    value: &Spanned<DeValue<'_>>,
    source: &SourceText<'_>,
) {
    let mut texts: Vec<(Origin, &str)> = Vec::new();
    match value.get_ref() {
        DeValue::String(list) => {
            let origin = source.origin(value.span());
            texts.extend(list.split(',').map(|text| (origin.clone(), text.trim())));
        }
        DeValue::Array(list) => {
            for element in list {
                match element.get_ref().as_str() {
                    Some(text) => texts.push((source.origin(element.span()), text)),
                    None => return problems.push(value_problem(key, value, source)),
                }
            }
        }
        _ => {}
    }
    if texts.iter().all(|(_, text)| text.is_empty()) {
        return problems.push(value_problem(key, value, source));
    }
    let mut endpoints = Vec::new();
    for (origin, text) in texts {
        match Endpoint::parse(text) {
            Ok(endpoint) => endpoints.push((origin, endpoint)),
            Err(error) => {
                problems.push(Problem::new(origin, key.name, Fault::Address(error)));
            }
        }
    }
    set(settings, endpoints);
}

fn value_problem<S>(
    key: &'static Key<S>,
    value: &Spanned<DeValue<'_>>,
    source: &SourceText<'_>,
) -> Problem {
    let nearest = match (&key.kind, value.get_ref()) {
        (Kind::Choice(names, _), DeValue::String(text)) => {
            let text = text.to_ascii_lowercase();
            nearest(&text, names.iter().copied(), |name| name.to_owned())
        }
        _ => None,
    };
    let origin = source.origin(value.span());
    let (name, allowed) = (key.name, key.allowed());
    if key.is_secret() {
        let why = format!("must be {allowed}");
        return Problem::new(origin, name, Fault::Secret { name, why });
    }
    let found = source.excerpt(value.span());
    Problem::new(origin, name, Fault::Value { name, allowed, found, nearest })
}

fn text_problem<S>(key: &'static Key<S>, origin: Origin, text: &str, why: String) -> Problem {
    let (name, allowed, text) = (key.name, key.allowed(), text.to_owned());
    Problem::new(origin, name, Fault::Text { name, allowed, text, why })
}

/// One source's text and what it is called in messages.
struct SourceText<'a> {
    label: &'a str,
    text: &'a str,
    /// Whether positions in the text help to find a value.
    has_lines: bool,
}

impl SourceText<'_> {
    fn origin(&self, span: Range<usize>) -> Origin {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Origin::new(self.label, self.has_lines.then_some(line))
    }

    /// The text of a value as it was written, shortened to a part of a line.
    fn excerpt(&self, span: Range<usize>) -> String {
        let whole = self.text.get(span).unwrap_or_default();
        let line = whole.lines().next().unwrap_or_default();
        let mut excerpt: String = line.chars().take(EXCERPT_CHARS_MAX).collect();
        if excerpt.len() < whole.len() {
            excerpt.push_str("...");
        }
        excerpt
    }
}

/// The value of a source that is not TOML as a whole.
fn parse<'a>(key: &Key, text: &'a str) -> Spanned<DeValue<'a>> {
    match DeValue::parse(text) {
        Ok(value) if value.get_ref().is_str() || value.get_ref().is_array() => value,
        Ok(value) if !key.takes_text() => value,
        Ok(_) | Err(_) => bare(text),
    }
}

/// The text itself as a string value.
fn bare(text: &str) -> Spanned<DeValue<'_>> {
    Spanned::new(0..text.len(), DeValue::String(text.into()))
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

fn unknown_key(name: &str, section: &str) -> Fault {
    let local = name.rsplit('.').next().unwrap_or(name);
    Fault::UnknownKey { name: name.to_owned(), section: section.to_owned(), nearest: meant(local) }
}

fn nearest_variable(name: &str) -> Option<&'static Key> {
    meant(&name.trim_start_matches(VARIABLE_PREFIX).to_ascii_lowercase())
}

/// The key that is probably meant by `name`, which may have `_` behind its section.
fn meant(name: &str) -> Option<&'static Key> {
    let of_section =
        Key::SECTIONS.iter().find_map(|section| name.strip_prefix(section)?.strip_prefix('_'));
    let local = of_section.unwrap_or(name);
    nearest(local, Key::all(), |key| key.local_name().to_owned())
}

/// What the name of a variable ends with that names a file.
const FILE_SUFFIX: &str = "_FILE";

/// Whether Kubernetes made the variable: for a service called "ringmq" it gives
/// every container RINGMQ_SERVICE_HOST, RINGMQ_PORT_1883_TCP and the like.
fn is_service_link(name: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_PORT")
}

/// A file with more of them is likely to be something else.
const SYNTAX_ERRORS_MAX: usize = 20;

/// Enough to recognise a value by.
const EXCERPT_CHARS_MAX: usize = 60;
