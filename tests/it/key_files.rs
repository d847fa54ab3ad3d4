//! The files that hold keys: closed to others, whole after a crash, fitting to the catalog. And the
//! memory that holds keys: in no core dump.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::support::server::{Server, Session, kiln};

const MANAGED: (&str, &str) = ("X-Bz-Server-Side-Encryption", "AES256");
/// The files of keys in a data folder.
const KEY_FILES: [&str; 2] = ["sealing.key", "key-ring"];

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// What `kiln serve` says that does not start on a data folder.
#[track_caller]
fn complaint(data_dir: &Path, more: &[&str]) -> String {
    let output = kiln()
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .args(more)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn upload_sealed(session: &Session, bucket: &str) -> u16 {
    session.try_upload(bucket, "sealed", &vec![7; 20_000], &[MANAGED]).status
}

#[test]
fn reliability_k16_no_crash_writes_the_memory_of_a_server_into_a_core_dump() {
    let server = Server::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let limits: Vec<&str> = line.split_ascii_whitespace().skip(4).collect();
    // One byte: less than any dump has, and the limit that holds for dumps taken by a program. Where
    // the tests themselves may have none at all, neither may the server.
    assert!(matches!(limits[..], ["1", "1", "bytes"] | ["0", "0", "bytes"]), "{line}");
}

#[test]
fn reliability_k5_a_server_does_not_start_with_key_files_that_others_may_open() {
    let mut server = Server::start();
    let data_dir = server.data_dir().to_owned();
    assert_eq!(mode(&data_dir), 0o700);
    for name in KEY_FILES {
        assert_eq!(mode(&data_dir.join(name)), 0o600, "{name}");
    }
    server.kill();
    for name in KEY_FILES {
        let path = data_dir.join(name);
        for wide in [0o640, 0o604, 0o620, 0o601] {
            set_mode(&path, wide);
            let told = complaint(&data_dir, &[]);
            let shown = path.display();
            assert!(told.contains(&format!("{shown} holds keys")), "{told}");
            assert!(told.contains(&format!("(mode {wide:o})")), "{told}");
            assert!(told.contains(&format!("chmod 600 {shown}")), "{told}");
        }
        // Nothing is asked for beyond that: who may not write may serve as well.
        set_mode(&path, 0o400);
    }
    for wide in [0o770, 0o702] {
        set_mode(&data_dir, wide);
        let told = complaint(&data_dir, &[]);
        assert!(told.contains(&format!("chmod 700 {}", data_dir.display())), "{told}");
    }
    set_mode(&data_dir, 0o700);
    // A key ring that lies elsewhere must lie as safely.
    let elsewhere = data_dir.with_extension("keys");
    std::fs::create_dir(&elsewhere).unwrap();
    let ring = elsewhere.join("ring");
    std::fs::rename(data_dir.join("key-ring"), &ring).unwrap();
    set_mode(&elsewhere, 0o777);
    let named = ["--key-ring-file", ring.to_str().unwrap()];
    let told = complaint(&data_dir, &named);
    assert!(told.contains(&format!("chmod 700 {}", elsewhere.display())), "{told}");
    set_mode(&elsewhere, 0o755);
    drop(Server::start_in(&data_dir, &named));
}

#[test]
fn an_empty_folder_that_is_to_hold_the_data_is_closed_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, used) = (folder.path().join("empty"), folder.path().join("used"));
    for path in [&empty, &used] {
        std::fs::create_dir(path).unwrap();
        set_mode(path, 0o755);
    }
    std::fs::write(used.join("notes"), b"not ours").unwrap();
    drop(Server::start_in(&empty, &[]));
    assert_eq!(mode(&empty), 0o700);
    drop(Server::start_in(&used, &[]));
    assert_eq!(mode(&used), 0o755, "others see names in it and open nothing");
    for name in KEY_FILES.iter().copied().chain(["meta.db", "blobs"]) {
        assert_eq!(mode(&used.join(name)) & 0o077, 0, "{name}");
    }
}

#[test]
fn a_command_does_not_read_a_first_key_that_others_may_read() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let first_key = data_dir.join("initial-key.env");
    let serving = kiln()
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--ready-file", folder.path().join("ready").to_str().unwrap(), "--data-dir"])
        .arg(&data_dir)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut serving = Ending(serving);
    crate::support::wait_for("a server gets ready", || {
        folder.path().join("ready").exists().then_some(())
    });
    let list = || kiln().args(["key-ring", "list", "--data-dir"]).arg(&data_dir).output().unwrap();
    assert_eq!(mode(&first_key), 0o600);
    assert!(list().status.success());
    set_mode(&first_key, 0o644);
    let refused = list();
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains(&format!("chmod 600 {}", first_key.display())), "{told}");
    serving.0.kill().unwrap();
}

/// A process that ends with the test.
struct Ending(std::process::Child);

impl Drop for Ending {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_server_does_not_start_whose_catalog_has_lost_the_rows_of_its_key_ring() {
    let mut server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("lost-rows");
    assert_eq!(upload_sealed(&master, &bucket), 200);
    assert_eq!(server.terminate(), Some(0));
    let data_dir = server.data_dir().to_owned();
    let change = |sql: &str| {
        let catalog = rusqlite::Connection::open(data_dir.join("meta.db")).unwrap();
        assert_eq!(catalog.execute(sql, []).unwrap(), 1);
    };
    change("UPDATE ring_keys SET key_no = 1000");
    let told = complaint(&data_dir, &[]);
    assert!(told.contains("wrapped with key 1 of the key ring"), "{told}");
    change("DELETE FROM ring_keys");
    let ring = std::fs::read(data_dir.join("key-ring")).unwrap();
    for is_there in [true, false] {
        let told = complaint(&data_dir, &[]);
        assert!(told.contains("put back the data folder and its key ring"), "{told}");
        let path = data_dir.join("key-ring");
        assert_eq!(path.exists(), is_there, "no other ring is made");
        if is_there {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::write(data_dir.join("key-ring"), ring).unwrap();
    set_mode(&data_dir.join("key-ring"), 0o600);
    // A catalog in which nothing is wrapped has lost nothing.
    change("UPDATE blobs SET ring_key = NULL, sealed_key = NULL, seal = 0 WHERE ring_key = 1");
    server.restart();
    assert_eq!(upload_sealed(&server.master(), &bucket), 200);
}

#[test]
fn a_start_removes_key_files_that_a_crash_left_half_written_and_nothing_else() {
    let mut server = Server::start();
    server.kill();
    let at = |name: &str| server.data_dir().join(name);
    let gone = [
        "key-ring.0123456789abcdef.tmp",
        "sealing.key.0123456789abcdef.tmp",
        "initial-key.env.ffffffffffffffff.tmp",
        "running.json.0000000000000000.tmp",
    ];
    let stay = [
        "key-ring.0123456789abcde.tmp",
        "key-ring.0123456789abcdeg.tmp",
        "key-ring.0123456789abcdef",
        "key-ring.tmp",
        "key-ring.old",
        "other.0123456789abcdef.tmp",
    ];
    for name in gone.iter().chain(&stay) {
        std::fs::write(at(name), b"1 0 half a key").unwrap();
    }
    // What is no file stays, and keeps nobody from starting.
    std::fs::create_dir(at("key-ring.aaaaaaaaaaaaaaaa.tmp")).unwrap();
    let data_dir = server.data_dir().to_owned();
    server.restart();
    let left = |name: &&&str| data_dir.join(name).exists();
    assert_eq!(gone.iter().filter(left).count(), 0);
    assert_eq!(stay.iter().filter(left).count(), stay.len());
    assert!(data_dir.join("key-ring").exists());
}

#[test]
fn an_upload_whose_key_is_retired_before_its_commit_is_answered_with_503_and_leaves_nothing() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("retired-key");
    assert_eq!(upload_sealed(&master, &bucket), 200);
    // What a retirement does in the moment between the wrapping of a key and the commit.
    let catalog = rusqlite::Connection::open(server.data_dir().join("meta.db")).unwrap();
    assert_eq!(catalog.execute("DELETE FROM ring_keys", []).unwrap(), 1);
    for size in [20_000, 5] {
        let refused = master.try_upload(&bucket, "refused", &vec![7; size], &[MANAGED]);
        assert_eq!((refused.status, refused.code().as_str()), (503, "service_unavailable"));
    }
    let part = json!({"bucketId": bucket, "fileName": "large", "contentType": "b2/x-auto",
        "serverSideEncryption": {"mode": "SSE-B2", "algorithm": "AES256"}});
    let large = master.ok("b2_start_large_file", &part);
    let copied = master.call(
        "b2_copy_part",
        &json!({"sourceFileId": master.upload(&bucket, "plain", &vec![1; 20_000])["fileId"],
            "largeFileId": large["fileId"], "partNumber": 1}),
    );
    assert_eq!((copied.status, copied.code().as_str()), (503, "service_unavailable"));
    let stored = walk(&server.data_dir().join("blobs"));
    assert_eq!(stored, 2, "the first file and the plain one");
    // Another key is there, and with it the same upload goes through.
    let rotated = kiln()
        .args(["key-ring", "rotate", "--data-dir"])
        .arg(server.data_dir())
        .env("KILN_MASTER_KEY_ID", crate::support::server::MASTER_ID)
        .env("KILN_MASTER_KEY", crate::support::server::MASTER_KEY)
        .output()
        .unwrap();
    assert!(rotated.status.success(), "{rotated:?}");
    assert_eq!(upload_sealed(&master, &bucket), 200);
    assert_eq!(master.download("retired-key/sealed", &[]).body, vec![7; 20_000]);
    let names = master.ok("b2_list_file_names", &json!({"bucketId": bucket}));
    let names: Vec<&str> = names["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["fileName"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["plain", "sealed"]);
}

/// How many files there are below a folder.
fn walk(folder: &Path) -> usize {
    let count = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path) } else { 1 }
    };
    std::fs::read_dir(folder).unwrap().map(count).sum()
}
