//! Work that takes long enough to leave the async threads: keys and batches of signatures.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// So few items are done on the spot: handing them over would take as long.
const ON_THE_SPOT: usize = 2;

/// At most one piece of work per core at a time, whoever asks: a herd of batches waits instead of starving the rest.
#[derive(Clone, Debug)]
pub(super) struct Workers {
    cores: usize,
    free: Arc<Semaphore>,
}

impl Workers {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cores,
            free: Arc::new(Semaphore::new(cores)),
        }
    }

    /// Runs `work` on each item, spread over the cores; the order is kept.
    pub(super) async fn map<T, R, F>(&self, mut items: Vec<T>, work: F) -> Vec<R>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Fn(T) -> R + Clone + Send + 'static,
    {
        if items.len() <= ON_THE_SPOT {
            return items.into_iter().map(work).collect();
        }
        let share = items.len().div_ceil(self.cores);
        let mut parts = Vec::with_capacity(self.cores);
        while !items.is_empty() {
            let part: Vec<T> = items.drain(..share.min(items.len())).collect();
            let (work, free) = (work.clone(), Arc::clone(&self.free));
            let permit = free.acquire_owned().await;
            parts.push(tokio::task::spawn_blocking(move || {
                let _permit = permit;
                part.into_iter().map(work).collect::<Vec<R>>()
            }));
        }
        let mut results = Vec::new();
        for part in parts {
            match part.await {
                Ok(part) => results.extend(part),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_order_is_kept_whatever_the_number() {
        let workers = Workers::new();
        for count in [0_usize, 1, 2, 3, 5, 500] {
            let items: Vec<usize> = (0..count).collect();
            let doubled = workers.map(items, |item| item * 2).await;
            assert_eq!(doubled, (0..count).map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn many_callers_at_once_are_all_served() {
        let workers = Workers::new();
        let calls = (0..20).map(|_| workers.map((0..50).collect(), |item: u64| item + 1));
        let results = futures_util::future::join_all(calls).await;
        assert!(results.iter().all(|result| result.len() == 50));
    }
}
