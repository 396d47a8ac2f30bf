//! Which peers a validation context lets in, beside the trust domains it trusts: lists of the operator's, by name.

use std::fmt;

use identity::{SpiffeId, TrustDomain};

/// Peers by SPIFFE ID, never none: Envoy takes an empty list as "everybody".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList(Vec<Allowed>);

/// One peer, or all below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// This one.
    Id(SpiffeId),
    /// All whose ID begins like this; written with `/*` at the end.
    Below {
        /// Of which trust domain.
        trust_domain: TrustDomain,
        /// What their IDs begin with, up to and with a slash.
        prefix: String,
    },
}

/// Why a text is no [`AllowList`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowError {
    /// No peer at all.
    #[error("the list is empty, which Envoy takes as \"everybody\"; name at least one SPIFFE ID")]
    Empty,
    /// Not an ID.
    #[error("{text:?}: {reason}; write a SPIFFE ID, or one with /* at its end for all below it")]
    Id {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl AllowList {
    /// Reads a list.
    ///
    /// # Errors
    /// When it is empty, or an item is neither an ID nor an ID with `/*` at its end.
    pub fn parse<T: AsRef<str>>(items: &[T]) -> Result<Self, AllowError> {
        if items.is_empty() {
            return Err(AllowError::Empty);
        }
        let items = items.iter().map(|item| Allowed::parse(item.as_ref()));
        items.collect::<Result<_, _>>().map(Self)
    }

    /// Its items.
    pub fn iter(&self) -> impl Iterator<Item = &Allowed> {
        self.0.iter()
    }

    /// The trust domains of its peers, each once, in order.
    #[must_use]
    pub fn trust_domains(&self) -> Vec<&TrustDomain> {
        let mut domains: Vec<_> = self.iter().map(Allowed::trust_domain).collect();
        domains.sort_unstable();
        domains.dedup();
        domains
    }
}

impl Allowed {
    fn parse(text: &str) -> Result<Self, AllowError> {
        let wrong = |reason: &dyn fmt::Display| AllowError::Id {
            text: text.to_owned(),
            reason: reason.to_string(),
        };
        let (id, below) = match text.strip_suffix("/*") {
            Some(id) => (id, true),
            None => (text, false),
        };
        let id = SpiffeId::parse(id).map_err(|error| wrong(&error))?;
        if below {
            return Ok(Self::Below {
                trust_domain: id.trust_domain().clone(),
                prefix: format!("{id}/"),
            });
        }
        if id.path().is_empty() {
            return Err(wrong(&"a trust domain's ID is no peer's"));
        }
        Ok(Self::Id(id))
    }

    fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Id(id) => id.trust_domain(),
            Self::Below { trust_domain, .. } => trust_domain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_all_below_a_path() {
        let list = AllowList::parse(&[
            "spiffe://example.org/web",
            "spiffe://partner.test/ns/prod/*",
            "spiffe://example.org/*",
        ])
        .unwrap();
        let below = |domain: &str, prefix: &str| Allowed::Below {
            trust_domain: TrustDomain::new(domain).unwrap(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(
            list.iter().cloned().collect::<Vec<_>>(),
            [
                Allowed::Id(SpiffeId::parse("spiffe://example.org/web").unwrap()),
                below("partner.test", "spiffe://partner.test/ns/prod/"),
                below("example.org", "spiffe://example.org/"),
            ]
        );
        let domains = list.trust_domains();
        let domains: Vec<_> = domains.iter().map(|domain| domain.as_str()).collect();
        assert_eq!(domains, ["example.org", "partner.test"]);
    }

    #[test]
    fn what_would_let_everybody_in_is_refused() {
        assert_eq!(AllowList::parse::<&str>(&[]), Err(AllowError::Empty));
        for text in [
            "",
            "*",
            "/*",
            "spiffe://example.org",
            "spiffe://example.org/web*",
            "spiffe://*/web",
            "spiffe://example.org/a/*/b",
            "https://example.org/web",
        ] {
            let error = AllowList::parse(&[text]).unwrap_err();
            assert!(matches!(error, AllowError::Id { .. }), "{text}");
            assert!(error.to_string().contains("write a SPIFFE ID"), "{error}");
        }
    }
}
