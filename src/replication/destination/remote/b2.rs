//! Stores that speak B2's Native API: Backblaze's own, and other kilns.
//!
//! The rules of B2's clients: an authorization is kept for less than a day and made anew when it is
//! refused; an upload URL serves one upload at a time, is used again after a success and thrown away
//! after anything else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::domain::file::ContentSha1;
use crate::domain::key::Secret;
use crate::domain::lock::FileLock;
use crate::domain::percent;
use crate::domain::range::ByteRange;
use crate::domain::remote::{Marker, RemoteOptions};
use crate::domain::remote_answer::{AnswerClass, BadAnswer, RemoteFault};
use crate::domain::time::Millis;
use crate::outbound::{ANSWER_TIMEOUT, Answer, FINISH_TIMEOUT, OutgoingBody, OutgoingCall};
use crate::replication::destination::remote::{
    ANSWER_BYTES_MAX, Line, OutgoingSha1, UPLOADED, committing, fault, lock_to_send, misdirected,
    mismatch, paced, peer, scrubbed, unanswered, unreadable, with_marks,
};
use crate::replication::destination::store::{
    Checked, ConfirmedPart, ListedPage, ListedVersion, OutgoingFile, PartPlan, PartRules,
    RemoteBucket, RemoteStore, RemoteVersion, Sending,
};

/// Authorizations and upload URLs are good for a day (documented); they are not used for the last hour
/// of it.
const DAY_MS_KEPT: i64 = 23 * 60 * 60 * 1000;
/// Upload URLs that one attempt may use up.
const URLS_TRIED_MAX: usize = 5;
/// Upload URLs that are kept for later, for one bucket or large file.
const URLS_KEPT: usize = 16;
/// Buckets and large files that upload URLs are kept for.
const POOLS_KEPT: usize = 256;
/// A store that asks for less patience than this is asked for another upload URL at once, as B2's
/// clients do, and not left alone.
const SHORT_WAIT_MS: i64 = 5_000;
/// Versions on a page where one is looked for (B2 counts a page as one call up to 1000).
const FIND_PAGE: u32 = 100;
/// Pages that are looked through for one version.
const FIND_PAGES_MAX: usize = 50;
/// Versions on a page of a listing, and the longest one, in bytes.
const LIST_PAGE: u32 = 250;
const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Parts on a page (documented).
const PARTS_PAGE: u32 = 1000;
/// Files above this size go in parts to B2, and parts are at least so large (documented).
const THRESHOLD: u64 = 100_000_000;
const SMALLEST_PART: u64 = 5_000_000;
pub(super) const PARTS_MAX: u32 = 10_000;

/// What a replica at B2 is a copy of.
const ORIGIN: &str = "src_repl_origin";
/// What the whole of a large file is, by convention of B2's clients.
const LARGE_SHA1: &str = "large_file_sha1";

/// Who speaks the Native API there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavor {
    B2,
    /// Another kiln, which is told of the source in headers.
    Peer,
}

/// A store that speaks the Native API.
pub(super) struct Native {
    line: Line,
    flavor: Flavor,
    options: RemoteOptions,
    /// Held while a new one is asked for, so that it is asked for once.
    authorized: tokio::sync::Mutex<Option<Arc<Authorized>>>,
    /// The part sizes that the last authorization told: the least and the usual one.
    sizes: Mutex<Option<(u64, u64)>>,
    places: Mutex<BTreeMap<RemoteBucket, Place>>,
    urls: Mutex<BTreeMap<String, Vec<UploadUrl>>>,
}

struct Authorized {
    account: String,
    token: Secret,
    api_url: String,
    /// The buckets that the key is restricted to, by name.
    buckets: BTreeMap<String, String>,
    /// Monotonic.
    made_at: Millis,
}

/// A bucket there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) id: String,
    has_file_lock: Option<bool>,
}

/// Where one upload at a time may go.
struct UploadUrl {
    url: String,
    token: Secret,
    /// Monotonic.
    made_at: Millis,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizeAnswer {
    account_id: String,
    authorization_token: String,
    api_info: ApiInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiInfo {
    storage_api: StorageApi,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StorageApi {
    api_url: String,
    absolute_minimum_part_size: u64,
    recommended_part_size: u64,
    #[serde(default)]
    allowed: Allowed,
}

#[derive(Default, Deserialize)]
struct Allowed {
    #[serde(default)]
    buckets: Option<Vec<AllowedBucket>>,
}

#[derive(Deserialize)]
struct AllowedBucket {
    id: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct BucketsAnswer {
    buckets: Vec<BucketAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BucketAnswer {
    bucket_id: String,
    bucket_name: String,
    #[serde(default)]
    file_lock_configuration: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UrlAnswer {
    upload_url: String,
    authorization_token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileAnswer {
    pub(super) file_id: String,
    pub(super) action: Option<String>,
}

/// What an upload of content answers, of a file or of a part.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContentAnswer {
    file_id: String,
    content_sha1: Option<String>,
    content_length: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartsAnswer {
    parts: Vec<PartAnswer>,
    next_part_number: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartAnswer {
    pub(super) part_number: u32,
    pub(super) content_length: u64,
    pub(super) content_sha1: String,
}

impl PartAnswer {
    pub(super) fn confirmed(self) -> ConfirmedPart {
        ConfirmedPart {
            number: self.part_number,
            size: self.content_length,
            tag: plain_sha1(&self.content_sha1).to_owned(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionsAnswer {
    files: Vec<VersionAnswer>,
    next_file_name: Option<String>,
    next_file_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionAnswer {
    action: String,
    file_name: String,
    file_id: Option<String>,
    #[serde(default)]
    content_length: Option<u64>,
    content_sha1: Option<String>,
    #[serde(default)]
    file_info: Option<BTreeMap<String, String>>,
    #[serde(default)]
    upload_timestamp: Option<i64>,
}

impl VersionAnswer {
    fn info(&self, name: &str) -> Option<&str> {
        self.file_info.as_ref()?.get(name).map(String::as_str)
    }

    /// Hex digits, as the uploader or the store knows them.
    fn sha1(&self) -> Option<&str> {
        let told = self.content_sha1.as_deref().filter(|told| *told != "none");
        told.map(plain_sha1).or_else(|| self.info(LARGE_SHA1))
    }
}

fn plain_sha1(told: &str) -> &str {
    told.strip_prefix("unverified:").unwrap_or(told)
}

/// A request about something that was begun there before, or not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Anything,
    Session,
}

impl Native {
    pub(super) fn new(line: Line, options: &RemoteOptions, flavor: Flavor) -> Self {
        Self {
            line,
            flavor,
            options: options.clone(),
            authorized: tokio::sync::Mutex::new(None),
            sizes: Mutex::new(None),
            places: Mutex::default(),
            urls: Mutex::default(),
        }
    }

    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    fn is_peer(&self) -> bool {
        self.flavor == Flavor::Peer
    }

    /// The marks that a version is given there, the most important one first.
    fn marks(&self, file: &OutgoingFile, is_large: bool) -> Vec<(&'static str, String)> {
        let mut marks = Vec::new();
        // A peer is told in headers, and its metadata is that of the source.
        let leaves_marks = !self.is_peer() && self.options.marker == Marker::FileInfo;
        if leaves_marks {
            marks.push((ORIGIN, file.origin.clone()));
            if let Some(sha1) = file.sha1.digest().filter(|_| is_large) {
                marks.push((LARGE_SHA1, sha1.to_string()));
            }
            if !self.keeps_timestamps() {
                marks.push((UPLOADED, file.upload_at.0.to_string()));
            }
        }
        marks
    }

    /// What an answer other than success means. Nothing secret is left in it.
    fn fault(&self, answer: &Answer, about: About, token: &Secret) -> RemoteFault {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Told {
            code: String,
            message: String,
        }
        let told: Told = serde_json::from_slice(&answer.body).unwrap_or_default();
        let secrets = [self.line.token.secret.expose(), token.expose()];
        BadAnswer {
            status: answer.status,
            code: &scrubbed(&told.code, &secrets),
            message: &scrubbed(&told.message, &secrets),
            retry_after: answer.header("retry-after"),
            now: self.line.clock.now(),
            in_session: about == About::Session,
        }
        .native()
    }

    /// Refuses an address that would undo the TLS of the remote's own.
    fn check_url(&self, url: &str) -> Result<(), RemoteFault> {
        let is_safe =
            url.starts_with("https://") || (url.starts_with("http://") && !self.line.is_https());
        if is_safe {
            return Ok(());
        }
        Err(misdirected("the remote names an address without TLS".to_owned()))
    }

    /// The authorization in use, or a new one.
    async fn authorization(&self) -> Result<Arc<Authorized>, RemoteFault> {
        let mut kept = self.authorized.lock().await;
        let now = self.line.clock.monotonic();
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.made_at.plus(DAY_MS_KEPT)) {
            return Ok(Arc::clone(kept));
        }
        let made = Arc::new(self.authorize(now).await?);
        *kept = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn authorize(&self, now: Millis) -> Result<Authorized, RemoteFault> {
        let token = &self.line.token;
        let pair = format!("{}:{}", token.key_id, token.secret.expose());
        let basic = format!("Basic {}", STANDARD.encode(pair));
        let call = OutgoingCall {
            method: "GET",
            url: format!("{}/b2api/v4/b2_authorize_account", self.line.base),
            headers: vec![("Authorization".to_owned(), basic)],
            body: OutgoingBody::None,
            answer_bytes_max: ANSWER_BYTES_MAX,
            answer_timeout: ANSWER_TIMEOUT,
        };
        let answer = self.line.http.call(call).await.map_err(unanswered)?;
        if !answer.is_success() {
            let fault = self.fault(&answer, About::Anything, &token.secret);
            // There is nothing to renew a wrong key with.
            let class = match fault.class {
                AnswerClass::Refresh => AnswerClass::Unauthorized,
                AnswerClass::BucketMissing => AnswerClass::Misdirected,
                class => class,
            };
            return Err(RemoteFault { class, ..fault });
        }
        let told: AuthorizeAnswer = read(&answer)?;
        let storage = told.api_info.storage_api;
        self.check_url(&storage.api_url)?;
        let sizes = (storage.absolute_minimum_part_size, storage.recommended_part_size);
        *self.sizes.lock().unwrap_or_else(PoisonError::into_inner) = Some(sizes);
        let buckets = storage.allowed.buckets.unwrap_or_default();
        Ok(Authorized {
            account: told.account_id,
            token: Secret::new(told.authorization_token),
            api_url: storage.api_url.trim_end_matches('/').to_owned(),
            buckets: buckets.into_iter().filter_map(|one| Some((one.name?, one.id))).collect(),
            made_at: now,
        })
    }

    /// Drops an authorization that was refused, unless somebody else did already.
    async fn forget(&self, refused: &Arc<Authorized>) {
        let mut kept = self.authorized.lock().await;
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, refused)) {
            *kept = None;
        }
    }

    /// Makes a call; an authorization that has run out is renewed once.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        asking: Asking<'_>,
    ) -> Result<T, RemoteFault> {
        let mut was_renewed = false;
        loop {
            let authorized = self.authorization().await?;
            let mut headers = asking.headers.clone();
            headers.push(("Authorization".to_owned(), authorized.token.expose().to_owned()));
            let body = match &asking.payload {
                Payload::None => OutgoingBody::Bytes(Bytes::new()),
                Payload::Fields(fields) => {
                    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
                    OutgoingBody::Bytes(Bytes::from(fields.to_string()))
                }
                Payload::Piece { sending, range, sha1 } => {
                    let bytes = sha1.watch(paced(*sending, *range));
                    OutgoingBody::Stream { len: range.len(), bytes }
                }
            };
            let call = OutgoingCall {
                method: asking.method,
                url: format!("{}{}", authorized.api_url, asking.path),
                headers,
                body,
                answer_bytes_max: asking.answer_bytes_max,
                answer_timeout: asking.answer_timeout,
            };
            let answer = self.line.http.call(call).await.map_err(unanswered)?;
            if answer.is_success() {
                return read(&answer);
            }
            let fault = self.fault(&answer, asking.about, &authorized.token);
            if fault.class != AnswerClass::Refresh || was_renewed {
                return Err(fault);
            }
            self.forget(&authorized).await;
            was_renewed = true;
        }
    }

    /// The bucket, by what is known of it, else by a look.
    pub(super) async fn place(&self, bucket: &RemoteBucket) -> Result<Place, RemoteFault> {
        if let RemoteBucket::Id(id) = bucket {
            return Ok(Place { id: id.clone(), has_file_lock: None });
        }
        let known = self.places.lock().unwrap_or_else(PoisonError::into_inner).get(bucket).cloned();
        match known {
            Some(place) => Ok(place),
            None => self.look_up(bucket).await,
        }
    }

    async fn look_up(&self, bucket: &RemoteBucket) -> Result<Place, RemoteFault> {
        let (field, named) = match bucket {
            RemoteBucket::Id(id) => ("bucketId", id),
            RemoteBucket::Name(name) => ("bucketName", name),
        };
        let account = &self.authorization().await?.account;
        let fields = json!({"accountId": account, field: named});
        let found = match self.ask(Asking::of("b2_list_buckets", fields)).await {
            Ok(BucketsAnswer { buckets }) => buckets
                .into_iter()
                .find(|one| one.bucket_id == *named || one.bucket_name == *named)
                .map(|one| Place {
                    has_file_lock: one
                        .file_lock_configuration
                        .pointer("/value/isFileLockEnabled")
                        .and_then(Value::as_bool),
                    id: one.bucket_id,
                }),
            // A key that may not list buckets was told those it is restricted to.
            Err(fault) if fault.class == AnswerClass::Unauthorized => {
                let allowed = &self.authorization().await?.buckets;
                let known = allowed.iter().find(|(name, id)| *name == named || *id == named);
                let (_, id) = known.ok_or(fault)?;
                Some(Place { id: id.clone(), has_file_lock: None })
            }
            Err(fault) => return Err(fault),
        };
        let place = found.ok_or_else(|| RemoteFault {
            status: 404,
            ..fault(AnswerClass::BucketMissing, "there is no such bucket".to_owned())
        })?;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.insert(bucket.clone(), place.clone());
        Ok(place)
    }

    /// Forgets the bucket when it turned out not to be there.
    pub(super) fn noticing(&self, bucket: &RemoteBucket, fault: RemoteFault) -> RemoteFault {
        if fault.class == AnswerClass::BucketMissing {
            self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(bucket);
        }
        fault
    }

    /// An upload URL that nobody uses, kept or new.
    async fn take_url(&self, target: Target<'_>) -> Result<UploadUrl, RemoteFault> {
        let now = self.line.clock.monotonic();
        {
            let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
            let pool = urls.get_mut(target.id());
            let kept = pool.and_then(|pool| {
                pool.retain(|kept| now < kept.made_at.plus(DAY_MS_KEPT));
                pool.pop()
            });
            if let Some(kept) = kept {
                return Ok(kept);
            }
        }
        let (operation, field, about) = match target {
            Target::Bucket(_) => ("b2_get_upload_url", "bucketId", About::Anything),
            Target::Large(_) => ("b2_get_upload_part_url", "fileId", About::Session),
        };
        let asking = Asking::of(operation, json!({field: target.id()}));
        let told: UrlAnswer = self.ask(Asking { about, ..asking }).await?;
        self.check_url(&told.upload_url)?;
        let token = Secret::new(told.authorization_token);
        Ok(UploadUrl { url: told.upload_url, token, made_at: now })
    }

    fn keep_url(&self, target: Target<'_>, url: UploadUrl) {
        let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        if urls.len() >= POOLS_KEPT && !urls.contains_key(target.id()) {
            urls.clear();
        }
        let pool = urls.entry(target.id().to_owned()).or_default();
        if pool.len() < URLS_KEPT {
            pool.push(url);
        }
    }

    fn drop_urls(&self, target: Target<'_>) {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner).remove(target.id());
    }

    /// Sends content to an upload URL, and to another one where the first is at fault and nothing can
    /// have come of it.
    async fn send(
        &self,
        target: Target<'_>,
        headers: &[(String, String)],
        content: ContentToSend<'_>,
    ) -> Result<ContentAnswer, RemoteFault> {
        let mut tried = 0;
        loop {
            let url = self.take_url(target).await?;
            tried += 1;
            let fault = match self.send_to(&url, target, headers, content).await {
                Ok(told) => {
                    self.keep_url(target, url);
                    return Ok(told);
                }
                Err(fault) => fault,
            };
            let waits_long = fault.retry_after_ms.is_some_and(|ms| ms > SHORT_WAIT_MS);
            let is_of_url = match fault.class {
                AnswerClass::Refresh | AnswerClass::UploadUrlUsedUp | AnswerClass::Unreachable => {
                    true
                }
                AnswerClass::Busy => fault.status == 503 && !waits_long,
                _ => false,
            };
            if fault.is_ambiguous || !is_of_url || tried >= URLS_TRIED_MAX {
                return Err(fault);
            }
        }
    }

    async fn send_to(
        &self,
        url: &UploadUrl,
        target: Target<'_>,
        headers: &[(String, String)],
        content: ContentToSend<'_>,
    ) -> Result<ContentAnswer, RemoteFault> {
        let ContentToSend { sending, range, sha1 } = content;
        let bytes = paced(sending, range);
        let (hasher, digits) = (OutgoingSha1::default(), 40);
        let (len, bytes, declared) = match sha1 {
            // A peer compares it all the same, and goes on calling it so.
            ContentSha1::Unverified(_) if self.is_peer() => (range.len(), bytes, sha1.to_string()),
            ContentSha1::Verified(sha1) | ContentSha1::Unverified(sha1) => {
                (range.len(), bytes, sha1.to_string())
            }
            // Computed on the way.
            ContentSha1::None => {
                let at_end = "hex_digits_at_end".to_owned();
                (range.len() + digits, hasher.append_to(bytes), at_end)
            }
        };
        let mut headers = headers.to_vec();
        headers.push(("Authorization".to_owned(), url.token.expose().to_owned()));
        headers.push(("X-Bz-Content-Sha1".to_owned(), declared));
        let call = OutgoingCall {
            method: "POST",
            url: url.url.clone(),
            headers,
            body: OutgoingBody::Stream { len, bytes },
            answer_bytes_max: ANSWER_BYTES_MAX,
            answer_timeout: ANSWER_TIMEOUT,
        };
        let answer = self.line.http.call(call).await.map_err(unanswered)?;
        if !answer.is_success() {
            return Err(committing(self.fault(&answer, target.about(), &url.token)));
        }
        let told: ContentAnswer = read(&answer)?;
        let sha1 = sha1.digest().unwrap_or_else(|| hasher.so_far()).to_string();
        let is_same = told.content_sha1.as_deref().is_none_or(|told| plain_sha1(told) == sha1);
        if told.content_length != range.len() || !is_same {
            return Err(mismatch(answer.status, "SHA-1"));
        }
        Ok(ContentAnswer { content_sha1: Some(sha1), ..told })
    }

    fn lock(&self, file: &OutgoingFile) -> FileLock {
        // A peer takes one that is over already as it is.
        if self.is_peer() { file.lock } else { lock_to_send(file.lock, self.line.clock.now()) }
    }

    /// What of a file goes into the headers of its upload.
    fn file_headers(&self, file: &OutgoingFile) -> Vec<(String, String)> {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers = vec![
            header("X-Bz-File-Name", &percent::encode(&file.name)),
            header("Content-Type", &file.content_type),
        ];
        for (name, value) in with_marks(file, self.marks(file, false)) {
            headers.push((format!("X-Bz-Info-{name}"), percent::encode(&value)));
        }
        if file.is_encrypted {
            headers.push(header("X-Bz-Server-Side-Encryption", "AES256"));
        }
        let lock = self.lock(file);
        if let Some(retention) = lock.retention {
            let until = retention.until.0.to_string();
            headers.push(header("X-Bz-File-Retention-Mode", retention.mode.as_str()));
            headers.push(header("X-Bz-File-Retention-Retain-Until-Timestamp", &until));
        }
        if let Some(is_held) = lock.legal_hold {
            headers.push(header("X-Bz-File-Legal-Hold", if is_held { "on" } else { "off" }));
        }
        if self.is_peer() {
            headers.extend(peer::headers(file));
        } else if self.options.custom_timestamps {
            let at = file.upload_at.0.to_string();
            headers.push(header("X-Bz-Custom-Upload-Timestamp", &at));
        }
        headers
    }

    /// The fields that begin a file which comes in several calls.
    pub(super) fn begin_fields(&self, file: &OutgoingFile, bucket_id: &str) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        put("bucketId", bucket_id.into());
        put("fileName", file.name.as_str().into());
        put("contentType", file.content_type.as_str().into());
        put("fileInfo", json!(with_marks(file, self.marks(file, true))));
        if file.is_encrypted {
            put("serverSideEncryption", json!({"mode": "SSE-B2", "algorithm": "AES256"}));
        }
        let lock = self.lock(file);
        if let Some(retention) = lock.retention {
            let (mode, until) = (retention.mode.as_str(), retention.until.0);
            put("fileRetention", json!({"mode": mode, "retainUntilTimestamp": until}));
        }
        if let Some(is_held) = lock.legal_hold {
            put("legalHold", if is_held { "on" } else { "off" }.into());
        }
        if !self.is_peer() && self.options.custom_timestamps {
            put("customUploadTimestamp", file.upload_at.0.to_string().into());
        }
        fields
    }

    /// Begins a large file; a peer may answer with one that is there.
    pub(super) async fn start_large(&self, file: &OutgoingFile) -> Result<FileAnswer, RemoteFault> {
        let place = self.place(&file.bucket).await?;
        let fields = Value::Object(self.begin_fields(file, &place.id));
        let asking = Asking {
            headers: self.replica_headers(file),
            ..Asking::of("b2_start_large_file", fields)
        };
        let started = self.ask(asking).await.map_err(committing);
        started.map_err(|fault| self.noticing(&file.bucket, fault))
    }

    fn replica_headers(&self, file: &OutgoingFile) -> Vec<(String, String)> {
        if self.is_peer() { peer::headers(file) } else { Vec::new() }
    }

    /// Whether a version there is what an earlier attempt made of a file.
    fn is_copy(&self, version: &VersionAnswer, file: &OutgoingFile) -> bool {
        if version.action != "upload" {
            return false;
        }
        // Large files carry one mark more, which may leave no room for another.
        let is_large = version.content_sha1.as_deref().is_none_or(|told| told == "none");
        let marked = with_marks(file, self.marks(file, is_large));
        let sha1 = file.sha1.digest().map(|sha1| sha1.to_string());
        let is_other = |theirs: &str| sha1.as_deref().is_some_and(|ours| ours != theirs);
        // What has our mark but other bytes was damaged on its way, and is to be sent again.
        if version.content_length != Some(file.size) || version.sha1().is_some_and(is_other) {
            return false;
        }
        if marked.get(ORIGIN) == Some(&file.origin) && !self.is_peer() {
            return version.info(ORIGIN) == Some(&file.origin);
        }
        let uploaded = marked.get(UPLOADED).map(String::as_str);
        let is_of_time = if self.keeps_timestamps() {
            version.upload_timestamp == Some(file.upload_at.0)
        } else {
            uploaded.is_none() || version.info(UPLOADED) == uploaded
        };
        // Without a mark, and without a digest to compare, another file would pass for it.
        let is_sure = (sha1.is_some() && version.sha1().is_some())
            || uploaded.is_some()
            || self.keeps_timestamps();
        is_of_time && is_sure
    }

    async fn versions(
        &self,
        bucket: &RemoteBucket,
        mut fields: Map<String, Value>,
    ) -> Result<VersionsAnswer, RemoteFault> {
        let place = self.place(bucket).await?;
        fields.insert("bucketId".to_owned(), place.id.into());
        let asking = Asking::of("b2_list_file_versions", Value::Object(fields));
        let asking = Asking { answer_bytes_max: LIST_BYTES_MAX, ..asking };
        self.ask(asking).await.map_err(|fault| self.noticing(bucket, fault))
    }
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, RemoteFault> {
    // Success without content has nothing to tell.
    let body = if answer.status == 204 { b"null" } else { &answer.body[..] };
    serde_json::from_slice(body).map_err(|_| unreadable(answer.status))
}

/// What a call sends.
pub(super) enum Payload<'a> {
    None,
    Fields(Value),
    /// Content, whose SHA-1 is to be known afterwards. Each try has one of its own.
    Piece {
        sending: Sending<'a>,
        range: ByteRange,
        sha1: OutgoingSha1,
    },
}

/// One call with the authorization of the account.
pub(super) struct Asking<'a> {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) payload: Payload<'a>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) about: About,
    pub(super) answer_bytes_max: usize,
    pub(super) answer_timeout: Duration,
}

impl Asking<'_> {
    /// An operation of the Native API.
    fn of(operation: &str, fields: Value) -> Self {
        Self::at("POST", format!("/b2api/v4/{operation}"), Payload::Fields(fields))
    }

    pub(super) fn at<'a>(method: &'static str, path: String, payload: Payload<'a>) -> Asking<'a> {
        Asking {
            method,
            path,
            payload,
            headers: Vec::new(),
            about: About::Anything,
            answer_bytes_max: ANSWER_BYTES_MAX,
            answer_timeout: ANSWER_TIMEOUT,
        }
    }
}

/// What an upload URL belongs to.
#[derive(Clone, Copy)]
enum Target<'a> {
    Bucket(&'a str),
    Large(&'a str),
}

impl<'a> Target<'a> {
    fn id(self) -> &'a str {
        match self {
            Self::Bucket(id) | Self::Large(id) => id,
        }
    }

    fn about(self) -> About {
        match self {
            Self::Bucket(_) => About::Anything,
            Self::Large(_) => About::Session,
        }
    }
}

#[derive(Clone, Copy)]
struct ContentToSend<'a> {
    sending: Sending<'a>,
    range: ByteRange,
    sha1: ContentSha1,
}

impl RemoteStore for Native {
    fn part_rules(&self) -> PartRules {
        let told = *self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let (smallest, usual) = told.unwrap_or((SMALLEST_PART, THRESHOLD));
        PartRules {
            threshold: self.options.multipart_threshold_bytes.unwrap_or(THRESHOLD),
            smallest,
            usual: self.options.part_size_bytes.unwrap_or(usual).max(smallest),
            parts_max: PARTS_MAX,
            keeps_parts: false,
        }
    }

    fn keeps_timestamps(&self) -> bool {
        self.is_peer() || self.options.custom_timestamps
    }

    fn check<'a>(
        &'a self,
        bucket: &'a RemoteBucket,
    ) -> BoxFuture<'a, Result<Checked, RemoteFault>> {
        async move {
            let place = self.look_up(bucket).await?;
            let target = Target::Bucket(&place.id);
            // One that was kept would prove nothing.
            self.drop_urls(target);
            let url = self.take_url(target).await?;
            self.keep_url(target, url);
            if !self.is_peer() {
                // What an attempt left can only be found by a listing.
                let mut fields = Map::new();
                fields.insert("maxFileCount".to_owned(), 1.into());
                self.versions(bucket, fields).await?;
            }
            // What is no kiln answers this with anything.
            let instance = peer::instance(&self.line).await.unwrap_or_default();
            let Place { id, has_file_lock } = place;
            Ok(Checked { instance, bucket_id: Some(id), has_file_lock })
        }
        .boxed()
    }

    fn find<'a>(
        &'a self,
        file: &'a OutgoingFile,
    ) -> BoxFuture<'a, Result<Option<RemoteVersion>, RemoteFault>> {
        async move {
            let mut start_id = None;
            for _ in 0..FIND_PAGES_MAX {
                let mut fields = Map::new();
                fields.insert("startFileName".to_owned(), file.name.as_str().into());
                fields.insert("maxFileCount".to_owned(), FIND_PAGE.into());
                if let Some(id) = start_id {
                    fields.insert("startFileId".to_owned(), Value::String(id));
                }
                let page = self.versions(&file.bucket, fields).await?;
                let mut of_name = page.files.iter().filter(|one| one.file_name == file.name);
                if let Some(found) = of_name.find(|version| self.is_copy(version, file)) {
                    let id = found.file_id.clone().unwrap_or_default();
                    return Ok(Some(RemoteVersion { id, status: 200 }));
                }
                if page.next_file_name.as_deref() != Some(&file.name) {
                    return Ok(None);
                }
                start_id = page.next_file_id;
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
            let place = self.place(&file.bucket).await?;
            let range = ByteRange::whole(file.size);
            let content = ContentToSend { sending, range, sha1: file.sha1 };
            let headers = self.file_headers(file);
            let sent = self.send(Target::Bucket(&place.id), &headers, content);
            let told = sent.await.map_err(|fault| self.noticing(&file.bucket, fault))?;
            Ok(RemoteVersion { id: told.file_id, status: 200 })
        }
        .boxed()
    }

    fn start<'a>(&'a self, file: &'a OutgoingFile) -> BoxFuture<'a, Result<String, RemoteFault>> {
        async move { Ok(self.start_large(file).await?.file_id) }.boxed()
    }

    fn put_part<'a>(
        &'a self,
        sending: Sending<'a>,
        session: &'a str,
        part: PartPlan,
    ) -> BoxFuture<'a, Result<ConfirmedPart, RemoteFault>> {
        async move {
            let headers = [("X-Bz-Part-Number".to_owned(), part.number.to_string())];
            let content = ContentToSend { sending, range: part.range, sha1: ContentSha1::None };
            let sent = self.send(Target::Large(session), &headers, content).await;
            // A part that is sent twice is the same part.
            let told = sent.map_err(|fault| RemoteFault { is_ambiguous: false, ..fault })?;
            let tag = told.content_sha1.unwrap_or_default();
            Ok(ConfirmedPart { number: part.number, size: part.range.len(), tag })
        }
        .boxed()
    }

    fn list_parts<'a>(
        &'a self,
        _file: &'a OutgoingFile,
        session: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ConfirmedPart>, RemoteFault>> {
        async move {
            let mut parts = Vec::new();
            let mut from = 1;
            loop {
                let fields = json!({
                    "fileId": session, "startPartNumber": from, "maxPartCount": PARTS_PAGE,
                });
                let asking = Asking::of("b2_list_parts", fields);
                let page: PartsAnswer =
                    self.ask(Asking { about: About::Session, ..asking }).await?;
                parts.extend(page.parts.into_iter().map(PartAnswer::confirmed));
                match page.next_part_number.filter(|next| *next > from) {
                    Some(next) => from = next,
                    None => return Ok(parts),
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
            let tags: Vec<&str> = parts.iter().map(|part| part.tag.as_str()).collect();
            let fields = json!({"fileId": session, "partSha1Array": tags});
            let asking = Asking {
                headers: self.replica_headers(file),
                about: About::Session,
                answer_timeout: FINISH_TIMEOUT,
                ..Asking::of("b2_finish_large_file", fields)
            };
            let finished: FileAnswer = self.ask(asking).await.map_err(committing)?;
            self.drop_urls(Target::Large(session));
            Ok(RemoteVersion { id: finished.file_id, status: 200 })
        }
        .boxed()
    }

    fn cancel<'a>(
        &'a self,
        _bucket: &'a RemoteBucket,
        _name: &'a str,
        session: &'a str,
    ) -> BoxFuture<'a, Result<(), RemoteFault>> {
        async move {
            self.drop_urls(Target::Large(session));
            let asking = Asking::of("b2_cancel_large_file", json!({"fileId": session}));
            let canceled: Result<Value, _> =
                self.ask(Asking { about: About::Session, ..asking }).await;
            match canceled {
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
            let mut fields = Map::new();
            fields.insert("prefix".to_owned(), prefix.into());
            fields.insert("maxFileCount".to_owned(), LIST_PAGE.into());
            // No name at B2 has a line feed in it.
            if let Some((name, id)) = from.and_then(|from| from.split_once('\n')) {
                fields.insert("startFileName".to_owned(), name.into());
                fields.insert("startFileId".to_owned(), id.into());
            }
            let page = self.versions(bucket, fields).await?;
            let next = page
                .next_file_name
                .map(|name| format!("{name}\n{}", page.next_file_id.unwrap_or_default()));
            let uploads = page.files.into_iter().filter(|one| one.action == "upload");
            let versions = uploads.map(|version| {
                let at = version.info(UPLOADED).and_then(|digits| digits.parse().ok());
                ListedVersion {
                    size: version.content_length.unwrap_or_default(),
                    sha1: version.sha1().map(str::to_owned),
                    etag: None,
                    origin: version.info(ORIGIN).map(str::to_owned),
                    upload_at: at.or(version.upload_timestamp).map(Millis),
                    id: version.file_id.unwrap_or_default(),
                    name: version.file_name,
                }
            });
            Ok(ListedPage { versions: versions.collect(), next })
        }
        .boxed()
    }
}
