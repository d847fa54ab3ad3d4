//! How tests hold, step and drain the replication engine, seen from the doors.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

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
