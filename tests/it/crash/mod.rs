//! kill -9 of the real binary under load: nothing acknowledged is lost, every version has exactly one
//! replica, nothing that is locked goes, and what lifecycle rules have done stays done.

mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use self::kept::{Days, Keep, Keeper};
use crate::support::http::Connection;
use crate::support::server::{Server, Session, replicated_buckets, sha1_hex};

/// Of every run, and part of every message: the kills fall differently each time all the same.
const SEED: u64 = 0x006b_696c_6e00;
const CYCLES: usize = 200;
/// Of them with days that pass, and without replication: a job that five kills in a row have lost is
/// taken for poison, and days leave out the waits that keep it from being claimed so soon.
const DAILY_CYCLES: usize = 80;
const WRITERS: u64 = 4;
/// Every so many cycles everything is compared.
const COMPARE_EVERY: usize = 20;
/// Kills within which the negative control must see a loss.
const CONTROL_CYCLES_MAX: usize = 60;
/// Bodies from this size on are written past the page cache.
const LARGE_BYTES: u64 = 4 * 1024 * 1024;
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

/// When an act counts as acknowledged.
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

/// From nothing to 100 KiB, often at the border between bodies in the catalog and in files, and now
/// and then a few MiB, which go past the page cache.
fn content(dice: &mut Dice) -> Vec<u8> {
    let size = match dice.roll(80) {
        0 => LARGE_BYTES + dice.roll(2 * 1024 * 1024),
        1..10 => 0,
        10..20 => 16_384,
        20..30 => 16_385,
        30..40 => 102_400,
        40..50 => 16_000 + dice.roll(800),
        50..60 => dice.roll(102_401),
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

    /// Copies a version; whole copies share its bytes.
    fn copy(&mut self, source: &Value, name: &str, booked: &Booked) -> io::Result<()> {
        self.operation(
            "b2_copy_file",
            &json!({"sourceFileId": source["fileId"], "fileName": name}),
        )?;
        self.book(name, Booked { hidden: false, deleted: false, ..booked.clone() });
        Ok(())
    }

    /// A large file of three parts, of which the second is a copy of a version.
    fn large_file(
        &mut self,
        source: &Value,
        name: &str,
        bytes: &[u8],
        dice: &mut Dice,
    ) -> io::Result<()> {
        let (first, last) = (content(dice), content(dice));
        let (first, last) =
            ([&first, b"first".as_slice()].concat(), [&last, b"last".as_slice()].concat());
        let whole = [first.as_slice(), bytes, &last].concat();
        let booked =
            Booked { sha1: sha1_hex(&whole), size: whole.len(), hidden: false, deleted: false };
        let started = self.operation(
            "b2_start_large_file",
            &json!({
                "bucketId": self.bucket, "fileName": name, "contentType": "text/plain",
                "fileInfo": {"large_file_sha1": booked.sha1},
            }),
        )?;
        let id = &started["fileId"];
        let pair = self.operation("b2_get_upload_part_url", &json!({"fileId": id}))?;
        let url = pair["uploadUrl"].as_str().unwrap();
        let target = format!("/{}", url.splitn(4, '/').nth(3).unwrap());
        let token = pair["authorizationToken"].as_str().unwrap();
        for (number, part) in [("1", &first), ("3", &last)] {
            let sha1 = sha1_hex(part);
            let headers = [
                ("Authorization", token),
                ("X-Bz-Part-Number", number),
                ("X-Bz-Content-Sha1", sha1.as_str()),
            ];
            self.act(&target, &headers, part)?;
        }
        let copy = json!({
            "sourceFileId": source["fileId"], "largeFileId": id, "partNumber": 2,
        });
        self.operation("b2_copy_part", &copy)?;
        let sha1s = [sha1_hex(&first), sha1_hex(bytes), sha1_hex(&last)];
        let finish = json!({"fileId": id, "partSha1Array": sha1s});
        self.operation("b2_finish_large_file", &finish)?;
        self.book(name, booked);
        Ok(())
    }

    /// Uploads, copies, hides and deletes until the server is gone, which is the only way out.
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
            match dice.roll(12) {
                10 => self.copy(&version, &format!("{name}{COPIED}"), &booked)?,
                11 if !bytes.is_empty() => {
                    self.large_file(&version, &format!("{name}{IN_PARTS}"), &bytes, &mut dice)?;
                }
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

/// Ends of the names of copies and of files in parts.
const COPIED: &str = "-copied";
const IN_PARTS: &str = "-in-parts";

/// The SHA-1 of a version's content; that of a file in parts is in its file info.
fn sha1_of(version: &Value) -> &Value {
    match version["contentSha1"].as_str() {
        Some("none") => &version["fileInfo"]["large_file_sha1"],
        _ => &version["contentSha1"],
    }
}

/// The versions whose names begin with `prefix`.
fn versions(session: &Session, bucket: &str, prefix: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut start = json!(null);
    let mut start_id = json!(null);
    loop {
        let body = json!({"bucketId": bucket, "maxFileCount": 10_000, "startFileName": start,
                          "startFileId": start_id, "prefix": prefix});
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
        } else if *sha1_of(version) != sha1_hex(&answer.body).as_str()
            || version["contentLength"] != answer.body.len()
        {
            wrong.push(format!("{name} has other bytes"));
        }
    }
    wrong
}

/// What the checker says of an acknowledged upload that is not there.
const LOST: &str = "is lost";

/// Compares the versions of a bucket whose names begin with `prefix` with the ledger; answers what
/// is lost or wrong.
fn compare(versions: &[Value], ledger: &Ledger, prefix: &str) -> Vec<String> {
    let (uploads, markers) = (by_name(versions, "upload"), by_name(versions, "hide"));
    let mut wrong = Vec::new();
    for (name, booked) in ledger.files.iter().filter(|(name, _)| name.starts_with(prefix)) {
        match (uploads.get(name.as_str()), booked.deleted) {
            (None, true) => {}
            (Some(_), true) => wrong.push(format!("{name} was deleted and is there")),
            (None, false) => wrong.push(format!("{name} {LOST}")),
            (Some(found), false) => {
                let found = found[0];
                if *sha1_of(found) != booked.sha1.as_str() || found["contentLength"] != booked.size
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

/// When both sides of a replication are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Jobs may still wait.
    UnderWay,
    /// The engine has run dry.
    AtRest,
}

/// What a replica shares with its original.
const SHARED: [&str; 5] =
    ["uploadTimestamp", "contentSha1", "contentLength", "contentType", "fileInfo"];

/// Compares the versions of a destination with those of its source, listed before; answers what is
/// missing, doubled or different. An original may be gone: deleting it leaves its replica.
fn compare_replicas(originals: &[Value], replicas: &[Value], moment: Moment) -> Vec<String> {
    let mut wrong = Vec::new();
    let (uploads, copies) = (by_name(originals, "upload"), by_name(replicas, "upload"));
    for (name, found) in &copies {
        if found.len() > 1 {
            wrong.push(format!("{name} has {} replicas", found.len()));
        }
        for replica in found {
            if replica["replicationStatus"] != "replica" {
                wrong.push(format!("{name} at the destination is no replica"));
            }
            for original in uploads.get(name).into_iter().flatten() {
                for field in SHARED.iter().filter(|field| replica[**field] != original[**field]) {
                    wrong.push(format!("{name} has another {field} in its replica"));
                }
            }
        }
    }
    for (name, found) in &uploads {
        let status = found[0]["replicationStatus"].as_str().unwrap_or("nothing");
        let expected = match moment {
            Moment::UnderWay => matches!(status, "pending" | "completed"),
            Moment::AtRest => status == "completed",
        };
        if !expected {
            wrong.push(format!("{name} is {status}"));
        }
        if status == "completed" && !copies.contains_key(name) {
            wrong.push(format!("{name} has 0 replicas"));
        }
    }
    for name in by_name(replicas, "hide").keys() {
        wrong.push(format!("{name} is hidden at the destination"));
    }
    wrong
}

/// What is done between two kills, and where it is booked.
#[derive(Clone, Copy)]
struct Load<'a> {
    /// None leaves all writing to those who lock.
    bucket: Option<&'a str>,
    booking: Booking,
    ledger: &'a Mutex<Ledger>,
    /// Buckets with locks and rules.
    keep: Option<&'a Keep>,
}

/// What the names of a cycle begin with.
fn label_of(cycle: usize) -> String {
    format!("c{cycle}-")
}

/// One cycle: load, kill, restart.
fn cycle(server: &mut Server, load: Load<'_>, number: usize, dice: &mut Dice) {
    let Load { bucket, booking, ledger, keep } = load;
    if let Some(walk) = keep.and_then(|keep| keep.begin_cycle(server, number, dice)) {
        std::thread::park_timeout(walk);
        server.kill();
        server.restart();
        return;
    }
    let session = server.master();
    let killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (session, killed) = (&session, &killed);
        let ended = |label: &str, end: io::Result<()>| {
            assert!(killed.load(Ordering::SeqCst), "{label} ended before the kill: {end:?}");
        };
        for (bucket, writer) in
            bucket.into_iter().flat_map(|bucket| (0..WRITERS).map(move |n| (bucket, n)))
        {
            let (label, seed) = (format!("{}{writer}", label_of(number)), dice.roll(u64::MAX));
            scope.spawn(move || {
                let end = Connection::open(&session.address).and_then(|connection| {
                    let label = label.as_str();
                    Writer { session, bucket, label, booking, ledger, connection }.run(seed)
                });
                ended(&label, end);
            });
        }
        for (keep, keeper) in
            keep.into_iter().flat_map(|keep| (0..keep.keepers()).map(move |n| (keep, n)))
        {
            let (label, seed) = (format!("{}{keeper}", label_of(number)), dice.roll(u64::MAX));
            scope.spawn(move || {
                let end = Connection::open(&session.address).and_then(|connection| {
                    let (label, cycle) = (label.as_str(), number);
                    Keeper { session, keep, cycle, label, connection }.run(seed)
                });
                ended(&label, end);
            });
        }
        // Now and then long enough for large bodies to be whole.
        let longest = if dice.roll(10) == 0 { 1_000 } else { 80 };
        std::thread::park_timeout(Duration::from_millis(1 + dice.roll(longest)));
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
        let versions = versions(&server.master(), bucket, "");
        if versions.iter().all(|version| version["replicationStatus"] != "pending") {
            return versions;
        }
        assert_eq!(server.control("POST", "/admin/clock/advance?ms=400000").status, 200);
    }
    panic!("seed {SEED}: versions are pending after {DRAINS_MAX} drains");
}

#[test]
fn replication_203_204_after_200_kills_nothing_acknowledged_is_lost_and_each_version_has_one_replica_and_its_lock()
 {
    let mut dice = Dice(SEED);
    let mut server = Server::start_with(&["--test-controls", "--limits-part-size-min", "1"]);
    let (source, destination) = replicated_buckets(&server.master());
    let ledger = Mutex::new(Ledger::default());
    let keep = Keep::begin(&server.master(), Booking::WithTheAnswer, Days::Stand);
    let mut read_before = BTreeSet::new();
    let mut pending_after_kills = 0;
    let load = Load {
        bucket: Some(&source),
        booking: Booking::WithTheAnswer,
        ledger: &ledger,
        keep: Some(&keep),
    };
    for number in 1..=CYCLES {
        let label = label_of(number);
        cycle(&mut server, load, number, &mut dice);
        // What this cycle wrote, and now and then everything that was ever written.
        let all = number % COMPARE_EVERY == 0;
        let prefix = if all { "" } else { label.as_str() };
        let master = server.master();
        let originals = versions(&master, &source, prefix);
        let replicas = versions(&master, &destination, prefix);
        let mut wrong = compare(&originals, &ledger.lock().unwrap(), prefix);
        wrong.extend(compare_replicas(&originals, &replicas, Moment::UnderWay));
        wrong.extend(broken_bodies(&master, &originals, &mut read_before));
        wrong.extend(keep.check(&master, number, all));
        let kept = keep.versions(&master, &label);
        wrong.extend(broken_bodies(&master, &kept, &mut read_before));
        assert!(wrong.is_empty(), "seed {SEED}, cycle {number}: {wrong:#?}");
        pending_after_kills +=
            originals.iter().filter(|one| one["replicationStatus"] == "pending").count();
    }

    let originals = replicate_everything(&server, &source);
    let master = server.master();
    let replicas = versions(&master, &destination, "");
    let mut wrong = compare(&originals, &ledger.lock().unwrap(), "");
    wrong.extend(compare_replicas(&originals, &replicas, Moment::AtRest));
    // Everything once more: what was whole in an early cycle has outlived all later kills.
    wrong.extend(broken_bodies(&master, &originals, &mut BTreeSet::new()));
    wrong.extend(broken_bodies(&master, &replicas, &mut BTreeSet::new()));
    assert!(wrong.is_empty(), "seed {SEED}: {wrong:#?}");
    keep.end(&mut server, CYCLES);
    let master = server.master();
    let kept = keep.versions(&master, "");
    let wrong = broken_bodies(&master, &kept, &mut BTreeSet::new());
    assert!(wrong.is_empty(), "seed {SEED}: {wrong:#?}");

    // The kills hit what they were meant to hit.
    keep.assert_hit(CYCLES);
    let ledger = ledger.into_inner().unwrap();
    assert!(ledger.count(|one| !one.deleted) > CYCLES, "there were uploads");
    assert!(ledger.count(|one| one.deleted) > 0, "there were deletions");
    assert!(ledger.count(|one| one.hidden) > 0, "there were hidden names");
    for (end, what) in [(COPIED, "copies"), (IN_PARTS, "files in parts")] {
        let ends = |name: &&String| name.ends_with(end);
        assert!(ledger.files.keys().filter(ends).count() > 10, "there were {what}");
    }
    let is_large = |one: &Booked| one.size as u64 >= LARGE_BYTES;
    assert!(ledger.count(is_large) > 0, "there were bodies past the page cache");
    assert!(ledger.unanswered > CYCLES, "the kills cut requests off");
    assert!(pending_after_kills > 0, "the kills came before the replicas");
}

#[test]
fn native_349_359_360_361_362_after_kills_amid_lifecycle_walks_what_is_locked_is_there_and_what_was_done_stays()
 {
    let mut dice = Dice(SEED);
    let mut server = Server::start_with(&["--test-controls"]);
    let ledger = Mutex::new(Ledger::default());
    let booking = Booking::WithTheAnswer;
    let keep = Keep::begin(&server.master(), booking, Days::Pass);
    let load = Load { bucket: None, booking, ledger: &ledger, keep: Some(&keep) };
    let mut read_before = BTreeSet::new();
    for number in 1..=DAILY_CYCLES {
        cycle(&mut server, load, number, &mut dice);
        let master = server.master();
        let mut wrong = keep.check(&master, number, number % COMPARE_EVERY == 0);
        let kept = keep.versions(&master, &label_of(number));
        wrong.extend(broken_bodies(&master, &kept, &mut read_before));
        assert!(wrong.is_empty(), "seed {SEED}, cycle {number}: {wrong:#?}");
    }
    keep.end(&mut server, DAILY_CYCLES);
    let master = server.master();
    let kept = keep.versions(&master, "");
    let wrong = broken_bodies(&master, &kept, &mut BTreeSet::new());
    assert!(wrong.is_empty(), "seed {SEED}: {wrong:#?}");
    keep.assert_hit(DAILY_CYCLES);
}

#[test]
fn reliability_r91_the_harness_sees_an_acknowledgement_that_came_before_the_commit() {
    let mut dice = Dice(SEED);
    let mut server = Server::start_with(&["--test-controls", "--limits-part-size-min", "1"]);
    let bucket = server.master().create_bucket("crash-control");
    let ledger = Mutex::new(Ledger::default());
    let booking = Booking::WithTheRequest;
    let load = Load { bucket: Some(&bucket), booking, ledger: &ledger, keep: None };
    for number in 1..=CONTROL_CYCLES_MAX {
        cycle(&mut server, load, number, &mut dice);
        let found = versions(&server.master(), &bucket, "");
        let wrong = compare(&found, &ledger.lock().unwrap(), "");
        assert!(wrong.iter().all(|one| one.ends_with(LOST)), "seed {SEED}: {wrong:#?}");
        if !wrong.is_empty() {
            return;
        }
    }
    panic!("{CONTROL_CYCLES_MAX} kills and no loss seen: the harness cannot see");
}

#[test]
fn reliability_r91_the_harness_sees_a_lock_that_was_acknowledged_before_the_commit() {
    let mut dice = Dice(SEED);
    let mut server = Server::start_with(&["--test-controls", "--limits-part-size-min", "1"]);
    let ledger = Mutex::new(Ledger::default());
    let keep = Keep::begin(&server.master(), Booking::WithTheRequest, Days::Stand);
    let booking = Booking::WithTheAnswer;
    let load = Load { bucket: None, booking, ledger: &ledger, keep: Some(&keep) };
    for number in 1..=CONTROL_CYCLES_MAX {
        cycle(&mut server, load, number, &mut dice);
        let wrong = keep.check(&server.master(), number, false);
        // A deletion goes through, or a lock is another one: of changes that were never done.
        let is_early = |one: &String| one.contains("has the lock") || one.contains("its deletion");
        assert!(wrong.iter().all(is_early), "seed {SEED}: {wrong:#?}");
        if wrong.iter().any(|one| one.contains("has the lock")) {
            return;
        }
    }
    panic!("{CONTROL_CYCLES_MAX} kills and no loss seen: the harness cannot see");
}

/// A list of versions as a server would give it: names with their statuses.
fn listed(files: &[(&str, &str)]) -> Vec<Value> {
    files
        .iter()
        .map(|(name, status)| {
            json!({
                "action": "upload", "fileName": name, "replicationStatus": status,
                "uploadTimestamp": 1, "contentSha1": "a", "contentLength": 1, "contentType": "b"})
        })
        .collect()
}

#[test]
fn reliability_r91_the_harness_sees_missing_doubled_and_different_replicas() {
    let originals = listed(&[("a", "completed"), ("b", "completed")]);
    let replicas = listed(&[("a", "replica"), ("b", "replica"), ("deleted", "replica")]);
    let check = |originals: &[Value], replicas: &[Value]| {
        compare_replicas(originals, replicas, Moment::AtRest)
    };
    assert_eq!(check(&originals, &replicas), [""; 0]);

    assert_eq!(check(&originals, &replicas[1..]), ["a has 0 replicas"]);
    let doubled = listed(&[("a", "replica"), ("a", "replica"), ("b", "replica")]);
    assert_eq!(check(&originals, &doubled), ["a has 2 replicas"]);
    let doubled =
        listed(&[("a", "replica"), ("b", "replica"), ("gone", "replica"), ("gone", "replica")]);
    assert_eq!(check(&originals, &doubled), ["gone has 2 replicas"], "its original is deleted");
    let uploaded = listed(&[("a", "replica"), ("b", "pending")]);
    assert_eq!(check(&originals, &uploaded), ["b at the destination is no replica"]);
    for field in SHARED {
        let mut other = replicas.clone();
        other[1][field] = json!("other");
        assert_eq!(check(&originals, &other), [format!("b has another {field} in its replica")]);
    }
    let mut hidden = replicas.clone();
    hidden[2]["action"] = json!("hide");
    assert_eq!(check(&originals, &hidden), ["deleted is hidden at the destination"]);

    let waiting = listed(&[("a", "pending"), ("b", "completed")]);
    assert_eq!(check(&waiting, &replicas), ["a is pending"]);
    let under_way = compare_replicas(&waiting, &replicas[1..], Moment::UnderWay);
    assert_eq!(under_way, [""; 0], "a replica may be on its way");
    let failed = listed(&[("a", "failed"), ("b", "completed")]);
    let under_way = compare_replicas(&failed, &replicas[1..], Moment::UnderWay);
    assert_eq!(under_way, ["a is failed"]);
    let under_way = compare_replicas(&originals, &replicas[1..], Moment::UnderWay);
    assert_eq!(under_way, ["a has 0 replicas"], "it is said to be completed");
}

#[test]
fn reliability_r91_the_harness_sees_versions_that_are_lost_doubled_or_changed() {
    let booked = |hidden, deleted| Booked { sha1: "a".to_owned(), size: 1, hidden, deleted };
    let mut ledger = Ledger::default();
    ledger.files.insert("there".to_owned(), booked(false, false));
    ledger.files.insert("hidden".to_owned(), booked(true, false));
    ledger.files.insert("deleted".to_owned(), booked(false, true));
    let mut marker = listed(&[("hidden", "")]);
    marker[0]["action"] = json!("hide");
    let good = [listed(&[("there", ""), ("hidden", ""), ("unanswered", "")]), marker].concat();
    assert_eq!(compare(&good, &ledger, ""), [""; 0]);
    assert_eq!(compare(&good[1..], &ledger, ""), [format!("there {LOST}")]);
    assert_eq!(compare(&good[1..], &ledger, "hid"), [""; 0], "another prefix was asked for");
    assert_eq!(compare(&good[..3], &ledger, ""), ["hidden was hidden and is not"]);
    for (at, said) in [(0, "there is there 2 times"), (3, "hidden is there 2 times")] {
        let doubled = [&good[..], &good[at..=at]].concat();
        assert_eq!(compare(&doubled, &ledger, ""), [said]);
    }
    let undead = [good.clone(), listed(&[("deleted", "")])].concat();
    assert_eq!(compare(&undead, &ledger, ""), ["deleted was deleted and is there"]);
    for field in ["contentSha1", "contentLength"] {
        let mut changed = good.clone();
        changed[0][field] = json!("other");
        assert_eq!(compare(&changed, &ledger, ""), ["there has other metadata"]);
    }
}

#[test]
fn reliability_r91_the_harness_sees_what_is_planted_at_the_destination() {
    let server = Server::start();
    let master = server.master();
    let (source, destination) = replicated_buckets(&master);
    for name in ["doubled", "missing", "well"] {
        master.upload(&source, name, b"content");
    }
    let originals = replicate_everything(&server, &source);
    let compare_now =
        || compare_replicas(&originals, &versions(&master, &destination, ""), Moment::AtRest);
    assert_eq!(compare_now(), [""; 0]);
    let missing = versions(&master, &destination, "missing").remove(0);
    let named = json!({"fileId": missing["fileId"], "fileName": "missing"});
    master.ok("b2_delete_file_version", &named);
    assert_eq!(compare_now(), ["missing has 0 replicas"]);
    master.upload(&destination, "doubled", b"content");
    let wrong = compare_now();
    assert!(wrong.contains(&"doubled has 2 replicas".to_owned()), "{wrong:?}");
}
