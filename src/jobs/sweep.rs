//! The sweep: removes the bytes of blobs that no version shows any more, and bytes that a crash
//! left behind before any version showed them.
//!
//! The mirror image of an upload: the catalog forgets first, the bytes go later, after a grace in
//! which running downloads end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::catalog::{blob_refs, server_facts};
use crate::domain::ids::BlobId;
use crate::domain::time::Millis;
use crate::operations::App;
use crate::operations::error::Error;

/// Blobs in one batch.
const BATCH: i64 = 200;
/// How often the sweep looks when nobody wakes it.
const POLL: Duration = Duration::from_secs(15);
/// How far before the last walk the next one begins.
const ORPHAN_AGE_MS: i64 = 48 * 60 * 60 * 1000;
/// The fact that says until when orphans were looked for.
const SWEPT_UNTIL: &str = "orphans_swept_until_ms";

/// The sweep of one server.
pub(crate) struct Sweep {
    app: Arc<App>,
    grace_ms: i64,
    stopping: AtomicBool,
}

impl Sweep {
    pub(crate) fn new(app: Arc<App>, grace_ms: i64) -> Arc<Self> {
        Arc::new(Self { app, grace_ms, stopping: AtomicBool::new(false) })
    }

    /// Runs until [`Sweep::stop`].
    pub(crate) async fn run(self: Arc<Self>) {
        while !self.stopping.load(Ordering::SeqCst) {
            match self.remove_freed().await {
                Ok(0) => self.wait().await,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "sweep freed blobs");
                    self.wait().await;
                }
            }
        }
    }

    async fn wait(&self) {
        // A wake-up that was lost costs one poll interval, nothing else.
        drop(tokio::time::timeout(POLL, self.app.wake.sweep.notified()).await);
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.app.wake.sweep.notify_one();
    }

    /// Removes one batch of blobs whose grace is over; answers how many.
    pub(crate) async fn remove_freed(&self) -> Result<u64, Error> {
        let now = self.app.clock.now();
        let until = now.plus(-self.grace_ms);
        let freed = self.app.catalog.read(|tx| Ok(blob_refs::list_freed(tx, until, BATCH)?))?;
        let mut removed = 0;
        for blob in &freed {
            // Bytes first, then the row: a crash in between finds the row again.
            if blob.in_store {
                self.app.blobs.remove(blob.id).await?;
            }
            removed += 1;
        }
        if !freed.is_empty() {
            self.app
                .catalog
                .write("sweep", move |tx| {
                    for blob in &freed {
                        blob_refs::forget(tx, blob.id, now)?;
                    }
                    Ok(())
                })
                .await?;
            self.app.metrics.swept_blobs.add(removed);
        }
        Ok(removed)
    }

    /// Removes stored blobs that the catalog has never known and that were drawn before `before`,
    /// the start of this process: what a crash left behind. Looks only at the time since the last
    /// such walk that came to its end. Answers how many were removed.
    pub(crate) async fn remove_orphans(&self, before: Millis) -> Result<u64, Error> {
        let swept = self.app.catalog.read(|tx| Ok(server_facts::find_fact(tx, SWEPT_UNTIL)?))?;
        let swept = swept.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        // An upload may have been under way for long when the process died.
        let mut after = swept.map(|until: i64| BlobId::first_at(Millis(until - ORPHAN_AGE_MS)));
        let end = BlobId::first_at(before);
        let mut removed = 0;
        loop {
            let batch = self.app.blobs.list(after, 1000).await?;
            let Some(last) = batch.last().copied() else { break };
            for id in batch.into_iter().filter(|id| *id < end) {
                if !self.app.catalog.read(|tx| Ok(blob_refs::is_known(tx, id)?))? {
                    self.app.blobs.remove(id).await?;
                    removed += 1;
                }
            }
            after = Some(last);
            if last >= end {
                break;
            }
        }
        let until = before.0.to_string();
        self.app
            .catalog
            .write("note_orphans_swept", move |tx| {
                Ok(server_facts::put_fact(tx, SWEPT_UNTIL, until.as_bytes())?)
            })
            .await?;
        Ok(removed)
    }
}
