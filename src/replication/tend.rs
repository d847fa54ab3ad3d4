//! What streams need beside the carrying: entries that have waited too long are dropped, what waits
//! outside of a queue comes in, and what was begun at a remote by jobs that are gone is given up there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::catalog::remotes::{self, Orphan};
use crate::catalog::{replication, streams};
use crate::domain::remote::StreamId;
use crate::domain::remote_answer::{AnswerClass, RemoteFault};
use crate::domain::replication::backoff_ms;
use crate::domain::stream::QueueSums;
use crate::operations::App;
use crate::operations::error::Error;
use crate::operations::remote_tokens::open_token;
use crate::replication::destination::store::Remotes;

/// How often queues are looked through.
pub(crate) const LOOK_EVERY_MS: i64 = 60_000;
/// How often the figures of queues are compared with what is counted.
pub(crate) const COMPARE_EVERY_MS: i64 = 3_600_000;
/// How often it is looked for sessions to give up.
pub(crate) const ORPHANS_EVERY_MS: i64 = 1_000;
/// Jobs that are ended in one transaction.
const BATCH: i64 = 500;
/// Sessions that are given up in one look.
const ORPHANS: i64 = 16;

/// Looks through the queues of all streams once.
pub(super) async fn look(app: &App) -> Result<(), Error> {
    let all =
        app.catalog.read(|tx| Ok(streams::list_streams(tx, &streams::StreamRows::default())?))?;
    for stream in all {
        if stream.max_age_s > 0 {
            drop_expired(app, stream.id, stream.max_age_s).await?;
        }
        if stream.sums.spilled > 0 {
            let (id, now) = (stream.id, app.waits.now());
            app.catalog
                .write("stream_promote", move |tx| Ok(replication::promote_spilled(tx, id, now)?))
                .await?;
            app.wake.replication.notify_one();
        }
    }
    Ok(())
}

async fn drop_expired(app: &App, stream: StreamId, max_age_s: i64) -> Result<(), Error> {
    loop {
        let now = app.waits.now();
        let since = now.plus(-max_age_s.saturating_mul(1000));
        let dropped = app
            .catalog
            .write("stream_expire", move |tx| {
                Ok(replication::drop_expired(tx, stream, since, now, BATCH)?)
            })
            .await?;
        let figures = app.metrics.stream(stream);
        for job in &dropped {
            figures.expired.one();
            figures.bytes_dropped.add(job.size);
        }
        if !dropped.is_empty() {
            tracing::warn!(%stream, files = dropped.len(), "files waited longer than their stream allows");
        }
        if i64::try_from(dropped.len()).unwrap_or(i64::MAX) < BATCH {
            return Ok(());
        }
    }
}

/// Compares what is kept of the queues with what is counted, and exports the difference.
pub(super) async fn compare(app: &App) -> Result<(), Error> {
    let differences = app
        .catalog
        .scan(|tx| {
            let mut differences = Vec::new();
            for stream in streams::list_streams(tx, &streams::StreamRows::default())? {
                let counted = streams::recount_sums(tx, stream.id)?;
                differences.push((stream.id, QueueSums::change(stream.sums, counted)));
            }
            Ok(differences)
        })
        .await?;
    for (stream, difference) in differences {
        let bytes = difference.current_bytes.unsigned_abs()
            + difference.remaining_bytes.unsigned_abs()
            + difference.entries.unsigned_abs()
            + difference.spilled.unsigned_abs();
        if bytes > 0 {
            tracing::error!(%stream, ?difference, "the figures of a queue are wrong");
        }
        app.metrics.stream(stream).drift_bytes.store(bytes, Ordering::Relaxed);
    }
    Ok(())
}

/// Gives up at remotes what nobody will finish; true when there was anything to do.
pub(super) async fn cancel_orphans(
    app: &Arc<App>,
    opened_by: &dyn Remotes,
    jitter_per_mille: u32,
) -> Result<bool, Error> {
    let now = app.waits.now();
    let due = app.catalog.read(|tx| Ok(remotes::list_due_orphans(tx, now, ORPHANS)?))?;
    let found = !due.is_empty();
    for orphan in due {
        let cancelled = cancel(app, opened_by, &orphan).await;
        let number = orphan.number;
        let Err(fault) = cancelled else {
            app.catalog
                .write("orphan_cancelled", move |tx| Ok(remotes::delete_orphan(tx, number)?))
                .await?;
            continue;
        };
        let now = app.waits.now();
        if orphan.give_up_at <= now {
            app.metrics.orphan_sessions.one();
            tracing::warn!(
                remote = %orphan.remote,
                file.name = orphan.file_name,
                why = fault.text,
                "an unfinished file stays at a remote"
            );
            app.catalog
                .write("orphan_given_up", move |tx| Ok(remotes::delete_orphan(tx, number)?))
                .await?;
            continue;
        }
        let again_at = now.plus(backoff_ms(orphan.attempts + 1, jitter_per_mille));
        app.catalog
            .write("orphan_failed", move |tx| {
                Ok(remotes::note_orphan_failure(tx, number, again_at)?)
            })
            .await?;
    }
    Ok(found)
}

async fn cancel(
    app: &Arc<App>,
    opened_by: &dyn Remotes,
    orphan: &Orphan,
) -> Result<(), RemoteFault> {
    let here = |text: String| RemoteFault {
        class: AnswerClass::Unreachable,
        status: 0,
        code: String::new(),
        text,
        retry_after_ms: None,
        is_ambiguous: false,
    };
    let remote = app.catalog.read(|tx| Ok(remotes::find_remote(tx, orphan.remote)?));
    // Without its remote there is nowhere to give it up.
    let Some(stored) = remote.map_err(|error| here(Error::from(error).to_string()))? else {
        return Ok(());
    };
    let token = open_token(app, &stored).map_err(|error| here(error.to_string()))?;
    let store = opened_by.open(&stored.remote, token).await?;
    store.cancel(&orphan.bucket, &orphan.file_name, &orphan.session).await
}
