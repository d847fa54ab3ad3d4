//! Uploads, hiding, deleting, file info.

use serde_json::json;

use crate::support::http::{Answer, Connection, call};
use crate::support::server::{MASTER_ID, Server, Session, sha1_hex};

/// Begins uploads that wait for their last byte until one of them holds the token, which is when
/// another is refused. Answers the connections and the refusal.
pub(crate) fn hold_token(address: &str, target: &str, token: &str) -> (Vec<Connection>, Answer) {
    let mut begun = Vec::new();
    for _ in 0..200 {
        let mut slow = Connection::open(address).unwrap();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nX-Bz-File-Name: slow\r\n\
             Content-Type: b2/x-auto\r\nX-Bz-Content-Sha1: do_not_verify\r\nContent-Length: 2\r\n\r\na"
        );
        slow.send_raw(head.as_bytes()).unwrap();
        begun.push(slow);
        let headers = [
            ("Authorization", token),
            ("X-Bz-File-Name", "probe"),
            ("Content-Type", "b2/x-auto"),
            ("X-Bz-Content-Sha1", "do_not_verify"),
        ];
        let probe = call(address, "POST", target, &headers, b"x");
        if probe.status != 200 {
            return (begun, probe);
        }
    }
    panic!("no upload ever held the token");
}

/// Sends the last byte on each connection; answers how many uploads were stored.
pub(crate) fn finish_held(begun: Vec<Connection>) -> usize {
    let finish = |mut slow: Connection| {
        // Those that were refused may be closed already.
        drop(slow.send_raw(b"b"));
        slow.read(false).is_ok_and(|answer| answer.status == 200)
    };
    begun.into_iter().map(finish).filter(|stored| *stored).count()
}

#[test]
fn native_141_to_146_176_an_upload_answers_all_members_and_a_pair_serves_many() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("upload-bucket");
    let (one, two) = (master.upload_url(&bucket), master.upload_url(&bucket));
    assert_ne!(one, two);
    for version in 1..=4 {
        let pair =
            master.call_version(version, "b2_get_upload_url", &json!({"bucketId": bucket})).json();
        let members: Vec<&str> = pair.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["authorizationToken", "bucketId", "uploadUrl"]);
        assert_eq!(pair["bucketId"], json!(bucket));
        let url = pair["uploadUrl"].as_str().unwrap();
        assert!(url.contains(&format!("/b2api/v{version}/b2_upload_file/")), "{url}");
    }
    let unknown = "0123456789abcdef01234567";
    let answer = master.call("b2_get_upload_url", &json!({"bucketId": unknown}));
    assert_eq!(
        (answer.status, answer.code().as_str(), answer.message()),
        (400, "bad_bucket_id", format!("Bucket {unknown} does not exist"))
    );
    let reader = master.with_key(&["readFiles", "listFiles"], None, None);
    let answer = reader.call("b2_get_upload_url", &json!({"bucketId": bucket}));
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    let file = master.upload(&bucket, "dir/f.txt", b"data");
    assert_eq!((&file["action"], &file["contentLength"]), (&json!("upload"), &json!(4)));
    assert_eq!(file["contentMd5"], "8d777f385d3dfec8815d20f7496026dc");
    assert_eq!(file["contentSha1"], sha1_hex(b"data"));
    assert_eq!((&file["contentType"], &file["fileInfo"]), (&json!("text/plain"), &json!({})));
    assert_eq!(
        file["fileRetention"],
        json!({"isClientAuthorizedToRead": true,
        "value": {"mode": null, "retainUntilTimestamp": null}})
    );
    assert_eq!(file["legalHold"], json!({"isClientAuthorizedToRead": true, "value": null}));
    assert_eq!(file["serverSideEncryption"], json!({"algorithm": null, "mode": null}));
    assert!(file["replicationStatus"].is_null() && file.get("size").is_none());
    let empty = master.upload(&bucket, "empty", b"");
    assert_eq!(empty["contentSha1"], "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    let (target, token) = one;
    let mut connection = Connection::open(&server.address).unwrap();
    for number in 0..100 {
        let name = format!("n{number}");
        let headers = [
            ("Authorization", token.as_str()),
            ("X-Bz-File-Name", name.as_str()),
            ("Content-Type", "b2/x-auto"),
            ("X-Bz-Content-Sha1", "do_not_verify"),
        ];
        assert_eq!(connection.call("POST", &target, &headers, b"x").unwrap().status, 200);
    }
}

#[test]
fn native_147_to_152_154_155_sha1_variants_and_required_headers() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("sha1-bucket");
    let refused =
        master.try_upload(&bucket, "f", b"data", &[("X-Bz-Content-Sha1", &"0".repeat(40))]);
    assert_eq!(
        (refused.status, refused.message().as_str()),
        (400, "Sha1 did not match data received")
    );
    let with_end = [b"data".as_slice(), sha1_hex(b"data").as_bytes()].concat();
    let at_end = [("X-Bz-Content-Sha1", "hex_digits_at_end")];
    let stored = master.try_upload(&bucket, "at-end", &with_end, &at_end).json();
    assert_eq!(
        (&stored["contentLength"], &stored["contentSha1"]),
        (&json!(4), &json!(sha1_hex(b"data")))
    );
    for wrong in [[b"data".as_slice(), &[b'0'; 40]].concat(), b"short".to_vec()] {
        assert_eq!(master.try_upload(&bucket, "f", &wrong, &at_end).status, 400);
    }
    let upper = sha1_hex(b"data").to_uppercase();
    assert_eq!(
        master.try_upload(&bucket, "upper", b"data", &[("X-Bz-Content-Sha1", &upper)]).status,
        200
    );
    for how in ["do_not_verify".to_owned(), format!("unverified:{}", sha1_hex(b"data"))] {
        let stored =
            master.try_upload(&bucket, "loose", b"data", &[("X-Bz-Content-Sha1", &how)]).json();
        assert_eq!(stored["contentSha1"], format!("unverified:{}", sha1_hex(b"data")));
    }
    for (missing, value) in [
        ("X-Bz-Content-Sha1", ""),
        ("X-Bz-File-Name", ""),
        ("Content-Type", ""),
        ("X-Bz-Content-Sha1", "nonsense"),
    ] {
        let answer = master.try_upload(&bucket, "f", b"data", &[(missing, value)]);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{missing}");
    }
    let (target, token) = master.upload_url(&bucket);
    let mut connection = Connection::open(&server.address).unwrap();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nX-Bz-File-Name: f\r\n\
         Content-Type: b2/x-auto\r\nX-Bz-Content-Sha1: do_not_verify\r\n\r\n"
    );
    connection.send_raw(head.as_bytes()).unwrap();
    let answer = connection.read(false).unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "152");
    let names = master.ok("b2_list_file_names", &json!({"bucketId": bucket}));
    assert_eq!(names["files"].as_array().unwrap().len(), 3, "only what was accepted");
    for (name, given, stored) in [
        ("t.txt", "b2/x-auto", "text/plain"),
        ("t.bin", "b2/x-auto", "application/octet-stream"),
        ("none", "b2/x-auto", "application/octet-stream"),
        ("t.html", "x-own/Type; charset=\"A b\"", "x-own/Type; charset=\"A b\""),
    ] {
        let answer = master.try_upload(&bucket, name, b"", &[("Content-Type", given)]);
        assert_eq!(answer.json()["contentType"], stored, "{name}");
    }
}

#[test]
fn native_156_to_160_163_to_166_169_to_171_names_and_info_are_decoded_and_checked() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("names-bucket");
    let stored = master
        .try_upload(
            &bucket,
            "a+b%2Bc%c3%a9%F0%9F%98%80\\",
            b"x",
            &[("X-Bz-Info-Colour", "gr%C3%BCn"), ("X-Bz-Info-b2-cache-control", "max-age=5")],
        )
        .json();
    assert_eq!(stored["fileName"], "a b+c\u{e9}\u{1f600}\\");
    assert_eq!(stored["fileInfo"], json!({"b2-cache-control": "max-age=5", "colour": "gr\u{fc}n"}));
    let sent_back = master.download("names-bucket/a+b%2Bc%C3%A9%F0%9F%98%80%5C", &[]);
    assert_eq!(sent_back.header("x-bz-info-colour"), Some("gr%C3%BCn"), "157: and back");
    let plain = master.upload(&bucket, "%61%2D%5F%2e", b"x");
    assert_eq!(plain["fileName"], "a-_.", "159");
    let order: Vec<String> = master.ok("b2_list_file_names", &json!({"bucketId": bucket}))["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["fileName"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(order, ["a b+c\u{e9}\u{1f600}\\", "a-_."]);
    for wrong in [
        "%G1",
        "%",
        "a%00b",
        "%01",
        "%1F",
        "%7f",
        "/a",
        "a/",
        "a//b",
        "%c0%ae",
        "%ed%a0%80",
        "%ff",
        "..",
        ".",
    ] {
        let answer = master.try_upload(&bucket, wrong, b"x", &[]);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{wrong}");
    }
    let too_long = format!("X-Bz-Info-{}", "n".repeat(51));
    for header in [
        ("X-Bz-Info-b2-foo", "x"),
        (too_long.as_str(), "x"),
        ("X-Bz-Info-b2-content-disposition", "*bad"),
        ("X-Bz-Info-b2-expires", "soon"),
        ("X-Bz-Info-x", "%zz"),
        ("Content-Encoding", "gzip"),
    ] {
        assert_eq!(master.try_upload(&bucket, "f", b"x", &[header]).status, 400, "{header:?}");
    }
}

#[test]
fn native_172_to_178_upload_tokens_fit_one_url_one_upload_and_one_key() {
    let server = Server::start();
    let master = server.master();
    let (one, two) = (master.create_bucket("first-bucket"), master.create_bucket("second-bucket"));
    let (target, token) = master.upload_url(&one);
    let (other_target, _) = master.upload_url(&two);
    let (sibling_target, _) = master.upload_url(&one);
    let send = |target: &str, token: &str| {
        let headers = [
            ("Authorization", token),
            ("X-Bz-File-Name", "f"),
            ("Content-Type", "b2/x-auto"),
            ("X-Bz-Content-Sha1", "do_not_verify"),
        ];
        call(&server.address, "POST", target, &headers, b"x")
    };
    for (target, token) in
        [(&target, &master.token), (&other_target, &token), (&sibling_target, &token)]
    {
        let answer = send(target, token);
        assert_eq!((answer.status, answer.code().as_str()), (401, "bad_auth_token"));
    }
    let stranger = Session { token: token.clone(), ..master.clone() };
    let answer = stranger.call("b2_get_upload_url", &json!({"bucketId": one}));
    assert_eq!((answer.status, answer.code().as_str()), (401, "bad_auth_token"), "174");
    let (slow, refused) = hold_token(&server.address, &target, &token);
    assert_eq!((refused.status, refused.code().as_str()), (400, "auth_token_limit"));
    assert_eq!(refused.message(), format!("more than one upload using auth token {token}"));
    assert_eq!(finish_held(slow), 1);
    assert_eq!(send(&target, &token).status, 200, "free again");
    let prefixed = master.with_key(&["writeFiles"], Some(&[&one]), Some("in/"));
    assert_eq!(prefixed.try_upload(&one, "in/f", b"x", &[]).status, 200);
    assert_eq!(prefixed.try_upload(&one, "out/f", b"x", &[]).code(), "unauthorized");
    server.control("POST", "/admin/clock/advance?ms=86400001");
    assert_eq!(send(&target, &token).code(), "expired_auth_token");
}

#[test]
fn native_179_183_410_versions_of_a_name_have_growing_times_and_all_are_kept() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("versions-bucket");
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (session, bucket) = (master.clone(), bucket.clone());
            std::thread::spawn(move || {
                for number in 0..10 {
                    session.upload(&bucket, "same", format!("{writer}-{number}").as_bytes());
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let last = master.upload(&bucket, "same", b"last");
    let listed =
        master.ok("b2_list_file_versions", &json!({"bucketId": bucket, "maxFileCount": 1000}));
    let times: Vec<i64> = listed["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["uploadTimestamp"].as_i64().unwrap())
        .collect();
    assert_eq!(times.len(), 81);
    assert!(times.windows(2).all(|pair| pair[0] > pair[1]), "strictly newest first");
    let names = master.ok("b2_list_file_names", &json!({"bucketId": bucket}));
    assert_eq!(names["files"][0]["fileId"], last["fileId"]);
    assert_eq!(master.download("versions-bucket/same", &[]).body, b"last");
}

#[test]
fn native_161_162_167_names_segments_and_info_have_their_limits() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("limits-bucket");
    let name_of = |bytes: usize| -> String {
        let full = format!("{}/", "s".repeat(250)).repeat(bytes / 251);
        let rest = bytes - full.len();
        format!("{full}{}", "r".repeat(rest))
    };
    assert_eq!((name_of(1024).len(), name_of(1025).len()), (1024, 1025));
    assert_eq!(master.upload(&bucket, &name_of(1024), b"x")["fileName"], name_of(1024));
    for wrong in [name_of(1025), "s".repeat(251), format!("a/{}/b", "s".repeat(251))] {
        let answer = master.try_upload(&bucket, &wrong, b"x", &[]);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "bad_request"),
            "{}",
            wrong.len()
        );
    }
    let encoded = "%C3%A9".repeat(512);
    assert_eq!(
        master.upload(&bucket, &format!("{}{}", "%C3%A9%2F".repeat(4), "x"), b"x")["fileName"],
        "\u{e9}/\u{e9}/\u{e9}/\u{e9}/x"
    );
    assert_eq!(master.try_upload(&bucket, &encoded, b"x", &[]).status, 400, "one long segment");
    // The name `f` and the info's name `n` count too.
    let (most, too_much) = ("v".repeat(6998), "v".repeat(6999));
    assert_eq!(master.try_upload(&bucket, "f", b"x", &[("X-Bz-Info-n", &most)]).status, 200);
    let answer = master.try_upload(&bucket, "f", b"x", &[("X-Bz-Info-n", &too_much)]);
    assert_eq!((answer.status, answer.code().as_str()), (400, "metadata_exceeded"));
}

#[test]
fn native_181_five_gigabytes_are_refused_before_a_byte_is_sent() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("too-big-bucket");
    for (sha1, length, told) in [
        ("do_not_verify", 5_000_000_001_u64, 5_000_000_001_u64),
        ("hex_digits_at_end", 5_000_000_041, 5_000_000_001),
    ] {
        let (target, token) = master.upload_url(&bucket);
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nX-Bz-File-Name: f\r\n\
             Content-Type: b2/x-auto\r\nX-Bz-Content-Sha1: {sha1}\r\nContent-Length: {length}\r\n\r\n"
        );
        let mut connection = Connection::open(&server.address).unwrap();
        connection.send_raw(head.as_bytes()).unwrap();
        let answer = connection.read(false).unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str(), answer.message()),
            (400, "bad_request", format!("file size too big: {told}"))
        );
    }
}

#[test]
fn native_182_the_upload_timestamp_is_the_time_of_the_upload() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("time-bucket");
    let now =
        || server.control("POST", "/admin/clock/advance?ms=0").json()["now"].as_i64().unwrap();
    let mut last = 0;
    for _ in 0..20 {
        let before = now();
        let at = master.upload(&bucket, "f", b"x")["uploadTimestamp"].as_i64().unwrap();
        // Versions of a name made within one millisecond are one apart.
        assert!((before.max(last)..=now() + 1).contains(&at) && at > last, "{before} {at}");
        last = at;
    }
}

#[test]
fn native_184_an_upload_to_a_bucket_that_is_gone_is_refused() {
    let server = Server::start();
    let master = server.master();
    let gone = |bucket: &str| {
        master.ok("b2_delete_bucket", &json!({"accountId": MASTER_ID, "bucketId": bucket}));
    };
    let bucket = master.create_bucket("going-bucket");
    let (target, token) = master.upload_url(&bucket);
    let headers = |token: &str| {
        format!(
            "Host: x\r\nAuthorization: {token}\r\nX-Bz-File-Name: f\r\nContent-Type: b2/x-auto\r\n\
             X-Bz-Content-Sha1: do_not_verify\r\nContent-Length: 2\r\n\r\n"
        )
    };
    // Under way when the bucket goes: the first byte is sent and the token is held.
    let (mut begun, _) = hold_token(&server.address, &target, &token);
    // Probes that came before the token was held are files, and a bucket with files does not go.
    let stored = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    for file in stored["files"].as_array().unwrap() {
        let version = json!({"fileName": file["fileName"], "fileId": file["fileId"]});
        master.ok("b2_delete_file_version", &version);
    }
    gone(&bucket);
    let mut slow = begun.swap_remove(0);
    slow.send_raw(b"b").unwrap();
    let answer = slow.read(false).unwrap();
    assert!((400..500).contains(&answer.status), "{answer:?}");
    // Begun after the bucket went.
    let mut late = Connection::open(&server.address).unwrap();
    late.send_raw(format!("POST {target} HTTP/1.1\r\n{}ab", headers(&token)).as_bytes()).unwrap();
    let answer = late.read(false).unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_bucket_id"));
    // A new bucket of that name has nothing to do with the old one's token.
    let again = master.create_bucket("going-bucket");
    let mut late = Connection::open(&server.address).unwrap();
    late.send_raw(format!("POST {target} HTTP/1.1\r\n{}ab", headers(&token)).as_bytes()).unwrap();
    assert_eq!(late.read(false).unwrap().code(), "bad_bucket_id");
    assert_eq!(master.ok("b2_list_file_versions", &json!({"bucketId": again}))["files"], json!([]));
}

#[test]
fn native_180_an_upload_may_bring_its_own_time_where_that_is_allowed() {
    let more = [("X-Bz-Custom-Upload-Timestamp", "1500000000123")];
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("no-custom-times");
    let refused = master.try_upload(&bucket, "f", b"x", &more);
    assert_eq!((refused.status, refused.code().as_str()), (400, "custom_timestamp_not_allowed"));
    let large = json!({
        "bucketId": bucket, "fileName": "l", "contentType": "text/plain",
        "custom_upload_timestamp": 1_500_000_000_123_i64,
    });
    assert_eq!(master.call("b2_start_large_file", &large).code(), "custom_timestamp_not_allowed");

    let server = Server::start_with(&["--uploads-custom-timestamps"]);
    let master = server.master();
    let bucket = master.create_bucket("custom-times");
    let newer = master.upload(&bucket, "f", b"newer");
    let older = master.try_upload(&bucket, "f", b"older", &more).json();
    assert_eq!(older["uploadTimestamp"], 1_500_000_000_123_i64);
    let listed = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    assert_eq!(listed["files"][0]["fileId"], newer["fileId"]);
    assert_eq!(listed["files"][1]["fileId"], older["fileId"], "its time puts it behind");
    assert_eq!(master.download("custom-times/f", &[]).body, b"newer");
    let info = master.ok("b2_get_file_info", &json!({"fileId": older["fileId"]}));
    assert_eq!(info["uploadTimestamp"], older["uploadTimestamp"]);
    for wrong in ["99999999999999", "-1", "soon", "1.5"] {
        let wrong = [("X-Bz-Custom-Upload-Timestamp", wrong)];
        let answer = master.try_upload(&bucket, "f", b"x", &wrong);
        assert_eq!((answer.status, answer.code().as_str()), (400, "custom_timestamp_invalid"));
    }
    for field in ["customUploadTimestamp", "custom_upload_timestamp"] {
        for time in [json!(1_400_000_000_000_i64), json!("1400000000000")] {
            let mut large = json!({
                "bucketId": bucket, "fileName": "l", "contentType": "text/plain",
            });
            large[field] = time;
            let started = master.ok("b2_start_large_file", &large);
            assert_eq!(started["uploadTimestamp"], 1_400_000_000_000_i64);
        }
    }
}
