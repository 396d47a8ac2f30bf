//! Entry IDs: made from keys, and whose they are.

use aws_lc_rs::digest;
use identity::EntryId;

use crate::controller::config::OwnershipRule;
use crate::controller::desired::Key;

/// Whose an entry is; in the order in which one of several stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ownership {
    /// The controller's.
    Own,
    /// Of a former prefix: the controller's, but none like it is made any more.
    Former,
    /// Somebody else's.
    Foreign,
}

/// Whose the entry `id` is.
pub(super) fn ownership(rule: &OwnershipRule, id: &str) -> Ownership {
    if id.starts_with(&rule.prefix) {
        return Ownership::Own;
    }
    match rule.cleanup.as_deref() {
        Some("") if !id.contains('.') => Ownership::Former,
        Some(prefix) if !prefix.is_empty() && id.starts_with(prefix) => Ownership::Former,
        _ => Ownership::Foreign,
    }
}

/// The ID of the entry for `key`: the prefix and a hash in the form of a UUID.
pub(super) fn id_of(rule: &OwnershipRule, key: &Key) -> Option<EntryId> {
    let mut context = digest::Context::new(&digest::SHA256);
    let selectors = key.selectors.iter().map(ToString::to_string);
    // No part holds a line break.
    let parts = [key.spiffe_id.to_string(), key.parent_id.to_string()]
        .into_iter()
        .chain(selectors);
    for part in parts {
        context.update(part.as_bytes());
        context.update(b"\n");
    }
    let hash = identity::hex(context.finish().as_ref());
    let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
    let uuid = [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-");
    EntryId::new(&format!("{}{uuid}", rule.prefix)).ok()
}

/// Whether the entry turns the agent of a join token into a node alias: made by the server's tools, never to be cleaned up.
pub(super) fn is_join_token(key: &Key) -> bool {
    let parent = key.parent_id.path().starts_with("/spire/agent/join_token/");
    parent
        && key
            .selectors
            .iter()
            .any(|selector| selector.kind() == "spiffe_id")
}
