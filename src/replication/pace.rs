//! How fast bytes may go: as many as a second allows, for one remote and for all of them together.
//!
//! Bytes are let through in the order in which they were asked for. Each asker has a place in that
//! order, counted in bytes; the limit moves the end of what may go with time. So a rate that changes
//! holds for those who wait already, and nobody overtakes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::clock::Clock;
use crate::domain::remote::{BandwidthWindow, RemoteOptions};
use crate::domain::time::{DAY_MS, Millis};
use crate::replication::destination::Progress;
use crate::replication::destination::store::Pace;

/// What may go at once after a pause, at least (C7).
const BURST_BYTES_MIN: u64 = 64 * 1024;
/// Who waits looks again after at most this long: the clock may have been moved, or the rate.
const LOOK_MS_MAX: i64 = 100;

/// The rates of a limit: one for most of the day, others at times of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Bytes per second; None without a limit.
    usual: Option<u64>,
    windows: Vec<BandwidthWindow>,
}

impl Rates {
    pub(crate) fn always(bytes_per_second: Option<u64>) -> Self {
        Self { usual: bytes_per_second, windows: Vec::new() }
    }

    pub(crate) fn of(options: &RemoteOptions) -> Self {
        let (usual, windows) =
            (options.bandwidth_bytes_per_second, options.bandwidth_windows.clone());
        Self { usual, windows }
    }

    /// The rate that holds at a moment, in bytes per second; None without a limit. Times of day are
    /// those of UTC, since nothing here knows of zones. The first window that fits counts; one that
    /// allows nothing allows a byte a second, so that what waits is not taken for dead.
    fn at(&self, now: Millis) -> Option<u64> {
        let minute = u32::try_from(now.0.rem_euclid(DAY_MS) / 60_000).unwrap_or_default();
        let fitting = self.windows.iter().find(|window| window.holds_at(minute));
        let rate = fitting.map_or(self.usual, |window| Some(window.bytes_per_second));
        rate.map(|rate| rate.max(1))
    }
}

/// A limit that many may share.
pub(crate) struct Limit {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Milliseconds that askers have waited, all together.
    waited_ms: AtomicU64,
}

struct State {
    rates: Rates,
    /// Bytes that may have gone by now, times 1000; counted from the beginning of the limit.
    released: u128,
    /// Bytes that were asked for, times 1000.
    asked: u128,
    /// When `released` was last moved, by the monotonic clock.
    moved_at: Millis,
}

impl State {
    /// Moves the end of what may go. What nobody asked for is lost but for a burst.
    fn advance(&mut self, rate: u64, now: Millis) {
        let passed_ms = now.0.saturating_sub(self.moved_at.0).max(0);
        self.moved_at = now;
        self.released += u128::from(rate) * u128::from(passed_ms.unsigned_abs());
        let burst = u128::from(BURST_BYTES_MIN.max(rate / 10)) * 1000;
        self.released = self.released.min(self.asked + burst);
    }
}

impl Limit {
    pub(crate) fn new(clock: Arc<dyn Clock>, rates: Rates) -> Self {
        let moved_at = clock.monotonic();
        let state = State { rates, released: 0, asked: 0, moved_at };
        Self { clock, state: Mutex::new(state), waited_ms: AtomicU64::new(0) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets other rates; they hold for those who wait, too.
    pub(crate) fn set_rates(&self, rates: Rates) {
        self.state().rates = rates;
    }

    #[cfg(test)]
    /// How long askers have waited, all together, in milliseconds.
    pub(crate) fn waited_ms(&self) -> u64 {
        self.waited_ms.load(Ordering::Relaxed)
    }

    /// Takes a place for so many bytes.
    fn queue(&self, bytes: u64) -> u128 {
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let mut state = self.state();
        match state.rates.at(now) {
            Some(rate) => state.advance(rate, monotonic),
            None => state.moved_at = monotonic,
        }
        state.asked += u128::from(bytes) * 1000;
        state.asked
    }

    /// How long a place still has to wait by what is known now, in milliseconds; 0 when it may go.
    fn wait_ms(&self, place: u128) -> i64 {
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let mut state = self.state();
        let Some(rate) = state.rates.at(now) else {
            state.moved_at = monotonic;
            state.released = state.released.max(place);
            return 0;
        };
        state.advance(rate, monotonic);
        let missing = place.saturating_sub(state.released);
        i64::try_from(missing.div_ceil(u128::from(rate))).unwrap_or(i64::MAX)
    }
}

/// What one attempt goes by: the limits that hold for it, and where it notes that it gets on.
pub(crate) struct LimitedPace {
    limits: Vec<Arc<Limit>>,
    progress: Progress,
}

impl LimitedPace {
    pub(crate) fn new(limits: Vec<Arc<Limit>>, progress: Progress) -> Self {
        Self { limits, progress }
    }
}

impl Pace for LimitedPace {
    fn admit(&self, bytes: u64) -> BoxFuture<'static, ()> {
        self.progress.note();
        let (limits, progress) = (self.limits.clone(), self.progress.clone());
        async move {
            for limit in limits {
                let place = limit.queue(bytes);
                loop {
                    let wait_ms = limit.wait_ms(place).min(LOOK_MS_MAX);
                    if wait_ms == 0 {
                        break;
                    }
                    let waited = u64::try_from(wait_ms).unwrap_or_default();
                    tokio::time::sleep(Duration::from_millis(waited)).await;
                    limit.waited_ms.fetch_add(waited, Ordering::Relaxed);
                    // To wait for its turn is no stall.
                    progress.note();
                }
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const MIB: u64 = 1024 * 1024;
    const CHUNK: u64 = 128 * 1024;

    fn limit(rates: Rates) -> (Arc<ManualClock>, Limit) {
        let clock = Arc::new(ManualClock::at(Millis(0)));
        let limit = Limit::new(Arc::<ManualClock>::clone(&clock), rates);
        (clock, limit)
    }

    /// Sends so many bytes one chunk after the other; answers how long that took by the clock.
    fn send(clock: &ManualClock, limit: &Limit, bytes: u64) -> i64 {
        let started = clock.monotonic().0;
        for _ in 0..bytes / CHUNK {
            let place = limit.queue(CHUNK);
            loop {
                let wait_ms = limit.wait_ms(place);
                if wait_ms == 0 {
                    break;
                }
                clock.advance(wait_ms.min(LOOK_MS_MAX));
            }
        }
        clock.monotonic().0 - started
    }

    #[test]
    fn replication_202_a_cap_of_one_mib_a_second_gives_a_minute_for_sixty() {
        let (clock, limit) = limit(Rates::always(Some(MIB)));
        let took = send(&clock, &limit, 60 * MIB);
        assert!((57_000..=63_000).contains(&took), "{took}");
        // A pause saves up no more than a burst.
        clock.advance(3_600_000);
        let took = send(&clock, &limit, 60 * MIB);
        assert!((57_000..=63_000).contains(&took), "{took}");
    }

    #[test]
    fn without_a_limit_nobody_waits_and_one_that_comes_holds_from_then_on() {
        let (clock, limit) = limit(Rates::default());
        assert_eq!(send(&clock, &limit, 100 * MIB), 0);
        limit.set_rates(Rates::always(Some(MIB)));
        let took = send(&clock, &limit, 10 * MIB);
        assert!((9_000..=11_000).contains(&took), "{took}");
    }

    #[test]
    fn a_rate_that_changes_holds_for_those_who_wait() {
        let (clock, limit) = limit(Rates::always(Some(1)));
        let first = limit.queue(MIB);
        let second = limit.queue(MIB);
        clock.advance(1000);
        assert!(limit.wait_ms(first) > 500_000);
        limit.set_rates(Rates::always(Some(MIB)));
        assert!((900..=1100).contains(&limit.wait_ms(first)), "{}", limit.wait_ms(first));
        assert!((1900..=2100).contains(&limit.wait_ms(second)));
        clock.advance(1000);
        assert_eq!(limit.wait_ms(first), 0);
        assert!(limit.wait_ms(second) > 0, "nobody overtakes");
    }

    #[test]
    fn windows_have_rates_of_their_own_and_may_go_over_midnight() {
        let window = |from: &str, to: &str, bytes_per_second| BandwidthWindow {
            from: from.to_owned(),
            to: to.to_owned(),
            bytes_per_second,
        };
        let rates = Rates {
            usual: Some(5),
            windows: vec![window("22:00", "06:30", 9), window("12:00", "13:00", 0)],
        };
        let at = |hours: i64, minutes: i64| rates.at(Millis((hours * 60 + minutes) * 60_000));
        assert_eq!((at(21, 59), at(22, 0), at(23, 59)), (Some(5), Some(9), Some(9)));
        assert_eq!((at(0, 0), at(6, 29), at(6, 30)), (Some(9), Some(9), Some(5)));
        assert_eq!((at(12, 0), at(13, 0)), (Some(1), Some(5)), "nothing is as little as can be");
        for wrong in ["24:00", "1:00", "01:60", "0100", "", "+1:00", "01:+1"] {
            let unreadable = window(wrong, "12:00", 9);
            assert!((0..1440).all(|minute| !unreadable.holds_at(minute)), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_slowest_of_several_limits_holds_and_waiting_is_no_stall() {
        let clock = Arc::new(ManualClock::at(Millis(0)));
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let slow = Arc::new(Limit::new(Arc::clone(&shared), Rates::always(Some(MIB))));
        let open = Arc::new(Limit::new(Arc::clone(&shared), Rates::default()));
        let progress = Progress::starting_now(Arc::clone(&shared));
        let limits = vec![open, Arc::clone(&slow)];
        let pace = LimitedPace::new(limits, progress.clone());
        let admitted = tokio::spawn(pace.admit(10 * MIB));
        let mut passed = 0;
        while !admitted.is_finished() {
            clock.advance(100);
            passed += 100;
            while progress.noted_at() < clock.monotonic() && !admitted.is_finished() {
                tokio::task::yield_now().await;
            }
        }
        admitted.await.unwrap();
        assert!((9_500..=11_000).contains(&passed), "{passed}");
        assert!(slow.waited_ms() > 0);
    }
}
