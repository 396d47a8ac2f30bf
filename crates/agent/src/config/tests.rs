use std::path::Path;

use super::*;

/// A whole file in SPIRE's manner.
const FULL: &str = r#"
agent {
    data_dir = "/var/lib/agent"
    log_level = "DEBUG"
    log_format = "json"
    server_address = "spire-server"
    server_port = "8081"
    socket_path = "/run/agent/api.sock"
    trust_bundle_path = "/etc/bundle.pem"
    trust_domain = "example.org"
    workload_x509_svid_key_type = "rsa-2048"
    availability_target = "48h"
    x509_svid_cache_max_size = 50
    allowed_foreign_jwt_claims = ["sub2"]
    rebootstrap_mode = "never"
    sds {
        default_bundle_name = "null"
        default_all_bundles_name = "ROOTCA"
        default_svid_hint = "external"
        hold_max = "2m"
        deny_when_revoked = true
        allow_list "peers" {
            ids = ["spiffe://example.org/web", "spiffe://partner.test/*"]
        }
    }
    experimental {
        sync_interval = "10s"
    }
}
plugins {
    NodeAttestor "k8s_psat" {
        plugin_data {
            cluster = "prod"
        }
    }
    KeyManager "memory" {
        plugin_data {}
    }
    WorkloadAttestor "unix" {
        plugin_data {
            discover_workload_path = true
            workload_size_limit = -1
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
    bind_port = 9982
}
"#;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::parse(text, None, Overrides::default())
        .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
}

#[test]
fn spires_keys_are_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.server.to_string(), "spire-server:8081");
    assert_eq!(config.data_dir, Path::new("/var/lib/agent"));
    assert_eq!(config.workload_key_type, KeyType::Rsa2048);
    assert_eq!(config.sync_interval, Duration::from_secs(10));
    assert_eq!(config.x509_svid_cache_max_size, 50);
    assert_eq!(config.jwt_svid_cache_max_size, 1000);
    assert_eq!(config.sds.default_bundle_name, "null");
    assert_eq!(config.sds.default_svid_hint.as_deref(), Some("external"));
    assert_eq!(config.sds.hold_max, Duration::from_mins(2));
    assert_eq!(config.sds.authority_ack_timeout, Duration::from_secs(5));
    assert!(config.sds.deny_when_revoked);
    assert_eq!(config.sds.allow_lists["peers"].iter().count(), 2);
    assert_eq!(config.key_manager, KeyManager::Memory);
    assert_eq!(config.log.format, log::Format::Json);
    assert_eq!(
        config.workload_attestors.unix,
        Some(UnixAttestorConfig {
            discover_workload_path: true,
            workload_size_limit: Some(0),
        })
    );
    assert!(matches!(config.node_attestor, NodeAttestor::K8sPsat { .. }));
    assert_eq!(config.telemetry.prometheus.unwrap().port(), 9988);
    assert_eq!(config.health.unwrap().ready_path, "/ready");
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].starts_with("agent.rebootstrap_mode"));
}

#[test]
fn the_json_of_the_official_chart_is_read() {
    let json = r#"{
        "agent": {
            "data_dir": "/var/lib/spire", "insecure_bootstrap": false, "log_level": "info",
            "retry_bootstrap": true, "server_address": "spire-server.spire", "server_port": "443",
            "socket_path": "/tmp/spire-agent/public/spire-agent.sock",
            "trust_bundle_format": "spiffe", "trust_bundle_path": "/run/spire/bundle/bundle.spiffe",
            "trust_domain": "example.org"
        },
        "health_checks": {"bind_address": "0.0.0.0", "bind_port": "9982", "listener_enabled": true,
            "live_path": "/live", "ready_path": "/ready"},
        "plugins": {
            "KeyManager": [{"memory": {"plugin_data": null}}],
            "NodeAttestor": [{"k8s_psat": {"plugin_data": {"cluster": "example-cluster"}}}],
            "WorkloadAttestor": [{"unix": {"plugin_data": {}}}]
        }
    }"#;
    let config = parse(json).unwrap();
    assert_eq!(config.server.port, 443);
    assert!(matches!(
        config.bootstrap,
        Bootstrap::File {
            format: BundleFormat::Spiffe,
            ..
        }
    ));
}

#[test]
fn every_mistake_is_told_in_one_run() {
    let text = r#"
agent {
    trust_domain = "Example Org"
    server_port = "many"
    data_dri = "/x"
    trust_bundle_url = "http://x/bundle"
    availability_target = "1h"
    admin_socket_path = "/x"
    authorized_delegates = ["web"]
    experimental {
        use_sync_authorized_entries = false
    }
}
plugins {
    NodeAttestor "aws_iid" {
        plugin_data {}
    }
    KeyManager "floppy" {
        plugin_data {}
    }
    WorkloadAttestor "docker" {
        plugin_data {}
    }
    WorkloadAttestor "unix" {
        plugin_cmd = "/bin/x"
        plugin_data {}
    }
}
telemetry {
    Statsd {}
}
"#;
    let problems = parse(text).unwrap_err();
    for path in [
        "agent.trust_domain",
        "agent.server_address",
        "agent.server_port",
        "agent.data_dri",
        "agent.trust_bundle_url",
        "agent.availability_target",
        "agent.admin_socket_path",
        "agent.authorized_delegates",
        "agent.experimental.use_sync_authorized_entries",
        "plugins.NodeAttestor.aws_iid",
        "plugins.KeyManager.floppy",
        "plugins.WorkloadAttestor.docker",
        "plugins.WorkloadAttestor.unix.plugin_cmd",
        "telemetry.Statsd",
    ] {
        let told = problems
            .iter()
            .any(|problem| problem.starts_with(&format!("{path}:")));
        assert!(told, "{path} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 14, "{problems:#?}");
}

#[test]
fn the_first_trust_is_exactly_one() {
    let with = |lines: &str| {
        parse(&FULL.replace("trust_bundle_path = \"/etc/bundle.pem\"", lines))
            .map(|config| config.bootstrap)
    };
    assert_eq!(with("insecure_bootstrap = true"), Ok(Bootstrap::Insecure));
    assert!(matches!(
        with("trust_bundle_url = \"https://x/b\""),
        Ok(Bootstrap::Url { .. })
    ));
    assert!(with("").unwrap_err()[0].contains("insecure_bootstrap"));
    let two = "insecure_bootstrap = true\n    trust_bundle_path = \"/x\"";
    assert!(with(two).unwrap_err()[0].contains("only one"));
}

#[test]
fn the_command_line_wins() {
    let overrides = Overrides {
        server_address: Some("10.0.0.1".to_owned()),
        server_port: Some(1),
        trust_domain: Some(TrustDomain::new("other.org").unwrap()),
        socket_path: Some("/x".into()),
        ..Overrides::default()
    };
    let config = Config::parse(FULL, None, overrides).unwrap();
    assert_eq!(config.server.to_string(), "10.0.0.1:1");
    assert_eq!(config.trust_domain.as_str(), "other.org");
    assert_eq!(config.socket_path, Path::new("/x"));
}

#[test]
fn a_join_token_is_taken_from_flag_or_file_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "secret-token\n").unwrap();
    let text = FULL
        .replace("NodeAttestor \"k8s_psat\"", "NodeAttestor \"join_token\"")
        .replace("cluster = \"prod\"", "");
    let overrides = Overrides {
        join_token_file: Some(file),
        ..Overrides::default()
    };
    let config = Config::parse(&text, None, overrides).unwrap();
    let NodeAttestor::JoinToken(Some(token)) = &config.node_attestor else {
        panic!("no token");
    };
    assert_eq!(token.secret(), "secret-token");
    assert!(!format!("{config:?}").contains("secret-token"));
    assert!(matches!(
        parse(&text).unwrap().node_attestor,
        NodeAttestor::JoinToken(None)
    ));
}

/// An empty list, or one under a name that means something else, would let in whom nobody meant.
#[test]
fn s_5_24_an_allow_list_that_would_mislead_is_refused() {
    for (list, told) in [
        (r#"allow_list "peers" { ids = [] }"#, "the list is empty"),
        (r#"allow_list "peers" { }"#, "the list is empty"),
        (
            r#"allow_list "peers" { ids = ["example.org/web"] }"#,
            "write a SPIFFE ID",
        ),
        (
            r#"allow_list "ROOTCA" { ids = ["spiffe://example.org/web"] }"#,
            "stands for something else",
        ),
        (
            r#"allow_list "hint:x" { ids = ["spiffe://example.org/web"] }"#,
            "stands for something else",
        ),
    ] {
        let text = FULL.replace(r#"default_bundle_name = "null""#, list);
        let problems = parse(&text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].contains("agent.sds.allow_list") && problems[0].contains(told),
            "{problems:?}"
        );
    }
}

fn k8s_config(data: &str) -> Result<K8sAttestorConfig, Vec<String>> {
    let whole = format!(
        "agent {{\n trust_domain = \"example.org\"\n server_address = \"s\"\n server_port = 1\n insecure_bootstrap = true\n}}\n\
         plugins {{\n NodeAttestor \"join_token\" {{\n plugin_data {{}}\n}}\n\
         WorkloadAttestor \"k8s\" {{\n plugin_data {{\n{data}\n}}\n}}\n}}"
    );
    parse(&whole).map(|config| config.workload_attestors.k8s.unwrap())
}

#[test]
fn the_kubelet_is_asked_as_spires_agent_does() {
    let config = k8s_config("").unwrap();
    assert_eq!(
        config.port,
        KubeletPort::Secure {
            port: 10_250,
            ca_path: Some("/run/secrets/kubernetes.io/serviceaccount/ca.crt".into()),
            auth: KubeletAuth::Token("/run/secrets/kubernetes.io/serviceaccount/token".into()),
        }
    );
    assert_eq!(config.node_name_env, "MY_NODE_NAME");
    assert_eq!(config.max_poll_attempts, 60);
    assert_eq!(config.poll_retry_interval, Duration::from_millis(500));
    // The official chart's.
    let config = k8s_config(
        "disable_container_selectors = true\n skip_kubelet_verification = true\n use_new_container_locator = true\n\
         verbose_container_locator_logs = false\n node_name_env = \"NODE\"\n max_poll_attempts = 3\n\
         poll_retry_interval = \"1s\"\n reload_interval = \"1m\"\n certificate_path = \"/c\"\n private_key_path = \"/k\"",
    )
    .unwrap();
    assert!(config.disable_container_selectors);
    assert_eq!(config.node_name_env, "NODE");
    let KubeletPort::Secure { ca_path, auth, .. } = &config.port else {
        panic!("{config:?}");
    };
    assert_eq!(*ca_path, None);
    assert!(matches!(auth, KubeletAuth::Certificate { .. }));
    let read_only = k8s_config("kubelet_read_only_port = \"10255\"\n node_name = \"n\"").unwrap();
    assert_eq!(read_only.port, KubeletPort::ReadOnly(10_255));
    assert_eq!(read_only.node_name.as_deref(), Some("n"));
}

#[test]
fn mistakes_about_the_kubelet_are_told() {
    for (data, said) in [
        (
            "kubelet_read_only_port = 1\n kubelet_secure_port = 2",
            "kubelet_read_only_port: give either this or kubelet_secure_port",
        ),
        (
            "certificate_path = \"/c\"",
            "private_key_path: missing; certificate and key go together",
        ),
        (
            "token_path = \"/t\"\n use_anonymous_authentication = true",
            "token_path: give one of token_path",
        ),
        ("max_poll_attempts = 0", "max_poll_attempts: 0 will not do"),
        (
            "poll_retry_intervall = \"1s\"",
            "did you mean `poll_retry_interval`?",
        ),
        (
            "sigstore {\n enabled = true\n}",
            "sigstore: not supported yet",
        ),
    ] {
        let problems = k8s_config(data).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(said), "{problems:?}");
    }
}
