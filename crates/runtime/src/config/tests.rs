use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn problems<T>(read: Result<T, Problems>) -> Vec<String> {
    let problems = read.err().map(|problems| problems.0).unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

const HCL: &str = r#"
agent {
    data_dir = "/var/lib/agent"
    server_port = 443
    sync_interval = "5s"
    insecure = false
}
plugins {
    KeyManager "disk" {
        plugin_data {
            directory = "/keys"
        }
    }
    WorkloadAttestor "unix" {
        plugin_data {}
    }
    WorkloadAttestor "k8s" {
        plugin_data {
            node_name_env = "A"
        }
    }
}
"#;

/// What the Helm chart renders for the same: text for numbers, lists of blocks, `null` for nothing.
const JSON: &str = r#"{
    "agent": {"data_dir": "/var/lib/agent", "server_port": "443", "sync_interval": "5s", "insecure": "false"},
    "plugins": {
        "KeyManager": [{"disk": {"plugin_data": {"directory": "/keys"}}}],
        "WorkloadAttestor": [{"unix": {"plugin_data": null}}, {"k8s": {"plugin_data": {"node_name_env": "A"}}}]
    }
}"#;

type Example = (String, u16, Duration, bool, Vec<(String, bool)>);

fn example(root: &mut Section) -> Option<Example> {
    let mut agent = root.required_section("agent");
    let data_dir = agent.required("data_dir");
    let port = agent.get("server_port").unwrap_or(8081);
    let sync = agent.get("sync_interval").unwrap_or(Duration::from_secs(1));
    let insecure = agent.get("insecure").unwrap_or(true);

    let mut plugins = root.section("plugins");
    let mut names = Vec::new();
    for key in ["KeyManager", "WorkloadAttestor"] {
        for (name, mut plugin) in plugins.labelled(key) {
            let mut data = plugin.section("plugin_data");
            data.ignore("directory");
            let has_env = data.get::<String>("node_name_env").is_some();
            names.push((name, has_env));
        }
    }
    names.sort();
    Some((data_dir?, port, sync, insecure, names))
}

#[test]
fn hcl_and_the_charts_json_give_the_same() {
    let names = [("disk", false), ("k8s", true), ("unix", false)];
    let expected = (
        "/var/lib/agent".to_owned(),
        443,
        Duration::from_secs(5),
        false,
        names.map(|(name, env)| (name.to_owned(), env)).to_vec(),
    );
    assert_eq!(read(HCL, None, example), Ok(expected.clone()));
    assert_eq!(read(JSON, None, example), Ok(expected));
}

#[test]
fn every_mistake_is_reported_in_one_run() {
    let text = r#"
        agent {
            data_dri = "/var/lib/agent"
            server_port = "http"
            sync_interval = "5 minutes"
            insecure = "maybe"
            log_level = "LOUD"
            trust_domain = "UPPER"
        }
        plugins {
            KeyManager "disk" {
                plugin_data {
                    directroy = "/keys"
                }
            }
        }
        colour = "red"
    "#;
    let found = problems(read(text, None, |root| {
        let mut agent = root.section("agent");
        let data_dir = agent.required::<String>("data_dir");
        agent.get::<u16>("server_port");
        agent.get::<Duration>("sync_interval");
        agent.get::<bool>("insecure");
        agent.choice("log_level", &[("INFO", 1), ("DEBUG", 2)]);
        agent.required_parse("trust_domain", |text| {
            Err::<(), _>(format!("{text} must be lower-case"))
        });
        agent.required_section("workload_api");
        let mut plugins = root.section("plugins");
        for (_, mut plugin) in plugins.labelled("KeyManager") {
            plugin.section("plugin_data").get::<String>("directory");
        }
        data_dir
    }));
    assert_eq!(
        found,
        [
            "agent.data_dir: missing; give text in quotes",
            "agent.server_port: \"http\" will not do; give a whole number from 0 to 65535",
            "agent.sync_interval: \"5 minutes\" will not do; give a duration such as \"30s\" or \"1h30m\"",
            "agent.insecure: \"maybe\" will not do; give true or false",
            "agent.log_level: \"LOUD\" will not do; give one of \"INFO\", \"DEBUG\"",
            "agent.trust_domain: UPPER must be lower-case",
            "agent.workload_api: the block is missing; give workload_api { … }",
            "plugins.KeyManager.disk.plugin_data.directroy: unknown key; did you mean `directory`?",
            "agent.data_dri: unknown key; did you mean `data_dir`?",
            "colour: unknown key; known here are agent, plugins",
        ]
    );
}

#[test]
fn rendered_files_leave_things_empty() {
    let text = r#"{"agent": {"a": null, "b": "", "c": "", "d": ""}, "health": null}"#;
    let read = read(text, None, |root| {
        let mut agent = root.section("agent");
        let a = agent.get::<String>("a");
        let b = agent.get::<Duration>("b");
        let c = agent.parse("c", |_| Err::<u8, _>("not asked"));
        let d = agent.choice("d", &[("x", 1)]);
        let health = root.section("health").is_present();
        Some((a, b, c, d, health))
    });
    assert_eq!(read, Ok((None, None, None, None, true)));
}

#[test]
fn blocks_of_the_wrong_shape() {
    let text = r#"{"agent": 5, "plugins": {"KeyManager": "disk", "NodeAttestor": {"a": 1}}}"#;
    let found = problems(read(text, None, |root| {
        root.section("agent");
        let mut plugins = root.section("plugins");
        plugins.labelled("KeyManager");
        plugins.labelled("NodeAttestor");
        Some(())
    }));
    assert_eq!(
        found,
        [
            "agent: write it as a block: agent { … }",
            "plugins.KeyManager: write it as a block with a label: KeyManager \"…\" { … }",
            "plugins.NodeAttestor.a: write it as a block with a label: NodeAttestor \"…\" { … }",
        ]
    );
}

#[test]
fn a_label_given_twice_comes_twice() {
    let text = "p \"a\" {\n x = 1\n}\np \"a\" {\n x = 2\n}\n";
    let values = read(text, None, |root| {
        let blocks = root.labelled("p");
        Some(
            blocks
                .into_iter()
                .filter_map(|(_, mut block)| block.get::<u8>("x"))
                .collect::<Vec<_>>(),
        )
    });
    assert_eq!(values, Ok(vec![1, 2]));
}

#[test]
fn e7_broken_files_say_what_to_write() {
    let check = |text: &str, part: &str| {
        let found = problems(read(text, None, |root| {
            root.ignore_rest();
            Some(())
        }));
        assert!(
            found.iter().any(|problem| problem.contains(part)),
            "{text}: {found:?}"
        );
    };
    check("{\"agent\": ", "not valid JSON: EOF");
    check("agent {\n  a = 1\n", "not valid HCL at line");
    check("agent {\n a = 1 b = 2\n}\n", "write one key a line");
    check(
        "KeyManager \"disk\" { plugin_data { } }\n",
        "write each block over several lines",
    );
    check("\"agent\" {\n}\n", "write the key without quotes");
    check("agent {\n a = \n}\n", "line 2");
    check("agent {\n a = \"x\n}\n", "line 2");
    check("agent = {\n}}\n", "line 2");
    check("[1]", "not valid HCL");
    check("\u{0}", "not valid HCL");
    check(&format!("a = {}", "[".repeat(100_000)), "nested");
    check(&format!("{{\"a\": {}", "[".repeat(100_000)), "recursion");
}

#[test]
fn the_environment_is_expanded_when_asked() {
    let environment = BTreeMap::from([("PORT".to_owned(), "8081".to_owned())]);
    let port = |root: &mut Section| root.required::<u16>("port");
    assert_eq!(read("port = ${PORT}\n", Some(&environment), port), Ok(8081));
    assert_eq!(
        read("{\"port\": \"$PORT\"}", Some(&environment), port),
        Ok(8081)
    );
    assert_eq!(
        problems(read("port = \"$OTHER\"\n", Some(&environment), port)),
        [
            "the environment variable `OTHER` is not set",
            "port: missing; give a whole number from 0 to 65535"
        ]
    );
    let literal = |root: &mut Section| root.required::<String>("a");
    assert_eq!(
        read("a = \"${PORT}\"\n", None, literal),
        Ok("${PORT}".to_owned())
    );
}

proptest! {
    #[test]
    fn no_text_panics(text: String) {
        let _ = read(&text, Some(&BTreeMap::new()), |root| {
            root.section("agent");
            root.labelled("plugins");
            Some(())
        });
    }

    #[test]
    fn no_hcl_like_text_panics(text in "([a-z]{1,3}|\"[a-z$]{0,3}\"|[={}\\[\\],\n#$ ]|[0-9]|<<E\n|\\$\\{){0,40}") {
        let _ = read(&text, None, example);
    }

    #[test]
    fn unknown_keys_are_always_found(key in "[a-z_]{1,20}", text in "[a-z]{0,5}") {
        let file = format!("{key} = \"{text}\"\n");
        let found = problems(read(&file, None, |_| Some(())));
        prop_assert_eq!(found.len(), 1);
        prop_assert!(found[0].starts_with(&key));
        let known = read(&file, None, |root| root.required::<String>(&key).or(Some(String::new())));
        prop_assert_eq!(known.is_ok(), !text.is_empty());
    }
}
