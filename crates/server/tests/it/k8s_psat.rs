//! `k8s_psat` against a fake API server.

mod api;

use identity::{Certificate, KeyType, PrivateKey, X509Svid};
use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::server::agent::v1::{
    AgentX509svidParams, AttestAgentRequest, GetAgentRequest, attest_agent_request,
    attest_agent_response,
};
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{BatchCreateEntryRequest, GetAuthorizedEntriesRequest};
use proto::spire::api::types;
use serde_json::{Value, json};
use server::config::{K8sCluster, K8sPsat};
use testkit::TestServer;
use tonic::{Code, Status};

use self::api::Api;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const POD: &str = "/api/v1/namespaces/spire/pods/agent-x";
const NODE: &str = "/api/v1/nodes/node-1";

struct Scene {
    api: Api,
    server: TestServer,
}

impl Scene {
    async fn start(change: impl FnOnce(&mut K8sCluster)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let api = Api::start(dir.path(), "prod").await;
        {
            let mut world = api.world.lock().unwrap();
            world
                .tokens
                .insert("good".into(), review("spire:spire-agent"));
            world.objects.insert(POD.into(), pod("pod-uid", "node-1"));
            world.objects.insert(NODE.into(), node());
        }
        let mut cluster = cluster(&api);
        change(&mut cluster);
        let server = TestServer::start_in(dir, |config| {
            let clusters = [("prod".to_owned(), cluster)].into();
            config.node_attestors.k8s_psat = Some(K8sPsat { clusters });
        })
        .await;
        Self { api, server }
    }

    async fn attest(&self, payload: Value) -> Result<String, Status> {
        attest(&self.server, &payload).await
    }

    /// Attests with a token of `prod`, which must not do.
    async fn refused(&self, token: &str) -> (Code, String) {
        let payload = json!({"cluster": "prod", "token": token});
        let status = self.attest(payload).await.unwrap_err();
        (status.code(), status.message().to_owned())
    }
}

fn cluster(api: &Api) -> K8sCluster {
    K8sCluster {
        service_account_allow_list: vec!["spire:spire-agent".to_owned()],
        audience: vec!["spire-server".to_owned()],
        kube_config_file: Some(api.kubeconfig()),
        allowed_node_label_keys: Vec::new(),
        allowed_pod_label_keys: Vec::new(),
        use_pod_uid_for_agent_id: false,
    }
}

fn review(account: &str) -> Value {
    json!({
        "authenticated": true,
        "audiences": ["spire-server"],
        "user": {
            "username": format!("system:serviceaccount:{account}"),
            "groups": ["system:serviceaccounts"],
            "extra": {
                "authentication.kubernetes.io/pod-name": ["agent-x"],
                "authentication.kubernetes.io/pod-uid": ["pod-uid"],
                "authentication.kubernetes.io/node-name": ["node-1"],
            }
        }
    })
}

fn pod(uid: &str, node: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "agent-x", "namespace": "spire", "uid": uid,
            "labels": {"app": "agent", "secret": "x"}},
        "spec": {"serviceAccountName": "spire-agent", "nodeName": node, "containers": []},
        "status": {"hostIP": "10.0.0.7"},
    })
}

fn node() -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {"name": "node-1", "uid": "8f3c", "labels": {"zone": "a", "kernel": "b"}},
    })
}

/// Attests and gives the agent's SVID.
async fn attested(server: &TestServer, payload: &Value) -> Result<X509Svid, Status> {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let params = attest_agent_request::Params {
        data: Some(types::AttestationData {
            r#type: "k8s_psat".into(),
            payload: payload.to_string().into(),
        }),
        params: Some(AgentX509svidParams {
            csr: key.csr(None, &[]).unwrap().into(),
        }),
    };
    let request = AttestAgentRequest {
        step: Some(attest_agent_request::Step::Params(params)),
    };
    let mut answers = AgentClient::new(server.remote(None).await)
        .attest_agent(tokio_stream::once(request))
        .await?
        .into_inner();
    let answer = answers.message().await?;
    let Some(attest_agent_response::Step::Result(result)) = answer.and_then(|answer| answer.step)
    else {
        panic!("a result must come");
    };
    assert!(result.reattestable);
    let chain = result.svid.unwrap().cert_chain;
    let chain = chain.iter().map(|der| Certificate::from_der(der).unwrap());
    Ok(X509Svid::new(chain.collect(), key).unwrap())
}

/// Attests and gives the agent's path.
async fn attest(server: &TestServer, payload: &Value) -> Result<String, Status> {
    let svid = attested(server, payload).await?;
    Ok(svid.id().path().to_owned())
}

async fn selectors(server: &TestServer, path: &str) -> Vec<String> {
    let request = GetAgentRequest {
        id: Some(types::Spiffeid {
            trust_domain: "example.org".into(),
            path: path.into(),
        }),
        output_mask: None,
    };
    let agent = AgentClient::new(server.local()).get_agent(request).await;
    let selectors = agent.unwrap().into_inner().selectors.into_iter();
    selectors
        .map(|selector| format!("{}:{}", selector.r#type, selector.value))
        .collect()
}

#[tokio::test]
async fn a_token_names_its_node() {
    let scene = Scene::start(|cluster| {
        cluster.allowed_node_label_keys = vec!["zone".to_owned()];
        cluster.allowed_pod_label_keys = vec!["app".to_owned()];
    })
    .await;
    let good = json!({"cluster": "prod", "token": "good"});
    let path = scene.attest(good.clone()).await.unwrap();
    assert_eq!(path, "/spire/agent/k8s_psat/prod/8f3c");
    assert_eq!(
        selectors(&scene.server, &path).await,
        [
            "k8s_psat:agent_node_ip:10.0.0.7",
            "k8s_psat:agent_node_label:zone:a",
            "k8s_psat:agent_node_name:node-1",
            "k8s_psat:agent_node_uid:8f3c",
            "k8s_psat:agent_ns:spire",
            "k8s_psat:agent_pod_label:app:agent",
            "k8s_psat:agent_pod_name:agent-x",
            "k8s_psat:agent_pod_uid:pod-uid",
            "k8s_psat:agent_sa:spire-agent",
            "k8s_psat:cluster:prod",
        ]
    );
    // The same proof is good again.
    assert_eq!(scene.attest(good).await.unwrap(), path);
    let asked = scene.api.world.lock().unwrap().asked[..3].to_vec();
    assert_eq!(
        asked,
        [
            format!("POST {REVIEWS} [\"spire-server\"]"),
            format!("GET {POD} null"),
            format!("GET {NODE} null"),
        ]
    );
}

#[tokio::test]
async fn as_35_tokens_of_others_are_refused() {
    let scene = Scene::start(|_| {}).await;
    {
        let mut world = scene.api.world.lock().unwrap();
        let mut other = review("spire:spire-agent");
        other["audiences"] = json!(["https://kubernetes.default.svc"]);
        world.tokens.insert("other-audience".into(), other);
        let tokens = &mut world.tokens;
        tokens.insert("unauthenticated".into(), json!({"authenticated": false}));
        tokens.insert("account".into(), review("default:spire-agent"));
        let mut unbound = review("spire:spire-agent");
        unbound["user"]["extra"] = json!({});
        tokens.insert("unbound".into(), unbound);
    }
    for (token, reason) in [
        (
            "other-audience",
            "the token is not for the audience spire-server",
        ),
        (
            "unauthenticated",
            "token not authenticated according to TokenReview API",
        ),
        (
            "nobody's",
            "token not authenticated: [invalid bearer token]",
        ),
        (
            "account",
            "\"default:spire-agent\" is not an allowed service account of cluster \"prod\"",
        ),
        (
            "unbound",
            "the token is not bound to a pod; mount a projected service account token",
        ),
    ] {
        let expected = (
            Code::PermissionDenied,
            format!("nodeattestor(k8s_psat): {reason}"),
        );
        assert_eq!(scene.refused(token).await, expected);
    }
}

#[tokio::test]
async fn a_token_is_worth_no_more_than_its_pod() {
    let scene = Scene::start(|_| {}).await;
    let with_pod = async |pod: Option<Value>| {
        {
            let mut world = scene.api.world.lock().unwrap();
            world.objects.remove(POD);
            world.objects.extend(pod.map(|pod| (POD.to_owned(), pod)));
        }
        let (code, message) = scene.refused("good").await;
        assert_eq!(code, Code::PermissionDenied, "{message}");
        message
    };
    assert!(
        with_pod(None)
            .await
            .ends_with("the token's pod spire/agent-x (pod-uid) is gone")
    );
    let replaced = with_pod(Some(pod("another", "node-1"))).await;
    assert!(
        replaced.ends_with("is gone; another pod has its name"),
        "{replaced}"
    );
    let moved = with_pod(Some(pod("pod-uid", "node-2"))).await;
    assert!(moved.contains("for a pod on node \"node-1\""), "{moved}");
    scene.api.world.lock().unwrap().objects.remove(NODE);
    let homeless = with_pod(Some(pod("pod-uid", "node-1"))).await;
    assert!(homeless.contains("which is no node"), "{homeless}");
}

#[tokio::test]
async fn unknown_clusters_are_refused() {
    let scene = Scene::start(|_| {}).await;
    let status = scene
        .attest(json!({"cluster": "test", "token": "good"}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "nodeattestor(k8s_psat): malformed payload: cluster \"test\" is not one of this server's; it knows: prod"
    );
    assert!(scene.api.world.lock().unwrap().asked.is_empty());
}

#[tokio::test]
async fn an_api_server_that_fails_is_not_the_agents_fault() {
    let scene = Scene::start(|_| {}).await;
    let refuse = |path: &str, code: u16| {
        let mut world = scene.api.world.lock().unwrap();
        world.refuse = [(path.to_owned(), code)].into();
    };
    refuse(REVIEWS, 500);
    assert_eq!(scene.refused("good").await.0, Code::Unavailable);
    for (path, what) in [
        (REVIEWS, "create tokenreviews"),
        (POD, "get pods"),
        (NODE, "get nodes"),
    ] {
        refuse(path, 403);
        let (code, message) = scene.refused("good").await;
        assert_eq!(code, Code::Internal);
        assert_eq!(
            message,
            format!("nodeattestor(k8s_psat): this server may not {what} in cluster \"prod\"")
        );
    }
    scene.api.stop();
    let (code, message) = scene.refused("good").await;
    assert_eq!(code, Code::Unavailable, "{message}");
    assert!(
        message.contains("the API server of cluster \"prod\" cannot be asked"),
        "{message}"
    );
}

#[tokio::test]
async fn each_cluster_has_its_own_api_server() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (
        Api::start(dir.path(), "one").await,
        Api::start(dir.path(), "two").await,
    );
    {
        let mut world = two.world.lock().unwrap();
        world
            .tokens
            .insert("good".into(), review("spire:spire-agent"));
        world.objects.insert(POD.into(), pod("pod-uid", "node-1"));
        world.objects.insert(NODE.into(), node());
    }
    let clusters = [("one", &one), ("two", &two)];
    let clusters = clusters.map(|(name, api)| (name.to_owned(), cluster(api)));
    let server = TestServer::start_in(dir, |config| {
        let clusters = clusters.into();
        config.node_attestors.k8s_psat = Some(K8sPsat { clusters });
    })
    .await;
    let of = |cluster: &str| json!({"cluster": cluster, "token": "good"});
    let path = attest(&server, &of("two")).await.unwrap();
    assert_eq!(path, "/spire/agent/k8s_psat/two/8f3c");
    let status = attest(&server, &of("one")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

/// Agents named by their pods get what is registered under their node; and the alias by an agent's own ID holds.
#[tokio::test]
async fn ctl_23_agents_by_pod_uid_stand_for_their_node() {
    let scene = Scene::start(|cluster| cluster.use_pod_uid_for_agent_id = true).await;
    let id = |path: &str| {
        Some(types::Spiffeid {
            trust_domain: "example.org".into(),
            path: path.into(),
        })
    };
    let entry = |name: &str, parent: &str, kind: &str, value: &str| types::Entry {
        spiffe_id: id(name),
        parent_id: id(parent),
        selectors: vec![types::Selector {
            r#type: kind.into(),
            value: value.into(),
        }],
        ..types::Entry::default()
    };
    let path = "/spire/agent/k8s_psat/prod/pod/pod-uid";
    let entries = vec![
        entry("/web", "/spire/agent/k8s_psat/prod/8f3c", "k8s", "ns:shop"),
        entry(
            "/other",
            "/spire/agent/k8s_psat/prod/9999",
            "k8s",
            "ns:shop",
        ),
        entry(
            "/k8s_psat/prod/8f3c",
            "/spire/server",
            "spiffe_id",
            &format!("spiffe://example.org{path}"),
        ),
        entry("/under-alias", "/k8s_psat/prod/8f3c", "k8s", "ns:shop"),
    ];
    let request = BatchCreateEntryRequest {
        entries,
        output_mask: None,
    };
    let created = EntryClient::new(scene.server.local())
        .batch_create_entry(request)
        .await;
    let created = created.unwrap().into_inner().results;
    assert!(
        created
            .iter()
            .all(|one| one.status.as_ref().unwrap().code == 0),
        "{created:?}"
    );
    let payload = json!({"cluster": "prod", "token": "good"});
    let svid = attested(&scene.server, &payload).await.unwrap();
    assert_eq!(svid.id().path(), path);
    let entries = EntryClient::new(scene.server.remote(Some(svid)).await)
        .get_authorized_entries(GetAuthorizedEntriesRequest { output_mask: None })
        .await;
    let entries = entries.unwrap().into_inner().entries.into_iter();
    let mut found: Vec<_> = entries.map(|entry| entry.spiffe_id.unwrap().path).collect();
    found.sort();
    // The alias itself is below the server, not below the agent.
    assert_eq!(found, ["/under-alias", "/web"]);
}
