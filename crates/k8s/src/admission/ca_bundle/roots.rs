use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::{Bundle, Certificate};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Root certificates as a set: equal whatever their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots(BTreeSet<Vec<u8>>);

impl Roots {
    /// The X.509 authorities of a bundle, the tainted ones too: the API server has to trust what is served until it is replaced.
    #[must_use]
    pub fn of(bundle: &Bundle) -> Self {
        let authorities = bundle.x509_authorities.iter();
        Self(
            authorities
                .map(|one| one.certificate.der().to_vec())
                .collect(),
        )
    }

    /// Reads a `caBundle`: PEM in base64.
    #[must_use]
    pub fn from_ca_bundle(text: &str) -> Option<Self> {
        let pem = STANDARD.decode(text).ok()?;
        let certificates = CertificateDer::pem_slice_iter(&pem);
        let der: Result<BTreeSet<_>, _> = certificates
            .map(|one| one.map(|der| der.to_vec()))
            .collect();
        der.ok().map(Self)
    }

    /// As a `caBundle`: PEM in base64. Equal sets give equal text.
    #[must_use]
    pub fn to_ca_bundle(&self) -> String {
        let certificates = self
            .0
            .iter()
            .filter_map(|der| Certificate::from_der(der).ok());
        STANDARD.encode(certificates.map(|one| one.to_pem()).collect::<String>())
    }

    /// Whether all of `other` are among these.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.0.is_subset(&self.0)
    }

    /// These and those of `other`.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
