//! The one writer: a future that owns the writing connection. It takes all the jobs that wait, does them in one transaction, and
//! answers once that is on the disk; so many callers share one flush.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::StoreError;
use crate::changes::{self, Change, Log};

/// The most jobs that share a transaction: more gain little, and each waits for the last.
const MAX_GROUP: usize = 64;

/// How many jobs may wait. Further callers wait for room.
const MAX_WAITING: usize = 256;

/// What a job does; borrowed from the transaction it does it in.
pub(crate) type Work<'t, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 't>>;

/// The way to the writer.
#[derive(Clone)]
pub(crate) struct Writer(mpsc::Sender<Message>);

enum Message {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<()>),
}

impl Writer {
    pub(crate) fn new(
        connection: SqliteConnection,
        sequence: u64,
        log: Arc<Log>,
        health: watch::Sender<Result<(), StoreError>>,
        lock: File,
    ) -> (Self, Writing) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let task = Task {
            messages: receiver,
            connection,
            sequence,
            log,
            health,
            _lock: lock,
        };
        (Self(sender), Writing(Box::pin(task.run())))
    }

    /// Does `work` in a transaction and tells its outcome once that is committed. If `work` fails, nothing of it stays. The
    /// caller may go away meanwhile; the work is done all the same.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Transaction) -> Work<'t, T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Pending {
            work: Some(work),
            outcome: None,
            reply,
        });
        self.0
            .send(Message::Job(job))
            .await
            .map_err(|_closed| StoreError::Closed)?;
        answer.await.map_err(|_closed| StoreError::Closed)?
    }

    /// Ends the task, after the jobs that wait already.
    pub(crate) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.0.send(Message::Close(reply)).await.is_ok() {
            // It fails when the task ended on its own, which is as good.
            drop(done.await);
        }
    }
}

/// The writer's work. Ends with the last handle of the store, or by [`crate::Store::close`]; once it has ended, nothing can
/// be written any more, and the file is free.
#[must_use = "nothing is written unless it is polled"]
pub struct Writing(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for Writing {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writing")
    }
}

/// The transaction under way: its connection, and the changes it makes.
pub(crate) struct Transaction {
    pub(crate) connection: SqliteConnection,
    sequence: u64,
    changes: Vec<(u64, Change)>,
}

impl Transaction {
    /// Takes the next sequence number.
    pub(crate) const fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Puts a change on record, to be written at the end of the transaction.
    pub(crate) fn record(&mut self, change: Change) {
        let sequence = self.next_sequence();
        self.record_as(sequence, change);
    }

    /// Puts a change on record under a number taken before.
    pub(crate) fn record_as(&mut self, sequence: u64, change: Change) {
        self.changes.push((sequence, change));
    }
}

/// A job without its types.
trait Job: Send {
    fn run<'t>(&'t mut self, transaction: &'t mut Transaction) -> Work<'t, ()>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Pending<F, T> {
    work: Option<F>,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Pending<F, T>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut Transaction) -> Work<'t, T> + Send + 'static,
{
    fn run<'t>(&'t mut self, transaction: &'t mut Transaction) -> Work<'t, ()> {
        Box::pin(async move {
            if let Some(work) = self.work.take() {
                self.outcome = Some(work(transaction).await?);
            }
            Ok(())
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        let outcome = committed.and_then(|()| outcome.ok_or(StoreError::Closed));
        // The caller may be gone.
        drop(reply.send(outcome));
    }
}

struct Task {
    messages: mpsc::Receiver<Message>,
    connection: SqliteConnection,
    sequence: u64,
    log: Arc<Log>,
    health: watch::Sender<Result<(), StoreError>>,
    _lock: File,
}

impl Task {
    async fn run(mut self) {
        let mut messages = Vec::with_capacity(MAX_GROUP);
        let mut transaction = Transaction {
            connection: self.connection,
            sequence: self.sequence,
            changes: Vec::new(),
        };
        let mut closing = Vec::new();
        while closing.is_empty() && self.messages.recv_many(&mut messages, MAX_GROUP).await > 0 {
            let mut jobs = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Job(job) => jobs.push(job),
                    Message::Close(reply) => closing.push(reply),
                }
            }
            if !jobs.is_empty() {
                let committed = commit_group(&mut transaction, jobs, &self.log).await;
                self.health.send_if_modified(|health| {
                    let differs = *health != committed;
                    *health = committed;
                    differs
                });
            }
        }
        self.messages.close();
        // The log file is folded into the database here; if that fails, the next start does it.
        drop(transaction.connection.close().await);
        drop(self._lock);
        for reply in closing {
            let _ = reply.send(());
        }
    }
}

/// Does the jobs in one transaction and answers each; tells what came of the transaction.
async fn commit_group(
    transaction: &mut Transaction,
    jobs: Vec<Box<dyn Job>>,
    log: &Log,
) -> Result<(), StoreError> {
    let before = transaction.sequence;
    let mut done = Vec::with_capacity(jobs.len());
    let committed = match run_group(transaction, jobs, &mut done).await {
        Ok(()) => commit(transaction).await,
        Err(error) => Err(error),
    };
    let changes = std::mem::take(&mut transaction.changes);
    match &committed {
        Ok(()) => log.append(changes),
        Err(_) => {
            transaction.sequence = before;
            // Fails when SQLite has rolled back by itself already.
            drop(execute(transaction, "ROLLBACK").await);
        }
    }
    for (job, outcome) in done {
        job.answer(outcome.and_then(|()| committed.clone()));
    }
    committed
}

type Done = Vec<(Box<dyn Job>, Result<(), StoreError>)>;

/// Runs the jobs one after the other. Of several, each has a savepoint, so that one that fails takes no other along.
async fn run_group(
    transaction: &mut Transaction,
    jobs: Vec<Box<dyn Job>>,
    done: &mut Done,
) -> Result<(), StoreError> {
    let alone = jobs.len() == 1;
    let mut trouble = execute(transaction, "BEGIN IMMEDIATE").await.err();
    for mut job in jobs {
        let outcome = match &trouble {
            Some(error) => Err(error.clone()),
            None if alone => job.run(transaction).await,
            None => match run_guarded(transaction, job.as_mut()).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    trouble = Some(error.clone());
                    Err(error)
                }
            },
        };
        if alone && let Err(error) = &outcome {
            trouble = Some(error.clone());
        }
        done.push((job, outcome));
    }
    trouble.map_or(Ok(()), Err)
}

/// Runs one job of several. The outer error is one of the whole transaction.
async fn run_guarded(
    transaction: &mut Transaction,
    job: &mut dyn Job,
) -> Result<Result<(), StoreError>, StoreError> {
    let (sequence, changes) = (transaction.sequence, transaction.changes.len());
    execute(transaction, "SAVEPOINT job").await?;
    let outcome = job.run(transaction).await;
    if outcome.is_err() {
        execute(transaction, "ROLLBACK TO job").await?;
        transaction.sequence = sequence;
        transaction.changes.truncate(changes);
    }
    execute(transaction, "RELEASE job").await?;
    Ok(outcome)
}

async fn commit(transaction: &mut Transaction) -> Result<(), StoreError> {
    changes::write(&mut transaction.connection, &transaction.changes).await?;
    execute(transaction, "COMMIT").await
}

async fn execute(transaction: &mut Transaction, statement: &'static str) -> Result<(), StoreError> {
    sqlx::query(statement)
        .execute(&mut transaction.connection)
        .await?;
    Ok(())
}
