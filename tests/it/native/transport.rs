//! Methods, versions, bodies and headers.

use serde_json::json;

use crate::support::http::{Connection, call};
use crate::support::server::{MASTER_ID, Server};

#[test]
fn native_5_6_7_a_token_works_on_every_version() {
    let server = Server::start();
    let master = server.master();
    for version in 1..=4 {
        let body = json!({"accountId": MASTER_ID});
        assert_eq!(master.call_version(version, "b2_list_buckets", &body).status, 200);
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
        "/",
        "/elsewhere",
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
    assert_eq!(answer.status, 405);
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
        assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")));
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
    let answer = master.try_upload(&bucket, "f", b"x", &[("Expect", "100-continue")]);
    assert_eq!(answer.status, 200);
}
