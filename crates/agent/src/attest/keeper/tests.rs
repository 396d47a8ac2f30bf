//! The keeper with a real server, each on a clock of its own.

use identity::BundleSet;
use proto::{convert::denied, spire::api::server::bundle::v1::GetBundleRequest};
use runtime::{Clock, Metrics, Supervisor, Tasks};
use tempfile::TempDir;
use testkit::TestServer;
use tokio::time::timeout;

use super::*;
use crate::{
    client::ServerClient,
    config::{Bootstrap, JoinToken, KeyManager, NodeAttestor, ServerAddress},
    fixtures::{CA, trust_domain},
    svid::Rotation,
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Well above what passes for no change.
const TEN_MINUTES: i64 = 600;
const DAY: i64 = 86_400;

/// A running keeper that has attested by a join token, which is used up.
struct House {
    clock: Clock,
    orders: Orders,
    svid: watch::Receiver<Option<Arc<X509Svid>>>,
    client: ServerClient,
    tasks: Tasks,
    supervisor: Supervisor,
    _server: TestServer,
    _folder: TempDir,
}

impl House {
    async fn new() -> Self {
        let (server, folder) = (TestServer::start().await, TempDir::new().unwrap());
        let token = JoinToken::new(server.join_token("/node").await);
        let clock = Clock::at(Clock::system().now());
        let published = watch::Sender::new(None);
        let svid = published.subscribe();
        let setup = setup(&server, &folder, token, &clock, svid.clone());
        let client = setup.client.clone();
        let (keeper, orders) = Keeper::new(setup, None, published);
        let (supervisor, tasks) = Supervisor::new();
        tasks.spawn("agent SVID", keeper.run(tasks.shutdown()));
        Self {
            clock,
            orders,
            svid,
            client,
            tasks,
            supervisor,
            _server: server,
            _folder: folder,
        }
    }

    /// Waits until the SVID is such.
    async fn wait_for(
        &mut self,
        such: impl Fn(Option<&X509Svid>) -> bool,
    ) -> Option<Arc<X509Svid>> {
        let such = self.svid.wait_for(|svid| such(svid.as_deref()));
        let svid = timeout(PATIENCE, such).await.expect("it must come to that");
        svid.expect("the keeper must run").clone()
    }

    async fn first(&mut self) -> Arc<X509Svid> {
        self.wait_for(|svid| svid.is_some()).await.unwrap()
    }

    /// Another one than `former`, of the same agent.
    async fn other(&mut self, former: &X509Svid) {
        let other = self.wait_for(|svid| svid.is_some_and(|svid| svid != former));
        assert_eq!(other.await.unwrap().id(), former.id());
    }

    /// Sets the keeper's clock, and has it look.
    fn set_by(&self, seconds: i64) {
        self.clock.set_by(seconds);
        self.orders.bundle(Arc::new(CA.bundle()));
    }

    /// Ends the keeper, which must not have ended itself.
    async fn end(self) {
        self.tasks.stop();
        self.supervisor.run(PATIENCE).await.unwrap();
    }
}

fn setup(
    server: &TestServer,
    folder: &TempDir,
    token: JoinToken,
    clock: &Clock,
    svid: watch::Receiver<Option<Arc<X509Svid>>>,
) -> Setup {
    let tcp = server.addresses().tcp;
    let address = ServerAddress {
        host: tcp.ip().to_string(),
        port: tcp.port(),
    };
    let directory = folder.path().to_owned();
    let bundles = watch::Sender::new(Arc::new(BundleSet::new()));
    let client = ServerClient::new(
        address.clone(),
        trust_domain(),
        bundles.subscribe(),
        svid,
        clock.clone(),
    );
    Setup {
        server: address,
        trust_domain: trust_domain(),
        bootstrap: Bootstrap::Insecure,
        node_attestor: NodeAttestor::JoinToken(Some(token)),
        rotation: Rotation::default(),
        store: Arc::new(AgentStore::new(
            folder.path(),
            &KeyManager::Disk { directory },
        )),
        client,
        bundles,
        disk: None,
        clock: clock.clone(),
        metrics: Metrics::new("spire_agent"),
    }
}

/// A call that was under way while the agent got another SVID is denied for the former one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_denial_costs_a_renewal_and_nothing_else() {
    let mut house = House::new().await;
    let first = house.first().await;
    for reason in [Reason::AgentNotActive, Reason::AgentExpired] {
        let before = house.first().await;
        house.orders.report(&denied("agent is not active", reason));
        house.other(&before).await;
    }
    assert_eq!(house.first().await.id(), first.id());
    house.end().await;
}

/// By a clock far ahead the SVID has expired, and a join token gives no other. It is good again once the clock is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e7_a_clock_set_forward_and_right_again_costs_no_identity() {
    let mut house = House::new().await;
    let first = house.first().await;
    house.set_by(DAY);
    house.wait_for(|svid| svid.is_none()).await;
    house.set_by(-DAY);
    assert_eq!(house.first().await.id(), first.id());
    house.other(&first).await;
    house.end().await;
}

/// By a clock that is behind the SVID is good for longer than it is, so it is renewed at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e7_after_the_clock_was_set_back_the_svid_is_renewed() {
    let mut house = House::new().await;
    let first = house.first().await;
    // On a connection that was there: by this clock no new one would do.
    let mut bundles = house.client.bundle();
    let asked = bundles.get_bundle(GetBundleRequest::default());
    timeout(PATIENCE, asked).await.unwrap().unwrap();
    house.set_by(-TEN_MINUTES);
    house.other(&first).await;
    house.end().await;
}
