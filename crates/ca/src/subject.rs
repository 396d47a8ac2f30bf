//! Subject names of certificates.

use crate::der::{Der, OBJECT_ID, PRINTABLE_STRING, SEQUENCE, SET, UTF8_STRING};

/// The longest common name (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// The parts of a subject that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

const ATTRIBUTES: [Attribute; 5] = [
    Attribute::Country,
    Attribute::Organization,
    Attribute::OrganizationalUnit,
    Attribute::CommonName,
    Attribute::SerialNumber,
];

impl Attribute {
    /// The object identifier's content (X.520 §6).
    pub(crate) const fn oid(self) -> [u8; 3] {
        let last = match self {
            Self::Country => 6,
            Self::Organization => 10,
            Self::OrganizationalUnit => 11,
            Self::CommonName => 3,
            Self::SerialNumber => 5,
        };
        [0x55, 4, last]
    }

    pub(crate) fn from_oid(oid: &[u8]) -> Option<Self> {
        ATTRIBUTES.into_iter().find(|one| one.oid() == *oid)
    }
}

/// A subject: attributes in the order they stand in the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject(Vec<(Attribute, String)>);

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

    /// The same with one attribute more. An empty value, and a common name of more than 64 characters, which a certificate
    /// cannot hold, add nothing.
    #[must_use]
    pub fn with(mut self, attribute: Attribute, value: impl Into<String>) -> Self {
        let value = value.into();
        let too_long =
            attribute == Attribute::CommonName && value.chars().count() > MAX_COMMON_NAME;
        if !value.is_empty() && !too_long {
            self.0.push((attribute, value));
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

    /// Writes the Name (RFC 5280 §4.1.2.4).
    pub(crate) fn write(&self, der: &mut Der) {
        der.nest(SEQUENCE, |der| {
            for (kind, value) in self.iter() {
                der.nest(SET, |der| {
                    der.nest(SEQUENCE, |der| {
                        der.put(OBJECT_ID, &kind.oid());
                        der.put(string_tag(value), value.as_bytes());
                    });
                });
            }
        });
    }
}

/// PrintableString where it can be, as C and serialNumber must be and Go's and SPIRE's names are.
fn string_tag(value: &str) -> u8 {
    let printable = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
    if value.bytes().all(printable) {
        PRINTABLE_STRING
    } else {
        UTF8_STRING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_cannot_hold_is_left_out() {
        assert!(
            Subject::empty()
                .with(Attribute::CommonName, "x".repeat(65))
                .is_empty()
        );
        assert!(Subject::empty().with(Attribute::Country, "").is_empty());
    }

    #[test]
    fn strings_are_printable_where_they_can_be() {
        assert_eq!(string_tag("web.example.org"), PRINTABLE_STRING);
        assert_eq!(string_tag("*.example.org"), UTF8_STRING);
        assert_eq!(string_tag("Zürich"), UTF8_STRING);
    }
}
