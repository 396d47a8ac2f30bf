//! Which federation relationships are the controller's: a ConfigMap beside it, or without Kubernetes a file, since a
//! relationship has no place for a mark.
//!
//! A finalizer on the resources would keep them, and their definition, from being removed once the controller is uninstalled.
//! A ConfigMap that is left over does no harm, and a controller that comes back finds in it what it made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use identity::TrustDomain;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use runtime::files::{FileError, read_private, write_private};
use serde_json::json;
use thiserror::Error;

use crate::controller::publish::NAME;

/// The ConfigMap.
pub(in crate::controller) const CONFIG_MAP: &str = "signet-federation";

/// Why the record cannot be used.
#[derive(Debug, Error)]
pub(in crate::controller) enum RecordError {
    /// The API server.
    #[error("the ConfigMap {namespace}/{CONFIG_MAP}: {source}")]
    Kubernetes {
        namespace: String,
        source: Box<kube::Error>,
    },
    /// The file.
    #[error("{0}")]
    File(#[from] FileError),
    /// Somebody wrote to it.
    #[error("{place}: {line:?} is not a trust domain; remove the line")]
    Line { place: String, line: String },
}

/// Where it is written down.
#[derive(Clone)]
pub(in crate::controller) enum Record {
    /// Nowhere: what an earlier process made is not known.
    Memory,
    /// In a file of this controller alone.
    File(PathBuf),
    /// Under a key of its own, so that controllers share the ConfigMap.
    ConfigMap {
        client: Client,
        namespace: String,
        key: String,
    },
}

impl Record {
    /// What this controller, and those of the same prefix before it, made.
    pub(super) async fn load(&self) -> Result<BTreeSet<TrustDomain>, RecordError> {
        let (client, namespace, key) = match self {
            Self::Memory => return Ok(BTreeSet::new()),
            Self::File(path) => return load_file(path),
            Self::ConfigMap {
                client,
                namespace,
                key,
            } => (client, namespace, key),
        };
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let found = api
            .get_opt(CONFIG_MAP)
            .await
            .map_err(|source| failed(namespace, source))?;
        let data = found.and_then(|found| found.data).unwrap_or_default();
        let lines = data.get(key).map(String::as_str).unwrap_or_default();
        read(lines).map_err(|line| RecordError::Line {
            place: format!("the ConfigMap {namespace}/{CONFIG_MAP}, {key}"),
            line,
        })
    }

    /// A file in a folder that may be one for reading only, as a mounted ConfigMap is: then what is made is not written down.
    ///
    /// # Errors
    /// When there is a record that cannot be read.
    pub(in crate::controller) fn beside(path: PathBuf) -> Result<Self, RecordError> {
        let owned = load_file(&path)?;
        if let Err(error) = write_private(&path, write(&owned).as_bytes()) {
            tracing::warn!(
                %error,
                "which federation relationships are the controller's is forgotten when it ends: set signet.federationRecord to a file that it may write"
            );
            return Ok(Self::Memory);
        }
        Ok(Self::File(path))
    }

    /// Writes it down.
    pub(super) async fn save(&self, owned: &BTreeSet<TrustDomain>) -> Result<(), RecordError> {
        let (client, namespace, key) = match self {
            Self::Memory => return Ok(()),
            Self::File(path) => return Ok(write_private(path, write(owned).as_bytes())?),
            Self::ConfigMap {
                client,
                namespace,
                key,
            } => (client, namespace, key),
        };
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let data = BTreeMap::from([(key.clone(), write(owned))]);
        let params = PatchParams {
            field_manager: Some(NAME.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({ "data": data }));
        match api.patch(CONFIG_MAP, &params, &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let new = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(CONFIG_MAP.to_owned()),
                        ..ObjectMeta::default()
                    },
                    data: Some(data),
                    ..ConfigMap::default()
                };
                let params = PostParams {
                    field_manager: Some(NAME.to_owned()),
                    ..PostParams::default()
                };
                api.create(&params, &new).await.map(drop)
            }
            patched => patched.map(drop),
        }
        .map_err(|source| failed(namespace, source))
    }
}

fn load_file(path: &Path) -> Result<BTreeSet<TrustDomain>, RecordError> {
    let bytes = read_private(path)?.unwrap_or_default();
    read(&String::from_utf8_lossy(&bytes)).map_err(|line| RecordError::Line {
        place: path.display().to_string(),
        line,
    })
}

fn failed(namespace: &str, source: kube::Error) -> RecordError {
    RecordError::Kubernetes {
        namespace: namespace.to_owned(),
        source: Box::new(source),
    }
}

/// A name a line; gives the line that is none.
fn read(text: &str) -> Result<BTreeSet<TrustDomain>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| TrustDomain::parse(line).map_err(|_| line.to_owned()))
        .collect()
}

fn write(owned: &BTreeSet<TrustDomain>) -> String {
    owned.iter().map(|name| format!("{name}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let names = ["b.example", "a.example"].map(|name| TrustDomain::new(name).unwrap());
        let owned = BTreeSet::from(names);
        assert_eq!(write(&owned), "a.example\nb.example\n");
        assert_eq!(read(&write(&owned)), Ok(owned));
        assert_eq!(read("\n"), Ok(BTreeSet::new()));
        assert_eq!(read("a.example\nA B\n"), Err("A B".to_owned()));
    }

    #[tokio::test]
    async fn ctl_10_a_record_in_a_file_outlives_its_process_and_names_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let record = Record::beside(path.clone()).unwrap();
        assert_eq!(record.load().await.unwrap(), BTreeSet::new());
        let owned = BTreeSet::from([TrustDomain::new("a.example").unwrap()]);
        record.save(&owned).await.unwrap();
        let again = Record::beside(path.clone()).unwrap();
        assert_eq!(again.load().await.unwrap(), owned);
        write_private(&path, b"a.example\nA B\n").unwrap();
        let told = Record::beside(path.clone()).err().unwrap().to_string();
        assert!(told.contains("record: \"A B\" is not"), "{told}");
        // A folder that cannot be written to, whoever the test runs as.
        let nowhere = Record::beside(folder.path().join("none/record")).unwrap();
        assert!(matches!(nowhere, Record::Memory));
    }
}
