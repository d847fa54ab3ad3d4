//! Uploads in parts: the large files of B2 under another name.

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;

use crate::api::s3::buckets::owner;
use crate::api::s3::chunked;
use crate::api::s3::error::{
    S3Error, S3Refusal, invalid_argument, invalid_request, malformed_xml, no_such_upload,
};
use crate::api::s3::headers::{
    about, check_acl, check_storage_class, customer_key, encryption, lock, refuse_conditions,
    set_header, text, told_encryption,
};
use crate::api::s3::listing::quoted_tag;
use crate::api::s3::objects::only_if;
use crate::api::s3::xml::{Element, Writer};
use crate::api::s3::{Call, Reply, empty, xml_answer};
use crate::domain::capability::Capability;
use crate::domain::checksum::{Checksum, ChecksumAlgorithm, ChecksumKind, KeptChecksum};
use crate::domain::encryption::AskedEncryption;
use crate::domain::file::FileVersion;
use crate::domain::large_file::{
    ClaimedWhole, NamedPart, PART_NUMBER_MAX, PartNumber, tag_over_tags,
};
use crate::domain::refusal::Code;
use crate::operations::download::checksum_of;
use crate::operations::files::find_named;
use crate::operations::large_files::{
    self, NamedParts, NewLargeFile, PartTicket, Unfinished, unfinished,
};

/// Elements of a document that names parts at most: ten for each.
const PARTS_ELEMENTS_MAX: usize = 100_000;
/// The header that says how large the file is that the parts make.
const OBJECT_SIZE: &str = "x-amz-mp-object-size";

/// Says of an id that names no upload that it names no upload, whatever else is wrong with it.
pub(crate) fn not_an_upload(error: impl Into<S3Error>) -> S3Error {
    error.into().instead_of(Code::InvalidFileId, no_such_upload)
}

/// The id in the query.
pub(crate) fn upload_id(call: &Call) -> &str {
    call.query.get("uploadId").unwrap_or_default()
}

/// The upload that the call is about; it must be one for this key of this bucket.
pub(crate) fn upload_of(call: &Call, capability: Capability) -> Result<Unfinished, S3Error> {
    let bucket = call.bucket_for(capability)?;
    let caller = call.caller()?;
    if !caller.key.reaches_name(call.key()) {
        return Err(crate::api::s3::error::not_entitled().into());
    }
    let found =
        unfinished(call.app(), caller, upload_id(call), capability).map_err(not_an_upload)?;
    if found.version.bucket == bucket.id && found.version.name.as_str() == call.key() {
        Ok(found)
    } else {
        Err(no_such_upload().into())
    }
}

pub(crate) fn part_number(call: &Call) -> Result<PartNumber, S3Refusal> {
    let number = call.query.get("partNumber").and_then(|text| text.parse().ok());
    number.and_then(PartNumber::new).ok_or_else(|| {
        invalid_argument("Part number must be an integer between 1 and 10000, inclusive")
    })
}

pub(crate) async fn create(call: Call) -> Reply {
    let headers = &call.headers;
    refuse_conditions(headers)?;
    let (name, bucket) = (call.name()?, call.bucket()?);
    check_acl(headers, &bucket)?;
    check_storage_class(headers)?;
    let about = about(headers, &name)?;
    let wanted = NewLargeFile {
        bucket: bucket.id.to_string(),
        content_type: about.content_type,
        info: about.info,
        encryption: encryption(headers)?,
        custom_time: None,
        replica: None,
        lock: lock(headers)?,
        checksum: wanted_checksum(headers)?,
        name,
    };
    let checksum = wanted.checksum.clone();
    let started = large_files::start(call.app(), call.caller()?, wanted).await?;
    let mut xml = Writer::new("InitiateMultipartUploadResult");
    xml.text("Bucket", bucket.name.as_str());
    xml.text("Key", call.key());
    let id = started.id().to_string();
    xml.text("UploadId", &id);
    let mut answer = xml_answer(xml);
    let key = customer_key(headers)?;
    let told = answer.headers_mut();
    set_header(told, "x-amz-version-id", &id);
    if let Some(checksum) = checksum {
        set_header(told, "x-amz-checksum-algorithm", checksum.algorithm.as_str());
        set_header(told, "x-amz-checksum-type", checksum.kind.as_str());
    }
    told_encryption(&started.encryption, key.as_ref(), told);
    Ok(answer)
}

fn checksum_kind(headers: &HeaderMap) -> Result<Option<ChecksumKind>, S3Refusal> {
    let invalid = || invalid_request("Value for x-amz-checksum-type header is invalid.");
    let kind = text(headers, "x-amz-checksum-type")?;
    kind.map(|kind| ChecksumKind::parse(kind).ok_or_else(invalid)).transpose()
}

/// The checksum that the parts are to make.
fn wanted_checksum(headers: &HeaderMap) -> Result<Option<KeptChecksum>, S3Refusal> {
    let kind = checksum_kind(headers)?;
    let Some(algorithm) = text(headers, "x-amz-checksum-algorithm")? else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(invalid_request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm \
                 header.",
            )),
        };
    };
    let algorithm = ChecksumAlgorithm::parse(algorithm).ok_or_else(|| {
        invalid_request(
            "Checksum algorithm provided is unsupported. Please try again with any of \
                         the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        )
    })?;
    KeptChecksum::wanted(algorithm, kind).map(Some).ok_or_else(|| {
        invalid_request("The checksum type cannot be used with this checksum algorithm.")
    })
}

/// The encryption that a part asks for: that of its upload, which only a customer's key must repeat.
pub(crate) fn part_encryption(call: &Call) -> Result<AskedEncryption, S3Refusal> {
    Ok(match customer_key(&call.headers)? {
        Some(key) => AskedEncryption::Customer(key),
        None => AskedEncryption::Default,
    })
}

pub(crate) async fn upload_part(mut call: Call) -> Reply {
    let number = part_number(&call)?;
    let asked = part_encryption(&call)?;
    let upload = upload_of(&call, Capability::WriteFiles)?;
    let content =
        chunked::content(&call.headers, call.payload.clone(), &call.http, &mut call.signed)?;
    if let Some(sent) = content.algorithm
        && let Some(KeptChecksum { algorithm: begun, .. }) =
            checksum_of(call.app(), &upload.version)?
        && begun != sent
    {
        let (begun, sent) = (begun.as_str(), sent.as_str());
        return Err(invalid_request(format!(
            "Checksum Type mismatch occurred, expected checksum Type: {begun}, actual checksum \
             Type: {sent}"
        ))
        .into());
    }
    let ticket = PartTicket::of_caller(upload);
    let (announced, outcome) = (content.announced, content.outcome.clone());
    let body = (content.body, || outcome.checksum());
    let stored =
        large_files::upload_checked_part(call.app(), ticket, number, announced, asked, body).await;
    let (file, part) = stored.map_err(|error| explain(error.into(), &outcome))?;
    let mut answer = empty(StatusCode::OK);
    let key = customer_key(&call.headers)?;
    let told = answer.headers_mut();
    set_header(told, "etag", &format!("\"{}\"", part.md5));
    if let Some(checksum) = outcome.checksum() {
        set_header(told, checksum.algorithm.header(), &checksum.base64());
    }
    told_encryption(&file.encryption, key.as_ref(), told);
    Ok(answer)
}

/// What was wrong with a body is known better by who read it than by who was to store it.
pub(crate) fn explain(error: S3Error, outcome: &chunked::Outcome) -> S3Error {
    outcome.failure().map_or(error, S3Error::from)
}

/// The parts that a client names, in its order.
fn named_parts(document: &Element) -> Result<Vec<NamedPart>, S3Refusal> {
    let mut named = Vec::new();
    for part in document.all("Part") {
        let number = part.one("PartNumber")?.text().parse().map_err(|_| malformed_xml())?;
        let tag = part.one("ETag")?.text().to_owned();
        let mut checksums = Vec::new();
        for &algorithm in ChecksumAlgorithm::ALL {
            let name = format!("Checksum{}", algorithm.as_str());
            let Some(text) = part.opt_text(&name)? else { continue };
            let checksum = Checksum::parse(algorithm, text.as_bytes());
            let invalid = || invalid_request(format!("Value for {name} is invalid."));
            checksums.push(checksum.ok_or_else(invalid)?);
        }
        named.push(NamedPart { number, tag, checksums });
    }
    let max = usize::try_from(PART_NUMBER_MAX).unwrap_or(usize::MAX);
    if named.is_empty() || named.len() > max { Err(malformed_xml()) } else { Ok(named) }
}

fn read_parts(body: &[u8]) -> Result<Vec<NamedPart>, S3Refusal> {
    let document = Element::parse_long(body, &["CompleteMultipartUpload"], PARTS_ELEMENTS_MAX)?;
    named_parts(&document)
}

/// What the headers say of the file that the parts make.
fn claimed_whole(headers: &HeaderMap) -> Result<ClaimedWhole, S3Refusal> {
    let invalid = |name: &str| invalid_request(format!("Value for {name} header is invalid."));
    let mut checksum = None;
    for &algorithm in ChecksumAlgorithm::ALL {
        let name = algorithm.header();
        let Some(value) = text(headers, name)? else { continue };
        let digits = value.split_once('-').map_or(value, |(digits, _)| digits);
        Checksum::parse(algorithm, digits.as_bytes()).ok_or_else(|| invalid(name))?;
        if checksum.replace((algorithm, value.to_owned())).is_some() {
            return Err(invalid_request(
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            ));
        }
    }
    let bytes = text(headers, OBJECT_SIZE)?
        .map(|bytes| bytes.parse().map_err(|_| invalid(OBJECT_SIZE)))
        .transpose()?;
    Ok(ClaimedWhole { bytes, kind: checksum_kind(headers)?, checksum })
}

pub(crate) async fn complete(mut call: Call) -> Reply {
    let only_if = only_if(&call)?;
    let whole = claimed_whole(&call.headers)?;
    call.bucket()?;
    let body = call.unchecked_body().await?;
    let named = read_parts(&body)?;
    drop(body);
    let (app, caller, id) = (call.app(), call.caller()?, upload_id(&call));
    let finished = match upload_of(&call, Capability::WriteFiles) {
        Ok(_) => {
            let by = NamedParts::Chosen { parts: named.clone(), whole, only_if };
            large_files::finish(app, caller, id, by).await.map_err(not_an_upload)
        }
        Err(error) => Err(error),
    };
    let finished = match finished {
        Err(error) if is_no_upload(&error) => finished_before(&call, &named).ok_or(error)?,
        other => other?,
    };
    let bucket = call.bucket()?;
    let mut xml = Writer::new("CompleteMultipartUploadResult");
    xml.text("Location", &format!("/{}/{}", bucket.name.as_str(), call.key()));
    xml.text("Bucket", bucket.name.as_str());
    xml.text("Key", call.key());
    xml.text("ETag", &quoted_tag(&finished));
    let checksum = checksum_of(call.app(), &finished)?;
    if let Some(KeptChecksum { algorithm, kind, value: Some(value) }) = &checksum {
        xml.text(&format!("Checksum{}", algorithm.as_str()), value);
        xml.text("ChecksumType", kind.as_str());
    }
    let mut answer = xml_answer(xml);
    let told = answer.headers_mut();
    set_header(told, "x-amz-version-id", &finished.id().to_string());
    told_encryption(&finished.encryption, None, told);
    Ok(answer)
}

fn is_no_upload(error: &S3Error) -> bool {
    error.outward().code == "NoSuchUpload"
}

/// The file that the same call made before: whoever did not hear the first answer asks again.
fn finished_before(call: &Call, named: &[NamedPart]) -> Option<FileVersion> {
    let bucket = call.bucket().ok()?;
    let caller = call.caller().ok()?;
    let id = Some(upload_id(call));
    let found =
        find_named(call.app(), caller, Capability::WriteFiles, &bucket, call.key(), id).ok()?;
    let tag = tag_over_tags(named.iter().map(|part| part.tag.as_str()))?;
    (found.etag()? == tag).then_some(found)
}

pub(crate) async fn abort(call: Call) -> Reply {
    upload_of(&call, Capability::WriteFiles)?;
    let canceled = large_files::cancel(call.app(), call.caller()?, upload_id(&call)).await;
    canceled.map_err(not_an_upload)?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Parts in one answer at most (documented).
const PARTS_PAGE_MAX: i64 = 1000;

pub(crate) async fn list_parts(call: Call) -> Reply {
    let caller = call.caller()?;
    let capability = if caller.may(Capability::WriteFiles) {
        Capability::WriteFiles
    } else {
        Capability::ListFiles
    };
    let max = call.query.number("max-parts")?.unwrap_or(PARTS_PAGE_MAX).min(PARTS_PAGE_MAX);
    let marker = call.query.number("part-number-marker")?.unwrap_or(0);
    let upload = upload_of(&call, capability)?;
    let from = marker.saturating_add(1);
    let page = if max == 0 || from > PART_NUMBER_MAX {
        None
    } else {
        let asked = (Some(from), Some(max));
        let page = large_files::list_parts(call.app(), caller, upload_id(&call), asked.0, asked.1);
        Some(page.map_err(not_an_upload)?)
    };
    let bucket = call.bucket_for(capability)?;
    let (parts, next) = page.map_or((Vec::new(), None), |page| (page.parts, page.next));
    let mut xml = Writer::new("ListPartsResult");
    xml.text("Bucket", bucket.name.as_str());
    xml.text("Key", upload.version.name.as_str());
    xml.text("UploadId", upload_id(&call));
    owner(&mut xml, "Initiator", bucket.account);
    owner(&mut xml, "Owner", bucket.account);
    xml.text("StorageClass", "STANDARD");
    xml.text("PartNumberMarker", &marker.to_string());
    let last = parts.last().map_or(0, |part| part.number.get());
    xml.text("NextPartNumberMarker", &last.to_string());
    xml.text("MaxParts", &max.to_string());
    xml.truth("IsTruncated", next.is_some());
    for part in &parts {
        xml.begin("Part");
        xml.text("PartNumber", &part.number.get().to_string());
        xml.text("LastModified", &part.uploaded_at.readable());
        xml.text("ETag", &format!("\"{}\"", part.md5));
        xml.number("Size", part.size);
        if let Some(checksum) = &part.checksum {
            xml.text(&format!("Checksum{}", checksum.algorithm.as_str()), &checksum.base64());
        }
        xml.end();
    }
    Ok(xml_answer(xml))
}
