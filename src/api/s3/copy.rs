//! Copies on the server: of objects, and of stretches of them into parts. Source and destination
//! are each authorised for themselves.

use crate::api::s3::error::{S3Error, S3Refusal, invalid_argument, invalid_request, s3_refuse};
use crate::api::s3::headers::{
    about, check_acl, check_storage_class, customer_key, encryption, lock, set_header, source_key,
    text, told_encryption,
};
use crate::api::s3::listing::quoted_tag;
use crate::api::s3::multipart::{
    not_an_upload, part_encryption, part_number, upload_id, upload_of,
};
use crate::api::s3::objects::{conditions, found_file, only_if, precondition_failed};
use crate::api::s3::place::decode;
use crate::api::s3::xml::Writer;
use crate::api::s3::{Call, Reply, xml_answer};
use crate::domain::capability::Capability;
use crate::domain::conditions::Verdict;
use crate::domain::encryption::AskedEncryption;
use crate::domain::file::FileVersion;
use crate::domain::range::Wanted;
use crate::domain::refusal::Code;
use crate::operations::authorize::bucket_of_name;
use crate::operations::copy::{self, Metadata, NewCopy, Source};
use crate::operations::upload::OnlyIf;

/// A source as its header names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    bucket: String,
    key: String,
    version_id: Option<String>,
}

/// Reads `[/]bucket/key[?versionId=id]`, percent-encoded.
fn read_source(header: &str) -> Result<Named, S3Refusal> {
    let wrong = || {
        invalid_argument(
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
        )
    };
    let (path, version_id) = match header.split_once("?versionId=") {
        Some((path, id)) => (path, Some(id)),
        None => (header, None),
    };
    let path = path.strip_prefix('/').unwrap_or(path);
    // Some clients encode the slash between the two as well.
    let decoded = decode(path).map_err(|_| wrong())?;
    let (bucket, key) = decoded.split_once('/').ok_or_else(wrong)?;
    if bucket.is_empty() || key.is_empty() {
        return Err(wrong());
    }
    let version_id = version_id.map(decode).transpose().map_err(|_| wrong())?;
    Ok(Named { bucket: bucket.to_owned(), key: key.to_owned(), version_id })
}

/// Finds the source of a copy for a caller who may read it, and settles its conditions.
fn source(call: &Call) -> Result<(Named, FileVersion), S3Error> {
    let headers = &call.headers;
    let header = text(headers, "x-amz-copy-source")?.unwrap_or_default();
    let named = read_source(header)?;
    let caller = call.caller()?;
    if let Some(expected) = text(headers, "x-amz-source-expected-bucket-owner")?
        && expected != caller.account().to_string()
    {
        return Err(s3_refuse(403, "AccessDenied", "Access Denied").into());
    }
    let owned = crate::operations::buckets::owner_of_name(call.app(), &named.bucket)?;
    if owned != Some(caller.account()) {
        // Files of others are not copied, public or not; this says why.
        bucket_of_name(call.app(), caller, Capability::ReadFiles, &named.bucket)?;
    }
    let id = named.version_id.as_deref();
    let file = found_file(call, &named.bucket, &named.key, id).map_err(|error| {
        if error.outward().code == "MethodNotAllowed" {
            invalid_request("The source of a copy request may not specifically refer to a delete marker by version id.").into()
        } else {
            error
        }
    })?;
    let conditions = conditions(headers, "x-amz-copy-source-")?;
    let (tag, modified) = (file.version.etag(), file.version.upload_at);
    match conditions.judge(tag.as_deref(), modified) {
        Verdict::GoOn => Ok((named, file.version)),
        Verdict::Failed | Verdict::NotModified => Err(precondition_failed().into()),
    }
}

/// The headers that every copy answers with.
fn tell(
    answer: &mut actix_web::HttpResponse,
    call: &Call,
    source: &FileVersion,
    made: &FileVersion,
) -> Result<(), S3Error> {
    let key = customer_key(&call.headers)?;
    let told = answer.headers_mut();
    set_header(told, "x-amz-copy-source-version-id", &source.id().to_string());
    told_encryption(&made.encryption, key.as_ref(), told);
    Ok(())
}

pub(crate) async fn copy_object(call: Call) -> Reply {
    let headers = &call.headers;
    if only_if(&call)? != OnlyIf::Anyway {
        return Err(crate::api::s3::error::not_implemented().into());
    }
    let (name, bucket) = (call.name()?, call.bucket()?);
    if !call.caller()?.key.reaches_name(name.as_str()) {
        return Err(crate::api::s3::error::not_entitled().into());
    }
    check_acl(headers, &bucket)?;
    check_storage_class(headers)?;
    let replaces = match text(headers, "x-amz-metadata-directive")? {
        None | Some("COPY") => false,
        Some("REPLACE") => true,
        Some(_) => return Err(invalid_argument("Unknown metadata directive.").into()),
    };
    let (lock, encryption) = (lock(headers)?, encryption(headers)?);
    let (named, source) = source(&call)?;
    let onto_itself = source.bucket == bucket.id && named.key == call.key();
    let same = !replaces && encryption == AskedEncryption::Default && named.version_id.is_none();
    if onto_itself && same && lock.is_empty() {
        return Err(invalid_request(
            "This copy request is illegal because it is trying to copy an object to itself without \
             changing the object's metadata, storage class, website redirect location or encryption \
             attributes.",
        )
        .into());
    }
    let metadata = if replaces {
        let about = about(headers, &name)?;
        Metadata::Replace { content_type: about.content_type, info: about.info }
    } else {
        Metadata::Copy
    };
    let key = source_key(headers)?;
    let wanted = NewCopy {
        source: Source { file_id: source.id().to_string(), range: None, key },
        name,
        bucket: Some(bucket.id.to_string()),
        metadata,
        lock,
        encryption,
    };
    let made = copy::copy_file(call.app(), call.caller()?, wanted).await?;
    let mut xml = Writer::new("CopyObjectResult");
    xml.text("LastModified", &made.upload_at.readable());
    xml.text("ETag", &quoted_tag(&made));
    let mut answer = xml_answer(xml);
    tell(&mut answer, &call, &source, &made)?;
    set_header(answer.headers_mut(), "x-amz-version-id", &made.id().to_string());
    Ok(answer)
}

/// The stretch of the source that becomes a part: `bytes=first-last`, inside of it.
fn range(call: &Call, source: &FileVersion) -> Result<Option<String>, S3Error> {
    let Some(header) = text(&call.headers, "x-amz-copy-source-range")? else {
        return Ok(None);
    };
    let wrong = || {
        invalid_argument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and \
             last are the zero-based offsets of the first and last bytes to copy",
        )
    };
    let Wanted::From { last: Some(last), .. } = Wanted::parse(Some(header)) else {
        return Err(wrong().into());
    };
    if last >= source.size {
        let size = source.size;
        return Err(s3_refuse(
            416,
            "InvalidRange",
            format!("Range specified is not valid for source object of size: {size}"),
        )
        .into());
    }
    Ok(Some(header.to_owned()))
}

pub(crate) async fn copy_part(call: Call) -> Reply {
    let number = part_number(&call)?;
    let asked = part_encryption(&call)?;
    let upload = upload_of(&call, Capability::WriteFiles)?;
    let (_, source) = source(&call)?;
    let range = range(&call, &source)?;
    let key = source_key(&call.headers)?;
    let from = Source { file_id: source.id().to_string(), range, key };
    let id = upload_id(&call);
    let made = copy::copy_part(call.app(), call.caller()?, from, id, number, asked).await;
    let (_, part) = made.map_err(|error| {
        let error = not_an_upload(error);
        if error.is(Code::BadRequest) && source.size == 0 {
            return invalid_request("The source of a part must have at least one byte").into();
        }
        error
    })?;
    let mut xml = Writer::new("CopyPartResult");
    xml.text("LastModified", &part.uploaded_at.readable());
    xml.text("ETag", &format!("\"{}\"", part.md5));
    let mut answer = xml_answer(xml);
    tell(&mut answer, &call, &source, &upload.version)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_101_sources_are_read_as_clients_write_them() {
        let read = |header: &str| {
            read_source(header)
                .map(|named| (named.bucket, named.key, named.version_id))
                .map_err(|refusal| refusal.status)
        };
        let named = |key: &str, id: Option<&str>| {
            Ok(("bucket".to_owned(), key.to_owned(), id.map(str::to_owned)))
        };
        assert_eq!(read("bucket/key"), named("key", None));
        assert_eq!(read("/bucket/a/b%20c+d%2B"), named("a/b c+d+", None));
        assert_eq!(read("bucket%2Fkey"), named("key", None));
        assert_eq!(read("bucket/%C3%A9?versionId=4_z"), named("\u{e9}", Some("4_z")));
        assert_eq!(read("bucket/what%3FversionId%3Dx"), named("what?versionId=x", None));
        assert_eq!(read("bucket/../x"), named("../x", None));
        for wrong in ["", "/", "bucket", "bucket/", "//key", "bucket/%zz"] {
            assert_eq!(read(wrong), Err(400), "{wrong}");
        }
    }
}
