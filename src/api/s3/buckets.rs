//! Calls about buckets themselves: list, make, look, delete, and who may read them.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use crate::api::s3::error::{
    S3Error, S3Refusal, invalid_argument, malformed_xml, not_implemented, s3_refuse,
};
use crate::api::s3::headers::bucket_type;
use crate::api::s3::xml::{Element, Writer};
use crate::api::s3::{Call, Profile, Reply, empty, xml_answer};
use crate::domain::bucket::BucketType;
use crate::domain::capability::Capability;
use crate::domain::ids::AccountId;
use crate::domain::lock::BucketLockChange;
use crate::domain::names::BucketName;
use crate::domain::refusal::Code;
use crate::operations::buckets::{self, BucketChange, NewBucket, owner_of_name};

/// Writes who owns something; Backblaze shows no names.
pub(crate) fn owner(xml: &mut Writer, element: &'static str, account: AccountId) {
    xml.begin(element);
    xml.text("ID", &account.to_string());
    xml.text("DisplayName", "");
    xml.end();
}

pub(crate) async fn list(call: Call) -> Reply {
    let caller = call.caller()?;
    let mut listed = buckets::list_all(call.app(), caller)?;
    let mut next = None;
    if call.profile() == Profile::Extended {
        if let Some(prefix) = call.query.some("prefix") {
            listed.retain(|bucket| bucket.name.as_str().starts_with(prefix));
        }
        if let Some(after) = call.query.some("continuation-token") {
            listed.retain(|bucket| bucket.name.folded().as_str() > after);
        }
        let max = call
            .query
            .number("max-buckets")?
            .map_or(usize::MAX, |max| usize::try_from(max.max(1)).unwrap_or(usize::MAX));
        if listed.len() > max {
            listed.truncate(max);
            next = listed.last().map(|bucket| bucket.name.folded());
        }
    }
    let mut xml = Writer::new("ListAllMyBucketsResult");
    owner(&mut xml, "Owner", caller.account());
    xml.begin("Buckets");
    for bucket in &listed {
        xml.begin("Bucket");
        xml.text("Name", bucket.name.as_str());
        xml.text("CreationDate", &bucket.created_at.readable());
        xml.end();
    }
    xml.end();
    xml.opt_text("ContinuationToken", next.as_deref());
    Ok(xml_answer(xml))
}

/// Refuses names that S3 has no host names for, besides those that B2 refuses.
fn check_name(name: &str) -> Result<(), S3Refusal> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ends_well = !name.starts_with('-') && !name.ends_with('-');
    if BucketName::parse(name).is_ok() && name.bytes().all(allowed) && ends_well {
        Ok(())
    } else {
        Err(s3_refuse(400, "InvalidBucketName", "The specified bucket is not valid."))
    }
}

/// Refuses to make a bucket anywhere but here.
fn check_location(body: &[u8], region: &str) -> Result<(), S3Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let document = Element::parse(body, &["CreateBucketConfiguration"])?;
    if document.only(&["LocationConstraint"]).is_err() {
        // Tags and directory buckets.
        return Err(not_implemented());
    }
    match document.opt_text("LocationConstraint")? {
        None | Some("") => Ok(()),
        Some(location) if location == region => Ok(()),
        Some(_) => Err(s3_refuse(
            400,
            "InvalidLocationConstraint",
            "The specified location-constraint is not valid",
        )),
    }
}

pub(crate) async fn create(mut call: Call) -> Reply {
    call.caller()?.require(Capability::WriteBuckets)?;
    check_name(call.bucket_name())?;
    let body = call.small_body(super::XML_BYTES_MAX).await?;
    let (caller, name) = (call.caller()?, call.bucket_name());
    let kind = call.header("x-amz-acl")?.map_or(Ok(BucketType::AllPrivate), bucket_type)?;
    let lock = match call.header("x-amz-bucket-object-lock-enabled")? {
        None => None,
        Some(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Some(text) if text.eq_ignore_ascii_case("false") => None,
        Some(_) => {
            return Err(
                invalid_argument("x-amz-bucket-object-lock-enabled must be true or false").into()
            );
        }
    };
    check_location(&body, &call.http.settings.region)?;
    let wanted = NewBucket {
        name: name.to_owned(),
        kind: kind.as_str().to_owned(),
        file_lock: BucketLockChange { enable: lock, ..BucketLockChange::default() },
        ..NewBucket::default()
    };
    let made = buckets::create_bucket(call.app(), caller, wanted).await.map_err(S3Error::from);
    if let Err(error) = made {
        let own = error.is(Code::DuplicateBucketName)
            && owner_of_name(call.app(), name)? == Some(caller.account());
        return Err(if own {
            s3_refuse(
                409,
                "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you already own it.",
            )
            .into()
        } else {
            error
        });
    }
    let location = format!("/{name}");
    Ok(HttpResponse::Ok()
        .insert_header(("Location", location))
        .insert_header(("Content-Length", "0"))
        .finish())
}

pub(crate) async fn delete(call: Call) -> Reply {
    let bucket = call.bucket()?;
    buckets::delete_bucket(call.app(), call.caller()?, &bucket.id.to_string()).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn head(call: Call) -> Reply {
    call.bucket()?;
    let mut answer = HttpResponse::Ok();
    answer.insert_header(("x-amz-bucket-region", call.http.settings.region.as_str()));
    Ok(answer.insert_header(("Content-Length", "0")).finish())
}

pub(crate) async fn location(call: Call) -> Reply {
    call.bucket()?;
    let mut xml = Writer::new("LocationConstraint");
    xml.put(&call.http.settings.region);
    Ok(xml_answer(xml))
}

/// Every bucket keeps versions, always.
pub(crate) async fn versioning(call: Call) -> Reply {
    call.bucket()?;
    let mut xml = Writer::new("VersioningConfiguration");
    xml.text("Status", "Enabled");
    Ok(xml_answer(xml))
}

pub(crate) async fn set_versioning(mut call: Call) -> Reply {
    let bucket = call.bucket()?;
    let document = call.document("VersioningConfiguration").await?;
    document.only(&["Status", "MfaDelete"])?;
    if document.opt_text("MfaDelete")?.is_some_and(|text| text != "Disabled") {
        return Err(not_implemented().into());
    }
    match document.opt_text("Status")? {
        Some("Enabled") => Ok(empty(StatusCode::OK)),
        Some("Suspended") if bucket.settings.file_lock.is_file_lock_enabled => Err(s3_refuse(
            409,
            "InvalidBucketState",
            "An Object Lock configuration is present on this bucket, so the versioning state cannot \
             be changed.",
        )
        .into()),
        Some("Suspended") => Err(not_implemented().into()),
        _ => Err(malformed_xml().into()),
    }
}

/// The policy of a bucket, or of a file in it, which is the same.
pub(crate) fn acl_of(account: AccountId, kind: BucketType) -> Writer {
    const USER: &str = "<Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
                        xsi:type=\"CanonicalUser\">";
    const GROUP: &str = "<Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
                         xsi:type=\"Group\">\
                         <URI>http://acs.amazonaws.com/groups/global/AllUsers</URI></Grantee>";
    let mut xml = Writer::new("AccessControlPolicy");
    owner(&mut xml, "Owner", account);
    xml.begin("AccessControlList");
    xml.begin("Grant");
    xml.raw(USER);
    xml.text("ID", &account.to_string());
    xml.text("DisplayName", "");
    xml.raw("</Grantee>");
    xml.text("Permission", "FULL_CONTROL");
    xml.end();
    if kind == BucketType::AllPublic {
        xml.begin("Grant");
        xml.raw(GROUP);
        xml.text("Permission", "READ");
        xml.end();
    }
    xml
}

pub(crate) async fn acl(call: Call) -> Reply {
    let bucket = call.bucket()?;
    Ok(xml_answer(acl_of(bucket.account, bucket.kind)))
}

pub(crate) async fn set_acl(mut call: Call) -> Reply {
    let bucket = call.bucket()?;
    let body = call.small_body(super::XML_BYTES_MAX).await?;
    let Some(acl) = call.header("x-amz-acl")? else {
        return Err(invalid_argument("The x-amz-acl header is required").into());
    };
    if !body.iter().all(u8::is_ascii_whitespace) {
        return Err(invalid_argument("Grants in the body are not supported: use x-amz-acl").into());
    }
    let kind = Some(bucket_type(acl)?.as_str().to_owned());
    let change = BucketChange { kind, ..BucketChange::default() };
    let caller = call.caller()?;
    buckets::change_bucket(call.app(), caller, bucket.id, Capability::WriteBuckets, change).await?;
    Ok(empty(StatusCode::OK))
}
