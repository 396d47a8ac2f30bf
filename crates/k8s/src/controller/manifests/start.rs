//! The controller without Kubernetes: a folder, the loops, and a log that tells what statuses would.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use runtime::{BoxError, Clock, Metrics, Readiness, Shutdown, Tasks};
use tokio::sync::mpsc;

use super::Folder;
use crate::controller::config::{Config, Manifests};
use crate::controller::dry_run::DryRun;
use crate::controller::federation::{Federator, Record};
use crate::controller::lint::Counts;
use crate::controller::reconcile::{Parts, Reconciler};
use crate::controller::run::{EVENTS, dry_run, serve_pages};
use crate::controller::state::{Kind, StatusUpdate};
use crate::signet::Signet;

/// Starts the controller on a folder of manifests. `environment` is put into them when the config asks for that. Gives what a
/// dry run finds.
///
/// # Errors
/// When the folder is none, or an address cannot be listened on.
pub async fn start(
    config: Config,
    manifests: &Manifests,
    environment: BTreeMap<String, String>,
    metrics: Metrics,
    tasks: &Tasks,
) -> Result<Option<DryRun>, BoxError> {
    check(&manifests.folder)?;
    let readiness = Readiness::new();
    serve_pages(&config, &metrics, &readiness, tasks).await?;
    if config.leader_election.enabled {
        tracing::warn!("leaderElection needs Kubernetes: see that one controller runs at a time");
    }
    let config = Arc::new(config);
    tracing::info!(
        trust_domain = %config.scope.trust_domain, folder = %manifests.folder.display(), entries = %config.ownership,
        class = config.class.name, "controller starts, without Kubernetes"
    );
    let (statuses, updates) = mpsc::channel(EVENTS);
    let mut listeners = Vec::new();
    let mut listen = |kind| {
        let (sender, events) = mpsc::channel(EVENTS);
        listeners.push((kind, sender));
        events
    };
    let dry_run = dry_run(&config, &metrics);
    let signet = Signet::new(&config.server_socket);
    if config.reconcile.static_entries {
        let parts = Parts {
            config: config.clone(),
            signet: signet.clone(),
            events: listen(Kind::StaticEntry),
            leads: None,
            statuses: statuses.clone(),
            unwritten: mpsc::unbounded_channel().1,
            counts: Counts::default(),
            metrics: metrics.clone(),
            clock: Clock::system(),
            dry_run: dry_run.clone(),
        };
        let reconciler = Reconciler::new(parts, Some(readiness.part("entries")));
        tasks.spawn("entries", reconciler.run(tasks.shutdown()));
    }
    if config.reconcile.federated_trust_domains {
        let record = record(&config, manifests)?;
        let federator = Federator {
            signet,
            events: listen(Kind::FederatedTrustDomain),
            leads: None,
            statuses,
            unwritten: mpsc::unbounded_channel().1,
            record,
            dry_run: dry_run.clone(),
            metrics: metrics.clone(),
            clock: Clock::system(),
            resync: config.resync,
        };
        let (config, shutdown) = (config.clone(), tasks.shutdown());
        tasks.spawn("federation", async move {
            federator.run(&config, shutdown).await
        });
    }
    let folder = Folder {
        path: manifests.folder.clone(),
        environment: manifests.expand_environment.then_some(environment),
        listeners,
        every: config.resync,
        metrics,
    };
    tasks.spawn("manifests", folder.run(tasks.shutdown()));
    tasks.spawn("statuses", log(updates, tasks.shutdown()));
    Ok(dry_run)
}

/// A file of this controller's prefix, so that controllers of several classes share a folder.
fn record(config: &Config, manifests: &Manifests) -> Result<Record, BoxError> {
    let given = manifests.federation_record.clone();
    let name = format!(".signet-federation-{}", config.ownership.name());
    let path = given.clone().unwrap_or_else(|| manifests.folder.join(name));
    // A dry run writes nothing, and who names a file hears of each write that fails.
    if config.dry_run || given.is_some() {
        return Ok(Record::File(path));
    }
    Ok(Record::beside(path)?)
}

fn check(folder: &Path) -> Result<(), BoxError> {
    if folder.is_dir() {
        return Ok(());
    }
    let message = format!("staticManifestPath: {} is not a folder", folder.display());
    Err(message.into())
}

/// Says what the statuses would say.
async fn log(
    mut updates: mpsc::Receiver<StatusUpdate>,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    loop {
        let update = tokio::select! {
            update = updates.recv() => update,
            () = shutdown.cancelled() => None,
        };
        let Some(update) = update else { return Ok(()) };
        let (resource, kind) = (&update.name, update.kind);
        match &update.event {
            Some((true, reason, message)) => {
                tracing::warn!(resource, ?kind, reason, "{message}");
            }
            Some((false, reason, message)) => {
                tracing::info!(resource, ?kind, reason, "{message}");
            }
            None => tracing::debug!(resource, ?kind, "looked at"),
        }
    }
}
