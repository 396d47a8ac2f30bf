//! A template of a custom resource, read and rendered: always an answer, soon.
#![no_main]

use identity::TrustDomain;
use k8s::controller::template::{Data, Scope, Sees, Template};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let Ok(template) = Template::compile(source, Sees::Pod) else {
        return;
    };
    let Ok(trust_domain) = TrustDomain::new("example.org") else {
        return;
    };
    let scope = Scope {
        trust_domain,
        cluster_name: "c".to_owned(),
        cluster_domain: None,
    };
    let pod = serde_json::json!({
        "metadata": { "name": "web-0", "namespace": "shop", "uid": "u", "labels": { "app": "web" } },
        "spec": { "serviceAccountName": "buyer", "containers": [{ "name": "app" }] },
    });
    let data = Data::new([&template], &scope, &pod, &serde_json::Value::Null);
    if let Ok(text) = template.render(&data) {
        assert!(text.len() <= 4608);
    }
});
