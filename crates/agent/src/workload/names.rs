//! Names of users and groups, from the system's name service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::process::Credentials;

/// A name service may ask the network; a workload is not kept waiting for longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many look-ups are under way at once. One that the name service does not answer keeps its thread, which nobody can
/// take from it; so many threads may be lost to it, and no more.
const AT_ONCE: usize = 8;

/// The system's name service, asked by a few threads at once.
#[derive(Debug)]
pub(super) struct NameService {
    free: Arc<Semaphore>,
    patience: Duration,
}

/// The names that there are for some credentials.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of the user.
    pub(super) user: Option<String>,
    /// Of groups, by ID.
    pub(super) groups: BTreeMap<u32, String>,
}

impl Default for NameService {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(AT_ONCE)),
            patience: PATIENCE,
        }
    }
}

impl NameService {
    /// Looks names up; `None` when the name service fails or is too slow.
    pub(super) async fn look_up(&self, credentials: &Credentials) -> Option<Names> {
        let groups: Vec<u32> = [credentials.gid]
            .iter()
            .chain(&credentials.groups)
            .copied()
            .collect();
        let uid = credentials.uid;
        self.ask(uid, move || names(uid, &groups)).await
    }

    async fn ask(
        &self,
        uid: u32,
        question: impl FnOnce() -> nix::Result<Names> + Send + 'static,
    ) -> Option<Names> {
        let free = Arc::clone(&self.free);
        let lookup = async {
            // Never closed.
            let permit = free.acquire_owned().await.ok();
            let asked = spawn_blocking(move || {
                let names = question();
                // Held for as long as the thread is, whether anybody still waits or not.
                drop(permit);
                names
            });
            asked.await
        };
        match timeout(self.patience, lookup).await {
            Ok(Ok(Ok(names))) => Some(names),
            Ok(Ok(Err(error))) => {
                warn!(uid, %error, "the name service failed: user and group selectors are left out");
                None
            }
            Ok(Err(error)) => {
                warn!(uid, %error, "looking up names broke off: user and group selectors are left out");
                None
            }
            Err(_) => {
                warn!(
                    uid,
                    "the name service did not answer within {:?}: user and group selectors are left out",
                    self.patience
                );
                None
            }
        }
    }
}

fn names(uid: u32, groups: &[u32]) -> nix::Result<Names> {
    let user = User::from_uid(Uid::from_raw(uid))?.map(|user| user.name);
    let mut names = BTreeMap::new();
    for gid in groups {
        if let Some(group) = Group::from_gid(Gid::from_raw(*gid))? {
            names.insert(*gid, group.name);
        }
    }
    Ok(Names {
        user,
        groups: names,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn known_users_have_names_and_others_none() {
        let root = Credentials {
            uid: 0,
            gid: 0,
            groups: vec![0, 4_000_000],
        };
        let service = NameService::default();
        let names = service.look_up(&root).await.unwrap();
        assert_eq!(names.user.as_deref(), Some("root"));
        assert_eq!(names.groups, BTreeMap::from([(0, "root".to_owned())]));
        let nobody = Credentials {
            uid: 4_000_000,
            gid: 4_000_000,
            groups: vec![],
        };
        assert_eq!(service.look_up(&nobody).await.unwrap().user, None);
    }

    /// A name service that never answers must not take all threads that the agent has for blocking work.
    #[tokio::test]
    async fn a_slow_name_service_costs_a_few_threads_at_most() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        use std::sync::mpsc::channel;

        // A paused clock stands still while threads are busy.
        let service = NameService {
            patience: Duration::from_millis(20),
            ..NameService::default()
        };
        let asked = Arc::new(AtomicUsize::new(0));
        let mut holders = Vec::new();
        let mut questions = Vec::new();
        for _ in 0..3 * AT_ONCE {
            let (holder, held) = channel::<()>();
            holders.push(holder);
            let asked = Arc::clone(&asked);
            questions.push(service.ask(1, move || {
                asked.fetch_add(1, Ordering::Relaxed);
                // Until the holder is dropped.
                let _ = held.recv();
                Ok(Names::default())
            }));
        }
        let answers = futures_util::future::join_all(questions).await;
        assert!(
            answers.iter().all(Option::is_none),
            "nobody waits for longer"
        );
        assert!(asked.load(Ordering::Relaxed) <= AT_ONCE);
        assert_eq!(service.free.available_permits(), 0);
        // Once it answers again, so does the agent.
        drop(holders);
        let free = service.free.acquire_many(AT_ONCE.try_into().unwrap()).await;
        drop(free.unwrap());
        assert!(service.ask(1, || Ok(Names::default())).await.is_some());
    }
}
