//! Who signed what, for where and for how long.

use serde_json::json;

use crate::support::http::{Answer, Connection};
use crate::support::s3::{ALL, Request, Signer, element, refused};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session};

/// A server with a bucket that holds a file, and a key for it.
fn house(arguments: &[&str]) -> (Server, Session, Signer) {
    let server = Server::start_with(&[&["--test-controls"], arguments].concat());
    let master = server.master();
    let bucket = master.create_bucket("signed-bucket");
    master.upload(&bucket, "k", b"content");
    let signer = Signer::of(&server, &master);
    (server, master, signer)
}

fn get() -> Request {
    Request::new("GET", "/signed-bucket/k")
}

fn code(answer: &Answer) -> (u16, String) {
    refused(answer)
}

#[test]
fn s3_1_signed_requests_are_taken_for_every_kind_of_key() {
    let (server, _, signer) = house(&[]);
    for key in [
        "plain",
        "a%20b",
        "a%2Bb",
        "a+b",
        "a%3Db%26c",
        "100%25",
        "%C3%A9%E2%82%AC%F0%9F%98%80",
        "/double//slashes/",
        "./dots/../and/..",
        "(%21%27%2A)~",
        "a%3Fversions%0D".trim_end_matches("%0D"),
    ] {
        let path = format!("/signed-bucket/{key}");
        let put = Request::new("PUT", &path).body(key.as_bytes()).header("x-amz-meta-a", "b   c");
        let stored = signer.sign(put).send(&server.address);
        assert_eq!(stored.status, 200, "{key}: {}", String::from_utf8_lossy(&stored.body));
        let read = signer.sign(Request::new("GET", &path)).send(&server.address);
        assert_eq!((read.status, read.body), (200, key.as_bytes().to_vec()), "{key}");
    }
    for query in ["", "versioning", "acl=", "list-type=2&prefix=%C3%A9+x&delimiter=%2F", "versions"]
    {
        let request = Request::new("GET", &format!("/signed-bucket?{query}"));
        assert_eq!(signer.sign(request).send(&server.address).status, 200, "{query}");
    }
}

#[test]
fn s3_2_3_4_5_wrong_signatures_and_unknown_keys_are_refused_in_their_words() {
    let (server, master, signer) = house(&[]);
    let wrong = Signer { secret: format!("{}x", signer.secret), ..signer.clone() };
    let answer = wrong.sign(get()).send(&server.address);
    assert_eq!(code(&answer), (403, "SignatureDoesNotMatch".to_owned()));
    assert_eq!(element(&answer, "Message"), "Signature validation failed");
    assert_eq!(answer.header("x-amz-request-id"), Some(element(&answer, "RequestId").as_str()));
    assert_eq!(answer.header("content-type"), Some("application/xml"));
    assert_ne!(element(&answer, "RequestId"), "");

    let (begun, _) = signer.key.split_at(24);
    let unknown = Signer { key: format!("{begun}f"), ..signer.clone() };
    let answer = unknown.sign(get()).send(&server.address);
    assert_eq!(code(&answer), (403, "InvalidAccessKeyId".to_owned()));
    let shapes = |answer: &Answer| answer.headers.keys().cloned().collect::<Vec<_>>();
    assert_eq!(shapes(&answer), shapes(&wrong.sign(get()).send(&server.address)));

    let (of_master, secret) = (MASTER_ID.to_owned(), MASTER_KEY.to_owned());
    let of_master = Signer { key: of_master, secret, ..signer.clone() };
    let upper = signer.key.to_ascii_uppercase().replace('0', "A");
    let malformed = ["x", begun, &format!("{}0", signer.key), &upper, "AKIDEXAMPLE"];
    let malformed = malformed.map(|key| Signer { key: key.to_owned(), ..signer.clone() });
    for signer in malformed.iter().chain([&of_master]) {
        let answer = signer.sign(get()).send(&server.address);
        assert_eq!(code(&answer), (403, "InvalidAccessKeyId".to_owned()), "{}", signer.key);
        assert_eq!(element(&answer, "Message"), "Malformed Access Key Id");
    }
    let head = wrong.sign(Request::new("HEAD", "/signed-bucket/k")).send(&server.address);
    assert_eq!((head.status, head.body.len()), (403, 0));
    drop(master);

    let (server, ..) = house(&["--s3-allow-master-key"]);
    let of_master = Signer::with_key(&server, MASTER_ID.to_owned(), MASTER_KEY.to_owned());
    assert_eq!(of_master.sign(get()).send(&server.address).body, b"content");
}

#[test]
fn s3_6_7_deleted_and_expired_keys_sign_nothing_any_more() {
    let (server, master, signer) = house(&[]);
    let presigned = signer.presign(get(), "600");
    assert_eq!(signer.sign(get()).send(&server.address).status, 200);
    assert_eq!(presigned.send(&server.address).status, 200);
    master.ok("b2_delete_key", &json!({"applicationKeyId": signer.key}));
    // reliability C26: what was signed in advance dies with its key.
    for request in [signer.sign(get()), presigned] {
        let answer = request.send(&server.address);
        assert_eq!(code(&answer), (403, "InvalidAccessKeyId".to_owned()));
    }

    let short = master.ok(
        "b2_create_key",
        &json!({"accountId": master.account, "keyName": "short", "capabilities": ALL,
                "validDurationInSeconds": 100}),
    );
    let text = |name: &str| short[name].as_str().unwrap().to_owned();
    let mut short = Signer::with_key(&server, text("applicationKeyId"), text("applicationKey"));
    assert_eq!(short.sign(get()).send(&server.address).status, 200);
    assert_eq!(server.control("POST", "/admin/clock/advance?ms=101000").status, 200);
    short.ahead_s = 101;
    let answer = short.sign(get()).send(&server.address);
    assert_eq!(code(&answer), (403, "AccessDenied".to_owned()));
    short.secret.push('x');
    let answer = short.sign(get()).send(&server.address);
    assert_eq!(code(&answer), (403, "SignatureDoesNotMatch".to_owned()), "told to its holder only");
}

#[test]
fn s3_11_12_13_clock_day_and_region_of_a_signature_must_be_ours() {
    let (server, _, signer) = house(&["--s3-lenient-region=false"]);
    for ahead_s in [-960, 960] {
        let answer = Signer { ahead_s, ..signer.clone() }.sign(get()).send(&server.address);
        assert_eq!(code(&answer), (403, "RequestTimeTooSkewed".to_owned()), "{ahead_s}");
        assert_eq!(element(&answer, "MaxAllowedSkewMilliseconds"), "900000");
        assert_ne!(element(&answer, "ServerTime"), "");
        assert_ne!(element(&answer, "RequestTime"), "");
    }
    for ahead_s in [-840, 840] {
        let answer = Signer { ahead_s, ..signer.clone() }.sign(get()).send(&server.address);
        assert_eq!(answer.status, 200, "{ahead_s}");
    }
    let signed = signer.sign(get());
    let header = signed.value("authorization").unwrap().to_owned();
    for (from, to) in [("/s3/", "/iam/"), ("aws4_request", "aws5_request"), ("/20", "/19")] {
        let changed = signed.clone().header("authorization", &header.replacen(from, to, 1));
        let answer = changed.send(&server.address);
        assert_eq!(code(&answer), (400, "AuthorizationHeaderMalformed".to_owned()), "{to}");
    }
    let elsewhere = Signer { region: "us-east-1".to_owned(), ..signer };
    let answer = elsewhere.sign(get()).send(&server.address);
    assert_eq!(code(&answer), (400, "AuthorizationHeaderMalformed".to_owned()));
    assert_eq!(element(&answer, "Region"), "us-west-000");
    let answer = elsewhere.presign(get(), "60").send(&server.address);
    assert_eq!(code(&answer), (400, "AuthorizationQueryParametersError".to_owned()));

    let (server, _, signer) = house(&[]);
    let elsewhere = Signer { region: "us-east-1".to_owned(), ..signer };
    assert_eq!(elsewhere.sign(get()).send(&server.address).status, 200, "on loopback any");
}

#[test]
fn s3_14_15_16_17_25_33_what_is_not_wholly_signed_by_version_4_is_refused() {
    let (server, _, signer) = house(&[]);
    let send = |request: &Request| code(&request.send(&server.address));
    let host = signer.host.clone();
    let plain = get().header("host", &host);
    let refused = |status: u16, code: &str| (status, code.to_owned());
    let old = plain.clone().header("authorization", "AWS key:signature");
    assert_eq!(send(&old), refused(400, "InvalidRequest"));
    let old = Request::new("GET", "/signed-bucket/k?AWSAccessKeyId=k&Signature=s&Expires=1");
    assert_eq!(send(&old.header("host", &host)), refused(400, "InvalidRequest"));
    for scheme in ["Basic a2V5OnNlY3JldA==", "Bearer token"] {
        let other = plain.clone().header("authorization", scheme);
        assert_eq!(send(&other), refused(400, "InvalidRequest"), "{scheme}");
    }
    let empty = plain.clone().header("authorization", "");
    assert_eq!(send(&empty), refused(400, "AuthorizationHeaderMalformed"));

    let signed = signer.sign(get());
    let unhashed = signed.clone().without("x-amz-content-sha256");
    assert_eq!(send(&unhashed), refused(400, "InvalidRequest"));
    for name in ["x-amz-meta-a", "x-amz-acl", "x-amz-copy-source"] {
        let put = signer.sign(Request::new("PUT", "/signed-bucket/n").body(b"x"));
        assert_eq!(send(&put.header(name, "/signed-bucket/k")), refused(403, "AccessDenied"));
        let put = signer.presign(Request::new("PUT", "/signed-bucket/n"), "60").body(b"x");
        assert_eq!(send(&put.header(name, "/signed-bucket/k")), refused(403, "AccessDenied"));
    }
    let listed = signer.sign(Request::new("GET", "/signed-bucket")).send(&server.address);
    assert!(!String::from_utf8_lossy(&listed.body).contains("<Key>n</Key>"), "nothing was stored");
    let lacking = signer.sign(get().header("x-amz-meta-a", "")).without("x-amz-meta-a");
    assert_eq!(send(&lacking), refused(403, "SignatureDoesNotMatch"), "a signed header is gone");
    let hostless = signer.sign_but(get(), &["host"]);
    assert_eq!(send(&hostless), refused(403, "AccessDenied"));
    let token = signer.sign(get().header("x-amz-security-token", "token"));
    assert_eq!(send(&token), refused(400, "InvalidArgument"));
    let mut both = signer.presign(get(), "60");
    both.headers.clone_from(&signed.headers);
    assert_eq!(send(&both), refused(400, "InvalidArgument"));
    let mut twice = signed.clone();
    let header = signed.value("authorization").unwrap().to_owned();
    twice.headers.push(("authorization".to_owned(), header));
    assert_eq!(send(&twice), refused(400, "InvalidArgument"));
}

/// The moment of a signature as HTTP writes it.
fn http_date(signer: &Signer) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (at, text) = signer.moment();
    let days = at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let weekday = DAYS[usize::try_from(days % 7).unwrap()];
    let digits = |from: usize, to: usize| text.get(from..to).unwrap();
    let month = MONTHS[digits(4, 6).parse::<usize>().unwrap() - 1];
    let (year, day) = (digits(0, 4), digits(6, 8));
    let (hour, minute, second) = (digits(9, 11), digits(11, 13), digits(13, 15));
    format!("{weekday}, {day} {month} {year} {hour}:{minute}:{second} GMT")
}

#[test]
fn s3_18_19_user_agents_may_be_signed_and_dates_may_be_http_ones() {
    let (server, _, signer) = house(&[]);
    let request = get().header("user-agent", "aws-sdk-dotnet  x/1.0");
    assert_eq!(signer.sign(request).send(&server.address).status, 200);
    let (_, compact) = signer.moment();
    let request = get().header("date", &compact);
    let signed = signer.sign(request);
    assert!(signed.value("x-amz-date").is_none());
    assert_eq!(signed.send(&server.address).status, 200);
    let dated = http_date(&signer);
    for zone in ["GMT", "-0000"] {
        let request = get().header("date", &dated.replace("GMT", zone));
        assert_eq!(signer.sign(request).send(&server.address).status, 200, "{zone}");
    }
}

#[test]
fn s3_20_21_odd_addresses_and_hosts_never_break_the_server() {
    let (server, _, signer) = house(&[]);
    let odd = [
        "/signed-bucket/%zz",
        "/signed-bucket/%",
        "/signed-bucket/%FF",
        "/signed-bucket/%c3%28",
        "/signed-bucket/%C0%AE",
        "/signed-bucket/%00",
        "/signed-bucket/k?prefix=%zz",
        "/signed-bucket/k?%zz",
        "/signed-bucket?prefix=%FF",
        "/signed-bucket?list-type=2&prefix=a+b;c",
        "/signed-bucket?&&=&=x&",
        "//signed-bucket//",
        "/%2F/%2e%2e/",
        "/signed-bucket%2Fk",
        "/?x-amz-signature=1",
        "/signed-bucket/k?X-Amz-Signature=1",
        "/signed-bucket/k?X-Amz-Credential=%FF&X-Amz-Signature=%zz",
    ];
    for target in odd {
        for method in ["GET", "PUT", "DELETE", "POST", "HEAD", "OPTIONS"] {
            let request = Request::new(method, target).header("host", &signer.host);
            let answer = request.send(&server.address);
            let is_refused = (400..500).contains(&answer.status) || answer.status == 501;
            assert!(is_refused, "{method} {target}: {}", answer.status);
        }
    }
    // Signed, each has its one meaning.
    let listed = signer.sign(Request::new("GET", "/signed-bucket?list-type=2&prefix=a+b%3Bc"));
    assert_eq!(listed.send(&server.address).status, 200);
    let wrong = signer.sign(Request::new("GET", "/signed-bucket/%FF")).send(&server.address);
    assert_eq!(wrong.status, 400);

    for head in [
        "GET /signed-bucket/k HTTP/1.1\r\n\r\n",
        "GET /signed-bucket/k HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /signed-bucket/k HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        let mut connection = Connection::open(&server.address).unwrap();
        connection.send_raw(head.as_bytes()).unwrap();
        let (status, _) = connection.read_head().unwrap();
        assert!((400..500).contains(&status), "{head}: {status}");
    }
    // reliability C18: the address names another host than the header.
    let mut connection = Connection::open(&server.address).unwrap();
    let elsewhere =
        "GET http://elsewhere.example/signed-bucket/k HTTP/1.1\r\nHost: localhost\r\n\r\n";
    connection.send_raw(elsewhere.as_bytes()).unwrap();
    assert_eq!(connection.read(false).unwrap().status, 400);
    assert_eq!(signer.sign(get()).send(&server.address).status, 200, "it goes on");
}

#[test]
fn s3_23_hosts_of_buckets_and_paths_lead_to_the_same_place() {
    let (server, _, signer) =
        house(&["--s3-domain=example.org", "--s3-domain", "s3.us-west-000.localhost"]);
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let named = |host: &str| Signer { host: format!("{host}:{port}"), ..signer.clone() };
    let of_bucket = named("signed-bucket.s3.us-west-000.localhost");
    let answer = of_bucket.sign(Request::new("GET", "/k")).send(&server.address);
    assert_eq!(answer.body, b"content");
    let put = of_bucket.sign(Request::new("PUT", "/b2api/v1/x").body(b"odd key"));
    assert_eq!(put.send(&server.address).status, 200);
    for host in ["s3.us-west-000.localhost", "SIGNED-bucket.s3.us-west-000.LOCALHOST"] {
        let path = if host.starts_with('s') { "/signed-bucket/b2api/v1/x" } else { "/b2api/v1/x" };
        let answer = named(host).sign(Request::new("GET", path)).send(&server.address);
        assert_eq!(answer.body, b"odd key", "{host}");
    }
    // reliability C17: the host is part of the signature.
    let mut moved = of_bucket.sign(Request::new("GET", "/k"));
    moved = moved.header("host", &format!("other-bucket.s3.us-west-000.localhost:{port}"));
    assert_eq!(code(&moved.send(&server.address)), (403, "SignatureDoesNotMatch".to_owned()));
}

#[test]
fn s3_24_reliability_e6_the_host_that_a_proxy_names_is_believed_from_trusted_ones_only() {
    for (trusted, status) in [("127.0.0.1", 200), ("192.0.2.1,::1", 403)] {
        let proxies = format!("--http-trusted-proxies={trusted}");
        let (server, _, signer) = house(&["--s3-domain=s3.example.org", &proxies]);
        let outside = Signer { host: "s3.example.org".to_owned(), ..signer.clone() };
        let of_bucket =
            Signer { host: "signed-bucket.s3.example.org".to_owned(), ..signer.clone() };
        let requests = [
            outside.sign(get()),
            outside.presign(get(), "60"),
            of_bucket.sign(Request::new("GET", "/k")),
        ];
        for request in requests {
            let asked = request.value("host").unwrap().to_owned();
            let through = request.clone().header("host", "kiln.internal:9700");
            assert_eq!(through.send(&server.address).status, 403, "nobody says what was signed");
            let through = through.header("x-forwarded-host", &asked);
            let expected = if status == 200 { 200 } else { 403 };
            assert_eq!(through.send(&server.address).status, expected, "{trusted}: {asked}");
            let two = through.header("x-forwarded-host", &format!("{asked}, other.example"));
            assert_eq!(two.send(&server.address).status, 403, "{trusted}");
            // Whoever comes without a proxy is taken as before.
            assert_eq!(request.send(&server.address).status, 200);
        }
        // A proxy that hands on the host that it was asked for, port and all.
        let with_port = Signer { host: "s3.example.org:8443".to_owned(), ..signer.clone() };
        for of in [with_port.sign(get()), with_port.presign(get(), "60")] {
            let kept = of.clone().header("x-forwarded-host", "s3.example.org");
            assert_eq!(kept.send(&server.address).status, 200, "{trusted}: the host was kept");
            let named = kept.header("host", "kiln.internal").header("x-forwarded-port", "8443");
            assert_eq!(named.send(&server.address).status, status, "{trusted}: the port is said");
        }
        // Nobody is led to another bucket by it.
        let elsewhere =
            signer.sign(get()).header("x-forwarded-host", "other-bucket.s3.example.org");
        let answer = elsewhere.send(&server.address);
        assert_eq!(answer.status, if status == 200 { 403 } else { 200 }, "{trusted}");
    }
}

#[test]
fn s3_26_30_31_32_addresses_are_signed_for_one_method_and_what_was_signed_with_them() {
    let (server, _, signer) = house(&[]);
    let presign = |method: &str, target: &str| signer.presign(Request::new(method, target), "60");
    let put = presign("PUT", "/signed-bucket/p");
    assert_eq!(put.clone().body(b"put").send(&server.address).status, 200);
    assert_eq!(presign("GET", "/signed-bucket/p").send(&server.address).body, b"put");
    let head = presign("HEAD", "/signed-bucket/p").send(&server.address);
    assert_eq!((head.status, head.header("content-length")), (200, Some("3")));
    let started = presign("POST", "/signed-bucket/large?uploads").send(&server.address);
    let upload = element(&started, "UploadId");
    let target = format!("/signed-bucket/large?partNumber=1&uploadId={upload}");
    let part = presign("PUT", &target).body(b"the only part").send(&server.address);
    assert_eq!(part.status, 200);
    let listed = presign("GET", &format!("/signed-bucket/large?uploadId={upload}"));
    let listed = listed.send(&server.address);
    assert_eq!(element(&listed, "ETag").replace("&quot;", "\""), part.header("etag").unwrap());
    assert_eq!(presign("DELETE", "/signed-bucket/p").send(&server.address).status, 204);
    assert_eq!(presign("GET", "/signed-bucket/p").send(&server.address).status, 404);

    let mut other = presign("GET", "/signed-bucket/k");
    for method in ["PUT", "DELETE", "HEAD"] {
        method.clone_into(&mut other.method);
        assert_eq!(other.send(&server.address).status, 403, "{method}");
    }
    let typed = Request::new("PUT", "/signed-bucket/t").header("content-type", "text/plain");
    let typed = signer.presign(typed, "60").body(b"x");
    assert_eq!(typed.send(&server.address).status, 200);
    for changed in
        [typed.clone().header("content-type", "text/html"), typed.without("content-type")]
    {
        let answer = changed.send(&server.address);
        assert_eq!(code(&answer), (403, "SignatureDoesNotMatch".to_owned()));
    }
    let mode = get().header("x-amz-checksum-mode", "ENABLED");
    assert_eq!(signer.presign(mode, "60").send(&server.address).status, 200);
}

#[test]
fn s3_27_signed_requests_choose_headers_of_the_answer_and_unsigned_ones_do_not() {
    let (server, master, signer) = house(&[]);
    let chosen = [
        ("response-content-type", "text%2Fx-chosen", "content-type", "text/x-chosen"),
        ("response-content-disposition", "attachment", "content-disposition", "attachment"),
        ("response-cache-control", "max-age%3D7", "cache-control", "max-age=7"),
        (
            "response-expires",
            "Fri%2C%2002%20Jan%202026%2003%3A04%3A05%20GMT",
            "expires",
            "Fri, 02 Jan 2026 03:04:05 GMT",
        ),
        ("response-content-encoding", "x-none", "content-encoding", "x-none"),
        ("response-content-language", "de", "content-language", "de"),
    ];
    let query: Vec<String> =
        chosen.iter().map(|(name, value, ..)| format!("{name}={value}")).collect();
    let target = format!("/signed-bucket/k?{}", query.join("&"));
    for request in [
        signer.sign(Request::new("GET", &target)),
        signer.presign(Request::new("GET", &target), "60"),
    ] {
        let answer = request.send(&server.address);
        assert_eq!(answer.status, 200);
        for (_, _, header, value) in chosen {
            assert_eq!(answer.header(header), Some(value));
        }
    }
    let mut added = signer.presign(get(), "60");
    added.query.push_str("&response-content-type=text%2Fhtml");
    assert_eq!(added.send(&server.address).status, 403, "reliability C22, C23");
    let public = json!({"accountId": master.account, "bucketName": "public-bucket",
                        "bucketType": "allPublic"});
    let public = master.ok("b2_create_bucket", &public)["bucketId"].as_str().unwrap().to_owned();
    master.upload(&public, "k", b"public");
    let target = "/public-bucket/k?response-content-type=text%2Fhtml";
    let anonymous = Request::new("GET", target).header("host", &signer.host).send(&server.address);
    assert_eq!(code(&anonymous), (400, "InvalidRequest".to_owned()));
}

#[test]
fn s3_28_29_addresses_end_when_they_say() {
    let (server, _, signer) = house(&[]);
    for expires in ["0", "-1", "604801", "9223372036854775808", "abc", ""] {
        let answer = signer.presign(get(), expires).send(&server.address);
        let expected = (403, "AuthorizationQueryParametersError".to_owned());
        assert_eq!(code(&answer), expected, "{expires}");
    }
    let week = signer.presign(get(), "604800");
    let minute = signer.presign(get(), "60");
    for request in [&week, &minute] {
        assert_eq!(request.send(&server.address).status, 200);
    }
    assert_eq!(server.control("POST", "/admin/clock/advance?ms=65000").status, 200);
    let answer = minute.send(&server.address);
    assert_eq!(code(&answer), (403, "AccessDenied".to_owned()));
    assert_eq!(element(&answer, "Message"), "Request has expired");
    assert_eq!(week.send(&server.address).status, 200);
    let early = Signer { ahead_s: 2000, ..signer }.presign(get(), "60").send(&server.address);
    assert_eq!(code(&early), (403, "AccessDenied".to_owned()));
}

#[test]
fn s3_34_35_nobody_reads_files_of_public_buckets_and_does_nothing_else() {
    let (server, master, signer) = house(&[]);
    let public = json!({"accountId": master.account, "bucketName": "public-bucket",
                        "bucketType": "allPublic"});
    let public = master.ok("b2_create_bucket", &public)["bucketId"].as_str().unwrap().to_owned();
    master.upload(&public, "k", b"public");
    let send = |method: &str, target: &str| {
        Request::new(method, target).header("host", &signer.host).send(&server.address)
    };
    assert_eq!(send("GET", "/public-bucket/k").body, b"public");
    assert_eq!(send("HEAD", "/public-bucket/k").header("content-length"), Some("6"));
    assert_eq!(code(&send("GET", "/public-bucket/none")), (404, "NoSuchKey".to_owned()));
    for (method, target) in [
        ("GET", "/signed-bucket/k"),
        ("GET", "/signed-bucket/none"),
        ("GET", "/public-bucket"),
        ("GET", "/public-bucket?list-type=2"),
        ("GET", "/public-bucket?versions"),
        ("GET", "/public-bucket?acl"),
        ("GET", "/public-bucket/k?acl"),
        ("GET", "/"),
        ("PUT", "/public-bucket/k"),
        ("PUT", "/new-public-bucket"),
        ("DELETE", "/public-bucket/k"),
        ("DELETE", "/public-bucket"),
        ("POST", "/public-bucket?delete"),
        ("POST", "/public-bucket/k?uploads"),
    ] {
        let answer = send(method, target);
        assert_eq!(code(&answer), (403, "AccessDenied".to_owned()), "{method} {target}");
    }
    assert_eq!(send("HEAD", "/signed-bucket/k").status, 403);
    assert_eq!(send("HEAD", "/public-bucket").status, 403);
    // The hash of a body that nobody signed means nothing.
    let chunked = Request::new("PUT", "/public-bucket/k")
        .header("host", &signer.host)
        .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .header("x-amz-decoded-content-length", "1")
        .body(b"1\r\nx\r\n0\r\n\r\n")
        .send(&server.address);
    assert_eq!(code(&chunked), (403, "AccessDenied".to_owned()), "reliability C12");
}

#[test]
fn s3_155_no_secret_and_no_signature_is_logged() {
    let (server, _, signer) = house(&["--log-level=trace"]);
    let signed = signer.sign(get().header("x-amz-meta-a", "b"));
    assert_eq!(signed.send(&server.address).status, 200);
    let presigned = signer.presign(get(), "60");
    assert_eq!(presigned.send(&server.address).status, 200);
    let wrong = Signer { secret: "K000anotherone".to_owned(), ..signer.clone() }.sign(get());
    assert_eq!(wrong.send(&server.address).status, 403);
    let log = server.log();
    let signature = |request: &Request| {
        let text = format!("{}{}", request.query, request.value("authorization").unwrap_or(""));
        text.rsplit_once("Signature=").unwrap().1.to_owned()
    };
    for secret in [signer.secret, signature(&signed), signature(&presigned), signature(&wrong)] {
        assert!(!log.contains(&secret), "{secret}");
    }
    assert!(log.contains("GetObject"), "it is logged at all");
}

#[test]
fn s3_26_headers_that_were_moved_into_a_signed_address_count() {
    let (server, master, signer) = house(&[]);
    let put = |query: &str, body: &[u8]| {
        let request = Request::new("PUT", &format!("/signed-bucket/moved?{query}")).body(body);
        let length = body.len().to_string();
        // The address is signed by somebody else than who sends to it: only the host is in there.
        let presigned = Request { body: Vec::new(), ..request.clone() };
        let presigned = signer.presign(presigned, "60");
        Request { body: request.body, ..presigned }
            .header("content-length", &length)
            .send(&server.address)
    };
    let refused = |status: u16, code: &str| (status, code.to_owned());
    let kept = put(
        "x-amz-meta-Colour=sky%20bl%C3%BC&x-amz-acl=private&x-amz-server-side-encryption=AES256\
         &X-Amz-Checksum-Sha256=7XACtDnprIRfIjV9giusFERzD722AW0%2ByUMil7nsn3M%3D\
         &x-amz-sdk-checksum-algorithm=SHA256&x-id=PutObject",
        b"content",
    );
    assert_eq!(kept.status, 200, "{kept:?}");
    assert_eq!(kept.header("x-amz-server-side-encryption"), Some("AES256"));
    assert!(kept.header("x-amz-checksum-sha256").is_some());
    let read = signer.sign(Request::new("GET", "/signed-bucket/moved")).send(&server.address);
    assert_eq!(read.header("x-amz-meta-colour"), Some("=?UTF-8?B?c2t5IGJsw7w=?="));
    let version = read.header("x-amz-version-id").unwrap().to_owned();
    let info = master.ok("b2_get_file_info", &json!({"fileId": version}));
    assert_eq!(info["fileInfo"]["colour"], "sky bl\u{fc}");
    assert_eq!(info["serverSideEncryption"]["mode"], "SSE-B2");

    for (query, wanted) in [
        ("X-Amz-Checksum-Crc32=yhzkjQ%3D%3D", refused(400, "BadDigest")),
        ("x-amz-checksum-crc32=short", refused(400, "InvalidRequest")),
        ("x-amz-acl=public-read", refused(400, "InvalidArgument")),
        ("X-Amz-Tagging=a%3Db", refused(400, "InvalidArgument")),
        ("x-amz-storage-class=GLACIER", refused(400, "InvalidStorageClass")),
        ("x-amz-object-lock-legal-hold=ON", refused(400, "InvalidRequest")),
        ("x-amz-server-side-encryption=aws%3Akms", refused(400, "InvalidArgument")),
        ("x-amz-meta-a=1&x-amz-meta-a=2", refused(400, "InvalidArgument")),
        ("x-amz-expected-bucket-owner=000000000000", refused(403, "AccessDenied")),
        ("x-amz-copy-source=signed-bucket%2Fnothing", refused(404, "NoSuchKey")),
    ] {
        assert_eq!(code(&put(query, b"content")), wanted, "{query}");
    }
    let other = put("x-amz-meta-a=1", b"").status;
    assert_eq!(other, 200);
    // What SDKs put there that had no content to sign, as AWS takes it.
    for query in [
        "x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32",
        "X-Amz-Sdk-Checksum-Algorithm=SHA256",
    ] {
        assert_eq!(put(query, b"content").status, 200, "{query}");
    }
    let copied = put("x-amz-copy-source=signed-bucket%2Fk", b"");
    assert_eq!(copied.status, 200, "{copied:?}");
    assert!(element(&copied, "ETag").contains("9a0364b9e99bb480dd25e1f0284c8555"), "{copied:?}");
    // Elsewhere than in signed addresses they count as well, and nobody adds one to a signed one.
    let listed = Request::new("GET", "/signed-bucket/k?x-amz-unheard-of=1");
    assert_eq!(code(&signer.sign(listed).send(&server.address)), refused(400, "InvalidArgument"));
    let mut added = signer.presign(Request::new("PUT", "/signed-bucket/moved"), "60").body(b"x");
    added.query += "&x-amz-meta-a=1";
    let wrong = refused(403, "SignatureDoesNotMatch");
    assert_eq!(code(&added.send(&server.address)), wrong);

    let (server, _, signer) = house(&["--s3-checksum-support=reject"]);
    let request = Request::new("PUT", "/signed-bucket/moved?x-amz-checksum-crc32=yhzkjQ%3D%3D");
    let answer = signer.presign(request, "60").body(b"content").send(&server.address);
    assert_eq!(code(&answer), refused(400, "InvalidArgument"));
}
