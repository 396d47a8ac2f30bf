use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SanType,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);

struct World {
    ca: CertifiedIssuer<'static, KeyPair>,
    attestor: X509pop,
    _folder: TempDir,
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (UNIX_EPOCH + NOW - Duration::from_secs(60)).into();
    params.not_after = (UNIX_EPOCH + NOW + Duration::from_secs(3600)).into();
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn leaf_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn config(folder: &TempDir) -> config::X509pop {
    config::X509pop {
        ca_bundle_paths: vec![folder.path().join("ca.pem")],
        agent_path_template: None,
        mode: X509popMode::ExternalPki,
        max_intermediates: 4,
        max_rsa_key_size: 8192,
    }
}

fn world_with(change: impl FnOnce(&mut config::X509pop)) -> World {
    let folder = tempfile::tempdir().unwrap();
    let ca = CertifiedIssuer::self_signed(ca_params("root"), KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
    let mut config = config(&folder);
    change(&mut config);
    World {
        ca,
        attestor: X509pop::build(&config, &trust_domain()).unwrap(),
        _folder: folder,
    }
}

fn world() -> World {
    world_with(|_| {})
}

impl World {
    fn challenge(&self, chain: &[&[u8]]) -> Result<(Value, Challenge), RpcError> {
        let certificates: Vec<String> = chain.iter().map(|der| STANDARD.encode(der)).collect();
        let payload = json!({ "certificates": certificates }).to_string();
        let bundle = Bundle::empty(trust_domain());
        let (challenge, pending) =
            self.attestor
                .challenge(payload.as_bytes(), &bundle, UNIX_EPOCH + NOW)?;
        Ok((serde_json::from_slice(&challenge).unwrap(), pending))
    }

    /// Attests with a leaf of these parameters, as an agent does.
    fn attest(&self, params: CertificateParams, key: &KeyPair) -> Result<Attested, RpcError> {
        let leaf = params.signed_by(key, &self.ca).unwrap();
        let (challenge, pending) = self.challenge(&[leaf.der()])?;
        pending.verify(response(&challenge, key).to_string().as_bytes())
    }
}

/// What an agent answers.
fn response(challenge: &Value, key: &KeyPair) -> Value {
    let own = [7_u8; 32];
    let (kind, theirs) = match (&challenge["rsa_signature"], &challenge["ecdsa_signature"]) {
        (Value::Null, theirs) => ("ecdsa_signature", theirs),
        (theirs, Value::Null) => ("rsa_signature", theirs),
        _ => panic!("two challenges"),
    };
    let theirs = STANDARD.decode(theirs["nonce"].as_str().unwrap()).unwrap();
    let message = [&theirs[..], &own].concat();
    let random = aws_lc_rs::rand::SystemRandom::new();
    let pkcs8 = key.serialize_der();
    let nonce = STANDARD.encode(own);
    if kind == "rsa_signature" {
        let key = aws_lc_rs::signature::RsaKeyPair::from_pkcs8(&pkcs8).unwrap();
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(
            &aws_lc_rs::signature::RSA_PSS_SHA256,
            &random,
            &message,
            &mut signature,
        )
        .unwrap();
        return json!({ kind: { "nonce": nonce, "signature": STANDARD.encode(signature) } });
    }
    let algorithm = if key.is_compatible(&PKCS_ECDSA_P384_SHA384) {
        &aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING
    } else {
        &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING
    };
    let key = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8).unwrap();
    let signature = key.sign(&random, &message).unwrap();
    let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
    json!({ kind: { "nonce": nonce, "r": STANDARD.encode(r), "s": STANDARD.encode(s) } })
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

#[test]
fn an_ecdsa_node_is_attested_with_spires_id_and_selectors() {
    let (world, key) = (world(), key());
    let mut params = leaf_params("node-1");
    params.serial_number = Some(vec![0x0a, 0xbc].into());
    params.subject_alt_names = vec![
        SanType::URI("x509pop://example.org/cluster/a/b".try_into().unwrap()),
        SanType::URI("x509pop://other.org/cluster/x".try_into().unwrap()),
    ];
    let attested = world.attest(params, &key).unwrap();
    let name = attested
        .id
        .path()
        .strip_prefix("/spire/agent/x509pop/")
        .unwrap();
    assert_eq!(name.len(), 40, "SHA-1 in hex: {name}");
    let selectors: Vec<String> = attested.selectors.iter().map(ToString::to_string).collect();
    let expected = [
        format!("x509pop:ca:fingerprint:{}", fingerprint(world.ca.der())),
        "x509pop:san:cluster:a/b".to_owned(),
        "x509pop:serialnumber:0abc".to_owned(),
        "x509pop:subject:cn:node-1".to_owned(),
    ];
    assert_eq!(selectors, expected);
    assert!(attested.can_reattest);
}

#[test]
fn an_rsa_node_is_attested() {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    world().attest(leaf_params("node"), &key).unwrap();
}

#[test]
fn a_chain_over_intermediates_is_followed_and_named() {
    let world = world();
    let intermediate = CertifiedIssuer::signed_by(ca_params("middle"), key(), &world.ca).unwrap();
    let key = key();
    let leaf = leaf_params("node").signed_by(&key, &intermediate).unwrap();
    assert!(
        world.challenge(&[leaf.der()]).is_err(),
        "the intermediate is missing"
    );
    let (challenge, pending) = world.challenge(&[leaf.der(), intermediate.der()]).unwrap();
    let attested = pending
        .verify(response(&challenge, &key).to_string().as_bytes())
        .unwrap();
    let fingerprints = attested
        .selectors
        .iter()
        .filter(|selector| selector.value().starts_with("ca:"));
    assert_eq!(fingerprints.count(), 2);
}

#[test]
fn s_19_another_ones_key_does_not_answer() {
    let (world, own, other) = (world(), key(), key());
    let leaf = leaf_params("node").signed_by(&own, &world.ca).unwrap();
    let (challenge, pending) = world.challenge(&[leaf.der()]).unwrap();
    let error = pending
        .verify(response(&challenge, &other).to_string().as_bytes())
        .unwrap_err();
    assert!(matches!(error, RpcError::PermissionDenied(_)), "{error}");
    // An answer to an earlier challenge is none to this.
    let (earlier, _) = world.challenge(&[leaf.der()]).unwrap();
    let (_, pending) = world.challenge(&[leaf.der()]).unwrap();
    let error = pending
        .verify(response(&earlier, &own).to_string().as_bytes())
        .unwrap_err();
    assert!(matches!(error, RpcError::PermissionDenied(_)), "{error}");
}

#[test]
fn who_the_ca_does_not_vouch_for_is_refused() {
    let (world, stranger, key) = (world(), world(), key());
    let refused = |params: CertificateParams, issuer: &CertifiedIssuer<'_, KeyPair>| {
        let leaf = params.signed_by(&key, issuer).unwrap();
        world
            .challenge(&[leaf.der()])
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    refused(leaf_params("node"), &stranger.ca);
    let mut expired = leaf_params("node");
    expired.not_after = (UNIX_EPOCH + NOW - Duration::from_secs(1)).into();
    refused(expired, &world.ca);
    let no_signature = refused(params("node"), &world.ca);
    assert!(no_signature.contains("digital signature"), "{no_signature}");
}

#[test]
fn s_16_what_would_be_dear_is_refused_before_it_is_reckoned_with() {
    let world = world_with(|config| config.max_rsa_key_size = 2047);
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let leaf = leaf_params("node").signed_by(&key, &world.ca).unwrap();
    let large = world
        .challenge(&[leaf.der()])
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(large.contains("2048 bits"), "{large}");
    let six = [leaf.der().as_ref(); 6];
    let many = world.challenge(&six).map(drop).unwrap_err().to_string();
    assert!(many.contains("at most 4"), "{many}");
    let bundle = Bundle::empty(trust_domain());
    let huge = vec![b' '; MAX_PAYLOAD_LEN + 1];
    assert!(
        world
            .attestor
            .challenge(&huge, &bundle, UNIX_EPOCH + NOW)
            .is_err()
    );
}

#[test]
fn what_is_malformed_is_told() {
    let (world, key) = (world(), key());
    let bundle = Bundle::empty(trust_domain());
    for payload in [
        "",
        "{}",
        "[]",
        r#"{"certificates":[]}"#,
        r#"{"certificates":["!"]}"#,
        r#"{"certificates":["AAAA"]}"#,
    ] {
        let error = world
            .attestor
            .challenge(payload.as_bytes(), &bundle, UNIX_EPOCH + NOW)
            .map(drop)
            .unwrap_err();
        assert!(
            matches!(error, RpcError::InvalidArgument(_)),
            "{payload}: {error}"
        );
    }
    let leaf = leaf_params("node").signed_by(&key, &world.ca).unwrap();
    let long_nonce =
        json!({"ecdsa_signature": {"nonce": STANDARD.encode([1; 33]), "r": "AQ==", "s": "AQ=="}});
    let other_kind =
        json!({"rsa_signature": {"nonce": STANDARD.encode([1; 32]), "signature": "AQ=="}});
    for response in [
        json!({}),
        json!(null),
        json!({"ecdsa_signature": {}}),
        long_nonce,
        other_kind,
    ] {
        let (_, pending) = world.challenge(&[leaf.der()]).unwrap();
        let error = pending.verify(response.to_string().as_bytes()).unwrap_err();
        assert!(
            matches!(error, RpcError::InvalidArgument(_)),
            "{response}: {error}"
        );
    }
    let zero = json!({"ecdsa_signature": {"nonce": STANDARD.encode([1; 32]), "r": "", "s": ""}});
    let (_, pending) = world.challenge(&[leaf.der()]).unwrap();
    assert!(pending.verify(zero.to_string().as_bytes()).is_err());
}

#[test]
fn s_6_no_name_of_a_certificate_bends_the_agents_path() {
    let world = world_with(|config| {
        config.agent_path_template = Some("/n/{{ .Subject.CommonName }}".to_owned())
    });
    let path = |name: &str| {
        world
            .attest(leaf_params(name), &key())
            .map(|attested| attested.id.path().to_owned())
    };
    assert_eq!(path("node-1").unwrap(), "/spire/agent/n/node-1");
    for name in [
        "..", "a/b", "node-1/", "a/../b", "a//b", "%2e%2e", "a b", "\u{e4}", "a\0", "/",
    ] {
        assert!(path(name).is_err(), "{name:?}");
    }
}

#[test]
fn configuration_errors_name_the_file_or_the_template() {
    let folder = tempfile::tempdir().unwrap();
    let built = |config: &config::X509pop| {
        X509pop::build(config, &trust_domain())
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    assert!(built(&config(&folder)).contains("ca.pem"));
    fs::write(folder.path().join("ca.pem"), "no certificate").unwrap();
    assert!(built(&config(&folder)).contains("holds no PEM certificate"));
    let with = |template: &str| {
        let mut config = config(&folder);
        config.mode = X509popMode::Spiffe {
            svid_prefix: "/x".to_owned(),
        };
        config.ca_bundle_paths = vec![PathBuf::from("/none")];
        config.agent_path_template = Some(template.to_owned());
        built(&config)
    };
    assert!(with("/{{ .Nonsense }}").contains("Nonsense"));
    assert!(with("no-slash").contains("start with"));
}
