//! SyncAuthorizedEntries: few entries go whole, at once; of many the agent first learns the revisions and then asks for
//! those it lacks.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use identity::RegistrationEntry;
use proto::convert::wire_time;
use proto::spire::api::server::entry::v1::{
    EntryRevision, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use proto::spire::api::types::EntryMask;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

use crate::rpc::RpcError;
use crate::service::incoming::Incoming;

/// The most entries, or revisions, in one message.
const PAGE: usize = 500;

type Entries = Arc<[Arc<RegistrationEntry>]>;
type Page = SyncAuthorizedEntriesResponse;

/// Answers one agent until it has what it wants. `entries` are sorted by ID. Before each message `active` is asked whether
/// the agent may still have it: a ban ends the call.
pub(super) fn answer(
    requests: Incoming<Streaming<SyncAuthorizedEntriesRequest>>,
    entries: Entries,
    active: impl Fn() -> Result<(), RpcError> + Send + 'static,
) -> BoxStream<Page> {
    Box::pin(stream::try_unfold(
        (requests, Session::new(entries), active),
        |(mut requests, mut session, active)| async move {
            loop {
                active()?;
                if let Some(page) = session.next_page() {
                    return Ok(Some((page, (requests, session, active))));
                }
                if session.is_over() {
                    return Ok(None);
                }
                let Some(request) = requests.message().await? else {
                    return Ok(None);
                };
                session.on_request(request).map_err(Status::from)?;
            }
        },
    ))
}

/// One agent's sync: what it is owed at this moment.
struct Session {
    entries: Entries,
    state: State,
}

enum State {
    /// Nothing is known of what it wants.
    New,
    /// All of it goes in one message.
    Whole(Option<EntryMask>),
    /// The revisions from this place on go first.
    Revisions(usize, Option<EntryMask>),
    /// It may ask for entries; these are owed.
    Asking(Option<VecDeque<Arc<RegistrationEntry>>>, Option<EntryMask>),
    /// It has all.
    Over,
}

impl Session {
    const fn new(entries: Entries) -> Self {
        Self {
            entries,
            state: State::New,
        }
    }

    const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn on_request(&mut self, request: SyncAuthorizedEntriesRequest) -> Result<(), RpcError> {
        let refused = |text: &str| Err(RpcError::InvalidArgument(text.into()));
        match (&mut self.state, request.output_mask) {
            (State::New, mask) => {
                if !request.ids.is_empty() {
                    return refused("specifying IDs on initial request is not supported");
                }
                if mask.is_some_and(|mask| !mask.revision_number) {
                    return refused("the output mask must include the revision number");
                }
                self.state = match self.entries.len() {
                    ..=PAGE => State::Whole(mask),
                    _ => State::Revisions(0, mask),
                };
            }
            (_, Some(_)) => {
                return refused(
                    "specifying an output mask is only supported on the initial request",
                );
            }
            (State::Asking(owed, _), None) => {
                let mut ids = request.ids;
                ids.sort_unstable();
                ids.dedup();
                *owed = Some(find(&self.entries, &ids));
            }
            (_, None) => {}
        }
        Ok(())
    }

    /// The next message it is owed; none until it asks again.
    fn next_page(&mut self) -> Option<Page> {
        match &mut self.state {
            State::New | State::Over => None,
            State::Whole(mask) => {
                let entries = self
                    .entries
                    .iter()
                    .map(|entry| super::wire(entry, mask.as_ref()))
                    .collect();
                self.state = State::Over;
                Some(Page {
                    entries,
                    ..Page::default()
                })
            }
            State::Revisions(from, mask) => {
                let rest = &self.entries[*from..];
                let page = &rest[..rest.len().min(PAGE)];
                let more = rest.len() > page.len();
                let entry_revisions = page.iter().map(|entry| revision(entry)).collect();
                self.state = if more {
                    State::Revisions(*from + page.len(), *mask)
                } else {
                    State::Asking(None, *mask)
                };
                Some(Page {
                    entry_revisions,
                    more,
                    ..Page::default()
                })
            }
            State::Asking(owed, mask) => {
                let rest = owed.as_mut()?;
                let page = rest.drain(..rest.len().min(PAGE));
                let entries = page
                    .map(|entry| super::wire(&entry, mask.as_ref()))
                    .collect();
                let more = !rest.is_empty();
                if !more {
                    *owed = None;
                }
                Some(Page {
                    entries,
                    more,
                    ..Page::default()
                })
            }
        }
    }
}

/// The entries of these IDs; both are sorted. An ID that is not among them is passed over.
fn find(entries: &[Arc<RegistrationEntry>], ids: &[String]) -> VecDeque<Arc<RegistrationEntry>> {
    ids.iter()
        .filter_map(|id| {
            let place = entries.binary_search_by(|entry| entry.id.as_str().cmp(id));
            place.ok().map(|place| Arc::clone(&entries[place]))
        })
        .collect()
}

fn revision(entry: &RegistrationEntry) -> EntryRevision {
    EntryRevision {
        id: entry.id.to_string(),
        revision_number: entry.revision,
        created_at: wire_time(entry.created_at),
    }
}

#[cfg(test)]
mod tests;
