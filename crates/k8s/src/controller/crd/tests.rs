use std::path::Path;

use super::*;

/// `manifests/crds` is what this crate says; `SIGNET_UPDATE=1` writes it anew.
#[test]
#[expect(clippy::disallowed_methods, reason = "the switch of a test")]
fn crd_manifests_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds");
    for (name, text) in manifests().unwrap() {
        let path = folder.join(name);
        if std::env::var("SIGNET_UPDATE").is_ok() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{}: run SIGNET_UPDATE=1 cargo test -p k8s crd_manifests",
            path.display()
        );
    }
}

fn schema(of: usize) -> serde_json::Value {
    let json = serde_json::to_value(&all()[of]).unwrap();
    json["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].clone()
}

/// The names and types of SPIRE's controller manager, field for field.
#[test]
fn ctl_01_fields_are_those_of_spire() {
    let names = |of: usize| {
        let schema = schema(of);
        let field = |(name, field): (&String, &serde_json::Value)| {
            format!("{name}:{}", field["type"].as_str().unwrap_or("?"))
        };
        schema["spec"]["properties"]
            .as_object()
            .unwrap()
            .iter()
            .map(field)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        names(0),
        "admin:boolean autoPopulateDNSNames:boolean className:string dnsNameTemplates:array downstream:boolean fallback:boolean federatesWith:array hint:string jwtTtl:string namespaceSelector:object podSelector:object spiffeIDTemplate:string ttl:string workloadSelectorTemplates:array"
    );
    assert_eq!(
        names(1),
        "admin:boolean className:string dnsNames:array downstream:boolean federatesWith:array hint:string jwtSVIDTTL:string parentID:string selectors:array spiffeID:string storeSVID:boolean x509SVIDTTL:string"
    );
    assert_eq!(
        names(2),
        "bundleEndpointProfile:object bundleEndpointURL:string className:string trustDomain:string trustDomainBundle:string"
    );
    assert_eq!(
        names(3),
        "autoPopulateDNSNames:boolean className:string dnsNameTemplates:array federatesWith:array hint:string jwtTtl:string podSelector:object spiffeIDTemplate:string ttl:string workloadSelectorTemplates:array",
        "a tenant asks for neither admin nor downstream"
    );
    for of in 0..4 {
        assert!(schema(of)["status"]["properties"]["conditions"].is_object());
    }
}

#[test]
fn ctl_01_only_what_spire_demands_is_required() {
    let required = |of: usize| schema(of)["spec"]["required"].clone();
    assert_eq!(required(0), serde_json::json!(["spiffeIDTemplate"]));
    assert_eq!(
        required(1),
        serde_json::json!(["parentID", "selectors", "spiffeID"])
    );
    assert_eq!(
        required(2),
        serde_json::json!(["bundleEndpointProfile", "bundleEndpointURL", "trustDomain"])
    );
    assert!(
        !schema(0).to_string().contains("uint"),
        "Kubernetes knows no unsigned formats"
    );
}

#[test]
fn rules_are_in_the_schema() {
    assert!(
        schema(0)["spec"]["properties"]["workloadSelectorTemplates"]["x-kubernetes-validations"]
            .is_array()
    );
    assert!(
        schema(2)["spec"]["properties"]["bundleEndpointProfile"]["x-kubernetes-validations"]
            .is_array()
    );
}
