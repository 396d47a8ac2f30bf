//! The config file: SPIRE's `ControllerManagerConfig`, and a block `signet` for what only this controller has.

mod read;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;

use super::template::{Scope, Template};
use super::tenants::Policies;
use crate::bundle::config as bundle;

pub use read::read;

/// What the controller runs by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names that templates see.
    pub scope: Scope,
    /// Namespaces whose pods are left alone: regular expressions that match anywhere in the name, as Go's do.
    pub ignore_namespaces: Vec<Regex>,
    /// Makes the parent ID.
    pub parent_id: Template,
    /// Which resources are this controller's.
    pub class: Class,
    /// Whose entries are touched.
    pub ownership: OwnershipRule,
    /// The kinds that are handled.
    pub reconcile: Reconcile,
    /// Between two looks at everything the server has.
    pub resync: Duration,
    /// The server's admin socket.
    pub server_socket: PathBuf,
    /// `debug`, `info`, `warn` or `error`.
    pub log_level: Option<String>,
    /// Who of several controllers works.
    pub leader_election: LeaderElection,
    /// Where figures are shown, if anywhere.
    pub metrics_address: Option<SocketAddr>,
    /// Where `/live` and `/ready` answer, if anywhere.
    pub health_address: Option<SocketAddr>,
    /// Admission.
    pub webhook: Webhook,
    /// Whether only ready endpoints give a pod its services' names.
    pub ready_endpoints_only: bool,
    /// When deletes are held back.
    pub mass_delete: MassDelete,
    /// Namespaces whose pods are watched; all when empty.
    pub cache_namespaces: Vec<String>,
    /// The labels that a ClusterSPIFFEID must have for the API server to tell of it; none tells of all.
    pub spiffe_id_labels: BTreeMap<String, String>,
    /// Where resources come from instead of Kubernetes.
    pub manifests: Option<Manifests>,
    /// Whether federation relationships that somebody else made become the controller's once a resource declares them.
    pub adopt_federation: bool,
    /// Whether everything is looked at and nothing written.
    pub dry_run: bool,
    /// What namespaces may ask for themselves.
    pub tenants: Policies,
    /// Where the trust bundle is published, if anywhere.
    pub bundle: Option<bundle::Config>,
}

/// Which resources are handled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Those with this `className`.
    pub name: String,
    /// And those without one. Without a name of its own, a controller takes them anyway.
    pub watch_classless: bool,
}

impl Class {
    /// Whether a resource of `class_name` is this controller's.
    #[must_use]
    pub fn takes(&self, class_name: &str) -> bool {
        (class_name.is_empty() && self.watch_classless) || class_name == self.name
    }
}

/// Which entries of the server are the controller's, by their IDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnershipRule {
    /// Own IDs begin so; ends with a dot.
    pub prefix: String,
    /// IDs of a former prefix, to be deleted when nothing declares them: `Some("")` means IDs without a dot.
    pub cleanup: Option<String>,
}

/// A folder of manifests: SPIRE's static mode, without Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifests {
    /// Its files that end in `.yaml` are read.
    pub folder: PathBuf,
    /// Whether `$NAME` and `${NAME}` stand for the environment's values in them.
    pub expand_environment: bool,
    /// Where it is written down which federation relationships are the controller's; in the folder when absent.
    pub federation_record: Option<PathBuf>,
}

/// The kinds that are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconcile {
    /// ClusterSPIFFEID.
    pub spiffe_ids: bool,
    /// ClusterFederatedTrustDomain.
    pub federated_trust_domains: bool,
    /// ClusterStaticEntry.
    pub static_entries: bool,
}

/// Who of several controllers works: the holder of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// Whether there is an election at all.
    pub enabled: bool,
    /// The Lease's name.
    pub name: String,
    /// Its namespace; the pod's own when absent.
    pub namespace: Option<String>,
    /// How long a lease holds without renewal.
    pub lease: Duration,
    /// How long the holder tries to renew before it stops.
    pub renew_deadline: Duration,
    /// Between two tries.
    pub retry: Duration,
}

/// Admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The ValidatingWebhookConfiguration whose `caBundle` is kept.
    pub configuration: String,
    /// The address that is served.
    pub address: SocketAddr,
}

/// When deletes are held back: more than `percent` of the own entries at once, and more than `at_least`, while their pods still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MassDelete {
    /// 100 never holds back.
    pub percent: u8,
    /// Fewer deletes than this are never held back.
    pub at_least: usize,
}

impl OwnershipRule {
    /// The prefix without the dot that ends it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.prefix.strip_suffix('.').unwrap_or(&self.prefix)
    }
}

impl fmt::Display for OwnershipRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.prefix)
    }
}

#[cfg(test)]
mod tests;
