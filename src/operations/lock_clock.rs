//! The time by which locks run out. A clock that jumps ahead must free nothing: a lock ends when
//! the time it was given has really passed, or an operator says that the clock is right.
//!
//! While the process runs, monotonic time says how much has passed; across a stop, the moment up to
//! which locks had run when a server last looked is stored. A wall clock within a tolerance of both
//! is believed.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::catalog::{Abort, Catalog, server_facts};
use crate::clock::Clock;
use crate::domain::lock::LockTimes;
use crate::domain::time::Millis;
use crate::operations::App;
use crate::operations::accounts::Operator;
use crate::operations::error::Error;

/// The fact that says up to when locks had run at the last look, in milliseconds since 1970.
const RUN_TO: &str = "locks_run_to_ms";
/// How far locks run on between two notes of it.
const NOTE_EVERY_MS: i64 = 600_000;

/// The clock of locks.
pub(crate) struct LockClock {
    /// Wall time when monotonic time was 0, by the last reading that was believed.
    began_ms: AtomicI64,
    tolerance_ms: i64,
    noted_ms: AtomicI64,
    warned: AtomicBool,
}

impl LockClock {
    /// Starts with what the catalog knows. A new catalog knows nothing, and any clock is believed.
    pub(crate) fn starting_at(
        catalog: &Catalog,
        clock: &dyn Clock,
        tolerance_ms: i64,
    ) -> Result<Self, Abort> {
        let noted = catalog.read(|tx| Ok(server_facts::find_fact(tx, RUN_TO)?))?;
        // A note that cannot be read believes no clock.
        let noted = noted.map(|text| String::from_utf8(text).ok()?.parse().ok());
        let noted: Option<i64> = noted.map(Option::unwrap_or_default);
        let wall = clock.now();
        let proven = noted.map_or(wall, |noted| {
            // A clock that stands before the last look has not been set yet since the machine
            // started.
            LockTimes::of(wall, Millis(noted), tolerance_ms).locks_run_to.max(Millis(noted))
        });
        Ok(Self {
            began_ms: AtomicI64::new(proven.0.saturating_sub(clock.monotonic().0)),
            tolerance_ms,
            noted_ms: AtomicI64::new(noted.unwrap_or(i64::MIN)),
            warned: AtomicBool::new(false),
        })
    }

    /// What the clock says, and up to when locks may run out.
    pub(crate) fn times(&self, clock: &dyn Clock) -> LockTimes {
        // In this order: a clock that is moved in between is believed no more than before.
        let now = clock.now();
        let proven = Millis(self.began_ms.load(Ordering::Relaxed)).plus(clock.monotonic().0);
        LockTimes::of(now, proven, self.tolerance_ms)
    }
}

/// Notes from time to time up to when locks have run, and tells the log of a clock that is not
/// believed.
pub(crate) async fn look(app: &App) -> Result<(), Error> {
    let times = app.lock_clock.times(&*app.clock);
    let held = times.held_ms() > 0;
    let was_warned = app.lock_clock.warned.swap(held, Ordering::Relaxed);
    match (was_warned, held) {
        (false, true) => tracing::warn!(
            clock = %times.now.readable(),
            locks_run_to = %times.locks_run_to.readable(),
            "the clock is ahead of the time that has passed: locks run by the latter until \
             `kiln clock confirm`"
        ),
        (true, false) => tracing::info!("the clock is believed again, locks run by it"),
        _ => {}
    }
    let noted = app.lock_clock.noted_ms.load(Ordering::Relaxed);
    if times.locks_run_to.0.saturating_sub(noted) >= NOTE_EVERY_MS {
        note(app, times.locks_run_to).await?;
    }
    Ok(())
}

async fn note(app: &App, run_to: Millis) -> Result<(), Error> {
    let text = run_to.0.to_string();
    app.catalog
        .write("note_lock_clock", move |tx| {
            Ok(server_facts::put_fact(tx, RUN_TO, text.as_bytes())?)
        })
        .await?;
    app.lock_clock.noted_ms.store(run_to.0, Ordering::Relaxed);
    Ok(())
}

/// What the clock says and up to when locks run, for operators.
pub(crate) fn show(app: &App, _operator: &Operator) -> LockTimes {
    app.lock_clock.times(&*app.clock)
}

/// Believes the clock as it stands, because an operator says that it is right.
pub(crate) async fn confirm(app: &App, _operator: &Operator) -> Result<LockTimes, Error> {
    let now = app.clock.now();
    note(app, now).await?;
    let began = now.0.saturating_sub(app.clock.monotonic().0);
    app.lock_clock.began_ms.store(began, Ordering::Relaxed);
    tracing::info!(clock = %now.readable(), "an operator has confirmed the clock");
    Ok(app.lock_clock.times(&*app.clock))
}
