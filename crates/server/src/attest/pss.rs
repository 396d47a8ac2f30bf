//! Verifying an RSA-PSS signature (RFC 8017 §8.1.2) with SHA-256 and a salt of any length.
//!
//! aws-lc-rs takes only salts as long as the hash; SPIRE's agents sign with the longest salt that fits.

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use num_bigint::BigUint;

/// Larger exponents make the sum dear and are in no use.
const MAX_EXPONENT_BITS: u64 = 33;

/// Whether `signature` is one of `message` by the key of this modulus and exponent, both big-endian.
pub(super) fn verifies(modulus: &[u8], exponent: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (n, e) = (
        BigUint::from_bytes_be(modulus),
        BigUint::from_bytes_be(exponent),
    );
    let s = BigUint::from_bytes_be(signature);
    let length = usize::try_from(n.bits().div_ceil(8)).unwrap_or_default();
    let sound = n.bit(0) && e.bit(0) && e.bits() > 1 && e.bits() <= MAX_EXPONENT_BITS;
    if !sound || signature.len() != length || s >= n {
        return false;
    }
    let em_bits = n.bits() - 1;
    let em_length = usize::try_from(em_bits.div_ceil(8)).unwrap_or_default();
    let plain = s.modpow(&e, &n).to_bytes_be();
    // The number has lost its leading zeros; one that is too large has none to spare.
    let Some(zeros) = em_length.checked_sub(plain.len()) else {
        return false;
    };
    let mut encoded = vec![0; zeros];
    encoded.extend(plain);
    is_encoding_of(message, &mut encoded, 8 * em_length as u64 - em_bits)
}

/// EMSA-PSS-VERIFY (§9.1.2); `unused` is the number of bits on the left that must be zero.
fn is_encoding_of(message: &[u8], encoded: &mut [u8], unused: u64) -> bool {
    let Some((rest, [0xbc])) = encoded.split_last_chunk_mut::<1>() else {
        return false;
    };
    let Some(db_length) = rest.len().checked_sub(SHA256_OUTPUT_LEN) else {
        return false;
    };
    let (db, hash) = rest.split_at_mut(db_length);
    let keep = 0xff_u8 >> unused;
    if db.first().is_none_or(|first| first & !keep != 0) {
        return false;
    }
    unmask(db, hash);
    db[0] &= keep;
    // Zeros, a one, the salt.
    let Some(one) = db
        .iter()
        .position(|byte| *byte != 0)
        .filter(|place| db[*place] == 1)
    else {
        return false;
    };
    let mut context = Context::new(&SHA256);
    context.update(&[0; 8]);
    context.update(digest(&SHA256, message).as_ref());
    context.update(&db[one + 1..]);
    context.finish().as_ref() == hash
}

/// Takes away the mask that MGF1 makes of `seed` (appendix B.2.1).
fn unmask(masked: &mut [u8], seed: &[u8]) {
    for (counter, block) in (0_u32..).zip(masked.chunks_mut(SHA256_OUTPUT_LEN)) {
        let mut context = Context::new(&SHA256);
        context.update(seed);
        context.update(&counter.to_be_bytes());
        let mask = context.finish();
        block
            .iter_mut()
            .zip(mask.as_ref())
            .for_each(|(byte, mask)| *byte ^= mask);
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_SHA256, RsaKeyPair};

    use super::*;

    fn signed(message: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(
            &RSA_PSS_SHA256,
            &SystemRandom::new(),
            message,
            &mut signature,
        )
        .unwrap();
        let public = key.public_key();
        let modulus = public.modulus().big_endian_without_leading_zero().to_vec();
        let exponent = public.exponent().big_endian_without_leading_zero().to_vec();
        (modulus, exponent, signature)
    }

    #[test]
    fn a_signature_verifies_and_no_other_does() {
        let (n, e, signature) = signed(b"message");
        assert!(verifies(&n, &e, b"message", &signature));
        assert!(!verifies(&n, &e, b"massage", &signature));
        for place in [0, 1, 100, 254, 255] {
            let mut wrong = signature.clone();
            wrong[place] ^= 1;
            assert!(!verifies(&n, &e, b"message", &wrong), "{place}");
        }
    }

    #[test]
    fn degenerate_numbers_are_refused() {
        let (n, e, signature) = signed(b"message");
        assert!(!verifies(&n, &e, b"message", &[]));
        assert!(!verifies(&n, &e, b"message", &n), "not below the modulus");
        assert!(!verifies(&[], &e, b"message", &signature));
        assert!(!verifies(&[1], &e, b"message", &[0]));
        assert!(!verifies(&[3], &[3], b"message", &[1]));
        assert!(
            !verifies(&n, &[1], b"message", &signature),
            "the exponent 1"
        );
        assert!(!verifies(&n, &[], b"message", &signature));
        assert!(
            !verifies(&n, &[0xff; 8], b"message", &signature),
            "a dear exponent"
        );
        let longer = [&[0][..], &signature].concat();
        assert!(!verifies(&n, &e, b"message", &longer));
    }

    /// Made by `openssl dgst -sha256 -sign key -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max`, as Go's default.
    #[test]
    fn the_longest_salt_verifies() {
        let modulus = include_bytes!("testdata/pss-modulus.bin");
        let signature = include_bytes!("testdata/pss-max-salt.sig");
        assert!(verifies(modulus, &[1, 0, 1], b"message", signature));
        assert!(!verifies(modulus, &[1, 0, 1], b"other", signature));
    }
}
