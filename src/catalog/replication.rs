//! Rows of replication: jobs with their leases, origins of replicas, targets, scans.
//!
//! A job is claimed by a lease with an epoch. Whoever writes an outcome names owner and epoch;
//! when no row answers, the lease was lost and nothing may be done.

use crate::catalog::files::{self, ScanCursor};
use crate::catalog::server_facts::{self, take_number};
use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::ids::{BucketId, FileNumber, KeyId};
use crate::domain::replication::{JobState, Reason, shown_status};
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

/// A job about to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewJob<'a> {
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

/// The origin of the replicas of a version of this server.
pub(crate) fn origin_of(instance: &str, file_id: &str) -> String {
    format!("{instance}.{file_id}")
}

/// The name of a destination bucket among targets.
pub(crate) fn target_of(destination: BucketId) -> String {
    format!("bucket:{destination}")
}

fn lane_of(target: &str, source: BucketId) -> String {
    format!("{target}|{source}")
}

/// Makes a job unless the version already has one for the destination; true when it was made.
pub(crate) fn insert_job(tx: &mut dyn Tx, job: &NewJob<'_>, now: Steady) -> Result<bool, Error> {
    let target = target_of(job.destination);
    let job_id = take_number(tx, "replication_job")?;
    let made = tx.execute(
        "INSERT INTO replication_jobs (job_id, lane, target, dest_key, source_bucket_id,
           source_file_no, source_file_id, source_file_name, source_key_id, rule_name, origin,
           size, state, attempts, crashes, next_attempt_at_ms, enqueued_at_ms, lease_epoch)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 'ready', 0, 0, ?13, ?13, 0)
         ON CONFLICT (dest_key, source_file_no) DO NOTHING",
        &[
            Value::Int(job_id),
            Value::Text(&lane_of(&target, job.source_bucket)),
            Value::Text(&target),
            Value::Text(&format!("{BUCKET_KEY}{}", job.destination)),
            Value::Text(&job.source_bucket.to_string()),
            Value::Int(job.file_number.0),
            Value::Text(job.file_id),
            Value::Text(job.file_name),
            Value::Text(job.source_key),
            Value::Text(job.rule_name),
            Value::Text(job.origin.as_str()),
            Value::Int(i64::try_from(job.size).unwrap_or(i64::MAX)),
            Value::Int(now.0),
        ],
    )?;
    Ok(made > 0)
}

/// A job as it is stored. Its times are on the time line of waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) id: i64,
    pub(crate) lane: String,
    pub(crate) target: String,
    pub(crate) destination: BucketId,
    pub(crate) source_bucket: BucketId,
    pub(crate) file_number: FileNumber,
    pub(crate) file_id: String,
    pub(crate) file_name: String,
    pub(crate) source_key: KeyId,
    pub(crate) rule_name: String,
    pub(crate) origin: JobOrigin,
    pub(crate) size: u64,
    pub(crate) state: JobState,
    pub(crate) attempts: u32,
    pub(crate) crashes: u32,
    pub(crate) next_attempt_at: Steady,
    pub(crate) enqueued_at: Steady,
    pub(crate) finished_at: Option<Steady>,
    pub(crate) lease_epoch: i64,
    pub(crate) last_reason: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) dest_file_id: Option<String>,
}

/// How many columns `job_columns` names.
const JOB_COLUMNS_END: usize = 22;

macro_rules! job_columns {
    () => {
        "job_id, lane, target, dest_key, source_bucket_id, source_file_no, source_file_id, \
         source_file_name, source_key_id, rule_name, origin, size, state, attempts, crashes, \
         next_attempt_at_ms, enqueued_at_ms, finished_at_ms, lease_epoch, last_reason, last_error, \
         dest_file_id"
    };
}

fn job(row: &dyn Row) -> Result<Job, Error> {
    let unreadable = |what| Error::Unreadable { what };
    let count = |column| -> Result<u32, Error> {
        u32::try_from(row.int(column)?).map_err(|_| unreadable("count of a job"))
    };
    let destination = row.text(3)?.strip_prefix(BUCKET_KEY).and_then(BucketId::parse);
    Ok(Job {
        id: row.int(0)?,
        lane: row.text(1)?.to_owned(),
        target: row.text(2)?.to_owned(),
        destination: destination.ok_or(unreadable("destination of a job"))?,
        source_bucket: BucketId::parse(row.text(4)?).ok_or(unreadable("source of a job"))?,
        file_number: FileNumber(row.int(5)?),
        file_id: row.text(6)?.to_owned(),
        file_name: row.text(7)?.to_owned(),
        source_key: KeyId::named(row.text(8)?),
        rule_name: row.text(9)?.to_owned(),
        origin: JobOrigin::parse(row.text(10)?)?,
        size: u64::try_from(row.int(11)?).map_err(|_| unreadable("size of a job"))?,
        state: JobState::parse(row.text(12)?).ok_or(unreadable("state of a job"))?,
        attempts: count(13)?,
        crashes: count(14)?,
        next_attempt_at: Steady(row.int(15)?),
        enqueued_at: Steady(row.int(16)?),
        finished_at: row.opt_int(17)?.map(Steady),
        lease_epoch: row.int(18)?,
        last_reason: row.opt_text(19)?.map(str::to_owned),
        last_error: row.opt_text(20)?.map(str::to_owned),
        dest_file_id: row.opt_text(21)?.map(str::to_owned),
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
    Done { dest_file_id: String },
    Ended { state: JobState, reason: Reason },
    Again { reason: Reason, error: String, at: Steady },
}

/// Writes the outcome of a claimed job and the status of its file; false when the lease was lost.
pub(crate) fn settle(
    tx: &mut dyn Tx,
    job: &Job,
    owner: &str,
    outcome: &Outcome,
    now: Steady,
) -> Result<bool, Error> {
    let (state, reason, error, dest_file_id, again_at) = match outcome {
        Outcome::Done { dest_file_id } => (JobState::Done, None, None, Some(dest_file_id), None),
        Outcome::Ended { state, reason } => (*state, Some(*reason), None, None, None),
        Outcome::Again { reason, error, at } => {
            (JobState::Ready, Some(*reason), Some(error), None, Some(*at))
        }
    };
    let finished_at = (!state.is_unfinished()).then_some(now.0);
    let settled = tx.execute(
        "UPDATE replication_jobs
            SET state = ?4, last_reason = ?5, last_error = ?6, dest_file_id = ?7,
                finished_at_ms = ?8, attempts = attempts + ?9,
                next_attempt_at_ms = COALESCE(?10, next_attempt_at_ms),
                lease_owner = NULL, lease_until_ms = NULL
          WHERE job_id = ?1 AND state = 'leased' AND lease_owner = ?2 AND lease_epoch = ?3",
        &[
            Value::Int(job.id),
            Value::Text(owner),
            Value::Int(job.lease_epoch),
            Value::Text(state.as_str()),
            Value::opt_text(reason.map(Reason::as_str)),
            Value::opt_text(error.map(String::as_str)),
            Value::opt_text(dest_file_id.map(String::as_str)),
            Value::opt_int(finished_at),
            Value::Int(i64::from(again_at.is_some())),
            Value::opt_int(again_at.map(|at| at.0)),
        ],
    )?;
    if settled == 0 {
        return Ok(false);
    }
    refresh_status(tx, job.file_number)?;
    Ok(true)
}

/// Computes the status of a version from its jobs and stores it.
pub(crate) fn refresh_status(tx: &mut dyn Tx, file: FileNumber) -> Result<(), Error> {
    let states = collect(
        tx,
        "SELECT state FROM replication_jobs WHERE source_file_no = ?1",
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
    let state = if poison { JobState::Failed } else { JobState::Ready };
    tx.execute(
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
            Value::opt_int(poison.then_some(now.0)),
            Value::Int(i64::from(lost.crashed)),
        ],
    )?;
    refresh_status(tx, job.file_number)
}

/// Ends the jobs of a version that is being deleted, and forgets which replicas came from it. Its
/// number never comes again, so no job can ever ask for them.
pub(crate) fn forget_source(tx: &mut dyn Tx, file: FileNumber, now: Steady) -> Result<(), Error> {
    let jobs = collect(
        tx,
        "SELECT dest_key, source_file_id FROM replication_jobs WHERE source_file_no = ?1",
        &[Value::Int(file.0)],
        |row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned())),
    )?;
    if jobs.is_empty() {
        return Ok(());
    }
    let instance = server_facts::find_fact(tx, server_facts::INSTANCE_ID)?.unwrap_or_default();
    let instance = String::from_utf8_lossy(&instance);
    for (dest_key, file_id) in jobs {
        tx.execute(
            "DELETE FROM replication_origins WHERE dest_bucket_id = ?1 AND origin = ?2",
            &[
                Value::Text(dest_key.strip_prefix(BUCKET_KEY).unwrap_or_default()),
                Value::Text(&origin_of(&instance, &file_id)),
            ],
        )?;
    }
    tx.execute(
        "DELETE FROM replication_jobs
          WHERE source_file_no = ?1 AND state IN ('done', 'failed', 'cancelled')",
        &[Value::Int(file.0)],
    )?;
    tx.execute(
        "UPDATE replication_jobs
            SET state = 'cancelled', last_reason = 'source_deleted', finished_at_ms = ?2,
                lease_owner = NULL, lease_until_ms = NULL
          WHERE source_file_no = ?1 AND state IN ('ready', 'leased')",
        &[Value::Int(file.0), Value::Int(now.0)],
    )?;
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
               ORDER BY job_id LIMIT ?5"
        ),
        &[
            Value::Int(filter.after),
            Value::opt_text(state),
            Value::opt_text(bucket.as_deref()),
            Value::opt_text(filter.reason.as_deref()),
            Value::Int(limit),
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
    source: BucketId,
    destination: BucketId,
    at_most: i64,
) -> Result<i64, Error> {
    let waiting = find(
        tx,
        "SELECT CAST(COUNT(*) AS BIGINT) FROM (
           SELECT job_id FROM replication_jobs
            WHERE lane = ?1 AND origin = 'scan' AND state = 'ready' LIMIT ?2) w",
        &[Value::Text(&lane_of(&target_of(destination), source)), Value::Int(at_most)],
        |row| row.int(0),
    )?;
    Ok(waiting.unwrap_or_default())
}
