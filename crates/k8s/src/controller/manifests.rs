//! Resources from a folder of manifests instead of Kubernetes, as SPIRE's controller manager reads them in its static mode.
//!
//! The folder is told as watches tell a cluster: what it holds is listed anew after every change. A file that cannot be read
//! leaves the list open, so that what it may declare is kept.

mod read;
mod start;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::config::Problem;
use runtime::{BoxError, Metrics, Shutdown};
use tokio::sync::mpsc;

use super::state::{Event, Kind};

pub use start::start;

/// The longest time between two looks at the folder.
const LOOK: Duration = Duration::from_secs(5);

/// The largest file that is read; etcd takes no larger object.
const MAX_FILE: u64 = 4 << 20;

/// A file's name, and its text or why there is none.
type File = (String, Result<String, String>);

/// Tells what a folder holds.
struct Folder {
    path: PathBuf,
    environment: Option<BTreeMap<String, String>>,
    /// Who hears of which kind.
    listeners: Vec<(Kind, mpsc::Sender<Event>)>,
    every: Duration,
    metrics: Metrics,
}

impl Folder {
    /// Ends when nobody listens any more.
    async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        let mut last: Option<Result<Vec<File>, String>> = None;
        let every = self.every.min(LOOK);
        loop {
            let found = files(&self.path).await;
            if last.as_ref() != Some(&found) {
                if !self.tell(&found).await {
                    return Ok(());
                }
                last = Some(found);
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Whether anybody listens.
    async fn tell(&self, found: &Result<Vec<File>, String>) -> bool {
        let read = match found {
            Ok(files) => read::documents(files, self.environment.as_ref()),
            Err(message) => read::Read::failed(&self.path, message),
        };
        for Problem { path, message } in &read.problems {
            self.metrics.counter("manifest_errors", &[]).increment();
            tracing::warn!(
                manifest = path,
                error = message,
                "a manifest cannot be used; nothing is deleted until it can"
            );
        }
        tracing::info!(folder = %self.path.display(), resources = read.objects.len(), "manifests read");
        let whole = read.problems.is_empty();
        for (kind, listener) in &self.listeners {
            let mine = read.objects.iter().filter(|(of, _)| of == kind);
            let apply = mine.map(|(kind, object)| Event::Apply(*kind, object.clone()));
            let end = whole.then_some(Event::End(*kind));
            for event in [Event::Begin(*kind)].into_iter().chain(apply).chain(end) {
                if listener.send(event).await.is_err() {
                    return false;
                }
            }
        }
        true
    }
}

/// The texts of the folder's `.yaml` files, by name.
async fn files(folder: &Path) -> Result<Vec<File>, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut entries = tokio::fs::read_dir(folder).await.map_err(told)?;
    let mut files = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(told)? {
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push((name, text(&path).await));
        }
    }
    files.sort();
    Ok(files)
}

async fn text(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| error.to_string();
    let found = tokio::fs::metadata(path).await.map_err(told)?;
    if !found.is_file() {
        return Err("not a file".to_owned());
    }
    if found.len() > MAX_FILE {
        return Err(format!("larger than {MAX_FILE} bytes"));
    }
    tokio::fs::read_to_string(path).await.map_err(told)
}

#[cfg(test)]
mod tests;
