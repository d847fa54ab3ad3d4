//! The suite every SQL engine must pass, and what is asked of SQLite and of the migrations alone.
//!
//! Each promise is a function over a catalog that was just made; `contract!` makes tests of them
//! for an engine.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier, Once};

use futures_util::future::join_all;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::catalog::files::{ScanCursor, Start};
use crate::catalog::remotes::{NewOrphan, StoredRemote};
use crate::catalog::replication::{JobOrigin, Lease, NewJob};
use crate::catalog::ring_keys::{self, RingKeyRow, WrappedKey};
use crate::catalog::sqlite::{Options, Sqlite};
use crate::catalog::tx::{Value, collect, find};
use crate::catalog::{
    Abort, Catalog, Error, Tx, accounts, buckets, config_versions, dialect, files, remotes,
    replication, schema, server_facts, streams,
};
use crate::domain::bucket::{Bucket, BucketNumber, BucketSettings, BucketType};
use crate::domain::digest::{Md5Digest, Sha1Digest};
use crate::domain::encryption::Encryption;
use crate::domain::file::{Action, ContentSha1, FileInfo, FileVersion};
use crate::domain::ids::{AccountId, BlobId, BucketId, FileNumber};
use crate::domain::lock::FileLock;
use crate::domain::names::{BucketName, FileName};
use crate::domain::refusal::bad_request;
use crate::domain::remote::{Remote, RemoteBucket, RemoteId, RemoteOptions, StreamId};
use crate::domain::replication::JobState;
use crate::domain::stream::{QueueSums, Stream, StreamOptions};
use crate::domain::time::{Millis, Steady};

const NOW: Millis = Millis(1_700_000_000_000);
const DUE: Steady = Steady(NOW.0);
const ACCOUNT: AccountId = AccountId::from_bytes([1; 6]);
const BUCKET: BucketId = BucketId::from_bytes([2; 12]);
const NUMBER: BucketNumber = BucketNumber(1);

/// A catalog with the folder it lives in.
struct Fresh {
    catalog: Catalog,
    folder: TempDir,
}

fn database(folder: &Path) -> std::path::PathBuf {
    folder.join("meta.db")
}

fn open_sqlite() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let catalog = reopen_sqlite(folder.path()).unwrap();
    Fresh { catalog, folder }
}

fn reopen_sqlite(folder: &Path) -> Result<Catalog, Error> {
    let options = Options { wal_pages_soft: 100, wal_pages_hard: 1000, read_connections: 2 };
    Sqlite::open(&database(folder), options).map(|driver| {
        let driver: Arc<Sqlite> = driver;
        Catalog::new(driver)
    })
}

macro_rules! contract {
    ($engine:ident, $open:path, $($promise:ident,)*) => {
        mod $engine { $(
            #[tokio::test]
            async fn $promise() {
                super::$promise($open()).await;
            }
        )* }
    };
}

contract!(
    sqlite,
    super::open_sqlite,
    a_key_that_is_there_already_is_a_conflict,
    other_refusals_of_the_engine_are_no_conflict,
    a_failed_body_leaves_nothing_and_the_others_of_its_group_stand,
    a_body_that_panics_fails_alone,
    a_write_is_seen_by_whoever_reads_after_its_answer,
    a_reading_body_sees_one_moment,
    a_reading_body_cannot_write,
    names_are_listed_in_the_order_of_their_bytes,
    pages_joined_are_the_whole,
    a_scan_walks_names_upward_and_their_versions_oldest_first,
    one_name_shows_its_newest_upload_whatever_comes_and_goes,
    each_job_is_claimed_once_by_four_claimers,
    two_hundred_increments_are_all_counted,
    the_configuration_epoch_moves_with_committed_changes_only,
    numbers_of_counters_never_come_again,
    the_mark_of_numbers_never_goes_back,
    many_writes_share_few_commits,
    closing_answers_every_write_that_waits,
    a_closed_catalog_refuses_writes,
    wide_values_come_back_as_they_were,
    a_data_key_is_replaced_where_it_was_read_under_a_key_ring_key_in_use,
    remotes_and_streams_are_read_back_as_they_were_stored,
    replication_175_the_figures_of_a_queue_are_what_its_jobs_come_to,
    walks_of_a_stream_replace_those_over_the_same_prefix,
    orphans_are_due_until_they_are_forgotten,
);

fn remote() -> Remote {
    Remote {
        id: RemoteId(7),
        account: ACCOUNT,
        org_id: "0000010101010101".to_owned(),
        name: "offsite".to_owned(),
        description: Some("words".to_owned()),
        url: "s3+https://s3.example?region=x".to_owned(),
        remote_org_id: Some("theirs".to_owned()),
        allow_insecure_tls: true,
        options: RemoteOptions { max_concurrency: 9, ..RemoteOptions::default() },
        created_at: NOW,
        updated_at: NOW,
    }
}

fn stream() -> Stream {
    Stream {
        id: StreamId(8),
        account: ACCOUNT,
        org_id: "010101010101".to_owned(),
        name: "to-offsite".to_owned(),
        description: None,
        remote: RemoteId(7),
        local_bucket: BUCKET,
        remote_bucket_id: None,
        remote_bucket_name: "remote-files".to_owned(),
        max_queue_bytes: 3000,
        max_age_s: 60,
        drop_non_retryable: true,
        is_paused: false,
        options: StreamOptions { pin_deleted: true, ..StreamOptions::default() },
        sums: QueueSums::default(),
        latest: None,
        created_at: NOW,
        updated_at: NOW,
    }
}

async fn with_stream(catalog: &Catalog) {
    with_bucket(catalog).await;
    let made = write(catalog, |tx| {
        remotes::insert_remote(tx, &StoredRemote { remote: remote(), sealed_token: vec![1, 2] })?;
        Ok(streams::insert_stream(tx, &stream())?)
    });
    made.await.unwrap();
}

async fn remotes_and_streams_are_read_back_as_they_were_stored(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_stream(catalog).await;
    let again = |id: i64| Stream { id: StreamId(id), ..stream() };
    conflict(write(catalog, move |tx| Ok(streams::insert_stream(tx, &again(9))?)).await);
    let again = Remote { id: RemoteId(9), ..remote() };
    let again = StoredRemote { remote: again, sealed_token: Vec::new() };
    conflict(write(catalog, move |tx| Ok(remotes::insert_remote(tx, &again)?)).await);
    let read = || {
        let read = catalog.read(|tx| {
            let by_bucket = streams::list_of_bucket(tx, BUCKET)?;
            let by_id = streams::find_stream(tx, StreamId(8))?;
            assert_eq!(by_bucket.first(), by_id.as_ref());
            let other = BucketId::from_bytes([9; 12]);
            assert!(streams::list_of_bucket(tx, other)?.is_empty());
            Ok((by_id, remotes::find_remote(tx, RemoteId(7))?, streams::list_paused(tx)?))
        });
        read.unwrap()
    };
    let (found, stored, paused) = read();
    assert_eq!(found, Some(stream()));
    let stored = stored.unwrap();
    assert_eq!((stored.remote.clone(), stored.sealed_token), (remote(), vec![1, 2]));
    assert_eq!(paused.len(), 0);

    let changed = Stream {
        name: "renamed".to_owned(),
        description: Some(String::new()),
        remote_bucket_id: Some("4a48".to_owned()),
        remote_bucket_name: String::new(),
        is_paused: true,
        updated_at: NOW.plus(1),
        ..stream()
    };
    let expected = Stream { latest: Some((503, "busy".to_owned())), ..changed.clone() };
    let moved = Remote { url: "b2+https://b2.example".to_owned(), ..remote() };
    let moved = StoredRemote { remote: moved, sealed_token: vec![3] };
    let stored = write(catalog, move |tx| {
        streams::update_stream(tx, &changed)?;
        streams::set_latest(tx, changed.id, 503, "busy")?;
        Ok(remotes::update_remote(tx, &moved)?)
    });
    stored.await.unwrap();
    let (found, stored, paused) = read();
    assert_eq!(found, Some(expected));
    assert_eq!(paused.len(), 1);
    let stored = stored.unwrap();
    assert_eq!(
        (stored.remote.url.as_str(), stored.sealed_token),
        ("b2+https://b2.example", vec![3])
    );

    let seen = write(catalog, |tx| {
        let id = RemoteId(7);
        remotes::note_online(tx, id, NOW)?;
        remotes::note_offline(tx, id, NOW.plus(5))?;
        remotes::note_offline(tx, id, NOW.plus(6))?;
        let offline = remotes::presence(tx, id)?;
        remotes::note_online(tx, id, NOW.plus(7))?;
        remotes::note_online(tx, id, NOW.plus(8))?;
        Ok((offline.offline_since, remotes::presence(tx, id)?, remotes::is_used(tx, id)?))
    });
    let (offline_since, presence, is_used) = seen.await.unwrap();
    assert_eq!(offline_since, Some(NOW.plus(5)), "the first time counts");
    assert_eq!((presence.last_online_at, presence.offline_since), (Some(NOW.plus(7)), None));
    assert!(is_used);
    let gone = write(catalog, |tx| {
        let gone = (
            streams::delete_stream(tx, StreamId(8))?,
            remotes::is_used(tx, RemoteId(7))?,
            remotes::delete_remote(tx, RemoteId(7))?,
            remotes::delete_remote(tx, RemoteId(7))?,
        );
        Ok(gone)
    });
    assert_eq!(gone.await.unwrap(), (true, false, true, false));
}

async fn replication_175_the_figures_of_a_queue_are_what_its_jobs_come_to(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_stream(catalog).await;
    let filled = write(catalog, |tx| {
        let mut stream = stream();
        for number in 1..=4 {
            let version = FileVersion { size: 1000, ..version("name", number, Action::Upload) };
            replication::insert_stream_job(tx, &mut stream, &version, JobOrigin::Upload, DUE)?;
        }
        Ok(())
    });
    filled.await.unwrap();
    let sums = || {
        let read = catalog.read(|tx| {
            let kept = streams::find_stream(tx, StreamId(8))?.unwrap().sums;
            assert_eq!(streams::recount_sums(tx, StreamId(8))?, kept);
            Ok(kept)
        });
        read.unwrap()
    };
    let full = QueueSums { entries: 2, current_bytes: 2512, remaining_bytes: 2512, spilled: 2 };
    assert_eq!(sums(), full);
    let ended = write(catalog, |tx| {
        let (job, state) = streams::find_job_of_file(tx, StreamId(8), FileNumber(1))?.unwrap();
        assert_eq!(state, JobState::Ready);
        assert!(streams::first_spilled(tx, StreamId(8))? > Some(job));
        let mut stream = streams::find_stream(tx, StreamId(8))?.unwrap();
        assert!(!streams::carry_again(tx, &mut stream, job, 1000, DUE)?, "it has not ended");
        let purged = replication::purge(tx, StreamId(8), DUE, 100)?;
        let listed = streams::list_files(tx, StreamId(8), Some(JobState::Cancelled), 0, 100)?;
        let mut stream = streams::find_stream(tx, StreamId(8))?.unwrap();
        assert!(streams::carry_again(tx, &mut stream, job, 1000, DUE)?);
        Ok((purged, listed.len(), stream.sums))
    });
    let one = QueueSums { entries: 1, current_bytes: 1256, remaining_bytes: 1256, spilled: 0 };
    assert_eq!(ended.await.unwrap(), (4, 4, one));
    assert_eq!(sums(), one);
    let begun = write(catalog, |tx| {
        tx.execute(
            "UPDATE replication_jobs SET session = 's', confirmed = 400 WHERE state = ?1",
            &[Value::Text("ready")],
        )?;
        let change = QueueSums { remaining_bytes: -400, ..QueueSums::default() };
        streams::add_sums(tx, StreamId(8), change)?;
        let stream = streams::find_stream(tx, StreamId(8))?.unwrap();
        assert_eq!(stream.sums, streams::recount_sums(tx, StreamId(8))?);
        streams::orphan_sessions(tx, &stream, DUE)?;
        Ok(remotes::count_orphans(tx)?)
    });
    assert_eq!(begun.await.unwrap(), 1);
    assert_eq!(sums(), one, "what was confirmed is to be carried anew");
    let gone = write(catalog, |tx| {
        streams::delete_stream(tx, StreamId(8))?;
        let gone = streams::next_gone_stream(tx, StreamId(0))?;
        let removed = replication::forget_stream_jobs(tx, StreamId(8), 100)?;
        Ok((gone, removed, streams::next_gone_stream(tx, StreamId(0))?))
    });
    assert_eq!(gone.await.unwrap(), (Some(StreamId(8)), 4, None));
}

async fn walks_of_a_stream_replace_those_over_the_same_prefix(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_stream(catalog).await;
    let walked = write(catalog, |tx| {
        let id = StreamId(8);
        let first = streams::start_scan(tx, id, "", None, false, NOW)?;
        let other = streams::start_scan(tx, id, "a/", Some(NOW), true, NOW)?;
        let again = streams::start_scan(tx, id, "", None, true, NOW)?;
        assert_eq!(streams::find_scan(tx, first)?, None);
        let mut scan = streams::find_scan(tx, other)?.unwrap();
        assert_eq!(
            (scan.before, scan.carries_again, scan.prefix.as_str()),
            (Some(NOW), true, "a/")
        );
        scan.cursor =
            Some(ScanCursor { name: "a/b".to_owned(), upload_at: NOW, origin: FileNumber(3) });
        scan.seen = 5;
        assert!(streams::advance_scan(tx, &scan, None)?);
        assert_eq!(streams::find_scan(tx, other)?, Some(scan.clone()));
        assert!(streams::advance_scan(tx, &scan, Some(NOW))?);
        assert!(!streams::advance_scan(tx, &scan, None)?, "it has ended");
        let running = streams::list_running_scans(tx, Some(id))?;
        Ok((running.iter().map(|scan| scan.id).collect::<Vec<_>>(), again))
    });
    let (running, again) = walked.await.unwrap();
    assert_eq!(running, [again]);
}

async fn orphans_are_due_until_they_are_forgotten(fresh: Fresh) {
    let catalog = &fresh.catalog;
    let seen = write(catalog, |tx| {
        let bucket = RemoteBucket::Name("remote-files".to_owned());
        let orphan =
            NewOrphan { remote: RemoteId(7), bucket: &bucket, file_name: "name", session: "s1" };
        remotes::insert_orphan(tx, &orphan, DUE)?;
        let due = remotes::list_due_orphans(tx, DUE, 10)?;
        remotes::note_orphan_failure(tx, due[0].number, DUE.plus(500))?;
        let waiting = remotes::list_due_orphans(tx, DUE, 10)?.len();
        let again = remotes::list_due_orphans(tx, DUE.plus(500), 10)?;
        assert!(remotes::delete_orphan(tx, due[0].number)?);
        assert!(!remotes::delete_orphan(tx, due[0].number)?);
        Ok((due, waiting, again, remotes::count_orphans(tx)?))
    });
    let (due, waiting, again, left) = seen.await.unwrap();
    assert_eq!(due[0].bucket, RemoteBucket::Name("remote-files".to_owned()));
    assert_eq!((due[0].file_name.as_str(), due[0].session.as_str()), ("name", "s1"));
    assert_eq!((waiting, again.len(), again[0].attempts, left), (0, 1, 1, 0));
    assert_eq!(again[0].give_up_at, DUE.plus(24 * 60 * 60 * 1000), "tried for a day");
}

async fn a_data_key_is_replaced_where_it_was_read_under_a_key_ring_key_in_use(fresh: Fresh) {
    let key = |ring_key: i64, wrapped: &[u8]| WrappedKey {
        ring_key,
        blob: BlobId(7),
        wrapped: wrapped.to_vec(),
    };
    let outcome = write(&fresh.catalog, move |tx| {
        for number in [1, 2] {
            let fingerprint = vec![1; 8];
            ring_keys::insert_ring_key(tx, &RingKeyRow { number, made_at: NOW, fingerprint })?;
        }
        let other = RingKeyRow { number: 2, made_at: NOW, fingerprint: vec![2; 8] };
        let conflict = ring_keys::insert_ring_key(tx, &other);
        tx.execute(
            "INSERT INTO blobs (blob_id, refs, size, place, checks, seal, sealed_key, ring_key)
             VALUES (7, 1, 0, 1, ?1, 1, ?2, 1)",
            &[Value::Bytes(b""), Value::Bytes(b"read")],
        )?;
        let retired = ring_keys::replace_wrapped(tx, &key(1, b"read"), &key(3, b"new"))?;
        let stale = ring_keys::replace_wrapped(tx, &key(1, b"stale"), &key(2, b"new"))?;
        let right = ring_keys::replace_wrapped(tx, &key(1, b"read"), &key(2, b"new"))?;
        Ok((conflict, [retired, stale, right]))
    });
    assert_eq!(outcome.await.unwrap(), (Err(Error::Conflict), [false, false, true]));
}

async fn write<T: Send + 'static>(
    catalog: &Catalog,
    body: impl Fn(&mut dyn Tx) -> Result<T, Abort> + Send + 'static,
) -> Result<T, Abort> {
    catalog.write("contract", body).await
}

fn conflict<T: std::fmt::Debug>(outcome: Result<T, Abort>) {
    assert_eq!(outcome.unwrap_err(), Abort::Catalog(Error::Conflict));
}

fn bucket(number: i64, name: &str) -> Bucket {
    let mut id = [2; 12];
    id[11] = u8::try_from(number + 1).unwrap();
    Bucket {
        number: BucketNumber(number),
        id: BucketId::from_bytes(id),
        account: ACCOUNT,
        name: BucketName::parse(name).unwrap(),
        kind: BucketType::AllPrivate,
        revision: 2,
        created_at: NOW,
        settings: BucketSettings::default(),
    }
}

/// An account with one bucket, which is [`BUCKET`].
async fn with_bucket(catalog: &Catalog) {
    let made = write(catalog, |tx| {
        accounts::insert_account(tx, ACCOUNT, "", NOW)?;
        buckets::insert_bucket(tx, &bucket(1, "first-bucket"))?;
        Ok(())
    });
    made.await.unwrap();
}

fn version(name: &str, number: i64, action: Action) -> FileVersion {
    FileVersion {
        bucket: BUCKET,
        number: FileNumber(number),
        name: FileName::parse(name).unwrap(),
        action,
        upload_at: NOW.plus(number),
        origin: FileNumber(number),
        written_at: NOW,
        size: 0,
        sha1: ContentSha1::Verified(Sha1Digest::OF_NOTHING),
        md5: Some(Md5Digest::OF_NOTHING),
        parts: None,
        content_type: "text/plain".to_owned(),
        info: FileInfo::default(),
        blob: None,
        replication: None,
        lock: FileLock::default(),
        encryption: Encryption::None,
    }
}

fn insert(tx: &mut dyn Tx, version: &FileVersion) -> Result<(), Abort> {
    let newest = files::newest(tx, NUMBER, version.name.as_str())?;
    Ok(files::insert_version(tx, NUMBER, version, newest)?)
}

async fn insert_all(catalog: &Catalog, versions: Vec<FileVersion>) {
    let inserted =
        write(catalog, move |tx| versions.iter().try_for_each(|version| insert(tx, version)));
    inserted.await.unwrap();
}

fn names_of(catalog: &Catalog) -> Vec<String> {
    let mut names = Vec::new();
    catalog
        .read(|tx| {
            Ok(files::walk_heads(tx, (NUMBER, BUCKET), "", &mut |version| {
                names.push(version.name.as_str().to_owned());
                true
            })?)
        })
        .unwrap();
    names
}

/// A table of the suite's own, so that nothing but the engine is on trial.
async fn with_tallies(catalog: &Catalog) {
    let made = write(catalog, |tx| {
        tx.execute(
            "CREATE TABLE tallies (name TEXT {byte_order} PRIMARY KEY, tally BIGINT NOT NULL)",
            &[],
        )?;
        Ok(())
    });
    made.await.unwrap();
}

fn add_tally(tx: &mut dyn Tx, name: &str, tally: i64) -> Result<(), Abort> {
    tx.execute(
        "INSERT INTO tallies (name, tally) VALUES (?1, ?2)",
        &[Value::Text(name), Value::Int(tally)],
    )?;
    Ok(())
}

fn tally(tx: &mut dyn Tx, name: &str) -> Result<Option<i64>, Abort> {
    let sql = "SELECT tally FROM tallies WHERE name = ?1";
    Ok(find(tx, sql, &[Value::Text(name)], |row| row.int(0))?)
}

fn tally_names(catalog: &Catalog) -> Vec<String> {
    let sql = "SELECT name FROM tallies ORDER BY name";
    catalog.read(|tx| Ok(collect(tx, sql, &[], |row| Ok(row.text(0)?.to_owned()))?)).unwrap()
}

type Body = Box<dyn Fn(&mut dyn Tx) -> Result<(), Abort> + Send>;

/// Submits bodies while the writer is held up, so that as few commits as possible take them.
async fn write_together(catalog: &Catalog, bodies: Vec<Body>) -> Vec<Result<(), Abort>> {
    let gate = Arc::new(Barrier::new(2));
    let (held, once) = (Arc::clone(&gate), Once::new());
    let holding = catalog.write("hold", move |_| {
        // As any body it may run again, and nobody opens the gate twice.
        once.call_once(|| {
            held.wait();
        });
        Ok(())
    });
    let all = join_all(bodies.into_iter().map(|body| catalog.write("together", body)));
    // The futures are polled in this order, so the gate opens when everything is submitted.
    let (held, outcomes, ()) = futures_util::future::join3(holding, all, async {
        gate.wait();
    })
    .await;
    // The holding body may share the fate of its group, which a test of that fate looks at.
    assert!(held.is_ok() || outcomes.iter().any(Result::is_err), "{held:?}");
    outcomes
}

async fn a_key_that_is_there_already_is_a_conflict(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_bucket(catalog).await;
    conflict(write(catalog, |tx| Ok(accounts::insert_account(tx, ACCOUNT, "again", NOW)?)).await);
    conflict(
        write(catalog, |tx| {
            // Another bucket with the same name: the name is unique beside the primary key.
            Ok(buckets::insert_bucket(tx, &bucket(2, "FIRST-bucket"))?)
        })
        .await,
    );
    insert_all(catalog, vec![version("f", 1, Action::Upload)]).await;
    conflict(
        write(catalog, |tx| {
            Ok(files::insert_version(
                tx,
                NUMBER,
                &version("f", 1, Action::Upload),
                files::Newest::default(),
            )?)
        })
        .await,
    );
    conflict(
        write(catalog, |tx| {
            server_facts::insert_fact(tx, "fact", b"1")?;
            Ok(server_facts::insert_fact(tx, "fact", b"2")?)
        })
        .await,
    );
    let put = write(catalog, |tx| {
        server_facts::put_fact(tx, "fact", b"1")?;
        server_facts::put_fact(tx, "fact", b"2")?;
        Ok(server_facts::find_fact(tx, "fact")?)
    });
    assert_eq!(put.await, Ok(Some(b"2".to_vec())), "an upsert replaces");
}

async fn other_refusals_of_the_engine_are_no_conflict(fresh: Fresh) {
    let no_account =
        write(&fresh.catalog, |tx| Ok(buckets::insert_bucket(tx, &bucket(1, "no-account"))?));
    let answer = no_account.await.unwrap_err();
    assert!(matches!(answer, Abort::Catalog(Error::Engine(_))), "{answer:?}");
    with_bucket(&fresh.catalog).await;
    let wrong_code = write(&fresh.catalog, |tx| {
        tx.execute("UPDATE counters SET next = NULL WHERE name = 'bucket'", &[])?;
        Ok(())
    });
    let answer = wrong_code.await.unwrap_err();
    assert!(matches!(answer, Abort::Catalog(Error::Engine(_))), "{answer:?}");
}

async fn a_failed_body_leaves_nothing_and_the_others_of_its_group_stand(fresh: Fresh) {
    with_tallies(&fresh.catalog).await;
    let bodies: Vec<Body> = vec![
        Box::new(|tx| add_tally(tx, "a", 1)),
        Box::new(|tx| {
            add_tally(tx, "b", 1)?;
            Err(bad_request("changed its mind").into())
        }),
        Box::new(|tx| {
            add_tally(tx, "c", 1)?;
            // The row of a body before it is there, that of the refused body is not.
            assert_eq!(tally(tx, "a")?, Some(1));
            assert_eq!(tally(tx, "b")?, None);
            Ok(())
        }),
        Box::new(|tx| {
            add_tally(tx, "d", 1)?;
            add_tally(tx, "a", 2)
        }),
    ];
    let outcomes = write_together(&fresh.catalog, bodies).await;
    assert_eq!(outcomes[0], Ok(()));
    assert_eq!(outcomes[1], Err(Abort::Refused(bad_request("changed its mind"))));
    assert_eq!(outcomes[2], Ok(()));
    assert_eq!(outcomes[3], Err(Abort::Catalog(Error::Conflict)));
    assert_eq!(tally_names(&fresh.catalog), ["a", "c"]);
}

async fn a_body_that_panics_fails_alone(fresh: Fresh) {
    with_tallies(&fresh.catalog).await;
    let bodies: Vec<Body> = vec![
        Box::new(|tx| add_tally(tx, "before", 1)),
        Box::new(|tx| {
            add_tally(tx, "panics", 1)?;
            panic!("planned by a test")
        }),
        Box::new(|tx| add_tally(tx, "after", 1)),
    ];
    let outcomes = write_together(&fresh.catalog, bodies).await;
    assert_eq!((&outcomes[0], &outcomes[2]), (&Ok(()), &Ok(())));
    assert!(matches!(outcomes[1], Err(Abort::Catalog(Error::Engine(_)))), "{outcomes:?}");
    write(&fresh.catalog, |tx| add_tally(tx, "later", 1)).await.unwrap();
    assert_eq!(tally_names(&fresh.catalog), ["after", "before", "later"]);
    assert_eq!(fresh.catalog.suspect(), None);
}

async fn a_write_is_seen_by_whoever_reads_after_its_answer(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_tallies(catalog).await;
    for number in 0..50 {
        let name = format!("n{number}");
        let row = name.clone();
        write(catalog, move |tx| add_tally(tx, &row, number)).await.unwrap();
        assert_eq!(catalog.read(|tx| tally(tx, &name)), Ok(Some(number)));
        let scanned = catalog.scan(move |tx| tally(tx, &name)).await;
        assert_eq!(scanned, Ok(Some(number)));
    }
}

async fn a_reading_body_sees_one_moment(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_tallies(catalog).await;
    write(catalog, |tx| add_tally(tx, "a", 1)).await.unwrap();
    let (asked, asks) = std::sync::mpsc::channel();
    let (changed, changes) = std::sync::mpsc::channel();
    let reader = catalog.clone();
    let reading = tokio::task::spawn_blocking(move || {
        reader.read(|tx| {
            let before = tally(tx, "a")?;
            asked.send(()).unwrap();
            changes.recv().unwrap();
            Ok((before, tally(tx, "a")?))
        })
    });
    asks.recv().unwrap();
    let change = write(catalog, |tx| {
        tx.execute("UPDATE tallies SET tally = 2 WHERE name = 'a'", &[])?;
        Ok(())
    });
    change.await.unwrap();
    changed.send(()).unwrap();
    assert_eq!(reading.await.unwrap(), Ok((Some(1), Some(1))));
    assert_eq!(catalog.read(|tx| tally(tx, "a")), Ok(Some(2)));
}

async fn a_reading_body_cannot_write(fresh: Fresh) {
    with_tallies(&fresh.catalog).await;
    assert!(fresh.catalog.read(|tx| add_tally(tx, "a", 1)).is_err());
    assert!(tally_names(&fresh.catalog).is_empty());
    write(&fresh.catalog, |tx| add_tally(tx, "a", 1)).await.unwrap();
}

/// Names whose order by bytes differs from that of letters, of cases and of UTF-16.
const BY_BYTES: [&str; 7] = ["B", "Z", "_", "a", "\u{e9}", "\u{fffd}", "\u{1f600}"];

async fn names_are_listed_in_the_order_of_their_bytes(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_bucket(catalog).await;
    let mixed = ["_", "\u{1f600}", "a", "\u{fffd}", "B", "\u{e9}", "Z"];
    let numbered = mixed.iter().zip(1..);
    let versions = numbered.map(|(name, number)| version(name, number, Action::Upload)).collect();
    insert_all(catalog, versions).await;
    assert_eq!(names_of(catalog), BY_BYTES);
    for (at, from) in BY_BYTES.iter().enumerate() {
        let mut walked = Vec::new();
        catalog
            .read(|tx| {
                let start = Start::Name((*from).to_owned());
                Ok(files::walk_versions(tx, (NUMBER, BUCKET), &start, &mut |version| {
                    walked.push(version.name.as_str().to_owned());
                    true
                })?)
            })
            .unwrap();
        assert_eq!(walked, BY_BYTES[at..], "from {from}");
    }
    let scanned = catalog.read(|tx| Ok(files::list_for_scan(tx, (NUMBER, BUCKET), None, 100)?));
    let scanned: Vec<_> =
        scanned.unwrap().iter().map(|version| version.name.as_str().to_owned()).collect();
    assert_eq!(scanned, BY_BYTES);
    with_tallies(catalog).await;
    for name in mixed {
        write(catalog, move |tx| add_tally(tx, name, 0)).await.unwrap();
    }
    assert_eq!(tally_names(catalog), BY_BYTES);
}

/// Thirty versions of ten names, some of them hidden.
fn thirty() -> Vec<FileVersion> {
    (1..=30)
        .map(|number| {
            let action = if number % 7 == 0 { Action::Hide } else { Action::Upload };
            version(&format!("n{}", number % 10), number, action)
        })
        .collect()
}

async fn pages_joined_are_the_whole(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_bucket(catalog).await;
    insert_all(catalog, thirty()).await;
    let page = |start: &Start, size: usize| {
        let mut page = Vec::new();
        let read = catalog.read(|tx| {
            Ok(files::walk_versions(tx, (NUMBER, BUCKET), start, &mut |version| {
                page.push(version);
                page.len() < size
            })?)
        });
        read.unwrap();
        page
    };
    let beginning = Start::Name(String::new());
    let whole = page(&beginning, 100);
    assert_eq!(whole.len(), 30);
    let places: Vec<_> = whole
        .iter()
        .map(|v| (v.name.as_str().to_owned(), std::cmp::Reverse((v.upload_at, v.origin))))
        .collect();
    assert!(places.is_sorted(), "names upward, newest version first");
    for size in 2..12 {
        let mut joined = page(&beginning, size);
        let mut more = joined.len() == size;
        while more {
            // A page begins at the version with which the page before it ended.
            let last = joined.pop().unwrap();
            let start = Start::Version {
                name: last.name.as_str().to_owned(),
                upload_at: last.upload_at,
                origin: last.origin,
            };
            let next = page(&start, size);
            more = next.len() == size;
            joined.extend(next);
        }
        assert_eq!(joined, whole, "pages of {size}");
    }
}

async fn a_scan_walks_names_upward_and_their_versions_oldest_first(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_bucket(catalog).await;
    insert_all(catalog, thirty()).await;
    for size in 1..=31 {
        let mut cursor: Option<ScanCursor> = None;
        let mut walked = Vec::new();
        loop {
            let from = cursor.as_ref();
            let read =
                catalog.read(|tx| Ok(files::list_for_scan(tx, (NUMBER, BUCKET), from, size)?));
            let batch = read.unwrap();
            assert!(batch.len() <= size, "a batch holds no more than was asked for");
            let Some(last) = batch.last() else { break };
            cursor = Some(ScanCursor {
                name: last.name.as_str().to_owned(),
                upload_at: last.upload_at,
                origin: last.origin,
            });
            walked.extend(batch.into_iter().map(|v| (v.name.as_str().to_owned(), v.upload_at)));
        }
        assert_eq!(walked.len(), 30, "batches of {size}");
        assert!(walked.is_sorted(), "batches of {size}");
    }
}

async fn one_name_shows_its_newest_upload_whatever_comes_and_goes(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_bucket(catalog).await;
    let shown = || {
        catalog.read(|tx| {
            let mut listed = Vec::new();
            files::walk_heads(tx, (NUMBER, BUCKET), "", &mut |version| {
                listed.push(version.number.0);
                true
            })?;
            let head = files::find_head(tx, (NUMBER, BUCKET), "f")?;
            assert_eq!(listed, head.map(|head| head.number.0).into_iter().collect::<Vec<_>>());
            Ok(listed)
        })
    };
    let remove = async |number, action| {
        let removed = write(catalog, move |tx| {
            Ok(files::delete_version(tx, NUMBER, &version("f", number, action))?)
        });
        removed.await.unwrap();
    };
    insert_all(catalog, vec![version("f", 5, Action::Upload)]).await;
    assert_eq!(shown(), Ok(vec![5]));
    // A version that arrives late stands below.
    insert_all(catalog, vec![version("f", 2, Action::Upload)]).await;
    assert_eq!(shown(), Ok(vec![5]));
    insert_all(catalog, vec![version("f", 8, Action::Hide)]).await;
    assert_eq!(shown(), Ok(vec![]));
    insert_all(catalog, vec![version("f", 7, Action::Upload)]).await;
    assert_eq!(shown(), Ok(vec![]), "below the marker");
    remove(8, Action::Hide).await;
    assert_eq!(shown(), Ok(vec![7]));
    remove(5, Action::Upload).await;
    assert_eq!(shown(), Ok(vec![7]));
    remove(7, Action::Upload).await;
    assert_eq!(shown(), Ok(vec![2]));
    remove(2, Action::Upload).await;
    assert_eq!(shown(), Ok(vec![]));
}

fn new_job(number: i64) -> NewJob<'static> {
    NewJob {
        account: ACCOUNT,
        source_bucket: BUCKET,
        destination: BucketId::from_bytes([9; 12]),
        file_number: FileNumber(number),
        file_id: "id",
        file_name: "name",
        source_key: "key",
        rule_name: "rule",
        origin: JobOrigin::Upload,
        size: 1,
    }
}

async fn each_job_is_claimed_once_by_four_claimers(fresh: Fresh) {
    let catalog = &fresh.catalog;
    let inserted = write(catalog, |tx| {
        for number in 1..=200 {
            assert!(replication::insert_job(tx, &new_job(number), DUE)?);
            assert!(!replication::insert_job(tx, &new_job(number), DUE)?, "one per version");
        }
        Ok(())
    });
    inserted.await.unwrap();
    let lane = catalog
        .read(|tx| Ok(replication::find_job(tx, 1)?))
        .unwrap()
        .expect("the first job has number 1")
        .lane;
    let claimers = (0..4).map(|claimer| {
        let (catalog, lane) = (catalog.clone(), lane.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let lease = Lease { owner: format!("claimer{claimer}"), until: NOW };
            let mut claimed = Vec::new();
            loop {
                let (lane, lease) = (lane.clone(), lease.clone());
                let jobs = runtime.block_on(write(&catalog, move |tx| {
                    Ok(replication::claim(tx, &lane, JobOrigin::Upload, DUE, &lease, 3)?)
                }));
                let jobs = jobs.unwrap();
                if jobs.is_empty() {
                    return claimed;
                }
                assert!(jobs.iter().all(|job| job.lease_epoch == 1));
                claimed.extend(jobs.into_iter().map(|job| job.file_number.0));
            }
        })
    });
    let claimers: Vec<_> = claimers.collect();
    let claimed: Vec<i64> =
        claimers.into_iter().flat_map(|claimer| claimer.join().unwrap()).collect();
    assert_eq!(claimed.len(), 200);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), (1..=200).collect());
}

async fn two_hundred_increments_are_all_counted(fresh: Fresh) {
    let catalog = &fresh.catalog;
    with_tallies(catalog).await;
    write(catalog, |tx| add_tally(tx, "sum", 0)).await.unwrap();
    let adders: Vec<_> = (0..4)
        .map(|_| {
            let catalog = catalog.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let increments = (0..50).map(|_| {
                    write(&catalog, |tx| {
                        let next = tally(tx, "sum")?.unwrap_or_default() + 1;
                        let changed = tx.execute(
                            "UPDATE tallies SET tally = ?1 WHERE name = 'sum'",
                            &[Value::Int(next)],
                        )?;
                        assert_eq!(changed, 1);
                        Ok(next)
                    })
                });
                runtime.block_on(join_all(increments))
            })
        })
        .collect();
    let seen: BTreeSet<i64> =
        adders.into_iter().flat_map(|adder| adder.join().unwrap()).map(Result::unwrap).collect();
    assert_eq!(seen, (1..=200).collect(), "each saw the one before it");
    assert_eq!(catalog.read(|tx| tally(tx, "sum")), Ok(Some(200)));
}

async fn the_configuration_epoch_moves_with_committed_changes_only(fresh: Fresh) {
    let catalog = &fresh.catalog;
    let version = || catalog.read(|tx| Ok(config_versions::current(tx)?)).unwrap();
    with_tallies(catalog).await;
    let (epoch, stored) = (catalog.config_epoch(), version());
    write(catalog, |tx| add_tally(tx, "a", 1)).await.unwrap();
    let refused: Result<(), _> = write(catalog, |tx| {
        accounts::insert_account(tx, ACCOUNT, "", NOW)?;
        Err(bad_request("no").into())
    })
    .await;
    assert!(refused.is_err());
    let panicked: Result<(), _> = write(catalog, |tx| {
        accounts::insert_account(tx, ACCOUNT, "", NOW)?;
        panic!("planned by a test")
    })
    .await;
    assert!(panicked.is_err());
    assert_eq!((catalog.config_epoch(), version()), (epoch, stored), "nothing was changed");
    write(catalog, |tx| Ok(accounts::insert_account(tx, ACCOUNT, "", NOW)?)).await.unwrap();
    assert!(catalog.config_epoch() > epoch, "the epoch has begun when the answer comes");
    assert_eq!(version(), stored + 1);
}

async fn numbers_of_counters_never_come_again(fresh: Fresh) {
    let take = || write(&fresh.catalog, |tx| Ok(server_facts::take_number(tx, "bucket")?));
    assert_eq!(take().await, Ok(1));
    assert_eq!(take().await, Ok(2));
    let unknown = write(&fresh.catalog, |tx| Ok(server_facts::take_number(tx, "unheard of")?));
    assert!(unknown.await.is_err());
    assert_eq!(take().await, Ok(3));
}

async fn the_mark_of_numbers_never_goes_back(fresh: Fresh) {
    let mark = || fresh.catalog.read(|tx| Ok(server_facts::number_mark(tx)?));
    assert_eq!(mark(), Ok(1), "nothing was drawn yet");
    for (raised, then) in [(30, 30), (29, 30), (i64::MAX, i64::MAX)] {
        let body = move |tx: &mut dyn Tx| Ok(server_facts::raise_number_mark(tx, raised)?);
        write(&fresh.catalog, body).await.unwrap();
        assert_eq!(mark(), Ok(then));
    }
}

async fn many_writes_share_few_commits(fresh: Fresh) {
    with_tallies(&fresh.catalog).await;
    let figures = || {
        let figures = fresh.catalog.figures();
        (figures.commits.load(Ordering::Relaxed), figures.bodies.load(Ordering::Relaxed))
    };
    let before = figures();
    let bodies = (0..600_i64).map(|number| {
        let body: Body = Box::new(move |tx| add_tally(tx, &format!("n{number:03}"), number));
        body
    });
    let outcomes = write_together(&fresh.catalog, bodies.collect()).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let (commits, bodies) = (figures().0 - before.0, figures().1 - before.1);
    assert_eq!(bodies, 601);
    assert!(commits <= 5, "{commits} commits for 601 bodies in groups of up to 256");
    assert_eq!(tally_names(&fresh.catalog).len(), 600);
}

async fn closing_answers_every_write_that_waits(fresh: Fresh) {
    let Fresh { catalog, folder } = fresh;
    with_tallies(&catalog).await;
    let gate = Arc::new(Barrier::new(2));
    let (held, once) = (Arc::clone(&gate), Once::new());
    let holding = catalog.write("hold", move |_| {
        // As any body it may run again, and nobody opens the gate twice.
        once.call_once(|| {
            held.wait();
        });
        Ok(())
    });
    let waiting = (0..40_i64).map(|number| {
        catalog.write("wait", move |tx| add_tally(tx, &format!("n{number:02}"), number))
    });
    let closer = catalog.clone();
    let closed = async {
        // Everything is submitted; closing begins while the writer is held up.
        let closing = std::thread::spawn(move || closer.close());
        gate.wait();
        closing.join().unwrap();
    };
    let (held, answers, ()) = futures_util::future::join3(holding, join_all(waiting), closed).await;
    held.unwrap();
    assert!(answers.iter().all(Result::is_ok), "what was taken is committed: {answers:?}");
    drop(catalog);
    let again = reopen_sqlite(folder.path()).unwrap();
    assert_eq!(tally_names(&again).len(), 40);
}

async fn a_closed_catalog_refuses_writes(fresh: Fresh) {
    fresh.catalog.close();
    fresh.catalog.close();
    let refused = write(&fresh.catalog, |tx| Ok(server_facts::take_number(tx, "bucket")?)).await;
    assert_eq!(refused, Err(Abort::Catalog(Error::Closed)));
}

async fn wide_values_come_back_as_they_were(fresh: Fresh) {
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let stored = bytes.clone();
    let read = write(&fresh.catalog, move |tx| {
        server_facts::put_fact(tx, "wide \u{1f600}", &stored)?;
        server_facts::put_fact(tx, "empty", b"")?;
        Ok((server_facts::find_fact(tx, "wide \u{1f600}")?, server_facts::find_fact(tx, "empty")?))
    });
    assert_eq!(read.await, Ok((Some(bytes), Some(Vec::new()))));
    let shape = write(&fresh.catalog, |tx| {
        for number in [i64::MIN, -1, 0, i64::MAX] {
            let sql = "SELECT CAST(?1 AS BIGINT), NULL, 'text'";
            let row = find(tx, sql, &[Value::Int(number)], |row| {
                assert_eq!(row.opt_int(1)?, None);
                assert_eq!(row.int(1), Err(Error::Shape { column: 1 }));
                assert_eq!(row.int(2), Err(Error::Shape { column: 2 }));
                assert_eq!(row.text(0), Err(Error::Shape { column: 0 }));
                assert_eq!(row.int(3), Err(Error::Shape { column: 3 }));
                row.int(0)
            });
            assert_eq!(row?, Some(number));
        }
        Ok(())
    });
    shape.await.unwrap();
}

fn pragma(tx: &mut dyn Tx, sql: &'static str) -> Result<String, Abort> {
    let found = find(tx, sql, &[], |row| match row.opt_int(0) {
        Ok(number) => Ok(number.unwrap_or_default().to_string()),
        Err(_) => Ok(row.text(0)?.to_owned()),
    })?;
    Ok(found.unwrap_or_default())
}

#[tokio::test]
async fn sqlite_runs_with_the_settings_that_durability_hangs_on() {
    let fresh = open_sqlite();
    let settings = |tx: &mut dyn Tx| {
        Ok([
            pragma(tx, "PRAGMA journal_mode")?,
            pragma(tx, "PRAGMA synchronous")?,
            pragma(tx, "PRAGMA foreign_keys")?,
        ])
    };
    let wanted = ["wal", "2", "1"].map(str::to_owned);
    assert_eq!(write(&fresh.catalog, settings).await, Ok(wanted.clone()));
    assert_eq!(fresh.catalog.read(settings), Ok(wanted));
    let checkpoint = write(&fresh.catalog, |tx| pragma(tx, "PRAGMA wal_autocheckpoint")).await;
    assert_eq!(checkpoint, Ok("0".to_owned()), "the writer copies back when it chooses to");
}

#[tokio::test]
async fn sqlite_begins_its_log_anew_while_writes_go_on() {
    const WRITES: u64 = 3000;
    let fresh = open_sqlite();
    for _ in 0..WRITES {
        let wide = |tx: &mut dyn Tx| Ok(server_facts::put_fact(tx, "wide", &vec![7; 20_000])?);
        write(&fresh.catalog, wide).await.unwrap();
    }
    let log = std::fs::metadata(fresh.folder.path().join("meta.db-wal")).unwrap().len();
    // Each write leaves five pages at least in the log, and writers wait from 1000 pages on.
    let (written, waits) = (WRITES * 5 * 4096, 1000 * 4096);
    assert!(log < written / 10 && log < waits + waits / 2, "{log} bytes of {written}");
}

/// Row F68 of the fault matrix: a backup program, say, has the database for a while.
#[tokio::test]
async fn sqlite_waits_for_another_program_that_holds_the_database() {
    let fresh = open_sqlite();
    with_tallies(&fresh.catalog).await;
    let other = Connection::open(database(fresh.folder.path())).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let catalog = fresh.catalog.clone();
    let waiting = tokio::spawn(async move { write(&catalog, |tx| add_tally(tx, "a", 1)).await });
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished(), "the write is not given up");
    assert!(tally_names(&fresh.catalog).is_empty(), "and readers are served");
    other.execute_batch("ROLLBACK").unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(tally_names(&fresh.catalog), ["a"]);
}

/// SQLite rolls the whole transaction back when some statements find no space, not only the body
/// they are in.
#[tokio::test]
async fn sqlite_without_space_refuses_what_does_not_fit_and_goes_on() {
    let fresh = open_sqlite();
    let catalog = &fresh.catalog;
    with_tallies(catalog).await;
    let limit = write(catalog, |tx| pragma(tx, "PRAGMA max_page_count = 1")).await.unwrap();
    assert!(limit.parse::<u64>().unwrap() > 1, "the pages there are stay");
    let bodies: Vec<Body> = vec![
        Box::new(|tx| add_tally(tx, "before", 1)),
        Box::new(|tx| Ok(server_facts::put_fact(tx, "wide", &vec![7; 200_000])?)),
        Box::new(|tx| add_tally(tx, "after", 1)),
    ];
    let outcomes = write_together(catalog, bodies).await;
    assert_eq!(outcomes[1], Err(Abort::Catalog(Error::Full)));
    let stored = tally_names(catalog);
    for (outcome, name) in [(&outcomes[0], "before"), (&outcomes[2], "after")] {
        let kept = stored.iter().any(|one| one == name);
        assert_eq!(outcome.is_ok(), kept, "{name}: the answer says what is stored, {outcomes:?}");
        let full = Err(Abort::Catalog(Error::Full));
        assert!(outcome.is_ok() || *outcome == full, "{name}: {outcome:?}");
    }
    assert_eq!(catalog.suspect(), None, "lack of space is no doubt about durability");
    write(catalog, |tx| pragma(tx, "PRAGMA max_page_count = 1000000")).await.unwrap();
    let wide = |tx: &mut dyn Tx| Ok(server_facts::put_fact(tx, "wide", &vec![7; 200_000])?);
    write(catalog, wide).await.unwrap();
}

#[test]
fn a_database_of_a_newer_program_is_refused_and_left_alone() {
    let Fresh { catalog, folder } = open_sqlite();
    catalog.close();
    let newer = schema::newest() + 1;
    let connection = Connection::open(database(folder.path())).unwrap();
    let rows = || -> i64 {
        let count = "SELECT COUNT(*) FROM schema_migrations";
        connection.query_row(count, [], |row| row.get(0)).unwrap()
    };
    connection
        .execute("INSERT INTO schema_migrations (number, fingerprint) VALUES (?1, 'x')", [newer])
        .unwrap();
    let before = rows();
    let refused = reopen_sqlite(folder.path()).err().unwrap().to_string();
    assert!(refused.contains("use a newer kiln"), "{refused}");
    assert_eq!(rows(), before);
}

#[test]
fn a_migration_that_was_altered_after_its_release_is_refused() {
    let Fresh { catalog, folder } = open_sqlite();
    catalog.close();
    let connection = Connection::open(database(folder.path())).unwrap();
    connection
        .execute("UPDATE schema_migrations SET fingerprint = 'other' WHERE number = 2", [])
        .unwrap();
    drop(connection);
    let refused = reopen_sqlite(folder.path()).err().unwrap().to_string();
    assert!(refused.contains("migration 2 differs"), "{refused}");
}

/// The texts in the folder of migrations, by number.
fn migration_texts() -> Vec<(i64, &'static str)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut texts: Vec<(i64, &'static str)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let number = name.split_once('_').unwrap().0;
            assert_eq!((number.len(), path.extension().unwrap().to_str()), (4, Some("sql")));
            // The rendering of dialects takes texts that live as long as the program.
            let text: &'static str = std::fs::read_to_string(&path).unwrap().leak();
            (number.parse().unwrap(), text)
        })
        .collect();
    texts.sort_unstable();
    texts
}

fn dump(path: &Path) -> Vec<(String, String, Option<String>)> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection
        .prepare("SELECT type, name, sql FROM sqlite_master ORDER BY type, name")
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_schema_migrated_from_any_older_one_equals_a_fresh_one() {
    let Fresh { catalog, folder } = open_sqlite();
    catalog.close();
    let fresh = dump(&database(folder.path()));
    assert!(fresh.len() > 20, "{fresh:?}");
    let source = Connection::open(database(folder.path())).unwrap();
    let fingerprint = |number: i64| -> String {
        let sql = "SELECT fingerprint FROM schema_migrations WHERE number = ?1";
        source.query_row(sql, [number], |row| row.get(0)).unwrap()
    };
    let texts = migration_texts();
    for stop in 0..=texts.len() {
        let older = tempfile::tempdir().unwrap();
        let connection = Connection::open(database(older.path())).unwrap();
        let table = &fresh.iter().find(|(_, name, _)| name == "schema_migrations").unwrap().2;
        connection.execute_batch(table.as_ref().unwrap()).unwrap();
        for (number, text) in texts.iter().take(stop) {
            connection.execute_batch(&dialect::SQLITE.render(text)).unwrap();
            connection
                .execute(
                    "INSERT INTO schema_migrations (number, fingerprint) VALUES (?1, ?2)",
                    (number, fingerprint(*number)),
                )
                .unwrap();
        }
        drop(connection);
        reopen_sqlite(older.path()).unwrap().close();
        assert_eq!(dump(&database(older.path())), fresh, "stopped after {stop}");
        reopen_sqlite(older.path()).unwrap().close();
        assert_eq!(dump(&database(older.path())), fresh, "opening again changes nothing");
    }
}

/// Statements are told apart by semicolons alone, so none may stand anywhere else.
#[test]
fn a_migration_holds_semicolons_only_at_the_ends_of_statements() {
    let texts = migration_texts();
    let numbers: Vec<i64> = texts.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, schema::numbers(), "each is known to the program, in this order");
    for (number, text) in texts {
        for line in text.lines() {
            let (statement, comment) = line.split_once("--").unwrap_or((line, ""));
            assert!(!comment.contains(';'), "migration {number}: {line}");
            let inside = statement.trim_end().strip_suffix(';').unwrap_or(statement);
            assert!(!inside.contains(';'), "migration {number}: {line}");
        }
        for statement in text.split(';') {
            let code: String =
                statement.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
            let known = [
                "CREATE TABLE ",
                "CREATE INDEX ",
                "CREATE UNIQUE INDEX ",
                "INSERT INTO ",
                "DELETE FROM ",
                "DROP TABLE ",
                "ALTER TABLE ",
                "UPDATE ",
            ];
            let whole = code.trim().is_empty() || known.iter().any(|verb| code.starts_with(verb));
            assert!(whole, "migration {number}: {code}");
            assert_eq!(code.matches('(').count(), code.matches(')').count(), "{code}");
            assert_eq!(code.matches('\'').count() % 2, 0, "{code}");
        }
    }
}
