//! Rows of replication streams: their settings, the figures of their queues, and the walks over files
//! that were there before.

use crate::catalog::files::ScanCursor;
use crate::catalog::server_facts::take_number;
use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::ids::{AccountId, BucketId, FileNumber};
use crate::domain::remote::{RemoteId, StreamId};
use crate::domain::stream::{ENTRY_BYTES, QueueSums, Stream, StreamOptions};
use crate::domain::time::Millis;

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

/// Whether any stream goes through a remote.
pub(crate) fn uses_remote(tx: &mut dyn Tx, remote: RemoteId) -> Result<bool, Error> {
    let found = find(
        tx,
        "SELECT stream_no FROM streams WHERE remote_no = ?1 LIMIT 1",
        &[Value::Int(remote.0)],
        |row| row.int(0),
    )?;
    Ok(found.is_some())
}

/// Removes a stream with its walks; false when it is not there. Its jobs stay, for
/// [`crate::catalog::stream_jobs`].
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

/// Starts a walk. One of the same stream over the same prefix that is under way is given up for it: what
/// lies behind that one is walked again.
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
          WHERE stream_no = ?1 AND (finished_at_ms IS NOT NULL OR prefix = ?2)",
        &[Value::Int(stream.0), Value::Text(prefix)],
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
