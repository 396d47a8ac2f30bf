//! When a new certificate is shown.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runtime::{BoxError, Clock, Metrics, Shutdown};
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{ServingIdentity, TlsOptions, server_config};
use crate::admission::ca_bundle::Roots;

/// An API server goes by a configuration it watches; this is for the watch to arrive.
const SETTLE: Duration = Duration::from_secs(1);
/// The API server may be away; then the certificate changes all the same, while the old one is still good for an hour or not.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) struct Gate {
    pub(super) identities: watch::Receiver<Option<Arc<ServingIdentity>>>,
    /// What each keeper has put in place.
    pub(super) in_place: Vec<watch::Receiver<Option<Arc<Roots>>>>,
    /// What the keepers are to put in place.
    pub(super) wanted: watch::Sender<Option<Arc<Roots>>>,
    pub(super) configs: watch::Sender<Option<Arc<ServerConfig>>>,
    pub(super) expiry: watch::Sender<Option<SystemTime>>,
    pub(super) tls: TlsOptions,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

impl Gate {
    pub(super) async fn run(mut self, shutdown: Shutdown) -> Result<(), BoxError> {
        let mut shown: Option<Arc<ServingIdentity>> = None;
        loop {
            tokio::select! {
                changed = self.identities.changed() => if changed.is_err() { return Ok(()) },
                () = shutdown.cancelled() => return Ok(()),
            }
            let Some(next) = self.identities.borrow_and_update().clone() else {
                continue;
            };
            tokio::select! {
                () = self.announce(&next, shown.as_deref()) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            if shown.as_ref().is_none_or(|shown| {
                shown.svid != next.svid || shown.svid.leaf() != next.svid.leaf()
            }) {
                self.show(&next);
            }
            self.want(&next.roots);
            shown = Some(next);
        }
    }

    /// Has the roots of both put in place, and waits for it where something is shown already.
    async fn announce(&self, next: &ServingIdentity, shown: Option<&ServingIdentity>) {
        let Some(shown) = shown else {
            // There is nothing better to show meanwhile.
            return self.want(&next.roots);
        };
        if shown.roots.contains(&next.roots) {
            return;
        }
        let both = Arc::new(next.roots.and(&shown.roots));
        self.want(&both);
        let left = shown.svid.expires_at().duration_since(self.clock.now());
        let wait = LONGEST_WAIT.min(left.unwrap_or_default());
        let settled = async {
            for keeper in &self.in_place {
                let mut keeper = keeper.clone();
                let has = |roots: &Option<Arc<Roots>>| {
                    roots
                        .as_ref()
                        .is_some_and(|roots| roots.contains(&next.roots))
                };
                // A keeper that ended cannot be waited for.
                let _ = keeper.wait_for(has).await;
            }
            if !self.in_place.is_empty() {
                sleep(SETTLE).await;
            }
        };
        if timeout(wait, settled).await.is_err() {
            tracing::warn!(
                "the new root is not in every caBundle yet; the certificate under it is shown all the same"
            );
        }
    }

    fn want(&self, roots: &Arc<Roots>) {
        self.wanted.send_if_modified(|current| {
            let is_new = current.as_ref() != Some(roots);
            if is_new {
                *current = Some(Arc::clone(roots));
            }
            is_new
        });
    }

    fn show(&self, identity: &ServingIdentity) {
        match server_config(&identity.svid, &self.tls) {
            Ok(config) => {
                self.configs.send_replace(Some(config));
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate cannot be shown; the old one stays");
                return;
            }
        }
        let expires = identity.svid.expires_at();
        self.expiry.send_replace(Some(expires));
        let seconds = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        let gauge = self.metrics.gauge("certificate_expires_at_seconds", &[]);
        gauge.set(seconds.as_secs_f64());
        self.metrics.counter("certificate_changes", &[]).increment();
        let serial = identity.svid.leaf().serial_decimal();
        tracing::info!(id = %identity.svid.id(), serial, "the webhook's certificate is in use");
    }
}

#[cfg(test)]
mod tests;
