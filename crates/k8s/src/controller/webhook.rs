//! Admission of the custom resources (CTL-12): an HTTPS server with a certificate from our own server, and the `caBundle` by which
//! the API server trusts it.
//!
//! Every replica serves, whoever leads: the API server asks any of them.

mod handlers;

use std::sync::Arc;
use std::time::Duration;

use identity::SpiffeId;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{Api, Client};
use runtime::backoff::Backoff;
use runtime::{BoxError, Clock, Metrics, Readiness, Tasks};

use super::config::Config;
use super::lint::Counts;
use super::publish::NAME;
use crate::admission::ca_bundle::{Target, TargetKind, hosts};
use crate::admission::server::{Limits, Server};
use crate::admission::serving::{Serving, Source, TlsOptions};
use handlers::Lint;

/// The path of the certificate's SPIFFE ID: the name that SPIRE's controller manager gives itself.
const ID: &str = "/spire-controller-manager-webhook";
/// How long the certificate is valid; renewed at half of it.
const TTL: Duration = Duration::from_secs(86_400);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What the webhook runs by.
pub(super) struct Webhook {
    pub(super) config: Arc<Config>,
    pub(super) counts: Counts,
    pub(super) client: Client,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) clock: Clock,
}

impl Webhook {
    /// Binds the address; serves once the configuration says under which names.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(super) async fn start(self, tasks: &Tasks) -> Result<(), BoxError> {
        let server = Server::bind(self.config.webhook.address).await?;
        let (shutdown, all) = (tasks.shutdown(), tasks.clone());
        tasks.spawn("webhook", async move {
            tokio::select! {
                names = self.names() => self.serve(server, names, &all)?,
                () = shutdown.cancelled() => {}
            }
            Ok(())
        });
        Ok(())
    }

    /// The names that the API server asks for, by the configuration. Nobody asks before there is one, so nothing waits for it.
    async fn names(&self) -> Vec<String> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let name = &self.config.webhook.configuration;
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let mut told = String::new();
        loop {
            let found = api.get_opt(name).await.map(|found| {
                let json = found.and_then(|found| serde_json::to_value(found).ok());
                json.map(|json| hosts(&json)).unwrap_or_default()
            });
            let why = match found {
                Ok(names) if !names.is_empty() => return names,
                Ok(_) => "there is none with a webhook in it".to_owned(),
                Err(error) => error.to_string(),
            };
            if why != told {
                tracing::warn!(
                    name,
                    why,
                    "no admission of custom resources before their ValidatingWebhookConfiguration can be read; ENABLE_WEBHOOKS=false turns it off"
                );
                told = why;
            }
            tokio::time::sleep(backoff.fail()).await;
        }
    }

    fn serve(&self, server: Server, names: Vec<String>, tasks: &Tasks) -> Result<(), BoxError> {
        let scope = &self.config.scope;
        let counts = self.counts.clone();
        let lint: Lint = Arc::new(move |spec| counts.warn(spec));
        let routes = handlers::routes(scope, &lint);
        tracing::info!(address = %server.address(), names = names.join(" "), "admission of custom resources");
        let serving = Serving {
            source: Source::Server {
                socket: self.config.server_socket.as_path().into(),
                id: SpiffeId::parse(&format!("spiffe://{}{ID}", scope.trust_domain))?,
                ttl: TTL,
            },
            dns_names: names,
            targets: vec![Target {
                kind: TargetKind::Validating,
                name: self.config.webhook.configuration.clone(),
            }],
            field_manager: NAME.to_owned(),
            tls: TlsOptions::default(),
        };
        let metrics = self.metrics.clone();
        let tls = serving.start(&self.client, &self.clock, &metrics, &self.readiness, tasks);
        let ready = self.readiness.part("webhook");
        server.serve(routes, tls, Limits::default(), metrics, ready, tasks);
        Ok(())
    }
}
