use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use tokio::time::advance;

use super::*;

/// A Lease as an API server keeps it: a write has to name the version it replaces.
#[derive(Clone, Default)]
struct FakeLeases(Arc<Mutex<Fake>>);

#[derive(Default)]
struct Fake {
    lease: Option<Lease>,
    version: u64,
}

/// One candidate's way to the Lease, which may hang, or lose what is on it.
#[derive(Clone)]
struct Way {
    leases: FakeLeases,
    hangs: Arc<AtomicBool>,
    loses: Arc<Mutex<Option<Lost>>>,
}

/// What the way loses, once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lost {
    Call,
    Answer,
}

impl Way {
    fn new(leases: &FakeLeases) -> Self {
        Self {
            leases: leases.clone(),
            hangs: Arc::default(),
            loses: Arc::default(),
        }
    }

    fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Relaxed);
    }

    fn lose(&self, lost: Lost) {
        *self.loses.lock().unwrap() = Some(lost);
    }

    /// Whether this is lost now.
    fn loses(&self, lost: Lost) -> bool {
        self.loses
            .lock()
            .unwrap()
            .take_if(|loses| *loses == lost)
            .is_some()
    }

    async fn pass(&self) {
        if self.hangs.load(Relaxed) || self.loses(Lost::Call) {
            std::future::pending::<()>().await;
        }
        // No answer of an API server is there at once.
        tokio::task::yield_now().await;
    }
}

impl FakeLeases {
    fn holder(&self) -> String {
        let lease = self.0.lock().unwrap().lease.clone();
        let spec = lease.and_then(|lease| lease.spec).unwrap_or_default();
        spec.holder_identity.unwrap_or_default()
    }

    fn put(&self, lease: &Lease, create: bool) -> Result<Lease, kube::Error> {
        let mut fake = self.0.lock().unwrap();
        let there = fake
            .lease
            .as_ref()
            .map(|there| there.metadata.resource_version.clone());
        let fits = match there {
            None => create,
            Some(version) => !create && version == lease.metadata.resource_version,
        };
        if !fits {
            let conflict = kube::core::Status::failure("the object has been modified", "Conflict");
            return Err(kube::Error::Api(Box::new(conflict.with_code(409))));
        }
        fake.version += 1;
        let mut lease = lease.clone();
        lease.metadata.resource_version = Some(fake.version.to_string());
        fake.lease = Some(lease.clone());
        Ok(lease)
    }
}

impl Leases for Way {
    async fn get(&self, _: &str) -> Result<Option<Lease>, kube::Error> {
        self.pass().await;
        Ok(self.leases.0.lock().unwrap().lease.clone())
    }

    async fn put(&self, lease: &Lease, create: bool) -> Result<Lease, kube::Error> {
        self.pass().await;
        let written = self.leases.put(lease, create)?;
        if self.loses(Lost::Answer) {
            std::future::pending::<()>().await;
        }
        Ok(written)
    }
}

fn candidate(store: Way, identity: &str, tasks: &Tasks) -> watch::Receiver<bool> {
    let (leads, receiver) = watch::channel(false);
    let config = LeaseConfig::new("spire", "controller", identity);
    let candidate = Candidate {
        election: Election::new(config.clone()),
        config,
        clock: Clock::at(UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
        leads,
        store,
    };
    tasks.spawn("candidate", candidate.run(tasks.shutdown()));
    receiver
}

/// Lets time pass in steps that are small beside every timer.
async fn pass(time: Duration) {
    let step = Duration::from_millis(100);
    let mut passed = Duration::ZERO;
    while passed < time {
        advance(step).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        passed += step;
    }
}

#[tokio::test(start_paused = true)]
async fn ctl_17_one_leads_and_another_takes_over_when_it_dies() {
    let store = FakeLeases::default();
    // Nothing more is heard of who is cut off, as after kill -9: its way to the API server hangs.
    let alone = Way::new(&store);
    let (_one, tasks) = runtime::Supervisor::new();
    let first = candidate(alone.clone(), "first", &tasks);
    pass(Duration::from_secs(1)).await;
    assert!(*first.borrow());
    let second = candidate(Way::new(&store), "second", &tasks);
    for _ in 0..60 {
        pass(Duration::from_secs(1)).await;
        assert!(*first.borrow() && !*second.borrow());
    }
    alone.hang(true);
    let died = Instant::now();
    while !*second.borrow() {
        pass(Duration::from_millis(100)).await;
        assert!(!(*first.borrow() && *second.borrow()), "two lead");
        assert!(died.elapsed() < Duration::from_secs(15 + 3), "nobody leads");
    }
    assert_eq!(store.holder(), "second");
    alone.hang(false);
    pass(Duration::from_secs(30)).await;
    assert!(!*first.borrow() && *second.borrow());
}

#[tokio::test(start_paused = true)]
async fn ctl_17_who_cannot_renew_stops_before_another_takes_over() {
    let store = FakeLeases::default();
    let (_one, tasks) = runtime::Supervisor::new();
    let way = Way::new(&store);
    let first = candidate(way.clone(), "first", &tasks);
    pass(Duration::from_secs(1)).await;
    assert!(*first.borrow());
    way.hang(true);
    let started = Instant::now();
    while *first.borrow() {
        pass(Duration::from_millis(100)).await;
        assert!(started.elapsed() <= Duration::from_secs(11), "still leads");
    }
    pass(Duration::from_secs(30)).await;
    way.hang(false);
    pass(Duration::from_secs(20)).await;
    assert!(*first.borrow(), "leads again once the server answers");
}

#[tokio::test(start_paused = true)]
async fn ctl_17_a_call_or_an_answer_that_is_lost_does_not_cost_the_lease() {
    for lost in [Lost::Call, Lost::Answer] {
        let store = FakeLeases::default();
        let (_one, tasks) = runtime::Supervisor::new();
        let way = Way::new(&store);
        let first = candidate(way.clone(), "first", &tasks);
        let second = candidate(Way::new(&store), "second", &tasks);
        pass(Duration::from_secs(5)).await;
        assert!(*first.borrow());
        way.lose(lost);
        for _ in 0..300 {
            pass(Duration::from_millis(100)).await;
            assert!(*first.borrow() && !*second.borrow());
        }
        assert_eq!(*way.loses.lock().unwrap(), None, "it was lost");
    }
}

#[tokio::test(start_paused = true)]
async fn ctl_17_a_lease_that_was_deleted_is_made_anew() {
    let store = FakeLeases::default();
    let (_one, tasks) = runtime::Supervisor::new();
    let first = candidate(Way::new(&store), "first", &tasks);
    pass(Duration::from_secs(1)).await;
    store.0.lock().unwrap().lease = None;
    for _ in 0..50 {
        pass(Duration::from_millis(100)).await;
        assert!(*first.borrow());
    }
    assert_eq!(store.holder(), "first");
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_back_is_taken_at_once() {
    let store = FakeLeases::default();
    let (supervisor, tasks) = runtime::Supervisor::new();
    let first = candidate(Way::new(&store), "first", &tasks);
    pass(Duration::from_secs(1)).await;
    let (_two, second_tasks) = runtime::Supervisor::new();
    let second = candidate(Way::new(&store), "second", &second_tasks);
    pass(Duration::from_secs(5)).await;
    assert!(*first.borrow() && !*second.borrow());
    tasks.stop();
    drop(supervisor);
    pass(Duration::from_secs(4)).await;
    assert!(!*first.borrow());
    assert!(*second.borrow(), "holder is {:?}", store.holder());
}

fn lease(holder: &str, renewed: u64) -> Lease {
    let mut election = Election::new(LeaseConfig::new("spire", "controller", holder));
    let wall = UNIX_EPOCH + Duration::from_secs(renewed);
    match election.step(None, Instant::now(), wall) {
        Step::Create(lease) => lease,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn ctl_17_a_lease_is_stale_when_it_stood_still_for_its_duration_whatever_its_clock_says() {
    let mut election = Election::new(LeaseConfig::new("spire", "controller", "us"));
    let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    // A holder whose clock is in 1970 is alive as long as the lease changes.
    for turn in 0..20 {
        let step = election.step(Some(lease("them", turn)), Instant::now(), wall);
        assert_eq!(step, Step::Follow);
        advance(Duration::from_secs(10)).await;
    }
    // Changed 10 s ago, stale after 15.
    let step = election.step(Some(lease("them", 19)), Instant::now(), wall);
    assert_eq!(step, Step::Follow);
    advance(Duration::from_secs(5)).await;
    let Step::Replace(taken) = election.step(Some(lease("them", 19)), Instant::now(), wall) else {
        panic!("must be taken over");
    };
    let spec = taken.spec.clone().unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("us"));
    assert_eq!(spec.lease_transitions, Some(1));
    assert!(!election.leads(Instant::now()), "not before it is written");
    election.held(taken.clone(), Instant::now());
    assert!(election.leads(Instant::now()));
    advance(Duration::from_secs(10)).await;
    assert!(
        !election.leads(Instant::now()),
        "the renew deadline has passed"
    );
    assert_eq!(election.renewal(Instant::now(), wall), None);
}

#[tokio::test(start_paused = true)]
async fn ctl_17_who_sees_another_holder_stops_at_once() {
    let mut election = Election::new(LeaseConfig::new("spire", "controller", "us"));
    let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let Step::Create(ours) = election.step(None, Instant::now(), wall) else {
        panic!("must be made");
    };
    election.held(ours, Instant::now());
    assert!(election.leads(Instant::now()));
    let step = election.step(Some(lease("them", 1)), Instant::now(), wall);
    assert_eq!(step, Step::Follow);
    assert!(!election.leads(Instant::now()));
}
