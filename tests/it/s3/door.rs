//! What is understood wholly or refused, and what answers say beside their bodies.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::http::{Answer, Connection};
use crate::support::s3::{Request, Signer, element, refused};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session, basic};

const BUCKET: &str = "door-bucket";

struct House {
    server: Server,
    master: Session,
    bucket: String,
    signer: Signer,
}

fn house(arguments: &[&str]) -> House {
    let server = Server::start_with(&[&["--test-controls"], arguments].concat());
    let master = server.master();
    let bucket = master.create_bucket(BUCKET);
    let (key, secret) = master.create_key(&kiln::manifest::capabilities(), None, None);
    let signer = Signer::with_key(&server, key, secret);
    House { server, master, bucket, signer }
}

fn no(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

impl House {
    fn send(&self, request: Request) -> Answer {
        self.signer.sign(request).send(&self.server.address)
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> Answer {
        let digest = <md5::Md5 as md5::Digest>::digest(body.as_bytes());
        let request = Request::new(method, &format!("/{BUCKET}{target}"))
            .header("content-md5", &STANDARD.encode(digest));
        self.send(request.body(body.as_bytes()))
    }

    fn get(&self, key: &str, headers: &[(&str, &str)]) -> Answer {
        let request = Request::new("GET", &format!("/{BUCKET}/{key}"));
        self.send(
            headers.iter().fold(request, |request, (name, value)| request.header(name, value)),
        )
    }

    /// Another account: its id, and a signer of its own.
    fn stranger(&self) -> (String, Signer) {
        let credentials = basic(MASTER_ID, MASTER_KEY);
        let made = Connection::open(&self.server.admin)
            .unwrap()
            .call(
                "POST",
                "/admin/accounts",
                &[("Authorization", &credentials)],
                b"{\"name\":\"x\"}",
            )
            .unwrap()
            .json();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        let (id, key) = (text("applicationKeyId"), text("applicationKey"));
        let session = Session::authorize(&self.server.address, &id, &key).unwrap();
        let (key, secret) = session.create_key(&kiln::manifest::capabilities(), None, None);
        (session.account, Signer::with_key(&self.server, key, secret))
    }

    fn versions(&self) -> Vec<Value> {
        let listed = self.master.ok("b2_list_file_versions", &json!({"bucketId": self.bucket}));
        listed["files"].as_array().unwrap().clone()
    }
}

#[test]
fn s3_55_76_77_103_what_belongs_to_others_is_neither_taken_nor_named_nor_owned() {
    let house = house(&[]);
    let (account, stranger) = house.stranger();
    let theirs = |request: Request| stranger.sign(request).send(&house.server.address);
    let taken = theirs(Request::new("PUT", &format!("/{BUCKET}")));
    assert_eq!(refused(&taken), no(409, "BucketAlreadyExists"));
    assert_eq!(theirs(Request::new("PUT", "/strangers-bucket")).status, 200);
    assert_eq!(refused(&house.ask("PUT", "", "")), no(409, "BucketAlreadyOwnedByYou"));
    let logging = |target: &str| {
        format!(
            "<BucketLoggingStatus><LoggingEnabled><TargetBucket>{target}</TargetBucket>\
             <TargetPrefix>l/</TargetPrefix></LoggingEnabled></BucketLoggingStatus>"
        )
    };
    let answer = house.ask("PUT", "?logging", &logging("strangers-bucket"));
    assert_eq!(refused(&answer), no(400, "InvalidTargetBucketForLogging"));
    assert_eq!(house.ask("PUT", "?logging", &logging(BUCKET)).status, 200);
    // Whose bucket it is, is asked of the bucket and not of who asks.
    let expecting = |bucket: &str, owner: &str| {
        let request = Request::new("GET", &format!("/{bucket}?location"));
        refused(&house.send(request.header("x-amz-expected-bucket-owner", owner)))
    };
    assert_eq!(expecting(BUCKET, MASTER_ID).0, 200);
    assert_eq!(expecting(BUCKET, &account), no(403, "AccessDenied"));
    assert_eq!(expecting("strangers-bucket", MASTER_ID), no(403, "AccessDenied"));
    assert_eq!(expecting("no-such-bucket", MASTER_ID), no(404, "NoSuchBucket"));
    let listing = |owner: &str| {
        let request = Request::new("GET", "/").header("x-amz-expected-bucket-owner", owner);
        refused(&house.send(request))
    };
    assert_eq!((listing(MASTER_ID).0, listing(&account)), (200, no(403, "AccessDenied")));
}

#[test]
fn s3_83_what_is_asked_for_and_cannot_be_had_is_refused() {
    let house = house(&[]);
    assert_eq!(house.ask("PUT", "/k", "content").status, 200);
    for (method, target, name) in [
        ("GET", "/k", "x-backblaze-live-read-enabled"),
        ("HEAD", "/k", "x-backblaze-live-read-enabled"),
        ("POST", "/m?uploads", "x-backblaze-live-read-part-size"),
        ("PUT", "/k", "x-amz-meta-b2-content-disposition"),
        ("PUT", "/k", "x-amz-meta-b2-anything"),
    ] {
        let request = Request::new(method, &format!("/{BUCKET}{target}")).header(name, "1");
        let answer = house.send(request);
        assert_eq!(answer.status, 400, "{name}");
        if method != "HEAD" {
            let text = format!("Unsupported header '{name}' received for this API call.");
            assert_eq!(element(&answer, "Message").replace("&apos;", "'"), text);
        }
    }
    let sse = |inside: &str| {
        format!(
            "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>\
             <SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault>{inside}</Rule>\
             </ServerSideEncryptionConfiguration>"
        )
    };
    let versioning = |inside: &str| {
        let status = "<Status>Enabled</Status>";
        format!("<VersioningConfiguration>{status}{inside}</VersioningConfiguration>")
    };
    let logging = |format: &str| {
        format!(
            "<BucketLoggingStatus><LoggingEnabled><TargetBucket>{BUCKET}</TargetBucket>\
             <TargetPrefix/><TargetObjectKeyFormat>{format}</TargetObjectKeyFormat></LoggingEnabled>\
             </BucketLoggingStatus>"
        )
    };
    let partitioned = "<PartitionedPrefix><PartitionDateSource>EventTime</PartitionDateSource>\
                       </PartitionedPrefix>";
    for (target, body, status) in [
        ("?encryption", sse(""), 200),
        ("?encryption", sse("<BucketKeyEnabled>false</BucketKeyEnabled>"), 200),
        ("?encryption", sse("<BucketKeyEnabled>true</BucketKeyEnabled>"), 501),
        ("?encryption", sse("<BlockedEncryptionTypes/>"), 501),
        ("?versioning", versioning("<MfaDelete>Disabled</MfaDelete>"), 200),
        ("?versioning", versioning("<MfaDelete>Enabled</MfaDelete>"), 501),
        ("?logging", logging("<SimplePrefix/>"), 200),
        ("?logging", logging(partitioned), 501),
    ] {
        assert_eq!(house.ask("PUT", target, &body).status, status, "{body}");
    }
    let tagged = b"<CreateBucketConfiguration><Tags><Tag><Key>a</Key><Value>b</Value></Tag></Tags>\
                   </CreateBucketConfiguration>";
    let answer = house.send(Request::new("PUT", "/tagged-bucket").body(tagged));
    assert_eq!(refused(&answer), no(501, "NotImplemented"));
    let two = house.ask("GET", "?list-type=2&prefix=a&prefix=b", "");
    assert_eq!(refused(&two), no(400, "InvalidArgument"), "two prefixes");
    assert_eq!(house.ask("GET", "?list-type=2&prefix=a&prefix=a", "").status, 200);
}

#[test]
fn s3_85_conditions_of_writes_are_refused_everywhere() {
    let house = house(&[]);
    assert_eq!(house.ask("PUT", "/k", "content").status, 200);
    let begun = house.ask("POST", "/m?uploads", "");
    let upload = element(&begun, "UploadId");
    let before = house.versions();
    let complete = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part>\
                    </CompleteMultipartUpload>";
    for (name, value) in [("If-None-Match", "*"), ("If-Match", "\"x\"")] {
        for (method, target, body, more) in [
            ("PUT", "/k".to_owned(), "x", None),
            ("PUT", "/c".to_owned(), "", Some(("x-amz-copy-source", format!("{BUCKET}/k")))),
            ("POST", format!("/m?uploadId={upload}"), complete, None),
            ("DELETE", "/k".to_owned(), "", None),
        ] {
            let request = Request::new(method, &format!("/{BUCKET}{target}"))
                .header(&name.to_ascii_lowercase(), value)
                .body(body.as_bytes());
            let request =
                more.iter().fold(request, |request, (name, value)| request.header(name, value));
            let answer = house.send(request);
            assert_eq!(refused(&answer), no(501, "NotImplemented"), "{method} {target}");
            assert_eq!(element(&answer, "Header"), name);
        }
    }
    assert_eq!(house.versions(), before, "nothing was made");
}

#[test]
fn s3_86_87_145_answers_to_conditions_tell_caches_what_they_may_keep() {
    let house = house(&[]);
    let put = Request::new("PUT", &format!("/{BUCKET}/k"))
        .body(b"0123456789")
        .header("cache-control", "max-age=7")
        .header("expires", "0")
        .header("content-disposition", "attachment; filename=a b (1).txt");
    let stored = house.send(put);
    assert_eq!(stored.status, 200, "what S3 takes as a header is taken: {stored:?}");
    let tag = stored.header("etag").unwrap().to_owned();
    let read = house.get("k", &[]);
    assert_eq!(read.header("content-disposition"), Some("attachment; filename=a b (1).txt"));
    let known = house.get("k", &[("if-none-match", &tag)]);
    assert_eq!(known.status, 304);
    for name in ["cache-control", "expires", "etag", "last-modified", "vary"] {
        assert_eq!(known.header(name), read.header(name), "{name}");
    }
    assert_eq!(known.header("cache-control"), Some("max-age=7"));

    let modified = read.header("last-modified").unwrap();
    let weak = format!("W/{tag}");
    for (validator, status) in [
        (tag.as_str(), 206),
        (modified, 206),
        ("\"other\"", 200),
        (weak.as_str(), 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
    ] {
        let part = house.get("k", &[("range", "bytes=2-3"), ("if-range", validator)]);
        let body = if status == 206 { &b"23"[..] } else { b"0123456789" };
        assert_eq!((part.status, &part.body[..]), (status, body), "{validator}");
        let native = house
            .master
            .download(&format!("{BUCKET}/k"), &[("Range", "bytes=2-3"), ("If-Range", validator)]);
        assert_eq!(native.status, status, "natively {validator}");
    }

    // A key is needed even to hear that nothing is new.
    let key = [7_u8; 32];
    let md5 = STANDARD.encode(<md5::Md5 as md5::Digest>::digest(key));
    let customer = "x-amz-server-side-encryption-customer-";
    let secret = Request::new("PUT", &format!("/{BUCKET}/secret"))
        .body(b"content")
        .header(&format!("{customer}algorithm"), "AES256")
        .header(&format!("{customer}key"), &STANDARD.encode(key))
        .header(&format!("{customer}key-md5"), &md5);
    let tag = house.send(secret).header("etag").unwrap().to_owned();
    assert_eq!(house.get("secret", &[("if-none-match", &tag)]).status, 400);
}

#[test]
fn s3_91_94_132_what_is_no_version_is_not_deleted_and_conditions_of_keys_are_refused() {
    let house = house(&[]);
    let begun = house.ask("POST", "/m?uploads", "");
    let upload = element(&begun, "UploadId");
    let gone = house.ask("DELETE", &format!("/m?versionId={upload}"), "");
    assert_eq!(gone.status, 204);
    assert_eq!(house.ask("GET", &format!("/m?uploadId={upload}"), "").status, 200, "still there");
    assert_eq!(house.ask("PUT", "/k", "content").status, 200);
    let before = house.versions();
    let answer = house.ask(
        "POST",
        "?delete",
        &format!(
            "<Delete><Object><Key>k</Key><ETag>x</ETag></Object><Object><Key>k</Key><Size>1</Size>\
             </Object><Object><Key>k</Key><LastModifiedTime>Thu, 01 Jan 1970 00:00:00 GMT\
             </LastModifiedTime></Object><Object><Key>k</Key><VersionId>null</VersionId></Object>\
             <Object><Key>m</Key><VersionId>{upload}</VersionId></Object>\
             <Object><Key>&#1;</Key></Object></Delete>"
        ),
    );
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body).unwrap();
    assert_eq!(text.matches("<Code>NotImplemented</Code>").count(), 3, "{text}");
    assert_eq!(text.matches("<Code>InvalidArgument</Code>").count(), 2, "{text}");
    assert_eq!(text.matches("<Deleted>").count(), 1, "{text}");
    assert!(text.contains("<Key>\u{fffd}</Key>"), "what XML cannot carry is not in it: {text}");
    assert_eq!(house.versions(), before);
}

#[test]
fn s3_119_a_part_has_the_checksum_that_its_upload_was_begun_with() {
    let house = house(&[]);
    let begin = Request::new("POST", &format!("/{BUCKET}/m?uploads"))
        .header("x-amz-checksum-algorithm", "SHA256");
    let upload = element(&house.send(begin), "UploadId");
    let part = |name: &str, value: &str| {
        let target = format!("/{BUCKET}/m?partNumber=1&uploadId={upload}");
        house.send(Request::new("PUT", &target).body(b"content").header(name, value))
    };
    let other = part("x-amz-checksum-crc32", "/sUwqQ==");
    assert_eq!(refused(&other), no(400, "InvalidRequest"));
    assert!(element(&other, "Message").contains("Checksum Type mismatch"), "{other:?}");
    let right = "7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M=";
    assert_eq!(part("x-amz-checksum-sha256", right).status, 200);
}

#[test]
fn s3_109_156_ten_thousand_parts_with_checksums_are_read() {
    let house = house(&[]);
    let begun = house.ask("POST", "/m?uploads", "");
    let upload = element(&begun, "UploadId");
    let parts = |count: usize| {
        let mut list = "<CompleteMultipartUpload>".to_owned();
        for number in 1..=count {
            list += &format!(
                "<Part><ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><ChecksumSHA256>\
                 7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M=</ChecksumSHA256>\
                 <PartNumber>{number}</PartNumber></Part>"
            );
        }
        list + "</CompleteMultipartUpload>"
    };
    let complete = |body: &str| refused(&house.ask("POST", &format!("/m?uploadId={upload}"), body));
    // They were read, and then not found.
    assert_eq!(complete(&parts(10_000)), no(400, "InvalidPart"));
    assert_eq!(complete(&parts(10_001)), no(400, "MalformedXML"));
    let many =
        format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", "<a/>".repeat(100_000));
    assert_eq!(complete(&many), no(400, "MalformedXML"));
    let cors = format!("<CORSConfiguration>{}</CORSConfiguration>", "<a/>".repeat(10_000));
    assert_eq!(refused(&house.ask("PUT", "?cors", &cors)), no(400, "MalformedXML"));
    // Whoever may not is told so before the body is read.
    let (key, secret) = house.master.create_key(&["readFiles"], None, None);
    let reader = Signer::with_key(&house.server, key, secret);
    for target in ["?cors", "?encryption", "?object-lock", "?lifecycle", "?logging", "/k?acl"] {
        let request = Request::new("PUT", &format!("/{BUCKET}{target}")).body(b"<broken");
        let answer = reader.sign(request).send(&house.server.address);
        assert_eq!(refused(&answer), no(403, "AccessDenied"), "{target}");
    }
}

#[test]
fn s3_118_144_locks_given_at_the_start_are_shown_to_whoever_may_see_them() {
    let house = house(&[]);
    let body = json!({
        "accountId": MASTER_ID, "bucketName": "door-locked", "bucketType": "allPrivate",
        "fileLockEnabled": true,
    });
    house.master.ok("b2_create_bucket", &body);
    let begin = Request::new("POST", "/door-locked/m?uploads")
        .header("x-amz-object-lock-mode", "GOVERNANCE")
        .header("x-amz-object-lock-retain-until-date", "2099-01-01T00:00:00Z")
        .header("x-amz-object-lock-legal-hold", "ON");
    let upload = element(&house.send(begin), "UploadId");
    let part = format!("/door-locked/m?partNumber=1&uploadId={upload}");
    let tag = house.send(Request::new("PUT", &part).body(b"x")).header("etag").unwrap().to_owned();
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part>\
         </CompleteMultipartUpload>"
    );
    let complete = Request::new("POST", &format!("/door-locked/m?uploadId={upload}"));
    assert_eq!(house.send(complete.body(list.as_bytes())).status, 200);
    for (rights, retention, hold) in [
        (&["readFiles"][..], false, false),
        (&["readFiles", "readFileRetentions"], true, false),
        (&["readFiles", "readFileLegalHolds"], false, true),
        (&["readFiles", "readFileRetentions", "readFileLegalHolds"], true, true),
    ] {
        let (key, secret) = house.master.create_key(rights, None, None);
        let reader = Signer::with_key(&house.server, key, secret);
        for method in ["GET", "HEAD"] {
            let request = reader.sign(Request::new(method, "/door-locked/m"));
            let answer = request.send(&house.server.address);
            let told = |name: &str| answer.header(&format!("x-amz-object-lock-{name}"));
            let mode = retention.then_some("GOVERNANCE");
            assert_eq!((answer.status, told("mode")), (200, mode), "{rights:?}");
            assert_eq!(told("retain-until-date").is_some(), retention, "{rights:?}");
            assert_eq!(told("legal-hold"), hold.then_some("ON"), "{rights:?}");
        }
    }
}
