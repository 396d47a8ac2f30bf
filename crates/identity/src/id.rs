//! Trust domains and SPIFFE IDs (SPIFFE-ID.md §2).
//!
//! Only the canonical form is accepted, anywhere: lower-case scheme and trust domain, no normalising. The bytes of an
//! accepted ID are the bytes that are signed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The longest SPIFFE ID, in bytes (SPIFFE-ID.md §2.3).
pub const MAX_ID_LEN: usize = 2048;

/// The longest trust domain name, in bytes (SPIFFE-ID.md §2.3, RFC 3986 §3.2.2).
pub const MAX_TRUST_DOMAIN_LEN: usize = 255;

const SCHEME: &str = "spiffe://";

/// Why a text is not a SPIFFE ID or a trust domain.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdError {
    /// The scheme is missing or another.
    #[error("a SPIFFE ID starts with `spiffe://`, in lower case")]
    Scheme,
    /// No trust domain.
    #[error("the trust domain is missing; write `spiffe://example.org/path`")]
    EmptyTrustDomain,
    /// A byte that a trust domain may not hold.
    #[error("the trust domain may hold only `a-z`, `0-9`, `.`, `-` and `_`")]
    TrustDomainByte,
    /// Too long a trust domain.
    #[error("the trust domain is longer than {MAX_TRUST_DOMAIN_LEN} bytes")]
    TrustDomainTooLong,
    /// A byte that a path may not hold.
    #[error("the path may hold only `A-Z`, `a-z`, `0-9`, `.`, `-` and `_` between its slashes")]
    PathByte,
    /// `//`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
    /// A trailing slash.
    #[error("the path ends with `/`")]
    TrailingSlash,
    /// A path without its leading slash.
    #[error("the path starts with `/`")]
    NoLeadingSlash,
    /// Too long an ID.
    #[error("the SPIFFE ID is longer than {MAX_ID_LEN} bytes")]
    TooLong,
}

/// The name of a trust domain, such as `example.org`; always lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Takes a bare name, such as `example.org`.
    ///
    /// # Errors
    /// When it is empty, too long, or holds a byte other than `a-z 0-9 . - _`.
    pub fn new(name: &str) -> Result<Self, IdError> {
        check_trust_domain(name)?;
        Ok(Self(name.into()))
    }

    /// Takes a bare name, or a trust domain's ID such as `spiffe://example.org`.
    ///
    /// # Errors
    /// As [`TrustDomain::new`]; also when an ID has a path.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        Self::new(text.strip_prefix(SCHEME).unwrap_or(text))
    }

    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain's own SPIFFE ID, which has no path.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        SpiffeId {
            whole: format!("{SCHEME}{}", self.0).into(),
            trust_domain: self.clone(),
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

/// A SPIFFE ID, such as `spiffe://example.org/ns/shop/sa/frontend`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    whole: Arc<str>,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// Takes the whole URI.
    ///
    /// # Errors
    /// When it breaks a rule of SPIFFE-ID.md §2.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.len() > MAX_ID_LEN {
            return Err(IdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
        let (name, path) = rest
            .find('/')
            .map_or((rest, ""), |slash| rest.split_at(slash));
        let trust_domain = TrustDomain::new(name)?;
        check_path(path)?;
        Ok(Self {
            whole: text.into(),
            trust_domain,
        })
    }

    /// Joins a trust domain and a path, such as `/ns/shop/sa/frontend`; the path may be empty.
    ///
    /// # Errors
    /// When the path breaks a rule, or the whole is too long.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, IdError> {
        check_path(path)?;
        let whole = format!("{SCHEME}{trust_domain}{path}");
        if whole.len() > MAX_ID_LEN {
            return Err(IdError::TooLong);
        }
        Ok(Self {
            whole: whole.into(),
            trust_domain: trust_domain.clone(),
        })
    }

    /// The trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash; empty for a trust domain's own ID.
    #[must_use]
    pub fn path(&self) -> &str {
        self.whole
            .get(SCHEME.len() + self.trust_domain.0.len()..)
            .unwrap_or_default()
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// Whether it belongs to this trust domain.
    #[must_use]
    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain == *trust_domain
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

fn check_trust_domain(name: &str) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::EmptyTrustDomain);
    }
    if name.len() > MAX_TRUST_DOMAIN_LEN {
        return Err(IdError::TrustDomainTooLong);
    }
    let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if name.bytes().all(legal) {
        Ok(())
    } else {
        Err(IdError::TrustDomainByte)
    }
}

fn check_path(path: &str) -> Result<(), IdError> {
    if path.is_empty() {
        return Ok(());
    }
    let segments = path.strip_prefix('/').ok_or(IdError::NoLeadingSlash)?;
    if segments.is_empty() || segments.ends_with('/') {
        return Err(IdError::TrailingSlash);
    }
    segments.split('/').try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), IdError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match segment {
        "" => Err(IdError::EmptySegment),
        "." | ".." => Err(IdError::DotSegment),
        _ if segment.bytes().all(legal) => Ok(()),
        _ => Err(IdError::PathByte),
    }
}

#[cfg(test)]
mod tests;
