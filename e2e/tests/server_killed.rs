//! E5: `kill -9` of the server at random points, 100 times, under writes of entries and attestations. Whatever was
//! acknowledged is there in the end, whatever was deleted stays away, no token is good twice, and the agent recovers alone.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{Domain, Settings, wait};
use identity::Bundle;
use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::server::agent::v1::{CreateJoinTokenRequest, ListAgentsRequest};
use proto::spire::api::server::bundle::v1::GetBundleRequest;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, CountEntriesRequest, ListEntriesRequest,
};
use proto::spire::api::types;
use tokio::task::JoinSet;
use tokio::time::sleep;

const KILLS: u64 = 100;

/// What the server said it has done.
#[derive(Default)]
struct Ledger {
    created: BTreeSet<String>,
    deleted: BTreeSet<String>,
    /// Tokens that admitted an agent.
    used: BTreeSet<String>,
}

struct World {
    socket: PathBuf,
    address: SocketAddr,
    ledger: Mutex<Ledger>,
    over: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e5_no_acknowledged_write_is_lost() -> Result<()> {
    let mut domain = Domain::new(Settings {
        server_extra: "ratelimit { attestation = false }".to_owned(),
        ..Settings::default()
    })?;
    domain.start_server().await?;
    domain.start_agent_with_token().await?;
    let world = Arc::new(World {
        socket: domain.server_socket(),
        address: (Ipv4Addr::LOCALHOST, domain.server_port()).into(),
        ledger: Mutex::default(),
        over: AtomicBool::new(false),
    });
    let mut writers = JoinSet::new();
    for number in 0..3 {
        writers.spawn(write_entries(Arc::clone(&world), number));
    }
    writers.spawn(attest_agents(
        Arc::clone(&world),
        bundle(&world.socket).await?,
    ));

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..KILLS {
        // Now and then before it is up.
        if random.below(4) > 0 {
            domain.server()?.check_running()?;
            answering(&world.socket).await?;
        }
        sleep(Duration::from_millis(random.below(120))).await;
        domain.server()?.kill().await?;
        domain.spawn_server()?;
    }
    domain.healthy("server").await?;
    world.over.store(true, Ordering::Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended?;
    }
    check_entries(&world).await?;
    check_agents(&world).await?;
    check_own_agent(&mut domain).await
}

/// Waits until the server answers.
async fn answering(socket: &Path) -> Result<()> {
    let client = EntryClient::new(testkit::local_channel(socket));
    let answer = wait::until("the server to answer", || async {
        let count = client
            .clone()
            .count_entries(CountEntriesRequest::default())
            .await?;
        Ok(Some(count.into_inner().count))
    });
    answer.await.map(drop)
}

/// Creates batches of entries and deletes some again, until it is over.
async fn write_entries(world: Arc<World>, writer: u64) {
    let mut client = EntryClient::new(testkit::local_channel(&world.socket));
    let mut random = Random(writer + 1);
    let mut number = 0;
    while !world.over.load(Ordering::Relaxed) {
        let ids: Vec<String> = (0..=random.below(20))
            .map(|item| format!("w{writer}-{number}-{item}"))
            .collect();
        number += 1;
        let request = BatchCreateEntryRequest {
            entries: ids.iter().map(|id| entry(id)).collect(),
            output_mask: Some(types::EntryMask::default()),
        };
        if client.batch_create_entry(request).await.is_err() {
            sleep(Duration::from_millis(5)).await;
            continue;
        }
        let (gone, kept) = ids.split_at(ids.len() / 3);
        world.ledger().created.extend(kept.iter().cloned());
        let request = BatchDeleteEntryRequest { ids: gone.to_vec() };
        if client.batch_delete_entry(request).await.is_ok() {
            world.ledger().deleted.extend(gone.iter().cloned());
        }
    }
}

/// Makes tokens and has agents attest with them, until it is over.
async fn attest_agents(world: Arc<World>, bundle: Arc<Bundle>) {
    let mut operator = AgentClient::new(testkit::local_channel(&world.socket));
    let mut number = 0;
    while !world.over.load(Ordering::Relaxed) {
        number += 1;
        let token = format!("token-{number}");
        let request = CreateJoinTokenRequest {
            ttl: 600,
            token: token.clone(),
            agent_id: None,
        };
        if operator.create_join_token(request).await.is_err() {
            sleep(Duration::from_millis(5)).await;
            continue;
        }
        let channel =
            testkit::remote_channel(world.address, &testkit::Tls::new(Arc::clone(&bundle), None));
        if testkit::attest_with(channel, &token).await.is_ok() {
            world.ledger().used.insert(token);
        }
    }
}

impl World {
    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no writer may have panicked")
    }
}

fn entry(id: &str) -> types::Entry {
    let of = |path: String| {
        Some(types::Spiffeid {
            trust_domain: "example.org".to_owned(),
            path,
        })
    };
    types::Entry {
        id: id.to_owned(),
        spiffe_id: of(format!("/{id}")),
        parent_id: of("/somewhere".to_owned()),
        selectors: vec![types::Selector {
            r#type: "unix".to_owned(),
            value: "uid:1".to_owned(),
        }],
        ..types::Entry::default()
    }
}

async fn bundle(socket: &Path) -> Result<Arc<Bundle>> {
    let mut client = BundleClient::new(testkit::local_channel(socket));
    let answer = client.get_bundle(GetBundleRequest::default()).await?;
    Ok(Arc::new(proto::convert::bundle(&answer.into_inner())?))
}

async fn check_entries(world: &World) -> Result<()> {
    let mut client = EntryClient::new(testkit::local_channel(&world.socket));
    let answer = client
        .list_entries(ListEntriesRequest::default())
        .await?
        .into_inner();
    let there: BTreeSet<String> = answer.entries.into_iter().map(|entry| entry.id).collect();
    let ledger = world.ledger();
    let lost: Vec<_> = ledger.created.difference(&there).collect();
    let back: Vec<_> = ledger.deleted.intersection(&there).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    ensure!(back.is_empty(), "deleted and back: {back:?}");
    let (created, deleted) = (ledger.created.len(), ledger.deleted.len());
    ensure!(
        created > 500 && deleted > 100,
        "only {created} created and {deleted} deleted: no proof"
    );
    testkit::aloud(format_args!(
        "{created} entries created, {deleted} deleted, none lost, none back"
    ));
    Ok(())
}

async fn check_agents(world: &World) -> Result<()> {
    let mut client = AgentClient::new(testkit::local_channel(&world.socket));
    let answer = client
        .list_agents(ListAgentsRequest::default())
        .await?
        .into_inner();
    let paths = answer
        .agents
        .into_iter()
        .filter_map(|agent| agent.id)
        .map(|id| id.path);
    let there: BTreeSet<String> = paths.collect();
    let used = world.ledger().used.clone();
    let lost: Vec<_> = used
        .iter()
        .filter(|token| !there.contains(&format!("/spire/agent/join_token/{token}")))
        .collect();
    ensure!(lost.is_empty(), "attested and lost: {lost:?}");
    ensure!(
        used.len() > 20,
        "only {} agents attested: no proof",
        used.len()
    );
    let bundle = bundle(&world.socket).await?;
    let channel = testkit::remote_channel(world.address, &testkit::Tls::new(bundle, None));
    for token in used.iter().take(50) {
        let again = testkit::attest_with(channel.clone(), token).await;
        ensure!(again.is_err(), "the token {token} was good twice");
    }
    testkit::aloud(format_args!("{} agents attested, none lost", used.len()));
    Ok(())
}

/// The domain's own agent has been there all the time and still serves.
async fn check_own_agent(domain: &mut Domain) -> Result<()> {
    domain.agent()?.check_running()?;
    let uid = nix::unistd::getuid();
    let (id, parent, selector) = (
        domain.id("/after"),
        domain.agent_id(),
        format!("unix:uid:{uid}"),
    );
    let args = [
        "entry",
        "create",
        "-spiffeID",
        &id,
        "-parentID",
        &parent,
        "-selector",
        &selector,
    ];
    domain.server_cli(&args).await?;
    let fetched = wait::until("the agent to serve a new entry", || async {
        let told = domain.agent_cli(&["api", "fetch", "x509"]).await?;
        Ok(told.contains(&id).then_some(told))
    });
    fetched
        .await
        .context("after 100 kills of the server")
        .map(drop)
}

/// A small generator (xorshift): the points of the kills are the timing's, not its.
struct Random(u64);

impl Random {
    const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
