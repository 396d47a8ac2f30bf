//! Secrets as Envoy takes them, encoded once, with a version that is a hash of the bytes.

use std::{fmt, sync::Arc, time::SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use identity::{Bundle, SpiffeId, X509Svid};
use prost::Message as _;
use proto::envoy::{
    Any,
    core::{DataSource, TypedExtensionConfig, data_source::Specifier},
    matcher::{StringMatcher, string_matcher::MatchPattern},
    tls::{
        CertificateValidationContext, Secret, SpiffeCertValidatorConfig, SubjectAltNameMatcher,
        TlsCertificate, secret::Type, spiffe_cert_validator_config::TrustDomain,
        subject_alt_name_matcher::SanType,
    },
};
use zeroize::{Zeroize as _, Zeroizing};

use super::{AllowList, Allowed, Form, Style, TYPE_URL};

/// The name of Envoy's SPIFFE validator.
const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// Of more authorities than this the names are not sent to every client of which a certificate is asked: a handshake
/// would grow by some hundred bytes for each, and no client of ours chooses by them.
const MANY_AUTHORITIES: usize = 16;

/// One secret, ready to be sent. Clones share the bytes, which are wiped with the last of them.
#[derive(Clone)]
pub struct Resource {
    version: Version,
    any: Bytes,
    certificate: Option<Arc<Certified>>,
}

/// What a log tells of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Whose it is.
    pub id: SpiffeId,
    /// Its serial number, decimal.
    pub serial: String,
    /// When it expires.
    pub expires_at: SystemTime,
    /// The key identifier of the authority at the end of its chain.
    pub(super) issuer: Option<Vec<u8>>,
}

/// The version of a secret, or of a set of them: a truncated hash of the content, so that equal content has the same
/// version in every stream and after every restart. Written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 8]);

impl Resource {
    /// A workload's certificate chain and private key.
    pub(super) fn certificate(name: &str, svid: &X509Svid) -> Self {
        let mut secret = Secret {
            name: name.to_owned(),
            r#type: Some(Type::TlsCertificate(TlsCertificate {
                certificate_chain: Some(inline(svid.chain_pem().into_bytes())),
                private_key: Some(inline(svid.key().to_pem().as_bytes().to_vec())),
                ..TlsCertificate::default()
            })),
        };
        let resource = Self::seal(&secret);
        wipe(&mut secret);
        Self {
            certificate: Some(Arc::new(Certified {
                id: svid.id().clone(),
                serial: svid.leaf().serial_decimal(),
                expires_at: svid.expires_at(),
                issuer: crate::cache::issuer_id(svid).map(<[u8]>::to_vec),
            })),
            ..resource
        }
    }

    /// The trust bundles by which a peer is checked; `None` when there would be nothing in it, since Envoy takes an
    /// empty validation context as "trust everybody".
    /// With an allow-list, only its peers are let in.
    pub(super) fn validation(
        name: &str,
        style: Style,
        bundles: &[&Bundle],
        allowed: Option<&AllowList>,
    ) -> Option<Self> {
        let count: usize = bundles.iter().map(|one| one.x509_authorities.len()).sum();
        let bundles: Vec<(&str, String)> = bundles
            .iter()
            .map(|bundle| (bundle.trust_domain.as_str(), authorities(bundle)))
            .filter(|(_, pem)| !pem.is_empty())
            .collect();
        if bundles.is_empty() {
            return None;
        }
        let mut context = match style.form {
            Form::Validator => CertificateValidationContext {
                custom_validator_config: Some(validator(bundles)),
                ..CertificateValidationContext::default()
            },
            Form::PlainCa => {
                let pem: String = bundles.into_iter().map(|(_, pem)| pem).collect();
                CertificateValidationContext {
                    trusted_ca: Some(inline(pem.into_bytes())),
                    ..CertificateValidationContext::default()
                }
            }
        };
        context.suppress_client_ca_list = style.brief && count > MANY_AUTHORITIES;
        if let Some(allowed) = allowed {
            context.match_typed_subject_alt_names = allowed.iter().map(matcher).collect();
        }
        Some(Self::seal(&Secret {
            name: name.to_owned(),
            r#type: Some(Type::ValidationContext(context)),
        }))
    }

    /// A validation context that refuses everybody: Envoy's SPIFFE validator, and no trust domain to trust. Unlike an
    /// empty context, it is safe.
    pub(super) fn deny_all(name: &str) -> Self {
        let context = CertificateValidationContext {
            custom_validator_config: Some(validator(Vec::new())),
            ..CertificateValidationContext::default()
        };
        Self::seal(&Secret {
            name: name.to_owned(),
            r#type: Some(Type::ValidationContext(context)),
        })
    }

    /// The version.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The secret as an encoded `google.protobuf.Any`.
    #[must_use]
    pub fn any(&self) -> Bytes {
        self.any.clone()
    }

    /// What a log tells of it; `None` for a trust bundle.
    #[must_use]
    pub fn certificate_info(&self) -> Option<&Arc<Certified>> {
        self.certificate.as_ref()
    }

    fn seal(secret: &Secret) -> Self {
        let mut any = Any {
            type_url: TYPE_URL.to_owned(),
            value: secret.encode_to_vec(),
        };
        let bytes = Zeroizing::new(any.encode_to_vec());
        any.value.zeroize();
        Self {
            version: Version::of(&bytes),
            any: Bytes::from_owner(bytes),
            certificate: None,
        }
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("version", &self.version)
            .field("any", &"<redacted>")
            .finish()
    }
}

impl Version {
    fn of(bytes: &[u8]) -> Self {
        let mut version = [0; 8];
        version.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..8]);
        Self(version)
    }

    /// The version of several resources by name, in the order of their names; of a single one, its own.
    #[must_use]
    pub fn of_set<'a>(resources: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let resources: Vec<(&str, Self)> = resources.into_iter().collect();
        if let [(_, version)] = resources[..] {
            return version;
        }
        let mut text = Vec::new();
        for (name, Self(version)) in resources {
            text.extend_from_slice(name.as_bytes());
            text.push(0);
            text.extend_from_slice(&version);
        }
        Self::of(&text)
    }

    /// Reads a version of ours; `None` for anything else.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let digits = text.len() == 16
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits)?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Lets a peer in by the URI in its certificate; with the SPIFFE validator, other kinds of name would let everybody in.
fn matcher(allowed: &Allowed) -> SubjectAltNameMatcher {
    let pattern = match allowed {
        Allowed::Id(id) => MatchPattern::Exact(id.to_string()),
        Allowed::Below { prefix, .. } => MatchPattern::Prefix(prefix.clone()),
    };
    SubjectAltNameMatcher {
        san_type: SanType::Uri.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(pattern),
            ..StringMatcher::default()
        }),
        ..SubjectAltNameMatcher::default()
    }
}

fn validator(bundles: Vec<(&str, String)>) -> TypedExtensionConfig {
    let trust_domains = bundles
        .into_iter()
        .map(|(trust_domain, pem)| TrustDomain {
            name: trust_domain.to_owned(),
            trust_bundle: Some(inline(pem.into_bytes())),
            ..TrustDomain::default()
        })
        .collect();
    let config = SpiffeCertValidatorConfig {
        trust_domains,
        ..SpiffeCertValidatorConfig::default()
    };
    TypedExtensionConfig {
        name: VALIDATOR.to_owned(),
        typed_config: Some(Any {
            type_url: VALIDATOR_TYPE_URL.to_owned(),
            value: config.encode_to_vec(),
        }),
    }
}

/// A bundle's CA certificates as PEM, each once and in an order of their own, so that equal sets have equal versions.
fn authorities(bundle: &Bundle) -> String {
    let mut certificates: Vec<_> = bundle
        .x509_authorities
        .iter()
        .map(|authority| &authority.certificate)
        .collect();
    certificates.sort_unstable_by_key(|certificate| certificate.der());
    certificates.dedup_by_key(|certificate| certificate.der());
    certificates.iter().map(|one| one.to_pem()).collect()
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(bytes)),
        ..DataSource::default()
    }
}

fn wipe(secret: &mut Secret) {
    let Some(Type::TlsCertificate(certificate)) = &mut secret.r#type else {
        return;
    };
    let key = certificate.private_key.as_mut();
    if let Some(Specifier::InlineBytes(key)) = key.and_then(|source| source.specifier.as_mut()) {
        key.zeroize();
    }
}

/// The version of an encoded secret, as a client would find it out.
#[cfg(test)]
pub(super) fn version_of(any: &[u8]) -> Version {
    Version::of(any)
}
