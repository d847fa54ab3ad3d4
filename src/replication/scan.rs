//! Scans: jobs for files that were there before a rule (replication.md A9, C10).
//!
//! A scan belongs to a bucket and walks it once, in batches; each batch inserts its jobs and moves
//! the cursor in one transaction, so a crash repeats nothing and skips nothing. A version uploaded
//! meanwhile has its jobs from its own commit; the uniqueness of jobs absorbs the seam.

use crate::catalog::replication::{self, JobOrigin, Scan};
use crate::catalog::{Abort, Tx, buckets, files, server_facts};
use crate::domain::replication::ReplicationRule;
use crate::operations::App;
use crate::operations::effects::Moment;
use crate::operations::error::Error;
use crate::operations::replication_rules::{Enqueued, enqueue};
use crate::replication::stream_scan;

/// Versions of one batch.
const BATCH: usize = 500;
/// A scan pauses while so many of its jobs wait for one destination.
pub(crate) const WAITING_MAX: i64 = 10_000;

/// Takes every running scan one batch further; true when any did something.
pub(crate) async fn advance_all(app: &App) -> Result<bool, Error> {
    let running = app.catalog.read(|tx| Ok(replication::list_running_scans(tx)?))?;
    let mut advanced = false;
    for scan in running {
        // Looked at before the writer is asked: a scan may pause for long, and is asked for often.
        if app.catalog.read(|tx| pauses(tx, &scan))? {
            continue;
        }
        let moment = Moment::of(app);
        let enqueued =
            app.catalog.write("replication_scan", move |tx| advance(tx, &scan, moment)).await?;
        advanced = true;
        app.metrics.replication_jobs.add(enqueued);
    }
    advanced |= stream_scan::advance_all(app).await?;
    Ok(advanced)
}

/// Whether enough jobs of a scan wait already, for any of the destinations of its bucket.
fn pauses(tx: &mut dyn Tx, scan: &Scan) -> Result<bool, Abort> {
    let Some(bucket) = buckets::find_by_id(tx, scan.bucket)? else { return Ok(false) };
    let rules = bucket.settings.replication.rules();
    for destination in rules.iter().filter_map(ReplicationRule::destination) {
        let waiting = replication::count_waiting_scan_jobs(
            tx,
            (bucket.account, scan.bucket),
            destination,
            WAITING_MAX,
        )?;
        if waiting >= WAITING_MAX {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One batch of a scan; answers how many jobs it made.
fn advance(tx: &mut dyn Tx, scan: &Scan, moment: Moment) -> Result<u64, Abort> {
    let mut scan = scan.clone();
    let Some(bucket) = buckets::find_by_id(tx, scan.bucket)? else {
        replication::supersede_scans(tx, scan.bucket, moment.now)?;
        return Ok(0);
    };
    let batch = files::list_for_scan(tx, (bucket.number, bucket.id), scan.cursor.as_ref(), BATCH)?;
    let mut enqueued = 0_u64;
    for version in &batch {
        scan.seen += 1;
        let (copy_large, now) = (moment.copy_large_metadata, moment.steady);
        match enqueue(tx, &bucket, version, JobOrigin::Scan, copy_large, now)? {
            Enqueued::Jobs(made) => {
                enqueued += made as u64;
                scan.enqueued += i64::try_from(made).unwrap_or_default();
                replication::refresh_status(tx, version.number)?;
            }
            Enqueued::Skipped(_) => scan.skipped += 1,
            Enqueued::Nothing => {}
        }
    }
    if let Some(last) = batch.last() {
        scan.cursor = Some(files::ScanCursor {
            name: last.name.as_str().to_owned(),
            upload_at: last.upload_at,
            origin: last.origin,
        });
    }
    let finished = (batch.len() < BATCH).then_some(moment.now);
    replication::advance_scan(tx, &scan, finished)?;
    Ok(enqueued)
}

/// The fact that says which day's scans were started last.
const DAY_SCANNED: &str = "replication_day_scanned";

/// Starts the scans of a new day: of every bucket that asks for existing files and has none running.
/// A midnight that passed while no server ran is made up for. A clock that went back starts nothing;
/// its next midnight does.
pub(crate) async fn start_daily(app: &App) -> Result<(), Error> {
    let now = app.clock.now();
    app.catalog
        .write("start_daily_scans", move |tx| {
            let today = now.day();
            let known = server_facts::find_fact(tx, DAY_SCANNED)?;
            let known: Option<i64> =
                known.and_then(|day| String::from_utf8(day).ok()?.parse().ok());
            if known == Some(today) {
                return Ok(());
            }
            server_facts::put_fact(tx, DAY_SCANNED, today.to_string().as_bytes())?;
            if known.is_none_or(|day| day > today) {
                return Ok(());
            }
            let running = replication::list_running_scans(tx)?;
            for bucket in buckets::list_all(tx)? {
                let rules = bucket.settings.replication.rules();
                let asks = rules.iter().any(|rule| rule.is_enabled && rule.include_existing_files);
                if asks && !running.iter().any(|scan| scan.bucket == bucket.id) {
                    replication::start_scan(tx, bucket.id, bucket.revision, now)?;
                }
            }
            Ok(())
        })
        .await?;
    Ok(())
}
