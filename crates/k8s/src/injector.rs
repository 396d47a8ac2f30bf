//! The injector: a webhook that gives pods what they ask for (see [`crate::inject`]).
//!
//! It answers and has no effect of its own: Events are written later by a task, and never for a dry run.

pub mod config;
mod events;
mod handler;
mod namespaces;
mod versions;

use std::net::SocketAddr;

use kube::Client;
use runtime::listen::bind_tcp;
use runtime::{BoxError, Clock, Metrics, Readiness, Tasks};

use crate::admission::server::{Routes, Server};

pub use config::Config;

/// Who writes, in managed fields and Events.
pub const NAME: &str = "signet-injector";

/// What the injector runs by.
pub struct Options {
    /// Its configuration.
    pub config: Config,
    /// The API server.
    pub client: Client,
    /// This process among its replicas.
    pub identity: String,
    /// Its figures.
    pub metrics: Metrics,
    /// What has to be up.
    pub readiness: Readiness,
    /// The time.
    pub clock: Clock,
}

/// Binds everything and starts the injector's tasks. Gives the webhook's address.
///
/// # Errors
/// When an address cannot be had.
pub async fn start(options: Options, tasks: &Tasks) -> Result<SocketAddr, BoxError> {
    let Options {
        config,
        client,
        identity,
        metrics,
        readiness,
        clock,
    } = options;
    let server = Server::bind(config.listen).await?;
    let address = server.address();
    if let Some(address) = config.metrics_address {
        metrics.serve(bind_tcp(address).await?, tasks);
    }
    let certified = readiness.part("webhook");
    let synced = readiness.part("namespaces");
    if let Some(address) = config.health_address {
        readiness.serve(bind_tcp(address).await?, "/live", "/ready", tasks);
    }
    let rules = versions::keep(config.rules, client.clone(), tasks).await;
    let namespaces = namespaces::watch(client.clone(), synced, tasks);
    let events = events::start(client.clone(), identity, metrics.clone(), tasks);
    let handler = handler::Injector::new(rules, namespaces, events, metrics.clone());
    let tls = config
        .serving
        .start(&client, &clock, &metrics, &readiness, tasks);
    let routes = Routes::new().with(&config.path, handler);
    server.serve(routes, tls, config.limits, metrics, certified, tasks);
    tracing::info!(%address, path = config.path, "the injector listens");
    Ok(address)
}
