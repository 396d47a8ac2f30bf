//! Federation relationships: where another trust domain's bundle is to be had (SPIFFE_Federation.md §5).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::{SpiffeId, TrustDomain};

/// The longest URL of a bundle endpoint, in bytes.
pub const MAX_ENDPOINT_URL_LEN: usize = 2048;

const SCHEME: &str = "https://";

/// Why a text is not the URL of a bundle endpoint.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointUrlError {
    /// The scheme is missing or another.
    #[error("bundle endpoint URL must use the https scheme, as in `https://bundle.example.org/`")]
    Scheme,
    /// No host, or one that cannot be.
    #[error("bundle endpoint URL must specify the host, as in `https://bundle.example.org/`")]
    Host,
    /// A user, with or without password.
    #[error("bundle endpoint URL must not contain user info; leave out all up to the `@`")]
    UserInfo,
    /// A port that is none.
    #[error("the port of the bundle endpoint URL must be a number from 1 to 65535")]
    Port,
    /// White space, a control character, or another byte that no URL holds.
    #[error("the bundle endpoint URL holds a character that must be percent-encoded")]
    Character,
    /// Too long.
    #[error("the bundle endpoint URL is longer than {MAX_ENDPOINT_URL_LEN} bytes")]
    TooLong,
}

/// The URL of a bundle endpoint: `https`, a host, no user info (§5.2.1.1, §5.2.2.1). Kept as it was written.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl(Arc<str>);

impl EndpointUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it is none that a bundle may be fetched from.
    pub fn parse(text: &str) -> Result<Self, EndpointUrlError> {
        if text.len() > MAX_ENDPOINT_URL_LEN {
            return Err(EndpointUrlError::TooLong);
        }
        if !text.bytes().all(is_url_byte) {
            return Err(EndpointUrlError::Character);
        }
        let scheme = text.get(..SCHEME.len());
        if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
            return Err(EndpointUrlError::Scheme);
        }
        let rest = &text[SCHEME.len()..];
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        check_authority(&rest[..end])?;
        Ok(Self(text.into()))
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_authority(authority: &str) -> Result<(), EndpointUrlError> {
    if authority.contains('@') {
        return Err(EndpointUrlError::UserInfo);
    }
    let port = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(EndpointUrlError::Host)?;
            address
                .parse::<Ipv6Addr>()
                .map_err(|_| EndpointUrlError::Host)?;
            port
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            if host.is_empty() || !host.bytes().all(is_host_byte) {
                return Err(EndpointUrlError::Host);
            }
            port
        }
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        None => Err(EndpointUrlError::Host),
        Some(number) => {
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            match number.parse::<u16>() {
                Ok(1..) if digits => Ok(()),
                _ => Err(EndpointUrlError::Port),
            }
        }
    }
}

/// What RFC 3986 lets into a URL, brackets included; a `%` is not checked further.
const fn is_url_byte(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
        )
}

/// What names of hosts and IPv4 addresses are written in.
const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EndpointUrl {
    type Err = EndpointUrlError;

    fn from_str(text: &str) -> Result<Self, EndpointUrlError> {
        Self::parse(text)
    }
}

/// How a bundle endpoint proves who it is (§5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointProfile {
    /// `https_web`: by a certificate of the Web PKI.
    HttpsWeb,
    /// `https_spiffe`: by an X.509-SVID.
    HttpsSpiffe {
        /// The SVID's ID.
        endpoint_id: SpiffeId,
    },
}

/// Another trust domain, and where its bundle is to be had. All three are explicit; none follows from another (§5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederationRelationship {
    /// The other trust domain.
    pub trust_domain: TrustDomain,
    /// Its bundle endpoint.
    pub endpoint_url: EndpointUrl,
    /// How the endpoint proves who it is.
    pub profile: EndpointProfile,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f_10_urls_that_are_taken() {
        for url in [
            "https://example.org",
            "https://example.org/",
            "HTTPS://Example.org:8443/bundle?x=@y#z",
            "https://10.0.0.1:1/",
            "https://[2001:db8::1]:65535/a/b",
            "https://under_score.example/%20",
        ] {
            assert_eq!(
                EndpointUrl::parse(url).map(|url| url.to_string()),
                Ok(url.to_owned())
            );
        }
    }

    #[test]
    fn f_10_urls_that_are_refused() {
        use EndpointUrlError::{Character, Host, Port, Scheme, TooLong, UserInfo};
        let long = format!("https://a/{}", "x".repeat(MAX_ENDPOINT_URL_LEN));
        for (url, error) in [
            ("", Scheme),
            ("https:/", Scheme),
            ("http://example.org/", Scheme),
            ("example.org", Scheme),
            ("spiffe://example.org", Scheme),
            ("https://", Host),
            ("https:///bundle", Host),
            ("https://:8443/", Host),
            ("https://[::1/", Host),
            ("https://[::x]/", Host),
            ("https://[::1]x/", Host),
            ("https://a,b/", Host),
            ("https://user@example.org/", UserInfo),
            ("https://user:secret@example.org/", UserInfo),
            ("https://example.org:/", Port),
            ("https://example.org:0/", Port),
            ("https://example.org:+1/", Port),
            ("https://example.org:65536/", Port),
            ("https://example.org/a b", Character),
            ("https://example.org/\n", Character),
            ("https://exämple.org/", Character),
            ("https://example.org\\@evil.org/", Character),
            (&long, TooLong),
        ] {
            assert_eq!(EndpointUrl::parse(url), Err(error), "{url:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_what_is_taken_is_kept(text in "(https://)?[\\PC]{0,40}") {
            if let Ok(url) = EndpointUrl::parse(&text) {
                proptest::prop_assert_eq!(url.as_str(), text);
            }
        }
    }
}
