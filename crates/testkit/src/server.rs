//! A server in process, in a folder of its own, under a trust domain of its own.

use std::sync::Arc;
use std::time::Duration;

use identity::{Bundle, Certificate, KeyType, PrivateKey, SpiffeId, TrustDomain, X509Svid};
use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::server::agent::v1::{
    AttestAgentRequest, CreateJoinTokenRequest, attest_agent_request, attest_agent_response,
};
use proto::spire::api::server::bundle::v1::GetBundleRequest;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::svid::v1::MintX509svidRequest;
use proto::spire::api::server::svid::v1::svid_client::SvidClient;
use proto::spire::api::types;
use runtime::log::{Level, Log};
use runtime::{Clock, Supervisor, Tasks};
use server::{Addresses, Config, Overrides, Server};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::client::{Tls, local_channel, remote_channel};

/// How long a server under test may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// A server in process. Dropped, it goes on until the test's runtime ends; [`TestServer::stop`] ends it in order.
#[derive(Debug)]
pub struct TestServer {
    addresses: Addresses,
    trust_domain: TrustDomain,
    supervisor: Supervisor,
    tasks: Tasks,
    dir: TempDir,
}

impl TestServer {
    /// A server for `example.org` with everything at its default.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A server whose configuration `change` may change.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new().expect("a temporary folder must be had");
        Self::start_in(dir, change).await
    }

    /// A server in a folder where one may have been before.
    pub async fn start_in(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Self::config(&dir);
        change(&mut config);
        let trust_domain = config.trust_domain.clone();
        let (supervisor, tasks) = Supervisor::new();
        let server = Server::build(config, Clock::system(), Log::detached(Level::Info))
            .await
            .unwrap_or_else(|error| panic!("the server cannot start: {error}"));
        let addresses = server.addresses().clone();
        server.run(&tasks);
        Self {
            addresses,
            trust_domain,
            supervisor,
            tasks,
            dir,
        }
    }

    /// The configuration a server under test starts from: any port, all files in `dir`, join tokens.
    pub fn config(dir: &TempDir) -> Config {
        let text = r#"
            server {
                trust_domain = "example.org"
                bind_address = "127.0.0.1"
                ratelimit {
                    attestation = false
                }
            }
            plugins {
                NodeAttestor "join_token" {
                    plugin_data {}
                }
            }
        "#;
        let overrides = Overrides {
            bind_port: Some(0),
            data_dir: Some(dir.path().join("data")),
            socket_path: Some(dir.path().join("private/api.sock")),
            ..Overrides::default()
        };
        Config::parse(text, None, overrides)
            .unwrap_or_else(|problems| panic!("the test's configuration is wrong: {problems}"))
    }

    /// Where it listens.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The folder of all its files.
    pub const fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// An ID in its trust domain.
    pub fn id(&self, path: &str) -> SpiffeId {
        SpiffeId::new(&self.trust_domain, path).expect("the path must be one")
    }

    /// A channel over the private socket.
    pub fn local(&self) -> Channel {
        local_channel(&self.addresses.socket)
    }

    /// A channel over TCP, showing `svid`.
    pub async fn remote(&self, svid: Option<X509Svid>) -> Channel {
        remote_channel(self.addresses.tcp, &self.tls(svid).await)
    }

    /// How a client of this server goes about TLS.
    pub async fn tls(&self, svid: Option<X509Svid>) -> Tls {
        Tls::new(Arc::new(self.bundle().await), svid)
    }

    /// The bundle, as the server tells it.
    pub async fn bundle(&self) -> Bundle {
        let answer = BundleClient::new(self.local())
            .get_bundle(GetBundleRequest::default())
            .await
            .expect("the bundle must be had");
        proto::convert::bundle(&answer.into_inner()).expect("the bundle must be one")
    }

    /// An SVID for any ID, minted by the server.
    pub async fn mint(&self, id: &SpiffeId) -> X509Svid {
        let key = PrivateKey::generate(KeyType::EcP256).expect("a key must be had");
        let csr = key.csr(Some(id), &[]).expect("a CSR must be had");
        let request = MintX509svidRequest {
            csr: csr.into(),
            ttl: 3600,
        };
        let answer = SvidClient::new(self.local())
            .mint_x509svid(request)
            .await
            .unwrap_or_else(|status| panic!("cannot mint an SVID for {id}: {status}"));
        svid(answer.into_inner().svid, key)
    }

    /// An agent's SVID, attested with a join token.
    pub async fn attest(&self) -> X509Svid {
        let token = AgentClient::new(self.local())
            .create_join_token(CreateJoinTokenRequest {
                ttl: 60,
                ..CreateJoinTokenRequest::default()
            })
            .await
            .expect("a join token must be had")
            .into_inner()
            .value;
        let channel = self.remote(None).await;
        attest_with(channel, &token)
            .await
            .expect("the token must be good")
    }

    /// Ends the server in order and gives its folder back.
    pub async fn stop(self) -> TempDir {
        self.tasks.stop();
        self.supervisor
            .run(GRACE)
            .await
            .expect("the server must end in order");
        self.dir
    }
}

/// Attests with a join token.
///
/// # Errors
/// What the server answers.
pub async fn attest_with(channel: Channel, token: &str) -> Result<X509Svid, tonic::Status> {
    let key = PrivateKey::generate(KeyType::EcP256).expect("a key must be had");
    let csr = key.csr(None, &[]).expect("a CSR must be had");
    let params = attest_agent_request::Params {
        data: Some(types::AttestationData {
            r#type: "join_token".into(),
            payload: token.to_owned().into(),
        }),
        params: Some(proto::spire::api::server::agent::v1::AgentX509svidParams { csr: csr.into() }),
    };
    let request = AttestAgentRequest {
        step: Some(attest_agent_request::Step::Params(params)),
    };
    let mut answers = AgentClient::new(channel)
        .attest_agent(tokio_stream::once(request))
        .await?
        .into_inner();
    let answer = answers.message().await?;
    let step = answer.and_then(|answer| answer.step);
    match step {
        Some(attest_agent_response::Step::Result(result)) => Ok(svid(result.svid, key)),
        other => panic!("a result must come, not {other:?}"),
    }
}

fn svid(answer: Option<types::X509svid>, key: PrivateKey) -> X509Svid {
    let chain = answer.expect("an SVID must be in the answer").cert_chain;
    let chain = chain.iter().map(|der| Certificate::from_der(der));
    let chain = chain.collect::<Result<_, _>>().expect("a chain must come");
    X509Svid::new(chain, key).expect("the SVID must keep the rules")
}
