use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

use crate::BoxError;

/// Why a program ended other than by an orderly shutdown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A long-lived task gave up; the others were stopped.
    #[error("{task} failed: {source}")]
    Failed {
        /// The task's name.
        task: Cow<'static, str>,
        /// What it ended with.
        source: BoxError,
    },
    /// A task panicked; the others were stopped.
    #[error("{task} panicked: {message}")]
    Panicked {
        /// The task's name.
        task: Cow<'static, str>,
        /// The panic's message.
        message: String,
    },
    /// A second signal came before everything had ended.
    #[error("stopped at once by a second signal; not ended: {}", .unfinished.join(", "))]
    Forced {
        /// The names of the tasks that were cut off.
        unfinished: Vec<String>,
    },
    /// The process cannot listen for signals.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Waits for what was started through its [`Tasks`], and ends it.
#[derive(Debug)]
pub struct Supervisor {
    tasks: Tasks,
    failures: mpsc::UnboundedReceiver<RunError>,
}

impl Supervisor {
    /// A supervisor, and the handle through which everything is started.
    pub fn new() -> (Self, Tasks) {
        let (failed, failures) = mpsc::unbounded_channel();
        let tasks = Tasks {
            tracker: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            force: CancellationToken::new(),
            failed,
            names: Names::default(),
        };
        let supervisor = Self {
            tasks: tasks.clone(),
            failures,
        };
        (supervisor, tasks)
    }

    /// Waits for SIGTERM, SIGINT, [`Tasks::stop`] or the first failure, then asks everything to end and waits for
    /// `grace`; what has not ended by then is cut off. A second signal cuts off at once.
    pub async fn run(self, grace: Duration) -> Result<(), RunError> {
        let mut signals = Signals::new().map_err(RunError::Signals)?;
        let (sender, receiver) = mpsc::channel(2);
        let forward = async {
            loop {
                let name = signals.next().await;
                tracing::info!(signal = name, "signal received");
                let _ = sender.send(()).await;
            }
        };
        tokio::select! {
            ended = self.run_until(receiver, grace) => ended,
            () = forward => Ok(()),
        }
    }

    async fn run_until(
        mut self,
        mut signals: mpsc::Receiver<()>,
        grace: Duration,
    ) -> Result<(), RunError> {
        let tasks = &self.tasks;
        let failure = tokio::select! {
            Some(failure) = self.failures.recv() => Some(failure),
            Some(()) = signals.recv() => None,
            () = tasks.shutdown.cancelled() => None,
        };
        if let Some(failure) = &failure {
            tracing::error!(error = %failure, "stopping");
        }
        tasks.shutdown.cancel();
        tasks.tracker.close();
        let in_time = tokio::select! {
            () = tasks.tracker.wait() => true,
            () = tokio::time::sleep(grace) => false,
            Some(()) = signals.recv() => {
                let unfinished = tasks.names.running();
                tasks.cut_off().await;
                return Err(failure.unwrap_or(RunError::Forced { unfinished }));
            }
        };
        if !in_time {
            tracing::warn!(unfinished = %tasks.names.running().join(", "), "cut off at the deadline");
            tasks.cut_off().await;
        }
        failure
            .or_else(|| self.failures.try_recv().ok())
            .map_or(Ok(()), Err)
    }
}

/// Starts tasks under a [`Supervisor`].
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    force: CancellationToken,
    failed: mpsc::UnboundedSender<RunError>,
    names: Names,
}

impl Tasks {
    /// Starts a long-lived task. Its error or panic stops the program; ending without one does not.
    ///
    /// It should end soon after [`Tasks::shutdown`] is cancelled; the supervisor cuts it off after its grace.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let name = name.into();
        let running = self.names.enter(name.clone());
        let failed = self.failed.clone();
        self.track(async move {
            let _running = running;
            let failure = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(source)) => RunError::Failed { task: name, source },
                Err(panic) => RunError::Panicked {
                    task: name,
                    message: panic_message(&*panic),
                },
            };
            let _ = failed.send(failure);
        });
    }

    /// Starts a short task (a connection, a timer) that shutdown waits for. A panic in it is logged and stops nothing else.
    pub fn job<F>(&self, name: &'static str, job: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.track(async move {
            if let Err(panic) = AssertUnwindSafe(job).catch_unwind().await {
                tracing::error!(job = name, panic = panic_message(&*panic), "job panicked");
            }
        });
    }

    /// Tells when the program is asked to end.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.shutdown.clone())
    }

    /// Asks everything to end, as SIGTERM does.
    pub fn stop(&self) {
        self.shutdown.cancel();
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that starts a task, tracked and named"
    )]
    fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        let force = self.force.clone();
        tokio::spawn(self.tracker.track_future(async move {
            let _ = force.run_until_cancelled(task).await;
        }));
    }

    async fn cut_off(&self) {
        self.force.cancel();
        // A task that never yields cannot be cut off; do not wait for it.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.tracker.wait()).await;
    }
}

/// Lets hyper start its streams as jobs.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.job("stream", stream);
    }
}

/// Tells a task when to end.
#[derive(Clone, Debug)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Ready once the program is asked to end.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.0.cancelled()
    }

    /// Whether the program was asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// How many tasks of each name run.
#[derive(Clone, Debug, Default)]
struct Names(Arc<Mutex<BTreeMap<Cow<'static, str>, usize>>>);

impl Names {
    fn enter(&self, name: Cow<'static, str>) -> Running {
        *self.lock().entry(name.clone()).or_default() += 1;
        Running {
            names: self.clone(),
            name,
        }
    }

    fn running(&self) -> Vec<String> {
        self.lock().keys().map(ToString::to_string).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Cow<'static, str>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Running {
    names: Names,
    name: Cow<'static, str>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut names = self.names.lock();
        if let Some(count) = names.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(&self.name);
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
