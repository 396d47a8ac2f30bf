//! `entry create`, `entry update` and `entry delete`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use identity::{EntryId, Selector, SpiffeId, TrustDomain};
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchCreateEntryResponse, BatchDeleteEntryRequest,
    BatchDeleteEntryResponse, BatchUpdateEntryRequest, BatchUpdateEntryResponse,
};
use proto::spire::api::types;

use super::{data, text};
use crate::client::{MAX_ANSWER, PAGE, refused, required, wire_id};
use crate::output::Output;
use crate::socket::ServerSocket;

/// Below this parent stand the entries that apply to nodes.
const SERVER_PATH: &str = "/spire/server";

/// An entry, field by field.
#[derive(clap::Args, Debug)]
struct Fields {
    /// The entry's ID; the server chooses one for a new entry without
    #[arg(long = "entryID", value_name = "ID", value_parser = EntryId::new)]
    entry_id: Option<EntryId>,
    /// The agent, node alias or server under which the entry is issued
    #[arg(long = "parentID", value_name = "ID")]
    parent_id: Option<SpiffeId>,
    /// Whom the workload becomes
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    /// What the workload must match, `type:value`; may be given again, all must match
    #[arg(long = "selector", value_name = "SELECTOR")]
    selectors: Vec<Selector>,
    /// Lifetime of X.509-SVIDs in seconds [default: the server's]
    #[arg(long = "x509SVIDTTL", value_name = "SECONDS", value_parser = clap::value_parser!(i32).range(0..))]
    x509_svid_ttl: Option<i32>,
    /// Lifetime of JWT-SVIDs in seconds [default: the server's]
    #[arg(long = "jwtSVIDTTL", value_name = "SECONDS", value_parser = clap::value_parser!(i32).range(0..))]
    jwt_svid_ttl: Option<i32>,
    /// Both lifetimes, as older guides have it
    #[arg(long = "ttl", value_name = "SECONDS", hide = true, conflicts_with_all = ["x509_svid_ttl", "jwt_svid_ttl"],
          value_parser = clap::value_parser!(i32).range(0..))]
    ttl: Option<i32>,
    /// A foreign trust domain whose bundle the workload receives; may be given again
    #[arg(long = "federatesWith", value_name = "TRUST DOMAIN")]
    federates_with: Vec<TrustDomain>,
    /// The SVID may call the server's admin methods
    #[arg(long = "admin")]
    admin: bool,
    /// The SVID may ask for a downstream CA
    #[arg(long = "downstream")]
    downstream: bool,
    /// The SVID goes to a secret store
    #[arg(long = "storeSVID")]
    store_svid: bool,
    /// A DNS name in the X.509-SVID; may be given again, the first is also the common name
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<String>,
    /// When the entry is pruned, in unix seconds
    #[arg(long = "entryExpiry", value_name = "UNIX SECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    entry_expiry: Option<i64>,
    /// Tells this identity from the workload's others
    #[arg(long = "hint", value_name = "TEXT")]
    hint: Option<String>,
    /// The X.509-SVID is made only when a workload asks
    #[arg(long = "disableX509SVIDPrefetch")]
    disable_x509_svid_prefetch: bool,
    /// JWT-SVIDs carry a `jti` claim
    #[arg(long = "jwtSVIDIncludeJTI")]
    jwt_svid_include_jti: bool,
    /// A file of entries in JSON, or - for standard input; other fields are then left out
    #[arg(long = "data", value_name = "FILE")]
    data: Option<PathBuf>,
}

/// `entry create`
#[derive(clap::Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    fields: Fields,
    /// The entry applies to nodes: a node alias
    #[arg(long = "node")]
    node: bool,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

/// `entry update`
#[derive(clap::Args, Debug)]
pub(crate) struct Update {
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

/// `entry delete`
#[derive(clap::Args, Debug)]
pub(crate) struct Delete {
    /// The entry's ID
    #[arg(long = "entryID", value_name = "ID", value_parser = EntryId::new, conflicts_with = "file")]
    entry_id: Option<EntryId>,
    /// A file with a JSON array of entry IDs, or - for standard input
    #[arg(long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

impl Create {
    pub(super) async fn run(self) -> Result<()> {
        let entries = match &self.fields.data {
            Some(path) => data::entries(path)?,
            None => vec![self.entry()?],
        };
        let channel = self.socket.connect().await?;
        let mut client = EntryClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let mut answer = BatchCreateEntryResponse::default();
        for page in entries.chunks(PAGE) {
            let request = BatchCreateEntryRequest {
                entries: page.to_vec(),
                output_mask: None,
            };
            let created = client.batch_create_entry(request).await;
            let created = created.map_err(|status| refused(&status))?.into_inner();
            answer.results.extend(created.results);
        }
        let mut failed = false;
        for (result, entry) in answer.results.iter_mut().zip(entries) {
            if !text::succeeded(result.status.as_ref()) {
                failed = true;
                // What was wanted and is not there; not the similar entry that the server may have sent.
                result.entry = Some(entry);
            }
        }
        self.output.print(&answer, text::created)?;
        if failed {
            bail!("failed to create one or more entries");
        }
        Ok(())
    }

    /// The entry that the flags describe.
    pub(super) fn entry(&self) -> Result<types::Entry> {
        self.fields.entry(self.node)
    }
}

impl Update {
    pub(super) async fn run(self) -> Result<()> {
        let entries = match &self.fields.data {
            Some(path) => data::entries(path)?,
            None => {
                required(&self.fields.entry_id, "entry ID is required")?;
                vec![self.fields.entry(false)?]
            }
        };
        if entries.iter().any(|entry| entry.id.is_empty()) {
            bail!("entry ID is required: each entry to update needs its `entry_id`");
        }
        let channel = self.socket.connect().await?;
        let mut client = EntryClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let mut answer = BatchUpdateEntryResponse::default();
        for page in entries.chunks(PAGE) {
            let request = BatchUpdateEntryRequest {
                entries: page.to_vec(),
                input_mask: None,
                output_mask: None,
            };
            let updated = client.batch_update_entry(request).await;
            let updated = updated.map_err(|status| refused(&status))?.into_inner();
            answer.results.extend(updated.results);
        }
        let mut failed = false;
        for (result, entry) in answer.results.iter_mut().zip(entries) {
            if !text::succeeded(result.status.as_ref()) {
                failed = true;
                result.entry = Some(entry);
            }
        }
        self.output.print(&answer, text::updated)?;
        if failed {
            bail!("failed to update one or more entries");
        }
        Ok(())
    }
}

impl Delete {
    pub(super) async fn run(self) -> Result<()> {
        let ids = match (&self.entry_id, &self.file) {
            (Some(id), _) => vec![id.clone()],
            (None, Some(file)) => data::ids(file)?,
            (None, None) => bail!("an entry ID is required: give -entryID, or -file"),
        };
        let mut client = EntryClient::new(self.socket.connect().await?);
        let mut answer = BatchDeleteEntryResponse::default();
        for page in ids.chunks(PAGE) {
            let request = BatchDeleteEntryRequest {
                ids: page.iter().map(EntryId::to_string).collect(),
            };
            let deleted = client.batch_delete_entry(request).await;
            let deleted = deleted.map_err(|status| refused(&status))?.into_inner();
            answer.results.extend(deleted.results);
        }
        self.output.print(&answer, text::deleted)?;
        let mut results = answer.results.iter();
        if !results.all(|result| text::succeeded(result.status.as_ref())) {
            bail!("failed to delete one or more entries");
        }
        Ok(())
    }
}

impl Fields {
    /// The entry that the flags describe.
    fn entry(&self, node: bool) -> Result<types::Entry> {
        if self.selectors.is_empty() {
            bail!("at least one selector is required");
        }
        if node && !self.federates_with.is_empty() {
            bail!("node entries can not federate");
        }
        let spiffe_id = required(&self.spiffe_id, "a SPIFFE ID is required")?;
        let parent_id = match &self.parent_id {
            _ if node => SpiffeId::new(spiffe_id.trust_domain(), SERVER_PATH)?,
            Some(parent_id) => parent_id.clone(),
            None => bail!("a parent ID is required if the node flag is not set"),
        };
        let attributes = types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: self.disable_x509_svid_prefetch,
            jwt_svid_include_jti: self.jwt_svid_include_jti,
        };
        Ok(types::Entry {
            id: self
                .entry_id
                .as_ref()
                .map(EntryId::to_string)
                .unwrap_or_default(),
            spiffe_id: Some(wire_id(spiffe_id)),
            parent_id: Some(wire_id(&parent_id)),
            selectors: self.selectors.iter().map(Into::into).collect(),
            x509_svid_ttl: self.x509_svid_ttl.or(self.ttl).unwrap_or(0),
            jwt_svid_ttl: self.jwt_svid_ttl.or(self.ttl).unwrap_or(0),
            federates_with: self
                .federates_with
                .iter()
                .map(TrustDomain::to_string)
                .collect(),
            admin: self.admin,
            downstream: self.downstream,
            expires_at: self.entry_expiry.unwrap_or(0),
            dns_names: self.dns_names.clone(),
            store_svid: self.store_svid,
            hint: self.hint.clone().unwrap_or_default(),
            additional_attributes: (attributes != Default::default()).then_some(attributes),
            ..Default::default()
        })
    }
}
