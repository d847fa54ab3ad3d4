//! Buckets.

use serde_json::{Value, json};

use crate::support::http::call;
use crate::support::server::{MASTER_ID, Server};

#[test]
fn native_95_to_103_140_buckets_are_made_with_all_members_or_refused() {
    let server = Server::start_with(&["--limits-buckets", "3"]);
    let master = server.master();
    let create = |name: &str, kind: &str| {
        master.call(
            "b2_create_bucket",
            &json!({"accountId": MASTER_ID, "bucketName": name, "bucketType": kind}),
        )
    };
    let bucket = create("Made-Bucket", "allPrivate").json();
    let id = bucket["bucketId"].as_str().unwrap();
    assert!(id.len() == 24 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    assert_eq!(
        (&bucket["accountId"], &bucket["bucketName"]),
        (&json!(MASTER_ID), &json!("Made-Bucket"))
    );
    assert_eq!(bucket["bucketType"], "allPrivate");
    assert_eq!(bucket["revision"], 2);
    assert_eq!((&bucket["bucketInfo"], &bucket["corsRules"]), (&json!({}), &json!([])));
    assert_eq!((&bucket["lifecycleRules"], &bucket["options"]), (&json!([]), &json!(["s3"])));
    assert_eq!(
        bucket["defaultServerSideEncryption"],
        json!({"isClientAuthorizedToRead": true, "value": {"algorithm": null, "mode": null}})
    );
    assert_eq!(
        bucket["fileLockConfiguration"]["value"],
        json!({"defaultRetention": {"mode": null, "period": null}, "isFileLockEnabled": false})
    );
    assert_eq!(
        bucket["replicationConfiguration"],
        json!({"isClientAuthorizedToRead": true, "value": null})
    );
    for name in ["made-bucket", "MADE-BUCKET"] {
        let answer = create(name, "allPrivate");
        assert_eq!(
            (answer.code().as_str(), answer.message().as_str()),
            ("duplicate_bucket_name", "Bucket name is already in use.")
        );
    }
    let (longest, too_long) = ("n".repeat(63), "n".repeat(64));
    for (name, kind) in [
        ("abcde", "allPrivate"),
        (too_long.as_str(), "allPrivate"),
        ("b2-bucket", "allPrivate"),
        ("under_score", "allPrivate"),
        ("with space", "allPrivate"),
        ("caf\u{e9}bar", "allPrivate"),
        ("good-name", "snapshot"),
        ("good-name", "restricted"),
        ("good-name", "share"),
        ("good-name", "shared"),
        ("good-name", "foo"),
    ] {
        let answer = create(name, kind);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{name} {kind}");
    }
    assert_eq!(create("sixsix", "allPublic").status, 200, "97: six are enough");
    assert_eq!(create(&longest, "allPublic").status, 200, "97: 63 are not too many");
    assert_eq!(create("fourth-bucket", "allPublic").code(), "too_many_buckets");
}

#[test]
fn forms_that_ask_for_nothing_are_accepted() {
    let server = Server::start();
    let master = server.master();
    let mut empty =
        json!({"accountId": MASTER_ID, "bucketName": "later-bucket", "bucketType": "allPrivate"});
    for (name, value) in [
        ("fileLockEnabled", json!(false)),
        ("defaultServerSideEncryption", json!({"mode": "none"})),
        ("lifecycleRules", json!([])),
        ("corsRules", json!(null)),
    ] {
        empty[name] = value;
    }
    master.ok("b2_create_bucket", &empty);
    let bucket = master.create_bucket("upload-later");
    let header = ("X-Bz-Custom-Upload-Timestamp", "1");
    assert_eq!(master.try_upload(&bucket, "f", b"x", &[header]).status, 400);
}

#[test]
fn native_113_to_124_buckets_are_listed_by_type_name_and_right() {
    let server = Server::start();
    let master = server.master();
    let second = master.create_bucket("second-bucket");
    let first = master.create_bucket("first-bucket");
    let names = |body: Value, version: u8, session: &crate::support::server::Session| {
        let answer = session.call_version(version, "b2_list_buckets", &body);
        if answer.status != 200 {
            return Err((answer.status, answer.code()));
        }
        let buckets = answer.json()["buckets"].as_array().unwrap().clone();
        Ok(buckets.iter().map(|b| b["bucketName"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    let both = Ok(vec!["first-bucket".to_owned(), "second-bucket".to_owned()]);
    assert_eq!(names(json!({"accountId": MASTER_ID}), 4, &master), both);
    assert_eq!(names(json!({"accountId": MASTER_ID, "bucketTypes": ["all"]}), 4, &master), both);
    let of_type =
        |kind: &str| names(json!({"accountId": MASTER_ID, "bucketTypes": [kind]}), 4, &master);
    assert_eq!(of_type("allPublic"), Ok(vec![]));
    let public = json!({"accountId": MASTER_ID, "bucketId": second, "bucketType": "allPublic"});
    master.ok("b2_update_bucket", &public);
    assert_eq!(of_type("allPublic"), Ok(vec!["second-bucket".to_owned()]));
    assert_eq!(of_type("allPrivate"), Ok(vec!["first-bucket".to_owned()]));
    let unknown = json!({"accountId": MASTER_ID, "bucketName": "unknown-bucket"});
    assert_eq!(names(unknown, 4, &master), Ok(vec![]));
    assert_eq!(
        names(json!({"accountId": MASTER_ID, "bucketName": "FIRST-bucket"}), 4, &master),
        Ok(vec!["first-bucket".to_owned()])
    );
    assert_eq!(
        names(json!({"accountId": MASTER_ID, "bucketId": "unknown"}), 4, &master),
        Ok(vec![])
    );
    for types in [json!([]), json!(["all", "allPublic"]), json!(["nope"])] {
        let answer = names(json!({"accountId": MASTER_ID, "bucketTypes": types}), 4, &master);
        assert_eq!(answer, Err((400, "bad_request".to_owned())));
    }
    let own = master.with_key(&["listBuckets"], Some(&[&first]), None);
    let refused = Err((401, "unauthorized".to_owned()));
    assert_eq!(names(json!({"accountId": MASTER_ID}), 2, &own), refused);
    assert_eq!(
        names(json!({"accountId": MASTER_ID}), 1, &own),
        Ok(vec!["first-bucket".to_owned()])
    );
    assert_eq!(
        names(json!({"accountId": MASTER_ID, "bucketId": first}), 4, &own),
        Ok(vec!["first-bucket".to_owned()])
    );
    assert_eq!(names(json!({"accountId": MASTER_ID, "bucketId": second}), 4, &own), refused);
    assert_eq!(
        names(json!({"accountId": MASTER_ID, "bucketName": "second-bucket"}), 4, &own),
        refused
    );
    let shown = own.ok("b2_list_buckets", &json!({"accountId": MASTER_ID, "bucketId": first}));
    for wrapper in
        ["defaultServerSideEncryption", "fileLockConfiguration", "replicationConfiguration"]
    {
        assert_eq!(
            shown["buckets"][0][wrapper],
            json!({"isClientAuthorizedToRead": false, "value": null})
        );
    }
}

#[test]
fn native_125_to_129_132_409_updates_change_what_they_name_and_nothing_else() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("update-bucket");
    master.upload(&bucket, "f", b"open");
    let update = |changes: Value| {
        let mut body = json!({"accountId": MASTER_ID, "bucketId": bucket});
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        master.call("b2_update_bucket", &body)
    };
    let changed = update(json!({"bucketInfo": {"a": "b"}, "bucketType": null})).json();
    assert_eq!(
        (&changed["bucketInfo"], &changed["bucketType"], &changed["revision"]),
        (&json!({"a": "b"}), &json!("allPrivate"), &json!(3))
    );
    let stale = update(json!({"ifRevisionIs": 2, "bucketInfo": {}}));
    assert_eq!(
        (stale.status, stale.code().as_str(), stale.message().as_str()),
        (409, "conflict", "simultaneous updates to bucket")
    );
    let public = update(json!({"ifRevisionIs": 3, "bucketType": "allPublic"})).json();
    assert_eq!((&public["revision"], &public["bucketInfo"]), (&json!(4), &json!({"a": "b"})));
    let anonymous = call(&server.address, "GET", "/file/update-bucket/f", &[], b"");
    assert_eq!((anonymous.status, anonymous.body.as_slice()), (200, &b"open"[..]));
    assert_eq!(update(json!({"bucketInfo": {}})).json()["bucketInfo"], json!({}));
    let unknown = "0123456789abcdef01234567";
    let answer =
        master.call("b2_update_bucket", &json!({"accountId": MASTER_ID, "bucketId": unknown}));
    assert_eq!(
        (answer.code(), answer.message()),
        ("bad_bucket_id".to_owned(), format!("Bucket {unknown} does not exist"))
    );
    let racing: Vec<_> = (0..8)
        .map(|_| {
            let (session, bucket) = (master.clone(), bucket.clone());
            std::thread::spawn(move || {
                let body = json!({"accountId": MASTER_ID, "bucketId": bucket, "ifRevisionIs": 5});
                session.call("b2_update_bucket", &body).status
            })
        })
        .collect();
    let mut statuses: Vec<u16> = racing.into_iter().map(|one| one.join().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409], "exactly one succeeds");
}

#[test]
fn native_135_137_138_only_empty_buckets_are_deleted_and_names_become_free() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("delete-bucket");
    let file = master.upload(&bucket, "f", b"x");
    let body = json!({"accountId": MASTER_ID, "bucketId": bucket});
    assert_eq!(master.call("b2_delete_bucket", &body).code(), "cannot_delete_non_empty_bucket");
    let marker = master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "f"}));
    for version in [&file, &marker] {
        let body = json!({"fileId": version["fileId"], "fileName": "f"});
        assert_eq!(
            master
                .call("b2_delete_bucket", &json!({"accountId": MASTER_ID, "bucketId": bucket}))
                .status,
            400
        );
        assert_eq!(master.ok("b2_delete_file_version", &body), body);
    }
    assert_eq!(master.ok("b2_delete_bucket", &body)["revision"], 3);
    let again = master.call("b2_delete_bucket", &body);
    assert_eq!(again.message(), format!("Bucket {bucket} does not exist"));
    assert_ne!(master.create_bucket("delete-bucket"), bucket);
}

#[test]
fn native_385_386_389_393_replication_2_to_8_11_configurations_round_trip_and_clear() {
    let server = Server::start();
    let master = server.master();
    let (source, target) =
        (master.create_bucket("source-bucket"), master.create_bucket("target-bucket"));
    let (reader, _) = master.create_key(&["listBuckets", "readFiles"], None, None);
    let (writer, _) = master.create_key(&["listBuckets", "writeFiles"], None, None);
    let rule = json!({"destinationBucketId": target, "fileNamePrefix": "p", "includeExistingFiles": false,
        "isEnabled": false, "priority": 128, "replicationRuleName": "rule-one"});
    let both = json!({
        "asReplicationSource": {"replicationRules": [rule], "sourceApplicationKeyId": reader},
        "asReplicationDestination": {"sourceToDestinationKeyMapping": {"gone": writer}}});
    let update = |configuration: Value| {
        master.call(
            "b2_update_bucket",
            &json!({"accountId": MASTER_ID, "bucketId": source,
            "replicationConfiguration": configuration}),
        )
    };
    assert_eq!(
        update(both.clone()).json()["replicationConfiguration"],
        json!({"isClientAuthorizedToRead": true, "value": both})
    );
    let kept = master.ok(
        "b2_update_bucket",
        &json!({"accountId": MASTER_ID, "bucketId": source, "bucketInfo": {}}),
    );
    assert_eq!(kept["replicationConfiguration"]["value"], both, "absent leaves it as it is");
    let one = update(json!({"asReplicationDestination": both["asReplicationDestination"]})).json();
    assert!(
        one["replicationConfiguration"]["value"]["asReplicationSource"].is_null(),
        "the other side goes"
    );
    for empty in [
        json!({}),
        json!(null),
        json!({"asReplicationSource": null, "asReplicationDestination": null}),
    ] {
        update(both.clone());
        assert!(update(empty).json()["replicationConfiguration"]["value"].is_null());
    }
    let revision = update(both.clone()).json()["revision"].clone();
    let mut wrong = both.clone();
    wrong["asReplicationSource"]["replicationRules"][0]["priority"] = json!(0);
    assert_eq!(update(wrong).status, 400);
    let listed = master.ok("b2_list_buckets", &json!({"accountId": MASTER_ID, "bucketId": source}));
    assert_eq!(listed["buckets"][0]["revision"], revision, "a refused change is none");
    let plain = master.with_key(&["writeBuckets", "listBuckets"], None, None);
    let answer = plain.call(
        "b2_update_bucket",
        &json!({"accountId": MASTER_ID, "bucketId": source,
        "replicationConfiguration": {}}),
    );
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    assert_eq!(
        plain.call("b2_update_bucket", &json!({"accountId": MASTER_ID, "bucketId": source})).status,
        200
    );
}

#[test]
fn native_110_111_112_bucket_info_is_counted_named_and_made_of_texts() {
    let server = Server::start();
    let master = server.master();
    let create = |name: &str, info: &Value| {
        let body = json!({"accountId": MASTER_ID, "bucketName": name, "bucketType": "allPrivate",
            "bucketInfo": info});
        master.call("b2_create_bucket", &body)
    };
    let entries = |count: usize| -> Value {
        (0..count)
            .map(|number| (format!("k{number}"), json!("v")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    assert_eq!(create("ten-entries", &entries(10)).json()["bucketInfo"], entries(10));
    let largest = json!({"n".repeat(50): "v".repeat(9_950)});
    assert_eq!(create("largest-entries", &largest).json()["bucketInfo"], largest);
    let cased = json!({"Key": "one", "kEY": "two"});
    assert_eq!(create("cased-entries", &cased).json()["bucketInfo"], cased, "case is kept");
    for wrong in [
        entries(11),
        json!({"a b": "v"}),
        json!({"b2-x": "v"}),
        json!({"B2-x": "v"}),
        json!({"a": 1}),
        json!({"a": null}),
        json!({"a": ["v"]}),
        json!({"": "v"}),
        json!({"n".repeat(51): "v"}),
        json!({"a": "v".repeat(10_000)}),
        json!(["v"]),
        json!("v"),
    ] {
        let answer = create("wrong-entries", &wrong);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{wrong}");
    }
}

#[test]
fn native_134_139_updates_and_deletions_need_their_rights() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("guarded-bucket");
    let body = json!({"accountId": MASTER_ID, "bucketId": bucket});
    let every = kiln::manifest::capabilities();
    for (operation, capability) in
        [("b2_update_bucket", "writeBuckets"), ("b2_delete_bucket", "deleteBuckets")]
    {
        let others: Vec<&str> = every.iter().copied().filter(|one| *one != capability).collect();
        let answer = master.with_key(&others, None, None).call(operation, &body);
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{operation}");
        let answer = master.with_key(&[capability], None, None).call(operation, &body);
        assert_eq!(answer.status, 200, "{operation}");
    }
}

#[test]
fn native_102_127_140_types_and_revisions_guard_every_update() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("guarded-bucket");
    let update = |fields: Value| {
        let mut body = json!({"accountId": MASTER_ID, "bucketId": bucket});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        master.call("b2_update_bucket", &body)
    };
    for kind in ["snapshot", "restricted", "share", "shared", "AllPublic", "all", ""] {
        let made = master.call(
            "b2_create_bucket",
            &json!({"accountId": MASTER_ID, "bucketName": "typed-bucket", "bucketType": kind}),
        );
        let changed = update(json!({"bucketType": kind}));
        for answer in [made, changed] {
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{kind}");
        }
    }
    let listed = || {
        let body = json!({"accountId": MASTER_ID, "bucketId": bucket});
        master.ok("b2_list_buckets", &body)["buckets"][0].clone()
    };
    let before = listed();
    let cors = json!([{"corsRuleName": "rule-one", "allowedOrigins": ["*"],
        "allowedOperations": ["b2_upload_file"], "allowedHeaders": null, "exposeHeaders": null,
        "maxAgeSeconds": 1}]);
    let lifecycle = json!([{"daysFromHidingToDeleting": 1, "daysFromUploadingToHiding": null,
        "fileNamePrefix": ""}]);
    let changes = [
        ("bucketType", json!("allPublic")),
        ("bucketInfo", json!({"Cache-Control": "max-age=1"})),
        ("corsRules", cors),
        ("lifecycleRules", lifecycle),
    ];
    for (name, value) in &changes {
        let stale = update(json!({*name: value, "ifRevisionIs": 1}));
        assert_eq!((stale.status, stale.code().as_str()), (409, "conflict"), "{name}");
        let unread = update(json!({*name: value, "ifRevisionIs": "2"}));
        assert_eq!((unread.status, unread.code().as_str()), (400, "bad_request"), "{name}");
    }
    assert_eq!(listed(), before, "nothing has changed");
    let whole: Value = changes.iter().map(|(name, value)| (*name, value.clone())).collect();
    let mut wrong = whole.clone();
    wrong["ifRevisionIs"] = json!(2);
    wrong["lifecycleRules"] = json!([{"fileNamePrefix": ""}]);
    assert_eq!(update(wrong).status, 400);
    assert_eq!(listed(), before, "all of it or nothing");
    let mut right = whole;
    right["ifRevisionIs"] = json!(2);
    let changed = update(right).json();
    assert_eq!(changed["revision"], 3);
    for (name, value) in &changes {
        assert_eq!(&changed[*name], value);
    }
    assert_eq!(update(json!({"ifRevisionIs": null})).json()["revision"], 4, "null asks for none");
}
