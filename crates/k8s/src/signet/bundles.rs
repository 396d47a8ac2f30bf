//! The server's bundle as it changes.

use std::sync::Arc;
use std::time::Duration;

use identity::Bundle;
use runtime::Tasks;
use runtime::backoff::{Backoff, jittered};
use tokio::sync::watch;

use super::Signet;

/// How often the server is asked: whoever shows or publishes a root has to do so before it signs.
const EVERY: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(15);

impl Signet {
    /// The bundle of the server's own trust domain: none until the server told it once, then the newest. Equal ones are not
    /// announced. Ends with the last receiver, and at shutdown.
    #[must_use]
    pub fn watch_bundle(&self, tasks: &Tasks) -> watch::Receiver<Option<Arc<Bundle>>> {
        let (bundles, receiver) = watch::channel(None);
        let (signet, shutdown) = (self.clone(), tasks.shutdown());
        tasks.spawn("bundle", async move {
            tokio::select! {
                () = follow(&signet, &bundles) => {}
                () = bundles.closed() => {}
                () = shutdown.cancelled() => {}
            }
            Ok(())
        });
        receiver
    }
}

async fn follow(signet: &Signet, bundles: &watch::Sender<Option<Arc<Bundle>>>) {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        let pause = match signet.bundle().await {
            Ok(bundle) => {
                backoff.reset();
                bundles.send_if_modified(|current| {
                    let is_new = current.as_deref() != Some(&bundle);
                    if is_new {
                        *current = Some(Arc::new(bundle));
                    }
                    is_new
                });
                jittered(EVERY, 0.1)
            }
            Err(error) => {
                tracing::warn!(%error, "the server's bundle is not known");
                backoff.fail()
            }
        };
        tokio::time::sleep(pause).await;
    }
}
