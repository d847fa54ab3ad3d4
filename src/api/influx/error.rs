//! Refusals and faults in the shape of InfluxDB: a word for the kind, a sentence, and the word once
//! more in a header.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use serde::Serialize;

use crate::api::error::told;
use crate::api::request_id::RequestId;
use crate::domain::refusal::{Code, Refusal};
use crate::metrics::Metrics;
use crate::operations::error::Error;

/// Carries the word a second time.
const CODE_HEADER: &str = "X-Platform-Error-Code";

/// The body of every error.
#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
}

/// The word and the status that InfluxDB has for a code.
pub(super) fn code_of(code: Code) -> (&'static str, u16) {
    match code {
        // Somebody else got there first: in this API a thing that cannot be made as asked for.
        Code::Conflict | Code::Clash => ("conflict", 422),
        Code::Unprocessable => ("unprocessable entity", 422),
        Code::PayloadTooLarge => ("request too large", 413),
        other => match other.status() {
            401 => ("unauthorized", 401),
            403 => ("forbidden", 403),
            404 => ("not found", 404),
            405 => ("method not allowed", 405),
            429 => ("too many requests", 429),
            503 => ("unavailable", 503),
            status @ 500.. => ("internal error", status),
            status => ("invalid", status),
        },
    }
}

/// The word that a call is counted under when it fails.
pub(super) fn word_of(error: &Error) -> &'static str {
    match error {
        Error::Refused(refusal) => code_of(refusal.code).0,
        Error::Fault(fault) if fault.may_retry => code_of(Code::ServiceUnavailable).0,
        Error::Fault(_) => code_of(Code::InternalError).0,
    }
}

/// The sentence for a person; InfluxDB has none that is empty.
fn sentence(refusal: &Refusal) -> &str {
    match (refusal.message.as_ref(), refusal.code) {
        ("", Code::Unauthorized) => "the application key lacks a right that this needs",
        ("", _) => "unauthorized access",
        (message, _) => message,
    }
}

/// Renders an error; `allowed` is what a wrong method is told.
pub(super) fn render(
    error: &Error,
    id: RequestId,
    allowed: &[&str],
    metrics: &Metrics,
) -> HttpResponse {
    let refusal = told(error, id, metrics);
    let (code, status) = code_of(refusal.code);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = HttpResponse::build(status);
    answer
        .insert_header((CONTENT_TYPE, super::JSON))
        .insert_header((CACHE_CONTROL, super::NOT_KEPT))
        .insert_header((CODE_HEADER, code))
        .insert_header(("X-Bz-Request-Id", id.to_string()));
    if let Some(seconds) = refusal.retry_after_s {
        answer.insert_header((RETRY_AFTER, seconds.to_string()));
    }
    if refusal.code == Code::MethodNotAllowed && !allowed.is_empty() {
        answer.insert_header((ALLOW, allowed.join(", ")));
    }
    match serde_json::to_vec(&ErrorBody { code, message: sentence(&refusal) }) {
        Ok(body) => answer.body(body),
        Err(_) => answer.finish(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::refusal::{bad_auth_token, bad_request, refuse, unauthorized};

    #[test]
    fn replication_152_154_codes_have_the_words_and_statuses_of_influxdb() {
        for (code, word, status) in [
            (Code::BadRequest, "invalid", 400),
            (Code::BadJson, "invalid", 400),
            (Code::BadBucketId, "invalid", 400),
            (Code::BadAuthToken, "unauthorized", 401),
            (Code::ExpiredAuthToken, "unauthorized", 401),
            (Code::Unauthorized, "unauthorized", 401),
            (Code::AccessForbidden, "forbidden", 403),
            (Code::NotFound, "not found", 404),
            (Code::MethodNotAllowed, "method not allowed", 405),
            (Code::PayloadTooLarge, "request too large", 413),
            (Code::Conflict, "conflict", 422),
            (Code::Clash, "conflict", 422),
            (Code::Unprocessable, "unprocessable entity", 422),
            (Code::InternalError, "internal error", 500),
            (Code::ServiceUnavailable, "unavailable", 503),
        ] {
            assert_eq!(code_of(code), (word, status), "{}", code.as_str());
        }
    }

    #[test]
    fn no_error_is_without_a_sentence() {
        assert_eq!(sentence(&bad_auth_token()), "unauthorized access");
        assert!(!sentence(&unauthorized()).is_empty());
        assert_eq!(sentence(&bad_request("x")), "x");
        assert_eq!(
            sentence(&refuse(Code::NotFound, "remote connection not found")),
            "remote connection not found"
        );
    }
}
