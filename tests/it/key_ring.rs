//! The keys behind SSE-B2: rotated, used, retired, while the server runs and while it does not.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::http::call;
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session, basic, kiln};

const MANAGED: (&str, &str) = ("X-Bz-Server-Side-Encryption", "AES256");

/// Runs `kiln key-ring ... --json` on the data folder of a server that may be running.
fn key_ring(server: &Server, action: &str) -> Value {
    let output = kiln()
        .args(["key-ring", action, "--json", "--data-dir"])
        .arg(server.data_dir())
        .env("KILN_MASTER_KEY_ID", MASTER_ID)
        .env("KILN_MASTER_KEY", MASTER_KEY)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{action}: {complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Numbers of the keys, and of the blobs under each.
fn keys(server: &Server) -> Vec<(i64, i64)> {
    let listed = key_ring(server, "list");
    let listed = listed["ringKeys"].as_array().unwrap();
    assert_eq!(listed.last().unwrap()["isCurrent"], true);
    assert_eq!(listed.iter().filter(|key| key["isCurrent"] == true).count(), 1);
    let numbers = |key: &Value| (key["ringKey"].as_i64().unwrap(), key["blobs"].as_i64().unwrap());
    listed.iter().map(numbers).collect()
}

fn ring_file(server: &Server) -> String {
    std::fs::read_to_string(server.data_dir().join("key-ring")).unwrap()
}

/// Keys in the file.
fn kept(server: &Server) -> usize {
    ring_file(server).lines().filter(|line| !line.starts_with('#')).count()
}

fn body(number: usize) -> Vec<u8> {
    // Every fifth is larger than what is kept in the catalog.
    let size = if number.is_multiple_of(5) { 20_000 } else { 10 };
    format!("{number:08}").into_bytes().into_iter().cycle().take(size).collect()
}

fn upload(session: &Session, bucket: &str, number: usize) {
    let answer = session.try_upload(bucket, &format!("f{number}"), &body(number), &[MANAGED]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn assert_readable(server: &Server, count: usize) {
    let master = server.master();
    for number in 0..count {
        let got = master.download(&format!("ring-bucket/f{number}"), &[]);
        assert!(got.status == 200 && got.body == body(number), "f{number}: {}", got.status);
    }
}

#[test]
fn keys_are_rotated_and_retired_whether_the_server_runs_or_not() {
    // More than two steps of wrapping anew.
    const FILES: usize = 450;
    let mut server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("ring-bucket");
    for number in 0..FILES {
        upload(&master, &bucket, number);
    }
    assert_eq!(keys(&server), [(1, 450)]);
    assert_eq!(key_ring(&server, "retire"), json!({"retired": []}), "the current key stays");
    let rotated = key_ring(&server, "rotate");
    assert_eq!(rotated, json!({"failed": 0, "rewrapped": 450, "ringKey": 2}));
    assert_eq!((keys(&server), kept(&server)), (vec![(1, 0), (2, 450)], 2));
    assert_readable(&server, FILES);
    let first = ring_file(&server).lines().find(|line| line.starts_with("1 ")).unwrap().to_owned();
    assert_eq!(key_ring(&server, "retire"), json!({"retired": [1]}));
    assert_eq!((keys(&server), kept(&server)), (vec![(2, 450)], 1));
    assert!(!ring_file(&server).contains(&first));
    assert_readable(&server, FILES);

    assert_eq!(server.terminate(), Some(0));
    assert_eq!(key_ring(&server, "rotate")["rewrapped"], 450);
    assert_eq!(key_ring(&server, "retire"), json!({"retired": [2]}));
    assert_eq!(keys(&server), [(3, 450)]);
    server.restart();
    assert_readable(&server, FILES);
    upload(&server.master(), &bucket, FILES);
    assert_eq!(keys(&server), [(3, 451)]);
    assert!(!server.log().contains(&first), "no key is logged");
}

#[test]
fn uploads_and_downloads_go_on_while_keys_are_rotated() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("ring-bucket");
    upload(&master, &bucket, 0);
    let done = AtomicBool::new(false);
    let stored = std::thread::scope(|scope| {
        let (server, master, bucket, done) = (&server, &master, &bucket, &done);
        let uploading = scope.spawn(move || {
            let mut number = 1;
            while !done.load(Ordering::SeqCst) {
                upload(master, bucket, number);
                number += 1;
            }
            number
        });
        let reading = scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let got = master.download("ring-bucket/f0", &[]);
                assert_eq!((got.status, got.body), (200, body(0)));
            }
        });
        for _ in 0..4 {
            key_ring(server, "rotate");
        }
        done.store(true, Ordering::SeqCst);
        reading.join().unwrap();
        uploading.join().unwrap()
    });
    key_ring(&server, "rewrap");
    assert_eq!(key_ring(&server, "retire"), json!({"retired": [1, 2, 3, 4]}));
    assert_eq!(keys(&server), [(5, i64::try_from(stored).unwrap())]);
    assert_readable(&server, stored);
}

#[test]
fn a_rotation_cut_short_leaves_everything_readable_and_can_be_ended() {
    const FILES: usize = 300;
    let mut server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("ring-bucket");
    for number in 0..FILES {
        upload(&master, &bucket, number);
    }
    let admin = |server: &Server, target: &str, fields: Value| {
        let header = basic(MASTER_ID, MASTER_KEY);
        let headers = [("Authorization", header.as_str())];
        call(&server.admin, "POST", target, &headers, fields.to_string().as_bytes())
    };
    assert_eq!(admin(&server, "/admin/key-ring", json!({})).json(), json!({"ringKey": 2}));
    let step = admin(&server, "/admin/key-ring/rewrap", json!({})).json();
    assert_eq!((&step["rewrapped"], &step["failed"]), (&json!(200), &json!(0)));
    assert!(step["nextAfter"].is_string());
    server.kill();
    server.restart();
    assert_eq!(keys(&server), [(1, 100), (2, 200)]);
    assert_readable(&server, FILES);
    assert_eq!(key_ring(&server, "retire"), json!({"retired": []}), "key 1 is needed");
    assert_eq!(key_ring(&server, "rewrap"), json!({"failed": 0, "rewrapped": 100, "ringKey": 2}));
    assert_eq!(key_ring(&server, "retire"), json!({"retired": [1]}));
    assert_readable(&server, FILES);

    // A crash between the file and the catalog: the key is in the file only.
    assert_eq!(server.terminate(), Some(0));
    let file = ring_file(&server);
    let path = server.data_dir().join("key-ring");
    std::fs::write(&path, format!("{file}3 1700000000000 {}\n", "5a".repeat(32))).unwrap();
    server.restart();
    upload(&server.master(), &bucket, FILES);
    assert_eq!(keys(&server), [(2, 300), (3, 1)]);
    assert_readable(&server, FILES + 1);

    // A ring without a key that is needed is told at the start.
    assert_eq!(server.terminate(), Some(0));
    std::fs::write(&path, format!("3 1700000000000 {}\n", "5a".repeat(32))).unwrap();
    let output = kiln()
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(server.data_dir())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("its key 2 is missing"), "{complaint}");
}

#[test]
fn an_older_copy_of_the_key_ring_never_gives_a_number_twice() {
    let mut server = Server::start();
    let bucket = server.master().create_bucket("ring-bucket");
    let older = ring_file(&server);
    assert_eq!(key_ring(&server, "rotate")["ringKey"], 2);
    assert_eq!(server.terminate(), Some(0));
    std::fs::write(server.data_dir().join("key-ring"), older).unwrap();
    server.restart();
    assert_eq!(key_ring(&server, "rotate")["ringKey"], 3);
    upload(&server.master(), &bucket, 0);
    assert_eq!(server.terminate(), Some(0));
    server.restart();
    assert_eq!(keys(&server), [(1, 0), (3, 1)]);
    assert_readable(&server, 1);
}

#[test]
fn a_key_ring_command_that_left_data_keys_behind_fails() {
    let mut server = Server::start();
    let bucket = server.master().create_bucket("ring-bucket");
    upload(&server.master(), &bucket, 0);
    upload(&server.master(), &bucket, 1);
    assert_eq!(server.terminate(), Some(0));
    let catalog = rusqlite::Connection::open(server.data_dir().join("meta.db")).unwrap();
    let damage = "UPDATE blobs SET sealed_key = zeroblob(length(sealed_key))
                   WHERE blob_id = (SELECT MAX(blob_id) FROM blobs WHERE ring_key = 1)";
    assert_eq!(catalog.execute(damage, []).unwrap(), 1);
    drop(catalog);
    for (action, rewrapped) in [("rotate", 1), ("rewrap", 0)] {
        let mut command = kiln();
        command.args(["key-ring", action, "--json", "--data-dir"]).arg(server.data_dir());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{action}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told, json!({"failed": 1, "rewrapped": rewrapped, "ringKey": 2}));
    }
}

#[test]
fn only_the_master_key_may_touch_the_key_ring() {
    let server = Server::start();
    let master = server.master();
    let (id, key) = master.create_key(&["listBuckets", "writeKeys", "readFiles"], None, None);
    for (method, target) in [
        ("GET", "/admin/key-ring"),
        ("POST", "/admin/key-ring"),
        ("POST", "/admin/key-ring/rewrap"),
        ("POST", "/admin/key-ring/retire"),
    ] {
        for header in [None, Some(basic(&id, &key)), Some(basic(MASTER_ID, "wrong"))] {
            let headers = header.as_ref().map(|header| ("Authorization", header.as_str()));
            let headers: Vec<_> = headers.into_iter().collect();
            let answer = call(&server.admin, method, target, &headers, b"");
            assert_eq!(answer.status, 401, "{method} {target}: {answer:?}");
        }
    }
    assert_eq!(keys(&server), [(1, 0)]);
}
