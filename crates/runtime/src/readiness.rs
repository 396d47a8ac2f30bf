use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::Tasks;
use crate::pages::{self, Page};

/// What has to be up before the program says that it is ready: one token per named part.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: watch::Sender<Parts>,
    checks: Arc<Mutex<Vec<Check>>>,
}

/// Per name, how many tokens are still held.
type Parts = BTreeMap<&'static str, usize>;

impl Readiness {
    /// Nothing to wait for yet, hence ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names a part that is not ready until the token is dropped.
    pub fn part(&self, name: &'static str) -> Part {
        self.parts
            .send_modify(|parts| *parts.entry(name).or_default() += 1);
        Part {
            name,
            parts: self.parts.clone(),
        }
    }

    /// Adds a check that is asked at each `/ready`, for what may break later; `Err` says what is wrong.
    pub fn check<F>(&self, name: &'static str, check: F)
    where
        F: Fn() -> Result<(), String> + Send + Sync + 'static,
    {
        let ask = Box::new(check);
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.push(Check { name, ask });
    }

    /// Whether every part is ready and every check passes.
    pub fn is_ready(&self) -> bool {
        self.report().iter().all(|(_, state)| state.is_ok())
    }

    /// Waits until every part is ready. Checks do not count.
    pub async fn ready(&self) {
        let all_ready = |parts: &Parts| parts.values().all(|held| *held == 0);
        // We hold a sender, so this cannot fail.
        let _ = self.parts.subscribe().wait_for(all_ready).await;
    }

    /// Each part and check by name, ready or with what is missing.
    pub fn report(&self) -> Vec<(&'static str, Result<(), String>)> {
        let parts = self.parts.borrow().clone();
        let parts = parts.into_iter().map(|(name, held)| match held {
            0 => (name, Ok(())),
            _ => (name, Err("not ready yet".to_owned())),
        });
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .chain(checks.iter().map(|check| (check.name, (check.ask)())))
            .collect()
    }

    /// Answers `ready_path` with 200 or 503 and a JSON object of parts, and `live_path` with 200. Not ready once asked to end.
    pub fn serve(&self, listener: TcpListener, live_path: &str, ready_path: &str, tasks: &Tasks) {
        let readiness = self.clone();
        let shutdown = tasks.shutdown();
        let (live_path, ready_path) = (live_path.to_owned(), ready_path.to_owned());
        pages::serve("health endpoint", listener, tasks, move |path| {
            if path == ready_path {
                readiness.page(shutdown.is_cancelled())
            } else if path == live_path {
                json_page(StatusCode::OK, json!({ "status": "live" }))
            } else {
                Page::not_found()
            }
        });
    }

    fn page(&self, ending: bool) -> Page {
        let report = self.report();
        let ready = !ending && report.iter().all(|(_, state)| state.is_ok());
        let parts: BTreeMap<_, _> = report
            .into_iter()
            .map(|(name, state)| (name, state.err().unwrap_or_else(|| "ready".to_owned())))
            .collect();
        let (code, status) = match (ready, ending) {
            (true, _) => (StatusCode::OK, "ready"),
            (_, true) => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        };
        json_page(code, json!({ "status": status, "parts": parts }))
    }
}

/// One part that has to be up; ready when dropped.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    parts: watch::Sender<Parts>,
}

impl Part {
    /// Says that the part is ready, as dropping the token does.
    pub fn done(self) {}
}

impl Drop for Part {
    fn drop(&mut self) {
        self.parts.send_modify(|parts| {
            if let Some(held) = parts.get_mut(self.name) {
                *held -= 1;
            }
        });
    }
}

struct Check {
    name: &'static str,
    ask: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

fn json_page(status: StatusCode, body: serde_json::Value) -> Page {
    Page {
        status,
        content_type: "application/json",
        body: format!("{body}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_last_token_is_gone() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let first = readiness.part("store");
        let second = readiness.part("authority");
        drop(first);
        assert!(!readiness.is_ready());
        assert_eq!(
            readiness.report(),
            [
                ("authority", Err("not ready yet".to_owned())),
                ("store", Ok(()))
            ]
        );
        second.done();
        readiness.ready().await;
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_failing_check_is_shown() {
        let readiness = Readiness::new();
        readiness.check("store", || Err("disk full".to_owned()));
        let page = readiness.page(false);
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(page.body.contains("disk full"), "{}", page.body);
    }

    #[test]
    fn not_ready_while_ending() {
        let readiness = Readiness::new();
        assert_eq!(readiness.page(false).status, StatusCode::OK);
        assert_eq!(readiness.page(true).status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
