//! Configuration as the catalog keeps it, the breaker, outcomes that cannot be written, and what
//! operators see.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::task::JoinHandle;

use crate::catalog::replication::{self as rows, Breaker};
use crate::catalog::sqlite::lock_database;
use crate::catalog::tx::{Tx, Value, find};
use crate::clock::Clock as _;
use crate::domain::digest::Hasher;
use crate::domain::encryption::AskedEncryption;
use crate::domain::file::{ContentSha1, FileInfo, FileVersion};
use crate::domain::ids::BucketId;
use crate::domain::names::FileName;
use crate::domain::replication::{JobState, Reason, ReplicationConfiguration};
use crate::domain::time::{DAY_MS, Steady};
use crate::operations::accounts::Operator;
use crate::operations::authorize::{upload_pair, upload_ticket};
use crate::operations::buckets::{BucketChange, delete_bucket, update_bucket};
use crate::operations::controls::EngineControls;
use crate::operations::error::Error;
use crate::operations::files::{delete_version, hide_file};
use crate::operations::replication_jobs::{JobQuery, count_jobs, list_jobs, oldest_pending_ms};
use crate::operations::upload::{Announced, DeclaredSha1, NewFile, OnlyIf, upload};
use crate::replication::destination::faulty::Fault;
use crate::replication::destination::local::Local;
use crate::replication::{Engine, EngineOptions};
use crate::testing::{
    DESTINATION_RIGHTS, Pair, SOURCE_RIGHTS, TestHouse, mapping, rule, rules, sha1_of,
};

/// Starts a step and waits until its job is at the destination, where it hangs.
async fn hang(house: &TestHouse, destination: BucketId) -> JoinHandle<Result<bool, Error>> {
    let calls = house.plan.calls_for(destination);
    house.plan.plan(destination, 1, Fault::Hang);
    let engine = Arc::clone(&house.engine);
    let step = tokio::spawn(async move { engine.step_once().await });
    let hanging = async {
        while house.plan.calls_for(destination) == calls {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), hanging).await.expect("it is carried");
    step
}

fn breakers(house: &TestHouse) -> Vec<Breaker> {
    house.app.catalog.read(|tx| Ok(rows::list_breakers(tx)?)).unwrap()
}

async fn execute(house: &TestHouse, sql: &'static str, number: i64) -> usize {
    let executed =
        house.app.catalog.write("test", move |tx| Ok(tx.execute(sql, &[Value::Int(number)])?));
    executed.await.unwrap()
}

async fn delete(house: &TestHouse, version: &FileVersion) {
    let (name, id) = (version.name.as_str(), version.id().to_string());
    delete_version(&house.app, &house.caller, name, &id, false).await.unwrap();
}

#[tokio::test]
async fn f73_replication_194_196_197_a_breaker_opens_survives_a_restart_and_closes_by_itself() {
    let mut house = TestHouse::open().await;
    let pair = house.pair().await;
    house.plan.plan(pair.destination, 6, Fault::Fail(Reason::Timeout));
    for number in 0..8 {
        house.upload(pair.source, &format!("f{number}"), b"x").await;
    }
    assert_eq!(house.settle().await, 5, "the sixth spends no attempt");
    assert_eq!(breakers(&house)[0].failures, 5);
    let first_wait = breakers(&house)[0].open_until.0 - house.app.waits.now().0;
    assert!((800..=1200).contains(&first_wait), "one second, give or take a fifth: {first_wait}");
    house.crash_and_reopen().await;
    assert_eq!(house.settle().await, 0, "still open after a restart");
    house.clock.advance(first_wait - 1);
    assert_eq!(house.settle().await, 0);
    // Half open: one job finds out that the target is still ill.
    house.clock.advance(1);
    assert_eq!(house.settle().await, 1);
    let second_wait = breakers(&house)[0].open_until.0 - house.app.waits.now().0;
    assert!((1600..=2400).contains(&second_wait), "twice as long: {second_wait}");
    house.clock.advance(second_wait);
    assert!(house.engine.step_once().await.unwrap());
    assert!(breakers(&house).is_empty(), "a success closes it and forgets the failures");
    house.drain().await;
    assert_eq!(house.versions(pair.destination).len(), 8);
    assert_eq!(house.plan.calls_for(pair.destination), 6 + 8);
}

#[tokio::test]
async fn replication_194_failures_that_come_at_once_are_all_counted() {
    let options = EngineOptions { target_max_inflight: 8, ..EngineOptions::default() };
    let house = TestHouse::open_with(options, |_| {}).await;
    let pair = house.pair().await;
    house.plan.plan(pair.destination, 5, Fault::Fail(Reason::Timeout));
    for number in 0..5 {
        house.upload(pair.source, &format!("f{number}"), b"x").await;
    }
    let running = tokio::spawn(Arc::clone(&house.engine).run());
    let tried = async {
        while house.jobs().iter().any(|job| job.attempts == 0) {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(30);
    tokio::time::timeout(patience, tried).await.expect("each is tried once");
    house.engine.stop(patience).await;
    running.await.unwrap();
    assert_eq!(breakers(&house)[0].failures, 5);
}

#[tokio::test]
async fn replication_195_trouble_with_single_files_never_opens_a_breaker() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.plan.plan(pair.destination, 20, Fault::Fail(Reason::IoError));
    for number in 0..10 {
        house.upload(pair.source, &format!("f{number}"), b"x").await;
    }
    assert_eq!(house.settle().await, 10);
    house.configure(pair.destination, ReplicationConfiguration::default()).await.unwrap();
    house.upload(pair.source, "g", b"x").await;
    house.drain().await;
    assert!(breakers(&house).is_empty());
}

/// P9: everything of the transaction is undone, the replica as well as the outcome.
#[tokio::test]
async fn f22_replication_203_a_settling_transaction_that_fails_leaves_nothing_and_is_run_again() {
    let mut house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", &vec![5; 40_000]).await;
    let blob = version.blob.unwrap().0;
    // No version may share a blob that is on its way out: the last statement but one fails.
    assert_eq!(execute(&house, "UPDATE blobs SET refs = 0 WHERE blob_id = ?1", blob).await, 1);
    assert!(house.engine.step_once().await.unwrap());
    assert!(house.versions(pair.destination).is_empty());
    assert_eq!(house.only_job().0, JobState::Leased, "no outcome was written either");
    assert_eq!(count(&house, ORIGINS), 0);
    assert_eq!(execute(&house, "UPDATE blobs SET refs = 1 WHERE blob_id = ?1", blob).await, 1);
    house.crash_and_reopen().await;
    house.drain().await;
    assert_eq!(house.versions(pair.destination).len(), 1);
    assert_eq!((house.only_job().0, house.jobs()[0].crashes), (JobState::Done, 1));
    let sql = "SELECT refs FROM blobs WHERE blob_id = ?1";
    let refs =
        house.app.catalog.read(|tx| Ok(find(tx, sql, &[Value::Int(blob)], |row| row.int(0))?));
    assert_eq!(refs, Ok(Some(2)), "both versions hold the bytes");
}

/// The catalog takes claims but no outcomes, again and again: the job is not to blame.
#[tokio::test]
async fn f68_an_outcome_that_cannot_be_written_is_tried_again_and_never_taken_for_poison() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", &vec![5; 40_000]).await;
    let blob = version.blob.unwrap().0;
    assert_eq!(execute(&house, "UPDATE blobs SET refs = 0 WHERE blob_id = ?1", blob).await, 1);
    for round in 0..8 {
        assert!(house.engine.step_once().await.unwrap(), "round {round}");
        assert_eq!(house.only_job().0, JobState::Leased, "no outcome was written");
        house.clock.advance(59_000);
        assert_eq!(house.settle().await, 0, "the lease is still good");
        house.clock.advance(2_000);
    }
    assert_eq!(house.status(&version), Some("pending"));
    assert_eq!(house.jobs()[0].crashes, 0);
    assert_eq!(execute(&house, "UPDATE blobs SET refs = 1 WHERE blob_id = ?1", blob).await, 1);
    house.settle().await;
    assert_eq!(house.status(&version), Some("completed"));
    assert_eq!(house.versions(pair.destination).len(), 1);
}

/// Another process holds the database, a backup for one.
#[tokio::test]
async fn f68_a_database_that_is_locked_for_a_while_loses_no_outcome() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", b"x").await;
    let step = hang(&house, pair.destination).await;
    let lock = lock_database(&house.data_dir().join("meta.db"));
    house.plan.let_go.notify_one();
    // The outcome waits for the lock, however far the attempt has come by now.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(!step.is_finished());
    assert_eq!(house.status(&version), Some("pending"), "reading goes on");
    drop(lock);
    assert!(step.await.unwrap().unwrap());
    assert_eq!(house.status(&version), Some("completed"));
    assert_eq!((house.jobs()[0].attempts, house.jobs()[0].crashes), (0, 0));
}

/// P3: the worker dies with the bytes half looked at. P8: it dies after the outcome.
#[tokio::test]
async fn replication_203_a_crash_while_carrying_or_right_after_settling_makes_no_second_replica() {
    let mut house = TestHouse::open().await;
    let pair = house.pair().await;
    house.upload(pair.source, "f", b"x").await;
    let step = hang(&house, pair.destination).await;
    step.abort();
    assert!(step.await.unwrap_err().is_cancelled());
    house.crash_and_reopen().await;
    assert_eq!(house.settle().await, 0, "it waits two seconds after a crash");
    assert_eq!(house.jobs()[0].crashes, 1);
    house.clock.advance(2_000);
    assert_eq!(house.settle().await, 1);
    let calls = house.plan.calls_for(pair.destination);
    house.crash_and_reopen().await;
    house.clock.advance(1_000_000);
    assert_eq!(house.settle().await, 0);
    assert_eq!(house.plan.calls_for(pair.destination), calls);
    assert_eq!(house.versions(pair.destination).len(), 1);
}

/// P10.
#[tokio::test]
async fn f23_replication_206_a_zombie_worker_changes_nothing_and_is_counted() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.upload(pair.source, "f", b"x").await;
    let zombie = hang(&house, pair.destination).await;
    // Another run of the engine takes the job over, as after a restart of the process.
    let heir = Engine::new(
        Arc::clone(&house.app),
        EngineOptions::default(),
        Arc::new(Local),
        Arc::new(house.remote.clone()),
    );
    assert!(!heir.step_once().await.unwrap(), "taken back, to be run in two seconds");
    house.clock.advance(2_000);
    assert!(heir.step_once().await.unwrap());
    let done = house.jobs();
    assert_eq!(done[0].state, JobState::Done);
    house.plan.let_go.notify_one();
    assert!(zombie.await.unwrap().unwrap());
    assert_eq!(house.app.metrics.replication_fenced.value(), 1);
    assert_eq!(house.jobs(), done, "nothing was written");
    assert_eq!(house.versions(pair.destination).len(), 1);
}

/// The gate is asked again in the transaction that writes the replica.
#[tokio::test]
async fn f26_f30_f33_f45_what_is_taken_away_while_bytes_are_carried_stops_the_replica() {
    for (at, why) in [
        "source_key_deleted",
        "dest_key_deleted",
        "mapping_missing",
        "dest_bucket_missing",
        "source_deleted",
    ]
    .into_iter()
    .enumerate()
    {
        let house = TestHouse::open().await;
        let pair = house.pair().await;
        let version = house.upload(pair.source, "f", b"x").await;
        let step = hang(&house, pair.destination).await;
        match at {
            0 => house.delete_key(&pair.source_key).await,
            1 => house.delete_key(&pair.destination_key).await,
            2 => {
                let nothing = ReplicationConfiguration::default();
                house.configure(pair.destination, nothing).await.unwrap();
            }
            3 => {
                let id = pair.destination.to_string();
                delete_bucket(&house.app, &house.caller, &id).await.unwrap();
            }
            _ => delete(&house, &version).await,
        }
        house.plan.let_go.notify_one();
        assert!(step.await.unwrap().unwrap());
        let (state, reason) = house.only_job();
        let ended = if why == "source_deleted" { JobState::Cancelled } else { JobState::Failed };
        assert_eq!((state, reason.as_deref()), (ended, Some(why)));
        assert!(house.versions(pair.destination).is_empty(), "{why}");
        assert_eq!(count(&house, ORIGINS), 0);
        if ended == JobState::Failed {
            assert_eq!(house.status(&version), Some("failed"));
        }
    }
}

#[tokio::test]
async fn f25_an_attempt_that_comes_back_late_leaves_the_one_after_it_under_way() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.upload(pair.source, "f", b"x").await;
    let late = hang(&house, pair.destination).await;
    house.clock.advance(60_000);
    assert_eq!(house.settle().await, 0, "given up");
    house.clock.advance(1_000);
    let next = hang(&house, pair.destination).await;
    assert_eq!(house.engine.in_flight(), 1);
    // The one that has waited longest goes on first.
    house.plan.let_go.notify_one();
    assert!(late.await.unwrap().unwrap());
    assert_eq!(house.app.metrics.replication_fenced.value(), 1);
    assert_eq!(house.engine.in_flight(), 1, "its lease is kept up still");
    house.plan.let_go.notify_one();
    assert!(next.await.unwrap().unwrap());
    assert_eq!((house.engine.in_flight(), house.only_job().0), (0, JobState::Done));
    assert_eq!(house.versions(pair.destination).len(), 1);
}

/// What is remembered of a deleted version must never be taken for memory of a new one.
#[tokio::test]
async fn a_restart_under_a_clock_that_stands_still_gives_no_number_twice() {
    let mut house = TestHouse::open().await;
    let pair = house.pair().await;
    let pending = house.upload(pair.source, "f", b"one").await;
    delete(&house, &pending).await;
    house.crash_and_reopen().await;
    let carried = house.upload(pair.source, "f", b"two").await;
    assert_ne!(carried.id(), pending.id());
    assert_eq!(house.status(&carried), Some("pending"), "the cancelled job is not its job");
    house.settle().await;
    delete(&house, &carried).await;
    house.clock.jump(-1);
    house.crash_and_reopen().await;
    let last = house.upload(pair.source, "f", b"three").await;
    house.settle().await;
    assert_eq!(house.status(&last), Some("completed"));
    let there = house.versions(pair.destination);
    assert_eq!(there.len(), 2, "the replica of the one before is not taken for its own");
    assert!(there.iter().any(|replica| sha1_of(replica) == sha1_of(&last)));
}

/// Bytes of an upload that was never committed may lie under a number that no row knows.
#[tokio::test]
async fn a_number_that_was_drawn_and_never_committed_does_not_come_again_either() {
    let mut house = TestHouse::open().await;
    for back in [0, -1, -3_600_000, -90 * 24 * 3_600_000, 24 * 3_600_000, -24 * 3_600_000] {
        let drawn = house.app.numbers.blob(house.clock.now());
        house.clock.jump(back);
        house.crash_and_reopen().await;
        let next = house.app.numbers.blob(house.clock.now());
        assert!(next > drawn, "{next} after {drawn}, the clock moved by {back} ms");
    }
}

#[tokio::test]
async fn numbers_follow_the_clock_again_once_the_upkeep_has_looked() {
    let mut house = TestHouse::open().await;
    house.clock.advance(24 * 3_600_000);
    let now = house.clock.now();
    assert!(house.app.numbers.blob(now).drawn_at() < now, "only what is known to the catalog");
    house.upkeep().await;
    let drawn = house.app.numbers.blob(now);
    assert_eq!(drawn.drawn_at(), now);
    house.clock.jump(-1_000_000);
    house.crash_and_reopen().await;
    assert!(house.app.numbers.blob(house.clock.now()) > drawn, "the later mark counts");
}

/// How many rows a table of replication has.
fn count(house: &TestHouse, sql: &'static str) -> i64 {
    house.app.catalog.read(|tx| Ok(find(tx, sql, &[], |row| row.int(0))?)).unwrap().unwrap()
}

const ORIGINS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM replication_origins";
const SCANS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM replication_scans";

#[tokio::test]
async fn what_is_remembered_of_a_version_goes_with_it_and_not_before() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let second = house.bucket("second-target").await;
    house.configure(second, mapping(&pair.source_key, &pair.destination_key)).await.unwrap();
    let two = vec![rule("rule-one", pair.destination), rule("rule-two", second)];
    house.configure(pair.source, rules(&pair.source_key, two)).await.unwrap();
    let kept = house.upload(pair.source, "kept", b"x").await;
    let deleted = house.upload(pair.source, "deleted", b"x").await;
    house.drain().await;
    assert_eq!(count(&house, ORIGINS), 4);
    let replica = house.versions(second).remove(0);
    delete(&house, &replica).await;
    house.clock.advance(400 * DAY_MS);
    house.upkeep().await;
    assert_eq!((house.jobs().len(), count(&house, ORIGINS)), (4, 4), "while the sources are there");
    delete(&house, &deleted).await;
    assert_eq!((house.jobs().len(), count(&house, ORIGINS)), (2, 2));
    assert!(house.jobs().iter().all(|job| job.file_number == kept.number));
    // What is left still keeps a scan from making a second replica.
    execute(&house, "DELETE FROM replication_jobs WHERE job_id <> ?1", 0).await;
    let mut asking = rule("rule-one", pair.destination);
    asking.include_existing_files = true;
    house.configure(pair.source, rules(&pair.source_key, vec![asking])).await.unwrap();
    house.drain().await;
    assert_eq!(house.status(&kept), Some("completed"));
    let there = house.versions(pair.destination);
    assert_eq!(there.iter().filter(|one| one.origin == kept.number).count(), 1);
    assert_eq!(there.len(), 2, "deleting a source removes no replica");
}

#[tokio::test]
async fn cancelled_jobs_are_shown_for_a_day_and_then_forgotten_a_batch_at_a_time() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    for number in 0..3 {
        let version = house.upload(pair.source, &format!("f{number}"), b"x").await;
        delete(&house, &version).await;
    }
    let waiting = house.upload(pair.source, "waiting", b"x").await;
    let cancelled = || house.jobs().iter().filter(|job| job.state == JobState::Cancelled).count();
    house.clock.advance(DAY_MS - 1);
    house.upkeep().await;
    assert_eq!(cancelled(), 3);
    house.clock.jump(400 * DAY_MS);
    house.upkeep().await;
    assert_eq!(cancelled(), 3, "whatever the wall clock says");
    house.clock.advance(1);
    let last = house.upload(pair.source, "last", b"x").await;
    delete(&house, &last).await;
    let one_batch = |tx: &mut dyn Tx| Ok(rows::prune_cancelled(tx, Steady(i64::MAX), 1)?);
    assert_eq!(house.app.catalog.write("test", one_batch).await, Ok(1));
    house.upkeep().await;
    assert_eq!(cancelled(), 1, "the last one has its day before it");
    house.drain().await;
    assert_eq!(house.status(&waiting), Some("completed"));
}

#[tokio::test]
async fn what_is_remembered_of_a_destination_goes_once_the_bucket_is_gone() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", b"x").await;
    house.drain().await;
    house.plan.plan(pair.destination, 1, Fault::Fail(Reason::Timeout));
    house.upload(pair.source, "g", b"x").await;
    house.engine.step_once().await.unwrap();
    assert_eq!(breakers(&house).len(), 1);
    let replica = house.versions(pair.destination).remove(0);
    delete(&house, &replica).await;
    house.upkeep().await;
    assert_eq!(count(&house, ORIGINS), 1, "an empty bucket is still a bucket");
    let id = pair.destination.to_string();
    delete_bucket(&house.app, &house.caller, &id).await.unwrap();
    assert!(breakers(&house).is_empty());
    house.upkeep().await;
    assert_eq!(count(&house, ORIGINS), 0);
    assert_eq!(house.status(&version), Some("completed"), "a status never regresses");
    house.drain().await;
    assert!(breakers(&house).is_empty());
}

#[tokio::test]
async fn of_the_scans_of_a_bucket_the_last_is_remembered() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let mut asking = rule("rule-one", pair.destination);
    asking.include_existing_files = true;
    house.configure(pair.source, rules(&pair.source_key, vec![asking])).await.unwrap();
    for _ in 0..10 {
        house.drain().await;
        assert!((1..=2).contains(&count(&house, SCANS)));
        house.clock.advance(DAY_MS);
    }
    delete_bucket(&house.app, &house.caller, &pair.source.to_string()).await.unwrap();
    assert_eq!(count(&house, SCANS), 0);
}

/// P12, and what is left of it is swept.
#[tokio::test]
async fn f69_replication_65_a_catalog_without_space_keeps_neither_the_file_nor_its_job() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let well = house.upload(pair.source, "well", &vec![1; 40_000]).await;
    house.settle().await;
    let limit = async |sql: &'static str| {
        let limited =
            house.app.catalog.write("test", move |tx| Ok(find(tx, sql, &[], |row| row.int(0))?));
        limited.await.unwrap();
    };
    limit("PRAGMA max_page_count = 1").await;
    let mut refusals = 0;
    // Rows find room in pages that are there, so the limit is reached after a while.
    for number in 0..200 {
        let name = format!("{number}/{}", "n".repeat(200));
        match house.try_upload(pair.source, &name, &vec![2; 40_000], FileInfo::default()).await {
            Ok(_) => {}
            Err(Error::Fault(fault)) => {
                assert!(fault.may_retry, "{fault:?}");
                refusals += 1;
            }
            Err(refused) => panic!("{refused:?}"),
        }
        if refusals == 3 {
            break;
        }
    }
    assert_eq!(refusals, 3);
    assert_eq!(house.app.catalog.suspect(), None);
    let versions = house.versions(pair.source);
    assert_eq!(versions.len(), house.jobs().len(), "one job for each version that is there");
    limit("PRAGMA max_page_count = 1000000").await;
    house.drain().await;
    assert_eq!(house.versions(pair.destination).len(), versions.len());
    assert_eq!(house.sweep_orphans().await, 0, "the bytes nobody shows went at once");
    assert_eq!(house.content(&well).await, vec![1; 40_000]);
}

#[tokio::test]
async fn replication_98_99_114_bytes_names_and_an_unverified_sha1_arrive_as_they_are() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let names = ["100%", "a+b c", "%2F+%20", "\u{1f600}/\u{e9}", "..."];
    for (name, size) in names.into_iter().zip([0, 1, 16_384, 16_385, 2_500_000]) {
        let body: Vec<u8> = (0..=250).cycle().take(size).collect();
        let source = house.upload(pair.source, name, &body).await;
        house.settle().await;
        let there = house.versions(pair.destination);
        let replica = there.iter().find(|replica| replica.origin == source.number).unwrap();
        assert_eq!(replica.name.as_str(), name);
        assert_eq!(house.content(replica).await, body, "{name}");
    }
    let bucket = pair.source.to_string();
    let url = upload_pair(&house.app, &house.caller, &bucket).unwrap();
    let ticket = upload_ticket(&house.app, &url.token, &bucket, &url.mark).unwrap();
    let file = NewFile {
        lock: crate::domain::lock::FileLock::default(),
        name: FileName::parse("unverified").unwrap(),
        content_type: "b2/x-auto".to_owned(),
        info: FileInfo::from_headers(
            [("src_last_modified_millis", b"1".as_slice()), ("b2-cache-control", b"no-store")]
                .into_iter(),
            &FileName::parse("unverified").unwrap(),
        )
        .unwrap(),
        encryption: AskedEncryption::Default,
        body: Announced { body_bytes: 3, sha1: DeclaredSha1::Unknown, md5: None },
        custom_time: None,
        replica: None,
        only_if: OnlyIf::Anyway,
    };
    let body = stream::iter([Ok(Bytes::from_static(b"abc"))]);
    let source = upload(&house.app, &ticket, file, body).await.unwrap();
    house.settle().await;
    let there = house.versions(pair.destination);
    let replica = there.iter().find(|replica| replica.origin == source.number).unwrap();
    let mut hasher = Hasher::new();
    hasher.update(b"abc");
    assert_eq!(replica.sha1, ContentSha1::Unverified(hasher.finish().sha1));
    assert_eq!(replica.info.entries().len(), 2);
    assert_eq!((&replica.info, &replica.content_type), (&source.info, &source.content_type));
}

fn both(
    source: &ReplicationConfiguration,
    destination: &ReplicationConfiguration,
) -> ReplicationConfiguration {
    ReplicationConfiguration {
        as_replication_source: source.as_replication_source.clone(),
        as_replication_destination: destination.as_replication_destination.clone(),
    }
}

#[tokio::test]
async fn replication_2_3_6_8_17_a_configuration_is_replaced_as_a_whole_and_kept() {
    let mut house = TestHouse::open().await;
    let pair = house.pair().await;
    let stored = |house: &TestHouse| house.bucket_now(pair.source).unwrap().settings.replication;
    let mut disabled = rule("rule-two", pair.destination);
    (disabled.is_enabled, disabled.file_name_prefix) = (false, "p/".to_owned());
    let source = rules(&pair.source_key, vec![disabled, rule("rule-one", pair.destination)]);
    let destination = mapping(&pair.source_key, &pair.destination_key);
    let whole = both(&source, &destination);
    house.configure(pair.source, whole.clone()).await.unwrap();
    assert_eq!(stored(&house), whole, "rules stay in their order, disabled ones too");
    let info = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let change = BucketChange { info: Some(info), ..BucketChange::default() };
    let id = pair.source.to_string();
    update_bucket(&house.app, &house.caller, &id, change).await.unwrap();
    assert_eq!(stored(&house), whole, "a change of something else leaves it");
    house.crash_and_reopen().await;
    assert_eq!(stored(&house), whole, "so does a restart");
    house.configure(pair.source, destination.clone()).await.unwrap();
    assert_eq!(stored(&house), destination, "the side that was not sent is gone");
    house.configure(pair.source, source.clone()).await.unwrap();
    assert_eq!(stored(&house), source);
    house.configure(pair.source, ReplicationConfiguration::default()).await.unwrap();
    assert!(stored(&house).is_empty());
}

#[tokio::test]
async fn replication_13_14_15_16_48_refused_changes_change_nothing() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let id = pair.source.to_string();
    let before = house.bucket_now(pair.source).unwrap();
    let change = |replication, if_revision_is| BucketChange {
        kind: Some("allPublic".to_owned()),
        info: Some(BTreeMap::from([("a".to_owned(), "b".to_owned())])),
        replication: Some(replication),
        if_revision_is,
        ..BucketChange::default()
    };
    let right = || rules(&pair.source_key, vec![rule("rule-two", pair.destination)]);
    let refused = [
        change(right(), Some(before.revision - 1)),
        change(rules(&pair.source_key, vec![]), None),
        change(rules(&pair.source_key, vec![rule("short", pair.destination)]), None),
        change(rules(&pair.source_key, vec![rule("rule-self", pair.source)]), None),
        change(rules(&pair.destination_key, vec![rule("rule-two", pair.destination)]), None),
    ];
    for wanted in refused {
        let shown = format!("{wanted:?}");
        assert!(update_bucket(&house.app, &house.caller, &id, wanted).await.is_err(), "{shown}");
        assert_eq!(house.bucket_now(pair.source).unwrap(), before, "{shown}");
    }
    let (one, other) = futures_util::future::join(
        update_bucket(&house.app, &house.caller, &id, change(right(), Some(before.revision))),
        update_bucket(&house.app, &house.caller, &id, change(right(), Some(before.revision))),
    )
    .await;
    assert_ne!(one.is_ok(), other.is_ok(), "exactly one of two simultaneous changes");
    assert_eq!(house.bucket_now(pair.source).unwrap().revision, before.revision + 1);
    let deleted = delete_bucket(&house.app, &house.caller, &id).await.unwrap();
    assert_eq!(deleted.settings.replication, right(), "what is deleted is shown a last time");
}

#[tokio::test]
async fn replication_24_27_42_49_what_the_service_accepts_is_accepted() {
    let house = TestHouse::open().await;
    let target = house.bucket("common-target").await;
    // These are the rights with which Backblaze's own tests configure.
    let key = house.key(&["listBuckets", "readFiles"]).await;
    for name in ["source-one", "source-two", "source-three"] {
        let source = house.bucket(name).await;
        let wanted = rules(&key, vec![rule("same-name", target)]);
        house.configure(source, wanted).await.expect("the target has no mapping, and many sources");
    }
    let writer = house.key(&["listBuckets", "writeFiles"]).await;
    house.configure(target, mapping(&key, &writer)).await.unwrap();
}

#[tokio::test]
async fn replication_11_12_only_a_key_with_the_right_may_set_replication() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let key = house.key_of(&house.caller.clone(), &["writeBuckets"], None, None, None).await;
    let mut caller = house.caller.clone();
    caller.key = Arc::new(key);
    let wanted = rules(&pair.source_key, vec![rule("rule-two", pair.destination)]);
    let refused = house.configure_as(&caller, pair.source, wanted.clone()).await.unwrap_err();
    let Error::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code.as_str(), "unauthorized");
    let id = pair.source.to_string();
    let other = BucketChange { kind: Some("allPublic".to_owned()), ..BucketChange::default() };
    update_bucket(&house.app, &caller, &id, other).await.expect("other fields may be changed");
    let new = crate::operations::buckets::NewBucket {
        name: "new-bucket".to_owned(),
        kind: "allPrivate".to_owned(),
        replication: Some(wanted),
        ..crate::operations::buckets::NewBucket::default()
    };
    let made = crate::operations::buckets::create_bucket(&house.app, &caller, new).await;
    assert!(matches!(made, Err(Error::Refused(_))));
}

#[tokio::test]
async fn replication_62_64_each_destination_has_one_job_of_the_rule_that_wins() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let second = house.bucket("second-target").await;
    let equal = vec![rule("rule-first", second), rule("rule-second", second)];
    house.configure(pair.source, rules(&pair.source_key, equal)).await.unwrap();
    house.upload(pair.source, "f", b"x").await;
    assert_eq!(
        house.jobs()[0].of_rule().rule_name,
        "rule-first",
        "equal priorities: the first listed"
    );
    let two = vec![rule("rule-first", second), rule("rule-second", pair.destination)];
    house.configure(pair.source, rules(&pair.source_key, two)).await.unwrap();
    house.upload(pair.source, "g", b"x").await;
    let of_g: Vec<_> = house.jobs().into_iter().filter(|job| job.file_name == "g").collect();
    assert_eq!(of_g.len(), 2);
    assert_ne!(of_g[0].of_rule().destination, of_g[1].of_rule().destination);
}

#[tokio::test]
async fn replication_121_a_scan_spares_what_a_higher_rule_shields() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.configure(pair.source, ReplicationConfiguration::default()).await.unwrap();
    let shielded = house.upload(pair.source, "photos/a", b"x").await;
    let open = house.upload(pair.source, "other", b"x").await;
    let mut low = rule("rule-low", pair.destination);
    low.include_existing_files = true;
    let mut high = rule("rule-high", pair.destination);
    (high.priority, high.file_name_prefix) = (9, "photos/".to_owned());
    house.configure(pair.source, rules(&pair.source_key, vec![low, high])).await.unwrap();
    house.drain().await;
    assert_eq!((house.status(&shielded), house.status(&open)), (None, Some("completed")));
}

#[tokio::test]
async fn replication_133_one_direction_of_two_can_be_taken_away() {
    let house = TestHouse::open().await;
    let (west, east) = (house.bucket("west-bucket").await, house.bucket("east-bucket").await);
    let (reader, writer) = (house.key(&SOURCE_RIGHTS).await, house.key(&DESTINATION_RIGHTS).await);
    let mapped = mapping(&reader, &writer);
    for (here, there) in [(west, east), (east, west)] {
        let source = rules(&reader, vec![rule("rule-two-way", there)]);
        house.configure(here, both(&source, &mapped)).await.unwrap();
    }
    let source = rules(&reader, vec![rule("rule-two-way", west)]);
    house.configure(west, mapped).await.unwrap();
    house.configure(east, source).await.unwrap();
    let from_east = house.upload(east, "e", b"x").await;
    let from_west = house.upload(west, "w", b"x").await;
    house.drain().await;
    for _ in 0..100 {
        assert!(!house.engine.step_once().await.unwrap(), "statement 128: nothing goes round");
    }
    assert_eq!((house.status(&from_east), house.status(&from_west)), (Some("completed"), None));
    assert_eq!((house.versions(west).len(), house.versions(east).len()), (2, 1));
}

#[tokio::test]
async fn replication_214_a_job_under_way_holds_up_nobody() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let first = house.upload(pair.source, "f", b"one").await;
    let step = hang(&house, pair.destination).await;
    // While it hangs, the same name is uploaded, hidden and deleted, and nothing waits.
    let second = house.upload(pair.source, "f", b"two").await;
    hide_file(&house.app, &house.caller, &pair.source.to_string(), "f").await.unwrap();
    delete(&house, &first).await;
    assert_eq!(house.jobs()[0].state, JobState::Cancelled);
    house.plan.let_go.notify_one();
    step.await.unwrap().unwrap();
    house.drain().await;
    let there = house.versions(pair.destination);
    assert_eq!(there.len(), 1, "the deleted version never arrives");
    assert_eq!(sha1_of(&there[0]), sha1_of(&second));
    assert_eq!(house.app.metrics.replication_failed.value(), 0);
}

#[tokio::test]
async fn replication_219_220_operators_see_the_jobs_that_are_there() {
    let house = TestHouse::open().await;
    let Pair { source, destination, .. } = house.pair().await;
    let done = house.upload(source, "done", b"x").await;
    house.settle().await;
    house.configure(destination, ReplicationConfiguration::default()).await.unwrap();
    let failed = house.upload(source, "failed", b"x").await;
    house.settle().await;
    house.upload(source, "waits", b"x").await;
    let operator = Operator::of_data_folder();
    let query = JobQuery { state: Some("failed".to_owned()), ..JobQuery::default() };
    let page = list_jobs(&house.app, &operator, &query).unwrap();
    assert_eq!(page.jobs.len(), 1);
    let job = &page.jobs[0];
    assert_eq!((job.file_id.clone(), job.file_name.as_str()), (failed.id().to_string(), "failed"));
    assert_eq!(
        (job.of_rule().rule_name.as_str(), job.of_rule().destination),
        ("rule-one", destination)
    );
    assert_eq!(job.last_reason.as_deref(), Some("mapping_missing"));
    assert_eq!(page.bucket_names.get(&destination).map(String::as_str), Some("target"));
    let counted: BTreeMap<_, _> = count_jobs(&house.app)
        .await
        .unwrap()
        .into_iter()
        .map(|(state, count)| (state.as_str(), count))
        .collect();
    assert_eq!(counted, BTreeMap::from([("done", 1), ("failed", 1), ("ready", 1)]));
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let query = JobQuery { after, limit: Some(1), ..JobQuery::default() };
        let page = list_jobs(&house.app, &operator, &query).unwrap();
        paged.extend(page.jobs.into_iter().map(|job| job.file_name));
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged, ["done", "failed", "waits"]);
    let replica = house.versions(destination);
    assert_eq!(house.jobs()[0].dest_file_id, Some(replica[0].id().to_string()));
    assert_eq!(house.status(&done), Some("completed"));
}

#[tokio::test]
async fn replication_222_the_age_of_the_oldest_unfinished_job_grows_while_nothing_moves() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let oldest = || oldest_pending_ms(&house.app).unwrap();
    assert_eq!(oldest(), 0);
    let done = house.upload(pair.source, "done", b"x").await;
    house.clock.advance(700);
    assert_eq!(oldest(), 700);
    house.settle().await;
    assert_eq!((house.status(&done), oldest()), (Some("completed"), 0));
    house.plan.plan(pair.destination, 100, Fault::Fail(Reason::Timeout));
    for number in 0..7 {
        house.upload(pair.source, &format!("f{number}"), b"x").await;
        house.clock.advance(10);
    }
    assert_eq!(house.settle().await, 5, "the breaker opens");
    for _ in 0..20 {
        house.clock.advance(60_000);
        house.settle().await;
    }
    assert_eq!(oldest(), 20 * 60_000 + 70, "the first of the seven, tried or not");
    house.clock.jump(-86_400_000);
    assert_eq!(oldest(), 20 * 60_000 + 70);
    house.configure(pair.destination, ReplicationConfiguration::default()).await.unwrap();
    house.drain().await;
    assert_eq!(oldest(), 0, "a failed job is not pending");
}

#[tokio::test]
async fn replication_223_a_job_that_is_late_is_told_of_once_and_again_when_it_is_done() {
    let mut house = TestHouse::open().await;
    let pair = house.pair().await;
    let told = |house: &TestHouse| {
        let metrics = &house.app.metrics;
        (metrics.replication_missed_threshold.value(), metrics.replication_late.value())
    };
    house.plan.plan(pair.destination, 3, Fault::Fail(Reason::IoError));
    for number in 0..3 {
        house.upload(pair.source, &format!("late{number}"), b"x").await;
    }
    house.settle().await;
    house.clock.advance(899_999);
    house.upload(pair.source, "in-time", b"x").await;
    house.upkeep().await;
    assert_eq!(told(&house), (0, 0));
    house.clock.advance(1);
    house.upkeep().await;
    house.upkeep().await;
    assert_eq!(told(&house), (3, 0), "15 minutes, each once");
    house.crash_and_reopen().await;
    house.clock.advance(1_000);
    house.upkeep().await;
    assert_eq!(told(&house), (0, 0), "nor again after a restart");
    house.drain().await;
    assert_eq!(told(&house), (0, 3));
    assert_eq!(house.app.metrics.replication_lag.up_to(), [0, 0, 0, 1, 1, 1, 1, 1, 4, 4]);
    house.clock.advance(10_000_000);
    house.upkeep().await;
    assert_eq!(told(&house), (0, 3), "what is done is not late");
}

#[tokio::test]
async fn replication_227_held_engines_step_and_drain_as_told() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    EngineControls::hold(&*house.engine);
    let running = tokio::spawn(Arc::clone(&house.engine).run());
    for number in 0..4 {
        house.upload(pair.source, &format!("f{number}"), b"x").await;
    }
    for _ in 0..100 {
        EngineControls::look(&*house.engine);
        tokio::task::yield_now().await;
    }
    assert_eq!(house.plan.calls_for(pair.destination), 0, "held");
    assert!(EngineControls::step(Arc::clone(&house.engine)).await.unwrap());
    assert_eq!(house.versions(pair.destination).len(), 1, "one step, one job");
    let patience = std::time::Duration::from_secs(30);
    assert!(EngineControls::drain(Arc::clone(&house.engine), patience).await.unwrap());
    assert_eq!(house.versions(pair.destination).len(), 4);
    assert!(!EngineControls::step(Arc::clone(&house.engine)).await.unwrap());
    EngineControls::release(&*house.engine);
    house.upload(pair.source, "released", b"x").await;
    assert!(EngineControls::drain(Arc::clone(&house.engine), patience).await.unwrap());
    assert_eq!(house.versions(pair.destination).len(), 5);
    house.engine.stop(patience).await;
    running.await.unwrap();
}
