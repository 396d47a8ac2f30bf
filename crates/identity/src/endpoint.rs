//! Where a Workload API is, as `SPIFFE_ENDPOINT_SOCKET` tells it (SPIFFE_Workload_Endpoint.md §4).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Why a text does not tell where a Workload API is.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointAddressError {
    /// Another scheme, or none.
    #[error("the endpoint must be written as `unix:///path/to/the.sock` or `tcp://127.0.0.1:8000`")]
    Scheme,
    /// No absolute path of a file.
    #[error(
        "the endpoint's socket must be an absolute path and nothing else, as in `unix:///run/agent/api.sock`"
    )]
    Path,
    /// No IP address with a port.
    #[error(
        "the endpoint's host must be an IP address with a port and nothing else, as in `tcp://127.0.0.1:8000`"
    )]
    Address,
}

/// Where a Workload API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointAddress {
    /// At a unix socket.
    Unix(PathBuf),
    /// At a TCP port.
    Tcp(SocketAddr),
}

impl FromStr for EndpointAddress {
    type Err = EndpointAddressError;

    fn from_str(text: &str) -> Result<Self, EndpointAddressError> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            let sound = path.starts_with('/') && !path.ends_with('/');
            if !sound || path.contains(['?', '#', '\0']) {
                return Err(EndpointAddressError::Path);
            }
            return Ok(Self::Unix(path.into()));
        }
        let address = text
            .strip_prefix("tcp://")
            .ok_or(EndpointAddressError::Scheme)?;
        match address.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(Self::Tcp(address)),
            _ => Err(EndpointAddressError::Address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_06_addresses_that_are_taken() {
        let unix = |path: &str| Ok(EndpointAddress::Unix(path.into()));
        assert_eq!("unix:///run/a.sock".parse(), unix("/run/a.sock"));
        assert_eq!("unix:/run/a.sock".parse(), unix("/run/a.sock"));
        for address in ["127.0.0.1:8000", "[::1]:8000"] {
            let tcp = EndpointAddress::Tcp(address.parse().unwrap());
            assert_eq!(format!("tcp://{address}").parse(), Ok(tcp));
        }
    }

    #[test]
    fn e_06_addresses_that_are_refused() {
        use EndpointAddressError::{Address, Path, Scheme};
        for (text, error) in [
            ("unix://run/a.sock", Path),
            ("unix:a.sock", Path),
            ("unix:", Path),
            ("unix:///", Path),
            ("unix:///run/", Path),
            ("unix:///a?x", Path),
            ("unix:///a#x", Path),
            ("unix:///a\0", Path),
            ("tcp://localhost:8000", Address),
            ("tcp://127.0.0.1", Address),
            ("tcp://127.0.0.1:0", Address),
            ("tcp://127.0.0.1:8000/foo", Address),
            ("tcp://127.0.0.1:8000?x", Address),
            ("tcp://u@127.0.0.1:1", Address),
            ("tcp:127.0.0.1:8000", Scheme),
            ("http://127.0.0.1:8000", Scheme),
            ("/run/a.sock", Scheme),
            ("UNIX:///run/a.sock", Scheme),
            ("", Scheme),
        ] {
            assert_eq!(text.parse::<EndpointAddress>(), Err(error), "{text}");
        }
    }
}
