//! kill -9 of the real binary under load: nothing acknowledged is lost, and every version has
//! exactly one replica.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::Connection;
use crate::support::server::{Server, Session, sha1_hex};

/// Of every run, and part of every message: the kills fall differently each time all the same.
const SEED: u64 = 0x006b_696c_6e00;
const CYCLES: usize = 200;
const WRITERS: u64 = 4;
/// Every so many cycles everything is compared.
const COMPARE_EVERY: usize = 20;
/// Kills within which the negative control must see a loss.
const CONTROL_CYCLES_MAX: usize = 60;
/// Each drain is followed by a step of the clock longer than any wait after a crash.
const DRAINS_MAX: usize = 40;

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
    hidden: bool,
    deleted: bool,
}

/// What the clients were told.
#[derive(Default)]
struct Ledger {
    /// By file name. A name is uploaded once.
    files: BTreeMap<String, Booked>,
    /// Requests that were sent whole and never answered.
    unanswered: usize,
}

impl Ledger {
    fn count(&self, of: impl Fn(&Booked) -> bool) -> usize {
        self.files.values().filter(|booked| of(booked)).count()
    }
}

/// From nothing to 100 KiB, and often at the border between bodies in the catalog and in files.
fn content(dice: &mut Dice) -> Vec<u8> {
    let size = match dice.roll(8) {
        0 => 0,
        1 => 16_384,
        2 => 16_385,
        3 => 102_400,
        4 => 16_000 + dice.roll(800),
        5 => dice.roll(102_401),
        _ => dice.roll(20_000),
    };
    let size = usize::try_from(size).unwrap();
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&dice.roll(u64::MAX).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// One client: its connection and where its acts are booked.
struct Writer<'a> {
    session: &'a Session,
    bucket: &'a str,
    label: &'a str,
    booking: Booking,
    ledger: &'a Mutex<Ledger>,
    connection: Connection,
}

impl Writer<'_> {
    /// Sends a request and reads its answer, which must be 200.
    fn act(&mut self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Value> {
        self.connection.send("POST", target, headers, body)?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Value> {
        let answer = self.connection.read(false).inspect_err(|_| {
            self.ledger.lock().unwrap().unanswered += 1;
        })?;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        Ok(answer.json())
    }

    fn operation(&mut self, operation: &str, body: &Value) -> io::Result<Value> {
        let token = self.session.token.clone();
        let target = format!("/b2api/v4/{operation}");
        self.act(&target, &[("Authorization", &token)], body.to_string().as_bytes())
    }

    /// Uploads, hides and deletes until the server is gone, which is the only way out.
    fn run(&mut self, seed: u64) -> io::Result<()> {
        let mut dice = Dice(seed);
        let bucket = self.bucket;
        let pair = self.operation("b2_get_upload_url", &json!({"bucketId": bucket}))?;
        let url = pair["uploadUrl"].as_str().unwrap();
        let target = format!("/{}", url.splitn(4, '/').nth(3).unwrap());
        let token = pair["authorizationToken"].as_str().unwrap();
        for number in 0_u64.. {
            let name = format!("{}-{number}", self.label);
            let bytes = content(&mut dice);
            let sha1 = sha1_hex(&bytes);
            let headers = [
                ("Authorization", token),
                ("X-Bz-File-Name", name.as_str()),
                ("Content-Type", "b2/x-auto"),
                ("X-Bz-Content-Sha1", sha1.as_str()),
            ];
            self.connection.send("POST", &target, &headers, &bytes)?;
            let mut booked = Booked { sha1, size: bytes.len(), hidden: false, deleted: false };
            if self.booking == Booking::WithTheRequest {
                self.book(&name, booked.clone());
            }
            let version = self.answer()?;
            self.book(&name, booked.clone());
            match dice.roll(10) {
                0 => {
                    let body = json!({"bucketId": bucket, "fileName": name});
                    self.operation("b2_hide_file", &body)?;
                    booked.hidden = true;
                    self.book(&name, booked);
                }
                1 => {
                    // Between the request and its answer nobody knows whether it is there.
                    self.ledger.lock().unwrap().files.remove(&name);
                    let body = json!({"fileId": version["fileId"], "fileName": name});
                    self.operation("b2_delete_file_version", &body)?;
                    booked.deleted = true;
                    self.book(&name, booked);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn book(&self, name: &str, booked: Booked) {
        self.ledger.lock().unwrap().files.insert(name.to_owned(), booked);
    }
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

/// The versions of one action by their names.
fn by_name<'a>(versions: &'a [Value], action: &str) -> BTreeMap<&'a str, Vec<&'a Value>> {
    let mut named: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for version in versions.iter().filter(|version| version["action"] == action) {
        named.entry(version["fileName"].as_str().unwrap()).or_default().push(version);
    }
    named
}

/// Reads the bodies of the versions that were not read before; answers those that are not what
/// their own metadata says. An upload that was never answered is whole, too, or it is not there.
fn broken_bodies(
    session: &Session,
    versions: &[Value],
    read_before: &mut BTreeSet<String>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut connection = Connection::open(&session.address).unwrap();
    for version in versions.iter().filter(|version| version["action"] == "upload") {
        let id = version["fileId"].as_str().unwrap();
        if !read_before.insert(id.to_owned()) {
            continue;
        }
        let target = format!("/b2api/v4/b2_download_file_by_id?fileId={id}");
        let headers = [("Authorization", session.token.as_str())];
        let answer = connection.call("GET", &target, &headers, b"").unwrap();
        let name = &version["fileName"];
        if answer.status != 200 {
            wrong.push(format!("{name} cannot be read: {}", answer.status));
        } else if version["contentSha1"] != sha1_hex(&answer.body).as_str()
            || version["contentLength"] != answer.body.len()
        {
            wrong.push(format!("{name} has other bytes"));
        }
    }
    wrong
}

/// What the checker says of an acknowledged upload that is not there.
const LOST: &str = "is lost";

/// Compares the versions of a bucket with the ledger; answers what is lost or wrong.
fn compare(versions: &[Value], ledger: &Ledger) -> Vec<String> {
    let (uploads, markers) = (by_name(versions, "upload"), by_name(versions, "hide"));
    let mut wrong = Vec::new();
    for (name, booked) in &ledger.files {
        match (uploads.get(name.as_str()), booked.deleted) {
            (None, true) => {}
            (Some(_), true) => wrong.push(format!("{name} was deleted and is there")),
            (None, false) => wrong.push(format!("{name} {LOST}")),
            (Some(found), false) => {
                let found = found[0];
                if found["contentSha1"] != booked.sha1.as_str()
                    || found["contentLength"] != booked.size
                {
                    wrong.push(format!("{name} has other metadata"));
                }
            }
        }
        if booked.hidden && !markers.contains_key(name.as_str()) {
            wrong.push(format!("{name} was hidden and is not"));
        }
    }
    for (name, found) in uploads.iter().chain(&markers) {
        if found.len() != 1 {
            wrong.push(format!("{name} is there {} times", found.len()));
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
    ledger: &Mutex<Ledger>,
) {
    let session = server.master();
    let killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (label, seed) = (format!("{label}-{writer}"), dice.roll(u64::MAX));
            let (session, killed) = (&session, &killed);
            scope.spawn(move || {
                let end = Connection::open(&session.address).and_then(|connection| {
                    let label = label.as_str();
                    Writer { session, bucket, label, booking, ledger, connection }.run(seed)
                });
                assert!(killed.load(Ordering::SeqCst), "{label} ended before the kill: {end:?}");
            });
        }
        std::thread::park_timeout(Duration::from_millis(1 + dice.roll(80)));
        killed.store(true, Ordering::SeqCst);
        server.kill();
    });
    server.restart();
}

/// Runs the engine dry and moves the clock on, past every wait, until nothing is pending.
fn replicate_everything(server: &Server, bucket: &str) -> Vec<Value> {
    for _ in 0..DRAINS_MAX {
        let drained = server.control("POST", "/admin/replication/drain?timeout=60000").json();
        assert_eq!(drained["drained"], true, "seed {SEED}");
        let versions = all_versions(&server.master(), bucket);
        if versions.iter().all(|version| version["replicationStatus"] != "pending") {
            return versions;
        }
        assert_eq!(server.control("POST", "/admin/clock/advance?ms=400000").status, 200);
    }
    panic!("seed {SEED}: versions are pending after {DRAINS_MAX} drains");
}

#[test]
fn replication_203_204_after_200_kills_nothing_acknowledged_is_lost_and_each_version_has_one_replica()
 {
    let mut dice = Dice(SEED);
    let mut server = Server::start();
    let (source, destination) = replicated_buckets(&server.master());
    let ledger = Mutex::new(Ledger::default());
    let mut read_before = BTreeSet::new();
    let mut pending_after_kills = 0;
    for number in 1..=CYCLES {
        let label = format!("c{number}");
        cycle(&mut server, &source, &label, &mut dice, Booking::WithTheAnswer, &ledger);
        if number % COMPARE_EVERY == 0 {
            let master = server.master();
            let versions = all_versions(&master, &source);
            let mut wrong = compare(&versions, &ledger.lock().unwrap());
            wrong.extend(broken_bodies(&master, &versions, &mut read_before));
            assert!(wrong.is_empty(), "seed {SEED}, cycle {number}: {wrong:#?}");
            pending_after_kills +=
                versions.iter().filter(|one| one["replicationStatus"] == "pending").count();
        }
    }

    let originals = replicate_everything(&server, &source);
    let master = server.master();
    let replicas = all_versions(&master, &destination);
    let ledger = ledger.into_inner().unwrap();
    let mut wrong = compare(&originals, &ledger);
    // Everything once more: what was whole in an early cycle has outlived all later kills.
    wrong.extend(broken_bodies(&master, &originals, &mut BTreeSet::new()));
    wrong.extend(broken_bodies(&master, &replicas, &mut BTreeSet::new()));
    let copies = by_name(&replicas, "upload");
    for (name, original) in by_name(&originals, "upload") {
        let original = original[0];
        if original["replicationStatus"] != "completed" {
            wrong.push(format!("{name} is {}", original["replicationStatus"]));
        }
        let found = copies.get(name).map_or(&[][..], Vec::as_slice);
        if found.len() != 1 {
            wrong.push(format!("{name} has {} replicas", found.len()));
        }
        for replica in found {
            for field in ["uploadTimestamp", "contentSha1", "contentLength", "contentType"] {
                if replica[field] != original[field] {
                    wrong.push(format!("{name} has another {field} in its replica"));
                }
            }
        }
    }
    // Deleting an original leaves its replica, so there may be more of these: one each.
    for (name, found) in &copies {
        if found.len() != 1 || found[0]["replicationStatus"] != "replica" {
            wrong.push(format!("at the destination, {name} is {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "seed {SEED}: {wrong:#?}");

    // The kills hit what they were meant to hit.
    assert!(ledger.count(|one| !one.deleted) > CYCLES, "there were uploads");
    assert!(ledger.count(|one| one.deleted) > 0, "there were deletions");
    assert!(ledger.count(|one| one.hidden) > 0, "there were hidden names");
    assert!(ledger.unanswered > CYCLES, "the kills cut requests off");
    assert!(pending_after_kills > 0, "the kills came before the replicas");
}

#[test]
fn reliability_r91_the_harness_sees_an_acknowledgement_that_came_before_the_commit() {
    let mut dice = Dice(SEED);
    let mut server = Server::start();
    let bucket = server.master().create_bucket("crash-control");
    let ledger = Mutex::new(Ledger::default());
    for number in 1..=CONTROL_CYCLES_MAX {
        let label = format!("c{number}");
        cycle(&mut server, &bucket, &label, &mut dice, Booking::WithTheRequest, &ledger);
        let versions = all_versions(&server.master(), &bucket);
        let wrong = compare(&versions, &ledger.lock().unwrap());
        assert!(wrong.iter().all(|one| one.ends_with(LOST)), "seed {SEED}: {wrong:#?}");
        if !wrong.is_empty() {
            return;
        }
    }
    panic!("{CONTROL_CYCLES_MAX} kills and no loss seen: the harness cannot see");
}
