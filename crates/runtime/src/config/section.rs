use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value as Json};

use super::Found;
use super::value::Value;

/// One block of a file. Dropped, it reports the keys that nobody asked for.
#[derive(Debug)]
pub struct Section {
    path: String,
    present: bool,
    entries: Map<String, Json>,
    asked: BTreeSet<String>,
    found: Found,
}

impl Section {
    pub(super) fn root(entries: Map<String, Json>, found: Found) -> Self {
        Self::new(String::new(), true, entries, found)
    }

    /// Where it stands: `agent`, `plugins.KeyManager.disk`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the file has this block at all, with anything in it or not.
    pub fn is_present(&self) -> bool {
        self.present
    }

    /// Whether `key` is there; asks for it.
    pub fn has(&mut self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// The value of `key`, if it is there and right.
    pub fn get<V: Value>(&mut self, key: &str) -> Option<V> {
        let value = self.value(key)?;
        if V::empty_is_missing() && value.as_str().is_some_and(str::is_empty) {
            return None;
        }
        let read = V::read(value);
        if read.is_none() {
            let shown = shown(value);
            self.problem(
                key,
                format_args!("{shown} will not do; give {}", V::expected()),
            );
        }
        read
    }

    /// The value of `key`; a problem when it is missing.
    pub fn required<V: Value>(&mut self, key: &str) -> Option<V> {
        let empty = |value: &Json| value.as_str().is_some_and(str::is_empty);
        if self.value(key).is_none_or(empty) {
            self.problem(key, format_args!("missing; give {}", V::expected()));
            return None;
        }
        self.get(key)
    }

    /// The text of `key`, made a `T` by `parse`, whose error says what would be right. Empty text counts as missing.
    pub fn parse<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.get::<String>(key).filter(|text| !text.is_empty())?;
        match parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problem(key, error);
                None
            }
        }
    }

    /// Like [`Section::parse`]; a problem when the key is missing.
    pub fn required_parse<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.required::<String>(key)?;
        match parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problem(key, error);
                None
            }
        }
    }

    /// One of the named choices.
    pub fn choice<T: Clone>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.get::<String>(key).filter(|text| !text.is_empty())?;
        let chosen = choices.iter().find(|(name, _)| *name == text);
        if chosen.is_none() {
            let names: Vec<_> = choices
                .iter()
                .map(|(name, _)| format!("{name:?}"))
                .collect();
            self.problem(
                key,
                format_args!("{text:?} will not do; give one of {}", names.join(", ")),
            );
        }
        chosen.map(|(_, choice)| choice.clone())
    }

    /// The block `key`; an absent one is empty, see [`Section::is_present`].
    pub fn section(&mut self, key: &str) -> Self {
        let path = self.path_to(key);
        let entries = match self.value(key) {
            Some(value) => match block(value) {
                Some(entries) => entries,
                None => {
                    self.problem(key, format_args!("write it as a block: {key} {{ … }}"));
                    Map::new()
                }
            },
            None => Map::new(),
        };
        // A rendered file may hold `null` for an empty block.
        let present = self.entries.contains_key(key);
        Self::new(path, present, entries, self.found.clone())
    }

    /// The block `key`; a problem when it is missing.
    pub fn required_section(&mut self, key: &str) -> Self {
        let section = self.section(key);
        if !section.present {
            self.problem(
                key,
                format_args!("the block is missing; give {key} {{ … }}"),
            );
        }
        section
    }

    /// Labelled blocks: `KeyManager "disk" { … }` under the key `KeyManager` gives `("disk", section)`. A label given twice comes twice.
    pub fn labelled(&mut self, key: &str) -> Vec<(String, Self)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let mut labelled = Vec::new();
        let mut wrong = None;
        for blocks in items(value) {
            let Json::Object(blocks) = blocks else {
                wrong = Some(key.to_owned());
                continue;
            };
            for (label, bodies) in blocks {
                for body in items(bodies) {
                    match block(body) {
                        Some(entries) => labelled.push((label.clone(), entries)),
                        None => wrong = Some(format!("{key}.{label}")),
                    }
                }
            }
        }
        if let Some(wrong) = wrong {
            self.problem(
                &wrong,
                format_args!("write it as a block with a label: {key} \"…\" {{ … }}"),
            );
        }
        let path = self.path_to(key);
        let section = |(label, entries)| {
            let section = Self::new(format!("{path}.{label}"), true, entries, self.found.clone());
            (label, section)
        };
        labelled.into_iter().map(section).collect()
    }

    /// Takes `key` as known and does not look at it.
    pub fn ignore(&mut self, key: &str) {
        self.asked.insert(key.to_owned());
    }

    /// Takes everything in this block as known and does not look at it.
    pub fn ignore_rest(&mut self) {
        self.asked.extend(self.entries.keys().cloned());
    }

    /// Reports a mistake at `key` that only the reader could see; with an empty key, one of the block itself.
    pub fn problem(&mut self, key: &str, message: impl fmt::Display) {
        self.found.add(self.path_to(key), message.to_string());
    }

    fn new(path: String, present: bool, entries: Map<String, Json>, found: Found) -> Self {
        Self {
            path,
            present,
            entries,
            asked: BTreeSet::new(),
            found,
        }
    }

    /// What the file has for `key`, which is known from now on; `null` counts as nothing.
    fn value(&mut self, key: &str) -> Option<&Json> {
        if !self.asked.contains(key) {
            self.asked.insert(key.to_owned());
        }
        self.entries.get(key).filter(|value| !value.is_null())
    }

    fn path_to(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    fn unknown(&self, key: &str) -> String {
        if let Some(near) = nearest(key, &self.asked) {
            return format!("unknown key; did you mean `{near}`?");
        }
        let known: Vec<_> = self.asked.iter().map(String::as_str).collect();
        match known.as_slice() {
            [] => "unknown key; nothing is expected here".to_owned(),
            known => format!("unknown key; known here are {}", known.join(", ")),
        }
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        let unknown = self.entries.keys().filter(|key| !self.asked.contains(*key));
        for key in unknown {
            self.found.add(self.path_to(key), self.unknown(key));
        }
    }
}

/// The entries of a block. HCL's JSON form may give it as a list of blocks, or as `null` when it is empty.
fn block(value: &Json) -> Option<Map<String, Json>> {
    let mut merged = Map::new();
    for item in items(value) {
        match item {
            Json::Object(entries) => entries
                .iter()
                .for_each(|(key, value)| merge(&mut merged, key, value)),
            Json::Null => {}
            _ => return None,
        }
    }
    Some(merged)
}

fn merge(merged: &mut Map<String, Json>, key: &str, value: &Json) {
    let Some(before) = merged.get_mut(key) else {
        merged.insert(key.to_owned(), value.clone());
        return;
    };
    let mut both = items(before).to_vec();
    both.extend(items(value).iter().cloned());
    *before = Json::Array(both);
}

fn items(value: &Json) -> &[Json] {
    match value {
        Json::Array(items) => items,
        single => std::slice::from_ref(single),
    }
}

/// A value as it is shown in a message: short.
fn shown(value: &Json) -> String {
    const MOST: usize = 60;
    match value {
        Json::Object(_) => "a block".to_owned(),
        Json::Array(_) => "this list".to_owned(),
        value => {
            let text = value.to_string();
            match text.char_indices().nth(MOST) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

fn nearest<'a>(key: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let plain = |key: &str| key.replace(['_', '-'], "").to_ascii_lowercase();
    let key = plain(key);
    let distance = |known: &str| strsim::damerau_levenshtein(&key, &plain(known));
    let near = known.iter().map(|known| (distance(known), known));
    let most = (key.chars().count() / 3).max(1);
    let (distance, near) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= most).then_some(near)
}
