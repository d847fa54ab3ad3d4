//! Server-side encryption: SSE-B2, SSE-C, and what of it is on the disk.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use crate::support::http::{Answer, call};
use crate::support::server::{Server, Session, sha1_hex};

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
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, closed).unwrap();
    assert!(complaint(&server).contains("is not the one of this data folder"), "another");
    std::fs::write(&path, b"1 2 3\n").unwrap();
    assert!(complaint(&server).contains("line 1"), "broken");
    std::fs::write(&path, &ring).unwrap();
    server.restart();
    assert_eq!(server.master().download("sealed-bucket/f", &[]).body, b"sealed");
}

/// A server on which parts may be small, so that tests need not send much.
fn server_of_small_parts() -> Server {
    Server::start_with(&["--limits-part-size-min", "100"])
}

fn in_json(key: &CustomerKey) -> Value {
    json!({
        "mode": "SSE-C", "algorithm": "AES256",
        "customerKey": key.key, "customerKeyMd5": key.md5,
    })
}

fn start(session: &Session, bucket: &str, name: &str, encryption: &Value) -> Answer {
    session.call(
        "b2_start_large_file",
        &json!({
            "bucketId": bucket, "fileName": name, "contentType": "text/plain",
            "serverSideEncryption": encryption,
        }),
    )
}

fn send_part(
    session: &Session,
    file: &str,
    number: &str,
    body: &[u8],
    more: &[(&str, &str)],
) -> Answer {
    let pair = session.ok("b2_get_upload_part_url", &json!({"fileId": file}));
    let target = pair["uploadUrl"].as_str().unwrap().splitn(4, '/').nth(3).unwrap();
    let sha1 = sha1_hex(body);
    let mut headers = vec![
        ("Authorization", pair["authorizationToken"].as_str().unwrap()),
        ("X-Bz-Part-Number", number),
        ("X-Bz-Content-Sha1", &sha1),
    ];
    headers.extend_from_slice(more);
    call(&session.address, "POST", &format!("/{target}"), &headers, body)
}

fn finish(session: &Session, file: &str, bodies: &[&[u8]]) -> Value {
    let sha1s: Vec<String> = bodies.iter().map(|body| sha1_hex(body)).collect();
    session.ok("b2_finish_large_file", &json!({"fileId": file, "partSha1Array": sha1s}))
}

fn id_of(file: &Value) -> &str {
    file["fileId"].as_str().unwrap()
}

#[test]
fn native_269_every_part_of_an_sse_c_file_comes_with_the_key_of_the_file() {
    let server = server_of_small_parts();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let (key, other) = (CustomerKey::of(1), CustomerKey::of(2));
    let started = start(&master, &bucket, "large", &in_json(&key)).json();
    assert_eq!(
        started["serverSideEncryption"],
        json!({"algorithm": "AES256", "customerKeyMd5": key.md5, "mode": "SSE-C"})
    );
    let id = id_of(&started);
    let (one, two) = (marked(200_000), marked(70_000));
    refused(&send_part(&master, id, "1", &one, &[]), 400, "bad_request");
    refused(&send_part(&master, id, "1", &one, &[(MANAGED, "AES256")]), 400, "bad_request");
    refused(&send_part(&master, id, "1", &one, &other.headers()), 403, "access_denied");
    let part = send_part(&master, id, "1", &one, &key.headers());
    assert_eq!((part.status, &part.json()["serverSideEncryption"]), (200, &sse_c()));

    // A part copied out of another file, with the key of either side or without.
    let source = master.try_upload(&bucket, "source", &two, &other.headers()).json();
    let copy = |more: Value| {
        let mut fields =
            json!({"sourceFileId": id_of(&source), "largeFileId": id, "partNumber": 2});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        master.call("b2_copy_part", &fields)
    };
    let (from, into) = ("sourceServerSideEncryption", "destinationServerSideEncryption");
    refused(&copy(json!({into: in_json(&key)})), 400, "bad_request");
    refused(&copy(json!({from: in_json(&key), into: in_json(&key)})), 403, "access_denied");
    refused(&copy(json!({from: in_json(&other)})), 400, "bad_request");
    refused(&copy(json!({from: in_json(&other), into: in_json(&other)})), 403, "access_denied");
    let copied = copy(json!({from: in_json(&other), into: in_json(&key)}));
    assert_eq!((copied.status, &copied.json()["contentSha1"]), (200, &json!(sha1_hex(&two))));

    let listed = master.ok("b2_list_parts", &json!({"fileId": id}));
    assert!(
        listed["parts"].as_array().unwrap().iter().all(|p| p["serverSideEncryption"] == sse_c())
    );
    let finished = finish(&master, id, &[&one, &two]);
    assert_eq!(finished["serverSideEncryption"], sse_c());
    let whole = [one, two].concat();
    let get = |headers: &[(&str, &str)]| master.download("large-bucket/large", headers);
    assert_eq!(get(&[]).message(), NEEDS_KEY);
    refused(&get(&other.headers()), 403, "access_denied");
    assert!(get(&key.headers()).body == whole);
    let [a, b, c] = key.headers();
    assert!(get(&[a, b, c, ("Range", "bytes=199990-200010")]).body == whole[199_990..=200_010]);
    assert_eq!(files_with(server.data_dir(), &marked(32)), Vec::<std::path::PathBuf>::new());
}

#[test]
fn parts_of_other_large_files_come_without_a_key() {
    let server = server_of_small_parts();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let key = CustomerKey::of(1);
    let (one, two) = (marked(300_000), marked(100));
    let managed = start(&master, &bucket, "managed", &sse_b2()).json();
    assert_eq!(managed["serverSideEncryption"], sse_b2());
    let plain = start(&master, &bucket, "plain", &json!({"mode": "none"})).json();
    for (file, repeated) in [(&managed, 200), (&plain, 400)] {
        let id = id_of(file);
        refused(&send_part(&master, id, "1", &one, &key.headers()), 400, "bad_request");
        let answer = send_part(&master, id, "1", &one, &[(MANAGED, "AES256")]);
        assert_eq!(answer.status, repeated, "{answer:?}");
        assert_eq!(send_part(&master, id, "1", &one, &[]).status, 200);
        assert_eq!(send_part(&master, id, "2", &two, &[]).status, 200);
        finish(&master, id, &[&one, &two]);
    }
    let got = master.download("large-bucket/managed", &[]);
    assert_eq!(got.header(MANAGED), Some("AES256"));
    assert!(got.body == [one.as_slice(), &two].concat());
    for wrong in [
        json!({"mode": "SSE-B2"}),
        json!({"mode": "SSE-X", "algorithm": "AES256"}),
        json!({"mode": "SSE-C", "algorithm": "AES256"}),
        json!({"mode": 1}),
        json!("SSE-B2"),
    ] {
        refused(&start(&master, &bucket, "wrong", &wrong), 400, "bad_request");
    }
}

#[test]
fn native_329_copies_are_opened_with_the_key_of_the_source_and_sealed_as_asked() {
    let server = server_of_small_parts();
    let master = server.master();
    let bucket = master.create_bucket("copies");
    let (key, other) = (CustomerKey::of(1), CustomerKey::of(2));
    let (from, into) = ("sourceServerSideEncryption", "destinationServerSideEncryption");
    for size in [20, 200_000] {
        let body = marked(size);
        let source = master.try_upload(&bucket, "source", &body, &key.headers()).json();
        let copy = |more: Value| {
            let mut fields = json!({"sourceFileId": id_of(&source), "fileName": "copy"});
            fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            master.call("b2_copy_file", &fields)
        };
        refused(&copy(json!({})), 400, "bad_request");
        assert_eq!(copy(json!({})).message(), NEEDS_KEY);
        refused(&copy(json!({from: in_json(&other)})), 403, "access_denied");
        let sealed = [
            (json!({}), json!({"algorithm": null, "mode": null}), None),
            (json!({into: sse_b2()}), sse_b2(), None),
            (json!({into: in_json(&key)}), sse_c(), Some(&key)),
            (json!({into: in_json(&other)}), sse_c(), Some(&other)),
        ];
        for (wanted, shown, opens) in sealed {
            for range in [None, Some((3, size - 2))] {
                let mut fields = wanted.clone();
                fields[from] = in_json(&key);
                let mut content = body.as_slice();
                if let Some((first, last)) = range {
                    fields["range"] = format!("bytes={first}-{last}").into();
                    content = &body[first..=last];
                }
                let answer = copy(fields);
                assert_eq!(answer.status, 200, "{answer:?}");
                let copied = answer.json();
                assert_eq!(copied["serverSideEncryption"], shown);
                assert_eq!(copied["contentSha1"], sha1_hex(content));
                assert_eq!(copied["contentMd5"], hex::encode(Md5::digest(content)));
                let headers = opens.map_or(Vec::new(), |key| key.headers().to_vec());
                let got = master.download("copies/copy", &headers);
                assert!(got.status == 200 && got.body == content, "{shown} {range:?}");
                if opens.is_some() {
                    assert_eq!(master.download("copies/copy", &[]).status, 400);
                }
            }
        }
    }
    // What is not encrypted, and what the server encrypts, is copied without saying so.
    let plain = master.upload(&bucket, "plain", b"abc");
    let sealed = master.try_upload(&bucket, "sealed", b"abc", &[(MANAGED, "AES256")]).json();
    for source in [&plain, &sealed] {
        for wanted in [json!({}), json!({into: sse_b2()}), json!({into: in_json(&key)})] {
            let mut fields = json!({"sourceFileId": id_of(source), "fileName": "copy"});
            fields.as_object_mut().unwrap().extend(wanted.as_object().unwrap().clone());
            let copied = master.ok("b2_copy_file", &fields);
            let opens = copied["serverSideEncryption"] == sse_c();
            let headers = if opens { key.headers().to_vec() } else { Vec::new() };
            assert_eq!(master.download("copies/copy", &headers).body, b"abc");
        }
        let fields = json!({"sourceFileId": id_of(source), "fileName": "x", from: in_json(&key)});
        refused(&master.call("b2_copy_file", &fields), 400, "bad_request");
    }
}

#[test]
fn native_106_107_108_109_122_133_328_a_bucket_encrypts_what_asks_for_nothing() {
    let server = server_of_small_parts();
    let master = server.master();
    let none = json!({"algorithm": null, "mode": null});
    let make = |session: &Session, name: &str, default: &Value| {
        let fields = json!({
            "accountId": session.account, "bucketName": name, "bucketType": "allPrivate",
            "defaultServerSideEncryption": default,
        });
        session.call("b2_create_bucket", &fields)
    };
    let default_of = |answer: &Answer| answer.json()["defaultServerSideEncryption"].clone();
    let shown = |value: &Value| json!({"isClientAuthorizedToRead": true, "value": value});
    for (name, wanted) in [("bucket-null", json!(null)), ("bucket-none", json!({"mode": "none"}))] {
        assert_eq!(default_of(&make(&master, name, &wanted)), shown(&none), "{name}");
    }
    let made = make(&master, "bucket-sealed", &sse_b2());
    assert_eq!(default_of(&made), shown(&sse_b2()));
    let bucket = made.json()["bucketId"].as_str().unwrap().to_owned();
    let key = CustomerKey::of(1);
    for wrong in [
        in_json(&key),
        json!({"mode": "SSE-C", "algorithm": "AES256"}),
        json!({"mode": "SSE-B2"}),
        json!({"mode": "SSE-B2", "algorithm": "AES128"}),
        json!([]),
    ] {
        refused(&make(&master, "bucket-wrong", &wrong), 400, "bad_request");
    }

    // Uploads, large files and copies that ask for nothing follow the bucket.
    let (one, two) = (marked(300_000), marked(10));
    let upload = master.upload(&bucket, "upload", &one);
    assert_eq!(upload["serverSideEncryption"], sse_b2());
    let large = start(&master, &bucket, "large", &json!(null)).json();
    assert_eq!(large["serverSideEncryption"], sse_b2());
    send_part(&master, id_of(&large), "1", &one, &[]);
    let fields = json!({
        "sourceFileId": id_of(&upload), "largeFileId": id_of(&large), "partNumber": 2,
    });
    assert_eq!(master.ok("b2_copy_part", &fields)["serverSideEncryption"], sse_b2());
    send_part(&master, id_of(&large), "3", &two, &[]);
    finish(&master, id_of(&large), &[&one, &one, &two]);
    assert!(master.download("bucket-sealed/large", &[]).body == [&one[..], &one, &two].concat());
    let outside = master.create_bucket("bucket-outside");
    let plain = master.try_upload(&outside, "plain", &one, &[(MANAGED, "AES256")]).json();
    let fields = json!({
        "sourceFileId": id_of(&plain), "fileName": "copy", "destinationBucketId": bucket,
    });
    assert_eq!(master.ok("b2_copy_file", &fields)["serverSideEncryption"], sse_b2());
    assert_eq!(files_with(server.data_dir(), &marked(32)), Vec::<std::path::PathBuf>::new());
    // What is asked for wins over the bucket.
    let own = master.try_upload(&bucket, "own", b"x", &key.headers()).json();
    assert_eq!(own["serverSideEncryption"], sse_c());

    // Setting needs a right, and so does seeing.
    let set = |session: &Session, wanted: Value| {
        let fields = json!({
            "accountId": session.account, "bucketId": bucket, "defaultServerSideEncryption": wanted,
        });
        session.call("b2_update_bucket", &fields)
    };
    let without = master.with_key(&["listBuckets", "writeBuckets"], None, None);
    for wanted in [sse_b2(), json!({"mode": null})] {
        refused(&set(&without, wanted), 401, "unauthorized");
    }
    refused(&make(&without, "bucket-other", &sse_b2()), 401, "unauthorized");
    let plain = make(&without, "bucket-other", &json!(null));
    assert_eq!(default_of(&plain), json!({"isClientAuthorizedToRead": false, "value": null}));
    refused(&set(&master, in_json(&key)), 400, "bad_request");
    let before = set(&master, sse_b2()).json()["revision"].as_i64().unwrap();
    let reset = set(&master, json!({"mode": null}));
    assert_eq!(
        (default_of(&reset), reset.json()["revision"].as_i64()),
        (shown(&none), Some(before + 1))
    );
    assert_eq!(master.upload(&bucket, "later", b"x")["serverSideEncryption"], none);
    let got = master.download("bucket-sealed/upload", &[]);
    assert!(got.body == one && got.header(MANAGED).is_some(), "what is there stays as it is");
}

#[test]
fn native_107_133_a_server_may_encrypt_every_new_bucket() {
    let server = Server::start_with(&["--encryption-default", "sse-b2"]);
    let master = server.master();
    let bucket = master.create_bucket("bucket-sealed");
    let stored = master.upload(&bucket, "f", &marked(64));
    assert_eq!(stored["serverSideEncryption"], sse_b2());
    assert_eq!(files_with(server.data_dir(), &marked(32)), Vec::<std::path::PathBuf>::new());
    let fields = json!({
        "accountId": master.account, "bucketId": bucket,
        "defaultServerSideEncryption": {"mode": null},
    });
    let reset = master.ok("b2_update_bucket", &fields);
    assert_eq!(reset["defaultServerSideEncryption"]["value"], sse_b2(), "set back, not off");
}

#[test]
fn native_168_metadata_is_limited_to_2048_bytes_where_encryption_is_asked_for() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("narrow-bucket");
    let key = CustomerKey::of(1);
    let info = |bytes: usize| "v".repeat(bytes - 2);
    for headers in [&[(MANAGED, "AES256")] as &[(&str, &str)], &key.headers()] {
        let send = |bytes: usize| {
            let value = info(bytes);
            let mut all = vec![("X-Bz-Info-n", value.as_str())];
            all.extend_from_slice(headers);
            master.try_upload(&bucket, "f", b"x", &all)
        };
        assert_eq!(send(2048).status, 200);
        refused(&send(2049), 400, "metadata_exceeded");
    }
    assert_eq!(master.try_upload(&bucket, "f", b"x", &[("X-Bz-Info-n", &info(2049))]).status, 200);
    let start = |bytes: usize, encryption: Value| {
        let fields = json!({
            "bucketId": bucket, "fileName": "f", "contentType": "text/plain",
            "fileInfo": {"n": info(bytes)}, "serverSideEncryption": encryption,
        });
        master.call("b2_start_large_file", &fields)
    };
    assert_eq!(start(2048, sse_b2()).status, 200);
    refused(&start(2049, sse_b2()), 400, "metadata_exceeded");
    assert_eq!(start(2049, json!(null)).status, 200);
}

#[test]
fn native_25_a_mode_that_is_missing_or_misspelt_leaves_nothing_in_the_clear_or_unlocked() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("sealed-bucket");
    let locked = master.ok(
        "b2_create_bucket",
        &json!({"accountId": master.account, "bucketName": "locked-bucket",
                "bucketType": "allPrivate", "fileLockEnabled": true}),
    );
    let source = master.upload(&bucket, "source", b"x");
    for asked in [json!({}), json!({"algorithm": "AES256"}), json!({"Mode": "SSE-B2"})] {
        let start = json!({"bucketId": bucket, "fileName": "f", "contentType": "b2/x-auto",
                           "serverSideEncryption": asked});
        refused(&master.call("b2_start_large_file", &start), 400, "bad_request");
        let copy = json!({"sourceFileId": source["fileId"], "fileName": "f",
                          "destinationServerSideEncryption": asked});
        refused(&master.call("b2_copy_file", &copy), 400, "bad_request");
        let update = json!({"accountId": master.account, "bucketId": bucket,
                            "defaultServerSideEncryption": asked});
        refused(&master.call("b2_update_bucket", &update), 400, "bad_request");
    }
    for asked in [json!({}), json!({"Mode": "compliance"})] {
        let update = json!({"accountId": master.account, "bucketId": locked["bucketId"],
                            "defaultRetention": asked});
        refused(&master.call("b2_update_bucket", &update), 400, "bad_request");
        let copy = json!({"sourceFileId": source["fileId"], "fileName": "f",
                          "destinationBucketId": locked["bucketId"], "fileRetention": asked});
        refused(&master.call("b2_copy_file", &copy), 400, "bad_request");
    }
}
