//! A blob store that counts what passes through it.
//!
//! Shape: a decorator; it changes nothing. Failures are counted whatever their kind, because none
//! of them is the normal course of things.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::blobs::sealed::Sealer;
use crate::blobs::{BlobReader, BlobStore, BlobWriter, Error};
use crate::domain::blob::Placement;
use crate::domain::digest::{BlockChecks, Digests};
use crate::domain::ids::BlobId;
use crate::domain::range::ByteRange;

/// Totals since the start of the server.
#[derive(Debug, Default)]
pub(crate) struct BlobMetrics {
    /// Bytes taken from writers, finished or not.
    pub(crate) written_bytes: AtomicU64,
    /// Blobs finished, those handed back for the catalog included.
    pub(crate) written_blobs: AtomicU64,
    /// Bytes handed to readers.
    pub(crate) read_bytes: AtomicU64,
    pub(crate) opened_blobs: AtomicU64,
    pub(crate) removed_blobs: AtomicU64,
    /// Calls of any kind that answered with an error.
    pub(crate) failures: AtomicU64,
}

impl BlobMetrics {
    /// Counts `by` when the call went well, a failure otherwise.
    fn note<T>(&self, outcome: &Result<T, Error>, counter: Option<&AtomicU64>, by: u64) {
        match (outcome, counter) {
            (Ok(_), Some(counter)) => counter.fetch_add(by, Ordering::Relaxed),
            (Ok(_), None) => 0,
            (Err(_), _) => self.failures.fetch_add(1, Ordering::Relaxed),
        };
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Counts the calls to another store.
pub(crate) struct MeteredStore {
    inner: Arc<dyn BlobStore>,
    metrics: Arc<BlobMetrics>,
}

impl MeteredStore {
    pub(crate) fn new(inner: Arc<dyn BlobStore>, metrics: Arc<BlobMetrics>) -> Self {
        Self { inner, metrics }
    }
}

impl BlobStore for MeteredStore {
    fn begin(
        &self,
        id: BlobId,
        size: u64,
        sealer: Option<Sealer>,
    ) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, Error>> {
        Box::pin(async move {
            let begun = self.inner.begin(id, size, sealer).await;
            self.metrics.note(&begun, None, 0);
            let metrics = Arc::clone(&self.metrics);
            let writer: Box<dyn BlobWriter> = Box::new(MeteredWriter { inner: begun?, metrics });
            Ok(writer)
        })
    }

    fn open(
        &self,
        id: BlobId,
        size: u64,
        range: ByteRange,
        checks: BlockChecks,
    ) -> BoxFuture<'_, Result<Box<dyn BlobReader>, Error>> {
        Box::pin(async move {
            let opened = self.inner.open(id, size, range, checks).await;
            self.metrics.note(&opened, Some(&self.metrics.opened_blobs), 1);
            let metrics = Arc::clone(&self.metrics);
            let reader: Box<dyn BlobReader> = Box::new(MeteredReader { inner: opened?, metrics });
            Ok(reader)
        })
    }

    fn remove(&self, id: BlobId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let removed = self.inner.remove(id).await;
            self.metrics.note(&removed, Some(&self.metrics.removed_blobs), 1);
            removed
        })
    }

    fn list(
        &self,
        after: Option<BlobId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobId>, Error>> {
        Box::pin(async move {
            let listed = self.inner.list(after, limit).await;
            self.metrics.note(&listed, None, 0);
            listed
        })
    }

    fn suspect(&self) -> Option<String> {
        self.inner.suspect()
    }
}

struct MeteredWriter {
    inner: Box<dyn BlobWriter>,
    metrics: Arc<BlobMetrics>,
}

impl BlobWriter for MeteredWriter {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let bytes = length(&chunk);
            let written = self.inner.write(chunk).await;
            self.metrics.note(&written, Some(&self.metrics.written_bytes), bytes);
            written
        })
    }

    fn digests(&mut self) -> BoxFuture<'_, Result<Digests, Error>> {
        Box::pin(async move {
            let digests = self.inner.digests().await;
            self.metrics.note(&digests, None, 0);
            digests
        })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Placement, Error>> {
        Box::pin(async move {
            let placed = self.inner.finish().await;
            self.metrics.note(&placed, Some(&self.metrics.written_blobs), 1);
            placed
        })
    }
}

struct MeteredReader {
    inner: Box<dyn BlobReader>,
    metrics: Arc<BlobMetrics>,
}

impl BlobReader for MeteredReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, Error>>> {
        Box::pin(async move {
            let chunk = self.inner.next().await?;
            let bytes = chunk.as_ref().map_or(0, length);
            self.metrics.note(&chunk, Some(&self.metrics.read_bytes), bytes);
            Some(chunk)
        })
    }
}
