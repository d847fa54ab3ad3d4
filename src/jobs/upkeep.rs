//! Upkeep: small steps that keep the catalog ahead of what the server draws from it and not far behind
//! what it counts, that take out of it what is of no use to anybody, and that tell of replication that
//! is late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::catalog::{replication, server_facts, streams};
use crate::domain::remote::StreamId;
use crate::domain::replication::LATE_MS;
use crate::domain::time::DAY_MS;
use crate::operations::App;
use crate::operations::error::Error;
use crate::operations::lock_clock;
use crate::operations::replica_sessions::give_up_idle;
use crate::operations::streams::clear;
use crate::operations::usage::carry_counts;

/// How often there is a look; a mark of numbers lasts for half a minute.
const POLL: Duration = Duration::from_secs(1);

/// How often it is looked for what can go.
const PRUNE_EVERY_MS: i64 = 60 * 60 * 1000;
/// Rows that go in one transaction.
const PRUNE_BATCH: i64 = 500;
/// Operators can see for this long that a job was cancelled.
const CANCELLED_KEPT_MS: i64 = DAY_MS;
/// Counts of usage are carried once in so many looks: as many seconds of them a crash may lose.
const LOOKS_PER_CARRYING: u32 = 5;

/// Late jobs told of at a time.
const LATE_BATCH: i64 = 500;
/// The fact that says up to which job those that are late were told of.
const LATE_NOTED: &str = "replication_late_noted";

/// The upkeep of one server.
pub(crate) struct Upkeep {
    app: Arc<App>,
    looks: AtomicU32,
    /// Monotonic time.
    next_prune_ms: AtomicI64,
    stopping: AtomicBool,
    stopped: Notify,
}

impl Upkeep {
    pub(crate) fn new(app: Arc<App>) -> Arc<Self> {
        Arc::new(Self {
            app,
            looks: AtomicU32::new(0),
            next_prune_ms: AtomicI64::new(0),
            stopping: AtomicBool::new(false),
            stopped: Notify::new(),
        })
    }

    /// Runs until [`Upkeep::stop`], and then carries what is left to carry.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut failures = 0_u32;
        while !self.stopping.load(Ordering::SeqCst) {
            match self.look().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if failures == 1 || failures.is_multiple_of(60) {
                        tracing::warn!(%error, failures, "keep the catalog up");
                    }
                }
            }
            drop(tokio::time::timeout(POLL, self.stopped.notified()).await);
        }
        if let Err(error) = carry_counts(&self.app).await {
            tracing::warn!(%error, "write down the last counts of usage");
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stopped.notify_one();
    }

    /// One look at everything that may be due.
    pub(crate) async fn look(&self) -> Result<(), Error> {
        self.store_mark().await?;
        self.note_late().await?;
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        if looks % LOOKS_PER_CARRYING == LOOKS_PER_CARRYING - 1 {
            carry_counts(&self.app).await?;
        }
        lock_clock::look(&self.app).await?;
        let monotonic = self.app.clock.monotonic().0;
        if monotonic >= self.next_prune_ms.load(Ordering::Relaxed) {
            self.prune().await?;
            self.next_prune_ms.store(monotonic + PRUNE_EVERY_MS, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Counts jobs that are late now, each once, and says so.
    async fn note_late(&self) -> Result<(), Error> {
        let since = self.app.waits.now().plus(-LATE_MS);
        loop {
            // Up to which job it was said, of whatever process.
            let (noted, late) = self.app.catalog.read(|tx| {
                let noted = server_facts::find_fact(tx, LATE_NOTED)?;
                let noted = noted.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
                let noted: i64 = noted.unwrap_or_default();
                let mut late = replication::list_pending(tx, noted, LATE_BATCH)?;
                late.retain(|job| job.enqueued_at <= since);
                Ok((noted, late))
            })?;
            let (Some(first), Some(last)) = (late.first(), late.last()) else { return Ok(()) };
            let until = last.job_id.max(noted).to_string();
            self.app
                .catalog
                .write("note_late_jobs", move |tx| {
                    Ok(server_facts::put_fact(tx, LATE_NOTED, until.as_bytes())?)
                })
                .await?;
            self.app.metrics.replication_missed_threshold.add(late.len() as u64);
            tracing::warn!(
                jobs = late.len(),
                first.file.id = %first.file_id,
                first.target = %first.target,
                "replication_missed_threshold"
            );
        }
    }

    /// Gives up what peers have begun to send and left, takes out jobs that were cancelled long ago, and
    /// the memory of replicas in buckets that are gone. None of the last two can be asked for again: numbers of versions and ids of buckets never come twice.
    /// Takes out jobs that were cancelled long ago, jobs of streams that are gone, and the memory of
    /// replicas in buckets that are gone. None can be asked for again: numbers of versions and streams
    /// and ids of buckets never come twice.
    async fn prune(&self) -> Result<(), Error> {
        while !self.stopping.load(Ordering::SeqCst) {
            if give_up_idle(&self.app).await? == 0 {
                break;
            }
        }
        let until = self.app.waits.now().plus(-CANCELLED_KEPT_MS);
        while !self.stopping.load(Ordering::SeqCst) {
            let pruned = self.app.catalog.write("prune_cancelled_jobs", move |tx| {
                Ok(replication::prune_cancelled(tx, until, PRUNE_BATCH)?)
            });
            if pruned.await? == 0 {
                break;
            }
        }
        let mut gone_stream = StreamId(0);
        while !self.stopping.load(Ordering::SeqCst) {
            let next =
                self.app.catalog.read(|tx| Ok(streams::next_gone_stream(tx, gone_stream)?))?;
            let Some(next) = next else { break };
            clear(&self.app, next).await?;
            gone_stream = next;
        }
        let mut gone = String::new();
        while !self.stopping.load(Ordering::SeqCst) {
            let next =
                self.app.catalog.read(|tx| Ok(replication::next_gone_destination(tx, &gone)?))?;
            let Some(next) = next else { break };
            self.forget_replicas_in(next.clone()).await?;
            gone = next;
        }
        Ok(())
    }

    async fn forget_replicas_in(&self, gone_bucket: String) -> Result<(), Error> {
        let gone_bucket = Arc::new(gone_bucket);
        while !self.stopping.load(Ordering::SeqCst) {
            let bucket = Arc::clone(&gone_bucket);
            let pruned = self.app.catalog.write("prune_replication_origins", move |tx| {
                Ok(replication::prune_origins(tx, &bucket, PRUNE_BATCH)?)
            });
            if pruned.await? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Stores the next mark of numbers when one is due, and then lets it be used.
    async fn store_mark(&self) -> Result<(), Error> {
        let Some(mark) = self.app.numbers.due_mark(self.app.clock.now()) else { return Ok(()) };
        self.app
            .catalog
            .write("raise_number_mark", move |tx| Ok(server_facts::raise_number_mark(tx, mark)?))
            .await?;
        self.app.numbers.raise_mark(mark);
        Ok(())
    }
}
