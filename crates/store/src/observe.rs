//! Who listens to the store's calls, for figures: what is called, and how it ended.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::{Store, StoreError};

/// Hears how a call ended: with the store's failure, if it was one. What a call refuses (not found, there already) is no
/// failure. Dropped unheard when the caller went away.
pub type Ended = Box<dyn FnOnce(Option<&StoreError>) + Send>;

/// Is told of each call when it begins, by SPIRE's name of it (`registration_entry_create`).
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&'static str) -> Ended + Send + Sync>);

impl Observer {
    /// An observer that calls `begin`.
    pub fn new(begin: impl Fn(&'static str) -> Ended + Send + Sync + 'static) -> Self {
        Self(Arc::new(begin))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl Store {
    /// The same store, whose calls `observer` hears of.
    #[must_use]
    pub fn observed(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Does `work` and tells the observer.
    pub(crate) async fn observe<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let Some(Observer(begin)) = &self.observer else {
            return work.await;
        };
        let ended = begin(name);
        let outcome = work.await;
        ended(outcome.as_ref().err());
        outcome
    }
}
