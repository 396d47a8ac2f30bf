//! The Workload API, rule by rule: rows E-* and P-* of the SPIFFE Workload Endpoint and Workload API. The service is
//! called without a socket between, on the paused clock.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use agent::config::{UnixAttestorConfig, WorkloadApiConfig, WorkloadAttestors};
use agent::endpoints::caller::{ATTESTATION_FAILED, Callers};
use agent::endpoints::workload::{NO_IDENTITY, SECURITY_HEADER_MISSING, WorkloadApi};
use agent::workload::Attestors;
use agent::workloads::{JwtFetchError, WorkloadView, Workloads};
use identity::{Bundle, Certificate, JwtSvid, PrivateKey, Selectors, TrustDomain, X509Svid};
use prost_types::value::Kind;
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest, X509svidResponse,
};
use runtime::{Clock, Metrics, Peer, Supervisor, Tasks};
use tokio::time::timeout;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status, Streaming};

use crate::domain::{self, Domain};

type Client = SpiffeWorkloadApiClient<InterceptedService<WorkloadApi, Marks>>;

/// What a real connection and a real client put into a request.
#[derive(Clone)]
struct Marks {
    peer: Option<Peer>,
    headers: Vec<&'static str>,
}

impl Interceptor for Marks {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        for value in &self.headers {
            let value = value.parse().unwrap();
            request.metadata_mut().append("workload.spiffe.io", value);
        }
        Ok(request)
    }
}

/// An agent's Workload API, and this process as its workload.
struct Agent {
    workloads: Workloads,
    api: WorkloadApi,
    tasks: Tasks,
    metrics: Metrics,
    peer: Peer,
    me: Selectors,
    _connection: (UnixStream, UnixStream),
    _supervisor: Supervisor,
}

impl Agent {
    async fn new(view: WorkloadView) -> Self {
        Self::with(view, WorkloadApiConfig::default()).await
    }

    async fn with(view: WorkloadView, config: WorkloadApiConfig) -> Self {
        let unix = UnixAttestorConfig {
            discover_workload_path: false,
            workload_size_limit: None,
        };
        let attestors = Attestors::new(&WorkloadAttestors {
            unix: Some(unix),
            k8s: None,
        });
        let connection = UnixStream::pair().unwrap();
        let peer = Peer::of(&connection.0).unwrap();
        let me = attestors.attest(&peer).await.unwrap();
        let workloads = Workloads::fixed(Arc::new(view));
        let metrics = Metrics::new("spire_agent");
        let (supervisor, tasks) = Supervisor::new();
        let api = WorkloadApi::new(
            Callers::new(attestors, metrics.clone()),
            workloads.clone(),
            Clock::at(domain::now()),
            metrics.clone(),
            tasks.shutdown(),
            config,
        );
        Self {
            workloads,
            api,
            tasks,
            metrics,
            peer,
            me,
            _connection: connection,
            _supervisor: supervisor,
        }
    }

    fn feed(&self, view: WorkloadView) {
        self.workloads.feed(self.me.clone(), view);
    }

    fn client(&self) -> Client {
        self.client_with(Some(self.peer.clone()), &["true"])
    }

    fn client_with(&self, peer: Option<Peer>, headers: &[&'static str]) -> Client {
        let marks = Marks {
            peer,
            headers: headers.to_vec(),
        };
        SpiffeWorkloadApiClient::with_interceptor(self.api.clone(), marks)
    }

    async fn x509_svids(&self) -> Streaming<X509svidResponse> {
        let answer = self.client().fetch_x509svid(X509svidRequest {}).await;
        answer.unwrap().into_inner()
    }

    async fn first_x509_svids(&self) -> Result<X509svidResponse, Status> {
        let first = self.x509_svids().await.message().await?;
        Ok(first.expect("a stream does not end without a status"))
    }

    async fn x509_bundles(&self) -> Result<Vec<String>, Status> {
        let answer = self
            .client()
            .fetch_x509_bundles(X509BundlesRequest {})
            .await?;
        let first = answer.into_inner().message().await?.unwrap();
        Ok(first.bundles.into_keys().collect())
    }

    async fn jwt_bundles(&self) -> Result<BTreeMap<String, String>, Status> {
        let answer = self
            .client()
            .fetch_jwt_bundles(JwtBundlesRequest {})
            .await?;
        let first = answer.into_inner().message().await?.unwrap();
        let text =
            |(id, jwks): (String, bytes::Bytes)| (id, String::from_utf8(jwks.into()).unwrap());
        Ok(first.bundles.into_iter().map(text).collect())
    }

    async fn jwt_svids(
        &self,
        audience: &[&str],
        id: &str,
    ) -> Result<Vec<(String, String)>, Status> {
        let request = JwtsvidRequest {
            audience: audience.iter().map(|one| (*one).to_owned()).collect(),
            spiffe_id: id.to_owned(),
        };
        let answer = self.client().fetch_jwtsvid(request).await?.into_inner();
        Ok(answer
            .svids
            .into_iter()
            .map(|svid| (svid.spiffe_id, svid.hint))
            .collect())
    }

    async fn validate(&self, audience: &str, svid: &str) -> Result<(String, Vec<String>), Status> {
        let request = ValidateJwtsvidRequest {
            audience: audience.to_owned(),
            svid: svid.to_owned(),
        };
        let answer = self.client().validate_jwtsvid(request).await?.into_inner();
        let claims = answer.claims.unwrap().fields;
        assert!(
            matches!(claims["aud"].kind, Some(Kind::ListValue(_))),
            "aud is a list"
        );
        Ok((answer.spiffe_id, claims.into_keys().collect()))
    }
}

/// Nothing comes, however long one waits.
async fn nothing(stream: &mut Streaming<X509svidResponse>) {
    // Less than an SVID lives: an expired one is not shown.
    let quiet = Duration::from_secs(600);
    let message = timeout(quiet, stream.message()).await;
    assert!(message.is_err(), "unexpected: {message:?}");
}

fn ids(response: &X509svidResponse) -> Vec<&str> {
    let ids = response.svids.iter().map(|svid| svid.spiffe_id.as_str());
    ids.collect()
}

#[track_caller]
fn assert_status(status: &Status, code: Code, message: &str) {
    assert_eq!((status.code(), status.message()), (code, message));
}

// --- SPIFFE Workload Endpoint

#[tokio::test(start_paused = true)]
async fn e_04_exactly_one_header_true_is_demanded_before_anything_else() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([domain.identity("/web", 1, "")])).await;
    let wrong: &[&[&str]] = &[
        &[],
        &["false"],
        &["True"],
        &["TRUE"],
        &["1"],
        &[""],
        &["truee"],
        &["true", "true"],
        &["true", "false"],
    ];
    for headers in wrong {
        // Without a peer attestation would fail with another code: so the header is looked at before.
        let mut client = agent.client_with(None, headers);
        let jwt = JwtsvidRequest::default();
        let validate = ValidateJwtsvidRequest::default();
        let answers = [
            client.fetch_x509svid(X509svidRequest {}).await.err(),
            client.fetch_x509_bundles(X509BundlesRequest {}).await.err(),
            client.fetch_jwt_bundles(JwtBundlesRequest {}).await.err(),
            client.fetch_jwtsvid(jwt).await.err(),
            client.validate_jwtsvid(validate).await.err(),
            client.fetch_wit_bundles(WitBundlesRequest {}).await.err(),
        ];
        for answer in answers {
            let status = answer.unwrap();
            assert_status(&status, Code::InvalidArgument, SECURITY_HEADER_MISSING);
        }
    }
}

/// go-spiffe, rust-spiffe and scripts compare these texts.
#[test]
fn e_04_p_21_texts_that_clients_compare() {
    assert_eq!(
        SECURITY_HEADER_MISSING,
        "security header missing from request"
    );
    assert_eq!(NO_IDENTITY, "no identity issued");
    assert_eq!(ATTESTATION_FAILED, "workload attestation failed");
}

#[tokio::test(start_paused = true)]
async fn e_08_an_unknown_method_is_unimplemented() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([])).await;
    let mut api = agent.api.clone();
    let request = http::Request::builder()
        .method("POST")
        .uri("/SpiffeWorkloadAPI/FetchEverything")
        .header("workload.spiffe.io", "true")
        .body(tonic::body::Body::empty())
        .unwrap();
    let response = tower::Service::call(&mut api, request).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::Unimplemented);
}

// --- SPIFFE Workload API: X.509-SVIDs

#[tokio::test(start_paused = true)]
async fn p_04_p_08_the_first_message_comes_at_once_and_is_complete() {
    let domain = Domain::new("example.org");
    let other = Domain::new("other.org");
    let web = domain.identity("/web", 1, "internal");
    let agent = Agent::new(domain.federated([web.clone()], [&other.bundle])).await;
    let before = tokio::time::Instant::now();
    let response = agent.first_x509_svids().await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    let [svid] = &*response.svids else {
        panic!("one SVID")
    };
    assert_eq!(svid.spiffe_id, "spiffe://example.org/web");
    assert_eq!(svid.hint, "internal");
    let chain = Certificate::chain_from_der(&svid.x509_svid).unwrap();
    let key = PrivateKey::from_pkcs8_der(&svid.x509_svid_key).unwrap();
    assert_eq!(X509Svid::new(chain, key).unwrap(), *web.svid);
    assert_eq!(*svid.bundle, *domain.bundle.x509_der());
    let federated = BTreeMap::from([(
        "spiffe://other.org".to_owned(),
        other.bundle.x509_der().into(),
    )]);
    assert_eq!(response.federated_bundles, federated);
    assert!(response.crl.is_empty());
}

#[tokio::test(start_paused = true)]
async fn p_03_p_05_a_change_gives_a_whole_message_and_no_change_none() {
    let domain = Domain::new("example.org");
    let (web, api) = (
        domain.identity("/web", 1, ""),
        domain.identity("/api", 2, ""),
    );
    let agent = Agent::new(domain.view([web.clone()])).await;
    let mut stream = agent.x509_svids().await;
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(ids(&first), ["spiffe://example.org/web"]);

    agent.feed(domain.view([web.clone()]));
    nothing(&mut stream).await;

    agent.feed(domain.view([web.clone(), api]));
    let second = stream.message().await.unwrap().unwrap();
    assert_eq!(
        ids(&second),
        ["spiffe://example.org/web", "spiffe://example.org/api"]
    );

    agent.feed(domain.view([web]));
    let third = stream.message().await.unwrap().unwrap();
    assert_eq!(ids(&third), ["spiffe://example.org/web"]);
}

/// Of two changes before a slow reader looks, it sees the last.
#[tokio::test(start_paused = true)]
async fn p_05_a_slow_reader_gets_the_latest() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([domain.identity("/web", 1, "")])).await;
    let mut stream = agent.x509_svids().await;
    stream.message().await.unwrap().unwrap();
    for age in 2..9 {
        agent.feed(domain.view([domain.identity(&format!("/web{age}"), age, "")]));
    }
    let next = stream.message().await.unwrap().unwrap();
    assert_eq!(ids(&next), ["spiffe://example.org/web8"]);
    nothing(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn p_09_a_hint_names_the_oldest_entry_only() {
    let domain = Domain::new("example.org");
    let identities = [
        domain.identity("/a", 1, "internal"),
        domain.identity("/b", 2, ""),
        domain.identity("/c", 3, "internal"),
        domain.identity("/d", 4, ""),
    ];
    let agent = Agent::new(domain.view(identities)).await;
    let response = agent.first_x509_svids().await.unwrap();
    let expected = ["/a", "/b", "/d"].map(|path| format!("spiffe://example.org{path}"));
    assert_eq!(ids(&response), expected);
    agent
        .workloads
        .feed_jwt(Ok(domain.jwt_svid("/a", &["aud"])));
    let hints = agent.jwt_svids(&["aud"], "").await.unwrap();
    let hints: Vec<_> = hints.iter().map(|(_, hint)| hint.as_str()).collect();
    assert_eq!(hints, ["internal", "", ""]);
}

#[tokio::test(start_paused = true)]
async fn p_10_p_21_without_an_identity_permission_is_denied() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([])).await;
    let answers = [
        agent.first_x509_svids().await.err(),
        agent.x509_bundles().await.err(),
        agent.jwt_bundles().await.err(),
        agent.jwt_svids(&["aud"], "").await.err(),
    ];
    for answer in answers {
        assert_status(&answer.unwrap(), Code::PermissionDenied, NO_IDENTITY);
    }
}

#[tokio::test(start_paused = true)]
async fn p_10_a_stream_ends_when_the_last_identity_is_withdrawn() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([domain.identity("/web", 1, "")])).await;
    let mut stream = agent.x509_svids().await;
    stream.message().await.unwrap().unwrap();
    agent.feed(domain.view([]));
    let status = stream.message().await.unwrap_err();
    assert_status(&status, Code::PermissionDenied, NO_IDENTITY);
}

#[tokio::test(start_paused = true)]
async fn p_17_the_default_is_the_first_and_is_waited_for() {
    let domain = Domain::new("example.org");
    let (old, new) = (
        domain.identity("/old", 1, ""),
        domain.identity("/new", 2, ""),
    );
    let waiting = WorkloadView {
        pending: vec![old.entry.clone()],
        ..domain.view([new.clone()])
    };
    let agent = Agent::new(waiting.clone()).await;
    let mut stream = agent.x509_svids().await;
    let early = timeout(Duration::from_millis(900), stream.message()).await;
    assert!(early.is_err(), "the default would change: {early:?}");
    agent.feed(domain.view([old, new]));
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(
        ids(&first),
        ["spiffe://example.org/old", "spiffe://example.org/new"]
    );

    // Not for long: what is there is better than nothing.
    agent.feed(waiting);
    let late = agent.first_x509_svids().await.unwrap();
    assert_eq!(ids(&late), ["spiffe://example.org/new"]);
}

/// What is pending behind the default keeps nobody waiting.
#[tokio::test(start_paused = true)]
async fn p_04_a_later_pending_identity_is_not_waited_for() {
    let domain = Domain::new("example.org");
    let view = WorkloadView {
        pending: vec![domain.entry("/new", 2, "")],
        ..domain.view([domain.identity("/old", 1, "")])
    };
    let agent = Agent::new(view).await;
    let before = tokio::time::Instant::now();
    agent.first_x509_svids().await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn p_19_a_rotation_brings_leaf_and_key_together() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([domain.identity("/web", 1, "")])).await;
    let mut stream = agent.x509_svids().await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let message = stream.message().await.unwrap().unwrap();
        let svid = &message.svids[0];
        let chain = Certificate::chain_from_der(&svid.x509_svid).unwrap();
        let key = PrivateKey::from_pkcs8_der(&svid.x509_svid_key).unwrap();
        let svid = X509Svid::new(chain, key).unwrap();
        assert!(!seen.contains(&svid));
        seen.push(svid);
        agent.feed(domain.view([domain.identity("/web", 1, "")]));
    }
}

#[tokio::test(start_paused = true)]
async fn p_20_an_empty_federated_bundle_is_left_out() {
    let domain = Domain::new("example.org");
    let empty = Arc::new(Bundle::empty(TrustDomain::new("empty.org").unwrap()));
    let other = Domain::new("other.org");
    let view = domain.federated([domain.identity("/web", 1, "")], [&empty, &other.bundle]);
    let agent = Agent::new(view).await;
    let svids = agent.first_x509_svids().await.unwrap();
    let federated: Vec<_> = svids.federated_bundles.keys().collect();
    assert_eq!(federated, ["spiffe://other.org"]);
    assert_eq!(
        agent.x509_bundles().await.unwrap(),
        ["spiffe://example.org", "spiffe://other.org"]
    );
}

// --- Holding

#[tokio::test(start_paused = true)]
async fn p_22_a_pending_identity_holds_the_stream_until_it_is_issued() {
    let domain = Domain::new("example.org");
    let web = domain.identity("/web", 1, "");
    let view = WorkloadView {
        pending: vec![web.entry.clone()],
        ..domain.view([])
    };
    let agent = Agent::new(view).await;
    let mut stream = agent.x509_svids().await;
    let early = timeout(Duration::from_secs(20), stream.message()).await;
    assert!(early.is_err(), "unexpected: {early:?}");
    agent.feed(domain.view([web]));
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(ids(&first), ["spiffe://example.org/web"]);
}

#[tokio::test(start_paused = true)]
async fn p_22_holding_ends_with_unavailable() {
    let domain = Domain::new("example.org");
    let unknown = WorkloadView {
        synced: false,
        ..domain.view([])
    };
    let pending = WorkloadView {
        pending: vec![domain.entry("/web", 1, "")],
        ..domain.view([])
    };
    let no_bundle = WorkloadView {
        bundle: Arc::new(Bundle::empty(domain.trust_domain.clone())),
        ..domain.view([domain.identity("/web", 1, "")])
    };
    for view in [unknown, pending, no_bundle] {
        let agent = Agent::new(view.clone()).await;
        let before = tokio::time::Instant::now();
        let status = agent.first_x509_svids().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{view:?}");
        assert_eq!(before.elapsed().as_secs(), 30);
    }
}

/// Nothing is known yet, and then it is: not before is anybody told that it has no identity.
#[tokio::test(start_paused = true)]
async fn p_22_before_the_first_sync_nobody_is_denied() {
    let domain = Domain::new("example.org");
    let unknown = WorkloadView {
        synced: false,
        ..domain.view([])
    };
    let agent = Agent::new(unknown).await;
    let mut stream = agent.x509_svids().await;
    let early = timeout(Duration::from_secs(20), stream.message()).await;
    assert!(early.is_err(), "unexpected: {early:?}");
    agent.feed(domain.view([]));
    let status = stream.message().await.unwrap_err();
    assert_status(&status, Code::PermissionDenied, NO_IDENTITY);
}

/// An SVID that ran out while the server was away: the workload keeps its stream, and is told when there is a new one.
#[tokio::test(start_paused = true)]
async fn p_22_an_identity_that_falls_back_to_pending_ends_no_stream() {
    let domain = Domain::new("example.org");
    let web = domain.identity("/web", 1, "");
    let agent = Agent::new(domain.view([web.clone()])).await;
    let mut stream = agent.x509_svids().await;
    stream.message().await.unwrap().unwrap();
    agent.feed(WorkloadView {
        pending: vec![web.entry],
        ..domain.view([])
    });
    nothing(&mut stream).await;
    agent.feed(domain.view([domain.identity("/web", 1, "")]));
    assert!(stream.message().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn p_22_who_cannot_be_attested_hears_unavailable() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([domain.identity("/web", 1, "")])).await;
    let mut client = agent.client_with(None, &["true"]);
    let status = client.fetch_x509svid(X509svidRequest {}).await.unwrap_err();
    assert_status(&status, Code::Unavailable, ATTESTATION_FAILED);
}

#[tokio::test(start_paused = true)]
async fn p_22_streams_end_with_unavailable_when_the_agent_stops() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([domain.identity("/web", 1, "")])).await;
    let mut stream = agent.x509_svids().await;
    stream.message().await.unwrap().unwrap();
    agent.tasks.stop();
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

// --- Bundles

#[tokio::test(start_paused = true)]
async fn p_11_p_13_bundles_hold_the_own_domain_and_the_federated_ones() {
    let domain = Domain::new("example.org");
    let other = Domain::new("other.org");
    let view = domain.federated([domain.identity("/web", 1, "")], [&other.bundle]);
    let agent = Agent::new(view).await;
    let expected = ["spiffe://example.org", "spiffe://other.org"];
    assert_eq!(agent.x509_bundles().await.unwrap(), expected);
    let jwt = agent.jwt_bundles().await.unwrap();
    assert_eq!(jwt.keys().collect::<Vec<_>>(), expected);
    // Nothing but JWT keys: no X.509 authority, no other member that a strict reader stumbles over.
    let jwks: serde_json::Value = serde_json::from_str(&jwt["spiffe://example.org"]).unwrap();
    let keys = jwks["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["kid"], "key-of-example.org");
    assert_eq!(jwks.as_object().unwrap().len(), 1);
}

/// An entry whose SVID is pending is an identity: bundles are not kept back.
#[tokio::test(start_paused = true)]
async fn p_11_a_pending_identity_sees_bundles() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(WorkloadView {
        pending: vec![domain.entry("/web", 1, "")],
        ..domain.view([])
    })
    .await;
    assert_eq!(
        agent.x509_bundles().await.unwrap(),
        ["spiffe://example.org"]
    );
    assert_eq!(agent.jwt_bundles().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn unauthenticated_verifiers_see_bundles_where_allowed() {
    let domain = Domain::new("example.org");
    let config = WorkloadApiConfig {
        allow_unauthenticated_verifiers: true,
        ..WorkloadApiConfig::default()
    };
    let agent = Agent::with(domain.view([]), config).await;
    assert_eq!(
        agent.x509_bundles().await.unwrap(),
        ["spiffe://example.org"]
    );
    assert_eq!(agent.jwt_bundles().await.unwrap().len(), 1);
    let status = agent.first_x509_svids().await.unwrap_err();
    assert_status(&status, Code::PermissionDenied, NO_IDENTITY);
}

// --- JWT-SVIDs

#[tokio::test(start_paused = true)]
async fn p_07_what_must_be_there_must_not_be_empty() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([domain.identity("/web", 1, "")])).await;
    let audience = "audience must be specified";
    for empty in [&[][..], &[""], &["aud", ""]] {
        let status = agent.jwt_svids(empty, "").await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, audience);
    }
    let status = agent.validate("", "a.b.c").await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, audience);
    let status = agent.validate("aud", "").await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "svid must be specified");
}

#[tokio::test(start_paused = true)]
async fn p_12_jwt_svids_of_all_identities_or_of_the_one_named() {
    let domain = Domain::new("example.org");
    let view = WorkloadView {
        // A JWT-SVID does not wait for an X.509-SVID.
        pending: vec![domain.entry("/old", 1, "")],
        ..domain.view([domain.identity("/new", 2, "other")])
    };
    let agent = Agent::new(view).await;
    let token = domain.jwt_svid("/web", &["aud"]);
    agent.workloads.feed_jwt(Ok(token));
    let all = agent.jwt_svids(&["aud"], "").await.unwrap();
    let hints: Vec<_> = all.iter().map(|(_, hint)| hint.as_str()).collect();
    assert_eq!(hints, ["", "other"]);
    let one = agent.jwt_svids(&["aud"], "spiffe://example.org/new").await;
    assert_eq!(one.unwrap()[0].1, "other");
    let status = agent
        .jwt_svids(&["aud"], "spiffe://example.org/nobody")
        .await
        .unwrap_err();
    assert_status(&status, Code::PermissionDenied, NO_IDENTITY);
    for malformed in ["example.org/new", "spiffe://Example.org/new", "spiffe://"] {
        let status = agent.jwt_svids(&["aud"], malformed).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{malformed}");
    }
}

#[tokio::test(start_paused = true)]
async fn p_12_why_there_is_no_jwt_svid() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([domain.identity("/web", 1, "")])).await;
    let cases = [
        (JwtFetchError::NotEntitled, Code::PermissionDenied),
        (
            JwtFetchError::Unavailable("away".to_owned()),
            Code::Unavailable,
        ),
        (
            JwtFetchError::Invalid("no".to_owned()),
            Code::InvalidArgument,
        ),
    ];
    for (error, code) in cases {
        agent.workloads.feed_jwt(Err(error));
        let status = agent.jwt_svids(&["aud"], "").await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
}

/// A caller that does not wait for its token is no failure of the agent's.
#[tokio::test(start_paused = true)]
async fn p_12_a_caller_that_leaves_is_no_error() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(WorkloadView {
        synced: false,
        ..domain.view([])
    })
    .await;
    let asking = agent.jwt_svids(&["aud"], "");
    assert!(timeout(Duration::from_millis(1), asking).await.is_err());
    let figures = agent.metrics.render();
    let calls = figures
        .lines()
        .filter(|line| line.starts_with("spire_agent_rpc_workload_api_fetch_jwtsvid{"));
    let calls: Vec<_> = calls.collect();
    assert!(
        matches!(&*calls, [call] if call.contains("status=\"Canceled\"") && call.ends_with(" 1")),
        "{calls:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn p_22_jwt_svids_wait_for_the_first_sync() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(WorkloadView {
        synced: false,
        ..domain.view([])
    })
    .await;
    let status = agent.jwt_svids(&["aud"], "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn p_14_p_18_tokens_are_validated() {
    let domain = Domain::new("example.org");
    let other = Domain::new("other.org");
    let stranger = Domain::new("stranger.org");
    let config = WorkloadApiConfig {
        allowed_foreign_jwt_claims: vec!["iss".to_owned()],
        ..WorkloadApiConfig::default()
    };
    let view = domain.federated([domain.identity("/web", 1, "")], [&other.bundle]);
    let agent = Agent::with(view, config).await;

    let token = |svid: &JwtSvid| svid.token().to_owned();
    let own = token(&domain.jwt_svid("/api", &["me", "you"]));
    let (id, claims) = agent.validate("me", &own).await.unwrap();
    assert_eq!(id, "spiffe://example.org/api");
    assert_eq!(claims, ["aud", "exp", "iat", "iss", "sub"]);

    let foreign = token(&other.jwt_svid("/api", &["me"]));
    let (id, claims) = agent.validate("me", &foreign).await.unwrap();
    assert_eq!(id, "spiffe://other.org/api");
    assert_eq!(claims, ["aud", "exp", "iss", "sub"], "iat is not allowed");

    let unknown = token(&stranger.jwt_svid("/api", &["me"]));
    let forged = format!("{}AAAA", &own[..own.len() - 4]);
    for (audience, svid) in [
        ("they", &own),
        ("me", &unknown),
        ("me", &forged),
        ("me", &"garbage".to_owned()),
    ] {
        let status = agent.validate(audience, svid).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(
            !status.message().contains(svid.as_str()),
            "a token is a secret"
        );
    }
}

/// Validating needs no identity.
#[tokio::test(start_paused = true)]
async fn p_14_anybody_may_validate() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([])).await;
    let token = domain.jwt_svid("/api", &["me"]);
    let (id, _) = agent.validate("me", token.token()).await.unwrap();
    assert_eq!(id, "spiffe://example.org/api");
}

#[tokio::test(start_paused = true)]
async fn p_15_wit_svids_are_unimplemented() {
    let domain = Domain::new("example.org");
    let agent = Agent::new(domain.view([domain.identity("/web", 1, "")])).await;
    let mut client = agent.client();
    let svid = client.fetch_witsvid(WitsvidRequest::default()).await;
    assert_eq!(svid.unwrap_err().code(), Code::Unimplemented);
    let bundles = client.fetch_wit_bundles(WitBundlesRequest {}).await;
    assert_eq!(bundles.unwrap_err().code(), Code::Unimplemented);
}
