use std::io;

use tokio::time::Instant;

use super::*;

const GRACE: Duration = Duration::from_secs(10);

/// A supervisor under test, and the hand that sends it signals.
fn supervised() -> (Supervisor, Tasks, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (supervisor, tasks) = Supervisor::new();
    let (signals, receiver) = mpsc::channel(2);
    (supervisor, tasks, signals, receiver)
}

#[tokio::test(start_paused = true)]
async fn a_signal_drains() {
    let (supervisor, tasks, signals, receiver) = supervised();
    let started = Instant::now();
    let shutdown = tasks.shutdown();
    tasks.spawn("slow to end", async move {
        shutdown.cancelled().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(())
    });
    signals.send(()).await.unwrap();
    supervisor.run_until(receiver, GRACE).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn stop_drains_as_a_signal_does() {
    let (supervisor, tasks, _signals, receiver) = supervised();
    tasks.stop();
    assert!(tasks.shutdown().is_cancelled());
    supervisor.run_until(receiver, GRACE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_cut_off_at_the_deadline() {
    let (supervisor, tasks, signals, receiver) = supervised();
    let started = Instant::now();
    let (held, ended) = tokio::sync::oneshot::channel::<()>();
    tasks.spawn("endless", async move {
        let _held = held;
        std::future::pending().await
    });
    tasks.job("endless job", std::future::pending());
    signals.send(()).await.unwrap();
    supervisor.run_until(receiver, GRACE).await.unwrap();
    assert_eq!(started.elapsed(), GRACE);
    assert!(ended.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_at_once() {
    let (supervisor, tasks, signals, receiver) = supervised();
    let started = Instant::now();
    tasks.spawn("endless", std::future::pending());
    signals.send(()).await.unwrap();
    signals.send(()).await.unwrap();
    let error = supervisor.run_until(receiver, GRACE).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stopped at once by a second signal; not ended: endless"
    );
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_first_error_stops_the_rest_and_names_its_task() {
    let (supervisor, tasks, _signals, receiver) = supervised();
    let shutdown = tasks.shutdown();
    tasks.spawn("good", async move {
        shutdown.cancelled().await;
        Ok(())
    });
    tasks.spawn("bad", async { Err(io::Error::other("no luck").into()) });
    let error = supervisor.run_until(receiver, GRACE).await.unwrap_err();
    assert_eq!(error.to_string(), "bad failed: no luck");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_naming_the_task() {
    let (supervisor, tasks, _signals, receiver) = supervised();
    tasks.spawn("clumsy", async { panic!("dropped {}", "it") });
    let error = supervisor.run_until(receiver, GRACE).await.unwrap_err();
    assert_eq!(error.to_string(), "clumsy panicked: dropped it");
}

#[tokio::test(start_paused = true)]
async fn a_jobs_panic_stops_nothing() {
    let (supervisor, tasks, signals, receiver) = supervised();
    tasks.job("clumsy", async { panic!("dropped it") });
    let shutdown = tasks.shutdown();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!shutdown.is_cancelled());
    signals.send(()).await.unwrap();
    supervisor.run_until(receiver, GRACE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_while_draining_is_told() {
    let (supervisor, tasks, signals, receiver) = supervised();
    let shutdown = tasks.shutdown();
    tasks.spawn("late", async move {
        shutdown.cancelled().await;
        Err(io::Error::other("could not save").into())
    });
    signals.send(()).await.unwrap();
    let error = supervisor.run_until(receiver, GRACE).await.unwrap_err();
    assert_eq!(error.to_string(), "late failed: could not save");
}

#[tokio::test(start_paused = true)]
async fn names_of_running_tasks() {
    let (_supervisor, tasks) = Supervisor::new();
    tasks.spawn("a", std::future::pending());
    tasks.spawn(format!("b{}", 1), std::future::pending());
    tasks.spawn("gone", async { Ok(()) });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(tasks.names.running(), ["a", "b1"]);
}
