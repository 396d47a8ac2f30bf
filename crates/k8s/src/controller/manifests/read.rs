//! From files to resources. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kube::Resource;
use runtime::config::Problem;
use serde_json::{Value as Json, json};

use super::File;
use crate::controller::crd::{
    ClusterFederatedTrustDomain, ClusterSPIFFEID, ClusterStaticEntry, GROUP, VERSION,
};
use crate::controller::state::Kind;
use crate::offline::{Document, split};

/// What files hold.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    pub(super) objects: Vec<(Kind, Json)>,
    pub(super) problems: Vec<Problem>,
}

impl Read {
    /// Of a folder that cannot be read.
    pub(super) fn failed(folder: &Path, message: &str) -> Self {
        let path = folder.display().to_string();
        let message = message.to_owned();
        Self {
            objects: Vec::new(),
            problems: vec![Problem { path, message }],
        }
    }
}

/// The resources in `files`; what is of other kinds is passed over.
pub(super) fn documents(files: &[File], environment: Option<&BTreeMap<String, String>>) -> Read {
    let mut read = Read::default();
    let mut names = BTreeSet::new();
    for (name, text) in files {
        let text = text.clone().and_then(|text| expanded(text, environment));
        let text = match text {
            Ok(text) => text,
            Err(message) => {
                let path = name.clone();
                read.problems.push(Problem { path, message });
                continue;
            }
        };
        for document in split(&text) {
            match object(name, &document) {
                Ok(Some((kind, object))) if names.insert(object["metadata"]["uid"].to_string()) => {
                    read.objects.push((kind, object));
                }
                Ok(None) => {}
                Ok(Some(_)) => read.problems.push(problem(
                    name,
                    &document,
                    "another document of this file has the same kind and metadata.name",
                )),
                Err(message) => read.problems.push(problem(name, &document, &message)),
            }
        }
    }
    read
}

fn expanded(
    text: String,
    environment: Option<&BTreeMap<String, String>>,
) -> Result<String, String> {
    match environment {
        None => Ok(text),
        Some(environment) => runtime::config::expand(&text, environment)
            .map_err(|problems| problems.to_string().replace('\n', "; ")),
    }
}

fn problem(file: &str, document: &Document<'_>, message: &str) -> Problem {
    Problem {
        path: format!("{file}:{}", document.line),
        message: message.to_owned(),
    }
}

/// One document, with a UID that stands for its place.
fn object(file: &str, document: &Document<'_>) -> Result<Option<(Kind, Json)>, String> {
    if document.is_blank() {
        return Ok(None);
    }
    let read: Result<Json, _> = serde_saphyr::from_str(document.body());
    let mut object = read.map_err(|error| format!("not valid YAML: {error}"))?;
    let text = |path: &str| object.pointer(path).and_then(Json::as_str);
    let named = text("/kind").unwrap_or_default().to_owned();
    let Some(kind) = kind(&named) else {
        return Ok(None);
    };
    let version = format!("{GROUP}/{VERSION}");
    match text("/apiVersion") {
        Some(found) if found == version => {}
        found => {
            let found = found.unwrap_or_default();
            return Err(format!("apiVersion {found:?}: write {version}"));
        }
    }
    if kind == Kind::SpiffeId {
        return Err(format!(
            "{named} is about pods, of which there are none without Kubernetes: declare a ClusterStaticEntry instead"
        ));
    }
    let name = text("/metadata/name").map(str::to_owned);
    let name = name.unwrap_or_else(|| format!("line {}", document.line));
    // Two files may hold the same name; the older one cannot be told.
    object["metadata"] =
        json!({ "name": format!("{file}: {name}"), "uid": format!("{file}/{named}/{name}") });
    Ok(Some((kind, object)))
}

fn kind(name: &str) -> Option<Kind> {
    let kinds = [
        (ClusterSPIFFEID::kind(&()), Kind::SpiffeId),
        (ClusterStaticEntry::kind(&()), Kind::StaticEntry),
        (
            ClusterFederatedTrustDomain::kind(&()),
            Kind::FederatedTrustDomain,
        ),
    ];
    let mut kinds = kinds.into_iter();
    kinds.find(|(known, _)| known == name).map(|(_, kind)| kind)
}
