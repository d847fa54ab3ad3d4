//! Event notification rules on the wire, and their delivery to a webhook on loopback.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::http::{Answer, call};
use crate::support::receiver::{Arrived, Receiver, Reply};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session, sha1_hex};
use crate::support::wait_for;

const SECRET: &str = "abcdefghijklmnopqrstuvwxyz012345";
/// Everything that a webhook on loopback needs.
const OPEN: [&str; 3] =
    ["--test-controls", "--notifications-allow-private-targets", "--notifications-allow-http"];

fn rule(name: &str, types: &[&str], url: &str) -> Value {
    json!({
        "name": name, "eventTypes": types, "isEnabled": true, "objectNamePrefix": "",
        "targetConfiguration": {"targetType": "webhook", "url": url},
    })
}

fn created(name: &str) -> Value {
    rule(name, &["b2:ObjectCreated:*"], "https://example.com/hook")
}

fn set(session: &Session, bucket: &str, rules: &Value) -> Answer {
    let body = json!({"bucketId": bucket, "eventNotificationRules": rules});
    session.call("b2_set_bucket_notification_rules", &body)
}

fn set_ok(session: &Session, bucket: &str, rules: &Value) -> Value {
    let answer = set(session, bucket, rules);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn get(session: &Session, bucket: &str) -> Value {
    session.ok("b2_get_bucket_notification_rules", &json!({"bucketId": bucket}))
}

#[test]
fn native_12_371_372_373_rules_are_shown_as_they_were_set_in_the_order_of_their_names() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("rules-bucket");
    assert_eq!(get(&master, &bucket), json!({"bucketId": bucket, "eventNotificationRules": []}));
    let mut first = created("rule-zz");
    first["isSuspended"] = json!(true);
    first["suspensionReason"] = json!("sent back by a client");
    let mut second = rule("rule-aa", &["b2:ObjectDeleted:Delete"], "https://example.com/other");
    second["maxEventsPerBatch"] = json!(5);
    second["isEnabled"] = json!(false);
    second["targetConfiguration"]["customHeaders"] = json!([]);
    second["targetConfiguration"]["hmacSha256SigningSecret"] = json!(SECRET);
    let mut third = rule("rule-mm", &["b2:HideMarkerCreated:Hide"], "https://example.com/third");
    third["targetConfiguration"]["maxEventsPerBatch"] = json!(50);
    third["targetConfiguration"]["customHeaders"] = json!([{"name": "X-A", "value": "1 2"}]);
    let answer = set_ok(&master, &bucket, &json!([first, second, third]));
    let expected = json!({"bucketId": bucket, "eventNotificationRules": [
        {
            "eventTypes": ["b2:ObjectDeleted:Delete"], "isEnabled": false, "isSuspended": false,
            "maxEventsPerBatch": 5, "name": "rule-aa", "objectNamePrefix": "", "suspensionReason": "",
            "targetConfiguration": {
                "customHeaders": [], "hmacSha256SigningSecret": SECRET, "targetType": "webhook",
                "url": "https://example.com/other",
            },
        },
        {
            "eventTypes": ["b2:HideMarkerCreated:Hide"], "isEnabled": true, "isSuspended": false,
            "name": "rule-mm", "objectNamePrefix": "", "suspensionReason": "",
            "targetConfiguration": {
                "customHeaders": [{"name": "X-A", "value": "1 2"}], "hmacSha256SigningSecret": null,
                "maxEventsPerBatch": 50, "targetType": "webhook", "url": "https://example.com/third",
            },
        },
        {
            "eventTypes": ["b2:ObjectCreated:*"], "isEnabled": true, "isSuspended": false,
            "name": "rule-zz", "objectNamePrefix": "", "suspensionReason": "",
            "targetConfiguration": {
                "customHeaders": null, "hmacSha256SigningSecret": null, "targetType": "webhook",
                "url": "https://example.com/hook",
            },
        },
    ]});
    assert_eq!(answer, expected);
    assert_eq!(get(&master, &bucket), expected);
    for version in 1..=4 {
        let body = json!({"bucketId": bucket});
        let answer = master.call_version(version, "b2_get_bucket_notification_rules", &body);
        assert_eq!(answer.json(), expected, "v{version}");
        let target =
            format!("/b2api/v{version}/b2_get_bucket_notification_rules?bucketId={bucket}");
        let headers = [("Authorization", master.token.as_str())];
        let by_get = call(&server.address, "GET", &target, &headers, b"");
        assert_eq!(by_get.json(), expected, "v{version} by GET");
    }
    assert_eq!(set_ok(&master, &bucket, &expected["eventNotificationRules"]), expected, "again");
    let cli = json!([{
        "name": "rule-cli", "eventTypes": ["b2:ObjectCreated:*"], "isEnabled": true,
        "objectNamePrefix": "", "targetConfiguration": {"targetType": "webhook",
        "url": "https://example.com/", "customHeaders": {"X-A": "1"}}}]);
    let shown = set_ok(&master, &bucket, &cli);
    assert_eq!(
        shown["eventNotificationRules"][0]["targetConfiguration"]["customHeaders"],
        json!([{"name": "X-A", "value": "1"}]),
        "the form that the b2 command line sends"
    );
    assert_eq!(set_ok(&master, &bucket, &json!([]))["eventNotificationRules"], json!([]));
    assert_eq!(get(&master, &bucket)["eventNotificationRules"], json!([]));
}

#[test]
fn native_374_to_378_wrong_rules_are_refused_and_change_nothing() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("wrong-rules");
    let kept = set_ok(&master, &bucket, &json!([created("rule-kept")]));
    let with = |path: &[&str], value: Value| {
        let mut rule = created("rule-one");
        let mut place = &mut rule;
        for name in path {
            place = &mut place[*name];
        }
        *place = value;
        json!([rule])
    };
    let types = |names: Value| with(&["eventTypes"], names);
    let target = |name: &str, value: Value| with(&["targetConfiguration", name], value);
    let two = |first: (&str, &str), second: (&str, &str)| {
        let one = |name: &str, (kind, prefix): (&str, &str)| {
            let mut rule = rule(name, &[kind], "https://example.com/");
            rule["objectNamePrefix"] = json!(prefix);
            rule
        };
        json!([one("rule-one", first), one("rule-two", second)])
    };
    let many: Vec<Value> = (0..26)
        .map(|at| {
            let mut rule = created(&format!("rule-{at:02}"));
            rule["objectNamePrefix"] = json!(format!("{at:02}/"));
            rule
        })
        .collect();
    let headers: Vec<Value> =
        (0..11).map(|at| json!({"name": format!("X-{at}"), "value": "v"})).collect();
    for (rules, code) in [
        (types(json!([])), "event_types_empty"),
        (types(json!(["b2:ObjectHidden:*"])), "event_type_invalid"),
        (
            types(json!(["b2:ObjectCreated:Upload", "b2:ObjectDeleted:Delete"])),
            "event_type_categories",
        ),
        (types(json!(["b2:ObjectCreated:*", "b2:ObjectCreated:Upload"])), "event_type_overlap"),
        (
            two(("b2:ObjectCreated:Upload", "images/"), ("b2:ObjectCreated:*", "images/pets/")),
            "event_type_overlap",
        ),
        (target("hmacSha256SigningSecret", json!("short")), "bad_request"),
        (target("hmacSha256SigningSecret", json!("-".repeat(32))), "bad_request"),
        (target("hmacSha256SigningSecret", json!(7)), "bad_request"),
        (target("url", json!("http://example.com/")), "bad_request"),
        (target("url", json!("https://127.0.0.1/")), "bad_request"),
        (target("url", json!("https://user:pass@example.com/")), "bad_request"),
        (target("url", Value::Null), "bad_request"),
        (target("targetType", json!("queue")), "bad_request"),
        (target("customHeaders", json!([{"name": "X-Bz-Foo", "value": "v"}])), "bad_request"),
        (target("customHeaders", json!(headers)), "bad_request"),
        (target("customHeaders", json!("X-A: 1")), "bad_request"),
        (target("maxEventsPerBatch", json!(0)), "bad_request"),
        (with(&["maxEventsPerBatch"], json!(51)), "bad_request"),
        (with(&["name"], json!("short")), "bad_request"),
        (with(&["isEnabled"], Value::Null), "bad_request"),
        (with(&["objectNamePrefix"], json!(7)), "bad_request"),
        (with(&["targetConfiguration"], Value::Null), "bad_request"),
        (json!([created("rule-one"), created("rule-one")]), "bad_request"),
        (json!(many), "bad_request"),
        (json!(["rule"]), "bad_request"),
        (json!({}), "bad_request"),
        (Value::Null, "bad_request"),
    ] {
        let answer = set(&master, &bucket, &rules);
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{rules}");
        assert!(!answer.message().contains("user:pass"), "{}", answer.message());
    }
    assert_eq!(set(&master, &bucket, &json!(many[..25])).status, 200);
    set_ok(&master, &bucket, &kept["eventNotificationRules"]);
    let unknown = "0123456789abcdef01234567";
    for answer in [
        set(&master, unknown, &json!([])),
        master.call("b2_get_bucket_notification_rules", &json!({"bucketId": unknown})),
    ] {
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_bucket_id"));
        assert_eq!(answer.message(), format!("Bucket {unknown} does not exist"));
    }
}

#[test]
fn native_384_rules_need_their_own_capabilities() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("right-bucket");
    let other = master.create_bucket("other-bucket");
    let reader = master.with_key(&["readBucketNotifications"], Some(&[&bucket]), None);
    let writer = master.with_key(&["writeBucketNotifications"], Some(&[&bucket]), None);
    let read = |session: &Session, bucket: &str| {
        session.call("b2_get_bucket_notification_rules", &json!({"bucketId": bucket})).status
    };
    assert_eq!(
        (read(&reader, &bucket), read(&writer, &bucket), read(&reader, &other)),
        (200, 401, 401)
    );
    let write = |session: &Session, bucket: &str| set(session, bucket, &json!([])).status;
    assert_eq!(
        (write(&writer, &bucket), write(&reader, &bucket), write(&writer, &other)),
        (200, 401, 401)
    );
}

#[test]
fn native_379_to_382_events_arrive_signed_and_whole() {
    let receiver = Receiver::start();
    let server = Server::start_with(&OPEN);
    let master = server.master();
    let bucket = master.create_bucket("events-bucket");
    let mut rules = vec![
        rule("rule-created", &["b2:ObjectCreated:*"], &receiver.url()),
        rule("rule-deleted", &["b2:ObjectDeleted:*"], &receiver.url()),
        rule("rule-hidden", &["b2:HideMarkerCreated:*"], &receiver.url()),
    ];
    rules[0]["objectNamePrefix"] = json!("in/");
    rules[0]["targetConfiguration"]["hmacSha256SigningSecret"] = json!(SECRET);
    rules[0]["targetConfiguration"]["customHeaders"] = json!([{"name": "X-Own", "value": "a b"}]);
    set_ok(&master, &bucket, &json!(rules));
    receiver.wait_for_events("b2:TestEvent", 3);
    master.upload(&bucket, "out/f", b"unheard");
    let file = master.upload(&bucket, "in/f%20%C3%A9", b"content");
    let (event, request) = receiver.wait_for_event("b2:ObjectCreated:Upload");
    let members: Vec<&String> = event.as_object().unwrap().keys().collect();
    assert_eq!(members.len(), 11, "{members:?}");
    assert_eq!(event["accountId"], MASTER_ID);
    assert_eq!(event["bucketId"], json!(bucket));
    assert_eq!(event["bucketName"], "events-bucket");
    assert_eq!(event["eventVersion"], 1);
    assert_eq!(event["matchedRuleName"], "rule-created");
    assert_eq!((&event["objectName"], &event["objectSize"]), (&json!("in/f \u{e9}"), &json!(7)));
    assert_eq!(event["objectVersionId"], file["fileId"]);
    assert!(event["eventTimestamp"].as_i64() >= file["uploadTimestamp"].as_i64());
    assert!(event["eventId"].as_str().unwrap().len() >= 32);
    assert_eq!(request.request_line, "POST /hook?token=path-secret HTTP/1.1");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["x-own"], "a b");
    assert!(request.headers["user-agent"].starts_with("kiln/"), "{:?}", request.headers);
    let signature = &request.headers["x-bz-event-notification-signature"];
    assert_eq!(*signature, format!("v1={}", hmac_sha256(SECRET.as_bytes(), &request.body)));
    let marker = master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "in/f \u{e9}"}));
    let (event, request) = receiver.wait_for_event("b2:HideMarkerCreated:Hide");
    assert_eq!((&event["objectSize"], &event["objectVersionId"]), (&json!(0), &marker["fileId"]));
    assert_eq!(request.headers.get("x-bz-event-notification-signature"), None, "no secret");
    let body = json!({"fileId": file["fileId"], "fileName": "in/f \u{e9}"});
    master.ok("b2_delete_file_version", &body);
    let (event, _) = receiver.wait_for_event("b2:ObjectDeleted:Delete");
    assert_eq!(event["objectVersionId"], file["fileId"]);
    let heard: Vec<String> = receiver
        .arrived()
        .iter()
        .flat_map(Arrived::events)
        .map(|event| event["objectName"].to_string())
        .collect();
    assert!(!heard.contains(&"\"out/f\"".to_owned()), "outside of the prefix");
}

#[test]
fn native_379_large_files_and_copies_are_told_as_such_and_only_when_they_are_there() {
    let receiver = Receiver::start();
    let small_parts = [&OPEN[..], &["--limits-part-size-min", "1"]].concat();
    let server = Server::start_with(&small_parts);
    let master = server.master();
    let bucket = master.create_bucket("large-events");
    set_ok(
        &master,
        &bucket,
        &json!([
            rule("rule-created", &["b2:ObjectCreated:*"], &receiver.url()),
            rule("rule-deleted", &["b2:ObjectDeleted:*"], &receiver.url()),
        ]),
    );
    receiver.wait_for_events("b2:TestEvent", 2);
    let start = |name: &str| {
        let body = json!({"bucketId": bucket, "fileName": name, "contentType": "text/plain"});
        master.ok("b2_start_large_file", &body)["fileId"].as_str().unwrap().to_owned()
    };
    let cancelled = start("given-up");
    master.ok("b2_cancel_large_file", &json!({"fileId": cancelled}));
    let file = start("large");
    let pair = master.ok("b2_get_upload_part_url", &json!({"fileId": file}));
    let target = pair["uploadUrl"].as_str().unwrap().splitn(4, '/').nth(3).unwrap();
    let sha1s: Vec<String> = [("1", &b"one"[..]), ("2", b"two!!")]
        .into_iter()
        .map(|(number, content)| {
            let sha1 = sha1_hex(content);
            let headers = [
                ("Authorization", pair["authorizationToken"].as_str().unwrap()),
                ("X-Bz-Part-Number", number),
                ("X-Bz-Content-Sha1", &sha1),
            ];
            let part = call(&server.address, "POST", &format!("/{target}"), &headers, content);
            assert_eq!(part.status, 200, "{part:?}");
            sha1
        })
        .collect();
    master.ok("b2_finish_large_file", &json!({"fileId": file, "partSha1Array": sha1s}));
    let (event, _) = receiver.wait_for_event("b2:ObjectCreated:MultipartUpload");
    assert_eq!((&event["objectVersionId"], &event["objectSize"]), (&json!(file), &json!(8)));
    let copy = master.ok("b2_copy_file", &json!({"sourceFileId": file, "fileName": "copy"}));
    let (event, _) = receiver.wait_for_event("b2:ObjectCreated:Copy");
    assert_eq!(
        (&event["objectVersionId"], &event["objectName"]),
        (&copy["fileId"], &json!("copy"))
    );
    master.ok("b2_delete_file_version", &json!({"fileId": file, "fileName": "large"}));
    receiver.wait_for_event("b2:ObjectDeleted:Delete");
    let told = receiver.arrived().iter().flat_map(Arrived::events).count();
    assert_eq!(told, 5, "nothing of the file that was given up");
}

#[test]
fn native_379_what_lifecycle_rules_do_is_told_as_theirs() {
    let receiver = Receiver::start();
    let server = Server::start_with(&OPEN);
    let bucket = server.master().create_bucket("lifecycle-events");
    let body = json!({
        "accountId": MASTER_ID, "bucketId": bucket, "lifecycleRules": [{
            "fileNamePrefix": "", "daysFromUploadingToHiding": 1, "daysFromHidingToDeleting": 1,
        }],
    });
    server.master().ok("b2_update_bucket", &body);
    let rules = json!([
        rule("rule-hidden", &["b2:HideMarkerCreated:*"], &receiver.url()),
        rule("rule-deleted", &["b2:ObjectDeleted:*"], &receiver.url()),
    ]);
    set_ok(&server.master(), &bucket, &rules);
    let file = server.master().upload(&bucket, "f", b"content");
    let day = "/admin/clock/advance?ms=86400000";
    let told = wait_for("the file is hidden and deleted by the rule", || {
        server.control("POST", day);
        let arrived = receiver.arrived();
        let events: Vec<Value> = arrived.iter().flat_map(Arrived::events).collect();
        let is = |event: &Value, kind: &str| event["eventType"] == kind;
        let hidden = events.iter().find(|event| is(event, "b2:HideMarkerCreated:LifecycleRule"))?;
        let deleted = events.iter().find(|event| {
            is(event, "b2:ObjectDeleted:LifecycleRule") && event["objectSize"] == 7
        })?;
        Some((hidden.clone(), deleted.clone()))
    });
    assert_eq!(told.0["objectName"], "f");
    assert_eq!(told.1["objectVersionId"], file["fileId"]);
}

/// HMAC-SHA256 by its definition, so that the server's is not compared with itself.
fn hmac_sha256(key: &[u8], message: &[u8]) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = digest(&SHA256, &[&padded(0x36), message].concat());
    hex::encode(digest(&SHA256, &[&padded(0x5c), inner.as_ref()].concat()))
}

#[test]
fn native_383_deliveries_are_repeated_through_answers_redirects_and_a_kill() {
    let receiver = Receiver::start();
    let mut server = Server::start_with(&OPEN);
    let master = server.master();
    let bucket = master.create_bucket("retry-bucket");
    set_ok(&master, &bucket, &json!([rule("rule-one", &["b2:ObjectCreated:*"], &receiver.url())]));
    receiver.wait_for_event("b2:TestEvent");
    receiver.reply_next(&[Reply::Status(500), Reply::Status(204), Reply::Redirect, Reply::Silence]);
    master.upload(&bucket, "f", b"content");
    for attempt in 1..=3 {
        receiver.wait_for_events("b2:ObjectCreated:Upload", attempt);
        wait_for("the failure is noted", || {
            let failed = list(&server)["rules"][0]["failedAttempts"].as_u64();
            (failed == Some(attempt as u64)).then_some(())
        });
        server.control("POST", "/admin/clock/advance?ms=3600000");
    }
    // The fourth attempt is under way, unanswered, when the power goes.
    receiver.wait_for_events("b2:ObjectCreated:Upload", 4);
    server.kill();
    server.restart();
    wait_for("the event is delivered", || {
        let rule = list(&server)["rules"][0].clone();
        server.control("POST", "/admin/clock/advance?ms=3600000");
        (rule["waiting"] == 0).then_some(())
    });
    let uploads = receiver.wait_for_events("b2:ObjectCreated:Upload", 5);
    assert!(uploads.iter().all(|(event, _)| event == &uploads[0].0), "the same event every time");
    assert!(receiver.arrived().iter().all(|one| one.request_line.starts_with("POST /hook?")));
}

/// What `kiln notification list --json` says.
fn list(server: &Server) -> Value {
    let run = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(["notification", "list", "--json", "--data-dir"])
        .arg(server.data_dir())
        .env("KILN_MASTER_KEY_ID", MASTER_ID)
        .env("KILN_MASTER_KEY", MASTER_KEY)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).unwrap()
}

#[test]
fn a_rule_is_suspended_after_a_day_and_operators_see_why() {
    let receiver = Receiver::start();
    let server = Server::start_with(&OPEN);
    let bucket = server.master().create_bucket("suspended-bucket");
    let mut rules = json!([rule("rule-one", &["b2:ObjectCreated:*"], &receiver.url())]);
    rules[0]["targetConfiguration"]["hmacSha256SigningSecret"] = json!(SECRET);
    set_ok(&server.master(), &bucket, &rules);
    receiver.wait_for_event("b2:TestEvent");
    receiver.reply_next(&[Reply::Status(500); 100]);
    server.master().upload(&bucket, "f", b"content");
    let shown = wait_for("the rule is suspended", || {
        server.control("POST", "/admin/clock/advance?ms=3600000");
        let shown = get(&server.master(), &bucket)["eventNotificationRules"][0].clone();
        (shown["isSuspended"] == true).then_some(shown)
    });
    let reason = shown["suspensionReason"].as_str().unwrap();
    assert!(reason.contains("24 hours") && reason.contains("status 500"), "{reason}");
    let rule = list(&server)["rules"][0].clone();
    assert_eq!((&rule["isSuspended"], &rule["ruleName"]), (&json!(true), &json!("rule-one")));
    assert_eq!(rule["target"], json!(receiver.address));
    assert_eq!(rule["error"], "the endpoint answered with status 500");
    let figures = String::from_utf8(server.control("GET", "/metrics").body).unwrap();
    assert!(figures.contains("\nkiln_notifications_suspended_rules 1\n"), "{figures}");
    assert!(figures.contains("\nkiln_notifications_suspensions_total 1\n"), "{figures}");
    let log = server.log();
    assert!(log.contains("suspended") && log.contains("rule-one"), "{log}");
    for secret in [SECRET, "path-secret"] {
        assert!(!log.contains(secret) && !figures.contains(secret), "reliability I8");
        assert!(!list(&server).to_string().contains(secret), "reliability I8");
    }
    let enabled = set_ok(&server.master(), &bucket, &rules);
    assert_eq!(enabled["eventNotificationRules"][0]["isSuspended"], false);
    assert_eq!(get(&server.master(), &bucket), enabled);
}

#[test]
fn reliability_i1_i3_i9_private_targets_are_refused_at_each_stage() {
    let receiver = Receiver::start();
    let port = receiver.address.rsplit_once(':').unwrap().1.to_owned();
    let with_name = format!("http://localhost:{port}/hook");
    let open = Server::start_with(&OPEN);
    let bucket = open.master().create_bucket("private-bucket");
    set_ok(
        &open.master(),
        &bucket,
        &json!([rule("rule-one", &["b2:ObjectCreated:*"], &with_name)]),
    );
    receiver.wait_for_event("b2:TestEvent");
    let own = format!("http://{}/admin/clock/advance?ms=1", open.admin);
    set_ok(&open.master(), &bucket, &json!([rule("rule-one", &["b2:ObjectCreated:*"], &own)]));
    let error = wait_for("our own listener is no webhook", || {
        list(&open)["rules"][0]["error"].as_str().map(str::to_owned)
    });
    assert_eq!(error, "the endpoint is at an address that is not allowed");
    // A name that leads to a private address is only found out when it is looked up. A rule that was
    // set while private targets were open is checked again at each attempt.
    set_ok(
        &open.master(),
        &bucket,
        &json!([rule("rule-one", &["b2:ObjectCreated:*"], &receiver.url())]),
    );
    receiver.wait_for_events("b2:TestEvent", 2);
    let mut open = open;
    open.terminate();
    let data = open.data_dir().to_owned();
    let closed = Server::start_in(&data, &["--test-controls", "--notifications-allow-http"]);
    closed.master().upload(&bucket, "f", b"content");
    let error = wait_for("the attempt is refused", || {
        list(&closed)["rules"][0]["error"].as_str().map(str::to_owned)
    });
    assert!(error.starts_with("the endpoint is at an address that is not allowed"), "{error}");
    let uploads = receiver.arrived().into_iter().flat_map(|one| one.events());
    assert_eq!(uploads.filter(|event| event["eventType"] != "b2:TestEvent").count(), 0);
    for url in [receiver.url(), with_name] {
        let rules = json!([rule("rule-one", &["b2:ObjectCreated:*"], &url)]);
        assert_eq!(set(&closed.master(), &bucket, &rules).status, 400, "{url}");
    }
}
