//! The two sources of a certificate, each a loop that publishes what is newest.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Bundle, SpiffeId, X509Svid};
use runtime::backoff::{Backoff, jittered};
use runtime::{BoxError, Clock, Shutdown, Tasks};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{ServingIdentity, Source};
use crate::admission::ca_bundle::Roots;
use crate::signet::{Signet, SignetError};
use crate::workload::{X509Context, watch_x509};

/// A lifetime so short that it is always past its half is renewed this often.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(15);

type Identities = watch::Sender<Option<Arc<ServingIdentity>>>;

/// Starts the source's loop.
pub(super) fn start(
    source: Source,
    dns_names: Vec<String>,
    clock: &Clock,
    tasks: &Tasks,
) -> watch::Receiver<Option<Arc<ServingIdentity>>> {
    let (identities, receiver) = watch::channel(None);
    let shutdown = tasks.shutdown();
    match source {
        Source::WorkloadApi { socket } => {
            let contexts = watch_x509(&socket, tasks);
            let following = follow(contexts, dns_names, identities, shutdown);
            tasks.spawn("webhook certificate source", following);
        }
        Source::Server { socket, id, ttl } => {
            let signet = Signet::new(&socket);
            let bundles = signet.watch_bundle(tasks);
            let minter = Minter {
                signet,
                id,
                dns_names,
                ttl,
                clock: clock.clone(),
                identities,
            };
            tasks.spawn("webhook certificate source", minter.run(bundles, shutdown));
        }
    }
    receiver
}

async fn follow(
    mut contexts: watch::Receiver<Option<Arc<X509Context>>>,
    dns_names: Vec<String>,
    identities: Identities,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    loop {
        tokio::select! {
            changed = contexts.changed() => if changed.is_err() { return Ok(()) },
            () = shutdown.cancelled() => return Ok(()),
        }
        let Some(context) = contexts.borrow_and_update().clone() else {
            continue;
        };
        match chosen(&context, &dns_names) {
            Some(identity) => publish(&identities, identity),
            None => tracing::error!(
                wanted = dns_names.join(" "),
                "no SVID of this process holds the webhook's DNS names; put them into the dnsNames of its entry"
            ),
        }
    }
}

/// The first SVID that holds all names, with its trust domain's roots.
fn chosen(context: &X509Context, dns_names: &[String]) -> Option<ServingIdentity> {
    let fits = |svid: &&X509Svid| {
        let held = svid.leaf().dns_names();
        dns_names.iter().all(|name| held.contains(name))
    };
    let svid = context.svids.iter().map(|one| &one.svid).find(fits)?;
    let bundle = context.bundles.get(svid.id().trust_domain())?;
    Some(ServingIdentity {
        svid: svid.clone(),
        roots: Arc::new(Roots::of(bundle)),
    })
}

struct Minter {
    signet: Signet,
    id: SpiffeId,
    dns_names: Vec<String>,
    ttl: Duration,
    clock: Clock,
    identities: Identities,
}

impl Minter {
    async fn run(
        self,
        mut bundles: watch::Receiver<Option<Arc<Bundle>>>,
        shutdown: Shutdown,
    ) -> Result<(), BoxError> {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let bundle = bundles.borrow_and_update().clone();
            let turned = tokio::select! {
                turned = self.turn(bundle.as_deref()) => turned,
                () = shutdown.cancelled() => return Ok(()),
            };
            let pause = match turned {
                Ok(()) => {
                    backoff.reset();
                    self.pause()
                }
                Err(error) => {
                    tracing::warn!(%error, "the webhook's certificate is not renewed");
                    backoff.fail()
                }
            };
            // A new root has to be in the `caBundle` before it signs.
            tokio::select! {
                changed = bundles.changed() => if changed.is_err() { return Ok(()) },
                () = sleep(pause) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Until the certificate is due, but no longer than a clock may stand that was put forward.
    fn pause(&self) -> Duration {
        let held = self.identities.borrow();
        let due = held.as_ref().map(|held| half_life(&held.svid));
        let left = due.and_then(|due| due.duration_since(self.clock.now()).ok());
        jittered(
            left.unwrap_or_default()
                .clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
            0.1,
        )
    }

    async fn turn(&self, bundle: Option<&Bundle>) -> Result<(), SignetError> {
        let Some(bundle) = bundle else {
            return Ok(());
        };
        let current = self.identities.borrow().clone();
        let current = current.filter(|held| !is_due(&held.svid, bundle, self.clock.now()));
        let svid = match current {
            Some(held) => held.svid.clone(),
            None => {
                let minting = self
                    .signet
                    .mint_x509_svid(&self.id, &self.dns_names, self.ttl);
                minting.await?
            }
        };
        let roots = Arc::new(Roots::of(bundle));
        publish(&self.identities, ServingIdentity { svid, roots });
        Ok(())
    }
}

/// At half of its life, or once its authority is tainted or gone.
fn is_due(svid: &X509Svid, bundle: &Bundle, now: SystemTime) -> bool {
    // The last of the chain is signed by a root.
    let issuer = svid.chain().last().and_then(|one| one.authority_key_id());
    let signed = |one: &&identity::X509Authority| one.certificate.subject_key_id() == issuer;
    let authority = bundle.x509_authorities.iter().find(signed);
    now >= half_life(svid) || authority.is_none_or(|one| one.tainted)
}

fn half_life(svid: &X509Svid) -> SystemTime {
    let life = svid.expires_at().duration_since(svid.not_before());
    svid.not_before() + life.unwrap_or_default() / 2
}

fn publish(identities: &Identities, identity: ServingIdentity) {
    identities.send_if_modified(|current| {
        let is_new = current.as_deref() != Some(&identity);
        if is_new {
            *current = Some(Arc::new(identity));
        }
        is_new
    });
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use identity::{TrustDomain, X509Authority};

    use super::*;

    #[test]
    fn renewed_at_half_life_and_when_its_authority_goes() {
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let id = SpiffeId::parse("spiffe://example.org/webhook").unwrap();
        let svid = testkit::forge(&id, start);
        let mut bundle = Bundle::empty(TrustDomain::new("example.org").unwrap());
        assert!(is_due(&svid, &bundle, start), "nobody trusts it");
        // The forged authority is not to be had; a leaf that is its own issuer stands in for it.
        let authority = svid.leaf().clone();
        let same = authority.subject_key_id() == authority.authority_key_id();
        bundle.x509_authorities.push(X509Authority::new(authority));
        assert_eq!(is_due(&svid, &bundle, start), !same);
    }
}
