//! What would be written, without doing it.

use std::collections::HashSet;

use super::ids::{self, Ownership};
use super::{Ledger, Verdict, kept, own};
use crate::controller::desired::Key;

/// What would become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It would be created.
    Create,
    /// It would be replaced.
    Update,
    /// It would be deleted.
    Delete,
    /// It is not as declared, and would be left alone.
    Keep,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Create, Self::Update, Self::Delete, Self::Keep];

    /// In one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Keep => "keep",
        }
    }
}

/// One entry that is not as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What would become of it.
    pub action: Action,
    /// Its ID, or the one it would have.
    pub id: String,
    /// Which it is.
    pub key: Key,
    /// The UID of the resource that declares it.
    pub declared_by: Option<String>,
    /// Why, beyond that.
    pub reason: String,
}

impl Ledger {
    /// Everything that is not as declared.
    #[must_use]
    pub fn preview(&self, verdict: impl Fn(&Key) -> Verdict) -> Vec<Change> {
        let mut changes = Vec::new();
        for key in self.wanted.keys() {
            self.preview_wanted(key, &mut changes);
        }
        let bare = self.bare(&verdict);
        let held = self.is_mass(bare.len());
        for (key, existing) in &self.existing {
            if self.wanted.contains_key(key) || ids::is_join_token(key) {
                continue;
            }
            let (action, reason) = match verdict(key) {
                Verdict::Frozen => (
                    Action::Keep,
                    "nothing declares it, but something that may is broken",
                ),
                _ if held && bare.contains(key) => (
                    Action::Keep,
                    "held back: too many deletes at once (signet.massDeletePercent)",
                ),
                Verdict::Gone => (Action::Delete, "its pod is gone"),
                Verdict::Undeclared => (Action::Delete, "nothing declares it"),
            };
            for id in own(existing) {
                changes.push(change(action, id, key, None, reason.to_owned()));
            }
        }
        changes.sort_by(|a, b| (a.action, &a.key, &a.id).cmp(&(b.action, &b.key, &b.id)));
        changes
    }

    /// How many entries are wanted.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted.len()
    }

    fn preview_wanted(&self, key: &Key, changes: &mut Vec<Change>) {
        let sources = self.wanted.get(key).into_iter().flatten();
        let Some((source, wanted)) = sources.into_iter().next() else {
            return;
        };
        let by = Some(source.uid.clone());
        let Some((id, there)) = self.existing.get(key).and_then(kept) else {
            let id = ids::id_of(&self.rule, key).map(|id| id.as_str().to_owned());
            let id = id.unwrap_or_default();
            changes.push(change(Action::Create, &id, key, by, String::new()));
            return;
        };
        let differs = there.wanted.differences(wanted).join(", ");
        if !differs.is_empty() && there.ownership == Ownership::Foreign {
            let reason = format!("made by somebody else, differs in {differs}");
            changes.push(change(Action::Keep, id, key, by, reason));
        } else if !differs.is_empty() {
            let reason = format!("differs in {differs}");
            changes.push(change(Action::Update, id, key, by, reason));
        }
        let existing = self.existing.get(key);
        for other in existing.into_iter().flat_map(own) {
            if other != id {
                let reason = format!("the same as {id}, which stays");
                changes.push(change(Action::Delete, other, key, None, reason));
            }
        }
    }

    /// What would leave a running pod without an identity.
    fn bare(&self, verdict: impl Fn(&Key) -> Verdict) -> HashSet<&Key> {
        let leaving = self.existing.iter().filter(|(key, existing)| {
            !self.wanted.contains_key(*key)
                && !ids::is_join_token(key)
                && own(existing).next().is_some()
        });
        leaving
            .map(|(key, _)| key)
            .filter(|key| verdict(key) == Verdict::Undeclared)
            .filter(|key| !self.deliberate.contains(*key) && !self.leaves_identity(key))
            .collect()
    }
}

fn change(
    action: Action,
    id: &str,
    key: &Key,
    declared_by: Option<String>,
    reason: String,
) -> Change {
    Change {
        action,
        id: id.to_owned(),
        key: key.clone(),
        declared_by,
        reason,
    }
}
