//! Rows of replication: jobs with their leases, origins of replicas, targets, scans.
//!
//! A job is claimed by a lease with an epoch. Whoever writes an outcome names owner and epoch;
//! when no row answers, the lease was lost and nothing may be done.

use crate::catalog::files::{self, ScanCursor};
use crate::catalog::remotes::{self, NewOrphan, target_of_remote};
use crate::catalog::server_facts::{self, take_number};
use crate::catalog::streams;
use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::file::FileVersion;
use crate::domain::ids::{AccountId, BucketId, FileNumber, KeyId};
use crate::domain::remote::{RemoteBucket, StreamId};
use crate::domain::replication::{JobState, Reason, shown_status};
use crate::domain::stream::{OnQueueFull, QueueSums, Stream};
use crate::domain::time::{Millis, Steady};

/// How a job came to be. Upload-born jobs go before scan-born ones, but never strictly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum JobOrigin {
    Upload,
    Scan,
}

impl JobOrigin {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Scan => "scan",
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "upload" => Ok(Self::Upload),
            "scan" => Ok(Self::Scan),
            _ => Err(Error::Unreadable { what: "job origin" }),
        }
    }
}

/// A job of a rule, about to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewJob<'a> {
    /// Of the source bucket.
    pub(crate) account: AccountId,
    pub(crate) source_bucket: BucketId,
    pub(crate) destination: BucketId,
    pub(crate) file_number: FileNumber,
    pub(crate) file_id: &'a str,
    pub(crate) file_name: &'a str,
    pub(crate) source_key: &'a str,
    pub(crate) rule_name: &'a str,
    pub(crate) origin: JobOrigin,
    pub(crate) size: u64,
}

/// In front of a bucket id in the key of a destination.
const BUCKET_KEY: &str = "b:";
/// In front of a stream id in the key of a destination.
const STREAM_KEY: &str = "s:";

/// The origin of the replicas of a version of this server.
pub(crate) fn origin_of(instance: &str, file_id: &str) -> String {
    format!("{instance}.{file_id}")
}

/// The name of a destination bucket among targets.
pub(crate) fn target_of(destination: BucketId) -> String {
    format!("bucket:{destination}")
}

fn lane_of(target: &str, source: &str) -> String {
    format!("{target}|{source}")
}

/// The lane of the jobs of a stream. It has one of its own, so that it can be paused.
pub(crate) fn lane_of_stream(stream: &Stream) -> String {
    lane_of(&target_of_remote(stream.remote), &format!("{STREAM_KEY}{}", stream.id))
}

/// Where a destination bucket is reached: in this server, or through a remote.
fn target_of_rule(
    tx: &mut dyn Tx,
    account: AccountId,
    destination: BucketId,
) -> Result<String, Error> {
    let stored = remotes::find_remote_to(tx, destination, account)?;
    let target = stored.map(|stored| target_of_remote(stored.remote.id));
    Ok(target.unwrap_or_else(|| target_of(destination)))
}

/// The columns of a new job that differ.
struct Inserted<'a> {
    lane: &'a str,
    target: &'a str,
    dest_key: &'a str,
    source_bucket: BucketId,
    file_number: FileNumber,
    file_id: &'a str,
    file_name: &'a str,
    rule: Option<(&'a str, &'a str)>,
    stream: Option<StreamId>,
    origin: JobOrigin,
    size: u64,
    state: JobState,
    enqueued_at: Steady,
}

/// Makes a job unless the version already has one for the destination; true when it was made.
fn insert(tx: &mut dyn Tx, job: &Inserted<'_>) -> Result<bool, Error> {
    let job_id = take_number(tx, "replication_job")?;
    let made = tx.execute(
        "INSERT INTO replication_jobs (job_id, lane, target, dest_key, source_bucket_id,
           source_file_no, source_file_id, source_file_name, source_key_id, rule_name, stream_no,
           origin, size, confirmed, state, attempts, crashes, next_attempt_at_ms, enqueued_at_ms,
           lease_epoch)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, ?14, 0, 0, ?15, ?15, 0)
         ON CONFLICT (dest_key, source_file_no) DO NOTHING",
        &[
            Value::Int(job_id),
            Value::Text(job.lane),
            Value::Text(job.target),
            Value::Text(job.dest_key),
            Value::Text(&job.source_bucket.to_string()),
            Value::Int(job.file_number.0),
            Value::Text(job.file_id),
            Value::Text(job.file_name),
            Value::opt_text(job.rule.map(|(source_key, _)| source_key)),
            Value::opt_text(job.rule.map(|(_, name)| name)),
            Value::opt_int(job.stream.map(|stream| stream.0)),
            Value::Text(job.origin.as_str()),
            Value::Int(i64::try_from(job.size).unwrap_or(i64::MAX)),
            Value::Text(job.state.as_str()),
            Value::Int(job.enqueued_at.0),
        ],
    )?;
    Ok(made > 0)
}

/// Makes the job of a rule unless the version already has one for the destination; true when it was
/// made.
pub(crate) fn insert_job(tx: &mut dyn Tx, job: &NewJob<'_>, now: Steady) -> Result<bool, Error> {
    let target = target_of_rule(tx, job.account, job.destination)?;
    let inserted = Inserted {
        lane: &lane_of(&target, &job.source_bucket.to_string()),
        target: &target,
        dest_key: &format!("{BUCKET_KEY}{}", job.destination),
        source_bucket: job.source_bucket,
        file_number: job.file_number,
        file_id: job.file_id,
        file_name: job.file_name,
        rule: Some((job.source_key, job.rule_name)),
        stream: None,
        origin: job.origin,
        size: job.size,
        state: JobState::Ready,
        enqueued_at: now,
    };
    insert(tx, &inserted)
}

/// What became of a version in the eyes of a stream that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnqueued {
    Queued,
    /// The queue is full; the job waits outside of it.
    Spilled,
    /// The queue is full, and the stream carries what fits.
    Dropped,
    /// The queue is full, and the stream wants uploads to fail then.
    Rejected,
    /// It has a job already.
    Known,
}

/// Whether the queue of a stream takes an entry of this size: there is room, or nothing in the queue
/// gets on by itself, so that what is blocked for good blocks no file that is larger than the rest.
pub(crate) fn admits(
    tx: &mut dyn Tx,
    stream: &Stream,
    sums: QueueSums,
    size: u64,
) -> Result<bool, Error> {
    if sums.admits(size, stream.max_queue_bytes) {
        return Ok(true);
    }
    Ok(sums.spilled == 0 && !gets_on(tx, stream.id)?)
}

/// Whether anything in the queue of a stream gets on without help from outside.
fn gets_on(tx: &mut dyn Tx, stream: StreamId) -> Result<bool, Error> {
    let found = find(
        tx,
        "SELECT job_id FROM replication_jobs
          WHERE stream_no = ?1
            AND (state = 'leased' OR (state = 'ready'
                 AND (last_reason IS NULL OR last_reason NOT IN (?2, ?3)))) LIMIT 1",
        &[
            Value::Int(stream.0),
            Value::Text(Reason::RemoteRejected.as_str()),
            Value::Text(Reason::SourceCorrupt.as_str()),
        ],
        |row| row.int(0),
    )?;
    Ok(found.is_some())
}

/// Makes the job of a stream for a version, if its queue takes it. `stream` is as this transaction
/// sees it; its figures are moved on in it as well, for the next version. Jobs born of a scan are
/// never lost to a full queue.
pub(crate) fn insert_stream_job(
    tx: &mut dyn Tx,
    stream: &mut Stream,
    version: &FileVersion,
    origin: JobOrigin,
    enqueued_at: Steady,
) -> Result<StreamEnqueued, Error> {
    let state = if admits(tx, stream, stream.sums, version.size)? {
        JobState::Ready
    } else {
        match stream.options.on_queue_full {
            OnQueueFull::Drop if origin == JobOrigin::Upload => return Ok(StreamEnqueued::Dropped),
            OnQueueFull::Reject if origin == JobOrigin::Upload => {
                return Ok(StreamEnqueued::Rejected);
            }
            OnQueueFull::Spill | OnQueueFull::Drop | OnQueueFull::Reject => JobState::Spilled,
        }
    };
    let inserted = Inserted {
        lane: &lane_of_stream(stream),
        target: &target_of_remote(stream.remote),
        dest_key: &format!("{STREAM_KEY}{}", stream.id),
        source_bucket: stream.local_bucket,
        file_number: version.number,
        file_id: &version.id().to_string(),
        file_name: version.name.as_str(),
        rule: None,
        stream: Some(stream.id),
        origin,
        size: version.size,
        state,
        enqueued_at,
    };
    if !insert(tx, &inserted)? {
        return Ok(StreamEnqueued::Known);
    }
    let added = QueueSums::of_job(state, version.size, 0);
    streams::add_sums(tx, stream.id, added)?;
    stream.sums = stream.sums.plus(added);
    Ok(if state == JobState::Ready { StreamEnqueued::Queued } else { StreamEnqueued::Spilled })
}

/// What a job is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A rule of the source's bucket, as it was when the job was made.
    Rule(RuleRoute),
    Stream(StreamId),
}

/// To which bucket a rule leads, and by which rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleRoute {
    pub(crate) destination: BucketId,
    pub(crate) source_key: KeyId,
    pub(crate) rule_name: String,
}

/// A job as it is stored. Its times are on the time line of waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) id: i64,
    pub(crate) lane: String,
    pub(crate) target: String,
    pub(crate) route: Route,
    pub(crate) source_bucket: BucketId,
    pub(crate) file_number: FileNumber,
    pub(crate) file_id: String,
    pub(crate) file_name: String,
    pub(crate) origin: JobOrigin,
    pub(crate) size: u64,
    /// Bytes that a remote has acknowledged.
    pub(crate) confirmed: u64,
    /// What has been begun at a remote.
    pub(crate) session: Option<String>,
    pub(crate) state: JobState,
    pub(crate) attempts: u32,
    pub(crate) crashes: u32,
    pub(crate) next_attempt_at: Steady,
    pub(crate) enqueued_at: Steady,
    pub(crate) finished_at: Option<Steady>,
    pub(crate) lease_epoch: i64,
    pub(crate) last_reason: Option<String>,
    /// What a remote answered last; 0 when it gave no answer.
    pub(crate) last_status: Option<i64>,
    pub(crate) last_error: Option<String>,
    pub(crate) dest_file_id: Option<String>,
}

impl Job {
    /// The route of a job of a rule.
    pub(crate) fn rule(&self) -> Option<&RuleRoute> {
        match &self.route {
            Route::Rule(rule) => Some(rule),
            Route::Stream(_) => None,
        }
    }

    /// The stream of a job of one.
    pub(crate) fn stream(&self) -> Option<StreamId> {
        match self.route {
            Route::Rule(_) => None,
            Route::Stream(stream) => Some(stream),
        }
    }

    /// The route of a job that is known to be one of a rule.
    #[cfg(test)]
    pub(crate) fn of_rule(&self) -> &RuleRoute {
        self.rule().expect("a job of a rule")
    }

    fn sums(&self) -> QueueSums {
        QueueSums::of_job(self.state, self.size, self.confirmed)
    }
}

/// How many columns `job_columns` names.
const JOB_COLUMNS_END: usize = 26;

macro_rules! job_columns {
    () => {
        "job_id, lane, target, dest_key, source_bucket_id, source_file_no, source_file_id, \
         source_file_name, source_key_id, rule_name, stream_no, origin, size, confirmed, session, \
         state, attempts, crashes, next_attempt_at_ms, enqueued_at_ms, finished_at_ms, \
         lease_epoch, last_reason, last_status, last_error, dest_file_id"
    };
}

fn job(row: &dyn Row) -> Result<Job, Error> {
    let unreadable = |what| Error::Unreadable { what };
    let count = |column| -> Result<u32, Error> {
        u32::try_from(row.int(column)?).map_err(|_| unreadable("count of a job"))
    };
    let bytes = |column| -> Result<u64, Error> {
        u64::try_from(row.int(column)?).map_err(|_| unreadable("size of a job"))
    };
    let route = if let Some(stream) = row.opt_int(10)? {
        Route::Stream(StreamId(stream))
    } else {
        let destination = row.text(3)?.strip_prefix(BUCKET_KEY).and_then(BucketId::parse);
        Route::Rule(RuleRoute {
            destination: destination.ok_or(unreadable("destination of a job"))?,
            source_key: KeyId::named(row.text(8)?),
            rule_name: row.text(9)?.to_owned(),
        })
    };
    Ok(Job {
        id: row.int(0)?,
        lane: row.text(1)?.to_owned(),
        target: row.text(2)?.to_owned(),
        route,
        source_bucket: BucketId::parse(row.text(4)?).ok_or(unreadable("source of a job"))?,
        file_number: FileNumber(row.int(5)?),
        file_id: row.text(6)?.to_owned(),
        file_name: row.text(7)?.to_owned(),
        origin: JobOrigin::parse(row.text(11)?)?,
        size: bytes(12)?,
        confirmed: bytes(13)?,
        session: row.opt_text(14)?.map(str::to_owned),
        state: JobState::parse(row.text(15)?).ok_or(unreadable("state of a job"))?,
        attempts: count(16)?,
        crashes: count(17)?,
        next_attempt_at: Steady(row.int(18)?),
        enqueued_at: Steady(row.int(19)?),
        finished_at: row.opt_int(20)?.map(Steady),
        lease_epoch: row.int(21)?,
        last_reason: row.opt_text(22)?.map(str::to_owned),
        last_status: row.opt_int(23)?,
        last_error: row.opt_text(24)?.map(str::to_owned),
        dest_file_id: row.opt_text(25)?.map(str::to_owned),
    })
}

/// The first job of a lane that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DueHead {
    pub(crate) lane: String,
    pub(crate) target: String,
    pub(crate) origin: JobOrigin,
    pub(crate) size: u64,
}

/// For about `limit` lanes with due jobs, from the lane `from` on and then from the first one,
/// the first due job of each origin. The claim index is searched once for each lane, however many
/// jobs wait in it.
pub(crate) fn due_heads(
    tx: &mut dyn Tx,
    now: Steady,
    from: &str,
    limit: usize,
) -> Result<Vec<DueHead>, Error> {
    let mut heads = Vec::new();
    // From `from` to the end, then from the beginning to `from`.
    for (mut start, end) in [(from.to_owned(), None), (String::new(), Some(from))] {
        loop {
            let lanes = waiting_lanes(tx, &start, limit)?;
            let more = lanes.len() == limit;
            for lane in lanes {
                if heads.len() >= limit || end.is_some_and(|end| lane.as_str() >= end) {
                    break;
                }
                append_due(tx, &lane, now, &mut heads)?;
                // The smallest text that is greater.
                start = lane + "\u{1}";
            }
            let ended = end.is_some_and(|end| start.as_str() >= end);
            if !more || ended || heads.len() >= limit {
                break;
            }
        }
    }
    Ok(heads)
}

fn append_due(
    tx: &mut dyn Tx,
    lane: &str,
    now: Steady,
    heads: &mut Vec<DueHead>,
) -> Result<(), Error> {
    for origin in [JobOrigin::Upload, JobOrigin::Scan] {
        let head = find(
            tx,
            "SELECT target, size FROM replication_jobs
              WHERE lane = ?1 AND origin = ?2 AND state = 'ready' AND next_attempt_at_ms <= ?3
              ORDER BY next_attempt_at_ms, job_id LIMIT 1",
            &[Value::Text(lane), Value::Text(origin.as_str()), Value::Int(now.0)],
            |row| Ok((row.text(0)?.to_owned(), row.int(1)?)),
        )?;
        if let Some((target, size)) = head {
            let size = u64::try_from(size).unwrap_or_default();
            heads.push(DueHead { lane: lane.to_owned(), target, origin, size });
        }
    }
    Ok(())
}

/// Lanes with jobs that wait, due or not, in the order of their names.
fn waiting_lanes(tx: &mut dyn Tx, from: &str, limit: usize) -> Result<Vec<String>, Error> {
    collect(
        tx,
        "WITH RECURSIVE l(lane) AS (
           SELECT MIN(lane) FROM replication_jobs WHERE state = 'ready' AND lane >= ?1
           UNION ALL
           SELECT (SELECT MIN(lane) FROM replication_jobs WHERE state = 'ready' AND lane > l.lane)
             FROM l WHERE l.lane IS NOT NULL)
         SELECT lane FROM l WHERE lane IS NOT NULL LIMIT ?2",
        &[Value::Text(from), Value::Int(i64::try_from(limit).unwrap_or(i64::MAX))],
        |row| Ok(row.text(0)?.to_owned()),
    )
}

/// Whether any job is leased, to whomever.
pub(crate) fn has_leased(tx: &mut dyn Tx) -> Result<bool, Error> {
    let leased = find(
        tx,
        "SELECT job_id FROM replication_jobs
          WHERE state = 'leased' AND lease_until_ms IS NOT NULL LIMIT 1",
        &[],
        |row| row.int(0),
    )?;
    Ok(leased.is_some())
}

/// When the next job becomes due, None when no job waits.
pub(crate) fn next_due_at(tx: &mut dyn Tx) -> Result<Option<Steady>, Error> {
    let earliest = find(
        tx,
        "SELECT MIN(next_attempt_at_ms) FROM replication_jobs WHERE state = 'ready'",
        &[],
        |row| row.opt_int(0),
    )?;
    Ok(earliest.flatten().map(Steady))
}

/// The moment before which no wait can have begun that is in the catalog: none is longer than
/// `longest_ms`. None when nothing waits.
pub(crate) fn waits_begun_by(tx: &mut dyn Tx, longest_ms: i64) -> Result<Option<Steady>, Error> {
    let latest = find(
        tx,
        "SELECT MAX(until) FROM (
           SELECT MAX(next_attempt_at_ms) AS until FROM replication_jobs WHERE state = 'ready'
           UNION ALL SELECT MAX(open_until_ms) FROM replication_targets) AS waits",
        &[],
        |row| row.opt_int(0),
    )?;
    Ok(latest.flatten().map(|until| Steady(until).plus(-longest_ms)))
}

/// Who claims, and until when (monotonic time of the claiming process).
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) owner: String,
    pub(crate) until: Millis,
}

/// Claims up to `limit` due jobs of a lane, earliest first.
pub(crate) fn claim(
    tx: &mut dyn Tx,
    lane: &str,
    origin: JobOrigin,
    now: Steady,
    lease: &Lease,
    limit: i64,
) -> Result<Vec<Job>, Error> {
    let mut jobs = collect(
        tx,
        concat!(
            "WITH due AS (SELECT job_id AS due_id FROM replication_jobs
                           WHERE lane = ?1 AND origin = ?2 AND state = 'ready'
                             AND next_attempt_at_ms <= ?3
                           ORDER BY next_attempt_at_ms, job_id LIMIT ?4 {skip_locked})
             UPDATE replication_jobs
                SET state = 'leased', lease_owner = ?5, lease_until_ms = ?6,
                    lease_epoch = lease_epoch + 1
              WHERE job_id IN (SELECT due_id FROM due)
             RETURNING ",
            job_columns!()
        ),
        &[
            Value::Text(lane),
            Value::Text(origin.as_str()),
            Value::Int(now.0),
            Value::Int(limit),
            Value::Text(&lease.owner),
            Value::Int(lease.until.0),
        ],
        job,
    )?;
    // The order of RETURNING is not defined.
    jobs.sort_by_key(|job| (job.next_attempt_at, job.id));
    Ok(jobs)
}

/// Lengthens a lease; false when it was lost.
pub(crate) fn extend(tx: &mut dyn Tx, job: &Job, lease: &Lease) -> Result<bool, Error> {
    let extended = tx.execute(
        "UPDATE replication_jobs SET lease_until_ms = ?4
          WHERE job_id = ?1 AND state = 'leased' AND lease_owner = ?2 AND lease_epoch = ?3",
        &[
            Value::Int(job.id),
            Value::Text(&lease.owner),
            Value::Int(job.lease_epoch),
            Value::Int(lease.until.0),
        ],
    )?;
    Ok(extended > 0)
}

/// How a claimed job ends, or goes on.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Done {
        dest_file_id: String,
    },
    Ended {
        state: JobState,
        reason: Reason,
        error: String,
    },
    /// Another attempt at `at`, after so many failed ones in a row.
    Again {
        reason: Reason,
        error: String,
        at: Steady,
        attempts: u32,
    },
}

/// Writes the outcome of a claimed job, and the status of its file or the figures of its stream;
/// false when the lease was lost. `answered` is what a remote answered, if one was asked.
pub(crate) fn settle(
    tx: &mut dyn Tx,
    job: &Job,
    owner: &str,
    outcome: &Outcome,
    answered: Option<i64>,
    now: Steady,
) -> Result<bool, Error> {
    // What was confirmed meanwhile is known to the row alone.
    let Some(before) = find_leased(tx, job, owner)? else { return Ok(false) };
    let (state, reason, error, dest_file_id, again) = match outcome {
        Outcome::Done { dest_file_id } => (JobState::Done, None, None, Some(dest_file_id), None),
        Outcome::Ended { state, reason, error } => {
            (*state, Some(*reason), Some(error).filter(|error| !error.is_empty()), None, None)
        }
        Outcome::Again { reason, error, at, attempts } => {
            (JobState::Ready, Some(*reason), Some(error), None, Some((*at, *attempts)))
        }
    };
    let has_ended = !state.is_unfinished();
    let finished_at = has_ended.then_some(now.0);
    // A session of a job that goes on is used again.
    let session = before.session.as_deref().filter(|_| !has_ended);
    tx.execute(
        "UPDATE replication_jobs
            SET state = ?2, last_reason = ?3, last_error = ?4, dest_file_id = ?5,
                finished_at_ms = ?6, attempts = COALESCE(?7, attempts),
                next_attempt_at_ms = COALESCE(?8, next_attempt_at_ms),
                last_status = COALESCE(?9, last_status), session = ?10,
                lease_owner = NULL, lease_until_ms = NULL
          WHERE job_id = ?1",
        &[
            Value::Int(job.id),
            Value::Text(state.as_str()),
            Value::opt_text(reason.map(Reason::as_str)),
            Value::opt_text(error.map(String::as_str)),
            Value::opt_text(dest_file_id.map(String::as_str)),
            Value::opt_int(finished_at),
            Value::opt_int(again.map(|(_, attempts)| i64::from(attempts))),
            Value::opt_int(again.map(|(at, _)| at.0)),
            Value::opt_int(answered),
            Value::opt_text(session),
        ],
    )?;
    if let (Some(stream), JobState::Ready) = (before.stream(), state)
        && let Some(stream) = streams::find_stream(tx, stream)?
        && lane_of_stream(&stream) != before.lane
    {
        // The stream leads elsewhere since the job was claimed.
        tx.execute(
            "UPDATE replication_jobs SET lane = ?2, target = ?3 WHERE job_id = ?1",
            &[
                Value::Int(job.id),
                Value::Text(&lane_of_stream(&stream)),
                Value::Text(&target_of_remote(stream.remote)),
            ],
        )?;
    }
    if let (Some(stream), Some(answered)) = (before.stream(), answered) {
        streams::set_latest(tx, stream, answered, error.map_or("", String::as_str))?;
    }
    if has_ended && state != JobState::Done {
        orphan(tx, &before, now)?;
    }
    let after = Job { state, ..before.clone() };
    follow(tx, &before, &after, now)?;
    Ok(true)
}

/// The row of a job that `owner` holds by the lease that it was claimed with.
fn find_leased(tx: &mut dyn Tx, job: &Job, owner: &str) -> Result<Option<Job>, Error> {
    find(
        tx,
        concat!(
            "SELECT ",
            job_columns!(),
            " FROM replication_jobs
               WHERE job_id = ?1 AND state = 'leased' AND lease_owner = ?2 AND lease_epoch = ?3"
        ),
        &[Value::Int(job.id), Value::Text(owner), Value::Int(job.lease_epoch)],
        self::job,
    )
}

/// What follows from a change of a job: the status of its file, or the figures of its stream, whose
/// next jobs may have their turn.
fn follow(tx: &mut dyn Tx, before: &Job, after: &Job, now: Steady) -> Result<(), Error> {
    let Some(stream) = after.stream() else { return refresh_status(tx, after.file_number) };
    streams::add_sums(tx, stream, QueueSums::change(before.sums(), after.sums()))?;
    if !after.state.is_queued() || after.state == JobState::Parked {
        wake_next_of_name(tx, after, now)?;
    }
    if after.state.is_queued() { Ok(()) } else { promote_spilled(tx, stream, now) }
}

/// How far a file that is sent in parts has got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun<'a> {
    /// What the remote calls it.
    pub(crate) session: &'a str,
    /// Bytes that the remote has acknowledged.
    pub(crate) confirmed: u64,
    pub(crate) parts_done: usize,
    pub(crate) parts_total: usize,
}

/// Notes how much of a claimed job a remote has, and what was begun there; false when the lease was
/// lost.
pub(crate) fn note_session(
    tx: &mut dyn Tx,
    job: &Job,
    owner: &str,
    begun: &Begun<'_>,
) -> Result<bool, Error> {
    let Some(before) = find_leased(tx, job, owner)? else { return Ok(false) };
    let confirmed = begun.confirmed.min(before.size);
    tx.execute(
        "UPDATE replication_jobs
            SET session = ?2, confirmed = ?3, parts_done = ?4, parts_total = ?5
          WHERE job_id = ?1",
        &[
            Value::Int(job.id),
            Value::Text(begun.session),
            Value::Int(i64::try_from(confirmed).unwrap_or(i64::MAX)),
            Value::Int(i64::try_from(begun.parts_done).unwrap_or_default()),
            Value::Int(i64::try_from(begun.parts_total).unwrap_or_default()),
        ],
    )?;
    if let Some(stream) = before.stream() {
        let after = Job { confirmed, ..before.clone() };
        streams::add_sums(tx, stream, QueueSums::change(before.sums(), after.sums()))?;
    }
    Ok(true)
}

/// What other versions of its name mean for a job that goes where the times of versions are not kept:
/// there the last to arrive is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameOrder {
    /// Its turn.
    Free,
    /// An older version goes first, or a newer one is on its way.
    Waits,
    /// A newer version has arrived, and would be hidden.
    Superseded,
}

/// Looks at the jobs of the other versions of a name. Spilled ones have no place in the queue yet and
/// hold up nobody.
pub(crate) fn name_order(tx: &mut dyn Tx, job: &Job) -> Result<NameOrder, Error> {
    let Some(stream) = job.stream() else { return Ok(NameOrder::Free) };
    // Rows of files are sorted newest first within a name.
    let others = collect(
        tx,
        "SELECT j.state, CASE WHEN (f.sort_upload, f.sort_origin) < (own.sort_upload, own.sort_origin)
                              THEN 1 ELSE 0 END
           FROM files own
           JOIN files f ON f.bucket_no = own.bucket_no AND f.name = own.name
                       AND f.file_no <> own.file_no
           JOIN replication_jobs j ON j.dest_key = ?1 AND j.source_file_no = f.file_no
          WHERE own.file_no = ?2 AND j.state IN ('ready', 'leased', 'done')",
        &[Value::Text(&format!("{STREAM_KEY}{stream}")), Value::Int(job.file_number.0)],
        |row| {
            let state = JobState::parse(row.text(0)?);
            Ok((state.ok_or(Error::Unreadable { what: "state of a job" })?, row.flag(1)?))
        },
    )?;
    let superseded = others.iter().any(|(state, is_newer)| *is_newer && *state == JobState::Done);
    let waits = others.iter().any(|(state, is_newer)| match state {
        JobState::Leased => true,
        JobState::Ready => !is_newer,
        _ => false,
    });
    Ok(match (superseded, waits) {
        (true, _) => NameOrder::Superseded,
        (false, true) => NameOrder::Waits,
        (false, false) => NameOrder::Free,
    })
}

/// Lets the oldest version of the same name go at once that has been waiting for this one.
fn wake_next_of_name(tx: &mut dyn Tx, job: &Job, now: Steady) -> Result<(), Error> {
    let Some(stream) = job.stream() else { return Ok(()) };
    tx.execute(
        "UPDATE replication_jobs SET next_attempt_at_ms = ?3
          WHERE job_id = (
            SELECT j.job_id FROM replication_jobs j JOIN files f ON f.file_no = j.source_file_no
             WHERE j.dest_key = ?1 AND j.source_file_name = ?2 AND j.stream_no IS NOT NULL
               AND j.state IN ('ready', 'leased') AND j.state = 'ready' AND j.last_reason = ?4
             ORDER BY f.sort_upload DESC, f.sort_origin DESC LIMIT 1)",
        &[
            Value::Text(&format!("{STREAM_KEY}{stream}")),
            Value::Text(&job.file_name),
            Value::Int(now.0),
            Value::Text(Reason::NameAwaited.as_str()),
        ],
    )?;
    Ok(())
}

/// Spilled jobs that enter a queue in one transaction.
const PROMOTED_MAX: i64 = 64;

/// Lets jobs into the queue of a stream that have been waiting outside, the oldest first, as far as
/// there is room.
pub(crate) fn promote_spilled(tx: &mut dyn Tx, stream: StreamId, now: Steady) -> Result<(), Error> {
    let Some(stream) = streams::find_stream(tx, stream)? else { return Ok(()) };
    if stream.sums.spilled == 0 {
        return Ok(());
    }
    if !stream.sums.takes_spilled(stream.max_queue_bytes) && gets_on(tx, stream.id)? {
        return Ok(());
    }
    let waiting = collect(
        tx,
        "SELECT job_id, size FROM replication_jobs
          WHERE stream_no = ?1 AND state = 'spilled' ORDER BY job_id LIMIT ?2",
        &[Value::Int(stream.id.0), Value::Int(PROMOTED_MAX)],
        |row| Ok((row.int(0)?, u64::try_from(row.int(1)?).unwrap_or_default())),
    )?;
    let mut change = QueueSums::default();
    for (job_id, size) in waiting {
        // Nothing waits any longer as far as these are concerned.
        let sums = QueueSums { spilled: 0, ..stream.sums.plus(change) };
        if !admits(tx, &stream, sums, size)? {
            break;
        }
        tx.execute(
            "UPDATE replication_jobs SET state = 'ready', next_attempt_at_ms = ?2
              WHERE job_id = ?1 AND state = 'spilled'",
            &[Value::Int(job_id), Value::Int(now.0)],
        )?;
        let (before, after) = (
            QueueSums::of_job(JobState::Spilled, size, 0),
            QueueSums::of_job(JobState::Ready, size, 0),
        );
        change = change.plus(QueueSums::change(before, after));
    }
    streams::add_sums(tx, stream.id, change)
}

/// Ends up to `limit` jobs of a stream that have waited since before `since`, the oldest first;
/// answers what they came to. Leased ones are left, their next attempt looks again.
pub(crate) fn drop_expired(
    tx: &mut dyn Tx,
    stream: StreamId,
    since: Steady,
    now: Steady,
    limit: i64,
) -> Result<Vec<Job>, Error> {
    let expired = collect(
        tx,
        concat!(
            "SELECT ",
            job_columns!(),
            " FROM replication_jobs
               WHERE stream_no = ?1 AND state IN ('ready', 'spilled', 'parked')
                 AND enqueued_at_ms < ?2
               ORDER BY job_id LIMIT ?3"
        ),
        &[Value::Int(stream.0), Value::Int(since.0), Value::Int(limit)],
        job,
    )?;
    for before in &expired {
        end(tx, before, JobState::Dropped, Reason::Expired, now)?;
    }
    Ok(expired)
}

/// Ends a job that nobody holds. It is read anew: ending the one before it may have let it into its
/// queue.
fn end(
    tx: &mut dyn Tx,
    job: &Job,
    state: JobState,
    reason: Reason,
    now: Steady,
) -> Result<(), Error> {
    let Some(before) = &find_job(tx, job.id)? else { return Ok(()) };
    tx.execute(
        "UPDATE replication_jobs
            SET state = ?2, last_reason = ?3, finished_at_ms = ?4, session = NULL,
                lease_owner = NULL, lease_until_ms = NULL
          WHERE job_id = ?1",
        &[
            Value::Int(before.id),
            Value::Text(state.as_str()),
            Value::Text(reason.as_str()),
            Value::Int(now.0),
        ],
    )?;
    orphan(tx, before, now)?;
    follow(tx, before, &Job { state, ..before.clone() }, now)
}

/// Remembers what a job has begun at a remote, so that it is given up there.
fn orphan(tx: &mut dyn Tx, job: &Job, now: Steady) -> Result<(), Error> {
    let Some(session) = &job.session else { return Ok(()) };
    let (remote, bucket, file_name) = match &job.route {
        Route::Stream(id) => {
            let Some(stream) = streams::find_stream(tx, *id)? else { return Ok(()) };
            let name = stream.remote_name(&job.file_name);
            (stream.remote, stream.remote_bucket(), name)
        }
        Route::Rule(rule) => {
            let Some(remote) = remotes::remote_of_target(&job.target) else { return Ok(()) };
            let bucket = RemoteBucket::Id(rule.destination.to_string());
            (remote, bucket, job.file_name.clone())
        }
    };
    let orphan = NewOrphan { remote, bucket: &bucket, file_name: &file_name, session };
    remotes::insert_orphan(tx, &orphan, now)
}

/// Ends all unfinished jobs of a stream, up to `limit` at a time; answers how many were ended.
pub(crate) fn purge(
    tx: &mut dyn Tx,
    stream: StreamId,
    now: Steady,
    limit: i64,
) -> Result<usize, Error> {
    let unfinished = collect(
        tx,
        concat!(
            "SELECT ",
            job_columns!(),
            " FROM replication_jobs
               WHERE stream_no = ?1 AND state IN ('ready', 'leased', 'spilled', 'parked')
               ORDER BY job_id LIMIT ?2"
        ),
        &[Value::Int(stream.0), Value::Int(limit)],
        job,
    )?;
    for before in &unfinished {
        end(tx, before, JobState::Cancelled, Reason::Purged, now)?;
    }
    Ok(unfinished.len())
}

/// Removes up to `limit` jobs of a stream that is gone; answers how many.
pub(crate) fn forget_stream_jobs(
    tx: &mut dyn Tx,
    stream: StreamId,
    limit: i64,
) -> Result<usize, Error> {
    tx.execute(
        "DELETE FROM replication_jobs WHERE job_id IN (
           SELECT job_id FROM replication_jobs WHERE stream_no = ?1 ORDER BY state, job_id
            LIMIT ?2)",
        &[Value::Int(stream.0), Value::Int(limit)],
    )
}

/// Lets a job of a stream go again at once, whatever became of it; false when it is done, under way
/// or about to go anyway.
pub(crate) fn retry_stream_job(tx: &mut dyn Tx, before: &Job, now: Steady) -> Result<bool, Error> {
    let waits = before.state == JobState::Ready && before.next_attempt_at > now;
    let ended = matches!(
        before.state,
        JobState::Parked | JobState::Dropped | JobState::Failed | JobState::Cancelled
    );
    if !waits && !ended {
        return Ok(false);
    }
    let Some(stream) = before.stream() else { return Ok(false) };
    let Some(stream) = streams::find_stream(tx, stream)? else { return Ok(false) };
    let confirmed = if ended { 0 } else { before.confirmed };
    // What had ended begins anew: its age, and its way to where the stream leads today.
    let enqueued_at = if ended { now } else { before.enqueued_at };
    tx.execute(
        "UPDATE replication_jobs
            SET state = 'ready', attempts = 0, crashes = 0, next_attempt_at_ms = ?2,
                finished_at_ms = NULL, confirmed = ?3, enqueued_at_ms = ?4, lane = ?5, target = ?6
          WHERE job_id = ?1",
        &[
            Value::Int(before.id),
            Value::Int(now.0),
            Value::Int(i64::try_from(confirmed).unwrap_or_default()),
            Value::Int(enqueued_at.0),
            Value::Text(&lane_of_stream(&stream)),
            Value::Text(&target_of_remote(stream.remote)),
        ],
    )?;
    let after = Job { state: JobState::Ready, confirmed, ..before.clone() };
    follow(tx, before, &after, now)?;
    Ok(true)
}

/// Computes the status of a version from its jobs and stores it. Streams have no say in it.
pub(crate) fn refresh_status(tx: &mut dyn Tx, file: FileNumber) -> Result<(), Error> {
    let states = collect(
        tx,
        "SELECT state FROM replication_jobs WHERE source_file_no = ?1 AND stream_no IS NULL",
        &[Value::Int(file.0)],
        |row| JobState::parse(row.text(0)?).ok_or(Error::Unreadable { what: "state of a job" }),
    )?;
    files::set_replication_status(tx, file, shown_status(false, states))
}

/// A job whose lease nobody keeps up.
#[derive(Clone, Debug)]
pub(crate) struct LostJob {
    pub(crate) job: Job,
    /// Whether the worker is gone and may have died of the job. False when it is this process that
    /// could not write what became of it.
    pub(crate) crashed: bool,
}

/// Jobs that a vanished worker held: those of other owners, and those of `owner` whose lease ran
/// out by `monotonic_now`.
pub(crate) fn list_lost(
    tx: &mut dyn Tx,
    owner: &str,
    monotonic_now: Millis,
    limit: i64,
) -> Result<Vec<LostJob>, Error> {
    collect(
        tx,
        concat!(
            "SELECT ",
            job_columns!(),
            ", CASE WHEN lease_owner <> ?1 THEN 1 ELSE 0 END
                FROM replication_jobs
               WHERE state = 'leased' AND (lease_owner <> ?1 OR lease_until_ms < ?2)
               ORDER BY job_id LIMIT ?3"
        ),
        &[Value::Text(owner), Value::Int(monotonic_now.0), Value::Int(limit)],
        |row| Ok(LostJob { job: job(row)?, crashed: row.flag(JOB_COLUMNS_END)? }),
    )
}

/// Takes a lost job back: ready again at `at`, or failed when `poison` is set.
pub(crate) fn reclaim(
    tx: &mut dyn Tx,
    lost: &LostJob,
    at: Steady,
    poison: bool,
    now: Steady,
) -> Result<(), Error> {
    let job = &lost.job;
    let state = match (poison, job.stream()) {
        (false, _) => JobState::Ready,
        (true, None) => JobState::Failed,
        (true, Some(_)) => JobState::Parked,
    };
    let reclaimed = tx.execute(
        "UPDATE replication_jobs
            SET state = ?3, crashes = crashes + ?7, next_attempt_at_ms = ?4,
                last_reason = COALESCE(?5, last_reason), finished_at_ms = ?6,
                lease_owner = NULL, lease_until_ms = NULL
          WHERE job_id = ?1 AND state = 'leased' AND lease_epoch = ?2",
        &[
            Value::Int(job.id),
            Value::Int(job.lease_epoch),
            Value::Text(state.as_str()),
            Value::Int(at.0),
            Value::opt_text(poison.then_some(Reason::InternalPoison.as_str())),
            Value::opt_int((state == JobState::Failed).then_some(now.0)),
            Value::Int(i64::from(lost.crashed)),
        ],
    )?;
    if reclaimed == 0 {
        return Ok(());
    }
    follow(tx, job, &Job { state, ..job.clone() }, now)
}

/// Ends the jobs of a version that is being deleted, and forgets which replicas came from it. Its
/// number never comes again, so no job can ever ask for them.
pub(crate) fn forget_source(tx: &mut dyn Tx, file: FileNumber, now: Steady) -> Result<(), Error> {
    let jobs = collect(
        tx,
        concat!("SELECT ", job_columns!(), " FROM replication_jobs WHERE source_file_no = ?1"),
        &[Value::Int(file.0)],
        job,
    )?;
    if jobs.is_empty() {
        return Ok(());
    }
    let instance = server_facts::find_fact(tx, server_facts::INSTANCE_ID)?.unwrap_or_default();
    let instance = String::from_utf8_lossy(&instance);
    for job in &jobs {
        if let Some(rule) = job.rule() {
            tx.execute(
                "DELETE FROM replication_origins WHERE dest_bucket_id = ?1 AND origin = ?2",
                &[
                    Value::Text(&rule.destination.to_string()),
                    Value::Text(&origin_of(&instance, &job.file_id)),
                ],
            )?;
        }
        if job.state.is_unfinished() {
            end(tx, job, JobState::Cancelled, Reason::SourceDeleted, now)?;
        } else {
            tx.execute("DELETE FROM replication_jobs WHERE job_id = ?1", &[Value::Int(job.id)])?;
        }
    }
    Ok(())
}

/// Removes up to `limit` cancelled jobs that ended by `until`; answers how many.
pub(crate) fn prune_cancelled(tx: &mut dyn Tx, until: Steady, limit: i64) -> Result<usize, Error> {
    tx.execute(
        "DELETE FROM replication_jobs WHERE job_id IN (
           SELECT job_id FROM replication_jobs
            WHERE state = 'cancelled' AND finished_at_ms <= ?1 ORDER BY job_id LIMIT ?2)",
        &[Value::Int(until.0), Value::Int(limit)],
    )
}

/// The first bucket after `after` that replicas are remembered of and that is gone.
pub(crate) fn next_gone_destination(tx: &mut dyn Tx, after: &str) -> Result<Option<String>, Error> {
    let gone = find(
        tx,
        "WITH RECURSIVE d(bucket) AS (
           SELECT MIN(dest_bucket_id) FROM replication_origins WHERE dest_bucket_id > ?1
           UNION ALL
           SELECT (SELECT MIN(dest_bucket_id) FROM replication_origins
                    WHERE dest_bucket_id > d.bucket)
             FROM d WHERE d.bucket IS NOT NULL)
         SELECT MIN(bucket) FROM d
          WHERE bucket IS NOT NULL AND bucket NOT IN (SELECT bucket_id FROM buckets)",
        &[Value::Text(after)],
        |row| Ok(row.opt_text(0)?.map(str::to_owned)),
    )?;
    Ok(gone.flatten())
}

/// Forgets up to `limit` replicas that were in a bucket that is gone; answers how many.
pub(crate) fn prune_origins(
    tx: &mut dyn Tx,
    gone_bucket: &str,
    limit: i64,
) -> Result<usize, Error> {
    tx.execute(
        "DELETE FROM replication_origins WHERE dest_bucket_id = ?1 AND origin IN (
           SELECT origin FROM replication_origins WHERE dest_bucket_id = ?1 LIMIT ?2)",
        &[Value::Text(gone_bucket), Value::Int(limit)],
    )
}

/// Forgets what is known of a bucket that is being deleted as a source of scans and as a target.
/// The replicas it had are forgotten bit by bit, there may be many.
pub(crate) fn forget_bucket(tx: &mut dyn Tx, bucket: BucketId) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM replication_scans WHERE bucket_id = ?1",
        &[Value::Text(&bucket.to_string())],
    )?;
    tx.execute(
        "DELETE FROM replication_targets WHERE target = ?1",
        &[Value::Text(&target_of(bucket))],
    )?;
    Ok(())
}

/// Which jobs a listing shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobFilter {
    pub(crate) state: Option<JobState>,
    pub(crate) source_bucket: Option<BucketId>,
    pub(crate) reason: Option<String>,
    /// Jobs of this stream; None for those of rules.
    pub(crate) stream: Option<StreamId>,
    pub(crate) after: i64,
}

pub(crate) fn list_jobs(
    tx: &mut dyn Tx,
    filter: &JobFilter,
    limit: i64,
) -> Result<Vec<Job>, Error> {
    let state = filter.state.map(JobState::as_str);
    let bucket = filter.source_bucket.map(|id| id.to_string());
    collect(
        tx,
        concat!(
            "SELECT ",
            job_columns!(),
            " FROM replication_jobs
               WHERE job_id > ?1
                 AND (CAST(?2 AS TEXT) IS NULL OR state = ?2)
                 AND (CAST(?3 AS TEXT) IS NULL OR source_bucket_id = ?3)
                 AND (CAST(?4 AS TEXT) IS NULL OR last_reason = ?4)
                 AND COALESCE(stream_no, 0) = ?6
               ORDER BY job_id LIMIT ?5"
        ),
        &[
            Value::Int(filter.after),
            Value::opt_text(state),
            Value::opt_text(bucket.as_deref()),
            Value::opt_text(filter.reason.as_deref()),
            Value::Int(limit),
            Value::Int(filter.stream.map_or(0, |stream| stream.0)),
        ],
        job,
    )
}

pub(crate) fn find_job(tx: &mut dyn Tx, id: i64) -> Result<Option<Job>, Error> {
    find(
        tx,
        concat!("SELECT ", job_columns!(), " FROM replication_jobs WHERE job_id = ?1"),
        &[Value::Int(id)],
        job,
    )
}

/// Makes a failed job ready again; its file is pending from now on. `anew` are the source key and
/// the name of the rule that it goes by from now on, None leaves both. False when it is not failed.
pub(crate) fn retry(
    tx: &mut dyn Tx,
    job: &Job,
    anew: Option<(&str, &str)>,
    now: Steady,
) -> Result<bool, Error> {
    let reopened = tx.execute(
        "UPDATE replication_jobs
            SET state = 'ready', attempts = 0, crashes = 0, next_attempt_at_ms = ?2,
                finished_at_ms = NULL, source_key_id = COALESCE(?3, source_key_id),
                rule_name = COALESCE(?4, rule_name)
          WHERE job_id = ?1 AND state = 'failed'",
        &[
            Value::Int(job.id),
            Value::Int(now.0),
            Value::opt_text(anew.map(|(source_key, _)| source_key)),
            Value::opt_text(anew.map(|(_, rule_name)| rule_name)),
        ],
    )?;
    refresh_status(tx, job.file_number)?;
    Ok(reopened > 0)
}

/// An unfinished job, as far as it matters whether it is late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) job_id: i64,
    pub(crate) enqueued_at: Steady,
    pub(crate) file_id: String,
    pub(crate) target: String,
}

/// Unfinished jobs after the job `after`, oldest first; numbers of jobs grow with their age.
pub(crate) fn list_pending(tx: &mut dyn Tx, after: i64, limit: i64) -> Result<Vec<Pending>, Error> {
    collect(
        tx,
        "SELECT job_id, enqueued_at_ms, source_file_id, target
           FROM (SELECT job_id, enqueued_at_ms, source_file_id, target FROM replication_jobs
                  WHERE state = 'ready' AND job_id > ?1 ORDER BY job_id LIMIT ?2) AS ready
         UNION ALL
         SELECT job_id, enqueued_at_ms, source_file_id, target
           FROM (SELECT job_id, enqueued_at_ms, source_file_id, target FROM replication_jobs
                  WHERE state = 'leased' AND job_id > ?1 ORDER BY job_id LIMIT ?2) AS leased
          ORDER BY job_id LIMIT ?2",
        &[Value::Int(after), Value::Int(limit)],
        |row| {
            Ok(Pending {
                job_id: row.int(0)?,
                enqueued_at: Steady(row.int(1)?),
                file_id: row.text(2)?.to_owned(),
                target: row.text(3)?.to_owned(),
            })
        },
    )
}

/// When the oldest unfinished job of a stream was made; None when none is unfinished.
pub(crate) fn oldest_of_stream(tx: &mut dyn Tx, stream: StreamId) -> Result<Option<Steady>, Error> {
    let mut oldest: Option<(i64, Steady)> = None;
    for state in JobState::ALL.into_iter().filter(|state| state.is_unfinished()) {
        // Numbers of jobs grow with their age.
        let first = find(
            tx,
            "SELECT job_id, enqueued_at_ms FROM replication_jobs
              WHERE stream_no = ?1 AND state = ?2 ORDER BY job_id LIMIT 1",
            &[Value::Int(stream.0), Value::Text(state.as_str())],
            |row| Ok((row.int(0)?, Steady(row.int(1)?))),
        )?;
        if let Some(first) = first
            && oldest.is_none_or(|(id, _)| first.0 < id)
        {
            oldest = Some(first);
        }
    }
    Ok(oldest.map(|(_, at)| at))
}

/// How many jobs of a stream are under way.
pub(crate) fn count_leased_of_stream(tx: &mut dyn Tx, stream: StreamId) -> Result<i64, Error> {
    let count = find(
        tx,
        "SELECT CAST(COUNT(*) AS BIGINT) FROM replication_jobs
          WHERE stream_no = ?1 AND state = 'leased'",
        &[Value::Int(stream.0)],
        |row| row.int(0),
    )?;
    Ok(count.unwrap_or_default())
}

/// How many jobs are in each state.
pub(crate) fn count_by_state(tx: &mut dyn Tx) -> Result<Vec<(JobState, i64)>, Error> {
    collect(
        tx,
        "SELECT state, CAST(COUNT(*) AS BIGINT) FROM replication_jobs GROUP BY state",
        &[],
        |row| {
            let state = JobState::parse(row.text(0)?);
            Ok((state.ok_or(Error::Unreadable { what: "state of a job" })?, row.int(1)?))
        },
    )
}

/// The replica that a version already has in a bucket.
pub(crate) fn find_replica(
    tx: &mut dyn Tx,
    destination: BucketId,
    origin: &str,
) -> Result<Option<String>, Error> {
    find(
        tx,
        "SELECT dest_file_id FROM replication_origins WHERE dest_bucket_id = ?1 AND origin = ?2",
        &[Value::Text(&destination.to_string()), Value::Text(origin)],
        |row| Ok(row.text(0)?.to_owned()),
    )
}

pub(crate) fn insert_replica(
    tx: &mut dyn Tx,
    destination: BucketId,
    origin: &str,
    dest_file_id: &str,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO replication_origins (dest_bucket_id, origin, dest_file_id)
         VALUES (?1, ?2, ?3)",
        &[Value::Text(&destination.to_string()), Value::Text(origin), Value::Text(dest_file_id)],
    )?;
    Ok(())
}

/// The circuit breaker of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breaker {
    pub(crate) target: String,
    pub(crate) failures: u32,
    /// No job of the target starts before this.
    pub(crate) open_until: Steady,
}

/// Failures in a row that open the breaker of a target.
pub(crate) const BREAKER_FAILURES: u32 = 5;

impl Breaker {
    /// Whether it has opened, and not closed since.
    pub(crate) fn is_tripped(&self) -> bool {
        self.failures >= BREAKER_FAILURES
    }
}

pub(crate) fn list_breakers(tx: &mut dyn Tx) -> Result<Vec<Breaker>, Error> {
    collect(
        tx,
        "SELECT target, failures, open_until_ms FROM replication_targets ORDER BY target",
        &[],
        |row| {
            Ok(Breaker {
                target: row.text(0)?.to_owned(),
                failures: u32::try_from(row.int(1)?).unwrap_or(u32::MAX),
                open_until: Steady(row.int(2)?),
            })
        },
    )
}

/// Stores a breaker; one without failures is forgotten.
pub(crate) fn put_breaker(tx: &mut dyn Tx, breaker: &Breaker) -> Result<(), Error> {
    if breaker.failures == 0 {
        tx.execute(
            "DELETE FROM replication_targets WHERE target = ?1",
            &[Value::Text(&breaker.target)],
        )?;
        return Ok(());
    }
    tx.execute(
        "INSERT INTO replication_targets (target, failures, open_until_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (target) DO UPDATE SET failures = excluded.failures,
                                            open_until_ms = excluded.open_until_ms",
        &[
            Value::Text(&breaker.target),
            Value::Int(i64::from(breaker.failures)),
            Value::Int(breaker.open_until.0),
        ],
    )?;
    Ok(())
}

/// A walk over files that were there before a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) id: i64,
    pub(crate) bucket: BucketId,
    pub(crate) bucket_revision: i64,
    pub(crate) cursor: Option<ScanCursor>,
    pub(crate) seen: i64,
    pub(crate) enqueued: i64,
    pub(crate) skipped: i64,
}

/// Starts a scan of a bucket; a running one is superseded. Of those that have ended, the latest is
/// kept.
pub(crate) fn start_scan(
    tx: &mut dyn Tx,
    bucket: BucketId,
    bucket_revision: i64,
    now: Millis,
) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM replication_scans WHERE bucket_id = ?1 AND state <> 'running' AND scan_id <
           (SELECT MAX(scan_id) FROM replication_scans WHERE bucket_id = ?1)",
        &[Value::Text(&bucket.to_string())],
    )?;
    supersede_scans(tx, bucket, now)?;
    let id = take_number(tx, "replication_scan")?;
    tx.execute(
        "INSERT INTO replication_scans (scan_id, bucket_id, bucket_revision, state, seen, enqueued,
                                        skipped, started_at_ms)
         VALUES (?1, ?2, ?3, 'running', 0, 0, 0, ?4)",
        &[
            Value::Int(id),
            Value::Text(&bucket.to_string()),
            Value::Int(bucket_revision),
            Value::Int(now.0),
        ],
    )?;
    Ok(())
}

/// Ends the running scan of a bucket, if any, because its rules have changed.
pub(crate) fn supersede_scans(
    tx: &mut dyn Tx,
    bucket: BucketId,
    now: Millis,
) -> Result<usize, Error> {
    tx.execute(
        "UPDATE replication_scans SET state = 'superseded', finished_at_ms = ?2
          WHERE bucket_id = ?1 AND state = 'running'",
        &[Value::Text(&bucket.to_string()), Value::Int(now.0)],
    )
}

pub(crate) fn list_running_scans(tx: &mut dyn Tx) -> Result<Vec<Scan>, Error> {
    collect(
        tx,
        "SELECT scan_id, bucket_id, bucket_revision, cursor_name, cursor_upload_ms, cursor_origin,
                seen, enqueued, skipped
           FROM replication_scans WHERE state = 'running' ORDER BY scan_id",
        &[],
        |row| {
            let cursor = match row.opt_text(3)? {
                None => None,
                Some(name) => Some(ScanCursor {
                    name: name.to_owned(),
                    upload_at: Millis(row.int(4)?),
                    origin: FileNumber(row.int(5)?),
                }),
            };
            Ok(Scan {
                id: row.int(0)?,
                bucket: BucketId::parse(row.text(1)?)
                    .ok_or(Error::Unreadable { what: "bucket of a scan" })?,
                bucket_revision: row.int(2)?,
                cursor,
                seen: row.int(6)?,
                enqueued: row.int(7)?,
                skipped: row.int(8)?,
            })
        },
    )
}

/// Stores how far a running scan has got; false when it is no longer running.
pub(crate) fn advance_scan(
    tx: &mut dyn Tx,
    scan: &Scan,
    finished_at: Option<Millis>,
) -> Result<bool, Error> {
    let cursor = scan.cursor.as_ref();
    let advanced = tx.execute(
        "UPDATE replication_scans
            SET cursor_name = ?2, cursor_upload_ms = ?3, cursor_origin = ?4, seen = ?5,
                enqueued = ?6, skipped = ?7, finished_at_ms = ?8,
                state = CASE WHEN CAST(?8 AS BIGINT) IS NULL THEN 'running' ELSE 'done' END
          WHERE scan_id = ?1 AND state = 'running'",
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

/// How many scan-born jobs from one bucket to another wait, counted up to `at_most`. Searches the
/// lane of the two, so jobs of other buckets cost nothing.
pub(crate) fn count_waiting_scan_jobs(
    tx: &mut dyn Tx,
    (account, source): (AccountId, BucketId),
    destination: BucketId,
    at_most: i64,
) -> Result<i64, Error> {
    let lane = lane_of(&target_of_rule(tx, account, destination)?, &source.to_string());
    let waiting = find(
        tx,
        "SELECT CAST(COUNT(*) AS BIGINT) FROM (
           SELECT job_id FROM replication_jobs
            WHERE lane = ?1 AND origin = 'scan' AND state = 'ready' LIMIT ?2) w",
        &[Value::Text(&lane), Value::Int(at_most)],
        |row| row.int(0),
    )?;
    Ok(waiting.unwrap_or_default())
}
