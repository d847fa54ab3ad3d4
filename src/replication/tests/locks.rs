//! Locks on replicas (V22, G10, A7) and what removes nothing that is locked (reliability L1 to L4).

use crate::catalog::tx::Value;
use crate::catalog::{Abort, Tx, buckets, files, server_facts};
use crate::clock::Clock as _;
use crate::domain::bucket::BucketSettings;
use crate::domain::file::{Action, FileInfo, FileVersion};
use crate::domain::ids::BucketId;
use crate::domain::lifecycle::LifecycleRule;
use crate::domain::lock::{
    Belief, BucketLock, BucketLockChange, DefaultChange, DefaultRetention, FileLock, LockTimes,
    Period, Retention, RetentionMode,
};
use crate::domain::replication::{JobState, ReplicationConfiguration};
use crate::domain::time::DAY_MS;
use crate::operations::accounts::Operator;
use crate::operations::authorize::{upload_pair, upload_ticket};
use crate::operations::buckets::{BucketChange, delete_bucket, update_bucket};
use crate::operations::effects::{self, Cause, Moment};
use crate::operations::error::Error;
use crate::operations::files::{delete_version, hide_file};
use crate::operations::lifecycle::walk_due;
use crate::operations::lock_clock;
use crate::operations::locks::{Target, update_legal_hold, update_retention};
use crate::testing::{OPENED_AT, Pair, TestHouse, mapping, rule, rules};

const GOVERNANCE: RetentionMode = RetentionMode::Governance;
const COMPLIANCE: RetentionMode = RetentionMode::Compliance;
const YEAR_MS: i64 = 365 * DAY_MS;

fn retained(mode: RetentionMode, for_ms: i64) -> FileLock {
    FileLock {
        retention: Some(Retention { mode, until: OPENED_AT.plus(for_ms) }),
        legal_hold: None,
    }
}

fn held() -> FileLock {
    FileLock { retention: None, legal_hold: Some(true) }
}

async fn turn_lock_on(house: &TestHouse, bucket: BucketId, default: Option<DefaultRetention>) {
    let change = BucketChange {
        file_lock: BucketLockChange {
            enable: Some(true),
            default_retention: default.map_or(DefaultChange::Keep, DefaultChange::Set),
        },
        ..BucketChange::default()
    };
    update_bucket(&house.app, &house.caller, &bucket.to_string(), change).await.unwrap();
}

/// As [`TestHouse::pair`], both buckets with Object Lock.
async fn locked_pair(house: &TestHouse) -> Pair {
    let pair = house.pair().await;
    house.configure(pair.source, ReplicationConfiguration::default()).await.unwrap();
    turn_lock_on(house, pair.source, None).await;
    turn_lock_on(house, pair.destination, None).await;
    let again = rules(&pair.source_key, vec![rule("rule-one", pair.destination)]);
    house.configure(pair.source, again).await.unwrap();
    pair
}

async fn upload(house: &TestHouse, bucket: BucketId, name: &str, lock: FileLock) -> FileVersion {
    house.try_upload_locked(bucket, name, b"kept", FileInfo::default(), lock).await.unwrap()
}

fn target(version: &FileVersion) -> Target {
    Target { file_name: version.name.as_str().to_owned(), file_id: version.id().to_string() }
}

async fn delete(house: &TestHouse, version: &FileVersion, bypass: bool) -> Result<(), Error> {
    let (name, id) = (version.name.as_str(), version.id().to_string());
    delete_version(&house.app, &house.caller, name, &id, bypass).await.map(|_| ())
}

#[track_caller]
fn code(outcome: Result<(), Error>) -> &'static str {
    match outcome {
        Ok(()) => "ok",
        Err(Error::Refused(refusal)) => refusal.code.as_str(),
        Err(Error::Fault(fault)) => panic!("{fault}: {}", fault.source),
    }
}

#[tokio::test]
async fn replication_104_107_reliability_r52_a_replica_is_locked_as_its_source_was_when_it_was_read()
 {
    let house = TestHouse::open().await;
    let pair = locked_pair(&house).await;
    let both = FileLock { legal_hold: Some(true), ..retained(COMPLIANCE, 90 * DAY_MS) };
    let source = upload(&house, pair.source, "f", both).await;
    let off = upload(
        &house,
        pair.source,
        "off",
        FileLock { legal_hold: Some(false), ..FileLock::default() },
    )
    .await;
    // What is changed before the job reads the version goes along.
    let longer = Retention { mode: COMPLIANCE, until: OPENED_AT.plus(100 * DAY_MS) };
    update_retention(&house.app, &house.caller, target(&source), Some(longer), false)
        .await
        .unwrap();
    house.settle().await;
    assert_eq!(house.status(&source), Some("completed"));
    let replicas = house.versions(pair.destination);
    let replica = replicas.iter().find(|replica| replica.name == source.name).unwrap().clone();
    assert_eq!(replica.lock, FileLock { retention: Some(longer), legal_hold: Some(true) });
    let other = replicas.iter().find(|replica| replica.name == off.name).unwrap();
    assert_eq!(other.lock, off.lock);
    // What is changed later does not.
    let even_longer = Retention { mode: COMPLIANCE, until: OPENED_AT.plus(200 * DAY_MS) };
    update_retention(&house.app, &house.caller, target(&source), Some(even_longer), false)
        .await
        .unwrap();
    update_legal_hold(&house.app, &house.caller, target(&source), false).await.unwrap();
    house.drain().await;
    let after = house.versions(pair.destination);
    assert!(after.contains(&replica), "{after:?}");
    assert_eq!(code(delete(&house, &replica, true).await), "access_denied");
}

#[tokio::test]
async fn replication_105_the_destination_keeps_only_what_comes_without_a_retention_of_its_own() {
    let house = TestHouse::open().await;
    let pair = locked_pair(&house).await;
    let period = Period::of_caller(10, "days").unwrap();
    let default = DefaultRetention { mode: GOVERNANCE, period };
    turn_lock_on(&house, pair.destination, Some(default)).await;
    let free = upload(&house, pair.source, "free", FileLock::default()).await;
    let own = upload(&house, pair.source, "own", retained(COMPLIANCE, DAY_MS)).await;
    house.clock.advance(5_000);
    house.settle().await;
    let lock_at_destination = |version: &FileVersion| {
        let replicas = house.versions(pair.destination);
        replicas.into_iter().find(|replica| replica.name == version.name).unwrap().lock
    };
    let until = house.clock.now().plus(10 * DAY_MS);
    let from_now = Some(Retention { mode: GOVERNANCE, until });
    assert_eq!(lock_at_destination(&free).retention, from_now, "counted from the copy");
    assert_eq!(lock_at_destination(&own), own.lock);
    assert_eq!(free.lock, FileLock::default(), "the source stays as it was");
}

#[tokio::test]
async fn f46_replication_106_a_locked_version_is_not_carried_to_where_it_cannot_be_locked() {
    for lock in [retained(GOVERNANCE, DAY_MS), held()] {
        let house = TestHouse::open().await;
        let pair = locked_pair(&house).await;
        let version = upload(&house, pair.source, "f", lock).await;
        // No call turns Object Lock off: a destination without it is one that was damaged.
        set_settings(&house, pair.destination, |settings| {
            settings.file_lock = BucketLock::default();
        })
        .await;
        house.settle().await;
        let reason = Some("dest_lock_disabled".to_owned());
        assert_eq!(house.only_job(), (JobState::Failed, reason));
        assert_eq!(house.status(&version), Some("failed"));
        assert!(house.versions(pair.destination).is_empty());
        let free = upload(&house, pair.source, "free", FileLock::default()).await;
        house.settle().await;
        assert_eq!(house.status(&free), Some("completed"));
    }
}

async fn set_settings(house: &TestHouse, id: BucketId, change: fn(&mut BucketSettings)) {
    let changed = house.app.catalog.write("damage", move |tx| {
        let mut bucket = buckets::find_by_id(tx, id)?.unwrap();
        change(&mut bucket.settings);
        Ok(buckets::update_bucket(tx, &bucket)?)
    });
    changed.await.unwrap();
}

#[tokio::test]
async fn replication_46_object_lock_must_be_on_at_every_destination_of_a_locked_source() {
    let house = TestHouse::open().await;
    let pair = locked_pair(&house).await;
    let free = house.bucket("free-target").await;
    let two = vec![rule("rule-one", pair.destination), rule("rule-two", free)];
    let refused = house.configure(pair.source, rules(&pair.source_key, two.clone())).await;
    let Err(Error::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.message, "destination bucket must have file lock enabled");
    // Keys are looked at before locks (A3).
    let wrong = house.configure(pair.source, rules(&pair.destination_key, two.clone())).await;
    let Err(Error::Refused(refusal)) = wrong else { panic!("{wrong:?}") };
    assert!(refusal.message.contains("application key"), "{refusal}");
    let mapped = mapping(&pair.source_key, &pair.destination_key);
    house.configure(free, mapped).await.unwrap();
    turn_lock_on(&house, free, None).await;
    house.configure(pair.source, rules(&pair.source_key, two)).await.unwrap();
}

/// Everything that removes versions, tried on one; answers what each said.
async fn try_everything(house: &TestHouse, version: &FileVersion) -> Vec<(String, &'static str)> {
    let mut said = Vec::new();
    for bypass in [false, true] {
        said.push((format!("delete, bypass {bypass}"), code(delete(house, version, bypass).await)));
    }
    let shorter = update_retention(&house.app, &house.caller, target(version), None, false).await;
    said.push(("remove the retention".to_owned(), code(shorter)));
    let whole = delete_bucket(&house.app, &house.caller, &version.bucket.to_string()).await;
    said.push(("delete the bucket".to_owned(), code(whole.map(|_| ()))));
    for cause in [Cause::Delete, Cause::Cancel] {
        let (moment, gone) = (Moment::of(&house.app), version.clone());
        let removed = house.app.catalog.write("remove", move |tx| {
            let bucket = buckets::find_by_id(tx, gone.bucket)?.unwrap();
            effects::remove(tx, &bucket, &gone, cause, moment, false).map(|_| ())
        });
        let removed = removed.await.map_err(Error::from);
        said.push((format!("a worker, {cause:?}"), code(removed)));
    }
    hide_file(&house.app, &house.caller, &version.bucket.to_string(), version.name.as_str())
        .await
        .unwrap();
    house.clock.advance(120_000);
    house.sweep_freed().await;
    house.sweep_orphans().await;
    said
}

fn is_there(house: &TestHouse, version: &FileVersion) -> bool {
    house.versions(version.bucket).iter().any(|one| one.number == version.number)
}

#[tokio::test]
async fn reliability_l1_l2_l3_l5_nothing_removes_a_locked_version() {
    let long = 100 * DAY_MS;
    let locks = [
        (retained(COMPLIANCE, long), false),
        (held(), false),
        (FileLock { legal_hold: Some(true), ..retained(GOVERNANCE, long) }, false),
        (retained(GOVERNANCE, long), true),
    ];
    // The same when the clock is a hundred years ahead.
    let jumps = [0, 100 * YEAR_MS];
    for ((lock, may_bypass), jump) in locks.iter().flat_map(|lock| jumps.map(|by| (*lock, by))) {
        let house = TestHouse::open().await;
        let bucket = house.bucket("locked-bucket").await;
        turn_lock_on(&house, bucket, None).await;
        let version = upload(&house, bucket, "f", lock).await;
        house.clock.jump(jump);
        if may_bypass {
            assert_eq!(code(delete(&house, &version, false).await), "access_denied");
            let removed =
                update_retention(&house.app, &house.caller, target(&version), None, false).await;
            assert_eq!(code(removed), "access_denied");
            assert!(is_there(&house, &version));
            assert_eq!(code(delete(&house, &version, true).await), "ok");
            continue;
        }
        for (what, said) in try_everything(&house, &version).await {
            let allowed = lock.retention.is_none() && what == "remove the retention";
            let expected: &[&str] = match what.as_str() {
                "delete the bucket" => &["cannot_delete_non_empty_bucket"],
                _ if allowed => &["ok"],
                _ => &["access_denied"],
            };
            assert!(expected.contains(&said), "{lock:?}: {what}: {said}");
        }
        assert!(is_there(&house, &version), "{lock:?}");
        assert_eq!(house.content(&version).await, b"kept", "{lock:?}");
    }
}

#[tokio::test]
async fn reliability_l4_a_lock_that_cannot_be_read_counts_as_locked_and_hides_nothing() {
    let damages: [(&'static str, &[&str]); 5] = [
        (
            "UPDATE files SET retention_mode = 7, retain_until_ms = 1 WHERE file_no = ?1",
            &["retention"],
        ),
        (
            "UPDATE files SET retention_mode = 1, retain_until_ms = NULL WHERE file_no = ?1",
            &["retention"],
        ),
        ("UPDATE files SET retention_mode = 'x' WHERE file_no = ?1", &["retention"]),
        ("UPDATE files SET legal_hold = 9 WHERE file_no = ?1", &["hold"]),
        ("UPDATE files SET legal_hold = 'on' WHERE file_no = ?1", &["hold"]),
    ];
    for (damage, halves) in damages {
        let house = TestHouse::open().await;
        let pair = locked_pair(&house).await;
        let version = upload(&house, pair.source, "a", FileLock::default()).await;
        let other = upload(&house, pair.source, "b", FileLock::default()).await;
        let number = version.number.0;
        let damaged = house.app.catalog.write("damage", move |tx| {
            tx.execute("PRAGMA ignore_check_constraints = 1", &[])?;
            let changed = tx.execute(damage, &[Value::Int(number)])?;
            tx.execute("PRAGMA ignore_check_constraints = 0", &[])?;
            Ok(changed)
        });
        assert_eq!(damaged.await.unwrap(), 1, "{damage}");
        let seen = house.versions(pair.source);
        assert_eq!(seen.len(), 2, "the listing goes on");
        let unreadable = halves.contains(&"retention");
        if unreadable {
            assert_eq!(seen[0].lock.retention, Some(Retention::UNREADABLE));
        } else {
            assert_eq!(seen[0].lock, held());
        }
        for bypass in [false, true] {
            assert_eq!(code(delete(&house, &seen[0], bypass).await), "access_denied", "{damage}");
        }
        let free = update_retention(&house.app, &house.caller, target(&version), None, true).await;
        assert_eq!(code(free), if unreadable { "access_denied" } else { "ok" }, "{damage}");
        house.clock.advance(200 * 365 * DAY_MS);
        assert_eq!(code(delete(&house, &seen[0], true).await), "access_denied", "for ever");
        // The copy of a lock that nobody can lift must not be made.
        house.settle().await;
        let expected = if unreadable { "failed" } else { "completed" };
        assert_eq!(house.status(&version), Some(expected), "{damage}");
        assert_eq!(house.status(&other), Some("completed"));
        if !unreadable {
            // Whoever may write holds can say what it is.
            update_legal_hold(&house.app, &house.caller, target(&version), false).await.unwrap();
            assert_eq!(code(delete(&house, &seen[0], false).await), "ok");
        }
    }
}

#[tokio::test]
async fn an_unfinished_large_file_is_given_up_whatever_lock_it_was_begun_with() {
    let house = TestHouse::open().await;
    let bucket = house.bucket("locked-bucket").await;
    turn_lock_on(&house, bucket, None).await;
    let version = upload(&house, bucket, "f", retained(COMPLIANCE, DAY_MS)).await;
    let begun = FileVersion { action: Action::Start, ..version.clone() };
    let moment = Moment::of(&house.app);
    assert!(!moment.may_remove(&version, true));
    assert!(moment.may_remove(&begun, false));
    let later = Moment {
        locks: LockTimes::of(OPENED_AT.plus(DAY_MS), OPENED_AT.plus(DAY_MS), 0),
        ..moment
    };
    assert!(later.may_remove(&version, false));
    let gone = house.app.catalog.write("remove", move |tx: &mut dyn Tx| -> Result<(), Abort> {
        let bucket = buckets::find_by_id(tx, bucket)?.unwrap();
        let _announced_by_nobody =
            effects::remove(tx, &bucket, &version, Cause::Delete, later, false)?;
        assert!(!files::has_versions(tx, bucket.number)?);
        Ok(())
    });
    gone.await.unwrap();
}

/// A bucket with one version under compliance for 30 days, and one under governance.
async fn kept_for_thirty_days(house: &TestHouse) -> [FileVersion; 2] {
    let bucket = house.bucket("locked-bucket").await;
    turn_lock_on(house, bucket, None).await;
    [
        upload(house, bucket, "complied", retained(COMPLIANCE, 30 * DAY_MS)).await,
        upload(house, bucket, "governed", retained(GOVERNANCE, 30 * DAY_MS)).await,
    ]
}

/// What deleting and shortening without a bypass are told.
async fn told(house: &TestHouse, version: &FileVersion) -> [&'static str; 2] {
    let shortened = update_retention(&house.app, &house.caller, target(version), None, false);
    [code(shortened.await), code(delete(house, version, false).await)]
}

const DENIED: [&str; 2] = ["access_denied", "access_denied"];

#[tokio::test]
async fn reliability_l5_r26_a_clock_that_jumps_ahead_frees_nothing() {
    let mut house = TestHouse::open().await;
    let versions = kept_for_thirty_days(&house).await;
    let bucket = versions[0].bucket.to_string();
    let pair = upload_pair(&house.app, &house.caller, &bucket).unwrap();
    let rule = LifecycleRule {
        delete_after_days: Some(1),
        cancel_after_days: None,
        hide_after_days: Some(1),
        file_name_prefix: String::new(),
    };
    let change = BucketChange { lifecycle_rules: Some(vec![rule]), ..BucketChange::default() };
    update_bucket(&house.app, &house.caller, &bucket, change).await.unwrap();
    house.upkeep().await;
    house.clock.jump(100 * YEAR_MS);
    for version in &versions {
        assert_eq!(told(&house, version).await, DENIED);
    }
    let ticket = upload_ticket(&house.app, &pair.token, &bucket, &pair.mark);
    assert!(ticket.is_err(), "tokens end all the same");
    for _ in 0..2 {
        assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 1);
        house.clock.jump(2 * DAY_MS);
    }
    house.upkeep().await;
    // Neither does stopping and starting under the wrong clock.
    house.crash_and_reopen().await;
    for version in &versions {
        assert_eq!(told(&house, version).await, DENIED, "after a restart");
    }
    // Time that really passes ends a lock under any clock.
    house.clock.advance(30 * DAY_MS - 1);
    assert_eq!(told(&house, &versions[0]).await, DENIED);
    house.clock.advance(1);
    assert_eq!(told(&house, &versions[0]).await, ["ok", "ok"]);
    // And back under a right clock all is as it was.
    house.clock.jump(-100 * YEAR_MS);
    assert_eq!(told(&house, &versions[1]).await, ["ok", "ok"]);
}

#[tokio::test]
async fn reliability_l5_an_operator_can_say_that_the_clock_is_right() {
    let mut house = TestHouse::open().await;
    let versions = kept_for_thirty_days(&house).await;
    // Ten years without power look like a jump, even when the first start was cut short.
    house.clock.jump(10 * YEAR_MS);
    house.crash_and_reopen().await;
    assert_eq!(told(&house, &versions[0]).await, DENIED);
    let operator = Operator::of_data_folder();
    assert_eq!(lock_clock::show(&house.app, &operator).ahead_ms(), 10 * YEAR_MS);
    let confirmed = lock_clock::confirm(&house.app, &operator).await.unwrap();
    assert_eq!((confirmed.ahead_ms(), confirmed.now), (0, house.clock.now()));
    assert_eq!(told(&house, &versions[0]).await, ["ok", "ok"]);
    // It was said of that clock, and stays said.
    house.crash_and_reopen().await;
    assert_eq!(lock_clock::show(&house.app, &operator).ahead_ms(), 0);
    house.clock.jump(10 * YEAR_MS);
    assert_eq!(lock_clock::show(&house.app, &operator).ahead_ms(), 10 * YEAR_MS);
}

#[tokio::test]
async fn reliability_l5_small_steps_of_the_clock_are_believed_and_back_ones_hold() {
    let mut house = TestHouse::open().await;
    let versions = kept_for_thirty_days(&house).await;
    house.upkeep().await;
    house.clock.advance(30 * DAY_MS - 1000);
    house.upkeep().await;
    // An hour: summer time, or a clock that was set by hand.
    house.clock.jump(-3_600_000);
    assert_eq!(told(&house, &versions[0]).await, DENIED);
    house.clock.jump(3_600_000);
    assert_eq!(told(&house, &versions[0]).await, DENIED, "a second is left");
    house.clock.jump(1000);
    assert_eq!(told(&house, &versions[0]).await, ["ok", "ok"]);
    // A machine that starts at the beginning of time and is set right a little later has not
    // jumped.
    let now = house.clock.now();
    house.clock.jump(-now.0);
    house.crash_and_reopen().await;
    assert_eq!(told(&house, &versions[1]).await, DENIED);
    house.clock.jump(now.0 + 60_000);
    assert_eq!(told(&house, &versions[1]).await, ["ok", "ok"]);
}

#[tokio::test]
async fn reliability_l5_a_clock_that_went_back_shortens_nothing() {
    let mut house = TestHouse::open().await;
    let versions = kept_for_thirty_days(&house).await;
    let period = Period::of_caller(30, "days").unwrap();
    let default = DefaultRetention { mode: GOVERNANCE, period };
    turn_lock_on(&house, versions[0].bucket, Some(default)).await;
    house.clock.advance(31 * DAY_MS);
    house.clock.jump(-40 * YEAR_MS);
    assert_eq!(told(&house, &versions[0]).await, DENIED, "nothing is over by a clock of 1983");
    let should_say = house.clock.now().plus(40 * YEAR_MS);
    let new = upload(&house, versions[0].bucket, "new", FileLock::default()).await;
    let until = Some(Retention { mode: GOVERNANCE, until: should_say.plus(30 * DAY_MS) });
    assert_eq!(new.lock.retention, until, "counted from what the clock should say");
    house.upkeep().await;
    // Nor does a crash make it forget what the clock should say.
    house.clock.advance(20 * DAY_MS);
    house.upkeep().await;
    house.crash_and_reopen().await;
    assert_eq!(shown(&house).behind_ms(), 40 * YEAR_MS);
    house.clock.jump(40 * YEAR_MS);
    assert_eq!(shown(&house).belief(), Belief::Believed, "set right, and nobody had to say so");
    assert_eq!(told(&house, &new).await, DENIED);
    house.clock.advance(10 * DAY_MS);
    assert_eq!(told(&house, &new).await, ["ok", "ok"]);
    // An operator who says that the earlier time is the right one is believed too.
    house.clock.jump(-40 * YEAR_MS);
    lock_clock::confirm(&house.app, &Operator::of_data_folder()).await.unwrap();
    let newer = upload(&house, versions[0].bucket, "newer", FileLock::default()).await;
    let until = house.clock.now().plus(30 * DAY_MS);
    assert_eq!(newer.lock.retention, Some(Retention { mode: GOVERNANCE, until }));
    house.clock.jump(40 * YEAR_MS);
    assert_eq!(told(&house, &newer).await, DENIED, "and coming back is a jump");
}

fn shown(house: &TestHouse) -> LockTimes {
    lock_clock::show(&house.app, &Operator::of_data_folder())
}

#[tokio::test]
async fn reliability_l5_stops_within_the_tolerance_and_slow_drift_need_no_operator() {
    let mut house = TestHouse::open().await;
    kept_for_thirty_days(&house).await;
    // Down for a day less what may be missing in the note, ten times.
    for _ in 0..10 {
        house.clock.jump(DAY_MS - 600_000);
        house.crash_and_reopen().await;
        assert_eq!(shown(&house).belief(), Belief::Believed);
        house.upkeep().await;
    }
    // A quarter of an hour that nobody saw in each of a hundred days: nightly snapshots of a machine.
    for _ in 0..100 {
        house.clock.advance(DAY_MS);
        house.clock.jump(900_000);
        house.upkeep().await;
        assert_eq!(shown(&house).belief(), Belief::Believed);
    }
    // A clock that runs wild is believed for the tolerance, and then no more: locks have run by a
    // day, the little that was left of before, and a hundredth of what passed.
    let (real, mut days) = (house.clock.monotonic(), 0);
    let before = house.clock.now();
    while shown(&house).belief() == Belief::Believed {
        house.clock.advance(3_600_000);
        house.clock.jump(3_600_000);
        house.upkeep().await;
        days += 1;
        assert!(days < 100, "believed for ever");
    }
    let passed = house.clock.monotonic().0 - real.0;
    let ran = shown(&house).locks_run_to.0 - before.0;
    assert!(ran <= passed + DAY_MS + passed / 100, "{ran} in {passed}");
    house.clock.jump(50 * YEAR_MS);
    house.upkeep().await;
    assert_eq!(shown(&house).belief(), Belief::Ahead);
    assert!(shown(&house).locks_run_to.0 - before.0 <= passed + DAY_MS + passed / 100);
}

#[tokio::test]
async fn reliability_l5_where_nothing_can_be_locked_any_clock_is_believed() {
    let mut house = TestHouse::open().await;
    house.bucket("open-bucket").await;
    for jump in [100 * YEAR_MS, -100 * YEAR_MS, 3 * DAY_MS, -3 * DAY_MS] {
        house.clock.jump(jump);
        house.upkeep().await;
        assert_eq!(shown(&house).belief(), Belief::Believed);
        house.clock.jump(jump);
        house.crash_and_reopen().await;
        house.upkeep().await;
        assert_eq!(shown(&house).belief(), Belief::Believed);
        house.clock.jump(-jump);
        house.upkeep().await;
    }
    // What was believed then is the beginning for the first lock.
    let versions = kept_for_thirty_days(&house).await;
    house.crash_and_reopen().await;
    house.clock.jump(31 * DAY_MS);
    house.upkeep().await;
    assert_eq!(shown(&house).belief(), Belief::Ahead);
    assert_eq!(told(&house, &versions[0]).await, DENIED);
    // With the last of those buckets the reason for doubt goes.
    house.clock.jump(-31 * DAY_MS);
    let bucket = versions[0].bucket.to_string();
    house.clock.advance(30 * DAY_MS);
    for version in &versions {
        delete(&house, version, false).await.unwrap();
    }
    house.clock.jump(31 * DAY_MS);
    house.upkeep().await;
    assert_eq!(shown(&house).belief(), Belief::Ahead);
    delete_bucket(&house.app, &house.caller, &bucket).await.unwrap();
    house.upkeep().await;
    assert_eq!(shown(&house).belief(), Belief::Believed);
}

#[tokio::test]
async fn reliability_l5_rules_count_days_by_the_clock_of_locks_where_versions_may_be_locked() {
    let house = TestHouse::open().await;
    let (locking, plain) = (house.bucket("locked-bucket").await, house.bucket("open-bucket").await);
    turn_lock_on(&house, locking, None).await;
    for bucket in [locking, plain] {
        let rule = LifecycleRule {
            delete_after_days: Some(3),
            cancel_after_days: None,
            hide_after_days: None,
            file_name_prefix: String::new(),
        };
        let change = BucketChange { lifecycle_rules: Some(vec![rule]), ..BucketChange::default() };
        update_bucket(&house.app, &house.caller, &bucket.to_string(), change).await.unwrap();
        let lock =
            if bucket == locking { retained(GOVERNANCE, DAY_MS) } else { FileLock::default() };
        upload(&house, bucket, "f", lock).await;
        house.clock.advance(1);
        upload(&house, bucket, "f", FileLock::default()).await;
    }
    house.clock.advance(DAY_MS);
    house.clock.jump(10 * DAY_MS);
    // The retention is over, but three days have not passed.
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 2);
    assert_eq!((house.versions(locking).len(), house.versions(plain).len()), (2, 1));
    house.clock.advance(2 * DAY_MS);
    assert_eq!(walk_due(&house.app, &|| true).await.unwrap(), 2);
    assert_eq!((house.versions(locking).len(), house.versions(plain).len()), (1, 1));
}

#[tokio::test]
async fn reliability_l5_a_note_of_the_clock_that_cannot_be_read_believes_no_clock() {
    let mut house = TestHouse::open().await;
    let versions = kept_for_thirty_days(&house).await;
    let spoiled = house
        .app
        .catalog
        .write("spoil", |tx| Ok(server_facts::put_fact(tx, "lock_clock_known_ms", b"soon")?));
    spoiled.await.unwrap();
    house.clock.jump(31 * DAY_MS);
    house.crash_and_reopen().await;
    assert_eq!(told(&house, &versions[0]).await, DENIED);
}
