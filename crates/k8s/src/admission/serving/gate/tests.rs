use std::time::{Duration, UNIX_EPOCH};

use identity::{Bundle, SpiffeId, X509Authority};
use runtime::Supervisor;
use tokio::time::Instant;

use super::*;

const START: Duration = Duration::from_secs(1_800_000_000);

/// A gate with one keeper, and everything around it.
struct Around {
    identities: watch::Sender<Option<Arc<ServingIdentity>>>,
    in_place: watch::Sender<Option<Arc<Roots>>>,
    wanted: watch::Receiver<Option<Arc<Roots>>>,
    configs: watch::Receiver<Option<Arc<ServerConfig>>>,
    expiry: watch::Receiver<Option<SystemTime>>,
    _supervisor: Supervisor,
}

fn around() -> Around {
    let (identities, receiver) = watch::channel(None);
    let (in_place, keeper) = watch::channel(None);
    let (wanted, wants) = watch::channel(None);
    let (configs, shown) = watch::channel(None);
    let (expiry, expires) = watch::channel(None);
    let (supervisor, tasks) = Supervisor::new();
    let gate = Gate {
        identities: receiver,
        in_place: vec![keeper],
        wanted,
        configs,
        expiry,
        tls: TlsOptions::default(),
        clock: Clock::at(UNIX_EPOCH + START),
        metrics: Metrics::new("test"),
    };
    tasks.spawn("gate", gate.run(tasks.shutdown()));
    Around {
        identities,
        in_place,
        wanted: wants,
        configs: shown,
        expiry: expires,
        _supervisor: supervisor,
    }
}

impl Around {
    fn renew(&self, identity: &Arc<ServingIdentity>) {
        self.identities.send_replace(Some(Arc::clone(identity)));
    }

    /// When the next certificate is shown.
    async fn shown(&mut self) -> Instant {
        self.configs.changed().await.unwrap();
        Instant::now()
    }

    async fn wants(&mut self, roots: &Roots) {
        let is_it = |wanted: &Option<Arc<Roots>>| wanted.as_deref() == Some(roots);
        self.wanted.wait_for(is_it).await.unwrap();
    }

    fn put_in_place(&self, roots: &Roots) {
        self.in_place.send_replace(Some(Arc::new(roots.clone())));
    }
}

/// A certificate under a root of its own, for an hour from `START + later` on.
fn identity(later: u64) -> Arc<ServingIdentity> {
    let id = SpiffeId::parse("spiffe://example.org/injector").unwrap();
    let svid = testkit::forge(&id, UNIX_EPOCH + START + Duration::from_secs(later));
    let mut bundle = Bundle::empty(id.trust_domain().clone());
    bundle
        .x509_authorities
        .push(X509Authority::new(svid.leaf().clone()));
    let roots = Arc::new(Roots::of(&bundle));
    Arc::new(ServingIdentity { svid, roots })
}

fn under(roots: &Arc<Roots>, other: &ServingIdentity) -> Arc<ServingIdentity> {
    Arc::new(ServingIdentity {
        svid: other.svid.clone(),
        roots: Arc::clone(roots),
    })
}

#[tokio::test(start_paused = true)]
async fn inj_15_the_first_certificate_and_one_under_the_same_roots_are_shown_at_once() {
    let mut around = around();
    let start = Instant::now();
    let first = identity(0);
    around.renew(&first);
    assert_eq!(around.shown().await, start);
    around.wants(&first.roots).await;
    let second = under(&first.roots, &identity(60));
    around.renew(&second);
    assert_eq!(around.shown().await, start);
    let expires = *around.expiry.borrow();
    assert_eq!(expires, Some(second.svid.expires_at()));
}

#[tokio::test(start_paused = true)]
async fn inj_15_a_new_root_is_in_place_beside_the_old_one_before_its_certificate_is_shown() {
    let mut around = around();
    let (first, second) = (identity(0), identity(60));
    around.renew(&first);
    around.shown().await;
    around.renew(&second);
    let both = first.roots.and(&second.roots);
    around.wants(&both).await;
    // Nothing is shown for want of a keeper, however long that takes below the bound.
    tokio::time::sleep(LONGEST_WAIT / 2).await;
    assert!(!around.configs.has_changed().unwrap());
    around.put_in_place(&first.roots);
    tokio::task::yield_now().await;
    assert!(!around.configs.has_changed().unwrap());
    around.put_in_place(&both);
    let at = Instant::now();
    assert_eq!(around.shown().await, at + SETTLE);
    // The old root goes once nothing is shown under it.
    around.wants(&second.roots).await;
}

#[tokio::test(start_paused = true)]
async fn inj_15_an_api_server_that_is_away_holds_a_new_root_up_for_so_long_only() {
    let mut around = around();
    around.renew(&identity(0));
    let start = around.shown().await;
    around.renew(&identity(60));
    assert_eq!(around.shown().await, start + LONGEST_WAIT);
}

#[tokio::test(start_paused = true)]
async fn inj_15_a_certificate_about_to_end_is_not_held_longer_than_it_is_good() {
    let mut around = around();
    let ending = identity(0);
    around.renew(&ending);
    let start = around.shown().await;
    let left = Duration::from_secs(5);
    let now = UNIX_EPOCH + START;
    let lives = ending.svid.expires_at().duration_since(now).unwrap();
    tokio::time::sleep(lives.checked_sub(left).unwrap()).await;
    around.renew(&identity(7200));
    assert_eq!(around.shown().await, start + lives);
}

#[tokio::test(start_paused = true)]
async fn inj_15_a_root_that_comes_ahead_of_its_certificates_holds_nothing_up() {
    let mut around = around();
    let (first, second) = (identity(0), identity(60));
    let both = Arc::new(first.roots.and(&second.roots));
    around.renew(&first);
    around.shown().await;
    around.renew(&under(&both, &first));
    around.wants(&both).await;
    around.put_in_place(&both);
    tokio::time::sleep(SETTLE * 2).await;
    assert!(!around.configs.has_changed().unwrap(), "the same one again");
    let at = Instant::now();
    around.renew(&under(&both, &second));
    assert_eq!(around.shown().await, at);
}
