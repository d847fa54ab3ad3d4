//! Methods, versions, bodies and headers.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::http::{Connection, call};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session, basic};

#[test]
fn native_5_6_7_a_token_works_on_every_version() {
    let server = Server::start();
    let credentials = basic(MASTER_ID, MASTER_KEY);
    let body = json!({"accountId": MASTER_ID});
    for issued_by in 1..=4 {
        let target = format!("/b2api/v{issued_by}/b2_authorize_account");
        let headers = [("Authorization", credentials.as_str())];
        let entered = call(&server.address, "POST", &target, &headers, b"{}").json();
        let token = entered["authorizationToken"].as_str().unwrap().to_owned();
        let session = Session { token, ..server.master() };
        for version in 1..=4 {
            let answer = session.call_version(version, "b2_list_buckets", &body);
            assert_eq!(answer.status, 200, "a token of version {issued_by} on version {version}");
        }
    }
}

#[test]
fn native_8_9_10_11_unknown_addresses_and_methods_are_refused() {
    let server = Server::start();
    let master = server.master();
    let auth = [("Authorization", master.token.as_str())];
    for target in [
        "/b2api/v5/b2_list_buckets",
        "/b2api/v0/b2_list_buckets",
        "/b2api/v4/b2_nothing",
        "/b2api/v4/b2_list_buckets/more",
        "/b2api",
        "/b2api/elsewhere",
        "/file",
        "/file/elsewhere",
        "/b2api/v4/b2_download_file_by_name",
    ] {
        let answer = call(&server.address, "POST", target, &auth, b"{}");
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{target}");
    }
    let answer = call(&server.address, "PUT", "/b2api/v4/b2_list_buckets", &auth, b"{}");
    assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"));
    assert_eq!(answer.message(), "Only POST is supported");
    let bucket = master.create_bucket("method-bucket");
    let (target, token) = master.upload_url(&bucket);
    let answer = call(&server.address, "GET", &target, &[("Authorization", &token)], b"");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let answer = call(&server.address, "POST", "/file/method-bucket/f", &auth, b"");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn what_changes_something_is_asked_for_by_post_only() {
    let server = Server::start();
    let master = server.master();
    let auth = [("Authorization", master.token.as_str())];
    let mut refused = 0;
    for operation in kiln::manifest::operations() {
        let looks = ["b2_authorize", "b2_download", "b2_get_", "b2_list_"];
        if looks.iter().any(|start| operation.name.starts_with(start)) {
            continue;
        }
        let target = format!(
            "/b2api/v4/{}?accountId={MASTER_ID}&bucketName=by-get-bucket\
            &bucketType=allPrivate&keyName=k&capabilities=%5B%22listFiles%22%5D",
            operation.name
        );
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let answer = call(&server.address, method, &target, &auth, b"");
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("POST")),
                "{method} {target}"
            );
            assert!(method == "HEAD" || answer.message() == "Only POST is supported");
            refused += 1;
        }
    }
    assert!(refused >= 8 * 4, "the operations were found");
    let account = json!({"accountId": MASTER_ID});
    assert_eq!(master.ok("b2_list_buckets", &account)["buckets"], json!([]));
    assert_eq!(master.ok("b2_list_keys", &account)["keys"], json!([]));
}

#[test]
fn native_13_14_15_16_33_get_forms_and_missing_content_types_work() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("forms-bucket");
    let file = master.upload(&bucket, "f", b"x");
    let auth = [("Authorization", master.token.as_str())];
    let get = |target: String| call(&server.address, "GET", &target, &auth, b"");
    let id = file["fileId"].as_str().unwrap();
    let by_get = get(format!("/b2api/v4/b2_get_file_info?fileId={id}"));
    assert_eq!(by_get.json(), master.ok("b2_get_file_info", &json!({"fileId": id})));
    let names = get(format!("/b2api/v4/b2_list_file_names?bucketId={bucket}&maxFileCount=1"));
    assert_eq!(names.json()["files"].as_array().unwrap().len(), 1);
    assert_eq!(get(format!("/b2api/v4/b2_get_upload_url?bucketId={bucket}")).status, 200);
    let types = "%5B%22allPrivate%22%5D";
    let listed =
        get(format!("/b2api/v4/b2_list_buckets?accountId={MASTER_ID}&bucketTypes={types}"));
    assert_eq!(listed.json()["buckets"].as_array().unwrap().len(), 1);
}

#[test]
fn native_17_to_22_every_answer_has_its_headers() {
    let server = Server::start();
    let master = server.master();
    let good = master.call("b2_list_buckets", &json!({"accountId": MASTER_ID}));
    assert_eq!(good.header("content-type"), Some("application/json;charset=UTF-8"));
    let bad = master.call("b2_list_buckets", &json!({}));
    assert_eq!(bad.header("content-type"), Some("application/json;charset=utf-8"));
    for answer in [&good, &bad] {
        assert_eq!(answer.header("cache-control"), Some("max-age=0, no-cache, no-store"));
        let date = answer.header("date").unwrap();
        let date = chrono::DateTime::parse_from_rfc2822(date).unwrap().timestamp();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(u64::try_from(date).unwrap().abs_diff(now) <= 2, "21: {date} at {now}");
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    }
    let body = bad.json();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["code", "message", "status"]);
    assert_eq!(body["status"], 400);
}

#[test]
fn native_23_to_30_malformed_requests_are_refused_by_name() {
    let server = Server::start();
    let master = server.master();
    let auth = [("Authorization", master.token.as_str())];
    let send = |operation: &str, body: &str| {
        let target = format!("/b2api/v4/{operation}");
        let answer = call(&server.address, "POST", &target, &auth, body.as_bytes());
        (answer.status, answer.code(), answer.message())
    };
    for wrong in ["{", "[]", "nonsense", "{\"a\":1,\"a\":2}"] {
        let (status, code, _) = send("b2_list_buckets", wrong);
        assert_eq!((status, code.as_str()), (400, "bad_json"), "{wrong}");
    }
    let doubled = format!("{{\"{0}\":1,\"{0}\":2}}", "n".repeat(100_000));
    let (_, code, text) = send("b2_list_buckets", &doubled);
    assert!(code == "bad_json" && text.len() < 1000, "what was sent is not sent back");
    let (_, _, text) = send("b2_get_upload_url", "{}");
    assert_eq!(text, "required field bucketId is missing");
    let (status, _, text) = send("b2_get_upload_url", "{\"bucketId\":null}");
    assert_eq!((status, text.as_str()), (400, "required field bucketId cannot be null"));
    assert_eq!(send("b2_get_upload_url", "{\"bucketId\":5}").0, 400);
    let nulls = format!(
        "{{\"accountId\":\"{MASTER_ID}\",\"bucketId\":null,\"bucketName\":null,\"bucketTypes\":null,\"unknown\":1}}"
    );
    assert_eq!(send("b2_list_buckets", &nulls).0, 200, "nulls are absent, unknown fields ignored");
    let (status, code, text) = send("b2_list_buckets", "{\"accountId\":\"ffffffffffff\"}");
    assert_eq!((status, code.as_str(), text.as_str()), (400, "bad_request", "accountId invalid"));
}

#[test]
fn native_34_35_chunked_uploads_are_refused_and_a_continue_is_sent() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("framing-bucket");
    let (target, token) = master.upload_url(&bucket);
    let mut connection = Connection::open(&server.address).unwrap();
    let chunked = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nX-Bz-File-Name: f\r\n\
         Content-Type: b2/x-auto\r\nX-Bz-Content-Sha1: do_not_verify\r\n\
         Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    );
    connection.send_raw(chunked.as_bytes()).unwrap();
    assert_eq!(connection.read(false).unwrap().status, 400);
    let (target, token) = master.upload_url(&bucket);
    let head = |sha1: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nX-Bz-File-Name: f\r\n\
             Content-Type: b2/x-auto\r\nX-Bz-Content-Sha1: {sha1}\r\nContent-Length: 1\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    let mut connection = Connection::open(&server.address).unwrap();
    connection.send_raw(head("do_not_verify").as_bytes()).unwrap();
    assert_eq!(connection.read_head().unwrap().0, 100, "35: before the body is sent");
    connection.send_raw(b"x").unwrap();
    assert_eq!(connection.read(false).unwrap().status, 200);
    let mut refused = Connection::open(&server.address).unwrap();
    refused.send_raw(head("nonsense").as_bytes()).unwrap();
    assert_eq!(refused.read(false).unwrap().status, 400, "a refusal does not wait for the body");
}

/// Null is sent by b2sdk for every optional field that its caller left out.
#[test]
fn native_28_null_is_absent_for_every_optional_field() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("nulls-bucket");
    master.upload(&bucket, "f", b"x");
    let nulls = |mut body: Value, names: &[&str]| {
        for name in names {
            body[name] = json!(null);
        }
        body
    };
    let account = json!({"accountId": MASTER_ID});
    let of_bucket = json!({"accountId": MASTER_ID, "bucketId": bucket});
    let listing = ["startFileName", "startFileId", "maxFileCount", "prefix", "delimiter"];
    let lists = ["bucketInfo", "corsRules", "lifecycleRules"];
    let settings =
        ["defaultServerSideEncryption", "fileLockEnabled", "defaultRetention", "ifRevisionIs"];
    let overrides = [
        "b2ContentDisposition",
        "b2ContentLanguage",
        "b2Expires",
        "b2CacheControl",
        "b2ContentEncoding",
        "b2ContentType",
    ];
    for (operation, body, names) in [
        ("b2_list_buckets", account.clone(), &["bucketId", "bucketName", "bucketTypes"][..]),
        ("b2_list_file_names", json!({"bucketId": bucket}), &listing),
        ("b2_list_file_versions", json!({"bucketId": bucket}), &listing),
        ("b2_list_keys", account, &["startApplicationKeyId", "maxKeyCount"]),
        ("b2_update_bucket", of_bucket.clone(), &["bucketType"]),
        ("b2_update_bucket", of_bucket.clone(), &lists),
        ("b2_update_bucket", of_bucket, &settings),
        (
            "b2_get_download_authorization",
            json!({"bucketId": bucket, "fileNamePrefix": "", "validDurationInSeconds": 60}),
            &overrides,
        ),
    ] {
        let shape = |mut answer: Value| {
            for changing in ["revision", "authorizationToken"] {
                if answer.get(changing).is_some() {
                    answer[changing] = json!(null);
                }
            }
            answer
        };
        let without = shape(master.ok(operation, &body));
        assert_eq!(shape(master.ok(operation, &nulls(body, names))), without, "{operation}");
    }
    let create =
        json!({"accountId": MASTER_ID, "bucketName": "nulls-made", "bucketType": "allPrivate"});
    let made = master.ok("b2_create_bucket", &nulls(create, &[&lists[..], &settings].concat()));
    assert_eq!((&made["bucketInfo"], &made["corsRules"]), (&json!({}), &json!([])));
    let key = json!({"accountId": MASTER_ID, "keyName": "k", "capabilities": ["listFiles"]});
    let names = ["bucketIds", "bucketId", "namePrefix", "validDurationInSeconds"];
    let made = master.ok("b2_create_key", &nulls(key, &names));
    assert!(
        ["bucketIds", "namePrefix", "expirationTimestamp"].iter().all(|one| made[one].is_null())
    );
    let versions = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    let file = &versions["files"][0];
    let delete = json!({"fileId": file["fileId"], "fileName": "f", "bypassGovernance": null});
    master.ok("b2_delete_file_version", &delete);
}
