//! The admin listener: health, metrics, administration commands, remotes and streams, and test
//! controls when the server was started with them.

pub(crate) mod command;
pub(crate) mod controls;
pub(crate) mod health;
pub(crate) mod manage;
pub(crate) mod stream_metrics;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::api::Http;
use crate::api::admin::command::AdminCommand;
use crate::api::body::{Incoming, read_small};
use crate::api::error::{Asked, render};
use crate::api::influx;
use crate::api::native::account::basic_credentials;
use crate::api::native::fields::{parse_json, parse_query};
use crate::api::native::{authorization, json_answer, unwritable};
use crate::api::request_id::RequestId;
use crate::domain::refusal::{Code, Refusal, bad_auth_token, bad_request, refuse, shorten};
use crate::operations::accounts::Operator;
use crate::operations::error::Error;

/// Answers every request to the admin listener.
pub(crate) async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    http: web::Data<Http>,
) -> HttpResponse {
    if influx::takes(request.uri().path()) {
        return influx::serve(request, payload, http).await;
    }
    let id = RequestId::next();
    let incoming = Incoming::new(payload);
    let is_head = request.method() == Method::HEAD;
    let asked = Asked { id, is_head, is_authorize: false, allowed: &[] };
    let outcome = dispatch(&request, incoming.clone(), &http).await;
    let response = outcome.unwrap_or_else(|error| render(&error, asked, &http.app.metrics));
    let response = incoming.hold_until_sent(&request, response);
    tracing::debug!(
        request.id = %id,
        http.method = %request.method(),
        path = shorten(request.uri().path()),
        status = response.status().as_u16(),
        "admin request"
    );
    response
}

async fn dispatch(
    request: &HttpRequest,
    payload: Incoming,
    http: &web::Data<Http>,
) -> Result<HttpResponse, Error> {
    let uri = request.uri().clone();
    let (method, path) = (request.method().as_str(), uri.path());
    if matches!(method, "GET" | "HEAD") {
        match path {
            "/healthz" => return Ok(health::healthz()),
            "/readyz" => return Ok(health::readyz(http)),
            "/metrics" => return Ok(health::metrics(http).await),
            _ => {}
        }
    }
    let body = if method == "GET" { Bytes::new() } else { read_small(payload, http).await? };
    if let Some(controls) = &http.controls
        && let Some(answer) = controls::perform(http, controls, request, &body).await
    {
        return answer;
    }
    let fields =
        if method == "GET" { query_fields(request.query_string())? } else { body_fields(&body)? };
    let Some(command) = AdminCommand::from_request(method, path, fields) else {
        let text = format!("no such address: {}", shorten(path));
        return Err(refuse(Code::NotFound, text).into());
    };
    let _no_reset = match &http.controls {
        Some(controls) => Some(controls.between_calls.read().await),
        None => None,
    };
    let (key_id, secret) = basic_credentials(authorization(request)?).ok_or_else(bad_auth_token)?;
    let operator = Operator::with_key(&http.app, &key_id, &secret)?;
    let answer = manage::perform(&http.app, &operator, command?).await?;
    Ok(json_answer(serde_json::to_vec(&answer).map_err(unwritable)?))
}

fn query_fields(query: &str) -> Result<Map<String, Value>, Refusal> {
    let pairs = parse_query(query)?;
    Ok(pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect())
}

fn body_fields(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match parse_json(body)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(bad_request("request body must be a JSON object")),
    }
}
