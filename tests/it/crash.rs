//! kill -9 of the real binary under load: nothing acknowledged is lost, and every version has
//! exactly one replica.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::Connection;
use crate::support::server::{Server, Session, sha1_hex};

const CYCLES: usize = 200;
const WRITERS: u64 = 4;
/// Every so many cycles everything is compared.
const COMPARE_EVERY: usize = 20;

/// A reproducible generator (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// When an upload counts as acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Booking {
    /// When the answer was read, as any client does.
    WithTheAnswer,
    /// When the request was sent: wrong, and the harness must find out.
    WithTheRequest,
}

#[derive(Clone, Debug)]
struct Booked {
    sha1: String,
    size: usize,
    deleted: bool,
}

/// What the clients were told, by file name. A name is used once.
type Ledger = Arc<Mutex<BTreeMap<String, Booked>>>;

fn content(dice: &mut Dice) -> Vec<u8> {
    let size = match dice.roll(8) {
        0 => 0,
        1 => 16_384,
        2 => 16_385,
        3 => 100_000,
        _ => usize::try_from(dice.roll(20_000)).unwrap(),
    };
    let byte = u8::try_from(dice.roll(256)).unwrap();
    let mut bytes = vec![byte; size];
    for (at, byte) in bytes.iter_mut().enumerate().step_by(97) {
        *byte = u8::try_from(at % 251).unwrap();
    }
    bytes
}

/// Uploads, hides and deletes until the server is gone.
fn write_until_killed(
    session: &Session,
    bucket: &str,
    label: &str,
    seed: u64,
    booking: Booking,
    ledger: &Ledger,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut dice = Dice(seed);
    let mut connection = Connection::open(&session.address)?;
    let auth = session.token.as_str();
    let json_call = |connection: &mut Connection, operation: &str, body: &Value| {
        let target = format!("/b2api/v4/{operation}");
        connection.call("POST", &target, &[("Authorization", auth)], body.to_string().as_bytes())
    };
    let pair =
        json_call(&mut connection, "b2_get_upload_url", &json!({"bucketId": bucket}))?.json();
    let url = pair["uploadUrl"].as_str().unwrap_or_default();
    let target = format!("/{}", url.splitn(4, '/').nth(3).unwrap_or_default());
    let token = pair["authorizationToken"].as_str().unwrap_or_default().to_owned();
    for number in 0..10_000 {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let name = format!("{label}-{number}");
        let bytes = content(&mut dice);
        let sha1 = sha1_hex(&bytes);
        let headers = [
            ("Authorization", token.as_str()),
            ("X-Bz-File-Name", name.as_str()),
            ("Content-Type", "b2/x-auto"),
            ("X-Bz-Content-Sha1", sha1.as_str()),
        ];
        connection.send("POST", &target, &headers, &bytes)?;
        let booked = Booked { sha1: sha1.clone(), size: bytes.len(), deleted: false };
        if booking == Booking::WithTheRequest {
            ledger.lock().unwrap().insert(name.clone(), booked.clone());
        }
        let answer = connection.read(false)?;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        ledger.lock().unwrap().insert(name.clone(), booked);
        match dice.roll(10) {
            0 => {
                let body = json!({"bucketId": bucket, "fileName": name});
                json_call(&mut connection, "b2_hide_file", &body)?;
            }
            1 => {
                let id = answer.json()["fileId"].clone();
                // Between the request and its answer nobody knows whether it is there.
                ledger.lock().unwrap().remove(&name);
                let body = json!({"fileId": id, "fileName": name});
                if json_call(&mut connection, "b2_delete_file_version", &body)?.status == 200 {
                    let gone = Booked { sha1, size: 0, deleted: true };
                    ledger.lock().unwrap().insert(name, gone);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn all_versions(session: &Session, bucket: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut start = json!(null);
    let mut start_id = json!(null);
    loop {
        let body = json!({"bucketId": bucket, "maxFileCount": 10_000, "startFileName": start,
                          "startFileId": start_id});
        let page = session.ok("b2_list_file_versions", &body);
        all.extend(page["files"].as_array().unwrap().iter().cloned());
        (start, start_id) = (page["nextFileName"].clone(), page["nextFileId"].clone());
        if start.is_null() {
            return all;
        }
    }
}

/// Compares the server with the ledger; answers what is lost or wrong.
fn compare(session: &Session, bucket: &str, ledger: &Ledger, read_all: bool) -> Vec<String> {
    let versions = all_versions(session, bucket);
    let uploads: BTreeMap<&str, &Value> = versions
        .iter()
        .filter(|version| version["action"] == "upload")
        .map(|version| (version["fileName"].as_str().unwrap(), version))
        .collect();
    let mut wrong = Vec::new();
    let mut connection = Connection::open(&session.address).unwrap();
    for (at, (name, booked)) in ledger.lock().unwrap().iter().enumerate() {
        match (uploads.get(name.as_str()), booked.deleted) {
            (None, true) => {}
            (Some(_), true) => wrong.push(format!("{name} was deleted and is there")),
            (None, false) => wrong.push(format!("{name} is lost")),
            (Some(version), false) => {
                if version["contentSha1"] != booked.sha1.as_str()
                    || version["contentLength"] != booked.size
                {
                    wrong.push(format!("{name} has other metadata"));
                }
                if read_all || at % 10 == 0 {
                    let target = format!(
                        "/b2api/v4/b2_download_file_by_id?fileId={}",
                        version["fileId"].as_str().unwrap()
                    );
                    let headers = [("Authorization", session.token.as_str())];
                    let answer = connection.call("GET", &target, &headers, b"").unwrap();
                    if sha1_hex(&answer.body) != booked.sha1 {
                        wrong.push(format!("{name} has other bytes"));
                    }
                }
            }
        }
    }
    wrong
}

/// Two buckets with a replication rule between them.
fn replicated_buckets(master: &Session) -> (String, String) {
    let (source, destination) =
        (master.create_bucket("crash-source"), master.create_bucket("crash-copy"));
    let read = ["readFiles", "readFileLegalHolds", "readFileRetentions"];
    let write = ["writeFiles", "writeFileLegalHolds", "writeFileRetentions"];
    let (reader, _) = master.create_key(&read, None, None);
    let (writer, _) = master.create_key(&write, None, None);
    master.ok(
        "b2_update_bucket",
        &json!({
        "accountId": master.account, "bucketId": destination,
        "replicationConfiguration": {"asReplicationDestination": {
            "sourceToDestinationKeyMapping": {reader.clone(): writer}}}}),
    );
    master.ok("b2_update_bucket", &json!({
        "accountId": master.account, "bucketId": source,
        "replicationConfiguration": {"asReplicationSource": {
            "sourceApplicationKeyId": reader,
            "replicationRules": [{
                "destinationBucketId": destination, "fileNamePrefix": "", "isEnabled": true,
                "includeExistingFiles": false, "priority": 1, "replicationRuleName": "crash-rule"}]}}}));
    (source, destination)
}

/// One cycle: load, kill, restart.
fn cycle(
    server: &mut Server,
    bucket: &str,
    label: &str,
    dice: &mut Dice,
    booking: Booking,
    ledger: &Ledger,
) {
    let session = server.master();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (session, bucket, ledger) =
                (session.clone(), bucket.to_owned(), Arc::clone(ledger));
            let (label, seed, stop) =
                (format!("{label}-{writer}"), dice.roll(u64::MAX), Arc::clone(&stop));
            std::thread::spawn(move || {
                // The connection breaks when the server is killed; that is the point.
                drop(write_until_killed(&session, &bucket, &label, seed, booking, &ledger, &stop));
            })
        })
        .collect();
    std::thread::park_timeout(Duration::from_millis(1 + dice.roll(80)));
    server.kill();
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    server.restart();
}

#[test]
fn replication_203_204_after_200_kills_nothing_acknowledged_is_lost_and_each_version_has_one_replica()
 {
    let seed = 0x006b_696c_6e00;
    let mut dice = Dice(seed);
    let mut server = Server::start();
    let (source, destination) = replicated_buckets(&server.master());
    let ledger: Ledger = Arc::default();
    for number in 0..CYCLES {
        cycle(
            &mut server,
            &source,
            &format!("c{number}"),
            &mut dice,
            Booking::WithTheAnswer,
            &ledger,
        );
        if number % COMPARE_EVERY == COMPARE_EVERY - 1 {
            let wrong = compare(&server.master(), &source, &ledger, number == CYCLES - 1);
            assert!(wrong.is_empty(), "seed {seed}, cycle {number}: {wrong:?}");
        }
    }
    assert!(ledger.lock().unwrap().len() > CYCLES, "there was load");
    for _ in 0..20 {
        assert_eq!(server.control("POST", "/admin/clock/advance?ms=400000").status, 200);
        let drained = server.control("POST", "/admin/replication/drain?timeout=60000").json();
        assert_eq!(drained["drained"], true);
    }
    let master = server.master();
    let originals = all_versions(&master, &source);
    let replicas = all_versions(&master, &destination);
    let key = |version: &Value| {
        json!([
            version["fileName"],
            version["uploadTimestamp"],
            version["contentSha1"],
            version["contentLength"]
        ])
        .to_string()
    };
    let mut by_key: BTreeMap<String, usize> = BTreeMap::new();
    for replica in &replicas {
        assert_eq!(replica["replicationStatus"], "replica");
        *by_key.entry(key(replica)).or_default() += 1;
    }
    let mut expected = 0;
    for version in originals.iter().filter(|version| version["action"] == "upload") {
        expected += 1;
        assert_eq!(version["replicationStatus"], "completed", "seed {seed}: {version}");
        assert_eq!(by_key.get(&key(version)), Some(&1), "seed {seed}: {version}");
    }
    assert!(expected > CYCLES);
    assert!(by_key.values().all(|count| *count == 1), "seed {seed}: none doubled");
}

#[test]
fn reliability_r91_the_harness_sees_an_acknowledgement_that_came_before_the_commit() {
    let mut dice = Dice(7);
    let mut server = Server::start();
    let bucket = server.master().create_bucket("crash-control");
    let ledger: Ledger = Arc::default();
    for number in 0..60 {
        cycle(
            &mut server,
            &bucket,
            &format!("c{number}"),
            &mut dice,
            Booking::WithTheRequest,
            &ledger,
        );
        if !compare(&server.master(), &bucket, &ledger, false).is_empty() {
            return;
        }
    }
    panic!("60 kills and no loss seen: the harness cannot see");
}
