//! Caps and usage: what accounts may and what they did.

use serde_json::{Value, json};

use crate::support::http::call;
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, basic, kiln, sha1_hex};

/// Runs an administration command with `--json`; answers whether it succeeded and what it said.
fn run(server: &Server, arguments: &[&str]) -> (bool, Value) {
    let ended = kiln()
        .args(arguments)
        .arg("--json")
        .arg("--data-dir")
        .arg(server.data_dir())
        .envs([("KILN_MASTER_KEY_ID", MASTER_ID), ("KILN_MASTER_KEY", MASTER_KEY)])
        .output()
        .unwrap();
    let said = serde_json::from_slice(&ended.stdout)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&ended.stderr).into_owned()));
    (ended.status.success(), said)
}

fn ok(server: &Server, arguments: &[&str]) -> Value {
    let (succeeded, said) = run(server, arguments);
    assert!(succeeded, "{arguments:?}: {said}");
    said
}

/// What the first account stores and did today.
fn usage(server: &Server) -> (Value, Value) {
    let account = ok(server, &["usage", "--account-id", MASTER_ID])["accounts"][0].clone();
    let today = account["days"][0].clone();
    (account, today)
}

#[test]
fn native_398_the_storage_cap_stops_uploads_and_upload_urls() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("cap-storage");
    let (target, token) = master.upload_url(&bucket);
    let set = ok(&server, &["account", "cap", "--storage-bytes", "10"]);
    assert_eq!((&set["caps"]["storageBytes"], &set["accountId"]), (&json!(10), &json!(MASTER_ID)));
    assert_eq!(master.try_upload(&bucket, "a", b"123456", &[]).status, 200);
    let above = master.try_upload(&bucket, "b", b"12345", &[]);
    let text = "Cannot upload files, storage cap exceeded. See the Caps & Alerts page to increase \
                your cap.";
    assert_eq!((above.status, above.code().as_str()), (403, "storage_cap_exceeded"));
    assert_eq!(above.message(), text);
    assert_eq!(master.try_upload(&bucket, "b", b"1234", &[]).status, 200);
    for (operation, body) in [
        ("b2_get_upload_url", json!({"bucketId": bucket})),
        (
            "b2_start_large_file",
            json!({"bucketId": bucket, "fileName": "l", "contentType": "b2/x-auto"}),
        ),
    ] {
        let refused = master.call(operation, &body);
        assert_eq!((refused.status, refused.code().as_str()), (403, "storage_cap_exceeded"));
    }
    let (sha1, nothing) = (sha1_hex(b"x"), sha1_hex(b""));
    let send = |body: &[u8], sha1: &str| {
        let headers = [
            ("Authorization", token.as_str()),
            ("X-Bz-File-Name", "c"),
            ("Content-Type", "text/plain"),
            ("X-Bz-Content-Sha1", sha1),
        ];
        call(&server.address, "POST", &target, &headers, body)
    };
    assert_eq!(send(b"x", &sha1).code(), "storage_cap_exceeded", "a URL of before");
    assert_eq!(send(b"", &nothing).status, 200, "which lives on, and takes what needs no room");
    let listed = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    let oldest = &listed["files"][0];
    let source = json!({"sourceFileId": oldest["fileId"], "fileName": "copy"});
    assert_eq!(master.call("b2_copy_file", &source).code(), "storage_cap_exceeded");
    master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "b"}));
    let gone = json!({"fileId": oldest["fileId"], "fileName": oldest["fileName"]});
    master.ok("b2_delete_file_version", &gone);
    assert_eq!(master.try_upload(&bucket, "d", b"123456", &[]).status, 200, "there is room again");
    assert_eq!(ok(&server, &["usage", "--recount"])["differences"], json!([]));
    ok(&server, &["account", "cap", "--storage-bytes", "none"]);
    assert_eq!(master.try_upload(&bucket, "e", &[7; 1000], &[]).status, 200);
}

#[test]
fn native_398_parts_are_held_to_the_storage_cap_before_they_are_a_file() {
    let server = Server::start_with(&["--test-controls", "--limits-part-size-min", "1"]);
    let master = server.master();
    let bucket = master.create_bucket("cap-parts");
    let start = json!({"bucketId": bucket, "fileName": "l", "contentType": "b2/x-auto"});
    let file = master.ok("b2_start_large_file", &start)["fileId"].clone();
    ok(&server, &["account", "cap", "--storage-bytes", "100"]);
    let send = |number: &str, body: &[u8]| {
        let pair = master.ok("b2_get_upload_part_url", &json!({"fileId": file}));
        let url = pair["uploadUrl"].as_str().unwrap();
        let target = format!("/{}", url.splitn(4, '/').nth(3).unwrap());
        let sha1 = sha1_hex(body);
        let headers = [
            ("Authorization", pair["authorizationToken"].as_str().unwrap()),
            ("X-Bz-Part-Number", number),
            ("X-Bz-Content-Sha1", sha1.as_str()),
        ];
        call(&server.address, "POST", &target, &headers, body)
    };
    assert_eq!(send("1", &[1; 60]).status, 200);
    assert_eq!(send("2", &[2; 50]).code(), "storage_cap_exceeded");
    assert_eq!(send("2", &[2; 30]).status, 200);
    assert_eq!(usage(&server).0["storedBytes"], 90);
    assert_eq!(send("2", &[2; 10]).status, 200, "in the place of the one before");
    assert_eq!(usage(&server).0["storedBytes"], 70);
    let sha1s = [sha1_hex(&[1; 60]), sha1_hex(&[2; 10])];
    master.ok("b2_finish_large_file", &json!({"fileId": file, "partSha1Array": sha1s}));
    let (account, _) = usage(&server);
    assert_eq!((&account["storedBytes"], &account["fileVersions"]), (&json!(70), &json!(1)));
    assert_eq!(ok(&server, &["usage", "--recount"])["differences"], json!([]));
}

#[test]
fn native_398_downloads_end_at_their_cap_until_the_next_day() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("cap-download");
    master.upload(&bucket, "f", b"0123456789");
    let large = vec![7_u8; 300_000];
    let stored = master.upload(&bucket, "large", &large);
    ok(&server, &["account", "cap", "--download-bytes-per-day", "300025"]);
    assert_eq!(master.download("cap-download/f", &[]).status, 200);
    assert_eq!(master.download("cap-download/f", &[("Range", "bytes=0-4")]).status, 206);
    assert_eq!(master.download("cap-download/large", &[]).body, large);
    let above = master.download("cap-download/f", &[("Range", "bytes=0-10")]);
    assert_eq!(above.status, 206, "15 + 300000 + 10");
    let refused = master.download("cap-download/f", &[("Range", "bytes=0-0")]);
    let text = "Cannot download file, download bandwidth or transaction (Class B) cap exceeded. \
                See the Caps & Alerts page to increase your cap.";
    assert_eq!((refused.status, refused.code().as_str()), (403, "download_cap_exceeded"));
    assert_eq!(refused.message(), text);
    let by_id = master.call("b2_download_file_by_id", &json!({"fileId": stored["fileId"]}));
    assert_eq!(by_id.code(), "download_cap_exceeded");
    let auth = [("Authorization", master.token.as_str())];
    let head = call(&server.address, "HEAD", "/file/cap-download/f", &auth, b"");
    assert_eq!(head.status, 200, "no bytes are sent");
    assert_eq!(usage(&server).1["downloadedBytes"], 300_025);
    assert_eq!(server.control("POST", "/admin/clock/advance?ms=86400000").status, 200);
    assert_eq!(server.master().download("cap-download/f", &[]).status, 200);
}

#[test]
fn native_398_each_class_of_transactions_has_a_cap_and_a_code() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("cap-classes");
    let file = master.upload(&bucket, "f", b"abc");
    let none = master.with_key(&["writeFiles"], None, None);
    let used = usage(&server).1;
    // Authorized twice, a bucket and a key made; an upload URL and an upload.
    assert_eq!(
        (&used["classC"], &used["classA"], &used["classB"]),
        (&json!(4), &json!(2), &json!(0))
    );
    assert_eq!(used["uploadedBytes"], 3);
    ok(
        &server,
        &[
            "account",
            "cap",
            "--class-a-per-day",
            "3",
            "--class-b-per-day",
            "2",
            "--class-c-per-day",
            "8",
        ],
    );
    let names = |count: i64| {
        master.call("b2_list_file_names", &json!({"bucketId": bucket, "maxFileCount": count}))
    };
    for asked in [10_000, 1001, 1, 0] {
        assert_eq!(names(asked).status, 200, "one file is in the answer, whatever is asked for");
    }
    let refused = names(1);
    assert_eq!((refused.status, refused.code().as_str()), (403, "transaction_cap_exceeded"));
    let info = |session: &crate::support::server::Session| {
        session.call("b2_get_file_info", &json!({"fileId": file["fileId"]})).code()
    };
    assert_eq!(info(&master), "");
    assert_eq!(master.download("cap-classes/f", &[]).status, 200);
    assert_eq!(info(&master), "transaction_cap_exceeded");
    assert_eq!(info(&none), "unauthorized", "who has no right learns of no cap");
    assert_eq!(master.download("cap-classes/f", &[]).code(), "download_cap_exceeded");
    let url = || master.call("b2_get_upload_url", &json!({"bucketId": bucket})).code();
    assert_eq!((url().as_str(), url().as_str()), ("", "transaction_cap_exceeded"));
    let header = basic(MASTER_ID, MASTER_KEY);
    let target = "/b2api/v4/b2_authorize_account";
    let again = call(&server.address, "GET", target, &[("Authorization", &header)], b"");
    assert_eq!((again.status, again.code().as_str()), (403, "transaction_cap_exceeded"));
    let day = usage(&server).1;
    assert_eq!((&day["classA"], &day["classB"], &day["classC"]), (&json!(3), &json!(2), &json!(8)));
    assert_eq!(server.control("POST", "/admin/clock/advance?ms=86400000").status, 200);
    server.master();
}

#[test]
fn native_398_a_listing_counts_once_for_each_thousand_entries_of_its_answer() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("long-listing");
    for at in 0..1001 {
        master.upload(&bucket, &format!("f{at}"), b"");
    }
    let class_c = || usage(&server).1["classC"].as_i64().unwrap();
    let list = |operation: &str, count: i64| {
        let body = json!({"bucketId": bucket, "maxFileCount": count});
        let before = class_c();
        let answer = master.call(operation, &body);
        (answer.json()["files"].as_array().map(Vec::len), class_c() - before)
    };
    for operation in ["b2_list_file_names", "b2_list_file_versions"] {
        assert_eq!(list(operation, 1000), (Some(1000), 1));
        assert_eq!(list(operation, 10_000), (Some(1001), 2));
    }
    let cap = (class_c() + 1).to_string();
    ok(&server, &["account", "cap", "--class-c-per-day", &cap]);
    let (last, refused) = (list("b2_list_file_names", 10_000), list("b2_list_file_names", 10_000));
    assert_eq!(last, (Some(1001), 2), "what is there is given");
    assert_eq!(refused, (None, 0));
}

#[test]
fn caps_and_usage_are_shown_while_the_server_runs_and_when_it_does_not() {
    let mut server = Server::start();
    let bucket = server.master().create_bucket("usage-bucket");
    server.master().upload(&bucket, "f", b"abc");
    let second = ok(&server, &["account", "create", "--name", "second"])["accountId"].clone();
    let second = second.as_str().unwrap();
    for running in [true, false] {
        if !running {
            assert_eq!(server.terminate(), Some(0));
        }
        let set =
            ok(&server, &["account", "cap", "--account-id", second, "--class-b-per-day", "5"]);
        let all = json!({
            "classAPerDay": null, "classBPerDay": 5, "classCPerDay": null,
            "downloadBytesPerDay": null, "storageBytes": null,
        });
        assert_eq!(set["caps"], all);
        assert_eq!(ok(&server, &["account", "cap", "--account-id", second]), set);
        let listed = ok(&server, &["usage", "--days", "2"]);
        let accounts = listed["accounts"].as_array().unwrap();
        assert_eq!(accounts.len(), 2);
        let first = accounts.iter().find(|one| one["accountId"] == MASTER_ID).unwrap();
        let stored = json!([{
            "bucketId": bucket, "bucketName": "usage-bucket", "fileVersions": 1, "storedBytes": 3,
        }]);
        assert_eq!((&first["buckets"], &first["storedBytes"]), (&stored, &json!(3)));
        assert_eq!(
            (&first["days"][0]["classA"], &first["days"][0]["classC"]),
            (&json!(2), &json!(3))
        );
        let recounted = json!({"buckets": 1, "differences": []});
        assert_eq!(ok(&server, &["usage", "--recount"]), recounted);
        let (succeeded, said) = run(&server, &["account", "cap", "--account-id", "ffffffffffff"]);
        assert!(!succeeded && said.to_string().contains("no such account"), "{said}");
        let (succeeded, _) = run(&server, &["account", "cap", "--storage-bytes", "much"]);
        assert!(!succeeded);
    }
}

#[test]
fn a_kill_loses_no_byte_from_the_books() {
    let mut server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("killed-books");
    for number in 0..20 {
        master.upload(&bucket, &format!("f{number}"), &[7; 100]);
    }
    server.kill();
    server.restart();
    let (account, _) = usage(&server);
    assert_eq!((&account["storedBytes"], &account["fileVersions"]), (&json!(2000), &json!(20)));
    assert_eq!(ok(&server, &["usage", "--recount"])["differences"], json!([]));
}
