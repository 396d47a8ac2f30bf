//! Where resources come from, and which of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use runtime::config::Section;

use super::Manifests;

/// The label by which SPIRE's chart marks ClusterSPIFFEIDs with their class.
const CLASS_LABEL: &str = "spire.spiffe.io/class-name";

/// `clusterSPIFFEIDLabelSelector`, and what `filterByClassName` adds to it.
pub(super) fn spiffe_id_labels(root: &mut Section, class: &str) -> BTreeMap<String, String> {
    let labels: Option<BTreeMap<String, String>> = root.get("clusterSPIFFEIDLabelSelector");
    let mut labels = labels.unwrap_or_default();
    if root.get("filterByClassName").unwrap_or(false) {
        if class.is_empty() {
            root.problem(
                "filterByClassName",
                "it wants a className; set one, or leave this out",
            );
        }
        labels.insert(CLASS_LABEL.to_owned(), class.to_owned());
    }
    let fits = |text: &String| {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        text.chars().all(legal)
    };
    if let Some((key, value)) = labels.iter().find(|(k, v)| !fits(k) || !fits(v)) {
        let message = format!("{key}={value} is not a label and its value");
        root.problem("clusterSPIFFEIDLabelSelector", message);
    }
    labels
}

/// `staticManifestPath` and `expandEnvStaticManifests`.
pub(super) fn manifests(root: &mut Section, record: Option<PathBuf>) -> Option<Manifests> {
    let expand_environment = root.get("expandEnvStaticManifests").unwrap_or(false);
    let folder = root.get::<PathBuf>("staticManifestPath");
    let folder = folder.filter(|path| !path.as_os_str().is_empty());
    if folder.is_none() && expand_environment {
        root.problem(
            "expandEnvStaticManifests",
            "it is about the files of staticManifestPath, which is not set",
        );
    }
    if folder.is_none() && record.is_some() {
        root.problem(
            "signet.federationRecord",
            "it is for staticManifestPath, which is not set; with Kubernetes the record is a ConfigMap",
        );
    }
    Some(Manifests {
        folder: folder?,
        expand_environment,
        federation_record: record,
    })
}
