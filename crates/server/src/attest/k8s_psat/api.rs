//! The three questions to a cluster's API server.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};

/// How long all questions of one attestation may take together.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster's API server.
pub(super) struct Api(Client);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum ApiError {
    /// It may help to ask again.
    Unavailable(String),
    /// The server's own credentials do not do.
    Refused {
        /// What it may not.
        what: &'static str,
        /// What the API server said.
        reason: String,
    },
}

impl Api {
    /// With the credentials of a file, or those a pod has.
    pub(super) async fn build(file: Option<&Path>) -> Result<Self, String> {
        let mut config = match file {
            Some(file) => {
                let of_file = |error: &dyn std::error::Error| {
                    format!("kube_config_file {}: {}", file.display(), whole(error))
                };
                let content = Kubeconfig::read_from(file).map_err(|error| of_file(&error))?;
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(content, &options).await;
                config.map_err(|error| of_file(&error))?
            }
            None => Config::incluster().map_err(|error| {
                format!(
                    "this server does not run in a pod ({}); name a kube_config_file",
                    whole(&error)
                )
            })?,
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.default_retry = false;
        Client::try_from(config)
            .map(Self)
            .map_err(|error| whole(&error))
    }

    /// Whose token it is. An empty `audience` stands for the API server's own.
    pub(super) async fn review(
        &self,
        token: String,
        audience: &[String],
    ) -> Result<TokenReviewStatus, ApiError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token,
                audiences: (!audience.is_empty()).then(|| audience.to_vec()),
            },
            ..TokenReview::default()
        };
        let api = kube::Api::<TokenReview>::all(self.0.clone());
        let review = api.create(&PostParams::default(), &review).await;
        let review = review.map_err(|error| sort("create tokenreviews", &error))?;
        Ok(review.status.unwrap_or_default())
    }

    /// A pod, if there is one.
    pub(super) async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, ApiError> {
        let api = kube::Api::<Pod>::namespaced(self.0.clone(), namespace);
        found("get pods", api.get(name).await)
    }

    /// A node, if there is one.
    pub(super) async fn node(&self, name: &str) -> Result<Option<Node>, ApiError> {
        let api = kube::Api::<Node>::all(self.0.clone());
        found("get nodes", api.get(name).await)
    }
}

fn found<T>(what: &'static str, answer: Result<T, Error>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(sort(what, &error)),
    }
}

fn sort(what: &'static str, error: &Error) -> ApiError {
    match error {
        Error::Api(status) if matches!(status.code, 401 | 403) => ApiError::Refused {
            what,
            reason: status.message.clone(),
        },
        Error::Api(status) => {
            ApiError::Unavailable(format!("{} {}", status.code, status.message.trim()))
        }
        // Serde shows pieces of what it read.
        Error::SerdeError(_) => {
            ApiError::Unavailable("its answer is not what was asked for".into())
        }
        error => ApiError::Unavailable(whole(error)),
    }
}

/// An error with its causes, each once: kube's say little without them.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
