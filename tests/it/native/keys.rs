//! Application keys.

use serde_json::json;

use crate::support::server::{MASTER_ID, Server};

#[test]
fn native_65_to_79_keys_are_made_as_asked_or_refused() {
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
    assert_eq!(made["capabilities"], json!(["listFiles", "readFiles"]));
    assert_eq!(made["options"], json!(["s3"]));
    assert!(made["bucketIds"].is_null() && made.get("bucketId").is_none());
    assert_eq!(made["applicationKeyId"].as_str().unwrap().len(), 25);
    assert_eq!(made["applicationKey"].as_str().unwrap().len(), 31);
    let older = master.call_version(3, "b2_create_key", &with(json!({"bucketId": bucket}))).json();
    assert_eq!(older["bucketId"], json!(bucket));
    assert!(older.get("bucketIds").is_none());
    for (change, code) in [
        (json!({"keyName": "a b"}), "bad_request"),
        (json!({"keyName": ""}), "bad_request"),
        (json!({"keyName": "k".repeat(101)}), "bad_request"),
        (json!({"capabilities": []}), "bad_request"),
        (json!({"capabilities": ["fly"]}), "bad_request"),
        (json!({"validDurationInSeconds": 0}), "bad_request"),
        (json!({"validDurationInSeconds": 86_400_000}), "bad_request"),
        (json!({"bucketIds": []}), "bad_request"),
        (json!({"bucketIds": ["0123456789abcdef01234567"]}), "bad_bucket_id"),
        (json!({"bucketIds": [bucket], "capabilities": ["writeKeys"]}), "bad_request"),
        (json!({"bucketIds": [bucket], "capabilities": ["deleteBuckets"]}), "bad_request"),
    ] {
        let answer = master.call("b2_create_key", &with(change.clone()));
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{change}");
    }
}

#[test]
fn native_83_to_92_keys_are_listed_in_pages_and_deleted_once() {
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
