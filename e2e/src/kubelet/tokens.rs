//! Projected tokens of service accounts: asked for with the node's rights, and renewed when a kubelet would.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::PostParams;
use serde_json::Value;

use super::node::Node;
use super::text;

/// No token grows older, however long it may live.
const OLDEST: SignedDuration = SignedDuration::from_hours(24);

const AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// A token in a volume.
#[derive(Debug)]
pub(super) struct Token {
    file: PathBuf,
    /// `serviceAccountToken` of the volume.
    wanted: Value,
    renew_at: Timestamp,
}

impl Token {
    /// Asks for one and writes it.
    pub(super) async fn put(
        node: &Node,
        pod: &Value,
        wanted: &Value,
        file: PathBuf,
    ) -> Result<Self> {
        let mut token = Self {
            file,
            wanted: wanted.clone(),
            renew_at: node.now(),
        };
        token.renew(node, pod).await?;
        Ok(token)
    }

    /// Renews it when its time has come. What fails is tried again.
    pub(super) async fn tend(&mut self, node: &Node, pod: &Value) {
        if node.now() >= self.renew_at && self.renew(node, pod).await.is_err() {
            self.renew_at = node.now() + AGAIN;
        }
    }

    async fn renew(&mut self, node: &Node, pod: &Value) -> Result<()> {
        let issued = node.now();
        let (token, lifetime) = request(node, pod, &self.wanted).await?;
        // Readers see the former or the new one, whole.
        let beside = self.file.with_extension("new");
        fs::write(&beside, token)?;
        super::volumes::give_to_group(&beside, pod)?;
        fs::rename(&beside, &self.file)?;
        self.renew_at = renewal(issued, lifetime);
        Ok(())
    }
}

/// When four fifths of its life are over.
fn renewal(issued: Timestamp, lifetime: SignedDuration) -> Timestamp {
    issued + (lifetime * 4 / 5).min(OLDEST)
}

/// A token bound to the pod, and for how long it is good.
async fn request(node: &Node, pod: &Value, wanted: &Value) -> Result<(String, SignedDuration)> {
    let account = pod["spec"]["serviceAccountName"]
        .as_str()
        .unwrap_or("default");
    let accounts: Api<ServiceAccount> =
        Api::namespaced(node.client(), text(pod, "/metadata/namespace")?);
    let audience = wanted["audience"].as_str().map(str::to_owned);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audience.into_iter().collect()),
            expiration_seconds: wanted["expirationSeconds"].as_i64(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(text(pod, "/metadata/name")?.to_owned()),
                uid: Some(text(pod, "/metadata/uid")?.to_owned()),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let before = Timestamp::now();
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("a token of service account {account}"))?;
    let status = answer.status.context("an issued token")?;
    let expires = status.expiration_timestamp.context("a time")?.0;
    let token = status.token.context("an issued token")?;
    Ok((token, expires.duration_since(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_after_four_fifths_of_its_life_and_at_the_latest_after_a_day() {
        let issued = Timestamp::UNIX_EPOCH;
        for (lifetime, expected) in [(600, 480), (3607, 2885), (30 * 86_400, 86_400)] {
            let at = renewal(issued, SignedDuration::from_secs(lifetime));
            assert_eq!(at.as_second(), expected, "{lifetime}");
        }
    }
}
