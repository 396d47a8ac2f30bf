//! `SyncAuthorizedEntries`: all entries when they are few; else their revisions first, and then only
//! those that are new or different.

use std::collections::{HashMap, HashSet};

use proto::spire::api::{
    server::entry::v1::{SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse},
    types,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Revision;
use crate::client::ServerClient;

/// Asks for the entries; those in `known` need not be sent again. What is new or different goes to `take`, page by page,
/// as soon as nothing older can follow; the IDs of all entries of this agent come at the end.
pub(super) async fn fetch(
    client: &ServerClient,
    known: &HashMap<String, Revision>,
    mut take: impl FnMut(Vec<types::Entry>),
) -> Result<HashSet<String>, Status> {
    let (sender, requests) = mpsc::channel(1);
    // The channel holds one message, and nothing else is in it.
    let _ = sender.try_send(SyncAuthorizedEntriesRequest {
        output_mask: Some(mask()),
        ids: Vec::new(),
    });
    let mut answers = client
        .entry()
        .sync_authorized_entries(ReceiverStream::new(requests))
        .await?
        .into_inner();
    let page = next(&mut answers).await?;
    if page.entry_revisions.is_empty() {
        drop(sender);
        return take_all(&mut answers, page, take).await;
    }
    let (ids, wanted) = take_revisions(&mut answers, page, known).await?;
    if !wanted.is_empty() {
        let mut pages = Pages::new(&wanted);
        let request = SyncAuthorizedEntriesRequest {
            output_mask: None,
            ids: wanted,
        };
        // When the server hung up, its answer says why.
        let _ = sender.send(request).await;
        loop {
            let page = next(&mut answers).await?;
            pages.add(page.entries, &mut take);
            if !page.more {
                break;
            }
        }
        pages.end(&mut take);
    }
    Ok(ids)
}

/// All entries at once, in no order: none of them is the last word on who a workload is before the last has come.
async fn take_all(
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
    mut page: SyncAuthorizedEntriesResponse,
    mut take: impl FnMut(Vec<types::Entry>),
) -> Result<HashSet<String>, Status> {
    let mut entries = page.entries;
    while page.more {
        page = next(answers).await?;
        entries.append(&mut page.entries);
    }
    let ids = entries.iter().map(|one| one.id.clone()).collect();
    take(entries);
    Ok(ids)
}

/// All IDs, and those to ask for, the oldest entry first.
async fn take_revisions(
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
    mut page: SyncAuthorizedEntriesResponse,
    known: &HashMap<String, Revision>,
) -> Result<(HashSet<String>, Vec<String>), Status> {
    let (mut ids, mut wanted) = (HashSet::new(), Vec::new());
    loop {
        for revision in page.entry_revisions {
            let version = Revision {
                number: revision.revision_number,
                created_at: revision.created_at,
            };
            if known.get(&revision.id) != Some(&version) {
                wanted.push((version.created_at, revision.id.clone()));
            }
            ids.insert(revision.id);
        }
        if !page.more {
            break;
        }
        page = next(answers).await?;
    }
    wanted.sort_unstable();
    Ok((ids, wanted.into_iter().map(|(_, id)| id).collect()))
}

/// Hands pages on for as long as the server keeps to the order asked for. A workload is whom its oldest entry says, so
/// what comes out of order waits for the end.
#[derive(Debug)]
struct Pages {
    /// By ID, the place in the order asked for.
    places: HashMap<String, usize>,
    /// The place that comes next at the earliest.
    next: usize,
    in_order: bool,
    kept: Vec<types::Entry>,
}

impl Pages {
    fn new(wanted: &[String]) -> Self {
        Self {
            places: (0..).zip(wanted).map(|(at, id)| (id.clone(), at)).collect(),
            next: 0,
            in_order: true,
            kept: Vec::new(),
        }
    }

    fn add(&mut self, entries: Vec<types::Entry>, take: &mut impl FnMut(Vec<types::Entry>)) {
        for entry in &entries {
            // One that went away meanwhile is left out by the server, so places may be skipped.
            match self.places.get(&entry.id) {
                Some(place) if *place >= self.next => self.next = place + 1,
                _ => self.in_order = false,
            }
        }
        if self.in_order {
            take(entries);
        } else {
            self.kept.extend(entries);
        }
    }

    fn end(self, take: &mut impl FnMut(Vec<types::Entry>)) {
        if !self.kept.is_empty() {
            take(self.kept);
        }
    }
}

async fn next(
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
) -> Result<SyncAuthorizedEntriesResponse, Status> {
    answers
        .message()
        .await?
        .ok_or_else(|| Status::unavailable("the server ended the sync early"))
}

/// What the agent needs of an entry. Lifetimes and DNS names are the server's business.
fn mask() -> types::EntryMask {
    types::EntryMask {
        spiffe_id: true,
        parent_id: true,
        selectors: true,
        federates_with: true,
        admin: true,
        downstream: true,
        revision_number: true,
        store_svid: true,
        hint: true,
        additional_attributes: true,
        created_at: true,
        ..types::EntryMask::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ids: &[&str]) -> Vec<types::Entry> {
        let entry = |id: &&str| types::Entry {
            id: (*id).to_owned(),
            ..types::Entry::default()
        };
        ids.iter().map(entry).collect()
    }

    /// The IDs handed on after each page, and at the end.
    fn run(pages: &[&[&str]]) -> Vec<Vec<String>> {
        let wanted = ["a", "b", "c", "d"].map(str::to_owned);
        let mut reader = Pages::new(&wanted);
        let mut taken = Vec::new();
        let mut take = |entries: Vec<types::Entry>| {
            taken.push(entries.into_iter().map(|one| one.id).collect());
        };
        for ids in pages {
            reader.add(page(ids), &mut take);
        }
        reader.end(&mut take);
        taken
    }

    #[test]
    fn pages_in_the_order_asked_for_are_taken_as_they_come() {
        assert_eq!(run(&[&["a", "b"], &["c", "d"]]), [["a", "b"], ["c", "d"]]);
        assert_eq!(run(&[&["a"], &["d"]]), [["a"], ["d"]]);
    }

    /// Else a workload might start out as whom a younger entry says.
    #[test]
    fn pages_out_of_order_wait_for_the_last() {
        assert_eq!(run(&[&["b", "a"], &["c", "d"]]), [["b", "a", "c", "d"]]);
        assert_eq!(
            run(&[&["a", "b"], &["d"], &["c"]]),
            [vec!["a", "b"], vec!["d"], vec!["c"]]
        );
        assert_eq!(run(&[&["x"], &["a"]]), [["x", "a"]]);
    }
}
