//! `join_token`: a secret that an operator made and that is good once.

use std::time::SystemTime;

use identity::{Selectors, SpiffeId, TrustDomain};
use store::{Store, TokenError};

use super::Attested;
use crate::rpc::RpcError;

/// Uses up the token.
pub(super) async fn attest(
    store: &Store,
    trust_domain: &TrustDomain,
    payload: &[u8],
    now: SystemTime,
) -> Result<Attested, RpcError> {
    let unknown =
        || RpcError::InvalidArgument(format!("failed to attest: {}", TokenError::Unknown));
    let token = std::str::from_utf8(payload).map_err(|_| unknown())?;
    // A token that cannot stand in an ID was never issued.
    let id = agent_id(trust_domain, token).ok_or_else(unknown)?;
    store
        .use_join_token(token, now)
        .await
        .map_err(|error| match error {
            TokenError::Store(error) => error.into(),
            TokenError::Expired => RpcError::InvalidArgument(TokenError::Expired.to_string()),
            _ => unknown(),
        })?;
    Ok(Attested {
        id,
        selectors: Selectors::default(),
        can_reattest: false,
    })
}

/// The ID of the agent that a token admits; none for a token that cannot stand in an ID.
pub(crate) fn agent_id(trust_domain: &TrustDomain, token: &str) -> Option<SpiffeId> {
    if token.is_empty() || token.contains('/') {
        return None;
    }
    SpiffeId::new(trust_domain, &format!("/spire/agent/join_token/{token}")).ok()
}
