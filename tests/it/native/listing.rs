//! Listings of names and versions.

use serde_json::{Value, json};

use crate::support::inside::Server;
use crate::support::server::Session;

fn names(session: &Session, operation: &str, body: &Value) -> Vec<String> {
    let page = session.ok(operation, body);
    page["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["fileName"].as_str().unwrap().to_owned())
        .collect()
}

fn walk(session: &Session, operation: &str, mut body: Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for _ in 0..1000 {
        let page = session.ok(operation, &body);
        for file in page["files"].as_array().unwrap() {
            all.push((file["fileName"].as_str().unwrap().to_owned(), file["fileId"].clone()));
        }
        body["startFileName"] = page["nextFileName"].clone();
        if operation == "b2_list_file_versions" {
            body["startFileId"] = page["nextFileId"].clone();
        }
        if page["nextFileName"].is_null() {
            return all;
        }
    }
    panic!("the listing never ends");
}

#[test]
fn native_209_to_216_names_come_in_pages_in_byte_order() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("paging-bucket");
    let sorted = ["B", "_", "a", "a b", "a-b", "\u{e9}", "\u{fffd}", "\u{1f600}"];
    for name in sorted.iter().rev() {
        let encoded: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
        master.upload(&bucket, &encoded, b"x");
    }
    let list = json!({"bucketId": bucket});
    assert_eq!(names(&master, "b2_list_file_names", &list), sorted);
    let walked: Vec<String> =
        walk(&master, "b2_list_file_names", json!({"bucketId": bucket, "maxFileCount": 1}))
            .into_iter()
            .map(|(n, _)| n)
            .collect();
    assert_eq!(walked, sorted, "each once in pages of one");
    let from = json!({"bucketId": bucket, "startFileName": "a b"});
    assert_eq!(names(&master, "b2_list_file_names", &from), sorted[3..]);
    let beyond = master
        .ok("b2_list_file_names", &json!({"bucketId": bucket, "startFileName": "\u{10ffff}"}));
    assert_eq!(beyond, json!({"files": [], "nextFileName": null}));
    let prefixed = json!({"bucketId": bucket, "prefix": "a", "startFileName": "a-"});
    assert_eq!(names(&master, "b2_list_file_names", &prefixed), ["a-b"]);
    for number in 0..101 {
        master.upload(&bucket, &format!("many/{number:03}"), b"");
    }
    let default = json!({"bucketId": bucket, "prefix": "many/"});
    assert_eq!(names(&master, "b2_list_file_names", &default).len(), 100);
    for (count, status) in [(0, 200), (10_000, 200), (10_001, 400), (-1, 400)] {
        let answer =
            master.call("b2_list_file_names", &json!({"bucketId": bucket, "maxFileCount": count}));
        assert_eq!(answer.status, status, "{count}");
        assert!(status == 200 || answer.code() == "out_of_range");
    }
}

#[test]
fn native_217_to_221_folders_fold_count_and_never_repeat() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("folder-bucket");
    for number in 0..30 {
        master.upload(&bucket, &format!("a/{number:02}"), b"");
    }
    for name in ["a/sub/x", "a0", "b/x", "c", "hidden/x"] {
        master.upload(&bucket, name, b"");
    }
    master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "hidden/x"}));
    let folded = json!({"bucketId": bucket, "delimiter": "/"});
    assert_eq!(names(&master, "b2_list_file_names", &folded), ["a/", "a0", "b/", "c"]);
    assert_eq!(
        names(&master, "b2_list_file_versions", &folded),
        ["a/", "a0", "b/", "c", "hidden/"]
    );
    let page = master.ok("b2_list_file_names", &folded);
    let folder = json!({
        "accountId": master.account, "action": "folder", "bucketId": bucket, "contentLength": 0,
        "contentMd5": null, "contentSha1": null, "contentType": null, "fileId": null,
        "fileInfo": {}, "fileName": "a/", "replicationStatus": null, "uploadTimestamp": 0,
    });
    assert_eq!(page["files"][0], folder);
    for size in 1..=4 {
        for operation in ["b2_list_file_names", "b2_list_file_versions"] {
            let walked: Vec<String> = walk(
                &master,
                operation,
                json!({"bucketId": bucket, "delimiter": "/", "maxFileCount": size}),
            )
            .into_iter()
            .map(|(n, _)| n)
            .collect();
            let whole = names(&master, operation, &folded);
            assert_eq!(walked, whole, "{operation} in pages of {size}");
        }
    }
    let inside = names(
        &master,
        "b2_list_file_names",
        &json!({"bucketId": bucket, "delimiter": "/", "prefix": "a/", "maxFileCount": 100}),
    );
    assert_eq!(inside.len(), 31);
    assert_eq!(inside.last().map(String::as_str), Some("a/sub/"));
}

#[test]
fn native_223_225_to_228_versions_come_newest_first_and_can_be_entered_anywhere() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("version-bucket");
    let mut expected = Vec::new();
    for name in ["a", "b"] {
        let mut of_name: Vec<Value> =
            (0..3).map(|_| master.upload(&bucket, name, b"x")["fileId"].clone()).collect();
        of_name.push(
            master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": name}))["fileId"]
                .clone(),
        );
        of_name.reverse();
        expected.extend(of_name.into_iter().map(|id| (name.to_owned(), id)));
    }
    let walked =
        walk(&master, "b2_list_file_versions", json!({"bucketId": bucket, "maxFileCount": 1}));
    assert_eq!(walked, expected);
    for at in 0..expected.len() {
        let (name, id) = &expected[at];
        let page = walk(
            &master,
            "b2_list_file_versions",
            json!({"bucketId": bucket, "startFileName": name, "startFileId": id}),
        );
        assert_eq!(page, expected[at..], "entered at {at}");
    }
    let (name, id) = &expected[1];
    master.ok("b2_delete_file_version", &json!({"fileName": name, "fileId": id}));
    let page = walk(
        &master,
        "b2_list_file_versions",
        json!({"bucketId": bucket, "startFileName": name, "startFileId": id}),
    );
    assert_eq!(page, expected[2..], "where a deleted version would stand");
    let answer =
        master.call("b2_list_file_versions", &json!({"bucketId": bucket, "startFileId": id}));
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"));
}

#[test]
fn native_229_to_233_prefix_keys_and_versions_of_the_api() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("rights-bucket");
    master.upload(&bucket, "in/f", b"four");
    let prefixed = master.with_key(&["listFiles"], Some(&[&bucket]), Some("in/"));
    for (prefix, status) in
        [(None, 401), (Some(""), 401), (Some("i"), 401), (Some("in/"), 200), (Some("in/f"), 200)]
    {
        let body = json!({"bucketId": bucket, "prefix": prefix});
        assert_eq!(prefixed.call("b2_list_file_names", &body).status, status, "{prefix:?}");
    }
    for unknown in ["nonsense", "0123456789abcdef01234567"] {
        for operation in ["b2_list_file_names", "b2_list_file_versions"] {
            let answer = master.call(operation, &json!({"bucketId": unknown}));
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad_bucket_id"));
            assert_eq!(answer.message(), format!("Bucket {unknown} does not exist"));
        }
    }
    let others: Vec<&str> =
        kiln::manifest::capabilities().into_iter().filter(|one| *one != "listFiles").collect();
    let others = master.with_key(&others, None, None);
    for operation in ["b2_list_file_names", "b2_list_file_versions"] {
        let answer = others.call(operation, &json!({"bucketId": bucket}));
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{operation}");
    }
    for version in 1..=4 {
        for operation in ["b2_list_file_names", "b2_list_file_versions"] {
            let page = master.call_version(version, operation, &json!({"bucketId": bucket})).json();
            let file = &page["files"][0];
            let size = (version == 1).then(|| json!(4));
            assert_eq!(file.get("size"), size.as_ref());
            assert_eq!((&file["contentLength"], &file["bucketId"]), (&json!(4), &json!(bucket)));
            assert_eq!(file["accountId"], json!(master.account));
        }
    }
}
