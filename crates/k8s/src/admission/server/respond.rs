//! From a request to its response. Every way ends in a status that says what went wrong; only 200 lets anything through.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::body::{self, BodyError};
use super::{Handler, Shared};
use crate::admission::review::{Answer, decode};

/// A response, and the word under which it is counted.
struct Outcome {
    status: StatusCode,
    result: &'static str,
    body: Bytes,
    is_json: bool,
}

impl Outcome {
    fn text(status: StatusCode, result: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            result,
            body: (message.into() + "\n").into(),
            is_json: false,
        }
    }

    /// A review that refuses, under a status by which the API server goes by the webhook's `failurePolicy`.
    fn failed(status: StatusCode, result: &'static str, uid: &str, message: &str) -> Self {
        let answer = Answer::deny(status.as_u16(), "InternalError", message);
        Self {
            status,
            result,
            body: answer.encode(uid).into(),
            is_json: true,
        }
    }
}

pub(super) async fn respond(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let path = request.uri().path().to_owned();
    let handler = shared.routes.get(&path).cloned();
    // A path that is not ours is no label: strangers make them up.
    let label = if handler.is_some() { path.as_str() } else { "" };
    let outcome = match handler {
        Some(handler) => {
            match timeout(shared.limits.request, review(request, &*handler, shared)).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::text(
                    StatusCode::REQUEST_TIMEOUT,
                    "timeout",
                    "the request took too long",
                ),
            }
        }
        None => Outcome::text(
            StatusCode::NOT_FOUND,
            "unknown_path",
            "no webhook is at this path",
        ),
    };
    let labels = [("path", label), ("result", outcome.result)];
    shared
        .metrics
        .counter("admission_requests", &labels)
        .increment();
    let elapsed = started.elapsed();
    shared
        .metrics
        .observe("admission_duration_seconds", &[("path", label)], elapsed);
    if outcome.status != StatusCode::OK {
        let (status, result) = (outcome.status.as_u16(), outcome.result);
        tracing::debug!(path = label, status, result, "review not answered");
    }
    response(outcome)
}

async fn review(request: Request<Incoming>, handler: &dyn Handler, shared: &Shared) -> Outcome {
    if request.method() != Method::POST {
        return Outcome::text(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            "reviews are POSTed",
        );
    }
    if !is_json(request.headers()) {
        let message = "send the review as content type application/json";
        return Outcome::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message);
    }
    let most = shared.limits.body;
    if declared_length(request.headers()).is_some_and(|length| length > most as u64) {
        return too_large(most);
    }
    let body = match body::read(request.into_body(), most, &shared.bodies).await {
        Ok(body) => body,
        Err(BodyError::TooLarge) => return too_large(most),
        Err(BodyError::Lost) => {
            return Outcome::text(
                StatusCode::BAD_REQUEST,
                "body_lost",
                "the body did not come whole",
            );
        }
    };
    let request = match decode(&body.bytes) {
        Ok(request) => request,
        Err(error) => {
            let answer = Answer::deny(400, "BadRequest", error.message);
            return Outcome {
                status: StatusCode::BAD_REQUEST,
                result: "no_review",
                body: answer.encode(&error.uid).into(),
                is_json: true,
            };
        }
    };
    let uid = request.uid.clone();
    let handling = AssertUnwindSafe(async { handler.handle(request).await }).catch_unwind();
    match handling.await {
        Ok(Ok(answer)) => Outcome {
            status: StatusCode::OK,
            result: if answer.denied.is_none() {
                "allowed"
            } else {
                "denied"
            },
            body: answer.encode(&uid).into(),
            is_json: true,
        },
        Ok(Err(no_answer)) => {
            let unavailable = StatusCode::SERVICE_UNAVAILABLE;
            Outcome::failed(unavailable, "no_answer", &uid, &no_answer.0)
        }
        Err(panic) => {
            tracing::error!(
                uid,
                panic = panic_message(&*panic),
                "a review's handler panicked"
            );
            let error = StatusCode::INTERNAL_SERVER_ERROR;
            Outcome::failed(error, "panicked", &uid, "the webhook failed; see its log")
        }
    }
}

fn too_large(most: usize) -> Outcome {
    let message = format!("a review may have {most} bytes at most");
    Outcome::text(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

/// `application/json`, with or without parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media = value.and_then(|value| value.split(';').next());
    media.is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn response(outcome: Outcome) -> Response<Full<Bytes>> {
    let content_type = match outcome.is_json {
        true => "application/json",
        false => "text/plain; charset=utf-8",
    };
    let mut response = Response::new(Full::from(outcome.body));
    *response.status_mut() = outcome.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if outcome.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}
