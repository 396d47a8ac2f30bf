//! Small makers of things to store.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{EntryId, RegistrationEntry, Selector, Selectors, SpiffeId, TrustDomain};
use store::{Agent, AgentSvid, OpenError, Store};

pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(crate) fn domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

pub(crate) fn id(path: &str) -> SpiffeId {
    SpiffeId::new(&domain("example.org"), path).unwrap()
}

pub(crate) fn selectors(texts: &[&str]) -> Selectors {
    texts
        .iter()
        .map(|text| Selector::parse(text).unwrap())
        .collect()
}

pub(crate) fn entry(entry_id: &str, path: &str, texts: &[&str]) -> RegistrationEntry {
    RegistrationEntry {
        selectors: selectors(texts),
        ..RegistrationEntry::new(
            EntryId::new(entry_id).unwrap(),
            id(path),
            id("/agent"),
            at(NOW),
        )
    }
}

pub(crate) fn agent(path: &str, texts: &[&str]) -> Agent {
    Agent {
        id: id(path),
        attestation_type: "x509pop".to_owned(),
        selectors: selectors(texts),
        svid: svid("1", NOW + 3600),
        renewed: None,
        can_reattest: true,
        banned: false,
        version: String::new(),
    }
}

pub(crate) fn svid(serial: &str, expires_at: u64) -> AgentSvid {
    AgentSvid {
        serial: serial.to_owned(),
        expires_at: at(expires_at),
    }
}

/// A store whose writing goes on until it is closed, or its last handle is gone.
pub(crate) async fn open(path: &Path) -> Result<Store, OpenError> {
    let (store, writing) = Store::open(path).await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "as a server's tasks do, which are not here"
    )]
    tokio::spawn(writing);
    Ok(store)
}

/// Creates one entry that nothing speaks against.
pub(crate) async fn create(store: &Store, entry: RegistrationEntry) {
    let outcomes = store.create_entries(vec![entry]).await.unwrap();
    outcomes
        .into_iter()
        .for_each(|outcome| drop(outcome.unwrap()));
}
