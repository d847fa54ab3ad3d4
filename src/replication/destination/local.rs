//! Buckets of this server: no byte moves, the replica shows the same blob, unless the destination
//! encrypts what the source does not.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::blobs;
use crate::catalog::blob_refs::{self, NewBlob, Place, PlacedPiece, StoredBlob};
use crate::domain::encryption::{Encryption, Sealing};
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
            let default = passed.destination.settings.encryption;
            let sealed_anew = passed.source.encryption == Encryption::None && !default.is_none();
            let carried = if sealed_anew {
                seal_anew(app, &passed.blob, progress).await.map(Carried::Sealed)
            } else {
                let verified = verify_blob(app, &passed.blob, &mut |_| progress.note()).await;
                verified.map(|()| Carried::Shared)
            };
            carried.map_err(|error| failure(&error))
        }
        .boxed()
    }
}

/// Writes the content of a blob into new ones, one for each piece it is made of.
async fn seal_anew(
    app: &App,
    blob: &StoredBlob,
    progress: &Progress,
) -> Result<Vec<NewBlob>, Error> {
    let mut written = Vec::new();
    let outcome = seal_pieces(app, blob, progress, &mut written).await;
    if outcome.is_err() {
        // Nobody knows of them yet, and the next attempt writes others.
        remove_unshown(app, written.iter().filter_map(NewBlob::stored_id)).await;
    }
    outcome.map(|()| written)
}

async fn seal_pieces(
    app: &App,
    blob: &StoredBlob,
    progress: &Progress,
    written: &mut Vec<NewBlob>,
) -> Result<(), Error> {
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
    for range in ranges {
        let note = || progress.note();
        let sealed = reseal(app, blob, range, None, &Sealing::Managed, &note).await?;
        let (digests, intake) = sealed;
        written.push(intake.finish(app, &digests).await?);
    }
    Ok(())
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
