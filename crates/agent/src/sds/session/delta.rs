//! `DeltaSecrets`: incremental.

use std::{sync::Arc, time::SystemTime};

use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

use super::{
    Note, RequestError, control_plane,
    subscription::Held,
    subscriptions::{Outgoing, Subscriptions},
};
use crate::{
    sds::{Secrets, TYPE_URL, Version},
    workloads::WorkloadView,
};

/// The name that stands for every name.
const WILDCARD: &str = "*";

/// One `DeltaSecrets` stream.
///
/// A name that is certainly not the workload's is answered at once as removed, so that Envoy need not wait for it; the
/// secret follows if that changes.
#[derive(Debug)]
pub struct DeltaSecrets {
    subscriptions: Subscriptions,
    introduced: bool,
}

impl DeltaSecrets {
    /// A new stream of a workload with this view; `stream` is random, and tells its nonces from another's.
    #[must_use]
    pub fn new(secrets: Arc<Secrets>, view: Arc<WorkloadView>, stream: u64) -> Self {
        Self {
            subscriptions: Subscriptions::new(secrets, view, stream),
            introduced: false,
        }
    }

    /// The same on a stream of many types (`DeltaAggregatedResources`): what is not a secret is not answered.
    #[must_use]
    pub fn aggregated(mut self) -> Self {
        self.subscriptions.aggregate();
        self
    }

    /// What it is subscribed to.
    #[must_use]
    pub const fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// What it is subscribed to, to be told of views and the time.
    #[must_use]
    pub const fn subscriptions_mut(&mut self) -> &mut Subscriptions {
        &mut self.subscriptions
    }

    /// Takes a request: an answer to a response, names to add or to drop, or all of these.
    ///
    /// # Errors
    /// When it ends the stream.
    pub fn on_request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        now: SystemTime,
    ) -> Result<(), RequestError> {
        let node = request.node.as_ref();
        if !self.subscriptions.introduce(node, &request.type_url)? {
            return Ok(());
        }
        if !request.response_nonce.is_empty() {
            let rejection = request.error_detail.as_ref();
            let message = rejection.map(|status| status.message.as_str());
            self.subscriptions
                .on_answer(&request.response_nonce, message, now);
        }
        for name in &request.resource_names_unsubscribe {
            self.subscriptions.unsubscribe(name);
        }
        let first = !std::mem::replace(&mut self.introduced, true);
        let everything = request
            .resource_names_subscribe
            .iter()
            .any(|name| name == WILDCARD);
        if everything || (first && request.resource_names_subscribe.is_empty()) {
            self.subscriptions.note(Note::Wildcard);
        }
        for name in &request.resource_names_subscribe {
            if name == WILDCARD {
                continue;
            }
            // Who subscribes to a name again has lost what it stands for.
            let version = request.initial_resource_versions.get(name);
            let held = version
                .filter(|_| first)
                .and_then(|version| Version::read(version))
                .map_or(Held::Nothing, Held::Version);
            self.subscriptions.subscribe(name, held)?;
        }
        self.subscriptions.sort();
        Ok(())
    }

    /// Takes a newer view.
    pub fn on_view(&mut self, view: Arc<WorkloadView>) {
        self.subscriptions.on_view(view);
    }

    /// The next response, when there is something to say.
    pub fn next(&mut self, now: SystemTime) -> Option<DeltaDiscoveryResponse> {
        let Outgoing {
            name,
            nonce,
            resource,
        } = self.subscriptions.next(true, now)?;
        let mut response = DeltaDiscoveryResponse {
            type_url: TYPE_URL.to_owned(),
            nonce,
            control_plane: Some(control_plane()),
            ..DeltaDiscoveryResponse::default()
        };
        match resource {
            Some(resource) => response.resources.push(Resource {
                version: resource.version().to_string(),
                resource: resource.any(),
                name: name.to_string(),
            }),
            None => response.removed_resources.push(name.to_string()),
        }
        Some(response)
    }

    /// What the log should know since the last time.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.subscriptions.take_notes()
    }

    /// Whether a name is withheld for want of selectors, so that it is worth to look at the workload again.
    #[must_use]
    pub fn lacks_selectors(&self) -> bool {
        self.subscriptions.lacks_selectors()
    }

    /// The operator's names for the Envoy, `cluster/id`, once it has said them.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.subscriptions.node()
    }
}
