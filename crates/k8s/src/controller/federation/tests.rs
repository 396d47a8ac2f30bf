use std::collections::BTreeSet;

use identity::TrustDomain;
use proto::spire::api::types::FederationRelationship;
use serde_json::{Value as Json, json};

use super::plan::{Federations, Writes};
use crate::controller::config::Class;
use crate::controller::state::{Event, Kind};
use crate::controller::template::Scope;

const KIND: Kind = Kind::FederatedTrustDomain;

/// As a guide prints it.
const STAGING: &str = r#"
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterFederatedTrustDomain
metadata:
  name: staging
  uid: u-staging
  generation: 1
  creationTimestamp: "2026-01-01T00:00:00Z"
spec:
  className: spire-mgmt
  trustDomain: "staging.ai.internal"
  bundleEndpointURL: "https://spire-server.staging.ai.internal/bundle"
  bundleEndpointProfile:
    type: https_spiffe
    endpointSPIFFEID: "spiffe://staging.ai.internal/spire/server"
"#;

fn federations(class: &str) -> Federations {
    adopting(class, false)
}

fn adopting(class: &str, adopt: bool) -> Federations {
    let scope = Scope {
        trust_domain: TrustDomain::new("ai.internal").unwrap(),
        cluster_name: "c".to_owned(),
        cluster_domain: None,
    };
    Federations::new(
        scope,
        Class {
            name: class.to_owned(),
            watch_classless: false,
        },
        adopt,
    )
}

/// Makes what is planned to be made.
fn create(all: &mut Federations) -> Vec<FederationRelationship> {
    let writes = all.plan();
    all.intend(&writes);
    let create = writes.create;
    for relation in &create {
        all.created(&relation.trust_domain, None);
    }
    all.listed(create.clone());
    create
}

fn staging() -> Json {
    serde_saphyr::from_str(STAGING).unwrap()
}

fn listed(all: &mut Federations, objects: &[Json]) {
    all.take(Event::Begin(KIND));
    for object in objects {
        all.take(Event::Apply(KIND, object.clone()));
    }
    all.take(Event::End(KIND));
}

#[test]
fn the_guides_resource_is_created_once() {
    let mut all = federations("spire-mgmt");
    listed(&mut all, &[staging()]);
    let create = all.plan().create;
    assert_eq!(create[0].trust_domain, "staging.ai.internal");
    assert_eq!(
        all.statuses("t")[0].status["conditions"][0]["reason"],
        "Writing"
    );
    all.listed(create);
    assert_eq!(all.plan(), Writes::default());
    assert_eq!(
        all.statuses("t")[0].status["conditions"][0]["reason"],
        "NoBundle"
    );
    assert!(all.statuses("t").is_empty(), "told once");
}

#[test]
fn another_class_is_left_alone() {
    let mut all = federations("");
    listed(&mut all, &[staging()]);
    assert_eq!(all.plan(), Writes::default());
}

#[test]
fn only_what_was_made_is_deleted() {
    let mut all = federations("spire-mgmt");
    listed(&mut all, &[staging()]);
    let mut server = create(&mut all);
    let mut foreign = server[0].clone();
    foreign.trust_domain = "manual.example".to_owned();
    server.push(foreign);
    all.listed(server);
    all.take(Event::Delete(KIND, staging()));
    assert_eq!(all.plan().delete, ["staging.ai.internal"]);
    // A resource that cannot be read may declare it.
    let mut broken = staging();
    broken["metadata"]["uid"] = json!("u-broken");
    broken["spec"]["bundleEndpointURL"] = json!("nowhere");
    all.take(Event::Apply(KIND, broken));
    assert_eq!(all.plan(), Writes::default());
    assert_eq!(
        all.statuses("t")[0].status["conditions"][1]["status"],
        "True",
        "degraded"
    );
}

#[test]
fn a_change_is_an_update_and_the_oldest_holds() {
    let mut all = federations("spire-mgmt");
    listed(&mut all, &[staging()]);
    create(&mut all);
    let mut younger = staging();
    younger["metadata"] =
        json!({ "name": "younger", "uid": "u-2", "creationTimestamp": "2026-02-01T00:00:00Z" });
    younger["spec"]["bundleEndpointURL"] = json!("https://elsewhere/");
    all.take(Event::Apply(KIND, younger));
    assert_eq!(all.plan(), Writes::default());
    assert!(
        all.statuses("t")
            .iter()
            .any(|update| update.status["conditions"][0]["reason"] == "Masked")
    );
    let mut changed = staging();
    changed["spec"]["bundleEndpointURL"] = json!("https://new/");
    all.take(Event::Apply(KIND, changed));
    assert_eq!(all.plan().update[0].bundle_endpoint_url, "https://new/");
    all.written("staging.ai.internal", Some("no".to_owned()));
    assert!(
        all.statuses("t")
            .iter()
            .any(|update| update.status["conditions"][0]["reason"] == "Refused")
    );
}

#[test]
fn ctl_10_what_went_while_no_controller_ran_goes_by_the_record() {
    let mut all = federations("spire-mgmt");
    listed(&mut all, &[staging()]);
    let writes = all.plan();
    all.intend(&writes);
    let record = all.owned().clone();
    assert_eq!(
        record,
        BTreeSet::from([TrustDomain::new("staging.ai.internal").unwrap()]),
        "written down before it is made"
    );
    // Another process, after the resource was removed.
    let mut later = federations("spire-mgmt");
    later.restore(record);
    later.listed(writes.create);
    assert_eq!(later.plan(), Writes::default(), "nothing listed yet");
    listed(&mut later, &[]);
    assert_eq!(later.plan().delete, ["staging.ai.internal"]);
    later.deleted("staging.ai.internal");
    assert!(later.owned().is_empty());
    assert_eq!(later.plan(), Writes::default());
}

#[test]
fn ctl_10_what_somebody_else_made_is_left_alone() {
    let reason = |all: &mut Federations| {
        let updates = all.statuses("t");
        updates[0].status["conditions"][0]["reason"].clone()
    };
    let mut all = federations("spire-mgmt");
    listed(&mut all, &[staging()]);
    let writes = all.plan();
    all.intend(&writes);
    let mut server = writes.create;
    all.created("staging.ai.internal", Some("already exists".to_owned()));
    assert!(all.owned().is_empty(), "it was there before");
    // One that says the same serves; it does not become ours.
    all.listed(server.clone());
    all.written("staging.ai.internal", None);
    assert_eq!(all.plan(), Writes::default());
    assert_eq!(reason(&mut all), "NoBundle");
    server[0].bundle_endpoint_url = "https://elsewhere/".to_owned();
    all.listed(server.clone());
    assert_eq!(all.plan(), Writes::default());
    assert_eq!(reason(&mut all), "Foreign");
    listed(&mut all, &[]);
    assert_eq!(all.plan(), Writes::default());
}

#[test]
fn ctl_10_what_a_resource_declares_is_adopted_when_asked() {
    let mut all = adopting("spire-mgmt", true);
    listed(&mut all, &[staging()]);
    let mut server = all.plan().create;
    server[0].bundle_endpoint_url = "https://elsewhere/".to_owned();
    all.listed(server);
    assert_eq!(all.plan().update.len(), 1);
    listed(&mut all, &[]);
    assert_eq!(all.plan().delete, ["staging.ai.internal"]);
}
