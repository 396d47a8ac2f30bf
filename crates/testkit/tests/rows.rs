//! Each row of the standards, and of what is wanted on Kubernetes, has a test with the row's ID in its name, or a reason why
//! it has none (`rows.txt`).

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[test]
fn every_row_has_a_test_or_a_reason() {
    let (mut rows, mut excused) = (BTreeSet::new(), BTreeMap::new());
    for line in include_str!("rows.txt").lines() {
        match line.split_once(' ') {
            Some((row, reason)) if row.contains('-') => {
                excused.insert(row.to_owned(), reason.trim().to_owned());
            }
            Some((section, count)) if !section.starts_with('#') => {
                let count: u32 = count.parse().unwrap();
                rows.extend((1..=count).map(|number| format!("{section}-{number:02}")));
            }
            _ => {}
        }
    }
    assert!(rows.len() > 100 && excused.values().all(|reason| !reason.is_empty()));
    assert!(excused.keys().all(|row| rows.contains(row)), "{excused:?}");
    let sections: BTreeSet<&str> = rows
        .iter()
        .filter_map(|row| row.split('-').next())
        .collect();
    let named = rows_in(&test_names(), &sections);
    let untested: Vec<&String> = rows
        .iter()
        .filter(|row| named.contains(*row) == excused.contains_key(*row))
        .collect();
    assert_eq!(
        untested,
        Vec::<&String>::new(),
        "no test, or one despite its reason"
    );
}

/// The rows that names tell: `conf_id_05_id_16_only_lower_case` tells ID-05 and ID-16, `k1_an_envoy` K-01.
fn rows_in(names: &[String], sections: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for name in names {
        let words: Vec<&str> = name.split('_').collect();
        let pairs = words.windows(2).map(|pair| (pair[0], pair[1], 2));
        let short = words[0].split_at_checked(1).map(|(k, one)| (k, one, 1));
        for (section, number, digits) in pairs.chain(short) {
            let section = section.to_uppercase();
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            if is_number && number.len() == digits && sections.contains(section.as_str()) {
                rows.insert(format!("{section}-{number:0>2}"));
            }
        }
    }
    rows
}

/// The functions that stand below `#[test]`, `#[tokio::test]` or in a `proptest!`, and the checks of the chart in Python.
fn test_names() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut names = Vec::new();
    for file in sources(&[root.join("crates"), root.join("e2e")], "rs") {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[") {
                test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                continue;
            }
            let line_of_fn = line.strip_prefix("async ").unwrap_or(line);
            if test {
                names.extend(line_of_fn.strip_prefix("fn ").map(up_to_its_arguments));
            }
            // Comments and further lines of an attribute may stand between.
            test &= line.starts_with("//") || line.starts_with(')') || line.ends_with(',');
        }
    }
    for file in sources(&[root.join("helm/tests")], "py") {
        let text = std::fs::read_to_string(&file).unwrap();
        let functions = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("def "));
        names.extend(functions.map(up_to_its_arguments));
    }
    names
}

fn up_to_its_arguments(rest: &str) -> String {
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    rest[..end.unwrap_or(rest.len())].to_owned()
}

fn sources(roots: &[PathBuf], extension: &str) -> Vec<PathBuf> {
    let (mut folders, mut files) = (roots.to_vec(), Vec::new());
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|one| one == extension) {
                files.push(path);
            }
        }
    }
    files
}
