//! Refusals and faults as answers, and the only place where they are logged.

use std::borrow::Cow;
use std::error::Error as StdError;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;

use crate::api::faults::PlannedAnswer;
use crate::api::request_id::RequestId;
use crate::domain::refusal::{Code, Refusal};
use crate::metrics::Metrics;
use crate::operations::error::{Error, Fault};

/// The body of every error of the Native API.
#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
    status: u16,
}

/// Where an answer goes and what it may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) id: RequestId,
    /// HEAD requests get no body.
    pub(crate) is_head: bool,
    /// Wrong credentials at authorize are answered with a challenge.
    pub(crate) is_authorize: bool,
    /// The methods that the address answers; what a wrong method is told.
    pub(crate) allowed: &'static [&'static str],
}

/// Renders an error as Backblaze does.
pub(crate) fn render(error: &Error, asked: Asked, metrics: &Metrics) -> HttpResponse {
    render_refusal(&told(error, asked.id, metrics), asked)
}

/// Counts and logs an error, and answers what the caller is told of it.
pub(crate) fn told<'e>(error: &'e Error, id: RequestId, metrics: &Metrics) -> Cow<'e, Refusal> {
    match error {
        Error::Refused(refusal) => {
            metrics.refusals.one();
            // Not the message: it may repeat what the caller sent, tokens among it.
            tracing::debug!(request.id = %id, code = refusal.code.as_str(), "refused");
            Cow::Borrowed(refusal)
        }
        Error::Fault(fault) => {
            metrics.faults.one();
            log_fault(fault, id);
            Cow::Owned(outward(fault, id))
        }
    }
}

/// What the caller is told of a fault: nothing of its inside.
fn outward(fault: &Fault, id: RequestId) -> Refusal {
    if fault.may_retry {
        Refusal {
            code: Code::ServiceUnavailable,
            message: format!("temporarily unavailable, try again (request {id})").into(),
            retry_after_s: Some(5),
        }
    } else {
        Refusal {
            code: Code::InternalError,
            message: format!("an internal error occurred (request {id})").into(),
            retry_after_s: None,
        }
    }
}

pub(crate) fn log_fault(fault: &Fault, id: RequestId) {
    let mut chain = fault.to_string();
    let mut cause = fault.source();
    while let Some(inner) = cause {
        chain.push_str(": ");
        chain.push_str(&inner.to_string());
        cause = inner.source();
    }
    tracing::error!(request.id = %id, "{chain}");
}

fn render_refusal(refusal: &Refusal, asked: Asked) -> HttpResponse {
    let (status, code) = (refusal.code.status(), refusal.code.as_str());
    error_answer(
        &ErrorBody { code, message: &refusal.message, status },
        refusal.retry_after_s,
        asked,
    )
}

/// Renders an error that a fault rule has planned, as if kiln had come upon it.
pub(crate) fn render_planned(planned: &PlannedAnswer, asked: Asked) -> HttpResponse {
    let PlannedAnswer { status, code, message, retry_after_s } = planned;
    error_answer(&ErrorBody { code, message, status: *status }, *retry_after_s, asked)
}

fn error_answer(body: &ErrorBody<'_>, retry_after_s: Option<u32>, asked: Asked) -> HttpResponse {
    let status = body.status;
    let mut answer = HttpResponse::build(
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    );
    answer
        .insert_header((CONTENT_TYPE, "application/json;charset=utf-8"))
        .insert_header((CACHE_CONTROL, "max-age=0, no-cache, no-store"))
        .insert_header(("X-Bz-Request-Id", asked.id.to_string()));
    if let Some(seconds) = retry_after_s {
        answer.insert_header((RETRY_AFTER, seconds.to_string()));
    }
    if asked.is_authorize && status == 401 {
        answer.insert_header((WWW_AUTHENTICATE, "BASIC realm=\"authorize_account\""));
    }
    if status == Code::MethodNotAllowed.status() && !asked.allowed.is_empty() {
        answer.insert_header((ALLOW, asked.allowed.join(", ")));
    }
    if asked.is_head {
        return answer.finish();
    }
    match serde_json::to_vec(body) {
        Ok(body) => answer.body(body),
        Err(_) => answer.finish(),
    }
}
