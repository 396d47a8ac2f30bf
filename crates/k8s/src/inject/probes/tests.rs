//! INJ-13: what is asked of Envoy, and what is put back.

use super::*;

fn pod(container: Value) -> Value {
    json!({"spec": {"containers": [container]}})
}

fn probe(handler: &Value) -> Value {
    json!({
        "name": "app",
        "ports": [{"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53}],
        "readinessProbe": handler,
    })
}

fn found(handler: &Value) -> Option<Probe> {
    find(&pod(probe(handler)), &[8080]).pop()
}

#[test]
fn inj_13_handlers_of_every_kind() {
    let http = |path: &str, tls| Check::Http {
        path: path.to_owned(),
        tls,
    };
    let grpc = |service: &str| Check::Grpc {
        service: service.to_owned(),
    };
    for (handler, check) in [
        (
            json!({"httpGet": {"path": "/a?b=c#d", "port": 8080}}),
            Some(http("/a?b=c", false)),
        ),
        (
            json!({"httpGet": {"path": "a", "port": "web", "scheme": "HTTPS"}}),
            Some(http("/a", true)),
        ),
        (
            json!({"httpGet": {"port": 8080, "host": ""}}),
            Some(http("/", false)),
        ),
        (json!({"tcpSocket": {"port": "web"}}), Some(Check::Tcp)),
        (json!({"grpc": {"port": 8080}}), Some(grpc(""))),
        (
            json!({"grpc": {"port": 8080, "service": "x"}}),
            Some(grpc("x")),
        ),
        // Not captured, not there, elsewhere, nowhere.
        (json!({"tcpSocket": {"port": "dns"}}), None),
        (json!({"tcpSocket": {"port": "none"}}), None),
        (
            json!({"httpGet": {"port": 8080, "host": "example.org"}}),
            None,
        ),
        (json!({"exec": {"command": ["true"]}}), None),
        (json!({"httpGet": "x"}), None),
        (json!("x"), None),
    ] {
        assert_eq!(found(&handler).map(|probe| probe.check), check, "{handler}");
    }
}

/// A name means a port of the same container, whatever others have.
#[test]
fn names_are_of_the_own_container() {
    let other = json!({"name": "other", "ports": [{"name": "web", "containerPort": 9}], "livenessProbe": {"tcpSocket": {"port": "web"}}});
    let mut both = pod(probe(&json!({"tcpSocket": {"port": "web"}})));
    both["spec"]["initContainers"] = json!([other]);
    let ports: Vec<u16> = find(&both, &[8080, 9])
        .iter()
        .map(|probe| probe.port)
        .collect();
    assert_eq!(ports, [8080, 9]);
}

#[test]
fn inj_13_headers_stay_and_hooks_are_found() {
    let headers = json!([{"name": "X", "value": "1"}]);
    let get =
        json!({"httpGet": {"path": "/x", "port": 8080, "scheme": "HTTPS", "httpHeaders": headers}});
    let container = json!({"name": "app", "lifecycle": {"postStart": get, "preStop": {"tcpSocket": {"port": 8080}}}});
    let found = find(&pod(container), &[8080]);
    assert_eq!(found.len(), 1, "the kubelet knows no TCP hooks");
    assert_eq!(
        found[0].http_get(15021),
        json!({"path": "/signet/app/post-start", "port": 15021, "scheme": "HTTP", "httpHeaders": headers})
    );
    let place = found[0].place(&pod(json!({"name": "app"})));
    assert_eq!(
        place.expect("a place").join("/"),
        "spec/containers/0/lifecycle/postStart"
    );
}

#[test]
fn only_ours_is_put_back() {
    let before = probe(&json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1}));
    let probe_found = found(&before["readinessProbe"]).expect("a probe");
    let status = [probe_found.repointed()];
    let mut changed = before.clone();
    changed["readinessProbe"] = json!({"httpGet": probe_found.http_get(15021), "periodSeconds": 1});
    let mut restored = json!({"containers": [changed]});
    put_back(&mut restored, &status);
    assert_eq!(restored["containers"][0], before);
    let mut theirs = restored.clone();
    theirs["containers"][0]["readinessProbe"] = json!({"httpGet": {"path": "/new", "port": 1}});
    let kept = theirs.clone();
    put_back(&mut theirs, &status);
    assert_eq!(theirs, kept);
}
