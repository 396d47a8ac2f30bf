//! Selectors: facts about a workload or a node, `type:value`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The longest selector value, in bytes. Environment variables of containers are the longest in use.
const MAX_VALUE_LEN: usize = 4096;

const MAX_KIND_LEN: usize = 255;

/// Why a text is not a selector.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectorError {
    /// No colon.
    #[error("a selector is written `type:value`, for example `unix:uid:1000`")]
    NoColon,
    /// An empty type.
    #[error("the selector's type is empty; write `type:value`, for example `unix:uid:1000`")]
    EmptyKind,
    /// An empty value.
    #[error("the selector's value is empty; write `type:value`, for example `unix:uid:1000`")]
    EmptyValue,
    /// A colon in the type.
    #[error("the selector's type may not hold `:`")]
    ColonInKind,
    /// A control character.
    #[error("a selector may not hold control characters")]
    ControlCharacter,
    /// Too long.
    #[error(
        "the selector's type is longer than {MAX_KIND_LEN} bytes or its value longer than {MAX_VALUE_LEN}"
    )]
    TooLong,
}

/// One selector. The type holds no colon; the value may.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    kind: Arc<str>,
    value: Arc<str>,
}

impl Selector {
    /// Joins a type, such as `unix`, and a value, such as `uid:1000`.
    ///
    /// # Errors
    /// When either is empty, too long, or holds what it may not.
    pub fn new(kind: &str, value: &str) -> Result<Self, SelectorError> {
        if kind.is_empty() {
            return Err(SelectorError::EmptyKind);
        }
        if value.is_empty() {
            return Err(SelectorError::EmptyValue);
        }
        if kind.contains(':') {
            return Err(SelectorError::ColonInKind);
        }
        if kind.len() > MAX_KIND_LEN || value.len() > MAX_VALUE_LEN {
            return Err(SelectorError::TooLong);
        }
        if kind.chars().chain(value.chars()).any(char::is_control) {
            return Err(SelectorError::ControlCharacter);
        }
        Ok(Self {
            kind: kind.into(),
            value: value.into(),
        })
    }

    /// Takes `type:value`; the first colon divides.
    ///
    /// # Errors
    /// As [`Selector::new`], and when there is no colon.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let (kind, value) = text.split_once(':').ok_or(SelectorError::NoColon)?;
        Self::new(kind, value)
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

/// A set of selectors, sorted and without duplicates, so that equal sets are equal keys. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selectors(Arc<[Selector]>);

impl Selectors {
    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Selector> {
        self.0.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `selector` is among them.
    #[must_use]
    pub fn contains(&self, selector: &Selector) -> bool {
        self.0.binary_search(selector).is_ok()
    }

    /// Whether each of them is in `other`; the rule by which a workload matches an entry.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.iter().all(|selector| other.contains(selector))
    }
}

impl Default for Selectors {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl FromIterator<Selector> for Selectors {
    fn from_iter<I: IntoIterator<Item = Selector>>(selectors: I) -> Self {
        let mut sorted: Vec<Selector> = selectors.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        Self(sorted.into())
    }
}

impl<'a> IntoIterator for &'a Selectors {
    type Item = &'a Selector;
    type IntoIter = std::slice::Iter<'a, Selector>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Selectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_colon_divides() {
        let selector = Selector::parse("unix:path:/usr/bin/a:b").unwrap();
        assert_eq!(
            (selector.kind(), selector.value()),
            ("unix", "path:/usr/bin/a:b")
        );
        assert_eq!(selector.to_string(), "unix:path:/usr/bin/a:b");
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(Selector::parse("unix"), Err(SelectorError::NoColon));
        assert_eq!(Selector::parse(":uid"), Err(SelectorError::EmptyKind));
        assert_eq!(Selector::parse("unix:"), Err(SelectorError::EmptyValue));
        assert_eq!(Selector::new("a:b", "c"), Err(SelectorError::ColonInKind));
        assert_eq!(
            Selector::parse("unix:a\nb"),
            Err(SelectorError::ControlCharacter)
        );
        assert_eq!(
            Selector::new("unix", &"a".repeat(4097)),
            Err(SelectorError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(kind in "[a-z0-9_]{1,8}", value in "[ -~]{1,20}") {
            let selector = Selector::new(&kind, &value).unwrap();
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn sets_behave_as_sets(a in proptest::collection::vec(0u8..12, 0..8), b in proptest::collection::vec(0u8..12, 0..8)) {
            let set = |numbers: &[u8]| numbers.iter().map(|n| Selector::new("n", &n.to_string()).unwrap()).collect::<Selectors>();
            let (left, right): (BTreeSet<_>, BTreeSet<_>) = (a.iter().collect(), b.iter().collect());
            prop_assert_eq!(set(&a).len(), left.len());
            prop_assert_eq!(set(&a).is_subset_of(&set(&b)), left.is_subset(&right));
            prop_assert_eq!(set(&a) == set(&b), left == right);
        }
    }
}
