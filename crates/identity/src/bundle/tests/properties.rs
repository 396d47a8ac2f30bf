//! Properties of bundles.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

/// Keys are dear: all cases draw from the same ones.
static AUTHORITIES: LazyLock<Vec<X509Authority>> = LazyLock::new(|| {
    (0..3)
        .map(|_| X509Authority::new(certificate(true)))
        .collect()
});
static KEYS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let kinds = [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048];
    let spki = |kind| {
        PrivateKey::generate(kind)
            .unwrap()
            .public_key_spki()
            .to_vec()
    };
    kinds.map(spki).to_vec()
});

fn bundle() -> impl Strategy<Value = Bundle> {
    let x509 = subsequence(AUTHORITIES.clone(), 0..=3);
    let jwt = prop::collection::btree_map("\\PC{1,12}", 0..3_usize, 0..4);
    let hint = prop::option::of(0..=i64::MAX.unsigned_abs());
    (x509, jwt, hint, any::<u64>()).prop_map(|(x509, jwt, hint, sequence)| Bundle {
        x509_authorities: x509,
        jwt_authorities: jwt
            .into_iter()
            .map(|(key_id, key)| JwtAuthority {
                key_id,
                public_key: KEYS[key].clone(),
                expires_at: None,
                tainted: false,
            })
            .collect(),
        refresh_hint: hint.map(Duration::from_secs),
        sequence,
        ..Bundle::empty(td())
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(bundle in bundle()) {
        let json = bundle.to_spiffe_json();
        let read = Bundle::from_spiffe_json(&td(), json.as_bytes()).unwrap();
        prop_assert_eq!(&read, &bundle);
        prop_assert_eq!(read.to_spiffe_json(), json);
        let jwks = Bundle::from_spiffe_json(&td(), bundle.to_jwks().as_bytes()).unwrap();
        prop_assert_eq!(jwks.jwt_authorities, bundle.jwt_authorities);
        prop_assert!(jwks.x509_authorities.is_empty());
    }

    #[test]
    fn pem_is_read_as_it_was_written(bundle in bundle()) {
        let read = Bundle::from_pem(&td(), &bundle.to_pem());
        match read {
            Ok(read) => prop_assert_eq!(read.x509_authorities, bundle.x509_authorities),
            Err(_) => prop_assert!(bundle.x509_authorities.is_empty()),
        }
    }

    /// Equal sets are equal bytes, whatever order the keys came in.
    #[test]
    fn the_jwks_does_not_tell_in_what_order_keys_came(bundle in bundle(), by in any::<prop::sample::Index>()) {
        let mut turned = bundle.clone();
        if !turned.jwt_authorities.is_empty() {
            let by = by.index(turned.jwt_authorities.len());
            turned.jwt_authorities.rotate_left(by);
        }
        prop_assert_eq!(turned.to_jwks(), bundle.to_jwks());
    }

    /// Whatever is changed in a document, what is read of it is sound: no key that cannot be written again.
    #[test]
    fn a_changed_document_is_refused_or_sound(bundle in bundle(), at in any::<prop::sample::Index>(), to in "[ -~]") {
        let mut json = bundle.to_spiffe_json();
        let at = at.index(json.len());
        if json.is_char_boundary(at) && json.is_char_boundary(at + 1) {
            json.replace_range(at..=at, &to);
        }
        if let Ok(read) = Bundle::from_spiffe_json(&td(), json.as_bytes()) {
            let again = Bundle::from_spiffe_json(&td(), read.to_spiffe_json().as_bytes()).unwrap();
            prop_assert_eq!(again, read);
        }
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".*") {
        let _ = Bundle::from_spiffe_json(&td(), &bytes);
        let _ = Bundle::from_spiffe_json(&td(), text.as_bytes());
        let _ = Bundle::from_pem(&td(), &text);
    }
}
