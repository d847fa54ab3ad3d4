//! Where replicas go.

#[cfg(test)]
pub(crate) mod faulty;
pub(crate) mod local;

use futures_util::future::BoxFuture;

use crate::domain::replication::Reason;
use crate::operations::App;
use crate::replication::gate::Passed;

/// Why carrying failed. The reason decides what follows, the text informs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

/// A place that can receive the bytes of a version.
pub(crate) trait Destination: Send + Sync {
    /// Makes sure that the bytes are at the destination, whole and right. What makes the replica
    /// visible is the outcome of the job, not this.
    fn carry<'a>(&'a self, app: &'a App, passed: &'a Passed) -> BoxFuture<'a, Result<(), Failure>>;
}
