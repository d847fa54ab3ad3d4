//! CORS rules: what pages of other origins may send and read.

use serde_json::{Value, json};

use crate::support::http::{Answer, call};
use crate::support::server::{MASTER_ID, Server, Session, sha1_hex};

const PAGE: &str = "https://app.example.com";

fn rule(name: &str, origins: &Value, operations: &Value) -> Value {
    json!({
        "allowedHeaders": ["authorization", "content-type", "X-Bz-*"], "allowedOperations": operations,
        "allowedOrigins": origins, "corsRuleName": name,
        "exposeHeaders": ["x-bz-content-sha1", "x-bz-file-name"], "maxAgeSeconds": 3600,
    })
}

fn update(master: &Session, bucket: &str, rules: &Value) -> Answer {
    let body = json!({"accountId": MASTER_ID, "bucketId": bucket, "corsRules": rules});
    master.call("b2_update_bucket", &body)
}

fn preflight(server: &Server, target: &str, origin: &str, method: &str, headers: &str) -> Answer {
    let mut sent = vec![("Origin", origin), ("Access-Control-Request-Method", method)];
    if !headers.is_empty() {
        sent.push(("Access-Control-Request-Headers", headers));
    }
    call(&server.address, "OPTIONS", target, &sent, b"")
}

/// The path and token of a place for parts of a new large file.
fn part_url(master: &Session, bucket: &str) -> (String, String) {
    let body = json!({"bucketId": bucket, "fileName": "large", "contentType": "b2/x-auto"});
    let id = master.ok("b2_start_large_file", &body)["fileId"].clone();
    let pair = master.ok("b2_get_upload_part_url", &json!({"fileId": id}));
    let url = pair["uploadUrl"].as_str().unwrap();
    let path = url.splitn(4, '/').nth(3).unwrap();
    (format!("/{path}"), pair["authorizationToken"].as_str().unwrap().to_owned())
}

fn cors_headers(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.keys().map(String::as_str);
    names.filter(|name| name.starts_with("access-control-")).collect()
}

fn assert_denied(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (403, "access_denied"));
    assert_eq!(cors_headers(answer), Vec::<&str>::new());
}

#[test]
fn native_131_363_to_365_rules_are_stored_echoed_replaced_cleared_or_refused() {
    let server = Server::start();
    let master = server.master();
    let short = json!({"allowedHeaders": null, "allowedOperations": ["s3_put", "b2_upload_part"],
        "allowedOrigins": ["*"], "corsRuleName": "last-rule", "exposeHeaders": [], "maxAgeSeconds": 0});
    let rules = json!([rule("rule-one", &json!(["https"]), &json!(["b2_upload_file"])), short]);
    let made = master.ok(
        "b2_create_bucket",
        &json!({"accountId": MASTER_ID, "bucketName": "cors-bucket", "bucketType": "allPrivate",
            "corsRules": rules}),
    );
    assert_eq!(made["corsRules"], rules);
    let bucket = made["bucketId"].as_str().unwrap();
    let listed = || {
        let body = json!({"accountId": MASTER_ID, "bucketId": bucket});
        master.ok("b2_list_buckets", &body)["buckets"][0].clone()
    };
    assert_eq!(listed()["corsRules"], rules);
    let bare = json!([{"allowedOperations": ["s3_get"], "allowedOrigins": ["http"],
        "corsRuleName": "rule-two", "maxAgeSeconds": 5}]);
    let replaced = update(&master, bucket, &bare).json();
    let mut shown = bare[0].clone();
    (shown["allowedHeaders"], shown["exposeHeaders"]) = (json!(null), json!(null));
    assert_eq!(replaced["corsRules"], json!([shown]));
    assert_eq!(update(&master, bucket, &json!(null)).json()["corsRules"], json!([shown]));
    let revision = listed()["revision"].clone();
    let mut too_large = rule("rule-one", &json!(["*"]), &json!(["s3_get"]));
    too_large["allowedHeaders"] = json!(["h".repeat(1000)]);
    let mut too_old = rule("rule-one", &json!(["*"]), &json!(["s3_get"]));
    too_old["maxAgeSeconds"] = json!(86_401);
    let one = |name: &str| rule(name, &json!(["*"]), &json!(["s3_get"]));
    let many: Vec<Value> = (0..101).map(|at| one(&format!("rule-{at}"))).collect();
    for wrong in [
        json!([one("short")]),
        json!([one("b2-reserved")]),
        json!([one("rule-one"), one("rule-one")]),
        json!([too_large]),
        json!([too_old]),
        json!(many),
        json!([rule("rule-one", &json!(["*", "https"]), &json!(["s3_get"]))]),
        json!([rule("rule-one", &json!(["https://*.*.com"]), &json!(["s3_get"]))]),
        json!([rule("rule-one", &json!([]), &json!(["s3_get"]))]),
        json!([rule("rule-one", &json!(["*"]), &json!([]))]),
        json!([rule("rule-one", &json!(["*"]), &json!(["b2_list_file_names"]))]),
        json!([{"corsRuleName": "rule-one"}]),
        json!({}),
    ] {
        let answer = update(&master, bucket, &wrong);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{wrong}");
    }
    let missing = update(&master, bucket, &json!([{"corsRuleName": "rule-one"}]));
    assert_eq!(missing.message(), "required field allowedOrigins is missing");
    assert_eq!(listed()["revision"], revision, "a refused change is none");
    assert_eq!(update(&master, bucket, &json!([])).json()["corsRules"], json!([]));
}

#[test]
fn native_366_367_369_370_preflights_are_answered_by_the_rules_of_the_bucket_alone() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("cors-bucket");
    let file = master.upload(&bucket, "dir/a%20b", b"x");
    let (upload, _) = master.upload_url(&bucket);
    let part = part_url(&master, &bucket).0;
    let by_id =
        |version: u8, id: &str| format!("/b2api/v{version}/b2_download_file_by_id?fileId={id}");
    let id = file["fileId"].as_str().unwrap();
    let targets = [
        ("/file/cors-bucket/dir/a%20b".to_owned(), "GET", "b2_download_file_by_name"),
        ("/file/CORS-bucket/absent".to_owned(), "HEAD", "b2_download_file_by_name"),
        (by_id(4, id), "GET", "b2_download_file_by_id"),
        (by_id(1, id), "POST", "b2_download_file_by_id"),
        (upload, "POST", "b2_upload_file"),
        (part, "POST", "b2_upload_part"),
    ];
    for (target, method, _) in &targets {
        assert_denied(&preflight(&server, target, PAGE, method, ""));
    }
    for (target, method, operation) in &targets {
        let rules =
            json!([rule("rule-one", &json!(["https://*.example.com"]), &json!([operation]))]);
        assert_eq!(update(&master, &bucket, &rules).status, 200);
        let headers = "authorization,  x-bz-info-colour,X-Bz-File-Name";
        let answer = preflight(&server, target, PAGE, method, headers);
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{target}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
        assert_eq!(answer.header("access-control-allow-methods"), Some(*method));
        assert_eq!(
            answer.header("access-control-allow-headers"),
            Some("authorization, x-bz-info-colour, X-Bz-File-Name")
        );
        assert_eq!(
            answer.header("access-control-expose-headers"),
            Some("x-bz-content-sha1, x-bz-file-name")
        );
        assert_eq!(answer.header("access-control-max-age"), Some("3600"));
        assert_eq!(
            answer.header("vary"),
            Some("Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
        );
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let plain = preflight(&server, target, PAGE, method, "");
        assert_eq!((plain.status, plain.header("access-control-allow-headers")), (200, None));
        assert_denied(&preflight(&server, target, "https://example.com", method, ""));
        assert_denied(&preflight(&server, target, "http://app.example.com", method, ""));
        assert_denied(&preflight(&server, target, "null", method, ""));
        assert_denied(&preflight(&server, target, PAGE, "DELETE", ""));
        assert_denied(&preflight(&server, target, PAGE, method, "range"));
        assert_denied(&preflight(&server, target, PAGE, method, "x-bz-a b"));
        for (other, method, allowed) in &targets {
            let answer = preflight(&server, other, PAGE, method, "");
            assert_eq!(answer.status == 200, allowed == operation, "{operation} {other}");
        }
    }
}

#[test]
fn native_367_369_preflights_of_other_addresses_are_denied_and_other_options_refused() {
    let server = Server::start();
    let master = server.master();
    let all = json!(["b2_download_file_by_id", "b2_download_file_by_name", "b2_upload_file"]);
    let bucket = master.create_bucket("cors-bucket");
    update(&master, &bucket, &json!([rule("rule-one", &json!(["*"]), &all)]));
    for target in [
        "/b2api/v4/b2_list_buckets",
        "/b2api/v4/b2_authorize_account",
        "/b2api/v4/b2_download_file_by_id",
        "/b2api/v4/b2_download_file_by_id?fileId=none",
        "/b2api/v4/b2_upload_file/none/c000_v0000000_t0000",
        "/b2api/v4/b2_upload_file",
        "/file/absent-bucket/f",
        "/file/%ff/f",
    ] {
        assert_denied(&preflight(&server, target, PAGE, "POST", ""));
        assert_denied(&preflight(&server, target, PAGE, "GET", ""));
    }
    assert_eq!(preflight(&server, "/b2api/v4/b2_nothing", PAGE, "GET", "").status, 404);
    assert_eq!(preflight(&server, "/b2api/elsewhere", PAGE, "GET", "").status, 404);
    let target = "/file/cors-bucket/f";
    let anybody = preflight(&server, target, "null", "GET", "");
    assert_eq!((anybody.status, anybody.header("access-control-allow-origin")), (200, Some("*")));
    for headers in [&[][..], &[("Origin", PAGE)], &[("Access-Control-Request-Method", "GET")]] {
        let answer = call(&server.address, "OPTIONS", target, headers, b"");
        assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"));
    }
}

#[test]
fn native_368_answers_and_errors_are_readable_for_the_pages_of_a_rule_and_only_for_them() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("cors-bucket");
    let file = master.upload(&bucket, "f", b"content");
    let get = |origin: &str, path: &str| master.download(path, &[("Origin", origin)]);
    let before = get(PAGE, "cors-bucket/f");
    assert_eq!((before.status, cors_headers(&before), before.header("vary")), (200, vec![], None));
    let all = json!([
        "b2_download_file_by_id",
        "b2_download_file_by_name",
        "b2_upload_file",
        "b2_upload_part"
    ]);
    update(&master, &bucket, &json!([rule("rule-one", &json!([PAGE]), &all)]));
    let exposed = Some("x-bz-content-sha1, x-bz-file-name");
    let assert_open = |answer: &Answer, status: u16| {
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
        assert_eq!(answer.header("access-control-expose-headers"), exposed);
        assert_eq!(answer.header("vary"), Some("Origin"));
        assert_eq!(cors_headers(answer).len(), 2, "nothing of preflights, no credentials");
    };
    assert_open(&get(PAGE, "cors-bucket/f"), 200);
    assert_open(&get(PAGE, "cors-bucket/absent"), 404);
    let headers = [("Origin", PAGE), ("Range", "bytes=90-")];
    assert_open(&master.download("cors-bucket/f", &headers), 416);
    let headers = [("Origin", PAGE), ("Range", "bytes=1-2")];
    assert_open(&master.download("cors-bucket/f", &headers), 206);
    let page = [("Origin", PAGE)];
    assert_open(&call(&server.address, "GET", "/file/cors-bucket/f", &page, b""), 401);
    let known = [("Origin", PAGE), ("Authorization", master.token.as_str())];
    assert_open(&call(&server.address, "HEAD", "/file/cors-bucket/f", &known, b""), 200);
    let id = file["fileId"].as_str().unwrap();
    let by_id = format!("/b2api/v4/b2_download_file_by_id?fileId={id}");
    assert_open(&call(&server.address, "GET", &by_id, &known, b""), 200);
    assert_open(&call(&server.address, "HEAD", &by_id, &page, b""), 401);
    assert_open(&master.try_upload(&bucket, "g", b"x", &page), 200);
    assert_open(&master.try_upload(&bucket, "g", b"x", &[page[0], ("Authorization", "no")]), 401);
    assert_open(
        &master.try_upload(&bucket, "g", b"x", &[page[0], ("X-Bz-Content-Sha1", "no")]),
        400,
    );
    let (part, token) = part_url(&master, &bucket);
    let sha1 = sha1_hex(b"part");
    for (number, status) in [("1", 200), ("0", 400)] {
        let headers = [
            page[0],
            ("Authorization", token.as_str()),
            ("X-Bz-Part-Number", number),
            ("X-Bz-Content-Sha1", sha1.as_str()),
        ];
        assert_open(&call(&server.address, "POST", &part, &headers, b"part"), status);
    }
    for (origin, path, status) in [
        ("https://other.example.com", "cors-bucket/f", 200),
        ("null", "cors-bucket/f", 200),
        ("https://other.example.com", "cors-bucket/absent", 404),
        (PAGE, "absent-bucket/f", 404),
    ] {
        let answer = get(origin, path);
        assert_eq!((answer.status, cors_headers(&answer)), (status, vec![]), "{origin} {path}");
    }
    let nobody = master.download("cors-bucket/f", &[]);
    assert_eq!((cors_headers(&nobody), nobody.header("vary")), (vec![], Some("Origin")));
    let answer = call(
        &server.address,
        "POST",
        "/b2api/v4/b2_list_buckets",
        &known,
        json!({"accountId": MASTER_ID}).to_string().as_bytes(),
    );
    assert_eq!((answer.status, cors_headers(&answer)), (200, vec![]), "JSON calls have no CORS");
}

#[test]
fn native_368_strict_tokens_keep_account_tokens_out_of_pages() {
    let server = Server::start_with(&["--auth-strict-cors-tokens"]);
    let master = server.master();
    let bucket = master.create_bucket("cors-bucket");
    let file = master.upload(&bucket, "f", b"content");
    let page = [("Origin", PAGE)];
    assert_eq!(master.download("cors-bucket/f", &[]).status, 200);
    let answer = master.download("cors-bucket/f", &page);
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    let id = file["fileId"].as_str().unwrap();
    let by_id = format!("/b2api/v4/b2_download_file_by_id?fileId={id}");
    let known = [("Origin", PAGE), ("Authorization", master.token.as_str())];
    assert_eq!(call(&server.address, "GET", &by_id, &known, b"").status, 401);
    let shared = master.ok(
        "b2_get_download_authorization",
        &json!({"bucketId": bucket, "fileNamePrefix": "", "validDurationInSeconds": 60}),
    );
    let token = shared["authorizationToken"].as_str().unwrap();
    let known = [("Origin", PAGE), ("Authorization", token)];
    assert_eq!(call(&server.address, "GET", "/file/cors-bucket/f", &known, b"").status, 200);
}
