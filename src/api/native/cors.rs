//! The `corsRules` field, answers to preflights, and the headers that let a page read an answer.

use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::Value;

use crate::api::Http;
use crate::api::native::fields::{Fields, Members, parse_query};
use crate::api::native::{Door, Operation, Route, operation_of};
use crate::domain::cors::{CorsOperation, CorsRule, is_token};
use crate::domain::names::decode_text;
use crate::domain::refusal::{Refusal, cross_origin_denied, wrong_type};
use crate::operations::cors::{Opening, Place, find_opening};
use crate::operations::error::Error;

const FIELD: &str = "corsRules";

/// Reads the field; None when it is absent or null.
pub(crate) fn parse(fields: &Fields) -> Result<Option<Vec<CorsRule>>, Refusal> {
    let Some(value) = fields.opt_structure(FIELD)? else { return Ok(None) };
    let rules = value.as_array().ok_or_else(|| wrong_type(FIELD, "an array"))?;
    rules.iter().map(rule).collect::<Result<_, _>>().map(Some)
}

fn rule(value: &Value) -> Result<CorsRule, Refusal> {
    let rule = Members::only(
        "corsRule",
        value,
        &[
            "allowedHeaders",
            "allowedOperations",
            "allowedOrigins",
            "corsRuleName",
            "exposeHeaders",
            "maxAgeSeconds",
        ],
    )?;
    let opt_texts = |name: &str| rule.opt(name).map(|_| rule.texts(name)).transpose();
    Ok(CorsRule {
        name: rule.text("corsRuleName")?,
        allowed_origins: rule.texts("allowedOrigins")?,
        allowed_operations: rule
            .texts("allowedOperations")?
            .iter()
            .map(|operation| CorsOperation::parse(operation))
            .collect::<Result<_, _>>()?,
        allowed_headers: opt_texts("allowedHeaders")?,
        expose_headers: opt_texts("exposeHeaders")?,
        max_age_seconds: rule.int("maxAgeSeconds")?,
    })
}

/// What a request is in the eyes of CORS rules, and the bucket whose rules count. None for calls
/// that pages of other origins cannot make, whatever the rules.
fn subject<'r>(request: &HttpRequest, route: Route<'r>) -> Option<(CorsOperation, Place<'r>)> {
    match (route, operation_of(route)?.door) {
        (Route::File { bucket, .. }, _) => {
            let name = decode_text(bucket.as_bytes(), "bucket name").ok()?;
            Some((CorsOperation::DownloadByName, Place::BucketName(name)))
        }
        (Route::Operation { .. }, Door::DownloadById) => {
            let parameters = parse_query(request.query_string()).ok()?;
            let (_, id) = parameters.into_iter().find(|(name, _)| name == "fileId")?;
            Some((CorsOperation::DownloadById, Place::FileId(id)))
        }
        (Route::Operation { rest, .. }, Door::Upload) => {
            let (bucket, _) = rest.split_once('/')?;
            Some((CorsOperation::UploadFile, Place::BucketId(bucket)))
        }
        (Route::Operation { rest, .. }, Door::UploadPart) => {
            let (file, _) = rest.split_once('/')?;
            Some((CorsOperation::UploadPart, Place::FileId(file.to_owned())))
        }
        _ => None,
    }
}

fn text<'r>(request: &'r HttpRequest, name: &HeaderName) -> Option<&'r str> {
    request.headers().get(name)?.to_str().ok()
}

/// Whether a browser asks, on behalf of a page, what it may send.
pub(crate) fn is_preflight(request: &HttpRequest) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers a preflight. It needs no credentials: it tells what a page may ask, not what is there.
pub(crate) fn preflight(
    request: &HttpRequest,
    http: &Http,
    route: Route<'_>,
    operation: &Operation,
) -> Result<HttpResponse, Error> {
    let asked = subject(request, route).zip(text(request, &ORIGIN));
    let method = text(request, &ACCESS_CONTROL_REQUEST_METHOD)
        .filter(|method| operation.methods().contains(method));
    let headers = requested_headers(request.headers());
    let (Some(((what, place), origin)), Some(method), Some(headers)) = (asked, method, headers)
    else {
        return Err(cross_origin_denied().into());
    };
    let opening =
        find_opening(&http.app, &place, what, origin, &headers)?.ok_or_else(cross_origin_denied)?;
    Ok(allow(&opening, method, &headers))
}

/// The answer to a preflight that a rule lets through.
pub(crate) fn allow(opening: &Opening, method: &str, headers: &[&str]) -> HttpResponse {
    let mut answer = HttpResponse::Ok().finish();
    let put = answer.headers_mut();
    open(put, opening);
    insert(put, ACCESS_CONTROL_ALLOW_METHODS, method);
    if !headers.is_empty() {
        insert(put, ACCESS_CONTROL_ALLOW_HEADERS, &headers.join(", "));
    }
    insert(put, ACCESS_CONTROL_MAX_AGE, &opening.max_age_s.to_string());
    insert(put, VARY, "Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
    answer
}

/// The headers that a preflight asks for; None when something among them is no header.
pub(crate) fn requested_headers(headers: &HeaderMap) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    for line in headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        let listed = line.to_str().ok()?.split(',').map(str::trim);
        names.extend(listed.filter(|name| !name.is_empty()));
    }
    names.iter().all(|name| is_token(name)).then_some(names)
}

/// What the page that sent a request may read of the answer, be that an error. None when nothing,
/// or when no page sent it.
pub(crate) fn opening(
    request: &HttpRequest,
    http: &Http,
    route: Option<Route<'_>>,
) -> Result<Option<Opening>, Error> {
    let asked = route.zip(text(request, &ORIGIN)).filter(|_| !is_preflight(request));
    let Some((route, origin)) = asked else { return Ok(None) };
    let Some((what, place)) = subject(request, route) else { return Ok(None) };
    find_opening(&http.app, &place, what, origin, &[])
}

/// Lets the page read an answer.
pub(crate) fn open(headers: &mut HeaderMap, opening: &Opening) {
    insert(headers, ACCESS_CONTROL_ALLOW_ORIGIN, &opening.origin);
    if !opening.expose_headers.is_empty() {
        insert(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &opening.expose_headers.join(", "));
    }
    vary_by_origin(headers);
}

/// Tells caches that another origin gets another answer.
pub(crate) fn vary_by_origin(headers: &mut HeaderMap) {
    headers.insert(VARY, HeaderValue::from_static("Origin"));
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Origins and header names were checked; a value that is none all the same opens nothing.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rules: &str) -> Result<Option<Vec<CorsRule>>, String> {
        let body = format!("{{\"corsRules\":{rules}}}");
        let fields = Fields::from_body(body.as_bytes()).map_err(|refusal| refusal.to_string())?;
        parse(&fields).map_err(|refusal| refusal.message.into_owned())
    }

    #[test]
    fn native_131_absent_and_null_leave_rules_as_they_are_and_a_list_replaces_them() {
        assert_eq!(read("null"), Ok(None));
        assert_eq!(read("[]"), Ok(Some(Vec::new())));
        assert!(read("{}").is_err());
        assert!(read("[1]").is_err());
    }

    #[test]
    fn native_363_364_members_of_a_rule_are_checked_by_name() {
        let members = [
            ("allowedHeaders", "null"),
            ("allowedOperations", "[\"b2_upload_file\"]"),
            ("allowedOrigins", "[\"*\"]"),
            ("corsRuleName", "\"rule-one\""),
            ("exposeHeaders", "[]"),
            ("maxAgeSeconds", "1"),
        ];
        let with = |changed: &str, value: &str| {
            let mut members: Vec<(&str, &str)> = members.to_vec();
            members.retain(|(name, _)| *name != changed);
            if !value.is_empty() {
                members.push((changed, value));
            }
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            read(&format!("[{{{}}}]", members.join(",")))
        };
        let whole = with("", "").expect("a good rule").expect("there is one");
        assert_eq!(whole.first().map(|rule| rule.allowed_headers.clone()), Some(None));
        assert_eq!(with("allowedHeaders", ""), Ok(Some(whole)));
        for name in ["allowedOperations", "allowedOrigins", "corsRuleName", "maxAgeSeconds"] {
            assert_eq!(with(name, ""), Err(format!("required field {name} is missing")));
            assert_eq!(with(name, "null"), Err(format!("required field {name} cannot be null")));
        }
        for (name, value) in [
            ("allowedHeaders", "\"x\""),
            ("allowedOrigins", "[1]"),
            ("allowedOperations", "[\"b2_list_file_names\"]"),
            ("corsRuleName", "1"),
            ("maxAgeSeconds", "1.5"),
            ("maxAgeSeconds", "\"1\""),
        ] {
            assert!(with(name, value).is_err(), "{name} {value}");
        }
        assert_eq!(with("colour", "1"), Err("unknown field in corsRule: colour".to_owned()));
    }
}
