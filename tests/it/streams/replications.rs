//! Streams: made, shown, changed, controlled, deleted.

use serde_json::{Value, json};

use super::{Client, ORG, new_stream, prepared, prepared_with, with, without};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session};
use crate::support::wait_for;

const STREAMS: &str = "/api/v2/replications";

fn at(stream: &Value) -> String {
    format!("{STREAMS}/{}", stream["id"].as_str().unwrap())
}

#[test]
fn replication_151_156_164_165_a_stream_has_the_defaults_and_both_spellings() {
    let (_server, client, _, remote, bucket) = prepared();
    let list = format!("{STREAMS}?orgID={ORG}");
    assert_eq!(client.get(&list), json!({"replications": []}));
    let made = client.stream(&new_stream("stream", &remote, &bucket));
    for (name, value) in [
        ("name", json!("stream")),
        ("orgID", json!(ORG)),
        ("remoteID", json!(remote)),
        ("localBucketID", json!(bucket)),
        ("remoteBucketID", Value::Null),
        ("remoteBucketName", json!("far-bucket")),
        ("RemoteBucketName", json!("far-bucket")),
        ("maxQueueSizeBytes", json!(67_108_860)),
        ("maxAgeSeconds", json!(604_800)),
        ("currentQueueSizeBytes", json!(0)),
        ("remainingBytesToBeSynced", json!(0)),
        ("dropNonRetryableData", json!(false)),
        ("paused", json!(false)),
        ("onQueueFull", json!("spill")),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    for absent in ["latestResponseCode", "latestErrorMessage", "description"] {
        assert!(made.get(absent).is_none(), "{absent} in {made}");
    }
    assert_eq!(client.get(&at(&made)), made);
    for filter in
        ["", "&name=stream", &format!("&remoteID={remote}"), &format!("&localBucketID={bucket}")]
    {
        assert_eq!(
            client.get(&format!("{list}{filter}")),
            json!({"replications": [made]}),
            "{filter}"
        );
    }
    for filter in ["&name=other", "&remoteID=0b000000000fffff"] {
        assert_eq!(client.get(&format!("{list}{filter}")), json!({"replications": []}), "{filter}");
    }
    for (wrong, said) in [
        ("", "invalid or missing org ID"),
        (&*format!("?orgID={ORG}&remoteID=x"), "invalid remote ID"),
        (&*format!("?orgID={ORG}&localBucketID=x"), "invalid local bucket ID"),
    ] {
        let refused = client.refused("GET", &format!("{STREAMS}{wrong}"), &Value::Null);
        assert_eq!((refused.0, refused.2.as_str()), (400, said), "{wrong}");
    }
}

#[test]
fn replication_157_a_queue_has_a_least_size() {
    let (_server, client, _, remote, bucket) = prepared();
    let body = new_stream("stream", &remote, &bucket);
    let small = with(&body, &json!({"maxQueueSizeBytes": 33_554_429}));
    let (status, code, said) = client.refused("POST", STREAMS, &small);
    let text = "maxQueueSize too small, must be at least 33554430";
    assert_eq!((status, code.as_str(), said.as_str()), (400, "invalid", text));
    let made = client.stream(&with(&body, &json!({"maxQueueSizeBytes": 33_554_430})));
    assert_eq!(made["maxQueueSizeBytes"], 33_554_430);
    let (status, _, said) = client.refused("PATCH", &at(&made), &json!({"maxQueueSizeBytes": 1}));
    assert_eq!((status, said.as_str()), (400, text));
    let (status, ..) = client.refused("POST", STREAMS, &with(&body, &json!({"maxAgeSeconds": -1})));
    assert_eq!(status, 400);
    let forever = client.expect(200, "PATCH", &at(&made), &json!({"maxAgeSeconds": 0}));
    assert_eq!(forever["maxAgeSeconds"], 0);
}

#[test]
fn replication_158_the_bucket_at_the_remote_has_a_name_or_an_id_and_not_both() {
    let (_server, client, _, remote, bucket) = prepared();
    let body = new_stream("stream", &remote, &bucket);
    for neither in
        [without(&body, "remoteBucketName"), with(&body, &json!({"remoteBucketName": ""}))]
    {
        let (status, code, said) = client.refused("POST", STREAMS, &neither);
        let text = "one of remote_bucket_id, remote_bucket_name should be provided";
        assert_eq!((status, code.as_str(), said.as_str()), (422, "unprocessable entity", text));
    }
    let both = with(&body, &json!({"remoteBucketID": "4a48fe8875c6214145260818"}));
    let (status, code, said) = client.refused("POST", STREAMS, &both);
    assert_eq!((status, code.as_str()), (400, "invalid"), "the seed: mutually exclusive");
    assert!(said.contains("mutually exclusive"), "{said}");
    let by_id = with(&both, &json!({"remoteBucketName": null}));
    let made = client.stream(&by_id);
    let shown = (&made["remoteBucketID"], &made["remoteBucketName"]);
    assert_eq!(shown, (&json!("4a48fe8875c6214145260818"), &json!("")));
    let change = json!({"RemoteBucketName": "other-bucket"});
    let changed = client.expect(200, "PATCH", &at(&made), &change);
    let shown = (&changed["remoteBucketID"], &changed["remoteBucketName"]);
    assert_eq!(shown, (&Value::Null, &json!("other-bucket")), "one takes the other's place");
}

#[test]
fn replication_159_unknown_buckets_and_remotes_are_named() {
    let (_server, client, _, remote, bucket) = prepared();
    let body = new_stream("stream", &remote, &bucket);
    let unknown = "ffffffffffffffffffffffff";
    let (status, code, said) =
        client.refused("POST", STREAMS, &with(&body, &json!({"localBucketID": unknown})));
    let text = format!("local bucket \"{unknown}\" not found");
    assert_eq!((status, code.as_str(), said), (400, "invalid", text));
    let unknown = "0b000000000fffff";
    let (status, code, said) =
        client.refused("POST", STREAMS, &with(&body, &json!({"remoteID": unknown})));
    let text = format!("remote \"{unknown}\" not found");
    assert_eq!((status, code.as_str(), said), (400, "invalid", text));
    for missing in ["name", "remoteID", "localBucketID", "orgID"] {
        let (status, ..) = client.refused("POST", STREAMS, &without(&body, missing));
        assert_eq!(status, 400, "{missing}");
    }
    for (method, id, said) in [
        ("GET", "0c000000000fffff", "replication not found"),
        ("PATCH", "0c000000000fffff", "replication not found"),
        ("DELETE", "0c000000000fffff", "replication not found"),
        ("GET", "x", "replication ID is invalid"),
        ("DELETE", "0000000000000000", "replication ID is invalid"),
    ] {
        let refused = client.refused(method, &format!("{STREAMS}/{id}"), &json!({}));
        let status = if said.ends_with("found") { 404 } else { 400 };
        assert_eq!((refused.0, refused.2.as_str()), (status, said), "{method} {id}");
    }
}

#[test]
fn replication_163_bucket_and_organization_of_a_stream_do_not_change() {
    let (_server, client, master, remote, bucket) = prepared();
    let other = master.create_bucket("another-bucket");
    let made = client.stream(&new_stream("stream", &remote, &bucket));
    let change = json!({"localBucketID": other, "orgID": "0000ffffffffffff", "name": "renamed",
        "id": "0c00000000000000", "currentQueueSizeBytes": 5, "latestResponseCode": 7});
    let changed = client.expect(200, "PATCH", &at(&made), &change);
    let expected = with(&made, &json!({"name": "renamed", "updatedAt": changed["updatedAt"]}));
    assert_eq!(changed, expected);
    assert_eq!(client.get(&at(&made)), changed);
}

#[test]
fn every_field_of_a_stream_is_kept_and_changed_by_itself() {
    let (_server, client, _, remote, bucket) = prepared();
    let options = json!({"description": "d", "maxQueueSizeBytes": 40_000_000, "maxAgeSeconds": 60,
        "dropNonRetryableData": true, "fileNamePrefix": "a/", "excludePrefixes": ["a/b", "a/c"],
        "destinationPrefix": "site/", "includeExistingFiles": true, "includeReplicas": true,
        "onQueueFull": "reject", "pinDeleted": false, "paused": true});
    let made = client.stream(&with(&new_stream("stream", &remote, &bucket), &options));
    for (name, value) in options.as_object().unwrap() {
        assert_eq!(&made[name], value, "{name}");
    }
    for change in [
        json!({"description": "e"}),
        json!({"maxQueueSizeBytes": 33_554_430}),
        json!({"dropNonRetryableData": false}),
        json!({"fileNamePrefix": ""}),
        json!({"excludePrefixes": []}),
        json!({"onQueueFull": "drop"}),
        json!({"paused": false}),
    ] {
        let before = client.get(&at(&made));
        let changed = client.expect(200, "PATCH", &at(&made), &change);
        let expected = with(&with(&before, &change), &json!({"updatedAt": changed["updatedAt"]}));
        assert_eq!(changed, expected, "{change}");
    }
    for wrong in [
        json!({"onQueueFull": "wait"}),
        json!({"pinDeleted": true}),
        json!({"excludePrefixes": "a"}),
        json!({"maxQueueSizeBytes": "40000000"}),
        json!({"maxAgeSeconds": 1.5}),
        json!({"dropNonRetryableData": 1}),
        json!({"remoteID": "x"}),
        json!({"remoteBucketID": "a b"}),
    ] {
        let (status, code, _) = client.refused("PATCH", &at(&made), &wrong);
        assert_eq!((status, code.as_str()), (400, "invalid"), "{wrong}");
    }
    let (status, code, _) =
        client.refused("POST", STREAMS, &new_stream("stream", &remote, &bucket));
    assert_eq!((status, code.as_str()), (422, "conflict"), "the name is taken");
}

#[test]
fn replication_168_streams_go_with_their_bucket() {
    let (_server, client, master, remote, bucket) = prepared();
    let made = client.stream(&new_stream("stream", &remote, &bucket));
    let file = master.upload(&bucket, "f", b"x");
    let version = json!({"fileName": "f", "fileId": file["fileId"]});
    master.ok("b2_delete_file_version", &version);
    master.ok("b2_delete_bucket", &json!({"accountId": MASTER_ID, "bucketId": bucket}));
    assert_eq!(client.refused("GET", &at(&made), &Value::Null).0, 404);
    assert_eq!(client.get(&format!("{STREAMS}?orgID={ORG}")), json!({"replications": []}));
    client.expect(204, "DELETE", &format!("/api/v2/remotes/{remote}"), &Value::Null);
}

#[test]
fn replication_169_a_stream_changes_no_replication_status() {
    let (_server, client, master, remote, bucket) = prepared();
    let made = client.stream(&new_stream("stream", &remote, &bucket));
    let file = master.upload(&bucket, "f", b"four");
    assert_eq!(file["replicationStatus"], Value::Null);
    let shown = client.get(&at(&made));
    let queued = (&shown["currentQueueSizeBytes"], &shown["remainingBytesToBeSynced"]);
    assert_eq!(queued, (&json!(260), &json!(260)), "it is in the queue all the same");
    let info = master.ok("b2_get_file_info", &json!({"fileId": file["fileId"]}));
    assert_eq!(info["replicationStatus"], Value::Null);
    let head = master.download("streamed-bucket/f", &[]);
    assert_eq!(head.header("x-bz-replication-status"), None);
}

#[test]
fn a_stream_is_paused_and_goes_on() {
    let (_server, client, _, remote, bucket) = prepared();
    let made = client.stream(&new_stream("stream", &remote, &bucket));
    let paused = client.expect(200, "POST", &format!("{}/pause", at(&made)), &Value::Null);
    assert_eq!(paused["paused"], true);
    assert_eq!(client.get(&at(&made))["paused"], true);
    let resumed = client.expect(200, "POST", &format!("{}/resume", at(&made)), &Value::Null);
    assert_eq!(resumed["paused"], false);
}

/// A stream with three files in its queue.
fn queued() -> (Server, Client, Value) {
    let (server, client, master, remote, bucket) = prepared();
    let made = client.stream(&new_stream("stream", &remote, &bucket));
    for name in ["a/1", "a/2", "b/3"] {
        master.upload(&bucket, name, b"four");
    }
    (server, client, made)
}

#[test]
fn files_of_a_stream_are_listed_page_by_page() {
    let (_server, client, made) = queued();
    let files = format!("{}/files", at(&made));
    let all = client.get(&files);
    let names: Vec<&Value> =
        all["files"].as_array().unwrap().iter().map(|file| &file["fileName"]).collect();
    assert_eq!(names, ["a/1", "a/2", "b/3"]);
    let first = &all["files"][0];
    for (name, value) in [
        ("state", json!("ready")),
        ("contentLength", json!(4)),
        ("bytesConfirmed", json!(0)),
        ("attempts", json!(0)),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    assert_eq!(all["nextAfter"], Value::Null);
    let page = client.get(&format!("{files}?limit=2"));
    assert_eq!(page["files"].as_array().unwrap().len(), 2);
    let rest = client.get(&format!("{files}?limit=2&after={}", page["nextAfter"]));
    assert_eq!(rest["files"], json!([all["files"][2]]));
    assert_eq!(client.get(&format!("{files}?state=parked"))["files"], json!([]));
    for wrong in ["?limit=0", "?limit=x", "?state=lost", "?after=x"] {
        assert_eq!(
            client.refused("GET", &format!("{files}{wrong}"), &Value::Null).0,
            400,
            "{wrong}"
        );
    }
}

#[test]
fn replication_226_a_purge_empties_the_queue_and_leaves_the_files() {
    let (server, client, made) = queued();
    let purged = client.expect(200, "POST", &format!("{}/purge", at(&made)), &Value::Null);
    assert_eq!(purged, json!({"purged": 3}));
    let shown = client.get(&at(&made));
    assert_eq!((&shown["currentQueueSizeBytes"], &shown["queuedFiles"]), (&json!(0), &json!(0)));
    let listed =
        server.master().ok("b2_list_file_names", &json!({"bucketId": made["localBucketID"]}));
    assert_eq!(listed["files"].as_array().unwrap().len(), 3);
}

#[test]
fn replication_225_a_resync_can_only_count() {
    let (_server, client, made) = queued();
    let purge = format!("{}/purge", at(&made));
    client.expect(200, "POST", &purge, &Value::Null);
    let resync = format!("{}/resync", at(&made));
    let counted = client.expect(200, "POST", &resync, &json!({"dryRun": true, "prefix": "a/"}));
    assert_eq!((&counted["files"], &counted["bytes"]), (&json!(2), &json!(8)), "{counted}");
    assert_eq!(client.get(&at(&made))["queuedFiles"], 0, "nothing is in the queue");
    for wrong in
        [json!({"dryRun": "true"}), json!({"prefix": 1}), json!({"olderThan": "yesterday"})]
    {
        assert_eq!(client.refused("POST", &resync, &wrong).0, 400, "{wrong}");
    }
}

#[test]
fn a_retry_says_how_many_files_it_found() {
    let (_server, client, made) = queued();
    let retry = format!("{}/retry", at(&made));
    assert_eq!(client.expect(200, "POST", &retry, &Value::Null), json!({"retried": 0}));
    let parked = json!({"state": "parked"});
    assert_eq!(client.expect(200, "POST", &retry, &parked), json!({"retried": 0}));
    for wrong in [json!({"state": "lost"}), json!({"fileIds": "x"}), json!({"fileIds": [1]})] {
        assert_eq!(client.refused("POST", &retry, &wrong).0, 400, "{wrong}");
    }
}

/// Another server with a bucket, and a remote that leads there; its id.
fn reached(client: &Client, far: &Server, bucket: &str) -> (Session, String, String) {
    let master = far.master();
    let there = master.create_bucket(bucket);
    let body = json!({"name": "reached", "orgID": ORG, "allowInsecureTLS": false,
        "remoteURL": format!("http://{}", far.address),
        "remoteAPIToken": format!("{MASTER_ID}:{MASTER_KEY}")});
    let made = client.expect(201, "POST", "/api/v2/remotes", &body);
    (master, there, made["id"].as_str().unwrap().to_owned())
}

#[test]
fn replication_160_161_162_a_try_says_what_would_come_of_it_and_leaves_nothing() {
    let peer = "--replication-accept-peers";
    let (server, client, master, nowhere, bucket) = prepared_with(&[peer]);
    let far = Server::start_with(&[peer]);
    let (theirs, there, remote) = reached(&client, &far, "far-bucket");
    let good = new_stream("tried", &remote, &bucket);
    let tried = format!("{STREAMS}?validate=true");
    client.expect(204, "POST", &tried, &good);
    for wrong in [
        with(&good, &json!({"remoteID": nowhere})),
        with(&good, &json!({"remoteBucketName": "not-there"})),
        with(&good, &json!({"maxQueueSizeBytes": 1})),
    ] {
        let (status, code, _) = client.refused("POST", &tried, &wrong);
        assert_eq!((status, code.as_str()), (400, "invalid"), "{wrong}");
    }
    let answer = client.refused("POST", &format!("{STREAMS}?validate=maybe"), &good);
    assert_eq!(answer.0, 400);
    assert_eq!(client.get(&format!("{STREAMS}?orgID={ORG}")), json!({"replications": []}));
    let made = client.stream(&good);
    let validate = format!("{}/validate", at(&made));
    client.expect(204, "POST", &validate, &Value::Null);
    let change = format!("{}?validate=true", at(&made));
    client.expect(204, "PATCH", &change, &json!({"remoteBucketID": there}));
    let (status, _, said) =
        client.refused("PATCH", &change, &json!({"remoteBucketName": "not-there"}));
    assert_eq!(status, 400);
    assert!(said.starts_with("validation fails after applying update"), "{said}");
    assert_eq!(client.get(&at(&made)), made, "a try changes nothing");
    let kept = theirs.ok("b2_list_file_versions", &json!({"bucketId": there}));
    assert_eq!(kept["files"], json!([]));
    let begun = theirs.ok("b2_list_unfinished_large_files", &json!({"bucketId": there}));
    assert_eq!(begun["files"], json!([]));
    let buckets = theirs.ok("b2_list_buckets", &json!({"accountId": MASTER_ID}));
    assert_eq!(buckets["buckets"].as_array().unwrap().len(), 1);
    // The bucket goes, and so does the way there.
    theirs.ok("b2_delete_bucket", &json!({"accountId": MASTER_ID, "bucketId": there}));
    let (status, _, said) = client.refused("POST", &validate, &Value::Null);
    assert_eq!(status, 400);
    assert!(said.starts_with("replication failed validation"), "{said}");
    // A server is no remote of its own.
    let own = json!({"name": "own", "orgID": ORG, "allowInsecureTLS": false,
        "remoteURL": format!("http://{}", server.address),
        "remoteAPIToken": format!("{MASTER_ID}:{MASTER_KEY}")});
    let own = client.expect(201, "POST", "/api/v2/remotes", &own);
    let name = json!({"remoteID": own["id"], "remoteBucketName": "streamed-bucket"});
    let (status, ..) = client.refused("POST", &tried, &with(&good, &name));
    assert_eq!(status, 400);
    master.create_bucket("another-bucket");
    let name = json!({"remoteID": own["id"], "remoteBucketName": "another-bucket"});
    client.expect(204, "POST", &tried, &with(&good, &name));
}

#[test]
fn replication_224_225_what_is_gone_over_there_is_found_and_carried_again() {
    let (server, client, master, _, bucket) = prepared();
    server.control("POST", "/admin/replication/release");
    let far = Server::start_with(&["--replication-accept-peers"]);
    let (theirs, there, remote) = reached(&client, &far, "far-bucket");
    let made = client.stream(&new_stream("stream", &remote, &bucket));
    for name in ["a", "b", "c"] {
        master.upload(&bucket, name, name.as_bytes());
    }
    let drain = || {
        let drained = server.control("POST", "/admin/replication/drain?timeout=20000").json();
        assert_eq!(drained["drained"], true);
    };
    drain();
    let shown = client.get(&at(&made));
    let left = (&shown["remainingBytesToBeSynced"], &shown["latestResponseCode"]);
    assert_eq!(left, (&json!(0), &json!(200)), "{shown}");
    let diff = format!("{}/diff", at(&made));
    let same = client.get(&diff);
    assert_eq!(same, json!({"compared": 3, "differences": [], "nextFrom": null}));
    let listed = theirs.ok("b2_list_file_names", &json!({"bucketId": there}));
    let gone = &listed["files"][1];
    let version = json!({"fileName": "b", "fileId": gone["fileId"]});
    theirs.ok("b2_delete_file_version", &version);
    let found = client.get(&diff);
    let difference = &found["differences"][0];
    assert_eq!(found["differences"].as_array().unwrap().len(), 1, "{found}");
    for (name, value) in [
        ("difference", json!("missing")),
        ("fileName", json!("b")),
        ("remoteFileName", json!("b")),
        ("contentLength", json!(1)),
        ("state", json!("done")),
    ] {
        assert_eq!(difference[name], value, "{name}");
    }
    assert_eq!(client.refused("GET", &format!("{diff}?from=x"), &Value::Null).0, 400);
    let resync = format!("{}/resync", at(&made));
    let counted = client.expect(200, "POST", &resync, &json!({"dryRun": true}));
    assert_eq!((&counted["files"], &counted["arrivedFiles"]), (&json!(0), &json!(3)));
    assert!(client.expect(200, "POST", &resync, &json!({}))["scanId"].is_i64());
    wait_for("it is carried again", || {
        drain();
        let listed = theirs.ok("b2_list_file_names", &json!({"bucketId": there}));
        (listed["files"].as_array().unwrap().len() == 3).then_some(())
    });
    assert_eq!(client.get(&diff)["differences"], json!([]));
}
