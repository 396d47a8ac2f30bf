//! Properties of certificates.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

struct World {
    bundles: BundleSet,
    leaf: Certificate,
}

/// Keys are dear: one world does for all cases.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    let ca = ca("example.org");
    let (leaf, _) = leaf(&ca, |_| {});
    World {
        bundles: bundles(&[("example.org", &ca)]),
        leaf,
    }
});

#[test]
fn no_prefix_of_a_certificate_parses_and_no_flipped_byte_panics() {
    let ca = ca("example.org");
    let (certificate, _) = leaf(&ca, |_| {});
    let der = certificate.der();
    for length in 0..der.len() {
        assert!(Certificate::from_der(&der[..length]).is_err(), "{length}");
    }
    for at in 0..der.len() {
        let mut flipped = der.to_vec();
        flipped[at] ^= 0x80;
        if let Ok(certificate) = Certificate::from_der(&flipped) {
            let _ = verify_x509_svid(&[certificate], &bundles(&[("example.org", &ca)]), now());
        }
    }
    assert_eq!(
        Certificate::from_der(&[der, &[0]].concat()),
        Err(X509Error::TrailingBytes(1))
    );
}

proptest! {
    #[test]
    fn bytes_that_are_no_certificate_make_nothing_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Certificate::from_der(&bytes).is_err());
        let _ = Certificate::chain_from_der(&bytes);
    }

    /// Whatever is changed in a certificate, it is not verified as it was before.
    #[test]
    fn a_changed_certificate_is_not_verified(at in any::<prop::sample::Index>(), to in any::<u8>(), more in prop::collection::vec(any::<u8>(), 0..3)) {
        let World { bundles, leaf } = &*WORLD;
        let mut der = leaf.der().to_vec();
        let at = at.index(der.len());
        der[at] = to;
        der.extend(more);
        if let Ok(changed) = Certificate::from_der(&der) && changed != *leaf {
            prop_assert!(verify_x509_svid(&[changed], bundles, now()).is_err());
        }
    }

    /// Time is all that makes a good certificate bad, and within its own bounds only.
    #[test]
    fn a_leaf_is_valid_from_its_begin_to_its_end(offset in -200_000_i64..200_000) {
        let World { bundles, leaf } = &*WORLD;
        let distance = Duration::from_secs(offset.unsigned_abs());
        let at = if offset < 0 { now() - distance } else { now() + distance };
        let within = (leaf.not_before()..=leaf.not_after()).contains(&at);
        let verdict = verify_x509_svid(std::slice::from_ref(leaf), bundles, at);
        prop_assert_eq!(verdict.is_ok(), within, "{:?}", verdict);
    }

    /// A run of certificates is read as it was written.
    #[test]
    fn a_chain_goes_there_and_back(count in 0..5_usize) {
        let chain = vec![WORLD.leaf.clone(); count];
        let der: Vec<u8> = chain.iter().flat_map(Certificate::der).copied().collect();
        prop_assert_eq!(Certificate::chain_from_der(&der).unwrap(), chain);
        if count > 0 {
            prop_assert!(Certificate::chain_from_der(&der[..der.len() - 1]).is_err());
        }
    }
}
