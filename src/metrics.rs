//! Every figure the server counts, once.

use std::sync::atomic::{AtomicU64, Ordering};

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
    pub(crate) swept_blobs: Counter,
    /// Walks over a bucket that came to their end, and what they did.
    pub(crate) lifecycle_walks: Counter,
    pub(crate) lifecycle_hidden: Counter,
    pub(crate) lifecycle_deleted: Counter,
    pub(crate) lifecycle_canceled: Counter,
}
