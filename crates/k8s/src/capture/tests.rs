//! Names into rules, rules into text.

use std::collections::BTreeMap;

use super::*;

fn net(text: &str) -> Net {
    text.parse().expect(text)
}

fn plan() -> Plan {
    Plan {
        envoy_user: 65532,
        app_ports: vec![8080, 9000],
        inbound_port: 15006,
        upstreams: vec![
            upstream(5432, Host::Net(net("10.0.0.0/8")), 5432),
            upstream(9090, Host::Name("db.shop".to_owned()), 5432),
        ],
        skip_nets: vec![net("192.0.2.0/25"), net("fd00:1::/32")],
        skip_interfaces: vec!["eth1".parse().expect("a name")],
    }
}

fn upstream(local_port: u16, host: Host, port: u16) -> Upstream {
    Upstream {
        local_port,
        host,
        port,
    }
}

fn resolve(plan: &Plan, known: &[(&str, &[&str])]) -> Result<Ruleset, Error> {
    let known: BTreeMap<&str, &[&str]> = known.iter().copied().collect();
    plan.resolve_with(|name, _| {
        let found = known
            .get(name)
            .ok_or_else(|| io::Error::other("no such name"))?;
        Ok(found.iter().map(|one| one.parse().expect(one)).collect())
    })
}

/// Narrow before wide, Envoy and loopback before all, what is skipped before what is taken.
#[test]
fn rules_are_printed_as_nft_prints_them() {
    let rules = resolve(
        &plan(),
        &[("db.shop", &["fd00::7", "10.1.2.3", "::ffff:10.1.2.3"])],
    );
    insta::assert_snapshot!(rules.expect("rules"));
}

#[test]
fn only_the_directions_asked_for() {
    let mut only = plan();
    only.upstreams.clear();
    let text = resolve(&only, &[]).expect("rules").to_string();
    assert!(!text.contains("outbound"), "{text}");
    only.app_ports.clear();
    let text = resolve(&only, &[]).expect("rules").to_string();
    assert_eq!(text, "table inet signet {\n}\n");
}

/// Whoever is not found is not let through in the clear: the pod waits.
#[test]
fn a_name_without_an_address_is_told() {
    for known in [&[][..], &[("db.shop", &[][..])]] {
        let error = resolve(&plan(), known).expect_err("no address").to_string();
        assert!(error.starts_with("upstream db.shop: "), "{error}");
        assert!(error.contains("10.0.0.0/8:5432"), "{error}");
    }
}

#[test]
fn one_address_for_two_upstreams_is_told() {
    let mut two = plan();
    two.upstreams
        .push(upstream(7000, Host::Net(net("10.1.2.3")), 5432));
    let known: [(&str, &[&str]); 1] = [("db.shop", &["10.1.2.3"])];
    let error = resolve(&two, &known).expect_err("one address").to_string();
    assert!(error.contains("9090 and 7000"), "{error}");
    two.upstreams[2].port = 5433;
    resolve(&two, &known).expect("another port is another upstream");
}

#[test]
fn networks_and_interfaces() {
    for (text, shown) in [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1/32", "10.0.0.1"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("fd00::/8", "fd00::/8"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
    ] {
        assert_eq!(net(text).to_string(), shown);
    }
    for text in [
        "",
        "10.0.0.0/33",
        "fd00::/129",
        "10.0.0.0/+8",
        "10.0.0.0/",
        "x",
        "10.0.0/8",
    ] {
        assert!(text.parse::<Net>().is_err(), "{text}");
    }
    let told = "10.1.0.0/8".parse::<Net>().expect_err("bits").to_string();
    assert!(told.ends_with("write 10.0.0.0/8"), "{told}");
    for text in ["", "a b", "eth0\"", "0123456789abcdef", "..", "a/b", "é"] {
        assert!(text.parse::<Interface>().is_err(), "{text}");
    }
    assert!("eth0.100".parse::<Interface>().is_ok());
}
