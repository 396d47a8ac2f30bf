//! `entry show` and `entry count`.

use anyhow::{Context, Result, bail};
use identity::{EntryId, Selector, SpiffeId, TrustDomain};
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{
    CountEntriesRequest, GetEntryRequest, ListEntriesRequest, ListEntriesResponse,
    count_entries_request, list_entries_request,
};
use proto::spire::api::types;
use tonic::transport::Channel;

use super::text;
use crate::client::{MAX_ANSWER, Match, PAGE, refused, wire_id};
use crate::output::Output;
use crate::socket::ServerSocket;

/// Which entries: all conditions must hold.
#[derive(clap::Args, Debug)]
struct Filter {
    /// The entries' parent ID
    #[arg(long = "parentID", value_name = "ID")]
    parent_id: Option<SpiffeId>,
    /// The entries' SPIFFE ID
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    /// A selector of the entries, `type:value`; may be given again
    #[arg(long = "selector", value_name = "SELECTOR")]
    selectors: Vec<Selector>,
    /// How the entries' selectors compare with the given ones
    #[arg(
        long = "matchSelectorsOn",
        value_name = "HOW",
        value_enum,
        default_value = "superset"
    )]
    match_selectors: Match,
    /// A trust domain the entries federate with; may be given again
    #[arg(long = "federatesWith", value_name = "TRUST DOMAIN")]
    federates_with: Vec<TrustDomain>,
    /// How the entries' trust domains compare with the given ones
    #[arg(
        long = "matchFederatesWithOn",
        value_name = "HOW",
        value_enum,
        default_value = "superset"
    )]
    match_federates_with: Match,
    /// Only entries of downstream servers
    #[arg(long = "downstream")]
    downstream: bool,
    /// The entries' hint
    #[arg(long = "hint", value_name = "TEXT")]
    hint: Option<String>,
}

/// `entry show`
#[derive(clap::Args, Debug)]
pub(crate) struct Show {
    /// The one entry with this ID
    #[arg(long = "entryID", value_name = "ID", value_parser = EntryId::new)]
    entry_id: Option<EntryId>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

/// `entry count`
#[derive(clap::Args, Debug)]
pub(crate) struct Count {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

impl Show {
    pub(super) async fn run(self) -> Result<()> {
        if self.entry_id.is_some() && !self.filter.is_empty() {
            bail!("the -entryID flag can't be combined with others");
        }
        let channel = self.socket.connect().await?;
        let mut client = EntryClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let entries = match &self.entry_id {
            Some(id) => vec![by_id(&mut client, id).await?],
            None => all(&mut client, self.filter.listing()).await?,
        };
        let list = ListEntriesResponse {
            entries,
            next_page_token: String::new(),
        };
        self.output.print(&list, text::listed)
    }
}

impl Count {
    pub(super) async fn run(self) -> Result<()> {
        let request = CountEntriesRequest {
            filter: Some(self.filter.counting()),
        };
        let count = EntryClient::new(self.socket.connect().await?)
            .count_entries(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        self.output.print(&count, text::numbered)
    }
}

impl Filter {
    const fn is_empty(&self) -> bool {
        let Self {
            parent_id,
            spiffe_id,
            selectors,
            match_selectors: _,
            federates_with,
            match_federates_with: _,
            downstream,
            hint,
        } = self;
        parent_id.is_none()
            && spiffe_id.is_none()
            && selectors.is_empty()
            && federates_with.is_empty()
            && !*downstream
            && hint.is_none()
    }

    fn listing(&self) -> list_entries_request::Filter {
        list_entries_request::Filter {
            by_spiffe_id: self.spiffe_id.as_ref().map(wire_id),
            by_parent_id: self.parent_id.as_ref().map(wire_id),
            by_selectors: self.match_selectors.selectors(&self.selectors),
            by_federates_with: self
                .match_federates_with
                .federates_with(&self.federates_with),
            by_hint: self.hint.clone(),
            by_downstream: self.downstream.then_some(true),
        }
    }

    fn counting(&self) -> count_entries_request::Filter {
        let list_entries_request::Filter {
            by_spiffe_id,
            by_parent_id,
            by_selectors,
            by_federates_with,
            by_hint,
            by_downstream,
        } = self.listing();
        count_entries_request::Filter {
            by_spiffe_id,
            by_parent_id,
            by_selectors,
            by_federates_with,
            by_hint,
            by_downstream,
        }
    }
}

async fn by_id(client: &mut EntryClient<Channel>, id: &EntryId) -> Result<types::Entry> {
    let request = GetEntryRequest {
        id: id.to_string(),
        output_mask: None,
    };
    let entry = client.get_entry(request).await;
    entry
        .map(tonic::Response::into_inner)
        .map_err(|status| refused(&status))
        .with_context(|| format!("error fetching entry ID {id}"))
}

/// All pages, sorted as SPIRE shows them.
async fn all(
    client: &mut EntryClient<Channel>,
    filter: list_entries_request::Filter,
) -> Result<Vec<types::Entry>> {
    let mut entries = Vec::new();
    let mut request = ListEntriesRequest {
        filter: Some(filter),
        output_mask: None,
        page_size: i32::try_from(PAGE).unwrap_or(i32::MAX),
        page_token: String::new(),
    };
    loop {
        let page = client.list_entries(request.clone()).await;
        let page = page
            .map_err(|status| refused(&status))
            .context("error fetching entries")?
            .into_inner();
        entries.extend(page.entries);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    entries.sort_by_cached_key(order);
    Ok(entries)
}

fn order(entry: &types::Entry) -> impl Ord + use<> {
    let id = |id: &Option<types::Spiffeid>| {
        id.clone()
            .map(|id| (id.trust_domain, id.path))
            .unwrap_or_default()
    };
    let mut selectors: Vec<_> = entry
        .selectors
        .iter()
        .map(|selector| (selector.r#type.clone(), selector.value.clone()))
        .collect();
    selectors.sort();
    (
        id(&entry.spiffe_id),
        id(&entry.parent_id),
        selectors,
        entry.id.clone(),
    )
}
