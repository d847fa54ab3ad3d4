//! Cloud Replication as S3 shows it.

use serde_json::json;

use crate::support::s3::{Request, Signer, element, refused};
use crate::support::server::{MASTER_ID, Server, Session, replicated_buckets};

fn key(server: &Server, master: &Session) -> Signer {
    let (key, secret) = master.create_key(&kiln::manifest::capabilities(), None, None);
    Signer::with_key(server, key, secret)
}

fn configuration(master: &Session, bucket: &str) -> serde_json::Value {
    let asked = json!({"accountId": MASTER_ID, "bucketId": bucket});
    master.ok("b2_list_buckets", &asked)["buckets"][0]["replicationConfiguration"].clone()
}

#[test]
fn replication_135_136_137_the_rules_of_a_bucket_are_shown_and_not_set() {
    let server = Server::start();
    let master = server.master();
    let signer = key(&server, &master);
    let ask = |signer: &Signer, method: &str, bucket: &str| {
        let request = Request::new(method, &format!("/{bucket}?replication"));
        let body: &[u8] = if method == "PUT" { b"<ReplicationConfiguration/>" } else { b"" };
        signer.sign(request.body(body)).send(&server.address)
    };
    master.create_bucket("plain-bucket");
    let none = (404, "ReplicationConfigurationNotFoundError".to_owned());
    assert_eq!(refused(&ask(&signer, "GET", "plain-bucket")), none);

    let (source, destination) = replicated_buckets(&master);
    assert_eq!(refused(&ask(&signer, "GET", "replicated-copy")), none, "it is no source");
    let before = configuration(&master, &source);
    let mut wanted = before["value"].clone();
    let rule = wanted["asReplicationSource"]["replicationRules"][0].clone();
    let mut second = rule.clone();
    second["replicationRuleName"] = json!("rule-two");
    second["fileNamePrefix"] = json!("a/<b>");
    second["priority"] = json!(9);
    second["isEnabled"] = json!(false);
    second["includeExistingFiles"] = json!(true);
    wanted["asReplicationSource"]["replicationRules"] = json!([rule, second]);
    let change = json!({
        "accountId": MASTER_ID, "bucketId": source, "replicationConfiguration": wanted,
    });
    master.ok("b2_update_bucket", &change);
    let shown = ask(&signer, "GET", "replicated-source");
    assert_eq!(shown.status, 200, "{shown:?}");
    let role = wanted["asReplicationSource"]["sourceApplicationKeyId"].as_str().unwrap();
    assert_eq!(element(&shown, "Role"), role);
    let text = String::from_utf8(shown.body).unwrap();
    for (name, priority, status, prefix, existing) in [
        ("rule-one", 1, "Enabled", "<Prefix></Prefix>", "Disabled"),
        ("rule-two", 9, "Disabled", "<Prefix>a/&lt;b&gt;</Prefix>", "Enabled"),
    ] {
        let rule = format!(
            "<Rule><ID>{name}</ID><Priority>{priority}</Priority><Status>{status}</Status>\
             <Filter>{prefix}</Filter><Destination><Bucket>arn:aws:s3:::replicated-copy</Bucket>\
             </Destination><DeleteMarkerReplication><Status>Disabled</Status>\
             </DeleteMarkerReplication><ExistingObjectReplication><Status>{existing}</Status>\
             </ExistingObjectReplication></Rule>"
        );
        assert!(text.contains(&rule), "{rule}\n{text}");
    }
    // A key that is bound to the source alone is told no name of another bucket.
    let bound = ["readBucketReplications"];
    let (id, secret) = master.create_key(&bound, Some(&[&source]), None);
    let told = ask(&Signer::with_key(&server, id, secret), "GET", "replicated-source");
    let text = String::from_utf8(told.body).unwrap();
    let hidden = format!("arn:aws:s3:::{destination}<");
    assert!(text.contains(&hidden) && !text.contains("replicated-copy"), "{text}");

    let before = configuration(&master, &source);
    for method in ["PUT", "DELETE"] {
        let answer = ask(&signer, method, "replicated-source");
        assert_eq!(refused(&answer), (501, "NotImplemented".to_owned()), "{method}");
    }
    assert_eq!(configuration(&master, &source), before);
}

#[test]
fn replication_140_an_upload_that_calls_itself_a_replica_is_none() {
    let server = Server::start_with(&["--test-controls"]);
    let master = server.master();
    let (source, _) = replicated_buckets(&master);
    let signer = key(&server, &master);
    server.control("POST", "/admin/replication/hold");
    let claim = |request: Request| request.header("x-amz-replication-status", "REPLICA");
    let send = |request: Request| signer.sign(request).send(&server.address);
    let stored = send(claim(Request::new("PUT", "/replicated-source/k").body(b"content")));
    assert_eq!(stored.status, 200, "{stored:?}");
    let head = |bucket: &str| send(Request::new("HEAD", &format!("/{bucket}/k")));
    let status = |bucket: &str| head(bucket).header("x-amz-replication-status").map(str::to_owned);
    assert_eq!(status("replicated-source").as_deref(), Some("PENDING"));
    let begun = send(claim(Request::new("POST", "/replicated-source/large?uploads")));
    assert_eq!(begun.status, 200, "{begun:?}");
    server.control("POST", "/admin/replication/release");
    server.control("POST", "/admin/replication/drain?timeout=30000");
    assert_eq!(status("replicated-source").as_deref(), Some("COMPLETED"));
    assert_eq!(status("replicated-copy").as_deref(), Some("REPLICA"));
    // Where nothing is replicated, no status is told.
    master.create_bucket("plain-bucket");
    send(claim(Request::new("PUT", "/plain-bucket/k").body(b"content")));
    assert_eq!(status("plain-bucket"), None);
    let listed = master.ok("b2_list_file_names", &json!({"bucketId": source}));
    assert_eq!(listed["files"][0]["replicationStatus"], "completed");
}
