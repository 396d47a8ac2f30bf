//! The filters of ListEntries and CountEntries, which are two messages with the same fields.

use proto::convert;
use proto::spire::api::server::entry::v1::{count_entries_request, list_entries_request};
use proto::spire::api::types;
use store::EntryFilter;

use crate::rpc::RpcError;
use crate::service::list;

pub(super) fn of_list(
    filter: Option<&list_entries_request::Filter>,
) -> Result<EntryFilter, RpcError> {
    let Some(filter) = filter else {
        return Ok(EntryFilter::default());
    };
    read(&Wire {
        spiffe_id: filter.by_spiffe_id.as_ref(),
        parent_id: filter.by_parent_id.as_ref(),
        selectors: filter.by_selectors.as_ref(),
        federates_with: filter.by_federates_with.as_ref(),
        hint: filter.by_hint.as_deref(),
        downstream: filter.by_downstream,
    })
}

pub(super) fn of_count(
    filter: Option<&count_entries_request::Filter>,
) -> Result<EntryFilter, RpcError> {
    let Some(filter) = filter else {
        return Ok(EntryFilter::default());
    };
    read(&Wire {
        spiffe_id: filter.by_spiffe_id.as_ref(),
        parent_id: filter.by_parent_id.as_ref(),
        selectors: filter.by_selectors.as_ref(),
        federates_with: filter.by_federates_with.as_ref(),
        hint: filter.by_hint.as_deref(),
        downstream: filter.by_downstream,
    })
}

struct Wire<'a> {
    spiffe_id: Option<&'a types::Spiffeid>,
    parent_id: Option<&'a types::Spiffeid>,
    selectors: Option<&'a types::SelectorMatch>,
    federates_with: Option<&'a types::FederatesWithMatch>,
    hint: Option<&'a str>,
    downstream: Option<bool>,
}

fn read(wire: &Wire<'_>) -> Result<EntryFilter, RpcError> {
    let id = |field: &str, id: Option<&types::Spiffeid>| {
        let read = id.map(|id| convert::spiffe_id(field, Some(id))).transpose();
        read.map_err(|error| malformed(&error))
    };
    let federates_with = wire.federates_with.map(|wanted| {
        let names = convert::federated("trust_domains", &wanted.trust_domains);
        let names = names.map_err(|error| malformed(&error))?;
        if names.is_empty() {
            return Err(malformed(&"empty trust domain set"));
        }
        Ok((list::how(wanted.r#match)?, names))
    });
    Ok(EntryFilter {
        spiffe_id: id("by_spiffe_id", wire.spiffe_id)?,
        parent_id: id("by_parent_id", wire.parent_id)?,
        selectors: wire.selectors.map(list::selectors).transpose()?,
        federates_with: federates_with.transpose()?,
        hint: wire.hint.map(str::to_owned),
        downstream: wire.downstream,
    })
}

fn malformed(reason: &dyn std::fmt::Display) -> RpcError {
    RpcError::InvalidArgument(format!("malformed filter: {reason}"))
}
