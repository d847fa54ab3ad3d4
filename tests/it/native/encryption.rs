//! Server-side encryption: SSE-B2, SSE-C, and what of it is on the disk.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use crate::support::http::{Answer, call};
use crate::support::server::{Server, Session};

const MANAGED: &str = "X-Bz-Server-Side-Encryption";
const ALGORITHM: &str = "X-Bz-Server-Side-Encryption-Customer-Algorithm";
const KEY: &str = "X-Bz-Server-Side-Encryption-Customer-Key";
const KEY_MD5: &str = "X-Bz-Server-Side-Encryption-Customer-Key-Md5";

const NEEDS_KEY: &str = "The object was stored using a form of Server Side Encryption. The correct \
                         parameters must be provided to retrieve the object.";

/// A customer's key as clients send it.
#[derive(Clone)]
struct CustomerKey {
    key: String,
    md5: String,
}

impl CustomerKey {
    fn of(seed: u8) -> Self {
        let bytes: Vec<u8> = (0..32).map(|i| i ^ seed).collect();
        Self { key: STANDARD.encode(&bytes), md5: STANDARD.encode(Md5::digest(&bytes)) }
    }

    fn headers(&self) -> [(&str, &str); 3] {
        [(ALGORITHM, "AES256"), (KEY, &self.key), (KEY_MD5, &self.md5)]
    }
}

fn sse_b2() -> Value {
    json!({"algorithm": "AES256", "mode": "SSE-B2"})
}

fn sse_c() -> Value {
    json!({"algorithm": "AES256", "mode": "SSE-C"})
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
}

fn head(session: &Session, path: &str, more: &[(&str, &str)]) -> Answer {
    let mut headers = vec![("Authorization", session.token.as_str())];
    headers.extend_from_slice(more);
    call(&session.address, "HEAD", &format!("/file/{path}"), &headers, b"")
}

/// Content of which every stretch of 32 bytes is found again on a disk that holds it in plain.
fn marked(size: usize) -> Vec<u8> {
    b"kiln-marker-of-readable-content!".iter().copied().cycle().take(size).collect()
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.append(&mut files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// The files of a data folder in which `needle` stands.
fn files_with(folder: &Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let holds = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    };
    files_below(folder).into_iter().filter(holds).collect()
}

/// Sizes kept in the catalog, in one buffer, in several, and written past the page cache.
const SIZES: [usize; 6] = [0, 10, 16_384, 16_385, 300_000, 5_000_001];

#[test]
fn native_321_sse_b2_is_shown_in_answers_lists_and_downloads() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("sealed-bucket");
    for size in SIZES {
        let (name, body) = (format!("f{size}"), marked(size));
        let answer = master.try_upload(&bucket, &name, &body, &[(MANAGED, "AES256")]);
        let stored = answer.json();
        assert_eq!(stored["serverSideEncryption"], sse_b2(), "{answer:?}");
        let info = master.ok("b2_get_file_info", &json!({"fileId": stored["fileId"]}));
        assert_eq!(info["serverSideEncryption"], sse_b2());
        assert_eq!(info["contentMd5"], hex::encode(Md5::digest(&body)));
        let path = format!("sealed-bucket/{name}");
        let got = master.download(&path, &[]);
        assert_eq!((got.status, got.header(MANAGED)), (200, Some("AES256")));
        assert!(got.body == body, "{size}");
        assert_eq!(got.header(ALGORITHM), None);
        assert_eq!(head(&master, &path, &[]).header(MANAGED), Some("AES256"));
        for (first, last) in [(0, 0), (size / 2, size.saturating_sub(1)), (65_530, 65_545)] {
            if last < size && first <= last {
                let range = format!("bytes={first}-{last}");
                let got = master.download(&path, &[("Range", &range)]);
                assert!(got.status == 206 && got.body == body[first..=last], "{range} of {size}");
            }
        }
    }
    for operation in ["b2_list_file_names", "b2_list_file_versions"] {
        let page = master.ok(operation, &json!({"bucketId": bucket}));
        let files = page["files"].as_array().unwrap();
        assert_eq!(files.len(), SIZES.len());
        assert!(files.iter().all(|file| file["serverSideEncryption"] == sse_b2()));
    }
    let plain = master.upload(&bucket, "plain", b"x");
    assert_eq!(plain["serverSideEncryption"], json!({"algorithm": null, "mode": null}));
    assert_eq!(master.download("sealed-bucket/plain", &[]).header(MANAGED), None);
}

#[test]
fn native_322_323_324_330_sse_c_opens_with_its_key_and_with_no_other() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("sealed-bucket");
    let (key, other) = (CustomerKey::of(1), CustomerKey::of(2));
    for size in SIZES {
        let (name, body) = (format!("f{size}"), marked(size));
        let answer = master.try_upload(&bucket, &name, &body, &key.headers());
        assert_eq!(answer.status, 200, "{answer:?}");
        let stored = answer.json();
        assert_eq!(stored["serverSideEncryption"], sse_c());
        assert!(!answer.json().to_string().contains(&key.key), "never the key");
        let id = stored["fileId"].as_str().unwrap();
        // Neither infos nor lists need the key.
        let info = master.ok("b2_get_file_info", &json!({"fileId": id}));
        assert_eq!(info["serverSideEncryption"], sse_c());

        let path = format!("sealed-bucket/{name}");
        let by_id = |headers: &[(&str, &str)]| {
            let mut all = vec![("Authorization", master.token.as_str())];
            all.extend_from_slice(headers);
            let target = format!("/b2api/v4/b2_download_file_by_id?fileId={id}");
            call(&master.address, "GET", &target, &all, b"")
        };
        for get in [&|headers: &[(&str, &str)]| master.download(&path, headers), &by_id]
            as [&dyn Fn(&[(&str, &str)]) -> Answer; 2]
        {
            let without = get(&[]);
            refused(&without, 400, "bad_request");
            assert_eq!(without.message(), NEEDS_KEY);
            refused(&get(&other.headers()), 403, "access_denied");
            let got = get(&key.headers());
            assert!(got.status == 200 && got.body == body, "{size}");
            assert_eq!(got.header(ALGORITHM), Some("AES256"));
            assert_eq!(got.header(KEY_MD5), Some(key.md5.as_str()));
            assert_eq!((got.header(KEY), got.header(MANAGED)), (None, None));
            if size > 70_000 {
                let [a, b, c] = key.headers();
                let got = get(&[a, b, c, ("Range", "bytes=65000-66000")]);
                assert!(got.status == 206 && got.body == body[65_000..=66_000]);
                let [a, b, c] = other.headers();
                refused(&get(&[a, b, c, ("Range", "bytes=0-1")]), 403, "access_denied");
            }
        }
        assert_eq!(head(&master, &path, &[]).status, 400);
        assert_eq!(head(&master, &path, &other.headers()).status, 403);
        assert_eq!(head(&master, &path, &key.headers()).status, 200);
    }
    let page = master.ok("b2_list_file_names", &json!({"bucketId": bucket}));
    let files = page["files"].as_array().unwrap();
    assert!(
        files.len() == SIZES.len() && files.iter().all(|f| f["serverSideEncryption"] == sse_c())
    );
    // Hiding and deleting need no key either.
    master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "f10"}));
    let id = files[0]["fileId"].as_str().unwrap();
    let name = files[0]["fileName"].as_str().unwrap();
    master.ok("b2_delete_file_version", &json!({"fileId": id, "fileName": name}));
    // A key for what is not encrypted with one is a mistake that is told.
    master.upload(&bucket, "plain", b"x");
    refused(&master.download("sealed-bucket/plain", &key.headers()), 400, "bad_request");
}

#[test]
fn native_325_326_327_wrong_encryption_headers_are_refused() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("sealed-bucket");
    let (key, other) = (CustomerKey::of(1), CustomerKey::of(2));
    let short = STANDARD.encode([1_u8; 16]);
    let short_md5 = STANDARD.encode(Md5::digest([1_u8; 16]));
    let [algorithm, secret, md5] = key.headers();
    let wrong: [&[(&str, &str)]; 12] = [
        &[algorithm, secret, (KEY_MD5, &other.md5)],
        &[algorithm, secret, (KEY_MD5, "not base64")],
        &[algorithm, (KEY, &short), (KEY_MD5, &short_md5)],
        &[algorithm, (KEY, "not base64"), md5],
        &[(ALGORITHM, "AES128"), secret, md5],
        &[secret, md5],
        &[algorithm, md5],
        &[algorithm, secret],
        &[secret],
        &[(MANAGED, "AES256"), algorithm, secret, md5],
        &[(MANAGED, "NONE")],
        &[(MANAGED, "aes256")],
    ];
    for headers in wrong {
        let answer = master.try_upload(&bucket, "f", b"x", headers);
        refused(&answer, 400, "bad_request");
        assert!(!answer.message().contains(&key.key), "no message repeats the key");
        if headers.iter().all(|(name, _)| *name != MANAGED) {
            refused(&master.download("sealed-bucket/f", headers), 400, "bad_request");
        }
    }
    let page = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    assert_eq!(page["files"], json!([]), "nothing was stored");
}

#[test]
fn encrypted_content_and_its_keys_are_nowhere_on_the_disk() {
    let mut server = Server::start_with(&["--log-level", "trace"]);
    let master = server.master();
    let bucket = master.create_bucket("sealed-bucket");
    let key = CustomerKey::of(7);
    for size in SIZES {
        let body = marked(size);
        for (kind, headers) in
            [("b2", &[(MANAGED, "AES256")] as &[(&str, &str)]), ("c", &key.headers())]
        {
            let answer = master.try_upload(&bucket, &format!("{kind}{size}"), &body, headers);
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(
                master.download(&format!("sealed-bucket/{kind}{size}"), &key.headers()).status
                    < 500
            );
        }
    }
    let needle = &marked(32);
    let secret = STANDARD.decode(&key.key).unwrap();
    let found = |needle: &[u8]| files_with(server.data_dir(), needle);
    // With the write-ahead log, before and after it is folded back.
    assert_eq!(found(needle), Vec::<std::path::PathBuf>::new());
    assert_eq!(found(&secret), Vec::<std::path::PathBuf>::new());
    assert_eq!(found(key.key.as_bytes()), Vec::<std::path::PathBuf>::new());
    assert!(!server.log().contains(&key.key), "no log tells the key");
    let ring = std::fs::read_to_string(server.data_dir().join("key-ring")).unwrap();
    let digits = ring.lines().last().unwrap().rsplit(' ').next().unwrap();
    assert!(!server.log().contains(digits));
    let own = hex::decode(digits).unwrap();
    assert_eq!(found(&own), Vec::<std::path::PathBuf>::new());
    // The test can fail: content that is not encrypted is found.
    master.upload(&bucket, "plain", needle);
    assert!(!found(needle).is_empty());
    assert_eq!(server.terminate(), Some(0));
    server.restart();
    let master = server.master();
    for size in SIZES {
        let got = master.download(&format!("sealed-bucket/b2{size}"), &[]);
        assert!(got.status == 200 && got.body == marked(size), "{size} after a restart");
        let got = master.download(&format!("sealed-bucket/c{size}"), &key.headers());
        assert!(got.status == 200 && got.body == marked(size), "{size} after a restart");
    }
}

#[test]
fn a_folder_does_not_start_without_its_key_ring() {
    let mut server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("sealed-bucket");
    let answer = master.try_upload(&bucket, "f", b"sealed", &[(MANAGED, "AES256")]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(server.terminate(), Some(0));
    let path = server.data_dir().join("key-ring");
    let ring = std::fs::read(&path).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "for its owner only");
    let other = {
        let server = Server::start();
        std::fs::read(server.data_dir().join("key-ring")).unwrap()
    };
    let complaint = |server: &Server| {
        let output = crate::support::server::kiln()
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(server.data_dir())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    std::fs::remove_file(&path).unwrap();
    assert!(complaint(&server).contains("is missing"), "none");
    std::fs::write(&path, &other).unwrap();
    assert!(complaint(&server).contains("is not the one of this data folder"), "another");
    std::fs::write(&path, b"1 2 3\n").unwrap();
    assert!(complaint(&server).contains("line 1"), "broken");
    std::fs::write(&path, &ring).unwrap();
    server.restart();
    assert_eq!(server.master().download("sealed-bucket/f", &[]).body, b"sealed");
}
