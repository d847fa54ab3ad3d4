//! Where replicas go.

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
pub(crate) mod faulty;
pub(crate) mod local;
pub(crate) mod remote;
pub(crate) mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::BoxFuture;

use crate::catalog::blob_refs::NewBlob;
use crate::clock::Clock;
use crate::domain::ids::BlobId;
use crate::domain::replication::Reason;
use crate::domain::time::Millis;
use crate::operations::App;
use crate::replication::gate::Passed;

/// Why carrying failed. The reason decides what follows, the text informs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

/// Where an attempt notes that it gets on. One that notes nothing for too long is given up, however
/// long the whole of it may take.
#[derive(Clone)]
pub(crate) struct Progress {
    clock: Arc<dyn Clock>,
    noted_ms: Arc<AtomicI64>,
}

impl Progress {
    pub(crate) fn starting_now(clock: Arc<dyn Clock>) -> Self {
        let noted_ms = Arc::new(AtomicI64::new(clock.monotonic().0));
        Self { clock, noted_ms }
    }

    /// Something got done: bytes were read, sent or acknowledged.
    pub(crate) fn note(&self) {
        self.noted_ms.store(self.clock.monotonic().0, Ordering::Relaxed);
    }

    /// When something got done last, in monotonic time.
    pub(crate) fn noted_at(&self) -> Millis {
        Millis(self.noted_ms.load(Ordering::Relaxed))
    }
}

/// The bytes of a replica, ready to be shown.
#[derive(Clone, Debug)]
pub(crate) enum Carried {
    /// The replica shows the blob of its source.
    Shared,
    /// The replica is encrypted with SSE-B2, its source is not: the content in new blobs, in order.
    Sealed(Vec<NewBlob>),
}

impl Carried {
    /// Blobs in the store that nothing shows yet.
    pub(crate) fn stored_ids(&self) -> Vec<BlobId> {
        match self {
            Self::Shared => Vec::new(),
            Self::Sealed(blobs) => blobs.iter().filter_map(NewBlob::stored_id).collect(),
        }
    }
}

/// A place that can receive the bytes of a version.
pub(crate) trait Destination: Send + Sync {
    /// Makes sure that the bytes are at the destination, whole and right, and notes each step on
    /// the way. What makes the replica visible is the outcome of the job, not this.
    fn carry<'a>(
        &'a self,
        app: &'a App,
        passed: &'a Passed,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Carried, Failure>>;
}
