//! The house rules, kept by a test: which room may use which, and which external crate has one home.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Each room and the rooms of ours it may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("identity", &[]),
    ("proto", &["identity"]),
    ("runtime", &[]),
    ("ca", &["identity"]),
    ("store", &["identity"]),
    ("server", &["identity", "proto", "runtime", "ca", "store"]),
    ("agent", &["identity", "proto", "runtime"]),
    ("k8s", &["identity", "proto", "runtime"]),
    (
        "cli",
        &["identity", "proto", "runtime", "server", "agent", "k8s"],
    ),
    (
        "testkit",
        &[
            "identity", "proto", "runtime", "ca", "store", "server", "agent", "k8s",
        ],
    ),
    ("e2e", &["identity", "proto", "testkit"]),
];

/// External crates and the only rooms that may name them.
const HOMES: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("rcgen", &["identity", "ca", "e2e"]),
    ("hcl-rs", &["runtime"]),
    ("prometheus", &["runtime"]),
    ("tracing-subscriber", &["runtime"]),
    ("envoy-types", &["proto"]),
    ("clap", &["cli"]),
    ("prost-reflect", &["cli"]),
    ("kube", &["server", "k8s", "e2e"]),
    ("gotmpl", &["k8s"]),
];

#[test]
fn every_room_uses_only_what_its_charter_allows() {
    let ours: BTreeSet<&str> = ROOMS.iter().map(|(name, _)| *name).collect();
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        // Fuzz targets are tests of the room they stand in.
        if name.ends_with("-fuzz") {
            continue;
        }
        let Some((room, allowed)) = ROOMS.iter().find(|(room, _)| *room == name) else {
            broken.push(format!("{name}: a room without a charter; add it to ROOMS"));
            continue;
        };
        seen.insert(*room);
        for used in normal_dependencies(&package) {
            let home = HOMES.iter().find(|(external, _)| *external == used);
            let stranger = ours.contains(used) && !allowed.contains(&used);
            if stranger || home.is_some_and(|(_, homes)| !homes.contains(room)) {
                broken.push(format!("{room} -> {used}"));
            }
        }
    }
    assert_eq!(
        broken,
        Vec::<String>::new(),
        "arrows the house does not allow"
    );
    assert_eq!(seen, ours, "every room of the table exists");
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn normal_dependencies(package: &Value) -> impl Iterator<Item = &str> {
    let dependencies = package["dependencies"].as_array().unwrap();
    dependencies
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().unwrap())
}
