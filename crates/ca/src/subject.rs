//! Subject names of certificates.

use rcgen::{DistinguishedName, DnType};

/// The parts of a subject that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// C, two letters.
    Country,
    /// O.
    Organization,
    /// OU.
    OrganizationalUnit,
    /// CN.
    CommonName,
    /// serialNumber, which keeps the subjects of two CAs apart.
    SerialNumber,
}

/// A subject: attributes in the order they stand in the certificate, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject(Vec<(Attribute, String)>);

const SERIAL_NUMBER: &[u64] = &[2, 5, 4, 5];

impl Subject {
    /// No attributes at all.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// `C=US, O=SPIFFE`: a CA's.
    #[must_use]
    pub fn ca() -> Self {
        Self::empty()
            .with(Attribute::Country, "US")
            .with(Attribute::Organization, "SPIFFE")
    }

    /// `C=US, O=SPIRE`: a leaf's.
    #[must_use]
    pub fn leaf() -> Self {
        Self::empty()
            .with(Attribute::Country, "US")
            .with(Attribute::Organization, "SPIRE")
    }

    /// The same with one attribute more; it takes the place of a former one of its kind.
    #[must_use]
    pub fn with(mut self, attribute: Attribute, value: impl Into<String>) -> Self {
        match self.0.iter_mut().find(|(kind, _)| *kind == attribute) {
            Some((_, former)) => *former = value.into(),
            None => self.0.push((attribute, value.into())),
        }
        self
    }

    /// Whether it names nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The attributes, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Attribute, &str)> {
        self.0.iter().map(|(kind, value)| (*kind, value.as_str()))
    }

    pub(crate) fn to_name(&self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        for (kind, value) in self.iter() {
            let kind = match kind {
                Attribute::Country => DnType::CountryName,
                Attribute::Organization => DnType::OrganizationName,
                Attribute::OrganizationalUnit => DnType::OrganizationalUnitName,
                Attribute::CommonName => DnType::CommonName,
                Attribute::SerialNumber => DnType::CustomDnType(SERIAL_NUMBER.to_vec()),
            };
            name.push(kind, value);
        }
        name
    }
}
