//! What is to be done about foreign trust domains. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use identity::{Bundle, TrustDomain};
use proto::spire::api::types;
use runtime::config::Problem;
use serde_json::Value as Json;

use crate::controller::config::Class;
use crate::controller::crd::ClusterFederatedTrustDomainSpec;
use crate::controller::desired::Source;
use crate::controller::dry_run::{Preview, Row};
use crate::controller::plan::Action;
use crate::controller::state::Event;
use crate::controller::template::Scope;
use crate::controller::validate::{Federation, federated_trust_domain};

/// A ClusterFederatedTrustDomain.
pub(super) struct Record {
    pub(super) name: String,
    pub(super) generation: i64,
    source: Source,
    pub(super) status: Json,
    pub(super) relation: Result<Federation, Vec<Problem>>,
}

/// All of them, and what the server has.
pub(super) struct Federations {
    scope: Scope,
    class: Class,
    pub(super) records: BTreeMap<String, Record>,
    seen: Option<HashSet<String>>,
    synced: bool,
    /// Those whose relationship is the controller's: no other is ever changed or deleted.
    owned: BTreeSet<TrustDomain>,
    /// Whether a relationship that a resource declares is the controller's, whoever made it.
    adopt: bool,
    pub(super) server: BTreeMap<String, types::FederationRelationship>,
    pub(super) failed: BTreeMap<TrustDomain, String>,
    /// The bundle that was last sent for a trust domain, which `trustDomainBundle` says.
    sent: BTreeMap<TrustDomain, Bundle>,
}

/// What to write.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Writes {
    pub(super) create: Vec<types::FederationRelationship>,
    pub(super) update: Vec<types::FederationRelationship>,
    pub(super) delete: Vec<String>,
}

impl Federations {
    pub(super) fn new(scope: Scope, class: Class, adopt: bool) -> Self {
        Self {
            scope,
            class,
            records: BTreeMap::new(),
            seen: None,
            synced: false,
            owned: BTreeSet::new(),
            adopt,
            server: BTreeMap::new(),
            failed: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Begin(_) => self.seen = Some(HashSet::new()),
            Event::Apply(_, object) => self.apply(object),
            Event::Delete(_, object) => {
                if let Some(uid) = text(&object, "/metadata/uid") {
                    self.records.remove(&uid);
                }
            }
            Event::End(_) => {
                let seen = self.seen.take().unwrap_or_default();
                self.records.retain(|uid, _| seen.contains(uid));
                self.synced = true;
            }
        }
    }

    fn apply(&mut self, object: Json) {
        let Some(uid) = text(&object, "/metadata/uid") else {
            return;
        };
        if let Some(seen) = &mut self.seen {
            seen.insert(uid.clone());
        }
        let raw = object.get("spec").cloned().unwrap_or_default();
        if !self.class.takes(
            raw.get("className")
                .and_then(Json::as_str)
                .unwrap_or_default(),
        ) {
            self.records.remove(&uid);
            return;
        }
        let spec = serde_json::from_value::<ClusterFederatedTrustDomainSpec>(raw);
        let relation = match spec {
            Ok(spec) => federated_trust_domain(&spec, &self.scope),
            Err(error) => Err(vec![Problem {
                path: "spec".to_owned(),
                message: error.to_string(),
            }]),
        };
        let record = Record {
            name: text(&object, "/metadata/name").unwrap_or_default(),
            generation: object
                .pointer("/metadata/generation")
                .and_then(Json::as_i64)
                .unwrap_or(0),
            source: Source {
                tenant: false,
                created: text(&object, "/metadata/creationTimestamp").unwrap_or_default(),
                deleting: text(&object, "/metadata/deletionTimestamp").is_some(),
                uid: uid.clone(),
            },
            status: object.get("status").cloned().unwrap_or_default(),
            relation,
        };
        self.records.insert(uid, record);
    }

    /// What the server has, all of it.
    pub(super) fn listed(&mut self, relations: Vec<types::FederationRelationship>) {
        self.server = relations
            .into_iter()
            .map(|relation| (relation.trust_domain.clone(), relation))
            .collect();
    }

    pub(super) const fn is_synced(&self) -> bool {
        self.synced
    }

    /// What would be written.
    pub(super) fn preview(&mut self) -> Preview {
        let writes = self.plan();
        let wanted = self.wanted();
        let row = |action, subject: &str, reason: &str| Row {
            action,
            subject: subject.to_owned(),
            id: String::new(),
            reason: reason.to_owned(),
        };
        let mut rows = Vec::new();
        for new in &writes.create {
            rows.push(row(Action::Create, &new.trust_domain, "declared"));
        }
        for changed in &writes.update {
            let reason = "differs from what is declared";
            rows.push(row(Action::Update, &changed.trust_domain, reason));
        }
        for gone in &writes.delete {
            rows.push(row(Action::Delete, gone, "nothing declares it"));
        }
        for (name, (_, relation)) in &wanted {
            let there = self.server.get(name.as_str());
            if there.is_some_and(|there| self.is_foreign(there, relation)) {
                let reason = "made by somebody else, differs from what is declared";
                rows.push(row(Action::Keep, name.as_str(), reason));
            }
        }
        let declared = wanted.len();
        Preview { rows, declared }
    }

    /// What the controller made before, by its record.
    pub(super) fn restore(&mut self, owned: BTreeSet<TrustDomain>) {
        self.owned = owned;
    }

    pub(super) const fn owned(&self) -> &BTreeSet<TrustDomain> {
        &self.owned
    }

    pub(super) fn plan(&mut self) -> Writes {
        if self.adopt {
            self.adopt();
        }
        let mut writes = Writes::default();
        let wanted = self.wanted();
        for (trust_domain, (_, relation)) in &wanted {
            match self.server.get(trust_domain.as_str()) {
                None => writes.create.push(wire(relation)),
                Some(there) if !self.same(there, relation) && self.owned.contains(trust_domain) => {
                    writes.update.push(wire(relation));
                }
                Some(_) => {}
            }
        }
        // In doubt, keep: a resource that cannot be read may declare any of them.
        let certain = self.synced && self.records.values().all(|record| record.relation.is_ok());
        if certain {
            let leftover = self.owned.iter();
            let leftover = leftover.filter(|owned| !wanted.contains_key(*owned));
            writes.delete = leftover.map(TrustDomain::to_string).collect();
        }
        // A failure is one only as long as there is something to write.
        let to_write = |name: &TrustDomain| {
            let mut both = writes.create.iter().chain(&writes.update);
            both.any(|relation| relation.trust_domain == name.as_str())
        };
        self.failed.retain(|name, _| to_write(name));
        writes
    }

    fn adopt(&mut self) {
        let wanted: Vec<_> = self.wanted().into_keys().collect();
        let there = |name: &TrustDomain| self.server.contains_key(name.as_str());
        self.owned.extend(wanted.into_iter().filter(there));
    }

    /// What is about to be created is the controller's before it is there: one that is killed amid the call, or hears no
    /// answer, finds what it made.
    pub(super) fn intend(&mut self, writes: &Writes) {
        let new = writes.create.iter().map(|new| new.trust_domain.as_str());
        let new = new.filter_map(|name| TrustDomain::parse(name).ok());
        self.owned.extend(new);
    }

    /// By trust domain, the oldest resource's relation.
    pub(super) fn wanted(&self) -> BTreeMap<TrustDomain, (&Source, &Federation)> {
        let mut wanted: BTreeMap<TrustDomain, (&Source, &Federation)> = BTreeMap::new();
        for record in self.records.values() {
            let Ok(relation) = &record.relation else {
                continue;
            };
            let entry = wanted
                .entry(relation.trust_domain.clone())
                .or_insert((&record.source, relation));
            if record.source < *entry.0 {
                *entry = (&record.source, relation);
            }
        }
        wanted
    }

    pub(super) fn is_foreign(
        &self,
        there: &types::FederationRelationship,
        wanted: &Federation,
    ) -> bool {
        !self.owned.contains(&wanted.trust_domain) && !self.same(there, wanted)
    }

    /// The server's bundle is its own matter, but for one that the resource says anew.
    fn same(&self, there: &types::FederationRelationship, wanted: &Federation) -> bool {
        let plain = wire(&Federation {
            bundle: None,
            ..wanted.clone()
        });
        let sent = self.sent.get(&wanted.trust_domain);
        let new_bundle =
            sent.is_some() && wanted.bundle.is_some() && sent != wanted.bundle.as_ref();
        there.bundle_endpoint_url == plain.bundle_endpoint_url
            && there.bundle_endpoint_profile == plain.bundle_endpoint_profile
            && !new_bundle
    }

    /// What became of a creation. One that was there already is somebody else's.
    pub(super) fn created(&mut self, trust_domain: &str, failure: Option<String>) {
        if failure.is_some() {
            self.deleted(trust_domain);
        }
        self.written(trust_domain, failure);
    }

    /// It is not there any more.
    pub(super) fn deleted(&mut self, trust_domain: &str) {
        self.owned.retain(|owned| owned.as_str() != trust_domain);
    }

    /// What became of a write for `trust_domain`.
    pub(super) fn written(&mut self, trust_domain: &str, failure: Option<String>) {
        let Ok(trust_domain) = TrustDomain::parse(trust_domain) else {
            return;
        };
        match failure {
            Some(message) => drop(self.failed.insert(trust_domain, message)),
            None => {
                self.failed.remove(&trust_domain);
                let bundle = self
                    .wanted()
                    .get(&trust_domain)
                    .and_then(|(_, relation)| relation.bundle.clone());
                if let Some(bundle) = bundle {
                    self.sent.insert(trust_domain, bundle);
                }
            }
        }
    }
}

fn wire(relation: &Federation) -> types::FederationRelationship {
    use types::federation_relationship::BundleEndpointProfile as Profile;
    let profile = match &relation.endpoint {
        Some(id) => Profile::HttpsSpiffe(types::HttpsspiffeProfile {
            endpoint_spiffe_id: id.to_string(),
        }),
        None => Profile::HttpsWeb(types::HttpsWebProfile {}),
    };
    types::FederationRelationship {
        trust_domain: relation.trust_domain.to_string(),
        bundle_endpoint_url: relation.url.clone(),
        bundle_endpoint_profile: Some(profile),
        trust_domain_bundle: relation.bundle.as_ref().map(types::Bundle::from),
    }
}

fn text(object: &Json, path: &str) -> Option<String> {
    object
        .pointer(path)
        .and_then(Json::as_str)
        .map(str::to_owned)
}
