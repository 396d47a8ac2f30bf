//! spire.api.server.entry.v1

mod filter;
mod sync;

use std::sync::Arc;

use identity::{EntryId, RegistrationEntry, TrustDomain};
use proto::convert::{self, mask_entry, ok_status, status};
use proto::spire::api::server::entry::v1::entry_server::Entry;
use proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchCreateEntryResponse, BatchDeleteEntryRequest,
    BatchDeleteEntryResponse, BatchUpdateEntryRequest, BatchUpdateEntryResponse,
    CountEntriesRequest, CountEntriesResponse, GetAuthorizedEntriesRequest,
    GetAuthorizedEntriesResponse, GetEntryRequest, ListEntriesRequest, ListEntriesResponse,
    SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse, batch_create_entry_response,
    batch_delete_entry_response, batch_update_entry_response,
};
use proto::spire::api::types;
use runtime::{Clock, Shutdown};
use store::{CreateEntryError, EditEntry, Store, UpdateEntryError, new_entry_id};
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::caller::{Caller, deny};
use crate::entries::Entries;
use crate::rpc::{DenyReason, RpcError};
use crate::service::incoming::Incoming;
use crate::service::list;

/// The method whose calls stay open, as callers know it.
const SYNC: &str = "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries";

type Created = batch_create_entry_response::Result;
type Updated = batch_update_entry_response::Result;
type Deleted = batch_delete_entry_response::Result;

/// Keeps registration entries, and tells agents which are theirs.
pub(crate) struct EntryService {
    store: Store,
    entries: Entries,
    trust_domain: TrustDomain,
    clock: Clock,
    /// Ends calls that wait for their client.
    shutdown: Shutdown,
}

impl EntryService {
    pub(crate) const fn new(
        store: Store,
        entries: Entries,
        trust_domain: TrustDomain,
        clock: Clock,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            store,
            entries,
            trust_domain,
            clock,
            shutdown,
        }
    }

    async fn count(&self, request: CountEntriesRequest) -> Result<CountEntriesResponse, RpcError> {
        let filter = filter::of_count(request.filter.as_ref())?;
        let count = self.store.count_entries(&filter).await?;
        Ok(CountEntriesResponse {
            count: i32::try_from(count).unwrap_or(i32::MAX),
        })
    }

    async fn list(&self, request: ListEntriesRequest) -> Result<ListEntriesResponse, RpcError> {
        let filter = filter::of_list(request.filter.as_ref())?;
        let page = list::page(request.page_size, &request.page_token)?;
        let listing = self.store.list_entries(&filter, page).await?;
        let mask = request.output_mask.as_ref();
        Ok(ListEntriesResponse {
            entries: listing
                .items
                .iter()
                .map(|entry| wire(entry, mask))
                .collect(),
            next_page_token: list::token(listing.next),
        })
    }

    async fn get(&self, request: GetEntryRequest) -> Result<types::Entry, RpcError> {
        if request.id.is_empty() {
            return Err(RpcError::InvalidArgument("missing entry ID".into()));
        }
        let not_found = || RpcError::NotFound("entry not found".into());
        // What is no entry ID is no entry's.
        let id = EntryId::new(&request.id).map_err(|_| not_found())?;
        let entry = self.store.entry(&id).await?.ok_or_else(not_found)?;
        Ok(wire(&entry, request.output_mask.as_ref()))
    }

    async fn create(
        &self,
        request: BatchCreateEntryRequest,
    ) -> Result<BatchCreateEntryResponse, RpcError> {
        let mask = request.output_mask.as_ref();
        let now = self.clock.now();
        let mut valid = Vec::with_capacity(request.entries.len());
        // Those that are refused before the store sees them, each in its place.
        let refused: Vec<Option<types::Status>> = request
            .entries
            .iter()
            .map(|entry| {
                let entry = convert::new_entry(entry, new_entry_id, now)
                    .map_err(|error| error.to_string())
                    .and_then(|entry| self.validated(entry));
                match entry {
                    Ok(entry) => {
                        valid.push(entry);
                        None
                    }
                    Err(reason) => Some(status(
                        Code::InvalidArgument,
                        format!("failed to convert entry: {reason}"),
                    )),
                }
            })
            .collect();
        let created = self.store.create_entries(valid).await?;
        self.entries.catch_up().await?;
        let mut created = created.into_iter();
        let results = refused.into_iter().map(|refused| match refused {
            Some(status) => Created {
                status: Some(status),
                entry: None,
            },
            None => created
                .next()
                .map_or_else(Created::default, |outcome| created_item(outcome, mask)),
        });
        Ok(BatchCreateEntryResponse {
            results: results.collect(),
        })
    }

    async fn update(
        &self,
        request: BatchUpdateEntryRequest,
    ) -> Result<BatchUpdateEntryResponse, RpcError> {
        let mask = request.output_mask.as_ref();
        let mut edits = Vec::with_capacity(request.entries.len());
        let refused: Vec<Option<types::Status>> = request
            .entries
            .into_iter()
            .map(|wanted| {
                if wanted.id.is_empty() {
                    return Some(status(Code::InvalidArgument, "missing entry ID"));
                }
                let Ok(id) = EntryId::new(&wanted.id) else {
                    return Some(status(Code::NotFound, "entry not found"));
                };
                edits.push((id, self.edit(wanted, request.input_mask)));
                None
            })
            .collect();
        let updated = self.store.update_entries(edits).await?;
        self.entries.catch_up().await?;
        let mut updated = updated.into_iter();
        let results = refused.into_iter().map(|refused| match refused {
            Some(status) => Updated {
                status: Some(status),
                entry: None,
            },
            None => updated
                .next()
                .map_or_else(Updated::default, |outcome| updated_item(outcome, mask)),
        });
        Ok(BatchUpdateEntryResponse {
            results: results.collect(),
        })
    }

    /// The edit that makes an entry what the caller wants where the mask says so.
    fn edit(&self, wanted: types::Entry, mask: Option<types::EntryMask>) -> EditEntry {
        let trust_domain = self.trust_domain.clone();
        Box::new(move |entry| {
            let updated = convert::updated_entry(entry, &wanted, mask.as_ref())
                .map_err(|error| error.to_string())?;
            updated
                .validate(&trust_domain)
                .map_err(|error| error.to_string())?;
            *entry = updated;
            Ok(())
        })
    }

    async fn delete(
        &self,
        request: BatchDeleteEntryRequest,
    ) -> Result<BatchDeleteEntryResponse, RpcError> {
        let known: Vec<EntryId> = request
            .ids
            .iter()
            .filter_map(|id| EntryId::new(id).ok())
            .collect();
        let deleted = self.store.delete_entries(known).await?;
        self.entries.catch_up().await?;
        let mut deleted = deleted.into_iter();
        let results = request.ids.into_iter().map(|id| {
            let outcome = if id.is_empty() {
                status(Code::InvalidArgument, "missing entry ID")
            } else if EntryId::new(&id).is_ok() && deleted.next() == Some(true) {
                ok_status()
            } else {
                status(Code::NotFound, "entry not found")
            };
            Deleted {
                status: Some(outcome),
                id,
            }
        });
        Ok(BatchDeleteEntryResponse {
            results: results.collect(),
        })
    }

    fn validated(&self, entry: RegistrationEntry) -> Result<RegistrationEntry, String> {
        match entry.validate(&self.trust_domain) {
            Ok(()) => Ok(entry),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[tonic::async_trait]
impl Entry for EntryService {
    async fn count_entries(
        &self,
        request: Request<CountEntriesRequest>,
    ) -> Result<Response<CountEntriesResponse>, Status> {
        Ok(Response::new(self.count(request.into_inner()).await?))
    }

    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn get_entry(
        &self,
        request: Request<GetEntryRequest>,
    ) -> Result<Response<types::Entry>, Status> {
        Ok(Response::new(self.get(request.into_inner()).await?))
    }

    async fn batch_create_entry(
        &self,
        request: Request<BatchCreateEntryRequest>,
    ) -> Result<Response<BatchCreateEntryResponse>, Status> {
        Ok(Response::new(self.create(request.into_inner()).await?))
    }

    async fn batch_update_entry(
        &self,
        request: Request<BatchUpdateEntryRequest>,
    ) -> Result<Response<BatchUpdateEntryResponse>, Status> {
        Ok(Response::new(self.update(request.into_inner()).await?))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<BatchDeleteEntryRequest>,
    ) -> Result<Response<BatchDeleteEntryResponse>, Status> {
        Ok(Response::new(self.delete(request.into_inner()).await?))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<GetAuthorizedEntriesRequest>,
    ) -> Result<Response<GetAuthorizedEntriesResponse>, Status> {
        let entries = self.entries.authorized(Caller::agent(&request)?);
        let mask = request.into_inner().output_mask;
        Ok(Response::new(GetAuthorizedEntriesResponse {
            entries: entries
                .iter()
                .map(|entry| wire(entry, mask.as_ref()))
                .collect(),
        }))
    }

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<BoxStream<SyncAuthorizedEntriesResponse>>, Status> {
        let agent = Caller::agent(&request)?.clone();
        let authorized = self.entries.authorized(&agent);
        let entries = self.entries.clone();
        let active = move || match entries.agent(&agent) {
            None => Err(deny(SYNC, DenyReason::AgentNotAttested)),
            Some(agent) if agent.banned => Err(deny(SYNC, DenyReason::AgentBanned)),
            Some(_) => Ok(()),
        };
        let requests = Incoming::new(request.into_inner(), self.shutdown.clone());
        Ok(Response::new(sync::answer(requests, authorized, active)))
    }
}

/// An entry as the caller wants to see it.
fn wire(entry: &RegistrationEntry, mask: Option<&types::EntryMask>) -> types::Entry {
    let mut entry = types::Entry::from(entry);
    mask_entry(&mut entry, mask);
    entry
}

fn created_item(
    outcome: Result<Arc<RegistrationEntry>, CreateEntryError>,
    mask: Option<&types::EntryMask>,
) -> Created {
    let (status, entry) = match outcome {
        Ok(entry) => (ok_status(), Some(entry)),
        Err(error) => {
            let text = error.to_string();
            match error {
                CreateEntryError::Similar(existing) => {
                    (status(Code::AlreadyExists, text), Some(existing))
                }
                CreateEntryError::IdTaken(_) => (status(Code::AlreadyExists, text), None),
                _ => (status(Code::InvalidArgument, text), None),
            }
        }
    };
    Created {
        status: Some(status),
        entry: entry.map(|entry| wire(&entry, mask)),
    }
}

fn updated_item(
    outcome: Result<Arc<RegistrationEntry>, UpdateEntryError>,
    mask: Option<&types::EntryMask>,
) -> Updated {
    let (status, entry) = match outcome {
        Ok(entry) => (ok_status(), Some(entry)),
        Err(error) => {
            let code = match &error {
                UpdateEntryError::NotFound => Code::NotFound,
                UpdateEntryError::Similar(_) => Code::AlreadyExists,
                _ => Code::InvalidArgument,
            };
            (status(code, error.to_string()), None)
        }
    };
    Updated {
        status: Some(status),
        entry: entry.map(|entry| wire(&entry, mask)),
    }
}
