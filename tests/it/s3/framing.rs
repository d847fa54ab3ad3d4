//! HTTP that is not as it should be, on addresses of S3.

use std::time::Duration;

use serde_json::json;

use crate::support::http::Connection;
use crate::support::s3::{Request, Signer, UNSIGNED, element, refused};
use crate::support::server::{Server, Session};

fn house(arguments: &[&str]) -> (Server, Session, String, Signer) {
    let server = Server::start_with(&[&["--test-controls"], arguments].concat());
    let master = server.master();
    let bucket = master.create_bucket("framed-bucket");
    let signer = Signer::of(&server, &master);
    (server, master, bucket, signer)
}

fn versions(master: &Session, bucket: &str) -> usize {
    let listed = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    listed["files"].as_array().unwrap().len()
}

/// A signed upload as bytes, with `more` in the place of its length and `body` behind it.
fn raw_put(signer: &Signer, more: &str, body: &str) -> String {
    let request = Request::new("PUT", "/framed-bucket/k").header("x-amz-content-sha256", UNSIGNED);
    let request = signer.sign(request);
    let lines: String =
        request.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("PUT /framed-bucket/k HTTP/1.1\r\n{lines}{more}\r\n{body}")
}

#[test]
fn s3_159_reliability_f1_f25_a_request_with_two_lengths_is_closed_and_no_second_one_is_seen() {
    let (server, master, bucket, signer) = house(&[]);
    let second = "GET /framed-bucket/second HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (more, body) in [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"),
        ("Content-Length: 4\r\nContent-Length: 5\r\n", "abcd"),
        ("Content-Length: +4\r\n", "abcd"),
        ("Content-Length: 0x4\r\n", "abcd"),
        ("Content-Length: -1\r\n", ""),
        ("Content-Length: 4, 4\r\n", "abcd"),
        ("Content-Length: 99999999999999999999\r\n", ""),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "zz\r\nabcd\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\nabcd\r\n0\r\n\r\n"),
        ("Content-Length : 4\r\n", "abcd"),
        ("X-Odd\r\n", ""),
    ] {
        let raw = raw_put(&signer, more, &format!("{body}{second}"));
        let mut connection = Connection::open(&server.address).unwrap();
        connection.send_raw(raw.as_bytes()).unwrap();
        let told = connection.read_to_end().unwrap_or_default();
        let told = String::from_utf8_lossy(&told).into_owned();
        assert!(told.starts_with("HTTP/1.1 4"), "{more:?}: {told:?}");
        assert_eq!(told.matches("HTTP/1.1 ").count(), 1, "{more:?}: {told}");
        assert_eq!(versions(&master, &bucket), 0, "{more:?}");
    }
}

#[test]
fn reliability_f28_a_body_that_comes_too_slowly_is_given_up() {
    let (server, master, bucket, signer) = house(&["--http-idle-timeout-s=1"]);
    for body in ["", "ab"] {
        let mut connection = Connection::open(&server.address).unwrap();
        let raw = raw_put(&signer, "Content-Length: 4\r\n", body);
        connection.send_raw(raw.as_bytes()).unwrap();
        let answer = connection.read(false).unwrap();
        assert_eq!(refused(&answer), (400, "RequestTimeout".to_owned()), "{body}");
    }
    assert_eq!(versions(&master, &bucket), 0);
}

#[test]
fn reliability_f32_c27_huge_heads_are_refused_and_bounded() {
    let (server, _, _, signer) = house(&[]);
    let long_list = "x;".repeat(50_000);
    let signed = signer.sign(Request::new("GET", "/framed-bucket"));
    let header =
        signed.value("authorization").unwrap().replace("host;", &format!("host;{long_list}"));
    let long_query = format!("/framed-bucket?X-Amz-Signature={}", "0".repeat(60_000));
    let many = (0..500).fold(signed.clone(), |request, n| request.header(&format!("x-h-{n}"), "v"));
    for request in [
        signed.clone().header("authorization", &header),
        Request::new("GET", &long_query).header("host", &signer.host),
        many,
        signed.clone().header("x-amz-meta-a", &"v".repeat(200_000)),
    ] {
        let mut connection = Connection::open(&server.address).unwrap();
        // The server may answer, or end the connection, before all of it is sent.
        if let Ok(answer) = request.send_over(&mut connection) {
            assert!((400..500).contains(&answer.status), "{}", answer.status);
        }
    }
    assert_eq!(signed.send(&server.address).status, 200, "it goes on");
}

#[test]
fn reliability_e9_e12_bodies_are_stored_as_they_come_and_refusals_do_not_wait_for_them() {
    let (server, master, bucket, signer) = house(&[]);
    // What says to be gzip and is not: nobody looks.
    let put = Request::new("PUT", "/framed-bucket/k").header("content-encoding", "gzip");
    assert_eq!(signer.sign(put.body(b"no gzip at all")).send(&server.address).status, 200);
    let read = signer.sign(Request::new("GET", "/framed-bucket/k")).send(&server.address);
    assert_eq!(
        (read.body.as_slice(), read.header("content-encoding")),
        (&b"no gzip at all"[..], Some("gzip"))
    );

    let wrong = Signer { secret: "K000nobody".to_owned(), ..signer };
    let mut connection = Connection::open(&server.address).unwrap();
    let raw = raw_put(&wrong, "Content-Length: 1000000000\r\nExpect: 100-continue\r\n", "");
    connection.send_raw(raw.as_bytes()).unwrap();
    connection.stream().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let answer = connection.read(false).unwrap();
    assert_eq!(refused(&answer), (403, "SignatureDoesNotMatch".to_owned()));
    assert_eq!(versions(&master, &bucket), 1);
}

#[test]
fn reliability_c21_a_deletion_that_is_sent_again_changes_nothing_more() {
    let (server, master, bucket, signer) = house(&[]);
    let file = master.upload(&bucket, "k", b"content");
    let version = file["fileId"].as_str().unwrap();
    let target = format!("/framed-bucket/k?versionId={version}");
    let delete = signer.sign(Request::new("DELETE", &target));
    for _ in 0..3 {
        let answer = delete.send(&server.address);
        assert_eq!(answer.status, 204, "{}", element(&answer, "Code"));
        assert_eq!(versions(&master, &bucket), 0);
    }
}

#[test]
fn s3_160_strangers_by_the_thousand_leave_nothing_in_memory() {
    let (server, _, _, signer) = house(&[]);
    let kilobytes = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    };
    let mut connection = Connection::open(&server.address).unwrap();
    let mut strangers = |from: u32, to: u32| {
        for number in from..to {
            let stranger = Signer { key: format!("{number:025x}"), ..signer.clone() };
            let request = Request::new("GET", &format!("/framed-bucket/{number}"));
            let answer = stranger.presign(request, "60").send_over(&mut connection).unwrap();
            assert_eq!(refused(&answer), (403, "InvalidAccessKeyId".to_owned()));
        }
    };
    strangers(0, 1000);
    let before = kilobytes();
    strangers(1000, 10_000);
    let after = kilobytes();
    assert!(after < before + 2048, "{before} kB before, {after} kB after");
}

#[test]
fn s3_43_reliability_f44_large_bodies_in_chunks_take_little_memory() {
    const CHUNK: usize = 8 * 1024 * 1024;
    const CHUNKS: usize = 24;
    let (server, _, _, signer) = house(&[]);
    let content = vec![b'x'; CHUNK];
    let request = Request::new("PUT", "/framed-bucket/large")
        .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        .header("x-amz-decoded-content-length", &(CHUNK * CHUNKS).to_string());
    let request = signer.sign(request);
    let contents: Vec<&[u8]> = vec![&content; CHUNKS];
    let body = signer.chunks(&request, &contents, &[]);
    let pid = server.pid();
    let kilobytes = |field: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    };
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let before = kilobytes("VmRSS");
    let mut connection = Connection::open(&server.address).unwrap();
    let headers: Vec<(&str, &str)> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let length = body.len().to_string();
    let headers = [&headers[..], &[("content-length", length.as_str())]].concat();
    connection.send("PUT", &request.target(), &headers, b"").unwrap();
    for piece in body.chunks(1024 * 1024) {
        connection.send_raw(piece).unwrap();
    }
    let answer = connection.read(false).unwrap();
    assert_eq!(answer.status, 200, "{}", element(&answer, "Message"));
    let peak = kilobytes("VmHWM");
    assert!(peak < before + 16 * 1024, "{before} kB before, {peak} kB at most");
}
