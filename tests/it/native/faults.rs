//! Planned faults, and a server put back to its beginning.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::http::{Answer, Connection, call};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session};

fn plan(server: &Server, rule: &Value) -> Answer {
    call(&server.admin, "POST", "/admin/faults", &[], rule.to_string().as_bytes())
}

#[test]
fn faults_and_reset_exist_only_when_asked_for() {
    let server = Server::start_with(&[]);
    for (method, target) in [
        ("POST", "/admin/faults"),
        ("GET", "/admin/faults"),
        ("DELETE", "/admin/faults"),
        ("DELETE", "/admin/faults/1"),
        ("POST", "/admin/reset"),
    ] {
        assert_eq!(server.control(method, target).status, 404, "{method} {target}");
    }
}

#[test]
fn native_18_19_399_a_planned_fault_answers_as_the_service_would_and_exactly_so_often() {
    let server = Server::start();
    let master = server.master();
    let rule = json!({"operation": "b2_list_buckets", "status": 503, "times": 2});
    let planned = plan(&server, &rule);
    assert_eq!(planned.status, 200, "{}", planned.message());
    assert_eq!(planned.json()["left"], 2);
    let list = || master.call("b2_list_buckets", &json!({"accountId": MASTER_ID}));
    for _ in 0..2 {
        let answer = list();
        let body = json!({
            "code": "service_unavailable", "message": "planned by a fault rule", "status": 503,
        });
        assert_eq!((answer.status, answer.json()), (503, body));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("content-type"), Some("application/json;charset=utf-8"));
    }
    assert_eq!(list().status, 200);
    let listed = server.control("GET", "/admin/faults").json();
    assert_eq!(
        (&listed["faults"][0]["fired"], &listed["faults"][0]["left"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(server.control("DELETE", "/admin/faults").json(), json!({"cleared": 1}));
    assert_eq!(server.control("GET", "/admin/faults").json(), json!({"faults": []}));
    assert_eq!(plan(&server, &json!({"operation": "b2_nothing", "status": 503})).status, 400);
    assert_eq!(plan(&server, &json!("text")).status, 400);
}

#[test]
fn faults_reach_uploads_downloads_and_the_authorization() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("fault-bucket");
    let file = master.upload(&bucket, "f", b"abc");
    for (operation, status, code) in [
        ("b2_upload_file", 401, "expired_auth_token"),
        ("b2_download_file_by_name", 429, "too_many_requests"),
        ("b2_download_file_by_id", 500, "internal_error"),
        ("b2_authorize_account", 401, "my_own_code"),
    ] {
        plan(&server, &json!({"operation": operation, "status": status, "code": code, "times": 1}));
        let ask = || match operation {
            "b2_upload_file" => master.try_upload(&bucket, "g", b"x", &[]),
            "b2_download_file_by_name" => master.download("fault-bucket/f", &[]),
            "b2_download_file_by_id" => master.call(operation, &json!({"fileId": file["fileId"]})),
            _ => match Session::authorize(&server.address, MASTER_ID, MASTER_KEY) {
                Err(answer) => answer,
                Ok(session) => session.call("b2_list_buckets", &json!({"accountId": MASTER_ID})),
            },
        };
        let failed = ask();
        assert_eq!((failed.status, failed.code().as_str()), (status, code), "{operation}");
        assert_eq!(failed.header("retry-after").is_some(), status == 429, "{operation}");
        assert_eq!(ask().status, 200, "{operation}");
    }
    let auth = [("Authorization", master.token.as_str())];
    plan(&server, &json!({"operation": "b2_download_file_by_name", "status": 503, "times": 1}));
    let head = call(&server.address, "HEAD", "/file/fault-bucket/f", &auth, b"");
    assert_eq!((head.status, head.body.len()), (503, 0));
}

#[test]
fn a_lost_answer_leaves_what_was_done_and_a_broken_connection_says_nothing() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("lost-bucket");
    plan(
        &server,
        &json!({"operation": "b2_upload_file", "status": 503, "performed": true, "times": 1}),
    );
    assert_eq!(master.try_upload(&bucket, "f", b"abc", &[]).status, 503);
    assert_eq!(master.download("lost-bucket/f", &[]).body, b"abc", "stored all the same");
    for performed in [false, true] {
        plan(
            &server,
            &json!({"operation": "b2_hide_file", "disconnect": true, "performed": performed,
                    "times": 1}),
        );
        let body = json!({"bucketId": bucket, "fileName": "f"}).to_string();
        let auth = [("Authorization", master.token.as_str())];
        let mut connection = Connection::open(&server.address).unwrap();
        let target = "/b2api/v4/b2_hide_file";
        let ended = connection.call("POST", target, &auth, body.as_bytes());
        assert!(ended.is_err(), "{ended:?}");
        let shown = if performed { 404 } else { 200 };
        assert_eq!(master.download("lost-bucket/f", &[]).status, shown);
    }
}

#[test]
fn a_delay_holds_one_answer_back() {
    let server = Server::start();
    let master = server.master();
    plan(&server, &json!({"operation": "*", "delayMs": 300, "times": 1}));
    let list = || master.call("b2_list_buckets", &json!({"accountId": MASTER_ID})).status;
    let started = Instant::now();
    assert_eq!(list(), 200);
    assert!(started.elapsed().as_millis() >= 300);
}

#[test]
fn a_reset_leaves_an_empty_server_with_the_same_master_key() {
    let mut server = Server::start();
    let before = server.master();
    let (source, target) = (before.create_bucket("reset-a"), before.create_bucket("reset-b"));
    let key = before.with_key(&["listBuckets", "readFiles", "writeFiles"], None, None);
    let share = before.ok(
        "b2_get_download_authorization",
        &json!({"bucketId": source, "fileNamePrefix": "", "validDurationInSeconds": 100}),
    );
    let share = share["authorizationToken"].as_str().unwrap().to_owned();
    let large = vec![7_u8; 100_000];
    before.upload(&source, "small", b"x");
    let last = before.upload(&source, "large", &large);
    let (upload_target, upload_token) = before.upload_url(&target);
    let start = json!({"bucketId": source, "fileName": "begun", "contentType": "b2/x-auto"});
    let begun = before.ok("b2_start_large_file", &start);
    assert_eq!(server.control("POST", "/admin/replication/hold").status, 200);
    plan(&server, &json!({"operation": "*", "status": 503}));
    assert_eq!(server.control("POST", "/admin/reset").json(), json!({"reset": true}));

    for session in [&before, &key] {
        let answer = session.call("b2_list_buckets", &json!({"accountId": MASTER_ID}));
        assert_eq!((answer.status, answer.code().as_str()), (401, "bad_auth_token"));
    }
    let headers = [("Authorization", upload_token.as_str())];
    assert_eq!(call(&server.address, "POST", &upload_target, &headers, b"x").status, 401);
    for after_restart in [false, true] {
        if after_restart {
            assert_eq!(server.terminate(), Some(0));
            server.restart();
        }
        let shared = call(
            &server.address,
            "GET",
            "/file/reset-a/small",
            &[("Authorization", share.as_str())],
            b"",
        );
        assert_eq!(shared.status, 401);
        let after = server.master();
        let body = json!({"accountId": MASTER_ID});
        assert_eq!(after.ok("b2_list_buckets", &body)["buckets"], json!([]));
        assert_eq!(after.ok("b2_list_keys", &body)["keys"], json!([]));
    }
    let after = server.master();
    let again = after.create_bucket("reset-a");
    assert_ne!(again, source);
    assert_eq!(after.call("b2_list_parts", &json!({"fileId": begun["fileId"]})).status, 400);
    let first = after.upload(&again, "large", &large);
    assert_ne!(first["fileId"], last["fileId"]);
    assert_eq!(after.download("reset-a/large", &[]).body, large);
    assert_eq!(after.download("reset-a/small", &[]).status, 404);
}

#[test]
fn a_reset_in_the_midst_of_work_leaves_nothing_behind() {
    let server = Server::start();
    let address = server.address.clone();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let address = &address;
            scope.spawn(move || {
                for round in 0..15 {
                    let Ok(session) = Session::authorize(address, MASTER_ID, MASTER_KEY) else {
                        continue;
                    };
                    let made = session.call(
                        "b2_create_bucket",
                        &json!({"accountId": MASTER_ID, "bucketType": "allPrivate",
                                "bucketName": format!("work-{worker}-{round}")}),
                    );
                    assert!(matches!(made.status, 200 | 401), "{}", made.message());
                    let Some(bucket) = made.json()["bucketId"].as_str().map(str::to_owned) else {
                        continue;
                    };
                    let pair = session.call("b2_get_upload_url", &json!({"bucketId": bucket}));
                    assert!(matches!(pair.status, 200 | 400 | 401), "{}", pair.message());
                }
            });
        }
        for _ in 0..10 {
            let answer = server.control("POST", "/admin/reset");
            assert_eq!(answer.status, 200, "{}", answer.message());
        }
    });
    assert_eq!(server.control("POST", "/admin/reset").status, 200);
    let after = server.master();
    let body = json!({"accountId": MASTER_ID});
    assert_eq!(after.ok("b2_list_buckets", &body)["buckets"], json!([]));
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn a_reset_empties_a_thousand_files_at_once() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("thousand-bucket");
    let (target, token) = master.upload_url(&bucket);
    let mut connection = Connection::open(&server.address).unwrap();
    for number in 0..1_000 {
        let name = format!("f{number}");
        let headers = [
            ("Authorization", token.as_str()),
            ("X-Bz-File-Name", name.as_str()),
            ("Content-Type", "text/plain"),
            ("X-Bz-Content-Sha1", "do_not_verify"),
        ];
        assert_eq!(connection.call("POST", &target, &headers, b"x").unwrap().status, 200);
    }
    let started = Instant::now();
    assert_eq!(server.control("POST", "/admin/reset").status, 200);
    let took = started.elapsed();
    assert!(took.as_millis() < 1_000, "a tenth of that is expected: {took:?}");
    assert_eq!(
        server.master().call("b2_list_file_names", &json!({"bucketId": bucket})).status,
        400
    );
}
