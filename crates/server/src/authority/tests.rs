use std::time::UNIX_EPOCH;

use identity::{BundleSet, Certificate, JwtSvid, SpiffeId, verify_x509_svid};
use tempfile::TempDir;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

/// Tokio's clock, paused, and moved by hand alone: a thread that waits keeps tokio from moving it when all is idle, which
/// it is while the datastore works.
struct Frozen(Option<std::sync::mpsc::Sender<()>>);

impl Frozen {
    fn new() -> Self {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || receiver.recv());
        Self(Some(sender))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.take();
    }
}

struct House {
    folder: TempDir,
    clock: Clock,
    _frozen: Frozen,
}

fn start_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

impl House {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Clock::at(start_time()),
            _frozen: Frozen::new(),
        }
    }

    async fn store(&self) -> Store {
        let path = self.folder.path().join("datastore.sqlite3");
        let (store, writing) = Store::open(&path).await.unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "as the server's tasks do, which are not here"
        )]
        tokio::spawn(writing);
        store
    }

    fn disk(&self) -> ca::KeyManager {
        ca::KeyManager::disk(self.folder.path().join("keys.json")).unwrap()
    }

    async fn load(&self, store: &Store, keys: ca::KeyManager) -> (Authorities, Rotator) {
        self.load_with(store, keys, |_| ()).await
    }

    async fn load_with(
        &self,
        store: &Store,
        keys: ca::KeyManager,
        change: impl FnOnce(&mut Settings),
    ) -> (Authorities, Rotator) {
        let mut settings = settings();
        change(&mut settings);
        let metrics = Metrics::new("spire_server");
        let loaded = Authorities::load(settings, keys, store.clone(), self.clock.clone(), metrics);
        loaded.await.unwrap()
    }

    async fn until(&self, time: SystemTime) {
        let distance = time.duration_since(self.clock.now()).unwrap();
        tokio::time::advance(distance).await;
    }
}

fn settings() -> Settings {
    Settings {
        trust_domain: trust_domain(),
        ca_ttl: 24 * HOUR,
        ca_key_type: KeyType::EcP256,
        jwt_key_type: Some(KeyType::EcP256),
        ca_subject: Subject::ca(),
        server_svid_ttl: HOUR,
        jwt_issuer: None,
    }
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn bundles(authorities: &Authorities) -> BundleSet {
    [Arc::clone(&authorities.bundle().borrow())]
        .into_iter()
        .collect()
}

/// The IDs of the X.509 authorities in the bundle.
fn published(authorities: &Authorities) -> Vec<String> {
    let bundle = authorities.bundle();
    let bundle = bundle.borrow();
    let ids = bundle.x509_authorities.iter();
    ids.map(identity::X509Authority::authority_id).collect()
}

fn signer(authorities: &Authorities) -> String {
    authorities.snapshot().x509.authority_id().to_owned()
}

fn sign(authorities: &Authorities) -> (SpiffeId, Certificate) {
    let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let spec = LeafSpec {
        id: &id,
        public_key: &ca::PublicKey::from_spki(key.public_key_spki()).unwrap(),
        dns_names: &[],
        ttl: HOUR,
        subject: None,
    };
    let issued = authorities.sign_x509(&spec).unwrap();
    (id, Certificate::from_der(&issued.der).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_new_server_signs_what_its_bundle_verifies() {
    let house = House::new();
    let (authorities, _) = house
        .load(&house.store().await, ca::KeyManager::memory())
        .await;
    let now = house.clock.now();

    let (id, leaf) = sign(&authorities);
    assert_eq!(
        verify_x509_svid(&[leaf], &bundles(&authorities), now),
        Ok(id.clone())
    );

    let svid = Arc::clone(&authorities.server_svid().borrow());
    let server = verify_x509_svid(svid.chain(), &bundles(&authorities), now).unwrap();
    assert_eq!(server.as_str(), "spiffe://example.org/spire/server");

    let spec = JwtSpec {
        id: &id,
        audience: &["db".to_owned()],
        ttl: HOUR,
        issuer: None,
        include_jti: false,
    };
    let token = authorities.sign_jwt(&spec).unwrap().token;
    assert!(JwtSvid::verify(&token, "db", &bundles(&authorities), now).is_ok());
    assert_eq!(authorities.health(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn authorities_rotate_at_exact_instants() {
    let house = House::new();
    let store = house.store().await;
    let (authorities, mut rotator) = house.load(&store, ca::KeyManager::memory()).await;
    let mut last = (published(&authorities), signer(&authorities));
    let first = last.1.clone();
    let mut seen = Vec::new();
    while house.clock.now() < start_time() + 48 * HOUR {
        house.until(rotator.next_due()).await;
        rotator.tick().await.unwrap();
        assert!(
            rotator.next_due() > house.clock.now(),
            "all that was due is done"
        );
        let next = (published(&authorities), signer(&authorities));
        // Whoever signs has been in the datastore's bundle before.
        assert!(last.0.contains(&next.1));
        let stored = store.bundle(&trust_domain()).await.unwrap().unwrap();
        assert_eq!(stored, **authorities.bundle().borrow());
        if next != last {
            let at = house.clock.now().duration_since(start_time()).unwrap();
            seen.push((at.as_secs() / 3600, next.0.len(), next.1 == first));
            assert_eq!(at.as_secs() % 3600, 0);
        }
        last = next;
    }
    assert_eq!(
        seen,
        [
            (12, 2, true),  // the second is prepared: half of the first one's life is left
            (20, 2, false), // and signs: a sixth is left
            (24, 3, false), // the third, for the second ends at 36
            (32, 3, false),
            (36, 4, false),
            (44, 4, false),
            (48, 4, false), // the fifth is prepared, and the first went a day after its end
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_svid_is_renewed_at_half_of_its_life() {
    let house = House::new();
    let (authorities, mut rotator) = house
        .load(&house.store().await, ca::KeyManager::memory())
        .await;
    let mut svid = authorities.server_svid();
    let first = Arc::clone(&svid.borrow_and_update());
    assert_eq!(rotator.next_due(), start_time() + HOUR / 2);
    house
        .until(start_time() + HOUR / 2 - Duration::from_nanos(1))
        .await;
    rotator.tick().await.unwrap();
    assert!(!svid.has_changed().unwrap(), "not before");
    house.until(start_time() + HOUR / 2).await;
    rotator.tick().await.unwrap();
    let second = Arc::clone(&svid.borrow_and_update());
    assert_ne!(second.key(), first.key());
    assert_eq!(second.expires_at(), house.clock.now() + HOUR);
}

#[tokio::test(start_paused = true)]
async fn the_loop_rotates_and_ends_when_told() {
    let house = House::new();
    let (authorities, rotator) = house
        .load(&house.store().await, ca::KeyManager::memory())
        .await;
    let first = signer(&authorities);
    let (_supervisor, tasks) = runtime::Supervisor::new();
    let (ended, end) = tokio::sync::oneshot::channel();
    let shutdown = tasks.shutdown();
    tasks.spawn("authorities", async move {
        let result = rotator.run(shutdown).await;
        let _ = ended.send(());
        result
    });
    let mut bundle = authorities.bundle();
    bundle.borrow_and_update();
    let mut signers = authorities.0.signers.clone();
    signers.borrow_and_update();
    // Lets the loop come to its sleep, so that the clock's next move wakes it.
    tokio::task::yield_now().await;
    house.until(start_time() + 12 * HOUR).await;
    bundle.changed().await.unwrap();
    house.until(start_time() + 20 * HOUR).await;
    signers.changed().await.unwrap();
    assert_ne!(signer(&authorities), first);
    tasks.stop();
    end.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_keys_on_disk_keeps_the_authorities() {
    let house = House::new();
    let store = house.store().await;
    let (before, mut rotator) = house.load(&store, house.disk()).await;
    let old = signer(&before);
    house.until(start_time() + 12 * HOUR).await;
    rotator.tick().await.unwrap();
    let names = published(&before);
    drop((before, rotator));

    let (after, mut rotator) = house.load(&store, house.disk()).await;
    assert_eq!(signer(&after), old);
    assert_eq!(published(&after), names, "nothing new was published");
    let (_, leaf) = sign(&after);
    assert!(verify_x509_svid(&[leaf], &bundles(&after), house.clock.now()).is_ok());
    // The prepared one was taken up too.
    house.until(start_time() + 20 * HOUR).await;
    rotator.tick().await.unwrap();
    assert_eq!(signer(&after), names[1]);
    assert_eq!(published(&after), names);
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_keys_in_memory_makes_a_new_authority_beside_the_old() {
    let house = House::new();
    let store = house.store().await;
    let (before, _) = house.load(&store, ca::KeyManager::memory()).await;
    let (old, (_, leaf)) = (signer(&before), sign(&before));

    let (after, _) = house.load(&store, ca::KeyManager::memory()).await;
    let new = signer(&after);
    assert_ne!(new, old);
    assert_eq!(published(&after), [old, new]);
    assert!(verify_x509_svid(&[leaf], &bundles(&after), house.clock.now()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_ten_lives_ends_without_deleting_anything() {
    let house = House::new();
    let store = house.store().await;
    let (before, _) = house.load(&store, house.disk()).await;
    let old = signer(&before);
    house.until(start_time() + 240 * HOUR).await;

    let (after, _) = house.load(&store, house.disk()).await;
    assert_ne!(signer(&after), old);
    let (_, leaf) = sign(&after);
    assert!(verify_x509_svid(&[leaf], &bundles(&after), house.clock.now()).is_ok());
    assert_eq!(after.health(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn s_24_a_crash_between_journal_and_bundle_is_made_good() {
    let house = House::new();
    let store = house.store().await;
    let (before, _) = house.load(&store, house.disk()).await;
    let ours = signer(&before);
    let trust_domain = trust_domain();
    let emptied = store.edit_bundle(&trust_domain, |bundle| {
        bundle.x509_authorities.clear();
        bundle.jwt_authorities.clear();
        Ok(())
    });
    emptied.await.unwrap();

    let (after, _) = house.load(&store, house.disk()).await;
    assert_eq!(published(&after), std::slice::from_ref(&ours));
    assert_eq!(signer(&after), ours);
    assert_eq!(after.bundle().borrow().jwt_authorities.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn s_24_a_failed_step_leaves_everything_as_it_was() {
    let house = House::new();
    let store = house.store().await;
    let (authorities, mut rotator) = house.load(&store, house.disk()).await;
    let before = (published(&authorities), signer(&authorities));
    let in_the_way = house.folder.path().join("keys.json.new/in the way");
    std::fs::create_dir_all(&in_the_way).unwrap();
    house.until(start_time() + 12 * HOUR).await;
    for _ in 0..3 {
        assert!(rotator.tick().await.is_err());
    }
    assert_eq!((published(&authorities), signer(&authorities)), before);
    sign(&authorities);
    let renewed = Arc::clone(&authorities.server_svid().borrow());
    assert_eq!(
        renewed.expires_at(),
        house.clock.now() + HOUR,
        "the rest goes on"
    );

    std::fs::remove_dir_all(in_the_way.parent().unwrap()).unwrap();
    rotator.tick().await.unwrap();
    assert_eq!(published(&authorities).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn health_tells_of_failures_and_of_an_expired_authority() {
    let house = House::new();
    let (authorities, rotator) = house
        .load(&house.store().await, ca::KeyManager::memory())
        .await;
    rotator
        .failures()
        .store(TOLERATED_FAILURES, Ordering::Relaxed);
    assert_eq!(authorities.health(), Ok(()));
    rotator
        .failures()
        .store(TOLERATED_FAILURES + 1, Ordering::Relaxed);
    assert!(authorities.health().is_err());
    rotator.failures().store(0, Ordering::Relaxed);
    house.until(start_time() + 24 * HOUR).await;
    assert!(authorities.health().is_err());
}

#[tokio::test(start_paused = true)]
async fn without_jwt_svids_there_are_no_jwt_keys() {
    let house = House::new();
    let store = house.store().await;
    let loaded = house.load_with(&store, ca::KeyManager::memory(), |settings| {
        settings.jwt_key_type = None;
    });
    let (authorities, _) = loaded.await;
    assert!(authorities.bundle().borrow().jwt_authorities.is_empty());
    let spec = JwtSpec {
        id: &SpiffeId::parse("spiffe://example.org/web").unwrap(),
        audience: &["db".to_owned()],
        ttl: HOUR,
        issuer: None,
        include_jti: false,
    };
    let refused = authorities.sign_jwt(&spec).unwrap_err();
    assert!(matches!(refused, RpcError::Unimplemented(_)), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn journals_of_servers_long_gone_are_deleted() {
    let house = House::new();
    let store = house.store().await;
    for _ in 0..3 {
        house.load(&store, ca::KeyManager::memory()).await;
    }
    assert_eq!(store.ca_journals().await.unwrap().len(), 3);
    house.until(start_time() + 15 * 24 * HOUR).await;
    house.load(&store, ca::KeyManager::memory()).await;
    assert_eq!(store.ca_journals().await.unwrap().len(), 1);
}

/// Entries, agents and keys of another trust domain are not ours.
#[tokio::test(start_paused = true)]
async fn a_datastore_of_another_trust_domain_is_refused() {
    let house = House::new();
    let store = house.store().await;
    drop(house.load(&store, house.disk()).await);
    for keys in [house.disk(), ca::KeyManager::memory()] {
        let mut settings = settings();
        settings.trust_domain = TrustDomain::new("other.org").unwrap();
        let metrics = Metrics::new("spire_server");
        let loaded =
            Authorities::load(settings, keys, store.clone(), house.clock.clone(), metrics).await;
        let error = loaded.map(drop).unwrap_err();
        assert!(
            matches!(&error, AuthorityError::OtherTrustDomain { theirs, .. } if *theirs == trust_domain()),
            "{error}"
        );
    }
    let kept = store.bundle(&TrustDomain::new("other.org").unwrap()).await;
    assert_eq!(kept, Ok(None), "nothing was written");
    // Its own server still starts.
    house.load(&store, house.disk()).await;
}

/// Making RSA keys takes seconds; nobody else may wait for it.
#[tokio::test]
async fn the_servers_own_key_is_made_off_the_async_thread() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let settings = settings();
    let spec = ca::CaSpec {
        trust_domain: &settings.trust_domain,
        subject: Subject::ca(),
        ttl: HOUR,
    };
    let authority = X509Authority::self_signed(key, &spec, start_time()).unwrap();
    let other = std::cell::Cell::new(false);
    let (svid, ()) = futures_util::future::join(
        async {
            other.set(false);
            let svid = own_svid(&authority, &settings, start_time()).await;
            assert!(other.get(), "the other future ran meanwhile");
            svid
        },
        async { other.set(true) },
    )
    .await;
    svid.unwrap();
}

/// The machine's clock was ahead when the authority was made, and has been set right.
#[tokio::test(start_paused = true)]
async fn e7_a_clock_set_back_over_the_authoritys_beginning() {
    let mut house = House::new();
    let store = house.store().await;
    let (before, _) = house.load(&store, house.disk()).await;
    let old = signer(&before);
    house.clock = Clock::at(start_time() - 30 * 24 * HOUR);

    let (after, _) = house.load(&store, house.disk()).await;
    assert_ne!(
        signer(&after),
        old,
        "an authority of the future signs nothing"
    );
    let (id, leaf) = sign(&after);
    let verified = verify_x509_svid(&[leaf], &bundles(&after), house.clock.now());
    assert_eq!(verified, Ok(id));
    assert!(
        published(&after).contains(&old),
        "what it signed stays good"
    );
}
