//! Redirecting a pod's connections to its Envoy: `signet k8s capture`, which runs as an init container with `NET_ADMIN`.
//!
//! Rules are values ([`Ruleset`]) with two faces: text as `nft` prints it, and messages for the kernel's nf_tables. One
//! table of our own holds everything and is replaced in one transaction, so that running it again changes nothing.

mod kernel;
mod message;
mod net;
mod rules;

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

pub use self::net::{Interface, Net, NetError};
pub use self::rules::Ruleset;

use self::rules::Outbound;

/// What to redirect, as the command line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The user Envoy runs as: its own connections are left alone.
    pub envoy_user: u32,
    /// Ports of the app whose connections go to Envoy.
    pub app_ports: Vec<u16>,
    /// Envoy's port for them.
    pub inbound_port: u16,
    /// The app's connections to these go to Envoy.
    pub upstreams: Vec<Upstream>,
    /// Connections from and to these networks are left alone.
    pub skip_nets: Vec<Net>,
    /// Connections through these interfaces are left alone.
    pub skip_interfaces: Vec<Interface>,
}

/// A service the app connects to, and Envoy's port for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where Envoy listens.
    pub local_port: u16,
    /// Where the app connects to.
    pub host: Host,
    /// The port there.
    pub port: u16,
}

/// How an upstream is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By a DNS name.
    Name(String),
    /// By an address or a network.
    Net(Net),
}

impl Host {
    /// The host and a port of it, as a URL has them.
    #[must_use]
    pub fn with_port(&self, port: u16) -> String {
        match self {
            Self::Net(net) if net.address().is_ipv6() => format!("[{net}]:{port}"),
            Self::Net(net) => format!("{net}:{port}"),
            Self::Name(name) => format!("{name}:{port}"),
        }
    }
}

/// Why rules could not be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that DNS does not know, or not yet.
    #[error(
        "upstream {name}: {source}: its Service must be there before the pod starts; name an address or a network (10.0.0.0/8:{port}) where there is no Service"
    )]
    Unresolved {
        /// The name.
        name: String,
        /// Its port.
        port: u16,
        /// What the resolver said.
        source: io::Error,
    },
    /// Two upstreams that are one to the rules.
    #[error(
        "upstreams with the local ports {0} and {1} have the same address and port {2}: rules cannot tell them apart; leave one of them out of the capture"
    )]
    Ambiguous(u16, u16, SocketAddr),
    /// The kernel did not take them.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
}

impl Plan {
    /// The rules: names become addresses here.
    ///
    /// # Errors
    /// When a name has no address, or two upstreams share one.
    pub fn resolve(&self) -> Result<Ruleset, Error> {
        self.resolve_with(|name, port| {
            let found = (name, port).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    fn resolve_with(
        &self,
        lookup: impl Fn(&str, u16) -> io::Result<Vec<IpAddr>>,
    ) -> Result<Ruleset, Error> {
        let mut outbound: Vec<Outbound> = Vec::new();
        for upstream in &self.upstreams {
            for net in addresses(upstream, &lookup)? {
                let same = outbound
                    .iter()
                    .find(|there| there.net == net && there.port == upstream.port);
                if let Some(there) = same {
                    let at = SocketAddr::new(net.address(), upstream.port);
                    return Err(Error::Ambiguous(there.local_port, upstream.local_port, at));
                }
                outbound.push(Outbound {
                    net,
                    port: upstream.port,
                    local_port: upstream.local_port,
                });
            }
        }
        // The narrower one first: the first rule that matches counts.
        outbound.sort_by_key(|one| std::cmp::Reverse(one.net.bits()));
        Ok(Ruleset {
            envoy_user: self.envoy_user,
            app_ports: self.app_ports.clone(),
            inbound_port: self.inbound_port,
            outbound,
            skip_nets: self.skip_nets.clone(),
            skip_interfaces: self.skip_interfaces.clone(),
        })
    }
}

fn addresses(
    upstream: &Upstream,
    lookup: impl Fn(&str, u16) -> io::Result<Vec<IpAddr>>,
) -> Result<Vec<Net>, Error> {
    let name = match &upstream.host {
        Host::Net(net) => return Ok(vec![*net]),
        Host::Name(name) => name,
    };
    let unresolved = |source| Error::Unresolved {
        name: name.clone(),
        port: upstream.port,
        source,
    };
    let found = lookup(name, upstream.port).map_err(unresolved)?;
    let mut found: Vec<Net> = found.into_iter().map(Net::from).collect();
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Err(unresolved(io::Error::other("it has no address")));
    }
    Ok(found)
}

/// Puts the rules in place of those that were there, in the network namespace this process runs in.
///
/// # Errors
/// When the kernel does not take them; then those from before still hold.
pub fn apply(rules: &Ruleset) -> Result<(), Error> {
    Ok(kernel::send(&message::replace(rules))?)
}

/// Takes the rules away; fine when there are none.
///
/// # Errors
/// When the kernel does not let go of them.
pub fn remove() -> Result<(), Error> {
    Ok(kernel::send(&message::remove())?)
}

#[cfg(test)]
mod tests;
