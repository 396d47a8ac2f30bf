//! The program: watches, loops, election, publishing, tied together.

use std::collections::HashMap;
use std::sync::Arc;

use kube::Client;
use kube::runtime::events::Recorder;
use runtime::listen::bind_tcp;
use runtime::{BoxError, Clock, Metrics, Readiness, Tasks};
use tokio::sync::{mpsc, watch as watched};

use super::config::Config;
use super::dry_run::{DryRun, Part};
use super::federation::{Federator, Record};
use super::lint::Counts;
use super::publish::{self, Publisher};
use super::reconcile::{Parts, Reconciler};
use super::state::{Event, Kind, StatusUpdate};
use super::watch;
use super::webhook::Webhook;
use crate::bundle;
use crate::lease::{self, LeaseConfig};
use crate::signet::Signet;

/// How many events wait between the watches and the loop before the watches have to wait.
pub(super) const EVENTS: usize = 1024;

/// What the program runs by.
pub struct Options {
    /// The config file.
    pub config: Config,
    /// The API server.
    pub client: Client,
    /// This process among its replicas: the pod's name and something random.
    pub identity: String,
    /// Figures.
    pub metrics: Metrics,
    /// Says when everything was listed and written for the first time.
    pub readiness: Readiness,
    /// The time.
    pub clock: Clock,
    /// Whether custom resources are admitted.
    pub webhooks: bool,
}

/// What the rest of the program may hang on to.
#[derive(Clone, Debug)]
pub struct Running {
    /// Whether this process is the one that works; absent without an election.
    pub leads: Option<watched::Receiver<bool>>,
    /// The server.
    pub signet: Signet,
    /// For the lint of admission.
    pub counts: Counts,
    /// What would be written, when the config asks for a dry run.
    pub dry_run: Option<DryRun>,
}

/// Starts the controller.
///
/// # Errors
/// When an address cannot be listened on.
pub async fn start(mut options: Options, tasks: &Tasks) -> Result<Running, BoxError> {
    find_cluster_domain(&mut options.config).await;
    serve_pages(&options.config, &options.metrics, &options.readiness, tasks).await?;
    let config = Arc::new(options.config.clone());
    tracing::info!(
        trust_domain = %config.scope.trust_domain, cluster = config.scope.cluster_name, entries = %config.ownership,
        class = config.class.name, "controller starts"
    );
    let running = Running {
        leads: elect(&options, tasks),
        signet: Signet::new(&config.server_socket),
        counts: Counts::default(),
        dry_run: dry_run(&config, &options.metrics),
    };
    if options.webhooks && !config.dry_run {
        let webhook = Webhook {
            config: config.clone(),
            counts: running.counts.clone(),
            client: options.client.clone(),
            metrics: options.metrics.clone(),
            readiness: options.readiness.clone(),
            clock: options.clock.clone(),
        };
        webhook.start(tasks).await?;
    }
    let recorder = publish::recorder(&options.client, options.identity.clone());
    publish_bundle(&options, &running, &recorder, tasks);
    let mut program = Program {
        config,
        client: options.client,
        metrics: options.metrics,
        clock: options.clock,
        unwritten: HashMap::new(),
        tasks,
    };
    let (statuses, updates) = mpsc::channel(EVENTS);
    program
        .start_entries(&running, &statuses, options.readiness.part("entries"))
        .await;
    if program.config.reconcile.federated_trust_domains {
        program.start_federation(&running, &statuses).await;
    }
    let publisher = Publisher {
        client: program.client,
        recorder,
        updates,
        unwritten: program.unwritten,
        metrics: program.metrics,
    };
    tasks.spawn("status writer", publisher.run(tasks.shutdown()));
    Ok(running)
}

/// Whether this process leads, where there is an election.
fn elect(options: &Options, tasks: &Tasks) -> Option<watched::Receiver<bool>> {
    let election = &options.config.leader_election;
    // A dry run gets in nobody's way.
    (election.enabled && !options.config.dry_run).then(|| {
        let lease = LeaseConfig {
            namespace: own_namespace(&options.config, &options.client),
            name: election.name.clone(),
            identity: options.identity.clone(),
            duration: election.lease,
            renew_deadline: election.renew_deadline,
            retry: election.retry,
        };
        lease::elect(options.client.clone(), lease, options.clock.clone(), tasks)
    })
}

/// Keeps the trust bundle where the config says.
fn publish_bundle(options: &Options, running: &Running, recorder: &Recorder, tasks: &Tasks) {
    let config = options.config.bundle.clone();
    let Some(config) = config.filter(|_| !options.config.dry_run) else {
        return;
    };
    let publisher = bundle::Options {
        config,
        trust_domain: options.config.scope.trust_domain.clone(),
        signet: running.signet.clone(),
        client: options.client.clone(),
        leads: running.leads.clone(),
        recorder: recorder.clone(),
        metrics: options.metrics.clone(),
    };
    bundle::start(publisher, tasks);
}

struct Program<'a> {
    config: Arc<Config>,
    client: Client,
    metrics: Metrics,
    clock: Clock,
    unwritten: HashMap<Kind, mpsc::UnboundedSender<String>>,
    tasks: &'a Tasks,
}

impl Program<'_> {
    async fn start_entries(
        &mut self,
        running: &Running,
        statuses: &mpsc::Sender<StatusUpdate>,
        ready: runtime::Part,
    ) {
        let mut kinds = vec![Kind::Pod, Kind::Node, Kind::Namespace, Kind::Endpoints];
        let tenants = !self.config.tenants.is_empty();
        let handled = [
            (
                self.config.reconcile.spiffe_ids && tenants,
                Kind::WorkloadSpiffeId,
            ),
            (self.config.reconcile.spiffe_ids, Kind::SpiffeId),
            (self.config.reconcile.static_entries, Kind::StaticEntry),
        ];
        kinds.extend(
            handled
                .iter()
                .filter(|(handled, _)| *handled)
                .map(|(_, kind)| *kind),
        );
        let events = self.watch(&kinds).await;
        let parts = Parts {
            config: self.config.clone(),
            signet: running.signet.clone(),
            events,
            leads: running.leads.clone(),
            statuses: statuses.clone(),
            unwritten: self.unwritten(&[Kind::SpiffeId, Kind::StaticEntry, Kind::WorkloadSpiffeId]),
            counts: running.counts.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            dry_run: running.dry_run.clone(),
        };
        // A replica that waits for the lease is as ready as it gets.
        let ready = if running.leads.is_some() {
            ready.done();
            None
        } else {
            Some(ready)
        };
        let reconciler = Reconciler::new(parts, ready);
        self.tasks
            .spawn("entries", reconciler.run(self.tasks.shutdown()));
    }

    async fn start_federation(&mut self, running: &Running, statuses: &mpsc::Sender<StatusUpdate>) {
        let events = self.watch(&[Kind::FederatedTrustDomain]).await;
        let federator = Federator {
            signet: running.signet.clone(),
            events,
            leads: running.leads.clone(),
            statuses: statuses.clone(),
            unwritten: self.unwritten(&[Kind::FederatedTrustDomain]),
            record: self.record(),
            dry_run: running.dry_run.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            resync: self.config.resync,
        };
        let (config, shutdown) = (self.config.clone(), self.tasks.shutdown());
        self.tasks.spawn("federation", async move {
            federator.run(&config, shutdown).await
        });
    }

    fn record(&self) -> Record {
        Record::ConfigMap {
            client: self.client.clone(),
            namespace: own_namespace(&self.config, &self.client),
            key: self.config.ownership.name().to_owned(),
        }
    }

    async fn watch(&self, kinds: &[Kind]) -> mpsc::Receiver<Event> {
        let (sender, events) = mpsc::channel(EVENTS);
        watch::start(
            &self.client,
            &self.config,
            kinds,
            &sender,
            &self.metrics,
            self.tasks,
        )
        .await;
        events
    }

    fn unwritten(&mut self, kinds: &[Kind]) -> mpsc::UnboundedReceiver<String> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.unwritten
            .extend(kinds.iter().map(|kind| (*kind, sender.clone())));
        receiver
    }
}

/// Where the Lease is, and what else the controller keeps for itself.
fn own_namespace(config: &Config, client: &Client) -> String {
    let given = config.leader_election.namespace.clone();
    given.unwrap_or_else(|| client.default_namespace().to_owned())
}

/// What takes the loops' findings, when the config asks for a dry run.
pub(super) fn dry_run(config: &Config, metrics: &Metrics) -> Option<DryRun> {
    let mut parts = Vec::new();
    let files = config.manifests.is_some();
    if !files || config.reconcile.static_entries {
        parts.push(Part::Entries);
    }
    if config.reconcile.federated_trust_domains {
        parts.push(Part::Federation);
    }
    config.dry_run.then(|| DryRun::new(&parts, metrics.clone()))
}

pub(super) async fn serve_pages(
    config: &Config,
    metrics: &Metrics,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Result<(), BoxError> {
    if let Some(address) = config.metrics_address {
        metrics.serve(bind_tcp(address).await?, tasks);
    }
    if let Some(address) = config.health_address {
        // The paths that SPIRE's controller manager has.
        readiness.serve(bind_tcp(address).await?, "/healthz", "/readyz", tasks);
    }
    Ok(())
}

/// The cluster's domain as the pod's resolver knows it, when the config does not say it.
async fn find_cluster_domain(config: &mut Config) {
    if config.scope.cluster_domain.is_some() {
        return;
    }
    let resolver = tokio::fs::read_to_string("/etc/resolv.conf")
        .await
        .unwrap_or_default();
    config.scope.cluster_domain = cluster_domain(&resolver);
    match &config.scope.cluster_domain {
        Some(domain) => tracing::info!(domain, "the cluster's domain, by /etc/resolv.conf"),
        None => tracing::warn!(
            "the cluster's domain is not known: set clusterDomain to have it in DNS names"
        ),
    }
}

/// Kubernetes gives a pod the search list `<namespace>.svc.<domain> svc.<domain> <domain> …`.
fn cluster_domain(resolver: &str) -> Option<String> {
    let mut lists = resolver
        .lines()
        .filter_map(|line| line.trim().strip_prefix("search"));
    let last = lists.next_back()?;
    last.split_whitespace()
        .find_map(|domain| domain.strip_prefix("svc."))
        .map(|domain| domain.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::cluster_domain;

    #[test]
    fn the_resolver_knows_the_clusters_domain() {
        let pod = "search spire.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(cluster_domain(pod).as_deref(), Some("cluster.local"));
        assert_eq!(cluster_domain("nameserver 1.1.1.1\nsearch lan\n"), None);
    }
}
