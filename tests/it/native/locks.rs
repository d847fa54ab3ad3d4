//! Object Lock.

use serde_json::{Value, json};

use crate::support::http::{Answer, call};
use crate::support::server::{MASTER_ID, Server, Session, sha1_hex};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// 1 January 2100 and 2101.
const IN_2100: i64 = 4_102_444_800_000;
const IN_2101: i64 = 4_133_980_800_000;
/// All that keys may hold without being able to read or write locks.
const PLAIN: [&str; 6] =
    ["listBuckets", "listFiles", "readFiles", "writeFiles", "deleteFiles", "writeBuckets"];

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
}

fn retention(mode: &str, until: i64) -> Value {
    json!({"mode": mode, "retainUntilTimestamp": until})
}

fn no_retention() -> Value {
    json!({"mode": null, "retainUntilTimestamp": null})
}

fn create_locked(master: &Session, name: &str) -> String {
    let body = json!({
        "accountId": master.account, "bucketName": name, "bucketType": "allPrivate",
        "fileLockEnabled": true,
    });
    master.ok("b2_create_bucket", &body)["bucketId"].as_str().unwrap().to_owned()
}

fn update(session: &Session, bucket: &str, fields: &Value) -> Answer {
    let mut body = json!({"accountId": MASTER_ID, "bucketId": bucket});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    session.call("b2_update_bucket", &body)
}

fn lock_of(bucket: &Value) -> &Value {
    &bucket["fileLockConfiguration"]["value"]
}

fn set_retention(session: &Session, file: &Value, wanted: &Value, bypass: Option<bool>) -> Answer {
    let body = json!({
        "fileName": file["fileName"], "fileId": file["fileId"], "fileRetention": wanted,
        "bypassGovernance": bypass,
    });
    session.call("b2_update_file_retention", &body)
}

fn set_hold(session: &Session, file: &Value, hold: &str) -> Answer {
    let body = json!({"fileName": file["fileName"], "fileId": file["fileId"], "legalHold": hold});
    session.call("b2_update_file_legal_hold", &body)
}

fn delete(session: &Session, file: &Value, bypass: bool) -> Answer {
    let body = json!({
        "fileName": file["fileName"], "fileId": file["fileId"], "bypassGovernance": bypass,
    });
    session.call("b2_delete_file_version", &body)
}

fn info(session: &Session, file: &Value) -> Value {
    session.ok("b2_get_file_info", &json!({"fileId": file["fileId"]}))
}

/// An upload with a retention, and with a legal hold when there is one.
fn upload_locked(session: &Session, bucket: &str, (mode, until): (&str, i64), hold: &str) -> Value {
    let until = until.to_string();
    let more = [
        ("X-Bz-File-Retention-Mode", mode),
        ("X-Bz-File-Retention-Retain-Until-Timestamp", until.as_str()),
        ("X-Bz-File-Legal-Hold", hold),
    ];
    let answer = session.try_upload(bucket, "locked", b"kept", &more);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn now(server: &Server) -> i64 {
    server.control("POST", "/admin/clock/advance?ms=0").json()["now"].as_i64().unwrap()
}

#[test]
fn native_331_332_335_without_object_lock_a_bucket_takes_no_locks() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("lock-free");
    let until = IN_2100.to_string();
    let retained = [
        ("X-Bz-File-Retention-Mode", "governance"),
        ("X-Bz-File-Retention-Retain-Until-Timestamp", until.as_str()),
    ];
    let answer = master.try_upload(&bucket, "f", b"x", &retained);
    refused(&answer, 400, "bucket_missing_file_lock");
    assert_eq!(answer.message(), "The bucket is not file lock enabled");
    let held = master.try_upload(&bucket, "f", b"x", &[("X-Bz-File-Legal-Hold", "off")]);
    refused(&held, 400, "bucket_missing_file_lock");
    let file = master.upload(&bucket, "f", b"x");
    assert_eq!(file["fileRetention"]["value"], no_retention());
    for fields in
        [json!({"legalHold": "on"}), json!({"fileRetention": retention("compliance", IN_2100)})]
    {
        let mut copy = json!({"sourceFileId": file["fileId"], "fileName": "copy"});
        copy.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        refused(&master.call("b2_copy_file", &copy), 400, "bucket_missing_file_lock");
        let mut start =
            json!({"bucketId": bucket, "fileName": "large", "contentType": "text/plain"});
        start.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        refused(&master.call("b2_start_large_file", &start), 400, "bucket_missing_file_lock");
    }
    let wanted = retention("governance", IN_2100);
    refused(&set_retention(&master, &file, &wanted, None), 400, "bucket_missing_file_lock");
    refused(&set_hold(&master, &file, "on"), 400, "bucket_missing_file_lock");
    let marker = master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "f"}));
    refused(&set_hold(&master, &marker, "on"), 400, "bucket_missing_file_lock");
    let period = json!({"duration": 1, "unit": "days"});
    for default in [json!({"mode": "governance", "period": period}), json!({"mode": null})] {
        let answer = update(&master, &bucket, &json!({"defaultRetention": default}));
        refused(&answer, 400, "bucket_missing_file_lock");
    }
}

#[test]
fn native_104_105_123_333_334_336_337_a_bucket_gets_object_lock_and_never_loses_it() {
    let server = Server::start();
    let master = server.master();
    let create = |name: &str, more: Value| {
        let mut body = json!({
            "accountId": MASTER_ID, "bucketName": name, "bucketType": "allPrivate",
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let made =
        master.ok("b2_create_bucket", &create("lock-first", json!({"fileLockEnabled": true})));
    let unset = json!({"mode": null, "period": null});
    assert_eq!(*lock_of(&made), json!({"defaultRetention": unset, "isFileLockEnabled": true}));
    let builder = master.with_key(&PLAIN, None, None);
    let wanted = create("lock-second", json!({"fileLockEnabled": true}));
    refused(&builder.call("b2_create_bucket", &wanted), 401, "unauthorized");
    let plain = create("lock-second", json!({"fileLockEnabled": false}));
    let bucket = builder.ok("b2_create_bucket", &plain);
    assert_eq!(
        bucket["fileLockConfiguration"],
        json!({"isClientAuthorizedToRead": false, "value": null})
    );
    let default = json!({"mode": "governance", "period": {"duration": 7, "unit": "days"}});
    let at_once = create(
        "lock-third",
        json!({
            "fileLockEnabled": true, "defaultRetention": default,
        }),
    );
    refused(&master.call("b2_create_bucket", &at_once), 400, "bad_request");

    let bucket = bucket["bucketId"].as_str().unwrap();
    let update = |fields: Value| update(&master, bucket, &fields);
    assert_eq!(
        lock_of(&update(json!({"fileLockEnabled": false})).json())["isFileLockEnabled"],
        false
    );
    let both = update(json!({"fileLockEnabled": true, "defaultRetention": default})).json();
    assert_eq!(*lock_of(&both), json!({"defaultRetention": default, "isFileLockEnabled": true}));
    let again = update(json!({"fileLockEnabled": true, "defaultRetention": null})).json();
    assert_eq!(lock_of(&again), lock_of(&both));
    let off = update(json!({"fileLockEnabled": false, "bucketInfo": {"changed": "no"}}));
    refused(&off, 400, "file_lock_conflict");
    assert_eq!(
        off.message(),
        "fileLockEnabled value of false is not allowed when bucket is already file lock enabled."
    );
    for (duration, unit) in [
        (json!(0), "days"),
        (json!(-1), "days"),
        (json!(1), "weeks"),
        (json!(1.5), "days"),
        (json!("1"), "days"),
        (json!(101), "years"),
    ] {
        let period = json!({"duration": duration, "unit": unit});
        let wrong = json!({"defaultRetention": {"mode": "compliance", "period": period}});
        refused(&update(wrong), 400, "bad_request");
    }
    for wrong in [
        json!({"mode": "governance"}),
        json!({"mode": "strict", "period": {"duration": 1, "unit": "days"}}),
        json!({"period": {"duration": 1, "unit": "days"}}),
        json!("governance"),
    ] {
        refused(&update(json!({"defaultRetention": wrong})), 400, "bad_request");
    }
    let shown = master.ok("b2_list_buckets", &json!({"accountId": MASTER_ID, "bucketId": bucket}));
    assert_eq!(lock_of(&shown["buckets"][0]), lock_of(&both), "refused changes change nothing");
    assert_eq!(shown["buckets"][0]["bucketInfo"], json!({}));
    for cleared in [json!({"mode": null}), json!({"mode": "none"})] {
        update(json!({"defaultRetention": default}));
        let answer = update(json!({"defaultRetention": cleared})).json();
        assert_eq!(lock_of(&answer)["defaultRetention"], unset, "{cleared}");
    }
}

#[test]
fn native_338_339_283_new_files_are_kept_as_long_as_the_bucket_says_unless_they_say_so_themselves()
{
    let server = Server::start();
    let master = server.master();
    let bucket = create_locked(&master, "lock-default");
    let before = master.upload(&bucket, "before", b"x");
    let seven = json!({"mode": "governance", "period": {"duration": 7, "unit": "days"}});
    assert_eq!(update(&master, &bucket, &json!({"defaultRetention": seven})).status, 200);
    let expected = |file: &Value| {
        retention("governance", file["uploadTimestamp"].as_i64().unwrap() + 7 * DAY_MS)
    };
    let plain = master.upload(&bucket, "plain", b"x");
    let copied =
        master.ok("b2_copy_file", &json!({"sourceFileId": before["fileId"], "fileName": "copied"}));
    let started = master.ok(
        "b2_start_large_file",
        &json!({"bucketId": bucket, "fileName": "large", "contentType": "text/plain"}),
    );
    for file in [&plain, &copied, &started] {
        assert_eq!(file["fileRetention"]["value"], expected(file), "{file}");
        assert_eq!(file["legalHold"]["value"], json!(null));
    }
    assert_eq!(info(&master, &plain)["fileRetention"]["value"], expected(&plain));
    assert_eq!(info(&master, &before)["fileRetention"]["value"], no_retention());

    let explicit = upload_locked(&master, &bucket, ("compliance", IN_2100), "on");
    assert_eq!(explicit["fileRetention"]["value"], retention("compliance", IN_2100));
    assert_eq!(explicit["legalHold"]["value"], "on");
    let short = now(&server) + 60_000;
    let own = master.ok(
        "b2_copy_file",
        &json!({
            "sourceFileId": explicit["fileId"], "fileName": "own",
            "fileRetention": retention("governance", short), "legalHold": "off",
        }),
    );
    assert_eq!(own["fileRetention"]["value"], retention("governance", short));
    assert_eq!(own["legalHold"]["value"], "off");
    let inherited = master
        .ok("b2_copy_file", &json!({"sourceFileId": explicit["fileId"], "fileName": "inherited"}));
    assert_eq!(inherited["fileRetention"]["value"], expected(&inherited), "not the source's");
    assert_eq!(inherited["legalHold"]["value"], json!(null));
    // A hide marker carries no lock, and the file below it is as locked as before.
    let marker = master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "plain"}));
    assert!(marker.get("fileRetention").is_none() && marker.get("legalHold").is_none());
    assert_eq!(delete(&master, &marker, false).status, 200);
    refused(&delete(&master, &plain, false), 401, "access_denied");
    server.control("POST", &format!("/admin/clock/advance?ms={}", 7 * DAY_MS + 5_000));
    let master = server.master();
    assert_eq!(delete(&master, &plain, false).status, 200, "the period is over");
    refused(&delete(&master, &explicit, false), 401, "access_denied");
}

#[test]
fn native_340_341_a_lock_that_makes_no_sense_is_refused_by_every_door() {
    let server = Server::start();
    let master = server.master();
    let bucket = create_locked(&master, "lock-sense");
    let file = master.upload(&bucket, "f", b"x");
    let past = (now(&server) - 1000).to_string();
    let future = IN_2100.to_string();
    let (mode, until) = ("X-Bz-File-Retention-Mode", "X-Bz-File-Retention-Retain-Until-Timestamp");
    let upload = |more: &[(&str, &str)]| master.try_upload(&bucket, "g", b"x", more);
    let is_past = "retain_until_timestamp_must_be_in_future";
    let answer = upload(&[(mode, "governance"), (until, &past)]);
    refused(&answer, 400, is_past);
    assert_eq!(answer.message(), "The retainUntilTimestamp must be in future");
    for wrong in [
        &[(mode, "governance")][..],
        &[(until, future.as_str())],
        &[(mode, "none"), (until, future.as_str())],
        &[(mode, "Governance"), (until, future.as_str())],
        &[(mode, "governance"), (until, "soon")],
        &[(mode, "governance"), (until, "4102444800000.5")],
        &[(mode, "governance"), (until, "99999999999999999999")],
        &[(mode, "governance"), (until, "253402300800000")],
        &[("X-Bz-File-Legal-Hold", "ON")],
        &[("X-Bz-File-Legal-Hold", "true")],
    ] {
        refused(&upload(wrong), 400, "bad_request");
    }
    let past: i64 = past.parse().unwrap();
    let asked = [
        (json!({"fileRetention": retention("governance", past)}), is_past),
        (json!({"fileRetention": retention("governance", 0)}), is_past),
        (json!({"fileRetention": retention("governance", -1)}), is_past),
        (json!({"fileRetention": {"mode": "governance"}}), "bad_request"),
        (json!({"fileRetention": {"retainUntilTimestamp": IN_2100}}), "bad_request"),
        (json!({"fileRetention": retention("strict", IN_2100)}), "bad_request"),
        (json!({"fileRetention": {"mode": 1, "retainUntilTimestamp": IN_2100}}), "bad_request"),
        (json!({"fileRetention": "governance"}), "bad_request"),
    ];
    let more = [
        (json!({"legalHold": "maybe"}), "bad_request"),
        (json!({"legalHold": true}), "bad_request"),
    ];
    for (fields, code) in asked.iter().chain(&more) {
        for (operation, mut body) in [
            ("b2_copy_file", json!({"sourceFileId": file["fileId"], "fileName": "copy"})),
            (
                "b2_start_large_file",
                json!({"bucketId": bucket, "fileName": "l", "contentType": "text/plain"}),
            ),
        ] {
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            refused(&master.call(operation, &body), 400, code);
        }
    }
    for (fields, code) in &asked {
        refused(&set_retention(&master, &file, &fields["fileRetention"], Some(true)), 400, code);
    }
    refused(&set_retention(&master, &file, &Value::Null, None), 400, "bad_request");
    refused(&set_hold(&master, &file, "maybe"), 400, "bad_request");
    assert_eq!(info(&master, &file)["fileRetention"]["value"], no_retention());
    // Spelt-out absence is absence.
    for none in [no_retention(), json!({"mode": "none"}), Value::Null] {
        let body = json!({
            "sourceFileId": file["fileId"], "fileName": "copy", "fileRetention": none,
            "legalHold": null,
        });
        assert_eq!(master.ok("b2_copy_file", &body)["fileRetention"]["value"], no_retention());
    }
}

#[test]
fn native_168_metadata_is_shorter_in_a_bucket_with_object_lock() {
    let server = Server::start();
    let master = server.master();
    let (locked, free) = (create_locked(&master, "lock-short"), master.create_bucket("lock-long"));
    let value = |bytes: usize| "v".repeat(bytes - "f".len() - "note".len());
    let upload = |bucket: &str, bytes: usize| {
        master.try_upload(bucket, "f", b"x", &[("X-Bz-Info-note", value(bytes).as_str())])
    };
    assert_eq!(upload(&locked, 2048).status, 200);
    refused(&upload(&locked, 2049), 400, "metadata_exceeded");
    let long = upload(&free, 2049).json();
    let copy = json!({
        "sourceFileId": long["fileId"], "fileName": "f", "destinationBucketId": locked,
    });
    refused(&master.call("b2_copy_file", &copy), 400, "metadata_exceeded");
    let start = |bytes: usize| {
        master.call(
            "b2_start_large_file",
            &json!({
                "bucketId": locked, "fileName": "f", "contentType": "text/plain",
                "fileInfo": {"note": value(bytes)},
            }),
        )
    };
    assert_eq!(start(2048).status, 200);
    refused(&start(2049), 400, "metadata_exceeded");
}

#[test]
fn native_342_to_346_retention_grows_freely_and_shrinks_only_under_governance() {
    let server = Server::start();
    let master = server.master();
    let bucket = create_locked(&master, "lock-change");
    let file = master.upload(&bucket, "f", b"x");
    let set = |wanted: &Value, bypass: bool| set_retention(&master, &file, wanted, Some(bypass));
    let changed = |wanted: &Value, bypass: bool| {
        let answer = set(wanted, bypass);
        assert_eq!(answer.status, 200, "{answer:?}");
        let shown = json!({
            "fileId": file["fileId"], "fileName": "f", "fileRetention": wanted,
        });
        assert_eq!(answer.json(), shown);
        assert_eq!(info(&master, &file)["fileRetention"]["value"], *wanted);
    };
    let forbidden = |wanted: &Value, bypass: bool| {
        let before = info(&master, &file);
        refused(&set(wanted, bypass), 403, "access_denied");
        assert_eq!(info(&master, &file), before);
    };
    changed(&retention("governance", IN_2100), false);
    changed(&retention("governance", IN_2101), false);
    forbidden(&retention("governance", IN_2100), false);
    forbidden(&no_retention(), false);
    changed(&retention("governance", IN_2100), true);
    changed(&no_retention(), true);
    changed(&no_retention(), false);
    changed(&retention("governance", IN_2100), false);
    forbidden(&retention("compliance", IN_2100 - 1), false);
    changed(&retention("compliance", IN_2100), false);
    for bypass in [false, true] {
        forbidden(&retention("compliance", IN_2100 - 1), bypass);
        forbidden(&retention("governance", IN_2101), bypass);
        forbidden(&no_retention(), bypass);
    }
    changed(&retention("compliance", IN_2101), false);

    let soon = now(&server) + 10_000;
    let short = upload_locked(&master, &bucket, ("compliance", soon), "off");
    refused(&set_retention(&master, &short, &no_retention(), None), 403, "access_denied");
    server.control("POST", "/admin/clock/advance?ms=10001");
    assert_eq!(set_retention(&master, &short, &no_retention(), None).status, 200, "it was over");
}

#[test]
fn native_342_350_a_legal_hold_is_on_until_it_is_off() {
    let server = Server::start();
    let master = server.master();
    let bucket = create_locked(&master, "lock-hold");
    let file = master.upload(&bucket, "f", b"x");
    assert_eq!(file["legalHold"]["value"], json!(null));
    let held = set_hold(&master, &file, "on").json();
    assert_eq!(held, json!({"fileId": file["fileId"], "fileName": "f", "legalHold": "on"}));
    assert_eq!(info(&master, &file)["legalHold"]["value"], "on");
    refused(&delete(&master, &file, true), 401, "access_denied");
    assert_eq!(set_hold(&master, &file, "off").json()["legalHold"], "off");
    assert_eq!(info(&master, &file)["legalHold"]["value"], "off");
    assert_eq!(delete(&master, &file, false).status, 200);
}

#[test]
fn native_347_to_350_a_locked_version_is_deleted_by_nobody_who_may_not() {
    let server = Server::start();
    let master = server.master();
    let bucket = create_locked(&master, "lock-delete");
    let free = master.upload(&bucket, "free", b"x");
    let no_bypass = master.with_key(&["deleteFiles", "writeFileRetentions"], None, None);
    refused(&delete(&no_bypass, &free, true), 401, "unauthorized");

    let governed = upload_locked(&master, &bucket, ("governance", IN_2100), "");
    let answer = delete(&master, &governed, false);
    refused(&answer, 401, "access_denied");
    assert_eq!(answer.message(), "Access Denied");
    refused(&delete(&no_bypass, &governed, false), 401, "access_denied");
    refused(&delete(&no_bypass, &governed, true), 401, "unauthorized");
    let shorter = retention("governance", IN_2100 - 1);
    refused(&set_retention(&no_bypass, &governed, &shorter, Some(true)), 401, "unauthorized");
    assert_eq!(delete(&master, &governed, true).status, 200);

    for lock in [
        upload_locked(&master, &bucket, ("compliance", IN_2100), "off"),
        upload_locked(&master, &bucket, ("governance", IN_2100), "on"),
    ] {
        refused(&delete(&master, &lock, false), 401, "access_denied");
        refused(&delete(&master, &lock, true), 401, "access_denied");
        assert_eq!(info(&master, &lock)["contentLength"], 4);
    }
    let whole = json!({"accountId": MASTER_ID, "bucketId": bucket});
    refused(&master.call("b2_delete_bucket", &whole), 400, "cannot_delete_non_empty_bucket");
}

#[test]
fn native_351_whoever_may_not_write_locks_is_told_so_first() {
    let server = Server::start();
    let master = server.master();
    let (locked, free) = (create_locked(&master, "lock-rights"), master.create_bucket("lock-none"));
    let plain = master.with_key(&PLAIN, None, None);
    let wanted = retention("governance", IN_2100);
    for bucket in [&locked, &free] {
        let file = master.upload(bucket, "f", b"x");
        refused(&set_retention(&plain, &file, &wanted, None), 403, "access_denied");
        refused(&set_retention(&plain, &file, &wanted, Some(true)), 403, "access_denied");
        refused(&set_hold(&plain, &file, "on"), 403, "access_denied");
        let upload = |more: &[(&str, &str)]| plain.try_upload(bucket, "g", b"x", more);
        refused(&upload(&[("X-Bz-File-Legal-Hold", "off")]), 401, "unauthorized");
        let until = IN_2100.to_string();
        let retained = [
            ("X-Bz-File-Retention-Mode", "governance"),
            ("X-Bz-File-Retention-Retain-Until-Timestamp", until.as_str()),
        ];
        refused(&upload(&retained), 401, "unauthorized");
        for fields in [json!({"legalHold": "on"}), json!({"fileRetention": wanted})] {
            for (operation, mut body) in [
                ("b2_copy_file", json!({"sourceFileId": file["fileId"], "fileName": "copy"})),
                (
                    "b2_start_large_file",
                    json!({"bucketId": bucket, "fileName": "l", "contentType": "text/plain"}),
                ),
            ] {
                body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
                refused(&plain.call(operation, &body), 401, "unauthorized");
            }
        }
        let lock = update(&plain, bucket, &json!({"fileLockEnabled": true}));
        refused(&lock, 401, "unauthorized");
    }
    // One right is not the other.
    let holder = master.with_key(&["writeFileLegalHolds", "writeFiles"], None, None);
    let file = master.upload(&locked, "f", b"x");
    assert_eq!(set_hold(&holder, &file, "on").status, 200);
    refused(&set_retention(&holder, &file, &wanted, None), 403, "access_denied");
    // Neither reaches beyond the key's bucket and names.
    let bound = master.with_key(&["writeFileLegalHolds"], Some(&[&locked]), Some("a/"));
    refused(&set_hold(&bound, &file, "off"), 401, "unauthorized");
    let inside = master.upload(&locked, "a/f", b"x");
    assert_eq!(set_hold(&bound, &inside, "on").status, 200);
    let mut renamed = file.clone();
    renamed["fileName"] = json!("a/f");
    refused(&set_hold(&bound, &renamed, "off"), 400, "file_not_present");
    let elsewhere = master.upload(&free, "a/f", b"x");
    refused(&set_hold(&bound, &elsewhere, "off"), 401, "unauthorized");
}

#[test]
fn native_332_352_only_finished_files_are_locked_and_hiding_them_is_allowed() {
    let server = Server::start_with(&["--test-controls", "--limits-part-size-min", "1"]);
    let master = server.master();
    let bucket = create_locked(&master, "lock-hide");
    let locked = upload_locked(&master, &bucket, ("compliance", IN_2100), "on");
    let marker = master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "locked"}));
    let wanted = retention("governance", IN_2100);
    refused(&set_retention(&master, &marker, &wanted, None), 400, "bad_request");
    refused(&set_hold(&master, &marker, "on"), 400, "bad_request");
    assert_eq!(info(&master, &locked)["legalHold"]["value"], "on");

    let start = |hold: &str| {
        master.ok(
            "b2_start_large_file",
            &json!({
                "bucketId": bucket, "fileName": "large", "contentType": "text/plain",
                "fileRetention": retention("compliance", IN_2100), "legalHold": hold,
            }),
        )
    };
    let given_up = start("on");
    refused(&set_hold(&master, &given_up, "off"), 400, "bad_request");
    refused(&set_retention(&master, &given_up, &wanted, None), 400, "bad_request");
    // What was never finished keeps nobody's promise.
    master.ok("b2_cancel_large_file", &json!({"fileId": given_up["fileId"]}));
    let deleted = start("on");
    assert_eq!(delete(&master, &deleted, false).status, 200);
    let finished = start("off");
    for number in [1, 2] {
        let part = json!({
            "sourceFileId": locked["fileId"], "largeFileId": finished["fileId"],
            "partNumber": number,
        });
        master.ok("b2_copy_part", &part);
    }
    let sha1s = [sha1_hex(b"kept"), sha1_hex(b"kept")];
    let whole = master
        .ok("b2_finish_large_file", &json!({"fileId": finished["fileId"], "partSha1Array": sha1s}));
    assert_eq!(whole["fileRetention"]["value"], retention("compliance", IN_2100));
    assert_eq!(whole["legalHold"]["value"], "off");
    refused(&delete(&master, &whole, true), 401, "access_denied");

    let unknown = json!({"fileName": "other", "fileId": locked["fileId"]});
    refused(&set_hold(&master, &unknown, "off"), 400, "file_not_present");
    let malformed = json!({"fileName": "locked", "fileId": "malformed"});
    refused(&set_hold(&master, &malformed, "off"), 400, "bad_request");
}

#[test]
fn native_353_downloads_show_locks_to_those_who_may_read_them() {
    let server = Server::start();
    let master = server.master();
    let bucket = create_locked(&master, "lock-shown");
    let free = master.create_bucket("lock-absent");
    let locked = upload_locked(&master, &bucket, ("governance", IN_2100), "on");
    master.upload(&bucket, "unlocked", b"x");
    master.upload(&free, "unlocked", b"x");
    let until = IN_2100.to_string();
    let lock_headers = [
        "X-Bz-File-Retention-Mode",
        "X-Bz-File-Retention-Retain-Until-Timestamp",
        "X-Bz-File-Legal-Hold",
        "X-Bz-Client-Unauthorized-To-Read",
    ];
    let shown = |answer: &Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        lock_headers.map(|name| answer.header(name).map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    let all = [some("governance"), some(&until), some("on"), None];
    let by_id = |session: &Session, method: &str| {
        let target = format!(
            "/b2api/v4/b2_download_file_by_id?fileId={}",
            locked["fileId"].as_str().unwrap()
        );
        call(&session.address, method, &target, &[("Authorization", &session.token)], b"")
    };
    assert_eq!(shown(&master.download("lock-shown/locked", &[])), all);
    assert_eq!(shown(&by_id(&master, "HEAD")), all);
    assert_eq!(shown(&master.download("lock-shown/unlocked", &[])), [const { None }; 4]);
    assert_eq!(shown(&master.download("lock-absent/unlocked", &[])), [const { None }; 4]);

    let both = "X-Bz-File-Retention-Mode,X-Bz-File-Retention-Retain-Until-Timestamp";
    let plain = master.with_key(&["readFiles"], None, None);
    let hidden = [None, None, None, Some(format!("{both},X-Bz-File-Legal-Hold"))];
    assert_eq!(shown(&plain.download("lock-shown/locked", &[])), hidden);
    assert_eq!(shown(&by_id(&plain, "GET")), hidden);
    // It is not told whether there is something that it may not read.
    assert_eq!(shown(&plain.download("lock-shown/unlocked", &[])), hidden);
    assert_eq!(shown(&plain.download("lock-absent/unlocked", &[])), [const { None }; 4]);
    let retentions = master.with_key(&["readFiles", "readFileRetentions"], None, None);
    assert_eq!(
        shown(&retentions.download("lock-shown/locked", &[])),
        [some("governance"), some(&until), None, some("X-Bz-File-Legal-Hold")]
    );
    let holds = master.with_key(&["readFiles", "readFileLegalHolds"], None, None);
    assert_eq!(
        shown(&holds.download("lock-shown/locked", &[])),
        [None, None, some("on"), some(both)]
    );
    let share = json!({
        "bucketId": bucket, "fileNamePrefix": "", "validDurationInSeconds": 60,
    });
    let token = master.ok("b2_get_download_authorization", &share);
    let token = token["authorizationToken"].as_str().unwrap();
    let shared = call(
        &server.address,
        "GET",
        &format!("/file/lock-shown/locked?Authorization={token}"),
        &[],
        b"",
    );
    assert_eq!(shown(&shared), hidden);
    update(&master, &bucket, &json!({"bucketType": "allPublic"}));
    let anonymous = call(&server.address, "GET", "/file/lock-shown/locked", &[], b"");
    assert_eq!(shown(&anonymous), hidden);
    assert_eq!(shown(&master.download("lock-shown/locked", &[])), all, "public or not");
    let listed = plain_listing(&master, &bucket);
    assert_eq!(listed["fileRetention"], json!({"isClientAuthorizedToRead": false, "value": null}));
    assert_eq!(listed["legalHold"], json!({"isClientAuthorizedToRead": false, "value": null}));
}

/// What a key without lock rights is told of the first file of a bucket.
fn plain_listing(master: &Session, bucket: &str) -> Value {
    let plain = master.with_key(&["listFiles"], None, None);
    plain.ok("b2_list_file_names", &json!({"bucketId": bucket}))["files"][0].clone()
}

#[test]
fn native_354_replication_46_47_object_lock_and_replication_rules_must_agree() {
    let server = Server::start();
    let master = server.master();
    let (locked, free) = (create_locked(&master, "lock-target"), master.create_bucket("lock-open"));
    let (key, _) =
        master.create_key(&["readFiles", "readFileRetentions", "readFileLegalHolds"], None, None);
    let rules = |destination: &str| {
        json!({"asReplicationSource": {
            "sourceApplicationKeyId": key,
            "replicationRules": [{
                "destinationBucketId": destination, "fileNamePrefix": "", "isEnabled": true,
                "includeExistingFiles": false, "priority": 1, "replicationRuleName": "rule-one",
            }],
        }})
    };
    let create = |name: &str, lock: bool, destination: &str| {
        master.call(
            "b2_create_bucket",
            &json!({
                "accountId": MASTER_ID, "bucketName": name, "bucketType": "allPrivate",
                "fileLockEnabled": lock, "replicationConfiguration": rules(destination),
            }),
        )
    };
    let answer = create("lock-source", true, &free);
    refused(&answer, 400, "bad_request");
    assert_eq!(answer.message(), "destination bucket must have file lock enabled");
    assert_eq!(create("lock-source", true, &locked).status, 200, "both at once");
    let plain = create("plain-source", false, &locked).json();
    let plain = plain["bucketId"].as_str().unwrap();
    let answer = update(&master, plain, &json!({"fileLockEnabled": true}));
    refused(&answer, 400, "source_replication_conflict");
    assert_eq!(
        answer.message(),
        "Turning on file lock for an existing bucket having source replication configuration is \
         not allowed."
    );
    assert_eq!(update(&master, plain, &json!({"fileLockEnabled": false})).status, 200);
    assert_eq!(update(&master, plain, &json!({"replicationConfiguration": {}})).status, 200);
    let both = json!({"fileLockEnabled": true, "replicationConfiguration": rules(&free)});
    refused(&update(&master, plain, &both), 400, "bad_request");
    let shown = master.ok("b2_list_buckets", &json!({"accountId": MASTER_ID, "bucketId": plain}));
    assert_eq!(lock_of(&shown["buckets"][0])["isFileLockEnabled"], false, "all or nothing");
    assert_eq!(update(&master, plain, &json!({"fileLockEnabled": true})).status, 200);
}
