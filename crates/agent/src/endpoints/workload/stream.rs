//! The streams: what a workload has now, and again whenever that changes.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::{Api, Call, no_identity};
use crate::endpoints::caller::Caller;
use crate::endpoints::compose::rank;
use crate::endpoints::shared::Content;
use crate::workloads::WorkloadView;

/// For how long a caller is held that has an identity, but nothing to show for it yet. Then it hears why.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// For how long a first answer waits for the default identity when others are there already. A client that takes the
/// first SVID of the first answer would start out as somebody else.
const SETTLE: Duration = Duration::from_secs(1);

/// What clients hear when the agent ends; they connect again.
const STOPPING: &str = "the agent is stopping";

/// Streams `content` to `caller`: every frame is complete, equal ones are not repeated (SPIFFE_Workload_API.md §4.3).
pub(super) fn open(
    api: Arc<Api>,
    call: Call,
    caller: Caller,
    content: Content,
) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    let feed = Feed {
        views: api.workloads.subscribe(caller.selectors().clone()),
        api,
        caller,
        content,
        opened: Instant::now(),
        shown: None,
    };
    unfold(Some((feed, call)), async |state| {
        let (mut feed, call) = state?;
        match feed.next().await {
            Ok(frame) => Some((Ok(frame), Some((feed, call)))),
            Err(status) => Some((call.record(Err(status)), None)),
        }
    })
}

struct Feed {
    api: Arc<Api>,
    caller: Caller,
    content: Content,
    views: watch::Receiver<Arc<WorkloadView>>,
    opened: Instant,
    /// The last frame sent.
    shown: Option<Bytes>,
}

impl Feed {
    async fn next(&mut self) -> Result<Bytes, Status> {
        loop {
            let verifier = self.api.config.allow_unauthenticated_verifiers;
            let waited = self.shown.is_none().then(|| self.opened.elapsed());
            // Held no longer than to look at it: it holds keys, and may be replaced meanwhile.
            let view = self.views.borrow_and_update().at(self.api.clock.now());
            let deadline = match judge(&view, self.content, verifier, waited) {
                Verdict::Show => {
                    let frame = self.api.frames.frame(self.content, &view)?;
                    if self.shown.as_ref() != Some(&frame) {
                        self.caller.check_alive()?;
                        self.shown = Some(frame.clone());
                        return Ok(frame);
                    }
                    None
                }
                Verdict::Refuse => return Err(no_identity(&self.caller)),
                Verdict::Hold { until, why } => match waited {
                    Some(waited) if waited >= until => return Err(Status::unavailable(why)),
                    Some(_) => Some(self.opened + until),
                    None => None,
                },
            };
            drop(view);
            self.wait(deadline).await?;
        }
    }

    /// Until the view changes, or the time has come.
    async fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Status> {
        let time_is_up = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        select! {
            changed = self.views.changed() => changed.map_err(|_| Status::unavailable(STOPPING)),
            () = self.api.shutdown.cancelled() => Err(Status::unavailable(STOPPING)),
            () = time_is_up => Ok(()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// There is something to show.
    Show,
    /// Known to have no identity.
    Refuse,
    /// Not yet.
    Hold {
        /// How long after the stream was opened.
        until: Duration,
        /// What the caller hears then.
        why: &'static str,
    },
}

/// What becomes of a stream whose caller has `view`. `verifier`: bundles are shown to callers without an identity, too.
/// `waited`: for how long it has waited for its first frame; `None` once it had that.
fn judge(
    view: &WorkloadView,
    content: Content,
    verifier: bool,
    waited: Option<Duration>,
) -> Verdict {
    let hold = |why| Verdict::Hold {
        until: PATIENCE,
        why,
    };
    let has_identity = !view.identities.is_empty() || !view.pending.is_empty();
    let may_see = has_identity || (verifier && content != Content::X509Svids);
    if !may_see && !view.synced {
        return hold(NOT_SYNCED);
    }
    if !may_see {
        return Verdict::Refuse;
    }
    let no_x509 = view.bundle.x509_authorities.is_empty();
    match content {
        Content::X509Svids if view.identities.is_empty() => hold(NOT_ISSUED),
        // Clients refuse an SVID without its bundle.
        Content::X509Svids | Content::X509Bundles if no_x509 => hold(NO_BUNDLE),
        Content::JwtBundles if no_x509 && view.bundle.jwt_authorities.is_empty() => hold(NO_BUNDLE),
        Content::X509Svids
            if waited.is_some_and(|waited| waited < SETTLE) && lacks_default(view) =>
        {
            Verdict::Hold {
                until: SETTLE,
                why: NOT_ISSUED,
            }
        }
        _ => Verdict::Show,
    }
}

/// Whether an identity that comes before all that are there is still to come.
fn lacks_default(view: &WorkloadView) -> bool {
    let (Some(pending), Some(issued)) = (view.pending.first(), view.identities.first()) else {
        return false;
    };
    rank(pending) < rank(&issued.entry)
}

pub(super) const NOT_SYNCED: &str =
    "the agent does not know the entries yet: it has not reached its server";
const NOT_ISSUED: &str = "no X.509-SVID is issued yet: the agent waits for its server";
pub(super) const NO_BUNDLE: &str = "the agent has no bundle yet: it has not reached its server";
