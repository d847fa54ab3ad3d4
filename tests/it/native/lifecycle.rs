//! Lifecycle rules on the wire, with the clock and the daily walk in the hands of the test.

use serde_json::{Value, json};

use crate::support::http::Answer;
use crate::support::server::{MASTER_ID, Server, Session};

/// A day and a bit, so that what is a day old is surely due.
const DAY_MS: i64 = 24 * 60 * 60 * 1000 + 10_000;

fn update(master: &Session, bucket: &str, rules: &Value) -> Answer {
    let body = json!({"accountId": MASTER_ID, "bucketId": bucket, "lifecycleRules": rules});
    master.call("b2_update_bucket", &body)
}

/// Moves on by a day, and waits for the walk that is due then. The token of before is worth nothing
/// after it.
fn next_day(server: &Server) -> Session {
    let moved = server.control("POST", &format!("/admin/clock/advance?ms={DAY_MS}"));
    assert_eq!(moved.status, 200);
    assert_eq!(server.control("POST", "/admin/lifecycle/walk").status, 200);
    server.master()
}

/// The versions of a bucket, each as its name and action.
fn versions(master: &Session, bucket: &str) -> Vec<(String, String)> {
    let listed = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    let text = |file: &Value, name: &str| file[name].as_str().unwrap().to_owned();
    let files = listed["files"].as_array().unwrap();
    files.iter().map(|file| (text(file, "fileName"), text(file, "action"))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, action)| ((*name).to_owned(), (*action).to_owned())).collect()
}

#[test]
fn native_130_355_to_358_rules_are_stored_echoed_replaced_cleared_or_refused() {
    let server = Server::start();
    let master = server.master();
    let rules = json!([
        {"daysFromHidingToDeleting": 7, "daysFromUploadingToHiding": null, "fileNamePrefix": "b/"},
        {"daysFromHidingToDeleting": null, "daysFromStartingToCancelingUnfinishedLargeFiles": 3,
            "daysFromUploadingToHiding": 30, "fileNamePrefix": "a/"},
    ]);
    let body = json!({"accountId": MASTER_ID, "bucketName": "ruled-bucket",
        "bucketType": "allPrivate", "lifecycleRules": rules});
    let made = master.ok("b2_create_bucket", &body);
    assert_eq!(made["lifecycleRules"], rules, "in the order given, nothing added");
    let bucket = made["bucketId"].as_str().unwrap();
    let listed = || {
        let body = json!({"accountId": MASTER_ID, "bucketId": bucket});
        master.ok("b2_list_buckets", &body)["buckets"][0].clone()
    };
    assert_eq!(listed()["lifecycleRules"], rules);
    let bare = json!([{"daysFromUploadingToHiding": 1, "fileNamePrefix": ""}]);
    let shown = json!([{"daysFromHidingToDeleting": null, "daysFromUploadingToHiding": 1,
        "fileNamePrefix": ""}]);
    assert_eq!(update(&master, bucket, &bare).json()["lifecycleRules"], shown);
    assert_eq!(update(&master, bucket, &json!(null)).json()["lifecycleRules"], shown);
    let revision = listed()["revision"].clone();
    let one = |prefix: &str| json!({"daysFromUploadingToHiding": 1, "fileNamePrefix": prefix});
    let many: Vec<Value> = (0..101).map(|at| one(&format!("{at:03}"))).collect();
    for wrong in [
        json!([{"fileNamePrefix": ""}]),
        json!([{"fileNamePrefix": "", "daysFromUploadingToHiding": null}]),
        json!([{"fileNamePrefix": "", "daysFromUploadingToHiding": 0}]),
        json!([{"fileNamePrefix": "", "daysFromHidingToDeleting": -1}]),
        json!([{"fileNamePrefix": "", "daysFromStartingToCancelingUnfinishedLargeFiles": 0}]),
        json!([{"fileNamePrefix": "", "daysFromHidingToDeleting": 2_147_483_648_i64}]),
        json!([{"daysFromUploadingToHiding": 1}]),
        json!(many),
        json!([one("a"), one("ab")]),
        json!([one("a"), one("a")]),
        json!([one(""), one("b")]),
        json!([one("b"), one("")]),
        json!({}),
    ] {
        let answer = update(&master, bucket, &wrong);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{wrong}");
    }
    assert_eq!(listed()["revision"], revision, "a refused change is none");
    assert_eq!(listed()["lifecycleRules"], shown);
    assert_eq!(update(&master, bucket, &json!([])).json()["lifecycleRules"], json!([]));
}

#[test]
fn native_359_360_361_days_pass_and_files_are_hidden_deleted_and_canceled() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("ruled-bucket");
    update(
        &master,
        &bucket,
        &json!([{"daysFromHidingToDeleting": 1, "daysFromUploadingToHiding": 1,
            "daysFromStartingToCancelingUnfinishedLargeFiles": 2, "fileNamePrefix": "x/"}]),
    );
    let content = b"content";
    master.upload(&bucket, "x/f", content);
    master.upload(&bucket, "y/f", content);
    let large = json!({"bucketId": bucket, "fileName": "x/large", "contentType": "text/plain"});
    master.ok("b2_start_large_file", &large);
    let all = pairs(&[("x/f", "upload"), ("x/large", "start"), ("y/f", "upload")]);
    assert_eq!(versions(&master, &bucket), all);
    let master = next_day(&server);
    let hidden =
        pairs(&[("x/f", "hide"), ("x/f", "upload"), ("x/large", "start"), ("y/f", "upload")]);
    assert_eq!(versions(&master, &bucket), hidden);
    assert_eq!(master.download("ruled-bucket/x/f", &[]).status, 404);
    let master = next_day(&server);
    assert_eq!(versions(&master, &bucket), pairs(&[("y/f", "upload")]));
    let unfinished = master.ok("b2_list_unfinished_large_files", &json!({"bucketId": bucket}));
    assert_eq!(unfinished["files"], json!([]));
    assert_eq!(master.download("ruled-bucket/y/f", &[]).body, content);
    let figures = String::from_utf8(server.control("GET", "/metrics").body).unwrap();
    for figure in ["walks_total 2", "hidden_total 1", "deleted_total 2", "canceled_total 1"] {
        let line = format!("kiln_lifecycle_{figure}\n");
        assert!(figures.contains(&line), "{figure}");
    }
}

#[test]
fn native_359_the_worker_walks_by_itself_when_the_day_has_come() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("ruled-bucket");
    let rules = json!([{"daysFromUploadingToHiding": 1, "fileNamePrefix": ""}]);
    update(&master, &bucket, &rules);
    master.upload(&bucket, "f", b"x");
    server.control("POST", &format!("/admin/clock/advance?ms={DAY_MS}"));
    let master = server.master();
    crate::support::wait_for("the worker hides the file", || {
        (versions(&master, &bucket).len() == 2).then_some(())
    });
    assert_eq!(versions(&master, &bucket), pairs(&[("f", "hide"), ("f", "upload")]));
}
