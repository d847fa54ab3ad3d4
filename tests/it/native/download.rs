//! Downloads and their authorization.

use serde_json::json;

use crate::support::http::{Connection, call};
use crate::support::server::{Server, sha1_hex};

#[test]
fn native_286_288_to_294_307_309_downloads_carry_their_headers_by_name_id_and_head() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("headers-bucket");
    let large = vec![9_u8; 50_000];
    for (name, body) in [("small", b"content".as_slice()), ("large", &large)] {
        let file = master
            .try_upload(
                &bucket,
                &format!("dir/{name}%20%2B%C3%A9"),
                body,
                &[
                    ("X-Bz-Info-Colour", "gr%C3%BCn"),
                    ("X-Bz-Info-b2-content-disposition", "attachment; filename=\"a.txt\""),
                    ("X-Bz-Info-b2-cache-control", "max-age=7"),
                    ("X-Bz-Info-b2-content-language", "de"),
                    ("X-Bz-Info-b2-expires", "Tue, 04 Jan 2022 15:01:18 GMT"),
                    ("X-Bz-Info-b2-content-encoding", "x-own"),
                ],
            )
            .json();
        let id = file["fileId"].as_str().unwrap();
        let auth = ("Authorization", master.token.as_str());
        let by_name = format!("/file/headers-bucket/dir/{name}%20%2B%C3%A9");
        let by_id = format!("/b2api/v4/b2_download_file_by_id?fileId={id}");
        let posted = call(
            &server.address,
            "POST",
            "/b2api/v4/b2_download_file_by_id",
            &[auth],
            json!({"fileId": id}).to_string().as_bytes(),
        );
        assert_eq!(posted.body, body);
        for target in [&by_name, &by_id, &format!("{by_name}?")] {
            let got =
                call(&server.address, "GET", target, &[auth, ("Accept-Encoding", "gzip")], b"");
            assert_eq!((got.status, got.body.as_slice()), (200, body));
            let head = call(&server.address, "HEAD", target, &[auth], b"");
            let mut same = [got.headers.clone(), head.headers.clone()];
            for headers in &mut same {
                headers.remove("date");
            }
            assert_eq!(same[0], same[1], "289: HEAD has the headers of GET");
            assert_eq!((head.status, head.body.len()), (200, 0));
            for answer in [&got, &head] {
                assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()));
                assert_eq!(answer.header("accept-ranges"), Some("bytes"));
                assert_eq!(answer.header("x-bz-file-id"), Some(id));
                assert_eq!(
                    answer.header("x-bz-file-name").unwrap(),
                    format!("dir/{name}%20%2B%C3%A9")
                );
                assert_eq!(answer.header("x-bz-content-sha1"), Some(sha1_hex(body).as_str()));
                assert_eq!(answer.header("x-bz-info-colour"), Some("gr%C3%BCn"));
                assert_eq!(
                    answer.header("content-disposition"),
                    Some("attachment; filename=\"a.txt\"")
                );
                assert_eq!(answer.header("cache-control"), Some("max-age=7"));
                assert_eq!(answer.header("content-language"), Some("de"));
                assert_eq!(answer.header("expires"), Some("Tue, 04 Jan 2022 15:01:18 GMT"));
                assert_eq!(
                    answer.header("content-encoding"),
                    Some("x-own"),
                    "309: only what was stored"
                );
                assert!(!answer.headers.keys().any(|name| name.starts_with("x-bz-info-b2-")));
                let at = file["uploadTimestamp"].to_string();
                assert_eq!(answer.header("x-bz-upload-timestamp"), Some(at.as_str()));
                assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
            }
        }
    }
}

#[test]
fn native_285_287_301_302_303_310_who_may_read_what_is_there() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("reading-bucket");
    let old = master.upload(&bucket, "f", b"old");
    master.upload(&bucket, "f", b"new");
    let anonymous = |target: &str| call(&server.address, "GET", target, &[], b"");
    // A file that is not there and one that is look the same to a stranger.
    for name in ["f", "never"] {
        let answer = anonymous(&format!("/file/reading-bucket/{name}"));
        assert_eq!(
            (answer.status, answer.code().as_str(), answer.message().as_str()),
            (401, "unauthorized", "")
        );
    }
    let unknown = anonymous("/file/no-such-bucket/f");
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "not_found"));
    master.upload(&bucket, "hidden", b"x");
    master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "hidden"}));
    let hidden = master.download("reading-bucket/hidden", &[]);
    assert_eq!((hidden.status, hidden.code().as_str()), (404, "not_found"));
    let token = &master.token;
    assert_eq!(anonymous(&format!("/file/reading-bucket/f?Authorization={token}")).body, b"new");
    let id = old["fileId"].as_str().unwrap();
    let by_id = |id: &str| {
        let target = format!("/b2api/v4/b2_download_file_by_id?fileId={id}");
        call(&server.address, "GET", &target, &[("Authorization", token)], b"")
    };
    assert_eq!(by_id(id).body, b"old", "older versions are reached by id");
    assert_eq!((by_id("bad").status, by_id("bad").code().as_str()), (400, "bad_request"));
    master.ok("b2_delete_file_version", &json!({"fileId": id, "fileName": "f"}));
    assert_eq!((by_id(id).status, by_id(id).code().as_str()), (404, "not_found"));
    assert_eq!(master.download("reading-bucket/never", &[]).code(), "not_found");
    let target = "/file/reading-bucket/never";
    let head = call(&server.address, "HEAD", target, &[("Authorization", token)], b"");
    assert_eq!((head.status, head.body.len()), (404, 0));
}

#[test]
fn native_296_to_300_ranges_are_cut_or_refused() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("ranges-bucket");
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for (name, body) in [("small", b"0123456789".to_vec()), ("large", large)] {
        master.upload(&bucket, name, &body);
        let whole = sha1_hex(&body);
        let size = body.len();
        for (range, from, to) in [
            ("bytes=5-8", 5, 9),
            ("bytes=5-", 5, size),
            ("bytes=5-99999999999", 5, size),
            ("bytes=-3", size - 3, size),
            ("bytes=0-0", 0, 1),
        ] {
            let part = master.download(&format!("ranges-bucket/{name}"), &[("Range", range)]);
            assert_eq!(part.status, 206, "{range}");
            assert_eq!(part.body, body[from..to], "{range}");
            let shown = format!("bytes {from}-{}/{size}", to - 1);
            assert_eq!(part.header("content-range"), Some(shown.as_str()));
            assert_eq!(part.header("x-bz-content-sha1"), Some(whole.as_str()));
        }
        for range in [format!("bytes={size}-"), format!("bytes={}-", size * 2)] {
            let answer = master.download(&format!("ranges-bucket/{name}"), &[("Range", &range)]);
            assert_eq!((answer.status, answer.code().as_str()), (416, "range_not_satisfiable"));
        }
        for range in ["bytes=1-2,4-5", "bytes=x", "items=0-1", "bytes=8-5"] {
            let answer = master.download(&format!("ranges-bucket/{name}"), &[("Range", range)]);
            assert_eq!((answer.status, answer.body.len()), (200, size), "{range}");
        }
    }
    master.upload(&bucket, "empty", b"");
    assert_eq!(master.download("ranges-bucket/empty", &[("Range", "bytes=0-")]).status, 416);
    assert_eq!(master.download("ranges-bucket/empty", &[]).status, 200);
}

#[test]
fn native_284_295_305_306_overrides_need_a_token_and_a_grammar() {
    let server = Server::start();
    let master = server.master();
    let body = json!({"accountId": master.account, "bucketName": "override-bucket", "bucketType": "allPublic",
        "bucketInfo": {"Cache-Control": "max-age=9"}});
    let bucket = master.ok("b2_create_bucket", &body)["bucketId"].as_str().unwrap().to_owned();
    master.upload(&bucket, "f", b"x");
    let plain = call(&server.address, "GET", "/file/override-bucket/f", &[], b"");
    assert_eq!((plain.status, plain.body.as_slice()), (200, &b"x"[..]), "284: no token is needed");
    assert_eq!(plain.header("cache-control"), Some("max-age=9"), "295");
    let target = "/file/override-bucket/f?b2ContentType=text%2Fhtml&b2ContentLanguage=de";
    assert_eq!(call(&server.address, "GET", target, &[], b"").status, 401);
    let auth = [("Authorization", master.token.as_str())];
    let answer = call(&server.address, "GET", target, &auth, b"");
    assert_eq!(
        (answer.header("content-type"), answer.header("content-language")),
        (Some("text/html"), Some("de"))
    );
    for wrong in [
        "b2ContentDisposition=*bad",
        "b2ContentDisposition=attachment%3B+filename",
        "b2Expires=tomorrow",
        "b2ContentLanguage=",
        "b2CacheControl=%0d%0aX-Injected%3A+1",
        "b2ContentEncoding=%C3%A9",
    ] {
        let target = format!("/file/override-bucket/f?{wrong}");
        let answer = call(&server.address, "GET", &target, &auth, b"");
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{wrong}");
        assert!(answer.header("x-injected").is_none());
    }
    for (bytes, status) in [(7000, 200), (7001, 400)] {
        // Together, not each.
        let target = format!(
            "/file/override-bucket/f?b2ContentLanguage=de&b2CacheControl={}",
            "c".repeat(bytes - 2)
        );
        assert_eq!(call(&server.address, "GET", &target, &auth, b"").status, status, "{bytes}");
        let body = json!({"bucketId": bucket, "fileNamePrefix": "", "validDurationInSeconds": 60,
            "b2ContentLanguage": "de", "b2CacheControl": "c".repeat(bytes - 2)});
        let answer = master.call("b2_get_download_authorization", &body);
        assert_eq!(answer.status, status, "{bytes}");
    }
}

#[test]
fn native_311_to_320_a_download_authorization_opens_its_prefix_for_its_time() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("sharing-bucket");
    let file = master.upload(&bucket, "in/f", b"x");
    master.upload(&bucket, "out/f", b"x");
    let ask = |body: serde_json::Value| master.call("b2_get_download_authorization", &body);
    let base = |seconds: i64| json!({"bucketId": bucket, "fileNamePrefix": "in/", "validDurationInSeconds": seconds});
    for seconds in [0, -1, 604_801] {
        assert_eq!(ask(base(seconds)).status, 400, "{seconds}");
    }
    assert_eq!(ask(json!({"bucketId": bucket, "validDurationInSeconds": 1})).status, 400);
    for seconds in [1, 604_800] {
        assert_eq!(ask(base(seconds)).status, 200, "{seconds}");
    }
    let others: Vec<&str> =
        kiln::manifest::capabilities().into_iter().filter(|one| *one != "shareFiles").collect();
    let others = master.with_key(&others, None, None);
    let refused = others.call("b2_get_download_authorization", &base(60));
    assert_eq!((refused.status, refused.code().as_str()), (401, "unauthorized"));
    let elsewhere = master.create_bucket("elsewhere-bucket");
    master.upload(&elsewhere, "in/f", b"x");
    let shared = ask(base(60)).json();
    assert_eq!((&shared["bucketId"], &shared["fileNamePrefix"]), (&json!(bucket), &json!("in/")));
    let token = shared["authorizationToken"].as_str().unwrap();
    let get = |method: &str, target: &str, headers: &[(&str, &str)]| {
        call(&server.address, method, target, headers, b"")
    };
    assert_eq!(get("GET", "/file/sharing-bucket/in/f", &[("Authorization", token)]).status, 200);
    assert_eq!(
        get("HEAD", &format!("/file/sharing-bucket/in/f?Authorization={token}"), &[]).status,
        200
    );
    assert_eq!(
        get("GET", "/file/sharing-bucket/out/f", &[("Authorization", token)]).code(),
        "unauthorized"
    );
    assert_eq!(
        get("GET", "/file/elsewhere-bucket/in/f", &[("Authorization", token)]).code(),
        "unauthorized",
        "313: another bucket"
    );
    let by_id =
        format!("/b2api/v4/b2_download_file_by_id?fileId={}", file["fileId"].as_str().unwrap());
    assert_eq!(get("GET", &by_id, &[("Authorization", token)]).status, 401);
    let two = get(
        "GET",
        &format!("/file/sharing-bucket/in/f?Authorization={token}"),
        &[("Authorization", &master.token)],
    );
    assert_eq!(two.status, 400, "two different tokens");
    let bound = json!({"bucketId": bucket, "fileNamePrefix": "", "validDurationInSeconds": 60, "b2ContentType": "a/b"});
    let bound = ask(bound).json()["authorizationToken"].as_str().unwrap().to_owned();
    let with = |query: &str| {
        get("GET", &format!("/file/sharing-bucket/in/f?Authorization={bound}{query}"), &[]).status
    };
    assert_eq!((with(""), with("&b2ContentType=x/y"), with("&b2ContentType=a/b")), (401, 401, 200));
    let prefixed = master.with_key(&["shareFiles"], Some(&[&bucket]), Some("in/"));
    let wide = json!({"bucketId": bucket, "fileNamePrefix": "", "validDurationInSeconds": 60});
    assert_eq!(prefixed.call("b2_get_download_authorization", &wide).status, 401);
    assert_eq!(prefixed.call("b2_get_download_authorization", &base(60)).status, 200);
    server.control("POST", "/admin/clock/advance?ms=60001");
    assert_eq!(
        get("GET", "/file/sharing-bucket/in/f", &[("Authorization", token)]).code(),
        "expired_auth_token"
    );
}

#[test]
fn native_308_names_that_need_encoding_are_found_by_their_encoded_path() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("encoded-bucket");
    for name in [
        "a b",
        "a+b",
        "100%",
        "%41",
        "caf\u{e9}",
        "\u{65e5}\u{672c}/\u{1f600}",
        "it's \"q\"",
        "a?b#c&d",
        "a\\b",
        "a;b=c",
    ] {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        master.upload(&bucket, &encoded, name.as_bytes());
        let answer = master.download(&format!("encoded-bucket/{encoded}"), &[]);
        assert_eq!((answer.status, answer.body.as_slice()), (200, name.as_bytes()), "{name}");
        // What the answer calls the file leads to it again.
        let shown = answer.header("x-bz-file-name").unwrap();
        let again = master.download(&format!("encoded-bucket/{shown}"), &[]);
        assert_eq!((again.status, again.body.as_slice()), (200, name.as_bytes()), "{shown}");
    }
    assert_eq!(master.download("encoded-bucket/a+b", &[]).body, b"a b", "plus is a space");
}

#[test]
fn a_damaged_file_never_ends_as_a_success() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("damage-bucket");
    master.upload(&bucket, "f", &vec![5_u8; 3_000_000]);
    let mut folders = vec![server.data_dir().join("blobs")];
    let mut damaged = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[2_999_999] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    let mut connection = Connection::open(&server.address).unwrap();
    let auth = [("Authorization", master.token.as_str())];
    let ended = connection.call("GET", "/file/damage-bucket/f", &auth, b"");
    assert!(ended.is_err() || ended.unwrap().status >= 500, "the answer is cut short");
    assert_eq!(server.control("GET", "/healthz").status, 200, "and the server lives");
}
