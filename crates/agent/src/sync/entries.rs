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

/// What the server said.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// The IDs of all entries of this agent.
    pub(super) ids: HashSet<String>,
    /// Those that are new or different, and perhaps others.
    pub(super) entries: Vec<types::Entry>,
}

/// Asks for the entries; those in `known` need not be sent again.
pub(super) async fn fetch(
    client: &ServerClient,
    known: &HashMap<String, Revision>,
) -> Result<Fetched, Status> {
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
    let mut page = next(&mut answers).await?;
    let mut fetched = Fetched::default();
    if page.entry_revisions.is_empty() {
        drop(sender);
        fetched.entries = take_pages(&mut answers, page).await?;
        fetched.ids = fetched.entries.iter().map(|one| one.id.clone()).collect();
        return Ok(fetched);
    }
    let mut wanted = Vec::new();
    loop {
        for revision in page.entry_revisions {
            let version = Revision {
                number: revision.revision_number,
                created_at: revision.created_at,
            };
            if known.get(&revision.id) != Some(&version) {
                wanted.push(revision.id.clone());
            }
            fetched.ids.insert(revision.id);
        }
        if !page.more {
            break;
        }
        page = next(&mut answers).await?;
    }
    if !wanted.is_empty() {
        wanted.sort_unstable();
        let request = SyncAuthorizedEntriesRequest {
            output_mask: None,
            ids: wanted,
        };
        // When the server hung up, its answer says why.
        let _ = sender.send(request).await;
        let first = next(&mut answers).await?;
        fetched.entries = take_pages(&mut answers, first).await?;
    }
    Ok(fetched)
}

async fn take_pages(
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
    mut page: SyncAuthorizedEntriesResponse,
) -> Result<Vec<types::Entry>, Status> {
    let mut entries = page.entries;
    while page.more {
        page = next(answers).await?;
        entries.append(&mut page.entries);
    }
    Ok(entries)
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
