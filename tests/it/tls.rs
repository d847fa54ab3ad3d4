//! TLS on the data listener, with a real client.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::support::http::socket;
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, basic, kiln, sha1_hex};
use crate::support::tls::connect;
use crate::support::wait_for;

/// A certificate for localhost and its key, both in PEM.
fn made() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A folder with a certificate and its key, and the flags that name them.
fn files(folder: &Path, (certificate, key): &(String, String)) -> [String; 2] {
    std::fs::write(folder.join("cert.pem"), certificate).unwrap();
    std::fs::write(folder.join("key.pem"), key).unwrap();
    ["cert", "key"].map(|name| {
        let path = folder.join(format!("{name}.pem"));
        format!("--tls-{name}={}", path.display())
    })
}

fn trust(server: &Server) -> String {
    std::fs::read_to_string(server.data_dir().join("tls-cert.pem")).unwrap()
}

#[test]
fn a_server_makes_a_certificate_of_its_own_and_is_used_over_tls_only() {
    let mut server = Server::start_with(&["--tls-self-signed", "--test-controls"]);
    let trusted = trust(&server);
    for name in ["tls-cert.pem", "tls-key.pem"] {
        let facts = std::fs::metadata(server.data_dir().join(name)).unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, 0o600, "{name}");
    }
    for name in ["localhost", "127.0.0.1", "s3.us-west-000.localhost", "b.s3.us-west-000.localhost"]
    {
        connect(&server.address, name, &trusted, &[]).unwrap();
    }
    assert!(connect(&server.address, "elsewhere.example", &trusted, &[]).is_err());
    assert!(connect(&server.address, "localhost", &made().0, &[]).is_err(), "nobody else's");

    let (mut connection, ..) = connect(&server.address, "localhost", &trusted, &[]).unwrap();
    let host = format!("localhost:{}", server.address.rsplit_once(':').unwrap().1);
    let credentials = basic(MASTER_ID, MASTER_KEY);
    let headers = [("Host", host.as_str()), ("Authorization", credentials.as_str())];
    let entered = connection.call("GET", "/b2api/v4/b2_authorize_account", &headers, b"").unwrap();
    let entered = entered.json();
    let storage = &entered["apiInfo"]["storageApi"];
    for url in ["apiUrl", "downloadUrl", "s3ApiUrl"] {
        assert_eq!(storage[url], format!("https://{host}"), "{url}");
    }
    let token = entered["authorizationToken"].as_str().unwrap().to_owned();
    let headers = [("Host", host.as_str()), ("Authorization", token.as_str())];
    let bucket =
        json!({"accountId": MASTER_ID, "bucketName": "tls-bucket", "bucketType": "allPrivate"});
    let bucket = bucket.to_string();
    let bucket = connection
        .call("POST", "/b2api/v4/b2_create_bucket", &headers, bucket.as_bytes())
        .unwrap()
        .json();
    let wanted = json!({"bucketId": bucket["bucketId"]}).to_string();
    let pair = connection
        .call("POST", "/b2api/v4/b2_get_upload_url", &headers, wanted.as_bytes())
        .unwrap()
        .json();
    let target = pair["uploadUrl"].as_str().unwrap().strip_prefix(&format!("https://{host}"));
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (upload_token, sha1) = (pair["authorizationToken"].as_str().unwrap(), sha1_hex(&content));
    let headers = [
        ("Host", host.as_str()),
        ("Authorization", upload_token),
        ("X-Bz-File-Name", "f"),
        ("Content-Type", "text/plain"),
        ("X-Bz-Content-Sha1", &sha1),
    ];
    let stored = connection.call("POST", target.unwrap(), &headers, &content).unwrap();
    assert_eq!(stored.status, 200, "{stored:?}");
    let headers = [("Host", host.as_str()), ("Authorization", token.as_str())];
    let read = connection.call("GET", "/file/tls-bucket/f", &headers, b"").unwrap();
    assert!(read.body == content, "the content comes back");

    // Who does not speak TLS is told nothing.
    let mut plain = socket(&server.address).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut told = Vec::new();
    drop(plain.read_to_end(&mut told));
    assert!(!told.starts_with(b"HTTP"), "{told:?}");
    assert!(!server.log().contains("BEGIN"), "no key in the log");

    assert_eq!(server.terminate(), Some(0));
    server.restart();
    assert_eq!(trust(&server), trusted, "clients may go on trusting it");
    connect(&server.address, "localhost", &trusted, &[]).unwrap();
}

#[test]
fn reliability_m10_a_certificate_is_replaced_without_dropping_anybody() {
    let folder = TempDir::new().unwrap();
    let (first, second, third) = (made(), made(), made());
    let flags = files(folder.path(), &first);
    let server = Server::start_with(&[&flags[0], &flags[1]]);
    let shown = |trusted: &(String, String)| {
        connect(&server.address, "localhost", &trusted.0, &[]).map(|(_, shown, _)| shown)
    };
    let (mut old, ..) = connect(&server.address, "localhost", &first.0, &[]).unwrap();
    assert_eq!(old.call("GET", "/b2api/v4/b2_nothing", &[], b"").unwrap().status, 404);

    files(folder.path(), &second);
    server.signal(Signal::HUP);
    wait_for("the second certificate", || shown(&second).ok());
    assert!(shown(&first).is_err());
    assert_eq!(
        old.call("GET", "/b2api/v4/b2_nothing", &[], b"").unwrap().status,
        404,
        "it goes on"
    );

    // Files that are broken, or belong to each other no more, change nothing.
    let complaints = || server.log().matches("the certificate stays as it was").count();
    let (no_key, no_certificate) = ("no key at all".to_owned(), "-----BEGIN".to_owned());
    let broken = [
        (no_certificate, second.1.clone()),
        (second.0.clone(), no_key),
        (third.0.clone(), second.1.clone()),
        (String::new(), String::new()),
    ];
    for broken in broken {
        let before = complaints();
        files(folder.path(), &broken);
        server.signal(Signal::HUP);
        wait_for("a complaint", || (complaints() > before).then_some(()));
        shown(&second).unwrap();
    }
    std::fs::remove_file(folder.path().join("key.pem")).unwrap();
    server.signal(Signal::HUP);
    assert!(!server.log().contains("BEGIN"), "no key in the log");

    // Nobody needs to be told that the files are right again.
    files(folder.path(), &third);
    wait_for("the third certificate", || shown(&third).ok());
    assert_eq!(
        old.call("GET", "/b2api/v4/b2_nothing", &[], b"").unwrap().status,
        404,
        "it goes on"
    );
}

#[test]
fn a_certificate_that_cannot_be_used_keeps_the_server_from_starting() {
    let folder = TempDir::new().unwrap();
    let (one, other) = (made(), made());
    for (pair, complaint) in [
        ((one.0.clone(), other.1), "does not belong to the certificate"),
        ((one.0.clone(), "nothing".to_owned()), "it holds no private key in PEM"),
        (("nothing".to_owned(), one.1.clone()), "it holds no certificate in PEM"),
    ] {
        let flags = files(folder.path(), &pair);
        let data_dir: PathBuf = folder.path().join("data");
        let output = kiln()
            .arg("serve")
            .arg("--data-dir")
            .arg(&data_dir)
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(&flags)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(complaint), "{told}");
        assert!(!told.contains("BEGIN"), "{told}");
    }
}

#[test]
fn reliability_f37_what_is_no_handshake_is_closed_and_http_1_1_is_agreed_on() {
    let server = Server::start_with(&["--tls-self-signed"]);
    let trusted = trust(&server);
    let mut silent = socket(&server.address).unwrap();
    for garbage in [&b"\x16\x03\x01\xff\xff"[..], b"\0\0\0\0", &vec![0xff; 70_000]] {
        let mut stream = socket(&server.address).unwrap();
        drop(stream.write_all(garbage));
        let mut told = Vec::new();
        drop(stream.read_to_end(&mut told));
        assert!(told.len() < 64, "at most an alert");
    }
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("http/1.1")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let connected = connect(&server.address, "localhost", &trusted, offered).unwrap();
        let (mut connection, _, agreed) = connected;
        assert_eq!(agreed.as_deref(), chosen);
        assert_eq!(connection.call("GET", "/b2api/v4/b2_nothing", &[], b"").unwrap().status, 404);
    }
    // Whoever says nothing does not stay.
    let mut told = Vec::new();
    drop(silent.read_to_end(&mut told));
    assert!(told.len() < 64);
}
