//! `b2_get_upload_url` and the upload URLs it hands out.

use actix_web::http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING,
};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::api::Http;
use crate::api::body::{Incoming, with_idle_limit};
use crate::api::native::wire::{ApiVersion, Reader};
use crate::api::native::{Call, Reply, authorization, encryption, json_answer, locks, reply};
use crate::api::peer;
use crate::domain::content_type;
use crate::domain::digest::Sha1Digest;
use crate::domain::file::FileInfo;
use crate::domain::names::FileName;
use crate::domain::refusal::{Refusal, bad_auth_token, bad_request, missing_field, shorten};
use crate::domain::usage::Class;
use crate::operations::authorize::{retire_upload_url, upload_pair, upload_ticket};
use crate::operations::error::Error;
use crate::operations::upload::{Announced, DeclaredSha1, NewFile, OnlyIf, check_upload, upload};
use crate::operations::usage::admit_transactions;

pub(crate) async fn upload_url(call: Call) -> Reply {
    let bucket = call.fields.text("bucketId")?;
    let pair = upload_pair(call.app(), &call.caller, bucket)?;
    let url = format!(
        "{}/b2api/v{}/b2_upload_file/{}/{}",
        call.base_url, call.version.0, pair.bucket, pair.mark
    );
    reply(&json!({
        "authorizationToken": pair.token, "bucketId": pair.bucket, "uploadUrl": url,
    }))
}

pub(crate) async fn upload_file(
    request: &HttpRequest,
    payload: Incoming,
    http: &web::Data<Http>,
    version: ApiVersion,
    rest: &str,
) -> Result<HttpResponse, Error> {
    let (bucket, mark) = rest.split_once('/').unwrap_or((rest, ""));
    let token = authorization(request)?.ok_or_else(bad_auth_token)?;
    let ticket = upload_ticket(&http.app, token, bucket, mark)?;
    let file = new_file(request.headers())?;
    check_upload(&http.app, &ticket, &file)?;
    admit_transactions(&http.app, ticket.caller.account(), Class::A, 1)?;
    let body = with_idle_limit(payload, http);
    let stored = upload(&http.app, &ticket, file, body).await?;
    let reader = Reader { caller: &ticket.caller, version };
    Ok(json_answer(reader.file(&stored, false).json()))
}

/// Ends an upload URL that has just rejected an upload.
pub(crate) fn retire_url(request: &HttpRequest, http: &Http, rest: &str) {
    let (scope, mark) = rest.split_once('/').unwrap_or((rest, ""));
    if let Ok(Some(token)) = authorization(request) {
        retire_upload_url(&http.app, token, scope, mark);
    }
}

/// Reads the headers of an upload.
fn new_file(headers: &HeaderMap) -> Result<NewFile, Refusal> {
    let name = headers.get("X-Bz-File-Name").ok_or_else(|| missing_header("X-Bz-File-Name"))?;
    let name = FileName::decode(name.as_bytes())?;
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.ok_or_else(|| missing_header("Content-Type"))?;
    let content_type = content_type::resolve("Content-Type", given, name.as_str())?;
    let replica = peer::replica_mark(headers)?;
    let mut body = announced(headers)?;
    if replica.is_some() {
        body.sha1 = sha1_of_replica(headers, body.sha1);
    }
    let infos = headers.iter().filter_map(|(header, value)| {
        Some((header.as_str().strip_prefix("x-bz-info-")?, value.as_bytes()))
    });
    let info = FileInfo::from_headers(infos, &name)?;
    let encryption = encryption::asked(headers)?;
    let custom_time = headers.get("X-Bz-Custom-Upload-Timestamp");
    let custom_time = custom_time.map(|time| String::from_utf8_lossy(time.as_bytes()).into_owned());
    let lock = locks::of_headers(headers)?;
    let only_if = OnlyIf::Anyway;
    Ok(NewFile { name, content_type, info, lock, encryption, body, custom_time, only_if, replica })
}

/// What the headers of an upload say about the body.
pub(crate) fn announced(headers: &HeaderMap) -> Result<Announced, Refusal> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(bad_request("header content-range is not allowed on uploads"));
    }
    announced_piece(headers)
}

/// As [`announced`], of a body that may be a piece of something.
pub(crate) fn announced_piece(headers: &HeaderMap) -> Result<Announced, Refusal> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad_request("Transfer-Encoding is not allowed, send Content-Length"));
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(bad_request("header content-encoding is not allowed on uploads"));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let body_bytes = length
        .ok_or_else(|| missing_header("Content-Length"))?
        .parse()
        .map_err(|_| bad_request("Bad Content-Length"))?;
    Ok(Announced { body_bytes, sha1: declared_sha1(headers)?, md5: None })
}

pub(crate) fn missing_header(name: &str) -> Refusal {
    Refusal { message: format!("Missing header: {name}").into(), ..missing_field(name) }
}

/// An uploader that says of a SHA-1 that nobody verified it leaves that to us. A peer says the same of
/// what it did verify, while its uploader had not: then it is compared, and stays unverified.
fn sha1_of_replica(headers: &HeaderMap, declared: DeclaredSha1) -> DeclaredSha1 {
    let header = headers.get("X-Bz-Content-Sha1").and_then(|value| value.to_str().ok());
    let unverified = header.and_then(|header| header.strip_prefix("unverified:"));
    unverified.and_then(Sha1Digest::parse).map_or(declared, DeclaredSha1::IsUnverified)
}

fn declared_sha1(headers: &HeaderMap) -> Result<DeclaredSha1, Refusal> {
    let header = headers
        .get("X-Bz-Content-Sha1")
        .ok_or_else(|| missing_header("X-Bz-Content-Sha1"))?
        .to_str()
        .unwrap_or_default();
    let wrong = || bad_request(format!("Bad X-Bz-Content-Sha1: '{}'", shorten(header)));
    match header {
        "hex_digits_at_end" => Ok(DeclaredSha1::AtEnd),
        "do_not_verify" => Ok(DeclaredSha1::Unknown),
        digits => match digits.strip_prefix("unverified:") {
            Some(unverified) => {
                Sha1Digest::parse(unverified).map(|_| DeclaredSha1::Unknown).ok_or_else(wrong)
            }
            None => Sha1Digest::parse(digits).map(DeclaredSha1::Is).ok_or_else(wrong),
        },
    }
}
