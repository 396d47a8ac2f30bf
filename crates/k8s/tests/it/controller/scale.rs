//! Thousands of pods.

use testkit::TestServer;

use super::*;

/// Pods of these numbers go, and as many new ones come.
async fn exchange(controller: &Loop, numbers: std::ops::Range<usize>) {
    for n in numbers {
        controller
            .tell(Event::Delete(Kind::Pod, pod(&format!("p{n}"))))
            .await;
        controller
            .tell(Event::Apply(Kind::Pod, pod(&format!("late{n}"))))
            .await;
    }
}

/// K5: 5 000 pods; events during the work; the server restarts; nothing is lost, nothing is left over.
#[tokio::test(flavor = "multi_thread")]
async fn ctl_07_ctl_18_five_thousand_pods_a_server_restart_and_events_meanwhile() {
    const PODS: usize = 5000;
    let server = TestServer::start().await;
    let controller = Loop::start(&server, "");
    let started = Instant::now();
    controller.list(&[rule(1, ID)], &pods(PODS)).await;
    // While it works: pods go, and new ones come.
    exchange(&controller, 0..100).await;
    controller
        .until_all(|entries| entries.len() > PODS / 2, "half of the entries")
        .await;
    let dir = server.stop().await;
    exchange(&controller, 100..200).await;
    let server = TestServer::start_in(dir, |_| ()).await;
    let complete = |entries: &BTreeMap<String, String>| {
        let late = entries
            .values()
            .filter(|path| path.contains("/late"))
            .count();
        entries.len() == PODS && late == 200
    };
    let entries = controller.until_all(complete, "complete set").await;
    println!("{PODS} pods with a server restart: {:?}", started.elapsed());
    assert!(
        !entries
            .values()
            .any(|path| path.ends_with("/p7") || path.ends_with("/p107")),
        "none left over"
    );
    drop(server);
}

/// The way of one pod's event through a loop that has 5 000 pods.
/// On a machine of one core the renewal of the lease runs between two turns, or never.
#[tokio::test(flavor = "current_thread")]
async fn a_long_queue_leaves_the_core_to_others_between_turns() {
    let controller = Loop::at(std::path::Path::new("/nowhere"), "example.org", "");
    controller.leads.send_replace(false);
    // More than one turn takes.
    let room = controller.events.max_capacity();
    for pod in pods(room) {
        let event = Event::Apply(Kind::Pod, pod);
        controller.events.try_send(event).expect("room");
    }
    tokio::task::yield_now().await;
    let taken = controller.events.capacity();
    assert!(taken > 0 && taken < room, "{taken} of {room} at once");
}

/// How many pods there are unless `SIGNET_CROWD` says otherwise.
#[expect(
    clippy::disallowed_methods,
    reason = "who runs a test by hand says how large"
)]
fn size() -> usize {
    std::env::var("SIGNET_CROWD").map_or(5000, |text| text.parse().expect("a number of pods"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_06_an_event_is_an_entry_within_a_second() {
    let size = size();
    let server = TestServer::start().await;
    let controller = Loop::start(&server, "");
    controller.list(&[rule(1, ID)], &pods(size)).await;
    controller.until(size).await;
    let mut took = Vec::new();
    for n in 0..50 {
        let name = format!("new{n}");
        let started = Instant::now();
        controller.tell(Event::Apply(Kind::Pod, pod(&name))).await;
        loop {
            let figures = controller.metrics.render();
            let done = figures.lines().find(|line| {
                line.starts_with("test_entry_writes{call=\"create\",result=\"done\"}")
            });
            let count: usize = done
                .and_then(|line| line.rsplit(' ').next()?.parse().ok())
                .unwrap_or(0);
            if count > size + n {
                break;
            }
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "{name}: {count} entries"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(started.elapsed());
    }
    took.sort();
    println!(
        "pod event → entry at {size} pods: p50 {:?}, p99 {:?}",
        took[25], took[49]
    );
    assert!(took[49] < Duration::from_secs(1), "{took:?}");
}
