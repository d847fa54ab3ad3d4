//! Every figure the server counts, once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::remote::StreamId;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Times of the same kind, counted by how long they were.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Of each bound, how many were at most that long and longer than the bound before; one more
    /// for those beyond all bounds.
    counts: [AtomicU64; Self::BOUNDS_MS.len() + 1],
    sum_ms: AtomicU64,
}

impl Histogram {
    /// From a tenth of a second to an hour.
    pub(crate) const BOUNDS_MS: [u64; 9] =
        [100, 500, 1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 3_600_000];

    pub(crate) fn observe(&self, span_ms: u64) {
        let place = Self::BOUNDS_MS.partition_point(|bound| *bound < span_ms);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ms.fetch_add(span_ms, Ordering::Relaxed);
    }

    /// How many were at most as long as each bound, and last how many there were.
    pub(crate) fn up_to(&self) -> Vec<u64> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        counts
            .scan(0, |sum, count| {
                *sum += count;
                Some(*sum)
            })
            .collect()
    }

    pub(crate) fn sum_ms(&self) -> u64 {
        self.sum_ms.load(Ordering::Relaxed)
    }
}

/// The counters of one replication stream. They begin at zero with the server.
#[derive(Debug, Default)]
pub(crate) struct StreamFigures {
    pub(crate) files_queued: Counter,
    pub(crate) bytes_queued: Counter,
    /// Jobs that had to wait outside of the queue, because that was full.
    pub(crate) spilled: Counter,
    /// Uploads that were stored and that the queue did not take.
    pub(crate) files_failed_to_queue: Counter,
    pub(crate) bytes_failed_to_queue: Counter,
    /// Content that arrived at the remote.
    pub(crate) files_sent: Counter,
    pub(crate) bytes_sent: Counter,
    /// Content that was given up.
    pub(crate) bytes_dropped: Counter,
    pub(crate) expired: Counter,
    /// Versions that were found at the remote after an attempt of unknown outcome.
    pub(crate) adopted: Counter,
    /// Parts that did not have to be sent again.
    pub(crate) resumed_parts: Counter,
    pub(crate) restarted_sessions: Counter,
    /// How far the kept figures of the queue were from the counted ones, when it was counted last.
    pub(crate) drift_bytes: AtomicU64,
    /// Failed attempts, by what the remote answered; 0 where it gave no answer.
    errors: Mutex<BTreeMap<i64, u64>>,
}

impl StreamFigures {
    pub(crate) fn error(&self, status: i64) {
        *self.errors.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
    }

    pub(crate) fn errors(&self) -> BTreeMap<i64, u64> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Which call of an API is counted: what it is about, and what it does with that.
pub(crate) type CallName = (&'static str, &'static str);

/// The figures of one kind of call.
#[derive(Debug, Default)]
pub(crate) struct CallFigures {
    pub(crate) calls: Counter,
    /// From the caller being known to the answer.
    pub(crate) took: Histogram,
    errors: Mutex<BTreeMap<&'static str, u64>>,
}

impl CallFigures {
    pub(crate) fn failed(&self, code: &'static str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(code).or_default() += 1;
    }

    /// How many calls ended with which code.
    pub(crate) fn errors(&self) -> BTreeMap<&'static str, u64> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Calls by their name: for an API that operators call, not for one under load.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<BTreeMap<CallName, Arc<CallFigures>>>);

impl Calls {
    pub(crate) fn of(&self, name: CallName) -> Arc<CallFigures> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default())
    }

    /// Those that there were, in order.
    pub(crate) fn all(&self) -> Vec<(CallName, Arc<CallFigures>)> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().map(|(name, figures)| (*name, Arc::clone(figures))).collect()
    }
}

/// The counters of the whole server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: Counter,
    pub(crate) refusals: Counter,
    pub(crate) faults: Counter,
    pub(crate) uploads: Counter,
    pub(crate) upload_bytes: Counter,
    pub(crate) downloads: Counter,
    pub(crate) replication_jobs: Counter,
    pub(crate) replication_skipped_large_metadata: Counter,
    pub(crate) replication_skipped_customer_key: Counter,
    pub(crate) replication_done: Counter,
    pub(crate) replication_failed: Counter,
    pub(crate) replication_retries: Counter,
    /// Outcomes that came too late because the lease had been taken over.
    pub(crate) replication_fenced: Counter,
    /// Replicas that peers sent and that were stored, and those refused because they go round.
    pub(crate) replication_received: Counter,
    pub(crate) replication_loops: Counter,
    /// From the making of a job to its replica.
    pub(crate) replication_lag: Histogram,
    /// Jobs that were not done in time, and those of them that were done after all.
    pub(crate) replication_missed_threshold: Counter,
    pub(crate) replication_late: Counter,
    pub(crate) swept_blobs: Counter,
    /// Walks over a bucket that came to their end, and what they did.
    pub(crate) lifecycle_walks: Counter,
    pub(crate) lifecycle_hidden: Counter,
    pub(crate) lifecycle_deleted: Counter,
    pub(crate) lifecycle_canceled: Counter,
    /// Events put into a queue.
    pub(crate) notification_events: Counter,
    pub(crate) notification_delivered: Counter,
    /// Attempts that failed.
    pub(crate) notification_failures: Counter,
    /// Events lost: the queue was full, or they could not be delivered in time.
    pub(crate) notification_dropped: Counter,
    pub(crate) notification_suspensions: Counter,
    /// Unfinished files that could not be given up at a remote.
    pub(crate) orphan_sessions: Counter,
    /// About remotes and replication streams.
    pub(crate) stream_calls: Calls,
    streams: Mutex<BTreeMap<StreamId, Arc<StreamFigures>>>,
}

impl Metrics {
    /// The counters of a stream.
    pub(crate) fn stream(&self, id: StreamId) -> Arc<StreamFigures> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(streams.entry(id).or_default())
    }

    /// Called when a stream is gone, so that its counters do not stay for ever.
    pub(crate) fn forget_stream(&self, id: StreamId) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_time_below_every_bound_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for span_ms in [0, 100, 101, 3_600_000, 3_600_001] {
            histogram.observe(span_ms);
        }
        assert_eq!(histogram.up_to(), [2, 3, 3, 3, 3, 3, 3, 3, 4, 5]);
        assert_eq!(histogram.sum_ms(), 7_200_202);
    }
}
