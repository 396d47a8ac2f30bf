//! What the methods that list have in common: pages and matches.

use identity::Selectors;
use proto::convert;
use proto::spire::api::types;
use store::{Match, Page};

use crate::rpc::RpcError;

/// The page a request asks for.
///
/// # Errors
/// When the size is negative, or the token is none of ours.
pub(crate) fn page(size: i32, token: &str) -> Result<Page, RpcError> {
    let limit = u32::try_from(size).map_err(|_| {
        RpcError::InvalidArgument(format!(
            "page size {size} is negative; write 0 for all at once"
        ))
    })?;
    let after = match token {
        "" => 0,
        _ => token
            .parse()
            .ok()
            .filter(|after| *after >= 0)
            .ok_or_else(|| {
                RpcError::InvalidArgument(
                    "could not parse the page token; take it from the page before, unchanged"
                        .into(),
                )
            })?,
    };
    Ok(Page {
        after,
        limit: (limit > 0).then_some(limit),
    })
}

/// The token of the page after this one; empty when there is none.
pub(crate) fn token(next: Option<i64>) -> String {
    next.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// A filter by selectors.
///
/// # Errors
/// When it names none, a broken one, or an unknown way to match.
pub(crate) fn selectors(wanted: &types::SelectorMatch) -> Result<(Match, Selectors), RpcError> {
    let selectors = convert::selectors("selectors", &wanted.selectors)
        .map_err(|error| RpcError::InvalidArgument(format!("malformed filter: {error}")))?;
    if selectors.is_empty() {
        return Err(RpcError::InvalidArgument(
            "malformed filter: empty selector set".into(),
        ));
    }
    Ok((how(wanted.r#match)?, selectors))
}

/// How sets are to match; both enums of the API have the same numbers.
///
/// # Errors
/// When the number is unknown.
pub(crate) fn how(number: i32) -> Result<Match, RpcError> {
    match number {
        0 => Ok(Match::Exact),
        1 => Ok(Match::Subset),
        2 => Ok(Match::Superset),
        3 => Ok(Match::Any),
        _ => Err(RpcError::InvalidArgument(format!(
            "malformed filter: unknown match behavior {number}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let page_of = |size, token| page(size, token).ok().map(|page| (page.after, page.limit));
        assert_eq!(page_of(0, ""), Some((0, None)));
        assert_eq!(page_of(5, "17"), Some((17, Some(5))));
        for (size, token) in [
            (-1, ""),
            (1, "x"),
            (1, "-1"),
            (1, "1;"),
            (1, "99999999999999999999"),
        ] {
            assert_eq!(page_of(size, token), None, "{size} {token:?}");
        }
        assert_eq!([token(None), token(Some(17))], ["", "17"]);
    }

    #[test]
    fn an_unknown_match_is_refused() {
        assert!(matches!(how(4), Err(RpcError::InvalidArgument(_))));
        assert!(matches!(how(-1), Err(RpcError::InvalidArgument(_))));
    }
}
