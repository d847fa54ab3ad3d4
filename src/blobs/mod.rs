//! Bytes: immutable blobs under a [`BlobId`].
//!
//! Kept here: how content reaches the disk and comes back. Deliberately not here: names, buckets,
//! rights, and which blobs are wanted; the catalog knows that. Operations and the workers call.
//! The promise that would break first: [`BlobWriter::finish`] answering Ok means that the bytes
//! are durable. Until then nobody can see them, and a writer that is dropped leaves nothing that
//! the sweep would not find.

pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod faulty;
pub(crate) mod metered;
pub(crate) mod sealed;

#[cfg(test)]
mod contract;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::blobs::sealed::Sealer;
use crate::domain::blob::Placement;
use crate::domain::digest::{BlockChecks, Corrupt, Digests};
use crate::domain::ids::BlobId;
use crate::domain::range::ByteRange;

/// Why bytes could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No blob of that id: a row without bytes, which must never happen.
    #[error("blob {0} is missing")]
    Missing(BlobId),
    /// The bytes read back are not those that were written.
    #[error("blob {id} is damaged in block {}", .corrupt.block)]
    Damaged { id: BlobId, corrupt: Corrupt },
    /// No space or quota left; the caller may try again when there is.
    #[error("{doing}: no space left")]
    Full { doing: &'static str },
    /// An earlier failure to make bytes durable; nothing is written any more until a restart.
    #[error("the blob store is suspect and takes no writes: {0}")]
    Suspect(String),
    /// Anything else the operating system said.
    #[error("{doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// A place for blobs.
pub(crate) trait BlobStore: Send + Sync {
    /// Starts writing a blob whose content has `size` bytes, under an id never used before. With a
    /// sealer, what is stored is the sealed form of the content.
    fn begin(
        &self,
        id: BlobId,
        size: u64,
        sealer: Option<Sealer>,
    ) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, Error>>;

    /// Opens `range` of the `size` stored bytes of a blob. `checks` are those its writer returned;
    /// every block of which the range wants a byte is compared before any of it is handed out.
    fn open(
        &self,
        id: BlobId,
        size: u64,
        range: ByteRange,
        checks: BlockChecks,
    ) -> BoxFuture<'_, Result<Box<dyn BlobReader>, Error>>;

    /// Removes a blob; one that is already gone is no error.
    fn remove(&self, id: BlobId) -> BoxFuture<'_, Result<(), Error>>;

    /// Ids of at most `limit` stored blobs greater than `after`, ascending.
    fn list(
        &self,
        after: Option<BlobId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobId>, Error>>;

    /// Why the store takes no more writes, when an earlier failure made it suspect.
    fn suspect(&self) -> Option<String>;
}

/// Content on its way in. Dropping it forgets the content.
pub(crate) trait BlobWriter: Send {
    /// Takes the next bytes. Waiting for it is the back-pressure.
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Error>>;

    /// Waits for all bytes and tells what they are; nothing can be written afterwards.
    fn digests(&mut self) -> BoxFuture<'_, Result<Digests, Error>>;

    /// Makes the content durable. Called after [`BlobWriter::digests`].
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Placement, Error>>;
}

/// Content on its way out.
pub(crate) trait BlobReader: Send {
    /// The next bytes, None at the end of the range. After an error there is nothing more.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, Error>>>;
}
