//! How requests ask for server-side encryption and how downloads tell of it, in headers.

use actix_web::http::header::HeaderMap;

use crate::domain::encryption::{ALGORITHM, AskedEncryption, CustomerKey};
use crate::domain::refusal::{Refusal, bad_request};

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
