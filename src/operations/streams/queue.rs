//! What waits in the queue of a stream, what became of the rest, and what operators can do about both.

use crate::auth::caller::Caller;
use crate::catalog::files::{self, ScanCursor};
use crate::catalog::replication;
use crate::catalog::streams::{self, StreamFile};
use crate::catalog::{Abort, Tx};
use crate::domain::bucket::{Bucket, BucketNumber};
use crate::domain::capability::Capability;
use crate::domain::file::FileVersion;
use crate::domain::ids::{BucketId, ClaimedFileId, FileNumber};
use crate::domain::names::check_prefix;
use crate::domain::refusal::{Code, bad_request, invalid_file_id, refuse};
use crate::domain::remote::StreamId;
use crate::domain::replication::{JobState, Reason};
use crate::domain::stream::{NotTaken, Stream};
use crate::domain::time::{Millis, Steady};
use crate::operations::App;
use crate::operations::error::Error;
use crate::operations::replication_jobs::parse_state;
use crate::operations::streams::{BATCH, existing_with_names};

/// Files of a page at most.
const PAGE_MAX: usize = 1000;
/// Files that can be named in one call.
const NAMED_MAX: usize = 1000;
/// Walks over one stream at a time.
const SCANS_MAX: usize = 20;
/// Versions that are read at a time.
const READ: usize = 500;

/// Which files of a stream a listing shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilesQuery {
    pub(crate) state: Option<String>,
    /// The last job of the page before.
    pub(crate) after: Option<i64>,
    pub(crate) limit: Option<usize>,
}

/// A file of a stream with what follows from its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownFile {
    pub(crate) file: StreamFile,
    /// The remote will not take it as it is; it stays in the queue until it is retried or purged.
    pub(crate) is_blocked: bool,
}

/// One page of files, oldest jobs first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePage {
    pub(crate) files: Vec<ShownFile>,
    pub(crate) next_after: Option<i64>,
}

/// Lists the files of a stream: those on their way and those that have arrived or ended otherwise.
pub(crate) fn files(
    app: &App,
    caller: &Caller,
    id: StreamId,
    query: &FilesQuery,
) -> Result<FilePage, Error> {
    caller.require(Capability::ReadBucketReplications)?;
    caller.require(Capability::ListFiles)?;
    let state = query.state.as_deref().map(parse_state).transpose()?;
    let limit = query.limit.unwrap_or(100);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(bad_request(format!("limit must be between 1 and {PAGE_MAX}")).into());
    }
    let after = query.after.unwrap_or(0);
    let mut found = app.catalog.read(|tx| {
        existing_with_names(tx, caller, id, Capability::ReadBucketReplications)?;
        Ok(streams::list_files(tx, id, state, after, limit + 1)?)
    })?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_after = if more { found.last().map(|file| file.job_id) } else { None };
    let shown = |file: StreamFile| ShownFile { is_blocked: is_blocked(&file), file };
    Ok(FilePage { files: found.into_iter().map(shown).collect(), next_after })
}

fn is_blocked(file: &StreamFile) -> bool {
    let reason = file.last_reason.as_deref().and_then(Reason::parse);
    let is_final = reason.is_some_and(Reason::is_final);
    file.state == JobState::Parked || (file.state == JobState::Ready && is_final)
}

/// Which files shall go again. With neither, all that wait after a failure.
#[derive(Clone, Debug, Default)]
pub(crate) struct RetryWhat {
    pub(crate) file_ids: Vec<String>,
    pub(crate) state: Option<String>,
}

/// Lets files go at once that wait after a failure, or that were given up; answers how many. What has
/// arrived is not carried again, see [`resync`] for that.
pub(crate) async fn retry(
    app: &App,
    caller: &Caller,
    id: StreamId,
    what: RetryWhat,
) -> Result<u64, Error> {
    caller.require(Capability::WriteBucketReplications)?;
    let state = what.state.as_deref().map(parse_state).transpose()?;
    if what.file_ids.len() > NAMED_MAX {
        return Err(bad_request(format!("at most {NAMED_MAX} files can be named")).into());
    }
    let parse = |text: &String| {
        ClaimedFileId::parse(text).map(|id| id.number).ok_or_else(|| invalid_file_id(text))
    };
    let numbers: Vec<FileNumber> = what.file_ids.iter().map(parse).collect::<Result<_, _>>()?;
    let states = match state {
        Some(JobState::Done) => {
            return Err(bad_request("files that have arrived are looked for by resync").into());
        }
        Some(state) => vec![state],
        None => vec![JobState::Ready, JobState::Parked, JobState::Failed],
    };
    let now = app.waits.now();
    let retried = if numbers.is_empty() {
        app.catalog
            .read(|tx| existing_with_names(tx, caller, id, Capability::WriteBucketReplications))?;
        let mut retried = 0;
        for state in states {
            retried += retry_state(app, id, state, now).await?;
        }
        retried
    } else {
        let asking = caller.clone();
        app.catalog
            .write("retry_stream_files", move |tx| {
                existing_with_names(tx, &asking, id, Capability::WriteBucketReplications)?;
                let mut retried = 0;
                for number in &numbers {
                    let Some((job, now_state)) = streams::find_job_of_file(tx, id, *number)? else {
                        continue;
                    };
                    if state.is_none_or(|wanted| wanted == now_state) {
                        retried += u64::from(retry_job(tx, job, now)?);
                    }
                }
                Ok(retried)
            })
            .await?
    };
    app.wake.replication.notify_one();
    Ok(retried)
}

fn retry_job(tx: &mut dyn Tx, job: i64, now: Steady) -> Result<bool, Abort> {
    match replication::find_job(tx, job)? {
        Some(job) => Ok(replication::retry_stream_job(tx, &job, now)?),
        None => Ok(false),
    }
}

/// In batches, so that a long list does not hold up the writers of the whole server.
async fn retry_state(app: &App, id: StreamId, state: JobState, now: Steady) -> Result<u64, Error> {
    let (mut after, mut retried) = (0, 0);
    loop {
        let (last, of_batch) = app
            .catalog
            .write("retry_stream_jobs", move |tx| {
                let limit = usize::try_from(BATCH).unwrap_or(500);
                let batch = streams::list_files(tx, id, Some(state), after, limit)?;
                let mut retried = 0;
                for file in &batch {
                    retried += u64::from(retry_job(tx, file.job_id, now)?);
                }
                Ok((batch.last().map(|file| file.job_id), retried))
            })
            .await?;
        retried += of_batch;
        match last {
            Some(last) => after = last,
            None => return Ok(retried),
        }
    }
}

/// Ends everything that waits in the queue of a stream or outside of it; answers how many files. The
/// files themselves stay as they are. What is written meanwhile may be among them.
pub(crate) async fn purge(app: &App, caller: &Caller, id: StreamId) -> Result<u64, Error> {
    caller.require(Capability::WriteBucketReplications)?;
    let mut purged = 0_u64;
    loop {
        let (now, asking) = (app.waits.now(), caller.clone());
        let ended = app
            .catalog
            .write("purge_stream", move |tx| {
                existing_with_names(tx, &asking, id, Capability::WriteBucketReplications)?;
                Ok(replication::purge(tx, id, now, BATCH)?)
            })
            .await?;
        purged += ended as u64;
        if i64::try_from(ended).unwrap_or(i64::MAX) < BATCH {
            break;
        }
    }
    app.wake.replication.notify_one();
    Ok(purged)
}

/// Which versions of a bucket shall be carried that a stream may have missed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resync {
    /// Only versions uploaded before this.
    pub(crate) older_than: Option<Millis>,
    pub(crate) prefix: String,
    /// Only count.
    pub(crate) is_dry_run: bool,
}

/// What a resync has to do. A real one counts while it goes on, so it knows only its walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct ResyncCounts {
    /// The walk that was started; None for a dry run.
    pub(crate) scan_id: Option<i64>,
    /// Versions that were never carried, and that do not wait for it.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Versions that have arrived; whether they are still there is looked up at the remote.
    pub(crate) arrived_files: u64,
    pub(crate) arrived_bytes: u64,
    /// Versions that wait in the queue.
    pub(crate) waiting_files: u64,
    /// Versions encrypted with a key that only the customer has.
    pub(crate) skipped_files: u64,
}

/// Starts a walk over what the bucket of a stream holds: versions without a job get one, and those that
/// have arrived are looked for at the remote, and carried again should they be gone there.
pub(crate) async fn resync(
    app: &App,
    caller: &Caller,
    id: StreamId,
    what: Resync,
) -> Result<ResyncCounts, Error> {
    caller.require(Capability::WriteBucketReplications)?;
    check_prefix("prefix", &what.prefix)?;
    if what.is_dry_run {
        return count(app, caller, id, &what).await;
    }
    let (now, asking) = (app.clock.now(), caller.clone());
    let scan_id = app
        .catalog
        .write("resync_stream", move |tx| {
            existing_with_names(tx, &asking, id, Capability::WriteBucketReplications)?;
            let running = streams::list_running_scans(tx, Some(id))?;
            if running.len() >= SCANS_MAX {
                let text = format!("at most {SCANS_MAX} walks of a stream can be under way");
                return Err(refuse(Code::Clash, text).into());
            }
            Ok(streams::start_scan(tx, id, &what.prefix, what.older_than, true, now)?)
        })
        .await?;
    app.wake.replication.notify_one();
    Ok(ResyncCounts { scan_id: Some(scan_id), ..ResyncCounts::default() })
}

async fn count(
    app: &App,
    caller: &Caller,
    id: StreamId,
    what: &Resync,
) -> Result<ResyncCounts, Error> {
    let (stream, bucket) = app
        .catalog
        .read(|tx| existing_with_names(tx, caller, id, Capability::WriteBucketReplications))?;
    let mut counts = ResyncCounts::default();
    let Some(prefix) = walked_prefix(&stream, &what.prefix) else { return Ok(counts) };
    let mut cursor = Some(before_names(prefix));
    while let Some(from) = cursor {
        let (stream, place, prefix) = (stream.clone(), place_of(&bucket), prefix.to_owned());
        let before = what.older_than;
        let (next, of_batch) = app
            .catalog
            .scan(move |tx| {
                let batch = files::list_for_scan(tx, place, Some(&from), READ)?;
                let mut counts = ResyncCounts::default();
                let mut next = (batch.len() == READ).then(|| batch.last().map(cursor_at)).flatten();
                for version in &batch {
                    if !version.name.as_str().starts_with(&prefix) {
                        next = None;
                        break;
                    }
                    count_version(tx, &stream, version, before, &mut counts)?;
                }
                Ok((next, counts))
            })
            .await?;
        counts = counts.plus(of_batch);
        cursor = next;
    }
    Ok(counts)
}

impl ResyncCounts {
    fn plus(self, other: Self) -> Self {
        Self {
            scan_id: self.scan_id,
            files: self.files + other.files,
            bytes: self.bytes + other.bytes,
            arrived_files: self.arrived_files + other.arrived_files,
            arrived_bytes: self.arrived_bytes + other.arrived_bytes,
            waiting_files: self.waiting_files + other.waiting_files,
            skipped_files: self.skipped_files + other.skipped_files,
        }
    }
}

fn count_version(
    tx: &mut dyn Tx,
    stream: &Stream,
    version: &FileVersion,
    before: Option<Millis>,
    counts: &mut ResyncCounts,
) -> Result<(), Abort> {
    if before.is_some_and(|before| version.upload_at >= before) {
        return Ok(());
    }
    match stream.takes(version) {
        Err(NotTaken::Other) => return Ok(()),
        Err(NotTaken::CustomerKey) => {
            counts.skipped_files += 1;
            return Ok(());
        }
        Ok(()) => {}
    }
    match streams::find_job_of_file(tx, stream.id, version.number)? {
        Some((_, JobState::Done)) => {
            counts.arrived_files += 1;
            counts.arrived_bytes += version.size;
        }
        Some((_, state)) if state.is_unfinished() => counts.waiting_files += 1,
        Some(_) | None => {
            counts.files += 1;
            counts.bytes += version.size;
        }
    }
    Ok(())
}

pub(super) fn place_of(bucket: &Bucket) -> (BucketNumber, BucketId) {
    (bucket.number, bucket.id)
}

/// The names that both a stream and a walk of it are about begin with this; None when there are none.
pub(crate) fn walked_prefix<'a>(stream: &'a Stream, asked: &'a str) -> Option<&'a str> {
    let of_stream = stream.options.file_name_prefix.as_str();
    if asked.starts_with(of_stream) {
        Some(asked)
    } else {
        of_stream.starts_with(asked).then_some(of_stream)
    }
}

/// Stands before all versions of names that begin with `prefix`.
pub(crate) fn before_names(prefix: &str) -> ScanCursor {
    ScanCursor { name: prefix.to_owned(), upload_at: Millis(i64::MIN + 1), origin: FileNumber(0) }
}

/// Stands at a version that was looked at.
pub(crate) fn cursor_at(version: &FileVersion) -> ScanCursor {
    ScanCursor {
        name: version.name.as_str().to_owned(),
        upload_at: version.upload_at,
        origin: version.origin,
    }
}
