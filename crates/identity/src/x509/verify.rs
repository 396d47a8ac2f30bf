//! The rules of a leaf, and path validation against the leaf's own trust domain.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{Certificate, X509Error};
use crate::bundle::{Bundle, BundleSet};
use crate::id::{SpiffeId, TrustDomain};

/// Checks the rules of X509-SVID.md that a leaf keeps whoever signed it (§2, §3.1, §4, §5.2), and tells whose it is.
///
/// # Errors
/// The first rule it breaks.
pub fn check_leaf(certificate: &Certificate) -> Result<&SpiffeId, X509Error> {
    let parsed = certificate.parsed();
    let id = match parsed.uris.as_slice() {
        [uri] => uri.as_ref().map_err(Clone::clone)?,
        several => return Err(X509Error::UriCount(several.len())),
    };
    if id.path().is_empty() {
        return Err(X509Error::RootPath(id.clone()));
    }
    if parsed.subject_empty && !parsed.san_critical {
        return Err(X509Error::SanNotCritical);
    }
    match parsed.basic_constraints {
        Some(false) => {}
        Some(true) => return Err(X509Error::LeafIsCa),
        // The standard is silent; two of the four clients in use refuse it, so must a careful issuer's agent.
        None => return Err(X509Error::NoBasicConstraints),
    }
    let usage = parsed
        .key_usage
        .filter(|usage| usage.critical)
        .ok_or(X509Error::NoKeyUsage)?;
    if !usage.digital_signature {
        return Err(X509Error::NoDigitalSignature);
    }
    if usage.key_cert_sign || usage.crl_sign {
        return Err(X509Error::LeafMaySign);
    }
    if parsed
        .ext_key_usage
        .is_some_and(|usage| !(usage.server && usage.client))
    {
        return Err(X509Error::ExtKeyUsage);
    }
    Ok(id)
}

/// Verifies a peer's chain, leaf first, and tells who the peer is.
///
/// Only the bundle of the leaf's own trust domain counts (X509-SVID.md §5.2, Federation §7.3). Expired authorities do
/// not count; tainted ones still do, since their SVIDs live until they are replaced.
///
/// # Errors
/// When the leaf breaks a rule, or no path leads to a valid authority of its trust domain.
pub fn verify_x509_svid(
    chain: &[Certificate],
    bundles: &BundleSet,
    now: SystemTime,
) -> Result<SpiffeId, X509Error> {
    let (leaf, intermediates) = chain.split_first().ok_or(X509Error::EmptyChain)?;
    let id = check_leaf(leaf)?;
    for (number, certificate) in (1..).zip(intermediates) {
        check_intermediate(certificate).ok_or(X509Error::Intermediate(number))?;
        check_domain(certificate, id.trust_domain(), number)?;
    }
    let trust_domain = id.trust_domain();
    let bundle = bundles
        .get(trust_domain)
        .ok_or_else(|| X509Error::NoBundle(trust_domain.clone()))?;
    let roots = valid_roots(bundle, now);
    let anchors: Vec<TrustAnchor<'_>> = roots
        .iter()
        .filter_map(|root| anchor_from_trusted_cert(root).ok())
        .collect();
    if anchors.is_empty() {
        return Err(X509Error::NoAuthority(trust_domain.clone()));
    }
    let refused = |error: webpki::Error| X509Error::Path {
        trust_domain: trust_domain.clone(),
        reason: error.to_string(),
    };
    let leaf_der = CertificateDer::from(leaf.der());
    let intermediates: Vec<CertificateDer<'_>> = intermediates
        .iter()
        .map(|one| CertificateDer::from(one.der()))
        .collect();
    let end_entity = EndEntityCert::try_from(&leaf_der).map_err(refused)?;
    let time = UnixTime::since_unix_epoch(
        now.duration_since(UNIX_EPOCH)
            .map_err(|_| X509Error::Clock)?,
    );
    // Either usage would do: check_leaf demands both or none.
    end_entity
        .verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &anchors,
            &intermediates,
            time,
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map_err(refused)?;
    Ok(id.clone())
}

/// Roots that are CAs and valid now: webpki looks only at a root's name and key.
fn valid_roots(bundle: &Bundle, now: SystemTime) -> Vec<CertificateDer<'_>> {
    bundle
        .x509_authorities
        .iter()
        .map(|authority| &authority.certificate)
        .filter(|root| root.is_ca() && (root.not_before()..=root.not_after()).contains(&now))
        .map(|root| CertificateDer::from(root.der()))
        .collect()
}

/// A CA may be without an ID; if it has one, it issues in its own trust domain only (§3.2).
fn check_domain(
    certificate: &Certificate,
    ours: &TrustDomain,
    number: usize,
) -> Result<(), X509Error> {
    for id in certificate.parsed().uris.iter().flatten() {
        if id.trust_domain() != ours {
            return Err(X509Error::ForeignIntermediate {
                number,
                theirs: id.trust_domain().clone(),
                ours: ours.clone(),
            });
        }
    }
    Ok(())
}

fn check_intermediate(certificate: &Certificate) -> Option<()> {
    let may_sign = certificate
        .parsed()
        .key_usage
        .is_some_and(|usage| usage.critical && usage.key_cert_sign);
    (certificate.is_ca() && may_sign).then_some(())
}
