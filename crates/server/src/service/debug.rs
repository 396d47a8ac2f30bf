//! spire.api.server.debug.v1

use std::sync::Arc;
use std::time::SystemTime;

use identity::X509Svid;
use proto::spire::api::server::debug::v1::debug_server::Debug;
use proto::spire::api::server::debug::v1::get_info_response::Cert;
use proto::spire::api::server::debug::v1::{GetInfoRequest, GetInfoResponse};
use runtime::Clock;
use store::{AgentFilter, EntryFilter, Store};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::rpc::RpcError;

/// Tells how the server is.
pub(crate) struct DebugService {
    pub(crate) store: Store,
    pub(crate) svid: watch::Receiver<Arc<X509Svid>>,
    pub(crate) clock: Clock,
    pub(crate) started: SystemTime,
}

impl DebugService {
    async fn info(&self) -> Result<GetInfoResponse, RpcError> {
        let agents = self.store.count_agents(&AgentFilter::default()).await?;
        let entries = self.store.count_entries(&EntryFilter::default()).await?;
        let bundles = self.store.count_bundles().await?;
        let uptime = self.clock.now().duration_since(self.started);
        let svid = Arc::clone(&self.svid.borrow());
        Ok(GetInfoResponse {
            svid_chain: svid.chain().iter().map(cert).collect(),
            uptime: saturating(uptime.unwrap_or_default().as_secs()),
            agents_count: saturating(agents),
            // All but our own.
            federated_bundles_count: saturating(bundles.saturating_sub(1)),
            entries_count: saturating(entries),
        })
    }
}

#[tonic::async_trait]
impl Debug for DebugService {
    async fn get_info(
        &self,
        _: Request<GetInfoRequest>,
    ) -> Result<Response<GetInfoResponse>, Status> {
        Ok(Response::new(self.info().await?))
    }
}

fn cert(certificate: &identity::Certificate) -> Cert {
    Cert {
        id: certificate.spiffe_id().map(Into::into),
        expires_at: proto::convert::wire_time(certificate.not_after()),
        subject: certificate.subject(),
    }
}

fn saturating(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
