//! Listings: of objects in both versions, of versions, of unfinished uploads.

use crate::api::s3::buckets::owner;
use crate::api::s3::error::{S3Error, S3Refusal, invalid_argument};
use crate::api::s3::xml::Writer;
use crate::api::s3::{Call, Reply, xml_answer};
use crate::domain::bucket::Bucket;
use crate::domain::digest::md5_of;
use crate::domain::file::{Action, FileVersion};
use crate::domain::percent::encode_for_listing;
use crate::operations::list::{self, Entry, ListQuery, Page, behind};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Entries of a page at most (documented).
const PAGE_MAX: i64 = 1000;
/// Bytes of the check inside a continuation token.
const TOKEN_CHECK_BYTES: usize = 8;

/// What every listing is asked for.
struct Asked {
    prefix: String,
    delimiter: Option<String>,
    max: i64,
    encodes: bool,
}

impl Asked {
    fn of(call: &Call, max_name: &str) -> Result<Self, S3Refusal> {
        let encodes = match call.query.get("encoding-type") {
            None => false,
            Some("url") => true,
            Some(_) => {
                return Err(invalid_argument("Invalid Encoding Method specified in Request"));
            }
        };
        Ok(Self {
            prefix: call.query.get("prefix").unwrap_or_default().to_owned(),
            delimiter: call.query.some("delimiter").map(str::to_owned),
            max: call.query.number(max_name)?.unwrap_or(PAGE_MAX).min(PAGE_MAX),
            encodes,
        })
    }

    fn query(&self, bucket: &Bucket) -> ListQuery {
        ListQuery {
            bucket: bucket.id.to_string(),
            // Of nothing too, the caller must have the right to see more.
            max_count: Some(self.max.max(1)),
            prefix: self.prefix.clone(),
            delimiter: self.delimiter.clone(),
            as_s3: true,
            ..ListQuery::default()
        }
    }

    fn text(&self, text: &str) -> String {
        if self.encodes { encode_for_listing(text) } else { text.to_owned() }
    }

    /// Leaves nothing of a page that was asked for to be empty.
    fn cut(&self, page: Page) -> Page {
        if self.max == 0 { Page::default() } else { page }
    }

    fn folders(&self, xml: &mut Writer, page: &Page) {
        for entry in &page.entries {
            if let Entry::Folder(folder) = entry {
                xml.begin("CommonPrefixes");
                xml.text("Prefix", &self.text(folder));
                xml.end();
            }
        }
    }

    fn head(&self, xml: &mut Writer, bucket: &Bucket) {
        xml.text("Name", bucket.name.as_str());
        xml.text("Prefix", &self.text(&self.prefix));
    }

    fn tail(&self, xml: &mut Writer, max_name: &str) {
        xml.text(max_name, &self.max.to_string());
        let delimiter = self.delimiter.as_deref().map(|delimiter| self.text(delimiter));
        xml.opt_text("Delimiter", delimiter.as_deref());
        if self.encodes {
            xml.text("EncodingType", "url");
        }
    }
}

/// The tag of a file as S3 writes it.
pub(crate) fn quoted_tag(version: &FileVersion) -> String {
    format!("\"{}\"", version.etag().unwrap_or_default())
}

/// What the last entry of a page is called, for listings that go on behind it.
fn last_of(page: &Page) -> Option<(&str, Option<String>)> {
    if let Some((name, id)) = &page.ended_behind {
        return Some((name, Some(id.to_string())));
    }
    page.entries.last().map(|entry| match entry {
        Entry::File(version) => (version.name.as_str(), Some(version.id().to_string())),
        Entry::Folder(folder) => (folder.as_str(), None),
    })
}

fn content(xml: &mut Writer, asked: &Asked, version: &FileVersion, owned_by: Option<&Bucket>) {
    xml.begin("Contents");
    xml.text("Key", &asked.text(version.name.as_str()));
    xml.text("LastModified", &version.upload_at.readable());
    xml.text("ETag", &quoted_tag(version));
    xml.number("Size", version.size);
    if let Some(bucket) = owned_by {
        owner(xml, "Owner", bucket.account);
    }
    xml.text("StorageClass", "STANDARD");
    xml.end();
}

pub(crate) async fn objects(call: Call) -> Reply {
    let asked = Asked::of(&call, "max-keys")?;
    // The documentation of Backblaze calls it key-marker, and clients send marker.
    let marker = call.query.some("marker").or_else(|| call.query.some("key-marker"));
    let bucket = call.bucket()?;
    let mut query = asked.query(&bucket);
    query.start_name =
        marker.map(|marker| behind(marker, &asked.prefix, asked.delimiter.as_deref()));
    let page = asked.cut(list::list_names(call.app(), call.caller()?, query).await?);
    let mut xml = Writer::new("ListBucketResult");
    asked.head(&mut xml, &bucket);
    xml.text("Marker", &asked.text(marker.unwrap_or_default()));
    let truncated = page.next_name.is_some();
    if let Some((last, _)) = last_of(&page).filter(|_| truncated) {
        xml.text("NextMarker", &asked.text(last));
    }
    asked.tail(&mut xml, "MaxKeys");
    xml.truth("IsTruncated", truncated);
    for entry in &page.entries {
        if let Entry::File(version) = entry {
            content(&mut xml, &asked, version, Some(&bucket));
        }
    }
    asked.folders(&mut xml, &page);
    Ok(xml_answer(xml))
}

fn token_check(bucket: &Bucket, name: &str) -> [u8; TOKEN_CHECK_BYTES] {
    let digest = md5_of([bucket.id.to_string().as_bytes(), name.as_bytes()].into_iter()).0;
    digest.first_chunk().copied().unwrap_or_default()
}

/// A token that says where a listing goes on. It gives no right: who holds it could as well ask for
/// what begins there; the check only finds what was cut or mistyped.
fn token_of(bucket: &Bucket, next: &str) -> String {
    let mut bytes = token_check(bucket, next).to_vec();
    bytes.extend_from_slice(next.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_token(bucket: &Bucket, token: &str) -> Result<String, S3Refusal> {
    let wrong = || invalid_argument("The continuation token provided is incorrect");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let (check, name) = bytes.split_first_chunk::<TOKEN_CHECK_BYTES>().ok_or_else(wrong)?;
    let name = std::str::from_utf8(name).map_err(|_| wrong())?;
    if *check == token_check(bucket, name) { Ok(name.to_owned()) } else { Err(wrong()) }
}

pub(crate) async fn objects_v2(call: Call) -> Reply {
    let asked = Asked::of(&call, "max-keys")?;
    let fetch_owner = call.query.get("fetch-owner").is_some_and(|text| text == "true");
    let start_after = call.query.some("start-after");
    let token = call.query.get("continuation-token");
    let bucket = call.bucket()?;
    let mut query = asked.query(&bucket);
    query.start_name = match (token, start_after) {
        (Some(token), _) => Some(read_token(&bucket, token)?),
        (None, Some(after)) => Some(behind(after, &asked.prefix, asked.delimiter.as_deref())),
        (None, None) => None,
    };
    let page = asked.cut(list::list_names(call.app(), call.caller()?, query).await?);
    let mut xml = Writer::new("ListBucketResult");
    asked.head(&mut xml, &bucket);
    xml.opt_text("ContinuationToken", token);
    let next = page.next_name.as_ref().map(|next| token_of(&bucket, next));
    xml.opt_text("NextContinuationToken", next.as_deref());
    let start_after = start_after.map(|after| asked.text(after));
    xml.opt_text("StartAfter", start_after.as_deref());
    xml.number("KeyCount", page.entries.len() as u64);
    asked.tail(&mut xml, "MaxKeys");
    xml.truth("IsTruncated", next.is_some());
    for entry in &page.entries {
        if let Entry::File(version) = entry {
            content(&mut xml, &asked, version, Some(&*bucket).filter(|_| fetch_owner));
        }
    }
    asked.folders(&mut xml, &page);
    Ok(xml_answer(xml))
}

pub(crate) async fn versions(call: Call) -> Reply {
    let asked = Asked::of(&call, "max-keys")?;
    let key_marker = call.query.some("key-marker");
    let id_marker = call.query.some("version-id-marker");
    if id_marker.is_some() && key_marker.is_none() {
        return Err(invalid_argument(
            "A version-id marker cannot be specified without a key marker.",
        )
        .into());
    }
    let bucket = call.bucket()?;
    let mut query = asked.query(&bucket);
    query.start_name = key_marker.map(str::to_owned);
    query.start_id = id_marker.map(str::to_owned);
    let page = asked.cut(list::list_versions(call.app(), call.caller()?, query).await?);
    let mut xml = Writer::new("ListVersionsResult");
    asked.head(&mut xml, &bucket);
    xml.text("KeyMarker", &asked.text(key_marker.unwrap_or_default()));
    xml.text("VersionIdMarker", id_marker.unwrap_or_default());
    let truncated = page.next_name.is_some();
    if let Some((last, id)) = last_of(&page).filter(|_| truncated) {
        xml.text("NextKeyMarker", &asked.text(last));
        xml.opt_text("NextVersionIdMarker", id.as_deref());
    }
    asked.tail(&mut xml, "MaxKeys");
    xml.truth("IsTruncated", truncated);
    let mut before = None;
    for (at, entry) in page.entries.iter().enumerate() {
        let Entry::File(version) = entry else { continue };
        let name = version.name.as_str();
        let goes_on = before == Some(name) || (at == 0 && page.begins_inside_a_name);
        before = Some(name);
        let is_marker = version.action == Action::Hide;
        xml.begin(if is_marker { "DeleteMarker" } else { "Version" });
        xml.text("Key", &asked.text(name));
        xml.text("VersionId", &version.id().to_string());
        xml.truth("IsLatest", !goes_on);
        xml.text("LastModified", &version.upload_at.readable());
        if !is_marker {
            xml.text("ETag", &quoted_tag(version));
            xml.number("Size", version.size);
        }
        owner(&mut xml, "Owner", bucket.account);
        if !is_marker {
            xml.text("StorageClass", "STANDARD");
        }
        xml.end();
    }
    asked.folders(&mut xml, &page);
    Ok(xml_answer(xml))
}

pub(crate) async fn uploads(call: Call) -> Reply {
    let asked = Asked::of(&call, "max-uploads")?;
    let key_marker = call.query.some("key-marker");
    // Without a key it names no place, and S3 passes over it.
    let id_marker = call.query.some("upload-id-marker").filter(|_| key_marker.is_some());
    let bucket = call.bucket()?;
    let mut query = asked.query(&bucket);
    query.start_name = key_marker.map(str::to_owned);
    query.start_id = id_marker.map(str::to_owned);
    let listed = list::list_unfinished(call.app(), call.caller()?, query).await;
    let page = asked.cut(listed.map_err(S3Error::from)?);
    let mut xml = Writer::new("ListMultipartUploadsResult");
    xml.text("Bucket", bucket.name.as_str());
    xml.text("KeyMarker", &asked.text(key_marker.unwrap_or_default()));
    xml.text("UploadIdMarker", id_marker.unwrap_or_default());
    let truncated = page.next_name.is_some();
    if let Some((last, id)) = last_of(&page).filter(|_| truncated) {
        xml.text("NextKeyMarker", &asked.text(last));
        xml.text("NextUploadIdMarker", &id.unwrap_or_default());
    }
    xml.text("Prefix", &asked.text(&asked.prefix));
    asked.tail(&mut xml, "MaxUploads");
    xml.truth("IsTruncated", truncated);
    for entry in &page.entries {
        let Entry::File(version) = entry else { continue };
        xml.begin("Upload");
        xml.text("Key", &asked.text(version.name.as_str()));
        xml.text("UploadId", &version.id().to_string());
        owner(&mut xml, "Initiator", bucket.account);
        owner(&mut xml, "Owner", bucket.account);
        xml.text("StorageClass", "STANDARD");
        xml.text("Initiated", &version.upload_at.readable());
        xml.end();
    }
    asked.folders(&mut xml, &page);
    Ok(xml_answer(xml))
}
