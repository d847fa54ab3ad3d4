//! What encryption does to replication.

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
