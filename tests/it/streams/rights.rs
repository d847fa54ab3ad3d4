//! The rights that calls need, generated from the table of operations.

use serde_json::{Value, json};

use super::{Client, ORG, new_remote, new_stream, prepared};
use crate::support::server::{Server, Session};

/// A client whose key has exactly these capabilities.
fn holding(server: &Server, master: &Session, capabilities: &[&str]) -> Client {
    let (id, key) = master.create_key(capabilities, None, None);
    Client::with(server, &format!("Token {id}:{key}"))
}

#[test]
fn every_call_needs_the_right_that_the_table_says() {
    let (server, client, master, remote, bucket) = prepared();
    let stream = client.stream(&new_stream("stream", &remote, &bucket));
    let stream = stream["id"].as_str().unwrap();
    let all = kiln::manifest::capabilities();
    // Of the master key alone: no key can be made with them.
    let mut tried = 0;
    for row in kiln::manifest::stream_operations() {
        let Some(needed) = row.capability else { continue };
        let others: Vec<&str> = all.iter().copied().filter(|one| *one != needed).collect();
        let id = if row.address.contains("remotes") { remote.as_str() } else { stream };
        let mut target = row.address.replace("{id}", id);
        if row.method == "GET" {
            target = format!("{target}?orgID={ORG}");
        }
        let body = match row.name {
            "PostRemoteConnection" => new_remote("never made"),
            "PostReplication" => new_stream("never made", &remote, &bucket),
            _ if row.method == "GET" => Value::Null,
            _ => json!({}),
        };
        let lacking = holding(&server, &master, &others);
        let (status, code, _) = lacking.refused(row.method, &target, &body);
        assert_eq!((status, code.as_str()), (401, "unauthorized"), "{}", row.name);
        tried += 1;
    }
    assert!(tried > 12, "{tried}");
    assert_eq!(
        client.get(&format!("/api/v2/remotes?orgID={ORG}"))["remotes"].as_array().unwrap().len(),
        1
    );
    assert_eq!(client.get(&format!("/api/v2/replications/{stream}"))["paused"], false);
}

#[test]
fn a_stream_is_made_by_whoever_may_read_its_bucket() {
    let (server, client, master, remote, bucket) = prepared();
    let body = new_stream("stream", &remote, &bucket);
    let both = ["readBucketReplications", "writeBucketReplications"];
    let blind = holding(&server, &master, &both);
    let (status, code, _) = blind.refused("POST", "/api/v2/replications", &body);
    assert_eq!((status, code.as_str()), (401, "unauthorized"));
    let other = master.create_bucket("other-bucket");
    let capabilities = [&both[..], &["readFiles"]].concat();
    let (id, key) = master.create_key(&capabilities, Some(&[&other]), None);
    let elsewhere = Client::with(&server, &format!("Token {id}:{key}"));
    let (status, ..) = elsewhere.refused("POST", "/api/v2/replications", &body);
    assert_eq!(status, 401);
    assert_eq!(client.get(&format!("/api/v2/replications?orgID={ORG}"))["replications"], json!([]));
    holding(&server, &master, &capabilities).stream(&body);
}
