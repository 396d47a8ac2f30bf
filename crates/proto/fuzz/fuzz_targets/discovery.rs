#![no_main]
//! Envoy's requests in their slim form: what Envoy's own messages read, the slim ones read too, and the same.

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use proto::envoy::discovery as full;

fn whole(input: &[u8]) {
    let Ok(theirs) = full::DiscoveryRequest::decode(input) else {
        return;
    };
    let ours = DiscoveryRequest::decode(input).expect("what has less fields is easier to read");
    assert_eq!(ours.version_info, theirs.version_info);
    assert_eq!(ours.resource_names, theirs.resource_names);
    assert_eq!(ours.type_url, theirs.type_url);
    assert_eq!(ours.response_nonce, theirs.response_nonce);
    let node = |id: &str, cluster: &str| (id.to_owned(), cluster.to_owned());
    assert_eq!(
        ours.node.map(|one| node(&one.id, &one.cluster)),
        theirs.node.map(|one| node(&one.id, &one.cluster))
    );
    assert_eq!(
        ours.error_detail.map(|one| (one.code, one.message)),
        theirs.error_detail.map(|one| (one.code, one.message))
    );
}

fn delta(input: &[u8]) {
    let Ok(theirs) = full::DeltaDiscoveryRequest::decode(input) else {
        return;
    };
    let ours =
        DeltaDiscoveryRequest::decode(input).expect("what has less fields is easier to read");
    assert_eq!(
        ours.resource_names_subscribe,
        theirs.resource_names_subscribe
    );
    assert_eq!(
        ours.resource_names_unsubscribe,
        theirs.resource_names_unsubscribe
    );
    assert!(
        ours.initial_resource_versions
            .into_iter()
            .eq(sorted(theirs.initial_resource_versions))
    );
    assert_eq!(ours.type_url, theirs.type_url);
    assert_eq!(ours.response_nonce, theirs.response_nonce);
}

fn sorted(
    map: impl IntoIterator<Item = (String, String)>,
) -> std::collections::BTreeMap<String, String> {
    map.into_iter().collect()
}

fuzz_target!(|input: &[u8]| {
    whole(input);
    delta(input);
});
