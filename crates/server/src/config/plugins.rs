//! The block `plugins`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use runtime::config::Section;

use super::{
    DataStore, K8sCluster, K8sPsat, KeyManager, NodeAttestors, X509pop, X509popMode, refuse,
};

/// A chain longer than this is none that a CA of ours or of others makes.
const DEFAULT_MAX_INTERMEDIATES: usize = 4;
/// Larger RSA keys cost more to check than an attestation is worth.
const DEFAULT_MAX_RSA_KEY_SIZE: usize = 8192;
/// Where SVIDs that may attest live.
const DEFAULT_SVID_PREFIX: &str = "/spire-exchange/";

/// For whom agents' tokens are issued.
const DEFAULT_AUDIENCE: &str = "spire-server";

const NODE_ATTESTORS: &[&str] = &[
    "aws_iid",
    "azure_imds",
    "azure_msi",
    "gcp_iit",
    "http_challenge",
    "sshpop",
    "tpm_devid",
];
const KEY_MANAGERS: &[&str] = &["aws_kms", "azure_key_vault", "gcp_kms", "hashicorp_vault"];

pub(super) struct Plugins {
    pub(super) data_store: DataStore,
    pub(super) key_manager: KeyManager,
    pub(super) node_attestors: NodeAttestors,
}

pub(super) fn read(plugins: &mut Section, data_dir: &Path) -> Option<Plugins> {
    let data_store = data_store(plugins, data_dir);
    let key_manager = key_manager(plugins, data_dir);
    let node_attestors = node_attestors(plugins);
    for (kind, instead) in [
        (
            "UpstreamAuthority",
            "leave it out; the server signs its own authorities",
        ),
        (
            "BundlePublisher",
            "leave it out; fetch the bundle with `bundle show`",
        ),
        (
            "Notifier",
            "leave it out; fetch the bundle with `bundle show`",
        ),
        ("CredentialComposer", "leave it out"),
    ] {
        refuse(plugins, kind, instead);
    }
    Some(Plugins {
        data_store: data_store?,
        key_manager: key_manager?,
        node_attestors: node_attestors?,
    })
}

fn data_store(plugins: &mut Section, data_dir: &Path) -> Option<DataStore> {
    let mut found = Some(DataStore::Sqlite {
        path: data_dir.join("datastore.sqlite3"),
    });
    for (name, mut plugin) in enabled(plugins, "DataStore") {
        found = if name == "sql" {
            sql(&mut plugin.section("plugin_data"))
        } else {
            unknown(&mut plugin, &name, &[], "\"sql\"")
        };
    }
    found
}

fn sql(data: &mut Section) -> Option<DataStore> {
    let kind = data.required::<String>("database_type");
    let connection = data.required::<String>("connection_string");
    for key in [
        "conn_max_lifetime",
        "disable_migration",
        "max_idle_conns",
        "max_open_conns",
    ] {
        // Pools are sized by the store, and migrations are part of every start.
        data.ignore(key);
    }
    refuse(
        data,
        "ro_connection_string",
        "leave it out; SQLite has no replicas",
    );
    match kind?.as_str() {
        "sqlite3" => {}
        "postgres" | "mysql" | "aws_postgres" | "aws_mysql" => {
            data.problem("database_type", "not supported yet; write \"sqlite3\"");
            return None;
        }
        _ => {
            data.problem("database_type", "no such database; write \"sqlite3\"");
            return None;
        }
    }
    let connection = connection?;
    let path = connection.strip_prefix("file:").unwrap_or(&connection);
    if path.is_empty() || path.contains('?') || path.starts_with(":memory:") {
        data.problem(
            "connection_string",
            "give the path of a file such as \"/var/lib/spire/datastore.sqlite3\"",
        );
        return None;
    }
    Some(DataStore::Sqlite { path: path.into() })
}

fn key_manager(plugins: &mut Section, data_dir: &Path) -> Option<KeyManager> {
    let mut found = Vec::new();
    for (name, mut plugin) in enabled(plugins, "KeyManager") {
        found.push(match name.as_str() {
            "memory" => {
                plugin.section("plugin_data");
                Some(KeyManager::Memory)
            }
            "disk" => {
                let keys_path = plugin.section("plugin_data").required("keys_path");
                keys_path.map(|keys_path| KeyManager::Disk { keys_path })
            }
            _ => unknown(&mut plugin, &name, KEY_MANAGERS, "\"disk\" or \"memory\""),
        });
    }
    if found.len() > 1 {
        plugins.problem("KeyManager", "there can be only one; leave the others out");
    }
    found.pop().unwrap_or_else(|| {
        Some(KeyManager::Disk {
            keys_path: data_dir.join("keys.json"),
        })
    })
}

fn node_attestors(plugins: &mut Section) -> Option<NodeAttestors> {
    let mut attestors = NodeAttestors::default();
    let mut right = true;
    for (name, mut plugin) in enabled(plugins, "NodeAttestor") {
        match name.as_str() {
            "join_token" => {
                plugin.section("plugin_data");
                attestors.join_token = true;
            }
            "x509pop" => {
                attestors.x509pop = x509pop(&mut plugin.section("plugin_data"));
                right &= attestors.x509pop.is_some();
            }
            "k8s_psat" => {
                attestors.k8s_psat = k8s_psat(&mut plugin.section("plugin_data"));
                right &= attestors.k8s_psat.is_some();
            }
            _ => {
                let instead = "\"join_token\", \"x509pop\" or \"k8s_psat\"";
                unknown::<()>(&mut plugin, &name, NODE_ATTESTORS, instead);
                right = false;
            }
        }
    }
    right.then_some(attestors)
}

fn x509pop(data: &mut Section) -> Option<X509pop> {
    let one: Option<PathBuf> = data.get("ca_bundle_path");
    let mut ca_bundle_paths: Vec<PathBuf> = data
        .get::<Vec<String>>("ca_bundle_paths")
        .unwrap_or_default()
        .into_iter()
        .map(PathBuf::from)
        .collect();
    ca_bundle_paths.extend(one);
    let svid_prefix: Option<String> = data.get("svid_prefix");
    let agent_path_template = data.get("agent_path_template");
    let max_intermediates = data.get("max_intermediates");
    let max_rsa_key_size = data.get("max_rsa_key_size");
    refuse(data, "verify_client_ip", "leave it out");
    let mode = data
        .choice("mode", &[("external_pki", false), ("spiffe", true)])
        .unwrap_or(false);
    let mode = if mode {
        X509popMode::Spiffe {
            svid_prefix: svid_prefix.unwrap_or_else(|| DEFAULT_SVID_PREFIX.into()),
        }
    } else {
        if svid_prefix.is_some() {
            let message = "leave it out, or set mode to \"spiffe\": it has no meaning otherwise";
            data.problem("svid_prefix", message);
        }
        X509popMode::ExternalPki
    };
    if (mode == X509popMode::ExternalPki) == ca_bundle_paths.is_empty() {
        let message = match mode {
            X509popMode::ExternalPki => "name the PEM file with the CAs of agents' certificates",
            X509popMode::Spiffe { .. } => {
                "leave it out: in the mode \"spiffe\" the trust domain's own bundle counts"
            }
        };
        data.problem("ca_bundle_path", message);
        return None;
    }
    Some(X509pop {
        ca_bundle_paths,
        agent_path_template,
        mode,
        max_intermediates: max_intermediates.unwrap_or(DEFAULT_MAX_INTERMEDIATES),
        max_rsa_key_size: max_rsa_key_size.unwrap_or(DEFAULT_MAX_RSA_KEY_SIZE),
    })
}

fn k8s_psat(data: &mut Section) -> Option<K8sPsat> {
    let mut clusters = BTreeMap::new();
    let mut right = true;
    for (name, mut cluster) in data.labelled("clusters") {
        let read = k8s_cluster(&name, &mut cluster);
        right &= read.is_some();
        if read.is_some_and(|read| clusters.insert(name, read).is_some()) {
            cluster.problem("", "there are two clusters of this name; rename one");
            right = false;
        }
    }
    right.then_some(K8sPsat { clusters })
}

fn k8s_cluster(name: &str, cluster: &mut Section) -> Option<K8sCluster> {
    let accounts = cluster.get::<Vec<String>>("service_account_allow_list");
    let audience = cluster.get("audience");
    let kube_config_file = cluster.get("kube_config_file");
    let node_labels = cluster.get("allowed_node_label_keys");
    let pod_labels = cluster.get("allowed_pod_label_keys");
    let by_pod = cluster.get("use_pod_uid_for_agent_id").unwrap_or(false);
    let accounts = accounts.unwrap_or_default();
    let mut right = true;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || matches!(name, "." | "..") || !name.bytes().all(letter) {
        cluster.problem(
            "",
            "the cluster's name becomes part of its agents' IDs; give letters, digits, `.`, `-` and `_`",
        );
        right = false;
    }
    let qualified = |account: &String| {
        let parts: Vec<_> = account.split(':').collect();
        parts.len() == 2 && parts.iter().all(|part| !part.is_empty())
    };
    if accounts.is_empty() || !accounts.iter().all(qualified) {
        cluster.problem(
            "service_account_allow_list",
            "name the service accounts of agents, each as \"<namespace>:<name>\", such as \"spire:spire-agent\"",
        );
        right = false;
    }
    right.then_some(K8sCluster {
        service_account_allow_list: accounts,
        audience: audience.unwrap_or_else(|| vec![DEFAULT_AUDIENCE.to_owned()]),
        kube_config_file,
        allowed_node_label_keys: node_labels.unwrap_or_default(),
        allowed_pod_label_keys: pod_labels.unwrap_or_default(),
        use_pod_uid_for_agent_id: by_pod,
    })
}

/// The plugins of one kind that are turned on, each without the keys all plugins share.
fn enabled(plugins: &mut Section, kind: &str) -> Vec<(String, Section)> {
    let mut found = plugins.labelled(kind);
    for (_, plugin) in &mut found {
        plugin.ignore("plugin_checksum");
        refuse(
            plugin,
            "plugin_cmd",
            "leave it out; plugins of one's own cannot be loaded",
        );
        refuse(
            plugin,
            "plugin_data_file",
            "write its content as a plugin_data block",
        );
    }
    found.retain_mut(|(_, plugin)| {
        let on = plugin.get("enabled").unwrap_or(true);
        if !on {
            plugin.ignore("plugin_data");
        }
        on
    });
    found
}

/// Refuses a plugin; there is nothing to come of it.
fn unknown<T>(plugin: &mut Section, name: &str, known: &[&str], instead: &str) -> Option<T> {
    plugin.ignore("plugin_data");
    if known.contains(&name) {
        plugin.problem("", format_args!("not supported yet; use {instead}"));
    } else {
        plugin.problem("", format_args!("no such plugin; use {instead}"));
    }
    None
}
