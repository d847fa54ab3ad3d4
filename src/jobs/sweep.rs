//! The sweep: removes the bytes of blobs that no version shows any more, and bytes that a crash, or
//! a writer that was stopped midway, left behind before any version showed them.
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

    /// Removes blobs that were left behind midway, once nobody can be writing them any more.
    async fn remove_left_behind(&self) -> Result<(), Error> {
        let left = &self.app.left_behind;
        let now = self.app.clock.monotonic();
        let mut ids = left.take_until(now.plus(-self.grace_ms)).into_iter();
        while let Some(id) = ids.next() {
            if let Err(error) = self.app.blobs.remove(id).await {
                left.add(ids.chain([id]), now);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Removes one batch of blobs whose grace is over; answers how many.
    pub(crate) async fn remove_freed(&self) -> Result<u64, Error> {
        self.remove_left_behind().await?;
        let now = self.app.clock.now();
        let until = now.plus(-self.grace_ms);
        let freed = self.app.catalog.read(|tx| Ok(blob_refs::list_freed(tx, until, BATCH)?))?;
        let mut removed = Vec::with_capacity(freed.len());
        let mut failed = None;
        for blob in freed {
            // Bytes first, then the row: a crash in between finds the row again.
            let gone = if blob.in_store { self.app.blobs.remove(blob.id).await } else { Ok(()) };
            // One file that cannot be removed must not keep the others on the disk.
            match gone {
                Ok(()) => removed.push(blob.id),
                Err(error) => failed = Some(error),
            }
        }
        let count = removed.len() as u64;
        if count > 0 {
            self.app
                .catalog
                .write("sweep", move |tx| {
                    for &id in &removed {
                        blob_refs::forget(tx, id, now)?;
                    }
                    Ok(())
                })
                .await?;
            self.app.metrics.swept_blobs.add(count);
        }
        failed.map_or(Ok(count), |error| Err(error.into()))
    }

    /// Removes stored blobs that the catalog has never known and that were drawn before `end`, an
    /// id drawn when this process started: what a crash left behind. Looks only at the time since
    /// the last such walk that came to its end. Answers how many were removed.
    ///
    /// The bound is an id, not a moment: ids grow even when the clock goes back, so it can never
    /// lie above a blob that an upload of this process is about to show.
    pub(crate) async fn remove_orphans(&self, end: BlobId) -> Result<u64, Error> {
        let swept = self.app.catalog.read(|tx| Ok(server_facts::find_fact(tx, SWEPT_UNTIL)?))?;
        let swept = swept.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        // An upload may have been under way for long when the process died.
        let mut after = swept.map(|until: i64| BlobId::first_at(Millis(until - ORPHAN_AGE_MS)));
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
        let until = end.drawn_at().0.to_string();
        self.app
            .catalog
            .write("note_orphans_swept", move |tx| {
                Ok(server_facts::put_fact(tx, SWEPT_UNTIL, until.as_bytes())?)
            })
            .await?;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::blobs::faulty::{Fault, Verb};
    use crate::clock::Clock as _;
    use crate::domain::blob::Placement;
    use crate::operations::files::delete_version;
    use crate::testing::TestHouse;

    /// Stores a blob as an upload does, up to the moment before its commit.
    async fn linked(house: &TestHouse) -> BlobId {
        let id = house.app.numbers.blob(house.clock.now());
        let content = Bytes::from(vec![7; 100_000]);
        let mut writer = house.app.blobs.begin(id, 100_000, None).await.unwrap();
        writer.write(content).await.unwrap();
        writer.digests().await.unwrap();
        assert_eq!(writer.finish().await.unwrap(), Placement::Stored);
        id
    }

    #[tokio::test]
    async fn a_clock_that_goes_back_makes_no_orphan_of_an_upload_under_way() {
        let house = TestHouse::open().await;
        let left_behind = linked(&house).await;
        let start = house.app.numbers.blob(house.clock.now());
        house.clock.jump(-3_600_000);
        let under_way = linked(&house).await;
        let sweep = Sweep::new(Arc::clone(&house.app), 0);
        assert_eq!(sweep.remove_orphans(start).await.unwrap(), 1);
        let stored = house.app.blobs.list(None, 10).await.unwrap();
        assert!(stored.contains(&under_way) && !stored.contains(&left_behind), "{stored:?}");
    }

    #[tokio::test]
    async fn what_a_stopped_writer_left_goes_after_the_grace_even_if_not_at_the_first_attempt() {
        let house = TestHouse::open().await;
        let left = [linked(&house).await, linked(&house).await];
        house.app.left_behind.add(left, house.clock.monotonic());
        let sweep = Sweep::new(Arc::clone(&house.app), 60_000);
        let stored = async || house.app.blobs.list(None, 10).await.unwrap();
        house.clock.advance(59_999);
        sweep.remove_freed().await.unwrap();
        assert_eq!(stored().await, left, "a thread might still be writing them");
        house.clock.advance(1);
        house.blob_faults.plan(Verb::Remove, 1, Fault::Io);
        assert!(sweep.remove_freed().await.is_err(), "it is told");
        house.clock.advance(60_000);
        sweep.remove_freed().await.unwrap();
        assert_eq!(stored().await, []);
        sweep.remove_freed().await.unwrap();
        assert_eq!(house.blob_faults.calls(Verb::Remove), 3, "each once");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_removed_keeps_no_other_on_the_disk() {
        let house = TestHouse::open().await;
        let bucket = house.bucket("sweep-bucket").await;
        for name in ["one", "two", "three"] {
            let version = house.upload(bucket, name, &vec![1; 100_000]).await;
            let id = version.id().to_string();
            delete_version(&house.app, &house.caller, name, &id, false).await.unwrap();
            house.clock.advance(1);
        }
        let sweep = Sweep::new(Arc::clone(&house.app), 0);
        house.blob_faults.plan(Verb::Remove, 1, Fault::Io);
        assert!(sweep.remove_freed().await.is_err(), "it is told");
        assert_eq!(house.app.blobs.list(None, 10).await.unwrap().len(), 1);
        assert_eq!(sweep.remove_freed().await.unwrap(), 1, "and tried again");
        assert_eq!(house.app.blobs.list(None, 10).await.unwrap(), []);
    }
}
