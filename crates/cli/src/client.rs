//! What client commands share: reading arguments, saying why a call failed.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use identity::{Selector, SpiffeId, TrustDomain};
use proto::spire::api::types;
use proto::spire::api::types::federates_with_match::MatchBehavior as FederatesWith;
use proto::spire::api::types::selector_match::MatchBehavior as Selectors;
use tonic::{Code, Status};

/// The largest answer that is read. A page of entries may be larger than gRPC's usual 4 MiB.
pub(crate) const MAX_ANSWER: usize = 64 << 20;

/// How many objects are asked for or sent at once.
pub(crate) const PAGE: usize = 500;

/// How a filter compares sets.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// The sets are equal
    Exact,
    /// They have something in common
    Any,
    /// The object has all that is given
    Superset,
    /// The object has nothing but what is given
    Subset,
}

impl Match {
    /// Objects by their selectors; no filter without selectors.
    pub(crate) fn selectors(self, given: &[Selector]) -> Option<types::SelectorMatch> {
        let r#match = match self {
            Self::Exact => Selectors::MatchExact,
            Self::Any => Selectors::MatchAny,
            Self::Superset => Selectors::MatchSuperset,
            Self::Subset => Selectors::MatchSubset,
        };
        (!given.is_empty()).then(|| types::SelectorMatch {
            selectors: given.iter().map(Into::into).collect(),
            r#match: r#match.into(),
        })
    }

    /// Entries by the trust domains they federate with; no filter without trust domains.
    pub(crate) fn federates_with(self, given: &[TrustDomain]) -> Option<types::FederatesWithMatch> {
        let r#match = match self {
            Self::Exact => FederatesWith::MatchExact,
            Self::Any => FederatesWith::MatchAny,
            Self::Superset => FederatesWith::MatchSuperset,
            Self::Subset => FederatesWith::MatchSubset,
        };
        (!given.is_empty()).then(|| types::FederatesWithMatch {
            trust_domains: given.iter().map(TrustDomain::to_string).collect(),
            r#match: r#match.into(),
        })
    }
}

/// A refusal as an error that says what the server or agent said.
pub(crate) fn refused(status: &Status) -> anyhow::Error {
    match (status.code(), status.message()) {
        (code, "") => anyhow!("refused with {code:?}"),
        (code, message) => anyhow!("{message} ({code:?})"),
    }
}

/// The name of a code as gRPC's Go library prints it.
pub(crate) fn code_name(code: i32) -> String {
    match Code::from_i32(code) {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A flag that must be given; SPIRE has no positional arguments and so no other way to say it.
pub(crate) fn required<'a, T>(value: &'a Option<T>, what: &str) -> Result<&'a T> {
    match value {
        Some(value) => Ok(value),
        None => bail!("{what}"),
    }
}

/// A lifetime in whole seconds, rounded up; 0 without one, for the server's default.
pub(crate) fn ttl_seconds(ttl: Option<Duration>) -> i32 {
    proto::convert::wire_ttl(ttl.filter(|ttl| !ttl.is_zero()))
}

/// Reads Go's notation of a duration, for clap.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    runtime::config::parse_duration(text)
        .ok_or_else(|| "write a duration such as 30s or 1h30m".to_owned())
}

/// An ID as it travels.
pub(crate) fn wire_id(id: &SpiffeId) -> types::Spiffeid {
    id.into()
}

/// An ID as people read it; `(none)` when it is unset.
pub(crate) fn id_text(id: Option<&types::Spiffeid>) -> String {
    id.map_or_else(
        || "(none)".to_owned(),
        |id| format!("spiffe://{}{}", id.trust_domain, id.path),
    )
}
