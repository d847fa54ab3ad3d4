//! Input that is wrong on purpose: refused as Backblaze refuses it, nothing stored, nothing told.

use std::io::Read as _;

use serde_json::json;

use crate::support::http::{Connection, call};
use crate::support::server::{MASTER_KEY, Server};
use crate::support::wait_for;

#[test]
fn reliability_f1_to_f25_ambiguous_framing_is_refused_and_the_connection_closed() {
    let server = Server::start();
    for head in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    ] {
        let mut connection = Connection::open(&server.address).unwrap();
        connection.send_raw(head.as_bytes()).unwrap();
        let answer = connection.read(false);
        assert!(answer.is_err() || answer.unwrap().status == 400, "{head:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let mut connection = Connection::open(&server.address).unwrap();
    // The server may close before all of it is sent.
    drop(connection.send_raw(long.as_bytes()));
    assert!(connection.read(false).map_or(true, |answer| answer.status >= 400));
    assert_eq!(server.control("GET", "/healthz").status, 200);
}

#[test]
fn requests_that_no_operation_sees_are_answered_whole_and_the_connection_ends() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("header-bucket");
    let headers = |count: usize, bytes: usize| {
        (0..count).map(|at| format!("X-{at}: {}\r\n", "v".repeat(bytes))).collect::<String>()
    };
    for (request, status) in [
        ("no HTTP at all\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX y: z\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: \u{1}\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", headers(96, 1)), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", headers(90, 2000)), 431),
    ] {
        let mut connection = Connection::open(&server.address).unwrap();
        connection.send_raw(request.as_bytes()).unwrap();
        // What is left unread of a long request ends the connection hard, after the answer.
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = connection.stream().read(&mut chunk) {
            answer.extend_from_slice(&chunk[..read]);
        }
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
        assert!(answer.contains("\r\ncontent-length: 0\r\n"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "nothing follows: {answer}");
    }
    // Up to there kiln's own checks answer.
    let infos: Vec<(String, String)> =
        (0..85).map(|at| (format!("X-Bz-Info-n{at:02}"), "v".repeat(78))).collect();
    let mut headers: Vec<(&str, &str)> =
        infos.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let stored = master.try_upload(&bucket, "f", b"x", &headers);
    assert_eq!(stored.status, 200);
    assert_eq!(stored.json()["fileInfo"].as_object().unwrap().len(), 85);
    let long = "v".repeat(120_000);
    headers[0].1 = &long;
    let refused = master.try_upload(&bucket, "g", b"x", &headers);
    assert_eq!((refused.status, refused.code().as_str()), (400, "metadata_exceeded"));
}

#[test]
fn reliability_f26_r84_strangers_neither_hold_connections_nor_fill_the_log() {
    let server = Server::start_with(&["--http-idle-timeout-s", "1", "--test-controls"]);
    let master = server.master();
    let bucket = master.create_bucket("public-bucket");
    let public =
        json!({"accountId": master.account, "bucketId": bucket, "bucketType": "allPublic"});
    master.ok("b2_update_bucket", &public);
    master.upload(&bucket, "f", b"x");
    let data = server.address.as_str();
    let begun = [
        (data, "POST /", 405),
        (data, "PUT /some-bucket/k", 403),
        (data, "POST /b2api", 404),
        (data, "POST /b2api/v4/b2_upload_file/x/y", 401),
        (data, "POST /b2api/v4/b2_list_buckets", 401),
        (data, "POST /b2api/v4/b2_authorize_account", 401),
        (data, "GET /file/public-bucket/f", 200),
        (server.admin.as_str(), "GET /healthz", 200),
        (server.admin.as_str(), "PUT /nothing", 404),
    ];
    let ended: Vec<_> = begun
        .into_iter()
        .map(|(address, line, status)| {
            let mut connection = Connection::open(address).unwrap();
            // A body that never ends and is not asked for.
            let head =
                format!("{line} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
            connection.send_raw(head.as_bytes()).unwrap();
            let waiting = std::thread::spawn(move || connection.read_to_end());
            (line, status, waiting)
        })
        .collect();
    for (line, status, waiting) in ended {
        let answer = waiting.join().unwrap();
        let answer = answer.unwrap_or_else(|error| panic!("{line}: still open, {error}"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let whole = line.starts_with("PUT") || answer.starts_with(&format!("HTTP/1.1 {status} "));
        assert!(whole, "{line}: {answer}");
    }
    for _ in 0..20 {
        let mut connection = Connection::open(data).unwrap();
        connection.send_raw(b"no HTTP at all\r\n\r\n").unwrap();
        drop(connection.read_to_end());
    }
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

#[test]
fn reliability_f29_a_client_that_reads_nothing_is_left_after_ten_idle_limits() {
    let server = Server::start_with(&["--http-idle-timeout-s", "1", "--test-controls"]);
    let master = server.master();
    let bucket = master.create_bucket("unread-bucket");
    // More than the buffers of both sides hold.
    let whole = vec![3_u8; 40_000_000];
    master.upload(&bucket, "f", &whole);
    let open_files = || {
        let blobs = server.data_dir().join("blobs");
        let of_process = format!("/proc/{}/fd", server.pid());
        let targets = std::fs::read_dir(of_process).unwrap();
        let targets = targets.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(&blobs) && target.is_file()).count()
    };
    assert_eq!(open_files(), 0);
    let auth = [("Authorization", master.token.as_str())];
    let mut idle = Connection::open(&server.address).unwrap();
    idle.send("GET", "/file/unread-bucket/f", &auth, b"").unwrap();
    wait_for("the download has begun", || (open_files() == 1).then_some(()));
    // Another one, slow but reading, is not disturbed by the time it takes.
    let read = master.download("unread-bucket/f", &[]);
    assert_eq!((read.status, read.body.len()), (200, whole.len()));
    wait_for("the server has left the idle client", || (open_files() == 0).then_some(()));
    assert!(idle.read(false).is_err(), "what was not read is lost");
}

#[test]
fn native_153_reliability_f28_truncated_and_stalled_bodies_store_nothing() {
    let server = Server::start_with(&["--http-idle-timeout-s", "1", "--test-controls"]);
    let master = server.master();
    let bucket = master.create_bucket("stalled-bucket");
    for (length, body) in [(10, "short"), (100_000, "short")] {
        let (target, token) = master.upload_url(&bucket);
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nX-Bz-File-Name: f\r\n\
            Content-Type: b2/x-auto\r\nX-Bz-Content-Sha1: do_not_verify\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut stalled = Connection::open(&server.address).unwrap();
        stalled.send_raw(head.as_bytes()).unwrap();
        let answer = stalled.read(false).unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
        let (target, token) = master.upload_url(&bucket);
        let head = head.replace(
            &format!("POST {}", head.split(' ').nth(1).unwrap()),
            &format!("POST {target}"),
        );
        let mut cut = Connection::open(&server.address).unwrap();
        cut.send_raw(
            head.replace("Authorization: ", &format!("Authorization: {token}\r\nX-Old: "))
                .as_bytes(),
        )
        .unwrap();
        cut.stream().shutdown(std::net::Shutdown::Write).unwrap();
        assert!(cut.read(false).map_or(true, |answer| answer.status >= 400));
    }
    let versions = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    assert_eq!(versions["files"], json!([]));
}

#[test]
fn reliability_f28_a_body_that_trickles_is_given_up_and_a_slow_one_is_not() {
    let server = Server::start_with(&["--http-idle-timeout-s", "1", "--test-controls"]);
    let master = server.master();
    let bucket = master.create_bucket("trickle-bucket");
    // A piece every 100 ms, for at least as long as three idle limits.
    let send = |piece: usize| {
        let (target, token) = master.upload_url(&bucket);
        let (count, length) = (32, 32 * piece);
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nX-Bz-File-Name: f\r\n\
             Content-Type: b2/x-auto\r\nX-Bz-Content-Sha1: do_not_verify\r\nContent-Length: {length}\r\n\r\n"
        );
        let mut connection = Connection::open(&server.address).unwrap();
        connection.send_raw(head.as_bytes()).unwrap();
        let pause = std::time::Duration::from_millis(100);
        for _ in 0..count {
            // Refused pieces are what is waited for; the answer tells.
            drop(connection.send_raw(&vec![b'x'; piece]));
            std::thread::sleep(pause);
        }
        connection.read(false).unwrap()
    };
    let trickle = send(1);
    assert_eq!((trickle.status, trickle.code().as_str()), (408, "request_timeout"));
    assert_eq!(send(200).status, 200, "2 KB a second are enough");
    let versions = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    assert_eq!(versions["files"].as_array().unwrap().len(), 1);
}

#[test]
fn reliability_d_hostile_names_reach_no_file_and_are_refused_or_kept_as_they_are() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("hostile-bucket");
    for name in [
        "../x",
        "a/../../x",
        "...",
        "C:%5Cx",
        "%252e",
        "lost%2Bfound",
        "'; DROP TABLE files; --",
        "%25_%25",
    ] {
        let encoded = name.replace(' ', "%20");
        let stored = master.upload(&bucket, &encoded, name.as_bytes());
        assert_eq!(stored["action"], "upload");
        let answer = master.download(&format!("hostile-bucket/{encoded}"), &[]);
        assert_eq!(answer.body, name.as_bytes(), "{name}");
    }
    let auth = [("Authorization", master.token.as_str())];
    for path in ["%00", "%c0%ae%c0%ae/x", "%ff"] {
        let answer =
            call(&server.address, "GET", &format!("/file/hostile-bucket/{path}"), &auth, b"");
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
    }
    let literal = master.ok("b2_list_file_names", &json!({"bucketId": bucket, "prefix": "%"}));
    assert_eq!(literal["files"].as_array().unwrap().len(), 2, "wildcards mean nothing in a prefix");
}

#[test]
fn reliability_h_f43_deep_long_and_doubled_json_is_refused_before_it_costs_much() {
    let server = Server::start();
    let master = server.master();
    let auth = [("Authorization", master.token.as_str())];
    let send =
        |body: &[u8]| call(&server.address, "POST", "/b2api/v4/b2_list_buckets", &auth, body);
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    assert_eq!(send(deep.as_bytes()).code(), "bad_json");
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(2_000_000));
    assert_eq!(send(long.as_bytes()).status, 413);
    assert_eq!(send(b"{\"accountId\":\"a\"}{}").code(), "bad_json");
    assert_eq!(send(&[0xff, 0xfe]).code(), "bad_json");
    assert_eq!(server.control("GET", "/readyz").status, 200);
}

#[test]
fn reliability_k1_no_secret_reaches_the_log_or_an_error() {
    let server = Server::start_with(&["--test-controls", "--log-level", "trace"]);
    let master = server.master();
    let bucket = master.create_bucket("secret-bucket");
    let (id, key) = master.create_key(&["listFiles"], None, None);
    drop(crate::support::server::Session::authorize(&server.address, &id, &key).unwrap());
    let (target, token) = master.upload_url(&bucket);
    let headers = [
        ("Authorization", token.as_str()),
        ("X-Bz-File-Name", "%zz"),
        ("Content-Type", "b2/x-auto"),
        ("X-Bz-Content-Sha1", "do_not_verify"),
    ];
    let refused = call(&server.address, "POST", &target, &headers, b"x");
    assert_eq!(refused.status, 400);
    let log = server.log();
    assert!(log.contains("b2_upload_file"), "requests are logged at this level");
    for secret in [MASTER_KEY, key.as_str(), token.as_str(), master.token.as_str()] {
        assert!(!log.contains(secret), "a secret is in the log");
        assert!(!String::from_utf8_lossy(&refused.body).contains(secret));
    }
    assert!(!log.contains("panicked"));
}
