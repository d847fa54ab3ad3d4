//! The receiving side of the peer protocol: what a kiln takes from another one.
//!
//! The tests speak as the sending server would, so that they can also say what it never says.

use std::collections::BTreeMap;

use md5::Md5;
use serde_json::{Value, json};
use sha1::Digest as _;

use crate::streams::{Client, ORG, new_stream, with};
use crate::support::http::{Answer, call};
use crate::support::receiver::Receiver;
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session, sha1_hex};
use crate::support::wait_for;

/// A server that is not ours, as far as the tested one can tell.
const SENDER: &str = "feedfeedfeedfeed";
const TIME: i64 = 1_641_308_478_000;

fn start() -> Server {
    Server::start_with(&["--test-controls", "--replication-accept-peers"])
}

/// The id of a file of the sender: `number` has up to 15 hex digits.
fn foreign_id(number: u64) -> String {
    format!(
        "4_z8d625eb63be2775577c70e1a_f1{number:015x}_d20220104_m150118_c000_v0000000_t0000_u0{TIME}"
    )
}

/// What a sender says of a replica.
struct Mark {
    headers: BTreeMap<&'static str, String>,
}

fn mark(number: u64) -> Mark {
    mark_of(SENDER, number, TIME)
}

fn mark_of(instance: &str, number: u64, time: i64) -> Mark {
    let headers = [
        ("X-Replica-Origin", format!("{instance}.{}", foreign_id(number))),
        ("X-Replica-Timestamp", time.to_string()),
        ("X-Replica-Hops", instance.to_owned()),
    ];
    Mark { headers: headers.into_iter().collect() }
}

impl Mark {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.to_owned());
        self
    }

    fn without(mut self, name: &'static str) -> Self {
        self.headers.remove(name);
        self
    }

    fn pairs<'m>(&'m self, more: &[(&'m str, &'m str)]) -> Vec<(&'m str, &'m str)> {
        let said = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        said.chain(more.iter().copied()).collect()
    }
}

fn send(session: &Session, bucket: &str, name: &str, body: &[u8], mark: &Mark) -> Answer {
    session.try_upload(bucket, name, body, &mark.pairs(&[("Content-Type", "text/x-kept")]))
}

fn stored(session: &Session, bucket: &str, name: &str, body: &[u8], mark: &Mark) -> Value {
    let answer = send(session, bucket, name, body, mark);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn versions(session: &Session, bucket: &str) -> Vec<Value> {
    let body = json!({"bucketId": bucket, "maxFileCount": 1000});
    let listed = session.ok("b2_list_file_versions", &body);
    listed["files"].as_array().unwrap().clone()
}

fn said(answer: &Answer) -> (u16, String, String) {
    (answer.status, answer.code(), answer.message())
}

fn instance_of(server: &Server) -> String {
    let answer = call(&server.address, "GET", "/api/v2/instance", &[], b"");
    answer.json()["instanceId"].as_str().unwrap().to_owned()
}

/// A JSON call with more headers.
fn call_with(session: &Session, operation: &str, body: &Value, more: &[(&str, &str)]) -> Answer {
    let mut headers = vec![("Authorization", session.token.as_str())];
    headers.extend_from_slice(more);
    let target = format!("/b2api/v4/{operation}");
    call(&session.address, "POST", &target, &headers, body.to_string().as_bytes())
}

fn begin_large(session: &Session, bucket: &str, name: &str, mark: &Mark) -> Answer {
    let body = json!({"bucketId": bucket, "fileName": name, "contentType": "text/x-kept",
        "fileInfo": {"large_file_sha1": "00112233445566778899aabbccddeeff00112233"}});
    call_with(session, "b2_start_large_file", &body, &mark.pairs(&[]))
}

fn send_part(session: &Session, file: &str, number: u32, body: &[u8]) {
    let pair = session.ok("b2_get_upload_part_url", &json!({"fileId": file}));
    let url = pair["uploadUrl"].as_str().unwrap();
    let target = format!("/{}", url.splitn(4, '/').nth(3).unwrap());
    let (number, sha1) = (number.to_string(), sha1_hex(body));
    let headers = [
        ("Authorization", pair["authorizationToken"].as_str().unwrap()),
        ("X-Bz-Part-Number", number.as_str()),
        ("X-Bz-Content-Sha1", sha1.as_str()),
    ];
    let answer = call(&session.address, "POST", &target, &headers, body);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
}

fn finish(session: &Session, file: &str, parts: &[&[u8]], mark: Option<&Mark>) -> Answer {
    let sha1s: Vec<String> = parts.iter().map(|part| sha1_hex(part)).collect();
    let body = json!({"fileId": file, "partSha1Array": sha1s});
    let more = mark.map(|mark| mark.pairs(&[])).unwrap_or_default();
    call_with(session, "b2_finish_large_file", &body, &more)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

#[test]
fn a_server_says_who_it_is_and_whether_it_takes_replicas() {
    let (open, closed) = (start(), Server::start());
    for (server, accepts) in [(&open, true), (&closed, false)] {
        let answer = call(&server.address, "GET", "/api/v2/instance", &[], b"");
        assert_eq!(answer.status, 200);
        let told = answer.json();
        assert_eq!(told["acceptsPeers"], json!(accepts));
        assert_eq!(told["product"], json!("kiln"));
        assert_eq!(text(&told, "instanceId").len(), 16);
        assert!(!text(&told, "version").is_empty());
        assert_eq!(told.as_object().unwrap().len(), 4, "and nothing else: {told}");
    }
    assert_ne!(instance_of(&open), instance_of(&closed));
    let wrong = call(&open.address, "POST", "/api/v2/instance", &[], b"{}");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
    let unknown = call(&open.address, "GET", "/api/v2/nothing", &[], b"");
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "not_found"));
}

#[test]
fn replication_98_100_101_102_113_114_a_replica_from_a_peer_is_as_its_source() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let long = format!("{}{}", format!("{}/", "n".repeat(249)).repeat(4), "n".repeat(24));
    assert_eq!(long.len(), 1024);
    let cases: [(&str, &str, &[u8]); 4] = [
        ("a%25%2B%20%F0%9F%98%80.txt", "a%+ \u{1f600}.txt", b"some bytes"),
        ("empty", "empty", b""),
        ("one", "one", b"1"),
        (&long, &long, b"long"),
    ];
    for (number, (encoded, name, body)) in cases.into_iter().enumerate() {
        let mark = mark(number as u64 + 1);
        let more = [
            ("Content-Type", "text/x-kept"),
            ("X-Bz-Info-src_last_modified_millis", "123"),
            ("X-Bz-Info-b2-cache-control", "max-age=5"),
        ];
        let answer = master.try_upload(&bucket, encoded, body, &mark.pairs(&more));
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let file = answer.json();
        assert_eq!(file["fileName"], json!(name));
        assert_eq!(file["action"], json!("upload"), "102");
        assert_eq!(file["uploadTimestamp"], json!(TIME), "100");
        assert_eq!(file["replicationStatus"], json!("replica"));
        assert_eq!(file["contentSha1"], json!(sha1_hex(body)));
        assert_eq!(file["contentMd5"], json!(hex::encode(Md5::digest(body))));
        assert_eq!(file["contentType"], json!("text/x-kept"));
        let info = json!({"b2-cache-control": "max-age=5", "src_last_modified_millis": "123"});
        assert_eq!(file["fileInfo"], info, "nothing of the origin is in it");
        let id = text(&file, "fileId");
        assert_ne!(id, foreign_id(number as u64 + 1));
        assert!(id.contains(&bucket) && id.ends_with(&format!("_u0{TIME}")), "101: {id}");
        let shown = master.download(&format!("from-peers/{encoded}"), &[]);
        assert_eq!((shown.status, shown.body.as_slice()), (200, body));
        assert_eq!(shown.header("x-bz-replication-status"), Some("REPLICA"));
        assert_eq!(shown.header("x-bz-upload-timestamp"), Some(TIME.to_string().as_str()));
    }
}

#[test]
fn replication_99_an_unverified_sha1_stays_so_and_is_compared_all_the_same() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let sha1 = format!("unverified:{}", sha1_hex(b"content"));
    let headers = |mark: &Mark, sha1: &str| {
        master.try_upload(&bucket, "f", b"content", &mark.pairs(&[("X-Bz-Content-Sha1", sha1)]))
    };
    let answer = headers(&mark(1), &sha1);
    assert_eq!(answer.json()["contentSha1"], json!(sha1));
    let wrong = format!("unverified:{}", sha1_hex(b"other"));
    let refused = headers(&mark(2), &wrong);
    let expected = (400, "bad_request".to_owned(), "Sha1 did not match data received".to_owned());
    assert_eq!(said(&refused), expected);
    assert_eq!(versions(&master, &bucket).len(), 1);
    let plain = master.try_upload(&bucket, "g", b"content", &[("X-Bz-Content-Sha1", &wrong)]);
    assert_eq!(plain.json()["contentSha1"], json!(sha1), "an ordinary upload leaves it to us");
}

#[test]
fn replicas_are_taken_only_where_peers_are_accepted_and_from_who_may_write() {
    let closed = Server::start();
    let master = closed.master();
    let bucket = master.create_bucket("from-peers");
    let answer = send(&master, &bucket, "f", b"x", &mark(1));
    assert_eq!((answer.status, answer.code().as_str()), (403, "access_denied"));
    assert!(answer.message().contains("replication.accept_peers"), "{}", answer.message());
    let begun = begin_large(&master, &bucket, "f", &mark(1));
    assert_eq!((begun.status, begun.code().as_str()), (403, "access_denied"));
    assert!(versions(&master, &bucket).is_empty(), "refused, not stored as something else");

    let open = start();
    let master = open.master();
    let bucket = master.create_bucket("from-peers");
    let reader = master.with_key(&["readFiles", "listFiles"], None, None);
    let begun = begin_large(&reader, &bucket, "f", &mark(1));
    assert_eq!((begun.status, begun.code().as_str()), (401, "unauthorized"));
    let narrow = master.with_key(&["writeFiles"], Some(&[&bucket]), Some("only/"));
    let answer = send(&narrow, &bucket, "elsewhere", b"x", &mark(1));
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    assert_eq!(send(&narrow, &bucket, "only/here", b"x", &mark(1)).status, 200);
}

#[test]
fn what_a_peer_says_of_a_replica_is_read_strictly() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let too_many = ["X-Replica-Hops", "a,b,c,d,e"];
    let wrong = [
        mark(1).without("X-Replica-Origin"),
        mark(1).without("X-Replica-Timestamp"),
        mark(1).without("X-Replica-Hops"),
        mark(1).with("X-Replica-Origin", "no-origin"),
        mark(1).with("X-Replica-Timestamp", "-1"),
        mark(1).with("X-Replica-Timestamp", "100000000000000"),
        mark(1).with("X-Replica-Hops", "a,,b"),
        mark(1).with("X-Bz-Custom-Upload-Timestamp", "5"),
    ];
    for mark in &wrong {
        let answer = send(&master, &bucket, "f", b"x", mark);
        let shown = format!("{:?}: {:?}", mark.headers, said(&answer));
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{shown}");
    }
    let mut only_key = mark(1).with("X-Replica-Source-Key", "k");
    only_key.headers.retain(|name, _| *name == "X-Replica-Source-Key");
    assert_eq!(send(&master, &bucket, "f", b"x", &only_key).status, 400);
    let looped = mark(1).with(too_many[0], too_many[1]);
    assert_eq!(send(&master, &bucket, "f", b"x", &looped).code(), "replication_loop");
    assert!(versions(&master, &bucket).is_empty());
}

#[test]
fn f53_a_replica_that_was_here_or_came_too_far_is_refused_as_a_loop_and_counted() {
    let server = start();
    let master = server.master();
    let (bucket, own) = (master.create_bucket("from-peers"), instance_of(&server));
    let been_here = mark(1).with("X-Replica-Hops", &format!("{SENDER},{own},third"));
    let born_here = mark_of(&own, 2, TIME).with("X-Replica-Hops", SENDER);
    let too_far = mark(3).with("X-Replica-Hops", "a,b,c,d,e");
    for mark in [been_here, born_here, too_far] {
        let answer = send(&master, &bucket, "f", b"x", &mark);
        assert_eq!((answer.status, answer.code().as_str()), (409, "replication_loop"));
        let begun = begin_large(&master, &bucket, "f", &mark);
        assert_eq!((begun.status, begun.code().as_str()), (409, "replication_loop"));
    }
    assert!(versions(&master, &bucket).is_empty());
    let metrics = server.control("GET", "/metrics");
    let metrics = String::from_utf8(metrics.body).unwrap();
    // Uploads are checked before the body and again with it.
    let count = metrics.lines().find_map(|line| {
        line.strip_prefix("kiln_replication_loops_refused_total ")?.parse::<u64>().ok()
    });
    assert_eq!(count, Some(6), "{metrics}");
    let four = mark(4).with("X-Replica-Hops", "a,b,c,d");
    assert_eq!(send(&master, &bucket, "f", b"x", &four).status, 200);
}

#[test]
fn replication_205_a_replica_that_is_sent_again_is_answered_and_not_stored_again() {
    let server = start();
    let master = server.master();
    let (bucket, other) = (master.create_bucket("from-peers"), master.create_bucket("other-one"));
    let first = stored(&master, &bucket, "f", b"x", &mark(1));
    let again = stored(&master, &bucket, "f", b"x", &mark(1));
    assert_eq!(again, first);
    let elsewhere = stored(&master, &other, "f", b"x", &mark(1));
    assert_ne!(elsewhere["fileId"], first["fileId"], "each bucket has its own");
    assert_eq!(versions(&master, &bucket).len(), 1);
    let gone = json!({"fileName": "f", "fileId": first["fileId"]});
    master.ok("b2_delete_file_version", &gone);
    let anew = stored(&master, &bucket, "f", b"x", &mark(1));
    assert_ne!(anew["fileId"], first["fileId"], "what was removed can be sent again");
    assert_eq!(versions(&master, &bucket).len(), 1);
}

#[test]
fn replication_205_replicas_that_are_sent_at_the_same_time_are_stored_once() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let body = vec![7_u8; 300_000];
    for round in 1..=5 {
        let ids: Vec<String> = std::thread::scope(|scope| {
            let send = || {
                let file = stored(&master, &bucket, "f", &body, &mark(round));
                text(&file, "fileId").to_owned()
            };
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(send)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(versions(&master, &bucket).len() as u64, round);
    }
    let usage = server.control("GET", "/metrics");
    let usage = String::from_utf8(usage.body).unwrap();
    assert!(usage.contains("kiln_replication_received_total 5\n"), "{usage}");
}

#[test]
fn replication_129_131_132_replicas_stand_where_their_time_puts_them() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let time = |n: u64, time: i64| mark_of(SENDER, n, time);
    stored(&master, &bucket, "f", b"third", &time(3, TIME + 2));
    stored(&master, &bucket, "f", b"first", &time(1, TIME));
    stored(&master, &bucket, "f", b"second", &time(2, TIME + 1));
    let order = |name: &str| -> Vec<i64> {
        let all = versions(&master, &bucket);
        let of_name = all.iter().filter(|file| file["fileName"] == json!(name));
        of_name.map(|file| file["uploadTimestamp"].as_i64().unwrap() - TIME).collect()
    };
    assert_eq!(order("f"), [2, 1, 0], "129");
    assert_eq!(master.download("from-peers/f", &[]).body, b"third", "131");
    master.upload(&bucket, "hidden", b"local");
    master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "hidden"}));
    stored(&master, &bucket, "hidden", b"older", &time(4, TIME));
    assert_eq!(master.download("from-peers/hidden", &[]).status, 404, "132");
    master.upload(&bucket, "f", b"local and newest");
    stored(&master, &bucket, "f", b"late", &time(5, TIME + 1));
    assert_eq!(master.download("from-peers/f", &[]).body, b"local and newest");
}

/// Two servers store a version of one name in the same millisecond under the same number, which
/// happens since numbers are made of the time.
#[test]
fn f52_replication_130_two_servers_show_the_same_version_of_the_same_millisecond() {
    let (one, two) = (start(), start());
    let ids = [instance_of(&one), instance_of(&two)];
    let mut shown = Vec::new();
    let mut listed = Vec::new();
    for (server, orders) in [(&one, ["a", "b", "c"]), (&two, ["c", "b", "a"])] {
        let master = server.master();
        let bucket = master.create_bucket("from-peers");
        // The same versions of three other servers, which arrive in different orders.
        for instance in orders {
            stored(&master, &bucket, "f", instance.as_bytes(), &mark_of(instance, 9, TIME));
        }
        stored(&master, &bucket, "g", b"lower", &mark_of("z", 18, TIME));
        stored(&master, &bucket, "g", b"higher", &mark_of("a", 19, TIME));
        shown.push((
            master.download("from-peers/f", &[]).body,
            master.download("from-peers/g", &[]).body,
        ));
        let sha1s = |file: &Value| text(file, "contentSha1").to_owned();
        listed.push(versions(&master, &bucket).iter().map(sha1s).collect::<Vec<_>>());
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(shown[0], (b"c".to_vec(), b"higher".to_vec()));
    assert_eq!(shown[0], shown[1]);
    assert_eq!(listed[0].len(), 5, "nothing is lost");
    assert_eq!(listed[0][0], listed[1][0]);
}

/// What one server has of its own, the other has from it: both must agree.
#[test]
fn f52_replication_130_a_local_version_and_a_replica_of_one_millisecond_are_ordered_by_their_servers()
 {
    let arguments =
        ["--test-controls", "--replication-accept-peers", "--uploads-custom-timestamps"];
    let server = Server::start_with(&arguments);
    let (master, own) = (server.master(), instance_of(&server));
    let bucket = master.create_bucket("from-peers");
    let time = TIME.to_string();
    for (name, sender) in [("above", "zz"), ("below", "00")] {
        let more = [("X-Bz-Custom-Upload-Timestamp", time.as_str())];
        let local = master.try_upload(&bucket, name, b"local", &more).json();
        // The sender's version has the very number that ours has.
        let digits = text(&local, "fileId").split("_f").nth(1).unwrap();
        let number = u64::from_str_radix(digits.get(1..16).unwrap(), 16).unwrap();
        stored(&master, &bucket, name, b"replica", &mark_of(sender, number, TIME));
        let shown = master.download(&format!("from-peers/{name}"), &[]).body;
        let expected: &[u8] = if sender > own.as_str() { b"replica" } else { b"local" };
        assert_eq!(shown, expected, "{name}");
    }
    assert_eq!(versions(&master, &bucket).len(), 4);
}

#[test]
fn f51_replication_75_112_a_replica_from_a_peer_starts_no_rule_and_is_told_as_one() {
    let receiver = Receiver::start();
    let arguments = [
        "--test-controls",
        "--replication-accept-peers",
        "--notifications-allow-private-targets",
        "--notifications-allow-http",
    ];
    let server = Server::start_with(&arguments);
    let master = server.master();
    let (source, copies) = crate::support::server::replicated_buckets(&master);
    let rule = json!({"name": "all-of-it", "isEnabled": true, "objectNamePrefix": "",
        "eventTypes": ["b2:ObjectCreated:*"],
        "targetConfiguration": {"targetType": "webhook", "url": receiver.url()}});
    let body = json!({"bucketId": source, "eventNotificationRules": [rule]});
    master.ok("b2_set_bucket_notification_rules", &body);
    stored(&master, &source, "small", b"x", &mark(1));
    let parts: [&[u8]; 2] = [b"one", b"two"];
    let begun = begin_large(&master, &source, "large", &mark(2)).json();
    let id = text(&begun, "fileId");
    send_part(&master, id, 1, parts[0]);
    send_part(&master, id, 2, parts[1]);
    let finished = finish(&master, id, &parts, Some(&mark(2)));
    assert_eq!(finished.json()["replicationStatus"], json!("replica"));
    let drained = server.control("POST", "/admin/replication/drain?timeout=10000");
    assert_eq!(drained.status, 200, "{}", String::from_utf8_lossy(&drained.body));
    assert!(versions(&master, &copies).is_empty(), "no rule takes it on");
    for kind in ["b2:ObjectCreated:MultipartReplica", "b2:ObjectCreated:Replica"] {
        assert_eq!(receiver.wait_for_events(kind, 1).len(), 1, "112");
    }
    let told: Vec<Value> = receiver
        .arrived()
        .iter()
        .flat_map(super::super::support::receiver::Arrived::events)
        .collect();
    let told = told.iter().filter(|event| text(event, "eventType") != "b2:TestEvent").count();
    assert_eq!(told, 2, "and of nothing else");
}

#[test]
fn replication_103_a_large_replica_keeps_the_parts_of_its_source() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    // Shorter than what an uploader's parts may be: the source has them so.
    let parts: [&[u8]; 3] = [b"first", b"the second", b"3"];
    let begun = begin_large(&master, &bucket, "large", &mark(1));
    assert_eq!(begun.status, 200, "{:?}", said(&begun));
    let begun = begun.json();
    assert_eq!(begun["uploadTimestamp"], json!(TIME));
    let id = text(&begun, "fileId");
    for (number, part) in (1..).zip(parts) {
        send_part(&master, id, number, part);
    }
    let unfinished = json!({"bucketId": bucket});
    assert_eq!(versions(&master, &bucket)[0]["action"], json!("start"));
    assert_eq!(master.download("from-peers/large", &[]).status, 404);
    let file = finish(&master, id, &parts, Some(&mark(1)));
    assert_eq!(file.status, 200, "{:?}", said(&file));
    let file = file.json();
    assert_eq!(text(&file, "fileId"), id, "the id stays");
    assert_eq!(file["uploadTimestamp"], json!(TIME));
    assert_eq!(file["replicationStatus"], json!("replica"));
    assert_eq!((&file["contentSha1"], &file["contentMd5"]), (&json!("none"), &json!(null)));
    assert_eq!(master.download("from-peers/large", &[]).body, parts.concat());
    let left = master.ok("b2_list_unfinished_large_files", &unfinished);
    assert_eq!(left["files"], json!([]));
    // One part alone is what S3 clients may have made, and no more than that is refused.
    let begun = begin_large(&master, &bucket, "single", &mark(2)).json();
    send_part(&master, text(&begun, "fileId"), 1, b"all");
    let single = finish(&master, text(&begun, "fileId"), &[b"all"], Some(&mark(2)));
    assert_eq!(single.status, 200, "{:?}", said(&single));
    let local = master.ok(
        "b2_start_large_file",
        &json!({"bucketId": bucket, "fileName": "own", "contentType": "b2/x-auto"}),
    );
    send_part(&master, text(&local, "fileId"), 1, b"all");
    let refused = finish(&master, text(&local, "fileId"), &[b"all"], None);
    assert_eq!(refused.status, 400, "of an ordinary upload the parts are checked as ever");
}

#[test]
fn f20_replication_205_a_large_replica_that_is_finished_again_is_answered() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let parts: [&[u8]; 2] = [b"first", b"second"];
    let upload = |name: &str| {
        let begun = begin_large(&master, &bucket, name, &mark(1)).json();
        let id = text(&begun, "fileId").to_owned();
        send_part(&master, &id, 1, parts[0]);
        send_part(&master, &id, 2, parts[1]);
        id
    };
    // Two workers are at it, neither knows of the other.
    let (one, two) = (upload("f"), upload("f"));
    assert_ne!(one, two);
    let wrong = finish(&master, &one, &parts, Some(&mark(2)));
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "bad_request"), "another origin");
    let first = finish(&master, &one, &parts, Some(&mark(1))).json();
    assert_eq!(text(&first, "fileId"), one);
    for id in [&one, &two, &two] {
        let again = finish(&master, id, &parts, Some(&mark(1)));
        assert_eq!((again.status, again.json()), (200, first.clone()), "the answer was lost");
    }
    let begun = begin_large(&master, &bucket, "f", &mark(1));
    assert_eq!((begun.status, begun.json()), (200, first.clone()), "there is nothing to begin");
    assert_eq!(
        versions(&master, &bucket),
        std::slice::from_ref(&first),
        "and nothing is left unfinished"
    );
    let plain = finish(&master, &one, &parts, None);
    assert_eq!((plain.status, plain.code().as_str()), (400, "bad_request"));
    // What was not begun as a replica does not become one.
    let body = json!({"bucketId": bucket, "fileName": "own", "contentType": "b2/x-auto"});
    let own = master.ok("b2_start_large_file", &body);
    send_part(&master, text(&own, "fileId"), 1, b"x");
    let refused = finish(&master, text(&own, "fileId"), &[b"x"], Some(&mark(3)));
    assert_eq!((refused.status, refused.code().as_str()), (400, "bad_request"));
}

#[test]
fn a_cancelled_large_replica_can_be_begun_again() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let begun = begin_large(&master, &bucket, "f", &mark(1)).json();
    send_part(&master, text(&begun, "fileId"), 1, b"x");
    master.ok("b2_cancel_large_file", &json!({"fileId": begun["fileId"]}));
    assert!(versions(&master, &bucket).is_empty());
    let again = begin_large(&master, &bucket, "f", &mark(1));
    assert_eq!((again.status, &again.json()["action"]), (200, &json!("start")));
}

#[test]
fn replication_104_105_a_replica_from_a_peer_has_the_lock_of_its_source() {
    let server = start();
    let master = server.master();
    let plain = master.create_bucket("plain-bucket");
    let locked = json!({"accountId": master.account, "bucketName": "locked-bucket",
        "bucketType": "allPrivate", "fileLockEnabled": true});
    let locked = text(&master.ok("b2_create_bucket", &locked), "bucketId").to_owned();
    let default = json!({"accountId": master.account, "bucketId": locked,
        "defaultRetention": {"mode": "governance", "period": {"duration": 2, "unit": "days"}}});
    master.ok("b2_update_bucket", &default);
    // A retention of the source that is over by now.
    let over = (TIME + 1000).to_string();
    let lock = [
        ("X-Bz-File-Retention-Mode", "compliance"),
        ("X-Bz-File-Retention-Retain-Until-Timestamp", over.as_str()),
        ("X-Bz-File-Legal-Hold", "off"),
    ];
    let file = master.try_upload(&locked, "f", b"x", &mark(1).pairs(&lock));
    assert_eq!(file.status, 200, "{:?}", said(&file));
    let file = file.json();
    let retention = json!({"mode": "compliance", "retainUntilTimestamp": TIME + 1000});
    assert_eq!(file["fileRetention"]["value"], retention, "104");
    assert_eq!(file["legalHold"]["value"], json!("off"));
    let without = stored(&master, &locked, "g", b"x", &mark(2));
    let until = without["fileRetention"]["value"]["retainUntilTimestamp"].as_i64().unwrap();
    let day = 86_400_000;
    let begun = until - 2 * day;
    assert!(begun > TIME + 365 * day, "105: counted from now, not from {TIME}: {until}");
    let refused = master.try_upload(&plain, "f", b"x", &mark(3).pairs(&lock));
    assert_eq!((refused.status, refused.code().as_str()), (400, "bucket_missing_file_lock"));
    let weak = master.with_key(&["writeFiles"], None, None);
    let refused = weak.try_upload(&locked, "f", b"x", &mark(3).pairs(&lock));
    assert_eq!((refused.status, refused.code().as_str()), (401, "unauthorized"));
}

#[test]
fn replication_82_84_86_90_92_a_rule_of_a_peer_goes_by_the_mapping_here() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let rights = ["writeFiles", "writeFileLegalHolds", "writeFileRetentions"];
    let (whole, _) = master.create_key(&rights, None, None);
    let (weak, _) = master.create_key(&["writeFiles"], None, None);
    let (narrow, _) = master.create_key(&rights, Some(&[&bucket]), Some("only/"));
    let (deleted, _) = master.create_key(&rights, None, None);
    master.ok("b2_delete_key", &json!({"applicationKeyId": deleted}));
    let rule = |n: u64| mark(n).with("X-Replica-Source-Key", "000feedfeedfeed0000000001");
    let map = |to: Option<&str>| {
        let side = to
            .map(|to| json!({"sourceToDestinationKeyMapping": {"000feedfeedfeed0000000001": to}}));
        let body = json!({"accountId": master.account, "bucketId": bucket,
            "replicationConfiguration": {"asReplicationDestination": side}});
        master.call("b2_update_bucket", &body)
    };
    let refused = |reason: &str| (403, "replication_refused".to_owned(), reason.to_owned());
    let sent = || said(&send(&master, &bucket, "f", b"x", &rule(1)));
    assert_eq!(sent(), refused("mapping_missing"), "84");
    let begun = begin_large(&master, &bucket, "f", &rule(1));
    assert_eq!(said(&begun), refused("mapping_missing"));
    assert_eq!(map(Some(&whole)).status, 200);
    assert_eq!(send(&master, &bucket, "f", b"x", &rule(1)).status, 200, "86");
    master.ok("b2_delete_key", &json!({"applicationKeyId": whole}));
    let again = send(&master, &bucket, "f", b"x", &rule(1));
    assert_eq!(again.status, 200, "what is here already needs no key");
    assert_eq!(said(&send(&master, &bucket, "f", b"x", &rule(2))), refused("dest_key_deleted"));
    // A mapping names no wrong key when it is made, but keys come and go.
    assert_eq!(map(Some(&weak)).status, 200);
    assert_eq!(said(&send(&master, &bucket, "f", b"x", &rule(2))), refused("dest_key_no_right"));
    assert_eq!(map(Some(&narrow)).status, 200);
    assert_eq!(said(&send(&master, &bucket, "f", b"x", &rule(2))), refused("dest_key_scope"));
    assert_eq!(send(&master, &bucket, "only/f", b"x", &rule(2)).status, 200);
    assert_eq!(map(Some(&deleted)).status, 400, "as ever");
    // Begun while the mapping was there, finished after it had gone.
    let begun = begin_large(&master, &bucket, "only/large", &rule(3)).json();
    send_part(&master, text(&begun, "fileId"), 1, b"x");
    assert_eq!(map(None).status, 200);
    let finished = finish(&master, text(&begun, "fileId"), &[b"x"], Some(&rule(3)));
    assert_eq!(said(&finished), refused("mapping_missing"));
    let (owner, _) = master.create_key(&rights, None, None);
    assert_eq!(map(Some(&owner)).status, 200);
    let lock = [("X-Bz-File-Legal-Hold", "on")];
    let locked = master.try_upload(&bucket, "l", b"x", &rule(4).pairs(&lock));
    assert_eq!((locked.status, locked.code().as_str()), (400, "bucket_missing_file_lock"));
    let unlocked = send(&master, &bucket, "l", b"x", &rule(4));
    assert_eq!(unlocked.status, 200);
}

#[test]
fn replication_140_an_ordinary_upload_that_calls_itself_a_replica_is_none() {
    let server = start();
    let master = server.master();
    let (source, copies) = crate::support::server::replicated_buckets(&master);
    let more = [("x-amz-replication-status", "REPLICA"), ("X-Bz-Replication-Status", "REPLICA")];
    let file = master.try_upload(&source, "f", b"x", &more).json();
    assert_eq!(file["replicationStatus"], json!("pending"));
    let drained = server.control("POST", "/admin/replication/drain?timeout=10000");
    assert_eq!(drained.status, 200);
    assert_eq!(versions(&master, &copies).len(), 1);
}

#[test]
fn replication_108_a_replica_from_a_peer_is_encrypted_where_its_source_is() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let more = [("X-Bz-Server-Side-Encryption", "AES256")];
    let file = master.try_upload(&bucket, "f", b"x", &mark(1).pairs(&more)).json();
    assert_eq!(file["serverSideEncryption"], json!({"algorithm": "AES256", "mode": "SSE-B2"}));
    let plain = stored(&master, &bucket, "g", b"x", &mark(2));
    assert_eq!(plain["serverSideEncryption"], json!({"algorithm": null, "mode": null}));
}

/// A call about a session.
fn on_session(
    session: &Session,
    method: &str,
    id: &str,
    more: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut headers = vec![("Authorization", session.token.as_str())];
    headers.extend_from_slice(more);
    let target = match id {
        "" => "/api/v2/replica_sessions".to_owned(),
        id => format!("/api/v2/replica_sessions/{id}"),
    };
    call(&session.address, method, &target, &headers, body)
}

fn wanted(bucket: &str, name: &str, body: &[u8], part_bytes: usize) -> Value {
    json!({"bucketId": bucket, "fileName": name, "contentLength": body.len(),
        "contentType": "text/x-kept", "fileInfo": {"a": "b"},
        "contentSha1": format!("unverified:{}", sha1_hex(body)),
        "contentMd5": hex::encode(Md5::digest(body)), "partSizeBytes": part_bytes})
}

fn begin(session: &Session, fields: &Value, mark: &Mark) -> Answer {
    on_session(session, "POST", "", &mark.pairs(&[]), fields.to_string().as_bytes())
}

fn put(session: &Session, id: &str, whole: &[u8], start: usize, end: usize) -> Answer {
    let part = &whole[start..end];
    let range = format!("bytes {start}-{}/{}", end - 1, whole.len());
    let sha1 = sha1_hex(part);
    let more = [("Content-Range", range.as_str()), ("X-Bz-Content-Sha1", sha1.as_str())];
    on_session(session, "PUT", id, &more, part)
}

#[test]
fn replication_207_a_file_of_one_piece_can_be_sent_bit_by_bit_and_goes_on_after_a_crash() {
    let mut server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let whole: Vec<u8> = (0..250_000_u32).map(|n| (n % 251) as u8).collect();
    let begun = begin(&master, &wanted(&bucket, "f", &whole, 100_000), &mark(1));
    assert_eq!(begun.status, 200, "{:?}", said(&begun));
    let begun = begun.json();
    assert_eq!((&begun["confirmed"], &begun["file"]), (&json!(0), &json!(null)));
    assert_eq!(begun["partSizeBytes"], json!(100_000));
    let id = text(&begun, "sessionId").to_owned();
    let first = put(&master, &id, &whole, 0, 100_000);
    assert_eq!((first.status, &first.json()["confirmed"]), (200, &json!(100_000)));
    // Out of order is all right, but only what has no gap before it is confirmed.
    let last = put(&master, &id, &whole, 200_000, 250_000).json();
    assert_eq!((&last["confirmed"], &last["file"]), (&json!(100_000), &json!(null)));
    server.kill();
    server.restart();
    let master = server.master();
    let found = on_session(&master, "GET", &id, &[], b"").json();
    assert_eq!(found["confirmed"], json!(100_000), "what was confirmed is durable");
    let parts: Vec<_> = found["parts"].as_array().unwrap().iter().collect();
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[1]["partNumber"], json!(3));
    assert_eq!(parts[0]["contentSha1"], json!(sha1_hex(&whole[..100_000])));
    assert_eq!(master.download("from-peers/f", &[]).status, 404, "nothing is to be seen yet");
    let done = put(&master, &id, &whole, 100_000, 200_000).json();
    assert_eq!(done["confirmed"], json!(250_000));
    let file = &done["file"];
    assert_eq!(file["contentSha1"], json!(format!("unverified:{}", sha1_hex(&whole))));
    assert_eq!(file["contentMd5"], json!(hex::encode(Md5::digest(&whole))));
    assert_eq!(file["contentLength"], json!(whole.len()));
    assert_eq!(file["uploadTimestamp"], json!(TIME));
    assert_eq!(file["replicationStatus"], json!("replica"));
    assert_eq!(file["fileInfo"], json!({"a": "b"}));
    let shown = master.download("from-peers/f", &[]);
    assert_eq!((shown.status, shown.body), (200, whole.clone()));
    assert_eq!(versions(&master, &bucket), std::slice::from_ref(file));
    // Whatever is asked again of a session that is done is answered with the file.
    let again = on_session(&master, "GET", &id, &[], b"").json();
    assert_eq!(again["file"], *file);
    let again = put(&master, &id, &whole, 0, 100_000).json();
    assert_eq!(again["file"], *file);
    let again = begin(&master, &wanted(&bucket, "f", &whole, 100_000), &mark(1)).json();
    assert_eq!(again["file"], *file);
    assert_eq!(versions(&master, &bucket).len(), 1);
}

#[test]
fn a_session_takes_only_its_own_parts_and_becomes_only_what_was_announced() {
    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let whole = b"0123456789".repeat(3);
    let mut fields = wanted(&bucket, "f", &whole, 10);
    fields["contentMd5"] = json!(hex::encode(Md5::digest(b"something else")));
    let id = text(&begin(&master, &fields, &mark(1)).json(), "sessionId").to_owned();
    for (start, end) in [(1, 11), (0, 9), (0, 20), (20, 29)] {
        let answer = put(&master, &id, &whole, start, end);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{start}-{end}");
    }
    let longer = [whole.as_slice(), b"x"].concat();
    assert_eq!(put(&master, &id, &longer, 0, 10).status, 400, "another file");
    let damaged = [("Content-Range", "bytes 0-9/30"), ("X-Bz-Content-Sha1", &sha1_hex(b"x"))];
    assert_eq!(on_session(&master, "PUT", &id, &damaged, &whole[..10]).status, 400);
    let state = on_session(&master, "GET", &id, &[], b"").json();
    assert_eq!((&state["confirmed"], &state["parts"]), (&json!(0), &json!([])));
    put(&master, &id, &whole, 0, 10);
    put(&master, &id, &whole, 10, 20);
    let wrong = put(&master, &id, &whole, 20, 30);
    let expected = (400, "bad_request".to_owned(), "Sha1 did not match data received".to_owned());
    assert_eq!(said(&wrong), expected);
    let state = on_session(&master, "GET", &id, &[], b"").json();
    assert_eq!(state["confirmed"], json!(0), "all of it must be sent again");
    let asked = on_session(&master, "PUT", &id, &[("Content-Range", "bytes */30")], b"");
    assert_eq!((asked.status, &asked.json()["confirmed"]), (200, &json!(0)));
    // To the Native API it is unfinished, and not a large file.
    let listed = master.ok("b2_list_unfinished_large_files", &json!({"bucketId": bucket}));
    assert_eq!(listed["files"][0]["fileId"], json!(id));
    for (operation, body) in [
        ("b2_get_upload_part_url", json!({"fileId": id})),
        ("b2_list_parts", json!({"fileId": id})),
        ("b2_finish_large_file", json!({"fileId": id, "partSha1Array": []})),
    ] {
        assert_eq!(master.call(operation, &body).status, 400, "{operation}");
    }
    assert_eq!(on_session(&master, "DELETE", &id, &[], b"").status, 204);
    assert!(versions(&master, &bucket).is_empty());
    for method in ["GET", "PUT", "DELETE"] {
        let more = [("Content-Range", "bytes */30")];
        let answer = on_session(&master, method, &id, &more, b"");
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{method}");
        assert!(answer.message().starts_with("No active upload for"), "{method}");
    }
}

#[test]
fn sessions_are_for_callers_who_may_write_where_peers_are_accepted() {
    let closed = Server::start();
    let master = closed.master();
    let bucket = master.create_bucket("from-peers");
    let answer = begin(&master, &wanted(&bucket, "f", b"content", 5), &mark(1));
    assert_eq!((answer.status, answer.code().as_str()), (403, "access_denied"));

    let server = start();
    let master = server.master();
    let bucket = master.create_bucket("from-peers");
    let fields = wanted(&bucket, "in/f", b"content", 5);
    let id = text(&begin(&master, &fields, &mark(1)).json(), "sessionId").to_owned();
    let reader = master.with_key(&["readFiles", "listFiles"], None, None);
    let narrow = master.with_key(&["writeFiles"], Some(&[&bucket]), Some("out/"));
    for weak in [&reader, &narrow] {
        let answer = begin(weak, &fields, &mark(2));
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
        for method in ["GET", "PUT", "DELETE"] {
            let more = [("Content-Range", "bytes */7")];
            assert_eq!(on_session(weak, method, &id, &more, b"").status, 401, "{method}");
        }
    }
    let nobody = Session { token: "wrong".to_owned(), ..master.clone() };
    assert_eq!(on_session(&nobody, "GET", &id, &[], b"").code(), "bad_auth_token");
    let unmarked = on_session(&master, "POST", "", &[], fields.to_string().as_bytes());
    assert_eq!(unmarked.status, 400, "what is no replica has no sessions");
    for (name, value) in [
        ("contentLength", json!(0)),
        ("contentLength", json!(-1)),
        ("contentLength", json!(5_000_000_001_i64)),
        ("contentSha1", json!("none")),
        ("contentMd5", json!("x")),
        ("partSizeBytes", json!(0)),
    ] {
        let mut wrong = fields.clone();
        wrong[name] = value;
        assert_eq!(begin(&master, &wrong, &mark(3)).status, 400, "{name}");
    }
    let rule = mark(4).with("X-Replica-Source-Key", "000feedfeedfeed0000000001");
    let refused = begin(&master, &fields, &rule);
    assert_eq!(said(&refused).1, "replication_refused");
    assert_eq!(refused.message(), "mapping_missing");
    assert_eq!(put(&master, &id, b"content", 0, 5).status, 200);
    let done = put(&master, &id, b"content", 5, 7).json();
    assert_eq!(done["file"]["fileName"], json!("in/f"));
}

/// A bucket of one server flows on into a bucket of the same name at another one.
fn stream_to(from: &Server, to: &Server, more: &Value) {
    stream_through(from, to, &json!({}), more);
}

/// As [`stream_to`], with more about the remote.
fn stream_through(from: &Server, to: &Server, more_of_remote: &Value, more: &Value) {
    let (client, master) = (Client::of(from), from.master());
    let remote = json!({"name": "other-kiln", "orgID": ORG, "allowInsecureTLS": false,
        "remoteURL": format!("peer+http://{}", to.address),
        "remoteAPIToken": format!("{MASTER_ID}:{MASTER_KEY}")});
    let remote = with(&remote, more_of_remote);
    let remote = client.expect(201, "POST", "/api/v2/remotes", &remote);
    let buckets = master.ok("b2_list_buckets", &json!({"accountId": master.account}));
    let bucket = text(&buckets["buckets"][0], "bucketId");
    let stream = new_stream("to-the-other", text(&remote, "id"), bucket);
    let stream = with(&stream, &json!({"remoteBucketName": "round-bucket"}));
    client.stream(&with(&stream, more));
}

fn only_bucket(server: &Server) -> (Session, String) {
    let master = server.master();
    let bucket = master.create_bucket("round-bucket");
    (master, bucket)
}

#[test]
fn replication_98_99_100_103_205_a_stream_between_two_kilns_carries_each_version_once() {
    let (one, two) = (start(), start());
    let ((near, source), (far, copies)) = (only_bucket(&one), only_bucket(&two));
    stream_to(&one, &two, &json!({}));
    let small = near.upload(&source, "small", b"some bytes");
    let sha1 = format!("unverified:{}", sha1_hex(b"unchecked"));
    let more = [("X-Bz-Content-Sha1", "do_not_verify"), ("X-Bz-Info-a", "b")];
    let unchecked = near.try_upload(&source, "unchecked", b"unchecked", &more).json();
    assert_eq!(unchecked["contentSha1"], json!(sha1));
    let body = json!({"bucketId": source, "fileName": "large", "contentType": "b2/x-auto"});
    let begun = near.ok("b2_start_large_file", &body);
    let parts = [vec![1_u8; 5_000_000], vec![2_u8; 10]];
    send_part(&near, text(&begun, "fileId"), 1, &parts[0]);
    send_part(&near, text(&begun, "fileId"), 2, &parts[1]);
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let large = finish(&near, text(&begun, "fileId"), &slices, None).json();
    let arrived = wait_for("three files arrive", || {
        let there = versions(&far, &copies);
        let done = there.iter().filter(|file| file["action"] == json!("upload")).count() == 3;
        done.then_some(there)
    });
    for source in [&small, &unchecked, &large] {
        let copy = arrived.iter().find(|copy| copy["fileName"] == source["fileName"]).unwrap();
        for same in ["contentLength", "contentMd5", "contentSha1", "contentType", "fileInfo"] {
            assert_eq!(copy[same], source[same], "{same} of {}", source["fileName"]);
        }
        assert_eq!(copy["uploadTimestamp"], source["uploadTimestamp"]);
        assert_eq!(copy["replicationStatus"], json!("replica"));
    }
    assert_eq!(far.download("round-bucket/large", &[]).body, parts.concat());
    let drained = one.control("POST", "/admin/replication/drain?timeout=10000");
    assert_eq!(drained.status, 200);
    assert_eq!(versions(&far, &copies).len(), 3);
}

#[test]
fn f53_a_ring_of_kilns_stops_where_it_began() {
    let servers = [start(), start(), start()];
    let buckets: Vec<_> = servers.iter().map(only_bucket).collect();
    for at in 0..3 {
        stream_to(&servers[at], &servers[(at + 1) % 3], &json!({"includeReplicas": true}));
    }
    let file = buckets[0].0.upload(&buckets[0].1, "round", b"and round");
    for (master, bucket) in &buckets[1..] {
        let there = wait_for("the file comes round", || {
            let there = versions(master, bucket);
            (!there.is_empty()).then_some(there)
        });
        assert_eq!(there[0]["uploadTimestamp"], file["uploadTimestamp"]);
        assert_eq!(there[0]["replicationStatus"], json!("replica"));
    }
    let refused = wait_for("the third is told to stop", || {
        let metrics = servers[0].control("GET", "/metrics");
        let metrics = String::from_utf8(metrics.body).unwrap();
        metrics.lines().find_map(|line| {
            let count = line.strip_prefix("kiln_replication_loops_refused_total ")?;
            count.parse::<u64>().ok().filter(|count| *count > 0)
        })
    });
    assert!(refused >= 1);
    for server in &servers {
        let drained = server.control("POST", "/admin/replication/drain?timeout=10000");
        assert_eq!(drained.status, 200, "{}", String::from_utf8_lossy(&drained.body));
    }
    for (master, bucket) in &buckets {
        assert_eq!(versions(master, bucket).len(), 1, "one version at each");
    }
}

#[test]
fn replication_98_99_a_file_of_one_piece_stays_one_however_it_is_sent() {
    let (one, two) = (start(), start());
    let ((near, source), (far, copies)) = (only_bucket(&one), only_bucket(&two));
    let small = json!({"multipartThresholdBytes": 6_000_000, "partSizeBytes": 5_242_880});
    stream_through(&one, &two, &small, &json!({}));
    let whole: Vec<u8> = (0..12_000_000_u32).map(|n| (n % 249) as u8).collect();
    let more = [("X-Bz-Content-Sha1", "do_not_verify")];
    let file = near.try_upload(&source, "f", &whole, &more).json();
    let arrived = wait_for("the file arrives", || {
        let there = versions(&far, &copies);
        there.into_iter().find(|copy| copy["action"] == json!("upload"))
    });
    for same in ["contentLength", "contentMd5", "contentSha1", "uploadTimestamp"] {
        assert_eq!(arrived[same], file[same], "{same}");
    }
    assert!(text(&arrived, "contentSha1").starts_with("unverified:"));
    assert_eq!(far.download("round-bucket/f", &[]).body, whole);
    let bodies = two.control("GET", "/metrics");
    let bodies = String::from_utf8(bodies.body).unwrap();
    assert!(bodies.contains("kiln_blobs_written_total 3\n"), "it came in three parts: {bodies}");
}
