//! `k8s_psat`: the node runs a pod that holds a projected service account token.
//!
//! The token is a bearer secret, so nothing in it is believed: the cluster's API server says whose it is (TokenReview, for
//! our audience), and whether the pod it is bound to still lives, where, and on which node. What the token's review says and
//! what is there now must agree: a token outlives its pod by minutes, and a name can come back as another pod.

mod api;

use std::collections::{BTreeMap, BTreeSet};

use identity::{Selector, Selectors, SpiffeId, TrustDomain};
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Deserialize;

use super::{Attested, AttestorError};
use crate::config::{self, K8sCluster};
use crate::rpc::RpcError;
use api::{Api, ApiError};

pub(super) const NAME: &str = "k8s_psat";

/// The largest payload, in bytes. Tokens have about one KiB.
const MAX_PAYLOAD_LEN: usize = 64 << 10;

/// Before the namespace and the name of a service account's user.
const USER_PREFIX: &str = "system:serviceaccount:";

/// The attestor, set up.
pub(super) struct K8sPsat {
    trust_domain: TrustDomain,
    clusters: BTreeMap<String, Cluster>,
}

struct Cluster {
    config: K8sCluster,
    api: Api,
}

/// The agent's first message.
#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    token: String,
}

/// What a review says of a token: whose it is, and to what it is bound.
#[derive(Debug, PartialEq, Eq)]
struct Bound {
    namespace: String,
    account: String,
    pod: String,
    pod_uid: String,
    /// Kubernetes 1.30 and later tell this, too.
    node: Option<String>,
    node_uid: Option<String>,
}

/// What is known of a node whose agent has attested.
#[derive(Debug)]
struct Facts<'a> {
    cluster: &'a str,
    bound: &'a Bound,
    pod: &'a Pod,
    node: &'a Node,
    node_name: &'a str,
    node_uid: &'a str,
}

impl K8sPsat {
    /// Reads the clusters' credentials; asks nobody yet.
    pub(super) async fn build(
        config: &config::K8sPsat,
        trust_domain: &TrustDomain,
    ) -> Result<Self, AttestorError> {
        if config.clusters.is_empty() {
            tracing::warn!("NodeAttestor \"k8s_psat\" has no clusters, so it admits nobody");
        }
        let mut clusters = BTreeMap::new();
        for (name, config) in &config.clusters {
            let api = Api::build(config.kube_config_file.as_deref()).await;
            let api = api.map_err(|reason| AttestorError::Cluster {
                cluster: name.clone(),
                reason,
            })?;
            let config = config.clone();
            clusters.insert(name.clone(), Cluster { config, api });
        }
        Ok(Self {
            trust_domain: trust_domain.clone(),
            clusters,
        })
    }

    /// Has the cluster say whose token it is.
    ///
    /// # Errors
    /// When it is nobody's who may attest, or the API server cannot be asked.
    pub(super) async fn attest(&self, payload: &[u8]) -> Result<Attested, RpcError> {
        let Payload { cluster, token } = read(payload)?;
        let known = self.clusters.get(&cluster).ok_or_else(|| {
            malformed(format!(
                "cluster {cluster:?} is not one of this server's; it knows: {}",
                self.clusters.keys().cloned().collect::<Vec<_>>().join(", ")
            ))
        })?;
        let attest = known.attest(&cluster, token, &self.trust_domain);
        match tokio::time::timeout(api::TIMEOUT, attest).await {
            Ok(attested) => attested,
            Err(_) => Err(unavailable(&cluster, "it does not answer")),
        }
    }
}

impl Cluster {
    async fn attest(
        &self,
        cluster: &str,
        token: String,
        trust_domain: &TrustDomain,
    ) -> Result<Attested, RpcError> {
        let failed = |error| failed(cluster, error);
        let review = self.api.review(token, &self.config.audience).await;
        let bound = bound(&review.map_err(failed)?, &self.config.audience).map_err(denied)?;
        let account = format!("{}:{}", bound.namespace, bound.account);
        if !self.config.service_account_allow_list.contains(&account) {
            return Err(denied(format!(
                "{account:?} is not an allowed service account of cluster {cluster:?}"
            )));
        }
        let pod = self.api.pod(&bound.namespace, &bound.pod).await;
        let pod = pod
            .map_err(failed)?
            .ok_or_else(|| denied(format!("the token's {bound} is gone")))?;
        let node_name = node_of(&pod, &bound).map_err(denied)?;
        let node = self.api.node(node_name).await.map_err(failed)?;
        let node =
            node.ok_or_else(|| denied(format!("{bound} runs on {node_name:?}, which is no node")))?;
        let node_uid = node_uid(&node, &bound).map_err(denied)?;
        let facts = Facts {
            cluster,
            bound: &bound,
            pod: &pod,
            node: &node,
            node_name,
            node_uid,
        };
        facts.attested(&self.config, trust_domain)
    }
}

impl Facts<'_> {
    fn attested(
        &self,
        config: &K8sCluster,
        trust_domain: &TrustDomain,
    ) -> Result<Attested, RpcError> {
        let last = if config.use_pod_uid_for_agent_id {
            format!("pod/{}", self.bound.pod_uid)
        } else {
            self.node_uid.to_owned()
        };
        let path = format!("/spire/agent/{NAME}/{}/{last}", self.cluster);
        let id = SpiffeId::new(trust_domain, &path)
            .map_err(|error| denied(format!("the agent's ID {path}: {error}")))?;
        Ok(Attested {
            id,
            selectors: self.selectors(config),
            can_reattest: true,
        })
    }

    fn selectors(&self, config: &K8sCluster) -> Selectors {
        let bound = self.bound;
        let status = self.pod.status.as_ref();
        let host_ip = status.and_then(|status| status.host_ip.as_deref());
        let mut values = vec![
            format!("cluster:{}", self.cluster),
            format!("agent_ns:{}", bound.namespace),
            format!("agent_sa:{}", bound.account),
            format!("agent_pod_name:{}", bound.pod),
            format!("agent_pod_uid:{}", bound.pod_uid),
            format!("agent_node_ip:{}", host_ip.unwrap_or_default()),
            format!("agent_node_name:{}", self.node_name),
            format!("agent_node_uid:{}", self.node_uid),
        ];
        let mut labels =
            |kind: &str, labels: &Option<BTreeMap<String, String>>, keys: &[String]| {
                let labels = labels.iter().flatten();
                let allowed = labels.filter(|(key, _)| keys.contains(key));
                values.extend(allowed.map(|(key, value)| format!("{kind}:{key}:{value}")));
            };
        let (node, pod) = (&self.node.metadata.labels, &self.pod.metadata.labels);
        labels("agent_node_label", node, &config.allowed_node_label_keys);
        labels("agent_pod_label", pod, &config.allowed_pod_label_keys);
        // What cannot be a selector, for a control character, is left out.
        let values = values.iter();
        values
            .filter_map(|value| Selector::new(NAME, value).ok())
            .collect()
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pod {}/{} ({})", self.namespace, self.pod, self.pod_uid)
    }
}

fn read(payload: &[u8]) -> Result<Payload, RpcError> {
    if payload.len() > MAX_PAYLOAD_LEN {
        return Err(malformed(format!("more than {MAX_PAYLOAD_LEN} bytes")));
    }
    // What serde says could show a piece of the token.
    let payload: Payload = serde_json::from_slice(payload).map_err(|error| {
        malformed(format!(
            "failed to unmarshal data payload: no JSON object of `cluster` and `token` at column {}",
            error.column()
        ))
    })?;
    match (payload.cluster.is_empty(), payload.token.is_empty()) {
        (true, _) => Err(malformed("missing cluster in attestation data")),
        (_, true) => Err(malformed("missing token in attestation data")),
        _ => Ok(payload),
    }
}

/// Reads a review. Nothing is taken for granted: an API server that leaves something out vouches for nothing.
fn bound(status: &TokenReviewStatus, audience: &[String]) -> Result<Bound, String> {
    if let Some(error) = status.error.as_ref().filter(|error| !error.is_empty()) {
        return Err(format!("token not authenticated: {error}"));
    }
    if status.authenticated != Some(true) {
        return Err("token not authenticated according to TokenReview API".to_owned());
    }
    let audiences: BTreeSet<_> = status.audiences.iter().flatten().collect();
    if !audience.is_empty() && !audience.iter().any(|ours| audiences.contains(ours)) {
        let wanted = audience.join(", ");
        return Err(format!("the token is not for the audience {wanted}"));
    }
    let user = status
        .user
        .as_ref()
        .ok_or("the token's review names no user")?;
    let name = user.username.as_deref().unwrap_or_default();
    let account = name
        .strip_prefix(USER_PREFIX)
        .and_then(|account| account.split_once(':'))
        .filter(|(namespace, account)| {
            !namespace.is_empty() && !account.is_empty() && !account.contains(':')
        });
    let (namespace, account) =
        account.ok_or_else(|| format!("the token is of {name:?}, which is no service account"))?;
    let unbound = "the token is not bound to a pod; mount a projected service account token";
    Ok(Bound {
        namespace: namespace.to_owned(),
        account: account.to_owned(),
        pod: extra(user, "pod-name").ok_or(unbound)?,
        pod_uid: extra(user, "pod-uid").ok_or(unbound)?,
        node: extra(user, "node-name"),
        node_uid: extra(user, "node-uid"),
    })
}

/// What the API server adds to a service account's user: exactly one value, or it does not count.
fn extra(user: &UserInfo, key: &str) -> Option<String> {
    let key = format!("authentication.kubernetes.io/{key}");
    match user.extra.as_ref()?.get(&key)?.as_slice() {
        [value] if !value.is_empty() => Some(value.clone()),
        _ => None,
    }
}

/// The node of the pod, which must be the pod of the token.
fn node_of<'a>(pod: &'a Pod, bound: &Bound) -> Result<&'a str, String> {
    if pod.metadata.uid.as_deref() != Some(&bound.pod_uid) {
        return Err(format!(
            "the token's {bound} is gone; another pod has its name"
        ));
    }
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref());
    // The API server writes the default service account into the pod.
    if account != Some(&bound.account) {
        return Err(format!("{bound} does not run as {:?}", bound.account));
    }
    let node = spec.and_then(|spec| spec.node_name.as_deref());
    let node = node
        .filter(|node| !node.is_empty())
        .ok_or_else(|| format!("{bound} runs on no node yet"))?;
    match &bound.node {
        Some(of_token) if of_token != node => Err(format!(
            "the token was issued for a pod on node {of_token:?}, and {bound} runs on {node:?}"
        )),
        _ => Ok(node),
    }
}

fn node_uid<'a>(node: &'a Node, bound: &Bound) -> Result<&'a str, String> {
    let uid = node.metadata.uid.as_deref().unwrap_or_default();
    if uid.is_empty() {
        return Err("the API server tells no UID of the node".to_owned());
    }
    match &bound.node_uid {
        Some(of_token) if of_token != uid => Err(format!(
            "the token was issued for node {of_token}, and the node of that name is {uid} now"
        )),
        _ => Ok(uid),
    }
}

fn failed(cluster: &str, error: ApiError) -> RpcError {
    match error {
        ApiError::Unavailable(reason) => {
            tracing::warn!(cluster, %reason, "a cluster's API server cannot be asked");
            unavailable(cluster, &reason)
        }
        ApiError::Refused { what, reason } => RpcError::internal(
            format!("nodeattestor({NAME}): this server may not {what} in cluster {cluster:?}"),
            format!("grant it that, see docs/server.md: {reason}"),
        ),
    }
}

fn unavailable(cluster: &str, reason: &str) -> RpcError {
    RpcError::Unavailable(format!(
        "nodeattestor({NAME}): the API server of cluster {cluster:?} cannot be asked: {reason}"
    ))
}

fn malformed(reason: impl std::fmt::Display) -> RpcError {
    RpcError::InvalidArgument(format!("nodeattestor({NAME}): malformed payload: {reason}"))
}

fn denied(reason: impl std::fmt::Display) -> RpcError {
    RpcError::PermissionDenied(format!("nodeattestor({NAME}): {reason}"))
}

#[cfg(test)]
mod tests;
