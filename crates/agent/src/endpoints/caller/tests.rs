use std::os::unix::net::UnixStream;

use futures_util::future::join_all;
use http::Extensions;
use tokio::sync::watch;

use super::*;
use crate::{fixtures::selectors, workload::Told};

/// Callers whose attestors say what is sent here.
struct House {
    callers: Callers,
    metrics: Metrics,
    says: Vec<watch::Sender<Told>>,
    connections: Vec<(UnixStream, UnixStream)>,
}

impl House {
    fn new(attestors: usize) -> Self {
        let says: Vec<_> = (0..attestors).map(|_| watch::Sender::new(None)).collect();
        let metrics = Metrics::new("spire_agent");
        let told = Attestors::told(says.iter().map(watch::Sender::subscribe));
        Self {
            callers: Callers::new(told, metrics.clone()),
            metrics,
            says,
            connections: Vec::new(),
        }
    }

    /// The extensions of all requests of a new connection.
    fn connect(&mut self) -> Extensions {
        let connection = UnixStream::pair().unwrap();
        let mut extensions = Extensions::new();
        extensions.insert(Peer::of(&connection.0).unwrap());
        self.connections.push(connection);
        extensions
    }

    fn say(&self, attestor: usize, texts: &[&str]) {
        self.says[attestor].send_replace(Some(Ok(selectors(texts))));
    }

    fn fail(&self, attestor: usize) {
        self.says[attestor].send_replace(Some(Err(AttestError::OutOfSight)));
    }

    /// How often attestors were asked, whatever came of it.
    fn asked(&self) -> usize {
        let figures = self.metrics.render();
        let counts = figures.lines().filter_map(|line| {
            let line = line.strip_prefix("spire_agent_workload_api_workload_attestation{")?;
            line.rsplit(' ').next()?.parse::<usize>().ok()
        });
        counts.sum()
    }
}

#[tokio::test(start_paused = true)]
async fn s_5_29_five_hundred_streams_are_one_attestation() {
    let mut house = House::new(1);
    let connection = house.connect();
    let streams = join_all((0..500).map(|_| house.callers.attest(&connection)));
    let (callers, ()) = tokio::join!(streams, async { house.say(0, &["unix:uid:1"]) });
    for caller in callers {
        assert_eq!(*caller.unwrap().selectors(), selectors(&["unix:uid:1"]));
    }
    assert_eq!(house.asked(), 1);
    // An old connection is looked at again before another stream gets a key.
    house.say(0, &["unix:uid:2"]);
    tokio::time::advance(FRESH_FOR - Duration::from_millis(1)).await;
    let caller = house.callers.attest(&connection).await.unwrap();
    assert_eq!(*caller.selectors(), selectors(&["unix:uid:1"]));
    tokio::time::advance(Duration::from_millis(1)).await;
    let caller = house.callers.attest(&connection).await.unwrap();
    assert_eq!(*caller.selectors(), selectors(&["unix:uid:2"]));
    assert_eq!(house.asked(), 2);
    // Another connection of the same process is another caller.
    let other = house.connect();
    house.callers.attest(&other).await.unwrap();
    assert_eq!(house.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn s_5_29_who_waits_shares_a_failure_and_who_comes_later_tries_again() {
    let mut house = House::new(1);
    let connection = house.connect();
    let streams = join_all((0..20).map(|_| house.callers.attest(&connection)));
    let (callers, ()) = tokio::join!(streams, async { house.fail(0) });
    for caller in callers {
        assert_eq!(caller.unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(house.asked(), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    house.say(0, &["unix:uid:1"]);
    house.callers.attest(&connection).await.unwrap();
    assert_eq!(house.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn s_5_29_an_attestor_that_fails_for_a_moment_takes_nothing_away() {
    let mut house = House::new(2);
    let connection = house.connect();
    house.say(0, &["unix:uid:1"]);
    house.say(1, &["k8s:ns:shop"]);
    let caller = house.callers.attest(&connection).await.unwrap();
    house.say(0, &["unix:uid:2"]);
    house.fail(1);
    tokio::time::advance(AGAIN_FRESH_FOR).await;
    let caller = house.callers.attest_again(&caller).await.unwrap();
    let all = selectors(&["k8s:ns:shop", "unix:uid:1", "unix:uid:2"]);
    assert_eq!(*caller.selectors(), all);
    // What no attestor says any more is gone once all have been heard.
    house.say(1, &["k8s:ns:shop"]);
    tokio::time::advance(AGAIN_FRESH_FOR).await;
    let caller = house.callers.attest_again(&caller).await.unwrap();
    let now = selectors(&["k8s:ns:shop", "unix:uid:2"]);
    assert_eq!(*caller.selectors(), now);
}
