//! Versions, methods, headers and request bodies, the same for all operations.

use chrono::DateTime;
use serde_json::{Value, json};

use super::{BUCKET, Stage, names, now_ms, refused, text};
use crate::support::http::{Connection, call};
use crate::support::server::{MASTER_ID, MASTER_KEY, Session, basic, sha1_hex};

/// The operations that take and answer JSON.
const JSON_OPERATIONS: [&str; 14] = [
    "b2_create_bucket",
    "b2_create_key",
    "b2_delete_bucket",
    "b2_delete_file_version",
    "b2_delete_key",
    "b2_get_download_authorization",
    "b2_get_file_info",
    "b2_get_upload_url",
    "b2_hide_file",
    "b2_list_buckets",
    "b2_list_file_names",
    "b2_list_file_versions",
    "b2_list_keys",
    "b2_update_bucket",
];

#[test]
fn native_1_2_3_4_authorize_answers_get_and_post_on_every_version() {
    let stage = Stage::new();
    let header = basic(MASTER_ID, MASTER_KEY);
    let headers = [("Authorization", header.as_str())];
    for version in 1..=4 {
        let target = format!("/b2api/v{version}/b2_authorize_account");
        for (method, body) in [("POST", "{}"), ("POST", ""), ("GET", "")] {
            let answer = call(&stage.server.address, method, &target, &headers, body.as_bytes());
            assert_eq!(answer.status, 200, "{method} {target} {body:?}");
            let storage = answer.json().pointer("/apiInfo/storageApi").is_some();
            assert_eq!(storage, version >= 3, "version {version} has its own shape");
        }
    }
}

#[test]
fn native_5_6_7_a_token_of_any_version_works_on_every_version() {
    let stage = Stage::new();
    let header = basic(MASTER_ID, MASTER_KEY);
    for made_by in 1..=4 {
        let target = format!("/b2api/v{made_by}/b2_authorize_account");
        let headers = [("Authorization", header.as_str())];
        let answer = call(&stage.server.address, "GET", &target, &headers, b"").json();
        let token = text(&answer, "authorizationToken").to_owned();
        let session = Session { token, ..stage.master.clone() };
        for used_on in 1..=4 {
            let body = json!({"accountId": session.account});
            let answer = session.call_version(used_on, "b2_list_buckets", &body);
            assert_eq!(answer.status, 200, "made by v{made_by}, used on v{used_on}");
            assert_eq!(answer.json()["buckets"][0]["bucketName"], BUCKET);
        }
    }
}

#[test]
fn native_8_9_unknown_versions_and_operations_are_not_found() {
    let stage = Stage::new();
    for target in [
        "/b2api/v5/b2_list_buckets",
        "/b2api/v0/b2_list_buckets",
        "/b2api/v9/b2_authorize_account",
        "/b2api/v44/b2_list_buckets",
        "/b2api/v4/b2_no_such_operation",
        "/b2api/v4/B2_LIST_BUCKETS",
        "/b2api/v4/b2_list_buckets/more",
        "/b2api/v4/b2_download_file_by_name",
        "/b2api/v4/",
        "/b2api",
        "/",
    ] {
        let authorized = [("Authorization", stage.master.token.as_str())];
        for headers in [&authorized[..], &[]] {
            let answer = call(&stage.server.address, "POST", target, headers, b"{}");
            // The same with and without a token: nobody learns which tokens are good.
            refused(&answer, 404, "not_found");
        }
    }
}

#[test]
fn native_10_11_wrong_methods_are_refused() {
    let stage = Stage::new();
    let headers = [("Authorization", stage.master.token.as_str())];
    for operation in JSON_OPERATIONS {
        for method in ["PUT", "DELETE", "PATCH"] {
            let target = format!("/b2api/v4/{operation}");
            let answer = call(&stage.server.address, method, &target, &headers, b"");
            refused(&answer, 405, "method_not_allowed");
        }
    }
    let (target, token) = stage.master.upload_url(&stage.bucket);
    let headers = [("Authorization", token.as_str())];
    let answer = call(&stage.server.address, "GET", &target, &headers, b"");
    refused(&answer, 405, "method_not_allowed");
    for method in ["PUT", "POST", "DELETE"] {
        let target = format!("/file/{BUCKET}/x");
        let headers = [("Authorization", stage.master.token.as_str())];
        let answer = call(&stage.server.address, method, &target, &headers, b"");
        refused(&answer, 405, "method_not_allowed");
    }
}

#[test]
fn native_13_14_15_16_get_reads_the_same_fields_from_the_query() {
    let stage = Stage::new();
    let one = stage.master.upload(&stage.bucket, "one", b"1");
    stage.master.upload(&stage.bucket, "two", b"2");
    let (account, bucket) = (&stage.master.account, &stage.bucket);
    let get = |operation: &str, query: &str| {
        let target = format!("/b2api/v4/{operation}?{query}");
        let headers = [("Authorization", stage.master.token.as_str())];
        call(&stage.server.address, "GET", &target, &headers, b"")
    };
    let file_id = text(&one, "fileId");
    let info = get("b2_get_file_info", &format!("fileId={file_id}")).json();
    assert_eq!(info, stage.master.ok("b2_get_file_info", &json!({"fileId": file_id})));

    let page = get("b2_list_file_names", &format!("bucketId={bucket}&maxFileCount=1"));
    assert_eq!(names(&page.json()), ["one"]);

    let pair = get("b2_get_upload_url", &format!("bucketId={bucket}"));
    assert_eq!(pair.json()["bucketId"], **bucket);

    let types = |types: &str| {
        get("b2_list_buckets", &format!("accountId={account}&bucketTypes={types}"))
    };
    assert_eq!(types("%5B%22allPrivate%22%5D").json()["buckets"][0]["bucketName"], BUCKET);
    assert_eq!(types("%5B%22allPublic%22%5D").json()["buckets"], json!([]));
    refused(&types("%5B%22allPublic%22"), 400, "bad_json");
    refused(&get("b2_list_file_names", "bucketId=a&bucketId=b"), 400, "bad_request");
    let text_for_number = format!("bucketId={bucket}&maxFileCount=x");
    refused(&get("b2_list_file_names", &text_for_number), 400, "bad_request");
}

#[test]
fn native_17_20_21_22_json_answers_carry_their_headers() {
    let stage = Stage::new();
    let body = json!({"accountId": stage.master.account});
    let before = now_ms();
    let good = stage.master.call("b2_list_buckets", &body);
    let bad = stage.master.call("b2_list_buckets", &json!({}));
    let after = now_ms();
    assert_eq!(good.header("content-type"), Some("application/json;charset=UTF-8"));
    for answer in [good, bad] {
        assert_eq!(answer.header("cache-control"), Some("max-age=0, no-cache, no-store"));
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        assert_eq!(length, answer.body.len());
        let date = DateTime::parse_from_rfc2822(answer.header("date").unwrap()).unwrap();
        // HTTP dates have whole seconds, and servers may keep one for a while.
        let date = date.timestamp_millis();
        assert!((before - 2000..=after).contains(&date), "{before} {date} {after}");
    }
}

#[test]
fn native_18_19_errors_have_exactly_code_message_and_status() {
    let stage = Stage::new();
    refused(&stage.master.call("b2_list_buckets", &json!({})), 400, "bad_request");
    refused(&stage.master.call("b2_get_file_info", &json!({"fileId": "x"})), 400, "bad_request");
    let nobody = Session { token: "nobody".to_owned(), ..stage.master.clone() };
    refused(&nobody.call("b2_list_buckets", &json!({})), 401, "bad_auth_token");
    refused(&stage.master.download("first-bucket/none", &[]), 404, "not_found");
    let stored = stage.master.upload(&stage.bucket, "a", b"x");
    let path = format!("first-bucket/{}", text(&stored, "fileName"));
    let beyond = stage.master.download(&path, &[("Range", "bytes=5-")]);
    refused(&beyond, 416, "range_not_satisfiable");
}

/// Sends a body to `b2_list_buckets` as it is.
fn list_buckets_with(stage: &Stage, body: &[u8]) -> crate::support::http::Answer {
    let headers = [("Authorization", stage.master.token.as_str())];
    call(&stage.server.address, "POST", "/b2api/v4/b2_list_buckets", &headers, body)
}

#[test]
fn native_23_24_reliability_h1_h2_h6_h7_bodies_that_are_no_json_object_are_refused() {
    let stage = Stage::new();
    let account = &stage.master.account;
    let good = format!("{{\"accountId\":\"{account}\"}}");
    assert_eq!(list_buckets_with(&stage, good.as_bytes()).status, 200);

    let deep_lists = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let deep_objects = [b"{\"a\":".repeat(100_000), b"1".to_vec(), vec![b'}'; 100_000]].concat();
    let deep_unknown = [
        format!("{{\"accountId\":\"{account}\",\"x\":").into_bytes(),
        vec![b'['; 100_000],
        vec![b']'; 100_000],
        b"}".to_vec(),
    ]
    .concat();
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let in_name = |bytes: &[u8]| [b"{\"accountId\":\"", bytes, b"\"}"].concat();
    let bodies: Vec<Vec<u8>> = vec![
        b"not json".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"\"text\"".to_vec(),
        b"null".to_vec(),
        b"7".to_vec(),
        b"<xml/>".to_vec(),
        b"accountId=x".to_vec(),
        b"{'accountId':'x'}".to_vec(),
        b"{\"accountId\":\"x\",}".to_vec(),
        deep_lists,
        deep_objects,
        deep_unknown,
        format!("{{\"accountId\":\"{account}\",\"accountId\":\"{account}\"}}").into_bytes(),
        format!("{good} x").into_bytes(),
        format!("{good}{good}").into_bytes(),
        [b"\xef\xbb\xbf", good.as_bytes()].concat(),
        utf16,
        in_name(b"\xff\xfe"),
        in_name(b"\xc0\xae"),
        in_name(b"\\ud800"),
        in_name(b"a\nb"),
        in_name(b"\\x41"),
        format!("{{\"accountId\":\"{account}\",\"x\":NaN}}").into_bytes(),
        format!("{{\"accountId\":\"{account}\",\"x\":1e400}}").into_bytes(),
        format!("{{\"accountId\":\"{account}\",\"x\":01}}").into_bytes(),
    ];
    for body in bodies {
        let answer = list_buckets_with(&stage, &body);
        let message = refused(&answer, 400, "bad_json");
        assert!(message.len() < 500, "{message}");
    }
}

#[test]
fn native_25_26_27_required_fields_must_be_there_and_have_their_type() {
    let stage = Stage::new();
    let (account, bucket) = (&stage.master.account, &stage.bucket);
    // Each operation with all required fields of their types.
    let requests = [
        ("b2_create_bucket", json!({"accountId": account, "bucketName": "x-bucket", "bucketType": "allPrivate"})),
        ("b2_create_key", json!({"accountId": account, "capabilities": ["listFiles"], "keyName": "k"})),
        ("b2_delete_bucket", json!({"accountId": account, "bucketId": bucket})),
        ("b2_delete_file_version", json!({"fileId": "x", "fileName": "n"})),
        ("b2_delete_key", json!({"applicationKeyId": "x"})),
        ("b2_get_download_authorization",
            json!({"bucketId": bucket, "fileNamePrefix": "", "validDurationInSeconds": 1})),
        ("b2_get_file_info", json!({"fileId": "x"})),
        ("b2_get_upload_url", json!({"bucketId": bucket})),
        ("b2_hide_file", json!({"bucketId": bucket, "fileName": "n"})),
        ("b2_list_buckets", json!({"accountId": account})),
        ("b2_list_file_names", json!({"bucketId": bucket})),
        ("b2_list_file_versions", json!({"bucketId": bucket})),
        ("b2_list_keys", json!({"accountId": account})),
        ("b2_update_bucket", json!({"accountId": account, "bucketId": bucket})),
    ];
    assert_eq!(requests.clone().map(|(operation, _)| operation), JSON_OPERATIONS);
    let before = stage.snapshot();
    for (operation, request) in requests {
        for field in request.as_object().unwrap().keys() {
            let with = |value: Option<Value>| {
                let mut request = request.as_object().unwrap().clone();
                request.remove(field);
                request.extend(value.map(|value| (field.clone(), value)));
                stage.master.call(operation, &Value::Object(request))
            };
            let missing = refused(&with(None), 400, "bad_request");
            assert!(missing.contains(field), "{operation} {field}: {missing}");
            let null = refused(&with(Some(Value::Null)), 400, "bad_request");
            assert!(null.contains(field) && null.contains("cannot be null"), "{null}");
            for wrong in [json!({"a": 1}), json!(true), json!([1]), json!(1.5)] {
                let message = refused(&with(Some(wrong)), 400, "bad_request");
                assert!(message.contains(field), "{operation} {field}: {message}");
            }
        }
    }
    assert_eq!(stage.snapshot(), before);
}

#[test]
fn native_27_reliability_h3_h5_optional_fields_must_have_their_type() {
    let stage = Stage::new();
    let (account, bucket) = (&stage.master.account, &stage.bucket);
    let create_bucket = json!({"accountId": account, "bucketName": "x-bucket", "bucketType": "allPrivate"});
    let create_key = json!({"accountId": account, "capabilities": ["listFiles"], "keyName": "k"});
    let list = json!({"bucketId": bucket});
    let update = json!({"accountId": account, "bucketId": bucket});
    let wrong = [
        ("b2_create_bucket", &create_bucket, "bucketInfo", json!("x")),
        ("b2_create_bucket", &create_bucket, "bucketInfo", json!({"a": 1})),
        ("b2_create_bucket", &create_bucket, "fileLockEnabled", json!("true")),
        ("b2_create_bucket", &create_bucket, "defaultServerSideEncryption", json!("none")),
        ("b2_create_bucket", &create_bucket, "replicationConfiguration", json!("x")),
        ("b2_create_key", &create_key, "bucketIds", json!("x")),
        ("b2_create_key", &create_key, "bucketIds", json!([1])),
        ("b2_create_key", &create_key, "namePrefix", json!(1)),
        ("b2_create_key", &create_key, "validDurationInSeconds", json!("60")),
        ("b2_create_key", &create_key, "validDurationInSeconds", json!(60.5)),
        ("b2_list_file_names", &list, "maxFileCount", json!("1")),
        ("b2_list_file_names", &list, "maxFileCount", json!(5.5)),
        ("b2_list_file_names", &list, "maxFileCount", json!(1e30)),
        ("b2_list_file_names", &list, "prefix", json!(["a"])),
        ("b2_list_file_versions", &list, "startFileName", json!(1)),
        ("b2_list_keys", &update, "maxKeyCount", json!("1")),
        ("b2_list_keys", &update, "startApplicationKeyId", json!(1)),
        ("b2_list_buckets", &json!({"accountId": account}), "bucketTypes", json!("all")),
        ("b2_update_bucket", &update, "ifRevisionIs", json!("2")),
        ("b2_update_bucket", &update, "bucketType", json!(1)),
    ];
    let before = stage.snapshot();
    for (operation, request, field, value) in wrong {
        let mut request = request.clone();
        request[field] = value.clone();
        let message = refused(&stage.master.call(operation, &request), 400, "bad_request");
        assert!(message.contains(field), "{operation} {field} {value}: {message}");
    }
    assert_eq!(stage.snapshot(), before);
}

#[test]
fn native_28_29_null_equals_absent_and_unknown_fields_are_ignored() {
    let stage = Stage::new();
    let (account, bucket) = (&stage.master.account, &stage.bucket);
    let made = stage.master.ok("b2_create_bucket", &json!({
        "accountId": account, "bucketName": "null-bucket", "bucketType": "allPrivate",
        "bucketInfo": null, "corsRules": null, "defaultRetention": null,
        "defaultServerSideEncryption": null, "fileLockEnabled": null, "lifecycleRules": null,
        "replicationConfiguration": null, "noSuchField": {"a": [1]},
    }));
    assert_eq!(made["bucketInfo"], json!({}));
    let updated = stage.master.ok("b2_update_bucket", &json!({
        "accountId": account, "bucketId": text(&made, "bucketId"), "bucketInfo": null,
        "bucketType": null, "corsRules": null, "defaultRetention": null,
        "defaultServerSideEncryption": null, "fileLockEnabled": null, "ifRevisionIs": null,
        "lifecycleRules": null, "noSuchField": 1,
    }));
    assert_eq!(updated["bucketType"], "allPrivate");
    stage.master.ok("b2_create_key", &json!({
        "accountId": account, "keyName": "null-key", "capabilities": ["listFiles"],
        "bucketId": null, "bucketIds": null, "namePrefix": null, "validDurationInSeconds": null,
    }));
    stage.master.ok("b2_list_buckets", &json!({
        "accountId": account, "bucketId": null, "bucketName": null, "bucketTypes": null,
    }));
    stage.master.ok("b2_list_keys", &json!({
        "accountId": account, "maxKeyCount": null, "startApplicationKeyId": null,
    }));
    let nulls = json!({
        "bucketId": bucket, "delimiter": null, "maxFileCount": null, "prefix": null,
        "startFileId": null, "startFileName": null, "noSuchField": true,
    });
    stage.master.ok("b2_list_file_names", &nulls);
    stage.master.ok("b2_list_file_versions", &nulls);
}

#[test]
fn native_30_the_account_must_be_the_callers_own() {
    let stage = Stage::new();
    for operation in ["b2_list_buckets", "b2_list_keys"] {
        for other in ["0123456789ac", "0123456789AB", "", "x"] {
            let answer = stage.master.call(operation, &json!({"accountId": other}));
            refused(&answer, 400, "bad_request");
        }
    }
}

#[test]
fn native_31_addresses_have_no_trailing_slash() {
    let stage = Stage::with(&["--public-url", "https://b2.example.org/"]);
    let header = basic(MASTER_ID, MASTER_KEY);
    let headers = [("Authorization", header.as_str())];
    let target = "/b2api/v2/b2_authorize_account";
    let answer = call(&stage.server.address, "GET", target, &headers, b"").json();
    for member in ["apiUrl", "downloadUrl", "s3ApiUrl"] {
        assert_eq!(answer[member], "https://b2.example.org", "{member}");
    }
}

#[test]
fn native_32_escapes_in_json_equal_their_characters() {
    let stage = Stage::new();
    stage.master.upload(&stage.bucket, "%C3%A9%F0%9F%98%80", b"x");
    let body = format!(
        "{{\"bucketId\":\"{}\",\"prefix\":\"\\u00e9\\ud83d\\ude00\"}}",
        stage.bucket.replace('a', "\\u0061")
    );
    let headers = [("Authorization", stage.master.token.as_str())];
    let target = "/b2api/v4/b2_list_file_names";
    let listed = call(&stage.server.address, "POST", target, &headers, body.as_bytes()).json();
    assert_eq!(names(&listed), ["é😀"]);
}

#[test]
fn native_33_no_content_type_is_needed_and_any_is_taken() {
    let stage = Stage::new();
    let body = json!({"accountId": stage.master.account}).to_string();
    for content_type in [None, Some("application/json"), Some("text/plain"), Some("application/xml")]
    {
        let mut headers = vec![("Authorization", stage.master.token.as_str())];
        headers.extend(content_type.map(|content_type| ("Content-Type", content_type)));
        let target = "/b2api/v4/b2_list_buckets";
        let answer = call(&stage.server.address, "POST", target, &headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{content_type:?}");
    }
}

#[test]
fn native_34_chunked_uploads_are_refused_and_store_nothing() {
    let stage = Stage::new();
    let (target, token) = stage.master.upload_url(&stage.bucket);
    let headers = [
        ("Authorization", token.as_str()),
        ("X-Bz-File-Name", "chunked"),
        ("Content-Type", "text/plain"),
        ("X-Bz-Content-Sha1", "do_not_verify"),
        ("Transfer-Encoding", "chunked"),
    ];
    let body = b"5\r\nhello\r\n0\r\n\r\n";
    let answer = call(&stage.server.address, "POST", &target, &headers, body);
    refused(&answer, 400, "bad_request");
    assert_eq!(stage.snapshot()["files"], json!([]));
}

#[test]
fn native_35_reliability_e12_expect_is_answered_before_the_body_is_sent() {
    let stage = Stage::new();
    let (target, token) = stage.master.upload_url(&stage.bucket);
    let sha1 = sha1_hex(b"hello");
    let head = |name: &str, sha1: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\
             X-Bz-File-Name: {name}\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\
             X-Bz-Content-Sha1: {sha1}\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut connection = Connection::open(&stage.server.address).unwrap();
    connection.send_raw(head("expected", &sha1).as_bytes()).unwrap();
    assert_eq!(connection.read_head().unwrap().0, 100);
    connection.send_raw(b"hello").unwrap();
    let answer = connection.read(false).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["contentSha1"], sha1);

    // A refusal comes instead of the invitation.
    let mut connection = Connection::open(&stage.server.address).unwrap();
    connection.send_raw(head("a//b", &sha1).as_bytes()).unwrap();
    let (status, _) = connection.read_head().unwrap();
    assert_eq!(status, 400);
}
