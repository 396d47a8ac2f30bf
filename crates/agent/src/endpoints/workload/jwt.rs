//! JWT-SVIDs: fetched and validated.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Request, Response};
use identity::{BundleSet, JwtSvid, RegistrationEntry, SpiffeId};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use proto::workload::{
    Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest, ValidateJwtsvidResponse,
};
use serde_json::Value as Json;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;

use super::stream::{NO_BUNDLE, NOT_SYNCED, PATIENCE};
use super::{Api, no_identity};
use crate::endpoints::caller::Caller;
use crate::endpoints::compose;
use crate::endpoints::frames;
use crate::workloads::{JwtFetchError, WorkloadView};

/// More audiences in one token are a mistake, or an attempt to keep the agent busy.
const MAX_AUDIENCE: usize = 128;

/// As SPIRE has it.
const NO_AUDIENCE: &str = "audience must be specified";

/// As SPIRE has it.
const NO_SVID: &str = "svid must be specified";

/// How many tokens of one request are asked for at once.
const AT_ONCE: usize = 16;

/// The claims of a foreign trust domain's token that mean the same everywhere (JWT-SVID.md §3).
const COMMON_CLAIMS: [&str; 3] = ["sub", "aud", "exp"];

impl Api {
    /// A JWT-SVID for each identity of the caller, or for the one it names.
    pub(super) async fn fetch_jwt_svid(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (question, caller) = self.admit::<JwtsvidRequest>(request).await?;
        let audience = audience(question.audience)?;
        let wanted = wanted(&question.spiffe_id)?;
        let view = self
            .view(&caller, NOT_SYNCED, |view| {
                view.synced || !view.identities.is_empty() || !view.pending.is_empty()
            })
            .await?;
        let mut entries = compose::entries(&view);
        entries.retain(|entry| wanted.as_ref().is_none_or(|id| entry.spiffe_id == *id));
        let tokens: Vec<Option<Jwtsvid>> = stream::iter(entries)
            .map(|entry| self.token(entry, &audience))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let svids: Vec<Jwtsvid> = tokens.into_iter().flatten().collect();
        if svids.is_empty() {
            return Err(no_identity(&caller));
        }
        caller.check_alive()?;
        Ok(frames::unary(frames::encode(&JwtsvidResponse { svids })?))
    }

    /// The identity and claims of a token, when it is valid for the audience.
    pub(super) async fn validate_jwt_svid(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (question, caller) = self.admit::<ValidateJwtsvidRequest>(request).await?;
        if question.audience.is_empty() {
            return Err(Status::invalid_argument(NO_AUDIENCE));
        }
        if question.svid.is_empty() {
            return Err(Status::invalid_argument(NO_SVID));
        }
        let view = self
            .view(&caller, NO_BUNDLE, |view| {
                view.synced || !view.bundle.jwt_authorities.is_empty()
            })
            .await?;
        let bundles: BundleSet = compose::bundles(&view).cloned().collect();
        let now = self.clock.now();
        let svid = JwtSvid::verify(&question.svid, &question.audience, &bundles, now)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let foreign = svid.id.trust_domain() != &view.bundle.trust_domain;
        let answer = ValidateJwtsvidResponse {
            spiffe_id: svid.id.to_string(),
            claims: Some(self.claims(svid, foreign)),
        };
        Ok(frames::unary(frames::encode(&answer)?))
    }

    /// What the caller has, as soon as `known` says that it tells enough.
    async fn view(
        &self,
        caller: &Caller,
        why_not: &'static str,
        known: impl Fn(&WorkloadView) -> bool,
    ) -> Result<Arc<WorkloadView>, Status> {
        let mut views = self.workloads.subscribe(caller.selectors().clone());
        match timeout(PATIENCE, views.wait_for(|view| known(view))).await {
            Ok(Ok(view)) => Ok(view.clone()),
            _ => Err(Status::unavailable(why_not)),
        }
    }

    /// `None` when the entry has gone meanwhile.
    async fn token(
        &self,
        entry: Arc<RegistrationEntry>,
        audience: &[String],
    ) -> Result<Option<Jwtsvid>, Status> {
        match self.workloads.jwt_svid(&entry, audience).await {
            Ok(svid) => Ok(Some(Jwtsvid {
                spiffe_id: svid.id.to_string(),
                svid: svid.token().to_owned(),
                hint: entry.hint.clone(),
            })),
            Err(JwtFetchError::NotEntitled) => Ok(None),
            Err(JwtFetchError::Unavailable(why)) => Err(Status::unavailable(format!(
                "could not fetch JWT-SVID: {why}"
            ))),
            Err(JwtFetchError::Invalid(why)) => Err(Status::invalid_argument(format!(
                "could not fetch JWT-SVID: {why}"
            ))),
        }
    }

    /// All claims of an own token; of a foreign one, those that mean the same there and those that are allowed.
    fn claims(&self, svid: JwtSvid, foreign: bool) -> Struct {
        let JwtSvid {
            mut claims,
            audience,
            ..
        } = svid;
        // A list, however the token has it.
        claims.insert("aud".to_owned(), audience.into());
        if foreign {
            let allowed = &self.config.allowed_foreign_jwt_claims;
            claims
                .retain(|name, _| COMMON_CLAIMS.contains(&name.as_str()) || allowed.contains(name));
        }
        to_struct(claims)
    }
}

/// Each once, in the order asked for.
fn audience(asked: Vec<String>) -> Result<Vec<String>, Status> {
    if asked.is_empty() || asked.iter().any(String::is_empty) {
        return Err(Status::invalid_argument(NO_AUDIENCE));
    }
    if asked.len() > MAX_AUDIENCE {
        return Err(Status::invalid_argument(format!(
            "{} audiences asked for; a JWT-SVID takes at most {MAX_AUDIENCE}",
            asked.len()
        )));
    }
    let mut audience: Vec<String> = Vec::with_capacity(asked.len());
    for one in asked {
        if !audience.contains(&one) {
            audience.push(one);
        }
    }
    Ok(audience)
}

fn wanted(spiffe_id: &str) -> Result<Option<SpiffeId>, Status> {
    if spiffe_id.is_empty() {
        return Ok(None);
    }
    let id = SpiffeId::parse(spiffe_id).map_err(|error| {
        Status::invalid_argument(format!("invalid requested SPIFFE ID: {error}"))
    })?;
    Ok(Some(id))
}

fn to_struct(object: serde_json::Map<String, Json>) -> Struct {
    let fields = object
        .into_iter()
        .map(|(name, value)| (name, to_value(value)));
    Struct {
        fields: fields.collect(),
    }
}

fn to_value(json: Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => Kind::ListValue(ListValue {
            values: values.into_iter().map(to_value).collect(),
        }),
        Json::Object(object) => Kind::StructValue(to_struct(object)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audiences_are_asked_for_once_and_bounded() {
        let many = |count: usize| (0..count).map(|number| number.to_string()).collect();
        let twice = vec!["b".to_owned(), "a".to_owned(), "b".to_owned()];
        assert_eq!(audience(twice).unwrap(), ["b", "a"]);
        assert_eq!(audience(many(MAX_AUDIENCE)).unwrap().len(), MAX_AUDIENCE);
        let refused = audience(many(MAX_AUDIENCE + 1)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("at most 128"), "{refused}");
    }
}
