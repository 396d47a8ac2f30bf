//! Output masks: a field the caller did not ask for is left empty. Without a mask all are wanted; what names the object
//! is always there.

use crate::spire::api::types;

/// Empties what an entry's mask does not name; `id` stays.
pub fn mask_entry(entry: &mut types::Entry, mask: Option<&types::EntryMask>) {
    let Some(mask) = mask else { return };
    keep(mask.spiffe_id, &mut entry.spiffe_id);
    keep(mask.parent_id, &mut entry.parent_id);
    keep(mask.selectors, &mut entry.selectors);
    keep(mask.x509_svid_ttl, &mut entry.x509_svid_ttl);
    keep(mask.federates_with, &mut entry.federates_with);
    keep(mask.admin, &mut entry.admin);
    keep(mask.downstream, &mut entry.downstream);
    keep(mask.expires_at, &mut entry.expires_at);
    keep(mask.dns_names, &mut entry.dns_names);
    keep(mask.revision_number, &mut entry.revision_number);
    keep(mask.store_svid, &mut entry.store_svid);
    keep(mask.jwt_svid_ttl, &mut entry.jwt_svid_ttl);
    keep(mask.hint, &mut entry.hint);
    keep(mask.created_at, &mut entry.created_at);
    keep(mask.additional_attributes, &mut entry.additional_attributes);
}

/// Empties what an agent's mask does not name; `id` stays.
pub fn mask_agent(agent: &mut types::Agent, mask: Option<&types::AgentMask>) {
    let Some(mask) = mask else { return };
    keep(mask.attestation_type, &mut agent.attestation_type);
    keep(
        mask.x509svid_serial_number,
        &mut agent.x509svid_serial_number,
    );
    keep(mask.x509svid_expires_at, &mut agent.x509svid_expires_at);
    keep(mask.selectors, &mut agent.selectors);
    keep(mask.banned, &mut agent.banned);
    keep(mask.can_reattest, &mut agent.can_reattest);
    keep(mask.agent_version, &mut agent.agent_version);
}

/// Empties what a bundle's mask does not name; `trust_domain` stays.
pub fn mask_bundle(bundle: &mut types::Bundle, mask: Option<&types::BundleMask>) {
    let Some(mask) = mask else { return };
    keep(mask.x509_authorities, &mut bundle.x509_authorities);
    keep(mask.jwt_authorities, &mut bundle.jwt_authorities);
    keep(mask.refresh_hint, &mut bundle.refresh_hint);
    keep(mask.sequence_number, &mut bundle.sequence_number);
    keep(mask.wit_authorities, &mut bundle.wit_authorities);
}

/// Empties what a federation relationship's mask does not name; `trust_domain` stays.
pub fn mask_federation_relationship(
    relationship: &mut types::FederationRelationship,
    mask: Option<&types::FederationRelationshipMask>,
) {
    let Some(mask) = mask else { return };
    keep(
        mask.bundle_endpoint_url,
        &mut relationship.bundle_endpoint_url,
    );
    keep(
        mask.bundle_endpoint_profile,
        &mut relationship.bundle_endpoint_profile,
    );
    keep(
        mask.trust_domain_bundle,
        &mut relationship.trust_domain_bundle,
    );
}

fn keep<T: Default>(wanted: bool, field: &mut T) {
    if !wanted {
        *field = T::default();
    }
}
