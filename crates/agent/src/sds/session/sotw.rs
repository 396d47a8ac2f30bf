//! `StreamSecrets`: state of the world.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use proto::discovery::{DiscoveryRequest, DiscoveryResponse};

use super::{
    Note, RequestError, control_plane,
    subscription::Held,
    subscriptions::{Answered, Outgoing, Subscriptions},
};
use crate::{
    sds::{MAX_NAMES, Secrets, TYPE_URL, Version},
    workloads::WorkloadView,
};

/// How often the same content is sent again to a client that repeats itself: enough for one that lost it, too few for
/// one that acknowledges everything twice to keep both sides busy.
const RESENDS: u8 = 16;

/// One `StreamSecrets` stream.
///
/// Its responses hold what changed alone, which the protocol allows for secrets: Envoy keeps the others.
#[derive(Debug)]
pub struct StreamSecrets {
    subscriptions: Subscriptions,
    introduced: bool,
    resent: Option<(Version, u8)>,
}

impl StreamSecrets {
    /// A new stream of a workload with this view; `stream` is random, and tells its nonces from another's.
    #[must_use]
    pub fn new(secrets: Arc<Secrets>, view: Arc<WorkloadView>, stream: u64) -> Self {
        Self {
            subscriptions: Subscriptions::new(secrets, view, stream),
            introduced: false,
            resent: None,
        }
    }

    /// The same on a stream of many types (`StreamAggregatedResources`): what is not a secret is not answered.
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

    /// Takes a request: an answer to a response, new names, or both.
    ///
    /// # Errors
    /// When it ends the stream.
    pub fn on_request(
        &mut self,
        request: &DiscoveryRequest,
        now: SystemTime,
    ) -> Result<(), RequestError> {
        let node = request.node.as_ref();
        if !self.subscriptions.introduce(node, &request.type_url)? {
            return Ok(());
        }
        let rejection = request.error_detail.as_ref();
        let answered = (!request.response_nonce.is_empty()).then(|| {
            let message = rejection.map(|status| status.message.as_str());
            self.subscriptions
                .on_answer(&request.response_nonce, message, now)
        });
        // Whatever it answers, it lists the names that count from now on.
        let changed = self.rename(&request.resource_names)?;
        if !self.introduced {
            self.introduced = true;
            if let Some(version) = Version::read(&request.version_info) {
                self.subscriptions.resume(version, now);
            }
        } else if answered == Some(Answered::Again) && rejection.is_none() && !changed {
            // Envoy has lost it: a listener was replaced by one that differs in little (envoyproxy/envoy#47309).
            self.resend();
        }
        Ok(())
    }

    /// Takes a newer view.
    pub fn on_view(&mut self, view: Arc<WorkloadView>) {
        self.subscriptions.on_view(view);
    }

    /// The next response, when there is something to say.
    pub fn next(&mut self, now: SystemTime) -> Option<DiscoveryResponse> {
        let Outgoing {
            nonce, resource, ..
        } = self.subscriptions.next(false, now)?;
        Some(DiscoveryResponse {
            version_info: self.subscriptions.version().to_string(),
            resources: resource.iter().map(|resource| resource.any()).collect(),
            type_url: TYPE_URL.to_owned(),
            nonce,
            control_plane: Some(control_plane()),
        })
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

    /// Replaces the names; tells whether they differ.
    fn rename(&mut self, names: &[String]) -> Result<bool, RequestError> {
        if names.is_empty() && !self.introduced {
            self.subscriptions.note(Note::Wildcard);
        }
        let wanted: HashSet<&str> = names.iter().map(String::as_str).collect();
        if wanted.len() > MAX_NAMES {
            return Err(RequestError::TooManyNames);
        }
        let before = self.subscriptions.len();
        self.subscriptions.retain(|name| wanted.contains(name));
        let mut changed = self.subscriptions.len() < before;
        for name in wanted {
            if !self.subscriptions.contains(name) {
                self.subscriptions.subscribe(name, Held::Nothing)?;
                changed = true;
            }
        }
        self.subscriptions.sort();
        Ok(changed)
    }

    fn resend(&mut self) {
        let version = self.subscriptions.version();
        let times = match self.resent {
            Some((resent, times)) if resent == version => times,
            _ => 0,
        };
        if times < RESENDS {
            self.resent = Some((version, times + 1));
            self.subscriptions.resend();
        }
    }
}
