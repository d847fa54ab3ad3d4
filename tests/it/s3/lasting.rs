//! What outlives a restart, a kill and damage; and what requests without a right to anything get.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::support::http::Connection;
use crate::support::s3::{Request, Signer, element, refused};
use crate::support::server::{MASTER_ID, Server, Session};

const ARGUMENTS: [&str; 3] = ["--test-controls", "--limits-part-size-min", "1"];

fn send(server: &Server, signer: &Signer, request: Request) -> crate::support::http::Answer {
    let signer = Signer::with_key(server, signer.key.clone(), signer.secret.clone());
    signer.sign(request).send(&server.address)
}

fn locked_bucket(master: &Session, name: &str) {
    let body = json!({
        "accountId": MASTER_ID, "bucketName": name, "bucketType": "allPrivate",
        "fileLockEnabled": true,
    });
    master.ok("b2_create_bucket", &body);
}

fn key(server: &Server, master: &Session) -> Signer {
    let all = kiln::manifest::capabilities();
    let (key, secret) = master.create_key(&all, None, None);
    Signer::with_key(server, key, secret)
}

#[test]
fn s3_143_161_a_lock_that_cannot_be_read_counts_as_one() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start_in(&data, &ARGUMENTS);
    let master = server.master();
    locked_bucket(&master, "lasting-lock");
    let signer = key(&server, &master);
    let put = Request::new("PUT", "/lasting-lock/k")
        .body(b"content")
        .header("x-amz-object-lock-mode", "GOVERNANCE")
        .header("x-amz-object-lock-retain-until-date", "2099-01-01T00:00:00Z");
    let stored = send(&server, &signer, put);
    assert_eq!(stored.status, 200, "{stored:?}");
    let version = stored.header("x-amz-version-id").unwrap().to_owned();
    assert_eq!(server.terminate(), Some(0));
    let catalog = rusqlite::Connection::open(data.join("meta.db")).unwrap();
    // Damage asks no constraint.
    catalog.pragma_update(None, "ignore_check_constraints", true).unwrap();
    let changed = catalog.execute("UPDATE files SET retain_until_ms = NULL WHERE name = 'k'", []);
    assert_eq!(changed.unwrap(), 1);
    drop(catalog);
    server.restart();
    let delete = || {
        Request::new("DELETE", &format!("/lasting-lock/k?versionId={version}"))
            .header("x-amz-bypass-governance-retention", "true")
    };
    let answer = send(&server, &signer, delete());
    assert_eq!(refused(&answer), (403, "AccessDenied".to_owned()));
    let read = send(&server, &signer, Request::new("GET", "/lasting-lock/k"));
    assert_eq!((read.status, &read.body[..]), (200, &b"content"[..]));
    assert_eq!(read.header("x-amz-object-lock-mode"), Some("COMPLIANCE"));
}

#[test]
fn s3_162_a_restart_loses_no_key_no_bucket_and_no_rule() {
    let folder = TempDir::new().unwrap();
    let mut server = Server::start_in(&folder.path().join("data"), &ARGUMENTS);
    let master = server.master();
    let signer = key(&server, &master);
    let ask = |server: &Server, method: &str, target: &str, body: &str| {
        let answer = send(server, &signer, Request::new(method, target).body(body.as_bytes()));
        assert!(answer.status < 300, "{method} {target}: {answer:?}");
        String::from_utf8(answer.body).unwrap()
    };
    let rules = "<LifecycleConfiguration><Rule><ID>kept name</ID><Status>Enabled</Status><Filter>\
                 <Prefix>z/</Prefix></Filter><NoncurrentVersionExpiration><NoncurrentDays>9\
                 </NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>";
    let cors = "<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>\
                https://a.example</AllowedOrigin></CORSRule></CORSConfiguration>";
    let logging = "<BucketLoggingStatus><LoggingEnabled><TargetBucket>lasting-bucket</TargetBucket>\
                   <TargetPrefix>l/</TargetPrefix></LoggingEnabled></BucketLoggingStatus>";
    ask(&server, "PUT", "/lasting-bucket", "");
    ask(&server, "PUT", "/lasting-bucket?lifecycle", rules);
    ask(&server, "PUT", "/lasting-bucket?cors", cors);
    ask(&server, "PUT", "/lasting-bucket?logging", logging);
    ask(&server, "PUT", "/lasting-bucket/k", "content");
    let shown = |server: &Server| {
        ["lifecycle", "cors", "logging", "versions", "acl"]
            .map(|sub| ask(server, "GET", &format!("/lasting-bucket?{sub}"), ""))
    };
    let before = shown(&server);
    assert!(before[0].contains("<ID>kept name</ID>"), "{}", before[0]);
    server.kill();
    server.restart();
    assert_eq!(shown(&server), before);
    assert_eq!(ask(&server, "GET", "/lasting-bucket/k", ""), "content");
}

#[test]
fn s3_163_a_kill_leaves_the_whole_object_or_the_whole_upload() {
    let folder = TempDir::new().unwrap();
    let mut server = Server::start_in(&folder.path().join("data"), &ARGUMENTS);
    let master = server.master();
    master.create_bucket("lasting-kill");
    let signer = key(&server, &master);
    let mut outcomes = BTreeSet::new();
    for round in 0..12_u64 {
        let target = format!("/lasting-kill/k{round}");
        let begun = send(&server, &signer, Request::new("POST", &format!("{target}?uploads")));
        let upload = element(&begun, "UploadId");
        let mut parts = String::new();
        for (number, content) in [(1, vec![7_u8; 100_000]), (2, b"end".to_vec())] {
            let part = format!("{target}?partNumber={number}&uploadId={upload}");
            let sent = send(&server, &signer, Request::new("PUT", &part).body(&content));
            let tag = sent.header("etag").unwrap();
            parts += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>");
        }
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let complete =
            || Request::new("POST", &format!("{target}?uploadId={upload}")).body(body.as_bytes());
        let signed = Signer::with_key(&server, signer.key.clone(), signer.secret.clone());
        let signed = signed.sign(complete());
        let address = server.address.clone();
        let under_way = std::thread::spawn(move || {
            // However it ends: the server goes meanwhile.
            Connection::open(&address)
                .and_then(|mut connection| signed.send_over(&mut connection))
                .map(|answer| answer.status)
        });
        std::thread::sleep(Duration::from_micros(round * 700));
        server.kill();
        let heard = under_way.join().unwrap();
        server.restart();
        let whole = send(&server, &signer, Request::new("GET", &target));
        let listed =
            send(&server, &signer, Request::new("GET", &format!("{target}?uploadId={upload}")));
        let outcome = match (whole.status, listed.status) {
            (200, 404) => {
                assert_eq!(whole.body.len(), 100_003);
                "object"
            }
            (404, 200) => {
                let text = String::from_utf8(listed.body).unwrap();
                assert_eq!(text.matches("<PartNumber>").count(), 2, "{text}");
                assert_ne!(heard.unwrap_or(0), 200, "what was answered is there");
                "upload"
            }
            other => panic!("neither the object nor the upload: {other:?}"),
        };
        outcomes.insert(outcome);
        let again = send(&server, &signer, complete());
        assert_eq!(again.status, 200, "{outcome}: {again:?}");
    }
    assert!(!outcomes.is_empty());
}

/// Pages of memory that a process holds.
fn resident_pages(pid: u32) -> u64 {
    let numbers = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    numbers.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn s3_160_ten_thousand_addresses_with_wrong_signatures_fill_no_memory() {
    let server = Server::start();
    let master = server.master();
    master.create_bucket("lasting-memory");
    let signer = key(&server, &master);
    let mut connection = Connection::open(&server.address).unwrap();
    let mut strike = |number: u32| {
        let target = format!("/lasting-memory/k{number}");
        let mut request = signer.presign(Request::new("GET", &target), "60");
        // Half of them are by keys that nobody has.
        if number.is_multiple_of(2) {
            let (begun, _) = signer.key.split_at(17);
            request.query = request.query.replace(&signer.key, &format!("{begun}{number:08x}"));
        } else {
            request.query.truncate(request.query.len() - 1);
            request.query.push('g');
        }
        let answer = request.send_over(&mut connection).unwrap();
        assert!(answer.status == 403 || answer.status == 400, "{answer:?}");
    };
    (0..1000).for_each(&mut strike);
    let before = resident_pages(server.pid());
    (1000..10_000).for_each(&mut strike);
    let grown = resident_pages(server.pid()).saturating_sub(before) * 4096;
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes");
}

#[test]
fn s3_159_a_body_of_two_lengths_is_no_request() {
    let server = Server::start();
    for (method, target) in [("PUT", "/lasting-bucket/k"), ("POST", "/lasting-bucket?delete")] {
        let mut connection = Connection::open(&server.address).unwrap();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled/x HTTP/1.1\r\n\
             Host: localhost\r\n\r\n"
        );
        connection.send_raw(head.as_bytes()).unwrap();
        let answers = String::from_utf8_lossy(&connection.read_to_end().unwrap()).into_owned();
        assert!(answers.starts_with("HTTP/1.1 400"), "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    }
}

#[test]
fn s3_153_154_no_known_key_opens_anything_and_nothing_is_told_without_one() {
    let server = Server::start();
    let master = server.master();
    master.create_bucket("lasting-secret");
    for (key, secret) in [
        ("minioadmin", "minioadmin"),
        ("rustfsadmin", "rustfsadmin"),
        ("admin", "password"),
        ("test", "test"),
        ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("000000000000000000000000", ""),
        (MASTER_ID, "K000nobodyknowsthissecretforno1"),
    ] {
        let signer = Signer::with_key(&server, key.to_owned(), secret.to_owned());
        let answer = signer.sign(Request::new("GET", "/")).send(&server.address);
        assert_eq!(answer.status, 403, "{key}: {answer:?}");
    }
    for target in [
        "/metrics",
        "/healthz",
        "/readyz",
        "/debug/pprof",
        "/admin/faults",
        "/minio/v2/metrics/cluster",
    ] {
        let answer = Request::new("GET", target).header("host", "localhost").send(&server.address);
        assert_eq!(refused(&answer), (403, "AccessDenied".to_owned()), "{target}");
        let text = String::from_utf8(answer.body).unwrap();
        assert!(!text.contains("lasting-secret") && !text.contains("kiln_"), "{text}");
    }
    // What peers call is none of S3, and of that only what they need is here.
    let answer =
        Request::new("GET", "/api/v2/remotes").header("host", "localhost").send(&server.address);
    let text = String::from_utf8(answer.body).unwrap();
    assert_eq!(answer.status, 404, "{text}");
    assert!(text.contains("\"not_found\"") && !text.contains("lasting-secret"), "{text}");
}

#[test]
fn s3_158_an_unknown_key_and_a_wrong_signature_are_answered_alike_but_for_their_codes() {
    let server = Server::start();
    let master = server.master();
    let wrong = Signer { secret: "K000anotherone".to_owned(), ..key(&server, &master) };
    let unknown = Signer { key: "0000123456789abfffffffff0".to_owned(), ..wrong.clone() };
    let told = |signer: &Signer| {
        let answer = signer.sign(Request::new("GET", "/some-bucket/k")).send(&server.address);
        let mut text = String::from_utf8_lossy(&answer.body).into_owned();
        let code = element(&answer, "Code");
        for name in ["Code", "Message", "RequestId", "HostId"] {
            text = text.replace(&format!("<{name}>{}<", element(&answer, name)), "<..>");
        }
        let names: Vec<String> = answer.headers.keys().cloned().collect();
        ((answer.status, names, text), code)
    };
    let ((of_wrong, wrong_code), (of_unknown, unknown_code)) = (told(&wrong), told(&unknown));
    assert_eq!(of_wrong, of_unknown);
    let codes = (wrong_code.as_str(), unknown_code.as_str());
    assert_eq!(codes, ("SignatureDoesNotMatch", "InvalidAccessKeyId"));
}
