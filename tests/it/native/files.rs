//! Hiding, deleting and looking at single versions.

use serde_json::{Value, json};

use crate::support::http::call;
use crate::support::server::{MASTER_ID, Server, Session};

fn version(id: &Value, name: &str) -> Value {
    json!({"fileId": id, "fileName": name})
}

fn names(session: &Session, bucket: &str) -> Vec<String> {
    let page = session.ok("b2_list_file_names", &json!({"bucketId": bucket}));
    let files = page["files"].as_array().unwrap();
    files.iter().map(|file| file["fileName"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn native_185_to_193_204_hiding_and_showing_again() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("hiding-bucket");
    master.upload(&bucket, "f", b"one");
    let hide = json!({"bucketId": bucket, "fileName": "f"});
    let marker = master.ok("b2_hide_file", &hide);
    let members: Vec<&str> = marker.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "accountId",
        "action",
        "bucketId",
        "contentLength",
        "contentMd5",
        "contentSha1",
        "contentType",
        "fileId",
        "fileInfo",
        "fileName",
        "replicationStatus",
        "uploadTimestamp",
    ];
    assert_eq!(members, expected, "187: nothing about locks and encryption");
    assert_eq!((&marker["action"], &marker["contentLength"]), (&json!("hide"), &json!(0)));
    assert_eq!(marker["contentType"], "application/x-bz-hide-marker");
    assert_eq!(marker["contentSha1"], "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    assert_eq!(marker["contentMd5"], "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!((&marker["fileInfo"], &marker["fileName"]), (&json!({}), &json!("f")));
    assert_eq!(master.ok("b2_get_file_info", &json!({"fileId": marker["fileId"]})), marker, "204");
    let not_shown = || {
        assert_eq!(names(&master, &bucket), Vec::<String>::new());
        let answer = master.download("hiding-bucket/f", &[]);
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
    };
    not_shown();
    let again = master.call("b2_hide_file", &hide);
    assert_eq!((again.status, again.code().as_str()), (400, "already_hidden"));
    let never = json!({"bucketId": bucket, "fileName": "never"});
    let never = master.call("b2_hide_file", &never);
    assert_eq!((never.status, never.code().as_str()), (400, "no_such_file"));
    master.ok("b2_delete_file_version", &version(&marker["fileId"], "f"));
    assert_eq!(master.download("hiding-bucket/f", &[]).body, b"one", "192");
    let first = master.call_version(1, "b2_hide_file", &hide).json();
    assert_eq!(first["size"], 0, "188: version 1 has the length under its old name too");
    assert_eq!(names(&master, &bucket), Vec::<String>::new());
    master.upload(&bucket, "f", b"two");
    assert_eq!(names(&master, &bucket), ["f"], "193");
    assert_eq!(master.download("hiding-bucket/f", &[]).body, b"two");
}

#[test]
fn native_194_to_197_199_a_version_is_deleted_by_both_its_names() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("deleting-bucket");
    let file = master.upload(&bucket, "f", b"x");
    let (id, shown) = (&file["fileId"], file["fileId"].as_str().unwrap());
    let refused = |fields: &Value| {
        let answer = master.call("b2_delete_file_version", fields);
        (answer.status, answer.code(), answer.message())
    };
    let absent = |text: String| (400, "file_not_present".to_owned(), text);
    assert_eq!(refused(&version(id, "g")), absent(format!("File not present: g {shown}")));
    let never = "4_z0123456789abcdef01234567_f1000000000000000_d20240101_m000000_c000_v0000000_t0000_u01704067200000";
    let older =
        "4_z0123456789abcdef01234567_f1000000000000000_d20240101_m000000_c002_v0001112_t0011";
    for unknown in [never, older, &shown.replace("_t0000", "_t0001")] {
        let expected = absent(format!("File not present: f {unknown}"));
        assert_eq!(refused(&version(&json!(unknown), "f")), expected);
    }
    for malformed in ["bad-id", "", &shown.to_uppercase(), &format!("{shown}x")] {
        let text = format!("Invalid fileId: {malformed}");
        let expected = (400, "bad_request".to_owned(), text);
        assert_eq!(refused(&version(&json!(malformed), "f")), expected);
    }
    let others: Vec<&str> =
        kiln::manifest::capabilities().into_iter().filter(|one| *one != "deleteFiles").collect();
    let answer =
        master.with_key(&others, None, None).call("b2_delete_file_version", &version(id, "f"));
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    assert_eq!(master.download("deleting-bucket/f", &[]).body, b"x", "nothing was deleted so far");
    assert_eq!(master.ok("b2_delete_file_version", &version(id, "f")), version(id, "f"));
    assert_eq!(refused(&version(id, "f")), absent(format!("File not present: f {shown}")));
}

#[test]
fn native_200_202_205_to_208_file_info_shows_what_the_upload_answered_to_those_who_may() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("looking-bucket");
    let headers = [("X-Bz-Info-Colour", "blue"), ("Content-Type", "a/b")];
    let file = master.try_upload(&bucket, "dir/f", b"content", &headers).json();
    let ask = json!({"fileId": file["fileId"]});
    for version in 1..=4 {
        let info = master.call_version(version, "b2_get_file_info", &ask);
        assert_eq!(info.json(), file, "version {version}");
    }
    assert_eq!(file["accountId"], MASTER_ID);
    let unlocked = json!({"isClientAuthorizedToRead": true,
        "value": {"mode": null, "retainUntilTimestamp": null}});
    let not_held = json!({"isClientAuthorizedToRead": true, "value": null});
    assert_eq!((&file["fileRetention"], &file["legalHold"]), (&unlocked, &not_held));
    let hidden = json!({"isClientAuthorizedToRead": false, "value": null});
    for (capability, retention, hold) in [
        ("readFileRetentions", &unlocked, &hidden),
        ("readFileLegalHolds", &hidden, &not_held),
        ("readFiles", &hidden, &hidden),
    ] {
        let session = master.with_key(&["readFiles", "listFiles", capability], None, None);
        let listed = session.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
        for shown in [&session.ok("b2_get_file_info", &ask), &listed["files"][0]] {
            assert_eq!((&shown["fileRetention"], &shown["legalHold"]), (retention, hold));
        }
    }
    let others: Vec<&str> =
        kiln::manifest::capabilities().into_iter().filter(|one| *one != "readFiles").collect();
    let answer = master.with_key(&others, None, None).call("b2_get_file_info", &ask);
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    let malformed = master.call("b2_get_file_info", &json!({"fileId": "bad-id"}));
    assert_eq!(
        (malformed.status, malformed.code().as_str(), malformed.message().as_str()),
        (400, "bad_request", "Invalid fileId: bad-id")
    );
    let never =
        "4_z0123456789abcdef01234567_f1000000000000000_d20240101_m000000_c002_v0001112_t0011";
    let unknown = master.call("b2_get_file_info", &json!({"fileId": never}));
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "not_found"));
    master.ok("b2_delete_file_version", &version(&file["fileId"], "dir/f"));
    let gone = master.call("b2_get_file_info", &ask);
    assert_eq!((gone.status, gone.code().as_str()), (404, "not_found"));
    let auth = [("Authorization", master.token.as_str())];
    let target = format!("/b2api/v4/b2_download_file_by_id?fileId={never}");
    assert_eq!(call(&server.address, "GET", &target, &auth, b"").status, 404, "302");
}
