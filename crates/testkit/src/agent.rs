//! An agent in process, attested to a [`TestServer`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::{Agent, BuildError, Config, Overrides};
use identity::{EntryId, Selectors, SpiffeId};
use proto::spire::api::server::agent::v1::CreateJoinTokenRequest;
use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::server::entry::v1::BatchCreateEntryRequest;
use proto::spire::api::server::entry::v1::BatchDeleteEntryRequest;
use proto::spire::api::server::entry::v1::BatchUpdateEntryRequest;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::types;
use runtime::{Clock, Readiness, RunError, Supervisor, Tasks};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::client::local_channel;
use crate::server::TestServer;

/// How long an agent under test may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// An agent in process. Dropped, it goes on until the test's runtime ends.
#[derive(Debug)]
pub struct TestAgent {
    socket: PathBuf,
    prometheus: Option<SocketAddr>,
    readiness: Readiness,
    supervisor: Supervisor,
    tasks: Tasks,
    dir: TempDir,
}

impl TestAgent {
    /// An agent of `server`, attested with a join token for `spiffe://<trust domain>/node`.
    pub async fn start(server: &TestServer) -> Self {
        let dir = TempDir::new().expect("a temporary folder must be had");
        let config = Self::config(server, &dir, Some(server.join_token("/node").await));
        Self::start_with(config, dir)
            .await
            .unwrap_or_else(|error| panic!("the agent cannot start: {error}"))
    }

    /// An agent with this configuration, in a folder where one may have been before.
    ///
    /// # Errors
    /// What [`Agent::build`] says.
    pub async fn start_with(config: Config, dir: TempDir) -> Result<Self, BuildError> {
        let (supervisor, tasks) = Supervisor::new();
        let agent = Agent::build(config, Clock::system()).await?;
        let socket = agent.socket_path().to_owned();
        let prometheus = agent.prometheus_address();
        let readiness = agent.readiness().clone();
        agent.run(&tasks)?;
        Ok(Self {
            socket,
            prometheus,
            readiness,
            supervisor,
            tasks,
            dir,
        })
    }

    /// The configuration an agent under test starts from: all files in `dir`, the server known by the bundle in its folder.
    pub fn config(server: &TestServer, dir: &TempDir, join_token: Option<String>) -> Config {
        Self::config_in(server, dir.path(), join_token)
    }

    /// As [`TestAgent::config`], in the folder of an agent that runs.
    pub fn config_in(server: &TestServer, dir: &Path, join_token: Option<String>) -> Config {
        let address = server.addresses().tcp;
        let text = format!(
            r#"
            agent {{
                trust_domain = "example.org"
                server_address = "{}"
                server_port = {}
                insecure_bootstrap = true
                experimental {{
                    sync_interval = "200ms"
                }}
            }}
            plugins {{
                NodeAttestor "join_token" {{
                    plugin_data {{}}
                }}
                KeyManager "disk" {{
                    plugin_data {{}}
                }}
                WorkloadAttestor "unix" {{
                    plugin_data {{}}
                }}
            }}
            "#,
            address.ip(),
            address.port()
        );
        let overrides = Overrides {
            data_dir: Some(dir.join("data")),
            socket_path: Some(dir.join("public/api.sock")),
            join_token: join_token.map(agent::config::JoinToken::new),
            ..Overrides::default()
        };
        Config::parse(&text, None, overrides)
            .unwrap_or_else(|problems| panic!("the test's configuration is wrong: {problems}"))
    }

    /// The public socket.
    pub const fn socket(&self) -> &PathBuf {
        &self.socket
    }

    /// The folder of all its files.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// A channel over the public socket.
    pub fn channel(&self) -> Channel {
        local_channel(&self.socket)
    }

    /// Where Prometheus may fetch figures.
    pub const fn prometheus(&self) -> Option<SocketAddr> {
        self.prometheus
    }

    /// Whether the agent is ready, and why not.
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Ends the agent in order and gives its folder back.
    pub async fn stop(self) -> TempDir {
        self.tasks.stop();
        let (dir, ended) = self.ended().await;
        ended.expect("the agent must end in order");
        dir
    }

    /// Waits for the agent to end by itself; gives its folder back, and tells why it ended.
    pub async fn ended(self) -> (TempDir, Result<(), RunError>) {
        let ended = self.supervisor.run(GRACE).await;
        (self.dir, ended)
    }
}

impl TestServer {
    /// A join token; the agent is then also known as `path`.
    pub async fn join_token(&self, path: &str) -> String {
        let request = CreateJoinTokenRequest {
            ttl: 600,
            agent_id: Some(types::Spiffeid::from(&self.id(path))),
            ..CreateJoinTokenRequest::default()
        };
        let mut client = AgentClient::new(self.local());
        let answer = client.create_join_token(request).await;
        let answer = answer.expect("a join token must be had");
        answer.into_inner().value
    }

    /// Makes an entry under `parent`.
    pub async fn entry(
        &self,
        parent: &SpiffeId,
        path: &str,
        selectors: &Selectors,
        x509_svid_ttl: i32,
    ) -> EntryId {
        let entry = types::Entry {
            parent_id: Some(parent.into()),
            spiffe_id: Some((&self.id(path)).into()),
            selectors: proto::convert::wire_selectors(selectors),
            x509_svid_ttl,
            ..types::Entry::default()
        };
        let request = BatchCreateEntryRequest {
            entries: vec![entry],
            output_mask: None,
        };
        let mut client = EntryClient::new(self.local());
        let results = client
            .batch_create_entry(request)
            .await
            .expect("the call must pass")
            .into_inner()
            .results;
        let entry = results.into_iter().next().and_then(|one| one.entry);
        EntryId::new(&entry.expect("an entry must come of it").id).expect("an ID must be one")
    }

    /// Gives an entry to another SPIFFE ID, its selectors as they are.
    pub async fn rename_entry(&self, id: &EntryId, path: &str) {
        let entry = types::Entry {
            id: id.to_string(),
            spiffe_id: Some((&self.id(path)).into()),
            ..types::Entry::default()
        };
        let request = BatchUpdateEntryRequest {
            entries: vec![entry],
            input_mask: Some(types::EntryMask {
                spiffe_id: true,
                ..types::EntryMask::default()
            }),
            output_mask: None,
        };
        let mut client = EntryClient::new(self.local());
        let answer = client.batch_update_entry(request).await;
        let results = answer.expect("the call must pass").into_inner().results;
        assert!(results.iter().all(|one| one.entry.is_some()), "{results:?}");
    }

    /// Deletes an entry.
    pub async fn delete_entry(&self, id: &EntryId) {
        let request = BatchDeleteEntryRequest {
            ids: vec![id.to_string()],
        };
        let mut client = EntryClient::new(self.local());
        let answer = client.batch_delete_entry(request).await;
        answer.expect("the call must pass");
    }
}
