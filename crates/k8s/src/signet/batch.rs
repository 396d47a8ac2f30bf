//! Calls for many objects at once, each with an outcome of its own.

use std::future::Future;

use proto::spire::api::server::entry::v1 as entry;
use proto::spire::api::server::trustdomain::v1 as trustdomain;
use proto::spire::api::types;
use tonic::{Code, Response, Status};

use super::{Signet, SignetError};

/// How many objects are listed at once.
pub const PAGE: i32 = 500;

/// What became of one item of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<T> {
    /// OK, or why not; a code that gRPC does not know is `Unknown`.
    pub code: Code,
    /// The server's words.
    pub message: String,
    /// The object as it is now; with `AlreadyExists`, the one that is in the way.
    pub object: Option<T>,
}

impl<T> Outcome<T> {
    fn new(status: Option<types::Status>, object: Option<T>) -> Self {
        // An item without a status went well: gRPC leaves out what is at its default.
        let status = status.unwrap_or_default();
        Self {
            code: Code::from_i32(status.code),
            message: status.message,
            object,
        }
    }

    /// Whether it went well.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }
}

/// Registration entries.
impl Signet {
    /// One page of entries, and the token of the next: empty for the first page, and after the last, which may itself be empty.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn list_entries(
        &self,
        page_token: String,
    ) -> Result<(Vec<types::Entry>, String), SignetError> {
        let request = entry::ListEntriesRequest {
            page_size: PAGE,
            page_token,
            ..Default::default()
        };
        let answer = self.entries().list_entries(request).await;
        let answer = self.answer("ListEntries", answer)?;
        Ok((answer.entries, answer.next_page_token))
    }

    /// Creates entries; one outcome each, in order. `AlreadyExists` comes with the entry that is there.
    ///
    /// # Errors
    /// When the call as a whole failed.
    pub async fn create_entries(
        &self,
        entries: Vec<types::Entry>,
    ) -> Result<Vec<Outcome<types::Entry>>, SignetError> {
        let expected = entries.len();
        let request = entry::BatchCreateEntryRequest {
            entries,
            output_mask: None,
        };
        let mut client = self.entries();
        let call = client.batch_create_entry(request);
        let results = |answer: entry::BatchCreateEntryResponse| {
            let outcome = |one: entry::batch_create_entry_response::Result| {
                Outcome::new(one.status, one.entry)
            };
            answer.results.into_iter().map(outcome).collect()
        };
        self.batch("BatchCreateEntry", expected, call, results)
            .await
    }

    /// Replaces all that can change of entries, by their IDs; one outcome each, in order.
    ///
    /// # Errors
    /// When the call as a whole failed.
    pub async fn update_entries(
        &self,
        entries: Vec<types::Entry>,
    ) -> Result<Vec<Outcome<types::Entry>>, SignetError> {
        let expected = entries.len();
        let request = entry::BatchUpdateEntryRequest {
            entries,
            ..Default::default()
        };
        let mut client = self.entries();
        let call = client.batch_update_entry(request);
        let results = |answer: entry::BatchUpdateEntryResponse| {
            let outcome = |one: entry::batch_update_entry_response::Result| {
                Outcome::new(one.status, one.entry)
            };
            answer.results.into_iter().map(outcome).collect()
        };
        self.batch("BatchUpdateEntry", expected, call, results)
            .await
    }

    /// Deletes entries by their IDs; one outcome each, in order.
    ///
    /// # Errors
    /// When the call as a whole failed.
    pub async fn delete_entries(
        &self,
        ids: Vec<String>,
    ) -> Result<Vec<Outcome<String>>, SignetError> {
        let expected = ids.len();
        let request = entry::BatchDeleteEntryRequest { ids };
        let mut client = self.entries();
        let call = client.batch_delete_entry(request);
        let results = |answer: entry::BatchDeleteEntryResponse| {
            let outcome = |one: entry::batch_delete_entry_response::Result| {
                Outcome::new(one.status, Some(one.id))
            };
            answer.results.into_iter().map(outcome).collect()
        };
        self.batch("BatchDeleteEntry", expected, call, results)
            .await
    }
}

/// Federation relationships.
impl Signet {
    /// One page of relationships, and the token of the next, as in [`Signet::list_entries`].
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn list_federation(
        &self,
        page_token: String,
    ) -> Result<(Vec<types::FederationRelationship>, String), SignetError> {
        let request = trustdomain::ListFederationRelationshipsRequest {
            page_size: PAGE,
            page_token,
            output_mask: None,
        };
        let answer = self
            .trust_domains()
            .list_federation_relationships(request)
            .await;
        let answer = self.answer("ListFederationRelationships", answer)?;
        Ok((answer.federation_relationships, answer.next_page_token))
    }

    /// Creates relationships; one outcome each, in order.
    ///
    /// # Errors
    /// When the call as a whole failed.
    pub async fn create_federation(
        &self,
        federation_relationships: Vec<types::FederationRelationship>,
    ) -> Result<Vec<Outcome<types::FederationRelationship>>, SignetError> {
        use trustdomain::batch_create_federation_relationship_response::Result as One;
        let expected = federation_relationships.len();
        let request = trustdomain::BatchCreateFederationRelationshipRequest {
            federation_relationships,
            output_mask: None,
        };
        let mut client = self.trust_domains();
        let call = client.batch_create_federation_relationship(request);
        let results = |answer: trustdomain::BatchCreateFederationRelationshipResponse| {
            let outcome = |one: One| Outcome::new(one.status, one.federation_relationship);
            answer.results.into_iter().map(outcome).collect()
        };
        self.batch("BatchCreateFederationRelationship", expected, call, results)
            .await
    }

    /// Replaces relationships, by their trust domains; one outcome each, in order.
    ///
    /// # Errors
    /// When the call as a whole failed.
    pub async fn update_federation(
        &self,
        federation_relationships: Vec<types::FederationRelationship>,
    ) -> Result<Vec<Outcome<types::FederationRelationship>>, SignetError> {
        use trustdomain::batch_update_federation_relationship_response::Result as One;
        let expected = federation_relationships.len();
        let request = trustdomain::BatchUpdateFederationRelationshipRequest {
            federation_relationships,
            ..Default::default()
        };
        let mut client = self.trust_domains();
        let call = client.batch_update_federation_relationship(request);
        let results = |answer: trustdomain::BatchUpdateFederationRelationshipResponse| {
            let outcome = |one: One| Outcome::new(one.status, one.federation_relationship);
            answer.results.into_iter().map(outcome).collect()
        };
        self.batch("BatchUpdateFederationRelationship", expected, call, results)
            .await
    }

    /// Deletes relationships by their trust domains; one outcome each, in order.
    ///
    /// # Errors
    /// When the call as a whole failed.
    pub async fn delete_federation(
        &self,
        trust_domains: Vec<String>,
    ) -> Result<Vec<Outcome<String>>, SignetError> {
        use trustdomain::batch_delete_federation_relationship_response::Result as One;
        let expected = trust_domains.len();
        let request = trustdomain::BatchDeleteFederationRelationshipRequest { trust_domains };
        let mut client = self.trust_domains();
        let call = client.batch_delete_federation_relationship(request);
        let results = |answer: trustdomain::BatchDeleteFederationRelationshipResponse| {
            let outcome = |one: One| Outcome::new(one.status, Some(one.trust_domain));
            answer.results.into_iter().map(outcome).collect()
        };
        self.batch("BatchDeleteFederationRelationship", expected, call, results)
            .await
    }
}

impl Signet {
    fn answer<T>(
        &self,
        call: &'static str,
        answer: Result<Response<T>, Status>,
    ) -> Result<T, SignetError> {
        answer
            .map(Response::into_inner)
            .map_err(|status| self.failed(call, status))
    }

    /// Makes a call for `expected` items, and gives as many outcomes; none are asked for with no items.
    async fn batch<A, T>(
        &self,
        call: &'static str,
        expected: usize,
        answer: impl Future<Output = Result<Response<A>, Status>>,
        results: impl FnOnce(A) -> Vec<Outcome<T>>,
    ) -> Result<Vec<Outcome<T>>, SignetError> {
        if expected == 0 {
            return Ok(Vec::new());
        }
        let outcomes = results(self.answer(call, answer.await)?);
        match outcomes.len() {
            got if got == expected => Ok(outcomes),
            got => Err(SignetError::Results {
                call,
                got,
                expected,
            }),
        }
    }
}
