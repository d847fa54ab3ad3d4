//! File versions and the metadata that travels with them.

use std::collections::BTreeMap;

use crate::domain::digest::{Md5Digest, Sha1Digest};
use crate::domain::encryption::Encryption;
use crate::domain::ids::{BlobId, BucketId, FileId, FileNumber};
use crate::domain::lock::FileLock;
use crate::domain::names::{FileName, decode_text};
use crate::domain::percent;
use crate::domain::refusal::{Code, Refusal, bad_request, refuse, shorten};
use crate::domain::replication::ReplicationStatus;
use crate::domain::time::Millis;

/// Largest body of one upload, in bytes (documented: 5 GB).
pub(crate) const UPLOAD_BYTES_MAX: u64 = 5_000_000_000;
/// Content type of hide markers, as Backblaze writes it.
pub(crate) const HIDE_CONTENT_TYPE: &str = "application/x-bz-hide-marker";

/// What a version does to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Upload,
    Hide,
    /// An unfinished large file.
    Start,
}

impl Action {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Hide => "hide",
            Self::Start => "start",
        }
    }
}

/// What is known of a version's SHA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentSha1 {
    /// A large file has digests of its parts only.
    None,
    /// Compared with what the uploader said.
    Verified(Sha1Digest),
    /// Computed here; the uploader said nothing.
    Unverified(Sha1Digest),
}

impl ContentSha1 {
    pub(crate) fn digest(self) -> Option<Sha1Digest> {
        match self {
            Self::None => None,
            Self::Verified(digest) | Self::Unverified(digest) => Some(digest),
        }
    }
}

impl std::fmt::Display for ContentSha1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Verified(digest) => write!(f, "{digest}"),
            Self::Unverified(digest) => write!(f, "unverified:{digest}"),
        }
    }
}

impl serde::Serialize for ContentSha1 {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Verified(digest) => serde::Serialize::serialize(digest, to),
            Self::None | Self::Unverified(_) => to.collect_str(self),
        }
    }
}

/// What S3 shows as the `ETag` of a file that was uploaded in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartsDigest {
    /// MD5 over the MD5s of the parts.
    pub(crate) md5: Md5Digest,
    pub(crate) count: u32,
}

/// One version of a file: an upload, a replica of one, a hide marker, or an unfinished large file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileVersion {
    pub(crate) bucket: BucketId,
    pub(crate) number: FileNumber,
    pub(crate) name: FileName,
    pub(crate) action: Action,
    /// Orders the versions of a name, newest first; a replica keeps its source's.
    pub(crate) upload_at: Millis,
    /// The number of the version this is a replica of, else its own; decides equal times so that
    /// both sides of a two-way replication show the same version.
    pub(crate) origin: FileNumber,
    pub(crate) written_at: Millis,
    pub(crate) size: u64,
    pub(crate) sha1: ContentSha1,
    /// None for large files.
    pub(crate) md5: Option<Md5Digest>,
    /// Only of finished large files.
    pub(crate) parts: Option<PartsDigest>,
    pub(crate) content_type: String,
    pub(crate) info: FileInfo,
    /// None for hide markers and unfinished large files.
    pub(crate) blob: Option<BlobId>,
    pub(crate) replication: Option<ReplicationStatus>,
    pub(crate) lock: FileLock,
    pub(crate) encryption: Encryption,
}

impl FileVersion {
    /// What S3 shows as the tag of the content, without quotation marks: its MD5, or that over its
    /// parts with their number. None for what has no content.
    pub(crate) fn etag(&self) -> Option<String> {
        match (self.parts, self.md5) {
            (Some(PartsDigest { md5, count }), _) => Some(format!("{md5}-{count}")),
            (None, Some(md5)) => Some(md5.to_string()),
            (None, None) => None,
        }
    }

    /// What the versions of a name are ordered by, newest first.
    pub(crate) fn place(&self) -> (Millis, FileNumber) {
        (self.upload_at, self.origin)
    }

    pub(crate) fn id(&self) -> FileId {
        FileId {
            bucket: self.bucket,
            number: self.number,
            written_at: self.written_at,
            upload_at: self.upload_at,
        }
    }
}

/// File info: lower-case names with their values, kept as the JSON object that answers carry.
///
/// Kept as text because listings write it out far more often than anybody looks inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileInfo(String);

impl Default for FileInfo {
    fn default() -> Self {
        Self("{}".to_owned())
    }
}

/// Bytes that names and values of one version may have together (documented).
const METADATA_BYTES_MAX: usize = 7000;
/// The same in buckets with Object Lock, and for files whose uploader asks for encryption (documented).
const SHORT_METADATA_BYTES_MAX: usize = 2048;
/// Longest name of a file info, in bytes (documented).
const INFO_NAME_BYTES_MAX: usize = 50;
/// The infos that become real headers on download.
pub(crate) const HEADER_INFOS: [(&str, &str); 5] = [
    ("b2-cache-control", "Cache-Control"),
    ("b2-content-disposition", "Content-Disposition"),
    ("b2-content-encoding", "Content-Encoding"),
    ("b2-content-language", "Content-Language"),
    ("b2-expires", "Expires"),
];

impl FileInfo {
    /// Text that was checked when it was stored.
    pub(crate) fn stored(json: String) -> Self {
        Self(json)
    }

    pub(crate) fn as_json(&self) -> &str {
        &self.0
    }

    pub(crate) fn entries(&self) -> BTreeMap<String, String> {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// Builds file info from the headers of an upload: names without `X-Bz-Info-`, values still
    /// percent-encoded. `name_bytes` counts toward the limit on metadata.
    pub(crate) fn from_headers<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        name: &FileName,
    ) -> Result<Self, Refusal> {
        let decoded = headers.map(|(info, encoded)| {
            let value = decode_text(encoded, "file info value")?;
            Ok((info.to_owned(), value, encoded.len()))
        });
        Self::checked(decoded, name, check_header_value)
    }

    /// Builds file info from the JSON object of a request. `name` counts toward the limit on
    /// metadata.
    pub(crate) fn from_entries(
        entries: BTreeMap<String, String>,
        name: &FileName,
    ) -> Result<Self, Refusal> {
        Self::checked(measured(entries), name, check_header_value)
    }

    /// As [`Self::from_entries`]; headers of the content are what S3 takes them for, printable text.
    pub(crate) fn of_object(
        entries: BTreeMap<String, String>,
        name: &FileName,
    ) -> Result<Self, Refusal> {
        Self::checked(measured(entries), name, check_printable)
    }

    /// Checks names, values and the size of their encoded forms.
    fn checked(
        given: impl Iterator<Item = Result<(String, String, usize), Refusal>>,
        name: &FileName,
        check_header: fn(&str, &str) -> Result<(), Refusal>,
    ) -> Result<Self, Refusal> {
        let mut entries = BTreeMap::new();
        let mut metadata_bytes = percent::encode(name.as_str()).len();
        for entry in given {
            let (info, value, encoded_bytes) = entry?;
            metadata_bytes += info.len() + encoded_bytes;
            let info = check_info_name(&info)?;
            if let Some((_, header)) = HEADER_INFOS.iter().find(|(known, _)| *known == info) {
                check_header(header, &value)?;
            }
            if entries.insert(info.clone(), value).is_some() {
                return Err(bad_request(format!("duplicate file info: {info}")));
            }
        }
        check_metadata_bytes(metadata_bytes, METADATA_BYTES_MAX)?;
        if entries.is_empty() {
            return Ok(Self::default());
        }
        serde_json::to_string(&entries)
            .map(Self)
            .map_err(|_| bad_request("file info cannot be written as JSON"))
    }
}

fn check_info_name(name: &str) -> Result<String, Refusal> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.`~!#$%^&*'|+".contains(&b);
    if name.is_empty() || name.len() > INFO_NAME_BYTES_MAX || !name.bytes().all(token) {
        return Err(bad_request(format!(
            "Bad file info name: '{}' must be 1 to {INFO_NAME_BYTES_MAX} letters, digits or -_.`~!#$%^&*'|+",
            shorten(name)
        )));
    }
    let name = name.to_ascii_lowercase();
    let known = HEADER_INFOS.iter().any(|(info, _)| *info == name);
    if name.starts_with("b2-") && !known {
        return Err(bad_request(format!(
            "file info names starting with 'b2-' are reserved: {name}"
        )));
    }
    Ok(name)
}

/// Entries with the lengths of their encoded values.
fn measured(
    entries: BTreeMap<String, String>,
) -> impl Iterator<Item = Result<(String, String, usize), Refusal>> {
    entries.into_iter().map(|(info, value)| {
        let encoded_bytes = percent::encode(&value).len();
        Ok((info, value, encoded_bytes))
    })
}

fn check_metadata_bytes(bytes: usize, max: usize) -> Result<(), Refusal> {
    if bytes <= max {
        return Ok(());
    }
    let text = format!("File name and file info must be no more than {max} bytes");
    Err(refuse(Code::MetadataExceeded, text))
}

/// Checks the smaller limit on metadata.
pub(crate) fn check_short_metadata(name: &FileName, info: &FileInfo) -> Result<(), Refusal> {
    let infos = info.entries();
    let infos: usize =
        infos.iter().map(|(info, value)| info.len() + percent::encode(value).len()).sum();
    check_metadata_bytes(percent::encode(name.as_str()).len() + infos, SHORT_METADATA_BYTES_MAX)
}

/// Checks a value that a download will send as the header `header`.
pub(crate) fn check_header_value(header: &str, value: &str) -> Result<(), Refusal> {
    check_printable(header, value)?;
    let grammatical = match header {
        "Content-Disposition" => is_disposition(value),
        "Expires" => Millis::from_http_date(value).is_some(),
        "Content-Language" | "Content-Encoding" => is_token_list(value),
        _ => !value.trim().is_empty(),
    };
    if grammatical { Ok(()) } else { Err(bad_header(header, value)) }
}

fn check_printable(header: &str, value: &str) -> Result<(), Refusal> {
    let printable = value.bytes().all(|b| (32..127).contains(&b));
    if printable { Ok(()) } else { Err(bad_header(header, value)) }
}

fn bad_header(header: &str, value: &str) -> Refusal {
    bad_request(format!("Bad {header} value: '{}'", shorten(value)))
}

/// `type` or `type; name=value; name="value"`, as in RFC 6266.
fn is_disposition(value: &str) -> bool {
    let (kind, mut rest) = value.split_once(';').unwrap_or((value, ""));
    let kind = kind.trim();
    // RFC 6266 allows `*` in a token; as the first letter of the type it is what Backblaze's own
    // example of a bad value looks like.
    if !is_token(kind) || kind.starts_with('*') {
        return false;
    }
    rest = rest.trim();
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else { return false };
        if !is_token(name.trim()) {
            return false;
        }
        let after = after.trim_start();
        rest = if let Some(quoted) = after.strip_prefix('"') {
            let Some(end) = closing_quote(quoted) else { return false };
            quoted.get(end + 1..).unwrap_or_default().trim_start()
        } else {
            let end = after.find(';').unwrap_or(after.len());
            let plain = after.get(..end).unwrap_or_default().trim();
            if !is_token(plain) {
                return false;
            }
            after.get(end..).unwrap_or_default()
        };
        rest = match rest.strip_prefix(';') {
            Some(more) => more.trim(),
            None if rest.is_empty() => rest,
            None => return false,
        };
    }
    true
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

/// One word or several with commas between them, as in RFC 9110.
fn is_token_list(value: &str) -> bool {
    value.split(',').all(|word| is_token(word.trim()))
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// The size of the headers an uploader would send for this version, in bytes.
///
/// Backblaze does not replicate files above 2048 of these; b2sdk computes the same sum.
pub(crate) fn header_bytes(version: &FileVersion) -> usize {
    let line = |name: &str, value: usize| name.len() + value;
    let infos: usize = version
        .info
        .entries()
        .iter()
        .map(|(name, value)| line("X-Bz-Info-", name.len() + percent::encode(value).len()))
        .sum();
    line("X-Bz-File-Name", percent::encode(version.name.as_str()).len())
        + line("Content-Type", version.content_type.len())
        + line("X-Bz-Content-Sha1", 40)
        + infos
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(headers: &[(&str, &str)]) -> Result<FileInfo, Refusal> {
        let name = FileName::parse("f")?;
        FileInfo::from_headers(headers.iter().map(|(n, v)| (*n, v.as_bytes())), &name)
    }

    #[test]
    fn native_156_157_info_names_become_lower_case_and_values_are_decoded() {
        let built = info(&[("Src_Last", "caf%C3%A9+x"), ("a", "")]).expect("valid");
        assert_eq!(built.as_json(), "{\"a\":\"\",\"src_last\":\"caf\u{e9} x\"}");
        assert_eq!(built.entries().get("a").map(String::as_str), Some(""));
    }

    #[test]
    fn native_167_metadata_is_limited_to_7000_bytes() {
        let almost = "v".repeat(7000 - 2);
        assert!(info(&[("n", &almost)]).is_ok());
        let refusal = info(&[("nn", &almost)]).expect_err("one byte too many");
        assert_eq!(refusal.code, Code::MetadataExceeded);
    }

    #[test]
    fn native_168_metadata_is_limited_to_2048_bytes_where_the_small_limit_holds() {
        let name = FileName::parse("f").expect("a name");
        let check =
            |value: &str| check_short_metadata(&name, &info(&[("n", value)]).expect("valid"));
        // A name of one byte, an info name of one, and a space that is sent as three.
        assert!(check(&format!("%20{}", "v".repeat(2043))).is_ok());
        let refusal = check(&"v".repeat(2047)).expect_err("one byte too many");
        assert_eq!(refusal.code, Code::MetadataExceeded);
        assert!(refusal.message.contains("2048"), "{}", refusal.message);
    }

    #[test]
    fn native_169_170_reserved_and_malformed_info_names_are_refused() {
        assert!(info(&[(&"n".repeat(50), "v")]).is_ok());
        for wrong in [&"n".repeat(51), "b2-foo", "a b", ""] {
            assert!(info(&[(wrong, "v")]).is_err(), "{wrong}");
        }
        assert!(info(&[("dup", "1"), ("DUP", "2")]).is_err());
        assert!(info(&[("b2-cache-control", "max-age=3600")]).is_ok());
    }

    #[test]
    fn headers_of_downloads_must_follow_their_grammar() {
        for (header, right) in [
            ("Expires", "Tue, 04 Jan 2022 15:01:18 GMT"),
            ("Content-Language", "de"),
            ("Content-Language", "de-CH, en"),
            ("Content-Encoding", "gzip"),
            ("Cache-Control", "max-age=1, private=\"x\""),
        ] {
            assert!(check_header_value(header, right).is_ok(), "{header}: {right}");
        }
        for (header, wrong) in [
            ("Expires", "xyz, nonsense of 29 bytes GMT"),
            ("Content-Language", "de de"),
            ("Content-Language", ""),
            ("Content-Encoding", "gzip,"),
            ("Cache-Control", " "),
            ("Cache-Control", "a\r\nb"),
        ] {
            assert!(check_header_value(header, wrong).is_err(), "{header}: {wrong}");
        }
    }

    #[test]
    fn native_171_content_disposition_must_follow_the_grammar() {
        for right in
            ["attachment", "attachment; filename=a.txt", "inline; filename=\"a \\\" b\"; x=y"]
        {
            assert!(check_header_value("Content-Disposition", right).is_ok(), "{right}");
        }
        for wrong in
            ["*bad", "", "attachment; filename", "attachment; filename=\"open", "a b", "a\r\nb"]
        {
            assert!(check_header_value("Content-Disposition", wrong).is_err(), "{wrong}");
        }
    }
}
