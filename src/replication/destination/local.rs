//! Buckets of this server: no byte moves, the replica shows the same blob, unless the destination
//! encrypts what the source does not.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::blobs;
use crate::catalog::blob_refs::{self, NewBlob, Place, PlacedPiece};
use crate::domain::digest::{Corrupt, Hasher};
use crate::domain::encryption::Sealing;
use crate::domain::ids::BlobId;
use crate::domain::range::ByteRange;
use crate::domain::replication::Reason;
use crate::operations::App;
use crate::operations::download::verify_blob;
use crate::operations::encryption::reseal;
use crate::operations::error::Error;
use crate::operations::upload::remove_unshown;
use crate::replication::destination::{Carried, Destination, Failure, Progress};
use crate::replication::gate::Passed;

/// Destination buckets of this server.
pub(crate) struct Local;

impl Destination for Local {
    /// Reads the blob through and compares it with its checks: a replica that shared damaged bytes
    /// would be believed to be a second copy. Where the destination encrypts what its source does
    /// not, the content is written anew.
    fn carry<'a>(
        &'a self,
        app: &'a App,
        passed: &'a Passed,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Carried, Failure>> {
        async move {
            let carried = if passed.seals_anew() {
                seal_anew(app, passed, progress).await.map(Carried::Sealed)
            } else {
                let verified = verify_blob(app, &passed.blob, &mut |_| progress.note()).await;
                verified.map(|()| Carried::Shared)
            };
            carried.map_err(|error| failure(&error))
        }
        .boxed()
    }
}

/// Blobs that an attempt has begun and that nothing shows yet. An attempt that is given up midway
/// leaves them to the sweep.
struct Begun<'a> {
    app: &'a App,
    ids: Vec<BlobId>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.ids.is_empty() {
            self.app.left_behind.add(self.ids.drain(..), self.app.clock.monotonic());
        }
    }
}

/// Writes the content of a version into new blobs, one for each piece it is made of.
async fn seal_anew(app: &App, passed: &Passed, progress: &Progress) -> Result<Vec<NewBlob>, Error> {
    let mut begun = Begun { app, ids: Vec::new() };
    let outcome = seal_pieces(app, passed, progress, &mut begun.ids).await;
    if outcome.is_err() {
        // Nobody knows of them yet, and the next attempt writes others.
        remove_unshown(app, begun.ids.iter().copied()).await;
    }
    begun.ids.clear();
    outcome
}

async fn seal_pieces(
    app: &App,
    passed: &Passed,
    progress: &Progress,
    begun: &mut Vec<BlobId>,
) -> Result<Vec<NewBlob>, Error> {
    let Passed { source, blob, .. } = passed;
    let whole = ByteRange::whole(blob.size);
    let ranges = if blob.place == Place::Pieces {
        let pieces = app.catalog.read(|tx| Ok(blob_refs::pieces(tx, blob.id, whole, i64::MAX)?))?;
        let range = |placed: PlacedPiece| ByteRange {
            start: placed.start_at,
            end: placed.start_at + placed.piece.size,
        };
        pieces.into_iter().map(range).collect()
    } else {
        vec![whole]
    };
    let known = source.sha1.digest();
    // Of the whole; that of a single piece is computed while it is written.
    let mut hasher = known.filter(|_| ranges.len() > 1).map(|_| Hasher::new());
    let (mut written, mut sha1) = (Vec::with_capacity(ranges.len()), None);
    for range in ranges {
        let mut each = |chunk: &[u8]| {
            progress.note();
            if let Some(hasher) = &mut hasher {
                hasher.content(chunk);
            }
        };
        let sealed = reseal(app, blob, range, None, &Sealing::Managed, &mut each).await?;
        let (digests, intake) = sealed;
        // Before it can be in the store.
        begun.push(intake.id());
        sha1 = Some(digests.sha1);
        written.push(intake.finish(app, &digests).await?);
    }
    let sha1 = hasher.map(|hasher| hasher.finish().sha1).or(sha1);
    // What the checks of blocks have missed must not be sealed in as if it were right.
    if known.is_some() && known != sha1 {
        let corrupt = Corrupt { block: 0 };
        return Err(blobs::Error::Damaged { id: blob.id, corrupt }.into());
    }
    Ok(written)
}

/// Sorts an error of ours into a reason.
pub(crate) fn failure(error: &Error) -> Failure {
    let text = match error {
        Error::Refused(refusal) => refusal.to_string(),
        Error::Fault(fault) => format!("{fault}: {}", fault.source),
    };
    let cause = match error {
        Error::Fault(fault) => fault.source.downcast_ref::<blobs::Error>(),
        Error::Refused(_) => None,
    };
    let reason = match cause {
        Some(blobs::Error::Damaged { .. } | blobs::Error::Missing(_)) => Reason::SourceCorrupt,
        Some(blobs::Error::Full { .. }) => Reason::DiskFull,
        _ => Reason::IoError,
    };
    Failure { reason, text }
}
