use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::Tasks;

/// What has to be up before the program says that it is ready: one token per named part.
#[derive(Clone, Debug)]
pub struct Readiness {
    waiting: watch::Sender<BTreeMap<&'static str, usize>>,
}

impl Readiness {
    /// Nothing to wait for yet, hence ready.
    pub fn new() -> Self {
        todo!()
    }

    /// Names a part that is not ready until the token is dropped.
    pub fn part(&self, name: &'static str) -> Part {
        todo!()
    }

    /// Adds a check that is asked at each `/ready` and `/live`, for what may break later; `Err` says what is wrong.
    pub fn check<F>(&self, name: &'static str, check: F)
    where
        F: Fn() -> Result<(), String> + Send + Sync + 'static,
    {
        todo!()
    }

    /// Whether every part is ready and every check passes.
    pub fn is_ready(&self) -> bool {
        todo!()
    }

    /// Waits until every part is ready.
    pub async fn ready(&self) {
        todo!()
    }

    /// Answers `live_path` and `ready_path` on `listener`, with 200 or 503 and a JSON object of parts.
    pub fn serve(&self, listener: TcpListener, live_path: &str, ready_path: &str, tasks: &Tasks) {
        todo!()
    }
}

/// One part that has to be up; ready when dropped.
#[derive(Debug)]
pub struct Part {}

impl Part {
    /// Says that the part is ready, as dropping the token does.
    pub fn done(self) {}
}
