//! Any interleaving of requests, answers and views, against a client that keeps what it accepts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::LazyLock,
};

use proptest::prelude::*;
use proto::{
    discovery::{DeltaDiscoveryRequest, DiscoveryRequest, Status},
    envoy::tls::secret::Type,
};

use super::*;
use crate::{
    sds::{
        DeltaSecrets, Form, Name, Options, Resource, Secrets, StreamSecrets,
        fixtures::{Domain, federating, now, secret},
    },
    workloads::WorkloadView,
};

const NAMES: [&str; 7] = [
    "default",
    "ROOTCA",
    "spiffe://example.org",
    "spiffe://partner.test",
    "spiffe://example.org/web",
    "spiffe://example.org/api",
    "nonsense",
];

/// Some days in the life of a workload.
static VIEWS: LazyLock<Vec<Arc<WorkloadView>>> = LazyLock::new(|| {
    let (domain, partner) = (Domain::new("example.org"), Domain::new("partner.test"));
    let base = domain.view(&["/web", "/api"]);
    let mut rotated = base.clone();
    rotated.identities[0].svid = domain.svid("/web");
    let mut waiting = base.clone();
    let gone = waiting.identities.remove(0);
    waiting.pending.push(gone.entry);
    let unsynced = WorkloadView {
        synced: false,
        ..domain.view(&[])
    };
    let federated = federating(rotated.clone(), &partner);
    let other = Domain::new("example.org");
    [
        base,
        rotated,
        waiting,
        unsynced,
        federated,
        domain.view(&["/api"]),
        domain.view(&[]),
        other.view(&["/web"]),
    ]
    .map(Arc::new)
    .into()
});

#[derive(Debug, Clone)]
enum Step {
    View(usize),
    Toggle(usize),
    Pull,
    /// The client answers the oldest response it has not answered.
    Answer,
    /// The client repeats an answer of long ago.
    Stale,
    /// Stream and server break; the client comes back with what it holds.
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..VIEWS.len()).prop_map(Step::View),
        4 => (0..NAMES.len()).prop_map(Step::Toggle),
        6 => Just(Step::Pull),
        6 => Just(Step::Answer),
        1 => Just(Step::Stale),
        1 => Just(Step::Reconnect),
    ];
    proptest::collection::vec(step, 0..60)
}

/// One secret or removal on its way.
#[derive(Debug, Clone)]
struct Sent {
    nonce: String,
    version_info: String,
    name: String,
    version: Option<String>,
}

/// Which of the two protocols is spoken.
trait Session: Sized {
    const REMOVALS: bool;
    fn start(view: Arc<WorkloadView>, stream: u64) -> Self;
    fn first(&mut self, client: &Client);
    fn toggled(&mut self, client: &Client, name: &str);
    fn answer(&mut self, client: &Client, sent: &Sent, rejected: bool);
    fn view(&mut self, view: Arc<WorkloadView>);
    fn pull(&mut self) -> Option<Sent>;
}

#[derive(Debug, Default)]
struct Client {
    wanted: BTreeSet<String>,
    held: BTreeMap<String, String>,
    rejected: BTreeMap<String, String>,
    version_info: String,
    nonce: String,
    unanswered: VecDeque<Sent>,
    answered: Vec<Sent>,
    /// By name, the last version sent since the last subscription or rejection.
    last: BTreeMap<String, Option<String>>,
}

/// A client that cannot bear one certificate in four.
fn cannot_bear(version: &str) -> bool {
    version.ends_with(['0', '5', 'a', 'f'])
}

struct Run<S> {
    session: S,
    client: Client,
    view: Arc<WorkloadView>,
    streams: u64,
    nonces: BTreeSet<String>,
}

impl<S: Session> Run<S> {
    fn new() -> Self {
        let view = Arc::clone(&VIEWS[0]);
        let mut session = S::start(Arc::clone(&view), 0);
        let client = Client::default();
        session.first(&client);
        Self {
            session,
            client,
            view,
            streams: 0,
            nonces: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::View(number) => {
                self.view = Arc::clone(&VIEWS[*number]);
                self.session.view(Arc::clone(&self.view));
            }
            Step::Toggle(number) => {
                let name = NAMES[*number].to_owned();
                if self.client.wanted.remove(&name) {
                    // Who forgets a secret forgets the version of the set it was in. Envoy never has to: its streams
                    // keep their one name for life.
                    self.client.version_info.clear();
                    for sent in &mut self.client.unanswered {
                        sent.version_info.clear();
                    }
                } else {
                    self.client.wanted.insert(name.clone());
                }
                for forgotten in [&mut self.client.held, &mut self.client.rejected] {
                    forgotten.remove(&name);
                }
                self.client.last.remove(&name);
                self.session.toggled(&self.client, &name);
            }
            Step::Pull => {
                self.pull()?;
            }
            Step::Answer => self.answer(),
            Step::Stale => self.stale()?,
            Step::Reconnect => self.reconnect(),
        }
        Ok(())
    }

    fn pull(&mut self) -> Result<bool, TestCaseError> {
        let Some(sent) = self.session.pull() else {
            return Ok(false);
        };
        prop_assert!(
            self.client.wanted.contains(&sent.name),
            "{} was not asked for",
            sent.name
        );
        prop_assert!(
            self.nonces.insert(sent.nonce.clone()),
            "nonce {} twice",
            sent.nonce
        );
        let last = self
            .client
            .last
            .insert(sent.name.clone(), sent.version.clone());
        prop_assert_ne!(last.as_ref(), Some(&sent.version), "{} twice", sent.name);
        self.client.unanswered.push_back(sent);
        Ok(true)
    }

    fn answer(&mut self) {
        let Some(sent) = self.client.unanswered.pop_front() else {
            return;
        };
        let rejected = sent.version.as_deref().is_some_and(cannot_bear);
        let client = &mut self.client;
        client.nonce.clone_from(&sent.nonce);
        if client.wanted.contains(&sent.name) {
            match &sent.version {
                Some(version) if rejected => {
                    client.rejected.insert(sent.name.clone(), version.clone());
                    client.last.remove(&sent.name);
                }
                Some(version) => {
                    client.held.insert(sent.name.clone(), version.clone());
                }
                None => {
                    client.held.remove(&sent.name);
                }
            }
        }
        if !rejected {
            client.version_info.clone_from(&sent.version_info);
        }
        self.session.answer(&self.client, &sent, rejected);
        self.client.answered.push(sent);
    }

    /// An answer to anything but the newest response changes nothing.
    fn stale(&mut self) -> Result<(), TestCaseError> {
        let Some(stale) = self.client.answered.first().cloned() else {
            return Ok(());
        };
        if self.client.unanswered.is_empty() && self.client.answered.len() == 1 {
            return Ok(());
        }
        while self.pull()? {}
        for rejected in [false, true] {
            self.session.answer(&self.client, &stale, rejected);
            prop_assert!(self.session.pull().is_none(), "answered a stale nonce");
        }
        Ok(())
    }

    fn reconnect(&mut self) {
        self.streams += 1;
        self.client.unanswered.clear();
        self.client.answered.clear();
        self.client.last.clear();
        self.session = S::start(Arc::clone(&self.view), self.streams);
        self.session.first(&self.client);
    }

    /// In the end the client holds the view, but for what it cannot bear.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..1000 {
            if !self.pull()? && self.client.unanswered.is_empty() {
                break;
            }
            self.answer();
        }
        prop_assert!(self.client.unanswered.is_empty(), "it does not settle");
        for name in &self.client.wanted {
            let held = self.client.held.get(name);
            match look_up(&self.view, name) {
                Ok(resource) => {
                    let version = resource.version().to_string();
                    if !cannot_bear(&version) {
                        prop_assert_eq!(held, Some(&version), "{}", name);
                    }
                }
                Err(why) if S::REMOVALS && why.is_certain() => {
                    prop_assert_eq!(held, None, "{}", name);
                }
                Err(_) => {}
            }
        }
        Ok(())
    }
}

static SECRETS: LazyLock<Arc<Secrets>> = LazyLock::new(|| {
    Arc::new(Secrets::new(Options {
        // Runs beside each other are not one node.
        authority_ack_timeout: std::time::Duration::ZERO,
        ..Options::default()
    }))
});

fn look_up(view: &WorkloadView, text: &str) -> Result<Resource, Absent> {
    let name = Name::read(text, SECRETS.options());
    SECRETS.lookup(view, (&Arc::from(text), &name), Form::Validator, now())
}

/// The kind of secret under a name, which must be the name's.
fn check(any: &[u8]) -> String {
    let sent = secret(any);
    let bundle = matches!(sent.r#type, Some(Type::ValidationContext(_)));
    assert_eq!(
        Name::read(&sent.name, &Options::default()).is_bundle(),
        bundle
    );
    sent.name
}

fn rejection(rejected: bool) -> Option<Status> {
    rejected.then(|| Status {
        code: 13,
        message: "no".to_owned(),
    })
}

impl Client {
    fn request(&self, nonce: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: self.version_info.clone(),
            resource_names: self.wanted.iter().cloned().collect(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        }
    }
}

impl Session for StreamSecrets {
    const REMOVALS: bool = false;

    fn start(view: Arc<WorkloadView>, stream: u64) -> Self {
        Self::new(Arc::clone(&SECRETS), view, stream)
    }

    fn first(&mut self, client: &Client) {
        self.on_request(&client.request(""), now()).unwrap();
    }

    fn toggled(&mut self, client: &Client, _: &str) {
        self.on_request(&client.request(&client.nonce), now())
            .unwrap();
    }

    fn answer(&mut self, client: &Client, sent: &Sent, rejected: bool) {
        let mut request = client.request(&sent.nonce);
        request.error_detail = rejection(rejected);
        self.on_request(&request, now()).unwrap();
    }

    fn view(&mut self, view: Arc<WorkloadView>) {
        self.on_view(view);
    }

    fn pull(&mut self) -> Option<Sent> {
        let response = self.next(now())?;
        let name = check(&response.resources[0]);
        let any = crate::sds::encode::version_of(&response.resources[0]);
        Some(Sent {
            nonce: response.nonce,
            version_info: response.version_info,
            name,
            version: Some(any.to_string()),
        })
    }
}

impl Session for DeltaSecrets {
    const REMOVALS: bool = true;

    fn start(view: Arc<WorkloadView>, stream: u64) -> Self {
        Self::new(Arc::clone(&SECRETS), view, stream)
    }

    fn first(&mut self, client: &Client) {
        self.on_request(
            &DeltaDiscoveryRequest {
                resource_names_subscribe: client.wanted.iter().cloned().collect(),
                initial_resource_versions: client.held.clone(),
                ..DeltaDiscoveryRequest::default()
            },
            now(),
        )
        .unwrap();
    }

    fn toggled(&mut self, client: &Client, name: &str) {
        let mut request = DeltaDiscoveryRequest::default();
        if client.wanted.contains(name) {
            request.resource_names_subscribe.push(name.to_owned());
        } else {
            request.resource_names_unsubscribe.push(name.to_owned());
        }
        self.on_request(&request, now()).unwrap();
    }

    fn answer(&mut self, _: &Client, sent: &Sent, rejected: bool) {
        self.on_request(
            &DeltaDiscoveryRequest {
                response_nonce: sent.nonce.clone(),
                error_detail: rejection(rejected),
                ..DeltaDiscoveryRequest::default()
            },
            now(),
        )
        .unwrap();
    }

    fn view(&mut self, view: Arc<WorkloadView>) {
        self.on_view(view);
    }

    fn pull(&mut self) -> Option<Sent> {
        let mut response = self.next(now())?;
        let (name, version) = match response.resources.pop() {
            Some(resource) => {
                assert_eq!(check(&resource.resource), resource.name);
                (resource.name, Some(resource.version))
            }
            None => (response.removed_resources.pop().unwrap(), None),
        };
        Some(Sent {
            nonce: response.nonce,
            version_info: String::new(),
            name,
            version,
        })
    }
}

fn run<S: Session>(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut run = Run::<S>::new();
    for step in steps {
        run.step(step)?;
    }
    run.settle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_interleaving_settles_state_of_the_world(steps in steps()) {
        run::<StreamSecrets>(&steps)?;
    }

    #[test]
    fn any_interleaving_settles_incremental(steps in steps()) {
        run::<DeltaSecrets>(&steps)?;
    }
}
