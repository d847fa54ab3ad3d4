//! Bodies in every form, and what is said of them.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use serde_json::json;

use crate::support::http::{Answer, Connection};
use crate::support::s3::{
    Request, Signer, UNSIGNED, element, http_chunks, plain_chunks, refused, sha256_hex,
};
use crate::support::server::{Server, Session};
use crate::support::tls::connect;
use crate::support::wait_for;

const SIGNED_CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const SIGNED_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
const PLAIN_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
const CRC: &str = "x-amz-checksum-crc32";
/// Of `content`.
const CRC_OF_CONTENT: &str = "/sUwqQ==";
/// More than is kept inside of the catalog.
const LARGE: usize = 100_000;

struct House {
    server: Server,
    master: Session,
    bucket: String,
    signer: Signer,
}

fn house(arguments: &[&str]) -> House {
    let server = Server::start_with(&[&["--test-controls"], arguments].concat());
    let master = server.master();
    let bucket = master.create_bucket("bodies-bucket");
    let signer = Signer::of(&server, &master);
    House { server, master, bucket, signer }
}

fn put() -> Request {
    Request::new("PUT", "/bodies-bucket/k")
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

impl House {
    fn send(&self, request: &Request) -> Answer {
        request.send(&self.server.address)
    }

    /// Sends, and expects to be refused and that nothing is left of it.
    fn refuses(&self, request: &Request) -> (u16, String) {
        let answer = self.send(request);
        let left = self.left();
        assert_eq!(left, (0, 0), "{}: nothing is stored", String::from_utf8_lossy(&answer.body));
        refused(&answer)
    }

    /// Versions in the bucket and files of content on the disk.
    fn left(&self) -> (usize, usize) {
        let listed = self.master.ok("b2_list_file_versions", &json!({"bucketId": self.bucket}));
        let versions = listed["files"].as_array().unwrap().len();
        let files = wait_for("content that nobody shows is removed", || {
            let files = files_below(&self.server.data_dir().join("blobs"));
            (files == 0 || versions > 0).then_some(files)
        });
        (versions, files)
    }

    fn read(&self) -> Vec<u8> {
        let answer = self.send(&self.signer.sign(Request::new("GET", "/bodies-bucket/k")));
        assert_eq!(answer.status, 200);
        answer.body
    }

    /// A request that announces chunks, without its body.
    fn chunked(&self, mode: &str, length: usize, trailer: &str) -> Request {
        let request = put()
            .header("content-encoding", "aws-chunked")
            .header("x-amz-content-sha256", mode)
            .header("x-amz-decoded-content-length", &length.to_string());
        let request =
            if trailer.is_empty() { request } else { request.header("x-amz-trailer", trailer) };
        self.signer.sign(request)
    }
}

fn refused_with(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn s3_36_37_reliability_c10_the_sha256_of_a_body_is_compared_where_it_is_signed() {
    let house = house(&[]);
    for content in [&b"content"[..], &vec![7; LARGE]] {
        let other = put().header("x-amz-content-sha256", &sha256_hex(b"other"));
        let request = house.signer.sign(other).body(content);
        assert_eq!(house.refuses(&request), refused_with(400, "XAmzContentSHA256Mismatch"));
        let presigned = put().header("x-amz-content-sha256", &sha256_hex(b"other"));
        let presigned = house.signer.presign(presigned, "60").body(content);
        // The address was signed as if nothing were said of the body.
        assert_eq!(house.refuses(&presigned), refused_with(403, "SignatureDoesNotMatch"));
    }
    for garbage in ["", "00", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "unsigned-payload"] {
        let request = house.signer.sign(put().header("x-amz-content-sha256", garbage)).body(b"x");
        assert_eq!(house.refuses(&request), refused_with(400, "InvalidRequest"), "{garbage}");
    }
    let unsigned = house.signer.sign(put().header("x-amz-content-sha256", UNSIGNED)).body(b"any");
    assert_eq!(house.send(&unsigned).status, 200);
    assert_eq!(house.read(), b"any");
    let signed = house.signer.sign(put().body(&vec![7; LARGE]));
    assert_eq!(house.send(&signed).status, 200);
    assert_eq!(house.read(), vec![7; LARGE]);
}

#[test]
fn s3_38_39_signed_chunks_are_stored_and_one_wrong_byte_keeps_all_of_them_out() {
    let house = house(&[]);
    let (first, second) = (vec![b'a'; 65_536], vec![b'a'; 1024]);
    let contents = [&first[..], &second];
    let crc32c = "x-amz-checksum-crc32c";
    let trailer = [(crc32c, "sOO8/Q==")];
    for (mode, trailer) in [(SIGNED_CHUNKS, &[][..]), (SIGNED_TRAILER, &trailer)] {
        let name = trailer.first().map_or("", |(name, _)| *name);
        let make = || {
            let request = house.chunked(mode, 66_560, name);
            let body = house.signer.chunks(&request, &contents, trailer);
            request.body(&body)
        };
        let damage = |what: &str, by: &dyn Fn(&mut Vec<u8>)| {
            let mut request = make();
            by(&mut request.body);
            let expected = refused_with(403, "SignatureDoesNotMatch");
            assert_eq!(house.refuses(&request), expected, "{mode}: {what}");
        };
        damage("a byte of the first chunk", &|body| body[1000] = b'b');
        damage("a byte of the second chunk", &|body| body[66_000] = b'b');
        let last = if trailer.is_empty() { "chunk-signature=" } else { "trailer-signature:" };
        damage("the last signature", &|body| {
            let text = String::from_utf8(body.clone()).unwrap();
            let at = text.rfind(last).unwrap() + last.len();
            body[at] = if body[at] == b'0' { b'1' } else { b'0' };
        });
        let mut cut = make();
        cut.body.truncate(66_000);
        assert_eq!(house.refuses(&cut), refused_with(400, "IncompleteBody"));
    }
    for (mode, trailer) in [(SIGNED_CHUNKS, &[][..]), (SIGNED_TRAILER, &trailer)] {
        let name = trailer.first().map_or("", |(name, _)| *name);
        let request = house.chunked(mode, 66_560, name);
        let body = house.signer.chunks(&request, &contents, trailer);
        let answer = house.send(&request.body(&body));
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(house.read(), vec![b'a'; 66_560]);
    }
}

#[test]
fn s3_40_what_boto3_sends_over_tls_is_stored() {
    let mut house = house(&[]);
    assert_eq!(house.server.terminate(), Some(0));
    let tls = Server::start_in(house.server.data_dir(), &["--tls-self-signed"]);
    let trusted = std::fs::read_to_string(tls.data_dir().join("tls-cert.pem")).unwrap();
    house.signer = Signer::with_key(&tls, house.signer.key.clone(), house.signer.secret.clone());
    let over_tls = |request: &Request| {
        let (mut connection, ..) = connect(&tls.address, "localhost", &trusted, &[]).unwrap();
        request.send_over(&mut connection).unwrap()
    };
    let content: Vec<u8> = (0..LARGE).map(|n| n.to_le_bytes()[0]).collect();
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32IsoHdlc);
    crc.update(&content);
    let crc = STANDARD.encode(u32::try_from(crc.finalize()).unwrap().to_be_bytes());
    let request = house.chunked(PLAIN_TRAILER, content.len(), CRC);
    let request = request.header("transfer-encoding", "chunked").header("expect", "100-continue");
    let inner = plain_chunks(&[&content], &[(CRC, &crc)]);
    let request = request.body(&http_chunks(&inner, 7919));
    let stored = over_tls(&request);
    assert_eq!(stored.status, 200, "{}", String::from_utf8_lossy(&stored.body));
    assert_eq!(stored.header(CRC), Some(crc.as_str()));
    let read = over_tls(&house.signer.sign(Request::new("GET", "/bodies-bucket/k")));
    assert!(read.body == content, "the content comes back");
    assert_eq!(read.header("content-encoding"), None);
}

#[test]
fn s3_41_42_reliability_c12_c13_c14_trailers_and_lengths_are_exact() {
    let house = house(&[]);
    let body = plain_chunks(&[b"con", b"tent"], &[(CRC, CRC_OF_CONTENT)]);
    let with = |trailer: &[(&str, &str)]| {
        house.chunked(PLAIN_TRAILER, 7, CRC).body(&plain_chunks(&[b"content"], trailer))
    };
    for (trailer, code) in [
        (&[(CRC, "AAAAAA==")][..], "BadDigest"),
        (&[], "MalformedTrailerError"),
        (&[("x-amz-checksum-crc32c", CRC_OF_CONTENT)], "MalformedTrailerError"),
        (&[(CRC, CRC_OF_CONTENT), (CRC, CRC_OF_CONTENT)], "MalformedTrailerError"),
    ] {
        assert_eq!(house.refuses(&with(trailer)), refused_with(400, code), "{trailer:?}");
    }
    let undeclared = house.chunked(PLAIN_TRAILER, 7, "").body(&body);
    assert_eq!(house.refuses(&undeclared), refused_with(400, "MalformedTrailerError"));
    for length in [0, 6, 8, usize::MAX] {
        let request = house.chunked(PLAIN_TRAILER, length, CRC).body(&body);
        let (status, code) = house.refuses(&request);
        let too_large = length == usize::MAX && code == "EntityTooLarge";
        assert!(status == 400 && (code == "IncompleteBody" || too_large), "{length}: {code}");
    }
    let unsaid = put().header("x-amz-content-sha256", PLAIN_TRAILER).header("x-amz-trailer", CRC);
    let unsaid = house.signer.sign(unsaid);
    assert_eq!(house.refuses(&unsaid.body(&body)), refused_with(411, "MissingContentLength"));
    for length in ["-1", "x", ""] {
        let request = put()
            .header("x-amz-content-sha256", PLAIN_TRAILER)
            .header("x-amz-decoded-content-length", length)
            .header("x-amz-trailer", CRC);
        let request = house.signer.sign(request).body(&body);
        assert_eq!(house.refuses(&request), refused_with(400, "InvalidArgument"), "{length}");
    }
    // Chunks need a right signature of the request, wherever it stands.
    let wrong = Signer { secret: "K000nobody".to_owned(), ..house.signer.clone() };
    let chunked = put()
        .header("x-amz-content-sha256", PLAIN_TRAILER)
        .header("x-amz-decoded-content-length", "7")
        .header("x-amz-trailer", CRC);
    let in_header = wrong.sign(chunked.clone()).body(&body);
    assert_eq!(house.refuses(&in_header), refused_with(403, "SignatureDoesNotMatch"));
    for signer in [&wrong, &house.signer] {
        let in_address = signer.presign(chunked.clone(), "60").body(&body);
        assert_eq!(house.refuses(&in_address), refused_with(403, "AccessDenied"));
    }
    let nobody = chunked.header("host", &house.signer.host).body(&body);
    assert_eq!(house.refuses(&nobody), refused_with(403, "AccessDenied"));
    let right = house.chunked(PLAIN_TRAILER, 7, CRC).body(&body);
    assert_eq!(house.send(&right).status, 200);
    assert_eq!(house.read(), b"content");
}

#[test]
fn s3_43_chunks_without_measure_are_refused_before_their_end() {
    let house = house(&[]);
    let endless_line = [&b"7;x="[..], &[b'a'; 4000]].concat();
    let endless_trailer = [&b"7\r\ncontent\r\n0\r\na:"[..], &vec![b'a'; 40_000]].concat();
    let trailers: Vec<u8> = (0..300).flat_map(|n| format!("a{n}:b\r\n").into_bytes()).collect();
    let trailers = [b"7\r\ncontent\r\n0\r\n", &trailers[..]].concat();
    for body in [&endless_line[..], &endless_trailer, &trailers, b"8000000000000000\r\ncontent"] {
        let mut request = house.chunked(PLAIN_TRAILER, 7, CRC).body(body);
        // More is announced than comes: the answer must not wait for it.
        request = request.header("content-length", "100000000");
        let mut connection = Connection::open(&house.server.address).unwrap();
        let answer = request.send_over(&mut connection).unwrap();
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(house.left(), (0, 0));
    }
}

#[test]
fn s3_44_only_the_form_of_the_body_goes_from_the_stored_encoding() {
    let house = house(&[]);
    for (sent, stored) in [
        ("aws-chunked", None),
        ("gzip", Some("gzip")),
        ("gzip, aws-chunked", Some("gzip")),
        ("aws-chunked,gzip", Some("gzip")),
        ("aws-chunked, gzip, deflate", Some("gzip, deflate")),
        ("deflate,aws-chunked,gzip", Some("deflate,gzip")),
    ] {
        let request = put().header("content-encoding", sent).body(b"content");
        assert_eq!(house.send(&house.signer.sign(request)).status, 200, "{sent}");
        let read = house.send(&house.signer.sign(Request::new("GET", "/bodies-bucket/k")));
        let normal = |text: &str| text.replace(", ", ",");
        let shown = read.header("content-encoding").map(normal);
        assert_eq!(shown, stored.map(normal), "{sent}");
    }
}

#[test]
fn s3_45_content_md5_is_compared() {
    let house = house(&[]);
    let md5 = |content: &[u8]| STANDARD.encode(Md5::digest(content));
    let with = |value: &str| house.signer.sign(put().header("content-md5", value).body(b"content"));
    for wrong in ["", "x", "AAAA", "bm90IGFuIE1ENSBhdCBhbGwgbm90IG9uZQ=="] {
        assert_eq!(house.refuses(&with(wrong)), refused_with(400, "InvalidDigest"), "{wrong}");
    }
    assert_eq!(house.refuses(&with(&md5(b"other"))), refused_with(400, "BadDigest"));
    let large = put().header("content-md5", &md5(b"other")).body(&vec![7; LARGE]);
    assert_eq!(house.refuses(&house.signer.sign(large)), refused_with(400, "BadDigest"));
    assert_eq!(house.send(&with(&md5(b"content"))).status, 200);
}

#[test]
fn s3_46_checksums_are_compared_and_told_again() {
    let house = house(&[]);
    let with = |headers: &[(&str, &str)]| {
        let mut request = put().body(b"content");
        for (name, value) in headers {
            request.headers.push(((*name).to_owned(), (*value).to_owned()));
        }
        house.signer.sign(request)
    };
    let names = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"];
    let values = names.map(|name| {
        let name = format!("x-amz-checksum-{name}");
        let value = checksum(&name, b"content");
        (name, value)
    });
    for (name, value) in &values {
        let name = name.as_str();
        let other = checksum(name, b"other");
        let answer = house.send(&with(&[(name, &other)]));
        assert_eq!(refused(&answer), refused_with(400, "BadDigest"));
        for wrong in ["AAA=", "", "not base64"] {
            let answer = house.send(&with(&[(name, wrong)]));
            let expected = refused_with(400, "InvalidRequest");
            assert_eq!(refused(&answer), expected, "{name}: {wrong}");
        }
        let stored = house.send(&with(&[(name, value)]));
        assert_eq!((stored.status, stored.header(name)), (200, Some(value.as_str())));
    }
    let two = with(&[(CRC, &values[0].1), ("x-amz-checksum-sha1", &values[3].1)]);
    assert_eq!(refused(&house.send(&two)), refused_with(400, "InvalidRequest"));
}

#[test]
fn s3_47_checksums_are_shown_to_whoever_asks_for_the_whole() {
    let house = house(&[]);
    for name in ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"] {
        let name = &format!("x-amz-checksum-{name}");
        let value = checksum(name, b"content");
        let request = put().header(name, &value).body(b"content");
        assert_eq!(house.send(&house.signer.sign(request)).status, 200);
        for method in ["GET", "HEAD"] {
            let request = Request::new(method, "/bodies-bucket/k");
            let asked = request.clone().header("x-amz-checksum-mode", "ENABLED");
            let shown = house.send(&house.signer.sign(asked.clone()));
            assert_eq!(shown.header(name), Some(value.as_str()), "{method}");
            assert_eq!(shown.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
            let unasked = house.send(&house.signer.sign(request));
            assert_eq!(unasked.header(name), None, "{method}");
            let ranged = house.send(&house.signer.sign(asked.header("range", "bytes=0-1")));
            assert_eq!((ranged.status, ranged.header(name)), (206, None), "{method}");
        }
    }
    let crc = checksum(CRC, b"content");
    let body = plain_chunks(&[b"content"], &[(CRC, &crc)]);
    assert_eq!(house.send(&house.chunked(PLAIN_TRAILER, 7, CRC).body(&body)).status, 200);
    let asked = Request::new("HEAD", "/bodies-bucket/k").header("x-amz-checksum-mode", "ENABLED");
    assert_eq!(house.send(&house.signer.sign(asked)).header(CRC), Some(crc.as_str()), "a trailer");
}

/// The value of a checksum header for some content.
fn checksum(header: &str, content: &[u8]) -> String {
    use crc_fast::CrcAlgorithm as Crc;
    let crc = |algorithm, bytes: usize| {
        let mut digest = crc_fast::Digest::new(algorithm);
        digest.update(content);
        digest.finalize().to_be_bytes()[8 - bytes..].to_vec()
    };
    let value = match header.rsplit_once('-').unwrap().1 {
        "crc32" => crc(Crc::Crc32IsoHdlc, 4),
        "crc32c" => crc(Crc::Crc32Iscsi, 4),
        "crc64nvme" => crc(Crc::Crc64Nvme, 8),
        "sha1" => sha1::Sha1::digest(content).to_vec(),
        "sha256" => sha2::Sha256::digest(content).to_vec(),
        other => panic!("no checksum {other}"),
    };
    STANDARD.encode(value)
}

#[test]
fn s3_48_checksums_are_refused_where_the_operator_wants_it() {
    let house = house(&["--s3-checksum-support=reject"]);
    for (name, value) in [
        (CRC, CRC_OF_CONTENT),
        ("x-amz-sdk-checksum-algorithm", "CRC32"),
        ("x-amz-checksum-mode", "ENABLED"),
        ("x-amz-trailer", CRC),
    ] {
        let request = house.signer.sign(put().header(name, value).body(b"content"));
        let answer = house.send(&request);
        assert_eq!(refused(&answer), refused_with(400, "InvalidArgument"));
        let text = format!("Unsupported header '{name}' received for this API call.");
        assert_eq!(element(&answer, "Message").replace("&apos;", "'"), text);
    }
    assert_eq!(house.left(), (0, 0));
    assert_eq!(house.send(&house.signer.sign(put().body(b"content"))).status, 200);
}

#[test]
fn s3_49_reliability_f35_a_body_that_breaks_off_leaves_nothing() {
    let house = house(&[]);
    for sent in [0, 1, 1000, 50_000, LARGE - 1] {
        let request = house.signer.sign(put().body(&vec![7; LARGE]));
        let mut connection = Connection::open(&house.server.address).unwrap();
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let length = LARGE.to_string();
        let headers = [&headers[..], &[("content-length", length.as_str())]].concat();
        connection.send("PUT", &request.target(), &headers, &request.body[..sent]).unwrap();
        connection.stream().shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(house.left(), (0, 0), "after {sent} bytes");
    }
    let chunked = house.chunked(PLAIN_TRAILER, LARGE, CRC);
    let mut connection = Connection::open(&house.server.address).unwrap();
    let chunked = chunked.header("content-length", "200000").body(b"186a0\r\nhalf of a chunk");
    let headers: Vec<(&str, &str)> =
        chunked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    connection.send("PUT", &chunked.target(), &headers, &chunked.body).unwrap();
    drop(connection);
    assert_eq!(house.left(), (0, 0));
}

#[test]
fn s3_50_reliability_e12_what_is_too_large_or_not_signed_is_refused_before_its_body() {
    let house = house(&[]);
    let too_large = house.signer.sign(put().header("x-amz-content-sha256", UNSIGNED));
    let too_large = too_large.header("content-length", "5368709121");
    let answer = house.send(&too_large);
    assert_eq!(refused(&answer), refused_with(400, "EntityTooLarge"));
    let decoded = put()
        .header("x-amz-content-sha256", PLAIN_TRAILER)
        .header("x-amz-decoded-content-length", "5368709121");
    let decoded = house.signer.sign(decoded).header("content-length", "5368709999");
    assert_eq!(refused(&house.send(&decoded)), refused_with(400, "EntityTooLarge"));
    let wrong = Signer { secret: "K000nobody".to_owned(), ..house.signer.clone() };
    let unsigned = wrong.sign(put().header("x-amz-content-sha256", UNSIGNED));
    let answer = house.send(&unsigned.header("content-length", "4000000000"));
    assert_eq!(refused(&answer), refused_with(403, "SignatureDoesNotMatch"));
    let unsaid = house.signer.sign(put().header("x-amz-content-sha256", UNSIGNED));
    let unsaid = unsaid.header("transfer-encoding", "chunked").body(&http_chunks(b"content", 3));
    assert_eq!(refused(&house.send(&unsaid)), refused_with(411, "MissingContentLength"));
    assert_eq!(house.left(), (0, 0));
}

#[test]
fn reliability_f30_a_byte_a_chunk_is_slow_and_harmless() {
    let house = house(&[]);
    let content = vec![b'x'; 50_000];
    let chunks: Vec<&[u8]> = content.chunks(1).collect();
    let crc = checksum(CRC, &content);
    let body = plain_chunks(&chunks, &[(CRC, &crc)]);
    let request = house.chunked(PLAIN_TRAILER, content.len(), CRC).body(&body);
    assert_eq!(house.send(&request).status, 200);
    assert_eq!(house.read(), content);
    let some = &chunks[..2000];
    let request = house.chunked(SIGNED_CHUNKS, some.len(), "");
    let body = house.signer.chunks(&request, some, &[]);
    assert_eq!(house.send(&request.body(&body)).status, 200);
    assert_eq!(house.read(), vec![b'x'; 2000]);
}

#[test]
fn xml_bodies_are_compared_with_what_is_said_of_them_too() {
    let house = house(&[]);
    house.master.upload(&house.bucket, "k", b"content");
    let xml = b"<Delete><Object><Key>k</Key></Object></Delete>";
    let delete = || Request::new("POST", "/bodies-bucket?delete").body(xml);
    let sent = |request: Request| house.send(&house.signer.sign(request));
    let sha256 = "x-amz-checksum-sha256";
    let other = delete().header("x-amz-content-sha256", &sha256_hex(b"other"));
    let other = other.header(CRC, &checksum(CRC, xml));
    assert_eq!(refused(&sent(other)), refused_with(400, "XAmzContentSHA256Mismatch"));
    let wrong = delete().header(sha256, &checksum(sha256, b"other"));
    assert_eq!(refused(&sent(wrong)), refused_with(400, "BadDigest"));
    let md5 = |content: &[u8]| STANDARD.encode(Md5::digest(content));
    let wrong = delete().header("content-md5", &md5(b"other"));
    assert_eq!(refused(&sent(wrong)), refused_with(400, "BadDigest"));
    assert_eq!(house.left().0, 1, "nothing was deleted or hidden");
    let mut connection = Connection::open(&house.server.address).unwrap();
    let large = delete().header("x-amz-content-sha256", UNSIGNED).header(CRC, &checksum(CRC, xml));
    let large = house.signer.sign(large).body(&vec![b' '; 3_000_000]);
    let answer = large.send_over(&mut connection).unwrap();
    assert_eq!(answer.status, 400, "{}", element(&answer, "Code"));
    for right in
        [delete().header("content-md5", &md5(xml)), delete().header(sha256, &checksum(sha256, xml))]
    {
        assert_eq!(sent(right).status, 200);
    }
}
