//! Join tokens: made, and the name that the node of one may get.

use std::time::Duration;

use identity::{RegistrationEntry, Selector, Selectors, SpiffeId};
use proto::convert::{self, wire_time};
use proto::spire::api::server::agent::v1::CreateJoinTokenRequest;
use proto::spire::api::types;
use store::{CreateEntryError, JoinToken, TokenError, new_entry_id};

use super::AgentService;
use crate::attest::token_agent_id;
use crate::rpc::RpcError;

/// Random bytes of a join token.
const TOKEN_LEN: usize = 16;

impl AgentService {
    pub(super) async fn create_token(
        &self,
        request: CreateJoinTokenRequest,
    ) -> Result<types::JoinToken, RpcError> {
        let ttl = u64::try_from(request.ttl)
            .ok()
            .filter(|ttl| *ttl > 0)
            .ok_or_else(|| {
                RpcError::InvalidArgument("ttl is required, you must provide one".into())
            })?;
        let value = match request.token.as_str() {
            "" => new_token()?,
            chosen => chosen.to_owned(),
        };
        let node = token_agent_id(&self.0.trust_domain, &value).ok_or_else(|| {
            RpcError::InvalidArgument(
                "the token becomes a part of a SPIFFE ID: use letters, digits, `.`, `-` and `_`"
                    .into(),
            )
        })?;
        let alias = request
            .agent_id
            .as_ref()
            .map(|id| self.alias(id, &node))
            .transpose()?;
        let now = self.0.clock.now();
        let token = JoinToken {
            value,
            expires_at: now + Duration::from_secs(ttl),
        };
        self.0
            .store
            .create_join_token(&token)
            .await
            .map_err(|error| match error {
                TokenError::Store(error) => error.into(),
                _ => RpcError::AlreadyExists(error.to_string()),
            })?;
        if let Some(alias) = alias {
            self.create_alias(alias).await?;
        }
        Ok(types::JoinToken {
            expires_at: wire_time(token.expires_at),
            value: token.value,
        })
    }

    /// The entry that gives the node of a join token a name of its own.
    fn alias(&self, id: &types::Spiffeid, node: &SpiffeId) -> Result<RegistrationEntry, RpcError> {
        let invalid = |error: &dyn std::fmt::Display| {
            RpcError::InvalidArgument(format!("invalid agent ID: {error}"))
        };
        let spiffe_id =
            convert::spiffe_id("agent_id", Some(id)).map_err(|error| invalid(&error))?;
        let selector =
            Selector::new("spiffe_id", node.as_str()).map_err(|error| invalid(&error))?;
        let now = self.0.clock.now();
        let entry = RegistrationEntry {
            selectors: Selectors::from_iter([selector]),
            ..RegistrationEntry::new(new_entry_id(), spiffe_id, node.clone(), now)
        };
        entry
            .validate(&self.0.trust_domain)
            .map_err(|error| invalid(&error))?;
        Ok(entry)
    }

    async fn create_alias(&self, alias: RegistrationEntry) -> Result<(), RpcError> {
        let outcomes = self.0.store.create_entries(vec![alias]).await?;
        self.0.entries.catch_up().await?;
        match outcomes.into_iter().next() {
            // A token of the same name was there before, with the same alias.
            Some(Ok(_) | Err(CreateEntryError::Similar(_))) => Ok(()),
            Some(Err(error)) => Err(RpcError::internal(
                "failed to create the alias entry",
                error,
            )),
            None => Err(RpcError::internal(
                "failed to create the alias entry",
                "no outcome",
            )),
        }
    }
}

fn new_token() -> Result<String, RpcError> {
    let mut bytes = [0; TOKEN_LEN];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| RpcError::internal("failed to generate a token", "no random numbers"))?;
    Ok(identity::hex(&bytes))
}
