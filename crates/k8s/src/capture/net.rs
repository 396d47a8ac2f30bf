//! Networks and interfaces, as rules name them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address or a network: the bits after the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Net {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network or interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Neither an address nor a network.
    #[error("{0:?} is no network: write an address, 10.0.0.0/8 or fd00::/8")]
    NoNet(String),
    /// Bits after the prefix.
    #[error("{given:?} has bits behind its prefix: write {meant}")]
    HostBits {
        /// What was written.
        given: String,
        /// The network it is in.
        meant: Net,
    },
    /// No name of an interface.
    #[error("{0:?} is no interface: write up to 15 of a-z, A-Z, 0-9, '.', '-' and '_'")]
    NoInterface(String),
}

impl Net {
    /// The first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the prefix.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// The address, when it is a single one.
    #[must_use]
    pub fn single(&self) -> Option<IpAddr> {
        (self.bits == most(self.address)).then_some(self.address)
    }

    /// The mask, in the address's length.
    pub(super) fn mask(&self) -> Vec<u8> {
        match masked(IpAddr::from([0xff; 16]), self.bits) {
            IpAddr::V6(mask) if self.address.is_ipv6() => mask.octets().to_vec(),
            IpAddr::V6(mask) => mask.octets()[..4].to_vec(),
            IpAddr::V4(mask) => mask.octets().to_vec(),
        }
    }

    /// The address's bytes.
    pub(super) fn octets(&self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }
}

const fn most(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - bits.min(32)));
            Ipv4Addr::from_bits(address.to_bits() & mask.unwrap_or(0)).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - bits.min(128)));
            Ipv6Addr::from_bits(address.to_bits() & mask.unwrap_or(0)).into()
        }
    }
}

impl From<IpAddr> for Net {
    fn from(address: IpAddr) -> Self {
        // The kernel sees IPv4 where a program writes ::ffff:10.0.0.1.
        let address = address.to_canonical();
        Self {
            address,
            bits: most(address),
        }
    }
}

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let no_net = || NetError::NoNet(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| no_net())?;
        let Some(bits) = bits else {
            return Ok(address.into());
        };
        let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        let bits: u8 = bits.parse().map_err(|_| no_net())?;
        if !digits || bits > most(address) {
            return Err(no_net());
        }
        let net = Self {
            address: masked(address, bits),
            bits,
        };
        if net.address != address {
            return Err(NetError::HostBits {
                given: text.to_owned(),
                meant: net,
            });
        }
        Ok(net)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(address) => write!(f, "{address}"),
            None => write!(f, "{}/{}", self.address, self.bits),
        }
    }
}

/// The name of a network interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface(String);

impl Interface {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one of the pod's own connections to itself.
    pub(super) fn loopback() -> Self {
        Self("lo".to_owned())
    }
}

impl FromStr for Interface {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        // The kernel's IFNAMSIZ is 16 with the closing zero.
        if (1..=15).contains(&text.len()) && text.bytes().all(good) && text != "." && text != ".." {
            return Ok(Self(text.to_owned()));
        }
        Err(NetError::NoInterface(text.to_owned()))
    }
}
