//! Uploads, hiding, deleting, file info.

use serde_json::json;

use crate::support::http::{Answer, Connection, call};
use crate::support::server::{MASTER_ID, Server, sha1_hex};

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
    assert!(one.0.contains("/b2api/v4/b2_upload_file/"));
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
fn native_147_to_155_sha1_variants_and_required_headers() {
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
    let names = master.ok("b2_list_file_names", &json!({"bucketId": bucket}));
    assert_eq!(names["files"].as_array().unwrap().len(), 3, "only what was accepted");
}

#[test]
fn native_156_to_166_names_and_info_are_decoded_and_checked() {
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
    for wrong in [
        "%G1",
        "%",
        "a%00b",
        "%01",
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
    for header in [
        ("X-Bz-Info-b2-other", "x"),
        ("X-Bz-Info-b2-content-disposition", "*bad"),
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
fn native_179_182_183_410_versions_of_a_name_have_growing_times_and_all_are_kept() {
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
fn native_185_to_204_hiding_showing_deleting_and_looking() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("hiding-bucket");
    let file = master.upload(&bucket, "f", b"x");
    let hide = json!({"bucketId": bucket, "fileName": "f"});
    let marker = master.call_version(1, "b2_hide_file", &hide).json();
    assert_eq!(
        (&marker["action"], &marker["contentLength"], &marker["size"]),
        (&json!("hide"), &json!(0), &json!(0))
    );
    assert_eq!(marker["contentType"], "application/x-bz-hide-marker");
    assert_eq!(marker["contentSha1"], "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    assert_eq!(marker["contentMd5"], "d41d8cd98f00b204e9800998ecf8427e");
    for absent in ["fileRetention", "legalHold", "serverSideEncryption"] {
        assert!(marker.get(absent).is_none(), "{absent}");
    }
    assert_eq!(master.call("b2_hide_file", &hide).code(), "already_hidden");
    let never = json!({"bucketId": bucket, "fileName": "never"});
    assert_eq!(master.call("b2_hide_file", &never).code(), "no_such_file");
    assert_eq!(master.download("hiding-bucket/f", &[]).status, 404);
    let of = |id: &serde_json::Value, name: &str| json!({"fileId": id, "fileName": name});
    assert_eq!(
        master.ok("b2_delete_file_version", &of(&marker["fileId"], "f")),
        of(&marker["fileId"], "f")
    );
    assert_eq!(master.download("hiding-bucket/f", &[]).status, 200);
    let info = master.ok("b2_get_file_info", &json!({"fileId": file["fileId"]}));
    assert_eq!(info, file);
    let wrong = master.call("b2_delete_file_version", &of(&file["fileId"], "g"));
    assert_eq!(wrong.code(), "file_not_present");
    assert_eq!(
        wrong.message(),
        format!("File not present: g {}", file["fileId"].as_str().unwrap())
    );
    let malformed = master.call("b2_delete_file_version", &of(&json!("bad-id"), "f"));
    assert_eq!(
        (malformed.code().as_str(), malformed.message().as_str()),
        ("bad_request", "Invalid fileId: bad-id")
    );
    master.ok("b2_delete_file_version", &of(&file["fileId"], "f"));
    assert_eq!(
        master.call("b2_delete_file_version", &of(&file["fileId"], "f")).code(),
        "file_not_present"
    );
    let gone = master.call("b2_get_file_info", &json!({"fileId": file["fileId"]}));
    assert_eq!((gone.status, gone.code().as_str()), (404, "not_found"));
    let plain = master.with_key(&["readFiles", "listFiles"], None, None);
    let other = master.upload(&bucket, "g", b"x");
    let shown = plain.ok("b2_get_file_info", &json!({"fileId": other["fileId"]}));
    let hidden = json!({"isClientAuthorizedToRead": false, "value": null});
    assert_eq!((&shown["fileRetention"], &shown["legalHold"]), (&hidden, &hidden));
    assert_eq!(shown["accountId"], MASTER_ID);
}
