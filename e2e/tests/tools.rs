//! `e2e/tools/check-tools`: every tool that is missing or too old is named, with how to get it.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use e2e::binaries::repository;
use tempfile::TempDir;

/// Tools as a machine that has all of them would answer.
const ALL: [(&str, &str); 7] = [
    ("cargo", "echo 'cargo 1.95.0 (f2d3ce0bd 2026-03-21)'"),
    ("cc", "exit 0"),
    ("python3", "exit 0"),
    (
        "go",
        "[ \"$1\" = env ] && echo local || echo 'go version go1.26.8 linux/amd64'",
    ),
    ("npm", "exit 0"),
    ("unshare", "exit 0"),
    ("ip", "exit 0"),
];

fn put(folder: &Path, name: &str, body: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What is said on a machine with all tools but for `change`; nothing when none is missing.
fn said(for_what: &str, change: impl FnOnce(&Path)) -> String {
    let folder = TempDir::new().unwrap();
    for (name, body) in ALL {
        put(folder.path(), name, body);
    }
    change(folder.path());
    let output = Command::new("/bin/bash")
        .arg(repository("e2e/tools/check-tools"))
        .arg(for_what)
        .env_clear()
        .env("PATH", folder.path())
        .env("HOME", "/tmp")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

fn without(name: &'static str) -> impl FnOnce(&Path) {
    move |folder| fs::remove_file(folder.join(name)).unwrap()
}

#[test]
fn a_machine_with_all_of_them_is_told_nothing() {
    for for_what in ["demo", "lint", "test"] {
        assert_eq!(said(for_what, |_| ()), "");
    }
}

#[test]
fn each_missing_tool_is_named_where_it_is_needed() {
    for (name, demo) in [
        ("cargo", true),
        ("cc", true),
        ("python3", true),
        ("go", false),
        ("npm", false),
        ("unshare", false),
        ("ip", false),
    ] {
        let line = format!("missing: {name} - ");
        assert!(said("test", without(name)).starts_with(&line), "{name}");
        assert_eq!(
            said("demo", without(name)).starts_with(&line),
            demo,
            "{name}"
        );
    }
}

#[test]
fn components_of_the_toolchain_are_named() {
    for (component, command) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        let body = format!("[ \"$1\" = {command} ] && exit 1; echo 'cargo 1.95.0'");
        for for_what in ["lint", "test"] {
            let said = said(for_what, |folder| put(folder, "cargo", &body));
            let line = format!("missing: {component} - `rustup component add {component}`\n");
            assert_eq!(said, line);
        }
    }
}

#[test]
fn what_is_too_old_is_named() {
    let old_go = |version: &str, toolchain: &str| {
        let body = format!(
            "[ \"$1\" = env ] && echo {toolchain} || echo 'go version go{version} linux/amd64'"
        );
        said("test", |folder| put(folder, "go", &body))
    };
    assert!(old_go("1.19.8", "").contains("found 1.19.8"));
    assert!(old_go("1.25.1", "local").contains("found 1.25.1"));
    assert_eq!(old_go("1.25.1", "auto"), "", "it fetches a newer one");
    assert_eq!(old_go("1.27rc1", "local"), "");
    let said = said("demo", |folder| {
        put(folder, "cargo", "echo 'cargo 1.80.1 (x)'")
    });
    assert_eq!(
        said,
        "missing: cargo 1.95 - found 1.80.1; `rustup update`\n"
    );
}
