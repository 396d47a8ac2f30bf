use std::fmt::Write as _;

use super::*;

const LEAST: &str = r#"server { trust_domain = "example.org" }"#;

const FULL: &str = r#"
server {
    bind_address = "127.0.0.1"
    bind_port = "18081"
    socket_path = "/run/spire/api.sock"
    trust_domain = "example.org"
    data_dir = "/var/lib/spire"
    log_level = "DEBUG"
    log_format = "json"
    log_file = "/var/log/spire.log"
    admin_ids = ["spiffe://example.org/admin", "spiffe://partner.test/admin"]
    audit_log_enabled = true
    ca_key_type = "ec-p384"
    ca_ttl = "168h"
    ca_subject {
        country = ["DE"]
        organization = ["Example"]
        common_name = "example.org"
    }
    default_x509_svid_ttl = "2h"
    default_jwt_svid_ttl = "10m"
    agent_ttl = "4h"
    jwt_issuer = "https://issuer.example.org"
    prune_attested_nodes_expired_for = "720h"
    prune_tofu_nodes = true
    tls_min_version = "1.2"
    ratelimit {
        attestation = false
    }
    experimental {
        cache_reload_interval = "1s"
    }
}

plugins {
    DataStore "sql" {
        plugin_data {
            database_type = "sqlite3"
            connection_string = "/var/lib/spire/db.sqlite3"
        }
    }
    KeyManager "disk" {
        plugin_data {
            keys_path = "/var/lib/spire/keys.json"
        }
    }
    NodeAttestor "join_token" {
        plugin_data {}
    }
    NodeAttestor "x509pop" {
        plugin_data {
            ca_bundle_path = "/etc/spire/agents.pem"
        }
    }
    NodeAttestor "k8s_psat" {
        plugin_data {
            clusters = {
                "prod" = {
                    service_account_allow_list = ["spire:spire-agent"]
                    audience = []
                    kube_config_file = "/etc/prod"
                    allowed_node_label_keys = ["zone"]
                    allowed_pod_label_keys = ["app"]
                    use_pod_uid_for_agent_id = true
                }
                "test" = {
                    service_account_allow_list = ["spire:agent", "other:agent"]
                }
            }
        }
    }
    NodeAttestor "aws_iid" {
        enabled = false
        plugin_data {
            region = "x"
        }
    }
}

telemetry {
    Prometheus {
        host = "0.0.0.0"
        port = 9988
    }
}

health_checks {
    listener_enabled = true
    bind_address = "0.0.0.0"
    bind_port = "8080"
}
"#;

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, None, Overrides::default())
}

#[test]
fn defaults_are_spires() {
    let config = parse(LEAST).unwrap();
    insta::assert_debug_snapshot!(config);
}

#[test]
fn every_key_is_read() {
    let config = parse(FULL).unwrap();
    insta::assert_debug_snapshot!(config);
}

#[test]
fn json_is_read_like_hcl() {
    let json = r#"{
        "server": {"trust_domain": "example.org", "bind_port": "443", "ca_ttl": "24h"},
        "plugins": {
            "DataStore": [{"sql": {"plugin_data": {"database_type": "sqlite3", "connection_string": "/d/db.sqlite3"}}}],
            "KeyManager": {"memory": {"plugin_data": {}}},
            "NodeAttestor": {"join_token": {"plugin_data": {}}}
        }
    }"#;
    let config = parse(json).unwrap();
    assert_eq!(config.bind_address.port(), 443);
    assert_eq!(config.key_manager, KeyManager::Memory);
    assert!(config.node_attestors.join_token);
    let path = PathBuf::from("/d/db.sqlite3");
    assert_eq!(config.data_store, DataStore::Sqlite { path });
}

/// A guide's federated server: what of it has no effect yet says so.
#[test]
fn a_guides_server_conf_is_read() {
    let config = parse(
        r#"
    server {
      trust_domain = "cluster-a.example.org"

      federation {
        bundle_endpoint {
          address = "0.0.0.0"
          port = 8443
        }

        federates_with "cluster-b.example.org" {
          bundle_endpoint_url = "https://spire-server.cluster-b.example.org:8443"
          bundle_endpoint_profile "https_spiffe" {
            endpoint_spiffe_id = "spiffe://cluster-b.example.org/spire/server"
          }
        }
      }
    }
    "#,
    )
    .unwrap();
    assert_eq!(config.trust_domain.as_str(), "cluster-a.example.org");
    insta::assert_snapshot!(config.warnings.join("\n"));
}

#[test]
fn the_command_line_wins() {
    let overrides = Overrides {
        bind_address: Some("::1".parse().unwrap()),
        bind_port: Some(0),
        socket_path: Some("/s".into()),
        trust_domain: Some(TrustDomain::parse("other.test").unwrap()),
        data_dir: Some("/d".into()),
        log_file: Some("/l".into()),
        log_format: Some(log::Format::Text),
        log_level: Some(log::Level::Error),
    };
    let config = Config::parse(FULL, None, overrides).unwrap();
    assert_eq!(config.bind_address.to_string(), "[::1]:0");
    assert_eq!(config.socket_path, PathBuf::from("/s"));
    assert_eq!(config.trust_domain.as_str(), "other.test");
    assert_eq!(config.data_dir, PathBuf::from("/d"));
    assert_eq!(config.log.file, Some("/l".into()));
    assert_eq!(config.log.format, log::Format::Text);
    assert_eq!(config.log.level, log::Level::Error);
}

#[test]
fn a_trust_domain_on_the_command_line_suffices() {
    let overrides = Overrides {
        trust_domain: Some(TrustDomain::parse("other.test").unwrap()),
        ..Overrides::default()
    };
    let config = Config::parse("server {}", None, overrides).unwrap();
    assert_eq!(config.trust_domain.as_str(), "other.test");
}

#[test]
fn the_environment_stands_in_where_asked() {
    let environment = BTreeMap::from([("TD".to_owned(), "env.test".to_owned())]);
    let text = r#"server { trust_domain = "$TD" }"#;
    let config = Config::parse(text, Some(&environment), Overrides::default()).unwrap();
    assert_eq!(config.trust_domain.as_str(), "env.test");
    parse(text).unwrap_err();
}

/// E7: each broken file with all that is said about it.
#[test]
fn e7_broken_files_are_explained() {
    let broken = [
        "",
        "server {",
        "server { }",
        r#"server { trust_domain = "Not A Domain" }"#,
        r#"server { trust_domain = "example.org" trust_domian = "x" }"#,
        "server {\n trust_domain = \"example.org\"\n data_dri = \"/x\"\n bind_port = 70000\n bind_address = \"localhost\"\n}",
        "server {\n trust_domain = \"example.org\"\n ca_ttl = \"a day\"\n agent_ttl = \"0s\"\n ca_key_type = \"ed25519\"\n log_level = \"LOUD\"\n}",
        "server {\n trust_domain = \"example.org\"\n admin_ids = [\"example.org/admin\", \"spiffe://example.org/ok\", \"spiffe://example.org/a/../b\"]\n}",
        "server {\n trust_domain = \"example.org\"\n tls_min_version = \"1.1\"\n experimental {\n auth_opa_policy_engine {\n local {\n rego_path = \"x\"\n}\n}\n}\n}",
        "server {\n trust_domain = \"example.org\"\n}\nplugins {\n DataStore \"sql\" {\n plugin_data {\n database_type = \"postgres\"\n connection_string = \"dbname=x\"\n}\n}\n}",
        "server {\n trust_domain = \"example.org\"\n}\nplugins {\n DataStore \"sql\" {\n plugin_data {\n database_type = \"sqlite3\"\n connection_string = \":memory:\"\n}\n}\n}",
        "server {\n trust_domain = \"example.org\"\n}\nplugins {\n DataStore \"kv\" {\n plugin_data {}\n}\n KeyManager \"disk\" {\n plugin_data {}\n}\n}",
        "server {\n trust_domain = \"example.org\"\n}\nplugins {\n KeyManager \"memory\" {\n plugin_data {}\n}\n KeyManager \"aws_kms\" {\n plugin_data {\n region = \"x\"\n}\n}\n}",
        "server {\n trust_domain = \"example.org\"\n}\nplugins {\n NodeAttestor \"aws_iid\" {\n plugin_data {}\n}\n NodeAttestor \"astrology\" {\n plugin_data {}\n}\n NodeAttestor \"x509pop\" {\n plugin_data {}\n}\n}",
        "server {\n trust_domain = \"example.org\"\n}\nplugins {\n NodeAttestor \"k8s_psat\" {\n plugin_data {\n clusters = {\n \"a/b\" = {\n service_account_allow_list = [\"spire\"]\n}\n \"c\" = {\n service_acount_allow_list = [\"a:b\"]\n}\n}\n}\n}\n}",
        "server {\n trust_domain = \"example.org\"\n}\nplugins {\n UpstreamAuthority \"disk\" {\n plugin_data {\n cert_file_path = \"x\"\n}\n}\n NodeAttestor \"join_token\" {\n plugin_cmd = \"/bin/x\"\n plugin_data {}\n}\n}",
        "server {\n trust_domain = \"example.org\"\n}\ntelemetry {\n Prometheus {\n host = \"here\"\n}\n Statsd = [{ address = \"x\" }]\n}\nhealth_checks {\n listener_enabled = true\n live_path = \"live\"\n}",
        "server {\n trust_domain = \"example.org\"\n}\nserver_extra {\n}",
        r#"{"server": {"trust_domain": "example.org", "bind_port": true, "audit_log_enabled": "perhaps"}}"#,
        r#"{"server": "#,
    ];
    let mut said = String::new();
    for text in broken {
        let problems = parse(text).unwrap_err();
        write!(said, "{text}\n----\n{problems}\n\n").unwrap();
    }
    insta::assert_snapshot!(said);
}

/// What a file says wrongly in one line of the block `server`.
fn problem(line: &str) -> String {
    let text = format!("server {{\n trust_domain = \"example.org\"\n {line}\n}}");
    parse(&text).map(drop).unwrap_err().to_string()
}

#[test]
fn an_authority_lives_at_least_six_seconds() {
    for ttl in ["5s", "5999ms", "1s"] {
        let said = problem(&format!("ca_ttl = \"{ttl}\""));
        assert!(
            said.contains("ca_ttl") && said.contains("give at least \"6s\""),
            "{said}"
        );
    }
    let config = parse("server {\n trust_domain = \"example.org\"\n ca_ttl = \"6s\"\n}").unwrap();
    assert_eq!(config.ca.ca_ttl, Duration::from_secs(6));
}

#[test]
fn agents_are_pruned_in_batches() {
    let prune = |batch: &str| {
        let text = format!(
            "server {{\n trust_domain = \"example.org\"\n prune_attested_nodes_expired_for = \"1h\"\n {batch}\n}}"
        );
        parse(&text).unwrap().prune_agents.unwrap().batch_size
    };
    assert_eq!(prune(""), 1000);
    assert_eq!(prune("prune_attested_nodes_batch_size = 7"), 7);
    let said = problem("prune_attested_nodes_batch_size = 0");
    assert!(said.contains("give at least 1"), "{said}");
}

#[test]
fn a_prefix_of_svids_means_nothing_to_an_external_pki() {
    let text = |mode: &str| {
        format!(
            "server {{\n trust_domain = \"example.org\"\n}}\nplugins {{\n NodeAttestor \"x509pop\" {{\n \
             plugin_data {{\n svid_prefix = \"/nodes\"\n {mode}\n}}\n}}\n}}"
        )
    };
    let said = parse(&text("ca_bundle_path = \"ca.pem\""))
        .map(drop)
        .unwrap_err();
    assert!(said.to_string().contains("svid_prefix"), "{said}");
    parse(&text("mode = \"spiffe\"")).unwrap();
}
