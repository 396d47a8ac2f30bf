use serde_json::json;

use super::*;
use crate::controller::config;
use crate::controller::desired::Key;

fn policies(tenants: &str) -> Result<Policies, String> {
    let text = format!("clusterName: c\ntrustDomain: example.org\nsignet:\n  tenants: {tenants}\n");
    let config = config::read(&text, None).map_err(|problems| problems.to_string())?;
    Ok(config.tenants)
}

const TEAMS: &str = "[{namespaceSelector: {matchLabels: {team: a}}, pathPrefix: '/ns/{namespace}/', maxTtl: 1h, dnsNameSuffixes: ['{namespace}.svc'], federatesWith: [b.org]}]";

fn shop() -> Pod {
    let pod = json!({ "metadata": { "name": "p", "uid": "p", "namespace": "shop" }, "spec": {} });
    Pod::read(pod).unwrap()
}

fn wanted(path: &str, change: impl FnOnce(&mut Wanted)) -> Wanted {
    let domain = TrustDomain::new("example.org").unwrap();
    let id = |path: &str| SpiffeId::new(&domain, path).unwrap();
    let selector = identity::Selector::new("k8s", "pod-uid:p").unwrap();
    let mut wanted = Wanted {
        key: Key {
            spiffe_id: id(path),
            parent_id: id("/agent"),
            selectors: [selector].into_iter().collect(),
        },
        x509_svid_ttl: None,
        jwt_svid_ttl: None,
        federates_with: BTreeSet::new(),
        admin: false,
        downstream: false,
        dns_names: Vec::new(),
        hint: String::new(),
        store_svid: false,
    };
    change(&mut wanted);
    wanted
}

fn admit(wanted: Wanted) -> Result<Wanted, String> {
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let policies = policies(TEAMS).unwrap();
    let of_services = BTreeSet::from(["web".to_owned(), "web.shop.svc".to_owned()]);
    policies
        .of(&labels)
        .unwrap()
        .admit(wanted, &shop(), &of_services)
}

#[test]
fn ctl_15_nobody_may_unless_a_policy_takes_the_namespace() {
    assert!(policies("[]").unwrap().of(&BTreeMap::new()).is_none());
    let teams = policies(TEAMS).unwrap();
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    assert!(teams.of(&labels("a")).is_some() && teams.of(&labels("b")).is_none());
}

#[test]
fn ctl_15_ids_stay_below_the_namespaces_path() {
    for good in ["/ns/shop", "/ns/shop/web"] {
        assert!(admit(wanted(good, |_| ())).is_ok(), "{good}");
    }
    for bad in ["/ns/shopping/web", "/ns/other/web", "/ns", "/web"] {
        let refused = admit(wanted(bad, |_| ())).unwrap_err();
        assert!(refused.contains("below /ns/shop only"), "{refused}");
    }
}

#[test]
fn ctl_15_lifetimes_are_capped_and_asked_for_or_not() {
    let ttl = |seconds: Option<u64>| {
        let wanted = wanted("/ns/shop/web", |wanted| {
            wanted.x509_svid_ttl = seconds.map(Duration::from_secs);
        });
        admit(wanted).map(|wanted| (wanted.x509_svid_ttl, wanted.jwt_svid_ttl))
    };
    let hour = Some(Duration::from_secs(3600));
    assert_eq!(ttl(None), Ok((hour, None)));
    assert_eq!(ttl(Some(60)), Ok((Some(Duration::from_secs(60)), None)));
    assert!(
        ttl(Some(3601))
            .unwrap_err()
            .contains("longer than the 3600s")
    );
}

#[test]
fn ctl_15_names_end_as_allowed_and_those_of_services_are_left_out() {
    let names = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let wanted = wanted("/ns/shop/web", |wanted| wanted.dns_names = names);
        admit(wanted).map(|wanted| wanted.dns_names)
    };
    assert_eq!(names(&["web.shop.svc", "web"]).unwrap(), ["web.shop.svc"]);
    assert_eq!(names(&["a.web.shop.svc"]).unwrap(), ["a.web.shop.svc"]);
    for bad in ["vault.infra.svc", "workshop.svc", "google.com"] {
        let refused = names(&[bad]).unwrap_err();
        assert!(refused.contains("end in shop.svc"), "{refused}");
    }
}

#[test]
fn ctl_15_other_trust_domains_and_other_pods_are_not_for_the_asking() {
    let federates = |name: &str| {
        let name = TrustDomain::new(name).unwrap();
        admit(wanted("/ns/shop/web", |wanted| {
            wanted.federates_with.insert(name);
        }))
    };
    assert!(federates("b.org").is_ok());
    assert!(federates("c.org").unwrap_err().contains("c.org"));
    let other = wanted("/ns/shop/web", |wanted| {
        let other = identity::Selector::new("k8s", "pod-uid:other").unwrap();
        let all = wanted.key.selectors.iter().cloned().chain([other]);
        wanted.key.selectors = all.collect();
    });
    assert!(admit(other).unwrap_err().contains("another pod"));
}

#[test]
fn ctl_15_a_policy_that_gives_more_than_it_says_is_refused() {
    for (tenants, expected) in [
        ("{a: b}", "signet.tenants: give a list"),
        (
            "[{pathPrefix: '/ns/{namespace}'}]",
            "signet.tenants[0]: missing field `namespaceSelector`",
        ),
        (
            "[{namespaceSelector: {matchLabel: {a: b}}, pathPrefix: '/ns/{namespace}'}]",
            "unknown key \"matchLabel\"",
        ),
        (
            "[{namespaceSelector: {}, pathPrefix: /ns}]",
            "does not hold {namespace}",
        ),
        (
            "[{namespaceSelector: {}, pathPrefix: 'ns/{namespace}'}]",
            "does not begin with a slash",
        ),
        (
            "[{namespaceSelector: {}, pathPrefix: '/ns/x-{namespace}'}]",
            "is no segment",
        ),
        (
            "[{namespaceSelector: {}, pathPrefix: '/spire/{namespace}'}]",
            "the server's own",
        ),
        (
            "[{namespaceSelector: {}, pathPrefix: '/{namespace}', admin: true}]",
            "unknown field `admin`",
        ),
        (
            "[{namespaceSelector: {}, pathPrefix: '/{namespace}', maxTtl: soon}]",
            "maxTtl: \"soon\"",
        ),
        (
            "[{namespaceSelector: {}, pathPrefix: '/{namespace}', dnsNameSuffixes: ['a b']}]",
            "dnsNameSuffixes: \"a b\"",
        ),
    ] {
        let problems = policies(tenants).unwrap_err();
        assert!(
            problems.contains(expected),
            "{expected:?} is not in {problems}"
        );
    }
}
