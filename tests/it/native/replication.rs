//! Cloud Replication on the wire: configuration, status, replicas.

use serde_json::{Value, json};

use crate::support::http::call;
use crate::support::server::{MASTER_ID, Server, Session, sha1_hex};

const SOURCE_RIGHTS: [&str; 3] = ["readFiles", "readFileLegalHolds", "readFileRetentions"];
const DESTINATION_RIGHTS: [&str; 3] = ["writeFiles", "writeFileLegalHolds", "writeFileRetentions"];

/// Two buckets, a source key and the key that the destination maps it to.
struct Pair {
    source: String,
    destination: String,
    reader: String,
    writer: String,
}

impl Pair {
    fn make(master: &Session) -> Self {
        let (source, destination) =
            (master.create_bucket("source-bucket"), master.create_bucket("target-bucket"));
        let (reader, _) = master.create_key(&SOURCE_RIGHTS, None, None);
        let (writer, _) = master.create_key(&DESTINATION_RIGHTS, None, None);
        Self { source, destination, reader, writer }
    }

    fn rule(&self, name: &str, prefix: &str) -> Value {
        json!({"destinationBucketId": self.destination, "fileNamePrefix": prefix,
            "includeExistingFiles": false, "isEnabled": true, "priority": 1,
            "replicationRuleName": name})
    }

    fn as_source(&self, rules: &[Value]) -> Value {
        json!({"asReplicationSource":
            {"replicationRules": rules, "sourceApplicationKeyId": self.reader}})
    }

    fn as_destination(&self) -> Value {
        json!({"asReplicationDestination":
            {"sourceToDestinationKeyMapping": {&self.reader: self.writer}}})
    }

    /// Files with `prefix` go from the source to the destination from now on.
    fn connect(&self, master: &Session, prefix: &str) {
        let mapped = set(master, &self.destination, &self.as_destination());
        assert_eq!(mapped.0, 200, "{mapped:?}");
        let ruled = set(master, &self.source, &self.as_source(&[self.rule("the-rule", prefix)]));
        assert_eq!(ruled.0, 200, "{ruled:?}");
    }
}

/// Sets a bucket's configuration; answers status, code and message.
fn set(session: &Session, bucket: &str, configuration: &Value) -> (u16, String, String) {
    let body = json!({"accountId": session.account, "bucketId": bucket,
        "replicationConfiguration": configuration});
    let answer = session.call("b2_update_bucket", &body);
    (answer.status, answer.code(), answer.message())
}

fn shown(session: &Session, version: u8, bucket: &str) -> Value {
    let body = json!({"accountId": session.account, "bucketId": bucket});
    let answer = session.call_version(version, "b2_list_buckets", &body);
    assert_eq!(answer.status, 200);
    answer.json()["buckets"][0]["replicationConfiguration"].clone()
}

fn refused(text: &str) -> (u16, String, String) {
    (400, "bad_request".to_owned(), text.to_owned())
}

#[test]
fn native_387_388_replication_21_22_23_35_37_wrong_configurations_are_refused_in_words() {
    let server = Server::start();
    let master = server.master();
    let pair = Pair::make(&master);
    let rules =
        |names: &[&str]| -> Vec<Value> { names.iter().map(|name| pair.rule(name, "")).collect() };
    let mut own = pair.rule("own-rule", "");
    own["destinationBucketId"] = json!(pair.source);
    let text = "destinationBucketId must not be the source bucket";
    assert_eq!(set(&master, &pair.source, &pair.as_source(&[own])), refused(text), "387");
    let two = rules(&["rule-one", "rule-two"]);
    assert_eq!(set(&master, &pair.source, &pair.as_source(&two)).0, 200, "two are allowed");
    for third_is_enabled in [true, false] {
        let mut three = rules(&["rule-one", "rule-two", "rule-three"]);
        three[2]["isEnabled"] = json!(third_is_enabled);
        let text = "a bucket may have at most 2 replication rules";
        assert_eq!(set(&master, &pair.source, &pair.as_source(&three)), refused(text), "388");
    }
    let empty = json!({"asReplicationDestination": {"sourceToDestinationKeyMapping": {}}});
    let text = "sourceToDestinationKeyMapping is empty";
    assert_eq!(set(&master, &pair.destination, &empty), refused(text));
    for unknown in ["0123456789abcdef01234567", "nonsense"] {
        let mut elsewhere = pair.rule("rule-one", "");
        elsewhere["destinationBucketId"] = json!(unknown);
        assert_eq!(
            set(&master, &pair.source, &pair.as_source(&[elsewhere])),
            (400, "bad_bucket_id".to_owned(), format!("Invalid bucketId: {unknown}"))
        );
    }
    let kept = &shown(&master, 4, &pair.source)["value"]["asReplicationSource"]["replicationRules"];
    assert_eq!(*kept, json!(two), "refused changes are none");
}

#[test]
fn replication_1_9_10_12_18_every_version_and_key_sees_the_configuration_that_is_its_to_see() {
    let server = Server::start();
    let master = server.master();
    let pair = Pair::make(&master);
    let create = |session: &Session, name: &str, configuration: Option<Value>| {
        let mut body =
            json!({"accountId": MASTER_ID, "bucketName": name, "bucketType": "allPrivate"});
        if let Some(configuration) = configuration {
            body["replicationConfiguration"] = configuration;
        }
        session.call("b2_create_bucket", &body)
    };
    let none = json!({"isClientAuthorizedToRead": true, "value": null});
    assert_eq!(create(&master, "plain-bucket", None).json()["replicationConfiguration"], none);
    let wanted = pair.as_source(&[pair.rule("the-rule", "")]);
    let made = create(&master, "ruled-bucket", Some(wanted.clone())).json();
    let bucket = made["bucketId"].as_str().unwrap();
    let both = json!({"isClientAuthorizedToRead": true, "value": {
        "asReplicationSource": wanted["asReplicationSource"], "asReplicationDestination": null}});
    for version in 1..=4 {
        assert_eq!(shown(&master, version, bucket), both, "version {version}");
    }
    let plain = master.with_key(&["writeBuckets", "listBuckets"], None, None);
    let hidden = json!({"isClientAuthorizedToRead": false, "value": null});
    assert_eq!(shown(&plain, 4, bucket), hidden);
    let answer = create(&plain, "refused-bucket", Some(wanted.clone()));
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    assert_eq!(create(&plain, "other-bucket", None).status, 200);
    let rights =
        ["listBuckets", "readBucketReplications", "writeBucketReplications", "writeBuckets"];
    let able = master.with_key(&rights, None, None);
    assert_eq!(shown(&able, 4, bucket), both);
    assert_eq!(create(&able, "able-bucket", Some(wanted)).status, 200);
}

#[test]
fn native_390_391_replication_50_to_54_60_61_status_shows_everywhere_in_the_same_way() {
    let server = Server::start();
    let master = server.master();
    let pair = Pair::make(&master);
    let before = master.upload(&pair.source, "photos/before", b"x");
    assert_eq!(before["replicationStatus"], json!(null), "50: no rule yet");
    pair.connect(&master, "photos");
    server.control("POST", "/admin/replication/hold");
    let file = master.upload(&pair.source, "photos-old/a", b"carried");
    assert_eq!(file["replicationStatus"], "pending", "51, 53: in the answer of the upload itself");
    let unmatched = master.upload(&pair.source, "Photos/a", b"x");
    assert_eq!(unmatched["replicationStatus"], json!(null), "52");

    let look = |bucket: &str, bucket_id: &str, name: &str, id: &Value, status: Option<&str>| {
        let listed = |operation: &str| {
            let body = json!({"bucketId": bucket_id, "prefix": name});
            master.ok(operation, &body)["files"][0]["replicationStatus"].clone()
        };
        let info = master.ok("b2_get_file_info", &json!({"fileId": id}));
        for seen in [
            info["replicationStatus"].clone(),
            listed("b2_list_file_names"),
            listed("b2_list_file_versions"),
        ] {
            assert_eq!(seen, json!(status), "60: lower case in JSON");
        }
        let header = status.map(str::to_uppercase);
        let by_id = format!("/b2api/v4/b2_download_file_by_id?fileId={}", id.as_str().unwrap());
        for target in [format!("/file/{bucket}/{name}"), by_id] {
            for method in ["GET", "HEAD"] {
                let auth = [("Authorization", master.token.as_str())];
                let answer = call(&server.address, method, &target, &auth, b"");
                assert_eq!(answer.status, 200);
                assert_eq!(answer.header("x-bz-replication-status"), header.as_deref(), "{target}");
            }
        }
    };
    let (source, name) = (&pair.source, "photos-old/a");
    look("source-bucket", source, name, &file["fileId"], Some("pending"));
    look("source-bucket", source, "Photos/a", &unmatched["fileId"], None);
    look("source-bucket", source, "photos/before", &before["fileId"], None);
    server.control("POST", "/admin/replication/release");
    let drained = server.control("POST", "/admin/replication/drain?timeout=20000").json();
    assert_eq!(drained["drained"], true);
    look("source-bucket", source, name, &file["fileId"], Some("completed"));
    let copies = master.ok("b2_list_file_versions", &json!({"bucketId": pair.destination}));
    assert_eq!(copies["files"].as_array().unwrap().len(), 1);
    let copy = &copies["files"][0];
    look("target-bucket", &pair.destination, name, &copy["fileId"], Some("replica"));
    assert_eq!(master.download("target-bucket/photos-old/a", &[]).body, b"carried");

    // While its rule is disabled a file shows nothing.
    let mut asleep = pair.rule("the-rule", "photos");
    asleep["isEnabled"] = json!(false);
    assert_eq!(set(&master, source, &pair.as_source(&[asleep])).0, 200);
    let slept = master.upload(source, "photos/slept", b"x");
    look("source-bucket", source, "photos/slept", &slept["fileId"], None);
}

#[test]
fn replication_56_copies_and_finished_large_files_are_carried_and_begun_ones_are_not() {
    let server = Server::start_with(&["--limits-part-size-min", "100", "--test-controls"]);
    let master = server.master();
    let pair = Pair::make(&master);
    let plain = master.upload(&pair.source, "plain", b"not carried");
    let fields = json!({"bucketId": pair.source, "fileName": "large", "contentType": "text/plain"});
    let started = master.ok("b2_start_large_file", &fields);
    let id = &started["fileId"];
    let mut sha1s = Vec::new();
    for number in [1, 2] {
        let body = vec![b'0' + number; 60_000];
        let url = master.ok("b2_get_upload_part_url", &json!({"fileId": id}));
        let target = url["uploadUrl"].as_str().unwrap().splitn(4, '/').nth(3).unwrap();
        let (number, sha1) = (number.to_string(), sha1_hex(&body));
        let headers = [
            ("Authorization", url["authorizationToken"].as_str().unwrap()),
            ("X-Bz-Part-Number", number.as_str()),
            ("X-Bz-Content-Sha1", sha1.as_str()),
        ];
        let sent = call(&server.address, "POST", &format!("/{target}"), &headers, &body);
        assert_eq!(sent.status, 200);
        sha1s.push(sha1);
    }
    // The rule comes between the beginning and the end of the large file.
    pair.connect(&master, "");
    let unfinished = master.ok("b2_list_unfinished_large_files", &json!({"bucketId": pair.source}));
    for seen in [&started, &unfinished["files"][0]] {
        assert_eq!(seen["replicationStatus"], json!(null), "begun files show nothing");
    }
    let done = master.ok("b2_finish_large_file", &json!({"fileId": id, "partSha1Array": sha1s}));
    assert_eq!(done["replicationStatus"], "pending");
    let copy = json!({"sourceFileId": plain["fileId"], "fileName": "copy"});
    assert_eq!(master.ok("b2_copy_file", &copy)["replicationStatus"], "pending");
    let drained = server.control("POST", "/admin/replication/drain?timeout=20000").json();
    assert_eq!(drained["drained"], true);
    let copies = master.ok("b2_list_file_names", &json!({"bucketId": pair.destination}));
    let shown = |at: usize, field: &str| copies["files"][at][field].clone();
    assert_eq!(copies["files"].as_array().unwrap().len(), 2);
    assert_eq!((shown(0, "fileName"), shown(1, "fileName")), (json!("copy"), json!("large")));
    assert_eq!((shown(1, "contentSha1"), shown(1, "contentMd5")), (json!("none"), json!(null)));
    assert_eq!(shown(1, "contentLength"), 120_000);
    assert_eq!(master.download("target-bucket/copy", &[]).body, b"not carried");
    let whole = master.download("target-bucket/large", &[]).body;
    assert_eq!(whole, [vec![b'1'; 60_000], vec![b'2'; 60_000]].concat());
}

#[test]
fn replication_39_43_44_keys_in_a_configuration_cannot_be_probed() {
    let server = Server::start();
    let master = server.master();
    let pair = Pair::make(&master);
    let (deleted, _) = master.create_key(&SOURCE_RIGHTS, None, None);
    master.ok("b2_delete_key", &json!({"applicationKeyId": deleted}));
    let short = json!({"accountId": MASTER_ID, "keyName": "short", "capabilities": SOURCE_RIGHTS,
        "validDurationInSeconds": 1});
    let expired = master.ok("b2_create_key", &short)["applicationKeyId"].clone();
    server.control("POST", "/admin/clock/advance?ms=1001");
    let mut answers = Vec::new();
    for key in [json!("no-such-key"), json!(deleted), expired] {
        let mut wanted = pair.as_source(&[pair.rule("the-rule", "")]);
        wanted["asReplicationSource"]["sourceApplicationKeyId"] = key.clone();
        answers.push(set(&master, &pair.source, &wanted));
        // The same ids are no trouble where they stand for keys of somebody else.
        let mapping = json!({"asReplicationDestination":
            {"sourceToDestinationKeyMapping": {key.as_str().unwrap(): pair.writer}}});
        assert_eq!(set(&master, &pair.destination, &mapping).0, 200, "43: {key}");
        let mapping = json!({"asReplicationDestination":
            {"sourceToDestinationKeyMapping": {&pair.reader: key}}});
        let (status, code, text) = set(&master, &pair.destination, &mapping);
        assert_eq!((status, code.as_str()), (400, "bad_request"), "44: {key}");
        assert!(text.starts_with("replication destination application key"), "{text}");
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "39: {answers:?}");
    assert!(answers[0].2.starts_with("replication source application key"), "{answers:?}");
}

#[test]
fn replication_228_229_controls_need_their_switch_and_figures_name_nobody() {
    let plain = Server::start_with(&[]);
    for path in [
        "/admin/replication/hold",
        "/admin/replication/release",
        "/admin/replication/step",
        "/admin/replication/drain",
        "/admin/clock/advance?ms=1",
    ] {
        let answer = plain.control("POST", path);
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    let server = Server::start();
    let master = server.master();
    let pair = Pair::make(&master);
    pair.connect(&master, "");
    master.upload(&pair.source, "a-telling-name.txt", b"x");
    server.control("POST", "/admin/replication/drain?timeout=20000");
    let figures = String::from_utf8(server.control("GET", "/metrics").body).unwrap();
    assert!(figures.contains("kiln_replication_done_total 1"), "{figures}");
    for secret in ["a-telling-name", &pair.reader, &pair.writer, MASTER_ID, "source-bucket"] {
        assert!(!figures.contains(secret), "{secret} stands in the figures");
    }
}
