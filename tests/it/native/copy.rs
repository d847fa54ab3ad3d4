//! Server-side copies.

use serde_json::{Value, json};

use crate::support::http::Answer;
use crate::support::server::{Server, sha1_hex};

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
}

#[test]
fn native_201_270_to_277_281_a_copy_takes_metadata_along_or_replaces_it() {
    let server = Server::start();
    let master = server.master();
    let (bucket, other) =
        (master.create_bucket("copy-bucket"), master.create_bucket("other-bucket"));
    let content: Vec<u8> = (0..50_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let more = [("Content-Type", "text/x-source"), ("X-Bz-Info-Colour", "blue")];
    let source = master.try_upload(&bucket, "source", &content, &more).json();
    let id = source["fileId"].as_str().unwrap();
    let copy = |fields: &Value| {
        let mut wanted = json!({"sourceFileId": id, "fileName": "copy"});
        wanted.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        master.call("b2_copy_file", &wanted)
    };
    let plain = copy(&json!({})).json();
    assert_eq!(plain["action"], "copy");
    for field in ["contentType", "fileInfo", "contentSha1", "contentMd5", "contentLength"] {
        assert_eq!(plain[field], source[field], "{field}");
    }
    assert_ne!(plain["fileId"], source["fileId"]);
    let info = master.ok("b2_get_file_info", &json!({"fileId": plain["fileId"]}));
    assert_eq!(info["action"], "upload");
    assert_eq!(master.download("copy-bucket/copy", &[]).body, content);

    refused(&copy(&json!({"contentType": "text/plain"})), 400, "bad_request");
    refused(&copy(&json!({"fileInfo": {}})), 400, "bad_request");
    refused(&copy(&json!({"metadataDirective": "REPLACE"})), 400, "bad_request");
    refused(&copy(&json!({"metadataDirective": "copy"})), 400, "bad_request");
    let replaced = copy(&json!({"metadataDirective": "REPLACE", "contentType": "text/new"})).json();
    assert_eq!((&replaced["contentType"], &replaced["fileInfo"]), (&json!("text/new"), &json!({})));
    let informed = copy(&json!({
        "metadataDirective": "REPLACE", "contentType": "b2/x-auto", "fileInfo": {"Shade": "dark"},
    }));
    assert_eq!(informed.json()["fileInfo"], json!({"shade": "dark"}));

    let ranged = copy(&json!({"range": "bytes=0-3"})).json();
    assert_eq!(
        (&ranged["contentLength"], &ranged["contentSha1"]),
        (&json!(4), &json!(sha1_hex(&content[..4])))
    );
    let long = copy(&json!({"range": "bytes=100-49999"})).json();
    assert_eq!(long["contentSha1"], sha1_hex(&content[100..]));
    assert_eq!(master.download("copy-bucket/copy", &[]).body, &content[100..]);
    let part = master.download("copy-bucket/copy", &[("Range", "bytes=10-19")]);
    assert_eq!(part.body, &content[110..120]);
    for bad in ["bytes=3-0", "bytes=0-", "0-3", "bytes=a-b"] {
        refused(&copy(&json!({"range": bad})), 400, "bad_request");
    }
    refused(&copy(&json!({"range": "bytes=50000-50001"})), 416, "range_not_satisfiable");

    assert_eq!(copy(&json!({"destinationBucketId": other})).json()["bucketId"], json!(other));
    assert_eq!(master.download("other-bucket/copy", &[]).body, content);
    let nowhere = copy(&json!({"destinationBucketId": "ffffffffffffffffffffffff"}));
    refused(&nowhere, 400, "bad_bucket_id");
    let own = copy(&json!({"fileName": "source"})).json();
    assert_ne!(own["fileId"], source["fileId"]);
    let versions =
        master.ok("b2_list_file_versions", &json!({"bucketId": bucket, "prefix": "source"}));
    assert_eq!(versions["files"].as_array().unwrap().len(), 2);
}

#[test]
fn native_278_a_source_that_is_no_file_is_not_copied() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("copy-bucket");
    let copy =
        |id: &str| master.call("b2_copy_file", &json!({"sourceFileId": id, "fileName": "x"}));
    let file = master.upload(&bucket, "f", b"x")["fileId"].as_str().unwrap().to_owned();
    let marker = master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "f"}));
    refused(&copy(marker["fileId"].as_str().unwrap()), 400, "bad_request");
    let large = json!({"bucketId": bucket, "fileName": "l", "contentType": "text/plain"});
    let started = master.ok("b2_start_large_file", &large);
    refused(&copy(started["fileId"].as_str().unwrap()), 400, "bad_request");
    refused(&copy("malformed"), 400, "bad_request");
    refused(&copy(&file.replace("_f1", "_f3")), 404, "not_found");
    master.ok("b2_delete_file_version", &json!({"fileId": file, "fileName": "f"}));
    refused(&copy(&file), 404, "not_found");
}

#[test]
fn native_279_282_a_copy_needs_rights_on_both_sides() {
    let server = Server::start();
    let master = server.master();
    let (private, public) =
        (master.create_bucket("copy-private"), master.create_bucket("copy-public"));
    let open = json!({"accountId": master.account, "bucketId": public, "bucketType": "allPublic"});
    master.ok("b2_update_bucket", &open);
    let hidden = master.upload(&private, "a/f", b"secret")["fileId"].clone();
    let shown = master.upload(&public, "a/f", b"shown")["fileId"].clone();
    let outside = master.upload(&private, "b/f", b"other")["fileId"].clone();
    let writer = master.with_key(&["writeFiles"], None, None);
    let copy = |session: &crate::support::server::Session, source: &Value, name: &str| {
        session.call(
            "b2_copy_file",
            &json!({
                "sourceFileId": source, "fileName": name, "destinationBucketId": private,
            }),
        )
    };
    refused(&copy(&writer, &hidden, "a/c"), 401, "unauthorized");
    assert_eq!(copy(&writer, &shown, "a/c").status, 200, "what all may read may be copied");
    let bound = master.with_key(&["writeFiles", "readFiles"], Some(&[&private]), Some("a/"));
    assert_eq!(copy(&bound, &hidden, "a/c").status, 200);
    refused(&copy(&bound, &hidden, "b/c"), 401, "unauthorized");
    refused(&copy(&bound, &outside, "a/c"), 401, "unauthorized");
    let reader = master.with_key(&["readFiles"], None, None);
    refused(&copy(&reader, &hidden, "a/c"), 401, "unauthorized");
}

#[test]
fn native_280_more_than_five_gigabytes_are_not_copied_at_once() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("copy-bucket");
    let piece = vec![7_u8; 100_000_000];
    let sha1 = sha1_hex(&piece);
    let source = master.upload(&bucket, "piece", &piece)["fileId"].clone();
    drop(piece);
    let fields = json!({"bucketId": bucket, "fileName": "huge", "contentType": "a/b"});
    let huge = master.ok("b2_start_large_file", &fields)["fileId"].clone();
    // Copies of a part write no bytes, so five gigabytes cost one tenth of one.
    let mut sha1s = Vec::new();
    for number in 1..=50 {
        let part = json!({"sourceFileId": source, "largeFileId": huge, "partNumber": number});
        assert_eq!(master.ok("b2_copy_part", &part)["contentSha1"], sha1);
        sha1s.push(sha1.clone());
    }
    let last = json!({"sourceFileId": source, "largeFileId": huge, "partNumber": 51, "range": "bytes=0-0"});
    let last = master.ok("b2_copy_part", &last);
    sha1s.push(last["contentSha1"].as_str().unwrap().to_owned());
    let done = master.ok("b2_finish_large_file", &json!({"fileId": huge, "partSha1Array": sha1s}));
    assert_eq!(done["contentLength"], 5_000_000_001_u64);
    let copy = json!({"sourceFileId": huge, "fileName": "copy"});
    let answer = master.call("b2_copy_file", &copy);
    refused(&answer, 400, "source_too_large");
    assert_eq!(answer.message(), "Copy source too big: 5000000001");
    let part = json!({"sourceFileId": huge, "largeFileId": huge, "partNumber": 1});
    refused(&master.call("b2_copy_part", &part), 400, "source_too_large");
    let tail =
        json!({"sourceFileId": huge, "fileName": "tail", "range": "bytes=4999999998-5000000000"});
    assert_eq!(master.ok("b2_copy_file", &tail)["contentLength"], 3);
    assert_eq!(master.download("copy-bucket/tail", &[]).body, [7, 7, 7]);
}
