//! The content of the copy.

use std::{sync::Arc, time::SystemTime};

use identity::{Certificate, EntryId, PrivateKey, SpiffeId, TrustDomain, X509Svid};
use prost::{Message, bytes::Bytes};
use proto::spire::api::types;
use runtime::BoxError;
use zeroize::Zeroize as _;

use super::{DiskError, Snapshot};

/// What the copy holds, before it is sealed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Stored {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<types::Entry>,
    #[prost(message, repeated, tag = "2")]
    bundles: Vec<types::Bundle>,
    #[prost(message, repeated, tag = "3")]
    svids: Vec<StoredSvid>,
    #[prost(string, tag = "4")]
    agent: String,
}

impl Stored {
    /// As it is written.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let bundles = snapshot.bundle.iter().chain(&snapshot.federated);
        Self {
            agent: snapshot
                .agent
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            entries: snapshot
                .entries
                .iter()
                .map(|entry| types::Entry::from(&**entry))
                .collect(),
            bundles: bundles
                .map(|bundle| types::Bundle::from(&**bundle))
                .collect(),
            svids: snapshot
                .svids
                .iter()
                .map(|(entry, svid)| StoredSvid {
                    entry_id: entry.to_string(),
                    chain: svid
                        .chain()
                        .iter()
                        .map(|one| Bytes::copy_from_slice(one.der()))
                        .collect(),
                    key: svid.key().as_pkcs8_der().to_vec(),
                })
                .collect(),
        }
    }

    /// Reads it back, without what has expired.
    pub(super) fn read(
        self,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Snapshot, DiskError> {
        let mut snapshot = Snapshot::default();
        if !self.agent.is_empty() {
            let agent = SpiffeId::parse(&self.agent).map_err(|error| content(&error))?;
            snapshot.agent = Some(agent);
        }
        for entry in &self.entries {
            let entry = proto::convert::entry(entry).map_err(|error| content(&error))?;
            snapshot.entries.push(Arc::new(entry));
        }
        for bundle in &self.bundles {
            let bundle = Arc::new(proto::convert::bundle(bundle).map_err(|error| content(&error))?);
            if bundle.trust_domain == *trust_domain {
                snapshot.bundle = Some(bundle);
            } else {
                snapshot.federated.push(bundle);
            }
        }
        for svid in &self.svids {
            let entry = EntryId::new(&svid.entry_id).map_err(|error| content(&error))?;
            let read = read_svid(svid).map_err(|error| content(&error))?;
            if read.expires_at() > now {
                snapshot.svids.push((entry, Arc::new(read)));
            }
        }
        Ok(snapshot)
    }
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct StoredSvid {
    #[prost(string, tag = "1")]
    entry_id: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    chain: Vec<Bytes>,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
}

impl std::fmt::Debug for StoredSvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredSvid({}, <redacted>)", self.entry_id)
    }
}

impl Drop for StoredSvid {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn read_svid(stored: &StoredSvid) -> Result<X509Svid, BoxError> {
    let chain = stored
        .chain
        .iter()
        .map(|der| Certificate::from_der(der))
        .collect::<Result<_, _>>()?;
    let key = PrivateKey::from_pkcs8_der(&stored.key)?;
    Ok(X509Svid::new(chain, key)?)
}

pub(super) fn content(error: &dyn std::fmt::Display) -> DiskError {
    DiskError::Content(error.to_string())
}
