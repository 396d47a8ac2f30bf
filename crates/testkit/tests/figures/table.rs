//! The tables of names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::shown::Shown;

/// Names and what is said of each.
pub(crate) struct Table(BTreeMap<String, Row>);

struct Row {
    kind: String,
    labels: BTreeSet<String>,
    state: String,
}

impl Table {
    pub(crate) fn parse(text: &str) -> Self {
        let mut rows = BTreeMap::new();
        let lines = text.lines().filter(|line| !line.is_empty());
        for line in lines.filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kind, what, state, reason @ ..] = words.as_slice() else {
                panic!("no row: {line}");
            };
            let reasoned = matches!(*state, "no" | "rare") != reason.is_empty();
            assert!(reasoned, "a reason stands where one is due: {line}");
            for (kind, name, labels) in families(kind, what) {
                let state = (*state).to_owned();
                let row = Row {
                    kind,
                    labels,
                    state,
                };
                assert!(rows.insert(name.clone(), row).is_none(), "{name} twice");
            }
        }
        assert!(rows.len() > 50, "the table is whole");
        Self(rows)
    }

    /// What is shown and is not in the table, or the other way round.
    pub(crate) fn differences(&self, shown: &Shown) -> Vec<String> {
        let missing = self.0.iter().filter_map(|(name, row)| {
            let due = matches!(row.state.as_str(), "yes" | "ours");
            (due && !shown.0.contains_key(name)).then(|| format!("{name} is not shown"))
        });
        let wrong = shown.0.iter().filter_map(|(name, family)| {
            let Some(row) = self.0.get(name) else {
                return Some(format!("{name} is shown and in no row"));
            };
            if row.state == "no" {
                return Some(format!("{name} is shown: its row says it is not"));
            }
            let same =
                family.kind == row.kind && family.labels.iter().all(|one| *one == row.labels);
            (!same).then(|| format!("{name} is {family:?}, not {} {:?}", row.kind, row.labels))
        });
        missing.chain(wrong).collect()
    }

    /// Rows `rare` whose names the sources do not hold.
    pub(crate) fn unknown_rarities(&self, sources: &str) -> Vec<String> {
        let rare = self.0.iter().filter(|(_, row)| row.state == "rare");
        // The time of a call is named where its figures are made, and the store is told apart by its prefix.
        let named = |name: &str| {
            let name = name.trim_end_matches("_elapsed_time");
            sources.contains(&format!("\"{}\"", name.trim_start_matches("datastore_")))
        };
        rare.map(|(name, _)| name.clone())
            .filter(|name| !named(name))
            .collect()
    }
}

/// The families of one row: `{a,b}` stands for each of its words, `[a,b]` at the end for labels.
fn families(kind: &str, what: &str) -> Vec<(String, String, BTreeSet<String>)> {
    let (names, labels) = what.split_once('[').unwrap_or((what, ""));
    let labels = labels.trim_end_matches(']').split(',');
    let labels: BTreeSet<String> = labels
        .filter(|label| !label.is_empty())
        .map(str::to_owned)
        .collect();
    let mut families = Vec::new();
    for name in expand(names) {
        if kind == "call" {
            let mut labels = labels.clone();
            labels.insert("status".to_owned());
            let elapsed = format!("{name}_elapsed_time");
            families.push(("summary".to_owned(), elapsed, labels.clone()));
            families.push(("counter".to_owned(), name, labels));
        } else {
            families.push((kind.to_owned(), name, labels.clone()));
        }
    }
    families
}

fn expand(name: &str) -> Vec<String> {
    let Some((head, rest)) = name.split_once('{') else {
        return vec![name.to_owned()];
    };
    let (words, tail) = rest.split_once('}').unwrap();
    let each = words.split(',');
    each.flat_map(|word| expand(&format!("{head}{word}{tail}")))
        .collect()
}

/// All sources of these crates.
pub(crate) fn sources(crates: &[&str]) -> String {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut text = String::new();
    let mut folders: Vec<_> = crates.iter().map(|one| all.join(one).join("src")).collect();
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|one| one == "rs") {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}
