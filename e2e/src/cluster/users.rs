//! Clients and kubeconfigs for administrators, users and service accounts.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use super::{Cluster, Identity, pki};

/// Long enough for any test; the API server refuses less than ten minutes.
const TOKEN_LIFE: i64 = 3600;

/// The pod that a token is bound to.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
}

impl Cluster {
    /// A client of `system:masters`. A client belongs to the runtime that made it: one per test.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client(&self) -> Result<Client> {
        self.client_as("admin", &["system:masters"])
    }

    /// A client that shows a certificate of this user and these groups.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> Result<Client> {
        self.client_with(&self.by_certificate(&self.issue(user, groups, &[])?))
    }

    /// A client that shows this service account's token.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn client_of(&self, namespace: &str, account: &str) -> Result<Client> {
        let token = self.token(namespace, account, &[], None).await?;
        self.client_with(&json!({ "token": token }))
    }

    /// A kubeconfig with a certificate of this user and these groups.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_as(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let identity = self.issue(user, groups, &[])?;
        self.write_kubeconfig(user, &self.by_certificate(&identity))
    }

    /// A kubeconfig with a token of this service account.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let token = self.token(namespace, account, &[], None).await?;
        self.write_kubeconfig(&format!("{namespace}.{account}"), &json!({"token": token}))
    }

    /// A token of this service account; no audience means the API server's own.
    ///
    /// # Errors
    /// When there is no such account, or the pod is not its.
    pub async fn token(
        &self,
        namespace: &str,
        account: &str,
        audiences: &[&str],
        bound: Option<Bound>,
    ) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client()?, namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audiences.iter().map(ToString::to_string).collect()),
                expiration_seconds: Some(TOKEN_LIFE),
                bound_object_ref: bound.map(|bound| BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(bound.pod),
                    uid: Some(bound.uid),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("request a token of {namespace}/{account}"))?;
        let token = answer.status.and_then(|status| status.token);
        token.context("an issued token")
    }

    fn by_certificate(&self, identity: &Identity) -> Value {
        json!({
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        })
    }

    fn client_with(&self, user: &Value) -> Result<Client> {
        let config: Kubeconfig = serde_json::from_value(self.kubeconfig_value(user))?;
        let options = kube::config::KubeConfigOptions::default();
        // Nothing in it is read from files or programs, so the future is ready at once.
        let config =
            futures_util::FutureExt::now_or_never(Config::from_custom_kubeconfig(config, &options))
                .context("a kubeconfig without files is read at once")??;
        Ok(Client::try_from(config)?)
    }

    fn write_kubeconfig(&self, name: &str, user: &Value) -> Result<PathBuf> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = name.replace([':', '/'], "-");
        let path = self.folder().join(format!("{name}-{number}.kubeconfig"));
        pki::private(&path, &self.kubeconfig_value(user).to_string())?;
        Ok(path)
    }

    fn kubeconfig_value(&self, user: &Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "e2e",
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
            "clusters": [{"name": "e2e", "cluster": {
                "server": self.url(),
                "certificate-authority-data": STANDARD.encode(self.ca_pem()),
            }}],
            "users": [{"name": "e2e", "user": user}],
        })
    }
}
