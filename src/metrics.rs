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
    pub(crate) requests_total: Counter,
    pub(crate) refusals_total: Counter,
    pub(crate) faults_total: Counter,
    pub(crate) uploads_total: Counter,
    pub(crate) upload_bytes_total: Counter,
    pub(crate) downloads_total: Counter,
    pub(crate) replication_jobs_total: Counter,
    pub(crate) replication_skipped_large_metadata_total: Counter,
    pub(crate) replication_done_total: Counter,
    pub(crate) replication_failed_total: Counter,
    pub(crate) replication_retries_total: Counter,
    /// Outcomes that came too late because the lease had been taken over.
    pub(crate) replication_fenced_total: Counter,
    pub(crate) swept_blobs_total: Counter,
}
