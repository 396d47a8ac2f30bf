//! The values of `signet.dev/upstreams` and `signet.dev/allow`.

use std::fmt;

use identity::{SpiffeId, TrustDomain};

use crate::capture::{Host, Interface, Net, NetError};

/// What is wrong with an annotation's value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub(crate) String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<NetError> for Problem {
    fn from(error: NetError) -> Self {
        Self(error.to_string())
    }
}

fn problem<T>(text: impl Into<String>) -> Result<T, Problem> {
    Err(Problem(text.into()))
}

/// The longest list: each entry is a filter, a listener or a cluster.
const MAX_ITEMS: usize = 200;

/// Which SPIFFE IDs are meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// This one.
    Exact(SpiffeId),
    /// All whose text begins so; ends with `/`.
    Under {
        /// Their trust domain.
        trust_domain: TrustDomain,
        /// Such as `spiffe://example.org/ns/shop/`.
        prefix: String,
    },
}

impl Pattern {
    /// The trust domain of all IDs meant.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Exact(id) => id.trust_domain(),
            Self::Under { trust_domain, .. } => trust_domain,
        }
    }

    fn parse(text: &str, own: &TrustDomain) -> Result<Self, Problem> {
        let Some(folder) = text.strip_suffix("/*") else {
            return id(text, own).map(Self::Exact);
        };
        let folder = if folder.starts_with("spiffe://") {
            let parsed = SpiffeId::parse(folder);
            parsed.map_err(|error| Problem(format!("{text:?}: {error}")))?
        } else {
            let name = format!("/ns/{folder}/sa");
            let parsed = SpiffeId::new(own, &name);
            let parsed = parsed.map_err(|error| Problem(format!("{text:?}: {error}")))?;
            if folder.contains('/') {
                return problem(format!("{text:?}: write <namespace>/* or spiffe://…/*"));
            }
            parsed
        };
        Ok(Self::Under {
            trust_domain: folder.trust_domain().clone(),
            prefix: format!("{folder}/"),
        })
    }
}

/// A SPIFFE ID, or `<namespace>/<service account>` in the own trust domain.
fn id(text: &str, own: &TrustDomain) -> Result<SpiffeId, Problem> {
    let parsed = if text.starts_with("spiffe://") {
        SpiffeId::parse(text)
    } else {
        match text.split_once('/') {
            Some((namespace, account)) if !account.contains('/') => {
                SpiffeId::new(own, &format!("/ns/{namespace}/sa/{account}"))
            }
            _ => {
                return problem(format!(
                    "{text:?}: write a SPIFFE ID, or <namespace>/<service account>"
                ));
            }
        }
    };
    match parsed {
        Ok(id) if id.path().is_empty() => {
            problem(format!("{text:?} names a trust domain, not a workload"))
        }
        Ok(id) => Ok(id),
        Err(error) => problem(format!("{text:?}: {error}")),
    }
}

/// Reads a list of callers: SPIFFE IDs, `spiffe://…/*`, `<namespace>/<service account>` or `<namespace>/*`,
/// separated by commas or spaces.
///
/// # Errors
/// When it is empty, too long, or one of them is none.
pub fn parse_allow(text: &str, own: &TrustDomain) -> Result<Vec<Pattern>, Problem> {
    let mut all = items(text)?
        .into_iter()
        .map(|item| Pattern::parse(item, own))
        .collect::<Result<Vec<_>, _>>()?;
    all.sort();
    all.dedup();
    Ok(all)
}

fn items(text: &str) -> Result<Vec<&str>, Problem> {
    let items: Vec<&str> = text
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|item| !item.is_empty())
        .collect();
    match items.len() {
        0 => problem("is empty: remove it, or name at least one"),
        1..=MAX_ITEMS => Ok(items),
        many => problem(format!("has {many} entries; {MAX_ITEMS} are the most")),
    }
}

/// A service the app calls through Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where the app reaches it, on 127.0.0.1.
    pub local_port: u16,
    /// A DNS name, an IP address or a network.
    pub host: Host,
    /// The port there, where mTLS is spoken.
    pub port: u16,
    /// Who must answer: one of these.
    pub peers: Vec<SpiffeId>,
    /// Whether bytes are passed on as they are, rather than HTTP requests.
    pub tcp: bool,
}

impl Upstream {
    /// The address as a URL has it.
    #[must_use]
    pub fn authority(&self) -> String {
        self.host.with_port(self.port)
    }

    /// The network, when the host is one and no single address: where a connection goes is known when it comes.
    #[must_use]
    pub fn network(&self) -> Option<Net> {
        match &self.host {
            Host::Net(net) if net.single().is_none() => Some(*net),
            _ => None,
        }
    }

    /// `[tcp://][local port=]host:port=peer[|peer…]`.
    fn parse(text: &str, own: &TrustDomain) -> Result<Self, Problem> {
        let hint = "write [tcp://][<local port>=]<host>:<port>=<SPIFFE ID>";
        let (tcp, rest) = match text.strip_prefix("tcp://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").unwrap_or(text)),
        };
        let (first, rest) = rest
            .split_once('=')
            .ok_or_else(|| Problem(format!("{text:?} does not say whom to expect: {hint}")))?;
        let (local, address, peers) = match rest.split_once('=') {
            Some((address, peers)) => (Some(first), address, peers),
            None => (None, first, rest),
        };
        let (host, port) = parse_address(address)
            .transpose()?
            .ok_or_else(|| Problem(format!("{text:?} has no port: {hint}")))?;
        let peers = peers.split('|').map(|peer| id(peer, own));
        let mut peers = peers.collect::<Result<Vec<_>, _>>()?;
        peers.sort();
        peers.dedup();
        Ok(Self {
            local_port: local.map_or(Ok(port), parse_port)?,
            host,
            port,
            peers,
            tcp,
        })
    }
}

/// Reads a list of upstreams, separated by commas or spaces.
///
/// # Errors
/// When it is empty, too long, one of them is none, or two want the same local port.
pub fn parse_upstreams(text: &str, own: &TrustDomain) -> Result<Vec<Upstream>, Problem> {
    let mut all: Vec<Upstream> = Vec::new();
    for item in items(text)? {
        let upstream = Upstream::parse(item, own)?;
        if let Some(other) = all.iter().find(|u| u.local_port == upstream.local_port) {
            return problem(format!(
                "{} and {} want the same local port {}: write <local port>= before one of them",
                other.authority(),
                upstream.authority(),
                upstream.local_port
            ));
        }
        all.push(upstream);
    }
    Ok(all)
}

/// Reads a port, 1 to 65535.
pub(crate) fn parse_port(text: &str) -> Result<u16, Problem> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if port > 0 && digits => Ok(port),
        _ => problem(format!("{text:?} is no port: write 1 to 65535")),
    }
}

/// Reads ports, networks or interfaces, separated by commas or spaces.
fn parse_list<T, E>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, Problem>
where
    T: Ord,
    Problem: From<E>,
{
    let mut all = items(text)?
        .into_iter()
        .map(parse)
        .collect::<Result<Vec<_>, _>>()?;
    all.sort();
    all.dedup();
    Ok(all)
}

pub(crate) fn parse_ports(text: &str) -> Result<Vec<u16>, Problem> {
    parse_list(text, parse_port)
}

pub(crate) fn parse_nets(text: &str) -> Result<Vec<Net>, Problem> {
    parse_list(text, str::parse::<Net>)
}

pub(crate) fn parse_interfaces(text: &str) -> Result<Vec<Interface>, Problem> {
    parse_list(text, str::parse::<Interface>)
}

/// `host:port`; nothing when there is no port.
fn parse_address(text: &str) -> Option<Result<(Host, u16), Problem>> {
    let (host, port) = text.rsplit_once(':')?;
    Some(parse_port(port).and_then(|port| Ok((parse_host(host)?, port))))
}

/// Reads `<local port>=<host>:<port>`, as the injector hands it to `signet k8s capture`.
///
/// # Errors
/// When it is something else.
pub fn parse_captured(text: &str) -> Result<crate::capture::Upstream, Problem> {
    let hint = || Problem(format!("{text:?}: write <local port>=<host>:<port>"));
    let (local_port, address) = text.split_once('=').ok_or_else(hint)?;
    let (host, port) = parse_address(address).ok_or_else(hint)??;
    Ok(crate::capture::Upstream {
        local_port: parse_port(local_port)?,
        host,
        port,
    })
}

/// `name`, `10.0.0.1`, `10.0.0.0/8`, `[fd00::1]` or `[fd00::/8]`.
fn parse_host(text: &str) -> Result<Host, Problem> {
    if let Some(net) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let v6 = net.contains(':');
        if !v6 {
            return problem(format!("{text:?} is no IPv6 address"));
        }
        return Ok(Host::Net(net.parse()?));
    }
    if text.contains('/') || text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Ok(Host::Net(text.parse()?));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() <= 253 && name.split('.').all(label) {
        Ok(Host::Name(text.to_ascii_lowercase()))
    } else {
        problem(format!("{text:?} is neither a DNS name nor an address"))
    }
}

#[cfg(test)]
mod tests;
