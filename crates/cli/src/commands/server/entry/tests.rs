use std::ffi::OsString;
use std::io::Write as _;

use clap::Parser;
use insta::assert_snapshot;
use proto::spire::api::server::entry::v1::batch_create_entry_response::Result as Created;
use proto::spire::api::server::entry::v1::batch_delete_entry_response::Result as Deleted;
use proto::spire::api::server::entry::v1::{
    BatchCreateEntryResponse, BatchDeleteEntryResponse, CountEntriesResponse, ListEntriesResponse,
};
use proto::spire::api::types;
use tempfile::NamedTempFile;

use super::*;
use crate::output::json;

#[derive(clap::Parser, Debug)]
struct Tree {
    #[command(subcommand)]
    command: Command,
}

fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
    let arguments = ["entry"].iter().chain(arguments).map(OsString::from);
    Tree::try_parse_from(arguments).map(|tree| tree.command)
}

fn create(arguments: &[&str]) -> Result<types::Entry> {
    let arguments = [&["create"], arguments].concat();
    match parse(&arguments)? {
        Command::Create(create) => create.entry(),
        other => panic!("{other:?}"),
    }
}

fn full() -> types::Entry {
    create(&[
        "--entryID=e-1",
        "--parentID=spiffe://example.org/agent",
        "--spiffeID=spiffe://example.org/web",
        "--selector=unix:uid:1000",
        "--selector=unix:path:/bin/web",
        "--x509SVIDTTL=60",
        "--jwtSVIDTTL=30",
        "--federatesWith=spiffe://other.test",
        "--admin",
        "--downstream",
        "--storeSVID",
        "--dns=web.example.org",
        "--entryExpiry=1900000000",
        "--hint=internal",
        "--disableX509SVIDPrefetch",
        "--jwtSVIDIncludeJTI",
    ])
    .unwrap()
}

fn plain() -> types::Entry {
    create(&[
        "--node",
        "--spiffeID=spiffe://example.org/alias",
        "--selector=join_token:cluster:a",
    ])
    .unwrap()
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn entries_are_printed_as_spire_prints_them() {
    let list = ListEntriesResponse {
        entries: vec![full(), plain()],
        next_page_token: String::new(),
    };
    assert_snapshot!(text::listed(&list).out);
    assert_snapshot!(json(&list).unwrap());
    let one = ListEntriesResponse {
        entries: Vec::new(),
        ..list
    };
    assert_snapshot!(text::listed(&one).out, @"Found 0 entries");
    let count = CountEntriesResponse { count: 1 };
    assert_snapshot!(text::numbered(&count).out, @"1 registration entry");
}

#[test]
fn what_failed_is_told_apart() {
    let status = |code, message: &str| {
        Some(types::Status {
            code,
            message: message.into(),
        })
    };
    let answer = BatchCreateEntryResponse {
        results: vec![
            Created {
                status: status(0, "OK"),
                entry: Some(full()),
            },
            Created {
                status: status(6, "similar entry already exists"),
                entry: Some(plain()),
            },
        ],
    };
    let report = text::created(&answer);
    assert!(report.out.starts_with("Entry ID                : e-1\n"));
    assert_snapshot!(report.err);

    let answer = BatchDeleteEntryResponse {
        results: vec![
            Deleted {
                status: status(0, "OK"),
                id: "e-1".into(),
            },
            Deleted {
                status: status(5, "entry not found"),
                id: "e-2".into(),
            },
        ],
    };
    let report = text::deleted(&answer);
    assert_snapshot!(report.out, @"Deleted entry with ID: e-1");
    assert_snapshot!(report.err, @r#"Failed to delete entry with ID e-2 (code: NotFound, msg: "entry not found")"#);
}

#[test]
fn what_an_entry_needs() {
    let check = |arguments: &[&str], expected: &str| {
        let error = create(arguments).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let (id, parent, selector) = (
        "--spiffeID=spiffe://example.org/web",
        "--parentID=spiffe://example.org/agent",
        "--selector=unix:uid:1",
    );
    check(&[id, parent], "at least one selector is required");
    check(&[parent, selector], "a SPIFFE ID is required");
    check(
        &[id, selector],
        "a parent ID is required if the node flag is not set",
    );
    check(
        &[id, selector, "--node", "--federatesWith=other.test"],
        "node entries can not federate",
    );
    for wrong in [
        "--spiffeID=example.org/web",
        "--selector=unix",
        "--x509SVIDTTL=-1",
        "--federatesWith=Other",
        "--entryID=a/b",
    ] {
        let error = parse(&["create", wrong]).unwrap_err().to_string();
        let flag = wrong.split_once('=').unwrap().0;
        assert!(error.contains(flag), "{error}");
    }
}

#[test]
fn a_node_alias_is_below_the_server() {
    let parent = plain().parent_id.unwrap();
    assert_eq!(
        (parent.trust_domain.as_str(), parent.path.as_str()),
        ("example.org", "/spire/server")
    );
}

#[test]
fn entries_are_read_from_spires_files() {
    let read = data::entries(
        file(
            r#"{"entries": [{
                "selectors": [{"type": "unix", "value": "uid:1000"}],
                "spiffe_id": "spiffe://example.org/web",
                "parent_id": "spiffe://example.org/agent",
                "x509_svid_ttl": 60, "federates_with": ["spiffe://other.test"], "entryExpiry": 7
            }]}"#,
        )
        .path(),
    )
    .unwrap();
    let expected = types::Entry {
        expires_at: 7,
        ..create(&[
            "--spiffeID=spiffe://example.org/web",
            "--parentID=spiffe://example.org/agent",
            "--selector=unix:uid:1000",
            "--x509SVIDTTL=60",
            "--federatesWith=other.test",
        ])
        .unwrap()
    };
    assert_eq!(read, [expected]);
}

#[test]
fn what_is_shown_as_json_can_be_created_again() {
    let shown = ListEntriesResponse {
        entries: vec![full(), plain()],
        next_page_token: String::new(),
    };
    let read = data::entries(file(&json(&shown).unwrap()).path()).unwrap();
    assert_eq!(read, shown.entries);
}

#[test]
fn a_bad_file_says_what_is_wrong() {
    let check = |text: &str, expected: &str| {
        let error = format!("{:#}", data::entries(file(text).path()).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    check("{", r#"does not hold {"entries": [...]}: EOF"#);
    check(r#"{"entries": []}"#, "has no entries");
    check(
        r#"{"entries": [{"spiffeid": "x"}]}"#,
        "unknown field `spiffeid`",
    );
    check(
        r#"{"entries": [{"spiffe_id": "example.org/web"}]}"#,
        "a SPIFFE ID starts with `spiffe://`",
    );
    let missing = data::entries("/nowhere/entries.json".as_ref()).unwrap_err();
    assert!(format!("{missing:#}").contains("cannot read /nowhere/entries.json"));
}

#[test]
fn ids_are_read_bare_or_named() {
    for text in [r#"["a", "b"]"#, r#"{"ids": ["a", "b"]}"#] {
        let ids = data::ids(file(text).path()).unwrap();
        assert_eq!(ids.len(), 2);
    }
    assert!(data::ids(file("[]").path()).is_err());
    assert!(data::ids(file(r#"["a/b"]"#).path()).is_err());
}
