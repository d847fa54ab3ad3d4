//! S3 stores. Requests are signed with Signature Version 4; a region that turns out to be another one
//! is remembered for its bucket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};

use crate::auth::sigv4::{self, Signer};
use crate::domain::digest::{Md5Digest, Md5Hasher, Sha256Digest, Sha256Hasher, sha256_of};
use crate::domain::file::HEADER_INFOS;
use crate::domain::lock::RetentionMode;
use crate::domain::percent;
use crate::domain::range::ByteRange;
use crate::domain::remote::{Addressing, Marker, RemoteAddress, RemoteOptions};
use crate::domain::remote_answer::{AnswerClass, BadAnswer, RemoteFault};
use crate::domain::time::Millis;
use crate::outbound::{ANSWER_TIMEOUT, Answer, FINISH_TIMEOUT, OutgoingBody, OutgoingCall};
use crate::replication::destination::remote::xml::{self, Element};
use crate::replication::destination::remote::{
    Line, UPLOADED, committing, fault, lock_to_send, misdirected, mismatch, paced, peer, scrubbed,
    unanswered, unreadable, with_marks,
};
use crate::replication::destination::store::{
    Checked, ConfirmedPart, ListedPage, ListedVersion, OutgoingFile, PartPlan, PartRules,
    RemoteBucket, RemoteStore, RemoteVersion, Sending,
};

/// Files above this size go in parts, and parts are at least so large but the last (documented).
const THRESHOLD: u64 = 64 * 1024 * 1024;
const SMALLEST_PART: u64 = 5 * 1024 * 1024;
const PARTS_MAX: u32 = 10_000;
/// Longest name, in bytes (documented).
const NAME_BYTES_MAX: usize = 1024;
/// Versions on a page of a listing; a page of the longest names fits the longest answer.
const LIST_PAGE: usize = 250;
/// Versions that are looked at one by one when one is looked for.
const LOOKED_AT_MAX: usize = 100;
/// What a replica is a copy of.
const ORIGIN: &str = "src-repl-origin";
/// What a check begins and gives up at once.
const CHECK_NAME: &str = "kiln-write-check";

/// An S3 store.
pub(super) struct S3 {
    line: Line,
    options: RemoteOptions,
    region: String,
    addressing: Addressing,
    /// Regions of buckets that are in others than the configured one.
    regions: Mutex<BTreeMap<String, String>>,
    /// How far the clock of the store is ahead of ours, where it minded.
    skew_ms: AtomicI64,
}

/// What a request sends.
#[derive(Clone)]
enum Payload<'a> {
    None,
    Bytes(Bytes),
    Content {
        sending: Sending<'a>,
        range: ByteRange,
        /// None where the body goes out unsigned.
        sha256: Option<Sha256Digest>,
    },
}

/// One request, not signed yet.
#[derive(Clone)]
struct Ask<'a> {
    method: &'static str,
    bucket: &'a str,
    /// None for the bucket itself.
    key: Option<&'a str>,
    query: Vec<(&'static str, String)>,
    /// Names in lower case, each once.
    headers: Vec<(String, String)>,
    payload: Payload<'a>,
    answer_timeout: Duration,
}

impl<'a> Ask<'a> {
    fn of(method: &'static str, bucket: &'a str, key: Option<&'a str>) -> Self {
        Self {
            method,
            bucket,
            key,
            query: Vec::new(),
            headers: Vec::new(),
            payload: Payload::None,
            answer_timeout: ANSWER_TIMEOUT,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.payload = Payload::Bytes(bytes.into());
        self
    }
}

/// What the body of an error says.
#[derive(Default)]
struct Told {
    code: String,
    message: String,
    region: String,
}

impl Told {
    fn of(body: &[u8]) -> Self {
        let error = Element::parse(body).filter(|root| root.name == "Error");
        error.map_or_else(Self::default, |error| Self {
            code: error.text_of("Code").to_owned(),
            message: error.text_of("Message").to_owned(),
            region: error.text_of("Region").to_owned(),
        })
    }
}

fn name_of(bucket: &RemoteBucket) -> &str {
    match bucket {
        // S3 has no ids of buckets, so this is a name.
        RemoteBucket::Id(name) | RemoteBucket::Name(name) => name,
    }
}

fn plain_tag(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// Whether a tag has the form of an MD5.
fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The MD5 that an answer tells of an object. Content that is encrypted with other keys than the
/// store's own has tags of another kind, and so has what was made of parts.
fn told_md5(answer: &Answer) -> Option<&str> {
    let encryption = answer.header("x-amz-server-side-encryption");
    let is_told = encryption.is_none_or(|how| how == "AES256");
    answer.header("etag").map(plain_tag).filter(|etag| is_told && is_md5(etag))
}

fn is_of(told: &str, md5: Md5Digest) -> bool {
    told.eq_ignore_ascii_case(&md5.to_string())
}

/// A value of metadata: as it is where a header can carry it, else percent-encoded.
fn header_value(value: &str) -> String {
    let is_plain = value.bytes().all(|b| (32..127).contains(&b)) && value.trim() == value;
    if is_plain && !value.is_empty() { value.to_owned() } else { percent::encode(value) }
}

fn is_region(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..64).contains(&text.len()) && text.bytes().all(plain)
}

/// The host of a store in another region: the region is a part of most names.
fn host_in(region: &str, configured: &str, host: &str) -> String {
    if host == "s3.amazonaws.com" {
        return format!("s3.{region}.amazonaws.com");
    }
    let labels = host.split('.').map(|label| if label == configured { region } else { label });
    labels.collect::<Vec<_>>().join(".")
}

impl S3 {
    pub(super) fn new(
        line: Line,
        options: &RemoteOptions,
        address: &RemoteAddress,
    ) -> Result<Self, RemoteFault> {
        let region = options.region.clone().or_else(|| address.region.clone());
        let region = region
            .filter(|region| is_region(region))
            .ok_or_else(|| misdirected("a remote of the type s3 needs a region".to_owned()))?;
        let addressing = options.addressing.or(address.addressing).unwrap_or_default();
        Ok(Self {
            line,
            options: options.clone(),
            region,
            addressing,
            regions: Mutex::default(),
            skew_ms: AtomicI64::new(0),
        })
    }

    fn region_of(&self, bucket: &str) -> String {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.get(bucket).unwrap_or(&self.region).clone()
    }

    /// What the store thinks it is now.
    fn now(&self) -> Millis {
        self.line.clock.now().plus(self.skew_ms.load(Ordering::Relaxed))
    }

    /// Host and encoded path of a request.
    fn place(&self, ask: &Ask<'_>, region: &str) -> Result<(String, String), RemoteFault> {
        let (_, rest) = self.line.base.split_once("://").unwrap_or_default();
        let (host, root) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let host = if region == self.region {
            host.to_owned()
        } else {
            host_in(region, &self.region, host)
        };
        let bucket = sigv4::encode(ask.bucket, false);
        let (host, mut path) = match self.addressing {
            Addressing::Path => (host, format!("{root}/{bucket}")),
            Addressing::Virtual => {
                let is_label = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
                if !ask.bucket.bytes().all(is_label) {
                    let text = "the name of the bucket cannot be a part of a host".to_owned();
                    return Err(misdirected(text));
                }
                // Hosts are asked for in lower case, however they are written.
                (format!("{}.{host}", ask.bucket.to_ascii_lowercase()), root.to_owned())
            }
        };
        match ask.key {
            Some(key) => {
                path.push('/');
                path.push_str(&sigv4::encode(key, true));
            }
            None if path.is_empty() => path.push('/'),
            None => {}
        }
        // Whoever handles the address on its way would take these for steps.
        if path.split('/').any(|part| matches!(part, "." | "..")) {
            let text = "the name cannot be written in an address".to_owned();
            return Err(fault(AnswerClass::Rejected, text));
        }
        Ok((host, path))
    }

    /// The request as it goes out, signed.
    fn signed(&self, ask: &Ask<'_>, region: &str) -> Result<OutgoingCall, RemoteFault> {
        let (host, path) = self.place(ask, region)?;
        let query = ask.query.iter().map(|(name, value)| {
            format!("{}={}", sigv4::encode(name, false), sigv4::encode(value, false))
        });
        let query = query.collect::<Vec<_>>().join("&");
        let (payload, body) = match &ask.payload {
            Payload::None => (sha256_of(std::iter::empty()).to_string(), OutgoingBody::None),
            Payload::Bytes(bytes) => {
                let sha256 = sha256_of(std::iter::once(&**bytes)).to_string();
                (sha256, OutgoingBody::Bytes(bytes.clone()))
            }
            Payload::Content { sending, range, sha256 } => {
                let payload = sha256
                    .map_or_else(|| "UNSIGNED-PAYLOAD".to_owned(), |sha256| sha256.to_string());
                let bytes = paced(*sending, *range);
                (payload, OutgoingBody::Stream { len: range.len(), bytes })
            }
        };
        let to_sign: Vec<(&str, &[u8])> = std::iter::once(("host", host.as_bytes()))
            .chain(ask.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
            .collect();
        let token = &self.line.token;
        let signer = Signer {
            key_id: &token.key_id,
            secret: &token.secret,
            session: token.session.as_ref(),
            region,
        };
        let request =
            sigv4::Request { method: ask.method, path: &path, query: &query, headers: &to_sign };
        let added = signer.sign(&request, &payload, self.now());
        let mut headers = ask.headers.clone();
        headers.extend(added.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let scheme = if self.line.is_https() { "https" } else { "http" };
        let question = if query.is_empty() { "" } else { "?" };
        Ok(OutgoingCall {
            method: ask.method,
            url: format!("{scheme}://{host}{path}{question}{query}"),
            headers,
            body,
            answer_bytes_max: xml::BYTES_MAX,
            answer_timeout: ask.answer_timeout,
        })
    }

    fn fault(&self, answer: &Answer, told: &Told, is_session: bool) -> RemoteFault {
        let token = &self.line.token;
        let session = token.session.as_ref().map_or("", |session| session.expose());
        let secrets = [token.secret.expose(), session];
        BadAnswer {
            status: answer.status,
            code: &scrubbed(&told.code, &secrets),
            message: &scrubbed(&told.message, &secrets),
            retry_after: answer.header("retry-after"),
            now: self.line.clock.now(),
            in_session: is_session,
        }
        .s3()
    }

    /// Makes a request. A region that the answer corrects is tried once, and so is a clock.
    async fn ask(&self, ask: Ask<'_>) -> Result<Answer, RemoteFault> {
        let is_session = ask.query.iter().any(|(name, _)| *name == "uploadId");
        let (mut was_moved, mut was_set) = (false, false);
        loop {
            let region = self.region_of(ask.bucket);
            let call = self.signed(&ask, &region)?;
            let answer = self.line.http.call(call).await.map_err(unanswered)?;
            if answer.is_success() {
                return Ok(answer);
            }
            let told = Told::of(&answer.body);
            let fault = self.fault(&answer, &told, is_session);
            let named = answer.header("x-amz-bucket-region").unwrap_or(&told.region);
            let may_move = matches!(answer.status, 301 | 307 | 400 | 403);
            if may_move && !was_moved && named != region && is_region(named) {
                let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
                regions.insert(ask.bucket.to_owned(), named.to_owned());
                was_moved = true;
                continue;
            }
            let date = answer.header("date").and_then(Millis::from_http_date);
            if let Some(date) = date.filter(|_| fault.class == AnswerClass::Refresh && !was_set) {
                // Credentials that have run out cannot be renewed; a clock can be followed.
                if told.code == "RequestTimeTooSkewed" {
                    let skew_ms = date.0 - self.line.clock.now().0;
                    self.skew_ms.store(skew_ms, Ordering::Relaxed);
                    was_set = true;
                    continue;
                }
            }
            return Err(fault);
        }
    }

    /// Makes a request and reads the document that it answers, which must have this root.
    async fn ask_document(&self, ask: Ask<'_>, root: &str) -> Result<Element, RemoteFault> {
        let answer = self.ask(ask).await?;
        match Element::parse(&answer.body) {
            Some(document) if document.name == root => Ok(document),
            // Some calls have begun to answer before they fail.
            Some(document) if document.name == "Error" => {
                Err(self.fault(&answer, &Told::of(&answer.body), true))
            }
            _ => Err(unreadable(answer.status)),
        }
    }

    /// The marks that a version is given there, the most important one first.
    fn marked(&self, file: &OutgoingFile) -> BTreeMap<String, String> {
        let mut marks = Vec::new();
        if self.options.marker == Marker::FileInfo {
            marks.push((ORIGIN, file.origin.clone()));
            marks.push((UPLOADED, file.upload_at.0.to_string()));
        }
        with_marks(file, marks)
    }

    /// What of a file goes into the headers that make an object.
    fn object_headers(&self, file: &OutgoingFile) -> Vec<(String, String)> {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers = vec![header("content-type", &file.content_type)];
        for (name, value) in self.marked(file) {
            let real = HEADER_INFOS.iter().find(|(info, _)| *info == name);
            headers.push(match real {
                Some((_, real)) => (real.to_ascii_lowercase(), header_value(&value)),
                None => (format!("x-amz-meta-{name}"), header_value(&value)),
            });
        }
        if file.is_encrypted {
            headers.push(header("x-amz-server-side-encryption", "AES256"));
        }
        let lock = lock_to_send(file.lock, self.line.clock.now());
        if let Some(retention) = lock.retention {
            let mode = match retention.mode {
                RetentionMode::Governance => "GOVERNANCE",
                RetentionMode::Compliance => "COMPLIANCE",
            };
            headers.push(header("x-amz-object-lock-mode", mode));
            let until = retention.until.readable();
            headers.push(header("x-amz-object-lock-retain-until-date", &until));
        }
        if let Some(is_held) = lock.legal_hold {
            let held = if is_held { "ON" } else { "OFF" };
            headers.push(header("x-amz-object-lock-legal-hold", held));
        }
        headers
    }

    fn check_name(name: &str) -> Result<(), RemoteFault> {
        if name.len() <= NAME_BYTES_MAX {
            return Ok(());
        }
        let text = format!("names have at most {NAME_BYTES_MAX} bytes there");
        Err(fault(AnswerClass::Rejected, text))
    }

    /// Reads a range through before it is sent, for what must be said of it in advance.
    async fn digests(
        &self,
        sending: Sending<'_>,
        range: ByteRange,
    ) -> Result<(Md5Digest, Sha256Digest), RemoteFault> {
        let (mut md5, mut sha256) = (Md5Hasher::default(), Sha256Hasher::default());
        let mut bytes = sending.content.open(range);
        let mut size = 0;
        let failed =
            || fault(AnswerClass::SourceUnreadable, "the content could not be read".to_owned());
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(|_| failed())?;
            md5.update(&chunk);
            if !self.line.is_https() {
                sha256.update(&chunk);
            }
            size += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            // A sign of life; nothing has been sent.
            sending.pace.admit(0).await;
        }
        if size != range.len() {
            return Err(failed());
        }
        Ok((md5.finish(), sha256.finish()))
    }

    /// Sends the content of a range, with digests where the store is to compare them.
    async fn send(
        &self,
        mut ask: Ask<'_>,
        sending: Sending<'_>,
        range: ByteRange,
        known: Option<Md5Digest>,
    ) -> Result<Answer, RemoteFault> {
        let is_open = !self.line.is_https();
        let (md5, sha256) = match known {
            // Over TLS nobody on the way can change the body.
            Some(md5) if !is_open => (md5, None),
            // Without, the signature is to cover it. Buckets with locks insist on an MD5.
            _ => {
                let (md5, sha256) = self.digests(sending, range).await?;
                (known.unwrap_or(md5), is_open.then_some(sha256))
            }
        };
        ask.headers.push(("content-md5".to_owned(), STANDARD.encode(md5.0)));
        let ask = Ask { payload: Payload::Content { sending, range, sha256 }, ..ask };
        let answer = self.ask(ask).await?;
        if told_md5(&answer).is_some_and(|told| !is_of(told, md5)) {
            return Err(mismatch(answer.status, "ETag"));
        }
        Ok(answer)
    }

    /// The object that an answer to HEAD is about, when an earlier attempt made it of a file.
    fn copy_in(&self, answer: &Answer, file: &OutgoingFile) -> Option<RemoteVersion> {
        let marked = self.marked(file);
        let meta = |name: &str| answer.header(&format!("x-amz-meta-{name}"));
        let size = answer.header("content-length").and_then(|digits| digits.parse().ok());
        let told = told_md5(answer);
        let is_other = file.md5.zip(told).is_some_and(|(ours, theirs)| !is_of(theirs, ours));
        // What has our mark but other bytes was damaged on its way, and is to be sent again.
        let is_copy = if size != Some(file.size) || is_other {
            false
        } else if marked.get(ORIGIN) == Some(&file.origin) {
            meta(ORIGIN) == Some(&file.origin)
        } else {
            let uploaded = marked.get(UPLOADED).map(String::as_str);
            let is_of_time = uploaded.is_none() || meta(UPLOADED) == uploaded;
            let is_sure = (file.md5.is_some() && told.is_some()) || uploaded.is_some();
            is_of_time && is_sure
        };
        let id = answer.header("x-amz-version-id").unwrap_or_default().to_owned();
        is_copy.then_some(RemoteVersion { id, status: answer.status })
    }

    /// A page of the versions in a bucket; None where the store, or our right there, knows of none.
    async fn versions(
        &self,
        bucket: &str,
        prefix: &str,
        from: Option<&str>,
    ) -> Result<Option<Element>, RemoteFault> {
        let mut ask = Ask::of("GET", bucket, None)
            .with("versions", "")
            .with("encoding-type", "url")
            .with("prefix", prefix)
            .with("max-keys", LIST_PAGE.to_string());
        if let Some((key, version)) = from.and_then(|from| from.split_once('\n')) {
            ask = ask.with("key-marker", key);
            if !version.is_empty() {
                ask = ask.with("version-id-marker", version);
            }
        }
        match self.ask_document(ask, "ListVersionsResult").await {
            Ok(page) => Ok(Some(page)),
            Err(fault) if matches!(fault.status, 403 | 405 | 501) => Ok(None),
            Err(fault) if fault.code == "NotImplemented" => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// A page of the objects in a bucket.
    async fn objects(
        &self,
        bucket: &str,
        prefix: &str,
        from: Option<&str>,
    ) -> Result<ListedPage, RemoteFault> {
        let mut ask = Ask::of("GET", bucket, None)
            .with("list-type", "2")
            .with("encoding-type", "url")
            .with("prefix", prefix)
            .with("max-keys", LIST_PAGE.to_string());
        if let Some(token) = from.and_then(|from| from.strip_prefix('\n')) {
            ask = ask.with("continuation-token", token);
        }
        let page = self.ask_document(ask, "ListBucketResult").await?;
        let token = page.text_of("NextContinuationToken");
        let next = (!token.is_empty()).then(|| format!("\n{token}"));
        Ok(ListedPage { versions: listed(&page, "Contents"), next })
    }
}

/// A key as a listing has it, percent-encoded.
fn decoded(key: &str) -> String {
    percent::decode(key.as_bytes()).unwrap_or_else(|_| key.to_owned())
}

fn listed(page: &Element, kind: &str) -> Vec<ListedVersion> {
    let one = |version: &Element| ListedVersion {
        name: decoded(version.text_of("Key")),
        id: version.text_of("VersionId").to_owned(),
        size: version.text_of("Size").parse().unwrap_or_default(),
        sha1: None,
        etag: Some(plain_tag(version.text_of("ETag")).to_owned()),
        origin: None,
        upload_at: Millis::from_iso(version.text_of("LastModified")),
    };
    page.all(kind).map(one).collect()
}

/// Where the page after this one begins; a key cannot hold a line feed once it is encoded, and is not
/// decoded here.
fn next_of(page: &Element) -> Option<String> {
    let key = page.text_of("NextKeyMarker");
    let is_cut = page.text_of("IsTruncated") == "true" && !key.is_empty();
    is_cut.then(|| format!("{}\n{}", decoded(key), page.text_of("NextVersionIdMarker")))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl RemoteStore for S3 {
    fn part_rules(&self) -> PartRules {
        PartRules {
            threshold: self.options.multipart_threshold_bytes.unwrap_or(THRESHOLD),
            smallest: SMALLEST_PART,
            usual: self.options.part_size_bytes.unwrap_or(THRESHOLD).max(SMALLEST_PART),
            parts_max: PARTS_MAX,
            keeps_parts: false,
        }
    }

    fn keeps_timestamps(&self) -> bool {
        false
    }

    fn check<'a>(
        &'a self,
        bucket: &'a RemoteBucket,
    ) -> BoxFuture<'a, Result<Checked, RemoteFault>> {
        async move {
            let named = name_of(bucket);
            self.ask(Ask::of("HEAD", named, None)).await?;
            let lock = self.ask(Ask::of("GET", named, None).with("object-lock", "")).await;
            let has_file_lock = match lock {
                Ok(answer) => Element::parse(&answer.body)
                    .map(|told| told.text_of("ObjectLockEnabled") == "Enabled"),
                Err(fault) if fault.code == "ObjectLockConfigurationNotFoundError" => Some(false),
                Err(_) => None,
            };
            let begin = Ask::of("POST", named, Some(CHECK_NAME)).with("uploads", "");
            let begun = begin.bytes(Bytes::new());
            let begun = self.ask_document(begun, "InitiateMultipartUploadResult").await?;
            self.cancel(bucket, CHECK_NAME, begun.text_of("UploadId")).await?;
            // What is no kiln answers this with anything.
            let instance = peer::instance(&self.line).await.unwrap_or_default();
            Ok(Checked { instance, bucket_id: None, has_file_lock })
        }
        .boxed()
    }

    fn find<'a>(
        &'a self,
        file: &'a OutgoingFile,
    ) -> BoxFuture<'a, Result<Option<RemoteVersion>, RemoteFault>> {
        async move {
            let bucket = name_of(&file.bucket);
            Self::check_name(&file.name)?;
            match self.ask(Ask::of("HEAD", bucket, Some(&file.name))).await {
                Ok(answer) => {
                    if let Some(found) = self.copy_in(&answer, file) {
                        return Ok(Some(found));
                    }
                }
                // Nothing shows there; a version may be hidden.
                Err(fault) if fault.status == 404 => {}
                Err(fault) => return Err(fault),
            }
            let (mut from, mut looked_at) = (None::<String>, 0);
            while let Some(page) = self.versions(bucket, &file.name, from.as_deref()).await? {
                let versions = listed(&page, "Version");
                // Names that only begin like it come after it.
                let is_past = versions.iter().any(|version| version.name != file.name);
                let fitting = versions
                    .iter()
                    .filter(|version| version.name == file.name && version.size == file.size);
                for version in fitting {
                    looked_at += 1;
                    let ask = Ask::of("HEAD", bucket, Some(&file.name));
                    let answer = self.ask(ask.with("versionId", &version.id)).await;
                    match answer {
                        Ok(answer) => {
                            if let Some(found) = self.copy_in(&answer, file) {
                                return Ok(Some(found));
                            }
                        }
                        Err(fault) if fault.status == 404 => {}
                        Err(fault) => return Err(fault),
                    }
                }
                from = next_of(&page).filter(|_| !is_past && looked_at < LOOKED_AT_MAX);
                if from.is_none() {
                    break;
                }
            }
            Ok(None)
        }
        .boxed()
    }

    fn put<'a>(
        &'a self,
        sending: Sending<'a>,
    ) -> BoxFuture<'a, Result<RemoteVersion, RemoteFault>> {
        async move {
            let file = sending.file;
            Self::check_name(&file.name)?;
            let mut ask = Ask::of("PUT", name_of(&file.bucket), Some(&file.name));
            ask.headers = self.object_headers(file);
            let range = ByteRange::whole(file.size);
            let answer = self.send(ask, sending, range, file.md5).await.map_err(committing)?;
            let id = answer.header("x-amz-version-id").unwrap_or_default().to_owned();
            Ok(RemoteVersion { id, status: answer.status })
        }
        .boxed()
    }

    fn start<'a>(&'a self, file: &'a OutgoingFile) -> BoxFuture<'a, Result<String, RemoteFault>> {
        async move {
            Self::check_name(&file.name)?;
            let mut ask = Ask::of("POST", name_of(&file.bucket), Some(&file.name))
                .with("uploads", "")
                .bytes(Bytes::new());
            ask.headers = self.object_headers(file);
            let begun = self.ask_document(ask, "InitiateMultipartUploadResult").await?;
            let session = begun.text_of("UploadId");
            if session.is_empty() { Err(unreadable(200)) } else { Ok(session.to_owned()) }
        }
        .boxed()
    }

    fn put_part<'a>(
        &'a self,
        sending: Sending<'a>,
        session: &'a str,
        part: PartPlan,
    ) -> BoxFuture<'a, Result<ConfirmedPart, RemoteFault>> {
        async move {
            let file = sending.file;
            let ask = Ask::of("PUT", name_of(&file.bucket), Some(&file.name))
                .with("partNumber", part.number.to_string())
                .with("uploadId", session);
            let answer = self.send(ask, sending, part.range, None).await;
            // A part that is sent twice is the same part.
            let answer = answer.map_err(|fault| RemoteFault { is_ambiguous: false, ..fault })?;
            let tag = plain_tag(answer.header("etag").unwrap_or_default()).to_owned();
            if tag.is_empty() {
                return Err(RemoteFault { is_ambiguous: false, ..unreadable(answer.status) });
            }
            Ok(ConfirmedPart { number: part.number, size: part.range.len(), tag })
        }
        .boxed()
    }

    fn list_parts<'a>(
        &'a self,
        file: &'a OutgoingFile,
        session: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ConfirmedPart>, RemoteFault>> {
        async move {
            let mut parts: Vec<ConfirmedPart> = Vec::new();
            loop {
                let after = parts.last().map_or(0, |part| part.number);
                let ask = Ask::of("GET", name_of(&file.bucket), Some(&file.name))
                    .with("uploadId", session)
                    .with("part-number-marker", after.to_string());
                let page = self.ask_document(ask, "ListPartsResult").await?;
                for part in page.all("Part") {
                    let number = part.text_of("PartNumber").parse().unwrap_or_default();
                    let size = part.text_of("Size").parse().unwrap_or_default();
                    if number <= parts.last().map_or(0, |part| part.number) {
                        return Err(unreadable(200));
                    }
                    let tag = plain_tag(part.text_of("ETag")).to_owned();
                    parts.push(ConfirmedPart { number, size, tag });
                }
                let is_cut = page.text_of("IsTruncated") == "true";
                if !is_cut || parts.last().is_none_or(|part| part.number <= after) {
                    return Ok(parts);
                }
            }
        }
        .boxed()
    }

    fn finish<'a>(
        &'a self,
        file: &'a OutgoingFile,
        session: &'a str,
        parts: &'a [ConfirmedPart],
    ) -> BoxFuture<'a, Result<RemoteVersion, RemoteFault>> {
        async move {
            let listed = parts.iter().map(|part| {
                let (number, tag) = (part.number, escaped(&part.tag));
                format!(
                    "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{tag}&quot;</ETag></Part>"
                )
            });
            let listed: Vec<String> = listed.collect();
            let body = format!(
                "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}\
                 </CompleteMultipartUpload>",
                listed.concat()
            );
            let mut ask = Ask::of("POST", name_of(&file.bucket), Some(&file.name))
                .with("uploadId", session)
                .bytes(body);
            ask.headers.push(("content-type".to_owned(), "application/xml".to_owned()));
            ask.answer_timeout = FINISH_TIMEOUT;
            let answer = self.ask(ask).await.map_err(committing)?;
            match Element::parse(&answer.body) {
                Some(document) if document.name == "CompleteMultipartUploadResult" => {}
                Some(document) if document.name == "Error" => {
                    return Err(committing(self.fault(&answer, &Told::of(&answer.body), true)));
                }
                _ => return Err(unreadable(answer.status)),
            }
            let id = answer.header("x-amz-version-id").unwrap_or_default().to_owned();
            Ok(RemoteVersion { id, status: answer.status })
        }
        .boxed()
    }

    fn cancel<'a>(
        &'a self,
        bucket: &'a RemoteBucket,
        name: &'a str,
        session: &'a str,
    ) -> BoxFuture<'a, Result<(), RemoteFault>> {
        async move {
            let ask = Ask::of("DELETE", name_of(bucket), Some(name)).with("uploadId", session);
            match self.ask(ask).await {
                Err(fault) if fault.class != AnswerClass::SessionLost => Err(fault),
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        bucket: &'a RemoteBucket,
        prefix: &'a str,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ListedPage, RemoteFault>> {
        async move {
            let named = name_of(bucket);
            // A page of objects goes on as one.
            if from.is_some_and(|from| from.starts_with('\n')) {
                return self.objects(named, prefix, from).await;
            }
            match self.versions(named, prefix, from).await? {
                Some(page) => {
                    Ok(ListedPage { versions: listed(&page, "Version"), next: next_of(&page) })
                }
                None => self.objects(named, prefix, None).await,
            }
        }
        .boxed()
    }
}
