//! Blobs whose writer was stopped midway. Nothing shows them and nothing will, and no future is left
//! that could remove them; the sweep does.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::ids::BlobId;
use crate::domain::time::Millis;

/// The blobs, each with the monotonic time at which it was left.
#[derive(Default)]
pub(crate) struct LeftBehind(Mutex<Vec<(BlobId, Millis)>>);

impl LeftBehind {
    fn blobs(&self) -> MutexGuard<'_, Vec<(BlobId, Millis)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, blobs: impl IntoIterator<Item = BlobId>, at: Millis) {
        self.blobs().extend(blobs.into_iter().map(|id| (id, at)));
    }

    /// Takes those that were left at `until` or before: a thread may still have been writing one
    /// when its future went.
    pub(crate) fn take_until(&self, until: Millis) -> Vec<BlobId> {
        self.blobs().extract_if(.., |(_, at)| *at <= until).map(|(id, _)| id).collect()
    }
}
