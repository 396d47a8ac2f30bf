//! The limits of rows b and k: the calls that nobody can do without, made by a client that does nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use identity::{KeyType, PrivateKey, X509Svid};
use proto::spire::api::server::bundle::v1::GetBundleRequest;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{BatchCreateEntryRequest, GetAuthorizedEntriesRequest};
use proto::spire::api::server::svid::v1::svid_client::SvidClient;
use proto::spire::api::server::svid::v1::{BatchNewX509svidRequest, NewX509svidParams};
use proto::spire::api::types;
use testkit::{Tls, attest_with, local_channel, remote_channel};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::Domain;

/// Reads a join token off what `token generate` prints.
pub(super) fn token(printed: &str) -> Result<String> {
    let line = printed.lines().next();
    let token = line.and_then(|line| line.strip_prefix("Token: "));
    Ok(token
        .context("`token generate` prints `Token: …`")?
        .to_owned())
}

/// A client that knows the server's bundle.
pub(super) struct Bare {
    tls: Tls,
    address: SocketAddr,
    local: Channel,
}

impl Bare {
    pub(super) async fn new(domain: &Domain) -> Result<Self> {
        let local = local_channel(&domain.server_socket());
        let answer = BundleClient::new(local.clone())
            .get_bundle(GetBundleRequest::default())
            .await?;
        let bundle = proto::convert::bundle(&answer.into_inner())?;
        Ok(Self {
            tls: Tls::new(Arc::new(bundle), None),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, domain.server_port())),
            local,
        })
    }

    /// Attests, connects as the agent it has become, and has one SVID issued; in milliseconds.
    pub(super) async fn first_svid(&self, token: &str) -> Result<f64> {
        let started = Instant::now();
        let agent = self.attest(token).await?;
        let attested = started.elapsed();
        let entry = self.an_entry(&agent).await?;
        let started = Instant::now();
        issue(&self.channel(&agent), entry).await?;
        Ok((attested + started.elapsed()).as_secs_f64() * 1e3)
    }

    /// An agent's SVID.
    pub(super) async fn attest(&self, token: &str) -> Result<X509Svid> {
        Ok(attest_with(remote_channel(self.address, &self.tls), token).await?)
    }

    /// A connection as this agent.
    pub(super) fn channel(&self, agent: &X509Svid) -> Channel {
        let tls = Tls {
            svid: Some(agent.clone()),
            ..self.tls.clone()
        };
        remote_channel(self.address, &tls)
    }

    /// The ID of any entry of the agent's.
    async fn an_entry(&self, agent: &X509Svid) -> Result<String> {
        let entries = authorized(&self.channel(agent)).await?;
        Ok(entries.into_iter().next().context("an entry")?.id)
    }

    /// Has an entry created, asks for it as its agent, and has its SVID issued; in milliseconds.
    pub(super) async fn entry_to_svid(
        &self,
        agent: &X509Svid,
        channel: &Channel,
        number: usize,
    ) -> Result<f64> {
        let id = format!("bare-{number}");
        let entry = types::Entry {
            id: id.clone(),
            spiffe_id: Some(types::Spiffeid {
                trust_domain: agent.id().trust_domain().as_str().to_owned(),
                path: format!("/bare/{number}"),
            }),
            parent_id: Some(types::Spiffeid::from(agent.id())),
            selectors: vec![types::Selector {
                r#type: "unix".to_owned(),
                value: "uid:1000".to_owned(),
            }],
            ..types::Entry::default()
        };
        let request = BatchCreateEntryRequest {
            entries: vec![entry],
            output_mask: None,
        };
        let started = Instant::now();
        EntryClient::new(self.local.clone())
            .batch_create_entry(request)
            .await?;
        let told = authorized(channel).await?;
        ensure!(
            told.iter().any(|entry| entry.id == id),
            "the entry is there"
        );
        issue(channel, id).await?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }
}

async fn authorized(channel: &Channel) -> Result<Vec<types::Entry>> {
    let request = GetAuthorizedEntriesRequest { output_mask: None };
    let answer = EntryClient::new(channel.clone())
        .max_decoding_message_size(64 << 20)
        .get_authorized_entries(request)
        .await?;
    Ok(answer.into_inner().entries)
}

/// Makes a key and has one SVID issued.
async fn issue(channel: &Channel, entry_id: String) -> Result<()> {
    let key = PrivateKey::generate(KeyType::EcP256)?;
    let csr = Bytes::from(key.csr(None, &[])?);
    let request = BatchNewX509svidRequest {
        params: vec![NewX509svidParams { entry_id, csr }],
    };
    let answer = SvidClient::new(channel.clone())
        .batch_new_x509svid(request)
        .await?;
    let results = answer.into_inner().results;
    ensure!(
        results.iter().any(|one| one.svid.is_some()),
        "the SVID was refused: {results:?}"
    );
    Ok(())
}
