use serde_json::{Value, json};

use super::*;

fn status(value: Value) -> TokenReviewStatus {
    serde_json::from_value(value).unwrap()
}

/// What Kubernetes 1.37 says of a good token.
fn good() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["spire-server"],
        "user": {
            "username": "system:serviceaccount:spire:spire-agent",
            "uid": "a",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:spire", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/credential-id": ["JTI=1"],
                "authentication.kubernetes.io/node-name": ["node-1"],
                "authentication.kubernetes.io/node-uid": ["node-uid"],
                "authentication.kubernetes.io/pod-name": ["agent-x"],
                "authentication.kubernetes.io/pod-uid": ["pod-uid"],
            }
        }
    })
}

fn ours() -> Vec<String> {
    vec!["spire-server".to_owned()]
}

fn good_bound() -> Bound {
    bound(&status(good()), &ours()).unwrap()
}

#[test]
fn a_review_names_account_pod_and_node() {
    let expected = Bound {
        namespace: "spire".into(),
        account: "spire-agent".into(),
        pod: "agent-x".into(),
        pod_uid: "pod-uid".into(),
        node: Some("node-1".into()),
        node_uid: Some("node-uid".into()),
    };
    assert_eq!(good_bound(), expected);
    // The API server's own audience is not told by older ones.
    let mut without = good();
    without["audiences"] = Value::Null;
    assert_eq!(bound(&status(without), &[]).unwrap(), expected);
}

/// AS-35: whatever is missing or odd, the answer is no.
#[test]
fn as_35_twenty_malformed_reviews_admit_nobody() {
    let user = |key: &str, value: Value| {
        let mut review = good();
        review["user"][key] = value;
        review
    };
    let extra = |key: &str, value: Value| {
        let mut review = good();
        let extra = review["user"]["extra"].as_object_mut().unwrap();
        let key = format!("authentication.kubernetes.io/{key}");
        match value {
            Value::Null => extra.remove(&key),
            value => extra.insert(key, value),
        };
        review
    };
    let top = |key: &str, value: Value| {
        let mut review = good();
        review[key] = value;
        review
    };
    let malformed = [
        json!({}),
        json!({"authenticated": false}),
        json!({"authenticated": true}),
        top("authenticated", Value::Null),
        top("authenticated", json!(false)),
        top("error", json!("[invalid bearer token, expired]")),
        top("audiences", Value::Null),
        top("audiences", json!([])),
        top("audiences", json!(["https://kubernetes.default.svc"])),
        top("audiences", json!(["spire-server-2"])),
        top("user", Value::Null),
        user("username", Value::Null),
        user("username", json!("")),
        user("username", json!("alice")),
        user("username", json!("system:node:node-1")),
        user("username", json!("system:serviceaccount:spire")),
        user("username", json!("system:serviceaccount::spire-agent")),
        user("username", json!("system:serviceaccount:spire:")),
        user(
            "username",
            json!("system:serviceaccount:spire:spire-agent:x"),
        ),
        user("extra", Value::Null),
        extra("pod-name", Value::Null),
        extra("pod-name", json!([])),
        extra("pod-name", json!([""])),
        extra("pod-uid", json!(["one", "two"])),
        extra("pod-uid", Value::Null),
    ];
    for review in malformed {
        let refused = bound(&status(review.clone()), &ours());
        assert!(refused.is_err(), "{review}");
    }
}

#[test]
fn the_pod_that_lives_must_be_the_tokens() {
    let pod = |uid: &str, account: &str, node: &str| -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "agent-x", "namespace": "spire", "uid": uid},
            "spec": {"serviceAccountName": account, "nodeName": node, "containers": []},
        }))
        .unwrap()
    };
    let bound = good_bound();
    let right = pod("pod-uid", "spire-agent", "node-1");
    assert_eq!(node_of(&right, &bound), Ok("node-1"));
    for wrong in [
        pod("another", "spire-agent", "node-1"),
        pod("pod-uid", "default", "node-1"),
        pod("pod-uid", "spire-agent", ""),
        pod("pod-uid", "spire-agent", "node-2"),
        Pod::default(),
    ] {
        assert!(node_of(&wrong, &bound).is_err(), "{wrong:?}");
    }
    let node = |uid: &str| -> Node {
        serde_json::from_value(json!({"metadata": {"name": "node-1", "uid": uid}})).unwrap()
    };
    assert_eq!(node_uid(&node("node-uid"), &bound), Ok("node-uid"));
    assert!(node_uid(&node("new-node"), &bound).is_err());
    assert!(node_uid(&node(""), &bound).is_err());
}

#[test]
fn a_bad_payload_is_refused_and_not_shown() {
    let long = format!("{{\"cluster\":\"{}\"}}", "x".repeat(MAX_PAYLOAD_LEN));
    for payload in [
        "",
        "secret-token",
        "null",
        "[]",
        r#"{"token": "secret-token"}"#,
        r#"{"cluster": "prod"}"#,
        r#"{"cluster": "", "token": "secret-token"}"#,
        r#"{"cluster": 1, "token": "secret-token"}"#,
        r#"{"cluster": "prod", "token": ["secret-token"]}"#,
        &long,
    ] {
        let Err(error) = read(payload.as_bytes()) else {
            panic!("{payload:?} was read");
        };
        let text = error.to_string();
        assert!(matches!(error, RpcError::InvalidArgument(_)), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    let read =
        read(br#"{"cluster": "prod", "token": "t", "more": 1}"#).unwrap_or_else(|_| panic!());
    assert_eq!((read.cluster.as_str(), read.token.as_str()), ("prod", "t"));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_given_up() {
    // Accepts connections and never reads from them.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let content = json!({
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": format!("http://{address}")}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "users": [{"name": "it", "user": {}}],
    });
    std::fs::write(&file, content.to_string()).unwrap();
    let cluster = K8sCluster {
        service_account_allow_list: vec!["spire:spire-agent".to_owned()],
        audience: ours(),
        kube_config_file: Some(file),
        allowed_node_label_keys: Vec::new(),
        allowed_pod_label_keys: Vec::new(),
        use_pod_uid_for_agent_id: false,
    };
    let clusters = [("prod".to_owned(), cluster)].into();
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let attestor = K8sPsat::build(&config::K8sPsat { clusters }, &trust_domain).await;
    let attestor = attestor.unwrap_or_else(|error| panic!("{error}"));
    let started = tokio::time::Instant::now();
    let answer = attestor
        .attest(br#"{"cluster": "prod", "token": "t"}"#)
        .await;
    assert!(
        matches!(answer, Err(RpcError::Unavailable(_))),
        "{answer:?}"
    );
    assert!(started.elapsed() <= api::TIMEOUT);
}

#[tokio::test]
async fn credentials_that_are_not_there_stop_the_server() {
    let cluster = |file: Option<&str>| K8sCluster {
        service_account_allow_list: vec!["spire:spire-agent".to_owned()],
        audience: ours(),
        kube_config_file: file.map(Into::into),
        allowed_node_label_keys: Vec::new(),
        allowed_pod_label_keys: Vec::new(),
        use_pod_uid_for_agent_id: false,
    };
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let refused = async |file| {
        let clusters = [("prod".to_owned(), cluster(file))].into();
        let built = K8sPsat::build(&config::K8sPsat { clusters }, &trust_domain).await;
        built.err().unwrap().to_string()
    };
    let text = refused(Some("/nowhere/kubeconfig")).await;
    assert!(
        text.starts_with(
            "NodeAttestor \"k8s_psat\": cluster \"prod\": kube_config_file /nowhere/kubeconfig: "
        ),
        "{text}"
    );
    let text = refused(None).await;
    assert!(
        text.contains("does not run in a pod") && text.ends_with("name a kube_config_file"),
        "{text}"
    );
}
