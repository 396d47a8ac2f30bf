//! What the server has, and whether it is exactly what should be there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{
    CountEntriesRequest, ListEntriesRequest, list_entries_request::Filter,
};
use proto::spire::api::types::{self, Entry, selector_match::MatchBehavior};
use tonic::transport::Channel;

use crate::wait;

const PAGE: i32 = 500;

/// For thousands of entries on a busy machine.
const LONG: Duration = Duration::from_secs(180);

/// How many differences an error names.
const TOLD: usize = 5;

/// A client of the server's private socket.
#[derive(Clone, Debug)]
pub struct Entries(Channel);

/// An entry of a pod, as far as it is compared with what should be there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// The pod's UID, from the selector.
    pub pod: String,
    /// The SPIFFE ID's path.
    pub path: String,
    /// The parent's path.
    pub parent: String,
    /// DNS names.
    pub dns: Vec<String>,
}

impl Entries {
    /// Of the server at `socket`; connects at the first call, and again when the server was restarted.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self(testkit::local_channel(socket))
    }

    /// All of them.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn all(&self) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListEntriesRequest {
                page_size: PAGE,
                page_token,
                ..ListEntriesRequest::default()
            };
            let answer = self.client().list_entries(request).await?.into_inner();
            all.extend(answer.entries);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// How many there are.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn count(&self) -> Result<usize> {
        let request = CountEntriesRequest::default();
        let answer = self.client().count_entries(request).await?.into_inner();
        Ok(usize::try_from(answer.count)?)
    }

    /// Those of one pod, read at one moment.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn of_pod(&self, uid: &str) -> Result<Vec<Entry>> {
        let selector = types::Selector {
            r#type: "k8s".to_owned(),
            value: format!("pod-uid:{uid}"),
        };
        let request = ListEntriesRequest {
            filter: Some(Filter {
                by_selectors: Some(types::SelectorMatch {
                    selectors: vec![selector],
                    r#match: MatchBehavior::MatchSuperset.into(),
                }),
                ..Filter::default()
            }),
            ..ListEntriesRequest::default()
        };
        Ok(self
            .client()
            .list_entries(request)
            .await?
            .into_inner()
            .entries)
    }

    /// Waits until `holds` of all entries.
    ///
    /// # Errors
    /// When that does not happen in time; with the paths there are.
    pub async fn until(&self, what: &str, holds: impl Fn(&[Entry]) -> bool) -> Result<Vec<Entry>> {
        wait::until(what, || async {
            let entries = self.all().await?;
            let paths: Vec<_> = entries.iter().map(path).collect();
            ensure!(holds(&entries), "entries: {paths:?}");
            Ok(Some(entries))
        })
        .await
    }

    /// Waits until the pods' entries are these, each once.
    ///
    /// # Errors
    /// When they do not become so in time; with what is missing and what is left over.
    pub async fn until_exactly(&self, mut expected: Vec<Line>) -> Result<()> {
        expected.sort();
        wait::within(LONG, "exactly the entries that should be there", || async {
            // Cheaper than a listing, and enough to say no.
            let count = self.count().await?;
            ensure!(
                count >= expected.len(),
                "{count} entries instead of {}",
                expected.len()
            );
            let mut there: Vec<Line> = self.all().await?.iter().filter_map(Line::of).collect();
            there.sort();
            same(&expected, &there)?;
            Ok(Some(()))
        })
        .await
    }

    fn client(&self) -> EntryClient<Channel> {
        EntryClient::new(self.0.clone())
    }
}

impl Line {
    /// None when it is not of a pod.
    #[must_use]
    pub fn of(entry: &Entry) -> Option<Self> {
        let uid = entry
            .selectors
            .iter()
            .find_map(|selector| selector.value.strip_prefix("pod-uid:"))?;
        let parent = entry.parent_id.as_ref().map(|id| id.path.clone());
        Some(Self {
            pod: uid.to_owned(),
            path: path(entry).to_owned(),
            parent: parent.unwrap_or_default(),
            dns: entry.dns_names.clone(),
        })
    }
}

/// The entry of this pod.
#[must_use]
pub fn of<'a>(entries: &'a [Entry], pod: &Pod) -> Option<&'a Entry> {
    let uid = format!(
        "pod-uid:{}",
        pod.metadata.uid.as_deref().unwrap_or_default()
    );
    entries
        .iter()
        .find(|entry| entry.selectors.iter().any(|selector| selector.value == uid))
}

/// The path of its SPIFFE ID.
#[must_use]
pub fn path(entry: &Entry) -> &str {
    entry.spiffe_id.as_ref().map_or("", |id| id.path.as_str())
}

/// Both sorted.
fn same(expected: &[Line], there: &[Line]) -> Result<()> {
    let (mut missing, mut superfluous) = (Vec::new(), Vec::new());
    let (mut wanted, mut found) = (expected.iter().peekable(), there.iter().peekable());
    loop {
        match (wanted.peek(), found.peek()) {
            (None, None) => break,
            (Some(one), Some(other)) if one == other => {
                wanted.next();
                found.next();
            }
            (Some(one), other) if other.is_none_or(|other| one < other) => {
                missing.extend(wanted.next());
            }
            _ => superfluous.extend(found.next()),
        }
    }
    if missing.is_empty() && superfluous.is_empty() {
        return Ok(());
    }
    let (lost, left) = (missing.len(), superfluous.len());
    missing.truncate(TOLD);
    superfluous.truncate(TOLD);
    bail!(
        "{lost} of {} are missing: {missing:?}; {left} are superfluous: {superfluous:?}",
        expected.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pods: &[&str]) -> Vec<Line> {
        let line = |pod: &&str| Line {
            pod: (*pod).to_owned(),
            path: "/x".to_owned(),
            parent: "/node".to_owned(),
            dns: Vec::new(),
        };
        pods.iter().map(line).collect()
    }

    #[test]
    fn what_is_lost_left_over_or_twice_there_is_told() {
        let check = |expected: &[&str], there: &[&str], told: &str| {
            let result = same(&lines(expected), &lines(there));
            let said = result.err().map(|error| error.to_string());
            assert!(
                said.as_deref().unwrap_or_default().contains(told)
                    && said.is_none() == told.is_empty(),
                "{said:?}"
            );
        };
        check(&["a", "b"], &["a", "b"], "");
        check(&["a", "b"], &["b"], "1 of 2 are missing");
        check(&["a"], &["a", "b"], "1 are superfluous");
        check(&["a", "b"], &["a", "a", "b"], "1 are superfluous");
        check(&["b"], &["a"], "1 of 1 are missing");
        check(&["a"], &["b"], "1 are superfluous");
    }
}
