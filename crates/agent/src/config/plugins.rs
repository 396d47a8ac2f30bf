//! The block `plugins`.

use std::path::PathBuf;

use runtime::config::Section;

use super::{
    Config, KeyManager, NodeAttestor, UnixAttestorConfig, WorkloadAttestors, X509PopFiles, k8s,
    refuse,
};

/// Where the official charts mount the projected token.
const DEFAULT_TOKEN_PATH: &str = "/var/run/secrets/tokens/spire-agent";

/// Those of SPIRE that this agent does not have.
const OTHER_NODE_ATTESTORS: &[&str] = &[
    "aws_iid",
    "azure_imds",
    "azure_msi",
    "gcp_iit",
    "http_challenge",
    "sshpop",
    "tpm_devid",
];
const OTHER_WORKLOAD_ATTESTORS: &[&str] = &["docker", "slurm", "systemd", "windows"];

pub(super) struct Plugins {
    pub(super) node_attestor: NodeAttestor,
    pub(super) key_manager: KeyManager,
    pub(super) workload_attestors: WorkloadAttestors,
}

/// `agent` holds the join token and the data folder, where that block could be read.
pub(super) fn read(plugins: &mut Section, agent: Option<&Config>) -> Option<Plugins> {
    let node_attestor = node_attestor(plugins, agent);
    let key_manager = key_manager(plugins, agent);
    let workload_attestors = workload_attestors(plugins);
    let instead = "leave it out; workloads fetch their SVIDs from the socket";
    refuse(plugins, "SVIDStore", instead);
    Some(Plugins {
        node_attestor: node_attestor?,
        key_manager: key_manager?,
        workload_attestors: workload_attestors?,
    })
}

fn node_attestor(plugins: &mut Section, agent: Option<&Config>) -> Option<NodeAttestor> {
    let mut found = Vec::new();
    let mut sound = true;
    for (name, mut plugin) in enabled(plugins, "NodeAttestor") {
        let attestor = match name.as_str() {
            "join_token" => {
                let token = agent.map(|agent| agent.node_attestor.clone());
                drop(plugin.section("plugin_data"));
                token.or(Some(NodeAttestor::JoinToken(None)))
            }
            "x509pop" => x509pop(&mut plugin.section("plugin_data")),
            "k8s_psat" => k8s_psat(&mut plugin.section("plugin_data")),
            _ => {
                unknown(
                    &mut plugin,
                    &name,
                    OTHER_NODE_ATTESTORS,
                    "join_token, x509pop or k8s_psat",
                );
                None
            }
        };
        sound &= attestor.is_some();
        found.extend(attestor);
    }
    if found.len() > 1 {
        plugins.problem(
            "NodeAttestor",
            "an agent has exactly one; keep the one this node uses",
        );
        return None;
    }
    if found.is_empty() && sound {
        let example = "missing; write for example NodeAttestor \"join_token\" with an empty plugin_data block";
        plugins.problem("NodeAttestor", example);
    }
    found.pop()
}

fn x509pop(data: &mut Section) -> Option<NodeAttestor> {
    let private_key_path = data.required::<PathBuf>("private_key_path");
    let certificate_path = data.required::<PathBuf>("certificate_path");
    let intermediates_path = data.get("intermediates_path");
    Some(NodeAttestor::X509Pop(X509PopFiles {
        private_key_path: private_key_path?,
        certificate_path: certificate_path?,
        intermediates_path,
    }))
}

fn k8s_psat(data: &mut Section) -> Option<NodeAttestor> {
    let cluster = data.required("cluster");
    let token_path = data.get("token_path");
    Some(NodeAttestor::K8sPsat {
        cluster: cluster?,
        token_path: token_path.unwrap_or_else(|| DEFAULT_TOKEN_PATH.into()),
    })
}

fn key_manager(plugins: &mut Section, agent: Option<&Config>) -> Option<KeyManager> {
    let data_dir = agent.map(|agent| agent.data_dir.clone());
    let mut found = Vec::new();
    let mut sound = true;
    for (name, mut plugin) in enabled(plugins, "KeyManager") {
        let manager = match name.as_str() {
            "memory" => {
                drop(plugin.section("plugin_data"));
                Some(KeyManager::Memory)
            }
            "disk" => {
                let mut data = plugin.section("plugin_data");
                let directory = data.get("directory").or_else(|| data_dir.clone());
                Some(KeyManager::Disk {
                    directory: directory.unwrap_or_default(),
                })
            }
            _ => {
                unknown(&mut plugin, &name, &[], "disk or memory");
                None
            }
        };
        sound &= manager.is_some();
        found.extend(manager);
    }
    if found.len() > 1 {
        plugins.problem(
            "KeyManager",
            "an agent has exactly one; keep \"disk\" or \"memory\"",
        );
        return None;
    }
    if found.is_empty() && sound {
        // Without the block: on disk, so that a restart need not attest anew.
        return Some(KeyManager::Disk {
            directory: data_dir.unwrap_or_default(),
        });
    }
    found.pop()
}

fn workload_attestors(plugins: &mut Section) -> Option<WorkloadAttestors> {
    let mut attestors = WorkloadAttestors::default();
    let mut sound = true;
    for (name, mut plugin) in enabled(plugins, "WorkloadAttestor") {
        if name == "unix" {
            let mut data = plugin.section("plugin_data");
            let discover = data.get("discover_workload_path");
            let limit = data.get::<i64>("workload_size_limit").unwrap_or(0);
            attestors.unix = Some(UnixAttestorConfig {
                discover_workload_path: discover.unwrap_or(false),
                // SPIRE's meaning: 0 knows no limit, a negative one switches hashing off.
                workload_size_limit: match limit {
                    0 => None,
                    limit => Some(u64::try_from(limit).unwrap_or(0)),
                },
            });
        } else if name == "k8s" {
            attestors.k8s = k8s::read(&mut plugin.section("plugin_data"));
            sound &= attestors.k8s.is_some();
        } else {
            unknown(&mut plugin, &name, OTHER_WORKLOAD_ATTESTORS, "unix or k8s");
            sound = false;
        }
    }
    if sound && attestors.unix.is_none() && attestors.k8s.is_none() {
        let example =
            "missing; write for example WorkloadAttestor \"unix\" with an empty plugin_data block";
        plugins.problem("WorkloadAttestor", example);
        return None;
    }
    sound.then_some(attestors)
}

/// The plugins of a kind that are not switched off. External ones are refused.
fn enabled(plugins: &mut Section, kind: &str) -> Vec<(String, Section)> {
    let mut enabled = Vec::new();
    for (name, mut plugin) in plugins.labelled(kind) {
        let on = plugin.get("enabled").unwrap_or(true);
        for key in ["plugin_cmd", "plugin_checksum", "plugin_args"] {
            refuse(&mut plugin, key, "leave it out; plugins are built in");
        }
        if on {
            enabled.push((name, plugin));
        } else {
            plugin.ignore_rest();
        }
    }
    enabled
}

fn unknown(plugin: &mut Section, name: &str, of_spire: &[&str], ours: &str) {
    plugin.ignore_rest();
    let what = if of_spire.contains(&name) {
        "not supported yet"
    } else {
        "unknown"
    };
    plugin.problem("", format_args!("{what}; use {ours}"));
}
