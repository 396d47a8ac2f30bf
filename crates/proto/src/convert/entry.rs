//! Registration entries.

use std::time::{SystemTime, UNIX_EPOCH};

use identity::{EntryId, RegistrationEntry, TrustDomain};

use super::{FieldError, federated, seconds, selectors, spiffe_id, time, wire_selectors};
use super::{wire_time, wire_ttl};
use crate::spire::api::types;

/// Reads an entry as a server keeps it. An agent must have asked for `parent_id` too: nothing is made up here.
///
/// # Errors
/// When a field is missing or wrong. The rules that hang on the server's trust domain are
/// [`RegistrationEntry::validate`]'s.
pub fn entry(wire: &types::Entry) -> Result<RegistrationEntry, FieldError> {
    let created_at = time("created_at", wire.created_at)?.unwrap_or(UNIX_EPOCH);
    let mut entry = blank(wire, entry_id(&wire.id)?, created_at)?;
    entry.revision = wire.revision_number;
    take(&mut entry, wire, &everything())?;
    Ok(entry)
}

/// Reads an entry that is to be created: its ID is `id()` unless the caller chose one, its revision 0.
///
/// # Errors
/// As [`entry`].
pub fn new_entry(
    wire: &types::Entry,
    id: impl FnOnce() -> EntryId,
    now: SystemTime,
) -> Result<RegistrationEntry, FieldError> {
    let id = match wire.id.as_str() {
        "" => id(),
        chosen => entry_id(chosen)?,
    };
    let mut entry = blank(wire, id, now)?;
    take(&mut entry, wire, &everything())?;
    Ok(entry)
}

/// `entry` with the fields that `mask` names as the caller wants them; all that can change without a mask. The revision
/// is left to the store.
///
/// # Errors
/// As [`entry`].
pub fn updated_entry(
    entry: &RegistrationEntry,
    wire: &types::Entry,
    mask: Option<&types::EntryMask>,
) -> Result<RegistrationEntry, FieldError> {
    let mut entry = entry.clone();
    match mask {
        Some(mask) => take(&mut entry, wire, mask)?,
        None => take(&mut entry, wire, &everything())?,
    }
    Ok(entry)
}

impl From<&RegistrationEntry> for types::Entry {
    fn from(entry: &RegistrationEntry) -> Self {
        let attributes = types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: entry.disable_x509_svid_prefetch,
            jwt_svid_include_jti: entry.jwt_svid_include_jti,
        };
        Self {
            id: entry.id.as_str().to_owned(),
            spiffe_id: Some((&entry.spiffe_id).into()),
            parent_id: Some((&entry.parent_id).into()),
            selectors: wire_selectors(&entry.selectors),
            x509_svid_ttl: wire_ttl(entry.x509_svid_ttl),
            federates_with: entry
                .federates_with
                .iter()
                .map(TrustDomain::to_string)
                .collect(),
            admin: entry.admin,
            downstream: entry.downstream,
            expires_at: entry.expires_at.map_or(0, wire_time),
            dns_names: entry.dns_names.clone(),
            revision_number: entry.revision,
            store_svid: entry.store_svid,
            jwt_svid_ttl: wire_ttl(entry.jwt_svid_ttl),
            hint: entry.hint.clone(),
            created_at: wire_time(entry.created_at),
            additional_attributes: (attributes != Default::default()).then_some(attributes),
        }
    }
}

/// Takes the fields that `mask` names; the ones that only a server sets are passed over.
fn take(
    entry: &mut RegistrationEntry,
    wire: &types::Entry,
    mask: &types::EntryMask,
) -> Result<(), FieldError> {
    if mask.spiffe_id {
        entry.spiffe_id = spiffe_id("spiffe_id", wire.spiffe_id.as_ref())?;
    }
    if mask.parent_id {
        entry.parent_id = spiffe_id("parent_id", wire.parent_id.as_ref())?;
    }
    if mask.selectors {
        entry.selectors = selectors("selectors", &wire.selectors)?;
    }
    if mask.x509_svid_ttl {
        entry.x509_svid_ttl = seconds("x509_svid_ttl", wire.x509_svid_ttl)?;
    }
    if mask.jwt_svid_ttl {
        entry.jwt_svid_ttl = seconds("jwt_svid_ttl", wire.jwt_svid_ttl)?;
    }
    if mask.federates_with {
        entry.federates_with = federated("federates_with", &wire.federates_with)?;
    }
    if mask.admin {
        entry.admin = wire.admin;
    }
    if mask.downstream {
        entry.downstream = wire.downstream;
    }
    if mask.expires_at {
        entry.expires_at = time("expires_at", wire.expires_at)?;
    }
    if mask.dns_names {
        entry.dns_names.clone_from(&wire.dns_names);
    }
    if mask.store_svid {
        entry.store_svid = wire.store_svid;
    }
    if mask.hint {
        entry.hint.clone_from(&wire.hint);
    }
    if mask.additional_attributes {
        let attributes = wire.additional_attributes.unwrap_or_default();
        entry.disable_x509_svid_prefetch = attributes.disable_x509_svid_prefetch;
        entry.jwt_svid_include_jti = attributes.jwt_svid_include_jti;
    }
    Ok(())
}

/// An entry with the IDs of `wire` and nothing else.
fn blank(
    wire: &types::Entry,
    id: EntryId,
    created_at: SystemTime,
) -> Result<RegistrationEntry, FieldError> {
    let own = spiffe_id("spiffe_id", wire.spiffe_id.as_ref())?;
    let parent = spiffe_id("parent_id", wire.parent_id.as_ref())?;
    Ok(RegistrationEntry::new(id, own, parent, created_at))
}

fn entry_id(text: &str) -> Result<EntryId, FieldError> {
    if text.is_empty() {
        return Err(FieldError::missing("id"));
    }
    EntryId::new(text).map_err(|error| FieldError::new("id", error))
}

const fn everything() -> types::EntryMask {
    types::EntryMask {
        spiffe_id: true,
        parent_id: true,
        selectors: true,
        x509_svid_ttl: true,
        federates_with: true,
        admin: true,
        downstream: true,
        expires_at: true,
        dns_names: true,
        revision_number: true,
        store_svid: true,
        jwt_svid_ttl: true,
        hint: true,
        created_at: true,
        additional_attributes: true,
    }
}
