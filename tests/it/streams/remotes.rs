//! Remotes: made, shown, changed, deleted.

use serde_json::{Value, json};

use super::{Client, NOWHERE, ORG, SECRET, new_remote, new_stream, prepared, with};
use crate::support::server::Server;

const REMOTES: &str = "/api/v2/remotes";

#[test]
fn replication_149_150_151_a_remote_is_made_and_its_token_is_nowhere_to_be_seen() {
    let server = Server::start_with(&["--log-level", "trace"]);
    let client = Client::of(&server);
    let list = format!("{REMOTES}?orgID={ORG}");
    assert_eq!(client.get(&list), json!({"remotes": []}), "not null");
    let body = with(
        &new_remote("offsite"),
        &json!({"description": "far away", "remoteOrgID": "abc", "allowInsecureTLS": true}),
    );
    let made = client.expect(201, "POST", REMOTES, &body);
    let id = made["id"].as_str().unwrap();
    assert_eq!(id.len(), 16);
    for (name, value) in [
        ("name", json!("offsite")),
        ("orgID", json!(ORG)),
        ("description", json!("far away")),
        ("remoteURL", json!(NOWHERE)),
        ("remoteOrgID", json!("abc")),
        ("allowInsecureTLS", json!(true)),
        ("state", json!("closed")),
        ("maxConcurrency", json!(4)),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    let at = format!("{REMOTES}/{id}");
    assert_eq!(client.get(&at), made);
    assert_eq!(client.get(&list), json!({"remotes": [made]}));
    let changed = client.expect(200, "PATCH", &at, &json!({"remoteAPIToken": "other:token"}));
    let answers = [made.to_string(), changed.to_string(), client.get(&list).to_string()];
    let wrong = with(&new_remote("wrong"), &json!({"remoteAPIToken": SECRET}));
    let (status, _, said) = client.refused("POST", REMOTES, &wrong);
    assert_eq!(status, 400, "it has no key id");
    let metrics = String::from_utf8(server.control("GET", "/metrics").body).unwrap();
    for text in answers.into_iter().chain([said, metrics, server.log()]) {
        assert!(!text.contains(SECRET), "{text}");
    }
    for missing in ["", "?orgID=", "?orgID=xyz", "?orgID=0001632adbf08ef2", "?name=offsite"] {
        let (status, code, said) =
            client.refused("GET", &format!("{REMOTES}{missing}"), &Value::Null);
        let expected = (400, "invalid", "invalid or missing org ID");
        assert_eq!((status, code.as_str(), said.as_str()), expected, "{missing}");
    }
}

#[test]
fn replication_152_a_name_is_taken_once() {
    let server = Server::start();
    let client = Client::of(&server);
    client.remote("offsite");
    let (status, code, _) = client.refused("POST", REMOTES, &new_remote("offsite"));
    assert_eq!((status, code.as_str()), (422, "conflict"));
    let other = client.remote("other");
    let change = json!({"name": "offsite"});
    let (status, code, _) = client.refused("PATCH", &format!("{REMOTES}/{other}"), &change);
    assert_eq!((status, code.as_str()), (422, "conflict"));
    let listed = client.get(&format!("{REMOTES}?orgID={ORG}"));
    assert_eq!(listed["remotes"].as_array().unwrap().len(), 2);
}

#[test]
fn replication_153_unknown_ids_are_not_found_and_malformed_ones_invalid() {
    let server = Server::start();
    let client = Client::of(&server);
    for method in ["GET", "PATCH", "DELETE"] {
        for id in ["0b000000000fffff", "7fffffffffffffff"] {
            let (status, code, said) =
                client.refused(method, &format!("{REMOTES}/{id}"), &json!({}));
            let expected = (404, "not found", "remote connection not found");
            assert_eq!((status, code.as_str(), said.as_str()), expected, "{method}");
        }
        for id in ["x", "0000000000000000", "0B000000000FFFFF", "0b000000000ffff", "%2e%2e"] {
            let (status, code, said) =
                client.refused(method, &format!("{REMOTES}/{id}"), &json!({}));
            let expected = (400, "invalid", "remote-connection ID is invalid");
            assert_eq!((status, code.as_str(), said.as_str()), expected, "{method} {id}");
        }
    }
}

#[test]
fn replication_154_a_remote_in_use_is_not_deleted() {
    let (_server, client, _, remote, bucket) = prepared();
    let stream = client.stream(&new_stream("stream", &remote, &bucket));
    let at = format!("{REMOTES}/{remote}");
    let before = client.get(&at);
    let (status, code, said) = client.refused("DELETE", &at, &Value::Null);
    let text = "remote-connection cannot be deleted as a replication references it";
    assert_eq!((status, code.as_str(), said.as_str()), (422, "conflict", text));
    let stream_at = format!("/api/v2/replications/{}", stream["id"].as_str().unwrap());
    assert_eq!((client.get(&at), client.get(&stream_at)), (before, stream));
    client.expect(204, "DELETE", &stream_at, &Value::Null);
    client.expect(204, "DELETE", &at, &Value::Null);
    assert_eq!(client.refused("GET", &at, &Value::Null).0, 404);
}

#[test]
fn a_change_leaves_what_it_does_not_name() {
    let server = Server::start();
    let client = Client::of(&server);
    let options = json!({"description": "far", "remoteOrgID": "abc", "remoteType": "s3",
        "region": "eu-1", "addressing": "virtual", "maxConcurrency": 7, "marker": "none",
        "bandwidthBytesPerSecond": 1_048_576, "partSizeBytes": 5_000_000, "paused": true,
        "multipartThresholdBytes": 6_000_000, "customTimestamps": true,
        "bandwidthWindows": [{"from": "22:00", "to": "06:00", "bytesPerSecond": 5}]});
    let made = client.expect(201, "POST", REMOTES, &with(&new_remote("offsite"), &options));
    for (name, value) in options.as_object().unwrap() {
        assert_eq!(&made[name], value, "{name}");
    }
    let at = format!("{REMOTES}/{}", made["id"].as_str().unwrap());
    let updated = |value: &Value| with(value, &json!({"updatedAt": null}));
    let changed = client.expect(200, "PATCH", &at, &json!({"name": "renamed"}));
    assert_eq!(updated(&changed), updated(&with(&made, &json!({"name": "renamed"}))));
    let change = json!({"maxConcurrency": null, "bandwidthBytesPerSecond": null,
        "bandwidthWindows": null, "paused": false, "id": "0b00000000000000", "orgID": "x",
        "nobodyKnowsThis": 1});
    let changed = client.expect(200, "PATCH", &at, &change);
    let expected = with(
        &made,
        &json!({"name": "renamed", "maxConcurrency": 4, "paused": false,
        "bandwidthBytesPerSecond": null, "bandwidthWindows": []}),
    );
    assert_eq!(updated(&changed), updated(&expected));
    assert_eq!(client.get(&at), changed);
    for wrong in [
        json!({"remoteType": "influx"}),
        json!({"maxConcurrency": 0}),
        json!({"maxConcurrency": "4"}),
        json!({"addressing": 1}),
        json!({"bandwidthWindows": [{"from": "25:00", "to": "06:00", "bytesPerSecond": 5}]}),
        json!({"bandwidthWindows": [{"from": "22:00"}]}),
        json!({"remoteURL": "ftp://x"}),
        json!({"remoteURL": "https://user:word@x"}),
        json!({"remoteAPIToken": "no-colon"}),
        json!({"name": "x".repeat(201)}),
    ] {
        let (status, code, _) = client.refused("PATCH", &at, &wrong);
        assert_eq!((status, code.as_str()), (400, "invalid"), "{wrong}");
    }
    assert_eq!(client.get(&at), changed);
}

#[test]
fn buckets_of_another_kiln_are_named_as_reached_through_a_remote() {
    let (_server, client, _, remote, bucket) = prepared();
    let at = format!("{REMOTES}/{remote}/buckets");
    assert_eq!(client.get(&at), json!({"bucketIDs": []}));
    let theirs = "4a48fe8875c6214145260818";
    let named = client.expect(201, "POST", &at, &json!({"bucketID": theirs}));
    assert_eq!(named, json!({"bucketID": theirs}));
    client.expect(201, "POST", &at, &json!({"bucketID": theirs}));
    assert_eq!(client.get(&at), json!({"bucketIDs": [theirs]}), "once is enough");
    let kept = client.refused("DELETE", &format!("{REMOTES}/{remote}"), &Value::Null);
    assert_eq!((kept.0, kept.1.as_str()), (422, "conflict"), "rules may use it");
    for (wrong, status) in [
        (json!({"bucketID": bucket}), 400),
        (json!({"bucketID": "x"}), 400),
        (json!({"bucketID": 5}), 400),
        (json!({}), 400),
    ] {
        assert_eq!(client.refused("POST", &at, &wrong).0, status, "{wrong}");
    }
    let other = client.remote("other");
    let other = format!("{REMOTES}/{other}/buckets");
    assert_eq!(client.refused("POST", &other, &json!({"bucketID": theirs})).0, 422, "one way only");
    assert_eq!(client.refused("DELETE", &at, &Value::Null).0, 400, "which one");
    let from_other = client.refused("DELETE", &format!("{other}?bucketID={theirs}"), &Value::Null);
    assert_eq!(from_other.0, 404);
    client.expect(204, "DELETE", &format!("{at}?bucketID={theirs}"), &Value::Null);
    assert_eq!(client.get(&at), json!({"bucketIDs": []}));
    client.expect(204, "DELETE", &format!("{REMOTES}/{remote}"), &Value::Null);
}
