//! Who is calling: made for each request from what is known of its connection, and looked up anew each time, so that a
//! ban or an eviction holds from the next call on.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use identity::{
    Bundle, BundleSet, Certificate, RegistrationEntry, SpiffeId, TrustDomain, verify_x509_svid,
};
use runtime::{Peer, TlsPeer};
use rustls_pki_types::CertificateDer;
use store::{AgentError, Store};
use tokio::sync::watch;
use tonic::Request;

use crate::entries::Entries;
use crate::policy::Who;
use crate::rpc::{DenyReason, RpcError};

/// A longer chain is nobody's whom we issued to.
const MAX_CHAIN: usize = 8;

/// Who is calling, as far as the method asked for cares: the role in which `policy` admitted the request.
///
/// Services find it in the request's extensions with [`Caller::of`] and [`Caller::agent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A process on this machine, over the private unix socket.
    Local {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its process, where the kernel told.
        pid: Option<u32>,
    },
    /// An identity of `admin_ids`, or of an entry with `admin`.
    Admin(SpiffeId),
    /// A nested server: an identity of an entry with `downstream`.
    Downstream {
        /// Who it is.
        id: SpiffeId,
        /// The entry that makes it one.
        entry: Arc<RegistrationEntry>,
    },
    /// An attested agent whose SVID is the current one.
    Agent {
        /// Who it is.
        id: SpiffeId,
        /// The serial number of its SVID, decimal.
        serial: String,
    },
    /// Nobody in particular: the method is open to all.
    Anyone,
}

impl Caller {
    /// The caller of a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<&Self, RpcError> {
        request
            .extensions()
            .get()
            .ok_or_else(|| RpcError::internal("internal error", "the request passed no gate"))
    }

    /// The ID of the agent that calls, for methods which only agents may call.
    pub(crate) fn agent<T>(request: &Request<T>) -> Result<&SpiffeId, RpcError> {
        match Self::of(request)? {
            Self::Agent { id, .. } => Ok(id),
            _ => Err(RpcError::PermissionDenied(
                "only an agent may call this method".into(),
            )),
        }
    }
}

/// For the log.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, gid, pid } => {
                write!(f, "local uid={uid} gid={gid}")?;
                pid.map_or(Ok(()), |pid| write!(f, " pid={pid}"))
            }
            Self::Admin(id) => write!(f, "admin {id}"),
            Self::Downstream { id, .. } => write!(f, "downstream {id}"),
            Self::Agent { id, .. } => write!(f, "agent {id}"),
            Self::Anyone => f.write_str("anyone"),
        }
    }
}

/// The other end of a request's connection.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// A process on this machine.
    Local {
        uid: u32,
        gid: u32,
        pid: Option<u32>,
    },
    /// Somebody over TLS, with the certificates whose key it proved to hold; nothing else is known of them.
    Remote {
        address: IpAddr,
        chain: Arc<[CertificateDer<'static>]>,
    },
    /// Neither: admitted to nothing that is not open to all.
    Unknown,
}

impl Origin {
    pub(crate) fn of(local: Option<&Peer>, remote: Option<&TlsPeer>) -> Self {
        match (local, remote) {
            (Some(peer), None) => Self::Local {
                uid: peer.uid(),
                gid: peer.gid(),
                pid: peer.pid(),
            },
            (None, Some(peer)) => Self::Remote {
                address: peer.address.ip(),
                chain: Arc::clone(&peer.chain),
            },
            _ => Self::Unknown,
        }
    }
}

/// What callers are looked up in.
pub(crate) struct Callers {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) admin_ids: Vec<SpiffeId>,
    pub(crate) bundle: watch::Receiver<Arc<Bundle>>,
    pub(crate) entries: Entries,
    pub(crate) store: Store,
}

impl Callers {
    /// Admits a request in the first role that it has and `who` names.
    ///
    /// # Errors
    /// When it has none, or the lookup failed. `path` is the method's, as callers read it.
    pub(crate) async fn admit(
        &self,
        origin: &Origin,
        who: Who,
        path: &str,
        now: SystemTime,
    ) -> Result<Caller, RpcError> {
        if who.includes(Who::ANYONE) {
            return Ok(Caller::Anyone);
        }
        let denied = || RpcError::PermissionDenied(denial(path));
        let chain = match origin {
            Origin::Local { uid, gid, pid } if who.includes(Who::LOCAL) => {
                return Ok(Caller::Local {
                    uid: *uid,
                    gid: *gid,
                    pid: *pid,
                });
            }
            Origin::Local { .. } | Origin::Unknown => return Err(denied()),
            Origin::Remote { chain, .. } => parse(chain).ok_or_else(denied)?,
        };
        let leaf = &chain[0];
        if leaf.not_after() < now && who.includes(Who::AGENT) && self.is_ours(leaf) {
            return Err(deny(path, DenyReason::AgentExpired));
        }
        let id = verify_x509_svid(&chain, &self.bundles(leaf).await?, now).map_err(|error| {
            tracing::debug!(%error, "the caller's certificates are refused");
            denied()
        })?;
        if who.includes(Who::ADMIN) && self.admin_ids.contains(&id) {
            return Ok(Caller::Admin(id));
        }
        if !id.is_member_of(&self.trust_domain) {
            return Err(denied());
        }
        self.entries.catch_up().await?;
        if let Some(caller) = self.by_entry(&id, who) {
            return Ok(caller);
        }
        if who.includes(Who::AGENT) {
            return self.agent(id, leaf.serial_decimal(), path).await;
        }
        Err(denied())
    }

    fn is_ours(&self, leaf: &Certificate) -> bool {
        leaf.spiffe_id()
            .is_some_and(|id| id.is_member_of(&self.trust_domain))
    }

    /// The bundles that count: our own, and a foreign one only where an admin is of that trust domain.
    async fn bundles(&self, leaf: &Certificate) -> Result<BundleSet, RpcError> {
        let mut bundles = BundleSet::new();
        bundles.insert(Arc::clone(&self.bundle.borrow()));
        let foreign = leaf.spiffe_id().filter(|id| self.admin_ids.contains(id));
        if let Some(id) = foreign
            && !id.is_member_of(&self.trust_domain)
            && let Some(bundle) = self.store.bundle(id.trust_domain()).await?
        {
            bundles.insert(Arc::new(bundle));
        }
        Ok(bundles)
    }

    /// The role that an entry of this ID gives.
    fn by_entry(&self, id: &SpiffeId, who: Who) -> Option<Caller> {
        let entries = self.entries.of_spiffe_id(id);
        if who.includes(Who::ADMIN) && entries.iter().any(|entry| entry.admin) {
            return Some(Caller::Admin(id.clone()));
        }
        let downstream = entries.into_iter().find(|entry| entry.downstream);
        downstream
            .filter(|_| who.includes(Who::DOWNSTREAM))
            .map(|entry| Caller::Downstream {
                id: id.clone(),
                entry,
            })
    }

    /// An agent whose serial number is the current one, or that of a renewal, which becomes the current one.
    async fn agent(&self, id: SpiffeId, serial: String, path: &str) -> Result<Caller, RpcError> {
        let Some(agent) = self.entries.agent(&id) else {
            return Err(deny(path, DenyReason::AgentNotAttested));
        };
        if agent.banned {
            return Err(deny(path, DenyReason::AgentBanned));
        }
        if agent.svid.serial != serial {
            let renewed = agent.renewed.as_ref();
            if renewed.is_none_or(|renewed| renewed.serial != serial) {
                return Err(deny(path, DenyReason::AgentNotActive));
            }
            match self.store.activate_agent_svid(&id, &serial).await {
                Ok(()) => tracing::info!(agent_id = %id, serial, "the agent uses its renewed SVID"),
                // Somebody renewed, banned or evicted it in between.
                Err(AgentError::NotFound) => return Err(deny(path, DenyReason::AgentNotActive)),
                Err(AgentError::Store(error)) => return Err(error.into()),
                Err(error) => return Err(RpcError::internal(denial(path), error)),
            }
        }
        Ok(Caller::Agent { id, serial })
    }
}

fn parse(chain: &[CertificateDer<'static>]) -> Option<Vec<Certificate>> {
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return None;
    }
    chain
        .iter()
        .map(|der| Certificate::from_der(der).ok())
        .collect()
}

fn denial(path: &str) -> String {
    format!("authorization denied for method {path}")
}

pub(crate) fn deny(path: &str, reason: DenyReason) -> RpcError {
    RpcError::Denied {
        text: denial(path),
        reason,
    }
}
