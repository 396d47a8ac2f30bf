use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::certificate::Usage;
use crate::public_key::PublicKey;

/// `C=US, O=SPIRE` is of no matter here: one attribute does.
const NAME: &[u8] = &[
    0x30, 13, 0x31, 11, 0x30, 9, 6, 3, 0x55, 4, 6, 0x13, 2, b'U', b'S',
];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn key() -> PublicKey {
    PublicKey::from_spki(
        PrivateKey::generate(KeyType::EcP256)
            .unwrap()
            .public_key_spki(),
    )
    .unwrap()
}

fn fields(public_key: &PublicKey) -> Fields<'_> {
    Fields {
        serial: 7,
        signer: KeyType::EcP256,
        issuer: NAME,
        issuer_key_id: b"issuer",
        not_before: at(0),
        not_after: at(60),
        subject: NAME,
        public_key,
        usage: Usage::Leaf,
        dns_names: &[],
        uri: "spiffe://example.org/web",
    }
}

/// Lints what `change` makes of good fields, when the good fields were asked for.
fn leaf_with(change: impl FnOnce(&mut Fields<'_>)) -> Result<(), LintError> {
    let key = key();
    let mut changed = fields(&key);
    change(&mut changed);
    let linter = Linter::new().unwrap();
    linter.leaf(&changed.to_be_signed(), &fields(&key), at(60))
}

#[test]
fn good_leaves_pass() {
    assert_eq!(leaf_with(|_| ()), Ok(()));
}

#[test]
fn whatever_differs_from_what_was_asked_is_found() {
    let names = ["evil".to_owned()];
    let other = "spiffe://example.org/other";
    assert!(matches!(
        leaf_with(|fields| fields.uri = other),
        Err(LintError::Id { .. })
    ));
    assert_eq!(
        leaf_with(|fields| fields.uri = "https://example.org"),
        Err(LintError::Field("URI SAN"))
    );
    let key = key();
    let mut changed = fields(&key);
    changed.dns_names = &names;
    let linter = Linter::new().unwrap();
    assert_eq!(
        linter.leaf(&changed.to_be_signed(), &fields(&key), at(60)),
        Err(LintError::Field("DNS names"))
    );
    assert_eq!(
        leaf_with(|fields| fields.serial = 8),
        Err(LintError::Field("serial number"))
    );
    assert_eq!(
        leaf_with(|fields| fields.issuer_key_id = b"other"),
        Err(LintError::Field("authority key identifier"))
    );
    let stranger = self::key();
    let mut changed = fields(&stranger);
    changed.serial = 7;
    assert_eq!(
        linter.leaf(&changed.to_be_signed(), &fields(&key), at(60)),
        Err(LintError::Field("public key"))
    );
}

#[test]
fn a_serial_number_of_zero_is_found() {
    let key = key();
    let mut zero = fields(&key);
    zero.serial = 0;
    assert_eq!(
        Linter::new()
            .unwrap()
            .leaf(&zero.to_be_signed(), &zero, at(60)),
        Err(LintError::Field("serial number"))
    );
}

#[test]
fn a_leaf_with_a_cas_rights_is_found() {
    assert_eq!(
        leaf_with(|fields| fields.usage = Usage::Ca),
        Err(LintError::Rule(X509Error::LeafIsCa))
    );
}

#[test]
fn bad_validity_is_found() {
    assert_eq!(
        leaf_with(|fields| fields.not_after = at(61)),
        Err(LintError::Validity),
        "outlives its issuer"
    );
    assert_eq!(
        leaf_with(|fields| fields.not_before = at(60)),
        Err(LintError::Validity),
        "ends where it begins"
    );
}

#[test]
fn bytes_that_are_no_certificate_are_found() {
    let key = key();
    let (linter, fields) = (Linter::new().unwrap(), fields(&key));
    let good = fields.to_be_signed();
    for bytes in [&b""[..], b"garbage", &good[..good.len() - 1]] {
        assert!(matches!(
            linter.leaf(bytes, &fields, at(60)),
            Err(LintError::Rule(X509Error::Malformed(_)))
        ));
    }
}

#[test]
fn a_ca_that_is_none_is_found() {
    let key = key();
    let linter = Linter::new().unwrap();
    let mut ca = fields(&key);
    ca.uri = "spiffe://example.org";
    assert_eq!(
        linter.ca(&ca.to_be_signed(), &ca),
        Err(LintError::Ca("ExtKeyUsage")),
        "a leaf"
    );
    ca.usage = Usage::Ca;
    assert_eq!(linter.ca(&ca.to_be_signed(), &ca), Ok(()));
    ca.uri = "spiffe://example.org/path";
    assert_eq!(
        linter.ca(&ca.to_be_signed(), &ca),
        Err(LintError::Ca("SPIFFE ID"))
    );
}
