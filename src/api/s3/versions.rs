//! Calls about one version of an object: its lock, its ACL, what is known of it.

use actix_web::http::StatusCode;

use crate::api::s3::buckets::acl_of;
use crate::api::s3::error::{
    S3Error, S3Refusal, invalid_argument, invalid_request, malformed_xml, s3_refuse,
};
use crate::api::s3::headers::{bucket_type, bypass, hold, retention_of, set_header, shown_mode};
use crate::api::s3::objects::{absent, found_file};
use crate::api::s3::xml::{Element, Writer};
use crate::api::s3::{Call, Reply, empty, xml_answer};
use crate::domain::bucket::BucketType;
use crate::domain::checksum::KeptChecksum;
use crate::domain::file::{Action, FileVersion};
use crate::operations::authorize::bucket_of_name;
use crate::operations::files::find_named;
use crate::operations::locks::{self, Target};

/// The version that the call is about, for a caller with the right of the operation.
fn version(call: &Call) -> Result<FileVersion, S3Error> {
    let Some(capability) = call.operation.capability else { return Err(malformed_xml().into()) };
    let bucket = call.bucket()?;
    let id = call.query.get("versionId");
    let found = find_named(call.app(), call.caller()?, capability, &bucket, call.key(), id);
    let found = found.map_err(|error| absent(error.into(), id))?;
    if found.action == Action::Upload {
        return Ok(found);
    }
    let refusal = match id {
        None => crate::api::s3::error::no_such_key(),
        Some(_) => crate::api::s3::error::method_not_allowed(),
    };
    Err(refusal.header("x-amz-delete-marker", "true").into())
}

/// Refuses to look for locks where there are none.
fn check_locks(call: &Call) -> Result<(), S3Error> {
    if call.bucket()?.settings.file_lock.is_file_lock_enabled {
        Ok(())
    } else {
        Err(invalid_request("Bucket is missing Object Lock Configuration").into())
    }
}

fn no_lock_configuration() -> S3Error {
    s3_refuse(
        404,
        "NoSuchObjectLockConfiguration",
        "The specified object does not have a ObjectLock configuration",
    )
    .into()
}

fn target(call: &Call, version: &FileVersion) -> Target {
    Target { file_name: call.key().to_owned(), file_id: version.id().to_string() }
}

pub(crate) async fn retention(call: Call) -> Reply {
    check_locks(&call)?;
    let retention = version(&call)?.lock.retention.ok_or_else(no_lock_configuration)?;
    let mut xml = Writer::new("Retention");
    xml.text("Mode", shown_mode(retention.mode));
    xml.text("RetainUntilDate", &retention.until.readable());
    Ok(xml_answer(xml))
}

pub(crate) async fn set_retention(mut call: Call) -> Reply {
    check_locks(&call)?;
    let bypass = bypass(&call.headers)?;
    let document = call.document("Retention").await?;
    document.only(&["Mode", "RetainUntilDate"])?;
    let wanted = match (document.opt_text("Mode")?, document.opt_text("RetainUntilDate")?) {
        (None, None) => None,
        (Some(mode), Some(until)) => Some(retention_of(mode, until)?),
        _ => return Err(malformed_xml().into()),
    };
    let target = target(&call, &version(&call)?);
    locks::update_retention(call.app(), call.caller()?, target, wanted, bypass).await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn legal_hold(call: Call) -> Reply {
    check_locks(&call)?;
    let hold = version(&call)?.lock.legal_hold.ok_or_else(no_lock_configuration)?;
    let mut xml = Writer::new("LegalHold");
    xml.text("Status", if hold { "ON" } else { "OFF" });
    Ok(xml_answer(xml))
}

pub(crate) async fn set_legal_hold(mut call: Call) -> Reply {
    check_locks(&call)?;
    let document = call.document("LegalHold").await?;
    document.only(&["Status"])?;
    let wanted = hold(document.one("Status")?.text()).ok_or_else(malformed_xml)?;
    let target = target(&call, &version(&call)?);
    locks::update_legal_hold(call.app(), call.caller()?, target, wanted).await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn acl(call: Call) -> Reply {
    version(&call)?;
    let bucket = call.bucket()?;
    Ok(xml_answer(acl_of(bucket.account, bucket.kind)))
}

/// The ACL that a document grants, when it is one of the two that there are. Clients that copy send
/// back what they read.
fn granted(policy: &Element) -> Result<BucketType, S3Refusal> {
    let unsupported = || invalid_argument("The ACL of an object must be that of its bucket");
    let list = policy.one("AccessControlList")?;
    let mut kind = BucketType::AllPrivate;
    for grant in list.all("Grant") {
        let to_all = grant.one("Grantee")?.opt_text("URI")?;
        match (to_all, grant.one("Permission")?.text()) {
            (None, "FULL_CONTROL") => {}
            (Some("http://acs.amazonaws.com/groups/global/AllUsers"), "READ") => {
                kind = BucketType::AllPublic;
            }
            _ => return Err(unsupported()),
        }
    }
    Ok(kind)
}

/// An object has the ACL of its bucket; asking for that changes nothing.
pub(crate) async fn set_acl(mut call: Call) -> Reply {
    let found = version(&call)?;
    let body = call.small_body(super::XML_BYTES_MAX).await?;
    let has_body = !body.iter().all(u8::is_ascii_whitespace);
    let wanted = match call.header("x-amz-acl")? {
        Some(acl) if !has_body => bucket_type(acl)?,
        None if has_body => granted(&Element::parse(&body, &["AccessControlPolicy"])?)?,
        _ => return Err(invalid_argument("The ACL is in the header or in the body").into()),
    };
    if wanted != call.bucket()?.kind {
        return Err(invalid_argument("The ACL of an object must be that of its bucket").into());
    }
    let mut answer = empty(StatusCode::OK);
    set_header(answer.headers_mut(), "x-amz-version-id", &found.id().to_string());
    Ok(answer)
}

/// Attributes that can be asked for.
const ATTRIBUTES: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];

/// What is known of an object without its content; an extension.
pub(crate) async fn attributes(call: Call) -> Reply {
    let wanted = call.header("x-amz-object-attributes")?.unwrap_or_default();
    let wanted: Vec<&str> =
        wanted.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
    if wanted.is_empty() || wanted.iter().any(|one| !ATTRIBUTES.contains(one)) {
        return Err(invalid_argument("Invalid attribute name specified.").into());
    }
    bucket_of_name(
        call.app(),
        call.caller()?,
        crate::domain::capability::Capability::ReadFiles,
        call.bucket_name(),
    )?;
    let file = found_file(&call, call.bucket_name(), call.key(), call.query.get("versionId"))?;
    let version = &file.version;
    let asked = |name: &str| wanted.contains(&name);
    let mut xml = Writer::new("GetObjectAttributesResponse");
    if asked("ETag") {
        xml.text("ETag", &version.etag().unwrap_or_default());
    }
    if asked("Checksum")
        && let Some(KeptChecksum { algorithm, kind, value: Some(value) }) =
            file.checksum(call.app())?
    {
        xml.begin("Checksum");
        xml.text(&format!("Checksum{}", algorithm.as_str()), &value);
        xml.text("ChecksumType", kind.as_str());
        xml.end();
    }
    if let Some(parts) = version.parts.filter(|_| asked("ObjectParts")) {
        xml.begin("ObjectParts");
        xml.number("PartsCount", parts.count);
        xml.end();
    }
    if asked("StorageClass") {
        xml.text("StorageClass", "STANDARD");
    }
    if asked("ObjectSize") {
        xml.number("ObjectSize", version.size);
    }
    let mut answer = xml_answer(xml);
    let told = answer.headers_mut();
    set_header(told, "last-modified", &version.upload_at.http_date());
    set_header(told, "x-amz-version-id", &version.id().to_string());
    Ok(answer)
}
