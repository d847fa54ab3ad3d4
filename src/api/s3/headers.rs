//! Which `x-amz-` headers a call understands, and how headers ask for things that several calls
//! know: encryption, locks, metadata.

use std::collections::BTreeMap;
use std::ops::Deref;

use actix_web::HttpRequest;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_TYPE, EXPIRES, HeaderMap, HeaderName, HeaderValue,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::s3::Profile;
use crate::api::s3::chunked::SDK_ALGORITHM;
use crate::api::s3::error::{
    S3Error, S3Refusal, invalid_argument, malformed_xml, not_implemented, s3_refuse,
    unsupported_header,
};
use crate::api::s3::place::Query;
use crate::domain::bucket::{Bucket, BucketType};
use crate::domain::checksum::{ChecksumAlgorithm, ChecksumHasher};
use crate::domain::content_type;
use crate::domain::encryption::{ALGORITHM, AskedEncryption, CustomerKey, Encryption};
use crate::domain::file::{FileInfo, HEADER_INFOS};
use crate::domain::lock::{FileLock, Retention, RetentionMode};
use crate::domain::names::FileName;
use crate::domain::refusal::shorten;
use crate::domain::time::Millis;

/// Names of headers, in lower case.
pub(crate) type Names = &'static [&'static str];

pub(crate) const ACL: Names = &["x-amz-acl"];
pub(crate) const BYPASS: Names = &["x-amz-bypass-governance-retention"];
pub(crate) const ENCRYPTION: Names = &["x-amz-server-side-encryption"];
pub(crate) const CUSTOMER: Names = &[
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-server-side-encryption-customer-key-md5",
];
const SOURCE_CUSTOMER: Names = &[
    "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key-md5",
];
pub(crate) const LOCK: Names = &[
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
];
pub(crate) const STORAGE_CLASS: Names = &["x-amz-storage-class"];
/// Passed over: what is a replica is what replication made, whatever an uploader says.
pub(crate) const STATUS_OF_REPLICA: Names = &["x-amz-replication-status"];
pub(crate) const COPY: Names = &["x-amz-metadata-directive", "x-amz-tagging-directive"];
pub(crate) const SOURCE_RANGE: Names = &["x-amz-copy-source-range"];
pub(crate) const SOURCE: Names = &[
    "x-amz-copy-source",
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-modified-since",
    "x-amz-copy-source-if-unmodified-since",
    "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key-md5",
    "x-amz-source-expected-bucket-owner",
];
/// What every call understands, or passes over.
const ALWAYS: Names = &[
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-mode",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-expected-bucket-owner",
    "x-amz-id-2",
    "x-amz-request-payer",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-trailer",
    "x-amz-user-agent",
];
/// What is refused even where unknown headers are passed over: it would not be what it claims.
const NEVER: Names = &[
    "x-amz-mfa",
    "x-amz-security-token",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-context",
];
const METADATA: &str = "x-amz-meta-";
/// Entries of metadata of one file (documented for B2).
const METADATA_ENTRIES_MAX: usize = 10;

/// What an address that was signed in advance proves itself with; no header of the call.
const OF_PROOF: Names = &[
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// The headers of a request, and those that stand in its address.
///
/// Whoever signs an address in advance may move `x-amz-` headers into it, where the signature covers
/// them as well. So a call reads all of them here, wherever they stand.
pub(crate) struct Headers {
    request: HttpRequest,
    /// There where the address brings some.
    all: Option<HeaderMap>,
}

impl Headers {
    pub(crate) fn of(request: &HttpRequest, query: &Query) -> Result<Self, S3Refusal> {
        let all = with_moved(request.headers(), query)?;
        Ok(Self { request: request.clone(), all })
    }
}

impl Deref for Headers {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        self.all.as_ref().unwrap_or_else(|| self.request.headers())
    }
}

/// These headers and those that the address brings; None when it brings none.
fn with_moved(headers: &HeaderMap, query: &Query) -> Result<Option<HeaderMap>, S3Refusal> {
    let mut all = None;
    for (name, value) in query.pairs() {
        let name = name.to_ascii_lowercase();
        if !name.starts_with("x-amz-") || OF_PROOF.contains(&name.as_str()) {
            continue;
        }
        let wrong = || invalid_argument(format!("Bad parameter {}", shorten(&name)));
        let header = HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong())?;
        if says_nothing(headers, &header, &value) {
            continue;
        }
        let all = all.get_or_insert_with(|| headers.clone());
        if all.get_all(&header).any(|other| *other != value) {
            return Err(wrong());
        }
        all.insert(header, value);
    }
    let Some(mut all) = all else { return Ok(None) };
    // A name of an algorithm alone tells the SDK what to compute, and nothing of what comes.
    let has_checksum = ChecksumAlgorithm::ALL.iter().any(|one| all.contains_key(one.header()));
    if !has_checksum && !headers.contains_key(SDK_ALGORITHM) {
        all.remove(SDK_ALGORITHM);
    }
    Ok(Some(all))
}

/// Whether a header in an address is the checksum of no content although content comes. SDKs that
/// sign an address before there is any put that into it, and AWS takes whatever comes then.
fn says_nothing(headers: &HeaderMap, name: &HeaderName, value: &HeaderValue) -> bool {
    let has_content = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    ChecksumAlgorithm::of_header(name.as_str()).is_some_and(|algorithm| {
        has_content && *value == *ChecksumHasher::new(algorithm).finish().base64()
    })
}

/// Refuses headers that the call does not know.
pub(crate) fn check(
    headers: &HeaderMap,
    known: &[Names],
    profile: Profile,
) -> Result<(), S3Refusal> {
    for name in headers.keys() {
        let name = name.as_str();
        // Live Read and whatever else Backblaze has of its own: what asks for it must not think to have it.
        if name.starts_with("x-backblaze-") {
            return Err(unsupported_header(name));
        }
        if !name.starts_with("x-amz-") || name.starts_with(METADATA) || ALWAYS.contains(&name) {
            continue;
        }
        let understood = known.iter().any(|names| names.contains(&name));
        let passed_over = profile == Profile::Extended && !NEVER.contains(&name);
        if !understood && !passed_over {
            return Err(unsupported_header(name));
        }
    }
    Ok(())
}

/// The text of a header; refused when it is none or comes twice.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, S3Refusal> {
    let mut values = headers.get_all(name);
    let Some(first) = values.next() else { return Ok(None) };
    match (first.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text.trim())),
        _ => Err(invalid_argument(format!("Bad header {name}"))),
    }
}

/// The customer's key in three headers that go together.
fn customer_key_in(headers: &HeaderMap, names: Names) -> Result<Option<CustomerKey>, S3Refusal> {
    let [algorithm, key, md5] = names else { return Ok(None) };
    let (algorithm, key, md5) =
        (text(headers, algorithm)?, text(headers, key)?, text(headers, md5)?);
    if algorithm.is_none() && key.is_none() && md5.is_none() {
        return Ok(None);
    }
    if algorithm.is_some_and(|algorithm| algorithm != ALGORITHM) {
        return Err(s3_refuse(
            400,
            "InvalidEncryptionAlgorithmError",
            "The encryption request you specified is not valid. The valid value is AES256.",
        ));
    }
    let (Some(algorithm), Some(key), Some(md5)) = (algorithm, key, md5) else {
        return Err(invalid_argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide \
             the algorithm, the secret key and its MD5.",
        ));
    };
    CustomerKey::parse(algorithm, key, md5)
        .map(Some)
        .map_err(|refusal| invalid_argument(refusal.message))
}

pub(crate) fn customer_key(headers: &HeaderMap) -> Result<Option<CustomerKey>, S3Refusal> {
    customer_key_in(headers, CUSTOMER)
}

/// The key that the source of a copy is encrypted with.
pub(crate) fn source_key(headers: &HeaderMap) -> Result<Option<CustomerKey>, S3Refusal> {
    customer_key_in(headers, SOURCE_CUSTOMER)
}

/// How the headers ask for encryption.
pub(crate) fn encryption(headers: &HeaderMap) -> Result<AskedEncryption, S3Refusal> {
    let managed = text(headers, "x-amz-server-side-encryption")?;
    if managed.is_some_and(|value| value != ALGORITHM) {
        return Err(invalid_argument("The encryption method specified is not supported"));
    }
    match (managed, customer_key(headers)?) {
        (None, None) => Ok(AskedEncryption::Default),
        (Some(_), None) => Ok(AskedEncryption::Managed),
        (None, Some(key)) => Ok(AskedEncryption::Customer(key)),
        (Some(_), Some(_)) => Err(invalid_argument(
            "Server Side Encryption with Customer provided key is incompatible with the encryption \
             method specified",
        )),
    }
}

/// Sets a header of an answer; a value that is none is left out.
pub(crate) fn set_header(told: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
        told.insert(name, value);
    }
}

/// The headers that tell how content is encrypted.
pub(crate) fn told_encryption(
    encryption: &Encryption,
    key: Option<&CustomerKey>,
    told: &mut HeaderMap,
) {
    let mut put = |name: &str, value: &str| set_header(told, name, value);
    match encryption {
        Encryption::None => {}
        Encryption::Managed => put("x-amz-server-side-encryption", ALGORITHM),
        Encryption::Customer { .. } => {
            put("x-amz-server-side-encryption-customer-algorithm", ALGORITHM);
            if let Some(key) = key {
                put("x-amz-server-side-encryption-customer-key-md5", &key.md5());
            }
        }
    }
}

/// Reads a moment as S3 writes it, with or without a fraction of a second.
pub(crate) fn moment(text: &str) -> Option<Millis> {
    Millis::from_iso(text)
}

/// A mode of retention as S3 writes it.
pub(crate) fn retention_mode(text: &str) -> Option<RetentionMode> {
    match text {
        "GOVERNANCE" => Some(RetentionMode::Governance),
        "COMPLIANCE" => Some(RetentionMode::Compliance),
        _ => None,
    }
}

pub(crate) fn shown_mode(mode: RetentionMode) -> &'static str {
    match mode {
        RetentionMode::Governance => "GOVERNANCE",
        RetentionMode::Compliance => "COMPLIANCE",
    }
}

pub(crate) fn hold(text: &str) -> Option<bool> {
    match text {
        "ON" => Some(true),
        "OFF" => Some(false),
        _ => None,
    }
}

/// The lock that a new file is to begin with.
pub(crate) fn lock(headers: &HeaderMap) -> Result<FileLock, S3Refusal> {
    let mode = text(headers, "x-amz-object-lock-mode")?
        .map(|mode| {
            retention_mode(mode).ok_or_else(|| invalid_argument("Unknown wormMode directive."))
        })
        .transpose()?;
    let until = text(headers, "x-amz-object-lock-retain-until-date")?
        .map(|date| {
            moment(date).ok_or_else(|| {
                invalid_argument("The retain until date must be provided in ISO 8601 format")
            })
        })
        .transpose()?;
    let retention = match (mode, until) {
        (None, None) => None,
        (Some(mode), Some(until)) => Some(Retention { mode, until }),
        _ => {
            return Err(invalid_argument(
                "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied",
            ));
        }
    };
    let legal_hold = text(headers, "x-amz-object-lock-legal-hold")?
        .map(|text| {
            hold(text).ok_or_else(|| invalid_argument("Legal Hold must be either of 'ON' or 'OFF'"))
        })
        .transpose()?;
    Ok(FileLock { retention, legal_hold })
}

/// Whether the caller wants to pass over retention in governance mode.
pub(crate) fn bypass(headers: &HeaderMap) -> Result<bool, S3Refusal> {
    let text = text(headers, "x-amz-bypass-governance-retention")?;
    Ok(text.is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

/// The type of a bucket that a canned ACL asks for; only two can be had.
pub(crate) fn bucket_type(acl: &str) -> Result<BucketType, S3Refusal> {
    match acl {
        "private" => Ok(BucketType::AllPrivate),
        "public-read" => Ok(BucketType::AllPublic),
        other => Err(invalid_argument(format!(
            "The x-amz-acl value '{}' is not supported: it must be private or public-read",
            shorten(other)
        ))),
    }
}

/// Refuses an ACL for a file that is not that of its bucket.
pub(crate) fn check_acl(headers: &HeaderMap, bucket: &Bucket) -> Result<(), S3Refusal> {
    match text(headers, "x-amz-acl")? {
        None => Ok(()),
        Some(acl) if bucket_type(acl)? == bucket.kind => Ok(()),
        Some(_) => Err(invalid_argument("The ACL of an object must be that of its bucket")),
    }
}

pub(crate) fn check_storage_class(headers: &HeaderMap) -> Result<(), S3Refusal> {
    match text(headers, "x-amz-storage-class")? {
        None | Some("STANDARD") => Ok(()),
        Some(_) => Err(s3_refuse(
            400,
            "InvalidStorageClass",
            "The storage class you specified is not valid",
        )),
    }
}

/// Refuses a write that is to happen only on some condition: Backblaze knows none.
pub(crate) fn refuse_conditions(headers: &HeaderMap) -> Result<(), S3Refusal> {
    for name in ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"] {
        if headers.contains_key(name) {
            let shown = match name {
                "if-match" => "If-Match",
                "if-none-match" => "If-None-Match",
                "if-modified-since" => "If-Modified-Since",
                _ => "If-Unmodified-Since",
            };
            return Err(not_implemented().with("Header", shown));
        }
    }
    Ok(())
}

/// What a new file is told of itself.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) content_type: String,
    pub(crate) info: FileInfo,
}

/// Content types of files for which none was sent, as on AWS.
const NO_CONTENT_TYPE: &str = "binary/octet-stream";

/// Reads content type, headers of the content and metadata.
pub(crate) fn about(headers: &HeaderMap, name: &FileName) -> Result<About, S3Error> {
    let content_type = match text(headers, CONTENT_TYPE.as_str())? {
        None | Some("") => NO_CONTENT_TYPE.to_owned(),
        Some(given) => content_type::resolve("Content-Type", given, name.as_str())?,
    };
    let mut entries = BTreeMap::new();
    for (info, header) in kept_headers() {
        let Some(given) = text(headers, header.as_str())? else { continue };
        let value =
            if header == CONTENT_ENCODING { without_chunking(given) } else { given.to_owned() };
        if !value.is_empty() {
            entries.insert(info.to_owned(), value);
        }
    }
    let mut own = 0_usize;
    for header in headers.keys() {
        let Some(info) = header.as_str().strip_prefix(METADATA) else { continue };
        if info.starts_with("b2-") {
            // It would be another header when it is read.
            return Err(unsupported_header(header.as_str()).into());
        }
        let values: Vec<String> =
            headers.get_all(header).map(|value| metadata_text(value.as_bytes())).collect();
        own += 1;
        entries.insert(info.to_owned(), values.join(","));
    }
    if own > METADATA_ENTRIES_MAX {
        return Err(invalid_argument(format!(
            "At most {METADATA_ENTRIES_MAX} x-amz-meta- headers can be stored"
        ))
        .into());
    }
    let info = FileInfo::of_object(entries, name)?;
    Ok(About { content_type, info })
}

/// The headers of content that are kept as file info of the same meaning.
fn kept_headers() -> [(&'static str, HeaderName); 5] {
    let of = |info: &str| match info {
        "b2-cache-control" => CACHE_CONTROL,
        "b2-content-disposition" => CONTENT_DISPOSITION,
        "b2-content-encoding" => CONTENT_ENCODING,
        "b2-content-language" => CONTENT_LANGUAGE,
        _ => EXPIRES,
    };
    HEADER_INFOS.map(|(info, _)| (info, of(info)))
}

/// The encodings of the content without that of the transfer.
fn without_chunking(encodings: &str) -> String {
    let words = encodings.split(',').map(str::trim);
    let kept: Vec<&str> = words
        .filter(|word| !word.is_empty() && !word.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    kept.join(", ")
}

/// The text of a metadata header: UTF-8, else Latin-1, and in RFC 2047's form what that stands for.
fn metadata_text(bytes: &[u8]) -> String {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect::<String>().trim().to_owned(),
    };
    let encoded = text
        .strip_prefix("=?")
        .and_then(|rest| rest.strip_suffix("?="))
        .and_then(|rest| rest.split_once('?'));
    match encoded {
        Some((charset, rest)) if charset.eq_ignore_ascii_case("utf-8") => {
            let decoded = rest
                .strip_prefix("B?")
                .or_else(|| rest.strip_prefix("b?"))
                .and_then(|digits| STANDARD.decode(digits).ok())
                .and_then(|bytes| String::from_utf8(bytes).ok());
            decoded.unwrap_or(text)
        }
        _ => text,
    }
}

/// A metadata value as a header: plain where it is ASCII, else as RFC 2047 has it.
pub(crate) fn shown_metadata(value: &str) -> String {
    if value.bytes().all(|b| (32..127).contains(&b)) {
        value.to_owned()
    } else {
        format!("=?UTF-8?B?{}?=", STANDARD.encode(value))
    }
}

/// A retention in a document.
pub(crate) fn retention_of(mode: &str, until: &str) -> Result<Retention, S3Refusal> {
    let mode = retention_mode(mode).ok_or_else(malformed_xml)?;
    let until = moment(until).ok_or_else(malformed_xml)?;
    Ok(Retention { mode, until })
}

/// Values of `If-Match` and its like: tags without quotation marks; None stands for `*`.
pub(crate) fn tags(text: &str) -> Option<Vec<String>> {
    if text.trim() == "*" {
        return None;
    }
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    Some(text.split(',').map(bare).filter(|tag| !tag.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in of {
            map.append(
                HeaderName::try_from(*name).expect("a name"),
                HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            );
        }
        map
    }

    #[test]
    fn s3_83_unknown_headers_are_refused_by_name() {
        let known: &[Names] = &[ACL];
        let with = |name: &str, profile| check(&headers(&[(name, "")]), known, profile);
        let strict = |name: &str| with(name, Profile::Backblaze);
        for right in ["x-amz-acl", "x-amz-meta-a", "x-amz-date", "content-type", "amz-sdk-request"]
        {
            assert!(strict(right).is_ok(), "{right}");
        }
        for wrong in [
            "x-amz-tagging",
            "x-amz-website-redirect-location",
            "x-amz-grant-read",
            "x-amz-mfa",
            "x-amz-security-token",
            "x-amz-object-ownership",
            "x-backblaze-live-read-enabled",
        ] {
            let refusal = strict(wrong).expect_err("refused");
            let text = format!("Unsupported header '{wrong}' received for this API call.");
            assert_eq!((refusal.code, &*refusal.message), ("InvalidArgument", text.as_str()));
        }
        assert!(with("x-amz-tagging", Profile::Extended).is_ok());
        assert!(with("x-amz-security-token", Profile::Extended).is_err());
    }

    #[test]
    fn s3_26_headers_in_an_address_count_as_headers() {
        let sent = [("x-amz-acl", "private"), ("content-length", "7")];
        let of = |query: &str| {
            let query = Query::parse(query).expect("a query");
            with_moved(&headers(&sent), &query).map_err(|refusal| refusal.code)
        };
        let value = |all: &HeaderMap, name: &str| {
            text(all, name).expect("one").map(str::to_owned).unwrap_or_default()
        };
        assert_eq!(
            of("X-Amz-Date=x&X-Amz-Signature=y&x-id=z&prefix=p").map(|all| all.is_none()),
            Ok(true)
        );
        let all = of("X-Amz-Meta-Foo=b%20%C3%BC&X-Amz-Tagging=a&x-amz-acl=private");
        let all = all.expect("taken").expect("some");
        assert_eq!(all.len(), 4);
        assert_eq!(
            all.get("x-amz-meta-foo").map(HeaderValue::as_bytes),
            Some("b \u{fc}".as_bytes())
        );
        let refusal = check(&all, &[ACL], Profile::Backblaze).expect_err("tagging");
        assert!(refusal.message.contains("'x-amz-tagging'"), "{}", refusal.message);
        for wrong in [
            "x-amz-acl=public-read",
            "x-amz-meta-a=1&X-Amz-Meta-A=2",
            "x-amz-a%20b=1",
            "x-amz-meta-a=%0D%0Ax",
        ] {
            assert_eq!(of(wrong).map(|_| ()), Err("InvalidArgument"), "{wrong}");
        }
        let sums = "x-amz-checksum-crc32=yhzkjQ%3D%3D&x-amz-sdk-checksum-algorithm=CRC32";
        let all = of(sums).expect("taken").expect("some");
        assert_eq!(value(&all, "x-amz-checksum-crc32"), "yhzkjQ==");
        assert_eq!(value(&all, "x-amz-sdk-checksum-algorithm"), "CRC32");
        // Of no content, or no value at all.
        for nothing in [
            "x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32",
            "x-amz-sdk-checksum-algorithm=SHA256",
        ] {
            let all = of(nothing).expect("taken").expect("some");
            assert_eq!(all.len(), sent.len(), "{nothing}");
        }
    }

    #[test]
    fn s3_44_only_the_encoding_of_the_transfer_is_dropped() {
        for (given, kept) in [
            ("aws-chunked", ""),
            ("gzip", "gzip"),
            ("gzip, aws-chunked", "gzip"),
            ("aws-chunked,gzip", "gzip"),
            ("gzip,deflate,AWS-Chunked", "gzip, deflate"),
            ("", ""),
        ] {
            assert_eq!(without_chunking(given), kept, "{given}");
        }
    }

    #[test]
    fn s3_80_81_metadata_becomes_file_info() {
        let name = FileName::of_key("k").expect("a name");
        let given = headers(&[
            ("x-amz-meta-Foo", "caf\u{e9}"),
            ("x-amz-meta-empty", ""),
            ("x-amz-meta-b64", "=?UTF-8?B?Y2Fmw6k=?="),
            ("cache-control", "no-store"),
            ("content-encoding", "aws-chunked"),
        ]);
        let about = about(&given, &name).expect("valid");
        assert_eq!(about.content_type, "binary/octet-stream");
        let entries = about.info.entries();
        let entry = |name: &str| entries.get(name).map(String::as_str);
        assert_eq!(entry("foo"), Some("caf\u{e9}"));
        assert_eq!(entry("b64"), Some("caf\u{e9}"));
        assert_eq!(entry("empty"), Some(""));
        assert_eq!(entry("b2-cache-control"), Some("no-store"));
        assert_eq!(entries.len(), 4);
        assert_eq!(shown_metadata("caf\u{e9}"), "=?UTF-8?B?Y2Fmw6k=?=");
        assert_eq!(shown_metadata("plain"), "plain");
    }
}
