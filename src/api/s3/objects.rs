//! Calls about objects as a whole: store, read, delete.

use actix_web::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, LAST_MODIFIED,
    RANGE,
};
use actix_web::http::{Method, StatusCode};
use futures_util::{StreamExt, stream};

use crate::api::native::cors::vary_by_origin;
use crate::api::native::download::{if_range, with_content};
use crate::api::s3::chunked;
use crate::api::s3::error::{
    S3Error, S3Refusal, invalid_argument, invalid_request, malformed_xml, method_not_allowed,
    no_such_key, no_such_version, not_implemented, s3_refuse,
};
use crate::api::s3::headers::{
    about, bypass, check_acl, check_storage_class, customer_key, encryption, lock,
    refuse_conditions, set_header, shown_metadata, shown_mode, tags, text, told_encryption,
};
use crate::api::s3::listing::quoted_tag;
use crate::api::s3::multipart::explain;
use crate::api::s3::xml::{Element, Writer};
use crate::api::s3::{Call, KEYS_XML_BYTES_MAX, Profile, Reply, empty, name_of_key, xml_answer};
use crate::domain::capability::Capability;
use crate::domain::checksum::KeptChecksum;
use crate::domain::conditions::{Conditions, Verdict};
use crate::domain::file::{Action, HEADER_INFOS};
use crate::domain::ids::{BucketId, ClaimedFileId};
use crate::domain::lock::FileLock;
use crate::domain::range::{ByteRange, Wanted};
use crate::domain::refusal::Code;
use crate::domain::time::Millis;
use crate::operations::authorize::{OVERRIDES, Overrides, UploadTicket};
use crate::operations::download::{
    Download, DownloadQuery, Found, FoundFile, LockShown, find_file,
};
use crate::operations::files::{self, Over};
use crate::operations::upload::{NewFile, OnlyIf, check_upload, upload_checked};

/// The condition that a write is to happen on. Only the extended profile knows any.
pub(crate) fn only_if(call: &Call) -> Result<OnlyIf, S3Refusal> {
    let headers = &call.headers;
    if call.profile() == Profile::Backblaze {
        refuse_conditions(headers)?;
        return Ok(OnlyIf::Anyway);
    }
    match (text(headers, "if-match")?, text(headers, "if-none-match")?) {
        (None, None) => Ok(OnlyIf::Anyway),
        (None, Some("*")) => Ok(OnlyIf::Absent),
        (Some(wanted), None) => Ok(OnlyIf::Tagged(tags(wanted))),
        _ => Err(invalid_argument("If-Match goes alone, and If-None-Match only with *")),
    }
}

pub(crate) async fn put(mut call: Call) -> Reply {
    let headers = &call.headers;
    let only_if = only_if(&call)?;
    let (name, bucket) = (call.name()?, call.bucket()?);
    check_acl(headers, &bucket)?;
    check_storage_class(headers)?;
    let (lock, encryption) = (lock(headers)?, encryption(headers)?);
    let about = about(headers, &name)?;
    let content =
        chunked::content(&call.headers, call.payload.clone(), &call.http, &mut call.signed)?;
    let outcome = content.outcome.clone();
    let file = NewFile {
        name,
        content_type: about.content_type,
        info: about.info,
        lock,
        encryption,
        body: content.announced,
        custom_time: None,
        replica: None,
        only_if,
    };
    let ticket = UploadTicket::of_caller(call.app(), call.caller()?, bucket.id)?;
    check_upload(call.app(), &ticket, &file)?;
    let stored =
        upload_checked(call.app(), &ticket, file, content.body, || outcome.checksum()).await;
    let stored = stored.map_err(|error| explain(error.into(), &outcome))?;
    let mut answer = empty(StatusCode::OK);
    let key = customer_key(&call.headers)?;
    let told = answer.headers_mut();
    set_header(told, "etag", &quoted_tag(&stored));
    set_header(told, "x-amz-version-id", &stored.id().to_string());
    if let Some(checksum) = outcome.checksum() {
        tell_checksum(told, &KeptChecksum::of_whole(&checksum));
    }
    told_encryption(&stored.encryption, key.as_ref(), told);
    Ok(answer)
}

/// The conditions in the headers whose names begin with `prefix`. Dates that cannot be read are
/// passed over, as HTTP wants it.
pub(crate) fn conditions(headers: &HeaderMap, prefix: &str) -> Result<Conditions, S3Refusal> {
    let named = |name: &str| text(headers, &format!("{prefix}{name}"));
    let date = |name: &str| Ok::<_, S3Refusal>(named(name)?.and_then(Millis::from_http_date));
    Ok(Conditions {
        if_match: named("if-match")?.map(tags),
        if_none_match: named("if-none-match")?.map(tags),
        modified_since: date("if-modified-since")?,
        unmodified_since: date("if-unmodified-since")?,
    })
}

pub(crate) fn precondition_failed() -> S3Refusal {
    s3_refuse(
        412,
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
    )
}

/// Names of query parameters that set headers of the answer, with those of the Native API.
const RESPONSE_OVERRIDES: [(&str, &str); 6] = [
    ("response-cache-control", "b2CacheControl"),
    ("response-content-disposition", "b2ContentDisposition"),
    ("response-content-encoding", "b2ContentEncoding"),
    ("response-content-language", "b2ContentLanguage"),
    ("response-content-type", "b2ContentType"),
    ("response-expires", "b2Expires"),
];

fn overrides(call: &Call) -> Result<Overrides, S3Refusal> {
    let mut found = Overrides::new();
    for (parameter, native) in RESPONSE_OVERRIDES {
        if let Some(value) = call.query.get(parameter) {
            found.insert(native.to_owned(), value.to_owned());
        }
    }
    if !found.is_empty() && call.signed.caller.is_none() {
        return Err(invalid_request(
            "Request specific response headers cannot be used for anonymous GET requests.",
        ));
    }
    Ok(found)
}

/// Finds the file that a call is about; tells of a hide marker what S3 tells.
pub(crate) fn found_file(
    call: &Call,
    bucket: &str,
    key: &str,
    version_id: Option<&str>,
) -> Result<FoundFile, S3Error> {
    let found = find_file(call.app(), call.signed.caller.as_ref(), bucket, key, version_id)
        .map_err(|error| absent(error.into(), version_id))?;
    match found {
        Found::File(file) => Ok(*file),
        Found::Marker(marker) => {
            let refusal = match version_id {
                None => no_such_key(),
                Some(_) => method_not_allowed().header("Allow", "DELETE"),
            };
            Err(refusal
                .header("x-amz-delete-marker", "true")
                .header("x-amz-version-id", marker.id().to_string())
                .header("Last-Modified", marker.upload_at.http_date())
                .into())
        }
    }
}

/// Says of a version that is not there that it is the version.
pub(crate) fn absent(error: S3Error, version_id: Option<&str>) -> S3Error {
    match version_id {
        Some(_) => error.instead_of(Code::NotFound, no_such_version),
        None => error,
    }
}

/// The bytes that a call asks for, and of how many parts they are one.
fn wanted(call: &Call, file: &FoundFile) -> Result<(Wanted, Option<u32>), S3Error> {
    let range = text(&call.headers, RANGE.as_str())?;
    let Some(number) = call.query.number("partNumber")? else {
        return Ok((Wanted::parse(range), None));
    };
    if range.is_some() {
        return Err(invalid_request(
            "Cannot specify both Range header and partNumber query parameter",
        )
        .into());
    }
    if !(1..=10_000).contains(&number) {
        return Err(invalid_argument("Part number must be an integer between 1 and 10000").into());
    }
    let part = file.part(call.app(), u32::try_from(number).unwrap_or(u32::MAX))?;
    let ByteRange { start, end } = part.ok_or_else(|| {
        s3_refuse(416, "InvalidPartNumber", "The requested partnumber is not satisfiable")
    })?;
    let wanted = match end.checked_sub(1) {
        Some(last) if end > start => Wanted::From { first: start, last: Some(last) },
        _ => Wanted::Whole,
    };
    Ok((wanted, file.version.parts.map(|parts| parts.count)))
}

pub(crate) async fn get(call: Call) -> Reply {
    let headers = &call.headers;
    let version_id = call.query.get("versionId");
    let overrides = overrides(&call)?;
    let key = customer_key(headers)?;
    let conditions = conditions(headers, "")?;
    let file = found_file(&call, call.bucket_name(), call.key(), version_id)?;
    let (tag, modified) = (quoted_tag(&file.version), file.version.upload_at);
    let size = file.version.size;
    file.check_key(key.as_ref())?;
    match conditions.judge(file.version.etag().as_deref(), modified) {
        Verdict::GoOn => {}
        Verdict::Failed => return Err(precondition_failed().into()),
        Verdict::NotModified => {
            let mut refusal = s3_refuse(304, "NotModified", "Not Modified")
                .header("ETag", tag)
                .header("Last-Modified", modified.http_date())
                .header("x-amz-version-id", file.version.id().to_string());
            for (header, value) in file.caching(&overrides) {
                refusal = refusal.header(header, value);
            }
            return Err(refusal.into());
        }
    }
    let (range, parts) = wanted(&call, &file)?;
    // Of a part of the content it would be another one.
    let tells_checksum = range == Wanted::Whole
        && call.query.get("partNumber").is_none()
        && text(headers, "x-amz-checksum-mode")?
            .is_some_and(|mode| mode.eq_ignore_ascii_case("enabled"));
    let checksum = if tells_checksum { file.checksum(call.app())? } else { None };
    let if_range = if_range(headers).filter(|_| call.query.get("partNumber").is_none());
    let query = DownloadQuery { range, if_range, overrides, by_a_page: false, key };
    let download = file.download(call.app(), query).map_err(|error| {
        S3Error::from(error).instead_of(Code::RangeNotSatisfiable, || {
            s3_refuse(416, "InvalidRange", "The requested range is not satisfiable")
                .header("Content-Range", format!("bytes */{size}"))
        })
    })?;
    let is_head = call.request.method() == Method::HEAD;
    let mut answer = with_content(&call.http, &download, is_head, call.id).await?;
    write_headers(answer.headers_mut(), &download);
    if let Some(checksum) = checksum {
        tell_checksum(answer.headers_mut(), &checksum);
    }
    if let Some(parts) = parts {
        set_header(answer.headers_mut(), "x-amz-mp-parts-count", &parts.to_string());
    }
    Ok(answer)
}

/// The headers that tell what the checksum of a file is.
pub(crate) fn tell_checksum(told: &mut HeaderMap, checksum: &KeptChecksum) {
    if let Some(value) = &checksum.value {
        set_header(told, checksum.algorithm.header(), value);
        set_header(told, "x-amz-checksum-type", checksum.kind.as_str());
    }
}

/// The headers that tell what a lock is, as far as the reader may see it.
fn tell_lock(told: &mut HeaderMap, lock: FileLock, shown: LockShown) {
    if let Some(retention) = lock.retention.filter(|_| shown.retention) {
        set_header(told, "x-amz-object-lock-mode", shown_mode(retention.mode));
        set_header(told, "x-amz-object-lock-retain-until-date", &retention.until.readable());
    }
    if let Some(hold) = lock.legal_hold.filter(|_| shown.legal_hold) {
        set_header(told, "x-amz-object-lock-legal-hold", if hold { "ON" } else { "OFF" });
    }
}

fn write_headers(told: &mut HeaderMap, download: &Download) {
    let version = &download.version;
    set_header(told, ACCEPT_RANGES.as_str(), "bytes");
    set_header(told, CONTENT_TYPE.as_str(), &version.content_type);
    set_header(told, ETAG.as_str(), &quoted_tag(version));
    set_header(told, LAST_MODIFIED.as_str(), &version.upload_at.http_date());
    set_header(told, "x-amz-version-id", &version.id().to_string());
    if download.is_partial {
        let range = download.range;
        let last = range.end.saturating_sub(1);
        let text = format!("bytes {}-{last}/{}", range.start, version.size);
        set_header(told, CONTENT_RANGE.as_str(), &text);
    }
    told_encryption(&version.encryption, download.key.as_ref(), told);
    if let Some(status) = version.replication {
        set_header(told, "x-amz-replication-status", status.as_header());
    }
    if let Some(value) = &download.cache_control {
        set_header(told, CACHE_CONTROL.as_str(), value);
    }
    for (name, value) in version.info.entries() {
        match HEADER_INFOS.iter().find(|(info, _)| *info == name) {
            Some((_, header)) => set_header(told, header, &value),
            None => set_header(told, &format!("x-amz-meta-{name}"), &shown_metadata(&value)),
        }
    }
    if let Some(shown) = download.lock_shown {
        tell_lock(told, version.lock, shown);
    }
    for (parameter, header) in OVERRIDES {
        if let Some(value) = download.overrides.get(parameter) {
            set_header(told, header, value);
        }
    }
    if download.differs_by_origin {
        vary_by_origin(told);
    }
}

/// What became of one key that was to be deleted.
struct Deleted {
    /// The version that went, or the marker that was put.
    version_id: String,
    is_marker: bool,
}

/// Deletes a version, or hides a name when none is named. A version that is not there is gone
/// already.
async fn delete_one(
    call: &Call,
    bucket: BucketId,
    key: &str,
    version_id: Option<&str>,
    bypass: bool,
) -> Result<Deleted, S3Error> {
    let (app, caller) = (call.app(), call.caller()?);
    let Some(id) = version_id else {
        let name = name_of_key(key)?;
        let marker = files::put_marker(app, caller, bucket, name, Over::Anything).await?;
        return Ok(Deleted { version_id: marker.id().to_string(), is_marker: true });
    };
    let gone = || Deleted { version_id: id.to_owned(), is_marker: false };
    let claimed = ClaimedFileId::parse(id)
        .ok_or_else(|| S3Error::from(invalid_argument("Invalid version id specified")))?;
    if claimed.bucket != bucket {
        caller.require_bucket(Capability::DeleteFiles, bucket)?;
        return Ok(gone());
    }
    // An upload that is not finished is no version here.
    match files::delete_finished_version(app, caller, key, id, bypass).await.map_err(S3Error::from)
    {
        Ok(action) => Ok(Deleted { is_marker: action == Action::Hide, ..gone() }),
        Err(error) if error.is(Code::FileNotPresent) => Ok(gone()),
        Err(error) => Err(error),
    }
}

pub(crate) async fn delete(call: Call) -> Reply {
    refuse_conditions(&call.headers)?;
    let version_id = call.query.get("versionId");
    let needed =
        if version_id.is_some() { Capability::DeleteFiles } else { Capability::WriteFiles };
    let bucket = call.bucket_for(needed)?;
    let bypass = bypass(&call.headers)?;
    let deleted = delete_one(&call, bucket.id, call.key(), version_id, bypass).await?;
    let mut answer = empty(StatusCode::NO_CONTENT);
    let told = answer.headers_mut();
    set_header(told, "x-amz-version-id", &deleted.version_id);
    if deleted.is_marker {
        set_header(told, "x-amz-delete-marker", "true");
    }
    Ok(answer)
}

/// Keys that one call may delete (documented).
const KEYS_MAX: usize = 1000;
/// Deletions under way at a time, so that they share commits.
const DELETED_AT_ONCE: usize = 32;

/// One of many things to be deleted.
struct Doomed {
    key: String,
    id: Option<String>,
    /// It is to go only if it is as the client knows it.
    has_condition: bool,
}

fn doomed(object: &Element) -> Result<Doomed, S3Refusal> {
    let conditions = ["ETag", "LastModifiedTime", "Size"];
    let id = object.opt_text("VersionId")?.filter(|id| !id.is_empty());
    Ok(Doomed {
        key: object.one("Key")?.raw_text().to_owned(),
        id: id.map(str::to_owned),
        has_condition: conditions.iter().any(|name| object.all(name).next().is_some()),
    })
}

pub(crate) async fn delete_many(mut call: Call) -> Reply {
    // Whoever deletes a thousand things must say what the list of them is.
    if !chunked::brings_digest(&call.headers) {
        return Err(invalid_request(
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
        )
        .into());
    }
    let bypass = bypass(&call.headers)?;
    let caller = call.caller()?;
    let one = if caller.may(Capability::WriteFiles) {
        Capability::WriteFiles
    } else {
        Capability::DeleteFiles
    };
    let bucket = call.bucket_for(one)?;
    let document = call.document_of("Delete", KEYS_XML_BYTES_MAX).await?;
    let is_quiet = document.opt_text("Quiet")? == Some("true");
    let wanted: Vec<Doomed> = document.all("Object").map(doomed).collect::<Result<_, _>>()?;
    drop(document);
    if wanted.is_empty() || wanted.len() > KEYS_MAX {
        return Err(malformed_xml().into());
    }
    let id_of_bucket = bucket.id;
    let deletions = wanted.iter().map(|Doomed { key, id, has_condition }| {
        let call = &call;
        async move {
            if *has_condition {
                return Err(not_implemented().into());
            }
            delete_one(call, id_of_bucket, key, id.as_deref(), bypass).await
        }
    });
    let outcomes: Vec<_> = stream::iter(deletions).buffered(DELETED_AT_ONCE).collect().await;
    let mut xml = Writer::new("DeleteResult");
    for (Doomed { key, id, .. }, outcome) in wanted.iter().zip(outcomes) {
        match outcome {
            Ok(_) if is_quiet => {}
            Ok(deleted) => {
                xml.begin("Deleted");
                xml.text("Key", key);
                xml.opt_text("VersionId", id.as_deref());
                if deleted.is_marker {
                    xml.truth("DeleteMarker", true);
                    xml.text("DeleteMarkerVersionId", &deleted.version_id);
                }
                xml.end();
            }
            Err(error) => write_failure(&mut xml, key, id.as_deref(), &error),
        }
    }
    Ok(xml_answer(xml))
}

fn write_failure(xml: &mut Writer, key: &str, id: Option<&str>, error: &S3Error) {
    let told = error.outward();
    xml.begin("Error");
    xml.text("Key", key);
    xml.opt_text("VersionId", id);
    xml.text("Code", told.code);
    xml.text("Message", &told.message);
    xml.end();
}
