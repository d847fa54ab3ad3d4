//! The engine itself: claim, check, carry, settle.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::catalog::blob_refs::{self, NewBlob};
use crate::catalog::replication::{
    self, Breaker, DueHead, Job, Lease, LostJob, Outcome, Route, RuleRoute,
};
use crate::catalog::{Abort, Tx, files, remotes, streams};
use crate::domain::blob::Piece;
use crate::domain::encryption::Encryption;
use crate::domain::file::FileVersion;
use crate::domain::ids::{BlobId, FileNumber};
use crate::domain::remote::RemoteId;
use crate::domain::replication::{
    CRASHES_MAX, Consequence, JobState, LATE_MS, Reason, ReplicationStatus, backoff_ms,
    crash_wait_ms,
};
use crate::domain::time::{Millis, Steady};
use crate::entropy;
use crate::operations::App;
use crate::operations::controls::EngineControls;
use crate::operations::effects::{self, Aftermath, Cause, Moment};
use crate::operations::error::Error;
use crate::operations::upload::remove_unshown;
use crate::replication::carry::{Arrived, Carrier, Missed};
use crate::replication::destination::local::failure;
use crate::replication::destination::store::Remotes;
use crate::replication::destination::{Carried, Destination, Failure, Progress};
use crate::replication::gate::{self, Checked, Passed};
use crate::replication::schedule::{LARGE_BYTES, Pick, Room, Scheduler, breaker_open_ms};
use crate::replication::{scan, stream_scan, tend};

/// How the engine is run.
#[derive(Clone, Debug)]
pub(crate) struct EngineOptions {
    /// Jobs in flight in all.
    pub(crate) workers: usize,
    /// Jobs in flight for one target.
    pub(crate) target_max_inflight: usize,
    pub(crate) mapping_grace_ms: i64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { workers: 8, target_max_inflight: 4, mapping_grace_ms: 0 }
    }
}

/// A lease lasts this long unless it is renewed.
const LEASE_MS: i64 = 60_000;
/// An attempt that gets nothing done for this long is given up.
const STALL_MS: i64 = 60_000;
/// The same of one that goes to a remote. The connection has limits of its own that end sooner; the
/// longest of them is that a large file is finished within a quarter of an hour.
const REMOTE_STALL_MS: i64 = 1_200_000;
/// How long a version waits at most until it is looked again whether those before it are through; it is
/// told when one is.
const NAME_AWAITED_MS: i64 = 30_000;
/// The engine looks at least this often, in case a wake-up was lost.
const POLL: Duration = Duration::from_millis(500);
/// Lanes looked at for due work at a time.
const LANES_LOOKED_AT: usize = 64;
/// Lost jobs taken back in one transaction.
const RECLAIM_BATCH: i64 = 256;

/// What an attempt has brought about.
enum Carriage {
    /// The bytes of a replica in this server.
    Here(Carried),
    /// A version at a remote.
    There(Arrived),
}

struct InFlight {
    target: String,
    size: u64,
    stall_ms: i64,
    progress: Progress,
    renew_at: Millis,
    job: Job,
    abort: Option<AbortHandle>,
}

/// What is known of targets when jobs are chosen.
struct Targets {
    breakers: Vec<Breaker>,
    /// Of each remote, how many jobs it takes at a time; none while it is paused.
    remote_limits: Vec<(RemoteId, usize)>,
    /// Of streams that are paused.
    paused_lanes: Vec<String>,
}

impl Targets {
    fn limits(&self) -> BTreeMap<String, usize> {
        let limits = self.remote_limits.iter();
        limits.map(|(remote, limit)| (remotes::target_of_remote(*remote), *limit)).collect()
    }
}

#[derive(Default)]
struct State {
    scheduler: Scheduler,
    in_flight: BTreeMap<i64, InFlight>,
    /// The day whose scans are started, as far as this process knows.
    scanned_day: Option<i64>,
    /// When the queues of streams are looked through next; None before the first time.
    tend_at: Option<Steady>,
    /// The same for what takes looking at every job.
    look_at: Option<Steady>,
    compare_at: Option<Steady>,
    is_tending: bool,
}

/// The engine.
pub(crate) struct Engine {
    app: Arc<App>,
    options: EngineOptions,
    destination: Arc<dyn Destination>,
    remotes: Arc<dyn Remotes>,
    /// Names this run of the process in leases; those of other runs are lost.
    owner: String,
    state: Mutex<State>,
    held: AtomicBool,
    stopping: AtomicBool,
    /// A job ended, or the engine was told to stop.
    changed: Notify,
}

impl Engine {
    pub(crate) fn new(
        app: Arc<App>,
        options: EngineOptions,
        destination: Arc<dyn Destination>,
        remotes: Arc<dyn Remotes>,
    ) -> Arc<Self> {
        let owner = hex::encode(entropy::bytes::<8>(&*app.entropy));
        Arc::new(Self {
            app,
            options,
            destination,
            remotes,
            owner,
            state: Mutex::default(),
            held: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until [`Engine::stop`]: an endless sequence of steps, each idempotent.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut failures = 0_u32;
        while !self.stopping.load(Ordering::SeqCst) {
            let worked =
                if self.held.load(Ordering::SeqCst) { Ok(false) } else { self.round().await };
            match worked {
                Ok(true) => failures = 0,
                Ok(false) => {
                    failures = 0;
                    self.wait().await;
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 || failures.is_multiple_of(10) {
                        tracing::warn!(%error, failures, "replication cannot look for work");
                    }
                    self.wait().await;
                }
            }
        }
    }

    async fn wait(&self) {
        let woken = async {
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.app.wake.replication.notified() => {}
            }
        };
        // A wake-up that was lost costs one poll interval, nothing else.
        drop(tokio::time::timeout(POLL, woken).await);
    }

    /// Stops claiming and waits for what is in flight; what takes too long is left to its lease.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        self.changed.notify_one();
        let ended = async {
            while !self.state().in_flight.is_empty() {
                self.changed.notified().await;
            }
        };
        if tokio::time::timeout(patience, ended).await.is_err() {
            let mut state = self.state();
            for left in std::mem::take(&mut state.in_flight).into_values() {
                if let Some(abort) = left.abort {
                    abort.abort();
                }
            }
        }
    }

    /// One look: take back lost jobs, advance scans, start what is due. True when there may be
    /// more to do at once.
    pub(super) async fn round(self: &Arc<Self>) -> Result<bool, Error> {
        self.give_up_stalled().await?;
        self.reclaim().await?;
        self.start_daily_scans().await?;
        self.start_tending();
        let scanned = scan::advance_all(&self.app).await?;
        let slots = self.options.workers.saturating_sub(self.state().in_flight.len());
        let claimed = self.claim(slots).await?;
        let started = claimed.len();
        for job in claimed {
            self.start(job);
        }
        Ok(scanned || started > 0)
    }

    /// Runs at most one job to its outcome, on the caller's time; for tests and test controls.
    pub(crate) async fn step_once(self: &Arc<Self>) -> Result<bool, Error> {
        self.give_up_stalled().await?;
        self.reclaim().await?;
        self.start_daily_scans().await?;
        while scan::advance_all(&self.app).await? {}
        let Some(job) = self.claim(1).await?.into_iter().next() else { return Ok(false) };
        let progress = self.enter(&job);
        Arc::clone(self).attempt(job, progress).await;
        Ok(true)
    }

    /// Works until no due job is left or `timeout` has passed; answers whether all is done.
    pub(crate) async fn run_dry(self: &Arc<Self>, timeout: Duration) -> Result<bool, Error> {
        let all = async {
            loop {
                if self.held.load(Ordering::SeqCst) {
                    while self.step_once().await? {}
                } else {
                    self.changed.notify_one();
                }
                if self.is_idle()? {
                    return Ok(true);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(timeout, all).await.unwrap_or(Ok(false))
    }

    /// Attempts under way.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.state().in_flight.len()
    }

    /// Looks after the queues of streams when it is time, beside the carrying: what is given up at a
    /// remote may take as long as the remote likes.
    fn start_tending(self: &Arc<Self>) {
        let now = self.app.waits.now();
        {
            let mut state = self.state();
            if state.is_tending || state.tend_at.is_some_and(|at| at > now) {
                return;
            }
            state.is_tending = true;
            state.tend_at = Some(now.plus(tend::ORPHANS_EVERY_MS));
        }
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = engine.tend().await {
                tracing::warn!(%error, "the queues of streams cannot be looked after");
            }
            engine.state().is_tending = false;
        });
    }

    /// Looks after the queues of streams once.
    pub(super) async fn tend(&self) -> Result<(), Error> {
        let now = self.app.waits.now();
        let (looks, compares) = {
            let mut state = self.state();
            let looks = state.look_at.is_none_or(|at| at <= now);
            if looks {
                state.look_at = Some(now.plus(tend::LOOK_EVERY_MS));
            }
            let compares = state.compare_at.is_none_or(|at| at <= now);
            if compares {
                state.compare_at = Some(now.plus(tend::COMPARE_EVERY_MS));
            }
            (looks, compares)
        };
        if looks {
            tend::look(&self.app).await?;
        }
        if compares {
            tend::compare(&self.app).await?;
        }
        let jitter = self.jitter_per_mille();
        while tend::cancel_orphans(&self.app, &*self.remotes, jitter).await? {}
        Ok(())
    }

    fn is_idle(&self) -> Result<bool, Error> {
        if !self.state().in_flight.is_empty() {
            return Ok(false);
        }
        let now = self.app.waits.now();
        let (due, scans) = self.app.catalog.read(|tx| {
            // A job that was claimed is leased before it counts as in flight.
            let due = replication::next_due_at(tx)?.is_some_and(|at| at <= now)
                || replication::has_leased(tx)?;
            let scans = !replication::list_running_scans(tx)?.is_empty();
            Ok((due, scans || stream_scan::may_advance(tx)?))
        })?;
        Ok(!due && !scans)
    }

    async fn start_daily_scans(&self) -> Result<(), Error> {
        let today = self.app.clock.now().day();
        if self.state().scanned_day != Some(today) {
            scan::start_daily(&self.app).await?;
            self.state().scanned_day = Some(today);
        }
        Ok(())
    }

    /// Takes back jobs whose worker vanished.
    async fn reclaim(&self) -> Result<(), Error> {
        let monotonic = self.app.clock.monotonic();
        let owner = self.owner.clone();
        let lost = {
            let owner = owner.clone();
            self.app
                .catalog
                .read(move |tx| Ok(replication::list_lost(tx, &owner, monotonic, RECLAIM_BATCH)?))?
        };
        if lost.is_empty() {
            return Ok(());
        }
        let now = self.app.waits.now();
        let taken_back = self
            .app
            .catalog
            .write("replication_reclaim", move |tx| {
                let lost = replication::list_lost(tx, &owner, monotonic, RECLAIM_BATCH)?;
                for lost in &lost {
                    take_back(tx, lost, now)?;
                }
                Ok(lost)
            })
            .await?;
        for lost in taken_back.iter().filter(|lost| !lost.crashed) {
            if let Some(abort) = self.leave(&lost.job).and_then(|flight| flight.abort) {
                abort.abort();
            }
        }
        Ok(())
    }

    /// Ends the flight of an attempt, unless a later attempt at the same job is under way.
    fn leave(&self, job: &Job) -> Option<InFlight> {
        let mut state = self.state();
        let flight = state.in_flight.get(&job.id)?;
        if flight.job.lease_epoch != job.lease_epoch {
            return None;
        }
        state.in_flight.remove(&job.id)
    }

    async fn claim(&self, slots: usize) -> Result<Vec<Job>, Error> {
        if slots == 0 {
            return Ok(Vec::new());
        }
        let now = self.app.waits.now();
        let mut picks = Vec::new();
        // A window of lanes whose targets are all busy must not hide the lanes behind it.
        let mut seen = BTreeSet::new();
        while picks.is_empty() {
            let from = self.state().scheduler.next_lane().to_owned();
            let (heads, targets) = self.app.catalog.read(|tx| {
                let heads = replication::due_heads(tx, now, &from, LANES_LOOKED_AT)?;
                let remote_limits = remotes::list_limits(tx)?;
                let paused = streams::list_paused(tx)?;
                let paused_lanes = paused.iter().map(replication::lane_of_stream).collect();
                let targets = Targets {
                    breakers: replication::list_breakers(tx)?,
                    remote_limits,
                    paused_lanes,
                };
                Ok((heads, targets))
            })?;
            let fresh = heads.iter().filter(|head| seen.insert(head.lane.clone())).count();
            if fresh == 0 {
                return Ok(Vec::new());
            }
            picks = self.pick(&heads, slots, targets, now);
        }
        let lease =
            Lease { owner: self.owner.clone(), until: self.app.clock.monotonic().plus(LEASE_MS) };
        let claimed = self
            .app
            .catalog
            .write("replication_claim", move |tx| {
                let mut jobs = Vec::new();
                for pick in &picks {
                    let count = i64::try_from(pick.count).unwrap_or(1);
                    jobs.extend(replication::claim(
                        tx,
                        &pick.lane,
                        pick.origin,
                        now,
                        &lease,
                        count,
                    )?);
                }
                Ok(jobs)
            })
            .await?;
        Ok(claimed)
    }

    fn pick(&self, heads: &[DueHead], slots: usize, targets: Targets, now: Steady) -> Vec<Pick> {
        let mut state = self.state();
        let mut in_flight = BTreeMap::new();
        for flight in state.in_flight.values() {
            *in_flight.entry(flight.target.clone()).or_insert(0) += 1;
        }
        let large = state.in_flight.values().filter(|flight| flight.size >= LARGE_BYTES).count();
        let room = Room {
            slots,
            large_slots: (self.options.workers / 2).max(1).saturating_sub(large),
            target_max: self.options.target_max_inflight,
            in_flight,
            limits: targets.limits(),
            paused_lanes: targets.paused_lanes.into_iter().collect(),
            breakers: targets.breakers,
            now,
        };
        state.scheduler.pick(heads, room)
    }

    fn enter(&self, job: &Job) -> Progress {
        let progress = Progress::starting_now(Arc::clone(&self.app.clock));
        let monotonic = self.app.clock.monotonic();
        let flight = InFlight {
            target: job.target.clone(),
            size: job.size,
            stall_ms: if is_outward(job) { REMOTE_STALL_MS } else { STALL_MS },
            progress: progress.clone(),
            renew_at: monotonic.plus(LEASE_MS / 3),
            job: job.clone(),
            abort: None,
        };
        self.state().in_flight.insert(job.id, flight);
        progress
    }

    fn start(self: &Arc<Self>, job: Job) {
        let progress = self.enter(&job);
        let id = job.id;
        let task = tokio::spawn(Arc::clone(self).attempt(job, progress));
        if let Some(flight) = self.state().in_flight.get_mut(&id) {
            flight.abort = Some(task.abort_handle());
        }
    }

    /// Ends attempts that get nothing done and renews the leases of the others.
    async fn give_up_stalled(&self) -> Result<(), Error> {
        let monotonic = self.app.clock.monotonic();
        let (stalled, renewing) = {
            let mut state = self.state();
            let ids: Vec<i64> = state
                .in_flight
                .iter()
                .filter(|(_, flight)| flight.progress.noted_at().plus(flight.stall_ms) <= monotonic)
                .map(|(id, _)| *id)
                .collect();
            let stalled: Vec<InFlight> =
                ids.into_iter().filter_map(|id| state.in_flight.remove(&id)).collect();
            let mut renewing = Vec::new();
            for flight in state.in_flight.values_mut().filter(|f| f.renew_at <= monotonic) {
                flight.renew_at = monotonic.plus(LEASE_MS / 3);
                renewing.push(flight.job.clone());
            }
            (stalled, renewing)
        };
        for flight in stalled {
            if let Some(abort) = flight.abort {
                abort.abort();
            }
            let text = format!("nothing got done for {} s", flight.stall_ms / 1000);
            let missed = Missed::from(Failure { reason: Reason::Timeout, text });
            let answered = is_outward(&flight.job).then_some(0);
            self.end(&flight.job, Err(Missed { answered, ..missed })).await?;
        }
        if !renewing.is_empty() {
            let lease = Lease { owner: self.owner.clone(), until: monotonic.plus(LEASE_MS) };
            self.app
                .catalog
                .write("replication_renew", move |tx| {
                    for job in &renewing {
                        replication::extend(tx, job, &lease)?;
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }

    /// One attempt at a claimed job, whatever happens inside.
    async fn attempt(self: Arc<Self>, job: Job, progress: Progress) {
        let carried = AssertUnwindSafe(self.carry(&job, &progress)).catch_unwind().await;
        let ended = if let Ok(outcome) = carried {
            self.end(&job, outcome).await
        } else {
            tracing::error!(job.id = job.id, "a replication worker panicked");
            self.lose(&job).await
        };
        if let Err(error) = ended {
            // The lease runs out by itself, and the job is taken back then.
            tracing::warn!(job.id = job.id, %error, "the outcome of a job cannot be written");
        }
        drop(self.leave(&job));
        self.changed.notify_one();
    }

    async fn carry(&self, job: &Job, progress: &Progress) -> Result<Carriage, Missed> {
        let (at, now) = (self.checked_now(), self.app.waits.now());
        let unreadable = |abort| failure(&Error::from(abort));
        let refused = |reason| Failure { reason, text: String::new() };
        if is_outward(job) {
            let outward = self.app.catalog.read(|tx| gate::check_outward(tx, job, at, now));
            if let Some(outward) = outward.map_err(unreadable)? {
                let (remotes, owner) = (&*self.remotes, self.owner.as_str());
                let carrier = Carrier { app: &self.app, remotes, owner, job, progress };
                return carrier.carry(outward.map_err(refused)?).await.map(Carriage::There);
            }
        }
        let checked = self.app.catalog.read(|tx| gate::check(tx, job, at));
        let passed = checked.map_err(unreadable)?.map_err(refused)?;
        Ok(Carriage::Here(self.destination.carry(&self.app, &passed, progress).await?))
    }

    fn checked_now(&self) -> Checked {
        let mapping_awaited_since = self.app.waits.now().plus(-self.options.mapping_grace_ms);
        Checked { now: self.app.clock.now(), mapping_awaited_since }
    }

    /// Writes what became of an attempt.
    async fn end(&self, job: &Job, carried: Result<Carriage, Missed>) -> Result<(), Error> {
        let missed = match carried {
            Ok(Carriage::There(arrived)) => {
                let done = Outcome::Done { dest_file_id: arrived.version.id };
                let answered = Some(i64::from(arrived.version.status));
                if self.settle(job, done, answered).await? {
                    self.count_done(job);
                    self.note_target(job, None).await?;
                }
                return Ok(());
            }
            Ok(Carriage::Here(carried)) => {
                let settled = match job.rule() {
                    Some(rule) => self.settle_done(job, rule, carried).await?,
                    None => Err(Reason::Purged),
                };
                match settled {
                    Ok(settled) => {
                        self.count_fenced(settled);
                        if settled {
                            self.count_done(job);
                            self.note_target(job, None).await?;
                        }
                        return Ok(());
                    }
                    Err(reason) => Missed::from(Failure { reason, text: String::new() }),
                }
            }
            Err(missed) => missed,
        };
        let (reason, answered) = (missed.reason, missed.answered);
        let outcome = self.outcome_of(job, missed)?;
        self.count_missed(job, &outcome, answered);
        let settled = self.settle(job, outcome, answered).await?;
        if settled && reason.blames_target() {
            self.note_target(job, Some(reason)).await?;
        }
        Ok(())
    }

    /// What follows from an attempt that did not get its version across.
    fn outcome_of(&self, job: &Job, missed: Missed) -> Result<Outcome, Error> {
        let reason = missed.reason;
        let consequence = match job.route {
            Route::Rule(_) => reason.consequence(),
            Route::Stream(id) => {
                let stream = self.app.catalog.read(|tx| Ok(streams::find_stream(tx, id)?))?;
                reason.consequence_for_stream(stream.is_some_and(|one| one.drop_non_retryable))
            }
        };
        let ended = |state| Outcome::Ended { state, reason, error: missed.text.clone() };
        Ok(match consequence {
            Consequence::Fail => ended(JobState::Failed),
            Consequence::Cancel => ended(JobState::Cancelled),
            Consequence::Drop => ended(JobState::Dropped),
            Consequence::Retry => {
                // Whoever only waits for another has not failed; whoever got on begins anew.
                let attempts = match (reason, missed.progressed) {
                    (Reason::NameAwaited, _) => job.attempts,
                    (_, true) => 1,
                    (_, false) => job.attempts + 1,
                };
                let jitter = self.jitter_per_mille();
                let wait_ms = match reason {
                    // Spread, so that two versions do not wait for each other again and again.
                    Reason::NameAwaited => NAME_AWAITED_MS * i64::from(jitter) / 1000,
                    _ => backoff_ms(attempts, jitter),
                };
                let wait_ms = wait_ms
                    .max(reason.wait_ms_min())
                    .max(missed.retry_after_ms.unwrap_or_default());
                let at = self.app.waits.now().plus(wait_ms);
                Outcome::Again { reason, error: missed.text, at, attempts }
            }
        })
    }

    fn count_missed(&self, job: &Job, outcome: &Outcome, answered: Option<i64>) {
        let figures = job.stream().map(|stream| self.app.metrics.stream(stream));
        if let (Some(figures), Some(status)) = (&figures, answered) {
            figures.error(status);
        }
        match outcome {
            Outcome::Again { reason: Reason::NameAwaited, .. } | Outcome::Done { .. } => {}
            Outcome::Again { .. } => self.app.metrics.replication_retries.one(),
            Outcome::Ended { state: JobState::Failed, reason, .. } => {
                self.app.metrics.replication_failed.one();
                tracing::warn!(
                    job.id = job.id,
                    file.id = %job.file_id,
                    rule = job.rule().map(|rule| rule.rule_name.as_str()),
                    reason = reason.as_str(),
                    "replication failed"
                );
            }
            Outcome::Ended { state: JobState::Dropped, reason, .. } => {
                if let Some(figures) = &figures {
                    figures.bytes_dropped.add(job.size);
                    if *reason == Reason::Expired {
                        figures.expired.one();
                    }
                }
                tracing::warn!(
                    job.id = job.id,
                    file.id = %job.file_id,
                    stream = job.stream().map(tracing::field::display),
                    reason = reason.as_str(),
                    "a stream gave a file up"
                );
            }
            Outcome::Ended { .. } => {}
        }
    }

    /// Writes an outcome; false when the lease was lost, and nothing was written.
    async fn settle(
        &self,
        job: &Job,
        outcome: Outcome,
        answered: Option<i64>,
    ) -> Result<bool, Error> {
        let (job, owner, now) = (job.clone(), self.owner.clone(), self.app.waits.now());
        let at = self.app.clock.now();
        let settled = self
            .app
            .catalog
            .write("replication_settle", move |tx| {
                let settled = replication::settle(tx, &job, &owner, &outcome, answered, now)?;
                match (answered, remotes::remote_of_target(&job.target)) {
                    (Some(0), Some(remote)) => remotes::note_offline(tx, remote, at)?,
                    (Some(_), Some(remote)) => remotes::note_online(tx, remote, at)?,
                    (None, _) | (_, None) => {}
                }
                Ok(settled)
            })
            .await?;
        self.count_fenced(settled);
        Ok(settled)
    }

    fn count_fenced(&self, settled: bool) {
        if !settled {
            self.app.metrics.replication_fenced.one();
        }
    }

    fn count_done(&self, job: &Job) {
        let metrics = &self.app.metrics;
        let lag_ms = self.app.waits.now().0 - job.enqueued_at.0;
        metrics.replication_done.one();
        if let Some(stream) = job.stream() {
            let figures = metrics.stream(stream);
            figures.files_sent.one();
            figures.bytes_sent.add(job.size);
        }
        metrics.replication_lag.observe(u64::try_from(lag_ms).unwrap_or_default());
        if lag_ms >= LATE_MS {
            metrics.replication_late.one();
            tracing::debug!(file.id = %job.file_id, lag_ms, "replication_late_completed");
        }
    }

    fn jitter_per_mille(&self) -> u32 {
        let drawn = u16::from_le_bytes(entropy::bytes(&*self.app.entropy));
        500 + u32::from(drawn) * 500 / u32::from(u16::MAX)
    }

    /// The replica, its origin and the outcome, in one transaction. The inner error is a check that
    /// no longer holds; false means that the lease was lost, and nothing was written.
    async fn settle_done(
        &self,
        job: &Job,
        rule: &RuleRoute,
        carried: Carried,
    ) -> Result<Result<bool, Reason>, Error> {
        let moment = Moment::of(&self.app);
        let now = moment.now;
        let numbers = &self.app.numbers;
        let (small, large) = (numbers.small_file(now), numbers.large_file(now));
        let at = self.checked_now();
        let whole = numbers.blob(now);
        let origin = replication::origin_of(&self.app.instance, &job.file_id);
        let (job, owner, destination) = (job.clone(), self.owner.clone(), rule.destination);
        let in_store = carried.stored_ids();
        let settled = self
            .app
            .catalog
            .write("replication_done", move |tx| {
                let passed = match gate::check(tx, &job, at)? {
                    Ok(passed) => passed,
                    Err(reason) => return Ok(Err(reason)),
                };
                let known = replication::find_replica(tx, destination, &origin)?;
                let is_new = known.is_none();
                let number = if passed.source.number.is_large() { large } else { small };
                let mut replica = replica_of(&passed, number, now);
                let dest_file_id = known.unwrap_or_else(|| replica.id().to_string());
                let done = Outcome::Done { dest_file_id: dest_file_id.clone() };
                if is_new && passed.seals_anew() != matches!(carried, Carried::Sealed(_)) {
                    // The destination was told otherwise while the bytes were carried.
                    return Ok(Err(Reason::DestEncryptionChanged));
                }
                // The fence comes first: without the lease nothing may be written.
                if !replication::settle(tx, &job, &owner, &done, None, moment.steady)? {
                    return Ok(Ok((false, None)));
                }
                let aftermath = if is_new {
                    replica.blob = Some(show(tx, &passed, &carried, whole)?);
                    if matches!(carried, Carried::Sealed(_)) {
                        replica.encryption = Encryption::Managed;
                    }
                    Some(write_replica(tx, &passed, &mut replica, &origin, moment)?)
                } else {
                    None
                };
                Ok(Ok((true, aftermath)))
            })
            .await;
        let unshown = match &settled {
            Ok(Ok((_, shown))) => shown.is_none(),
            Ok(Err(_)) => true,
            Err(abort) => abort.kept_nothing(),
        };
        if unshown {
            remove_unshown(&self.app, in_store).await;
        }
        let settled = settled?;
        Ok(settled.map(|(settled, aftermath)| {
            if let Some(aftermath) = aftermath {
                effects::announce(&self.app, aftermath);
            }
            settled
        }))
    }

    /// A worker vanished with the job: it is taken back at once.
    async fn lose(&self, job: &Job) -> Result<(), Error> {
        let (lost, now) = (LostJob { job: job.clone(), crashed: true }, self.app.waits.now());
        self.app
            .catalog
            .write("replication_reclaim", move |tx| Ok(take_back(tx, &lost, now)?))
            .await?;
        Ok(())
    }

    /// Keeps the circuit breaker of a job's target: `failed` counts, a success closes it.
    async fn note_target(&self, job: &Job, failed: Option<Reason>) -> Result<(), Error> {
        let target = job.target.clone();
        if failed.is_none() && self.app.catalog.read(|tx| failures_of(tx, &target))? == 0 {
            return Ok(());
        }
        // Between 80 and 120 per cent, so that targets do not all come back at once.
        let spread = i64::from(self.jitter_per_mille()) * 400 / 500 + 400;
        let now = self.app.waits.now();
        self.app
            .catalog
            .write("replication_breaker", move |tx| {
                // Counted in here, because several attempts may fail at the same time.
                let failures = if failed.is_some() { failures_of(tx, &target)? + 1 } else { 0 };
                let open_ms = breaker_open_ms(failures).map_or(0, |ms| ms * spread / 1000);
                let open_until = now.plus(open_ms);
                let breaker = Breaker { target: target.clone(), failures, open_until };
                Ok(replication::put_breaker(tx, &breaker)?)
            })
            .await?;
        Ok(())
    }
}

impl EngineControls for Engine {
    fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
        self.changed.notify_one();
    }

    fn look(&self) {
        self.changed.notify_one();
    }

    fn step(self: Arc<Self>) -> BoxFuture<'static, Result<bool, Error>> {
        async move { self.step_once().await }.boxed()
    }

    fn drain(self: Arc<Self>, timeout: Duration) -> BoxFuture<'static, Result<bool, Error>> {
        async move { self.run_dry(timeout).await }.boxed()
    }
}

/// Whether a job goes to a remote, for all that can be seen of the job itself.
fn is_outward(job: &Job) -> bool {
    job.stream().is_some() || remotes::remote_of_target(&job.target).is_some()
}

fn failures_of(tx: &mut dyn Tx, target: &str) -> Result<u32, Abort> {
    let breakers = replication::list_breakers(tx)?;
    Ok(breakers.into_iter().find(|one| one.target == target).map_or(0, |one| one.failures))
}

fn take_back(tx: &mut dyn Tx, lost: &LostJob, now: Steady) -> Result<(), crate::catalog::Error> {
    if !lost.crashed {
        // Its outcome could not be written, which says nothing against the job.
        return replication::reclaim(tx, lost, now, false, now);
    }
    let crashes = lost.job.crashes + 1;
    let at = now.plus(crash_wait_ms(crashes));
    replication::reclaim(tx, lost, at, crashes >= CRASHES_MAX, now)
}

/// The version that a replica is: everything as in the source but its id.
fn replica_of(passed: &Passed, number: FileNumber, now: Millis) -> FileVersion {
    FileVersion {
        bucket: passed.destination.id,
        number,
        written_at: now,
        replication: Some(ReplicationStatus::Replica),
        ..passed.source.clone()
    }
}

/// Counts the replica on the bytes it shows; answers their blob. `whole` is the id of a blob that
/// is made of pieces, if one is needed.
fn show(
    tx: &mut dyn Tx,
    passed: &Passed,
    carried: &Carried,
    whole: BlobId,
) -> Result<BlobId, Abort> {
    let sealed = match carried {
        Carried::Shared => {
            if !blob_refs::hold(tx, passed.blob.id)? {
                let what = "blob of a file version";
                return Err(crate::catalog::Error::Unreadable { what }.into());
            }
            return Ok(passed.blob.id);
        }
        Carried::Sealed(blobs) => blobs,
    };
    for blob in sealed {
        blob_refs::insert_blob(tx, blob)?;
    }
    if let [single] = sealed.as_slice() {
        return Ok(single.id);
    }
    let piece = |blob: &NewBlob| Piece { blob: blob.id, start: 0, size: blob.size };
    blob_refs::insert_pieces(tx, whole, &mut sealed.iter().map(piece))?;
    Ok(whole)
}

fn write_replica(
    tx: &mut dyn Tx,
    passed: &Passed,
    replica: &mut FileVersion,
    origin: &str,
    moment: Moment,
) -> Result<Aftermath, Abort> {
    let bucket = &passed.destination;
    let newest = files::newest(tx, bucket.number, replica.name.as_str())?;
    let aftermath = effects::add(tx, bucket, replica, newest, Cause::Replica, moment)?;
    files::take_facts(tx, passed.source.number, replica.number)?;
    replication::insert_replica(tx, passed.destination.id, origin, &replica.id().to_string())?;
    Ok(aftermath)
}
