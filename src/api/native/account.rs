//! `b2_authorize_account`, in the four shapes of its versions.

use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api::Http;
use crate::api::native::wire::ApiVersion;
use crate::api::native::{authorization, base_url, json_answer, reply};
use crate::domain::refusal::bad_auth_token;
use crate::domain::usage::Class;
use crate::operations::authorize::{Authorized, authorize_account};
use crate::operations::error::Error;
use crate::operations::usage::admit_transactions;

/// Longest `Authorization` header that is looked at, in bytes (ours).
const BASIC_BYTES_MAX: usize = 4096;

/// Reads Basic credentials. An empty id or secret is nobody's.
pub(crate) fn basic_credentials(header: Option<&str>) -> Option<(String, String)> {
    let header = header.filter(|header| header.len() <= BASIC_BYTES_MAX)?;
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    (!id.is_empty() && !secret.is_empty()).then(|| (id.to_owned(), secret.to_owned()))
}

pub(crate) fn authorize(
    request: &HttpRequest,
    http: &web::Data<Http>,
    version: ApiVersion,
) -> Result<HttpResponse, Error> {
    let (id, secret) = basic_credentials(authorization(request)?).ok_or_else(bad_auth_token)?;
    let authorized = authorize_account(&http.app, &id, &secret, version.0)?;
    admit_transactions(&http.app, authorized.caller.account(), Class::C, 1)?;
    let answer = render(&authorized, http, &base_url(request, http), version);
    reply(&answer).map(json_answer)
}

fn render(authorized: &Authorized, http: &Http, url: &str, version: ApiVersion) -> Value {
    let key = &authorized.caller.key;
    let s3_url = url.to_owned();
    let capabilities = key.capabilities.names();
    let expires = key.expires_at.map(|end| end.0);
    let single = authorized.buckets.as_ref().and_then(|buckets| buckets.first());
    let bucket_id = single.map(|(id, _)| *id);
    let bucket_name = single.and_then(|(_, name)| name.clone());
    let account = key.account;
    let token = &authorized.token;
    let sizes = http.app.policy.part_sizes;
    let (recommended, smallest) = (sizes.bytes_recommended, sizes.bytes_min);
    if version.0 <= 2 {
        let mut flat = json!({
            "absoluteMinimumPartSize": smallest,
            "accountId": account,
            "allowed": {
                "bucketId": bucket_id, "bucketName": bucket_name,
                "capabilities": capabilities, "namePrefix": key.name_prefix,
            },
            "apiUrl": url,
            "authorizationToken": token,
            "downloadUrl": url,
            "recommendedPartSize": recommended,
            "s3ApiUrl": s3_url,
        });
        if version.0 == 1
            && let Value::Object(members) = &mut flat
        {
            members.insert("minimumPartSize".to_owned(), recommended.into());
        }
        return flat;
    }
    let mut storage = json!({
        "absoluteMinimumPartSize": smallest,
        "apiUrl": url,
        "downloadUrl": url,
        "recommendedPartSize": recommended,
        "s3ApiUrl": s3_url,
    });
    let rights = if version.0 == 3 {
        json!({
            "bucketId": bucket_id, "bucketName": bucket_name, "capabilities": capabilities,
            "infoType": "storageApi", "namePrefix": key.name_prefix,
        })
    } else {
        let buckets = authorized.buckets.as_ref().map(|buckets| {
            buckets.iter().map(|(id, name)| json!({"id": id, "name": name})).collect::<Vec<_>>()
        });
        json!({"allowed": {
            "buckets": buckets, "capabilities": capabilities, "namePrefix": key.name_prefix,
        }})
    };
    if let (Value::Object(members), Value::Object(rights)) = (&mut storage, rights) {
        members.extend(rights);
    }
    json!({
        "accountId": account,
        "apiInfo": {"storageApi": storage},
        "applicationKeyExpirationTimestamp": expires,
        "authorizationToken": token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reliability_a2_a4_only_whole_basic_credentials_count() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(
            basic_credentials(Some(&basic("id:key:x"))),
            Some(("id".to_owned(), "key:x".to_owned()))
        );
        for wrong in [
            basic(":key"),
            basic("id:"),
            basic("id"),
            "Bearer x".to_owned(),
            "Basic".to_owned(),
            "Basic %%%".to_owned(),
            basic(&"x:".repeat(4000)),
            String::new(),
        ] {
            assert_eq!(basic_credentials(Some(&wrong)), None, "{wrong}");
        }
        assert_eq!(basic_credentials(None), None);
    }
}
