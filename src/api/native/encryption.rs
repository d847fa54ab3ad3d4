//! How requests ask for server-side encryption, in headers and in fields, and how downloads tell
//! of it.

use actix_web::http::header::HeaderMap;
use serde_json::Value;

use crate::api::native::fields::Fields;
use crate::domain::encryption::{ALGORITHM, AskedDefault, AskedEncryption, CustomerKey};
use crate::domain::refusal::{Refusal, bad_request, missing_field, shorten, wrong_type};

/// Asks for SSE-B2, and tells of it.
pub(crate) const MANAGED: &str = "X-Bz-Server-Side-Encryption";
/// The three headers of SSE-C. Downloads tell of the first and the last.
pub(crate) const CUSTOMER_ALGORITHM: &str = "X-Bz-Server-Side-Encryption-Customer-Algorithm";
const CUSTOMER_KEY: &str = "X-Bz-Server-Side-Encryption-Customer-Key";
pub(crate) const CUSTOMER_KEY_MD5: &str = "X-Bz-Server-Side-Encryption-Customer-Key-Md5";

/// The customer's key in the headers of a request.
pub(crate) fn customer_key(headers: &HeaderMap) -> Result<Option<CustomerKey>, Refusal> {
    let values = [CUSTOMER_ALGORITHM, CUSTOMER_KEY, CUSTOMER_KEY_MD5].map(|name| headers.get(name));
    if values.iter().all(Option::is_none) {
        return Ok(None);
    }
    let texts = values.map(|value| value.and_then(|value| value.to_str().ok()));
    let [Some(algorithm), Some(key), Some(md5)] = texts else {
        return Err(bad_request(format!(
            "{CUSTOMER_ALGORITHM}, {CUSTOMER_KEY} and {CUSTOMER_KEY_MD5} go together"
        )));
    };
    CustomerKey::parse(algorithm, key, md5).map(Some)
}

/// What the fields of a request ask for. Forms that mean "none" ask for nothing: older SDKs send
/// them always. A missing mode is none of them: it may be misspelt, and would leave in the clear
/// what was to be encrypted.
pub(crate) fn asked_in(fields: &Fields, name: &str) -> Result<AskedEncryption, Refusal> {
    let Some(asked) = fields.opt_structure(name)? else { return Ok(AskedEncryption::Default) };
    let Value::Object(asked) = asked else { return Err(wrong_type(name, "an object")) };
    let text = |member: &str| match asked.get(member) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(bad_request(format!("{name}.{member} must be a string"))),
    };
    if !asked.contains_key("mode") {
        return Err(missing_field(&format!("{name}.mode")));
    }
    match text("mode")? {
        "" | "none" | "NONE" => Ok(AskedEncryption::Default),
        "SSE-B2" if text("algorithm")? == ALGORITHM => Ok(AskedEncryption::Managed),
        "SSE-B2" => Err(bad_request(format!("{name}.algorithm must be {ALGORITHM}"))),
        "SSE-C" => {
            let (key, md5) = (text("customerKey")?, text("customerKeyMd5")?);
            CustomerKey::parse(text("algorithm")?, key, md5).map(AskedEncryption::Customer)
        }
        other => Err(bad_request(format!("Bad {name}.mode: {}", shorten(other)))),
    }
}

/// The customer's key that a copy's source is encrypted with. For other sources nothing need be
/// said, and that the server encrypts them may be.
pub(crate) fn key_of_source(fields: &Fields) -> Result<Option<CustomerKey>, Refusal> {
    Ok(match asked_in(fields, "sourceServerSideEncryption")? {
        AskedEncryption::Customer(key) => Some(key),
        AskedEncryption::Default | AskedEncryption::Managed => None,
    })
}

/// What a bucket is to do with new files that ask for nothing; None when the request does not say.
pub(crate) fn default_in(fields: &Fields) -> Result<Option<AskedDefault>, Refusal> {
    const FIELD: &str = "defaultServerSideEncryption";
    if fields.opt_structure(FIELD)?.is_none() {
        return Ok(None);
    }
    Ok(Some(match asked_in(fields, FIELD)? {
        AskedEncryption::Default => AskedDefault::OfServer,
        AskedEncryption::Managed => AskedDefault::Managed,
        AskedEncryption::Customer(_) => AskedDefault::Customer,
    }))
}

/// What the headers of an upload ask for.
pub(crate) fn asked(headers: &HeaderMap) -> Result<AskedEncryption, Refusal> {
    let managed = headers.get(MANAGED);
    if managed.is_some_and(|value| value.as_bytes() != ALGORITHM.as_bytes()) {
        return Err(bad_request(format!("Bad {MANAGED}: it must be {ALGORITHM}")));
    }
    match (managed, customer_key(headers)?) {
        (None, None) => Ok(AskedEncryption::Default),
        (Some(_), None) => Ok(AskedEncryption::Managed),
        (None, Some(key)) => Ok(AskedEncryption::Customer(key)),
        (Some(_), Some(_)) => Err(bad_request(
            "a file is encrypted with a key of the server or with one of the customer, not both",
        )),
    }
}
