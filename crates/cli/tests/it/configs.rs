use std::fs;

use crate::{SIGNET, refusal, run};

const SERVER: &str = r#"
server {
    trust_domain = "example.org"
    bind_address = "127.0.0.1"
    bind_port = "8081"
    data_dir = "/tmp/none"
}
plugins {
    DataStore "sql" {
        plugin_data {
            database_type = "sqlite3"
            connection_string = "/tmp/none/datastore.sqlite3"
        }
    }
    KeyManager "memory" {
        plugin_data {}
    }
    NodeAttestor "join_token" {
        plugin_data {}
    }
}
"#;

const AGENT: &str = r#"
agent {
    trust_domain = "example.org"
    server_address = "127.0.0.1"
    server_port = 8081
    data_dir = "/tmp/none"
    insecure_bootstrap = true
}
plugins {
    KeyManager "memory" {
        plugin_data {}
    }
    NodeAttestor "join_token" {
        plugin_data {}
    }
    WorkloadAttestor "unix" {
        plugin_data {}
    }
}
"#;

/// `program validate` on `text`: what it says about it.
fn said(program: &str, text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.conf");
    fs::write(&path, text).unwrap();
    let said = refusal(&[program, "validate", "-config", path.to_str().unwrap()]);
    assert!(said.contains("broken.conf"), "names the file: {said}");
    said
}

#[test]
fn whole_configurations_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    for (program, text) in [("server", SERVER), ("agent", AGENT)] {
        let path = folder.path().join("whole.conf");
        fs::write(&path, text).unwrap();
        let output = run(
            SIGNET,
            &[program, "validate", "-config", path.to_str().unwrap()],
        );
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let expected = format!("SPIRE {program} configuration file is valid.\n");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}

#[test]
fn e7_broken_configurations_are_named_by_path() {
    // Of which program, what is changed into what, and what has to be said.
    let cases = [
        (
            "server",
            "data_dir",
            "data_dri",
            "server.data_dri: unknown key; did you mean `data_dir`?",
        ),
        ("server", "\"8081\"", "\"http\"", "server.bind_port"),
        ("server", "\"8081\"", "70000", "server.bind_port"),
        (
            "server",
            "\"127.0.0.1\"",
            "\"localhost:1\"",
            "server.bind_address",
        ),
        (
            "server",
            "\"example.org\"",
            "\"Example.ORG/x\"",
            "server.trust_domain",
        ),
        (
            "server",
            "trust_domain",
            "#",
            "server.trust_domain: missing",
        ),
        ("server", "sqlite3\"", "oracle\"", "plugins.DataStore.sql"),
        ("server", "\"memory\"", "\"tpm\"", "plugins.KeyManager"),
        (
            "agent",
            "server_address",
            "server_adress",
            "agent.server_adress",
        ),
        ("agent", "8081", "-1", "agent.server_port"),
        ("agent", "insecure_bootstrap = true", "", "agent"),
        (
            "agent",
            "\"unix\"",
            "\"windows\"",
            "plugins.WorkloadAttestor",
        ),
        (
            "agent",
            "NodeAttestor \"join_token\"",
            "NodeAttestor",
            "plugins.NodeAttestor",
        ),
    ];
    for (program, from, to, expected) in cases {
        let whole = if program == "server" { SERVER } else { AGENT };
        assert!(whole.contains(from));
        let said = said(program, &whole.replace(from, to));
        assert!(said.contains(expected), "{from} → {to}: {said}");
    }
}

#[test]
fn e7_text_that_is_no_configuration() {
    for text in [
        "",
        "{",
        "[]",
        "server",
        "server {",
        "\u{0}\u{1}",
        "server { a = 1 b = 2 }\n",
        &"{".repeat(50_000),
    ] {
        said("server", text);
        said("agent", text);
    }
}

#[test]
fn every_mistake_is_told_in_one_run() {
    let text = SERVER
        .replace("data_dir", "data_dri")
        .replace("\"8081\"", "\"http\"")
        .replace("sqlite3\"", "oracle\"");
    let said = said("server", &text);
    for part in ["data_dri", "bind_port", "DataStore"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn e7_a_file_that_cannot_be_read() {
    let said = refusal(&["server", "validate", "-config", "/none/server.conf"]);
    assert!(said.contains("/none/server.conf"), "{said}");
    assert!(said.contains("No such file"), "{said}");
}

#[test]
fn the_environment_is_put_in_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.conf");
    fs::write(&path, SERVER.replace("8081", "$PORT")).unwrap();
    let validate = |expand: bool| {
        let mut command = std::process::Command::new(SIGNET);
        command
            .args(["server", "validate", "-config"])
            .arg(&path)
            .env("PORT", "8081");
        if expand {
            command.arg("-expandEnv");
        }
        command.output().unwrap().status.success()
    };
    assert!(validate(true));
    assert!(!validate(false));
}
