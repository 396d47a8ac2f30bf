//! `docs/kubernetes-annotations.md` holds what the code holds. `SIGNET_UPDATE=1 cargo test -p k8s annotations_doc` rewrites it.

use std::fmt::Write as _;
use std::path::Path;

use k8s::inject::REFUSALS;
use k8s::inject::annotations::ANNOTATIONS;

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/kubernetes-annotations.md"
);

fn annotations() -> String {
    let mut table = String::from(
        "| Annotation | Modes | Value | Default | Example | What it does |\n|---|---|---|---|---|---|\n",
    );
    for a in ANNOTATIONS {
        let cells = [a.kind, a.default, a.text].map(|cell| cell.replace('|', "\\|"));
        let example = a.example.replace('|', "\\|");
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} | `{example}` | {} |",
            a.name, a.modes, cells[0], cells[1], cells[2]
        );
    }
    table
}

fn refusals() -> String {
    let mut table = String::from("| Reason | Meaning |\n|---|---|\n");
    for (code, meaning) in REFUSALS {
        let _ = writeln!(table, "| `{code}` | {meaning} |");
    }
    table
}

/// Puts `table` between the file's markers of that name.
fn put(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name}: generated -->\n"),
        format!("<!-- /{name} -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the first marker");
    let (_, after) = rest.split_once(&end).expect("the second marker");
    format!("{before}{begin}{table}{end}{after}")
}

#[test]
fn annotations_doc_is_current() {
    let text = std::fs::read_to_string(FILE).expect("the page");
    let current = put(&text, "annotations", &annotations());
    let current = put(&current, "refusals", &refusals());
    #[expect(clippy::disallowed_methods, reason = "a test's switch")]
    if std::env::var("SIGNET_UPDATE").is_ok() {
        std::fs::write(Path::new(FILE), &current).expect("write the page");
    }
    assert!(
        text == current,
        "docs/kubernetes-annotations.md is old: run SIGNET_UPDATE=1 cargo test -p k8s annotations_doc"
    );
}
