//! The rights matrix of S3 calls: every call with every capability taken away, with keys that are
//! bound to buckets and names, with those of another account, and with none.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use kiln::manifest::{capabilities, s3_operations};
use serde::Deserialize;
use serde_json::json;

use crate::support::http::{Answer, Connection};
use crate::support::s3::{Request, Signer, refused};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session, basic};

const FIXTURE: &str = include_str!("../../../fixtures/s3-rights.toml");
/// Fewer cases than these mean that a part of the matrix has dropped out silently.
const CASES_MIN: usize = 500;

const RIGHT: &str = "s3-rights-right";
const OTHER: &str = "s3-rights-other";
/// Not allowed on keys that are bound to buckets.
const NEVER_BOUND: [&str; 5] =
    ["deleteBuckets", "deleteKeys", "listKeys", "writeBuckets", "writeKeys"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rights {
    operations: BTreeMap<String, Right>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Right {
    needs: Vec<String>,
    #[serde(default)]
    any: Vec<String>,
    scope: String,
}

/// How a key is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    buckets: Option<&'static [&'static str]>,
    prefix: Option<&'static str>,
}

const ANYWHERE: Bound = Bound { buckets: None, prefix: None };
const BOUNDS: [Bound; 7] = [
    Bound { buckets: Some(&[RIGHT]), prefix: None },
    Bound { buckets: Some(&[OTHER]), prefix: None },
    Bound { buckets: Some(&[RIGHT, OTHER]), prefix: None },
    Bound { buckets: Some(&[RIGHT]), prefix: Some("a/") },
    Bound { buckets: Some(&[RIGHT]), prefix: Some("b/") },
    Bound { buckets: None, prefix: Some("a/") },
    Bound { buckets: None, prefix: Some("b/") },
];

impl Right {
    fn lets(&self, held: &BTreeSet<&str>, bound: Bound) -> bool {
        let holds = self.needs.iter().all(|need| held.contains(need.as_str()))
            && (self.any.is_empty() || self.any.iter().any(|one| held.contains(one.as_str())));
        let bucket = bound.buckets.is_none_or(|buckets| buckets.contains(&RIGHT));
        let name = bound.prefix.is_none_or(|prefix| prefix == "a/");
        holds
            && match self.scope.as_str() {
                "nothing" => true,
                "bucket" => bucket,
                "name" => bucket && name,
                unknown => panic!("unknown scope {unknown}"),
            }
    }
}

/// One server with two accounts, and what the calls are about.
struct World {
    server: Server,
    master: Session,
    connection: RefCell<Connection>,
    keys: RefCell<BTreeMap<(BTreeSet<&'static str>, Bound), Signer>>,
    buckets: BTreeMap<&'static str, String>,
    version: String,
    upload: String,
}

impl World {
    fn new() -> Self {
        let server = Server::start_with(&["--test-controls", "--s3-profile", "extended"]);
        let master = server.master();
        let mut buckets = BTreeMap::new();
        for name in [RIGHT, OTHER] {
            let made = json!({
                "accountId": MASTER_ID, "bucketName": name, "bucketType": "allPrivate",
                "fileLockEnabled": true,
            });
            let made = master.ok("b2_create_bucket", &made);
            buckets.insert(name, made["bucketId"].as_str().unwrap().to_owned());
        }
        let file = master.upload(&buckets[RIGHT], "a/k", b"content");
        let version = file["fileId"].as_str().unwrap().to_owned();
        let started = json!({
            "bucketId": buckets[RIGHT], "fileName": "a/large", "contentType": "a/b",
        });
        let started = master.ok("b2_start_large_file", &started);
        let upload = started["fileId"].as_str().unwrap().to_owned();
        let connection = RefCell::new(Connection::open(&server.address).unwrap());
        Self { server, master, connection, keys: RefCell::default(), buckets, version, upload }
    }

    fn send(&self, request: &Request) -> Answer {
        let mut connection = self.connection.borrow_mut();
        let answer = request.send_over(&mut connection).unwrap();
        if answer.header("connection") == Some("close") {
            *connection = Connection::open(&self.server.address).unwrap();
        }
        answer
    }

    fn key(&self, held: &BTreeSet<&'static str>, bound: Bound) -> Signer {
        let wanted = (held.clone(), bound);
        if let Some(known) = self.keys.borrow().get(&wanted) {
            return known.clone();
        }
        let held: Vec<&str> = held.iter().copied().collect();
        let ids: Option<Vec<&str>> = bound
            .buckets
            .map(|names| names.iter().map(|name| self.buckets[name].as_str()).collect());
        let (key, secret) = self.master.create_key(&held, ids.as_deref(), bound.prefix);
        let signer = Signer::with_key(&self.server, key, secret);
        self.keys.borrow_mut().insert(wanted, signer.clone());
        signer
    }

    /// A key of another account with every capability.
    fn stranger(&self) -> Signer {
        let mut admin = Connection::open(&self.server.admin).unwrap();
        let credentials = basic(MASTER_ID, MASTER_KEY);
        let headers = [("Authorization", credentials.as_str())];
        let made = admin.call("POST", "/admin/accounts", &headers, b"{\"name\":\"x\"}").unwrap();
        let made = made.json();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        let master = Session::authorize(
            &self.server.address,
            &text("applicationKeyId"),
            &text("applicationKey"),
        );
        let (key, secret) = master.unwrap().create_key(&capabilities(), None, None);
        Signer::with_key(&self.server, key, secret)
    }

    /// The request of a call. What is there stays there: where it would not, the call is one that
    /// fails after its rights were found to be enough.
    fn request(&self, call: &str) -> Request {
        let (name, form) = call.split_once(' ').unwrap_or((call, ""));
        let bucket = |method: &str, query: &str| Request::new(method, &format!("/{RIGHT}?{query}"));
        let object =
            |method: &str, query: &str| Request::new(method, &format!("/{RIGHT}/a/k?{query}"));
        let part = |method: &str, query: &str| {
            Request::new(method, &format!("/{RIGHT}/a/large?uploadId={}{query}", self.upload))
        };
        let digest = |request: Request| {
            let md5 = <md5::Md5 as md5::Digest>::digest(&request.body);
            let md5 = base64::engine::general_purpose::STANDARD.encode(md5);
            request.header("content-md5", &md5)
        };
        let request = match name {
            "ListBuckets" => Request::new("GET", "/"),
            "CreateBucket" => bucket("PUT", ""),
            "DeleteBucket" => bucket("DELETE", ""),
            "HeadBucket" => bucket("HEAD", ""),
            "GetBucketLocation" => bucket("GET", "location"),
            "GetBucketVersioning" => bucket("GET", "versioning"),
            "PutBucketVersioning" => bucket("PUT", "versioning").body(
                b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
            ),
            "GetBucketAcl" => bucket("GET", "acl"),
            "PutBucketAcl" => bucket("PUT", "acl").header("x-amz-acl", "private"),
            "GetBucketCors" => bucket("GET", "cors"),
            "PutBucketCors" => bucket("PUT", "cors").body(
                b"<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod>\
                  <AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>",
            ),
            "DeleteBucketCors" => bucket("DELETE", "cors"),
            "GetBucketEncryption" => bucket("GET", "encryption"),
            "PutBucketEncryption" => bucket("PUT", "encryption").body(
                b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>\
                  <SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>\
                  </ServerSideEncryptionConfiguration>",
            ),
            "DeleteBucketEncryption" => bucket("DELETE", "encryption"),
            "GetObjectLockConfiguration" => bucket("GET", "object-lock"),
            "PutObjectLockConfiguration" => bucket("PUT", "object-lock").body(
                b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>\
                  </ObjectLockConfiguration>",
            ),
            "GetBucketLifecycleConfiguration" => bucket("GET", "lifecycle"),
            "PutBucketLifecycleConfiguration" => bucket("PUT", "lifecycle").body(
                b"<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter><Prefix>z/</Prefix>\
                  </Filter><NoncurrentVersionExpiration><NoncurrentDays>9</NoncurrentDays>\
                  </NoncurrentVersionExpiration></Rule></LifecycleConfiguration>",
            ),
            "DeleteBucketLifecycle" => bucket("DELETE", "lifecycle"),
            "GetBucketReplication" => bucket("GET", "replication"),
            "GetBucketLogging" => bucket("GET", "logging"),
            "PutBucketLogging" => bucket("PUT", "logging").body(b"<BucketLoggingStatus/>"),
            "ListObjects" => bucket("GET", "prefix=a%2F"),
            "ListObjectsV2" => bucket("GET", "list-type=2&prefix=a%2F"),
            "ListObjectVersions" => bucket("GET", "versions&prefix=a%2F"),
            "ListMultipartUploads" => bucket("GET", "uploads&prefix=a%2F"),
            "DeleteObjects" => digest(bucket("POST", "delete").body(
                b"<Delete><Object><Key>a/nothing</Key></Object></Delete>",
            )),
            "PutObject" => object("PUT", "").body(b"content"),
            "CopyObject" => {
                let source = format!("{RIGHT}/a/k?versionId={}", self.version);
                object("PUT", "").header("x-amz-copy-source", &source)
            }
            "GetObject" if form == "of version" => {
                object("GET", &format!("versionId={}", self.version))
            }
            "GetObject" => object("GET", ""),
            "HeadObject" => object("HEAD", ""),
            "DeleteObject" if form.is_empty() => {
                Request::new("DELETE", &format!("/{RIGHT}/a/hidden"))
            }
            // The version of another name: nothing goes.
            "DeleteObject" => {
                Request::new("DELETE", &format!("/{RIGHT}/a/x?versionId={}", self.version))
            }
            "GetObjectAcl" => object("GET", "acl"),
            "PutObjectAcl" => object("PUT", "acl").header("x-amz-acl", "private"),
            "GetObjectAttributes" => {
                object("GET", "attributes").header("x-amz-object-attributes", "ETag")
            }
            "GetObjectRetention" => object("GET", "retention"),
            "PutObjectRetention" => object("PUT", "retention").body(
                b"<Retention><Mode>GOVERNANCE</Mode>\
                  <RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
            ),
            "GetObjectLegalHold" => object("GET", "legal-hold"),
            "PutObjectLegalHold" => {
                object("PUT", "legal-hold").body(b"<LegalHold><Status>OFF</Status></LegalHold>")
            }
            "CreateMultipartUpload" => object("POST", "uploads"),
            "UploadPart" => part("PUT", "&partNumber=1").body(b"x"),
            "UploadPartCopy" => part("PUT", "&partNumber=2")
                .header("x-amz-copy-source", &format!("{RIGHT}/a/k?versionId={}", self.version)),
            // Part 9 was never sent.
            "CompleteMultipartUpload" => part("POST", "").body(
                b"<CompleteMultipartUpload><Part><PartNumber>9</PartNumber><ETag>x</ETag></Part>\
                  </CompleteMultipartUpload>",
            ),
            // An upload of another key is none of this one.
            "AbortMultipartUpload" => {
                let target = format!("/{RIGHT}/a/other?uploadId={}", self.upload);
                Request::new("DELETE", &target)
            }
            "ListParts" => part("GET", ""),
            unknown => panic!("no request for {unknown}"),
        };
        match form {
            "" | "of version" => request,
            "with lock" => request.header("x-amz-bucket-object-lock-enabled", "true"),
            "with hold" => request.header("x-amz-object-lock-legal-hold", "OFF"),
            "with retention" => request
                .header("x-amz-object-lock-mode", "GOVERNANCE")
                .header("x-amz-object-lock-retain-until-date", "2099-01-01T00:00:00Z"),
            "with bypass" => request.header("x-amz-bypass-governance-retention", "true"),
            unknown => panic!("no form {unknown}"),
        }
    }
}

#[test]
fn s3_8_9_10_each_call_needs_its_rights_its_bucket_and_its_names() {
    let world = World::new();
    let rights: Rights = toml::from_str(FIXTURE).unwrap();
    for row in s3_operations() {
        assert!(rights.operations.contains_key(row.name), "{} stands in no row", row.name);
    }
    let all: BTreeSet<&'static str> = capabilities().into_iter().collect();
    let bound_to_buckets: BTreeSet<&'static str> =
        all.iter().copied().filter(|one| !NEVER_BOUND.contains(one)).collect();
    let stranger = world.stranger();
    let mut cases = 0_usize;
    for (call, right) in &rights.operations {
        let mut held: Vec<(BTreeSet<&'static str>, Bound)> = vec![(all.clone(), ANYWHERE)];
        let named = |names: &[String]| -> BTreeSet<&'static str> {
            all.iter().copied().filter(|one| names.iter().any(|name| name == one)).collect()
        };
        let mut least = named(&right.needs);
        least.extend(named(&right.any).into_iter().take(1));
        held.push((least, ANYWHERE));
        for need in &right.needs {
            let without = all.iter().copied().filter(|one| one != need).collect();
            held.push((without, ANYWHERE));
        }
        if !right.any.is_empty() {
            let of_any = named(&right.any);
            held.push((all.difference(&of_any).copied().collect(), ANYWHERE));
            held.extend(of_any.into_iter().map(|one| (BTreeSet::from([one]), ANYWHERE)));
        }
        held.push((BTreeSet::from(["listKeys"]), ANYWHERE));
        for bound in BOUNDS {
            let capabilities = if bound.buckets.is_some() { &bound_to_buckets } else { &all };
            held.push((capabilities.clone(), bound));
        }
        for (held, bound) in held {
            cases += 1;
            let request = world.key(&held, bound).sign(world.request(call));
            let answer = world.send(&request);
            let lacking: Vec<_> = all.difference(&held).collect();
            let case = format!("{call}, {bound:?}, lacking {lacking:?}: {answer:?}");
            if right.lets(&held, bound) {
                assert!(!matches!(answer.status, 401 | 403), "{case}");
            } else {
                assert_refused(&answer, call, &case);
            }
        }
        for request in [stranger.sign(world.request(call)), world.request(call)] {
            cases += 1;
            // The stranger may make buckets and list his own, like everybody with a key.
            let own = request.value("authorization").is_some()
                && (call == "ListBuckets" || call.starts_with("CreateBucket"));
            let request = if request.value("host").is_some() {
                request
            } else {
                request.header("host", "localhost")
            };
            let answer = world.send(&request);
            if own {
                assert!(!matches!(answer.status, 401 | 403), "{call}: {answer:?}");
            } else {
                assert_refused(&answer, call, &format!("{call}, not of the account: {answer:?}"));
            }
        }
    }
    assert!(cases >= CASES_MIN, "only {cases} cases");
}

fn assert_refused(answer: &Answer, call: &str, case: &str) {
    assert_eq!(answer.status, 403, "{case}");
    if !call.starts_with("Head") {
        assert_eq!(refused(answer), (403, "AccessDenied".to_owned()), "{case}");
    }
}
