//! `X-Bz-Test-Mode`, and upload URLs that die.

use serde_json::{Value, json};

use crate::support::http::{Answer, call};
use crate::support::inside::Server;
use crate::support::server::{MASTER_ID, MASTER_KEY, Session, basic, sha1_hex};

const MODE: &str = "X-Bz-Test-Mode";

fn with_mode(session: &Session, operation: &str, body: &Value, mode: &str) -> Answer {
    let headers = [("Authorization", session.token.as_str()), (MODE, mode)];
    let target = format!("/b2api/v4/{operation}");
    call(&session.address, "POST", &target, &headers, body.to_string().as_bytes())
}

fn upload_at(session: &Session, (target, token): &(String, String), name: &str) -> Answer {
    upload_with(session, (target, token), name, &sha1_hex(b"x"), &[])
}

fn upload_with(
    session: &Session,
    (target, token): (&str, &str),
    name: &str,
    sha1: &str,
    more: &[(&str, &str)],
) -> Answer {
    let mut headers = vec![
        ("Authorization", token),
        ("X-Bz-File-Name", name),
        ("Content-Type", "text/plain"),
        ("X-Bz-Content-Sha1", sha1),
    ];
    headers.extend_from_slice(more);
    call(&session.address, "POST", target, &headers, b"x")
}

#[test]
fn native_394_399_some_uploads_fail_and_with_another_url_they_succeed() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("mode-uploads");
    let mut failures = 0;
    for number in 0..100 {
        let name = format!("f{number}");
        loop {
            let answer = master.try_upload(&bucket, &name, b"x", &[(MODE, "fail_some_uploads")]);
            if answer.status == 200 {
                break;
            }
            assert_eq!((answer.status, answer.code().as_str()), (503, "service_unavailable"));
            assert_eq!(answer.header("retry-after"), Some("1"));
            failures += 1;
            assert!(failures < 100, "one in four fails");
        }
    }
    assert_eq!(failures, 33, "of 133 tries");
    let names = master.ok("b2_list_file_names", &json!({"bucketId": bucket, "maxFileCount": 1000}));
    assert_eq!(names["files"].as_array().unwrap().len(), 100);
    for number in 0..50 {
        let answer = master.try_upload(&bucket, &format!("plain{number}"), b"x", &[]);
        assert_eq!(answer.status, 200, "only requests that ask for it fail");
    }
}

#[test]
fn native_395_some_calls_find_their_token_expired_for_good() {
    let server = Server::start();
    let mode = "expire_some_account_authorization_tokens";
    let body = json!({"accountId": MASTER_ID});
    let mut expired = 0;
    let mut session = server.master();
    for _ in 0..200 {
        let answer = with_mode(&session, "b2_list_buckets", &body, mode);
        if answer.status == 200 {
            continue;
        }
        assert_eq!((answer.status, answer.code().as_str()), (401, "expired_auth_token"));
        let again = session.call("b2_list_buckets", &body);
        assert_eq!(again.code(), "expired_auth_token", "without the header too");
        session = server.master();
        expired += 1;
    }
    assert_eq!(expired, 20, "one in ten");
}

#[test]
fn native_396_calls_that_a_cap_can_stop_are_stopped() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("mode-caps");
    let file = master.upload(&bucket, "f", b"abc");
    let mode = "force_cap_exceeded";
    for (operation, body) in [
        ("b2_list_buckets", json!({"accountId": MASTER_ID})),
        ("b2_list_file_names", json!({"bucketId": bucket})),
        ("b2_get_file_info", json!({"fileId": file["fileId"]})),
        ("b2_get_upload_url", json!({"bucketId": bucket})),
        ("b2_download_file_by_id", json!({"fileId": file["fileId"]})),
    ] {
        let answer = with_mode(&master, operation, &body, mode);
        assert_eq!((answer.status, answer.code().as_str()), (403, "cap_exceeded"), "{operation}");
    }
    assert_eq!(master.try_upload(&bucket, "g", b"x", &[(MODE, mode)]).code(), "cap_exceeded");
    assert_eq!(master.download("mode-caps/f", &[(MODE, mode)]).code(), "cap_exceeded");
    let both = [(MODE, "fail_some_uploads"), (MODE, mode)];
    assert_eq!(master.download("mode-caps/f", &both).code(), "cap_exceeded", "it may be repeated");
    let hidden =
        with_mode(&master, "b2_hide_file", &json!({"bucketId": bucket, "fileName": "f"}), mode);
    assert_eq!(hidden.status, 200, "class A is free");
    let header = basic(MASTER_ID, MASTER_KEY);
    let headers = [("Authorization", header.as_str()), (MODE, mode)];
    let target = "/b2api/v4/b2_authorize_account";
    assert_eq!(call(&server.address, "GET", target, &headers, b"").status, 200);
}

#[test]
fn native_397_the_operator_can_switch_the_test_mode_off() {
    let server = Server::with(&[("test_mode", "false")]);
    let master = server.master();
    let bucket = master.create_bucket("mode-off");
    for mode in ["force_cap_exceeded", "fail_some_uploads"] {
        for _ in 0..20 {
            assert_eq!(master.try_upload(&bucket, "f", b"x", &[(MODE, mode)]).status, 200);
        }
    }
}

#[test]
fn native_177_394_an_upload_url_dies_with_a_failure_but_not_with_a_mistake() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("dying-urls");
    let pair = master.upload_url(&bucket);
    let wrong = sha1_hex(b"something else");
    let mistaken = upload_with(&master, (&pair.0, &pair.1), "f", &wrong, &[]);
    assert_eq!(mistaken.status, 400);
    assert_eq!(upload_at(&master, &pair, "").status, 400, "an empty name");
    let capped = [(MODE, "force_cap_exceeded")];
    let capped = upload_with(&master, (&pair.0, &pair.1), "f", &sha1_hex(b"x"), &capped);
    assert_eq!(capped.status, 403);
    assert_eq!(upload_at(&master, &pair, "f").status, 200, "usable after 400 and 403");

    for (status, dies) in [(503, true), (500, true), (401, true), (408, true), (429, false)] {
        let pair = master.upload_url(&bucket);
        let rule = json!({"operation": "b2_upload_file", "status": status, "times": 1});
        let planned =
            call(&server.admin, "POST", "/admin/faults", &[], rule.to_string().as_bytes());
        assert_eq!(planned.status, 200);
        assert_eq!(upload_at(&master, &pair, "f").status, status);
        let again = upload_at(&master, &pair, "f");
        if dies {
            assert_eq!((again.status, again.code().as_str()), (401, "expired_auth_token"));
        } else {
            assert_eq!(again.status, 200);
        }
        assert_eq!(upload_at(&master, &master.upload_url(&bucket), "f").status, 200);
    }
}

#[test]
fn native_394_the_url_for_parts_dies_with_a_failure_too() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("dying-part-urls");
    let start = json!({"bucketId": bucket, "fileName": "f", "contentType": "b2/x-auto"});
    let file = master.ok("b2_start_large_file", &start)["fileId"].clone();
    let send = |more: &[(&str, &str)], times: usize| {
        let pair = master.ok("b2_get_upload_part_url", &json!({"fileId": file}));
        let url = pair["uploadUrl"].as_str().unwrap();
        let target = format!("/{}", url.splitn(4, '/').nth(3).unwrap());
        let sha1 = sha1_hex(b"x");
        let mut headers = vec![
            ("Authorization", pair["authorizationToken"].as_str().unwrap()),
            ("X-Bz-Part-Number", "1"),
            ("X-Bz-Content-Sha1", sha1.as_str()),
        ];
        headers.extend_from_slice(more);
        let answers = (0..times).map(|_| call(&server.address, "POST", &target, &headers, b"x"));
        answers.map(|answer| (answer.status, answer.code())).collect::<Vec<_>>()
    };
    let fine = (200, String::new());
    assert_eq!(send(&[], 2), [fine.clone(), fine.clone()]);
    let mut failures = 0;
    for _ in 0..4 {
        let answers = send(&[(MODE, "fail_some_uploads")], 1);
        failures += usize::from(answers == [(503, "service_unavailable".to_owned())]);
    }
    assert_eq!(failures, 1, "one in four");
    let rule = json!({"operation": "b2_upload_part", "status": 500, "times": 1});
    call(&server.admin, "POST", "/admin/faults", &[], rule.to_string().as_bytes());
    let died = [(500, "internal_error".to_owned()), (401, "expired_auth_token".to_owned())];
    assert_eq!(send(&[], 2), died);
    assert_eq!(send(&[], 1), [fine]);
}
