//! Rows of replication streams: their settings, the figures of their queues, and the walks over files
//! that were there before.

use crate::catalog::files::ScanCursor;
use crate::catalog::remotes::{self, NewOrphan, target_of_remote};
use crate::catalog::replication::lane_of_stream;
use crate::catalog::server_facts::take_number;
use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::ids::{AccountId, BucketId, FileNumber};
use crate::domain::remote::{RemoteId, StreamId};
use crate::domain::replication::JobState;
use crate::domain::stream::{ENTRY_BYTES, QueueSums, Stream, StreamOptions};
use crate::domain::time::{Millis, Steady};

fn options_text(options: &StreamOptions) -> Result<String, Error> {
    serde_json::to_string(options).map_err(|_| Error::Unreadable { what: "options of a stream" })
}

/// Takes the number of a new stream.
pub(crate) fn take_id(tx: &mut dyn Tx) -> Result<StreamId, Error> {
    take_number(tx, "stream").map(StreamId)
}

/// Stores a new stream with an empty queue; [`Error::Conflict`] when its name is taken in the account.
pub(crate) fn insert_stream(tx: &mut dyn Tx, stream: &Stream) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO streams (stream_no, account_id, org_id, name, description, remote_no,
                              local_bucket_id, remote_bucket_id, remote_bucket_name,
                              max_queue_bytes, max_age_s, drop_non_retryable, is_paused, options,
                              queue_entries, queue_bytes, remaining_bytes, spilled, created_at_ms,
                              updated_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0, 0, 0, 0, ?15, ?16)",
        &[
            Value::Int(stream.id.0),
            Value::Text(&stream.account.to_string()),
            Value::Text(&stream.org_id),
            Value::Text(&stream.name),
            Value::opt_text(stream.description.as_deref()),
            Value::Int(stream.remote.0),
            Value::Text(&stream.local_bucket.to_string()),
            Value::opt_text(stream.remote_bucket_id.as_deref()),
            Value::Text(&stream.remote_bucket_name),
            Value::Int(stream.max_queue_bytes),
            Value::Int(stream.max_age_s),
            Value::Int(i64::from(stream.drop_non_retryable)),
            Value::Int(i64::from(stream.is_paused)),
            Value::Text(&options_text(&stream.options)?),
            Value::Int(stream.created_at.0),
            Value::Int(stream.updated_at.0),
        ],
    )?;
    Ok(())
}

/// Stores the settings of a stream that is there, and nothing of its queue; [`Error::Conflict`] when
/// its new name is taken.
pub(crate) fn update_stream(tx: &mut dyn Tx, stream: &Stream) -> Result<(), Error> {
    tx.execute(
        "UPDATE streams
            SET name = ?2, description = ?3, remote_no = ?4, remote_bucket_id = ?5,
                remote_bucket_name = ?6, max_queue_bytes = ?7, max_age_s = ?8,
                drop_non_retryable = ?9, is_paused = ?10, options = ?11, updated_at_ms = ?12
          WHERE stream_no = ?1",
        &[
            Value::Int(stream.id.0),
            Value::Text(&stream.name),
            Value::opt_text(stream.description.as_deref()),
            Value::Int(stream.remote.0),
            Value::opt_text(stream.remote_bucket_id.as_deref()),
            Value::Text(&stream.remote_bucket_name),
            Value::Int(stream.max_queue_bytes),
            Value::Int(stream.max_age_s),
            Value::Int(i64::from(stream.drop_non_retryable)),
            Value::Int(i64::from(stream.is_paused)),
            Value::Text(&options_text(&stream.options)?),
            Value::Int(stream.updated_at.0),
        ],
    )?;
    Ok(())
}

macro_rules! stream_columns {
    ($rest:literal) => {
        concat!(
            "SELECT stream_no, account_id, org_id, name, description, remote_no, local_bucket_id, ",
            "remote_bucket_id, remote_bucket_name, max_queue_bytes, max_age_s, ",
            "drop_non_retryable, is_paused, options, queue_entries, queue_bytes, ",
            "remaining_bytes, spilled, latest_code, latest_error, created_at_ms, updated_at_ms ",
            "FROM streams ",
            $rest
        )
    };
}

fn stream(row: &dyn Row) -> Result<Stream, Error> {
    let unreadable = |what| Error::Unreadable { what };
    let latest = match row.opt_int(18)? {
        None => None,
        Some(code) => Some((code, row.opt_text(19)?.unwrap_or_default().to_owned())),
    };
    Ok(Stream {
        id: StreamId(row.int(0)?),
        account: AccountId::parse(row.text(1)?).ok_or(unreadable("account of a stream"))?,
        org_id: row.text(2)?.to_owned(),
        name: row.text(3)?.to_owned(),
        description: row.opt_text(4)?.map(str::to_owned),
        remote: RemoteId(row.int(5)?),
        local_bucket: BucketId::parse(row.text(6)?).ok_or(unreadable("bucket of a stream"))?,
        remote_bucket_id: row.opt_text(7)?.map(str::to_owned),
        remote_bucket_name: row.text(8)?.to_owned(),
        max_queue_bytes: row.int(9)?,
        max_age_s: row.int(10)?,
        drop_non_retryable: row.flag(11)?,
        is_paused: row.flag(12)?,
        options: serde_json::from_str(row.text(13)?)
            .map_err(|_| unreadable("options of a stream"))?,
        sums: QueueSums {
            entries: row.int(14)?,
            current_bytes: row.int(15)?,
            remaining_bytes: row.int(16)?,
            spilled: row.int(17)?,
        },
        latest,
        created_at: Millis(row.int(20)?),
        updated_at: Millis(row.int(21)?),
    })
}

pub(crate) fn find_stream(tx: &mut dyn Tx, id: StreamId) -> Result<Option<Stream>, Error> {
    find(tx, stream_columns!("WHERE stream_no = ?1"), &[Value::Int(id.0)], stream)
}

/// The streams of a bucket, oldest first. Asked in the transaction of every upload.
pub(crate) fn list_of_bucket(tx: &mut dyn Tx, bucket: BucketId) -> Result<Vec<Stream>, Error> {
    bucket.with_digits(|digits| {
        collect(
            tx,
            stream_columns!("WHERE local_bucket_id = ?1 ORDER BY stream_no"),
            &[Value::Text(digits)],
            stream,
        )
    })
}

/// Which streams a listing shows; None does not restrict it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamRows {
    pub(crate) account: Option<AccountId>,
    pub(crate) name: Option<String>,
    pub(crate) remote: Option<RemoteId>,
    pub(crate) local_bucket: Option<BucketId>,
}

/// Streams, oldest first. There are few: an account may have a limited number.
pub(crate) fn list_streams(tx: &mut dyn Tx, rows: &StreamRows) -> Result<Vec<Stream>, Error> {
    let account = rows.account.map(|id| id.to_string());
    let bucket = rows.local_bucket.map(|id| id.to_string());
    collect(
        tx,
        stream_columns!(
            "WHERE (CAST(?1 AS TEXT) IS NULL OR account_id = ?1)
               AND (CAST(?2 AS TEXT) IS NULL OR name = ?2)
               AND (CAST(?3 AS BIGINT) IS NULL OR remote_no = ?3)
               AND (CAST(?4 AS TEXT) IS NULL OR local_bucket_id = ?4)
             ORDER BY stream_no"
        ),
        &[
            Value::opt_text(account.as_deref()),
            Value::opt_text(rows.name.as_deref()),
            Value::opt_int(rows.remote.map(|id| id.0)),
            Value::opt_text(bucket.as_deref()),
        ],
        stream,
    )
}

/// How many streams there are, of one account or of all.
pub(crate) fn count_streams(tx: &mut dyn Tx, account: Option<AccountId>) -> Result<i64, Error> {
    let account = account.map(|id| id.to_string());
    let count = find(
        tx,
        "SELECT CAST(COUNT(*) AS BIGINT) FROM streams
          WHERE (CAST(?1 AS TEXT) IS NULL OR account_id = ?1)",
        &[Value::opt_text(account.as_deref())],
        |row| row.int(0),
    )?;
    Ok(count.unwrap_or_default())
}

/// Removes a stream with its walks; false when it is not there. Its jobs stay, for
/// [`crate::catalog::replication`].
pub(crate) fn delete_stream(tx: &mut dyn Tx, id: StreamId) -> Result<bool, Error> {
    tx.execute("DELETE FROM stream_scans WHERE stream_no = ?1", &[Value::Int(id.0)])?;
    let removed = tx.execute("DELETE FROM streams WHERE stream_no = ?1", &[Value::Int(id.0)])?;
    Ok(removed > 0)
}

/// Adds a change of one or more jobs to the figures of their stream; one that is gone counts nothing.
pub(crate) fn add_sums(tx: &mut dyn Tx, id: StreamId, change: QueueSums) -> Result<(), Error> {
    if change == QueueSums::default() {
        return Ok(());
    }
    tx.execute(
        "UPDATE streams
            SET queue_entries = queue_entries + ?2, queue_bytes = queue_bytes + ?3,
                remaining_bytes = remaining_bytes + ?4, spilled = spilled + ?5
          WHERE stream_no = ?1",
        &[
            Value::Int(id.0),
            Value::Int(change.entries),
            Value::Int(change.current_bytes),
            Value::Int(change.remaining_bytes),
            Value::Int(change.spilled),
        ],
    )?;
    Ok(())
}

/// The figures of a stream as its jobs make them: what is stored must be the same.
pub(crate) fn recount_sums(tx: &mut dyn Tx, id: StreamId) -> Result<QueueSums, Error> {
    let counted = find(
        tx,
        "SELECT CAST(COALESCE(SUM(CASE WHEN state = 'spilled' THEN 0 ELSE 1 END), 0) AS BIGINT),
                CAST(COALESCE(SUM(CASE WHEN state = 'spilled' THEN 0 ELSE size + ?2 END), 0)
                     AS BIGINT),
                CAST(COALESCE(SUM(CASE WHEN state = 'spilled' THEN 0
                                       ELSE size - confirmed + ?2 END), 0) AS BIGINT),
                CAST(COALESCE(SUM(CASE WHEN state = 'spilled' THEN 1 ELSE 0 END), 0) AS BIGINT)
           FROM replication_jobs
          WHERE stream_no = ?1 AND state IN ('ready', 'leased', 'parked', 'spilled')",
        &[Value::Int(id.0), Value::Int(ENTRY_BYTES)],
        |row| {
            Ok(QueueSums {
                entries: row.int(0)?,
                current_bytes: row.int(1)?,
                remaining_bytes: row.int(2)?,
                spilled: row.int(3)?,
            })
        },
    )?;
    Ok(counted.unwrap_or_default())
}

/// Notes what the remote answered last, 0 when it did not answer. Text is empty after a success.
pub(crate) fn set_latest(
    tx: &mut dyn Tx,
    id: StreamId,
    code: i64,
    error: &str,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE streams SET latest_code = ?2, latest_error = ?3
          WHERE stream_no = ?1
            AND (latest_code IS NULL OR latest_code <> ?2 OR latest_error <> ?3)",
        &[Value::Int(id.0), Value::Int(code), Value::Text(error)],
    )?;
    Ok(())
}

/// Forgets what was begun at the remote for jobs of a stream, and leaves it to be cancelled there: the
/// stream goes, or leads elsewhere from now on. What was confirmed is to be carried anew. `stream` is
/// as it was when they were begun.
pub(crate) fn orphan_sessions(tx: &mut dyn Tx, stream: &Stream, now: Steady) -> Result<(), Error> {
    let begun = collect(
        tx,
        "SELECT source_file_name, session, state, size, confirmed FROM replication_jobs
          WHERE stream_no = ?1 AND session IS NOT NULL ORDER BY job_id",
        &[Value::Int(stream.id.0)],
        |row| {
            let state = JobState::parse(row.text(2)?);
            let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
            Ok((
                row.text(0)?.to_owned(),
                row.text(1)?.to_owned(),
                state.ok_or(Error::Unreadable { what: "state of a job" })?,
                (unsigned(row.int(3)?), unsigned(row.int(4)?)),
            ))
        },
    )?;
    let mut change = QueueSums::default();
    for (file_name, session, state, (size, confirmed)) in begun {
        let orphan = NewOrphan {
            remote: stream.remote,
            bucket: &stream.remote_bucket(),
            file_name: &stream.remote_name(&file_name),
            session: &session,
        };
        remotes::insert_orphan(tx, &orphan, now)?;
        let counted = |confirmed| QueueSums::of_job(state, size, confirmed);
        change = change.plus(QueueSums::change(counted(confirmed), counted(0)));
    }
    tx.execute(
        "UPDATE replication_jobs SET session = NULL, confirmed = 0, parts_done = 0, parts_total = 0
          WHERE stream_no = ?1 AND session IS NOT NULL",
        &[Value::Int(stream.id.0)],
    )?;
    add_sums(tx, stream.id, change)
}

/// Takes jobs of a stream from whoever is at work on them: what they do leads to where the stream no
/// longer goes, so it is not to be noted.
pub(crate) fn revoke_leases(tx: &mut dyn Tx, id: StreamId, now: Steady) -> Result<(), Error> {
    tx.execute(
        "UPDATE replication_jobs
            SET state = 'ready', next_attempt_at_ms = ?2, lease_owner = NULL,
                lease_until_ms = NULL, lease_epoch = lease_epoch + 1
          WHERE stream_no = ?1 AND state = 'leased'",
        &[Value::Int(id.0), Value::Int(now.0)],
    )?;
    Ok(())
}

/// Puts up to `limit` jobs in one state after the job `after` into the lane that their stream has now;
/// answers up to which job, None when there are no more.
pub(crate) fn relabel_jobs(
    tx: &mut dyn Tx,
    stream: &Stream,
    state: JobState,
    after: i64,
    limit: i64,
) -> Result<Option<i64>, Error> {
    let last = find(
        tx,
        "SELECT MAX(job_id) FROM (
           SELECT job_id FROM replication_jobs
            WHERE stream_no = ?1 AND state = ?2 AND job_id > ?3 ORDER BY job_id LIMIT ?4) batch",
        &[
            Value::Int(stream.id.0),
            Value::Text(state.as_str()),
            Value::Int(after),
            Value::Int(limit),
        ],
        |row| row.opt_int(0),
    )?;
    let Some(last) = last.flatten() else { return Ok(None) };
    tx.execute(
        "UPDATE replication_jobs SET lane = ?5, target = ?6
          WHERE stream_no = ?1 AND state = ?2 AND job_id > ?3 AND job_id <= ?4",
        &[
            Value::Int(stream.id.0),
            Value::Text(state.as_str()),
            Value::Int(after),
            Value::Int(last),
            Value::Text(&lane_of_stream(stream)),
            Value::Text(&target_of_remote(stream.remote)),
        ],
    )?;
    Ok(Some(last))
}

/// Lets the jobs of a stream go at once that wait after a failure: what they failed of may be mended.
pub(crate) fn make_due(tx: &mut dyn Tx, stream: &Stream, now: Steady) -> Result<(), Error> {
    for origin in ["upload", "scan"] {
        tx.execute(
            "UPDATE replication_jobs SET next_attempt_at_ms = ?3
              WHERE lane = ?1 AND origin = ?2 AND state = 'ready' AND next_attempt_at_ms > ?3",
            &[Value::Text(&lane_of_stream(stream)), Value::Text(origin), Value::Int(now.0)],
        )?;
    }
    Ok(())
}

/// The job that a version has in a stream, with its state.
pub(crate) fn find_job_of_file(
    tx: &mut dyn Tx,
    id: StreamId,
    file: FileNumber,
) -> Result<Option<(i64, JobState)>, Error> {
    find(
        tx,
        "SELECT job_id, state FROM replication_jobs WHERE source_file_no = ?2 AND stream_no = ?1",
        &[Value::Int(id.0), Value::Int(file.0)],
        |row| {
            let state = JobState::parse(row.text(1)?);
            Ok((row.int(0)?, state.ok_or(Error::Unreadable { what: "state of a job" })?))
        },
    )
}

/// Lets a job that has ended go again, as one born of a scan: it begins with looking whether its version
/// is at the remote. `stream` is as this transaction sees it, its figures are moved on in it. False
/// when the job has not ended.
pub(crate) fn carry_again(
    tx: &mut dyn Tx,
    stream: &mut Stream,
    job_id: i64,
    size: u64,
    now: Steady,
) -> Result<bool, Error> {
    let reopened = tx.execute(
        "UPDATE replication_jobs
            SET state = 'ready', origin = 'scan', lane = ?3, target = ?4, attempts = 0, crashes = 0,
                confirmed = 0, parts_done = 0, parts_total = 0, next_attempt_at_ms = ?5,
                enqueued_at_ms = ?5, finished_at_ms = NULL, last_reason = NULL, last_error = NULL,
                dest_file_id = NULL
          WHERE job_id = ?2 AND stream_no = ?1
            AND state IN ('done', 'failed', 'cancelled', 'dropped')",
        &[
            Value::Int(stream.id.0),
            Value::Int(job_id),
            Value::Text(&lane_of_stream(stream)),
            Value::Text(&target_of_remote(stream.remote)),
            Value::Int(now.0),
        ],
    )?;
    if reopened > 0 {
        let added = QueueSums::of_job(JobState::Ready, size, 0);
        add_sums(tx, stream.id, added)?;
        stream.sums = stream.sums.plus(added);
    }
    Ok(reopened > 0)
}

/// The job that has waited longest outside of the queue of a stream.
pub(crate) fn first_spilled(tx: &mut dyn Tx, id: StreamId) -> Result<Option<i64>, Error> {
    let first = find(
        tx,
        "SELECT MIN(job_id) FROM replication_jobs WHERE stream_no = ?1 AND state = 'spilled'",
        &[Value::Int(id.0)],
        |row| row.opt_int(0),
    )?;
    Ok(first.flatten())
}

/// The first stream after `after` that jobs are left of and that is gone.
pub(crate) fn next_gone_stream(
    tx: &mut dyn Tx,
    after: StreamId,
) -> Result<Option<StreamId>, Error> {
    let gone = find(
        tx,
        "WITH RECURSIVE s(stream) AS (
           SELECT MIN(stream_no) FROM replication_jobs WHERE stream_no > ?1
           UNION ALL
           SELECT (SELECT MIN(stream_no) FROM replication_jobs WHERE stream_no > s.stream)
             FROM s WHERE s.stream IS NOT NULL)
         SELECT MIN(stream) FROM s
          WHERE stream IS NOT NULL AND stream NOT IN (SELECT stream_no FROM streams)",
        &[Value::Int(after.0)],
        |row| row.opt_int(0),
    )?;
    Ok(gone.flatten().map(StreamId))
}

/// A file on its way, or how it ended. Its times are on the time line of waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamFile {
    pub(crate) job_id: i64,
    pub(crate) file_id: String,
    pub(crate) file_name: String,
    pub(crate) size: u64,
    pub(crate) state: JobState,
    pub(crate) attempts: u32,
    /// Bytes that the remote has acknowledged.
    pub(crate) confirmed: u64,
    /// 0 of 0 for a file that is not sent in parts, or not yet.
    pub(crate) parts_done: u32,
    pub(crate) parts_total: u32,
    pub(crate) enqueued_at: Steady,
    pub(crate) next_attempt_at: Steady,
    pub(crate) finished_at: Option<Steady>,
    pub(crate) last_reason: Option<String>,
    /// What the remote answered last; 0 when it gave no answer.
    pub(crate) last_status: Option<i64>,
    pub(crate) last_error: Option<String>,
    /// What the version is called at the remote.
    pub(crate) remote_file_id: Option<String>,
}

/// The files of a stream after the job `after`, in one state or in any, oldest first.
pub(crate) fn list_files(
    tx: &mut dyn Tx,
    id: StreamId,
    state: Option<JobState>,
    after: i64,
    limit: usize,
) -> Result<Vec<StreamFile>, Error> {
    let mut files = Vec::new();
    // The index has the jobs of a stream by state, so each is asked for on its own.
    for state in JobState::ALL.into_iter().filter(|one| state.is_none_or(|state| state == *one)) {
        files.extend(files_in_state(tx, id, state, after, limit)?);
    }
    files.sort_by_key(|file| file.job_id);
    files.truncate(limit);
    Ok(files)
}

fn files_in_state(
    tx: &mut dyn Tx,
    id: StreamId,
    state: JobState,
    after: i64,
    limit: usize,
) -> Result<Vec<StreamFile>, Error> {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    collect(
        tx,
        "SELECT job_id, source_file_id, source_file_name, size, attempts, confirmed, parts_done,
                parts_total, enqueued_at_ms, next_attempt_at_ms, finished_at_ms, last_reason,
                last_status, last_error, dest_file_id
           FROM replication_jobs
          WHERE stream_no = ?1 AND state = ?2 AND job_id > ?3 ORDER BY job_id LIMIT ?4",
        &[
            Value::Int(id.0),
            Value::Text(state.as_str()),
            Value::Int(after),
            Value::Int(i64::try_from(limit).unwrap_or(i64::MAX)),
        ],
        |row| {
            Ok(StreamFile {
                job_id: row.int(0)?,
                file_id: row.text(1)?.to_owned(),
                file_name: row.text(2)?.to_owned(),
                size: unsigned(row.int(3)?),
                state,
                attempts: count(row.int(4)?),
                confirmed: unsigned(row.int(5)?),
                parts_done: count(row.int(6)?),
                parts_total: count(row.int(7)?),
                enqueued_at: Steady(row.int(8)?),
                next_attempt_at: Steady(row.int(9)?),
                finished_at: row.opt_int(10)?.map(Steady),
                last_reason: row.opt_text(11)?.map(str::to_owned),
                last_status: row.opt_int(12)?,
                last_error: row.opt_text(13)?.map(str::to_owned),
                remote_file_id: row.opt_text(14)?.map(str::to_owned),
            })
        },
    )
}

/// A walk of a stream over files that were there before, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamScan {
    pub(crate) id: i64,
    pub(crate) stream: StreamId,
    /// Of the names that are looked at; empty for all.
    pub(crate) prefix: String,
    /// Only versions that were uploaded before this.
    pub(crate) before: Option<Millis>,
    /// Also carry again what was carried before, should it be gone at the remote.
    pub(crate) carries_again: bool,
    pub(crate) cursor: Option<ScanCursor>,
    pub(crate) seen: i64,
    pub(crate) enqueued: i64,
    pub(crate) skipped: i64,
}

/// Starts a walk. One of the same stream over the same prefix that is under way is given up for it if the
/// new one looks at all that the other would.
pub(crate) fn start_scan(
    tx: &mut dyn Tx,
    stream: StreamId,
    prefix: &str,
    before: Option<Millis>,
    carries_again: bool,
    now: Millis,
) -> Result<i64, Error> {
    tx.execute(
        "DELETE FROM stream_scans
          WHERE stream_no = ?1
            AND (finished_at_ms IS NOT NULL
                 OR (prefix = ?2 AND carries_again <= ?4
                     AND (CAST(?3 AS BIGINT) IS NULL OR before_ms <= ?3)))",
        &[
            Value::Int(stream.0),
            Value::Text(prefix),
            Value::opt_int(before.map(|at| at.0)),
            Value::Int(i64::from(carries_again)),
        ],
    )?;
    let id = take_number(tx, "replication_scan")?;
    tx.execute(
        "INSERT INTO stream_scans (scan_id, stream_no, prefix, before_ms, carries_again, seen,
                                   enqueued, skipped, started_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0, ?6)",
        &[
            Value::Int(id),
            Value::Int(stream.0),
            Value::Text(prefix),
            Value::opt_int(before.map(|at| at.0)),
            Value::Int(i64::from(carries_again)),
            Value::Int(now.0),
        ],
    )?;
    Ok(id)
}

macro_rules! scan_columns {
    ($rest:literal) => {
        concat!(
            "SELECT scan_id, stream_no, prefix, before_ms, carries_again, cursor_name, ",
            "cursor_upload_ms, cursor_origin, seen, enqueued, skipped FROM stream_scans ",
            $rest
        )
    };
}

fn scan(row: &dyn Row) -> Result<StreamScan, Error> {
    let cursor = match row.opt_text(5)? {
        None => None,
        Some(name) => Some(ScanCursor {
            name: name.to_owned(),
            upload_at: Millis(row.int(6)?),
            origin: FileNumber(row.int(7)?),
        }),
    };
    Ok(StreamScan {
        id: row.int(0)?,
        stream: StreamId(row.int(1)?),
        prefix: row.text(2)?.to_owned(),
        before: row.opt_int(3)?.map(Millis),
        carries_again: row.flag(4)?,
        cursor,
        seen: row.int(8)?,
        enqueued: row.int(9)?,
        skipped: row.int(10)?,
    })
}

/// A walk that is still under way.
pub(crate) fn find_scan(tx: &mut dyn Tx, id: i64) -> Result<Option<StreamScan>, Error> {
    find(
        tx,
        scan_columns!("WHERE scan_id = ?1 AND finished_at_ms IS NULL"),
        &[Value::Int(id)],
        scan,
    )
}

/// Walks that are under way, oldest first, of one stream or of all.
pub(crate) fn list_running_scans(
    tx: &mut dyn Tx,
    stream: Option<StreamId>,
) -> Result<Vec<StreamScan>, Error> {
    collect(
        tx,
        scan_columns!(
            "WHERE finished_at_ms IS NULL AND (CAST(?1 AS BIGINT) IS NULL OR stream_no = ?1)
             ORDER BY scan_id"
        ),
        &[Value::opt_int(stream.map(|id| id.0))],
        scan,
    )
}

/// Stores how far a walk has got; false when it was given up meanwhile.
pub(crate) fn advance_scan(
    tx: &mut dyn Tx,
    scan: &StreamScan,
    finished_at: Option<Millis>,
) -> Result<bool, Error> {
    let cursor = scan.cursor.as_ref();
    let advanced = tx.execute(
        "UPDATE stream_scans
            SET cursor_name = ?2, cursor_upload_ms = ?3, cursor_origin = ?4, seen = ?5,
                enqueued = ?6, skipped = ?7, finished_at_ms = ?8
          WHERE scan_id = ?1 AND finished_at_ms IS NULL",
        &[
            Value::Int(scan.id),
            Value::opt_text(cursor.map(|cursor| cursor.name.as_str())),
            Value::opt_int(cursor.map(|cursor| cursor.upload_at.0)),
            Value::opt_int(cursor.map(|cursor| cursor.origin.0)),
            Value::Int(scan.seen),
            Value::Int(scan.enqueued),
            Value::Int(scan.skipped),
            Value::opt_int(finished_at.map(|at| at.0)),
        ],
    )?;
    Ok(advanced > 0)
}

/// Streams that are paused.
pub(crate) fn list_paused(tx: &mut dyn Tx) -> Result<Vec<Stream>, Error> {
    collect(tx, stream_columns!("WHERE is_paused = 1 ORDER BY stream_no"), &[], stream)
}
