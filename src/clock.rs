//! Time, handed in: nothing else in the crate reads a clock.
//!
//! Two readings are kept apart. Wall time is what clients see and may jump; monotonic time orders
//! leases and time-outs and never goes back. Waits that outlive the process are on a time line made
//! of both, [`Waits`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::time::{Millis, Steady};

/// Where the crate learns what time it is.
pub(crate) trait Clock: Send + Sync {
    /// Wall time in milliseconds since 1970.
    fn now(&self) -> Millis;
    /// Milliseconds since this clock was made; never decreases.
    fn monotonic(&self) -> Millis;
    /// Moves both readings forward by `by_ms`; used by the test controls only.
    fn advance(&self, by_ms: i64);
}

/// The machine's clock, shifted by what the test controls added.
pub(crate) struct SystemClock {
    started: Instant,
    shift_ms: AtomicI64,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), shift_ms: AtomicI64::new(0) }
    }
}

fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Millis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(whole_millis(since_epoch) + self.shift_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Millis {
        Millis(whole_millis(self.started.elapsed()) + self.shift_ms.load(Ordering::Relaxed))
    }

    fn advance(&self, by_ms: i64) {
        self.shift_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

/// The time line of waits: jumps of the wall clock do not reach it while the process runs.
pub(crate) struct Waits {
    clock: Arc<dyn Clock>,
    started_ms: i64,
}

impl Waits {
    /// Starts at wall time, or at `floor` when the wall clock stands before it.
    pub(crate) fn starting_at(clock: Arc<dyn Clock>, floor: Steady) -> Self {
        let started_ms = clock.now().0.max(floor.0) - clock.monotonic().0;
        Self { clock, started_ms }
    }

    pub(crate) fn now(&self) -> Steady {
        Steady(self.started_ms).plus(self.clock.monotonic().0)
    }
}

/// A clock that stands still until it is moved, for tests.
pub(crate) struct ManualClock {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicI64,
}

impl ManualClock {
    pub(crate) fn at(wall: Millis) -> Self {
        Self { wall_ms: AtomicI64::new(wall.0), monotonic_ms: AtomicI64::new(0) }
    }

    /// Moves the wall reading only, as a wrong time server would.
    #[cfg(test)]
    pub(crate) fn jump(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Millis {
        Millis(self.wall_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Millis {
        Millis(self.monotonic_ms.load(Ordering::Relaxed))
    }

    fn advance(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
        self.monotonic_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}
