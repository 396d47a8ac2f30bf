//! The rules as values, and as `nft` prints them.

use std::fmt;
use std::net::IpAddr;

use super::net::{Interface, Net};

/// The table that holds everything.
pub(super) const TABLE: &str = "signet";

/// Every rule, names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// The user Envoy runs as.
    pub(super) envoy_user: u32,
    /// The app's ports.
    pub(super) app_ports: Vec<u16>,
    /// Envoy's port for them.
    pub(super) inbound_port: u16,
    /// Where the app's connections are taken.
    pub(super) outbound: Vec<Outbound>,
    /// Networks left alone.
    pub(super) skip_nets: Vec<Net>,
    /// Interfaces left alone.
    pub(super) skip_interfaces: Vec<Interface>,
}

/// Connections to a port of a network, and Envoy's port for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outbound {
    pub(super) net: Net,
    pub(super) port: u16,
    pub(super) local_port: u16,
}

/// Rules at one place of the kernel's network stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) hook: Hook,
    pub(super) rules: Vec<Rule>,
}

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// What comes in.
    Prerouting,
    /// What goes out.
    Output,
}

/// Both hooks translate destinations at this priority, `dstnat`.
pub(super) const PRIORITY: i32 = -100;

/// What to do with connections that match everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) verdict: Verdict,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The interface it comes in by.
    InputInterface(Interface),
    /// The interface it goes out by.
    OutputInterface(Interface),
    /// The user whose socket it is.
    User(u32),
    /// Where it comes from.
    Source(Net),
    /// Where it goes.
    Destination(Net),
    /// The TCP port it goes to.
    Port(u16),
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes where it wants.
    Return,
    /// It goes to this port of ours.
    Redirect(u16),
}

impl Ruleset {
    pub(super) fn chains(&self) -> Vec<Chain> {
        let mut chains = Vec::new();
        if !self.app_ports.is_empty() {
            chains.push(self.inbound());
        }
        if !self.outbound.is_empty() {
            chains.push(self.outbound());
        }
        chains
    }

    fn inbound(&self) -> Chain {
        let mut rules = self.skips(Match::InputInterface, Match::Source);
        let take = |port: &u16| Rule {
            matches: vec![Match::Port(*port)],
            verdict: Verdict::Redirect(self.inbound_port),
        };
        rules.extend(self.app_ports.iter().map(take));
        Chain {
            name: "inbound",
            hook: Hook::Prerouting,
            rules,
        }
    }

    fn outbound(&self) -> Chain {
        // Before all: what Envoy sends must never come back to it.
        let mut rules = vec![leave(Match::User(self.envoy_user))];
        rules.extend(self.skips(Match::OutputInterface, Match::Destination));
        let take = |one: &Outbound| Rule {
            matches: vec![Match::Destination(one.net), Match::Port(one.port)],
            verdict: Verdict::Redirect(one.local_port),
        };
        rules.extend(self.outbound.iter().map(take));
        Chain {
            name: "outbound",
            hook: Hook::Output,
            rules,
        }
    }

    fn skips(&self, interface: fn(Interface) -> Match, net: fn(Net) -> Match) -> Vec<Rule> {
        let loopback = Interface::loopback();
        let interfaces = std::iter::once(&loopback).chain(&self.skip_interfaces);
        let interfaces = interfaces.map(|name| leave(interface(name.clone())));
        let nets = self.skip_nets.iter().map(|one| leave(net(*one)));
        interfaces.chain(nets).collect()
    }
}

fn leave(what: Match) -> Rule {
    Rule {
        matches: vec![what],
        verdict: Verdict::Return,
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for (index, chain) in self.chains().iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // nft's name for the number at the one hook; at the other it has none.
        let place = match self.hook {
            Hook::Prerouting => "prerouting priority dstnat".to_owned(),
            Hook::Output => format!("output priority {PRIORITY}"),
        };
        writeln!(f, "\tchain {} {{", self.name)?;
        writeln!(f, "\t\ttype nat hook {place}; policy accept;")?;
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.matches {
            write!(f, "{one} ")?;
        }
        match self.verdict {
            Verdict::Return => f.write_str("return"),
            Verdict::Redirect(port) => write!(f, "redirect to :{port}"),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InputInterface(name) => write!(f, "iifname {:?}", name.as_str()),
            Self::OutputInterface(name) => write!(f, "oifname {:?}", name.as_str()),
            Self::User(user) => write!(f, "meta skuid {user}"),
            Self::Source(net) => address(f, net, "saddr"),
            Self::Destination(net) => address(f, net, "daddr"),
            Self::Port(port) => write!(f, "tcp dport {port}"),
        }
    }
}

fn address(f: &mut fmt::Formatter<'_>, net: &Net, field: &str) -> fmt::Result {
    let (family, protocol) = match net.address() {
        IpAddr::V4(_) => ("ipv4", "ip"),
        IpAddr::V6(_) => ("ipv6", "ip6"),
    };
    if net.bits() == 0 {
        return write!(f, "meta nfproto {family}");
    }
    write!(f, "{protocol} {field} {net}")
}
