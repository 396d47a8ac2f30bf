use std::time::UNIX_EPOCH;

use identity::{SpiffeId, TrustDomain, X509Authority};

use super::*;

fn roots() -> Roots {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut bundle = Bundle::empty(TrustDomain::new("example.org").unwrap());
    let id = SpiffeId::parse("spiffe://example.org/ca").unwrap();
    let authority = testkit::forge(&id, now).leaf().clone();
    bundle.x509_authorities = vec![X509Authority::new(authority)];
    Roots::of(&bundle)
}

fn webhooks(ca_bundles: [&str; 2]) -> Json {
    let config = |name: &str, ca_bundle: &str| {
        json!({ "name": name, "clientConfig": {
            "service": { "namespace": "shop", "name": "policy" }, "caBundle": ca_bundle,
        } })
    };
    let [a, b] = ca_bundles;
    json!({ "metadata": { "name": "x" }, "webhooks": [config("a", a), config("b", b)] })
}

fn service(ca_bundle: &str) -> Json {
    let service = json!({ "namespace": "shop", "name": "api" });
    json!({ "metadata": { "name": "x" }, "spec": { "service": service, "caBundle": ca_bundle, "group": "g" } })
}

fn conversion(ca_bundle: &str) -> Json {
    let config = json!({ "url": "https://shop.example/convert", "caBundle": ca_bundle });
    let webhook = json!({ "clientConfig": config, "conversionReviewVersions": ["v1"] });
    json!({ "metadata": { "name": "x" }, "spec": { "conversion": { "strategy": "Webhook", "webhook": webhook } } })
}

fn check(place: Place, object: &Json, wanted: &Roots) -> Result<Option<Json>, &'static str> {
    let resource = ApiResource::erase::<APIService>(&());
    let patch = right(place, &resource, object, wanted)?;
    Ok(patch.map(|mut patch| {
        let head = patch.as_object_mut().unwrap();
        assert_eq!(head.remove("kind"), Some(json!("APIService")));
        assert_eq!(
            head.remove("apiVersion"),
            Some(json!("apiregistration.k8s.io/v1"))
        );
        assert_eq!(head.remove("metadata"), Some(json!({ "name": "x" })));
        patch
    }))
}

#[test]
fn ctl_20_what_is_applied_holds_the_ca_bundle_alone() {
    let wanted = roots();
    let right = wanted.to_ca_bundle();
    let config = json!({ "caBundle": right });
    let both =
        json!([{ "name": "a", "clientConfig": config }, { "name": "b", "clientConfig": config }]);
    for wrong in ["", "LS0t", "%%"] {
        let of_webhooks = check(Place::Webhooks, &webhooks([&right, wrong]), &wanted);
        assert_eq!(of_webhooks, Ok(Some(json!({ "webhooks": both }))));
        let of_service = check(Place::Service, &service(wrong), &wanted);
        assert_eq!(of_service, Ok(Some(json!({ "spec": config }))));
        let of_conversion = check(Place::Conversion, &conversion(wrong), &wanted);
        let patch = json!({ "spec": { "conversion": { "webhook": { "clientConfig": config } } } });
        assert_eq!(of_conversion, Ok(Some(patch)));
    }
    assert_eq!(
        check(Place::Webhooks, &webhooks([&right, &right]), &wanted),
        Ok(None)
    );
    assert_eq!(check(Place::Service, &service(&right), &wanted), Ok(None));
    assert_eq!(
        check(Place::Conversion, &conversion(&right), &wanted),
        Ok(None)
    );
}

#[test]
fn ctl_20_what_has_no_place_for_a_ca_bundle_is_told() {
    let mut insecure = service("");
    insecure["spec"]["insecureSkipTLSVerify"] = json!(true);
    for (place, object, told) in [
        (Place::Webhooks, json!({}), "no webhooks"),
        (
            Place::Service,
            json!({ "spec": { "group": "g" } }),
            "itself",
        ),
        (Place::Service, insecure, "insecureSkipTLSVerify"),
        (
            Place::Conversion,
            json!({ "spec": { "conversion": { "strategy": "None" } } }),
            "no webhook converts it",
        ),
    ] {
        let why = check(place, &object, &roots()).unwrap_err();
        assert!(why.contains(told), "{why}");
    }
}
