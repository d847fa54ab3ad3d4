//! What encryption does to replication.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::blobs::faulty::{Fault, Verb};
use crate::catalog::blob_refs::{self, StoredBlob};
use crate::clock::Clock;
use crate::domain::blob::Seal;
use crate::domain::encryption::{AskedDefault, AskedEncryption, CustomerKey, Encryption};
use crate::domain::file::FileVersion;
use crate::domain::ids::BucketId;
use crate::domain::range::ByteRange;
use crate::domain::replication::JobState;
use crate::operations::buckets::{BucketChange, update_bucket};
use crate::operations::download::read_through;
use crate::operations::error::Error;
use crate::replication::destination::faulty::Fault as Carry;
use crate::testing::{TestHouse, rule, rules};

fn customer() -> AskedEncryption {
    AskedEncryption::Customer(CustomerKey::for_tests([5; 32]))
}

async fn encrypt_by_default(house: &TestHouse, bucket: BucketId) {
    let change =
        BucketChange { encryption: Some(AskedDefault::Managed), ..BucketChange::default() };
    update_bucket(&house.app, &house.caller, &bucket.to_string(), change).await.unwrap();
}

fn blob_of(house: &TestHouse, version: &FileVersion) -> StoredBlob {
    let id = version.blob.unwrap();
    house.app.catalog.read(|tx| Ok(blob_refs::find_blob(tx, id)?)).unwrap().unwrap()
}

async fn content(house: &TestHouse, version: &FileVersion) -> Vec<u8> {
    let (blob, mut all) = (blob_of(house, version), Vec::new());
    let whole = ByteRange::whole(version.size);
    read_through(&house.app, &blob, whole, None, &mut |chunk| all.extend_from_slice(chunk))
        .await
        .unwrap();
    all
}

#[tokio::test]
async fn f49_native_392_replication_58_sse_c_is_not_replicated_and_counted() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let source = house.upload_encrypted(pair.source, "f", b"x", customer()).await.unwrap();
    assert_eq!(house.status(&source), None);
    assert_eq!(house.app.metrics.replication_skipped_customer_key.value(), 1);
    house.settle().await;
    assert!(house.jobs().is_empty() && house.versions(pair.destination).is_empty());
    // Nor are files that were there before the rule.
    let (early, late) = (house.bucket("early-source").await, house.bucket("late-target").await);
    let source = house.upload_encrypted(early, "f", b"x", customer()).await.unwrap();
    let mut existing = rule("rule-existing", late);
    existing.include_existing_files = true;
    house.configure(early, rules(&pair.source_key, vec![existing])).await.unwrap();
    house.settle().await;
    assert_eq!(house.status(&source), None);
    assert!(house.jobs().is_empty());
}

#[tokio::test]
async fn replication_108_a_replica_is_encrypted_as_its_source_or_as_its_bucket() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let bodies = [Vec::new(), vec![1; 300], vec![2; 20_000], vec![3; 600_000]];
    for into_sealed in [false, true] {
        if into_sealed {
            encrypt_by_default(&house, pair.destination).await;
        }
        for (at, body) in bodies.iter().enumerate() {
            for asked in [AskedEncryption::Default, AskedEncryption::Managed] {
                let name = format!("{into_sealed}-{at}");
                let uploaded = house.upload_encrypted(pair.source, &name, body, asked.clone());
                let source = uploaded.await.unwrap();
                house.settle().await;
                assert_eq!(house.status(&source), Some("completed"));
                let there = house.versions(pair.destination);
                let replica = there.iter().find(|one| one.origin == source.number).unwrap();
                let managed = into_sealed || asked == AskedEncryption::Managed;
                let wanted = if managed { Encryption::Managed } else { Encryption::None };
                assert_eq!(replica.encryption, wanted, "{name}, {asked:?}");
                let same = replica.blob == source.blob;
                let anew = into_sealed && asked == AskedEncryption::Default;
                assert_eq!(same, !anew, "bytes are shared where they can be");
                let sealed = matches!(blob_of(&house, replica).seal, Seal::Managed { .. });
                assert_eq!(sealed, managed);
                assert_eq!((replica.sha1, replica.md5), (source.sha1, source.md5));
                assert!(content(&house, replica).await == *body, "{name}, {asked:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_replica_that_cannot_be_sealed_leaves_nothing_and_is_tried_again() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    encrypt_by_default(&house, pair.destination).await;
    let body = vec![7; 600_000];
    let source = house.upload(pair.source, "f", &body).await;
    for verb in [Verb::Begin, Verb::Write, Verb::Digests, Verb::Finish, Verb::Next] {
        house.blob_faults.plan(verb, 1, Fault::Io);
        house.settle().await;
        assert_eq!(house.only_job().0, JobState::Ready, "{verb:?}");
        assert_eq!(house.app.blobs.list(None, 10).await.unwrap(), [source.blob.unwrap()]);
        house.clock.advance(1_000_000);
    }
    house.drain().await;
    assert_eq!(house.status(&source), Some("completed"));
    let replica = &house.versions(pair.destination)[0];
    assert!(content(&house, replica).await == body);
    // Damage of the source is not sealed in.
    let damaged = house.upload(pair.source, "damaged", &body).await;
    house.blob_faults.plan(Verb::Next, 2, Fault::Short);
    house.settle().await;
    assert_eq!(house.status(&damaged), Some("failed"));
    assert_eq!(house.versions(pair.destination).len(), 1);
}

/// Starts a step and waits until its job hangs at the destination.
async fn hang(house: &TestHouse, destination: BucketId) -> JoinHandle<Result<bool, Error>> {
    let calls = house.plan.calls_for(destination);
    house.plan.plan(destination, 1, Carry::Hang);
    let engine = Arc::clone(&house.engine);
    let step = tokio::spawn(async move { engine.step_once().await });
    while house.plan.calls_for(destination) == calls {
        tokio::task::yield_now().await;
    }
    step
}

#[tokio::test]
async fn replication_108_the_default_of_the_moment_in_which_the_replica_is_shown_is_what_counts() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let set = async |asked: AskedDefault| {
        let change = BucketChange { encryption: Some(asked), ..BucketChange::default() };
        let bucket = pair.destination.to_string();
        update_bucket(&house.app, &house.caller, &bucket, change).await.unwrap();
    };
    for (name, size, from, to, wanted) in [
        ("on", 20_000, AskedDefault::OfServer, AskedDefault::Managed, Encryption::Managed),
        ("off", 20_000, AskedDefault::Managed, AskedDefault::OfServer, Encryption::None),
        ("small", 10, AskedDefault::OfServer, AskedDefault::Managed, Encryption::Managed),
    ] {
        set(from).await;
        let body = vec![7; size];
        let source = house.upload(pair.source, name, &body).await;
        let step = hang(&house, pair.destination).await;
        set(to).await;
        house.plan.let_go.notify_one();
        assert!(step.await.unwrap().unwrap());
        let job = house.jobs().pop().unwrap();
        assert_eq!(job.last_reason.as_deref(), Some("dest_encryption_changed"), "{name}");
        assert_eq!((job.state, house.status(&source)), (JobState::Ready, Some("pending")));
        let shown = || house.versions(pair.destination);
        assert!(shown().iter().all(|one| one.origin != source.number), "{name}");
        house.clock.advance(1_000_000);
        house.settle().await;
        assert_eq!(house.status(&source), Some("completed"), "{name}");
        let shown = shown();
        let replica = shown.iter().find(|one| one.origin == source.number).unwrap();
        assert_eq!(replica.encryption, wanted, "{name}");
        let sealed = matches!(blob_of(&house, replica).seal, Seal::Managed { .. });
        assert_eq!(sealed, wanted == Encryption::Managed, "{name}");
        assert!(content(&house, replica).await == body);
    }
    // What was written for the attempts that came to nothing is gone.
    assert_eq!(house.app.blobs.list(None, 10).await.unwrap().len(), 3);
    assert_eq!(house.sweep_orphans().await, 0);
}

#[tokio::test]
async fn replication_108_a_file_that_is_encrypted_itself_minds_no_change_of_the_default() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    let body = vec![7; 20_000];
    let uploaded = house.upload_encrypted(pair.source, "f", &body, AskedEncryption::Managed);
    let source = uploaded.await.unwrap();
    let step = hang(&house, pair.destination).await;
    encrypt_by_default(&house, pair.destination).await;
    house.plan.let_go.notify_one();
    assert!(step.await.unwrap().unwrap());
    assert_eq!(house.status(&source), Some("completed"));
    assert_eq!(house.versions(pair.destination)[0].blob, source.blob);
}

#[tokio::test]
async fn a_replica_is_not_sealed_over_content_that_is_not_its_sources() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    encrypt_by_default(&house, pair.destination).await;
    for (size, fault) in [(600_000, Fault::FlippedBit), (20_000, Fault::FlippedBit)] {
        let source = house.upload(pair.source, "f", &vec![7; size]).await;
        // As if the checks of blocks had missed it.
        house.blob_faults.plan(Verb::Next, 1, fault);
        house.settle().await;
        assert_eq!(house.status(&source), Some("failed"), "{size}");
        let job = house.jobs().pop().unwrap();
        assert_eq!(job.last_reason.as_deref(), Some("source_corrupt"), "{size}");
    }
    assert!(house.versions(pair.destination).is_empty());
    assert_eq!(house.app.blobs.list(None, 10).await.unwrap().len(), 2, "the sources");
}

#[tokio::test]
async fn an_attempt_at_sealing_that_is_given_up_leaves_its_bytes_to_the_sweep() {
    let house = TestHouse::open().await;
    let pair = house.pair().await;
    encrypt_by_default(&house, pair.destination).await;
    let body = vec![7; 600_000];
    let source = house.upload(pair.source, "f", &body).await;
    let stored = async || house.app.blobs.list(None, 10).await.unwrap();
    house.blob_faults.plan(Verb::Finish, 1, Fault::HangAfter);
    let engine = Arc::clone(&house.engine);
    let step = tokio::spawn(async move { engine.step_once().await });
    house.blob_faults.until_hanging(1).await;
    assert_eq!(stored().await.len(), 2, "the replica's bytes are durable, and nothing shows them");
    // The process is stopped in the midst of it: nothing of the attempt goes on.
    step.abort();
    assert!(step.await.unwrap_err().is_cancelled());
    assert_eq!(stored().await.len(), 2);
    house.sweep_freed().await;
    assert_eq!(stored().await, [source.blob.unwrap()]);
    house.drain().await;
    assert_eq!(house.status(&source), Some("completed"));
    let replica = &house.versions(pair.destination)[0];
    assert!(content(&house, replica).await == body);
}

#[tokio::test]
async fn a_crash_amid_sealing_leaves_its_bytes_to_the_next_start() {
    let mut house = TestHouse::open().await;
    let pair = house.pair().await;
    encrypt_by_default(&house, pair.destination).await;
    let source = house.upload(pair.source, "f", &vec![7; 600_000]).await;
    house.blob_faults.plan(Verb::Finish, 1, Fault::HangAfter);
    let engine = Arc::clone(&house.engine);
    let step = tokio::spawn(async move { engine.step_once().await });
    house.blob_faults.until_hanging(1).await;
    // Nothing that is in memory alone may be needed.
    house.app.catalog.close();
    step.abort();
    assert!(step.await.unwrap_err().is_cancelled());
    house.crash_and_reopen().await;
    assert_eq!(house.app.blobs.list(None, 10).await.unwrap().len(), 2);
    assert_eq!(house.sweep_orphans().await, 1);
    assert_eq!(house.app.blobs.list(None, 10).await.unwrap(), [source.blob.unwrap()]);
    house.drain().await;
    assert_eq!(house.status(&source), Some("completed"));
}
