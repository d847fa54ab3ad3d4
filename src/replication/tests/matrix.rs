//! The fault and condition matrix (replication.md C13, rows F22 to F77 that need no other server)
//! and the crash points P1 to P12. P4 to P7 are about parts and answers of a remote: a destination
//! in this server has neither, its replica and outcome are one transaction.

use crate::blobs::faulty::{Fault as BlobFault, Verb};
use crate::catalog::replication::{self as rows, JobOrigin, Lease};
use crate::catalog::tx::Value;
use crate::clock::Clock as _;
use crate::domain::capability::Capability;
use crate::domain::file::FileInfo;
use crate::domain::ids::KeyId;
use crate::domain::names::FileName;
use crate::domain::replication::{JobState, Reason, ReplicationConfiguration, shown_status};
use crate::domain::time::Millis;
use crate::domain::usage::{CapChange, CapsChange};
use crate::operations::accounts::Operator;
use crate::operations::controls::EngineControls;
use crate::operations::files::{delete_version, hide_file};
use crate::operations::replication_jobs::{RetryQuery, retry_jobs};
use crate::operations::usage::change_caps;
use crate::replication::EngineOptions;
use crate::replication::destination::faulty::Fault;
use crate::testing::{
    DESTINATION_RIGHTS, SOURCE_RIGHTS, TestHouse, mapping, rule, rules, sha1_of, uploads,
};

const FAILED: JobState = JobState::Failed;

#[expect(clippy::unnecessary_wraps, reason = "the shape that jobs have it in")]
fn reason(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test]
async fn replication_51_66_98_100_101_102_an_upload_is_pending_and_then_its_equal_replica_stands() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let body = vec![7_u8; 40_000];
    let source = house.upload(pair.source, "dir/\u{e9} +%\u{1f600}", &body).await;
    assert_eq!(house.status(&source), Some("pending"), "in the answer of the upload itself");
    house.clock.advance(5_000);
    assert!(house.engine.step_once().await.unwrap());
    assert_eq!(house.status(&source), Some("completed"));
    let replicas = house.versions(pair.destination);
    let replica = &replicas[0];
    assert_eq!(replicas.len(), 1);
    assert_eq!(
        (&replica.name, replica.size, replica.sha1, replica.md5),
        (&source.name, source.size, source.sha1, source.md5)
    );
    assert_eq!((&replica.info, &replica.content_type), (&source.info, &source.content_type));
    assert_eq!(replica.upload_at, source.upload_at);
    assert_ne!(replica.id(), source.id());
    assert!(replica.id().to_string().contains(&pair.destination.to_string()));
    assert_eq!(replica.action.as_str(), "upload");
    assert_eq!(house.status(replica), Some("replica"));
    assert!(!house.engine.step_once().await.unwrap(), "nothing is left to do");
}

#[tokio::test]
async fn replication_50_52_54_without_a_matching_rule_there_is_no_status() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let mut prefixed = rule("rule-one", pair.destination);
    prefixed.file_name_prefix = "photos".to_owned();
    let mut disabled = rule("rule-two", pair.destination);
    disabled.is_enabled = false;
    house.configure(pair.source, rules(&pair.source_key, vec![prefixed, disabled])).await.unwrap();
    assert_eq!(house.status(&house.upload(pair.source, "other", b"x").await), None);
    assert_eq!(
        house.status(&house.upload(pair.source, "photos-old/a", b"x").await),
        Some("pending")
    );
    assert_eq!(house.status(&house.upload(pair.destination, "other", b"x").await), None);
}

#[tokio::test]
async fn f22_a_crash_inside_the_settling_transaction_leaves_one_replica() {
    let mut house = TestHouse::open().await;
    let pair = house.pair().await;
    house.upload(pair.source, "f", b"x").await;
    // P2 and P9: a worker of an earlier run holds the job and its transaction never committed.
    claim_by_another(&house).await;
    house.crash_and_reopen().await;
    house.drain().await;
    assert_eq!(house.versions(pair.destination).len(), 1);
    assert_eq!(house.only_job().0, JobState::Done);
}

async fn claim_by_another(house: &TestHouse) -> rows::Job {
    let lane = house.jobs()[0].lane.clone();
    let lease = Lease { owner: "another".to_owned(), until: Millis(i64::MAX) };
    let now = house.app.waits.now();
    let claimed = house
        .app
        .catalog
        .write("claim", move |tx| Ok(rows::claim(tx, &lane, JobOrigin::Upload, now, &lease, 1)?));
    claimed.await.unwrap().remove(0)
}

/// Whether an outcome of a job that `owner` claimed is taken.
async fn settles(house: &TestHouse, job: &rows::Job, owner: &'static str) -> bool {
    let (job, now) = (job.clone(), house.app.waits.now());
    let done = rows::Outcome::Done { dest_file_id: "wrong".to_owned() };
    let settled = house
        .app
        .catalog
        .write("settle", move |tx| Ok(rows::settle(tx, &job, owner, &done, None, now)?));
    settled.await.unwrap()
}

#[tokio::test]
async fn f23_replication_206_a_worker_whose_lease_was_taken_over_writes_nothing() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.upload(pair.source, "f", b"x").await;
    let stale = claim_by_another(&house).await;
    assert!(!house.engine.step_once().await.unwrap(), "taken back");
    assert_eq!((house.jobs()[0].state, house.jobs()[0].crashes), (JobState::Ready, 1));
    assert!(!settles(&house, &stale, "another").await, "nobody holds the lease");
    house.clock.advance(3_000);
    // An heir of the same name, as far as one process can tell another from itself.
    let heir = claim_by_another(&house).await;
    assert!(!settles(&house, &stale, "another").await, "the heir holds it, by a later claim");
    assert!(!settles(&house, &heir, "a third").await, "nor does anybody else hold it");
    assert_eq!(house.jobs()[0].state, JobState::Leased);
    assert!(!house.engine.step_once().await.unwrap(), "taken back from the heir");
    house.clock.advance(5_000);
    assert_eq!(house.settle().await, 1);
    for (job, owner) in [(&stale, "another"), (&heir, "another")] {
        assert!(!settles(&house, job, owner).await, "it is done");
    }
    assert_ne!(house.jobs()[0].dest_file_id.as_deref(), Some("wrong"));
    assert_eq!(house.versions(pair.destination).len(), 1);
}

#[tokio::test]
async fn f24_replication_210_a_job_that_panics_five_times_is_poison_and_others_go_on() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let (other, other_target) =
        (house.bucket("other-source").await, house.bucket("other-target").await);
    let mapped = mapping(&pair.source_key, &pair.destination_key);
    house.configure(other_target, mapped).await.unwrap();
    let to_other = rules(&pair.source_key, vec![rule("rule-other", other_target)]);
    house.configure(other, to_other).await.unwrap();
    house.plan.plan(pair.destination, 5, Fault::Panic);
    let poison = house.upload(pair.source, "poison", b"x").await;
    for crash in 1..=5_u32 {
        let well = house.upload(other, &format!("well{crash}"), b"x").await;
        house.settle().await;
        assert_eq!(house.status(&well), Some("completed"), "beside crash {crash}");
        let job = &house.jobs()[0];
        let state = if crash < 5 { JobState::Ready } else { FAILED };
        assert_eq!((job.state, job.crashes), (state, crash));
        if crash < 5 {
            let wait = job.next_attempt_at.0 - house.app.waits.now().0;
            assert_eq!(wait, 1_000_i64 << crash, "2, 4, 8 ... seconds");
            assert_eq!(house.status(&poison), Some("pending"));
        }
        house.clock.advance(400_000);
    }
    assert_eq!(house.jobs()[0].last_reason, reason("internal_poison"));
    assert_eq!(house.status(&poison), Some("failed"));
    let well = house.upload(pair.source, "well", b"x").await;
    house.settle().await;
    assert_eq!(house.status(&well), Some("completed"), "for the same target");
    assert!(house.versions(pair.destination).iter().all(|one| one.name.as_str() == "well"));
}

#[tokio::test]
async fn f25_a_suspended_process_makes_no_second_replica() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.upload(pair.source, "f", b"x").await;
    house.plan.plan(pair.destination, 1, Fault::Hang);
    let engine = std::sync::Arc::clone(&house.engine);
    let hanging = tokio::spawn(async move { engine.step_once().await });
    while house.plan.calls_for(pair.destination) == 0 {
        tokio::task::yield_now().await;
    }
    // Five minutes pass, far more than the lease.
    house.clock.advance(300_000);
    assert_eq!(house.settle().await, 0, "the attempt is given up, the next one waits");
    assert_eq!((house.jobs()[0].state, house.jobs()[0].attempts), (JobState::Ready, 1));
    house.clock.advance(10_000);
    assert_eq!(house.settle().await, 1);
    let done = house.jobs();
    assert_eq!(done[0].state, JobState::Done);
    house.plan.let_go.notify_one();
    hanging.await.unwrap().unwrap();
    assert_eq!(house.app.metrics.replication_fenced.value(), 1, "it came too late");
    house.drain().await;
    assert_eq!(house.jobs(), done);
    assert_eq!(house.versions(pair.destination).len(), 1);
}

/// A large file on a slow disk. F3 says the same of a slow link.
#[tokio::test]
async fn f3_an_attempt_that_gets_on_is_never_given_up_however_long_it_takes() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let body = vec![7; 3 * 1024 * 1024];
    house.upload(pair.source, "plain", &body).await;
    house.settle().await;
    let reads = house.blob_faults.calls(Verb::Next);
    assert!(reads > 2, "the file is read in pieces");
    let version = house.upload(pair.source, "slow", &body).await;
    for nth in 1..=reads {
        house.blob_faults.plan(Verb::Next, nth, BlobFault::Hang);
    }
    let engine = std::sync::Arc::clone(&house.engine);
    let slow = tokio::spawn(async move { engine.step_once().await });
    for read in 1..=reads {
        house.blob_faults.until_hanging(1).await;
        house.clock.advance(59_000);
        assert!(!house.engine.step_once().await.unwrap(), "nothing else is due");
        assert_eq!(house.jobs()[1].state, JobState::Leased, "read {read}");
        house.blob_faults.release();
    }
    assert!(slow.await.unwrap().unwrap());
    assert_eq!(house.status(&version), Some("completed"));
    assert_eq!((house.jobs()[1].attempts, house.jobs()[1].crashes), (0, 0));
    assert_eq!(house.app.metrics.replication_retries.value(), 0);
}

#[tokio::test]
async fn f2_an_attempt_that_gets_nothing_done_is_given_up_after_a_minute_and_not_before() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", &vec![7; 3 * 1024 * 1024]).await;
    house.blob_faults.plan(Verb::Next, 2, BlobFault::Hang);
    let engine = std::sync::Arc::clone(&house.engine);
    let hanging = tokio::spawn(async move { engine.step_once().await });
    house.blob_faults.until_hanging(1).await;
    house.clock.advance(59_999);
    house.engine.step_once().await.unwrap();
    assert_eq!(house.only_job(), (JobState::Leased, None));
    house.clock.advance(1);
    house.engine.step_once().await.unwrap();
    assert_eq!(house.only_job(), (JobState::Ready, reason("timeout")));
    assert_eq!(house.status(&version), Some("pending"));
    house.drain().await;
    assert_eq!(house.status(&version), Some("completed"));
    house.blob_faults.release();
    hanging.await.unwrap().unwrap();
    assert_eq!(house.versions(pair.destination).len(), 1);
    assert_eq!(house.app.metrics.replication_fenced.value(), 1);
}

#[tokio::test]
async fn f26_replication_82_96_a_deleted_source_key_fails_the_file_for_good() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", b"x").await;
    house.delete_key(&pair.source_key).await;
    house.settle().await;
    assert_eq!(house.only_job(), (FAILED, reason("source_key_deleted")));
    assert_eq!(house.status(&version), Some("failed"));
    house.clock.advance(100_000_000);
    assert_eq!(house.settle().await, 0, "a failed job is not tried again");
    assert!(house.versions(pair.destination).is_empty());
}

#[tokio::test]
async fn f27_replication_83_an_expired_source_key_fails_the_file() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let key = house.key_of(&house.caller.clone(), &SOURCE_RIGHTS, None, None, Some(60)).await.id;
    house
        .configure(pair.source, rules(&key, vec![rule("rule-one", pair.destination)]))
        .await
        .unwrap();
    house.configure(pair.destination, mapping(&key, &pair.destination_key)).await.unwrap();
    let in_time = house.upload(pair.source, "in-time", b"x").await;
    house.clock.advance(59_999);
    house.settle().await;
    assert_eq!(house.status(&in_time), Some("completed"));
    let late = house.upload(pair.source, "late", b"x").await;
    assert_eq!(house.status(&late), Some("pending"));
    house.clock.advance(1);
    house.settle().await;
    assert_eq!(
        (house.jobs()[1].state, house.jobs()[1].last_reason.clone()),
        (FAILED, reason("source_key_expired"))
    );
    assert_eq!(house.status(&late), Some("failed"));
    assert_eq!(house.versions(pair.destination).len(), 1);
}

/// Changes what a stored key may do, which no call can: so that a key that was right when it was
/// configured is wrong when a job runs.
async fn alter_key(house: &TestHouse, key: &KeyId, sql: &'static str, text: String) {
    let id = key.as_str().to_owned();
    let altered = house.app.catalog.write("alter_key", move |tx| {
        Ok(tx.execute(sql, &[Value::Text(&id), Value::Text(&text)])?)
    });
    assert_eq!(altered.await.unwrap(), 1);
}

const CAPABILITIES: &str = "UPDATE keys SET capabilities = ?2 WHERE key_id = ?1";
const BUCKETS: &str = "UPDATE keys SET bucket_ids = ?2 WHERE key_id = ?1";

#[tokio::test]
async fn f28_f34_replication_89_90_91_each_of_the_six_rights_is_needed_and_no_other() {
    for (of_source, rights) in [(true, SOURCE_RIGHTS), (false, DESTINATION_RIGHTS)] {
        for missing in rights {
            let house = TestHouse::open().await;
            let pair = house.pair().await;
            let version = house.upload(pair.source, "f", b"x").await;
            let key = if of_source { &pair.source_key } else { &pair.destination_key };
            // Every right that there is, but one.
            let all = Capability::ALL.iter().map(|right| right.as_str());
            let left: Vec<&str> = all.filter(|right| *right != missing).collect();
            alter_key(&house, key, CAPABILITIES, left.join(",")).await;
            assert_eq!(house.status(&version), Some("pending"));
            house.settle().await;
            let why = if of_source { "source_key_no_right" } else { "dest_key_no_right" };
            assert_eq!(house.only_job(), (FAILED, reason(why)), "without {missing}");
            assert_eq!(house.status(&version), Some("failed"));
            assert!(house.versions(pair.destination).is_empty());
        }
    }
    // The pair's keys have exactly these six, and no deleteFiles.
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", b"x").await;
    house.settle().await;
    assert_eq!(house.status(&version), Some("completed"));
}

#[tokio::test]
async fn f29_replication_92_keys_must_reach_the_bucket() {
    for (of_source, why) in [(true, "source_key_scope"), (false, "dest_key_scope")] {
        let house = TestHouse::open().await;
        let pair = house.pair().await;
        let (key, own) = if of_source {
            (&pair.source_key, pair.source)
        } else {
            (&pair.destination_key, pair.destination)
        };
        let elsewhere = house.bucket("elsewhere").await;
        alter_key(&house, key, BUCKETS, format!("{elsewhere},{own}")).await;
        let inside = house.upload(pair.source, "f", b"x").await;
        house.settle().await;
        assert_eq!(house.status(&inside), Some("completed"));
        let outside = house.upload(pair.source, "g", b"x").await;
        alter_key(&house, key, BUCKETS, elsewhere.to_string()).await;
        house.settle().await;
        assert_eq!(house.jobs()[1].last_reason, reason(why));
        assert_eq!(house.status(&outside), Some("failed"));
        assert_eq!(house.versions(pair.destination).len(), 1);
    }
}

#[tokio::test]
async fn f29_replication_92_keys_must_reach_the_name() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let caller = house.caller.clone();
    let narrow = house.key_of(&caller, &SOURCE_RIGHTS, None, Some("in/"), None).await.id;
    house
        .configure(pair.source, rules(&narrow, vec![rule("rule-one", pair.destination)]))
        .await
        .unwrap();
    house.configure(pair.destination, mapping(&narrow, &pair.destination_key)).await.unwrap();
    house.upload(pair.source, "out/f", b"x").await;
    house.settle().await;
    assert_eq!(house.only_job(), (FAILED, reason("source_key_scope")));
    let inside = house.upload(pair.source, "in/f", b"x").await;
    house.settle().await;
    assert_eq!(house.status(&inside), Some("completed"));
    let narrow_dest = house.key_of(&caller, &DESTINATION_RIGHTS, None, Some("x/"), None).await.id;
    house.configure(pair.destination, mapping(&narrow, &narrow_dest)).await.unwrap();
    house.upload(pair.source, "in/g", b"x").await;
    house.settle().await;
    assert_eq!(house.jobs()[2].last_reason, reason("dest_key_scope"));
    assert_eq!(house.versions(pair.destination).len(), 1);
}

#[tokio::test]
async fn f30_replication_84_85_a_mapping_that_is_taken_away_while_pending_fails_the_file() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let other = house.key(&SOURCE_RIGHTS).await;
    // One entry of two, then the whole side.
    let mut both = mapping(&pair.source_key, &pair.destination_key);
    let entries = both.as_replication_destination.as_mut().unwrap();
    let own = pair.destination_key.as_str().to_owned();
    entries.source_to_destination_key_mapping.insert(other.as_str().to_owned(), own);
    let without_ours = mapping(&other, &pair.destination_key);
    for (at, left) in [without_ours, ReplicationConfiguration::default()].into_iter().enumerate() {
        house.configure(pair.destination, both.clone()).await.unwrap();
        let version = house.upload(pair.source, &format!("f{at}"), b"x").await;
        house.configure(pair.destination, left).await.unwrap();
        assert_eq!(house.status(&version), Some("pending"));
        house.settle().await;
        assert_eq!(house.jobs()[at].last_reason, reason("mapping_missing"));
        assert_eq!(house.status(&version), Some("failed"));
    }
    house.configure(pair.destination, both).await.unwrap();
    house.drain().await;
    assert!(house.versions(pair.destination).is_empty(), "too late, both have failed for good");
}

#[tokio::test]
async fn f31_replication_87_without_any_mapping_a_file_is_pending_and_then_failed() {
    let house = TestHouse::open().await;
    let (source, target) = (house.bucket("source").await, house.bucket("target").await);
    let key = house.key(&SOURCE_RIGHTS).await;
    house.configure(source, rules(&key, vec![rule("rule-one", target)])).await.unwrap();
    let version = house.upload(source, "f", b"x").await;
    assert_eq!(house.status(&version), Some("pending"));
    house.settle().await;
    assert_eq!(house.only_job(), (FAILED, reason("mapping_missing")));
    assert_eq!(house.status(&version), Some("failed"));
    assert!(house.versions(target).is_empty());
}

#[tokio::test]
async fn replication_88_a_mapping_that_comes_within_the_grace_is_waited_for() {
    let options = EngineOptions { mapping_grace_ms: 60_000, ..EngineOptions::default() };
    let house = TestHouse::open_with(options, |_| {}).await;
    let pair = house.pair().await;
    house.configure(pair.destination, ReplicationConfiguration::default()).await.unwrap();
    let version = house.upload(pair.source, "f", b"x").await;
    house.settle().await;
    assert_eq!(house.status(&version), Some("pending"));
    house.clock.advance(30_000);
    let mapped = mapping(&pair.source_key, &pair.destination_key);
    house.configure(pair.destination, mapped).await.unwrap();
    house.drain().await;
    assert_eq!(house.status(&version), Some("completed"));
}

#[tokio::test]
async fn f32_replication_86_the_current_mapping_counts() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", b"x").await;
    let other = house.key(&DESTINATION_RIGHTS).await;
    house.configure(pair.destination, mapping(&pair.source_key, &other)).await.unwrap();
    house.delete_key(&pair.destination_key).await;
    house.settle().await;
    assert_eq!(house.status(&version), Some("completed"));
}

#[tokio::test]
async fn f33_a_deleted_destination_key_fails_the_file() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.upload(pair.source, "f", b"x").await;
    house.delete_key(&pair.destination_key).await;
    house.settle().await;
    assert_eq!(house.only_job(), (FAILED, reason("dest_key_deleted")));
    assert!(house.versions(pair.destination).is_empty());
}

#[tokio::test]
async fn f33_a_destination_key_that_expired_or_is_of_another_account_fails_the_file() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let caller = house.caller.clone();
    let short = house.key_of(&caller, &DESTINATION_RIGHTS, None, None, Some(60)).await.id;
    house.configure(pair.destination, mapping(&pair.source_key, &short)).await.unwrap();
    house.upload(pair.source, "f", b"x").await;
    house.clock.advance(60_000);
    house.settle().await;
    assert_eq!(house.only_job(), (FAILED, reason("dest_key_expired")));
    let other = house.another_account().await;
    house
        .configure(pair.destination, mapping(&pair.source_key, &pair.destination_key))
        .await
        .unwrap();
    house.upload(pair.source, "g", b"x").await;
    let sql = "UPDATE keys SET account_id = ?2 WHERE key_id = ?1";
    alter_key(&house, &pair.destination_key, sql, other.account().to_string()).await;
    house.settle().await;
    assert_eq!(house.jobs()[1].last_reason, reason("dest_key_account"));
    assert!(house.versions(pair.destination).is_empty());
}

#[tokio::test]
async fn f35_f36_f37_f38_replication_78_to_81_a_pending_file_keeps_the_rule_it_began_with() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let other_bucket = house.bucket("other-target").await;
    let other_key = house.key(&SOURCE_RIGHTS).await;
    let mut disabled = rule("rule-one", pair.destination);
    disabled.is_enabled = false;
    let changes = [
        ReplicationConfiguration::default(),
        rules(&pair.source_key, vec![disabled]),
        rules(&pair.source_key, vec![rule("rule-one", other_bucket)]),
        rules(&other_key, vec![rule("rule-one", pair.destination)]),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let original = rules(&pair.source_key, vec![rule("rule-one", pair.destination)]);
        house.configure(pair.source, original).await.unwrap();
        let version = house.upload(pair.source, &format!("f{at}"), b"x").await;
        house.configure(pair.source, change).await.unwrap();
        house.settle().await;
        assert_eq!(house.status(&version), Some("completed"), "change {at}");
        assert_eq!(house.versions(pair.destination).len(), at + 1);
        assert!(house.versions(other_bucket).is_empty(), "only the old destination");
    }
}

#[tokio::test]
async fn f42_replication_94_109_a_deleted_source_cancels_its_job_and_spares_its_replica() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let delete = async |version: &crate::domain::file::FileVersion| {
        let (name, id) = (version.name.as_str().to_owned(), version.id().to_string());
        delete_version(&house.app, &house.caller, &name, &id, false).await.unwrap();
    };
    let pending = house.upload(pair.source, "f", b"x").await;
    delete(&pending).await;
    assert_eq!(house.settle().await, 0);
    assert_eq!(house.only_job(), (JobState::Cancelled, reason("source_deleted")));
    assert_eq!(house.app.metrics.replication_failed.value(), 0);
    let carried = house.upload(pair.source, "g", b"x").await;
    house.settle().await;
    delete(&carried).await;
    house.drain().await;
    assert_eq!(house.versions(pair.destination).len(), 1, "nothing that replicates removes");
}

#[tokio::test]
async fn f44_replication_57_95_hiding_is_not_replicated() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", b"x").await;
    let marker = hide_file(&house.app, &house.caller, &pair.source.to_string(), "f").await.unwrap();
    assert_eq!(house.status(&marker), None);
    house.drain().await;
    assert_eq!(house.status(&version), Some("completed"));
    let there = house.versions(pair.destination);
    assert_eq!(uploads(&there).len(), 1);
    assert_eq!(there.len(), 1, "visible at the destination");
}

#[tokio::test]
async fn f45_replication_93_a_deleted_destination_bucket_fails_the_file() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", b"x").await;
    let id = pair.destination.to_string();
    crate::operations::buckets::delete_bucket(&house.app, &house.caller, &id).await.unwrap();
    house.settle().await;
    assert_eq!(house.only_job(), (FAILED, reason("dest_bucket_missing")));
    assert_eq!(house.status(&version), Some("failed"));
    assert_eq!(house.app.metrics.replication_failed.value(), 1);
}

#[tokio::test]
async fn f47_replication_68_69_70_two_destinations_settle_one_by_one() {
    // Whichever is looked at first: the one that fails, and the one that does not.
    for failing_first in [false, true] {
        let house = TestHouse::open().await;
        let pair = house.pair().await;
        let second = house.bucket("second-target").await;
        house.configure(second, mapping(&pair.source_key, &pair.destination_key)).await.unwrap();
        let two = vec![rule("rule-one", pair.destination), rule("rule-two", second)];
        house.configure(pair.source, rules(&pair.source_key, two)).await.unwrap();
        let version = house.upload(pair.source, "f", b"x").await;
        let mut jobs = house.jobs();
        assert_eq!(jobs.len(), 2, "statement 62");
        jobs.sort_by(|a, b| a.lane.cmp(&b.lane));
        let (fails, works) = if failing_first {
            (jobs[0].of_rule().destination, jobs[1].of_rule().destination)
        } else {
            (jobs[1].of_rule().destination, jobs[0].of_rule().destination)
        };
        house.configure(fails, ReplicationConfiguration::default()).await.unwrap();
        house.engine.step_once().await.unwrap();
        let first = house.jobs().into_iter().find(|job| !job.state.is_unfinished()).unwrap();
        assert_eq!(first.of_rule().destination, if failing_first { fails } else { works });
        assert_eq!(house.status(&version), Some("pending"), "until both are settled");
        house.engine.step_once().await.unwrap();
        assert_eq!(house.status(&version), Some("failed"));
        assert_eq!((house.versions(works).len(), house.versions(fails).len()), (1, 0));
    }
}

#[tokio::test]
async fn f48_replication_63_two_rules_with_one_destination_make_one_job() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let mut higher = rule("rule-high", pair.destination);
    higher.priority = 9;
    let two = vec![rule("rule-low", pair.destination), higher];
    house.configure(pair.source, rules(&pair.source_key, two)).await.unwrap();
    house.upload(pair.source, "f", b"x").await;
    assert_eq!(house.jobs().len(), 1);
    assert_eq!(house.jobs()[0].of_rule().rule_name, "rule-high");
    house.settle().await;
    assert_eq!(house.versions(pair.destination).len(), 1);
}

#[tokio::test]
async fn f50_replication_59_metadata_above_2048_bytes_is_not_replicated_unless_allowed() {
    let info_of = |bytes: usize| {
        let name = FileName::parse("f").unwrap();
        let value = "v".repeat(bytes);
        FileInfo::from_headers([("n", value.as_bytes())].into_iter(), &name).unwrap()
    };
    // Header names and values: X-Bz-File-Name f, Content-Type text/plain, X-Bz-Content-Sha1 and
    // 40 digits, X-Bz-Info-n and the value.
    let rest = "X-Bz-File-Namef".len()
        + "Content-Typetext/plain".len()
        + "X-Bz-Content-Sha1".len()
        + 40
        + "X-Bz-Info-n".len();
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let fits = house.try_upload(pair.source, "f", b"x", info_of(2048 - rest)).await.unwrap();
    assert_eq!(house.status(&fits), Some("pending"));
    let large = house.try_upload(pair.source, "f", b"x", info_of(2049 - rest)).await.unwrap();
    assert_eq!(house.status(&large), None);
    assert_eq!(house.app.metrics.replication_skipped_large_metadata.value(), 1);
    let lenient = TestHouse::open_with(EngineOptions::default(), |config| {
        config.replication.large_metadata = crate::testing::LargeMetadata::Copy;
    })
    .await;
    let pair = lenient.pair().await;
    let large = lenient.try_upload(pair.source, "f", b"x", info_of(2049 - rest)).await.unwrap();
    assert_eq!(lenient.status(&large), Some("pending"));
}

/// Two buckets that replicate into each other.
async fn two_way(
    house: &TestHouse,
) -> (crate::domain::ids::BucketId, crate::domain::ids::BucketId) {
    let (west, east) = (house.bucket("west-bucket").await, house.bucket("east-bucket").await);
    let reader = house.key(&SOURCE_RIGHTS).await;
    let writer = house.key(&DESTINATION_RIGHTS).await;
    for (here, there) in [(west, east), (east, west)] {
        let mut both = mapping(&reader, &writer);
        both.as_replication_source =
            rules(&reader, vec![rule("rule-two-way", there)]).as_replication_source;
        house.configure(here, both).await.unwrap();
    }
    (west, east)
}

#[tokio::test]
async fn f51_f52_replication_74_75_128_130_two_way_replication_agrees_and_never_loops() {
    let house = TestHouse::open().await;
    let (west, east) = two_way(&house).await;
    // The clock stands still, so both are uploaded in the same millisecond.
    house.upload(west, "same", b"from the west").await;
    house.upload(east, "same", b"from the east").await;
    house.settle().await;
    house.drain().await;
    let (in_west, in_east) = (house.versions(west), house.versions(east));
    assert_eq!((in_west.len(), in_east.len()), (2, 2));
    assert_eq!(sha1_of(&in_west[0]), sha1_of(&in_east[0]), "the same version is visible");
    assert_eq!(sha1_of(&in_west[1]), sha1_of(&in_east[1]));
    for _ in 0..100 {
        assert!(!house.engine.step_once().await.unwrap(), "nothing goes round");
        house.clock.advance(3_600_000);
    }
    assert_eq!(house.jobs().len(), 2, "a replica is never a source");
    for bucket in [west, east] {
        let statuses = house.versions(bucket).into_iter().map(|one| house.status(&one).unwrap());
        let mut statuses: Vec<_> = statuses.collect();
        statuses.sort_unstable();
        assert_eq!(statuses, ["completed", "replica"]);
    }
}

#[tokio::test]
async fn f51_replication_75_a_replica_is_no_source_for_uploads_rules_nor_for_scans() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let next = house.bucket("next-target").await;
    house.configure(next, mapping(&pair.source_key, &pair.destination_key)).await.unwrap();
    let mut onward = rule("rule-onward", next);
    onward.include_existing_files = true;
    let mut middle = mapping(&pair.source_key, &pair.destination_key);
    middle.as_replication_source = rules(&pair.source_key, vec![onward]).as_replication_source;
    house.upload(pair.source, "before", b"x").await;
    house.drain().await;
    house.configure(pair.destination, middle).await.unwrap();
    house.upload(pair.source, "after", b"x").await;
    let born_here = house.upload(pair.destination, "born-here", b"x").await;
    house.drain().await;
    house.clock.advance(24 * 3_600_000);
    house.drain().await;
    assert_eq!(house.status(&born_here), Some("completed"));
    let there = house.versions(next);
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].name.as_str(), "born-here");
    let replicas = house.versions(pair.destination);
    assert_eq!(replicas.iter().filter(|one| house.status(one) == Some("replica")).count(), 2);
}

#[tokio::test]
async fn replication_129_131_132_order_follows_the_time_of_the_upload_not_of_the_copy() {
    let house = TestHouse::open().await;
    let (west, east) = two_way(&house).await;
    house.upload(west, "f", b"old").await;
    house.clock.advance(10);
    let newer = house.upload(east, "f", b"new").await;
    house.clock.advance(10);
    house.upload(east, "hidden", b"x").await;
    house.drain().await;
    assert_eq!(sha1_of(&house.versions(east)[0]), sha1_of(&newer), "the late old one stays below");
    assert_eq!(sha1_of(&house.versions(west)[0]), sha1_of(&newer));
    house.upload(west, "g", b"old").await;
    house.clock.advance(10);
    house.upload(east, "g", b"x").await;
    hide_file(&house.app, &house.caller, &east.to_string(), "g").await.unwrap();
    house.drain().await;
    let g: Vec<_> = house.versions(east).into_iter().filter(|v| v.name.as_str() == "g").collect();
    assert_eq!(g[0].action.as_str(), "hide", "an older replica stays hidden");
    assert_eq!(g.len(), 3);
}

#[tokio::test]
async fn replication_134_a_chain_carries_only_what_was_born_in_each_link() {
    let house = TestHouse::open().await;
    let [a, b, c] = [
        house.bucket("chain-a").await,
        house.bucket("chain-b").await,
        house.bucket("chain-c").await,
    ];
    let (reader, writer) = (house.key(&SOURCE_RIGHTS).await, house.key(&DESTINATION_RIGHTS).await);
    house.configure(c, mapping(&reader, &writer)).await.unwrap();
    let mut middle = mapping(&reader, &writer);
    middle.as_replication_source = rules(&reader, vec![rule("rule-b-c", c)]).as_replication_source;
    house.configure(b, middle).await.unwrap();
    house.configure(a, rules(&reader, vec![rule("rule-a-b", b)])).await.unwrap();
    house.upload(a, "f", b"x").await;
    house.drain().await;
    assert_eq!((house.versions(b).len(), house.versions(c).len()), (1, 0));
}

#[tokio::test]
async fn f57_f58_replication_77_97_an_operator_can_retry_what_failed() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.configure(pair.destination, ReplicationConfiguration::default()).await.unwrap();
    let version = house.upload(pair.source, "f", b"x").await;
    house.settle().await;
    let repaired = mapping(&pair.source_key, &pair.destination_key);
    house.configure(pair.destination, repaired).await.unwrap();
    house.drain().await;
    assert_eq!(house.status(&version), Some("failed"), "stays failed until somebody says so");
    let operator = Operator::of_data_folder();
    assert_eq!(retry_jobs(&house.app, &operator, RetryQuery::default()).await.unwrap(), 1);
    assert_eq!(house.status(&version), Some("pending"));
    house.settle().await;
    assert_eq!(house.status(&version), Some("completed"));
}

#[tokio::test]
async fn f58_a_retry_goes_by_the_source_key_and_the_rule_that_the_bucket_has_now() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let version = house.upload(pair.source, "f", b"x").await;
    house.delete_key(&pair.source_key).await;
    house.settle().await;
    assert_eq!(house.only_job(), (FAILED, reason("source_key_deleted")));
    let retry = async || {
        let operator = Operator::of_data_folder();
        assert_eq!(retry_jobs(&house.app, &operator, RetryQuery::default()).await.unwrap(), 1);
        house.settle().await;
    };
    retry().await;
    assert_eq!(house.only_job(), (FAILED, reason("source_key_deleted")), "nothing was mended");

    // A new key, but without any rule that leads there: the job keeps the old one.
    let fresh = house.key(&SOURCE_RIGHTS).await;
    let elsewhere = house.bucket("elsewhere").await;
    house.configure(pair.destination, mapping(&fresh, &pair.destination_key)).await.unwrap();
    let leads_elsewhere = rules(&fresh, vec![rule("rule-one", elsewhere)]);
    house.configure(pair.source, leads_elsewhere).await.unwrap();
    retry().await;
    assert_eq!(house.only_job(), (FAILED, reason("source_key_deleted")));

    let renamed = rules(&fresh, vec![rule("rule-renamed", pair.destination)]);
    house.configure(pair.source, renamed).await.unwrap();
    house.drain().await;
    assert_eq!(house.status(&version), Some("failed"), "nobody asked yet");
    retry().await;
    assert_eq!(house.status(&version), Some("completed"));
    let job = house.jobs().remove(0);
    assert_eq!(
        (&job.of_rule().source_key, job.of_rule().rule_name.as_str()),
        (&fresh, "rule-renamed")
    );
    assert_eq!(house.versions(pair.destination).len(), 1);
    assert!(house.versions(elsewhere).is_empty());
}

#[tokio::test]
async fn f66_replication_211_damaged_bytes_are_never_shown_at_the_destination() {
    for size in [100, 40_000] {
        let house = TestHouse::open().await;
        let pair = house.pair().await;
        let version = house.upload(pair.source, "f", &vec![9_u8; size]).await;
        damage(&house, &version).await;
        house.settle().await;
        assert_eq!(house.only_job(), (FAILED, reason("source_corrupt")), "{size} bytes");
        assert!(house.versions(pair.destination).is_empty());
    }
}

/// Flips a bit of a version's bytes where they are kept.
async fn damage(house: &TestHouse, version: &crate::domain::file::FileVersion) {
    let blob = version.blob.unwrap();
    let name = blob.to_string();
    let mut folders = vec![house.data_dir().join("blobs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|file| file.to_string_lossy() == name) {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[10] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                return;
            }
        }
    }
    let damaged = house.app.catalog.write("damage", move |tx| {
        let id = Value::Int(blob.0);
        Ok(tx.execute(
            "UPDATE blob_data SET data = zeroblob(length(data)) WHERE blob_id = ?1",
            &[id],
        )?)
    });
    assert_eq!(damaged.await.unwrap(), 1);
}

#[tokio::test]
async fn f68_replication_71_a_passing_trouble_is_retried_and_never_fails_the_file() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.plan.plan(pair.destination, 12, Fault::Fail(Reason::IoError));
    let version = house.upload(pair.source, "f", b"x").await;
    for attempt in 1..=12_u32 {
        house.settle().await;
        let job = &house.jobs()[0];
        assert_eq!((job.state, job.attempts), (JobState::Ready, attempt));
        let wait = job.next_attempt_at.0 - house.app.waits.now().0;
        let longest = (500_i64 << (attempt - 1)).min(900_000);
        assert!((longest / 2..=longest).contains(&wait), "attempt {attempt} waits {wait} ms");
        assert_eq!(house.status(&version), Some("pending"));
        house.clock.advance(wait);
    }
    house.settle().await;
    assert_eq!(house.status(&version), Some("completed"));
}

#[tokio::test]
async fn f69_a_full_disk_fails_the_upload_as_a_whole() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    for verb in [Verb::Begin, Verb::Write, Verb::Finish] {
        house.blob_faults.plan(verb, 1, BlobFault::Full);
        let refused = house.try_upload(pair.source, "f", b"x", FileInfo::default()).await;
        let text = format!("{:?}", refused.unwrap_err());
        assert!(text.contains("may_retry: true"), "{verb:?}: {text}");
    }
    assert!(house.versions(pair.source).is_empty() && house.jobs().is_empty());
    house.upload(pair.source, "f", b"x").await;
}

#[tokio::test]
async fn f70_replication_217_a_clock_that_jumps_expires_no_live_lease() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    house.upload(pair.source, "f", b"x").await;
    house.plan.plan(pair.destination, 1, Fault::Hang);
    let engine = std::sync::Arc::clone(&house.engine);
    let hanging = tokio::spawn(async move { engine.step_once().await });
    while house.plan.calls_for(pair.destination) == 0 {
        tokio::task::yield_now().await;
    }
    for jump in [24 * 3_600_000, -25 * 3_600_000] {
        house.clock.jump(jump);
        assert_eq!(house.settle().await, 0);
        assert_eq!(house.jobs()[0].state, JobState::Leased);
        assert_eq!(house.jobs()[0].crashes, 0);
    }
    house.plan.let_go.notify_one();
    assert!(hanging.await.unwrap().unwrap());
    assert_eq!(house.versions(pair.destination).len(), 1);
}

#[tokio::test]
async fn f70_a_clock_that_jumps_neither_holds_up_retries_nor_hurries_them() {
    for jump in [-25 * 3_600_000, 24 * 3_600_000] {
        let house = TestHouse::open().await;
        let pair = house.pair().await;
        house.plan.plan(pair.destination, 3, Fault::Fail(Reason::IoError));
        house.upload(pair.source, "f", b"x").await;
        for attempt in 1..=3_u32 {
            assert_eq!(house.settle().await, 1, "attempt {attempt}");
            house.clock.jump(jump);
            assert_eq!(house.settle().await, 0, "jumped by {jump}, not before its time");
            let wait = house.jobs()[0].next_attempt_at.0 - house.app.waits.now().0;
            house.clock.advance(wait - 1);
            assert_eq!(house.settle().await, 0, "jumped by {jump}, a millisecond too early");
            house.clock.advance(1);
        }
        let fresh = house.upload(pair.source, "g", b"x").await;
        assert_eq!(house.settle().await, 2, "what is uploaded after a jump is due at once");
        assert_eq!(house.status(&fresh), Some("completed"));
    }
}

#[tokio::test]
async fn f70_a_clock_that_went_back_while_the_server_was_stopped_holds_up_nothing() {
    let mut house = TestHouse::open().await;
    let pair = house.pair().await;
    house.plan.plan(pair.destination, 20, Fault::Fail(Reason::Timeout));
    for number in 0..7 {
        house.upload(pair.source, &format!("f{number}"), b"x").await;
    }
    assert_eq!(house.settle().await, 5, "the breaker opens");
    house.clock.jump(-365 * 24 * 3_600_000);
    house.crash_and_reopen().await;
    assert_eq!(house.settle().await, 0);
    house.clock.advance(900_000);
    assert_eq!(house.settle().await, 1, "no wait is longer than 15 minutes, half open as before");
    house.clock.jump(365 * 24 * 3_600_000);
    house.crash_and_reopen().await;
    assert!(house.settle().await >= 1, "a year passed, as far as anybody can tell");
}

#[tokio::test]
async fn f70_replication_88_a_jump_of_the_clock_does_not_end_the_grace_of_a_mapping() {
    let options = EngineOptions { mapping_grace_ms: 60_000, ..EngineOptions::default() };
    let house = TestHouse::open_with(options, |_| {}).await;
    let pair = house.pair().await;
    house.configure(pair.destination, ReplicationConfiguration::default()).await.unwrap();
    let version = house.upload(pair.source, "f", b"x").await;
    house.clock.jump(24 * 3_600_000);
    house.settle().await;
    assert_eq!(house.status(&version), Some("pending"));
    house.clock.jump(-25 * 3_600_000);
    house.clock.advance(61_000);
    house.settle().await;
    assert_eq!(house.only_job(), (FAILED, reason("mapping_missing")), "nor does it go on");
}

#[tokio::test]
async fn f71_replication_198_a_target_that_hangs_is_given_up_while_another_goes_on() {
    let house = TestHouse::open().await;
    let dead = house.pair().await;
    let well = house.bucket("well-target").await;
    let well_source = house.bucket("well-source").await;
    house.configure(well, mapping(&dead.source_key, &dead.destination_key)).await.unwrap();
    house
        .configure(well_source, rules(&dead.source_key, vec![rule("rule-well", well)]))
        .await
        .unwrap();
    house.plan.plan(dead.destination, 1000, Fault::Hang);
    for number in 0..20 {
        house.upload(dead.source, &format!("d{number}"), b"x").await;
        house.upload(well_source, &format!("w{number}"), b"x").await;
    }
    let running = tokio::spawn(std::sync::Arc::clone(&house.engine).run());
    wait_until(|| house.versions(well).len() == 20).await;
    assert!(house.versions(dead.destination).is_empty());
    assert!(house.plan.calls_for(dead.destination) <= 4, "the limit of one target");
    // After a minute of nothing the attempts are given up, and after five failures the breaker
    // keeps the rest from burning attempts.
    for _ in 0..10 {
        house.clock.advance(61_000);
        EngineControls::look(&*house.engine);
        tokio::task::yield_now().await;
    }
    wait_until(|| house.jobs().iter().any(|job| job.last_reason == reason("timeout"))).await;
    house.engine.stop(std::time::Duration::ZERO).await;
    running.await.unwrap();
}

async fn wait_until(holds: impl Fn() -> bool) {
    let all = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), all).await.expect("in time");
}

#[tokio::test]
async fn f75_replication_203_204_a_restart_at_any_step_leaves_each_version_with_one_replica() {
    let mut house = TestHouse::open().await;
    let pair = house.pair().await;
    for round in 0..50 {
        house.upload(pair.source, &format!("f{round}"), b"x").await;
        match round % 4 {
            0 => claim_first_ready(&house).await,
            1 => drop(house.engine.step_once().await.unwrap()),
            2 => crash_while_carrying(&house, pair.destination).await,
            _ => {}
        }
        house.crash_and_reopen().await;
        house.clock.advance(3_000);
        let there = house.versions(pair.destination);
        let jobs = house.jobs();
        let done = jobs.iter().filter(|job| job.state == JobState::Done).count();
        assert_eq!(there.len(), done, "round {round}: a replica for each outcome");
        for version in house.versions(pair.source) {
            let states = jobs.iter().filter(|job| job.file_number == version.number);
            assert_eq!(version.replication, shown_status(false, states.map(|job| job.state)));
        }
    }
    house.drain().await;
    let mut names: Vec<_> =
        house.versions(pair.destination).iter().map(|v| v.name.as_str().to_owned()).collect();
    assert_eq!(names.len(), 50);
    names.dedup();
    assert_eq!(names.len(), 50, "none twice");
    assert!(house.jobs().iter().all(|job| job.state == JobState::Done));
}

/// The process dies while a job's bytes are looked at.
async fn crash_while_carrying(house: &TestHouse, destination: crate::domain::ids::BucketId) {
    let calls = house.plan.calls_for(destination);
    house.plan.plan(destination, 1, Fault::Hang);
    let engine = std::sync::Arc::clone(&house.engine);
    let step = tokio::spawn(async move { engine.step_once().await });
    wait_until(|| step.is_finished() || house.plan.calls_for(destination) > calls).await;
    step.abort();
    drop(step.await);
}

async fn claim_first_ready(house: &TestHouse) {
    let Some(job) = house.jobs().into_iter().find(|job| job.state == JobState::Ready) else {
        return;
    };
    let lease = Lease { owner: "another".to_owned(), until: Millis(i64::MAX) };
    let now = house.app.waits.now();
    let claimed = house.app.catalog.write("claim", move |tx| {
        Ok(rows::claim(tx, &job.lane, JobOrigin::Upload, now, &lease, 1)?)
    });
    claimed.await.unwrap();
}

#[tokio::test]
async fn f77_replication_113_sizes_and_names_at_the_edges_are_carried() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let inline = 16_384;
    for size in [0, 1, inline, inline + 1, 3_000_000] {
        let version = house.upload(pair.source, &format!("s{size}"), &vec![3_u8; size]).await;
        house.settle().await;
        assert_eq!(house.status(&version), Some("completed"), "{size} bytes");
    }
    let segment = "n".repeat(250);
    let longest = format!("{segment}/{segment}/{segment}/{segment}/{}", "m".repeat(20));
    assert_eq!(longest.len(), 1024);
    let version = house.upload(pair.source, &longest, b"x").await;
    house.settle().await;
    assert_eq!(house.status(&version), Some("completed"));
    let (here, there) = (house.versions(pair.source), house.versions(pair.destination));
    assert_eq!(here.len(), there.len());
    assert!(
        here.iter()
            .zip(&there)
            .all(|(a, b)| a.name == b.name && a.size == b.size && a.sha1 == b.sha1)
    );
}

#[tokio::test]
async fn replication_36_39_40_41_44_45_configuration_is_checked_against_what_exists() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let other = house.another_account().await;
    let foreign = house.bucket_of(&other, "foreign-bucket").await;
    let accepted = rules(&pair.source_key, vec![rule("rule-one", foreign)]);
    assert!(house.configure(pair.source, accepted).await.is_ok(), "a bucket of another account");
    let refusal =
        async |wanted| format!("{:?}", house.configure(pair.source, wanted).await.unwrap_err());
    let foreign_key = house.key_of(&other, &SOURCE_RIGHTS, None, None, None).await.id;
    let deleted = house.key(&SOURCE_RIGHTS).await;
    house.delete_key(&deleted).await;
    let elsewhere = house.bucket("else-where").await;
    let caller = house.caller.clone();
    let bound = house.key_of(&caller, &SOURCE_RIGHTS, Some(&[elsewhere]), None, None).await.id;
    let no_read = house.key(&["listBuckets"]).await;
    let unknown = KeyId::named("000000000000000000000000f");
    let mut texts = Vec::new();
    for key in [&foreign_key, &deleted, &bound, &no_read, &unknown] {
        texts.push(refusal(rules(key, vec![rule("rule-one", pair.destination)])).await);
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "byte for byte the same: {texts:?}");
    let mut dest_texts = Vec::new();
    for key in [&foreign_key, &deleted, &no_read, &unknown] {
        dest_texts.push(refusal(mapping(&pair.source_key, key)).await);
    }
    assert!(dest_texts.iter().all(|text| *text == dest_texts[0] && *text != texts[0]));
    assert!(
        house.configure(pair.destination, mapping(&deleted, &pair.destination_key)).await.is_ok(),
        "a source key in a mapping is not checked (43)"
    );
    let nowhere = crate::domain::ids::BucketId::from_bytes([9; 12]);
    let text = refusal(rules(&pair.source_key, vec![rule("rule-one", nowhere)])).await;
    assert!(text.contains(&format!("Invalid bucketId: {nowhere}")), "{text}");
}

#[tokio::test]
async fn f14_native_398_a_replica_waits_for_room_below_the_storage_cap() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let cap = async |bytes| {
        let change = CapsChange { storage_bytes: CapChange::Set(bytes), ..CapsChange::default() };
        let operator = Operator::of_data_folder();
        change_caps(&house.app, &operator, house.caller.account(), change).await.unwrap();
    };
    cap(150).await;
    let source = house.upload(pair.source, "f", &[7; 100]).await;
    assert!(house.engine.step_once().await.unwrap());
    assert_eq!(house.only_job(), (JobState::Ready, reason("dest_cap_exceeded")));
    assert_eq!(house.status(&source), Some("pending"), "caps get raised");
    assert!(house.versions(pair.destination).is_empty());
    cap(200).await;
    house.clock.advance(299_999);
    assert!(!house.engine.step_once().await.unwrap(), "five minutes at least");
    house.clock.advance(1);
    assert!(house.engine.step_once().await.unwrap());
    assert_eq!(house.status(&source), Some("completed"));
    house.assert_booked_right("a replica counts as a whole copy");
    let stored = house.try_upload(pair.source, "g", b"x", FileInfo::default()).await;
    assert!(stored.is_err(), "source and replica fill the cap");
}
