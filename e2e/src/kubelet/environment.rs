//! A container's environment, and `$(NAME)` in its command.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use serde_json::Value;

use super::node::Node;
use super::{list, text};
use crate::cluster::API_SERVICE;

/// Name and value, in order; later ones may use earlier ones.
pub(super) type Environment = Vec<(String, String)>;

pub(super) async fn resolve(node: &Node, pod: &Value, container: &Value) -> Result<Environment> {
    let mut environment = base(pod);
    for source in list(container, "/envFrom") {
        let prefix = source["prefix"].as_str().unwrap_or_default();
        for (key, value) in all_of(node, pod, source).await? {
            environment.push((format!("{prefix}{key}"), value));
        }
    }
    for variable in list(container, "/env") {
        let name = text(variable, "/name")?;
        let value = match variable.get("valueFrom") {
            None => expand(variable["value"].as_str().unwrap_or_default(), &environment),
            Some(source) => value_from(node, pod, source)
                .await
                .with_context(|| format!("environment variable {name}"))?,
        };
        environment.push((name.to_owned(), value));
    }
    Ok(environment)
}

fn base(pod: &Value) -> Environment {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    [
        ("PATH", path.to_owned()),
        ("HOSTNAME", name.to_owned()),
        ("KUBERNETES_SERVICE_HOST", API_SERVICE.to_owned()),
        ("KUBERNETES_SERVICE_PORT", "443".to_owned()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

async fn value_from(node: &Node, pod: &Value, source: &Value) -> Result<String> {
    if let Some(path) = source
        .pointer("/fieldRef/fieldPath")
        .and_then(Value::as_str)
    {
        return field(pod, path);
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = source.get(kind) {
            let map = kind == "configMapKeyRef";
            let data = data_of(node, pod, text(reference, "/name")?, map).await?;
            let key = text(reference, "/key")?;
            let found = data.into_iter().find(|(name, _)| name == key);
            let (_, bytes) = found.with_context(|| format!("no key {key}"))?;
            return Ok(String::from_utf8(bytes)?);
        }
    }
    bail!("the test kubelet does not know the source {source}")
}

async fn all_of(node: &Node, pod: &Value, source: &Value) -> Result<Environment> {
    for (kind, map) in [("configMapRef", true), ("secretRef", false)] {
        if let Some(reference) = source.get(kind) {
            let data = data_of(node, pod, text(reference, "/name")?, map).await?;
            let texts = data
                .into_iter()
                .map(|(key, value)| Ok((key, String::from_utf8(value)?)));
            return texts.collect();
        }
    }
    bail!("the test kubelet does not know the source {source}")
}

/// Keys and values of a ConfigMap or a Secret of the pod's namespace.
pub(super) async fn data_of(
    node: &Node,
    pod: &Value,
    name: &str,
    map: bool,
) -> Result<Vec<(String, Vec<u8>)>> {
    let namespace = text(pod, "/metadata/namespace")?;
    if !map {
        let api: Api<Secret> = Api::namespaced(node.client(), namespace);
        let secret = api
            .get(name)
            .await
            .with_context(|| format!("Secret {name}"))?;
        let data = secret.data.unwrap_or_default();
        return Ok(data
            .into_iter()
            .map(|(key, value)| (key, value.0))
            .collect());
    }
    let api: Api<ConfigMap> = Api::namespaced(node.client(), namespace);
    let map = api
        .get(name)
        .await
        .with_context(|| format!("ConfigMap {name}"))?;
    let texts = map.data.unwrap_or_default().into_iter();
    let texts = texts.map(|(key, value)| (key, value.into_bytes()));
    let bytes = map.binary_data.unwrap_or_default().into_iter();
    Ok(texts
        .chain(bytes.map(|(key, value)| (key, value.0)))
        .collect())
}

/// A `fieldPath` of the downward API.
pub(super) fn field(pod: &Value, path: &str) -> Result<String> {
    for map in ["labels", "annotations"] {
        let values = pod["metadata"][map].as_object();
        if path == format!("metadata.{map}") {
            let lines = values
                .into_iter()
                .flatten()
                .map(|(key, value)| format!("{key}={value}"));
            return Ok(lines.collect::<Vec<_>>().join("\n"));
        }
        let key = path
            .strip_prefix(&format!("metadata.{map}['"))
            .and_then(|rest| rest.strip_suffix("']"));
        if let Some(key) = key {
            let value = values.and_then(|values| values.get(key));
            return Ok(value.and_then(Value::as_str).unwrap_or_default().to_owned());
        }
    }
    if path == "status.podIPs" {
        return field(pod, "status.podIP");
    }
    let pointer = format!("/{}", path.replace('.', "/"));
    Ok(text(pod, &pointer)?.to_owned())
}

/// `$(NAME)` by its value, `$$` by `$`; unknown names stay.
pub(super) fn expand(text: &str, environment: &Environment) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        let value = name.and_then(|(name, after)| {
            let found = environment.iter().rev().find(|(known, _)| known == name);
            found.map(|(_, value)| (value, after))
        });
        match value {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_expanded_as_kubernetes_does() {
        let environment = vec![("A".to_owned(), "1".to_owned())];
        for (input, expected) in [
            ("$(A)-$(B)", "1-$(B)"),
            ("$$(A) $x", "$(A) $x"),
            ("$(A", "$(A"),
            ("cost: 5$", "cost: 5$"),
        ] {
            assert_eq!(expand(input, &environment), expected, "{input}");
        }
    }
}
