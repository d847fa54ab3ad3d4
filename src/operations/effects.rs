//! What follows when a version comes or goes, in the transaction that makes it so: the one place
//! through which uploads, copies, large files, hides, deletions, replicas and the workers change
//! what a bucket holds. What it stores is counted here, and held to the cap of its account.

use crate::catalog::files::{self, Newest};
use crate::catalog::replication::{JobOrigin, StreamEnqueued};
use crate::catalog::{Abort, Error, Tx, blob_refs, parts, replicas, replication, streams, usage};
use crate::domain::bucket::Bucket;
use crate::domain::event::EventType;
use crate::domain::file::{Action, FileVersion};
use crate::domain::large_file::Part;
use crate::domain::lock::LockTimes;
use crate::domain::refusal::{access_denied, queue_full};
use crate::domain::remote::StreamId;
use crate::domain::replication::{Ineligible, ReplicationStatus};
use crate::domain::stream::{NotTaken, OnQueueFull};
use crate::domain::time::{Millis, Steady};
use crate::operations::App;
use crate::operations::notifications::{self, Noted};
use crate::operations::replicas::is_replica;
use crate::operations::replication_rules::{self, Enqueued};
use crate::operations::usage::{require_room, signed};

/// Why a version comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Upload,
    Copy,
    /// A large file is begun; nothing is to be seen of it yet.
    Start,
    /// A large file is complete.
    Finish,
    Hide,
    /// A lifecycle rule hides the name.
    LifecycleHide,
    Replica,
    Delete,
    /// A lifecycle rule deletes the version.
    LifecycleDelete,
    /// An unfinished large file is given up.
    Cancel,
}

/// What a transaction body needs to know of the world outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Millis,
    /// Now, on the time line of waits.
    pub(crate) steady: Steady,
    /// Now as locks see it: the clock, as far as it can be believed.
    pub(crate) locks: LockTimes,
    /// Replicate files whose metadata Backblaze finds too large.
    pub(crate) copy_large_metadata: bool,
    /// Whether any account at all has a storage cap: most servers need not look.
    pub(crate) storage_is_capped: bool,
    /// Events that may wait for one notification rule.
    pub(crate) event_queue_max: i64,
}

impl Moment {
    pub(crate) fn of(app: &App) -> Self {
        let locks = app.lock_clock.times(&*app.clock);
        Self {
            now: locks.now,
            locks,
            steady: app.waits.now(),
            copy_large_metadata: app.policy.copy_large_metadata,
            storage_is_capped: app.usage.storage_is_capped(),
            event_queue_max: app.policy.event_queue_max,
        }
    }

    /// Whether the lock of a version lets it be removed. An unfinished large file is not kept: its
    /// lock begins when it is finished. `bypass` lifts governance and nothing else.
    pub(crate) fn may_remove(self, version: &FileVersion, bypass: bool) -> bool {
        version.action == Action::Start || version.lock.may_delete(self.locks.locks_run_to, bypass)
    }
}

/// What became of a version in the eyes of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streamed {
    To(StreamId, StreamEnqueued, u64),
    /// It is encrypted with a key that only the customer has.
    CustomerKey,
}

/// What a change left behind for the workers.
#[derive(Clone, Debug)]
#[must_use = "announce it after the commit"]
pub(crate) struct Aftermath {
    enqueued: Enqueued,
    /// Empty, and so without a place in memory, where no stream takes anything.
    streamed: Vec<Streamed>,
    noted: Noted,
}

/// The event that a change is told by, if rules ask for it.
fn event_of(cause: Cause, version: &FileVersion) -> Option<EventType> {
    match cause {
        Cause::Upload => Some(EventType::Upload),
        Cause::Copy => Some(EventType::Copy),
        Cause::Finish if !is_replica(version) => Some(EventType::MultipartUpload),
        Cause::Hide => Some(EventType::Hide),
        Cause::Replica | Cause::Finish if version.parts.is_some() => {
            Some(EventType::MultipartReplica)
        }
        Cause::Replica | Cause::Finish => Some(EventType::Replica),
        Cause::Delete => Some(EventType::Delete),
        Cause::LifecycleHide => Some(EventType::LifecycleHide),
        Cause::LifecycleDelete => Some(EventType::LifecycleDelete),
        // Nothing of an unfinished large file is to be seen.
        Cause::Start | Cause::Cancel => None,
    }
}

fn note(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    version: &FileVersion,
    cause: Cause,
    moment: Moment,
) -> Result<Noted, Error> {
    match event_of(cause, version) {
        Some(kind) => notifications::note(tx, bucket, kind, version, moment),
        None => Ok(None),
    }
}

/// Stores a version with all that follows from it. `newest` is what [`files::newest`] answered in
/// this transaction. The version's replication status is settled here, and so is the retention
/// that the bucket gives to files that come without one. Refuses `storage_cap_exceeded`, and
/// `service_unavailable` for a stream whose queue is full and that wants it so.
pub(crate) fn add(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    version: &mut FileVersion,
    newest: Newest,
    cause: Cause,
    moment: Moment,
) -> Result<Aftermath, Abort> {
    version.lock = match cause {
        Cause::Upload | Cause::Copy | Cause::Start if !is_replica(version) => {
            bucket.settings.file_lock.of_new(version.lock, moment.locks.begin(version.upload_at))
        }
        // A replica is as old as its source, and kept from now on (A7).
        Cause::Upload | Cause::Copy | Cause::Start | Cause::Replica => {
            bucket.settings.file_lock.of_new(version.lock, moment.locks.begin(moment.now))
        }
        Cause::Finish
        | Cause::Hide
        | Cause::LifecycleHide
        | Cause::Delete
        | Cause::LifecycleDelete
        | Cause::Cancel => version.lock,
    };
    let enqueued = plan(tx, bucket, version, cause, moment)?;
    let streamed = plan_streams(tx, bucket, version, cause, moment)?;
    if cause == Cause::Finish {
        // Its parts were counted one by one, and so was the version when it was begun.
        files::finish_version(tx, bucket.number, version, newest)?;
    } else {
        files::insert_version(tx, bucket.number, version, newest)?;
        count_stored(tx, bucket, (1, signed(version.size)), moment)?;
    }
    let noted = note(tx, bucket, version, cause, moment)?;
    Ok(Aftermath { enqueued, streamed, noted })
}

/// Stores a part of an unfinished large file. Refuses `storage_cap_exceeded`.
pub(crate) fn add_part(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    version: &FileVersion,
    part: &Part,
    moment: Moment,
) -> Result<(), Abort> {
    let grown = parts::put_part(tx, version.number, part)?;
    count_stored(tx, bucket, (0, grown), moment)
}

/// Removes the parts of a large file that are not among the chosen ones. Both lists are in the order
/// of their numbers.
pub(crate) fn drop_parts(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    version: &FileVersion,
    (all, chosen): (&[Part], &[Part]),
    moment: Moment,
) -> Result<(), Abort> {
    let mut bytes = 0;
    for part in all {
        if chosen.binary_search_by_key(&part.number, |one| one.number).is_err() {
            bytes += parts::remove_part(tx, version.number, part.number, moment.now)?;
        }
    }
    count_stored(tx, bucket, (0, -bytes), moment)
}

/// Counts what comes to a bucket or goes from it, and refuses what is too much for its account.
fn count_stored(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    (versions, bytes): (i64, i64),
    moment: Moment,
) -> Result<(), Abort> {
    if moment.storage_is_capped && bytes > 0 {
        require_room(tx, bucket.account, bytes)?;
    }
    Ok(usage::add_stored(tx, bucket.number, versions, bytes)?)
}

fn plan(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    version: &mut FileVersion,
    cause: Cause,
    moment: Moment,
) -> Result<Enqueued, Abort> {
    match cause {
        Cause::Upload | Cause::Copy | Cause::Finish => {}
        Cause::Start
        | Cause::Hide
        | Cause::LifecycleHide
        | Cause::Replica
        | Cause::Delete
        | Cause::LifecycleDelete
        | Cause::Cancel => return Ok(Enqueued::Nothing),
    }
    let enqueued = replication_rules::enqueue(
        tx,
        bucket,
        version,
        JobOrigin::Upload,
        moment.copy_large_metadata,
        moment.steady,
    )?;
    if matches!(enqueued, Enqueued::Jobs(_)) {
        version.replication = Some(ReplicationStatus::Pending);
    }
    Ok(enqueued)
}

fn plan_streams(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    version: &FileVersion,
    cause: Cause,
    moment: Moment,
) -> Result<Vec<Streamed>, Abort> {
    let mut streamed = Vec::new();
    match cause {
        Cause::Upload | Cause::Copy | Cause::Finish | Cause::Replica => {}
        Cause::Start
        | Cause::Hide
        | Cause::LifecycleHide
        | Cause::Delete
        | Cause::LifecycleDelete
        | Cause::Cancel => return Ok(streamed),
    }
    for mut stream in streams::list_of_bucket(tx, bucket.id)? {
        match stream.takes(version) {
            Err(NotTaken::Other) => continue,
            Err(NotTaken::CustomerKey) => {
                streamed.push(Streamed::CustomerKey);
                continue;
            }
            Ok(()) => {}
        }
        if cause == Cause::Replica && stream.options.on_queue_full == OnQueueFull::Reject {
            // Nobody is there to send it again for this reason.
            stream.options.on_queue_full = OnQueueFull::Spill;
        }
        let made = replication::insert_stream_job(
            tx,
            &mut stream,
            version,
            JobOrigin::Upload,
            moment.steady,
        )?;
        if made == StreamEnqueued::Rejected {
            return Err(queue_full().into());
        }
        streamed.push(Streamed::To(stream.id, made, version.size));
    }
    Ok(streamed)
}

/// Removes a version with all that hangs on it. Refused when it is locked, whoever asks: a worker
/// that wants to pass over locked versions asks [`Moment::may_remove`] first. `bucket` is as this
/// transaction sees it.
pub(crate) fn remove(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    version: &FileVersion,
    cause: Cause,
    moment: Moment,
    bypass: bool,
) -> Result<Aftermath, Abort> {
    if !moment.may_remove(version, bypass) {
        return Err(access_denied().into());
    }
    files::delete_version(tx, bucket.number, version)?;
    let mut bytes = signed(version.size);
    if cause == Cause::Cancel {
        bytes += parts::remove_parts(tx, version.number, moment.now)?;
    }
    count_stored(tx, bucket, (-1, -bytes), moment)?;
    if let Some(blob) = version.blob {
        blob_refs::release(tx, blob, moment.now)?;
    }
    if is_replica(version) {
        replicas::forget_trail(tx, version.number, bucket.id, &version.id().to_string())?;
    }
    if version.action == Action::Upload {
        replication::forget_source(tx, version.number, moment.steady)?;
    }
    let noted = note(tx, bucket, version, cause, moment)?;
    Ok(Aftermath { enqueued: Enqueued::Nothing, streamed: Vec::new(), noted })
}

/// Tells the workers and the figures of content that came and was committed.
pub(crate) fn announce_upload(app: &App, version: &FileVersion, aftermath: Aftermath) {
    app.metrics.uploads.one();
    app.metrics.upload_bytes.add(version.size);
    announce(app, aftermath);
}

/// Tells the workers and the figures of a change that was committed.
pub(crate) fn announce(app: &App, Aftermath { enqueued, streamed, noted }: Aftermath) {
    notifications::follow_up(app, noted);
    for streamed in streamed {
        match streamed {
            Streamed::To(stream, made, size) => {
                note_stream_job(app, stream, made, size);
                if made == StreamEnqueued::Queued {
                    app.wake.replication.notify_one();
                }
            }
            Streamed::CustomerKey => app.metrics.replication_skipped_customer_key.one(),
        }
    }
    match enqueued {
        Enqueued::Jobs(made) => {
            app.metrics.replication_jobs.add(made as u64);
            app.wake.replication.notify_one();
        }
        Enqueued::Skipped(Ineligible::LargeMetadata) => {
            app.metrics.replication_skipped_large_metadata.one();
        }
        Enqueued::Skipped(Ineligible::CustomerKey) => {
            app.metrics.replication_skipped_customer_key.one();
        }
        Enqueued::Nothing | Enqueued::Skipped(Ineligible::IsReplica | Ineligible::NotUpload) => {}
    }
}

/// Counts what became of a version in the eyes of a stream.
pub(crate) fn note_stream_job(app: &App, stream: StreamId, made: StreamEnqueued, size: u64) {
    if made == StreamEnqueued::Known {
        return;
    }
    let figures = app.metrics.stream(stream);
    match made {
        StreamEnqueued::Queued => {
            figures.files_queued.one();
            figures.bytes_queued.add(size);
        }
        StreamEnqueued::Spilled => {
            figures.files_queued.one();
            figures.bytes_queued.add(size);
            figures.spilled.one();
        }
        StreamEnqueued::Dropped => {
            figures.files_failed_to_queue.one();
            figures.bytes_failed_to_queue.add(size);
        }
        // A refused upload is among the refusals.
        StreamEnqueued::Known | StreamEnqueued::Rejected => {}
    }
}
