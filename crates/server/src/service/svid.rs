//! `spire.api.server.svid.v1`: issuing SVIDs to agents for their entries, and to operators for whatever they name.
//!
//! For agents, a certificate's names come from the entry, which must be the agent's at the moment of signing; the request
//! gives the key alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ca::csr::{self, CsrError, NamedCsr};
use ca::{IssuedJwt, IssuedX509, JwtSpec, LeafSpec};
use identity::{EntryId, RegistrationEntry, SpiffeId, TrustDomain};
use proto::convert;
use proto::spire::api::server::svid::v1::batch_new_x509svid_response::Result as BatchResult;
use proto::spire::api::server::svid::v1::svid_server::Svid;
use proto::spire::api::server::svid::v1::{
    BatchNewWitsvidRequest, BatchNewWitsvidResponse, BatchNewX509svidRequest,
    BatchNewX509svidResponse, MintJwtsvidRequest, MintJwtsvidResponse, MintWitsvidRequest,
    MintWitsvidResponse, MintX509svidRequest, MintX509svidResponse, NewDownstreamX509caRequest,
    NewDownstreamX509caResponse, NewJwtsvidRequest, NewJwtsvidResponse,
};
use proto::spire::api::types;
use tonic::{Request, Response, Status};

use crate::authority::{Authorities, Signer};
use crate::caller::Caller;
use crate::config::CaConfig;
use crate::endpoints::limits::{self, Work};
use crate::entries::Entries;
use crate::rpc::RpcError;

/// The most SVIDs in one call.
const MAX_BATCH: usize = 500;

/// Paths below it are the server's and the agents' own; nobody mints those.
const RESERVED_PATH: &str = "/spire/";

const NOT_AUTHORIZED: &str = "entry not found or not authorized";
const NO_WIT: &str = "WIT-SVIDs are not offered";

/// Issues SVIDs.
pub(crate) struct SvidService {
    pub(crate) authorities: Authorities,
    pub(crate) entries: Entries,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) ca: CaConfig,
}

/// One SVID to be signed: what the agent asked for, and the entry it is for.
struct Item {
    csr: Bytes,
    entry: Result<Arc<RegistrationEntry>, RpcError>,
}

impl SvidService {
    async fn batch_new_x509_svid(
        &self,
        agent: &SpiffeId,
        request: BatchNewX509svidRequest,
    ) -> Result<BatchNewX509svidResponse, RpcError> {
        let ids: Vec<Option<EntryId>> = request
            .params
            .iter()
            .map(|params| EntryId::new(&params.entry_id).ok())
            .collect();
        let known: Vec<EntryId> = ids.iter().flatten().cloned().collect();
        let mut found = self.entries.lookup(agent, &known).into_iter();
        let items = request
            .params
            .into_iter()
            .zip(ids)
            .map(|(params, id)| Item {
                entry: match id {
                    Some(_) => found.next().flatten().ok_or_else(not_authorized),
                    None if params.entry_id.is_empty() => {
                        Err(RpcError::InvalidArgument("missing entry ID".to_owned()))
                    }
                    None => Err(not_authorized()),
                },
                csr: params.csr,
            });
        let default_ttl = self.ca.default_x509_svid_ttl;
        let sign = move |signer: &Signer, item| batch_result(sign_item(signer, item, default_ttl));
        let results = self.authorities.sign_each(items.collect(), sign).await;
        Ok(BatchNewX509svidResponse { results })
    }

    fn new_jwt_svid(
        &self,
        agent: &SpiffeId,
        request: &NewJwtsvidRequest,
    ) -> Result<types::Jwtsvid, RpcError> {
        check_audience(&request.audience)?;
        if request.entry_id.is_empty() {
            return Err(RpcError::InvalidArgument("missing entry ID".to_owned()));
        }
        let id = EntryId::new(&request.entry_id).map_err(|_| not_authorized())?;
        let found = self.entries.lookup(agent, &[id]).into_iter().next();
        let entry = found.flatten().ok_or_else(not_authorized)?;
        let spec = JwtSpec {
            id: &entry.spiffe_id,
            audience: &request.audience,
            ttl: entry.jwt_svid_ttl.unwrap_or(self.ca.default_jwt_svid_ttl),
            issuer: None,
            include_jti: entry.jwt_svid_include_jti,
        };
        let issued = self.authorities.sign_jwt(&spec)?;
        Ok(wire_jwt(&entry.spiffe_id, &issued, &entry.hint))
    }

    fn mint_x509_svid(&self, request: &MintX509svidRequest) -> Result<types::X509svid, RpcError> {
        let named = csr::parse_named(nonempty(&request.csr)?).map_err(csr_error)?;
        let id = self.minted_id(&named)?;
        let ttl = ttl(request.ttl)?.unwrap_or(self.ca.default_x509_svid_ttl);
        let spec = LeafSpec {
            id: &id,
            public_key: &named.public_key,
            dns_names: &named.dns_names,
            ttl,
            subject: (!named.subject.is_empty()).then_some(&named.subject),
        };
        let issued = self.authorities.sign_x509(&spec)?;
        tracing::info!(spiffe_id = %id, serial = issued.serial_decimal(), "X509-SVID minted");
        Ok(wire_x509(&id, issued, ""))
    }

    fn minted_id(&self, named: &NamedCsr) -> Result<SpiffeId, RpcError> {
        match named.uris.as_slice() {
            [] => Err(RpcError::InvalidArgument(
                "CSR URI SAN is required".to_owned(),
            )),
            [uri] => self.mintable(SpiffeId::parse(uri), "CSR URI SAN"),
            _ => Err(RpcError::InvalidArgument(
                "only one URI SAN is expected".to_owned(),
            )),
        }
    }

    /// A workload's ID of our own trust domain.
    fn mintable<E: std::fmt::Display>(
        &self,
        id: Result<SpiffeId, E>,
        what: &str,
    ) -> Result<SpiffeId, RpcError> {
        let invalid = |why: &dyn std::fmt::Display| {
            RpcError::InvalidArgument(format!("{what} is invalid: {why}"))
        };
        let id = id.map_err(|error| invalid(&error))?;
        if !id.is_member_of(&self.trust_domain) {
            let ours = &self.trust_domain;
            return Err(invalid(&format_args!(
                "{id} is not a member of trust domain {ours}"
            )));
        }
        if id.path().is_empty() {
            return Err(invalid(&format_args!(
                "{id} has no path, as a workload's must"
            )));
        }
        if id.path().starts_with(RESERVED_PATH) {
            return Err(invalid(&format_args!(
                "{id} is in the reserved namespace {RESERVED_PATH}"
            )));
        }
        Ok(id)
    }

    fn mint_jwt_svid(&self, request: &MintJwtsvidRequest) -> Result<types::Jwtsvid, RpcError> {
        let id = convert::spiffe_id("id", request.id.as_ref());
        let id = self.mintable(id, "SPIFFE ID")?;
        check_audience(&request.audience)?;
        let spec = JwtSpec {
            id: &id,
            audience: &request.audience,
            ttl: ttl(request.ttl)?.unwrap_or(self.ca.default_jwt_svid_ttl),
            issuer: None,
            include_jti: false,
        };
        let issued = self.authorities.sign_jwt(&spec)?;
        tracing::info!(spiffe_id = %id, "JWT-SVID minted");
        Ok(wire_jwt(&id, &issued, ""))
    }
}

#[tonic::async_trait]
impl Svid for SvidService {
    async fn batch_new_x509svid(
        &self,
        request: Request<BatchNewX509svidRequest>,
    ) -> Result<Response<BatchNewX509svidResponse>, Status> {
        let agent = Caller::agent(&request)?.clone();
        let count = request.get_ref().params.len();
        if count > MAX_BATCH {
            return Err(RpcError::ResourceExhausted(format!(
                "{count} CSRs in one call; at most {MAX_BATCH} are signed"
            ))
            .into());
        }
        limits::take(&request, Work::SignX509, count).await?;
        let signed = self.batch_new_x509_svid(&agent, request.into_inner());
        Ok(Response::new(signed.await?))
    }

    async fn new_jwtsvid(
        &self,
        request: Request<NewJwtsvidRequest>,
    ) -> Result<Response<NewJwtsvidResponse>, Status> {
        let agent = Caller::agent(&request)?;
        limits::take(&request, Work::SignJwt, 1).await?;
        let svid = self.new_jwt_svid(agent, request.get_ref())?;
        Ok(Response::new(NewJwtsvidResponse { svid: Some(svid) }))
    }

    async fn mint_x509svid(
        &self,
        request: Request<MintX509svidRequest>,
    ) -> Result<Response<MintX509svidResponse>, Status> {
        let svid = Some(self.mint_x509_svid(request.get_ref())?);
        Ok(Response::new(MintX509svidResponse { svid }))
    }

    async fn mint_jwtsvid(
        &self,
        request: Request<MintJwtsvidRequest>,
    ) -> Result<Response<MintJwtsvidResponse>, Status> {
        let svid = Some(self.mint_jwt_svid(request.get_ref())?);
        Ok(Response::new(MintJwtsvidResponse { svid }))
    }

    async fn mint_witsvid(
        &self,
        _: Request<MintWitsvidRequest>,
    ) -> Result<Response<MintWitsvidResponse>, Status> {
        Err(RpcError::Unimplemented(NO_WIT.to_owned()).into())
    }

    async fn batch_new_witsvid(
        &self,
        _: Request<BatchNewWitsvidRequest>,
    ) -> Result<Response<BatchNewWitsvidResponse>, Status> {
        Err(RpcError::Unimplemented(NO_WIT.to_owned()).into())
    }

    async fn new_downstream_x509ca(
        &self,
        _: Request<NewDownstreamX509caRequest>,
    ) -> Result<Response<NewDownstreamX509caResponse>, Status> {
        let text = "CA certificates for downstream servers are not offered yet";
        Err(RpcError::Unimplemented(text.to_owned()).into())
    }
}

fn sign_item(
    signer: &Signer,
    item: Item,
    default_ttl: Duration,
) -> Result<types::X509svid, RpcError> {
    let entry = item.entry?;
    let public_key = csr::parse(nonempty(&item.csr)?).map_err(csr_error)?;
    let spec = LeafSpec {
        id: &entry.spiffe_id,
        public_key: &public_key,
        dns_names: &entry.dns_names,
        ttl: entry.x509_svid_ttl.unwrap_or(default_ttl),
        subject: None,
    };
    let issued = signer.sign_x509(&spec)?;
    Ok(wire_x509(&entry.spiffe_id, issued, &entry.hint))
}

fn batch_result(signed: Result<types::X509svid, RpcError>) -> BatchResult {
    match signed {
        Ok(svid) => BatchResult {
            status: Some(convert::ok_status()),
            svid: Some(svid),
        },
        Err(error) => BatchResult {
            status: Some(error.item_status()),
            svid: None,
        },
    }
}

fn wire_x509(id: &SpiffeId, issued: IssuedX509, hint: &str) -> types::X509svid {
    types::X509svid {
        expires_at: convert::wire_time(issued.not_after),
        cert_chain: vec![issued.der.into()],
        id: Some(id.into()),
        hint: hint.to_owned(),
    }
}

fn wire_jwt(id: &SpiffeId, issued: &IssuedJwt, hint: &str) -> types::Jwtsvid {
    types::Jwtsvid {
        token: issued.token.to_string(),
        id: Some(id.into()),
        expires_at: convert::wire_time(issued.expires_at),
        issued_at: convert::wire_time(issued.issued_at),
        hint: hint.to_owned(),
    }
}

fn not_authorized() -> RpcError {
    RpcError::NotFound(NOT_AUTHORIZED.to_owned())
}

fn nonempty(csr: &[u8]) -> Result<&[u8], RpcError> {
    if csr.is_empty() {
        return Err(RpcError::InvalidArgument("missing CSR".to_owned()));
    }
    Ok(csr)
}

fn csr_error(error: CsrError) -> RpcError {
    RpcError::InvalidArgument(match error {
        CsrError::Signature => "failed to verify CSR signature".to_owned(),
        other => format!("malformed CSR: {other}"),
    })
}

fn check_audience(audience: &[String]) -> Result<(), RpcError> {
    if audience.is_empty() {
        let text = "at least one audience is required";
        return Err(RpcError::InvalidArgument(text.to_owned()));
    }
    Ok(())
}

fn ttl(seconds: i32) -> Result<Option<Duration>, RpcError> {
    convert::seconds("ttl", seconds).map_err(|error| RpcError::InvalidArgument(error.to_string()))
}
