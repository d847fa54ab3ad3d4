//! Existing files (replication.md A9, C10).

use crate::catalog::Tx;
use crate::catalog::replication::{self, JobOrigin, NewJob};
use crate::clock::Clock as _;
use crate::domain::ids::FileNumber;
use crate::domain::replication::ReplicationConfiguration;
use crate::domain::time::DAY_MS;
use crate::operations::files::hide_file;
use crate::replication::scan;
use crate::testing::{Pair, TestHouse, mapping, rule, rules};

async fn with_existing(house: &TestHouse, pair: &Pair) {
    let mut wanted = rule("rule-one", pair.destination);
    wanted.include_existing_files = true;
    house.configure(pair.source, rules(&pair.source_key, vec![wanted])).await.unwrap();
}

async fn without_rules(house: &TestHouse) -> Pair {
    let pair = house.pair().await;
    house.configure(pair.source, ReplicationConfiguration::default()).await.unwrap();
    pair
}

#[tokio::test]
async fn replication_116_117_118_125_existing_versions_are_carried_only_when_asked_oldest_first() {
    let house = TestHouse::open().await;
    let pair = without_rules(&house).await;
    let first = house.upload(pair.source, "a", b"one").await;
    house.clock.advance(1);
    let second = house.upload(pair.source, "a", b"two").await;
    hide_file(&house.app, &house.caller, &pair.source.to_string(), "a").await.unwrap();
    let plain = rules(&pair.source_key, vec![rule("rule-one", pair.destination)]);
    house.configure(pair.source, plain).await.unwrap();
    house.drain().await;
    assert_eq!(house.status(&first), None, "not asked for");
    with_existing(&house, &pair).await;
    house.engine.step_once().await.unwrap();
    let order: Vec<_> = house.jobs().iter().map(|job| job.file_number).collect();
    assert_eq!(order, [first.number, second.number]);
    house.drain().await;
    assert_eq!(
        (house.status(&first), house.status(&second)),
        (Some("completed"), Some("completed"))
    );
    let there = house.versions(pair.destination);
    assert_eq!(there.len(), 2, "the hide marker stays where it is");
}

#[tokio::test]
async fn f54_replication_122_126_an_interrupted_scan_gives_each_file_one_job() {
    let mut house = TestHouse::open().await;
    let pair = without_rules(&house).await;
    for number in 0..1_100 {
        house.upload(pair.source, &format!("f{number:05}"), b"").await;
    }
    with_existing(&house, &pair).await;
    assert!(scan::advance_all(&house.app).await.unwrap());
    assert_eq!(house.jobs().len(), 500, "one batch at a time");
    house.crash_and_reopen().await;
    while scan::advance_all(&house.app).await.unwrap() {}
    let mut files: Vec<_> = house.jobs().iter().map(|job| job.file_number).collect();
    assert_eq!(files.len(), 1_100);
    files.sort_unstable();
    files.dedup();
    assert_eq!(files.len(), 1_100, "each once");
}

#[tokio::test]
async fn f55_replication_124_a_changed_rule_supersedes_the_scan_and_starts_anew() {
    let house = TestHouse::open().await;
    let pair = without_rules(&house).await;
    for number in 0..600 {
        house.upload(pair.source, &format!("f{number:05}"), b"").await;
    }
    with_existing(&house, &pair).await;
    scan::advance_all(&house.app).await.unwrap();
    let mut narrower = rule("rule-one", pair.destination);
    narrower.include_existing_files = true;
    narrower.file_name_prefix = "f0059".to_owned();
    let running = || {
        let running = house.app.catalog.read(|tx| Ok(replication::list_running_scans(tx)?));
        running.unwrap()
    };
    let first = running();
    assert_eq!((first.len(), first[0].seen), (1, 500));
    house.configure(pair.source, rules(&pair.source_key, vec![narrower.clone()])).await.unwrap();
    let second = running();
    assert_eq!((second.len(), second[0].seen), (1, 0), "the first one is superseded");
    assert_ne!(second[0].id, first[0].id);
    assert_eq!(second[0].bucket_revision, first[0].bucket_revision + 1);
    while scan::advance_all(&house.app).await.unwrap() {}
    assert_eq!(house.jobs().len(), 510, "500 of the first scan, ten more of the second");
    narrower.file_name_prefix.clear();
    house.configure(pair.source, rules(&pair.source_key, vec![narrower])).await.unwrap();
    assert_eq!(running().len(), 1);
    house.configure(pair.source, ReplicationConfiguration::default()).await.unwrap();
    assert!(running().is_empty(), "no rule, no scan");
    assert!(!scan::advance_all(&house.app).await.unwrap());
    assert_eq!(house.jobs().len(), 510);
}

#[tokio::test]
async fn f56_replication_123_a_file_uploaded_during_the_scan_has_one_job() {
    let house = TestHouse::open().await;
    let pair = without_rules(&house).await;
    for number in 0..600 {
        house.upload(pair.source, &format!("f{number:05}"), b"").await;
    }
    with_existing(&house, &pair).await;
    scan::advance_all(&house.app).await.unwrap();
    house.upload(pair.source, "a-before-the-cursor", b"x").await;
    house.upload(pair.source, "z-after-the-cursor", b"x").await;
    while scan::advance_all(&house.app).await.unwrap() {}
    assert_eq!(house.jobs().len(), 602);
}

#[tokio::test]
async fn replication_119_120_a_daily_scan_picks_up_what_was_uploaded_while_the_rule_slept() {
    let house = TestHouse::open().await;
    let pair = without_rules(&house).await;
    with_existing(&house, &pair).await;
    house.drain().await;
    let mut asleep = rule("rule-one", pair.destination);
    asleep.include_existing_files = true;
    asleep.is_enabled = false;
    house.configure(pair.source, rules(&pair.source_key, vec![asleep])).await.unwrap();
    let version = house.upload(pair.source, "f", b"x").await;
    assert_eq!(house.status(&version), None);
    with_existing(&house, &pair).await;
    house.drain().await;
    assert_eq!(house.status(&version), Some("completed"));
    // A version that lost its job is found by the next daily scan, not before.
    let forgotten = house
        .app
        .catalog
        .write("forget", |tx| Ok(tx.execute("DELETE FROM replication_jobs", &[])?));
    forgotten.await.unwrap();
    assert_eq!(house.settle().await, 0);
    house.clock.advance(until_midnight(&house) - 1);
    assert_eq!(house.settle().await, 0);
    house.clock.advance(1);
    assert_eq!(house.settle().await, 1, "at 00:00 UTC");
    assert_eq!(house.versions(pair.destination).len(), 1, "the replica that is there is adopted");
    house.clock.advance(DAY_MS);
    assert_eq!(house.settle().await, 0, "already replicated");
}

/// Milliseconds to the next 00:00 UTC.
fn until_midnight(house: &TestHouse) -> i64 {
    DAY_MS - house.clock.now().0.rem_euclid(DAY_MS)
}

/// A completed file whose job is taken away: the next daily scan makes it a new one.
async fn forget_jobs(house: &TestHouse) {
    let forget = |tx: &mut dyn Tx| Ok(tx.execute("DELETE FROM replication_jobs", &[])?);
    assert_eq!(house.app.catalog.write("forget", forget).await.unwrap(), 1);
}

#[tokio::test]
async fn replication_119_a_midnight_that_passes_while_the_server_is_stopped_is_made_up_for_once() {
    let mut house = TestHouse::open().await;
    let pair = without_rules(&house).await;
    house.upload(pair.source, "f", b"x").await;
    with_existing(&house, &pair).await;
    house.drain().await;
    forget_jobs(&house).await;
    house.clock.advance(until_midnight(&house) - 1);
    house.crash_and_reopen().await;
    assert_eq!(house.settle().await, 0, "the day has had its scan, a restart is no reason");
    house.clock.advance(3 * DAY_MS / 2);
    house.crash_and_reopen().await;
    assert_eq!(house.settle().await, 1, "two midnights, one scan");
    forget_jobs(&house).await;
    house.crash_and_reopen().await;
    assert_eq!(house.settle().await, 0, "not again on this day");
    house.clock.advance(until_midnight(&house));
    assert_eq!(house.settle().await, 1, "nor is the next one late");
}

#[tokio::test]
async fn replication_119_a_clock_that_was_far_ahead_costs_no_daily_scan_once_it_is_right() {
    let mut house = TestHouse::open().await;
    let pair = without_rules(&house).await;
    house.upload(pair.source, "f", b"x").await;
    with_existing(&house, &pair).await;
    house.drain().await;
    house.clock.jump(365 * DAY_MS);
    house.settle().await;
    house.clock.jump(-365 * DAY_MS);
    house.crash_and_reopen().await;
    forget_jobs(&house).await;
    assert_eq!(house.settle().await, 0);
    house.clock.advance(until_midnight(&house));
    assert_eq!(house.settle().await, 1);
}

#[tokio::test]
async fn f57_replication_97_a_scan_leaves_failed_files_alone() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.configure(pair.destination, ReplicationConfiguration::default()).await.unwrap();
    let version = house.upload(pair.source, "f", b"x").await;
    house.settle().await;
    let repaired = mapping(&pair.source_key, &pair.destination_key);
    house.configure(pair.destination, repaired).await.unwrap();
    with_existing(&house, &pair).await;
    house.drain().await;
    assert_eq!(house.status(&version), Some("failed"));
}

#[tokio::test]
async fn replication_72_73_a_second_destination_makes_a_completed_file_pending_again() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", b"x").await;
    house.drain().await;
    let replica = house.versions(pair.destination).remove(0);
    let (name, id) = (replica.name.as_str().to_owned(), replica.id().to_string());
    crate::operations::files::delete_version(&house.app, &house.caller, &name, &id, false)
        .await
        .unwrap();
    assert_eq!(house.status(&version), Some("completed"), "whatever becomes of the replica");
    let second = house.bucket("second-target").await;
    house.configure(second, mapping(&pair.source_key, &pair.destination_key)).await.unwrap();
    let mut added = rule("rule-two", second);
    added.include_existing_files = true;
    let two = vec![rule("rule-one", pair.destination), added];
    house.configure(pair.source, rules(&pair.source_key, two)).await.unwrap();
    scan::advance_all(&house.app).await.unwrap();
    assert_eq!(house.status(&version), Some("pending"));
    house.drain().await;
    assert_eq!(house.status(&version), Some("completed"));
    assert_eq!(house.versions(second).len(), 1);
}

#[tokio::test]
async fn replication_127_a_scan_pauses_while_its_own_jobs_wait_and_no_others() {
    let house = TestHouse::open().await;
    let pair = without_rules(&house).await;
    house.upload(pair.source, "existing", b"").await;
    let elsewhere = house.bucket("elsewhere").await;
    // Jobs of another bucket first, then jobs of the bucket that is walked.
    for (source, pauses) in [(elsewhere, false), (pair.source, true)] {
        let (destination, now) = (pair.destination, house.app.waits.now());
        let account = house.caller.account();
        let fill = move |tx: &mut dyn Tx| {
            for number in 0..scan::WAITING_MAX {
                let file_number = FileNumber(number + if pauses { scan::WAITING_MAX } else { 0 });
                let job = NewJob {
                    account,
                    source_bucket: source,
                    destination,
                    file_number,
                    file_id: "made by a test",
                    file_name: "made by a test",
                    source_key: "made by a test",
                    rule_name: "made by a test",
                    origin: JobOrigin::Scan,
                    size: 0,
                };
                replication::insert_job(tx, &job, now)?;
            }
            Ok(())
        };
        house.app.catalog.write("fill", fill).await.unwrap();
        with_existing(&house, &pair).await;
        assert_eq!(scan::advance_all(&house.app).await.unwrap(), !pauses);
        house.configure(pair.source, ReplicationConfiguration::default()).await.unwrap();
    }
}
