//! Walks of streams over files that were there before: jobs for versions that have none, and another
//! look at those that have arrived (replication.md B10, C10).
//!
//! Each batch makes its jobs and moves the cursor in one transaction. A walk never overfills a queue:
//! it waits while there is no room, so that uploads alone decide what a full queue means.

use crate::catalog::files::ScanCursor;
use crate::catalog::replication::{self, JobOrigin, StreamEnqueued};
use crate::catalog::streams::{self, StreamScan};
use crate::catalog::{Abort, Tx, buckets, files};
use crate::domain::bucket::BucketNumber;
use crate::domain::file::FileVersion;
use crate::domain::ids::BucketId;
use crate::domain::remote::StreamId;
use crate::domain::stream::{NotTaken, Stream};
use crate::operations::App;
use crate::operations::effects::{Moment, note_stream_job};
use crate::operations::error::Error;
use crate::operations::streams::{before_names, cursor_at, walked_prefix};

/// Versions of one batch.
const BATCH: usize = 500;

/// What one batch did.
#[derive(Debug, Default)]
struct Advanced {
    /// Something was looked at, or the walk ended.
    moved: bool,
    /// Sizes of the versions that have a job now.
    queued: Vec<u64>,
    skipped: u64,
}

/// Takes every walk that has room one batch further; true when any did something.
pub(crate) async fn advance_all(app: &App) -> Result<bool, Error> {
    let running = app.catalog.read(|tx| Ok(streams::list_running_scans(tx, None)?))?;
    let mut any = false;
    for scan in running {
        // Looked at before the writer is asked: a walk may wait for long, and is asked for often.
        if app.catalog.read(|tx| waits(tx, &scan))? {
            continue;
        }
        let (id, stream, moment) = (scan.id, scan.stream, Moment::of(app));
        let advanced = app.catalog.write("stream_scan", move |tx| advance(tx, id, moment)).await?;
        any |= advanced.moved;
        note(app, stream, &advanced);
    }
    Ok(any)
}

/// Whether any walk has something to do now.
pub(crate) fn may_advance(tx: &mut dyn Tx) -> Result<bool, Abort> {
    for scan in streams::list_running_scans(tx, None)? {
        if !waits(tx, &scan)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn note(app: &App, stream: StreamId, advanced: &Advanced) {
    for size in &advanced.queued {
        note_stream_job(app, stream, StreamEnqueued::Queued, *size);
    }
    app.metrics.replication_skipped_customer_key.add(advanced.skipped);
}

/// Whether the next version that a walk comes by finds no room in the queue of its stream.
fn waits(tx: &mut dyn Tx, scan: &StreamScan) -> Result<bool, Abort> {
    let Some(stream) = streams::find_stream(tx, scan.stream)? else { return Ok(false) };
    if !replication::admits(tx, &stream, stream.sums, 0)? {
        return Ok(true);
    }
    let Some(Walk { place, from, prefix }) = walk_of(tx, &stream, scan)? else { return Ok(false) };
    let next = files::list_for_scan(tx, place, Some(&from), 1)?;
    let Some(next) = next.first().filter(|next| next.name.as_str().starts_with(&prefix)) else {
        return Ok(false);
    };
    let asks = matches!(look_at(tx, &stream, scan, next)?, Looked::Asks(_));
    Ok(asks && !replication::admits(tx, &stream, stream.sums, next.size)?)
}

/// What a walk goes over, from where on.
struct Walk {
    place: (BucketNumber, BucketId),
    from: ScanCursor,
    prefix: String,
}

/// None when there is nothing for it to go over any more.
fn walk_of(tx: &mut dyn Tx, stream: &Stream, scan: &StreamScan) -> Result<Option<Walk>, Abort> {
    let Some(bucket) = buckets::find_by_id(tx, stream.local_bucket)? else { return Ok(None) };
    let Some(prefix) = walked_prefix(stream, &scan.prefix) else { return Ok(None) };
    let from = scan.cursor.clone().unwrap_or_else(|| before_names(prefix));
    Ok(Some(Walk { place: (bucket.number, bucket.id), from, prefix: prefix.to_owned() }))
}

/// One batch of a walk. It ends before a version that finds no room.
fn advance(tx: &mut dyn Tx, id: i64, moment: Moment) -> Result<Advanced, Abort> {
    let mut advanced = Advanced::default();
    let Some(mut scan) = streams::find_scan(tx, id)? else { return Ok(advanced) };
    let mut stream = streams::find_stream(tx, scan.stream)?;
    let walk = match &stream {
        Some(stream) => walk_of(tx, stream, &scan)?,
        None => None,
    };
    let (Some(stream), Some(walk)) = (&mut stream, walk) else {
        advanced.moved = streams::advance_scan(tx, &scan, Some(moment.now))?;
        return Ok(advanced);
    };
    let batch = files::list_for_scan(tx, walk.place, Some(&walk.from), BATCH)?;
    let mut ended = batch.len() < BATCH;
    for version in &batch {
        if !version.name.as_str().starts_with(&walk.prefix) {
            ended = true;
            break;
        }
        match look_at(tx, stream, &scan, version)? {
            Looked::Asks(_) if !replication::admits(tx, stream, stream.sums, version.size)? => {
                ended = false;
                break;
            }
            Looked::Asks(known) => {
                queue(tx, stream, version, known, moment)?;
                scan.enqueued += 1;
                advanced.queued.push(version.size);
            }
            Looked::Skipped => {
                scan.skipped += 1;
                advanced.skipped += 1;
            }
            Looked::Nothing => {}
        }
        scan.seen += 1;
        scan.cursor = Some(cursor_at(version));
        advanced.moved = true;
    }
    advanced.moved |= ended;
    streams::advance_scan(tx, &scan, ended.then_some(moment.now))?;
    Ok(advanced)
}

/// What a walk thinks of a version.
enum Looked {
    Nothing,
    /// It is to be carried, or looked for; with the job that it has already.
    Asks(Option<i64>),
    /// Only its customer could read it.
    Skipped,
}

fn look_at(
    tx: &mut dyn Tx,
    stream: &Stream,
    scan: &StreamScan,
    version: &FileVersion,
) -> Result<Looked, Abort> {
    if scan.before.is_some_and(|before| version.upload_at >= before) {
        return Ok(Looked::Nothing);
    }
    match stream.takes(version) {
        Ok(()) => {}
        Err(NotTaken::Other) => return Ok(Looked::Nothing),
        Err(NotTaken::CustomerKey) => return Ok(Looked::Skipped),
    }
    Ok(match streams::find_job_of_file(tx, stream.id, version.number)? {
        None => Looked::Asks(None),
        Some((job, state)) if scan.carries_again && !state.is_unfinished() => {
            Looked::Asks(Some(job))
        }
        Some(_) => Looked::Nothing,
    })
}

fn queue(
    tx: &mut dyn Tx,
    stream: &mut Stream,
    version: &FileVersion,
    known: Option<i64>,
    moment: Moment,
) -> Result<(), Abort> {
    let now = moment.steady;
    match known {
        Some(job) => {
            streams::carry_again(tx, stream, job, version.size, now)?;
        }
        None => {
            replication::insert_stream_job(tx, stream, version, JobOrigin::Scan, now)?;
        }
    }
    Ok(())
}
