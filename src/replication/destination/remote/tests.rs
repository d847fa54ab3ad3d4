//! The clients against a whole kiln, and against servers that do as a test says.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::domain::digest::{Md5Hasher, Sha1Hasher};
use crate::domain::file::ContentSha1;
use crate::domain::ids::AccountId;
use crate::domain::lock::RetentionMode;
use crate::domain::range::ByteRange;
use crate::domain::remote::{RemoteId, RemoteOptions};
use crate::operations::error::{Error, Fault};
use crate::replication::destination::store::{
    ConfirmedPart, Content, ListedVersion, Pace, PartPlan, RemoteBucket,
};
use crate::testing::{TestOptions, TestServer};

const BUCKET: &str = "offsite-photos";
const ORIGIN: &str = "9f0c2d4b6a8e1357.4_z8d625eb63be2775577c70e1a_f1107e2a4b0cc0a02_d20220104_m150118_\
                      c002_v0001112_t0011";
const UPLOADED_AT: Millis = Millis(1_600_000_000_123);
const STALL: Duration = Duration::from_millis(400);
const MIB: usize = 1024 * 1024;

/// Content in memory, in chunks that fit nothing in particular.
struct InMemory {
    bytes: Bytes,
    /// Reading stops here.
    broken_at: Option<u64>,
}

impl Content for InMemory {
    fn open(&self, range: ByteRange) -> BoxStream<'static, Result<Bytes, Error>> {
        let at = |position: u64| usize::try_from(position).unwrap();
        let end = self.broken_at.map_or(range.end, |broken| broken.min(range.end));
        let bytes = self.bytes.slice(at(range.start)..at(end.max(range.start)));
        let chunks: Vec<_> = bytes.chunks(300_000).map(Bytes::copy_from_slice).map(Ok).collect();
        let fault = Fault {
            doing: "read",
            may_retry: false,
            source: Box::new(std::io::Error::other("damaged")),
        };
        let broken = (end < range.end).then(|| Err(Error::Fault(fault)));
        stream::iter(chunks.into_iter().chain(broken)).boxed()
    }
}

/// Notes what goes out.
#[derive(Default)]
struct Noted(Mutex<Vec<u64>>);

impl Noted {
    fn pieces(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Pace for Noted {
    fn admit(&self, bytes: u64) -> BoxFuture<'static, ()> {
        self.0.lock().unwrap().push(bytes);
        async {}.boxed()
    }
}

/// A file with its content.
struct Sample {
    file: OutgoingFile,
    content: Arc<dyn Content>,
    pace: Arc<dyn Pace>,
    noted: Arc<Noted>,
}

impl Sample {
    fn new(name: &str, size: usize) -> Self {
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 % 251).to_le_bytes()[0]).collect();
        Self::of(name, bytes)
    }

    fn of(name: &str, bytes: Vec<u8>) -> Self {
        let (mut sha1, mut md5) = (Sha1Hasher::default(), Md5Hasher::default());
        sha1.update(&bytes);
        md5.update(&bytes);
        let info = r#"{"color":"blåbär 1%","src_last_modified_millis":"1600000000000","b2-cache-control":"max-age=3600"}"#;
        let file = OutgoingFile {
            bucket: RemoteBucket::Name(BUCKET.to_owned()),
            name: name.to_owned(),
            size: u64::try_from(bytes.len()).unwrap(),
            content_type: "image/x-test".to_owned(),
            info: FileInfo::stored(info.to_owned()),
            sha1: ContentSha1::Verified(sha1.finish()),
            md5: Some(md5.finish()),
            upload_at: UPLOADED_AT,
            origin: ORIGIN.to_owned(),
            hops: vec!["9f0c2d4b6a8e1357".to_owned()],
            lock: FileLock::default(),
            is_encrypted: false,
            part_sizes: Vec::new(),
            source_key: None,
        };
        let noted = Arc::new(Noted::default());
        let pace: Arc<dyn Pace> = Arc::<Noted>::clone(&noted);
        let content = Arc::new(InMemory { bytes: bytes.into(), broken_at: None });
        Self { file, content, pace, noted }
    }

    fn sending(&self) -> Sending<'_> {
        Sending { file: &self.file, content: &self.content, pace: &self.pace }
    }
}

fn remote(url: &str) -> Remote {
    Remote {
        id: RemoteId(1),
        account: AccountId::parse(TestServer::KEY_ID).unwrap(),
        org_id: TestServer::KEY_ID.to_owned(),
        name: "offsite".to_owned(),
        description: None,
        url: url.to_owned(),
        remote_org_id: None,
        allow_insecure_tls: false,
        options: RemoteOptions::default(),
        created_at: Millis(0),
        updated_at: Millis(0),
    }
}

fn lines() -> RemoteLines {
    let clock = Arc::new(crate::clock::SystemClock::new());
    let http = || Arc::new(RemoteHttp::impatient(STALL));
    RemoteLines { clock, verified: http(), unverified: http() }
}

async fn open_as(remote: &Remote, token: &str) -> Arc<dyn RemoteStore> {
    connect(remote, &RemoteToken::parse(token).unwrap(), &lines()).await.unwrap()
}

fn token() -> String {
    format!("{}:{}", TestServer::KEY_ID, TestServer::KEY)
}

async fn open(url: &str) -> Arc<dyn RemoteStore> {
    open_as(&remote(url), &token()).await
}

/// Calls an operation of a kiln as its owner.
async fn operate(server: &TestServer, operation: &str, mut fields: Value) -> Value {
    let http = RemoteHttp::impatient(STALL * 20);
    let call = |url: String, authorization: String, body: OutgoingBody| OutgoingCall {
        method: "POST",
        url,
        headers: vec![("Authorization".to_owned(), authorization)],
        body,
        answer_bytes_max: MIB,
        answer_timeout: ANSWER_TIMEOUT,
    };
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, token());
    let endpoint = format!("{}/b2api/v4/", server.endpoint());
    let url = format!("{endpoint}b2_authorize_account");
    let account = http.call(call(url, format!("Basic {basic}"), OutgoingBody::None)).await.unwrap();
    let account: Value = serde_json::from_slice(&account.body).unwrap();
    fields["accountId"] = account["accountId"].clone();
    let body = OutgoingBody::Bytes(fields.to_string().into());
    let token = account["authorizationToken"].as_str().unwrap_or_default().to_owned();
    let answer = http.call(call(format!("{endpoint}{operation}"), token, body)).await.unwrap();
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(answer.is_success(), "{operation}: {told}");
    serde_json::from_str(&told).unwrap()
}

/// A kiln with the bucket; its id.
async fn kiln_with(options: TestOptions, bucket: Value) -> (TestServer, String) {
    let server = options.start().unwrap();
    let mut fields = json!({"bucketName": BUCKET, "bucketType": "allPrivate"});
    fields.as_object_mut().unwrap().extend(bucket.as_object().unwrap().clone());
    let made = operate(&server, "b2_create_bucket", fields).await;
    let id = made["bucketId"].as_str().unwrap().to_owned();
    (server, id)
}

async fn kiln() -> (TestServer, String) {
    kiln_with(TestServer::options(), json!({})).await
}

async fn versions(server: &TestServer, bucket: &str) -> Vec<Value> {
    let listed = operate(server, "b2_list_file_versions", json!({"bucketId": bucket})).await;
    listed["files"].as_array().unwrap().clone()
}

/// Opens a kiln by its S3 API, whose doors the first key of an account does not open.
async fn open_s3(server: &TestServer) -> Arc<dyn RemoteStore> {
    open_as(&remote(&s3_url(server)), &s3_token(server).await).await
}

async fn s3_token(server: &TestServer) -> String {
    let rights = [
        "listBuckets",
        "listFiles",
        "readFiles",
        "writeFiles",
        "readBuckets",
        "readBucketRetentions",
        "writeFileRetentions",
        "writeFileLegalHolds",
        "readFileRetentions",
        "readFileLegalHolds",
    ];
    let fields = json!({"capabilities": rights, "keyName": "offsite"});
    let key = operate(server, "b2_create_key", fields).await;
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    format!("{}:{}", text("applicationKeyId"), text("applicationKey"))
}

/// The kiln by both of its APIs.
async fn both(server: &TestServer) -> [Arc<dyn RemoteStore>; 2] {
    [open(&b2_url(server)).await, open_s3(server).await]
}

fn b2_url(server: &TestServer) -> String {
    format!("b2+{}", server.endpoint())
}

fn s3_url(server: &TestServer) -> String {
    format!("s3+{}?region=us-west-000", server.endpoint())
}

/// Checks that nothing of a fault is secret.
fn checked(fault: RemoteFault) -> RemoteFault {
    let shown = format!("{fault:?}");
    assert!(!shown.contains(TestServer::KEY) && !shown.contains("127.0.0.1"), "{shown}");
    assert!(!fault.text.is_empty(), "{shown}");
    fault
}

fn in_parts(file: &OutgoingFile, part: u64) -> Vec<PartPlan> {
    let count = file.size.div_ceil(part);
    let range = |at: u64| ByteRange { start: at * part, end: ((at + 1) * part).min(file.size) };
    (1..).zip((0..count).map(range)).map(|(number, range)| PartPlan { number, range }).collect()
}

async fn send_parts(
    store: &Arc<dyn RemoteStore>,
    sample: &Sample,
    session: &str,
    plan: &[PartPlan],
) -> Vec<ConfirmedPart> {
    let mut sent = Vec::new();
    for part in plan {
        sent.push(store.put_part(sample.sending(), session, *part).await.unwrap());
    }
    sent
}

/// What every kind of store does.
async fn put_find_list_check(store: &Arc<dyn RemoteStore>) -> Vec<ListedVersion> {
    let bucket = RemoteBucket::Name(BUCKET.to_owned());
    store.check(&bucket).await.unwrap();
    let awkward = ["n"; 3].map(|letter| letter.repeat(230)).join("/");
    for (name, size) in [
        ("empty", 0),
        ("one", 1),
        ("photos/å +%20 (1)&=;🦀.jpg", 1000),
        ("large", 3 * MIB + 17),
        (awkward.as_str(), 10),
    ] {
        let sample = Sample::new(name, size);
        assert_eq!(store.find(&sample.file).await.unwrap(), None, "{name}");
        let put = store.put(sample.sending()).await.unwrap();
        assert_eq!((put.status, put.id.is_empty()), (200, false), "{name}");
        assert_eq!(store.find(&sample.file).await.unwrap(), Some(put), "{name}");
        let other = OutgoingFile { origin: "another.1".to_owned(), ..sample.file.clone() };
        assert_eq!(store.find(&other).await.unwrap(), None, "{name}");
        let pieces = sample.noted.pieces();
        assert!(pieces.iter().all(|piece| *piece <= 64 * 1024), "{pieces:?}");
        assert_eq!(pieces.iter().sum::<u64>(), sample.file.size, "{name}");
    }
    store.check(&bucket).await.unwrap();
    let page = store.list(&bucket, "", None).await.unwrap();
    assert_eq!(page.versions.len(), 5, "a check leaves nothing");
    assert_eq!(page.next, None);
    let some = store.list(&bucket, "photos/", None).await.unwrap();
    assert_eq!(some.versions.len(), 1);
    page.versions
}

#[tokio::test]
async fn replication_98_113_114_205_b2_takes_files_whole_and_they_are_found_again() {
    let (server, bucket) = kiln().await;
    let store = open(&b2_url(&server)).await;
    assert!(!store.keeps_timestamps());
    let listed = put_find_list_check(&store).await;
    for version in &listed {
        assert_eq!(version.origin.as_deref(), Some(ORIGIN));
        assert_eq!(version.upload_at, Some(UPLOADED_AT));
    }
    for version in versions(&server, &bucket).await {
        let name = version["fileName"].as_str().unwrap();
        let sample =
            Sample::new(name, usize::try_from(version["contentLength"].as_u64().unwrap()).unwrap());
        assert_eq!(version["contentType"], "image/x-test");
        assert_eq!(version["contentSha1"], sample.file.sha1.to_string());
        let mut infos = FileInfo::entries(&sample.file.info);
        infos.insert("src_repl_origin".to_owned(), ORIGIN.to_owned());
        infos.insert("src_upload_millis".to_owned(), UPLOADED_AT.0.to_string());
        assert_eq!(version["fileInfo"], json!(infos), "{name}");
    }
}

#[tokio::test]
async fn replication_98_113_114_205_s3_takes_objects_whole_and_they_are_found_again() {
    let (server, bucket) = kiln().await;
    let store = open_s3(&server).await;
    let listed = put_find_list_check(&store).await;
    for version in &listed {
        let size = usize::try_from(version.size).unwrap();
        let md5 = Sample::new(&version.name, size).file.md5.unwrap();
        assert_eq!(version.etag, Some(md5.to_string()));
    }
    for version in versions(&server, &bucket).await {
        let infos = version["fileInfo"].as_object().unwrap();
        assert_eq!(infos["src-repl-origin"], ORIGIN);
        assert_eq!(infos["src_upload_millis"], UPLOADED_AT.0.to_string());
        assert_eq!(infos["src_last_modified_millis"], "1600000000000");
        assert_eq!(infos["color"], "bl%C3%A5b%C3%A4r%201%25", "no header can carry it as it is");
        assert_eq!(infos["b2-cache-control"], "max-age=3600");
        assert_eq!(version["contentType"], "image/x-test");
    }
    // A version that is hidden, or below another one, is found as well.
    let sample = Sample::new("one", 1);
    let first = store.find(&sample.file).await.unwrap().unwrap();
    let fields = json!({"bucketId": bucket, "fileName": "one"});
    operate(&server, "b2_hide_file", fields).await;
    assert_eq!(store.find(&sample.file).await.unwrap().map(|found| found.id), Some(first.id));
}

/// Sends a file in parts, with all that can come in between.
async fn parts_of(store: &Arc<dyn RemoteStore>, name: &str, part: u64) {
    let sample = Sample::new(name, 12 * MIB + 5);
    let plan = in_parts(&sample.file, part);
    let bucket = sample.file.bucket.clone();
    let given_up = store.start(&sample.file).await.unwrap();
    send_parts(store, &sample, &given_up, &plan[..1]).await;
    for _ in 0..2 {
        store.cancel(&bucket, &sample.file.name, &given_up).await.unwrap();
    }
    let lost = store.list_parts(&sample.file, &given_up).await.map_err(checked).unwrap_err();
    assert_eq!(lost.class, AnswerClass::SessionLost, "{lost:?}");
    let lost = store.put_part(sample.sending(), &given_up, plan[0]).await.map_err(checked);
    assert_eq!(lost.unwrap_err().class, AnswerClass::SessionLost);
    let part = ConfirmedPart { number: 1, size: part, tag: "0".repeat(40) };
    let lost = store.finish(&sample.file, &given_up, &[part]).await.map_err(checked);
    assert_eq!(lost.unwrap_err().class, AnswerClass::SessionLost);

    let session = store.start(&sample.file).await.unwrap();
    assert_eq!(store.list_parts(&sample.file, &session).await.unwrap(), []);
    let mut sent = send_parts(store, &sample, &session, &plan[1..]).await;
    assert_eq!(store.list_parts(&sample.file, &session).await.unwrap(), sent);
    assert_eq!(store.find(&sample.file).await.unwrap(), None, "nothing shows yet");
    sent.splice(0..0, send_parts(store, &sample, &session, &plan[..1]).await);
    let finished = store.finish(&sample.file, &session, &sent).await.unwrap();
    let found = store.find(&sample.file).await.unwrap();
    assert_eq!(found.map(|found| found.id), Some(finished.id));
    let pieces = sample.noted.pieces();
    assert!(pieces.iter().all(|piece| *piece <= 64 * 1024), "{pieces:?}");
}

#[tokio::test]
async fn replication_205_208_b2_takes_parts_and_knows_which_it_has() {
    let (server, bucket) = kiln().await;
    let store = open(&b2_url(&server)).await;
    parts_of(&store, "large/file", 5_000_000).await;
    let version = versions(&server, &bucket).await.remove(0);
    let sample = Sample::new("large/file", 12 * MIB + 5);
    assert_eq!(version["contentSha1"], "none");
    assert_eq!(version["fileInfo"]["large_file_sha1"], sample.file.sha1.to_string());
    assert_eq!(version["fileInfo"]["src_repl_origin"], ORIGIN);
    let left = operate(&server, "b2_list_unfinished_large_files", json!({"bucketId": bucket}));
    assert_eq!(left.await["files"], json!([]));
    assert_eq!(store.part_rules().smallest, 5_000_000);
}

#[tokio::test]
async fn replication_205_208_s3_takes_parts_and_knows_which_it_has() {
    let (server, bucket) = kiln().await;
    let store = open_s3(&server).await;
    parts_of(&store, "large/file", 5 * 1024 * 1024).await;
    let version = versions(&server, &bucket).await.remove(0);
    assert_eq!(version["fileInfo"]["src-repl-origin"], ORIGIN);
    assert_eq!(version["contentLength"], 12 * MIB + 5);
}

#[tokio::test]
async fn wrong_keys_and_missing_buckets_are_told_apart() {
    let (server, bucket) = kiln().await;
    let sample = Sample::new("a", 10);
    for url in [b2_url(&server), s3_url(&server)] {
        for token in [
            format!("{}:{}x", TestServer::KEY_ID, TestServer::KEY),
            format!("000000000000:{}", TestServer::KEY),
        ] {
            let store = open_as(&remote(&url), &token).await;
            let fault = store.check(&sample.file.bucket).await.map_err(checked).unwrap_err();
            assert_eq!(fault.class, AnswerClass::Unauthorized, "{url}: {fault:?}");
            let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
            assert_eq!(fault.class, AnswerClass::Unauthorized, "{url}: {fault:?}");
        }
        let right = if url.starts_with("s3+") { s3_token(&server).await } else { token() };
        let store = open_as(&remote(&url), &right).await;
        let nowhere = RemoteBucket::Name("not-there-at-all".to_owned());
        let fault = store.check(&nowhere).await.map_err(checked).unwrap_err();
        assert_eq!((fault.class, fault.status), (AnswerClass::BucketMissing, 404), "{url}");
        let mut lost = Sample::new("a", 10);
        lost.file.bucket = nowhere;
        let fault = store.put(lost.sending()).await.map_err(checked).unwrap_err();
        assert_eq!(fault.class, AnswerClass::BucketMissing, "{url}: {fault:?}");
        let fault = store.list(&lost.file.bucket, "", None).await.map_err(checked).unwrap_err();
        assert_eq!(fault.class, AnswerClass::BucketMissing, "{url}: {fault:?}");
    }
    let store = open(&b2_url(&server)).await;
    for named in [bucket.clone(), "f".repeat(24)] {
        let checked = store.check(&RemoteBucket::Id(named.clone())).await;
        assert_eq!(checked.is_ok(), named == bucket, "{checked:?}");
    }
}

#[tokio::test]
async fn a_key_for_one_bucket_suffices() {
    let (server, bucket) = kiln().await;
    let fields = json!({
        "capabilities": ["writeFiles", "listFiles"], "keyName": "offsite", "bucketIds": [bucket],
    });
    let key = operate(&server, "b2_create_key", fields).await;
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    let token = format!("{}:{}", text("applicationKeyId"), text("applicationKey"));
    let store = open_as(&remote(&b2_url(&server)), &token).await;
    let sample = Sample::new("a", 10);
    let told = store.check(&sample.file.bucket).await.map_err(checked).unwrap();
    assert_eq!(told.bucket_id, Some(bucket));
    let put = store.put(sample.sending()).await.unwrap();
    assert_eq!(store.find(&sample.file).await.unwrap(), Some(put));
}

#[tokio::test]
async fn replication_193_a_token_that_has_run_out_is_renewed_once_within_a_call() {
    let (server, bucket) = kiln().await;
    let store = open(&b2_url(&server)).await;
    let sample = Sample::new("a", 10);
    store.put(sample.sending()).await.unwrap();
    // The token of the account and the upload URL that was kept have both run out.
    server.advance_clock(Duration::from_hours(25)).unwrap();
    store.put(Sample::new("b", 10).sending()).await.unwrap();
    store.check(&sample.file.bucket).await.unwrap();
    assert_eq!(versions(&server, &bucket).await.len(), 2);
    let rule = r#"{"operation": "b2_list_file_versions", "status": 401, "code": "bad_auth_token"}"#;
    server.plan_fault(rule).unwrap();
    let fault = store.list(&sample.file.bucket, "", None).await.map_err(checked).unwrap_err();
    assert_eq!((fault.class, fault.status), (AnswerClass::Refresh, 401));
    let fired = server.control("GET", "/admin/faults", "").unwrap();
    let fired: Value = serde_json::from_str(&fired).unwrap();
    assert!(fired.to_string().contains("\"fired\":2"), "{fired}");
}

#[tokio::test]
async fn upload_urls_that_fail_are_thrown_away_up_to_five_times() {
    let (server, bucket) = kiln().await;
    let store = open(&b2_url(&server)).await;
    let plan = |rule: Value| server.plan_fault(&rule.to_string()).unwrap();
    let operation = "b2_upload_file";
    for rule in [
        json!({"operation": operation, "status": 503, "times": 4}),
        json!({"operation": operation, "status": 401, "code": "expired_auth_token", "times": 4}),
        json!({"operation": operation, "status": 400, "code": "auth_token_limit", "times": 4}),
    ] {
        plan(rule);
        store.put(Sample::new("a", 10).sending()).await.unwrap();
    }
    plan(json!({"operation": operation, "status": 503, "times": 5}));
    let fault = store.put(Sample::new("b", 10).sending()).await.map_err(checked).unwrap_err();
    assert_eq!((fault.class, fault.status), (AnswerClass::Busy, 503));
    assert_eq!(fault.retry_after_ms, Some(1000));
    assert!(!fault.is_ambiguous);
    store.put(Sample::new("b", 10).sending()).await.unwrap();
    // Whoever asks for a longer pause gets one.
    plan(json!({"operation": operation, "status": 503, "retryAfter": 120, "times": 1}));
    let fault = store.put(Sample::new("c", 10).sending()).await.map_err(checked).unwrap_err();
    assert_eq!(fault.retry_after_ms, Some(120_000));
    assert_eq!(versions(&server, &bucket).await.len(), 4);
}

#[tokio::test]
async fn replication_205_a_lost_answer_is_ambiguous_and_the_version_is_found() {
    let (server, bucket) = kiln().await;
    let store = open(&b2_url(&server)).await;
    for (name, rule) in [
        ("a", json!({"operation": "b2_upload_file", "status": 500, "performed": true, "times": 1})),
        (
            "b",
            json!({"operation": "b2_upload_file", "disconnect": true, "performed": true, "times": 1}),
        ),
    ] {
        server.plan_fault(&rule.to_string()).unwrap();
        let sample = Sample::new(name, 1000);
        let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
        assert!(fault.is_ambiguous, "{fault:?}");
        assert!(store.find(&sample.file).await.unwrap().is_some());
    }
    assert_eq!(versions(&server, &bucket).await.len(), 2, "nothing was sent twice");
    let sample = Sample::new("parts", 6 * MIB);
    let session = store.start(&sample.file).await.unwrap();
    let sent = send_parts(&store, &sample, &session, &in_parts(&sample.file, 5_000_000)).await;
    let rule = json!({"operation": "b2_finish_large_file", "disconnect": true, "performed": true, "times": 1});
    server.plan_fault(&rule.to_string()).unwrap();
    let fault = store.finish(&sample.file, &session, &sent).await.map_err(checked).unwrap_err();
    assert_eq!((fault.class, fault.status), (AnswerClass::Unreachable, 0));
    assert!(fault.is_ambiguous);
    let found = store.find(&sample.file).await.unwrap().unwrap();
    assert_eq!(found.id, session);
    store.cancel(&sample.file.bucket, "parts", &session).await.unwrap();
    assert!(store.find(&sample.file).await.unwrap().is_some(), "what is finished stays");
}

#[tokio::test]
async fn replication_211_212_wrong_and_broken_content_becomes_no_version() {
    let (server, bucket) = kiln().await;
    for (url, store) in ["b2", "s3"].into_iter().zip(both(&server).await) {
        let mut sample = Sample::new("a", MIB);
        let right = (sample.file.sha1, sample.file.md5);
        let other = Sample::new("a", MIB + 1).file;
        (sample.file.sha1, sample.file.md5) = (other.sha1, other.md5);
        let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
        assert_eq!(fault.class, AnswerClass::ChecksumMismatch, "{url}: {fault:?}");
        (sample.file.sha1, sample.file.md5) = right;
        let bytes = Bytes::from(vec![0; MIB]);
        sample.content = Arc::new(InMemory { bytes, broken_at: Some(500_000) });
        let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
        assert_eq!(fault.class, AnswerClass::SourceUnreadable, "{url}: {fault:?}");
        assert!(!fault.is_ambiguous);
    }
    assert_eq!(versions(&server, &bucket).await, Vec::<Value>::new());
}

#[tokio::test]
async fn replication_98_what_is_not_known_of_content_is_computed_on_the_way() {
    let (server, bucket) = kiln().await;
    let store = open(&b2_url(&server)).await;
    let mut sample = Sample::new("a", 2 * MIB);
    let right = sample.file.sha1.to_string();
    sample.file.sha1 = ContentSha1::None;
    store.put(sample.sending()).await.unwrap();
    assert_eq!(versions(&server, &bucket).await[0]["contentSha1"], right);
    let store = open_s3(&server).await;
    let mut sample = Sample::new("b", 2 * MIB);
    sample.file.md5 = None;
    store.put(sample.sending()).await.unwrap();
}

#[tokio::test]
async fn replication_104_108_locks_and_encryption_go_along() {
    let (server, bucket) = kiln_with(TestServer::options(), json!({"fileLockEnabled": true})).await;
    let until = crate::clock::SystemClock::new().now().plus(3_600_000);
    let ended = Millis(1_000_000_000_000);
    for (at, store) in both(&server).await.into_iter().enumerate() {
        let mut sample = Sample::new(&format!("locked{at}"), 5_242_890);
        sample.file.lock = FileLock {
            retention: Some(Retention { mode: RetentionMode::Governance, until }),
            legal_hold: Some(true),
        };
        sample.file.is_encrypted = true;
        let told = store.check(&sample.file.bucket).await.unwrap();
        assert_eq!(told.has_file_lock, Some(true), "{at}");
        store.put(sample.sending()).await.map_err(checked).unwrap();
        sample.file.name = format!("parts{at}");
        let session = store.start(&sample.file).await.map_err(checked).unwrap();
        let plan = in_parts(&sample.file, 5_242_880);
        let sent = send_parts(&store, &sample, &session, &plan).await;
        store.finish(&sample.file, &session, &sent).await.map_err(checked).unwrap();
        for version in versions(&server, &bucket).await {
            let retention = &version["fileRetention"]["value"];
            assert_eq!(retention["mode"], "governance", "{version}");
            assert_eq!(retention["retainUntilTimestamp"], until.0, "{version}");
            assert_eq!(version["legalHold"]["value"], "on");
            assert_eq!(version["serverSideEncryption"]["mode"], "SSE-B2");
        }
        // A retention that is over already would be refused.
        let mut sample = Sample::new(&format!("ended{at}"), 1);
        let retention = Some(Retention { mode: RetentionMode::Compliance, until: ended });
        sample.file.lock = FileLock { retention, legal_hold: Some(false) };
        store.put(sample.sending()).await.map_err(checked).unwrap();
        operate(
            &server,
            "b2_delete_file_version",
            json!({
                "fileName": sample.file.name,
                "fileId": store.find(&sample.file).await.unwrap().unwrap().id,
            }),
        )
        .await;
    }
    let (open_server, _) = kiln().await;
    for store in both(&open_server).await {
        let mut sample = Sample::new("locked", 1);
        sample.file.lock = FileLock { retention: None, legal_hold: Some(true) };
        let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
        assert_eq!(fault.class, AnswerClass::Rejected, "{fault:?}");
    }
}

#[tokio::test]
async fn marks_are_left_out_where_there_is_no_room_or_they_are_not_wanted() {
    let (server, bucket) = kiln().await;
    let full: BTreeMap<String, String> =
        (0..10).map(|at| (format!("info{at}"), "x".to_owned())).collect();
    for (at, store) in both(&server).await.into_iter().enumerate() {
        let mut sample = Sample::new(&format!("full{at}"), 1000);
        sample.file.info = FileInfo::stored(json!(full).to_string());
        let put = store.put(sample.sending()).await.map_err(checked).unwrap();
        assert_eq!(store.find(&sample.file).await.unwrap(), Some(put), "by its content");
        let mut other = Sample::of(&sample.file.name, vec![1; 1000]);
        other.file.info = sample.file.info.clone();
        assert_eq!(store.find(&other.file).await.unwrap(), None);
    }
    for version in versions(&server, &bucket).await {
        assert_eq!(version["fileInfo"], json!(full));
    }
    let mut remote = remote(&b2_url(&server));
    remote.options.marker = crate::domain::remote::Marker::None;
    let store = open_as(&remote, &token()).await;
    let mut sample = Sample::new("unmarked", 1000);
    sample.file.info = FileInfo::default();
    let put = store.put(sample.sending()).await.unwrap();
    assert_eq!(store.find(&sample.file).await.unwrap(), Some(put));
    let last = versions(&server, &bucket).await.pop().unwrap();
    assert_eq!((&last["fileName"], &last["fileInfo"]), (&json!("unmarked"), &json!({})));
    // Nine infos leave room for the most important mark only.
    let nine: BTreeMap<_, _> = full.into_iter().take(9).collect();
    let mut sample = Sample::new("nine", 1000);
    sample.file.info = FileInfo::stored(json!(nine).to_string());
    let marks = vec![("first", "1".to_owned()), ("second", "2".to_owned())];
    let marked = with_marks(&sample.file, marks);
    assert!(marked.contains_key("first") && !marked.contains_key("second"));
    let long = json!({"long": "x".repeat(2000)}).to_string();
    sample.file.info = FileInfo::stored(long);
    assert_eq!(with_marks(&sample.file, vec![("first", "x".repeat(50))]).len(), 1);
}

#[tokio::test]
async fn replication_100_stores_that_take_timestamps_are_given_them() {
    let options = TestServer::options().setting("uploads.custom_timestamps", true);
    let (server, bucket) = kiln_with(options, json!({})).await;
    let mut remote = remote(&b2_url(&server));
    remote.options.custom_timestamps = true;
    let store = open_as(&remote, &token()).await;
    assert!(store.keeps_timestamps());
    let sample = Sample::new("a", 6 * MIB);
    store.put(sample.sending()).await.map_err(checked).unwrap();
    let session = store.start(&sample.file).await.map_err(checked).unwrap();
    let sent = send_parts(&store, &sample, &session, &in_parts(&sample.file, 5_000_000)).await;
    store.finish(&sample.file, &session, &sent).await.unwrap();
    for version in versions(&server, &bucket).await {
        let at = version["uploadTimestamp"].as_i64().unwrap();
        // Two versions of a name have two times.
        assert!((UPLOADED_AT.0..UPLOADED_AT.0 + 2).contains(&at), "{at}");
        assert_eq!(version["fileInfo"].get("src_upload_millis"), None);
    }
}

#[tokio::test]
async fn replication_166_f65_names_and_certificates_that_are_wrong_give_no_answer() {
    let options = TestServer::options().setting("tls_self_signed", "true");
    let server = options.start().unwrap();
    let url = format!("b2+{}", server.endpoint());
    assert!(url.starts_with("b2+https://"), "{url}");
    let bucket = RemoteBucket::Name(BUCKET.to_owned());
    let mut remote = remote(&url);
    let clock = Arc::new(crate::clock::SystemClock::new());
    let lines = RemoteLines::new(clock, None).unwrap();
    let token = RemoteToken::parse(&token()).unwrap();
    let store = connect(&remote, &token, &lines).await.unwrap();
    let fault = store.check(&bucket).await.map_err(checked).unwrap_err();
    assert_eq!((fault.class, fault.status), (AnswerClass::Unreachable, 0), "{fault:?}");
    assert!(!fault.is_ambiguous);
    remote.allow_insecure_tls = true;
    let store = connect(&remote, &token, &lines).await.unwrap();
    let fault = store.check(&bucket).await.map_err(checked).unwrap_err();
    assert_eq!(fault.class, AnswerClass::BucketMissing, "it was spoken to: {fault:?}");
    remote.url = "b2+https://host.invalid".to_owned();
    let store = connect(&remote, &token, &lines).await.unwrap();
    let fault = store.check(&bucket).await.map_err(checked).unwrap_err();
    assert_eq!((fault.class, fault.status), (AnswerClass::Unreachable, 0), "{fault:?}");
    // With the certificate trusted there is nothing to allow.
    let pem = std::fs::read(server.data_dir().join("tls-cert.pem")).unwrap();
    let clock = Arc::new(crate::clock::SystemClock::new());
    let lines = RemoteLines::new(clock, Some(&pem)).unwrap();
    remote.url = url;
    remote.allow_insecure_tls = false;
    let store = connect(&remote, &token, &lines).await.unwrap();
    let fault = store.check(&bucket).await.map_err(checked).unwrap_err();
    assert_eq!(fault.class, AnswerClass::BucketMissing, "{fault:?}");
}

/// What arrived at a scripted server.
#[derive(Clone, Debug)]
struct Arrived {
    /// Method and address.
    line: String,
    head: String,
    body: Vec<u8>,
}

impl Arrived {
    fn header(&self, name: &str) -> Option<&str> {
        let name = format!("{name}: ");
        self.head.lines().find_map(|line| {
            line.get(..name.len())
                .filter(|start| start.eq_ignore_ascii_case(&name))
                .and_then(|_| line.get(name.len()..))
        })
    }
}

/// What it does in return.
#[derive(Clone, Debug)]
enum Reaction {
    Answer(u16, &'static [(&'static str, &'static str)], String),
    /// As it is, and then the end of the connection.
    Raw(&'static str),
    /// The connection is reset once the request is here.
    Reset,
    /// Not even the body is read.
    ResetAtOnce,
    Silence,
}

fn told(body: &Value) -> Reaction {
    Reaction::Answer(200, &[], body.to_string())
}

/// Reactions to requests, by method and path.
type Plan = Vec<(String, VecDeque<Reaction>)>;

/// A server that answers by what a request begins with, each time with the next of the reactions, the
/// last one for ever.
#[derive(Clone, Default)]
struct Scripted {
    plan: Arc<Mutex<Plan>>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    address: String,
}

impl Scripted {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let scripted = Self { address, ..Self::default() };
        let shared = scripted.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        scripted
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn on(&self, line: &str, reactions: impl IntoIterator<Item = Reaction>) {
        let mut plan = self.plan.lock().unwrap();
        plan.retain(|(known, _)| known != line);
        plan.push((line.to_owned(), reactions.into_iter().collect()));
        plan.sort_by_key(|(line, _)| std::cmp::Reverse(line.len()));
    }

    fn arrived(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.arrived.lock().unwrap())
    }

    fn reaction(&self, line: &str) -> Reaction {
        let mut plan = self.plan.lock().unwrap();
        let found = plan.iter_mut().find(|(start, _)| line.starts_with(start.as_str()));
        match found {
            Some((_, reactions)) if reactions.len() > 1 => reactions.pop_front().unwrap(),
            Some((_, reactions)) => reactions[0].clone(),
            None => Reaction::Answer(404, &[], "{}".to_owned()),
        }
    }

    async fn serve(&self, mut stream: TcpStream) {
        loop {
            let mut read = Vec::new();
            let mut buffer = vec![0; 64 * 1024];
            let head_end = loop {
                if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                    break at;
                }
                match stream.read(&mut buffer).await {
                    Ok(count) if count > 0 => read.extend_from_slice(&buffer[..count]),
                    _ => return,
                }
            };
            let head = String::from_utf8(read[..head_end].to_vec()).unwrap();
            let line = head.lines().next().unwrap().replace(" HTTP/1.1", "");
            let reaction = self.reaction(&line);
            let mut arrived = Arrived { line, head, body: read[head_end + 4..].to_vec() };
            if matches!(reaction, Reaction::ResetAtOnce) {
                self.arrived.lock().unwrap().push(arrived);
                stream.set_zero_linger().unwrap();
                return;
            }
            let length: usize =
                arrived.header("content-length").map_or(0, |digits| digits.parse().unwrap());
            while arrived.body.len() < length {
                match stream.read(&mut buffer).await {
                    Ok(count) if count > 0 => arrived.body.extend_from_slice(&buffer[..count]),
                    _ => return,
                }
            }
            let is_head = arrived.line.starts_with("HEAD ");
            self.arrived.lock().unwrap().push(arrived);
            match reaction {
                Reaction::Answer(status, headers, body) => {
                    let headers: Vec<String> = headers
                        .iter()
                        .map(|(name, value)| format!("{name}: {value}\r\n"))
                        .collect();
                    let length = if headers.concat().to_lowercase().contains("content-length")
                        || status == 204
                    {
                        String::new()
                    } else {
                        format!("Content-Length: {}\r\n", body.len())
                    };
                    let body = if is_head { String::new() } else { body };
                    let answer =
                        format!("HTTP/1.1 {status} X\r\n{length}{}\r\n{body}", headers.concat());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
                Reaction::Raw(text) => {
                    drop(stream.write_all(text.as_bytes()).await);
                    return;
                }
                Reaction::Reset | Reaction::ResetAtOnce => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
                Reaction::Silence => {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Answers like B2 until it is told otherwise.
    fn be_b2(&self) {
        let base = self.url();
        let authorized = json!({
            "accountId": "0123456789ab", "authorizationToken": "t0ken-of-the-account",
            "apiInfo": {"storageApi": {
                "apiUrl": base, "absoluteMinimumPartSize": 5_000_000, "recommendedPartSize": 100_000_000,
                "allowed": {"buckets": null, "capabilities": []},
            }},
        });
        self.on("GET /b2api/v4/b2_authorize_account", [told(&authorized)]);
        let bucket = json!({"bucketId": "b1", "bucketName": BUCKET});
        self.on("POST /b2api/v4/b2_list_buckets", [told(&json!({"buckets": [bucket]}))]);
        let url = |path: &str| {
            told(&json!({
                "uploadUrl": format!("{base}{path}"), "authorizationToken": "t0ken-of-the-url",
            }))
        };
        self.on("POST /b2api/v4/b2_get_upload_url", [url("/upload")]);
        self.on("POST /b2api/v4/b2_get_upload_part_url", [url("/part")]);
        let nothing = json!({"files": [], "nextFileName": null, "nextFileId": null});
        self.on("POST /b2api/v4/b2_list_file_versions", [told(&nothing)]);
    }

    fn count(&self, line: &str) -> usize {
        self.arrived.lock().unwrap().iter().filter(|one| one.line.starts_with(line)).count()
    }
}

fn stored(sample: &Sample) -> Value {
    json!({
        "fileId": "4_z1", "action": "upload", "contentLength": sample.file.size,
        "contentSha1": sample.file.sha1.to_string(),
    })
}

#[tokio::test]
async fn what_speaks_there_is_found_out_when_nobody_says() {
    let (server, _) = kiln().await;
    let sample = Sample::new("a", 10);
    let store = open(server.endpoint()).await;
    assert!(store.keeps_timestamps(), "a kiln is a peer");
    // One that takes no replicas says so.
    let fault = store.check(&sample.file.bucket).await.map_err(checked).unwrap_err();
    assert!(fault.text.contains("replication.accept_peers"), "{fault:?}");
    let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
    assert_eq!((fault.class, fault.status), (AnswerClass::Unauthorized, 403));
    let b2 = Scripted::start().await;
    let code = json!({"status": 401, "code": "bad_auth_token", "message": ""});
    b2.on("GET /b2api/v4/b2_authorize_account", [Reaction::Answer(401, &[], code.to_string())]);
    assert!(!open(&b2.url()).await.keeps_timestamps(), "B2");
    let peer = Scripted::start().await;
    peer.on("GET /api/v2/instance", [told(&json!({"instanceId": "9f0c", "product": "kiln"}))]);
    let token = RemoteToken::parse(&token()).unwrap();
    let opened = connect(&remote(&peer.url()), &token, &lines()).await.unwrap();
    assert!(opened.keeps_timestamps(), "a peer");
    for (status, body) in [(404, "{}"), (401, "<html>"), (200, "{}"), (302, "")] {
        let other = Scripted::start().await;
        other.on("GET", [Reaction::Answer(status, &[], body.to_owned())]);
        let fault = connect(&remote(&other.url()), &token, &lines()).await;
        let fault = fault.map(drop).map_err(checked).unwrap_err();
        assert_eq!((fault.class, fault.status), (AnswerClass::Misdirected, status));
    }
    let nobody = remote("http://127.0.0.1:1");
    let fault = connect(&nobody, &token, &lines()).await.map(drop).map_err(checked).unwrap_err();
    assert_eq!((fault.class, fault.status), (AnswerClass::Unreachable, 0));
    let regionless = remote("s3+http://127.0.0.1:1");
    let fault = connect(&regionless, &token, &lines()).await.map(drop).unwrap_err();
    assert_eq!(fault.class, AnswerClass::Misdirected);
}

#[tokio::test]
async fn replication_190_205_faults_of_b2_and_of_the_network_mean_what_they_mean() {
    let server = Scripted::start().await;
    server.be_b2();
    let store = open(&format!("b2+{}", server.url())).await;
    let sample = Sample::new("a", 300_000);
    let put = async || store.put(sample.sending()).await.map_err(checked);
    // (reaction, class, status, ambiguous, uploads that it takes)
    let busy = |status, headers| Reaction::Answer(status, headers, "busy".to_owned());
    let coded = |status, code: &str| {
        let body = json!({"status": status, "code": code, "message": "t0ken-of-the-url"});
        Reaction::Answer(status, &[], body.to_string())
    };
    for (reaction, class, status, is_ambiguous, uploads) in [
        (Reaction::Reset, AnswerClass::Unreachable, 0, true, 1),
        (
            Reaction::Raw("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{\"fileId\""),
            AnswerClass::Unreachable,
            0,
            true,
            1,
        ),
        (Reaction::Raw("garbage\r\n\r\n"), AnswerClass::Unreachable, 0, true, 1),
        (Reaction::Answer(200, &[], "garbage".to_owned()), AnswerClass::Unreachable, 0, true, 1),
        (busy(500, &[]), AnswerClass::Busy, 500, true, 1),
        (busy(502, &[]), AnswerClass::Busy, 502, true, 1),
        (busy(503, &[]), AnswerClass::Busy, 503, false, 5),
        (busy(503, &[("Retry-After", "120")]), AnswerClass::Busy, 503, false, 1),
        (busy(429, &[("Retry-After", "120")]), AnswerClass::Busy, 429, false, 1),
        (coded(403, "storage_cap_exceeded"), AnswerClass::CapExceeded, 403, false, 1),
        (coded(413, "bad_request"), AnswerClass::Rejected, 413, false, 1),
        (coded(400, "auth_token_limit"), AnswerClass::UploadUrlUsedUp, 400, false, 5),
        (coded(301, ""), AnswerClass::Misdirected, 301, false, 1),
    ] {
        server.on("POST /upload", [reaction.clone()]);
        server.arrived();
        let fault = put().await.unwrap_err();
        let got = (fault.class, fault.status, fault.is_ambiguous);
        assert_eq!(got, (class, status, is_ambiguous), "{reaction:?}: {fault:?}");
        assert_eq!(server.count("POST /upload"), uploads, "{reaction:?}");
        assert!(!format!("{fault:?}").contains("t0ken"), "{fault:?}");
        let waits = format!("{reaction:?}").contains("Retry-After").then_some(120_000);
        assert_eq!(fault.retry_after_ms, waits, "{reaction:?}");
    }
    // What certainly came to nothing is tried again at once.
    let large = Sample::new("a", 8 * MIB);
    server
        .on("POST /upload", [Reaction::ResetAtOnce, Reaction::ResetAtOnce, told(&stored(&large))]);
    let stored_there = store.put(large.sending()).await.map_err(checked).unwrap();
    assert_eq!(stored_there.id, "4_z1");
    // A store that has something else than was sent.
    let other = json!({"fileId": "4_z1", "contentLength": 300_000, "contentSha1": "0".repeat(40)});
    server.on("POST /upload", [told(&other)]);
    let fault = put().await.unwrap_err();
    assert_eq!((fault.class, fault.is_ambiguous), (AnswerClass::ChecksumMismatch, false));
    let shorter = json!({"fileId": "4_z1", "contentLength": 1, "contentSha1": null});
    server.on("POST /upload", [told(&shorter)]);
    assert_eq!(put().await.unwrap_err().class, AnswerClass::ChecksumMismatch);
    // What has our mark but other bytes is not what was sent.
    let marked = |size: u64, sha1: String| {
        let file = json!({
            "action": "upload", "fileName": "a", "fileId": "4_z9", "contentLength": size,
            "contentSha1": sha1, "fileInfo": {"src_repl_origin": ORIGIN},
        });
        told(&json!({"files": [file], "nextFileName": null, "nextFileId": null}))
    };
    let sha1 = sample.file.sha1.to_string();
    for (size, sha1, is_found) in [
        (300_000, sha1.clone(), true),
        (300_000, format!("unverified:{sha1}"), true),
        (300_000, "none".to_owned(), true),
        (300_001, sha1, false),
        (300_000, "0".repeat(40), false),
    ] {
        server.on("POST /b2api/v4/b2_list_file_versions", [marked(size, sha1.clone())]);
        let found = store.find(&sample.file).await.unwrap();
        assert_eq!(found.is_some(), is_found, "{size} {sha1}");
    }
    // Nobody is sent to where everybody can listen, nor anywhere else.
    let elsewhere = json!({"uploadUrl": "ftp://x/", "authorizationToken": "t"});
    server.on("POST /b2api/v4/b2_get_upload_url", [told(&elsewhere)]);
    assert_eq!(put().await.unwrap_err().class, AnswerClass::Misdirected);
    // A kept URL is used again and again.
    server.be_b2();
    server.on("POST /upload", [told(&stored(&sample))]);
    server.arrived();
    for _ in 0..5 {
        put().await.unwrap();
    }
    assert_eq!(server.count("POST /b2api/v4/b2_get_upload_url"), 1);
    let sent = server.arrived().pop().unwrap();
    assert_eq!(sent.header("authorization"), Some("t0ken-of-the-url"));
    assert_eq!(sent.header("content-length"), Some("300000"));
    assert_eq!(sent.header("transfer-encoding"), None);
}

#[tokio::test]
async fn a_store_that_falls_silent_is_given_up() {
    let server = Scripted::start().await;
    server.on(
        "GET /b2api/v4/b2_authorize_account",
        [Reaction::Raw("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")],
    );
    let store = open(&format!("b2+{}", server.url())).await;
    let sample = Sample::new("a", 10);
    let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
    assert_eq!(fault.class, AnswerClass::Unreachable);
    server.be_b2();
    server.on("POST /upload", [Reaction::Silence]);
    let call = OutgoingCall {
        method: "POST",
        url: format!("{}/upload", server.url()),
        headers: Vec::new(),
        body: OutgoingBody::Bytes(Bytes::from_static(b"x")),
        answer_bytes_max: 10,
        answer_timeout: STALL,
    };
    let none = RemoteHttp::impatient(STALL).call(call).await.map(drop).unwrap_err();
    assert!(none.is_ambiguous);
}

/// The sample, as a version of its own.
fn numbered(mut sample: Sample, number: usize) -> Sample {
    sample.file.origin = ORIGIN.replace("b0cc0a02", &format!("{number:08x}"));
    sample
}

#[tokio::test]
async fn replication_99_100_103_205_a_kiln_takes_replicas_of_another_as_they_are() {
    let options = TestServer::options().setting("replication.accept_peers", true);
    let (server, bucket) = kiln_with(options, json!({})).await;
    let mut remote = remote(server.endpoint());
    remote.options.part_size_bytes = Some(1024 * 1024);
    remote.options.multipart_threshold_bytes = Some(2 * 1024 * 1024);
    let store = open_as(&remote, &token()).await;
    let named = RemoteBucket::Name(BUCKET.to_owned());
    let found = store.check(&named).await.map_err(checked).unwrap();
    let (instance, rules) = (found.instance.unwrap(), store.part_rules());
    assert_eq!((found.bucket_id.as_ref(), found.has_file_lock), (Some(&bucket), Some(false)));

    // Whole, and again.
    let mut whole = numbered(Sample::new("whole", 1000), 1);
    whole.file.sha1 = ContentSha1::Unverified(whole.file.sha1.digest().unwrap());
    assert!(rules.sends_whole(whole.file.size, &[]));
    assert_eq!(store.find(&whole.file).await.unwrap(), None);
    let put = store.put(whole.sending()).await.map_err(checked).unwrap();
    assert_eq!(store.put(whole.sending()).await.unwrap(), put);
    assert_eq!(store.find(&whole.file).await.unwrap(), Some(put.clone()));
    // What has been there goes round in a circle.
    let mut looped = numbered(Sample::new("looped", 10), 2);
    looped.file.hops.push(instance);
    let fault = store.put(looped.sending()).await.map_err(checked).unwrap_err();
    assert_eq!((fault.class, fault.status), (AnswerClass::Loop, 409));

    // In the parts of its source, whatever they are.
    let mut parts = numbered(Sample::new("parts", 300_000), 3);
    parts.file.part_sizes = vec![1, 199_999, 100_000];
    parts.file.sha1 = ContentSha1::None;
    assert!(!rules.sends_whole(parts.file.size, &parts.file.part_sizes));
    let plan = rules.cut(parts.file.size, &parts.file.part_sizes);
    let session = store.start(&parts.file).await.map_err(checked).unwrap();
    let mut sent = send_parts(&store, &parts, &session, &plan[1..]).await;
    assert_eq!(store.list_parts(&parts.file, &session).await.unwrap(), sent);
    sent.splice(0..0, send_parts(&store, &parts, &session, &plan[..1]).await);
    let finished = store.finish(&parts.file, &session, &sent).await.map_err(checked).unwrap();
    assert_eq!(store.finish(&parts.file, &session, &sent).await.unwrap(), finished);
    // Begun once more there is nothing left to do.
    let session = store.start(&parts.file).await.unwrap();
    let sent = send_parts(&store, &parts, &session, &plan).await;
    assert_eq!(store.finish(&parts.file, &session, &sent).await.unwrap(), finished);
    store.cancel(&named, "parts", &session).await.unwrap();

    // In one piece, bit by bit.
    let bits = numbered(Sample::new("bits", 3 * MIB + 5), 4);
    assert!(!rules.sends_whole(bits.file.size, &[]));
    let plan = rules.cut(bits.file.size, &[]);
    assert_eq!(plan.len(), 4);
    let given_up = store.start(&bits.file).await.map_err(checked).unwrap();
    for _ in 0..2 {
        store.cancel(&named, "bits", &given_up).await.map_err(checked).unwrap();
    }
    let fault = store.list_parts(&bits.file, &given_up).await.map_err(checked).unwrap_err();
    assert_eq!(fault.class, AnswerClass::SessionLost, "{fault:?}");
    let session = store.start(&bits.file).await.unwrap();
    let sent = send_parts(&store, &bits, &session, &plan[1..3]).await;
    assert_eq!(store.list_parts(&bits.file, &session).await.unwrap(), sent);
    let fault = store.finish(&bits.file, &session, &sent).await.map_err(checked).unwrap_err();
    assert_eq!(fault.class, AnswerClass::MissingParts, "{fault:?}");
    send_parts(&store, &bits, &session, &plan[..1]).await;
    send_parts(&store, &bits, &session, &plan[3..]).await;
    assert_eq!(store.list_parts(&bits.file, &session).await.unwrap().len(), 4);
    let finished = store.finish(&bits.file, &session, &[]).await.map_err(checked).unwrap();
    assert_eq!(store.find(&bits.file).await.unwrap(), Some(finished.clone()));
    let again = store.start(&bits.file).await.unwrap();
    assert_eq!(store.finish(&bits.file, &again, &[]).await.unwrap(), finished);

    let all = versions(&server, &bucket).await;
    assert_eq!(all.len(), 3, "{all:?}");
    for version in all {
        assert_eq!(version["replicationStatus"], "replica");
        assert_eq!(version["uploadTimestamp"], UPLOADED_AT.0);
        assert_eq!(version["fileInfo"], json!(FileInfo::entries(&whole.file.info)));
        let (name, sha1) = (version["fileName"].as_str().unwrap(), &version["contentSha1"]);
        match name {
            "whole" => assert_eq!(*sha1, whole.file.sha1.to_string()),
            "parts" => assert_eq!(*sha1, "none"),
            _ => assert_eq!(*sha1, bits.file.sha1.to_string()),
        }
    }
}

#[tokio::test]
async fn a_peer_is_told_of_the_source_in_headers_and_its_metadata_stays() {
    let server = Scripted::start().await;
    server.be_b2();
    server.on("GET /api/v2/instance", [told(&json!({"instanceId": "0123456789abcdef"}))]);
    let store = open(&format!("peer+{}", server.url())).await;
    let bucket = RemoteBucket::Name(BUCKET.to_owned());
    let found = store.check(&bucket).await.unwrap();
    assert_eq!(found.instance.as_deref(), Some("0123456789abcdef"));
    assert_eq!(found.bucket_id.as_deref(), Some("b1"));
    let mut sample = Sample::new("a", 1000);
    sample.file.source_key = Some("key-of-the-rule".to_owned());
    sample.file.hops.push("second".to_owned());
    let Some(digest) = sample.file.sha1.digest() else { panic!("a digest") };
    sample.file.sha1 = ContentSha1::Unverified(digest);
    server.on("POST /upload", [told(&stored(&sample))]);
    server.arrived();
    store.put(sample.sending()).await.map_err(checked).unwrap();
    let sent = server.arrived().pop().unwrap();
    assert_eq!(sent.header("x-replica-origin"), Some(ORIGIN));
    assert_eq!(sent.header("x-replica-timestamp"), Some("1600000000123"));
    assert_eq!(sent.header("x-replica-hops"), Some("9f0c2d4b6a8e1357,second"));
    assert_eq!(sent.header("x-replica-source-key"), Some("key-of-the-rule"));
    assert_eq!(sent.header("x-bz-content-sha1"), Some(format!("unverified:{digest}").as_str()));
    assert_eq!(sent.header("x-bz-info-color"), Some("bl%C3%A5b%C3%A4r%201%25"));
    assert!(!sent.head.to_lowercase().contains("src_repl"), "{}", sent.head);
    // A refusal keeps its words, so that a rule learns why.
    let refused =
        json!({"status": 403, "code": "replication_refused", "message": "mapping_missing"});
    server.on("POST /upload", [Reaction::Answer(403, &[], refused.to_string())]);
    let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
    assert_eq!(
        (fault.code.as_str(), fault.text.as_str()),
        ("replication_refused", "mapping_missing")
    );
    let went_round = json!({"status": 409, "code": "replication_loop", "message": "been here"});
    server.on("POST /upload", [Reaction::Answer(409, &[], went_round.to_string())]);
    let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
    assert_eq!(fault.class, AnswerClass::Loop);
    // Whoever may not list there is told of known origins by the peer itself.
    let denied = json!({"status": 401, "code": "unauthorized", "message": ""});
    server.on(
        "POST /b2api/v4/b2_list_file_versions",
        [Reaction::Answer(401, &[], denied.to_string())],
    );
    assert_eq!(store.find(&sample.file).await.unwrap(), None);
}

#[tokio::test]
async fn replication_103_205_a_peer_gets_the_parts_of_the_source_or_bits_of_one_piece() {
    let server = Scripted::start().await;
    server.be_b2();
    let mut remote = remote(&format!("peer+{}", server.url()));
    remote.options.part_size_bytes = Some(1024 * 1024);
    remote.options.multipart_threshold_bytes = Some(1024 * 1024);
    let store = open_as(&remote, &token()).await;
    let mut sample = Sample::new("a", 2 * MIB + 5);
    let rules = store.part_rules();
    assert!(!rules.sends_whole(10, &[5, 5]), "parts stay parts");
    sample.file.part_sizes = vec![1, 2 * 1024 * 1024 + 4];
    let plan = rules.cut(sample.file.size, &sample.file.part_sizes);
    assert_eq!(plan.len(), 2);

    // In parts, and there already.
    let begun = json!({"fileId": "4_z2", "action": "start"});
    let there = json!({"fileId": "4_z1", "action": "upload"});
    server.on("POST /b2api/v4/b2_start_large_file", [told(&begun), told(&there)]);
    server.arrived();
    assert_eq!(store.start(&sample.file).await.unwrap(), "4_z2");
    assert_eq!(server.arrived().pop().unwrap().header("x-replica-origin"), Some(ORIGIN));
    let session = store.start(&sample.file).await.unwrap();
    server.arrived();
    assert_eq!(store.list_parts(&sample.file, &session).await.unwrap().len(), 2);
    let sent = send_parts(&store, &sample, &session, &plan).await;
    assert_eq!(store.finish(&sample.file, &session, &sent).await.unwrap().id, "4_z1");
    store.cancel(&sample.file.bucket, "a", &session).await.unwrap();
    assert!(server.arrived().is_empty(), "nothing is left to be sent");

    // In one piece, bit by bit.
    sample.file.part_sizes.clear();
    let plan = rules.cut(sample.file.size, &[]);
    assert_eq!(plan.len(), 3);
    let state = |parts: Value, file: Value| {
        json!({
            "sessionId": "s1", "contentLength": sample.file.size, "partSizeBytes": 1024 * 1024,
            "confirmed": 0, "parts": parts, "file": file,
        })
    };
    let part = |at: usize| {
        let range = plan[at].range;
        let mut sha1 = Sha1Hasher::default();
        let all = Sample::new("a", 2 * MIB + 5);
        let index = |position| usize::try_from(position).unwrap();
        let bytes: Vec<u8> =
            (0..index(all.file.size)).map(|at| (at * 7 % 251).to_le_bytes()[0]).collect();
        sha1.update(&bytes[index(range.start)..index(range.end)]);
        json!({
            "partNumber": at + 1, "contentLength": range.len(),
            "contentSha1": sha1.finish().to_string(),
        })
    };
    let sessions = "POST /api/v2/replica_sessions";
    server.on(sessions, [told(&state(json!([]), Value::Null))]);
    let session = store.start(&sample.file).await.unwrap();
    let asked: Value = serde_json::from_slice(&server.arrived().pop().unwrap().body).unwrap();
    assert_eq!(asked["contentSha1"], sample.file.sha1.to_string());
    assert_eq!(asked["contentMd5"], sample.file.md5.unwrap().to_string());
    assert_eq!((&asked["partSizeBytes"], &asked["bucketId"]), (&json!(1024 * 1024), &json!("b1")));
    let one = "/api/v2/replica_sessions/s1";
    server.on(&format!("GET {one}"), [told(&state(json!([part(1)]), Value::Null))]);
    let listed = store.list_parts(&sample.file, &session).await.unwrap();
    assert_eq!(
        listed.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(),
        [(2, 1 << 20)]
    );
    server.on(
        &format!("PUT {one}"),
        [
            told(&state(json!([part(0), part(1)]), Value::Null)),
            told(&state(
                json!([{"partNumber": 3, "contentLength": 5, "contentSha1": "0".repeat(40)}]),
                Value::Null,
            )),
            told(&state(json!([]), stored(&sample))),
            told(&state(json!([]), Value::Null)),
            told(&state(json!([]), stored(&sample))),
        ],
    );
    server.arrived();
    store.put_part(sample.sending(), &session, plan[0]).await.unwrap();
    let fault = store.put_part(sample.sending(), &session, plan[2]).await.map_err(checked);
    assert_eq!(fault.unwrap_err().class, AnswerClass::ChecksumMismatch);
    store.put_part(sample.sending(), &session, plan[2]).await.unwrap();
    let fault = store.finish(&sample.file, &session, &[]).await.map_err(checked).unwrap_err();
    assert_eq!(fault.class, AnswerClass::MissingParts);
    assert_eq!(store.finish(&sample.file, &session, &[]).await.unwrap().id, "4_z1");
    let ranges: Vec<String> = server
        .arrived()
        .iter()
        .map(|one| {
            assert_eq!(one.header("x-replica-origin"), Some(ORIGIN));
            one.header("content-range").unwrap().to_owned()
        })
        .collect();
    let last = "bytes 2097152-2097156/2097157";
    let whole = "bytes */2097157";
    assert_eq!(ranges, ["bytes 0-1048575/2097157", last, last, whole, whole]);
    // Begun in bits of another size: anew.
    let mut other = state(json!([]), Value::Null);
    other["partSizeBytes"] = json!(5);
    server.on(&format!("GET {one}"), [told(&other)]);
    let fault = store.list_parts(&sample.file, &session).await.map_err(checked).unwrap_err();
    assert_eq!(fault.class, AnswerClass::SessionLost);
    let unknown =
        json!({"status": 400, "code": "bad_request", "message": "No active upload for: s1"});
    server.on(
        &format!("DELETE {one}"),
        [
            Reaction::Answer(204, &[], String::new()),
            Reaction::Answer(400, &[], unknown.to_string()),
        ],
    );
    store.cancel(&sample.file.bucket, "a", &session).await.unwrap();
    store.cancel(&sample.file.bucket, "a", &session).await.unwrap();
}

fn xml_error(code: &str, more: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message>{more}</Error>")
}

#[tokio::test]
async fn a_bucket_in_another_region_is_asked_there_from_then_on() {
    let server = Scripted::start().await;
    let moved = xml_error("AuthorizationHeaderMalformed", "<Region>eu-central-003</Region>");
    let etag: &[(&str, &str)] = &[("ETag", "\"not-an-md5\"")];
    let put = format!("PUT /{BUCKET}/a");
    server.on(
        &put,
        [Reaction::Answer(400, &[], moved.clone()), Reaction::Answer(200, etag, String::new())],
    );
    let store = open(&format!("s3+{}?region=us-west-000", server.url())).await;
    let sample = Sample::new("a", 300_000);
    store.put(sample.sending()).await.map_err(checked).unwrap();
    store.put(sample.sending()).await.map_err(checked).unwrap();
    let regions: Vec<String> = server
        .arrived()
        .iter()
        .map(|one| one.header("authorization").unwrap().split('/').nth(2).unwrap().to_owned())
        .collect();
    assert_eq!(regions, ["us-west-000", "eu-central-003", "eu-central-003"]);
    // One that goes round in circles is given up.
    let headers: &[(&str, &str)] = &[("x-amz-bucket-region", "ap-south-1")];
    let again: &[(&str, &str)] = &[("x-amz-bucket-region", "ap-south-2")];
    server.on(
        &put,
        [
            Reaction::Answer(301, headers, xml_error("PermanentRedirect", "")),
            Reaction::Answer(301, again, xml_error("PermanentRedirect", "")),
        ],
    );
    let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
    assert_eq!((fault.class, fault.status), (AnswerClass::Misdirected, 301));
    assert_eq!(server.arrived().len(), 2);
}

#[tokio::test]
async fn replication_193_a_clock_that_the_store_minds_is_followed_once() {
    let server = Scripted::start().await;
    let skewed = || {
        let date: &[(&str, &str)] = &[("Date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        Reaction::Answer(403, date, xml_error("RequestTimeTooSkewed", ""))
    };
    let fine = Reaction::Answer(200, &[("ETag", "\"x\"")], String::new());
    let put = format!("PUT /{BUCKET}/a");
    server.on(&put, [skewed(), fine]);
    let store = open(&format!("s3+{}?region=us-west-000", server.url())).await;
    let sample = Sample::new("a", 10);
    store.put(sample.sending()).await.map_err(checked).unwrap();
    let arrived = server.arrived();
    assert!(arrived[1].header("x-amz-date").unwrap().starts_with("19941106T0849"), "{arrived:?}");
    server.on(&put, [skewed()]);
    let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
    assert_eq!(fault.class, AnswerClass::Refresh);
    assert_eq!(server.arrived().len(), 2);
}

#[tokio::test]
async fn replication_190_205_faults_of_s3_and_of_the_network_mean_what_they_mean() {
    use AnswerClass as C;
    let server = Scripted::start().await;
    let store = open(&format!("s3+{}?region=us-west-000", server.url())).await;
    let sample = Sample::new("a", 300_000);
    let put = format!("PUT /{BUCKET}/a");
    let coded = |status, code: &str| Reaction::Answer(status, &[], xml_error(code, ""));
    let retry: &[(&str, &str)] = &[("Retry-After", "120")];
    for (reaction, class, status, is_ambiguous) in [
        (Reaction::Reset, C::Unreachable, 0, true),
        (Reaction::Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<"), C::Unreachable, 0, true),
        (Reaction::Raw("garbage\r\n\r\n"), C::Unreachable, 0, true),
        (Reaction::Answer(503, retry, xml_error("SlowDown", "")), C::Busy, 503, false),
        (coded(500, "InternalError"), C::Busy, 500, true),
        (coded(403, "AccessDenied"), C::Unauthorized, 403, false),
        (coded(404, "NoSuchBucket"), C::BucketMissing, 404, false),
        (coded(400, "BadDigest"), C::ChecksumMismatch, 400, false),
        (coded(400, "EntityTooLarge"), C::Rejected, 400, false),
        (coded(409, "OperationAborted"), C::Busy, 409, false),
        (Reaction::Answer(502, &[], "<html>bad gateway".to_owned()), C::Busy, 502, true),
    ] {
        server.on(&put, [reaction.clone()]);
        let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
        let got = (fault.class, fault.status, fault.is_ambiguous);
        assert_eq!(got, (class, status, is_ambiguous), "{reaction:?}: {fault:?}");
        let waits = format!("{reaction:?}").contains("Retry-After").then_some(120_000);
        assert_eq!(fault.retry_after_ms, waits, "{reaction:?}");
    }
    // What has our mark but other bytes is not what was sent.
    let marked: &[(&str, &str)] =
        &[("x-amz-meta-src-repl-origin", ORIGIN), ("Content-Length", "300000"), ("ETag", "\"x\"")];
    let head = format!("HEAD /{BUCKET}/a");
    server.on(&head, [Reaction::Answer(200, marked, String::new())]);
    assert!(store.find(&sample.file).await.unwrap().is_some());
    server.on(
        &format!("GET /{BUCKET}?versions="),
        [Reaction::Answer(501, &[], xml_error("NotImplemented", ""))],
    );
    for other in [
        [marked[0], ("Content-Length", "300001"), marked[2]],
        [marked[0], marked[1], ("ETag", "\"00000000000000000000000000000000\"")],
    ] {
        server.on(&head, [Reaction::Answer(200, other.to_vec().leak(), String::new())]);
        assert_eq!(store.find(&sample.file).await.unwrap(), None, "{other:?}");
    }
    // The tag of other content, and one that says nothing of it.
    let wrong: &[(&str, &str)] = &[("ETag", "\"00000000000000000000000000000000\"")];
    server.on(&put, [Reaction::Answer(200, wrong, String::new())]);
    let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
    assert_eq!(fault.class, C::ChecksumMismatch);
    let sealed: &[(&str, &str)] = &[
        ("ETag", "\"00000000000000000000000000000000\""),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-version-id", "v1"),
    ];
    server.on(&put, [Reaction::Answer(200, sealed, String::new())]);
    assert_eq!(store.put(sample.sending()).await.unwrap().id, "v1");
    // A finish that began to answer before it failed.
    server.on(
        &format!("POST /{BUCKET}/a"),
        [
            Reaction::Answer(200, &[], xml_error("InternalError", "")),
            Reaction::Answer(200, &[], "  ".to_owned()),
            Reaction::Answer(404, &[], xml_error("NoSuchUpload", "")),
        ],
    );
    let parts = [ConfirmedPart { number: 1, size: 1, tag: "a\"&<b".to_owned() }];
    for (class, is_ambiguous) in [
        (AnswerClass::Busy, true),
        (AnswerClass::Unreachable, true),
        (AnswerClass::SessionLost, false),
    ] {
        let fault = store.finish(&sample.file, "u1", &parts).await.map_err(checked).unwrap_err();
        assert_eq!((fault.class, fault.is_ambiguous), (class, is_ambiguous), "{fault:?}");
    }
    let sent = server.arrived().pop().unwrap();
    let body = String::from_utf8(sent.body).unwrap();
    assert!(body.contains("<ETag>&quot;a&quot;&amp;&lt;b&quot;</ETag>"), "{body}");
    // What cannot be written in an address, and what is too long for a name there.
    let long = "n".repeat(1025);
    for name in ["a/../b", "./a", "..", long.as_str()] {
        let sample = Sample::new(name, 1);
        let fault = store.put(sample.sending()).await.map_err(checked).unwrap_err();
        assert_eq!((fault.class, fault.status), (AnswerClass::Rejected, 0), "{name}");
    }
}

#[tokio::test]
async fn replication_224_listings_go_on_where_they_ended() {
    let (server, _) = kiln().await;
    for (url, store) in ["b2", "s3"].into_iter().zip(both(&server).await) {
        if url == "b2" {
            for at in 0..260 {
                store.put(Sample::new(&format!("n ä/{at:04}"), 1).sending()).await.unwrap();
            }
        }
        let bucket = RemoteBucket::Name(BUCKET.to_owned());
        let (mut names, mut from) = (Vec::new(), None::<String>);
        loop {
            let page = store.list(&bucket, "n ä/", from.as_deref()).await.unwrap();
            names.extend(page.versions.into_iter().map(|version| version.name));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let expected: Vec<String> = (0..260).map(|at| format!("n ä/{at:04}")).collect();
        assert_eq!(names, expected, "{url}");
    }
    // A store that keeps no versions lists objects.
    let server = Scripted::start().await;
    let refused = Reaction::Answer(501, &[], xml_error("NotImplemented", ""));
    let versions = format!("GET /{BUCKET}?versions=");
    server.on(&versions, [refused]);
    let object = |key: &str, more: &str| {
        Reaction::Answer(
            200,
            &[],
            format!(
                "<ListBucketResult><Contents><Key>{key}</Key><Size>5</Size><ETag>\"e\"</ETag></Contents>{more}\
             </ListBucketResult>"
            ),
        )
    };
    let next = "<NextContinuationToken>t&amp;1</NextContinuationToken>";
    server.on(&format!("GET /{BUCKET}?list-type=2"), [object("a%20b", next), object("c", "")]);
    let store = open(&format!("s3+{}?region=us-west-000", server.url())).await;
    let bucket = RemoteBucket::Name(BUCKET.to_owned());
    let first = store.list(&bucket, "", None).await.unwrap();
    assert_eq!((first.versions[0].name.as_str(), first.versions[0].size), ("a b", 5));
    let second = store.list(&bucket, "", first.next.as_deref()).await.unwrap();
    assert_eq!((second.versions[0].name.as_str(), second.next), ("c", None));
    assert!(server.arrived().pop().unwrap().line.contains("continuation-token=t%261"));
}

#[tokio::test]
async fn s3_signs_for_virtual_hosts_and_with_tokens_that_run_out() {
    let server = Scripted::start().await;
    let url = format!("s3+http://localhost:{}", server.address.rsplit_once(':').unwrap().1);
    let store =
        open_as(&remote(&format!("{url}/below?region=x&style=virtual")), "id:word:session").await;
    server.on("PUT /below/a", [Reaction::Answer(200, &[("ETag", "\"x\"")], String::new())]);
    let sample = Sample::new("a", 10);
    let put = store.put(sample.sending()).await;
    // A name below localhost leads back here on most systems, and nowhere on others.
    if put.is_ok() {
        let sent = server.arrived().pop().unwrap();
        assert!(sent.header("host").unwrap().starts_with(&format!("{BUCKET}.localhost:")));
        assert_eq!(sent.header("x-amz-security-token"), Some("session"));
        let proof = sent.header("authorization").unwrap();
        assert!(proof.contains("x-amz-security-token") && proof.contains("Credential=id/"));
        assert!(!proof.contains("session,") && !proof.contains("word"));
    } else if let Err(fault) = put {
        assert_eq!(fault.class, AnswerClass::Unreachable);
    }
}

#[test]
fn secrets_are_taken_out_of_what_stores_say() {
    assert_eq!(scrubbed("key s3cret and s3cret", &["", "s3cret"]), "key (secret) and (secret)");
}
