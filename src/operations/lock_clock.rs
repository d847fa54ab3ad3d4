//! The time by which locks run out. A clock that jumps ahead must free nothing: a lock ends when
//! the time it was given has really passed, or when an operator says that the clock is right.
//!
//! What the clock ought to show is known from the last reading that was believed: while the process
//! runs, monotonic time says how much has passed since; across a stop, that moment is stored,
//! and a stop longer than the tolerance looks like a jump. A wall clock within
//! the tolerance of that is believed, see [`LockTimes::of`]. As long as no bucket has Object Lock
//! there is nothing to guard, and any clock is believed.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Mutex;

use crate::catalog::{Abort, Catalog, buckets, server_facts};
use crate::clock::Clock;
use crate::domain::lock::{Belief, LockTimes, followed_ms};
use crate::domain::time::Millis;
use crate::operations::App;
use crate::operations::accounts::Operator;
use crate::operations::error::Error;

/// The fact that says which time was known to have been at the last look, in milliseconds since
/// 1970.
const KNOWN: &str = "lock_clock_known_ms";
/// How much time passes between two notes of it.
const NOTE_EVERY_MS: i64 = 600_000;

/// The clock of locks.
pub(crate) struct LockClock {
    /// What the wall clock showed when monotonic time was 0, as far as that is proven.
    began_ms: AtomicI64,
    tolerance_ms: i64,
    /// Held while what is proven is changed, by a look or by an operator.
    looks: Mutex<Looks>,
}

/// What one look leaves for the next.
struct Looks {
    /// The stored fact.
    noted: Millis,
    /// Monotonic time of the last look.
    last: Millis,
    /// What the log was told last.
    told: Belief,
}

fn store(known: Millis) -> impl Fn(&mut dyn crate::catalog::Tx) -> Result<(), Abort> {
    move |tx| Ok(server_facts::put_fact(tx, KNOWN, known.0.to_string().as_bytes())?)
}

impl LockClock {
    /// Starts with what the catalog knows. A catalog that knows nothing believes the clock, and
    /// knows that before anything can be locked.
    pub(crate) async fn open(
        catalog: &Catalog,
        clock: &dyn Clock,
        tolerance_ms: i64,
    ) -> Result<Self, Abort> {
        let wall = clock.now();
        let text = catalog.read(|tx| Ok(server_facts::find_fact(tx, KNOWN)?))?;
        let noted = if let Some(text) = text {
            // A note that cannot be read believes no clock.
            String::from_utf8(text).ok().and_then(|text| text.parse().ok())
        } else {
            catalog.write("note_lock_clock", store(wall)).await?;
            Some(wall.0)
        };
        let noted = Millis(noted.unwrap_or_default());
        // A clock that stands before the last look may not have been set yet since the machine
        // started.
        let proven = LockTimes::of(wall, noted, tolerance_ms).locks_run_to.max(noted);
        let last = clock.monotonic();
        Ok(Self {
            began_ms: AtomicI64::new(proven.0.saturating_sub(last.0)),
            tolerance_ms,
            looks: Mutex::new(Looks { noted, last, told: Belief::Believed }),
        })
    }

    /// What the clock says, and up to when locks may run out.
    pub(crate) fn times(&self, clock: &dyn Clock) -> LockTimes {
        // In this order: what passes in between lets the clock be believed no less than before.
        let now = clock.now();
        LockTimes::of(now, self.proven(clock.monotonic()), self.tolerance_ms)
    }

    fn proven(&self, monotonic: Millis) -> Millis {
        Millis(self.began_ms.load(Ordering::Relaxed)).plus(monotonic.0)
    }

    fn prove(&self, now: Millis, monotonic: Millis) {
        self.began_ms.store(now.0.saturating_sub(monotonic.0), Ordering::Relaxed);
    }
}

/// Follows a clock that is believed, notes from time to time what time it is known to have been, and
/// tells the log of a clock that is not believed.
pub(crate) async fn look(app: &App) -> Result<(), Error> {
    let guard = &app.lock_clock;
    let mut looks = guard.looks.lock().await;
    let (now, monotonic) = (app.clock.now(), app.clock.monotonic());
    let proven = guard.proven(monotonic);
    let mut times = LockTimes::of(now, proven, guard.tolerance_ms);
    let passed_ms = monotonic.0.saturating_sub(looks.last.0);
    looks.last = monotonic;
    if times.belief() == Belief::Believed {
        guard.prove(proven.plus(followed_ms(now, proven, passed_ms)), monotonic);
    } else if !app.catalog.read(|tx| Ok(buckets::any_with_lock(tx)?))? {
        note(app, &mut looks, now).await?;
        guard.prove(now, monotonic);
        times = LockTimes::of(now, now, guard.tolerance_ms);
    }
    tell(&mut looks, times);
    if times.known().0.saturating_sub(looks.noted.0) >= NOTE_EVERY_MS {
        note(app, &mut looks, times.known()).await?;
    }
    Ok(())
}

fn tell(looks: &mut Looks, times: LockTimes) {
    let belief = times.belief();
    if std::mem::replace(&mut looks.told, belief) == belief {
        return;
    }
    match belief {
        Belief::Ahead => tracing::warn!(
            clock = %times.now.readable(),
            locks_run_to = %times.locks_run_to.readable(),
            "the clock is ahead of the time that has passed: locks run by the latter until the \
             clock is set right, or `kiln clock confirm` says that it is"
        ),
        Belief::Behind => tracing::warn!(
            clock = %times.now.readable(),
            behind_ms = times.behind_ms(),
            "the clock has gone back: locks hold longer, and default retentions count from what it \
             should show, until the clock is set right, or `kiln clock confirm` says that it is"
        ),
        Belief::Believed => tracing::info!("the clock is believed again, locks run by it"),
    }
}

async fn note(app: &App, looks: &mut Looks, known: Millis) -> Result<(), Error> {
    app.catalog.write("note_lock_clock", store(known)).await?;
    looks.noted = known;
    Ok(())
}

/// What the clock says and up to when locks run, for operators.
pub(crate) fn show(app: &App, _operator: &Operator) -> LockTimes {
    app.lock_clock.times(&*app.clock)
}

/// Believes the clock as it stands, because an operator says that it is right. Stored before it is
/// answered.
pub(crate) async fn confirm(app: &App, _operator: &Operator) -> Result<LockTimes, Error> {
    let guard = &app.lock_clock;
    let mut looks = guard.looks.lock().await;
    let (now, monotonic) = (app.clock.now(), app.clock.monotonic());
    note(app, &mut looks, now).await?;
    guard.prove(now, monotonic);
    looks.told = Belief::Believed;
    tracing::info!(clock = %now.readable(), "an operator has confirmed the clock");
    Ok(LockTimes::of(now, now, guard.tolerance_ms))
}
