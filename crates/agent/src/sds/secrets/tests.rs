use identity::X509Authority;
use proptest::{prelude::*, sample::subsequence};
use prost::Message as _;
use proto::envoy::{
    Any,
    core::{DataSource, data_source::Specifier},
    tls::{SpiffeCertValidatorConfig, secret::Type},
};

use super::*;
use crate::sds::fixtures::{DAY, Domain, federating, now, secret};

fn look_up(
    secrets: &Secrets,
    view: &WorkloadView,
    text: &str,
    style: impl Into<Style>,
) -> Result<Resource, Absent> {
    let name = Name::read(text, secrets.options());
    secrets.lookup(view, (&Arc::from(text), &name), style, now())
}

fn secrets() -> Secrets {
    Secrets::new(Options::default())
}

fn bytes(source: Option<DataSource>) -> Vec<u8> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => bytes,
        other => panic!("inline bytes, not {other:?}"),
    }
}

/// Names of the trust domains in a validation context, and their CA certificates.
fn trust(resource: &Resource) -> Vec<(String, String)> {
    let Some(Type::ValidationContext(context)) = secret(&resource.any()).r#type else {
        panic!("a validation context");
    };
    let pem = |source| String::from_utf8(bytes(source)).unwrap();
    match (context.custom_validator_config, context.trusted_ca) {
        (Some(validator), None) => {
            assert_eq!(validator.name, "envoy.tls.cert_validator.spiffe");
            let Any { type_url, value } = validator.typed_config.unwrap();
            assert_eq!(
                type_url,
                "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
            );
            let config = SpiffeCertValidatorConfig::decode(&*value).unwrap();
            config
                .trust_domains
                .into_iter()
                .map(|one| (one.name, pem(one.trust_bundle)))
                .collect()
        }
        (None, Some(plain)) => vec![("plain".to_owned(), pem(Some(plain)))],
        other => panic!("one kind of trust, not {other:?}"),
    }
}

fn refused(view: &WorkloadView, text: &str) -> Absent {
    look_up(&secrets(), view, text, Form::Validator).unwrap_err()
}

/// Entries come in the order of their age: what is there counts, and what is not there may still come.
#[test]
fn s_5_04_before_the_last_entry_nothing_is_refused() {
    let domain = Domain::new("example.org");
    let mut view = domain.view(&["/web"]);
    view.synced = false;
    let secrets = secrets();
    for (name, served) in [
        ("spiffe://example.org/web", true),
        ("default", true),
        ("spiffe://example.org", true),
        ("ROOTCA", true),
        ("ALL", false),
        ("spiffe://example.org/api", false),
        ("spiffe://partner.test", false),
        ("hint:other", false),
    ] {
        let found = look_up(&secrets, &view, name, Form::Validator);
        match found {
            Ok(_) => assert!(served, "{name}"),
            Err(why) => assert_eq!((served, why), (false, Absent::NotSynced), "{name}"),
        }
    }
}

#[test]
fn a_certificate_is_chain_and_pkcs8_key_under_the_name_asked_for() {
    let domain = Domain::new("example.org");
    let view = domain.view(&["/web"]);
    for name in ["spiffe://example.org/web", "default"] {
        let resource = look_up(&secrets(), &view, name, Form::Validator).unwrap();
        let sent = secret(&resource.any());
        assert_eq!(sent.name, name);
        let Some(Type::TlsCertificate(certificate)) = sent.r#type else {
            panic!("a certificate");
        };
        let svid = &view.identities[0].svid;
        assert_eq!(
            bytes(certificate.certificate_chain),
            svid.chain_pem().into_bytes()
        );
        assert_eq!(
            bytes(certificate.private_key),
            svid.key().to_pem().as_bytes()
        );
    }
}

#[test]
fn s_5_02_aliases_and_ids_may_overlap() {
    let domain = Domain::new("example.org");
    let (view, secrets) = (domain.view(&["/web"]), secrets());
    for name in [
        "default",
        "spiffe://example.org/web",
        "ROOTCA",
        "ALL",
        "spiffe://example.org",
    ] {
        let resource = look_up(&secrets, &view, name, Form::Validator).unwrap();
        assert_eq!(secret(&resource.any()).name, name);
    }
}

#[test]
fn s_5_06_versions_are_hashes_of_the_content() {
    let domain = Domain::new("example.org");
    let view = domain.view(&["/web"]);
    let version = |view: &WorkloadView, name| {
        look_up(&secrets(), view, name, Form::Validator)
            .unwrap()
            .version()
    };
    // Another agent process, or a copy of the view, makes no difference.
    let copy = WorkloadView {
        bundle: Arc::new((*view.bundle).clone()),
        ..view.clone()
    };
    for name in ["default", "ROOTCA"] {
        assert_eq!(version(&view, name), version(&copy, name), "{name}");
    }
    let rotated = domain.view(&["/web"]);
    assert_ne!(version(&view, "default"), version(&rotated, "default"));
    assert_eq!(version(&view, "ROOTCA"), version(&rotated, "ROOTCA"));
}

#[test]
fn s_5_06_the_order_and_number_of_authorities_does_not_matter() {
    let (one, other) = (Domain::new("example.org"), Domain::new("example.org"));
    let [a, b] = [&one, &other].map(|domain| domain.bundle.x509_authorities[0].clone());
    let version = |authorities: Vec<X509Authority>| {
        let mut bundle = (*one.bundle).clone();
        bundle.x509_authorities = authorities;
        let view = WorkloadView {
            bundle: Arc::new(bundle),
            ..one.view(&["/web"])
        };
        look_up(&secrets(), &view, "ROOTCA", Form::Validator)
            .unwrap()
            .version()
    };
    let both = version(vec![a.clone(), b.clone()]);
    assert_eq!(both, version(vec![b.clone(), a.clone(), b]));
    assert_ne!(both, version(vec![a]));
}

#[test]
fn s_5_17_an_svid_of_an_authority_outside_the_bundle_waits_alone() {
    let (domain, newer) = (Domain::new("example.org"), Domain::new("example.org"));
    let mut view = domain.view(&["/web", "/api"]);
    view.identities[0].svid = newer.svid("/web");
    let secrets = secrets();
    let why = look_up(&secrets, &view, "spiffe://example.org/web", Form::Validator).unwrap_err();
    assert!(matches!(&why, Absent::Unverified { id, .. } if id.path() == "/web"));
    assert!(!why.is_certain());
    assert!(look_up(&secrets, &view, "spiffe://example.org/api", Form::Validator).is_ok());
    // The bundle follows, and so does the certificate.
    view.bundle = newer.bundle;
    assert!(look_up(&secrets, &view, "spiffe://example.org/web", Form::Validator).is_ok());
}

#[test]
fn s_5_17_a_certificate_never_goes_out_under_another_name() {
    let domain = Domain::new("example.org");
    let mut view = domain.view(&["/web"]);
    view.identities[0].svid = domain.svid("/other");
    assert_eq!(
        refused(&view, "spiffe://example.org/web"),
        Absent::NotEntitled(domain.id("/web"))
    );
}

#[test]
fn s_5_17_a_federated_bundle_without_authorities_is_left_out_alone() {
    let (domain, partner) = (Domain::new("example.org"), Domain::new("partner.test"));
    let mut view = federating(domain.view(&["/web"]), &partner);
    let empty = Bundle::empty(partner.bundle.trust_domain.clone());
    view.federated
        .insert(partner.bundle.trust_domain.clone(), Arc::new(empty));
    let all = look_up(&secrets(), &view, "ALL", Form::Validator).unwrap();
    assert_eq!(
        trust(&all),
        [("example.org".to_owned(), domain.bundle.to_pem())]
    );
    assert_eq!(
        refused(&view, "spiffe://partner.test"),
        Absent::NoBundle(partner.bundle.trust_domain.clone())
    );
}

#[test]
fn s_5_18_an_expired_svid_is_not_sent() {
    let domain = Domain::new("example.org");
    let view = domain.view(&["/web"]);
    let (secrets, name) = (secrets(), Arc::from("default"));
    let at = |now| secrets.lookup(&view, (&name, &Name::DefaultSvid), Form::Validator, now);
    assert!(at(now() + DAY - std::time::Duration::from_secs(1)).is_ok());
    assert_eq!(
        at(now() + DAY).unwrap_err(),
        Absent::Expired(domain.id("/web"))
    );
    // A clock that is behind the server's is no reason.
    assert!(at(now() - 2 * DAY).is_ok());
}

#[test]
fn s_5_20_encoded_once_shared_and_never_printed() {
    let domain = Domain::new("example.org");
    let (view, secrets) = (domain.view(&["/web"]), secrets());
    let first = look_up(&secrets, &view, "default", Form::Validator).unwrap();
    let again = look_up(&secrets, &view, "default", Form::Validator).unwrap();
    assert_eq!(first.any().as_ptr(), again.any().as_ptr());
    let printed = format!("{first:?} {secrets:?}");
    assert!(
        printed.contains("<redacted>")
            && !printed.contains("PRIVATE KEY")
            && !printed.contains("45, 45, 45")
    );
}

#[test]
fn s_5_20_what_nobody_can_ask_for_any_more_is_let_go() {
    let domain = Domain::new("example.org");
    let secrets = secrets();
    for _ in 0..4 * FIRST_SWEEP {
        let view = domain.view(&["/web"]);
        look_up(&secrets, &view, "default", Form::Validator).unwrap();
    }
    assert!(secrets.encoded().slots.len() <= FIRST_SWEEP);
}

#[test]
fn s_5_21_bundles_by_name_in_both_forms() {
    let (domain, partner) = (Domain::new("example.org"), Domain::new("a.test"));
    let view = federating(domain.view(&["/web"]), &partner);
    let own = ("example.org".to_owned(), domain.bundle.to_pem());
    let foreign = ("a.test".to_owned(), partner.bundle.to_pem());
    let plain = |pem: String| vec![("plain".to_owned(), pem)];
    let secrets = secrets();
    for (name, wanted) in [
        ("ROOTCA", vec![own.clone()]),
        ("spiffe://example.org", vec![own.clone()]),
        ("spiffe://a.test", vec![foreign.clone()]),
        ("ALL", vec![foreign, own]),
    ] {
        let sent = look_up(&secrets, &view, name, Form::Validator).unwrap();
        assert_eq!(trust(&sent), wanted, "{name}");
        if name != "ALL" {
            let sent = look_up(&secrets, &view, name, Form::PlainCa).unwrap();
            assert_eq!(trust(&sent), plain(wanted[0].1.clone()), "{name}");
        }
    }
}

#[test]
fn s_5_22_several_trust_domains_never_in_one_plain_list() {
    let (domain, partner) = (Domain::new("example.org"), Domain::new("partner.test"));
    let view = federating(domain.view(&["/web"]), &partner);
    let why = look_up(&secrets(), &view, "ALL", Form::PlainCa).unwrap_err();
    assert_eq!(why, Absent::PlainBundles);
    assert!(why.to_string().contains("SPIFFE validator"));
    // One is no danger.
    let alone = look_up(&secrets(), &domain.view(&["/web"]), "ALL", Form::PlainCa).unwrap();
    assert_eq!(trust(&alone)[0].1, domain.bundle.to_pem());
}

#[test]
fn s_5_23_only_trust_domains_that_the_workload_federates_with() {
    let (domain, partner) = (Domain::new("example.org"), Domain::new("partner.test"));
    let view = domain.view(&["/web"]);
    let td = partner.bundle.trust_domain.clone();
    let why = refused(&view, "spiffe://partner.test");
    assert_eq!(why, Absent::NotFederated(td.clone()));
    assert!(why.is_certain());
    // Federated, but not fetched yet.
    let mut view = federating(view, &partner);
    view.federated.clear();
    let why = refused(&view, "spiffe://partner.test");
    assert_eq!(why, Absent::NoBundle(td));
    assert!(!why.is_certain());
}

#[test]
fn s_5_26_a_long_list_of_authorities_is_kept_from_clients() {
    let domain = Domain::new("example.org");
    let mut view = domain.view(&["/web"]);
    let mut quiet = |count: usize, brief| {
        let bundle = Arc::make_mut(&mut view.bundle);
        while bundle.x509_authorities.len() < count {
            let other = Domain::new("example.org");
            bundle
                .x509_authorities
                .extend(other.bundle.x509_authorities.clone());
        }
        [Form::Validator, Form::PlainCa].map(|form| {
            let sent = look_up(&secrets(), &view, "ROOTCA", Style { form, brief }).unwrap();
            match secret(&sent.any()).r#type {
                Some(Type::ValidationContext(context)) => context.suppress_client_ca_list,
                other => panic!("a validation context, not {other:?}"),
            }
        })
    };
    assert_eq!(quiet(16, true), [false, false]);
    assert_eq!(quiet(17, true), [true, true]);
    assert_eq!(
        quiet(17, false),
        [false, false],
        "an Envoy that does not know it"
    );
}

#[test]
fn s_5_31_bundles_for_a_workload_without_identity_only_where_allowed() {
    let domain = Domain::new("example.org");
    let stranger = domain.view(&[]);
    for name in ["ROOTCA", "spiffe://example.org", "ALL"] {
        assert_eq!(refused(&stranger, name), Absent::NoIdentity);
    }
    let options = Options {
        allow_unauthenticated_verifiers: true,
        ..Options::default()
    };
    let lenient = Secrets::new(options);
    assert!(look_up(&lenient, &stranger, "ROOTCA", Form::Validator).is_ok());
    assert_eq!(
        look_up(&lenient, &stranger, "default", Form::Validator).unwrap_err(),
        Absent::NoIdentity
    );
    // One whose SVID is on its way has an identity.
    let mut waiting = stranger;
    waiting.pending.push(domain.entry("/web", 0));
    assert!(look_up(&secrets(), &waiting, "ROOTCA", Form::Validator).is_ok());
}

#[test]
fn s_5_33_the_default_is_the_oldest_entrys_and_stays_it() {
    let domain = Domain::new("example.org");
    let mut view = domain.view(&["/z", "/a"]);
    let default = |view: &WorkloadView| look_up(&secrets(), view, "default", Form::Validator);
    let z = look_up(&secrets(), &view, "spiffe://example.org/z", Form::Validator);
    let (Some(Type::TlsCertificate(a)), Some(Type::TlsCertificate(b))) = (
        secret(&default(&view).unwrap().any()).r#type,
        secret(&z.unwrap().any()).r#type,
    ) else {
        panic!("certificates");
    };
    assert_eq!(a, b);
    // Not another's while its own is renewed.
    let oldest = view.identities.remove(0);
    view.pending.push(oldest.entry);
    assert_eq!(
        default(&view).unwrap_err(),
        Absent::Pending(domain.id("/z"))
    );
}

#[test]
fn s_5_35_istio_file_names_get_an_explanation() {
    let domain = Domain::new("example.org");
    for name in ["file-root:system", "file-cert:a~b"] {
        assert_eq!(refused(&domain.view(&["/web"]), name), Absent::IstioFile);
    }
}

#[test]
fn before_the_first_word_of_the_server_nothing_is_certain() {
    let domain = Domain::new("example.org");
    let view = WorkloadView {
        synced: false,
        ..domain.view(&[])
    };
    for name in ["default", "spiffe://example.org/web", "ROOTCA"] {
        assert_eq!(refused(&view, name), Absent::NotSynced);
        assert!(!Absent::NotSynced.is_certain());
    }
    assert_eq!(refused(&view, "nonsense"), Absent::Unknown);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a view holds: certificates under certificates' names, filled validation contexts under bundles' names.
    #[test]
    fn s_5_16_never_an_empty_or_wrong_kind_of_secret(
        synced: bool,
        has in subsequence(vec!["/a", "/b", "/c"], 0..=3),
        waits in subsequence(vec!["/d", "/e"], 0..=2),
        own_authority: bool,
        partner: bool,
        partner_authority: bool,
        plain: bool,
        allow: bool,
    ) {
        let domain = Domain::new("example.org");
        let mut view = domain.view(&has);
        view.synced = synced;
        view.pending = waits.iter().map(|path| domain.entry(path, 9)).collect();
        if !own_authority {
            view.bundle = Arc::new(Bundle::empty(domain.bundle.trust_domain.clone()));
        }
        if partner {
            let foreign = Domain::new("partner.test").bundle;
            let empty = Bundle::empty(foreign.trust_domain.clone());
            let bundle = if partner_authority { foreign } else { Arc::new(empty) };
            view.federated.insert(bundle.trust_domain.clone(), bundle);
        }
        let options = Options { allow_unauthenticated_verifiers: allow, ..Options::default() };
        let secrets = Secrets::new(options);
        let form = if plain { Form::PlainCa } else { Form::Validator };
        for text in [
            "default", "ROOTCA", "ALL", "spiffe://example.org", "spiffe://partner.test", "spiffe://example.org/a",
            "spiffe://example.org/d", "spiffe://partner.test/a", "nobody", "",
        ] {
            let Ok(resource) = look_up(&secrets, &view, text, form) else {
                continue;
            };
            // What hangs on all entries waits for all of them.
            prop_assert!(synced || text != "ALL");
            let sent = secret(&resource.any());
            prop_assert_eq!(&sent.name, text);
            match sent.r#type {
                Some(Type::TlsCertificate(_)) => prop_assert!(text == "default" || text.ends_with("/a")),
                Some(Type::ValidationContext(_)) => {
                    prop_assert!(Name::read(text, secrets.options()).is_bundle());
                    for (_, pem) in trust(&resource) {
                        prop_assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
                    }
                }
                other => prop_assert!(false, "{text}: {other:?}"),
            }
        }
    }
}
