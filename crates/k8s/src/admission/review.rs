//! AdmissionReview, version `admission.k8s.io/v1`, in and out. Nothing else is understood.

mod object;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// The API server's UIDs have 36 characters.
const MAX_UID: usize = 256;
/// What the API server passes on of one warning without cutting it off.
const MAX_WARNING: usize = 256;
const MAX_WARNINGS: usize = 16;

/// What the API server asks. Fields that Signet has no use for are passed over.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdmissionRequest {
    /// Tells this request from all others; the answer carries it. Never empty.
    pub uid: String,
    /// What kind of object it is about.
    #[serde(deserialize_with = "or_default")]
    pub kind: Kind,
    /// `status`, `ephemeralcontainers`, …; empty for the object itself.
    #[serde(deserialize_with = "or_default")]
    pub sub_resource: String,
    /// The object's name; empty when the API server is to make one up (`generateName`).
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The object's namespace; empty for what has none.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(deserialize_with = "or_default")]
    pub operation: String,
    /// Who asked the API server.
    #[serde(deserialize_with = "or_default")]
    pub user_info: UserInfo,
    /// The object as it would be stored, without its managed fields; none for DELETE.
    #[serde(deserialize_with = "object::read")]
    pub object: Option<Value>,
    /// Nothing will come of the request: it must have no effect elsewhere either.
    #[serde(deserialize_with = "or_default")]
    pub dry_run: bool,
}

/// Group, version and kind of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Kind {
    /// Empty for the core group.
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    /// `v1`.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// `Pod`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct UserInfo {
    /// Their name.
    #[serde(deserialize_with = "or_default")]
    pub username: String,
}

/// Why a body is no review that can be answered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct ReviewError {
    /// The request's UID as far as it can be told, for the answer.
    pub uid: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Why not; let through without.
    pub denied: Option<Denial>,
    /// Shown to whoever asked the API server, such as by `kubectl`.
    pub warnings: Vec<String>,
    /// How the object is changed.
    pub patch: json_patch::Patch,
}

/// Why an object is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// An HTTP status.
    pub code: u16,
    /// Kubernetes' word for it: `Invalid`, `Forbidden`, …
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Answer {
    /// Lets the object through unchanged.
    #[must_use]
    pub fn allow() -> Self {
        Self::default()
    }

    /// Refuses the object: it breaks a rule.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::deny(422, "Invalid", message)
    }

    /// Refuses the object: it may not be.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::deny(403, "Forbidden", message)
    }

    /// Refuses the object.
    #[must_use]
    pub fn deny(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            denied: Some(Denial {
                code,
                reason,
                message,
            }),
            ..Self::default()
        }
    }

    /// The review that answers the request `uid`, as JSON.
    #[must_use]
    pub fn encode(&self, uid: &str) -> Vec<u8> {
        let patch = (!self.patch.0.is_empty() && self.denied.is_none())
            .then(|| serde_json::to_vec(&self.patch).unwrap_or_default())
            .filter(|patch| !patch.is_empty())
            .map(|patch| STANDARD.encode(patch));
        let review = WireReview {
            api_version: API_VERSION,
            kind: KIND,
            response: WireResponse {
                uid,
                allowed: self.denied.is_none(),
                status: self.denied.as_ref().map(WireStatus::new),
                patch_type: patch.is_some().then_some("JSONPatch"),
                patch,
                warnings: warnings(&self.warnings),
            },
        };
        serde_json::to_vec(&review).unwrap_or_default()
    }
}

/// Reads the body of a request of the API server.
///
/// # Errors
/// When it is no AdmissionReview of version v1 with a request that has a UID. Deeper nesting than 127 levels is no JSON for this
/// reader; no Kubernetes object comes near it.
pub fn decode(body: &[u8]) -> Result<AdmissionRequest, ReviewError> {
    let review: Incoming = serde_json::from_slice(body).map_err(|error| ReviewError {
        uid: salvaged_uid(body),
        message: format!("the body is no AdmissionReview: {error}"),
    })?;
    let uid = review.request.as_ref().map(|request| request.uid.clone());
    let refuse = |message: String| ReviewError {
        uid: uid
            .clone()
            .filter(|uid| uid.len() <= MAX_UID)
            .unwrap_or_default(),
        message,
    };
    if review.api_version != API_VERSION || review.kind != KIND {
        let (version, kind) = (shown(&review.api_version), shown(&review.kind));
        return Err(refuse(format!(
            "only {KIND} of {API_VERSION} is understood, not {kind:?} of {version:?}; set admissionReviewVersions: [v1]"
        )));
    }
    let Some(request) = review.request else {
        return Err(refuse("the review holds no request".to_owned()));
    };
    if request.uid.is_empty() || request.uid.len() > MAX_UID {
        return Err(refuse(format!(
            "request.uid must have 1 to {MAX_UID} characters"
        )));
    }
    Ok(request)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming {
    #[serde(default, deserialize_with = "or_default")]
    api_version: String,
    #[serde(default, deserialize_with = "or_default")]
    kind: String,
    request: Option<AdmissionRequest>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireReview<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: WireResponse<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireResponse<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<WireStatus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// Base64: the field's type in the API is a byte string.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct WireStatus<'a> {
    status: &'static str,
    code: u16,
    reason: &'static str,
    message: &'a str,
}

impl<'a> WireStatus<'a> {
    fn new(denial: &'a Denial) -> Self {
        Self {
            status: "Failure",
            code: denial.code,
            reason: denial.reason,
            message: &denial.message,
        }
    }
}

/// `null` is as good as nothing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The UID of a body that is JSON, but not as it should be.
fn salvaged_uid(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let uid = value.pointer("/request/uid").and_then(Value::as_str);
    let uid = uid.filter(|uid| uid.len() <= MAX_UID);
    uid.unwrap_or_default().to_owned()
}

/// One line each, no longer than what is passed on: they become HTTP headers.
fn warnings(all: &[String]) -> Vec<String> {
    let line = |warning: &String| {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let mut line: String = warning.chars().map(plain).collect();
        if line.len() > MAX_WARNING {
            let end = line.floor_char_boundary(MAX_WARNING - "…".len());
            line.truncate(end);
            line.push('…');
        }
        line
    };
    all.iter().take(MAX_WARNINGS).map(line).collect()
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests;
