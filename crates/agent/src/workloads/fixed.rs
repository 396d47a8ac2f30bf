//! Views fed by hand.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use identity::{BundleSet, JwtSvid, Selectors};
use tokio::sync::watch;

use super::{JwtFetchError, WorkloadView};

/// A source of views that changes only when told.
pub(super) struct Fixed {
    default: Arc<WorkloadView>,
    views: Mutex<HashMap<Selectors, watch::Sender<Arc<WorkloadView>>>>,
    jwt: Mutex<Result<JwtSvid, JwtFetchError>>,
    bundles: watch::Sender<Arc<BundleSet>>,
}

impl Fixed {
    pub(super) fn new(default: Arc<WorkloadView>) -> Self {
        let bundles = Arc::new(bundles_of(&default));
        Self {
            default,
            views: Mutex::default(),
            jwt: Mutex::new(Err(JwtFetchError::Unavailable("no server".to_owned()))),
            bundles: watch::Sender::new(bundles),
        }
    }

    pub(super) fn feed(&self, selectors: Selectors, view: Arc<WorkloadView>) {
        self.bundles.send_replace(Arc::new(bundles_of(&view)));
        let sender = watch::Sender::new(view.clone());
        lock(&self.views)
            .entry(selectors)
            .or_insert(sender)
            .send_replace(view);
    }

    pub(super) fn feed_jwt(&self, answer: Result<JwtSvid, JwtFetchError>) {
        *lock(&self.jwt) = answer;
    }

    pub(super) fn subscribe(&self, selectors: Selectors) -> watch::Receiver<Arc<WorkloadView>> {
        lock(&self.views)
            .entry(selectors)
            .or_insert_with(|| watch::Sender::new(self.default.clone()))
            .subscribe()
    }

    pub(super) fn jwt_svid(&self) -> Result<JwtSvid, JwtFetchError> {
        lock(&self.jwt).clone()
    }

    pub(super) fn bundles(&self) -> watch::Receiver<Arc<BundleSet>> {
        self.bundles.subscribe()
    }
}

fn bundles_of(view: &WorkloadView) -> BundleSet {
    [&view.bundle]
        .into_iter()
        .chain(view.federated.values())
        .cloned()
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
