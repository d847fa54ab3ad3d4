//! Requests of administration commands to the server that runs on the same data folder.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::domain::key::Secret;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a request did not bring an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the server at {endpoint} does not answer: {source}")]
    Unreachable {
        endpoint: String,
        #[source]
        source: reqwest::Error,
    },
    /// The server said no.
    #[error("{message}")]
    Refused { status: u16, message: String },
    #[error("the server at {endpoint} gave an answer that cannot be read")]
    Unreadable { endpoint: String },
}

/// A request to the admin listener.
pub(crate) struct AdminRequest {
    pub(crate) endpoint: String,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) fields: Map<String, Value>,
    pub(crate) key_id: String,
    pub(crate) secret: Secret,
}

/// Sends a request to the admin listener of a running server and reads its JSON answer; null when
/// there is nothing in it.
pub(crate) async fn ask_admin(request: AdminRequest) -> Result<Value, Error> {
    let AdminRequest { endpoint, method, path, fields, key_id, secret } = request;
    let unreachable = |source| Error::Unreachable { endpoint: endpoint.clone(), source };
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        // The address is the server's own word; a proxy between the two would see the secret.
        .no_proxy()
        .build()
        .map_err(unreachable)?;
    let mut url = format!("{endpoint}{path}");
    if method == "GET" && !fields.is_empty() {
        url = format!("{url}?{}", query(&fields));
    }
    let verb = reqwest::Method::from_bytes(method.as_bytes()).unwrap_or(reqwest::Method::POST);
    let mut call = client.request(verb, url).basic_auth(key_id, Some(secret.expose()));
    if method != "GET" {
        call = call.json(&fields);
    }
    let answer = call.send().await.map_err(unreachable)?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await.map_err(unreachable)?;
    let unreadable = || Error::Unreadable { endpoint: endpoint.clone() };
    if body.len() > ANSWER_BYTES_MAX {
        return Err(unreadable());
    }
    if status == 204 {
        return Ok(Value::Null);
    }
    let value: Value = serde_json::from_slice(&body).map_err(|_| unreadable())?;
    if matches!(status, 200 | 201) {
        return Ok(value);
    }
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let message = match (text("code"), text("message")) {
        ("", "") => format!("the server answered with status {status}"),
        (code, "") => code.to_owned(),
        (_, message) => message.to_owned(),
    };
    Err(Error::Refused { status, message })
}

/// Fields as a query.
pub(crate) fn query(fields: &Map<String, Value>) -> String {
    let pairs: Vec<String> = fields.iter().map(|(name, value)| query_pair(name, value)).collect();
    pairs.join("&")
}

fn query_pair(name: &str, value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    // `encode` leaves a few letters alone that mean something in a query.
    let encoded = crate::domain::percent::encode(&text).replace('=', "%3D").replace(';', "%3B");
    format!("{name}={encoded}")
}
