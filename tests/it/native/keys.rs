//! Application keys.

use serde_json::json;

use crate::support::http::call;
use crate::support::inside::Server;
use crate::support::server::{MASTER_ID, Session};

#[test]
fn native_26_65_to_81_keys_are_made_as_asked_or_refused() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("keys-bucket");
    let base = json!({"accountId": MASTER_ID, "keyName": "k-1", "capabilities": ["readFiles", "listFiles"]});
    let with = |changes: serde_json::Value| {
        let mut body = base.clone();
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let made = master.ok(
        "b2_create_key",
        &with(json!({"validDurationInSeconds": 86_399_999, "namePrefix": "p"})),
    );
    let members: Vec<&str> = made.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "accountId",
        "applicationKey",
        "applicationKeyId",
        "bucketIds",
        "capabilities",
        "expirationTimestamp",
        "keyName",
        "namePrefix",
        "options",
    ];
    assert_eq!(members, expected);
    assert_eq!((&made["accountId"], &made["keyName"]), (&json!(MASTER_ID), &json!("k-1")));
    assert_eq!(made["namePrefix"], "p", "79: without a bucket");
    let now = server.control("POST", "/admin/clock/advance?ms=0").json()["now"].as_i64().unwrap();
    let life = made["expirationTimestamp"].as_i64().unwrap() - now;
    assert!((86_399_999_000 - 20_000..=86_399_999_000).contains(&life), "76: {life}");
    assert_eq!(made["capabilities"], json!(["listFiles", "readFiles"]));
    assert_eq!(made["options"], json!(["s3"]));
    assert!(made["bucketIds"].is_null() && made.get("bucketId").is_none());
    assert_eq!(made["applicationKeyId"].as_str().unwrap().len(), 25);
    assert_eq!(made["applicationKey"].as_str().unwrap().len(), 31);
    let older = master.call_version(3, "b2_create_key", &with(json!({"bucketId": bucket}))).json();
    assert_eq!(older["bucketId"], json!(bucket));
    assert!(older.get("bucketIds").is_none());
    assert_eq!(older["keyName"], made["keyName"], "68: a name may stand for several keys");
    let unknown = json!({"bucketId": "0123456789abcdef01234567"});
    let unknown = master.call_version(3, "b2_create_key", &with(unknown));
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "bad_bucket_id"));
    let longest = json!({"keyName": "k".repeat(100)});
    assert_eq!(master.call("b2_create_key", &with(longest)).status, 200);
    let null = master.call("b2_create_key", &with(json!({"capabilities": null})));
    assert_eq!(null.message(), "required field capabilities cannot be null");
    for misfit in ["listKeys", "writeKeys", "deleteKeys", "writeBuckets", "deleteBuckets"] {
        let change = json!({"bucketIds": [bucket], "capabilities": ["listFiles", misfit]});
        let answer = master.call("b2_create_key", &with(change));
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{misfit}");
        assert!(answer.message().contains(misfit), "{}", answer.message());
    }
    let second = master.create_bucket("second-bucket");
    let third = master.create_bucket("third-bucket");
    let both = master.with_key(&["listFiles"], Some(&[&bucket, &second]), None);
    for (id, status) in [(&bucket, 200), (&second, 200), (&third, 401)] {
        let answer = both.call("b2_list_file_names", &json!({"bucketId": id}));
        assert_eq!(answer.status, status, "80");
    }
    for (change, code) in [
        (json!({"keyName": "a_b"}), "bad_request"),
        (json!({"keyName": "caf\u{e9}"}), "bad_request"),
        (json!({"validDurationInSeconds": -1}), "bad_request"),
        (json!({"keyName": "a b"}), "bad_request"),
        (json!({"keyName": ""}), "bad_request"),
        (json!({"keyName": "k".repeat(101)}), "bad_request"),
        (json!({"capabilities": []}), "bad_request"),
        (json!({"capabilities": ["fly"]}), "bad_request"),
        (json!({"validDurationInSeconds": 0}), "bad_request"),
        (json!({"validDurationInSeconds": 86_400_000}), "bad_request"),
        (json!({"bucketIds": []}), "bad_request"),
        (json!({"bucketIds": ["0123456789abcdef01234567"]}), "bad_bucket_id"),
    ] {
        let answer = master.call("b2_create_key", &with(change.clone()));
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{change}");
    }
}

#[test]
fn native_83_to_86_88_89_91_92_keys_are_listed_in_pages_and_deleted_once() {
    let server = Server::start();
    let master = server.master();
    let (one, two) = (master.create_bucket("first-bucket"), master.create_bucket("second-bucket"));
    let mut ids: Vec<String> =
        (0..4).map(|_| master.create_key(&["listFiles"], None, None).0).collect();
    ids.push(master.create_key(&["listFiles"], Some(&[&one, &two]), None).0);
    let short = master.ok("b2_create_key", &json!({
        "accountId": MASTER_ID, "keyName": "short", "capabilities": ["listFiles"], "validDurationInSeconds": 1}));
    server.control("POST", "/admin/clock/advance?ms=2000");
    let mut seen = Vec::new();
    let mut start = json!(null);
    loop {
        let body =
            json!({"accountId": MASTER_ID, "maxKeyCount": 1, "startApplicationKeyId": start});
        let page = master.ok("b2_list_keys", &body);
        for key in page["keys"].as_array().unwrap() {
            assert!(key.get("applicationKey").is_none());
            seen.push(key["applicationKeyId"].as_str().unwrap().to_owned());
        }
        start = page["nextApplicationKeyId"].clone();
        if start.is_null() {
            break;
        }
    }
    assert_eq!(seen, ids, "sorted, each once, without the expired and the master key");
    assert!(!seen.contains(&short["applicationKeyId"].as_str().unwrap().to_owned()));
    let older = master.call_version(3, "b2_list_keys", &json!({"accountId": MASTER_ID})).json();
    assert_eq!(older["keys"].as_array().unwrap().len(), 4, "without keys for several buckets");
    let answer =
        master.call("b2_list_keys", &json!({"accountId": MASTER_ID, "maxKeyCount": 10_001}));
    assert_eq!(answer.code(), "out_of_range");
    let deleted = master.ok("b2_delete_key", &json!({"applicationKeyId": ids[0]}));
    assert!(deleted.get("applicationKey").is_none());
    let again = master.call("b2_delete_key", &json!({"applicationKeyId": ids[0]}));
    assert_eq!((again.status, again.code().as_str()), (400, "bad_request"));
}

#[test]
fn native_82_87_90_94_keys_need_their_rights_and_come_a_hundred_at_a_time() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("rights-bucket");
    let create = json!({"accountId": MASTER_ID, "keyName": "k", "capabilities": ["listFiles"]});
    for capability in ["listKeys", "deleteKeys", "writeKeys"] {
        let session = master.with_key(&[capability], None, None);
        let (doomed, _) = master.create_key(&["listFiles"], None, None);
        for (operation, needed, body) in [
            ("b2_create_key", "writeKeys", create.clone()),
            ("b2_delete_key", "deleteKeys", json!({"applicationKeyId": doomed})),
            ("b2_list_keys", "listKeys", json!({"accountId": MASTER_ID})),
        ] {
            let answer = session.call(operation, &body);
            let expected = if needed == capability {
                (200, String::new())
            } else {
                (401, "unauthorized".to_owned())
            };
            assert_eq!((answer.status, answer.code()), expected, "{operation} with {capability}");
        }
    }
    let restricted = master.create_key(&["listFiles"], Some(&[&bucket]), None).0;
    while master.ok("b2_list_keys", &json!({"accountId": MASTER_ID}))["nextApplicationKeyId"]
        .is_null()
    {
        master.ok("b2_create_key", &create);
    }
    let listed = |count: i64| {
        master.ok("b2_list_keys", &json!({"accountId": MASTER_ID, "maxKeyCount": count}))
    };
    assert_eq!(listed(0)["keys"].as_array().unwrap().len(), 100, "0 asks for the default");
    let all = listed(10_000);
    let all = all["keys"].as_array().unwrap();
    assert_eq!(all.len(), 101);
    for key in all {
        let expected =
            if key["applicationKeyId"] == restricted { json!([bucket]) } else { json!(null) };
        assert_eq!(key["bucketIds"], expected, "90");
        assert!(key.as_object().unwrap().contains_key("bucketIds"));
    }
    let beyond = json!({"accountId": MASTER_ID, "maxKeyCount": 10_001});
    assert_eq!(master.call("b2_list_keys", &beyond).code(), "out_of_range");
}

#[test]
fn native_89_versions_before_4_neither_show_nor_delete_keys_for_several_buckets() {
    let server = Server::start();
    let master = server.master();
    let buckets = [master.create_bucket("bucket-one"), master.create_bucket("bucket-two")];
    let (several, _) = master.create_key(&["listFiles"], Some(&[&buckets[0], &buckets[1]]), None);
    let (one, _) = master.create_key(&["listFiles"], Some(&[&buckets[0]]), None);
    for version in 1..=3 {
        let listed = master.call_version(version, "b2_list_keys", &json!({"accountId": MASTER_ID}));
        let ids: Vec<_> = listed.json()["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| (key["applicationKeyId"].clone(), key["bucketId"].clone()))
            .collect();
        assert_eq!(ids, [(json!(one), json!(buckets[0]))]);
        let body = json!({"applicationKeyId": several});
        let refused = master.call_version(version, "b2_delete_key", &body);
        assert_eq!((refused.status, refused.code().as_str()), (400, "unsupported"));
    }
    let deleted = master.ok("b2_delete_key", &json!({"applicationKeyId": several}));
    let mut ids = buckets.clone();
    ids.sort();
    assert_eq!(deleted["bucketIds"], json!(ids), "it was still there");
    let body = json!({"applicationKeyId": one});
    let deleted = master.call_version(1, "b2_delete_key", &body).json();
    assert_eq!(deleted["bucketId"], json!(buckets[0]));
}

#[test]
fn native_26_a_required_field_that_is_null_is_named() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("null-bucket");
    for (operation, body, field) in [
        (
            "b2_create_key",
            json!({"accountId": MASTER_ID, "keyName": "k", "capabilities": null}),
            "capabilities",
        ),
        (
            "b2_create_key",
            json!({"accountId": MASTER_ID, "keyName": null, "capabilities": ["listFiles"]}),
            "keyName",
        ),
        ("b2_list_file_names", json!({"bucketId": null}), "bucketId"),
        (
            "b2_start_large_file",
            json!({"bucketId": bucket, "fileName": "f", "contentType": null}),
            "contentType",
        ),
    ] {
        let refused = master.call(operation, &body);
        assert_eq!((refused.status, refused.code().as_str()), (400, "bad_request"));
        assert_eq!(refused.message(), format!("required field {field} cannot be null"));
    }
    let empty = json!({"bucketId": bucket, "fileName": "f", "contentType": ""});
    let refused = master.call("b2_start_large_file", &empty);
    assert_eq!(
        (refused.status, refused.message().as_str()),
        (400, "contentType must not be empty")
    );
}

#[test]
fn native_93_every_token_of_a_deleted_key_is_dead_at_once() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("dead-key-bucket");
    master.upload(&bucket, "f", b"x");
    let (id, key) = master.create_key(&["writeFiles", "shareFiles", "readFiles"], None, None);
    let session = Session::authorize(&server.address, &id, &key).unwrap();
    let (target, upload_token) = session.upload_url(&bucket);
    let share = json!({"bucketId": bucket, "fileNamePrefix": "", "validDurationInSeconds": 60});
    let shared = session.ok("b2_get_download_authorization", &share);
    let shared = shared["authorizationToken"].as_str().unwrap();
    assert_eq!(session.download("dead-key-bucket/f", &[("Range", "bytes=0-0")]).status, 206);
    master.ok("b2_delete_key", &json!({"applicationKeyId": id}));
    let download = |token: &str| {
        call(&server.address, "GET", "/file/dead-key-bucket/f", &[("Authorization", token)], b"")
    };
    let upload = call(&server.address, "POST", &target, &[("Authorization", &upload_token)], b"");
    let info = session.call("b2_get_upload_url", &json!({"bucketId": bucket}));
    for answer in [info, upload, download(&session.token), download(shared)] {
        assert_eq!((answer.status, answer.code().as_str()), (401, "bad_auth_token"));
    }
}
