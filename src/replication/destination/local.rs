//! Buckets of this server: no byte moves, the replica shows the same blob.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::blobs;
use crate::domain::replication::Reason;
use crate::operations::App;
use crate::operations::download::verify_blob;
use crate::operations::error::Error;
use crate::replication::destination::{Destination, Failure, Progress};
use crate::replication::gate::Passed;

/// Destination buckets of this server.
pub(crate) struct Local;

impl Destination for Local {
    /// Reads the blob through and compares it with its checks: a replica that shared damaged bytes
    /// would be believed to be a second copy.
    fn carry<'a>(
        &'a self,
        app: &'a App,
        passed: &'a Passed,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let verified = verify_blob(app, &passed.blob, &mut |_| progress.note()).await;
            verified.map_err(|error| failure(&error))
        }
        .boxed()
    }
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
