//! Object Lock and lifecycle rules in the runs that kill: what is locked stays, whoever asks and
//! whatever the rules say, and what the rules have done stays done.
//!
//! Where days pass, every cycle is a day later than the one before, so that a walk over the buckets
//! begins with it and is cut off by the kill. Locks end in the year 2100 or ten years after the
//! upload, none in a run.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Booking, Dice, LOST, SEED, label_of, sha1_of, versions};
use crate::support::http::{Answer, Connection};
use crate::support::server::{Server, Session, sha1_hex};

/// A day and a moment, so that what is a day old is surely due.
const DAY_MS: usize = 24 * 60 * 60 * 1000 + 1000;
/// 1 January 2100 and 2101.
const IN_2100: i64 = 4_102_444_800_000;
const IN_2101: i64 = 4_133_980_800_000;
/// Sizes of bodies, in the catalog and in files.
const SIZES: [usize; 4] = [0, 300, 16_385, 30_000];
/// Locked versions that are asked to go when all is over.
const ASKED_AT_THE_END: usize = 500;
/// Walks that certainly end what the rules make of everything.
const LAST_DAYS: usize = 3;

/// The lock of a version, as answers show it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lock {
    retention: Value,
    hold: Value,
}

impl Lock {
    fn none() -> Self {
        Self { retention: json!({"mode": null, "retainUntilTimestamp": null}), hold: json!(null) }
    }

    fn of(version: &Value) -> Self {
        Self {
            retention: version["fileRetention"]["value"].clone(),
            hold: version["legalHold"]["value"].clone(),
        }
    }

    fn mode(&self) -> Option<&str> {
        self.retention["mode"].as_str()
    }

    fn is_held(&self) -> bool {
        self.hold == "on"
    }

    fn is_locked(&self) -> bool {
        self.mode().is_some() || self.is_held()
    }
}

fn retention(mode: &str, until: i64) -> Value {
    json!({"mode": mode, "retainUntilTimestamp": until})
}

/// Whether something was done that a client asked for, or a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    No,
    /// It was asked for and not answered.
    Maybe,
    /// It was acknowledged, or seen.
    Yes,
}

/// What the clients were told of one version, and what was seen of it since.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The day of its upload.
    day: usize,
    id: Value,
    sha1: String,
    size: usize,
    /// An unfinished large file.
    is_begun: bool,
    /// What its lock may be: more than one while a change was sent and not answered.
    locks: Vec<Lock>,
    hidden: Known,
    gone: Known,
}

impl Kept {
    fn is_surely_locked(&self) -> bool {
        self.locks.iter().all(Lock::is_locked)
    }

    /// Whether a walk of that day may hide it, or give it up.
    fn is_due(&self, day: usize) -> bool {
        self.day < day
    }

    /// Whether a walk of that day may delete it.
    fn may_be_deleted(&self, day: usize) -> bool {
        let wait = if self.is_begun || self.hidden != Known::No { 1 } else { 2 };
        self.day + wait <= day && !self.is_surely_locked()
    }
}

/// What was told and seen of all of them, by the names of the files. A name is uploaded once.
#[derive(Default)]
pub(super) struct Ledger {
    files: BTreeMap<String, Kept>,
    /// Deletions of locked versions that were refused.
    refused: usize,
}

/// How often kills hit what they were meant to hit.
#[derive(Default)]
pub(super) struct Hits {
    /// Changes of locks that were sent and not answered, done or not.
    cut_changes: usize,
    done: BTreeMap<&'static str, usize>,
    /// Walks of which a part was done and a part was not.
    cut_walks: usize,
}

impl Hits {
    fn done(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }
}

/// The buckets with locks and rules, and what is known of them.
pub(super) struct Keep {
    /// The last one locks everything, the others what is asked for.
    buckets: Vec<String>,
    ledger: Mutex<Ledger>,
    hits: Mutex<Hits>,
    booking: Booking,
    days: Days,
}

/// Whether time passes from cycle to cycle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Days {
    /// All cycles are on one day.
    Stand,
    /// Each cycle is a day later than the one before.
    Pass,
}

impl Keep {
    pub(super) fn begin(master: &Session, booking: Booking, days: Days) -> Self {
        let make = |name: &str| {
            let made = master.ok(
                "b2_create_bucket",
                &json!({
                    "accountId": master.account, "bucketName": name, "bucketType": "allPrivate",
                    "fileLockEnabled": true,
                    "lifecycleRules": [{
                        "fileNamePrefix": "", "daysFromUploadingToHiding": 1,
                        "daysFromHidingToDeleting": 1,
                        "daysFromStartingToCancelingUnfinishedLargeFiles": 1,
                    }],
                }),
            );
            made["bucketId"].as_str().unwrap().to_owned()
        };
        // A walk goes from bucket to bucket, so several of them make one that takes long.
        let count = if days == Days::Pass { 6 } else { 2 };
        let buckets: Vec<String> =
            (1..=count).map(|number| make(&format!("crash-kept-{number}"))).collect();
        let period = json!({"duration": 10, "unit": "years"});
        master.ok(
            "b2_update_bucket",
            &json!({
                "accountId": master.account, "bucketId": buckets.last().unwrap(),
                "defaultRetention": {"mode": "governance", "period": period},
            }),
        );
        Self { buckets, ledger: Mutex::default(), hits: Mutex::default(), booking, days }
    }

    fn day_of(&self, cycle: usize) -> usize {
        if self.days == Days::Pass { cycle } else { 0 }
    }

    /// Clients that lock.
    pub(super) fn keepers(&self) -> u64 {
        if self.days == Days::Pass { 3 } else { 2 }
    }

    /// Sets the worker of the rules to work where days pass. Answers for how long there shall be
    /// nothing but its walk before the kill, now and then.
    pub(super) fn begin_cycle(
        &self,
        server: &Server,
        cycle: usize,
        dice: &mut Dice,
    ) -> Option<Duration> {
        if self.days == Days::Stand {
            return None;
        }
        pass(server, cycle);
        (dice.roll(3) == 0).then(|| Duration::from_micros(dice.roll(25_000)))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// Compares what is there after the kill of a cycle with what was told and seen before: of that
    /// cycle and, where days pass, the two before it, or of all. Locked versions are asked to go, in
    /// vain.
    pub(super) fn check(&self, master: &Session, cycle: usize, all: bool) -> Vec<String> {
        let day = self.day_of(cycle);
        let before = if self.days == Days::Pass { 2 } else { 0 };
        let prefixes: Vec<String> = if all {
            vec![String::new()]
        } else {
            (cycle.saturating_sub(before).max(1)..=cycle).map(label_of).collect()
        };
        self.look(master, &prefixes, day, &label_of(cycle), 3)
    }

    /// Compares what has names with these prefixes, on that day, and asks some of what is locked to
    /// go.
    fn look(
        &self,
        master: &Session,
        prefixes: &[String],
        day: usize,
        to_go: &str,
        count: usize,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        for prefix in prefixes {
            let lists = self.buckets.iter().map(|bucket| versions(master, bucket, prefix));
            let found: Vec<Value> = lists.flatten().collect();
            let mut ledger = self.ledger();
            wrong.extend(compare(&found, &mut ledger, &mut self.hits.lock().unwrap(), prefix, day));
        }
        wrong.extend(self.try_to_delete(master, to_go, count));
        wrong
    }

    /// The versions that are there.
    pub(super) fn versions(&self, master: &Session, prefix: &str) -> Vec<Value> {
        self.buckets.iter().flat_map(|bucket| versions(master, bucket, prefix)).collect()
    }

    /// Asks some locked versions to go; answers those that did not refuse.
    fn try_to_delete(&self, master: &Session, prefix: &str, count: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut ledger = self.ledger();
        let locked = ledger.files.iter().filter(|(name, kept)| {
            name.starts_with(prefix) && kept.is_surely_locked() && kept.gone != Known::Yes
        });
        let locked: Vec<(String, Value, bool)> = locked
            .take(count)
            // Governance yields to those who may pass it, and nothing else does.
            .map(|(name, kept)| {
                let bypass = kept
                    .locks
                    .iter()
                    .all(|lock| lock.is_held() || lock.mode() == Some("compliance"));
                (name.clone(), kept.id.clone(), bypass)
            })
            .collect();
        for (name, id, bypass) in locked {
            let body = json!({"fileName": name, "fileId": id, "bypassGovernance": bypass});
            let answer = master.call("b2_delete_file_version", &body);
            if (answer.status, answer.code().as_str()) == (401, "access_denied") {
                ledger.refused += 1;
            } else {
                wrong.push(format!("{name} is locked and its deletion is answered {answer:?}"));
            }
        }
        wrong
    }

    /// Lets the days pass that the rules need for everything; what is locked is what is left, and
    /// that outlives another kill.
    pub(super) fn end(&self, server: &mut Server, cycles: usize) {
        let today = self.day_of(cycles);
        for passed in 1..=LAST_DAYS {
            pass(server, if passed == 1 { today + 1 } else { 1 });
            assert_eq!(server.control("POST", "/admin/lifecycle/walk").status, 200);
        }
        let look = |server: &Server, count| {
            let master = server.master();
            let wrong = self.look(&master, &[String::new()], today + LAST_DAYS, "", count);
            assert!(wrong.is_empty(), "seed {SEED}: {wrong:#?}");
            master
        };
        look(server, 0);
        server.kill();
        server.restart();
        let master = look(server, ASKED_AT_THE_END);
        let left = self.versions(&master, "");
        for version in left.iter().filter(|version| version["action"] != "hide") {
            assert!(Lock::of(version).is_locked(), "seed {SEED}: {version} should be gone");
        }
        let markers = left.iter().filter(|version| version["action"] == "hide").count();
        assert_eq!(markers * 2, left.len(), "seed {SEED}: every locked version is hidden");
    }

    /// The kills hit what they were meant to hit.
    pub(super) fn assert_hit(&self, cycles: usize) {
        let (ledger, hits) = (self.ledger(), self.hits.lock().unwrap());
        let count =
            |of: &dyn Fn(&Kept) -> bool| ledger.files.values().filter(|one| of(one)).count();
        let told = format!("{} files, {:?}", ledger.files.len(), hits.done);
        assert!(count(&Kept::is_surely_locked) > cycles / 4, "there were locks: {told}");
        assert!(
            ledger.refused > cycles / 4,
            "locked versions were asked to go: {}",
            ledger.refused
        );
        assert!(hits.cut_changes > 0, "changes of locks were cut: {}", hits.cut_changes);
        for what in ["hidden", "deleted", "canceled"] {
            let done = hits.done.get(what).copied().unwrap_or_default();
            assert!(done > 10, "rules have {what}: {told}");
        }
        if self.days == Days::Pass {
            assert!(hits.cut_walks > 0, "walks were cut: {}", hits.cut_walks);
        }
    }
}

/// Moves on by so many days, which sets the worker of the rules to work. Tokens of before end.
fn pass(server: &Server, days: usize) {
    let advanced = server.control("POST", &format!("/admin/clock/advance?ms={}", days * DAY_MS));
    assert_eq!(advanced.status, 200);
}

/// Compares versions whose names begin with `prefix`, as they are after the kill of a day, with the
/// ledger; answers what is wrong. What is seen is what must be there from now on.
fn compare(
    found: &[Value],
    ledger: &mut Ledger,
    hits: &mut Hits,
    prefix: &str,
    day: usize,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut there, mut markers) = (BTreeMap::new(), BTreeMap::new());
    for version in found {
        let name = version["fileName"].as_str().unwrap();
        let into = if version["action"] == "hide" { &mut markers } else { &mut there };
        if into.insert(name, version).is_some() {
            wrong.push(format!("{name} is there twice"));
        }
    }
    let (mut acted, mut waits) = (false, false);
    for (name, kept) in ledger.files.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
        let Some(version) = there.get(name.as_str()) else {
            if kept.gone != Known::No {
                kept.gone = Known::Yes;
            } else if kept.may_be_deleted(day) {
                hits.done(if kept.is_begun { "canceled" } else { "deleted" });
                (kept.gone, acted) = (Known::Yes, true);
            } else {
                wrong.push(format!("{name} {LOST}"));
            }
            continue;
        };
        if kept.gone == Known::Yes {
            wrong.push(format!("{name} was gone and is there"));
        }
        kept.gone = Known::No;
        let lock = Lock::of(version);
        if !kept.locks.contains(&lock) {
            wrong.push(format!("{name} has the lock {lock:?} and not {:?}", kept.locks));
        }
        hits.cut_changes += usize::from(kept.locks.len() > 1);
        kept.locks = vec![lock];
        let is_begun = version["action"] == "start";
        let is_same = is_begun || *sha1_of(version) == kept.sha1.as_str();
        if is_begun != kept.is_begun || !is_same || version["contentLength"] != kept.size {
            wrong.push(format!("{name} has other metadata"));
        }
        let is_hidden = markers.contains_key(name.as_str());
        if kept.hidden == Known::Yes && !is_hidden {
            wrong.push(format!("{name} was hidden and is not"));
        }
        if is_hidden && kept.hidden == Known::No {
            if kept.is_due(day) {
                hits.done("hidden");
                acted = true;
            } else {
                wrong.push(format!("{name} is hidden too early"));
            }
        }
        waits |= kept.is_due(day) && !is_hidden;
        kept.hidden = if is_hidden { Known::Yes } else { Known::No };
    }
    hits.cut_walks += usize::from(acted && waits);
    wrong
}

/// A client that locks: its connection and where its acts are booked.
pub(super) struct Keeper<'a> {
    pub(super) session: &'a Session,
    pub(super) keep: &'a Keep,
    pub(super) cycle: usize,
    pub(super) label: &'a str,
    pub(super) connection: Connection,
}

impl Keeper<'_> {
    fn call(&mut self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        self.connection.send("POST", target, headers, body)?;
        self.connection.read(false)
    }

    fn ask(&mut self, operation: &str, body: &Value) -> io::Result<Answer> {
        let target = format!("/b2api/v4/{operation}");
        let headers = [("Authorization", self.session.token.as_str())];
        self.call(&target, &headers, body.to_string().as_bytes())
    }

    fn ok(&mut self, operation: &str, body: &Value) -> io::Result<Value> {
        let answer = self.ask(operation, body)?;
        assert_eq!(answer.status, 200, "{operation} {body}: {answer:?}");
        Ok(answer.json())
    }

    /// Changes what is booked of a file.
    fn book(&self, name: &str, change: impl FnOnce(&mut Kept)) {
        change(self.keep.ledger().files.get_mut(name).unwrap());
    }

    /// Uploads and locks, changes locks, hides, deletes and tries to, until the server is gone.
    pub(super) fn run(&mut self, seed: u64) -> io::Result<()> {
        let mut dice = Dice(seed);
        let mut doors = Vec::new();
        for bucket in &self.keep.buckets {
            let pair = self.ok("b2_get_upload_url", &json!({"bucketId": bucket}))?;
            let target = pair["uploadUrl"].as_str().unwrap().splitn(4, '/').nth(3).unwrap();
            let token = pair["authorizationToken"].as_str().unwrap();
            doors.push((format!("/{target}"), token.to_owned()));
        }
        for number in 0_u64.. {
            let name = format!("{}-{number}", self.label);
            let vault = doors.len() - 1;
            let at = usize::try_from(dice.roll(vault as u64)).unwrap();
            if dice.roll(8) == 0 {
                self.begin_large(&format!("{name}-begun"), at)?;
            }
            let at = if dice.roll(5) == 0 { vault } else { at };
            let lock = self.upload(&name, &doors[at], at == vault, &mut dice)?;
            self.act(&name, lock, &mut dice)?;
        }
        Ok(())
    }

    /// A large file that nobody will ever finish.
    fn begin_large(&mut self, name: &str, at: usize) -> io::Result<()> {
        let bucket = &self.keep.buckets[at];
        let body = json!({"bucketId": bucket, "fileName": name, "contentType": "text/plain"});
        let started = self.ok("b2_start_large_file", &body)?;
        self.enter(name, &started, &[], true, Lock::none());
        Ok(())
    }

    fn enter(&self, name: &str, version: &Value, bytes: &[u8], is_begun: bool, lock: Lock) {
        let kept = Kept {
            day: self.keep.day_of(self.cycle),
            id: version["fileId"].clone(),
            sha1: sha1_hex(bytes),
            size: bytes.len(),
            is_begun,
            locks: vec![lock],
            hidden: Known::No,
            gone: Known::No,
        };
        self.keep.ledger().files.insert(name.to_owned(), kept);
    }

    fn upload(
        &mut self,
        name: &str,
        (target, token): &(String, String),
        in_vault: bool,
        dice: &mut Dice,
    ) -> io::Result<Lock> {
        let bytes = vec![b'k'; SIZES[usize::try_from(dice.roll(4)).unwrap()]];
        let sha1 = sha1_hex(&bytes);
        let until = IN_2100.to_string();
        let mut headers = vec![
            ("Authorization", token.as_str()),
            ("X-Bz-File-Name", name),
            ("Content-Type", "b2/x-auto"),
            ("X-Bz-Content-Sha1", sha1.as_str()),
        ];
        let mut asked = Lock::none();
        let modes = [None, None, Some("governance"), Some("compliance")];
        if let Some(mode) = modes[usize::try_from(dice.roll(4)).unwrap()].filter(|_| !in_vault) {
            headers.push(("X-Bz-File-Retention-Mode", mode));
            headers.push(("X-Bz-File-Retention-Retain-Until-Timestamp", until.as_str()));
            asked.retention = retention(mode, IN_2100);
        }
        if dice.roll(4) == 0 {
            headers.push(("X-Bz-File-Legal-Hold", "on"));
            asked.hold = json!("on");
        }
        let answer = self.call(target, &headers, &bytes)?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let version = answer.json();
        let lock = Lock::of(&version);
        if in_vault {
            assert_eq!((lock.mode(), &lock.hold), (Some("governance"), &asked.hold), "{version}");
        } else {
            assert_eq!(lock, asked);
        }
        self.enter(name, &version, &bytes, false, lock.clone());
        Ok(lock)
    }

    /// A few acts on a version that was just uploaded.
    fn act(&mut self, name: &str, mut lock: Lock, dice: &mut Dice) -> io::Result<()> {
        let id = self.keep.ledger().files[name].id.clone();
        for _ in 0..=dice.roll(3) {
            match dice.roll(8) {
                0 | 1 => {
                    let mut wanted = lock.clone();
                    wanted.hold = json!(if lock.is_held() { "off" } else { "on" });
                    let body = json!({"fileName": name, "fileId": id, "legalHold": wanted.hold});
                    lock = self.change(name, "b2_update_file_legal_hold", &body, wanted)?;
                }
                2 | 3 => {
                    let mut wanted = lock.clone();
                    let lifts = lock.mode() == Some("governance") && dice.roll(2) == 0;
                    wanted.retention = match lock.mode() {
                        _ if lifts => Lock::none().retention,
                        None if dice.roll(2) == 0 => retention("compliance", IN_2100),
                        None => retention("governance", IN_2100),
                        Some(mode) => retention(mode, IN_2101),
                    };
                    let body = json!({
                        "fileName": name, "fileId": id, "fileRetention": wanted.retention,
                        "bypassGovernance": lifts,
                    });
                    lock = self.change(name, "b2_update_file_retention", &body, wanted)?;
                }
                4..6 if lock.is_locked() => self.delete_in_vain(name, &id, &lock)?,
                4 => {
                    self.book(name, |kept| kept.gone = Known::Maybe);
                    self.ok("b2_delete_file_version", &json!({"fileName": name, "fileId": id}))?;
                    self.book(name, |kept| kept.gone = Known::Yes);
                    return Ok(());
                }
                6 => {
                    if self.keep.ledger().files[name].hidden != Known::No {
                        continue;
                    }
                    self.book(name, |kept| kept.hidden = Known::Maybe);
                    let bucket = self.bucket_of(&id);
                    self.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": name}))?;
                    self.book(name, |kept| kept.hidden = Known::Yes);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The bucket of a file, which its id names.
    fn bucket_of(&self, id: &Value) -> String {
        let id = id.as_str().unwrap();
        let bucket = self.keep.buckets.iter().find(|bucket| id.contains(bucket.as_str()));
        bucket.unwrap().clone()
    }

    fn change(
        &mut self,
        name: &str,
        operation: &str,
        body: &Value,
        wanted: Lock,
    ) -> io::Result<Lock> {
        let at_once = self.keep.booking == Booking::WithTheRequest;
        self.book(name, |kept| {
            if at_once {
                kept.locks.clear();
            }
            kept.locks.push(wanted.clone());
        });
        self.ok(operation, body)?;
        self.book(name, |kept| kept.locks = vec![wanted.clone()]);
        Ok(wanted)
    }

    fn delete_in_vain(&mut self, name: &str, id: &Value, lock: &Lock) -> io::Result<()> {
        let bypass = lock.is_held() || lock.mode() == Some("compliance");
        let body = json!({"fileName": name, "fileId": id, "bypassGovernance": bypass});
        let answer = self.ask("b2_delete_file_version", &body)?;
        let answer = (answer.status, answer.code());
        assert_eq!(answer, (401, "access_denied".to_owned()), "{name} {lock:?}");
        self.keep.ledger().refused += 1;
        Ok(())
    }
}

/// A listed version.
fn listed(name: &str, action: &str, lock: &Lock) -> Value {
    json!({
        "fileName": name, "action": action, "contentSha1": "a", "contentLength": 1,
        "fileRetention": {"value": lock.retention}, "legalHold": {"value": lock.hold},
    })
}

#[test]
fn reliability_r91_the_harness_sees_locks_that_are_lost_and_rules_that_are_undone() {
    let (open, locked) =
        (Lock::none(), Lock { retention: retention("compliance", IN_2100), hold: json!(null) });
    let held = Lock { hold: json!("on"), ..open.clone() };
    let kept = |day, locks: &[&Lock]| Kept {
        day,
        id: json!("id"),
        sha1: "a".to_owned(),
        size: 1,
        is_begun: false,
        locks: locks.iter().map(|&lock| lock.clone()).collect(),
        hidden: Known::No,
        gone: Known::No,
    };
    let begin = || {
        let mut ledger = Ledger::default();
        for (name, kept) in [
            ("locked", kept(1, &[&locked])),
            ("held", kept(1, &[&held])),
            ("open", kept(1, &[&open])),
            ("changing", kept(1, &[&open, &locked])),
            ("begun", Kept { is_begun: true, ..kept(1, &[&open]) }),
        ] {
            ledger.files.insert(name.to_owned(), kept);
        }
        ledger
    };
    let all = [
        listed("locked", "upload", &locked),
        listed("held", "upload", &held),
        listed("open", "upload", &open),
        listed("changing", "upload", &locked),
        listed("begun", "start", &open),
    ];
    let without = |name: &str| -> Vec<Value> {
        all.iter().filter(|version| version["fileName"] != name).cloned().collect()
    };
    let with = |more: &[Value]| [&all[..], more].concat();
    let look = |found: &[Value], ledger: &mut Ledger, day| {
        compare(found, ledger, &mut Hits::default(), "", day)
    };
    let first = |found: &[Value], day| look(found, &mut begin(), day);
    assert_eq!(first(&all, 1), [""; 0]);

    // A locked version never goes, an open one not before its day.
    for name in ["locked", "held"] {
        assert_eq!(first(&without(name), 9), [format!("{name} {LOST}")]);
    }
    for (name, day) in [("open", 3), ("begun", 2)] {
        assert_eq!(first(&without(name), day - 1), [format!("{name} {LOST}")]);
        assert_eq!(first(&without(name), day), [""; 0]);
    }
    let marker = |name: &str| listed(name, "hide", &open);
    assert_eq!(first(&with(&[marker("open")]), 1), ["open is hidden too early"]);
    assert_eq!(first(&with(&[marker("open"), marker("locked")]), 2), [""; 0]);
    // What was hidden by a client goes a day after.
    let mut ledger = begin();
    ledger.files.get_mut("open").unwrap().hidden = Known::Maybe;
    assert_eq!(look(&without("open"), &mut ledger, 2), [""; 0]);

    // A lock is what was acknowledged, or one of two while nobody knows.
    for (name, at, other) in [("locked", 0, &open), ("held", 1, &open), ("open", 2, &held)] {
        let mut changed = all.clone();
        changed[at] = listed(name, "upload", other);
        let wrong = first(&changed, 1);
        assert!(wrong.len() == 1 && wrong[0].starts_with(&format!("{name} has the lock")));
    }
    let mut ledger = begin();
    assert_eq!(look(&all, &mut ledger, 1), [""; 0]);
    let mut back = all.clone();
    back[3] = listed("changing", "upload", &open);
    assert_eq!(first(&back, 1), [""; 0]);
    assert_eq!(look(&back, &mut ledger, 1).len(), 1, "it was seen locked");
    assert_eq!(look(&without("changing"), &mut begin(), 9), [""; 0], "it may not be locked");

    // What was seen once stays.
    let mut ledger = begin();
    assert_eq!(look(&with(&[marker("open")]), &mut ledger, 2), [""; 0]);
    assert_eq!(look(&all, &mut ledger, 2), ["open was hidden and is not"]);
    assert_eq!(look(&without("open"), &mut ledger, 3), [""; 0]);
    assert_eq!(look(&all, &mut ledger, 3)[0], "open was gone and is there");
    let mut ledger = begin();
    ledger.files.get_mut("open").unwrap().gone = Known::Maybe;
    assert_eq!(look(&all, &mut ledger, 1), [""; 0], "an unanswered deletion was not done");
    assert_eq!(look(&without("open"), &mut ledger, 1), [format!("open {LOST}")]);

    let doubled = with(&[listed("locked", "upload", &locked)]);
    assert_eq!(first(&doubled, 1), ["locked is there twice"]);
    let mut changed = all.clone();
    changed[0]["contentLength"] = json!(2);
    assert_eq!(first(&changed, 1), ["locked has other metadata"]);
}

#[test]
fn reliability_r91_the_harness_sees_a_lock_that_is_taken_off_behind_the_servers_back() {
    let mut server = Server::start_with(&["--test-controls"]);
    let keep = Keep::begin(&server.master(), Booking::WithTheAnswer, Days::Pass);
    let session = server.master();
    let connection = Connection::open(&session.address).unwrap();
    let mut keeper = Keeper { session: &session, keep: &keep, cycle: 1, label: "c1-0", connection };
    let (target, token) = session.upload_url(keep.buckets.last().unwrap());
    let door = (target, token);
    for name in ["c1-0-lost", "c1-0-bare", "c1-0-well"] {
        keeper.upload(name, &door, true, &mut Dice(SEED)).unwrap();
    }
    assert_eq!(keep.check(&session, 1, false), [""; 0]);
    assert_eq!(server.terminate(), Some(0));
    let catalog = rusqlite::Connection::open(server.data_dir().join("meta.db")).unwrap();
    for sql in [
        "DELETE FROM files WHERE name = 'c1-0-lost'",
        "UPDATE files SET retention_mode = 0, retain_until_ms = NULL WHERE name = 'c1-0-bare'",
    ] {
        assert_eq!(catalog.execute(sql, []).unwrap(), 1, "{sql}");
    }
    drop(catalog);
    server.restart();
    let wrong = keep.check(&server.master(), 1, false);
    assert!(wrong.iter().any(|one| one.starts_with("c1-0-bare has the lock")), "{wrong:?}");
    assert!(wrong.contains(&format!("c1-0-lost {LOST}")), "{wrong:?}");
    assert!(!wrong.iter().any(|one| one.starts_with("c1-0-well")), "{wrong:?}");
}
