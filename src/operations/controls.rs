//! What acts and doors ask of the replication engine: tests hold, step and drain it, and acts on streams
//! ask it what is at a remote.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::domain::remote::{Checked, ListedPage, Remote, RemoteBucket, RemoteToken};
use crate::domain::remote_answer::RemoteFault;
use crate::operations::error::Error;

/// What the test controls can do with the engine.
pub(crate) trait EngineControls: Send + Sync {
    /// Keeps the engine from claiming jobs; those in flight end.
    fn hold(&self);
    fn release(&self);
    /// Tells the engine to look now, for example because the clock was moved.
    fn look(&self);
    /// Runs at most one due job to its outcome; false when none was due.
    fn step(self: Arc<Self>) -> BoxFuture<'static, Result<bool, Error>>;
    /// Works until no due job is left or `timeout` has passed; answers whether all is done.
    fn drain(self: Arc<Self>, timeout: Duration) -> BoxFuture<'static, Result<bool, Error>>;
}

/// A bucket at a remote, with what opens it.
#[derive(Clone, Debug)]
pub(crate) struct RemotePlace {
    pub(crate) remote: Remote,
    pub(crate) token: RemoteToken,
    pub(crate) bucket: RemoteBucket,
}

/// What acts on streams ask remotes for.
pub(crate) trait StreamNetwork: Send + Sync {
    /// Whether the bucket is there and may be written to; leaves nothing behind.
    fn check<'a>(&'a self, place: &'a RemotePlace) -> BoxFuture<'a, Result<Checked, RemoteFault>>;

    /// Versions in the bucket whose names begin with `prefix`, in the order of their names; `from` is
    /// where a page before ended.
    fn list<'a>(
        &'a self,
        place: &'a RemotePlace,
        prefix: &'a str,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ListedPage, RemoteFault>>;
}
